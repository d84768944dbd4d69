/* SPDX-License-Identifier: MIT */
/*
 * What libmemplug-preload.so shows to the program that runs on it (memplug-run(1)), found with
 * dlsym(RTLD_DEFAULT, "memplug_preload_pool"): the pool that its memory is in. All three are null
 * before the program's first allocation, in a forked child, and in a process without a pool. The
 * program must be linked with the same version of the library.
 */
#ifndef MEMPLUG_PRELOAD_H
#define MEMPLUG_PRELOAD_H

#include <memplug/space.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memplug *memplug_preload_pool(void);
struct memplug_linux *memplug_preload_host(void);
struct memplug_space *memplug_preload_space(void);

#ifdef __cplusplus
}
#endif
#endif
