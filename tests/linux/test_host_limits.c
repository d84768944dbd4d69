/* SPDX-License-Identifier: MIT */
/* The Linux host where the machine gives no more: mappings, address space, descriptors, disk; and
 * its lock, its small memory and fork. What exhausts a process runs in a child of its own. */
#define _GNU_SOURCE
#include "host_test.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <time.h>

/* 2: ThreadSanitizer, whose runtime does not live with a full or shrunken address space. */
#define WITH_SANITIZER (strstr(SANITIZER, "thread") ? 2 : strstr(SANITIZER, "address") ? 1 : 0)

static void expect_in_child(int (*check)(void *))
{
    int result = in_child(check, NULL);

    if (result == 77) {
        skip(); /* the child has said why */
    }
    assert_int_equal(result, 0);
}

/* --- the VMA limit ---------------------------------------------------------------------------- */

#define NR_FILLERS 140000ull /* twice the usual limit */

/* Use up every mapping that the kernel grants; the number used. */
static uint64_t exhaust_mappings(char **area)
{
    uint64_t nr = 0;

    *area = mmap(NULL, NR_FILLERS * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (; nr < NR_FILLERS / 2; nr++) {
        if (mprotect(*area + (2 * nr + 1) * 4096, 4096, PROT_READ) != 0) {
            break;
        }
    }
    while (mmap(NULL, 4096, nr & 1 ? PROT_READ : PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) !=
           MAP_FAILED) {
        nr++;
    }
    return nr;
}

/* Three neighbours are one mapping; at the limit the middle one goes, and nothing new comes. */
static int at_the_limit(struct memplug_linux *host, struct memplug_extent *extents, int fd)
{
    struct memplug_extent fourth = extents[3];
    char *area;

    CHECK(exhaust_mappings(&area) > 1000);
    CHECK(munmap(direct(host, &extents[1]), BLOCK) == -1 && errno == ENOMEM); /* without spares */
    CHECK(attach(host, &fourth) == -ENOMEM);
    CHECK(memplug_linux_host(host)->ops->why(host) != NULL);
    CHECK(memplug_linux_host(host)->ops->memmap_provide(host, 64 * MIB, MEMMAP, 4096) == -ENOMEM);
    unalias(host, &extents[1]);
    detach(host, &extents[1]);
    CHECK(blocks_of(fd) == 2 * BLOCK);
    CHECK(host->spare.nr_stuck == 0);
    CHECK(direct(host, &extents[0])[BLOCK - 1] == 1 && direct(host, &extents[2])[0] == 1);
    CHECK(memmap_of(host, &extents[0])[0] == 1 && memmap_of(host, &extents[2])[0] == 1);
    unalias(host, &extents[0]);
    detach(host, &extents[0]);
    unalias(host, &extents[2]);
    detach(host, &extents[2]);
    CHECK(blocks_of(fd) == 0);
    CHECK(host->spare.nr_stuck == 0);
    munmap(area, NR_FILLERS * 4096);
    CHECK(attach(host, &fourth) == 0);
    CHECK(host->spare.nr_vmas == MPL_NR_SPARE_VMAS);
    detach(host, &fourth);
    return 0;
}

static int vma_limit_child(void *argument)
{
    struct memplug_linux *host = host_open(8 * GIB);
    void *backing = backing_open(host, MEMPLUG_BACKING_MEMFD, 8 * BLOCK, -1);
    struct memplug_extent extents[4];
    int fd = memplug_linux_backing_dup(host, backing);

    (void)argument;
    if (number_in("/proc/sys/vm/max_map_count", NULL) > (long)NR_FILLERS / 2) {
        dprintf(1, "   vm.max_map_count is too high to be reached\n");
        return 77;
    }
    for (unsigned i = 0; i < 4; i++) {
        extents[i] = extent_of(backing, 2 + i, i);
    }
    for (unsigned i = 0; i < 3; i++) {
        CHECK(attach(host, &extents[i]) == 0 && alias(host, &extents[i]) == 0);
        memset(direct(host, &extents[i]), 1, BLOCK);
    }
    int result = at_the_limit(host, extents, fd);
    memplug_linux_close(host);
    return result;
}

static void vma_limit(void **state)
{
    (void)state;
    if (WITH_SANITIZER == 2) {
        SKIP("the thread sanitizer needs mappings of its own");
    }
    expect_in_child(vma_limit_child);
}

/* Thirty detaches at the limit, each of which leaves two mappings more: the spares pay. */
static int many_holes_child(void *argument)
{
    struct memplug_linux *host = host_open(8 * GIB);
    void *backing = backing_open(host, MEMPLUG_BACKING_MEMFD, 60 * BLOCK, -1);
    struct memplug_extent extents[60];
    char *area;

    (void)argument;
    if (number_in("/proc/sys/vm/max_map_count", NULL) > (long)NR_FILLERS / 2) {
        dprintf(1, "   vm.max_map_count is too high to be reached\n");
        return 77;
    }
    for (unsigned i = 0; i < 60; i++) {
        extents[i] = extent_of(backing, i, i);
        CHECK(attach(host, &extents[i]) == 0);
    }
    exhaust_mappings(&area);
    for (unsigned i = 1; i < 60; i += 2) {
        detach(host, &extents[i]);
    }
    dprintf(1, "   30 holes at the limit: %u spare left, %u stuck\n", host->spare.nr_vmas,
            host->spare.nr_stuck);
    CHECK(host->spare.nr_stuck == 0);
    for (unsigned i = 0; i < 60; i += 2) {
        detach(host, &extents[i]);
    }
    CHECK(host->spare.nr_stuck == 0 && host->spare.nr_vmas == MPL_NR_SPARE_VMAS);
    return 0;
}

static void many_holes(void **state)
{
    (void)state;
    if (WITH_SANITIZER == 2) {
        SKIP("the thread sanitizer needs mappings of its own");
    }
    expect_in_child(many_holes_child);
}

/* --- address space ---------------------------------------------------------------------------- */

static int address_space_child(void *argument)
{
    struct rlimit limit = {.rlim_cur = 16 * GIB, .rlim_max = 16 * GIB};
    struct memplug_linux_config config = {.window_bytes = 32 * GIB};
    struct memplug_linux *host;
    struct memplug_linux_stat stat;
    struct memplug_reason reason;

    (void)argument;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    CHECK(memplug_linux_open(&config, &host, &reason) == -ENOMEM && reason.why);
    config.window_bytes = 0;
    CHECK(memplug_linux_open(&config, &host, &reason) == 0);
    CHECK(reason.error == 0 && reason.why && strstr(reason.why, "RLIMIT_AS"));
    memplug_linux_stat(host, &stat);
    CHECK(stat.window_bytes == 4 * GIB);
    memplug_linux_close(host);
    limit.rlim_cur = 200 * MIB;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    CHECK(memplug_linux_open(NULL, &host, &reason) == -ENOMEM && reason.remedy);
    return 0;
}

static void address_space(void **state)
{
    (void)state;
    if (WITH_SANITIZER) {
        SKIP("a sanitizer takes more address space than the limit");
    }
    expect_in_child(address_space_child);
}

static void default_window(void **state)
{
    struct memplug_linux_config config = {.block_bytes = 3 * BLOCK};
    struct memplug_linux_stat stat;
    struct memplug_linux *host;
    struct memplug_reason reason;

    (void)state;
    assert_int_equal(memplug_linux_open(&config, &host, &reason), -EINVAL);
    config = (struct memplug_linux_config){.page_struct_bytes = 33};
    assert_int_equal(memplug_linux_open(&config, &host, &reason), -EINVAL);
    config = (struct memplug_linux_config){.window_bytes = BLOCK + 4096};
    assert_int_equal(memplug_linux_open(&config, &host, &reason), -EINVAL);
    config = (struct memplug_linux_config){.window_bytes = 1024 * GIB, .block_bytes = BLOCK};
    assert_int_equal(memplug_linux_open(&config, &host, &reason), -E2BIG);
    assert_int_equal(memplug_linux_open(NULL, &host, &reason), 0);
    assert_null(reason.why);
    memplug_linux_stat(host, &stat);
    assert_int_equal(stat.window_bytes, 1024 * GIB);
    assert_int_equal(stat.memmap_bytes, 16 * GIB);
    assert_int_equal(memplug_linux_host(host)->geometry.block_shift, 28);
    assert_int_equal(memplug_linux_host(host)->geometry.address_limit, 1024 * GIB);
    assert_int_equal((uintptr_t)memplug_linux_host(host)->direct_map % GIB, 0);
    assert_true(memplug_linux_host(host)->ops->cpu(host) < memplug_linux_host(host)->nr_cpus);
    memplug_linux_host(host)->ops->relax(host, 0);
    memplug_linux_host(host)->ops->relax(host, 100);
    memplug_linux_host(host)->ops->relax(host, 1000);
    memplug_linux_close(host);
}

/* --- a full filesystem ------------------------------------------------------------------------ */

static int full_disk_child(void *argument)
{
    char directory[] = "/tmp/memplug-test-XXXXXX";

    (void)argument;
    CHECK(mkdtemp(directory) != NULL);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", directory, "tmpfs", 0, "size=160m") != 0) {
        dprintf(1, "   no mount namespace of our own (root is needed)\n");
        rmdir(directory);
        return 77;
    }
    struct memplug_linux *host = host_open(GIB);
    int fd = file_in(directory, 2 * BLOCK);
    void *backing = backing_open(host, MEMPLUG_BACKING_FILE, 0, fd);
    struct memplug_extent both = extent_of(backing, 1, 0);
    both.size_bytes = 2 * BLOCK;
    CHECK(attach(host, &both) == -ENOSPC);
    CHECK(mpl_backing_intact(host, BLOCK) == -ENODEV);
    both.size_bytes = BLOCK;
    CHECK(attach(host, &both) == 0);
    memset(direct(host, &both), 1, BLOCK);
    detach(host, &both);
    CHECK(blocks_of(fd) <= 32 * MIB); /* what the failed one had allocated of the other block */
    memplug_linux_close(host);
    umount2(directory, MNT_DETACH);
    rmdir(directory);
    return 0;
}

static void full_disk(void **state)
{
    (void)state;
    expect_in_child(full_disk_child);
}

/* --- descriptors that the program closes ------------------------------------------------------ */

static int closed_descriptors_child(void *argument)
{
    struct memplug_linux *host = host_open(GIB);
    void *backing = backing_open(host, MEMPLUG_BACKING_MEMFD, 2 * BLOCK, -1);
    struct memplug_extent one = extent_of(backing, 1, 0);
    struct memplug_extent two = extent_of(backing, 2, 1);
    int victim = file_in("/dev/shm", 2 * BLOCK);
    long resident = number_in("/proc/self/status", "RssShmem:");

    (void)argument;
    CHECK(pwrite(victim, "precious", 8, 5) == 8);
    CHECK(attach(host, &one) == 0);
    memset(direct(host, &one), 1, BLOCK);
    for (int fd = 3; fd < 1024; fd++) { /* as daemons do, and worse: other files come there */
        if (fd != victim && fcntl(fd, F_GETFD) >= 0) {
            CHECK(dup2(victim, fd) == fd);
        }
    }
    CHECK(attach(host, &two) == -ENODEV);
    CHECK(mpl_backing_intact(host, one.address) == -ENODEV);
    CHECK(memplug_linux_backing_dup(host, backing) == -ENODEV);
    detach(host, &one);
    CHECK(number_in("/proc/self/status", "RssShmem:") - resident < 1024);
    CHECK(mlock(&one, sizeof(one)) == 0);
    memplug_linux_close(host);
    char content[8];
    CHECK(pread(victim, content, 8, 5) == 8 && memcmp(content, "precious", 8) == 0);
    return 0;
}

static void closed_descriptors(void **state)
{
    (void)state;
    expect_in_child(closed_descriptors_child);
}

/* MADV_REMOVE refuses locked memory, so another way must be taken; the windows cost nothing. */
static int locked_memory_child(void *argument)
{
    struct memplug_linux *host = host_open(GIB);
    void *backing = backing_open(host, MEMPLUG_BACKING_MEMFD, BLOCK, -1);
    struct memplug_extent one = extent_of(backing, 1, 0);
    int fd = memplug_linux_backing_dup(host, backing);
    struct rlimit limit = {.rlim_cur = 64 << 10, .rlim_max = 64 << 10};

    (void)argument;
    if (geteuid() != 0 || mlockall(MCL_FUTURE) != 0) {
        dprintf(1, "   mlockall is not permitted (root is needed)\n");
        return 77;
    }
    CHECK(attach(host, &one) == 0);
    if (blocks_of(fd) == 0) {
        dprintf(1, "   mlockall does nothing here (a sanitizer swallows it)\n");
        return 77;
    }
    CHECK(blocks_of(fd) == BLOCK); /* populated at once: that is what was asked for */
    detach(host, &one);
    CHECK(blocks_of(fd) == 0 && host->spare.nr_stuck == 0);

    /* A user whom the kernel allows no new mapping at all: the memory comes back all the same. */
    CHECK(attach(host, &one) == 0);
    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0 && setuid(65534) == 0);
    detach(host, &one);
    CHECK(blocks_of(fd) == 0 && host->spare.nr_stuck == 1);
    CHECK(host->spare.nr_vmas == MPL_NR_SPARE_VMAS);
    CHECK(write(fd, direct(host, &one), 1) == -1 && errno == EFAULT);
    CHECK(attach(host, &one) == -EAGAIN && memplug_linux_host(host)->ops->why(host));
    CHECK(munlockall() == 0);
    CHECK(attach(host, &one) == 0);
    memset(direct(host, &one), 1, 4096);
    detach(host, &one);
    memplug_linux_close(host);
    return 0;
}

static void locked_memory(void **state)
{
    (void)state;
    expect_in_child(locked_memory_child);
}

/* --- fork ------------------------------------------------------------------------------------- */

static int windows_absent(void *argument)
{
    const struct memplug_linux *host = argument;
    char *maps[] = {host->direct.base, host->memmap.base};
    uint64_t sizes[] = {host->direct.size_bytes, host->memmap.size_bytes};

    for (unsigned i = 0; i < 2; i++) {
        void *there = mmap(maps[i], sizes[i], PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
                           0);
        CHECK(there == maps[i]);
    }
    return 0;
}

static void fork_leaves_windows_out(void **state)
{
    struct memplug_linux *host = host_open(GIB);
    void *backing = backing_open(host, MEMPLUG_BACKING_MEMFD, 2 * BLOCK, -1);
    struct memplug_extent one = extent_of(backing, 1, 0);
    struct memplug_extent two = extent_of(backing, 3, 1);

    (void)state;
    if (WITH_SANITIZER == 2) {
        SKIP("the thread sanitizer needs mappings of its own");
    }
    assert_int_equal(attach(host, &one), 0);
    assert_int_equal(alias(host, &one), 0);
    assert_int_equal(attach(host, &two), 0);
    assert_int_equal(memplug_linux_host(host)->ops->memmap_provide(host, 3 * MEMMAP, MEMMAP, 4096),
                     0);
    direct(host, &one)[0] = 1;
    assert_int_equal(in_child(windows_absent, host), 0);
    detach(host, &two);
    assert_int_equal(in_child(windows_absent, host), 0);
    memplug_linux_host(host)->ops->memmap_unmap(host, 3 * MEMMAP, MEMMAP, 4096);
    unalias(host, &one);
    detach(host, &one);
    assert_int_equal(in_child(windows_absent, host), 0);
    memplug_linux_close(host);
}

/* --- the lock --------------------------------------------------------------------------------- */

struct contest {
    const struct memplug_host *host;
    uint32_t stop;
    uint64_t counter; /* under the lock */
    _Atomic int held;
};

static void *hold(void *argument)
{
    struct contest *contest = argument;

    contest->host->ops->lock(contest->host->context, NULL);
    contest->held = 1;
    while (contest->held == 1) {
        sched_yield();
    }
    contest->host->ops->unlock(contest->host->context);
    return NULL;
}

static void *stop_soon(void *argument)
{
    struct contest *contest = argument;

    usleep(30000);
    __atomic_store_n(&contest->stop, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void *count(void *argument)
{
    struct contest *contest = argument;

    for (unsigned i = 0; i < 20000; i++) {
        if (contest->host->ops->lock(contest->host->context, NULL) != 0) {
            return argument;
        }
        contest->counter++;
        contest->host->ops->unlock(contest->host->context);
    }
    return NULL;
}

static void lock_limits(void **state)
{
    struct memplug_linux *linux_host = host_open(GIB);
    const struct memplug_host *host = memplug_linux_host(linux_host);
    struct contest contest = {.host = host};
    struct memplug_limit limit = {.timeout_ns = 50 * 1000 * 1000, .stop = &contest.stop};
    pthread_t holder, stopper;
    uint64_t start_ns;

    (void)state;
    assert_int_equal(host->ops->lock(host->context, &limit), 0);
    assert_int_equal(host->ops->lock(host->context, &limit), -EDEADLK);
    assert_int_equal(host->ops->lock(host->context, NULL), -EDEADLK);
    host->ops->unlock(host->context);

    pthread_create(&holder, NULL, hold, &contest);
    while (!contest.held) {
        sched_yield();
    }
    start_ns = host->ops->now_ns(host->context);
    assert_int_equal(host->ops->lock(host->context, &limit), -ETIMEDOUT);
    assert_in_range(host->ops->now_ns(host->context) - start_ns, 50000000, 1000000000);
    limit.timeout_ns = 0; /* 30 s */
    pthread_create(&stopper, NULL, stop_soon, &contest);
    start_ns = host->ops->now_ns(host->context);
    assert_int_equal(host->ops->lock(host->context, &limit), -EINTR);
    assert_in_range(host->ops->now_ns(host->context) - start_ns, 1000000, 1000000000);
    contest.held = 2;
    pthread_join(holder, NULL);
    pthread_join(stopper, NULL);
    assert_int_equal(host->ops->lock(host->context, &limit), -EINTR); /* stopped before it began */
    assert_int_equal(host->ops->lock(host->context, NULL), 0);
    host->ops->unlock(host->context);
    memplug_linux_close(linux_host);
}

static void lock_excludes(void **state)
{
    struct memplug_linux *linux_host = host_open(GIB);
    struct contest contest = {.host = memplug_linux_host(linux_host)};
    pthread_t threads[4];
    void *failed;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        pthread_create(&threads[i], NULL, count, &contest);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    assert_int_equal(contest.counter, 80000);
    memplug_linux_close(linux_host);
}

/* --- small memory ----------------------------------------------------------------------------- */

#define NR_PIECES 400u
#define PIECE_BYTES 12697u /* not a multiple of anything */

static void small_memory(void **state)
{
    struct memplug_linux *linux_host = host_open(GIB);
    const struct memplug_host *host = memplug_linux_host(linux_host);
    unsigned char *pieces[NR_PIECES] = {NULL};
    struct memplug_linux_stat before, after;
    unsigned seed = 1;
    void *large;

    (void)state;
    memplug_linux_stat(linux_host, &before);
    for (unsigned round = 0; round < 8 * NR_PIECES; round++) {
        unsigned i = rand_r(&seed) % NR_PIECES;

        if (pieces[i]) {
            for (unsigned at = 0; at < PIECE_BYTES; at++) {
                assert_int_equal(pieces[i][at], i % 255 + 1);
            }
            host->ops->memory_put(host->context, pieces[i], PIECE_BYTES);
            pieces[i] = NULL;
        } else {
            assert_int_equal(
                host->ops->memory_get(host->context, PIECE_BYTES, (void **)&pieces[i]), 0);
            assert_int_equal((uintptr_t)pieces[i] % 64, 0);
            memset(pieces[i], i % 255 + 1, PIECE_BYTES);
        }
    }
    assert_int_equal(host->ops->memory_get(host->context, 10 * MIB + 1, &large), 0);
    memplug_linux_stat(linux_host, &after);
    assert_in_range(after.mapped_bytes - before.mapped_bytes, 10 * MIB, 16 * MIB);
    host->ops->memory_put(host->context, large, 10 * MIB + 1);
    for (unsigned i = 0; i < NR_PIECES; i++) {
        if (pieces[i]) {
            host->ops->memory_put(host->context, pieces[i], PIECE_BYTES);
        }
    }
    memplug_linux_stat(linux_host, &after);
    assert_int_equal(after.mapped_bytes, before.mapped_bytes);
    for (unsigned i = 0; i < MPL_NR_METADATA; i++) {
        assert_int_equal(memplug_linux_metadata(linux_host, MIB, &large), 0);
    }
    assert_int_equal(memplug_linux_metadata(linux_host, MIB, &large), -ENOSPC);
    memplug_linux_stat(linux_host, &after);
    assert_int_equal(after.metadata_bytes, MPL_NR_METADATA * MIB);
    memplug_linux_close(linux_host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(default_window),
        cmocka_unit_test(address_space),
        cmocka_unit_test(vma_limit),
        cmocka_unit_test(many_holes),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(closed_descriptors),
        cmocka_unit_test(locked_memory),
        cmocka_unit_test(fork_leaves_windows_out),
        cmocka_unit_test(lock_limits),
        cmocka_unit_test(lock_excludes),
        cmocka_unit_test(small_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
