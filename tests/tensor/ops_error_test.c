/* SPDX-License-Identifier: MIT
 *
 * ops_error_test.c - every public function of tensor.h, autograd.h and backends.h used wrongly. Each mistake
 * must be refused with its status, at this file and line, in a sentence that holds the given words: what was
 * got and what was wanted. The context must be usable after mb_clear_error. */
#include <pthread.h>

#include "support.h"

/* wrong: an expression that makes the mistake; the words must all be in the message. */
#define REFUSED(status, wrong, ...)                                                                          \
    do {                                                                                                     \
        (void)(wrong);                                                                                       \
        refused(__LINE__, #wrong, ctx, status, (const char *[]){__VA_ARGS__, NULL});                         \
    } while (0)

static void refused(int line, const char *what, mb_context *ctx, mb_status status, const char *const *words)
{
    const char *message = mb_message(ctx), *at = strstr(message, "ops_error_test.c:");
    expect(mb_error(ctx) == status, "%s: status %s, not %s: \"%s\"", what, mb_status_name(mb_error(ctx)),
           mb_status_name(status), message);
    /* Compilers differ in which line of a macro call of several lines is its __LINE__. */
    int said = at ? atoi(at + strlen("ops_error_test.c:")) : -9;
    expect(abs(said - line) <= 3, "%s: \"%s\" does not say line %d", what, message, line);
    for (; *words; words++)
        expect(strstr(message, *words) != NULL, "%s: \"%s\" does not say \"%s\"", what, message, *words);
    expect(strlen(message) < 900 && strlen(message) > 20, "%s: the message's length", what);
    mb_clear_error(ctx);
    expect(mb_error(ctx) == MB_OK && !*mb_message(ctx), "clear_error");
    expect(mb_item(mb_add(mb_scalar(ctx, MB_FLOAT64, 1), 1.0)) == 2,
           "%s: the context is of no use afterwards: %s", what, mb_message(ctx));
    mb_clear_error(ctx);
}

typedef struct things {
    mb_tensor f32, f64, i32, truth, row, empty;
} things;

static things make(mb_context *ctx)
{
    return (things){mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(3, 4)), mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(3, 4)),
                    mb_zeros(ctx, MB_INT32, MB_SHAPE(3, 4)),   mb_zeros(ctx, MB_BOOL, MB_SHAPE(3, 4)),
                    mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(5)),    mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(0, 2))};
}

#define OPEN                                                                                                 \
    mb_context *ctx = open_on("cpu");                                                                        \
    things t = make(ctx)

Test(ops_error, elementwise)
{
    OPEN;
    REFUSED(MB_INVALID, mb_add(t.f32, t.row), "add", "[3,4]", "[5]");
    REFUSED(MB_INVALID, mb_mul(t.f32, t.f64), "mul", "float32", "float64", "cast");
    REFUSED(MB_INVALID, mb_div(t.i32, t.i32), "div", "int32", "wanted floats");
    REFUSED(MB_INVALID, mb_exp(t.truth), "exp", "bool");
    REFUSED(MB_INVALID, mb_neg(t.truth), "neg", "bool");
    REFUSED(MB_INVALID, mb_not(t.f32), "not", "float32", "bool");
    REFUSED(MB_INVALID, mb_and(t.truth, t.i32), "and", "int32");
    REFUSED(MB_INVALID, mb_lt(t.truth, t.truth), "lt", "bool");
    REFUSED(MB_INVALID, mb_eq(t.f32, t.i32), "eq", "int32");
    REFUSED(MB_INVALID, mb_where(t.f32, t.f32, t.f32), "where", "float32", "bool");
    REFUSED(MB_INVALID, mb_where(t.truth, t.f32, t.f64), "where", "float64");
    REFUSED(MB_INVALID, mb_where(t.truth, t.f32, t.row), "where", "[5]");
    REFUSED(MB_INVALID, mb_cast(t.f32, (mb_dtype)9), "cast", "9");
    REFUSED(MB_INVALID, mb_gelu(t.i32), "int32");
    REFUSED(MB_INVALID, mb_exp2(t.i32), "exp2", "int32");
    REFUSED(MB_INVALID, mb_log2(t.i32), "log2", "int32");
    REFUSED(MB_INVALID, mb_log10(t.truth), "log10", "bool");
    REFUSED(MB_INVALID, mb_clamp(t.truth, 0, 1), "clamp", "bool");
    REFUSED(MB_INVALID, mb_isnan(t.i32), "isnan", "int32");
    REFUSED(MB_INVALID, mb_isinf(t.i32), "isinf", "int32");
    REFUSED(MB_INVALID, mb_isfinite(t.truth), "isfinite", "bool");
    REFUSED(MB_INVALID, mb_mod(t.f32, t.f64), "mod", "float32", "float64");
    REFUSED(MB_INVALID, mb_mod(t.truth, t.truth), "mod", "bool");
    REFUSED(MB_INVALID, mb_mod(t.f32, t.row), "mod", "[3,4]", "[5]");
    REFUSED(MB_INVALID, mb_fmod(t.i32, t.f32), "fmod", "int32", "float32");
    REFUSED(MB_INVALID, mb_floor_divide(t.f32, t.f32), "floor_divide", "float32", "wanted int32");
    REFUSED(MB_INVALID, mb_gt(t.f32, t.i32), "gt", "int32");
    REFUSED(MB_INVALID, mb_ge(t.truth, t.truth), "ge", "bool");
    REFUSED(MB_INVALID, mb_ne(t.f32, t.row), "ne", "[5]");
    REFUSED(MB_INVALID, mb_atan2(t.i32, t.i32), "atan2", "int32");
    close_all();
}

Test(ops_error, movement)
{
    OPEN;
    REFUSED(MB_INVALID, mb_reshape(t.f32, MB_SHAPE(5, 2)), "reshape", "[3,4]", "[5,2]");
    REFUSED(MB_INVALID, mb_reshape(t.f32, MB_SHAPE(-1, 5)), "reshape", "[3,4]");
    REFUSED(MB_INVALID, mb_reshape(t.f32, MB_SHAPE(-1, -1)), "reshape");
    REFUSED(MB_INVALID, mb_reshape(t.f32, MB_SHAPE(-3, -4)), "reshape");
    REFUSED(MB_INVALID, mb_reshape(t.f32, ((mb_shape){9, {1, 1, 1, 1, 1, 1, 3, 4}})), "reshape", "[3,4]");
    REFUSED(MB_INVALID, mb_permute(t.f32, MB_AXES(0)), "permute", "[3,4]");
    REFUSED(MB_INVALID, mb_permute(t.f32, MB_AXES(0, 0)), "permute");
    REFUSED(MB_INVALID, mb_permute(t.f32, MB_AXES(0, 2)), "permute", "2");
    REFUSED(MB_INVALID, mb_transpose(t.row), "transpose", "[5]");
    REFUSED(MB_INVALID, mb_broadcast(t.f32, MB_SHAPE(3, 5)), "broadcast", "[3,4]", "[3,5]");
    REFUSED(MB_INVALID, mb_broadcast(t.f32, MB_SHAPE(4)), "broadcast");
    REFUSED(MB_INVALID, mb_slice(t.f32, 2, 0, 1, 1), "slice", "2");
    REFUSED(MB_INVALID, mb_slice(t.f32, 1, 2, 3, 1), "slice", "[3,4]");
    REFUSED(MB_INVALID, mb_slice(t.f32, 1, 1, 3, -1), "slice");
    REFUSED(MB_INVALID, mb_slice(t.f32, 1, -1, 1, 1), "slice");
    REFUSED(MB_INVALID, mb_slice(t.f32, 1, 0, -2, 1), "slice");
    REFUSED(MB_INVALID, mb_slice(t.f32, 1, 0, 1, 0), "slice", "step");
    REFUSED(MB_INVALID, mb_slice(t.f32, 1, 0, 4, INT64_MAX), "slice");
    REFUSED(MB_INVALID, mb_flip(t.f32, -3), "-3", "[3,4]");
    REFUSED(MB_INVALID, mb_pad(t.f32, 2, 1, 1), "pad", "2");
    REFUSED(MB_INVALID, mb_pad(t.f32, 0, -1, 1), "pad", "-1");
    mb_tensor rows[2] = {t.f32, t.row}, types[2] = {t.f32, t.f64};
    REFUSED(MB_INVALID, mb_concat(rows, 2, 0), "concat", "[3,4]", "[5]");
    REFUSED(MB_INVALID, mb_concat(types, 2, 0), "concat", "float64");
    REFUSED(MB_INVALID, mb_concat(types, 1, 2), "concat");
    REFUSED(MB_INVALID, mb_stack(rows, 2, 0), "differ", "float32");
    REFUSED(MB_INVALID, mb_stack(rows, 1, 4), "axis 4", "[3,4]");
    REFUSED(MB_INVALID, mb_unsqueeze(t.f32, 4), "unsqueeze");
    REFUSED(MB_INVALID, mb_squeeze(t.f32, 0), "squeeze", "[3,4]");
    mb_tensor parts[4];
    REFUSED(MB_INVALID, mb_split(t.f32, ((int64_t[]){1, 2}), parts, 2, 1), "split", "4 entries");
    REFUSED(MB_INVALID, mb_split(t.f32, ((int64_t[]){5, -1}), parts, 2, 1), "split", "[3,4]");
    REFUSED(MB_INVALID, mb_split(t.f32, ((int64_t[]){INT64_MAX, 2}), parts, 2, 1), "split");
    REFUSED(MB_INVALID, mb_split(t.f32, NULL, parts, 2, 1), "split");
    REFUSED(MB_INVALID, mb_split(t.f32, ((int64_t[]){4}), parts, 1, 2), "split", "2");
    expect(!mb_valid(parts[0]), "a part of what was refused");
    REFUSED(MB_INVALID, mb_unstack(t.f32, parts, 4, 0), "unstack", "3 entries");
    REFUSED(MB_INVALID, mb_unstack(t.f32, NULL, 3, 0), "unstack");
    REFUSED(MB_INVALID, mb_unstack(t.f32, parts, 3, -3), "unstack", "-3");
    mb_tensor eight = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(1, 1, 1, 1, 1, 1, 1, 1));
    REFUSED(MB_INVALID, mb_unsqueeze(eight, 0), "unsqueeze");
    mb_tensor two[2] = {eight, eight};
    REFUSED(MB_INVALID, mb_stack(two, 2, 0), "at most 8 axes");
    close_all();
}

Test(ops_error, reductions_and_contractions)
{
    OPEN;
    REFUSED(MB_INVALID, mb_sum(t.f32, MB_AXES(2)), "sum", "2");
    REFUSED(MB_INVALID, mb_sum(t.f32, MB_AXES(1, -1)), "sum: axis 1 is named twice");
    REFUSED(MB_INVALID, mb_max(t.f32, MB_KEEP(0, 0)), "max: axis 0 is named twice");
    REFUSED(
        MB_INVALID,
        mb_argmax(mb_broadcast(mb_full(ctx, MB_FLOAT32, MB_SHAPE0, 1), MB_SHAPE(((int64_t)1 << 31) + 1)), 0),
        "argmax", "2147483649", "2147483647");
    REFUSED(MB_INVALID, mb_mean(t.i32, MB_ALL), "mean", "int32");
    REFUSED(MB_INVALID, mb_variance(t.i32, MB_ALL), "int32");
    REFUSED(MB_INVALID, mb_max(t.f32, MB_AXES(-3)), "max", "-3");
    REFUSED(MB_INVALID, mb_min(t.f32, MB_AXES(5)), "min", "5");
    REFUSED(MB_INVALID, mb_argmax(t.f32, 2), "argmax");
    REFUSED(MB_INVALID, mb_argmax(t.empty, 0), "argmax", "[0,2]");
    REFUSED(MB_INVALID, mb_argmax(t.truth, 0), "argmax", "bool");
    REFUSED(MB_INVALID, mb_cumsum(t.f32, 2, false), "cumsum", "2");
    REFUSED(MB_INVALID, mb_cumsum(t.truth, 0, false), "cumsum", "bool");
    REFUSED(MB_INVALID, mb_cumprod(t.f32, 2, false), "cumprod", "2");
    REFUSED(MB_INVALID, mb_cumprod(t.truth, 0, false), "cumprod", "bool");
    REFUSED(MB_INVALID, mb_cummax(t.f32, 2, false), "cummax", "2");
    REFUSED(MB_INVALID, mb_cummax(t.truth, 0, true), "cummax", "bool");
    REFUSED(MB_INVALID, mb_cummin(t.truth, 0, true), "cummin", "bool");
    REFUSED(MB_INVALID, mb_argmin(t.empty, 0), "argmin", "[0,2]");
    REFUSED(MB_INVALID, mb_argmin(t.truth, 0), "argmin", "bool");
    REFUSED(MB_INVALID, mb_prod(t.f32, MB_AXES(2)), "prod", "2");
    REFUSED(MB_INVALID, mb_any(t.f32, MB_AXES(0, 0)), "any: axis 0 is named twice");
    REFUSED(MB_INVALID, mb_all(t.f32, MB_AXES(3)), "all", "3");
    REFUSED(MB_INVALID, mb_logsumexp(t.f32, MB_AXES(3)), "logsumexp", "3");
    REFUSED(MB_INVALID, mb_logsumexp(t.i32, MB_ALL), "logsumexp", "int32");
    REFUSED(MB_INVALID, mb_softmax(t.f32, 2), "2");
    REFUSED(MB_INVALID, mb_log_softmax(t.i32, 0), "int32");
    REFUSED(MB_INVALID, mb_matmul(t.f32, t.f32), "matmul", "inner sizes differ", "[3,4]");
    REFUSED(MB_INVALID, mb_matmul(t.f32, t.row), "matmul", "rank 2");
    REFUSED(MB_INVALID, mb_matmul(t.i32, t.i32), "matmul", "int32");
    REFUSED(MB_INVALID, mb_matmul(t.f32, mb_transpose(t.f64)), "matmul", "float64");
    mb_tensor batch = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(2, 3, 4));
    REFUSED(MB_INVALID, mb_matmul(batch, mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(3, 4, 2))), "matmul", "[2,3,4]");
    REFUSED(MB_INVALID, mb_einsum("ij,jk->ik", t.f32, t.f32), "einsum", "ij,jk->ik", "[3,4]");
    REFUSED(MB_INVALID, mb_einsum("ij", t.f32, t.f32), "einsum", "a term for each operand");
    REFUSED(MB_INVALID, mb_einsum("ij,ij,ij", t.f32, t.f32), "einsum", "a term for each operand");
    REFUSED(MB_INVALID, mb_einsum("i....j,ij", t.f32, t.f32), "einsum", "\"...\"");
    REFUSED(MB_INVALID, mb_einsum("...i,...ij->j", t.row, t.f32), "einsum", "one size");
    REFUSED(MB_INVALID, mb_einsum("...,...->...", t.row, t.f32), "einsum", "broadcast");
    REFUSED(MB_INVALID, mb_einsum("ij,kl-ik", t.f32, t.f32), "einsum", "form");
    REFUSED(MB_INVALID, mb_einsum_of("ij->ii", &t.f32, 1), "einsum", "once");
    REFUSED(MB_INVALID, mb_einsum_of("ii", &t.f32, 1), "einsum", "one size");
    REFUSED(MB_INVALID, mb_einsum_of("ij", &t.i32, 1), "einsum", "float");
    REFUSED(MB_INVALID, mb_einsum("ii,ij->j", t.f32, t.f32), "einsum");
    REFUSED(MB_INVALID, mb_einsum("ij,ij->z", t.f32, t.f32), "einsum");
    REFUSED(MB_INVALID, mb_einsum("ij,ij->ii", t.f32, t.f32), "einsum");
    REFUSED(MB_INVALID, mb_einsum("i,ij->j", t.f32, t.f32), "einsum");
    REFUSED(MB_INVALID, mb_einsum("ijk,ij->j", t.f32, t.f32), "einsum");
    REFUSED(MB_INVALID, mb_einsum("i1,ij->j", t.f32, t.f32), "einsum");
    REFUSED(MB_INVALID, mb_einsum(NULL, t.f32, t.f32), "einsum");
    REFUSED(MB_INVALID, mb_einsum("ij,ij->ij", t.f32, t.i32), "einsum", "int32");
    REFUSED(MB_INVALID, mb_dot(t.f32, t.row), "dot", "[3,4]", "[5]");
    close_all();
}

Test(ops_error, linear_algebra)
{
    OPEN;
    mb_tensor a = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(3, 3)),
              many = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(2, 3, 3));
    mb_tensor three = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(3, 3, 1)),
              whole = mb_zeros(ctx, MB_INT32, MB_SHAPE(3, 3));
    mb_tensor wide = mb_cast(a, MB_FLOAT64), none = {0};
    REFUSED(MB_INVALID, mb_tril(t.row, 0), "tril", "[5]", "rank 2");
    REFUSED(MB_INVALID, mb_triu(t.row, 0), "triu", "[5]", "rank 2");
    REFUSED(MB_INVALID, mb_diagonal(t.row), "diagonal", "[5]", "rank 2");
    REFUSED(MB_INVALID, mb_trace(t.row), "trace", "[5]", "rank 2");
    REFUSED(MB_INVALID, mb_diagonal_matrix(mb_scalar(ctx, MB_FLOAT32, 1)), "diagonal_matrix", "rank 1 to 7");
    REFUSED(MB_INVALID, mb_diagonal_matrix(mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(1, 1, 1, 1, 1, 1, 1, 1))),
            "diagonal_matrix", "rank 1 to 7");
    REFUSED(MB_INVALID, mb_cholesky(t.f32), "cholesky", "[3,4]", "square");
    REFUSED(MB_INVALID, mb_cholesky(t.row), "cholesky", "[5]", "rank 2");
    REFUSED(MB_INVALID, mb_cholesky(whole), "cholesky", "int32", "floats");
    REFUSED(MB_INVALID, mb_log_det_spd(t.f32), "log_det_spd", "[3,4]", "square");
    REFUSED(MB_INVALID, mb_triangular_solve(t.f32, a, MB_LOWER), "triangular_solve", "[3,4]", "square");
    REFUSED(MB_INVALID, mb_triangular_solve(a, t.row, MB_LOWER), "triangular_solve", "[5]", "rank 2");
    REFUSED(MB_INVALID, mb_triangular_solve(a, mb_transpose(t.f32), MB_LOWER), "[4,3]", "as many rows");
    REFUSED(MB_INVALID, mb_triangular_solve(a, wide, MB_LOWER), "float64", "one float dtype");
    REFUSED(MB_INVALID, mb_triangular_solve(many, three, MB_LOWER), "[2,3,3]", "[3,3,1]", "broadcast");
    REFUSED(MB_INVALID, mb_triangular_solve(a, a, 8), "triangular_solve", "8", "MB_LOWER");
    REFUSED(MB_INVALID, mb_cholesky_solve(t.f32, a), "cholesky_solve", "[3,4]", "square");
    REFUSED(MB_INVALID, mb_solve_spd(whole, whole), "solve_spd", "int32", "one float dtype");
    REFUSED(MB_INVALID, mb_solve_spd(many, three), "solve_spd", "[2,3,3]", "[3,3,1]", "broadcast");
    REFUSED(MB_INVALID, mb_lstsq(t.f32, mb_transpose(t.f32), none), "lstsq", "[4,3]", "as many rows");
    REFUSED(MB_INVALID, mb_lstsq(a, a, mb_scalar(ctx, MB_FLOAT64, 1)), "lstsq", "ridge", "float32");
    REFUSED(MB_INVALID, mb_lstsq(many, a, mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(3))), "ridge", "[3]", "[2]");
    REFUSED(MB_INVALID, mb_lstsq(a, a, mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(1))), "ridge", "[1]", "[]");
    close_all();
}

Test(ops_error, indexing_and_functions)
{
    OPEN;
    mb_tensor index = mb_iota(ctx, MB_INT32, 2);
    REFUSED(MB_INVALID, mb_take(t.f32, t.row, 0), "take", "float32", "int32");
    REFUSED(MB_INVALID, mb_take(t.f32, index, 2), "take", "2");
    REFUSED(MB_INVALID, mb_take(t.empty, index, 0), "take", "empty");
    REFUSED(MB_INVALID, mb_scatter_add(t.f32, index, 0, 7), "scatter_add");
    REFUSED(MB_INVALID, mb_scatter_add(t.f32, t.row, 0, 7), "scatter_add", "int32");
    REFUSED(MB_INVALID, mb_scatter_add(t.f32, mb_iota(ctx, MB_INT32, 3), 0, -1), "scatter_add", "-1");
    REFUSED(MB_INVALID, mb_take_along(t.f32, t.f32), "take_along", "int32");
    REFUSED(MB_INVALID, mb_take_along(t.f32, mb_zeros(ctx, MB_INT32, MB_SHAPE(2, 4))), "take_along", "[2,4]");
    REFUSED(MB_INVALID, mb_gather(t.f32, t.f32, 0), "gather", "int32");
    REFUSED(MB_INVALID, mb_gather(t.f32, t.i32, 2), "gather", "2");
    REFUSED(MB_INVALID, mb_gather(t.f32, index, 0), "gather", "[3,4]", "[2]", "same rank");
    REFUSED(MB_INVALID, mb_gather(t.row, mb_zeros(ctx, MB_INT32, MB_SHAPE(2, 2)), 0), "gather", "[5]");
    REFUSED(MB_INVALID, mb_gather(t.f32, mb_zeros(ctx, MB_INT32, MB_SHAPE(4, 4)), 1), "gather", "[4,4]");
    REFUSED(MB_INVALID, mb_gather(t.empty, mb_zeros(ctx, MB_INT32, MB_SHAPE(1, 2)), 0), "gather", "[0,2]");
    REFUSED(MB_INVALID, mb_scatter(t.f32, t.i32, t.f64, 0), "scatter", "float64", "one dtype");
    REFUSED(MB_INVALID, mb_scatter(t.f32, t.i32, t.row, 0), "scatter", "[5]");
    REFUSED(MB_INVALID, mb_scatter(t.f32, t.f32, t.f32, 0), "scatter", "int32");
    REFUSED(MB_INVALID, mb_scatter_add_along(t.f32, t.i32, t.row, 0), "scatter_add_along", "[5]");
    REFUSED(MB_INVALID, mb_scatter_add_along(t.truth, t.i32, t.truth, 0), "scatter_add", "bool");
    REFUSED(MB_INVALID, mb_topk(t.f32, 5, 1, true, NULL), "topk", "k = 5", "4 entries");
    REFUSED(MB_INVALID, mb_topk(t.f32, -1, 1, true, NULL), "topk", "k = -1");
    REFUSED(MB_INVALID, mb_topk(t.truth, 1, 1, true, NULL), "topk", "bool");
    REFUSED(MB_INVALID, mb_topk(t.f32, 1, 2, true, NULL), "topk", "2");
    REFUSED(MB_INVALID, mb_quantile(t.f32, 1.5, 0), "quantile", "1.5");
    REFUSED(MB_INVALID, mb_quantile(t.f32, (double)NAN, 0), "quantile", "nan");
    REFUSED(MB_INVALID, mb_quantile(t.i32, 0.5, 0), "quantile", "int32");
    REFUSED(MB_INVALID, mb_median(t.empty, 0), "[0,2]");
    REFUSED(MB_INVALID, mb_argsort(t.truth), "argsort", "bool");
    REFUSED(MB_INVALID, mb_argsort(mb_scalar(ctx, MB_FLOAT32, 1)), "argsort");
    REFUSED(MB_INVALID, mb_sort(t.truth), "bool");
    REFUSED(MB_INVALID, mb_one_hot(t.f32, 3), "one_hot", "int32");
    REFUSED(MB_INVALID, mb_one_hot(t.i32, -3), "-3");
    REFUSED(MB_INVALID, mb_cross_entropy(t.f32, mb_zeros(ctx, MB_INT32, MB_SHAPE(4))), "cross_entropy",
            "[4]");
    REFUSED(MB_INVALID, mb_cross_entropy(t.f32, mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(3))), "cross_entropy",
            "int32");
    close_all();
}

Test(ops_error, leaves)
{
    OPEN;
    REFUSED(MB_INVALID, mb_full(ctx, MB_FLOAT32, MB_SHAPE(3, -1), 0), "full", "-1");
    REFUSED(MB_INVALID, mb_full(ctx, (mb_dtype)77, MB_SHAPE(3), 0), "full", "77");
    REFUSED(MB_INVALID, mb_full(ctx, MB_FLOAT32, ((mb_shape){9, {0}}), 0), "full", "9");
    REFUSED(MB_INVALID, mb_full(ctx, MB_FLOAT32, ((mb_shape){-1, {0}}), 0), "full", "-1");
    REFUSED(MB_INVALID, mb_scalar(ctx, (mb_dtype)-1, 0), "scalar", "-1");
    REFUSED(MB_INVALID, mb_from(ctx, MB_FLOAT32, MB_SHAPE(3), NULL), "from");
    REFUSED(MB_INVALID, mb_from(ctx, MB_FLOAT32, MB_SHAPE(INT64_MAX / 2, 8), ""), "too many elements");
    REFUSED(MB_INVALID, mb_full(ctx, MB_FLOAT32, MB_SHAPE(INT64_C(1) << 32, INT64_C(1) << 32), 0),
            "too many elements");
    REFUSED(MB_INVALID, mb_iota(ctx, MB_BOOL, 3), "iota", "bool");
    REFUSED(MB_INVALID, mb_iota(ctx, MB_INT32, -3), "iota", "-3");
    REFUSED(MB_INVALID, mb_tril_mask(ctx, -1, 3, 0), "-1");
    REFUSED(MB_INVALID, mb_eye(ctx, MB_FLOAT32, -2), "-2");
    REFUSED(MB_INVALID, mb_uniform(ctx, mb_key_of(1), MB_BOOL, MB_SHAPE(3)), "uniform", "bool");
    REFUSED(MB_INVALID, mb_normal(ctx, mb_key_of(1), MB_INT32, MB_SHAPE(3)), "normal", "int32");
    REFUSED(MB_INVALID, mb_permutation(ctx, mb_key_of(1), MB_SHAPE0), "rank 1");
    mb_scope s = mb_scope_begin(ctx);
    REFUSED(MB_INVALID, mb_variable(ctx, MB_FLOAT32, MB_SHAPE(3)), "variable", "scope");
    mb_scope_end(s);
    mb_tensor w = mb_variable(ctx, MB_FLOAT32, MB_SHAPE(3, 4));
    REFUSED(MB_INVALID, mb_assign(w, t.row), "assign", "[3,4]", "[5]");
    REFUSED(MB_INVALID, mb_assign(w, t.f64), "assign", "float64");
    REFUSED(MB_INVALID, mb_assign(t.f32, t.f32), "assign", "variable");
    close_all();
}

Test(ops_error, computing)
{
    OPEN;
    float out[12];
    REFUSED(MB_INVALID, mb_read(t.f32, out, 47), "read", "47", "48");
    REFUSED(MB_INVALID, mb_read(t.f32, NULL, 48), "read");
    REFUSED(MB_INVALID, isnan(mb_item(t.f32)) ? 0 : expect(false, "item is a number"), "item", "[3,4]");
    REFUSED(MB_INVALID, mb_watch(t.f32, out, 12), "watch", "12", "48");
    mb_tensor all[2] = {t.f32, {0}};
    REFUSED(MB_INVALID, mb_eval(all, 2), "eval");
    REFUSED(MB_IO, mb_fail(ctx, MB_IO, "layer %d of %s", 3, "mine"), "layer 3 of mine");
    mb_site outer = mb_site_begin(ctx, "user.c:77"), inner = mb_site_begin(ctx, "deeper.c:1");
    mb_exp(t.truth);
    expect(!strncmp(mb_message(ctx), "user.c:77: ", 11), "the outermost site: %s", mb_message(ctx));
    mb_site_end(&inner);
    mb_site_end(&outer);
    mb_clear_error(ctx);
    REFUSED(MB_INVALID, mb_exp(t.truth), "exp");
    close_all();
}

Test(ops_error, derivatives)
{
    OPEN;
    mb_tensor x = mb_scalar(ctx, MB_FLOAT32, 1), y = mb_exp(x), g[2], none = {0};
    REFUSED(MB_INVALID, mb_grad(t.i32, &x, 1, g), "grad", "int32");
    REFUSED(MB_INVALID, mb_grad(y, &t.i32, 1, g), "grad", "int32");
    REFUSED(MB_INVALID, mb_grad(y, &none, 1, g), "grad");
    expect(!mb_valid(g[0]), "poison for a refused gradient");
    REFUSED(MB_INVALID, mb_grad(y, NULL, 1, g), "grad");
    REFUSED(MB_INVALID, mb_grad(y, &x, -1, g), "grad", "-1");
    REFUSED(MB_INVALID, mb_vjp(y, t.f32, &x, 1, g), "vjp", "[3,4]");
    REFUSED(MB_INVALID, mb_vjp(y, mb_scalar(ctx, MB_FLOAT64, 1), &x, 1, g), "vjp", "float64");
    REFUSED(MB_INVALID, mb_jvp(&y, 1, &x, &t.f32, 1, g), "jvp", "[3,4]");
    REFUSED(MB_INVALID, mb_hvp(y, &x, &t.f32, 1, g), "vp: ", "[3,4]");
    close_all();
}

/* ---- by whose name ---- */

/* A mistake is reported by the function that was called, not by those that it is made of. */
#define BY(name, wrong) REFUSED(MB_INVALID, wrong, ": " name ": ")

Test(ops_error, names_of_what_was_called)
{
    OPEN;
    mb_key key = mb_key_of(1);
    mb_shape negative = MB_SHAPE(3, -1);
    mb_tensor rows[2] = {t.f32, t.row}, huge = mb_full(ctx, MB_FLOAT32, MB_SHAPE((int64_t)1 << 40, 1), 1);
    BY("min", mb_min(t.f32, MB_AXES(5)));
    BY("variance", mb_variance(t.i32, MB_ALL));
    BY("logsumexp", mb_logsumexp(t.truth, MB_ALL));
    BY("norm", mb_norm(t.i32, MB_ALL));
    BY("norm", mb_norm(t.f32, MB_AXES(2)));
    BY("norm", mb_norm(t.f32, MB_AXES(1, 1)));
    BY("stack", mb_stack(rows, 2, 0));
    BY("stack", mb_stack(rows, 1, 4));
    BY("flip", mb_flip(t.f32, 2));
    BY("square", mb_square(t.truth));
    BY("relu", mb_relu(t.truth));
    BY("silu", mb_silu(t.i32));
    BY("softplus", mb_softplus(t.i32));
    BY("elu", mb_elu(t.i32));
    BY("gelu", mb_gelu(t.truth));
    BY("gelu_erf", mb_gelu_erf(t.truth));
    BY("softmax", mb_softmax(t.i32, 0));
    BY("log_softmax", mb_log_softmax(t.f32, 2));
    BY("dot", mb_dot(t.f32, t.f64));
    BY("matmul", mb_matmul(huge, mb_transpose(huge)));
    BY("einsum", mb_einsum("ia,ja->ij", huge, huge));
    BY("sort", mb_sort(t.truth));
    BY("one_hot", mb_one_hot(t.i32, -3));
    BY("tril_mask", mb_tril_mask(ctx, -1, 3, 0));
    BY("eye", mb_eye(ctx, MB_FLOAT32, -2));
    BY("normal", mb_normal(ctx, key, MB_FLOAT32, negative));
    BY("permutation", mb_permutation(ctx, key, negative));
    BY("exponential", mb_exponential(ctx, key, MB_FLOAT32, negative));
    BY("laplace", mb_laplace(ctx, key, MB_FLOAT32, negative));
    BY("gamma", mb_gamma(ctx, key, MB_FLOAT32, negative, 2, 1));
    BY("sphere", mb_sphere(ctx, key, MB_FLOAT32, MB_SHAPE(-1, 3)));
    BY("orthogonal", mb_orthogonal(ctx, key, MB_FLOAT32, MB_SHAPE(-1, 3, 3)));
    BY("add", mb_add(t.i32, 2.5));
    BY("lt", mb_lt(2.5, t.i32));
    mb_tensor x = mb_scalar(ctx, MB_FLOAT32, 1), y = mb_exp(x), h, k;
    BY("hvp", mb_hvp(y, &x, &t.f32, 1, &h));
    BY("hvp", mb_hvp(y, &t.i32, &t.f32, 1, &h));
    BY("hvp_batch", mb_hvp_batch(y, &x, &x, 1, &h));
    BY("hvp_reverse", mb_hvp_reverse(t.i32, &x, &x, 1, &h));
    BY("jacobian", mb_jacobian(t.i32, x));
    BY("hessian", mb_hessian(t.i32, &x, 1));
    BY("hessian_diagonal", mb_hessian_diagonal(y, &t.i32, 1, &h));
    BY("directional", mb_directional(y, &x, &t.f32, 1, &h, &k));
    BY("lanczos", mb_lanczos(t.i32, &x, 1, 1, key, &h, &k));
    double low, high;
    BY("extreme_eigenvalues", mb_extreme_eigenvalues(t.i32, &x, 1, 1, key, &low, &high));
    BY("sgd_update", mb_sgd_update(t.f32, t.f64, x));
    BY("momentum_update", mb_momentum_update(t.f32, t.f64, x, t.f32, 0.5, false, &h));
    BY("adam_update", mb_adam_update(t.f32, t.f32, t.row, t.f32, t.f64, 1, NULL, &h, &k));
    BY("clip_value", mb_clip_value(t.truth, 1));
    BY("global_norm", mb_global_norm((mb_tensor[]){t.f32, t.f64}, 2));
    BY("clip_norm", mb_clip_norm((mb_tensor[]){t.f32, t.f64}, 2, 1, rows));
    /* and afterwards by its own */
    BY("exp", mb_exp(t.truth));
    BY("concat", mb_concat((mb_tensor[]){t.f32, t.row}, 2, 0));
    close_all();
}

/* What MB_DEBUG finds, too, also in a gradient: its products are those of the matmul. */
Test(ops_error, names_in_debug_mode)
{
    for (int k = 0; k < 2; k++) {
        setenv("MB_DEBUG", "1", 1);
        mb_context *ctx = open_on(backend_names[k]);
        unsetenv("MB_DEBUG");
        mb_tensor x = mb_full(ctx, MB_FLOAT32, MB_SHAPE(2, 2), 1e30),
                  w = mb_full(ctx, MB_FLOAT32, MB_SHAPE(2, 2), 1e-30);
        mb_tensor g;
        REFUSED(MB_INVALID, mb_item(mb_sum(mb_matmul(x, x), MB_ALL)), ": matmul: the first infinity");
        REFUSED(MB_INVALID, mb_item(mb_sum(mb_einsum("ij,ij->i", x, x), MB_ALL)), ": einsum: the first");
        REFUSED(MB_INVALID, mb_item(mb_sum(mb_square(x), MB_ALL)), ": square (mul): the first");
        REFUSED(MB_INVALID, (mb_vjp(mb_matmul(x, w), x, &w, 1, &g), mb_item(mb_sum(g, MB_ALL))),
                ": matmul: the first");
        close_all();
    }
}

/* ---- whose tensor is it ---- */

Test(ops_error, foreign_and_null)
{
    OPEN;
    mb_context *other = open_on("reference");
    mb_tensor foreign = mb_scalar(other, MB_FLOAT32, 1), none = {0};
    REFUSED(MB_INVALID, mb_add(t.f32, foreign), "add", "operand 2", "another context");
    REFUSED(MB_INVALID, mb_where(t.truth, t.f32, foreign), "where", "operand 3");
    REFUSED(MB_INVALID, mb_matmul(t.f32, none), "matmul", "operand 2", "not a tensor");
    REFUSED(MB_INVALID, mb_add(none, t.f32), "add", "operand 1", "not a tensor");
    expect(mb_error(other) == MB_OK, "the other context is not touched: %s", mb_message(other));
    mb_tensor g;
    REFUSED(MB_INVALID, mb_grad(mb_exp(t.f32), &foreign, 1, &g), "grad");
    REFUSED(MB_INVALID, mb_concat(((mb_tensor[]){t.f32, foreign}), 2, 0), "concat", "another context");
    /* Nothing to report to: no crash. */
    expect(!mb_valid(mb_exp(none)) && !mb_valid(mb_add(none, none)) && !mb_valid(mb_sum(none, MB_ALL)),
           "ops of nothing");
    expect(mb_count(none) == 0 && mb_shape_of(none).rank == 0 && mb_dim(none, 0) == 0,
           "questions to nothing");
    expect(mb_read(none, NULL, 0) != MB_OK && isnan(mb_item(none)) && mb_eval(&none, 1) != MB_OK,
           "reading nothing");
    expect(mb_grad(none, &none, 1, &g) != MB_OK && !mb_valid(g), "the gradient of nothing");
    expect(!mb_valid(mb_scalar(NULL, MB_FLOAT32, 1)) && !mb_valid(mb_variable(NULL, MB_FLOAT32, MB_SHAPE0)),
           "leaves of no context");
    expect(mb_error(NULL) == MB_NO_MEMORY && strstr(mb_message(NULL), "no context"),
           "questions to no context");
    mb_clear_error(NULL);
    expect(mb_close(NULL) == MB_OK && mb_get_stats(NULL).nodes == 0, "closing nothing");
    mb_scope_end(mb_scope_begin(NULL));
    close_all();
}

/* The first error stays; its consequences add nothing and compute nothing. */
Test(ops_error, the_first_error_sticks)
{
    OPEN;
    int line = __LINE__ + 1;
    mb_tensor bad = mb_add(t.f32, t.row), next = mb_exp(mb_mul(bad, 2.0));
    mb_tensor later = mb_add(t.f32, t.f64);
    char at[64];
    snprintf(at, sizeof at, "ops_error_test.c:%d: add: shapes", line);
    expect(strstr(mb_message(ctx), at) != NULL, "the first error: %s", mb_message(ctx));
    expect(!mb_valid(bad) && !mb_valid(next) && !mb_valid(later), "poison");
    float x[12];
    expect(mb_read(t.f32, x, sizeof x) == MB_INVALID, "flushes return the error");
    expect(mb_eval(&next, 1) == MB_INVALID && isnan(mb_item(next)), "of poison, too");
    mb_clear_error(ctx);
    REFUSED(MB_INVALID, mb_exp(next), "exp", "failed");
    expect(mb_read(t.f32, x, sizeof x) == MB_OK, "after clear_error: %s", mb_message(ctx));
    mb_exp(t.truth);
    expect(mb_close(mb_open_with(&(mb_options){.backend = "reference"})) == MB_OK, "close of a good context");
    close_failed(ctx);
    close_all();
}

static mb_tensor shared;

static void *elsewhere(void *user)
{
    mb_context *ctx = user;
    mb_tensor y = mb_exp(shared);
    float x;
    bool refused = !mb_valid(y) && mb_read(shared, &x, sizeof x) == MB_THREAD &&
                   mb_eval(&shared, 1) == MB_THREAD && !mb_valid(mb_scalar(ctx, MB_FLOAT32, 1)) &&
                   mb_close(ctx) == MB_THREAD;
    return refused ? user : NULL;
}

Test(ops_error, second_thread)
{
    OPEN;
    shared = mb_scalar(ctx, MB_FLOAT32, 1);
    (void)t;
    pthread_t other;
    void *refused = NULL;
    pthread_create(&other, NULL, elsewhere, ctx);
    pthread_join(other, &refused);
    expect(refused != NULL, "calls from another thread are refused");
    expect(mb_error(ctx) == MB_THREAD && strstr(mb_message(ctx), "ops_error_test.c:"),
           "the owner is told: %s: %s", mb_status_name(mb_error(ctx)), mb_message(ctx));
    mb_clear_error(ctx);
    expect(fabs(mb_item(mb_exp(shared)) - exp(1)) < 1e-6, "and can go on");
    close_all();
}

Test(ops_error, names)
{
    for (int s = MB_OK; s <= MB_NO_RULE; s++)
        expect(strlen(mb_status_name((mb_status)s)) > 1 &&
                   strcmp(mb_status_name((mb_status)s), "unknown status"),
               "status %d", s);
    expect(strlen(mb_status_name((mb_status)99)) > 1 && strlen(mb_status_name((mb_status)-1)) > 1,
           "unknown statuses");
    expect(!strcmp(mb_dtype_name(MB_FLOAT32), "float32") && !strcmp(mb_dtype_name(MB_BOOL), "bool") &&
               mb_dtype_name((mb_dtype)9),
           "dtypes");
    expect(mb_dtype_size(MB_FLOAT64) == 8 && mb_dtype_size(MB_BOOL) == 1 && mb_dtype_size((mb_dtype)-1) == 0,
           "sizes");
}
