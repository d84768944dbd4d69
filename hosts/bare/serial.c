/* SPDX-License-Identifier: MIT */
#include "bare.h"

#include "io.h"

enum { PORT = 0x3f8, DATA = PORT, ENABLE = PORT + 1, FIFO = PORT + 2, LINE = PORT + 3,
       MODEM = PORT + 4, STATUS = PORT + 5, EXIT_PORT = 0xf4 };

static struct bare_spin spin;

void bare_serial_start(void)
{
    out8(ENABLE, 0);
    out8(LINE, 0x80);
    out8(DATA, 1);
    out8(ENABLE, 0);
    out8(LINE, 0x03);
    out8(FIFO, 0x07);
    out8(MODEM, 0x0b);
    out8(ENABLE, 0x01); /* an interrupt for what comes in */
}

void bare_write(const char *text, size_t length)
{
    bare_spin_lock(&spin);
    for (size_t i = 0; i < length; i++) {
        while (!(in8(STATUS) & 0x20))
            cpu_pause();
        out8(DATA, (uint8_t)text[i]);
    }
    bare_spin_unlock(&spin);
}

int bare_read_byte(void)
{
    return in8(STATUS) & 1 ? in8(DATA) : -1;
}

_Noreturn void bare_halt(void)
{
    bare_apic_send_others(BARE_VECTOR_HALT);
    out8(EXIT_PORT, 1);
    for (;;) {
        interrupts_off();
        __asm__ volatile("hlt");
    }
}
