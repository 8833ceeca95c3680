/* SPDX-License-Identifier: MIT
 *
 * ops_integer.c - conversions, and what integers are for: remainders, shifts, powers of them. */
#include "compose.h"

#include <stdint.h>

static bool is_half(int elem)
{
    return elem == ELEM_FLOAT16 || elem == ELEM_BFLOAT16;
}

/* A cast from 16 bits would be done by our reader of files, not by Moebius; one to them rounds. */
static void cast_to(call *c, int elem)
{
    mb_dtype dtype;
    if (is_half(elem) || is_half(elem_of(c, 0))) {
        leave(c, is_half(elem) ? elem_name(elem) : elem_name(elem_of(c, 0)));
        return;
    }
    if (!carrier(elem, &dtype)) {
        leave(c, elem_name(elem));
        return;
    }
    mb_tensor x = input(c, 0);
    if (x.ctx)
        give_as(c, 0, wrapped(mb_cast(x, dtype), elem), elem);
}

static void cast_op(call *c)
{
    cast_to(c, (int)attribute_int(c, "to", ELEM_NONE));
}

static void cast_like_op(call *c)
{
    cast_to(c, elem_of(c, 1));
}

/* Of the sign of b, as in Python; or of that of a, as C's fmod. */
static void mod_op(call *c)
{
    mb_tensor a = input(c, 0), b = input(c, 1);
    if (!a.ctx || !b.ctx)
        return;
    give(c, 0, attribute_int(c, "fmod", 0) ? mb_fmod(a, b) : mb_mod(a, b));
}

/* By a table of powers of two: what is shifted out of 31 bits is not carried. */
static void bit_shift_op(call *c)
{
    enum { BITS = 31 };
    int64_t powers[BITS];
    for (int i = 0; i < BITS; i++)
        powers[i] = (int64_t)1 << i;
    mb_tensor x = input(c, 0), by = input(c, 1);
    if (!x.ctx || !by.ctx)
        return;
    mb_tensor power = mb_take(ints(c, MB_SHAPE(BITS), powers), by, 0);
    if (attribute_is(c, "direction", "LEFT", ""))
        give(c, 0, wrapped(mb_mul(x, power), elem_of(c, 0)));
    else
        give(c, 0, mb_floor_divide(x, power));
}

/* Powers of integers by way of float64: the result is an integer up to its rounding, and a cast alone would
 * take 31.999999 to 31. */
static void pow_op(call *c)
{
    mb_tensor a = input(c, 0), b = input(c, 1);
    if (!a.ctx || !b.ctx)
        return;
    if (is_float(a)) {
        give(c, 0, mb_pow(a, mb_dtype_of(b) == mb_dtype_of(a) ? b : mb_cast(b, mb_dtype_of(a))));
        return;
    }
    mb_tensor power = mb_pow(mb_cast(a, MB_FLOAT64), mb_cast(b, MB_FLOAT64));
    give(c, 0, mb_cast(is_float(b) ? mb_add(power, 1e-9) : mb_round(power), mb_dtype_of(a)));
}

const op integer_ops[] = {
    {"BitShift", bit_shift_op, true}, {"Cast", cast_op, true}, /* between carried types of 32 bits and more;
                                                                  float64 to float32 rounds once */
    {"CastLike", cast_like_op, true}, {"Mod", mod_op, false},  {"Pow", pow_op, false}, {0},
};
