/* SPDX-License-Identifier: MIT */
/*
 * The calls that are taken. A new mapping is movable if a malloc library asks for it: that is seen
 * by the address it will return to. What concerns addresses of the pool is taken from everybody,
 * since a program may protect or advise memory that malloc gave it. All else goes to the kernel as
 * it came.
 */
#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS /* mmap and mmap64 are both to be defined */
#include "preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CALLER() ((uintptr_t)__builtin_return_address(0))

/* --- who calls? ------------------------------------------------------------------------------- */

/* The malloc library's addresses, once it has called: it is never unloaded. Written by whoever
 * finds it, the end last. */
static _Atomic uintptr_t allocator_start, allocator_end;

static bool is_allocator(const char *path)
{
    static const char *const names[] = {"libjemalloc.so", "libmimalloc.so",
                                        "libmimalloc-secure.so"};
    const char *name = strrchr(path, '/');

    name = name ? name + 1 : path;
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strncmp(name, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* _dl_find_object takes no lock and can be asked at any time. */
static bool called_by_allocator(uintptr_t caller)
{
    uintptr_t end = atomic_load_explicit(&allocator_end, memory_order_acquire);
    struct dl_find_object found;

    if (end != 0)
        return caller < end &&
               caller >= atomic_load_explicit(&allocator_start, memory_order_relaxed);
    if (_dl_find_object((void *)caller, &found) != 0 ||
        !is_allocator(found.dlfo_link_map->l_name))
        return false;
    atomic_store_explicit(&allocator_start, (uintptr_t)found.dlfo_map_start,
                          memory_order_relaxed);
    atomic_store_explicit(&allocator_end, (uintptr_t)found.dlfo_map_end, memory_order_release);
    return true;
}

/* --- mmap ------------------------------------------------------------------------------------- */

static struct memplug_space *space_with(const void *address)
{
    struct memplug_space *space = mpl_pre_space_if_open();

    return space && memplug_space_has(space, address) ? space : NULL;
}

static int answer(int error)
{
    if (error == 0)
        return 0;
    errno = -error;
    return -1;
}

/* Memory of its own that may lie anywhere: all that a malloc library asks for. */
static bool is_plain(int flags, int protection)
{
    const int wanted = MAP_PRIVATE | MAP_ANONYMOUS;
    const int may = wanted | MAP_NORESERVE | MAP_POPULATE | MAP_STACK;

    return (flags & wanted) == wanted && (flags & ~may) == 0 &&
           (protection & ~(PROT_READ | PROT_WRITE | PROT_EXEC)) == 0;
}

static void *map_new(struct memplug_space *space, size_t size_bytes, int protection, int flags)
{
    const struct memplug_mapping opts = {
        .protection = protection,
        .no_access = protection == PROT_NONE,
        .populate = (flags & MAP_POPULATE) != 0,
    };
    void *address;
    int error = size_bytes == 0 ? -EINVAL : mpl_pre_map(space, size_bytes, &opts, &address);

    return answer(error == -ENODEV ? -ENOMEM : error) == 0 ? address : MAP_FAILED;
}

/* A mapping in place of one: empty, with this protection. */
static void *map_over(struct memplug_space *space, void *address, size_t size_bytes,
                      int protection)
{
    int error = memplug_discard(space, address, size_bytes);

    if (error == 0)
        error = memplug_protect(space, address, size_bytes, protection);
    return answer(error == -EINVAL ? -ENOMEM : error) == 0 ? address : MAP_FAILED;
}

static void *take_mmap(uintptr_t caller, void *address, size_t size_bytes, int protection,
                       int flags, int fd, off64_t offset)
{
    struct memplug_space *space = space_with(address);
    int result;

    if (space && (flags & MAP_FIXED) != 0) {
        if (is_plain(flags & ~MAP_FIXED, protection))
            return map_over(space, address, size_bytes, protection);
        answer(-EINVAL); /* something else over memory that can be moved */
        return MAP_FAILED;
    }
    if (is_plain(flags, protection) && called_by_allocator(caller)) {
        space = mpl_pre_space();
        if (space)
            return map_new(space, size_bytes, protection, flags);
    }
    if ((flags & MAP_FIXED) != 0 &&
        mpl_pre_child_maps(address, size_bytes, protection, flags, fd, offset, &result))
        return result == 0 ? address : MAP_FAILED;
    return (void *)syscall(SYS_mmap, address, size_bytes, protection, flags, fd, offset);
}

MPL_PRE_EXPORT void *mmap(void *address, size_t size_bytes, int protection, int flags, int fd,
                          off_t offset)
{
    return take_mmap(CALLER(), address, size_bytes, protection, flags, fd, offset);
}

MPL_PRE_EXPORT void *mmap64(void *address, size_t size_bytes, int protection, int flags, int fd,
                            off64_t offset)
{
    return take_mmap(CALLER(), address, size_bytes, protection, flags, fd, offset);
}

/* Where mmap says no, jemalloc tries this one, which is no memory of the pool's. */
MPL_PRE_EXPORT void *sbrk(intptr_t step)
{
    static _Atomic(void *) known;
    union {
        void *found;
        void *(*call)(intptr_t step);
    } real = {.found = mpl_pre_next(&known, "sbrk")};

    if (called_by_allocator(CALLER()) && mpl_pre_space()) {
        errno = ENOMEM;
        return (void *)-1;
    }
    return real.call(step);
}

/* --- of mappings that are there --------------------------------------------------------------- */

MPL_PRE_EXPORT int munmap(void *address, size_t size_bytes)
{
    struct memplug_space *space = space_with(address);
    int error, result;

    if (!space)
        return mpl_pre_child_unmaps(address, size_bytes, &result)
                   ? result : (int)syscall(SYS_munmap, address, size_bytes);
    error = memplug_unmap(space, address, size_bytes);
    if (error == 0)
        mpl_pre_shrink();
    return answer(error);
}

MPL_PRE_EXPORT int mprotect(void *address, size_t size_bytes, int protection)
{
    struct memplug_space *space = space_with(address);
    int result;

    if (!space || size_bytes == 0)
        return mpl_pre_child_protects(address, size_bytes, protection, &result)
                   ? result : (int)syscall(SYS_mprotect, address, size_bytes, protection);
    return answer(memplug_protect(space, address, size_bytes, protection));
}

/* DONTFORK is what these mappings have; a child gets them all the same, through our handler. */
MPL_PRE_EXPORT int madvise(void *address, size_t size_bytes, int advice)
{
    struct memplug_space *space = space_with(address);
    int result;

    if (!space || size_bytes == 0)
        return mpl_pre_child_advises(address, size_bytes, advice, &result)
                   ? result : (int)syscall(SYS_madvise, address, size_bytes, advice);
    if (advice == MADV_DOFORK)
        return 0;
    return answer(memplug_advise(space, address, size_bytes, advice));
}

static int lock_pages(const void *address, size_t size_bytes, bool lock)
{
    struct memplug_space *space = space_with(address);
    uintptr_t start = (uintptr_t)address, skip = start % mpl_preload.page_bytes;

    /* Unlike the others these take any address, and all pages that it touches. */
    return answer(memplug_lock(space, (void *)(start - skip), size_bytes + skip, lock));
}

MPL_PRE_EXPORT int mlock(const void *address, size_t size_bytes)
{
    if (!space_with(address) || size_bytes == 0)
        return (int)syscall(SYS_mlock, address, size_bytes);
    return lock_pages(address, size_bytes, true);
}

MPL_PRE_EXPORT int mlock2(const void *address, size_t size_bytes, unsigned flags)
{
    if (!space_with(address) || size_bytes == 0)
        return (int)syscall(SYS_mlock2, address, size_bytes, flags);
    return lock_pages(address, size_bytes, true);
}

MPL_PRE_EXPORT int munlock(const void *address, size_t size_bytes)
{
    if (!space_with(address) || size_bytes == 0)
        return (int)syscall(SYS_munlock, address, size_bytes);
    return lock_pages(address, size_bytes, false);
}

/* --- mremap ----------------------------------------------------------------------------------- */

/* A larger one at another address: of memory that can be read and written. */
static void *map_larger(struct memplug_space *space, void *old, size_t old_bytes,
                        size_t new_bytes)
{
    const struct memplug_mapping opts = {.protection = PROT_READ | PROT_WRITE};
    void *address;

    if (answer(mpl_pre_map(space, new_bytes, &opts, &address)) != 0)
        return MAP_FAILED;
    memcpy(address, old, old_bytes);
    memplug_unmap(space, old, old_bytes);
    return address;
}

static void *remap(struct memplug_space *space, void *old, size_t old_bytes, size_t new_bytes,
                   int flags)
{
    size_t mask = (size_t)mpl_preload.page_bytes - 1;
    int error = 0;

    old_bytes = (old_bytes + mask) & ~mask;
    new_bytes = (new_bytes + mask) & ~mask;
    if (old_bytes == 0 || new_bytes == 0 || (flags & ~MREMAP_MAYMOVE) != 0)
        error = -EINVAL;
    else if (new_bytes < old_bytes)
        error = memplug_unmap(space, (char *)old + new_bytes, old_bytes - new_bytes);
    else if (new_bytes > old_bytes && (flags & MREMAP_MAYMOVE) == 0)
        error = -ENOMEM;
    else if (new_bytes > old_bytes)
        return map_larger(space, old, old_bytes, new_bytes);
    return answer(error) == 0 ? old : MAP_FAILED;
}

MPL_PRE_EXPORT void *mremap(void *old, size_t old_bytes, size_t new_bytes, int flags, ...)
{
    struct memplug_space *space = space_with(old);
    void *target = NULL;

    if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0) {
        va_list arguments;

        va_start(arguments, flags);
        target = va_arg(arguments, void *);
        va_end(arguments);
    }
    if (!space && mpl_pre_child_remaps(old, old_bytes, new_bytes, flags, &target))
        return target;
    if (!space)
        return (void *)syscall(SYS_mremap, old, old_bytes, new_bytes, flags, target);
    return remap(space, old, old_bytes, new_bytes, flags);
}
