/* SPDX-License-Identifier: MIT */
/*
 * Operations: writes to the tree, one after another in a thread of their own. The door makes,
 * cancels and forgets them; a slot that has ended and whose end nobody waits for is used again, the
 * oldest first.
 */
#include "server.h"
#include "sys.h"

#include <sys/prctl.h>

/* --- the worker ------------------------------------------------------------------------------- */

static void note_progress(void *context, const struct memplug_progress *progress)
{
    struct mpl_operation *operation = context;

    __atomic_store_n(&operation->operation, progress->operation, __ATOMIC_RELAXED);
    __atomic_store_n(&operation->step, progress->step, __ATOMIC_RELAXED);
    __atomic_store_n(&operation->nr_done, progress->nr_done, __ATOMIC_RELAXED);
    __atomic_store_n(&operation->nr_total, progress->nr_total, __ATOMIC_RELAXED);
}

static bool change_state(struct mpl_operation *operation, uint32_t from, uint32_t to)
{
    return __atomic_compare_exchange_n(&operation->state, &from, to, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

static struct mpl_operation *next_queued(struct memplug_server *server)
{
    struct mpl_operation *next = NULL;

    for (unsigned i = 0; i < MEMPLUG_SERVE_OPERATIONS; i++) {
        struct mpl_operation *operation = &server->operations[i];

        if (mpl_serve_operation_state(operation) == MPL_QUEUED &&
            (next == NULL || operation->number < next->number))
            next = operation;
    }
    return next;
}

static void no_turn(struct mpl_operation *operation, int error, const char *why, uint64_t now_ns)
{
    operation->result = error;
    operation->reason = (struct memplug_reason){
        .error = error,
        .operation = "write",
        .step = "queue",
        .why = why,
        .address = MEMPLUG_ANY_ADDRESS,
        .block = -1,
        .node = MEMPLUG_ANY_NODE,
        .pfn = {UINT64_MAX},
    };
    operation->ended_ns = now_ns;
}

/* Before another write: so what "add" says is where this one's range is. */
static void read_again(struct memplug_server *server, struct mpl_operation *operation)
{
    int length = memplug_attr_get(server->attr, operation->path, operation->answer,
                                  sizeof(operation->answer));

    if (length > 0 && (size_t)length < sizeof(operation->answer))
        operation->answer_length = (uint32_t)length;
}

static void carry_out(struct memplug_server *server, struct mpl_operation *operation)
{
    struct memplug_limit limit = {.progress = note_progress, .context = operation};
    uint64_t waited_ns = mpl_serve_now_ns() - operation->queued_ns;

    if (server->attr->limit != NULL) {
        limit.timeout_ns = server->attr->limit->timeout_ns;
        limit.tries = server->attr->limit->tries;
    }
    if (operation->timeout_ns != 0) {
        if (waited_ns >= operation->timeout_ns) {
            no_turn(operation, -ETIMEDOUT, "its time was over before its turn came",
                    operation->queued_ns + waited_ns);
            return;
        }
        limit.timeout_ns = operation->timeout_ns - waited_ns;
    }
    operation->result = memplug_attr_write(&operation->handle, operation->text, operation->length,
                                           &limit, &operation->reason);
    if (operation->result >= 0)
        read_again(server, operation);
    operation->ended_ns = mpl_serve_now_ns();
}

void *mpl_serve_worker(void *context)
{
    struct memplug_server *server = context;

    syscall(SYS_prctl, PR_SET_NAME, "memplug-work", 0, 0, 0);
    for (;;) {
        uint32_t work = __atomic_load_n(&server->work, __ATOMIC_ACQUIRE);
        struct mpl_operation *operation = next_queued(server);

        if (mpl_serve_stopping(server))
            return NULL;
        if (operation == NULL) {
            mpl_serve_word_wait(&server->work, work, 0);
            continue;
        }
        if (!change_state(operation, MPL_QUEUED, MPL_RUNNING))
            continue;
        carry_out(server, operation);
        __atomic_store_n(&operation->state, MPL_ENDED, __ATOMIC_RELEASE);
    }
}

/* --- by the door ------------------------------------------------------------------------------ */

enum mpl_serve_operation_state mpl_serve_operation_state(const struct mpl_operation *operation)
{
    return (enum mpl_serve_operation_state)__atomic_load_n(&operation->state, __ATOMIC_ACQUIRE);
}

static bool somebody_waits(const struct memplug_server *server, uint64_t number)
{
    for (unsigned i = 0; i < MEMPLUG_SERVE_CONNECTIONS; i++) {
        const struct mpl_connection *connection = &server->connections[i];

        if ((connection->business == MPL_SETTING || connection->business == MPL_WAITING) &&
            connection->number == number)
            return true;
    }
    return false;
}

struct mpl_operation *mpl_serve_operation_new(struct memplug_server *server)
{
    struct mpl_operation *found = NULL;

    for (unsigned i = 0; i < MEMPLUG_SERVE_OPERATIONS; i++) {
        struct mpl_operation *operation = &server->operations[i];
        enum mpl_serve_operation_state state = mpl_serve_operation_state(operation);

        if (state == MPL_FREE)
            return operation;
        if (state == MPL_ENDED && (found == NULL || operation->number < found->number) &&
            !somebody_waits(server, operation->number))
            found = operation;
    }
    if (found != NULL)
        __atomic_store_n(&found->state, MPL_FREE, __ATOMIC_RELAXED);
    return found;
}

void mpl_serve_operation_queue(struct memplug_server *server, struct mpl_operation *operation)
{
    operation->number = ++server->nr_operations;
    operation->operation = operation->step = NULL;
    operation->nr_done = operation->nr_total = 0;
    operation->ended_ns = 0;
    operation->answer_length = 0;
    __atomic_store_n(&operation->state, MPL_QUEUED, __ATOMIC_RELEASE);
    __atomic_fetch_add(&server->work, 1, __ATOMIC_ACQ_REL);
    mpl_serve_word_wake(&server->work);
}

struct mpl_operation *mpl_serve_operation_find(struct memplug_server *server, uint64_t number)
{
    for (unsigned i = 0; i < MEMPLUG_SERVE_OPERATIONS; i++)
        if (server->operations[i].number == number &&
            mpl_serve_operation_state(&server->operations[i]) != MPL_FREE)
            return &server->operations[i];
    return NULL;
}

/* One that waits for its turn is taken as the worker would take it. */
void mpl_serve_operation_cancel(struct mpl_operation *operation, uint64_t now_ns)
{
    memplug_attr_cancel(&operation->handle);
    if (!change_state(operation, MPL_QUEUED, MPL_RUNNING))
        return;
    no_turn(operation, -EINTR, "it was cancelled before its turn came", now_ns);
    __atomic_store_n(&operation->state, MPL_ENDED, __ATOMIC_RELEASE);
}

/* --- as text ---------------------------------------------------------------------------------- */

/* A step may have blanks in its name; here a word is one. */
static void put_word(struct mpl_words *words, const char *text)
{
    for (; text != NULL && *text != '\0'; text++) {
        char word[2] = {*text == ' ' || *text == '\n' ? '-' : *text};

        mpl_serve_put(words, word);
    }
}

static void put_news(struct mpl_words *words, const struct mpl_operation *operation)
{
    const char *name = __atomic_load_n(&operation->operation, __ATOMIC_RELAXED);
    const char *step = __atomic_load_n(&operation->step, __ATOMIC_RELAXED);

    put_word(words, name != NULL ? name : "-");
    mpl_serve_put(words, " ");
    put_word(words, step != NULL ? step : "-");
    mpl_serve_put(words, " ");
    mpl_serve_put_decimal(words, __atomic_load_n(&operation->nr_done, __ATOMIC_RELAXED));
    mpl_serve_put(words, " ");
    mpl_serve_put_decimal(words, __atomic_load_n(&operation->nr_total, __ATOMIC_RELAXED));
}

size_t mpl_serve_operation_news(const struct mpl_operation *operation, char *text,
                                size_t size_bytes)
{
    struct mpl_words words = {.text = text, .size_bytes = size_bytes};

    put_news(&words, operation);
    mpl_serve_put(&words, "\n");
    return mpl_serve_put_end(&words);
}

/* What was written, if that is one short word. */
static void put_text(struct mpl_words *words, const struct mpl_operation *operation)
{
    char copy[MPL_LINE_BYTES];
    uint32_t length = operation->length;

    if (length > 0 && operation->text[length - 1] == '\n')
        length--;
    if (length == 0 || length >= sizeof(copy)) {
        mpl_serve_put(words, "-");
        return;
    }
    for (uint32_t i = 0; i < length; i++)
        copy[i] = operation->text[i] > ' ' && operation->text[i] <= '~' ? operation->text[i] : '_';
    copy[length] = '\0';
    mpl_serve_put(words, copy);
}

size_t mpl_serve_operation_line(const struct mpl_operation *operation, uint64_t now_ns, char *text,
                                size_t size_bytes)
{
    static const char *const states[] = {"free", "queued", "running", "ended"};
    enum mpl_serve_operation_state state = mpl_serve_operation_state(operation);
    struct mpl_words words = {.text = text, .size_bytes = size_bytes};
    uint64_t until_ns = state == MPL_ENDED ? operation->ended_ns : now_ns;

    mpl_serve_put_decimal(&words, operation->number);
    mpl_serve_put(&words, " ");
    mpl_serve_put(&words, states[state]);
    mpl_serve_put(&words, " ");
    put_word(&words, operation->path);
    mpl_serve_put(&words, " ");
    put_text(&words, operation);
    mpl_serve_put(&words, " ");
    put_news(&words, operation);
    mpl_serve_put(&words, " ");
    mpl_serve_put_decimal(&words, (until_ns - operation->queued_ns) / 1000000);
    if (state == MPL_ENDED) {
        int result = operation->result;

        mpl_serve_put(&words, result < 0 ? " -" : " ");
        mpl_serve_put_decimal(&words, result < 0 ? (uint64_t)-(int64_t)result : (uint64_t)result);
    }
    mpl_serve_put(&words, "\n");
    return mpl_serve_put_end(&words);
}
