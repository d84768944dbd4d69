/* SPDX-License-Identifier: MIT */
/* find, and tools of which only the status can be known. */
#include "shell_private.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

struct find {
    struct shell *shell;
    int argc;
    char **argv; /* of the expression only */
    int at;
    int64_t depth_min, depth_max;
    size_t nr_printed;
    bool acts;   /* the expression has an action of its own */
    bool failed;
};

struct found {
    const char *path, *name;
    char type; /* f d l */
};

static bool find_or(struct find *find, const struct found *found, bool evaluate);

static const char *find_value(struct find *find)
{
    if (find->at == find->argc)
        shell_unknown(find->shell, "find");
    return find->argv[find->at++];
}

static int run_found(struct shell *shell, void *context)
{
    struct list *words = context;

    return run_program(shell, (int)words->count, words->items);
}

/* -exec COMMAND ; for each path. */
static bool find_exec(struct find *find, const struct found *found, bool evaluate)
{
    struct list words = {.count = 0};

    for (;;) {
        const char *word = find_value(find);

        if (strcmp(word, ";") == 0)
            break;
        if (strcmp(word, "+") == 0)
            shell_unknown(find->shell, "find -exec +");
        list_add(find->shell, &words, strcmp(word, "{}") == 0 ? (char *)found->path
                                                              : (char *)word);
    }
    if (!evaluate)
        return true;
    if (words.count == 0)
        shell_unknown(find->shell, "find -exec");
    find->nr_printed++;
    print_flush(find->shell);
    return run_apart(find->shell, &(struct apart){.body = run_found, .context = &words}) == 0;
}

static bool find_primary(struct find *find, const struct found *found, bool evaluate)
{
    const char *word = find_value(find);
    bool value;

    if (strcmp(word, "!") == 0 || strcmp(word, "-not") == 0)
        return !find_primary(find, found, evaluate);
    if (strcmp(word, "(") == 0) {
        value = find_or(find, found, evaluate);
        if (strcmp(find_value(find), ")") != 0)
            shell_unknown(find->shell, "find (");
        return value;
    }
    if (strcmp(word, "-name") == 0)
        return fnmatch(find_value(find), found->name, 0) == 0;
    if (strcmp(word, "-path") == 0)
        return fnmatch(find_value(find), found->path, 0) == 0;
    if (strcmp(word, "-type") == 0)
        return *find_value(find) == found->type;
    if (strcmp(word, "-maxdepth") == 0 || strcmp(word, "-mindepth") == 0) {
        find_value(find);
        return true;
    }
    if (strcmp(word, "-exec") == 0)
        return find_exec(find, found, evaluate);
    if (strcmp(word, "-print") != 0)
        shell_unknown(find->shell, shell_format(find->shell, "find %s", word));
    if (evaluate) {
        print(find->shell, "%s\n", found->path);
        find->nr_printed++;
    }
    return true;
}

static bool find_takes(struct find *find, const char *word, const char *same)
{
    if (find->at == find->argc || (strcmp(find->argv[find->at], word) != 0 &&
                                   strcmp(find->argv[find->at], same) != 0))
        return false;
    find->at++;
    return true;
}

static bool find_and(struct find *find, const struct found *found, bool evaluate)
{
    bool value = find_primary(find, found, evaluate);

    while (find->at < find->argc && strcmp(find->argv[find->at], ")") != 0 &&
           strcmp(find->argv[find->at], "-o") != 0 && strcmp(find->argv[find->at], "-or") != 0) {
        find_takes(find, "-a", "-and");
        value = find_primary(find, found, evaluate && value) && value;
    }
    return value;
}

static bool find_or(struct find *find, const struct found *found, bool evaluate)
{
    bool value = find_and(find, found, evaluate);

    while (find_takes(find, "-o", "-or"))
        value = find_and(find, found, evaluate && !value) || value;
    return value;
}

static void find_one(struct find *find, const struct found *found)
{
    bool value;

    find->at = 0;
    value = find->argc == 0 || find_or(find, found, true);
    if (find->at != find->argc)
        shell_unknown(find->shell, shell_format(find->shell, "find %s", find->argv[find->at]));
    if (value && !find->acts) {
        print(find->shell, "%s\n", found->path);
        find->nr_printed++;
    }
}

struct listing {
    struct shell *shell;
    struct list names;
};

static void take_name(void *to, const char *name)
{
    struct listing *listing = to;

    list_add(listing->shell, &listing->names, shell_copy(listing->shell, name, strlen(name)));
}

static void find_walk(struct find *find, const char *path, const char *name, int64_t depth)
{
    struct shell *shell = find->shell;
    struct listing listing = {.shell = shell};
    const char *whole = path_of(shell, path);
    struct found found = {.path = path, .name = name};
    char link[1];
    int kind = host_kind(shell, path);

    if (kind < 0) {
        complain(shell, "%s: %s", path, strerror(-kind));
        find->failed = true;
        return;
    }
    found.type = kind == SHELL_DIRECTORY ? 'd' : 'f';
    if (shell->host->link != NULL &&
        shell->host->link(shell->host->context, whole, link, sizeof(link)) >= 0)
        found.type = 'l';
    if (depth >= find->depth_min)
        find_one(find, &found);
    if (found.type != 'd' || depth >= find->depth_max ||
        host_list(shell, path, take_name, &listing) != 0)
        return;
    list_sort(&listing.names);
    for (size_t i = 0; i < listing.names.count; i++)
        find_walk(find, shell_format(shell, "%s%s%s", path,
                                     path[strlen(path) - 1] == '/' ? "" : "/",
                                     listing.names.items[i]),
                  listing.names.items[i], depth + 1);
}

bool order_is_lost(const struct shell *shell)
{
    const struct node *reader = shell->reader;
    const char *name = reader != NULL && reader->kind == NODE_COMMAND && reader->words != NULL
                           ? word_literal(reader->words)
                           : NULL;

    return name != NULL && (strcmp(name, "sort") == 0 || strcmp(name, "wc") == 0);
}

static int run_find(struct shell *shell, int argc, char **argv)
{
    struct find find = {.shell = shell, .depth_max = INT64_MAX};
    bool order_lost = order_is_lost(shell);
    int nr_paths = 1;

    while (nr_paths < argc && strchr("-!(", argv[nr_paths][0]) == NULL)
        nr_paths++;
    find.argc = argc - nr_paths;
    find.argv = argv + nr_paths;
    for (int i = 0; i < find.argc; i++) {
        bool is_max = strcmp(find.argv[i], "-maxdepth") == 0;

        find.acts = find.acts || strcmp(find.argv[i], "-print") == 0 ||
                    strcmp(find.argv[i], "-exec") == 0;
        if ((is_max || strcmp(find.argv[i], "-mindepth") == 0) &&
            (i + 1 == find.argc ||
             !number_parse(find.argv[i + 1], is_max ? &find.depth_max : &find.depth_min)))
            shell_unknown(shell, "find");
    }
    for (int i = 1; i < nr_paths; i++) {
        const char *slash = strrchr(argv[i], '/');

        find_walk(&find, argv[i], slash != NULL && slash[1] != '\0' ? slash + 1 : argv[i], 0);
    }
    if (nr_paths == 1)
        find_walk(&find, ".", ".", 0);
    if (find.nr_printed > 1 && !order_lost)
        shell->foreign = true; /* directories have an order of their own */
    return find.failed;
}

/* The text is a real machine's; the status says whether the files are there. */
static int run_look(struct shell *shell, int argc, char **argv)
{
    int status = 0;

    for (int i = 1; i < argc; i++)
        if (argv[i][0] == '/' && host_kind(shell, argv[i]) < 0)
            status = 1;
    return status;
}

/* Everything is root's here. */
static int run_modes(struct shell *shell, int argc, char **argv)
{
    int status = 0;

    for (int i = 2; i < argc; i++) {
        int kind = host_kind(shell, argv[i]);

        if (kind >= 0)
            continue;
        complain(shell, "%s: %s", argv[i], strerror(-kind));
        status = 1;
    }
    return status;
}

const struct tool shell_find_tools[] = {
    {"find", NULL, 0, run_find},
    {"stat", NULL, TOOL_FOREIGN, run_look},
    {"du", NULL, TOOL_FOREIGN, run_look},
    {"df", NULL, TOOL_FOREIGN, run_look},
    {"od", NULL, TOOL_FOREIGN, run_look},
    {"hexdump", NULL, TOOL_FOREIGN, run_look},
    {"chmod", NULL, 0, run_modes},
    {NULL, NULL, 0, NULL},
};
