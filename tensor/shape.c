/* SPDX-License-Identifier: MIT
 * shape.c - shapes: limits, broadcasting, negative axes. */
#include "tensor/internal.h"

bool mb__broadcast_shapes(const int64_t *a, int ra, const int64_t *b, int rb, int64_t *out, int *rank)
{
    int r = ra > rb ? ra : rb;
    for (int i = r; i-- > 0;) { /* from the last axis, so that out may be a or b */
        int64_t x = i < r - ra ? 1 : a[i - (r - ra)], y = i < r - rb ? 1 : b[i - (r - rb)];
        if (x != y && x != 1 && y != 1)
            return false;
        out[i] = x == 1 ? y : x;
    }
    *rank = r;
    return true;
}

bool mb__countable(const int64_t *dim, int rank)
{
    int64_t count = 1;
    for (int i = 0; i < rank; i++)
        if (dim[i] && (__builtin_mul_overflow(count, dim[i], &count) || count > INT64_MAX / 16))
            return false;
    return true;
}

int mb__axis(const char *op, mb_tensor t, int axis)
{
    int rank = mb__at(t.ctx, t.id)->rank, a = axis < 0 ? axis + rank : axis;
    if (a >= 0 && a < rank)
        return a;
    char text[256];
    mb__error(t.ctx, MB_INVALID, "%s: got axis %d of %s; wanted one in [%d, %d)", op, axis,
              mb__tensor_text(text, sizeof text, t), -rank, rank);
    return -1;
}

bool mb__check_shape(mb_context *ctx, const char *op, mb_dtype dtype, mb_shape shape)
{
    if (shape.rank < 0 || shape.rank > MB_MAX_RANK) {
        mb__error(ctx, MB_INVALID, "%s: got rank %d; wanted at most %d", op, shape.rank, MB_MAX_RANK);
        return false;
    }
    if ((unsigned)dtype >= MB_DTYPES) {
        mb__error(ctx, MB_INVALID, "%s: %d is not a dtype", op, (int)dtype);
        return false;
    }
    for (int i = 0; i < shape.rank; i++)
        if (shape.dim[i] < 0) {
            mb__error(ctx, MB_INVALID, "%s: size %lld of axis %d is negative", op, (long long)shape.dim[i],
                      i);
            return false;
        }
    if (!mb__countable(shape.dim, shape.rank)) {
        mb__error(ctx, MB_INVALID, "%s: the result has too many elements", op);
        return false;
    }
    return true;
}
