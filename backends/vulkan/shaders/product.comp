#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 *
 * product.comp - matrix products: c[batch, m, n] is the sum over the reduce loops and k of a[batch, reduce, m,
 * k] b[batch, reduce, k, n], each operand by strides (mb__product of plan.h). One source, built several times:
 *
 *   macros                            work of a group                             local size    shared bytes
 *   PLAIN TM=1 TN=1                   one element of c an invocation              any           0
 *   PLAIN TM=4 TN=4                   4x4 elements an invocation                  any           0
 *   LANES ROWS=2                      (2 lanes) x (4 lanes) elements              the subgroup  0
 *   LANES ROWS=1                      lanes x (4 lanes) elements, for few rows    the subgroup  0
 *   TILE BM=32 BN=32 BK=16 TM=4 TN=4  32x32 elements, 4x4 an invocation           64            4608
 *   TILE BM=64 BN=64 BK=16 TM=8 TN=4  64x64 elements, 8x4 an invocation           128           8704
 *   TILE BM=128 BN=128 BK=8 TM=8 TN=8 128x128 elements, 8x8 an invocation         256           8448
 *   and with HAVE_F64 and F64, for float64, where TILE holds twice the bytes:
 *   TILE BM=32 BN=32 BK=8 TM=4 TN=4   (64, 4608 bytes),   TILE BM=64 BN=64 BK=8 TM=8 TN=4 (128, 8704 bytes)
 *   with HAVE_HALF operands are halves and sums float32: constant 3 says by 8 that they are bfloat16, else
 *   float16, and by 16 that c is rounded to such halves, else it is float32
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
#ifdef LANES
#extension GL_KHR_shader_subgroup_basic : enable
#extension GL_KHR_shader_subgroup_shuffle : enable
#endif
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
const bool C_FOURS = (B_READ_C_WRITE & 4u) != 0, BRAIN = (B_READ_C_WRITE & 8u) != 0, ROUNDED = (B_READ_C_WRITE & 16u) != 0;

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
#ifdef HAVE_HALF
#include "half.glsl"
layout(std430, set = 0, binding = 1) buffer HalfFours { uvec2 at[]; } half_fours[BLOCKS];
float from_half(const uint h) { return BRAIN ? from_bf16(h) : from_f16(h); }
uint to_half(const float x) { return BRAIN ? to_bf16(round_bf16(x)) : to_f16(round_f16(x)); }
REAL get(const uint block, const int i) { return from_half(uint(halves[block].at[i])); }
REAL4 get4(const uint block, const int i)
{
    uvec2 h = half_fours[block].at[i >> 2];
    return REAL4(from_half(h.x & 0xffffu), from_half(h.x >> 16), from_half(h.y & 0xffffu), from_half(h.y >> 16));
}
void set(const uint block, const int i, const REAL x)
{
    if (ROUNDED)
        halves[block].at[i] = uint16_t(to_half(x));
    else
        floats[block].at[i] = x;
}
void set4(const uint block, const int i, const REAL4 x)
{
    if (ROUNDED)
        half_fours[block].at[i >> 2] =
            uvec2(to_half(x.x) | to_half(x.y) << 16, to_half(x.z) | to_half(x.w) << 16);
    else
        fours[block].at[i >> 2] = x;
}
#else
REAL get(const uint block, const int i) { return REALS[block].at[i]; }
REAL4 get4(const uint block, const int i) { return fours[block].at[i >> 2]; }
void set(const uint block, const int i, const REAL x) { REALS[block].at[i] = x; }
void set4(const uint block, const int i, const REAL4 x) { fours[block].at[i >> 2] = x; }
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
    uint m = param(P_M), n = param(P_N), k = param(P_K);
    uint tiles_m = (m + TM - 1) / TM, tiles_n = (n + TN - 1) / TN;
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
            x[i] = get(a_block, ka + a_row[i] + (KA));                                                  \
        [[unroll]] for (uint j = 0; j < TN; j++)                                                             \
            y[j] = get(b_block, kb + b_column[j] + (KB));                                               \
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
                set(c_block, start.z + int(m0 + i) * c_m + int(n0 + j) * c_n, sum[i * TN + j]);
}
#endif

#ifdef LANES
/* A group is one subgroup, of 4 lanes or more. On a processor a load costs as much as forty multiplications,
 * whether lanes read the same element or their own. So each is used often: a lane holds four columns of c in
 * every row of the tile; the lanes load different elements of a, and pass them round. Four k are a step; the
 * step past the end of k reads the last one again, as zeros.
 * Iterations: steps ceil(k / 4) for each element of the reduce loops, shared by the splits; for each of these
 * elements reduce_loops more, and batch_loops + reduce_loops besides. */
#define L gl_WorkGroupSize.x
void main()
{
    uint m = param(P_M), n = param(P_N), k = param(P_K), tiles_n = (n + 4 * L - 1) / (4 * L);
    uint lane = gl_LocalInvocationIndex, rest = group_index(), tiles_m = (m + ROWS * L - 1) / (ROWS * L);
    uint n0 = rest % tiles_n * (4 * L) + 4 * lane; /* of this lane */
    rest /= tiles_n;
    uint m0 = rest % tiles_m * (ROWS * L);
    rest /= tiles_m;
    uint batch = rest % param(P_BATCH), split = rest / param(P_BATCH), splits = param(P_SPLITS);
    if (split >= splits)
        return;
    uint a_block = block_of(0), b_block = block_of(1), c_block = block_of(2);
    int a_m = iparam(P_A_M), a_k = iparam(P_A_K), b_k = iparam(P_B_K), b_n = iparam(P_B_N);
    ivec3 start = start_at(batch, split);
    /* Rows that are read along m are numbered by fours: of the numbers i L + lane, all fours at one k come
     * first, then all at the next. Otherwise lanes take neighbouring rows, and four k each. */
    const uint row_fours = ROWS * L / 4;
    int a_row[ROWS], b_column[4];
    [[unroll]] for (uint i = 0; i < ROWS; i++) {
        uint f = i * L + lane;
        a_row[i] = int(A_READ == 2 ? min(m0 + f % row_fours * 4, m - 4) : min(m0 + f, m - 1)) * a_m;
    }
    [[unroll]] for (uint j = 0; j < 4; j++)
        b_column[j] = int(B_READ == 2 ? min(n0, n - 4) : min(n0 + j, n - 1)) * b_n;

    REAL4 sum[ROWS * L];
    [[unroll]] for (uint i = 0; i < ROWS * L; i++)
        sum[i] = REAL4(0);
    uint row_steps = (k + 3) / 4, total = reduce_count() * row_steps;
    uint share = (total + splits - 1) / splits;
    uint at = min(split * share, total), last = min(at + share, total);
    uint r = at / max(row_steps, 1), k0 = 4 * (at % max(row_steps, 1));
    ivec3 o = start + loops_at(param(P_BATCH_LOOPS), param(P_REDUCE_LOOPS), r);
    [[dont_unroll]] for (; at < last; at++) {
        uint more = min(k - k0, 4);
        int ka = o.x + int(k0) * a_k, kb = o.y + int(k0) * b_k;
        REAL4 a[ROWS], b[4];
        [[unroll]] for (uint i = 0; i < ROWS; i++) {
            int p = ka + a_row[i];
            if (A_READ == 3) {
                a[i] = get4(a_block, p);
            } else if (A_READ == 2) {
                uint u = (i * L + lane) / row_fours;
                a[i] = get4(a_block, p + int(min(u, more - 1)) * a_k);
                a[i] = u < more ? a[i] : REAL4(0);
            } else {
                [[unroll]] for (uint u = 0; u < 4; u++) {
                    a[i][u] = get(a_block, p + int(min(u, more - 1)) * a_k);
                    a[i][u] = u < more ? a[i][u] : REAL(0);
                }
            }
        }
        if (B_READ == 3) {
            REAL4 t[4];
            [[unroll]] for (uint j = 0; j < 4; j++)
                t[j] = get4(b_block, kb + b_column[j]);
            [[unroll]] for (uint u = 0; u < 4; u++)
                b[u] = REAL4(t[0][u], t[1][u], t[2][u], t[3][u]);
        } else {
            [[unroll]] for (uint u = 0; u < 4; u++) {
                int p = kb + int(min(u, more - 1)) * b_k;
                if (B_READ == 2)
                    b[u] = get4(b_block, p + b_column[0]);
                else
                    b[u] = REAL4(get(b_block, p + b_column[0]), get(b_block, p + b_column[1]),
                                 get(b_block, p + b_column[2]), get(b_block, p + b_column[3]));
                b[u] = u < more ? b[u] : REAL4(0);
            }
        }
        [[unroll]] for (uint u = 0; u < 4; u++)
            [[unroll]] for (uint i = 0; i < ROWS; i++)
                [[unroll]] for (uint j = 0; j < L; j++) {
                    REAL x;
                    if (A_READ == 2) {
                        uint f = u * row_fours + (i * L + j) / 4;
                        x = subgroupShuffle(a[f / L][j & 3u], f % L);
                    } else {
                        x = subgroupShuffle(a[i][u], j);
                    }
                    sum[i * L + j] += x * b[u];
                }
        k0 += 4;
        if (k0 >= k) {
            k0 = 0;
            r++;
            o = start + loops_at(param(P_BATCH_LOOPS), param(P_REDUCE_LOOPS), r);
        }
    }
    int c_m = iparam(P_C_M), c_n = iparam(P_C_N), c_at = start.z + int(n0) * c_n;
    [[unroll]] for (uint i = 0; i < ROWS * L; i++) {
        int p = c_at + int(m0 + i) * c_m;
        if (C_FOURS) {
            if (m0 + i < m && n0 < n)
                set4(c_block, p, sum[i]);
        } else {
            [[unroll]] for (uint j = 0; j < 4; j++)
                if (m0 + i < m && n0 + j < n)
                    set(c_block, p + int(j) * c_n, sum[i][j]);
        }
    }
}
#endif

#ifdef TILE
/* A group computes BM x BN elements of c. Steps of BK: a and b go to shared memory, by fours along m and n and
 * with a four to spare in each row, so that no two invocations of eight meet in a bank when they store fours
 * of successive k; the next step's factors are fetched meanwhile. An invocation has TM x TN elements in fours,
 * BM and BN / TN apart. In 32 invocations, 8 lie along n and 4 along m: their reads of a step are fewest.
 * Iterations: steps ceil(k / BK) for each element of the reduce loops, shared by the splits, each step 1 + BK;
 * for each of these elements reduce_loops more, and batch_loops + reduce_loops besides. */
const uint THREADS_M = BM / TM, THREADS_N = BN / TN, THREADS = THREADS_M * THREADS_N;
const uint A_FOURS = BM / 4, B_FOURS = BN / 4; /* in a row of k */
const uint A_EACH = (A_FOURS * BK + THREADS - 1) / THREADS, B_EACH = (B_FOURS * BK + THREADS - 1) / THREADS;
shared REAL4 a_shared[BK * (A_FOURS + 1)], b_shared[BK * (B_FOURS + 1)];

void main()
{
    uint m = param(P_M), n = param(P_N), k = param(P_K);
    uint tiles_n = (n + BN - 1) / BN, tiles_m = (m + BM - 1) / BM;
    uint lane = gl_LocalInvocationIndex, rest = group_index();
    uint n0 = rest % tiles_n * BN;
    rest /= tiles_n;
    uint m0 = rest % tiles_m * BM;
    rest /= tiles_m;
    uint batch = rest % param(P_BATCH), split = rest / param(P_BATCH), splits = param(P_SPLITS);
    if (split >= splits)
        return;
    uint a_block = block_of(0), b_block = block_of(1), c_block = block_of(2);
    int a_m = iparam(P_A_M), a_k = iparam(P_A_K), b_k = iparam(P_B_K), b_n = iparam(P_B_N);
    ivec3 start = start_at(batch, split);

    /* The fours that this invocation brings: their row of k, and place in it. Neighbours go along memory. */
    uint a_kk[A_EACH], a_four[A_EACH], b_kk[B_EACH], b_four[B_EACH];
    [[unroll]] for (uint i = 0; i < A_EACH; i++) {
        uint f = i * THREADS + lane;
        a_kk[i] = A_READ == 0 ? f % BK : f / A_FOURS;
        a_four[i] = A_READ == 0 ? f / BK : f % A_FOURS;
    }
    [[unroll]] for (uint i = 0; i < B_EACH; i++) {
        uint f = i * THREADS + lane;
        b_kk[i] = B_READ == 0 ? f % BK : f / B_FOURS;
        b_four[i] = B_READ == 0 ? f / BK : f % B_FOURS;
    }
    uint w = lane >> 5, wide = THREADS_N / 8;
    uint tn = (lane & 7u) + w % wide * 8, tm = (lane >> 3 & 3u) + w / wide * 4;

    REAL4 sum[TM * TN / 4], a_next[A_EACH], b_next[B_EACH];
    [[unroll]] for (uint i = 0; i < TM * TN / 4; i++)
        sum[i] = REAL4(0);
    uint row_steps = (k + BK - 1) / BK, total = reduce_count() * row_steps;
    uint share = (total + splits - 1) / splits;
    uint at = min(split * share, total), last = min(at + share, total);
    uint r = at / max(row_steps, 1), k0 = BK * (at % max(row_steps, 1));
    ivec3 o = start + loops_at(param(P_BATCH_LOOPS), param(P_REDUCE_LOOPS), r);

    /* Beyond the matrix there are zeros. */
#define FETCH                                                                                                \
    [[unroll]] for (uint i = 0; i < A_EACH; i++) {                                                           \
        uint row = m0 + 4 * a_four[i], kk = k0 + a_kk[i];                                                    \
        int p = o.x + int(row) * a_m + int(kk) * a_k;                                                        \
        bool inside = kk < k && a_kk[i] < BK && a_four[i] < A_FOURS;                                         \
        a_next[i] = REAL4(0);                                                                                \
        if (A_READ == 2) {                                                                                   \
            if (inside && row < m)                                                                           \
                a_next[i] = get4(a_block, p);                                                       \
        } else {                                                                                             \
            [[unroll]] for (uint j = 0; j < 4; j++)                                                          \
                if (inside && row + j < m)                                                                   \
                    a_next[i][j] = get(a_block, p + int(j) * a_m);                                      \
        }                                                                                                    \
    }                                                                                                        \
    [[unroll]] for (uint i = 0; i < B_EACH; i++) {                                                           \
        uint column = n0 + 4 * b_four[i], kk = k0 + b_kk[i];                                                 \
        int p = o.y + int(column) * b_n + int(kk) * b_k;                                                     \
        bool inside = kk < k && b_kk[i] < BK && b_four[i] < B_FOURS;                                         \
        b_next[i] = REAL4(0);                                                                                \
        if (B_READ == 2) {                                                                                   \
            if (inside && column < n)                                                                        \
                b_next[i] = get4(b_block, p);                                                       \
        } else {                                                                                             \
            [[unroll]] for (uint j = 0; j < 4; j++)                                                          \
                if (inside && column + j < n)                                                                \
                    b_next[i][j] = get(b_block, p + int(j) * b_n);                                      \
        }                                                                                                    \
    }
    if (at < last) {
        FETCH
    }
    [[dont_unroll]] for (; at < last; at++) {
        [[unroll]] for (uint i = 0; i < A_EACH; i++)
            if (a_kk[i] < BK && a_four[i] < A_FOURS)
                a_shared[a_kk[i] * (A_FOURS + 1) + a_four[i]] = a_next[i];
        [[unroll]] for (uint i = 0; i < B_EACH; i++)
            if (b_kk[i] < BK && b_four[i] < B_FOURS)
                b_shared[b_kk[i] * (B_FOURS + 1) + b_four[i]] = b_next[i];
        barrier();
        k0 += BK;
        if (k0 >= k) {
            k0 = 0;
            r++;
            o = start + loops_at(param(P_BATCH_LOOPS), param(P_REDUCE_LOOPS), r);
        }
        if (at + 1 < last) {
            FETCH
        }
        for (uint kk = 0; kk < BK; kk++) {
            REAL4 x[TM / 4], y[TN / 4];
            [[unroll]] for (uint i = 0; i < TM / 4; i++)
                x[i] = a_shared[kk * (A_FOURS + 1) + tm + i * THREADS_M];
            [[unroll]] for (uint j = 0; j < TN / 4; j++)
                y[j] = b_shared[kk * (B_FOURS + 1) + tn + j * THREADS_N];
            [[unroll]] for (uint i = 0; i < TM; i++)
                [[unroll]] for (uint j = 0; j < TN / 4; j++)
                    sum[i * (TN / 4) + j] += x[i / 4][i & 3u] * y[j];
        }
        barrier();
    }
    int c_m = iparam(P_C_M), c_n = iparam(P_C_N);
    [[unroll]] for (uint i = 0; i < TM; i++)
        [[unroll]] for (uint j = 0; j < TN / 4; j++) {
            uint row = m0 + 4 * (tm + i / 4 * THREADS_M) + (i & 3u), column = n0 + 4 * (tn + j * THREADS_N);
            int p = start.z + int(row) * c_m + int(column) * c_n;
            if (C_FOURS) {
                if (row < m && column < n)
                    set4(c_block, p, sum[i * (TN / 4) + j]);
            } else {
                [[unroll]] for (uint v = 0; v < 4; v++)
                    if (row < m && column + v < n)
                        set(c_block, p + int(v) * c_n, sum[i * (TN / 4) + j][v]);
            }
        }
}
#endif
