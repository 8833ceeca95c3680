/* SPDX-License-Identifier: MIT
 *
 * derivatives.h - the graph of a case differentiated: no part of ONNX's test, but the graphs are there. */
#ifndef ONNX_DERIVATIVES_H
#define ONNX_DERIVATIVES_H

#include "run.h"

typedef enum slopes { SLOPES_AGREE, SLOPES_DIFFER, SLOPES_NONE } slopes;

/* Of f, a sum of the outputs with random weights, along a random direction v of all inputs of floats, on the
 * reference backend, where every value is a double:
 *
 *     <grad f, v>, the jvp, and (f(x + h v) - f(x - h v)) / 2h                      agree, and
 *     <v, H v> forward over reverse, reverse over reverse, and by second differences agree.
 *
 * Where f has a kink at x, differences are not compared. SLOPES_NONE: nothing to differentiate, or not
 * finite; r->reason or the context's error may say why. text: what differs. */
slopes check_slopes(run *r, const value *inputs, int n_inputs, char *text, size_t size);

#endif
