/* SPDX-License-Identifier: MIT
 *
 * op.h - the ops by number, and their properties: the rows of ops.def as data, for tensor/, autograd/ and
 * backends/.
 */
#ifndef MB_OP_H
#define MB_OP_H

#include "tensor/tensor.h"

typedef enum mb__op {
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)         MB_OP_##NAME,
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc) MB_OP_##NAME,
#define MB_COMPARE(NAME, name, types, expr, doc)                     MB_OP_##NAME,
#define MB_STRUCT(NAME, name, kind, linear, flags, cost, doc)        MB_OP_##NAME,
#include "tensor/ops.def"
    MB_OP_COUNT
} mb__op;

/* How sweeps and planner treat an op. The elementwise kinds come first: each element of the result is a
 * function of the operands' elements at its position, after broadcasting. */
typedef enum mb__kind {
    MB_KIND_UNARY,
    MB_KIND_BINARY,
    MB_KIND_COMPARE,
    MB_KIND_SELECT,
    MB_KIND_CAST,
    MB_KIND_LEAF,
    MB_KIND_VIEW,
    MB_KIND_JOIN,
    MB_KIND_REDUCE,
    MB_KIND_CONTRACT,
    MB_KIND_AXIS,
    MB_KIND_INDEX,
    MB_KIND_IDENTITY,
    MB_KIND_MATRIX,
    MB_KIND_LOOP,
    MB_KIND_RULE,
} mb__kind;

enum mb__op_flag {
    MB_FLAG_COMMUTES = 1,
    MB_FLAG_GENERATED = 2,
    MB_FLAG_STORED_OPERANDS = 4,
    MB_FLAG_ADDS = 8,
    MB_FLAG_CONSTANT = 16,
    MB_FLAG_ONE_OPERAND = 32,
};

typedef struct mb__op_info {
    const char *name;
    uint8_t kind;
    char types; /* F, N, I or L for unary and binary ops and comparisons, 0 for the others */
    uint8_t flags;
    uint8_t cost;    /* of an element, in additions                                          */
    uint16_t linear; /* bit i: linear in operand i                                           */
} mb__op_info;

extern const mb__op_info mb__ops[MB_OP_COUNT];

/* Ops that are not in the table, such as the planner's own, have no kind. */
static inline bool mb__is_elementwise(int op)
{
    return op < MB_OP_COUNT && mb__ops[op].kind <= MB_KIND_CAST;
}
static inline bool mb__is_kind(int op, mb__kind kind)
{
    return op < MB_OP_COUNT && mb__ops[op].kind == kind;
}
static inline bool mb__has_flag(int op, enum mb__op_flag flag)
{
    return op < MB_OP_COUNT && mb__ops[op].flags & flag;
}
static inline bool mb__is_float(int dtype)
{
    return dtype == MB_FLOAT32 || dtype == MB_FLOAT64;
}

/* The number of elements of a checked shape: 0 if any size is 0, even where the product of the others
 * overflows. */
static inline int64_t mb__numel(const int64_t *dim, int rank)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        if (dim[i] == 0)
            return 0;
    for (int i = 0; i < rank; i++)
        n *= dim[i];
    return n;
}

#endif
