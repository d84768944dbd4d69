/* SPDX-License-Identifier: MIT */
/*
 * The shell lines of a scenario: a small interpreter of what busybox's ash and its tools would do,
 * over a machine that is a table of callbacks. Nothing of this machine is touched: no process, no
 * file. Texts and exit statuses are those of busybox 1.35 and util-linux 2.38.
 *
 * A line is parsed whole and every command of it is looked up before anything runs; if one is not
 * understood, nothing is run. Pipelines and subshells run one after the other, in the order in
 * which they stand, and background jobs until they sleep, so that equal machines give equal texts.
 * sleep is the machine's.
 */
#ifndef SHELL_H
#define SHELL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A line of a file's text that begins with this byte stands for one that only a real kernel knows
 * (how much is free, an address of a device): tools look behind it, and if any of it comes out,
 * the result is FOREIGN_TEXT. The byte itself never comes out. */
#define SHELL_FOREIGN_MARK '\1'

/* SHELL_ELSEWHERE: one of the two, which only a real machine has. */
enum shell_kind { SHELL_FILE, SHELL_DIRECTORY, SHELL_ELSEWHERE };
enum shell_open { SHELL_READ, SHELL_WRITE, SHELL_APPEND };

/*
 * The machine. Paths are absolute and plain: no ".", "..", "//", and no "/" at the end. Everything
 * answers with a negative errno on failure. /dev/null, /dev/zero and /dev/full never come here. A
 * null callback is -ENOSYS.
 */
struct shell_host {
    /* A handle from 0 on. WRITE makes or empties the file where files can be made. -ENOSYS: the
     * real machine has this file and this one does not: what is written to it is forgotten; it
     * reads as empty, and the result is FOREIGN_TEXT. */
    int (*open)(void *context, const char *path, enum shell_open how);
    /* How many bytes, 0 at the end. */
    int64_t (*read)(void *context, int handle, uint64_t offset, void *to, size_t size_bytes);
    int64_t (*write)(void *context, int handle, uint64_t offset, const void *from,
                     size_t size_bytes);
    void (*close)(void *context, int handle);

    int (*kind)(void *context, const char *path); /* enum shell_kind */
    /* A name that is SHELL_FOREIGN_MARK: there are more, which only a real machine has. */
    int (*list)(void *context, const char *path, void (*each)(void *to, const char *name),
                void *to);
    /* The text of a symbolic link: its length. -EINVAL: it is none. */
    int64_t (*link)(void *context, const char *path, char *to, size_t size_bytes);

    int (*mkdir)(void *context, const char *path);
    int (*rmdir)(void *context, const char *path);
    int (*unlink)(void *context, const char *path);
    int (*mount)(void *context, const char *type, const char *path);
    int (*unmount)(void *context, const char *path);
    int (*module)(void *context, const char *name, bool load); /* insmod, modprobe, rmmod */
    void (*sleep)(void *context, uint64_t ns);
    uint64_t (*clock)(void *context); /* in ns */
    /* From now on a write that waits ends with -EINTR at this time; 0: it waits. */
    void (*deadline)(void *context, uint64_t at_ns);
    void *context;
};

enum shell_verdict {
    SHELL_UNDERSTOOD,
    SHELL_FOREIGN_TEXT, /* all effects were applied; the text is a real kernel's or tool's own */
    SHELL_UNKNOWN,      /* see culprit, changes and ran */
    SHELL_ENDLESS,      /* it ran for more commands, or memory, than a line may */
};

struct shell_result {
    enum shell_verdict verdict;
    int exit;      /* status of the line */
    char *text;    /* standard output and error as they came, terminated */
    size_t length; /* of text */
    char culprit[64]; /* UNKNOWN: the first command or construct that was not understood */
    bool changes; /* UNKNOWN: could the line have changed the state of the machine's memory? */
    bool ran;     /* part of it may have been carried out: UNDERSTOOD, FOREIGN_TEXT, ENDLESS, and
                     UNKNOWN if that came out only while it ran */
};

/* A line of which a background job still sleeps. */
struct shell;

/* variables: "NAME=value" strings up to a null pointer; may be null. parked: lines whose jobs go on
 * later, to which this one is added if need be; null: it ends when its jobs do. Returns 0, or
 * -ENOMEM and then there is no result. */
int shell_run(const struct shell_host *host, const char *const *variables, const char *line,
              struct shell **parked, struct shell_result *result);
/* Runs what is due by then, each in its time: host.sleep makes the clock go on. */
void shell_parked_run(struct shell **parked, uint64_t until_ns);
void shell_parked_end(struct shell **parked);
void shell_result_free(struct shell_result *result);

#endif
