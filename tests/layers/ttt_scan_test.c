/* SPDX-License-Identifier: MIT
 *
 * ttt_scan_test.c - the inner steps of test-time training as one scan: the same answers, inner losses and
 * outer derivatives as step by step, in memory that does not grow with the steps. */
#include "fixture.h"

enum { T = 7, MOST_NUMBERS = 64 };

typedef struct setting {
    mb_learner_kind learner;
    mb_inner_rule rule;
    int64_t batch, keep;
} setting;

/* The outer loss, the inner ones, and first and second derivatives along a direction. */
static int numbers_of(const char *backend, const setting *s, mb_switch scan, double out[MOST_NUMBERS])
{
    static const double rates[T] = {0.5, 0.4, 0.3, 0.2, 0.6, 0.1, 0.3};
    mb_context *mb = open_on(backend);
    tiny t = tiny_ttt(mb, (mb_ttt_options){.learner = s->learner,
                                           .inner_steps = T,
                                           .inner_batch = s->batch,
                                           .inner_lr = rates,
                                           .inner_rule = s->rule,
                                           .inner_momentum = 0.8,
                                           .inner_adam = {.eps = 0.1},
                                           .learned_start = MB_ON,
                                           .scan = scan,
                                           .keep_every = s->keep});
    mb_tensor losses[T + 1], xs[32], vs[32], gs[32], x = tiny_x(mb, 2);
    mb_tensor y = outer_loss(mb_ttt_apply(t.layer, x, s->batch ? mb_key_of(3) : MB_NO_KEY, losses));
    int n = 0, count = mb_params_count(t.p);
    out[n++] = mb_item(y);
    for (int i = 0; i <= T; i++)
        out[n++] = mb_item(losses[i]);
    for (int i = 0; i < count; i++) {
        xs[i] = mb_params_tensor(t.p, i);
        vs[i] = pattern(mb, mb_shape_of(xs[i]), i, 1, 0);
    }
    mb_grad(y, xs, count, gs);
    for (int i = 0; i < count; i++)
        out[n++] = mb_item(mb_sum(mb_mul(gs[i], vs[i]), MB_ALL));
    mb_hvp(y, xs, vs, count, gs);
    for (int i = 0; i < count; i++)
        out[n++] = mb_item(mb_sum(mb_mul(gs[i], vs[i]), MB_ALL));
    expect_ok(mb);
    mb_params_free(t.p);
    close_all();
    return n;
}

/* float64, some thousand operations: to 1e-11 of the largest of its kind. */
Test(ttt_scan, equals_steps_one_by_one)
{
    const setting settings[] = {{MB_LEARNER_LINEAR, MB_INNER_SGD, 0, 0},
                                {MB_LEARNER_MLP, MB_INNER_SGD, 0, 3},
                                {MB_LEARNER_MLP, MB_INNER_MOMENTUM, 2, MB_KEEP_SQRT},
                                {MB_LEARNER_MLP, MB_INNER_ADAM, 3, 0},
                                {MB_LEARNER_LINEAR, MB_INNER_ADAM, 0, MB_KEEP_LOG}};
    for (int b = 0; b < 2; b++)
        for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
            if (testing("vulkan") && (!b || i % 3 != 1)) /* two of them: kernels take long to compile */
                continue;
            double want[MOST_NUMBERS] = {0}, got[MOST_NUMBERS] = {0}, largest = 0;
            int n = numbers_of(backend_names[b], &settings[i], MB_OFF, want);
            numbers_of(backend_names[b], &settings[i], MB_ON, got);
            for (int k = 0; k < n; k++)
                largest = fmax(largest, fabs(want[k]));
            for (int k = 0; k < n; k++)
                expect(fabs(want[k] - got[k]) <= 1e-11 * largest,
                       "%s, setting %zu, number %d: %.17g, step by step %.17g", backend_names[b], i, k,
                       got[k], want[k]);
        }
}

/* Nodes and intermediate values of a training step with so many inner steps. */
static void size_of(int steps, double *nodes, double *arena)
{
    mb_context *mb = open_on("cpu");
    tiny t = tiny_ttt(mb, (mb_ttt_options){.learner = MB_LEARNER_MLP, .inner_steps = steps, .scan = MB_ON});
    mb_tensor w = tiny_get(&t, "W1"), g;
    mb_grad(outer_loss(mb_ttt_apply(t.layer, tiny_x(mb, 8), MB_NO_KEY, NULL)), &w, 1, &g);
    mb_eval(&g, 1);
    expect_ok(mb);
    *nodes = (double)mb_get_stats(mb).last_nodes;
    *arena = (double)mb_get_stats(mb).last_arena_bytes;
    mb_params_free(t.p);
    close_all();
}

Test(ttt_scan, a_hundred_steps_take_the_memory_of_two)
{
    if (!testing("cpu"))
        return;
    double nodes[2], arena[2];
    size_of(2, &nodes[0], &arena[0]);
    size_of(100, &nodes[1], &arena[1]);
    expect(nodes[0] == nodes[1], "%g nodes for 2 steps, %g for 100", nodes[0], nodes[1]);
    /* Carries are kept: W1, b1, W2, b2 of 8 images and 2 heads; places are multiples of 64 bytes. */
    double carry = 8 * 2 * (2 * 8 + 8 + 8 * 2 + 2) * sizeof(double) + 4 * 64;
    expect(arena[1] <= arena[0] + 98 * carry, "%g bytes for 2 steps, %g for 100", arena[0], arena[1]);
}
