/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "preload.h"

#include <memplug/preload.h>

MPL_PRE_EXPORT struct memplug *memplug_preload_pool(void)
{
    return mpl_pre_space_if_open() ? mpl_preload.pool : NULL;
}

MPL_PRE_EXPORT struct memplug_linux *memplug_preload_host(void)
{
    return mpl_pre_space_if_open() ? mpl_preload.host : NULL;
}

MPL_PRE_EXPORT struct memplug_space *memplug_preload_space(void)
{
    return mpl_pre_space_if_open();
}
