/* SPDX-License-Identifier: MIT
 *
 * learners.c - the learners of 2310.13807: linear, and an MLP with one hidden layer of 4 dh. Examples for
 * custom learners.
 */
#include "layers/ttt.h"

/* x: [B,H,m,a], weight: [B,H,a,b], bias: [B,H,b] or none -> [B,H,m,b] */
static mb_tensor affine(mb_tensor x, mb_tensor weight, const mb_tensor *bias)
{
    mb_tensor y = mb_einsum("bhma,bhae->bhme", x, weight);
    return bias ? mb_add(y, mb_unsqueeze(*bias, 2)) : y;
}

mb_tensor mb__learner_linear(void *user, const mb_tensor *weights, int n, mb_tensor x)
{
    (void)user;
    return affine(x, weights[0], n > 1 ? &weights[1] : NULL);
}

mb_tensor mb__learner_mlp(void *user, const mb_tensor *weights, int n, mb_tensor x)
{
    (void)user;
    bool bias = n == 4; /* W1, b1, W2, b2; without biases W1, W2 */
    mb_tensor hidden = mb_gelu(affine(x, weights[0], bias ? &weights[1] : NULL));
    return affine(hidden, weights[bias ? 2 : 1], bias ? &weights[3] : NULL);
}

int mb__learner_rows(mb_learner_kind kind, int64_t dh, bool bias, mb_learner_weight rows[4])
{
    int64_t hidden = 4 * dh;
    int n = 0;
    if (kind == MB_LEARNER_LINEAR) {
        rows[n++] = (mb_learner_weight){"W1", MB_SHAPE(dh, dh), mb_init_xavier(dh, dh), false};
        if (bias)
            rows[n++] = (mb_learner_weight){"b1", MB_SHAPE(dh), mb_init_zeros(), true};
        return n;
    }
    rows[n++] = (mb_learner_weight){"W1", MB_SHAPE(dh, hidden), mb_init_xavier(dh, hidden), false};
    if (bias)
        rows[n++] = (mb_learner_weight){"b1", MB_SHAPE(hidden), mb_init_zeros(), true};
    rows[n++] = (mb_learner_weight){"W2", MB_SHAPE(hidden, dh), mb_init_xavier(hidden, dh), false};
    if (bias)
        rows[n++] = (mb_learner_weight){"b2", MB_SHAPE(dh), mb_init_zeros(), true};
    return n;
}
