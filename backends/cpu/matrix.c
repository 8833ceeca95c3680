/* SPDX-License-Identifier: MIT
 *
 * matrix.c - Cholesky factors and triangular solves. Small matrices are done whole, as many at once as the
 * pool has threads; large ones go in blocks, of which all but the diagonal ones are matrix products. How the
 * work is split depends on shapes alone, and no sum depends on the split.
 */
#include <math.h>

#include "backends/cpu/frame.h"

enum { BLOCK = MB_TRIANGLE_BLOCK };

typedef struct job {
    const mb__other *o;
    mb__frame *f;
    int64_t n, m;            /* the triangle's size; columns of the right sides */
    int64_t matrices, parts; /* of the columns of each matrix */
    int tasks;
} job;

static int64_t element(const mb__other *o)
{
    return o->dtype == MB_FLOAT64 ? 8 : 4;
}

/* Where matrix `item` of the batch begins in a value. */
static char *matrix_at(const job *j, const mb__view *v, int64_t item)
{
    const mb__other *o = j->o;
    int64_t at = v->offset;
    for (int i = o->axis - 1; i > 0 && item; item /= o->out_dim[i--])
        at += item % o->out_dim[i] * v->stride[i];
    if (o->axis)
        at += item * v->stride[0];
    return j->f->memory[v->value] + at * element(o);
}

/* ---- Cholesky ---- */

/* A matrix that is being factored; workers share it, or one does it alone. */
typedef struct factor {
    mb__cpu *cpu;
    const mb__triangle_loops *loops;
    int dtype, worker;
    bool shared;
    char *l;
    int64_t n, size;  /* of the matrix; of an element */
    int64_t at, done; /* the diagonal block [at, done) */
} factor;

static char *element_at(const factor *x, int64_t row, int64_t column)
{
    return x->l + (row * x->n + column) * x->size;
}

/* Row block `task` below the diagonal block: at most BLOCK rows. */
static void below_task(void *argument, int task, int worker)
{
    const factor *x = argument;
    int64_t row = x->done + (int64_t)task * BLOCK, rows = x->n - row < BLOCK ? x->n - row : BLOCK;
    x->loops->below(rows, x->done - x->at, element_at(x, x->at, x->at), element_at(x, row, x->at), x->n,
                    x->cpu->scratch[worker] + MB_GEMM_SCRATCH);
}

/* What the columns [at, done) give these rows of the rest, up to the diagonal. */
enum { STRIP = 2 * BLOCK };
static void rest_task(void *argument, int task, int worker)
{
    const factor *x = argument;
    int64_t row = x->done + (int64_t)task * STRIP, end = x->n - row < STRIP ? x->n : row + STRIP;
    mb__cpu_product_subtract(x->cpu, x->dtype,
                             &(mb__cpu_update){.m = end - row,
                                               .n = end - x->done,
                                               .k = x->done - x->at,
                                               .a_m = x->n,
                                               .a_k = 1,
                                               .b_k = 1,
                                               .b_n = x->n,
                                               .c_m = x->n,
                                               .c_n = 1,
                                               .a = element_at(x, row, x->at),
                                               .b = element_at(x, x->done, x->at),
                                               .c = element_at(x, row, x->done)},
                             worker);
}

static void spread(factor *x, mb__task f, int64_t tasks)
{
    if (x->shared) {
        mb__pool_run(x->cpu->pool, f, x, (int)tasks);
        return;
    }
    for (int64_t i = 0; i < tasks; i++)
        f(x, (int)i, x->worker);
}

static bool factor_blocks(factor *x)
{
    for (x->at = 0; x->at < x->n; x->at = x->done) {
        x->done = x->n - x->at < BLOCK ? x->n : x->at + BLOCK;
        int64_t rest = x->n - x->done;
        if (!x->loops->factor(x->done - x->at, element_at(x, x->at, x->at), x->n))
            return false;
        spread(x, below_task, (rest + BLOCK - 1) / BLOCK);
        spread(x, rest_task, (rest + STRIP - 1) / STRIP);
    }
    return true;
}

static void set(const factor *x, int64_t row, int64_t first, int64_t end, double value)
{
    for (int64_t j = first; j < end; j++)
        if (x->dtype == MB_FLOAT64)
            ((double *)(void *)x->l)[row * x->n + j] = value;
        else
            ((float *)(void *)x->l)[row * x->n + j] = (float)value;
}

static void factor_one(const job *j, int64_t item, bool shared, int worker)
{
    const mb__other *o = j->o;
    mb__cpu *cpu = j->f->cpu;
    factor x = {.cpu = cpu,
                .loops = &cpu->loops->triangle[o->dtype],
                .dtype = o->dtype,
                .worker = worker,
                .shared = shared,
                .l = matrix_at(j, &o->out, item),
                .n = j->n,
                .size = element(o)};
    x.loops->lower(x.n, matrix_at(j, &o->in, item), o->in.stride[o->axis], o->in.stride[o->axis + 1], x.l,
                   x.n);
    bool positive = factor_blocks(&x);
    for (int64_t i = 0; i < x.n && !positive; i++)
        set(&x, i, 0, i + 1, (double)NAN);
    for (int64_t i = 0; i < x.n && x.n > BLOCK; i++) /* products wrote beside the diagonal */
        set(&x, i, i + 1, x.n, 0);
}

static void cholesky_task(void *argument, int task, int worker)
{
    const job *j = argument;
    for (int64_t i = j->matrices * task / j->tasks, end = j->matrices * (task + 1) / j->tasks; i < end; i++)
        factor_one(j, i, false, worker);
}

/* ---- triangular_solve: columns are apart from each other ---- */

/* Columns of x, which holds those of b. Of an upper triangle rows and columns are counted from the end. */
static void solve_columns(const job *j, const char *a, char *x, int64_t columns, int worker)
{
    const mb__other *o = j->o;
    mb__cpu *cpu = j->f->cpu;
    int64_t size = element(o), ld = j->m, a_r = o->in.stride[o->axis], a_c = o->in.stride[o->axis + 1];
    if (o->flag) {
        a += (j->n - 1) * (a_r + a_c) * size;
        x += (j->n - 1) * ld * size;
        a_r = -a_r, a_c = -a_c, ld = -ld;
    }
    int64_t block = columns < 4 ? j->n : BLOCK; /* of few columns memory sets the pace */
    for (int64_t at = 0, done; at < j->n; at = done) {
        done = j->n - at < block ? j->n : at + block;
        cpu->loops->triangle[o->dtype].substitute(done - at, columns, a + at * (a_r + a_c) * size, a_r, a_c,
                                                  o->unit, x + at * ld * size, ld);
        mb__cpu_product_subtract(cpu, o->dtype,
                                 &(mb__cpu_update){.m = j->n - done,
                                                   .n = columns,
                                                   .k = done - at,
                                                   .a_m = a_r,
                                                   .a_k = a_c,
                                                   .b_k = ld,
                                                   .b_n = 1,
                                                   .c_m = ld,
                                                   .c_n = 1,
                                                   .a = a + (done * a_r + at * a_c) * size,
                                                   .b = x + at * ld * size,
                                                   .c = x + done * ld * size},
                                 worker);
    }
}

static void copy_columns(const mb__other *o, const char *from, char *to, int64_t n, int64_t m,
                         int64_t columns)
{
    int64_t size = element(o), row = o->index.stride[o->axis] * size,
            step = o->index.stride[o->axis + 1] * size;
    for (int64_t i = 0; i < n; i++, from += row, to += m * size) {
        if (step == size)
            memcpy(to, from, (size_t)(columns * size));
        for (int64_t c = 0; c < columns && step != size; c++)
            memcpy(to + c * size, from + c * step, (size_t)size);
    }
}

static void solve_task(void *argument, int task, int worker)
{
    const job *j = argument;
    const mb__other *o = j->o;
    int64_t all = j->matrices * j->parts, size = element(o);
    for (int64_t i = all * task / j->tasks, end = all * (task + 1) / j->tasks; i < end; i++) {
        int64_t item = i / j->parts, part = i % j->parts, first = j->m * part / j->parts,
                columns = j->m * (part + 1) / j->parts - first;
        char *x = matrix_at(j, &o->out, item) + first * size;
        copy_columns(o, matrix_at(j, &o->index, item) + first * o->index.stride[o->axis + 1] * size, x, j->n,
                     j->m, columns);
        solve_columns(j, matrix_at(j, &o->in, item), x, columns, worker);
    }
}

/* ---- both ---- */

/* Multiply-adds that are worth handing out, and from which the steps of a single factor are. */
#define TASK 2e5
enum { SHARED = 256 };

void mb__cpu_matrix_run(const mb__other *o, mb__frame *f)
{
    job j = {.o = o, .f = f, .n = o->out_dim[o->axis], .m = o->out_dim[o->axis + 1], .parts = 1};
    j.matrices = mb__numel(o->out_dim, o->axis);
    if (!j.matrices || !j.n || !j.m)
        return;
    bool factors = o->op == MB_OP_CHOLESKY;
    double each = (double)j.n * (double)j.n * (double)j.m / (factors ? 6 : 2) + 100;
    double wanted = each * (double)j.matrices / TASK;
    wanted = wanted < 1 ? 1 : wanted > 32 ? 32 : wanted;
    if (factors && j.n >= SHARED && j.matrices < 8) {
        for (int64_t i = 0; i < j.matrices; i++)
            factor_one(&j, i, true, 0);
        return;
    }
    while (!factors && (double)(j.matrices * j.parts * 2) <= wanted && j.m / j.parts >= 128)
        j.parts *= 2;
    double most = (double)j.matrices * (double)j.parts;
    j.tasks = (int)(wanted < most ? wanted : most);
    mb__pool_run(f->cpu->pool, factors ? cholesky_task : solve_task, &j, j.tasks);
}
