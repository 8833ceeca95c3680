/* SPDX-License-Identifier: MIT
 *
 * mesa_linear.c - how much of softmax attention is linear (2309.05858, figure 5): a linear layer is trained
 * on what a softmax one of a trained network adds to its tokens, and takes its place; and least squares
 * beside softmax and linear attention over the pairs themselves, for states of more and more entries. */
#include <math.h>
#include <stdlib.h>

#include "mesa.h"

/* ---- layers in the place of others ---- */

static const double distil_lr = 3e-3;

typedef struct distiller {
    const distillation *d;
    network linear; /* the layers that are trained, those of softmax */
    mb_optimizer *adam;
} distiller;

static bool is_softmax(const network *n, int l)
{
    return n->layer[l].kind == SOFTMAX;
}

static mb_tensor squares(mb_tensor x)
{
    return mb_mean(mb_square(x), MB_ALL);
}

/* For each softmax layer, the squares that the linear one leaves of what it adds to its own input, as a part
 * of all; how many. */
static int left_over(const distiller *by, mb_key key, int64_t sequences, mb_tensor left[MOST_LAYERS])
{
    mb_tensor tokens[MOST_LAYERS + 1];
    const network *n = by->d->n;
    int count = 0;
    network_apply(n, pairs_of(by->d->draw(by->d->mb, n, key, sequences), FULL), tokens);
    for (int l = 0; l < n->layers; l++)
        if (is_softmax(n, l)) {
            mb_tensor want = layer_output(n, l, tokens[l]);
            mb_tensor rest = mb_sub(layer_output(&by->linear, l, tokens[l]), want);
            left[count++] = mb_div(squares(rest), squares(want));
        }
    return count;
}

static void distil(void *user, int64_t step)
{
    const distiller *by = user;
    mb_scope scope = mb_scope_begin(by->d->mb);
    mb_tensor left[MOST_LAYERS];
    int count = left_over(by, key_of(by->d->seed, STREAM_DISTILLED, step), by->d->batch, left);
    for (int i = 1; i < count; i++)
        left[0] = mb_add(left[0], left[i]);
    mb_step(by->adam, left[0]);
    mb_scope_end(scope);
}

static bool train(distiller *by)
{
    const distillation *d = by->d;
    char name[96];
    snprintf(name, sizeof name, "%s-linearised", d->name);
    char *path = file_of(d->folder, name, d->seed);
    bool all = training_run(&(training){.mb = d->mb,
                                        .optimizer = by->adam,
                                        .path = path,
                                        .resumed = d->resumed,
                                        .steps = set.distil_steps,
                                        .save_every = SAVE_EVERY,
                                        .units = d->units},
                            distil, by);
    free(path);
    return all;
}

/* One layer at a time is replaced. */
static void measure(const distiller *by, linearised *to)
{
    const distillation *d = by->d;
    float values[MOST_LAYERS] = {0};
    mb_tensor left[MOST_LAYERS];
    mb_scope scope = mb_scope_begin(d->mb);
    int count = left_over(by, key_of(set.first_seed, STREAM_VALIDATION, 0), d->measured, left);
    for (int i = 0; i < count; i++)
        mb_watch(left[i], &values[i], sizeof values[i]);
    mb_eval(left, count);
    mb_scope_end(scope);
    for (int l = 0, i = 0; l < d->n->layers; l++)
        if (is_softmax(d->n, l)) {
            network swapped = *d->n;
            swapped.layer[l] = by->linear.layer[l];
            to->left[l] = values[i++];
            to->loss[l] = d->loss(d->mb, &swapped);
        }
}

bool linearise(const distillation *d, linearised *to)
{
    distiller by = {.d = d, .linear = *d->n};
    mb_params *p = mb_params_new(d->mb, (uint64_t)d->seed);
    int count = 0;
    for (int l = 0; l < d->n->layers; l++) {
        to->left[l] = to->loss[l] = NAN;
        if (is_softmax(d->n, l))
            by.linear.layer[l] = attention_new(p, d->m, d->n->slot, l, LINEAR), count++;
    }
    bool all = true;
    if (count > 0 && set.distil_steps > 0) {
        by.adam = mb_adam(p, (mb_adam_options){.lr = distil_lr, .clip_norm = 1});
        all = train(&by);
        if (all)
            measure(&by, to);
        mb_optimizer_free(by.adam);
    }
    mb_params_free(p);
    return all;
}

static mb_tensor draw_chosen(mb_context *mb, const network *n, mb_key key, int64_t count)
{
    (void)n;
    return draw_sequences(mb, key, chosen_task(), MB_FLOAT32, count);
}

static double loss_of_chosen(mb_context *mb, const network *n)
{
    return measured(mb, n, NULL);
}

bool run_linearised(trial *t, mb_context *mb, const network *n)
{
    const model *m = &models[t->model];
    return linearise(&(distillation){.mb = mb,
                                     .n = n,
                                     .m = m,
                                     .draw = draw_chosen,
                                     .loss = loss_of_chosen,
                                     .folder = t->folder,
                                     .name = m->name,
                                     .resumed = t->resumed,
                                     .seed = t->seed,
                                     .batch = set.batch,
                                     .measured = validation_count(0),
                                     .units = m->layers},
                     &t->linearised);
}

/* ---- attention over the pairs themselves ---- */

enum { BETAS = 27 };

const char *const kernel_names[KERNELS] = {"softmax", "a step of GD", "least squares"};
const int64_t kernel_sizes[SIZES] = {4, 6, 10, 20, 40, 60};

/* The last token of each sequence, and the pairs before it; [B,T,n], [B,1,n]. */
typedef struct query {
    mb_tensor from, to, at, want;
} query;

static query query_of(mb_tensor s)
{
    int64_t T = mb_dim(s, 1) - 2;
    return (query){mb_slice(s, 1, 0, T, 1), mb_slice(s, 1, 1, T, 1), mb_slice(s, 1, T, 1, 1),
                   mb_slice(s, 1, T + 1, 1, 1)};
}

/* What guesses leave of the squares of what is wanted. */
static mb_tensor left_by(mb_tensor guess, query q)
{
    return mb_div(squares(mb_sub(guess, q.want)), squares(q.want));
}

/* The best multiple of the guesses. */
static mb_tensor left_by_scaled(mb_tensor guess, query q)
{
    return left_by(mb_mul(guess, mb_div(mb_dot(guess, q.want), mb_dot(guess, guess))), q);
}

static double beta_of(int i)
{
    return exp2(i / 2.0 - 7);
}

/* beta from 2^-7 to 2^6. */
static void best_of_softmax(kernels *k, int size, query q, mb_tensor likeness)
{
    float left[BETAS] = {0};
    mb_tensor each[BETAS];
    for (int i = 0; i < BETAS; i++) {
        mb_tensor weights = mb_softmax(mb_mul(likeness, beta_of(i)), 2);
        mb_watch(each[i] = left_by_scaled(mb_matmul(weights, q.to), q), &left[i], sizeof left[i]);
    }
    mb_eval(each, BETAS);
    k->left[size][KERNEL] = INFINITY;
    for (int i = 0; i < BETAS; i++)
        if (left[i] < k->left[size][KERNEL])
            k->left[size][KERNEL] = left[i], k->beta[size] = beta_of(i);
}

static void compare(kernels *k, mb_context *mb, int size)
{
    int64_t n = kernel_sizes[size];
    mb_scope scope = mb_scope_begin(mb);
    mb_key key = key_of(set.first_seed, STREAM_KERNELS, n);
    int64_t count = (set.validation + 9) / 10;
    query q = query_of(draw_systems(mb, key, count, n, 4 * n));
    mb_tensor likeness = mb_matmul(q.at, mb_transpose(q.from)); /* [B,1,T] */
    best_of_softmax(k, size, q, likeness);
    mb_tensor W = mb_lstsq(q.from, q.to, mb_scalar(mb, MB_FLOAT32, ridges[RIDGES - 1]));
    k->left[size][LINEAR_KERNEL] = mb_item(left_by_scaled(mb_matmul(likeness, q.to), q));
    k->left[size][LAST_SQUARES] = mb_item(left_by(mb_matmul(q.at, W), q));
    mb_scope_end(scope);
}

void compare_kernels(kernels *k, mb_context *mb)
{
    for (int size = 0; size < SIZES && !stop_wanted(); size++)
        compare(k, mb, size);
}
