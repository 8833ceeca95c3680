/* SPDX-License-Identifier: MIT */
#include "windows.h"

#include <stdlib.h>

/* Numbers of an attribute, or the same one for each axis. */
static void numbers(const call *c, const char *name, int first, int count, int64_t otherwise, int64_t *out)
{
    int n;
    const int64_t *given = attribute_ints(c, name, &n);
    for (int i = 0; i < count; i++)
        out[i] = given && first + i < n ? given[first + i] : otherwise;
}

bool window_attributes(call *c, windows *w, int rank, const int64_t *kernel)
{
    *w = (windows){.space = rank - 2};
    if (w->space < 1 || w->space > MAX_SPACE) {
        leave(c, "windows of more than 3 axes");
        return false;
    }
    numbers(c, "kernel_shape", 0, w->space, 1, w->kernel);
    for (int i = 0; kernel && i < w->space; i++)
        w->kernel[i] = kernel[i];
    numbers(c, "strides", 0, w->space, 1, w->stride);
    numbers(c, "dilations", 0, w->space, 1, w->dilation);
    numbers(c, "pads", 0, w->space, 0, w->before);
    numbers(c, "pads", w->space, w->space, 0, w->after);
    return true;
}

/* As many windows as there are strides in the axis; the padding that this takes, halved, the odd one behind
 * (upper) or in front (lower). */
static void pad_alike(windows *w, int i, int64_t size, bool upper)
{
    w->out[i] = (size + w->stride[i] - 1) / w->stride[i];
    int64_t total = (w->out[i] - 1) * w->stride[i] + (w->kernel[i] - 1) * w->dilation[i] + 1 - size;
    total = total > 0 ? total : 0;
    w->before[i] = upper ? total / 2 : total - total / 2;
    w->after[i] = total - w->before[i];
}

bool windows_of(call *c, windows *w, mb_shape x, const int64_t *kernel)
{
    if (!window_attributes(c, w, x.rank, kernel))
        return false;
    bool upper = attribute_is(c, "auto_pad", "SAME_UPPER", "NOTSET");
    bool alike = upper || attribute_is(c, "auto_pad", "SAME_LOWER", "NOTSET");
    bool ceil_mode = attribute_int(c, "ceil_mode", 0) != 0;
    w->positions = w->places = 1;
    for (int i = 0; i < w->space; i++) {
        int64_t size = x.dim[2 + i], reach = (w->kernel[i] - 1) * w->dilation[i] + 1;
        if (alike)
            pad_alike(w, i, size, upper);
        int64_t room = size + w->before[i] + w->after[i] - reach;
        if (!alike)
            w->out[i] = (ceil_mode ? room + w->stride[i] - 1 : room) / w->stride[i] + 1;
        w->positions *= w->kernel[i];
        w->places *= w->out[i];
    }
    return true;
}

/* The places of one position of the window: a slice along each axis. */
static mb_tensor shown_at(mb_tensor x, const windows *w, int64_t position)
{
    for (int i = w->space - 1; i >= 0; i--) {
        int64_t k = position % w->kernel[i];
        position /= w->kernel[i];
        x = mb_slice(x, 2 + i, k * w->dilation[i], w->out[i], w->stride[i]);
    }
    return flattened(x, 2, 2 + w->space);
}

mb_tensor look(mb_tensor x, const windows *w, double outside)
{
    for (int i = 0; i < w->space; i++) {
        int64_t reach = (w->out[i] - 1) * w->stride[i] + (w->kernel[i] - 1) * w->dilation[i] + 1;
        int64_t after = reach - mb_dim(x, 2 + i) - w->before[i]; /* as far as the last window goes */
        x = padded(x, 2 + i, w->before[i], after, outside);
    }
    mb_tensor *shown = calloc((size_t)w->positions, sizeof *shown);
    if (!shown)
        return (mb_tensor){0};
    for (int64_t p = 0; p < w->positions; p++)
        shown[p] = shown_at(x, w, p);
    mb_tensor y = mb_stack(shown, (int)w->positions, 3);
    free(shown);
    return y;
}

mb_tensor placed(mb_tensor y, const windows *w)
{
    mb_shape from = mb_shape_of(y), to = {.rank = 2 + w->space, .dim = {from.dim[0], from.dim[1]}};
    for (int i = 0; i < w->space; i++)
        to.dim[2 + i] = w->out[i];
    return mb_reshape(y, to);
}
