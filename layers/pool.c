/* SPDX-License-Identifier: MIT
 * pool.c - the largest or mean element of windows. */
#include "layers/conv.h"
#include "layers/internal.h"

#include <math.h>

typedef struct pool {
    const char *name;
    int D, first; /* space axes, from axis `first` on */
    mb_window window[2];
    int64_t padding[2];
} pool;

static bool check(mb_tensor x, const pool *p)
{
    mb_shape s = mb_shape_of(x);
    char text[MB__SHAPE_TEXT];
    mb_dtype dtype = mb_dtype_of(x);
    if (s.rank != p->D + 2 || !mb__is_floats(dtype)) {
        mb_fail(x.ctx, MB_INVALID, "%s: got %s %s; wanted floats with %d axes", p->name, mb__shape(text, x),
                mb_dtype_name(dtype), p->D + 2);
        return false;
    }
    for (int i = 0; i < p->D; i++) {
        int64_t size = p->window[i].size, pad = p->padding[i], n = s.dim[p->first + i];
        if (size >= 1 && p->window[i].stride >= 1 && pad >= 0 && pad <= size / 2 && size <= n + 2 * pad)
            continue;
        mb_fail(x.ctx, MB_INVALID,
                "%s: got windows of %lld, stride %lld, padding %lld over %lld elements; wanted 1 or more, "
                "padding "
                "of at most half the size, and a window that fits",
                p->name, (long long)size, (long long)p->window[i].stride, (long long)pad, (long long)n);
        return false;
    }
    return true;
}

enum { SLICES_MOST = 8 };

/* The largest or the sum of each window on one axis. Of few elements by ops on slices, which fuse with what
 * is around them in any layout; a reduction of that few innermost would be slow. */
static mb_tensor combine(mb_tensor x, int axis, mb_window w, bool average)
{
    if (w.size > SLICES_MOST) {
        x = mb_unfold(x, axis, w);
        return average ? mb_sum(x, MB_AXES(axis + 1)) : mb_max(x, MB_AXES(axis + 1));
    }
    int64_t count = (mb_dim(x, axis) - w.size) / w.stride + 1;
    mb_tensor y = {0};
    for (int64_t j = 0; j < w.size; j++) {
        mb_tensor part = mb_slice(x, axis, j, count, w.stride);
        y = j == 0 ? part : average ? mb_add(y, part) : mb_maximum(y, part);
    }
    return y;
}

static mb_tensor apply(const char *site, const char *name, int D, bool average, mb_tensor x,
                       const mb_pool_options *o)
{
    MB__APPLY(site, name, {"x", x, MB__NEEDED});
    pool p = {.name = name, .D = D, .first = o->channels_last ? 1 : 2};
    for (int i = 0; i < D; i++) {
        int64_t size = i && !o->size[i] ? o->size[0] : o->size[i];
        p.window[i] = (mb_window){.size = size, .stride = o->stride[i] ? o->stride[i] : size};
        p.padding[i] = o->padding[i];
    }
    if (!check(x, &p))
        return mb__failed(x.ctx);
    const mb_tensor given = x;
    double outside = average ? 0 : -(double)INFINITY, count = 1;
    x = average ? mb__wide(x) : x;
    for (int i = D; i-- > 0;) {
        x = mb_pad_with(x, p.first + i, p.padding[i], p.padding[i], (mb_pad_options){MB_PAD_VALUE, outside});
        x = combine(x, p.first + i, p.window[i], average);
        count *= (double)p.window[i].size;
    }
    return average && mb_valid(x) ? mb__narrow(mb_mul(x, mb__literal(x, 1 / count)), given) : x;
}

mb_tensor mb_max_pool1d_at(const char *site, mb_tensor x, mb_pool_options options)
{
    return apply(site, "max_pool1d", 1, false, x, &options);
}

mb_tensor mb_max_pool2d_at(const char *site, mb_tensor x, mb_pool_options options)
{
    return apply(site, "max_pool2d", 2, false, x, &options);
}

mb_tensor mb_avg_pool1d_at(const char *site, mb_tensor x, mb_pool_options options)
{
    return apply(site, "avg_pool1d", 1, true, x, &options);
}

mb_tensor mb_avg_pool2d_at(const char *site, mb_tensor x, mb_pool_options options)
{
    return apply(site, "avg_pool2d", 2, true, x, &options);
}
