#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 *
 * cumsum.comp - running sums, or maxima, of each row. Macros: element.glsl. Region: rows.glsl, and
 *
 *   10      lanes that share a row: a power of 2, at most the local size
 *   11      1: from the end; 2: maxima in place of sums, with one lane a row
 *   12, 13  first and last: elements [first, last) are done, counted from where the sums begin; those before
 *           first must have been
 *
 * Local size: a power of 2, at most 256. A group does local size / lanes rows; rows past the end are none.
 * One lane adds element after element. More take as many neighbouring elements at a time, whose sums double
 * their reach until they are complete, and go on from the last. Iterations of an invocation: last - first,
 * divided by lanes and times 1 + log2 lanes; and rank.
 */
#include "common.glsl"
#define BASE_OUT BASE(1)
#include "rows.glsl"

shared T sums[256];

void add(inout T sum, inout T lost, const T x)
{
    precise T y = x - lost, next = sum + y, error = (next - sum) - y;
    lost = error - error == T(0) ? error : T(0);
    sum = next;
}

void main()
{
    uint lane = gl_LocalInvocationIndex, lanes = param(R_OWN), n = param(R_N), i = lane % lanes;
    uint row = group_index() * (gl_WorkGroupSize.x / lanes) + lane / lanes, first = param(12), last = param(13);
    bool inside = row < param(R_ROWS);
    ivec2 at = row_at(inside ? row : 0), stride = row_strides();
    if (param(11) == 1) {
        at += int(n - 1) * stride;
        stride = -stride;
    }
    uint in_block = block_of(0), out_block = block_of(1);
    if (param(11) == 2) {
        T top = DATA[first > 0 ? out_block : in_block].at[first > 0 ? at.y + int(first - 1) * stride.y : at.x];
        for (uint j = first; j < last && inside; j++) {
            T x = DATA[in_block].at[at.x + int(j) * stride.x];
            top = before(key_of(top), key_of(x)) ? x : top;
            DATA[out_block].at[at.y + int(j) * stride.y] = top;
        }
        return;
    }
    T lost = T(0); /* what rounding took from the sum (Kahan); none of an infinite one */
    T sum = first > 0 ? DATA[out_block].at[at.y + int(first - 1) * stride.y] : T(0);
    if (lanes == 1) {
        for (uint j = first; j < last && inside; j++) {
            add(sum, lost, DATA[in_block].at[at.x + int(j) * stride.x]);
            DATA[out_block].at[at.y + int(j) * stride.y] = sum;
        }
        return;
    }
    for (uint j0 = first; j0 < last; j0 += lanes) {
        uint j = j0 + i;
        T x = j < last ? DATA[in_block].at[at.x + int(j) * stride.x] : T(0);
        sums[lane] = x;
        for (uint s = 1; s < lanes; s <<= 1) {
            barrier();
            T y = i >= s ? sums[lane - s] : T(0);
            barrier();
            x += y;
            sums[lane] = x;
        }
        barrier();
        if (inside && j < last)
            DATA[out_block].at[at.y + int(j) * stride.y] = sum + x;
        add(sum, lost, sums[lane - i + lanes - 1]);
        barrier();
    }
}
