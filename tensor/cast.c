/* SPDX-License-Identifier: MIT
 * cast.c - from one dtype to another; and what wide.h says. */
#include "tensor/internal.h"

bool mb__halved(mb_tensor x)
{
    return mb_valid(x) && mb__is_half((int)mb_dtype_of(x));
}

mb_tensor mb__wide(mb_tensor x)
{
    return mb__halved(x) ? mb_cast(x, MB_FLOAT32) : x;
}

mb_tensor mb__narrow(mb_tensor y, mb_tensor like)
{
    return mb__halved(like) ? mb_cast(y, mb_dtype_of(like)) : y;
}

mb_tensor mb_cast_at(const char *site, mb_tensor x, mb_dtype dtype)
{
    MB_ENTER(site, "cast", &x);
    const mb__node *n = mb__at(ctx, x.id);
    if ((unsigned)dtype >= MB_DTYPES) {
        mb__error(ctx, MB_INVALID, "cast: %d is not a dtype", (int)dtype);
        return mb__poison(ctx);
    }
    if (n->dtype == dtype)
        return x;
    int64_t dim[MB_MAX_RANK];
    memcpy(dim, n->dim, sizeof dim);
    return mb__record(ctx, MB_OP_CAST, dtype, n->rank, dim, &x, 1, NULL, 0);
}
