/* SPDX-License-Identifier: MIT */
/* memplug run: a program whose memory is in a pool. memplug-run(1). */
#ifndef RUN_H
#define RUN_H

int run_main(int argc, char **argv);

/* run_check.c: find the program, and can its malloc be replaced? 0, or the exit status after saying
 * why not. path has room for PATH_MAX. */
int run_find(const char *program, char *path);
int run_check(const char *path);

/* run_user.c: become this user. *uffd_device: an open one, or -1. 0, or the exit status after
 * saying why not. */
int run_user(const char *name, int *uffd_device);

#endif
