/* SPDX-License-Identifier: MIT */
/*
 * Preemption for the seeded scheduler: link this file, and compile what shall be preempted (the
 * core, not the hosts) with -fsanitize-coverage=trace-pc. Both gcc and clang then call the
 * function below at each branch.
 */
#define _GNU_SOURCE
#include "sched.h"

#define BRANCHES_PER_SWITCH 64

/* It may be compiled with the same flag, and must not call itself. */
#if defined(__clang__)
__attribute__((no_sanitize("coverage")))
#else
__attribute__((no_sanitize_coverage))
#endif
void __sanitizer_cov_trace_pc(void);

void __sanitizer_cov_trace_pc(void)
{
    fake_sched_point_rarely(BRANCHES_PER_SWITCH);
}
