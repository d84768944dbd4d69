/* SPDX-License-Identifier: MIT */
/*
 * Start and stop. Threads are the C library's, on stacks of ours: threads that it did not know of
 * would keep the rights of root when the program gives them up by setuid().
 */
#include "server.h"
#include "sys.h"

#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

/* The C library puts thread-local storage there too, that of all libraries of the program. An
 * offline needs 20 KiB (measured); the rest is not touched. */
#define STACK_BYTES ((size_t)512 << 10)
#define GUARD_BYTES ((size_t)64 << 10) /* a page of any machine */
#define OPERATION "serve"

/* --- words ------------------------------------------------------------------------------------ */

void mpl_serve_word_wait(mpl_word_t *word, uint32_t value, uint64_t timeout_ns)
{
    struct timespec timeout = {
        .tv_sec = (time_t)(timeout_ns / 1000000000u),
        .tv_nsec = (long)(timeout_ns % 1000000000u),
    };

    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, timeout_ns != 0 ? &timeout : NULL, NULL, 0);
}

void mpl_serve_word_wake(mpl_word_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

bool mpl_serve_stopping(const struct memplug_server *server)
{
    return __atomic_load_n(&server->stopping, __ATOMIC_ACQUIRE) != 0;
}

/* --- start ------------------------------------------------------------------------------------ */

static int explain(struct memplug_reason *reason, int error, const char *why)
{
    if (reason != NULL)
        *reason = (struct memplug_reason){
            .error = error,
            .operation = OPERATION,
            .why = error != 0 ? why : NULL,
            .address = MEMPLUG_ANY_ADDRESS,
            .block = -1,
            .node = MEMPLUG_ANY_NODE,
            .pfn = {UINT64_MAX},
        };
    return error;
}

/* The server stands behind the stacks, each of which has a guard below it. */
static size_t stacks_bytes(void)
{
    return MPL_NR_THREADS * (STACK_BYTES + GUARD_BYTES);
}

static char *stack_of(struct memplug_server *server, unsigned thread)
{
    return (char *)server - stacks_bytes() + thread * (STACK_BYTES + GUARD_BYTES) + GUARD_BYTES;
}

static void unmap(struct memplug_server *server)
{
    syscall(SYS_munmap, (char *)server - stacks_bytes(), server->mapped_bytes);
}

static int map(struct memplug_server **server)
{
    size_t size_bytes = stacks_bytes() + sizeof(**server);
    char *memory = (char *)syscall(SYS_mmap, NULL, size_bytes, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        return -ENOMEM;
    *server = (struct memplug_server *)(void *)(memory + stacks_bytes());
    (*server)->mapped_bytes = size_bytes;
    for (unsigned i = 0; i < MPL_NR_THREADS; i++) {
        char *guard = stack_of(*server, i) - GUARD_BYTES;

        if (MPL_SYS(SYS_mprotect, guard, GUARD_BYTES, PROT_NONE) != 0) {
            unmap(*server);
            return -ENOMEM;
        }
    }
    return 0;
}

static int start_thread(struct memplug_server *server, unsigned thread, void *(*body)(void *))
{
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);

    if (error == 0)
        error = pthread_attr_setstack(&attributes, stack_of(server, thread), STACK_BYTES);
    if (error == 0)
        error = pthread_create(&server->threads[thread], &attributes, body, server);
    pthread_attr_destroy(&attributes);
    if (error == 0)
        server->nr_threads = thread + 1;
    return -error;
}

/* They are born with all signals blocked. pthread_sigmask() and not the system call: it leaves the
 * library's own signals alone, without which setuid() would wait for our threads for ever. */
static int start_threads(struct memplug_server *server)
{
    static void *(*const bodies[MPL_NR_THREADS])(void *) = {
        [MPL_DOOR] = mpl_serve_door,
        [MPL_READER] = mpl_serve_reader,
        [MPL_WORKER] = mpl_serve_worker,
    };
    sigset_t all, before;
    int error = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (unsigned i = 0; i < MPL_NR_THREADS && error == 0; i++)
        error = start_thread(server, i, bodies[i]);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0)
        while (__atomic_load_n(&server->opened, __ATOMIC_ACQUIRE) == 0)
            mpl_serve_word_wait(&server->opened, 0, 0);
    return error;
}

int memplug_serve_start(const struct memplug_serve_config *config, struct memplug_server **started,
                        struct memplug_reason *reason)
{
    struct memplug_server *server;
    const char *why = "no address space for the server";
    int saved = errno;
    int error = map(&server);

    if (error == 0) {
        server->attr = config->attr;
        server->pid = (int)syscall(SYS_getpid);
        error = mpl_serve_place_choose(server, config->directory, &why);
        if (error == 0) {
            why = "no thread could be started";
            error = start_threads(server);
        }
        if (error == 0 && server->open_error != 0) {
            why = server->open_why;
            error = server->open_error;
        }
        if (error != 0)
            memplug_serve_stop(server);
    }
    if (error == 0)
        *started = server;
    errno = saved;
    return explain(reason, error, why);
}

/* --- stop ------------------------------------------------------------------------------------- */

/* The door waits for clients, so be one. Where that cannot be, it looks up by itself in a while. */
static void knock(const struct memplug_server *server)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    long fd = MPL_SYS(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return;
    if (memplug_serve_path(server, address.sun_path, sizeof(address.sun_path)) <
        sizeof(address.sun_path))
        syscall(SYS_connect, fd, &address, sizeof(address));
    mpl_close((int)fd);
}

void memplug_serve_stop(struct memplug_server *server)
{
    uint64_t now_ns = mpl_serve_now_ns();
    int saved = errno;

    if (syscall(SYS_getpid) != server->pid) {
        unmap(server);
        errno = saved;
        return;
    }
    __atomic_store_n(&server->stopping, 1, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < MEMPLUG_SERVE_OPERATIONS; i++)
        if (mpl_serve_operation_state(&server->operations[i]) == MPL_QUEUED ||
            mpl_serve_operation_state(&server->operations[i]) == MPL_RUNNING)
            mpl_serve_operation_cancel(&server->operations[i], now_ns);
    if (server->nr_threads > MPL_DOOR) {
        knock(server);
        pthread_join(server->threads[MPL_DOOR], NULL);
    }
    /* Not before: the door waits for the reader, whatever else there is. */
    if (server->nr_threads > MPL_READER)
        mpl_serve_read_end(server);
    __atomic_fetch_add(&server->work, 1, __ATOMIC_ACQ_REL);
    mpl_serve_word_wake(&server->work);
    for (unsigned i = MPL_DOOR + 1; i < server->nr_threads; i++)
        pthread_join(server->threads[i], NULL);
    unmap(server);
    errno = saved;
}

size_t memplug_serve_path(const struct memplug_server *server, char *text, size_t size_bytes)
{
    struct mpl_words words = {.text = text, .size_bytes = size_bytes};

    mpl_serve_put(&words, server->directory);
    mpl_serve_put(&words, "/");
    mpl_serve_put(&words, server->name);
    return mpl_serve_put_end(&words);
}
