/* SPDX-License-Identifier: MIT */
/*
 * Movable mappings: ordinary pointers whose memory comes from a pool and can be replaced under
 * the running program, so that the blocks it lies in can go offline.
 *
 * A space is a window of addresses, cut into units (2 MiB). Each unit that has a mapped page holds
 * one allocation of the pool, moved as one. Small mappings share a unit. A forked child has the
 * mappings only by memplug_space_fork_before(), else SIGSEGV when it touches them.
 *
 * Futexes. Private ones do not notice a move. Threads that sleep on another one (a process-shared
 * mutex, semaphore or condition variable; pthread_join() of a thread whose stack is movable) are
 * woken by the move for no reason, as futex(2) allows, and sleep again. Where one waits for a
 * process-shared lock with priority inheritance the unit stays: -EBUSY; so does every unit where
 * /proc/PID/task/TID/syscall cannot be read (a process that is neither root nor dumpable). Not
 * seen, and lost by a move: futex waits submitted to an io_uring, and waiters requeued from one
 * shared futex to another.
 *
 * Held pages. I/O in flight holds a page, and its unit stays until it is let go. A move waits for
 * that up to 5 ms (20 ms: huge pages), with the unit's writers, and offline tries as often as its
 * limit says (struct memplug_limit: 5 times), with growing pauses. Then it is -EBUSY, and the
 * reason's detail says who holds the page: certain where the kernel tells, else who might.
 *
 * The thread that calls memplug_offline() must have its stack and thread-local storage elsewhere;
 * a move answers -EBUSY otherwise. All calls are safe from any thread, none from a signal handler.
 * They allocate nothing from the C library. A call on a unit that is being moved waits for the end
 * of that move, for no more. reason may be null.
 */
#ifndef MEMPLUG_SPACE_H
#define MEMPLUG_SPACE_H

#include <memplug/linux.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memplug_space;

/* What is demanded before a unit moves: that no I/O in flight holds one of its pages. */
enum memplug_pins {
    MEMPLUG_PINS_PROVED,  /* the kernel proves it for each unit, else the unit stays: -EBUSY */
    MEMPLUG_PINS_TRUSTED, /* the caller knows: no O_DIRECT, io_uring buffer, AIO or RDMA into these
                             mappings while blocks go offline. If there is, its data is lost */
};

struct memplug_space_config {
    uint64_t unit_bytes;   /* 0: 2 MiB; or 4 KiB, 64 KiB. A process has 65,530 mappings: that is
                              256 MiB of scattered 4 KiB units, 128 GiB of 2 MiB units */
    uint64_t window_bytes; /* of addresses; 0: as the host's direct map, or what there is */
    enum memplug_pins pins;
    int uffd_device_fd;    /* /dev/userfaultfd, opened by someone who may, and inherited; borrowed
                              for this call; -1 or 0: none */
    int node;              /* the preferred node, or MEMPLUG_ANY_NODE */
    bool unsafe_no_fence;  /* for tests that must see losses: writers are not held up. Loses data */
};

/*
 * Open a space of a pool and register its mover. A null config is all defaults. Runs the self-test
 * of the pin proof (up to 1 s, usually some ms). If this process may not have a full userfaultfd,
 * or nothing proves pages free of pins, the space works all the same, but its mappings are not
 * movable: offline then answers -EBUSY and why. reason->why tells it here already, with error 0.
 * -EINVAL unit, window; -ENOSPC the pool has 15 movers; -ENOMEM.
 */
int memplug_space_open(struct memplug_linux *host, struct memplug *pool,
                       const struct memplug_space_config *config, struct memplug_space **space,
                       struct memplug_reason *reason);

/* -EBUSY while anything is mapped. The pool keeps the mover's number; call it before or after
 * memplug_close(), and before memplug_linux_close(). */
int memplug_space_close(struct memplug_space *space, struct memplug_reason *reason);

/* Can mappings of this space be moved? 0, or -EBUSY and what would make it work. Says nothing of a
 * single frame: for that see memplug_why(). */
int memplug_space_movable(const struct memplug_space *space, struct memplug_reason *reason);

/* --- mappings --------------------------------------------------------------------------------- */

struct memplug_mapping {
    int protection;   /* PROT_*; 0: PROT_READ | PROT_WRITE. PROT_NONE: see no_access */
    bool no_access;   /* as PROT_NONE; memplug_protect() opens it later */
    bool populate;    /* allocate and map all of it now */
    bool no_dump;     /* leave it out of core dumps */
    const char *name; /* shown in /proc/PID/maps where the kernel can; copied; may be null */
};

/*
 * Map size_bytes of zeroed memory; rounded up to pages. A size of a unit or more begins at a unit.
 * Null opts: all zeros. -EINVAL size 0, protection, or a pool of huge pages under smaller units;
 * -ENOMEM the pool has no frames, or there are no addresses or kernel mappings left;
 * -EAGAIN it would be locked, by mlockall(MCL_FUTURE), and RLIMIT_MEMLOCK forbids it;
 * -ENODEV the program has closed a descriptor of the library. A failure has mapped nothing.
 */
int memplug_map(struct memplug_space *space, uint64_t size_bytes,
                const struct memplug_mapping *opts, void **address, struct memplug_reason *reason);

/*
 * Whole pages of one or several neighbouring mappings, all of them mapped by memplug_map(), else
 * -EINVAL and nothing is done.
 *
 * unmap: does not fail otherwise. The memory goes back to the system, or is zeroed where it cannot
 * (huge pages, files); a unit without mapped pages frees its frames.
 *
 * discard: the memory goes back, or is zeroed, at once; reads as zeros and can be written as
 * before. The unit keeps its place in the pool: so the next touch finds memory of the pool.
 *
 * protect, lock, name, advise: kept, and set again after each move. In units on huge pages they
 * hold for whole units only: -EINVAL. lock needs RLIMIT_MEMLOCK: -EPERM, -ENOMEM.
 * advise: Linux's numbers. DONTNEED, FREE and REMOVE discard. DONTDUMP, DODUMP, HUGEPAGE,
 * NOHUGEPAGE, SEQUENTIAL, RANDOM and NORMAL are kept. DOFORK is -EINVAL. Others go to the kernel.
 * name: null takes it away. At most 255 different names in a space: -ENOSPC. -EINVAL, -ENOSYS: the
 * kernel cannot name such memory; the name is forgotten.
 */
int memplug_unmap(struct memplug_space *space, void *address, uint64_t size_bytes);
int memplug_discard(struct memplug_space *space, void *address, uint64_t size_bytes);
int memplug_protect(struct memplug_space *space, void *address, uint64_t size_bytes,
                    int protection);
int memplug_lock(struct memplug_space *space, void *address, uint64_t size_bytes, bool lock);
int memplug_advise(struct memplug_space *space, void *address, uint64_t size_bytes, int advice);
int memplug_name(struct memplug_space *space, void *address, uint64_t size_bytes,
                 const char *name);

/* Does this address lie in the space's window? For a caller that sorts pointers; no lock. */
bool memplug_space_has(const struct memplug_space *space, const void *address);

/* --- fork ------------------------------------------------------------------------------------- */

/*
 * before: in the thread that is about to fork, as the last thing that it does. After 0 private
 * stand-ins are in the place of all mappings, which a child inherits as they are at that moment;
 * whoever else touches them sleeps until parent. alone: this thread is the only one, so that
 * nobody has to be held up. On failure nothing has changed, and a child will not have the mappings.
 * -EBUSY the thread's stack is in them; -EPERM not alone, and no full userfaultfd, or mappings of
 * files by which nobody can be held up; -ENOMEM there is
 * no room for stand-ins; -EAGAIN. check: the first two of these, and nothing is done.
 * parent: after a 0, whether or not there is a child, with errno as fork() has left it: if it has
 * changed there is none. -EAGAIN, of lazy forks only: there is no child, or one that is out of
 * reach and has no memory for copies: it gets this too, and must end; all else is done.
 * child: what it has is its own; descriptors of the host and the space are closed. -ENOMEM: it was
 * born with a descriptor of direct I/O or a socket without copies, and there is no memory for what
 * it must not share then; it must end, too. Nothing of the
 * pool, host and space may be used afterwards but memplug_space_has() and memplug_space_child_*().
 */
int memplug_space_fork_check(const struct memplug_space *space, bool alone,
                             struct memplug_reason *reason);
int memplug_space_fork_before(struct memplug_space *space, bool alone,
                              struct memplug_reason *reason);
int memplug_space_fork_parent(struct memplug_space *space);
int memplug_space_fork_child(struct memplug_space *space);

/*
 * From now on forks are lazy: what lies in memfds or tmpfs, can be written and is not alone, the
 * child shares until somebody writes; all else is copied in before(). A page's first write in the
 * parent waits until all children have it for themselves, which a thread of the library's sees to;
 * so do unmap, discard and moves. A child that can neither be given its copy (it has become
 * undumpable or another user, and its parent may not trace such) nor may share in silence is ended,
 * by SIGKILL: memplug_space_stat.nr_children_ended, and ended() is told, in the library's thread,
 * where it must not allocate; may be null. If even that is not permitted, who writes waits until
 * the child has ended, and ended() is told less than 0, once: -pid. I/O that is in flight during a
 * fork and writes into the memory may show in the child, as with a private mapping.
 *
 * Forks still copy while an io_uring has registered buffers or a device of VFIO or RDMA is open,
 * and where the child would be out of reach (a process that is not dumpable, or of mixed
 * identities, without CAP_SYS_PTRACE). A child that is out of reach all the same makes all its own
 * before it runs, and its parent waits; some forks copy then.
 *
 * Tries it once on a child made for that. Makes a thread: not beneath malloc. -EPERM no full
 * userfaultfd, or children cannot be reached; -ENOSYS, -EOPNOTSUPP, -ENOMEM, -EAGAIN; -EALREADY it
 * was called before, in vain. Forks copy then, as they do without it.
 */
int memplug_space_fork_lazily(struct memplug_space *space, void (*ended)(int pid),
                              struct memplug_reason *reason);

/*
 * Before and after a call by which this process may lose the right to trace its children (setuid()
 * and its kind, of all threads): what living children share becomes theirs before it, and forks in
 * between copy. -EBUSY: a child can neither be given its copy nor be ended; see above. An end
 * follows every begin.
 */
int memplug_space_change_begin(struct memplug_space *space);
void memplug_space_change_end(struct memplug_space *space);

/*
 * In a child, in place of system calls on addresses of the space: what it may share with its parent
 * then behaves as private memory that is no file's. 0 or -errno, the kernel's for that; of all else
 * they are the system call. map is mmap with MAP_FIXED; remap gets where to (MREMAP_FIXED) in
 * *address, and where it is now. What is moved is copied. MADV_WIPEONFORK is refused, as in the
 * parent.
 * own: becomes the child's now. hides: before it becomes what its parent may not trace, undumpable
 * or another user, own of all, unless its parent may trace every process (CAP_SYS_PTRACE). What
 * cannot be had then ends the child when its parent writes.
 * forks: before it forks by itself: own of all, since a grandchild would be nobody's; -ENOMEM: then
 * it must not. After a 0 no other thread's call goes on, until forked in both.
 */
int memplug_space_child_unmap(struct memplug_space *space, void *address, uint64_t size_bytes);
int memplug_space_child_map(struct memplug_space *space, void *address, uint64_t size_bytes,
                            int protection, int flags, int fd, uint64_t offset);
int memplug_space_child_protect(struct memplug_space *space, void *address, uint64_t size_bytes,
                                int protection);
int memplug_space_child_advise(struct memplug_space *space, void *address, uint64_t size_bytes,
                               int advice);
int memplug_space_child_remap(struct memplug_space *space, void *old, uint64_t old_bytes,
                              uint64_t new_bytes, int flags, void **address);
int memplug_space_child_own(struct memplug_space *space, void *address, uint64_t size_bytes);
void memplug_space_child_hides(struct memplug_space *space);
int memplug_space_child_forks(struct memplug_space *space);
void memplug_space_child_forked(struct memplug_space *space);

/* The lowest descriptor from this one on that belongs to the space or its host; -1: there is no
 * other. For a program that closes whatever it finds. */
int memplug_space_descriptor(const struct memplug_space *space, int from);

/* --- look on ---------------------------------------------------------------------------------- */

enum memplug_holder_kind {
    MEMPLUG_HOLDER_BUFFER,   /* a buffer that is registered with an io_uring */
    MEMPLUG_HOLDER_CALL,     /* a thread sleeps in a read or write of a descriptor with O_DIRECT */
    MEMPLUG_HOLDER_FUTEX,    /* no I/O: a thread waits for a process-shared lock with inheritance */
    MEMPLUG_HOLDER_IO_URING, /* from here on candidates: requests in flight, rings in its memory */
    MEMPLUG_HOLDER_AIO,      /* an AIO context: likewise */
    MEMPLUG_HOLDER_DIRECT,   /* a descriptor with O_DIRECT: used by way of those two */
    MEMPLUG_HOLDER_DEVICE,   /* VFIO or RDMA */
    MEMPLUG_HOLDER_PIPE,     /* with something in it: vmsplice() */
    MEMPLUG_HOLDER_SOCKET,   /* with SO_ZEROCOPY */
    MEMPLUG_NR_HOLDERS
};

struct memplug_holder {
    enum memplug_holder_kind kind;
    bool certain;        /* the kernel told it; else the kernel does not tell, and it may be so */
    int fd;              /* descriptor; -1: none, or its mapping is all that is left */
    int tid;             /* thread; 0: none */
    unsigned index;      /* of a registered buffer */
    uint64_t address;    /* 0: not told */
    uint64_t size_bytes;
};

/*
 * Who may hold pages of [address, address + size_bytes) of this space for I/O, just now: first all
 * that are certain, then a candidate of each kind that there is. Returns how many there are, also
 * if there was place for less. A registered buffer is where it was when it was registered: one
 * that has been unmapped since is still named. Sees descriptors and threads of this process only.
 * Takes time: 1 us a descriptor, 10 us a thread, a tenth of a millisecond for 100 mappings.
 */
unsigned memplug_space_holders(struct memplug_space *space, const void *address,
                               uint64_t size_bytes, struct memplug_holder *holders,
                               unsigned nr_holders);

/* How long writers of a unit waited: from the fence to the wake. Buckets are at most 1/8 wide. */
#define MEMPLUG_PAUSE_BUCKETS 320u
struct memplug_pause {
    uint64_t nr, total_ns, max_ns;
    uint64_t buckets[MEMPLUG_PAUSE_BUCKETS];
};

/* The pause that per_mille of 1,000 did not exceed: 500 is the median. 0 if there was none. */
uint64_t memplug_pause_ns(const struct memplug_pause *pause, unsigned per_mille);

struct memplug_space_stat {
    uint64_t unit_bytes;
    uint64_t nr_units;          /* that hold frames of the pool now */
    uint64_t mapped_bytes;      /* by callers, now */
    uint64_t nr_moves;          /* units moved since open */
    uint64_t moved_bytes;       /* unit by unit: what a hole saves is counted in copied_bytes */
    uint64_t copied_bytes;      /* under the fence; each page once */
    uint64_t nr_refused_pins;   /* moves: a page was held for I/O */
    uint64_t nr_refused_proof;  /* moves: nothing can prove this memory free of pins */
    uint64_t nr_refused_vmas;   /* moves: the kernel had no mapping left */
    uint64_t nr_refused_other;
    uint64_t nr_attributes_lost; /* an attribute could not be set again after a move */
    uint64_t nr_waiters_woken;  /* that slept on a shared futex in a unit that moved */
    uint64_t nr_forks_lazy, nr_forks_copied;
    uint64_t nr_first_writes;   /* that waited until the children had their copies */
    uint64_t nr_settled_pages;  /* copied for a child, each once */
    uint64_t nr_children_ended; /* that could not be given theirs */
    const char *fork_copied_why; /* of the last fork; null: it was lazy, or there was none */
    struct memplug_pause pause; /* of units that moved */
    struct memplug_pause refused; /* of units that stayed although their writers were held up */
};

/* A snapshot; takes no lock. */
void memplug_space_stat(const struct memplug_space *space, struct memplug_space_stat *stat);

#ifdef __cplusplus
}
#endif
#endif
