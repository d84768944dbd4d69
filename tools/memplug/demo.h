/* SPDX-License-Identifier: MIT */
/*
 * memplug demo: the main job on real files. Files are loaded into movable mappings of a pool; they
 * are verified, written beside and read into all the time; meanwhile a second range is plugged in
 * and every block of the first one is taken offline and out.
 */
#ifndef DEMO_H
#define DEMO_H

#include <memplug/linux.h>
#include <memplug/space.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define DEMO_UNIT_BYTES ((size_t)2 << 20)
#define DEMO_COUNTER_BYTES ((size_t)4096) /* at the head of each unit; file data behind it */
#define DEMO_DATA_BYTES (DEMO_UNIT_BYTES - DEMO_COUNTER_BYTES)
#define DEMO_READ_BYTES ((size_t)1 << 20)

struct demo_options {
    const char *directory;
    uint64_t data_bytes; /* at least so much is loaded */
    unsigned linger_ms;  /* the threads go on for so long before and after */
    bool json;
    bool trust_pins;
};

/* A file as it was loaded: where its bytes begin in the sequence of all data, and their hash. */
struct demo_file {
    char *path;
    uint64_t start, size_bytes, hash;
};

struct demo_data {
    char **units; /* addresses; each DEMO_UNIT_BYTES, movable */
    unsigned nr_units;
    void *mapping;
    uint64_t mapping_bytes;
    struct demo_file *files; /* all of them, repeated ones too */
    unsigned nr_files;
    uint64_t size_bytes;
};

enum demo_job { DEMO_VERIFY, DEMO_COUNT, DEMO_PREAD, DEMO_DIRECT, DEMO_NR_JOBS };

struct demo_worker {
    struct demo *demo;
    pthread_t thread;
    bool started;
    _Atomic uint64_t nr_rounds;   /* files, counters or reads done */
    _Atomic uint64_t nr_lost;     /* updates that were not there any more */
    _Atomic uint64_t nr_bad;      /* files or reads whose bytes were wrong */
    _Atomic uint64_t stall_max_ns; /* the longest single write, scheduling included */
    _Atomic(const char *) idle;   /* why it has nothing to do; null */
};

struct demo_result {
    uint64_t preexisting_bytes, kernel_bytes, nr_blocks;
    uint64_t memmap_frames_per_block, present_pages, managed_pages;
    uint64_t used_bytes, moved_bytes, pin_refusals;
    uint64_t lost_updates, bad_files, nr_verified, nr_counted, nr_read, nr_direct;
    uint64_t returned_bytes, held_bytes; /* what the first range had, and what it gave back */
    uint64_t rss_before_bytes, rss_after_bytes;
    uint64_t stall_max_us;
    uint64_t pause_p50_us, pause_p99_us, pause_max_us;
    uint64_t add_us, online_us, offline_us, remove_us;
    double migrate_gb_s, memcpy_gb_s;
    unsigned nr_tries;
    const char *direct_idle;
};

struct demo {
    struct demo_options options;
    struct memplug_linux *host;
    struct memplug *pool;
    struct memplug_space *space;
    struct demo_data data;
    struct demo_worker workers[DEMO_NR_JOBS];
    char *read_area;   /* movable, DEMO_READ_BYTES for each of the two readers */
    uint64_t read_area_bytes;
    uint64_t *counted; /* what the writer wrote last, a number a unit */
    bool loaded; /* everything that is to be checked at the end is there */
    _Atomic bool stop;
    struct demo_result result;
};

/* load.c: 0, or -errno after saying why. First which files, then, with a pool, what is in them. */
int demo_list(struct demo *demo);
int demo_load(struct demo *demo);
void demo_unload(struct demo *demo);
uint64_t demo_hash_file(const struct demo *demo, const struct demo_file *file);

/* work.c */
int demo_start(struct demo *demo);
void demo_stop(struct demo *demo);   /* and check everything once more */

/* measure.c: figures from outside the pool. */
struct demo_machine {
    uint64_t page_table_bytes, slab_bytes, rss_shmem_bytes;
};
void demo_measure(struct demo_machine *machine);
double demo_memcpy_gb_s(uint64_t size_bytes); /* 2 MiB by 2 MiB, both sides resident */
uint64_t demo_now_ns(void);

/* picture.c: the blocks, on a terminal only. */
void demo_draw(void *demo, const struct memplug_progress *progress);
void demo_draw_end(const struct demo *demo);

/* report.c: true if everything holds that the exit code stands for. */
bool demo_holds(const struct demo *demo);
int demo_report(const struct demo *demo);

/* demo.c: the exit status. */
int demo_main(int argc, char **argv);

#endif
