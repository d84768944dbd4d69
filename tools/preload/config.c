/* SPDX-License-Identifier: MIT */
/* What memplug run has written into the environment. */
#define _GNU_SOURCE
#include "preload.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENVIRONMENT_MAX ((size_t)1 << 20)

/* --- the environment -------------------------------------------------------------------------- */

static const char *value_of(const char *entry)
{
    size_t length = sizeof(MPL_PRE_VARIABLE) - 1;

    return strncmp(entry, MPL_PRE_VARIABLE, length) == 0 && entry[length] == '='
               ? entry + length + 1 : NULL;
}

/* Before the C library has begun there is no environ: the kernel has it too. The memory is kept. */
static const char *from_kernel(void)
{
    char *text = (char *)syscall(SYS_mmap, NULL, ENVIRONMENT_MAX, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/environ", O_RDONLY | O_CLOEXEC, 0);
    size_t length = 0;
    long nr;

    if (text == MAP_FAILED || fd < 0)
        return NULL;
    while (length < ENVIRONMENT_MAX - 1 &&
           (nr = syscall(SYS_read, fd, text + length, ENVIRONMENT_MAX - 1 - length)) > 0)
        length += (size_t)nr;
    syscall(SYS_close, fd);
    for (const char *at = text; at < text + length; at += strlen(at) + 1)
        if (value_of(at))
            return value_of(at);
    return NULL;
}

static const char *find_variable(void)
{
    if (!environ)
        return from_kernel();
    for (char **entry = environ; *entry; entry++)
        if (value_of(*entry))
            return value_of(*entry);
    return NULL;
}

/* --- its lines -------------------------------------------------------------------------------- */

bool mpl_pre_config_next(struct mpl_text *rest, const char *name, struct mpl_text *value)
{
    struct mpl_text line, found;

    while (mpl_text_cut(rest, '\n', &line))
        if (mpl_text_pair(line, &found, value) && mpl_text_is(found, name))
            return true;
    return false;
}

static bool read_range(struct mpl_pre_config *config, struct mpl_text value)
{
    struct memplug_range_spec spec;
    struct memplug_reason reason = MPL_NO_REASON;

    if (memplug_range_parse(value.start, value.length, &spec, &reason) != 0)
        return false;
    config->nr_ranges++;
    config->nr_nodes = spec.node + 1 > config->nr_nodes ? spec.node + 1 : config->nr_nodes;
    return true;
}

static bool read_number(struct mpl_text value, int *number)
{
    uint64_t wide;

    if (!mpl_text_number(value, &wide) || wide > INT_MAX)
        return false;
    *number = (int)wide;
    return true;
}

static bool read_line(struct mpl_pre_config *config, struct mpl_text name, struct mpl_text value)
{
    int number;

    if (mpl_text_is(name, "range"))
        return read_range(config, value);
    if (mpl_text_is(name, "limit"))
        return mpl_text_size(value, &config->limit_bytes);
    if (mpl_text_is(name, "uffd"))
        return read_number(value, &config->uffd);
    if (mpl_text_is(name, "pid")) {
        if (!read_number(value, &number))
            return false;
        config->pid = number;
        return true;
    }
    if (mpl_text_is(name, "pins")) {
        config->pins = mpl_text_is(value, "trusted") ? MEMPLUG_PINS_TRUSTED : MEMPLUG_PINS_PROVED;
        return mpl_text_is(value, "trusted") || mpl_text_is(value, "proved");
    }
    if (mpl_text_is(name, "fork")) {
        config->lazy = mpl_text_is(value, "lazy");
        return config->lazy || mpl_text_is(value, "copy");
    }
    if (mpl_text_is(name, "children")) {
        config->children = mpl_text_is(value, "1");
        return true;
    }
    return mpl_text_is(name, "policy"); /* read when there is a pool to write it to */
}

bool mpl_pre_config_read(struct mpl_pre_config *config)
{
    const char *variable = find_variable();
    struct mpl_text rest, line, name, value;

    /* As many nodes as a program is likely to be given memory of later. */
    *config = (struct mpl_pre_config){.uffd = -1, .checked = variable != NULL, .nr_nodes = 8,
                                      .lazy = true};
    if (!variable)
        return true;
    config->text = mpl_text_of(variable);
    rest = config->text;
    while (mpl_text_cut(&rest, '\n', &line)) {
        struct mpl_line said = {.length = 0};

        if (line.length == 0 || (mpl_text_pair(line, &name, &value) &&
                                 read_line(config, name, value)))
            continue;
        mpl_line_add(&said, "a line of " MPL_PRE_VARIABLE " is not understood: ");
        mpl_line_add_text(&said, line);
        mpl_say(&said);
        return false;
    }
    return true;
}
