/* SPDX-License-Identifier: MIT */
/* The memory map of the boot protocol (PVH), and three ACPI tables; no AML. */
#include "bare.h"
#include "firmware.h"

#define START_MAGIC 0x336ec578u
#define TYPE_RAM 1u
#define BIOS_START 0xe0000u
#define BIOS_END 0x100000u

struct start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modules, cmdline, rsdp, memory_map;
    uint32_t nr_memory_map, reserved;
};

struct map_entry {
    uint64_t address, size_bytes;
    uint32_t type, reserved;
};

struct table {
    char signature[4];
    uint32_t length;
    uint8_t rest[28];
} __attribute__((packed));

struct bare_firmware bare_firmware;

/* --- the command line ------------------------------------------------------------------------- */

const char *bare_option(const char *name, size_t *length)
{
    const char *at = bare_firmware.cmdline;
    size_t name_length = strlen(name);

    while (*at) {
        size_t word = strcspn(at, " ");

        if (word > name_length && at[name_length] == '=' && !strncmp(at, name, name_length)) {
            *length = word - name_length - 1;
            return at + name_length + 1;
        }
        at += word + (at[word] == ' ');
    }
    return NULL;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* Page 0 is the firmware's, whatever the map says. */
static void add_ram(uint64_t start, uint64_t end)
{
    struct bare_firmware *firmware = &bare_firmware;

    start = (start + BARE_PAGE - 1) & ~(uint64_t)(BARE_PAGE - 1);
    start = start ? start : BARE_PAGE;
    end &= ~(uint64_t)(BARE_PAGE - 1);
    if (start >= end)
        return;
    if (firmware->nr_ram == BARE_MAX_RANGES)
        bare_panic("the machine's memory is in more than %u pieces", BARE_MAX_RANGES);
    firmware->ram[firmware->nr_ram++] = (struct bare_range){start, end, 0};
}

void bare_firmware_read(uint64_t start_info)
{
    const struct start_info *info = bare_direct(start_info);
    const struct map_entry *map;

    if (info->magic != START_MAGIC || info->version < 1 || !info->memory_map)
        bare_panic("not started by PVH with a memory map");
    map = bare_direct(info->memory_map);
    for (uint32_t i = 0; i < info->nr_memory_map; i++)
        if (map[i].type == TYPE_RAM)
            add_ram(map[i].address, map[i].address + map[i].size_bytes);
    if (info->cmdline)
        bare_format(bare_firmware.cmdline, sizeof(bare_firmware.cmdline), "%s",
                    (const char *)bare_direct(info->cmdline));
    bare_firmware.nr_nodes = 1;
}

/* --- ACPI ------------------------------------------------------------------------------------- */

static uint32_t read32(const uint8_t *from)
{
    uint32_t value;

    memcpy(&value, from, sizeof(value));
    return value;
}

static uint64_t read64(const uint8_t *from)
{
    uint64_t value;

    memcpy(&value, from, sizeof(value));
    return value;
}

static const uint8_t *find_root(void)
{
    for (uint64_t at = BIOS_START; at < BIOS_END; at += 16)
        if (!memcmp(bare_direct(at), "RSD PTR ", 8))
            return bare_direct(at);
    return NULL;
}

static const struct table *find_table(const char *signature)
{
    const uint8_t *root = find_root();
    bool wide = root && root[15] >= 2 && read64(root + 24);
    const struct table *index;
    size_t size = wide ? 8 : 4;

    if (!root)
        return NULL;
    index = bare_direct(wide ? read64(root + 24) : read32(root + 16));
    for (const uint8_t *at = index->rest + 28; at + size <= (const uint8_t *)index + index->length;
         at += size) {
        const struct table *table = bare_direct(wide ? read64(at) : read32(at));

        if (!memcmp(table->signature, signature, 4))
            return table;
    }
    return NULL;
}

/* Entries of a type and a length each, from `skip` bytes on. */
static void each_entry(const char *signature, unsigned skip, void (*take)(const uint8_t *entry))
{
    const struct table *table = find_table(signature);
    const uint8_t *at = (const uint8_t *)table + skip, *end;

    if (!table)
        return;
    for (end = (const uint8_t *)table + table->length; at + 2 <= end && at[1]; at += at[1])
        take(at);
}

static void take_cpu(const uint8_t *entry)
{
    struct bare_firmware *firmware = &bare_firmware;

    if (entry[0] == 0 && (read32(entry + 4) & 1) && firmware->nr_cpus < BARE_MAX_CPUS)
        firmware->apic_ids[firmware->nr_cpus++] = entry[3];
}

/* A piece of memory whose node begins or ends in its middle becomes two. */
static void split_ram(uint64_t at)
{
    struct bare_firmware *firmware = &bare_firmware;

    for (unsigned i = 0; i < firmware->nr_ram; i++) {
        if (at <= firmware->ram[i].start || at >= firmware->ram[i].end)
            continue;
        if (firmware->nr_ram == BARE_MAX_RANGES)
            bare_panic("the machine's memory is in more than %u pieces", BARE_MAX_RANGES);
        memmove(&firmware->ram[i + 1], &firmware->ram[i],
                (firmware->nr_ram - i) * sizeof(firmware->ram[0]));
        firmware->nr_ram++;
        firmware->ram[i].end = firmware->ram[i + 1].start = at;
        return;
    }
}

static void take_node(const uint8_t *entry)
{
    struct bare_firmware *firmware = &bare_firmware;
    uint64_t start = read64(entry + 8), end = start + read64(entry + 16);
    uint32_t node = read32(entry + 2), flags = read32(entry + 28);

    if (entry[0] != 1 || !(flags & 1) || start >= end)
        return;
    if (node >= BARE_MAX_NODES)
        bare_panic("node %u: there are at most %u", node, BARE_MAX_NODES);
    if (node >= firmware->nr_nodes)
        firmware->nr_nodes = node + 1;
    if (flags & 2) {
        firmware->window = (struct bare_range){start, end, (int)node};
        return;
    }
    split_ram(start);
    split_ram(end);
    for (unsigned i = 0; i < firmware->nr_ram; i++)
        if (firmware->ram[i].start >= start && firmware->ram[i].end <= end)
            firmware->ram[i].node = (int)node;
}

static void take_events(void)
{
    const uint8_t *fadt = (const uint8_t *)find_table("FACP");

    if (!fadt)
        return;
    bare_firmware.sci = fadt[46];
    bare_firmware.gpe = (uint16_t)read32(fadt + 80);
    bare_firmware.gpe_bytes = fadt[92] / 2;
}

void bare_acpi_read(void)
{
    take_events();
    each_entry("APIC", 44, take_cpu);
    each_entry("SRAT", 48, take_node);
    if (!bare_firmware.nr_cpus)
        bare_panic("the firmware names no CPU");
}
