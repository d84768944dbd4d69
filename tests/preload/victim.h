/* SPDX-License-Identifier: MIT */
/* What the victims share; and what the parts of the first one do, its heap. */
#ifndef VICTIM_H
#define VICTIM_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NR_OBJECTS 24u
#define OBJECT_BYTES ((size_t)1 << 20)
#define PAGE 4096u

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #condition, errno);             \
            _exit(1);                                                                             \
        }                                                                                         \
    } while (0)

/* Also if there is no mover. */
static inline bool moved_enough(void)
{
    const char *path = getenv("MOVER_DONE");

    return !path || access(path, F_OK) == 0;
}

/* --- victim.c --------------------------------------------------------------------------------- */

extern unsigned char *objects[NR_OBJECTS];

/* Each is full of its number, from 1 on, but for its head. */
void make_objects(void);
void check_objects(void);

/* --- victim_clone.c, victim_storm.c ----------------------------------------------------------- */

int test_clone(void);
int test_drops(void);
int test_storm(void);

#endif
