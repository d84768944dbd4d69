/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "dpdk.h"
#include "worker.h"

#include <rte_eal.h>
#include <stdio.h>
#include <string.h>

void dpdk_open(uint64_t megabytes)
{
    char line[] = "bench --no-huge --no-shconf --no-pci --no-telemetry --iova-mode=va "
                  "--log-level=1 -l 0 -m";
    char *arguments[16], *rest, size[32];
    int nr = 0;

    for (char *word = strtok_r(line, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        arguments[nr++] = word;
    }
    snprintf(size, sizeof(size), "%llu", (unsigned long long)megabytes);
    arguments[nr++] = size;
    if (rte_eal_init(nr, arguments) < 0) {
        worker_die("rte_eal_init has failed");
    }
}
