/* SPDX-License-Identifier: MIT */
/* memplug/host: files of the embedder's, by its own names. */
#include "tree.h"

#include <errno.h>

static int show_file(struct mpl_attr_call *call)
{
    const struct memplug_attr_file *file = &call->attr->files[call->place->index];
    struct mpl_attr_text *text = call->text;
    int length;

    if (file->show == NULL)
        return -EACCES;
    length = file->show(file->context, text->buffer, text->size_bytes);
    if (length < 0)
        return length;
    text->length = (size_t)length;
    return 0;
}

static int store_file(struct mpl_attr_call *call)
{
    const struct memplug_attr_file *file = &call->attr->files[call->place->index];

    if (file->store == NULL)
        return mpl_attr_refuse(call, -EACCES, "nobody may write this file", NULL);
    call->reason->step = file->name;
    return file->store(file->context, call->word.text, call->word.length, call->limit,
                       call->reason);
}

const struct mpl_attr_entry mpl_attr_host_file = {
    .name = "host",
    .mode = 0644,
    .show = show_file,
    .store = store_file,
};
const struct mpl_attr_dir mpl_attr_host_dir = {.nr_entries = 0};
