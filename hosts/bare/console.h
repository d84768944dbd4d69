/* SPDX-License-Identifier: MIT */
/* What a word of the console does. */
#ifndef BARE_CONSOLE_H
#define BARE_CONSOLE_H

#include "bare.h"

struct bare_word {
    const char *name;
    unsigned nr_arguments;
    /* 0, or a negative errno; argument[0] is the first one behind the word. */
    int (*run)(char **argument, struct memplug_reason *reason);
};

/* Add to the answer. What does not fit is cut, and the answer says so by its length. */
void bare_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Each ends with an empty row. */
extern const struct bare_word bare_tree_words[], bare_look_words[], bare_task_words[],
    bare_device_words[], bare_dimm_words[],
    bare_inject_words[];

#endif
