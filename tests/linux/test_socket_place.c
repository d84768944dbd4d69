/* SPDX-License-Identifier: MIT */
/* Where the socket may be and where not; start and stop; and what clients believe. */
#include "socket_test.h"
#include "space_test.h"

#include <memplug/serve.h>

#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static struct machine machine;
static struct memplug_attr attr;
static char base[] = "/tmp/memplug-test-XXXXXX";

static int begin(void **state)
{
    struct memplug_config config = {0};
    struct memplug_attr_config attr_config = {.pool_config = &config};

    (void)state;
    assert_non_null(mkdtemp(base));
    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 1, -1, NULL), 0);
    config.host = memplug_linux_host(machine.host);
    attr_config.pool = machine.pool;
    return memplug_attr_init(&attr, &attr_config);
}

static int finish(void **state)
{
    (void)state;
    assert_int_equal(memplug_attr_fini(&attr), 0);
    assert_int_equal(machine_close(&machine), 0);
    return rmdir(base);
}

static int start(const char *directory, struct memplug_server **server)
{
    struct memplug_serve_config config = {.attr = &attr, .directory = directory};
    struct memplug_reason reason = {.why = NULL};
    int error = memplug_serve_start(&config, server, &reason);

    assert_int_equal(reason.error, error);
    assert_true(error == 0 || reason.why != NULL);
    return error;
}

static bool answers(struct memplug_server *server)
{
    char path[256];
    struct memplug_client client;
    bool well;

    memplug_serve_path(server, path, sizeof(path));
    if (memplug_client_open(&client, path, 5000) != 0)
        return false;
    well = ask_on(&client, "memplug/stat", NULL, NULL) > 0;
    memplug_client_close(&client);
    return well;
}

static void directories_that_are_not_safe(void **state)
{
    struct memplug_server *server;
    char path[200], longer[300];

    (void)state;
    snprintf(path, sizeof(path), "%s/a", base);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(start(path, &server), -EACCES);
    assert_int_equal(chmod(path, 0710), 0);
    assert_int_equal(start(path, &server), -EACCES);
    assert_int_equal(chmod(path, 0700), 0);
    assert_int_equal(start(path, &server), 0);
    memplug_serve_stop(server);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 65534, 65534), 0);
        assert_int_equal(start(path, &server), -EACCES);
        assert_int_equal(chown(path, 0, 0), 0);
    }
    snprintf(longer, sizeof(longer), "%s/b", base);
    assert_int_equal(symlink(path, longer), 0);
    assert_true(start(longer, &server) != 0);
    assert_int_equal(unlink(longer), 0);
    assert_int_equal(rmdir(path), 0);
    snprintf(longer, sizeof(longer), "%s/no/such", base);
    assert_int_equal(start(longer, &server), -ENOENT);
    memset(longer, 'x', sizeof(longer));
    longer[0] = '/';
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(start(longer, &server), -ENAMETOOLONG);
}

/* sudo keeps the runtime directory of somebody else. */
static void whose_runtime_directory(void **state)
{
    struct memplug_server *server;
    char path[256], own[64];

    (void)state;
    snprintf(own, sizeof(own), "/tmp/memplug-%u/", (unsigned)geteuid());
    setenv("XDG_RUNTIME_DIR", base, 1);
    assert_int_equal(start(NULL, &server), 0);
    memplug_serve_path(server, path, sizeof(path));
    assert_memory_equal(path, base, strlen(base));
    assert_true(answers(server));
    memplug_serve_stop(server);
    snprintf(path, sizeof(path), "%s/memplug", base);
    assert_int_equal(rmdir(path), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(base, 65534, 65534), 0);
        assert_int_equal(start(NULL, &server), 0);
        memplug_serve_path(server, path, sizeof(path));
        assert_memory_equal(path, own, strlen(own));
        memplug_serve_stop(server);
        assert_int_equal(chown(base, 0, 0), 0);
    }
    unsetenv("XDG_RUNTIME_DIR");
}

/* A file of a process that died goes; a server of the same number, in another pid namespace or this
 * one, stays. */
static void names_that_are_taken(void **state)
{
    struct memplug_server *first, *second;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    char paths[2][256];

    (void)state;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/%d", base, (int)getpid());
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    assert_int_equal(start(base, &first), 0);
    assert_int_equal(start(base, &second), 0);
    memplug_serve_path(first, paths[0], sizeof(paths[0]));
    memplug_serve_path(second, paths[1], sizeof(paths[1]));
    assert_string_equal(paths[0], address.sun_path);
    assert_string_not_equal(paths[0], paths[1]);
    assert_true(answers(first) && answers(second));
    memplug_serve_stop(first);
    assert_int_not_equal(access(paths[0], F_OK), 0);
    assert_true(answers(second));
    memplug_serve_stop(second);
    assert_int_not_equal(access(paths[1], F_OK), 0);
}

static unsigned nr_in(const char *path)
{
    DIR *directory = opendir(path);
    unsigned nr = 0;

    assert_non_null(directory);
    while (readdir(directory) != NULL)
        nr++;
    closedir(directory);
    return nr;
}

static long resident_maps(void)
{
    char line[512];
    FILE *file = fopen("/proc/self/maps", "r");
    long nr = 0;

    while (fgets(line, sizeof(line), file) != NULL)
        nr++;
    fclose(file);
    return nr;
}

static void nothing_is_left_behind(void **state)
{
    unsigned nr_fds = 0, nr_threads = 0;
    long nr_maps = 0;

    (void)state;
    for (unsigned i = 0; i < 40; i++) {
        struct memplug_server *server;

        if (i == 10) {
            nr_fds = nr_in("/proc/self/fd");
            nr_threads = nr_in("/proc/self/task");
            nr_maps = resident_maps();
        }
        assert_int_equal(start(base, &server), 0);
        assert_true(i % 2 == 0 || answers(server));
        memplug_serve_stop(server);
    }
    assert_int_equal(nr_in("/proc/self/fd"), nr_fds);
    assert_int_equal(nr_in("/proc/self/task"), nr_threads);
    assert_true(resident_maps() <= nr_maps + 2);
}

/* As where a container's seccomp profile knows no close_range(): refused, said, and undone. */
static int without_close_range(void *argument)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close_range, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = 4, .filter = filter};
    struct memplug_serve_config config = {.attr = &attr, .directory = base};
    struct memplug_server *server;
    struct memplug_reason reason;

    (void)argument;
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    CHECK(memplug_serve_start(&config, &server, &reason) == -EPERM);
    CHECK(strstr(reason.why, "close_range") != NULL);
    CHECK(nr_in("/proc/self/task") == 3);
    return 0;
}

static void no_table_of_its_own(void **state)
{
    (void)state;
    assert_int_equal(in_child(without_close_range, NULL), 0);
}

/* The program may have few descriptors: the server's are counted by the same limit. */
static void few_descriptors(void **state)
{
    struct rlimit few;
    struct memplug_client clients[40];
    struct program program;
    struct rlimit before;

    (void)state;
    program_start(&program, "2", "8", "0");
    assert_int_equal(prlimit(program.pid, RLIMIT_NOFILE, NULL, &before), 0);
    few = before;
    few.rlim_cur = 16;
    assert_int_equal(prlimit(program.pid, RLIMIT_NOFILE, &few, NULL), 0);
    for (unsigned i = 0; i < 40; i++)
        clients[i] = client_of(&program);
    assert_non_null(strstr(get(&program, "memplug/stat"), "nr_blocks"));
    for (unsigned i = 0; i < 40; i++)
        memplug_client_close(&clients[i]);
    assert_int_equal(prlimit(program.pid, RLIMIT_NOFILE, &before, NULL), 0);
    program_end(&program);
}

/* --- what clients believe --------------------------------------------------------------------- */

static int count_found(void *context, const char *path)
{
    (void)path;
    ++*(unsigned *)context;
    return 0;
}

static unsigned nr_found(const char *directory)
{
    unsigned nr = 0;

    assert_int_equal(memplug_client_find(directory, count_found, &nr), 0);
    return nr;
}

static void clients_pass_over_what_is_not_safe(void **state)
{
    struct memplug_server *server;
    struct memplug_client client;
    char path[256];

    (void)state;
    assert_int_equal(start(base, &server), 0);
    memplug_serve_path(server, path, sizeof(path));
    assert_int_equal(nr_found(base), 1);
    assert_int_equal(chmod(base, 0755), 0);
    assert_int_equal(nr_found(base), 0);
    assert_int_equal(chmod(base, 0700), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(base, 65534, 65534), 0);
        assert_int_equal(nr_found(base), 0);
        assert_int_equal(chown(base, 0, 0), 0);
    }
    memplug_serve_stop(server);
    assert_int_equal(nr_found(base), 0);
    assert_int_equal(memplug_client_open(&client, path, 0), -ENOENT);
}

/* Ends with the result it is given; what was not understood is not taken for an answer. */
static void clients_do_not_believe_everything(void **state)
{
    static const struct {
        struct memplug_serve_answer head;
        size_t length;
        int result;
    } said[] = {
        {{.magic = MEMPLUG_SERVE_MAGIC, .kind = MEMPLUG_SERVE_ANSWER, .id = 1, .result = 7}, 16, 7},
        {{.magic = MEMPLUG_SERVE_MAGIC, .kind = MEMPLUG_SERVE_ANSWER, .id = 1, .result = -5}, 16,
         -5},
        {{.magic = 1, .kind = MEMPLUG_SERVE_ANSWER, .id = 1}, 16, -EPROTO},
        {{.magic = MEMPLUG_SERVE_MAGIC, .kind = MEMPLUG_SERVE_ANSWER, .id = 1}, 15, -EPROTO},
        {{.magic = 0}, 0, -ECONNRESET},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
        struct memplug_client client = {.fd = -1};
        int ends[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
        client.fd = ends[0];
        if (said[i].length > 0)
            assert_int_equal(send(ends[1], &said[i].head, said[i].length, 0), said[i].length);
        else
            shutdown(ends[1], SHUT_WR);
        assert_int_equal(memplug_client_get(&client, "x", NULL), said[i].result);
        memplug_client_close(&client);
        close(ends[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directories_that_are_not_safe),
        cmocka_unit_test(whose_runtime_directory),
        cmocka_unit_test(names_that_are_taken),
        cmocka_unit_test(nothing_is_left_behind),
        cmocka_unit_test(no_table_of_its_own),
        cmocka_unit_test(few_descriptors),
        cmocka_unit_test(clients_pass_over_what_is_not_safe),
        cmocka_unit_test(clients_do_not_believe_everything),
    };

    return cmocka_run_group_tests(tests, begin, finish);
}
