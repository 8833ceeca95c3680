/* SPDX-License-Identifier: MIT
 *
 * linear_transformer.h - what the files of this example share: the data of the paper's settings, the results
 * of a training run and of a sample of gradients, and who writes what. */
#ifndef LINEAR_TRANSFORMER_H
#define LINEAR_TRANSFORMER_H

#include <moebius.h>

#include "common.h"

enum { SGD, ADAM, OPTIMIZERS };
enum { SETTING_1, SETTING_2, SETTING_3, SPHERE, SETTINGS };
enum { D = 5, LAYERS = 3 };

/* How prompts are drawn, and the learning rates that suit them (table of appendix A of the paper). */
typedef struct setting {
    const char *name, *title;
    int64_t pairs; /* n: examples of a prompt */
    enum { NORMAL, GAMMA, UNIT } inputs;
    double lr[OPTIMIZERS], clip;
} setting;

extern const setting settings[SETTINGS];
extern const char *const optimizer_names[OPTIMIZERS];

typedef struct plan {
    const char *experiments, *backend, *out;
    int64_t steps, depth_steps, seeds, first_seed, test_seed, prompts, noise, noise_seeds, noise_reference,
        evaluate_every, smooth_every, smooth_until, condition_every, condition_until, threads;
    double lr[OPTIMIZERS]; /* 0: those of the setting */
    bool quick, check;
} plan;

extern plan set;

enum {
    LOSS,    /* of the test prompts: the mean, as in the paper; one prompt far in the tail can be all of it */
    TYPICAL, /* median of the means of 20 groups of them: what the mean would be without such a prompt */
    SMOOTH,  /* directional smoothness: u'H u for the unit vector u along the step that was then taken   */
    GRADIENT,  /* norm of the test prompts' gradient                                                       */
    SPECTRAL,  /* the Hessian's eigenvalue of largest magnitude                                            */
    CONDITION, /* robust condition number: largest by median absolute value of the Hessian's diagonal      */
    MEASURES
};

/* One training run. */
typedef struct trial {
    int setting, depth, optimizer;
    int64_t steps, seed;
    double lr;
    bool dense; /* measures smoothness at every step, and the spectral norm as well */
    bool complete;
    int64_t skipped; /* batches whose gradient was beyond float32 */
    series measure[MEASURES];
    double seconds;
} trial;

/* || g_k - g || for minibatch gradients g_k at the initial parameters. */
typedef struct noise {
    int setting, depth;
    int64_t seed;
    bool complete;
    int64_t n;
    double *norm;
    double mean, deviation, skewness, kurtosis, tail; /* kurtosis: excess; tail: largest by median */
} noise;

typedef struct results {
    trial *trials;
    noise *noises;
    int trial_count, noise_count;
    const char *folder;
} results;

/* linear_transformer_train.c */
void run_trial(trial *t);
void run_noise(noise *n);
int64_t trial_units(const trial *t); /* what run_trial tells jobs_advance in all */
int64_t noise_units(const noise *n);

/* linear_transformer_report.c */
void write_tables(const results *r);
/* Prints the table beside the paper's numbers, and tells what is not as it should be. Returns how many. */
int print_summary(const results *r);

/* linear_transformer_plot.c */
void draw_pictures(const results *r);

#endif
