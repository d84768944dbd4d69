/* SPDX-License-Identifier: MIT */
/* Ways to be alone with a CPU's, or a thread's, word of frames. */
#ifndef BENCH_RSEQ_H
#define BENCH_RSEQ_H

/* Says the cost of each, in ns: "cpu-lock", "own-fenced", "own-exchange", "rseq". */
void rseq_costs(void);

#endif
