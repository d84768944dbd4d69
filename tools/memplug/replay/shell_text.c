/* SPDX-License-Identifier: MIT */
/* Tools that take texts and lines apart. */
#include "shell_private.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int run_cat(struct shell *shell, int argc, char **argv)
{
    struct options options;
    int nr_files = tool_options(shell, argc, argv, &options), status = 0, error;
    char *chunk = shell_alloc(shell, SHELL_CHUNK);
    char *standard[] = {(char[]){"-"}, NULL};
    int64_t count;

    for (char **name = nr_files != 0 ? argv : standard; *name != NULL; name++) {
        struct file *file = input_open(shell, *name, &error);

        if (file == NULL) {
            complain(shell, "can't open '%s': %s", *name, strerror(-error));
            status = 1;
            continue;
        }
        while ((count = file_read(shell, file, chunk, SHELL_CHUNK)) > 0) {
            print_bytes(shell, chunk, (size_t)count);
            if (print_flush(shell) != 0)
                break;
        }
        file_put(shell, file);
        if (count < 0) {
            complain(shell, "read error: %s", strerror((int)-count));
            status = 1;
        }
    }
    return status;
}

/* The whole of each operand, or of fd 0, to each(); complains in a tool's own words. */
static int for_texts(struct shell *shell, char **names, const char *complaint,
                     void (*each)(struct shell *shell, const struct text *text, const char *name,
                                  void *context),
                     void *context)
{
    char *standard[] = {(char[]){"-"}, NULL};
    int status = 0;

    for (char **name = *names != NULL ? names : standard; *name != NULL; name++) {
        struct text text = {.length = 0};
        int error = input_all(shell, *name, &text);

        if (error == 0) {
            each(shell, &text, *name, context);
            continue;
        }
        complain(shell, complaint, *name, strerror(-error));
        status = 1;
    }
    return status;
}

static int64_t count_of(struct shell *shell, const char *text)
{
    int64_t number;

    if (!number_parse(text, &number)) {
        complain(shell, "invalid number '%s'", text);
        shell_unknown(shell, text);
    }
    return number;
}

/* --- head and tail ---------------------------------------------------------------------------- */

struct part_of {
    int64_t count;
    bool bytes, from_start, heads, tail;
    unsigned nr_before;
};

static void print_part(struct shell *shell, const struct text *text, size_t from, size_t to)
{
    if (from < to)
        print_bytes(shell, text->bytes + from, to - from);
}

/* Where line number `count`, from 0 on, begins. */
static size_t line_start(const struct text *text, int64_t count)
{
    struct line line;
    size_t at = 0;

    while (count-- > 0 && line_next(text, &at, &line))
        continue;
    return at;
}

static int64_t count_lines(const struct text *text)
{
    struct line line;
    int64_t count = 0;

    for (size_t at = 0; line_next(text, &at, &line); count++)
        continue;
    return count;
}

static void take_part(struct shell *shell, const struct text *text, const char *name,
                      void *context)
{
    struct part_of *part = context;
    int64_t all = part->bytes ? (int64_t)text->length : count_lines(text);
    int64_t count = part->count, edge;

    if (part->heads)
        print(shell, "%s==> %s <==\n", part->nr_before != 0 ? "\n" : "", name);
    part->nr_before++;
    if (part->from_start)
        edge = count > 0 ? count - 1 : 0;
    else if (part->tail)
        edge = all > count ? all - count : 0;
    else
        edge = count >= 0 ? count : all + count;
    if (edge < 0)
        edge = 0;
    if (edge > all)
        edge = all;
    if (!part->bytes)
        edge = (int64_t)line_start(text, edge);
    if (part->tail)
        print_part(shell, text, (size_t)edge, text->length);
    else
        print_part(shell, text, 0, (size_t)edge);
}

static int run_part(struct shell *shell, int argc, char **argv)
{
    bool tail = strcmp(argv[0], "tail") == 0;
    struct options options;
    int nr_files = tool_options(shell, argc, argv, &options), status;
    struct part_of part = {.count = 10, .tail = tail};
    const char *value = options.has['c'] ? options.value['c'] : options.value['n'];

    part.bytes = options.has['c'];
    if (value != NULL) {
        part.from_start = tail && value[0] == '+';
        part.count = count_of(shell, value);
    }
    part.heads = (nr_files > 1 && !options.has['q']) || options.has['v'];
    status = for_texts(shell, argv, tail ? "can't open '%s': %s" : "%s: %s", take_part, &part);
    if (tail && part.nr_before == 0)
        complain(shell, "no files");
    return status;
}

/* --- wc --------------------------------------------------------------------------------------- */

struct counts {
    const struct options *options;
    bool narrow, named;
    uint64_t total[3];
    unsigned nr_files;
};

static void print_counts(struct shell *shell, const struct counts *counts, const uint64_t *value,
                         const char *name)
{
    static const char letters[] = "lwc";
    const char *blank = "";

    for (unsigned i = 0; i < 3; i++) {
        if (!counts->options->has[(unsigned char)letters[i]])
            continue;
        print(shell, counts->narrow ? "%s%llu" : "%s%9llu", blank, (unsigned long long)value[i]);
        blank = " ";
    }
    print(shell, name != NULL ? " %s\n" : "\n", name);
}

static void count_text(struct shell *shell, const struct text *text, const char *name,
                       void *context)
{
    struct counts *counts = context;
    uint64_t value[3] = {0};
    bool in_word = false;

    for (size_t i = 0; i < text->length; i++) {
        char c = text->bytes[i];

        if (c == SHELL_FOREIGN_MARK)
            continue;
        value[0] += c == '\n';
        value[1] += !in_word && !isspace((unsigned char)c);
        in_word = !isspace((unsigned char)c);
        value[2]++;
    }
    for (unsigned i = 0; i < 3; i++)
        counts->total[i] += value[i];
    counts->nr_files++;
    print_counts(shell, counts, value, counts->named ? name : NULL);
}

static int run_wc(struct shell *shell, int argc, char **argv)
{
    struct options options;
    int nr_files = tool_options(shell, argc, argv, &options), status;
    struct counts counts = {.options = &options, .named = nr_files != 0};
    int nr_kinds = options.has['l'] + options.has['w'] + options.has['c'];

    if (nr_kinds == 0)
        options.has['l'] = options.has['w'] = options.has['c'] = true;
    counts.narrow = nr_kinds == 1 && nr_files < 2;
    status = for_texts(shell, argv, "%s: %s", count_text, &counts);
    if (nr_files > 1)
        print_counts(shell, &counts, counts.total, "total");
    return status;
}

/* --- cut, tr, seq and names ------------------------------------------------------------------- */

static bool in_list(const char *list, size_t number)
{
    while (*list != '\0') {
        char *end;
        size_t from = strtoul(list, &end, 10), to = from;

        if (end == list)
            from = 1;
        if (*end == '-') {
            list = end + 1;
            to = strtoul(list, &end, 10);
            if (end == list)
                to = SIZE_MAX;
        }
        if (number >= from && number <= to)
            return true;
        list = end + (*end == ',');
        if (*end != ',')
            break;
    }
    return false;
}

static void cut_line(struct shell *shell, const struct line *line, const struct options *options)
{
    char separator = options->has['d'] ? options->value['d'][0] : '\t';
    const char mark = SHELL_FOREIGN_MARK;
    bool fields = options->has['f'], first = true;
    size_t number = 1, start = 0;

    if (options->has['s'] && fields && memchr(line->bytes, separator, line->length) == NULL)
        return;
    if (line->mark)
        print_bytes(shell, &mark, 1);
    if (fields && memchr(line->bytes, separator, line->length) == NULL) {
        print_bytes(shell, line->bytes, line->length);
        start = line->length + 1;
    }
    for (size_t i = start; i <= line->length; i++) {
        if (!fields) {
            if (i < line->length && in_list(options->value['c'], i + 1))
                print_bytes(shell, line->bytes + i, 1);
            continue;
        }
        if (i < line->length && line->bytes[i] != separator)
            continue;
        if (in_list(options->value['f'], number++)) {
            if (!first)
                print_bytes(shell, &separator, 1);
            first = false;
            print_bytes(shell, line->bytes + start, i - start);
        }
        start = i + 1;
    }
    print(shell, "\n");
}

static void cut_text(struct shell *shell, const struct text *text, const char *name, void *context)
{
    struct line line;

    (void)name;
    for (size_t at = 0; line_next(text, &at, &line); )
        cut_line(shell, &line, context);
}

static int run_cut(struct shell *shell, int argc, char **argv)
{
    struct options options;

    tool_options(shell, argc, argv, &options);
    if (options.has['b']) {
        options.has['c'] = true;
        options.value['c'] = options.value['b'];
    }
    if (options.has['f'] == options.has['c'])
        shell_unknown(shell, "cut");
    return for_texts(shell, argv, "%s: %s", cut_text, &options);
}

/* [:digit:] and its sisters: how long that text is. */
static size_t tr_class(struct shell *shell, const char *text, unsigned char *set, size_t *count)
{
    static const struct {
        const char *name;
        int (*is)(int c);
    } classes[] = {{"[:digit:]", isdigit}, {"[:lower:]", islower}, {"[:upper:]", isupper},
                   {"[:alpha:]", isalpha}, {"[:alnum:]", isalnum}, {"[:space:]", isspace},
                   {"[:blank:]", isblank}, {"[:punct:]", ispunct}, {"[:xdigit:]", isxdigit}};

    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        if (strncmp(text, classes[i].name, strlen(classes[i].name)) != 0)
            continue;
        for (int c = 0; c < 128 && *count < 256; c++)
            if (classes[i].is(c))
                set[(*count)++] = (unsigned char)c;
        return strlen(classes[i].name);
    }
    if (strncmp(text, "[:", 2) == 0 || strncmp(text, "[=", 2) == 0)
        shell_unknown(shell, "tr with a class");
    return 0;
}

/* The characters of "a-z\n". */
static size_t tr_set(struct shell *shell, const char *text, unsigned char *set)
{
    size_t count = 0;

    for (; *text != '\0' && count < 256; text++) {
        unsigned char c = (unsigned char)*text;

        size_t length = tr_class(shell, text, set, &count);

        if (length != 0) {
            text += length - 1;
            continue;
        }
        if (c == '\\' && text[1] != '\0') {
            text++;
            c = *text == 'n' ? '\n' : *text == 't' ? '\t' : (unsigned char)*text;
        }
        set[count++] = c;
        if (text[1] == '-' && text[2] != '\0') {
            text += 2;
            for (unsigned next = c + 1u; next <= (unsigned char)*text && count < 256; next++)
                set[count++] = (unsigned char)next;
        }
    }
    return count;
}

/* All that are not in the set. */
static size_t tr_others(unsigned char *set, size_t count)
{
    unsigned char others[256];
    size_t nr_others = 0;

    for (unsigned c = 0; c < 256; c++)
        if (memchr(set, (int)c, count) == NULL)
            others[nr_others++] = (unsigned char)c;
    memcpy(set, others, nr_others);
    return nr_others;
}

static int run_tr(struct shell *shell, int argc, char **argv)
{
    int last = -1; /* of what -s squeezes */
    struct options options;
    unsigned char from[256], to[256];
    struct text text = {.length = 0};
    int nr_sets = tool_options(shell, argc, argv, &options);
    size_t nr_from, nr_to = 0;

    if (nr_sets != (options.has['d'] || (options.has['s'] && nr_sets == 1) ? 1 : 2))
        shell_unknown(shell, "tr");
    nr_from = tr_set(shell, argv[0], from);
    if (options.has['c'])
        nr_from = tr_others(from, nr_from);
    if (nr_sets == 2)
        nr_to = tr_set(shell, argv[1], to);
    if (nr_sets == 2 && nr_to == 0)
        shell_unknown(shell, "tr to nothing");
    if (input_all(shell, "-", &text) != 0)
        return 1;
    for (size_t i = 0; i < text.length; i++) {
        const unsigned char *found = memchr(from, (unsigned char)text.bytes[i], nr_from);
        char c = text.bytes[i];

        if (c == SHELL_FOREIGN_MARK) {
            print_bytes(shell, &c, 1);
            continue;
        }
        if (found != NULL && options.has['d'])
            continue;
        if (found != NULL && nr_sets == 2) {
            size_t index = (size_t)(found - from);

            c = (char)to[index < nr_to ? index : nr_to - 1];
        }
        if (found != NULL && options.has['s'] && (unsigned char)c == last)
            continue;
        last = found != NULL ? (unsigned char)c : -1;
        print_bytes(shell, &c, 1);
    }
    return 0;
}

static int run_seq(struct shell *shell, int argc, char **argv)
{
    int64_t first = 1, step = 1, last;
    const char *separator = "\n", *between = "";
    bool padded = false; /* as wide as the widest */
    int width = 0;

    if (argc > 1 && strcmp(argv[1], "-w") == 0) {
        padded = true;
        argc--;
        argv++;
    }
    if (argc > 1 && strncmp(argv[1], "-s", 2) == 0) {
        separator = argv[1][2] != '\0' ? argv[1] + 2 : argc > 2 ? argv[2] : "";
        argc -= argv[1][2] != '\0' ? 1 : 2;
        argv += argv[1][2] != '\0' ? 1 : 2;
    }
    if (argc < 2 || argc > 4)
        shell_unknown(shell, "seq");
    last = count_of(shell, argv[argc - 1]);
    if (argc > 2)
        first = count_of(shell, argv[1]);
    if (argc > 3)
        step = count_of(shell, argv[2]);
    if (step == 0)
        shell_leave(shell, SHELL_ENDLESS);
    if (padded)
        for (int i = 1; i < argc; i++)
            width = (int)strlen(argv[i]) > width && (i != 2 || argc != 4) ? (int)strlen(argv[i])
                                                                         : width;
    for (int64_t n = first; step > 0 ? n <= last : n >= last; n += step) {
        print(shell, "%s%0*lld", between, width, (long long)n);
        between = separator;
        if (shell->out.length > SHELL_CHUNK && print_flush(shell) != 0)
            break;
    }
    if (*between != '\0')
        print(shell, "\n");
    return 0;
}

static char *without_slashes(struct shell *shell, const char *path)
{
    size_t length = strlen(path);

    while (length > 1 && path[length - 1] == '/')
        length--;
    return shell_copy(shell, path, length);
}

static int run_basename(struct shell *shell, int argc, char **argv)
{
    const char *path = argc > 1 ? without_slashes(shell, argv[1]) : "";
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL && slash[1] != '\0' ? slash + 1 : path;
    size_t length = strlen(name), cut = argc > 2 ? strlen(argv[2]) : 0;

    if (argc < 2 || argc > 3)
        shell_unknown(shell, "basename");
    if (cut != 0 && cut < length && strcmp(name + length - cut, argv[2]) == 0)
        length -= cut;
    print(shell, "%.*s\n", (int)length, name);
    return 0;
}

static int run_dirname(struct shell *shell, int argc, char **argv)
{
    const char *path = argc == 2 ? without_slashes(shell, argv[1]) : "";
    const char *slash = strrchr(path, '/');

    if (argc != 2)
        shell_unknown(shell, "dirname");
    if (slash == NULL)
        print(shell, ".\n");
    else
        print(shell, "%.*s\n", slash == path ? 1 : (int)(slash - path), path);
    return 0;
}

const struct tool shell_text_tools[] = {
    {"cat", "", 0, run_cat},
    {"head", "0n:c:qv", 0, run_part},
    {"tail", "0n:c:qv", 0, run_part},
    {"wc", "lwc", 0, run_wc},
    {"sort", "nrfbusk:t:", 0, run_sort},
    {"uniq", "cdui", 0, run_uniq},
    {"cut", "sd:f:c:b:", 0, run_cut},
    {"tr", "dsc", 0, run_tr},
    {"seq", NULL, 0, run_seq},
    {"basename", "", 0, run_basename},
    {"dirname", "", 0, run_dirname},
    {NULL, NULL, 0, NULL},
};
