/* SPDX-License-Identifier: MIT
 *
 * schedule_test.c - the learning rate's factor over the steps. */
#include "support.h"

static double factor(mb_schedule s, int64_t step)
{
    return mb_schedule_factor(s, step);
}

Test(schedule, constant)
{
    expect(factor((mb_schedule){0}, 0) == 1 && factor(mb_schedule_constant(), 1000000) == 1, "1 throughout");
    mb_schedule s = {.warmup = 4};
    for (int i = 0; i < 8; i++)
        expect(near(factor(s, i), i < 4 ? (i + 1) / 4.0 : 1, 1e-15, 0), "warm-up only, step %d: %g", i,
               factor(s, i));
}

Test(schedule, cosine)
{
    mb_schedule s = mb_schedule_warmup_cosine(10, 110);
    for (int i = 0; i < 10; i++)
        expect(near(factor(s, i), (i + 1) / 10.0, 1e-15, 0), "step %d", i);
    expect(near(factor(s, 10), 1, 1e-15, 0), "top");
    expect(near(factor(s, 35), 0.5 * (1 + cos(acos(-1) / 4)), 1e-14, 0), "a quarter");
    expect(near(factor(s, 60), 0.5, 1e-14, 0), "half");
    expect(near(factor(s, 110), 0, 0, 1e-15) && near(factor(s, 5000), 0, 0, 1e-15), "end, and after it");
    for (int i = 10; i < 110; i++)
        expect(factor(s, i + 1) <= factor(s, i), "it falls");
    s.floor = 0.1;
    expect(near(factor(s, 60), 0.55, 1e-14, 0) && near(factor(s, 110), 0.1, 1e-14, 0), "a floor");
    s = mb_schedule_warmup_cosine(0, 4);
    expect(factor(s, 0) == 1 && near(factor(s, 2), 0.5, 1e-14, 0), "without warm-up");
    s = mb_schedule_warmup_cosine(5, 5);
    expect(factor(s, 4) == 1 && isfinite(factor(s, 5)) && factor(s, 6) <= 1, "nothing after the warm-up");
    s = mb_schedule_warmup_cosine(0, 0);
    expect(isfinite(factor(s, 0)) && isfinite(factor(s, 3)), "no steps at all: no division by zero");
}

Test(schedule, steps)
{
    mb_schedule s = mb_schedule_steps(3, 0.5);
    for (int i = 0; i < 12; i++)
        expect(near(factor(s, i), pow(0.5, i / 3), 1e-15, 0), "step %d: %g", i, factor(s, i));
    s = mb_schedule_steps(0, 0.5);
    expect(isfinite(factor(s, 7)), "every 0 steps: no division by zero");
}
