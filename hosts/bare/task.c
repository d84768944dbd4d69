/* SPDX-License-Identifier: MIT */
#include "task.h"

#include "console.h"

bool bare_task_fault(struct bare_cpu *cpu, uint64_t address)
{
    (void)cpu;
    (void)address;
    return false;
}

const struct bare_word bare_task_words[] = {{NULL, 0, NULL}};
