/* SPDX-License-Identifier: MIT
 *
 * loops.h - the inner loops of fused kernels: one function for each op, dtype and operand form, made from the
 * op table. loops.c is compiled once for each instruction set; the table of the best one that this CPU has is
 * used.
 *
 * In registers a bool is an int32 of 0 or 1, a uint8 an int32, and a half a float32.
 */
#ifndef MB_LOOPS_H
#define MB_LOOPS_H

#include "tensor/internal.h"

/* d, a, b, c are arrays of n values; the operand named s in a form is a single value. */
typedef void (*mb__unary)(int64_t n, void *d, const void *a);
typedef void (*mb__binary)(int64_t n, void *d, const void *a, const void *b);
typedef void (*mb__ternary)(int64_t n, void *d, const int32_t *m, const void *a, const void *b);
typedef void (*mb__reduce_row)(int64_t n, void *d, const void *a); /* *d = the row's sum or maximum */
typedef void (*mb__accumulate)(int64_t n, void *d, const void *a);
/* d[i] += a[i]; lost[i]: what rounding has added to d[i] so far, which is taken off again */
typedef void (*mb__compensated)(int64_t n, void *d, void *lost, const void *a);
/* d[i] += sum_r a[r n + i]; lost the same, or not looked at */
typedef void (*mb__add_rows)(int64_t rows, int64_t n, void *d, void *lost, const void *a);
/* d[r d_row + c] = a[c a_column + r]: rows of d are columns of a. */
typedef void (*mb__turn)(int64_t rows, int64_t columns, void *d, int64_t d_row, const void *a,
                         int64_t a_column);
/* The uniform draws of whole Philox blocks, from block `first` on. */
typedef void (*mb__draw_blocks)(uint64_t key, uint64_t first, int64_t blocks, void *d);
/* c[i, j] += or = sum_k a[i, k] b[k, j], any strides. */
typedef void (*mb__plain_product)(int64_t m, int64_t n, int64_t k, const void *a, int64_t a_m, int64_t a_k,
                                  const void *b, int64_t b_k, int64_t b_n, void *c, int64_t c_m, int64_t c_n,
                                  bool add);

/* The same through vector registers, for `count` pairs of a and c, a_step and c_step elements apart, that
 * share b: what is copied of b is copied once. scratch: MB_GEMM_SCRATCH bytes of the calling thread. rows:
 * NULL, or MB_GEMM_ROWS bytes for a copy of rows or columns of a, where those lie a power of two apart. */
typedef struct mb__gemm_call {
    int64_t m, n, k, a_m, a_k, b_k, b_n, c_m, c_n, count, a_step, c_step;
    const void *a, *b, *next_b; /* next_b: what the next call's b is, or NULL: asked for ahead */
    void *c, *scratch, *rows;
    bool add, subtract; /* c += a b; c -= a b */
} mb__gemm_call;
typedef void (*mb__gemm)(const mb__gemm_call *call);

/* Products of bfloat16 on CPUs that multiply pairs of them, gemm_bf16.c. A pair is two neighbours along k. */
typedef struct mb__bf16_call {
    int64_t m, n, k, a_m, a_k, c_m; /* c's columns lie side by side */
    const uint16_t *a;
    const uint32_t *panels; /* of b, as `prepare` makes them */
    uint32_t *pairs_of_a;   /* (k + 1) / 2 m words: scratch */
    float *c;
    bool add; /* c += a b */
} mb__bf16_call;

typedef struct mb__bf16_loops {
    /* b, k rows of n columns, in panels: (k + 1) / 2 words for each column, their number rounded up to 32. */
    void (*prepare)(int64_t k, int64_t n, const uint16_t *b, int64_t b_k, int64_t b_n, uint32_t *panels);
    void (*multiply)(const mb__bf16_call *call);
} mb__bf16_loops;

/* Triangular matrices, of any strides where two are given: row and column, which may be negative; else rows
 * that are `ld` elements apart. */
typedef struct mb__triangle_loops {
    /* l = the lower triangle of a, zeros above. */
    void (*lower)(int64_t n, const void *a, int64_t a_r, int64_t a_c, void *l, int64_t ld);
    /* The factor of a symmetric matrix in place of its lower triangle, n <= MB_TRIANGLE_BLOCK; false where it
     * is not positive definite. */
    bool (*factor)(int64_t n, void *l, int64_t ld);
    /* x = a^-1 x for a lower triangular a; x has m columns. */
    void (*substitute)(int64_t n, int64_t m, const void *a, int64_t a_r, int64_t a_c, bool unit, void *x,
                       int64_t ld);
    /* The rows below a factored block, x = x l^-T: at most MB_TRIANGLE_BLOCK rows of n columns. scratch:
     * MB_TRIANGLE_SCRATCH bytes. */
    void (*below)(int64_t rows, int64_t n, const void *l, void *x, int64_t ld, void *scratch);
} mb__triangle_loops;

/* Entries of an axis into which others are added: y[the place of entry e] += x[e], the place being the index
 * held within 0 .. size - 1. An entry has `run` elements, x_step and y_step apart; those of one place are
 * added in their order. */
typedef struct mb__add_call {
    int64_t entries, index_step, size, x_entry, y_entry, run, x_step, y_step;
    const int32_t *index;
    const void *x;
    void *y;
} mb__add_call;

/* An op along an axis of n places, whose elements are x_step apart, which may be negative; NaN is the
 * largest. Of one result y is an int32. columns: for rows of the axis that lie side by side, at most
 * MB_AXIS_COLUMNS; rows: for rows that lie anywhere, at most MB_AXIS_ROWS. */
typedef struct mb__axis_op {
    int op;
    void (*columns)(int64_t n, int64_t columns, const void *x, int64_t x_step, void *y, int64_t y_step);
    void (*rows)(int64_t n, int rows, const void *const *x, int64_t x_step, void *const *y, int64_t y_step);
} mb__axis_op;

/* The places of a row's n elements in ascending order, or descending, of which the first `wanted` are
 * written, then zeros; equal ones in their order, NaN as the largest. */
typedef struct mb__sort_call {
    int64_t n, wanted, x_step, y_step;
    bool descending;
    const void *x; /* float32, float64 or int32, x_step elements apart */
    int32_t *y;
} mb__sort_call;

typedef struct mb__axis_loops {
    mb__axis_op ops[8];                               /* and then one without functions */
    void (*argsort_short)(const mb__sort_call *call); /* for n <= MB_AXIS_SHORT */
    void (*leading_few)(const mb__sort_call *call);   /* for 0 < wanted <= MB_AXIS_FEW, below n */
    void (*add_at)(const mb__add_call *call);
    /* n entries of one element each, side by side in y, those at `index`, held within 0 .. size - 1. */
    void (*take_at)(int64_t n, const int32_t *index, int64_t size, const void *x, int64_t x_step, void *y);
} mb__axis_loops;

/* NULL: there are no such loops. */
static inline const mb__axis_op *mb__axis_op_of(const mb__axis_loops *loops, int op)
{
    const mb__axis_op *o = loops->ops;
    while (o->columns && o->op != op)
        o++;
    return o->columns ? o : NULL;
}

enum { MB_AXIS_COLUMNS = 512, MB_AXIS_ROWS = 4, MB_AXIS_SHORT = 128, MB_AXIS_FEW = 32 };
enum { MB_TRIANGLE_BLOCK = 64, MB_TRIANGLE_SCRATCH = MB_TRIANGLE_BLOCK * MB_TRIANGLE_BLOCK * 8 };
enum { MB_VV, MB_VS, MB_SV, MB_FORMS, MB_GEMM_SCRATCH = 40960, MB_GEMM_ROWS = 640 * 1024 };

typedef struct mb__loops {
    const char *name;
    int vector_bytes;
    mb__unary unary[MB_OP_COUNT][3]; /* by dtype: float32 (and halves), float64, int32 (bool, uint8) */
    mb__binary binary[MB_OP_COUNT][4][MB_FORMS]; /* the fourth: int64, of comparisons */
    mb__unary cast[MB_DTYPES][MB_DTYPES];        /* [from][to] */
    mb__unary widen[2], narrow[2]; /* float16, bfloat16 in memory to float32 in registers, and back */
    mb__ternary where[2][4];       /* [8 bytes wide?][1: a single, 2: b single] */
    mb__turn turn[2];              /* of 4 bytes, of 8 bytes */
    mb__reduce_row sum[3], max[3];
    mb__add_rows add_rows[3], add_rows_compensated;
    mb__compensated add_compensated, add_one_compensated;        /* of float32 */
    mb__accumulate add_to[3], max_to[3], add_one[3], max_one[3]; /* element by element */
    mb__plain_product product[2];
    const mb__gemm *gemm;               /* float32, float64 */
    const mb__triangle_loops *triangle; /* as well */
    const mb__axis_loops *axis;         /* float32, float64, int32 */
    mb__draw_blocks draw[3];            /* float32, float64, int32 */
} mb__loops;

extern const mb__loops mb__loops_base;
#ifdef MB_HAVE_V3
extern const mb__loops mb__loops_v3;
#endif
#ifdef MB_HAVE_V4
extern const mb__loops mb__loops_v4;
#endif
#ifdef MB_HAVE_BF16
extern const mb__bf16_loops mb__bf16_pairs;
#endif

#endif
