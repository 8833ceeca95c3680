/* SPDX-License-Identifier: MIT
 *
 * kernel.h - a fused kernel prepared for the CPU.
 *
 * The iteration space is rows times columns. A tile is a few rows of a block of columns, small enough that
 * the registers - arrays over the tile - stay in the first-level cache. Each operation is one loop over a
 * tile.
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
    MB_U_MAP, /* the user's; operands are registers of its level, or single values */
    MB_U_REDUCE,
    MB_U_EXPAND, /* copies a value per row to all columns */
};

/* A view as the start of a tile and the strides inside it. */
typedef struct mb__walk {
    int32_t value;
    int64_t offset, outer[MB_MAX_RANK], row, column; /* elements; column where `flat` */
    bool flat;                                       /* one stride over all columns  */
    int64_t inner[MB_MAX_RANK];
} mb__walk;

typedef struct mb__uop {
    uint8_t kind, level, dtype, form;
    uint16_t op; /* of unary and binary ones, and reductions */
    bool by_row; /* an operand has one value per row */
    bool direct; /* load: the register is the memory itself */
    bool fixed;  /* the same for all tiles: computed once per task */
    int32_t d, a, b, c;
    int32_t bind;
    uint8_t ra, rb, rc; /* levels of operands */
    uint8_t size_d, size_a, size_b;
    union {
        mb__unary unary;
        mb__binary binary;
        mb__reduce_row reduce;
    } f;
    const mb__ternary *where;
    const mb__custom_op *custom; /* MAP */
    const mb__walk *walk;        /* of leaves */
} mb__uop;

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

struct mb__cpu_kernel {
    const mb__loops *loops;
    int outer_rank, inner_rank;
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
    bool far;             /* large enough that operands come from memory: they are asked for a tile ahead */
    size_t partial_bytes; /* of one task */
};

#endif
