/* SPDX-License-Identifier: MIT */
/* Words of the console: the attribute tree, and looks on the machine. */
#include "console.h"

#include "io.h"

#define TEXT_BYTES 65536u
#define NS_PER_S 1000000000u
#define UNLIMITED_TRIES UINT32_MAX
#define BEYOND_NS ((uint64_t)3600 * NS_PER_S) /* it is the signal that ends such a write */

static char text[TEXT_BYTES];

/* --- the tree --------------------------------------------------------------------------------- */

static int get(char **argument, struct memplug_reason *reason)
{
    int length = memplug_attr_get(&bare_attr, argument[0], text, sizeof(text));

    (void)reason;
    if (length < 0)
        return length;
    bare_say("%.*s", length < (int)sizeof(text) ? length : (int)sizeof(text) - 1, text);
    return 0;
}

static unsigned hex_digit(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10) & 15;
}

/* %XX is a byte, "" is nothing; returns the length. */
static size_t decode(char *value)
{
    size_t length = 0;

    if (!strcmp(value, "\"\""))
        value[0] = '\0';
    for (const char *at = value; *at; at++) {
        if (at[0] == '%' && at[1] && at[2]) {
            value[length++] = (char)(hex_digit(at[1]) << 4 | hex_digit(at[2]));
            at += 2;
        } else {
            value[length++] = *at;
        }
    }
    value[length] = '\0';
    return length;
}

/* Open and write are two steps: which of them failed is told by an answer of its own. */
static int write_file(const char *path, char *value, const struct memplug_limit *limit,
                      struct memplug_reason *reason)
{
    struct memplug_attr_handle handle;
    size_t length = decode(value);
    int result = memplug_attr_open(&bare_attr, path, MEMPLUG_ATTR_WRITE, &handle);

    if (result < 0) {
        bare_say("open %d", result);
        return 0;
    }
    result = memplug_attr_write(&handle, value, length, limit, reason);
    bare_say("write %d", result);
    if (result < 0 && reason->error) {
        memplug_reason_text(reason, text, sizeof(text));
        bare_say(" %s", text);
    }
    return 0;
}

static int set(char **argument, struct memplug_reason *reason)
{
    return write_file(argument[0], argument[1], NULL, reason);
}

/* Called wherever a limit is looked at: that is where a signal would be seen. Who waits asleep is
 * told by the timer. */
static void ring(void *context, const struct memplug_progress *progress)
{
    (void)context;
    (void)progress;
    bare_alarm_ring();
}

/* A write that a signal ends after so many seconds; says whether it came. */
static int timed(char **argument, struct memplug_reason *reason)
{
    uint32_t stop = 0;
    struct memplug_limit limit = {.tries = UNLIMITED_TRIES, .stop = &stop, .progress = ring};
    uint64_t seconds;
    int error;

    if (!bare_number(argument[0], &seconds))
        return -BARE_EINVAL;
    bare_alarm(bare_now() + seconds * NS_PER_S, &stop);
    limit.timeout_ns = seconds * NS_PER_S + BEYOND_NS;
    error = write_file(argument[1], argument[2], &limit, reason);
    bare_alarm(0, NULL);
    bare_say("\nsignal %u", stop);
    return error;
}

static void say_item(void *context, const struct memplug_attr_item *item)
{
    static const char kinds[] = {[MEMPLUG_ATTR_DIRECTORY] = '/', [MEMPLUG_ATTR_FILE] = ' ',
                                 [MEMPLUG_ATTR_LINK] = '@'};

    (void)context;
    bare_say("%s%c\n", item->name, kinds[item->kind]);
}

static int list(char **argument, struct memplug_reason *reason)
{
    (void)reason;
    return memplug_attr_list(&bare_attr, strcmp(argument[0], "/") ? argument[0] : "", say_item,
                             NULL);
}

const struct bare_word bare_tree_words[] = {
    {"get", 1, get}, {"set", 2, set}, {"timed", 3, timed}, {"list", 1, list}, {NULL, 0, NULL}};

/* --- looks ------------------------------------------------------------------------------------ */

static int check(char **argument, struct memplug_reason *reason)
{
    (void)argument;
    return memplug_check(bare_pool, reason);
}

static int machine(char **argument, struct memplug_reason *reason)
{
    struct bare_memory_stat stat;

    (void)argument;
    (void)reason;
    bare_memory_stat(&stat);
    bare_say("cpus %u\nnodes %u\n", bare_nr_cpus, bare_firmware.nr_nodes);
    bare_say("window %lu %lu\n", bare_firmware.window.start, bare_firmware.window.end);
    bare_say("block_bytes %lu\n", bare_block_bytes());
    bare_say("early_bytes %lu\ntable_pages %lu\npool_pages %lu\n", stat.early_bytes,
             stat.table_pages, stat.pool_pages);
    bare_say("now_ns %lu\n", bare_now());
    for (unsigned i = 0; i < bare_nr_cpus; i++)
        bare_say("cpu%u apic %u interrupts %lu faults %lu flushed %lu\n", i,
                 bare_cpus[i].apic_id, bare_cpus[i].nr_interrupts, bare_cpus[i].nr_faults,
                 bare_cpus[i].flushed);
    return 0;
}

/* How many frames are of what kind. */
static int frames(char **argument, struct memplug_reason *reason)
{
    static const char *const names[] = {"absent", "memmap", "free", "used",
                                        "movable", "kept", "huge", "poisoned"};
    uint64_t counts[sizeof(names) / sizeof(names[0])] = {0}, first, nr;

    (void)reason;
    if (!bare_number(argument[0], &first) || !bare_number(argument[1], &nr))
        return -BARE_EINVAL;
    for (uint64_t i = 0; i < nr; i++)
        counts[memplug_frame_kind(bare_pool, (memplug_pfn_t){first + i})]++;
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        bare_say("%s %lu\n", names[i], counts[i]);
    return 0;
}

/* --- page tables ------------------------------------------------------------------------------ */

struct run {
    uint64_t virtual, address, size_bytes, unit_bytes;
};

static void say_run(const struct run *run)
{
    if (run->size_bytes)
        bare_say("0x%lx 0x%lx %lu %lu\n", run->virtual, run->address, run->size_bytes,
                 run->unit_bytes);
}

/* What the kernel's tables map from here on: virtual, physical, bytes, bytes of an entry. Read out
 * of the very tables that the CPU walks. */
static int tables(char **argument, struct memplug_reason *reason)
{
    uint64_t start, size_bytes, unit;
    struct run run = {.size_bytes = 0};

    (void)reason;
    if (!bare_number(argument[0], &start) || !bare_number(argument[1], &size_bytes))
        return -BARE_EINVAL;
    for (uint64_t done = 0; done < size_bytes; done += unit - ((start + done) & (unit - 1))) {
        volatile uint64_t *entry = bare_entry(read_cr3(), start + done, &unit);
        uint64_t address;

        if (!entry)
            unit = BARE_PAGE;
        if (!entry || !(*entry & BARE_PRESENT))
            continue;
        address = (*entry & BARE_FRAME) + ((start + done) & (unit - 1));
        if (run.virtual + run.size_bytes == start + done && run.unit_bytes == unit &&
            run.address + run.size_bytes == address) {
            run.size_bytes += unit;
            continue;
        }
        say_run(&run);
        run = (struct run){start + done, address, unit - ((start + done) & (unit - 1)), unit};
    }
    say_run(&run);
    return 0;
}

static int off(char **argument, struct memplug_reason *reason)
{
    (void)argument;
    (void)reason;
    bare_halt();
}

const struct bare_word bare_look_words[] = {{"check", 0, check},   {"machine", 0, machine},
                                            {"frames", 2, frames}, {"tables", 2, tables},
                                            {"off", 0, off},       {NULL, 0, NULL}};
