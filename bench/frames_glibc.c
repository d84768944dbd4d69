/* SPDX-License-Identifier: MIT */
/* glibc's malloc; aligned, as frames are. Its free is linear in what is held: a smaller bulk. */
#define _GNU_SOURCE
#include <stdlib.h>

#define MAX_BULK 16384
#define MALLOC(size) aligned_alloc(size, size)
#define MALLOC_ALIGNED(size) aligned_alloc(size, size)
#define FREE(memory) free(memory)
#define DRAIN() ((void)0)

#include "frames_malloc.h"
