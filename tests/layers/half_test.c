/* SPDX-License-Identifier: MIT
 *
 * half_test.c - layers with float32 parameters applied to halves: values, derivatives by the parameters,
 * which are float32, and by x, against the same layer applied to the same, rounded, x in float32.
 *
 * Tolerance. A layer is a chain of some ten stored values, each rounded by half of u (2^-7 in bfloat16, 2^-10
 * in float16) of its size; errors add up like a random walk, and a mean over many elements is smaller still.
 * The root of the normalised mean square is allowed 2 u, and 4 u of derivatives, whose chains are as long
 * again; what is not cast, or cast at the wrong place, is off by its size. */
#include "support.h"

#include "tensor/half.h"

typedef struct layer {
    const char *name;
    mb_shape shape;
    mb_tensor (*apply)(mb_params *p, mb_tensor x, bool make, void **at);
} layer;

static mb_tensor a_linear(mb_params *p, mb_tensor x, bool make, void **at)
{
    static mb_linear l;
    (void)at;
    if (make)
        l = mb_linear_new(p, "l", 24, 16);
    return make ? x : mb_linear_apply(l, x);
}

static mb_tensor a_layer_norm(mb_params *p, mb_tensor x, bool make, void **at)
{
    static mb_layer_norm l;
    (void)at;
    if (make)
        l = mb_layer_norm_new(p, "l", 24);
    return make ? x : mb_layer_norm_apply(l, x);
}

static mb_tensor an_rms_norm(mb_params *p, mb_tensor x, bool make, void **at)
{
    static mb_rms_norm l;
    (void)at;
    if (make)
        l = mb_rms_norm_new(p, "l", 24);
    return make ? x : mb_rms_norm_apply(l, x);
}

static mb_tensor block_of(mb_params *p, mb_tensor x, bool make, void **at, mb_mixer_options mixer)
{
    mb_block *b = *at;
    if (make) {
        b = *at = mb_params_alloc(p, sizeof *b);
        *b = mb_block_new(p, "b", 24, 32, &mixer);
    }
    return make ? x : mb_block_apply(b, x, mb_key_of(3), NULL);
}

static mb_tensor attention(mb_params *p, mb_tensor x, bool make, void **at)
{
    return block_of(p, x, make, at, (mb_mixer_options){.kind = MB_MIXER_SOFTMAX, .heads = 2});
}

static mb_tensor linear_attention(mb_params *p, mb_tensor x, bool make, void **at)
{
    return block_of(p, x, make, at, (mb_mixer_options){.kind = MB_MIXER_LINEAR, .heads = 2});
}

static mb_tensor ttt(mb_params *p, mb_tensor x, bool make, void **at)
{
    return block_of(
        p, x, make, at,
        (mb_mixer_options){.kind = MB_MIXER_TTT,
                           .heads = 2,
                           .ttt = {.learner = MB_LEARNER_MLP, .inner_steps = 2, .inner_batch = 5}});
}

static mb_tensor ttt_in_a_scan(mb_params *p, mb_tensor x, bool make, void **at)
{
    return block_of(
        p, x, make, at,
        (mb_mixer_options){.kind = MB_MIXER_TTT,
                           .heads = 2,
                           .ttt = {.learner = MB_LEARNER_LINEAR, .inner_steps = 3, .scan = MB_ON}});
}

static mb_tensor a_convolution(mb_params *p, mb_tensor x, bool make, void **at)
{
    static mb_conv l;
    (void)at;
    if (make)
        l = mb_conv2d_new(p, "l", (mb_conv_layer_options){.in = 3, .out = 8, .size = {3}});
    return make ? x : mb_max_pool2d(mb_conv2d_apply(l, x), (mb_pool_options){.size = {2}});
}

static const layer layers[] = {{"linear", {3, {2, 10, 24}}, a_linear},
                               {"layer norm", {3, {2, 10, 24}}, a_layer_norm},
                               {"rms norm", {3, {2, 10, 24}}, an_rms_norm},
                               {"softmax attention", {3, {2, 10, 24}}, attention},
                               {"linear attention", {3, {2, 10, 24}}, linear_attention},
                               {"ttt", {3, {2, 10, 24}}, ttt},
                               {"ttt in a scan", {3, {2, 10, 24}}, ttt_in_a_scan},
                               {"convolution", {4, {2, 3, 10, 12}}, a_convolution}};

static void off_by_rounding(const layer *l, const char *what, int dtype, double times, mb_tensor got,
                            mb_tensor want)
{
    double unit = dtype == MB_FLOAT16 ? 0x1p-10 : 0x1p-7;
    double off = sqrt(nmse(values(got), values(want), mb_count(want)));
    expect(off < times * unit, "%s, %s, %s: %g", l->name, mb_dtype_name((mb_dtype)dtype), what, off);
}

static void check_layer(const char *backend, const layer *l, int dtype)
{
    enum { MOST = 40 };
    mb_context *ctx = open_on(backend);
    mb_params *p = mb_params_new(ctx, 5);
    rng r = {11};
    void *at = NULL;
    mb_tensor x = mb_cast(draw(ctx, &r, MB_FLOAT32, l->shape, -1, 1), (mb_dtype)dtype);
    l->apply(p, x, true, &at);
    mb_tensor xs[2][MOST], g[2][MOST], y[2], w = {0};
    int n = mb_params_list(p, xs[0] + 1, MOST - 1);
    memcpy(xs[1], xs[0], sizeof xs[0]);
    xs[0][0] = x;
    xs[1][0] = mb_cast(x, MB_FLOAT32);
    for (int k = 0; k < 2; k++) {
        y[k] = l->apply(p, xs[k][0], false, &at);
        expect(mb_dtype_of(y[k]) == mb_dtype_of(xs[k][0]), "%s: %s", l->name, mb_message(ctx));
        w = k ? w : draw(ctx, &r, MB_FLOAT32, mb_shape_of(y[0]), -1, 1);
        mb_grad(mb_sum(mb_mul(mb_cast(y[k], MB_FLOAT32), w), MB_ALL), xs[k], n + 1, g[k]);
    }
    off_by_rounding(l, "value", dtype, 2, y[0], y[1]);
    for (int i = 0; i <= n; i++) {
        expect(mb_dtype_of(g[0][i]) == mb_dtype_of(xs[0][i]), "%s: derivative %d", l->name, i);
        off_by_rounding(l, i ? mb_params_name(p, i - 1) : "derivative", dtype, 4, g[0][i], g[1][i]);
    }
    mb_params_free(p);
    close_all();
}

Test(half, layers)
{
    for (int b = 0; b < 2; b++)
        for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
            for (int d = MB_FLOAT16; d <= MB_BFLOAT16; d++)
                if (!testing("vulkan") ||
                    (b && (i + (size_t)d) % 2)) /* kernels take long to compile: in turn */
                    check_layer(backend_names[b], &layers[i], d);
}

/* Of the probability that it should have, in float32. */
Test(half, dropout)
{
    mb_context *ctx = open_on(backend_names[1]);
    mb_tensor x = mb_ones(ctx, MB_BFLOAT16, MB_SHAPE(1000)), y = mb_dropout(x, mb_key_of(2), 0.25, true);
    mb_tensor w = mb_dropout(mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1000)), mb_key_of(2), 0.25, true);
    expect(same_bits(values(y), values(mb_cast(mb_cast(w, MB_BFLOAT16), MB_FLOAT32)), 1000),
           "not the same ones");
    close_all();
}

Test(half, what_refuses_it_says_so)
{
    mb_context *ctx = open_on(backend_names[1]);
    mb_params *p = mb_params_new(ctx, 1);
    mb_batch_norm l = mb_batch_norm_new(p, "l", 4);
    mb_tensor x = mb_ones(ctx, MB_FLOAT16, MB_SHAPE(2, 4));
    expect(!mb_valid(mb_batch_norm_apply(l, x, -1, true)) && strstr(mb_message(ctx), "float16"), "%s",
           mb_message(ctx));
    mb_clear_error(ctx);
    expect(!mb_valid(mb_cholesky(mb_ones(ctx, MB_BFLOAT16, MB_SHAPE(2, 2)))) &&
               strstr(mb_message(ctx), "bfloat16"),
           "%s", mb_message(ctx));
    mb_clear_error(ctx);
    expect(!mb_params_new_with(ctx, 1, MB_FLOAT16) && strstr(mb_message(ctx), "float16"), "%s",
           mb_message(ctx));
    mb_clear_error(ctx);
    mb_params_free(p);
    close_all();
}
