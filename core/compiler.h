/* SPDX-License-Identifier: MIT */
/* The only place of the core that knows compilers. */
#ifndef MPL_COMPILER_H
#define MPL_COMPILER_H

#include <stdint.h>

#define MPL_LIKELY(x) __builtin_expect(!!(x), 1)
#define MPL_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define MPL_CACHE_LINE 64
#define MPL_ALIGNED(n) __attribute__((aligned(n)))

/* Held in every build: what it guards is other people's memory. */
#define MPL_ASSERT(x) ((x) ? (void)0 : __builtin_trap())

/* For fields that others may read without the lock of the writer. */
#define MPL_PUT(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELEASE)

#define MPL_CTZ64(x) ((unsigned)__builtin_ctzll(x))
#define MPL_CLZ64(x) ((unsigned)__builtin_clzll(x))

/* It will be written soon. The builtin fetches a line that others may have too, unless the compiler
 * is told of this instruction; a processor that lacks it takes it for a no-op. */
#if defined(__x86_64__)
#define MPL_PREFETCH(memory) __asm__("prefetchw %0" : : "m"(*(const char *)(memory)))
#else
#define MPL_PREFETCH(memory) __builtin_prefetch(memory, 1)
#endif

/* A word whose byte at this place in memory has the value, and whose others are 0. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define MPL_BYTE_AT(place, value) ((uint64_t)(value) << 8 * (place))
#else
#define MPL_BYTE_AT(place, value) ((uint64_t)(value) << 8 * (7 - (place)))
#endif

/* Locks are compiled into their users; or are calls, for who wants to time them (bench/locks.c). */
#ifdef MPL_LOCKS_ARE_CALLS
#define MPL_LOCK_INLINE inline __attribute__((noinline))
#else
#define MPL_LOCK_INLINE inline
#endif

/* A freestanding build has no string.h. */
#define MPL_FILL(memory, byte, size) __builtin_memset(memory, byte, size)

/* The builtin may be a call of the compiler's library; compilers know this form too. */
static inline unsigned mpl_popcount64(uint64_t x)
{
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (unsigned)(x * 0x0101010101010101u >> 56);
}
#define MPL_POPCOUNT64(x) mpl_popcount64(x)

#endif
