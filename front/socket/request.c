/* SPDX-License-Identifier: MIT */
/* What clients ask for: one function a verb, and what they are told of it later. */
#include "server.h"
#include "sys.h"

#include <string.h>

#define NEWS_NS 50000000ull

/* The packet, taken apart. */
struct request {
    struct memplug_serve_request head;
    char path[MEMPLUG_SERVE_PATH_MAX + 1]; /* slashes single, none at the ends */
    const char *data;
    size_t length;
};

/* --- answers ---------------------------------------------------------------------------------- */

static void answer(struct memplug_server *server, struct mpl_connection *connection, uint32_t id,
                   int result, const char *text, size_t length)
{
    const struct mpl_message message = {
        .kind = MEMPLUG_SERVE_ANSWER, .result = result, .text = text, .length = length};

    mpl_serve_send(server, connection, id, &message);
}

static void answer_reason(struct memplug_server *server, struct mpl_connection *connection,
                          uint32_t id, const struct memplug_reason *reason)
{
    char text[1024];
    size_t length = memplug_reason_text(reason, text, sizeof(text));

    answer(server, connection, id, reason->error, text,
           length < sizeof(text) ? length : sizeof(text) - 1);
}

void mpl_serve_refuse(struct memplug_server *server, struct mpl_connection *connection, uint32_t id,
                      int error, const char *why)
{
    const struct memplug_reason reason = {
        .error = error,
        .operation = "socket",
        .why = why,
        .address = MEMPLUG_ANY_ADDRESS,
        .block = -1,
        .node = MEMPLUG_ANY_NODE,
        .pfn = {UINT64_MAX},
    };

    answer_reason(server, connection, id, &reason);
}

static const char *why_not(int error)
{
    switch (error) {
    case -ENOENT:
        return "there is no such file";
    case -ENODEV:
        return "what the file describes is gone";
    case -ENOTDIR:
        return "a part of the path is no directory";
    case -EISDIR:
        return "this is a directory";
    case -ETIMEDOUT:
        return "the tree does not answer: something in the program takes very long";
    case -EACCES:
        return "the mode of the file does not let anybody";
    default:
        return NULL;
    }
}

/* What the reader has brought. */
static void answer_read(struct memplug_server *server, struct mpl_connection *connection,
                        uint32_t id, int result)
{
    if (result < 0)
        mpl_serve_refuse(server, connection, id, result, why_not(result));
    else if ((size_t)result >= sizeof(server->text))
        mpl_serve_refuse(server, connection, id, -EFBIG, "the text is too long for an answer");
    else
        answer(server, connection, id, result, server->text, (size_t)result);
}

/* --- verbs ------------------------------------------------------------------------------------ */

static void get(struct memplug_server *server, struct mpl_connection *connection,
                const struct request *request)
{
    int result = mpl_serve_read(server, MPL_READ, request->path, 0, NULL);

    answer_read(server, connection, request->head.id, result);
}

static void list(struct memplug_server *server, struct mpl_connection *connection,
                 const struct request *request)
{
    int result = mpl_serve_read(server, MPL_LIST, request->path, 0, NULL);

    answer_read(server, connection, request->head.id, result);
}

static void follow(struct memplug_server *server, struct mpl_connection *connection,
                   const struct request *request)
{
    int result = mpl_serve_read(server, MPL_LINK, request->path, 0, NULL);

    answer_read(server, connection, request->head.id, result);
}

/* Not into the queue, since it is for what keeps that waiting. Takes no lock but the tree's. */
static void cancel_all(struct memplug_server *server, struct mpl_connection *connection,
                       const struct request *request)
{
    struct memplug_reason reason;
    int result = memplug_attr_set(server->attr, request->path, request->data, request->length,
                                  NULL, &reason);

    if (result < 0)
        answer_reason(server, connection, request->head.id, &reason);
    else
        answer(server, connection, request->head.id, result, "", 0);
}

static void set(struct memplug_server *server, struct mpl_connection *connection,
                const struct request *request)
{
    const struct memplug_serve_request *head = &request->head;
    struct mpl_message started = {.kind = MEMPLUG_SERVE_STARTED, .text = ""};
    struct mpl_operation *operation = mpl_serve_operation_new(server);
    int error;

    if (operation == NULL) {
        mpl_serve_refuse(server, connection, head->id, -EAGAIN,
                         "too many writes are waiting already");
        return;
    }
    error = mpl_serve_read(server, MPL_OPEN, request->path, MEMPLUG_ATTR_WRITE, &operation->handle);
    if (error != 0) {
        mpl_serve_refuse(server, connection, head->id, error, why_not(error));
        return;
    }
    memcpy(operation->path, request->path, sizeof(operation->path));
    memcpy(operation->text, request->data, request->length);
    operation->length = (uint32_t)request->length;
    operation->timeout_ns = (uint64_t)head->timeout_ms * 1000000;
    operation->queued_ns = mpl_serve_now_ns();
    operation->detached = (head->flags & MEMPLUG_SERVE_DETACHED) != 0;
    mpl_serve_operation_queue(server, operation);
    connection->business = MPL_SETTING;
    connection->id = head->id;
    connection->number = operation->number;
    connection->news = (head->flags & MEMPLUG_SERVE_PROGRESS) != 0;
    started.result = (int)operation->number;
    if (head->flags != 0)
        mpl_serve_send(server, connection, head->id, &started);
}

static void watch(struct memplug_server *server, struct mpl_connection *connection,
                  const struct request *request)
{
    int error = mpl_serve_read(server, MPL_OPEN, request->path, MEMPLUG_ATTR_READ,
                               &connection->watched);

    if (error != 0) {
        mpl_serve_refuse(server, connection, request->head.id, error, why_not(error));
        return;
    }
    connection->business = MPL_WATCHING;
    connection->id = request->head.id;
    connection->watched_hash = 0;
    connection->watched_ns = 0;
}

static void operations(struct memplug_server *server, struct mpl_connection *connection,
                       const struct request *request)
{
    char text[MEMPLUG_SERVE_OPERATIONS * MPL_LINE_MAX_BYTES];
    uint64_t now_ns = mpl_serve_now_ns(), last = 0;
    size_t length = 0;

    for (;;) {
        const struct mpl_operation *next = NULL;

        for (unsigned i = 0; i < MEMPLUG_SERVE_OPERATIONS; i++) {
            const struct mpl_operation *operation = &server->operations[i];

            if (mpl_serve_operation_state(operation) != MPL_FREE && operation->number > last &&
                (next == NULL || operation->number < next->number))
                next = operation;
        }
        if (next == NULL)
            break;
        last = next->number;
        length += mpl_serve_operation_line(next, now_ns, text + length, sizeof(text) - length);
    }
    answer(server, connection, request->head.id, (int)length, text, length);
}

static struct mpl_operation *named(struct memplug_server *server,
                                   struct mpl_connection *connection,
                                   const struct request *request)
{
    struct mpl_operation *operation = NULL;
    uint64_t number;

    if (!mpl_serve_decimal(request->data, request->length, &number)) {
        mpl_serve_refuse(server, connection, request->head.id, -EINVAL,
                         "not the number of an operation");
        return NULL;
    }
    operation = mpl_serve_operation_find(server, number);
    if (operation == NULL)
        mpl_serve_refuse(server, connection, request->head.id, -ESRCH,
                         "no operation has this number, or it ended too long ago");
    return operation;
}

static void wait_for(struct memplug_server *server, struct mpl_connection *connection,
                     const struct request *request)
{
    struct mpl_operation *operation = named(server, connection, request);

    if (operation == NULL)
        return;
    connection->business = MPL_WAITING;
    connection->id = request->head.id;
    connection->number = operation->number;
    connection->news = (request->head.flags & MEMPLUG_SERVE_PROGRESS) != 0;
}

static void cancel(struct memplug_server *server, struct mpl_connection *connection,
                   const struct request *request)
{
    struct mpl_operation *operation = named(server, connection, request);

    if (operation == NULL)
        return;
    if (mpl_serve_operation_state(operation) == MPL_ENDED) {
        mpl_serve_refuse(server, connection, request->head.id, -ESRCH, "the operation has ended");
        return;
    }
    mpl_serve_operation_cancel(operation, mpl_serve_now_ns());
    answer(server, connection, request->head.id, 0, "", 0);
}

/* --- taking a packet apart -------------------------------------------------------------------- */

/* 0, or what is wrong with the packet as a whole. */
static int take_apart(struct memplug_server *server, size_t length, struct request *request)
{
    const char *packet = server->packet;
    size_t path_bytes, to = 0;

    if (length < sizeof(request->head))
        return -EPROTO;
    memcpy(&request->head, packet, sizeof(request->head));
    path_bytes = request->head.path_bytes;
    if (request->head.magic != MEMPLUG_SERVE_MAGIC ||
        path_bytes > length - sizeof(request->head))
        return -EPROTO;
    request->data = packet + sizeof(request->head) + path_bytes;
    request->length = length - sizeof(request->head) - path_bytes;
    if (path_bytes > MEMPLUG_SERVE_PATH_MAX || request->length > MEMPLUG_ATTR_WRITE_MAX)
        return -EMSGSIZE;
    packet += sizeof(request->head);
    for (size_t i = 0; i < path_bytes; i++) {
        if (packet[i] == '\0')
            return -EPROTO;
        if (packet[i] != '/' || (to > 0 && request->path[to - 1] != '/'))
            request->path[to++] = packet[i];
    }
    if (to > 0 && request->path[to - 1] == '/')
        to--;
    memset(request->path + to, 0, sizeof(request->path) - to);
    return 0;
}

static const struct verb {
    void (*call)(struct memplug_server *server, struct mpl_connection *connection,
                 const struct request *request);
    bool path, data;
    uint8_t flags;
} verbs[] = {
    [MEMPLUG_SERVE_GET] = {get, true, false, 0},
    [MEMPLUG_SERVE_SET] = {set, true, true, MEMPLUG_SERVE_DETACHED | MEMPLUG_SERVE_PROGRESS},
    [MEMPLUG_SERVE_LIST] = {list, true, false, 0},
    [MEMPLUG_SERVE_LINK] = {follow, true, false, 0},
    [MEMPLUG_SERVE_WATCH] = {watch, true, false, 0},
    [MEMPLUG_SERVE_OPERATIONS_GET] = {operations, false, false, 0},
    [MEMPLUG_SERVE_WAIT] = {wait_for, false, true, MEMPLUG_SERVE_PROGRESS},
    [MEMPLUG_SERVE_CANCEL] = {cancel, false, true, 0},
};
#define NR_VERBS (sizeof(verbs) / sizeof(verbs[0]))

static const char *what_is_wrong(const struct request *request, const struct verb *verb)
{
    if ((request->head.flags & ~verb->flags) != 0)
        return "flags that this verb does not have";
    if (!verb->path && request->path[0] != '\0')
        return "a path, where none belongs";
    if (!verb->data && request->length != 0)
        return "data, where none belongs";
    return NULL;
}

void mpl_serve_request(struct memplug_server *server, struct mpl_connection *connection,
                       size_t length, bool cut)
{
    struct request request = {.length = 0};
    const struct verb *verb = NULL;
    int error = cut ? -EMSGSIZE : take_apart(server, length, &request);
    uint32_t id = request.head.id;

    if (error == 0 && request.head.verb < NR_VERBS && verbs[request.head.verb].call != NULL)
        verb = &verbs[request.head.verb];
    if (error != 0) {
        mpl_serve_refuse(server, connection, id, error, "this is no request");
        connection->ending = true;
    } else if (verb == NULL) {
        mpl_serve_refuse(server, connection, id, -EOPNOTSUPP, "there is no such verb");
    } else if (what_is_wrong(&request, verb) != NULL) {
        mpl_serve_refuse(server, connection, id, -EINVAL, what_is_wrong(&request, verb));
    } else if (connection->business != MPL_IDLE) {
        mpl_serve_refuse(server, connection, id, -EBUSY,
                         "this connection's last request is still on");
    } else if (request.head.verb == MEMPLUG_SERVE_SET &&
               strcmp(request.path, "memplug/cancel") == 0) {
        cancel_all(server, connection, &request);
    } else {
        verb->call(server, connection, &request);
    }
}

/* --- later ------------------------------------------------------------------------------------ */

static void tell_news(struct memplug_server *server, struct mpl_connection *connection,
                      const struct mpl_operation *operation, uint64_t now_ns)
{
    char text[MPL_LINE_BYTES];
    struct mpl_message news = {.kind = MEMPLUG_SERVE_NEWS, .text = text};
    uint64_t hash;

    if (!connection->news || now_ns - connection->news_ns < NEWS_NS)
        return;
    news.length = mpl_serve_operation_news(operation, text, sizeof(text));
    if (news.length >= sizeof(text))
        news.length = sizeof(text) - 1;
    hash = mpl_serve_hash(text, news.length);
    if (hash != connection->news_hash && connection->held == NULL)
        mpl_serve_send(server, connection, connection->id, &news);
    connection->news_ns = now_ns;
    connection->news_hash = hash;
}

static void look_at_operation(struct memplug_server *server, struct mpl_connection *connection,
                              uint64_t now_ns)
{
    struct mpl_operation *operation = mpl_serve_operation_find(server, connection->number);

    if (operation != NULL && mpl_serve_operation_state(operation) != MPL_ENDED) {
        tell_news(server, connection, operation, now_ns);
        return;
    }
    connection->business = MPL_IDLE;
    if (operation == NULL) {
        mpl_serve_refuse(server, connection, connection->id, -ESRCH,
                         "the operation ended too long ago");
        return;
    }
    if (operation->result < 0)
        answer_reason(server, connection, connection->id, &operation->reason);
    else
        answer(server, connection, connection->id, operation->result, operation->answer,
               operation->answer_length);
}

static void look_at_file(struct memplug_server *server, struct mpl_connection *connection,
                         uint64_t now_ns)
{
    struct mpl_message event = {.kind = MEMPLUG_SERVE_EVENT, .text = server->text};
    uint64_t hash;
    int result;

    if (connection->held != NULL || now_ns - connection->watched_ns < MPL_WATCH_NS)
        return;
    connection->watched_ns = now_ns;
    result = mpl_serve_read(server, MPL_READ_HANDLE, "", 0, &connection->watched);
    if (result == -ETIMEDOUT)
        return; /* it is looked at again */
    if (result < 0 || (size_t)result >= sizeof(server->text)) {
        connection->business = MPL_IDLE;
        answer_read(server, connection, connection->id, result);
        return;
    }
    hash = mpl_serve_hash(server->text, (size_t)result);
    if (hash == connection->watched_hash)
        return;
    connection->watched_hash = hash;
    event.result = result;
    event.length = (size_t)result;
    mpl_serve_send(server, connection, connection->id, &event);
}

void mpl_serve_look(struct memplug_server *server, struct mpl_connection *connection,
                    uint64_t now_ns)
{
    if (connection->business == MPL_WATCHING)
        look_at_file(server, connection, now_ns);
    else
        look_at_operation(server, connection, now_ns);
}
