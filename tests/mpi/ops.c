/* SPDX-License-Identifier: MIT
 *
 * ops.c - values, derivatives of both modes and to the second order, vmaps and scans of the collective ops,
 * beside closed forms that each rank computes by itself: everyone's operands are a function of the rank. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"

enum { MOST = 30011 };

/* Element i of rank r's operand; all different, for maxima without ties. */
static double element(int r, int64_t i)
{
    return sin(0.7 * (double)i + 1.9 * r + 0.3) + 0.01 * r;
}

/* What rank r's loss counts. */
static double weight(int r)
{
    return 1 + 0.5 * r;
}

static double converted(mb_dtype dtype, double x)
{
    return dtype == MB_FLOAT32 ? (double)(float)x : dtype == MB_INT32 ? floor(100 * x) : x;
}

static mb_tensor operand(mb_dtype dtype, mb_shape shape)
{
    int64_t n = 1;
    for (int i = 0; i < shape.rank; i++)
        n *= shape.dim[i];
    float *f = malloc((size_t)(n + 1) * sizeof *f);
    double *d = malloc((size_t)(n + 1) * sizeof *d);
    int32_t *k = malloc((size_t)(n + 1) * sizeof *k);
    for (int64_t i = 0; i < n; i++) {
        d[i] = element(rank, i);
        f[i] = (float)d[i];
        k[i] = (int32_t)floor(100 * d[i]);
    }
    mb_tensor t = mb_from(mb, dtype, shape,
                          dtype == MB_FLOAT32   ? (const void *)f
                          : dtype == MB_FLOAT64 ? (const void *)d
                                                : k);
    free(f);
    free(d);
    free(k);
    return t;
}

static const double *read_all(mb_tensor t)
{
    static double values[8][8 * MOST];
    static int turn;
    double *to = values[turn++ % 8];
    int64_t n = mb_count(t);
    mb_dtype dtype = mb_dtype_of(t);
    void *raw = malloc((size_t)(n + 1) * 8);
    mb_read(t, raw, (size_t)n * mb_dtype_size(dtype));
    for (int64_t i = 0; i < n; i++)
        to[i] = dtype == MB_FLOAT32   ? (double)((float *)raw)[i]
                : dtype == MB_FLOAT64 ? ((double *)raw)[i]
                                      : (double)((int32_t *)raw)[i];
    free(raw);
    expect(mb_error(mb) == MB_OK, "%s", mb_message(mb));
    return to;
}

static double tolerance; /* relative, of a sum of `size` terms that is rounded once */

static void expect_close(const char *what, mb_dtype dtype, int64_t i, double got, double wanted)
{
    double most = dtype == MB_INT32
                      ? 0
                      : (dtype == MB_FLOAT32 ? 6e-8 : 2e-16) * (tolerance + size) * (fabs(wanted) + 1);
    expect(fabs(got - wanted) <= most, "%s: element %lld: got %.17g, wanted %.17g", what, (long long)i, got,
           wanted);
}

/* Every rank has rank 0's bits, told by those that come by another way: as integers. */
static void expect_same_bits(const char *what, mb_tensor t)
{
    int64_t n = mb_count(t) * (int64_t)mb_dtype_size(mb_dtype_of(t)) / 4;
    int32_t *bits = malloc((size_t)(n + 1) * 4), *again = malloc((size_t)(n + 1) * 4);
    mb_read(t, bits, (size_t)n * 4);
    mb_tensor most = mb_all_reduce(mpi, mb_from(mb, MB_INT32, MB_SHAPE(n), bits), MB_REDUCE_MAX);
    mb_read(most, again, (size_t)n * 4);
    expect(memcmp(bits, again, (size_t)n * 4) == 0, "%s: ranks have different bits", what);
    free(bits);
    free(again);
}

/* Halves go as float32 and are rounded once, and so are their derivatives. */
static void halves_of(mb_dtype dtype)
{
    enum { N = 40 };
    mb_scope scope = mb_scope_begin(mb);
    double unit = dtype == MB_FLOAT16 ? 0x1p-11 : 0x1p-8, wanted[N] = {0}, weights = 0;
    mb_tensor x = mb_cast(operand(MB_FLOAT32, MB_SHAPE(N)), dtype), g;
    mb_tensor each = mb_cast(mb_all_gather(mpi, x), MB_FLOAT32), y = mb_all_reduce(mpi, x, MB_REDUCE_SUM);
    mb_grad(mb_sum(mb_mul(y, weight(rank)), MB_ALL), &x, 1, &g);
    expect(mb_dtype_of(y) == dtype && mb_dtype_of(g) == dtype, "halves become something else");
    const double *all = read_all(each), *got = read_all(mb_cast(y, MB_FLOAT32)),
                 *slope = read_all(mb_cast(g, MB_FLOAT32));
    for (int r = 0; r < size; r++) {
        weights += weight(r);
        for (int i = 0; i < N; i++)
            wanted[i] += all[r * N + i];
    }
    for (int i = 0; i < N; i++)
        expect(fabs(got[i] - wanted[i]) <= unit * fabs(wanted[i]) + 1e-7 &&
                   fabs(slope[i] - weights) <= 2 * unit * weights,
               "halves: element %d: got %g, wanted %g; slope %g, wanted %g", i, got[i], wanted[i], slope[i],
               weights);
    mb_scope_end(scope);
}

static double reduced(mb_dtype dtype, mb_reduction how, int64_t i)
{
    double sum = 0, most = -INFINITY;
    for (int r = 0; r < size; r++) {
        double x = converted(dtype, element(r, i));
        sum += x;
        most = x > most ? x : most;
    }
    return how == MB_REDUCE_SUM ? sum : how == MB_REDUCE_MEAN ? sum / size : most;
}

static void values_of(mb_dtype dtype, mb_shape shape)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor x = operand(dtype, shape);
    int64_t n = mb_count(x);
    for (int how = MB_REDUCE_SUM; how <= MB_REDUCE_MAX; how++) {
        if (dtype == MB_INT32 && how == MB_REDUCE_MEAN)
            continue;
        mb_tensor y = mb_all_reduce(mpi, x, (mb_reduction)how);
        const double *got = read_all(y);
        for (int64_t i = 0; i < n; i++)
            expect_close("all_reduce", dtype, i, got[i], reduced(dtype, (mb_reduction)how, i));
        expect_same_bits("all_reduce", y);
        const double *again =
            read_all(mb_all_reduce(mpi, mb_mul(x, dtype == MB_INT32 ? 1 : 1.0), (mb_reduction)how));
        expect(memcmp(got, again, (size_t)n * sizeof *got) == 0, "the second time has other bits");
    }
    mb_tensor all = mb_all_gather(mpi, x);
    expect(mb_shape_of(all).rank == mb_shape_of(x).rank + 1 && mb_dim(all, 0) == size, "shape of all_gather");
    const double *got = read_all(all);
    for (int r = 0; r < size; r++)
        for (int64_t i = 0; i < n; i++)
            expect(got[r * n + i] == converted(dtype, element(r, i)), "all_gather: rank %d, element %lld", r,
                   (long long)i);
    mb_tensor part = mb_reduce_scatter(mpi, mb_mul(all, rank + 1));
    got = read_all(part);
    for (int64_t i = 0; i < n; i++)
        expect_close("reduce_scatter", dtype, i, got[i],
                     converted(dtype, element(rank, i)) * size * (size + 1) / 2);
    for (int root = 0; root < size; root++) {
        got = read_all(mb_broadcast_from(mpi, x, root));
        for (int64_t i = 0; i < n; i++)
            expect(got[i] == converted(dtype, element(root, i)), "broadcast_from %d", root);
    }
    mb_scope_end(scope);
}

void case_values(void)
{
    const mb_shape shapes[] = {MB_SHAPE0,         MB_SHAPE(1),    MB_SHAPE(0),
                               MB_SHAPE(2, 3, 5), MB_SHAPE(4096), MB_SHAPE(MOST)};
    const mb_dtype dtypes[] = {MB_FLOAT32, MB_FLOAT64, MB_INT32};
    tolerance = 4;
    for (int d = 0; d < 3; d++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            values_of(dtypes[d], shapes[s]);
    halves_of(MB_FLOAT16);
    halves_of(MB_BFLOAT16);
    mb_tensor x = mb_gt(operand(MB_FLOAT32, MB_SHAPE(7)), 0.0);
    const double *got = read_all(mb_cast(mb_all_gather(mpi, x), MB_INT32));
    for (int r = 0; r < size; r++)
        for (int i = 0; i < 7; i++)
            expect(got[r * 7 + i] == (element(r, i) > 0), "bool: rank %d, element %d", r, i);
    /* A view with strides, and NaN, which a maximum keeps. */
    mb_tensor m = operand(MB_FLOAT64, MB_SHAPE(3, 4));
    got = read_all(mb_all_reduce(mpi, mb_transpose(m), MB_REDUCE_SUM));
    for (int i = 0; i < 12; i++)
        expect_close("transposed", MB_FLOAT64, i, got[i],
                     reduced(MB_FLOAT64, MB_REDUCE_SUM, i % 3 * 4 + i / 3));
    double odd = rank == size - 1 ? (double)NAN : 1;
    expect(isnan(mb_item(mb_all_reduce(mpi, mb_from(mb, MB_FLOAT64, MB_SHAPE0, &odd), MB_REDUCE_MAX))),
           "NaN is kept");
}

/* ---- derivatives ---- */

/* The ops as functions of x [n], or x [size, n] for SCATTER. */
enum { SUM, MEAN, MAX, GATHER, SCATTER, BROADCAST, MEANS, OPS };
static const char *const op_names[] = {
    "sum", "mean", "max", "all_gather", "reduce_scatter", "broadcast_from", "mean_gradients"};

static mb_tensor apply(int op, mb_tensor x)
{
    switch (op) {
    case GATHER:
        return mb_all_gather(mpi, x);
    case SCATTER:
        return mb_reduce_scatter(mpi, x);
    case BROADCAST:
        return mb_broadcast_from(mpi, x, size - 1);
    case MEANS:
        mb_mean_gradients(mpi, &x, 1, 0);
        return x;
    default:
        return mb_all_reduce(mpi, x, (mb_reduction)op);
    }
}

/* With A = sum of the weights, losses weight_r sum(y_r^3) / 3, and then weight_r sum(gradient_r): first and
 * second derivative by this rank's element i. */
static void closed_form(int op, int64_t i, int64_t n, double *first, double *second)
{
    double A = 0, x = element(rank, i), root = element(size - 1, i);
    for (int r = 0; r < size; r++)
        A += weight(r);
    double sum = reduced(MB_FLOAT64, MB_REDUCE_SUM, i), mean = sum / size,
           most = reduced(MB_FLOAT64, MB_REDUCE_MAX, i), has = x == most, is_root = rank == size - 1;
    int winner = 0, to = (int)(i / n);
    for (int r = 0; r < size; r++)
        winner = element(r, i) == most ? r : winner;
    const double forms[OPS][2] = {
        [SUM] = {A * sum * sum, 2 * A * A * sum},
        [MEAN] = {A * mean * mean / size, 2 * A * A * mean / size / size},
        [MAX] = {has * A * most * most, has * 2 * weight(winner) * A * most},
        [GATHER] = {A * x * x, 2 * A * weight(rank) * x},
        [SCATTER] = {weight(to) * sum * sum, 2 * A * weight(to) * sum},
        [BROADCAST] = {is_root * A * root * root, is_root * 2 * A * weight(size - 1) * root},
        [MEANS] = {A * mean * mean / size, 2 * A * A * mean / size / size},
    };
    *first = forms[op][0];
    *second = forms[op][1];
}

static void derivatives_of(int op, int64_t n)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor x = operand(MB_FLOAT64, op == SCATTER ? MB_SHAPE(size, n) : MB_SHAPE(n)), g, h;
    mb_tensor y = apply(op, x);
    mb_tensor loss = mb_mul(mb_sum(mb_mul(mb_mul(y, y), y), MB_ALL), weight(rank) / 3);
    mb_grad(loss, &x, 1, &g);
    mb_grad(mb_mul(mb_sum(g, MB_ALL), weight(rank)), &x, 1, &h);
    mb_eval((mb_tensor[]){g, h}, 2);
    const double *first = read_all(g), *second = read_all(h);
    tolerance = 60;
    for (int64_t i = 0; i < mb_count(x); i++) {
        double one, two;
        closed_form(op, i, n, &one, &two);
        expect_close(op_names[op], MB_FLOAT64, i, first[i], one);
        expect_close(op_names[op], MB_FLOAT64, i, second[i], two);
    }
    mb_scope_end(scope);
}

void case_derivatives(void)
{
    for (int op = 0; op < OPS; op++) {
        derivatives_of(op, 5);
        derivatives_of(op, 9000); /* by the other algorithm */
    }
}

/* <v, J t> = <J' v, t>, both summed over ranks. */
void case_forward(void)
{
    for (int op = 0; op < OPS; op++) {
        mb_scope scope = mb_scope_begin(mb);
        mb_tensor x = operand(MB_FLOAT64, op == SCATTER ? MB_SHAPE(size, 6) : MB_SHAPE(6));
        mb_tensor t = mb_cos(mb_mul(x, 3.0 + rank)), y = apply(op, x), u, g;
        mb_tensor v = mb_sin(mb_add(mb_mul(y, 2.0), 0.1 * rank));
        v = mb_stop_gradient(v);
        mb_jvp(&y, 1, &x, &t, 1, &u);
        mb_grad(mb_sum(mb_mul(v, y), MB_ALL), &x, 1, &g);
        mb_tensor both =
            mb_all_reduce(mpi, mb_stack((mb_tensor[]){mb_dot(v, u), mb_dot(g, t)}, 2, 0), MB_REDUCE_SUM);
        const double *got = read_all(both);
        expect(fabs(got[0] - got[1]) < 1e-12 * (1 + fabs(got[0])), "%s: forward %.17g, reverse %.17g",
               op_names[op], got[0], got[1]);
        mb_scope_end(scope);
    }
}

/* One example after the other gives what all give at once; on the cpu's threads as well. */
void case_vmap(void)
{
    mb_tensor x = operand(MB_FLOAT64, MB_SHAPE(7, 900)), y, dy;
    mb_vmap v = mb_vmap_begin(mb, 7);
    mb_tensor one = mb_vmap_in(v, x, 0), sum = mb_all_reduce(mpi, mb_mul(one, one), MB_REDUCE_SUM), g;
    mb_grad(mb_sum(sum, MB_ALL), &one, 1, &g);
    mb_vmap_out(v, sum, 0, &y);
    mb_vmap_out(v, g, 0, &dy);
    mb_vmap_end(v);
    mb_tensor all = mb_all_reduce(mpi, mb_mul(x, x), MB_REDUCE_SUM);
    mb_eval((mb_tensor[]){y, dy, all}, 3);
    const double *got = read_all(y), *wanted = read_all(all), *slope = read_all(dy), *at = read_all(x);
    for (int i = 0; i < 6300; i++) {
        expect(got[i] == wanted[i], "vmap: element %d: %.17g, %.17g", i, got[i], wanted[i]);
        expect(fabs(slope[i] - 2 * size * at[i]) < 1e-13, "its derivative: element %d", i);
    }
}

/* x <- mean over ranks of x^2 / 2, three times, in a loop, and through it; beside the same written out. */
void case_scan(void)
{
    mb_tensor x = operand(MB_FLOAT64, MB_SHAPE(50)), end[2], g[2];
    mb_tensor w = x;
    mb_scan s = mb_scan_begin(mb, 3);
    mb_scan_carry(s, &w);
    w = mb_all_reduce(mpi, mb_mul(mb_square(w), 0.5), MB_REDUCE_MEAN);
    mb_scan_end(s);
    end[0] = w;
    end[1] = x;
    for (int t = 0; t < 3; t++)
        end[1] = mb_all_reduce(mpi, mb_mul(mb_square(end[1]), 0.5), MB_REDUCE_MEAN);
    for (int k = 0; k < 2; k++)
        mb_grad(mb_mul(mb_sum(end[k], MB_ALL), weight(rank)), &x, 1, &g[k]);
    const double *a = read_all(end[0]), *b = read_all(end[1]), *da = read_all(g[0]), *db = read_all(g[1]);
    for (int i = 0; i < 50; i++) {
        expect(a[i] == b[i], "scan: element %d: %.17g, %.17g", i, a[i], b[i]);
        expect(fabs(da[i] - db[i]) <= 1e-14 * fabs(db[i]), "its derivative: element %d", i);
    }
}
