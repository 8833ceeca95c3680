/* SPDX-License-Identifier: MIT
 *
 * mttt_tables.h - what the files of this example share: the runs that its tables are made of, what each was
 * found to do, and the report. */
#ifndef MTTT_TABLES_H
#define MTTT_TABLES_H

#include "mttt.h"

/* Of the paper, and of this program: tables 1, 2, figure 1, table 3. */
typedef enum table { LEARNERS, ABLATION, STEPS, PIXELS, TABLES } table;

/* What the sweep was told. */
typedef struct plan {
    const char *tables, *runs, *backend, *data, *out;
    int64_t seeds, first_seed, patch, dim, heads, depth, epochs, batch, warmup, train_images, test_images,
        most_steps, pixel_patch, pixel_epochs, pixel_images, threads, save_every;
    double lr;
    bool quick, check, resume;
} plan;

extern plan told;

/* A kind of run. */
typedef struct variant {
    char name[32];     /* of its folder, without the seed */
    const char *title; /* in tables and pictures */
    const char *learner, *norm, *start;
    int64_t inner_steps, parts; /* parts of the tokens, one a step; 1: each step has all */
    bool wide;                  /* feed-forward networks so wide that it has mlp's parameters */
    bool pixels;                /* of --pixel-patch */
    unsigned tables;            /* 1 << table, for each that it is in */
    double imagenet;            /* the paper's accuracy in %; NaN: none */
} variant;

enum { MOST_VARIANTS = 64 };

/* What a run did: a row of runs.csv. */
typedef struct row {
    int variant;
    int64_t seed, parameters;
    double flops, loss, accuracy; /* on the test images; NaN where it diverged */
} row;

typedef struct sweep {
    const char *folder;
    variant variants[MOST_VARIANTS];
    int variant_count, row_count;
    row *rows; /* [variant_count seeds] */
    csv table;
    double units_done, units_total, units_of_run;
    double units_before; /* done by processes that came before this one */
    progress bar;
    char label[96];
} sweep;

/* ---- mttt_tables_plan.c: which runs there are ---- */

bool is_asked_for(table t);
void list_variants(sweep *s);
bool is_in(const variant *v, table t);
int64_t tokens_of(const variant *v);
/* Sets `set`, what mttt's files are told. */
void set_run(const variant *v, int64_t seed);
/* Of a step of training, as far as it can be told beforehand. */
double units_of_step(const variant *v);
int64_t steps_of(const variant *v);

/* ---- mttt_tables_rows.c: what the runs did ---- */

/* "FOLDER/NAME-SEED"; the caller frees it. */
char *folder_of(const sweep *s, const variant *v, int64_t seed);
/* runs.csv, anew, or with the whole rows that are there. */
void open_rows(sweep *s);
bool has_row(const sweep *s, int variant, int64_t seed);
void add_row(sweep *s, row r);
/* Of the rows of a variant; false where there are none. */
bool over_seeds(const sweep *s, int variant, double *mean, double *deviation);
const row *first_row(const sweep *s, int variant);
int variant_of(const sweep *s, const char *name); /* -1: none */

/* ---- mttt_tables_report.c, mttt_tables_plot.c ---- */

void write_tables(const sweep *s);
void print_summary(const sweep *s);
void draw_tables(const sweep *s);

#endif
