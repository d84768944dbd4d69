/* SPDX-License-Identifier: MIT */
/* The table of verbs, and their options. */
#include "control.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LEAST_MS 1000u /* of patience with one answer, whatever --timeout says */

static const struct control_verb verbs[] = {
    {"list", "", "Jrnbo", 0, 0, true, control_list,
     "Programs whose memory is in a pool and can be controlled from here.\n\n"
     "  memplug list -J | jq '.programs[].pid'\n"},
    {"status", "[BLOCKS]", "tJrnboa", 0, 1, false, control_status,
     "The memory of a program: ranges of blocks that are alike, and what is going on.\n\n"
     "  memplug status -t redis-server\n"
     "  memplug status -a -o +MEMMAP,FREE 8-11\n"},
    {"add", "SPEC", "tTwWd", 1, 1, false, control_add,
     "Plug a range in: memfd:SIZE, hugetlb:SIZE, file:PATH or dax:PATH, and behind commas node=N,\n"
     "zone=movable|kernel|auto|none, memmap=block|range|host|auto, size=, offset=.\n\n"
     "  memplug add hugetlb:2G,node=1\n"
     "  memplug add --dry-run memfd:4G\n"},
    {"remove", "BLOCKS", "tTwWdOe", 1, 1, false, control_remove,
     "Pull blocks out that are offline; with --offline take them offline first.\n\n"
     "  memplug remove --offline 8-15\n"},
    {"online", "BLOCKS|SIZE", "tTwWdez", 1, 1, false, control_online,
     "Put blocks into use, in Movable unless told otherwise with --zone: kernel or default.\n\n"
     "  memplug online 8-11\n"
     "  memplug online 1G\n"},
    {"offline", "BLOCKS|SIZE", "tTwWde", 1, 1, false, control_offline,
     "Take blocks out of use: what is in them moves elsewhere. All of them or none.\n\n"
     "  memplug offline 8-11,14\n"
     "  memplug offline --best-effort --timeout 10 all\n"},
    {"replace", "BLOCKS SPEC", "tTwWde", 2, 2, false, control_replace,
     "Plug a range in, move everything that is in the blocks, and pull them out; or all is as it\n"
     "was.\n\n"
     "  memplug replace 8-23 hugetlb:2G\n"
     "  memplug replace all memfd:4G\n"},
    {"why", "BLOCKS", "tJrno", 1, 1, false, control_why,
     "Could these blocks go offline now; and if not, what holds them, and what would help.\n\n"
     "  memplug why 8\n"},
    {"wait", "[NUMBER | BLOCKS STATE | free SIZE]", "tT", 0, 2, false, control_wait,
     "Wait for an operation that was started with --no-wait, or for all, whose end is ours; until\n"
     "blocks are online, offline or gone, or can go (can-go); or until so much memory is free.\n\n"
     "  memplug wait 12\n"
     "  memplug wait --timeout 60 8-11 can-go && memplug offline 8-11\n"
     "  memplug wait free 2G\n"},
    {"cancel", "[NUMBER]", "t", 0, 1, false, control_cancel,
     "End an operation, or all; what it has changed is changed back.\n\n"
     "  memplug cancel\n"},
    {"events", "", "tJrnof", 0, 0, false, control_events,
     "What has happened to blocks and nodes; with --follow, what happens from now on too.\n\n"
     "  memplug events -f\n"},
    {"stat", "[SECONDS [COUNT]]", "tJrnb", 0, 2, false, control_stat,
     "Counters of the pool, and how long writers were held up; with SECONDS, a line each time.\n\n"
     "  memplug stat 1\n"},
    {"doctor", "", "Jrno", 0, 0, true, control_doctor,
     "What works on this machine for this user, and what to change.\n\n"
     "  memplug doctor\n"},
};
#define NR_VERBS (sizeof(verbs) / sizeof(verbs[0]))

static const struct known {
    char letter;
    const char *name, *value, *help;
} known[] = {
    {'t', "target", "PID|NAME|PATH", "which program; default: the only one there is"},
    {'J', "json", NULL, "JSON"},
    {'r', "raw", NULL, "words with single blanks between them"},
    {'n', "noheadings", NULL, "without the names of the columns"},
    {'b', "bytes", NULL, "sizes in bytes"},
    {'o', "output", "COLUMNS", "these columns; +COLUMNS: these too"},
    {'a', "all", NULL, "each block by itself"},
    {'T', "timeout", "SECONDS", "how long it may take; default 30"},
    {'w', "wait", NULL, "until it is done (the default)"},
    {'W', "no-wait", NULL, "start it, say its number, and go"},
    {'d', "dry-run", NULL, "say what would be done"},
    {'e', "best-effort", NULL, "do what can be done; exit with 64 if that is not all"},
    {'O', "offline", NULL, "take them offline first"},
    {'z', "zone", "movable|kernel|default", "where they go"},
    {'f', "follow", NULL, "and what happens from now on"},
    {'h', "help", NULL, "this"},
};
#define NR_KNOWN (sizeof(known) / sizeof(known[0]))

static bool takes(const struct control_verb *verb, char letter)
{
    return letter == 'h' || strchr(verb->letters, letter) != NULL;
}

static int usage(const struct control_verb *verb, FILE *to, int status)
{
    char *examples = strstr(verb->help, "\n\n");

    fprintf(to, "usage: memplug %s [options] %s\n\n%.*s\n", verb->name, verb->arguments,
            (int)(examples - verb->help + 1), verb->help);
    for (size_t i = 0; i < NR_KNOWN; i++) {
        char text[64];

        if (!takes(verb, known[i].letter))
            continue;
        snprintf(text, sizeof(text), "%s%s%s", known[i].name, known[i].value != NULL ? " " : "",
                 known[i].value != NULL ? known[i].value : "");
        /* Those in capitals that nobody knows from elsewhere have their long names only. */
        if (strchr("TwWdeOz", known[i].letter) != NULL)
            fprintf(to, "      --%-28s %s\n", text, known[i].help);
        else
            fprintf(to, "  -%c, --%-28s %s\n", known[i].letter, text, known[i].help);
    }
    fprintf(to, "\nExit status: 0 all, 1 none or an error, 64 a part, 2 usage.\n\nExamples:\n%s",
            examples + 2);
    return status;
}

uint64_t control_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool set_timeout(struct control_options *options, const char *text)
{
    char *end;
    double value = strtod(text, &end);

    options->timeout_ms = value > 0 && value < 1000000 ? (unsigned)(value * 1000) : 0;
    options->deadline_ms = control_now_ms() + options->timeout_ms;
    return options->timeout_ms > 0 && *end == '\0';
}

static bool set_option(struct control_options *options, int letter, const char *value)
{
    switch (letter) {
    case 't': options->target = value; return true;
    case 'J': options->json = true; return true;
    case 'r': options->raw = true; return true;
    case 'n': options->no_headings = true; return true;
    case 'b': options->bytes = true; return true;
    case 'o': options->output = value; return *value != '\0';
    case 'a': options->all = true; return true;
    case 'T': return set_timeout(options, value);
    case 'w': options->no_wait = false; return true;
    case 'W': options->no_wait = true; return true;
    case 'd': options->dry_run = true; return true;
    case 'e': options->best_effort = true; return true;
    case 'O': options->offline = true; return true;
    case 'z': options->zone = value; return true;
    case 'f': options->follow = true; return true;
    default: return false;
    }
}

/* -1: go on; else the exit status. */
static int parse(const struct control_verb *verb, struct control_options *options, int argc,
                 char **argv)
{
    struct option names[NR_KNOWN + 1] = {0};
    char letters[2 * NR_KNOWN + 2] = "", *end = letters;
    int letter;

    for (size_t i = 0; i < NR_KNOWN; i++) {
        names[i] = (struct option){.name = known[i].name,
                                   .has_arg = known[i].value != NULL ? required_argument
                                                                     : no_argument,
                                   .val = known[i].letter};
        if (strchr("TwWdeOz", known[i].letter) != NULL)
            continue;
        *end++ = known[i].letter;
        if (known[i].value != NULL)
            *end++ = ':';
    }
    while ((letter = getopt_long(argc, argv, letters, names, NULL)) != -1) {
        if (letter == 'h')
            return usage(verb, stdout, 0);
        if (letter == '?' || !takes(verb, (char)letter) || !set_option(options, letter, optarg))
            return usage(verb, stderr, CONTROL_USAGE);
    }
    options->arguments = argv + optind;
    options->nr_arguments = argc - optind;
    if (options->nr_arguments < verb->least || options->nr_arguments > verb->most ||
        (options->json && options->raw))
        return usage(verb, stderr, CONTROL_USAGE);
    return -1;
}

int control_main(int argc, char **argv)
{
    const struct control_verb *verb = verbs;
    struct control_options options = {.target = NULL};
    struct memplug_client client = {.fd = -1};
    int status;

    while (strcmp(verb->name, argv[0]) != 0)
        verb++;
    status = parse(verb, &options, argc, argv);
    if (status >= 0)
        return status;
    if (!verb->everywhere && control_connect(&options, &client) != 0)
        return CONTROL_NONE;
    if (options.timeout_ms != 0 && options.timeout_ms < client.timeout_ms)
        client.timeout_ms = options.timeout_ms > LEAST_MS ? options.timeout_ms : LEAST_MS;
    status = verb->run(&options, &client);
    memplug_client_close(&client);
    if (fflush(stdout) != 0 || ferror(stdout))
        return CONTROL_NONE;
    return status;
}
