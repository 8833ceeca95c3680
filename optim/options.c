/* SPDX-License-Identifier: MIT
 *
 * options.c - the ranges of options, one row for each.
 */
#include "optim/internal.h"

#include <float.h>
#include <math.h>

double mb__option(double value, double standard)
{
    return value == 0 ? standard : value == MB_ZERO ? 0 : value;
}

static bool within(const mb__range *r)
{
    return isfinite(r->value) && r->value >= r->least && r->value <= r->most;
}

bool mb__check_ranges(mb_context *ctx, const char *name, const mb__range *ranges, int n)
{
    for (int i = 0; i < n; i++)
        if (!within(&ranges[i])) {
            mb_fail_at(NULL, ctx, MB_INVALID, "%s: %s is %g, wanted %s", name, ranges[i].name,
                       ranges[i].value, ranges[i].wanted);
            return false;
        }
    return true;
}

mb__range mb__any_from_0(const char *name, double value)
{
    return (mb__range){name, value, 0, DBL_MAX, "0 or more"};
}

mb__range mb__below_1(const char *name, double value)
{
    return (mb__range){name, value, 0, 1 - DBL_EPSILON / 2, "a number from 0 to below 1"};
}

mb__range mb__positive(const char *name, double value)
{
    return (mb__range){name, value, DBL_TRUE_MIN, DBL_MAX, "more than 0"};
}

/* An option that this kind of schedule does not use. */
static mb__range unused(const char *name, double value)
{
    return (mb__range){name, value, 0, 0, "0 with this schedule.kind, which has no use for it"};
}

enum { SCHEDULE_RANGES = 6 };

static void schedule_ranges(const mb_schedule *s, mb__range r[SCHEDULE_RANGES])
{
    bool cosine = s->kind == MB_SCHEDULE_COSINE, steps = s->kind == MB_SCHEDULE_STEPS;
    double every = (double)s->every, total = (double)s->total;
    r[0] = (mb__range){"schedule.kind", (double)s->kind, 0, MB_SCHEDULE_STEPS, "a kind of schedule"};
    r[1] = mb__any_from_0("schedule.warmup", (double)s->warmup);
    r[2] = cosine ? (mb__range){"schedule.total", total, 1, DBL_MAX, "the number of steps, 1 or more"}
                  : unused("schedule.total", total);
    r[3] = cosine ? (mb__range){"schedule.floor", s->floor, 0, 1, "a number from 0 to 1"}
                  : unused("schedule.floor", s->floor);
    r[4] = steps ? (mb__range){"schedule.every", every, 1, DBL_MAX, "a number of steps, 1 or more"}
                 : unused("schedule.every", every);
    r[5] = steps ? mb__positive("schedule.factor", s->factor) : unused("schedule.factor", s->factor);
}

bool mb__check_schedule(mb_context *ctx, const char *name, mb_schedule s)
{
    mb__range r[SCHEDULE_RANGES];
    schedule_ranges(&s, r);
    return mb__check_ranges(ctx, name, r, SCHEDULE_RANGES);
}

bool mb__schedule_fits(mb_schedule s)
{
    mb__range r[SCHEDULE_RANGES];
    schedule_ranges(&s, r);
    for (int i = 0; i < SCHEDULE_RANGES; i++)
        if (!within(&r[i]))
            return false;
    return true;
}

bool mb__check_adam(mb_context *ctx, const char *name, double beta1, double beta2, double eps)
{
    const mb__range r[] = {mb__below_1("beta1", beta1), mb__below_1("beta2", beta2),
                           mb__any_from_0("eps", eps)};
    return mb__check_ranges(ctx, name, r, 3);
}
