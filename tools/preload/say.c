/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct {
    dev_t dev;
    ino_t ino;
    bool known;
} standard_error;

void mpl_line_add_text(struct mpl_line *line, struct mpl_text text)
{
    size_t room = sizeof(line->text) - 1 - line->length;
    size_t length = text.length < room ? text.length : room;

    memcpy(line->text + line->length, text.start, length);
    line->length += length;
}

void mpl_line_add(struct mpl_line *line, const char *text)
{
    mpl_line_add_text(line, mpl_text_of(text));
}

void mpl_line_add_number(struct mpl_line *line, uint64_t number)
{
    char digits[20];
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    mpl_line_add_text(line, (struct mpl_text){digits + at, sizeof(digits) - at});
}

void mpl_say_open(void)
{
    struct stat status;
    int saved = errno;

    standard_error.known = fstat(2, &status) == 0;
    if (standard_error.known) {
        standard_error.dev = status.st_dev;
        standard_error.ino = status.st_ino;
    }
    errno = saved;
}

static bool is_standard_error(int fd)
{
    struct stat status;

    return standard_error.known && fstat(fd, &status) == 0 &&
           status.st_dev == standard_error.dev && status.st_ino == standard_error.ino;
}

/* The program's, for a thread of ours that has a table of descriptors of its own, where number 2 is
 * nothing or something else. A socket cannot be opened by its name, and a duplicate is refused in
 * some containers. */
static int open_standard_error(void)
{
    int process = (int)syscall(SYS_pidfd_open, syscall(SYS_getpid), 0);
    int fd = process >= 0 ? (int)syscall(SYS_pidfd_getfd, process, 2, 0) : -1;

    if (process >= 0)
        syscall(SYS_close, process);
    if (fd >= 0)
        return fd;
    return (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/fd/2",
                        O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0);
}

void mpl_say(const struct mpl_line *line)
{
    struct mpl_line whole = {.length = 0};
    int saved = errno;
    int fd = 2, own = -1;

    mpl_line_add(&whole, "memplug: ");
    mpl_line_add_text(&whole, (struct mpl_text){line->text, line->length});
    whole.text[whole.length++] = '\n';
    if (!is_standard_error(fd))
        fd = own = open_standard_error();
    if (is_standard_error(fd))
        syscall(SYS_write, fd, whole.text, whole.length);
    if (own >= 0)
        syscall(SYS_close, own);
    errno = saved;
}

void mpl_say_reason(const char *what, const struct memplug_reason *reason)
{
    struct mpl_line line = {.length = 0};
    char text[512];

    memplug_reason_text(reason, text, sizeof(text));
    mpl_line_add(&line, what);
    mpl_line_add(&line, ": ");
    mpl_line_add(&line, text);
    mpl_say(&line);
}
