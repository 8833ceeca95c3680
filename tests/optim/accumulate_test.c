/* SPDX-License-Identifier: MIT
 *
 * accumulate_test.c - a step whose gradients are a sum over parts of a batch is the batch's step: with
 * clipping, decay, skipped steps and frozen parameters; in one flush or in many. */
#include <unistd.h>

#include "support.h"

/* (w x + b - y)^2, w [3] over 12 examples in parts of 5, 4 and 3. */
enum { IN = 3, EXAMPLES = 12, PARTS = 3, STEPS = 5 };
static const int begins[PARTS + 1] = {0, 5, 9, EXAMPLES};

typedef struct model {
    mb_context *mb;
    mb_params *p;
    mb_tensor w, b;
    mb_optimizer *opt;
} model;

typedef struct kind {
    const char *name;
    bool adam;
    double momentum, decay, clip_norm, clip_value;
    bool skip;
} kind;

static const kind kinds[] = {
    {"sgd", .adam = false},
    {"momentum, clipped norm", .momentum = 0.9, .clip_norm = 0.4},
    {"sgd, clipped values, decay", .clip_value = 0.3, .decay = 0.1},
    {"adamw, clipped norm", .adam = true, .clip_norm = 0.4, .decay = 0.1},
    {"adamw, skip, clipped norm", .adam = true, .clip_norm = 0.4, .skip = true},
};

static model open_model(const char *backend, const kind *k)
{
    model m = {.mb = open_on(backend)};
    m.p = mb_params_new_with(m.mb, 3, MB_FLOAT64);
    m.w = mb_param(m.p, "w", MB_SHAPE(IN, 1), mb_init_normal(1));
    m.b = mb_param_no_decay(m.p, "b", MB_SHAPE0, mb_init_normal(1));
    m.opt = k->adam ? mb_adamw(m.p, (mb_adamw_options){.lr = 0.05,
                                                       .weight_decay = k->decay,
                                                       .clip_norm = k->clip_norm,
                                                       .clip_value = k->clip_value,
                                                       .skip = k->skip})
                    : mb_sgd(m.p, (mb_sgd_options){.lr = 0.05,
                                                   .momentum = k->momentum,
                                                   .weight_decay = k->decay,
                                                   .clip_norm = k->clip_norm,
                                                   .clip_value = k->clip_value,
                                                   .skip = k->skip});
    return m;
}

static void close_model(model *m)
{
    mb_optimizer_free(m->opt);
    mb_params_free(m->p);
    close_all();
}

/* Of examples first to last - 1 of a step, as their share of the mean over all. */
static mb_tensor loss_of(const model *m, int step, int first, int last)
{
    double x[EXAMPLES * IN], y[EXAMPLES];
    for (int i = 0; i < EXAMPLES; i++) {
        for (int j = 0; j < IN; j++)
            x[i * IN + j] = sin(1.7 * i + 2.3 * j + 0.9 * step);
        y[i] = cos(0.8 * i + step);
    }
    mb_tensor xs = mb_from(m->mb, MB_FLOAT64, MB_SHAPE(last - first, IN), x + (ptrdiff_t)first * IN);
    mb_tensor ys = mb_from(m->mb, MB_FLOAT64, MB_SHAPE(last - first, 1), y + first);
    mb_tensor error = mb_sub(mb_add(mb_matmul(xs, m->w), m->b), ys);
    return mb_mul(mb_sum(mb_square(error), MB_ALL), 1.0 / EXAMPLES);
}

/* One step in parts, each in a scope of its own or all in one; returns the norm. */
static double step_in_parts(model *m, int step, bool one_scope, double factor)
{
    double read = 0;
    mb_scope outer = one_scope ? mb_scope_begin(m->mb) : (mb_scope){0};
    for (int i = 0; i < PARTS; i++) {
        mb_scope scope = one_scope ? outer : mb_scope_begin(m->mb);
        mb_tensor norm, loss = loss_of(m, step, begins[i], begins[i + 1]);
        if (i == 1)
            loss = mb_mul(loss, mb_scalar(m->mb, MB_FLOAT64, factor));
        if (i + 1 < PARTS) {
            expect(mb_accumulate(m->opt, loss) == MB_OK, "%s", mb_message(m->mb));
        } else {
            expect(mb_step_norm(m->opt, loss, &norm) == MB_OK, "%s", mb_message(m->mb));
            mb_watch(norm, &read, sizeof read);
        }
        if (!one_scope || i + 1 == PARTS)
            mb_scope_end(scope);
    }
    return read;
}

static double step_at_once(model *m, int step)
{
    double read = 0;
    mb_scope scope = mb_scope_begin(m->mb);
    mb_tensor norm;
    mb_step_norm(m->opt, loss_of(m, step, 0, EXAMPLES), &norm);
    mb_watch(norm, &read, sizeof read);
    mb_scope_end(scope);
    return read;
}

static void values_of(const model *m, double out[IN + 1])
{
    memcpy(out, values(m->w), IN * sizeof *out);
    memcpy(out + IN, values(m->b), sizeof *out);
}

/* Sums in another order: some 30 additions of numbers near 1 in double are within 1e-14, and Adam divides by
 * roots of second moments that are not small here. */
static void expect_near(const char *what, const double *got, const double *wanted)
{
    for (int i = 0; i <= IN; i++)
        expect(fabs(got[i] - wanted[i]) < 1e-12, "%s: value %d is %.17g, not %.17g", what, i, got[i],
               wanted[i]);
}

Test(accumulate, parts_are_the_whole)
{
    for (int b = 0; b < 2; b++)
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
            for (int one_scope = 0; one_scope < 2; one_scope++) {
                double got[IN + 1], wanted[IN + 1], norms[2][STEPS];
                mb_stats before = {0};
                model m = open_model(backend_names[b], &kinds[k]);
                for (int step = 0; step < STEPS; step++) {
                    norms[0][step] = step_in_parts(&m, step, one_scope, 1);
                    mb_stats now = mb_get_stats(m.mb);
                    expect(step < 2 || now.plans == before.plans, "%s: step %d made a plan", kinds[k].name,
                           step);
                    before = now;
                }
                expect(mb_optimizer_steps(m.opt) == STEPS, "%lld steps",
                       (long long)mb_optimizer_steps(m.opt));
                values_of(&m, got);
                close_model(&m);

                m = open_model(backend_names[b], &kinds[k]);
                for (int step = 0; step < STEPS; step++)
                    norms[1][step] = step_at_once(&m, step);
                values_of(&m, wanted);
                close_model(&m);
                expect_near(kinds[k].name, got, wanted);
                for (int step = 0; step < STEPS; step++)
                    expect(fabs(norms[0][step] - norms[1][step]) < 1e-12, "%s: norm %g of step %d, not %g",
                           kinds[k].name, norms[0][step], step, norms[1][step]);
            }
}

/* A part that is not finite skips the whole step, and the next one knows nothing of it. */
Test(accumulate, a_part_that_is_not_finite_skips_the_step)
{
    static const double factors[STEPS] = {1, NAN, 1, INFINITY, 1};
    const kind *k = &kinds[4];
    for (int b = 0; b < 2; b++) {
        double got[IN + 1], wanted[IN + 1];
        model m = open_model(backend_names[b], k);
        for (int step = 0; step < STEPS; step++) {
            double norm = step_in_parts(&m, step, false, factors[step]);
            expect(isfinite(norm) == isfinite(factors[step]), "step %d: a norm of %g", step, norm);
        }
        expect(mb_optimizer_skipped(m.opt) == 2, "%lld skipped", (long long)mb_optimizer_skipped(m.opt));
        values_of(&m, got);
        close_model(&m);
        m = open_model(backend_names[b], k);
        for (int step = 0; step < STEPS; step += 2)
            step_at_once(&m, step);
        values_of(&m, wanted);
        close_model(&m);
        expect_near(k->name, got, wanted);
    }
}

/* Frozen between the parts, a parameter stays, and its sum is not that of a later step. */
Test(accumulate, frozen_parameters)
{
    model m = open_model(backend_names[0], &kinds[0]), whole;
    double start[IN + 1], got[IN + 1], wanted[IN + 1];
    values_of(&m, start);
    mb_accumulate(m.opt, loss_of(&m, 0, 0, 5));
    mb_params_freeze(m.p, "w");
    mb_scope scope = mb_scope_begin(m.mb);
    mb_step(m.opt, loss_of(&m, 0, 5, EXAMPLES));
    mb_scope_end(scope);
    values_of(&m, got);
    expect(same_bits(start, got, IN) && got[IN] != start[IN],
           "a frozen parameter has moved, or the other not");
    mb_params_unfreeze(m.p, "w");
    step_at_once(&m, 1);
    values_of(&m, got);
    close_model(&m);

    whole = open_model(backend_names[0], &kinds[0]);
    mb_params_freeze(whole.p, "w");
    step_at_once(&whole, 0);
    mb_params_unfreeze(whole.p, "w");
    step_at_once(&whole, 1);
    values_of(&whole, wanted);
    close_model(&whole);
    expect_near("frozen in between", got, wanted);
}

/* A load begins anew: what was accumulated before it is of other parameters. */
Test(accumulate, files_have_no_sums)
{
    char path[] = "/tmp/moebius-accumulate-XXXXXX";
    close(mkstemp(path));
    double got[IN + 1], wanted[IN + 1];
    model m = open_model(backend_names[1], &kinds[1]);
    step_at_once(&m, 0);
    expect(mb_optimizer_save(m.opt, path) == MB_OK, "%s", mb_message(m.mb));
    step_at_once(&m, 1);
    values_of(&m, wanted);
    expect(mb_accumulate(m.opt, loss_of(&m, 7, 0, 5)) == MB_OK, "%s", mb_message(m.mb));
    expect(mb_optimizer_load(m.opt, path) == MB_OK, "%s", mb_message(m.mb));
    step_at_once(&m, 1);
    values_of(&m, got);
    expect(same_bits(got, wanted, IN + 1), "a sum from before the load is in the step");
    close_model(&m);
    unlink(path);
}

Test(accumulate, mistakes)
{
    model m = open_model(backend_names[1], &kinds[0]);
    double got[IN + 1], wanted[IN + 1];
    mb_accumulate(m.opt, loss_of(&m, 0, 0, 5));
    mb_tensor unfed = mb_scalar(m.mb, MB_FLOAT64, 1);
    expect(mb_accumulate(m.opt, unfed) == MB_INVALID && strstr(mb_message(m.mb), "mb_accumulate: the loss"),
           "a loss of no parameter: %s", mb_message(m.mb));
    mb_clear_error(m.mb);
    expect(mb_accumulate(m.opt, (mb_tensor){0}) == MB_INVALID, "no loss");
    mb_clear_error(m.mb);
    expect(mb_accumulate(NULL, unfed) == MB_NO_MEMORY, "no optimiser");
    mb_scope scope = mb_scope_begin(m.mb);
    expect(mb_step(m.opt, loss_of(&m, 0, 5, EXAMPLES)) == MB_OK, "%s", mb_message(m.mb));
    mb_scope_end(scope);
    values_of(&m, got);
    close_model(&m);
    m = open_model(backend_names[1], &kinds[0]);
    step_at_once(&m, 0);
    values_of(&m, wanted);
    expect_near("after a refused loss", got, wanted);
    close_model(&m);
}

/* Gradients that the caller has made are added to the sums as well. */
Test(accumulate, given_gradients)
{
    model m = open_model(backend_names[1], &kinds[3]);
    double got[IN + 1], wanted[IN + 1];
    mb_scope scope = mb_scope_begin(m.mb);
    mb_tensor xs[2], gs[2];
    mb_params_list(m.p, xs, 2);
    mb_grad(loss_of(&m, 0, 5, EXAMPLES), xs, 2, gs);
    mb_accumulate(m.opt, loss_of(&m, 0, 0, 5));
    expect(mb_apply_gradients(m.opt, gs, 2) == MB_OK, "%s", mb_message(m.mb));
    mb_scope_end(scope);
    values_of(&m, got);
    close_model(&m);
    m = open_model(backend_names[1], &kinds[3]);
    step_at_once(&m, 0);
    values_of(&m, wanted);
    expect_near("given gradients", got, wanted);
    close_model(&m);
}
