#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 *
 * kernel.comp - the functions that generated kernels are made of. It is compiled with all of them kept; a
 * kernel is this module with those that it needs and another main (assemble.c, emit.c). The names say the
 * type: f32, f64, i32, bool. Parameters are const, which makes them values; others would be passed in memory.
 */
#include "common.glsl"
#include "math.glsl"
#include "random.glsl"
#include "ops.glsl"

uint lane_index() { return gl_LocalInvocationIndex; }
uint smaller(const uint a, const uint b) { return min(a, b); }
/* First element of a float64 value. */
uint base64_of(const uint slot) { return base_of(slot) >> 1; }

/* ---- memory ---- */

float load_f32(const uint block, const uint i) { return floats[block].at[i]; }
int load_i32(const uint block, const uint i) { return ints[block].at[i]; }
bool load_bool(const uint block, const uint i) { return words[block].at[i] != 0; }
void store_f32(const uint block, const uint i, const float x) { floats[block].at[i] = x; }
void store_i32(const uint block, const uint i, const int x) { ints[block].at[i] = x; }
void store_bool(const uint block, const uint i, const bool x) { words[block].at[i] = x ? 1 : 0; }
#ifdef HAVE_F64
double load_f64(const uint block, const uint i) { return doubles[block].at[i]; }
void store_f64(const uint block, const uint i, const double x) { doubles[block].at[i] = x; }
#endif

/* ---- what is bound at each run: four words each, as float, as int, and as 64 bits: a double or a key ---- */

float scalar_f32(const uint i) { return uintBitsToFloat(table[push.scalars + 4 * i]); }
int scalar_i32(const uint i) { return int(table[push.scalars + 4 * i + 1]); }
uint scalar_low(const uint i) { return table[push.scalars + 4 * i + 2]; }
uint scalar_high(const uint i) { return table[push.scalars + 4 * i + 3]; }
bool scalar_bool(const uint i) { return scalar_i32(i) != 0; }
float draw_f32(const uint i, const uint at) { return random_f32(scalar_low(i), scalar_high(i), uvec2(at, 0)); }
float draw_of_f32(const uint i, const int part, const int place, const uint count)
{
    return random_f32(scalar_low(i), scalar_high(i), place_of_draw(part, place, count));
}
int draw_i32(const uint i, const uint at) { return random_i32(scalar_low(i), scalar_high(i), uvec2(at, 0)); }
int draw_of_i32(const uint i, const int part, const int place, const uint count)
{
    return random_i32(scalar_low(i), scalar_high(i), place_of_draw(part, place, count));
}
float iota_f32(const uint i) { return float(int(i)); }
int iota_i32(const uint i) { return int(i); }
#ifdef HAVE_F64
double scalar_f64(const uint i) { return packDouble2x32(uvec2(scalar_low(i), scalar_high(i))); }
double draw_f64(const uint i, const uint at) { return random_f64(scalar_low(i), scalar_high(i), uvec2(at, 0)); }
double draw_of_f64(const uint i, const int part, const int place, const uint count)
{
    return random_f64(scalar_low(i), scalar_high(i), place_of_draw(part, place, count));
}
double iota_f64(const uint i) { return double(int(i)); }
#endif

/* ---- choosing and converting ---- */

float where_f32(const bool c, const float a, const float b) { return c ? a : b; }
int where_i32(const bool c, const int a, const int b) { return c ? a : b; }
bool where_bool(const bool c, const bool a, const bool b) { return c ? a : b; }
float cast_i32_f32(const int x) { return float(x); }
float cast_bool_f32(const bool x) { return x ? 1.0 : 0.0; }
/* Towards zero, the ends beyond; NaN is unspecified. */
int cast_f32_i32(const float x) { return x >= 2147483648.0 ? 2147483647 : x > -2147483648.0 ? int(x) : (-2147483647 - 1); }
int cast_bool_i32(const bool x) { return x ? 1 : 0; }
bool cast_f32_bool(const float x) { return (floatBitsToUint(x) & 0x7fffffffu) != 0; } /* NaN is not 0 */
bool cast_i32_bool(const int x) { return x != 0; }
#ifdef HAVE_F64
double where_f64(const bool c, const double a, const double b) { return c ? a : b; }
double cast_f32_f64(const float x) { return double(x); }
float cast_f64_f32(const double x) { return float(x); }
double cast_i32_f64(const int x) { return double(x); }
double cast_bool_f64(const bool x) { return x ? 1.0LF : 0.0LF; }
int cast_f64_i32(const double x) { return x >= 2147483648.0LF ? 2147483647 : x > -2147483648.0LF ? int(x) : (-2147483647 - 1); }
bool cast_f64_bool(const double x)
{
    uvec2 w = unpackDouble2x32(x);
    return ((w.y & 0x7fffffffu) | w.x) != 0;
}
#endif

/* ---- bytes and halves ---- */

int byte_of(const int x) { return min(max(x, 0), 255); }
#include "half.glsl"
#ifdef HAVE_HALF
float load_f16(const uint block, const uint i) { return from_f16(uint(halves[block].at[i])); }
float load_bf16(const uint block, const uint i) { return from_bf16(uint(halves[block].at[i])); }
void store_f16(const uint block, const uint i, const float x) { halves[block].at[i] = uint16_t(to_f16(x)); }
void store_bf16(const uint block, const uint i, const float x) { halves[block].at[i] = uint16_t(to_bf16(x)); }
#endif
/* To float32 so that rounding that to a half rounds x: of two float32 around x, the odd one. */
float odd_i32(const int x)
{
    bool large = x >= 16777216 || x <= -16777216;
    return float(large ? (x & ~255) | ((x & 255) != 0 ? 128 : 0) : x);
}
#ifdef HAVE_F64
float odd_f64(const double x)
{
    float f = float(x);
    uint u = floatBitsToUint(f);
    bool larger = x > 0.0LF ? double(f) > x : double(f) < x;
    bool done = double(f) == x || (u & 1u) != 0u || (u & 0x7fffffffu) > 0x7f800000u;
    return done ? f : uintBitsToFloat(larger ? u - 1u : u + 1u);
}
#endif

/* ---- int64: a pair of words, the low one first ---- */

uvec2 pair_of(const uint low, const uint high) { return uvec2(low, high); }
uvec2 load_i64(const uint block, const uint i) { return uvec2(words[block].at[2 * i], words[block].at[2 * i + 1]); }
void store_i64(const uint block, const uint i, const uvec2 x)
{
    words[block].at[2 * i] = x.x;
    words[block].at[2 * i + 1] = x.y;
}
uvec2 scalar_i64(const uint i) { return uvec2(scalar_low(i), scalar_high(i)); }
uvec2 iota_i64(const uint i) { return uvec2(i, 0u); }
uvec2 where_i64(const bool c, const uvec2 a, const uvec2 b) { return c ? a : b; }
bool i64_eq(const uvec2 a, const uvec2 b) { return a.x == b.x && a.y == b.y; }
bool i64_lt(const uvec2 a, const uvec2 b) { return a.y == b.y ? a.x < b.x : int(a.y) < int(b.y); }
bool i64_le(const uvec2 a, const uvec2 b) { return a.y == b.y ? a.x <= b.x : int(a.y) < int(b.y); }
uvec2 negated(const uvec2 a) { return uvec2(~a.x + 1u, ~a.y + (a.x == 0u ? 1u : 0u)); }
uvec2 size_of(const uvec2 a) { return int(a.y) < 0 ? negated(a) : a; }
bool cast_i64_bool(const uvec2 x) { return (x.x | x.y) != 0u; }
uvec2 cast_bool_i64(const bool x) { return uvec2(x ? 1u : 0u, 0u); }
uvec2 cast_i32_i64(const int x) { return uvec2(uint(x), x < 0 ? 0xffffffffu : 0u); }
int cast_i64_i32(const uvec2 x)
{
    bool fits = int(x.y) == (int(x.x) < 0 ? -1 : 0);
    return fits ? int(x.x) : int(x.y) < 0 ? (-2147483647 - 1) : 2147483647;
}
uvec2 cast_f32_i64(const float x)
{
    float a = abs(x);
    bool fits = a < 9223372036854775808.0;
    uint high = uint(fits ? a * 2.3283064365386963e-10 : 0.0), low = uint(fits ? a - float(high) * 4294967296.0 : 0.0);
    uvec2 size = uvec2(low, high);
    if (!fits)
        return x > 0.0 ? uvec2(0xffffffffu, 0x7fffffffu) : uvec2(0u, 0x80000000u);
    return x < 0.0 ? negated(size) : size;
}
/* The highest 32 bits of a size, of which the lowest also says whether what follows is not 0; *by: how many follow. */
uint highest(const uvec2 size, out int by)
{
    int top = size.y != 0u ? findMSB(size.y) + 1 : 0; /* bits of the high word */
    by = top;
    if (top == 0)
        return size.x;
    if (top == 32)
        return size.y | (size.x != 0u ? 1u : 0u);
    uint rest = size.x << (32 - top);
    return (size.y << (32 - top)) | (size.x >> top) | (rest != 0u ? 1u : 0u);
}
float times_power(const float x, const int by) { return x * uintBitsToFloat(uint(127 + by) << 23); }
float cast_i64_f32(const uvec2 x)
{
    int by;
    float size = float(highest(size_of(x), by));
    return times_power(int(x.y) < 0 ? -size : size, by);
}
float odd_i64(const uvec2 x)
{
    int by;
    uint bits = highest(size_of(x), by);
    bool large = bits >= 16777216u;
    float size = large ? float((bits >> 8) | ((bits & 255u) != 0u ? 1u : 0u)) * 256.0 : float(bits);
    return times_power(int(x.y) < 0 ? -size : size, by);
}
#ifdef HAVE_F64
double cast_i64_f64(const uvec2 x) { return double(int(x.y)) * 4294967296.0LF + double(x.x); }
uvec2 cast_f64_i64(const double x)
{
    double a = abs(x);
    bool fits = a < 9223372036854775808.0LF;
    uint high = uint(fits ? a * 2.3283064365386962890625e-10LF : 0.0LF);
    uvec2 size = uvec2(uint(fits ? a - double(high) * 4294967296.0LF : 0.0LF), high);
    if (!fits)
        return x > 0.0LF ? uvec2(0xffffffffu, 0x7fffffffu) : uvec2(0u, 0x80000000u);
    return x < 0.0LF ? negated(size) : size;
}
#endif

/* ---- long float sums carry what each addition rounds away (Kahan 1965), so that their error does not grow with
 * their length; not beyond infinity, where there is no such rest ---- */

float sum_next_f32(const float sum, const float x, const float rest)
{
    precise float y = x - rest, r = sum + y;
    return r;
}
float sum_rest_f32(const float sum, const float x, const float rest, const float next)
{
    precise float y = x - rest, r = (next - sum) - y;
    return abs(next) <= 3.4028234e38 ? r : 0.0;
}

/* ---- a row among the lanes that share it: `lanes` of them, `stride` apart; all of a group take part ---- */

shared float row_f32[256];
shared int row_i32[256];
#ifdef HAVE_F64
shared double row_f64[256];
#endif

#define REDUCE(NAME, T, ROW, COMBINE)                                                                       \
    T NAME(const T x, const uint lanes, const uint stride)                                                                    \
    {                                                                                                        \
        uint i = gl_LocalInvocationIndex, at = (i / stride) % lanes;                                         \
        ROW[i] = x;                                                                                          \
        barrier();                                                                                           \
        for (uint s = lanes >> 1; s > 0; s >>= 1) {                                                          \
            if (at < s)                                                                                      \
                ROW[i] = COMBINE(ROW[i], ROW[i + s * stride]);                                               \
            barrier();                                                                                       \
        }                                                                                                    \
        T r = ROW[i - at * stride];                                                                          \
        barrier();                                                                                           \
        return r;                                                                                            \
    }

REDUCE(row_sum_f32, float, row_f32, f32_add)
REDUCE(row_max_f32, float, row_f32, f32_maximum)
REDUCE(row_sum_i32, int, row_i32, i32_add)
REDUCE(row_max_i32, int, row_i32, i32_maximum)
#ifdef HAVE_F64
REDUCE(row_sum_f64, double, row_f64, f64_add)
REDUCE(row_max_f64, double, row_f64, f64_maximum)
#endif

void main() {}
