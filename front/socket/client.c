/* SPDX-License-Identifier: MIT */
#include <memplug/client.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* --- one server ------------------------------------------------------------------------------- */

int memplug_client_open(struct memplug_client *client, const char *path, unsigned timeout_ms)
{
    struct timeval timeout = {.tv_sec = timeout_ms / 1000,
                              .tv_usec = (suseconds_t)(timeout_ms % 1000 * 1000)};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct ucred peer = {.pid = 0};
    socklen_t length = sizeof(peer);
    int error;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    client->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (client->fd < 0)
        return -errno;
    client->id = 0;
    client->timeout_ms = timeout_ms;
    if (setsockopt(client->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) != 0 ||
        connect(client->fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
        error = -errno;
        close(client->fd);
        client->fd = -1;
        return error;
    }
    client->pid = peer.pid;
    client->uid = peer.uid;
    return 0;
}

void memplug_client_close(struct memplug_client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
}

static int send_request(struct memplug_client *client, const struct memplug_client_request *request)
{
    size_t path_bytes = request->path != NULL ? strlen(request->path) : 0;
    struct memplug_serve_request head = {
        .magic = MEMPLUG_SERVE_MAGIC,
        .verb = (uint8_t)request->verb,
        .flags = (uint8_t)request->flags,
        .path_bytes = (uint16_t)path_bytes,
        .id = ++client->id,
        .timeout_ms = request->timeout_ms,
    };
    struct iovec parts[3] = {
        {.iov_base = &head, .iov_len = sizeof(head)},
        {.iov_base = (void *)(uintptr_t)request->path, .iov_len = path_bytes},
        {.iov_base = (void *)(uintptr_t)request->data, .iov_len = request->length},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};

    if (path_bytes > MEMPLUG_SERVE_PATH_MAX)
        return -ENAMETOOLONG;
    if (request->length > MEMPLUG_ATTR_WRITE_MAX)
        return -EMSGSIZE;
    while (sendmsg(client->fd, &message, MSG_NOSIGNAL) < 0)
        if (errno != EINTR)
            return errno == EPIPE ? -ECONNRESET : -errno;
    return 0;
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Until there is something to receive. deadline_ms: 0 is none. */
static int wait_for_packet(const struct memplug_client *client, uint64_t deadline_ms)
{
    struct pollfd wanted = {.fd = client->fd, .events = POLLIN};

    for (;;) {
        uint64_t at_ms = deadline_ms != 0 ? now_ms() : 0;
        uint64_t left_ms = deadline_ms > at_ms ? deadline_ms - at_ms : 0;
        int least_ms = left_ms < INT_MAX ? (int)left_ms : INT_MAX;
        int nr = poll(&wanted, 1, deadline_ms != 0 ? least_ms : -1);

        if (nr > 0)
            return 0;
        if (nr == 0 && deadline_ms != 0 && now_ms() >= deadline_ms)
            return -EAGAIN;
        if (nr < 0 && errno != EINTR)
            return -errno;
    }
}

/* The server may be another user's, and the terminal that this ends on root's: of what commands a
 * terminal nothing is left. The tree's texts have none of it. */
static void disarm(char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i], next = (unsigned char)text[i + 1];

        if ((c < ' ' && c != '\n') || c == 0x7f)
            text[i] = '?';
        else if (c == 0xc2 && next >= 0x80 && next < 0xa0)
            text[i] = text[i + 1] = '?';
    }
}

/* A packet's text, behind what is there; the head is written. */
static int receive(struct memplug_client *client, struct memplug_serve_answer *head, char **text,
                   size_t *length)
{
    char *longer = realloc(*text, *length + MEMPLUG_SERVE_PACKET_MAX + 1);
    struct iovec parts[2] = {{.iov_base = head, .iov_len = sizeof(*head)},
                             {.iov_len = MEMPLUG_SERVE_PACKET_MAX}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t received;

    if (longer == NULL)
        return -ENOMEM;
    *text = longer;
    parts[1].iov_base = *text + *length;
    do
        received = recvmsg(client->fd, &message, 0);
    while (received < 0 && errno == EINTR);
    if (received <= 0)
        return received < 0 ? -errno : -ECONNRESET;
    if ((size_t)received < sizeof(*head) || head->magic != MEMPLUG_SERVE_MAGIC ||
        (message.msg_flags & MSG_TRUNC) != 0 || *length > MEMPLUG_SERVE_TEXT_MAX)
        return -EPROTO;
    *length += (size_t)received - sizeof(*head);
    (*text)[*length] = '\0';
    return 0;
}

/* All packets of an answer, or of what comes before it. */
static int receive_all(struct memplug_client *client, uint64_t deadline_ms,
                       struct memplug_serve_answer *head, char **text)
{
    size_t length = 0;
    int error;

    do {
        error = wait_for_packet(client, deadline_ms);
        if (error == 0)
            error = receive(client, head, text, &length);
    } while (error == 0 && (head->flags & MEMPLUG_SERVE_MORE) != 0);
    if (error == 0)
        disarm(*text, length);
    return error;
}

int memplug_client_call(struct memplug_client *client, const struct memplug_client_request *request,
                        char **text)
{
    uint64_t deadline_ms = client->timeout_ms != 0 ? now_ms() + client->timeout_ms : 0;
    struct memplug_serve_answer head;
    char *received = NULL;
    int error = send_request(client, request);

    if (text != NULL)
        *text = NULL;
    /* A server that turns a client away has said why before it closed. */
    if (error == -ECONNRESET)
        error = 0;
    while (error == 0) {
        error = receive_all(client, deadline_ms, &head, &received);
        if (error != 0 ||
            (head.kind == MEMPLUG_SERVE_ANSWER && (head.id == client->id || head.id == 0)))
            break;
        if (request->hear == NULL)
            continue;
        error = request->hear(request->context, (enum memplug_serve_kind)head.kind, head.result,
                              received);
        deadline_ms = client->timeout_ms != 0 ? now_ms() + client->timeout_ms : 0;
    }
    if (error == 0 && text != NULL)
        *text = received;
    else
        free(received);
    return error != 0 ? error : head.result;
}

int memplug_client_get(struct memplug_client *client, const char *path, char **text)
{
    const struct memplug_client_request request = {.verb = MEMPLUG_SERVE_GET, .path = path};

    return memplug_client_call(client, &request, text);
}

int memplug_client_list(struct memplug_client *client, const char *path, char **text)
{
    const struct memplug_client_request request = {.verb = MEMPLUG_SERVE_LIST, .path = path};

    return memplug_client_call(client, &request, text);
}

int memplug_client_set(struct memplug_client *client, const char *path, const char *word,
                       char **text)
{
    const struct memplug_client_request request = {
        .verb = MEMPLUG_SERVE_SET, .path = path, .data = word, .length = strlen(word)};

    return memplug_client_call(client, &request, text);
}

/* --- all servers ------------------------------------------------------------------------------ */

static bool is_safe(const char *path)
{
    struct stat status, up;
    char above[4096];
    bool mine;

    if (lstat(path, &status) != 0 || !S_ISDIR(status.st_mode) || (status.st_mode & 077) != 0)
        return false;
    /* Root looks into the directories of others: each must be that of whom its name says, which
     * whoever may write above it has seen to; in /tmp that is everybody. */
    mine = status.st_uid == geteuid();
    if (mine || geteuid() != 0)
        return mine;
    snprintf(above, sizeof(above), "%s/..", path);
    if (strncmp(path, "/tmp/memplug-", 13) == 0)
        return strtoul(path + 13, NULL, 10) == status.st_uid;
    return stat(above, &up) == 0 && up.st_uid == status.st_uid;
}

static int find_in(const char *directory, memplug_client_found_t *found, void *context)
{
    struct dirent **names;
    int nr, result = 0;

    if (!is_safe(directory))
        return 0;
    nr = scandir(directory, &names, NULL, alphasort);
    for (int i = 0; i < nr; i++) {
        char path[4096];
        struct stat status;

        snprintf(path, sizeof(path), "%s/%s", directory, names[i]->d_name);
        if (result == 0 && lstat(path, &status) == 0 && S_ISSOCK(status.st_mode))
            result = found(context, path);
        free(names[i]);
    }
    if (nr >= 0)
        free(names);
    return result;
}

#define NR_OWN 3u

static bool is_one_of(char own[NR_OWN][4096], const char *path)
{
    for (unsigned i = 0; i < NR_OWN; i++)
        if (strcmp(own[i], path) == 0)
            return true;
    return false;
}

/* The same places in which servers look, whatever this process's environment says of them, and for
 * root those of everybody. */
int memplug_client_find(const char *directory, memplug_client_found_t *found, void *context)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char own[NR_OWN][4096] = {""};
    glob_t paths = {.gl_pathc = 0};
    int result = 0;

    if (directory != NULL)
        return find_in(directory, found, context);
    if (runtime != NULL && runtime[0] == '/')
        snprintf(own[0], sizeof(own[0]), "%s/memplug", runtime);
    snprintf(own[1], sizeof(own[1]), "/tmp/memplug-%u", (unsigned)geteuid());
    snprintf(own[2], sizeof(own[2]), "/run/user/%u/memplug", (unsigned)geteuid());
    for (unsigned i = 0; i < NR_OWN && result == 0; i++)
        if (i != 2 || strcmp(own[2], own[0]) != 0)
            result = find_in(own[i], found, context);
    if (result != 0 || geteuid() != 0)
        return result;
    if (glob("/run/user/*/memplug", GLOB_NOCHECK, NULL, &paths) != 0 ||
        glob("/tmp/memplug-*", GLOB_APPEND, NULL, &paths) == GLOB_NOSPACE)
        result = -ENOMEM;
    for (size_t i = 0; i < paths.gl_pathc && result == 0; i++)
        if (!is_one_of(own, paths.gl_pathv[i]))
            result = find_in(paths.gl_pathv[i], found, context);
    globfree(&paths);
    return result;
}
