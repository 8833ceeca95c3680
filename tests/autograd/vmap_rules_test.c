/* SPDX-License-Identifier: MIT
 *
 * vmap_rules_test.c - each op vmapped, with every set of batched operands, against a loop over the examples:
 * values, and first and second derivatives. */
#include "vmapped.h"

#define X xs[0]
#define Y xs[1]
#define Z xs[2]
#define FUNCTION(name, ...)                                                                                  \
    static mb_tensor name(mb_context *ctx, const mb_tensor *xs, const void *user)                            \
    {                                                                                                        \
        (void)ctx, (void)user, (void)xs;                                                                     \
        return __VA_ARGS__;                                                                                  \
    }
#define CURVED(name, ...) FUNCTION(name, mb_sin(__VA_ARGS__))

#define S0     MB_SHAPE0
#define S(...) MB_SHAPE(__VA_ARGS__)
#define ONE(f, s)                                                                                            \
    {                                                                                                        \
#f, f, NULL, 1, {s }, -1.5, 1.5, {MB_FLOAT64 }, 0, 0                                                 \
    }
#define TWO(f, s, t)                                                                                         \
    {                                                                                                        \
#f, f, NULL, 2, {s, t }, -1.5, 1.5, {MB_FLOAT64 }, 0, 0                                              \
    }
#define THREE(f, s, t, u)                                                                                    \
    {                                                                                                        \
#f, f, NULL, 3, {s, t, u }, -1.5, 1.5, {MB_FLOAT64 }, 0, 0                                           \
    }
/* The second operand is an index, some of it out of range. */
#define INDEX(f, s, t)                                                                                       \
    {                                                                                                        \
#f, f, NULL, 2, {s, t }, -1.5, 4.5, {MB_FLOAT64, MB_INT32 }, 0, 0                                    \
    }
#define RUN(...)                                                                                             \
    do {                                                                                                     \
        const mapped cases[] = {__VA_ARGS__};                                                                \
        vmapped(cases, (int)(sizeof cases / sizeof *cases));                                                 \
    } while (0)

/* ---- elementwise, from the table ---- */

typedef struct op {
    mb_tensor (*one)(const char *, mb_tensor);
    mb_tensor (*two)(const char *, mb_tensor, mb_tensor);
} op;

static mb_tensor apply(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)ctx;
    const op *o = user;
    return o->one ? o->one(MB_HERE, X) : o->two(MB_HERE, X, Y);
}

static void check_op(const char *name, const op *o, char types, double low, double high)
{
    mb_dtype dtype = types == 'L' ? MB_BOOL : types == 'I' ? MB_INT32 : MB_FLOAT64;
    if (low >= high) /* locally constant */
        low = -3, high = 3;
    const mb_shape shapes[][2] = {
        {S(2, 3), S(2, 3)}, {S(4), S(2, 4)}, {S(2, 1, 2), S(3, 1)}, {S0, S(3)}, {S(2), S0}};
    mapped cases[5];
    for (int i = 0; i < 5; i++)
        cases[i] = (mapped){name,           apply, o, o->one ? 1 : 2, {shapes[i][0], shapes[i][1]}, low, high,
                            {dtype, dtype}, 0,     10};
    vmapped(cases, 5);
}

#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)                                                 \
    Test(vmap_rules, name)                                                                                   \
    {                                                                                                        \
        check_op(#name, &(op){mb_##name##_at, NULL}, #types[0], lo, hi);                                     \
    }
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc)                                         \
    Test(vmap_rules, name)                                                                                   \
    {                                                                                                        \
        check_op(#name, &(op){NULL, mb_##name##_at}, #types[0], lo, hi);                                     \
    }
#define MB_COMPARE(NAME, name, types, expr, doc)                                                             \
    Test(vmap_rules, name)                                                                                   \
    {                                                                                                        \
        check_op(#name, &(op){NULL, mb_##name##_at}, #types[0], -1, 1);                                      \
    }
#include "tensor/ops.def"

FUNCTION(f_where, mb_where(X, mb_exp(Y), Z))
FUNCTION(f_where_by, mb_where(mb_lt(X, 0.0), mb_sin(X), mb_mul(X, Y)))
FUNCTION(f_cast, mb_cast(X, MB_INT32))
FUNCTION(f_cast_bool, mb_cast(mb_cast(mb_cast(X, MB_INT32), MB_BOOL), MB_FLOAT64))
FUNCTION(f_cast_float, mb_cast(mb_square(mb_cast(X, MB_FLOAT32)), MB_FLOAT64))

Test(vmap_rules, selection)
{
    RUN({"where", f_where, NULL, 3, {S(2, 1), S(3), S(2, 3)}, -1, 1, {MB_BOOL, MB_FLOAT64, MB_FLOAT64}, 0, 0},
        {"where", f_where, NULL, 3, {S(3), S0, S(2, 3)}, -1, 1, {MB_BOOL, MB_FLOAT64, MB_FLOAT64}, 0, 0},
        TWO(f_where_by, S(2, 3), S(3)), ONE(f_cast, S(2, 3)), ONE(f_cast_bool, S(2, 3)));
    RUN({"cast_float", f_cast_float, NULL, 1, {S(2, 3)}, -1, 1, {MB_FLOAT64}, 0, 1e6}); /* float32 */
}

/* ---- movement ---- */

CURVED(f_reshape, mb_reshape(X, S(-1, 2)))
CURVED(f_flat, mb_reshape(X, S(-1)))
CURVED(f_permute, mb_permute(X, MB_AXES(2, 0, 1)))
CURVED(f_broadcast, mb_mul(mb_broadcast(X, S(4, 2, 3)), mb_iota(ctx, MB_FLOAT64, 3)))
CURVED(f_slice, mb_slice(X, 1, 2, 2, -2))
CURVED(f_slice_none, mb_slice(X, 0, 1, 0, 1))
CURVED(f_unfold, mb_unfold(X, 0, (mb_window){2, 1, 2}))
CURVED(f_fold, mb_fold(X, 0, (mb_window){0, 1, 2}, 5))
CURVED(f_pad, mb_pad(mb_pad(X, 0, 1, 2), -1, 0, 3))
CURVED(f_concat, mb_concat(((mb_tensor[]){X, mb_exp(Y), Z, X}), 4, 0))
CURVED(f_concat_last, mb_concat(((mb_tensor[]){X, Y, mb_ones(ctx, MB_FLOAT64, S(2, 1))}), 3, 1))
CURVED(f_stack, mb_stack(((mb_tensor[]){X, Y}), 2, 1))

Test(vmap_rules, movement)
{
    RUN(ONE(f_reshape, S(3, 4)), ONE(f_reshape, S(0, 4)), ONE(f_flat, S(2, 3)), ONE(f_flat, S0),
        ONE(f_permute, S(2, 3, 4)), ONE(f_broadcast, S(2, 1)), ONE(f_broadcast, S(1)), ONE(f_broadcast, S0),
        ONE(f_slice, S(2, 3)), ONE(f_slice_none, S(3, 2)), ONE(f_pad, S(2, 3)), ONE(f_pad, S(2)),
        ONE(f_unfold, S(5, 2)), ONE(f_fold, S(3, 2, 2)), THREE(f_concat, S(2, 3), S(1, 3), S(2, 3)),
        TWO(f_concat_last, S(2, 3), S(2, 2)), TWO(f_stack, S(2, 3), S(2, 3)));
}

/* ---- reductions and scans along axes ---- */

CURVED(f_sum, mb_sum(X, MB_AXES(0, -1)))
CURVED(f_sum_all, mb_mul(mb_sum(X, MB_ALL), X))
CURVED(f_max, mb_max(X, MB_AXES(1)))
CURVED(f_max_all, mb_sub(mb_max(X, MB_ALL_KEEP), X))
FUNCTION(f_argmax, mb_argmax(X, 0))
FUNCTION(f_argmax_last, mb_argmax(X, -1))
FUNCTION(f_argsort, mb_argsort(X))
CURVED(f_sort, mb_mul(mb_sort(X), mb_iota(ctx, MB_FLOAT64, 5)))
CURVED(f_cumsum, mb_cumsum(X, 0, true))
CURVED(f_cumsum_last, mb_cumsum(X, -1, false))
CURVED(f_cummax, mb_cummax(X, 0, false))
CURVED(f_cummin_last, mb_cummin(X, -1, true))
CURVED(f_cumprod, mb_cumprod(X, 0, false))
CURVED(f_prod, mb_prod(X, MB_AXES(-1)))
FUNCTION(f_argmin, mb_argmin(X, 0))
FUNCTION(f_any, mb_any(mb_gt(X, 0.5), MB_AXES(0)))
CURVED(f_topk, mb_topk(X, 2, 0, true, NULL))
CURVED(f_quantile, mb_quantile(X, 0.3, -1))
FUNCTION(f_variance, mb_variance(X, MB_AXES(-1)))
FUNCTION(f_norm, mb_norm(X, MB_AXES(0)))
FUNCTION(f_logsumexp, mb_logsumexp(X, MB_AXES(0)))
FUNCTION(f_softmax, mb_softmax(X, -1))

Test(vmap_rules, along_axes)
{
    RUN(ONE(f_sum, S(2, 3, 4)), ONE(f_sum_all, S(2, 3)), ONE(f_sum_all, S0), ONE(f_max, S(2, 3)),
        ONE(f_max_all, S(2, 3)), ONE(f_argmax, S(3, 4)), ONE(f_argmax, S(5)), ONE(f_argmax_last, S(3, 4)),
        ONE(f_argsort, S(2, 5)), ONE(f_argsort, S(5)), ONE(f_sort, S(2, 5)), ONE(f_sort, S(5)),
        ONE(f_cumsum, S(3, 2)), ONE(f_cumsum_last, S(2, 3)), ONE(f_cummax, S(3, 2)), ONE(f_cummax, S(4)),
        ONE(f_cummin_last, S(2, 4)), ONE(f_cumprod, S(3, 2)), ONE(f_prod, S(2, 3)), ONE(f_argmin, S(3, 2)),
        ONE(f_any, S(3, 2)), ONE(f_topk, S(4, 2)), ONE(f_quantile, S(2, 4)), ONE(f_variance, S(2, 5)),
        ONE(f_norm, S(4, 2)), ONE(f_logsumexp, S(4, 2)), ONE(f_softmax, S(2, 5)));
}

/* ---- contractions ---- */

CURVED(f_matmul, mb_matmul(X, Y))
CURVED(f_matmul_self, mb_matmul(X, mb_transpose(X)))
CURVED(f_einsum, mb_einsum("bnd,hde->bhne", X, Y))
CURVED(f_einsum_sums, mb_einsum("abc,cd->da", X, Y))
CURVED(f_einsum_mul, mb_einsum("ij,j->ij", X, Y))
CURVED(f_einsum_diagonal, mb_einsum("iij,...j->i...", X, Y))
CURVED(f_trace, mb_trace(X))
CURVED(f_outer, mb_einsum("i,j->ji", X, Y))
CURVED(f_dot, mb_mul(mb_dot(X, Y), mb_dot(X, X)))
FUNCTION(f_attention, mb_matmul(mb_softmax(mb_matmul(X, mb_transpose(Y)), -1), Z))

Test(vmap_rules, contractions)
{
    RUN(TWO(f_matmul, S(2, 3), S(3, 4)), TWO(f_matmul, S(1, 3), S(3, 1)), TWO(f_matmul, S(2, 0), S(0, 4)),
        TWO(f_matmul, S(2, 2, 3), S(3, 4)), TWO(f_matmul, S(2, 3), S(2, 3, 2)),
        TWO(f_matmul, S(2, 1, 2, 3), S(3, 3, 2)), ONE(f_matmul_self, S(2, 3)),
        TWO(f_einsum, S(2, 3, 2), S(2, 2, 3)), TWO(f_einsum_sums, S(2, 3, 2), S(2, 4)),
        TWO(f_einsum_mul, S(3, 4), S(4)), TWO(f_outer, S(3), S(4)),
        TWO(f_einsum_diagonal, S(3, 3, 2), S(2, 2)), ONE(f_trace, S(2, 3, 3)), TWO(f_dot, S(5), S(5)),
        THREE(f_attention, S(3, 2), S(4, 2), S(4, 3)));
}

/* ---- matrices ---- */

/* Positive definite; triangles that are far from singular. */
static mb_tensor definite(mb_tensor x)
{
    return mb_add(mb_matmul(x, mb_transpose(x)), mb_eye(x.ctx, MB_FLOAT64, mb_dim(x, -1)));
}
static mb_tensor steep(mb_tensor x)
{
    return mb_add(x, mb_mul(mb_eye(x.ctx, MB_FLOAT64, mb_dim(x, -1)), 3.0));
}
CURVED(f_cholesky, mb_cholesky(definite(X)))
CURVED(f_lower, mb_triangular_solve(steep(X), Y, MB_LOWER))
CURVED(f_upper, mb_triangular_solve(steep(X), Y, MB_UPPER | MB_UNIT_DIAGONAL | MB_TRANSPOSED))
CURVED(f_solve, mb_solve_spd(definite(X), Y))

Test(vmap_rules, matrices)
{
    RUN(ONE(f_cholesky, S(3, 3)), ONE(f_cholesky, S(2, 2, 2)), TWO(f_lower, S(3, 3), S(3, 2)),
        TWO(f_lower, S(2, 2), S(2, 2, 3)), TWO(f_upper, S(2, 1, 2, 2), S(3, 2, 1)),
        TWO(f_solve, S(3, 3), S(3, 2)));
}

/* ---- by index ---- */

CURVED(f_take, mb_take(X, Y, 0))
CURVED(f_take_middle, mb_take(X, Y, 1))
CURVED(f_take_last, mb_take(X, Y, -1))
CURVED(f_take_along, mb_take_along(X, Y))
CURVED(f_gather, mb_gather(X, Y, 0))
CURVED(f_scatter_set, mb_scatter(X, Y, mb_exp(mb_gather(X, Y, 1)), 1))
CURVED(f_scatter_add_along, mb_scatter_add_along(X, Y, mb_gather(X, Y, 1), 0))
CURVED(f_scatter, mb_scatter_add(X, Y, 0, 4))
CURVED(f_scatter_middle, mb_scatter_add(X, Y, 1, 3))
FUNCTION(f_one_hot, mb_one_hot(X, 3))
FUNCTION(f_cross_entropy, mb_cross_entropy(X, mb_maximum(Y, mb_full(ctx, MB_INT32, S0, 0))))

Test(vmap_rules, indexing)
{
    RUN(INDEX(f_take, S(4, 2), S(3)), INDEX(f_take, S(4), S0), INDEX(f_take, S(4, 2), S(2, 3)),
        INDEX(f_take, S(0, 2), S(0)), INDEX(f_take_middle, S(2, 4, 3), S(2, 2)),
        INDEX(f_take_middle, S(2, 3, 3), S0), INDEX(f_take_last, S(2, 2, 3), S(4)),
        INDEX(f_take_along, S(2, 4), S(2, 3)), INDEX(f_scatter, S(3, 2), S(3)),
        INDEX(f_gather, S(4, 3), S(2, 3)), INDEX(f_scatter_set, S(2, 4), S(2, 3)),
        INDEX(f_scatter_add_along, S(4, 2), S(3, 2)), INDEX(f_scatter, S(2, 3, 2), S(2, 3)),
        INDEX(f_scatter, S(2), S0), INDEX(f_scatter_middle, S(2, 2, 3, 2), S(2, 3)),
        INDEX(f_scatter_middle, S(2, 0), S(0)), INDEX(f_cross_entropy, S(3, 5), S(3)));
    RUN({"one_hot", f_one_hot, NULL, 1, {S(2, 3)}, -1, 4, {MB_INT32}, 0, 0});
}

/* ---- identities, and what does not depend on an example ---- */

FUNCTION(f_alias, mb_mul(mb_alias(X), mb_exp(X)))
FUNCTION(f_stop, mb_mul(mb_stop_gradient(mb_sin(X)), X))
FUNCTION(f_itself, X)
FUNCTION(f_constant, mb_mul(mb_iota(ctx, MB_FLOAT64, 3), 2.0))
FUNCTION(f_mixed, mb_add(mb_exp(mb_mul(mb_sin(X), mb_iota(ctx, MB_FLOAT64, 3))), mb_sin(Y)))

Test(vmap_rules, identities)
{
    RUN(ONE(f_alias, S(2, 3)), ONE(f_stop, S(2, 3)), ONE(f_itself, S(2, 3)), ONE(f_constant, S(2, 3)),
        TWO(f_mixed, S(2, 3), S(3)));
}
