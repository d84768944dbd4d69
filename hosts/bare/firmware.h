/* SPDX-License-Identifier: MIT */
#ifndef BARE_FIRMWARE_H
#define BARE_FIRMWARE_H

/* CPUs, nodes, the hot-plug window; once the direct map is there. */
void bare_acpi_read(void);

#endif
