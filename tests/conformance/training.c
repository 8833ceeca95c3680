/* SPDX-License-Identifier: MIT
 *
 * training.c - small training steps (tests/backends/training.h): replayed, in two contexts by turns, and with
 * each allocation failing in turn.
 */
#include "../../tests/backends/training.h"

enum { STEPS = 3 };

/* Weights and losses of a few steps. */
static bool train(mb_context *ctx, double *losses, float *w)
{
    training t;
    bool ok = training_start(&t, ctx);
    for (int step = 0; step < STEPS && ok; step++) {
        ok = training_step(&t, step, 0.1 / (1 + step));
        losses[step] = t.loss;
    }
    return ok && mb_read(t.w, w, 24 * sizeof *w) == MB_OK;
}

static void against_reference(void)
{
    double got[STEPS], want[STEPS];
    float w[24], v[24];
    mb_context *a = open_as(run.backend, NULL, 0), *b = open_as("reference", NULL, 1);
    bool ok = train(a, got, w) && train(b, want, v);
    for (int i = 0; i < STEPS && ok; i++)
        if (!near(got[i], want[i], 1e-4, 0))
            ok = expect(false, "step %d: got loss %.9g, wanted %.9g by reference", i, got[i], want[i]);
    mb_stats s = mb_get_stats(a);
    told("training/against_reference", ok, "%s", mb_message(a));
    told("training/replays", s.plan_hits > 0, "no plan was replayed: %llu plans",
         (unsigned long long)s.plans);
    mb_close(a);
    mb_close(b);
}

/* Two contexts by turns give what each gives alone. */
static void by_turns(void)
{
    training t[2], alone;
    mb_context *ctx[2] = {open_as(run.backend, NULL, 0), open_as(run.backend, NULL, 0)},
               *other = open_as(run.backend, NULL, 0);
    bool ok = training_start(&t[0], ctx[0]) && training_start(&t[1], ctx[1]) && training_start(&alone, other);
    for (int step = 0; step < STEPS && ok; step++)
        ok = training_step(&t[0], step, 0.1) && training_step(&t[1], step, 0.1) &&
             training_step(&alone, step, 0.1) &&
             expect(t[0].loss == alone.loss && t[1].loss == alone.loss,
                    "step %d: losses %.9g and %.9g; alone %.9g", step, t[0].loss, t[1].loss, alone.loss);
    told("training/two_contexts", ok, "%s", mb_message(ctx[0]));
    mb_close(ctx[0]);
    mb_close(ctx[1]);
    mb_close(other);
}

/* With the n-th allocation, and with `on` all later ones, failing. Whether all went well in spite of it. */
static bool attempt(uint64_t n, bool on)
{
    counter c = {.fail_at = n, .fail_on = on};
    mb_allocator a = counting_allocator(&c);
    double losses[STEPS];
    float w[24];
    mb_context *ctx =
        mb_open_with(&(mb_options){.size = sizeof(mb_options), .backend = run.backend, .allocator = &a});
    if (!ctx)
        return false;
    bool opened = mb_error(ctx) == MB_OK, ok = opened && train(ctx, losses, w);
    mb_status status = mb_error(ctx);
    expect(ok || status == MB_NO_MEMORY, "allocation %llu fails: %s: %s; wanted out of memory",
           (unsigned long long)n, mb_status_name(status), mb_message(ctx));
    c.fail_at = 0; /* there is memory again */
    mb_clear_error(ctx);
    expect(!opened || train(ctx, losses, w), "after allocation %llu failed: %s", (unsigned long long)n,
           mb_message(ctx));
    mb_close(ctx);
    expect(c.blocks == 0 && c.bytes == 0, "allocation %llu fails: %lld bytes in %lld blocks are left",
           (unsigned long long)n, (long long)c.bytes, (long long)c.blocks);
    return ok;
}

/* The first ones one by one, then a few of the later. */
static void failing_allocations(bool on)
{
    const char *name = on ? "fault/each_and_all_later" : "fault/each_once";
    if (!wanted(name))
        return;
    counter c = {0};
    mb_allocator a = counting_allocator(&c);
    double losses[STEPS];
    float w[24];
    mb_context *ctx =
        mb_open_with(&(mb_options){.size = sizeof(mb_options), .backend = run.backend, .allocator = &a});
    bool ok = train(ctx, losses, w);
    mb_close(ctx);
    for (uint64_t n = 1; n <= c.calls && ok; n += 1 + n / 20)
        attempt(n, on);
    told(name, ok, "training fails even with memory");
}

void training_cases(void)
{
    if (wanted("training/against_reference"))
        against_reference();
    if (wanted("training/two_contexts"))
        by_turns();
    failing_allocations(false);
    failing_allocations(true);
}
