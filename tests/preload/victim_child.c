/* SPDX-License-Identifier: MIT */
/* A program whose children share its heap, and do what their parent does not see: as victim.c. */
#define _GNU_SOURCE
#include "victim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Children that make their memory unwritable behind the library's back: they cannot be given it. */
static int test_ended(void)
{
    unsigned char *memory = NULL;
    pid_t pids[3];
    int ready[2];

    CHECK(posix_memalign((void **)&memory, PAGE, OBJECT_BYTES) == 0);
    memset(memory, 1, OBJECT_BYTES);
    CHECK(pipe(ready) == 0);
    for (unsigned i = 0; i < 3; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            CHECK(syscall(SYS_mprotect, memory, 16 * PAGE, PROT_READ) == 0);
            CHECK(write(ready[1], "x", 1) == 1);
            pause();
        }
        CHECK(pids[i] > 0 && read(ready[0], &(char){0}, 1) == 1);
    }
    memset(memory, 2, OBJECT_BYTES);
    for (unsigned i = 0; i < 3; i++) {
        int status;

        CHECK(waitpid(pids[i], &status, 0) == pids[i]);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    while (!moved_enough())
        for (size_t at = 0; at < OBJECT_BYTES; at++)
            CHECK(memory[at] == 2);
    free(memory);
    return 0;
}

/* A descriptor that has it from the beginning, or afterwards. */
static int open_direct(bool at_once)
{
    int fd = open("lent", O_RDWR | O_CREAT | O_CLOEXEC | (at_once ? O_DIRECT : 0), 0600);

    return at_once || (fd >= 0 && fcntl(fd, F_SETFL, O_DIRECT) == 0) ? fd : -1;
}

/* What is read after the call: from a pipe that a child has spliced memory to, and by a disk. */
static void child_lends(unsigned char *memory, size_t size, int pipe, int ready, bool at_once)
{
    struct iovec part = {.iov_base = memory, .iov_len = 8 * PAGE};
    int fd = open_direct(at_once);

    CHECK(vmsplice(pipe, &part, 1, 0) == (ssize_t)part.iov_len);
    CHECK(write(ready, "x", 1) == 1);
    if (fd < 0)
        _exit(77); /* no O_DIRECT here */
    for (unsigned i = 0; i < 4; i++)
        CHECK(pwrite(fd, memory, size, 0) == (ssize_t)size);
    for (size_t at = 0; at < size; at += OBJECT_BYTES) {
        unsigned char *seen = mmap(NULL, OBJECT_BYTES, PROT_READ, MAP_SHARED, fd, (off_t)at);

        CHECK(seen != MAP_FAILED);
        for (size_t i = 0; i < OBJECT_BYTES; i++)
            CHECK(seen[i] == 9);
        munmap(seen, OBJECT_BYTES);
    }
    _exit(0);
}

static int test_lends(void)
{
    const size_t size = 16 * OBJECT_BYTES;
    unsigned char *memory = NULL, seen[8 * PAGE];
    unsigned seed = 5;

    CHECK(posix_memalign((void **)&memory, PAGE, size) == 0);
    for (unsigned round = 0; round < 12 || !moved_enough(); round++) {
        int pipes[2], ready[2], status;
        pid_t pid;

        memset(memory, 9, size);
        CHECK(pipe(pipes) == 0 && pipe(ready) == 0);
        pid = fork();
        if (pid == 0)
            child_lends(memory, size, pipes[1], ready[1], round % 2 == 0);
        CHECK(pid > 0 && read(ready[0], seen, 1) == 1);
        usleep((useconds_t)(rand_r(&seed) % 6000));
        memset(memory, 0xdd, size);
        CHECK(read(pipes[0], seen, sizeof(seen)) == (ssize_t)sizeof(seen));
        for (size_t at = 0; at < sizeof(seen); at++)
            CHECK(seen[at] == 9);
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77);
        for (unsigned i = 0; i < 2; i++)
            CHECK(close(pipes[i]) == 0 && close(ready[i]) == 0);
    }
    free(memory);
    return 0;
}

/* From now on the kernel has no memory for copies. */
static void refuse_copies(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MADV_POPULATE_WRITE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = 6, .filter = filter};

    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0);
}

/* A child that is born with a descriptor of direct I/O, and no memory, ends. */
static int test_poor(void)
{
    unsigned char *memory = malloc(OBJECT_BYTES);

    CHECK(memory);
    memset(memory, 9, OBJECT_BYTES);
    while (!moved_enough())
        usleep(1000);
    for (unsigned direct = 0; direct < 2; direct++) {
        int fd = direct ? open_direct(true) : -1, status;
        pid_t pid;

        if (direct && fd < 0)
            return 77;
        pid = fork();
        if (pid == 0)
            _exit(memory[100] == 9 ? 3 : 4);
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == (direct ? 125 : 3));
        if (!direct)
            refuse_copies();
    }
    free(memory);
    return 0;
}

static void drop_trace(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    CHECK(syscall(SYS_capget, &header, data) == 0);
    data[0].effective &= ~(1u << CAP_SYS_PTRACE);
    data[0].permitted &= ~(1u << CAP_SYS_PTRACE);
    CHECK(syscall(SYS_capset, &header, data) == 0);
}

/* A child that its parent may not trace afterwards: for files it is another user. */
static int test_hides(void)
{
    unsigned char *memory = NULL;

    drop_trace();
    CHECK(posix_memalign((void **)&memory, PAGE, OBJECT_BYTES) == 0);
    for (unsigned round = 0; round < 2 || !moved_enough(); round++) {
        int ready[2], go[2], status;
        pid_t pid;

        memset(memory, 9, OBJECT_BYTES);
        CHECK(pipe(ready) == 0 && pipe(go) == 0);
        pid = fork();
        if (pid == 0) {
            if (round % 2 == 0)
                setfsuid(65534);
            else
                setfsgid(65534);
            CHECK(write(ready[1], "x", 1) == 1 && read(go[0], &(char){0}, 1) == 1);
            for (size_t at = 0; at < OBJECT_BYTES; at++)
                CHECK(memory[at] == 9);
            _exit(0);
        }
        CHECK(pid > 0 && read(ready[0], &(char){0}, 1) == 1);
        memset(memory, 0xdd, OBJECT_BYTES);
        CHECK(write(go[1], "x", 1) == 1);
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
        for (unsigned i = 0; i < 2; i++)
            CHECK(close(ready[i]) == 0 && close(go[i]) == 0);
    }
    free(memory);
    return 0;
}

static void *sleep_on(void *argument)
{
    for (;;)
        pause();
    return argument;
}

/* Its child is the first process of a new pid namespace; or, where other threads would have to be
 * held up by a process that would be that one, there is none. */
static int test_space(bool threads)
{
    pthread_t thread;
    int status;
    pid_t pid;

    CHECK(!threads || pthread_create(&thread, NULL, sleep_on, NULL) == 0);
    if (unshare(CLONE_NEWPID) != 0)
        return 77;
    errno = 0;
    pid = fork();
    if (pid == 0)
        _exit(getpid() == 1 ? 0 : 1);
    if (threads) {
        CHECK(pid == -1 && errno == EAGAIN);
    } else {
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "ended") == 0)
        return test_ended();
    if (argc == 2 && strcmp(argv[1], "lends") == 0)
        return test_lends();
    if (argc == 2 && strcmp(argv[1], "poor") == 0)
        return test_poor();
    if (argc == 2 && strcmp(argv[1], "hides") == 0)
        return test_hides();
    if (argc == 2 && strcmp(argv[1], "space") == 0)
        return test_space(false);
    if (argc == 2 && strcmp(argv[1], "space-threads") == 0)
        return test_space(true);
    return 2;
}
