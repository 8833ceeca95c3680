/* SPDX-License-Identifier: MIT
 * ops.c - the op table and the dtypes as data. */
#include "tensor/op.h"

enum { /* the flags as ops.def writes them */
       COMMUTES = MB_FLAG_COMMUTES,
       GENERATED = MB_FLAG_GENERATED,
       STORED_OPERANDS = MB_FLAG_STORED_OPERANDS,
       ADDS = MB_FLAG_ADDS,
       CONSTANT = MB_FLAG_CONSTANT,
       ONE_OPERAND = MB_FLAG_ONE_OPERAND,
};

const mb__op_info mb__ops[MB_OP_COUNT] = {
#define T_(types)       #types[0]
#define LOCALLY(lo, hi) ((lo) == (hi) ? CONSTANT : 0)
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)                                                 \
    {#name, MB_KIND_UNARY, T_(types), LOCALLY(lo, hi), cost, 0},
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc)                                         \
    {#name, MB_KIND_BINARY, T_(types), LOCALLY(lo, hi) | (flags), cost, 0},
#define MB_COMPARE(NAME, name, types, expr, doc)              {#name, MB_KIND_COMPARE, T_(types), CONSTANT, 1, 0},
#define MB_STRUCT(NAME, name, kind, linear, flags, cost, doc) {#name, MB_KIND_##kind, 0, flags, cost, linear},
#include "tensor/ops.def"
};

const char *mb_dtype_name(mb_dtype dtype)
{
    static const char *const names[MB_DTYPES] = {"float32", "float64",  "int32", "bool",
                                                 "float16", "bfloat16", "int64", "uint8"};
    return (unsigned)dtype < MB_DTYPES ? names[dtype] : "unknown dtype";
}

size_t mb_dtype_size(mb_dtype dtype)
{
    return mb__dtype_bytes((int)dtype);
}
