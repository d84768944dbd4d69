/* SPDX-License-Identifier: MIT */
/*
 * The attribute tree of a pool on a Unix socket, so that other processes can look at a running
 * program's memory and change it. What stands in the tree, attr.h and memplug-attr(7) say; this is
 * the way to it. client.h is the other side.
 *
 * Three threads are started. One speaks with clients; it has a table of descriptors of its own, so
 * that the program can neither close what the server needs nor inherit it to a child. One reads the
 * tree for it, which takes moments, or as long as the move of a page that is asked about: what
 * takes two seconds is -ETIMEDOUT, and so is all until it has ended, but operations and cancel. One
 * carries out writes, one after another: they may take the control lock, and long. They have stacks
 * of their own, block all signals (but those by which the C library tells its threads of setuid()),
 * call no malloc, and take no lock of the program's. The C library itself allocates a few hundred
 * bytes for each within memplug_serve_start(). A process with threads cannot unshare(CLONE_NEWUSER)
 * any more.
 *
 * The socket is DIRECTORY/PID, mode 0600, and the directory 0700: $XDG_RUNTIME_DIR/memplug, if that
 * is set and the user's own; else /tmp/memplug-UID. A directory that is somebody else's, is open to
 * others, or is a symbolic link is refused. If the socket's file is removed, it is made anew within
 * ten seconds. Who asks must be root or of the process's effective user, at each request: so after
 * setuid() the user from before may not any more, and the one since has no way to the directory.
 */
#ifndef MEMPLUG_SERVE_H
#define MEMPLUG_SERVE_H

#include <memplug/attr.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memplug_server;

struct memplug_serve_config {
    struct memplug_attr *attr; /* must outlive the server; not in movable memory, nor its pool */
    const char *directory;     /* null: as above. Made if its parent is there */
};

/*
 * -ENAMETOOLONG; -EACCES, -ENOTDIR, -ELOOP the directory is not a safe one; -EADDRINUSE others of
 * this number live there (pid namespaces that share it); -ENOSYS, -EPERM no descriptor table of its
 * own: needs close_range(), Linux 5.9; -ENOMEM, -EAGAIN no memory or threads. reason may be null.
 */
int memplug_serve_start(const struct memplug_serve_config *config, struct memplug_server **server,
                        struct memplug_reason *reason);

/* Ends what is running as if it were cancelled, and removes the socket. In a child of fork() it
 * only forgets: the threads and the socket are the parent's. Not from a callback of the pool. */
void memplug_serve_stop(struct memplug_server *server);

/* Where the socket is, terminated; the full length. */
size_t memplug_serve_path(const struct memplug_server *server, char *text, size_t size_bytes);

/* --- what is said on the socket --------------------------------------------------------------- */

/*
 * SOCK_SEQPACKET, in the machine's byte order. A request is one packet: the head, a path, data up
 * to the packet's end. An answer is one or more: those with MORE are continued. A connection has
 * one request at a time, and may have many one after another; while a write, a wait or a watch is
 * on, another one is answered with -EBUSY.
 *
 * A packet that is no request (too short, too long, other magic) is answered with -EPROTO or
 * -EMSGSIZE and ends the connection; it changes nothing. There are 64 connections: beyond that the
 * one that has been idle for longest is closed, and if none is, the new one is told -EAGAIN.
 *
 * When a client closes its end, its watches and waits are over and its write is cancelled, as by
 * memplug_attr_cancel(), whether it has begun or not: unless the request said DETACHED.
 */
#define MEMPLUG_SERVE_MAGIC 0x314c504du
#define MEMPLUG_SERVE_PATH_MAX 255u
#define MEMPLUG_SERVE_PACKET_MAX 16384u /* of an answer, without its head */
#define MEMPLUG_SERVE_TEXT_MAX (1u << 20) /* of all packets of an answer: else -EFBIG */
#define MEMPLUG_SERVE_CONNECTIONS 64u
#define MEMPLUG_SERVE_OPERATIONS 16u /* writes that run, wait for their turn, or ended lately */

enum memplug_serve_verb {
    MEMPLUG_SERVE_GET = 1, /* a file */
    MEMPLUG_SERVE_SET,     /* a file to the data, at most MEMPLUG_ATTR_WRITE_MAX bytes. All but
                              memplug/cancel stand in one queue; -EAGAIN: it is full. The answer's
                              text is what the file says then, before another write, if it can be
                              read and is shorter than 128 bytes */
    MEMPLUG_SERVE_LIST,    /* a directory: "d 0755 name" a line; d, f, or l for a link */
    MEMPLUG_SERVE_LINK,    /* where a link leads */
    MEMPLUG_SERVE_WATCH,   /* a file: EVENT with its text now and whenever it is found changed. It
                              is looked at ten times a second: what is there for less is missed.
                              Ends with the file, -ENODEV, or with the connection */
    /* Operations are writes that went into the queue; their numbers begin at 1. */
    MEMPLUG_SERVE_OPERATIONS_GET, /* no path: a line each, oldest first: "3 running PATH text
                                     OPERATION STEP done total ms"; queued, running, or ended and
                                     then the result behind ms. A text of one word, or - */
    MEMPLUG_SERVE_WAIT,    /* data: a number. The answer is what the write's was, or will be.
                              -ESRCH: no such number, or it ended too long ago */
    MEMPLUG_SERVE_CANCEL,  /* data: a number. -ESRCH: no such number, or it has ended */
};

/* Flags of a request; others are -EINVAL. SET and WAIT only. */
#define MEMPLUG_SERVE_DETACHED 1u /* the write goes on without its client */
#define MEMPLUG_SERVE_PROGRESS 2u /* say how it stands, some times a second */

struct memplug_serve_request {
    uint32_t magic;
    uint8_t verb, flags;
    uint16_t path_bytes;
    uint32_t id;         /* comes back in answers */
    uint32_t timeout_ms; /* of SET, its turn in the queue included; 0: as the tree's limit */
};

enum memplug_serve_kind {
    MEMPLUG_SERVE_ANSWER = 1, /* the last of a request. result: what the call behind it returned,
                                 bytes or -errno; text: the file, or of an error its reason */
    MEMPLUG_SERVE_STARTED,    /* of a SET with flags: result is the operation's number */
    MEMPLUG_SERVE_NEWS,       /* progress: "OPERATION STEP done total" */
    MEMPLUG_SERVE_EVENT,      /* of a watch */
};

/* Flags of an answer. */
#define MEMPLUG_SERVE_MORE 1u /* the next packet goes on with this text */

struct memplug_serve_answer {
    uint32_t magic;
    uint8_t kind, flags;
    uint16_t zero;
    uint32_t id;
    int32_t result;
};

#ifdef __cplusplus
}
#endif
#endif
