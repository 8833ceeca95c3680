/* SPDX-License-Identifier: MIT
 * functions.c - common functions, recorded as primitive ops, so that every order of derivative is theirs. */
#include "tensor/internal.h"

/* A literal of x's dtype; poison stays poison. */
static mb_tensor lit(const char *where, mb_tensor x, double value)
{
    if (!x.ctx || !x.id || !mb_valid(x) || mb_error(x.ctx) != MB_OK)
        return mb__poison(x.ctx);
    return mb__const(x.ctx, where, (mb_dtype)mb__at(x.ctx, x.id)->dtype, value);
}

mb_tensor mb_square_at(const char *where, mb_tensor x)
{
    return mb_mul_at(where, x, x);
}

mb_tensor mb_relu_at(const char *where, mb_tensor x)
{
    /* A select, not a maximum: the derivative at 0 is 0, and NaN passes through. */
    mb_tensor zero = lit(where, x, 0);
    return mb_where_at(where, mb_le_at(where, x, zero), zero, x);
}

mb_tensor mb_silu_at(const char *where, mb_tensor x)
{
    return mb_mul_at(where, x, mb_sigmoid_at(where, x));
}

mb_tensor mb_softplus_at(const char *where, mb_tensor x)
{
    /* max(x, 0) + log1p(e^-|x|), with |x| = 2 max(x, 0) - x, so that the derivative at 0 is 1/2 at every
     * order's first step: relu' = 0 there, and the second term gives the half. */
    mb_tensor r = mb_relu_at(where, x);
    mb_tensor minus_abs = mb_sub_at(where, x, mb_mul_at(where, r, lit(where, x, 2)));
    mb_tensor positive = mb_lt_at(where, lit(where, x, 0), x);
    mb_tensor small = mb_log1p_at(where, mb_exp_at(where, minus_abs));
    return mb_where_at(where, positive, mb_add_at(where, x, small), small);
}

mb_tensor mb_elu_at(const char *where, mb_tensor x)
{
    mb_tensor zero = lit(where, x, 0), positive = mb_lt_at(where, zero, x);
    mb_tensor below = mb_where_at(where, positive, zero, x); /* expm1 never sees what would overflow */
    return mb_where_at(where, positive, x, mb_expm1_at(where, below));
}

mb_tensor mb_gelu_at(const char *where, mb_tensor x)
{
    const double k = 0.7978845608028654; /* sqrt(2 / pi) */
    mb_tensor x2 = mb_mul_at(where, x, x);
    mb_tensor inner = mb_add_at(where, mb_mul_at(where, x2, lit(where, x, k * 0.044715)), lit(where, x, k));
    mb_tensor t = mb_tanh_at(where, mb_mul_at(where, x, inner));
    mb_tensor half = mb_mul_at(where, x, lit(where, x, 0.5));
    return mb_add_at(where, half, mb_mul_at(where, half, t));
}

mb_tensor mb_gelu_erf_at(const char *where, mb_tensor x)
{
    mb_tensor t = mb_erf_at(where, mb_mul_at(where, x, lit(where, x, 0.7071067811865476)));
    mb_tensor half = mb_mul_at(where, x, lit(where, x, 0.5));
    return mb_add_at(where, half, mb_mul_at(where, half, t));
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

mb_tensor mb_softmax_at(const char *where, mb_tensor x, int axis)
{
    if (!float_axis(where, "softmax", x, axis))
        return mb__poison(x.ctx);
    mb_tensor top = mb_stop_gradient_at(where, mb_max_at(where, x, MB_KEEP(axis)));
    mb_tensor e = mb_exp_at(where, mb_sub_at(where, x, top));
    return mb_mul_at(where, e, mb_recip_at(where, mb_sum_at(where, e, MB_KEEP(axis))));
}

mb_tensor mb_log_softmax_at(const char *where, mb_tensor x, int axis)
{
    if (!float_axis(where, "log_softmax", x, axis))
        return mb__poison(x.ctx);
    mb_tensor top = mb_stop_gradient_at(where, mb_max_at(where, x, MB_KEEP(axis)));
    mb_tensor shifted = mb_sub_at(where, x, top);
    return mb_sub_at(where, shifted,
                     mb_log_at(where, mb_sum_at(where, mb_exp_at(where, shifted), MB_KEEP(axis))));
}

mb_tensor mb_cross_entropy_at(const char *where, mb_tensor logits, mb_tensor labels)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "cross_entropy", (const mb_tensor *[]){&logits, &labels}, 2, &poison);
    if (!ctx)
        return poison;
    const mb__node *n = mb__at(ctx, logits.id), *m = mb__at(ctx, labels.id);
    if (m->dtype != MB_INT32 || n->rank != m->rank + 1 ||
        memcmp(n->dim, m->dim, (size_t)m->rank * sizeof *m->dim)) {
        char a[256], b[256];
        mb__error(ctx, MB_INVALID, where,
                  "cross_entropy: got logits %s, labels %s; wanted int32 labels, one for each row",
                  mb__tensor_text(a, sizeof a, logits), mb__tensor_text(b, sizeof b, labels));
        return mb__poison(ctx);
    }
    int64_t classes = n->dim[n->rank - 1], rows = mb__numel(m->dim, m->rank);
    mb_tensor hit = mb_one_hot_at(where, labels, classes), lp = mb_log_softmax_at(where, logits, -1);
    mb_tensor picked =
        mb_where_at(where, hit, lp, lit(where, logits, 0)); /* a select: 0 * -infinity would be NaN */
    return mb_mul_at(where, mb_sum_at(where, picked, MB_ALL),
                     lit(where, logits, rows ? -1.0 / (double)rows : -1.0));
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
    return mb_sum_at(where, mb_mul_at(where, a, b), MB_ALL);
}

mb_tensor mb_full_at(const char *where, mb_context *ctx, mb_dtype dtype, mb_shape shape, double value)
{
    if (!mb__enter_context(where, "full", ctx) || !mb__check_shape(ctx, where, "full", dtype, shape))
        return mb__poison(ctx);
    mb_tensor t = mb__const(ctx, where, dtype, value);
    return shape.rank && t.id ? mb_broadcast_at(where, t, shape) : t;
}

mb_tensor mb_tril_mask_at(const char *where, mb_context *ctx, int64_t rows, int64_t columns, int64_t diagonal)
{
    mb_tensor r = mb_iota_at(where, ctx, MB_INT32, rows), c = mb_iota_at(where, ctx, MB_INT32, columns);
    mb_tensor limit = mb_add_at(where, mb_unsqueeze_at(where, r, 1),
                                mb_full_at(where, ctx, MB_INT32, MB_SHAPE0, (double)diagonal));
    return mb_le_at(where, c, limit);
}

mb_tensor mb_eye_at(const char *where, mb_context *ctx, mb_dtype dtype, int64_t n)
{
    mb_tensor i = mb_iota_at(where, ctx, MB_INT32, n);
    return mb_cast_at(where, mb_eq_at(where, mb_unsqueeze_at(where, i, 1), i), dtype);
}

mb_tensor mb_take_along_at(const char *where, mb_tensor x, mb_tensor index)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "take_along", (const mb_tensor *[]){&x, &index}, 2, &poison);
    if (!ctx || !mb__check_index(where, "take_along", ctx, index))
        return poison;
    const mb__node *n = mb__at(ctx, x.id), *m = mb__at(ctx, index.id);
    bool ok = n->rank >= 1 && m->rank == n->rank;
    for (int i = 0; ok && i + 1 < n->rank; i++)
        ok = n->dim[i] == m->dim[i];
    int64_t size = n->rank ? n->dim[n->rank - 1] : 0, rows = size ? mb__numel(n->dim, n->rank - 1) : 0;
    if (!ok || rows > INT32_MAX / (size ? size : 1)) {
        char a[256], b[256];
        mb__error(ctx, MB_INVALID, where,
                  "take_along: got %s and index %s; wanted the same shape but for the last axis, below 2^31 "
                  "entries",
                  mb__tensor_text(a, sizeof a, x), mb__tensor_text(b, sizeof b, index));
        return mb__poison(ctx);
    }
    if (size == 0 && m->dim[m->rank - 1] == 0)
        return x; /* nothing to take from, and nothing wanted */
    /* Flat positions: row * size + index. The row numbers have x's shape with a last axis of size 1. */
    mb_shape lead = {n->rank, {0}};
    memcpy(lead.dim, n->dim, sizeof lead.dim);
    lead.dim[n->rank - 1] = 1;
    mb_tensor row = mb_reshape_at(where, mb_iota_at(where, ctx, MB_INT32, rows), lead);
    mb_tensor last = mb__const(ctx, where, MB_INT32, (double)(size - 1)),
              zero = mb__const(ctx, where, MB_INT32, 0);
    mb_tensor inside = mb_maximum_at(where, mb_minimum_at(where, index, last), zero);
    mb_tensor base = mb_mul_at(where, row, mb__const(ctx, where, MB_INT32, (double)size));
    return mb_take_at(where, mb_reshape_at(where, x, MB_SHAPE(-1)), mb_add_at(where, base, inside), 0);
}

mb_tensor mb_sort_at(const char *where, mb_tensor x)
{
    return mb_take_along_at(where, x, mb_argsort_at(where, x));
}

mb_tensor mb_one_hot_at(const char *where, mb_tensor index, int64_t classes)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "one_hot", (const mb_tensor *[]){&index}, 1, &poison);
    if (!ctx || !mb__check_index(where, "one_hot", ctx, index))
        return poison;
    return mb_eq_at(where, mb_unsqueeze_at(where, index, -1), mb_iota_at(where, ctx, MB_INT32, classes));
}

mb_tensor mb_logsumexp_at(const char *where, mb_tensor x, mb_axes axes)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "logsumexp", (const mb_tensor *[]){&x}, 1, &poison);
    uint32_t mask;
    if (!ctx || !mb__axes_mask(where, "logsumexp", x, axes, &mask))
        return poison;
    mb_axes keep = axes;
    keep.keep = true;
    mb_tensor top = mb_stop_gradient_at(where, mb_max_at(where, x, keep));
    mb_tensor s = mb_sum_at(where, mb_exp_at(where, mb_sub_at(where, x, top)), keep);
    mb_tensor y = mb_add_at(where, mb_log_at(where, s), top);
    return axes.keep ? y : mb__drop_axes(where, y, mask);
}
