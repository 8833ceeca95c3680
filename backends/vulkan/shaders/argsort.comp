#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 *
 * argsort.comp - the places of a row's elements in ascending order, int32; equal ones in the order in which
 * they stand, NaN last; or in descending order, NaN first. Macros: element.glsl. Region: rows.glsl, and
 *
 *   10      0  count: for rows that are not long. An invocation counts the elements that come before its
 *              own, and writes its place there. Invocations: rows n. Iterations of one: n, and rank.
 *           1  begin the merges: out = 0, 1, 2, ... Invocations: rows n.
 *           2  one pass of Batcher's merge exchange (Knuth, 5.2.2 M) with p and k: for p = 1, 2, 4, ... below
 *              n, for k = p, p / 2, ... 1. A pass is a dispatch. Invocations: rows ceil(n / 2k) k.
 *           3  end them: out = 0 from place p on. Invocations: rows n.
 *           and 4 where the order is descending
 *   11, 12  p and k; of 0, p: places from p on become 0
 *
 * Any local size; groups past the end do nothing.
 */
#include "common.glsl"
#define BASE_OUT base_of(1)
#include "rows.glsl"

bool first(const bool descending, const KEY a, const KEY b) { return descending ? before(b, a) : before(a, b); }

void main()
{
    uint work = group_index() * gl_WorkGroupSize.x + gl_LocalInvocationIndex;
    uint kind = param(R_OWN) & 3, p = param(R_OWN + 1), k = param(R_OWN + 2), n = param(R_N);
    uint each = kind == 2 ? (n + 2 * k - 1) / (2 * k) * k : n;
    uint row = work / each, i = work % each;
    if (row >= param(R_ROWS))
        return;
    ivec2 at = row_at(row), stride = row_strides();
    bool descending = (param(R_OWN) & 4) != 0;
    uint block = block_of(0), out_block = block_of(1);
    if (kind == 0) {
        KEY own = key_of(DATA[block].at[at.x + int(i) * stride.x]);
        uint count = 0;
        for (uint j = 0; j < n; j++) {
            KEY x = key_of(DATA[block].at[at.x + int(j) * stride.x]);
            count += first(descending, x, own) || j < i && !first(descending, own, x) ? 1 : 0;
        }
        ints[out_block].at[at.y + int(count) * stride.y] = count < p ? int(i) : 0;
    } else if (kind == 1) {
        ints[out_block].at[at.y + int(i) * stride.y] = int(i);
    } else if (kind == 3) {
        if (i >= p)
            ints[out_block].at[at.y + int(i) * stride.y] = 0;
    } else {
        /* Elements k apart, where both are in the same run of 2p. */
        uint low = k % p + i / k * (2 * k) + i % k, high = low + k;
        if (high < n && low / (2 * p) == high / (2 * p)) {
            int low_at = at.y + int(low) * stride.y, high_at = at.y + int(high) * stride.y;
            int a = ints[out_block].at[low_at], b = ints[out_block].at[high_at];
            KEY x = key_of(DATA[block].at[at.x + a * stride.x]), y = key_of(DATA[block].at[at.x + b * stride.x]);
            if (first(descending, y, x) || !first(descending, x, y) && b < a) {
                ints[out_block].at[low_at] = b;
                ints[out_block].at[high_at] = a;
            }
        }
    }
}
