#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 *
 * factor.comp - out = the Cholesky factor of b, of which the lower triangle is read; zeros above. Where a pivot
 * is not positive, NaN in the lower triangle. Macros: element.glsl. Region: matrices.glsl, with n rows and
 * columns, at most M_BLOCK, and
 *
 *   17      lanes that share a matrix: a power of 2, at least n; plus 256: where the element of out before the
 *           first one, on the diagonal, is NaN, so is all of this block
 *
 * Local size: a power of 2, at least `lanes`, so that local size times (lanes + 1) is at most SHARED. A lane has a
 * row; a column is done when all are, which takes two barriers.
 * Iterations of an invocation: 3 n^2 / 2 and rank.
 */
#include "matrices.glsl"

const uint SHARED = 1280;
shared T tile[SHARED];

void main()
{
    uint lanes = param(M_OWN) & 255u, lane = gl_LocalInvocationIndex, row = lane % lanes, n = param(M_SIZE_N);
    uint matrix = group_of_all() * (gl_WorkGroupSize.x / lanes) + lane / lanes;
    uint own = lane / lanes * lanes * (lanes + 1), mine = own + row * (lanes + 1);
    bool inside = matrix < param(M_COUNT);
    ivec3 at = matrix_at(inside ? matrix : 0);
    ivec2 from = stride_of(1), to = stride_of(2);
    uint from_block = block_of(1), to_block = block_of(2);
    bool bad = (param(M_OWN) & 256u) != 0 && is_nan(DATA[to_block].at[at.z - to.x - to.y]);
    for (uint e = row; e < n * n && inside; e += lanes)
        if (e % n <= e / n)
            tile[own + e / n * (lanes + 1) + e % n] =
                DATA[from_block].at[at.y + int(e / n) * from.x + int(e % n) * from.y];
    barrier();
    for (uint j = 0; j < n; j++) {
        uint other = own + j * (lanes + 1);
        T rest = T(0);
        if (row >= j && row < n) {
            rest = tile[mine + j];
            for (uint k = 0; k < j; k++)
                rest -= tile[mine + k] * tile[other + k];
        }
        if (row == j)
            tile[mine + j] = is_positive(rest) ? sqrt(rest) : NOT_A_NUMBER;
        barrier();
        T pivot = tile[other + j];
        bad = bad || is_nan(pivot);
        if (row > j && row < n)
            tile[mine + j] = rest / pivot;
        barrier();
    }
    for (uint e = row; e < n * n && inside; e += lanes) {
        T x = e % n > e / n ? T(0) : bad ? NOT_A_NUMBER : tile[own + e / n * (lanes + 1) + e % n];
        DATA[to_block].at[at.z + int(e / n) * to.x + int(e % n) * to.y] = x;
    }
}
