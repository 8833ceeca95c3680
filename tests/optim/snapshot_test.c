/* SPDX-License-Identifier: MIT
 *
 * snapshot_test.c - parameter sets: snapshots, initial values again, patterns, and inputs that are trained in
 * front of a frozen model. */
#include <math.h>

#include "support.h"

static mb_params *four(mb_context *mb, uint64_t seed)
{
    mb_params *p = mb_params_new_with(mb, seed, MB_FLOAT64);
    mb_param(p, "blocks.0.w", MB_SHAPE(3), mb_init_normal(1));
    mb_param(p, "blocks.0.norm", MB_SHAPE(3), mb_init_ones());
    mb_param(p, "blocks.1.w", MB_SHAPE(3), mb_init_uniform(2));
    mb_param_no_decay(p, "head", MB_SHAPE(2), mb_init_zeros());
    return p;
}

static void move(mb_params *p, double by)
{
    for (int i = 0; i < mb_params_count(p); i++)
        mb_assign(mb_params_tensor(p, i), mb_add(mb_params_tensor(p, i), by));
}

static bool same(mb_tensor a, mb_tensor b, double by)
{
    const double *x = values(a), *y = values(b);
    for (int64_t i = 0; i < mb_count(a); i++)
        if (fabs(x[i] - y[i] - by) > 1e-15 + 1e-15 * fabs(x[i]))
            return false;
    return true;
}

Test(snapshots, take_and_restore)
{
    for (int b = 0; b < 2; b++) {
        mb_context *mb = open_on(backend_names[b]);
        mb_params *p = four(mb, 1), *q = four(mb, 1);
        mb_snapshot *s = mb_snapshot_new(p);
        mb_scope scope = mb_scope_begin(mb);
        move(p, 2);
        mb_scope_end(scope);
        for (int i = 0; i < 4; i++)
            expect(same(mb_snapshot_tensor(s, i), mb_params_tensor(q, i), 0) &&
                       same(mb_params_tensor(p, i), mb_params_tensor(q, i), 2),
                   "the snapshot stays: %d", i);
        expect(mb_snapshot_restore(s, "blocks.*.w") == MB_OK, "restore some");
        for (int i = 0; i < 4; i++)
            expect(same(mb_params_tensor(p, i), mb_params_tensor(q, i), i % 2 ? 2 : 0), "restored %d", i);
        expect(mb_snapshot_take(s) == MB_OK, "take again");
        move(p, 1);
        expect(mb_snapshot_restore(s, "") == MB_OK, "restore all");
        for (int i = 0; i < 4; i++)
            expect(same(mb_params_tensor(p, i), mb_params_tensor(q, i), i % 2 ? 2 : 0), "taken %d", i);
        mb_param(p, "later", MB_SHAPE(1), mb_init_ones());
        move(p, 1);
        expect(mb_snapshot_restore(s, "") == MB_OK && values(mb_params_tensor(p, 4))[0] == 2,
               "a later one is no part of it");
        expect(!mb_snapshot_tensor(s, 4).ctx && !mb_snapshot_tensor(NULL, 0).ctx, "none");
        expect(mb_snapshot_restore(s, "block") == MB_INVALID, "no such parameter");
        mb_clear_error(mb);
        mb_snapshot_free(s);
        mb_snapshot_free(NULL);
        mb_params_free(p);
        mb_params_free(q);
        close_all();
    }
}

/* An error after a restore, in the same scope, undoes it. */
Test(snapshots, errors_undo)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = four(mb, 1), *q = four(mb, 1);
    mb_snapshot *s = mb_snapshot_new(p);
    move(p, 2);
    mb_eval(NULL, 0);
    mb_scope scope = mb_scope_begin(mb);
    mb_snapshot_restore(s, "");
    mb_fail(mb, MB_INVALID, "on purpose");
    mb_scope_end(scope);
    mb_clear_error(mb);
    expect(same(mb_params_tensor(p, 0), mb_params_tensor(q, 0), 2), "as before the scope");
    scope = mb_scope_begin(mb);
    expect(!mb_snapshot_new(p), "inside a scope");
    mb_clear_error(mb);
    mb_scope_end(scope);
    mb_snapshot_free(s);
    mb_params_free(p);
    mb_params_free(q);
    close_all();
}

Test(snapshots, full_and_impulse)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new_with(mb, 1, MB_FLOAT64);
    mb_tensor full = mb_param(p, "full", MB_SHAPE(3), mb_init_full(-1.5));
    mb_tensor impulse = mb_param(p, "impulse", MB_SHAPE(2, 3, 4), mb_init_impulse());
    mb_tensor none = mb_param(p, "none", MB_SHAPE(0, 4), mb_init_impulse());
    move(p, 1);
    expect(mb_params_reinit(p, "", 5) == MB_OK, "whatever the seed");
    for (int i = 0; i < 3; i++)
        expect(values(full)[i] == -1.5, "full");
    for (int i = 0; i < 24; i++)
        expect(values(impulse)[i] == (i / 4 % 3 == 0), "impulse %d", i);
    expect(mb_count(none) == 0, "of no width");
    expect_ok(mb);
    mb_param(p, "one", MB_SHAPE(3), mb_init_impulse());
    expect(mb_error(mb) == MB_INVALID && strstr(mb_message(mb), "impulse of 1 axes"), "%s", mb_message(mb));
    mb_clear_error(mb);
    mb_params_free(p);
    close_all();
}

/* Of every layer with a start of its own: with the set's seed, the values it began with. */
Test(snapshots, layers_begin_again)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 3);
    mb_vit_new(
        p, "vit",
        (mb_vit_options){.tokens = 4,
                         .patch_values = 2,
                         .dim = 8,
                         .depth = 1,
                         .classes = 3,
                         .mixer = {.kind = MB_MIXER_TTT, .heads = 2, .ttt = {.learner = MB_LEARNER_MLP}}});
    mb_memory_new(p, "memory",
                  (mb_memory_options){.dim = 8, .heads = 2, .rule = MB_MEMORY_MESANET, .conv = 3});
    mb_batch_norm_new(p, "norm", 4);
    mb_snapshot *s = mb_snapshot_new(p);
    move(p, 1);
    expect(mb_params_reinit(p, "", 3) == MB_OK, "reinit");
    for (int i = 0; i < mb_params_count(p); i++)
        expect(same(mb_params_tensor(p, i), mb_snapshot_tensor(s, i), 0), "%s", mb_params_name(p, i));
    mb_snapshot_free(s);
    mb_params_free(p);
    close_all();
}

Test(snapshots, initial_values_again)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = four(mb, 1), *first = four(mb, 1), *other = four(mb, 7);
    move(p, 3);
    expect(mb_params_reinit(p, "blocks", 1) == MB_OK, "their own seed");
    for (int i = 0; i < 4; i++)
        expect(same(mb_params_tensor(p, i), mb_params_tensor(first, i), i == 3 ? 3 : 0), "%d", i);
    expect(mb_params_reinit(p, "blocks.*.w", 7) == MB_OK && mb_params_reinit(p, "head", 7) == MB_OK,
           "another");
    for (int i = 0; i < 4; i++)
        expect(same(mb_params_tensor(p, i), mb_params_tensor(other, i), 0), "of the other seed: %d", i);
    expect(!same(mb_params_tensor(p, 0), mb_params_tensor(first, 0), 0), "which differ");
    expect(mb_params_reinit(p, "heads", 7) == MB_INVALID, "no such parameter");
    mb_clear_error(mb);
    expect(mb_params_freeze(p, "*.0") == MB_OK && !mb_params_trainable(p, 1) && mb_params_trainable(p, 2),
           "freezing takes patterns, too");
    mb_params_free(p);
    mb_params_free(first);
    mb_params_free(other);
    close_all();
}

/* The model is frozen; x, of another set, is trained through it: w x = y. */
Test(snapshots, inputs_of_a_frozen_model)
{
    mb_context *mb = open_on("cpu");
    mb_params *model = mb_params_new_with(mb, 1, MB_FLOAT64), *inputs = mb_params_new_with(mb, 1, MB_FLOAT64);
    mb_tensor w = mb_param(model, "w", MB_SHAPE(2, 2), mb_init_normal(1));
    mb_tensor x = mb_param(inputs, "x", MB_SHAPE(2, 1), mb_init_zeros());
    mb_snapshot *s = mb_snapshot_new(model);
    mb_params_freeze(model, "");
    mb_optimizer *adam = mb_adam(inputs, (mb_adam_options){.lr = 0.05});
    for (int i = 0; i < 600; i++) {
        mb_scope scope = mb_scope_begin(mb);
        mb_step(adam, mb_sum(mb_square(mb_sub(mb_matmul(w, x), 1.0)), MB_ALL));
        mb_scope_end(scope);
    }
    const double *y = values(mb_matmul(w, x));
    expect(fabs(y[0] - 1) < 1e-3 && fabs(y[1] - 1) < 1e-3, "%g %g", y[0], y[1]);
    expect(same(w, mb_snapshot_tensor(s, 0), 0), "the model is as it was");
    mb_optimizer_free(adam);
    mb_snapshot_free(s);
    mb_params_free(model);
    mb_params_free(inputs);
    close_all();
}
