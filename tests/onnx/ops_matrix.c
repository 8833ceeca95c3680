/* SPDX-License-Identifier: MIT
 *
 * ops_matrix.c - products of matrices, Einstein's sums, determinants. */
#include "compose.h"

/* A vector is a row on the left and a column on the right, and its axis goes again. */
static mb_tensor product_of(mb_tensor a, mb_tensor b)
{
    bool row = mb_shape_of(a).rank == 1, column = mb_shape_of(b).rank == 1;
    mb_tensor y = mb_matmul(row ? mb_unsqueeze(a, 0) : a, column ? mb_unsqueeze(b, 1) : b);
    if (column)
        y = mb_squeeze(y, mb_shape_of(y).rank - 1);
    return row ? mb_squeeze(y, mb_shape_of(y).rank - (column ? 1 : 2)) : y;
}

static void matmul_op(call *c)
{
    give(c, 0, product_of(input(c, 0), input(c, 1)));
}

/* alpha A B + beta C, A and B transposed as wanted. */
static void gemm_op(call *c)
{
    mb_tensor a = input(c, 0), b = input(c, 1);
    if (attribute_int(c, "transA", 0))
        a = mb_transpose(a);
    if (attribute_int(c, "transB", 0))
        b = mb_transpose(b);
    mb_tensor y = mb_mul(mb_matmul(a, b), attribute_float(c, "alpha", 1));
    if (has(c, 2))
        y = mb_add(y, mb_mul(input(c, 2), attribute_float(c, "beta", 1)));
    give(c, 0, y);
}

static void einsum_op(call *c)
{
    mb_tensor *xs = ARENA_NEW(c->run->memory, mb_tensor, c->n_in);
    for (int i = 0; i < c->n_in; i++)
        xs[i] = input(c, i);
    give(c, 0, mb_einsum_of(attribute_text(c, "equation", ""), xs, c->n_in));
}

/* ---- Det ---- */

/* Of [..., n, n], along the first row. */
static mb_tensor determinant(mb_tensor x)
{
    int rank = mb_shape_of(x).rank;
    int64_t n = mb_dim(x, -1);
    mb_tensor below = mb_slice(x, -2, 1, n - 1, 1), sum = {0};
    for (int64_t j = 0; j < n; j++) {
        mb_tensor term = mb_slice(mb_slice(x, -2, 0, 1, 1), -1, j, 1, 1);
        term = mb_squeeze(mb_squeeze(term, rank - 1), rank - 2);
        if (n > 1) {
            mb_tensor parts[] = {mb_slice(below, -1, 0, j, 1), mb_slice(below, -1, j + 1, n - 1 - j, 1)};
            term = mb_mul(term, determinant(mb_concat(parts, 2, -1)));
        }
        sum = j == 0 ? term : j % 2 ? mb_sub(sum, term) : mb_add(sum, term);
    }
    return sum;
}

static void det_op(call *c)
{
    mb_tensor x = input(c, 0);
    if (mb_dim(x, -1) > 4)
        leave(c, "determinants of more than 4 rows");
    else
        give(c, 0, determinant(x));
}

const op matrix_ops[] = {
    {"Det", det_op, false},
    {"Einsum", einsum_op, false},
    {"Gemm", gemm_op, false},
    {"MatMul", matmul_op, false},
    {0},
};
