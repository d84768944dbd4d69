/* SPDX-License-Identifier: MIT */
/* Processes that are not made by fork. */
#define _GNU_SOURCE
#include "victim.h"

#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* The C library still lists the threads of the process that it was cloned from. */
static int fork_in_clone(void)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(objects[0][100] == 99 ? 4 : 3);
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A process that is made by clone, in its ways, has a heap of its own. */
static int cloned_main(void *argument)
{
    for (unsigned i = 0; i < NR_OBJECTS; i++) {
        objects[i] = realloc(objects[i], 3 * OBJECT_BYTES);
        CHECK(objects[i]);
        memset(objects[i] + 2 * OBJECT_BYTES, 7, OBJECT_BYTES);
    }
    check_objects();
    memset(objects[0], 99, OBJECT_BYTES);
    CHECK(fork_in_clone() == 4);
    return argument == objects ? 5 : 6;
}

#define NR_WAYS 4u

static pid_t make_clone(unsigned way, char *stack)
{
    struct clone_args arguments = {.exit_signal = SIGCHLD};
    pid_t pid = -1;

    switch (way) {
    case 0:
        return clone(cloned_main, stack + OBJECT_BYTES, SIGCHLD, objects);
    case 1:
        pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
        break;
    case 2:
        pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));
        break;
    default:
        pid = _Fork();
    }
    if (pid == 0)
        syscall(SYS_exit, cloned_main(objects));
    return pid;
}

/* One that shares its descriptors has none: it would close its parent's. */
static void clone_with_files(void)
{
    int status;
    pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0);

    CHECK(pid >= 0);
    if (pid == 0)
        syscall(SYS_exit, objects[0][100] == 1 ? 0 : 3);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

int test_clone(void)
{
    int status;
    char *stack;
    unsigned way = 0;

    make_objects();
    stack = malloc(OBJECT_BYTES);
    CHECK(stack);
    clone_with_files();
    do {
        pid_t pid = make_clone(way++ % NR_WAYS, stack);

        CHECK(pid > 0);
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
        check_objects();
    } while (way < 2 * NR_WAYS || !moved_enough());
    free(stack);
    return 0;
}
