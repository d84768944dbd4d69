/* SPDX-License-Identifier: MIT */
/* Text into a buffer of fixed size, cut and always terminated: no stdio of the program's. */
#ifndef MPL_LINUX_SAY_H
#define MPL_LINUX_SAY_H

#include <stddef.h>
#include <stdint.h>

struct mpl_say {
    char *text;
    size_t size; /* at least 1 */
    size_t used;
};

static inline void mpl_say(struct mpl_say *say, const char *words)
{
    while (*words && say->used + 1 < say->size)
        say->text[say->used++] = *words++;
    say->text[say->used] = 0;
}

static inline void mpl_say_number(struct mpl_say *say, uint64_t value)
{
    char digits[21];
    unsigned at = sizeof(digits) - 1;

    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    mpl_say(say, digits + at);
}

static inline void mpl_say_hex(struct mpl_say *say, uint64_t value)
{
    char digits[17];
    unsigned at = sizeof(digits) - 1;

    digits[at] = 0;
    do {
        digits[--at] = "0123456789abcdef"[value % 16];
        value /= 16;
    } while (value > 0);
    mpl_say(say, "0x");
    mpl_say(say, digits + at);
}

/* "12.345 s" */
static inline void mpl_say_seconds(struct mpl_say *say, uint64_t ns)
{
    char part[6] = ".000 ";
    uint64_t ms = ns / 1000000u;

    part[1] = (char)('0' + ms / 100 % 10);
    part[2] = (char)('0' + ms / 10 % 10);
    part[3] = (char)('0' + ms % 10);
    mpl_say_number(say, ms / 1000);
    mpl_say(say, part);
    mpl_say(say, "s");
}

/* "8 MiB", "12 KiB", "100 bytes": in the largest unit that divides it. */
static inline void mpl_say_bytes(struct mpl_say *say, uint64_t bytes)
{
    unsigned shift = bytes == 0 || bytes % 1024 != 0 ? 0 : bytes % (1u << 20) != 0 ? 10 : 20;

    mpl_say_number(say, bytes >> shift);
    mpl_say(say, shift == 0 ? " bytes" : shift == 10 ? " KiB" : " MiB");
}

#endif
