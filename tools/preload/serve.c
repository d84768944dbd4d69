/* SPDX-License-Identifier: MIT */
/*
 * The attribute tree of the pool on a socket, for whoever controls the program's memory. Begun by a
 * constructor and not by the first mmap: threads are made with malloc. Before it nobody can do more
 * than the program itself.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <memplug/serve.h>

#define NR_THREADS 3u

static struct memplug_server *server;

__attribute__((constructor)) static void begin(void)
{
    const struct memplug_serve_config config = {.attr = &mpl_preload.attr};
    struct memplug_reason reason = MPL_NO_REASON;

    if (mpl_pre_space() && memplug_serve_start(&config, &server, &reason) != 0) {
        server = NULL;
        mpl_say_reason("the memory of this program cannot be controlled from outside", &reason);
    }
}

__attribute__((destructor)) static void end(void)
{
    struct memplug_server *ours = server;

    server = NULL;
    if (ours)
        memplug_serve_stop(ours);
}

unsigned mpl_pre_serve_threads(void)
{
    return server ? NR_THREADS : 0;
}

/* It has neither threads nor a socket, and stop only gives their memory back. Round the C library's
 * fork that still lists the threads, and writes to their stacks when the child forks. */
void mpl_pre_serve_forget(bool listed)
{
    if (listed)
        server = NULL;
    end();
}
