/* SPDX-License-Identifier: MIT */
/* Pools to be measured: on the Linux host, and on memory that is mapped and warm. */
#ifndef BENCH_POOL_H
#define BENCH_POOL_H

#include <memplug/linux.h>

#define BENCH_BLOCK_BYTES (128ull << 20)

/* Ends the process with the reason as a sentence. */
void bench_must(int error, const struct memplug_reason *reason);

/* An empty pool on the Linux host, for ranges of so many bytes; and its host. With an owner: mover
 * 1 is one that refuses to move, and ranges go online movable. */
struct memplug *bench_pool_linux(uint64_t size_bytes, bool owner);
struct memplug_linux *bench_pool_linux_host(void);
/* Of the Linux pool: 128 MiB, or what makes at most 4,096 of them. */
uint64_t bench_pool_block_bytes(void);

/*
 * The core's own work: every operation of the host is there, and none does anything. nr_blocks
 * blocks from block 1 on are a shared file; the memmap window maps the head of each block, and all
 * of a block's memmap is touched. touch_data: so is the data.
 */
struct memplug *bench_pool_warm(uint64_t nr_blocks, bool touch_data,
                                const struct memplug_mover *mover);
char *bench_pool_warm_memory(void); /* where address 0 is, or would be */

/* Adds a range of fresh memory to a Linux pool, or at block 1 of a warm one, and puts it online;
 * returns its address. */
uint64_t bench_pool_plug(struct memplug *pool, enum memplug_memmap memmap, uint64_t size_bytes);
/* Ranges are of huge pages from now on. */
void bench_pool_huge(bool huge);
/* After the range was removed: gives its file back. */
void bench_pool_forget(void);

#endif
