/* SPDX-License-Identifier: MIT
 *
 * mttt_forecast.c - what a step of training will take, told before the first one; and whether it is there. */
#include <string.h>

#include "mttt.h"

static double mb(uint64_t bytes)
{
    return (double)bytes / 1048576;
}

/* A device's own memory is its driver's to judge. */
static void expect_room(const run *r, uint64_t more)
{
    memory_left left = memory_available();
    if (set.force || strncmp(mb_backend_name(r->mb), "vulkan", 6) == 0 || (double)more <= left.bytes)
        return;
    die("a step needs %.0f MB more, and %s has %.0f MB left: a smaller --batch or --dim, --accumulate, "
        "--checkpoint, or --scan with --keep-every sqrt need less; --force goes on all the same",
        mb(more), left.of, left.bytes / 1048576);
}

/* Plans that are made later, and kept beside this one: of steps that do not look at the inner losses, of
 * parts between the first and the last, and of the last. */
static uint64_t plans_to_come(const run *r, int64_t part)
{
    uint64_t parts = set.accumulate < 3 ? (uint64_t)set.accumulate : 3, made = part > 0 ? parts : 1;
    return (set.log_every > 1 && r->total > 1 && r->inner_losses ? 2 * parts : parts) - made;
}

static const char *name_of(int64_t part)
{
    return set.accumulate == 1 ? "a step" : part == 0 ? "a part of a step" : "the last part, and the step";
}

void foretell_step(run *r, int64_t part)
{
    mb_costs c;
    mb_forecast(r->mb, NULL, 0, &c);
    check(r);
    uint64_t plans = plans_to_come(r, part) * c.plan_bytes;
    if (!r->advanced && r->rank == 0)
        fprintf(
            stderr,
            "%s: %.1f MB at most (parameters and optimiser %.1f, batch %.1f, results %.1f, kept through "
            "loops %.1f, temporaries %.1f, images, tape and plans %.1f), %.2f GFLOP in %llu kernels, planned "
            "in %.2f s\n",
            name_of(part), mb(c.peak_bytes + plans), mb(c.variable_bytes), mb(c.input_bytes + c.live_bytes),
            mb(c.result_bytes), mb(c.loop_bytes), mb(c.temporary_bytes), mb(c.other_bytes + plans),
            (double)c.flops * 1e-9, (unsigned long long)c.steps, c.plan_seconds);
    expect_room(r, c.peak_bytes - c.held_bytes + plans);
    r->foretold = part + 1 == set.accumulate;
}
