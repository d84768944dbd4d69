/* SPDX-License-Identifier: MIT */
#include "tmpfs.h"

#include "buffer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 4096u
#define INODES_FOR_NOTHING 64 /* find room in pages that the kernel has already */
#define INODES_A_PAGE 4       /* an inode and a name of a kernel: some 900 bytes */

struct inode {
    struct inode *next; /* in its directory, by name */
    char *name;
    bool directory;
    unsigned nr_holds;  /* open handles, and one for its name */
    struct inode *children;
    struct inode *covered; /* what was here before something was mounted on it */
    uint64_t size_bytes;
    struct holding pages; /* a page for each begun 4 KiB */
};

struct tmpfs {
    struct store *store;
    struct inode root;
    size_t nr_inodes;
    struct holding slab;
};

struct tmpfs *tmpfs_open(struct store *store)
{
    struct tmpfs *tmpfs = must_alloc(1, sizeof(*tmpfs));

    tmpfs->store = store;
    tmpfs->root = (struct inode){.directory = true, .nr_holds = 1};
    return tmpfs;
}

static void forget_all(struct inode *children)
{
    while (children) {
        struct inode *next = children->next;

        forget_all(children->children);
        forget_all(children->covered);
        free(children->pages.units);
        free(children->name);
        free(children);
        children = next;
    }
}

void tmpfs_close(struct tmpfs *tmpfs)
{
    forget_all(tmpfs->root.children);
    free(tmpfs->slab.units);
    free(tmpfs);
}

/* --- paths ------------------------------------------------------------------------------------ */

static struct inode **find_child(struct inode *directory, const char *name, size_t length)
{
    struct inode **link = &directory->children;

    while (*link) {
        int order = strncmp((*link)->name, name, length);

        if (order == 0 && (*link)->name[length] == '\0')
            return link;
        if (order >= 0)
            break;
        link = &(*link)->next;
    }
    return link;
}

static bool is_child(struct inode *const *link, const char *name, size_t length)
{
    return *link && strlen((*link)->name) == length && strncmp((*link)->name, name, length) == 0;
}

/* The directory that a path's last name is in, and that name: -ENOENT, -ENOTDIR. */
static int find_parent(struct tmpfs *tmpfs, const char *path, struct inode **parent,
                       const char **name)
{
    struct inode *at = &tmpfs->root;

    if (strncmp(path, "/tmp/", 5) != 0)
        return -ENOENT;
    for (path += 5;;) {
        size_t length = strcspn(path, "/");
        struct inode **child = find_child(at, path, length);

        if (!path[length])
            break;
        if (!is_child(child, path, length))
            return -ENOENT;
        at = *child;
        if (!at->directory)
            return -ENOTDIR;
        path += length + 1;
    }
    *parent = at;
    *name = path;
    return 0;
}

struct inode *tmpfs_find(struct tmpfs *tmpfs, const char *path)
{
    struct inode *parent, **link;
    const char *name;

    if (strcmp(path, "/tmp") == 0)
        return &tmpfs->root;
    if (find_parent(tmpfs, path, &parent, &name))
        return NULL;
    link = find_child(parent, name, strlen(name));
    return is_child(link, name, strlen(name)) ? *link : NULL;
}

bool inode_is_directory(const struct inode *inode)
{
    return inode->directory;
}

void tmpfs_list(struct tmpfs *tmpfs, const struct inode *directory,
                void (*each)(void *to, const char *name), void *to)
{
    (void)tmpfs;
    for (const struct inode *inode = directory->children; inode; inode = inode->next)
        each(to, inode->name);
}

/* --- come and go ------------------------------------------------------------------------------ */

/* Pages for so many inodes: -ENOSPC. */
static int charge(struct tmpfs *tmpfs, size_t nr_inodes)
{
    const struct store_want want = {.kind = STORE_KERNEL, .nr_pages = 1,
                                    .node = MEMPLUG_ANY_NODE};
    size_t nr_pages = nr_inodes > INODES_FOR_NOTHING
                          ? (nr_inodes - INODES_FOR_NOTHING + INODES_A_PAGE - 1) / INODES_A_PAGE
                          : 0;

    while (tmpfs->slab.nr_units < nr_pages)
        if (store_grow(tmpfs->store, &tmpfs->slab, &want))
            return -ENOSPC;
    if (tmpfs->slab.nr_units > nr_pages)
        store_shrink(tmpfs->store, &tmpfs->slab, nr_pages);
    tmpfs->nr_inodes = nr_inodes;
    return 0;
}

static int make(struct tmpfs *tmpfs, const char *path, bool directory, struct inode **made)
{
    struct inode *parent, **link, *inode;
    const char *name;
    int error = find_parent(tmpfs, path, &parent, &name);

    if (error)
        return error;
    link = find_child(parent, name, strlen(name));
    if (is_child(link, name, strlen(name)))
        return -EEXIST;
    error = charge(tmpfs, tmpfs->nr_inodes + 1);
    if (error)
        return error;
    inode = must_alloc(1, sizeof(*inode));
    *inode = (struct inode){.name = must_copy(name, strlen(name)), .directory = directory,
                            .nr_holds = 1, .next = *link};
    *link = inode;
    *made = inode;
    return 0;
}

int tmpfs_create(struct tmpfs *tmpfs, const char *path, struct inode **inode)
{
    return make(tmpfs, path, false, inode);
}

int tmpfs_mkdir(struct tmpfs *tmpfs, const char *path)
{
    struct inode *inode;

    return tmpfs_find(tmpfs, path) ? -EEXIST : make(tmpfs, path, true, &inode);
}

void inode_hold(struct inode *inode)
{
    inode->nr_holds++;
}

void inode_release(struct tmpfs *tmpfs, struct inode *inode)
{
    if (--inode->nr_holds)
        return;
    store_shrink(tmpfs->store, &inode->pages, 0);
    free(inode->name);
    free(inode);
    charge(tmpfs, tmpfs->nr_inodes - 1);
}

static void take_out(struct tmpfs *tmpfs, struct inode **link)
{
    struct inode *inode = *link;

    *link = inode->next;
    inode_release(tmpfs, inode);
}

static void take_out_all(struct tmpfs *tmpfs, struct inode *directory)
{
    while (directory->children) {
        take_out_all(tmpfs, directory->children);
        take_out(tmpfs, &directory->children);
    }
}

static int remove_name(struct tmpfs *tmpfs, const char *path, bool directory)
{
    struct inode *parent, **link;
    const char *name;
    int error = find_parent(tmpfs, path, &parent, &name);

    if (error)
        return error;
    link = find_child(parent, name, strlen(name));
    if (!is_child(link, name, strlen(name)))
        return -ENOENT;
    if ((*link)->directory != directory)
        return directory ? -ENOTDIR : -EISDIR;
    if ((*link)->covered)
        return -EBUSY;
    if ((*link)->children)
        return -ENOTEMPTY;
    take_out(tmpfs, link);
    return 0;
}

int tmpfs_rmdir(struct tmpfs *tmpfs, const char *path)
{
    return strcmp(path, "/tmp") == 0 ? -EBUSY : remove_name(tmpfs, path, true);
}

int tmpfs_unlink(struct tmpfs *tmpfs, const char *path)
{
    return remove_name(tmpfs, path, false);
}

/* The names that are covered hang on a directory without a name. */
int tmpfs_mount(struct tmpfs *tmpfs, const char *path)
{
    struct inode *inode = tmpfs_find(tmpfs, path), *covered;

    if (!inode)
        return -ENOENT;
    if (!inode->directory)
        return -ENOTDIR;
    covered = must_alloc(1, sizeof(*covered));
    *covered = (struct inode){.name = must_copy("", 0), .directory = true,
                              .children = inode->children, .covered = inode->covered};
    inode->children = NULL;
    inode->covered = covered;
    return 0;
}

int tmpfs_unmount(struct tmpfs *tmpfs, const char *path)
{
    struct inode *inode = tmpfs_find(tmpfs, path), *covered;

    if (!inode)
        return -ENOENT;
    covered = inode->covered;
    if (!covered)
        return -EINVAL;
    take_out_all(tmpfs, inode);
    inode->children = covered->children;
    inode->covered = covered->covered;
    free(covered->name);
    free(covered);
    return 0;
}

/* --- bytes ------------------------------------------------------------------------------------ */

uint64_t inode_size(const struct inode *inode)
{
    return inode->size_bytes;
}

int64_t inode_read(struct tmpfs *tmpfs, struct inode *inode, uint64_t offset, void *to,
                   size_t size_bytes)
{
    char *at = to;

    if (offset >= inode->size_bytes)
        return 0;
    if (size_bytes > inode->size_bytes - offset)
        size_bytes = (size_t)(inode->size_bytes - offset);
    for (size_t done = 0; done < size_bytes;) {
        size_t in_page = (offset + done) % PAGE_BYTES;
        size_t part = PAGE_BYTES - in_page;
        const char *page = store_bytes(tmpfs->store, &inode->pages,
                                       (size_t)((offset + done) / PAGE_BYTES));

        if (!page)
            return done ? (int64_t)done : -EIO;
        part = part < size_bytes - done ? part : size_bytes - done;
        memcpy(at + done, page + in_page, part);
        done += part;
    }
    return (int64_t)size_bytes;
}

static int reach(struct tmpfs *tmpfs, struct inode *inode, uint64_t end)
{
    const struct store_want want = {.kind = STORE_MOVABLE, .nr_pages = 1,
                                    .node = MEMPLUG_ANY_NODE};
    uint64_t nr_pages = (end + PAGE_BYTES - 1) / PAGE_BYTES;

    while (inode->pages.nr_units < nr_pages)
        if (store_grow(tmpfs->store, &inode->pages, &want))
            return -ENOSPC;
    return 0;
}

int64_t inode_write(struct tmpfs *tmpfs, struct inode *inode, uint64_t offset, const void *from,
                    size_t size_bytes)
{
    const char *at = from;

    for (size_t done = 0; done < size_bytes;) {
        size_t in_page = (offset + done) % PAGE_BYTES;
        size_t part = PAGE_BYTES - in_page;
        char *page = NULL;

        part = part < size_bytes - done ? part : size_bytes - done;
        if (reach(tmpfs, inode, offset + done + part))
            return done ? (int64_t)done : -ENOSPC;
        page = store_bytes(tmpfs->store, &inode->pages,
                           (size_t)((offset + done) / PAGE_BYTES));
        if (!page)
            return done ? (int64_t)done : -EIO;
        memcpy(page + in_page, at + done, part);
        done += part;
        if (inode->size_bytes < offset + done)
            inode->size_bytes = offset + done;
    }
    return (int64_t)size_bytes;
}

void inode_truncate(struct tmpfs *tmpfs, struct inode *inode)
{
    store_shrink(tmpfs->store, &inode->pages, 0);
    inode->size_bytes = 0;
}
