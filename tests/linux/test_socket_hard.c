/* SPDX-License-Identifier: MIT */
/* The socket and those who do not play by the rules: strangers, garbage, and the program itself. */
#include "socket_test.h"

#include <dirent.h>
#include <sys/prctl.h>

ONE_PROGRAM("3", "64", "1")

static int raw_connect(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval timeout = {.tv_sec = 20};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, program.path);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) != 0 ||
        connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        int error = -errno;

        close(fd);
        return error;
    }
    return fd;
}

/* The next answer's result; 1000: the connection was closed. */
static int raw_result(int fd)
{
    char packet[sizeof(struct memplug_serve_answer) + MEMPLUG_SERVE_PACKET_MAX];
    struct memplug_serve_answer head;
    ssize_t length = recv(fd, packet, sizeof(packet), 0);

    if (length == 0 || (length < 0 && errno == ECONNRESET))
        return 1000;
    assert_true(length >= (ssize_t)sizeof(head));
    memcpy(&head, packet, sizeof(head));
    assert_int_equal(head.magic, MEMPLUG_SERVE_MAGIC);
    return head.result;
}

/* --- what is no request changes nothing ------------------------------------------------------- */

static void append(char *text, size_t size_bytes, const char *more)
{
    size_t length = strlen(text), extra = strlen(more);

    assert_true(length + extra < size_bytes);
    memcpy(text + length, more, extra + 1);
}

/* All that a request could have changed. */
static void remember(char *text, size_t size_bytes)
{
    struct memplug_client_request list = {.verb = MEMPLUG_SERVE_OPERATIONS_GET};
    struct memplug_client client = client_of(&program);
    char *operations;

    text[0] = '\0';
    append(text, size_bytes, get(&program, "memplug/events"));
    append(text, size_bytes, get(&program, "memplug/ranges"));
    append(text, size_bytes, get(&program, "memplug/movable_node"));
    assert_true(memplug_client_call(&client, &list, &operations) >= 0);
    append(text, size_bytes, operations);
    free(operations);
    memplug_client_close(&client);
}

static struct memplug_serve_request head_of(enum memplug_serve_verb verb, size_t path_bytes)
{
    return (struct memplug_serve_request){
        .magic = MEMPLUG_SERVE_MAGIC, .verb = (uint8_t)verb, .path_bytes = (uint16_t)path_bytes};
}

static size_t make(char *packet, const struct memplug_serve_request *head, const char *rest,
                   size_t length)
{
    memcpy(packet, head, sizeof(*head));
    memcpy(packet + sizeof(*head), rest, length);
    return sizeof(*head) + length;
}

static void expect(const char *packet, size_t length, int result, bool closes)
{
    int fd = raw_connect();

    assert_true(fd >= 0);
    assert_int_equal(send(fd, packet, length, MSG_NOSIGNAL), length);
    assert_int_equal(raw_result(fd), result);
    if (closes)
        assert_int_equal(raw_result(fd), 1000);
    close(fd);
}

static void packets_that_are_none(void **state)
{
    static const char path[] = "memplug/movable_node";
    const size_t path_bytes = sizeof(path) - 1;
    struct memplug_serve_request head = head_of(MEMPLUG_SERVE_SET, path_bytes);
    static char before[16384], after[16384], packet[70000];
    size_t length = make(packet, &head, "memplug/movable_node1", path_bytes + 1);

    (void)state;
    remember(before, sizeof(before));
    for (size_t half = 1; half < sizeof(head) + path_bytes; half++)
        expect(packet, half, -EPROTO, true);
    head.magic++;
    length = make(packet, &head, "memplug/movable_node1", path_bytes + 1);
    expect(packet, length, -EPROTO, true);
    head = head_of(MEMPLUG_SERVE_SET, path_bytes);
    length = make(packet, &head, "memplug\0movable_node1", path_bytes + 1);
    expect(packet, length, -EPROTO, true);
    head = head_of(MEMPLUG_SERVE_SET, 300);
    make(packet, &head, "memplug/movable_node1", path_bytes + 1);
    expect(packet, sizeof(head) + 301, -EMSGSIZE, true);
    head = head_of(MEMPLUG_SERVE_SET, path_bytes);
    make(packet, &head, "memplug/movable_node1", path_bytes + 1);
    expect(packet, sizeof(head) + path_bytes + MEMPLUG_ATTR_WRITE_MAX + 1, -EMSGSIZE, true);
    expect(packet, sizeof(packet), -EMSGSIZE, true);
    head = head_of(MEMPLUG_SERVE_SET, path_bytes);
    head.flags = 0x80;
    length = make(packet, &head, "memplug/movable_node1", path_bytes + 1);
    expect(packet, length, -EINVAL, false);
    for (unsigned verb = 0; verb < 256; verb++) {
        if (verb >= MEMPLUG_SERVE_GET && verb <= MEMPLUG_SERVE_CANCEL)
            continue;
        head = head_of((enum memplug_serve_verb)verb, path_bytes);
        length = make(packet, &head, "memplug/movable_node1", path_bytes + 1);
        expect(packet, length, -EOPNOTSUPP, false);
    }
    head = head_of(MEMPLUG_SERVE_GET, path_bytes);
    length = make(packet, &head, "memplug/movable_node1", path_bytes + 1);
    expect(packet, length, -EINVAL, false);
    remember(after, sizeof(after));
    assert_string_equal(before, after);
}

static void garbage(void **state)
{
    static char before[16384], after[16384], packet[6000];
    uint64_t seed = 20260101;

    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    remember(before, sizeof(before));
    for (unsigned i = 0; i < 2000; i++) {
        size_t length;
        int fd;

        for (size_t at = 0; at < sizeof(packet); at++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            packet[at] = (char)(seed >> 56);
        }
        /* Half of them get past the magic; such verbs as read are fine. */
        if (i % 2 == 0) {
            struct memplug_serve_request head = head_of((enum memplug_serve_verb)(i / 2 % 12), 0);

            head.path_bytes = (uint16_t)(seed >> 40);
            memcpy(packet, &head, sizeof(head));
        }
        length = (size_t)(seed >> 20) % sizeof(packet);
        fd = raw_connect();
        assert_true(fd >= 0);
        if (length > 0)
            assert_int_equal(send(fd, packet, length, MSG_NOSIGNAL), length);
        if (length > 0 && i % 3 == 0)
            raw_result(fd);
        close(fd);
    }
    remember(after, sizeof(after));
    assert_string_equal(before, after);
}

/* Descriptors that are sent along stay with nobody. */
static void descriptors_are_not_taken(void **state)
{
    struct memplug_serve_request head = head_of(MEMPLUG_SERVE_OPERATIONS_GET, 0);
    struct iovec part = {.iov_base = &head, .iov_len = sizeof(head)};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {.bytes = {0}};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *attached = CMSG_FIRSTHDR(&message);
    int fd = raw_connect(), ends[2];
    char byte;

    (void)state;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    attached->cmsg_level = SOL_SOCKET;
    attached->cmsg_type = SCM_RIGHTS;
    attached->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(attached), &ends[1], sizeof(int));
    assert_int_equal(sendmsg(fd, &message, 0), sizeof(head));
    close(ends[1]);
    assert_true(raw_result(fd) >= 0);
    assert_int_equal(read(ends[0], &byte, 1), 0); /* the last writer is gone */
    close(ends[0]);
    close(fd);
}

static void one_request_at_a_time(void **state)
{
    struct memplug_serve_request head = head_of(MEMPLUG_SERVE_WATCH, 14);
    char packet[64];
    size_t length = make(packet, &head, "memplug/events", 14);
    int fd = raw_connect();

    (void)state;
    assert_int_equal(send(fd, packet, length, 0), length);
    assert_true(raw_result(fd) >= 0);
    assert_int_equal(send(fd, packet, length, 0), length);
    assert_int_equal(raw_result(fd), -EBUSY);
    close(fd);
}

/* --- strangers -------------------------------------------------------------------------------- */

static int as_nobody(void *argument)
{
    struct memplug_serve_request head = head_of(MEMPLUG_SERVE_OPERATIONS_GET, 0);
    int fd;

    (void)argument;
    CHECK(setgid(65534) == 0 && setuid(65534) == 0);
    fd = raw_connect();
    if (fd < 0)
        return fd == -EACCES ? 10 : 1;
    CHECK(send(fd, &head, sizeof(head), MSG_NOSIGNAL) == sizeof(head) || errno == EPIPE);
    CHECK(raw_result(fd) == -EACCES);
    CHECK(raw_result(fd) == 1000);
    return 0;
}

static void another_user_is_refused(void **state)
{
    struct stat status;

    (void)state;
    if (geteuid() != 0)
        SKIP("only root can be somebody else");
    assert_int_equal(stat(program.directory, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    assert_int_equal(stat(program.path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(in_child(as_nobody, NULL), 10); /* the directory */
    assert_int_equal(chmod(program.directory, 0755), 0);
    assert_int_equal(in_child(as_nobody, NULL), 10); /* the socket's own mode */
    assert_int_equal(chmod(program.path, 0666), 0);
    assert_int_equal(in_child(as_nobody, NULL), 0); /* who it is */
    assert_int_equal(chmod(program.path, 0600), 0);
    assert_int_equal(chmod(program.directory, 0700), 0);
}

/* A connection from before the program has given up its user is none any more. */
static void rights_are_looked_at_anew(void **state)
{
    struct program other;
    struct memplug_client client;
    char tasks[64], path[600];
    unsigned nr_tasks = 0;
    struct dirent *entry;
    DIR *directory;
    int status = 0;

    (void)state;
    if (geteuid() != 0)
        SKIP("only root can be somebody else");
    program_start(&other, "2", "8", "1");
    client = client_of(&other);
    assert_true(ask_on(&client, "memplug/stat", NULL, NULL) > 0);
    assert_int_equal(program_say(&other, "uid 65534"), 0);
    snprintf(tasks, sizeof(tasks), "/proc/%d/task", (int)other.pid);
    directory = opendir(tasks);
    assert_non_null(directory);
    while ((entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s/status", tasks, entry->d_name);
        assert_int_equal(number_in(path, "Uid:"), 65534);
        nr_tasks++;
    }
    closedir(directory);
    assert_true(nr_tasks >= 5); /* main, a writer, and the server's */
    assert_true(ask_on(&client, "memplug/stat", NULL, NULL) > 0); /* root may still */
    memplug_client_close(&client);
    kill(other.pid, SIGKILL);
    waitpid(other.pid, &status, 0);
    program_forget(&other);
}

/* --- many, and slow ones ---------------------------------------------------------------------- */

static unsigned nr_descriptors(void)
{
    char path[64];
    unsigned nr = 0;
    DIR *directory;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)program.pid);
    directory = opendir(path);
    assert_non_null(directory);
    while (readdir(directory) != NULL)
        nr++;
    closedir(directory);
    return nr;
}

static long resident_kib(void)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/status", (int)program.pid);
    return number_in(path, "RssAnon:");
}

/* The program's writers have written everything once more; soon, on a busy machine. */
static bool writes_on(int nr_rounds)
{
    for (unsigned i = 0; i < 200; i++) {
        if (program_say(&program, "rounds") > nr_rounds)
            return true;
        sleep_ms(50);
    }
    return false;
}

static void a_thousand_idle_connections(void **state)
{
    unsigned before = nr_descriptors();
    long kib = resident_kib();
    int nr_rounds = program_say(&program, "rounds");
    uint64_t start_ms;
    struct memplug_client waiting = client_of(&program);
    static int fds[1000];
    unsigned nr_closed = 0;

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        fds[i] = raw_connect();
        assert_true(fds[i] >= 0);
    }
    start_ms = now_ms();
    assert_non_null(strstr(get(&program, "memplug/stat"), "nr_blocks"));
    assert_int_equal(set(&program, "memplug/movable_node", "0"), 1);
    assert_true(now_ms() - start_ms < 1000);
    assert_int_equal(nr_descriptors(), before); /* they are not the program's */
    assert_true(resident_kib() - kib < 4096);
    assert_true(writes_on(nr_rounds));
    for (unsigned i = 0; i < 1000; i++) {
        char byte;

        nr_closed += recv(fds[i], &byte, 1, MSG_DONTWAIT) == 0;
        close(fds[i]);
    }
    assert_true(nr_closed >= 1000 - MEMPLUG_SERVE_CONNECTIONS);
    assert_int_equal(ask_on(&waiting, "memplug/stat", NULL, NULL), -ECONNRESET);
    memplug_client_close(&waiting);
}

/* Sixty-four who ask for much and take nothing: others are served, and they get all in the end. */
static void clients_that_do_not_read(void **state)
{
    static const char path[] = "memplug/ranges";
    struct memplug_serve_request head = head_of(MEMPLUG_SERVE_GET, sizeof(path) - 1);
    char packet[64];
    size_t length = make(packet, &head, path, sizeof(path) - 1);
    int fds[MEMPLUG_SERVE_CONNECTIONS / 2];
    unsigned nr_asked = 0, nr_answers = 0;

    (void)state;
    for (unsigned i = 0; i < MEMPLUG_SERVE_CONNECTIONS / 2; i++)
        assert_true((fds[i] = raw_connect()) >= 0);
    for (unsigned round = 0; round < 4000; round++)
        if (send(fds[0], packet, length, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
            nr_asked++;
        else
            sleep_ms(round < 3900 ? 0 : 1);
    assert_true(nr_asked > 10);
    assert_non_null(strstr(get(&program, "memplug/stat"), "nr_blocks"));
    while (nr_answers < nr_asked) {
        assert_true(raw_result(fds[0]) > 0);
        nr_answers++;
    }
    for (unsigned i = 0; i < MEMPLUG_SERVE_CONNECTIONS / 2; i++)
        close(fds[i]);
}

/* --- the program itself ----------------------------------------------------------------------- */

static void answers_behind_the_fence(void **state)
{
    int nr_rounds;

    (void)state;
    if (program_say(&program, "fence") != 0)
        SKIP("no fence");
    sleep_ms(20);
    nr_rounds = program_say(&program, "rounds");
    for (unsigned i = 0; i < 20; i++) {
        assert_non_null(strstr(get(&program, "memplug/stat"), "nr_blocks"));
        assert_int_equal(set(&program, "memplug/movable_node", "0"), 1);
    }
    assert_int_equal(program_say(&program, "rounds"), nr_rounds); /* it did hold them up */
    program_say(&program, "lower");
    assert_true(writes_on(nr_rounds));
}

/* It closes every descriptor that it can count to: the server goes on, and says of the memory that
 * it cannot be moved any more. */
static void all_descriptors_closed(void **state)
{
    struct program other;
    struct memplug_client client;
    char path[64];
    int status = 0;

    (void)state;
    program_start(&other, "2", "8", "1");
    other.first = first_block(&other);
    client = client_of(&other);
    assert_int_equal(program_say(&other, "close"), 0);
    assert_true(ask_on(&client, "memplug/stat", NULL, NULL) > 0);
    snprintf(path, sizeof(path), "memplug/blocks/%llu/why", (unsigned long long)other.first);
    assert_non_null(strstr(get(&other, path), "closed a descriptor"));
    assert_int_equal(set(&other, of_block(&other, other.first, "state"), "offline"), -EBUSY);
    memplug_client_close(&client);
    kill(other.pid, SIGKILL);
    waitpid(other.pid, &status, 0);
    program_forget(&other);
}

/* A child keeps nothing of the server: when the parent dies, nobody listens there. */
static void children_do_not_listen(void **state)
{
    struct program other;
    struct memplug_client client;
    int child, status = 0;

    (void)state;
    program_start(&other, "2", "8", "0");
    child = program_say(&other, "fork");
    assert_true(child > 0);
    assert_true(get(&other, "memplug/stat") != NULL);
    kill(other.pid, SIGKILL);
    waitpid(other.pid, &status, 0);
    assert_int_equal(kill(child, 0), 0);
    assert_int_equal(memplug_client_open(&client, other.path, 0), -ECONNREFUSED);
    kill(child, SIGKILL);
    program_forget(&other);
}

/* What a cleaner of /tmp has removed comes back. */
static void a_removed_socket_comes_back(void **state)
{
    struct memplug_client client;
    uint64_t start_ms = now_ms();
    int error;

    (void)state;
    assert_int_equal(unlink(program.path), 0);
    do {
        sleep_ms(200);
        error = memplug_client_open(&client, program.path, 1000);
    } while (error != 0 && now_ms() - start_ms < 25000);
    assert_int_equal(error, 0);
    assert_true(ask_on(&client, "memplug/stat", NULL, NULL) > 0);
    memplug_client_close(&client);
}

/* A server is stopped while it is asked without pause, and in the middle of a write: that is
 * cancelled, and it stops at once; and it can be started again. */
static void it_stops_in_the_middle(void **state)
{
    pid_t child;

    (void)state;
    if (!can_move())
        SKIP("blocks with mappings cannot go");
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        for (;;) {
            struct memplug_client client;

            if (memplug_client_open(&client, program.path, 1000) != 0)
                continue;
            while (ask_on(&client, "memplug/ranges", NULL, NULL) > 0)
                ;
            memplug_client_close(&client);
        }
    }
    program_say(&program, "slow 300");
    for (unsigned i = 0; i < 30; i++) {
        struct memplug_client client = client_of(&program);
        struct memplug_serve_request head;
        char packet[128], path[64];
        int ms;

        snprintf(path, sizeof(path), "%s", of_block(&program, program.first, "state"));
        head = head_of(MEMPLUG_SERVE_SET, strlen(path));
        strcat(path, "offline");
        if (i % 3 == 0)
            assert_true(send(client.fd, packet, make(packet, &head, path, strlen(path)), 0) > 0);
        sleep_ms(i % 7);
        ms = program_say(&program, "again");
        assert_true(ms >= 0 && ms < 9000); /* else it waits for the door's next look */
        memplug_client_close(&client);
    }
    program_say(&program, "slow 0");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_string_equal(get(&program, of_block(&program, program.first, "state")), "online\n");
}

/* Signals to the process never land on the server's threads. */
static void threads_block_signals(void **state)
{
    char tasks[64], path[600];
    struct dirent *entry;
    unsigned nr = 0;
    DIR *directory;

    (void)state;
    snprintf(tasks, sizeof(tasks), "/proc/%d/task", (int)program.pid);
    directory = opendir(tasks);
    assert_non_null(directory);
    while ((entry = readdir(directory)) != NULL) {
        char line[256], name[32] = "";
        unsigned long long blocked = 0;
        FILE *file;

        snprintf(path, sizeof(path), "%s/%s/status", tasks, entry->d_name);
        file = fopen(path, "r");
        while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
            sscanf(line, "Name: %31s", name);
            sscanf(line, "SigBlk: %llx", &blocked);
        }
        if (file != NULL)
            fclose(file);
        if (strncmp(name, "memplug-", 8) != 0)
            continue;
        nr++;
        /* KILL and STOP cannot be; 32 and 33 are the C library's. */
        assert_true((blocked | 1ull << 8 | 1ull << 18 | 3ull << 31) == ~0ull);
    }
    closedir(directory);
    assert_int_equal(nr, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packets_that_are_none),
        cmocka_unit_test(garbage),
        cmocka_unit_test(descriptors_are_not_taken),
        cmocka_unit_test(one_request_at_a_time),
        cmocka_unit_test(another_user_is_refused),
        cmocka_unit_test(rights_are_looked_at_anew),
        cmocka_unit_test(a_thousand_idle_connections),
        cmocka_unit_test(clients_that_do_not_read),
        cmocka_unit_test(answers_behind_the_fence),
        cmocka_unit_test(all_descriptors_closed),
        cmocka_unit_test(children_do_not_listen),
        cmocka_unit_test(a_removed_socket_comes_back),
        cmocka_unit_test(threads_block_signals),
        cmocka_unit_test(it_stops_in_the_middle),
    };

    return cmocka_run_group_tests(tests, begin, finish);
}
