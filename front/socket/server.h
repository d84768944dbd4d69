/* SPDX-License-Identifier: MIT */
/*
 * What belongs to one server. Everything lies in one mapping, with the stacks of its threads.
 *
 * The door (door.c, request.c, place.c) owns the connections and everything else that has no other
 * owner. It asks the reader (read.c) and waits for it; it hands operations to the worker (work.c)
 * and looks after them from time to time. There is no descriptor between threads: nothing that the
 * program could close.
 */
#ifndef SOCKET_SERVER_H
#define SOCKET_SERVER_H

#include <memplug/serve.h>

#include <pthread.h>

#define MPL_DIRECTORY_BYTES 256u
#define MPL_NAME_BYTES 24u
#define MPL_LINE_BYTES 128u
#define MPL_LINE_MAX_BYTES 1024u /* of an operation: its path, its text, words of its steps */
#define MPL_NOBODY UINT32_MAX
#define MPL_WATCH_NS 100000000ull /* how often a file is read that somebody watches */

/* A word on which one thread waits for another. */
typedef uint32_t mpl_word_t;

/* --- operations ------------------------------------------------------------------------------- */

enum mpl_serve_operation_state { MPL_FREE, MPL_QUEUED, MPL_RUNNING, MPL_ENDED };

struct mpl_operation {
    /* QUEUED to RUNNING: the worker, or the door that cancels it; to ENDED: the same. Who has seen
     * ENDED may read all. */
    uint32_t state;
    uint64_t number;
    bool detached;             /* the door's */
    uint64_t queued_ns, timeout_ns; /* 0: the tree's limit */
    uint64_t ended_ns;
    struct memplug_attr_handle handle;
    char path[MEMPLUG_SERVE_PATH_MAX + 1];
    char text[MEMPLUG_ATTR_WRITE_MAX];
    uint32_t length;
    int result;
    char answer[MPL_LINE_BYTES]; /* what the file said then */
    uint32_t answer_length;
    struct memplug_reason reason;
    /* How it stands; each read and written atomically. */
    const char *operation, *step;
    uint64_t nr_done, nr_total;
};

/* --- connections ------------------------------------------------------------------------------ */

enum mpl_business { MPL_IDLE, MPL_SETTING, MPL_WAITING, MPL_WATCHING };

struct mpl_connection {
    int fd; /* -1: none */
    enum mpl_business business;
    uint32_t id;            /* of the request that is on */
    bool news;              /* it wants to hear how the operation stands */
    bool ending;            /* close it when all is sent */
    uint64_t number;        /* of the operation */
    uint64_t last_ns;       /* when it was last heard of */
    uint64_t news_ns, news_hash;
    struct memplug_attr_handle watched;
    uint64_t watched_ns, watched_hash; /* when it was read last */
    /* Packets that the client has not taken yet, each behind its length; mapped while there are. */
    char *held;
    size_t held_bytes, sent_bytes;
};

/* --- the reader ------------------------------------------------------------------------------- */

enum mpl_errand_kind { MPL_READ, MPL_OPEN, MPL_READ_HANDLE, MPL_LIST, MPL_LINK, MPL_END };

/* The reader may be late, and then has this to the end: so it holds no pointers. */
struct mpl_errand {
    mpl_word_t turn; /* odd: the reader's; even: the door's */
    enum mpl_errand_kind kind;
    char path[MEMPLUG_SERVE_PATH_MAX + 1];
    unsigned access;
    struct memplug_attr_handle handle;
    int result; /* of a text its full length */
};

/* --- all of it -------------------------------------------------------------------------------- */

enum mpl_thread { MPL_DOOR, MPL_READER, MPL_WORKER, MPL_NR_THREADS };

struct memplug_server {
    struct memplug_attr *attr;
    uint64_t mapped_bytes;
    int pid;
    mpl_word_t stopping;
    mpl_word_t opened; /* 1: see open_error */
    int open_error;
    const char *open_why;

    pthread_t threads[MPL_NR_THREADS];
    unsigned nr_threads;

    char directory[MPL_DIRECTORY_BYTES], name[MPL_NAME_BYTES];

    /* The door's, in its own table of descriptors. */
    int directory_fd, listening_fd, epoll_fd;
    uint64_t socket_dev, socket_ino; /* of the file */
    uint64_t deaf_until_ns;          /* no descriptors were left: nobody is let in until then */
    struct mpl_connection connections[MEMPLUG_SERVE_CONNECTIONS];
    char packet[sizeof(struct memplug_serve_request) + MEMPLUG_SERVE_PATH_MAX +
                MEMPLUG_ATTR_WRITE_MAX];

    struct mpl_errand errand;
    char text[MEMPLUG_SERVE_TEXT_MAX]; /* of the errand */

    mpl_word_t work; /* counts up when there is some */
    uint64_t nr_operations;
    struct mpl_operation operations[MEMPLUG_SERVE_OPERATIONS];
};

/* --- serve.c ---------------------------------------------------------------------------------- */

/* While the word has this value; may return early. timeout_ns 0: for good. */
void mpl_serve_word_wait(mpl_word_t *word, uint32_t value, uint64_t timeout_ns);
void mpl_serve_word_wake(mpl_word_t *word);
bool mpl_serve_stopping(const struct memplug_server *server);

/* --- place.c: where the socket is ------------------------------------------------------------- */

/* In the caller's thread: which directory; makes it. 0, or -errno and why. */
int mpl_serve_place_choose(struct memplug_server *server, const char *directory, const char **why);
/* In the door's: bind and listen. */
int mpl_serve_place_open(struct memplug_server *server, const char **why);
/* Is the socket's file still there? Else it is made anew, if that can be. */
void mpl_serve_place_renew(struct memplug_server *server);
void mpl_serve_place_close(struct memplug_server *server);

/* --- door.c ----------------------------------------------------------------------------------- */

void *mpl_serve_door(void *server);
void mpl_serve_hang_up(struct memplug_server *server, struct mpl_connection *connection);

/* --- send.c ----------------------------------------------------------------------------------- */

struct mpl_message {
    enum memplug_serve_kind kind;
    int result;
    const char *text;
    size_t length;
};

/* Sends what can be sent and holds the rest; a client for whom too much is held is hung up. */
void mpl_serve_send(struct memplug_server *server, struct mpl_connection *connection, uint32_t id,
                    const struct mpl_message *message);
/* The client takes packets again. */
void mpl_serve_send_held(struct memplug_server *server, struct mpl_connection *connection);
void mpl_serve_send_forget(struct mpl_connection *connection);
/* Which events this connection waits for. */
void mpl_serve_send_interest(struct memplug_server *server, struct mpl_connection *connection);

/* --- request.c -------------------------------------------------------------------------------- */

void mpl_serve_request(struct memplug_server *server, struct mpl_connection *connection,
                       size_t length, bool cut);
/* What has changed for this connection since it was last looked at. */
void mpl_serve_look(struct memplug_server *server, struct mpl_connection *connection,
                    uint64_t now_ns);
/* The end of the request that is on, with an error and words for it, or no words. */
void mpl_serve_refuse(struct memplug_server *server, struct mpl_connection *connection, uint32_t id,
                      int error, const char *why);

/* --- read.c ----------------------------------------------------------------------------------- */

void *mpl_serve_reader(void *server);
/* By the door. The result is the errand's; a text is in server->text, cut to its size. -ETIMEDOUT:
 * the reader is late, with this or with what it was asked before. handle: what OPEN fills and
 * READ_HANDLE reads, else null. */
int mpl_serve_read(struct memplug_server *server, enum mpl_errand_kind kind, const char *path,
                   unsigned access, struct memplug_attr_handle *handle);
/* When the door has ended: the reader's last. */
void mpl_serve_read_end(struct memplug_server *server);

/* --- work.c ----------------------------------------------------------------------------------- */

void *mpl_serve_worker(void *server);
/* By the door, all of these. A slot whose state is FREE, or null: for the end of each somebody
 * waits. */
struct mpl_operation *mpl_serve_operation_new(struct memplug_server *server);
void mpl_serve_operation_queue(struct memplug_server *server, struct mpl_operation *operation);
struct mpl_operation *mpl_serve_operation_find(struct memplug_server *server, uint64_t number);
enum mpl_serve_operation_state mpl_serve_operation_state(const struct mpl_operation *operation);
/* Not for one that has ended. */
void mpl_serve_operation_cancel(struct mpl_operation *operation, uint64_t now_ns);
size_t mpl_serve_operation_line(const struct mpl_operation *operation, uint64_t now_ns, char *text,
                                size_t size_bytes);
/* "offline migrate 812 1024" */
size_t mpl_serve_operation_news(const struct mpl_operation *operation, char *text,
                                size_t size_bytes);

/* --- words.c: text without the C library ------------------------------------------------------ */

struct mpl_words {
    char *text;
    size_t size_bytes, length; /* length: of all that was put */
};
void mpl_serve_put(struct mpl_words *words, const char *text);
void mpl_serve_put_decimal(struct mpl_words *words, uint64_t number);
/* Terminated, where there is room for that. */
size_t mpl_serve_put_end(struct mpl_words *words);
/* Decimal digits, then perhaps a newline; false: something else. */
bool mpl_serve_decimal(const char *text, size_t length, uint64_t *number);
uint64_t mpl_serve_hash(const char *text, size_t length);

#endif
