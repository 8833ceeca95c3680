/* SPDX-License-Identifier: MIT
 * element.glsl - the element type of a build: one of the macros F32, I32, F64 (this with HAVE_F64). */
#if defined(F64)
#define T double
#define DATA doubles
#define BASE(slot) (base_of(slot) >> 1)
#elif defined(I32)
#define T int
#define DATA ints
#define BASE(slot) base_of(slot)
#else
#define T float
#define DATA floats
#define BASE(slot) base_of(slot)
#endif

bool is_nan(const T x)
{
#if defined(F64)
    uvec2 w = unpackDouble2x32(x);
    return (w.y & 0x7fffffffu) > (w.x == 0 ? 0x7ff00000u : 0x7fefffffu);
#elif defined(I32)
    return false;
#else
    return (floatBitsToUint(x) & 0x7fffffffu) > 0x7f800000u;
#endif
}

/* The order of argmax and argsort: NaN is the largest, and equal to NaN. */
bool before(const T a, const T b) { return a < b || is_nan(b) && !is_nan(a); }
