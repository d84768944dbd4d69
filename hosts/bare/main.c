/* SPDX-License-Identifier: MIT */
#include "bare.h"
#include "dimm.h"
#include "firmware.h"
#include "task.h"
#include "virtio_memory.h"

#define IDLE_NS 20000000u /* what nobody calls for is looked for so often */
#define SERIAL_PIN 4u

void bare_main(uint64_t start_info);

static void run_console(void)
{
    for (;;)
        if (!bare_console_poll() && !bare_dimm_poll() && !bare_virtio_memory_poll())
            bare_sleep(IDLE_NS);
}

void bare_main(uint64_t start_info)
{
    bare_serial_start();
    bare_firmware_read(start_info);
    bare_memory_start();
    bare_tables_start();
    bare_acpi_read();
    bare_apic_start();
    bare_clock_start();
    bare_cpu_start(0);
    bare_route(SERIAL_PIN, BARE_VECTOR_SERIAL);
    bare_start_others(bare_work);
    bare_pool_start();
    bare_tasks_start();
    bare_dimm_start();
    bare_print("memplug on %u CPUs, %u nodes\n", bare_nr_cpus, bare_firmware.nr_nodes);
    run_console();
}
