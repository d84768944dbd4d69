/* SPDX-License-Identifier: MIT */
#include "shell_memory.h"

#include <string.h>

enum column { RANGE, SIZE, STATE, REMOVABLE, BLOCK, NODE, ZONES, NR_COLUMNS };

static const char *const names[NR_COLUMNS] = {"RANGE", "SIZE", "STATE", "REMOVABLE", "BLOCK",
                                              "NODE", "ZONES"};

struct lsmem {
    struct shell *shell;
    struct memory memory;
    enum column columns[NR_COLUMNS];
    size_t nr_columns;
    bool all, bytes, json, no_headings, table, summary;
};

/* Neighbours that are alike. */
struct span {
    const struct memory_block *block;
    uint64_t count;
};

static bool shows(const struct lsmem *lsmem, enum column column)
{
    for (size_t i = 0; i < lsmem->nr_columns; i++)
        if (lsmem->columns[i] == column)
            return true;
    return false;
}

/* Only what is shown keeps blocks apart. */
static bool are_alike(const struct lsmem *lsmem, const struct memory_block *a,
                      const struct memory_block *b)
{
    return !lsmem->all && (!shows(lsmem, STATE) || a->state == b->state) &&
           (!shows(lsmem, REMOVABLE) || a->removable == b->removable) &&
           (!shows(lsmem, NODE) || a->node == b->node) &&
           (!shows(lsmem, ZONES) || strcmp(a->zones, b->zones) == 0);
}

static size_t find_spans(const struct lsmem *lsmem, struct span *spans)
{
    const struct memory *memory = &lsmem->memory;
    size_t count = 0;

    for (size_t i = 0; i < memory->count; i++) {
        struct memory_block *block = &memory->blocks[i];

        if (count != 0 && block[-1].id + 1 == block->id && are_alike(lsmem, &block[-1], block))
            spans[count - 1].count++;
        else
            spans[count++] = (struct span){block, 1};
    }
    return count;
}

static char *zones_text(struct shell *shell, const char *zones)
{
    char *text = shell_copy(shell, strcmp(zones, "none") == 0 ? "None" : zones,
                            strlen(zones));

    for (char *at = text; *at != '\0'; at++)
        if (*at == ' ')
            *at = '/';
    return text;
}

/* Null: an empty cell. */
static const char *cell(const struct lsmem *lsmem, const struct span *span, enum column column)
{
    struct shell *shell = lsmem->shell;
    unsigned long long first = span->block->id, last = first + span->count - 1;
    unsigned long long size = lsmem->memory.block_bytes;

    switch (column) {
    case RANGE:
        return shell_format(shell, "0x%016llx-0x%016llx", first * size, (last + 1) * size - 1);
    case SIZE:
        return lsmem->bytes ? shell_format(shell, "%llu", span->count * size)
                            : memory_size_text(shell, span->count * size);
    case STATE:
        return span->block->state;
    case REMOVABLE:
        return !span->block->online ? NULL : span->block->removable ? "yes" : "no";
    case BLOCK:
        return span->count == 1 ? shell_format(shell, "%llu", first)
                                : shell_format(shell, "%llu-%llu", first, last);
    case NODE:
        return shell_format(shell, "%d", span->block->node);
    default:
        return zones_text(shell, span->block->zones);
    }
}

static void print_table(struct lsmem *lsmem, const struct span *spans, size_t nr_spans)
{
    size_t width[NR_COLUMNS];

    for (size_t c = 0; c < lsmem->nr_columns; c++) {
        width[c] = lsmem->columns[c] == SIZE ? 5 : strlen(names[lsmem->columns[c]]);
        for (size_t i = 0; i < nr_spans; i++) {
            const char *text = cell(lsmem, &spans[i], lsmem->columns[c]);

            if (text != NULL && strlen(text) > width[c])
                width[c] = strlen(text);
        }
    }
    for (size_t row = lsmem->no_headings ? 1 : 0; row <= nr_spans; row++) {
        for (size_t c = 0; c < lsmem->nr_columns; c++) {
            const char *text = row == 0 ? names[lsmem->columns[c]]
                                        : cell(lsmem, &spans[row - 1], lsmem->columns[c]);
            bool left = lsmem->columns[c] == RANGE;

            if (c + 1 == lsmem->nr_columns && (left || text == NULL))
                print(lsmem->shell, "%s", text != NULL ? text : "");
            else
                print(lsmem->shell, left ? "%-*s" : "%*s", (int)width[c],
                      text != NULL ? text : "");
            print(lsmem->shell, c + 1 == lsmem->nr_columns ? "\n" : " ");
        }
    }
}

static void print_json(struct lsmem *lsmem, const struct span *spans, size_t nr_spans)
{
    struct shell *shell = lsmem->shell;

    print(shell, "{\n   \"memory\": [\n");
    for (size_t i = 0; i < nr_spans; i++) {
        print(shell, i == 0 ? "      {\n" : ",{\n");
        for (size_t c = 0; c < lsmem->nr_columns; c++) {
            enum column column = lsmem->columns[c];
            const char *text = cell(lsmem, &spans[i], column);
            bool bare = column == NODE || column == REMOVABLE || (column == SIZE && lsmem->bytes);
            char *key = shell_copy(shell, names[column], strlen(names[column]));

            for (char *at = key; *at != '\0'; at++)
                *at = (char)(*at | 0x20);
            if (column == REMOVABLE)
                text = text != NULL && spans[i].block->removable ? "true" : "false";
            print(shell, bare ? "         \"%s\": %s" : "         \"%s\": \"%s\"", key, text);
            print(shell, c + 1 < lsmem->nr_columns ? ",\n" : "\n");
        }
        print(shell, "      }");
    }
    print(shell, "\n   ]\n}\n");
}

static void print_total(struct lsmem *lsmem, const char *name, uint64_t size_bytes)
{
    if (lsmem->bytes)
        print(lsmem->shell, "%-23s %15llu\n", name, (unsigned long long)size_bytes);
    else
        print(lsmem->shell, "%-23s %5s\n", name, memory_size_text(lsmem->shell, size_bytes));
}

static void print_summary(struct lsmem *lsmem)
{
    const struct memory *memory = &lsmem->memory;
    uint64_t nr_online = 0;

    for (size_t i = 0; i < memory->count; i++)
        nr_online += memory->blocks[i].online;
    print_total(lsmem, "Memory block size:", memory->block_bytes);
    print_total(lsmem, "Total online memory:", nr_online * memory->block_bytes);
    print_total(lsmem, "Total offline memory:", (memory->count - nr_online) * memory->block_bytes);
}

/* --- arguments -------------------------------------------------------------------------------- */

static bool take_columns(struct lsmem *lsmem, const char *list)
{
    lsmem->nr_columns = 0;
    for (;;) {
        size_t length = strcspn(list, ","), column = 0;

        while (column < NR_COLUMNS && (strlen(names[column]) != length ||
                                       strncasecmp(names[column], list, length) != 0))
            column++;
        if (column == NR_COLUMNS || lsmem->nr_columns == NR_COLUMNS)
            return false;
        lsmem->columns[lsmem->nr_columns++] = (enum column)column;
        if (list[length] == '\0')
            return true;
        list += length + 1;
    }
}

static bool take_letters(struct lsmem *lsmem, const char *letters, bool *columns)
{
    for (; *letters != '\0'; letters++) {
        switch (*letters) {
        case 'n':
            lsmem->no_headings = true;
            break;
        case 'J':
            lsmem->json = true;
            lsmem->summary = false;
            break;
        case 'a':
            lsmem->all = true;
            break;
        case 'b':
            lsmem->bytes = true;
            break;
        case 'o':
            *columns = true;
            return letters[1] == '\0' || take_columns(lsmem, letters + 1);
        default:
            return false;
        }
    }
    return true;
}

static bool take_argument(struct lsmem *lsmem, const char *text, bool *columns)
{
    if (strcmp(text, "--summary=only") == 0 || strcmp(text, "--summary") == 0) {
        lsmem->table = false;
    } else if (strcmp(text, "--summary=never") == 0) {
        lsmem->summary = false;
    } else if (strcmp(text, "--summary=always") == 0) {
        lsmem->summary = true;
    } else if (strncmp(text, "--output=", 9) == 0) {
        return take_columns(lsmem, text + 9);
    } else if (strcmp(text, "--output-all") == 0) {
        for (size_t i = 0; i < NR_COLUMNS; i++)
            lsmem->columns[i] = (enum column)i;
        lsmem->nr_columns = NR_COLUMNS;
    } else {
        static const struct {
            const char *text, *letters;
        } words[] = {{"--noheadings", "n"}, {"--json", "J"}, {"--all", "a"}, {"--bytes", "b"}};

        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
            if (strcmp(text, words[i].text) == 0)
                return take_letters(lsmem, words[i].letters, columns);
        return text[0] == '-' && text[1] != '-' && take_letters(lsmem, text + 1, columns);
    }
    return true;
}

bool lsmem_understood(const char *argument)
{
    struct lsmem lsmem = {.summary = true};
    bool columns = false;

    return argument[0] != '-' || take_argument(&lsmem, argument, &columns);
}

int run_lsmem(struct shell *shell, int argc, char **argv)
{
    struct lsmem lsmem = {.shell = shell, .columns = {RANGE, SIZE, STATE, REMOVABLE, BLOCK},
                          .nr_columns = 5, .table = true, .summary = true};
    struct span *spans;
    size_t nr_spans;

    for (int i = 1; i < argc; i++) {
        bool columns = false, known = take_argument(&lsmem, argv[i], &columns);

        if (known && columns && argv[i][strlen(argv[i]) - 1] == 'o')
            known = ++i < argc && take_columns(&lsmem, argv[i]);
        if (!known)
            shell_unknown(shell, shell_format(shell, "lsmem %s", i < argc ? argv[i] : "-o"));
    }
    if (lsmem.json && !lsmem.table) {
        complain(shell, "options --{raw,json,pairs} and --summary=only are mutually exclusive");
        return 1;
    }
    if (!memory_read(shell, &lsmem.memory, true)) {
        complain(shell, "This system does not support memory blocks");
        return 1;
    }
    spans = shell_alloc(shell, lsmem.memory.count * sizeof(*spans));
    nr_spans = find_spans(&lsmem, spans);
    if (lsmem.table && lsmem.json)
        print_json(&lsmem, spans, nr_spans);
    else if (lsmem.table)
        print_table(&lsmem, spans, nr_spans);
    if (lsmem.table && lsmem.summary)
        print(shell, "\n");
    if (lsmem.summary)
        print_summary(&lsmem);
    return 0;
}
