/* SPDX-License-Identifier: MIT */
/*
 * How cost grows with the CPUs of a machine, on the fake host: one thread plays each of them in
 * turn. The argument is their number. Commands:
 *   pair      alloc and free, each next pair on the next CPU; ns a pair
 *   drain     take a free block offline and online again, after each CPU has used a frame, so that
 *             every slot holds some; ns of the two together
 */
#include "pool.h"
#include "worker.h"

#include <stdlib.h>
#include <string.h>

#include "fake/fake.h"

#define NR_PAIRS 65536u
#define NR_DRAINS 64u
#define FIRST 4u

static struct memplug *pool;
static unsigned nr_cpus;

static void open_pool(void)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_X86);
    uint64_t block_bytes = 1ull << geometry.block_shift, metadata_bytes;
    struct fake_config machine_config = {.geometry = geometry, .nr_cpus = nr_cpus, .seed = 1,
                                         .fill_bytes = 4096, .real_clock = true};
    struct fake_backing_spec spec = {.size_bytes = 2 * block_bytes, .content = FAKE_CONTENT_ZERO};
    struct memplug_config config = {.nr_nodes = 1};
    struct memplug_add add = {.address = FIRST * block_bytes, .size_bytes = 2 * block_bytes};
    struct fake_machine *machine;
    struct memplug_reason reason;

    machine_config.geometry.address_limit = 64 * block_bytes;
    bench_must(fake_open(&machine_config, &machine), NULL);
    config.host = fake_host(machine);
    metadata_bytes = memplug_metadata_bytes(&config);
    bench_must(memplug_open(&config, fake_metadata(machine, metadata_bytes), metadata_bytes, &pool,
                            &reason), &reason);
    add.backing = fake_backing_open(machine, &spec);
    bench_must(memplug_add(pool, &add, NULL, &reason), &reason);
    bench_must(memplug_online(pool, FIRST, 2, MEMPLUG_ONLINE_KERNEL, NULL, &reason), &reason);
}

static void use_a_frame(unsigned cpu)
{
    const struct memplug_alloc request = {.nr_pages = 1};
    memplug_pfn_t pfn;

    fake_set_cpu(cpu);
    bench_must(memplug_alloc(pool, &request, &pfn), NULL);
    bench_must(memplug_free(pool, pfn, 1), NULL);
}

static void pair(void)
{
    uint64_t start;

    for (unsigned cpu = 0; cpu < nr_cpus; cpu++) {
        use_a_frame(cpu);
    }
    start = worker_cpu_ns();
    for (unsigned i = 0; i < NR_PAIRS; i++) {
        use_a_frame(i % nr_cpus);
    }
    worker_say("pair", (double)(worker_cpu_ns() - start) / NR_PAIRS);
}

static void drain(void)
{
    static struct worker_median both;
    struct memplug_reason reason;

    for (unsigned i = 0; i < NR_DRAINS; i++) {
        uint64_t start;

        for (unsigned cpu = 0; cpu < nr_cpus; cpu++) {
            use_a_frame(cpu);
        }
        start = worker_cpu_ns();
        bench_must(memplug_offline(pool, FIRST + 1, 1, NULL, &reason), &reason);
        bench_must(memplug_online(pool, FIRST + 1, 1, MEMPLUG_ONLINE_KERNEL, NULL, &reason),
                   &reason);
        worker_add(&both, (double)(worker_cpu_ns() - start));
    }
    worker_say("both", worker_median(&both));
}

static void run_command(int nr_words, char **words)
{
    (void)nr_words;
    if (strcmp(words[0], "pair") == 0) {
        pair();
    } else {
        drain();
    }
}

int main(int argc, char **argv)
{
    nr_cpus = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 1;
    worker_pin(0);
    open_pool();
    return worker_loop(run_command);
}
