/* SPDX-License-Identifier: MIT
 *
 * mesa_probes.c - what a trained network's tokens hold: linear maps from them, by least squares, to what they
 * might hold (2309.05858, figures 2A, 4E and 4F). */
#include <math.h>

#include "mesa.h"

enum { PROBED = 1024, BACK = 8 };

/* A ridge, since slots of tokens repeat each other. */
static const double ridge = 1e-6;

/* Fits a map for each token, x: [B,LENGTH,d] -> y: [B,LENGTH,e] by B samples, and gives what is left of
 * |y - x W|^2 / 2, [LENGTH], by the part of it that the mean of y leaves. */
static mb_tensor left_over(mb_tensor x, mb_tensor y)
{
    mb_axes by_token = MB_AXES(1, 0, 2);
    mb_tensor a = mb_permute(mb_cast(x, MB_FLOAT64), by_token),
              b = mb_permute(mb_cast(y, MB_FLOAT64), by_token);
    mb_tensor W = mb_lstsq(a, b, mb_scalar(x.ctx, MB_FLOAT64, ridge));
    mb_tensor rest = mb_sum(mb_square(mb_sub(b, mb_matmul(a, W))), MB_AXES(1, 2));
    mb_tensor all = mb_sum(mb_square(mb_sub(b, mb_mean(b, MB_KEEP(1)))), MB_AXES(1, 2));
    return mb_div(rest, all);
}

/* From the last token to those before it, after the first layer: [1,BACK] as in left_over. */
static mb_tensor binding(mb_tensor x, mb_tensor tokens)
{
    mb_tensor last = mb_slice(x, 1, LENGTH - 1, 1, 1);
    mb_tensor from = mb_broadcast(last, MB_SHAPE(mb_dim(x, 0), BACK, mb_dim(x, 2)));
    return left_over(from, mb_slice(tokens, 1, LENGTH - 1, BACK, -1));
}

void run_probes(trial *t, mb_context *mb, const network *n, const solvers *s)
{
    mb_tensor tokens[MOST_LAYERS + 1], left[2 * MOST_LAYERS + 3];
    mb_scope scope = mb_scope_begin(mb);
    mb_key key = mb_key_fold(mb_key_of((uint64_t)set.first_seed), 77);
    pairs p = pairs_of(draw_sequences(mb, key, chosen_task(), MB_FLOAT32, PROBED), chosen_task());
    network_apply(n, p, tokens);
    mb_tensor solution = preconditioned(p, learned_chebyshev(mb, s));
    int count = 0;
    for (int l = 0; l <= n->layers; l++) {
        mb_watch(left[count++] = left_over(tokens[l], p.next), t->target_probe[l], sizeof t->target_probe[l]);
        mb_watch(left[count++] = left_over(tokens[l], solution), t->solution_probe[l],
                 sizeof t->solution_probe[l]);
    }
    mb_watch(left[count++] = binding(tokens[1], p.now), t->binding, sizeof t->binding);
    mb_eval(left, count);
    mb_scope_end(scope);
}
