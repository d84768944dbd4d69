/* SPDX-License-Identifier: MIT */
/*
 * Where the socket is. Within the directory everything is done by its descriptor, and its owner and
 * mode were looked at through that: whoever exchanges a directory on the way to it gains nothing.
 */
#include "server.h"
#include "sys.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define OTHERS_OF_THIS_NUMBER 16u
#define BACKLOG 128

/* --- which directory -------------------------------------------------------------------------- */

static unsigned my_uid(void)
{
    return (unsigned)syscall(SYS_geteuid);
}

static bool is_own_directory(const char *path)
{
    struct stat status;
    long fd = MPL_SYS(SYS_openat, AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    bool own = fd >= 0 && fstat((int)fd, &status) == 0 && status.st_uid == my_uid() &&
               (status.st_mode & 022) == 0;

    if (fd >= 0)
        mpl_close((int)fd);
    return own;
}

/* With memplug_serve_path()'s "/" and name it must fit a socket's address for clients. */
static int choose(struct memplug_server *server, const char *directory)
{
    struct mpl_words words = {.text = server->directory, .size_bytes = sizeof(server->directory)};
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    size_t length;

    if (directory != NULL) {
        mpl_serve_put(&words, directory);
    } else if (runtime != NULL && runtime[0] == '/' && is_own_directory(runtime)) {
        mpl_serve_put(&words, runtime);
        mpl_serve_put(&words, "/memplug");
    } else {
        mpl_serve_put(&words, "/tmp/memplug-");
        mpl_serve_put_decimal(&words, my_uid());
    }
    length = mpl_serve_put_end(&words);
    return length + 1 + MPL_NAME_BYTES > sizeof(((struct sockaddr_un *)NULL)->sun_path)
               ? -ENAMETOOLONG
               : 0;
}

/* The descriptor, or -errno: it is a directory of this user's that nobody else may enter. */
static int open_directory(const char *path, const char **why)
{
    struct stat status;
    int fd = (int)MPL_SYS(SYS_openat, AT_FDCWD, path,
                          O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);

    *why = "the directory for the socket is none, or cannot be opened";
    if (fd < 0)
        return fd;
    *why = "the directory for the socket is another user's, or others may enter it";
    if (fstat(fd, &status) != 0 || status.st_uid != my_uid() || (status.st_mode & 077) != 0) {
        mpl_close(fd);
        return -EACCES;
    }
    return fd;
}

int mpl_serve_place_choose(struct memplug_server *server, const char *directory, const char **why)
{
    long error = choose(server, directory);
    int fd;

    *why = "the path of the directory for the socket is too long";
    if (error != 0)
        return (int)error;
    error = MPL_SYS(SYS_mkdirat, AT_FDCWD, server->directory, 0700);
    *why = "the directory for the socket cannot be made";
    if (error != 0 && error != -EEXIST)
        return (int)error;
    fd = open_directory(server->directory, why);
    if (fd >= 0)
        mpl_close(fd);
    return fd < 0 ? fd : 0;
}

/* --- the socket ------------------------------------------------------------------------------- */

static void put_name(struct memplug_server *server, unsigned other)
{
    struct mpl_words words = {.text = server->name, .size_bytes = sizeof(server->name)};

    mpl_serve_put_decimal(&words, (uint64_t)server->pid);
    if (other > 0) {
        mpl_serve_put(&words, "-");
        mpl_serve_put_decimal(&words, other);
    }
    mpl_serve_put_end(&words);
}

/* By way of the descriptor, so that it is this directory whatever has its path by now; where there
 * is no /proc, by its path. /proc/self would be the table of the program's first thread. */
static void put_address(const struct memplug_server *server, struct sockaddr_un *address)
{
    struct mpl_words words = {.text = address->sun_path, .size_bytes = sizeof(address->sun_path)};
    struct stat status;

    address->sun_family = AF_UNIX;
    mpl_serve_put(&words, "/proc/thread-self/fd/");
    mpl_serve_put_decimal(&words, (uint64_t)server->directory_fd);
    mpl_serve_put_end(&words);
    if (fstatat(AT_FDCWD, address->sun_path, &status, 0) != 0) {
        words.length = 0;
        mpl_serve_put(&words, server->directory);
    }
    mpl_serve_put(&words, "/");
    mpl_serve_put(&words, server->name);
    mpl_serve_put_end(&words);
}

static bool somebody_listens(const struct sockaddr_un *address)
{
    int fd = (int)MPL_SYS(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    long error = fd < 0 ? fd : MPL_SYS(SYS_connect, fd, address, sizeof(*address));

    if (fd >= 0)
        mpl_close(fd);
    return error == 0 || error == -EAGAIN;
}

/* Files of processes that died are in the way, and go. */
static long bind_name(struct memplug_server *server, int fd)
{
    for (unsigned other = 0; other < OTHERS_OF_THIS_NUMBER; other++) {
        struct sockaddr_un address = {0};
        long error;

        put_name(server, other);
        put_address(server, &address);
        error = MPL_SYS(SYS_bind, fd, &address, sizeof(address));
        if (error == -EADDRINUSE && !somebody_listens(&address)) {
            syscall(SYS_unlinkat, server->directory_fd, server->name, 0);
            error = MPL_SYS(SYS_bind, fd, &address, sizeof(address));
        }
        if (error != -EADDRINUSE)
            return error;
    }
    return -EADDRINUSE;
}

/* The directory keeps others out from the first moment; the mode of the file is for those whom the
 * user lets in later. */
static long listen_there(struct memplug_server *server, int fd)
{
    struct stat status;
    long error = bind_name(server, fd);

    if (error != 0)
        return error;
    error = MPL_SYS(SYS_fchmodat, server->directory_fd, server->name, 0600);
    if (error == 0)
        error = MPL_SYS(SYS_listen, fd, BACKLOG);
    if (error == 0 && fstatat(server->directory_fd, server->name, &status, 0) != 0)
        error = -errno;
    if (error != 0) {
        syscall(SYS_unlinkat, server->directory_fd, server->name, 0);
        return error;
    }
    server->socket_dev = status.st_dev;
    server->socket_ino = status.st_ino;
    return 0;
}

static int open_socket(struct memplug_server *server)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = MPL_NOBODY};
    int fd = (int)MPL_SYS(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    long error = fd < 0 ? fd : listen_there(server, fd);

    if (error == 0)
        error = MPL_SYS(SYS_epoll_ctl, server->epoll_fd, EPOLL_CTL_ADD, fd, &event);
    if (error != 0 && fd >= 0)
        mpl_close(fd);
    server->listening_fd = error == 0 ? fd : -1;
    return (int)error;
}

static bool is_there(const struct memplug_server *server)
{
    struct stat status;

    return fstatat(server->directory_fd, server->name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
           status.st_dev == server->socket_dev && status.st_ino == server->socket_ino;
}

/* The table is this thread's alone afterwards, and empty; nothing is copied and nothing closed. */
int mpl_serve_place_open(struct memplug_server *server, const char **why)
{
    int error = (int)MPL_SYS(SYS_close_range, 0, UINT32_MAX, CLOSE_RANGE_UNSHARE);

    server->directory_fd = server->listening_fd = server->epoll_fd = -1;
    *why = "no table of descriptors of its own (close_range)";
    if (error != 0)
        return error;
    server->directory_fd = open_directory(server->directory, why);
    if (server->directory_fd < 0)
        return server->directory_fd;
    *why = "no epoll descriptor";
    server->epoll_fd = (int)MPL_SYS(SYS_epoll_create1, EPOLL_CLOEXEC);
    if (server->epoll_fd < 0)
        return server->epoll_fd;
    *why = "the socket cannot be made";
    return open_socket(server);
}

void mpl_serve_place_renew(struct memplug_server *server)
{
    const char *why;
    int fd;

    if (server->listening_fd >= 0 && is_there(server))
        return;
    syscall(SYS_mkdirat, AT_FDCWD, server->directory, 0700);
    fd = open_directory(server->directory, &why);
    if (fd < 0)
        return;
    mpl_close(server->directory_fd);
    server->directory_fd = fd;
    if (server->listening_fd >= 0)
        mpl_close(server->listening_fd);
    open_socket(server);
}

void mpl_serve_place_close(struct memplug_server *server)
{
    if (server->listening_fd >= 0 && is_there(server))
        syscall(SYS_unlinkat, server->directory_fd, server->name, 0);
    if (server->listening_fd >= 0)
        mpl_close(server->listening_fd);
    if (server->epoll_fd >= 0)
        mpl_close(server->epoll_fd);
    if (server->directory_fd >= 0)
        mpl_close(server->directory_fd);
}
