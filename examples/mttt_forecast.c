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
static void expect_room(const run *r, const mb_costs *c)
{
    memory_left left = memory_available();
    uint64_t more = c->peak_bytes - c->held_bytes;
    if (set.force || strncmp(mb_backend_name(r->mb), "vulkan", 6) == 0 || (double)more <= left.bytes)
        return;
    die("a step needs %.0f MB more, and %s has %.0f MB left: a smaller --batch or --dim, --checkpoint, or "
        "--scan with --keep-every sqrt need less; --force goes on all the same",
        mb(more), left.of, left.bytes / 1048576);
}

void foretell_step(run *r)
{
    mb_costs c;
    mb_forecast(r->mb, NULL, 0, &c);
    check(r);
    if (r->rank == 0)
        fprintf(
            stderr,
            "a step: %.1f MB at most (parameters and optimiser %.1f, batch %.1f, results %.1f, kept through "
            "loops %.1f, temporaries %.1f, images, tape and plans %.1f), %.2f GFLOP in %llu kernels, planned "
            "in %.2f s\n",
            mb(c.peak_bytes), mb(c.variable_bytes), mb(c.input_bytes + c.live_bytes), mb(c.result_bytes),
            mb(c.loop_bytes), mb(c.temporary_bytes), mb(c.other_bytes), (double)c.flops * 1e-9,
            (unsigned long long)c.steps, c.plan_seconds);
    expect_room(r, &c);
    r->foretold = true;
}
