/* SPDX-License-Identifier: MIT */
/* DIMMs: plugged in as the machine's management asks for it, ejected as ACPI does. */
#ifndef REPLAY_DIMM_H
#define REPLAY_DIMM_H

#include "machine.h"

#include "../../../front/devices/dimm_memory.h"

enum { DIMM_ANYWHERE = -1 };

/* What became of a plug: the machine itself may refuse it (it has no such slot, the place is
 * taken, ...), and then the kernel hears nothing. Else error is what the kernel's add answered:
 * 0 or a negative errno; the device is there all the same. */
struct dimm_plug {
    const char *refused; /* or null */
    int error;
    uint64_t address;
    unsigned slot;
};

struct dimm_plug dimm_plug(struct machine *machine, const char *name, uint64_t size_bytes,
                           int64_t at_block, unsigned node);

enum dimm_answer {
    DIMM_NO_DEVICE,
    DIMM_REFUSED, /* the kernel keeps it */
    DIMM_DELETED,
};

/* Ask for a DIMM's removal, and wait for so many seconds at most. */
enum dimm_answer dimm_unplug(struct machine *machine, const char *name, uint64_t seconds,
                             struct dimm_refusal *refusal);

/* A device of another kind takes room in the window too, but no slot; it stays. Null, and where it
 * is; or why the machine refuses it. */
const char *dimm_reserve(struct machine *machine, const char *name, uint64_t size_bytes,
                         uint64_t align, unsigned node, uint64_t *address);

void dimms_close(struct machine *machine);

/* For records: each in the order of plugging; null when there are no more. */
struct dimm_info {
    const char *name;
    uint64_t address, size_bytes;
    unsigned node, slot;
};
bool dimm_info(const struct machine *machine, size_t index, struct dimm_info *info);

#endif
