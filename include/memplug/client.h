/* SPDX-License-Identifier: MIT */
/*
 * The other side of serve.h: for tools that look at, and change, the pool of a running program.
 * Ordinary code that calls malloc; one thread at a time to a client. libmemplug-client.
 */
#ifndef MEMPLUG_CLIENT_H
#define MEMPLUG_CLIENT_H

#include <memplug/serve.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memplug_client {
    int fd;
    uint32_t id;
    int pid;      /* of the server, as the kernel says: 0 if it is in another pid namespace */
    unsigned uid; /* its effective user when it began to listen */
    unsigned timeout_ms; /* may be changed between calls */
};

/* Connects to a server's socket. timeout_ms: how long an answer may take, from the request or from
 * what was heard last; 0: for good. -ENOENT, -ECONNREFUSED nobody listens there any more; -EACCES;
 * -ENAMETOOLONG. */
int memplug_client_open(struct memplug_client *client, const char *path, unsigned timeout_ms);
void memplug_client_close(struct memplug_client *client);

/* STARTED, NEWS and EVENT, whole, terminated. Not 0: enough; the call ends with that, and the
 * client can only be closed. */
typedef int memplug_client_hear_t(void *context, enum memplug_serve_kind kind, int result,
                                  const char *text);

struct memplug_client_request {
    enum memplug_serve_verb verb;
    unsigned flags;
    uint32_t timeout_ms;
    const char *path; /* null: none */
    const char *data; /* null: none */
    size_t length;
    memplug_client_hear_t *hear; /* null: nobody */
    void *context;
};

/*
 * One request and its answer. Returns the answer's result, or what hear() returned; -EPROTO the
 * server says what this library does not understand, -ECONNRESET it has gone, -EAGAIN its time is
 * over; after these the client can only be closed. text: if not null, the answer's text,
 * terminated, or null; to be freed. With an error that is the reason as a sentence. A text has no
 * control characters but newlines, whatever the server says.
 */
int memplug_client_call(struct memplug_client *client, const struct memplug_client_request *request,
                        char **text);

/* A file, a directory ("d 0755 name" a line); a file set to a word. As memplug_client_call(). */
int memplug_client_get(struct memplug_client *client, const char *path, char **text);
int memplug_client_list(struct memplug_client *client, const char *path, char **text);
int memplug_client_set(struct memplug_client *client, const char *path, const char *word,
                       char **text);

/*
 * Where servers are: those of this user, and for root those of all users. Calls found() for the
 * path of each socket, whether somebody listens or not, until it answers something else than 0,
 * which is returned. Directories that are not their user's alone are passed over. A null directory:
 * the usual ones.
 */
typedef int memplug_client_found_t(void *context, const char *path);
int memplug_client_find(const char *directory, memplug_client_found_t *found, void *context);

#ifdef __cplusplus
}
#endif
#endif
