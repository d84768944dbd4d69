/* SPDX-License-Identifier: MIT */
/* DPDK's start, without huge pages, devices or files. */
#ifndef BENCH_DPDK_H
#define BENCH_DPDK_H

#include <stdint.h>

void dpdk_open(uint64_t megabytes);

#endif
