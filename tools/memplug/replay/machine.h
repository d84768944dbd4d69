/* SPDX-License-Identifier: MIT */
/*
 * The machine of a scenario: the fake host with a pool on it, whose boot memory is the machine's,
 * the tree of attributes, and whoever uses memory, plugs devices or listens.
 */
#ifndef REPLAY_MACHINE_H
#define REPLAY_MACHINE_H

#include "layout.h"
#include "lend.h"
#include "scenario.h"
#include "store.h"
#include "buffer.h"

#include <memplug/attr.h>
#include <memplug/boot.h>
#include <memplug/huge.h>
#include <memplug/policy.h>

#define NS_PER_S 1000000000ull

/* What has happened since it was asked for last. */
struct happened {
    struct memplug_uevent *uevents;
    size_t nr_uevents;
    struct memplug_notice *notices;
    size_t nr_notices;
};

/* An entry of the firmware's map of memory; its number is never given out again. */
struct firmware_entry {
    unsigned number;
    uint64_t start, end; /* inclusive */
    const char *type;
    bool plugged;
};

struct dimm;
struct hogs;
struct shell;
struct tmpfs;
struct vfs;
struct virtio_devices;

struct machine {
    struct boot_options options;
    struct layout layout;
    struct fake_machine *fake;
    struct fake_backing *boot_backing;
    struct lend *lend;
    struct memplug_config config;
    struct memplug *pool;
    struct memplug_attr attr;
    bool has_attr;
    struct memplug_limit limit; /* of whatever has none of its own */
    uint64_t deadline_ns;       /* when a shell line's writes are interrupted; 0: never */
    struct shell *parked;       /* lines whose background jobs still sleep */
    bool runs_parked;
    struct buffer cmdline;

    struct happened happened;
    struct memplug_listener listener;
    struct memplug_subscriber recorder, injector;
    int inject_online, inject_offline; /* negative errnos, or 0 */
    bool has_injector;

    struct store *store;
    struct holding kernel; /* what it has for itself */
    struct firmware_entry *firmware;
    size_t nr_firmware;
    unsigned next_firmware;

    const char *guest_root; /* where files lie that only the guest had; null: there are none */
    struct dimm *dimms;
    struct virtio_devices *virtio; /* null: the driver is not loaded */
    struct hogs *hogs;
    struct tmpfs *tmpfs;
    struct vfs *vfs; /* open files */
};

/* 0, or -1 and a sentence. */
int machine_open(struct machine *machine, const struct boot_options *options, char *error,
                 size_t size_bytes);
/* Ends it as it stands: what is plugged in stays plugged in. */
void machine_close(struct machine *machine);

/* Everything that must hold between two steps: 0, or -1 and a sentence. */
int machine_check(struct machine *machine, char *error, size_t size_bytes);

void machine_forget(struct happened *happened);

/* The module that makes notifiers fail is loaded now; again is no error. */
int machine_load_injector(struct machine *machine);
int machine_unload_injector(struct machine *machine);

uint64_t machine_clock(const struct machine *machine);
void machine_sleep(struct machine *machine, uint64_t ns);

/* A text with $M, $P and @N replaced. */
void machine_expand(const struct machine *machine, const char *from, struct buffer *to);

uint64_t machine_block_bytes(const struct machine *machine);

/* For what came with a device. */
void machine_firmware_add(struct machine *machine, uint64_t start, uint64_t size_bytes);
void machine_firmware_remove(struct machine *machine, uint64_t start);

#endif
