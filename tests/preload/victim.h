/* SPDX-License-Identifier: MIT */
/* What the parts of the victim share: its heap. */
#ifndef VICTIM_H
#define VICTIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#define NR_OBJECTS 24u
#define OBJECT_BYTES ((size_t)1 << 20)
#define PAGE 4096u

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                               \
            _exit(1);                                                                             \
        }                                                                                         \
    } while (0)

extern unsigned char *objects[NR_OBJECTS];

/* Also if there is no mover. */
bool moved_enough(void);
/* Each is full of its number, from 1 on, but for its head. */
void make_objects(void);
void check_objects(void);


/* --- victim_clone.c, victim_storm.c ----------------------------------------------------------- */

int test_clone(void);
int test_drops(void);
int test_storm(void);

#endif
