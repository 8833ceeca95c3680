/* SPDX-License-Identifier: MIT
 * functions.c - functions made of other ops, which have the derivatives. */
#include <math.h>

#include "tensor/internal.h"

#define lit mb__const_like

mb_tensor mb_exp2_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    mb_tensor wide = mb__wide(x);
    return mb__narrow(mb_pow(lit(wide, 2), wide), x);
}

mb_tensor mb_log2_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    mb_tensor natural = mb_log(mb__wide(x));
    return mb__narrow(mb_mul(natural, lit(natural, 1.4426950408889634)), x); /* 1 / log 2 */
}

mb_tensor mb_log10_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    mb_tensor natural = mb_log(mb__wide(x));
    return mb__narrow(mb_mul(natural, lit(natural, 0.4342944819032518)), x); /* 1 / log 10 */
}

mb_tensor mb_clamp_at(const char *site, mb_tensor x, double low, double high)
{
    MB_ENTER(site, "clamp", &x);
    mb_dtype dtype = (mb_dtype)mb__at(ctx, x.id)->dtype;
    if (!mb__is_number((int)dtype)) {
        char a[256];
        mb__error(ctx, MB_INVALID, "clamp: got %s; wanted numbers", mb__tensor_text(a, sizeof a, x));
        return mb__poison(ctx);
    }
    mb_tensor least = mb_scalar(ctx, dtype, low), most = mb_scalar(ctx, dtype, high);
    return mb_where(mb_lt(most, x), most, mb_where(mb_lt(x, least), least, x));
}

mb_tensor mb_isnan_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    mb_tensor size = mb_abs(x);
    return mb_not(mb_eq(size, size));
}

mb_tensor mb_isinf_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    mb_tensor size = mb_abs(x);
    return mb_eq(size, lit(size, (double)INFINITY));
}

mb_tensor mb_isfinite_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    mb_tensor size = mb_abs(x);
    return mb_lt(size, lit(size, (double)INFINITY));
}

mb_tensor mb_square_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    return mb_mul(x, x);
}

mb_tensor mb_relu_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    /* A selection, not a maximum, so that the derivative at 0 is 0; NaN is propagated. */
    mb_tensor zero = lit(x, 0);
    return mb_where(mb_le(x, zero), zero, x);
}

/* x gate(x), of a gate that is 0 below -bound and 1 above bound, to rounding and with all derivatives 0,
 * while its formula and theirs meet infinities there: the gate is made of x held within the bounds, `inside`.
 * The derivatives are the formula's, taken at `inside`: beyond, they are 0 and 1 as they are at the bounds.
 * So that no select need keep them apart: all that is multiplied is finite. */
typedef struct gated {
    mb_tensor from_low, inside; /* x held from below; from below and above */
} gated;

static gated hold(mb_tensor x, double bound)
{
    mb_tensor low = mb_maximum(x, lit(x, -bound));
    return (gated){low, mb__substitute(mb_minimum(low, lit(x, bound)), x)};
}

static mb_tensor gated_by(gated x, mb_tensor gate)
{
    return mb__substitute(mb_mul(x.from_low, gate), mb_mul(x.inside, gate));
}

mb_tensor mb_silu_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    gated u = hold(x, 800); /* sigmoid(-800) is 0 in float64, too */
    return gated_by(u, mb_sigmoid(u.inside));
}

mb_tensor mb_softplus_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    /* max(x, 0) + log1p(e^-|x|). At 0 both selections take the branch of x <= 0, log1p(e^x), whose
     * derivatives of every order are right there. */
    mb_tensor positive = mb_lt(lit(x, 0), x);
    mb_tensor minus_abs = mb_where(positive, mb_neg(x), x);
    mb_tensor small = mb_log1p(mb_exp(minus_abs));
    return mb_where(positive, mb_add(x, small), small);
}

mb_tensor mb_elu_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    mb_tensor zero = lit(x, 0), positive = mb_lt(zero, x);
    mb_tensor below = mb_where(positive, zero, x); /* so that expm1 never overflows */
    return mb_where(positive, x, mb_expm1(below));
}

mb_tensor mb_gelu_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    /* x (1 + tanh(z)) / 2 = x sigmoid(2 z), z = sqrt(2 / pi) (x + 0.044715 x^3); at the bound 2 z is 1025,
     * and the sigmoid of -2 z is 0 in float64, too. */
    const double k = 2 * 0.7978845608028654;
    gated u = hold(x, 24);
    mb_tensor inner = mb_add(mb_mul(mb_mul(u.inside, u.inside), lit(x, k * 0.044715)), lit(x, k));
    return gated_by(u, mb_sigmoid(mb_mul(u.inside, inner)));
}

mb_tensor mb_gelu_erf_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    gated u = hold(x, 40); /* where the slope of erf, e^-800, is 0 in float64, too */
    mb_tensor t = mb_erf(mb_mul(u.inside, lit(x, 0.7071067811865476)));
    return gated_by(u, mb_mul(mb_add(t, lit(x, 1)), lit(x, 0.5)));
}

/* Checks what the ops inside would report less clearly. */
static bool float_axis(const char *op, mb_tensor x, int axis)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(op, (const mb_tensor *[]){&x}, 1, &poison);
    if (!ctx)
        return false;
    char a[256];
    if (mb__is_float(mb__at(ctx, x.id)->dtype))
        return mb__axis(op, x, axis) >= 0;
    mb__error(ctx, MB_INVALID, "%s: got %s; wanted floats", op, mb__tensor_text(a, sizeof a, x));
    return false;
}

mb_tensor mb__below_top(mb_tensor x, mb_tensor top)
{
    mb_tensor infinite = mb_eq(x, lit(x, (double)INFINITY));
    return mb_where(infinite, lit(x, 0), mb_sub(x, top));
}

mb_tensor mb_softmax_at(const char *site, mb_tensor x, int axis)
{
    MB_SITE(x.ctx, site);
    if (!float_axis("softmax", x, axis))
        return mb__poison(x.ctx);
    if (mb_dim(x, axis) == 0)
        return x; /* no elements */
    if (mb__halved(x))
        return mb__narrow(mb_softmax(mb__wide(x), axis), x);
    mb_tensor top = mb_stop_gradient(mb_max(x, MB_KEEP(axis)));
    mb_tensor e = mb_exp(mb__below_top(x, top));
    return mb_mul(e, mb_recip(mb_sum(e, MB_KEEP(axis))));
}

mb_tensor mb_log_softmax_at(const char *site, mb_tensor x, int axis)
{
    MB_SITE(x.ctx, site);
    if (!float_axis("log_softmax", x, axis))
        return mb__poison(x.ctx);
    if (mb_dim(x, axis) == 0)
        return x; /* no elements */
    if (mb__halved(x))
        return mb__narrow(mb_log_softmax(mb__wide(x), axis), x);
    mb_tensor top = mb_stop_gradient(mb_max(x, MB_KEEP(axis)));
    mb_tensor shifted = mb__below_top(x, top);
    return mb_sub(shifted, mb_log(mb_sum(mb_exp(shifted), MB_KEEP(axis))));
}

mb_tensor mb_dot_at(const char *site, mb_tensor a, mb_tensor b)
{
    MB_ENTER(site, "dot", &a, &b);
    const mb__node *n = mb__at(ctx, a.id), *m = mb__at(ctx, b.id);
    if (n->rank != m->rank || memcmp(n->dim, m->dim, (size_t)n->rank * sizeof *n->dim)) {
        char ta[256], tb[256];
        mb__error(ctx, MB_INVALID, "dot: shapes differ: a %s, b %s", mb__tensor_text(ta, sizeof ta, a),
                  mb__tensor_text(tb, sizeof tb, b));
        return mb__poison(ctx);
    }
    return mb__narrow(mb_sum(mb_mul(mb__wide(a), mb__wide(b)), MB_ALL), a);
}

mb_tensor mb_full_at(const char *site, mb_context *ctx, mb_dtype dtype, mb_shape shape, double value)
{
    MB_SITE(ctx, site);
    if (!mb__enter_context("full", ctx) || !mb__check_shape(ctx, "full", dtype, shape))
        return mb__poison(ctx);
    mb_tensor t = mb__const(ctx, dtype, value);
    return shape.rank && t.id ? mb_broadcast(t, shape) : t;
}

mb_tensor mb_tril_mask_at(const char *site, mb_context *ctx, int64_t rows, int64_t columns, int64_t diagonal)
{
    MB_SITE(ctx, site);
    mb_tensor r = mb_iota(ctx, MB_INT32, rows), c = mb_iota(ctx, MB_INT32, columns);
    mb_tensor limit = mb_add(mb_unsqueeze(r, 1), mb_full(ctx, MB_INT32, MB_SHAPE0, (double)diagonal));
    return mb_le(c, limit);
}

mb_tensor mb_eye_at(const char *site, mb_context *ctx, mb_dtype dtype, int64_t n)
{
    MB_SITE(ctx, site);
    mb_tensor i = mb_iota(ctx, MB_INT32, n);
    return mb_cast(mb_eq(mb_unsqueeze(i, 1), i), dtype);
}

mb_tensor mb_logsumexp_at(const char *site, mb_tensor x, mb_axes axes)
{
    MB_ENTER(site, "logsumexp", &x);
    uint32_t mask;
    if (!mb__axes_mask("logsumexp", x, axes, &mask))
        return poison;
    if (mb__halved(x))
        return mb__narrow(mb_logsumexp(mb__wide(x), axes), x);
    mb_dtype dtype = (mb_dtype)mb__at(ctx, x.id)->dtype;
    if (!mb__is_float(dtype)) {
        char a[256];
        mb__error(ctx, MB_INVALID, "logsumexp: got %s; wanted floats", mb__tensor_text(a, sizeof a, x));
        return mb__poison(ctx);
    }
    mb_axes keep = axes;
    keep.keep = true;
    /* Rows of -infinity alone, or without entries: 0 replaces their largest, and 1 their sum of 0. */
    mb_tensor top = mb_stop_gradient(mb_max(x, keep));
    mb_tensor none = mb_eq(top, mb__const(ctx, dtype, -(double)INFINITY));
    mb_tensor base = mb_where(none, mb__const(ctx, dtype, 0), top);
    mb_tensor s = mb_sum(mb_exp(mb__below_top(x, base)), keep);
    s = mb_where(none, mb__const(ctx, dtype, 1), s);
    mb_tensor y = mb_add(mb_log(s), top);
    return axes.keep ? y : mb__drop_axes(y, mask);
}
