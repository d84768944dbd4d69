/* SPDX-License-Identifier: MIT */
/* virtio-mem devices, also such as come later. */
#ifndef BARE_VIRTIO_MEMORY_H
#define BARE_VIRTIO_MEMORY_H

#include "bare.h"

/* Serve what has changed since; true if something had. */
bool bare_virtio_memory_poll(void);
/* For the handler of BARE_VECTOR_DEVICE. */
void bare_virtio_memory_interrupt(void);

#endif
