/* SPDX-License-Identifier: MIT */
/* What the tests of movable mappings share: a pool with a few blocks, and a space of it. */
#ifndef SPACE_TEST_H
#define SPACE_TEST_H

#include "host_test.h"

#include <memplug/space.h>
#include <sched.h>
#include <sys/resource.h>

#define UNIT (2 * MIB)
#define PAGE 4096ull

struct machine {
    struct memplug_linux *host;
    struct memplug *pool;
    void *backing;
    struct memplug_space *space;
    uint64_t first, nr_blocks; /* of the pool */
    int fd;                    /* the backing's, to look at; -1: it has none */
    struct memplug_reason reason;
};

static inline int machine_say(const struct machine *machine, const char *what, int result)
{
    char text[512];

    memplug_reason_text(&machine->reason, text, sizeof(text));
    fprintf(stderr, "%s: %d: %s\n", what, result, text);
    return result;
}

static inline int machine_pool(struct machine *machine)
{
    struct memplug_linux_config host = {.window_bytes = 16 * GIB, .block_bytes = BLOCK};
    struct memplug_config config = {0};
    void *metadata;
    int result = memplug_linux_open(&host, &machine->host, &machine->reason);

    if (result != 0)
        return result;
    config.host = memplug_linux_host(machine->host);
    result = memplug_linux_metadata(machine->host, memplug_metadata_bytes(&config), &metadata);
    if (result != 0)
        return result;
    return memplug_open(&config, metadata, memplug_metadata_bytes(&config), &machine->pool,
                        &machine->reason);
}

static inline int machine_plug(struct machine *machine, const struct memplug_backing_spec *spec)
{
    struct memplug_add add = {
        .address = MEMPLUG_ANY_ADDRESS,
        .size_bytes = machine->nr_blocks * BLOCK,
    };
    int result = memplug_linux_backing_open(machine->host, spec, &machine->backing,
                                            &machine->reason);

    add.backing = machine->backing;
    if (result == 0)
        result = memplug_add(machine->pool, &add, NULL, &machine->reason);
    if (result != 0)
        return result;
    machine->first = memplug_block_of(machine->pool, add.address);
    machine->fd = memplug_linux_backing_dup(machine->host, machine->backing);
    return memplug_online(machine->pool, machine->first, machine->nr_blocks,
                          MEMPLUG_ONLINE_MOVABLE, NULL, &machine->reason);
}

/* For children too: no assert. A null config is the default one. */
static inline int machine_open(struct machine *machine, enum memplug_backing_kind kind,
                               uint64_t nr_blocks, int fd,
                               const struct memplug_space_config *config)
{
    struct memplug_backing_spec spec = {.kind = kind, .fd = fd};
    int result;

    *machine = (struct machine){.nr_blocks = nr_blocks, .fd = -1};
    spec.size_bytes = fd < 0 ? nr_blocks * BLOCK : 0;
    result = machine_pool(machine);
    if (result == 0)
        result = machine_plug(machine, &spec);
    if (result == 0)
        result = memplug_space_open(machine->host, machine->pool, config, &machine->space,
                                    &machine->reason);
    return result == 0 ? 0 : machine_say(machine, "open", result);
}

static inline int machine_close(struct machine *machine)
{
    int result = memplug_check(machine->pool, &machine->reason);

    if (result == 0)
        result = memplug_space_close(machine->space, &machine->reason);
    for (uint64_t i = 0; i < machine->nr_blocks && result == 0; i++) {
        struct memplug_block_info info;

        memplug_block_info(machine->pool, machine->first + i, &info);
        if (info.state == MEMPLUG_BLOCK_ONLINE)
            result = memplug_offline(machine->pool, machine->first + i, 1, NULL,
                                     &machine->reason);
    }
    if (result == 0)
        result = memplug_remove(machine->pool, machine->first * BLOCK,
                                machine->nr_blocks * BLOCK, NULL, &machine->reason);
    if (result == 0)
        result = memplug_close(machine->pool, &machine->reason);
    if (result != 0)
        return machine_say(machine, "close", result);
    memplug_linux_close(machine->host);
    if (machine->fd >= 0)
        close(machine->fd);
    return 0;
}

static inline int machine_offline(struct machine *machine, uint64_t block, unsigned tries)
{
    struct memplug_limit limit = {.timeout_ns = 20000000000ull, .tries = tries};
    int policy = sched_getscheduler(0), nice = getpriority(PRIO_PROCESS, 0);
    int result = memplug_offline(machine->pool, machine->first + block, 1, &limit,
                                 &machine->reason);

    /* Whatever came of it, the mover's thread is what it was (hurry.h). */
    if (sched_getscheduler(0) != policy || getpriority(PRIO_PROCESS, 0) != nice)
        return -EPERM;
    return result;
}

static inline int machine_online(struct machine *machine, uint64_t block)
{
    return memplug_online(machine->pool, machine->first + block, 1, MEMPLUG_ONLINE_MOVABLE, NULL,
                          &machine->reason);
}

static inline struct memplug_space_stat stat_of(const struct machine *machine)
{
    struct memplug_space_stat stat;

    memplug_space_stat(machine->space, &stat);
    return stat;
}

/* Are forks lazy here? Else it is said why. */
static inline bool can_be_lazy(void)
{
    struct machine machine;
    char text[512];
    int result = machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL);

    if (result == 0)
        result = memplug_space_fork_lazily(machine.space, NULL, &machine.reason);
    memplug_reason_text(&machine.reason, text, sizeof(text));
    if (result != 0)
        printf("   why: %s\n", text);
    return machine_close(&machine) == 0 && result == 0;
}

/* Was the last fork no lazy one, for this reason? */
static inline bool copied_for(const struct machine *machine, const char *why)
{
    const char *said = stat_of(machine).fork_copied_why;

    return said && strstr(said, why);
}

static inline void fill_words(void *start, uint64_t size_bytes, uint64_t seed)
{
    uint64_t *words = start;

    for (uint64_t i = 0; i < size_bytes / 8; i++)
        words[i] = (i + 1) * 0x9e3779b97f4a7c15u ^ seed;
}

static inline bool words_hold(const void *start, uint64_t size_bytes, uint64_t seed)
{
    const uint64_t *words = start;

    for (uint64_t i = 0; i < size_bytes / 8; i++)
        if (words[i] != ((i + 1) * 0x9e3779b97f4a7c15u ^ seed))
            return false;
    return true;
}

static inline bool all_zero(const void *start, uint64_t size_bytes)
{
    const uint64_t *words = start;

    for (uint64_t i = 0; i < size_bytes / 8; i++)
        if (words[i] != 0)
            return false;
    return true;
}

/* One page in sixteen begins with a 7, and nothing else is there. */
static inline bool is_sparse(const void *start, uint64_t size_bytes)
{
    const char *memory = start;
    uint64_t at = 0;

    while (at < size_bytes && memory[at] == (at % (16 * PAGE) == 0 ? 7 : 0) &&
           all_zero(memory + at + 8, PAGE - 8))
        at += PAGE;
    return at == size_bytes;
}

#endif
