/* SPDX-License-Identifier: MIT */
/* The Linux host by itself: real aliases, identity of bytes, memory that is really given back. */
#define _GNU_SOURCE
#include "host_test.h"

#include <linux/magic.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

static const char *self; /* this program's path */

/* --- aliases ---------------------------------------------------------------------------------- */

/* What is written through one mapping is read through the other, both ways, to the last byte. */
static void check_alias(struct memplug_linux *host, void *backing)
{
    struct memplug_extent extent = extent_of(backing, 3, 0);

    assert_int_equal(attach(host, &extent), 0);
    assert_int_equal(alias(host, &extent), 0);
    memset(direct(host, &extent), 0x5a, BLOCK);
    assert_int_equal(memmap_of(host, &extent)[0], 0x5a);
    assert_int_equal(memmap_of(host, &extent)[MEMMAP - 1], 0x5a);
    memset(memmap_of(host, &extent), 0x17, MEMMAP);
    assert_int_equal(direct(host, &extent)[0], 0x17);
    assert_int_equal(direct(host, &extent)[MEMMAP - 1], 0x17);
    assert_int_equal(direct(host, &extent)[MEMMAP], 0x5a);
    unalias(host, &extent);
    detach(host, &extent);
}

static void alias_memfd(void **state)
{
    struct memplug_linux *host = host_open(8 * GIB);

    (void)state;
    check_alias(host, backing_open(host, MEMPLUG_BACKING_MEMFD, BLOCK, -1));
    memplug_linux_close(host);
}

static void alias_file_in(const char *directory, long magic)
{
    struct memplug_linux *host;
    struct statfs filesystem;
    int fd = file_in(directory, BLOCK);

    if (fd < 0 || fstatfs(fd, &filesystem) != 0 || filesystem.f_type != magic) {
        SKIP("no file of the wanted filesystem in %s", directory);
    }
    host = host_open(8 * GIB);
    check_alias(host, backing_open(host, MEMPLUG_BACKING_FILE, 0, fd));
    assert_int_equal(blocks_of(fd), 0); /* scrubbed: nothing is left but a hole */
    memplug_linux_close(host);
    close(fd);
}

static void alias_tmpfs(void **state)
{
    (void)state;
    alias_file_in("/dev/shm", TMPFS_MAGIC);
}

static void alias_ext4(void **state)
{
    (void)state;
    alias_file_in("/var/tmp", EXT4_SUPER_MAGIC);
}

/* --- huge pages ------------------------------------------------------------------------------- */

#define NR_HUGEPAGES "/proc/sys/vm/nr_hugepages"
#define FREE_HUGEPAGES "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"

/* The machine's huge pages: whoever changes their number, here or in pin_helpers.c, locks this. */
#define HUGE_LOCK "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"

static long huge_before;
static int huge_lock = -1;

static bool set_huge(long nr)
{
    int fd = open(NR_HUGEPAGES, O_WRONLY | O_CLOEXEC);
    bool set = fd >= 0 && dprintf(fd, "%ld", nr) > 0;

    if (fd >= 0) {
        close(fd);
    }
    return set && number_in(NR_HUGEPAGES, NULL) >= nr;
}

static int restore_huge(void **state)
{
    (void)state;
    if (huge_before >= 0) {
        set_huge(huge_before);
    }
    close(huge_lock);
    return 0;
}

/* Three blocks' worth of free pages, no more. */
static void want_huge(void)
{
    huge_lock = open(HUGE_LOCK, O_RDONLY | O_CLOEXEC);
    if (huge_lock >= 0) {
        flock(huge_lock, LOCK_EX);
    }
    huge_before = number_in(NR_HUGEPAGES, NULL);
    if (huge_before < 0 || !set_huge(huge_before + 3 * 64)) {
        SKIP("huge pages cannot be had (root, and 384 MiB of free memory are needed)");
    }
}

static void alias_hugetlb(void **state)
{
    struct memplug_linux *host = host_open(8 * GIB);

    (void)state;
    want_huge();
    long free_before = number_in(FREE_HUGEPAGES, NULL);
    void *backing = backing_open(host, MEMPLUG_BACKING_HUGETLB, 8 * BLOCK, -1);
    assert_int_equal(memplug_linux_host(host)->ops->alignment(host, backing), 2 * MIB);
    assert_int_equal(memplug_linux_backing_dup(host, backing), -ENODEV);
    check_alias(host, backing);
    assert_int_equal(number_in(FREE_HUGEPAGES, NULL), free_before);

    /* Pages are there at once, or the attach fails and leaves nothing behind. */
    struct memplug_extent two = extent_of(backing, 1, 0);
    struct memplug_extent more = extent_of(backing, 10, 2);
    two.size_bytes = more.size_bytes = 2 * BLOCK;
    two.memmap_bytes = more.memmap_bytes = 2 * MEMMAP;
    assert_int_equal(attach(host, &two), 0);
    assert_int_equal(number_in(FREE_HUGEPAGES, NULL), free_before - 128);
    if (free_before < 256) {
        assert_int_equal(attach(host, &more), -ENOMEM);
        assert_non_null(memplug_linux_host(host)->ops->why(host));
        assert_int_equal(number_in(FREE_HUGEPAGES, NULL), free_before - 128);
    }
    assert_int_equal(alias(host, &two), 0);
    memset(memmap_of(host, &two), 0x33, 2 * MEMMAP);
    assert_int_equal(direct(host, &two)[2 * MEMMAP - 1], 0x33);
    assert_int_equal(direct(host, &two)[2 * MEMMAP], 0);
    unalias(host, &two);
    detach(host, &two);
    assert_int_equal(number_in(FREE_HUGEPAGES, NULL), free_before);
    memplug_linux_close(host);
}

/* Sealing works once no writable mapping is left; a spent block gets a new file. */
static void hugetlb_spent(void **state)
{
    struct memplug_linux *host = host_open(8 * GIB);
    struct mpl_location location;

    (void)state;
    want_huge();
    struct memplug_extent extent =
        extent_of(backing_open(host, MEMPLUG_BACKING_HUGETLB, BLOCK, -1), 5, 0);
    uint64_t data = extent.address + MEMMAP;
    assert_int_equal(attach(host, &extent), 0);
    assert_int_equal(alias(host, &extent), 0);
    assert_int_equal(mpl_backing_locate(host, data + 4 * MIB, &location), 0);
    assert_int_equal(location.file_offset, 4 * MIB);
    assert_int_equal(location.run_bytes, BLOCK - MEMMAP - 4 * MIB);
    assert_int_equal(location.flags, MPL_LOCATION_HUGETLB);
    assert_int_equal(fcntl(location.fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    mpl_window_unmap(&host->direct, data, BLOCK - MEMMAP);
    assert_int_equal(fcntl(location.fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    assert_int_equal(mpl_backing_spent(host, data), 0);
    assert_int_equal(mpl_backing_locate(host, data, &location), 0);
    assert_true(location.flags & MPL_LOCATION_SPENT);

    /* Also when there is no page to spare: the old file's are used. */
    long taken = number_in(FREE_HUGEPAGES, NULL);
    void *other = mmap(NULL, (size_t)taken * 2 * MIB, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    assert_true(other != MAP_FAILED);
    assert_int_equal(mpl_backing_renew(host, data), 0);
    munmap(other, (size_t)taken * 2 * MIB);
    assert_int_equal(mpl_backing_locate(host, data, &location), 0);
    assert_int_equal(location.flags, MPL_LOCATION_HUGETLB);
    memset(direct(host, &extent) + MEMMAP, 1, BLOCK - MEMMAP);
    assert_int_equal(mpl_backing_locate(host, extent.address, &location), 0);
    assert_true(location.flags & MPL_LOCATION_MEMMAP);
    unalias(host, &extent);
    detach(host, &extent);
    memplug_linux_close(host);
}

/* --- identity --------------------------------------------------------------------------------- */

static void same_bytes_twice(void **state)
{
    struct memplug_linux *host = host_open(8 * GIB);
    int fd = file_in("/dev/shm", 4 * BLOCK);
    void *one = backing_open(host, MEMPLUG_BACKING_FILE, 0, fd);
    void *two = backing_open(host, MEMPLUG_BACKING_FILE, 0, fd);
    struct memplug_extent first = extent_of(one, 1, 1);
    struct memplug_extent again = extent_of(two, 2, 1);

    (void)state;
    assert_int_equal(attach(host, &first), 0);
    assert_int_equal(attach(host, &again), -EEXIST);
    again.offset_bytes -= 4096; /* one page in common */
    again.offset_bytes -= BLOCK - 8192;
    assert_int_equal(attach(host, &again), -EEXIST);
    again.offset_bytes -= 4096;
    again.backing = one;
    assert_int_equal(attach(host, &again), 0);
    detach(host, &again);
    detach(host, &first);
    again = extent_of(two, 2, 1);
    assert_int_equal(attach(host, &again), 0);
    detach(host, &again);

    /* A memfd of the host's that comes back as a file is known again. */
    void *memfd = backing_open(host, MEMPLUG_BACKING_MEMFD, BLOCK, -1);
    int copy = memplug_linux_backing_dup(host, memfd);
    first = extent_of(memfd, 1, 0);
    again = extent_of(backing_open(host, MEMPLUG_BACKING_FILE, 0, copy), 2, 0);
    assert_int_equal(attach(host, &first), 0);
    assert_int_equal(attach(host, &again), -EEXIST);
    detach(host, &first);
    memplug_linux_close(host);
    close(copy);
    close(fd);
}

/* The other process: --claim FD, its exit code is the negated result of the attach. */
static int claim(int fd)
{
    struct memplug_linux_config config = {.window_bytes = GIB};
    struct memplug_backing_spec spec = {.kind = MEMPLUG_BACKING_FILE, .fd = fd};
    struct memplug_linux *host;
    void *backing;

    if (memplug_linux_open(&config, &host, NULL) != 0 ||
        memplug_linux_backing_open(host, &spec, &backing, NULL) != 0) {
        return 200;
    }
    struct memplug_extent extent = extent_of(backing, 1, 0);
    int result = attach(host, &extent);
    if (result == 0) {
        detach(host, &extent);
    }
    memplug_linux_close(host);
    return -result;
}

static int claim_elsewhere(int fd)
{
    char number[16];
    int status;

    snprintf(number, sizeof(number), "%d", fd);
    pid_t child = fork();
    if (child == 0) {
        execl(self, self, "--claim", number, (char *)NULL);
        _exit(201);
    }
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 202;
}

static void another_process(void **state)
{
    char path[] = "/dev/shm/memplug-test-XXXXXX";
    struct memplug_linux *host = host_open(8 * GIB);
    int fd = mkstemp(path); /* without O_CLOEXEC: the child inherits it */
    int opened = open(path, O_RDWR);

    (void)state;
    unlink(path);
    assert_int_equal(ftruncate(fd, 2 * BLOCK), 0);
    struct memplug_extent extent = extent_of(backing_open(host, MEMPLUG_BACKING_FILE, 0, fd), 1, 0);
    assert_int_equal(claim_elsewhere(fd), 0);
    assert_int_equal(attach(host, &extent), 0);
    assert_int_equal(claim_elsewhere(opened), EBUSY);
    assert_int_equal(claim_elsewhere(fd), EBUSY);
    struct memplug_linux *second = host_open(GIB); /* in this process, and yet another host */
    struct memplug_extent same =
        extent_of(backing_open(second, MEMPLUG_BACKING_FILE, 0, fd), 1, 0);
    assert_int_equal(attach(second, &same), -EBUSY);
    assert_string_equal(memplug_linux_host(second)->ops->why(second),
                        "another process has these bytes");
    memplug_linux_close(second);
    detach(host, &extent);
    assert_int_equal(claim_elsewhere(fd), 0);
    memplug_linux_close(host);
    close(opened);
    close(fd);
}

/* --- what is refused -------------------------------------------------------------------------- */

static int refused(struct memplug_linux *host, enum memplug_backing_kind kind, int fd)
{
    struct memplug_backing_spec spec = {.kind = kind, .size_bytes = BLOCK, .fd = fd};
    struct memplug_reason reason = {0};
    void *backing;
    int result = memplug_linux_backing_open(host, &spec, &backing, &reason);

    assert_int_equal(reason.error, result);
    assert_non_null(reason.why);
    if (fd >= 0) {
        close(fd);
    }
    return result;
}

static void wrong_descriptors(void **state)
{
    struct memplug_linux *host = host_open(GIB);
    int ends[2];
    int sockets[2];
    int fd = file_in("/dev/shm", BLOCK - 4096);
    char path[64];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    assert_int_equal(refused(host, MEMPLUG_BACKING_FILE, ends[0]), -ENODEV);
    assert_int_equal(refused(host, MEMPLUG_BACKING_FILE, ends[1]), -ENODEV);
    assert_int_equal(refused(host, MEMPLUG_BACKING_FILE, sockets[0]), -ENODEV);
    assert_int_equal(refused(host, MEMPLUG_BACKING_DAX, sockets[1]), -ENODEV);
    assert_int_equal(refused(host, MEMPLUG_BACKING_FILE, open("/", O_RDONLY)), -ENODEV);
    assert_int_equal(refused(host, MEMPLUG_BACKING_FILE, open("/dev/zero", O_RDWR)), -ENODEV);
    assert_int_equal(refused(host, MEMPLUG_BACKING_DAX, open("/dev/zero", O_RDWR)), -ENODEV);
    assert_int_equal(refused(host, MEMPLUG_BACKING_FILE, -1), -EBADF);
    assert_int_equal(refused(host, 9, -1), -EINVAL);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    assert_int_equal(refused(host, MEMPLUG_BACKING_FILE, open(path, O_RDONLY)), -EACCES);
    assert_int_equal(refused(host, MEMPLUG_BACKING_FILE, open(path, O_WRONLY)), -EACCES);
    assert_int_equal(refused(host, MEMPLUG_BACKING_FILE, open(path, O_PATH)), -EACCES);

    struct memplug_backing_spec spec = {
        .kind = MEMPLUG_BACKING_FILE, .size_bytes = BLOCK, .fd = fd};
    struct memplug_reason reason;
    void *backing;
    assert_int_equal(memplug_linux_backing_open(host, &spec, &backing, &reason), -ENXIO);
    assert_int_equal(reason.size_bytes, BLOCK - 4096);
    spec = (struct memplug_backing_spec){.kind = MEMPLUG_BACKING_MEMFD, .size_bytes = BLOCK + 1};
    assert_int_equal(memplug_linux_backing_open(host, &spec, &backing, &reason), -EINVAL);

    /* Too short only when it comes to it. */
    struct memplug_extent extent = extent_of(backing_open(host, MEMPLUG_BACKING_FILE, 0, fd), 1, 0);
    assert_int_equal(attach(host, &extent), -ENXIO);
    extent.offset_bytes = 12;
    assert_int_equal(attach(host, &extent), -EINVAL);
    assert_int_equal(memplug_linux_host(host)->ops->attach(host, &(struct memplug_extent){
        .address = 0, .size_bytes = BLOCK, .backing = host}), -EINVAL);
    close(fd);
    memplug_linux_close(host);
}

static void window_and_table_full(void **state)
{
    struct memplug_linux *host = host_open(4 * BLOCK);
    void *backing = backing_open(host, MEMPLUG_BACKING_MEMFD, 8 * BLOCK, -1);
    struct memplug_backing_spec spec = {.kind = MEMPLUG_BACKING_MEMFD, .size_bytes = BLOCK};
    struct memplug_extent extents[4];
    void *other;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        extents[i] = extent_of(backing, i, i);
        assert_int_equal(attach(host, &extents[i]), 0);
    }
    struct memplug_extent beyond = extent_of(backing, 4, 4);
    assert_int_equal(attach(host, &beyond), -E2BIG);
    beyond.address = 3 * BLOCK;
    beyond.size_bytes = 2 * BLOCK;
    assert_int_equal(attach(host, &beyond), -E2BIG);
    for (unsigned i = 1; i < MPL_NR_BACKINGS; i++) {
        assert_int_equal(memplug_linux_backing_open(host, &spec, &other, NULL), 0);
    }
    assert_int_equal(memplug_linux_backing_open(host, &spec, &other, NULL), -ENOSPC);
    for (unsigned i = 0; i < 4; i++) {
        detach(host, &extents[i]);
    }
    memplug_linux_backing_close(host, backing);
    assert_int_equal(memplug_linux_backing_open(host, &spec, &other, NULL), 0);
    memplug_linux_close(host);
}

/* --- giving back ------------------------------------------------------------------------------ */

static void memory_comes_back(void **state)
{
    struct memplug_linux *host = host_open(GIB);
    void *backing = backing_open(host, MEMPLUG_BACKING_MEMFD, 2 * BLOCK, -1);
    struct memplug_extent one = extent_of(backing, 1, 0);
    struct memplug_extent two = extent_of(backing, 2, 1);
    int fd = memplug_linux_backing_dup(host, backing);
    long resident = number_in("/proc/self/status", "RssShmem:");

    (void)state;
    assert_int_equal(attach(host, &one), 0);
    assert_int_equal(attach(host, &two), 0);
    assert_int_equal(blocks_of(fd), 0);
    memset(direct(host, &one), 1, BLOCK);
    memset(direct(host, &two), 2, BLOCK);
    assert_int_equal(blocks_of(fd), 2 * BLOCK);
    assert_in_range(number_in("/proc/self/status", "RssShmem:") - resident, 255 * 1024,
                    257 * 1024);
    detach(host, &one);
    assert_int_equal(blocks_of(fd), BLOCK);
    assert_int_equal(direct(host, &two)[BLOCK - 1], 2);
    assert_int_equal(ftruncate(fd, 0), -1); /* sealed against whoever was handed it */
    memplug_linux_backing_close(host, backing); /* lives on for its last block */
    assert_int_equal(direct(host, &two)[0], 2);
    assert_int_equal(attach(host, &one), -ENODEV);
    detach(host, &two);
    assert_int_equal(blocks_of(fd), 0);
    assert_in_range(number_in("/proc/self/status", "RssShmem:") - resident, 0, 1024);
    assert_int_equal(memplug_linux_backing_dup(host, backing), -ENODEV);
    memplug_linux_close(host);
    close(fd);
}

static void content_kept_or_scrubbed(void **state)
{
    struct memplug_linux *host = host_open(GIB);
    int fd = file_in("/var/tmp", BLOCK);

    (void)state;
    for (int keep = 1; keep >= 0; keep--) {
        struct memplug_backing_spec spec = {
            .kind = MEMPLUG_BACKING_FILE, .fd = fd, .keep_content = keep};
        void *backing;
        char byte = 0;

        assert_int_equal(memplug_linux_backing_open(host, &spec, &backing, NULL), 0);
        struct memplug_extent extent = extent_of(backing, 1, 0);
        assert_int_equal(attach(host, &extent), 0);
        direct(host, &extent)[BLOCK / 2] = 'x';
        detach(host, &extent);
        memplug_linux_backing_close(host, backing);
        assert_int_equal(pread(fd, &byte, 1, BLOCK / 2), 1);
        assert_int_equal(byte, keep ? 'x' : 0);
    }
    char *zeros = malloc(MIB);
    assert_int_equal(pwrite(fd, "stale", 5, 4 * MIB + 7), 5);
    assert_int_equal(mpl_fd_fill(fd, 3 * MIB, 3 * MIB + 5), 0);
    assert_int_equal(pread(fd, zeros, MIB, 4 * MIB), (long)MIB);
    for (unsigned i = 0; i < MIB; i++) {
        assert_int_equal(zeros[i], 0);
    }
    free(zeros);
    memplug_linux_close(host);
    close(fd);
}

static void truncated_later(void **state)
{
    struct memplug_linux *host = host_open(GIB);
    int fd = file_in("/dev/shm", 2 * BLOCK);
    struct memplug_extent extent = extent_of(backing_open(host, MEMPLUG_BACKING_FILE, 0, fd), 1, 0);

    (void)state;
    extent.size_bytes = 2 * BLOCK;
    assert_int_equal(attach(host, &extent), 0);
    assert_int_equal(mpl_backing_intact(host, 2 * BLOCK), 0);
    assert_int_equal(ftruncate(fd, BLOCK + 4096), 0);
    assert_int_equal(mpl_backing_intact(host, BLOCK), 0);
    assert_int_equal(mpl_backing_intact(host, 2 * BLOCK), -ENXIO);
    assert_int_equal(mpl_backing_intact(host, 3 * BLOCK), -ENODEV);
    detach(host, &extent);
    assert_int_equal(blocks_of(fd), 0);
    memplug_linux_close(host);
    close(fd);
}

static void dax_attributes(void **state)
{
    char root[] = "/dev/shm/memplug-test-XXXXXX";
    char command[1024];
    uint64_t size_bytes = 0;
    uint64_t align_bytes = 0;

    (void)state;
    assert_non_null(mkdtemp(root));
    snprintf(command, sizeof(command),
             "set -e; cd %s; mkdir -p dev/char/252:7 dev/char/252:8 bus/dax bus/tty;"
             "ln -s ../../../bus/dax dev/char/252:7/subsystem; echo 34359738368 >"
             "dev/char/252:7/size; echo 1073741824 > dev/char/252:7/align;"
             "ln -s ../../../bus/tty dev/char/252:8/subsystem; echo 1 > dev/char/252:8/size", root);
    assert_int_equal(system(command), 0);
    assert_int_equal(mpl_dax_probe(root, makedev(252, 7), &size_bytes, &align_bytes), 0);
    assert_int_equal(size_bytes, 32 * GIB);
    assert_int_equal(align_bytes, GIB);
    assert_int_equal(mpl_dax_probe(root, makedev(252, 8), &size_bytes, &align_bytes), -ENODEV);
    assert_int_equal(mpl_dax_probe(root, makedev(252, 9), &size_bytes, &align_bytes), -ENODEV);
    snprintf(command, sizeof(command), "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alias_memfd),
        cmocka_unit_test(alias_tmpfs),
        cmocka_unit_test(alias_ext4),
        cmocka_unit_test_teardown(alias_hugetlb, restore_huge),
        cmocka_unit_test_teardown(hugetlb_spent, restore_huge),
        cmocka_unit_test(same_bytes_twice),
        cmocka_unit_test(another_process),
        cmocka_unit_test(wrong_descriptors),
        cmocka_unit_test(window_and_table_full),
        cmocka_unit_test(memory_comes_back),
        cmocka_unit_test(content_kept_or_scrubbed),
        cmocka_unit_test(truncated_later),
        cmocka_unit_test(dax_attributes),
    };

    self = argv[0];
    if (argc == 3 && strcmp(argv[1], "--claim") == 0) {
        return claim(atoi(argv[2]));
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
