/* SPDX-License-Identifier: MIT */
/*
 * Packets to clients. What a client does not take at once is held for it, in memory that is mapped
 * for that; as long as there is any, nothing more is read from it.
 */
#include "server.h"
#include "sys.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define HELD_BYTES ((size_t)2 << 20) /* of an answer, and of a watch beside it */

struct packet {
    struct memplug_serve_answer head;
    const char *text;
    size_t length;
};

static long send_packet(int fd, const struct packet *packet)
{
    struct iovec parts[2] = {
        {.iov_base = (void *)(uintptr_t)&packet->head, .iov_len = sizeof(packet->head)},
        {.iov_base = (void *)(uintptr_t)packet->text, .iov_len = packet->length},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    long result;

    do
        result = MPL_SYS(SYS_sendmsg, fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (result == -EINTR);
    return result;
}

/* -ENOMEM: no memory, or too much of it. */
static int hold(struct mpl_connection *connection, const struct packet *packet)
{
    uint32_t length = (uint32_t)packet->length;
    char *to;

    if (connection->held == NULL) {
        void *memory = (void *)syscall(SYS_mmap, NULL, HELD_BYTES, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (memory == MAP_FAILED)
            return -ENOMEM;
        connection->held = memory;
        connection->held_bytes = connection->sent_bytes = 0;
    }
    if (HELD_BYTES - connection->held_bytes < sizeof(length) + sizeof(packet->head) + length)
        return -ENOMEM;
    to = connection->held + connection->held_bytes;
    memcpy(to, &length, sizeof(length));
    memcpy(to + sizeof(length), &packet->head, sizeof(packet->head));
    memcpy(to + sizeof(length) + sizeof(packet->head), packet->text, length);
    connection->held_bytes += sizeof(length) + sizeof(packet->head) + length;
    return 0;
}

static struct packet next_held(const struct mpl_connection *connection)
{
    const char *from = connection->held + connection->sent_bytes;
    struct packet packet;
    uint32_t length;

    memcpy(&length, from, sizeof(length));
    memcpy(&packet.head, from + sizeof(length), sizeof(packet.head));
    packet.text = from + sizeof(length) + sizeof(packet.head);
    packet.length = length;
    return packet;
}

void mpl_serve_send_forget(struct mpl_connection *connection)
{
    if (connection->held != NULL)
        syscall(SYS_munmap, connection->held, HELD_BYTES);
    connection->held = NULL;
}

void mpl_serve_send_held(struct memplug_server *server, struct mpl_connection *connection)
{
    while (connection->held != NULL) {
        struct packet packet = next_held(connection);
        long result = send_packet(connection->fd, &packet);

        if (result == -EAGAIN)
            return;
        if (result < 0) {
            mpl_serve_hang_up(server, connection);
            return;
        }
        connection->sent_bytes += sizeof(uint32_t) + sizeof(packet.head) + packet.length;
        if (connection->sent_bytes == connection->held_bytes)
            mpl_serve_send_forget(connection);
    }
}

static int send_or_hold(struct mpl_connection *connection, const struct packet *packet)
{
    long result = connection->held == NULL ? send_packet(connection->fd, packet) : -EAGAIN;

    if (result == -EAGAIN)
        return hold(connection, packet);
    return result < 0 ? (int)result : 0;
}

void mpl_serve_send(struct memplug_server *server, struct mpl_connection *connection, uint32_t id,
                    const struct mpl_message *message)
{
    size_t sent = 0;
    int error;

    if (connection->fd < 0)
        return;
    do {
        size_t left = message->length - sent;
        bool more = left > MEMPLUG_SERVE_PACKET_MAX;
        struct packet packet = {
            .head = {.magic = MEMPLUG_SERVE_MAGIC,
                     .kind = (uint8_t)message->kind,
                     .flags = more ? MEMPLUG_SERVE_MORE : 0,
                     .id = id,
                     .result = message->result},
            .text = message->text + sent,
            .length = more ? MEMPLUG_SERVE_PACKET_MAX : left,
        };

        error = send_or_hold(connection, &packet);
        sent += packet.length;
    } while (error == 0 && sent < message->length);
    if (error != 0)
        mpl_serve_hang_up(server, connection);
}

void mpl_serve_send_interest(struct memplug_server *server, struct mpl_connection *connection)
{
    struct epoll_event event = {
        .events = EPOLLRDHUP | (connection->held != NULL ? EPOLLOUT : EPOLLIN),
        .data.u32 = (uint32_t)(connection - server->connections),
    };

    syscall(SYS_epoll_ctl, server->epoll_fd, EPOLL_CTL_MOD, connection->fd, &event);
}
