/* SPDX-License-Identifier: MIT */
#include "preload.h"
void mpl_pre_fork_open(void)
{
}
