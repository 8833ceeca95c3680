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

/* The order of argmax and argsort is that of keys, whole numbers: NaN is the largest, and equal to NaN; -0 is 0. Numbers
 * themselves will not do, since a compiler may think that none is NaN, and a device take small ones for 0. */
#if defined(F64)
#define KEY uvec2
KEY key_of(const T x)
{
    uvec2 w = unpackDouble2x32(x);
    uint rest = w.y & 0x7fffffffu;
    if (rest > (w.x == 0 ? 0x7ff00000u : 0x7fefffffu))
        return uvec2(0xffffffffu);
    if ((rest | w.x) == 0)
        return uvec2(0, 0x80000000u);
    return (w.y >> 31) != 0 ? ~w : uvec2(w.x, w.y | 0x80000000u);
}
bool before(const KEY a, const KEY b) { return a.y < b.y || a.y == b.y && a.x < b.x; }
#else
#define KEY int
KEY key_of(const T x)
{
#if defined(I32)
    return x;
#else
    int rest = floatBitsToInt(x) & 0x7fffffff;
    return rest > 0x7f800000 ? 0x7fffffff : floatBitsToInt(x) < 0 ? -rest : rest;
#endif
}
bool before(const KEY a, const KEY b) { return a < b; }
#endif
