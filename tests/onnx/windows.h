/* SPDX-License-Identifier: MIT
 *
 * windows.h - the windows that convolutions and pools look through, as an axis of their own. */
#ifndef ONNX_WINDOWS_H
#define ONNX_WINDOWS_H

#include "compose.h"

enum { MAX_SPACE = 3 };

/* One entry per axis of space. */
typedef struct windows {
    int space;
    int64_t kernel[MAX_SPACE], stride[MAX_SPACE], dilation[MAX_SPACE];
    int64_t before[MAX_SPACE], after[MAX_SPACE]; /* padding */
    int64_t out[MAX_SPACE];                      /* windows along the axis */
    int64_t positions, places;                   /* products of kernel and of out */
} windows;

/* From the attributes of a node, for x: [N, C, space...]. kernel: the sizes, where there is no attribute
 * kernel_shape. False, and the case is left, where it has more axes than we know. */
bool windows_of(call *c, windows *w, mb_shape x, const int64_t *kernel);
/* The attributes alone: sizes of the kernel, strides, dilations, pads (0 for an automatic one). */
bool window_attributes(call *c, windows *w, int rank, const int64_t *kernel);
/* x: [N, C, space...] -> [N, C, places, positions]: at each place what the window shows, outside of x the
 * value `outside`. */
mb_tensor look(mb_tensor x, const windows *w, double outside);
/* [N, C, places] -> [N, C, out...] */
mb_tensor placed(mb_tensor y, const windows *w);

#endif
