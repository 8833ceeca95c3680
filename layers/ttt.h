/* SPDX-License-Identifier: MIT
 *
 * ttt.h - a test-time-training layer's layout, and the built-in learners.
 */
#ifndef MB_LAYERS_TTT_H
#define MB_LAYERS_TTT_H

#include "layers/internal.h"

struct mb_ttt {
    mb_ttt_options options; /* switches resolved to OFF or ON; inner_lr points to `lr` */
    double *lr;             /* [T] */
    mb_tensor psi_k, psi_b, phi_k, phi_b, g_k, g_bias, h_k, h_bias;
    mb_tensor norm_scale, norm_bias; /* null if the decoder has no norm */
    mb_learner learner;
    mb_shape *shapes; /* [n] shapes of the learner's weights, for one head */
    mb_tensor *start; /* [n] W_0 [H,...]; null: zeros */
    /* Scratch of one call, [n] each: the weights, their gradients, the inner rule's state. A layer is not
     * applied within its own learner, so one set is enough. */
    mb_tensor *weights, *gradients, *state1, *state2;
};

/* The built-in learners have the interface of custom ones. */
mb_tensor mb__learner_linear(void *user, const mb_tensor *weights, int n, mb_tensor x);
mb_tensor mb__learner_mlp(void *user, const mb_tensor *weights, int n, mb_tensor x);
/* Fills rows[4] for heads of width dh and returns how many there are. */
int mb__learner_rows(mb_learner_kind kind, int64_t dh, bool bias, mb_learner_weight rows[4]);

#endif
