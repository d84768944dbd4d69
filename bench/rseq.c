/* SPDX-License-Identifier: MIT */
/*
 * The four ways to take a bit out of a word that this CPU or this thread has for itself, without
 * anything else. A restartable sequence (rseq) commits by its last store, and begins anew if the
 * thread was preempted or moved before it; glibc registers its area. x86-64 only.
 */
#define _GNU_SOURCE
#include "rseq.h"
#include "worker.h"

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/rseq.h>

#define NR 4000000u
#define MAX_CPUS 1024u

struct place {
    atomic_uint next, serving, busy, stop;
    uint64_t mask;
} __attribute__((aligned(64)));

static struct place places[MAX_CPUS];

static double time_of(void (*once)(void))
{
    static struct worker_median rounds;

    for (unsigned round = 0; round < 5; round++) {
        uint64_t start = worker_cpu_ns();

        for (unsigned i = 0; i < NR; i++) {
            once();
        }
        worker_add(&rounds, (double)(worker_cpu_ns() - start) / NR);
    }
    return worker_median(&rounds);
}

static void pop(struct place *place)
{
    uint64_t mask = place->mask;

    place->mask = mask != 0 ? mask & (mask - 1) : UINT64_MAX;
}

static void cpu_lock(void)
{
    struct place *place = &places[(unsigned)sched_getcpu() % MAX_CPUS];
    unsigned ticket = atomic_fetch_add_explicit(&place->next, 1, memory_order_relaxed);

    while (atomic_load_explicit(&place->serving, memory_order_acquire) != ticket) {
    }
    pop(place);
    atomic_store_explicit(&place->serving, ticket + 1, memory_order_release);
}

static void own_fenced(void)
{
    struct place *place = &places[0];

    atomic_store_explicit(&place->busy, 1, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&place->stop, memory_order_seq_cst) == 0) {
        pop(place);
    }
    atomic_store_explicit(&place->busy, 0, memory_order_release);
}

static void own_exchange(void)
{
    struct place *place = &places[0];

    atomic_exchange_explicit(&place->busy, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&place->stop, memory_order_seq_cst) == 0) {
        pop(place);
    }
    atomic_store_explicit(&place->busy, 0, memory_order_release);
}

static struct rseq *area(void)
{
    return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

static void restartable(void)
{
    struct rseq *rseq = area();
    uint64_t mask, next;
    uint32_t cpu;

    for (;;) {
        cpu = *(volatile uint32_t *)&rseq->cpu_id_start;
        struct place *place = &places[cpu % MAX_CPUS];

        __asm__ goto volatile(
            ".pushsection __rseq_cs, \"aw\"\n\t"
            ".balign 32\n\t"
            "3: .long 0, 0\n\t"
            ".quad 1f, (2f - 1f), 4f\n\t"
            ".popsection\n\t"
            "leaq 3b(%%rip), %%rax\n\t"
            "movq %%rax, %[section]\n\t"
            "1: cmpl %[cpu], %[now]\n\t"
            "jnz 4f\n\t"
            "movq %[word], %%rax\n\t"
            "leaq -1(%%rax), %%rcx\n\t"
            "andq %%rax, %%rcx\n\t"
            "movq %%rcx, %[word]\n\t"
            "2:\n\t"
            ".pushsection __rseq_failure, \"ax\"\n\t"
            ".byte 0x0f, 0xb9, 0x3d\n\t"
            ".long %c[signature]\n\t"
            "4: jmp %l[again]\n\t"
            ".popsection\n\t"
            :
            : [section] "m"(rseq->rseq_cs), [cpu] "r"(cpu), [now] "m"(rseq->cpu_id),
              [word] "m"(place->mask), [signature] "i"(RSEQ_SIG)
            : "memory", "cc", "rax", "rcx"
            : again);
        mask = place->mask;
        next = mask != 0 ? mask : UINT64_MAX;
        if (next != mask) {
            place->mask = next; /* a refill, which is rare, and needs more than this */
        }
        return;
    again:;
    }
}

void rseq_costs(void)
{
    worker_say("cpu-lock", time_of(cpu_lock));
    worker_say("own-fenced", time_of(own_fenced));
    worker_say("own-exchange", time_of(own_exchange));
    if (__rseq_size == 0) {
        worker_absent("rseq", "glibc has not registered it");
    } else {
        worker_say("rseq", time_of(restartable));
    }
}
