/* SPDX-License-Identifier: MIT
 * safetensors_convert.c - dtypes of files that tensors do not have, as wider ones that hold their values. */
#include <math.h>

#include "tensor/files/safetensors.h"

static double float8(const mb__st_float8 *f, unsigned char bits)
{
    int size = bits & 127, exponent = size >> f->fraction, fraction = size & ((1 << f->fraction) - 1);
    int most = 127 >> f->fraction;
    if (f->special == MB__ST_POWERS)
        return bits == 255 ? (double)NAN : ldexp(1, bits - f->bias);
    if ((f->special == MB__ST_ZERO_IS_NAN && bits == 128) ||
        (f->special == MB__ST_LAST_IS_NAN && size == 127) ||
        (f->special == MB__ST_IEEE && exponent == most && fraction))
        return (double)NAN;
    double x = f->special == MB__ST_IEEE && exponent == most ? (double)INFINITY
               : exponent ? ldexp((1 << f->fraction) + fraction, exponent - f->bias - f->fraction)
                          : ldexp(fraction, 1 - f->bias - f->fraction);
    return bits & 128 ? -x : x;
}

/* Little-endian. False: an unsigned number of 64 bits that has the highest. */
static bool integer(const mb__st_dtype *from, const unsigned char *data, int64_t *x)
{
    uint64_t bits = 0;
    for (int b = from->bits / 8; b-- > 0;)
        bits = bits << 8 | data[b];
    int unused = 64 - from->bits;
    *x = from->way == MB__ST_SIGNED ? (int64_t)(bits << unused) >> unused : (int64_t)bits;
    return from->way == MB__ST_SIGNED || *x >= 0;
}

int64_t mb__st_convert(const mb__st_dtype *from, const unsigned char *data, int64_t count, void *to)
{
    int64_t x = 0;
    for (int64_t i = 0; i < count; i++, data += from->bits / 8) {
        if (from->way == MB__ST_FLOAT8) {
            mb__element_set((mb_dtype)from->dtype, to, i, float8(&from->float8, *data));
            continue;
        }
        if (!integer(from, data, &x))
            return i;
        if (from->dtype == MB_INT64)
            memcpy((char *)to + 8 * i, &x, sizeof x);
        else
            mb__element_set((mb_dtype)from->dtype, to, i, (double)x);
    }
    return count;
}
