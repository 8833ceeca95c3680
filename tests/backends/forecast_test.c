/* SPDX-License-Identifier: MIT
 *
 * forecast_test.c - mb_forecast against what its flush then takes, by the allocator's count: models of every
 * kind, in a scope, with scans and checkpoints; and against sums made by hand. */
#include "support.h"

/* ---- the models of tests/bench/steps, small ---- */

enum { TOKENS = 16, VALUES = 16, DIM = 32, BATCH = 8, CLASSES = 10, PROMPTS = 400 };

typedef struct model {
    const char *name;
    mb_mixer_kind mixer;
    mb_learner_kind learner;
    int inner_steps;
    mb_switch scan;
    int64_t keep;
    bool checkpoint;
} model;

static const model models[] = {
    {"mttt-linear", MB_MIXER_TTT, MB_LEARNER_LINEAR, 1, MB_OFF, 0, false},
    {"mttt-mlp", MB_MIXER_TTT, MB_LEARNER_MLP, 1, MB_OFF, 0, false},
    {"mttt-mlp in scans", MB_MIXER_TTT, MB_LEARNER_MLP, 6, MB_ON, 0, false},
    {"mttt-mlp in divided scans", MB_MIXER_TTT, MB_LEARNER_MLP, 6, MB_ON, MB_KEEP_SQRT, false},
    {"mttt-mlp in checkpoints", MB_MIXER_TTT, MB_LEARNER_MLP, 2, MB_OFF, 0, true},
    {"linear attention", MB_MIXER_LINEAR, MB_LEARNER_LINEAR, 0, MB_OFF, 0, false},
    {"softmax attention", MB_MIXER_SOFTMAX, MB_LEARNER_LINEAR, 0, MB_OFF, 0, false},
};

typedef struct trainer {
    mb_context *ctx;
    counter memory;
    mb_params *params;
    mb_optimizer *optimizer;
    mb_vit *vit;
    mb_tensor x, y, P;
} trainer;

static void open_trainer(trainer *t, const char *backend)
{
    *t = (trainer){0};
    mb_allocator allocator = counting_allocator(&t->memory);
    t->ctx =
        mb_open_with(&(mb_options){.backend = backend, .disable = "", .threads = 1, .allocator = &allocator});
    t->params = mb_params_new(t->ctx, 1);
}

static void make_vit(trainer *t, const model *m)
{
    mb_mixer_options mixer = {.kind = m->mixer, .heads = 2};
    mixer.ttt = (mb_ttt_options){
        .learner = m->learner, .inner_steps = m->inner_steps, .scan = m->scan, .keep_every = m->keep};
    t->vit = mb_vit_new(t->params, "",
                        (mb_vit_options){.tokens = TOKENS,
                                         .patch_values = VALUES,
                                         .dim = DIM,
                                         .depth = 2,
                                         .classes = CLASSES,
                                         .mixer = mixer,
                                         .checkpoint = m->checkpoint});
    int32_t labels[BATCH] = {1, 2, 3};
    t->x = mb_normal(t->ctx, mb_key_of(1), MB_FLOAT32, MB_SHAPE(BATCH, TOKENS, VALUES));
    t->y = mb_from(t->ctx, MB_INT32, MB_SHAPE(BATCH), labels);
    t->optimizer = mb_adamw(t->params, (mb_adamw_options){.lr = 1e-3, .clip_norm = 1});
    mb_eval(&t->x, 1);
}

/* Regression in context, on fresh prompts each step. */
static void make_icl(trainer *t)
{
    t->P = mb_param(t->params, "P", MB_SHAPE(5, 5), mb_init_normal(0.05));
    t->optimizer = mb_adam(t->params, (mb_adam_options){.lr = 0.02});
    mb_eval(&t->P, 1);
}

static mb_tensor loss_of(const trainer *t, int step)
{
    if (t->vit)
        return mb_cross_entropy(mb_vit_apply(t->vit, t->x, MB_NO_KEY, NULL), t->y);
    mb_key key = mb_key_fold(mb_key_of(3), (uint64_t)step);
    mb_tensor x = mb_normal(t->ctx, mb_key_fold(key, 0), MB_FLOAT32, MB_SHAPE(PROMPTS, 20, 5));
    mb_tensor w = mb_normal(t->ctx, mb_key_fold(key, 1), MB_FLOAT32, MB_SHAPE(PROMPTS, 5, 1));
    mb_tensor y = mb_matmul(x, w), seen = mb_matmul(mb_transpose(x), y);
    return mb_mean(mb_square(mb_sub(mb_matmul(x, mb_matmul(t->P, seen)), y)), MB_ALL);
}

static uint64_t sum_of(const mb_costs *c)
{
    return c->variable_bytes + c->input_bytes + c->live_bytes + c->result_bytes + c->loop_bytes +
           c->temporary_bytes + c->other_bytes;
}

/* What a step's flush held at most, from its recorded state on. */
static void step(trainer *t, const char *what, int number)
{
    float seen = 0;
    mb_costs c;
    mb_scope scope = mb_scope_begin(t->ctx);
    mb_tensor loss = loss_of(t, number);
    mb_step(t->optimizer, loss);
    mb_watch(loss, &seen, sizeof seen);
    mb_stats before = mb_get_stats(t->ctx);
    expect(mb_forecast(t->ctx, NULL, 0, &c) == MB_OK, "%s: %s", what, mb_message(t->ctx));
    mb_stats planned = mb_get_stats(t->ctx);
    expect(planned.flushes == before.flushes && seen == 0, "%s: the forecast computed", what);
    t->memory.peak = t->memory.bytes;
    mb_scope_end(scope);
    mb_stats after = mb_get_stats(t->ctx);
    expect_ok(t->ctx);
    double held = after.device_bytes ? (double)after.device_bytes : (double)t->memory.peak;
    expect(fabs((double)c.peak_bytes - held) < 0.05 * held, "%s, step %d: %.0f bytes foretold, %.0f held",
           what, number, (double)c.peak_bytes, held);
    expect(sum_of(&c) == c.peak_bytes && c.held_bytes <= c.peak_bytes, "%s: the parts are not the whole",
           what);
    expect(after.plans == planned.plans && after.plan_hits == planned.plan_hits + 1 && seen > 0,
           "%s: planned again", what);
    expect(c.nodes == after.last_nodes && c.flops == after.last_flops && c.steps >= after.last_steps &&
               c.loop_bytes + c.temporary_bytes == after.last_arena_bytes,
           "%s: nodes, flops, steps or arena differ", what);
    expect((c.plan_seconds > 0) == (planned.plans > before.plans), "%s: %g seconds of planning", what,
           c.plan_seconds);
}

static void close_trainer(trainer *t)
{
    mb_optimizer_free(t->optimizer); /* NULL is allowed */
    mb_params_free(t->params);
    mb_close(t->ctx);
    expect(t->memory.blocks == 0, "%lld blocks left", (long long)t->memory.blocks);
}

Test(forecast, is_what_training_steps_take)
{
    for (int b = is_slow(); b < 2; b++)
        for (size_t i = 0; i <= sizeof models / sizeof *models; i++) {
            trainer t;
            bool icl = i == sizeof models / sizeof *models;
            open_trainer(&t, backend_names[b]);
            if (icl)
                make_icl(&t);
            else
                make_vit(&t, &models[i]);
            for (int s = 0; s < 3; s++)
                step(&t, icl ? "icl" : models[i].name, s);
            close_trainer(&t);
        }
}

/* ---- by hand ---- */

enum { WIDTH = 1000 };

/* Of the gradient of sum(w_T) by w_0, with w <- sin(w) T times. */
static mb_costs of_scan(const char *backend, int64_t steps, int64_t keep)
{
    mb_context *ctx = open_on(backend);
    double start[WIDTH] = {0.5};
    mb_tensor w0 = mb_from(ctx, MB_FLOAT64, MB_SHAPE(WIDTH), start), w = w0, g;
    mb_scan s = mb_scan_begin_with(ctx, steps, (mb_scan_options){.keep_every = keep});
    mb_scan_carry(s, &w);
    w = mb_sin(w);
    mb_scan_end(s);
    mb_grad(mb_sum(w, MB_ALL), &w0, 1, &g);
    mb_costs c = {0};
    expect(mb_forecast(ctx, &g, 1, &c) == MB_OK, "%s", mb_message(ctx));
    expect(c.input_bytes >= sizeof start && c.input_bytes < sizeof start * 9 / 8 && c.live_bytes == 0 &&
               c.variable_bytes == 0,
           "%llu bytes of input", (unsigned long long)c.input_bytes);
    expect(c.result_bytes >= sizeof start && c.result_bytes < sizeof start * 9 / 8, "%llu bytes of result",
           (unsigned long long)c.result_bytes);
    close_all();
    return c;
}

/* A gradient reads the carries at the beginning of each step; with keep_every k those of every k-th step, and
 * k at a time. */
Test(forecast, counts_carries_kept_by_loops)
{
    const double carry = WIDTH * sizeof(double);
    for (int b = 0; b < 2; b++) {
        uint64_t last = 0, more = 0;
        for (int64_t steps = 100; steps <= 300; steps += 100) {
            mb_costs c = of_scan(backend_names[b], steps, 0);
            double kept = (double)c.loop_bytes / carry;
            expect(kept >= (double)steps && kept <= (double)steps + 2, "%s: %g carries of %d kept",
                   backend_names[b], kept, (int)steps);
            expect(!more || c.steps - last == more, "%s: %d steps more", backend_names[b],
                   (int)(c.steps - last));
            more = last ? c.steps - last : 0;
            last = c.steps;
        }
        expect(more >= 200, "100 steps forwards and 100 back are %d", (int)more);
        mb_costs c = of_scan(backend_names[b], 100, 10);
        double kept = (double)c.loop_bytes / carry;
        expect(kept >= 20 && kept <= 24, "%s: %g carries kept with every 10th of 100", backend_names[b],
               kept);
    }
}

Test(forecast, knows_values_and_changes_nothing)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor v = mb_variable(ctx, MB_FLOAT32, MB_SHAPE(4096)), x = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(4096));
    mb_costs c;
    expect(mb_forecast(ctx, NULL, 0, &c) == MB_OK && c.nodes == 0 && c.peak_bytes == c.held_bytes, "nothing");
    mb_assign(v, x);
    expect(mb_forecast(ctx, NULL, 0, &c) == MB_OK && c.nodes && !c.variable_bytes && c.result_bytes == 16384,
           "an assignment: %llu", (unsigned long long)c.result_bytes);
    expect(values(v)[7] == 1, "it is lost");
    expect(mb_forecast(ctx, &v, 1, &c) == MB_OK && c.nodes == 0 && c.variable_bytes == 16384 && !c.live_bytes,
           "a variable's value");
    mb_tensor y = mb_mul(v, 2.0), other = mb_from(ctx, MB_FLOAT32, MB_SHAPE(2), (float[]){1, 2});
    expect(mb_forecast(ctx, &y, 1, &c) == MB_OK && c.variable_bytes == 16384 && c.input_bytes == 0 &&
               c.live_bytes == 256,
           "%llu bytes live", (unsigned long long)c.live_bytes);
    expect(values(y)[3] == 2 && values(other)[1] == 2, "values");
    close_all();
}

/* Of device memory the blocks grow. */
Test(forecast, foresees_new_memory)
{
    enum { MANY = 12 << 20 };
    for (int b = 0; b < 2; b++) {
        trainer t;
        mb_costs c;
        open_trainer(&t, backend_names[b]);
        mb_tensor x = mb_zeros(t.ctx, MB_FLOAT32, MB_SHAPE(1, MANY)), y[2];
        y[0] = mb_add(mb_cumsum(mb_add(x, 1.0), 1, false), 1.0);
        y[1] = mb_sub(mb_cumsum(y[0], 1, false), y[0]);
        expect(mb_forecast(t.ctx, y, 2, &c) == MB_OK, "%s", mb_message(t.ctx));
        t.memory.peak = t.memory.bytes;
        mb_eval(y, 2);
        expect_ok(t.ctx);
        mb_stats s = mb_get_stats(t.ctx);
        double held = s.device_bytes ? (double)s.device_bytes : (double)t.memory.peak;
        expect(fabs((double)c.peak_bytes - held) < 1e-3 * held && held > 3.0 * MANY * sizeof(float),
               "%s: %.0f bytes foretold, %.0f held", backend_names[b], (double)c.peak_bytes, held);
        close_trainer(&t);
    }
}

/* ---- errors ---- */

static void expect_refused(mb_context *ctx, mb_status status, const char *words, const mb_costs *c)
{
    expect(status == MB_INVALID && strstr(mb_message(ctx), words), "status %d: %s", (int)status,
           mb_message(ctx));
    expect(c->peak_bytes == 0, "costs after an error");
    mb_clear_error(ctx);
}

Test(forecast, refuses_in_one_sentence)
{
    mb_context *ctx = open_on("cpu"), *other = open_on("reference");
    mb_tensor x = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(3)), far = mb_ones(other, MB_FLOAT32, MB_SHAPE(3));
    mb_costs c = {.peak_bytes = 1};
    mb_status status = mb_forecast(ctx, (mb_tensor[]){x, far}, 2, &c);
    expect_refused(ctx, status, "number 2 of 2 belongs to another context", &c);
    status = mb_forecast(ctx, &(mb_tensor){0}, 1, &c);
    expect_refused(ctx, status, "number 1 of 1 is not a tensor", &c);
    status = mb_forecast(ctx, NULL, 3, &c);
    expect_refused(ctx, status, "got 3 tensors at NULL", &c);
    status = mb_forecast(ctx, &x, 1, NULL);
    expect_refused(ctx, status, "NULL for the costs", &c);
    mb_scan s = mb_scan_begin(ctx, 3);
    mb_tensor w = x;
    mb_scan_carry(s, &w);
    mb_tensor inside = mb_mul(w, 2.0);
    status = mb_forecast(ctx, &inside, 1, &c);
    expect_refused(ctx, status, "inside of a scan", &c);
    expect(mb_forecast(NULL, NULL, 0, &c) == MB_INVALID, "no context");
    close_failed(ctx);
    close_all();
}

/* Every allocation of a forecast fails in turn: an error or a forecast, and nothing is lost. */
Test(forecast, survives_failing_allocations)
{
    for (uint64_t n = 1;; n++) {
        trainer t;
        open_trainer(&t, "reference");
        t.P = mb_variable(t.ctx, MB_FLOAT64, MB_SHAPE(40));
        mb_tensor y = mb_sum(mb_square(mb_add(t.P, 3.0)), MB_ALL);
        mb_costs c;
        t.memory.fail_at = t.memory.calls + n;
        mb_status status = mb_forecast(t.ctx, &y, 1, &c);
        bool failed = t.memory.calls >= t.memory.fail_at;
        t.memory.fail_at = 0;
        expect(status == MB_OK || (status == MB_NO_MEMORY && !c.peak_bytes), "%d: status %d", (int)n,
               (int)status);
        if (status != MB_OK)
            mb_clear_error(t.ctx);
        else
            expect(mb_item(y) == 360, "%d: another value", (int)n);
        close_trainer(&t);
        if (!failed)
            break;
    }
    close_all();
}
