/* SPDX-License-Identifier: MIT */
/*
 * What a forked child does with memory that it shares: the same calls as on private memory that is
 * no file's, which lies beside it as a model, while its parent writes. And the same by bare system
 * calls, which must go wrong.
 */
#define _GNU_SOURCE
#include "fork_test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#define NR_PAIRS 6u
#define PAIR_PAGES 24u
#define NR_STEPS 400u

/* Newer than the headers of some distributions. */
#define DONTNEED_LOCKED 24
#define GUARD_INSTALL 102
#define GUARD_REMOVE 103

/* Memory, and its model. */
struct pair {
    char *ours, *model;
    uint64_t nr_pages;
};

struct play {
    struct memplug_space *space; /* null: bare system calls */
    struct pair pairs[NR_PAIRS];
    unsigned seed;
    const char *last;
};

static unsigned draw(struct play *play, unsigned limit)
{
    return (unsigned)rand_r(&play->seed) % limit;
}

/* --- the calls -------------------------------------------------------------------------------- */

static int of(int error)
{
    return error < 0 ? -error : 0;
}

static int sys(long result)
{
    return result == -1 ? errno : 0;
}

static int advise(struct play *play, char *va, uint64_t bytes, int advice)
{
    return play->space ? of(memplug_space_child_advise(play->space, va, bytes, advice))
                       : sys(madvise(va, bytes, advice));
}

static int shield(struct play *play, char *va, uint64_t bytes, int protection)
{
    return play->space ? of(memplug_space_child_protect(play->space, va, bytes, protection))
                       : sys(mprotect(va, bytes, protection));
}

static int drop(struct play *play, char *va, uint64_t bytes)
{
    return play->space ? of(memplug_space_child_unmap(play->space, va, bytes))
                       : sys(munmap(va, bytes));
}

static int map_at(struct play *play, char *va, uint64_t bytes, int flags)
{
    const int protection = PROT_READ | PROT_WRITE;

    if (play->space)
        return of(memplug_space_child_map(play->space, va, bytes, protection, flags, -1, 0));
    return mmap(va, bytes, protection, flags | MAP_FIXED, -1, 0) == MAP_FAILED ? errno : 0;
}

static int remap(struct play *play, char **va, uint64_t old, uint64_t new, int flags, char *target)
{
    void *address = target;
    int error;

    if (play->space) {
        error = of(memplug_space_child_remap(play->space, *va, old, new, flags, &address));
    } else {
        address = mremap(*va, old, new, flags, target);
        error = address == MAP_FAILED ? errno : 0;
    }
    if (error == 0)
        *va = address;
    return error;
}

/* --- are both the same? ----------------------------------------------------------------------- */

/* Also of what cannot be read: then that is the same. */
static bool same_page(const char *ours, const char *model)
{
    char pages[2][PAGE];
    const char *from[2] = {ours, model};
    pid_t self = getpid();
    long got[2];

    for (unsigned i = 0; i < 2; i++) {
        struct iovec to = {.iov_base = pages[i], .iov_len = PAGE};
        struct iovec it = {.iov_base = (void *)(uintptr_t)from[i], .iov_len = PAGE};

        got[i] = process_vm_readv(self, &to, 1, &it, 1, 0);
    }
    return got[0] == got[1] && (got[0] < 0 || memcmp(pages[0], pages[1], PAGE) == 0);
}

static bool same_pair(const struct pair *pair)
{
    for (uint64_t page = 0; page < pair->nr_pages; page++)
        if (!same_page(pair->ours + page * PAGE, pair->model + page * PAGE))
            return false;
    return true;
}

static bool same(const struct play *play)
{
    for (unsigned i = 0; i < NR_PAIRS; i++)
        if (!same_pair(&play->pairs[i]))
            return false;
    return true;
}

/* --- steps ------------------------------------------------------------------------------------ */

static bool step_advise(struct play *play, struct pair *pair, uint64_t first, uint64_t bytes)
{
    static const int advices[] = {
        MADV_DONTNEED, MADV_DONTNEED, DONTNEED_LOCKED, MADV_FREE, GUARD_INSTALL, GUARD_REMOVE,
        MADV_REMOVE, MADV_DONTFORK, MADV_DOFORK, MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_COLD,
        MADV_PAGEOUT, MADV_WILLNEED, MADV_RANDOM, MADV_HUGEPAGE, MADV_MERGEABLE, MADV_DONTDUMP,
        MADV_DONTNEED + 1000,
    };
    int advice = advices[draw(play, sizeof(advices) / sizeof(advices[0]))];
    int model, ours;

    model = sys(madvise(pair->model + first, bytes, advice));
    ours = advise(play, pair->ours + first, bytes, advice);
    if (ours != model)
        printf("   advice %d: %d and not %d\n", advice, ours, model);
    play->last = "madvise";
    if (advice == MADV_FREE) /* may be zeros and may be not, until it is written */
        for (uint64_t at = first; at < first + bytes; at += PAGE) {
            struct iovec zero = {.iov_base = (char[PAGE]){0}, .iov_len = PAGE};
            struct iovec to[2] = {{.iov_base = pair->model + at, .iov_len = PAGE},
                                  {.iov_base = pair->ours + at, .iov_len = PAGE}};

            for (unsigned i = 0; i < 2; i++)
                if (process_vm_writev(getpid(), &zero, 1, &to[i], 1, 0) < 0)
                    advise(play, to[i].iov_base, PAGE, MADV_DONTNEED);
        }
    return ours == model;
}

static bool step_protect(struct play *play, struct pair *pair, uint64_t first, uint64_t bytes)
{
    static const int protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE,
                                      PROT_READ | PROT_WRITE};
    int protection = protections[draw(play, 4)];
    int model = sys(mprotect(pair->model + first, bytes, protection));
    int ours = shield(play, pair->ours + first, bytes, protection);

    play->last = "mprotect";
    if (ours != model)
        printf("   protection %d: %d and not %d\n", protection, ours, model);
    return ours == model;
}

static bool step_lock(struct play *play, struct pair *pair, uint64_t first, uint64_t bytes)
{
    play->last = "mlock";
    if (draw(play, 2) != 0)
        return sys(munlock(pair->model + first, bytes)) == sys(munlock(pair->ours + first, bytes));
    return sys(mlock(pair->model + first, bytes)) == sys(mlock(pair->ours + first, bytes));
}

/* What is shared with the kernel's own is left to it: it splits a mapping, and so does mlock. */
static bool step_map(struct play *play, struct pair *pair, uint64_t first, uint64_t bytes)
{
    const int flags = MAP_ANONYMOUS | (draw(play, 2) != 0 ? MAP_PRIVATE : MAP_SHARED);
    void *model = mmap(pair->model + first, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, -1,
                       0);

    play->last = "mmap";
    return map_at(play, pair->ours + first, bytes, flags) == 0 && model != MAP_FAILED;
}

/* Somebody else could have its place later: so it is mapped again. */
static bool step_unmap(struct play *play, struct pair *pair, uint64_t first, uint64_t bytes)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    bool right = drop(play, pair->ours + first, bytes) == sys(munmap(pair->model + first, bytes)) &&
                 step_advise(play, pair, 0, pair->nr_pages * PAGE) &&
                 step_protect(play, pair, 0, pair->nr_pages * PAGE);

    play->last = "munmap";
    return mmap(pair->model + first, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED &&
           map_at(play, pair->ours + first, bytes, flags) == 0 && right;
}

static bool step_write(struct play *play, struct pair *pair, uint64_t first, uint64_t bytes)
{
    char page[PAGE];

    memset(page, (int)draw(play, 200), PAGE);
    play->last = "a write";
    for (uint64_t at = first; at < first + bytes; at += PAGE) {
        struct iovec from = {.iov_base = page, .iov_len = PAGE};
        struct iovec to[2] = {{.iov_base = pair->model + at, .iov_len = PAGE},
                              {.iov_base = pair->ours + at, .iov_len = PAGE}};

        if (process_vm_writev(getpid(), &from, 1, &to[0], 1, 0) !=
            process_vm_writev(getpid(), &from, 1, &to[1], 1, 0))
            return false;
    }
    return true;
}

/* Addresses with no neighbour: the kernel makes one mapping of neighbours that are alike, or does
 * not, and takes the lock off where MREMAP_DONTUNMAP moves memory right behind its old place. */
static char *alone(uint64_t bytes)
{
    char *va = mmap(NULL, bytes + 2 * PAGE, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return va + PAGE;
}

/* What the kernel has found a place for. */
static void put_alone(char **va, uint64_t bytes, const char *was)
{
    if (*va != was)
        *va = mremap(*va, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, alone(bytes));
}

/* A range that is several mappings for the kernel is refused by it, and is not tried with ours; and
 * whether there is room behind it is not the same for both. */
static bool step_remap(struct play *play, struct pair *pair, uint64_t first, uint64_t bytes)
{
    static const int kinds[] = {0, MREMAP_MAYMOVE, MREMAP_MAYMOVE | MREMAP_FIXED,
                                MREMAP_MAYMOVE | MREMAP_DONTUNMAP, MREMAP_FIXED, 8};
    int flags = kinds[draw(play, 6)];
    uint64_t old = pair->nr_pages * PAGE;
    uint64_t new = (flags & MREMAP_DONTUNMAP) != 0 ? old : draw(play, 2 * PAIR_PAGES) * PAGE;
    struct pair was = *pair;
    char *targets[2] = {NULL, NULL};
    int model, ours;

    (void)first;
    (void)bytes;
    play->last = "mremap";
    if (flags == 0 && new > old)
        return true;
    for (unsigned i = 0; i < 2 && new > 0; i++)
        targets[i] = alone(new);
    pair->model = mremap(was.model, old, new, flags, targets[0]);
    model = pair->model == MAP_FAILED ? errno : 0;
    if (model == EFAULT) {
        *pair = was;
        return true;
    }
    ours = remap(play, &pair->ours, old, new, flags, targets[1]);
    if (model != 0)
        pair->model = was.model;
    else
        pair->nr_pages = new / PAGE;
    if (ours != model)
        printf("   flags %d, %lu to %lu: %d and not %d\n", flags, old, new, ours, model);
    if (ours == 0 && model == 0 && (flags & MREMAP_DONTUNMAP) != 0)
        for (uint64_t at = 0; at < old; at += PAGE)
            if (!same_page(was.ours + at, was.model + at))
                return false;
    if (ours == 0 && model == 0 && (flags & MREMAP_FIXED) == 0) {
        put_alone(&pair->ours, new, was.ours);
        put_alone(&pair->model, new, was.model);
    }
    return ours == model;
}

/* A child of its own has the same, and less only of what it was told not to have. */
static bool step_fork(struct play *play, struct pair *pair, uint64_t first, uint64_t bytes)
{
    int status = 1;
    pid_t pid;

    (void)pair;
    (void)first;
    (void)bytes;
    play->last = "fork";
    fflush(stdout);
    if (play->space && memplug_space_child_forks(play->space) != 0)
        return false;
    pid = fork();
    if (play->space)
        memplug_space_child_forked(play->space);
    if (pid == 0) {
        bool right = same(play);

        fflush(stdout);
        _exit(right ? 0 : 1);
    }
    return waitpid(pid, &status, 0) == pid && status == 0;
}

typedef bool step_t(struct play *play, struct pair *pair, uint64_t first, uint64_t bytes);

static step_t *const steps[] = {step_advise, step_advise, step_advise, step_advise, step_protect,
                                step_lock,   step_map,    step_unmap,  step_write,  step_write,
                                step_remap,  step_fork};

static bool step(struct play *play)
{
    struct pair *pair = &play->pairs[draw(play, NR_PAIRS)];
    uint64_t first, nr;

    if (pair->nr_pages == 0)
        return true;
    first = draw(play, (unsigned)pair->nr_pages);
    nr = 1 + draw(play, (unsigned)(pair->nr_pages - first));
    if (draw(play, 3) == 0) {
        first = 0;
        nr = pair->nr_pages;
    }
    return steps[draw(play, sizeof(steps) / sizeof(steps[0]))](play, pair, first * PAGE,
                                                               nr * PAGE) && same_pair(pair);
}

/* --- a child that plays ----------------------------------------------------------------------- */

static void begin(struct play *play, struct job *job)
{
    for (unsigned i = 0; i < NR_PAIRS; i++) {
        struct pair *pair = &play->pairs[i];

        *pair = (struct pair){.ours = job->memory + i * 2 * MIB + 64 * PAGE * i,
                              .model = alone(PAIR_PAGES * PAGE), .nr_pages = PAIR_PAGES};
        if (mmap(pair->model, PAIR_PAGES * PAGE, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
            _exit(100);
        for (uint64_t at = 0; at < PAIR_PAGES * PAGE / 8; at++)
            ((uint64_t *)(void *)pair->model)[at] =
                ((uint64_t)(pair->ours - job->memory) / 8 + at + 1) * 0x9e3779b97f4a7c15u ^ SEED;
    }
}

/* 0: to the end nothing was different. */
static int play_on(struct job *job, bool bare, unsigned seed)
{
    struct play play = {.space = bare ? NULL : job->machine.space, .seed = seed};

    begin(&play, job);
    for (unsigned i = 0; i < NR_STEPS; i++)
        if (!step(&play) || (i % 32 == 31 && !same(&play))) {
            if (!bare)
                printf("   seed %u, step %u: %s\n", seed, i, play.last);
            fflush(stdout);
            return 1;
        }
    return 0;
}

static atomic_bool stop;

static void *write_on(void *argument)
{
    struct job *job = argument;

    for (uint64_t n = 1; !atomic_load(&stop); n++)
        *(volatile uint64_t *)(void *)(job->memory + n * 40503 % (SIZE / 8) * 8) = n;
    return NULL;
}

static int child_plays(struct job *job, bool bare, unsigned seed)
{
    pthread_t thread;
    int status;
    pid_t pid;

    fill_words(job->memory, SIZE, SEED);
    pid = fork_job(job);
    if (pid == 0)
        _exit(play_on(job, bare, seed));
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&thread, NULL, write_on, job), 0);
    status = status_of(pid);
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    if (status != 0)
        printf("   seed %u: status %d\n", seed, status);
    return status;
}

static void calls_mean_what_they_mean_on_memory_of_its_own(void **state)
{
    static const unsigned failed_once[] = {145, 3048, 3086, 4030, 20081, 30020, 70112};
    struct job *job = open_lazy(NULL);

    (void)state;
    for (unsigned seed = 1; seed <= 25; seed++)
        assert_int_equal(child_plays(job, false, seed), 0);
    for (unsigned i = 0; i < sizeof(failed_once) / sizeof(failed_once[0]); i++)
        assert_int_equal(child_plays(job, false, failed_once[i]), 0);
    assert_int_equal(stat_of(&job->machine).nr_forks_copied, 0);
    assert_int_equal(stat_of(&job->machine).nr_children_ended, 0);
    close_job(job);
}

/* What shows that the test sees it. */
static void bare_system_calls_do_not(void **state)
{
    struct job *job = open_lazy(NULL);
    unsigned nr_wrong = 0;

    (void)state;
    for (unsigned seed = 1; seed <= 10; seed++)
        nr_wrong += child_plays(job, true, seed) != 0;
    assert_int_equal(nr_wrong, 10);
    close_job(job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_mean_what_they_mean_on_memory_of_its_own),
        cmocka_unit_test(bare_system_calls_do_not),
    };

    return can_be_lazy() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
