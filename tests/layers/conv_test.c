/* SPDX-License-Identifier: MIT
 *
 * conv_test.c - convolutions, pools, norms over channels and dropout, against plain loops, by inner products
 * and in closed form. Derivatives are in tests/autograd/conv_gradient_test.c. */
#include "fixture.h"

#define NONE MB_EMPTY(mb_tensor)
#define ON_BOTH                                                                                              \
    for (int backend = 0; backend < 2; backend++)                                                            \
        for (mb_context *mb = open_on(backend_names[backend]); mb; mb = NULL, close_all())

/* ---- convolutions ---- */

typedef struct shape_case {
    int64_t N, C, H, W, O, KH, KW;
    mb_conv_options o;
} shape_case;

static const shape_case cases[] = {
    {2, 3, 5, 6, 4, 3, 3, {.padding = {1, 1}}},
    {2, 3, 5, 6, 4, 3, 2, {.groups = 1}},
    {1, 1, 7, 5, 2, 5, 3, {.stride = {2, 3}, .padding = {2, 1}}},
    {2, 4, 7, 8, 6, 3, 2, {.stride = {1, 2}, .dilation = {2, 3}, .groups = 2}},
    {2, 4, 6, 5, 4, 3, 3, {.padding = {1, 2}, .groups = 4}},
    {2, 3, 4, 4, 6, 2, 2, {.groups = 3, .stride = {2, 2}}},
    {3, 5, 3, 3, 2, 1, 1, {.groups = 1}},
    {1, 2, 6, 6, 3, 1, 1, {.stride = {2, 2}, .padding = {1, 0}}},
    {2, 2, 1, 9, 1, 1, 4, {.padding = {0, 5}}},
    {0, 3, 5, 6, 4, 3, 3, {.padding = {1, 1}}},
    {1, 17, 9, 11, 19, 3, 3, {.padding = {1, 1}}},
};
#define CASES (sizeof cases / sizeof *cases)

static int64_t or_one(int64_t n)
{
    return n ? n : 1;
}

static int64_t result_size(const shape_case *c, int axis)
{
    int64_t n = axis ? c->W : c->H, k = axis ? c->KW : c->KH;
    return (n + 2 * c->o.padding[axis] - (k - 1) * or_one(c->o.dilation[axis]) - 1) /
               or_one(c->o.stride[axis]) +
           1;
}

/* y[n,o,i,j], channels first. */
static double conv_at(const shape_case *c, const double *x, const double *w, int64_t n, int64_t o, int64_t i,
                      int64_t j)
{
    int64_t groups = or_one(c->o.groups), inside = c->C / groups, group = o / (c->O / groups);
    double sum = 0;
    for (int64_t e = 0; e < inside; e++)
        for (int64_t k = 0; k < c->KH; k++)
            for (int64_t l = 0; l < c->KW; l++) {
                int64_t row = i * or_one(c->o.stride[0]) + k * or_one(c->o.dilation[0]) - c->o.padding[0];
                int64_t column = j * or_one(c->o.stride[1]) + l * or_one(c->o.dilation[1]) - c->o.padding[1];
                if (row >= 0 && row < c->H && column >= 0 && column < c->W)
                    sum += x[((n * c->C + group * inside + e) * c->H + row) * c->W + column] *
                           w[((o * inside + e) * c->KH + k) * c->KW + l];
            }
    return sum;
}

static mb_tensor to_last(mb_tensor x)
{
    return mb_permute(x, MB_AXES(0, 2, 3, 1));
}
static mb_tensor to_front(mb_tensor x)
{
    return mb_permute(x, MB_AXES(0, 3, 1, 2));
}

static mb_tensor random_tensor(mb_context *mb, mb_dtype dtype, int tag, mb_shape s)
{
    rng r = {(uint64_t)tag};
    return draw(mb, &r, dtype, s, -1, 1);
}

static mb_tensor weight_of(mb_context *mb, mb_dtype dtype, const shape_case *c)
{
    return random_tensor(mb, dtype, 2, MB_SHAPE(c->O, c->C / or_one(c->o.groups), c->KH, c->KW));
}

static void check_conv(mb_context *mb, const shape_case *c, mb_dtype dtype, bool last)
{
    mb_tensor x = random_tensor(mb, dtype, 1, MB_SHAPE(c->N, c->C, c->H, c->W));
    mb_tensor w = weight_of(mb, dtype, c), b = random_tensor(mb, dtype, 3, MB_SHAPE(c->O));
    mb_conv_options o = c->o;
    o.channels_last = last;
    mb_tensor y = mb_conv2d(last ? to_last(x) : x, w, b, o);
    if (last)
        y = to_front(y);
    int64_t P = result_size(c, 0), Q = result_size(c, 1);
    if (!expect(same_shape(mb_shape_of(y), MB_SHAPE(c->N, c->O, P, Q)), "conv2d: shape %s: %s",
                shape_text(mb_shape_of(y)), mb_message(mb)))
        return;
    double *vx = values(x), *vw = values(w), *vb = values(b), *got = values(y);
    double limit = dtype == MB_FLOAT64 ? 1e-13 : 2e-5; /* sums of up to 153 products of numbers below 1 */
    for (int64_t i = 0; i < c->N * c->O * P * Q; i++) {
        int64_t channel = i / (P * Q) % c->O;
        double want = conv_at(c, vx, vw, i / (P * Q * c->O), channel, i / Q % P, i % Q) + vb[channel];
        expect(near(got[i], want, limit, limit), "conv2d, case %d, %s%s: [%lld] is %g, not %g",
               (int)(c - cases), mb_dtype_name(dtype), last ? ", channels last" : "", (long long)i, got[i],
               want);
    }
}

Test(conv, against_loops)
{
    ON_BOTH
    for (size_t i = 0; i < CASES; i++) {
        check_conv(mb, &cases[i], MB_FLOAT64, false);
        check_conv(mb, &cases[i], i % 2 ? MB_FLOAT32 : MB_FLOAT64, true);
    }
}

/* <conv(x), y> = <x, conv_transpose(y)> for all x and y, of the same weight. */
static void check_adjoint(mb_context *mb, const shape_case *c, bool last)
{
    int64_t P = result_size(c, 0), Q = result_size(c, 1);
    mb_tensor x = random_tensor(mb, MB_FLOAT64, 1, MB_SHAPE(c->N, c->C, c->H, c->W));
    mb_tensor w = weight_of(mb, MB_FLOAT64, c);
    mb_tensor y = random_tensor(mb, MB_FLOAT64, 4, MB_SHAPE(c->N, c->O, P, Q));
    mb_conv_options o = c->o, back = c->o;
    back.channels_last = last;
    for (int i = 0; i < 2; i++) /* what the stride rounded away */
        back.more[i] =
            ((i ? c->W : c->H) + 2 * o.padding[i] - ((i ? c->KW : c->KH) - 1) * or_one(o.dilation[i]) - 1) %
            or_one(o.stride[i]);
    mb_tensor z = mb_conv_transpose2d(last ? to_last(y) : y, w, NONE, back);
    if (last)
        z = to_front(z);
    if (!expect(same_shape(mb_shape_of(z), mb_shape_of(x)), "conv_transpose2d, case %d: shape %s: %s",
                (int)(c - cases), shape_text(mb_shape_of(z)), mb_message(mb)))
        return;
    mb_tensor products[2] = {mb_dot(mb_conv2d(x, w, NONE, o), y), mb_dot(x, z)};
    double *p = values(mb_stack(products, 2, 0));
    expect(near(p[0], p[1], 1e-12, 1e-12), "case %d: %g and %g", (int)(c - cases), p[0], p[1]);
    mb_tensor dx;
    mb_grad(products[0], &x, 1, &dx);
    expect_close(dx, z, 1e-13, "the derivative of the convolution");
}

Test(conv, transposed_is_the_adjoint)
{
    ON_BOTH
    for (size_t i = 0; i < CASES; i++)
        for (int last = 0; last < 2; last++)
            check_adjoint(mb, &cases[i], last);
}

/* Of images one row high. */
Test(conv, one_dimension)
{
    ON_BOTH
    for (int last = 0; last < 2; last++) {
        mb_tensor x = random_tensor(mb, MB_FLOAT64, 1, MB_SHAPE(2, 4, 9));
        mb_tensor w = random_tensor(mb, MB_FLOAT64, 2, MB_SHAPE(6, 2, 3)),
                  b = random_tensor(mb, MB_FLOAT64, 3, MB_SHAPE(6));
        mb_conv_options o = {.stride = {2}, .padding = {1}, .dilation = {2}, .groups = 2};
        mb_conv_options flat = {.stride = {1, 2}, .padding = {0, 1}, .dilation = {1, 2}, .groups = 2};
        mb_tensor want = mb_squeeze(mb_conv2d(mb_unsqueeze(x, 2), mb_unsqueeze(w, 2), b, flat), 2);
        o.channels_last = last;
        mb_tensor in = last ? mb_permute(x, MB_AXES(0, 2, 1)) : x, y = mb_conv1d(in, w, b, o);
        expect_close(last ? mb_permute(y, MB_AXES(0, 2, 1)) : y, want, 1e-13, "conv1d");
        /* back: [2,6,L'] -> [2,4,L] with [6,2,3] */
        mb_tensor back = mb_conv_transpose1d(y, w, NONE, o), bias_free = mb_conv1d(in, w, NONE, o), dx;
        mb_grad(mb_dot(bias_free, mb_stop_gradient(y)), &in, 1, &dx);
        expect_close(back, dx, 1e-13, "conv_transpose1d");
    }
}

/* A convolution of each example by its own weights, and of all by one. */
Test(conv, vmapped)
{
    enum { K = 3 };
    ON_BOTH
    {
        mb_tensor xs = random_tensor(mb, MB_FLOAT64, 1, MB_SHAPE(K, 2, 4, 5, 5)),
                  ws = random_tensor(mb, MB_FLOAT64, 2, MB_SHAPE(K, 6, 2, 3, 3)), each, grads, one[K],
                  slopes[K];
        mb_conv_options o = {.padding = {1, 1}, .groups = 2, .stride = {2, 1}};
        mb_vmap v = mb_vmap_begin(mb, K);
        mb_tensor w = mb_vmap_in(v, ws, 0), y = mb_conv2d(mb_vmap_in(v, xs, 0), w, NONE, o), dw;
        mb_grad(mb_sum(mb_sin(y), MB_ALL), &w, 1, &dw);
        mb_vmap_out(v, y, 0, &each);
        mb_vmap_out(v, dw, 0, &grads);
        mb_vmap_end(v);
        for (int i = 0; i < K; i++) {
            mb_tensor wi = mb_squeeze(mb_slice(ws, 0, i, 1, 1), 0);
            one[i] = mb_conv2d(mb_squeeze(mb_slice(xs, 0, i, 1, 1), 0), wi, NONE, o);
            mb_grad(mb_sum(mb_sin(one[i]), MB_ALL), &wi, 1, &slopes[i]);
        }
        expect_close(each, mb_stack(one, K, 0), 1e-13, "vmapped");
        expect_close(grads, mb_stack(slopes, K, 0), 1e-12, "its derivative");
    }
}

Test(conv, layer)
{
    ON_BOTH
    {
        mb_params *p = mb_params_new_with(mb, 7, MB_FLOAT64);
        mb_conv c = mb_conv2d_new(
            p, "c", (mb_conv_layer_options){.in = 4, .out = 6, .size = {3}, .conv = {.groups = 2}});
        mb_conv bare = mb_conv2d_new(
            p, "d", (mb_conv_layer_options){.in = 4, .out = 2, .size = {1, 2}, .no_bias = true});
        expect(same_shape(mb_shape_of(c.weight), MB_SHAPE(6, 2, 3, 3)), "weight %s",
               shape_text(mb_shape_of(c.weight)));
        expect(mb_params_count(p) == 3 && !bare.bias.ctx, "parameters: %d", mb_params_count(p));
        double *w = values(c.weight), largest = 0, bound = 1 / sqrt(18.0);
        for (int i = 0; i < 108; i++)
            largest = fmax(largest, fabs(w[i]));
        expect(largest <= bound && largest > 0.9 * bound, "weights up to %g of %g", largest, bound);
        mb_tensor x = random_tensor(mb, MB_FLOAT64, 1, MB_SHAPE(1, 4, 4, 5));
        expect_close(mb_conv2d_apply(c, x), mb_conv2d(x, c.weight, c.bias, (mb_conv_options){.groups = 2}), 0,
                     "layer");
        mb_params_free(p);
    }
}

/* ---- pools ---- */

typedef struct pool_case {
    int64_t H, W;
    mb_pool_options o;
} pool_case;

static const pool_case pools[] = {{6, 8, {.size = {2}}},
                                  {7, 5, {.size = {3, 2}}},
                                  {7, 7, {.size = {3}, .stride = {2, 2}, .padding = {1, 1}}},
                                  {5, 6, {.size = {2, 3}, .stride = {1, 1}, .padding = {1, 0}}},
                                  {4, 4, {.size = {1}}},
                                  {4, 4, {.size = {4}}}};

static void check_pool(mb_context *mb, const pool_case *c, bool average, bool last)
{
    enum { N = 2, C = 3 };
    mb_pool_options o = c->o;
    o.channels_last = last;
    mb_tensor x = random_tensor(mb, MB_FLOAT64, 1, MB_SHAPE(N, C, c->H, c->W)), in = last ? to_last(x) : x;
    mb_tensor y = average ? mb_avg_pool2d(in, o) : mb_max_pool2d(in, o);
    if (last)
        y = to_front(y);
    int64_t KH = o.size[0], KW = o.size[1] ? o.size[1] : KH, sh = o.stride[0] ? o.stride[0] : KH,
            sw = o.stride[1] ? o.stride[1] : KW;
    int64_t P = (c->H + 2 * o.padding[0] - KH) / sh + 1, Q = (c->W + 2 * o.padding[1] - KW) / sw + 1;
    if (!expect(same_shape(mb_shape_of(y), MB_SHAPE(N, C, P, Q)), "pool: shape %s: %s",
                shape_text(mb_shape_of(y)), mb_message(mb)))
        return;
    double *vx = values(x), *got = values(y);
    for (int64_t at = 0; at < N * C * P * Q; at++) {
        double sum = 0, top = -(double)INFINITY;
        for (int64_t k = 0; k < KH * KW; k++) {
            int64_t i = at / Q % P * sh + k / KW - o.padding[0], j = at % Q * sw + k % KW - o.padding[1];
            if (i < 0 || i >= c->H || j < 0 || j >= c->W)
                continue;
            double v = vx[(at / (P * Q) * c->H + i) * c->W + j];
            sum += v;
            top = fmax(top, v);
        }
        double want = average ? sum / (double)(KH * KW) : top;
        expect(near(got[at], want, 1e-14, 1e-14), "pool %d: %g, not %g", (int)(c - pools), got[at], want);
    }
}

Test(conv, pools)
{
    ON_BOTH
    {
        for (size_t i = 0; i < sizeof pools / sizeof *pools; i++)
            for (int k = 0; k < 4; k++)
                check_pool(mb, &pools[i], k & 1, k & 2);
        mb_tensor x = random_tensor(mb, MB_FLOAT64, 1, MB_SHAPE(2, 3, 9)), wide = mb_unsqueeze(x, 2);
        mb_pool_options o = {.size = {3}, .stride = {2}, .padding = {1}},
                        flat = {.size = {1, 3}, .stride = {1, 2}, .padding = {0, 1}};
        expect_close(mb_max_pool1d(x, o), mb_squeeze(mb_max_pool2d(wide, flat), 2), 0, "max_pool1d");
        expect_close(mb_avg_pool1d(x, o), mb_squeeze(mb_avg_pool2d(wide, flat), 2), 1e-15, "avg_pool1d");
    }
}

/* Equal largest elements share what the maximum gets. */
Test(conv, pool_ties)
{
    ON_BOTH
    {
        mb_tensor x = from_doubles(mb, MB_FLOAT64, MB_SHAPE(1, 1, 2, 4), (double[]){1, 1, 0, 2, 1, 1, 2, -1}),
                  dx;
        mb_grad(mb_sum(mb_max_pool2d(x, (mb_pool_options){.size = {2}}), MB_ALL), &x, 1, &dx);
        const double want[8] = {.25, .25, 0, .5, .25, .25, .5, 0};
        expect(same_bits(values(dx), want, 8), "shares");
    }
}

/* ---- norms ---- */

/* Mean and biased variance of x: [4,3,2,5] over what belongs to channel c, of example n or of all (-1). */
static void moments(const double *x, int n, int first, int channels, double *mean, double *variance)
{
    double sum = 0, square = 0, count = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < 4 * 3 * 10; i++) {
            int channel = i / 10 % 3;
            if ((n >= 0 && i / 30 != n) || channel < first || channel >= first + channels)
                continue;
            if (pass)
                square += (x[i] - sum / count) * (x[i] - sum / count);
            else
                sum += x[i], count++;
        }
    *mean = sum / count;
    *variance = square / count;
}

Test(conv, batch_norm)
{
    ON_BOTH
    {
        mb_params *p = mb_params_new_with(mb, 7, MB_FLOAT64);
        mb_batch_norm b = mb_batch_norm_new(p, "bn", 3);
        set_pattern(p, "bn.scale", 1, 0.3, 1);
        set_pattern(p, "bn.bias", 2, 0.3, 0);
        expect(mb_params_count(p) == 4 && mb_params_size(p) == 6, "only scale and bias are trained");
        mb_tensor x = pattern(mb, MB_SHAPE(4, 3, 2, 5), 3, 1.5, 0.5);
        mb_tensor y = mb_batch_norm_apply(b, x, 1, true);
        mb_tensor last =
            mb_batch_normalize(mb_permute(x, MB_AXES(0, 2, 3, 1)), -1, b.scale, b.bias, b.eps, NULL, NULL);
        double *vx = values(x), *got = values(y), *scale = values(b.scale), *bias = values(b.bias),
               *running_mean = values(b.mean), *running_variance = values(b.variance);
        expect_close(to_front(last), y, 1e-13, "channels last");
        for (int c = 0; c < 3; c++) {
            double mean, variance;
            moments(vx, -1, c, 1, &mean, &variance);
            for (int n = 0; n < 4; n++)
                for (int i = 0; i < 10; i++) {
                    int at = (n * 3 + c) * 10 + i;
                    double want = (vx[at] - mean) / sqrt(variance + 1e-5) * scale[c] + bias[c];
                    expect(near(got[at], want, 1e-13, 1e-13), "batch norm: %g, not %g", got[at], want);
                }
            expect(near(running_mean[c], 0.1 * mean, 1e-13, 1e-15), "running mean");
            expect(near(running_variance[c], 0.9 + 0.1 * variance * 40 / 39, 1e-13, 0), "running variance");
        }
        double *evaluated = values(mb_batch_norm_apply(b, x, 1, false));
        for (int i = 0; i < 120; i++) {
            int c = i / 10 % 3;
            double want = (vx[i] - running_mean[c]) / sqrt(running_variance[c] + 1e-5) * scale[c] + bias[c];
            expect(near(evaluated[i], want, 1e-13, 1e-13), "evaluated: %g, not %g", evaluated[i], want);
        }
        mb_params_free(p);
    }
}

/* The running values do not depend on what is trained, and an optimiser leaves them alone; an empty batch
 * changes nothing. */
Test(conv, batch_norm_state)
{
    ON_BOTH
    {
        mb_params *p = mb_params_new_with(mb, 7, MB_FLOAT64);
        mb_batch_norm b = mb_batch_norm_new(p, "bn", 2);
        mb_optimizer *opt = mb_sgd(p, (mb_sgd_options){.lr = 0.5});
        for (int step = 0; step < 2; step++) {
            mb_scope s = mb_scope_begin(mb);
            mb_tensor x = pattern(mb, MB_SHAPE(6, 2), step, 1, 2);
            mb_step(opt, mb_sum(mb_sin(mb_batch_norm_apply(b, x, -1, true)), MB_ALL));
            mb_scope_end(s);
        }
        double *before = values(b.mean), want[2] = {0};
        for (int step = 0; step < 2; step++) {
            double *m = values(mb_mean(pattern(mb, MB_SHAPE(6, 2), step, 1, 2), MB_AXES(0)));
            for (int c = 0; c < 2; c++)
                want[c] += 0.1 * (m[c] - want[c]);
        }
        expect(near(before[0], want[0], 1e-14, 0) && near(before[1], want[1], 1e-14, 0), "%g, not %g",
               before[0], want[0]);
        mb_tensor none = mb_batch_norm_apply(b, mb_zeros(mb, MB_FLOAT64, MB_SHAPE(0, 2)), -1, true);
        mb_eval(&none, 1);
        expect(same_bits(values(b.mean), before, 2), "an empty batch");
        mb_optimizer_free(opt);
        mb_params_free(p);
    }
}

Test(conv, group_norm)
{
    ON_BOTH
    {
        mb_params *p = mb_params_new_with(mb, 7, MB_FLOAT64);
        mb_group_norm whole = mb_group_norm_new(p, "one", 3, 1), each = mb_group_norm_new(p, "each", 3, 3);
        set_pattern(p, "one.scale", 1, 0.3, 1);
        set_pattern(p, "each.bias", 2, 0.3, 0);
        mb_tensor x = pattern(mb, MB_SHAPE(4, 3, 2, 5), 3, 1.5, 0.5);
        double *vx = values(x), *a = values(mb_group_norm_apply(whole, x, 1)), *scale = values(whole.scale),
               *b = values(mb_group_norm_apply(each, x, 1)), *bias = values(each.bias);
        expect_close(to_front(mb_group_norm_apply(whole, to_last(x), -1)), mb_group_norm_apply(whole, x, 1),
                     1e-13, "channels last");
        for (int i = 0; i < 120; i++) {
            double mean, variance;
            moments(vx, i / 30, 0, 3, &mean, &variance);
            double want = (vx[i] - mean) / sqrt(variance + 1e-5) * scale[i / 10 % 3];
            expect(near(a[i], want, 1e-13, 1e-13), "one group: %g, not %g", a[i], want);
            moments(vx, i / 30, i / 10 % 3, 1, &mean, &variance);
            want = (vx[i] - mean) / sqrt(variance + 1e-5) + bias[i / 10 % 3];
            expect(near(b[i], want, 1e-13, 1e-13), "a group for each channel: %g, not %g", b[i], want);
        }
        mb_params_free(p);
    }
}

/* ---- dropout ---- */

Test(conv, dropout)
{
    enum { COUNT = 20000 };
    ON_BOTH
    {
        mb_tensor x = mb_full(mb, MB_FLOAT32, MB_SHAPE(COUNT), 3), dx;
        mb_tensor y = mb_dropout(x, mb_key_of(1), 0.25, true), z = mb_dropout(x, mb_key_of(2), 0.25, true);
        mb_grad(mb_sum(y, MB_ALL), &x, 1, &dx);
        double *a = values(y), *b = values(z), *g = values(dx), kept = 0, both = 0;
        for (int i = 0; i < COUNT; i++) {
            expect(a[i] == 0 || a[i] == 4, "%g", a[i]);
            expect(near(g[i] * 3, a[i], 1e-6, 0), "the derivative is the mask: %g, %g", g[i], a[i]);
            kept += a[i] != 0;
            both += a[i] != 0 && b[i] != 0;
        }
        /* 5 standard deviations of binomial counts: 0.0153 and 0.0176 of them */
        expect(fabs(kept / COUNT - 0.75) < 0.0153, "%g kept", kept / COUNT);
        expect(fabs(both / COUNT - 0.5625) < 0.0176, "keys are not independent: %g", both / COUNT);
        expect(same_bits(values(mb_dropout(x, mb_key_of(1), 0.25, true)), a, COUNT),
               "another draw of one key");
        expect(mb_dropout(x, mb_key_of(1), 0.25, false).id == x.id, "not in training");
        double *all = values(mb_dropout(x, mb_key_of(1), 1, true)),
               *none = values(mb_dropout(x, mb_key_of(1), 0, true));
        for (int i = 0; i < COUNT; i++)
            expect(all[i] == 0 && none[i] == 3, "p 1: %g, p 0: %g", all[i], none[i]);
    }
}

/* ---- messages ---- */

#define REFUSED(text, ...)                                                                                   \
    do {                                                                                                     \
        mb_context *mb = open_on("reference");                                                               \
        mb_tensor x = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 4, 5, 6)),                                        \
                  w = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(3, 4, 3, 3));                                        \
        (void)x, (void)w;                                                                                    \
        mb_tensor y = __VA_ARGS__;                                                                           \
        expect(!mb_valid(y) && strstr(mb_message(mb), text), "got: %s", mb_message(mb));                     \
        expect(strstr(mb_message(mb), "conv_test.c:") != NULL, "no line: %s", mb_message(mb));               \
        close_failed(mb);                                                                                    \
        close_all();                                                                                         \
    } while (0)

Test(conv, messages)
{
    mb_tensor t = NONE;
    (void)t;
    REFUSED("conv2d: got x [2,4,5,6], weight [3,4,3,3], groups 2; wanted [N,C,H,W], [O,C/groups,KH,KW]",
            mb_conv2d(x, w, NONE, (mb_conv_options){.groups = 2}));
    REFUSED("wanted [N,H,W,C]", mb_conv2d(x, w, NONE, (mb_conv_options){.channels_last = true}));
    REFUSED("conv1d: got x", mb_conv1d(x, w, NONE, (mb_conv_options){0}));
    REFUSED("conv_transpose2d: got x [2,4,5,6], weight [3,4,3,3]",
            mb_conv_transpose2d(x, w, NONE, (mb_conv_options){0}));
    REFUSED("got the bias [4]; wanted [3]",
            mb_conv2d(x, w, mb_zeros(mb, MB_FLOAT32, MB_SHAPE(4)), (mb_conv_options){0}));
    REFUSED("stride -1", mb_conv2d(x, w, NONE, (mb_conv_options){.stride = {-1, 1}}));
    REFUSED("more 1", mb_conv2d(x, w, NONE, (mb_conv_options){.more = {1, 0}, .stride = {2, 2}}));
    REFUSED("leave nothing of 5", mb_conv2d(x, w, NONE, (mb_conv_options){.dilation = {3, 1}}));
    REFUSED("float dtype", mb_conv2d(mb_cast(x, MB_FLOAT64), w, NONE, (mb_conv_options){0}));
    REFUSED("max_pool2d: got [2,4,5] float32",
            mb_max_pool2d(mb_sum(x, MB_AXES(3)), (mb_pool_options){.size = {2}}));
    REFUSED("avg_pool2d: got windows of 0", mb_avg_pool2d(x, (mb_pool_options){0}));
    REFUSED("padding 2 over 5", mb_max_pool2d(x, (mb_pool_options){.size = {3}, .padding = {2, 0}}));
    REFUSED("windows of 6, stride 6", mb_max_pool2d(x, (mb_pool_options){.size = {6}}));
    REFUSED("batch_normalize: got [2,4,5,6] float32, channels on axis 4",
            mb_batch_normalize(x, 4, NONE, NONE, 1e-5, NULL, NULL));
    REFUSED("and scale [3,4,3,3]; wanted [4]", mb_batch_normalize(x, 1, w, NONE, 1e-5, NULL, NULL));
    REFUSED("3 groups", mb_group_normalize(x, 1, 3, NONE, NONE, 1e-5));
    REFUSED("dropout: got p 1.5", mb_dropout(x, MB_NO_KEY, 1.5, true));
}

#define NOT_MADE(text, ...)                                                                                  \
    do {                                                                                                     \
        mb_context *mb = open_on("reference");                                                               \
        mb_params *p = mb_params_new(mb, 1);                                                                 \
        __VA_ARGS__;                                                                                         \
        expect(strstr(mb_message(mb), text) != NULL, "got: %s", mb_message(mb));                             \
        mb_params_free(p);                                                                                   \
        close_failed(mb);                                                                                    \
        close_all();                                                                                         \
    } while (0)

Test(conv, layers_that_cannot_be)
{
    NOT_MADE("mb_conv2d: in 3, out 4, size 3 by 3, groups 2",
             mb_conv2d_new(p, "c",
                           (mb_conv_layer_options){.in = 3, .out = 4, .size = {3}, .conv = {.groups = 2}}));
    NOT_MADE("mb_batch_norm: channels 0", mb_batch_norm_new(p, "b", 0));
    NOT_MADE("mb_group_norm: channels 6, groups 4", mb_group_norm_new(p, "g", 6, 4));
}
