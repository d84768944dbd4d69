/* SPDX-License-Identifier: MIT */
/* The door: lets clients in, hears them, and looks after what they wait for. */
#include "server.h"
#include "sys.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#define MS 1000000ull
/* Is the socket's file still there? */
#define REST_NS (10000 * MS)
/* An operation's end is seen when an eighth more of its time has passed. */
#define LOOK_LEAST_NS (1 * MS)
#define LOOK_MOST_NS (50 * MS)
#define DEAF_NS (100 * MS)
#define NR_EVENTS 32

/* --- connections ------------------------------------------------------------------------------ */

static uint32_t peer_uid(int fd)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);

    if (MPL_SYS(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return UINT32_MAX;
    return peer.uid;
}

static bool may_ask(int fd)
{
    uint32_t uid = peer_uid(fd);

    return uid == 0 || uid == (uint32_t)syscall(SYS_geteuid);
}

/* A socket that is closed with something unread in it takes away what its peer has not read either:
 * so nothing more may come, and what has come is thrown away. */
static void close_gently(int fd)
{
    char byte;

    syscall(SYS_shutdown, fd, SHUT_RDWR);
    while (MPL_SYS(SYS_recvfrom, fd, &byte, sizeof(byte), MSG_DONTWAIT, NULL, NULL) > 0)
        ;
    mpl_close(fd);
}

void mpl_serve_hang_up(struct memplug_server *server, struct mpl_connection *connection)
{
    struct mpl_operation *operation = NULL;

    if (connection->fd < 0)
        return;
    if (connection->business == MPL_SETTING)
        operation = mpl_serve_operation_find(server, connection->number);
    if (operation != NULL && !operation->detached)
        mpl_serve_operation_cancel(operation, mpl_serve_now_ns());
    mpl_serve_send_forget(connection);
    close_gently(connection->fd);
    connection->fd = -1;
    connection->business = MPL_IDLE;
}

static bool is_idle(const struct mpl_connection *connection)
{
    char byte;

    return connection->business == MPL_IDLE && connection->held == NULL &&
           MPL_SYS(SYS_recvfrom, connection->fd, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT, NULL,
                   NULL) == -EAGAIN;
}

/* A free one, or the one that has been idle for longest and is not any more; null. */
static struct mpl_connection *find_room(struct memplug_server *server)
{
    struct mpl_connection *found = NULL;

    for (unsigned i = 0; i < MEMPLUG_SERVE_CONNECTIONS; i++) {
        struct mpl_connection *connection = &server->connections[i];

        if (connection->fd < 0)
            return connection;
        if ((found == NULL || connection->last_ns < found->last_ns) && is_idle(connection))
            found = connection;
    }
    if (found != NULL)
        mpl_serve_hang_up(server, found);
    return found;
}

/* Somebody who cannot stay. */
static void turn_away(struct memplug_server *server, int fd, int error, const char *why)
{
    struct mpl_connection passing = {.fd = fd};

    mpl_serve_refuse(server, &passing, 0, error, why);
    mpl_serve_hang_up(server, &passing);
}

static void let_in(struct memplug_server *server, int fd, uint64_t now_ns)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP};
    struct mpl_connection *connection;

    if (!may_ask(fd)) {
        turn_away(server, fd, -EACCES, "only the program's own user and root may ask");
        return;
    }
    connection = find_room(server);
    if (connection == NULL) {
        turn_away(server, fd, -EAGAIN, "all connections are busy");
        return;
    }
    *connection = (struct mpl_connection){.fd = fd, .last_ns = now_ns};
    event.data.u32 = (uint32_t)(connection - server->connections);
    if (MPL_SYS(SYS_epoll_ctl, server->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        mpl_serve_hang_up(server, connection);
}

static void listen_again(struct memplug_server *server, bool listen)
{
    struct epoll_event event = {.events = listen ? EPOLLIN : 0, .data.u32 = MPL_NOBODY};

    syscall(SYS_epoll_ctl, server->epoll_fd, EPOLL_CTL_MOD, server->listening_fd, &event);
}

/* No descriptors for one more: send somebody home, or do not listen for a while. */
static void no_descriptor(struct memplug_server *server, uint64_t now_ns)
{
    struct mpl_connection *oldest = NULL;

    for (unsigned i = 0; i < MEMPLUG_SERVE_CONNECTIONS; i++) {
        struct mpl_connection *connection = &server->connections[i];

        if (connection->fd >= 0 && (oldest == NULL || connection->last_ns < oldest->last_ns) &&
            is_idle(connection))
            oldest = connection;
    }
    if (oldest != NULL) {
        mpl_serve_hang_up(server, oldest);
        return;
    }
    server->deaf_until_ns = now_ns + DEAF_NS;
    listen_again(server, false);
}

static void answer_door(struct memplug_server *server, uint64_t now_ns)
{
    long fd = MPL_SYS(SYS_accept4, server->listening_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= 0)
        let_in(server, (int)fd, now_ns);
    else if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -ENOBUFS)
        no_descriptor(server, now_ns);
}

/* --- hearing ---------------------------------------------------------------------------------- */

static void hear(struct memplug_server *server, struct mpl_connection *connection, uint64_t now_ns)
{
    struct iovec part = {.iov_base = server->packet, .iov_len = sizeof(server->packet)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    long length = MPL_SYS(SYS_recvmsg, connection->fd, &message, MSG_DONTWAIT);

    if (length == -EAGAIN || length == -EINTR)
        return;
    if (length <= 0) {
        mpl_serve_hang_up(server, connection);
        return;
    }
    connection->last_ns = now_ns;
    if (!may_ask(connection->fd)) {
        mpl_serve_refuse(server, connection, 0, -EACCES,
                         "only the program's own user and root may ask");
        mpl_serve_hang_up(server, connection);
        return;
    }
    mpl_serve_request(server, connection, (size_t)length, (message.msg_flags & MSG_TRUNC) != 0);
}

static void serve(struct memplug_server *server, const struct epoll_event *event, uint64_t now_ns)
{
    struct mpl_connection *connection;

    if (event->data.u32 == MPL_NOBODY) {
        answer_door(server, now_ns);
        return;
    }
    connection = &server->connections[event->data.u32];
    if (connection->fd < 0)
        return;
    if ((event->events & EPOLLOUT) != 0)
        mpl_serve_send_held(server, connection);
    else if ((event->events & EPOLLIN) != 0)
        hear(server, connection, now_ns);
    if ((event->events & (EPOLLHUP | EPOLLERR)) != 0 ||
        ((event->events & EPOLLRDHUP) != 0 && (event->events & EPOLLIN) == 0))
        mpl_serve_hang_up(server, connection);
    if (connection->fd >= 0 && connection->ending && connection->held == NULL)
        mpl_serve_hang_up(server, connection);
    if (connection->fd >= 0)
        mpl_serve_send_interest(server, connection);
}

/* --- looking after ---------------------------------------------------------------------------- */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* How long nobody needs to be looked after, of this connection. */
static uint64_t patience_ns(struct memplug_server *server, const struct mpl_connection *connection,
                            uint64_t now_ns)
{
    const struct mpl_operation *operation;
    uint64_t eighth_ns;

    if (connection->fd < 0 || connection->business == MPL_IDLE)
        return REST_NS;
    if (connection->business == MPL_WATCHING)
        return connection->held != NULL ? REST_NS
                                        : MPL_WATCH_NS - (now_ns - connection->watched_ns);
    operation = mpl_serve_operation_find(server, connection->number);
    if (operation == NULL || mpl_serve_operation_state(operation) == MPL_ENDED)
        return LOOK_LEAST_NS;
    eighth_ns = (now_ns - operation->queued_ns) / 8;
    return eighth_ns < LOOK_LEAST_NS ? LOOK_LEAST_NS : least(eighth_ns, LOOK_MOST_NS);
}

static int look_after(struct memplug_server *server)
{
    uint64_t now_ns = mpl_serve_now_ns(), wait_ns = REST_NS;

    for (unsigned i = 0; i < MEMPLUG_SERVE_CONNECTIONS; i++) {
        struct mpl_connection *connection = &server->connections[i];

        if (connection->fd >= 0 && connection->business != MPL_IDLE) {
            mpl_serve_look(server, connection, now_ns);
            if (connection->fd >= 0)
                mpl_serve_send_interest(server, connection);
        }
        wait_ns = least(wait_ns, patience_ns(server, connection, now_ns));
    }
    if (server->deaf_until_ns != 0 && now_ns >= server->deaf_until_ns) {
        server->deaf_until_ns = 0;
        listen_again(server, true);
    }
    if (server->deaf_until_ns != 0)
        wait_ns = least(wait_ns, DEAF_NS);
    return (int)((wait_ns + MS - 1) / MS); /* or the last of it would be spun away */
}

static void loop(struct memplug_server *server)
{
    struct epoll_event events[NR_EVENTS];
    uint64_t renewed_ns = mpl_serve_now_ns();

    while (!mpl_serve_stopping(server)) {
        int timeout_ms = look_after(server);
        long nr = MPL_SYS(SYS_epoll_pwait, server->epoll_fd, events, NR_EVENTS, timeout_ms, NULL,
                          (size_t)8);
        uint64_t now_ns = mpl_serve_now_ns();

        for (long i = 0; i < nr; i++)
            serve(server, &events[i], now_ns);
        if (now_ns - renewed_ns >= REST_NS) {
            mpl_serve_place_renew(server);
            renewed_ns = now_ns;
        }
    }
}

void *mpl_serve_door(void *context)
{
    struct memplug_server *server = context;

    syscall(SYS_prctl, PR_SET_NAME, "memplug-serve", 0, 0, 0);
    for (unsigned i = 0; i < MEMPLUG_SERVE_CONNECTIONS; i++)
        server->connections[i].fd = -1;
    server->open_error = mpl_serve_place_open(server, &server->open_why);
    __atomic_store_n(&server->opened, 1, __ATOMIC_RELEASE);
    mpl_serve_word_wake(&server->opened);
    if (server->open_error == 0)
        loop(server);
    for (unsigned i = 0; i < MEMPLUG_SERVE_CONNECTIONS; i++)
        mpl_serve_hang_up(server, &server->connections[i]);
    mpl_serve_place_close(server);
    return NULL;
}
