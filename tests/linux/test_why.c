/* SPDX-License-Identifier: MIT */
/* What is said of a block that stays: which mapping, since when, and who holds its pages: a real
 * pin of each kind, and what the kernel tells of it. */
#define _GNU_SOURCE
#include "space_test.h"

#include <liburing.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "pin_helpers.h"

#define OFFSET (5 * PAGE) /* of what is pinned, in its unit */

static void open_movable(struct machine *machine, const struct memplug_space_config *config)
{
    assert_int_equal(machine_open(machine, MEMPLUG_BACKING_MEMFD, 2, -1, config), 0);
    if (memplug_space_movable(machine->space, &machine->reason) != 0)
        SKIP("%s", machine->reason.why);
}

static char *map_named(struct machine *machine, uint64_t size_bytes, const char *name)
{
    const struct memplug_mapping opts = {.name = name};
    void *address = NULL;

    assert_int_equal(memplug_map(machine->space, size_bytes, &opts, &address, NULL), 0);
    fill_words(address, size_bytes, 6);
    return address;
}

static void end(struct machine *machine, char *mapped, uint64_t size_bytes)
{
    assert_true(words_hold(mapped, size_bytes, 6));
    assert_int_equal(memplug_unmap(machine->space, mapped, size_bytes), 0);
    assert_int_equal(machine_close(machine), 0);
}

static int why(struct machine *machine)
{
    return memplug_why(machine->pool, machine->first, &machine->reason);
}

/* The detail has these words; "%" stands for a number that is given. */
static void detail_has(const struct machine *machine, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void detail_has(const struct machine *machine, const char *format, ...)
{
    char words[256];
    va_list list;

    va_start(list, format);
    vsnprintf(words, sizeof(words), format, list);
    va_end(list);
    if (!strstr(machine->reason.detail, words))
        print_error("\"%s\" is not in: %s\n", words, machine->reason.detail);
    assert_non_null(strstr(machine->reason.detail, words));
}

static void say(const struct machine *machine)
{
    char text[1024];

    memplug_reason_text(&machine->reason, text, sizeof(text));
    printf("   %s\n", text);
}

/* --- the whole state ------------------------------------------------------------------------- */

struct dump {
    char *text;
    size_t length;
};

static void write_dump(void *context, const char *text, size_t length)
{
    struct dump *dump = context;

    dump->text = realloc(dump->text, dump->length + length + 1);
    assert_non_null(dump->text);
    memcpy(dump->text + dump->length, text, length);
    dump->length += length;
    dump->text[dump->length] = 0;
}

static struct dump dump_of(const struct machine *machine)
{
    struct dump dump = {0};

    assert_int_equal(memplug_dump(machine->pool, write_dump, &dump), 0);
    return dump;
}

static void same_as(const struct machine *machine, struct dump before)
{
    struct dump after = dump_of(machine);

    assert_string_equal(before.text, after.text);
    free(before.text);
    free(after.text);
}

/* --- a registered buffer --------------------------------------------------------------------- */

static int fd_of(const struct ring_pin *pin)
{
    return ((struct io_uring *)pin->ring)->ring_fd;
}

static void buffer_is_named(const struct machine *machine, const char *at, int fd)
{
    detail_has(machine, "Mapped at %p-%p (2 MiB, \"cache\") for ", (const void *)(at - OFFSET),
               (const void *)(at - OFFSET + UNIT));
    detail_has(machine, "by buffer 0 registered with the io_uring at descriptor %d (%p, 8 KiB)",
               fd, (const void *)at);
    assert_string_equal(machine->reason.owner, "mapping");
    assert_non_null(strstr(machine->reason.remedy, "unregister that buffer"));
}

static void registered_buffer(void **state)
{
    struct memplug_holder holders[4];
    struct ring_pin pin;
    struct machine machine;
    struct dump before;
    uint64_t since_ns = mpl_now_ns();
    char *a;

    (void)state;
    open_movable(&machine, NULL);
    a = map_named(&machine, UNIT, "cache");
    assert_int_equal(why(&machine), 0);
    if (ring_pin_take(&pin, a + OFFSET, 2 * PAGE) != 0)
        SKIP("no io_uring here");
    /* Beforehand. */
    assert_int_equal(why(&machine), -EBUSY);
    buffer_is_named(&machine, a + OFFSET, fd_of(&pin));
    assert_non_null(strstr(machine.reason.why, "held for I/O"));
    assert_true(machine.reason.since_ns >= since_ns && machine.reason.since_ns < mpl_now_ns());
    assert_null(strstr(machine.reason.detail, "at least")); /* no move has met it yet */
    assert_true(memplug_space_holders(machine.space, a + OFFSET + PAGE, PAGE, holders, 4) >= 1);
    assert_int_equal(holders[0].kind, MEMPLUG_HOLDER_BUFFER);
    assert_true(holders[0].certain && holders[0].address == (uintptr_t)a + OFFSET &&
                holders[0].size_bytes == 2 * PAGE && holders[0].fd == fd_of(&pin));
    memplug_space_holders(machine.space, a + OFFSET + 2 * PAGE, PAGE, holders, 4);
    assert_false(holders[0].certain);
    /* And when it was tried: nothing has changed. */
    before = dump_of(&machine);
    assert_int_equal(machine_offline(&machine, 0, 0), -EBUSY);
    say(&machine);
    buffer_is_named(&machine, a + OFFSET, fd_of(&pin));
    assert_non_null(strstr(machine.reason.why, "held for I/O"));
    detail_has(&machine, "held for at least 0.");
    same_as(&machine, before);
    assert_int_equal(stat_of(&machine).nr_moves, 0);
    assert_int_equal(stat_of(&machine).pause.nr, 0);
    assert_int_equal(stat_of(&machine).refused.nr, 5); /* the default */
    assert_true(stat_of(&machine).refused.max_ns >= 5000000);
    ring_pin_drop(&pin);
    for (unsigned i = 0; i < 20 && machine_offline(&machine, 0, 0) != 0; i++)
        usleep(50000);
    assert_int_equal(machine.reason.error, 0);
    assert_int_equal(machine.reason.detail[0], 0);
    end(&machine, a, UNIT);
}

/* Small units: a buffer on one page keeps its whole extent, and a mapping is named as a whole. */
static void buffer_in_small_units(void **state)
{
    struct memplug_space_config config = {.unit_bytes = 4096, .node = MEMPLUG_ANY_NODE};
    struct ring_pin pin;
    struct machine machine;
    char *a;

    (void)state;
    open_movable(&machine, &config);
    a = map_named(&machine, 3 * PAGE, "first");
    char *b = map_named(&machine, 64 * PAGE, "second");
    if (ring_pin_take(&pin, b + OFFSET, PAGE + 1) != 0)
        SKIP("no io_uring here");
    assert_int_equal(why(&machine), -EBUSY);
    say(&machine);
    detail_has(&machine, "Mapped at %p-%p (12 KiB, \"first\") for ", (void *)a,
               (void *)(a + 3 * PAGE));
    detail_has(&machine, "(%p, 4097 bytes)", (void *)(b + OFFSET));
    ring_pin_drop(&pin);
    for (unsigned i = 0; i < 20 && machine_offline(&machine, 0, 0) != 0; i++)
        usleep(50000);
    assert_int_equal(machine.reason.error, 0);
    assert_int_equal(memplug_unmap(machine.space, b, 64 * PAGE), 0);
    end(&machine, a, 3 * PAGE);
}

struct told {
    unsigned nr;
    char detail[8][MEMPLUG_DETAIL_BYTES];
};

static void note_told(void *context, const struct memplug_reason *reason)
{
    struct told *told = context;

    assert_int_equal(reason->error, -EBUSY);
    assert_int_equal(reason->nr_pages, 512);
    if (told->nr < 8)
        memcpy(told->detail[told->nr], reason->detail, sizeof(reason->detail));
    told->nr++;
}

static void each_one_is_told(void **state)
{
    struct told told = {0};
    struct ring_pin pins[2];
    struct machine machine;
    char *a, words[64];

    (void)state;
    open_movable(&machine, NULL);
    a = map_named(&machine, 4 * UNIT, NULL);
    if (ring_pin_take(&pins[0], a + UNIT, PAGE) != 0 ||
        ring_pin_take(&pins[1], a + 3 * UNIT, PAGE) != 0)
        SKIP("no io_uring here");
    assert_int_equal(memplug_why_each(machine.pool, machine.first, note_told, &told,
                                      &machine.reason), -EBUSY);
    assert_int_equal(told.nr, 2);
    assert_int_equal(machine.reason.nr_pages, 2);
    for (unsigned i = 0; i < 2; i++) {
        snprintf(words, sizeof(words), "descriptor %d (", fd_of(&pins[i]));
        assert_non_null(strstr(told.detail[i], words));
        ring_pin_drop(&pins[i]);
    }
    end(&machine, a, 4 * UNIT);
}

/* Huge pages go a block at a time: the buffer may be in another unit of it. */
static void buffer_on_huge_pages(void **state)
{
    const char *why_not = hugepages_borrow(300);
    struct ring_pin pin = {0};
    struct machine machine;
    char *a = NULL;

    (void)state;
    if (!why_not && machine_open(&machine, MEMPLUG_BACKING_HUGETLB, 2, -1, NULL) != 0)
        why_not = "no two blocks of huge pages";
    if (!why_not && memplug_space_movable(machine.space, &machine.reason) != 0)
        why_not = machine.reason.why;
    if (!why_not) {
        a = map_named(&machine, 2 * UNIT, "huge");
        why_not = ring_pin_take(&pin, a + UNIT + OFFSET, 2 * PAGE) != 0 ? "no io_uring here" : NULL;
    }
    if (why_not) {
        hugepages_return();
        SKIP("%s", why_not);
    }
    assert_int_equal(why(&machine), -EBUSY);
    assert_int_equal(machine.reason.nr_pages, 2);
    for (unsigned i = 0; i < 2; i++) {
        detail_has(&machine, "Mapped at %p-%p (4 MiB, \"huge\") for ", (void *)a,
                   (void *)(a + 2 * UNIT));
        detail_has(&machine, "io_uring at descriptor %d (%p, 8 KiB)", fd_of(&pin),
                   (void *)(a + UNIT + OFFSET));
        assert_int_equal(machine_offline(&machine, 0, 2), -EBUSY);
        assert_non_null(strstr(machine.reason.why, "block of huge pages is held for I/O"));
    }
    assert_true(stat_of(&machine).refused.nr >= 4);
    ring_pin_drop(&pin);
    for (unsigned i = 0; i < 20 && machine_offline(&machine, 0, 0) != 0; i++)
        usleep(50000);
    assert_int_equal(machine.reason.error, 0);
    end(&machine, a, 2 * UNIT);
    hugepages_return();
}

/* --- waiting for a pin ----------------------------------------------------------------------- */

static void *drop_later(void *argument)
{
    usleep(300000);
    ring_pin_drop(argument);
    return NULL;
}

static int offline_within(struct machine *machine, uint32_t tries, uint64_t timeout_ns,
                          const uint32_t *stop)
{
    struct memplug_limit limit = {.timeout_ns = timeout_ns, .tries = tries, .stop = stop};

    return memplug_offline(machine->pool, machine->first, 1, &limit, &machine->reason);
}

static void *stop_later(void *argument)
{
    usleep(100000);
    __atomic_store_n((uint32_t *)argument, 1, __ATOMIC_RELAXED);
    return NULL;
}

static void pin_goes_away(void **state)
{
    struct memplug_space_stat stat;
    struct ring_pin pin;
    struct machine machine;
    struct dump before;
    uint32_t stop = 0;
    pthread_t thread;
    char *a;

    (void)state;
    open_movable(&machine, NULL);
    a = map_named(&machine, UNIT, "cache");
    if (ring_pin_take(&pin, a + OFFSET, 2 * PAGE) != 0)
        SKIP("no io_uring here");
    before = dump_of(&machine);
    /* It stays for longer than there is time: the deadline, and then the stop flag. */
    double begin = now_s(), start = begin;
    assert_int_equal(offline_within(&machine, UINT32_MAX, 200000000, NULL), -ETIMEDOUT);
    assert_true(now_s() - start >= 0.2 && now_s() - start < 5);
    buffer_is_named(&machine, a + OFFSET, fd_of(&pin));
    assert_int_equal(pthread_create(&thread, NULL, stop_later, &stop), 0);
    start = now_s();
    assert_int_equal(offline_within(&machine, UINT32_MAX, 20000000000u, &stop), -EINTR);
    assert_true(now_s() - start < 5);
    pthread_join(thread, NULL);
    same_as(&machine, before);
    /* Waiting costs its writers a part of the time only. */
    stat = stat_of(&machine);
    printf("   %lu fences in vain, %.1f of %.1f ms\n", (unsigned long)stat.refused.nr,
           (double)stat.refused.total_ns / 1e6, (now_s() - begin) * 1e3);
    /* It goes away meanwhile. */
    assert_int_equal(pthread_create(&thread, NULL, drop_later, &pin), 0);
    start = now_s();
    assert_int_equal(offline_within(&machine, UINT32_MAX, 20000000000u, NULL), 0);
    assert_true(now_s() - start >= 0.2);
    pthread_join(thread, NULL);
    assert_int_equal(stat_of(&machine).nr_moves, 1);
    end(&machine, a, UNIT);
}

/* --- what the kernel does not tell ----------------------------------------------------------- */

static void spliced_page(void **state)
{
    struct machine machine;
    struct io_uring ring;
    aio_context_t aio = 0;
    struct iovec part;
    int pipes[2], file = io_file_open(), sock = socket(AF_INET, SOCK_DGRAM, 0), on = 1;
    bool has_ring = io_uring_queue_init(4, &ring, 0) == 0;
    char *a;

    (void)state;
    open_movable(&machine, NULL);
    a = map_named(&machine, UNIT, NULL);
    assert_int_equal(setsockopt(sock, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)), 0);
    assert_int_equal(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(syscall(SYS_io_setup, 8, &aio), 0);
    part = (struct iovec){.iov_base = a + OFFSET, .iov_len = PAGE};
    assert_int_equal(vmsplice(pipes[1], &part, 1, 0), PAGE);
    assert_int_equal(machine_offline(&machine, 0, 2), -EBUSY);
    say(&machine);
    detail_has(&machine, "nothing tells by whom. It may be ");
    detail_has(&machine, "vmsplice to the pipe at descriptor %d", pipes[0]);
    detail_has(&machine, "MSG_ZEROCOPY on the socket at descriptor %d", sock);
    detail_has(&machine, "AIO");
    if (has_ring)
        detail_has(&machine, "io_uring at descriptor %d", ring.ring_fd);
    if (file >= 0)
        detail_has(&machine, "direct I/O on descriptor %d", file);
    close(pipes[0]);
    close(pipes[1]);
    for (unsigned i = 0; i < 20 && machine_offline(&machine, 0, 0) != 0; i++)
        usleep(50000);
    assert_int_equal(machine.reason.error, 0);
    syscall(SYS_io_destroy, aio);
    if (has_ring)
        io_uring_queue_exit(&ring);
    close(file);
    close(sock);
    end(&machine, a, UNIT);
}

struct reading {
    int fd, tid;
    char *to;
    atomic_bool stop;
    long bad;
};

/* One pread after the other, each of its own part of the file. */
static void *read_on(void *argument)
{
    struct reading *reading = argument;
    uint64_t offset = 0;

    reading->tid = gettid();
    while (!atomic_load(&reading->stop)) {
        reading->bad += pread(reading->fd, reading->to, MIB, (off_t)offset) != (ssize_t)MIB;
        for (uint64_t i = 0; i < MIB; i += 8)
            reading->bad += *(uint64_t *)(void *)(reading->to + i) != io_word(offset + i);
        offset = (offset + MIB) % IO_FILE_BYTES;
    }
    return NULL;
}

static bool sees_reading(const struct machine *machine, const struct reading *reading)
{
    struct memplug_holder holders[4];
    unsigned nr = memplug_space_holders(machine->space, reading->to, PAGE, holders, 4);

    return nr > 0 && holders[0].kind == MEMPLUG_HOLDER_CALL && holders[0].certain &&
           holders[0].tid == reading->tid && holders[0].fd == reading->fd &&
           holders[0].address == (uintptr_t)reading->to && holders[0].size_bytes == MIB;
}

/* Reads that end by themselves are seen, are no reason to say no beforehand, and lose nothing. */
static void direct_reads(void **state)
{
    struct reading reading = {.fd = io_file_open()};
    struct machine machine;
    pthread_t thread;
    unsigned nr_looks = 0;
    char *a;

    (void)state;
    if (reading.fd < 0)
        SKIP("no file with O_DIRECT");
    open_movable(&machine, NULL);
    a = map_named(&machine, 2 * UNIT, NULL);
    reading.to = a + UNIT;
    assert_int_equal(pthread_create(&thread, NULL, read_on, &reading), 0);
    double stop = now_s() + 10;
    while (!sees_reading(&machine, &reading) && now_s() < stop)
        nr_looks++;
    printf("   seen at look %u\n", nr_looks + 1);
    assert_true(now_s() < stop);
    assert_int_equal(why(&machine), 0);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(memplug_offline(machine.pool, machine.first + i % 2, 1,
                                         &(struct memplug_limit){.tries = 1000},
                                         &machine.reason), 0);
        assert_int_equal(machine_online(&machine, i % 2), 0);
    }
    atomic_store(&reading.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(reading.bad, 0);
    close(reading.fd);
    fill_words(a, 2 * UNIT, 6);
    end(&machine, a, 2 * UNIT);
}

/* --- what it costs --------------------------------------------------------------------------- */

/* Many descriptors, many mappings: a look ends. */
static void a_look_is_bounded(void **state)
{
    struct machine machine;
    int fds[512];
    char *a;

    (void)state;
    open_movable(&machine, NULL);
    a = map_named(&machine, UNIT, NULL);
    char *many = mmap(NULL, 20000 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(many != MAP_FAILED);
    for (unsigned i = 0; i < 20000; i += 2)
        assert_int_equal(mprotect(many + i * PAGE, PAGE, PROT_READ), 0);
    for (unsigned i = 0; i < 512; i++)
        fds[i] = dup(STDERR_FILENO);
    double start = now_s();
    assert_int_equal(why(&machine), 0);
    printf("   %.1f ms with 512 descriptors and 20,000 mappings\n", (now_s() - start) * 1e3);
    assert_true(now_s() - start < 2);
    for (unsigned i = 0; i < 512; i++)
        close(fds[i]);
    munmap(many, 20000 * PAGE);
    end(&machine, a, UNIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registered_buffer),
        cmocka_unit_test(buffer_in_small_units),
        cmocka_unit_test(each_one_is_told),
        cmocka_unit_test(buffer_on_huge_pages),
        cmocka_unit_test(pin_goes_away),
        cmocka_unit_test(spliced_page),
        cmocka_unit_test(direct_reads),
        cmocka_unit_test(a_look_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
