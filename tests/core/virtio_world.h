/* SPDX-License-Identifier: MIT */
/* A world (world.h) with a virtio-mem device that has nothing plugged in. */
#ifndef VIRTIO_WORLD_H
#define VIRTIO_WORLD_H

#include "../../front/devices/virtio_mem.h"
#include "world.h"

#define FIRST 8u     /* the region begins behind this block's start; */
#define NR_BLOCKS 8u /* the first that it holds as a whole is the next one */
#define ROOM 40u     /* where pages can go */

extern struct world world;
extern struct virtio_mem_driver driver;
extern struct virtio_mem device;
extern struct memplug_reason reason;
extern void *device_state;
extern uint64_t seed; /* of the random life that is being run; in messages */

/* Blocks elsewhere are online and Movable. */
void open_device(enum fake_shape shape, uint64_t threshold_blocks);
/* All of it goes, and nothing may be left. */
void close_device(void);
/* The device's record, the pool and the frames say the same; world_check(). */
void check_device(void);

/* What the device was opened with. */
struct virtio_mem_config region(uint64_t threshold_blocks);
uint64_t unit(void); /* bytes of a sub-block */
uint64_t sub_pages(void);

/* These must succeed. */
void request(uint64_t nr_sub_blocks);
void online(uint64_t block, enum memplug_online_type type);

#endif
