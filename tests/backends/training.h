/* SPDX-License-Identifier: MIT
 * training.h - one small training step whose learner itself learns: what the cache, fault and determinism
 * tests run. */
#ifndef MB_TESTS_TRAINING_H
#define MB_TESTS_TRAINING_H

#include "support.h"

typedef struct training {
    mb_context *ctx;
    mb_tensor w, m; /* variables: weights [6,4] and momentum */
    double loss;
} training;

/* Variables and their first values. */
static inline bool training_start(training *t, mb_context *ctx)
{
    *t = (training){.ctx = ctx};
    t->w = mb_variable(ctx, MB_FLOAT32, MB_SHAPE(6, 4));
    t->m = mb_variable(ctx, MB_FLOAT32, MB_SHAPE(6, 4));
    mb_assign(t->w, mb_mul(mb_normal(ctx, mb_key_of(1), MB_FLOAT32, MB_SHAPE(6, 4)), 0.3));
    return mb_eval(&t->w, 1) == MB_OK;
}

/* Two inner steps on one half of a batch, the outer loss on the other; momentum outside. */
static inline bool training_step(training *t, int step, double lr)
{
    mb_context *ctx = t->ctx;
    float data[16 * 6];
    rng r = {(uint64_t)step};
    for (int i = 0; i < 16 * 6; i++)
        data[i] = (float)rng_between(&r, -1, 1);
    mb_scope s = mb_scope_begin(ctx);
    mb_tensor x = mb_from(ctx, MB_FLOAT32, MB_SHAPE(2, 8, 6), data);
    mb_tensor noise = mb_mul(mb_normal(ctx, mb_key_of((uint64_t)step), MB_FLOAT32, MB_SHAPE(8, 4)), 0.01);
    mb_tensor inner = mb_reshape(mb_slice(x, 0, 0, 1, 1), MB_SHAPE(8, 6)),
              outer = mb_reshape(mb_slice(x, 0, 1, 1, 1), MB_SHAPE(8, 6));
    mb_tensor w = mb_alias(t->w), g;
    for (int k = 0; k < 2; k++) {
        mb_tensor miss = mb_sub(mb_gelu(mb_matmul(inner, w)), noise);
        mb_grad(mb_mean(mb_mul(miss, miss), MB_ALL), &w, 1, &g);
        w = mb_sub(w, mb_mul(g, lr));
    }
    mb_tensor labels = mb_argmax(mb_slice(outer, 1, 0, 4, 1), -1);
    mb_tensor loss = mb_cross_entropy(mb_matmul(outer, w), labels);
    mb_grad(loss, &t->w, 1, &g);
    mb_assign(t->m, mb_add(mb_mul(t->m, 0.9), g));
    mb_assign(t->w, mb_sub(t->w, mb_mul(t->m, lr)));
    t->loss = mb_item(loss);
    return mb_scope_end(s) == MB_OK && mb_error(ctx) == MB_OK;
}

#endif
