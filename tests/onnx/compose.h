/* SPDX-License-Identifier: MIT
 *
 * compose.h - functions that several ops of ONNX need and Moebius has not, recorded as those it has. */
#ifndef ONNX_COMPOSE_H
#define ONNX_COMPOSE_H

#include "run.h"

/* A literal of x's dtype. */
mb_tensor literal_like(mb_tensor x, double value);
/* int32 from the host. */
mb_tensor ints(call *c, mb_shape shape, const int64_t *numbers);
mb_tensor floats(call *c, mb_dtype dtype, mb_shape shape, const double *numbers);

bool is_float(mb_tensor x);
/* x wrapped to the range of an integer type of 8 or 16 bits; other types: x. */
mb_tensor wrapped(mb_tensor x, int elem);
/* x clipped to the range of an integer type of 8 or 16 bits. */
mb_tensor saturated(mb_tensor x, int elem);
/* The quotient of int32, rounded towards 0. */
mb_tensor divided_to_zero(mb_tensor a, mb_tensor b);
mb_tensor exclusive_or(mb_tensor a, mb_tensor b);
/* Equal, of any dtype. */
mb_tensor equal(mb_tensor a, mb_tensor b);

/* Axis `from` moved to position `to`. */
mb_tensor moved(mb_tensor x, int from, int to);
/* `before` and `after` entries of a value around an axis; negative: so many taken away. */
mb_tensor padded(mb_tensor x, int axis, int64_t before, int64_t after, double value);
mb_shape shape_of_sizes(const int64_t *sizes, int rank);
/* Axes [first, end) joined to one. */
mb_tensor flattened(mb_tensor x, int first, int end);
/* One per axis `axis` of x, of size n: shape [1,..,n,..,1]. */
mb_tensor along(mb_tensor v, int axis, int rank);
/* Indices from the last made indices from the first. */
mb_tensor from_first(mb_tensor index, int64_t size);

#endif
