/* SPDX-License-Identifier: MIT
 *
 * cross_entropy_test.c - the loss under all its options, and its gradient, against plain loops; labels that
 * no class has; MB_DEBUG's word on those and on indices out of range. */
#include "support.h"

enum { ROWS = 6, C = 4 };

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

/* losses: of each row. slopes: the derivative of row r's loss by logit c. -> what the mean divides by. */
static double plain(const double *x, const double *labels, const double *w, double smoothing, int ignored,
                    double *losses, double *slopes)
{
    double divisor = 0;
    for (int r = 0; r < ROWS; r++) {
        double sum = 0, target[C], all = 0;
        int label = (int)labels[r];
        losses[r] = 0;
        for (int c = 0; c < C; c++) {
            sum += exp(x[r * C + c]);
            target[c] = label == ignored ? 0 : w[c] * ((1 - smoothing) * (c == label) + smoothing / C);
            all += target[c];
        }
        for (int c = 0; c < C; c++) {
            losses[r] -= target[c] * (x[r * C + c] - log(sum));
            slopes[r * C + c] = all * exp(x[r * C + c]) / sum - target[c];
        }
        divisor += label == ignored ? 0 : w[label];
    }
    return divisor;
}

static void against_loops(mb_context *ctx, bool ignore, bool weighted, double smoothing)
{
    static const double some[C] = {0.5, 2, 0, 1.25}, ones[C] = {1, 1, 1, 1};
    rng r = {7};
    mb_tensor x = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(2, 3, C), -3, 3), g;
    const double chosen[ROWS] = {0, 3, ignore ? -100 : 2, 1, ignore ? -100 : 1, 3};
    mb_tensor labels = from_doubles(ctx, MB_INT32, MB_SHAPE(2, 3), chosen);
    mb_cross_entropy_options o = {.ignore = ignore, .ignored = -100, .smoothing = smoothing};
    if (weighted)
        o.weights = mb_from(ctx, MB_FLOAT64, MB_SHAPE(C), some);
    double losses[ROWS], slopes[ROWS * C], total = 0;
    double divisor = plain(values(x), chosen, weighted ? some : ones, smoothing, -100, losses, slopes);
    mb_tensor mean = mb_cross_entropy_with(x, labels, o);
    o.each_row = true;
    mb_tensor each = mb_cross_entropy_with(x, labels, o);
    expect(same_shape(mb_shape_of(each), MB_SHAPE(2, 3)), "a loss for each row: %s",
           shape_text(mb_shape_of(each)));
    const double *got = values(each);
    for (int i = 0; i < ROWS; i++) {
        total += losses[i];
        expect(near(got[i], losses[i], 1e-14, 1e-14), "row %d: %.17g, not %.17g", i, got[i], losses[i]);
    }
    expect(near(mb_item(mean), total / divisor, 1e-14, 0), "mean %.17g, not %.17g", mb_item(mean),
           total / divisor);
    mb_grad(mean, &x, 1, &g);
    got = values(g);
    for (int i = 0; i < ROWS * C; i++)
        expect(near(got[i], slopes[i] / divisor, 1e-14, 1e-15), "slope %d: %.17g, not %.17g", i, got[i],
               slopes[i] / divisor);
}

Test(cross_entropy, against_loops)
{
    static const double smoothing[3] = {0, 0.1, 1};
    ON_BOTH
    for (int i = 0; i < 12; i++)
        against_loops(ctx, i & 1, i & 2, smoothing[i / 4]);
}

Test(cross_entropy, nothing_counts)
{
    ON_BOTH
    {
        mb_tensor x = mb_iota(ctx, MB_FLOAT32, 3), label = mb_full(ctx, MB_INT32, MB_SHAPE(1), 7), g;
        x = mb_reshape(x, MB_SHAPE(1, 3));
        mb_tensor loss =
            mb_cross_entropy_with(x, label, (mb_cross_entropy_options){.ignore = true, .ignored = 7});
        mb_grad(loss, &x, 1, &g);
        expect(mb_item(loss) == 0 && values(g)[0] == 0 && values(g)[2] == 0, "all ignored: %g",
               mb_item(loss));
        mb_tensor none = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(0, 3));
        expect(mb_item(mb_cross_entropy(none, mb_zeros(ctx, MB_INT32, MB_SHAPE(0)))) == 0, "no rows");
    }
}

/* Logits of -infinity are classes that cannot be: fine beside the label, an infinite loss at it. */
Test(cross_entropy, infinite_logits)
{
    ON_BOTH
    {
        const double at[6] = {0, -(double)INFINITY, 0, 0, -(double)INFINITY, 0};
        mb_tensor x = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(2, 3), at), g;
        mb_tensor labels = mb_iota(ctx, MB_INT32, 2);
        const double *loss =
            values(mb_cross_entropy_with(x, labels, (mb_cross_entropy_options){.each_row = true}));
        expect(near(loss[0], log(2), 1e-15, 0) && loss[1] == (double)INFINITY, "%g and %g", loss[0], loss[1]);
        mb_grad(mb_cross_entropy(x, labels), &x, 1, &g);
        const double *v = values(g);
        expect(v[0] == -0.25 && v[1] == 0 && v[2] == 0.25 && v[4] == -0.5, "%g %g %g %g", v[0], v[1], v[2],
               v[4]);
    }
}

/* A label that no class has is not a loss of 0, nor a gradient of 0; the other rows are as they were. */
Test(cross_entropy, labels_out_of_range)
{
    ON_BOTH
    for (int i = 0; i < 8; i++) {
        mb_tensor x = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(2, 3)), g;
        const int wrong = i & 1 ? 3 : -1;
        mb_tensor labels = mb_from(ctx, MB_INT32, MB_SHAPE(2), ((int32_t[]){wrong, 1}));
        mb_cross_entropy_options o = {.smoothing = i & 2 ? 0.1 : 0, .each_row = true};
        if (i & 4)
            o.weights = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(3));
        mb_tensor loss = mb_cross_entropy_with(x, labels, o);
        mb_grad(loss, &x, 1, &g);
        const double *l = values(loss), *v = values(g);
        expect(isnan(l[0]) && near(l[1], log(3), 1e-6, 0), "losses %g %g", l[0], l[1]);
        expect(isnan(v[0]) && isnan(v[2]) && isfinite(v[3]) && isfinite(v[5]), "slopes %g %g %g %g", v[0],
               v[2], v[3], v[5]);
        o.each_row = false;
        expect(isnan(mb_item(mb_cross_entropy_with(x, labels, o))), "the mean");
        o.ignore = true, o.ignored = wrong;
        expect(near(mb_item(mb_cross_entropy_with(x, labels, o)), log(3), 1e-6, 0), "unless it is ignored");
    }
}

static void expect_told(mb_context *ctx, mb_tensor t, int line, const char *words)
{
    char at[64];
    snprintf(at, sizeof at, "cross_entropy_test.c:%d: ", line);
    mb_eval(&t, 1);
    expect(mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), at) && strstr(mb_message(ctx), words),
           "%s: \"%s\" does not say \"%s%s\"", mb_backend_name(ctx), mb_message(ctx), at, words);
    mb_clear_error(ctx);
}

Test(cross_entropy, debug_names_the_line_of_a_wrong_index)
{
    for (int k = 0; k < 2; k++) {
        setenv("MB_DEBUG", "1", 1);
        mb_context *ctx = open_on(backend_names[k]);
        unsetenv("MB_DEBUG");
        mb_tensor x = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(2, 3));
        mb_tensor wrong = mb_from(ctx, MB_INT32, MB_SHAPE(2), ((int32_t[]){1, 3}));
        mb_tensor right = mb_from(ctx, MB_INT32, MB_SHAPE(2), ((int32_t[]){2, 0}));
        expect(near(mb_item(mb_cross_entropy(x, right)), log(3), 1e-6, 0), "%s", mb_message(ctx));
        expect_told(ctx, mb_cross_entropy(x, wrong), __LINE__, "NaN");
        expect_told(ctx, mb_take(x, wrong, 1), __LINE__, "index 3, at 1 of 2, is outside of [0, 3)");
        expect_told(ctx, mb_scatter_add(x, wrong, 0, 3), __LINE__,
                    "index 3, at 1 of 2, is outside of [0, 3)");
        mb_tensor fine[2] = {mb_take(x, right, 1), mb_scatter_add(x, right, 0, 3)};
        expect(mb_eval(fine, 2) == MB_OK, "%s", mb_message(ctx));
        close_all();
    }
}

Test(cross_entropy, mistakes)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor x = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(2, 3)), labels = mb_zeros(ctx, MB_INT32, MB_SHAPE(2));
    const double smoothing[] = {-0.1, 1.5, (double)NAN};
    for (int i = 0; i < 3; i++) {
        mb_cross_entropy_with(x, labels, (mb_cross_entropy_options){.smoothing = smoothing[i]});
        expect(mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), "smoothing"), "%s", mb_message(ctx));
        mb_clear_error(ctx);
    }
    mb_cross_entropy_with(x, labels,
                          (mb_cross_entropy_options){.weights = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(2))});
    expect(mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), "weights [2]"), "%s", mb_message(ctx));
    mb_clear_error(ctx);
    close_all();
}
