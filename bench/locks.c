/* SPDX-License-Identifier: MIT */
/*
 * How long the core's spinning locks are held: they are linked through these wrappers. Commands:
 *   run       pairs, order-9 pairs, and another thread that adds, onlines, offlines and removes
 *   look      the same, and that thread asks for reasons and counts instead
 * ns, of zones and of slots: zone-p99, zone-p99.9, zone-max, slot-max. Holds in which this machine
 * took the CPU away are left out.
 */
#define _GNU_SOURCE
#include "pool.h"
#include "worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core.h"

#define NR_PAIRS 200000u
#define NR_BUCKETS 16384u /* of a nanosecond each, about; the last has all that is longer */
#define LONG_NS 3000u
#define MAX_DEPTH 8u

void __real_mpl_spin_lock(const struct memplug *of, struct mpl_spin *spin);
void __real_mpl_spin_unlock(struct mpl_spin *spin);
void __wrap_mpl_spin_lock(const struct memplug *of, struct mpl_spin *spin);
void __wrap_mpl_spin_unlock(struct mpl_spin *spin);

static struct memplug *pool;
static uint64_t other_block;

/* --- what is held, and for how long ----------------------------------------------------------- */

enum kind { ZONE, SLOT, NR_KINDS };

static atomic_uint holds[NR_KINDS][NR_BUCKETS];
static _Atomic uint64_t longest[NR_KINDS];

static _Thread_local struct {
    const struct mpl_spin *spin;
    uint64_t since_ns;
} held[MAX_DEPTH];
static _Thread_local unsigned depth;
static _Thread_local long nr_taken_away;

static bool was_taken_away(void)
{
    struct rusage usage;
    long before = nr_taken_away;

    getrusage(RUSAGE_THREAD, &usage);
    nr_taken_away = usage.ru_nivcsw;
    return nr_taken_away != before;
}

static void count(enum kind kind, uint64_t ns)
{
    uint64_t most = atomic_load(&longest[kind]);

    if (ns > LONG_NS && was_taken_away()) {
        return;
    }
    atomic_fetch_add(&holds[kind][ns < NR_BUCKETS ? ns : NR_BUCKETS - 1], 1);
    while (ns > most && !atomic_compare_exchange_weak(&longest[kind], &most, ns)) {
    }
}

void __wrap_mpl_spin_lock(const struct memplug *of, struct mpl_spin *spin)
{
    __real_mpl_spin_lock(of, spin);
    if (depth == MAX_DEPTH) {
        worker_die("more locks than there should be");
    }
    held[depth].spin = spin;
    held[depth++].since_ns = worker_wall_ns();
}

/* Locks may be given up in another order than they were taken in. */
void __wrap_mpl_spin_unlock(struct mpl_spin *spin)
{
    uint64_t now = worker_wall_ns();
    const void *slots = pool != NULL ? pool->slots : NULL;
    unsigned i = depth;

    __real_mpl_spin_unlock(spin);
    while (i > 0 && held[i - 1].spin != spin) {
        i--;
    }
    if (i == 0) {
        worker_die("a lock is given up that nobody has");
    }
    if (pool != NULL) {
        bool is_slot = (const char *)spin >= (const char *)slots &&
                       (const char *)spin < (const char *)(pool->slots + pool->nr_slots);

        count(is_slot ? SLOT : ZONE, now - held[i - 1].since_ns);
    }
    memmove(&held[i - 1], &held[i], (depth - i) * sizeof(held[0]));
    depth--;
}

static double at_most(enum kind kind, double share)
{
    uint64_t all = 0, seen = 0;

    for (unsigned i = 0; i < NR_BUCKETS; i++) {
        all += holds[kind][i];
    }
    if (all == 0) {
        worker_die("no lock was seen");
    }
    for (unsigned i = 0; i < NR_BUCKETS; i++) {
        seen += holds[kind][i];
        if ((double)seen >= share * (double)all) {
            return i;
        }
    }
    return NR_BUCKETS;
}

/* --- what takes them -------------------------------------------------------------------------- */

static atomic_bool stop;

static void *plug(void *unused)
{
    struct memplug_reason reason;

    worker_pin(1);
    while (!atomic_load(&stop)) {
        uint64_t address = bench_pool_plug(pool, MEMPLUG_MEMMAP_BLOCK, BENCH_BLOCK_BYTES);

        bench_must(memplug_offline_and_remove(pool, address, BENCH_BLOCK_BYTES, NULL, &reason),
                   &reason);
        bench_pool_forget();
        bench_must(memplug_offline(pool, other_block, 1, NULL, &reason), &reason);
        bench_must(memplug_online(pool, other_block, 1, MEMPLUG_ONLINE_KERNEL, NULL, &reason),
                   &reason);
    }
    return unused;
}

static void *look(void *unused)
{
    worker_pin(1);
    while (!atomic_load(&stop)) {
        struct memplug_block_info info;
        struct memplug_reason reason;
        struct memplug_stat stat;

        memplug_stat(pool, &stat);
        memplug_block_info(pool, other_block, &info);
        memplug_why(pool, other_block - 1, &reason);
    }
    return unused;
}

static void pairs(uint32_t nr_pages, unsigned nr)
{
    static uint64_t seed = 5;
    static memplug_pfn_t frames[1024];
    const struct memplug_alloc request = {.nr_pages = nr_pages};

    for (unsigned i = 0; i < nr; i++) {
        memplug_pfn_t *frame = &frames[worker_below(&seed, nr_pages == 1 ? 1024 : 8)];

        if (frame->nr != 0) {
            bench_must(memplug_free(pool, *frame, nr_pages), NULL);
        }
        bench_must(memplug_alloc(pool, &request, frame), NULL);
    }
    for (unsigned i = 0; i < 1024; i++) {
        if (frames[i].nr != 0) {
            bench_must(memplug_free(pool, frames[i], nr_pages), NULL);
        }
        frames[i].nr = 0;
    }
}

static void run_command(int nr_words, char **words)
{
    pthread_t thread;

    (void)nr_words;
    memset(holds, 0, sizeof(holds));
    memset(longest, 0, sizeof(longest));
    atomic_store(&stop, false);
    if (pthread_create(&thread, NULL, strcmp(words[0], "run") == 0 ? plug : look, NULL) != 0) {
        worker_die("cannot make a thread");
    }
    pairs(1, NR_PAIRS);
    pairs(512, NR_PAIRS / 8);
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    worker_say("zone-p99", at_most(ZONE, 0.99));
    worker_say("zone-p99.9", at_most(ZONE, 0.999));
    worker_say("zone-max", (double)longest[ZONE]);
    worker_say("slot-max", (double)longest[SLOT]);
}

int main(void)
{
    struct memplug *opened = bench_pool_linux(1ull << 30, false);
    uint64_t address = bench_pool_plug(opened, MEMPLUG_MEMMAP_BLOCK, 2 * BENCH_BLOCK_BYTES);

    worker_pin(0);
    other_block = memplug_block_of(opened, address) + 1;
    pool = opened;
    return worker_loop(run_command);
}
