/* SPDX-License-Identifier: MIT
 *
 * lcgd_tune.c - fine-tuning on demonstrations, one after the other: by gradient descent, and by the
 * layer-causal one, in which no layer hears of the losses above it. */
#include <stdlib.h>
#include <string.h>

#include "lcgd.h"

const char *const variant_names[VARIANTS] = {"gd", "lcgd", "lcgd-text"};

/* What each layer's own loss is of, before it is stopped. */
typedef struct exits {
    mb_tensor at[MOST_LAYERS];
    int n;
} exits;

/* The layers above get a constant: x reaches the loss through this layer's exit alone. */
static mb_tensor leave(void *user, const char *name, mb_tensor x)
{
    exits *e = user;
    (void)name;
    if (e->n < MOST_LAYERS)
        e->at[e->n++] = x;
    return mb_stop_gradient(x);
}

static mb_tensor stopped(void *user, const char *name, mb_tensor x)
{
    (void)user, (void)name;
    return mb_stop_gradient(x);
}

/* As the code has it, a layer is all of a block; in the text it is its attention, for queries that are
 * constant. In both a layer's input is constant, so that no gradient passes from one to the next. */
static const struct {
    const char *exit, *stop[3];
} forms[VARIANTS] = {
    [LCGD] = {"blocks.*.output", {"tokens"}},
    [LCGD_TEXT] = {"blocks.*.attention.output", {"tokens", "blocks.*.output", "blocks.*.attention.queries"}},
};

static mb_tensor layer_losses(const decoder *d, mb_tensor tokens, variant how, mb_tensor *each)
{
    exits e = {.n = 0};
    mb_tap tap = mb_tap_begin(tokens.ctx, forms[how].exit, leave, &e), stops[3];
    int n = 0;
    for (; n < 3 && forms[how].stop[n]; n++)
        stops[n] = mb_tap_begin(tokens.ctx, forms[how].stop[n], stopped, NULL);
    decoder_apply(d, tokens);
    while (n > 0)
        mb_tap_end(stops[--n]);
    mb_tap_end(tap);
    mb_tensor sum = {0};
    for (int l = 0; l < e.n; l++) {
        mb_tensor loss = next_token_loss(readout(d, e.at[l]), tokens);
        sum = l ? mb_add(sum, loss) : loss;
        if (each)
            each[l] = loss;
    }
    return sum;
}

mb_tensor demonstration_loss(const decoder *d, mb_tensor tokens, variant how, mb_tensor *each)
{
    if (how != GD)
        return layer_losses(d, tokens, how, each);
    mb_tensor loss = next_token_loss(decoder_apply(d, tokens), tokens);
    if (each)
        each[0] = loss;
    return loss;
}

/* Keys and values are the last two thirds of a projection's rows. */
static mb_tensor without_queries(mb_tensor g)
{
    int64_t third = mb_dim(g, 0) / 3;
    return mb_pad(mb_slice(g, 0, third, 2 * third, 1), 0, third, 0);
}

/* Demonstration `number`, whose tokens begin at `at` of all. */
static void step(const decoder *d, mb_params *p, mb_optimizer *sgd, const problem *from, variant how,
                 int64_t number, int64_t at, tuning *t)
{
    mb_tensor ts[2 * MOST_LAYERS], gs[2 * MOST_LAYERS], queries[MOST_LAYERS];
    mb_context *mb = mb_params_context(p);
    int n = mb_params_list(p, ts, 2 * MOST_LAYERS), each = n / d->layers;
    int64_t length = from->length[number];
    mb_tensor tokens = mb_from(mb, MB_INT32, MB_SHAPE(1, length), from->tokens + at);
    mb_tap tap = mb_tap_collect(mb, "blocks.*.attention.queries", queries, MOST_LAYERS);
    mb_tensor loss = demonstration_loss(d, tokens, how, NULL);
    mb_tap_end(tap);
    mb_grad(loss, ts, n, gs);
    for (int i = 0; i < n; i++)
        gs[i] = without_queries(gs[i]);
    for (int l = 0; l < d->layers; l++) {
        mb_watch(mb_global_norm(gs + (ptrdiff_t)l * each, each), t->norms + l * from->shots + number,
                 sizeof *t->norms);
        mb_watch(queries[l], t->queries + (l * from->told + at) * d->width,
                 (size_t)(length * d->width) * sizeof *t->queries);
    }
    mb_apply_gradients(sgd, gs, n);
}

void tune(const decoder *d, mb_params *p, mb_optimizer *sgd, const problem *from, variant how, tuning *t)
{
    mb_context *mb = mb_params_context(p);
    *t = (tuning){calloc((size_t)(d->layers * from->shots) + 1, sizeof(float)),
                  calloc((size_t)(d->layers * from->told * d->width) + 1, sizeof(float))};
    if (!t->norms || !t->queries)
        die("out of memory");
    for (int64_t i = 0, at = 0; i < from->shots && mb_error(mb) == MB_OK; at += from->length[i++]) {
        mb_scope scope = mb_scope_begin(mb);
        step(d, p, sgd, from, how, i, at, t);
        mb_scope_end(scope);
    }
}

void tuning_free(tuning *t)
{
    free(t->norms);
    free(t->queries);
    *t = (tuning){NULL, NULL};
}
