/* SPDX-License-Identifier: MIT */
/*
 * The reader: looks at the tree for the door. It has the program's descriptors, which the door has
 * not: a mover that is asked whether it could move a page looks at the files behind it.
 */
#include "server.h"
#include "sys.h"

#include <sys/prctl.h>

/* A read takes moments, but for one of a page that is just being moved: that waits for the move. */
#define PATIENCE_NS 2000000000ull

static void put_item(void *context, const struct memplug_attr_item *item)
{
    static const char *const kinds[] = {
        [MEMPLUG_ATTR_DIRECTORY] = "d 0",
        [MEMPLUG_ATTR_FILE] = "f 0",
        [MEMPLUG_ATTR_LINK] = "l 0",
    };
    char mode[4] = {(char)('0' + (item->mode >> 6 & 7)), (char)('0' + (item->mode >> 3 & 7)),
                    (char)('0' + (item->mode & 7))};

    mpl_serve_put(context, kinds[item->kind]);
    mpl_serve_put(context, mode);
    mpl_serve_put(context, " ");
    mpl_serve_put(context, item->name);
    mpl_serve_put(context, "\n");
}

static int list(struct memplug_server *server, const char *path)
{
    struct mpl_words words = {.text = server->text, .size_bytes = sizeof(server->text)};
    int error = memplug_attr_list(server->attr, path, put_item, &words);

    return error != 0 ? error : (int)mpl_serve_put_end(&words);
}

static int carry_out(struct memplug_server *server)
{
    struct mpl_errand *errand = &server->errand;

    switch (errand->kind) {
    case MPL_READ:
        return memplug_attr_get(server->attr, errand->path, server->text, sizeof(server->text));
    case MPL_OPEN:
        return memplug_attr_open(server->attr, errand->path, errand->access, &errand->handle);
    case MPL_READ_HANDLE:
        return memplug_attr_read(&errand->handle, server->text, sizeof(server->text));
    case MPL_LIST:
        return list(server, errand->path);
    case MPL_LINK:
        return memplug_attr_readlink(server->attr, errand->path, server->text,
                                     sizeof(server->text));
    case MPL_END:
        return 0;
    }
    return -EINVAL;
}

void *mpl_serve_reader(void *context)
{
    struct memplug_server *server = context;
    mpl_word_t *turn = &server->errand.turn;
    bool ended = false;

    syscall(SYS_prctl, PR_SET_NAME, "memplug-read", 0, 0, 0);
    while (!ended) {
        uint32_t now = __atomic_load_n(turn, __ATOMIC_ACQUIRE);

        if (now % 2 == 0) {
            mpl_serve_word_wait(turn, now, 0);
            continue;
        }
        ended = server->errand.kind == MPL_END;
        server->errand.result = carry_out(server);
        __atomic_store_n(turn, now + 1, __ATOMIC_RELEASE);
        mpl_serve_word_wake(turn);
    }
    return NULL;
}

/* False: it was not the door's turn when that time was over. 0: no end. */
static bool wait_for_turn(struct memplug_server *server, uint64_t patience_ns)
{
    mpl_word_t *turn = &server->errand.turn;
    uint64_t start_ns = mpl_serve_now_ns(), passed_ns = 0;
    uint32_t now;

    while ((now = __atomic_load_n(turn, __ATOMIC_ACQUIRE)) % 2 != 0) {
        if (patience_ns != 0 && passed_ns >= patience_ns)
            return false;
        mpl_serve_word_wait(turn, now, patience_ns != 0 ? patience_ns - passed_ns : 0);
        passed_ns = mpl_serve_now_ns() - start_ns;
    }
    return true;
}

static void hand_over(struct memplug_server *server)
{
    __atomic_fetch_add(&server->errand.turn, 1, __ATOMIC_ACQ_REL);
    mpl_serve_word_wake(&server->errand.turn);
}

int mpl_serve_read(struct memplug_server *server, enum mpl_errand_kind kind, const char *path,
                   unsigned access, struct memplug_attr_handle *handle)
{
    struct mpl_errand *errand = &server->errand;
    struct mpl_words words = {.text = errand->path, .size_bytes = sizeof(errand->path)};

    if (__atomic_load_n(&errand->turn, __ATOMIC_ACQUIRE) % 2 != 0)
        return -ETIMEDOUT;
    errand->kind = kind;
    errand->access = access;
    mpl_serve_put(&words, path);
    mpl_serve_put_end(&words);
    if (kind == MPL_READ_HANDLE)
        errand->handle = *handle;
    hand_over(server);
    if (!wait_for_turn(server, PATIENCE_NS))
        return -ETIMEDOUT;
    if (kind == MPL_OPEN && errand->result == 0)
        *handle = errand->handle;
    return errand->result;
}

void mpl_serve_read_end(struct memplug_server *server)
{
    wait_for_turn(server, 0);
    server->errand.kind = MPL_END;
    hand_over(server);
}
