/* SPDX-License-Identifier: MIT
 * leaves.c - literals, bound scalars, data, counters, random numbers. */
#include "tensor/tape.h"

static bool check_shape(mb_context *ctx, const char *where, const char *op, mb_dtype dtype, mb_shape shape)
{
    if (shape.rank < 0 || shape.rank > MB_MAX_RANK) {
        mb__error(ctx, MB_INVALID, where, "%s: got rank %d; wanted at most %d", op, shape.rank, MB_MAX_RANK);
        return false;
    }
    if ((unsigned)dtype > MB_BOOL) {
        mb__error(ctx, MB_INVALID, where, "%s: %d is not a dtype", op, (int)dtype);
        return false;
    }
    int64_t count = 1;
    bool empty = false, fits = true;
    for (int i = 0; i < shape.rank; i++) {
        if (shape.dim[i] < 0) {
            mb__error(ctx, MB_INVALID, where, "%s: size %lld of axis %d is negative", op,
                      (long long)shape.dim[i], i);
            return false;
        }
        empty |= shape.dim[i] == 0;
        fits = fits && !__builtin_mul_overflow(count, shape.dim[i], &count);
    }
    if (!empty && (!fits || count > INT64_MAX / 16)) {
        mb__error(ctx, MB_INVALID, where, "%s: the result has too many elements", op);
        return false;
    }
    return true;
}

/* A number must be one of its dtype's: nothing is rounded to an int32 behind the caller's back. */
static bool representable(mb_context *ctx, const char *where, mb_dtype dtype, double *value)
{
    if (dtype == MB_BOOL)
        *value = *value != 0;
    if (dtype != MB_INT32 ||
        (*value >= INT32_MIN && *value <= INT32_MAX && *value == (double)(int32_t)*value))
        return true;
    mb__error(ctx, MB_INVALID, where, "number: got %g for an int32; wanted a whole number within 32 bits",
              *value);
    return false;
}

mb_tensor mb__const(mb_context *ctx, const char *where, mb_dtype dtype, double value)
{
    if (!representable(ctx, where, dtype, &value))
        return mb__poison(ctx);
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return mb__record(ctx, where, MB_OP_CONST, dtype, 0, NULL, NULL, 0, &bits, 1);
}

mb_tensor mb_scalar_at(const char *where, mb_context *ctx, mb_dtype dtype, double value)
{
    if (!mb__enter_context(where, "scalar", ctx) || !check_shape(ctx, where, "scalar", dtype, MB_SHAPE0) ||
        !representable(ctx, where, dtype, &value))
        return mb__poison(ctx);
    mb_tensor t = mb__record(ctx, where, MB_OP_SCALAR, dtype, 0, NULL, NULL, 0, NULL, 0);
    if (t.id)
        ctx->nodes[t.id].bind.scalar = value;
    return t;
}

mb_tensor mb_full_at(const char *where, mb_context *ctx, mb_dtype dtype, mb_shape shape, double value)
{
    if (!mb__enter_context(where, "full", ctx) || !check_shape(ctx, where, "full", dtype, shape))
        return mb__poison(ctx);
    mb_tensor t = mb__const(ctx, where, dtype, value);
    return shape.rank && t.id ? mb_broadcast_at(where, t, shape) : t;
}

mb_tensor mb_from_at(const char *where, mb_context *ctx, mb_dtype dtype, mb_shape shape, const void *data)
{
    if (!mb__enter_context(where, "from", ctx) || !check_shape(ctx, where, "from", dtype, shape))
        return mb__poison(ctx);
    int64_t count = mb__numel(shape.dim, shape.rank);
    if (!data && count) {
        mb__error(ctx, MB_INVALID, where, "from: no data");
        return mb__poison(ctx);
    }
    mb_tensor t = mb__record(ctx, where, MB_OP_BUFFER, dtype, shape.rank, shape.dim, NULL, 0, NULL, 0);
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

mb_tensor mb_iota_at(const char *where, mb_context *ctx, mb_dtype dtype, int64_t n)
{
    if (!mb__enter_context(where, "iota", ctx) || !check_shape(ctx, where, "iota", dtype, MB_SHAPE(n)))
        return mb__poison(ctx);
    if (dtype == MB_BOOL || n > INT32_MAX) {
        mb__error(ctx, MB_INVALID, where, "iota: got %lld values of %s; wanted numbers, fewer than 2^31",
                  (long long)n, mb_dtype_name(dtype));
        return mb__poison(ctx);
    }
    return mb__record(ctx, where, MB_OP_IOTA, dtype, 1, &n, NULL, 0, NULL, 0);
}

mb_tensor mb_tril_mask_at(const char *where, mb_context *ctx, int64_t rows, int64_t columns, int64_t diagonal)
{
    const char *call = mb__call_begin(ctx, "tril_mask");
    mb_tensor r = mb_iota_at(where, ctx, MB_INT32, rows), c = mb_iota_at(where, ctx, MB_INT32, columns);
    mb_tensor limit = mb_add_at(where, mb_unsqueeze_at(where, r, 1),
                                mb_full_at(where, ctx, MB_INT32, MB_SHAPE0, (double)diagonal));
    return mb__call_end(ctx, call, mb_le_at(where, c, limit));
}

mb_tensor mb_eye_at(const char *where, mb_context *ctx, mb_dtype dtype, int64_t n)
{
    const char *call = mb__call_begin(ctx, "eye");
    mb_tensor i = mb_iota_at(where, ctx, MB_INT32, n);
    return mb__call_end(ctx, call,
                        mb_cast_at(where, mb_eq_at(where, mb_unsqueeze_at(where, i, 1), i), dtype));
}

/* ---- random numbers ---- */

/* SplitMix64's finaliser (Steele, Lea, Flood 2014): spreads every input bit over the key. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

mb_key mb_key_of(uint64_t seed)
{
    return (mb_key){mix(seed + 0x9e3779b97f4a7c15u)};
}

mb_key mb_key_fold(mb_key key, uint64_t n)
{
    /* The two enter differently: seed 1 folded with 7 is not seed 7 folded with 1. */
    return (mb_key){mix(mix(key.bits ^ 0xd1b54a32d192ed03u) + n * 0x9e3779b97f4a7c15u)};
}

mb_tensor mb_uniform_at(const char *where, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape)
{
    if (!mb__enter_context(where, "uniform", ctx) || !check_shape(ctx, where, "uniform", dtype, shape))
        return mb__poison(ctx);
    if (dtype == MB_BOOL) {
        mb__error(ctx, MB_INVALID, where, "uniform: got bool; wanted float32, float64 or int32");
        return mb__poison(ctx);
    }
    mb_tensor t = mb__record(ctx, where, MB_OP_RANDOM, dtype, shape.rank, shape.dim, NULL, 0, NULL, 0);
    if (t.id)
        ctx->nodes[t.id].bind.key = key.bits;
    return t;
}

mb_tensor mb_normal_at(const char *where, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape)
{
    const char *call = mb__call_begin(ctx, "normal");
    mb_tensor u = mb_uniform_at(where, ctx, mb_key_fold(key, 1), dtype, shape);
    mb_tensor v = mb_uniform_at(where, ctx, mb_key_fold(key, 2), dtype, shape);
    if (u.id && v.id && !mb__is_float((int)dtype))
        mb__error(ctx, MB_INVALID, where, "normal: got %s; wanted float32 or float64", mb_dtype_name(dtype));
    if (!u.id || !v.id || !mb__is_float((int)dtype))
        return mb__call_end(ctx, call, mb__poison(ctx));
    /* sqrt(-2 log(1 - u)) cos(2 pi v); 1 - u lies in (0, 1]. */
    mb_tensor r = mb_log_at(where, mb_sub_at(where, mb__const(ctx, where, dtype, 1), u));
    r = mb_sqrt_at(where, mb_mul_at(where, r, mb__const(ctx, where, dtype, -2)));
    mb_tensor turn = mb_mul_at(where, v, mb__const(ctx, where, dtype, 6.283185307179586));
    return mb__call_end(ctx, call, mb_mul_at(where, r, mb_cos_at(where, turn)));
}

mb_tensor mb_permutation_at(const char *where, mb_context *ctx, mb_key key, mb_shape shape)
{
    const char *call = mb__call_begin(ctx, "permutation");
    return mb__call_end(ctx, call, mb_argsort_at(where, mb_uniform_at(where, ctx, key, MB_INT32, shape)));
}
