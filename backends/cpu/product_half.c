/* SPDX-License-Identifier: MIT
 *
 * product_half.c - matrix products of float16 and bfloat16: blocks of the operands are made float32 in a
 * worker's scratch and multiplied by gemm.c, or put in pairs there and multiplied by gemm_bf16.c, and added
 * up over all of k and over the loops that add; then a block of the result is rounded, once.
 */
#include "backends/cpu/frame.h"

enum { ROWS = 128, COLUMNS = 256, DEPTH = 256 };
_Static_assert(COLUMNS <= DEPTH, "a block of the result is turned where one of a was");

size_t mb__cpu_half_scratch(void)
{
    return (ROWS * DEPTH + DEPTH * COLUMNS + ROWS * COLUMNS) * sizeof(float) + MB_GEMM_SCRATCH;
}

/* A block as float32, which keeps its unit stride: rows, columns and what lies between neighbours of each. */
typedef struct block {
    float *at;
    int64_t row, column;
} block;

static block widened(const mb__loops *loops, int dtype, float *to, int64_t rows, int64_t columns,
                     const uint16_t *from, int64_t row, int64_t column)
{
    mb__unary widen = loops->widen[dtype == MB_BFLOAT16];
    if (column != 1 && row == 1) {
        block turned = widened(loops, dtype, to, columns, rows, from, column, row);
        return (block){to, turned.column, turned.row};
    }
    if (column == 1 && row == columns) {
        widen(rows * columns, to, from);
        return (block){to, columns, 1};
    }
    for (int64_t i = 0; i < rows; i++)
        if (column == 1)
            widen(columns, to + i * columns, from + i * row);
        else
            for (int64_t j = 0; j < columns; j++)
                to[i * columns + j] = mb__from_half(dtype, from[i * row + j * column]);
    return (block){to, columns, 1};
}

/* A block of the result; `turned` has room for as much. */
static void rounded(const mb__loops *loops, int dtype, uint16_t *to, int64_t row, int64_t column,
                    int64_t rows, int64_t columns, const float *from, float *turned)
{
    mb__unary narrow = loops->narrow[dtype == MB_BFLOAT16];
    if (column != 1 && row == 1) {
        loops->turn[0](columns, rows, turned, rows, from, columns);
        rounded(loops, dtype, to, column, row, columns, rows, turned, NULL);
    } else if (column == 1 && row == columns) {
        narrow(rows * columns, to, from);
    } else if (column == 1) {
        for (int64_t i = 0; i < rows; i++)
            narrow(columns, to + i * row, from + i * columns);
    } else {
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < columns; j++)
                to[i * row + j * column] = mb__to_half(dtype, (double)from[i * columns + j]);
    }
}

/* What is multiplied at a time, and where; `prepared` is what of b lies in scratch. */
typedef struct part {
    mb__cpu *cpu;
    const mb__cpu_half *h;
    float *a, *b, *c;
    void *scratch;
    const uint16_t *prepared;
    block b_block;
    int64_t m, n; /* of a block of the result */
} part;

/* c += or = a b, for a block of all three. */
static void add_block(part *w, const uint16_t *a, const uint16_t *b, int64_t k, bool add)
{
    const mb__product *p = w->h->p;
    const mb__loops *loops = w->cpu->loops;
    if (w->cpu->bf16 && w->h->dtype == MB_BFLOAT16) {
        if (w->prepared != b)
            w->cpu->bf16->prepare(k, w->n, b, p->b_k, p->b_n, (void *)w->b);
        w->prepared = b;
        w->cpu->bf16->multiply(&(mb__bf16_call){.m = w->m,
                                                .n = w->n,
                                                .k = k,
                                                .a_m = p->a_m,
                                                .a_k = p->a_k,
                                                .c_m = w->n,
                                                .a = a,
                                                .panels = (void *)w->b,
                                                .pairs_of_a = (void *)w->a,
                                                .c = w->c,
                                                .add = add});
        return;
    }
    block left = widened(loops, w->h->dtype, w->a, w->m, k, a, p->a_m, p->a_k);
    if (w->prepared != b)
        w->b_block = widened(loops, w->h->dtype, w->b, k, w->n, b, p->b_k, p->b_n);
    w->prepared = b;
    loops->gemm[0](&(mb__gemm_call){.m = w->m,
                                    .n = w->n,
                                    .k = k,
                                    .a_m = left.row,
                                    .a_k = left.column,
                                    .b_k = w->b_block.row,
                                    .b_n = w->b_block.column,
                                    .c_m = w->n,
                                    .c_n = 1,
                                    .count = 1,
                                    .a = left.at,
                                    .b = w->b_block.at,
                                    .c = w->c,
                                    .scratch = w->scratch,
                                    .add = add});
}

/* Over all that is added up in a block. */
static void whole_block(part *w, const uint16_t *a, const uint16_t *b)
{
    const mb__cpu_half *h = w->h;
    const mb__product *p = h->p;
    int64_t index[3 * MB_MAX_RANK] = {0};
    bool add = false, more = true;
    if (p->k <= 0)
        memset(w->c, 0, (size_t)(w->m * w->n) * sizeof *w->c);
    while (more) {
        int64_t at_a = 0, at_b = 0;
        for (int i = 0; i < h->adding_count; i++) {
            at_a += index[i] * p->a_loop[h->adding[i]];
            at_b += index[i] * p->b_loop[h->adding[i]];
        }
        for (int64_t k = 0; k < p->k; k += DEPTH, add = true)
            add_block(w, a + at_a + k * p->a_k, b + at_b + k * p->b_k, p->k - k < DEPTH ? p->k - k : DEPTH,
                      add);
        more = false;
        for (int i = h->adding_count; i-- > 0 && !more;)
            if (++index[i] < p->loop[h->adding[i]])
                more = true;
            else
                index[i] = 0;
    }
}

void mb__cpu_product_half(mb__cpu *cpu, const mb__cpu_half *h, const uint16_t *a, const uint16_t *b,
                          uint16_t *c, int64_t m, int64_t n, int64_t count, int worker)
{
    const mb__product *p = h->p;
    int64_t a_step = h->repeat < 0 ? 0 : p->a_loop[h->repeat],
            c_step = h->repeat < 0 ? 0 : p->c_loop[h->repeat];
    float *scratch = (float *)(void *)cpu->scratch[worker];
    part w = {.cpu = cpu, .h = h, .a = scratch, .b = scratch + ROWS * DEPTH};
    w.c = w.b + DEPTH * COLUMNS;
    w.scratch = w.c + ROWS * COLUMNS;
    for (int64_t j = 0; j < n; j += COLUMNS) {
        w.n = n - j < COLUMNS ? n - j : COLUMNS;
        w.prepared = NULL;
        for (int64_t item = 0; item < count; item++)
            for (int64_t i = 0; i < m; i += ROWS) {
                w.m = m - i < ROWS ? m - i : ROWS;
                whole_block(&w, a + item * a_step + i * p->a_m, b + j * p->b_n);
                rounded(cpu->loops, h->dtype, c + item * c_step + i * p->c_m + j * p->c_n, p->c_m, p->c_n,
                        w.m, w.n, w.c, w.a);
            }
    }
}
