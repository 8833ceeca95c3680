/* SPDX-License-Identifier: MIT
 *
 * rows.glsl - kernels that work along one axis: a row for each element of the others. Their region:
 *
 *   0, 1    slot 0: in          2, 3    slot 1: out
 *   4       rows                5       n, elements of a row
 *   6, 7    offset of in, of out, in elements from the value's first one
 *   8, 9    stride of in, of out along the row, signed
 *   10..13  the kernel's own
 *   14      rank of the rows: 0 to 7
 *   15...   for each of these axes, first the slowest: size, stride of in, of out
 */
#include "element.glsl"

const uint R_ROWS = 4, R_N = 5, R_OWN = 10;

/* First elements of a row of in and out. */
ivec2 row_at(const uint row)
{
    ivec2 at = ivec2(int(BASE(0)) + iparam(6), int(BASE_OUT) + iparam(7));
    uint rest = row;
    for (uint i = param(14); i > 0; i--) {
        uint p = 12 + 3 * i, size = param(p);
        at += int(rest % size) * ivec2(iparam(p + 1), iparam(p + 2));
        rest /= size;
    }
    return at;
}
ivec2 row_strides() { return ivec2(iparam(8), iparam(9)); }
