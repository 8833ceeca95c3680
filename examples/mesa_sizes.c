/* SPDX-License-Identifier: MIT
 *
 * mesa_sizes.c - networks of softmax layers for states of more and more entries, and what becomes of their
 * loss where a layer is made linear (2309.05858, figure 5A). Sequences are four times as long as states, so
 * that what is seen of a map is the same part of it at each size. Steps see the same number of tokens.
 *
 * Tokens are [0, s_t, s_t, s_{t-1}]: each layer can regress from the first step on, and all sizes learn. In
 * the paper they are bare, and the first layer has to bind each to the one before. With these
 * (--size-tokens bare) states of 40 and 60 entries are for 500 steps and more at the loss of guessing zero,
 * where any ratio is 1. Nor are ratios those of equals with the others: in as many steps, networks of large
 * states leave more of that loss, which is why it stands beside them. */
#include <stdlib.h>
#include <string.h>

#include "mesa.h"

enum { STEP_TOKENS = 3840 };

/* Heads and keys as in the paper. There networks meet more sequences; here they take larger steps. */
static model size_model(void)
{
    return (model){.layers = SIZE_LAYERS,
                   .first = SOFTMAX,
                   .others = SOFTMAX,
                   .embedded = strcmp(set.size_tokens, "bare") == 0,
                   .heads = 4,
                   .key = 20,
                   .lr = 5e-3,
                   .init = 0.05,
                   .decay = 0.05};
}

static int64_t sequences_of_step(int64_t entries)
{
    return STEP_TOKENS / (4 * entries);
}

static mb_tensor draw(mb_context *mb, const network *n, mb_key key, int64_t count)
{
    return draw_systems(mb, mb_key_fold(key, (uint64_t)n->slot), count, n->slot, 4 * n->slot);
}

static mb_tensor loss_of(mb_tensor guess, pairs p)
{
    return mb_mean(loss_by_token(guess, p.next), MB_ALL);
}

/* Of so many tokens each: 16, where validation has as many sequences as the paper's. */
static int64_t measured_batches(void)
{
    return (set.validation + 159) / 160;
}

/* On other sequences; zero: not of the network, but of guessing zero. */
static double mean_loss(mb_context *mb, const network *n, bool zero)
{
    double sum = 0;
    for (int64_t i = 0; i < measured_batches() && mb_error(mb) == MB_OK; i++) {
        mb_scope scope = mb_scope_begin(mb);
        mb_key key = key_of(set.first_seed, STREAM_VALIDATION, i);
        pairs p = pairs_of(draw(mb, n, key, sequences_of_step(n->slot)), FULL);
        mb_tensor guess = zero ? mb_zeros(mb, MB_FLOAT32, mb_shape_of(p.next)) : network_apply(n, p, NULL);
        sum += mb_item(loss_of(guess, p));
        mb_scope_end(scope);
    }
    return sum / (double)measured_batches();
}

static double network_loss(mb_context *mb, const network *n)
{
    return mean_loss(mb, n, false);
}

typedef struct lesson {
    mb_context *mb;
    const network *n;
    mb_optimizer *adam;
} lesson;

static void learn(void *user, int64_t step)
{
    const lesson *l = user;
    mb_scope scope = mb_scope_begin(l->mb);
    mb_key key = key_of(set.first_seed, STREAM_TRAINING, step);
    pairs p = pairs_of(draw(l->mb, l->n, key, sequences_of_step(l->n->slot)), FULL);
    mb_step(l->adam, loss_of(network_apply(l->n, p, NULL), p));
    mb_scope_end(scope);
}

/* Of a step, in the time it takes. */
static int64_t step_units(const size_run *s)
{
    return s->entries + 3;
}

static bool train(const size_run *s, const char *name, lesson *l)
{
    char *path = file_of(s->folder, name, set.first_seed);
    bool all = training_run(&(training){.mb = l->mb,
                                        .optimizer = l->adam,
                                        .path = path,
                                        .resumed = s->resumed,
                                        .steps = set.size_steps,
                                        .save_every = SAVE_EVERY,
                                        .units = step_units(s)},
                            learn, l);
    free(path);
    return all;
}

static bool measure(size_run *s, const char *name, const model *m, mb_context *mb, const network *n)
{
    s->zero = mean_loss(mb, n, true);
    s->loss = network_loss(mb, n);
    return linearise(&(distillation){.mb = mb,
                                     .n = n,
                                     .m = m,
                                     .draw = draw,
                                     .loss = network_loss,
                                     .folder = s->folder,
                                     .name = name,
                                     .resumed = s->resumed,
                                     .seed = set.first_seed,
                                     .batch = sequences_of_step(s->entries),
                                     .measured = sequences_of_step(s->entries),
                                     .units = step_units(s)},
                     &s->linearised);
}

static mb_optimizer *optimizer_for(mb_params *p, const model *m)
{
    int64_t steps = set.size_steps;
    return mb_adamw(p, (mb_adamw_options){.lr = m->lr,
                                          .weight_decay = m->decay,
                                          .clip_value = 1,
                                          .schedule = mb_schedule_warmup_cosine(steps / 10, steps)});
}

void run_size(size_run *s)
{
    const model m = size_model();
    char name[32];
    snprintf(name, sizeof name, "entries-%d", (int)s->entries);
    mb_context *mb = open_context();
    mb_params *p = mb_params_new(mb, (uint64_t)set.first_seed);
    network n = network_new(p, &m, s->entries, s->entries);
    mb_optimizer *adam = optimizer_for(p, &m);
    s->complete = train(s, name, &(lesson){mb, &n, adam}) && measure(s, name, &m, mb, &n);
    stop_at_error(mb);
    mb_optimizer_free(adam);
    mb_params_free(p);
    mb_close(mb);
}

int64_t size_units(const size_run *s)
{
    return (set.size_steps + set.distil_steps) * step_units(s);
}
