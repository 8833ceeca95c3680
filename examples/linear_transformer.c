/* SPDX-License-Identifier: MIT
 *
 * linear_transformer.c - "Linear attention is (maybe) all you need (to understand transformer optimization)",
 * Ahn et al. 2310.01082: a linear transformer learns linear regression in context, and its training shows
 * what is known of large transformers: Adam beats SGD by far, gradients have heavy tails, the loss is worse
 * conditioned along SGD's way, and its curvature grows with its gradient.
 *
 * One run trains every setting of the paper with both optimisers and several seeds, and leaves tables (CSV),
 * one picture for each phenomenon, and a summary beside the paper's numbers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "linear_transformer.h"

plan set = {
    .experiments = "1,2,3,sphere,depth",
    .backend = "",
    .out = "",
    .steps = 10000,
    .depth_steps = 10000,
    .seeds = 6,
    .test_seed = 99,
    .prompts = 1000,
    .noise = 10000,
    .noise_seeds = 3,
    .noise_reference = 100,
    .evaluate_every = 50,
    .smooth_every = 5,
    .smooth_until = 2000,
    .condition_every = 250,
    .condition_until = 2000,
};

static const plan quick = {
    .experiments = "1,2,3,sphere,depth",
    .backend = "",
    .out = "",
    .steps = 1300,
    .depth_steps = 400,
    .seeds = 1,
    .test_seed = 99,
    .prompts = 1000,
    .noise = 200,
    .noise_seeds = 3,
    .noise_reference = 50,
    .evaluate_every = 50,
    .smooth_every = 10,
    .smooth_until = 1300,
    .condition_every = 250,
    .condition_until = 1250,
    .quick = true,
};

static const flag flags[] = {
    {.name = "quick",
     FLAG_BOOL,
     &set.quick,
     "all phenomena in a minute or two: fewer steps, seeds and samples, where flags do not say otherwise"},
    {.name = "experiments",
     FLAG_TEXT,
     &set.experiments,
     "settings of the paper, and how depth matters: any of these, by commas"},
    {.name = "steps", FLAG_INT, &set.steps, "of a training run", .least = 1, .most = 1e7},
    {.name = "depth-steps",
     FLAG_INT,
     &set.depth_steps,
     "of one with 2, 4, 6 or 8 layers",
     .least = 1,
     .most = 1e7},
    {.name = "seeds", FLAG_INT, &set.seeds, "runs of each kind", .least = 1, .most = 1000},
    {.name = "first-seed", FLAG_INT, &set.first_seed, "of the first run; the next has the next", .most = 1e9},
    {.name = "test-seed", FLAG_INT, &set.test_seed, "of the test prompts", .most = 1e9},
    {.name = "prompts", FLAG_INT, &set.prompts, "of a batch, and of the test", .least = 1, .most = 1e6},
    {.name = "lr-sgd",
     FLAG_REAL,
     &set.lr[SGD],
     "learning rate of SGD; 0: the one of the setting",
     .most = 1e3},
    {.name = "lr-adam",
     FLAG_REAL,
     &set.lr[ADAM],
     "learning rate of Adam; 0: the one of the setting",
     .most = 1e3},
    {.name = "noise",
     FLAG_INT,
     &set.noise,
     "gradients at the initial parameters that make a histogram; 0: no histograms",
     .most = 1e7},
    {.name = "noise-seeds",
     FLAG_INT,
     &set.noise_seeds,
     "initial parameters to do so at",
     .least = 1,
     .most = 1000},
    {.name = "noise-reference",
     FLAG_INT,
     &set.noise_reference,
     "batches whose mean gradient is taken for the true one",
     .least = 1,
     .most = 1e6},
    {.name = "evaluate-every",
     FLAG_INT,
     &set.evaluate_every,
     "steps between test losses",
     .least = 1,
     .most = 1e6},
    {.name = "smooth-every",
     FLAG_INT,
     &set.smooth_every,
     "steps between directional smoothnesses; 0: none",
     .most = 1e6},
    {.name = "smooth-until", FLAG_INT, &set.smooth_until, "steps with directional smoothnesses", .most = 1e7},
    {.name = "condition-every",
     FLAG_INT,
     &set.condition_every,
     "steps between robust condition numbers; 0: none",
     .most = 1e6},
    {.name = "condition-until", FLAG_INT, &set.condition_until, "steps with them", .most = 1e7},
    {.name = "backend", FLAG_TEXT, &set.backend, "cpu, vulkan, reference; none: $MB_BACKEND or the best"},
    {.name = "threads", FLAG_INT, &set.threads, "runs at the same time; 0: one for each CPU", .most = 1024},
    {.name = "out", FLAG_TEXT, &set.out, "folder of the results; none: the next runs/linear-transformer-NNN"},
    {.name = "check",
     FLAG_BOOL,
     &set.check,
     "exit with 1 where a number is not what the paper's should give"},
};

/* ---- what to run ---- */

/* Whether a name is in the list; removes it, so that at the end nothing is left of a list of known names. */
static bool wanted(char *list, const char *name)
{
    size_t length = strlen(name);
    for (char *p = list; *p; p += strcspn(p, ",") + (p[strcspn(p, ",")] == ',')) {
        if (strcspn(p, ",") != length || strncmp(p, name, length) != 0)
            continue;
        memset(p, ',', length);
        return true;
    }
    return false;
}

/* The paper gives no learning rates for other depths than 3: these are the best of 0.0025, 0.005, 0.01, 0.02
 * (Adam) and 0.01, 0.02, 0.04, 0.08 (SGD) after 2500 steps; the smaller one where two are alike. With 8
 * layers larger ones than these take some of six runs beyond float32 before step 10000. */
static const struct {
    int layers;
    double lr[OPTIMIZERS];
} depths[] = {{2, {0.04, 0.0025}}, {4, {0.04, 0.02}}, {6, {0.04, 0.01}}, {8, {0.02, 0.0025}}};

static double rate(int setting, int depth, int optimizer)
{
    if (set.lr[optimizer] > 0)
        return set.lr[optimizer];
    for (int i = 0; i < COUNT(depths); i++)
        if (depths[i].layers == depth)
            return depths[i].lr[optimizer];
    return settings[setting].lr[optimizer];
}

static void add(results *r, int setting, int depth, int64_t steps)
{
    for (int64_t seed = 0; seed < set.seeds; seed++)
        for (int o = 0; o < OPTIMIZERS; o++)
            r->trials[r->trial_count++] =
                (trial){.setting = setting,
                        .depth = depth,
                        .optimizer = o,
                        .steps = steps,
                        .seed = set.first_seed + seed,
                        .lr = rate(setting, depth, o),
                        .dense = setting == SETTING_1 && depth == LAYERS && o == ADAM &&
                                 seed == (set.seeds > 1)}; /* the paper's scatter is of seed 1 */
    for (int64_t seed = 0; seed < set.noise_seeds && set.noise > 1; seed++)
        r->noises[r->noise_count++] =
            (noise){.setting = setting, .depth = depth, .seed = set.first_seed + seed};
}

static void job(void *user, int i)
{
    results *r = user;
    if (i < r->trial_count)
        run_trial(&r->trials[i]);
    else
        run_noise(&r->noises[i - r->trial_count]);
}

int main(int argc, char **argv)
{
    results r = {0};
    process_begin(argc, argv);
    if (flags_given(argc, argv, "quick"))
        set = quick;
    flags_parse(argc, argv,
                "Trains linear transformers on linear regression in context, and measures what makes\n"
                "transformers hard to optimise.",
                flags, COUNT(flags));
    stop_install();
    int kinds = SETTINGS + COUNT(depths);
    r.trials = calloc((size_t)(kinds * OPTIMIZERS * set.seeds), sizeof *r.trials);
    r.noises = calloc((size_t)(kinds * set.noise_seeds), sizeof *r.noises);
    if (!r.trials || !r.noises)
        die("out of memory");
    char *list = strdup(set.experiments);
    if (!list)
        die("out of memory");
    for (int s = 0; s < SETTINGS; s++)
        if (wanted(list, settings[s].name))
            add(&r, s, LAYERS, set.steps);
    if (wanted(list, "depth"))
        for (int i = 0; i < COUNT(depths); i++)
            add(&r, SETTING_1, depths[i].layers, set.depth_steps);
    if (list[strspn(list, ",")] || r.trial_count == 0)
        die("--experiments: any of 1,2,3,sphere,depth, not '%s'", set.experiments);
    free(list);

    r.folder = claim_folder(set.out, "linear-transformer", "config.json", "another --out begins a new one");
    char *config = path_in(r.folder, "config.json");
    flags_save(config, flags, COUNT(flags));
    free(config);
    int64_t units = 0;
    for (int i = 0; i < r.trial_count; i++)
        units += trial_units(&r.trials[i]);
    for (int i = 0; i < r.noise_count; i++)
        units += noise_units(&r.noises[i]);
    int threads = jobs_threads(set.threads);
    fprintf(stderr, "%s: %d training runs, %d histograms of gradients, %d at a time\n", r.folder,
            r.trial_count, r.noise_count, threads);
    double started = now();
    bool done = jobs_run("layers x steps", job, &r, r.trial_count + r.noise_count, threads, units);
    double seconds = now() - started;

    write_tables(&r);
    if (done)
        draw_pictures(&r);
    else
        fprintf(stderr, "stopped: %s holds what was measured until then\n", r.folder);
    int failed = print_summary(&r);
    printf("seconds %.1f   folder %s\n", seconds, r.folder);
    for (int i = 0; i < r.trial_count; i++)
        for (int m = 0; m < MEASURES; m++)
            series_free(&r.trials[i].measure[m]);
    for (int i = 0; i < r.noise_count; i++)
        free(r.noises[i].norm);
    free(r.trials);
    free(r.noises);
    return process_end(!done ? 130 : pictures_failed() > 0 || (set.check && failed > 0));
}
