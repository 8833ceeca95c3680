/* SPDX-License-Identifier: MIT
 *
 * ops.c - ops with shapes of their own, each as a layer whose free sizes vary: movement, reductions,
 * products, indices, matrices, loops; and random numbers.
 */
#include "support.h"

#define X xs[0]
#define Y xs[1]
#define Z xs[2]
#define F(name, ...)                                                                                         \
    static mb_tensor name(mb_context *ctx, const void *layer, const mb_tensor *xs, const void *user)         \
    {                                                                                                        \
        (void)ctx, (void)layer, (void)user;                                                                  \
        return __VA_ARGS__;                                                                                  \
    }
/* Through a sine, so that the second and third derivatives are no zeros. */
#define CURVED(name, ...) F(name, mb_sin(__VA_ARGS__))

CURVED(f_reshape, mb_reshape(X, MB_SHAPE(-1)))
CURVED(f_permute, mb_permute(X, MB_AXES(2, 0, 1)))
CURVED(f_broadcast, mb_add(mb_broadcast(mb_reshape(X, MB_SHAPE(1, mb_dim(X, 0), mb_dim(X, 1), 3)),
                                        MB_SHAPE(2, mb_dim(X, 0), mb_dim(X, 1), 3)),
                           1.0))
CURVED(f_slice, mb_slice(mb_slice(X, 2, 2, 2, -1), 2, 0, 1, 2))
CURVED(f_flip, mb_mul(mb_flip(X, 0), mb_flip(X, 2)))
CURVED(f_pad, mb_add(mb_pad(mb_pad(X, 1, 1, 2), 2, 0, 1), 0.5))
CURVED(f_unfold, mb_unfold(X, 1, (mb_window){.size = 3, .stride = 2}))
CURVED(f_fold, mb_fold(X, 1, (mb_window){.size = 3, .stride = 2}, 9))
CURVED(f_concat, mb_concat(((mb_tensor[]){X, mb_mul(X, X), mb_flip(X, 1)}), 3, 1))
CURVED(f_stack, mb_stack(((mb_tensor[]){X, mb_exp(X)}), 2, 1))
CURVED(f_where, mb_where(Y, mb_mul(X, X), mb_exp(X)))
CURVED(f_cast, mb_mul(X, mb_cast(mb_lt(0.1, X), mb_dtype_of(X))))

CURVED(f_sum, mb_mul(X, mb_sum(X, MB_KEEP(0, 2))))
CURVED(f_sum_all, mb_sum(mb_exp(X), MB_ALL))
CURVED(f_sum_rows, mb_mul(mb_sum(mb_exp(X), MB_AXES(2)), mb_sum(X, MB_AXES(2))))
CURVED(f_rows, mb_mul(mb_mean(mb_exp(X), MB_AXES(2)), mb_sum(X, MB_AXES(2))))
CURVED(f_mean, mb_sub(X, mb_mean(X, MB_KEEP(2))))
CURVED(f_max, mb_mul(X, mb_max(X, MB_KEEP(2))))
CURVED(f_max_columns, mb_max(mb_mul(X, 2), MB_AXES(2, 1)))
CURVED(f_softmax, mb_softmax(mb_mul(X, 2), -1))
CURVED(f_logsumexp, mb_logsumexp(X, MB_AXES(2)))
CURVED(f_variance, mb_variance(X, MB_AXES(2)))
CURVED(f_norm, mb_norm(mb_add(X, 2), MB_AXES(2)))
CURVED(f_cumsum, mb_mul(mb_cumsum(X, 1, false), mb_cumsum(X, 2, true)))
CURVED(f_cummax, mb_mul(mb_cummax(X, 1, false), mb_cummax(X, 2, true)))
F(f_argmax, mb_argmax(X, 1))
F(f_argsort, mb_argsort(X))
CURVED(f_sort, mb_sort(X))

CURVED(f_matmul, mb_matmul(X, Y))
CURVED(f_matmul_turned, mb_matmul(mb_transpose(Y), mb_transpose(X)))
CURVED(f_einsum, mb_einsum("bnd,nde->eb", X, Y))
CURVED(f_outer, mb_einsum("bnd,e->bend", X, Y))
CURVED(f_dot, mb_dot(X, mb_exp(X)))

CURVED(f_take, mb_take(X, Y, 1))
CURVED(f_take_first, mb_mul(mb_take(X, Y, 0), 0.5))
CURVED(f_scatter_add, mb_scatter_add(X, Y, 0, 5))
CURVED(f_take_along, mb_take_along(X, Y))
F(f_one_hot, mb_one_hot(X, 4))

/* x with a large diagonal: positive definite by the triangle that is read. */
static mb_tensor heavy(mb_tensor x)
{
    int64_t n = mb_dim(x, -1);
    return mb_add(mb_mul(x, 0.3), mb_mul(mb_eye(x.ctx, mb_dtype_of(x), n), 3.0));
}
CURVED(f_cholesky, mb_cholesky(heavy(X)))
CURVED(f_lower, mb_triangular_solve(heavy(X), Y, MB_LOWER))
CURVED(f_upper, mb_triangular_solve(heavy(X), Y, MB_UPPER))

CURVED(f_scalar, mb_mul(mb_mul(X, 0.3), mb_scalar(ctx, mb_dtype_of(X), 1.7)))
CURVED(f_iota, mb_mul(X, mb_iota(ctx, mb_dtype_of(X), 3)))
CURVED(f_mask, mb_where(mb_tril_mask(ctx, mb_dim(X, 1), 3, 0), X, mb_mul(X, X)))

/* x [B, N, 3]: N steps, from the last on; with a condition to leave early. */
static mb_tensor loop(mb_context *ctx, mb_tensor x, bool backwards, bool until)
{
    mb_tensor carry = mb_sum(x, MB_AXES(1)), stack, by_step = mb_permute(x, MB_AXES(1, 0, 2));
    mb_scan s = mb_scan_begin_with(ctx, mb_dim(x, 1), (mb_scan_options){.backwards = backwards});
    mb_scan_carry(s, &carry);
    mb_tensor now = mb_scan_slice(s, by_step);
    carry = mb_tanh(mb_add(mb_mul(carry, 0.5), now));
    mb_scan_stack(s, mb_mul(carry, now), &stack);
    if (until)
        mb_scan_until(s, mb_lt(1.5, mb_sum(mb_square(carry), MB_ALL)));
    mb_scan_end(s);
    return mb_add(mb_sum(stack, MB_AXES(0)), carry);
}
F(f_scan, loop(ctx, X, false, false))
F(f_scan_backwards, loop(ctx, X, true, false))
F(f_scan_until, loop(ctx, X, false, true))

#define B    MB_FREE(1)
#define N    MB_FREE(2)
#define ROWS MB_SHAPE(B, N, 3)
#define I32  MB_INT32
#define ONE(f)                                                                                               \
    {                                                                                                        \
        .name = "op/" #f, .apply = f_##f, .n = 1, .shape = { ROWS }                                          \
    }

/* ---- random numbers: the same ones on every backend ---- */

static void draws(const char *name, mb_tensor (*draw)(mb_context *ctx, mb_dtype dtype), double most)
{
    if (!wanted(name))
        return;
    for (int d = MB_FLOAT32; d <= (run.float64 ? MB_FLOAT64 : MB_FLOAT32); d++) {
        mb_context *a = open_as(run.backend, NULL, 0), *b = open_as("reference", NULL, 0);
        mb_check_result r;
        mb_status status = mb_close_to(draw(a, (mb_dtype)d), draw(b, (mb_dtype)d),
                                       (mb_closeness){.atol = most * (d ? 1e-13 : 1e-5) + 1e-300}, &r);
        told(name, status == MB_OK, "%s", r.text);
        mb_close(a);
        mb_close(b);
    }
}
static mb_tensor uniform(mb_context *ctx, mb_dtype dtype)
{
    return mb_uniform(ctx, mb_key_of(3), dtype, MB_SHAPE(3, 333));
}
static mb_tensor normal(mb_context *ctx, mb_dtype dtype)
{
    return mb_normal(ctx, mb_key_fold(mb_key_of(4), 5), dtype, MB_SHAPE(1001));
}
static mb_tensor shuffled(mb_context *ctx, mb_dtype dtype)
{
    return mb_cast(mb_permutation(ctx, mb_key_of(9), MB_SHAPE(2, 57)), dtype);
}

static void shaped(void)
{
    const mb_layer_case cases[] = {
        ONE(reshape),
        ONE(permute),
        ONE(broadcast),
        ONE(slice),
        ONE(flip),
        ONE(pad),
        {.name = "op/unfold", .apply = f_unfold, .n = 1, .shape = {MB_SHAPE(B, 7, 2)}},
        {.name = "op/fold", .apply = f_fold, .n = 1, .shape = {MB_SHAPE(B, 3, 3, 2)}},
        ONE(concat),
        ONE(stack),
        {.name = "op/where",
         .apply = f_where,
         .n = 2,
         .shape = {ROWS, MB_SHAPE(N, 3)},
         .dtype = {0, MB_BOOL}},
        ONE(cast),
        ONE(sum),
        ONE(sum_all),
        ONE(sum_rows),
        ONE(mean),
        ONE(max),
        {.name = "op/max_columns", .apply = f_max_columns, .n = 1, .shape = {MB_SHAPE(B, 4, 3)}},
        ONE(softmax),
        ONE(logsumexp),
        ONE(variance),
        ONE(norm),
        ONE(cumsum),
        ONE(cummax),
        {.name = "op/argmax", .apply = f_argmax, .n = 1, .shape = {MB_SHAPE(B, 4, 3)}},
        ONE(argsort),
        ONE(sort),
        {.name = "op/matmul",
         .apply = f_matmul,
         .n = 2,
         .shape = {MB_SHAPE(B, N, 3), MB_SHAPE(3, MB_FREE(3))}},
        {.name = "op/matmul/batched",
         .apply = f_matmul,
         .n = 2,
         .shape = {MB_SHAPE(B, N, 3), MB_SHAPE(B, 3, 2)}},
        {.name = "op/matmul/turned", .apply = f_matmul_turned, .n = 2, .shape = {ROWS, MB_SHAPE(B, 3, 2)}},
        {.name = "op/einsum", .apply = f_einsum, .n = 2, .shape = {ROWS, MB_SHAPE(N, 3, 2)}},
        {.name = "op/einsum/outer", .apply = f_outer, .n = 2, .shape = {ROWS, MB_SHAPE(2)}},
        ONE(dot),
        {.name = "op/take",
         .apply = f_take,
         .n = 2,
         .shape = {MB_SHAPE(B, 4, 3), MB_SHAPE(N, 2)},
         .dtype = {0, I32},
         .below = {0, 4}},
        {.name = "op/take/first",
         .apply = f_take_first,
         .n = 2,
         .shape = {MB_SHAPE(4, B), MB_SHAPE(N)},
         .dtype = {0, I32},
         .below = {0, 4}},
        {.name = "op/scatter_add",
         .apply = f_scatter_add,
         .n = 2,
         .shape = {MB_SHAPE(N, B), MB_SHAPE(N)},
         .dtype = {0, I32},
         .below = {0, 5}},
        {.name = "op/take_along",
         .apply = f_take_along,
         .n = 2,
         .shape = {MB_SHAPE(B, 4), MB_SHAPE(B, N)},
         .dtype = {0, I32},
         .below = {0, 4}},
        {.name = "op/one_hot",
         .apply = f_one_hot,
         .n = 1,
         .shape = {MB_SHAPE(B, N)},
         .dtype = {I32},
         .below = {5}},
        {.name = "op/cholesky", .apply = f_cholesky, .n = 1, .shape = {MB_SHAPE(B, N, N)}, .looser = 10},
        {.name = "op/triangular_solve/lower",
         .apply = f_lower,
         .n = 2,
         .shape = {MB_SHAPE(B, N, N), MB_SHAPE(B, N, 2)},
         .looser = 10},
        {.name = "op/triangular_solve/upper",
         .apply = f_upper,
         .n = 2,
         .shape = {MB_SHAPE(B, N, N), MB_SHAPE(B, N, 2)},
         .looser = 10},
        ONE(scalar),
        ONE(iota),
        ONE(mask),
        {.name = "op/scan", .apply = f_scan, .n = 1, .shape = {MB_SHAPE(B, 4, 3)}},
        {.name = "op/scan/backwards", .apply = f_scan_backwards, .n = 1, .shape = {MB_SHAPE(B, 4, 3)}},
        {.name = "op/scan/until", .apply = f_scan_until, .n = 1, .shape = {MB_SHAPE(B, 6, 3)}},
        /* long enough for tiles, threads and blocks to matter */
        {.name = "large/sum",
         .apply = f_rows,
         .n = 1,
         .shape = {MB_SHAPE(3, 70, 301)},
         .low = -0.1,
         .high = 0.1,
         .orders = 1},
        {.name = "large/matmul",
         .apply = f_matmul,
         .n = 2,
         .shape = {MB_SHAPE(2, 65, 130), MB_SHAPE(130, 67)},
         .low = -0.1,
         .high = 0.1,
         .orders = 1},
        {.name = "large/cumsum",
         .apply = f_cumsum,
         .n = 1,
         .shape = {MB_SHAPE(1, 2, 1000)},
         .low = -0.01,
         .high = 0.01,
         .orders = 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mb_layer_case c = cases[i];
        mb_check_result r;
        c.backends = run.backend;
        if (wanted(c.name))
            told(c.name, mb_check_layer(&c, &r) == MB_OK, "%s", r.text);
    }
}

void op_cases(void)
{
    shaped();
    draws("random/uniform", uniform, 0);
    draws("random/normal", normal, 1);
    draws("random/permutation", shuffled, 0);
}
