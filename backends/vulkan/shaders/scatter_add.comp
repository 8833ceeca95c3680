#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 *
 * scatter_add.comp - out[before, index[i...], after] += in[before, i..., after]; an index beyond the ends means
 * the end. out is zero before the first dispatch. Macros: element.glsl.
 *
 * Entries of the index are added one after the other, in order, so that a sum is the same in every run. In
 * parallel are the other axes, and parts of the indexed one: an invocation sees all entries, and adds those
 * that fall into its part (the chosen position modulo parts). Ranges of entries may be dispatches of their own.
 * Any local size; groups past the end do nothing. Iterations of an invocation: last - first, times 1 +
 * index_rank where the index has more than one axis; and rank besides. Region:
 *
 *   0, 1    slot 0: in          2, 3    slot 1: index        4, 5    slot 2: out
 *   6       elements over the other axes (1 if there are none)
 *   7       parts: invocations are 6 times 7
 *   8, 9    first and last: entries [first, last) of the flattened index are added
 *   10      size of the axis of out that is indexed          11      its stride
 *   12..14  offsets of in, index, out, in elements from the value's first one
 *   15      rank of the index: 0 to 8                         16      rank of the other axes: 0 to 7
 *   17...   for each axis of the index, first the slowest: size, stride of in, stride of the index
 *           then for each other axis, first the slowest: size, stride of in, stride of out
 */
#include "common.glsl"
#include "element.glsl"

void main()
{
    uint rest = group_index() * gl_WorkGroupSize.x + gl_LocalInvocationIndex;
    uint others = param(6), parts = param(7);
    if (rest >= others * parts)
        return;
    uint part = rest / others;
    rest %= others;
    uint index_rank = param(15), rank = param(16);
    int from = int(BASE(0)) + iparam(12), to = int(BASE(2)) + iparam(14);
    int index_at = int(base_of(1)) + iparam(13);
    for (uint i = rank; i > 0; i--) {
        uint p = 14 + 3 * (index_rank + i), size = param(p);
        int x = int(rest % size);
        from += x * iparam(p + 1);
        to += x * iparam(p + 2);
        rest /= size;
    }
    uint in_block = block_of(0), index_block = block_of(1), out_block = block_of(2), last = param(9);
    int end = iparam(10) - 1, stride = iparam(11), in_stride = 0, index_stride = 0;
    if (index_rank > 0) {
        uint p = 14 + 3 * index_rank;
        in_stride = iparam(p + 1);
        index_stride = iparam(p + 2);
    }
    for (uint e = param(8); e < last; e++) {
        int in_at = from, at = index_at;
        if (index_rank < 2) {
            in_at += int(e) * in_stride;
            at += int(e) * index_stride;
        } else {
            uint left = e;
            for (uint i = index_rank; i > 0; i--) {
                uint p = 14 + 3 * i, size = param(p);
                int x = int(left % size);
                in_at += x * iparam(p + 1);
                at += x * iparam(p + 2);
                left /= size;
            }
        }
        int chosen = clamp(ints[index_block].at[at], 0, end);
        if (uint(chosen) % parts == part)
            DATA[out_block].at[to + chosen * stride] += DATA[in_block].at[in_at];
    }
}
