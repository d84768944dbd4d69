/* SPDX-License-Identifier: MIT */
/* Threads that sleep on futexes in memory that moves: the real ones of the C library, and the
 * system calls themselves. A control moves memory by hand and sees the kernel lose a sleeper. */
#define _GNU_SOURCE
#include "space_test.h"

#include <grp.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "pin_helpers.h"

/* NR_FUTEX_WAITV and NR_FUTEX_WAIT, newer than the headers. */
#define NR_FUTEX_WAITV 449
#define NR_FUTEX_WAIT 455

/* What lies in movable memory. */
struct shared {
    sem_t sem;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    pthread_barrier_t barrier;
    uint32_t ready, word;
};

/* A thread of its own, outside. */
struct sleeper {
    struct shared *shared;
    long (*sleep)(struct shared *shared);
    atomic_int tid;
    atomic_bool done;
    long result;
    pthread_t thread;
};

static void *run_sleeper(void *argument)
{
    struct sleeper *sleeper = argument;

    atomic_store(&sleeper->tid, gettid());
    sleeper->result = sleeper->sleep(sleeper->shared);
    atomic_store(&sleeper->done, true);
    return NULL;
}

/* Until the thread sleeps in a futex call. */
static bool sleeps(const struct sleeper *sleeper)
{
    char path[64];

    for (unsigned i = 0; i < 2000; i++) {
        long nr = -1;

        if (atomic_load(&sleeper->tid) != 0) {
            snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", sleeper->tid);
            nr = number_in(path, NULL);
        }
        if (nr == SYS_futex || nr == SYS_restart_syscall || nr == NR_FUTEX_WAITV ||
            nr == NR_FUTEX_WAIT)
            return true;
        usleep(1000);
    }
    return false;
}

static bool wakes(const struct sleeper *sleeper, double seconds)
{
    for (double end = now_s() + seconds; !atomic_load(&sleeper->done) && now_s() < end;)
        usleep(1000);
    return atomic_load(&sleeper->done);
}

static void start(struct sleeper *sleeper, struct shared *shared, long (*act)(struct shared *))
{
    *sleeper = (struct sleeper){.shared = shared, .sleep = act};
    assert_int_equal(pthread_create(&sleeper->thread, NULL, run_sleeper, sleeper), 0);
    assert_true(sleeps(sleeper));
}

/* --- a machine ------------------------------------------------------------------------------- */

static struct shared *open_shared(struct machine *machine, enum memplug_backing_kind kind,
                                  int pshared)
{
    pthread_barrierattr_t barrier;
    pthread_mutexattr_t mutex;
    pthread_condattr_t cond;
    struct shared *shared;
    void *address;

    assert_int_equal(machine_open(machine, kind, 2, -1, NULL), 0);
    if (memplug_space_movable(machine->space, &machine->reason) != 0)
        SKIP("%s", machine->reason.why);
    assert_int_equal(memplug_map(machine->space, 2 * UNIT, NULL, &address, NULL), 0);
    fill_words(address, UNIT, 3);
    shared = (void *)((char *)address + UNIT + 64 * PAGE);
    pthread_mutexattr_init(&mutex);
    pthread_condattr_init(&cond);
    pthread_barrierattr_init(&barrier);
    pthread_mutexattr_setpshared(&mutex, pshared);
    pthread_condattr_setpshared(&cond, pshared);
    pthread_barrierattr_setpshared(&barrier, pshared);
    assert_int_equal(sem_init(&shared->sem, pshared == PTHREAD_PROCESS_SHARED, 0), 0);
    assert_int_equal(pthread_mutex_init(&shared->mutex, &mutex), 0);
    assert_int_equal(pthread_cond_init(&shared->cond, &cond), 0);
    assert_int_equal(pthread_barrier_init(&shared->barrier, &barrier, 2), 0);
    return shared;
}

static void close_shared(struct machine *machine, struct shared *shared)
{
    char *address = (char *)shared - 64 * PAGE - UNIT;

    assert_true(words_hold(address, UNIT, 3));
    assert_int_equal(memplug_unmap(machine->space, address, 2 * UNIT), 0);
    assert_int_equal(machine_close(machine), 0);
}

/* Both blocks, so that the memory is where it was, and an old place is not mistaken. */
static void move(struct machine *machine)
{
    assert_int_equal(machine_offline(machine, 0, 0), 0);
    assert_int_equal(machine_online(machine, 0), 0);
    assert_true(stat_of(machine).nr_moves > 0);
}

/* --- the C library's ------------------------------------------------------------------------- */

static long wait_sem(struct shared *shared)
{
    return sem_wait(&shared->sem);
}

static void post_sem(struct shared *shared)
{
    assert_int_equal(sem_post(&shared->sem), 0);
}

static long lock_mutex(struct shared *shared)
{
    int result = pthread_mutex_lock(&shared->mutex);

    return result != 0 ? result : pthread_mutex_unlock(&shared->mutex);
}

static void unlock_mutex(struct shared *shared)
{
    assert_int_equal(pthread_mutex_unlock(&shared->mutex), 0);
}

static long wait_cond(struct shared *shared)
{
    pthread_mutex_lock(&shared->mutex);
    while (shared->ready == 0)
        pthread_cond_wait(&shared->cond, &shared->mutex);
    return pthread_mutex_unlock(&shared->mutex);
}

static void signal_cond(struct shared *shared)
{
    pthread_mutex_lock(&shared->mutex);
    shared->ready = 1;
    pthread_cond_signal(&shared->cond);
    pthread_mutex_unlock(&shared->mutex);
}

static long wait_barrier(struct shared *shared)
{
    int result = pthread_barrier_wait(&shared->barrier);

    return result == PTHREAD_BARRIER_SERIAL_THREAD ? 0 : result;
}

static void join_barrier(struct shared *shared)
{
    wait_barrier(shared);
}

/* The system calls, used as they are to be: look at the word again. */
static long wait_word(struct shared *shared)
{
    while (__atomic_load_n(&shared->word, __ATOMIC_ACQUIRE) == 0)
        syscall(SYS_futex, &shared->word, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0x10);
    return 0;
}

struct waitv {
    uint64_t value, address;
    uint32_t flags, reserved;
};

static long wait_several(struct shared *shared)
{
    struct waitv waits[2] = {
        {.address = (uintptr_t)&shared->ready, .flags = 2},
        {.address = (uintptr_t)&shared->word, .flags = 2},
    };

    while (__atomic_load_n(&shared->word, __ATOMIC_ACQUIRE) == 0)
        if (syscall(NR_FUTEX_WAITV, waits, 2, 0, NULL, 0) < 0 && errno != EAGAIN)
            return -errno;
    return 0;
}

static long wait_two(struct shared *shared)
{
    while (__atomic_load_n(&shared->word, __ATOMIC_ACQUIRE) == 0)
        if (syscall(NR_FUTEX_WAIT, &shared->word, 0ul, 0x10ul, 2, NULL, 0) < 0 && errno != EAGAIN)
            return -errno;
    return 0;
}

/* With a time: after a stop it goes on as restart_syscall(2). */
static long wait_stopped(struct shared *shared)
{
    const struct timespec minute = {.tv_sec = 60};

    while (__atomic_load_n(&shared->word, __ATOMIC_ACQUIRE) == 0)
        syscall(SYS_futex, &shared->word, FUTEX_WAIT, 0, &minute, NULL, 0);
    return 0;
}

static void stop_all(void)
{
    pid_t parent = getpid(), child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        kill(parent, SIGSTOP);
        usleep(20000);
        kill(parent, SIGCONT);
        _exit(0);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void wake_word(struct shared *shared)
{
    __atomic_store_n(&shared->word, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &shared->word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static const struct primitive {
    const char *name;
    long (*sleep)(struct shared *shared);
    void (*wake)(struct shared *shared);
    bool locked; /* the mutex is held meanwhile */
} kinds[] = {
    {"semaphore", wait_sem, post_sem, false},
    {"mutex", lock_mutex, unlock_mutex, true},
    {"condition variable", wait_cond, signal_cond, false},
    {"barrier", wait_barrier, join_barrier, false},
    {"word", wait_word, wake_word, false},
    {"several words", wait_several, wake_word, false},
    {"futex2", wait_two, wake_word, false},
    {"word, after a stop", wait_stopped, wake_word, false},
};

#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void check_kind(const struct primitive *kind, enum memplug_backing_kind backing, int pshared)
{
    struct machine machine;
    struct shared *shared = open_shared(&machine, backing, pshared);
    struct sleeper sleeper;

    if (kind->locked)
        pthread_mutex_lock(&shared->mutex);
    start(&sleeper, shared, kind->sleep);
    if (kind->sleep == wait_stopped)
        stop_all();
    move(&machine);
    usleep(20000);
    assert_false(atomic_load(&sleeper.done)); /* nobody has woken it but us, and it slept on */
    assert_true(sleeps(&sleeper));
    printf("   %s: %lu woken\n", kind->name, (unsigned long)stat_of(&machine).nr_waiters_woken);
    assert_int_equal(stat_of(&machine).nr_waiters_woken > 0, pshared == PTHREAD_PROCESS_SHARED);
    kind->wake(shared);
    assert_true(wakes(&sleeper, 5));
    pthread_join(sleeper.thread, NULL);
    assert_int_equal(sleeper.result, 0);
    close_shared(&machine, shared);
}

static void process_shared(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_KINDS; i++)
        check_kind(&kinds[i], MEMPLUG_BACKING_MEMFD, PTHREAD_PROCESS_SHARED);
}

/* Known by their address, which stays. */
static void private_ones(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++)
        check_kind(&kinds[i], MEMPLUG_BACKING_MEMFD, PTHREAD_PROCESS_PRIVATE);
}

static void on_huge_pages(void **state)
{
    const char *why = hugepages_borrow(300);

    (void)state;
    if (why) {
        hugepages_return();
        SKIP("%s", why);
    }
    check_kind(&kinds[0], MEMPLUG_BACKING_HUGETLB, PTHREAD_PROCESS_SHARED);
    hugepages_return();
}

/* --- pthread_join() -------------------------------------------------------------------------- */

static void *until_told(void *argument)
{
    while (!atomic_load((atomic_bool *)argument))
        usleep(1000);
    return NULL;
}

static long join_thread(struct shared *shared)
{
    return pthread_join(*(pthread_t *)(void *)shared, NULL);
}

/* The kernel wakes who joins at a word in the stack of the thread that ends. */
static void join_of_a_movable_stack(void **state)
{
    atomic_bool told = false;
    struct machine machine;
    struct sleeper sleeper;
    pthread_attr_t attr;
    pthread_t thread;
    char *stack;

    (void)state;
    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL), 0);
    if (memplug_space_movable(machine.space, &machine.reason) != 0)
        SKIP("%s", machine.reason.why);
    assert_int_equal(memplug_map(machine.space, UNIT, NULL, (void **)&stack, NULL), 0);
    pthread_attr_init(&attr);
    assert_int_equal(pthread_attr_setstack(&attr, stack, UNIT), 0);
    assert_int_equal(pthread_create(&thread, &attr, until_told, &told), 0);
    start(&sleeper, (void *)&thread, join_thread);
    move(&machine);
    assert_true(stat_of(&machine).nr_waiters_woken > 0);
    assert_false(atomic_load(&sleeper.done));
    atomic_store(&told, true);
    assert_true(wakes(&sleeper, 5));
    pthread_join(sleeper.thread, NULL);
    assert_int_equal(memplug_unmap(machine.space, stack, UNIT), 0);
    assert_int_equal(machine_close(&machine), 0);
}

/* --- the one that cannot be woken ------------------------------------------------------------ */

static void with_inheritance(void **state)
{
    struct machine machine;
    struct shared *shared = open_shared(&machine, MEMPLUG_BACKING_MEMFD, PTHREAD_PROCESS_SHARED);
    struct sleeper sleeper;
    pthread_mutexattr_t attr;
    uint64_t before_bytes;
    char words[64];

    (void)state;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
    assert_int_equal(pthread_mutex_init(&shared->mutex, &attr), 0);
    pthread_mutex_lock(&shared->mutex);
    start(&sleeper, shared, lock_mutex);
    snprintf(words, sizeof(words), "thread %d waits at %p", sleeper.tid, (void *)&shared->mutex);
    assert_int_equal(memplug_why(machine.pool, machine.first, &machine.reason), -EBUSY);
    assert_non_null(strstr(machine.reason.why, "priority inheritance"));
    assert_non_null(strstr(machine.reason.detail, words));
    before_bytes = blocks_of(machine.fd);
    assert_int_equal(machine_offline(&machine, 0, 2), -EBUSY);
    /* Holes of what stays are holes; the core has touched some pages of its own. */
    assert_in_range(blocks_of(machine.fd), before_bytes, before_bytes + MIB);
    assert_non_null(strstr(machine.reason.why, "priority inheritance"));
    assert_non_null(strstr(machine.reason.detail, words));
    printf("   %s\n", machine.reason.detail);
    assert_int_equal(stat_of(&machine).nr_moves, 1); /* the other unit */
    pthread_mutex_unlock(&shared->mutex);
    assert_true(wakes(&sleeper, 5));
    pthread_join(sleeper.thread, NULL);
    /* Held, but not waited for: the word is all that there is, and it moves. */
    pthread_mutex_lock(&shared->mutex);
    move(&machine);
    start(&sleeper, shared, lock_mutex);
    pthread_mutex_unlock(&shared->mutex);
    assert_true(wakes(&sleeper, 5));
    pthread_join(sleeper.thread, NULL);
    close_shared(&machine, shared);
}

/* --- without sight --------------------------------------------------------------------------- */

/* A user whose own files in /proc are root's: it cannot be seen who sleeps where. */
static int cannot_see(void *argument)
{
    struct memplug_space_config config = {
        .uffd_device_fd = *(int *)argument,
        .node = MEMPLUG_ANY_NODE,
    };
    struct machine machine;
    char *a;

    CHECK(geteuid() == 0 && setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
    CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
    CHECK(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, &config) == 0);
    CHECK(memplug_map(machine.space, UNIT, NULL, (void **)&a, NULL) == 0);
    fill_words(a, UNIT, 9);
    CHECK(memplug_why(machine.pool, machine.first, &machine.reason) == 0);
    CHECK(prctl(PR_SET_DUMPABLE, 0) == 0);
    CHECK(memplug_why(machine.pool, machine.first, &machine.reason) == -EBUSY);
    CHECK(strstr(machine.reason.why, "cannot be seen") && strstr(machine.reason.remedy, "prctl"));
    CHECK(machine_offline(&machine, 0, 2) == -EBUSY);
    CHECK(strstr(machine.reason.why, "cannot be seen") && strstr(machine.reason.remedy, "prctl"));
    CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
    CHECK(machine_offline(&machine, 0, 2) == 0);
    CHECK(words_hold(a, UNIT, 9));
    CHECK(memplug_unmap(machine.space, a, UNIT) == 0);
    CHECK(machine_close(&machine) == 0);
    return 0;
}

static void without_sight(void **state)
{
    int fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

    (void)state;
    if (fd < 0 || geteuid() != 0)
        SKIP("needs root, to become somebody else, and /dev/userfaultfd");
    assert_int_equal(in_child(cannot_see, &fd), 0);
    close(fd);
}

/* The leader of the threads has ended, and the others go on. */
static void *without_leader(void *argument)
{
    static struct sleeper sleeper;
    struct machine *machine = argument;
    struct shared *shared = open_shared(machine, MEMPLUG_BACKING_MEMFD, PTHREAD_PROCESS_SHARED);
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", getpid());
    for (long state = 0; state != 'Z'; usleep(1000)) {
        char text[512] = {0};
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
            _exit(1);
        close(fd);
        state = strrchr(text, ')')[2];
    }
    start(&sleeper, shared, wait_sem);
    if (memplug_why(machine->pool, machine->first, &machine->reason) != 0 ||
        machine_offline(machine, 0, 0) != 0 || stat_of(machine).nr_waiters_woken == 0)
        _exit(machine_say(machine, "without a leader", 1));
    post_sem(shared);
    _exit(wakes(&sleeper, 5) ? 0 : 1);
}

static int end_leader(void *argument)
{
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, without_leader, argument) == 0);
    pthread_exit(NULL);
}

static void leader_has_ended(void **state)
{
    static struct machine machine;

    (void)state;
    assert_int_equal(in_child(end_leader, &machine), 0);
}

/* --- under load ------------------------------------------------------------------------------ */

struct game {
    sem_t turn[2];
    atomic_ulong rounds;
    atomic_bool stop;
};

struct player {
    struct game *game; /* in movable memory */
    unsigned me;
};

static void *play(void *argument)
{
    const struct player *player = argument;
    struct game *game = player->game;

    while (!atomic_load(&game->stop)) {
        sem_wait(&game->turn[player->me]);
        atomic_fetch_add(&game->rounds, 1);
        sem_post(&game->turn[!player->me]);
    }
    return NULL;
}

/* Two threads that wake each other by turns: a sleeper that is lost ends the game. */
static void under_load(void **state)
{
    struct machine machine;
    struct shared *shared = open_shared(&machine, MEMPLUG_BACKING_MEMFD, PTHREAD_PROCESS_SHARED);
    struct game *game = (void *)(shared + 1);
    struct player players[2] = {{game, 0}, {game, 1}};
    pthread_t threads[2];
    unsigned long before;
    unsigned nr_moves = 0;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(sem_init(&game->turn[i], 1, 0), 0);
        assert_int_equal(pthread_create(&threads[i], NULL, play, &players[i]), 0);
    }
    sem_post(&game->turn[0]);
    for (double stop = now_s() + 4; now_s() < stop; nr_moves++) {
        before = atomic_load(&game->rounds);
        assert_int_equal(machine_offline(&machine, nr_moves % 2, 0), 0);
        assert_int_equal(machine_online(&machine, nr_moves % 2), 0);
        for (double limit = now_s() + 5; atomic_load(&game->rounds) < before + 2;) {
            assert_true(now_s() < limit);
            usleep(100);
        }
    }
    printf("   %u moves, %lu rounds, %lu woken\n", nr_moves,
           (unsigned long)atomic_load(&game->rounds),
           (unsigned long)stat_of(&machine).nr_waiters_woken);
    atomic_store(&game->stop, true);
    for (unsigned i = 0; i < 2; i++)
        sem_post(&game->turn[i]);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    close_shared(&machine, shared);
}

/* --- the control ----------------------------------------------------------------------------- */

/* The same by hand, and without the wake at the old place: the kernel finds nobody. */
static void control(void **state)
{
    int from = memfd_create("from", MFD_CLOEXEC), to = memfd_create("to", MFD_CLOEXEC);
    struct sleeper sleeper;

    (void)state;
    assert_int_equal(ftruncate(from, PAGE) + ftruncate(to, PAGE), 0);
    struct shared *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, from, 0);
    struct shared *alias = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, from, 0);
    assert_true(shared != MAP_FAILED && alias != MAP_FAILED);
    start(&sleeper, shared, wait_word);
    assert_true(mmap(shared, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, to, 0) ==
                shared);
    shared->word = 1;
    assert_int_equal(syscall(SYS_futex, &shared->word, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
    assert_false(wakes(&sleeper, 0.3));
    assert_int_equal(syscall(SYS_futex, &alias->word, FUTEX_WAKE, 1, NULL, NULL, 0), 1);
    assert_true(wakes(&sleeper, 5));
    pthread_join(sleeper.thread, NULL);
    munmap(shared, PAGE);
    munmap(alias, PAGE);
    close(from);
    close(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(control),
        cmocka_unit_test(process_shared),
        cmocka_unit_test(private_ones),
        cmocka_unit_test(on_huge_pages),
        cmocka_unit_test(join_of_a_movable_stack),
        cmocka_unit_test(with_inheritance),
        cmocka_unit_test(without_sight),
        cmocka_unit_test(leader_has_ended),
        cmocka_unit_test(under_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
