/* SPDX-License-Identifier: MIT
 *
 * schedule.c - learning rate schedules: factors, computed on the host in double and bound at run time.
 */
#include "optim/internal.h"

#include <math.h>

mb_schedule mb_schedule_constant(void)
{
    return (mb_schedule){.kind = MB_SCHEDULE_CONSTANT};
}

mb_schedule mb_schedule_warmup_cosine(int64_t warmup, int64_t total)
{
    return (mb_schedule){.kind = MB_SCHEDULE_COSINE, .warmup = warmup, .total = total};
}

mb_schedule mb_schedule_steps(int64_t every, double factor)
{
    return (mb_schedule){.kind = MB_SCHEDULE_STEPS, .every = every, .factor = factor};
}

double mb_schedule_factor(mb_schedule s, int64_t step)
{
    if (!mb__schedule_fits(s))
        return NAN;
    if (step < 0)
        step = 0;
    if (step < s.warmup)
        return (double)(step + 1) / (double)s.warmup;
    if (s.kind == MB_SCHEDULE_COSINE) {
        if (step >= s.total)
            return s.floor;
        /* in [0, 1): warmup <= step < total */
        double part = (double)((uint64_t)step - (uint64_t)s.warmup) /
                      (double)((uint64_t)s.total - (uint64_t)s.warmup); /* differences may need 64 bits */
        return s.floor + (1 - s.floor) * 0.5 * (1 + cos(3.14159265358979323846 * part));
    }
    if (s.kind == MB_SCHEDULE_STEPS)
        return pow(s.factor, (double)(step / s.every));
    return 1;
}
