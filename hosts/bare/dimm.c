/* SPDX-License-Identifier: MIT */
/*
 * QEMU's memory-hotplug registers ("QEMU and ACPI BIOS memory hotplug interface"), without the AML
 * that other systems reach them by. A slot is chosen, and then tells what is in it and what it
 * wants; what came of it is answered with the codes of ACPI's _OST. ACPI's interrupt says that
 * something has happened, by a bit of the first general-purpose events.
 */
#include "dimm.h"

#include "console.h"
#include "io.h"
#include "task.h"

#include "../../front/devices/dimm_memory.h"

#define BASE 0xa00u
#define NR_SLOTS 256u /* QEMU has no more; one that it has not reads as empty */
#define GPE_MEMORY 0x08u /* of the first byte of general-purpose events */
#define NS_PER_S 1000000000u
#define EJECT_NS (30ull * NS_PER_S)
#define LOOK_NS 50000000u
#define MAX_BLOCKS 4096u

enum { ADDRESS_LOW = BASE, ADDRESS_HIGH = BASE + 4, SIZE_LOW = BASE + 8, SIZE_HIGH = BASE + 12,
       NODE = BASE + 16, FLAGS = BASE + 20, /* read */
       SELECT = BASE, OST_EVENT = BASE + 4, OST_STATUS = BASE + 8 }; /* written */
enum { ENABLED = 1, INSERTED = 2, WANTED_BACK = 4, EJECT = 8 };
/* _OST's events, and what it says of them. */
enum { OST_CHECK = 1, OST_EJECT = 3 };
enum { OST_SUCCESS = 0, OST_FAILURE = 1, OST_DEVICE_BUSY = 0x82, OST_IN_PROGRESS = 0x84 };

struct slot {
    struct bare_backing backing;
    struct dimm_memory memory;
    bool bound; /* its memory is in the pool */
};

static uint32_t called;
static struct slot slots[NR_SLOTS];
static enum memplug_zone zones[MAX_BLOCKS]; /* of the device that is being ejected */

/* The registers of one slot: nobody else chooses another meanwhile, all is done by CPU 0. */
static uint8_t choose(unsigned slot)
{
    out32(SELECT, slot);
    return in8(FLAGS);
}

static void answer(unsigned slot, uint32_t event, uint32_t status)
{
    out32(SELECT, slot);
    out32(OST_EVENT, event);
    out32(OST_STATUS, status);
}

static uint64_t now_ns(void *context)
{
    (void)context;
    return bare_now();
}

/* --- in --------------------------------------------------------------------------------------- */

static void add(unsigned number)
{
    struct slot *slot = &slots[number];
    uint64_t address = (uint64_t)in32(ADDRESS_HIGH) << 32 | in32(ADDRESS_LOW);
    uint64_t size_bytes = (uint64_t)in32(SIZE_HIGH) << 32 | in32(SIZE_LOW);

    slot->backing = (struct bare_backing){.address = address, .size_bytes = size_bytes};
    slot->memory = (struct dimm_memory){
        .pool = bare_pool, .address = address, .size_bytes = size_bytes,
        .block_bytes = bare_block_bytes(), .page_bytes = BARE_PAGE, .node = (int)in32(NODE),
        .backing = &slot->backing, .zones = zones, .now_ns = now_ns};
    slot->bound = size_bytes / bare_block_bytes() <= MAX_BLOCKS &&
                  !dimm_memory_add(&slot->memory, &bare_limit, NULL);
}

/* As Linux: the device is served, whether or not its memory could be used. */
static void inserted(unsigned number)
{
    out8(FLAGS, INSERTED);
    add(number);
    answer(number, OST_CHECK, OST_SUCCESS);
}

/* --- out -------------------------------------------------------------------------------------- */

/* The device goes with the write of EJECT, so that comes last: after the memory has left the pool,
 * and after every CPU has forgotten where it was. */
static void wanted_back(unsigned number)
{
    struct slot *slot = &slots[number];
    struct dimm_refusal refusal = {.nr_not_restored = 0};

    out8(FLAGS, WANTED_BACK);
    answer(number, OST_EJECT, OST_IN_PROGRESS);
    if (slot->bound && dimm_memory_eject(&slot->memory, EJECT_NS, &bare_limit, &refusal)) {
        answer(number, OST_EJECT, OST_DEVICE_BUSY);
        return;
    }
    slot->bound = false;
    out32(SELECT, number);
    out8(FLAGS, EJECT);
    answer(number, OST_EJECT, OST_SUCCESS);
}

/* --- gone without asking ---------------------------------------------------------------------- */

/* Who was in it is told, and the kernel goes on; or it stops, when its own state was in it. */
static void gone(unsigned number)
{
    struct slot *slot = &slots[number];
    struct memplug_reason reason;
    char text[400];
    int error;

    bare_gone = slot->backing;
    error = dimm_memory_gone(&slot->memory, &bare_limit, &reason);
    if (error) {
        memplug_reason_text(&reason, text, sizeof(text));
        bare_panic("the DIMM in slot %u was pulled out in use: %s", number, text);
    }
    bare_gone = (struct bare_backing){.size_bytes = 0};
    slot->bound = false;
}

/* Nobody calls for this: it is looked for. */
static void look_for_gone(void)
{
    static uint64_t next;
    uint64_t now = bare_now();

    if (now < next)
        return;
    next = now + LOOK_NS;
    for (unsigned i = 0; i < NR_SLOTS; i++)
        if (slots[i].bound && !(choose(i) & ENABLED))
            gone(i);
}

/* What somebody does who pulls a DIMM out of its slot: behind the driver's back. */
static int pull(char **argument, struct memplug_reason *reason)
{
    uint64_t number;

    (void)reason;
    if (!bare_number(argument[0], &number) || number >= NR_SLOTS || !(choose((unsigned)number) &
                                                                      ENABLED))
        return -BARE_ENODEV;
    out8(FLAGS, EJECT);
    return 0;
}

const struct bare_word bare_dimm_words[] = {{"pull", 1, pull}, {NULL, 0, NULL}};

/* --- events ----------------------------------------------------------------------------------- */

void bare_dimm_start(void)
{
    for (unsigned i = 0; i < NR_SLOTS; i++)
        if (choose(i) & ENABLED)
            add(i);
    if (!bare_firmware.gpe)
        return;
    bare_route(bare_firmware.sci, BARE_VECTOR_ACPI | BARE_LEVEL);
    called = 1; /* something may have come since the first look */
}

/* The line goes down when nothing is enabled; what was there is still to be seen in the slots. */
void bare_dimm_interrupt(void)
{
    out8(bare_firmware.gpe + bare_firmware.gpe_bytes, 0);
    __atomic_store_n(&called, 1, __ATOMIC_RELEASE);
}

bool bare_dimm_poll(void)
{
    look_for_gone();
    if (!__atomic_exchange_n(&called, 0, __ATOMIC_ACQUIRE))
        return false;
    out8(bare_firmware.gpe, GPE_MEMORY);
    for (unsigned i = 0; i < NR_SLOTS; i++) {
        uint8_t flags = choose(i);

        if (flags & INSERTED)
            inserted(i);
        else if (flags & WANTED_BACK)
            wanted_back(i);
    }
    out8(bare_firmware.gpe + bare_firmware.gpe_bytes, GPE_MEMORY); /* calls at once if it must */
    return true;
}
