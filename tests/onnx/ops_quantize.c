/* SPDX-License-Identifier: MIT
 *
 * ops_quantize.c - integers of 8 bits for floats: x = scale (q - zero). They are carried in int32, and what
 * saturates is clipped. */
#include "compose.h"

/* A scale or zero point: one number, or one for each entry of an axis. */
static mb_tensor per_axis(mb_tensor t, int axis, int rank)
{
    return mb_shape_of(t).rank == 1 && mb_count(t) > 1 ? along(t, axis, rank) : mb_reshape(t, MB_SHAPE0);
}

static void quantize_op(call *c)
{
    mb_tensor x = input(c, 0), scale = input(c, 1);
    if (!x.ctx || !scale.ctx)
        return;
    int rank = mb_shape_of(x).rank, axis = axis_of(attribute_int(c, "axis", 1), rank);
    int elem = has(c, 2) ? elem_of(c, 2) : ELEM_UINT8;
    mb_tensor q = mb_cast(mb_round(mb_div(x, per_axis(scale, axis, rank))), MB_INT32);
    if (has(c, 2))
        q = mb_add(q, per_axis(input(c, 2), axis, rank));
    give_as(c, 0, saturated(q, elem), elem);
}

static void dequantize_op(call *c)
{
    mb_tensor q = input(c, 0), scale = input(c, 1);
    if (!q.ctx || !scale.ctx)
        return;
    int rank = mb_shape_of(q).rank, axis = axis_of(attribute_int(c, "axis", 1), rank);
    if (has(c, 2))
        q = mb_sub(q, per_axis(input(c, 2), axis, rank));
    give_as(c, 0, mb_mul(mb_cast(q, MB_FLOAT32), per_axis(scale, axis, rank)), ELEM_FLOAT);
}

/* Scale and zero point from the range of x, which is made to hold 0. */
static void dynamic_quantize_op(call *c)
{
    mb_tensor x = input(c, 0);
    mb_tensor high = mb_maximum(mb_max(x, MB_ALL), 0.0), low = mb_minimum(mb_min(x, MB_ALL), 0.0);
    mb_tensor scale = mb_div(mb_sub(high, low), 255.0);
    mb_tensor zero = mb_cast(mb_round(mb_div(mb_neg(low), scale)), MB_INT32);
    zero = saturated(zero, ELEM_UINT8);
    mb_tensor q = mb_add(mb_cast(mb_round(mb_div(x, scale)), MB_INT32), zero);
    give_as(c, 0, saturated(q, ELEM_UINT8), ELEM_UINT8);
    give_as(c, 1, scale, ELEM_FLOAT);
    give_as(c, 2, zero, ELEM_UINT8);
}

/* ---- products: of small integers, exact in float64 ---- */

static mb_tensor shifted(mb_tensor q, mb_tensor zero)
{
    return mb_sub(mb_cast(q, MB_FLOAT64), mb_cast(zero, MB_FLOAT64));
}

/* The zero points of A belong to its rows, those of B to its columns. */
static mb_tensor row_zero(mb_tensor zero)
{
    return mb_count(zero) > 1 ? mb_unsqueeze(zero, 1) : mb_reshape(zero, MB_SHAPE0);
}

static mb_tensor column_zero(mb_tensor zero)
{
    return mb_count(zero) > 1 ? zero : mb_reshape(zero, MB_SHAPE0);
}

static void matmul_integer_op(call *c)
{
    mb_tensor a = input(c, 0), b = input(c, 1);
    if (!a.ctx || !b.ctx)
        return;
    a = has(c, 2) ? shifted(a, row_zero(input(c, 2))) : mb_cast(a, MB_FLOAT64);
    b = has(c, 3) ? shifted(b, column_zero(input(c, 3))) : mb_cast(b, MB_FLOAT64);
    give_as(c, 0, mb_cast(mb_matmul(a, b), MB_INT32), ELEM_INT32);
}

/* a, its scale and zero, b, its scale and zero, scale and zero of the result. */
static void qlinear_matmul_op(call *c)
{
    for (int i = 0; i < 8; i++)
        if (!input(c, i).ctx)
            return;
    mb_tensor a = shifted(input(c, 0), row_zero(input(c, 2))),
              b = shifted(input(c, 3), column_zero(input(c, 5)));
    mb_tensor scale = mb_mul(row_zero(input(c, 1)), column_zero(input(c, 4)));
    scale = mb_cast(mb_div(scale, mb_reshape(input(c, 6), MB_SHAPE0)), MB_FLOAT64);
    mb_tensor q = mb_cast(mb_round(mb_mul(mb_matmul(a, b), scale)), MB_INT32);
    q = mb_add(q, mb_reshape(input(c, 7), MB_SHAPE0));
    give_as(c, 0, saturated(q, elem_of(c, 7)), elem_of(c, 7));
}

const op quantize_ops[] = {
    {"DequantizeLinear", dequantize_op, false}, {"DynamicQuantizeLinear", dynamic_quantize_op, false},
    {"MatMulInteger", matmul_integer_op, true}, {"QLinearMatMul", qlinear_matmul_op, true},
    {"QuantizeLinear", quantize_op, true},      {0},
};
