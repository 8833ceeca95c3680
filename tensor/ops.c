/* SPDX-License-Identifier: MIT
 * ops.c - the op table and the dtypes as data. */
#include "tensor/internal.h"

const mb__op_info mb__ops[MB_OP_COUNT] = {
#define T_(types)                                       #types[0]
#define MB_UNARY(NAME, name, types, expr, lo, hi, doc)  {#name, MB_CLASS_UNARY, T_(types), (lo) == (hi), 0},
#define MB_BINARY(NAME, name, types, expr, lo, hi, doc) {#name, MB_CLASS_BINARY, T_(types), (lo) == (hi), 0},
#define MB_COMPARE(NAME, name, types, expr, doc)        {#name, MB_CLASS_COMPARE, T_(types), true, 0},
#define MB_STRUCT(NAME, name, linear, doc)              {#name, MB_CLASS_STRUCT, 0, false, linear},
#include "tensor/ops.def"
};

const char *mb_dtype_name(mb_dtype dtype)
{
    static const char *const names[] = {"float32", "float64", "int32", "bool"};
    return (unsigned)dtype < 4 ? names[dtype] : "unknown dtype";
}

size_t mb_dtype_size(mb_dtype dtype)
{
    static const size_t sizes[] = {4, 8, 4, 1};
    return (unsigned)dtype < 4 ? sizes[dtype] : 0;
}
