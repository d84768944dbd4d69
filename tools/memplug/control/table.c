/* SPDX-License-Identifier: MIT */
/* Tables, by libsmartcols: the look of lsmem, and JSON. */
#include "control.h"

#include <libsmartcols.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define COLUMNS_MAX 24u

struct control_table {
    struct libscols_table *table;
    struct libscols_line *line;
    const struct control_column *columns;
    unsigned nr_columns;
    int places[COLUMNS_MAX]; /* of a column in the table; -1: not shown */
    unsigned nr_places;
    bool bytes;
};

static void place(struct control_table *table, unsigned column)
{
    static const int json_kinds[] = {
        [CONTROL_TEXT] = SCOLS_JSON_STRING,
        [CONTROL_COUNT] = SCOLS_JSON_NUMBER,
        [CONTROL_FLAG] = SCOLS_JSON_BOOLEAN,
    };
    enum control_kind kind = table->columns[column].kind;
    struct libscols_column *made;

    if (table->places[column] >= 0)
        return;
    made = scols_table_new_column(table->table, table->columns[column].name, 0.1,
                                  kind == CONTROL_COUNT ? SCOLS_FL_RIGHT : 0);
    scols_column_set_json_type(made, json_kinds[kind]);
    table->places[column] = (int)table->nr_places++;
}

static bool place_named(struct control_table *table, const char *name, size_t length)
{
    for (unsigned i = 0; i < table->nr_columns; i++)
        if (strlen(table->columns[i].name) == length &&
            strncasecmp(table->columns[i].name, name, length) == 0) {
            place(table, i);
            return true;
        }
    fprintf(stderr, "memplug: there is no column %.*s; there are:", (int)length, name);
    for (unsigned i = 0; i < table->nr_columns; i++)
        fprintf(stderr, " %s", table->columns[i].name);
    fputs("\n", stderr);
    return false;
}

static bool place_all(struct control_table *table, const char *output)
{
    bool usual = output == NULL || output[0] == '+';

    for (unsigned i = 0; i < table->nr_columns; i++)
        if (usual && table->columns[i].usual)
            place(table, i);
    output += output != NULL && output[0] == '+';
    while (output != NULL && *output != '\0') {
        size_t length = strcspn(output, ",");

        if (!place_named(table, output, length))
            return false;
        output += length + (output[length] == ',');
    }
    return true;
}

struct control_table *control_table_new(const struct control_options *options, const char *name,
                                        const struct control_column *columns, unsigned nr_columns)
{
    struct control_table *table = calloc(1, sizeof(*table));

    if (table == NULL || (table->table = scols_new_table()) == NULL)
        abort();
    table->columns = columns;
    table->nr_columns = nr_columns;
    table->bytes = options->bytes || options->json;
    for (unsigned i = 0; i < COLUMNS_MAX; i++)
        table->places[i] = -1;
    scols_table_set_name(table->table, name);
    scols_table_enable_json(table->table, options->json);
    scols_table_enable_raw(table->table, options->raw);
    scols_table_enable_noheadings(table->table, options->no_headings);
    if (place_all(table, options->output))
        return table;
    scols_unref_table(table->table);
    free(table);
    return NULL;
}

void control_table_row(struct control_table *table)
{
    table->line = scols_table_new_line(table->table, NULL);
    if (table->line == NULL)
        abort();
    /* Raw is split at blanks: there must be something in each place. */
    for (unsigned i = 0; i < table->nr_places && scols_table_is_raw(table->table); i++)
        scols_line_set_data(table->line, i, "-");
}

/* What is no number would be something else in JSON than what it is called. */
static bool is_number(const char *text)
{
    const char *digits = text + (*text == '-');

    return *digits != '\0' && digits[strspn(digits, "0123456789")] == '\0';
}

void control_table_text(struct control_table *table, unsigned column, const char *text)
{
    if (table->columns[column].kind == CONTROL_COUNT && scols_table_is_json(table->table) &&
        !is_number(text))
        return;
    if (table->places[column] >= 0)
        scols_line_set_data(table->line, (size_t)table->places[column], text);
}

void control_table_count(struct control_table *table, unsigned column, uint64_t number)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
    control_table_text(table, column, text);
}

void control_table_bytes(struct control_table *table, unsigned column, uint64_t bytes)
{
    char text[32];

    control_size(bytes, table->bytes, text, sizeof(text));
    control_table_text(table, column, text);
}

/* JSON's true and false are made of what begins with 1 or 0. */
void control_table_flag(struct control_table *table, unsigned column, bool flag)
{
    bool json = scols_table_is_json(table->table);

    control_table_text(table, column, json ? (flag ? "1" : "0") : flag ? "yes" : "no");
}

void control_table_end(struct control_table *table)
{
    scols_print_table(table->table);
    scols_unref_table(table->table);
    free(table);
}
