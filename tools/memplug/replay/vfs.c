/* SPDX-License-Identifier: MIT */
#include "vfs.h"

#include "foreign.h"
#include "guest.h"
#include "pseudo.h"
#include "tmpfs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ATTR_READ_BYTES 4096u /* no file of the tree is longer, but for lists of events */

enum where { NOWHERE, IN_TREE, IN_PSEUDO, IN_TMPFS, IN_GUEST };

struct vfs_file {
    enum where where; /* NOWHERE: this handle is free */
    struct memplug_attr_handle attr;
    const struct pseudo *pseudo;
    uint64_t number;
    struct inode *inode;
    bool append;
    struct buffer text; /* what a reader sees; made when it reads from the start */
};

struct vfs {
    struct vfs_file *files;
    size_t nr_files;
};

static bool is_below(const char *path, const char *directory)
{
    size_t length = strlen(directory);

    return strncmp(path, directory, length) == 0 && (!path[length] || path[length] == '/');
}

/* The tree's own path of one below /sys; null: it is none. The firmware's map is this machine's:
 * the tree knows of what is plugged in only. */
static const char *tree_path(const char *path)
{
    if (!is_below(path, "/sys") || is_below(path, "/sys/firmware/memmap"))
        return NULL;
    return path[4] ? path + 5 : path + 4;
}

/* --- handles ---------------------------------------------------------------------------------- */

static int new_handle(struct machine *machine)
{
    struct vfs *vfs = machine->vfs;

    if (!vfs)
        vfs = machine->vfs = must_alloc(1, sizeof(*vfs));
    for (size_t i = 0; i < vfs->nr_files; i++)
        if (vfs->files[i].where == NOWHERE)
            return (int)i;
    vfs->files = must_grow(vfs->files, vfs->nr_files + 1, sizeof(*vfs->files));
    vfs->files[vfs->nr_files] = (struct vfs_file){.where = NOWHERE};
    return (int)vfs->nr_files++;
}

static struct vfs_file *file_of(struct machine *machine, int handle)
{
    return &machine->vfs->files[handle];
}

static int open_tmpfs(struct machine *machine, const char *path, enum vfs_open how, int handle)
{
    struct vfs_file *file = file_of(machine, handle);
    struct inode *inode = tmpfs_find(machine->tmpfs, path);
    int error = 0;

    if (!inode && how == VFS_READ)
        return -ENOENT;
    if (!inode)
        error = tmpfs_create(machine->tmpfs, path, &inode);
    else if (inode_is_directory(inode))
        return -EISDIR;
    else if (how == VFS_WRITE)
        inode_truncate(machine->tmpfs, inode);
    if (error)
        return error;
    inode_hold(inode);
    *file = (struct vfs_file){.where = IN_TMPFS, .inode = inode, .append = how == VFS_APPEND};
    return handle;
}

static bool directory_exists(struct machine *machine, const char *path)
{
    return vfs_kind(machine, path) == VFS_DIRECTORY;
}

static int open_foreign(struct machine *machine, const char *path, enum vfs_open how, int handle)
{
    const char *link;
    enum foreign_kind kind = foreign_kind(machine, path, directory_exists, &link);
    enum guest_kind given = guest_kind(machine, path);

    if (kind == FOREIGN_NONE)
        return -ENOENT;
    if (kind == FOREIGN_ANY && how == VFS_READ && given == GUEST_FILE) {
        *file_of(machine, handle) = (struct vfs_file){.where = IN_GUEST};
        return handle;
    }
    if (kind == FOREIGN_ANY && given == GUEST_DIRECTORY)
        return -EISDIR;
    return kind == FOREIGN_FILE || kind == FOREIGN_ANY ? -ENOSYS : -EISDIR;
}

/* The tree says first what there is, then the texts of the kernel. */
static int open_kernel(struct machine *machine, const char *path, enum vfs_open how, int handle)
{
    struct vfs_file *file = file_of(machine, handle);
    const char *in_tree = tree_path(path);
    uint64_t number;
    const struct pseudo *pseudo = pseudo_find(machine, path, &number);
    int error = -ENOENT;

    if (pseudo) {
        if (!pseudo_can(pseudo, how != VFS_READ))
            return -EACCES;
        *file = (struct vfs_file){.where = IN_PSEUDO, .pseudo = pseudo, .number = number};
        return handle;
    }
    if (pseudo_is_directory(machine, path))
        return -EISDIR;
    if (in_tree)
        error = memplug_attr_open(&machine->attr, in_tree,
                                  how == VFS_READ ? MEMPLUG_ATTR_READ : MEMPLUG_ATTR_WRITE,
                                  &file->attr);
    if (!error) {
        file->where = IN_TREE;
        return handle;
    }
    if (error != -ENOENT)
        return error;
    error = open_foreign(machine, path, how, handle);
    if (error == handle && guest_read(machine, path, &file->text)) {
        vfs_close(machine, handle);
        return -EIO;
    }
    return error;
}

int vfs_open(struct machine *machine, const char *path, enum vfs_open how)
{
    int handle = new_handle(machine);

    if (is_below(path, "/tmp"))
        return open_tmpfs(machine, path, how, handle);
    return open_kernel(machine, path, how, handle);
}

void vfs_close(struct machine *machine, int handle)
{
    struct vfs_file *file = file_of(machine, handle);

    if (file->where == IN_TMPFS)
        inode_release(machine->tmpfs, file->inode);
    buffer_free(&file->text);
    *file = (struct vfs_file){.where = NOWHERE};
}

void vfs_closeall(struct machine *machine)
{
    if (!machine->vfs)
        return;
    for (size_t i = 0; i < machine->vfs->nr_files; i++)
        buffer_free(&machine->vfs->files[i].text);
    free(machine->vfs->files);
    free(machine->vfs);
    machine->vfs = NULL;
}

/* --- bytes ------------------------------------------------------------------------------------ */

static int read_tree(struct vfs_file *file)
{
    size_t room = ATTR_READ_BYTES;

    for (;;) {
        char *bytes = must_alloc(room, 1);
        int length = memplug_attr_read(&file->attr, bytes, room);

        if (length >= 0 && (size_t)length >= room) {
            room = (size_t)length + 1;
            free(bytes);
            continue;
        }
        if (length > 0)
            buffer_add(&file->text, bytes, (size_t)length);
        free(bytes);
        return length < 0 ? length : 0;
    }
}

static int make_text(struct machine *machine, struct vfs_file *file)
{
    buffer_clear(&file->text);
    if (file->where == IN_TREE)
        return read_tree(file);
    pseudo_read(file->pseudo, machine, file->number, &file->text);
    return 0;
}

int64_t vfs_read(struct machine *machine, int handle, uint64_t offset, void *to,
                 size_t size_bytes)
{
    struct vfs_file *file = file_of(machine, handle);

    if (file->where == IN_TMPFS)
        return inode_read(machine->tmpfs, file->inode, offset, to, size_bytes);
    if (file->where != IN_GUEST && (!offset || !file->text.bytes)) {
        int error = make_text(machine, file);

        if (error)
            return error;
    }
    if (offset >= file->text.length)
        return 0;
    if (size_bytes > file->text.length - offset)
        size_bytes = (size_t)(file->text.length - offset);
    memcpy(to, file->text.bytes + offset, size_bytes);
    return (int64_t)size_bytes;
}

int64_t vfs_write(struct machine *machine, int handle, uint64_t offset, const void *from,
                  size_t size_bytes, const struct memplug_limit *limit,
                  struct memplug_reason *reason)
{
    struct vfs_file *file = file_of(machine, handle);

    if (file->where == IN_TMPFS)
        return inode_write(machine->tmpfs, file->inode,
                           file->append ? inode_size(file->inode) : offset, from, size_bytes);
    if (file->where == IN_PSEUDO)
        return pseudo_write(file->pseudo, machine, file->number, from, size_bytes);
    return memplug_attr_write(&file->attr, from, size_bytes, limit, reason);
}

int vfs_get(struct machine *machine, const char *path, struct buffer *text)
{
    int handle = vfs_open(machine, path, VFS_READ);
    char part[4096];
    int64_t length = 0;

    if (handle < 0)
        return handle;
    for (uint64_t offset = 0;
         (length = vfs_read(machine, handle, offset, part, sizeof(part))) > 0;
         offset += (uint64_t)length)
        buffer_add(text, part, (size_t)length);
    vfs_close(machine, handle);
    return length < 0 ? (int)length : 0;
}

int64_t vfs_put(struct machine *machine, const char *path, const char *bytes, size_t length,
                const struct memplug_limit *limit, struct memplug_reason *reason, bool *opened)
{
    int handle = vfs_open(machine, path, VFS_WRITE);
    int64_t result;

    *opened = handle >= 0;
    if (handle < 0)
        return handle;
    result = vfs_write(machine, handle, 0, bytes, length, limit, reason);
    vfs_close(machine, handle);
    return result;
}

/* --- names ------------------------------------------------------------------------------------ */

static bool is_root(const char *path)
{
    return strcmp(path, "/") == 0;
}

static int kind_in_tree(struct machine *machine, const char *path)
{
    const char *in_tree = tree_path(path);
    struct memplug_attr_item item;
    char below[512];
    int error = in_tree ? memplug_attr_stat(&machine->attr, in_tree, &item) : -ENOENT;

    if (error)
        return error;
    if (item.kind != MEMPLUG_ATTR_LINK)
        return item.kind == MEMPLUG_ATTR_DIRECTORY ? VFS_DIRECTORY : VFS_FILE;
    /* A link is what it leads to: "." is not understood, so ask for what is below it. */
    if (strlen(in_tree) + 2 > sizeof(below))
        return -ENAMETOOLONG;
    memcpy(below, in_tree, strlen(in_tree) + 1);
    strcat(below, "/");
    return memplug_attr_stat(&machine->attr, below, &item) == 0 ? VFS_DIRECTORY : VFS_FILE;
}

static int kind_of_foreign(struct machine *machine, const char *path)
{
    const char *link;
    enum foreign_kind kind = foreign_kind(machine, path, directory_exists, &link);

    if (kind == FOREIGN_NONE)
        return -ENOENT;
    if (kind == FOREIGN_ANY && guest_kind(machine, path) == GUEST_NONE)
        return VFS_ELSEWHERE;
    if (kind == FOREIGN_ANY)
        return guest_kind(machine, path) == GUEST_FILE ? VFS_FILE : VFS_DIRECTORY;
    return kind == FOREIGN_FILE ? VFS_FILE : VFS_DIRECTORY;
}

int vfs_kind(struct machine *machine, const char *path)
{
    const struct inode *inode;
    uint64_t number;
    int kind;

    if (is_root(path))
        return VFS_DIRECTORY;
    if (is_below(path, "/tmp")) {
        inode = tmpfs_find(machine->tmpfs, path);
        if (!inode)
            return -ENOENT;
        return inode_is_directory(inode) ? VFS_DIRECTORY : VFS_FILE;
    }
    if (pseudo_find(machine, path, &number))
        return VFS_FILE;
    if (pseudo_is_directory(machine, path))
        return VFS_DIRECTORY;
    kind = kind_in_tree(machine, path);
    return kind == -ENOENT ? kind_of_foreign(machine, path) : kind;
}

int64_t vfs_link(struct machine *machine, const char *path, char *to, size_t size_bytes)
{
    const char *in_tree = tree_path(path), *link;
    int kind;

    if (in_tree) {
        int length = memplug_attr_readlink(&machine->attr, in_tree, to, size_bytes);

        if (length != -ENOENT)
            return length;
    }
    if (foreign_kind(machine, path, directory_exists, &link) == FOREIGN_LINK)
        return snprintf(to, size_bytes, "%s", link);
    kind = vfs_kind(machine, path);
    return kind < 0 ? kind : -EINVAL;
}

struct names {
    char **names;
    size_t nr_names;
};

static void add_name(void *to, const char *name)
{
    struct names *names = to;

    names->names = must_grow(names->names, names->nr_names + 1, sizeof(*names->names));
    names->names[names->nr_names++] = must_copy(name, strlen(name));
}

static void add_item(void *to, const struct memplug_attr_item *item)
{
    add_name(to, item->name);
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int gather(struct machine *machine, const char *path, struct names *names)
{
    const struct inode *inode;
    const char *in_tree = tree_path(path);
    int kind = vfs_kind(machine, path);

    if (kind < 0)
        return kind;
    if (kind != VFS_DIRECTORY)
        return -ENOTDIR;
    if (is_root(path))
        add_name(names, "tmp");
    if (is_below(path, "/tmp")) {
        inode = tmpfs_find(machine->tmpfs, path);
        tmpfs_list(machine->tmpfs, inode, add_name, names);
    }
    pseudo_list(machine, path, add_name, names);
    foreign_list(machine, path, add_name, names);
    if (in_tree && kind_in_tree(machine, path) == VFS_DIRECTORY)
        return memplug_attr_list(&machine->attr, in_tree, add_item, names);
    return 0;
}

int vfs_list(struct machine *machine, const char *path,
             void (*each)(void *to, const char *name), void *to)
{
    struct names names = {0};
    int error = gather(machine, path, &names);

    if (names.nr_names)
        qsort(names.names, names.nr_names, sizeof(*names.names), by_bytes);
    for (size_t i = 0; i < names.nr_names; i++)
        if (!error && (!i || strcmp(names.names[i], names.names[i - 1]) != 0))
            each(to, names.names[i]);
    for (size_t i = 0; i < names.nr_names; i++)
        free(names.names[i]);
    free(names.names);
    return error;
}

/* Files of the kernel stay what they are. */
static int may_change(const char *path)
{
    if (is_below(path, "/tmp"))
        return 0;
    return is_below(path, "/sys") || is_below(path, "/proc") ? -EPERM : -ENOSYS;
}

int vfs_mkdir(struct machine *machine, const char *path)
{
    int kind = vfs_kind(machine, path);
    int error = kind >= 0 ? -EEXIST : may_change(path);

    return error ? error : tmpfs_mkdir(machine->tmpfs, path);
}

int vfs_rmdir(struct machine *machine, const char *path)
{
    int error = may_change(path);

    return error ? error : tmpfs_rmdir(machine->tmpfs, path);
}

int vfs_unlink(struct machine *machine, const char *path)
{
    int error = may_change(path);

    return error ? error : tmpfs_unlink(machine->tmpfs, path);
}

/* What is mounted on one of the kernel's own directories is there already. */
int vfs_mount(struct machine *machine, const char *type, const char *path)
{
    if (is_below(path, "/tmp"))
        return strcmp(type, "ramfs") == 0 || strcmp(type, "tmpfs") == 0
                   ? tmpfs_mount(machine->tmpfs, path)
                   : -ENOSYS;
    return is_below(path, "/sys") || is_below(path, "/proc") ? 0 : -ENOSYS;
}

int vfs_unmount(struct machine *machine, const char *path)
{
    int error = may_change(path);

    return error ? error : tmpfs_unmount(machine->tmpfs, path);
}
