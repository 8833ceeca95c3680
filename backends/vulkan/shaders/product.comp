#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 *
 * product.comp - matrix products: c[batch, m, n] = sum over the reduce loops and k of a[batch, ., m, k] b[batch,
 * ., k, n], each operand by strides (mb__product of plan.h). One source, built several times:
 *
 *   macros                            work of a group                             local size    shared bytes
 *   PLAIN TM=1 TN=1                   one element of c an invocation              any           0
 *   PLAIN TM=4 TN=4                   4x4 elements an invocation                  any           0
 *   LANES ROWS=2                      (2 lanes) x (4 lanes) elements              the subgroup  0
 *   TILE BM=32 BN=32 BK=16 TM=4 TN=4  32x32 elements, 4x4 an invocation           64            4608
 *   TILE BM=64 BN=64 BK=16 TM=8 TN=4  64x64 elements, 8x4 an invocation           128           8704
 *   TILE BM=128 BN=128 BK=8 TM=8 TN=8 128x128 elements, 8x8 an invocation         256           8448
 *   and with HAVE_F64 and F64, for float64, where TILE holds twice the bytes:
 *   TILE BM=32 BN=32 BK=8 TM=4 TN=4   (64, 4608 bytes),   TILE BM=64 BN=64 BK=8 TM=8 TN=4 (128, 8704 bytes)
 *
 * PLAIN is for matrices of a few elements, and where nothing else runs; LANES for processors; TILE for the
 * rest. TILE keeps TM TN sums an invocation, TM + TN factors, and what it fetches ahead: about 40, 70 and 110
 * registers, of which twice as many for float64.
 *
 * Region: slots 0, 1, 2 are a, b, c; then the words below.
 *
 * Specialization constant 2 says how a may be read, 3 how b may be read and, plus 4, that c may be written by
 * fours (TILE and LANES; PLAIN ignores them):
 *   0  any strides; best where k is next to k (a_k or b_k is 1)
 *   1  any strides; best where m is next to m (a_m is 1) or n next to n (b_n is 1)
 *   2  by fours along m or n: a_m (b_n) is 1, base, offset and every other stride are multiples of 4 elements,
 *      and so is m (n)
 *   3  by fours along k (LANES only): a_k (b_k) is 1, base, offset and every other stride are multiples of 4
 *      elements, and so is k
 *   c by fours: c_n is 1; base, offset, n, split_stride and every other stride are multiples of 4 elements.
 */
#include "common.glsl"

const uint P_M = 6, P_N = 7, P_K = 8;
const uint P_A_OFFSET = 9, P_B_OFFSET = 10, P_C_OFFSET = 11; /* elements from the values' first ones */
const uint P_A_M = 12, P_A_K = 13, P_B_K = 14, P_B_N = 15, P_C_M = 16, P_C_N = 17; /* strides, signed */
const uint P_BATCH_LOOPS = 18, P_REDUCE_LOOPS = 19;
const uint P_SPLITS = 20;       /* pieces of the reduction, each with a result of its own ... */
const uint P_SPLIT_STRIDE = 21; /* ... so many elements of c after the one before */
const uint P_BATCH = 22;        /* elements of the batch: the product of the sizes of its loops */
const uint P_LOOPS = 23;        /* batch loops, then reduce loops; for each: size, stride of a, of b, of c */

layout(constant_id = 2) const uint A_READ = 0;
layout(constant_id = 3) const uint B_READ_C_WRITE = 0;
const uint B_READ = B_READ_C_WRITE & 3u;
const bool C_FOURS = (B_READ_C_WRITE & 4u) != 0;

#ifdef F64
#define REAL double
#define REAL4 dvec4
#define REALS doubles
#define BASE(slot) (base_of(slot) >> 1)
layout(std430, set = 0, binding = 1) buffer Fours { dvec4 at[]; } fours[BLOCKS];
#else
#define REAL float
#define REAL4 vec4
#define REALS floats
#define BASE(slot) base_of(slot)
layout(std430, set = 0, binding = 1) buffer Fours { vec4 at[]; } fours[BLOCKS];
#endif

/* Where the element of a, b and c is that is number `index` of `count` loops, the last one the fastest. */
ivec3 loops_at(const uint first, const uint count, const uint index)
{
    ivec3 at = ivec3(0);
    uint rest = index;
    for (uint l = count; l > 0; l--) {
        uint p = P_LOOPS + 4 * (first + l - 1), size = param(p);
        int i = int(rest % size);
        rest /= size;
        at += i * ivec3(iparam(p + 1), iparam(p + 2), iparam(p + 3));
    }
    return at;
}

uint reduce_count()
{
    uint count = 1, first = param(P_BATCH_LOOPS), loops = param(P_REDUCE_LOOPS);
    for (uint l = 0; l < loops; l++)
        count *= param(P_LOOPS + 4 * (first + l));
    return count;
}

/* First elements of a, b and c for an element of the batch and a split. */
ivec3 start_at(const uint batch, const uint split)
{
    ivec3 at = ivec3(int(BASE(0)), int(BASE(1)), int(BASE(2))) + loops_at(0, param(P_BATCH_LOOPS), batch);
    at += ivec3(iparam(P_A_OFFSET), iparam(P_B_OFFSET), iparam(P_C_OFFSET));
    at.z += int(split * param(P_SPLIT_STRIDE));
    return at;
}

#ifdef PLAIN
/* Invocations are numbered over (split, batch, tile of rows, tile of columns). Iterations of one: for each
 * element of the reduce loops 1 + reduce_loops + k / 4 + k % 4, and batch_loops + reduce_loops besides. */
void main()
{
    uint m = param(P_M), n = param(P_N), k = param(P_K), tiles_m = (m + TM - 1) / TM, tiles_n = (n + TN - 1) / TN;
    uint rest = group_index() * gl_WorkGroupSize.x + gl_LocalInvocationIndex;
    uint n0 = rest % tiles_n * TN;
    rest /= tiles_n;
    uint m0 = rest % tiles_m * TM;
    rest /= tiles_m;
    uint batch = rest % param(P_BATCH), split = rest / param(P_BATCH), splits = param(P_SPLITS);
    if (split >= splits)
        return;
    uint a_block = block_of(0), b_block = block_of(1), c_block = block_of(2);
    int a_m = iparam(P_A_M), a_k = iparam(P_A_K), b_k = iparam(P_B_K), b_n = iparam(P_B_N);
    ivec3 start = start_at(batch, split);
    /* Rows and columns past the end read the last one again. */
    int a_row[TM], b_column[TN];
    [[unroll]] for (uint i = 0; i < TM; i++)
        a_row[i] = int(min(m0 + i, m - 1)) * a_m;
    [[unroll]] for (uint j = 0; j < TN; j++)
        b_column[j] = int(min(n0 + j, n - 1)) * b_n;

    REAL sum[TM * TN];
    [[unroll]] for (uint i = 0; i < TM * TN; i++)
        sum[i] = 0;
#define STEP(KA, KB)                                                                                         \
    {                                                                                                        \
        REAL x[TM], y[TN];                                                                                   \
        [[unroll]] for (uint i = 0; i < TM; i++)                                                             \
            x[i] = REALS[a_block].at[ka + a_row[i] + (KA)];                                                  \
        [[unroll]] for (uint j = 0; j < TN; j++)                                                             \
            y[j] = REALS[b_block].at[kb + b_column[j] + (KB)];                                               \
        [[unroll]] for (uint i = 0; i < TM; i++)                                                             \
            [[unroll]] for (uint j = 0; j < TN; j++)                                                         \
                sum[i * TN + j] += x[i] * y[j];                                                              \
    }
    uint total = reduce_count() * k, share = ((total + splits - 1) / splits + 3) & ~3u;
    uint at = min(split * share, total), last = min(at + share, total);
    uint r = k > 0 ? at / k : 0, k0 = k > 0 ? at % k : 0;
    while (at < last) {
        ivec3 o = start + loops_at(param(P_BATCH_LOOPS), param(P_REDUCE_LOOPS), r);
        uint steps = min(k - k0, last - at);
        int ka = o.x + int(k0) * a_k, kb = o.y + int(k0) * b_k;
        for (uint s = steps >> 2; s > 0; s--) {
            STEP(0, 0)
            STEP(a_k, b_k)
            STEP(2 * a_k, 2 * b_k)
            STEP(3 * a_k, 3 * b_k)
            ka += 4 * a_k;
            kb += 4 * b_k;
        }
        for (uint s = steps & 3u; s > 0; s--) {
            STEP(0, 0)
            ka += a_k;
            kb += b_k;
        }
        at += steps;
        k0 = 0;
        r++;
    }
    int c_m = iparam(P_C_M), c_n = iparam(P_C_N);
    [[unroll]] for (uint i = 0; i < TM; i++)
        [[unroll]] for (uint j = 0; j < TN; j++)
            if (m0 + i < m && n0 + j < n)
                REALS[c_block].at[start.z + int(m0 + i) * c_m + int(n0 + j) * c_n] = sum[i * TN + j];
}
#endif
