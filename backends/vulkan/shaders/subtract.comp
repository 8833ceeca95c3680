#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 *
 * subtract.comp - out -= a b for a of m rows and k columns, b of n columns; k at most M_BLOCK. Macros:
 * element.glsl. Region: matrices.glsl, and
 *
 *   17      1: of out only what does not lie above its diagonal
 *
 * Any local size. A group does a tile of TILE x TILE, of which it reads DEPTH columns of a and rows of b at a time.
 * Iterations of an invocation, with DEPTH columns each: 3 TILE DEPTH / local size and TILE TILE (DEPTH + 1) / local
 * size; rank.
 */
#include "matrices.glsl"

const uint TILE = 32, DEPTH = 16;
shared T left[TILE * (DEPTH + 1)], right[DEPTH * (TILE + 1)];

void main()
{
    uint m = param(M_SIZE_M), n = param(M_SIZE_N), size = param(M_SIZE_K), lane = gl_LocalInvocationIndex;
    uint down = (m + TILE - 1) / TILE, across = (n + TILE - 1) / TILE, group = group_of_all();
    uint matrix = group / (down * across), i0 = group / across % down * TILE, j0 = group % across * TILE;
    bool lower = param(M_OWN) != 0;
    if (matrix >= param(M_COUNT) || lower && j0 > i0)
        return; /* the whole group */
    ivec3 at = matrix_at(matrix);
    ivec2 sa = stride_of(0), sb = stride_of(1), so = stride_of(2);
    uint a = block_of(0), b = block_of(1), x = block_of(2);
    for (uint k0 = 0; k0 < size; k0 += DEPTH) {
        for (uint e = lane; e < TILE * DEPTH; e += gl_WorkGroupSize.x) {
            uint i = i0 + e / DEPTH, k = k0 + e % DEPTH;
            left[e / DEPTH * (DEPTH + 1) + e % DEPTH] =
                i < m && k < size ? DATA[a].at[at.x + int(i) * sa.x + int(k) * sa.y] : T(0);
        }
        for (uint e = lane; e < TILE * DEPTH; e += gl_WorkGroupSize.x) {
            uint k = k0 + e / TILE, j = j0 + e % TILE;
            right[e / TILE * (TILE + 1) + e % TILE] =
                j < n && k < size ? DATA[b].at[at.y + int(k) * sb.x + int(j) * sb.y] : T(0);
        }
        barrier();
        for (uint e = lane; e < TILE * TILE; e += gl_WorkGroupSize.x) {
            uint i = i0 + e / TILE, j = j0 + e % TILE;
            if (i >= m || j >= n || lower && j > i)
                continue;
            T sum = T(0);
            for (uint k = 0; k < DEPTH; k++)
                sum += left[e / TILE * (DEPTH + 1) + k] * right[k * (TILE + 1) + e % TILE];
            DATA[x].at[at.z + int(i) * so.x + int(j) * so.y] -= sum;
        }
        barrier();
    }
}
