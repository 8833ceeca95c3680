/* SPDX-License-Identifier: MIT
 *
 * equilibrium.h - a layer of infinite depth: its output is what one more application would not change, found
 * by mb_fixed_point (autograd/implicit.h). Derivatives go through the equation and not through the search, so
 * the memory of a training step does not depend on how long it took.
 *
 * As in layers.h: mistakes are MB_INVALID at the caller's line, all is differentiable to any order.
 *
 * Stability: as in tensor.h.
 */
#ifndef MB_EQUILIBRIUM_H
#define MB_EQUILIBRIUM_H

#include "autograd/implicit.h"
#include "layers/layers.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mb_equilibrium_options {
    int64_t in, hidden;
    bool tanh;       /* in place of ReLU */
    double monotone; /* m > 0; 0 means 1 */
    /* Of the search and of derivatives. 0 stands for the defaults there, but for damping, which is 0.5: the
     * damped iteration converges where damping < 2 m / |I - W|^2, so larger weights want a smaller one. */
    mb_implicit_options solve;
} mb_equilibrium_options;

typedef struct mb_equilibrium {
    mb_equilibrium_options options;
    mb_tensor input, bias; /* U [hidden,in]; b [hidden] */
    mb_tensor a, b;        /* A, B [hidden,hidden], of which W is made */
} mb_equilibrium;

/* A monotone operator equilibrium network (Winston and Kolter 2006.08591; deep equilibrium models are Bai et
 * al. 1909.01377): z with
 *
 *     z = relu(W z + U x + b),   W = (1 - m) I - A^T A + B - B^T
 *
 * (their eq. 9), which exists and is the only one for any A and B. Parameters input, bias, a, b under the
 * name; U and b start as U(+-1/sqrt(in)), A and B as U(+-1/(2 sqrt(hidden))), whose norm is about 0.6; the
 * bias takes no weight decay. */
MB_API mb_equilibrium mb_equilibrium_new_at(const char *site, mb_params *p, const char *name,
                                            mb_equilibrium_options options);
#define mb_equilibrium_new(...) mb_equilibrium_new_at(MB_HERE, __VA_ARGS__)
/* x: [..., in] -> [..., hidden]. Each row is a problem that stops for itself. told: NULL, or whether it
 * converged: a tensor for each row, in row-major order; what did not is the last iterate. */
MB_API mb_tensor mb_equilibrium_apply_at(const char *site, mb_equilibrium layer, mb_tensor x,
                                         mb_convergence *told);
#define mb_equilibrium_apply(...) mb_equilibrium_apply_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
