/* SPDX-License-Identifier: MIT
 *
 * math.glsl - elementary functions, since those of GLSL are loose in float and absent in double: m_exp, m_log,
 * m_expm1, m_log1p, m_sin, m_cos, m_tan, m_asin, m_acos, m_atan, m_atan2, m_sinh, m_cosh, m_tanh, m_asinh,
 * m_acosh, m_atanh, m_erf, m_pow, m_hypot, m_sqrt, m_fabs, m_floor, m_ceil, m_rint, m_trunc. Each is made of
 * + - * /, square roots, bit casts and choices; none has a loop. Errors are 1 to 3 units in the last place if
 * the device's + - * / and square roots round correctly, down to the smallest normal number; those of pow grow
 * with |b log a|, to 3 in float and 20 in double where it all but overflows. Specials are those of C: NaN stays
 * NaN, log(0) = -inf, pow(x, 0) = pow(1, y) = 1, ...
 *
 * Everything is `precise`: an element has the same bits in whichever kernel it is computed, and what looks
 * like nothing ((a + b) - a) is what it is for. There is no fma(), which may be fused or not.
 * NaN fails every comparison: a choice between x and a limit is written so that NaN keeps x.
 *
 * Coefficients not explained beside them are minimax (Remez' exchange in 60 digits, weighted so that the
 * error of the whole function is even), of the lowest degree that adds little to what rounding errs by.
 */

/* ------------------------------------------------------------------------------------------------ float -- */

#define M_INF uintBitsToFloat(0x7f800000u)
#define M_NAN uintBitsToFloat(0x7fc00000u)
/* Added, it leaves the nearest integer in the low bits. */
const float M_ROUND = 12582912.0; /* 1.5 2^23 */
/* log 2 in two parts; times an exponent, the first is exact. */
const float M_LN2_HIGH = 0.69314575, M_LN2_LOW = 1.4286068e-06, M_LOG2E = 1.442695;

float m_sqrt(const float x) { return sqrt(x); }
float m_fabs(const float x) { return abs(x); }
float m_floor(const float x) { return floor(x); }
float m_ceil(const float x) { return ceil(x); }
float m_rint(const float x) { return roundEven(x); }
float m_trunc(const float x) { return trunc(x); }

float m_copysign(const float x, const float y)
{
    return uintBitsToFloat((floatBitsToUint(x) & 0x7fffffffu) | (floatBitsToUint(y) & 0x80000000u));
}
float m_power2(const int k) { return intBitsToFloat((k + 127) << 23); } /* -126 <= k <= 127 */
/* p 2^k, k from -252 to 254; rounds once where the result is subnormal. */
float m_scale(const float p, const int k)
{
    int h = k >> 1;
    precise float r = p * m_power2(h) * m_power2(k - h);
    return r;
}
/* e^r - 1 - r, |r| <= log(2) / 2. */
float m_exp_rest(const float r)
{
    precise float p = r * r * (0.5 + r * (0.16666513 + r * (0.041666188 + r * (0.00836959 + r *
        0.0013951679))));
    return p;
}

/* x = k log 2 + r. */
float m_exp(const float x)
{
    precise float a = x > 89.0 ? 89.0 : x < -104.0 ? -104.0 : x;
    precise float t = a * M_LOG2E + M_ROUND;
    precise float k = t - M_ROUND;
    precise float r = (a - k * M_LN2_HIGH) - k * M_LN2_LOW;
    precise float p = 1.0 + (r + m_exp_rest(r));
    return m_scale(p, floatBitsToInt(t) - floatBitsToInt(M_ROUND));
}

/* 2 (2^(k-1) (e^r - 1) + (2^(k-1) - 1/2)) */
float m_expm1(const float x)
{
    precise float a = x > 89.0 ? 89.0 : x < -30.0 ? -30.0 : x;
    precise float t = a * M_LOG2E + M_ROUND;
    precise float k = t - M_ROUND;
    precise float r = (a - k * M_LN2_HIGH) - k * M_LN2_LOW;
    precise float p = r + m_exp_rest(r);
    precise float s = m_power2(floatBitsToInt(t) - floatBitsToInt(M_ROUND) - 1);
    precise float y = 2.0 * (s * p + (s - 0.5));
    return abs(x) < 2.9e-8 ? x : y;
}

/* x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)): log x = k log 2 + log(1 + f). */
float m_log_sum(const float f, const int exponent)
{
    precise float k = float(exponent), z = f * f;
    precise float y = f * z * (0.3333331 + f * (-0.24999986 + f * (0.200022303 + f * (-0.16669266 + f *
        (0.14218585 + f * (-0.12384015 + f * (0.118732515 + f * (-0.11792019 + f * 0.06917397))))))));
    y = (y + k * M_LN2_LOW) - 0.5 * z;
    precise float r = (f + y) + k * M_LN2_HIGH;
    return r;
}
const int M_SQRT_HALF = 0x3f3504f3;

float m_log(const float x)
{
    bool small = x < 1.17549435e-38;
    precise float a = small ? x * 8388608.0 : x;
    int i = floatBitsToInt(a);
    int k = (i - M_SQRT_HALF) >> 23;
    precise float f = intBitsToFloat(i - (k << 23)) - 1.0;
    float r = m_log_sum(f, small ? k - 23 : k);
    return x > 0.0 ? (x < M_INF ? r : x) : x == 0.0 ? -M_INF : M_NAN;
}

/* 1 + x is u + c exactly; c, scaled, goes to f. */
float m_log1p(const float x)
{
    precise float u = 1.0 + x;
    precise float v = u - 1.0;
    precise float c = (1.0 - (u - v)) + (x - v);
    int i = floatBitsToInt(u);
    int k = (i - M_SQRT_HALF) >> 23;
    precise float f = intBitsToFloat(i - (k << 23)) - 1.0;
    f = k > 24 ? f : f + c * m_power2(-min(k, 24));
    float r = m_log_sum(f, k);
    r = abs(x) < 2.9e-8 ? x : r;
    return x > -1.0 ? (x < M_INF ? r : x) : x == -1.0 ? -M_INF : M_NAN;
}

/* |x| = q pi/2 + r, |r| <= pi/4, for every finite x: as Payne and Hanek do, the mantissa (24 bits) is
 * multiplied by those 96 bits of 2/pi that can matter, in integers. That gives 64 bits of |x| 2/pi modulo 4;
 * r is rounded once. */
float m_reduce(const float x, out uint q)
{
    uint i = floatBitsToUint(x) & 0x7fffffffu;
    uint m = (i & 0x7fffffu) | 0x800000u;
    /* The window starts at that bit of 32 zeros and 2/pi: at the first one that is not a multiple of 4. */
    uint at = uint(max(int(i >> 23) - 120, 0));
    const uint t1 = 0xa2f9836eu, t2 = 0x4e441529u, t3 = 0xfc2757d1u, t4 = 0xf534ddc0u;
    const uint t5 = 0xdb629599u, t6 = 0x3c439041u, t7 = 0xfe5163abu;
    /* Words at >> 5 and following, 0 to 4. */
    bool one = (at & 32u) != 0, two = (at & 64u) != 0, four = (at & 128u) != 0;
    uint a0 = one ? t1 : 0u, a1 = one ? t2 : t1, a2 = one ? t3 : t2, a3 = one ? t4 : t3, a4 = one ? t5 : t4;
    uint a5 = one ? t6 : t5;
    uint b0 = four ? t4 : two ? a2 : a0, b1 = four ? t5 : two ? a3 : a1, b2 = four ? t6 : two ? a4 : a2;
    uint b3 = four ? t7 : two ? a5 : a3;
    uint s = at & 31u, o = 31u - s;
    uint w0 = b0 << s | b1 >> 1 >> o, w1 = b1 << s | b2 >> 1 >> o, w2 = b2 << s | b3 >> 1 >> o;
    uint high1, low1, high2, low2;
    umulExtended(m, w1, high1, low1);
    umulExtended(m, w2, high2, low2);
    uint low = low1 + high2;
    uint high = m * w0 + high1 + (low < low1 ? 1u : 0u);
    uint near = high + 0x20000000u;
    high -= near & 0xc0000000u;
    bool negative = (high & 0x80000000u) != 0;
    low = negative ? 0u - low : low;
    high = negative ? ~high + (low == 0 ? 1u : 0u) : high;
    /* 32 significant bits, times pi/2. */
    int zeros = 31 - findMSB(high);
    uint n = zeros == 32 ? low : high << (zeros & 31) | low >> 1 >> (31 - zeros & 31);
    uint half_pi = 0xc90fdaa2u, product, rest;
    umulExtended(n, half_pi, product, rest);
    float r = float(product) * m_power2(-29 - zeros);
    bool small = i < 0x3f490fdbu; /* pi/4 */
    q = small ? 0u : near >> 30;
    return small ? abs(x) : negative ? -r : r;
}
float m_sin_near(const float r)
{
    precise float z = r * r;
    precise float s = r + r * z * (-0.16666655 + z * (0.008332178 + z * -0.00019517215));
    return s;
}
float m_cos_near(const float r)
{
    precise float z = r * r;
    precise float c = 1.0 - (0.5 * z - z * z * (0.041666647 + z * (-0.0013887367 + z * 2.4438358e-05)));
    return c;
}

float m_sin(const float x)
{
    uint q;
    float r = m_reduce(x, q);
    float s = m_sin_near(r), c = m_cos_near(r);
    uint sign = (q << 30 ^ floatBitsToUint(x)) & 0x80000000u;
    float y = uintBitsToFloat(floatBitsToUint((q & 1u) != 0 ? c : s) ^ sign);
    return abs(x) < M_INF ? y : M_NAN;
}

float m_cos(const float x)
{
    uint q;
    float r = m_reduce(x, q);
    float s = m_sin_near(r), c = m_cos_near(r);
    uint sign = (q + 1u) << 30 & 0x80000000u;
    float y = uintBitsToFloat(floatBitsToUint((q & 1u) != 0 ? s : c) ^ sign);
    return abs(x) < M_INF ? y : M_NAN;
}

/* Near 0 a polynomial, else 1 - 2 / (e^2x + 1), which halves what the division errs by. */
float m_tanh(const float x)
{
    precise float a = abs(x), z = a * a;
    precise float small = a + a * z * (-0.3333332 + z * (0.13332601 + z * (-0.053853743 + z * (0.02107725 + z *
        -0.0062817056))));
    precise float large = 1.0 - 2.0 / (m_exp(2.0 * a) + 1.0);
    return m_copysign(a < 0.55 ? small : large, x);
}

/* Near 0 a polynomial, else 1 - e^p with a polynomial p for log(1 - erf). */
float m_erf(const float x)
{
    precise float b = abs(x), z = b * b;
    precise float small = b + b * (0.12837917 + z * (-0.37612627 + z * (0.112836 + z * (-0.026854445 + z *
        (0.005189535 + z * (-0.00080208415 + z * 7.889119e-05))))));
    precise float a = b > 4.0 ? 4.0 : b;
    precise float p = 0.00020436084 + a * (-1.1296612 + a * (-0.6330396 + a * (-0.10863901 + a * (0.0253735643 +
        a * (-0.0042823866 + a * (0.00046378916 + a * (-2.5314997e-05 + a * 2.513402e-07)))))));
    precise float large = 1.0 - m_exp(p);
    return m_copysign(b < 1.0 ? small : large, x);
}

/* a b = p + the result, exactly; both halves of a factor are 12 bits. */
float m_product_rest(const float a, const float b, const float p)
{
    precise float ah = uintBitsToFloat(floatBitsToUint(a) & 0xfffff000u);
    precise float bh = uintBitsToFloat(floatBitsToUint(b) & 0xfffff000u);
    precise float al = a - ah, bl = b - bh;
    precise float r = ((ah * bh - p) + ah * bl + al * bh) + al * bl;
    return r;
}

/* e^(b log|a|): the logarithm is held in two floats, right to about 2^-32, since b multiplies its error.
 * log(1 + f) = f - f^2/2 + f^3/3 + ..., |f| <= 1/3: of the terms written, each is two floats, the rest one. */
float m_pow(const float a, const float b)
{
    precise float x = abs(a);
    bool tiny = x < 1.17549435e-38;
    x = tiny ? x * 8388608.0 : x;
    int i = floatBitsToInt(x);
    int e = (i - 0x3f2aaaab) >> 23; /* 2/3 */
    precise float f = intBitsToFloat(i - (e << 23)) - 1.0;
    precise float k = float(tiny ? e - 23 : e);
    precise float z = f * f, zl = m_product_rest(f, f, z);
    precise float u = z * f, ul = m_product_rest(z, f, u) + zl * f;
    precise float v = u * 0.33333333;
    precise float vl = m_product_rest(u, 0.33333333, v) + (u * -9.9341075e-09 + ul * 0.33333333);
    precise float w = z * z * (-0.2500001 + f * (0.199997704 + f * (-0.16665782 + f * (0.14300343 + f *
        (-0.125306644 + f * (0.10794334 + f * (-0.095312315 + f * (0.11869261 + f * -0.11536795))))))));
    /* Larger first: each sum's rounding error is what the difference leaves. */
    precise float h = 0.5 * z, s1 = f - h, e1 = (f - s1) - h;
    precise float s2 = s1 + v, e2 = (s1 - s2) + v;
    precise float s3 = s2 + w, e3 = (s2 - s3) + w;
    precise float n = k * M_LN2_HIGH, s4 = n + s3, e4 = (n - s4) + s3;
    precise float low = ((e1 + e2) + (e3 + e4)) + ((vl - 0.5 * zl) + k * M_LN2_LOW);
    precise float log_high = s4 + low, log_low = (s4 - log_high) + low;

    precise float c = b > 1e10 ? 1e10 : b < -1e10 ? -1e10 : b; /* enough for 0 and infinity */
    precise float y = c * log_high, yl = m_product_rest(c, log_high, y) + c * log_low;
    bool over = y > 89.0, under = y < -104.0;
    y = over ? 89.0 : under ? -104.0 : y;
    yl = over || under ? 0.0 : yl;
    precise float t = y * M_LOG2E + M_ROUND;
    precise float j = t - M_ROUND;
    precise float r = ((y - j * M_LN2_HIGH) - j * M_LN2_LOW) + yl;
    precise float p = 1.0 + (r + m_exp_rest(r));
    float result = m_scale(p, floatBitsToInt(t) - floatBitsToInt(M_ROUND));

    /* Specials. */
    bool positive = b > 0.0, endless = abs(b) == M_INF;
    x = abs(a);
    result = x == 0.0 || x == M_INF ? ((x == 0.0) == positive ? 0.0 : M_INF) : result;
    result = endless ? (x == 1.0 ? 1.0 : (x > 1.0) == positive ? M_INF : 0.0) : result;
    bool whole = floor(b) == b;
    precise float half_b = 0.5 * b;
    bool odd = whole && abs(b) < 16777216.0 && floor(half_b) != half_b;
    bool minus = (floatBitsToUint(a) & 0x80000000u) != 0;
    result = minus && odd ? -result : result;
    result = minus && !whole && x < M_INF && x > 0.0 ? M_NAN : result;
    result = a != a || b != b ? M_NAN : result; /* NaN alone differs from itself */
    return a == 1.0 || b == 0.0 ? 1.0 : result;
}

/* tan of |x| = q pi/2 + r is tan r, or -1 / tan r. */
float m_tan(const float x)
{
    uint q;
    float r = m_reduce(x, q);
    precise float s = m_sin_near(r), c = m_cos_near(r);
    precise float t = (q & 1u) != 0 ? -(c / s) : s / c;
    float y = uintBitsToFloat(floatBitsToUint(t) ^ (floatBitsToUint(x) & 0x80000000u));
    return abs(x) < M_INF ? y : M_NAN;
}

const float M_PI_HIGH = 3.14159274, M_PI_LOW = -8.74227766e-08;

/* Of 0 <= q <= 1: atan q = pi/4 + atan((q - 1) / (q + 1)), so that the polynomial ends at tan(pi/8). */
float m_atan_unit(const float q)
{
    bool far = q > 0.41421356;
    precise float t = far ? (q - 1.0) / (q + 1.0) : q, z = t * t;
    precise float p = t + t * z * (-0.33333315 + z * (0.19998469 + z * (-0.142434777 + z * (0.105933788 + z *
        -0.06077065))));
    precise float y = 0.25 * M_PI_HIGH + (p + 0.25 * M_PI_LOW);
    return far ? y : p;
}

float m_atan(const float x)
{
    precise float a = abs(x);
    bool far = a > 1.0;
    precise float r = m_atan_unit(far ? 1.0 / a : a);
    precise float y = far ? 0.5 * M_PI_HIGH - (r - 0.5 * M_PI_LOW) : r;
    return m_copysign(y, x);
}

/* The angle of the smaller part by the larger, then of the eighth of the circle that it is in. */
float m_atan2(const float y, const float x)
{
    precise float ax = abs(x), ay = abs(y);
    bool steep = ay > ax;
    precise float n = steep ? ax : ay, d = steep ? ay : ax;
    precise float r = m_atan_unit(d == 0.0 ? 0.0 : n == d ? 1.0 : n / d);
    r = steep ? 0.5 * M_PI_HIGH - (r - 0.5 * M_PI_LOW) : r;
    r = (floatBitsToUint(x) & 0x80000000u) != 0 ? M_PI_HIGH - (r - M_PI_LOW) : r;
    return x != x || y != y ? M_NAN : m_copysign(r, y);
}

/* asin s - s for 0 <= s <= 1/2. */
float m_asin_rest(const float s)
{
    precise float z = s * s;
    precise float p = s * z * (0.16666753 + z * (0.074952865 + z * (0.045471909 + z * (0.02417133 + z *
        0.042181191))));
    return p;
}

/* Beyond 1/2: asin a = pi/2 - 2 asin(sqrt((1 - a) / 2)). */
float m_asin(const float x)
{
    precise float a = abs(x);
    bool far = a > 0.5;
    precise float s = far ? sqrt(max(0.5 - 0.5 * a, 0.0)) : a;
    precise float p = m_asin_rest(s);
    precise float y = far ? 0.5 * M_PI_HIGH - (2.0 * s + (2.0 * p - 0.5 * M_PI_LOW)) : s + p;
    return a > 1.0 ? M_NAN : a <= 1.0 ? m_copysign(y, x) : x;
}

float m_acos(const float x)
{
    precise float a = abs(x);
    bool far = a > 0.5;
    precise float s = far ? sqrt(max(0.5 - 0.5 * a, 0.0)) : x;
    precise float p = m_asin_rest(s);
    precise float double_asin = 2.0 * s + 2.0 * p;
    precise float y = far ? (x > 0.0 ? double_asin : M_PI_HIGH - (double_asin - M_PI_LOW))
                          : 0.5 * M_PI_HIGH - (s + (p - 0.5 * M_PI_LOW));
    return a > 1.0 ? M_NAN : a <= 1.0 ? y : x;
}

/* (t + t / (t + 1)) / 2 with t = e^|x| - 1; where e^|x| overflows, (e^(|x|/2))^2 / 2. */
float m_sinh(const float x)
{
    precise float a = abs(x), t = m_expm1(a), e = m_exp(0.5 * a);
    precise float near = 0.5 * (t + t / (t + 1.0)), far = 0.5 * e * e;
    return m_copysign(a > 88.0 ? far : near, x);
}

float m_cosh(const float x)
{
    precise float a = abs(x), t = m_exp(a), e = m_exp(0.5 * a);
    precise float near = 0.5 * t + 0.5 / t, far = 0.5 * e * e;
    return a > 88.0 ? far : near;
}

/* log(|x| + sqrt(x^2 + 1)); where 1 is nothing beside x^2, log |x| + log 2. */
float m_asinh(const float x)
{
    precise float a = abs(x), z = a * a;
    precise float near = m_log1p(a + z / (1.0 + sqrt(1.0 + z))), far = m_log(a) + 0.69314718;
    return m_copysign(a > 1e8 ? far : near, x);
}

float m_acosh(const float x)
{
    precise float t = x - 1.0;
    precise float near = m_log1p(t + sqrt(max(t * (t + 2.0), 0.0))), far = m_log(x) + 0.69314718;
    return x > 1e8 ? far : x >= 1.0 ? near : M_NAN;
}

float m_atanh(const float x)
{
    precise float a = abs(x);
    precise float y = 0.5 * m_log1p(2.0 * a / (1.0 - a));
    return m_copysign(y, x);
}

float m_hypot(const float a, const float b)
{
    precise float x = abs(a), y = abs(b);
    precise float d = x > y ? x : y, q = (x > y ? y : x) / d;
    precise float r = d * sqrt(1.0 + q * q);
    r = x + y == 0.0 ? 0.0 : r;
    r = a != a || b != b ? M_NAN : r;
    return x == M_INF || y == M_INF ? M_INF : r;
}

#ifdef HAVE_F64
#include "math_double.glsl"
#endif
