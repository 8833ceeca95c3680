/* SPDX-License-Identifier: MIT
 * axis_and_index.c - gather, scatter, and ops along an axis. */
#include "backends/cpu/frame.h"

static int64_t at(const mb__view *v, const int64_t *index, int rank)
{
    int64_t o = v->offset;
    for (int i = 0; i < rank; i++)
        o += v->stride[i] * index[i];
    return o;
}

static void decode(int64_t item, const int64_t *dim, int rank, int64_t *index)
{
    for (int i = rank; i-- > 0; item /= dim[i])
        index[i] = item % dim[i];
}

typedef struct job {
    const mb__other *o;
    mb__frame *f;
    int64_t items;
    int tasks;
} job;

static int size_of(int dtype)
{
    return (int)mb_dtype_size((mb_dtype)dtype);
}

/* ---- by index: runs of the axes after the index are moved at once ---- */

static int64_t chosen(const mb__other *o, const mb__frame *f, const int64_t *index, int64_t size)
{
    int32_t i =
        ((const int32_t *)(void *)f->memory[o->index.value])[at(&o->index, index + o->axis, o->index_rank)];
    return i < 0 ? 0 : i >= size ? size - 1 : i;
}

static int64_t narrow_offset(const mb__other *o, const mb__view *narrow, const int64_t *index, int rank,
                             int64_t entry)
{
    int64_t n = narrow->offset + entry * narrow->stride[o->axis];
    for (int i = 0; i < o->axis; i++)
        n += index[i] * narrow->stride[i];
    for (int i = o->axis + o->index_rank; i < rank; i++)
        n += index[i] * narrow->stride[i - o->index_rank + 1];
    return n;
}

static void take_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    const mb__other *o = j->o;
    int size = size_of(o->dtype), rank = o->out_rank, last = rank - 1;
    bool run = rank > o->axis + o->index_rank; /* the last axis is not one of the index's */
    int64_t length = run ? o->out_dim[last] : 1, dim[MB_MAX_RANK], index[MB_MAX_RANK] = {0};
    memcpy(dim, o->out_dim, sizeof dim);
    if (run)
        dim[last] = 1;
    const char *in = j->f->memory[o->in.value];
    char *out = j->f->memory[o->out.value];
    int64_t from_step = run ? o->in.stride[last - o->index_rank + 1] : 0,
            to_step = run ? o->out.stride[last] : 0;
    for (int64_t i = j->items * task / j->tasks, end = j->items * (task + 1) / j->tasks; i < end; i++) {
        decode(i, dim, rank, index);
        const char *x =
            in + narrow_offset(o, &o->in, index, rank, chosen(o, j->f, index, o->in_dim[o->axis])) * size;
        char *y = out + at(&o->out, index, rank) * size;
        if (from_step == 1 && to_step == 1)
            memcpy(y, x, (size_t)(length * size));
        else
            for (int64_t c = 0; c < length; c++)
                memcpy(y + c * to_step * size, x + c * from_step * size, (size_t)size);
    }
}

/* One thread: several entries may be added to one element, in order. */
static void scatter_add(const mb__other *o, mb__frame *f)
{
    int rank = o->in_rank;
    int64_t index[MB_MAX_RANK] = {0}, items = mb__numel(o->in_dim, rank);
    void *in = f->memory[o->in.value], *out = f->memory[o->out.value];
    for (int64_t i = 0; i < items; i++) {
        decode(i, o->in_dim, rank, index);
        int64_t to = narrow_offset(o, &o->out, index, rank, chosen(o, f, index, o->out_dim[o->axis]));
        int64_t from = at(&o->in, index, rank);
        if (o->dtype == MB_FLOAT32)
            ((float *)out)[to] += ((float *)in)[from];
        else if (o->dtype == MB_FLOAT64)
            ((double *)out)[to] += ((double *)in)[from];
        else
            ((uint32_t *)out)[to] += ((uint32_t *)in)[from];
    }
}

/* ---- along an axis ---- */

#define NAN_LAST(a, b) ((a) < (b) || ((b) != (b) && (a) == (a)))

#define AXIS(T, W)                                                                                           \
    static void merge_##T(const T *x, int64_t xs, int32_t *a, int32_t *t, int64_t n)                         \
    {                                                                                                        \
        for (int64_t w = 1; w < n; w *= 2) { /* merges runs of w: stable, n log n */                         \
            for (int64_t s = 0; s < n; s += 2 * w) {                                                         \
                int64_t i = s, m = s + w < n ? s + w : n, j = m, e = s + 2 * w < n ? s + 2 * w : n, k = s;   \
                while (i < m && j < e)                                                                       \
                    t[k++] = NAN_LAST(x[a[j] * xs], x[a[i] * xs]) ? a[j++] : a[i++];                         \
                while (i < m)                                                                                \
                    t[k++] = a[i++];                                                                         \
                while (j < e)                                                                                \
                    t[k++] = a[j++];                                                                         \
            }                                                                                                \
            memcpy(a, t, (size_t)n * sizeof *a);                                                             \
        }                                                                                                    \
    }                                                                                                        \
    static void axis_##T(const mb__other *o, const T *x, int64_t xs, void *y_, int64_t ys, int64_t n,        \
                         int32_t *spare)                                                                     \
    {                                                                                                        \
        int32_t *y = y_;                                                                                     \
        if (o->op == MB_OP_ARGMAX) {                                                                         \
            int64_t best = 0;                                                                                \
            for (int64_t i = 1; i < n; i++)                                                                  \
                if (NAN_LAST(x[best * xs], x[i * xs]))                                                       \
                    best = i;                                                                                \
            *y = (int32_t)best;                                                                              \
        } else if (o->op == MB_OP_CUMSUM) {                                                                  \
            T *z = y_;                                                                                       \
            W sum = 0;                                                                                       \
            for (int64_t i = 0; i < n; i++) {                                                                \
                int64_t k = o->flag ? n - 1 - i : i;                                                         \
                sum += (W)x[k * xs];                                                                         \
                z[k * ys] = (T)sum;                                                                          \
            }                                                                                                \
        } else if (o->op == MB_OP_CUMMAX) {                                                                  \
            T *z = y_, top = n ? *x : 0;                                                                     \
            for (int64_t i = 0; i < n; i++)                                                                  \
                z[i * ys] = top = NAN_LAST(top, x[i * xs]) ? x[i * xs] : top;                                \
        } else {                                                                                             \
            for (int64_t i = 0; i < n; i++)                                                                  \
                spare[i] = (int32_t)i;                                                                       \
            merge_##T(x, xs, spare, spare + n, n);                                                           \
            for (int64_t i = 0; i < n; i++)                                                                  \
                y[i * ys] = spare[i];                                                                        \
        }                                                                                                    \
    }
/* T, and the type that running sums of it are computed in, so that a million float32 lose no accuracy. int32
 * wraps. */
AXIS(float, double)
AXIS(double, double)
AXIS(int32_t, uint32_t)

static void axis_task(void *argument, int task, int worker)
{
    const job *j = argument;
    const mb__other *o = j->o;
    int64_t index[MB_MAX_RANK] = {0}, dim[MB_MAX_RANK], n = o->in_dim[o->axis];
    memcpy(dim, o->in_dim, sizeof dim);
    dim[o->axis] = 1;
    int64_t xs = o->in.stride[o->axis], ys = o->out.stride[o->axis];
    void *in = j->f->memory[o->in.value];
    char *out = j->f->memory[o->out.value];
    int out_size = o->op == MB_OP_CUMSUM || o->op == MB_OP_CUMMAX ? size_of(o->dtype) : 4;
    int32_t *spare = (int32_t *)(void *)j->f->cpu->scratch[worker];
    for (int64_t i = j->items * task / j->tasks, end = j->items * (task + 1) / j->tasks; i < end; i++) {
        decode(i, dim, o->in_rank, index);
        int64_t from = at(&o->in, index, o->in_rank);
        void *y = out + at(&o->out, index, o->out_rank) * out_size;
        if (o->dtype == MB_FLOAT32)
            axis_float(o, (float *)in + from, xs, y, ys, n, spare);
        else if (o->dtype == MB_FLOAT64)
            axis_double(o, (double *)in + from, xs, y, ys, n, spare);
        else
            axis_int32_t(o, (int32_t *)in + from, xs, y, ys, n, spare);
    }
}

void mb__cpu_other_run(const mb__other *o, mb__frame *f)
{
    job j = {o, f, 0, 1};
    if (mb__is_kind(o->op, MB_KIND_MATRIX)) {
        mb__cpu_matrix_run(o, f);
        return;
    }
    if (o->op == MB_OP_SCATTER_ADD) {
        memset(f->memory[o->out.value], 0,
               (size_t)mb__numel(o->out_dim, o->out_rank) * (size_t)size_of(o->dtype));
        scatter_add(o, f);
        return;
    }
    int64_t total;
    if (o->op == MB_OP_TAKE) {
        bool run = o->out_rank > o->axis + o->index_rank;
        total = mb__numel(o->out_dim, o->out_rank);
        j.items = total ? (run ? total / o->out_dim[o->out_rank - 1] : total) : 0;
    } else {
        total = mb__numel(o->in_dim, o->in_rank);
        j.items = total ? total / o->in_dim[o->axis] : 0;
    }
    j.tasks = total > 16384 ? 16 : 1;
    if (j.tasks > j.items)
        j.tasks = j.items > 0 ? (int)j.items : 1;
    mb__pool_run(f->cpu->pool, o->op == MB_OP_TAKE ? take_task : axis_task, &j, j.tasks);
}
