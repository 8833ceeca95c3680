/* SPDX-License-Identifier: MIT
 *
 * sweep.h - gradients, with the number of tensors that they depend on. Private to the library.
 */
#ifndef MB_SWEEP_H
#define MB_SWEEP_H

#include "autograd/autograd.h"
#include "tensor/internal.h"

/* mb_grad; *fed: how many of the xs y depends on. The gradients of the others are zeros. */
mb_status mb__grad_fed(mb_tensor y, const mb_tensor *xs, int n, mb_tensor *gs, int *fed);

/* Sweeps by node, for rules that make sweeps of their own: they are given these, as the sweeps call them.
 * vjp: gs[i] = the sum over k of vs[k]^T dys[k]/dxs[i], or 0 where that is zero by structure; any ys, several
 * times, xs among them. jvp: ts[k] = the sum over i of dys[k]/dxs[i] vs[i], or 0; lead >= 0: of that many
 * directions, along a first axis. */
typedef struct mb__sweeps {
    mb_status (*vjp)(mb_context *ctx, const uint32_t *ys, const uint32_t *vs, int m, const uint32_t *xs,
                     int n, uint32_t *gs);
    mb_status (*jvp)(mb_context *ctx, const uint32_t *ys, int m, const uint32_t *xs, const uint32_t *vs,
                     int n, int64_t lead, uint32_t *ts);
} mb__sweeps;

/* The first of them, for functions above. */
mb_status mb__vjp_ids(mb_context *ctx, const uint32_t *ys, const uint32_t *vs, int m, const uint32_t *xs,
                      int n, uint32_t *gs);

/* The sweeps themselves (reverse.c, forward.c). */
mb_status mb__reverse(mb_context *ctx, const mb__sweeps *sweeps, const uint32_t *ys, const uint32_t *vs,
                      int m, const uint32_t *xs, int n, uint32_t *gs);
mb_status mb__forward(mb_context *ctx, const mb__sweeps *sweeps, const uint32_t *ys, int m,
                      const uint32_t *xs, const uint32_t *vs, int n, int64_t lead, uint32_t *ts);

#endif
