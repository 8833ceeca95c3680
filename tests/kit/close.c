/* SPDX-License-Identifier: MIT
 * close.c - a tensor against another, or against numbers. */
#include <math.h>
#include <stdio.h>

#include "tests/kit/internal.h"
#include "tensor/internal.h"

/* What is allowed where nothing is said. */
static mb_closeness usual(mb_closeness how, mb_dtype dtype, const double *want, int64_t count)
{
    double rounding = dtype == MB_FLOAT32    ? 0x1p-23
                      : dtype == MB_FLOAT64  ? 0x1p-52
                      : dtype == MB_FLOAT16  ? 0x1p-10
                      : dtype == MB_BFLOAT16 ? 0x1p-7
                                             : 0;
    double times = mb__is_half((int)dtype) ? 4 : 256; /* halves are rounded where they are stored alone */
    if (how.rtol == 0 && how.atol == 0) {
        how.rtol = times * rounding;
        how.atol = times / 16 * rounding * mb__largest(want, count, 0);
    }
    return how;
}

static mb_status compare(const char *site, mb_tensor got, const double *x, const double *want,
                         mb_closeness how, mb_check_result *r)
{
    mb_shape shape = mb_shape_of(got);
    mb_dtype dtype = mb_dtype_of(got);
    how = usual(how, dtype, want, mb_count(got));
    r->element = mb__furthest(x, want, mb_count(got), how);
    if (r->element < 0)
        return MB_OK;
    r->got = x[r->element];
    r->wanted = want[r->element];
    r->allowed = how.atol + how.rtol * fabs(r->wanted);
    char at[240], dims[200];
    return mb__verdict(r, MB_WRONG, site, "close_to: %s of %s %s: got %.17g, wanted %.17g, allowed %.3g",
                       mb__element_text(at, sizeof at, shape, r->element),
                       mb__dims_text(dims, sizeof dims, shape), mb_dtype_name(dtype), r->got, r->wanted,
                       r->allowed);
}

/* Whether t can be read. */
static bool usable(const char *site, mb_tensor t, const char *which, mb_check_result *r)
{
    if (t.ctx && mb_error(t.ctx) != MB_OK) {
        mb__verdict(r, mb_error(t.ctx), site, "close_to: %s: %s", which, mb_message(t.ctx));
        return false;
    }
    if (t.ctx && mb_valid(t))
        return true;
    mb__verdict(r, MB_STALE, site, "close_to: %s is no tensor, or its scope has ended", which);
    return false;
}

static mb_status from_error(const char *site, mb_tensor t, mb_check_result *r)
{
    return mb__check_error(r, t.ctx, site, "close_to");
}

mb_status mb_close_to_at(const char *site, mb_tensor got, mb_tensor want, mb_closeness how,
                         mb_check_result *result)
{
    mb_check_result own, *r = mb__check_begin(result, &own);
    if (!usable(site, got, "what was got", r) || !usable(site, want, "what was wanted", r))
        return r->status;
    mb_shape a = mb_shape_of(got), b = mb_shape_of(want);
    if (!mb__equal_shapes(a, b) || mb_dtype_of(got) != mb_dtype_of(want)) {
        char s[200], t[200];
        return mb__verdict(r, MB_WRONG, site, "close_to: got %s %s, wanted %s %s",
                           mb__dims_text(s, sizeof s, a), mb_dtype_name(mb_dtype_of(got)),
                           mb__dims_text(t, sizeof t, b), mb_dtype_name(mb_dtype_of(want)));
    }
    mb__blocks of_got = {.ctx = got.ctx}, of_want = {.ctx = want.ctx};
    const double *x = mb__check_read(&of_got, got), *y = x ? mb__check_read(&of_want, want) : NULL;
    mb_status status = y ? compare(site, got, x, y, how, r) : from_error(site, x ? want : got, r);
    mb__blocks_free(&of_got);
    mb__blocks_free(&of_want);
    return status;
}

mb_status mb_close_to_values_at(const char *site, mb_tensor got, const double *want, int64_t count,
                                mb_closeness how, mb_check_result *result)
{
    mb_check_result own, *r = mb__check_begin(result, &own);
    if (!usable(site, got, "what was got", r))
        return r->status;
    if (count != mb_count(got) || (count && !want)) {
        char s[200];
        return mb__verdict(r, MB_WRONG, site, "close_to: got %s, wanted %lld numbers",
                           mb__dims_text(s, sizeof s, mb_shape_of(got)), (long long)count);
    }
    mb__blocks blocks = {.ctx = got.ctx};
    const double *x = mb__check_read(&blocks, got);
    mb_status status = x ? compare(site, got, x, want, how, r) : from_error(site, got, r);
    mb__blocks_free(&blocks);
    return status;
}
