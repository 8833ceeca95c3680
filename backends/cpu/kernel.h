/* SPDX-License-Identifier: MIT
 *
 * kernel.h - a fused kernel prepared for the CPU.
 *
 * The iteration space is rows times columns. A tile is a few rows of a block of columns, small enough that
 * the registers - arrays over the tile - stay in the first-level cache. Each operation is one loop over a
 * tile, and where the processor has AVX2, so is each chain of arithmetic.
 */
#ifndef MB_CPU_KERNEL_H
#define MB_CPU_KERNEL_H

#include "backends/cpu/frame.h"

enum mb__uop_kind {
    MB_U_LOAD,
    MB_U_IOTA,
    MB_U_RANDOM,
    MB_U_SCALAR,
    MB_U_UNARY,
    MB_U_BINARY,
    MB_U_WHERE,
    MB_U_MAP,  /* the user's; operands are registers of its level, or single values */
    MB_U_DRAW, /* of parts; the same */
    MB_U_REDUCE,
    MB_U_EXPAND, /* copies a value per row to all columns */
    MB_U_CHAIN,
};

/* A view as the start of a tile and the strides inside it. */
typedef struct mb__walk {
    int32_t value;
    int64_t offset, outer[MB_MAX_RANK], row, column; /* elements; column where `flat` */
    bool flat;                                       /* one stride over all columns  */
    int64_t inner[MB_MAX_RANK];
} mb__walk;

typedef struct mb__uop {
    uint8_t kind, level, dtype, from, form; /* from: operand dtype; form: MB_VV, ... */
    uint16_t op;                            /* of unary and binary ones, and reductions */
    bool by_row;                            /* an operand has one value per row */
    bool direct;                            /* load: the register is the memory itself */
    bool fixed;                             /* the same for all tiles: computed once per task */
    int32_t d, a, b, c;
    int32_t bind;                   /* number of a scalar or key */
    int32_t part;                   /* elements, of DRAW */
    uint8_t ra, rb, rc;             /* levels of operands */
    uint8_t size_d, size_a, size_b; /* bytes of an element */
    union {
        mb__unary unary;
        mb__binary binary;
        mb__reduce_row reduce;
    } f;
    const mb__ternary *where;
    const mb__custom_op *custom; /* MAP */
    const mb__walk *walk;        /* of leaves */
    const struct mb__chain *chain;
} mb__uop;

/* The machine code of a chain: from byte `begin` to `end` of the registers' arrays, for the row at byte `row`
 * of those that have one value per row. data: constants that the code wants. */
typedef void (*mb__chain_code)(char *const *reg, int64_t begin, int64_t end, int64_t row, const void *data);

/* Operations on 32-bit elements of one level, each value of which stays in a vector register until it is
 * stored or not needed any more. */
typedef struct mb__chain {
    const mb__uop *uops;
    const int32_t *out; /* the registers that are read elsewhere */
    int count, outs;
    uint8_t level;
    bool by_row;  /* some operand has one value per row */
    int at, size; /* in the plan's code */
    mb__chain_code run;
    const void *data;
    struct mb__chain *next;
} mb__chain;

typedef struct mb__cpu_store {
    mb__walk walk;
    int32_t reg;
    uint8_t mode, dtype, level, size;
    bool per_row, direct;
    bool compensated;      /* followed by the compensation terms of the sums */
    int64_t count;         /* elements of an accumulator */
    size_t partial_offset; /* bytes in a task's partial block */
    mb__accumulate to, one;
    mb__add_rows add_rows; /* NULL for maxima */
    mb__compensated to_compensated, one_compensated;
} mb__cpu_store;

/* The machine code of a plan while it is made, and its chains. */
struct mb__code {
    struct mb__x86 *x86;
    mb__chain *chains; /* newest first */
};

struct mb__cpu_kernel {
    const mb__loops *loops;
    int outer_rank, inner_rank,
        row_axis; /* row_axis: the kernel's axis that rows run along; -1: there is one */
    int64_t outer[MB_MAX_RANK], inner[MB_MAX_RANK];
    int64_t rows, columns, tile_rows, tile_columns, row_tiles, column_tiles, units;
    mb__uop *uops;
    int uop_count;
    mb__cpu_store *stores;
    int store_count;
    int reg_count;
    int64_t *reg_offset; /* in scratch; -1: set for each tile */
    double *constants;   /* one 8-byte cell a constant */
    int32_t *constant_reg;
    int constant_count;
    int tasks;
    int64_t task_unit; /* tasks are cut at multiples of this many units */
    bool accumulates, partial;
    bool moves;           /* one load is stored as it is, to other memory: no register between them */
    bool far;             /* large enough that operands come from memory: they are asked for a tile ahead */
    size_t partial_bytes; /* of one task */
};

/* Where a kernel stands. */
typedef struct mb__tile {
    int64_t index[MB_MAX_RANK]; /* over the outer axes */
    int64_t row, rows, column, columns;
    struct ahead *ahead; /* what is asked for meanwhile */
} mb__tile;

/* The element of a walk at which a tile begins. */
static inline int64_t mb__cpu_start_of(const mb__cpu_kernel *k, const mb__walk *w, const mb__tile *t)
{
    int64_t o = w->offset + t->row * w->row + t->column * w->column;
    for (int i = 0; i < k->outer_rank; i++)
        o += t->index[i] * w->outer[i];
    return o;
}

/* Steps through the columns of one row where no single stride does: calls for each run along the last axis.
 */
#define FOR_RUNS(k, w, at, n, stride, done)                                                                  \
    for (int64_t run_index[MB_MAX_RANK] = {0}, done = 0, at = 0, n = (k)->inner[(k)->inner_rank - 1],        \
                 stride = (w)->inner[(k)->inner_rank - 1];                                                   \
         done < (k)->columns; done += n, at = mb__cpu_next_run(k, w, run_index))

static inline int64_t mb__cpu_next_run(const mb__cpu_kernel *k, const mb__walk *w, int64_t *index)
{
    int64_t at = 0;
    for (int i = k->inner_rank - 1; i-- > 0;) {
        if (++index[i] < k->inner[i])
            break;
        index[i] = 0;
    }
    for (int i = 0; i + 1 < k->inner_rank; i++)
        at += index[i] * w->inner[i];
    return at;
}

/* Into a register: numbers that are functions of their position; n draws of parts. */
void mb__cpu_positions(const mb__cpu_kernel *k, const mb__uop *u, const mb__frame *f, const mb__tile *t,
                       char *to);
void mb__cpu_draws(const mb__cpu_kernel *k, const mb__uop *u, const mb__frame *f, int64_t n, char **reg);

/* A tile of a kernel that only moves elements. */
void mb__cpu_move(const mb__cpu_kernel *k, const mb__frame *f, const mb__tile *t);

/* Puts chains in the place of arithmetic, in memory of pool, and adds their code. False: no memory. */
bool mb__cpu_chain(mb__bump *pool, mb__bump *work, mb__cpu_kernel *k, mb__code *code);
/* Operands of an operation, at most three; returns how many. */
static inline int mb__uop_reads(const mb__uop *u, int32_t in[3])
{
    const int32_t all[3] = {u->a, u->b, u->c};
    int n = 0;
    for (int i = 0; i < 3; i++)
        if (u->kind != MB_U_CHAIN && all[i] >= 0)
            in[n++] = all[i];
    return n;
}

#endif
