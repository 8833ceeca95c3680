/* SPDX-License-Identifier: MIT
 *
 * residual.c - MB_DEBUG, for ops on matrices: whether a result solves the problem that it was computed for.
 * Another backend's result would not tell: of an ill-conditioned matrix two right ones may have no digit in
 * common, while what each leaves over is as small as that of any other.
 */
#include <math.h>

#include "backends/engine/state.h"

/* The values of one matrix of the batch; a and b are operands. */
typedef struct problem {
    const double *a, *b, *result;
    int64_t n, m;
    bool upper, unit;
    double rounding, least; /* of a term of a sum, widely; what vanishes */
} problem;

/* Element (i, j) of L L^T is a[i, j], but for rounding of the terms, which add up to no more than that on the
 * diagonal. NaN stands for a matrix that has no factor. */
static bool factor_fits(const problem *p, int64_t i, int64_t j)
{
    double sum = 0, terms = (double)p->n + 2;
    if (j > i)
        return p->result[i * p->n + j] == 0;
    for (int64_t k = 0; k <= j; k++)
        sum += p->result[i * p->n + k] * p->result[j * p->n + k];
    double size = sqrt(fabs(p->a[i * p->n + i])) * sqrt(fabs(p->a[j * p->n + j]));
    return isnan(sum) || fabs(sum - p->a[i * p->n + j]) <= terms * p->rounding * size + p->least;
}

/* Row i of a times column j of the result is b[i, j]; nothing is said of what overflows. */
static bool solution_fits(const problem *p, int64_t i, int64_t j)
{
    double sum = 0, size = 0, terms = (double)p->n + 2;
    int64_t first = p->upper ? i : 0, end = p->upper ? p->n : i + 1;
    for (int64_t k = first; k < end; k++) {
        double term = (k == i && p->unit ? 1 : p->a[i * p->n + k]) * p->result[k * p->m + j];
        sum += term;
        size += fabs(term);
    }
    return !isfinite(size) || fabs(sum - p->b[i * p->m + j]) <= terms * p->rounding * size + p->least;
}

int64_t mb__residual_off(mb_context *ctx, const mb__node *n, double *const *operands, const double *result)
{
    bool factor = n->op == MB_OP_CHOLESKY;
    int64_t rows = n->dim[n->rank - 2], columns = n->dim[n->rank - 1], all = mb__numel(n->dim, n->rank);
    bool narrow = n->dtype != MB_FLOAT64;
    problem p = {
        .n = rows, .m = columns, .rounding = narrow ? 1e-6 : 1e-15, .least = narrow ? 1e-37 : 1e-300};
    p.upper = !factor && mb__attrs(ctx, n)[0];
    p.unit = !factor && mb__attrs(ctx, n)[1];
    for (int64_t at = 0; at < all; at++) {
        int64_t matrix = at / columns / rows, i = at / columns % rows, j = at % columns;
        p.a = operands[0] + matrix * rows * rows;
        p.b = factor ? NULL : operands[1] + matrix * rows * columns;
        p.result = result + matrix * rows * columns;
        if (!(factor ? factor_fits : solution_fits)(&p, i, j))
            return at;
    }
    return -1;
}
