/* SPDX-License-Identifier: MIT */
/* Steps that plug devices in and pull them out. */
#include "steps.h"

#include "dimm.h"
#include "virtio_device.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_WAIT_S 60
#define DEFAULT_DEVICE_BLOCK "2M"

static json_t *list_dimms(const struct machine *machine)
{
    json_t *dimms = must_json(json_array());
    struct dimm_info info;

    for (size_t i = 0; dimm_info(machine, i, &info); i++) {
        json_t *dimm = json_pack("{s:s, s:o, s:I, s:i, s:i}", "id", info.name, "addr",
                                 json_sprintf("0x%" PRIx64, info.address), "size",
                                 (json_int_t)info.size_bytes, "node", (int)info.node, "slot",
                                 (int)info.slot);

        must_json(json_array_append_new(dimms, must_json(dimm)) ? NULL : dimms);
    }
    return dimms;
}

int step_add(struct machine *machine, const struct step *step, json_t *record)
{
    const char *at = step_option(step, "at="), *node = step_option(step, "node=");
    int64_t block = DIMM_ANYWHERE;
    struct dimm_plug plug;
    uint64_t size_bytes = 0, number;
    bool in_window;

    if (at && parse_block(at, &in_window, &number))
        block = (int64_t)number;
    if (!parse_size(step->words[2], &size_bytes))
        return 0;
    plug = dimm_plug(machine, step->words[1], size_bytes, block,
                     node ? (unsigned)strtoul(node, NULL, 10) : 0);
    json_put(record, "qmp_object_add", json_string("ok"));
    json_put(record, "qmp_device_add",
             plug.refused ? json_pack("{s:s}", "error", plug.refused) : json_object());
    if (plug.refused)
        return 0;
    json_put(record, "guest_answered", json_true());
    json_put(record, "dimms", list_dimms(machine));
    if (plug.error)
        json_put(record, "add_errno", json_string(record_errno(plug.error)));
    return 0;
}

static void put_reason(json_t *record, const char *key, const struct memplug_reason *reason)
{
    char text[512];

    memplug_reason_text(reason, text, sizeof(text));
    json_put(record, key, json_text(text, strlen(text)));
}

int step_del(struct machine *machine, const struct step *step, json_t *record)
{
    const char *wait = step_option(step, "wait=");
    uint64_t seconds = wait ? strtoull(wait, NULL, 10) : DEFAULT_WAIT_S;
    struct dimm_refusal refusal = {.nr_not_restored = 0};
    enum dimm_answer answer = dimm_unplug(machine, step->words[1], seconds, &refusal);

    if (answer == DIMM_NO_DEVICE) {
        json_put(record, "qmp_device_del", json_string("there is no such device"));
        return 0;
    }
    json_put(record, "qmp_device_del", json_string("ok"));
    json_put(record, "deleted", json_boolean(answer == DIMM_DELETED));
    if (answer == DIMM_DELETED)
        return 0;
    put_reason(record, "reason", &refusal.reason);
    if (!refusal.nr_not_restored)
        return 0;
    json_put(record, "not_restored", json_integer((json_int_t)refusal.nr_not_restored));
    put_reason(record, "restore_reason", &refusal.restore);
    return 0;
}

/* --- virtio-mem ------------------------------------------------------------------------------- */

static void put_device(const struct machine *machine, const char *name, int error,
                       const struct memplug_reason *reason, json_t *record)
{
    uint64_t bytes;

    if (virtio_plugged(machine, name, &bytes))
        json_put(record, "plugged", json_integer((json_int_t)bytes));
    if (!error)
        return;
    json_put(record, "request_errno", json_string(record_errno(error)));
    if (reason->error)
        put_reason(record, "reason", reason);
}

int step_vadd(struct machine *machine, const struct step *step, json_t *record)
{
    const char *node = step_option(step, "node="), *block = step_option(step, "block=");
    uint64_t max_bytes = 0, requested_bytes = 0, block_bytes = 0;
    struct memplug_reason reason = {0};
    const char *refused;
    int error = 0;

    if (!parse_size(step->words[2], &max_bytes) || !parse_size(step->words[3], &requested_bytes) ||
        !parse_size(block ? block : DEFAULT_DEVICE_BLOCK, &block_bytes))
        return 0;
    refused = virtio_plug(machine, step->words[1], max_bytes, requested_bytes, block_bytes,
                          node ? (unsigned)strtoul(node, NULL, 10) : 0, &error, &reason);
    json_put(record, "qmp_object_add", json_string("ok"));
    json_put(record, "qmp_device_add",
             refused ? json_pack("{s:s}", "error", refused) : json_object());
    if (!refused)
        put_device(machine, step->words[1], error, &reason, record);
    return 0;
}

int step_vreq(struct machine *machine, const struct step *step, json_t *record)
{
    struct memplug_reason reason = {0};
    uint64_t requested_bytes = 0;

    if (parse_size(step->words[2], &requested_bytes))
        put_device(machine, step->words[1],
                   virtio_resize(machine, step->words[1], requested_bytes, &reason), &reason,
                   record);
    return 0;
}
