/* SPDX-License-Identifier: MIT */
/* The doors of memplug/attr.h: find, check the mode, see that it is still there, make one call. */
#include "tree.h"
#include "walk.h"

#include <errno.h>
#include <string.h>

/* --- init and fini ---------------------------------------------------------------------------- */

int memplug_attr_init(struct memplug_attr *attr, const struct memplug_attr_config *config)
{
    const struct memplug_config *pool_config = config->pool_config;
    unsigned nr_nodes = pool_config->nr_nodes != 0 ? pool_config->nr_nodes : 1;
    uint8_t shift = pool_config->host->geometry.block_shift;
    struct memplug_node_info info;

    if (nr_nodes > 64 || memplug_node_info(config->pool, (int)nr_nodes - 1, &info) != 0 ||
        memplug_node_info(config->pool, (int)nr_nodes, &info) == 0 ||
        memplug_block_of(config->pool, (uint64_t)1 << shift) != 1 ||
        (config->limit != NULL && config->limit->stop != NULL))
        return -EINVAL;
    memset(attr, 0, sizeof(*attr));
    attr->pool = config->pool;
    attr->host = *pool_config->host;
    attr->limit = config->limit;
    attr->files = config->files;
    attr->nr_files = config->nr_files;
    attr->nr_nodes = nr_nodes;
    attr->cpu_nodes = pool_config->cpu_nodes != 0 ? pool_config->cpu_nodes : 1;
    attr->listener = (struct memplug_listener){.hear = mpl_attr_hear, .context = attr};
    return memplug_listen(attr->pool, &attr->listener);
}

int memplug_attr_fini(struct memplug_attr *attr)
{
    return memplug_unlisten(attr->pool, &attr->listener);
}

/* --- look around ------------------------------------------------------------------------------ */

int memplug_attr_stat(const struct memplug_attr *attr, const char *path,
                      struct memplug_attr_item *item)
{
    struct mpl_attr_found found;
    int error = mpl_attr_walk(attr, path, &found);

    if (error != 0)
        return error;
    *item = (struct memplug_attr_item){.kind = MEMPLUG_ATTR_DIRECTORY, .mode = 0755};
    if (found.link != NULL)
        *item = (struct memplug_attr_item){.kind = MEMPLUG_ATTR_LINK, .mode = 0777};
    else if (found.file != NULL)
        *item = (struct memplug_attr_item){.kind = MEMPLUG_ATTR_FILE, .mode = found.mode};
    return 0;
}

static void list_family(const struct memplug_attr *attr, const struct mpl_attr_found *found,
                        const struct mpl_attr_family *family, memplug_attr_list_t *list,
                        void *context)
{
    struct memplug_attr_item item = {
        .kind = family->link != NULL ? MEMPLUG_ATTR_LINK : MEMPLUG_ATTR_DIRECTORY,
        .mode = family->link != NULL ? 0777 : 0755,
    };
    uint64_t number = 0;

    for (;;) {
        char name[MEMPLUG_ATTR_NAME_BYTES];
        struct mpl_attr_text text = {.buffer = name, .size_bytes = sizeof(name)};

        number = family->next(attr, &found->place, number);
        if (number == MPL_ATTR_NONE)
            return;
        mpl_attr_put_name(&text, family, number++);
        mpl_attr_end(&text);
        item.name = name;
        list(context, &item);
    }
}

static void list_host_files(const struct memplug_attr *attr, memplug_attr_list_t *list,
                            void *context)
{
    for (unsigned i = 0; i < attr->nr_files; i++) {
        struct memplug_attr_item item = {
            .kind = MEMPLUG_ATTR_FILE,
            .mode = attr->files[i].mode,
            .name = attr->files[i].name,
        };

        list(context, &item);
    }
}

int memplug_attr_list(const struct memplug_attr *attr, const char *path, memplug_attr_list_t *list,
                      void *context)
{
    struct mpl_attr_found found;
    int error = mpl_attr_walk(attr, path, &found);

    if (error != 0 || found.file != NULL)
        return error != 0 ? error : -ENOTDIR;
    for (unsigned i = 0; i < found.dir->nr_entries; i++) {
        const struct mpl_attr_entry *entry = &found.dir->entries[i];
        struct memplug_attr_item item = {
            .kind = entry->dir != NULL ? MEMPLUG_ATTR_DIRECTORY : MEMPLUG_ATTR_FILE,
            .mode = entry->mode,
            .name = entry->name,
        };

        list(context, &item);
    }
    if (found.dir == &mpl_attr_host_dir)
        list_host_files(attr, list, context);
    for (unsigned i = 0; i < found.dir->nr_families; i++)
        list_family(attr, &found, &found.dir->families[i], list, context);
    return 0;
}

int memplug_attr_readlink(const struct memplug_attr *attr, const char *path, char *buffer,
                          size_t size_bytes)
{
    struct mpl_attr_text text = {.buffer = buffer, .size_bytes = size_bytes};
    struct mpl_attr_found found;
    int error = mpl_attr_walk(attr, path, &found);

    if (error != 0 || found.link == NULL)
        return error != 0 ? error : -EINVAL;
    mpl_attr_put(&text, found.link->link);
    mpl_attr_put_name(&text, found.link, found.number);
    return mpl_attr_end(&text);
}

/* --- a file ----------------------------------------------------------------------------------- */

int memplug_attr_open(struct memplug_attr *attr, const char *path, unsigned access,
                      struct memplug_attr_handle *handle)
{
    unsigned wanted = (access & MEMPLUG_ATTR_READ ? 0444 : 0) |
                      (access & MEMPLUG_ATTR_WRITE ? 0222 : 0);
    struct mpl_attr_found found;
    int error = mpl_attr_walk(attr, path, &found);

    if (error != 0)
        return error;
    if (wanted == 0 || (access & ~(MEMPLUG_ATTR_READ | MEMPLUG_ATTR_WRITE)) != 0)
        return -EINVAL;
    if (found.file == NULL)
        return -EISDIR;
    if (((wanted & 0444) != 0 && (found.mode & 0444) == 0) ||
        ((wanted & 0222) != 0 && (found.mode & 0222) == 0))
        return -EACCES;
    *handle = (struct memplug_attr_handle){
        .attr = attr,
        .entry = found.file,
        .place = found.place,
        .access = access,
    };
    return 0;
}

/* Is what the path led to still there, and still the same? */
static bool is_there(const struct mpl_attr_call *call)
{
    struct memplug_block_info block;
    struct memplug_attr_place place;

    if (call->place->block != MPL_ATTR_NONE)
        return mpl_attr_info(call, &block) == 0;
    return !call->place->node_online ||
           mpl_attr_find_node(call->attr, (uint64_t)call->place->node, &place) == 0;
}

int memplug_attr_read(struct memplug_attr_handle *handle, char *buffer, size_t size_bytes)
{
    const struct mpl_attr_entry *entry = handle->entry;
    struct mpl_attr_text text = {.buffer = buffer, .size_bytes = size_bytes};
    struct mpl_attr_call call = {
        .attr = handle->attr,
        .place = &handle->place,
        .text = &text,
    };
    int error;

    if ((handle->access & MEMPLUG_ATTR_READ) == 0)
        return -EBADF;
    if (!is_there(&call))
        return -ENODEV;
    error = entry->show(&call);
    return error != 0 ? error : mpl_attr_end(&text);
}

static struct memplug_reason no_reason(const char *step, const struct memplug_attr_place *place)
{
    return (struct memplug_reason){
        .operation = "write",
        .step = step,
        .address = MEMPLUG_ANY_ADDRESS,
        .block = place->block <= INT64_MAX ? (int64_t)place->block : -1,
        .node = place->node,
        .pfn = {UINT64_MAX},
    };
}

static int store(struct memplug_attr_handle *handle, struct mpl_attr_call *call, size_t length,
                 const struct memplug_limit *limit)
{
    const struct mpl_attr_entry *entry = handle->entry;
    struct memplug_attr_run run = {.name = entry->name};
    int error;

    if ((handle->access & MEMPLUG_ATTR_WRITE) == 0)
        return mpl_attr_refuse(call, -EBADF, "the handle is not open for writing", NULL);
    if (!is_there(call))
        return mpl_attr_refuse(call, -ENODEV, "what the file describes is gone", "open it anew");
    if (length == 0)
        return 0;
    mpl_attr_run_begin(&run, handle, limit != NULL ? limit : handle->attr->limit);
    call->limit = &run.limit;
    error = entry->store(call);
    mpl_attr_run_end(&run);
    if (error == 0 && call->reason->error != 0)
        *call->reason = no_reason(entry->name, call->place);
    if (error != 0)
        mpl_attr_seen(handle->attr, call->reason);
    return error != 0 ? error : (int)length;
}

int memplug_attr_write(struct memplug_attr_handle *handle, const char *text, size_t length,
                       const struct memplug_limit *limit, struct memplug_reason *reason)
{
    const struct mpl_attr_entry *entry = handle->entry;
    struct memplug_reason own;
    struct mpl_attr_call call = {
        .attr = handle->attr,
        .place = &handle->place,
        .reason = reason != NULL ? reason : &own,
    };

    if (length > MEMPLUG_ATTR_WRITE_MAX)
        length = MEMPLUG_ATTR_WRITE_MAX;
    if (length > 0)
        call.word = mpl_attr_word(text, length);
    *call.reason = no_reason(entry->name, &handle->place);
    return store(handle, &call, length, limit);
}

void memplug_attr_cancel(struct memplug_attr_handle *handle)
{
    __atomic_store_n(&handle->stop, 1, __ATOMIC_RELEASE);
}

int memplug_attr_get(struct memplug_attr *attr, const char *path, char *text, size_t size_bytes)
{
    struct memplug_attr_handle handle;
    int error = memplug_attr_open(attr, path, MEMPLUG_ATTR_READ, &handle);

    return error != 0 ? error : memplug_attr_read(&handle, text, size_bytes);
}

int memplug_attr_set(struct memplug_attr *attr, const char *path, const char *text, size_t length,
                     const struct memplug_limit *limit, struct memplug_reason *reason)
{
    static const struct memplug_attr_place nowhere = {.block = MPL_ATTR_NONE,
                                                      .node = MEMPLUG_ANY_NODE};
    struct memplug_attr_handle handle;
    int error = memplug_attr_open(attr, path, MEMPLUG_ATTR_WRITE, &handle);

    if (error == 0)
        return memplug_attr_write(&handle, text, length, limit, reason);
    if (reason != NULL) {
        *reason = no_reason("open", &nowhere);
        reason->error = error;
        reason->why = error == -EACCES   ? "nobody may write this file"
                      : error == -EISDIR ? "this is a directory"
                                         : "there is no such file";
    }
    return error;
}
