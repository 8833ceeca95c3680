/* SPDX-License-Identifier: MIT
 *
 * ops_convolution.c - convolutions: what the windows show, contracted with the kernel. */
#include "windows.h"

/* x: [N, C, space...], w: [M, C/groups, kernel...] -> [N, M, out...] */
static mb_tensor convolved(mb_tensor x, mb_tensor w, const windows *win, int64_t groups)
{
    int64_t n = mb_dim(x, 0), channels = mb_dim(x, 1), m = mb_dim(w, 0);
    mb_tensor shown = look(x, win, 0);
    shown = mb_reshape(shown, MB_SHAPE(n, groups, channels / groups, win->places, win->positions));
    w = mb_reshape(w, MB_SHAPE(groups, m / groups, channels / groups, win->positions));
    mb_tensor y = mb_einsum("ngcsk,gmck->ngms", shown, w);
    return placed(mb_reshape(y, MB_SHAPE(n, m, win->places)), win);
}

static mb_tensor with_bias(mb_tensor y, mb_tensor bias)
{
    return mb_add(y, along(bias, 1, mb_shape_of(y).rank));
}

static void conv_op(call *c)
{
    mb_tensor x = input(c, 0), w = input(c, 1);
    windows win;
    if (!x.ctx || !w.ctx || !windows_of(c, &win, mb_shape_of(x), mb_shape_of(w).dim + 2))
        return;
    mb_tensor y = convolved(x, w, &win, attribute_int(c, "group", 1));
    give(c, 0, has(c, 2) ? with_bias(y, input(c, 2)) : y);
}

/* ---- integers ---- */

static mb_tensor shifted_by(mb_tensor x, mb_tensor zero)
{
    return mb_sub(mb_cast(x, MB_FLOAT64), mb_cast(zero, MB_FLOAT64));
}

/* A zero point of one channel each belongs to axis 0 of the kernel. */
static mb_tensor kernel_zero(mb_tensor zero, int rank)
{
    return mb_count(zero) > 1 ? along(zero, 0, rank) : mb_reshape(zero, MB_SHAPE0);
}

/* Products and sums of small integers are exact in float64. */
static void conv_integer_op(call *c)
{
    mb_tensor x = input(c, 0), w = input(c, 1);
    windows win;
    if (!x.ctx || !w.ctx || !windows_of(c, &win, mb_shape_of(x), mb_shape_of(w).dim + 2))
        return;
    mb_tensor wide_x = has(c, 2) ? shifted_by(x, mb_reshape(input(c, 2), MB_SHAPE0)) : mb_cast(x, MB_FLOAT64);
    mb_tensor wide_w = mb_cast(w, MB_FLOAT64);
    if (has(c, 3))
        wide_w = shifted_by(w, kernel_zero(input(c, 3), mb_shape_of(w).rank));
    mb_tensor y = convolved(wide_x, wide_w, &win, attribute_int(c, "group", 1));
    give_as(c, 0, mb_cast(y, MB_INT32), ELEM_INT32);
}

/* x, its scale and zero, w, its scale and zero, scale and zero of the result, bias. */
static void qlinear_conv_op(call *c)
{
    mb_tensor x = input(c, 0), w = input(c, 3);
    windows win;
    if (!x.ctx || !w.ctx || !windows_of(c, &win, mb_shape_of(x), mb_shape_of(w).dim + 2))
        return;
    int rank = mb_shape_of(w).rank;
    mb_tensor y = convolved(shifted_by(x, input(c, 2)), shifted_by(w, kernel_zero(input(c, 5), rank)), &win,
                            attribute_int(c, "group", 1));
    if (has(c, 8))
        y = with_bias(y, mb_cast(input(c, 8), MB_FLOAT64));
    mb_tensor w_scale = input(c, 4);
    w_scale = mb_count(w_scale) > 1 ? along(w_scale, 1, rank) : mb_reshape(w_scale, MB_SHAPE0);
    mb_tensor scale = mb_div(mb_mul(input(c, 1), w_scale), input(c, 6));
    mb_tensor small = mb_cast(mb_round(mb_mul(y, mb_cast(scale, MB_FLOAT64))), MB_INT32);
    give_as(c, 0, saturated(mb_add(small, input(c, 7)), elem_of(c, 7)), elem_of(c, 7));
}

/* ---- transposed ---- */

/* The padding that remains for a wanted size; 'total' may be negative: then more rows follow. */
static void split_padding(call *c, windows *w, int i, int64_t total)
{
    bool upper = attribute_is(c, "auto_pad", "SAME_UPPER", "NOTSET");
    total = total > 0 ? total : 0;
    w->before[i] = upper ? total / 2 : total - total / 2;
    w->after[i] = total - w->before[i];
}

/* The sizes of the result, to `size`. */
static void transposed_sizes(call *c, windows *w, mb_shape x, int64_t *size)
{
    int n, extras;
    const int64_t *wanted_size = attribute_ints(c, "output_shape", &n);
    const int64_t *extra = attribute_ints(c, "output_padding", &extras);
    bool alike = attribute_is(c, "auto_pad", "SAME_UPPER", "NOTSET") ||
                 attribute_is(c, "auto_pad", "SAME_LOWER", "NOTSET");
    w->positions = w->places = 1;
    for (int i = 0; i < w->space; i++) {
        int64_t in = x.dim[2 + i];
        int64_t full = w->stride[i] * (in - 1) + (w->kernel[i] - 1) * w->dilation[i] + 1;
        full += extra && i < extras ? extra[i] : 0;
        if (wanted_size || alike) {
            size[i] = wanted_size ? wanted_size[n - w->space + i] : in * w->stride[i];
            split_padding(c, w, i, full - size[i]);
        } else {
            size[i] = full - w->before[i] - w->after[i];
        }
        w->out[i] = in;
        w->positions *= w->kernel[i];
        w->places *= in;
    }
}

/* The adjoint of the convolution that has the same kernel and goes from the result's shape to x's: its
 * vector-Jacobian product with x. */
static void conv_transpose_op(call *c)
{
    mb_tensor x = input(c, 0), w = input(c, 1);
    windows win;
    if (!x.ctx || !w.ctx || !window_attributes(c, &win, mb_shape_of(x).rank, mb_shape_of(w).dim + 2))
        return;
    int64_t groups = attribute_int(c, "group", 1);
    mb_shape shape = {.rank = mb_shape_of(x).rank, .dim = {mb_dim(x, 0), mb_dim(w, 1) * groups}};
    transposed_sizes(c, &win, mb_shape_of(x), shape.dim + 2);
    mb_tensor zeros = mb_alias(mb_zeros(c->mb, mb_dtype_of(x), shape)), y;
    mb_vjp(convolved(zeros, w, &win, groups), x, &zeros, 1, &y);
    give(c, 0, has(c, 2) ? with_bias(y, input(c, 2)) : y);
}

const op convolution_ops[] = {
    {"Conv", conv_op, false},
    {"ConvInteger", conv_integer_op, true},
    {"ConvTranspose", conv_transpose_op, false},
    {"QLinearConv", qlinear_conv_op, true},
    {0},
};
