/* SPDX-License-Identifier: MIT */
/* memplug run: a program whose memory is in a pool. memplug-run(1). */
#ifndef RUN_H
#define RUN_H

int run_main(int argc, char **argv);

/* run_check.c: find the program, and can its malloc be replaced? 0, or the exit status after saying
 * why not. path has room for PATH_MAX. */
int run_find(const char *program, char *path);
int run_check(const char *path);

#endif
