/* SPDX-License-Identifier: MIT
 * windows.c - padding by other values than zero, and sliding windows over an axis. */
#include "tensor/windows.h"
#include "tensor/internal.h"

/* ---- padding ---- */

/* Entry `at` of the axis, `count` times. */
static mb_tensor repeated(mb_tensor x, int axis, int64_t at, int64_t count)
{
    mb_shape shape = mb_shape_of(x);
    shape.dim[axis] = count;
    return mb_broadcast(mb_slice(x, axis, at, 1, 1), shape);
}

static mb_tensor filled(mb_tensor x, int axis, double value, int64_t count)
{
    mb_shape shape = mb_shape_of(x);
    shape.dim[axis] = count;
    return mb_full(x.ctx, mb_dtype_of(x), shape, value);
}

static bool pad_fits(mb_tensor x, int axis, int64_t before, int64_t after, mb_pad_mode mode)
{
    static const char *const names[] = {"", "edge", "reflect", "wrap"};
    if (mode < MB_PAD_VALUE || mode > MB_PAD_WRAP) {
        mb__error(x.ctx, MB_INVALID, "pad: %d is not a mode", (int)mode);
        return false;
    }
    int64_t size = mb__at(x.ctx, x.id)->dim[axis], most = INT32_MAX;
    if (mode == MB_PAD_EDGE && size == 0)
        most = 0;
    if (mode == MB_PAD_REFLECT || mode == MB_PAD_WRAP)
        most = mode == MB_PAD_WRAP ? size : size ? size - 1 : 0;
    if (before >= 0 && after >= 0 && before <= most && after <= most && size <= INT64_MAX - before - after)
        return true;
    char text[256];
    mb__error(x.ctx, MB_INVALID, "pad: got %lld before and %lld after axis %d of %s; wanted 0 to %lld%s%s",
              (long long)before, (long long)after, axis, mb__tensor_text(text, sizeof text, x),
              (long long)most, mode ? " for mode " : "", names[mode]);
    return false;
}

/* `count` entries next to an axis: behind it, or in front. */
static mb_tensor beside(mb_tensor x, int axis, int64_t count, bool behind, mb_pad_options o)
{
    int64_t size = mb_dim(x, axis);
    switch (o.mode) {
    case MB_PAD_EDGE:
        return repeated(x, axis, behind ? size - 1 : 0, count);
    case MB_PAD_REFLECT:
        return mb_slice(x, axis, behind ? size - 2 : count, count, -1);
    case MB_PAD_WRAP:
        return mb_slice(x, axis, behind ? 0 : size - count, count, 1);
    default:
        return filled(x, axis, o.value, count);
    }
}

mb_tensor mb_pad_with_at(const char *site, mb_tensor x, int axis, int64_t before, int64_t after,
                         mb_pad_options options)
{
    MB_ENTER(site, "pad", &x);
    if ((axis = mb__axis("pad", x, axis)) < 0 || !pad_fits(x, axis, before, after, options.mode))
        return mb__poison(ctx);
    if (options.mode == MB_PAD_VALUE && options.value == 0)
        return mb_pad(x, axis, before, after);
    mb_tensor parts[3];
    int n = 0;
    if (before)
        parts[n++] = beside(x, axis, before, false, options);
    parts[n++] = x;
    if (after)
        parts[n++] = beside(x, axis, after, true, options);
    return mb_concat(parts, n, axis);
}

/* ---- windows ---- */

/* 0 stands for 1; false after reporting. *reach: from the first element of a window to the last. */
static bool settle(mb_context *ctx, const char *op, mb_window *w, int64_t *reach)
{
    w->stride = w->stride ? w->stride : 1;
    w->dilation = w->dilation ? w->dilation : 1;
    if (w->size >= 1 && w->stride >= 1 && w->dilation >= 1 && w->stride <= INT32_MAX &&
        !__builtin_mul_overflow(w->size - 1, w->dilation, reach))
        return true;
    mb__error(ctx, MB_INVALID, "%s: got size %lld, stride %lld, dilation %lld; wanted 1 or more", op,
              (long long)w->size, (long long)w->stride, (long long)w->dilation);
    return false;
}

/* Whether each window begins where the one before ends: then splitting the axis is all there is to it, which
 * kernels can be fused through. */
static bool end_to_end(mb_window w)
{
    return w.stride == w.size && w.dilation == 1;
}

mb_tensor mb__unfold(mb_tensor x, int axis, mb_window w, int64_t count)
{
    mb_context *ctx = x.ctx;
    if (end_to_end(w)) {
        mb_shape s = mb_shape_of(x);
        memmove(s.dim + axis + 2, s.dim + axis + 1, (size_t)(s.rank++ - axis - 1) * sizeof *s.dim);
        s.dim[axis] = count;
        s.dim[axis + 1] = w.size;
        return mb_reshape(mb_slice(x, axis, 0, count * w.size, 1), s);
    }
    const mb__node *n = mb__at(ctx, x.id);
    int64_t dim[MB_MAX_RANK + 1], attrs[3] = {axis, w.stride, w.dilation};
    for (int i = 0; i < n->rank; i++)
        dim[i < axis ? i : i + 1] = n->dim[i];
    dim[axis] = count;
    dim[axis + 1] = w.size;
    return mb__record(ctx, MB_OP_WINDOW, (mb_dtype)n->dtype, n->rank + 1, dim, &x, 1, attrs, 3);
}

mb_tensor mb_unfold_at(const char *site, mb_tensor x, int axis, mb_window window)
{
    MB_ENTER(site, "unfold", &x);
    int64_t reach;
    if ((axis = mb__axis("unfold", x, axis)) < 0 || !settle(ctx, "unfold", &window, &reach))
        return mb__poison(ctx);
    char text[256];
    int64_t size = mb__at(ctx, x.id)->dim[axis];
    if (mb__at(ctx, x.id)->rank == MB_MAX_RANK)
        mb__error(ctx, MB_INVALID, "unfold: got %s; wanted at most %d axes, as it adds one",
                  mb__tensor_text(text, sizeof text, x), MB_MAX_RANK - 1);
    else if (reach >= size)
        mb__error(ctx, MB_INVALID, "unfold: a window of %lld with dilation %lld does not fit axis %d of %s",
                  (long long)window.size, (long long)window.dilation, axis,
                  mb__tensor_text(text, sizeof text, x));
    else
        return mb__unfold(x, axis, window, (size - 1 - reach) / window.stride + 1);
    return mb__poison(ctx);
}

mb_tensor mb__fold(mb_tensor x, int axis, mb_window w, int64_t n)
{
    mb_context *ctx = x.ctx;
    if (end_to_end(w)) {
        mb_shape s = mb_shape_of(x);
        int64_t covered = s.dim[axis] *= w.size;
        memmove(s.dim + axis + 1, s.dim + axis + 2, (size_t)(--s.rank - axis - 1) * sizeof *s.dim);
        return mb_pad(mb_reshape(x, s), axis, 0, n - covered);
    }
    if (mb__halved(x))
        return mb__narrow(mb__fold(mb__wide(x), axis, w, n), x);
    const mb__node *from = mb__at(ctx, x.id);
    int64_t dim[MB_MAX_RANK], attrs[3] = {axis, w.stride, w.dilation};
    for (int i = 0; i + 1 < from->rank; i++)
        dim[i] = from->dim[i <= axis ? i : i + 1];
    dim[axis] = n;
    return mb__record(ctx, MB_OP_FOLD, (mb_dtype)from->dtype, from->rank - 1, dim, &x, 1, attrs, 3);
}

mb_tensor mb_fold_at(const char *site, mb_tensor x, int axis, mb_window window, int64_t n)
{
    MB_ENTER(site, "fold", &x);
    if ((axis = mb__axis("fold", x, axis)) < 0)
        return mb__poison(ctx);
    const mb__node *from = mb__at(ctx, x.id);
    int64_t size = axis + 1 < from->rank ? from->dim[axis + 1] : 0, reach, last;
    char text[256];
    if (!mb__is_number(from->dtype) || size == 0 || (window.size && window.size != size)) {
        mb__error(ctx, MB_INVALID,
                  "fold: got %s, axis %d, windows of %lld; wanted numbers with windows on that axis, and the "
                  "elements of each on the next",
                  mb__tensor_text(text, sizeof text, x), axis, (long long)window.size);
        return mb__poison(ctx);
    }
    window.size = size;
    int64_t count = from->dim[axis];
    if (!settle(ctx, "fold", &window, &reach))
        return mb__poison(ctx);
    bool fits = n >= 0 && (count == 0 || (!__builtin_mul_overflow(count - 1, window.stride, &last) &&
                                          !__builtin_add_overflow(last, reach, &last) && last < n));
    if (fits)
        return mb__fold(x, axis, window, n);
    mb__error(ctx, MB_INVALID, "fold: the windows of %s on axis %d reach beyond %lld elements",
              mb__tensor_text(text, sizeof text, x), axis, (long long)n);
    return mb__poison(ctx);
}
