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
}

Test(schedule, steps)
{
    mb_schedule s = mb_schedule_steps(3, 0.5);
    for (int i = 0; i < 12; i++)
        expect(near(factor(s, i), pow(0.5, i / 3), 1e-15, 0), "step %d: %g", i, factor(s, i));
}

/* What a schedule may not be: a word of the complaint, and the schedule. */
static const struct {
    const char *word;
    mb_schedule s;
} wrong[] = {
    {"kind is 7", {.kind = (mb_schedule_kind)7}},
    {"warmup is -1", {.warmup = -1}},
    {"total is 0, wanted the number of steps", {.kind = MB_SCHEDULE_COSINE}},
    {"total is -5", {.kind = MB_SCHEDULE_COSINE, .total = -5}},
    {"floor is -0.1", {.kind = MB_SCHEDULE_COSINE, .total = 5, .floor = -0.1}},
    {"floor is 2", {.kind = MB_SCHEDULE_COSINE, .total = 5, .floor = 2}},
    {"floor is nan", {.kind = MB_SCHEDULE_COSINE, .total = 5, .floor = NAN}},
    {"every is 0", {.kind = MB_SCHEDULE_STEPS, .factor = 0.5}},
    {"factor is 0", {.kind = MB_SCHEDULE_STEPS, .every = 5}},
    {"factor is -1", {.kind = MB_SCHEDULE_STEPS, .every = 5, .factor = -1}},
    {"factor is inf", {.kind = MB_SCHEDULE_STEPS, .every = 5, .factor = INFINITY}},
    {"total is 100, wanted 0", {.total = 100}}, /* the kind was forgotten */
    {"factor is 0.5, wanted 0", {.factor = 0.5}},
    {"every is 3, wanted 0", {.kind = MB_SCHEDULE_COSINE, .total = 5, .every = 3}},
};

Test(schedule, what_it_may_not_be)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 1);
    mb_param(p, "w", MB_SHAPE(2), mb_init_ones());
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        expect(isnan(factor(wrong[i].s, 0)) && isnan(factor(wrong[i].s, 50)), "%s: not NaN", wrong[i].word);
        for (int kind = 0; kind < 3; kind++) {
            mb_optimizer *opt = kind == 0 ? mb_sgd(p, (mb_sgd_options){.lr = 1, .schedule = wrong[i].s})
                                : kind == 1
                                    ? mb_adam(p, (mb_adam_options){.lr = 1, .schedule = wrong[i].s})
                                    : mb_adamw(p, (mb_adamw_options){.lr = 1, .schedule = wrong[i].s});
            expect(!opt && mb_error(mb) == MB_INVALID && strstr(mb_message(mb), wrong[i].word) &&
                       strstr(mb_message(mb), "schedule_test.c:"),
                   "\"%s\" does not say \"%s\"", mb_message(mb), wrong[i].word);
            mb_clear_error(mb);
        }
    }
    mb_params_free(p);
    close_all();
}
