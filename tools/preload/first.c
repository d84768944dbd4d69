/* SPDX-License-Identifier: MIT */
/* Opened by whoever comes first: the first mmap of the malloc library. */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's own way out: exit() would run what the program has not set up yet. */
static void give_up(void)
{
    syscall(SYS_exit_group, MPL_PRE_EXIT);
    __builtin_unreachable();
}

static enum mpl_pre_state open_first(void)
{
    struct mpl_pre_config config;
    int saved = errno;

    mpl_say_open();
    if (!mpl_pre_config_read(&config))
        give_up();
    if (config.pid != 0 && config.pid != (pid_t)syscall(SYS_getpid)) {
        if (!config.children) {
            errno = saved;
            return MPL_PRE_NONE;
        }
        config.nr_ranges = 0;
    }
    if (!mpl_pre_open(&config, true))
        give_up();
    mpl_pre_fork_open();
    errno = saved;
    return MPL_PRE_READY;
}

struct memplug_space *mpl_pre_space_if_open(void)
{
    return atomic_load_explicit(&mpl_preload.state, memory_order_acquire) == MPL_PRE_READY
               ? mpl_preload.space : NULL;
}

struct memplug_space *mpl_pre_space(void)
{
    uint32_t state = atomic_load_explicit(&mpl_preload.state, memory_order_acquire);

    if (state != MPL_PRE_UNTRIED)
        return state == MPL_PRE_READY ? mpl_preload.space : NULL;
    mpl_pre_enter(&mpl_preload.opening);
    if (atomic_load_explicit(&mpl_preload.state, memory_order_relaxed) == MPL_PRE_UNTRIED)
        atomic_store_explicit(&mpl_preload.state, open_first(), memory_order_release);
    mpl_pre_leave(&mpl_preload.opening);
    return mpl_pre_space_if_open();
}
