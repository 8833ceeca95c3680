#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 *
 * triangle.comp - element by element, for m rows and n columns. Macros: element.glsl. Region: matrices.glsl, and
 *
 *   17      0  out = b
 *           1  out = the lower triangle of b, zeros above
 *           2  the lower triangle of out becomes NaN where the last element of its diagonal is; b is not used
 *
 * Any local size. Iterations of an invocation: rank.
 */
#include "matrices.glsl"

void main()
{
    uint work = group_of_all() * gl_WorkGroupSize.x + gl_LocalInvocationIndex, kind = param(M_OWN);
    uint m = param(M_SIZE_M), n = param(M_SIZE_N), i = work / n % m, j = work % n;
    if (work / n / m >= param(M_COUNT))
        return;
    ivec3 at = matrix_at(work / n / m);
    ivec2 sb = stride_of(1), so = stride_of(2);
    uint x = block_of(2);
    int to = at.z + int(i) * so.x + int(j) * so.y;
    if (kind < 2)
        DATA[x].at[to] = kind == 1 && j > i ? T(0) : DATA[block_of(1)].at[at.y + int(i) * sb.x + int(j) * sb.y];
    else if (j <= i && is_nan(DATA[x].at[at.z + int(m - 1) * (so.x + so.y)]))
        DATA[x].at[to] = NOT_A_NUMBER;
}
