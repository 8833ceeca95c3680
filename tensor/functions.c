/* SPDX-License-Identifier: MIT
 * functions.c - common functions, recorded as primitive ops, so that every order of derivative is theirs. */
#include <math.h>

#include "tensor/tape.h"

/* A literal of x's dtype; poison stays poison. */
static mb_tensor lit(const char *where, mb_tensor x, double value)
{
    if (!x.ctx || !x.id || !mb_valid(x) || mb_error(x.ctx) != MB_OK)
        return mb__poison(x.ctx);
    return mb__const(x.ctx, where, (mb_dtype)mb__at(x.ctx, x.id)->dtype, value);
}

mb_tensor mb_alias_at(const char *where, mb_tensor x)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "alias", (const mb_tensor *[]){&x}, 1, &poison);
    if (!ctx)
        return poison;
    int64_t dim[MB_MAX_RANK];
    const mb__node *n = mb__at(ctx, x.id);
    memcpy(dim, n->dim, sizeof dim);
    return mb__record(ctx, where, MB_OP_ALIAS, (mb_dtype)n->dtype, n->rank, dim, &x, 1, NULL, 0);
}

mb_tensor mb_stop_gradient_at(const char *where, mb_tensor x)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "stop_gradient", (const mb_tensor *[]){&x}, 1, &poison);
    if (!ctx)
        return poison;
    int64_t dim[MB_MAX_RANK];
    const mb__node *n = mb__at(ctx, x.id);
    memcpy(dim, n->dim, sizeof dim);
    return mb__record(ctx, where, MB_OP_STOP, (mb_dtype)n->dtype, n->rank, dim, &x, 1, NULL, 0);
}

mb_tensor mb_square_at(const char *where, mb_tensor x)
{
    const char *call = mb__call_begin(x.ctx, "square");
    return mb__call_end(x.ctx, call, mb_mul_at(where, x, x));
}

mb_tensor mb_relu_at(const char *where, mb_tensor x)
{
    const char *call = mb__call_begin(x.ctx, "relu");
    /* A select, not a maximum: the derivative at 0 is 0, and NaN passes through. */
    mb_tensor zero = lit(where, x, 0);
    return mb__call_end(x.ctx, call, mb_where_at(where, mb_le_at(where, x, zero), zero, x));
}

/* For functions that are 0 below -bound and x above, to rounding and with all derivatives, while their
 * formulas would meet 0 times infinity there: x held within the bounds, and where it is above. */
static mb_tensor levels(const char *where, mb_tensor x, double bound, mb_tensor *above)
{
    mb_tensor low = lit(where, x, -bound), high = lit(where, x, bound);
    *above = mb_lt_at(where, high, x);
    return mb_where_at(where, *above, high, mb_where_at(where, mb_lt_at(where, x, low), low, x));
}

mb_tensor mb_silu_at(const char *where, mb_tensor x)
{
    const char *call = mb__call_begin(x.ctx, "silu");
    mb_tensor above, u = levels(where, x, 800, &above); /* sigmoid(-800) is 0 in float64, too */
    return mb__call_end(x.ctx, call,
                        mb_where_at(where, above, x, mb_mul_at(where, u, mb_sigmoid_at(where, u))));
}

mb_tensor mb_softplus_at(const char *where, mb_tensor x)
{
    const char *call = mb__call_begin(x.ctx, "softplus");
    /* max(x, 0) + log1p(e^-|x|). At 0 both selects take the branch of x <= 0, which is log1p(e^x) and has all
     * its derivatives there. */
    mb_tensor positive = mb_lt_at(where, lit(where, x, 0), x);
    mb_tensor minus_abs = mb_where_at(where, positive, mb_neg_at(where, x), x);
    mb_tensor small = mb_log1p_at(where, mb_exp_at(where, minus_abs));
    return mb__call_end(x.ctx, call, mb_where_at(where, positive, mb_add_at(where, x, small), small));
}

mb_tensor mb_elu_at(const char *where, mb_tensor x)
{
    const char *call = mb__call_begin(x.ctx, "elu");
    mb_tensor zero = lit(where, x, 0), positive = mb_lt_at(where, zero, x);
    mb_tensor below = mb_where_at(where, positive, zero, x); /* expm1 never sees what would overflow */
    return mb__call_end(x.ctx, call, mb_where_at(where, positive, x, mb_expm1_at(where, below)));
}

/* tanh and erf are 1 to rounding of float64 at these bounds. */
mb_tensor mb_gelu_at(const char *where, mb_tensor x)
{
    const char *call = mb__call_begin(x.ctx, "gelu");
    const double k = 0.7978845608028654; /* sqrt(2 / pi) */
    mb_tensor above, u = levels(where, x, 8, &above), u2 = mb_mul_at(where, u, u);
    mb_tensor inner = mb_add_at(where, mb_mul_at(where, u2, lit(where, x, k * 0.044715)), lit(where, x, k));
    mb_tensor t = mb_tanh_at(where, mb_mul_at(where, u, inner));
    mb_tensor half = mb_mul_at(where, u, lit(where, x, 0.5));
    return mb__call_end(x.ctx, call,
                        mb_where_at(where, above, x, mb_add_at(where, half, mb_mul_at(where, half, t))));
}

mb_tensor mb_gelu_erf_at(const char *where, mb_tensor x)
{
    const char *call = mb__call_begin(x.ctx, "gelu_erf");
    mb_tensor above, u = levels(where, x, 9, &above);
    mb_tensor t = mb_erf_at(where, mb_mul_at(where, u, lit(where, x, 0.7071067811865476)));
    mb_tensor half = mb_mul_at(where, u, lit(where, x, 0.5));
    return mb__call_end(x.ctx, call,
                        mb_where_at(where, above, x, mb_add_at(where, half, mb_mul_at(where, half, t))));
}

/* Checks under the function's own name what its parts would report under theirs. */
static bool float_axis(const char *where, const char *op, mb_tensor x, int axis)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, op, (const mb_tensor *[]){&x}, 1, &poison);
    if (!ctx)
        return false;
    char a[256];
    if (mb__is_float(mb__at(ctx, x.id)->dtype))
        return mb__axis(where, op, x, axis) >= 0;
    mb__error(ctx, MB_INVALID, where, "%s: got %s; wanted float32 or float64", op,
              mb__tensor_text(a, sizeof a, x));
    return false;
}

mb_tensor mb__below_top(const char *where, mb_tensor x, mb_tensor top)
{
    mb_tensor infinite = mb_eq_at(where, x, lit(where, x, (double)INFINITY));
    return mb_where_at(where, infinite, lit(where, x, 0), mb_sub_at(where, x, top));
}

mb_tensor mb_softmax_at(const char *where, mb_tensor x, int axis)
{
    if (!float_axis(where, "softmax", x, axis))
        return mb__poison(x.ctx);
    const char *call = mb__call_begin(x.ctx, "softmax");
    mb_tensor top = mb_stop_gradient_at(where, mb_max_at(where, x, MB_KEEP(axis)));
    mb_tensor e = mb_exp_at(where, mb__below_top(where, x, top));
    return mb__call_end(x.ctx, call,
                        mb_mul_at(where, e, mb_recip_at(where, mb_sum_at(where, e, MB_KEEP(axis)))));
}

mb_tensor mb_log_softmax_at(const char *where, mb_tensor x, int axis)
{
    if (!float_axis(where, "log_softmax", x, axis))
        return mb__poison(x.ctx);
    const char *call = mb__call_begin(x.ctx, "log_softmax");
    mb_tensor top = mb_stop_gradient_at(where, mb_max_at(where, x, MB_KEEP(axis)));
    mb_tensor shifted = mb__below_top(where, x, top);
    return mb__call_end(
        x.ctx, call,
        mb_sub_at(where, shifted,
                  mb_log_at(where, mb_sum_at(where, mb_exp_at(where, shifted), MB_KEEP(axis)))));
}

mb_tensor mb_dot_at(const char *where, mb_tensor a, mb_tensor b)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "dot", (const mb_tensor *[]){&a, &b}, 2, &poison);
    if (!ctx)
        return poison;
    const mb__node *n = mb__at(ctx, a.id), *m = mb__at(ctx, b.id);
    if (n->rank != m->rank || memcmp(n->dim, m->dim, (size_t)n->rank * sizeof *n->dim)) {
        char ta[256], tb[256];
        mb__error(ctx, MB_INVALID, where, "dot: shapes differ: a %s, b %s", mb__tensor_text(ta, sizeof ta, a),
                  mb__tensor_text(tb, sizeof tb, b));
        return mb__poison(ctx);
    }
    const char *call = mb__call_begin(ctx, "dot");
    return mb__call_end(ctx, call, mb_sum_at(where, mb_mul_at(where, a, b), MB_ALL));
}

mb_tensor mb__sum_to(const char *where, mb_tensor t, int rank, const int64_t *dim)
{
    if (!t.id)
        return t;
    const mb__node *n = mb__at(t.ctx, t.id);
    uint32_t mask = 0;
    for (int i = 0; i < n->rank; i++) {
        int j = i - (n->rank - rank);
        if (j < 0 || (dim[j] == 1 && n->dim[i] != 1))
            mask |= 1u << i;
    }
    mb_shape s = {rank, {0}};
    memcpy(s.dim, dim, (size_t)rank * sizeof *dim);
    return mb_reshape_at(where, mask ? mb__reduce(where, MB_OP_SUM, t, mask) : t, s);
}
