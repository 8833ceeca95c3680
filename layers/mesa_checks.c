/* SPDX-License-Identifier: MIT
 *
 * mesa_checks.c - what the layers of mesa.h ask of their operands.
 */
#include "layers/mesa_checks.h"

#include <string.h>

bool mb__check_mesa(const char *layer, mb_tensor q, mb_tensor k, mb_tensor v, const mb_tensor *numbers, int n)
{
    mb_shape want = mb_shape_of(q), keys = mb_shape_of(k), values = mb_shape_of(v);
    size_t three = 3 * sizeof *want.dim;
    char text[4][MB__SHAPE_TEXT];
    if (want.rank != 4 || keys.rank != 4 || values.rank != 4 || memcmp(keys.dim, want.dim, three) != 0 ||
        keys.dim[3] != want.dim[3] || memcmp(values.dim, want.dim, three) != 0) {
        mb_fail(q.ctx, MB_INVALID, "%s: got q %s, k %s, v %s; wanted [B,H,N,dk] twice and [B,H,N,dv]", layer,
                mb__shape(text[0], q), mb__shape(text[1], k), mb__shape(text[2], v));
        return false;
    }
    for (int i = 0; i < n; i++) {
        mb_shape s = mb_shape_of(numbers[i]);
        if (numbers[i].ctx && (s.rank != 3 || memcmp(s.dim, want.dim, three) != 0)) {
            mb_fail(q.ctx, MB_INVALID, "%s: %s has shape %s beside q %s; wanted its first three axes", layer,
                    i ? "beta" : "log_forget", mb__shape(text[0], numbers[i]), mb__shape(text[1], q));
            return false;
        }
    }
    return true;
}
