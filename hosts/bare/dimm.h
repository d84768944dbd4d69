/* SPDX-License-Identifier: MIT */
/* DIMMs behind QEMU's ACPI memory-hotplug registers. */
#ifndef BARE_DIMM_H
#define BARE_DIMM_H

#include "bare.h"

/* Those that were there at power-on. */
void bare_dimm_start(void);
/* For the handler of BARE_VECTOR_ACPI. */
void bare_dimm_interrupt(void);
/* Serve what has happened since; true if something had. */
bool bare_dimm_poll(void);

#endif
