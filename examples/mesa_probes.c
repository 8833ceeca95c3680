/* SPDX-License-Identifier: MIT
 *
 * mesa_probes.c - what a trained network's tokens hold: linear maps from them, by least squares, to what they
 * might hold (2309.05858, figures 2A, 4E and 4F); and what the first layer looks at (16, 22 and 23). */
#include <math.h>
#include <string.h>

#include "mesa.h"

/* Sequences that maps are fitted by: as many as validation has, but more than a token has entries. */
enum { PROBED_LEAST = 256, PROBED_MOST = 1024, BACK = 8 };

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
    int64_t probed = set.validation < PROBED_LEAST  ? PROBED_LEAST
                     : set.validation > PROBED_MOST ? PROBED_MOST
                                                    : set.validation;
    pairs p = pairs_of(draw_sequences(mb, key, chosen_task(), MB_FLOAT32, probed), chosen_task());
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

/* [LENGTH]. Each sequence is there once for each coordinate of the token: one gradient of all. */
static mb_tensor sensitivity(const network *n, mb_tensor sequences)
{
    int64_t B = mb_dim(sequences, 0), seen = mb_dim(sequences, 2), width = width_of(n);
    mb_tensor s = mb_broadcast(mb_unsqueeze(sequences, 1), MB_SHAPE(B, width, LENGTH + 1, seen)), d;
    s = mb_reshape(s, MB_SHAPE(B * width, LENGTH + 1, seen));
    mb_tensor tokens[2];
    network first = *n;
    first.layers = 1;
    network_apply(&first, pairs_of(s, chosen_task()), tokens);
    mb_tensor last = mb_reshape(mb_slice(tokens[1], 1, LENGTH - 1, 1, 1), MB_SHAPE(B, width, width));
    mb_grad(mb_sum(mb_mul(last, mb_eye(s.ctx, MB_FLOAT32, width)), MB_ALL), &s, 1, &d);
    return mb_mean(mb_norm(mb_slice(d, 1, 0, LENGTH, 1), MB_AXES(2)), MB_AXES(0));
}

void measure_sensitivity(mb_context *mb, const network *n, double norms[SENSED])
{
    float each[LENGTH] = {0};
    mb_scope scope = mb_scope_begin(mb);
    int64_t count = (set.batch + 3) / 4; /* 64 where batches are the paper's */
    mb_key key = key_of(set.first_seed, STREAM_SENSITIVITY, 0);
    mb_read(sensitivity(n, draw_sequences(mb, key, chosen_task(), MB_FLOAT32, count)), each, sizeof each);
    memset(norms, 0, SENSED * sizeof *norms);
    for (int back = 0; back < LENGTH; back++)
        if (back < SENSED - 1)
            norms[back] = each[LENGTH - 1 - back];
        else
            norms[SENSED - 1] += each[LENGTH - 1 - back] / (LENGTH - SENSED + 1);
    mb_scope_end(scope);
}
