/* SPDX-License-Identifier: MIT */
/* The workloads themselves; included once by a peer's file, behind its definitions. */
#ifndef BENCH_WORKLOADS_H
#define BENCH_WORKLOADS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "many.h"

#define BATCH 1024u
#define NR_BATCHES 128u
#define CHURN 1048576u
#define SEED 0x9e3779b97f4a7c15u

static uint64_t nr_region, nr_ops[WORKER_THREADS], nr_held, seeds[WORKER_THREADS];
static uint64_t *frames[WORKER_THREADS];
static unsigned order_now;

/* --- the timed loops -------------------------------------------------------------------------- */

static void alloc_all(unsigned thread)
{
    alloc_many(thread, frames[thread], nr_ops[thread], order_now);
}

static void free_all(unsigned thread)
{
    free_many(thread, frames[thread], nr_ops[thread], order_now);
}

static void pair_all(unsigned thread)
{
    for (uint64_t i = 0; i < nr_ops[thread]; i++) {
        peer_free(thread, must_alloc(thread, order_now), order_now);
    }
}

/* --- bulk, bulkrand, bulkx, repeat ------------------------------------------------------------ */

static void swap(uint64_t *a, uint64_t *b)
{
    uint64_t kept = *a;

    *a = *b;
    *b = kept;
}

/* across: over the frames of all threads, so that half of the frees are of another's frames. */
static void shuffle(unsigned nr_threads, bool across)
{
    for (unsigned t = 0; t < nr_threads; t++) {
        for (uint64_t i = nr_ops[t]; i > 1; i--) {
            unsigned other = across ? (unsigned)worker_below(&seeds[0], nr_threads) : t;

            swap(&frames[t][i - 1], &frames[other][worker_below(&seeds[0], nr_ops[other])]);
        }
    }
}

static void bulk(const char *how, unsigned order, unsigned nr_threads)
{
    uint64_t nr = order == 0 ? nr_region / 2 : 512;

    if (peer.max_bulk != 0 && nr > peer.max_bulk) {
        nr = peer.max_bulk;
    }
    order_now = order;
    for (unsigned t = 0; t < nr_threads; t++) {
        nr_ops[t] = nr / nr_threads;
    }
    worker_say("alloc", (double)worker_phase(nr_threads, alloc_all) / (double)nr);
    if (strcmp(how, "bulk") != 0) {
        shuffle(nr_threads, strcmp(how, "bulkx") == 0);
    }
    worker_say("free", (double)worker_phase(nr_threads, free_all) / (double)nr);
}

static void repeat(unsigned order, unsigned nr_threads)
{
    uint64_t nr = order == 0 ? 1000000 : 100000, spent;

    if (peer.max_bulk != 0) {
        nr /= 50;
    }
    order_now = order;
    for (unsigned t = 0; t < nr_threads; t++) {
        nr_ops[t] = nr;
    }
    spent = worker_phase(nr_threads, pair_all);
    worker_say("pair", (double)spent / (double)(nr * nr_threads));
}

/* --- a region that is nearly full ------------------------------------------------------------- */

/* The victims stand at the end of the array. */
static void pick_victims(void)
{
    for (uint64_t i = 0; i < BATCH; i++) {
        swap(&frames[0][nr_held - 1 - i], &frames[0][worker_below(&seeds[0], nr_held - i)]);
    }
}

static void fill_to(uint64_t nr)
{
    while (nr_held < nr) {
        frames[0][nr_held++] = must_alloc(0, 0);
    }
}

static void churn(uint64_t nr)
{
    for (uint64_t i = 0; i < nr; i++) {
        uint64_t *victim = &frames[0][worker_below(&seeds[0], nr_held)];

        peer_free(0, *victim, 0);
        *victim = must_alloc(0, 0);
    }
}

static void rand_pairs(void)
{
    uint64_t nr = nr_held, start = worker_cpu_ns();

    churn(nr);
    worker_say("pair", (double)(worker_cpu_ns() - start) / (double)nr);
}

static void rand_batches(void)
{
    uint64_t alloc_ns = 0, free_ns = 0, start;

    for (unsigned batch = 0; batch < NR_BATCHES; batch++) {
        uint64_t *victims = frames[0] + nr_held - BATCH;

        pick_victims();
        start = worker_cpu_ns();
        free_many(0, victims, BATCH, 0);
        free_ns += worker_cpu_ns() - start;
        start = worker_cpu_ns();
        alloc_many(0, victims, BATCH, 0);
        alloc_ns += worker_cpu_ns() - start;
    }
    worker_say("b1024-alloc", (double)alloc_ns / (BATCH * NR_BATCHES));
    worker_say("b1024-free", (double)free_ns / (BATCH * NR_BATCHES));
}

static void rand90(void)
{
    if (nr_held == 0) {
        fill_to(nr_region / 10 * 9);
        churn(nr_held);
    }
    rand_batches();
    rand_pairs();
}

/* --- fragmentation ---------------------------------------------------------------------------- */

static int compare_chunks(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return (left > right) - (left < right);
}

/* Pieces of 2 MiB that hold at least one frame. */
static uint64_t count_chunks(void)
{
    uint64_t *chunks = frames[1], nr = 0;

    for (uint64_t i = 0; i < nr_held; i++) {
        chunks[i] = peer_address(frames[0][i]) >> (FRAME_SHIFT + HUGE_ORDER);
    }
    qsort(chunks, nr_held, sizeof(chunks[0]), compare_chunks);
    for (uint64_t i = 0; i < nr_held; i++) {
        nr += i == 0 || chunks[i] != chunks[i - 1];
    }
    return nr;
}

static uint64_t count_huge(void)
{
    uint64_t nr = 0;

    while ((frames[1][nr] = peer_alloc(0, HUGE_ORDER)) != 0) {
        nr++;
    }
    for (uint64_t i = 0; i < nr; i++) {
        peer_free(0, frames[1][i], HUGE_ORDER);
    }
    return nr;
}

static void frag_level(unsigned percent)
{
    char name[32];

    while (nr_held > nr_region / 100 * percent) {
        swap(&frames[0][nr_held - 1], &frames[0][worker_below(&seeds[0], nr_held)]);
        peer_free(0, frames[0][--nr_held], 0);
    }
    for (unsigned i = 0; i < CHURN / BATCH; i++) {
        pick_victims();
        for (uint64_t j = 0; j < BATCH; j++) {
            peer_free(0, frames[0][nr_held - BATCH + j], 0);
        }
        nr_held -= BATCH;
        fill_to(nr_held + BATCH);
    }
    peer_drain();
    snprintf(name, sizeof(name), "occ%u", percent);
    worker_say(name, (double)count_chunks());
    if (peer.is_arena && peer.no_huge == NULL) {
        snprintf(name, sizeof(name), "alloc9-%u", percent);
        worker_say(name, (double)count_huge());
    }
}

static void frag(void)
{
    fill_to(nr_region / 10 * 9);
    for (unsigned percent = 90; percent >= 50; percent -= 10) {
        frag_level(percent);
    }
    while (nr_held > 0) {
        peer_free(0, frames[0][--nr_held], 0);
    }
}

/* --- the program ------------------------------------------------------------------------------ */

static void run_command(int nr_words, char **words)
{
    unsigned order = nr_words > 1 ? (unsigned)atoi(words[1]) : 0;
    unsigned nr_threads = nr_words > 2 ? (unsigned)atoi(words[2]) : 1;

    if (order != 0 && peer.no_huge != NULL) {
        worker_absent("*", peer.no_huge);
    } else if (strcmp(words[0], "repeat") == 0) {
        repeat(order, nr_threads);
    } else if (strncmp(words[0], "bulk", 4) == 0) {
        bulk(words[0], order, nr_threads);
    } else if (strcmp(words[0], "extra") == 0) {
        peer_extra();
    } else if (peer.no_rand != NULL) {
        worker_absent("*", peer.no_rand);
    } else if (strcmp(words[0], "rand90") == 0) {
        rand90();
    } else if (strcmp(words[0], "frag") == 0) {
        frag();
    } else {
        worker_die("no such command");
    }
}

int main(int argc, char **argv)
{
    nr_region = argc > 1 ? strtoull(argv[1], NULL, 0) : 524288;
    for (unsigned t = 0; t < WORKER_THREADS; t++) {
        seeds[t] = SEED + t;
        frames[t] = mmap(NULL, nr_region * sizeof(uint64_t), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (frames[t] == MAP_FAILED) {
            worker_die("no memory for the frames' numbers");
        }
    }
    peer_open(nr_region);
    worker_threads(peer_enter);
    return worker_loop(run_command);
}

#endif
