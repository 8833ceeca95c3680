/* SPDX-License-Identifier: MIT
 *
 * mesa_solvers.c - what learners that are written down predict: nothing, a step of gradient descent, least
 * squares, and descent after a learned preconditioning; and proposition 1 as a step that calls mb_grad. */
#include <math.h>
#include <stdlib.h>

#include "mesa.h"

const char *const solver_names[SOLVERS] = {"zero", "a step of GD", "least squares", "Chebyshev and GD"};
const double ridges[RIDGES] = {1, 0.1, 0.01};
const double known_eta = 0.032;

static const double chebyshev_ridge = 1e-3;

/* sum over t' <= t of values_t' (keys_t' . q_t) */
static mb_tensor gathered(mb_tensor q, mb_tensor keys, mb_tensor values)
{
    mb_tensor y = mb_attend(mb_unsqueeze(q, 2), mb_unsqueeze(keys, 2), mb_unsqueeze(values, 2),
                            MB_ATTENTION_LINEAR, true, 1);
    return mb_squeeze(y, 2);
}

mb_tensor descend(pairs p, mb_tensor eta)
{
    return mb_mul(gathered(p.recent, p.recent_before, p.now), eta);
}

mb_tensor least_squares(pairs p, double lambda)
{
    mb_tensor l = mb_scalar(p.now.ctx, mb_dtype_of(p.now), lambda);
    mb_tensor y =
        mb_mesa_attention(mb_unsqueeze(p.recent, 1), mb_unsqueeze(p.recent_before, 1), mb_unsqueeze(p.now, 1),
                          MB_EMPTY(mb_tensor), l, MB_LIT(mb_mesa_options){.chunk = LENGTH}, NULL);
    return mb_squeeze(y, 1);
}

/* |S_{t-1} S_{t-1}^T| as vectors: [B,LENGTH,1]; 1 before there are pairs. With it no eigenvalue is above 1.
 */
static mb_tensor sizes(pairs p)
{
    mb_tensor s = p.recent_before, one = mb_full(s.ctx, mb_dtype_of(s), MB_SHAPE0, 1);
    mb_tensor moments = mb_cumsum(mb_mul(mb_unsqueeze(s, 3), mb_unsqueeze(s, 2)), 1, false);
    mb_tensor size = mb_squeeze(mb_norm(moments, MB_KEEP(2, 3)), 3);
    return mb_where(mb_lt(mb_sub(one, one), size), size, one);
}

mb_tensor preconditioned(pairs p, chebyshev c)
{
    mb_tensor x = mb_zeros(p.now.ctx, mb_dtype_of(p.recent), mb_shape_of(p.recent)), old = x, size = sizes(p);
    for (int k = 0; k < CHEBYSHEV_STEPS; k++) {
        mb_tensor alpha = mb_slice(c.alpha, 0, k, 1, 1), beta = mb_slice(c.beta, 0, k, 1, 1);
        mb_tensor Ax = mb_div(gathered(x, p.recent_before, p.recent_before), size);
        mb_tensor rest = mb_sub(p.recent, mb_add(Ax, mb_mul(x, chebyshev_ridge)));
        mb_tensor next = mb_add(x, mb_add(mb_mul(rest, alpha), mb_mul(mb_sub(x, old), beta)));
        old = x;
        x = next;
    }
    return mb_div(x, size);
}

mb_tensor chebyshev_guess(pairs p, chebyshev c)
{
    return mb_mul(gathered(preconditioned(p, c), p.recent_before, p.now), c.eta);
}

chebyshev learned_chebyshev(mb_context *mb, const solvers *s)
{
    mb_shape shape = MB_SHAPE(CHEBYSHEV_STEPS);
    mb_tensor alpha = mb_from(mb, MB_FLOAT64, shape, s->alpha),
              beta = mb_from(mb, MB_FLOAT64, shape, s->beta);
    return (chebyshev){mb_cast(alpha, MB_FLOAT32), mb_cast(beta, MB_FLOAT32),
                       mb_scalar(mb, MB_FLOAT32, s->chebyshev_eta)};
}

static mb_tensor loss_of(mb_tensor guess, pairs p)
{
    return mb_mean(loss_by_token(guess, p.next), MB_ALL);
}

typedef struct lesson {
    mb_context *mb;
    chebyshev c;
    mb_optimizer *adam;
} lesson;

static void learn(void *user, int64_t step)
{
    const lesson *l = user;
    mb_scope scope = mb_scope_begin(l->mb);
    pairs batch = pairs_of(training_batch(l->mb, -1, step), chosen_task());
    mb_step(l->adam, loss_of(chebyshev_guess(batch, l->c), batch));
    mb_scope_end(scope);
}

static void take(solvers *s, chebyshev c)
{
    float a[CHEBYSHEV_STEPS] = {0}, b[CHEBYSHEV_STEPS] = {0};
    mb_read(c.alpha, a, sizeof a);
    mb_read(c.beta, b, sizeof b);
    s->chebyshev_eta = mb_item(c.eta);
    for (int k = 0; k < CHEBYSHEV_STEPS; k++)
        s->alpha[k] = a[k], s->beta[k] = b[k];
}

/* Through the unrolled iteration, on the task's loss. */
static bool learn_chebyshev(solvers *s, mb_context *mb)
{
    mb_params *p = mb_params_new(mb, 0);
    chebyshev c = {mb_param(p, "alpha", MB_SHAPE(CHEBYSHEV_STEPS), mb_init_ones()),
                   mb_param(p, "beta", MB_SHAPE(CHEBYSHEV_STEPS), mb_init_zeros()),
                   mb_param(p, "eta", MB_SHAPE0, mb_init_ones())};
    mb_schedule schedule = mb_schedule_warmup_cosine(0, set.solver_steps);
    mb_optimizer *adam = mb_adam(p, (mb_adam_options){.lr = 0.1, .clip_norm = 1, .schedule = schedule});
    char *path = file_of(s->folder, "chebyshev", 0);
    bool all = training_run(&(training){.mb = mb,
                                        .optimizer = adam,
                                        .path = path,
                                        .resumed = s->resumed,
                                        .steps = set.solver_steps,
                                        .save_every = SAVE_EVERY,
                                        .units = 1},
                            learn, &(lesson){mb, c, adam});
    take(s, c);
    free(path);
    mb_optimizer_free(adam);
    mb_params_free(p);
    return all;
}

/* The eta that is best: of the losses |next - eta g|^2, sums over all of <g, next> / <g, g>. */
static double best_eta(mb_context *mb)
{
    double along = 0, square = 0;
    for (int64_t i = 0; i < validation_batches() && mb_error(mb) == MB_OK; i++) {
        int64_t count;
        mb_scope scope = mb_scope_begin(mb);
        pairs p = pairs_of(validation_batch(mb, i, &count), chosen_task());
        mb_tensor g = descend(p, mb_scalar(mb, MB_FLOAT32, 1));
        along += mb_item(mb_dot(g, p.next));
        square += mb_item(mb_dot(g, g));
        mb_scope_end(scope);
    }
    return along / square;
}

/* Adds a batch's losses to their sums, `share` of them. */
static void add_losses(solvers *s, pairs p, double share)
{
    mb_context *mb = p.now.ctx;
    float each[SOLVERS][LENGTH] = {{0}}, more[RIDGES] = {0};
    mb_tensor guess[SOLVERS] = {[ZERO] = mb_zeros(mb, MB_FLOAT32, mb_shape_of(p.next)),
                                [GD] = descend(p, mb_scalar(mb, MB_FLOAT32, s->eta)),
                                [RLS] = least_squares(p, 1 / ridges[RIDGES - 1]),
                                [PRECONDITIONED] = chebyshev_guess(p, learned_chebyshev(mb, s))};
    mb_tensor all[SOLVERS + RIDGES];
    for (int i = 0; i < SOLVERS; i++)
        mb_watch(all[i] = loss_by_token(guess[i], p.next), each[i], sizeof each[i]);
    mb_watch(all[SOLVERS] = loss_of(descend(p, mb_scalar(mb, MB_FLOAT32, known_eta)), p), &more[RIDGES - 1],
             sizeof *more);
    for (int i = 0; i + 1 < RIDGES; i++)
        mb_watch(all[SOLVERS + 1 + i] = loss_of(least_squares(p, 1 / ridges[i]), p), &more[i], sizeof *more);
    mb_eval(all, SOLVERS + RIDGES);
    for (int i = 0; i < SOLVERS; i++)
        for (int t = 0; t < LENGTH; t++) {
            s->by_token[i][t] += share * each[i][t];
            s->loss[i] += share * each[i][t] / LENGTH;
        }
    s->loss_at_known_eta += share * more[RIDGES - 1];
    for (int i = 0; i + 1 < RIDGES; i++)
        s->ridge_loss[i] += share * more[i];
}

/* ---- proposition 1 ---- */

/* All L_t(Phi) = sum over t' < t of |s_{t'+1} - Phi s_t'|^2 / 2 from one Phi_0 on: a Phi for each sequence
 * and token, and the gradient of the sum of all. */
static mb_tensor step_by_gradient(mb_tensor eta, mb_tensor start, pairs p)
{
    int64_t B = mb_dim(p.now, 0);
    mb_tensor Phi = mb_broadcast(start, MB_SHAPE(B, LENGTH, SLOT, SLOT)), d;
    mb_tensor said = mb_einsum("btij,buj->btui", Phi, p.before);
    mb_tensor squares = mb_sum(mb_square(mb_sub(mb_unsqueeze(p.now, 1), said)), MB_AXES(3));
    mb_tensor seen = mb_tril_mask(eta.ctx, LENGTH, LENGTH, 0);
    mb_tensor loss =
        mb_mul(mb_sum(mb_where(seen, squares, mb_zeros(eta.ctx, MB_FLOAT64, MB_SHAPE0)), MB_ALL), 0.5);
    mb_grad(loss, &Phi, 1, &d);
    return mb_einsum("btij,btj->bti", mb_sub(Phi, mb_mul(d, eta)), p.now);
}

/* The largest difference, by the largest value. */
static double difference(mb_tensor a, mb_tensor b)
{
    mb_tensor most = mb_max(mb_abs(b), MB_ALL);
    return mb_item(mb_div(mb_max(mb_abs(mb_sub(a, b)), MB_ALL), most));
}

static void compare_with_layer(solvers *s, mb_context *mb)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_key key = mb_key_of(1);
    pairs p = pairs_of(draw_sequences(mb, mb_key_fold(key, 0), FULL, MB_FLOAT64, 3), FULL);
    mb_tensor x[2] = {mb_scalar(mb, MB_FLOAT64, known_eta),
                      mb_mul(mb_normal(mb, mb_key_fold(key, 1), MB_FLOAT64, MB_SHAPE(SLOT, SLOT)), 0.3)};
    mb_tensor guess[2] = {step_by_gradient(x[0], x[1], p), constructed_apply(x[0], x[1], p)}, g[2][2];
    for (int way = 0; way < 2; way++)
        mb_grad(loss_of(guess[way], p), x, 2, g[way]);
    s->guess_error = difference(guess[1], guess[0]);
    s->eta_error = difference(g[1][0], g[0][0]);
    s->start_error = difference(g[1][1], g[0][1]);
    mb_scope_end(scope);
}

void run_solvers(solvers *s)
{
    mb_context *mb = open_context();
    compare_with_layer(s, mb);
    bool learned = learn_chebyshev(s, mb);
    s->eta = learned ? best_eta(mb) : 0;
    for (int64_t i = 0; i < validation_batches() && !stop_wanted() && mb_error(mb) == MB_OK; i++) {
        int64_t count;
        mb_scope scope = mb_scope_begin(mb);
        pairs p = pairs_of(validation_batch(mb, i, &count), chosen_task());
        add_losses(s, p, (double)count / (double)set.validation);
        mb_scope_end(scope);
    }
    if (shots_wanted())
        solve_shots(s, mb);
    compare_kernels(&s->kernels, mb);
    s->ridge_loss[RIDGES - 1] = s->loss[RLS];
    stop_at_error(mb);
    s->complete = learned && !stop_wanted();
    mb_close(mb);
}

int64_t solver_units(void)
{
    return set.solver_steps;
}
