/* SPDX-License-Identifier: MIT */
/* How much memory there is for this process: the machine's, or what its control groups leave. */
#define _GNU_SOURCE
#include "preload.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

/* What is in a file, as far as there is room; empty if it cannot be read. */
static struct mpl_text read_file(const char *path, char *text, size_t size_bytes)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    struct mpl_text whole = {.start = text};
    long nr;

    if (fd < 0)
        return whole;
    while (whole.length < size_bytes &&
           (nr = syscall(SYS_read, fd, text + whole.length, size_bytes - whole.length)) > 0)
        whole.length += (size_t)nr;
    syscall(SYS_close, fd);
    return whole;
}

/* The limit of one group; none, or no such group: UINT64_MAX. */
static uint64_t limit_of(const char *folder, struct mpl_text group, const char *file)
{
    struct mpl_line path = {.length = 0};
    struct mpl_text text, number;
    char value[32];
    uint64_t bytes;

    mpl_line_add(&path, folder);
    mpl_line_add_text(&path, group);
    mpl_line_add(&path, file);
    path.text[path.length] = 0;
    text = read_file(path.text, value, sizeof(value));
    return mpl_text_cut(&text, '\n', &number) && mpl_text_number(number, &bytes) ? bytes
                                                                                 : UINT64_MAX;
}

/* Of a group and all that it is in. A container sees its own group as the root, whatever its path
 * says: so what is not there is passed over. */
static uint64_t least_limit(const char *folder, struct mpl_text group, const char *file)
{
    uint64_t least = limit_of(folder, mpl_text_of(""), file);

    while (group.length > 0) {
        uint64_t bytes = limit_of(folder, group, file);

        least = bytes < least ? bytes : least;
        do
            group.length--;
        while (group.length > 0 && group.start[group.length] != '/');
    }
    return least;
}

static bool has_memory(struct mpl_text controllers)
{
    struct mpl_text one;

    while (mpl_text_cut(&controllers, ',', &one))
        if (mpl_text_is(one, "memory"))
            return true;
    return false;
}

/* Lines of "number:controllers:group"; of version 2 the controllers are empty. */
uint64_t mpl_pre_group_bytes(const char *groups, const char *root)
{
    char text[4096];
    struct mpl_text rest = read_file(groups, text, sizeof(text)), line, number, controllers;
    struct mpl_line old = {.length = 0};
    uint64_t least = UINT64_MAX;

    mpl_line_add(&old, root);
    mpl_line_add(&old, "/memory");
    old.text[old.length] = 0;
    while (mpl_text_cut(&rest, '\n', &line)) {
        uint64_t bytes = UINT64_MAX;

        if (!mpl_text_cut(&line, ':', &number) || !mpl_text_cut(&line, ':', &controllers))
            continue;
        if (has_memory(controllers))
            bytes = least_limit(old.text, line, "/memory.limit_in_bytes");
        else if (controllers.length == 0)
            bytes = least_limit(root, line, "/memory.max");
        least = bytes < least ? bytes : least;
    }
    return least;
}

uint64_t mpl_pre_memory_bytes(void)
{
    struct sysinfo info;
    uint64_t all = sysinfo(&info) == 0 ? (uint64_t)info.totalram * info.mem_unit : 1ull << 30;
    uint64_t group = mpl_pre_group_bytes("/proc/self/cgroup", "/sys/fs/cgroup");

    return group < all ? group : all;
}
