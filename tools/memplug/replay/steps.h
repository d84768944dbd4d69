/* SPDX-License-Identifier: MIT */
/* What each op does, and which fields of its record it fills. */
#ifndef REPLAY_STEPS_H
#define REPLAY_STEPS_H

#include "record.h"

/* 0, or -1 and a sentence: what failed is not the step but the replay. */
int step_take(struct machine *machine, const struct step *step, json_t *record, char *error,
              size_t size_bytes);

/* step_sh.c */
int step_sh(struct machine *machine, const struct step *step, json_t *record);
int step_lsmem(struct machine *machine, const struct step *step, json_t *record);
/* Time passes, and jobs of shell lines that have ended go on in it. */
void sh_pass(struct machine *machine, uint64_t ns);

/* step_write.c */

/* A limit for a write that a signal ends at this time. */
struct alarm {
    const struct machine *machine;
    uint64_t at_ns;
    uint32_t stop; /* the signal has come */
    struct memplug_limit limit;
};

void alarm_set(struct alarm *alarm, const struct machine *machine, uint64_t at_ns);
int step_online(struct machine *machine, const struct step *step, json_t *record);
int step_state(struct machine *machine, const struct step *step, json_t *record);
int step_write(struct machine *machine, const struct step *step, json_t *record);
int step_read(struct machine *machine, const struct step *step, json_t *record);
int step_wsig(struct machine *machine, const struct step *step, json_t *record);

/* step_device.c */
int step_add(struct machine *machine, const struct step *step, json_t *record);
int step_del(struct machine *machine, const struct step *step, json_t *record);
int step_vadd(struct machine *machine, const struct step *step, json_t *record);
int step_vreq(struct machine *machine, const struct step *step, json_t *record);

#endif
