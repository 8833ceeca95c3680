#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 *
 * take.comp - out[before, i..., after] = in[before, index[i...], after]; an index beyond the ends means the
 * end. An invocation copies an element: a word, two with the macro WIDE, a half with HAVE_HALF. Any local size; groups past the end
 * do nothing. Iterations of an invocation: rank. Region:
 *
 *   0, 1    slot 0: in          2, 3    slot 1: index        4, 5    slot 2: out
 *   6       elements of out     7       size of the axis of in that is indexed
 *   8       its stride in in    9..11   offsets of in, index, out, in elements from the value's first one
 *   12      rank of out: 0 to 8
 *   13...   for each axis of out, first the slowest: size, stride of in (0 for an axis of the index), stride of
 *           the index (0 for others), stride of out
 */
#include "common.glsl"

void main()
{
    uint rest = group_index() * gl_WorkGroupSize.x + gl_LocalInvocationIndex;
    if (rest >= param(6))
        return;
    ivec3 at = ivec3(iparam(9), iparam(10), iparam(11));
    for (uint i = param(12); i > 0; i--) {
        uint p = 9 + 4 * i, size = param(p);
        at += int(rest % size) * ivec3(iparam(p + 1), iparam(p + 2), iparam(p + 3));
        rest /= size;
    }
    int chosen = clamp(ints[block_of(1)].at[int(base_of(1)) + at.y], 0, iparam(7) - 1);
    int from = at.x + chosen * iparam(8), to = at.z;
    uint in_block = block_of(0), out_block = block_of(2);
    int in_base = int(base_of(0)), out_base = int(base_of(2));
#ifdef WIDE
    words[out_block].at[out_base + 2 * to] = words[in_block].at[in_base + 2 * from];
    words[out_block].at[out_base + 2 * to + 1] = words[in_block].at[in_base + 2 * from + 1];
#elif defined(HAVE_HALF)
    halves[out_block].at[out_base + to] = halves[in_block].at[in_base + from];
#else
    words[out_block].at[out_base + to] = words[in_block].at[in_base + from];
#endif
}
