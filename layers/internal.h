/* SPDX-License-Identifier: MIT
 *
 * internal.h - small helpers of the layers.
 */
#ifndef MB_LAYERS_INTERNAL_H
#define MB_LAYERS_INTERNAL_H

#include "layers/layers.h"
#include "tensor/door.h"
#include "tensor/half.h"

/* The largest size of an axis of a layer: sums and products of a few such sizes fit int64_t, and larger
 * weights would not fit memory. */
#define MB_SIZE_MAX ((int64_t)1 << 31)

/* A 0-d literal of t's dtype. */
static inline mb_tensor mb__literal(mb_tensor t, double value)
{
    return mb_full(t.ctx, mb_dtype_of(t), MB_SHAPE0, value);
}

static inline bool mb__is_floats(mb_dtype dtype)
{
    return dtype == MB_FLOAT32 || dtype == MB_FLOAT64 || mb__is_half((int)dtype);
}

static inline bool mb__is_half_tensor(mb_tensor x)
{
    return mb_valid(x) && mb__is_half((int)mb_dtype_of(x));
}

/* A parameter for what is computed with x: float32 as the half that x is. The null tensor stays one. */
static inline mb_tensor mb__as(mb_tensor parameter, mb_tensor x)
{
    bool narrow = parameter.ctx && mb__is_half_tensor(x) && mb_dtype_of(parameter) == MB_FLOAT32;
    return narrow ? mb_cast(parameter, mb_dtype_of(x)) : parameter;
}

/* Whether a layer can be applied to x: not if x is null, stale or poisoned. The layer then returns
 * mb__refused. */
static inline bool mb__usable(mb_tensor x)
{
    return x.ctx && mb_valid(x);
}

/* A poisoned result; an op on x reports what is wrong with x, unless there is an error already. */
static inline mb_tensor mb__refused(mb_tensor x)
{
    return mb_valid(x) ? (mb_tensor){0} : mb_alias(x);
}

/* Writes a tensor's shape to `out` for a message: "[25,3,4]". */
#define MB__SHAPE_TEXT 192
const char *mb__shape(char out[MB__SHAPE_TEXT], mb_tensor t);

/* Checks x: [B,N,dim]. Messages begin with `layer`. */
bool mb__check_tokens(mb_tensor x, int64_t dim, const char *layer);

/* Reports a size below 1, or heads that do not divide dim. For constructors. */
bool mb__check_heads(mb_params *p, const char *layer, int64_t dim, int64_t heads);

#endif
