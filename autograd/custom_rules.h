/* SPDX-License-Identifier: MIT
 * custom_rules.h - rules of the user's, as the sweeps come to them. Private to autograd/. */
#ifndef MB_CUSTOM_RULES_H
#define MB_CUSTOM_RULES_H

#include "autograd/scan_rules.h"

/* How many operands of a CUSTOM node are values, which derivatives do not go by; the others are its xs. */
static inline int mb__custom_values(const mb_context *ctx, const mb__node *n)
{
    return (int)mb__attrs(ctx, n)[0];
}

/* values: the cotangent of each value, 0 where there is none. gradients: those of the xs, or 0. */
mb_status mb__custom_reverse(mb_context *ctx, uint32_t custom, const mb__sweeps *sweeps,
                             const uint32_t *values, uint32_t *gradients);
/* tangents: of the xs, or 0; values: those of the values. lead >= 0: of that many directions, along a first
 * axis. */
mb_status mb__custom_forward(mb_context *ctx, uint32_t custom, const mb__sweeps *sweeps,
                             const uint32_t *tangents, int64_t lead, uint32_t *values);

#endif
