/* SPDX-License-Identifier: MIT
 *
 * windows.h - padding by other values than zero, and sliding windows over an axis. Part of moebius.h.
 *
 * Convolutions (layers/conv.h) and pools are made of these. All is differentiable to any order: the adjoint
 * of mb_unfold is mb_fold, and the other way round.
 *
 * Stability: as in tensor.h.
 */
#ifndef MB_WINDOWS_H
#define MB_WINDOWS_H

#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What lies outside of an axis that holds a b c d: */
typedef enum mb_pad_mode {
    MB_PAD_VALUE = 0, /* v v | a b c d | v v */
    MB_PAD_EDGE,      /* a a | a b c d | d d */
    MB_PAD_REFLECT,   /* c b | a b c d | c b: at most the axis's size - 1 on each side */
    MB_PAD_WRAP,      /* c d | a b c d | a b: at most the axis's size on each side */
} mb_pad_mode;

typedef struct mb_pad_options {
    mb_pad_mode mode;
    double value; /* of MB_PAD_VALUE */
} mb_pad_options;

/* `before` elements in front of an axis and `after` behind it. Any dtype; the value is converted to it. With
 * options of zeros it is mb_pad. */
MB_API mb_tensor mb_pad_with_at(const char *site, mb_tensor x, int axis, int64_t before, int64_t after,
                                mb_pad_options options);
#define mb_pad_with(...) mb_pad_with_at(MB_HERE, __VA_ARGS__)

/* Windows over an axis: window i has the elements i stride + j dilation, 0 <= j < size. There are as many as
 * lie within an axis of n elements, (n - (size - 1) dilation - 1) / stride + 1, rounded down; at least one
 * must.
 */
typedef struct mb_window {
    int64_t size;     /* >= 1 */
    int64_t stride;   /* >= 1; 0 means 1 */
    int64_t dilation; /* >= 1; 0 means 1 */
} mb_window;

/* x: [..., n, ...], n elements on `axis` -> [..., windows, size, ...]: the axis becomes two. A view, which
 * takes no memory, however much windows overlap. Any dtype; at most 7 axes. Windows in two dimensions, as
 * im2col makes them of an image [H,W] -> [windows, KH, windows, KW]:
 *
 *     mb_unfold(mb_unfold(x, 0, rows), 2, columns)
 */
MB_API mb_tensor mb_unfold_at(const char *site, mb_tensor x, int axis, mb_window window);
#define mb_unfold(...) mb_unfold_at(MB_HERE, __VA_ARGS__)
/* x: [..., windows, size, ...], the windows on `axis` -> [..., n, ...]: each element of a window is added at
 * the place that mb_unfold takes it from; where there is none, 0. window.size is that of x's axis, or 0; n as
 * large as the windows reach, or larger. Floats and int32. */
MB_API mb_tensor mb_fold_at(const char *site, mb_tensor x, int axis, mb_window window, int64_t n);
#define mb_fold(...) mb_fold_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif

#endif
