/* SPDX-License-Identifier: MIT */
/* PCI by its two ports: functions, base addresses, capabilities, MSI-X. */
#ifndef BARE_PCI_H
#define BARE_PCI_H

#include "bare.h"

struct bare_pci {
    uint8_t bus, device, function;
    uint8_t bridge_device, bridge_function; /* on bus 0; of functions on other buses */
    uint16_t vendor, id;
};

/* Each function that there is now, on bus 0 and behind its bridges. */
void bare_pci_each(void (*take)(const struct bare_pci *pci));

uint32_t bare_pci_read(const struct bare_pci *pci, unsigned at, unsigned size_bytes);
void bare_pci_write(const struct bare_pci *pci, unsigned at, unsigned size_bytes, uint32_t value);

/* The next capability of a kind after `from` (0: the first); 0: there is none. */
unsigned bare_pci_capability(const struct bare_pci *pci, unsigned kind, unsigned from);
/* Registers of a base address; what the firmware has not placed is placed in its bridge's window.
 * Null: there is no room. */
volatile uint8_t *bare_pci_map(const struct bare_pci *pci, unsigned bar, uint64_t offset,
                               uint64_t size_bytes);
/* Memory and DMA are on; the first entry of MSI-X, or else the function's line, is this vector of
 * CPU 0's. A line stays up until the device's interrupt status is read. */
int bare_pci_enable(const struct bare_pci *pci, unsigned vector);

#endif
