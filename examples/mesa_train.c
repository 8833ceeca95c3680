/* SPDX-License-Identifier: MIT
 *
 * mesa_train.c - training of a transformer on sequences, with its loss on others, by token. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mesa.h"

mb_context *open_context(void)
{
    mb_options options = {.backend = *set.backend ? set.backend : NULL, .threads = 1};
    return mb_open_with(&options);
}

task chosen_task(void)
{
    int which = 0;
    while (which + 1 < TASKS && strcmp(tasks[which].name, set.task) != 0)
        which++;
    return (task)which;
}

mb_key key_of(int64_t seed, int stream, int64_t n)
{
    return mb_key_fold(mb_key_fold(mb_key_of((uint64_t)seed), (uint64_t)stream), (uint64_t)n);
}

mb_tensor training_batch(mb_context *mb, int64_t seed, int64_t step)
{
    return draw_sequences(mb, key_of(seed, STREAM_TRAINING, step), chosen_task(), MB_FLOAT32, set.batch);
}

int64_t validation_batches(void)
{
    return (set.validation + MOST_BATCH - 1) / MOST_BATCH;
}

int64_t validation_count(int64_t i)
{
    int64_t left = set.validation - i * MOST_BATCH;
    return left < MOST_BATCH ? left : MOST_BATCH;
}

mb_tensor validation_batch(mb_context *mb, int64_t i, int64_t *count)
{
    *count = validation_count(i);
    return draw_sequences(mb, key_of(set.first_seed, STREAM_VALIDATION, i), chosen_task(), MB_FLOAT32,
                          *count);
}

double measured(mb_context *mb, const network *n, double by_token[LENGTH])
{
    double sum[LENGTH] = {0}, loss = 0;
    for (int64_t i = 0; i < validation_batches() && mb_error(mb) == MB_OK; i++) {
        int64_t count;
        float each[LENGTH] = {0};
        mb_scope scope = mb_scope_begin(mb);
        pairs p = pairs_of(validation_batch(mb, i, &count), chosen_task());
        mb_read(loss_by_token(network_apply(n, p, NULL), p.next), each, sizeof each);
        for (int t = 0; t < LENGTH; t++)
            sum[t] += each[t] * (double)count / (double)set.validation;
        mb_scope_end(scope);
    }
    for (int t = 0; t < LENGTH; t++)
        loss += sum[t] / LENGTH;
    if (by_token)
        memcpy(by_token, sum, sizeof sum);
    return loss;
}

/* With few numbers kept of each product, and halfway to that. */
static void measure_compressed(trial *t, mb_context *mb, const network *n)
{
    t->compressed_loss = t->halfway_loss = NAN;
    if (n->embedded || n->layer[0].kind != LINEAR)
        return;
    network products = products_of(n), few = compressed(&products), between = halfway(&products, &few);
    t->compressed_loss = measured(mb, &few, NULL);
    t->halfway_loss = measured(mb, &between, NULL);
}

static mb_optimizer *optimizer_for(mb_params *p, const model *m, int64_t steps)
{
    mb_adamw_options o = {.lr = m->lr, .weight_decay = m->decay, .clip_value = 1};
    if (m->embedded)
        o.schedule = mb_schedule_warmup_cosine(steps / 10 < 1000 ? steps / 10 : 1000, steps);
    return mb_adamw(p, o);
}

char *file_of(const char *folder, const char *name, int64_t seed)
{
    char text[96];
    snprintf(text, sizeof text, "%s-seed-%lld.safetensors", name, (long long)seed);
    return folder ? path_in(folder, text) : NULL;
}

typedef struct lesson {
    trial *t;
    mb_context *mb;
    const network *n;
    mb_optimizer *adam;
} lesson;

/* What is measured now and then. */
static void look(trial *t, mb_context *mb, const network *n, int64_t step, double by_token[LENGTH])
{
    double norms[SENSED];
    series_add(&t->loss, (double)step, measured(mb, n, by_token));
    measure_sensitivity(mb, n, norms);
    for (int i = 0; i < SENSED; i++)
        series_add(&t->sensitivity[i], (double)step, norms[i]);
}

static void learn(void *user, int64_t step)
{
    const lesson *l = user;
    if (step % set.every == 0)
        look(l->t, l->mb, l->n, step, NULL);
    mb_scope scope = mb_scope_begin(l->mb);
    pairs batch = pairs_of(training_batch(l->mb, l->t->seed, step), chosen_task());
    mb_step(l->adam, mb_mean(loss_by_token(network_apply(l->n, batch, NULL), batch.next), MB_ALL));
    mb_scope_end(scope);
}

static bool train(lesson *l)
{
    const model *m = &models[l->t->model];
    char *path = file_of(l->t->folder, m->name, l->t->seed);
    series *told[1 + SENSED] = {&l->t->loss};
    for (int i = 0; i < SENSED; i++)
        told[1 + i] = &l->t->sensitivity[i];
    bool all = training_run(&(training){l->mb, l->adam, path, l->t->resumed, told, COUNT(told), l->t->steps,
                                        SAVE_EVERY, m->layers},
                            learn, l);
    free(path);
    return all;
}

/* Of what it has become. */
static bool measure(trial *t, mb_context *mb, const network *n, const solvers *s)
{
    look(t, mb, n, t->steps, t->by_token);
    measure_compressed(t, mb, n);
    run_probes(t, mb, n, s);
    return run_linearised(t, mb, n) && (!shots_wanted() || run_shots(t, mb, n));
}

void run_trial(trial *t, const solvers *s)
{
    const model *m = &models[t->model];
    double started = now();
    mb_context *mb = open_context();
    mb_params *p = mb_params_new(mb, (uint64_t)t->seed);
    network n = network_new(p, m, SLOT, tasks[chosen_task()].seen);
    mb_optimizer *adam = optimizer_for(p, m, t->steps);
    t->complete = train(&(lesson){t, mb, &n, adam}) && measure(t, mb, &n, s);
    stop_at_error(mb);
    mb_optimizer_free(adam);
    mb_params_free(p);
    mb_close(mb);
    t->seconds = now() - started;
}

void trial_free(trial *t)
{
    series_free(&t->loss);
    for (int i = 0; i < SENSED; i++)
        series_free(&t->sensitivity[i]);
}

int64_t trial_units(const trial *t)
{
    return (t->steps + (shots_wanted() ? 2 * set.tune_steps : 0)) * models[t->model].layers;
}
