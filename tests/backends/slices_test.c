/* SPDX-License-Identifier: MIT
 *
 * slices_test.c - flushes that run in slices of the batch (mb_options.arena_bytes) against flushes that run
 * whole: each kind of op, whatever axis the batch is; training steps of models; and what cannot be sliced. */
#include <math.h>
#include <stdlib.h>

#include "support.h"

/* bytes: 0 for a context without a goal. */
static mb_context *open_for(const char *backend, const char *bytes, int threads)
{
    if (bytes)
        setenv("MB_ARENA_BYTES", bytes, 1);
    mb_context *ctx = open_as(backend, NULL, threads);
    unsetenv("MB_ARENA_BYTES");
    return ctx;
}

static uint64_t slices(mb_context *ctx)
{
    return mb_get_stats(ctx).last_slices;
}

static int64_t numel(mb_tensor t)
{
    mb_shape s = mb_shape_of(t);
    int64_t n = 1;
    for (int i = 0; i < s.rank; i++)
        n *= s.dim[i];
    return n;
}

/* Relative to the largest, in float64. */
static void expect_equal(const char *what, const char *which, mb_tensor got, mb_tensor want)
{
    int64_t n = numel(want);
    const double *g = values(got), *w = values(want);
    double most = 0, off = 0;
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, fabs(w[i]));
        off = fmax(off, isnan(g[i]) ? (double)INFINITY : fabs(g[i] - w[i]));
    }
    expect(numel(got) == n && off <= 1e-12 * most, "%s: %s differs by %g of %g", what, which, off, most);
}

/* ---- each kind of op ---- */

enum { BATCH = 32, SIDE = 12 };

/* x: [BATCH,SIDE,SIDE], w: [SIDE,SIDE] -> anything with the batch as an axis, or summed over. */
typedef mb_tensor function(mb_tensor x, mb_tensor w);

static mb_tensor elementwise(mb_tensor x, mb_tensor w)
{
    mb_tensor each = mb_mean(x, MB_KEEP(1, 2));
    return mb_where(mb_gt(x, each), mb_mul(x, mb_gelu(w)), mb_sub(mb_exp(x), each));
}
static mb_tensor literals(mb_tensor x, mb_tensor w)
{
    mb_tensor ones = mb_ones(x.ctx, MB_FLOAT64, mb_shape_of(x));
    return mb_add(mb_mul(x, mb_broadcast(w, mb_shape_of(x))), mb_where(mb_gt(x, 0.5), ones, mb_mul(ones, 3)));
}
static mb_tensor numbers_drawn(mb_tensor x, mb_tensor w)
{
    mb_tensor noise = mb_uniform(x.ctx, mb_key_of(7), MB_FLOAT64, mb_shape_of(x));
    return mb_mul(mb_add(x, noise), w);
}
static mb_tensor permuted(mb_tensor x, mb_tensor w)
{
    mb_tensor y = mb_permute(mb_square(x), MB_AXES(1, 2, 0)); /* [SIDE,SIDE,BATCH] */
    mb_tensor each = mb_mean(x, MB_AXES(1, 2));               /* [BATCH] */
    return mb_mul(each, mb_mul(y, mb_unsqueeze(mb_sum(w, MB_AXES(0)), 1)));
}
/* The batch is the last axis of the result, and its first one as long. */
static mb_tensor aligned(mb_tensor x, mb_tensor w)
{
    mb_tensor places = mb_cast(mb_iota(x.ctx, MB_INT32, BATCH * BATCH), MB_FLOAT64);
    mb_tensor table = mb_sin(mb_reshape(places, MB_SHAPE(BATCH, BATCH)));
    return mb_mul(mb_sum(mb_mul(x, w), MB_AXES(1, 2)), table);
}
static mb_tensor merged(mb_tensor x, mb_tensor w)
{
    mb_tensor rows = mb_reshape(mb_unsqueeze(x, 0), MB_SHAPE(1, BATCH * SIDE, SIDE));
    return mb_reshape(mb_tanh(mb_matmul(rows, w)), MB_SHAPE(1, BATCH, SIDE * SIDE));
}
static mb_tensor products(mb_tensor x, mb_tensor w)
{
    mb_tensor y = mb_matmul(mb_matmul(x, w), mb_transpose(x));
    return mb_einsum("bij,bjk->bik", y, mb_einsum("bij,kj->bki", x, w));
}
static mb_tensor slices_and_pads(mb_tensor x, mb_tensor w)
{
    mb_tensor parts[2] = {mb_pad(mb_slice(x, 1, 2, SIDE - 2, 1), 1, 1, 1), mb_mul(x, w)};
    return mb_concat(parts, 2, 2);
}
static mb_tensor reductions(mb_tensor x, mb_tensor w)
{
    return mb_add(mb_softmax(mb_matmul(x, w), 2), mb_max(x, MB_KEEP(1)));
}
static mb_tensor running(mb_tensor x, mb_tensor w)
{
    return mb_add(mb_cumsum(mb_mul(x, w), 1, false), mb_cummax(x, 2, false));
}
static mb_tensor chosen(mb_tensor x, mb_tensor w)
{
    mb_tensor which = mb_argmax(x, 2), rows = mb_take(w, which, 0); /* [BATCH,SIDE] -> [BATCH,SIDE,SIDE] */
    int32_t few[3] = {5, 0, 5};
    return mb_add(mb_sum(mb_mul(rows, x), MB_KEEP(2)),
                  mb_sum(mb_take(x, mb_from(x.ctx, MB_INT32, MB_SHAPE(3), few), 2), MB_KEEP(2)));
}
static mb_tensor scattered(mb_tensor x, mb_tensor w)
{
    return mb_scatter_add(mb_mul(x, w), mb_argmax(x, 2), 0, SIDE); /* over batch and rows */
}
static mb_tensor matrices(mb_tensor x, mb_tensor w)
{
    mb_tensor a = mb_add(mb_matmul(x, mb_transpose(x)), mb_eye(x.ctx, MB_FLOAT64, SIDE));
    return mb_triangular_solve(mb_cholesky(a), mb_matmul(x, w), MB_LOWER);
}
static mb_tensor convolved(mb_tensor x, mb_tensor w)
{
    mb_tensor kernel = mb_reshape(mb_slice(w, 0, 0, 3, 1), MB_SHAPE(1, 1, 6, 6));
    mb_tensor image = mb_unsqueeze(x, 1); /* [BATCH,1,SIDE,SIDE] */
    return mb_conv2d(image, kernel, MB_EMPTY(mb_tensor), MB_EMPTY(mb_conv_options));
}
static mb_tensor inner_step(mb_tensor x, mb_tensor w)
{
    mb_tensor mine = mb_broadcast(w, mb_shape_of(x)), g;
    for (int i = 0; i < 2; i++) {
        mb_grad(mb_sum(mb_square(mb_sub(mb_matmul(x, mine), x)), MB_ALL), &mine, 1, &g);
        mine = mb_sub(mine, mb_mul(g, 0.01));
    }
    return mb_matmul(mb_transpose(x), mine);
}

/* Along the second axis; what the body reads of the outside is cut, too. */
static mb_tensor recurrent(mb_tensor x, mb_tensor w)
{
    mb_tensor h = mb_zeros(x.ctx, MB_FLOAT64, MB_SHAPE(BATCH, SIDE)), all, base = mb_mean(x, MB_AXES(1));
    mb_tensor count = mb_zeros(x.ctx, MB_FLOAT64, MB_SHAPE(1));
    mb_scan s = mb_scan_begin(x.ctx, SIDE);
    mb_scan_carry(s, &h);
    mb_scan_carry(s, &count);
    count = mb_add(count, 0.1);
    mb_tensor token = mb_scan_slice(s, mb_permute(x, MB_AXES(1, 0, 2)));
    h = mb_tanh(mb_add(mb_mul(mb_matmul(h, w), count), mb_mul(token, base)));
    mb_scan_stack(s, h, &all);
    mb_scan_end(s);
    return mb_mul(mb_permute(all, MB_AXES(1, 0, 2)), mb_add(mb_unsqueeze(h, 1), count));
}
/* Inner steps in a loop, and a loop in that. *total: losses of all steps and of the whole
 * batch, from `start` on. */
static mb_tensor inner_loops(mb_tensor x, mb_tensor w, double start, mb_tensor *total)
{
    mb_tensor mine = mb_broadcast(w, mb_shape_of(x)), g;
    *total = mb_full(x.ctx, MB_FLOAT64, MB_SHAPE(1), start);
    mb_scan s = mb_scan_begin(x.ctx, 3);
    mb_scan_carry(s, &mine);
    mb_scan_carry(s, total);
    mb_tensor y = mb_matmul(x, mine);
    mb_scan inner = mb_scan_begin(x.ctx, 2);
    mb_scan_carry(inner, &y);
    y = mb_sin(mb_add(y, mb_mul(x, 0.5)));
    mb_scan_end(inner);
    mb_tensor loss = mb_sum(mb_square(mb_sub(y, x)), MB_ALL);
    mb_grad(loss, &mine, 1, &g);
    mine = mb_sub(mine, mb_mul(g, 0.01));
    *total = mb_add(*total, mb_unsqueeze(loss, 0));
    mb_scan_end(s);
    return mb_matmul(mb_transpose(x), mine);
}
static mb_tensor nested(mb_tensor x, mb_tensor w)
{
    mb_tensor total;
    return inner_loops(x, w, 0, &total);
}
static mb_tensor sums_of_loops(mb_tensor x, mb_tensor w)
{
    mb_tensor total;
    inner_loops(x, w, 0, &total);
    return total;
}
static mb_tensor sums_from_one(mb_tensor x, mb_tensor w)
{
    mb_tensor total;
    inner_loops(x, w, 1, &total);
    return total;
}
/* The inner loop belongs to the outer one by nothing but what is the same for all of the batch. */
static mb_tensor captured(mb_tensor x, mb_tensor w)
{
    mb_tensor base = mb_mean(x, MB_AXES(1)), total = mb_zeros(x.ctx, MB_FLOAT64, mb_shape_of(base));
    mb_scan s = mb_scan_begin(x.ctx, 3);
    mb_scan_carry(s, &w);
    mb_scan_carry(s, &total);
    mb_tensor same = mb_broadcast(mb_sum(w, MB_AXES(0)), mb_shape_of(base)), h = base;
    same = mb_sin(mb_mul(same, 1.5));
    mb_scan inner = mb_scan_begin(x.ctx, 2);
    mb_scan_carry(inner, &h);
    h = mb_add(mb_mul(h, 0.5), same);
    mb_scan_end(inner);
    total = mb_add(total, h);
    w = mb_tanh(w);
    mb_scan_end(s);
    return total;
}
static mb_tensor delta_rule(mb_tensor x, mb_tensor w)
{
    mb_tensor q = mb_unsqueeze(mb_tanh(mb_matmul(x, w)), 1); /* one head */
    mb_tensor beta = mb_sigmoid(mb_mean(q, MB_AXES(3)));
    return mb_gated_attention(q, mb_mul(q, 0.3), q, MB_EMPTY(mb_tensor),
                              MB_LIT(mb_gated_attention_options){.chunk = 4, .beta = beta}, NULL);
}

/* stores: more than a slice of some tensor lies in memory, for a reason. */
static const struct {
    const char *name;
    function *of;
    bool stores;
} functions[] = {{"elementwise", elementwise, false},
                 {"literals", literals, false},
                 {"numbers drawn", numbers_drawn, false},
                 {"permuted", permuted, false},
                 {"aligned", aligned, false},
                 {"merged", merged, false},
                 {"products", products, false},
                 {"slices and pads", slices_and_pads, false},
                 {"reductions", reductions, false},
                 {"running", running, false},

                 {"chosen", chosen, false},
                 {"scattered", scattered, true},
                 {"matrices", matrices, false},
                 {"convolved", convolved, false},
                 {"inner steps", inner_step, false},
                 {"recurrent", recurrent, false},
                 {"nested", nested, false},
                 {"sums of loops", sums_of_loops, true},
                 {"sums from one", sums_from_one, true},
                 {"captured", captured, false},
                 {"delta rule", delta_rule, false}};

typedef struct results {
    mb_tensor y, total, gw;
} results;

/* Asks first for what is summed over the batch, then for all of it. */
static results compute(mb_context *ctx, function *of, mb_stats *sums)
{
    rng r = {11};
    mb_tensor x = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(BATCH, SIDE, SIDE), -1, 1);
    mb_tensor w = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(SIDE, SIDE), -0.5, 0.5);
    mb_tensor inputs[2] = {x, w};
    mb_eval(inputs, 2);
    results all;
    for (int k = 0; k < 2; k++) {
        all.y = of(x, w);
        all.total = mb_sum(mb_square(all.y), MB_ALL);
        mb_grad(all.total, &w, 1, &all.gw);
        mb_tensor asked[3] = {all.total, all.gw, all.y};
        mb_eval(asked, 2 + k);
        if (k == 0)
            *sums = mb_get_stats(ctx);
    }
    return all;
}

Test(slices, every_kind_of_op)
{
    for (int b = 0; b < 2; b++)
        for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
            const char *name = functions[i].name;
            mb_context *whole = open_for(backend_names[b], NULL, 1),
                       *cut = open_for(backend_names[b], "1", 1);
            mb_stats before, after;
            results want = compute(whole, functions[i].of, &before),
                    got = compute(cut, functions[i].of, &after);
            expect_equal(name, "the sum", got.total, want.total);
            expect_equal(name, "the gradient", got.gw, want.gw);
            expect_equal(name, "the result", got.y, want.y);
            if (has_loops(cut)) {
                expect(before.last_slices == 1 && after.last_slices == BATCH, "%s: %d slices", name,
                       (int)after.last_slices);
                expect(functions[i].stores || after.last_arena_bytes < BATCH * SIDE * SIDE * 8,
                       "%s: %d bytes", name, (int)after.last_arena_bytes);
            }
            close_all();
        }
}

/* ---- models ---- */

enum { IMAGES = 16, TOKENS = 12, WIDTH = 16, CLASSES = 10 };

static const struct {
    const char *name;
    mb_mixer_kind mixer;
    mb_learner_kind learner;
    int inner_steps;
    bool checkpoint;
    mb_switch scan;
    int64_t keep;
} models[] = {{"mttt-mlp", MB_MIXER_TTT, MB_LEARNER_MLP, 2, false, MB_OFF, 0},
              {"mttt-linear", MB_MIXER_TTT, MB_LEARNER_LINEAR, 3, false, MB_OFF, 0},
              {"scans", MB_MIXER_TTT, MB_LEARNER_MLP, 4, false, MB_ON, 0},
              {"divided scans", MB_MIXER_TTT, MB_LEARNER_LINEAR, 6, false, MB_ON, MB_KEEP_SQRT},
              {"checkpoints", MB_MIXER_TTT, MB_LEARNER_MLP, 1, true, MB_OFF, 0},
              {"softmax attention", MB_MIXER_SOFTMAX, MB_LEARNER_LINEAR, 0, false, MB_OFF, 0},
              {"linear attention", MB_MIXER_LINEAR, MB_LEARNER_LINEAR, 0, false, MB_OFF, 0}};

/* Losses of three training steps, the arena of the last, and its slices. */
static uint64_t train(mb_context *ctx, size_t m, double loss[3], uint64_t *bytes)
{
    mb_params *p = mb_params_new(ctx, 1);
    mb_mixer_options mixer = {.kind = models[m].mixer, .heads = 2};
    mixer.ttt =
        (mb_ttt_options){.learner = models[m].learner, .inner_steps = models[m].inner_steps, .scan = MB_OFF};
    mb_vit *vit = mb_vit_new(p, "",
                             (mb_vit_options){.tokens = TOKENS,
                                              .patch_values = 8,
                                              .dim = WIDTH,
                                              .depth = 2,
                                              .classes = CLASSES,
                                              .mixer = mixer,
                                              .checkpoint = models[m].checkpoint});
    mb_optimizer *o = mb_adamw(p, (mb_adamw_options){.lr = 1e-2, .clip_norm = 1});
    int32_t labels[IMAGES];
    for (int i = 0; i < IMAGES; i++)
        labels[i] = i % CLASSES;
    uint64_t parts = 0;
    for (int s = 0; s < 3; s++) {
        mb_scope scope = mb_scope_begin(ctx);
        mb_tensor x = mb_normal(ctx, mb_key_of((uint64_t)s), MB_FLOAT32, MB_SHAPE(IMAGES, TOKENS, 8));
        mb_tensor y = mb_cross_entropy(mb_vit_apply(vit, x, MB_NO_KEY, NULL),
                                       mb_from(ctx, MB_INT32, MB_SHAPE(IMAGES), labels));
        mb_step(o, y);
        loss[s] = mb_item(y);
        mb_scope_end(scope);
        mb_stats t = mb_get_stats(ctx);
        parts = t.last_slices;
        *bytes = t.last_arena_bytes;
        expect(s < 2 || t.plans_cached == t.plans, "%s: planned again", models[m].name);
    }
    expect_ok(ctx);
    mb_optimizer_free(o);
    mb_params_free(p);
    return parts;
}

/* An eighth of the arena is the goal; float32, so that the losses of the third step differ by rounding. */
Test(slices, training_steps_of_models)
{
    for (int b = is_slow(); b < 2; b++)
        for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
            double want[3], got[3], again[3];
            uint64_t whole, cut;
            char goal[32];
            mb_context *ctx = open_for(backend_names[b], NULL, 1);
            train(ctx, m, want, &whole);
            close_all();
            snprintf(goal, sizeof goal, "%d", (int)whole / 3);
            ctx = open_for(backend_names[b], goal, 1);
            uint64_t parts = train(ctx, m, got, &cut);
            if (has_loops(ctx))
                expect(parts > 2 && parts <= IMAGES && cut < whole / 2, "%s: %d slices, %d bytes, whole %d",
                       models[m].name, (int)parts, (int)cut, (int)whole);
            close_all();
            ctx = open_for(backend_names[b], goal, 2);
            train(ctx, m, again, &cut);
            close_all();
            for (int s = 0; s < 3; s++) {
                expect(fabs(got[s] - want[s]) < 1e-5 * want[s], "%s, step %d: %.9g, not %.9g", models[m].name,
                       s, got[s], want[s]);
                expect(got[s] == again[s], "%s: two threads make another loss", models[m].name);
            }
        }
}

/* ---- what is not sliced ---- */

/* What is divided by a sum over the batch, and a scan along it. */
Test(slices, what_depends_on_the_whole_batch_is_computed_after_it)
{
    mb_context *whole = open_for("cpu", NULL, 1), *cut = open_for("cpu", "1", 1), *both[2] = {whole, cut};
    mb_tensor y[2], z[2];
    for (int k = 0; k < 2; k++) {
        rng r = {3};
        mb_tensor x = draw(both[k], &r, MB_FLOAT64, MB_SHAPE(8, 5), -1, 1);
        mb_tensor e = mb_exp(x);
        y[k] = mb_div(e, mb_sum(e, MB_KEEP(0)));
        mb_eval(&y[k], 1);
        expect(k == 0 || !has_loops(cut) || slices(cut) == 8, "%d slices", (int)slices(both[k]));
        mb_scan s = mb_scan_begin(both[k], 8);
        z[k] = mb_zeros(both[k], MB_FLOAT64, MB_SHAPE(5));
        mb_scan_carry(s, &z[k]);
        z[k] = mb_add(mb_mul(z[k], 0.5), mb_scan_slice(s, mb_sin(x)));
        mb_scan_end(s);
        mb_eval(&z[k], 1);
    }
    expect_equal("softmax over the batch", "the result", y[1], y[0]);
    expect_equal("scan", "the result", z[1], z[0]);
    close_all();
}

/* Below the goal a flush runs whole; so it does without the pass. */
Test(slices, only_where_they_are_needed)
{
    static const struct {
        const char *bytes, *disable;
        bool sliced;
    } cases[] = {
        {"100000000", "", false}, {"20000", "", true}, {"20000", "slices", false}, {"20000", "loops", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setenv("MB_ARENA_BYTES", cases[i].bytes, 1);
        mb_context *ctx = open_as("cpu", cases[i].disable, 1);
        unsetenv("MB_ARENA_BYTES");
        mb_stats sums;
        compute(ctx, products, &sums);
        expect(!has_loops(ctx) || (sums.last_slices > 1) == cases[i].sliced,
               "%s bytes without \"%s\": %d slices", cases[i].bytes, cases[i].disable, (int)sums.last_slices);
        close_all();
    }
}

/* ---- without a goal ---- */

/* What backends.h says. */
static const uint64_t most_bytes = (uint64_t)300 << 20;

typedef mb_tensor gradient(mb_context *ctx);

/* Of zeros, or of random numbers. */
static mb_tensor input(mb_context *ctx, mb_shape shape, uint64_t seed)
{
    mb_tensor x =
        seed ? mb_normal(ctx, mb_key_of(seed), MB_FLOAT32, shape) : mb_zeros(ctx, MB_FLOAT32, shape);
    mb_eval(&x, 1);
    return x;
}

/* Of layers, each of whose results is 67 MB, as many FLOPs as 33 million times the width. */
static mb_tensor layers_of(mb_context *ctx, int count, int64_t width, uint64_t seed)
{
    mb_tensor w = input(ctx, MB_SHAPE(width, width), seed);
    mb_tensor y = input(ctx, MB_SHAPE(64, ((int64_t)1 << 18) / width, width), 2 * seed), g;
    for (int i = 0; i < count; i++)
        y = mb_tanh(mb_mul(mb_matmul(y, w), 0.2));
    mb_grad(mb_mean(mb_square(y), MB_ALL), &w, 1, &g);
    return g;
}
static mb_tensor layers(mb_context *ctx)
{
    return layers_of(ctx, 6, 64, 0);
}
static mb_tensor many_layers(mb_context *ctx)
{
    return layers_of(ctx, 60, 2, 0);
}

/* Of a scan over 8192 tokens, whose 400 MB are carries of 128 KB; a token's products are of 2 MFLOP. */
static mb_tensor tokens(mb_context *ctx)
{
    enum { COUNT = 8192, ENTRIES = 64, STATE = 128 };
    mb_tensor w = input(ctx, MB_SHAPE(STATE, STATE), 0), x = input(ctx, MB_SHAPE(ENTRIES, COUNT, 1), 0);
    mb_tensor h = input(ctx, MB_SHAPE(ENTRIES, STATE), 0), y, g;
    mb_scan s = mb_scan_begin(ctx, COUNT);
    mb_scan_carry(s, &h);
    h = mb_tanh(mb_add(mb_matmul(h, w), mb_scan_slice(s, mb_permute(x, MB_AXES(1, 0, 2)))));
    mb_scan_stack(s, h, &y);
    mb_scan_end(s);
    mb_grad(mb_mean(mb_square(y), MB_ALL), &w, 1, &g);
    return g;
}

/* Nothing is computed. 0: the default. */
static uint64_t planned_bytes(const char *backend, size_t arena_bytes, gradient *of)
{
    mb_context *ctx = mb_open_with(&(mb_options){.backend = backend, .arena_bytes = arena_bytes});
    mb_tensor g = of(ctx);
    mb_costs c;
    expect(mb_forecast(ctx, &g, 1, &c) == MB_OK, "%s", mb_message(ctx));
    mb_close(ctx);
    return c.loop_bytes + c.temporary_bytes;
}

Test(slices, large_steps_run_in_slices_unasked)
{
    const uint64_t asked = (uint64_t)100 << 20;
    bool loops = has_loops(open_on("cpu"));
    close_all();
    if (!loops)
        return;
    uint64_t whole = planned_bytes("cpu", SIZE_MAX, layers), cut = planned_bytes("cpu", 0, layers);
    expect(whole > most_bytes && cut <= most_bytes && cut > asked, "layers: %llu and %llu bytes",
           (unsigned long long)whole, (unsigned long long)cut);
    expect(planned_bytes("cpu", asked, layers) <= asked, "layers: a goal is not kept to");
    whole = planned_bytes("reference", SIZE_MAX, layers), cut = planned_bytes("reference", 0, layers);
    expect(whole > most_bytes && cut == whole, "reference: %llu and %llu bytes", (unsigned long long)whole,
           (unsigned long long)cut);
    whole = planned_bytes("cpu", SIZE_MAX, tokens), cut = planned_bytes("cpu", 0, tokens);
    expect(whole > most_bytes && cut == whole, "tokens: %llu and %llu bytes", (unsigned long long)whole,
           (unsigned long long)cut);
    expect(planned_bytes("cpu", asked, tokens) <= asked, "tokens: a goal is not kept to");
    whole = planned_bytes("cpu", SIZE_MAX, many_layers), cut = planned_bytes("cpu", 0, many_layers);
    expect(whole > 10 * most_bytes && cut < whole / 3 && cut > most_bytes, "many layers: %llu and %llu bytes",
           (unsigned long long)whole, (unsigned long long)cut);
}

/* Gradients of a sum, off by roundings of float32 in sums of 262144. */
Test(slices, unasked_slices_have_the_same_gradients)
{
    mb_tensor g[2];
    double most = 0;
    if (!testing("cpu"))
        return;
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_for("cpu", k ? NULL : "1000000000000", 2);
        g[k] = layers_of(ctx, 6, 64, 1);
        mb_eval(&g[k], 1);
        expect(!has_loops(ctx) || (slices(ctx) > 1) == (k == 1), "%d slices", (int)slices(ctx));
    }
    const double *whole = values(g[0]), *cut = values(g[1]);
    for (int i = 0; i < 64 * 64; i++)
        most = fmax(most, fabs(whole[i]));
    for (int i = 0; i < 64 * 64; i++)
        expect(fabs(cut[i] - whole[i]) <= 1e-5 * most, "%d: %g, not %g", i, cut[i], whole[i]);
    close_all();
}

Test(slices, goals_that_are_no_numbers_are_told)
{
    static const char *const texts[] = {"12x", "-1", "many", "99999999999999999999999", " 5"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        setenv("MB_ARENA_BYTES", texts[i], 1);
        mb_context *ctx = mb_open("cpu");
        unsetenv("MB_ARENA_BYTES");
        expect(mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), "MB_ARENA_BYTES"), "%s: %s", texts[i],
               mb_message(ctx));
        mb_close(ctx);
    }
}
