/* SPDX-License-Identifier: MIT */
/*
 * A machine for shell lines: a few files, memory blocks that go online and offline as a kernel's
 * would, a place for files under /tmp. Nothing is behind it. What is written to a file "waits" is
 * never taken: only a deadline ends that. Below /selftests is what only a real machine has.
 */
#ifndef TOY_MACHINE_H
#define TOY_MACHINE_H

#include "../../tools/memplug/replay/shell.h"

#define TOY_FILES 512
#define TOY_HANDLES 8
#define TOY_TMP_BYTES ((size_t)4 << 20)
#define TOY_MEMORY "/sys/devices/system/memory"

struct toy_file {
    char path[128];
    char *text;
    size_t length;
    bool directory, read_only, gone; /* gone: what holds it open still has it */
    bool link; /* to a directory; the text says which */
    unsigned nr_open;
};

struct toy_machine {
    struct shell_host host;
    struct toy_file files[TOY_FILES];
    size_t nr_files;
    struct {
        struct toy_file *file;
        bool open, append;
    } handles[TOY_HANDLES];
    uint64_t slept_ns, deadline_ns, tmp_bytes;
    bool parks; /* jobs outlive their lines */
    struct shell *parked;
    unsigned nr_modules, nr_writes, nr_breaches;
    char refuses[256]; /* " 0 7 ": these blocks do not go offline */
};

void toy_open(struct toy_machine *machine);
/* Returns the number of breaches of the host's contract, and of handles that were left open. */
unsigned toy_close(struct toy_machine *machine);

struct toy_file *toy_find(struct toy_machine *machine, const char *path);
struct toy_file *toy_add(struct toy_machine *machine, const char *path, const char *text);
void toy_add_directory(struct toy_machine *machine, const char *path);
/* zone "": offline. */
void toy_add_block(struct toy_machine *machine, unsigned id, unsigned node, const char *zone);
void toy_remove(struct toy_machine *machine, const char *path);
/* The machine of the scenarios with 4 GiB: blocks 0 to 15 and 32 to 47, some files of /proc. */
void toy_boot(struct toy_machine *machine);

/* These fail the running test. $M is the directory of the memory blocks. */
void toy_run(struct toy_machine *machine, const char *line, struct shell_result *result);
void toy_expect(struct toy_machine *machine, const char *line, int exit,
                enum shell_verdict verdict, const char *text);

#endif
