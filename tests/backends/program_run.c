/* SPDX-License-Identifier: MIT
 * program_run.c - recording, running and printing a random program. */
#include <tgmath.h>

#include "program.h"

/* ---- functions to choose from; those with a restricted domain get an operand inside it ---- */

static mb_tensor positive(mb_tensor x)
{
    return mb_add(mb_square(x), 0.4);
}

#define DIRECT(name)                                                                                         \
    static mb_tensor u_##name(mb_tensor x)                                                                   \
    {                                                                                                        \
        return mb_##name(x);                                                                                 \
    }
#define GUARDED(name)                                                                                        \
    static mb_tensor u_##name(mb_tensor x)                                                                   \
    {                                                                                                        \
        return mb_##name(positive(x));                                                                       \
    }
DIRECT(neg)
DIRECT(exp)
DIRECT(expm1)
DIRECT(sin)
DIRECT(cos)
DIRECT(tanh)
DIRECT(sigmoid)
DIRECT(erf)
DIRECT(square)
DIRECT(silu)
DIRECT(softplus)
DIRECT(gelu)
DIRECT(gelu_erf)
DIRECT(atan)
DIRECT(asinh)
GUARDED(recip)
GUARDED(sqrt)
GUARDED(rsqrt)
GUARDED(log)
GUARDED(log1p)

static mb_tensor u_abs(mb_tensor x)
{
    return mb_abs(mb_add(x, 0.123456789));
}
static mb_tensor u_relu(mb_tensor x)
{
    return mb_relu(mb_add(x, 0.123456789));
}
static mb_tensor u_elu(mb_tensor x)
{
    return mb_elu(mb_sub(x, 0.123456789));
}
static mb_tensor u_sign(mb_tensor x)
{
    return mb_sign(mb_add(x, 0.123456789));
}
static mb_tensor u_floor(mb_tensor x)
{
    return mb_floor(mb_add(mb_mul(x, 1.7), 0.123456789));
}
static mb_tensor u_trunc(mb_tensor x)
{
    return mb_cast(mb_add(mb_mul(x, 2.7), 0.123456789), MB_INT32);
}
static mb_tensor u_half(mb_tensor x)
{
    return mb_mul(x, 0.5);
}
static mb_tensor u_less(mb_tensor x)
{
    return mb_sub(0.75, x);
}

static mb_tensor (*const unary[])(mb_tensor) = {
    u_neg,      u_exp,  u_expm1,    u_sin,   u_cos,  u_tanh,  u_sigmoid, u_erf,   u_square, u_silu,
    u_softplus, u_gelu, u_gelu_erf, u_recip, u_sqrt, u_rsqrt, u_log,     u_log1p, u_abs,    u_relu,
    u_elu,      u_sign, u_floor,    u_trunc, u_half, u_less,  u_atan,    u_asinh};

static mb_tensor b_div(mb_tensor a, mb_tensor b)
{
    return mb_div(a, positive(b));
}
static mb_tensor b_pow(mb_tensor a, mb_tensor b)
{
    return mb_pow(positive(a), mb_tanh(b));
}
static mb_tensor b_atan2(mb_tensor a, mb_tensor b)
{
    return mb_atan2(a, positive(b));
}
static mb_tensor b_hypot(mb_tensor a, mb_tensor b)
{
    return mb_hypot(a, positive(b));
}
static mb_tensor b_add(mb_tensor a, mb_tensor b)
{
    return mb_add(a, b);
}
static mb_tensor b_sub(mb_tensor a, mb_tensor b)
{
    return mb_sub(a, b);
}
static mb_tensor b_mul(mb_tensor a, mb_tensor b)
{
    return mb_mul(a, b);
}
static mb_tensor b_max(mb_tensor a, mb_tensor b)
{
    return mb_maximum(a, b);
}
static mb_tensor b_min(mb_tensor a, mb_tensor b)
{
    return mb_minimum(a, b);
}
static mb_tensor (*const binary[])(mb_tensor, mb_tensor) = {b_add, b_sub, b_mul, b_mul,   b_max,
                                                            b_min, b_div, b_pow, b_atan2, b_hypot};
static mb_tensor (*const integer[])(mb_tensor, mb_tensor) = {b_add, b_sub, b_mul, b_max, b_min};

static mb_tensor f_softmax(mb_tensor x)
{
    return mb_softmax(x, -1);
}
static mb_tensor f_log_softmax(mb_tensor x)
{
    return mb_log_softmax(x, 0);
}
static mb_tensor f_sort(mb_tensor x)
{
    return mb_take_along(x, mb_argsort(mb_stop_gradient(x)));
}
static mb_tensor f_norm(mb_tensor x)
{
    mb_tensor centred = mb_sub(x, mb_mean(x, MB_KEEP(-1)));
    return mb_mul(centred, mb_rsqrt(mb_add(mb_variance(x, MB_KEEP(-1)), 0.1)));
}
static mb_tensor f_dot(mb_tensor x)
{
    return mb_mul(mb_dot(x, mb_sin(x)), 1.0 / (double)(1 + mb_count(x)));
}
static mb_tensor f_flip(mb_tensor x)
{
    return mb_flip(x, 0);
}
static mb_tensor f_normalized(mb_tensor x)
{
    return mb_layer_normalize(x, (mb_tensor){0}, (mb_tensor){0}, 0.1);
}
static mb_tensor f_gram(mb_tensor x) /* x x^T by the last axis */
{
    mb_tensor m = mb_reshape(x, MB_SHAPE(mb_dim(x, -1) ? mb_count(x) / mb_dim(x, -1) : 0, mb_dim(x, -1)));
    return mb_mul(mb_matmul(m, mb_transpose(m)), 0.2);
}
static mb_tensor f_unsqueeze(mb_tensor x)
{
    return mb_unsqueeze(x, -1);
}
/* x as matrices [..., k, n], and I + 0.2 y^T y of y = tanh(x), which is positive definite. */
static mb_tensor matrices(mb_tensor x)
{
    return mb_shape_of(x).rank < 2 ? mb_unsqueeze(x, 0) : x;
}
static mb_tensor definite(mb_tensor x)
{
    mb_tensor y = mb_tanh(matrices(x)), one = mb_eye(x.ctx, mb_dtype_of(x), mb_dim(y, -1));
    return mb_add(mb_mul(mb_matmul(mb_transpose(y), y), 0.2), one);
}
static mb_tensor f_cholesky(mb_tensor x)
{
    return mb_cholesky(definite(x));
}
static mb_tensor f_solve(mb_tensor x)
{
    return mb_solve_spd(definite(x), mb_transpose(matrices(x)));
}
static mb_tensor f_substitute(mb_tensor x)
{
    mb_tensor a = definite(x);
    return mb_triangular_solve(mb_flip(mb_flip(a, -1), -2), mb_slice(a, -1, 0, mb_dim(a, -1) ? 1 : 0, 1),
                               MB_UPPER);
}
static mb_tensor f_diagonal(mb_tensor x)
{
    mb_tensor y = matrices(x);
    return mb_mul(mb_tril(mb_diagonal_matrix(mb_diagonal(y)), 0), 0.7);
}
static mb_tensor f_cummax(mb_tensor x)
{
    return mb_cummax(x, -1, false);
}
static mb_tensor f_prod(mb_tensor x)
{
    return mb_prod(mb_tanh(x), MB_KEEP(0));
}
static mb_tensor f_gather(mb_tensor x)
{
    return mb_gather(x, mb_argsort(mb_stop_gradient(x)), 0);
}
static mb_tensor (*const function[])(mb_tensor) = {
    f_softmax,   f_log_softmax, f_sort,  f_norm,       f_dot,      f_flip,   f_normalized, f_gram,
    f_unsqueeze, f_cholesky,    f_solve, f_substitute, f_diagonal, f_cummax, f_prod,       f_gather};

#define LENGTH(a) ((int)(sizeof(a) / sizeof *(a)))
int program_choices(int kind)
{
    return kind == K_UNARY      ? LENGTH(unary)
           : kind == K_BINARY   ? LENGTH(binary)
           : kind == K_FUNCTION ? LENGTH(function)
           : kind == K_COMPARE  ? 3
           : kind == K_LOGIC    ? 3
                                : 0;
}

/* ---- recording ---- */

static bool is_whole(mb_dtype dtype)
{
    return dtype == MB_INT32 || dtype == MB_INT64 || dtype == MB_UINT8;
}

static bool is_rounded(const program *p, mb_dtype dtype)
{
    return dtype == p->dtype && p->data != MB_FLOAT32;
}

static mb_tensor record_leaf_of(mb_context *ctx, const program *p, int i, uint64_t data)
{
    const instr *x = &p->code[i];
    rng r = {data * 1000003u + p->seed * 131u + (uint64_t)i};
    mb_dtype dtype = is_rounded(p, x->dtype) ? p->data : x->dtype;
    switch (x->kind) {
    case K_SCALAR:
        return mb_scalar(ctx, dtype, rng_between(&r, -1.5, 1.5));
    case K_FULL:
        return mb_full(ctx, dtype, x->target, x->number);
    case K_IOTA: {
        int64_t n = x->target.rank ? x->target.dim[0] : 3;
        return dtype == MB_INT32 ? mb_iota(ctx, dtype, n) : mb_mul(mb_iota(ctx, dtype, n), 0.1);
    }
    case K_UNIFORM:
        return mb_uniform(ctx, mb_key_of(rng_bits(&r)), dtype, x->target);
    case K_NORMAL:
        return mb_normal(ctx, mb_key_of(rng_bits(&r)), dtype, x->target);
    case K_TRIL:
        return mb_tril_mask(ctx, 4, 5, 0);
    default:
        return is_whole(dtype) ? draw(ctx, &r, dtype, x->target, 0, 6)
                               : draw(ctx, &r, dtype, x->target, -1.5, 1.5);
    }
}

static mb_tensor record_leaf(mb_context *ctx, const program *p, int i, uint64_t data)
{
    mb_tensor t = record_leaf_of(ctx, p, i, data);
    return is_rounded(p, p->code[i].dtype) ? mb_cast(t, p->dtype) : t;
}

static mb_tensor record_binary(const instr *x, mb_tensor a, mb_tensor b)
{
    if (x->kind == K_COMPARE)
        return x->par[0] == 0 ? mb_lt(a, b) : x->par[0] == 1 ? mb_le(b, a) : mb_eq(a, b);
    if (x->kind == K_LOGIC)
        return x->par[0] == 0 ? mb_and(a, b) : x->par[0] == 1 ? mb_or(a, mb_not(b)) : mb_not(mb_and(b, a));
    if (mb_dtype_of(a) == MB_INT32)
        return integer[x->par[0] % LENGTH(integer)](a, b);
    return binary[x->par[0]](a, b);
}

static mb_tensor record_reduction(const instr *x, mb_tensor a, mb_tensor b)
{
    int axis = (int)x->par[0];
    switch (x->kind) {
    case K_SUM:
        return mb_sum(a, x->axes);
    case K_MEAN:
        return mb_mean(a, x->axes);
    case K_MAX:
        return mb_max(mb_add(a, b), x->axes);
    case K_MIN:
        return mb_min(mb_add(a, b), x->axes);
    case K_VARIANCE:
        return mb_variance(a, x->axes);
    case K_LOGSUMEXP:
        return mb_logsumexp(a, x->axes);
    case K_ARGMAX:
        return mb_argmax(mb_add(a, b), axis);
    case K_CUMSUM:
        return mb_cumsum(a, axis, x->par[1]);
    default:
        return mb_softmax(a, axis);
    }
}

/* The last carry, or a stack: of a whole value or of a sum. */
static mb_tensor record_scan(const instr *x, mb_tensor carry, mb_tensor slices, mb_tensor capture)
{
    mb_tensor w = carry, y = {0}, g, stack = {0};
    mb_scan s = mb_scan_begin_with(carry.ctx, mb_dim(slices, 0),
                                   (mb_scan_options){.backwards = x->par[1] != 0, .keep_every = x->par[3]});
    mb_scan_carry(s, &w);
    mb_tensor part = mb_scan_slice(s, slices);
    if (x->par[0] == 0) {
        y = mb_sin(mb_add(mb_mul(w, 0.7), mb_mul(part, capture)));
    } else if (x->par[0] == 1) {
        y = mb_tanh(mb_add(mb_sub(w, mb_mean(w, MB_ALL)), mb_mul(mb_cos(capture), part)));
    } else { /* a step down an inner loss */
        mb_grad(mb_sum(mb_mul(mb_sin(w), mb_sin(mb_add(part, capture))), MB_ALL), &w, 1, &g);
        y = mb_tanh(mb_sub(w, mb_mul(g, 0.3)));
    }
    mb_scan_stack(s, x->par[2] == 2 ? mb_sum(mb_mul(w, part), MB_ALL) : w, &stack);
    w = y;
    mb_scan_end(s);
    return x->par[2] ? stack : w;
}

/* The same derivative in two ways inside: what it keeps is computed again. */
static mb_tensor record_checkpoint(const instr *x, mb_tensor a, mb_tensor b)
{
    mb_checkpoint c = x->par[1] ? mb_checkpoint_products_begin(a.ctx) : mb_checkpoint_begin(a.ctx);
    mb_tensor y = mb_sin(mb_mul(a, b)), g;
    if (x->par[0] == 1) {
        y = mb_tanh(mb_add(mb_sub(y, mb_mean(y, MB_ALL)), a));
    } else if (x->par[0] == 2) { /* a step down an inner loss */
        mb_grad(mb_sum(mb_mul(y, mb_cos(y)), MB_ALL), &y, 1, &g);
        y = mb_tanh(mb_sub(y, mb_mul(g, 0.3)));
    }
    mb_checkpoint_end(c);
    return y;
}

static mb_tensor record_vmap(const instr *x, mb_tensor a)
{
    mb_tensor out = {0}, g;
    mb_vmap v = mb_vmap_begin(a.ctx, mb_dim(a, (int)x->par[0]));
    mb_tensor one = mb_vmap_in(v, a, (int)x->par[0]), y = mb_sin(one);
    if (x->par[1] == 0)
        y = mb_sub(y, mb_mean(one, MB_ALL));
    else if (x->par[1] == 1)
        y = mb_mul(mb_cumsum(mb_reshape(y, MB_SHAPE(-1)), 0, false), 0.1);
    else
        mb_grad(mb_mul(mb_sum(mb_mul(y, one), MB_ALL), mb_cos(mb_mean(one, MB_ALL))), &one, 1, &g);
    mb_vmap_out(v, x->par[1] == 2 ? g : y, 0, &out);
    mb_vmap_end(v);
    return out;
}

/* x / (1 + |x|), and y[i] = (x[i] + x[n - 1 - i]) / 2, which is its own adjoint. */
MB_ELEMENTWISE_1(soft_sign, x / (1 + fabs(x)))

static mb_status compute_mirror(const void *user, const mb_core_data *in, const mb_core_data *out,
                                const int64_t *attrs, int nattr)
{
    (void)user, (void)attrs, (void)nattr;
    int64_t n = in->dim[0];
    for (int64_t i = 0; i < n; i++) {
        int64_t here = i * in->stride[0], there = (n - 1 - i) * in->stride[0], to = i * out->stride[0];
        if (in->dtype == MB_FLOAT64)
            ((double *)out->at)[to] = (((double *)in->at)[here] + ((double *)in->at)[there]) / 2;
        else
            ((float *)out->at)[to] = (((float *)in->at)[here] + ((float *)in->at)[there]) / 2;
    }
    return MB_OK;
}

static const mb_custom_op_spec soft_spec = {.name = "soft_sign", .elementwise = &soft_sign},
                               mirror_spec = {
                                   .name = "mirror",
                                   .operands = 1,
                                   .results = 1,
                                   .core_in = {1},
                                   .core_out = {1},
                                   .compute = compute_mirror,
                                   .glsl = "void op() { int n = in0_size(0); for (int i = 0; i < n; i++) "
                                           "set0(i, (in0(i) + in0(n - 1 - i)) / 2); }"};

static mb_tensor applied(const mb_custom_op_spec *spec, mb_tensor x)
{
    mb_tensor y = {0};
    mb_custom_op_apply(mb_custom_op_new(x.ctx, spec), &x, NULL, 0, &y);
    return y;
}

static mb_status soft_reverse(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                              mb_tensor *gs)
{
    (void)user;
    gs[0] = mb_mul(vs[0], mb_square(mb_sub(1.0, mb_abs(at->ys[0]))));
    return mb_error(ctx);
}

static mb_tensor mirror(mb_tensor x);
static mb_status mirror_reverse(const void *user, mb_context *ctx, const mb_custom_at *at,
                                const mb_tensor *vs, mb_tensor *gs)
{
    (void)user, (void)at;
    gs[0] = mirror(vs[0]);
    return mb_error(ctx);
}

static mb_tensor mirror(mb_tensor x)
{
    mb_tensor y = applied(&mirror_spec, x), out;
    mb_custom_gradient(&y, 1, &x, 1, (mb_custom_rule){.reverse = mirror_reverse}, &out);
    return out;
}

static mb_tensor record_custom(const instr *x, mb_tensor a)
{
    if (x->par[0])
        return mirror(a);
    mb_tensor moved = mb_add(a, 0.123456789), y = applied(&soft_spec, moved), out;
    mb_custom_gradient(&y, 1, &moved, 1, (mb_custom_rule){.reverse = soft_reverse}, &out);
    return out;
}

static mb_tensor record_wide(mb_tensor a)
{
    mb_dtype wide = mb_dtype_of(a) == MB_FLOAT32 ? MB_FLOAT64 : MB_FLOAT32;
    return mb_cast(mb_mul(mb_sin(mb_cast(a, wide)), 0.8), mb_dtype_of(a));
}

mb_tensor program_record(mb_context *ctx, const program *p, int i, const mb_tensor *v, uint64_t data)
{
    const instr *x = &p->code[i];
    if (x->kind <= K_TRIL)
        return record_leaf(ctx, p, i, data);
    mb_tensor a = v[x->in[0]], b = x->nin > 1 ? v[x->in[1]] : a, c = x->nin > 2 ? v[x->in[2]] : a;
    int axis = (int)x->par[0];
    switch (x->kind) {
    case K_UNARY:
        return unary[x->par[0]](a);
    case K_FUNCTION:
        return function[x->par[0]](a);
    case K_WHERE:
        return mb_where(a, b, c);
    case K_CAST:
        return mb_cast(a, x->dtype);
    case K_RESHAPE:
        return mb_reshape(a, x->target);
    case K_PERMUTE:
        return mb_permute(a, x->axes);
    case K_BROADCAST:
        return mb_broadcast(a, x->target);
    case K_SLICE:
        return mb_slice(a, axis, x->par[1], x->par[2], x->par[3]);
    case K_PAD:
        return mb_pad(a, axis, x->par[1], x->par[2]);
    case K_WINDOWS: {
        mb_window w = {x->par[1], x->par[2], x->par[3]};
        return mb_fold(mb_unfold(a, axis, w), axis, w, mb_dim(a, axis));
    }
    case K_CONCAT:
        return mb_concat((mb_tensor[]){a, b, c}, x->nin, axis);
    case K_STACK:
        return mb_stack((mb_tensor[]){a, b, c}, x->nin, axis);
    case K_MATMUL:
        return mb_mul(mb_matmul(a, b), 0.3);
    case K_EINSUM:
        return mb_mul(mb_einsum(x->equation, a, b), 0.3);
    case K_TAKE:
        return mb_take(a, b, axis);
    case K_SCATTER_ADD:
        return mb_scatter_add(a, b, axis, x->par[1]);
    case K_TAKE_ALONG:
        return mb_take_along(a, b);
    case K_ARGSORT: /* in float32, of computed sums some are as good as equal, and rounding decides */
        return mb_argsort(mb_add(mb_dtype_of(a) == MB_FLOAT32 ? mb_sub(a, a) : a, b));
    case K_ONE_HOT:
        return mb_one_hot(a, x->par[0]);
    case K_ALIAS:
        return mb_alias(a);
    case K_STOP:
        return mb_stop_gradient(a);
    case K_SCAN:
        return record_scan(x, a, b, c);
    case K_CHECKPOINT:
        return record_checkpoint(x, a, b);
    case K_VMAP:
        return record_vmap(x, a);
    case K_CUSTOM:
        return record_custom(x, a);
    case K_WIDE:
        return record_wide(a);
    default:
        return x->kind <= K_LOGIC ? record_binary(x, a, b) : record_reduction(x, a, b);
    }
}

/* ---- running ---- */

typedef struct session {
    mb_context *ctx;
    const program *p;
    mb_tensor variable[PROGRAM_MOST]; /* of K_VARIABLE; none: a buffer takes its place */
    mb_tensor v[PROGRAM_MOST], xs[PROGRAM_MOST], got[RESULT_MOST];
    int nx, n;
} session;

static void add(session *s, mb_tensor t)
{
    if (s->n < RESULT_MOST)
        s->got[s->n++] = t;
}

static mb_tensor loss_of(session *s)
{
    mb_tensor sum = {0};
    for (int i = 0; i < s->p->loss_count; i++) {
        mb_tensor x = s->v[s->p->loss[i]];
        mb_tensor l = mb_sum(mb_sin(mb_add(x, 0.3 * i)), MB_ALL);
        l = mb_mul(l, 1.0 / (double)(1 + mb_count(x)));
        sum = i ? mb_add(sum, l) : l;
    }
    return sum;
}

static mb_tensor direction(const session *s, rng *r, mb_shape shape)
{
    bool rounded = is_rounded(s->p, s->p->dtype);
    mb_tensor t = draw(s->ctx, r, rounded ? s->p->data : s->p->dtype, shape, -1, 1);
    return rounded ? mb_cast(t, s->p->dtype) : t;
}

static void derive(session *s)
{
    mb_tensor g[PROGRAM_MOST], w[PROGRAM_MOST], y = loss_of(s);
    rng r = {s->p->seed};
    for (int i = 0; i < s->nx; i++)
        w[i] = direction(s, &r, mb_shape_of(s->xs[i]));
    int n = s->nx;
    switch (s->p->derivative) {
    case D_JVP:
        mb_jvp(&s->v[s->p->loss[0]], 1, s->xs, w, n, g);
        n = 1;
        break;
    case D_HVP:
        mb_hvp(y, s->xs, w, n, g);
        break;
    case D_VJP: {
        mb_tensor first = s->v[s->p->loss[0]];
        mb_vjp(first, direction(s, &r, mb_shape_of(first)), s->xs, n, g);
        break;
    }
    default:
        for (int order = D_GRAD; order <= (int)s->p->derivative; order++) {
            if (order == D_HVP || order == D_JVP || order == D_VJP)
                continue;
            mb_grad(y, s->xs, n, g);
            for (int i = 0; i < n && order < (int)s->p->derivative; i++) {
                mb_tensor l = mb_sum(mb_mul(g[i], w[i]), MB_ALL);
                y = i ? mb_add(y, l) : l;
            }
        }
    }
    for (int i = 0; i < n; i++)
        add(s, g[i]);
}

/* Elements off by a rounding or two: what that does to a result tells how well conditioned it is. */
static mb_tensor shaken(mb_context *ctx, const program *p, int i, mb_tensor x, unsigned way)
{
    rng r = {p->seed * 77u + (uint64_t)i * 1009u + way};
    double size = p->dtype == MB_FLOAT64   ? 0x1p-51
                  : p->dtype == MB_FLOAT32 ? 0x1p-22
                  : p->dtype == MB_FLOAT16 ? 0x1p-9
                                           : 0x1p-6;
    return mb_dtype_of(x) != p->dtype
               ? x
               : mb_mul(x, draw(ctx, &r, p->dtype, mb_shape_of(x), 1 - size, 1 + size));
}

/* One step: record, derive, assign to variables, read. */
static bool step(session *s, uint64_t data, unsigned style, result *r)
{
    const program *p = s->p;
    mb_scope scope = {0};
    if (style & RUN_SCOPE || p->steps)
        scope = mb_scope_begin(s->ctx);
    s->n = s->nx = 0;
    for (int i = 0; i < p->count; i++) {
        bool variable = p->code[i].kind == K_VARIABLE && s->variable[i].id;
        s->v[i] = variable ? mb_mul(s->variable[i], 1.0) : program_record(s->ctx, p, i, s->v, data);
        if (style >= RUN_SHAKEN)
            s->v[i] = shaken(s->ctx, p, i, s->v[i], style / RUN_SHAKEN);
        if ((p->code[i].kind <= K_SCALAR || p->code[i].kind == K_NORMAL) && p->code[i].dtype == p->dtype)
            s->xs[s->nx++] = s->v[i];
    }
    for (int i = 0; i < p->output_count; i++)
        add(s, s->v[p->outputs[i]]);
    if (style & RUN_EARLY && s->n)
        mb_eval(&s->got[0], 1);
    if (p->derivative != D_NONE && s->nx)
        derive(s);
    for (int i = 0; i < p->count; i++)
        if (p->steps && s->variable[i].id) { /* towards some value of its shape */
            mb_tensor x = s->v[i];
            mb_assign(s->variable[i], mb_mul(0.9, mb_sin(mb_add(x, 0.1))));
            add(s, mb_mul(s->variable[i], x)); /* new and old value */
        }
    double *watched[RESULT_MOST];
    if (style & RUN_WATCH)
        for (int i = 0; i < s->n; i++) {
            watched[i] = calloc((size_t)mb_count(s->got[i]) + 1, 8);
            mb_watch(s->got[i], watched[i],
                     (size_t)mb_count(s->got[i]) * mb_dtype_size(mb_dtype_of(s->got[i])));
        }
    bool ok = !s->n || mb_eval(s->got, s->n) == MB_OK;
    for (int i = 0; ok && i < s->n && r->n < RESULT_MOST; i++) {
        r->count[r->n] = mb_count(s->got[i]);
        r->exact[r->n] = is_whole(mb_dtype_of(s->got[i])) || mb_dtype_of(s->got[i]) == MB_BOOL;
        r->v[r->n] = style & RUN_FAILING ? values_if(s->got[i]) : values(s->got[i]);
        if (!r->v[r->n]) {
            ok = false;
            break;
        }
        if (style & RUN_WATCH && mb_dtype_of(s->got[i]) == MB_FLOAT64)
            expect(same_bits(watched[i], r->v[r->n], r->count[r->n]), "seed %llu: a watched value differs",
                   (unsigned long long)p->seed);
        r->n++;
    }
    if (style & RUN_WATCH)
        for (int i = 0; i < s->n; i++)
            free(watched[i]);
    if (style & RUN_SCOPE || p->steps)
        mb_scope_end(scope);
    return mb_error(s->ctx) == MB_OK;
}

bool program_run(mb_context *ctx, const program *p, uint64_t data, unsigned style, result *r)
{
    session *s = calloc(1, sizeof *s);
    s->ctx = ctx;
    s->p = p;
    r->n = 0;
    bool ok = true;
    for (int i = 0; i < p->count && p->steps; i++)
        if (p->code[i].kind == K_VARIABLE) {
            s->variable[i] = mb_variable(ctx, p->code[i].dtype, p->code[i].target);
            mb_assign(s->variable[i], record_leaf(ctx, p, i, data));
        }
    for (int k = 0; ok && k < (p->steps ? p->steps : 1); k++)
        ok = step(s, data + (uint64_t)k, style, r);
    free(s);
    return ok;
}

/* ---- printing ---- */

void program_print(const program *p, FILE *f)
{
    static const char *const names[K_ALL_KINDS] = {
        "buffer",  "variable",  "scalar",     "full",        "iota",       "uniform", "normal",  "tril",
        "unary",   "binary",    "function",   "compare",     "logic",      "where",   "cast",    "reshape",
        "permute", "broadcast", "slice",      "pad",         "windows",    "concat",  "stack",   "sum",
        "mean",    "max",       "min",        "variance",    "logsumexp",  "argmax",  "cumsum",  "softmax",
        "matmul",  "einsum",    "take",       "scatter_add", "take_along", "argsort", "one_hot", "alias",
        "stop",    "scan",      "checkpoint", "vmap",        "custom",     "wide"};
    static const char *const orders[D_KINDS] = {"none", "grad", "grad of grad", "jvp",
                                                "hvp",  "vjp",  "grad 3 times"};
    fprintf(f, "program %llu, %s\n", (unsigned long long)p->seed, mb_dtype_name(p->dtype));
    for (int i = 0; i < p->count; i++) {
        const instr *x = &p->code[i];
        fprintf(f, "  v%d = %s(", i, names[x->kind]);
        for (int k = 0; k < x->nin; k++)
            fprintf(f, "%sv%d", k ? ", " : "", x->in[k]);
        fprintf(f, ") par %lld %lld %lld %lld", (long long)x->par[0], (long long)x->par[1],
                (long long)x->par[2], (long long)x->par[3]);
        if (x->kind == K_FULL)
            fprintf(f, " = %g", x->number);
        if (x->axes.count)
            fprintf(f, " axes %d%s: %d %d %d %d", x->axes.count, x->axes.keep ? " keep" : "", x->axes.axis[0],
                    x->axes.axis[1], x->axes.axis[2], x->axes.axis[3]);
        fprintf(f, " %s %s%s\n", x->equation, shape_text(x->shape), mb_dtype_name(x->dtype));
    }
    fprintf(f, "  derivative: %s of", orders[p->derivative]);
    for (int i = 0; i < p->loss_count; i++)
        fprintf(f, " v%d", p->loss[i]);
    fprintf(f, "; outputs:");
    for (int i = 0; i < p->output_count; i++)
        fprintf(f, " v%d", p->outputs[i]);
    fprintf(f, "; steps %d\n", p->steps);
}
