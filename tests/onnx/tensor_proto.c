/* SPDX-License-Identifier: MIT
 *
 * tensor_proto.c - TensorProto: numbers of every type, as double or int64. */
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int bytes; /* of an element in raw_data; 0: none */
    bool real, is_signed;
} types[] = {
    [ELEM_NONE] = {"no type", 0, false, false},    [ELEM_FLOAT] = {"float32", 4, true, true},
    [ELEM_UINT8] = {"uint8", 1, false, false},     [ELEM_INT8] = {"int8", 1, false, true},
    [ELEM_UINT16] = {"uint16", 2, false, false},   [ELEM_INT16] = {"int16", 2, false, true},
    [ELEM_INT32] = {"int32", 4, false, true},      [ELEM_INT64] = {"int64", 8, false, true},
    [ELEM_STRING] = {"string", 0, false, false},   [ELEM_BOOL] = {"bool", 1, false, false},
    [ELEM_FLOAT16] = {"float16", 2, true, true},   [ELEM_DOUBLE] = {"float64", 8, true, true},
    [ELEM_UINT32] = {"uint32", 4, false, false},   [ELEM_UINT64] = {"uint64", 8, false, false},
    [ELEM_COMPLEX64] = {"complex64", 0, 0, 0},     [ELEM_COMPLEX128] = {"complex128", 0, 0, 0},
    [ELEM_BFLOAT16] = {"bfloat16", 2, true, true},
};

enum { TYPES = sizeof types / sizeof *types };

const char *elem_name(int elem)
{
    return elem >= 0 && elem < TYPES ? types[elem].name : "an unknown type";
}

bool elem_is_float(int elem)
{
    return elem >= 0 && elem < TYPES && types[elem].real;
}

/* IEEE 754 binary16: 1 sign bit, 5 of the exponent, 10 of the fraction. */
static double half(uint64_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double x;
    if (exponent == 31)
        x = fraction ? NAN : INFINITY;
    else
        x = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return bits & 0x8000 ? -x : x;
}

static double real_of(int elem, uint64_t bits)
{
    switch (elem) {
    case ELEM_FLOAT:
        return wire_float(bits);
    case ELEM_DOUBLE:
        return wire_double(bits);
    case ELEM_BFLOAT16:
        return wire_float(bits << 16);
    default:
        return half(bits);
    }
}

/* The low bytes of `bits` as a number of that type. */
static int64_t whole_of(int elem, uint64_t bits)
{
    int unused = 64 - 8 * types[elem].bytes;
    uint64_t top = bits << unused;
    return types[elem].is_signed ? (int64_t)top >> unused : (int64_t)(top >> unused);
}

static bool store(tensor_proto *t, int64_t i, uint64_t bits)
{
    if (i >= t->count)
        return false;
    if (types[t->elem].real)
        t->real[i] = real_of(t->elem, bits);
    else
        t->whole[i] = whole_of(t->elem, bits);
    return true;
}

static bool store_raw(tensor_proto *t, wire raw)
{
    size_t size = (size_t)types[t->elem].bytes;
    if (wire_left(raw) != (size_t)t->count * size)
        return false;
    for (int64_t i = 0; i < t->count; i++) {
        uint64_t bits = 0;
        for (size_t b = 0; b < size; b++)
            bits |= (uint64_t)*raw.at++ << (8 * b);
        store(t, i, bits);
    }
    return true;
}

/* The wire type of the numbers in a field of TensorProto, -1 where it holds none. */
static int number_type(uint32_t field_number)
{
    switch (field_number) {
    case 4: /* float_data */
        return WIRE_32;
    case 10: /* double_data */
        return WIRE_64;
    case 5:  /* int32_data: smaller integers, bool and the bits of float16, too */
    case 7:  /* int64_data */
    case 11: /* uint64_data: and uint32 */
        return WIRE_VARINT;
    default:
        return -1;
    }
}

static bool store_field(tensor_proto *t, field f, int64_t *next)
{
    int type = number_type(f.number);
    if (f.number == 9)
        return store_raw(t, f.bytes);
    if (type < 0)
        return true;
    if (f.type != WIRE_BYTES)
        return store(t, (*next)++, f.bits);
    for (uint64_t bits; wire_packed(&f.bytes, type, &bits);)
        if (!store(t, (*next)++, bits))
            return false;
    return !f.bytes.bad;
}

static bool add_dim(tensor_proto *t, uint64_t bits)
{
    int64_t n = (int64_t)bits;
    if (t->rank == MAX_DIMS || n < 0 || (n > 0 && t->count > INT32_MAX / n))
        return false;
    t->dim[t->rank++] = n;
    t->count *= n;
    return true;
}

static bool add_dims(tensor_proto *t, field f)
{
    if (f.type != WIRE_BYTES)
        return add_dim(t, f.bits);
    for (uint64_t bits; wire_packed(&f.bytes, WIRE_VARINT, &bits);)
        if (!add_dim(t, bits))
            return false;
    return !f.bytes.bad;
}

/* Everything but the elements, whose type and number must be known first. */
static bool parse_head(arena *a, wire w, tensor_proto *t)
{
    for (field f; wire_next(&w, &f);) {
        if (f.number == 1 && !add_dims(t, f))
            return false;
        if (f.number == 2)
            t->elem = (int)f.bits;
        if (f.number == 8)
            t->name = arena_text(a, f.bytes.at, wire_left(f.bytes));
        if (f.number == 13) /* external_data */
            return false;
    }
    return !w.bad && t->elem > ELEM_NONE && t->elem < TYPES;
}

tensor_proto *parse_tensor(arena *a, wire w, const char **why)
{
    tensor_proto *t = ARENA_NEW(a, tensor_proto, 1);
    t->name = "";
    t->count = 1;
    *why = "not a TensorProto";
    if (!parse_head(a, w, t))
        return NULL;
    if (types[t->elem].bytes == 0)
        return t; /* strings: their number is all that is known of them */
    if (types[t->elem].real)
        t->real = ARENA_NEW(a, double, t->count);
    else
        t->whole = ARENA_NEW(a, int64_t, t->count);
    int64_t next = 0;
    for (field f; wire_next(&w, &f);)
        if (!store_field(t, f, &next))
            return NULL;
    return t;
}
