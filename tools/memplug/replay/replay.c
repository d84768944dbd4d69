/* SPDX-License-Identifier: MIT */
#include "replay.h"

#include "hog.h"
#include "shell.h"
#include "steps.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DONE, FAILED, BAD_INPUT };

struct run {
    const char *path, *output, *guest_root;
    bool check; /* after each step, and not only at the end */
    FILE *to;
    struct machine machine;
    json_t *before; /* the state after the step before */
};

static int usage(FILE *to, int status)
{
    fputs("usage: memplug replay [--check] [--files DIR] [-o FILE] SCENARIO\n\n"
          "Build the machine of a scenario, take its steps, and write what happened, a JSON\n"
          "object for each step: memplug-scenario(5).\n\n"
          "  -o, --output FILE  write there, not to standard output\n"
          "  --files DIR        scripts that the steps run lie there, as DIR/PATH-IN-THE-GUEST\n"
          "  --check            look at every invariant after each step\n",
          to);
    return status;
}

static int parse_arguments(struct run *run, int argc, char **argv)
{
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'},
        {"check", no_argument, NULL, 'c'},
        {"files", required_argument, NULL, 'f'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };

    for (int option; (option = getopt_long(argc, argv, "o:h", options, NULL)) != -1;) {
        if (option == 'h')
            exit(usage(stdout, DONE));
        if (option == '?')
            return usage(stderr, BAD_INPUT);
        if (option == 'o')
            run->output = optarg;
        else if (option == 'f')
            run->guest_root = optarg;
        else
            run->check = true;
    }
    if (optind + 1 != argc)
        return usage(stderr, BAD_INPUT);
    run->path = argv[optind];
    return DONE;
}

/* What only this program can find wrong with a scenario. */
static int check_scenario(const char *path, const struct scenario *scenario)
{
    for (size_t i = 0; i < scenario->nr_steps; i++) {
        const struct step *step = &scenario->steps[i];

        if (step->op != OP_HOG || hog_kind_exists(step->words[2]))
            continue;
        fprintf(stderr, "memplug replay: %s:%u: there is no kind of memory '%s': %s\n", path,
                step->line, step->words[2], hog_kinds());
        return BAD_INPUT;
    }
    return DONE;
}

/* --- records ---------------------------------------------------------------------------------- */

static int write_record(struct run *run, json_t *record)
{
    int error = json_dumpf(record, run->to, JSON_COMPACT) || fputc('\n', run->to) == EOF;

    json_decref(record);
    if (!error)
        return DONE;
    fprintf(stderr, "memplug replay: %s: it cannot be written\n",
            run->output ? run->output : "standard output");
    return FAILED;
}

static json_t *new_record(size_t i, const struct step *step)
{
    json_t *record = must_json(json_object());

    json_put(record, "i", json_integer((json_int_t)i));
    json_put(record, "op", json_text(step->text, strlen(step->text)));
    return record;
}

static void finish_record(struct run *run, json_t *record)
{
    json_t *snap = record_snap(&run->machine, !run->before);

    record_happened(&run->machine, record);
    if (run->before)
        json_put(record, "delta", record_delta(run->before, snap));
    json_put(record, "snap", json_incref(snap));
    json_decref(run->before);
    run->before = snap;
}

static int write_boot(struct run *run, const struct step *step)
{
    const struct machine *machine = &run->machine;
    json_t *record = new_record(0, step);

    json_put(record, "kernel", json_string("memplug"));
    json_put(record, "block_size_bytes_hex",
             json_sprintf("%" PRIx64, machine_block_bytes(machine)));
    json_put(record, "hotplug_base_block",
             json_integer((json_int_t)machine->layout.base_block));
    json_put(record, "cmdline", json_string(buffer_of(&machine->cmdline)));
    json_put(record, "mem", json_string(machine->options.mem));
    json_put(record, "nodes", json_integer((json_int_t)machine->options.nr_nodes));
    finish_record(run, record);
    return write_record(run, record);
}

/* --- a scenario ------------------------------------------------------------------------------- */

static int failed(const struct run *run, const struct step *step, const char *error)
{
    fprintf(stderr, "memplug replay: %s:%u: %s\n", run->path, step->line, error);
    return FAILED;
}

static int take_steps(struct run *run, const struct scenario *scenario)
{
    char error[1024];

    for (size_t i = 1; i < scenario->nr_steps; i++) {
        const struct step *step = &scenario->steps[i];
        json_t *record = new_record(i, step);
        bool last = i + 1 == scenario->nr_steps;

        if (step_take(&run->machine, step, record, error, sizeof(error))) {
            json_decref(record);
            return failed(run, step, error);
        }
        finish_record(run, record);
        if (write_record(run, record))
            return FAILED;
        if ((run->check || last) && machine_check(&run->machine, error, sizeof(error)))
            return failed(run, step, error);
    }
    return DONE;
}

static int run_scenario(struct run *run, const struct scenario *scenario)
{
    struct boot_options options;
    char error[1024];
    int status;

    scenario_boot_options(&scenario->steps[0], &options);
    if (machine_open(&run->machine, &options, error, sizeof(error)))
        return failed(run, &scenario->steps[0], error);
    run->machine.guest_root = run->guest_root;
    status = write_boot(run, &scenario->steps[0]);
    if (!status)
        status = take_steps(run, scenario);
    json_decref(run->before);
    shell_parked_end(&run->machine.parked);
    machine_close(&run->machine);
    return status;
}

int replay_main(int argc, char **argv)
{
    struct run run = {.to = stdout};
    struct scenario scenario;
    char error[1024];
    int status = parse_arguments(&run, argc, argv);

    if (status)
        return status;
    if (scenario_read(run.path, &scenario, error, sizeof(error))) {
        fprintf(stderr, "memplug replay: %s\n", error);
        return BAD_INPUT;
    }
    status = check_scenario(run.path, &scenario);
    if (!status && run.output)
        run.to = fopen(run.output, "w");
    if (!status && !run.to) {
        fprintf(stderr, "memplug replay: %s: %s\n", run.output, strerror(errno));
        status = FAILED;
    }
    if (!status)
        status = run_scenario(&run, &scenario);
    if (run.to && (run.to == stdout ? fflush(stdout) : fclose(run.to)) && !status) {
        fprintf(stderr, "memplug replay: %s: %s\n", run.output ? run.output : "standard output",
                strerror(errno));
        status = FAILED;
    }
    scenario_free(&scenario);
    return status;
}
