/* SPDX-License-Identifier: MIT
 *
 * half_test.c - layers with float32 parameters applied to halves: values, derivatives by the parameters,
 * which are float32, and by x, against the same layer applied to the same, rounded, x in float32; and
 * functions that compute as float32.
 *
 * Tolerance. A layer is a chain of some ten stored values, each rounded by half of u (2^-7 in bfloat16, 2^-10
 * in float16) of its size; errors add up like a random walk, and a mean over many elements is smaller still.
 * The root of the normalised mean square is allowed 2 u, 4 u of derivatives, whose chains are as long
 * again, and 16 u of second ones, of the square of the derivative by x; what is not cast, or cast at the
 * wrong place, is off by its size. */
#include <tgmath.h>

#include "support.h"

#include "tensor/half.h"

typedef struct layer {
    const char *name;
    mb_shape shape;
    mb_tensor (*apply)(mb_params *p, mb_tensor x, bool make, void **at);
    double slack; /* where sums cancel, derivatives are off by so many times more */
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

static mb_tensor a_channel_norm(mb_params *p, mb_tensor x, bool make, void **at, bool batch)
{
    static mb_batch_norm b;
    static mb_group_norm g;
    (void)at;
    if (make && batch)
        b = mb_batch_norm_new(p, "l", 4);
    else if (make)
        g = mb_group_norm_new(p, "l", 4, 2);
    return make ? x : batch ? mb_batch_norm_apply(b, x, 1, true) : mb_group_norm_apply(g, x, 1);
}

static mb_tensor batch_norm(mb_params *p, mb_tensor x, bool make, void **at)
{
    return a_channel_norm(p, x, make, at, true);
}

static mb_tensor group_norm(mb_params *p, mb_tensor x, bool make, void **at)
{
    return a_channel_norm(p, x, make, at, false);
}

static mb_tensor average_pool(mb_params *p, mb_tensor x, bool make, void **at)
{
    (void)p, (void)at;
    return make ? x : mb_avg_pool2d(x, (mb_pool_options){.size = {3}});
}

static mb_tensor recurrent_of(mb_params *p, mb_tensor x, bool make, mb_cell cell)
{
    static mb_recurrent l;
    if (make)
        l = mb_recurrent_new(p, "l", (mb_recurrent_options){.cell = cell, .in = 6, .hidden = 5});
    return make ? x : mb_recurrent_apply(l, x, NULL);
}

static mb_tensor a_gru(mb_params *p, mb_tensor x, bool make, void **at)
{
    (void)at;
    return recurrent_of(p, x, make, MB_CELL_GRU);
}

static mb_tensor an_lstm(mb_params *p, mb_tensor x, bool make, void **at)
{
    (void)at;
    return recurrent_of(p, x, make, MB_CELL_LSTM);
}

static mb_tensor memory_of(mb_params *p, mb_tensor x, bool make, mb_memory_rule rule, int64_t chunk)
{
    static mb_memory l;
    if (make)
        l = mb_memory_new(
            p, "l",
            (mb_memory_options){
                .rule = rule, .dim = 8, .heads = 2, .conv = 3, .chunk = chunk, .mesanet = {.steps = 4}});
    return make ? x : mb_memory_apply(l, x);
}

static mb_tensor gated(mb_params *p, mb_tensor x, bool make, void **at)
{
    (void)at;
    return memory_of(p, x, make, MB_MEMORY_GATED, 0);
}

static mb_tensor gated_delta_in_chunks(mb_params *p, mb_tensor x, bool make, void **at)
{
    (void)at;
    return memory_of(p, x, make, MB_MEMORY_GATED_DELTA, 4);
}

static mb_tensor mesa(mb_params *p, mb_tensor x, bool make, void **at)
{
    (void)at;
    return memory_of(p, x, make, MB_MEMORY_MESA, 0);
}

static mb_tensor mesanet(mb_params *p, mb_tensor x, bool make, void **at)
{
    (void)at;
    return memory_of(p, x, make, MB_MEMORY_MESANET, 0);
}

static mb_tensor an_equilibrium(mb_params *p, mb_tensor x, bool make, void **at)
{
    static mb_equilibrium l;
    (void)at;
    const mb_equilibrium_options o = {
        .in = 6, .hidden = 5, .tanh = true, .solve = {.steps = 6, .linear = {.steps = 3, .truncate = true}}};
    if (make)
        l = mb_equilibrium_new(p, "l", o);
    return make ? x : mb_equilibrium_apply(l, x, NULL);
}

static mb_tensor a_linear_transformer(mb_params *p, mb_tensor x, bool make, void **at)
{
    static mb_linear_transformer l;
    (void)at;
    if (make)
        l = mb_linear_transformer_new(p, "l", (mb_linear_transformer_options){.dim = 5, .layers = 2});
    return make ? x : mb_linear_transformer_apply(l, x);
}

static mb_tensor a_self_attention(mb_params *p, mb_tensor x, bool make, void **at)
{
    static mb_self_attention l;
    (void)at;
    if (make)
        l = mb_self_attention_new(
            p, "l",
            (mb_self_attention_options){
                .dim = 5, .layers = 1, .scores = MB_SCORES_SOFTMAX, .init = mb_init_normal(0.3)});
    return make ? x : mb_self_attention_predict(l, x);
}

/* ---- functions, without parameters ---- */

/* I + x x^T / 4 */
static mb_tensor positive(mb_tensor x)
{
    mb_tensor eye = mb_eye(x.ctx, mb_dtype_of(x), mb_dim(x, -1));
    return mb_add(eye, mb_mul(mb_matmul(mb_transpose(x), x), 0.25));
}

static mb_tensor a_factor(mb_params *p, mb_tensor x, bool make, void **at)
{
    (void)p, (void)at;
    return make ? x : mb_cholesky(positive(x));
}

/* By a factor, and by a triangle of x's with larger diagonal. */
static mb_tensor a_solution(mb_params *p, mb_tensor x, bool make, void **at)
{
    (void)p, (void)at;
    if (make)
        return x;
    mb_tensor y = mb_cholesky_solve(mb_cholesky(positive(x)), mb_solve_spd(positive(x), x));
    return mb_triangular_solve(positive(x), y, (unsigned)MB_UPPER | MB_TRANSPOSED);
}

static mb_tensor least_squares(mb_params *p, mb_tensor x, bool make, void **at)
{
    (void)p, (void)at;
    mb_tensor ridge = mb_full(x.ctx, mb_dtype_of(x), MB_SHAPE0, 0.5);
    return make ? x : mb_lstsq(x, mb_tanh(mb_slice(x, 2, 0, 2, 1)), ridge);
}

static mb_tensor a_determinant(mb_params *p, mb_tensor x, bool make, void **at)
{
    (void)p, (void)at;
    return make ? x : mb_log_det_spd(positive(x));
}

MB_ELEMENTWISE_2(soft_loops, x / (1 + fabs(x)) + y)

static mb_status soft_reverse(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                              mb_tensor *gs)
{
    (void)user;
    mb_tensor below = mb_add(mb_abs(at->xs[0]), 1.0);
    gs[0] = mb_div(vs[0], mb_mul(below, below));
    gs[1] = vs[0];
    return mb_error(ctx);
}

static mb_tensor own(const mb_custom_op_spec *spec, const mb_tensor *xs, int n, mb_custom_rule rule)
{
    mb_tensor y = {0};
    mb_custom_op_apply(mb_custom_op_new(xs[0].ctx, spec), xs, NULL, 0, &y);
    mb_custom_gradient(&y, 1, xs, n, rule, &y);
    return y;
}

static mb_tensor soft_sign(mb_params *p, mb_tensor x, bool make, void **at)
{
    static const mb_custom_op_spec spec = {.name = "soft_sign", .elementwise = &soft_loops};
    (void)p, (void)at;
    const mb_tensor xs[2] = {x, mb_tanh(x)};
    return make ? x : own(&spec, xs, 2, (mb_custom_rule){.reverse = soft_reverse});
}

/* y[i] = x[0] + .. + x[i], each rounded where it is stored if it were summed in x's dtype. */
static mb_status running(const void *user, const mb_core_data *in, const mb_core_data *out,
                         const int64_t *attrs, int nattr)
{
    double sum = 0;
    (void)user, (void)attrs, (void)nattr;
    for (int64_t i = 0; i < in->dim[0]; i++) {
        bool wide = in->dtype == MB_FLOAT64;
        sum += wide ? ((double *)in->at)[i * in->stride[0]] : (double)((float *)in->at)[i * in->stride[0]];
        if (wide)
            ((double *)out->at)[i * out->stride[0]] = sum;
        else
            ((float *)out->at)[i * out->stride[0]] = (float)sum;
    }
    return MB_OK;
}

static mb_status running_reverse(const void *user, mb_context *ctx, const mb_custom_at *at,
                                 const mb_tensor *vs, mb_tensor *gs)
{
    (void)user, (void)at;
    gs[0] = mb_cumsum(vs[0], 1, true);
    return mb_error(ctx);
}

static mb_tensor running_sum(mb_params *p, mb_tensor x, bool make, void **at)
{
    static const mb_custom_op_spec spec = {.name = "running_sum",
                                           .operands = 1,
                                           .results = 1,
                                           .core_in = {1},
                                           .core_out = {1},
                                           .compute = running,
                                           .glsl = "void op() { T sum = T(0); for (int i = 0; i < "
                                                   "in0_size(0); i++) { sum += in0(i); set0(i, sum); } }"};
    (void)p, (void)at;
    return make ? x : own(&spec, &x, 1, (mb_custom_rule){.reverse = running_reverse});
}

/* sum of (y - a)^2 + exp(y) / 4: its minimum has a derivative by a. */
static mb_status loss_of(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    (void)user;
    mb_tensor far = mb_square(mb_sub(at->xs[0], at->params[0]));
    out[0] = mb_sum(mb_add(far, mb_mul(mb_exp(at->xs[0]), 0.25)), MB_ALL);
    return mb_error(ctx);
}

static mb_tensor a_minimum(mb_params *p, mb_tensor x, bool make, void **at)
{
    mb_tensor y = {0}, zero = mb_mul(x, 0.0);
    (void)p, (void)at;
    const mb_implicit_options o = {.steps = 5, .linear = {.steps = 3}};
    if (!make)
        mb_minimize((mb_map){.call = loss_of}, &zero, 1, &x, 1, o, &y, NULL);
    return make ? x : y;
}

static const layer layers[] = {{"linear", {3, {2, 10, 24}}, a_linear, 1},
                               {"layer norm", {3, {2, 10, 24}}, a_layer_norm, 1},
                               {"rms norm", {3, {2, 10, 24}}, an_rms_norm, 1},
                               {"softmax attention", {3, {2, 10, 24}}, attention, 1},
                               {"linear attention", {3, {2, 10, 24}}, linear_attention, 1},
                               {"ttt", {3, {2, 10, 24}}, ttt, 1},
                               {"ttt in a scan", {3, {2, 10, 24}}, ttt_in_a_scan, 1},
                               {"convolution", {4, {2, 3, 10, 12}}, a_convolution, 1},
                               {"average pool", {4, {2, 3, 7, 6}}, average_pool, 1},
                               {"batch norm", {3, {6, 4, 5}}, batch_norm, 1},
                               {"group norm", {4, {2, 4, 3, 5}}, group_norm, 1},
                               {"gru", {3, {2, 7, 6}}, a_gru, 1},
                               {"lstm", {3, {2, 7, 6}}, an_lstm, 1},
                               {"gated", {3, {2, 9, 8}}, gated, 4},
                               {"gated delta in chunks", {3, {2, 9, 8}}, gated_delta_in_chunks, 4},
                               {"mesa", {3, {2, 6, 8}}, mesa, 4},
                               {"mesanet", {3, {2, 6, 8}}, mesanet, 1},
                               {"equilibrium", {2, {4, 6}}, an_equilibrium, 1},
                               {"linear transformer", {3, {3, 6, 6}}, a_linear_transformer, 1},
                               {"self attention", {3, {3, 6, 6}}, a_self_attention, 1},
                               {"cholesky", {3, {3, 4, 4}}, a_factor, 1},
                               {"solve", {3, {3, 4, 4}}, a_solution, 1},
                               {"least squares", {3, {3, 6, 4}}, least_squares, 1},
                               {"log of a determinant", {3, {3, 4, 4}}, a_determinant, 1},
                               {"elementwise op of one's own", {2, {5, 7}}, soft_sign, 1},
                               {"op of one's own", {2, {5, 7}}, running_sum, 1},
                               {"a minimum", {1, {5}}, a_minimum, 1}};

enum { MOST = 40 };

static void off_by_rounding(const layer *l, const char *what, int dtype, double times, mb_tensor got,
                            mb_tensor want)
{
    double unit = dtype == MB_FLOAT16 ? 0x1p-10 : 0x1p-7;
    double off = sqrt(nmse(values(got), values(want), mb_count(want)));
    expect(off < times * unit, "%s, %s, %s: %g", l->name, mb_dtype_name((mb_dtype)dtype), what, off);
}

/* Value, derivatives by x and each parameter, and where `twice` those of the square of that by x. */
typedef struct derived {
    mb_params *p;
    mb_tensor y, xs[MOST], g[MOST], h[MOST];
    int n;
} derived;

static bool derive(mb_context *ctx, const layer *l, int dtype, bool wide, bool twice, derived *d)
{
    rng r = {11};
    void *at = NULL;
    d->p = mb_params_new(ctx, 5);
    mb_tensor x = mb_cast(draw(ctx, &r, MB_FLOAT32, l->shape, -1, 1), (mb_dtype)dtype), w;
    l->apply(d->p, x, true, &at);
    d->n = mb_params_list(d->p, d->xs + 1, MOST - 1);
    d->xs[0] = wide ? mb_cast(x, MB_FLOAT32) : x;
    d->y = l->apply(d->p, d->xs[0], false, &at);
    expect(mb_dtype_of(d->y) == mb_dtype_of(d->xs[0]), "%s: %s", l->name, mb_message(ctx));
    w = draw(ctx, &r, MB_FLOAT32, mb_shape_of(d->y), -1, 1);
    mb_grad(mb_sum(mb_mul(mb_cast(d->y, MB_FLOAT32), w), MB_ALL), d->xs, d->n + 1, d->g);
    if (twice)
        mb_grad(mb_sum(mb_square(mb_cast(d->g[0], MB_FLOAT32)), MB_ALL), d->xs, d->n + 1, d->h);
    return mb_error(ctx) == MB_OK;
}

/* Against float32 on reference. */
static void check_layer(const char *backend, const layer *l, int dtype)
{
    const bool twice = !testing("vulkan"); /* which writes the loops of solutions out */
    static derived got, want;
    mb_context *ctx = open_on(backend);
    if (!has_dtype(ctx, (mb_dtype)dtype)) {
        close_all();
        return;
    }
    if (!derive(ctx, l, dtype, false, twice, &got) ||
        !derive(open_on("reference"), l, dtype, true, twice, &want))
        return;
    off_by_rounding(l, "value", dtype, 2, got.y, want.y);
    for (int i = 0; i <= got.n; i++) {
        const char *by = i ? mb_params_name(got.p, i - 1) : "x";
        expect(mb_dtype_of(got.g[i]) == mb_dtype_of(got.xs[i]), "%s: derivative by %s", l->name, by);
        off_by_rounding(l, by, dtype, 4 * l->slack, got.g[i], want.g[i]);
        if (twice)
            off_by_rounding(l, by, dtype, 16 * l->slack, got.h[i], want.h[i]);
    }
    mb_params_free(got.p);
    mb_params_free(want.p);
    close_all();
}

Test(half, layers)
{
    for (int b = 0; b < 2; b++)
        for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
            for (int d = MB_FLOAT16; d <= MB_BFLOAT16; d++)
                if (!is_slow() || (b && (i + (size_t)d) % (testing("vulkan") ? 4 : 2) == 1)) /* in turn */
                    check_layer(backend_names[b], &layers[i], d);
}

/* Of the probability that it should have, in float32. */
Test(half, dropout)
{
    mb_context *ctx = open_on(backend_names[1]);
    mb_tensor x = mb_ones(ctx, MB_BFLOAT16, MB_SHAPE(1000)), y = mb_dropout(x, mb_key_of(2), 0.25, true);
    mb_tensor w = mb_dropout(mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1000)), mb_key_of(2), 0.25, true);
    expect(!has_dtype(ctx, MB_BFLOAT16) ||
               same_bits(values(y), values(mb_cast(mb_cast(w, MB_BFLOAT16), MB_FLOAT32)), 1000),
           "not the same ones");
    close_all();
}

Test(half, what_refuses_it_says_so)
{
    mb_context *ctx = open_on(backend_names[1]);
    mb_params *p = mb_params_new(ctx, 1);
    mb_tensor q = mb_ones(ctx, MB_FLOAT16, MB_SHAPE(1, 1, 2, 3)), k = mb_cast(q, MB_FLOAT32), y;
    y = mb_gated_attention(q, k, q, (mb_tensor){0}, (mb_gated_attention_options){0}, NULL);
    expect(!mb_valid(y) && strstr(mb_message(ctx), "q is float16, and k float32"), "%s", mb_message(ctx));
    mb_clear_error(ctx);
    expect(!mb_params_new_with(ctx, 1, MB_FLOAT16) && strstr(mb_message(ctx), "float16"), "%s",
           mb_message(ctx));
    mb_clear_error(ctx);
    mb_params_free(p);
    close_all();
}
