/* SPDX-License-Identifier: MIT
 * pairs.c - functions of two operands: the MB_FUNCTION rows of ops.def. */
#include "tensor/internal.h"

mb_tensor mb_gt_at(const char *site, mb_tensor a, mb_tensor b)
{
    MB_SITE(a.ctx ? a.ctx : b.ctx, site);
    return mb_lt(b, a);
}

mb_tensor mb_ge_at(const char *site, mb_tensor a, mb_tensor b)
{
    MB_SITE(a.ctx ? a.ctx : b.ctx, site);
    return mb_le(b, a);
}

mb_tensor mb_ne_at(const char *site, mb_tensor a, mb_tensor b)
{
    MB_SITE(a.ctx ? a.ctx : b.ctx, site);
    return mb_not(mb_eq(a, b));
}

/* Where r is not 0 and has another sign than b. */
static mb_tensor signs_differ(mb_tensor r, mb_tensor b)
{
    mb_tensor zero = mb__const_like(r, 0);
    return mb_or(mb_and(mb_lt(r, zero), mb_lt(zero, b)), mb_and(mb_lt(zero, r), mb_lt(b, zero)));
}

/* Of floats a, b >= 0: a - b floor(a / b), in [0, b). Where a / b was rounded to the next integer, or its
 * product with b was, r is off by b. Where b is infinite, the product would be NaN. */
static mb_tensor remainder_of(mb_tensor a, mb_tensor b)
{
    mb_tensor q = mb_floor(mb_div(a, b)), zero = mb__const_like(q, 0);
    mb_tensor r = mb_where(mb_eq(q, zero), a, mb_sub(a, mb_mul(b, q)));
    return mb_where(mb_lt(r, zero), mb_add(r, b), mb_where(mb_le(b, r), mb_sub(r, b), r));
}

/* |x|, with the slope 1 at 0. */
static mb_tensor turned(mb_tensor x, mb_tensor negative)
{
    return mb_where(negative, mb_neg(x), x);
}

static mb_tensor float_fmod(mb_tensor a, mb_tensor b)
{
    mb_tensor below = mb_lt(a, mb__const_like(a, 0));
    mb_tensor size = turned(b, mb_lt(b, mb__const_like(b, 0)));
    return turned(remainder_of(turned(a, below), size), below);
}

/* Whether a and b are numbers, and whether those are int32; false after reporting. */
static bool numbers(const char *op, mb_context *ctx, mb_tensor a, mb_tensor b, bool *integers)
{
    int da = mb__at(ctx, a.id)->dtype, db = mb__at(ctx, b.id)->dtype;
    *integers = da == MB_INT32;
    if (da == db && mb__is_number(da))
        return true;
    char ta[256], tb[256];
    mb__error(ctx, MB_INVALID, "%s: got a %s, b %s; wanted numbers of one dtype", op,
              mb__tensor_text(ta, sizeof ta, a), mb__tensor_text(tb, sizeof tb, b));
    return false;
}

mb_tensor mb_mod_at(const char *site, mb_tensor a, mb_tensor b)
{
    MB_ENTER(site, "mod", &a, &b);
    bool integers;
    if (!numbers("mod", ctx, a, b, &integers))
        return poison;
    if (integers)
        return mb_sub(a, mb_mul(b, mb_floor_divide(a, b)));
    if (mb__halved(a))
        return mb__narrow(mb_mod(mb__wide(a), mb__wide(b)), a);
    mb_tensor r = float_fmod(a, b);
    return mb_where(signs_differ(r, b), mb_add(r, b), r);
}

mb_tensor mb_fmod_at(const char *site, mb_tensor a, mb_tensor b)
{
    MB_ENTER(site, "fmod", &a, &b);
    bool integers;
    if (!numbers("fmod", ctx, a, b, &integers))
        return poison;
    if (!integers)
        return mb__narrow(float_fmod(mb__wide(a), mb__wide(b)), a);
    mb_tensor r = mb_mod(a, b); /* of b's sign, and nothing to do where it is 0 */
    mb_tensor other = mb_and(signs_differ(a, b), mb_ne(r, mb__const(ctx, MB_INT32, 0)));
    return mb_where(other, mb_sub(r, b), r);
}
