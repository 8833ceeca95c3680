/* SPDX-License-Identifier: MIT
 *
 * axis.c - ops along an axis. Where rows of it lie side by side, as they do along every axis but the last,
 * they are columns, and computed a block of them at a time; else a few rows at once. */
#include "backends/cpu/frame.h"
#include "backends/cpu/sort.h"

enum { COLUMNS = MB_AXIS_COLUMNS, ROWS = MB_AXIS_ROWS, TASKS = 16, MANY = 16384, FEW = 4, SHARE = 16 };

typedef struct job {
    const mb__other *o;
    mb__frame *f;
    const mb__axis_loops *loops;
    const mb__axis_op *op;           /* NULL: argsort */
    int64_t n, x_step, y_step;       /* places of the axis, and the elements from one to the next */
    int64_t dim[MB_MAX_RANK], items; /* of the axes besides, without those of columns; rows or blocks */
    int64_t columns, blocks, block;  /* side by side; parts of them, and a part's columns */
    int64_t x_size, y_size;          /* of an element */
    size_t pair_bytes;               /* of a task that sorts */
    int tasks;
    bool backwards; /* a sum from the end */
} job;

/* Where a row begins: at its end, for a sum from there. */
static void row_at(const job *j, int64_t row, const char **x, char **y)
{
    const mb__other *o = j->o;
    int64_t last = j->backwards ? j->n - 1 : 0, from = o->in.offset - last * j->x_step,
            to = o->out.offset - last * j->y_step;
    for (int i = o->in_rank; i-- > 0 && row;) {
        bool within = row < j->dim[i]; /* mostly, and a division takes as long as a short row */
        int64_t at = within ? row : row % j->dim[i];
        row = within ? 0 : row / j->dim[i];
        from += at * o->in.stride[i];
        to += at * o->out.stride[i];
    }
    *x = j->f->memory[o->in.value] + from * j->x_size;
    *y = j->f->memory[o->out.value] + to * j->y_size;
}

/* ---- columns ---- */

static void columns_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    for (int64_t i = j->items * task / j->tasks, end = j->items * (task + 1) / j->tasks; i < end; i++) {
        int64_t first = i % j->blocks * j->block;
        int64_t columns = j->columns - first < j->block ? j->columns - first : j->block;
        const char *x;
        char *y;
        row_at(j, i / j->blocks, &x, &y);
        x += first * j->x_size;
        y += first * j->y_size;
        j->op->columns(j->n, columns, x, j->x_step, y, j->y_step);
    }
}

/* Takes the axes along which both sides lie without gaps out of dim; how many columns they are. */
static int64_t take_columns(const mb__other *o, int64_t *dim)
{
    int64_t columns = 1, before;
    do {
        before = columns;
        for (int i = 0; i < o->in_rank; i++)
            if (dim[i] > 1 && o->in.stride[i] == columns && o->out.stride[i] == columns) {
                columns *= dim[i];
                dim[i] = 1;
            }
    } while (columns > before);
    return columns;
}

/* Blocks as wide as may be, but one for each thread where the columns are enough for that. */
static void share_columns(job *j, int64_t rows)
{
    int64_t wanted = (j->f->cpu->threads + rows - 1) / rows, most = j->columns / (4 * SHARE);
    wanted = wanted < most ? wanted : most > 0 ? most : 1;
    j->block = ((j->columns + wanted - 1) / wanted + SHARE - 1) / SHARE * SHARE;
    j->block = j->block < COLUMNS ? j->block : COLUMNS;
    j->blocks = (j->columns + j->block - 1) / j->block;
    j->items = rows * j->blocks;
}

/* ---- rows ---- */

static void rows_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    int64_t end = j->items * (task + 1) / j->tasks;
    for (int64_t i = j->items * task / j->tasks, count; i < end; i += count) {
        const void *x[ROWS];
        void *y[ROWS];
        count = end - i < ROWS ? end - i : ROWS;
        for (int r = 0; r < count; r++) {
            const char *from;
            char *to;
            row_at(j, i + r, &from, &to);
            x[r] = from;
            y[r] = to;
        }
        j->op->rows(j->n, (int)count, x, j->x_step, y, j->y_step);
    }
}

static void sort_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    char *pairs = j->pair_bytes ? j->f->cpu->pairs + j->pair_bytes * (size_t)task : NULL;
    for (int64_t i = j->items * task / j->tasks, end = j->items * (task + 1) / j->tasks; i < end; i++) {
        const char *x;
        char *y;
        row_at(j, i, &x, &y);
        const mb__sort_call call = {j->n, j->o->wanted,        j->x_step, j->y_step, j->o->flag,
                                    x,    (int32_t *)(void *)y};
        mb__cpu_argsort(j->loops, j->o->dtype, &call, pairs);
    }
}

/* ---- the op ---- */

static int tasks_for(int64_t items, int64_t total, int64_t most)
{
    most = total > MANY ? most : 1;
    return (int)(most < items ? most : items);
}

static int sort_tasks(const mb__cpu *cpu, const mb__other *o)
{
    int64_t n = o->in_dim[o->axis], total = mb__numel(o->in_dim, o->in_rank);
    return n ? tasks_for(total / n, total, mb__cpu_argsort_bytes(n, o->wanted) ? cpu->threads : TASKS) : 0;
}

size_t mb__cpu_axis_pairs(const mb__cpu *cpu, const mb__other *o)
{
    return o->op == MB_OP_ARGSORT
               ? mb__cpu_argsort_bytes(o->in_dim[o->axis], o->wanted) * (size_t)sort_tasks(cpu, o)
               : 0;
}

void mb__cpu_axis_run(const mb__other *o, mb__frame *f)
{
    int64_t total = mb__numel(o->in_dim, o->in_rank), size = (int64_t)mb_dtype_size((mb_dtype)o->dtype);
    if (!total)
        return;
    bool backwards = o->op == MB_OP_CUMSUM && o->flag;
    job j = {.o = o,
             .f = f,
             .loops = &f->cpu->loops->axis[mb__lane(o->dtype)],
             .n = o->in_dim[o->axis],
             .x_step = o->in.stride[o->axis] * (backwards ? -1 : 1),
             .y_step = o->out.stride[o->axis] * (backwards ? -1 : 1),
             .backwards = backwards,
             .x_size = size,
             .y_size = (int64_t)mb_dtype_size((mb_dtype)f->plan->values[o->out.value].dtype)};
    memcpy(j.dim, o->in_dim, sizeof j.dim);
    j.dim[o->axis] = 1;
    j.items = total / j.n;
    j.op = mb__axis_op_of(j.loops, o->op);
    if (!j.op) {
        j.pair_bytes = mb__cpu_argsort_bytes(j.n, o->wanted);
        j.tasks = sort_tasks(f->cpu, o);
        mb__pool_run(f->cpu->pool, sort_task, &j, j.tasks);
        return;
    }
    int64_t dim[MB_MAX_RANK];
    memcpy(dim, j.dim, sizeof dim);
    j.columns = take_columns(o, dim);
    bool columns = j.columns >= FEW;
    if (columns) {
        memcpy(j.dim, dim, sizeof dim);
        share_columns(&j, j.items / j.columns);
    }
    j.tasks = tasks_for(j.items, total, TASKS);
    mb__pool_run(f->cpu->pool, columns ? columns_task : rows_task, &j, j.tasks);
}
