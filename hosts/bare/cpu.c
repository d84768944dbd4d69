/* SPDX-License-Identifier: MIT */
/* A CPU's own tables, interrupts, and the start of the others. */
#include "bare.h"
#include "dimm.h"
#include "task.h"
#include "virtio_memory.h"

#include "io.h"

#define STACK_BYTES 16384u
#define TASK_STACK_BYTES 65536u
#define AP_PAGE 0x8000u
#define SELECTOR_CODE 0x08
#define GATE_INTERRUPT 0x8e
#define MSR_GS_BASE 0xc0000101u
#define NR_VECTORS 64u
#define FIRST_TSS 4u
#define START_NS 1000000000u

enum { STACK_INTERRUPT = 1, STACK_EXCEPTION, STACK_FATAL, NR_STACKS };
enum { VECTOR_NMI = 2, VECTOR_DOUBLE = 8, VECTOR_PAGE_FAULT = 14, VECTOR_MACHINE_CHECK = 18 };

struct gate {
    uint16_t offset_low, selector;
    uint8_t stack, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};

struct tss {
    uint32_t reserved0;
    uint64_t rsp[3], reserved1, stacks[7], reserved2;
    uint16_t reserved3, io_map;
} __attribute__((packed));

struct pointer {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

struct frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

extern char bare_stubs[], bare_ap_code[], bare_ap_code_end[];

struct bare_cpu bare_cpus[BARE_MAX_CPUS];
unsigned bare_nr_cpus;

/* What the trampoline reads. */
uint64_t bare_ap_stack, bare_ap_root;
uint32_t bare_ap_index;
void bare_ap_main(unsigned index);
void bare_interrupt(struct frame *frame);

static uint64_t gdt[FIRST_TSS + 2 * BARE_MAX_CPUS] = {
    0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff};
static struct gate idt[NR_VECTORS];
static struct tss segments[BARE_MAX_CPUS];
static char stacks[BARE_MAX_CPUS][NR_STACKS][STACK_BYTES] __attribute__((aligned(16)));
static char task_stacks[BARE_MAX_CPUS][TASK_STACK_BYTES] __attribute__((aligned(16)));
static void (*run_other)(unsigned index);

unsigned bare_cpu(void)
{
    unsigned index;

    __asm__ volatile("movl %%gs:0, %0" : "=r"(index));
    return index;
}

/* --- interrupts ------------------------------------------------------------------------------- */

static _Noreturn void fatal(const struct frame *frame)
{
    bare_print("\nCPU %u: exception %lu, error %lx, at %lx, address %lx\n", bare_cpu(),
               frame->vector, frame->error, frame->rip, read_cr2());
    bare_print("rsp %lx rbp %lx rax %lx rbx %lx rcx %lx rdx %lx rsi %lx rdi %lx\n", frame->rsp,
               frame->rbp, frame->rax, frame->rbx, frame->rcx, frame->rdx, frame->rsi,
               frame->rdi);
    bare_panic("an exception that nobody expected");
}

void bare_interrupt(struct frame *frame)
{
    struct bare_cpu *cpu = &bare_cpus[bare_cpu()];

    if (frame->vector == VECTOR_PAGE_FAULT && bare_task_fault(cpu, read_cr2(), &frame->rip)) {
        cpu->nr_faults++;
        return;
    }
    if (frame->vector < BARE_VECTOR_TIMER)
        fatal(frame);
    cpu->nr_interrupts++;
    if (frame->vector == BARE_VECTOR_FLUSH)
        bare_flush_here(cpu);
    if (frame->vector == BARE_VECTOR_TIMER && cpu->index == 0)
        bare_alarm_ring();
    if (frame->vector == BARE_VECTOR_DEVICE)
        bare_virtio_memory_interrupt();
    if (frame->vector == BARE_VECTOR_ACPI)
        bare_dimm_interrupt();
    while (frame->vector == BARE_VECTOR_HALT)
        __asm__ volatile("cli; hlt");
    if (frame->vector != BARE_VECTOR_SPURIOUS)
        bare_apic_end();
}

static uint8_t stack_of(unsigned vector)
{
    if (vector == VECTOR_NMI || vector == VECTOR_DOUBLE || vector == VECTOR_MACHINE_CHECK)
        return STACK_FATAL;
    return vector < BARE_VECTOR_TIMER ? STACK_EXCEPTION : STACK_INTERRUPT;
}

static void make_gates(void)
{
    for (unsigned i = 0; i < NR_VECTORS; i++) {
        uint64_t stub = (uintptr_t)bare_stubs + 16 * i;

        idt[i] = (struct gate){.offset_low = (uint16_t)stub, .selector = SELECTOR_CODE,
                               .stack = stack_of(i), .type = GATE_INTERRUPT,
                               .offset_middle = (uint16_t)(stub >> 16),
                               .offset_high = (uint32_t)(stub >> 32)};
    }
}

static void load_tables(unsigned index)
{
    struct tss *tss = &segments[index];
    uint64_t base = (uintptr_t)tss, limit = sizeof(*tss) - 1;
    struct pointer gdt_pointer = {sizeof(gdt) - 1, (uintptr_t)gdt};
    struct pointer idt_pointer = {sizeof(idt) - 1, (uintptr_t)idt};
    uint16_t selector = (uint16_t)(8 * (FIRST_TSS + 2 * index));

    tss->io_map = sizeof(*tss);
    for (unsigned i = 1; i < NR_STACKS; i++)
        tss->stacks[i - 1] = (uintptr_t)(stacks[index][i] + STACK_BYTES);
    gdt[FIRST_TSS + 2 * index] = (limit & 0xffff) | (base & 0xffffff) << 16 |
                                 (uint64_t)0x89 << 40 | (base >> 24 & 0xff) << 56;
    gdt[FIRST_TSS + 2 * index + 1] = base >> 32;
    __asm__ volatile("lgdt %0" : : "m"(gdt_pointer));
    __asm__ volatile("lidt %0" : : "m"(idt_pointer));
    __asm__ volatile("ltr %0" : : "r"(selector));
}

void bare_cpu_start(unsigned index)
{
    struct bare_cpu *cpu = &bare_cpus[index];

    cpu->index = index;
    cpu->apic_id = bare_firmware.apic_ids[index];
    if (index == 0)
        make_gates();
    write_msr(MSR_GS_BASE, (uintptr_t)cpu);
    load_tables(index);
    bare_apic_enable();
    __atomic_store_n(&cpu->online, true, __ATOMIC_RELEASE);
    __atomic_fetch_add(&bare_nr_cpus, 1, __ATOMIC_RELEASE);
    interrupts_on();
}

/* --- the others ------------------------------------------------------------------------------- */

void bare_ap_main(unsigned index)
{
    bare_cpu_start(index);
    run_other(index);
}

static void start_other(unsigned index)
{
    uint64_t end = bare_now() + START_NS;

    bare_ap_stack = (uintptr_t)(task_stacks[index] + TASK_STACK_BYTES);
    bare_ap_root = bare_root;
    bare_ap_index = index;
    bare_apic_wake(bare_firmware.apic_ids[index], AP_PAGE);
    while (!__atomic_load_n(&bare_cpus[index].online, __ATOMIC_ACQUIRE)) {
        if (bare_now() > end)
            bare_panic("CPU %u does not start", index);
        cpu_pause();
    }
}

void bare_start_others(void (*run)(unsigned index))
{
    run_other = run;
    memcpy((void *)(uintptr_t)AP_PAGE, bare_ap_code, (size_t)(bare_ap_code_end - bare_ap_code));
    for (unsigned i = 1; i < bare_firmware.nr_cpus; i++)
        start_other(i);
}
