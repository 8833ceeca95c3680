/* SPDX-License-Identifier: MIT
 *
 * mesa.h - what the files of this example share: sequences, what learners by least squares predict of them,
 * transformers, their training, probes, and the report. */
#ifndef MESA_H
#define MESA_H

#include <moebius.h>

#include "checkpoint.h"
#include "common.h"

enum {
    LENGTH = 50,
    MOST_SHOTS = 64,
    MOST_LAYERS = 7,
    CHEBYSHEV_STEPS = 6,
    SLOTS = 4, /* of a token */
    SLOT = 10  /* entries of one, but where sizes are compared */
};

typedef struct plan {
    const char *models, *task, *size_tokens, *backend, *out, *resume;
    int64_t shots, prefix, tune_steps;
    double tune_lr;
    int64_t size_steps, most_entries, distil_steps, bare_steps, steps, deep_steps, solver_steps, seeds,
        first_seed, batch, validation, every, threads;
    bool quick, check;
} plan;

extern plan set;

typedef struct trial trial; /* a training run */

/* ---- mesa_tasks.c: sequences ---- */

/* h_{t+1} = W f(h_t) + noise, s_t = C h_t; W is drawn for each sequence. */
typedef enum task { FULL, PARTIAL, NONLINEAR, CONTRACTING, FIXED, TASKS } task;

typedef struct task_kind {
    const char *name, *title;
    int64_t state, seen; /* entries of h, and of s */
    double clip;         /* of states */
} task_kind;

extern const task_kind tasks[TASKS];

/* What is drawn: [B,LENGTH+1,seen]. */
mb_tensor draw_sequences(mb_context *mb, mb_key key, task which, mb_dtype dtype, int64_t count);

/* Of the fully observed task, with states of n entries, and others than LENGTH of them: [B,length+1,n]. */
mb_tensor draw_systems(mb_context *mb, mb_key key, int64_t count, int64_t n, int64_t length);

/* A sequence as pairs to learn from, [B,length,seen]: s_t; s_{t-1}, zeros at first; and s_{t+1}. And what
 * learners by least squares regress s_{t+1} on, with that of the token before: s_t; of the nonlinear task the
 * teacher's features of it, of the partially observed one the last RECENT observations. */
enum { RECENT = 5 };

typedef struct pairs {
    mb_tensor now, before, next, recent, recent_before;
} pairs;

pairs pairs_of(mb_tensor sequences, task which);
/* t: [B,N,seen], by so many tokens later, zeros at first. */
mb_tensor delayed(mb_tensor t, int64_t by);
/* Mean over sequences of |guess - next|^2 / 2: [length]. */
mb_tensor loss_by_token(mb_tensor guess, mb_tensor next);

/* ---- mesa_solvers.c: learners written down ---- */

/* eta sum over t' < t of s_{t'+1} (s_t' . s_t): a step of gradient descent from 0, of all guesses before t.
 */
mb_tensor descend(pairs p, mb_tensor eta);
/* The guess of recursive least squares, with the ridge 1 / lambda. */
mb_tensor least_squares(pairs p, double lambda);

/* Proposition 2: steps of a Chebyshev iteration for (S_{t-1} S_{t-1}^T + ridge) x_t = s_t, in which the
 * matrix is divided by its size, as in the paper's code; the product with it is a layer of linear attention.
 * Then a step of descent with x_t in place of s_t. alpha, beta: [CHEBYSHEV_STEPS], eta: 0-d. */
typedef struct chebyshev {
    mb_tensor alpha, beta, eta;
} chebyshev;

mb_tensor preconditioned(pairs p, chebyshev c); /* x_t: like p.recent */
mb_tensor chebyshev_guess(pairs p, chebyshev c);

/* Of states of so many entries, four times as many tokens: the last one guessed by the pairs before, each
 * weighted by the softmax of beta s_t' . s_t; by a step of descent; and by least squares. As a part of the
 * loss of guessing zero; beta, eta and a factor of the softmax guess are the best. */
enum { KERNEL, LINEAR_KERNEL, LAST_SQUARES, KERNELS, SIZES = 6 };
extern const char *const kernel_names[KERNELS];
extern const int64_t kernel_sizes[SIZES];

typedef struct kernels {
    double left[SIZES][KERNELS], beta[SIZES];
} kernels;

/* What learners reach, on the validation sequences, and on regression in context: by all pairs of neighbours,
 * and by those that are examples. */
enum { ZERO, GD, RLS, PRECONDITIONED, SOLVERS };
enum { RIDGES = 3 };
extern const char *const solver_names[SOLVERS];
extern const double ridges[RIDGES]; /* 1 / lambda of least squares; the last one is RLS's */
extern const double known_eta;      /* at which GD's known loss was found */

typedef struct solvers {
    const char *folder; /* where what is learned is kept; NULL: nowhere */
    bool resumed, complete;
    double eta, loss[SOLVERS], by_token[SOLVERS][LENGTH];
    double loss_at_known_eta, ridge_loss[RIDGES];
    double by_shot[2][2 * MOST_SHOTS];
    kernels kernels;
    double alpha[CHEBYSHEV_STEPS], beta[CHEBYSHEV_STEPS], chebyshev_eta; /* learned */
    /* Of proposition 1's layer against the step written with mb_grad, float64: largest relative differences
     * of guesses, d loss / d eta, and d loss / d Phi_0. */
    double guess_error, eta_error, start_error;
} solvers;

void run_solvers(solvers *s);
chebyshev learned_chebyshev(mb_context *mb, const solvers *s); /* float32 */
int64_t solver_units(void);

/* ---- mesa_models.c: transformers ---- */

typedef enum mixer { LINEAR, SOFTMAX, MESA } mixer;

typedef struct model {
    const char *name, *title;
    int layers;
    mixer first, others;
    bool
        embedded; /* s_t alone is embedded, and positions are given; else tokens are [0, s_t, s_t, s_{t-1}] */
    int64_t heads, key;
    double lr, init, clip, decay;
} model;

enum { LINEAR_ONE, LINEAR_TWO, LINEAR_SIX, MESA_ONE, HYBRID, SOFTMAX_TWO, SOFTMAX_SEVEN, MODELS };
extern const model models[MODELS];

/* [heads,key,in] three times, [heads,width,key]; lambda [heads] of a mesa layer. */
typedef struct attention {
    mixer kind;
    mb_tensor query, key, value, out, lambda;
} attention;

typedef struct network {
    int layers;
    int64_t slot;          /* entries of one; a token's width is SLOTS times as much */
    bool embedded, masked; /* the second slot of the tokens is zeros */
    double clip;
    mb_tensor embed, unembed; /* [width,seen], [seen,width] */
    attention layer[MOST_LAYERS];
} network;

int64_t width_of(const network *n);
/* That of layer l. */
attention attention_new(mb_params *p, const model *m, int64_t slot, int l, mixer kind);
network network_new(mb_params *p, const model *m, int64_t slot, int64_t seen);
/* The guesses of s_{t+1}, [B,N,seen], of p.now and p.before. activations: NULL, or where the tokens after the
 * embedding and each layer go. */
mb_tensor network_apply(const network *n, pairs p, mb_tensor *activations);
/* What layer l adds to the tokens e, [B,N,width]. */
mb_tensor layer_output(const network *n, int l, mb_tensor e);
/* Proposition 1 as a layer: Phi_0 [slot,slot], with which the first slot begins; eta 0-d. */
mb_tensor constructed_apply(mb_tensor eta, mb_tensor start, pairs p);
/* The same function with products of the factors in their place: [heads,width,width] and identities. */
network products_of(const network *n);
/* CompressedAlg: of each slot by slot block of the products, the mean of its diagonal. */
network compressed(const network *products);
/* Halfway between two networks of products. */
network halfway(const network *a, const network *b);

/* ---- mesa_shots.c: regression in context ---- */

/* How examples are shown: x, y, x, y, ..; each followed by a tuned token; and tuned ones before the first. */
typedef enum way { PLAIN, EOS, EOS_PREFIX, WAYS } way;
extern const char *const way_names[WAYS];

/* y = W x for each of `maps` in a row, [B,maps * shots,SLOT]; x is uniform on [-1,1) like the first states of
 * sequences. */
typedef struct examples {
    mb_tensor x, y;
} examples;

examples draw_examples(mb_context *mb, mb_key key, int64_t count, int64_t maps);

/* Tunes and measures; false: stopped. */
bool run_shots(trial *t, mb_context *mb, const network *n);
void solve_shots(solvers *s, mb_context *mb);
/* Whether the task's sequences are of linear systems that are seen. */
bool shots_wanted(void);

/* ---- mesa_linear.c: how much of softmax attention is linear ---- */

void compare_kernels(kernels *k, mb_context *mb);

/* Of softmax layers: what a linear one in their place leaves of |output|^2, and the loss with it; NaN for
 * others. */
typedef struct linearised {
    double left[MOST_LAYERS], loss[MOST_LAYERS];
} linearised;

typedef struct distillation {
    mb_context *mb;
    const network *n;
    const model *m;
    mb_tensor (*draw)(mb_context *mb, const network *n, mb_key key, int64_t count); /* sequences */
    double (*loss)(mb_context *mb, const network *n);
    const char *folder, *name; /* of its file */
    bool resumed;
    int64_t seed, batch, measured; /* sequences of a step, and of measuring what is left */
    int64_t units;                 /* of a step */
} distillation;

/* Trains a linear layer on what each softmax layer adds, then puts it in its place; false: stopped. */
bool linearise(const distillation *d, linearised *to);
bool run_linearised(trial *t, mb_context *mb, const network *n);

/* ---- mesa_sizes.c: the same for states of more and more entries ---- */

enum { SIZE_LAYERS = 2 };

/* A network that is trained on sequences of states of so many entries, and losses on others. */
typedef struct size_run {
    const char *folder;
    int64_t entries;
    bool resumed, complete;
    double zero, loss; /* of guessing zero, and of the network */
    linearised linearised;
} size_run;

void run_size(size_run *s);
int64_t size_units(const size_run *s);

/* ---- mesa_train.c ---- */

enum { SAVE_EVERY = 100, MOST_BATCH = 256 /* of validation */ };

/* What the first layer's last token is sensitive to: s_t itself, those 1, 2 and 3 before, and the mean of
 * older ones. */
enum { SENSED = 5 };

/* Uses of a seed. */
enum {
    STREAM_TRAINING,
    STREAM_VALIDATION,
    STREAM_TUNING,
    STREAM_SHOTS,
    STREAM_SENSITIVITY,
    STREAM_DISTILLED,
    STREAM_KERNELS
};
mb_key key_of(int64_t seed, int stream, int64_t n);

struct trial {
    const char *folder; /* where its network is kept; NULL: nowhere */
    int model;
    int64_t seed, steps;
    bool resumed, complete;
    series loss, sensitivity[SENSED];
    double by_token[LENGTH];
    double by_shot[WAYS][2 * MOST_SHOTS]; /* regression in context, of two maps in a row */
    linearised linearised;
    double compressed_loss, halfway_loss; /* NaN where there is none */
    double target_probe[MOST_LAYERS + 1][LENGTH], solution_probe[MOST_LAYERS + 1][LENGTH];
    double binding[8]; /* how well the first layer's last token holds those before, nearest first */
    double seconds;
};

void run_trial(trial *t, const solvers *s);
void trial_free(trial *t);
int64_t trial_units(const trial *t);
/* FOLDER/NAME-seed-N.safetensors, which the caller frees; NULL without a folder. */
char *file_of(const char *folder, const char *name, int64_t seed);
mb_context *open_context(void);
task chosen_task(void);
/* The loss on the validation sequences; by_token may be NULL. */
double measured(mb_context *mb, const network *n, double by_token[LENGTH]);
/* Batch i of the validation sequences, float32. */
mb_tensor validation_batch(mb_context *mb, int64_t i, int64_t *count);
int64_t validation_batches(void);
int64_t validation_count(int64_t i);
mb_tensor training_batch(mb_context *mb, int64_t seed, int64_t step);

/* ---- mesa_probes.c ---- */

void run_probes(trial *t, mb_context *mb, const network *n, const solvers *s);
/* |d f / d s_t'| for a coordinate f of the first layer's last token: mean over coordinates and sequences. */
void measure_sensitivity(mb_context *mb, const network *n, double norms[SENSED]);

/* ---- mesa_report.c ---- */

typedef struct results {
    solvers solvers;
    trial *trials;
    size_run sizes[SIZES]; /* the largest first */
    int trial_count, size_count;
    const char *folder;
} results;

void write_tables(const results *r);
void draw_pictures(const results *r);
void print_summary(const results *r);

#endif
