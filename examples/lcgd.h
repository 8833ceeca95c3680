/* SPDX-License-Identifier: MIT
 *
 * lcgd.h - what the files of this example share: prompts, a decoder, its training, fine-tuning, what is
 * compared, and the report. */
#ifndef LCGD_H
#define LCGD_H

#include <moebius.h>

#include "checkpoint.h"
#include "common.h"

enum { MOST_LAYERS = 64, MOST_CLASSES = 16, MOST_RATES = 8 };

typedef struct plan {
    const char *backend, *out, *resume, *weights, *vocabulary, *merges, *texts, *form;
    int64_t layers, width, heads, classes, words, text, shots, steps, batch, seeds, first_seed, tasks,
        queries, threads;
    double noise, lr, rate, spread;
    int64_t rates;
    bool quick, check;
} plan;

extern plan set;

/* ---- lcgd_language.c: a language of prompts ---- */

/* A text is `text` words of one class, but for noise; a demonstration is a text and its label. Which label a
 * class has is drawn anew for each task. Tokens: words, class by class, then labels. */
typedef struct task {
    int32_t label[MOST_CLASSES]; /* of a class: a token */
    uint64_t seed;               /* of its texts */
} task;

int64_t vocabulary(void);
int64_t demonstration_length(void); /* text and label */
int32_t first_label(void);
/* Labels of other turns are the same ones, each moved by that many classes. */
task task_of(uint64_t seed, int64_t turn);
/* Demonstrations one after the other, [count * demonstration_length()], from number `first` of the task on.
 */
void demonstrations(const task *t, int64_t first, int64_t count, int32_t *tokens);

/* What a model meets: demonstrations, and queries of which it is asked for the label. */
typedef struct problem {
    int64_t shots, queries, told; /* told: tokens of the demonstrations */
    int32_t *tokens;              /* the demonstrations, labels included, then the queries' texts */
    int64_t *length;              /* [shots + queries] */
    int32_t *label;               /* [queries]: the token that is right */
    int32_t candidates[MOST_CLASSES];
    int candidate_count;
} problem;

problem problem_new(int64_t shots, int64_t queries, int64_t tokens);
void problem_free(problem *p);
/* The next demonstration or query; p->told grows with the demonstrations. */
void problem_add(problem *p, int64_t number, const int32_t *tokens, int64_t n);
problem problem_of_task(const task *t);

/* ---- lcgd_model.c: a decoder ---- */

typedef struct decoder_shape {
    int64_t layers, width, heads, vocabulary, context;
} decoder_shape;

typedef struct decoder {
    int layers;
    int64_t heads, width;
    mb_embedding embed;
    mb_tensor positions; /* [context, width] */
    mb_block block[MOST_LAYERS];
    mb_layer_norm norm;
    mb_linear head;
} decoder;

decoder decoder_new(mb_params *p, const decoder_shape *shape);
/* Logits [B,N,vocabulary] of tokens [B,N], int32. */
mb_tensor decoder_apply(const decoder *d, mb_tensor tokens);
/* Of a layer's tokens [B,N,width]: through the last norm and the head. */
mb_tensor readout(const decoder *d, mb_tensor x);
/* Mean cross-entropy of each next token: logits [B,N,V], tokens [B,N]. */
mb_tensor next_token_loss(mb_tensor logits, mb_tensor tokens);

/* ---- lcgd_look.c: what is seen in a decoder ---- */

/* The last token of a query, in each layer. */
typedef struct glimpse {
    int layers;
    int64_t width, heads, text, told; /* tokens of the query, and of demonstrations before it */
    float *output;                    /* [layers,width]: of attention */
    float *query;                     /* [layers,width]: heads side by side */
    float *scores;                    /* [layers,heads,text]: before the softmax, of the query's own tokens */
    float *weights; /* [layers,told]: after it, of the demonstrations' tokens, summed over heads */
    bool right;     /* whether the best of the candidates is the label */
} glimpse;

/* Of all queries, with the demonstrations before each, or without; out: [queries]. */
void look(const decoder *d, const problem *p, bool told, glimpse *out);
void glimpses_free(glimpse *g, int64_t count);

/* ---- lcgd_tune.c: fine-tuning on demonstrations ---- */

/* Of vanilla gradient descent, and of the layer-causal one: as its code does it, where each layer is trained
 * whole on its own early exit, and as its text writes it, where attention alone is. */
typedef enum variant { GD, LCGD, LCGD_TEXT, VARIANTS } variant;

extern const char *const variant_names[VARIANTS];

/* Losses of one demonstration, tokens [1,N]: their sum; each reaches the parameters of its own layer alone,
 * but for GD, which has one of all layers. each: NULL, or [layers]. */
mb_tensor demonstration_loss(const decoder *d, mb_tensor tokens, variant how, mb_tensor *each);

/* What one pass over the demonstrations leaves, beside the parameters. */
typedef struct tuning {
    float *norms;   /* [layers,shots]: of the gradient of a layer's keys and values */
    float *queries; /* [layers,told,width]: of the demonstrations' tokens, as they were tuned on */
} tuning;

/* One step of SGD for each demonstration, in order, on the projections to keys and values. */
void tune(const decoder *d, mb_params *p, mb_optimizer *sgd, const problem *from, variant how, tuning *t);
void tuning_free(tuning *t);

/* ---- lcgd_words.c, lcgd_public.c: a model that others have trained ---- */

/* A byte-pair vocabulary; dies where a file is not one. */
typedef struct words words;
words *words_open(const char *vocabulary_path, const char *merges_path);
void words_close(words *w);
/* Writes the first `most` tokens of the text; returns how many it has. */
int64_t words_encode(const words *w, const char *text, int32_t *tokens, int64_t most);

/* Of set.weights; heads are set.heads, which the file does not tell. */
decoder_shape public_shape(mb_context *mb);
void public_weights(decoder *d, mb_params *p);

/* Labelled texts, of set.texts, at least as many as a problem takes. */
typedef struct corpus corpus;
corpus *corpus_open(void);
void corpus_close(corpus *c);
/* Other lines, in another order, for each seed. */
problem problem_of_texts(const corpus *c, const words *w, uint64_t seed, int64_t context);

/* ---- lcgd_measure.c: what is compared ---- */

typedef enum measure { AOU, AOU_NORM, AM, AM_D, ALPHA, KENDALL, MEASURES } measure;
/* What the report shows beside them. */
enum { ACCURACY = MEASURES, REC2FTP, WHATS };

extern const char *const measure_names[MEASURES];

/* cos(a - a0, b - b0) of n numbers, 0 where either is 0; unit: each of the four is divided by its norm
 * before. NULL for zeros. */
double update_cosine(const float *a, const float *a0, const float *b, const float *b0, int64_t n, bool unit);
/* Kendall's tau-a of n pairs. */
double kendall(const double *a, const double *b, int64_t n);
/* Of `count` queries by zero-shot, in-context and tuned models, and of the tuning: [MEASURES][layers], the
 * mean over queries. gd: what vanilla descent has made of the model, for ALPHA; NULL: NaN. */
void measure_all(const glimpse *zero, const glimpse *icl, const glimpse *tuned, const glimpse *gd,
                 const tuning *t, int64_t count, double out[MEASURES][MOST_LAYERS]);
/* AOU and AOU_NORM with uniform noise in place of the tuned model's update. */
void measure_noise(const glimpse *zero, const glimpse *icl, int64_t count, uint64_t seed, double *aou,
                   double *aou_norm);
/* N(tuned and icl, beyond zero-shot) / N(tuned, beyond zero-shot); NaN where nothing is beyond. */
/* The same of two independent normal updates whose squares are 3 times that of the zero-shot output: 0, and
 * 1/4 as far as they are orthogonal. */
void measure_two_noises(const glimpse *zero, int64_t count, uint64_t seed, double *aou, double *aou_norm);
double rec2ftp(const glimpse *zero, const glimpse *icl, const glimpse *tuned, int64_t count);
double accuracy(const glimpse *g, int64_t count);

/* ---- lcgd_run.c: one seed: training, then comparisons ---- */

typedef enum kind { TRAINED, EMBEDDINGS, UNTRAINED, KINDS } kind;

extern const char *const kind_names[KINDS];

typedef struct outcome {
    kind kind;
    variant how;
    int rate; /* number of it */
    int64_t task;
    double accuracy, rec2ftp, by_layer[MEASURES][MOST_LAYERS];
    float *norms; /* [layers,shots] */
} outcome;

/* Of a model and a task. */
typedef struct setting {
    kind kind;
    int64_t task;
    double zero, icl, noise, noise_norm, two_noises, two_noises_norm;
} setting;

typedef struct trial {
    int64_t seed;
    const char *folder; /* where its model is kept */
    bool resumed, complete;
    series loss;
    int layers;
    setting *settings;
    outcome *outcomes;
    int setting_count, outcome_count;
    double seconds;
} trial;

void run_trial(trial *t);
int64_t trial_units(void);
void trial_free(trial *t);
/* Those that know less are tuned by gradient descent alone, as in the paper. */
int variants_of(kind k);
double rate_of(int number);
mb_context *open_context(void);

/* ---- lcgd_report.c ---- */

typedef struct results {
    trial *trials;
    int trial_count;
    const char *folder;
} results;

/* Of a measure, ACCURACY or REC2FTP; of one layer, or the mean where that is below 0. NaN where there is
 * none; deviation may be NULL. */
double of_trial(const trial *t, kind k, variant how, int rate, int what, int layer);
double over_seeds(const results *r, kind k, variant how, int rate, int what, int layer, double *deviation);
double of_settings(const trial *t, kind k, double (*of)(const setting *));
double settings_over_seeds(const results *r, kind k, double (*of)(const setting *), double *deviation);
double zero_shot(const setting *s);
double in_context(const setting *s);
int best_rate(const results *r, kind k, variant how); /* by accuracy */
void write_tables(const results *r);
void print_summary(const results *r);

/* ---- lcgd_plot.c ---- */

void draw_pictures(const results *r);

#endif
