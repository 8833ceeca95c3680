/* SPDX-License-Identifier: MIT
 *
 * axis.c - times ops along an axis and by index: sorting, running sums, maxima and their places, taking,
 * adding by index; and permutations. axis_compare runs them against PyTorch's.
 *
 *     axis [--threads 1] [--repeat 30] [--backend NAME] [--only TEXT]
 *
 * A line of JSON for each case: the fastest of `repeat` runs in milliseconds, that of a memcpy of as many
 * bytes as its operand has, or its result where that has more, run in turn with it, and their ratio, which is
 * what to compare. Of one thread it is processor time, which others on the machine disturb less; of more the
 * clock's. --only: the cases whose name has TEXT in it.
 *
 * A name says op, shape, axis: "take 1000x64 by 100000" is of rows, "take 1000000 by 1000000" of scalars. */
#include <moebius.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct operands {
    mb_tensor x, index;
    int axis;
    int64_t size; /* of the axis that is added into */
} operands;

typedef struct row {
    const char *name;
    mb_tensor (*op)(const operands *);
    mb_dtype dtype;
    int64_t dim[5];        /* of x; 0: no such axis */
    int axis;              /* of a permutation, its axes as decimal digits */
    int64_t entries, size; /* of the index, and the range that it chooses from */
} row;

static clockid_t measure;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(measure, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* ---- the ops ---- */

static mb_tensor argsort(const operands *o)
{
    return mb_argsort(o->x);
}
static mb_tensor sort(const operands *o)
{
    return mb_sort(o->x);
}
static mb_tensor topk(const operands *o)
{
    return mb_topk(o->x, 10, o->axis, true, NULL);
}
static mb_tensor take(const operands *o)
{
    return mb_take(o->x, o->index, o->axis);
}
static mb_tensor scatter_add(const operands *o)
{
    return mb_scatter_add(o->x, o->index, o->axis, o->size);
}
static mb_tensor argmax(const operands *o)
{
    return mb_argmax(o->x, o->axis);
}
static mb_tensor argmin(const operands *o)
{
    return mb_argmin(o->x, o->axis);
}
static mb_tensor cumsum(const operands *o)
{
    return mb_cumsum(o->x, o->axis, false);
}
static mb_tensor cumprod(const operands *o)
{
    return mb_cumprod(o->x, o->axis, false);
}
static mb_tensor cummax(const operands *o)
{
    return mb_cummax(o->x, o->axis, false);
}

static mb_tensor take_along(const operands *o)
{
    return mb_take_along(o->x, o->index);
}
static mb_tensor sum(const operands *o)
{
    return mb_sum(o->x, MB_AXES(o->axis));
}
static mb_tensor softmax(const operands *o)
{
    return mb_softmax(o->x, o->axis);
}
static mb_tensor permute(const operands *o)
{
    mb_axes order = {mb_shape_of(o->x).rank, false, {0}};
    int digits = o->axis;
    for (int i = order.count; i-- > 0; digits /= 10)
        order.axis[i] = digits % 10;
    return mb_permute(o->x, order);
}

#define F MB_FLOAT32
static const row rows[] = {
    {"argsort 1000000", argsort, F, {1000000}, 0, 0, 0},
    {"argsort 1000000 float64", argsort, MB_FLOAT64, {1000000}, 0, 0, 0},
    {"argsort 1000000 int32", argsort, MB_INT32, {1000000}, 0, 0, 0},
    {"argsort 1000000 bfloat16", argsort, MB_BFLOAT16, {1000000}, 0, 0, 0},
    {"argsort 1000x1000", argsort, F, {1000, 1000}, 0, 0, 0},
    {"argsort 10000x100", argsort, F, {10000, 100}, 0, 0, 0},
    {"argsort 100000x10", argsort, F, {100000, 10}, 0, 0, 0},
    {"sort 1000000", sort, F, {1000000}, 0, 0, 0},
    {"topk 1000x1000 axis 1", topk, F, {1000, 1000}, 1, 0, 0},
    {"topk 1000x1000 axis 0", topk, F, {1000, 1000}, 0, 0, 0},
    {"scatter_add 100000x64 into 1000", scatter_add, F, {100000, 64}, 0, 100000, 1000},
    {"scatter_add 100000x8 into 1000", scatter_add, F, {100000, 8}, 0, 100000, 1000},
    {"scatter_add 1000000 into 1000", scatter_add, F, {1000000}, 0, 1000000, 1000},
    {"scatter_add 1000000 into 1000000", scatter_add, F, {1000000}, 0, 1000000, 1000000},
    {"scatter_add 1000x1000 axis 1 into 100", scatter_add, F, {1000, 1000}, 1, 1000, 100},
    {"take 1000x64 by 100000", take, F, {1000, 64}, 0, 100000, 1000},
    {"take 1000000 by 1000000", take, F, {1000000}, 0, 1000000, 1000000},
    {"take 1000x1000 axis 1 by 1000", take, F, {1000, 1000}, 1, 1000, 1000},
    {"argmax 1000x1000 axis 0", argmax, F, {1000, 1000}, 0, 0, 0},
    {"argmax 1000x1000 axis 1", argmax, F, {1000, 1000}, 1, 0, 0},
    {"argmax 100x100x100 axis 1", argmax, F, {100, 100, 100}, 1, 0, 0},
    {"argmin 1000x1000 axis 0", argmin, F, {1000, 1000}, 0, 0, 0},
    {"cumsum 1000x1000 axis 0", cumsum, F, {1000, 1000}, 0, 0, 0},
    {"cumsum 1000x1000 axis 1", cumsum, F, {1000, 1000}, 1, 0, 0},
    {"cumsum 250000x4 axis 0", cumsum, F, {250000, 4}, 0, 0, 0},
    {"cumprod 1000x1000 axis 0", cumprod, F, {1000, 1000}, 0, 0, 0},
    {"cummax 1000x1000 axis 0", cummax, F, {1000, 1000}, 0, 0, 0},
    {"cummax 1000x1000 axis 1", cummax, F, {1000, 1000}, 1, 0, 0},
    {"cumprod 1000x1000 axis 1", cumprod, F, {1000, 1000}, 1, 0, 0},
    {"take_along 1000x1000 by 1000", take_along, F, {1000, 1000}, 1, 1000, 1000},
    {"sum 1000x1000 axis 0", sum, F, {1000, 1000}, 0, 0, 0},
    {"sum 1000x1000 axis 1", sum, F, {1000, 1000}, 1, 0, 0},
    {"softmax 1000x1000 axis 0", softmax, F, {1000, 1000}, 0, 0, 0},
    {"softmax 1000x1000 axis 1", softmax, F, {1000, 1000}, 1, 0, 0},
    {"permute 1000x1000 order 10", permute, F, {1000, 1000}, 10, 0, 0},
    {"permute 1000x6x6 order 021", permute, F, {1000, 6, 6}, 21, 0, 0},
    {"permute 64x128x96 order 021", permute, F, {64, 128, 96}, 21, 0, 0},
    {"permute 64x128x96 order 210", permute, F, {64, 128, 96}, 210, 0, 0},
    {"permute 64x128x96 order 102", permute, F, {64, 128, 96}, 102, 0, 0},
    {"permute 8x128x8x64 order 0213", permute, F, {8, 128, 8, 64}, 213, 0, 0},
    {"permute 16x32x32x32 order 0231", permute, F, {16, 32, 32, 32}, 231, 0, 0},
    {"permute 8x12x10x14x16 order 41302", permute, F, {8, 12, 10, 14, 16}, 41302, 0, 0},
    {"sort 5000000", sort, F, {5000000}, 0, 0, 0},
    {"topk 1000000 axis 0", topk, F, {1000000}, 0, 0, 0},
    {"cumsum 5000000 axis 0", cumsum, F, {5000000}, 0, 0, 0},
    {"argmax 5000000 axis 0", argmax, F, {5000000}, 0, 0, 0},
    {"sum 5000000 axis 0", sum, F, {5000000}, 0, 0, 0},
};

/* ---- timing ---- */

/* From -1 to 1, and in steps of a millionth of that where the dtype has none smaller than 1. */
static operands make(mb_context *mb, const row *r)
{
    mb_shape shape = {0};
    while (shape.rank < 5 && r->dim[shape.rank])
        shape.dim[shape.rank] = r->dim[shape.rank], shape.rank++;
    mb_tensor drawn = mb_sub(mb_mul(mb_uniform(mb, mb_key_of(1), MB_FLOAT32, shape), 2.0), 1.0);
    operands o = {
        mb_cast(r->dtype == MB_INT32 ? mb_mul(drawn, 1e6) : drawn, r->dtype), {0}, r->axis, r->size};
    if (r->dtype == MB_FLOAT64) /* with digits that a float32 has not */
        o.x = mb_sin(mb_mul(o.x, 1e3));
    mb_eval(&o.x, 1);
    if (r->entries) {
        mb_shape places = MB_SHAPE(r->entries);
        if (r->op == take_along)
            places = shape, places.dim[shape.rank - 1] = r->entries;
        mb_tensor part = mb_uniform(mb, mb_key_of(2), MB_FLOAT32, places);
        o.index = mb_cast(mb_floor(mb_mul(part, (double)r->size)), MB_INT32);
        mb_eval(&o.index, 1);
    }
    return o;
}

/* Milliseconds; *count: the elements of the result. */
static double once(const row *r, const operands *o, int64_t *count)
{
    double begun = now_ms();
    mb_scope s = mb_scope_begin(o->x.ctx);
    mb_tensor y = r->op(o);
    mb_eval(&y, 1);
    double ms = now_ms() - begun;
    *count = mb_count(y);
    mb_scope_end(s);
    return ms;
}

static double copied(char *to, const char *from, size_t bytes)
{
    double begun = now_ms();
    memcpy(to, from, bytes);
    volatile char *kept = to; /* so that the copy is made */
    kept[0] = kept[bytes - 1];
    return now_ms() - begun;
}

static double lower(double a, double b)
{
    return a < b ? a : b;
}

static bool run(mb_context *mb, const row *r, int repeat, int threads)
{
    mb_scope s = mb_scope_begin(mb);
    operands o = make(mb, r);
    int64_t count = mb_count(o.x), results;
    double op = once(r, &o, &results); /* makes the plan */
    size_t bytes = (size_t)(count > results ? count : results) * mb_dtype_size(r->dtype);
    char *from = calloc(bytes, 1), *to = malloc(bytes);
    bool ok = from && to;
    if (ok) {
        double copy = copied(to, from, bytes); /* has the system bring the pages */
        for (int i = 0; i < repeat; i++) {
            op = lower(op, once(r, &o, &results));
            copy = lower(copy, copied(to, from, bytes));
        }
        printf(
            "{\"case\": \"%s\", \"backend\": \"%s\", \"threads\": %d, \"min_ms\": %.4f, \"copy_ms\": %.4f, "
            "\"ratio\": %.2f}\n",
            r->name, mb_backend_name(mb), threads, op, copy, op / copy);
        fflush(stdout);
    }
    free(from);
    free(to);
    mb_scope_end(s);
    return ok && mb_error(mb) == MB_OK;
}

int main(int argc, char **argv)
{
    int threads = 1, repeat = 30;
    const char *backend = NULL, *only = "";
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--threads") == 0)
            threads = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--repeat") == 0)
            repeat = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--backend") == 0)
            backend = argv[i + 1];
        else if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else
            argc = 0;
    }
    if (argc % 2 == 0 || threads < 1 || repeat < 1) {
        fprintf(stderr, "axis [--threads 1] [--repeat 30] [--backend NAME] [--only TEXT]\n");
        return 2;
    }
    measure = threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    mb_context *mb = mb_open_with(&(mb_options){.backend = backend, .threads = threads});
    bool ok = mb_error(mb) == MB_OK;
    for (size_t i = 0; ok && i < sizeof rows / sizeof *rows; i++)
        if (strstr(rows[i].name, only))
            ok = run(mb, &rows[i], repeat, threads);
    if (!ok)
        fprintf(stderr, "axis: %s\n", mb_message(mb));
    return mb_close(mb) != MB_OK || !ok;
}
