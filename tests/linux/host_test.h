/* SPDX-License-Identifier: MIT */
/* What the tests of the Linux host share: a host without a core, driven through its operations. */
#ifndef HOST_TEST_H
#define HOST_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host.h"

#define MIB (1024ull * 1024)
#define GIB (1024 * MIB)
#define BLOCK (128 * MIB)
#define MEMMAP (2 * MIB) /* of one block, with 64 bytes a page */

#define SKIP(...)                 \
    do {                          \
        printf("   why: ");       \
        printf(__VA_ARGS__);      \
        printf("\n");             \
        skip();                   \
    } while (0)

static inline struct memplug_linux *host_open(uint64_t window_bytes)
{
    struct memplug_linux_config config = {.window_bytes = window_bytes};
    struct memplug_linux *host = NULL;

    assert_int_equal(memplug_linux_open(&config, &host, NULL), 0);
    return host;
}

static inline void *backing_open(struct memplug_linux *host, enum memplug_backing_kind kind,
                                 uint64_t size_bytes, int fd)
{
    struct memplug_backing_spec spec = {.kind = kind, .size_bytes = size_bytes, .fd = fd};
    struct memplug_reason reason;
    void *backing = NULL;
    int result = memplug_linux_backing_open(host, &spec, &backing, &reason);

    if (result != 0) {
        print_error("backing_open: %d %s\n", result, reason.why);
    }
    assert_int_equal(result, 0);
    return backing;
}

/* Block nr of the pool from block at_block of the backing, with a memmap of its own. */
static inline struct memplug_extent extent_of(void *backing, uint64_t nr, uint64_t at_block)
{
    return (struct memplug_extent){
        .address = nr * BLOCK,
        .size_bytes = BLOCK,
        .backing = backing,
        .offset_bytes = at_block * BLOCK,
        .memmap_bytes = MEMMAP,
    };
}

static inline int attach(struct memplug_linux *host, const struct memplug_extent *extent)
{
    return memplug_linux_host(host)->ops->attach(host, extent);
}

static inline void detach(struct memplug_linux *host, const struct memplug_extent *extent)
{
    memplug_linux_host(host)->ops->detach(host, extent);
}

static inline int alias(struct memplug_linux *host, const struct memplug_extent *extent)
{
    return memplug_linux_host(host)->ops->memmap_alias(
        host, extent->address / BLOCK * MEMMAP, extent->address, extent->memmap_bytes, 2 * MIB);
}

static inline void unalias(struct memplug_linux *host, const struct memplug_extent *extent)
{
    memplug_linux_host(host)->ops->memmap_unmap(host, extent->address / BLOCK * MEMMAP,
                                                extent->memmap_bytes, 2 * MIB);
}

static inline char *direct(struct memplug_linux *host, const struct memplug_extent *extent)
{
    return memplug_linux_host(host)->direct_map + extent->address;
}

static inline char *memmap_of(struct memplug_linux *host, const struct memplug_extent *extent)
{
    return memplug_linux_host(host)->memmap + extent->address / BLOCK * MEMMAP;
}

/* A file without a name in a directory; -1 if it cannot be. */
static inline int file_in(const char *directory, uint64_t size_bytes)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/memplug-test-XXXXXX", directory);
    fd = mkstemp(path);
    if (fd >= 0) {
        unlink(path);
        if (ftruncate(fd, (off_t)size_bytes) != 0) {
            close(fd);
            fd = -1;
        }
    }
    return fd;
}

static inline uint64_t blocks_of(int fd)
{
    struct stat status;

    assert_int_equal(fstat(fd, &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

/* A number in /proc or /sys after a word, or the first one. */
static inline long number_in(const char *path, const char *word)
{
    char text[8192];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    long length = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

    if (fd >= 0) {
        close(fd);
    }
    if (length <= 0) {
        return -1;
    }
    text[length] = 0;
    const char *at = word ? strstr(text, word) : text;
    return at ? strtol(at + (word ? strlen(word) : 0), NULL, 10) : -1;
}

/* How a child of ours ended: its exit status, or 1000 and the signal. */
static inline int status_of(pid_t child)
{
    int status = 0;

    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Run a check in a child of its own: 0 passed, 77 could not run, else the line that failed. */
static inline int in_child(int (*check)(void *), void *argument)
{
    int result;

    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setenv("CMOCKA_TEST_ABORT", "1", 1); /* an assert ends the child, and runs no other test */
        _exit(check(argument));
    }
    result = status_of(child);
    if (result > 1000)
        print_error("child ended by signal %d\n", result - 1000);
    return result;
}

/* A test that hangs has failed. */
static inline int within(unsigned seconds, int (*check)(void *), void *argument)
{
    int result;

    alarm(seconds + 30);
    result = in_child(check, argument);
    alarm(0);
    return result;
}

/* In children, which must not use cmocka's asserts: say the line and end. */
#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            dprintf(2, "child: line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            return 1;                                                           \
        }                                                                       \
    } while (0)

#endif
