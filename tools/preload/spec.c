/* SPDX-License-Identifier: MIT */
#include "spec.h"

#include <string.h>

/* --- text ------------------------------------------------------------------------------------- */

struct mpl_text mpl_text_of(const char *string)
{
    return (struct mpl_text){.start = string, .length = strlen(string)};
}

bool mpl_text_is(struct mpl_text text, const char *string)
{
    return strlen(string) == text.length && memcmp(text.start, string, text.length) == 0;
}

bool mpl_text_cut(struct mpl_text *text, char separator, struct mpl_text *part)
{
    const char *found;

    if (text->length == 0)
        return false;
    found = memchr(text->start, separator, text->length);
    *part = *text;
    if (found)
        part->length = (size_t)(found - text->start);
    text->start += part->length + (found ? 1 : 0);
    text->length -= part->length + (found ? 1 : 0);
    return true;
}

bool mpl_text_pair(struct mpl_text text, struct mpl_text *name, struct mpl_text *value)
{
    const char *found = text.length > 0 ? memchr(text.start, '=', text.length) : NULL;

    if (!found)
        return false;
    *name = (struct mpl_text){.start = text.start, .length = (size_t)(found - text.start)};
    *value = (struct mpl_text){.start = found + 1, .length = text.length - name->length - 1};
    return true;
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
}

/* Digits at the start of text, which becomes the rest. */
static bool cut_number(struct mpl_text *text, uint64_t *number)
{
    unsigned base = 10;
    bool any = false;

    if (text->length > 2 && text->start[0] == '0' && (text->start[1] | 0x20) == 'x') {
        base = 16;
        text->start += 2;
        text->length -= 2;
    }
    for (*number = 0; text->length > 0 && digit_of(*text->start) < (int)base; any = true) {
        if (__builtin_mul_overflow(*number, base, number) ||
            __builtin_add_overflow(*number, (uint64_t)digit_of(*text->start), number))
            return false;
        text->start++;
        text->length--;
    }
    return any;
}

bool mpl_text_number(struct mpl_text text, uint64_t *number)
{
    return cut_number(&text, number) && text.length == 0;
}

bool mpl_text_size(struct mpl_text text, uint64_t *bytes)
{
    static const char units[] = "kmgt";
    const char *unit;
    uint64_t factor;

    if (!cut_number(&text, bytes))
        return false;
    if (text.length == 0)
        return true;
    unit = memchr(units, *text.start | 0x20, sizeof(units) - 1);
    if (!unit)
        return false;
    factor = (uint64_t)1 << (10 * (unit - units + 1));
    text.start++;
    text.length--;
    if (text.length != 0 && !mpl_text_is(text, "iB") && !mpl_text_is(text, "B"))
        return false;
    return !__builtin_mul_overflow(*bytes, factor, bytes);
}

/* --- a range ---------------------------------------------------------------------------------- */

static bool is_file(const struct mpl_spec *spec)
{
    return spec->kind == MEMPLUG_BACKING_FILE || spec->kind == MEMPLUG_BACKING_DAX;
}

struct word {
    const char *name;
    int value;
};

static bool find_word(struct mpl_text text, const struct word *words, int *value)
{
    for (; words->name; words++)
        if (mpl_text_is(text, words->name)) {
            *value = words->value;
            return true;
        }
    return false;
}

static bool set_where(struct mpl_text value, struct mpl_spec *spec, const char **why)
{
    if (!is_file(spec)) {
        *why = "a size, such as 4G, stands behind memfd: and hugetlb:";
        return mpl_text_size(value, &spec->size_bytes) && spec->size_bytes > 0;
    }
    *why = "a path stands behind file: and dax:";
    if (value.length == 0 || value.length >= sizeof(spec->path))
        return false;
    memcpy(spec->path, value.start, value.length);
    spec->path[value.length] = 0;
    return true;
}

static bool set_zone(struct mpl_text value, struct mpl_spec *spec)
{
    static const struct word zones[] = {
        {"movable", MEMPLUG_ONLINE_MOVABLE},
        {"kernel", MEMPLUG_ONLINE_KERNEL},
        {"auto", MEMPLUG_ONLINE_DEFAULT},
        {NULL, 0},
    };
    int zone;

    if (!find_word(value, zones, &zone))
        return false;
    spec->online = (enum memplug_online_type)zone;
    return true;
}

static bool set_memmap(struct mpl_text value, struct mpl_spec *spec)
{
    static const struct word places[] = {
        {"block", MEMPLUG_MEMMAP_BLOCK},
        {"range", MEMPLUG_MEMMAP_RANGE},
        {"host", MEMPLUG_MEMMAP_HOST},
        {"auto", MEMPLUG_MEMMAP_AUTO},
        {NULL, 0},
    };
    int memmap;

    if (!find_word(value, places, &memmap))
        return false;
    spec->memmap = (enum memplug_memmap)memmap;
    return true;
}

static bool set_option(struct mpl_text name, struct mpl_text value, struct mpl_spec *spec,
                       const char **why)
{
    uint64_t node;

    *why = "zone= is movable, kernel or auto";
    if (mpl_text_is(name, "zone"))
        return set_zone(value, spec);
    *why = "memmap= is block, range, host or auto";
    if (mpl_text_is(name, "memmap"))
        return set_memmap(value, spec);
    *why = "node= is a number from 0 to 63";
    if (mpl_text_is(name, "node")) {
        if (!mpl_text_number(value, &node) || node > 63)
            return false;
        spec->node = (int)node;
        return true;
    }
    *why = "size= and offset= are sizes, of file: and dax:";
    if (mpl_text_is(name, "size") && is_file(spec))
        return mpl_text_size(value, &spec->size_bytes) && spec->size_bytes > 0;
    if (mpl_text_is(name, "offset") && is_file(spec))
        return mpl_text_size(value, &spec->offset_bytes);
    *why = "no such option: node=, zone=, memmap=, and of files size= and offset=";
    return false;
}

bool mpl_spec_parse(struct mpl_text text, struct mpl_spec *spec, const char **why)
{
    static const struct word kinds[] = {
        {"memfd", MEMPLUG_BACKING_MEMFD},
        {"hugetlb", MEMPLUG_BACKING_HUGETLB},
        {"file", MEMPLUG_BACKING_FILE},
        {"dax", MEMPLUG_BACKING_DAX},
        {NULL, 0},
    };
    struct mpl_text part, kind, name, value;
    int number;

    *spec = (struct mpl_spec){.online = MEMPLUG_ONLINE_MOVABLE};
    *why = "a range begins memfd:, hugetlb:, file: or dax:";
    if (!mpl_text_cut(&text, ',', &part) || !mpl_text_cut(&part, ':', &kind) ||
        !find_word(kind, kinds, &number))
        return false;
    spec->kind = (enum memplug_backing_kind)number;
    if (!set_where(part, spec, why))
        return false;
    while (mpl_text_cut(&text, ',', &part)) {
        *why = "what stands behind a comma is name=value";
        if (!mpl_text_pair(part, &name, &value) || !set_option(name, value, spec, why))
            return false;
    }
    return true;
}
