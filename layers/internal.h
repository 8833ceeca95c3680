/* SPDX-License-Identifier: MIT
 *
 * internal.h - small helpers of the layers.
 */
#ifndef MB_LAYERS_INTERNAL_H
#define MB_LAYERS_INTERNAL_H

#include "layers/layers.h"
#include "tensor/door.h"
#include "tensor/half.h"
#include "tensor/wide.h"

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

/* A parameter for what is computed with x: float32 as the half that x is. The null tensor stays one. */
static inline mb_tensor mb__as(mb_tensor parameter, mb_tensor x)
{
    bool narrow = parameter.ctx && mb__halved(x) && mb_dtype_of(parameter) == MB_FLOAT32;
    return narrow ? mb_cast(parameter, mb_dtype_of(x)) : parameter;
}

/* A result after an error. */
static inline mb_tensor mb__failed(mb_context *ctx)
{
    return (mb_tensor){ctx, 0, 0};
}

/* What a layer is applied to: its arguments and its parameters, with their names. */
typedef struct mb__operand {
    const char *name;
    mb_tensor t;
    int how; /* of the following ones together */
} mb__operand;
enum {
    MB__NEEDED = 0,
    MB__OPTIONAL = 1, /* may be no tensor */
    MB__ALIKE = 2,    /* has the dtype of the first */
    MB__NUMBERS = 4,  /* has it too, or float32 beside a half */
};

/* Whether all of them can be computed with. If not, what is missing, stale or of another dtype is told, and
 * *refused is the layer's result. Messages begin with `layer`. */
bool mb__operands(const char *layer, const mb__operand *list, int n, mb_tensor *refused);
/* Of the first that has one: where a mistake is told. */
mb_context *mb__context_among(const mb__operand *list, int n);

/* The beginning of a layer's apply: MB_SITE, and all operands, or return. */
#define MB__APPLY(site, layer, ...)                                                                          \
    const mb__operand operands_[] = {__VA_ARGS__};                                                           \
    const int operand_count_ = (int)(sizeof operands_ / sizeof *operands_);                                  \
    MB_SITE(mb__context_among(operands_, operand_count_), site);                                             \
    mb_tensor refused_;                                                                                      \
    if (!mb__operands(layer, operands_, operand_count_, &refused_))                                          \
    return refused_

/* Writes a tensor's shape to `out` for a message: "[25,3,4]". */
#define MB__SHAPE_TEXT 192
const char *mb__shape(char out[MB__SHAPE_TEXT], mb_tensor t);

/* Checks x: [B,N,dim]. Messages begin with `layer`. */
bool mb__check_tokens(mb_tensor x, int64_t dim, const char *layer);

/* Reports a size below 1, or heads that do not divide dim. For constructors. */
bool mb__check_heads(mb_params *p, const char *layer, int64_t dim, int64_t heads);

#endif
