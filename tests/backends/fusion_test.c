/* SPDX-License-Identifier: MIT
 *
 * fusion_test.c - kernels whose values change at different paces: with the element, once a row, once at all;
 * stored, read on, or summed over rows, over columns, over both. Numbers are small integers, so every sum is
 * exact and closed forms must be met to the bit.
 */
#include "support.h"

enum { SIZE_MOST = 4 * 4 * 4 * 4 };

/* The element of v at `index`, where v lies along the one axis. */
static double along(const double *v, const int *index, int axis)
{
    return v[index[axis]];
}

static void next_index(int *index, int rank, int size)
{
    for (int i = rank; i-- > 0;) {
        if (++index[i] < size)
            return;
        index[i] = 0;
    }
}

/* [size,1,...]: a value along the axis of a space of the rank. */
static mb_tensor laid_along(mb_tensor v, int axis, int rank, int64_t size)
{
    mb_shape s = {rank - axis, {size, 1, 1, 1}};
    return mb_reshape(v, s);
}

/* One value of the rows, s, is read along two axes of a cube at once: those readers have no rows in common.
 */
static void two_axes(const char *backend, int rank, int size, int first, int second, bool maxima)
{
    mb_context *ctx = open_on(backend);
    double xd[12], ad[SIZE_MOST], sd[4];
    int index[4] = {0}, count = 1;
    for (int i = 0; i < rank; i++)
        count *= size;
    for (int i = 0; i < 12; i++)
        xd[i] = (i * 7) % 5 + i;
    for (int i = 0; i < count; i++)
        ad[i] = i % 11;
    for (int i = 0; i < size; i++) {
        double sum = xd[3 * i] + xd[3 * i + 1] + xd[3 * i + 2],
               most = fmax(xd[3 * i], fmax(xd[3 * i + 1], xd[3 * i + 2]));
        sd[i] = 2 * (maxima ? most : sum);
    }
    mb_shape cube = {rank, {size, size, size, size}};
    mb_tensor x = mb_from(ctx, MB_FLOAT64, MB_SHAPE(size, 3), xd), a = mb_from(ctx, MB_FLOAT64, cube, ad);
    mb_tensor s = mb_mul(maxima ? mb_max(x, MB_AXES(1)) : mb_sum(x, MB_AXES(1)), 2.0);
    mb_tensor out[2] = {mb_add(a, laid_along(s, first, rank, size)),
                        mb_sub(a, laid_along(s, second, rank, size))};
    mb_eval(out, 2);
    double *p = values(out[0]), *q = values(out[1]);
    for (int i = 0; i < count; i++, next_index(index, rank, size)) {
        double wp = ad[i] + along(sd, index, first), wq = ad[i] - along(sd, index, second);
        expect(p[i] == wp && q[i] == wq,
               "%s: rank %d, size %d, axes %d and %d: element %d is %g and %g, not %g and %g", backend, rank,
               size, first, second, i, p[i], q[i], wp, wq);
    }
    expect_ok(ctx);
    close_all();
}

Test(fusion, readers_of_different_rows, .timeout = 60)
{
    for (int b = 0; b < 2; b++)
        for (int rank = 2; rank <= 4; rank++)
            for (int first = 0; first < rank; first++)
                for (int second = 0; second < rank; second++)
                    for (int maxima = 0; maxima < 2; maxima++)
                        two_axes(backend_names[b], rank, rank == 4 ? 2 : 2 + maxima, first, second, maxima);
}

/* ---- paces ---- */

enum source { OTHER_ROWS, OWN_ROWS, OWN_MAXIMA, SOURCES };
enum {
    OUT_ROW = 1,      /* the rows' own value */
    OUT_ELEMENT = 2,  /* each element by it */
    OVER_ROWS = 4,    /* a sum over the rows, which leaves a value for each column */
    OVER_COLUMNS = 8, /* ... over the columns, of what changes with them */
    OVER_ALL = 16,
    OVER_MIDDLE = 32, /* ... over the middle axis alone */
    OUT_PLAIN = 64,   /* elements that do not see the rows' value */
    OUTS = 7
};

enum { A = 3, B = 4, C = 5 };

typedef struct paces {
    double x[A][B][C], u[A][B][C], row[A][B]; /* row: [A,1] where the columns are both last axes */
    bool wide;                                /* columns are both last axes */
} paces;

static void fill(paces *p, int source)
{
    for (int a = 0; a < A; a++)
        for (int b = 0; b < B; b++)
            for (int c = 0; c < C; c++) {
                p->x[a][b][c] = (a * 5 + b * 3 + c * 7) % 13 - 4;
                p->u[a][b][c] = (a * 2 + b * 5 + c) % 7;
            }
    for (int a = 0; a < A; a++)
        for (int b = 0; b < B; b++) {
            double sum = 0, most = -100;
            for (int k = 0; k < (p->wide ? B : 1); k++)
                for (int c = 0; c < C; c++) {
                    double(*from)[B][C] = source == OTHER_ROWS ? p->u : p->x;
                    double v = from[a][p->wide ? k : b][c];
                    sum += v;
                    most = fmax(most, v);
                }
            p->row[a][b] = 2 * (source == OWN_MAXIMA ? most : sum) + 1;
        }
}

static double wanted(const paces *p, int out, int a, int b, int c)
{
    double sum = 0;
    switch (out) {
    case OUT_ROW:
        return p->row[a][b];
    case OUT_ELEMENT:
        return p->x[a][b][c] * p->row[a][b];
    case OUT_PLAIN:
        return p->x[a][b][c] + 1;
    default:
        for (int i = 0; i < A; i++)
            for (int j = 0; j < B; j++)
                for (int k = 0; k < C; k++) {
                    bool in = out == OVER_ALL      ? true
                              : out == OVER_ROWS   ? k == c && (p->wide ? j == b : true)
                              : out == OVER_MIDDLE ? i == a && k == c
                                                   : i == a && (p->wide || j == b);
                    sum += in ? p->x[i][j][k] * p->row[i][j] : 0;
                }
        return sum;
    }
}

static mb_tensor recorded(const paces *p, int out, mb_tensor x, mb_tensor row)
{
    mb_tensor y = mb_mul(x, row);
    mb_axes columns = p->wide ? MB_KEEP(1, 2) : MB_KEEP(2), rows = p->wide ? MB_KEEP(0) : MB_KEEP(0, 1);
    switch (out) {
    case OUT_ROW:
        return row;
    case OUT_ELEMENT:
        return y;
    case OUT_PLAIN:
        return mb_add(x, 1.0);
    case OVER_ROWS:
        return mb_sum(y, rows);
    case OVER_MIDDLE:
        return mb_sum(y, MB_KEEP(1));
    case OVER_ALL:
        return mb_sum(y, MB_KEEP(0, 1, 2));
    default:
        return mb_sum(y, columns);
    }
}

/* Every set of results from one value of the rows: [A,B,1], or [A,1,1] where `wide`. */
static void run_paces(mb_context *ctx, mb_dtype dtype, int source, bool wide, int outs)
{
    static paces p;
    p.wide = wide;
    fill(&p, source);
    mb_scope scope = mb_scope_begin(ctx);
    mb_tensor x = from_doubles(ctx, dtype, MB_SHAPE(A, B, C), &p.x[0][0][0]);
    /* The other rows are of a space of their own: their axis is not one of x's. */
    mb_tensor u = from_doubles(ctx, dtype, MB_SHAPE(A, B, C), &p.u[0][0][0]);
    if (source == OTHER_ROWS)
        u = wide ? mb_reshape(u, MB_SHAPE(A, 1, B * C)) : mb_reshape(u, MB_SHAPE(A, B, C, 1));
    mb_axes axes = source == OTHER_ROWS ? (wide ? MB_KEEP(2) : MB_AXES(2))
                   : wide               ? MB_KEEP(1, 2)
                                        : MB_KEEP(2);
    mb_tensor from = source == OTHER_ROWS ? u : x;
    mb_tensor row = source == OWN_MAXIMA ? mb_max(from, axes) : mb_sum(from, axes);
    row = mb_add(mb_mul(row, 2.0), 1.0);
    mb_tensor out[OUTS];
    int n = 0;
    for (int o = 0; o < OUTS; o++)
        if (outs >> o & 1)
            out[n++] = recorded(&p, 1 << o, x, row);
    mb_eval(out, n);
    for (int o = 0, k = 0; o < OUTS; o++) {
        if (!(outs >> o & 1))
            continue;
        double *got = values(out[k]);
        mb_shape s = mb_shape_of(out[k++]);
        for (int i = 0; i < shape_count(s); i++) {
            int c = (int)(i % s.dim[2]), b = (int)(i / s.dim[2] % s.dim[1]),
                a = (int)(i / s.dim[2] / s.dim[1]);
            double want = wanted(&p, 1 << o, a, b, c);
            expect(got[i] == want, "source %d, %s, results %d: of result %d, [%d,%d,%d] is %g, not %g",
                   source, wide ? "wide" : "narrow", outs, 1 << o, a, b, c, got[i], want);
        }
    }
    mb_scope_end(scope);
    expect_ok(ctx);
}

/* A row's value is stored, then summed over elements as if each had its own; and so is what follows from it,
 * which must not take its register. */
Test(fusion, row_value_stored_and_repeated, .timeout = 60)
{
    for (int b = 0; b < 2; b++)
        for (int order = 0; order < 6; order++) {
            mb_context *ctx = open_on(backend_names[b]);
            double ud[6] = {1, 2, 3, 4, 5, 6};
            mb_tensor u = mb_from(ctx, MB_FLOAT64, MB_SHAPE(2, 3), ud);
            mb_tensor s = mb_add(mb_mul(mb_sum(u, MB_KEEP(1)), 2.0), 1.0); /* 13 31 */
            mb_tensor t = mb_mul(mb_square(s), 0.5);
            mb_tensor out[3] = {s, mb_sum(mb_broadcast(s, MB_SHAPE(2, 3)), MB_ALL),
                                mb_sum(mb_broadcast(t, MB_SHAPE(2, 3)), MB_ALL)};
            static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                             {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
            mb_tensor asked[3];
            for (int i = 0; i < 3; i++)
                asked[i] = mb_alias(out[orders[order][i]]);
            mb_eval(asked, 3);
            for (int i = 0; i < 3; i++) {
                double *got = values(asked[i]);
                int which = orders[order][i];
                bool good = which == 0   ? got[0] == 13 && got[1] == 31
                            : which == 1 ? got[0] == 3 * (13 + 31)
                                         : got[0] == 1.5 * (13 * 13 + 31 * 31);
                expect(good, "%s, order %d: result %d is %g", backend_names[b], order, which, got[0]);
            }
            expect_ok(ctx);
            close_all();
        }
}

/* Several values of a row, of a sum that another kernel makes, all of them stored beside the elements that
 * read them. */
Test(fusion, several_values_of_a_row, .timeout = 60)
{
    enum { ROWS = 2, OTHERS = 3, COLUMNS = 5, MOST = 4 };
    static const double ud[ROWS * OTHERS] = {1, 2, 3, 4, 5, 6}, sums[ROWS] = {6, 15};
    double xd[ROWS * COLUMNS];
    for (int i = 0; i < ROWS * COLUMNS; i++)
        xd[i] = i * 7 % 10;
    for (int b = 0; b < 2; b++)
        for (int count = 1; count <= MOST; count++) {
            mb_context *ctx = open_on(backend_names[b]);
            mb_tensor u = mb_from(ctx, MB_FLOAT64, MB_SHAPE(ROWS, OTHERS), ud), out[MOST + 1];
            mb_tensor r = mb_sum(u, MB_KEEP(1));
            out[count] = mb_from(ctx, MB_FLOAT64, MB_SHAPE(ROWS, COLUMNS), xd);
            for (int k = 0; k < count; k++) {
                out[k] = mb_add(mb_mul(r, 2.0 + k), 1.0 * k);
                out[count] = mb_add(mb_mul(out[count], 2.0), out[k]);
            }
            mb_eval(out, count + 1);
            for (int i = 0; i < ROWS * COLUMNS; i++) {
                double want = xd[i], s = sums[i / COLUMNS];
                for (int k = 0; k < count; k++)
                    want = 2 * want + (2 + k) * s + k;
                expect(values(out[count])[i] == want, "%s, %d values: element %d is %g, not %g",
                       backend_names[b], count, i, values(out[count])[i], want);
            }
            for (int i = 0; i < ROWS * count; i++) {
                int row = i / count, k = i % count;
                expect(values(out[k])[row] == (2 + k) * sums[row] + k,
                       "%s, %d values: number %d of row %d is %g", backend_names[b], count, k, row,
                       values(out[k])[row]);
            }
            if (!strcmp(backend_names[b], "cpu"))
                expect(mb_get_stats(ctx).last_steps == 2, "%d values: %llu kernels", count,
                       (unsigned long long)mb_get_stats(ctx).last_steps);
            expect_ok(ctx);
            close_all();
        }
}

Test(fusion, values_of_every_pace, .timeout = 280)
{
    setenv("MB_VULKAN_VALIDATE", "1", 1);
    for (int b = 0; b < 2; b++) {
        mb_context *ctx = open_on(backend_names[b]);
        for (int source = 0; source < SOURCES; source++)
            for (int wide = 0; wide < 2; wide++)
                for (int outs = 1; outs < 1 << OUTS; outs++)
                    /* On the vulkan backend pipelines take their time: one in three of the larger sets. */
                    if (!testing("vulkan") || __builtin_popcount((unsigned)outs) <= 2 || outs % 3 == source)
                        run_paces(ctx, source == 1 ? MB_FLOAT32 : MB_FLOAT64, source, wide, outs);
        close_all();
    }
}
