/* SPDX-License-Identifier: MIT */
/* The socket as a way to the tree: what is asked is answered, and long writes can be followed. */
#include "socket_test.h"

ONE_PROGRAM("4", "128", "1")

/* --- what is asked is answered ---------------------------------------------------------------- */

static void answers_are_the_trees(void **state)
{
    struct memplug_client client = client_of(&program);
    const char *answer;
    char *text;

    (void)state;
    assert_int_equal(client.pid, program.pid);
    assert_int_equal(client.uid, geteuid());
    assert_int_equal(ask_on(&client, "devices/system/memory/block_size_bytes", NULL, &answer), 8);
    assert_string_equal(answer, "8000000\n");
    assert_int_equal(ask_on(&client, "//devices/system///memory/block_size_bytes", NULL, NULL), 8);
    assert_int_equal(ask_on(&client, of_block(&program, program.first, "state"), NULL, &answer), 7);
    assert_string_equal(answer, "online\n");
    assert_int_equal(memplug_client_list(&client, "memplug", &text) > 0, 1);
    assert_non_null(strstr(text, "d 0755 blocks\n"));
    assert_non_null(strstr(text, "f 0200 cancel\n"));
    assert_non_null(strstr(text, "f 0444 stat\n"));
    free(text);
    memplug_client_close(&client);
}

static void links_are_shown_and_followed(void **state)
{
    struct memplug_client_request link = {.verb = MEMPLUG_SERVE_LINK,
                                          .path = of_block(&program, program.first, "node0")};
    struct memplug_client client = client_of(&program);
    char *text;

    (void)state;
    assert_int_equal(memplug_client_call(&client, &link, &text), 16);
    assert_string_equal(text, "../../node/node0");
    free(text);
    assert_true(ask_on(&client, of_block(&program, program.first, "node0/meminfo"), NULL, NULL) >
                0);
    memplug_client_close(&client);
}

/* What it says then; what only can be written, says nothing. */
static void a_write_is_read_again(void **state)
{
    struct memplug_client client = client_of(&program);
    const char *answer;

    (void)state;
    assert_int_equal(ask_on(&client, "memplug/movable_node", "1", &answer), 1);
    assert_string_equal(answer, "Y\n");
    assert_int_equal(ask_on(&client, "memplug/movable_node", "0", &answer), 1);
    assert_string_equal(answer, "N\n");
    assert_int_equal(ask_on(&client, "devices/system/memory/uevent", "change", &answer), 6);
    assert_string_equal(answer, "");
    memplug_client_close(&client);
}

static void errors_come_with_reasons(void **state)
{
    struct memplug_client client = client_of(&program);
    const char *answer;

    (void)state;
    assert_int_equal(ask_on(&client, "memplug/nothing", NULL, &answer), -ENOENT);
    assert_non_null(strstr(answer, "there is no such file"));
    assert_int_equal(ask_on(&client, "memplug", NULL, NULL), -EISDIR);
    assert_int_equal(ask_on(&client, "memplug/cancel", NULL, NULL), -EACCES);
    assert_int_equal(ask_on(&client, "memplug/stat", "1", NULL), -EACCES);
    assert_int_equal(ask_on(&client, "memplug/stat/more", "1", NULL), -ENOTDIR);
    assert_int_equal(ask_on(&client, "memplug/cancel", "1", &answer), -ESRCH);
    assert_non_null(strstr(answer, "no write is running"));
    assert_int_equal(ask_on(&client, of_block(&program, program.first, "state"), "sideways",
                            &answer), -EINVAL);
    memplug_client_close(&client);
}

static void blocks_go_and_come(void **state)
{
    const char *path = of_block(&program, program.first + 3, "state");

    (void)state;
    assert_int_equal(set(&program, path, "offline"), 7);
    assert_string_equal(get(&program, path), "offline\n");
    assert_int_equal(set(&program, path, "offline"), -EINVAL);
    assert_int_equal(set(&program, path, "online_movable"), 14);
    assert_string_equal(get(&program, path), "online\n");
}

/* A quick write is answered at once and not at some tick. */
static void quick_writes_are_quick(void **state)
{
    struct memplug_client client = client_of(&program);
    uint64_t start_ms = now_ms();

    (void)state;
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(ask_on(&client, "memplug/movable_node", i % 2 ? "0" : "1", NULL), 1);
    assert_true(now_ms() - start_ms < 2000);
    memplug_client_close(&client);
}

/* --- long writes ------------------------------------------------------------------------------ */

struct heard {
    unsigned nr_started, nr_news, nr_events, enough;
    int number;
    char last[4096];
};

static int hear(void *context, enum memplug_serve_kind kind, int result, const char *text)
{
    struct heard *heard = context;

    if (kind == MEMPLUG_SERVE_STARTED) {
        heard->nr_started++;
        heard->number = result;
    } else if (kind == MEMPLUG_SERVE_NEWS) {
        heard->nr_news++;
    } else {
        heard->nr_events++;
    }
    snprintf(heard->last, sizeof(heard->last), "%s", text);
    return heard->enough != 0 && heard->nr_started + heard->nr_news + heard->nr_events >=
                                     heard->enough;
}

static struct memplug_client_request offline_request(uint64_t block, unsigned flags,
                                                     struct heard *heard)
{
    return (struct memplug_client_request){
        .verb = MEMPLUG_SERVE_SET,
        .flags = flags,
        .path = of_block(&program, block, "state"),
        .data = "offline",
        .length = 7,
        .hear = hear,
        .context = heard,
    };
}

static struct memplug_client_request by_number(enum memplug_serve_verb verb, int number)
{
    static char digits[16];

    snprintf(digits, sizeof(digits), "%d", number);
    return (struct memplug_client_request){.verb = verb, .data = digits, .length = strlen(digits)};
}

static void progress_is_told(void **state)
{
    struct heard heard = {0};
    struct memplug_client_request request = offline_request(program.first + 3,
                                                            MEMPLUG_SERVE_PROGRESS, &heard);
    struct memplug_client client = client_of(&program);

    (void)state;
    program_say(&program, "slow 400");
    assert_int_equal(memplug_client_call(&client, &request, NULL), 7);
    program_say(&program, "slow 0");
    assert_int_equal(heard.nr_started, 1);
    assert_true(heard.number > 0);
    assert_true(heard.nr_news > 0);
    assert_int_equal(strncmp(heard.last, "offline ", 8), 0);
    memplug_client_close(&client);
    assert_int_equal(set(&program, request.path, "online_movable"), 14);
}

/* A client that hangs up after STARTED. Returns the operation's number. */
static int start_and_go(uint64_t block, unsigned flags)
{
    struct heard heard = {.enough = 1};
    struct memplug_client_request request = offline_request(block, flags | MEMPLUG_SERVE_PROGRESS,
                                                            &heard);
    struct memplug_client client = client_of(&program);

    assert_int_equal(memplug_client_call(&client, &request, NULL), 1);
    memplug_client_close(&client);
    return heard.number;
}

static int wait_for(int number)
{
    struct memplug_client_request request = by_number(MEMPLUG_SERVE_WAIT, number);
    struct memplug_client client = client_of(&program);
    int result = memplug_client_call(&client, &request, NULL);

    memplug_client_close(&client);
    return result;
}

static void a_client_that_dies_cancels(void **state)
{
    (void)state;
    program_say(&program, "slow 300");
    assert_int_equal(wait_for(start_and_go(program.first + 3, 0)), -EINTR);
    program_say(&program, "slow 0");
    assert_string_equal(get(&program, of_block(&program, program.first + 3, "state")), "online\n");
}

static void a_detached_write_goes_on(void **state)
{
    const char *path = of_block(&program, program.first + 3, "state");

    (void)state;
    program_say(&program, "slow 300");
    assert_int_equal(wait_for(start_and_go(program.first + 3, MEMPLUG_SERVE_DETACHED)), 7);
    program_say(&program, "slow 0");
    assert_string_equal(get(&program, path), "offline\n");
    assert_int_equal(set(&program, path, "online_movable"), 14);
}

static void operations_are_listed_and_cancelled(void **state)
{
    struct memplug_client_request list = {.verb = MEMPLUG_SERVE_OPERATIONS_GET};
    struct memplug_client client = client_of(&program);
    struct memplug_client_request cancel;
    char running[64], queued[64], *text;
    int first, second;

    (void)state;
    program_say(&program, "slow 500");
    first = start_and_go(program.first + 3, MEMPLUG_SERVE_DETACHED);
    second = start_and_go(program.first + 2, MEMPLUG_SERVE_DETACHED);
    assert_int_equal(second, first + 1);
    sleep_ms(50);
    assert_true(memplug_client_call(&client, &list, &text) > 0);
    snprintf(running, sizeof(running), "%d running devices/", first);
    snprintf(queued, sizeof(queued), "%d queued devices/", second);
    assert_non_null(strstr(text, running));
    assert_non_null(strstr(text, queued));
    free(text);
    cancel = by_number(MEMPLUG_SERVE_CANCEL, second);
    assert_int_equal(memplug_client_call(&client, &cancel, NULL), 0);
    cancel = by_number(MEMPLUG_SERVE_CANCEL, first);
    assert_int_equal(memplug_client_call(&client, &cancel, NULL), 0);
    assert_int_equal(wait_for(first), -EINTR);
    assert_int_equal(wait_for(second), -EINTR);
    assert_int_equal(memplug_client_call(&client, &cancel, NULL), -ESRCH);
    assert_int_equal(wait_for(9999), -ESRCH);
    program_say(&program, "slow 0");
    memplug_client_close(&client);
    for (unsigned i = 2; i < 4; i++)
        assert_string_equal(get(&program, of_block(&program, program.first + i, "state")),
                            "online\n");
}

static void the_tree_cancels_past_the_queue(void **state)
{
    int number;

    (void)state;
    program_say(&program, "slow 500");
    number = start_and_go(program.first + 3, MEMPLUG_SERVE_DETACHED);
    sleep_ms(50);
    assert_int_equal(set(&program, "memplug/cancel", "1"), 1);
    assert_int_equal(wait_for(number), -EINTR);
    program_say(&program, "slow 0");
}

/* Reads do not wait for it, the queue has an end, and a turn that comes too late is no turn. */
static void reads_pass_a_long_write(void **state)
{
    int numbers[MEMPLUG_SERVE_OPERATIONS];
    struct memplug_client_request late = {
        .verb = MEMPLUG_SERVE_SET, .timeout_ms = 100, .path = "memplug/movable_node", .data = "0",
        .length = 1};
    struct memplug_client client = client_of(&program);
    uint64_t start_ms;

    (void)state;
    program_say(&program, "slow 700");
    start_ms = now_ms();
    numbers[0] = start_and_go(program.first + 3, MEMPLUG_SERVE_DETACHED);
    sleep_ms(20);
    assert_string_equal(get(&program, of_block(&program, program.first + 3, "state")),
                        "going-offline\n");
    assert_non_null(strstr(get(&program, "memplug/progress"), "memory"));
    assert_true(now_ms() - start_ms < 500);
    for (unsigned i = 1; i < MEMPLUG_SERVE_OPERATIONS - 1; i++)
        numbers[i] = start_and_go(program.first + 2, 0);
    assert_int_equal(memplug_client_call(&client, &late, NULL), -ETIMEDOUT);
    assert_int_equal(wait_for(numbers[0]), 7);
    program_say(&program, "slow 0");
    memplug_client_close(&client);
    assert_int_equal(set(&program, of_block(&program, program.first + 3, "state"),
                         "online_movable"), 14);
}

static void the_queue_has_an_end(void **state)
{
    struct heard heard = {.enough = 1};
    struct memplug_client clients[MEMPLUG_SERVE_OPERATIONS + 1];
    struct memplug_client_request request = offline_request(
        program.first + 3, MEMPLUG_SERVE_PROGRESS, &heard);

    (void)state;
    program_say(&program, "slow 500");
    for (unsigned i = 0; i < MEMPLUG_SERVE_OPERATIONS; i++) {
        clients[i] = client_of(&program);
        heard.nr_started = 0;
        assert_int_equal(memplug_client_call(&clients[i], &request, NULL), 1);
    }
    clients[MEMPLUG_SERVE_OPERATIONS] = client_of(&program);
    assert_int_equal(memplug_client_call(&clients[MEMPLUG_SERVE_OPERATIONS], &request, NULL),
                     -EAGAIN);
    for (unsigned i = 0; i <= MEMPLUG_SERVE_OPERATIONS; i++)
        memplug_client_close(&clients[i]);
    program_say(&program, "slow 0");
    assert_int_equal(set(&program, "memplug/movable_node", "0"), 1);
    assert_string_equal(get(&program, of_block(&program, program.first + 3, "state")), "online\n");
}

/* What hangs in the tree does not hang the server: it says so, can be asked how operations stand,
 * and serves again when that has ended. */
static void a_late_read_is_given_up(void **state)
{
    struct memplug_client_request list = {.verb = MEMPLUG_SERVE_OPERATIONS_GET};
    struct memplug_client client = client_of(&program), other = client_of(&program);
    uint64_t start_ms = now_ms();
    const char *answer;
    char *text;

    (void)state;
    assert_int_equal(ask_on(&client, "memplug/host/late", NULL, &answer), -ETIMEDOUT);
    assert_non_null(strstr(answer, "does not answer"));
    assert_true(now_ms() - start_ms < 3900);
    assert_int_equal(ask_on(&other, "memplug/stat", NULL, NULL), -ETIMEDOUT);
    assert_int_equal(ask_on(&other, "memplug/movable_node", "0", NULL), -ETIMEDOUT);
    assert_true(memplug_client_call(&other, &list, &text) > 0);
    free(text);
    assert_int_equal(ask_on(&other, "memplug/cancel", "1", NULL), -ESRCH);
    while (now_ms() - start_ms < 5000)
        sleep_ms(50);
    assert_true(ask_on(&other, "memplug/stat", NULL, NULL) > 0);
    assert_true(ask_on(&client, "memplug/stat", NULL, NULL) > 0);
    memplug_client_close(&client);
    memplug_client_close(&other);
}

/* --- watching --------------------------------------------------------------------------------- */

static void a_watch_tells_what_changes(void **state)
{
    struct heard heard = {.enough = 2};
    struct memplug_client_request request = {.verb = MEMPLUG_SERVE_WATCH,
                                             .path = "memplug/events",
                                             .hear = hear,
                                             .context = &heard};
    pid_t child = fork();
    int status = -1;

    (void)state;
    assert_true(child >= 0);
    if (child == 0) {
        struct memplug_client client;

        alarm(20);
        if (memplug_client_open(&client, program.path, 0) != 0 ||
            memplug_client_call(&client, &request, NULL) != 1)
            _exit(1);
        _exit(strstr(heard.last, "offline memory") != NULL ? 0 : 2);
    }
    sleep_ms(300);
    assert_int_equal(set(&program, of_block(&program, program.first + 3, "state"), "offline"), 7);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(set(&program, of_block(&program, program.first + 3, "state"),
                         "online_movable"), 14);
}

/* However much the others ask, it is looked at ten times a second. */
static void a_watch_is_no_load(void **state)
{
    struct heard heard = {0};
    struct memplug_client_request request = {.verb = MEMPLUG_SERVE_WATCH,
                                             .path = "memplug/host/reads",
                                             .hear = hear,
                                             .context = &heard};
    struct memplug_client client = client_of(&program);
    unsigned nr_asked = 0, before = (unsigned)atoi(get(&program, request.path));
    uint64_t start_ms, nr_looks;
    pid_t child = fork();

    (void)state;
    assert_true(child >= 0);
    if (child == 0) {
        struct memplug_client watching;

        alarm(20);
        if (memplug_client_open(&watching, program.path, 0) == 0)
            memplug_client_call(&watching, &request, NULL);
        _exit(1);
    }
    start_ms = now_ms();
    for (; now_ms() - start_ms < 500; nr_asked++)
        assert_true(ask_on(&client, "memplug/stat", NULL, NULL) > 0);
    nr_looks = (unsigned)atoi(get(&program, request.path)) - before;
    assert_true(nr_asked > 100); /* or nothing was asked of the door */
    assert_true(nr_looks >= 3 && nr_looks <= (now_ms() - start_ms) / 100 + 3);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    memplug_client_close(&client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_the_trees),
        cmocka_unit_test(links_are_shown_and_followed),
        cmocka_unit_test(a_write_is_read_again),
        cmocka_unit_test(errors_come_with_reasons),
        cmocka_unit_test(blocks_go_and_come),
        cmocka_unit_test(quick_writes_are_quick),
        cmocka_unit_test(progress_is_told),
        cmocka_unit_test(a_client_that_dies_cancels),
        cmocka_unit_test(a_detached_write_goes_on),
        cmocka_unit_test(operations_are_listed_and_cancelled),
        cmocka_unit_test(the_tree_cancels_past_the_queue),
        cmocka_unit_test(reads_pass_a_long_write),
        cmocka_unit_test(the_queue_has_an_end),
        cmocka_unit_test(a_late_read_is_given_up),
        cmocka_unit_test(a_watch_tells_what_changes),
        cmocka_unit_test(a_watch_is_no_load),
    };

    if (!can_move()) {
        puts("SKIP: no full userfaultfd: blocks with mappings cannot go");
        return 77;
    }
    return cmocka_run_group_tests(tests, begin, finish);
}
