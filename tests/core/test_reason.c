/* SPDX-License-Identifier: MIT */
/* Reasons as sentences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/door.h"

static struct memplug_reason clear(void)
{
    struct memplug_reason reason;

    mpl_reason_reset(&reason);
    return reason;
}

static void expect(const struct memplug_reason *reason, const char *sentence)
{
    char text[512];

    assert_int_equal(memplug_reason_text(reason, text, sizeof(text)), strlen(sentence));
    assert_string_equal(text, sentence);
}

static void frame_in_the_way(void **state)
{
    struct memplug_reason reason = clear();

    (void)state;
    reason.error = -MPL_EBUSY;
    reason.operation = "offline";
    reason.step = "drain";
    reason.why = "a frame is used and nobody can move it";
    reason.remedy = "free it, or allocate it as movable";
    reason.block = 12;
    reason.node = 0;
    reason.pfn.nr = 0x61234;
    reason.nr_pages = 1;
    expect(&reason, "offline: drain: block 12: frame 0x61234: a frame is used and nobody can move "
                    "it (1 such frame): Device or resource busy (-16). "
                    "Free it, or allocate it as movable.");
    reason.nr_pages = 3;
    reason.owner = "mapping";
    reason.owner_cookie = 0x70;
    reason.remedy = NULL;
    expect(&reason, "offline: drain: block 12: frame 0x61234: a frame is used and nobody can move "
                    "it (3 such frames, owner \"mapping\", cookie 0x70): "
                    "Device or resource busy (-16).");
    memcpy(reason.detail, "Held by descriptor 5", 21);
    reason.remedy = "close it";
    expect(&reason, "offline: drain: block 12: frame 0x61234: a frame is used and nobody can move "
                    "it (3 such frames, owner \"mapping\", cookie 0x70): "
                    "Device or resource busy (-16). Held by descriptor 5. Close it.");
}

static void both_values(void **state)
{
    struct memplug_reason reason = clear();

    (void)state;
    reason.error = -MPL_EINVAL;
    reason.operation = "add";
    reason.step = "check";
    reason.why = "not multiples of the block";
    reason.address = 0x8000000;
    reason.size_bytes = 0x1000;
    reason.unit_bytes = 0x8000000;
    expect(&reason, "add: check: address 0x8000000 and size 0x1000: not multiples of the block, "
                    "0x8000000: Invalid argument (-22).");
    reason.address = 0;
    reason.size_bytes = 0;
    expect(&reason, "add: check: address 0x0 and size 0x0: not multiples of the block, "
                    "0x8000000: Invalid argument (-22).");
    reason.address = MEMPLUG_ANY_ADDRESS;
    reason.size_bytes = 0x1000;
    expect(&reason, "add: check: size 0x1000: not multiples of the block, "
                    "0x8000000: Invalid argument (-22).");
}

static void subscriber(void **state)
{
    struct memplug_reason reason = clear();

    (void)state;
    reason.error = -1;
    reason.operation = "online";
    reason.step = "ask";
    reason.why = "a subscriber refused";
    reason.block = 3;
    reason.owner = "bal\"loon";
    reason.remedy = "ask it why.";
    expect(&reason, "online: ask: block 3: a subscriber refused (subscriber \"bal\\x22loon\"): "
                    "Operation not permitted (-1). Ask it why.");
}

static void node_and_room(void **state)
{
    struct memplug_reason reason = clear();

    (void)state;
    reason.error = -MPL_EUCLEAN;
    reason.operation = "check";
    reason.step = "zone Movable";
    reason.why = "nr_free of the zone is not the sum of its blocks";
    reason.node = 1;
    expect(&reason, "check: zone Movable: node 1: nr_free of the zone is not the sum of its "
                    "blocks: Structure needs cleaning (-117).");
    reason = clear();
    reason.error = -MPL_ENOMEM;
    reason.why = "there is no room";
    reason.block = 0;
    reason.nr_pages = 12;
    expect(&reason, "block 0: there is no room (12 frames): Cannot allocate memory (-12).");
}

static void success(void **state)
{
    struct memplug_reason reason = clear();

    (void)state;
    expect(&reason, "nothing in the way.");
    reason.operation = "offline";
    reason.block = 5;
    reason.nr_pages = 1;
    expect(&reason, "offline: nothing in the way, 1 page to move.");
    reason.nr_pages = 2;
    expect(&reason, "offline: nothing in the way, 2 pages to move.");
}

static void nothing_said(void **state)
{
    struct memplug_reason reason = clear();
    char text[4] = "###";

    (void)state;
    reason.error = -MPL_EINTR;
    expect(&reason, "failed: Interrupted system call (-4).");
    reason.remedy = "";
    expect(&reason, "failed: Interrupted system call (-4).");
    expect(NULL, "");
    assert_int_equal(memplug_reason_text(NULL, NULL, 0), 0);
    assert_int_equal(memplug_reason_text(&reason, NULL, 0), 37);
    assert_int_equal(memplug_reason_text(&reason, text, 3), 37);
    assert_string_equal(text, "fa");
}

/* Each error of the core and of the attribute tree has a name, and no two the same. */
static void names(void **state)
{
    static const int errors[] = {
        MPL_ENOENT, MPL_EINTR,  MPL_ENXIO,  MPL_E2BIG,  MPL_EAGAIN,  MPL_ENOMEM,    MPL_EBUSY,
        MPL_EEXIST, MPL_ENODEV, MPL_EINVAL, MPL_ENOSPC, MPL_EDEADLK, MPL_ETIMEDOUT, MPL_EUCLEAN,
        MPL_EPERM,  MPL_ESRCH,  MPL_EBADF,  MPL_EACCES, MPL_ENOTDIR, MPL_EISDIR,    MPL_ERANGE,
        MPL_EFBIG,  MPL_EPROTO, MPL_EMSGSIZE, MPL_EOPNOTSUPP, MPL_ENFILE, MPL_EMFILE, MPL_EROFS,
    };
    char texts[sizeof(errors) / sizeof(errors[0])][100];

    (void)state;
    for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        struct memplug_reason reason = clear();
        char *end;

        reason.error = -errors[i];
        (void)memplug_reason_text(&reason, texts[i], sizeof(texts[i]));
        assert_null(strstr(texts[i], ": error ("));
        end = strstr(texts[i], " (-");
        assert_non_null(end);
        assert_int_equal(atoi(end + 2), -errors[i]);
        *end = '\0';
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(texts[i], texts[j]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frame_in_the_way), cmocka_unit_test(both_values),
        cmocka_unit_test(subscriber),       cmocka_unit_test(node_and_room),
        cmocka_unit_test(success),          cmocka_unit_test(nothing_said),
        cmocka_unit_test(names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
