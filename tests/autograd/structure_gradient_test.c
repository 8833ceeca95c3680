/* SPDX-License-Identifier: MIT
 *
 * structure_gradient_test.c - derivatives of movement, reductions, contractions, indexing and the common
 * functions. Linear ops are followed by a sine, so that their second and third derivatives are not zero. */
#include "gradcheck.h"

#define X xs[0]
#define Y xs[1]
#define FUNCTION(name, ...)                                                                                  \
    static mb_tensor name(mb_context *ctx, const mb_tensor *xs, const void *user)                            \
    {                                                                                                        \
        (void)ctx, (void)user;                                                                               \
        return __VA_ARGS__;                                                                                  \
    }
#define CURVED(name, ...) FUNCTION(name, mb_sin(__VA_ARGS__))

CURVED(f_reshape, mb_reshape(X, MB_SHAPE(5, -1)))
CURVED(f_permute, mb_permute(X, MB_AXES(2, 0, 1)))
CURVED(f_transpose, mb_transpose(X))
CURVED(f_broadcast, mb_mul(mb_broadcast(X, MB_SHAPE(4, 3, 5)), mb_iota(ctx, MB_FLOAT64, 5)))
CURVED(f_broadcast_all, mb_mul(mb_broadcast(X, MB_SHAPE(2, 3)), mb_iota(ctx, MB_FLOAT64, 3)))
CURVED(f_slice, mb_slice(X, 1, 1, 2, 2))
CURVED(f_slice_back, mb_slice(X, -1, 4, 2, -3))
CURVED(f_slice_none, mb_slice(X, 0, 1, 0, 1))
CURVED(f_flip, mb_mul(mb_flip(X, 1), X))
CURVED(f_pad, mb_pad(mb_pad(X, 0, 1, 2), 1, 0, 3))
CURVED(f_concat, mb_mul(mb_concat(((mb_tensor[]){X, Y, X}), 3, 1), mb_concat(((mb_tensor[]){X, X, Y}), 3, 1)))
CURVED(f_stack, mb_mul(mb_stack(((mb_tensor[]){X, Y}), 2, 1), mb_stack(((mb_tensor[]){Y, Y}), 2, 1)))
static mb_tensor parts(mb_tensor x)
{
    mb_tensor part[2], column[3];
    mb_split(x, (int64_t[]){1, 2}, part, 2, 1);
    mb_unstack(part[1], column, 2, 1);
    return mb_mul(mb_mul(column[0], column[1]), mb_squeeze(part[0], 1));
}
CURVED(f_split, parts(X))
CURVED(f_squeeze, mb_squeeze(mb_unsqueeze(X, 1), 1))
CURVED(f_sum, mb_sum(X, MB_ALL))
CURVED(f_sum_axis, mb_sum(X, MB_AXES(1)))
CURVED(f_sum_keep, mb_mul(mb_sum(X, MB_KEEP(0, -1)), X))
CURVED(f_mean, mb_mean(X, MB_AXES(-1)))
FUNCTION(f_variance, mb_variance(X, MB_AXES(-1)))
FUNCTION(f_variance_all, mb_rsqrt(mb_add(mb_variance(X, MB_ALL), 0.3)))
CURVED(f_max, mb_max(X, MB_AXES(1)))
CURVED(f_max_all, mb_mul(mb_max(X, MB_ALL), X))
CURVED(f_min, mb_min(X, MB_KEEP(0)))
CURVED(f_prod, mb_prod(X, MB_AXES(1)))
CURVED(f_prod_all, mb_prod(X, MB_ALL))
CURVED(f_cumprod, mb_cumprod(X, 1, false))
CURVED(f_cumprod_back, mb_cumprod(X, 0, true))
CURVED(f_cummax, mb_mul(mb_cummax(X, 1, false), mb_cummax(X, 0, true)))
CURVED(f_cummin, mb_mul(mb_cummin(X, 1, true), X))
CURVED(f_cumsum, mb_cumsum(X, 1, false))
CURVED(f_cumsum_back, mb_cumsum(X, 0, true))
FUNCTION(f_logsumexp, mb_logsumexp(X, MB_AXES(-1)))
FUNCTION(f_logsumexp_all, mb_logsumexp(X, MB_ALL))
CURVED(f_matmul, mb_matmul(X, Y))
CURVED(f_matmul_transposed, mb_matmul(mb_transpose(X), mb_transpose(Y)))
CURVED(f_matmul_flipped, mb_matmul(mb_flip(X, -1), mb_slice(Y, 1, 0, 2, 2)))
CURVED(f_matmul_self, mb_matmul(X, mb_transpose(X)))
CURVED(f_einsum_batch, mb_einsum("bnd,hde->bhne", X, Y))
CURVED(f_einsum_dot, mb_einsum("ij,ij->", X, Y))
CURVED(f_einsum_outer, mb_einsum("i,j->ji", X, Y))
CURVED(f_einsum_sums, mb_einsum("abc,cd->da", X, Y))
CURVED(f_einsum_mul, mb_einsum("ij,j->ij", X, Y))
CURVED(f_einsum_diagonal, mb_einsum("iij,jj->ij", X, Y))
CURVED(f_einsum_dots, mb_einsum("...ij,...jk", X, Y))
CURVED(f_einsum_of, mb_einsum_of("ij,jk,ij->k", ((mb_tensor[]){X, Y, X}), 3))
CURVED(f_trace, mb_mul(mb_trace(X), mb_einsum_of("ji", &X, 1)))
FUNCTION(f_dot, mb_mul(mb_dot(X, Y), mb_dot(X, X)))
FUNCTION(f_where, mb_where(mb_lt(mb_iota(ctx, MB_FLOAT64, 5), 2.5), mb_exp(X), mb_mul(X, Y)))
FUNCTION(f_cast, mb_square(mb_cast(mb_sin(X), MB_FLOAT64)))
FUNCTION(f_alias, mb_mul(mb_alias(X), mb_exp(X)))
FUNCTION(f_square, mb_square(mb_square(X)))
FUNCTION(f_exp2, mb_exp2(X))
FUNCTION(f_log2, mb_mul(mb_log2(X), mb_log10(X)))
FUNCTION(f_clamp, mb_mul(mb_clamp(X, 0.7, 1.3), X))
FUNCTION(f_mod, mb_mul(mb_mod(X, mb_add(Y, 4.0)), mb_fmod(mb_add(X, 9.4), mb_add(Y, 4.0))))
FUNCTION(f_relu, mb_mul(mb_relu(X), X))
FUNCTION(f_relu_negative, mb_mul(mb_add(mb_relu(mb_neg(X)), 1.0), X))
FUNCTION(f_silu, mb_silu(X))
FUNCTION(f_softplus, mb_softplus(X))
FUNCTION(f_elu, mb_elu(X))
FUNCTION(f_gelu, mb_gelu(X))
FUNCTION(f_gelu_erf, mb_gelu_erf(X))
FUNCTION(f_softmax, mb_softmax(X, 1))
FUNCTION(f_softmax_first, mb_softmax(X, 0))
FUNCTION(f_log_softmax, mb_log_softmax(X, -1))
FUNCTION(f_cross_entropy, mb_cross_entropy(X, mb_from(ctx, MB_INT32, MB_SHAPE(3), ((int32_t[]){4, 0, 2}))))
FUNCTION(f_layer_norm, mb_layer_normalize(X, Y, (mb_tensor){0}, 0.01))
FUNCTION(f_rms_norm, mb_rms_normalize(X, Y, 0.01))
FUNCTION(f_norm, mb_sqrt(mb_dot(X, X)))
FUNCTION(f_attention, mb_matmul(mb_softmax(mb_matmul(X, mb_transpose(Y)), -1), Y))
FUNCTION(f_power_of_self, mb_pow(mb_add(mb_square(X), 0.5), X))
FUNCTION(f_tied, mb_mul(mb_add(X, X), mb_sub(X, mb_mul(X, X)))) /* one operand in many roles */

static mb_tensor indices(mb_context *ctx)
{
    return mb_from(ctx, MB_INT32, MB_SHAPE(2, 3), ((int32_t[]){0, 2, 2, 1, 2, 0}));
}
CURVED(f_take, mb_take(X, indices(ctx), 0))
CURVED(f_take_last, mb_take(X, indices(ctx), -1))
CURVED(f_scatter_add, mb_scatter_add(X, indices(ctx), 0, 4))
CURVED(f_take_along, mb_take_along(X, indices(ctx)))
CURVED(f_gather, mb_gather(X, indices(ctx), 0))
CURVED(f_scatter, mb_scatter(X, indices(ctx), Y, 0))
CURVED(f_scatter_add_along, mb_scatter_add_along(X, indices(ctx), Y, 1))
CURVED(f_topk, mb_mul(mb_topk(X, 2, 0, true, NULL), mb_iota(ctx, MB_FLOAT64, 4)))
CURVED(f_quantile, mb_quantile(X, 0.3, 0))
CURVED(f_sort, mb_mul(mb_sort(X), mb_iota(ctx, MB_FLOAT64, 5)))
CURVED(f_one_hot, mb_mul(mb_cast(mb_one_hot(mb_argmax(X, -1), 5), MB_FLOAT64), X))

#define S0     MB_SHAPE0
#define S(...) MB_SHAPE(__VA_ARGS__)
#define ONE(f, s)                                                                                            \
    {                                                                                                        \
#f, f, NULL, 1, {s }, -1.5, 1.5, 0, 0                                                                \
    }
#define TWO(f, s, t)                                                                                         \
    {                                                                                                        \
#f, f, NULL, 2, {s, t }, -1.5, 1.5, 0, 0                                                             \
    }
#define RUN(...)                                                                                             \
    do {                                                                                                     \
        const gradcase cases[] = {__VA_ARGS__};                                                              \
        gradcheck_both(cases, (int)(sizeof cases / sizeof *cases));                                          \
    } while (0)

Test(structure_gradient, movement, .timeout = 120)
{
    RUN(ONE(f_reshape, S(3, 5)), ONE(f_reshape, S(5, 0)), ONE(f_permute, S(2, 3, 3)),
        ONE(f_permute, S(5, 7, 3)), ONE(f_transpose, S(1, 4)), ONE(f_transpose, S(3, 0)),
        ONE(f_broadcast, S(3, 1)), ONE(f_broadcast, S(1, 1, 1)), ONE(f_broadcast_all, S0),
        ONE(f_slice, S(3, 5)), ONE(f_slice_back, S(3, 5)), ONE(f_slice_none, S(3, 5)), ONE(f_flip, S(2, 7)),
        ONE(f_pad, S(2, 3)), ONE(f_pad, S(0, 3)), TWO(f_concat, S(3, 2), S(3, 2)),
        TWO(f_stack, S(3, 2), S(3, 2)), ONE(f_squeeze, S(3, 2)), ONE(f_split, S(2, 3)));
}

Test(structure_gradient, reductions, .timeout = 120)
{
    RUN(ONE(f_sum, S0), ONE(f_sum, S(7)), ONE(f_sum, S(0)), ONE(f_sum_axis, S(3, 5)),
        ONE(f_sum_axis, S(3, 0)), ONE(f_sum_keep, S(2, 3, 3)), ONE(f_mean, S(3, 5)), ONE(f_variance, S(3, 5)),
        ONE(f_variance, S(37, 9)), ONE(f_variance_all, S(3, 5)), ONE(f_max, S(3, 5)), ONE(f_max_all, S(7)),
        ONE(f_min, S(3, 5)), ONE(f_cumsum, S(3, 5)), ONE(f_cumsum_back, S(4, 3)), ONE(f_cumsum, S(3, 0)),
        ONE(f_logsumexp, S(3, 5)), ONE(f_logsumexp_all, S(2, 3, 2)), ONE(f_logsumexp_all, S0));
}

Test(structure_gradient, contractions, .timeout = 120)
{
    RUN(TWO(f_matmul, S(3, 5), S(5, 2)), TWO(f_matmul, S(1, 1), S(1, 1)), TWO(f_matmul, S(3, 0), S(0, 2)),
        TWO(f_matmul, S(0, 3), S(3, 2)), TWO(f_matmul, S(2, 3, 2), S(2, 2, 2)),
        TWO(f_matmul, S(2, 1, 3, 2), S(3, 2, 1)), TWO(f_matmul, S(3, 2), S(4, 2, 3)),
        TWO(f_matmul, S(1, 3, 2), S(4, 2, 3)), TWO(f_matmul, S(17, 33), S(33, 9)),
        TWO(f_matmul_transposed, S(4, 3), S(2, 4)), TWO(f_matmul_flipped, S(3, 4), S(4, 3)),
        ONE(f_matmul_self, S(3, 4)), TWO(f_einsum_batch, S(2, 3, 2), S(2, 2, 3)),
        TWO(f_einsum_dot, S(3, 4), S(3, 4)), TWO(f_einsum_outer, S(3), S(4)),
        TWO(f_einsum_sums, S(2, 3, 2), S(2, 4)), TWO(f_einsum_mul, S(3, 4), S(4)), TWO(f_dot, S(5), S(5)),
        TWO(f_attention, S(3, 4), S(5, 4)));
}

Test(structure_gradient, indexing, .timeout = 120)
{
    RUN(ONE(f_take, S(3, 4)), ONE(f_take_last, S(4, 3)), ONE(f_scatter_add, S(2, 3, 2)),
        ONE(f_take_along, S(2, 4)), ONE(f_sort, S(3, 5)), ONE(f_one_hot, S(3, 5)));
}

Test(structure_gradient, selection_and_identity, .timeout = 120)
{
    RUN(TWO(f_where, S(3, 5), S(5)), ONE(f_cast, S(7)), ONE(f_alias, S(7)), ONE(f_tied, S(7)),
        ONE(f_power_of_self, S(7)));
}

Test(structure_gradient, functions, .timeout = 120)
{
    RUN(ONE(f_square, S(7)), {"relu", f_relu, NULL, 1, {S(7)}, 0.2, 2, 0, 0},
        {"relu", f_relu_negative, NULL, 1, {S(7)}, 0.2, 2, 0, 0}, ONE(f_silu, S(7)), ONE(f_silu, S(40, 3)),
        ONE(f_softplus, S(7)), {"elu", f_elu, NULL, 1, {S(7)}, 0.2, 2, 0, 0},
        {"elu", f_elu, NULL, 1, {S(7)}, -2, -0.2, 0, 0}, ONE(f_gelu, S(7)), ONE(f_gelu, S(40, 3)),
        ONE(f_gelu_erf, S(7)), ONE(f_softmax, S(3, 5)), ONE(f_softmax, S(20, 9)),
        ONE(f_softmax_first, S(4, 3)), ONE(f_log_softmax, S(3, 5)), ONE(f_cross_entropy, S(3, 5)),
        TWO(f_layer_norm, S(3, 5), S(5)), TWO(f_layer_norm, S(8, 17), S(17)), TWO(f_rms_norm, S(3, 5), S(5)),
        {"norm", f_norm, NULL, 1, {S(7)}, 0.3, 1.5, 0, 0});
}

Test(structure_gradient, products_and_running_extremes, .timeout = 120)
{
    RUN(ONE(f_prod, S(3, 5)), ONE(f_prod, S(3, 0)), ONE(f_prod_all, S(2, 3)), ONE(f_cumprod, S(2, 5)),
        ONE(f_cumprod_back, S(4, 2)), ONE(f_cummax, S(3, 5)), ONE(f_cummax, S(3, 0)), ONE(f_cummin, S(3, 5)));
}

Test(structure_gradient, gather_scatter_and_order, .timeout = 120)
{
    RUN(ONE(f_gather, S(3, 4)), TWO(f_scatter, S(3, 4), S(2, 3)), TWO(f_scatter_add_along, S(2, 4), S(2, 3)),
        ONE(f_topk, S(5, 4)), ONE(f_quantile, S(4, 3)));
}

Test(structure_gradient, numbers, .timeout = 120)
{
    RUN(ONE(f_exp2, S(7)), {"log2", f_log2, NULL, 1, {S(7)}, 0.5, 2, 0, 0},
        {"clamp", f_clamp, NULL, 1, {S(2)}, 0.8, 1.2, 0, 0},
        {"clamp", f_clamp, NULL, 1, {S(2)}, 1.4, 2, 0, 0},
        {"mod", f_mod, NULL, 2, {S(5), S(5)}, 0.1, 0.6, 0, 0});
}

Test(structure_gradient, equations_of_einsum, .timeout = 120)
{
    RUN(TWO(f_einsum_diagonal, S(3, 3, 2), S(2, 2)), TWO(f_einsum_dots, S(2, 1, 2, 3), S(2, 3, 2)),
        TWO(f_einsum_of, S(2, 3), S(3, 2)), ONE(f_trace, S(3, 3)));
}
