/* SPDX-License-Identifier: MIT
 *
 * lcgd_run.c - one seed: a model is trained until it learns in context; then it, and models that know less,
 * meet tasks in a prompt and by fine-tuning, at each learning rate. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lcgd.h"

/* Of the loss: the labels count 1, all tokens this much, so that the model also knows what texts look like.
 */
static const double all_tokens = 0.1;

enum { MEASURE_EVERY = 25, SAVE_EVERY = 500, UNITS_OF_OUTCOME = 10 };

const char *const kind_names[KINDS] = {"trained", "trained-embeddings", "untrained"};

/* Uses of a seed. */
enum { STREAM_TRAINING, STREAM_TASKS, STREAM_WEIGHTS };

static uint64_t stream(int64_t seed, int use, int64_t n)
{
    return mb_key_fold(mb_key_fold(mb_key_of((uint64_t)seed), (uint64_t)use), (uint64_t)n).bits;
}

mb_context *open_context(void)
{
    mb_options options = {.backend = *set.backend ? set.backend : NULL, .threads = 1};
    return mb_open_with(&options);
}

double rate_of(int number)
{
    return set.rate * pow(set.spread, number);
}

/* ---- training ---- */

/* Mean loss of the labels, and in `all` of every token; tokens [B,N]. */
static mb_tensor label_loss(mb_tensor logits, mb_tensor tokens, mb_tensor *all)
{
    int64_t n = mb_dim(tokens, 1);
    mb_tensor next = mb_slice(tokens, 1, 1, n - 1, 1);
    mb_tensor loss = mb_cross_entropy_with(mb_slice(logits, 1, 0, n - 1, 1), next,
                                           MB_LIT(mb_cross_entropy_options){.each_row = true});
    int64_t text = set.text, labels = n / (text + 1);
    *all = mb_mean(loss, MB_ALL);
    return mb_mean(mb_slice(loss, 1, text - 1, labels, text + 1), MB_ALL);
}

static mb_tensor training_batch(mb_context *mb, int64_t seed, int64_t step)
{
    int64_t count = set.shots + 1, n = count * demonstration_length(); /* the last one is a query's place */
    int32_t *tokens = malloc((size_t)(set.batch * n) * sizeof *tokens);
    if (!tokens)
        die("out of memory");
    for (int64_t b = 0; b < set.batch; b++) {
        task t = task_of(stream(seed, STREAM_TRAINING, step * set.batch + b), 0);
        demonstrations(&t, 0, count, tokens + b * n);
    }
    mb_tensor x = mb_from(mb, MB_INT32, MB_SHAPE(set.batch, n), tokens);
    free(tokens);
    return x;
}

typedef struct lesson {
    trial *t;
    const decoder *d;
    mb_optimizer *adam;
} lesson;

static void learn(void *user, int64_t step)
{
    lesson *l = user;
    mb_context *mb = l->d->positions.ctx;
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor tokens = training_batch(mb, l->t->seed, step), all;
    mb_tensor labels = label_loss(decoder_apply(l->d, tokens), tokens, &all);
    mb_step(l->adam, mb_add(labels, mb_mul(all, all_tokens)));
    if (step % MEASURE_EVERY == 0)
        series_add(&l->t->loss, (double)step, mb_item(labels));
    mb_scope_end(scope);
}

/* ---- comparisons ---- */

typedef struct bench {
    mb_params *p;
    decoder d;
    mb_optimizer *sgd;
    mb_snapshot *trained, *start; /* the model as it was trained, and as tuning begins */
    corpus *texts;                /* with public weights; NULL: tasks are of the language */
    words *words;
    int64_t context;
} bench;

static void become(const bench *b, kind k, int64_t seed)
{
    uint64_t weights = stream(seed, STREAM_WEIGHTS, k);
    mb_snapshot_restore(b->trained, "");
    if (k == EMBEDDINGS) {
        mb_params_reinit(b->p, "blocks.*.attention", weights);
        mb_params_reinit(b->p, "blocks.*.mlp", weights);
    } else if (k == UNTRAINED) {
        mb_params_reinit(b->p, "", weights);
    }
    mb_snapshot_take(b->start);
    mb_eval(NULL, 0);
}

/* What a model makes of a problem. */
typedef struct exam {
    problem p;
    glimpse *zero, *icl, *tuned, *gd; /* [queries] */
} exam;

static exam exam_of(problem p)
{
    size_t n = (size_t)p.queries;
    exam e = {.p = p, .zero = calloc(4 * n + 1, sizeof *e.zero)};
    if (!e.zero)
        die("out of memory");
    e.icl = e.zero + n, e.tuned = e.icl + n, e.gd = e.tuned + n;
    return e;
}

static void exam_free(exam *e)
{
    glimpses_free(e->zero, 4 * e->p.queries);
    free(e->zero);
    problem_free(&e->p);
}

static void compare(trial *t, const bench *b, exam *e, outcome *o)
{
    tuning tuned;
    glimpse *g = o->how == GD ? e->gd : e->tuned;
    glimpses_free(g, e->p.queries);
    mb_optimizer_set_lr(b->sgd, rate_of(o->rate));
    tune(&b->d, b->p, b->sgd, &e->p, o->how, &tuned);
    look(&b->d, &e->p, false, g);
    o->accuracy = accuracy(g, e->p.queries);
    o->rec2ftp = rec2ftp(e->zero, e->icl, g, e->p.queries);
    measure_all(e->zero, e->icl, g, o->how == GD ? NULL : e->gd, &tuned, e->p.queries, o->by_layer);
    o->norms = tuned.norms;
    tuned.norms = NULL;
    tuning_free(&tuned);
    mb_snapshot_restore(b->start, "");
    mb_eval(NULL, 0);
    t->outcome_count++;
    jobs_advance(UNITS_OF_OUTCOME);
}

int variants_of(kind k)
{
    return k == TRAINED ? VARIANTS : 1;
}

static void meet(trial *t, const bench *b, kind k, int64_t number)
{
    /* As many tasks as there are classes have the same texts, whose labels take turns: a guess is right once.
     */
    uint64_t seed = stream(t->seed, STREAM_TASKS, *set.weights ? number : number / set.classes);
    setting *s = &t->settings[t->setting_count++];
    task task = task_of(seed, number % set.classes);
    exam e =
        exam_of(b->texts ? problem_of_texts(b->texts, b->words, seed, b->context) : problem_of_task(&task));
    look(&b->d, &e.p, false, e.zero);
    look(&b->d, &e.p, true, e.icl);
    *s = (setting){k, number, accuracy(e.zero, e.p.queries), accuracy(e.icl, e.p.queries), 0, 0, 0, 0};
    measure_noise(e.zero, e.icl, e.p.queries, seed, &s->noise, &s->noise_norm);
    measure_two_noises(e.zero, e.p.queries, seed, &s->two_noises, &s->two_noises_norm);
    for (int r = 0; r < set.rates && !stop_wanted(); r++)
        for (int v = 0; v < variants_of(k); v++) {
            outcome *o = &t->outcomes[t->outcome_count];
            *o = (outcome){.kind = k, .how = (variant)v, .rate = r, .task = number};
            compare(t, b, &e, o);
        }
    exam_free(&e);
}

static int64_t outcomes(void)
{
    int64_t each = 0;
    for (int k = 0; k < KINDS; k++)
        each += variants_of((kind)k);
    return each * set.rates * set.tasks;
}

int64_t trial_units(void)
{
    return (*set.weights ? 0 : set.steps) + outcomes() * UNITS_OF_OUTCOME;
}

static void compare_all(trial *t, bench *b)
{
    t->settings = calloc((size_t)(KINDS * set.tasks), sizeof *t->settings);
    t->outcomes = calloc((size_t)outcomes(), sizeof *t->outcomes);
    if (!t->settings || !t->outcomes)
        die("out of memory");
    mb_params_freeze(b->p, "");
    mb_params_unfreeze(b->p, "blocks.*.attention.qkv");
    for (int k = 0; k < KINDS && !stop_wanted(); k++) {
        become(b, (kind)k, t->seed);
        for (int64_t n = 0; n < set.tasks && !stop_wanted(); n++)
            meet(t, b, (kind)k, n);
    }
}

/* A model of one's own: trained, or the rest of it. */
static void make_model(trial *t, bench *b)
{
    const decoder_shape shape = {set.layers, set.width, set.heads, vocabulary(),
                                 (set.shots + 1) * demonstration_length()};
    char name[64];
    snprintf(name, sizeof name, "seed-%lld.safetensors", (long long)t->seed);
    char *path = path_in(t->folder, name);
    b->d = decoder_new(b->p, &shape);
    mb_adamw_options o = {.lr = set.lr, .weight_decay = 0.1, .beta2 = 0.98, .clip_norm = 1};
    o.schedule = mb_schedule_warmup_cosine(50, set.steps);
    mb_optimizer *adam = mb_adamw(b->p, o);
    series *told[] = {&t->loss};
    training training = {mb_params_context(b->p), adam, path, t->resumed, told, 1, set.steps, SAVE_EVERY, 1};
    training_run(&training, learn, &(lesson){t, &b->d, adam});
    mb_optimizer_free(adam);
    free(path);
}

static void take_model(bench *b)
{
    decoder_shape shape = public_shape(mb_params_context(b->p));
    b->d = decoder_new(b->p, &shape);
    public_weights(&b->d, b->p);
    b->texts = corpus_open();
    b->words = words_open(set.vocabulary, set.merges);
    b->context = shape.context;
}

void run_trial(trial *t)
{
    double started = now();
    mb_context *mb = open_context();
    bench b = {.p = mb_params_new(mb, (uint64_t)t->seed)};
    stop_at_error(mb);
    if (*set.weights)
        take_model(&b);
    else
        make_model(t, &b);
    stop_at_error(mb);
    b.sgd = mb_sgd(b.p, (mb_sgd_options){.lr = 1});
    b.trained = mb_snapshot_new(b.p);
    b.start = mb_snapshot_new(b.p);
    t->layers = b.d.layers;
    if (!stop_wanted())
        compare_all(t, &b);
    t->complete = !stop_wanted();
    stop_at_error(mb);
    mb_snapshot_free(b.trained);
    mb_snapshot_free(b.start);
    mb_optimizer_free(b.sgd);
    mb_params_free(b.p);
    mb_close(mb);
    if (b.texts) {
        corpus_close(b.texts);
        words_close(b.words);
    }
    t->seconds = now() - started;
}

void trial_free(trial *t)
{
    for (int i = 0; i < t->outcome_count; i++)
        free(t->outcomes[i].norms);
    free(t->outcomes);
    free(t->settings);
    series_free(&t->loss);
}
