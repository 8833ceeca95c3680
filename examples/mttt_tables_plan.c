/* SPDX-License-Identifier: MIT
 *
 * mttt_tables_plan.c - the runs that the tables are made of, and what each is told. */
#include <math.h>
#include <string.h>

#include "mttt_tables.h"

enum {
    IN_LEARNERS = 1 << LEARNERS,
    IN_ABLATION = 1 << ABLATION,
    IN_STEPS = 1 << STEPS,
    IN_PIXELS = 1 << PIXELS
};

/* In the paper's order. A kernel learner is softmax attention there, and has its accuracy. */
static const variant listed[] = {
    {"linear-attention", "linear attention (identity map)", "linear-attention", "auto", "auto", 1, 1,
     .tables = IN_LEARNERS | IN_PIXELS, .imagenet = 73.0},
    {"adaptive-attention", "linear attention (Katharopoulos)", "adaptive-attention", "auto", "auto", 1, 1,
     .tables = IN_LEARNERS | IN_PIXELS, .imagenet = 73.2},
    {"linear", "MTTT-Linear", "linear", "auto", "auto", 1, 1, .tables = IN_LEARNERS | IN_PIXELS,
     .imagenet = 72.8},
    {"mlp", "MTTT-MLP", "mlp", "on", "on", 1, 1, .tables = IN_LEARNERS | IN_ABLATION | IN_STEPS | IN_PIXELS,
     .imagenet = 74.6},
    {"kernel", "kernel learner", "kernel", "auto", "auto", 1, 1, .tables = IN_LEARNERS, .imagenet = 76.5},
    {"softmax", "softmax attention", "softmax", "auto", "auto", 1, 1, .tables = IN_LEARNERS,
     .imagenet = 76.5},
    {"linear-attention-wide", "linear attention (as many parameters)", "linear-attention", "auto", "auto", 1,
     1, .wide = true, .tables = IN_LEARNERS, .imagenet = NAN},
    {"mlp-norm-no-start-frozen", "no LN, W_0 frozen", "mlp", "off", "frozen", 1, 1, .tables = IN_ABLATION,
     .imagenet = 72.9},
    {"mlp-norm-no-start-learned", "no LN, W_0 learned", "mlp", "off", "on", 1, 1, .tables = IN_ABLATION,
     .imagenet = 73.0},
    {"mlp-norm-yes-start-frozen", "LN, W_0 frozen", "mlp", "on", "frozen", 1, 1, .tables = IN_ABLATION,
     .imagenet = 73.8},
    {"pixels-linear-attention", "linear attention (identity map)", "linear-attention", "auto", "auto", 1, 1,
     .pixels = true, .tables = IN_PIXELS, .imagenet = 49.9},
    {"pixels-adaptive-attention", "linear attention (Katharopoulos)", "adaptive-attention", "auto", "auto", 1,
     1, .pixels = true, .tables = IN_PIXELS, .imagenet = 53.7},
    {"pixels-linear", "MTTT-Linear", "linear", "auto", "auto", 1, 1, .pixels = true, .tables = IN_PIXELS,
     .imagenet = 50.0},
    {"pixels-mlp", "MTTT-MLP", "mlp", "on", "on", 1, 1, .pixels = true, .tables = IN_PIXELS,
     .imagenet = 61.9},
    {"pixels-mlp-4-parts", "MTTT-MLP (4 mini-batches)", "mlp", "on", "on", 4, 4, .pixels = true,
     .tables = IN_PIXELS, .imagenet = 65.2},
};

bool is_asked_for(table t)
{
    static const char *const names[TABLES] = {"learners", "ablation", "steps", "pixels"};
    return strcmp(told.tables, "all") == 0 || strcmp(told.tables, names[t]) == 0;
}

static bool wanted(unsigned tables)
{
    for (int t = 0; t < TABLES; t++)
        if (tables >> t & 1 && is_asked_for((table)t))
            return true;
    return false;
}

/* Whether --runs has the name, or is not there. */
static bool is_chosen(const char *name)
{
    size_t n = strlen(name);
    for (const char *at = told.runs; *at; at += strcspn(at, ","), at += *at == ',')
        if (strcspn(at, ",") == n && strncmp(at, name, n) == 0)
            return true;
    return !*told.runs;
}

static void add(sweep *s, variant v)
{
    if (wanted(v.tables) && is_chosen(v.name) && s->variant_count < MOST_VARIANTS)
        s->variants[s->variant_count++] = v;
}

/* T steps with all tokens each, or with one of T parts. */
static void add_steps(sweep *s, int64_t T, int64_t parts)
{
    variant v = {.title = "",
                 .learner = "mlp",
                 .norm = "on",
                 .start = "on",
                 .inner_steps = T,
                 .parts = parts,
                 .tables = IN_STEPS,
                 .imagenet = NAN};
    snprintf(v.name, sizeof v.name, parts > 1 ? "mlp-%lld-parts" : "mlp-%lld-steps", (long long)T);
    add(s, v);
}

void list_variants(sweep *s)
{
    for (int i = 0; i < COUNT(listed); i++)
        add(s, listed[i]);
    add_steps(s, 0, 1);
    for (int64_t T = 2; T <= told.most_steps; T *= 2)
        add_steps(s, T, 1);
    int64_t N = tokens_of(&listed[0]);
    for (int64_t T = 2; T <= N;
         T++) /* divisors, at most those up to 64: online descent takes as long as they */
        if (N % T == 0 && T <= 64)
            add_steps(s, T, T);
    if (s->variant_count == 0)
        die("--runs \"%s\": none of --tables %s has such a name", told.runs, told.tables);
}

bool is_in(const variant *v, table t)
{
    return v->tables >> t & 1;
}

int64_t tokens_of(const variant *v)
{
    int64_t side = 28 / (v->pixels ? told.pixel_patch : told.patch);
    return side * side;
}

/* What a learner has in a block beyond linear attention: its start, its decoder's norm. */
static int64_t hidden_for(const variant *v)
{
    int64_t D = told.dim, H = told.heads, dh = D / H, more = 2 * H * D + H * (8 * dh * dh + 5 * dh);
    return v->wide ? 4 * D + (more + D) / (2 * D + 1) : 4 * D;
}

void set_run(const variant *v, int64_t seed)
{
    static settings standard; /* mttt's */
    if (!standard.learner)    /* at the first call */
        standard = set;
    set = standard;
    set.learner = v->learner;
    set.decoder_norm = v->norm;
    set.learned_start = v->start;
    set.inner_steps = v->inner_steps;
    set.inner_batch = v->parts > 1 ? tokens_of(v) / v->parts : 0;
    set.patch = v->pixels ? told.pixel_patch : told.patch;
    set.positions = v->pixels ? "learned" : "sincos2d";
    set.dim = told.dim;
    set.heads = told.heads;
    set.depth = told.depth;
    set.hidden = hidden_for(v);
    set.epochs = v->pixels ? told.pixel_epochs : told.epochs;
    set.train_images = v->pixels ? told.pixel_images : told.train_images;
    set.test_images = told.test_images;
    set.batch = told.batch;
    set.warmup = told.warmup;
    set.lr = told.lr;
    set.seed = seed;
    set.backend = told.backend;
    set.threads = told.threads;
    set.data = told.data;
    set.save_every = told.save_every;
    set.log_every = 50;
}

int64_t steps_of(const variant *v)
{
    int64_t images = v->pixels ? told.pixel_images : told.train_images;
    return (images ? images : 60000) / told.batch * (v->pixels ? told.pixel_epochs : told.epochs);
}

/* Products of a token in a block, those of inner steps as often as their derivatives take, and what
 * mini-batches take besides, as measured: times differ from these by a factor of 1.5 at most. */
double units_of_step(const variant *v)
{
    double d = (double)told.dim, dh = d / (double)told.heads, N = (double)tokens_of(v);
    double T = v->parts > 1 ? 1 : (double)v->inner_steps, mixer = 4 * d * d + 2 * d * dh;
    if (strcmp(v->learner, "mlp") == 0)
        mixer = (4 + 2 * T) * d * d + (10 + 34 * T) * d * dh;
    else if (strcmp(v->learner, "linear") == 0)
        mixer = 5 * d * d + 3 * d * dh;
    else if (strcmp(v->learner, "softmax") == 0 || strcmp(v->learner, "kernel") == 0)
        mixer = 4 * d * d + 2 * N * d;
    double slower = 1 + 0.11 * (double)(v->parts - 1);
    return N * slower * (2 * d * (double)hidden_for(v) + mixer) * (double)told.batch * (double)told.depth;
}
