/* SPDX-License-Identifier: MIT
 *
 * in_context.h - shared by linear_transformer.c and self_attention.c. Private to layers/.
 */
#ifndef MB_IN_CONTEXT_H
#define MB_IN_CONTEXT_H

#include "layers/internal.h"

static inline int64_t mb__at_least_one(int64_t n)
{
    return n ? n : 1;
}

/* Checks the sizes d, e, L and H of a layer. Messages begin with `layer`. */
bool mb__check_in_context(mb_context *ctx, const char *layer, int64_t dim, int64_t outputs, int64_t layers,
                          int64_t heads);

#endif
