/* SPDX-License-Identifier: MIT
 * rows.c - see rows.h. */
#include "backends/reference/rows.h"

#include <math.h>

/* NaN sorts last and counts as the largest. */
bool mb__reference_before(double a, double b)
{
    return a < b || (b != b && a == a);
}

/* By insertion: equal ones stay in their order. */
void mb__reference_argsort(const mb__other *o, const double *x, int64_t xs, double *y, int64_t ys)
{
    int64_t n = o->in_dim[o->axis];
    for (int64_t i = 0; i < n; i++) {
        int64_t k = i < o->wanted ? i : o->wanted;
        for (; k > 0; k--) {
            double a = x[i * xs], b = x[(int64_t)y[(k - 1) * ys] * xs];
            if (o->flag ? !mb__reference_before(b, a) : !mb__reference_before(a, b))
                break;
            if (k < o->wanted)
                y[k * ys] = y[(k - 1) * ys];
        }
        if (k < o->wanted)
            y[k * ys] = (double)i;
    }
    for (int64_t i = o->wanted; i < n; i++)
        y[i * ys] = 0;
}

/* Row i is done when those above are: l[i, j] l[j, j] = a[i, j] - sum_k l[i, k] l[j, k] over k < j. */
void mb__reference_cholesky(const mb__other *o, const double *a, double *l)
{
    int64_t n = o->in_dim[o->axis];
    const int64_t *as = o->in.stride + o->axis, *ls = o->out.stride + o->axis;
    bool positive = true;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double rest = j > i ? 0 : a[i * as[0] + j * as[1]];
            for (int64_t k = 0; k < j && j <= i; k++)
                rest -= l[i * ls[0] + k * ls[1]] * l[j * ls[0] + k * ls[1]];
            positive &= i != j || (rest > 0 && isfinite(rest));
            l[i * ls[0] + j * ls[1]] = j < i ? rest / l[j * ls[0] + j * ls[1]] : sqrt(rest);
        }
    for (int64_t i = 0; i < n && !positive; i++)
        for (int64_t j = 0; j <= i; j++)
            l[i * ls[0] + j * ls[1]] = (double)NAN;
}

/* x[i] a[i, i] = b[i] - sum_j a[i, j] x[j] over the j before i, which are those behind it if a is upper. */
void mb__reference_triangular_solve(const mb__other *o, const double *a, const double *b, double *x)
{
    int64_t n = o->out_dim[o->axis], m = o->out_dim[o->axis + 1];
    const int64_t *as = o->in.stride + o->axis, *bs = o->index.stride + o->axis,
                  *xs = o->out.stride + o->axis;
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < m; c++) {
            int64_t i = o->flag ? n - 1 - r : r;
            double rest = b[i * bs[0] + c * bs[1]];
            for (int64_t q = 0; q < r; q++) {
                int64_t j = o->flag ? n - 1 - q : q;
                rest -= a[i * as[0] + j * as[1]] * x[j * xs[0] + c * xs[1]];
            }
            x[i * xs[0] + c * xs[1]] = o->unit ? rest : rest / a[i * (as[0] + as[1])];
        }
}
