/* SPDX-License-Identifier: MIT */
/*
 * A reason as a sentence:
 *
 *   offline: isolate: block 12: frame 0x61234: not movable (1 such frame, owner "mapping",
 *   cookie 0x7): Device or resource busy (-16). Free it.
 *   add: address 0x8000000 and size 0x1000: not multiples of the block, 0x8000000: Invalid ...
 *
 * Where it happened, from the outside inwards; why; who; the error; what the owner says of it; what
 * to do about it.
 */
#include "../core.h"
#include "text.h"

struct error_name {
    int number;
    const char *name;
};

/* As on Linux, but for two whose usual text is about something else: 7 and 110. */
static const char *error_name(int number)
{
    static const struct error_name names[] = {
        {MPL_EPERM, "Operation not permitted"},
        {MPL_ENOENT, "No such file or directory"},
        {MPL_ESRCH, "No such process"},
        {MPL_EINTR, "Interrupted system call"},
        {MPL_EIO, "Input/output error"},
        {MPL_ENXIO, "No such device or address"},
        {MPL_E2BIG, "Too big"},
        {MPL_EBADF, "Bad file descriptor"},
        {MPL_EAGAIN, "Resource temporarily unavailable"},
        {MPL_ENOMEM, "Cannot allocate memory"},
        {MPL_EACCES, "Permission denied"},
        {MPL_EBUSY, "Device or resource busy"},
        {MPL_EEXIST, "File exists"},
        {MPL_ENODEV, "No such device"},
        {MPL_ENOTDIR, "Not a directory"},
        {MPL_EISDIR, "Is a directory"},
        {MPL_EINVAL, "Invalid argument"},
        {MPL_ENFILE, "Too many open files in system"},
        {MPL_EMFILE, "Too many open files"},
        {MPL_EFBIG, "File too large"},
        {MPL_ENOSPC, "No space left on device"},
        {MPL_EROFS, "Read-only file system"},
        {MPL_ERANGE, "Numerical result out of range"},
        {MPL_EDEADLK, "Resource deadlock avoided"},
        {MPL_EPROTO, "Protocol error"},
        {MPL_EMSGSIZE, "Message too long"},
        {MPL_EOPNOTSUPP, "Operation not supported"},
        {MPL_ETIMEDOUT, "Timed out"},
        {MPL_EUCLEAN, "Structure needs cleaning"},
        {MPL_EHWPOISON, "Memory page has hardware error"},
    };

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i].number == number)
            return names[i].name;
    return "error";
}

/* "offline: " */
static void part(struct mpl_text *text, const char *word)
{
    if (!word)
        return;
    mpl_text_string(text, word);
    mpl_text_string(text, ": ");
}

/* Both values: whoever reads "not a multiple" wants to know which one was meant. */
static void request(struct mpl_text *text, const struct memplug_reason *reason)
{
    bool has_address = reason->address != MEMPLUG_ANY_ADDRESS;

    if (reason->size_bytes == 0 && reason->unit_bytes == 0 &&
        (reason->address == 0 || !has_address))
        return;
    if (has_address) {
        mpl_text_string(text, "address ");
        mpl_text_hex(text, reason->address);
        mpl_text_string(text, " and ");
    }
    mpl_text_string(text, "size ");
    mpl_text_hex(text, reason->size_bytes);
    mpl_text_string(text, ": ");
}

static void place(struct mpl_text *text, const struct memplug_reason *reason)
{
    part(text, reason->operation);
    part(text, reason->step);
    if (reason->block >= 0) {
        mpl_text_string(text, "block ");
        mpl_text_signed(text, reason->block);
        mpl_text_string(text, ": ");
    } else if (reason->node >= 0) {
        mpl_text_string(text, "node ");
        mpl_text_signed(text, reason->node);
        mpl_text_string(text, ": ");
    }
    request(text, reason);
    if (reason->pfn.nr != MPL_NO_PFN) {
        mpl_text_string(text, "frame ");
        mpl_text_hex(text, reason->pfn.nr);
        mpl_text_string(text, ": ");
    }
}

/* " (3 such frames, owner "mapping", cookie 0x10)". With no frame it was a subscriber. */
static void details(struct mpl_text *text, const struct memplug_reason *reason)
{
    bool frame = reason->pfn.nr != MPL_NO_PFN;
    bool count = reason->nr_pages > 0;

    if (!count && !reason->owner)
        return;
    mpl_text_string(text, " (");
    if (count) {
        mpl_text_decimal(text, reason->nr_pages);
        mpl_text_string(text, frame ? " such frame" : " frame");
        mpl_text_string(text, reason->nr_pages == 1 ? "" : "s");
    }
    if (reason->owner) {
        mpl_text_string(text, count ? ", " : "");
        mpl_text_string(text, frame ? "owner " : "subscriber ");
        mpl_text_quoted(text, reason->owner);
    }
    if (reason->owner && frame) {
        mpl_text_string(text, ", cookie ");
        mpl_text_hex(text, reason->owner_cookie);
    }
    mpl_text_string(text, ")");
}

static void error(struct mpl_text *text, int number)
{
    mpl_text_string(text, ": ");
    mpl_text_string(text, error_name(-number));
    mpl_text_string(text, " (");
    mpl_text_signed(text, number);
    mpl_text_string(text, ")");
}

/* ". Mapped at 0x7f0000200000: the owner's own sentence." */
static void detail(struct mpl_text *text, const struct memplug_reason *reason)
{
    if (reason->detail[0] == 0)
        return;
    mpl_text_string(text, ". ");
    mpl_text_string(text, reason->detail);
}

/* ". End the I/O that pins it." */
static void remedy(struct mpl_text *text, const char *words)
{
    char first;
    size_t last = 0;

    mpl_text_string(text, ".");
    if (!words || !words[0])
        return;
    while (words[last + 1])
        last++;
    first = words[0] >= 'a' && words[0] <= 'z' ? (char)(words[0] - 'a' + 'A') : words[0];
    mpl_text_string(text, " ");
    mpl_text_bytes(text, &first, 1);
    mpl_text_string(text, words + 1);
    if (words[last] != '.')
        mpl_text_string(text, ".");
}

static void success(struct mpl_text *text, const struct memplug_reason *reason)
{
    if (reason->why && reason->block >= 0) {
        place(text, reason);
        mpl_text_string(text, reason->why);
        details(text, reason);
        detail(text, reason);
        remedy(text, reason->remedy);
        return;
    }
    part(text, reason->operation);
    mpl_text_string(text, reason->why ? reason->why : "nothing in the way");
    if (reason->nr_pages > 0) {
        mpl_text_string(text, ", ");
        mpl_text_decimal(text, reason->nr_pages);
        mpl_text_string(text, reason->nr_pages == 1 ? " page to move" : " pages to move");
    }
    remedy(text, reason->remedy);
}

size_t memplug_reason_text(const struct memplug_reason *reason, char *buffer, size_t size_bytes)
{
    struct mpl_text text;

    mpl_text_to_buffer(&text, buffer, size_bytes);
    if (reason && reason->error == 0) {
        success(&text, reason);
    } else if (reason) {
        place(&text, reason);
        mpl_text_string(&text, reason->why ? reason->why : "failed");
        if (reason->unit_bytes > 0) {
            mpl_text_string(&text, ", ");
            mpl_text_hex(&text, reason->unit_bytes);
        }
        details(&text, reason);
        error(&text, reason->error);
        detail(&text, reason);
        remedy(&text, reason->remedy);
    }
    return mpl_text_end(&text);
}
