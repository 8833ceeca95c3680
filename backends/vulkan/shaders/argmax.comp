#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 *
 * argmax.comp - the place of the first largest element of each row, int32; NaN is the largest. Macros:
 * element.glsl. Region: rows.glsl, where n > 0 and the stride of out along the row is not used, and
 *
 *   10      lanes that share a row: a power of 2, at most the local size
 *
 * Local size: a power of 2, at most 256. A group does local size / lanes rows; rows past the end are none.
 * Iterations of an invocation: n / lanes, log2 lanes, and rank.
 */
#include "common.glsl"
#define BASE_OUT base_of(1)
#include "rows.glsl"

shared KEY keys[256];
shared uint places[256];

void main()
{
    uint lane = gl_LocalInvocationIndex, lanes = param(R_OWN), n = param(R_N), i = lane % lanes;
    uint row = group_index() * (gl_WorkGroupSize.x / lanes) + lane / lanes;
    bool inside = row < param(R_ROWS);
    ivec2 at = row_at(inside ? row : 0);
    int stride = row_strides().x;
    uint block = block_of(0);
    /* Lanes past the end of a short row begin with its last element, which is theirs to lose. */
    uint best = min(i, n - 1);
    KEY largest = key_of(DATA[block].at[at.x + int(best) * stride]);
    for (uint j = i + lanes; j < n; j += lanes) {
        KEY x = key_of(DATA[block].at[at.x + int(j) * stride]);
        if (before(largest, x)) {
            largest = x;
            best = j;
        }
    }
    keys[lane] = largest;
    places[lane] = best;
    for (uint s = lanes >> 1; s > 0; s >>= 1) {
        barrier();
        if (i < s) {
            KEY x = keys[lane + s];
            uint j = places[lane + s];
            if (before(largest, x) || !before(x, largest) && j < best) {
                largest = x;
                best = j;
                keys[lane] = x;
                places[lane] = j;
            }
        }
    }
    if (inside && i == 0)
        ints[block_of(1)].at[at.y] = int(best);
}
