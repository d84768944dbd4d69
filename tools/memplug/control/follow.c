/* SPDX-License-Identifier: MIT */
/* memplug events, stat: what has been, and how much. */
#include "control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* --- events ----------------------------------------------------------------------------------- */

enum { E_NUMBER, E_TIME, E_ACTION, E_OBJECT };
static const struct control_column event_columns[] = {
    [E_NUMBER] = {"NUMBER", CONTROL_COUNT, true},
    [E_TIME] = {"TIME", CONTROL_TEXT, true},
    [E_ACTION] = {"ACTION", CONTROL_TEXT, true},
    [E_OBJECT] = {"OBJECT", CONTROL_TEXT, true},
};

struct event {
    unsigned long long number, at_ns;
    char action[16], object[32], time[48];
};

/* ISO 8601, of a time of the monotonic clock. */
static void put_time(uint64_t at_ns, char *text, size_t size_bytes)
{
    struct timespec wall, monotonic;
    struct tm parts;
    int64_t ns;
    time_t seconds;
    char zone[8];

    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_MONOTONIC, &monotonic);
    ns = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec -
         ((int64_t)monotonic.tv_sec * 1000000000 + monotonic.tv_nsec) + (int64_t)at_ns;
    seconds = (time_t)(ns / 1000000000);
    localtime_r(&seconds, &parts);
    strftime(zone, sizeof(zone), "%z", &parts);
    strftime(text, size_bytes, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + strlen(text), size_bytes - strlen(text), ".%06d%.3s:%.2s",
             (int)(ns % 1000000000 / 1000), zone, zone + 3);
}

static bool read_event(const char *line, struct event *event)
{
    if (sscanf(line, "%llu %15s %31s %llu", &event->number, event->action, event->object,
               &event->at_ns) != 4 ||
        strpbrk(event->action, "\"\\") != NULL || strpbrk(event->object, "\"\\") != NULL)
        return false;
    put_time(event->at_ns, event->time, sizeof(event->time));
    return true;
}

struct follower {
    const struct control_options *options;
    uint64_t next; /* the first that was not shown */
};

static void print_event(const struct follower *follower, const struct event *event)
{
    if (event->number > follower->next && follower->next > 0)
        fprintf(stderr, "memplug: %llu events were missed\n", event->number - follower->next);
    if (follower->options->json)
        printf("{\"number\": %llu, \"time\": \"%s\", \"action\": \"%s\", \"object\": \"%s\"}\n",
               event->number, event->time, event->action, event->object);
    else
        printf("%llu %s %s %s\n", event->number, event->time, event->action, event->object);
}

static int hear(void *context, enum memplug_serve_kind kind, int result, const char *text)
{
    struct follower *follower = context;
    struct event event;

    (void)kind;
    (void)result;
    for (const char *line = text; line != NULL && *line != '\0';
         line = strchr(line, '\n'), line = line != NULL ? line + 1 : NULL) {
        if (!read_event(line, &event) || event.number < follower->next)
            continue;
        print_event(follower, &event);
        follower->next = event.number + 1;
    }
    return fflush(stdout) != 0;
}

static int follow(const struct control_options *options, struct memplug_client *client)
{
    struct follower follower = {.options = options};
    const struct memplug_client_request watch = {.verb = MEMPLUG_SERVE_WATCH,
                                                 .path = "memplug/events",
                                                 .hear = hear,
                                                 .context = &follower};
    char *text = NULL;
    int result;

    if (options->output != NULL || options->raw) {
        fputs("memplug: events --follow has lines of its own: not with -o or -r\n", stderr);
        return CONTROL_USAGE;
    }
    client->timeout_ms = 0;
    result = memplug_client_call(client, &watch, &text);
    if (result < 0 && result != -ECONNRESET)
        control_say("memplug/events", result, text);
    free(text);
    return result == -ECONNRESET ? CONTROL_ALL : CONTROL_NONE; /* it has ended; nobody reads us */
}

int control_events(const struct control_options *options, struct memplug_client *client)
{
    struct control_table *table;
    struct event event;
    char *text;

    if (options->follow)
        return follow(options, client);
    table = control_table_new(options, "events", event_columns, 4);
    text = table != NULL ? control_get(client, "memplug/events") : NULL;
    if (text == NULL)
        return table == NULL ? CONTROL_USAGE : CONTROL_NONE;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (!read_event(line, &event))
            continue;
        control_table_row(table);
        control_table_count(table, E_NUMBER, event.number);
        control_table_text(table, E_TIME, event.time);
        control_table_text(table, E_ACTION, event.action);
        control_table_text(table, E_OBJECT, event.object);
    }
    control_table_end(table);
    free(text);
    return CONTROL_ALL;
}

/* --- stat ------------------------------------------------------------------------------------- */

/* All counters, in the tree's order. */
static int print_counters(const struct control_options *options, struct memplug_client *client)
{
    static const struct control_column columns[] = {{"NAME", CONTROL_TEXT, true},
                                                    {"VALUE", CONTROL_COUNT, true}};
    struct control_table *table = control_table_new(options, "counters", columns, 2);
    char *texts[2] = {NULL, NULL};

    if (table == NULL)
        return CONTROL_USAGE;
    texts[0] = control_get(client, "memplug/stat");
    control_try(client, &texts[1], "memplug/host/latency");
    for (unsigned i = 0; i < 2; i++)
        for (char *line = texts[i] != NULL ? strtok(texts[i], "\n") : NULL; line != NULL;
             line = strtok(NULL, "\n")) {
            char *value = strchr(line, ' ');

            if (value == NULL)
                continue;
            *value++ = '\0';
            control_table_row(table);
            control_table_text(table, 0, line);
            control_table_text(table, 1, value);
        }
    if (texts[0] != NULL)
        control_table_end(table);
    free(texts[1]);
    free(texts[0]);
    return texts[0] != NULL ? CONTROL_ALL : CONTROL_NONE;
}

struct sample {
    uint64_t nr_online, nr_managed, nr_free, nr_moved, pause_p99_ns, pause_max_ns;
};

static bool take_sample(struct memplug_client *client, struct sample *sample)
{
    char *stat = control_get(client, "memplug/stat"), *latency = NULL;

    if (stat == NULL)
        return false;
    control_try(client, &latency, "memplug/host/latency");
    *sample = (struct sample){
        .nr_online = control_number(stat, "nr_online_blocks", 0),
        .nr_managed = control_number(stat, "nr_managed_pages", 0),
        .nr_free = control_number(stat, "nr_free_pages", 0),
        .nr_moved = control_number(stat, "nr_moved_pages", 0),
        .pause_p99_ns = control_number(latency, "pause_p99_ns", 0),
        .pause_max_ns = control_number(latency, "pause_max_ns", 0),
    };
    free(stat);
    free(latency);
    return true;
}

static void print_sample(const struct control_options *options, const struct sample *before,
                         const struct sample *now, double seconds)
{
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t rate = (uint64_t)((double)(now->nr_moved - before->nr_moved) / seconds);
    char managed[32], free_now[32], moved[32];

    if (options->json) {
        printf("{\"online_blocks\": %llu, \"managed_bytes\": %llu, \"free_bytes\": %llu,"
               " \"moved_bytes_per_second\": %llu, \"pause_p99_ns\": %llu, \"pause_max_ns\":"
               " %llu}\n",
               (unsigned long long)now->nr_online,
               (unsigned long long)(now->nr_managed * page_bytes),
               (unsigned long long)(now->nr_free * page_bytes),
               (unsigned long long)(rate * page_bytes), (unsigned long long)now->pause_p99_ns,
               (unsigned long long)now->pause_max_ns);
        return;
    }
    control_size(now->nr_managed * page_bytes, options->bytes, managed, sizeof(managed));
    control_size(now->nr_free * page_bytes, options->bytes, free_now, sizeof(free_now));
    control_size(rate * page_bytes, options->bytes, moved, sizeof(moved));
    printf("%7llu %12s %12s %12s %10llu %10llu\n", (unsigned long long)now->nr_online, managed,
           free_now, moved, (unsigned long long)now->pause_p99_ns / 1000,
           (unsigned long long)now->pause_max_ns / 1000);
}

int control_stat(const struct control_options *options, struct memplug_client *client)
{
    char *end = NULL;
    double seconds = options->nr_arguments > 0 ? strtod(options->arguments[0], &end) : 1;
    long count = -1;
    struct sample before, now;
    struct timespec pause;

    if (options->nr_arguments == 0)
        return print_counters(options, client);
    if (*end == '\0' && options->nr_arguments > 1)
        count = strtol(options->arguments[1], &end, 10);
    if (*end != '\0' || !(seconds >= 0.01 && seconds <= 1e6) || count == 0) {
        fputs("memplug: stat SECONDS COUNT\n", stderr);
        return CONTROL_USAGE;
    }
    pause = (struct timespec){.tv_sec = (time_t)seconds,
                              .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    if (!options->json && !options->no_headings)
        printf("%7s %12s %12s %12s %10s %10s\n", "ONLINE", "MANAGED", "FREE", "MOVED/s",
               "P99-us", "MAX-us");
    if (!take_sample(client, &before))
        return CONTROL_NONE;
    for (; count != 0; count -= count > 0) {
        nanosleep(&pause, NULL);
        if (!take_sample(client, &now))
            return CONTROL_NONE;
        print_sample(options, &before, &now, seconds);
        fflush(stdout);
        before = now;
    }
    return CONTROL_ALL;
}
