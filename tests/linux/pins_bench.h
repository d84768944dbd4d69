/* SPDX-License-Identifier: MIT */
/* A prover, and what it is asked about. */
#ifndef PINS_BENCH_H
#define PINS_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pin_helpers.h"

#define EXTENT MPL_PINS_EXTENT
#define MS 1000000u
#define SKIP(reason) do { print_message("SKIP: %s\n", (reason)); skip(); } while (0)

/* A prover that trusts what this kernel earns, and a unit of one extent. */
struct bench {
    struct mpl_fence fence;
    struct mpl_pins pins;
    char *scratch, *app;
    int fd;
    struct mpl_pins_map map;
    struct mpl_pins_unit unit;
    struct mpl_pins_proof proof;
};

/* As before Linux 6.7, by the text of smaps. */
static bool by_text;

static inline const char *bench_make(struct bench *b)
{
    memset(b, 0, sizeof(*b));
    b->fence.fd = b->pins.pagemap = b->fd = -1;
    b->scratch = reserve_aligned(EXTENT);
    b->app = reserve_aligned(EXTENT);
    if (mpl_fence_open(&b->fence))
        return "no full userfaultfd";
    if (mpl_pins_open(&b->pins, b->scratch))
        return "the kernel does not tell how a page is mapped";
    b->pins.by_text |= by_text;
    if (mpl_pins_selftest(&b->pins, &b->fence))
        return "nothing can be pinned here";
    b->fd = memfd_create("unit", MFD_CLOEXEC);
    assert_int_equal(ftruncate(b->fd, EXTENT), 0);
    assert_ptr_equal(mmap(b->app, EXTENT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, b->fd,
                          0), b->app);
    b->map = (struct mpl_pins_map){ b->app, EXTENT };
    b->unit = (struct mpl_pins_unit){
        .fd = b->fd, .nr = MPL_PINS_PAGES, .maps = &b->map, .nr_maps = 1, .limit_ns = 200 * MS,
    };
    return NULL;
}

static inline void bench_drop(struct bench *b)
{
    mpl_fence_close(&b->fence);
    mpl_pins_close(&b->pins);
    munmap(b->scratch, EXTENT);
    munmap(b->app, EXTENT);
    if (b->fd >= 0)
        close(b->fd);
}

#define BENCH(b)                                                                             \
    do {                                                                                     \
        const char *why_ = bench_make(b);                                                    \
                                                                                             \
        if (why_) {                                                                          \
            bench_drop(b);                                                                   \
            SKIP(why_);                                                                      \
        }                                                                                    \
    } while (0)

static inline void fill_page(char *va, unsigned nr)
{
    for (size_t i = 0; i < 4096; i += 8)
        *(uint64_t *)(va + nr * 4096 + i) = io_word(nr * 4096 + i);
}

static inline bool page_is(const char *va, unsigned nr, bool filled)
{
    for (size_t i = 0; i < 4096; i += 8) {
        if (*(const uint64_t *)(va + nr * 4096 + i) != (filled ? io_word(nr * 4096 + i) : 0))
            return false;
    }
    return true;
}

static inline int prove(struct bench *b)
{
    assert_int_equal(mpl_fence_raise(&b->fence, b->app, EXTENT), 0);
    return mpl_pins_prove(&b->pins, &b->unit, &b->proof);
}

static inline void lower(struct bench *b)
{
    mpl_fence_lower(&b->fence, b->app, EXTENT);
}

static inline long blocks(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return st.st_blocks;
}

#endif
