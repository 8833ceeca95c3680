/* SPDX-License-Identifier: MIT
 * leaves.c - literals, scalars bound at each run, data, iota; and second identities of a value. */
#include "tensor/internal.h"

/* Whether the dtype has the value; a bool is made 0 or 1. Nothing is rounded to an integer silently. */
static bool representable(mb_context *ctx, mb_dtype dtype, double *value)
{
    if (dtype == MB_BOOL)
        *value = *value != 0;
    double least = dtype == MB_INT32   ? INT32_MIN
                   : dtype == MB_INT64 ? -0x1p53
                                       : 0,
           most = dtype == MB_INT32   ? INT32_MAX
                  : dtype == MB_INT64 ? 0x1p53
                                      : 255;
    if (mb__is_float((int)dtype) || dtype == MB_BOOL ||
        (*value >= least && *value <= most && *value == (double)(int64_t)*value))
        return true;
    mb__error(ctx, MB_INVALID, "number: got %g for an %s; wanted a whole number from %.0f to %.0f", *value,
              mb_dtype_name(dtype), least, most);
    return false;
}

mb_tensor mb__const(mb_context *ctx, mb_dtype dtype, double value)
{
    if (!representable(ctx, dtype, &value))
        return mb__poison(ctx);
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return mb__record(ctx, MB_OP_CONST, dtype, 0, NULL, NULL, 0, &bits, 1);
}

mb_tensor mb_scalar_at(const char *site, mb_context *ctx, mb_dtype dtype, double value)
{
    MB_SITE(ctx, site);
    if (!mb__enter_context("scalar", ctx) || !mb__check_shape(ctx, "scalar", dtype, MB_SHAPE0) ||
        !representable(ctx, dtype, &value))
        return mb__poison(ctx);
    mb_tensor t = mb__record(ctx, MB_OP_SCALAR, dtype, 0, NULL, NULL, 0, NULL, 0);
    if (t.id)
        ctx->nodes[t.id].bind.scalar = value;
    return t;
}

mb_tensor mb_from_at(const char *site, mb_context *ctx, mb_dtype dtype, mb_shape shape, const void *data)
{
    MB_SITE(ctx, site);
    if (!mb__enter_context("from", ctx) || !mb__check_shape(ctx, "from", dtype, shape))
        return mb__poison(ctx);
    int64_t count = mb__numel(shape.dim, shape.rank);
    if (!data && count) {
        mb__error(ctx, MB_INVALID, "from: no data");
        return mb__poison(ctx);
    }
    mb_tensor t = mb__record(ctx, MB_OP_BUFFER, dtype, shape.rank, shape.dim, NULL, 0, NULL, 0);
    if (!t.id)
        return t;
    mb__buffer *b = ctx->engine->buffer(ctx, dtype, count);
    if (!b) {
        ctx->nodes[t.id].dead = true;
        return mb__poison(ctx);
    }
    ctx->nodes[t.id].value = b;
    if (ctx->engine->upload(ctx, b, dtype, count, data) != MB_OK)
        return mb__poison(ctx);
    return t;
}

mb_tensor mb_from_bytes_at(const char *site, mb_context *ctx, mb_dtype dtype, mb_shape shape,
                           const void *data, size_t bytes)
{
    MB_SITE(ctx, site);
    if (!mb__enter_context("from_bytes", ctx) || !mb__check_shape(ctx, "from_bytes", dtype, shape))
        return mb__poison(ctx);
    size_t want = (size_t)mb__numel(shape.dim, shape.rank) * mb_dtype_size(dtype);
    char text[128];
    if (bytes != want) {
        mb__error(ctx, MB_INVALID, "from_bytes: got %zu bytes; %s %s has %zu", bytes,
                  mb__shape_text(text, sizeof text, shape.dim, shape.rank), mb_dtype_name(dtype), want);
        return mb__poison(ctx);
    }
    return mb_from(ctx, dtype, shape, data);
}

mb_tensor mb_iota_at(const char *site, mb_context *ctx, mb_dtype dtype, int64_t n)
{
    MB_SITE(ctx, site);
    if (!mb__enter_context("iota", ctx) || !mb__check_shape(ctx, "iota", dtype, MB_SHAPE(n)))
        return mb__poison(ctx);
    if (dtype == MB_BOOL || dtype == MB_UINT8 || n > INT32_MAX) {
        mb__error(ctx, MB_INVALID, "iota: got %lld values of %s; wanted numbers, fewer than 2^31",
                  (long long)n, mb_dtype_name(dtype));
        return mb__poison(ctx);
    }
    return mb__record(ctx, MB_OP_IOTA, dtype, 1, &n, NULL, 0, NULL, 0);
}

mb_tensor mb_alias_at(const char *site, mb_tensor x)
{
    MB_ENTER(site, "alias", &x);
    int64_t dim[MB_MAX_RANK];
    const mb__node *n = mb__at(ctx, x.id);
    memcpy(dim, n->dim, sizeof dim);
    return mb__record(ctx, MB_OP_ALIAS, (mb_dtype)n->dtype, n->rank, dim, &x, 1, NULL, 0);
}

mb_tensor mb__substitute(mb_tensor value, mb_tensor formula)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter("substitute", (const mb_tensor *[]){&value, &formula}, 2, &poison);
    if (!ctx)
        return poison;
    int64_t dim[MB_MAX_RANK];
    const mb__node *n = mb__at(ctx, formula.id);
    memcpy(dim, n->dim, sizeof dim);
    return mb__record(ctx, MB_OP_SUBSTITUTE, (mb_dtype)n->dtype, n->rank, dim, (mb_tensor[]){value, formula},
                      2, NULL, 0);
}

mb_tensor mb_stop_gradient_at(const char *site, mb_tensor x)
{
    MB_ENTER(site, "stop_gradient", &x);
    int64_t dim[MB_MAX_RANK];
    const mb__node *n = mb__at(ctx, x.id);
    memcpy(dim, n->dim, sizeof dim);
    return mb__record(ctx, MB_OP_STOP, (mb_dtype)n->dtype, n->rank, dim, &x, 1, NULL, 0);
}
