/* SPDX-License-Identifier: MIT */
/* A range in words, and what it takes to plug it in. */
#include "host.h"
#include "sys.h"

#include <memplug/range.h>

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* --- words ------------------------------------------------------------------------------------ */

struct words {
    const char *at, *end;
};

struct choice {
    const char *name;
    int value;
};

static bool is(struct words words, const char *name)
{
    size_t length = strlen(name);

    return (size_t)(words.end - words.at) == length && memcmp(words.at, name, length) == 0;
}

/* What stands before the separator, or all of it; words becomes what is behind. */
static struct words cut(struct words *words, char separator)
{
    const char *found = memchr(words->at, separator, (size_t)(words->end - words->at));
    struct words part = {.at = words->at, .end = found != NULL ? found : words->end};

    words->at = found != NULL ? found + 1 : words->end;
    return part;
}

static bool choose(struct words words, const struct choice *choices, int *value)
{
    for (; choices->name != NULL; choices++)
        if (is(words, choices->name)) {
            *value = choices->value;
            return true;
        }
    return false;
}

static bool number_of(struct words *words, uint64_t *number)
{
    bool hex = words->end - words->at > 2 && words->at[0] == '0' && (words->at[1] | 0x20) == 'x';
    const char *start = words->at += hex ? 2 : 0;
    uint64_t base = hex ? 16 : 10;

    for (*number = 0; words->at < words->end; words->at++) {
        char c = (char)(*words->at | 0x20);
        unsigned digit = c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                              : (unsigned)(*words->at - '0');

        if (digit >= base)
            break;
        if (__builtin_mul_overflow(*number, base, number) ||
            __builtin_add_overflow(*number, (uint64_t)digit, number))
            return false;
    }
    return words->at > start;
}

static bool size_of(struct words words, uint64_t *bytes)
{
    static const char units[] = "kmgt";
    const char *unit;

    if (!number_of(&words, bytes))
        return false;
    if (words.at == words.end)
        return true;
    unit = memchr(units, *words.at++ | 0x20, sizeof(units) - 1);
    if (unit == NULL || (words.at < words.end && !is(words, "iB") && !is(words, "B")))
        return false;
    return !__builtin_mul_overflow(*bytes, (uint64_t)1 << (10 * (unit - units + 1)), bytes);
}

/* --- parse ------------------------------------------------------------------------------------ */

static bool is_file(const struct memplug_range_spec *spec)
{
    return spec->kind == MEMPLUG_BACKING_FILE || spec->kind == MEMPLUG_BACKING_DAX;
}

static const char *set_zone(struct memplug_range_spec *spec, struct words value)
{
    static const struct choice zones[] = {
        {"movable", MEMPLUG_ONLINE_MOVABLE},
        {"kernel", MEMPLUG_ONLINE_KERNEL},
        {"auto", MEMPLUG_ONLINE_DEFAULT},
        {NULL, 0},
    };
    int zone;

    spec->offline = is(value, "none");
    if (spec->offline)
        return NULL;
    if (!choose(value, zones, &zone))
        return "zone= is movable, kernel, auto or none";
    spec->online = (enum memplug_online_type)zone;
    return NULL;
}

static const char *set_memmap(struct memplug_range_spec *spec, struct words value)
{
    static const struct choice places[] = {
        {"block", MEMPLUG_MEMMAP_BLOCK},
        {"range", MEMPLUG_MEMMAP_RANGE},
        {"host", MEMPLUG_MEMMAP_HOST},
        {"auto", MEMPLUG_MEMMAP_AUTO},
        {NULL, 0},
    };
    int memmap;

    if (!choose(value, places, &memmap))
        return "memmap= is block, range, host or auto";
    spec->memmap = (enum memplug_memmap)memmap;
    return NULL;
}

/* Null, or what is wrong. */
static const char *set_option(struct memplug_range_spec *spec, struct words value)
{
    struct words name = cut(&value, '=');
    uint64_t node;

    if (is(name, "zone"))
        return set_zone(spec, value);
    if (is(name, "memmap"))
        return set_memmap(spec, value);
    if (is(name, "node")) {
        if (!number_of(&value, &node) || value.at != value.end || node > 63)
            return "node= is a number from 0 to 63";
        spec->node = (int)node;
        return NULL;
    }
    if (is_file(spec) && is(name, "size"))
        return size_of(value, &spec->size_bytes) && spec->size_bytes > 0 ? NULL : "size= is a size";
    if (is_file(spec) && is(name, "offset"))
        return size_of(value, &spec->offset_bytes) ? NULL : "offset= is a size";
    return "no such option: node=, zone=, memmap=, and of files size= and offset=";
}

static const char *set_where(struct memplug_range_spec *spec, struct words where)
{
    size_t length = (size_t)(where.end - where.at);

    if (!is_file(spec))
        return size_of(where, &spec->size_bytes) && spec->size_bytes > 0
                   ? NULL
                   : "a size, such as 4G, stands behind memfd: and hugetlb:";
    if (length == 0 || length >= sizeof(spec->path) || where.at[0] != '/' ||
        memchr(where.at, '\0', length) != NULL)
        return "a path from the root on stands behind file: and dax:";
    memcpy(spec->path, where.at, length);
    spec->path[length] = '\0';
    return NULL;
}

static const char *parse(struct words words, struct memplug_range_spec *spec)
{
    static const struct choice kinds[] = {
        {"memfd", MEMPLUG_BACKING_MEMFD},
        {"hugetlb", MEMPLUG_BACKING_HUGETLB},
        {"file", MEMPLUG_BACKING_FILE},
        {"dax", MEMPLUG_BACKING_DAX},
        {NULL, 0},
    };
    struct words where = cut(&words, ',');
    struct words kind = cut(&where, ':');
    const char *wrong;
    int number;

    if (!choose(kind, kinds, &number))
        return "a range begins memfd:, hugetlb:, file: or dax:";
    spec->kind = (enum memplug_backing_kind)number;
    wrong = set_where(spec, where);
    while (wrong == NULL && words.at < words.end)
        wrong = set_option(spec, cut(&words, ','));
    return wrong;
}

int memplug_range_parse(const char *text, size_t length, struct memplug_range_spec *spec,
                        struct memplug_reason *reason)
{
    const char *wrong;

    if (length > 0 && text[length - 1] == '\n')
        length--;
    memset(spec, 0, sizeof(*spec));
    spec->online = MEMPLUG_ONLINE_MOVABLE;
    wrong = parse((struct words){.at = text, .end = text + length}, spec);
    if (wrong == NULL)
        return 0;
    reason->error = -EINVAL;
    reason->why = wrong;
    return -EINVAL;
}

/* --- plug ------------------------------------------------------------------------------------- */

static int say(struct memplug_reason *reason, int error, const char *why)
{
    reason->error = error;
    reason->why = why;
    return error;
}

/* How large what stands behind a path is. */
static int all_bytes(int fd, uint64_t *bytes)
{
    struct stat status;
    uint64_t align_bytes;

    if (fstat(fd, &status) != 0)
        return -errno;
    *bytes = (uint64_t)status.st_size;
    return S_ISCHR(status.st_mode) ? mpl_dax_probe("/sys", status.st_rdev, bytes, &align_bytes) : 0;
}

static int open_file(const struct memplug_linux *host, const struct memplug_range_spec *spec,
                     struct memplug_backing_spec *wanted, uint64_t *size_bytes,
                     struct memplug_reason *reason)
{
    uint64_t bytes;
    int error;

    wanted->fd = mpl_sys_open(spec->path, O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (wanted->fd < 0)
        return say(reason, -errno, "the file cannot be opened for reading and writing");
    error = all_bytes(wanted->fd, &bytes);
    if (error != 0)
        return say(reason, error, "this is neither a file nor device-dax");
    if (*size_bytes == 0) {
        bytes = bytes > spec->offset_bytes ? bytes - spec->offset_bytes : 0;
        *size_bytes = bytes - bytes % host->block_bytes;
        if (*size_bytes == 0)
            return say(reason, -ENXIO, "the file has not one block behind the offset");
    }
    wanted->size_bytes = spec->offset_bytes + *size_bytes;
    return 0;
}

int memplug_range_open(struct memplug_linux *host, const struct memplug_range_spec *spec,
                       struct memplug_add *add, struct memplug_reason *reason)
{
    struct memplug_backing_spec wanted = {
        .kind = spec->kind, .size_bytes = spec->size_bytes, .fd = -1};
    int error = 0;

    *add = (struct memplug_add){
        .address = MEMPLUG_ANY_ADDRESS,
        .size_bytes = spec->size_bytes,
        .offset_bytes = spec->offset_bytes,
        .node = spec->node,
        .memmap = spec->memmap,
    };
    if (spec->size_bytes % host->block_bytes != 0)
        return say(reason, -EINVAL, "the size is not whole blocks");
    if (is_file(spec))
        error = open_file(host, spec, &wanted, &add->size_bytes, reason);
    if (error == 0)
        error = memplug_linux_backing_open(host, &wanted, &add->backing, reason);
    if (wanted.fd >= 0)
        mpl_sys_close(wanted.fd);
    return error;
}

uint64_t mpl_limit_start(const struct memplug_linux *host)
{
    return host->host.ops->now_ns(host->host.context);
}

struct memplug_limit mpl_limit_rest(const struct memplug_linux *host,
                                    const struct memplug_limit *limit, uint64_t start_ns)
{
    uint64_t passed_ns = mpl_limit_start(host) - start_ns;
    struct memplug_limit rest = {.timeout_ns = 0};

    if (limit != NULL)
        rest = *limit;
    if (rest.timeout_ns != 0)
        rest.timeout_ns = rest.timeout_ns > passed_ns ? rest.timeout_ns - passed_ns : 1;
    return rest;
}

/* Those that a policy has put online already stay where they are. */
static int put_online(struct memplug_linux *host, struct memplug *pool,
                      const struct memplug_add *add, enum memplug_online_type type,
                      const struct memplug_limit *limit, struct memplug_reason *reason)
{
    uint64_t first = memplug_block_of(pool, add->address), start_ns = mpl_limit_start(host);
    uint64_t end = memplug_block_of(pool, add->address + add->size_bytes - 1) + 1;
    int error = 0;

    for (uint64_t block = first; block < end && error == 0; block++) {
        struct memplug_limit rest = mpl_limit_rest(host, limit, start_ns);
        struct memplug_block_info info;

        if (memplug_block_info(pool, block, &info) == 0 && info.state == MEMPLUG_BLOCK_OFFLINE)
            error = memplug_online(pool, block, 1, type, &rest, reason);
    }
    return error;
}

int memplug_range_plug(struct memplug_linux *host, struct memplug *pool,
                       const struct memplug_range_spec *spec, struct memplug_add *add,
                       const struct memplug_limit *limit, struct memplug_reason *reason)
{
    uint64_t start_ns = mpl_limit_start(host);
    int error = memplug_range_open(host, spec, add, reason);

    if (error != 0)
        return error;
    error = memplug_add(pool, add, limit, reason);
    if (error == 0 && !spec->offline) {
        struct memplug_limit rest = mpl_limit_rest(host, limit, start_ns);

        error = put_online(host, pool, add, spec->online, &rest, reason);
        if (error != 0 && memplug_offline_and_remove(pool, add->address, add->size_bytes, NULL,
                                                     NULL) != 0)
            reason->remedy = "the range is still plugged in: take it out when that can be";
    }
    memplug_linux_backing_close(host, add->backing); /* it lives as long as its blocks */
    return error;
}
