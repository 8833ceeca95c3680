/* SPDX-License-Identifier: MIT
 * draws.h - uniform draws: Philox4x32-10 (Salmon and others 2011), vectors of blocks at a time. */
#ifndef MB_CPU_DRAWS_H
#define MB_CPU_DRAWS_H

#include <string.h>

#include "backends/plan/philox.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#define WORDS       __m512i
#define SPLAT(x)    _mm512_set1_epi64((int64_t)(x))
#define TIMES(a, b) _mm512_mul_epu32(a, b)
#define HIGH(a)     _mm512_srli_epi64(a, 32)
#define XOR(a, b)   _mm512_xor_si512(a, b)
#define PAIR(a, b)  _mm512_mask_blend_epi32(0xaaaa, a, _mm512_slli_epi64(b, 32))
#define EVEN(a, b)  _mm512_unpacklo_epi64(a, b)
#define ODD(a, b)   _mm512_unpackhi_epi64(a, b)
#define STORE(d, a) _mm512_storeu_si512(d, a)
#elif defined(__AVX2__)
#include <immintrin.h>
#define WORDS       __m256i
#define SPLAT(x)    _mm256_set1_epi64x((int64_t)(x))
#define TIMES(a, b) _mm256_mul_epu32(a, b)
#define HIGH(a)     _mm256_srli_epi64(a, 32)
#define XOR(a, b)   _mm256_xor_si256(a, b)
#define PAIR(a, b)  _mm256_blend_epi32(a, _mm256_slli_epi64(b, 32), 0xaa)
#define EVEN(a, b)  _mm256_unpacklo_epi64(a, b)
#define ODD(a, b)   _mm256_unpackhi_epi64(a, b)
#define STORE(d, a) _mm256_storeu_si256((__m256i *)(d), a)
#elif defined(__SSE2__)
#include <immintrin.h>
#define WORDS       __m128i
#define SPLAT(x)    _mm_set1_epi64x((int64_t)(x))
#define TIMES(a, b) _mm_mul_epu32(a, b)
#define HIGH(a)     _mm_srli_epi64(a, 32)
#define XOR(a, b)   _mm_xor_si128(a, b)
#define PAIR(a, b)  _mm_unpacklo_epi32(_mm_shuffle_epi32(a, 0x88), _mm_shuffle_epi32(b, 0x88))
#define EVEN(a, b)  _mm_unpacklo_epi64(a, b)
#define ODD(a, b)   _mm_unpackhi_epi64(a, b)
#define STORE(d, a) _mm_storeu_si128((__m128i *)(d), a)
#else
#define WORDS       uint64_t
#define SPLAT(x)    ((uint64_t)(x))
#define TIMES(a, b) ((uint64_t)(uint32_t)(a) * (uint32_t)(b))
#define HIGH(a)     ((a) >> 32)
#define XOR(a, b)   ((a) ^ (b))
#endif

/* VECTORS: as many multiplications wait for each other. */
enum { BLOCKS = sizeof(WORDS) / 8, VECTORS = 4, BLOCKS_AT_ONCE = BLOCKS * VECTORS };
#define EACH_VECTOR _Pragma("GCC unroll 4") for (int v = 0; v < VECTORS; v++)

/* The words of a vector of blocks, of which x[i] are the i-th: each 64-bit lane holds that of one
 * block, in its lower half; the upper one may hold anything. The blocks' first half is in the even
 * lanes, the second in the odd ones. */
static inline void store_blocks(uint32_t *d, const WORDS x[4])
{
#ifdef PAIR
    WORDS first = PAIR(x[0], x[1]), second = PAIR(x[2], x[3]);
    STORE(d, EVEN(first, second));
    STORE(d + 2 * BLOCKS, ODD(first, second));
#else
    for (int w = 0; w < 4; w++)
        d[w] = (uint32_t)x[w];
#endif
}

static void some_blocks(uint64_t key, uint64_t first, uint32_t *d)
{
    const WORDS m0 = SPLAT(0xD2511F53u), m1 = SPLAT(0xCD9E8D57u);
    WORDS x[VECTORS][4];
    EACH_VECTOR
    {
        uint64_t low[BLOCKS], high[BLOCKS];
        for (int i = 0; i < BLOCKS; i++) {
            low[i] = first + (uint64_t)(v * BLOCKS + (BLOCKS > 1 ? i / 2 + i % 2 * (BLOCKS / 2) : i));
            high[i] = low[i] >> 32;
        }
        memcpy(&x[v][0], low, sizeof low);
        memcpy(&x[v][1], high, sizeof high);
        x[v][2] = x[v][3] = SPLAT(0);
    }
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        const WORDS by0 = SPLAT(k0), by1 = SPLAT(k1);
        EACH_VECTOR
        {
            const WORDS p = TIMES(x[v][0], m0), q = TIMES(x[v][2], m1);
            x[v][0] = XOR(XOR(HIGH(q), x[v][1]), by0);
            x[v][2] = XOR(XOR(HIGH(p), x[v][3]), by1);
            x[v][1] = q;
            x[v][3] = p;
        }
    }
    EACH_VECTOR store_blocks(d + 4 * v * BLOCKS, x[v]);
}

/* Of word i, or of i and the next one. */
#define TO_float(w, i)   mb__unit_float((w)[i])
#define TO_int32_t(w, i) ((int32_t)((w)[i] >> 1))
#define TO_double(w, i)  mb__unit_double((w)[i], (w)[(i) + 1])

#define DRAW(T)                                                                                              \
    static void draw_##T(uint64_t key, uint64_t first, int64_t blocks, void *to)                             \
    {                                                                                                        \
        enum { FEW = 4, EACH = sizeof(T) / 4 }; /* few: take less time one by one */                         \
        uint32_t w[4 * BLOCKS_AT_ONCE];                                                                      \
        T *d = to;                                                                                           \
        for (int64_t n; blocks > FEW; blocks -= n, first += (uint64_t)n, d += n * 4 / EACH) {                \
            some_blocks(key, first, w);                                                                      \
            n = blocks < BLOCKS_AT_ONCE ? blocks : BLOCKS_AT_ONCE;                                           \
            for (int64_t i = 0; i < n * 4 / EACH; i++)                                                       \
                d[i] = TO_##T(w, i * EACH);                                                                  \
        }                                                                                                    \
        for (; blocks > 0; blocks--, first++, d += 4 / EACH) {                                               \
            philox4x32_ctr_t one = mb__philox(key, first);                                                   \
            for (int i = 0; i < 4 / EACH; i++)                                                               \
                d[i] = TO_##T(one.v, i * EACH);                                                              \
        }                                                                                                    \
    }
DRAW(float)
DRAW(double)
DRAW(int32_t)

#endif
