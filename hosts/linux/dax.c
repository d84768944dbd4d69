/* SPDX-License-Identifier: MIT */
/*
 * Device-dax: what sysfs says of the character device. Written after the kernel's documentation
 * (Documentation/ABI/testing/sysfs-bus-dax: align, size); the parsing is tested on a directory,
 * mapping a device is NOT: no machine with one was at hand.
 */
#define _GNU_SOURCE
#include "host.h"
#include "sys.h"

#include <errno.h>
#include <sys/sysmacros.h>

struct text {
    char bytes[160];
    unsigned length;
};

static void put(struct text *text, const char *part)
{
    while (*part && text->length + 1 < sizeof(text->bytes)) {
        text->bytes[text->length++] = *part++;
    }
    text->bytes[text->length] = 0;
}

static void put_number(struct text *text, unsigned number)
{
    char digits[12];
    unsigned at = sizeof(digits) - 1;

    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    put(text, digits + at);
}

static struct text attribute_path(const char *root, uint64_t rdev, const char *name)
{
    struct text path = {.length = 0};

    put(&path, root);
    put(&path, "/dev/char/");
    put_number(&path, major(rdev));
    put(&path, ":");
    put_number(&path, minor(rdev));
    put(&path, "/");
    put(&path, name);
    return path;
}

static int read_number(const char *root, uint64_t rdev, const char *name, uint64_t *number)
{
    struct text path = attribute_path(root, rdev, name);
    char digits[32];
    int fd = mpl_sys_open(path.bytes, O_RDONLY);

    if (fd < 0) {
        return -ENODEV;
    }
    long length = mpl_sys_read(fd, digits, sizeof(digits));
    mpl_sys_close(fd);
    *number = 0;
    long at = 0;
    for (; at < length && digits[at] >= '0' && digits[at] <= '9'; at++) {
        *number = *number * 10 + (uint64_t)(digits[at] - '0');
    }
    return at > 0 ? 0 : -ENODEV;
}

static bool is_dax(const char *root, uint64_t rdev)
{
    struct text path = attribute_path(root, rdev, "subsystem");
    char target[256];
    long length = readlink(path.bytes, target, sizeof(target));

    return length >= 4 && target[length - 4] == '/' && target[length - 3] == 'd' &&
           target[length - 2] == 'a' && target[length - 1] == 'x';
}

int mpl_dax_probe(const char *root, uint64_t rdev, uint64_t *size_bytes, uint64_t *align_bytes)
{
    if (!is_dax(root, rdev) || read_number(root, rdev, "size", size_bytes) != 0) {
        return -ENODEV;
    }
    if (read_number(root, rdev, "align", align_bytes) != 0) {
        *align_bytes = 2ull << 20; /* kernels without the attribute have this alignment */
    }
    if (*align_bytes == 0 || (*align_bytes & (*align_bytes - 1)) != 0) {
        return -ENODEV;
    }
    return 0;
}
