/* SPDX-License-Identifier: MIT
 *
 * mttt_alone.c - in place of mttt_ranks.c where moebius-mpi was not built: one process. */
#include "mttt.h"

void ranks_begin(run *r, mb_options *options)
{
    (void)options;
    r->ranks = 1;
}

void ranks_open(run *r)
{
    (void)r;
}

void ranks_share(run *r)
{
    (void)r;
}

void ranks_answer(run *r, answer *a, mb_tensor *losses, int n)
{
    (void)r, (void)a, (void)losses, (void)n;
}

void ranks_total(run *r, double *values, int n)
{
    (void)r, (void)values, (void)n;
}

bool ranks_stop(const run *r)
{
    (void)r;
    return stop_wanted();
}

void ranks_end(run *r)
{
    (void)r;
}
