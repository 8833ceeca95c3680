/* SPDX-License-Identifier: MIT
 *
 * op.h - the ops by number, and their properties: the rows of ops.def as data, for tensor/, autograd/ and
 * backends/.
 */
#ifndef MB_OP_H
#define MB_OP_H

#include "tensor/custom_op.h"
#include "tensor/half.h"
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
    MB_KIND_MAP,
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
    MB_KIND_CALL,
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

/* An op of the user's, as its context keeps it. */
typedef struct mb__custom_op {
    mb_custom_op_spec spec; /* with copies of its texts */
    mb_elementwise loops;
    uint32_t number;
    char name[56], call[64]; /* "softsign"; "mb_softsign_at", as the names of recording functions are */
    const char *site;
    size_t glsl_bytes;
} mb__custom_op;

/* The attributes of a MAP: the op; of a CALL: the op, then what follows. */
static inline const mb__custom_op *mb__custom_of(const int64_t *attr)
{
    return (const mb__custom_op *)(uintptr_t)attr[0];
}
typedef struct mb__call {
    const mb__custom_op *op;
    int loops, nattr;
    int64_t attrs[MB_CUSTOM_ATTRS];
    /* Of each result: the core. With several the node has the loop axes and one more, on which the cores lie
     * one after the other, packed. */
    mb_core out[MB_CUSTOM_RESULTS];
} mb__call;
enum { MB_CALL_WORDS = 3 + MB_CUSTOM_ATTRS + MB_CUSTOM_RESULTS * MB_MAX_RANK };
int mb__call_pack(const mb__call *c, int64_t words[MB_CALL_WORDS]); /* how many words */
mb__call mb__call_unpack(const int64_t *words, mb_dtype dtype);

/* Ops that are not in the table, such as the planner's own, have no kind. */
static inline bool mb__is_elementwise(int op)
{
    return op < MB_OP_COUNT && mb__ops[op].kind <= MB_KIND_MAP;
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
    return dtype == MB_FLOAT32 || dtype == MB_FLOAT64 || mb__is_half(dtype);
}
/* Whether a key is bound to it at each run. */
static inline bool mb__has_key(int op)
{
    return op == MB_OP_RANDOM || op == MB_OP_DRAW;
}
/* Whether ops compute with it; bool, int64 and uint8 are moved, compared and cast. */
static inline bool mb__is_number(int dtype)
{
    return mb__is_float(dtype) || dtype == MB_INT32;
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
