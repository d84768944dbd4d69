/* SPDX-License-Identifier: MIT */
/* The machine's memory becomes a pool, with what the command line says of it. */
#include "bare.h"

#include <memplug/policy.h>

#define DMA_LIMIT ((uint64_t)16 << 20)
#define DMA32_LIMIT ((uint64_t)4 << 30)
#define WRITE_TIMEOUT_NS 60000000000u

struct memplug *bare_pool;
struct memplug_attr bare_attr;
const struct memplug_limit bare_limit = {.timeout_ns = WRITE_TIMEOUT_NS};
struct bare_backing bare_boot_backing;

static struct memplug_host host;

uint64_t bare_block_bytes(void)
{
    return (uint64_t)1 << host.geometry.block_shift;
}

void bare_geometry(struct memplug_geometry *geometry)
{
    *geometry = host.geometry;
}

static void must(int error, const char *what, const struct memplug_reason *reason)
{
    char text[256] = "";

    if (!error)
        return;
    if (reason)
        memplug_reason_text(reason, text, sizeof(text));
    bare_panic("%s: error %d: %s", what, -error, text);
}

/* --- the command line ------------------------------------------------------------------------- */

/* As Linux reads a boolean; -1: it is none. */
static int read_boolean(const char *text, size_t length)
{
    if (!length)
        return -1;
    if (memchr("yYtT1", text[0], 5))
        return 1;
    if (memchr("nNfF0", text[0], 5))
        return 0;
    if (length < 2 || (text[0] | 0x20) != 'o')
        return -1;
    return (text[1] | 0x20) == 'n' ? 1 : (text[1] | 0x20) == 'f' ? 0 : -1;
}

static const char *option(const char *name, const char *short_name, size_t *length)
{
    const char *value = bare_option(name, length);

    return value ? value : bare_option(short_name, length);
}

static void set_policy(void)
{
    static const char *const states[] = {"offline", "online", "online_kernel", "online_movable"};
    struct memplug_policy policy = {.memmap_on_memory = MEMPLUG_MEMMAP_ON_MEMORY_NO};
    size_t length;
    const char *value = option("memory_hotplug.memmap_on_memory", "memmap_on_memory", &length);

    if (value && read_boolean(value, length) == 1)
        policy.memmap_on_memory = MEMPLUG_MEMMAP_ON_MEMORY_YES;
    else if (value && length == 5 && !strncmp(value, "force", length))
        policy.memmap_on_memory = MEMPLUG_MEMMAP_ON_MEMORY_FORCE;
    value = bare_option("memhp_default_state", &length);
    for (unsigned i = 0; value && i < sizeof(states) / sizeof(states[0]); i++)
        if (strlen(states[i]) == length && !strncmp(value, states[i], length))
            policy.auto_online = (enum memplug_auto_online)i;
    must(memplug_policy_set(bare_pool, &policy,
                            MEMPLUG_POLICY_MEMMAP_ON_MEMORY | MEMPLUG_POLICY_AUTO_ONLINE),
         "the command line", NULL);
}

/* --- open ------------------------------------------------------------------------------------- */

static void open_pool(const struct memplug_config *config)
{
    struct memplug_reason reason;
    uint64_t size_bytes = memplug_metadata_bytes(config), address;
    unsigned order = 0;

    if (!size_bytes)
        bare_panic("the pool refuses this machine");
    while (((uint64_t)BARE_PAGE << order) < size_bytes)
        order++;
    must(bare_frames_get(order, &address), "memory for the pool", NULL);
    memset(bare_direct(address), 0, size_bytes);
    must(memplug_open(config, bare_direct(address), size_bytes, &bare_pool, &reason), "the pool",
         &reason);
}

/* All that the boot protocol calls memory, also where the image is. */
static void boot_pool(void)
{
    struct memplug_boot_memory memory[BARE_MAX_RANGES];
    const struct bare_firmware *firmware = &bare_firmware;
    struct memplug_boot boot = {.memory = memory, .nr_memory = firmware->nr_ram,
                                .dma_limit = DMA_LIMIT, .dma32_limit = DMA32_LIMIT,
                                .backing = &bare_boot_backing};
    struct memplug_reason reason;
    uint64_t block = bare_block_bytes();

    for (unsigned i = 0; i < firmware->nr_ram; i++)
        memory[i] = (struct memplug_boot_memory){
            .address = firmware->ram[i].start,
            .size_bytes = firmware->ram[i].end - firmware->ram[i].start,
            .node = firmware->ram[i].node};
    bare_boot_backing.size_bytes =
        (firmware->ram[firmware->nr_ram - 1].end + block - 1) & ~(block - 1);
    must(memplug_boot(bare_pool, &boot, NULL, &reason), "boot memory", &reason);
    bare_memory_use(bare_pool);
}

/* Linux's word for it is hugetlb_free_vmemmap, which is of the kernel's own memmaps only; "all" is
 * the pool's. */
static enum memplug_hvo read_hvo(void)
{
    size_t length;
    const char *value = bare_option("hugetlb_free_vmemmap", &length);

    if (value && length == 3 && !strncmp(value, "all", length))
        return MEMPLUG_HVO_ALL;
    return value && read_boolean(value, length) == 1 ? MEMPLUG_HVO_HOST : MEMPLUG_HVO_OFF;
}

void bare_pool_start(void)
{
    struct memplug_config config = {.host = &host, .nr_nodes = bare_firmware.nr_nodes};
    struct memplug_attr_config attr = {.pool_config = &config, .limit = &bare_limit};

    config.hvo = read_hvo();
    bare_host_start(&host);
    open_pool(&config);
    boot_pool();
    attr.pool = bare_pool;
    must(memplug_attr_init(&bare_attr, &attr), "the attributes", NULL);
    set_policy();
}
