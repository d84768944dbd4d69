/* SPDX-License-Identifier: MIT */
#include "control/control.h"
#include "demo.h"
#include "replay/replay.h"
#include "run.h"

#include <stdio.h>
#include <string.h>

static int version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("memplug " MEMPLUG_VERSION);
    return 0;
}

static const struct verb {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} verbs[] = {
    {"list", "programs whose memory can be controlled from here", control_main},
    {"status", "the memory of a running program", control_main},
    {"add", "plug a range in", control_main},
    {"remove", "pull blocks out", control_main},
    {"online", "put blocks into use", control_main},
    {"offline", "take blocks out of use, and move what is in them", control_main},
    {"replace", "plug a range in, move everything, pull another one out", control_main},
    {"why", "could a block go, and if not, what holds it", control_main},
    {"wait", "wait for an operation", control_main},
    {"cancel", "end an operation", control_main},
    {"events", "what has happened to blocks", control_main},
    {"stat", "counters and latencies", control_main},
    {"doctor", "what works on this machine", control_main},
    {"demo", "plug a range in and pull one out from under running threads", demo_main},
    {"replay", "take the steps of a scenario, and write what happened", replay_main},
    {"run", "start a program with its memory in a pool", run_main},
    {"version", "print the version", version},
};
#define NR_VERBS (sizeof(verbs) / sizeof(verbs[0]))

static int usage(FILE *to, int status)
{
    fputs("usage: memplug VERB [options]\n\n", to);
    for (size_t i = 0; i < NR_VERBS; i++)
        fprintf(to, "  %-10s %s\n", verbs[i].name, verbs[i].summary);
    fputs("\nmemplug VERB --help says more.\n", to);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return usage(stderr, 2);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return usage(stdout, 0);
    if (strcmp(argv[1], "--version") == 0)
        return version(argc, argv);
    for (size_t i = 0; i < NR_VERBS; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].run(argc - 1, argv + 1);
    fprintf(stderr, "memplug: there is no verb '%s'\n", argv[1]);
    return usage(stderr, 2);
}
