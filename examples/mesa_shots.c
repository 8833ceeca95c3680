/* SPDX-License-Identifier: MIT
 *
 * mesa_shots.c - what a network that was trained on sequences makes of regression in context, x_1, y_1, x_2,
 * y_2, .. with y = W x (2309.05858, section 5). As a sequence that also says that x_2 follows y_1: pairs that
 * no W explains. A token that ends each example, and some before the first one, are tuned to tell the network
 * so, while its weights stay. Networks that are given positions meet some beyond LENGTH, which training did
 * not have, where examples are many. */
#include <stdlib.h>

#include "mesa.h"

const char *const way_names[WAYS] = {"plain", "eos", "eos and prefix"};

bool shots_wanted(void)
{
    task which = chosen_task();
    return set.tune_steps > 0 && (which == FULL || which == CONTRACTING || which == FIXED);
}

examples draw_examples(mb_context *mb, mb_key key, int64_t count, int64_t maps)
{
    mb_tensor W = mb_orthogonal(mb, mb_key_fold(key, 0), MB_FLOAT32, MB_SHAPE(count, maps, SLOT, SLOT));
    mb_tensor u = mb_uniform(mb, mb_key_fold(key, 1), MB_FLOAT32, MB_SHAPE(count, maps, set.shots, SLOT));
    mb_tensor x = mb_sub(mb_mul(u, 2.0), 1.0), y = mb_einsum("bmij,bmsj->bmsi", W, x);
    mb_shape all = MB_SHAPE(count, maps * set.shots, SLOT);
    return (examples){mb_reshape(x, all), mb_reshape(y, all)};
}

/* What is tuned; without a context, not there. */
typedef struct prompt {
    mb_tensor eos, prefix; /* [SLOT], [prefix,SLOT] */
} prompt;

static int64_t period(const prompt *p)
{
    return p->eos.ctx ? 3 : 2;
}

/* [B,N,SLOT] */
static mb_tensor tokens_of(examples e, const prompt *p)
{
    int64_t B = mb_dim(e.x, 0), S = mb_dim(e.x, 1);
    mb_tensor part[3] = {mb_unsqueeze(e.x, 2), mb_unsqueeze(e.y, 2)};
    if (p->eos.ctx)
        part[2] = mb_broadcast(p->eos, MB_SHAPE(B, S, 1, SLOT));
    int64_t each = period(p);
    mb_tensor all[2] = {{0}, mb_reshape(mb_concat(part, (int)each, 2), MB_SHAPE(B, S * each, SLOT))};
    if (!p->prefix.ctx)
        return all[1];
    all[0] = mb_broadcast(p->prefix, MB_SHAPE(B, mb_dim(p->prefix, 0), SLOT));
    return mb_concat(all, 2, 1);
}

/* |guess - y|^2 / 2 where x is the last token: [shots]. */
static mb_tensor loss_by_shot(mb_tensor guess, examples e, const prompt *p)
{
    int64_t first = p->prefix.ctx ? mb_dim(p->prefix, 0) : 0;
    return loss_by_token(mb_slice(guess, 1, first, mb_dim(e.x, 1), period(p)), e.y);
}

static mb_tensor network_loss(const network *n, examples e, const prompt *p)
{
    mb_tensor tokens = tokens_of(e, p);
    return loss_by_shot(network_apply(n, (pairs){.now = tokens, .before = delayed(tokens, 1)}, NULL), e, p);
}

/* ---- tuning ---- */

typedef struct tuning {
    const network *n;
    prompt p;
    mb_optimizer *adam;
    int64_t seed;
    way way;
} tuning;

static void tune(void *user, int64_t step)
{
    const tuning *t = user;
    mb_context *mb = t->p.eos.ctx;
    mb_scope scope = mb_scope_begin(mb);
    mb_key key = mb_key_fold(key_of(t->seed, STREAM_TUNING, step), (uint64_t)t->way);
    examples e = draw_examples(mb, key, set.batch, 1);
    mb_step(t->adam, mb_mean(network_loss(t->n, e, &t->p), MB_ALL));
    mb_scope_end(scope);
}

/* The prefix comes to an eos that is tuned already. It begins near zeros, which a linear layer or a mesa
 * layer does not notice: fewer steps are needed than from the draws of the paper, which disturb at first. */
static prompt prompt_new(mb_params *p, way w, const float eos[SLOT])
{
    prompt made = {0};
    if (w != PLAIN)
        made.eos = mb_param(p, "eos", MB_SHAPE(SLOT), mb_init_normal(1));
    if (w == EOS_PREFIX) {
        made.prefix = mb_param(p, "prefix", MB_SHAPE(set.prefix, SLOT), mb_init_normal(0.1));
        mb_scope scope = mb_scope_begin(mb_params_context(p));
        mb_assign(made.eos, mb_from(mb_params_context(p), MB_FLOAT32, MB_SHAPE(SLOT), eos));
        mb_scope_end(scope);
    }
    return made;
}

static bool tune_prompt(const trial *t, mb_params *p, tuning *how)
{
    char name[96];
    snprintf(name, sizeof name, "%s-%s", models[t->model].name, how->way == EOS ? "eos" : "prefix");
    char *path = file_of(t->folder, name, t->seed);
    how->adam = mb_adam(p, (mb_adam_options){.lr = set.tune_lr});
    bool all = training_run(&(training){.mb = mb_params_context(p),
                                        .optimizer = how->adam,
                                        .path = path,
                                        .resumed = t->resumed,
                                        .steps = set.tune_steps,
                                        .save_every = SAVE_EVERY,
                                        .units = models[t->model].layers},
                            tune, how);
    mb_optimizer_free(how->adam);
    free(path);
    return all;
}

/* ---- measuring ---- */

/* Adds up, over half as many tasks as validation has sequences, since each is of two maps, what `loss` says
 * of a batch: [2 shots]. */
static void measure(mb_context *mb, mb_tensor (*loss)(const void *user, examples e), const void *user,
                    double by_shot[2 * MOST_SHOTS])
{
    float each[2 * MOST_SHOTS] = {0};
    int64_t batches = (validation_batches() + 1) / 2;
    double all = batches == 1 ? (double)validation_count(0) : (double)(batches * MOST_BATCH);
    for (int64_t i = 0; i < batches && mb_error(mb) == MB_OK; i++) {
        int64_t count = validation_count(i);
        mb_scope scope = mb_scope_begin(mb);
        examples e = draw_examples(mb, key_of(set.first_seed, STREAM_SHOTS, i), count, 2);
        mb_read(loss(user, e), each, 2 * (size_t)set.shots * sizeof *each);
        for (int64_t s = 0; s < 2 * set.shots; s++)
            by_shot[s] += each[s] * (double)count / all;
        mb_scope_end(scope);
    }
}

static mb_tensor tuned_loss(const void *user, examples e)
{
    const tuning *t = user;
    return network_loss(t->n, e, &t->p);
}

bool run_shots(trial *t, mb_context *mb, const network *n)
{
    bool all = true;
    float eos[SLOT] = {0};
    for (way w = 0; w < WAYS && all; w++) {
        mb_params *p = mb_params_new(mb, (uint64_t)t->seed);
        tuning how = {.n = n, .p = prompt_new(p, w, eos), .seed = t->seed, .way = w};
        all = w == PLAIN || tune_prompt(t, p, &how);
        if (all)
            measure(mb, tuned_loss, &how, t->by_shot[w]);
        if (w == EOS)
            mb_read(how.p.eos, eos, sizeof eos);
        mb_params_free(p);
    }
    return all;
}

/* By all pairs of neighbours, as the network may; or by those that are examples. */
static mb_tensor all_pairs_loss(const void *user, examples e)
{
    (void)user;
    const prompt none = {0};
    mb_tensor tokens = tokens_of(e, &none), before = delayed(tokens, 1);
    pairs p = {.now = tokens, .before = before, .recent = tokens, .recent_before = before};
    return loss_by_shot(least_squares(p, 1 / ridges[RIDGES - 1]), e, &none);
}

static mb_tensor true_pairs_loss(const void *user, examples e)
{
    (void)user;
    pairs p = {.now = delayed(e.y, 1), .recent = e.x, .recent_before = delayed(e.x, 1)};
    return loss_by_token(least_squares(p, 1 / ridges[RIDGES - 1]), e.y);
}

void solve_shots(solvers *s, mb_context *mb)
{
    measure(mb, all_pairs_loss, NULL, s->by_shot[0]);
    measure(mb, true_pairs_loss, NULL, s->by_shot[1]);
}
