/* SPDX-License-Identifier: MIT */
/* The interrupt controllers, the clock, and TLB shootdown. */
#include "bare.h"
#include "task.h"

#include "io.h"

#define LOCAL 0xfee00000u
#define IO_APIC 0xfec00000u
#define ALL_BUT_SELF 0xc0000u
#define INIT 0x4500u
#define STARTUP 0x4600u
#define PENDING 0x1000u
#define MASKED 0x10000u
#define CALIBRATE_NS 10000000u
#define FEW_PAGES 64u

enum { ID = 0x20, END = 0xb0, SPURIOUS = 0xf0, COMMAND = 0x300, COMMAND_TO = 0x310,
       LINT_TIMER = 0x320, COUNT = 0x380, COUNT_NOW = 0x390, DIVIDE = 0x3e0 };

static volatile uint32_t *local, *io;
static uint64_t tsc_per_ms, timer_per_ms, tsc_start;

static uint32_t local_read(unsigned at)
{
    return local[at / 4];
}

static void local_write(unsigned at, uint32_t value)
{
    local[at / 4] = value;
}

/* The two old controllers are told to be silent. */
void bare_apic_start(void)
{
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
    local = bare_map_device(LOCAL, BARE_PAGE);
    io = bare_map_device(IO_APIC, BARE_PAGE);
    if (!local || !io)
        bare_panic("no memory for the interrupt controllers");
}

void bare_apic_enable(void)
{
    local_write(SPURIOUS, 0x100 | BARE_VECTOR_SPURIOUS);
    local_write(DIVIDE, 0x3); /* by 16 */
    local_write(LINT_TIMER, BARE_VECTOR_TIMER);
}

void bare_apic_end(void)
{
    local_write(END, 0);
}

/* With interrupts off: the two halves of a command are one. */
static void command(uint32_t to, uint32_t what)
{
    uint64_t flags;

    __asm__ volatile("pushfq; popq %0; cli" : "=r"(flags) : : "memory");
    while (local_read(COMMAND) & PENDING)
        cpu_pause();
    local_write(COMMAND_TO, to << 24);
    local_write(COMMAND, what);
    __asm__ volatile("pushq %0; popfq" : : "r"(flags) : "memory", "cc");
}

void bare_apic_send(uint32_t apic_id, unsigned vector)
{
    command(apic_id, vector);
}

void bare_apic_send_others(unsigned vector)
{
    if (local && bare_nr_cpus > 1)
        command(0, ALL_BUT_SELF | vector);
}

void bare_apic_wake(uint32_t apic_id, uint64_t code)
{
    command(apic_id, INIT);
    bare_spin_ns(10000000);
    command(apic_id, STARTUP | (uint32_t)(code >> 12));
    bare_spin_ns(1000000);
    command(apic_id, STARTUP | (uint32_t)(code >> 12));
}

void bare_route(unsigned pin, unsigned vector)
{
    io[0] = 0x10 + 2 * pin + 1;
    io[4] = bare_cpus[0].apic_id << 24;
    io[0] = 0x10 + 2 * pin;
    io[4] = vector;
}

/* --- the clock -------------------------------------------------------------------------------- */

/* Ten milliseconds of the old timer's second channel, whose end can be seen at port 0x61. */
static void wait_pit(void)
{
    uint16_t count = (uint16_t)(1193182u * (CALIBRATE_NS / 1000000u) / 1000u);

    out8(0x61, (uint8_t)((in8(0x61) & ~0x02u) | 0x01u));
    out8(0x43, 0xb0);
    out8(0x42, (uint8_t)count);
    out8(0x42, (uint8_t)(count >> 8));
    while (!(in8(0x61) & 0x20))
        cpu_pause();
}

void bare_clock_start(void)
{
    uint64_t tsc;

    local_write(SPURIOUS, 0x100 | BARE_VECTOR_SPURIOUS);
    local_write(DIVIDE, 0x3);
    local_write(LINT_TIMER, MASKED);
    local_write(COUNT, UINT32_MAX);
    tsc_start = tsc = read_tsc();
    wait_pit();
    tsc_per_ms = (read_tsc() - tsc) / (CALIBRATE_NS / 1000000u);
    timer_per_ms = (UINT32_MAX - local_read(COUNT_NOW)) / (CALIBRATE_NS / 1000000u);
    local_write(COUNT, 0);
    if (!tsc_per_ms || !timer_per_ms)
        bare_panic("the clocks do not run");
}

uint64_t bare_now(void)
{
    uint64_t ticks = read_tsc() - tsc_start, ms = ticks / tsc_per_ms;

    return ms * 1000000 + (ticks - ms * tsc_per_ms) * 1000000 / tsc_per_ms;
}

static struct {
    uint64_t at_ns;
    uint32_t *stop;
} alarm;

void bare_alarm(uint64_t at_ns, uint32_t *stop)
{
    interrupts_off();
    alarm.at_ns = at_ns;
    alarm.stop = stop;
    interrupts_on();
}

void bare_alarm_ring(void)
{
    if (alarm.stop && bare_now() >= alarm.at_ns)
        __atomic_store_n(alarm.stop, 1, __ATOMIC_RELEASE);
}

void bare_spin_ns(uint64_t ns)
{
    uint64_t end = bare_now() + ns;

    while (bare_now() < end)
        cpu_pause();
}

void bare_sleep(uint64_t ns)
{
    uint64_t count = ns * timer_per_ms / 1000000;

    interrupts_off();
    local_write(COUNT, count > UINT32_MAX ? UINT32_MAX : count ? (uint32_t)count : 1);
    wait_for_interrupt();
}

/* --- shootdown -------------------------------------------------------------------------------- */

static struct {
    struct bare_spin spin;
    uint64_t number; /* of shootdowns */
    uint64_t virtual, size_bytes;
} flush;

bool bare_flush_others = true;

static void forget(uint64_t virtual, uint64_t size_bytes)
{
    if (size_bytes > FEW_PAGES * BARE_PAGE) {
        write_cr3(read_cr3());
        return;
    }
    for (uint64_t done = 0; done < size_bytes; done += BARE_PAGE)
        invalidate_page(virtual + done);
}

void bare_flush_here(struct bare_cpu *cpu)
{
    uint64_t number = __atomic_load_n(&flush.number, __ATOMIC_ACQUIRE);

    forget(flush.virtual, flush.size_bytes);
    __atomic_store_n(&cpu->flushed, number, __ATOMIC_RELEASE);
}

static void flush_others(void)
{
    uint64_t number = flush.number + 1;
    unsigned me = bare_cpu();

    __atomic_store_n(&flush.number, number, __ATOMIC_RELEASE);
    bare_apic_send_others(BARE_VECTOR_FLUSH);
    for (unsigned i = 0; i < BARE_MAX_CPUS; i++)
        while (i != me && __atomic_load_n(&bare_cpus[i].online, __ATOMIC_ACQUIRE) &&
               __atomic_load_n(&bare_cpus[i].flushed, __ATOMIC_ACQUIRE) < number)
            cpu_pause();
}

void bare_flush_range(uint64_t virtual, uint64_t size_bytes)
{
    forget(virtual, size_bytes);
    if (bare_nr_cpus < 2 || !bare_flush_others)
        return;
    bare_spin_lock(&flush.spin);
    flush.virtual = virtual;
    flush.size_bytes = size_bytes;
    flush_others();
    bare_spin_unlock(&flush.spin);
}

void bare_flush(void)
{
    bare_flush_range(0, UINT64_MAX);
}
