/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "holders.h"

#include "proc.h"
#include "sys.h"
#include "waiters.h"

#include <limits.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define RING_TRIES 4u /* it tells nothing while a request is being submitted */
#define NR_PARTS 16u  /* of a vector that is looked at */

struct look {
    struct memplug_space *space;
    struct mpl_holders *holders;
    uint64_t deadline_ns;
    int fd;          /* of the ring that is being read */
    bool told;       /* it has said what its buffers are */
    bool in_buffers;
};

static bool starts(const char *text, const char *word)
{
    return strncmp(text, word, strlen(word)) == 0;
}

static void note(struct look *look, const struct memplug_holder *holder)
{
    struct mpl_holders *holders = look->holders;

    if (!holder->certain) {
        if (holders->nr_of[holder->kind]++ == 0)
            holders->first_of[holder->kind] = *holder;
    } else if (holders->nr_told < MPL_NR_TOLD) {
        holders->told[holders->nr_told++] = *holder;
    } else {
        holders->cut = true;
    }
}

static void note_candidate(struct look *look, enum memplug_holder_kind kind, int fd)
{
    note(look, &(struct memplug_holder){.kind = kind, .fd = fd});
}

/* Does it touch the window? Ends that are no addresses do not. */
static bool touches(const struct memplug_space *space, uint64_t address, uint64_t size_bytes)
{
    uint64_t start = (uintptr_t)space->window.base, end = start + space->window.size_bytes;

    return size_bytes > 0 && address < end && address + size_bytes > start &&
           address + size_bytes > address;
}

/* --- descriptors ------------------------------------------------------------------------------ */

/* "UserBufs: 2", then "    0: 0x7f0012345000/8192" for each. */
static bool read_ring_line(void *context, const char *line)
{
    struct look *look = context;
    struct memplug_holder holder = {
        .kind = MEMPLUG_HOLDER_BUFFER, .certain = true, .fd = look->fd};

    if (starts(line, "UserBufs:")) {
        look->told = look->in_buffers = true;
        return true;
    }
    if (!look->in_buffers)
        return true;
    if (*line != ' ')
        return false; /* the next list */
    while (*line == ' ')
        line++;
    holder.index = (unsigned)mpl_proc_value(&line);
    if (!starts(line, ": 0x"))
        return true; /* a slot without a buffer */
    line += 2;
    holder.address = mpl_proc_value(&line);
    if (*line++ != '/')
        return true;
    holder.size_bytes = mpl_proc_value(&line);
    if (touches(look->space, holder.address, holder.size_bytes))
        note(look, &holder);
    return true;
}

static void look_at_ring(struct look *look, int fd)
{
    char path[MPL_PROC_PATH_MAX];

    mpl_proc_path(path, "/proc/thread-self/fdinfo/", fd, "");
    look->fd = fd;
    look->told = false;
    for (unsigned i = 0; i < RING_TRIES && !look->told; i++) {
        look->in_buffers = false;
        mpl_proc_lines(path, look->deadline_ns, read_ring_line, look);
    }
    note_candidate(look, MEMPLUG_HOLDER_IO_URING, fd);
}

static bool is_direct(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && (flags & O_DIRECT) != 0;
}

/* What was spliced into a pipe is there until it is read. */
static bool is_filled(int fd)
{
    int nr_bytes = 0;

    return syscall(SYS_ioctl, fd, FIONREAD, &nr_bytes) == 0 && nr_bytes > 0;
}

static bool is_zerocopy(int fd)
{
    int on = 0;
    socklen_t size = sizeof(on);

    return getsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, &size) == 0 && on != 0;
}

bool mpl_holders_reads_later(int fd)
{
    return is_direct(fd) || is_zerocopy(fd);
}

#define TARGET_BYTES 64u

/* What a descriptor is of; nothing if it is gone. */
static void read_target(int fd, char target[TARGET_BYTES])
{
    char path[MPL_PROC_PATH_MAX];
    long length;

    mpl_proc_path(path, "/proc/thread-self/fd/", fd, "");
    length = syscall(SYS_readlinkat, AT_FDCWD, path, target, TARGET_BYTES - 1);
    target[length > 0 ? length : 0] = 0;
}

static bool is_device(const char *target)
{
    return starts(target, "/dev/vfio/") || starts(target, "/dev/infiniband/") ||
           starts(target, "/dev/iommu");
}

static bool look_at_fd(void *context, int fd)
{
    struct look *look = context;
    char target[TARGET_BYTES];

    read_target(fd, target);
    if (starts(target, "anon_inode:[io_uring]"))
        look_at_ring(look, fd);
    else if (starts(target, "pipe:") && is_filled(fd))
        note_candidate(look, MEMPLUG_HOLDER_PIPE, fd);
    else if (starts(target, "socket:") && is_zerocopy(fd))
        note_candidate(look, MEMPLUG_HOLDER_SOCKET, fd);
    else if (is_device(target))
        note_candidate(look, MEMPLUG_HOLDER_DEVICE, fd);
    else if (!starts(target, "pipe:") && is_direct(fd))
        note_candidate(look, MEMPLUG_HOLDER_DIRECT, fd);
    return true;
}

/* --- mappings --------------------------------------------------------------------------------- */

/* An AIO context is a mapping and no descriptor; and an io_uring lives on in its mapping. */
static bool look_at_mapping(void *context, const char *line)
{
    struct look *look = context;
    const char *name = strchr(line, '/');

    if (name && starts(name, "/[aio]"))
        note_candidate(look, MEMPLUG_HOLDER_AIO, -1);
    else if (look->holders->nr_of[MEMPLUG_HOLDER_IO_URING] == 0 &&
             strstr(line, "anon_inode:[io_uring]"))
        note_candidate(look, MEMPLUG_HOLDER_IO_URING, -1);
    return true;
}

/* --- threads ---------------------------------------------------------------------------------- */

static void note_io(struct look *look, const struct mpl_proc_call *call, uint64_t address,
                    uint64_t size_bytes)
{
    if (touches(look->space, address, size_bytes))
        note(look, &(struct memplug_holder){
            .kind = MEMPLUG_HOLDER_CALL,
            .certain = true,
            .fd = (int)call->args[0],
            .tid = call->tid,
            .address = address,
            .size_bytes = size_bytes,
        });
}

static void look_at_vector(struct look *look, const struct mpl_proc_call *call)
{
    uint64_t nr = call->args[2] < NR_PARTS ? call->args[2] : NR_PARTS;
    struct iovec part;

    look->holders->cut |= nr < call->args[2];
    for (uint64_t i = 0; i < nr; i++)
        if (mpl_proc_peek(call->args[1] + i * sizeof(part), &part, sizeof(part)))
            note_io(look, call, (uintptr_t)part.iov_base, part.iov_len);
}

static bool note_waiter(void *context, const struct mpl_waiter *waiter)
{
    struct look *look = context;

    if (waiter->inherits && mpl_in_window(look->space, waiter->address))
        note(look, &(struct memplug_holder){
            .kind = MEMPLUG_HOLDER_FUTEX,
            .certain = true,
            .fd = -1,
            .tid = waiter->tid,
            .address = waiter->address,
            .size_bytes = sizeof(uint32_t),
        });
    return true;
}

static bool look_at_call(void *context, const struct mpl_proc_call *call)
{
    struct look *look = context;

    switch (call->nr) {
    case SYS_read:
    case SYS_pread64:
    case SYS_write:
    case SYS_pwrite64:
        if (is_direct((int)call->args[0]))
            note_io(look, call, call->args[1], call->args[2]);
        return true;
    case SYS_readv:
    case SYS_preadv:
    case SYS_preadv2:
    case SYS_writev:
    case SYS_pwritev:
    case SYS_pwritev2:
        if (is_direct((int)call->args[0]))
            look_at_vector(look, call);
        return true;
    default:
        return mpl_waiters_of(call, note_waiter, look);
    }
}

/* --- the look --------------------------------------------------------------------------------- */

void mpl_holders_look(struct memplug_space *space)
{
    struct mpl_holders *holders = space->holders;
    struct look look = {
        .space = space, .holders = holders, .deadline_ns = mpl_now_ns() + MPL_HOLDERS_NS};

    mpl_lock_enter(&holders->lock);
    holders->cut = false;
    holders->nr_told = 0;
    holders->asked_nr = 0;
    memset(holders->nr_of, 0, sizeof(holders->nr_of));
    holders->blind = !mpl_proc_calls(look.deadline_ns, look_at_call, &look) &&
                     mpl_now_ns() < look.deadline_ns;
    mpl_proc_each("/proc/thread-self/fd", look.deadline_ns, look_at_fd, &look);
    mpl_proc_lines("/proc/thread-self/maps", look.deadline_ns, look_at_mapping, &look);
    holders->cut |= mpl_now_ns() >= look.deadline_ns;
    mpl_lock_leave(&holders->lock);
}

/* A ring that has told what it has; and a mapping of one whose descriptor is closed. */
static bool find_registrar(void *context, int fd)
{
    struct look *look = context;
    char target[TARGET_BYTES];

    read_target(fd, target);
    if (is_device(target))
        note_candidate(look, MEMPLUG_HOLDER_DEVICE, fd);
    if (!starts(target, "anon_inode:[io_uring]"))
        return look->holders->nr_of[MEMPLUG_HOLDER_DEVICE] == 0;
    look_at_ring(look, fd);
    return look->told && look->holders->nr_told == 0;
}

static bool is_no_ring(void *context, const char *line)
{
    const struct look *look = context;

    return look->holders->nr_of[MEMPLUG_HOLDER_IO_URING] != 0 ||
           !strstr(line, "anon_inode:[io_uring]");
}

const char *mpl_holders_registered(struct memplug_space *space, bool again)
{
    struct mpl_holders *holders = space->fork.holders;
    struct look look = {
        .space = space, .holders = holders, .deadline_ns = mpl_now_ns() + MPL_HOLDERS_NS};

    holders->nr_told = 0;
    memset(holders->nr_of, 0, sizeof(holders->nr_of));
    if (mpl_proc_each("/proc/thread-self/fd", look.deadline_ns, find_registrar, &look) &&
        (again || mpl_proc_lines("/proc/thread-self/maps", look.deadline_ns, is_no_ring, &look)))
        return NULL;
    if (mpl_now_ns() >= look.deadline_ns)
        return "too many descriptors or mappings to see whether an io_uring has registered buffers";
    return holders->nr_of[MEMPLUG_HOLDER_DEVICE] != 0
               ? "a device (VFIO, RDMA) may write to memory without a fault"
               : "an io_uring has registered buffers, which are written without a fault";
}

/* Has a unit of this row of addresses its frame among those? */
static bool lies_in(const struct memplug_space *space, const struct memplug_holder *holder,
                    uint64_t first_pfn, uint64_t nr_pages)
{
    uint64_t start = (uintptr_t)space->window.base, end = start + space->window.size_bytes;
    uint64_t from = holder->address > start ? holder->address : start;
    uint64_t last = holder->address + holder->size_bytes - 1;

    last = last < end ? last : end - 1;
    for (uint64_t unit = mpl_unit_of(space, from); unit <= mpl_unit_of(space, last); unit++) {
        uint64_t pfn = unit < space->area.nr_usable
                           ? __atomic_load_n(&mpl_unit_at(space, unit)->pfn, __ATOMIC_RELAXED) : 0;

        if (pfn != 0 && pfn - first_pfn < nr_pages)
            return true;
    }
    return false;
}

const struct memplug_holder *mpl_holders_next(const struct memplug_space *space, uint64_t first_pfn,
                                              uint64_t nr_pages, bool futex, unsigned *at)
{
    const struct mpl_holders *holders = space->holders;

    while (*at < holders->nr_told) {
        const struct memplug_holder *holder = &holders->told[(*at)++];

        if ((holder->kind == MEMPLUG_HOLDER_FUTEX) == futex &&
            lies_in(space, holder, first_pfn, nr_pages))
            return holder;
    }
    return NULL;
}

/* --- for callers ------------------------------------------------------------------------------ */

unsigned memplug_space_holders(struct memplug_space *space, const void *address,
                               uint64_t size_bytes, struct memplug_holder *holders,
                               unsigned nr_holders)
{
    const struct mpl_holders *seen = space->holders;
    uint64_t start = (uintptr_t)address;
    unsigned nr = 0;

    mpl_holders_look(space);
    mpl_lock_enter(&space->holders->lock);
    for (unsigned i = 0; i < seen->nr_told; i++) {
        const struct memplug_holder *holder = &seen->told[i];

        if (holder->address - start >= size_bytes && start - holder->address >= holder->size_bytes)
            continue;
        if (nr < nr_holders)
            holders[nr] = *holder;
        nr++;
    }
    for (unsigned kind = 0; kind < MEMPLUG_NR_HOLDERS; kind++) {
        if (seen->nr_of[kind] == 0)
            continue;
        if (nr < nr_holders)
            holders[nr] = seen->first_of[kind];
        nr++;
    }
    mpl_lock_leave(&space->holders->lock);
    return nr;
}
