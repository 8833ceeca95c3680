#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 *
 * substitute.comp - out = a^-1 b for a lower triangular a of k rows and columns, and n columns of b. Macros:
 * element.glsl. Region: matrices.glsl, and
 *
 *   17      1: the diagonal of a counts as ones
 *
 * Any local size. An invocation does a column, and reads what it wrote. Out may be b.
 * Iterations of one: k^2 / 2 + k, and rank.
 */
#include "matrices.glsl"

void main()
{
    uint work = group_of_all() * gl_WorkGroupSize.x + gl_LocalInvocationIndex, n = param(M_SIZE_N);
    uint size = param(M_SIZE_K);
    if (work / n >= param(M_COUNT))
        return;
    ivec3 at = matrix_at(work / n);
    ivec2 sa = stride_of(0), sb = stride_of(1), so = stride_of(2);
    at.y += int(work % n) * sb.y;
    at.z += int(work % n) * so.y;
    uint a = block_of(0), b = block_of(1), x = block_of(2);
    bool unit = param(M_OWN) != 0;
    for (uint i = 0; i < size; i++) {
        T rest = DATA[b].at[at.y + int(i) * sb.x];
        for (uint j = 0; j < i; j++)
            rest -= DATA[a].at[at.x + int(i) * sa.x + int(j) * sa.y] * DATA[x].at[at.z + int(j) * so.x];
        if (!unit)
            rest /= DATA[a].at[at.x + int(i) * (sa.x + sa.y)];
        DATA[x].at[at.z + int(i) * so.x] = rest;
    }
}
