/* SPDX-License-Identifier: MIT */
/* memplug replay: take a scenario's steps, and write what happened. */
#ifndef REPLAY_H
#define REPLAY_H

int replay_main(int argc, char **argv);

#endif
