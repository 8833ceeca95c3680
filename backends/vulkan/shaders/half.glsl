/* SPDX-License-Identifier: MIT
 * half.glsl - float16 and bfloat16 by the bits of float32, as tensor/half.h has them in C: a device's own
 * conversions may take small numbers for 0. */
float round_bf16(const float x)
{
    uint u = floatBitsToUint(x), even = u + 0x7fffu + ((u >> 16) & 1u);
    return (u & 0x7fffffffu) > 0x7f800000u ? x : uintBitsToFloat(even & 0xffff0000u);
}
/* Below 2^-14, adding 1/2 rounds to a multiple of 2^-24. */
float round_f16(const float x)
{
    uint u = floatBitsToUint(x), size = u & 0x7fffffffu, even = (size + 0xfffu + ((size >> 13) & 1u)) & ~0x1fffu;
    precise float shifted = uintBitsToFloat(size) + 0.5;
    uint small = floatBitsToUint(float(floatBitsToUint(shifted) - 0x3f000000u) * 5.9604644775390625e-8);
    uint r = size >= 0x477ff000u ? 0x7f800000u : size < 0x38800000u ? small : even;
    return size > 0x7f800000u ? x : uintBitsToFloat(r | (u & 0x80000000u));
}
float from_bf16(const uint h) { return uintBitsToFloat(h << 16); }
/* A number below 2^-14 is a multiple of 2^-24. */
float from_f16(const uint h)
{
    uint size = h & 0x7fffu, sign = (h & 0x8000u) << 16;
    uint small = floatBitsToUint(float(size) * 5.9604644775390625e-8);
    uint r = size >= 0x7c00u ? (size << 13) | 0x7f800000u : size < 0x400u ? small : (size << 13) + 0x38000000u;
    return uintBitsToFloat(r | sign);
}
/* Of a float32 that is rounded already. A NaN stays one, whatever bits are lost. */
uint to_bf16(const float x)
{
    uint u = floatBitsToUint(x);
    return (u >> 16) | ((u & 0x7fffffffu) > 0x7f800000u ? 0x40u : 0u);
}
uint to_f16(const float x)
{
    uint u = floatBitsToUint(x), size = u & 0x7fffffffu;
    uint small = uint(uintBitsToFloat(size) * 16777216.0), nan = size > 0x7f800000u ? 0x7e00u | ((size >> 13) & 0x1ffu) : 0x7c00u;
    uint r = size >= 0x7f800000u ? nan : size < 0x38800000u ? small : (size - 0x38000000u) >> 13;
    return r | ((u >> 16) & 0x8000u);
}
