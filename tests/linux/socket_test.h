/* SPDX-License-Identifier: MIT */
/* What the tests of the socket share: a program with a pool, and talk with its server. */
#ifndef SOCKET_TEST_H
#define SOCKET_TEST_H

#include "host_test.h"

#include <memplug/client.h>

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

struct program {
    pid_t pid;
    FILE *in, *out;
    char directory[64], path[256];
    uint64_t first; /* block */
};

static inline uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static inline void sleep_ms(unsigned ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&pause, NULL);
}

/* A daemon of POOL_DAEMON with so many blocks, mebibytes and writers. */
static inline void program_start(struct program *program, const char *blocks, const char *mib,
                                 const char *writers)
{
    int in[2], out[2];
    char line[300];

    strcpy(program->directory, "/tmp/memplug-test-XXXXXX");
    assert_non_null(mkdtemp(program->directory));
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    program->pid = fork();
    assert_true(program->pid >= 0);
    if (program->pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execl(POOL_DAEMON, POOL_DAEMON, program->directory, blocks, mib, writers, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    program->in = fdopen(in[1], "w");
    program->out = fdopen(out[0], "r");
    assert_non_null(fgets(line, sizeof(line), program->out));
    assert_int_equal(sscanf(line, "ready %255s", program->path), 1);
}

static inline int program_say(struct program *program, const char *command)
{
    char line[64];

    fprintf(program->in, "%s\n", command);
    fflush(program->in);
    assert_non_null(fgets(line, sizeof(line), program->out));
    return atoi(line);
}

static inline void program_forget(struct program *program)
{
    fclose(program->in);
    fclose(program->out);
    unlink(program->path);
    rmdir(program->directory);
}

/* Nothing was lost, and all invariants hold. */
static inline void program_end(struct program *program)
{
    int status = -1;

    assert_int_equal(program_say(program, "end"), 0);
    assert_int_equal(waitpid(program->pid, &status, 0), program->pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_not_equal(access(program->path, F_OK), 0);
    program_forget(program);
}

static inline struct memplug_client client_of(const struct program *program)
{
    struct memplug_client client;

    assert_int_equal(memplug_client_open(&client, program->path, 20000), 0);
    return client;
}

/* On a connection of its own. Returns the result; the text is kept till the next call. */
static inline int ask_on(struct memplug_client *client, const char *path, const char *word,
                         const char **answer)
{
    static char kept[65536];
    char *text = NULL;
    int result = word == NULL ? memplug_client_get(client, path, &text)
                              : memplug_client_set(client, path, word, &text);

    snprintf(kept, sizeof(kept), "%s", text != NULL ? text : "");
    free(text);
    if (answer != NULL)
        *answer = kept;
    return result;
}

static inline const char *get(const struct program *program, const char *path)
{
    struct memplug_client client = client_of(program);
    const char *text;
    int result = ask_on(&client, path, NULL, &text);

    memplug_client_close(&client);
    if (result < 0)
        print_error("%s: %d %s\n", path, result, text);
    assert_true(result >= 0);
    return text;
}

static inline int set(const struct program *program, const char *path, const char *word)
{
    struct memplug_client client = client_of(program);
    int result = ask_on(&client, path, word, NULL);

    memplug_client_close(&client);
    return result;
}

/* "devices/system/memory/memoryN/NAME" of a program's block. */
static inline const char *of_block(const struct program *program, uint64_t block, const char *name)
{
    static char path[2][128];
    static unsigned turn;

    (void)program;
    turn = !turn;
    snprintf(path[turn], sizeof(path[turn]), "devices/system/memory/memory%llu/%s",
             (unsigned long long)block, name);
    return path[turn];
}

/* Its first block: the first that memplug/ranges names. */
static inline uint64_t first_block(const struct program *program)
{
    const char *at = strstr(get(program, "memplug/ranges"), "first ");

    assert_non_null(at);
    return strtoull(at + 6, NULL, 10);
}

static inline bool can_move(void)
{
    struct stat status;

    return geteuid() == 0 || (stat("/dev/userfaultfd", &status) == 0 &&
                              access("/dev/userfaultfd", R_OK | W_OK) == 0);
}

/* The one program that all functions of a test talk to: its name, and the group's begin and finish.
 * What program_start() takes. */
#define ONE_PROGRAM(blocks, mib, writers)                                                          \
    static struct program program;                                                                 \
                                                                                                   \
    static int begin(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        program_start(&program, blocks, mib, writers);                                             \
        program.first = first_block(&program);                                                     \
        return 0;                                                                                  \
    }                                                                                              \
                                                                                                   \
    static int finish(void **state)                                                                \
    {                                                                                              \
        (void)state;                                                                               \
        program_end(&program);                                                                     \
        return 0;                                                                                  \
    }

#endif
