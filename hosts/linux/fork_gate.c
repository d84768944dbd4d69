/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "fork_gate.h"

#include "sys.h"

#include <errno.h>
#include <linux/futex.h>
#include <time.h>

#define NR_GATES 8192u /* so that none is in use again before its child has looked */
#define SLICE_NS 20000000
#define CHILD_SLICES 100u   /* that it waits before it helps itself */
#define ARRIVAL_SLICES 100u /* that its parent waits to see it, */
#define STEP_SLICES 250u    /* and for each step of its */

struct mpl_gate {
    _Atomic uint32_t word;     /* the fork's serial * 8 + one of these */
    _Atomic uint32_t nr_steps; /* that the child has taken */
};
enum { SHUT, OPEN, REFUSED, ASKED, TAKING, TAKEN };

int mpl_gates_open(struct mpl_fork *fork)
{
    void *gates = mpl_sys_mmap(NULL, NR_GATES * sizeof(*fork->gates), PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    fork->gates = gates == MAP_FAILED ? NULL : gates;
    return fork->gates ? 0 : -ENOMEM;
}

void mpl_gates_close(struct mpl_fork *fork, struct memplug_linux *host)
{
    if (fork->gates)
        mpl_spare_munmap(&host->spare, fork->gates, NR_GATES * sizeof(*fork->gates));
    fork->gates = NULL;
}

static struct mpl_gate *gate_of(const struct mpl_fork *fork)
{
    return &fork->gates[fork->serial % NR_GATES];
}

static uint32_t word_of(const struct mpl_fork *fork, uint32_t state)
{
    return (uint32_t)fork->serial << 3 | state;
}

/* False: it is in another state by now. */
static bool pass(const struct mpl_fork *fork, uint32_t from, uint32_t to)
{
    struct mpl_gate *gate = gate_of(fork);
    uint32_t expected = word_of(fork, from);

    if (!atomic_compare_exchange_strong(&gate->word, &expected, word_of(fork, to)))
        return false;
    syscall(SYS_futex, &gate->word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
    return true;
}

static void wait_for_change(struct mpl_gate *gate, uint32_t word)
{
    const struct timespec slice = {.tv_nsec = SLICE_NS};

    syscall(SYS_futex, &gate->word, FUTEX_WAIT, word, &slice, NULL, 0);
}

/* --- the parent ------------------------------------------------------------------------------- */

void mpl_gate_shut(struct mpl_fork *fork)
{
    atomic_store(&gate_of(fork)->nr_steps, 0);
    atomic_store(&gate_of(fork)->word, word_of(fork, SHUT));
}

void mpl_gate_open(struct mpl_fork *fork)
{
    struct mpl_gate *gate = gate_of(fork);

    atomic_store(&gate->word, word_of(fork, OPEN));
    syscall(SYS_futex, &gate->word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

int mpl_gate_ask(struct mpl_fork *fork)
{
    struct mpl_gate *gate = gate_of(fork);
    uint32_t nr_steps = 0, word;
    unsigned nr_slices = 0;

    pass(fork, SHUT, ASKED);
    while ((word = atomic_load(&gate->word)) == word_of(fork, ASKED) ||
           word == word_of(fork, TAKING)) {
        wait_for_change(gate, word);
        nr_slices = atomic_load(&gate->nr_steps) == nr_steps ? nr_slices + 1 : 0;
        nr_steps = atomic_load(&gate->nr_steps);
        if (nr_slices >= (nr_steps == 0 ? ARRIVAL_SLICES : STEP_SLICES))
            pass(fork, word & 7, REFUSED);
    }
    return word == word_of(fork, TAKEN) ? 0 : -EAGAIN;
}

int mpl_gate_refuse(struct mpl_fork *fork)
{
    if (pass(fork, SHUT, REFUSED) || pass(fork, TAKING, REFUSED))
        return -EAGAIN;
    return atomic_load(&gate_of(fork)->word) == word_of(fork, TAKEN) ? 0 : -EAGAIN;
}

/* --- the child -------------------------------------------------------------------------------- */

static bool take_piece(struct memplug_space *space, const struct mpl_fork_piece *piece)
{
    for (uint64_t at = 0, nr; at < piece->size_bytes; at += nr) {
        nr = piece->size_bytes - at;
        nr = nr < space->unit_bytes ? nr : space->unit_bytes;
        if (mpl_sys_madvise(piece->va + at, nr, MADV_POPULATE_WRITE) != 0)
            return false;
        atomic_fetch_add(&gate_of(&space->fork)->nr_steps, 1);
    }
    return mpl_sys_madvise(piece->va, piece->size_bytes, MADV_DOFORK) == 0;
}

/* It shares nothing any more. Its parent may have thought better of it. */
static int take_all(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;
    bool taken = true;

    atomic_fetch_add(&gate_of(fork)->nr_steps, 1);
    for (uint64_t i = 0; i < fork->nr && taken; i++)
        if (fork->pieces[i].kind == MPL_FORK_SHARE)
            taken = take_piece(space, &fork->pieces[i]);
    pass(fork, TAKING, taken ? TAKEN : REFUSED);
    return atomic_load(&gate_of(fork)->word) == word_of(fork, REFUSED) ? -EAGAIN : 0;
}

/* Its parent has ended, or it is its parent's sibling (CLONE_PARENT), which is not looked for: in
 * the second case frames change. */
static bool is_anothers(const struct mpl_fork *fork)
{
    long parent = syscall(SYS_getppid); /* 0: it is in another namespace */

    return parent != fork->parent && parent != 0;
}

int mpl_gate_wait(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;
    struct mpl_gate *gate = gate_of(fork);

    for (unsigned nr_slices = 0;; nr_slices++) {
        uint32_t word = atomic_load(&gate->word);

        if (word != word_of(fork, SHUT) && word != word_of(fork, ASKED))
            return word == word_of(fork, OPEN) ? 0 : -EAGAIN;
        if (word == word_of(fork, SHUT) && nr_slices < CHILD_SLICES && !is_anothers(fork))
            wait_for_change(gate, word);
        else if (pass(fork, word & 7, TAKING))
            return take_all(space);
    }
}
