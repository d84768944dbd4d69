/* SPDX-License-Identifier: MIT */
/*
 * Pools of huge pages on top of the frames, with Linux's hugetlb rules (linux semantics, 9 and 11):
 * a free huge page of a block that goes offline leaves the pool with it, unless a reserve needs it
 * (-EBUSY); a used one is moved to another huge page, from the pool or freshly allocated. Unlike
 * Linux, an offline that fails gives the pool back what it had.
 *
 * HVO (huge page vmemmap optimisation). The struct pages of a huge page's tails say nothing. While
 * such a page exists, the memmap pages that hold nothing but tails (7 of 8 for 2 MiB, 4,095 of
 * 4,096 for 1 GiB, with 4 KiB pages and 64-byte struct pages) can be lent: the window shows the
 * first one in their place. Of a memmap of the host's they go back to the host. Of a self-hosted
 * one they become frames of the block that holds them, for movable use only; they are taken back,
 * and whoever uses them is moved away, before the huge page is dissolved, before it moves, and
 * before a block that holds a part of either goes offline. If that cannot be done it is -EBUSY (or
 * -ENOMEM: the host has none to restore its memmap with), and nothing has changed. Huge pages
 * themselves never lie in lent frames, drivers cannot keep these back, and as a part of a memmap
 * they cannot be poisoned. Nobody writes to the struct pages of tails.
 */
#ifndef MEMPLUG_HUGE_H
#define MEMPLUG_HUGE_H

#include <memplug/memplug.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The sizes: a pageblock (2 MiB with 4 KiB pages), and what a table of these maps (1 GiB). The
 * larger one needs contiguous blocks: RANGE or HOST memmaps. */
enum memplug_huge { MEMPLUG_HUGE_PMD, MEMPLUG_HUGE_PUD, MEMPLUG_NR_HUGE };

/* Pages of one huge page. */
uint64_t memplug_huge_pages(const struct memplug *pool, enum memplug_huge size);

/*
 * Make the pool of this size hold nr huge pages, as writing nr_hugepages does: it grows as far as
 * there are frames (movable zones first), and shrinks as far as pages are free and not reserved;
 * what is in use or reserved beyond nr counts as surplus, and leaves when it is freed. Nothing is
 * moved to make room. 0 also if it went less far than it should, since there are no frames, or
 * since somebody stays in a lent frame: info tells how far it went, and reason->why is not null and
 * says what was in the way. With MEMPLUG_ANY_NODE nodes grow and shrink in turn; with a node nr is
 * what that node shall have. -EINVAL; -ETIMEDOUT, -EINTR: it stops where it is. Control lock.
 */
int memplug_huge_resize(struct memplug *pool, enum memplug_huge size, uint64_t nr, int node,
                        const struct memplug_limit *limit, struct memplug_reason *reason);

/* Promise that nr more huge pages can be taken, by requests with a mover and of any node: -ENOMEM.
 * A promise holds against everything: offline refuses to break it, and shrinking leaves what was
 * promised. unreserve: -EINVAL more than was promised. Neither waits. */
int memplug_huge_reserve(struct memplug *pool, enum memplug_huge size, uint64_t nr);
int memplug_huge_unreserve(struct memplug *pool, enum memplug_huge size, uint64_t nr);

/*
 * A huge page from the pool, lowest address first, Movable first: its mover, cookie, node and
 * pinned are those of the request, whose nr_pages and align_pages are not used. Without a mover it
 * comes from kernel zones only. reserved: one that was promised; -EINVAL without a mover, with
 * this_node, or if none was. -ENOMEM the pool has none to give; -EINVAL as memplug_alloc(). Freed
 * by memplug_huge_free(): back to the pool, not to the allocator; -EINVAL, -EBUSY, -ENODEV as
 * memplug_free(), which answers -EINVAL for such a page. A page with a mover is given to it like
 * any other page; it stays huge, and the pool keeps its size by a move: the target is another free
 * huge page that nobody was promised, whose place the source takes, else fresh frames. A surplus
 * page whose memmap is lent waits in the pool, for nobody, until the next resize or offline.
 */
int memplug_huge_alloc(struct memplug *pool, enum memplug_huge size,
                       const struct memplug_alloc *request, bool reserved, memplug_pfn_t *pfn);
int memplug_huge_free(struct memplug *pool, memplug_pfn_t pfn);

struct memplug_huge_info {
    uint64_t nr_huge;      /* HugePages_Total */
    uint64_t nr_free, nr_reserved, nr_surplus;
    uint64_t nr_optimized; /* whose memmap is lent */
    uint64_t nr_lent_pages; /* memmap pages that are */
};

/* node: MEMPLUG_ANY_NODE is all; reserved is not counted by node. -EINVAL. */
int memplug_huge_info(const struct memplug *pool, enum memplug_huge size, int node,
                      struct memplug_huge_info *info);

#ifdef __cplusplus
}
#endif
#endif
