/* SPDX-License-Identifier: MIT */
/*
 * Clients that do anything, at any time: requests that are right, broken or cut off, several at
 * once, answers half read, ends shut and closed in the middle of whatever is going on. What comes
 * back is well formed and belongs to what was asked; and in the end nothing is held, lost, or left
 * going. MEMPLUG_RANDOM_SECONDS, MEMPLUG_RANDOM_SEED.
 */
#include "socket_test.h"

#include <memplug/serve.h>

#include <dirent.h>
#include <fcntl.h>

#define NR_CLIENTS 24u
#define SECONDS 4u
#define LATE_MS 60000u /* on a busy machine */
#define TEXT_MAX (MEMPLUG_SERVE_PACKET_MAX + sizeof(struct memplug_serve_answer))

ONE_PROGRAM("4", "64", "1")

static uint64_t state_of_chance;

struct talker {
    int fd;
    uint32_t last_id;
    bool broken;   /* it has sent what is no request */
    bool lazy;     /* it asks and asks, and takes nothing for long */
    unsigned nr_open; /* requests without an answer yet */
    uint8_t verbs[4096]; /* of requests, by the end of their number */
    size_t length; /* of an answer that goes on */
};
static struct talker talkers[NR_CLIENTS];
static struct {
    unsigned connects, refused, requests, broken, answers, errors, pieces, ended, deepest;
} nr;

static uint32_t chance(uint32_t below)
{
    state_of_chance = state_of_chance * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state_of_chance >> 33) % below);
}

/* --- what is asked ---------------------------------------------------------------------------- */

static const char *random_path(void)
{
    static const char *const paths[] = {
        "memplug/stat", "memplug/ranges", "memplug/events", "memplug/cancel", "memplug/progress",
        "memplug/offline", "memplug/online", "memplug/movable_node", "memplug", "",
        "///", "memplug//stat/", "memplug/host/latency", "memplug/blocks", "devices/system/memory",
        "memplug/nothing", "memplug/stat/x", "devices/system/memory/uevent",
    };
    static const char *const names[] = {"state", "valid_zones", "online", "node0", "uevent"};

    if (chance(3) == 0)
        return of_block(&program, program.first + chance(5), names[chance(5)]);
    return paths[chance(sizeof(paths) / sizeof(paths[0]))];
}

static const char *random_data(void)
{
    static char text[32];
    static const char *const words[] = {"offline", "online_movable", "1", "0", "", "\n", "x",
                                        "add", "online", "12345678901234567890", "-1", "7"};

    if (chance(3) != 0)
        return words[chance(sizeof(words) / sizeof(words[0]))];
    snprintf(text, sizeof(text), "%u-%u%s", (unsigned)program.first + chance(4),
             (unsigned)program.first + chance(5), chance(2) != 0 ? " movable" : "");
    return text;
}

/* A packet that may be right, and then perhaps is not. */
static size_t make_packet(struct talker *talker, char *packet, size_t size_bytes)
{
    static const enum memplug_serve_verb usual[] = {
        MEMPLUG_SERVE_GET, MEMPLUG_SERVE_GET, MEMPLUG_SERVE_SET, MEMPLUG_SERVE_SET,
        MEMPLUG_SERVE_LIST, MEMPLUG_SERVE_GET, MEMPLUG_SERVE_OPERATIONS_GET, MEMPLUG_SERVE_WAIT};
    uint32_t verb = chance(4) != 0 ? usual[chance(8)] : chance(10);
    bool by_number = verb >= MEMPLUG_SERVE_OPERATIONS_GET && chance(10) != 0;
    bool is_read = verb != MEMPLUG_SERVE_SET && verb < MEMPLUG_SERVE_WAIT && chance(10) != 0;
    const char *path = by_number ? "" : random_path(), *data = is_read ? "" : random_data();
    struct memplug_serve_request head = {
        .magic = MEMPLUG_SERVE_MAGIC,
        .verb = (uint8_t)verb,
        .flags = (uint8_t)(chance(4) == 0 ? chance(5) : 0),
        .path_bytes = (uint16_t)strlen(path),
        .id = ++talker->last_id,
        .timeout_ms = chance(3) == 0 ? chance(300) : 0,
    };
    size_t length = sizeof(head) + strlen(path) + strlen(data);

    talker->verbs[head.id % 4096] = (uint8_t)verb;
    memset(packet, 'x', size_bytes);
    memcpy(packet, &head, sizeof(head));
    memcpy(packet + sizeof(head), path, strlen(path));
    memcpy(packet + sizeof(head) + strlen(path), data, strlen(data));
    if (talker->lazy || chance(40) != 0)
        return length;
    talker->broken = true;
    nr.broken++;
    for (unsigned i = chance(4); i > 0; i--)
        packet[chance((uint32_t)length)] ^= (char)(1u << chance(8));
    return chance(3) == 0 ? 1 + chance((uint32_t)length) : chance(3) == 0 ? size_bytes : length;
}

/* --- what comes back -------------------------------------------------------------------------- */

static void look_at_answer(struct talker *talker, const char *packet, size_t length)
{
    struct memplug_serve_answer head;

    nr.pieces++;
    assert_true(length >= sizeof(head));
    memcpy(&head, packet, sizeof(head));
    length -= sizeof(head);
    assert_int_equal(head.magic, MEMPLUG_SERVE_MAGIC);
    assert_in_range(head.kind, MEMPLUG_SERVE_ANSWER, MEMPLUG_SERVE_EVENT);
    assert_int_equal(head.zero, 0);
    assert_true((head.flags & ~MEMPLUG_SERVE_MORE) == 0);
    assert_true(length <= MEMPLUG_SERVE_PACKET_MAX);
    if (!talker->broken)
        assert_true(head.id <= talker->last_id);
    talker->length += length;
    if ((head.flags & MEMPLUG_SERVE_MORE) != 0) {
        assert_int_equal(length, MEMPLUG_SERVE_PACKET_MAX);
        return;
    }
    nr.answers += head.kind == MEMPLUG_SERVE_ANSWER;
    talker->nr_open -= head.kind == MEMPLUG_SERVE_ANSWER && talker->nr_open > 0;
    nr.errors += head.kind == MEMPLUG_SERVE_ANSWER && head.result < 0;
    assert_true(head.kind != MEMPLUG_SERVE_ANSWER || head.result > -200);
    /* An error has its words; a text is as long as it says, but what is said of a write. */
    if (head.kind == MEMPLUG_SERVE_ANSWER && head.result < 0)
        assert_true(talker->length > 0);
    else if (head.kind == MEMPLUG_SERVE_EVENT ||
             (head.kind == MEMPLUG_SERVE_ANSWER && talker->length > 0 && !talker->broken &&
              talker->verbs[head.id % 4096] <= MEMPLUG_SERVE_OPERATIONS_GET &&
              talker->verbs[head.id % 4096] != MEMPLUG_SERVE_SET))
        assert_int_equal(head.result, talker->length);
    talker->length = 0;
}

static void hang_up(struct talker *talker)
{
    close(talker->fd);
    *talker = (struct talker){.fd = -1};
}

static void listen_to(struct talker *talker)
{
    static char packet[TEXT_MAX + 1];
    ssize_t length = recv(talker->fd, packet, sizeof(packet), MSG_DONTWAIT);

    if (length > 0)
        look_at_answer(talker, packet, (size_t)length);
    else if (length == 0 || errno != EAGAIN) {
        nr.ended++;
        hang_up(talker);
    }
}

/* --- anything --------------------------------------------------------------------------------- */

static void connect_one(struct talker *talker)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    strcpy(address.sun_path, program.path);
    talker->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(talker->fd >= 0);
    if (connect(talker->fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        assert_int_equal(errno, EAGAIN); /* so many are waiting at the door */
        nr.refused++;
        hang_up(talker);
        return;
    }
    talker->lazy = chance(4) == 0;
    nr.connects++;
}

static void ask(struct talker *talker)
{
    static char packet[sizeof(struct memplug_serve_request) + 8192];

    if (talker->nr_open >= (talker->lazy ? 2000u : 4u) ||
        send(talker->fd, packet, make_packet(talker, packet, sizeof(packet)),
             MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return;
    talker->nr_open++;
    nr.requests++;
    if (talker->nr_open > nr.deepest)
        nr.deepest = talker->nr_open;
}

static void do_anything(struct talker *talker)
{
    if (talker->fd < 0) {
        connect_one(talker);
        return;
    }
    if (chance(talker->lazy ? 3000 : 150) == 0)
        hang_up(talker);
    else if (chance(1000) == 0)
        shutdown(talker->fd, chance(2) != 0 ? SHUT_WR : SHUT_RD);
    else if (chance(3) == 0)
        ask(talker);
    else if (!talker->lazy || chance(200) == 0)
        listen_to(talker);
}

static unsigned nr_in_directory(const char *name)
{
    char path[64];
    unsigned nr_entries = 0;
    DIR *directory;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)program.pid, name);
    directory = opendir(path);
    assert_non_null(directory);
    while (readdir(directory) != NULL)
        nr_entries++;
    closedir(directory);
    return nr_entries;
}

static uint64_t mapped_kib(void)
{
    char path[64], line[512];
    unsigned long long kib = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)program.pid);
    file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL)
        sscanf(line, "VmSize: %llu", &kib);
    fclose(file);
    return kib;
}

/* What was left going by itself ends; then every block can be put where it was. */
static void settle(void)
{
    struct memplug_client_request request = {.verb = MEMPLUG_SERVE_OPERATIONS_GET};
    bool going = true;

    for (unsigned tries = 0; going && tries < 200; tries++) {
        struct memplug_client client = client_of(&program);
        char *text = NULL;

        assert_true(memplug_client_call(&client, &request, &text) >= 0);
        going = strstr(text, " queued ") != NULL || strstr(text, " running ") != NULL;
        free(text);
        memplug_client_close(&client);
        sleep_ms(50);
    }
    assert_false(going);
    for (unsigned i = 0; i < 4; i++) {
        const char *path = of_block(&program, program.first + i, "state");

        if (strcmp(get(&program, path), "online\n") != 0)
            assert_int_equal(set(&program, path, "online_movable"), 14);
    }
}

static uint64_t of_environment(const char *name, uint64_t usual)
{
    const char *text = getenv(name);

    return text != NULL ? strtoull(text, NULL, 0) : usual;
}

/* All of it was done, also what has to be held for somebody who takes nothing. */
static bool is_enough(void)
{
    return nr.requests > 500 && nr.answers > 200 && nr.answers - nr.errors > 20 &&
           nr.broken > 5 && nr.ended > 5 && nr.deepest > 300;
}

static void clients_do_anything(void **state)
{
    uint64_t end_ms = now_ms() + 1000 * of_environment("MEMPLUG_RANDOM_SECONDS", SECONDS);
    uint64_t seed = of_environment("MEMPLUG_RANDOM_SEED", now_ms());
    unsigned nr_fds = nr_in_directory("fd"), nr_tasks = nr_in_directory("task");
    uint64_t kib = mapped_kib();

    (void)state;
    print_message("MEMPLUG_RANDOM_SEED=%llu\n", (unsigned long long)seed);
    state_of_chance = seed;
    for (unsigned i = 0; i < NR_CLIENTS; i++)
        talkers[i].fd = -1;
    for (unsigned step = 0; now_ms() < end_ms || (!is_enough() && now_ms() < end_ms + LATE_MS);
         step++) {
        if (step % 64 == 0)
            sleep_ms(1); /* the server's turn */
        if (step % 4096 == 0)
            assert_int_equal(program_say(&program, chance(2) != 0 ? "slow 20" : "slow 0"), 0);
        do_anything(&talkers[chance(NR_CLIENTS)]);
    }
    for (unsigned i = 0; i < NR_CLIENTS; i++)
        if (talkers[i].fd >= 0)
            hang_up(&talkers[i]);
    print_message("%u connections, %u requests, %u broken, %u answers, %u of them errors,"
                  " %u packets, %u ended by the server, %u open at once\n",
                  nr.connects, nr.requests, nr.broken, nr.answers, nr.errors, nr.pieces, nr.ended,
                  nr.deepest);
    assert_true(is_enough());
    assert_int_equal(program_say(&program, "slow 0"), 0);
    settle();
    assert_int_equal(program_say(&program, "check"), 0);
    assert_int_equal(nr_in_directory("fd"), nr_fds);
    assert_int_equal(nr_in_directory("task"), nr_tasks);
    assert_true(mapped_kib() <= kib + 1024); /* what was held for clients is given back */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clients_do_anything),
    };

    if (!can_move()) {
        puts("SKIP: no full userfaultfd: blocks with mappings cannot go");
        return 77;
    }
    return cmocka_run_group_tests(tests, begin, finish);
}
