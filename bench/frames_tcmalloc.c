/* SPDX-License-Identifier: MIT */
/* gperftools. Blocks of 4 KiB are aligned to themselves there. */
#define _GNU_SOURCE
#include <gperftools/malloc_extension_c.h>
#include <gperftools/tcmalloc.h>

#define MAX_BULK 0
#define MALLOC(size) tc_malloc(size)
#define MALLOC_ALIGNED(size) tc_memalign(size, size)
#define FREE(memory) tc_free(memory)
#define DRAIN() MallocExtension_ReleaseFreeMemory()

#include "frames_malloc.h"
