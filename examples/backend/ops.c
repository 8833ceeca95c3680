/* SPDX-License-Identifier: MIT
 * ops.c - the ops that are steps of their own. */
#include <math.h>

#include "trace.h"

/* ---- along an axis: rows x of n numbers, xs apart, and y ---- */

/* NaN sorts last and counts as the largest. */
static bool before(double a, double b)
{
    return a < b || (isnan(b) && !isnan(a));
}

static void argmax(const double *x, int64_t xs, double *y, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (before(x[best * xs], x[i * xs]))
            best = i;
    *y = (double)best;
}

static void cumsum(const double *x, int64_t xs, double *y, int64_t ys, int64_t n, bool backwards)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t k = backwards ? n - 1 - i : i;
        y[k * ys] = sum += x[k * xs];
    }
}

static void cummax(const double *x, int64_t xs, double *y, int64_t ys, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double top = i ? y[(i - 1) * ys] : x[0];
        y[i * ys] = before(top, x[i * xs]) ? x[i * xs] : top;
    }
}

static void argsort(const mb__other *o, const double *x, int64_t xs, double *y, int64_t ys)
{
    int64_t n = o->in_dim[o->axis];
    for (int64_t i = 0; i < n; i++) {
        int64_t k = i < o->wanted ? i : o->wanted;
        for (; k > 0; k--) {
            double a = x[i * xs], b = x[(int64_t)y[(k - 1) * ys] * xs];
            if (o->flag ? !before(b, a) : !before(a, b))
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

static void along_axis(const run *r, const mb__other *o)
{
    int64_t index[MB_MAX_RANK] = {0}, dim[MB_MAX_RANK], n = o->in_dim[o->axis];
    memcpy(dim, o->in_dim, sizeof dim);
    dim[o->axis] = 1;
    if (mb__numel(o->in_dim, o->in_rank) == 0)
        return;
    do {
        const double *x = value_of(r, o->in.value) + place(&o->in, index, o->in_rank);
        double *y = value_of(r, o->out.value) + place(&o->out, index, o->out_rank);
        int64_t xs = o->in.stride[o->axis], ys = o->out.stride[o->axis];
        if (o->op == MB_OP_ARGMAX)
            argmax(x, xs, y, n);
        else if (o->op == MB_OP_CUMSUM)
            cumsum(x, xs, y, ys, n, o->flag);
        else if (o->op == MB_OP_CUMMAX)
            cummax(x, xs, y, ys, n);
        else
            argsort(o, x, xs, y, ys);
    } while (advance(index, dim, o->in_rank));
}

/* ---- by an index ---- */

/* take: wide[before, i..., after] = narrow[before, index[i...], after]; scatter_add adds the other way round.
 */
static void by_index(const run *r, const mb__other *o)
{
    bool take = o->op == MB_OP_TAKE;
    const mb__view *wide = take ? &o->out : &o->in, *narrow = take ? &o->in : &o->out;
    const int64_t *dim = take ? o->out_dim : o->in_dim;
    int rank = take ? o->out_rank : o->in_rank;
    int64_t at[MB_MAX_RANK] = {0}, size = take ? o->in_dim[o->axis] : o->out_dim[o->axis];
    double *w = value_of(r, wide->value), *n = value_of(r, narrow->value);
    const double *index = value_of(r, o->index.value);
    if (!take)
        memset(n, 0, (size_t)r->plan->values[narrow->value].count * sizeof *n);
    if (mb__numel(dim, rank) == 0)
        return;
    do {
        double chosen = index[place(&o->index, at + o->axis, o->index_rank)];
        chosen = chosen < 0 ? 0 : chosen >= (double)size ? (double)(size - 1) : chosen;
        int64_t from = narrow->offset + (int64_t)chosen * narrow->stride[o->axis];
        for (int i = 0; i < rank; i++)
            if (i < o->axis || i >= o->axis + o->index_rank)
                from += at[i] * narrow->stride[i < o->axis ? i : i - o->index_rank + 1];
        if (take)
            w[place(wide, at, rank)] = n[from];
        else
            n[from] += w[place(wide, at, rank)];
    } while (advance(at, dim, rank));
}

/* ---- matrices: element i, j of one is at i * s[0] + j * s[1] ---- */

/* Row i is done when those above are: l[i, j] l[j, j] = a[i, j] - sum_k l[i, k] l[j, k] over k < j. */
static void cholesky(int64_t n, const double *a, const int64_t *as, double *l, const int64_t *ls)
{
    bool positive = true;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double rest = j > i ? 0 : a[i * as[0] + j * as[1]];
            for (int64_t k = 0; k < j && j <= i; k++)
                rest -= l[i * ls[0] + k * ls[1]] * l[j * ls[0] + k * ls[1]];
            positive = positive && (i != j || (rest > 0 && isfinite(rest)));
            l[i * ls[0] + j * ls[1]] = j < i ? rest / l[j * (ls[0] + ls[1])] : sqrt(rest);
        }
    for (int64_t i = 0; i < n && !positive; i++)
        for (int64_t j = 0; j <= i; j++)
            l[i * ls[0] + j * ls[1]] = (double)NAN;
}

/* x[i] a[i, i] = b[i] - sum_j a[i, j] x[j] over the j before i, which are those behind it if a is upper. */
static void solve(const mb__other *o, const double *a, const double *b, double *x)
{
    int64_t n = o->out_dim[o->axis], columns = o->out_dim[o->axis + 1];
    const int64_t *as = o->in.stride + o->axis, *bs = o->index.stride + o->axis,
                  *xs = o->out.stride + o->axis;
    for (int64_t row = 0; row < n; row++)
        for (int64_t c = 0; c < columns; c++) {
            int64_t i = o->flag ? n - 1 - row : row;
            double rest = b[i * bs[0] + c * bs[1]];
            for (int64_t q = 0; q < row; q++) {
                int64_t j = o->flag ? n - 1 - q : q;
                rest -= a[i * as[0] + j * as[1]] * x[j * xs[0] + c * xs[1]];
            }
            x[i * xs[0] + c * xs[1]] = o->unit ? rest : rest / a[i * (as[0] + as[1])];
        }
}

static void by_matrix(const run *r, const mb__other *o)
{
    int64_t index[MB_MAX_RANK] = {0};
    if (mb__numel(o->out_dim, o->out_rank) == 0)
        return;
    do {
        const double *a = value_of(r, o->in.value) + place(&o->in, index, o->axis);
        double *y = value_of(r, o->out.value) + place(&o->out, index, o->axis);
        if (o->op == MB_OP_CHOLESKY)
            cholesky(o->in_dim[o->axis], a, o->in.stride + o->axis, y, o->out.stride + o->axis);
        else
            solve(o, a, value_of(r, o->index.value) + place(&o->index, index, o->axis), y);
    } while (advance(index, o->out_dim, o->axis));
}

/* ---- which of them ---- */

static const struct {
    int op;
    void (*run)(const run *r, const mb__other *o);
} others[] = {{MB_OP_ARGMAX, along_axis},  {MB_OP_CUMSUM, along_axis},
              {MB_OP_CUMMAX, along_axis},  {MB_OP_ARGSORT, along_axis},
              {MB_OP_TAKE, by_index},      {MB_OP_SCATTER_ADD, by_index},
              {MB_OP_CHOLESKY, by_matrix}, {MB_OP_TRIANGULAR_SOLVE, by_matrix}};
enum { OTHERS = sizeof others / sizeof *others };

bool trace_knows_other(const mb__other *o)
{
    for (int i = 0; i < OTHERS; i++)
        if (others[i].op == o->op)
            return true;
    return false;
}

void trace_run_other(const run *r, const mb__other *o)
{
    const mb__value *v = &r->plan->values[o->out.value];
    for (int i = 0; i < OTHERS; i++)
        if (others[i].op == o->op)
            others[i].run(r, o);
    if (v->dtype == MB_INT32 && (o->op == MB_OP_CUMSUM || o->op == MB_OP_SCATTER_ADD))
        for (int64_t i = 0; i < v->count; i++)
            value_of(r, o->out.value)[i] = trace_wrapped(value_of(r, o->out.value)[i]);
}
