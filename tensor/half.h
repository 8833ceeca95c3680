/* SPDX-License-Identifier: MIT
 *
 * half.h - float16 and bfloat16 as bits, values of any dtype in the caller's memory as doubles, and casts
 * between integers: what tensor/, the engine and backends agree on.
 *
 * Rounding is to nearest, of two to the even one, once, also from float64. Beyond the largest number it is
 * infinity; subnormals are kept; a NaN stays one.
 */
#ifndef MB_HALF_H
#define MB_HALF_H

#include <string.h>

#include "tensor/tensor.h"

enum { MB_DTYPES = 8 }; /* how many there are */

/* mb_dtype_size, for backends that need no symbol of the library. */
static inline size_t mb__dtype_bytes(int dtype)
{
    static const size_t bytes[MB_DTYPES] = {4, 8, 4, 1, 2, 2, 8, 1};
    return (unsigned)dtype < MB_DTYPES ? bytes[dtype] : 0;
}

static inline bool mb__is_half(int dtype)
{
    return dtype == MB_FLOAT16 || dtype == MB_BFLOAT16;
}

static inline float mb__float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t mb__bits_of_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float mb__from_bfloat16(uint16_t h)
{
    return mb__float_of_bits((uint32_t)h << 16);
}

static inline uint16_t mb__to_bfloat16(float x)
{
    uint32_t u = mb__bits_of_float(x), even = u + 0x7fff + (u >> 16 & 1);
    return (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? u >> 16 | 0x40 : even >> 16);
}

static inline float mb__from_float16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, size = h & 0x7fff;
    if (size >= 0x7c00) /* infinity, NaN */
        return mb__float_of_bits(sign | 0x7f800000 | size << 13);
    if (size < 0x400) /* a multiple of 2^-24 */
        return mb__float_of_bits(sign | mb__bits_of_float((float)size * 0x1p-24f));
    return mb__float_of_bits(sign | ((size << 13) + (112u << 23)));
}

static inline uint16_t mb__to_float16(float x)
{
    uint32_t u = mb__bits_of_float(x), sign = u >> 16 & 0x8000, size = u & 0x7fffffff;
    if (size > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (size >> 13 & 0x1ff));
    if (size >= 0x477ff000) /* from 65520 on */
        return (uint16_t)(sign | 0x7c00);
    if (size < 0x38800000) /* below 2^-14: adding 1/2 rounds to a multiple of 2^-24 */
        return (uint16_t)(sign | (mb__bits_of_float(mb__float_of_bits(size) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | (size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13);
}

/* To float32 so that rounding the result to half rounds x: to odd, where x lies between two float32. */
static inline float mb__odd_float(double x)
{
    float f = (float)x;
    if ((double)f == x || x != x)
        return f;
    uint32_t u = mb__bits_of_float(f);
    if (u & 1)
        return f;
    bool larger = x > 0 ? (double)f > x : (double)f < x; /* f is farther from 0 than x; an infinity, too */
    return mb__float_of_bits(larger ? u - 1 : u + 1);
}

static inline uint16_t mb__to_half(int dtype, double x)
{
    return dtype == MB_FLOAT16 ? mb__to_float16(mb__odd_float(x)) : mb__to_bfloat16(mb__odd_float(x));
}

static inline float mb__from_half(int dtype, uint16_t h)
{
    return dtype == MB_FLOAT16 ? mb__from_float16(h) : mb__from_bfloat16(h);
}

/* To float64 in the same way: from 2^54 on the last bits only say on which side of others it lies. */
static inline double mb__odd_double(int64_t x)
{
    bool large = x >= INT64_C(1) << 54 || x <= -(INT64_C(1) << 54);
    return (double)(large ? (x & ~INT64_C(2047)) | ((x & 2047) ? 1024 : 0) : x);
}

/* x as a value of the dtype: halves and float32 are rounded, others left. */
static inline double mb__rounded(int dtype, double x)
{
    return mb__is_half(dtype)    ? (double)mb__from_half(dtype, mb__to_half(dtype, x))
           : dtype == MB_FLOAT32 ? (double)(float)x
                                 : x;
}

/* Casts to integers are towards zero, and to the nearest value that there is; of NaN: the least. */
static inline int64_t mb__to_int64(double x)
{
    return x >= 0x1p63 ? INT64_MAX : x >= -0x1p63 ? (int64_t)x : INT64_MIN;
}
static inline int32_t mb__int32_of(int64_t x)
{
    return x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : (int32_t)x;
}
static inline uint8_t mb__uint8_of(int64_t x)
{
    return x > 255 ? 255 : x < 0 ? 0 : (uint8_t)x;
}

/* Value i of packed ones, as mb_read gives them; and that value set, which need not be representable. int64
 * beyond 2^53 is rounded. */
static inline double mb__element_of(mb_dtype dtype, const void *values, int64_t i)
{
    union {
        float f;
        double d;
        int32_t i;
        int64_t l;
        uint16_t h;
        uint8_t b;
    } v;
    size_t size = mb__dtype_bytes((int)dtype);
    memcpy(&v, (const char *)values + (size_t)i * size, size);
    return dtype == MB_FLOAT32       ? (double)v.f
           : dtype == MB_FLOAT64     ? v.d
           : dtype == MB_INT32       ? v.i
           : dtype == MB_INT64       ? (double)v.l
           : mb__is_half((int)dtype) ? (double)mb__from_half((int)dtype, v.h)
                                     : v.b;
}

static inline void mb__element_set(mb_dtype dtype, void *values, int64_t i, double x)
{
    const float f = (float)x;
    const int64_t l = mb__to_int64(x);
    const int32_t n = mb__int32_of(l);
    const uint16_t h = mb__to_half((int)dtype, x);
    const uint8_t b = dtype == MB_BOOL ? x != 0 : mb__uint8_of(l);
    const void *v = dtype == MB_FLOAT32       ? (const void *)&f
                    : dtype == MB_FLOAT64     ? (const void *)&x
                    : dtype == MB_INT32       ? (const void *)&n
                    : dtype == MB_INT64       ? (const void *)&l
                    : mb__is_half((int)dtype) ? (const void *)&h
                                              : (const void *)&b;
    size_t size = mb__dtype_bytes((int)dtype);
    memcpy((char *)values + (size_t)i * size, v, size);
}

#endif
