/* SPDX-License-Identifier: MIT */
/* Blocks of 4 KiB are aligned to themselves in jemalloc. */
#define _GNU_SOURCE
#include <jemalloc/jemalloc.h>

#define MAX_BULK 0
#define MALLOC(size) mallocx(size, 0)
#define MALLOC_ALIGNED(size) mallocx(size, MALLOCX_ALIGN(size))
#define FREE(memory) dallocx(memory, 0)
#define DRAIN() mallctl("thread.tcache.flush", NULL, NULL, NULL, 0)

#include "frames_malloc.h"
