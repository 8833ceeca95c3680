/* SPDX-License-Identifier: MIT
 *
 * checkpoint.h - a training that can be stopped or killed, and gone on with: the file of its optimiser, and
 * in its metadata what has been measured until then. */
#ifndef EXAMPLES_CHECKPOINT_H
#define EXAMPLES_CHECKPOINT_H

#include <moebius.h>

#include "common.h"

/* Dies of a context's error. */
void stop_at_error(const mb_context *mb);

/* Saves what is there now in place of the file: parameters, optimiser, and n series. Dies where it cannot. */
void checkpoint_save(mb_context *mb, const mb_optimizer *opt, const char *path, series *const *told, int n);
/* Makes all of it what it was at the save, bit for bit; dies where the file is another training's. */
void checkpoint_load(mb_context *mb, mb_optimizer *opt, const char *path, series *const *told, int n);

typedef struct training {
    mb_context *mb;
    mb_optimizer *optimizer;
    char *path;          /* of its file; NULL: it has none */
    bool resumed;        /* goes on with the file, where it is there */
    series *const *told; /* what steps measure */
    int told_count;
    int64_t steps, save_every;
    int64_t units; /* of a step, for jobs_advance */
} training;

/* Takes the steps that are left, until somebody wants to stop; saves now and then, and at the end. Whether
 * all are taken. A step does what follows from its number and from what is in the file, nothing else: then a
 * training that was stopped or killed ends at the bits of one that was not. */
bool training_run(const training *t, void (*step)(void *user, int64_t number), void *user);

#endif
