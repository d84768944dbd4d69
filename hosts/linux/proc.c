/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "proc.h"

#include "lock.h"
#include "say.h"
#include "sys.h"

#include <errno.h>
#include <limits.h>
#include <sys/uio.h>

/* The kernel's record of a directory entry. */
struct entry {
    uint64_t ino;
    int64_t off;
    uint16_t length;
    uint8_t type;
    char name[];
};

void mpl_proc_path(char path[MPL_PROC_PATH_MAX], const char *before, int number,
                   const char *behind)
{
    struct mpl_say say = {.text = path, .size = MPL_PROC_PATH_MAX};

    mpl_say(&say, before);
    mpl_say_number(&say, (uint64_t)number);
    mpl_say(&say, behind);
}

static uint64_t digits(const char **at, unsigned base)
{
    const char *text = *at;
    uint64_t value = 0;

    for (;; text++) {
        unsigned digit = *text >= '0' && *text <= '9'   ? (unsigned)(*text - '0')
                         : *text >= 'a' && *text <= 'f' ? (unsigned)(*text - 'a') + 10
                                                        : 16;

        if (digit >= base)
            break;
        value = value * base + digit;
    }
    *at = text;
    return value;
}

uint64_t mpl_proc_hex(const char **at)
{
    return digits(at, 16);
}

uint64_t mpl_proc_value(const char **at)
{
    if ((*at)[0] != '0' || (*at)[1] != 'x')
        return digits(at, 10);
    *at += 2;
    return digits(at, 16);
}

/* --- directories ------------------------------------------------------------------------------ */

static bool act_on(const struct entry *entry, mpl_proc_number *act, void *context)
{
    const char *at = entry->name;
    uint64_t number;

    if (*at < '0' || *at > '9')
        return true;
    number = mpl_proc_value(&at);
    return *at != 0 || number > INT_MAX || act(context, (int)number);
}

bool mpl_proc_each_of(int fd, uint64_t deadline_ns, mpl_proc_number *act, void *context)
{
    _Alignas(uint64_t) char bytes[2048];
    bool more = fd >= 0;
    long length = 0;

    while (more && (length = syscall(SYS_getdents64, fd, bytes, sizeof(bytes))) > 0) {
        for (long at = 0; at < length && more;) {
            const struct entry *entry = (const void *)(bytes + at);

            more = act_on(entry, act, context) && mpl_now_ns() < deadline_ns;
            at += entry->length;
        }
    }
    return more && length == 0;
}

bool mpl_proc_each(const char *path, uint64_t deadline_ns, mpl_proc_number *act, void *context)
{
    int fd = mpl_sys_open(path, O_RDONLY | O_DIRECTORY);
    bool all = mpl_proc_each_of(fd, deadline_ns, act, context);

    if (fd >= 0)
        mpl_sys_close(fd);
    return all;
}

/* --- lines ------------------------------------------------------------------------------------ */

struct reader {
    char line[MPL_PROC_LINE_MAX];
    unsigned used;
    mpl_proc_line *act;
    void *context;
};

static bool take(struct reader *reader, const char *bytes, long length)
{
    for (long i = 0; i < length; i++) {
        if (bytes[i] != '\n') {
            if (reader->used + 1 < MPL_PROC_LINE_MAX)
                reader->line[reader->used++] = bytes[i];
            continue;
        }
        reader->line[reader->used] = 0;
        reader->used = 0;
        if (!reader->act(reader->context, reader->line))
            return false;
    }
    return true;
}

bool mpl_proc_lines_of(int fd, uint64_t deadline_ns, mpl_proc_line *act, void *context)
{
    struct reader reader = {.act = act, .context = context};
    char bytes[4096];
    bool more = fd >= 0;
    long length = 0;

    while (more && (length = mpl_sys_read(fd, bytes, sizeof(bytes))) > 0)
        more = take(&reader, bytes, length) && mpl_now_ns() < deadline_ns;
    return more && length == 0;
}

bool mpl_proc_lines(const char *path, uint64_t deadline_ns, mpl_proc_line *act, void *context)
{
    int fd = mpl_sys_open(path, O_RDONLY);
    bool all = mpl_proc_lines_of(fd, deadline_ns, act, context);

    if (fd >= 0)
        mpl_sys_close(fd);
    return all;
}

/* --- system calls ----------------------------------------------------------------------------- */

struct calls {
    mpl_proc_call_act *act;
    void *context;
    bool blind;
};

static bool has_ended(int tid)
{
    return syscall(SYS_tgkill, syscall(SYS_getpid), (long)tid, 0L) != 0 && errno == ESRCH;
}

/* "202 0x7f0012 0x0 0x1 0x0 0x0 0x0 0x7ffe10 0x7f00aa", "running", or "-1 0x7ffe10 0x7f00aa". */
static bool look_at_thread(void *context, int tid)
{
    struct calls *calls = context;
    struct mpl_proc_call call = {.tid = tid};
    char path[MPL_PROC_PATH_MAX], text[256];
    const char *at = text;
    long length;
    int fd;

    mpl_proc_path(path, "/proc/self/task/", tid, "/syscall");
    fd = mpl_sys_open(path, O_RDONLY);
    if (fd < 0) {
        calls->blind |= !has_ended(tid);
        return true;
    }
    length = mpl_sys_read(fd, text, sizeof(text) - 1);
    calls->blind |= length < 0 && errno != ESRCH;
    mpl_sys_close(fd);
    text[length > 0 ? length : 0] = 0;
    if (*at < '0' || *at > '9')
        return true;
    call.nr = (long)mpl_proc_value(&at);
    for (unsigned i = 0; i < 6 && *at == ' '; i++) {
        at++;
        call.args[i] = mpl_proc_value(&at);
    }
    return calls->act(calls->context, &call);
}

bool mpl_proc_calls(uint64_t deadline_ns, mpl_proc_call_act *act, void *context)
{
    struct calls calls = {.act = act, .context = context};

    return mpl_proc_each("/proc/self/task", deadline_ns, look_at_thread, &calls) && !calls.blind;
}

bool mpl_proc_peek(uint64_t address, void *bytes, uint64_t size_bytes)
{
    struct iovec to = {.iov_base = bytes, .iov_len = size_bytes};
    struct iovec from = {.iov_base = (void *)(uintptr_t)address, .iov_len = size_bytes};

    return syscall(SYS_process_vm_readv, syscall(SYS_getpid), &to, 1L, &from, 1L, 0L) ==
           (long)size_bytes;
}
