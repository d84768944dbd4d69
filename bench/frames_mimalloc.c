/* SPDX-License-Identifier: MIT */
/* mimalloc. */
#define _GNU_SOURCE
#include <mimalloc.h>

#define MAX_BULK 0
#define MALLOC(size) mi_malloc(size)
#define MALLOC_ALIGNED(size) mi_malloc_aligned(size, size)
#define FREE(memory) mi_free(memory)
#define DRAIN() mi_collect(true)

#include "frames_malloc.h"
