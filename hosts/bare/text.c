/* SPDX-License-Identifier: MIT */
#include "bare.h"

void *memcpy(void *to, const void *from, size_t size)
{
    void *start = to;
    size_t words = size / 8, rest = size % 8;

    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(rest) : : "memory");
    return start;
}

void *memmove(void *to, const void *from, size_t size)
{
    char *last = (char *)to + size - 1;
    const char *from_last = (const char *)from + size - 1;

    if ((uintptr_t)to - (uintptr_t)from >= size)
        return memcpy(to, from, size);
    __asm__ volatile("std; rep movsb; cld" : "+D"(last), "+S"(from_last), "+c"(size) : : "memory");
    return to;
}

void *memset(void *to, int byte, size_t size)
{
    void *start = to;
    uint64_t word = (uint8_t)byte * 0x0101010101010101u;
    size_t words = size / 8, rest = size % 8;

    __asm__ volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(word) : "memory");
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(rest) : "a"(word) : "memory");
    return start;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const uint8_t *x = a, *y = b;

    for (size_t i = 0; i < size; i++)
        if (x[i] != y[i])
            return x[i] - y[i];
    return 0;
}

/* What clang makes of a memcmp() of which only zero or not is asked. */
int bcmp(const void *a, const void *b, size_t size)
{
    return memcmp(a, b, size);
}

void *memchr(const void *from, int byte, size_t size)
{
    const uint8_t *bytes = from;

    for (size_t i = 0; i < size; i++)
        if (bytes[i] == (uint8_t)byte)
            return (void *)(bytes + i);
    return NULL;
}

size_t strlen(const char *text)
{
    size_t length = 0;

    while (text[length])
        length++;
    return length;
}

size_t strcspn(const char *text, const char *stop)
{
    size_t length = 0;

    while (text[length] && !memchr(stop, text[length], strlen(stop)))
        length++;
    return length;
}

int strncmp(const char *a, const char *b, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i] || !a[i])
            return (uint8_t)a[i] - (uint8_t)b[i];
    return 0;
}

int strcmp(const char *a, const char *b)
{
    return strncmp(a, b, SIZE_MAX);
}

/* --- numbers ---------------------------------------------------------------------------------- */

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

bool bare_number(const char *text, uint64_t *number)
{
    unsigned base = text[0] == '0' && text[1] == 'x' ? 16 : 10;

    text += base == 16 ? 2 : 0;
    if (!*text)
        return false;
    for (*number = 0; *text; text++) {
        unsigned digit = (unsigned)digit_of(*text);

        if (digit >= base || *number > (UINT64_MAX - digit) / base)
            return false;
        *number = *number * base + digit;
    }
    return true;
}

/* --- formats ---------------------------------------------------------------------------------- */

struct sink {
    char *text;
    size_t size_bytes, length;
};

static void put(struct sink *sink, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++, sink->length++)
        if (sink->length + 1 < sink->size_bytes)
            sink->text[sink->length] = text[i];
}

static void put_number(struct sink *sink, uint64_t number, unsigned base)
{
    char digits[24];
    size_t at = sizeof(digits);

    do {
        digits[--at] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number);
    put(sink, digits + at, sizeof(digits) - at);
}

static void put_signed(struct sink *sink, int64_t number)
{
    if (number < 0)
        put(sink, "-", 1);
    put_number(sink, number < 0 ? -(uint64_t)number : (uint64_t)number, 10);
}

size_t bare_format_list(char *text, size_t size_bytes, const char *format, va_list *list)
{
    struct sink sink = {.text = text, .size_bytes = size_bytes};

    for (; *format; format++) {
        bool is_long = false;
        size_t length = SIZE_MAX;

        if (*format != '%') {
            put(&sink, format, 1);
            continue;
        }
        format++;
        if (format[0] == '.' && format[1] == '*') {
            length = (size_t)va_arg(*list, int);
            format += 2;
        }
        for (; *format == 'l'; format++)
            is_long = true;
        if (*format == 's') {
            const char *from = va_arg(*list, const char *);

            put(&sink, from, length == SIZE_MAX ? strlen(from) : length);
        } else if (*format == 'c') {
            put(&sink, (char[]){(char)va_arg(*list, int)}, 1);
        } else if (*format == 'd') {
            put_signed(&sink, is_long ? va_arg(*list, int64_t) : va_arg(*list, int));
        } else {
            put_number(&sink, is_long ? va_arg(*list, uint64_t) : va_arg(*list, unsigned),
                       *format == 'x' ? 16 : 10);
        }
    }
    if (size_bytes)
        text[sink.length < size_bytes ? sink.length : size_bytes - 1] = '\0';
    return sink.length;
}

size_t bare_format(char *text, size_t size_bytes, const char *format, ...)
{
    va_list list;
    size_t length;

    va_start(list, format);
    length = bare_format_list(text, size_bytes, format, &list);
    va_end(list);
    return length;
}

void bare_print(const char *format, ...)
{
    char text[512];
    va_list list;
    size_t length;

    va_start(list, format);
    length = bare_format_list(text, sizeof(text), format, &list);
    va_end(list);
    bare_write(text, length < sizeof(text) ? length : sizeof(text) - 1);
}

void bare_panic(const char *format, ...)
{
    char text[512];
    va_list list;

    va_start(list, format);
    bare_format_list(text, sizeof(text), format, &list);
    va_end(list);
    bare_print("\npanic: %s\n", text);
    bare_halt();
}
