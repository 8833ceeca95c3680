/* SPDX-License-Identifier: MIT
 *
 * vmap.h - a function of one example applied to many at once.
 *
 * Between the brackets one example is recorded, with ordinary ops, gradients, checkpoints, scans, and other
 * vmaps:
 *
 *     mb_tensor losses, grads;                  // x [n, d], y [n]; w, for all examples, [d]
 *     mb_vmap v = mb_vmap_begin(mb, n);
 *     mb_tensor xi = mb_vmap_in(v, x, 0);       // [d]
 *     mb_tensor yi = mb_vmap_in(v, y, 0);       // []
 *     mb_tensor loss = mb_square(mb_sub(mb_dot(w, xi), yi)), dw;
 *     mb_grad(loss, &w, 1, &dw);                // of this example's loss alone
 *     mb_vmap_out(v, dw, 0, &grads);
 *     mb_vmap_out(v, loss, 0, &losses);
 *     mb_vmap_end(v);                           // grads [n, d], losses [n]
 *
 * At the end what depends on the examples is recorded again, for all of them: each op once, with one more
 * axis, so a product of a matrix and an example's vector becomes a product of matrices. What does not depend
 * on them is computed once for all. What results are made of is again ordinary ops: they have derivatives,
 * and may be part of a scan, a checkpoint or another vmap. Nothing of the inside is a value: reading one, or
 * using it after the end, is an error, and so is assigning a variable inside.
 *
 * A random draw inside differs by example: it is one draw of shape [n, ...] under its key. With `same_draws`
 * it is that of one example, the same for all.
 *
 * A tensor of the inside that depends on the examples has at most MB_MAX_RANK - 1 axes. A scan inside runs
 * all examples at once, the same number of steps. An index out of range is clamped as anywhere; MB_DEBUG does
 * not tell where index and entries both differ by example.
 *
 * Stability: as in tensor.h.
 */
#ifndef MB_VMAP_H
#define MB_VMAP_H

#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mb_vmap_options {
    bool same_draws; /* random draws are the same for all examples */
} mb_vmap_options;

typedef struct mb_vmap {
    mb_context *ctx;
    uint32_t serial;
} mb_vmap;

/* n >= 0 examples. */
MB_API mb_vmap mb_vmap_begin_at(const char *site, mb_context *ctx, int64_t n);
#define mb_vmap_begin(...) mb_vmap_begin_at(MB_HERE, __VA_ARGS__)
MB_API mb_vmap mb_vmap_begin_with_at(const char *site, mb_context *ctx, int64_t n, mb_vmap_options options);
#define mb_vmap_begin_with(...) mb_vmap_begin_with_at(MB_HERE, __VA_ARGS__)

/* One example of xs, which has n along `axis` (a negative one counts from the last): its shape without that
 * axis. */
MB_API mb_tensor mb_vmap_in_at(const char *site, mb_vmap vmap, mb_tensor xs, int axis);
#define mb_vmap_in(...) mb_vmap_in_at(MB_HERE, __VA_ARGS__)
/* At mb_vmap_end, *ys becomes y of all examples: y's shape with a new axis of n, which is number `axis` of
 * the result (-1: the last). Where y does not depend on the examples, it is repeated. */
MB_API mb_status mb_vmap_out_at(const char *site, mb_vmap vmap, mb_tensor y, int axis, mb_tensor *ys);
#define mb_vmap_out(...) mb_vmap_out_at(MB_HERE, __VA_ARGS__)
/* Vmaps end in reverse order of their beginning, and in the scope that they began in. After an error all
 * results are poison. */
MB_API mb_status mb_vmap_end_at(const char *site, mb_vmap vmap);
#define mb_vmap_end(...) mb_vmap_end_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
