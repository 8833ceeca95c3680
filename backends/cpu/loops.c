/* SPDX-License-Identifier: MIT
 * loops.c - see loops.h. MB_LOOPS names the table that this compilation makes. */

#include <stdint.h> /* defines __GLIBC__ */

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__) &&                 \
    __GLIBC__ * 1000 + __GLIBC_MINOR__ >= 2035
/* glibc's vector math by declaration: no fast-math, so NaN and infinities stay what they are. */
#define VECTOR(g)                                                                                            \
    double g(double) __attribute__((simd("notinbranch"), const));                                            \
    float g##f(float) __attribute__((simd("notinbranch"), const));
VECTOR(exp)
VECTOR(log)
VECTOR(expm1)
VECTOR(log1p)
VECTOR(sin)
VECTOR(cos)
VECTOR(tanh)
VECTOR(erf)
VECTOR(tan)
VECTOR(asin)
VECTOR(acos)
VECTOR(atan)
VECTOR(sinh)
VECTOR(cosh)
VECTOR(asinh)
VECTOR(acosh)
VECTOR(atanh)
double pow(double, double) __attribute__((simd("notinbranch"), const));
float powf(float, float) __attribute__((simd("notinbranch"), const));
#endif
#include <math.h>

#include "backends/cpu/loops.h"
#include "backends/cpu/draws.h"
#include "backends/cpu/turn.h"

#define EACH(n) for (int64_t i = 0; i < (n); i++)

/* ---- elementwise ---- */

/* Vector and scalar functions round differently. So that an element has the same bits at every position in a
 * loop, and when another kernel recomputes it, only whole vectors are used: the remainder is padded to one.
 */
enum { WHOLE = 16 };

#define ONE_UNARY(NAME, T_, expr)                                                                            \
    static __attribute__((noinline)) void whole_##NAME##_##T_(int64_t n, void *RESTRICT d_,                  \
                                                              const void *RESTRICT a_)                       \
    {                                                                                                        \
        typedef T_ T;                                                                                        \
        T *d = d_;                                                                                           \
        const T *a = a_;                                                                                     \
        EACH(n)                                                                                              \
        {                                                                                                    \
            const T x = a[i];                                                                                \
            d[i] = expr;                                                                                     \
        }                                                                                                    \
    }                                                                                                        \
    static void un_##NAME##_##T_(int64_t n, void *RESTRICT d_, const void *RESTRICT a_)                      \
    {                                                                                                        \
        typedef T_ T;                                                                                        \
        T *d = d_, in[WHOLE], out[WHOLE];                                                                    \
        const T *a = a_;                                                                                     \
        const int64_t whole = n / WHOLE * WHOLE, rest = n - whole;                                           \
        whole_##NAME##_##T_(whole, d, a);                                                                    \
        if (rest == 0)                                                                                       \
            return;                                                                                          \
        for (int64_t i = 0; i < WHOLE; i++)                                                                  \
            in[i] = a[whole + (i < rest ? i : 0)];                                                           \
        whole_##NAME##_##T_(WHOLE, out, in);                                                                 \
        for (int64_t i = 0; i < rest; i++)                                                                   \
            d[whole + i] = out[i];                                                                           \
    }

#define ONE_BINARY(NAME, T_, R, expr)                                                                        \
    static void vv_##NAME##_##T_(int64_t n, void *RESTRICT d_, const void *RESTRICT a_,                      \
                                 const void *RESTRICT b_)                                                    \
    {                                                                                                        \
        typedef T_ T;                                                                                        \
        R *d = d_;                                                                                           \
        const T *pa = a_, *pb = b_;                                                                          \
        EACH(n)                                                                                              \
        {                                                                                                    \
            const T a = pa[i], b = pb[i];                                                                    \
            d[i] = expr;                                                                                     \
        }                                                                                                    \
    }                                                                                                        \
    static void vs_##NAME##_##T_(int64_t n, void *RESTRICT d_, const void *RESTRICT a_,                      \
                                 const void *RESTRICT b_)                                                    \
    {                                                                                                        \
        typedef T_ T;                                                                                        \
        R *d = d_;                                                                                           \
        const T *pa = a_, b = *(const T *)b_;                                                                \
        EACH(n)                                                                                              \
        {                                                                                                    \
            const T a = pa[i];                                                                               \
            d[i] = expr;                                                                                     \
        }                                                                                                    \
    }                                                                                                        \
    static void sv_##NAME##_##T_(int64_t n, void *RESTRICT d_, const void *RESTRICT a_,                      \
                                 const void *RESTRICT b_)                                                    \
    {                                                                                                        \
        typedef T_ T;                                                                                        \
        R *d = d_;                                                                                           \
        const T a = *(const T *)a_, *pb = b_;                                                                \
        EACH(n)                                                                                              \
        {                                                                                                    \
            const T b = pb[i];                                                                               \
            d[i] = expr;                                                                                     \
        }                                                                                                    \
    }

/* Which types a row of the table is for. */
#define UNARY_F(NAME, expr)                                                                                  \
    UNARY_AT(NAME, float, expr)                                                                              \
    UNARY_AT(NAME, double, expr)
#define UNARY_N(NAME, expr) UNARY_F(NAME, expr) UNARY_AT(NAME, int32_t, expr)
#define UNARY_L(NAME, expr) UNARY_AT(NAME, int32_t, expr)
#define BINARY_F(NAME, expr)                                                                                 \
    BINARY_AT(NAME, float, float, expr)                                                                      \
    BINARY_AT(NAME, double, double, expr)
#define BINARY_N(NAME, expr)                                                                                 \
    BINARY_F(NAME, expr)                                                                                     \
    BINARY_AT(NAME, int32_t, int32_t, expr)
#define BINARY_I(NAME, expr) BINARY_AT(NAME, int32_t, int32_t, expr)
#define BINARY_L(NAME, expr) BINARY_I(NAME, expr)
#define COMPARE_N(NAME, expr)                                                                                \
    BINARY_AT(NAME, float, int32_t, expr)                                                                    \
    BINARY_AT(NAME, double, int32_t, expr)                                                                   \
    BINARY_AT(NAME, int32_t, int32_t, expr)                                                                  \
    BINARY_AT(NAME, int64_t, int32_t, expr)

#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)         UNARY_##types(NAME, expr)
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc) BINARY_##types(NAME, expr)
#define MB_COMPARE(NAME, name, types, expr, doc)                     COMPARE_##types(NAME, expr)

/* The expression is expanded with M bound to the type: three passes over the table. */
#define UNARY_AT(NAME, T, expr)     UNARY_AT_##T(NAME, expr)
#define BINARY_AT(NAME, T, R, expr) BINARY_AT_##T(NAME, R, expr)

#define M(g)                       g##f
#define UNARY_AT_float(NAME, expr) ONE_UNARY(NAME, float, expr)
#define UNARY_AT_double(NAME, expr)
#define UNARY_AT_int32_t(NAME, expr)
#define BINARY_AT_float(NAME, R, expr) ONE_BINARY(NAME, float, R, expr)
#define BINARY_AT_double(NAME, R, expr)
#define BINARY_AT_int32_t(NAME, R, expr)
#define BINARY_AT_int64_t(NAME, R, expr)
#include "tensor/ops.def"
#undef M
#undef UNARY_AT_float
#undef UNARY_AT_double
#undef UNARY_AT_int32_t
#undef BINARY_AT_float
#undef BINARY_AT_double
#undef BINARY_AT_int32_t
#undef BINARY_AT_int64_t

#define M(g)                                                         g
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)         UNARY_##types(NAME, expr)
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc) BINARY_##types(NAME, expr)
#define MB_COMPARE(NAME, name, types, expr, doc)                     COMPARE_##types(NAME, expr)
#define UNARY_AT_float(NAME, expr)
#define UNARY_AT_double(NAME, expr)  ONE_UNARY(NAME, double, expr)
#define UNARY_AT_int32_t(NAME, expr) ONE_UNARY(NAME, int32_t, expr)
#define BINARY_AT_float(NAME, R, expr)
#define BINARY_AT_double(NAME, R, expr)  ONE_BINARY(NAME, double, R, expr)
#define BINARY_AT_int32_t(NAME, R, expr) ONE_BINARY(NAME, int32_t, R, expr)
#define BINARY_AT_int64_t(NAME, R, expr) ONE_BINARY(NAME, int64_t, R, expr)
#include "tensor/ops.def"
#undef M
#undef UNARY_AT_float
#undef UNARY_AT_double
#undef UNARY_AT_int32_t
#undef BINARY_AT_float
#undef BINARY_AT_double
#undef BINARY_AT_int32_t
#undef BINARY_AT_int64_t

/* The only binary op with a vector function; whole vectors as above. */
#define WHOLE_POW(T)                                                                                         \
    static void pow_vv_##T(int64_t n, void *RESTRICT d_, const void *RESTRICT a_, const void *RESTRICT b_)   \
    {                                                                                                        \
        T *d = d_, p[WHOLE], q[WHOLE], out[WHOLE];                                                           \
        const T *a = a_, *b = b_;                                                                            \
        const int64_t whole = n / WHOLE * WHOLE, rest = n - whole;                                           \
        vv_POW_##T(whole, d, a, b);                                                                          \
        if (rest == 0)                                                                                       \
            return;                                                                                          \
        for (int64_t i = 0; i < WHOLE; i++) {                                                                \
            p[i] = a[whole + (i < rest ? i : 0)];                                                            \
            q[i] = b[whole + (i < rest ? i : 0)];                                                            \
        }                                                                                                    \
        vv_POW_##T(WHOLE, out, p, q);                                                                        \
        for (int64_t i = 0; i < rest; i++)                                                                   \
            d[whole + i] = out[i];                                                                           \
    }                                                                                                        \
    static void pow_one_##T(int64_t n, T *RESTRICT d, const T *RESTRICT v, T s, bool right)                  \
    {                                                                                                        \
        T same[WHOLE];                                                                                       \
        for (int i = 0; i < WHOLE; i++)                                                                      \
            same[i] = s;                                                                                     \
        for (int64_t i = 0; i < n; i += WHOLE) {                                                             \
            int64_t w = n - i < WHOLE ? n - i : WHOLE;                                                       \
            pow_vv_##T(w, d + i, right ? v + i : same, right ? same : v + i);                                \
        }                                                                                                    \
    }                                                                                                        \
    static void pow_vs_##T(int64_t n, void *RESTRICT d, const void *RESTRICT a, const void *RESTRICT b)      \
    {                                                                                                        \
        pow_one_##T(n, d, a, *(const T *)b, true);                                                           \
    }                                                                                                        \
    static void pow_sv_##T(int64_t n, void *RESTRICT d, const void *RESTRICT a, const void *RESTRICT b)      \
    {                                                                                                        \
        pow_one_##T(n, d, b, *(const T *)a, false);                                                          \
    }

WHOLE_POW(float)
WHOLE_POW(double)

/* ---- casts ---- */

static inline int32_t whole_f(float x)
{
    return x >= 2147483648.0f ? INT32_MAX : x > -2147483648.0f ? (int32_t)x : INT32_MIN;
}
static inline int32_t whole_d(double x)
{
    return x >= 2147483647.0 ? INT32_MAX : x > -2147483648.0 ? (int32_t)x : INT32_MIN;
}
static inline int32_t byte_f(float x)
{
    return x >= 255 ? 255 : x > 0 ? (int32_t)x : 0;
}
static inline int32_t byte_d(double x)
{
    return x >= 255 ? 255 : x > 0 ? (int32_t)x : 0;
}
#define CAST(name, A, R, expr)                                                                               \
    static void cast_##name(int64_t n, void *RESTRICT d_, const void *RESTRICT a_)                           \
    {                                                                                                        \
        R *d = d_;                                                                                           \
        const A *a = a_;                                                                                     \
        EACH(n)                                                                                              \
        {                                                                                                    \
            const A x = a[i];                                                                                \
            d[i] = expr;                                                                                     \
        }                                                                                                    \
    }
#define CASTS(a, A, integer, byte, wide, truth)                                                              \
    CAST(a##f, A, float, (float)x)                                                                           \
    CAST(a##d, A, double, (double)x)                                                                         \
    CAST(a##i, A, int32_t, integer)                                                                          \
    CAST(a##b, A, int32_t, truth)                                                                            \
    CAST(a##l, A, int64_t, wide)                                                                             \
    CAST(a##u, A, int32_t, byte)
CASTS(f, float, whole_f(x), byte_f(x), mb__to_int64((double)x), x != 0)
CASTS(d, double, whole_d(x), byte_d(x), mb__to_int64(x), x != 0)
CASTS(i, int32_t, x, x > 255 ? 255 : x < 0 ? 0 : x, x, x != 0)
CASTS(l, int64_t, mb__int32_of(x), mb__uint8_of(x), x, x != 0)

/* Halves: rounded where they are cast to; in registers they are float32 even so. */
#define bfloat16_rounded(x) mb__from_bfloat16(mb__to_bfloat16(x))
#define float16_rounded(x)  mb__from_float16(mb__to_float16(x))
CAST(fh, float, float, float16_rounded(x))
CAST(fg, float, float, bfloat16_rounded(x))
CAST(dh, double, float, float16_rounded(mb__odd_float(x)))
CAST(dg, double, float, bfloat16_rounded(mb__odd_float(x)))
CAST(ih, int32_t, float, float16_rounded(mb__odd_float((double)x)))
CAST(ig, int32_t, float, bfloat16_rounded(mb__odd_float((double)x)))
CAST(lh, int64_t, float, float16_rounded(mb__odd_float(mb__odd_double(x))))
CAST(lg, int64_t, float, bfloat16_rounded(mb__odd_float(mb__odd_double(x))))

/* ---- halves in memory ---- */

CAST(from_bfloat16, uint16_t, float, mb__from_bfloat16(x))
CAST(to_bfloat16, float, uint16_t, mb__to_bfloat16(x))
#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#if defined(__AVX512F__)
#define HALVES       16
#define WIDE(x)      _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(x)))
#define KEEP(d, v)   _mm512_storeu_ps(d, v)
#define NARROW(d, a) _mm256_storeu_si256((__m256i *)(void *)(d), _mm512_cvtps_ph(_mm512_loadu_ps(a), 8))
#else
#define HALVES       8
#define WIDE(x)      _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(x)))
#define KEEP(d, v)   _mm256_storeu_ps(d, v)
#define NARROW(d, a) _mm_storeu_si128((__m128i *)(void *)(d), _mm256_cvtps_ph(_mm256_loadu_ps(a), 8))
#endif
static void cast_from_float16(int64_t n, void *RESTRICT d_, const void *RESTRICT a_)
{
    float *d = d_;
    const uint16_t *a = a_;
    int64_t i = 0;
    for (; i + HALVES <= n; i += HALVES)
        KEEP(d + i, WIDE(a + i));
    for (; i < n; i++)
        d[i] = mb__from_float16(a[i]);
}
static void cast_to_float16(int64_t n, void *RESTRICT d_, const void *RESTRICT a_)
{
    uint16_t *d = d_;
    const float *a = a_;
    int64_t i = 0;
    for (; i + HALVES <= n; i += HALVES)
        NARROW(d + i, a + i);
    for (; i < n; i++)
        d[i] = mb__to_float16(a[i]);
}
#else
CAST(from_float16, uint16_t, float, mb__from_float16(x))
CAST(to_float16, float, uint16_t, mb__to_float16(x))
#endif

/* ---- where ---- */

#define WHERE(name, T, A, B)                                                                                 \
    static void where_##name(int64_t n, void *RESTRICT d_, const int32_t *RESTRICT m,                        \
                             const void *RESTRICT a_, const void *RESTRICT b_)                               \
    {                                                                                                        \
        T *d = d_;                                                                                           \
        const T *a = a_, *b = b_;                                                                            \
        EACH(n)                                                                                              \
        {                                                                                                    \
            const T x = A, y = B;                                                                            \
            d[i] = m[i] ? x : y;                                                                             \
        }                                                                                                    \
    }
WHERE(vv4, float, a[i], b[i])
WHERE(sv4, float, a[0], b[i])
WHERE(vs4, float, a[i], b[0])
WHERE(ss4, float, a[0], b[0])
WHERE(vv8, double, a[i], b[i])
WHERE(sv8, double, a[0], b[i])
WHERE(vs8, double, a[i], b[0])
WHERE(ss8, double, a[0], b[0])

/* ---- rows and accumulation ---- */

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64 };
#elif defined(__AVX2__)
enum { VECTOR_BYTES = 32 };
#else
enum { VECTOR_BYTES = 16 };
#endif
/* Of an array as long as a row; what is left over after whole ones joins where they are added up. */
#define LANES        64
#define LARGER(p, q) ((q) > (p) || (q) != (q) ? (q) : (p))
#define ROWS(T, LOWEST)                                                                                      \
    static void sum_##T(int64_t n, void *d, const void *RESTRICT a_)                                         \
    {                                                                                                        \
        const T *a = a_;                                                                                     \
        T lane[LANES] = {0};                                                                                 \
        int64_t i = 0;                                                                                       \
        for (; i + LANES <= n; i += LANES)                                                                   \
            for (int j = 0; j < LANES; j++)                                                                  \
                lane[j] += a[i + j];                                                                         \
        _Pragma("GCC unroll 8") for (int w = LANES / 2; w > 0; w /= 2)                                       \
        {                                                                                                    \
            for (int j = 0; j < w; j++)                                                                      \
                lane[j] += lane[j + w];                                                                      \
            if (!((n - i) & w))                                                                              \
                continue;                                                                                    \
            for (int j = 0; j < w; j++)                                                                      \
                lane[j] += a[i + j];                                                                         \
            i += w;                                                                                          \
        }                                                                                                    \
        *(T *)d = lane[0];                                                                                   \
    }                                                                                                        \
    static void max_##T(int64_t n, void *d, const void *RESTRICT a_)                                         \
    {                                                                                                        \
        const T *a = a_;                                                                                     \
        T lane[LANES];                                                                                       \
        int64_t i = 0;                                                                                       \
        for (int j = 0; j < LANES; j++)                                                                      \
            lane[j] = LOWEST;                                                                                \
        for (; i + LANES <= n; i += LANES)                                                                   \
            for (int j = 0; j < LANES; j++)                                                                  \
                lane[j] = LARGER(lane[j], a[i + j]);                                                         \
        _Pragma("GCC unroll 8") for (int w = LANES / 2; w > 0; w /= 2)                                       \
        {                                                                                                    \
            for (int j = 0; j < w; j++)                                                                      \
                lane[j] = LARGER(lane[j], lane[j + w]);                                                      \
            if (!((n - i) & w))                                                                              \
                continue;                                                                                    \
            for (int j = 0; j < w; j++)                                                                      \
                lane[j] = LARGER(lane[j], a[i + j]);                                                         \
            i += w;                                                                                          \
        }                                                                                                    \
        *(T *)d = lane[0];                                                                                   \
    }                                                                                                        \
    static void add_to_##T(int64_t n, void *RESTRICT d_, const void *RESTRICT a_)                            \
    {                                                                                                        \
        T *d = d_;                                                                                           \
        const T *a = a_;                                                                                     \
        EACH(n) d[i] += a[i];                                                                                \
    }                                                                                                        \
    static void max_to_##T(int64_t n, void *RESTRICT d_, const void *RESTRICT a_)                            \
    {                                                                                                        \
        T *d = d_;                                                                                           \
        const T *a = a_;                                                                                     \
        EACH(n) d[i] = LARGER(d[i], a[i]);                                                                   \
    }                                                                                                        \
    static void add_one_##T(int64_t n, void *RESTRICT d, const void *RESTRICT a)                             \
    {                                                                                                        \
        T s;                                                                                                 \
        sum_##T(n, &s, a);                                                                                   \
        *(T *)d += s;                                                                                        \
    }                                                                                                        \
    static void max_one_##T(int64_t n, void *RESTRICT d, const void *RESTRICT a)                             \
    {                                                                                                        \
        T s;                                                                                                 \
        max_##T(n, &s, a);                                                                                   \
        *(T *)d = LARGER(*(T *)d, s);                                                                        \
    }
ROWS(float, -INFINITY)
ROWS(double, -(double)INFINITY)
ROWS(int32_t, INT32_MIN)

/* Compensated (Kahan): what rounding takes from each sum is kept beside it, and taken off the next term. None
 * of an infinite one. */
static inline void compensated(float *d, float *lost, float a)
{
    float y = a - *lost, next = *d + y, error = (next - *d) - y;
    *lost = error - error == 0 ? error : 0;
    *d = next;
}
static void add_compensated(int64_t n, void *RESTRICT d_, void *RESTRICT lost_, const void *RESTRICT a_)
{
    float *d = d_, *lost = lost_;
    const float *a = a_;
    EACH(n) compensated(d + i, lost + i, a[i]);
}
static void add_one_compensated(int64_t n, void *RESTRICT d, void *RESTRICT lost, const void *RESTRICT a)
{
    float s;
    sum_float(n, &s, a);
    compensated(d, lost, s);
}

/* Rows are added to each other in vector registers, and then to what is there. */
#define EACH_ROW for (int64_t r = 0; r < rows; r++, x += n)
#define ADD_ROWS(name, T, put)                                                                               \
    static void name(int64_t rows, int64_t n, void *RESTRICT d_, void *RESTRICT lost_,                       \
                     const void *RESTRICT a_)                                                                \
    {                                                                                                        \
        typedef T vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));             \
        enum { W = VECTOR_BYTES / sizeof(T) };                                                               \
        T *d = d_, *lost = lost_;                                                                            \
        const T *a = a_;                                                                                     \
        int64_t i = 0;                                                                                       \
        (void)lost;                                                                                          \
        for (; i + 2 * W <= n; i += 2 * W) {                                                                 \
            const T *x = a + i;                                                                              \
            union {                                                                                          \
                vec v[2];                                                                                    \
                T each[2 * W];                                                                               \
            } s = {{{0}, {0}}};                                                                              \
            vec s0 = {0}, s1 = {0};                                                                          \
            EACH_ROW s0 += *(const vec *)x, s1 += *(const vec *)(x + W);                                     \
            s.v[0] = s0, s.v[1] = s1;                                                                        \
            for (int j = 0; j < 2 * W; j++)                                                                  \
                put(d + i + j, lost + i + j, s.each[j]);                                                     \
        }                                                                                                    \
        for (; i < n; i++) {                                                                                 \
            const T *x = a + i;                                                                              \
            T s = 0;                                                                                         \
            EACH_ROW s += *x;                                                                                \
            put(d + i, lost + i, s);                                                                         \
        }                                                                                                    \
    }
#define PLAIN(d, lost, a) *(d) += a
ADD_ROWS(add_rows_float, float, PLAIN)
ADD_ROWS(add_rows_double, double, PLAIN)
ADD_ROWS(add_rows_int32_t, int32_t, PLAIN)
ADD_ROWS(add_rows_compensated, float, compensated)

/* ---- small and oddly laid out products ---- */

#define PRODUCT(T)                                                                                           \
    static void product_##T(int64_t m, int64_t n, int64_t k, const void *RESTRICT a_, int64_t a_m,           \
                            int64_t a_k, const void *RESTRICT b_, int64_t b_k, int64_t b_n,                  \
                            void *RESTRICT c_, int64_t c_m, int64_t c_n, bool add)                           \
    {                                                                                                        \
        const T *a = a_, *b = b_;                                                                            \
        T *c = c_;                                                                                           \
        if (b_n == 1 && n > 1) {                                                                             \
            for (int64_t i = 0; i < m; i++)                                                                  \
                for (int64_t j = 0; j < n; j += 16) {                                                        \
                    T s[16] = {0};                                                                           \
                    int64_t w = n - j < 16 ? n - j : 16;                                                     \
                    if (w == 16)                                                                             \
                        for (int64_t l = 0; l < k; l++) {                                                    \
                            const T x = a[i * a_m + l * a_k];                                                \
                            for (int q = 0; q < 16; q++)                                                     \
                                s[q] += x * b[l * b_k + j + q];                                              \
                        }                                                                                    \
                    else                                                                                     \
                        for (int64_t l = 0; l < k; l++) {                                                    \
                            const T x = a[i * a_m + l * a_k];                                                \
                            for (int64_t q = 0; q < w; q++)                                                  \
                                s[q] += x * b[l * b_k + j + q];                                              \
                        }                                                                                    \
                    for (int64_t q = 0; q < w; q++)                                                          \
                        c[i * c_m + (j + q) * c_n] = (add ? c[i * c_m + (j + q) * c_n] : 0) + s[q];          \
                }                                                                                            \
            return;                                                                                          \
        }                                                                                                    \
        for (int64_t i = 0; i < m; i++)                                                                      \
            for (int64_t j = 0; j < n; j++) {                                                                \
                T s = 0;                                                                                     \
                for (int64_t l = 0; l < k; l++)                                                              \
                    s += a[i * a_m + l * a_k] * b[l * b_k + j * b_n];                                        \
                c[i * c_m + j * c_n] = (add ? c[i * c_m + j * c_n] : 0) + s;                                 \
            }                                                                                                \
    }
PRODUCT(float)
PRODUCT(double)

/* ---- the table ---- */

#define IN_TABLE_U(NAME, T, at) .unary[MB_OP_##NAME][at] = un_##NAME##_##T,
#define IN_TABLE_B(NAME, T, at)                                                                              \
    .binary[MB_OP_##NAME][at][MB_VV] = vv_##NAME##_##T, .binary[MB_OP_##NAME][at][MB_VS] = vs_##NAME##_##T,  \
    .binary[MB_OP_##NAME][at][MB_SV] = sv_##NAME##_##T,

extern const mb__gemm MB_GEMM[2];
extern const mb__triangle_loops MB_TRIANGLE[2];
extern const mb__axis_loops MB_AXIS[3];

#pragma GCC diagnostic ignored "-Woverride-init" /* the row of pow is replaced */
const mb__loops MB_LOOPS = {
    .name = MB_STRING(MB_LOOPS),
    .vector_bytes = VECTOR_BYTES,
#define U_F(NAME)                                                    IN_TABLE_U(NAME, float, 0) IN_TABLE_U(NAME, double, 1)
#define U_N(NAME)                                                    U_F(NAME) IN_TABLE_U(NAME, int32_t, 2)
#define U_L(NAME)                                                    IN_TABLE_U(NAME, int32_t, 2)
#define B_F(NAME)                                                    IN_TABLE_B(NAME, float, 0) IN_TABLE_B(NAME, double, 1)
#define B_N(NAME)                                                    B_F(NAME) IN_TABLE_B(NAME, int32_t, 2)
#define B_I(NAME)                                                    IN_TABLE_B(NAME, int32_t, 2)
#define B_L(NAME)                                                    IN_TABLE_B(NAME, int32_t, 2)
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)         U_##types(NAME)
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc) B_##types(NAME)
#define MB_COMPARE(NAME, name, types, expr, doc)                     B_##types(NAME) IN_TABLE_B(NAME, int64_t, 3)
#include "tensor/ops.def"
    .binary[MB_OP_POW] = {{pow_vv_float, pow_vs_float, pow_sv_float},
                          {pow_vv_double, pow_vs_double, pow_sv_double}},
#define FROM(a)                                                                                              \
    {                                                                                                        \
        cast_##a##f, cast_##a##d, cast_##a##i, cast_##a##b, cast_##a##h, cast_##a##g, cast_##a##l,           \
            cast_##a##u                                                                                      \
    }
    .cast = {FROM(f), FROM(d), FROM(i), FROM(i), FROM(f), FROM(f), FROM(l), FROM(i)},
    .widen = {cast_from_float16, cast_from_bfloat16},
    .narrow = {cast_to_float16, cast_to_bfloat16},
    .where = {{where_vv4, where_sv4, where_vs4, where_ss4}, {where_vv8, where_sv8, where_vs8, where_ss8}},
    .turn = {turn_4, turn_8},
    .sum = {sum_float, sum_double, sum_int32_t},
    .max = {max_float, max_double, max_int32_t},
    .add_to = {add_to_float, add_to_double, add_to_int32_t},
    .max_to = {max_to_float, max_to_double, max_to_int32_t},
    .add_compensated = add_compensated,
    .add_one_compensated = add_one_compensated,
    .add_rows = {add_rows_float, add_rows_double, add_rows_int32_t},
    .add_rows_compensated = add_rows_compensated,
    .add_one = {add_one_float, add_one_double, add_one_int32_t},
    .max_one = {max_one_float, max_one_double, max_one_int32_t},
    .product = {product_float, product_double},
    .gemm = MB_GEMM,
    .triangle = MB_TRIANGLE,
    .axis = MB_AXIS,
    .draw = {draw_float, draw_double, draw_int32_t},
};
