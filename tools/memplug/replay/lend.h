/* SPDX-License-Identifier: MIT */
/*
 * A host on top of the fake one, whose own memory is the pool's boot memory: what it provides as
 * a memmap it takes from the pool, and has none if the pool has none. Its clock is a virtual one
 * that runs while somebody waits.
 */
#ifndef REPLAY_LEND_H
#define REPLAY_LEND_H

#include "../../../hosts/fake/fake.h"

struct lend;

struct lend *lend_open(struct fake_machine *machine);
void lend_close(struct lend *lend);

/* For memplug_config.host. */
const struct memplug_host *lend_host(const struct lend *lend);

/* From now on memory comes from this pool; null: from the fake machine's own again. What was
 * provided before goes back to where it came from. */
void lend_from(struct lend *lend, struct memplug *pool);

/* Pages of the pool that memmaps are made of now. */
uint64_t lend_nr_pages(const struct lend *lend);

#endif
