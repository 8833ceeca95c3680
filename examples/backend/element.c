/* SPDX-License-Identifier: MIT
 *
 * element.c - one element of an op, from the expressions of ops.def; and one random number.
 */
#include <math.h>

#include <backends/plan/philox.h>

#include "trace.h"

double trace_wrapped(double x)
{
    return (double)(int32_t)(uint32_t)(int64_t)x;
}

static double to_int32(double x)
{
    return x >= 2147483647.0 ? 2147483647.0 : x > -2147483648.0 ? trunc(x) + 0.0 : -2147483648.0; /* no -0 */
}

static double logic(int op, bool a, bool b)
{
    return op == MB_OP_NOT ? !a : op == MB_OP_AND ? a && b : a || b;
}

/* In doubles, for every dtype. The expressions have x, a and b for their operands, and M(sin) for sin. */
static double number(int op, double a, double b)
{
    const double x = a;
#define M(f)                                                 f
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc) UNARY_##types(NAME, expr)
#define UNARY_F(NAME, expr)                                                                                  \
    case MB_OP_##NAME:                                                                                       \
        return expr;
#define UNARY_N(NAME, expr) UNARY_F(NAME, expr)
#define UNARY_I(NAME, expr)
#define UNARY_L(NAME, expr)
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc) UNARY_##types(NAME, expr)
#define MB_COMPARE(NAME, name, types, expr, doc)                     UNARY_F(NAME, expr)
    switch (op) {
#include <tensor/ops.def>
    default:
        return x; /* a copy */
    }
#undef M
}

/* Of integers: in such that do not overflow. */
static double integer(int op, int64_t a, int64_t b)
{
#define BINARY_I(NAME, expr)                                                                                 \
    case MB_OP_##NAME:                                                                                       \
        return trace_wrapped((double)(expr));
#define BINARY_F(NAME, expr)
#define BINARY_N(NAME, expr)
#define BINARY_L(NAME, expr)
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc) BINARY_##types(NAME, expr)
    switch (op) {
    case MB_OP_MUL: /* which may be more than a double holds */
        return (double)(int32_t)((uint32_t)a * (uint32_t)b);
#include <tensor/ops.def>
    default:
        return trace_wrapped(number(op, (double)a, (double)b));
    }
}

/* An elementwise op of the user's. */
static double users(const mb__custom_op *op, double a, double b, double c)
{
    double y;
    op->loops.f64(1, &y, &a, &b, &c);
    return y;
}

double trace_element(const mb__instr *i, double a, double b, double c)
{
    bool logical = i->op == MB_OP_NOT || i->op == MB_OP_AND || i->op == MB_OP_OR;
    if (i->op == MB_OP_WHERE)
        return a != 0 ? b : c;
    if (i->op == MB_OP_CAST)
        return i->dtype == MB_BOOL ? a != 0 : i->dtype == MB_INT32 ? to_int32(a) : a;
    if (i->from == MB_BOOL && logical)
        return logic(i->op, a != 0, b != 0);
    if (i->op == MB_OP_MAP)
        return users(i->custom, a, b, c);
    if (i->dtype != MB_INT32)
        return number(i->op, a, b);
    return integer(i->op, (int64_t)a, (int64_t)b);
}

/* Draw number `at` under a key: the same on every backend. */
double trace_draw(mb_dtype dtype, uint64_t key, int64_t at)
{
    if (dtype == MB_FLOAT64) {
        philox4x32_ctr_t words = mb__philox(key, (uint64_t)at / 2);
        return mb__unit_double(words.v[at % 2 * 2], words.v[at % 2 * 2 + 1]);
    }
    uint32_t word = mb__philox(key, (uint64_t)at / 4).v[at % 4];
    return dtype == MB_INT32 ? (double)(word >> 1) : (double)mb__unit_float(word);
}
