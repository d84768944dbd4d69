/* SPDX-License-Identifier: MIT */
#include "pci.h"

#include "io.h"

#define ADDRESS_PORT 0xcf8u
#define DATA_PORT 0xcfcu
#define NOBODY 0xffffu
#define MSIX 0x11u
#define MSIX_ENABLE 0x8000u
#define FIRST_PIN 16u /* of the lines that PCI has at the I/O APIC */
#define NR_PINS 8u
#define MESSAGE_ADDRESS 0xfee00000u

enum { ID = 0, COMMAND = 4, STATUS = 6, HEADER = 14, BARS = 16, SECONDARY = 25, WINDOW = 32,
       PREFETCH = 36, PREFETCH_HIGH = 40, CAPABILITIES = 52 };
enum { IS_MEMORY = 2, IS_MASTER = 4, NO_INTX = 0x400u, HAS_CAPABILITIES = 0x10 };

static void choose(const struct bare_pci *pci, unsigned at)
{
    out32(ADDRESS_PORT, 0x80000000u | (uint32_t)pci->bus << 16 | (uint32_t)pci->device << 11 |
                            (uint32_t)pci->function << 8 | (at & 0xfcu));
}

uint32_t bare_pci_read(const struct bare_pci *pci, unsigned at, unsigned size_bytes)
{
    uint32_t value;

    choose(pci, at);
    value = in32(DATA_PORT) >> 8 * (at & 3);
    return size_bytes == 4 ? value : value & ((1u << 8 * size_bytes) - 1);
}

void bare_pci_write(const struct bare_pci *pci, unsigned at, unsigned size_bytes, uint32_t value)
{
    uint32_t mask = size_bytes == 4 ? UINT32_MAX : ((1u << 8 * size_bytes) - 1) << 8 * (at & 3);
    uint32_t old;

    choose(pci, at);
    old = in32(DATA_PORT);
    out32(DATA_PORT, (old & ~mask) | (value << 8 * (at & 3) & mask));
}

/* --- functions -------------------------------------------------------------------------------- */

static void each_on_bus(const struct bare_pci *bridge, uint8_t bus,
                        void (*take)(const struct bare_pci *pci))
{
    for (unsigned slot = 0; slot < 256; slot++) {
        struct bare_pci pci = {.bus = bus, .device = (uint8_t)(slot >> 3),
                               .function = (uint8_t)(slot & 7)};
        uint8_t secondary;

        pci.vendor = (uint16_t)bare_pci_read(&pci, ID, 2);
        if (pci.vendor == NOBODY)
            continue;
        pci.id = (uint16_t)bare_pci_read(&pci, ID + 2, 2);
        if (bridge) {
            pci.bridge_device = bridge->device;
            pci.bridge_function = bridge->function;
        }
        take(&pci);
        secondary = (uint8_t)bare_pci_read(&pci, SECONDARY, 1);
        if (!bridge && (bare_pci_read(&pci, HEADER, 1) & 0x7f) == 1 && secondary)
            each_on_bus(&pci, secondary, take);
    }
}

void bare_pci_each(void (*take)(const struct bare_pci *pci))
{
    each_on_bus(NULL, 0, take);
}

unsigned bare_pci_capability(const struct bare_pci *pci, unsigned kind, unsigned from)
{
    unsigned at = bare_pci_read(pci, from ? from + 1 : CAPABILITIES, 1) & 0xfc;

    if (!(bare_pci_read(pci, STATUS, 2) & HAS_CAPABILITIES))
        return 0;
    while (at && bare_pci_read(pci, at, 1) != kind)
        at = bare_pci_read(pci, at + 1, 1) & 0xfc;
    return at;
}

/* --- base addresses --------------------------------------------------------------------------- */

static uint64_t bar_size(const struct bare_pci *pci, unsigned bar)
{
    uint32_t old = bare_pci_read(pci, BARS + 4 * bar, 4), size;

    bare_pci_write(pci, BARS + 4 * bar, 4, UINT32_MAX);
    size = bare_pci_read(pci, BARS + 4 * bar, 4) & ~15u;
    bare_pci_write(pci, BARS + 4 * bar, 4, old);
    return size ? (uint64_t)(uint32_t)~size + 1 : 0;
}

/* The window of a function's bridge that is for this kind of memory. */
static void bridge_window(const struct bare_pci *pci, bool prefetch, uint64_t *start,
                          uint64_t *end)
{
    struct bare_pci bridge = {.device = pci->bridge_device, .function = pci->bridge_function};
    unsigned at = prefetch ? PREFETCH : WINDOW;

    *start = (bare_pci_read(&bridge, at, 2) & 0xfff0u) << 16;
    *end = ((bare_pci_read(&bridge, at + 2, 2) & 0xfff0u) << 16) + 0x100000u;
    if (!prefetch)
        return;
    *start |= (uint64_t)bare_pci_read(&bridge, PREFETCH_HIGH, 4) << 32;
    *end += (uint64_t)bare_pci_read(&bridge, PREFETCH_HIGH + 4, 4) << 32;
}

/* One function behind each port: its base addresses lie one behind the other, the largest kinds at
 * multiples of their size. Each takes a 64 KiB place of its own number, which none exceeds. */
static uint64_t place(const struct bare_pci *pci, unsigned bar, uint32_t kind)
{
    uint64_t start, end, size = bar_size(pci, bar), at;

    if (!pci->bus || !size || size > 0x10000)
        return 0;
    bridge_window(pci, kind & 8, &start, &end);
    at = start + 0x10000u * bar;
    if (start >= end || at + size > end)
        return 0;
    bare_pci_write(pci, BARS + 4 * bar, 4, (uint32_t)at | (kind & 15));
    if ((kind & 6) == 4)
        bare_pci_write(pci, BARS + 4 * bar + 4, 4, (uint32_t)(at >> 32));
    return at;
}

volatile uint8_t *bare_pci_map(const struct bare_pci *pci, unsigned bar, uint64_t offset,
                               uint64_t size_bytes)
{
    uint32_t low = bare_pci_read(pci, BARS + 4 * bar, 4);
    uint64_t at = low & ~15u;

    if ((low & 6) == 4)
        at |= (uint64_t)bare_pci_read(pci, BARS + 4 * bar + 4, 4) << 32;
    if (!at)
        at = place(pci, bar, low);
    return at ? bare_map_device(at + offset, size_bytes) : NULL;
}

static int send_messages(const struct bare_pci *pci, unsigned msix, unsigned vector)
{
    uint32_t table = bare_pci_read(pci, msix + 4, 4);
    volatile uint32_t *entry =
        (volatile uint32_t *)bare_pci_map(pci, table & 7, table & ~7u, 16);

    if (!entry)
        return -BARE_ENOMEM;
    bare_pci_write(pci, msix + 2, 2, bare_pci_read(pci, msix + 2, 2) | MSIX_ENABLE);
    entry[0] = MESSAGE_ADDRESS | bare_cpus[0].apic_id << 12;
    entry[1] = 0;
    entry[2] = vector;
    entry[3] = 0;
    return 0;
}

/* Which of the eight pins a function's line leads to only AML says: all are the same vector's. */
int bare_pci_enable(const struct bare_pci *pci, unsigned vector)
{
    unsigned msix = bare_pci_capability(pci, MSIX, 0);
    struct bare_pci bridge = {.device = pci->bridge_device, .function = pci->bridge_function};
    uint32_t command = bare_pci_read(pci, COMMAND, 2) | IS_MEMORY | IS_MASTER;

    if (pci->bus)
        bare_pci_write(&bridge, COMMAND, 2, bare_pci_read(&bridge, COMMAND, 2) | IS_MEMORY |
                                                IS_MASTER);
    bare_pci_write(pci, COMMAND, 2, msix ? command | NO_INTX : command & ~NO_INTX);
    for (unsigned pin = FIRST_PIN; !msix && pin < FIRST_PIN + NR_PINS; pin++)
        bare_route(pin, vector | BARE_LEVEL);
    return msix ? send_messages(pci, msix, vector) : 0;
}
