/* SPDX-License-Identifier: MIT
 *
 * samplers.c - distributions made of uniform draws: normal, exponential, Laplace, Gamma, sphere, orthogonal
 * matrices, permutations; and keys. None branches, so that a draw is a function of its key and position. */
#include "tensor/internal.h"

#include <math.h>

/* What the uses of a key within one sampler fold into it, so that they are independent. */
enum { FOLD_SIGN = 1, FOLD_SIZE, FOLD_BOOST, FOLD_CANDIDATE };

static mb_tensor lit(mb_tensor x, double value)
{
    return x.id ? mb__const(x.ctx, (mb_dtype)mb__at(x.ctx, x.id)->dtype, value) : mb__poison(x.ctx);
}

/* Checks what the ops inside would report less clearly. */
static bool check_float(const char *name, mb_context *ctx, mb_dtype dtype)
{
    if (!mb__enter_context(name, ctx))
        return false;
    if (mb__is_float((int)dtype))
        return true;
    mb__error(ctx, MB_INVALID, "%s: got %s; wanted floats", name, mb_dtype_name(dtype));
    return false;
}

/* log of a uniform draw on (0, 1] */
static mb_tensor log_uniform(mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape)
{
    mb_tensor u = mb_uniform(ctx, key, dtype, shape);
    return mb_log(mb_sub(lit(u, 1), u));
}

mb_tensor mb_exponential_at(const char *site, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape)
{
    MB_SITE(ctx, site);
    if (!check_float("exponential", ctx, dtype))
        return mb__poison(ctx);
    return mb_neg(log_uniform(ctx, mb_key_fold(key, FOLD_SIZE), dtype, shape));
}

mb_tensor mb_laplace_at(const char *site, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape)
{
    MB_SITE(ctx, site);
    if (!check_float("laplace", ctx, dtype))
        return mb__poison(ctx);
    /* The sign is a draw of its own, so that the tails have the full resolution of the exponential. */
    mb_tensor size = log_uniform(ctx, mb_key_fold(key, FOLD_SIZE), dtype, shape);
    mb_tensor u = mb_uniform(ctx, mb_key_fold(key, FOLD_SIGN), dtype, shape);
    return mb_where(mb_lt(u, lit(u, 0.5)), size, mb_neg(size));
}

/* ---- Gamma ---- */

/* A candidate for Gamma(k), k >= 1: with z normal, v = (1 + c z)^3, d = k - 1/3, c = 1 / sqrt(9 d), it is d
 * v, accepted where v > 0 and log u < z^2/2 + d - d v + d log v (Marsaglia and Tsang 2000). */
static mb_tensor candidate(mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape, double k,
                           mb_tensor *accepted)
{
    double d = k - 1.0 / 3;
    mb_tensor z = mb_normal(ctx, mb_key_fold(key, FOLD_SIZE), dtype, shape);
    mb_tensor log_u = log_uniform(ctx, mb_key_fold(key, FOLD_SIGN), dtype, shape);
    mb_tensor zero = lit(z, 0), one = lit(z, 1), dl = lit(z, d);
    mb_tensor root = mb_add(one, mb_mul(z, lit(z, 1 / sqrt(9 * d))));
    mb_tensor positive = mb_lt(zero, root);
    root = mb_where(positive, root, one); /* so that the logarithm is of positive numbers */
    mb_tensor v = mb_mul(root, mb_mul(root, root));
    mb_tensor half_square = mb_mul(mb_mul(z, z), lit(z, 0.5));
    mb_tensor bound = mb_add(mb_sub(one, v), mb_mul(lit(z, 3), mb_log(root)));
    bound = mb_add(half_square, mb_mul(dl, bound));
    *accepted = mb_and(positive, mb_lt(log_u, bound));
    return mb_mul(v, dl);
}

mb_tensor mb_gamma_at(const char *site, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape, double k,
                      double theta)
{
    MB_SITE(ctx, site);
    if (!check_float("gamma", ctx, dtype))
        return mb__poison(ctx);
    if (!(k > 0) || !(theta > 0) || !isfinite(k) || !isfinite(theta)) {
        mb__error(ctx, MB_INVALID, "gamma: got k = %g, theta = %g; wanted both above 0", k, theta);
        return mb__poison(ctx);
    }
    bool boost = k < 1;
    int candidates = dtype == MB_FLOAT32 ? 6 : 13;
    mb_tensor g = {0};
    for (int i = candidates - 1; i >= 0; i--) { /* from the last, so that the first accepted one wins */
        mb_tensor accepted, x = candidate(ctx, mb_key_fold(key, (uint64_t)(FOLD_CANDIDATE + i)), dtype, shape,
                                          boost ? k + 1 : k, &accepted);
        g = g.id ? mb_where(accepted, x, g) : x;
        if (!g.id)
            return g;
    }
    if (boost) {
        mb_tensor log_u = log_uniform(ctx, mb_key_fold(key, FOLD_BOOST), dtype, shape);
        g = mb_mul(g, mb_exp(mb_mul(log_u, lit(g, 1 / k))));
    }
    return mb_mul(g, mb_scalar(ctx, dtype, theta));
}

/* ---- directions ---- */

/* Squared lengths along the last axis, which stays with size 1. A reduction would be fused with the draws,
 * and the draws made twice; so short rows are added column by column, and long ones by a contraction. */
static mb_tensor squared_lengths(mb_tensor x, mb_shape shape)
{
    int64_t d = shape.dim[shape.rank - 1];
    if (d <= 8) {
        mb_tensor sum = {0};
        for (int64_t i = 0; i < d; i++) {
            mb_tensor column = mb_slice(x, -1, i, 1, 1), square = mb_mul(column, column);
            sum = i ? mb_add(sum, square) : square;
        }
        return sum;
    }
    shape.dim[shape.rank - 1] = 1;
    mb_tensor rows = mb_reshape(x, MB_SHAPE(mb_count(x) / d, d));
    return mb_reshape(mb_einsum("nd,nd->n", rows, rows), shape);
}

mb_tensor mb_sphere_at(const char *site, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape)
{
    MB_SITE(ctx, site);
    if (!check_float("sphere", ctx, dtype))
        return mb__poison(ctx);
    if (shape.rank < 1 || shape.rank > MB_MAX_RANK || shape.dim[shape.rank - 1] < 1) {
        mb__error(ctx, MB_INVALID, "sphere: wanted a last axis of size 1 or more");
        return mb__poison(ctx);
    }
    mb_tensor x = mb_normal(ctx, key, dtype, shape);
    mb_tensor zero = lit(x, 0), one = lit(x, 1);
    mb_tensor square = squared_lengths(x, shape);
    /* A normal vector of zeros (for d = 1, one float32 draw in 2^24) is replaced by the first unit vector. */
    mb_tensor none = mb_eq(square, zero);
    mb_tensor first = mb_one_hot(mb_full(ctx, MB_INT32, MB_SHAPE0, 0), shape.dim[shape.rank - 1]);
    mb_tensor unit = mb_div(x, mb_sqrt(mb_where(none, one, square)));
    return mb_where(none, mb_cast(first, dtype), unit);
}

/* Row k of x: [..., n, n] as [..., n, 1]. */
static mb_tensor column(mb_tensor x, int64_t k)
{
    return mb_transpose(mb_slice(x, -2, k, 1, 1));
}

/* Q = H_1 ... H_{n-1} D, where H_k reflects the k-th normal vector x_k, of n - k + 1 entries, to -s_k |x_k|
 * e_k, and D_kk = -s_k, s_k the sign of x_k's first entry; for the last, of one entry, D_nn = s_n. All x_k,
 * reflection vectors v_k and factors 2 / |v_k|^2 are computed at once, as rows of a triangular matrix; only
 * the n - 1 products are sequential. */
mb_tensor mb_orthogonal_at(const char *site, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape)
{
    MB_SITE(ctx, site);
    if (!check_float("orthogonal", ctx, dtype))
        return mb__poison(ctx);
    int r = shape.rank;
    if (r < 2 || r > MB_MAX_RANK || shape.dim[r - 1] < 1 || shape.dim[r - 1] != shape.dim[r - 2]) {
        mb__error(ctx, MB_INVALID, "orthogonal: wanted a shape [..., n, n] with n of 1 or more");
        return mb__poison(ctx);
    }
    int64_t n = shape.dim[r - 1];
    mb_tensor normal = mb_normal(ctx, key, dtype, shape);
    mb_tensor zero = lit(normal, 0), one = lit(normal, 1);
    mb_tensor below = mb_tril_mask(ctx, n, n, -1), eye = mb_eye(ctx, dtype, n);
    mb_tensor x = mb_where(below, zero, normal); /* row k begins at column k */
    mb_tensor head = mb_sum(mb_mul(x, eye), MB_KEEP(-1));
    mb_tensor negative = mb_lt(head, zero);
    mb_tensor sign = mb_where(negative, mb_neg(one), one);
    mb_tensor square = mb_sum(mb_mul(x, x), MB_KEEP(-1));
    mb_tensor length = mb_sqrt(square);
    /* v = x + s |x| e_k has |v|^2 / 2 = |x|^2 + |x_k| |x|: nothing cancels. A vector of zeros is not
     * reflected.
     */
    mb_tensor v = mb_add(x, mb_mul(eye, mb_mul(sign, length)));
    mb_tensor half = mb_add(square, mb_mul(mb_mul(sign, head), length));
    mb_tensor none = mb_eq(half, zero);
    mb_tensor scaled = mb_div(v, mb_where(none, one, half));
    mb_tensor last = mb_eq(mb_iota(ctx, MB_INT32, n), mb_full(ctx, MB_INT32, MB_SHAPE0, (double)(n - 1)));
    mb_tensor kept = mb_unsqueeze(last, 1); /* [n,1] */
    mb_tensor d = mb_where(kept, sign, mb_neg(sign));
    mb_tensor q = mb_mul(eye, d);
    for (int64_t k = n - 2; k >= 0 && q.id; k--) {
        mb_tensor along = mb_matmul(mb_slice(v, -2, k, 1, 1), q); /* [..., 1, n] */
        q = mb_sub(q, mb_mul(column(scaled, k), along));
    }
    return q;
}

/* SplitMix64's finaliser (Steele, Lea, Flood 2014): every input bit affects every output bit. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

mb_key mb_key_of(uint64_t seed)
{
    return (mb_key){mix(seed + 0x9e3779b97f4a7c15u)};
}

mb_key mb_key_fold(mb_key key, uint64_t n)
{
    /* The two enter differently: seed 1 folded with 7 is not seed 7 folded with 1. */
    return (mb_key){mix(mix(key.bits ^ 0xd1b54a32d192ed03u) + n * 0x9e3779b97f4a7c15u)};
}

mb_tensor mb_normal_at(const char *site, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape)
{
    MB_SITE(ctx, site);
    mb_tensor u = mb_uniform(ctx, mb_key_fold(key, 1), dtype, shape);
    mb_tensor v = mb_uniform(ctx, mb_key_fold(key, 2), dtype, shape);
    if (!u.id || !v.id)
        return mb__poison(ctx);
    if (!mb__is_float((int)dtype)) {
        mb__error(ctx, MB_INVALID, "normal: got %s; wanted floats", mb_dtype_name(dtype));
        return mb__poison(ctx);
    }
    /* sqrt(-2 log(1 - u)) cos(2 pi v); 1 - u lies in (0, 1]. */
    mb_tensor r = mb_log(mb_sub(mb__const(ctx, dtype, 1), u));
    r = mb_sqrt(mb_mul(r, mb__const(ctx, dtype, -2)));
    return mb_mul(r, mb_cos(mb_mul(v, mb__const(ctx, dtype, 6.283185307179586))));
}

mb_tensor mb_permutation_at(const char *site, mb_context *ctx, mb_key key, mb_shape shape)
{
    MB_SITE(ctx, site);
    return mb_argsort(mb_uniform(ctx, key, MB_INT32, shape));
}
