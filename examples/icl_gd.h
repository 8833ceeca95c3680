/* SPDX-License-Identifier: MIT
 *
 * icl_gd.h - what the files of this example share: the tasks, gradient descent as a function and as weights,
 * and what a trained layer is compared with. */
#ifndef ICL_GD_H
#define ICL_GD_H

#include <moebius.h>

#include "common.h"

enum { D = 10, PAIRS = 10, MOST_LAYERS = 5 };

typedef struct plan {
    const char *models, *backend, *out;
    int64_t steps, deep_steps, gd_steps, seeds, first_seed, batch, validation, every, threads;
    double range;
    bool quick, check;
} plan;

extern plan set;

/* ---- icl_gd_models.c ---- */

typedef enum inputs {
    UNIFORM, /* on [-range/2, range/2), as in training                                                      */
    MIXED /* a third each normal, exponential, Laplace; tokens then have length 1                         */
} inputs;

/* How tasks are drawn: x as above, times x_scale, and y = w.x for w ~ N(0, w_scale^2). */
typedef struct drawing {
    mb_dtype dtype;
    int64_t count; /* B */
    inputs inputs;
    double x_scale, w_scale;
} drawing;

/* B tasks: find w from PAIRS pairs, and apply it to the query. */
typedef struct tasks {
    mb_tensor x, query;  /* [B,PAIRS,D], [B,1,D] */
    mb_tensor y, answer; /* [B,PAIRS], [B,1] */
} tasks;

tasks draw_tasks(mb_context *mb, mb_key key, drawing how);
mb_tensor tokens_of(tasks t);                /* [B,PAIRS+1,D+1] */
mb_tensor loss_of(mb_tensor guess, tasks t); /* guess: [B,1] -> 0-d: mean of (guess - answer)^2 / 2 */

/* Steps of gradient descent on each task's own least squares. eta: [layers], or 0-d for the same in each.
 * gamma: the same, or {0} for plain gradient descent; else GD++, whose steps also change the inputs. */
typedef struct descent {
    int layers;
    mb_tensor eta, gamma;
} descent;

/* Answers [B,1]: as steps that differentiate the loss ... */
mb_tensor descend(descent d, tasks t);
/* ... and as the attention layers that do the same. */
mb_self_attention constructed(descent d);

/* ---- icl_gd_train.c ---- */

/* What is trained, and beside what: */
typedef struct model {
    const char *name, *title;
    int layers;
    bool tied;
    bool plus;                  /* compared with GD++, otherwise with GD */
    double lr, clip_norm, clip; /* of Adam; of its gradients; of tokens */
} model;

enum { ONE, TWO, FIVE, MODELS };
extern const model models[MODELS];

/* Gradient descent with the best step sizes, which are trained through the steps. */
typedef struct baseline {
    int model;
    bool plus, complete;
    double eta[MOST_LAYERS], gamma[MOST_LAYERS];
    double loss;                   /* on the validation tasks */
    double eta_error, gamma_error; /* of d loss / d eta (gamma), through the steps against through the
                                    * weights, relative, float64; NaN where there is no gamma */
} baseline;

enum {
    LOSS,
    DIFFERENCE,   /* mean of |guess - the baseline's guess|                                               */
    COSINE,       /* mean cosine of the two sensitivities, d guess / d query                              */
    DISTANCE,     /* mean length of their difference                                                      */
    INTERPOLATED, /* loss of the layer halfway between the trained one and the construction               */
    MEASURES
};

enum { SCALE_X, SCALE_W, SCALE_MIXED, MIX, ROLL_OUT, SWEEPS };
enum { TRAINED, PLAIN, PLUS, CURVES };

/* One training run. */
typedef struct trial {
    int model;
    int64_t seed, steps;
    bool complete;
    int64_t skipped; /* batches whose gradient was beyond float32 */
    const baseline *gd, *plus;
    series measure[MEASURES];
    series sweep[SWEEPS][CURVES]; /* losses of the three over a range */
    double seconds;
} trial;

void run_baseline(baseline *b);
void run_trial(trial *t);
int64_t baseline_units(const baseline *b);
int64_t trial_units(const trial *t);

/* ---- icl_gd_report.c ---- */

typedef struct results {
    baseline *baselines;
    trial *trials;
    int baseline_count, trial_count;
    const char *folder;
} results;

void write_tables(const results *r);
void draw_pictures(const results *r);
void print_summary(const results *r);

#endif
