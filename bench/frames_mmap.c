/* SPDX-License-Identifier: MIT */
/* A system call a frame. A process has 65,530 mappings: a smaller bulk, and no random one. */
#define _GNU_SOURCE
#include "frames.h"

#include <stddef.h>
#include <sys/mman.h>

static const struct frames_peer peer = {
    .max_bulk = 16384,
    .no_huge = "mmap aligns to small pages only",
    .no_rand = "a process cannot have so many mappings",
};

static void peer_open(uint64_t nr_frames)
{
    (void)nr_frames;
}

static void peer_enter(unsigned thread)
{
    (void)thread;
}

static inline uint64_t peer_alloc(unsigned thread, unsigned order)
{
    (void)thread;
    void *frame;

    if (order != 0) {
        return 0;
    }
    frame = mmap(NULL, (size_t)1 << FRAME_SHIFT, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return frame == MAP_FAILED ? 0 : (uint64_t)frame;
}

static inline void peer_free(unsigned thread, uint64_t frame, unsigned order)
{
    (void)thread;
    (void)order;
    munmap((void *)frame, (size_t)1 << FRAME_SHIFT);
}

static uint64_t peer_address(uint64_t frame)
{
    return frame;
}

static void peer_drain(void)
{

}

static void peer_extra(void)
{
}

#include "one_by_one.h"
#include "workloads.h"
