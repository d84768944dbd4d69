/* SPDX-License-Identifier: MIT */
/*
 * Locks in the heap that are said to be shared with other processes. Memory of malloc is private:
 * no other process can have them, and a forked child has copies. But a shared futex is found by its
 * place in the file, which a move changes: whoever waits would wait for ever. So in memory of the
 * pool they are made as what they are, private. Locks in memory that the program shares by itself
 * are left as they are.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool is_pool(const void *address)
{
    struct memplug_space *space = mpl_pre_space_if_open();

    return space && memplug_space_has(space, address);
}

/* The C library's, looked up when first needed. That can be inside malloc, which makes mutexes: a
 * name that is found takes no memory. */
static void *next(_Atomic(void *) *known, const char *name)
{
    void *found = atomic_load_explicit(known, memory_order_acquire);

    if (!found) {
        found = dlsym(RTLD_NEXT, name);
        atomic_store_explicit(known, found, memory_order_release);
    }
    return found;
}

#define CALL_NEXT(name, type, ...)                                                                \
    do {                                                                                          \
        static _Atomic(void *) known;                                                             \
        union {                                                                                   \
            void *found;                                                                          \
            type *call;                                                                           \
        } real = {.found = next(&known, #name)};                                                  \
                                                                                                  \
        return real.call(__VA_ARGS__);                                                            \
    } while (0)

typedef int sem_init_t_(sem_t *, int, unsigned);
typedef int mutex_init_t_(pthread_mutex_t *, const pthread_mutexattr_t *);
typedef int cond_init_t_(pthread_cond_t *, const pthread_condattr_t *);
typedef int rwlock_init_t_(pthread_rwlock_t *, const pthread_rwlockattr_t *);
typedef int barrier_init_t_(pthread_barrier_t *, const pthread_barrierattr_t *, unsigned);

MPL_PRE_EXPORT int sem_init(sem_t *semaphore, int shared, unsigned value)
{
    CALL_NEXT(sem_init, sem_init_t_, semaphore, is_pool(semaphore) ? 0 : shared, value);
}

MPL_PRE_EXPORT int pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr)
{
    pthread_mutexattr_t own;

    if (attr && is_pool(mutex)) {
        own = *attr;
        pthread_mutexattr_setpshared(&own, PTHREAD_PROCESS_PRIVATE);
        attr = &own;
    }
    CALL_NEXT(pthread_mutex_init, mutex_init_t_, mutex, attr);
}

MPL_PRE_EXPORT int pthread_cond_init(pthread_cond_t *restrict condition,
                                     const pthread_condattr_t *restrict attr)
{
    pthread_condattr_t own;

    if (attr && is_pool(condition)) {
        own = *attr;
        pthread_condattr_setpshared(&own, PTHREAD_PROCESS_PRIVATE);
        attr = &own;
    }
    CALL_NEXT(pthread_cond_init, cond_init_t_, condition, attr);
}

MPL_PRE_EXPORT int pthread_rwlock_init(pthread_rwlock_t *restrict lock,
                                       const pthread_rwlockattr_t *restrict attr)
{
    pthread_rwlockattr_t own;

    if (attr && is_pool(lock)) {
        own = *attr;
        pthread_rwlockattr_setpshared(&own, PTHREAD_PROCESS_PRIVATE);
        attr = &own;
    }
    CALL_NEXT(pthread_rwlock_init, rwlock_init_t_, lock, attr);
}

MPL_PRE_EXPORT int pthread_barrier_init(pthread_barrier_t *restrict barrier,
                                        const pthread_barrierattr_t *restrict attr,
                                        unsigned count)
{
    pthread_barrierattr_t own;

    if (attr && is_pool(barrier)) {
        own = *attr;
        pthread_barrierattr_setpshared(&own, PTHREAD_PROCESS_PRIVATE);
        attr = &own;
    }
    CALL_NEXT(pthread_barrier_init, barrier_init_t_, barrier, attr, count);
}

/* --- mlockall --------------------------------------------------------------------------------- */

/* It does what it says, and that is more than the program means: the library's own view of the pool
 * is locked too, block by block, touched or not. */
MPL_PRE_EXPORT int mlockall(int flags)
{
    struct mpl_line line = {.length = 0};

    if (mpl_pre_space_if_open()) {
        mpl_line_add(&line, "the program locks its memory (mlockall): ");
        mpl_line_add(&line, (flags & MCL_FUTURE) != 0
                                ? "each block of the pool is allocated in full as it is plugged in"
                                : "what is locked now stays so until it is moved");
        mpl_say(&line);
    }
    return (int)syscall(SYS_mlockall, flags);
}
