/* SPDX-License-Identifier: MIT */
/*
 * Who uses memory: tasks with page tables of their own, whose pages a mover moves while other CPUs
 * read and write them.
 */
#ifndef BARE_TASK_H
#define BARE_TASK_H

#include "bare.h"

/* A page fault: true if the mover has the page, and the access is to be tried again. */
bool bare_task_fault(struct bare_cpu *cpu, uint64_t address);

/* For the handler of BARE_VECTOR_FLUSH. */
void bare_flush_here(struct bare_cpu *cpu);

#endif
