/* SPDX-License-Identifier: MIT
 * clock.c - see clock.h. */
#include <time.h>

#include "backends/plan/clock.h"

double mb__now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
