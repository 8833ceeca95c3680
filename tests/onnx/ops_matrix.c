/* SPDX-License-Identifier: MIT
 *
 * ops_matrix.c - products of matrices, Einstein's sums, determinants. */
#include "compose.h"

#include <string.h>

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

/* ---- Einsum ---- */

/* "...ii -> ...i" and the like, made what mb_einsum takes: no blanks, capital letters for the axes of an
 * ellipsis, all operands named, the result as well. */
typedef struct equation {
    char terms[3][MB_MAX_RANK + 2]; /* of up to two operands, and of the result */
    int operands;
} equation;

/* Letters of one term; an ellipsis stands for `extra` axes. */
static bool add_term(char *out, const char **text, int extra)
{
    int n = 0;
    for (; **text && **text != ',' && strncmp(*text, "->", 2) != 0; (*text)++) {
        if (**text == ' ')
            continue;
        int axes = 1;
        bool dots = strncmp(*text, "...", 3) == 0;
        if (dots) {
            axes = extra;
            *text += 2;
        }
        for (int i = 0; i < axes; i++) {
            if (n > MB_MAX_RANK)
                return false;
            out[n++] = dots ? (char)('A' + i) : **text;
        }
    }
    out[n] = '\0';
    return true;
}

/* Where no result is given: the letters that occur once, in order of the alphabet. */
static void implicit_result(equation *e)
{
    int n = 0;
    for (char letter = 'A'; letter <= 'z'; letter++) {
        int times = 0;
        for (int k = 0; k < e->operands; k++)
            for (const char *p = e->terms[k]; *p; p++)
                times += *p == letter;
        if (times == 1 && n <= MB_MAX_RANK)
            e->terms[2][n++] = letter;
    }
    e->terms[2][n] = '\0';
}

static int letters(const char *text)
{
    int n = 0;
    for (; *text && *text != ',' && strncmp(text, "->", 2) != 0; text++)
        n += *text != ' ' && *text != '.';
    return n;
}

static bool parse_equation(call *c, equation *e)
{
    const char *text = attribute_text(c, "equation", "");
    int extra = 0;
    for (e->operands = 0; e->operands < c->n_in; e->operands++) {
        if (e->operands == 2)
            return false;
        extra = mb_shape_of(input(c, e->operands)).rank - letters(text);
        if (!add_term(e->terms[e->operands], &text, extra))
            return false;
        text += *text == ',';
    }
    if (strncmp(text, "->", 2) != 0) {
        implicit_result(e);
        return true;
    }
    text += 2;
    return add_term(e->terms[2], &text, extra);
}

/* Entries where two axes of one letter agree: where they do not, a mask is 0, and the later axis is summed.
 */
static mb_tensor diagonals(mb_tensor x, char *term)
{
    for (int j = 1; term[j];) {
        int i = (int)(strchr(term, term[j]) - term);
        if (i == j) {
            j++;
            continue;
        }
        int rank = mb_shape_of(x).rank;
        mb_tensor row = along(mb_iota(x.ctx, MB_INT32, mb_dim(x, i)), i, rank);
        mb_tensor column = along(mb_iota(x.ctx, MB_INT32, mb_dim(x, j)), j, rank);
        x = mb_sum(mb_where(mb_eq(row, column), x, literal_like(x, 0)), MB_AXES(j));
        memmove(term + j, term + j + 1, strlen(term + j));
    }
    return x;
}

/* Of one operand: letters missing from the result are summed, the others put in its order. */
static mb_tensor rearranged(mb_tensor x, const char *from, const char *to)
{
    mb_axes sum = {0}, order = {0};
    char left[MB_MAX_RANK + 2];
    int n = 0;
    for (int i = 0; from[i]; i++)
        if (strchr(to, from[i]))
            left[n++] = from[i];
        else
            sum.axis[sum.count++] = i;
    left[n] = '\0';
    for (int i = 0; to[i]; i++)
        order.axis[order.count++] = (int)(strchr(left, to[i]) - left);
    if (sum.count > 0)
        x = mb_sum(x, sum);
    return order.count > 0 ? mb_permute(x, order) : x;
}

static void einsum_op(call *c)
{
    equation e;
    if (!parse_equation(c, &e)) {
        leave(c, "more than two operands");
        return;
    }
    mb_tensor a = diagonals(input(c, 0), e.terms[0]);
    if (e.operands == 1) {
        give(c, 0, rearranged(a, e.terms[0], e.terms[2]));
        return;
    }
    mb_tensor b = diagonals(input(c, 1), e.terms[1]);
    char text[4 * MB_MAX_RANK + 16] = "";
    strcat(strcat(text, e.terms[0]), ",");
    strcat(strcat(text, e.terms[1]), "->");
    give(c, 0, mb_einsum(strcat(text, e.terms[2]), a, b));
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
