/* SPDX-License-Identifier: MIT */
/* sort and uniq. */
#include "shell_private.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 8

/* A field, or some of them; both counted from 1. */
struct key {
    unsigned long from, from_byte, to, to_byte; /* to 0: to the end of the line */
    bool numeric, reverse, fold, blanks;
};

struct order {
    struct key keys[KEYS];
    size_t nr_keys;
    char separator; /* 0: where blanks begin */
    bool unique, stable, reverse;
};

struct lines {
    struct line *lines;
    size_t count, size;
};

static void take_lines(struct shell *shell, struct lines *all, const struct text *text)
{
    struct line line;

    for (size_t at = 0; line_next(text, &at, &line); ) {
        if (all->count == all->size) {
            struct line *grown = shell_alloc(shell, (2 * all->size + 64) * sizeof(*grown));

            if (all->count != 0)
                memcpy(grown, all->lines, all->count * sizeof(*grown));
            all->lines = grown;
            all->size = 2 * all->size + 64;
        }
        line.bytes = shell_copy(shell, line.bytes, line.length);
        all->lines[all->count++] = line;
    }
}

/* The operands' lines, or those of fd 0; complains in a tool's own words. */
static int read_lines(struct shell *shell, char **names, const char *complaint, struct lines *all)
{
    char *standard[] = {(char[]){"-"}, NULL};
    int status = 0;

    for (char **name = *names != NULL ? names : standard; *name != NULL; name++) {
        struct text text = {.length = 0};
        int error = input_all(shell, *name, &text);

        if (error == 0) {
            take_lines(shell, all, &text);
            continue;
        }
        complain(shell, complaint, *name, strerror(-error));
        status = 1;
    }
    return status;
}

/* --- keys ------------------------------------------------------------------------------------- */

/* Where a field begins; a field has the blanks before it if blanks separate. */
static const char *field_start(const char *text, unsigned long number, char separator)
{
    for (; number > 1 && *text != '\0'; number--) {
        if (separator != '\0') {
            text += strcspn(text, (char[]){separator, '\0'});
            text += *text != '\0';
        } else {
            text += strspn(text, " \t");
            text += strcspn(text, " \t");
        }
    }
    return text;
}

static const char *key_text(struct shell *shell, const char *line, const struct order *order,
                            const struct key *key)
{
    const char *from = field_start(line, key->from, order->separator), *to;

    if (key->blanks || key->from_byte != 0)
        from += order->separator == '\0' ? strspn(from, " \t") : 0;
    for (unsigned long i = 1; i < key->from_byte && *from != '\0'; i++)
        from++;
    if (key->to == 0)
        return from;
    to = field_start(line, key->to, order->separator);
    if (key->to_byte != 0) {
        for (unsigned long i = 0; i < key->to_byte && *to != '\0'; i++)
            to++;
    } else {
        to += order->separator == '\0' ? strspn(to, " \t") : 0;
        to += strcspn(to, order->separator == '\0' ? " \t" : (char[]){order->separator, '\0'});
    }
    return shell_copy(shell, from, to > from ? (size_t)(to - from) : 0);
}

static int compare_key(struct shell *shell, const struct line *a, const struct line *b,
                       const struct order *order, const struct key *key)
{
    const char *x = key_text(shell, a->bytes, order, key);
    const char *y = key_text(shell, b->bytes, order, key);
    int result;

    if (key->numeric) {
        double left = strtod(x, NULL), right = strtod(y, NULL);

        result = left < right ? -1 : left > right;
    } else {
        result = key->fold ? strcasecmp(x, y) : strcmp(x, y);
    }
    return key->reverse ? -result : result;
}

static int compare_keys(struct shell *shell, const struct line *a, const struct line *b,
                        const struct order *order)
{
    int result = 0;

    for (size_t i = 0; i < order->nr_keys && result == 0; i++)
        result = compare_key(shell, a, b, order, &order->keys[i]);
    return result;
}

static int compare_lines(struct shell *shell, const struct line *a, const struct line *b,
                         const struct order *order)
{
    int result = compare_keys(shell, a, b, order);

    if (result != 0 || order->stable || order->unique)
        return result;
    result = strcmp(a->bytes, b->bytes);
    return order->reverse ? -result : result;
}

/* Merges what is sorted in halves; stable, and without a global for the comparison. */
static void sort_lines(struct shell *shell, struct line *lines, size_t count,
                       const struct order *order)
{
    size_t half = count / 2, i = 0, j = half, k = 0;
    struct line *merged;

    if (count < 2)
        return;
    sort_lines(shell, lines, half, order);
    sort_lines(shell, lines + half, count - half, order);
    merged = shell_alloc(shell, count * sizeof(*merged));
    while (k < count) {
        bool left = j == count ||
                    (i < half && compare_lines(shell, &lines[i], &lines[j], order) <= 0);

        merged[k++] = left ? lines[i++] : lines[j++];
    }
    memcpy(lines, merged, count * sizeof(*merged));
}

/* --- sort ------------------------------------------------------------------------------------- */

static bool parse_position(const char **at, unsigned long *field, unsigned long *byte)
{
    char *end;

    *field = strtoul(*at, &end, 10);
    if (end == *at || *field == 0)
        return false;
    *at = end;
    if (*end != '.')
        return true;
    *byte = strtoul(end + 1, &end, 10);
    *at = end;
    return true;
}

static void parse_letters(const char **at, struct key *key, bool *any)
{
    for (; **at != '\0' && strchr("nrfb", **at) != NULL; ++*at) {
        key->numeric = key->numeric || **at == 'n';
        key->reverse = key->reverse || **at == 'r';
        key->fold = key->fold || **at == 'f';
        key->blanks = key->blanks || **at == 'b';
        *any = true;
    }
}

/* Keys, a line each; those without letters have those of the whole. */
static void parse_keys(struct shell *shell, const char *at, const struct key *all,
                       struct order *order)
{
    while (*at != '\0') {
        struct key key = {.from = 0};
        bool any = false, good = parse_position(&at, &key.from, &key.from_byte);

        parse_letters(&at, &key, &any);
        if (good && *at == ',') {
            at++;
            good = parse_position(&at, &key.to, &key.to_byte);
            parse_letters(&at, &key, &any);
        }
        if (!good || order->nr_keys == KEYS || (*at != '\0' && *at != '\n'))
            shell_unknown(shell, "sort -k");
        if (!any) {
            key.numeric = all->numeric;
            key.reverse = all->reverse;
            key.fold = all->fold;
            key.blanks = all->blanks;
        }
        order->keys[order->nr_keys++] = key;
        at += *at == '\n';
    }
}

int run_sort(struct shell *shell, int argc, char **argv)
{
    struct options options;
    struct lines all = {.count = 0};
    struct order order = {.nr_keys = 0};
    struct key whole = {.from = 1};
    const char *separator;

    tool_options(shell, argc, argv, &options);
    whole.numeric = options.has['n'];
    whole.reverse = order.reverse = options.has['r'];
    whole.fold = options.has['f'];
    whole.blanks = options.has['b'];
    order.unique = options.has['u'];
    order.stable = options.has['s'];
    separator = options.value['t'];
    if (separator != NULL)
        order.separator = strcmp(separator, "\\t") == 0 ? '\t' : separator[0];
    if (options.value['k'] != NULL)
        parse_keys(shell, options.value['k'], &whole, &order);
    else
        order.keys[order.nr_keys++] = whole;
    if (read_lines(shell, argv, "%s: %s", &all) != 0)
        return 2;
    sort_lines(shell, all.lines, all.count, &order);
    for (size_t i = 0; i < all.count; i++)
        if (i == 0 || !order.unique ||
            compare_keys(shell, &all.lines[i - 1], &all.lines[i], &order) != 0)
            print_line(shell, &all.lines[i]);
    return 0;
}

/* --- uniq ------------------------------------------------------------------------------------- */

int run_uniq(struct shell *shell, int argc, char **argv)
{
    struct options options;
    struct lines all = {.count = 0};
    int nr_files = tool_options(shell, argc, argv, &options);
    bool fold = options.has['i'];
    size_t next;

    if (nr_files > 1)
        shell_unknown(shell, "uniq with an output file");
    if (read_lines(shell, argv, "can't open '%s': %s", &all) != 0)
        return 1;
    for (size_t i = 0; i < all.count; i = next) {
        for (next = i + 1; next < all.count; next++)
            if ((fold ? strcasecmp(all.lines[i].bytes, all.lines[next].bytes)
                      : strcmp(all.lines[i].bytes, all.lines[next].bytes)) != 0)
                break;
        if ((options.has['d'] && next - i == 1) || (options.has['u'] && next - i != 1))
            continue;
        if (options.has['c'])
            print(shell, "%7zu ", next - i);
        print_line(shell, &all.lines[i]);
    }
    return 0;
}
