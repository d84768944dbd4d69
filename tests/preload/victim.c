/* SPDX-License-Identifier: MIT */
/*
 * A program whose heap is moved while it does what makes that hard: victim NAME. It ends with 0
 * when its memory was replaced often enough (the file MOVER_DONE is there) and all was right.
 */
#define _GNU_SOURCE
#include "victim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

unsigned char *objects[NR_OBJECTS];

void make_objects(void)
{
    for (unsigned i = 0; i < NR_OBJECTS; i++) {
        objects[i] = malloc(OBJECT_BYTES + i * PAGE);
        CHECK(objects[i]);
        memset(objects[i], (int)i + 1, OBJECT_BYTES);
    }
}

void check_objects(void)
{
    for (unsigned i = 0; i < NR_OBJECTS; i++)
        for (size_t at = 64; at < OBJECT_BYTES; at++)
            CHECK(objects[i][at] == i + 1);
}

/* --- fork ------------------------------------------------------------------------------------- */

static atomic_bool stop;

static _Atomic uint64_t *counter(unsigned i)
{
    return (_Atomic uint64_t *)(void *)objects[i];
}

/* One after the other: at any moment they fall, by one at most, from the first to the last. */
static void *count(void *argument)
{
    for (uint64_t n = 1; !atomic_load(&stop); n++)
        for (unsigned i = 0; i < NR_OBJECTS; i++)
            atomic_store_explicit(counter(i), n, memory_order_release);
    return argument;
}

/* Gives memory back and takes it again. */
static void *churn(void *argument)
{
    unsigned seed = 1;

    while (!atomic_load(&stop)) {
        size_t size = (size_t)(rand_r(&seed) % 3000000) + 1;
        unsigned char *memory = malloc(size);

        CHECK(memory);
        memset(memory, 0x5a, size);
        for (size_t at = 0; at < size; at += 997)
            CHECK(memory[at] == 0x5a);
        free(memory);
    }
    return argument;
}

static void check_moment(uint64_t seen[NR_OBJECTS])
{
    for (unsigned i = 0; i < NR_OBJECTS; i++)
        seen[i] = atomic_load(counter(i));
    for (unsigned i = 1; i < NR_OBJECTS; i++)
        CHECK(seen[i] <= seen[i - 1]);
    CHECK(seen[0] - seen[NR_OBJECTS - 1] <= 1);
}

static void child(void)
{
    uint64_t seen[NR_OBJECTS], again[NR_OBJECTS];
    unsigned char *more;

    check_moment(seen);
    check_objects();
    for (unsigned i = 0; i < 3; i++) {
        usleep(3000);
        check_moment(again);
        CHECK(memcmp(seen, again, sizeof(seen)) == 0);
    }
    more = malloc(3 * OBJECT_BYTES);
    CHECK(more);
    memset(more, 0xee, 3 * OBJECT_BYTES);
    memset(objects[3], 0xee, OBJECT_BYTES);
    free(objects[4]);
    free(more);
    if (fork() == 0) { /* of a child, whose memory is its own */
        CHECK(objects[3][77] == 0xee && objects[5][77] == 6);
        _exit(0);
    }
    int status;
    CHECK(wait(&status) > 0 && status == 0);
    _exit(0);
}

static int test_fork(void)
{
    pthread_t threads[2];
    unsigned nr = 0;

    make_objects();
    for (unsigned i = 0; i < NR_OBJECTS; i++)
        atomic_store(counter(i), 0);
    CHECK(pthread_create(&threads[0], NULL, count, NULL) == 0);
    CHECK(pthread_create(&threads[1], NULL, churn, NULL) == 0);
    while (nr < 10 || !moved_enough()) {
        pid_t pid = fork();
        int status = 0;

        CHECK(pid >= 0);
        if (pid == 0)
            child();
        nr++;
        CHECK(waitpid(pid, &status, 0) == pid);
        if (status != 0)
            fprintf(stderr, "child %u ended with 0x%x\n", nr, (unsigned)status);
        CHECK(status == 0);
        check_objects();
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    return 0;
}

/* Without a full userfaultfd nothing holds up the other thread: an error, and no wrong child. */
static int test_refused(void)
{
    pthread_t thread;
    int status;

    make_objects();
    CHECK(fork() != 0 || (check_objects(), _exit(0), 1)); /* alone it can */
    CHECK(wait(&status) > 0 && status == 0);
    CHECK(pthread_create(&thread, NULL, churn, NULL) == 0);
    errno = 0;
    CHECK(fork() == -1 && errno == EAGAIN);
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    check_objects();
    return 0;
}

/* What a child does to memory that it may share with its parent. */
static int child_changes(unsigned char *memory)
{
    static const unsigned char zeros[8 * PAGE];
    unsigned char *larger;

    CHECK(madvise(memory, 8 * PAGE, MADV_DONTNEED) == 0 && memcmp(memory, zeros, 8 * PAGE) == 0);
    CHECK(madvise(memory + 8 * PAGE, 8 * PAGE, MADV_FREE) == 0);
    memset(memory + 8 * PAGE, 3, 8 * PAGE);
    CHECK(mprotect(memory + 16 * PAGE, 8 * PAGE, PROT_READ) == 0);
    larger = mremap(memory + 24 * PAGE, 8 * PAGE, 16 * PAGE, MREMAP_MAYMOVE);
    CHECK(larger != MAP_FAILED && larger[0] == 9 && larger[8 * PAGE] == 0);
    CHECK(munmap(memory + 32 * PAGE, 8 * PAGE) == 0);
    CHECK(mmap(memory + 32 * PAGE, 8 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
               0) == memory + 32 * PAGE);
    CHECK(setuid(getuid()) == 0 && prctl(PR_SET_DUMPABLE, 0) == 0);
    usleep(200000); /* the parent writes */
    CHECK(memcmp(memory, zeros, 8 * PAGE) == 0);
    CHECK(memcmp(memory + 32 * PAGE, zeros, 8 * PAGE) == 0);
    for (unsigned at = 0; at < 8 * PAGE; at++)
        CHECK(memory[8 * PAGE + at] == 3 && memory[16 * PAGE + at] == 9 && larger[at] == 9);
    for (unsigned at = 40 * PAGE; at < 64 * PAGE; at++)
        CHECK(memory[at] == 9);
    check_objects();
    return 0;
}

static int test_changes(void)
{
    unsigned char *memory = NULL;

    make_objects();
    CHECK(posix_memalign((void **)&memory, PAGE, 64 * PAGE) == 0);
    for (unsigned round = 0; round < 2 || !moved_enough(); round++) {
        int status;
        pid_t pid;

        memset(memory, 9, 64 * PAGE);
        pid = fork();
        if (pid == 0)
            _exit(child_changes(memory));
        CHECK(pid > 0);
        usleep(50000);
        memset(memory, 0xdd, 64 * PAGE);
        for (unsigned i = 0; i < NR_OBJECTS; i++)
            memset(objects[i], 0xdd, OBJECT_BYTES);
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
        for (unsigned i = 0; i < NR_OBJECTS; i++)
            memset(objects[i], (int)i + 1, OBJECT_BYTES);
    }
    free(memory);
    return 0;
}

/* --- a library that is opened ----------------------------------------------------------------- */

/* A message that nobody asked for is freed by whoever calls the dynamic linker next. */
static void fork_with_error(void)
{
    int status;
    pid_t pid;

    CHECK(!dlopen("libvictim-nosuch.so", RTLD_NOW));
    pid = fork();
    if (pid == 0)
        _exit(0);
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
}

/* It is searched where this program says, and uses this program's malloc whatever it wants. */
static int test_plugin(void)
{
    void *plugin = dlopen("libvictim-plugin.so", RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    union {
        void *found;
        char *(*call)(char *text);
    } swap = {.found = plugin ? dlsym(plugin, "plugin_swap") : NULL};

    CHECK(swap.found);
    fork_with_error();
    make_objects();
    do {
        char *text = swap.call(strdup("content"));

        CHECK(strcmp(text, "content") == 0);
        free(text);
        check_objects();
    } while (!moved_enough());
    return 0;
}

static int test_daemon(void)
{
    return daemon(0, 0) == 0 ? 0 : 1;
}

/* --- direct I/O into the heap ----------------------------------------------------------------- */

#define FILE_BYTES ((size_t)64 << 20)
#define WORDS_PER_PAGE (PAGE / sizeof(uint64_t))

static int direct_fd;
static _Atomic unsigned nr_reads;

static int make_file(void)
{
    char path[] = "victim-XXXXXX";
    uint64_t *page = NULL;
    int fd = mkstemp(path), direct;

    CHECK(fd >= 0 && posix_memalign((void **)&page, PAGE, PAGE) == 0);
    for (uint64_t word = 0; word < FILE_BYTES / sizeof(word); word += WORDS_PER_PAGE) {
        for (uint64_t i = 0; i < WORDS_PER_PAGE; i++)
            page[i] = (word + i) * 0x9e3779b97f4a7c15u;
        CHECK(write(fd, page, PAGE) == PAGE);
    }
    CHECK(fsync(fd) == 0);
    direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    CHECK(unlink(path) == 0 && close(fd) == 0);
    free(page);
    return direct;
}

/* The buffer has other bytes before each read: what a read has lost is seen. */
static void *read_direct(void *argument)
{
    unsigned seed = 7;
    uint64_t *buffer = NULL;
    const size_t size = (size_t)4 << 20;

    CHECK(posix_memalign((void **)&buffer, PAGE, size) == 0);
    while (!atomic_load(&stop)) {
        uint64_t first = (uint64_t)(rand_r(&seed) % (int)((FILE_BYTES - size) / PAGE)) *
                         WORDS_PER_PAGE;

        memset(buffer, 0xdd, size);
        CHECK(pread(direct_fd, buffer, size, (off_t)(first * sizeof(*buffer))) == (ssize_t)size);
        for (uint64_t i = 0; i < size / sizeof(*buffer); i++)
            CHECK(buffer[i] == (first + i) * 0x9e3779b97f4a7c15u);
        atomic_fetch_add(&nr_reads, 1);
    }
    free(buffer);
    return argument;
}

/* One round: four reads at once, into a buffer that is registered for this round or not. */
static void read_round(struct io_uring *ring, uint64_t *buffer, size_t size, unsigned *seed)
{
    struct iovec all = {.iov_base = buffer, .iov_len = size};
    const size_t part = size / 4;
    bool fixed = rand_r(seed) % 4 == 0 && io_uring_register_buffers(ring, &all, 1) == 0;
    uint64_t first[4];

    memset(buffer, 0xdd, size);
    for (unsigned i = 0; i < 4; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
        char *to = (char *)buffer + i * part;

        first[i] = (uint64_t)(rand_r(seed) % (int)((FILE_BYTES - part) / PAGE)) * WORDS_PER_PAGE;
        if (fixed)
            io_uring_prep_read_fixed(sqe, direct_fd, to, (unsigned)part, first[i] * 8, 0);
        else
            io_uring_prep_read(sqe, direct_fd, to, (unsigned)part, first[i] * 8);
    }
    CHECK(io_uring_submit(ring) == 4);
    for (unsigned i = 0; i < 4; i++) {
        struct io_uring_cqe *cqe;

        CHECK(io_uring_wait_cqe(ring, &cqe) == 0 && cqe->res == (int)part);
        io_uring_cqe_seen(ring, cqe);
    }
    CHECK(!fixed || io_uring_unregister_buffers(ring) == 0);
    for (unsigned i = 0; i < 4; i++)
        for (uint64_t j = 0; j < part / 8; j++)
            CHECK(buffer[i * part / 8 + j] == (first[i] + j) * 0x9e3779b97f4a7c15u);
}

static void *read_by_ring(void *argument)
{
    unsigned seed = 11;
    uint64_t *buffer = NULL;
    const size_t size = (size_t)4 << 20;
    struct io_uring ring;

    if (io_uring_queue_init(8, &ring, 0) != 0) /* forbidden here: then as the other thread does */
        return read_direct(argument);
    CHECK(posix_memalign((void **)&buffer, PAGE, size) == 0);
    while (!atomic_load(&stop)) {
        read_round(&ring, buffer, size, &seed);
        atomic_fetch_add(&nr_reads, 1);
    }
    free(buffer);
    io_uring_queue_exit(&ring);
    return argument;
}

static int test_direct(void)
{
    pthread_t threads[2];

    make_objects();
    direct_fd = make_file();
    if (direct_fd < 0) {
        fputs("no O_DIRECT here\n", stderr);
        return 77;
    }
    CHECK(pthread_create(&threads[0], NULL, read_direct, NULL) == 0);
    CHECK(pthread_create(&threads[1], NULL, read_by_ring, NULL) == 0);
    while (atomic_load(&nr_reads) < 100 || !moved_enough()) {
        pid_t pid = fork();
        int status;

        if (pid == 0) {
            check_objects();
            _exit(0);
        }
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
        check_objects();
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    return 0;
}

/* --- descriptors ------------------------------------------------------------------------------ */

static int test_close(void)
{
    unsigned char *more;

    make_objects();
    for (int fd = 3; fd < 1024; fd++)
        close(fd);
    CHECK(close_range(3, ~0U, 0) == 0);
    closefrom(3);
    for (int fd = 3; fd < 600; fd++)
        if (dup2(2, fd) != fd)
            CHECK(errno == EBUSY);
    for (int fd = 3; fd < 600; fd++)
        if (close(fd) != 0)
            CHECK(errno == EBADF);
    for (unsigned round = 0; round < 3 || !moved_enough(); round++) {
        check_objects();
        more = malloc(200 * OBJECT_BYTES); /* a new block */
        CHECK(more);
        memset(more, 7, 9 * OBJECT_BYTES);
        CHECK(more[9 * OBJECT_BYTES - 1] == 7);
        free(more);
    }
    check_objects();
    return 0;
}

/* --- locks that are said to be shared --------------------------------------------------------- */

struct table {
    sem_t ping, pong;
    pthread_mutex_t mutex;
    pthread_cond_t condition;
    unsigned turn;
    bool end;
};

static void *answer(void *argument)
{
    struct table *table = argument;

    while (sem_wait(&table->ping) == 0 && !table->end)
        sem_post(&table->pong);
    pthread_mutex_lock(&table->mutex);
    while (table->turn < 2000000000) {
        while (table->turn % 2 == 0)
            pthread_cond_wait(&table->condition, &table->mutex);
        table->turn++;
        pthread_cond_broadcast(&table->condition);
    }
    pthread_mutex_unlock(&table->mutex);
    return NULL;
}

static struct table *make_table(void)
{
    struct table *table = malloc(sizeof(*table));
    pthread_mutexattr_t mutex;
    pthread_condattr_t condition;

    CHECK(table);
    memset(table, 0, sizeof(*table));
    CHECK(sem_init(&table->ping, 1, 0) == 0 && sem_init(&table->pong, 1, 0) == 0);
    CHECK(pthread_mutexattr_init(&mutex) == 0 && pthread_condattr_init(&condition) == 0);
    CHECK(pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED) == 0);
    CHECK(pthread_condattr_setpshared(&condition, PTHREAD_PROCESS_SHARED) == 0);
    CHECK(pthread_mutex_init(&table->mutex, &mutex) == 0);
    CHECK(pthread_cond_init(&table->condition, &condition) == 0);
    return table;
}

static int test_shared(void)
{
    struct table *table = make_table();
    pthread_t thread;

    make_objects();
    CHECK(pthread_create(&thread, NULL, answer, table) == 0);
    for (unsigned i = 0; i < 500 || !moved_enough(); i++) {
        sem_post(&table->ping);
        CHECK(sem_wait(&table->pong) == 0);
        usleep(500);
    }
    table->end = true;
    sem_post(&table->ping);
    for (unsigned i = 0; i < 500; i++) {
        pthread_mutex_lock(&table->mutex);
        table->turn++;
        pthread_cond_broadcast(&table->condition);
        while (table->turn % 2 == 1)
            pthread_cond_wait(&table->condition, &table->mutex);
        pthread_mutex_unlock(&table->mutex);
        usleep(500);
    }
    pthread_mutex_lock(&table->mutex);
    table->turn = 2000000001;
    pthread_cond_broadcast(&table->condition);
    pthread_mutex_unlock(&table->mutex);
    pthread_join(thread, NULL);
    check_objects();
    return 0;
}

/* --- what a program does to memory of malloc -------------------------------------------------- */

static bool dies(unsigned char *address)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        *address = 1;
        _exit(0);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status);
}

static int test_calls(void)
{
    unsigned char *memory = NULL;

    make_objects();
    CHECK(posix_memalign((void **)&memory, PAGE, 64 * PAGE) == 0);
    memset(memory, 9, 64 * PAGE);
    CHECK(mprotect(memory, PAGE, PROT_NONE) == 0);
    CHECK(mprotect(memory + 2 * PAGE, PAGE, PROT_READ) == 0);
    CHECK(madvise(memory + 4 * PAGE, 4 * PAGE, MADV_DONTNEED) == 0);
    CHECK(mlock(memory + 9 * PAGE + 5, 1) == 0 && munlock(memory + 9 * PAGE + 5, 1) == 0);
    CHECK(madvise(memory, 64 * PAGE, MADV_DOFORK) == 0);
    for (unsigned round = 0; round < 2 || !moved_enough(); round++) {
        CHECK(dies(memory) && dies(memory + 2 * PAGE) && !dies(memory + PAGE));
        CHECK(memory[2 * PAGE] == 9 && memory[PAGE] == 9);
        for (unsigned at = 4 * PAGE; at < 8 * PAGE; at++)
            CHECK(memory[at] == 0);
        check_objects();
    }
    CHECK(mprotect(memory, 64 * PAGE, PROT_READ | PROT_WRITE) == 0);
    CHECK(memory[0] == 9 && memory[64 * PAGE - 1] == 9);
    free(memory);
    return 0;
}

static int test_locked(void)
{
    CHECK(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
    make_objects();
    for (unsigned round = 0; round < 2 || !moved_enough(); round++)
        check_objects();
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*test)(void);
    } tests[] = {
        {"fork", test_fork},   {"refused", test_refused}, {"clone", test_clone},
        {"close", test_close}, {"shared", test_shared},   {"calls", test_calls},
        {"locked", test_locked}, {"direct", test_direct}, {"changes", test_changes},
        {"plugin", test_plugin}, {"daemon", test_daemon},
        {"drops", test_drops}, {"storm", test_storm},
    };

    for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]) && argc == 2; i++)
        if (strcmp(argv[1], tests[i].name) == 0)
            return tests[i].test();
    return 2;
}
