/* SPDX-License-Identifier: MIT
 *
 * icl_gd.c - "Transformers learn in-context by gradient descent", von Oswald et al. 2212.07677: linear
 * self-attention that is trained on regression tasks finds weights that do, for each prompt, what steps of
 * gradient descent would.
 *
 * Gradient descent comes in three forms here: as explicit steps that differentiate each task's loss with
 * mb_grad, whose step sizes are trained by differentiating through them; as attention weights constructed by
 * hand; and as what training finds. A run leaves tables (CSV), pictures, and a summary beside known numbers.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icl_gd.h"

plan set = {
    .models = "all",
    .backend = "",
    .out = "",
    .steps = 5000,
    .deep_steps = 20000,
    .gd_steps = 1000,
    .seeds = 3,
    .batch = 2048,
    .validation = 10000,
    .every = 100,
    .range = 1,
};

static const plan quick = {
    .models = "all",
    .backend = "",
    .out = "",
    .steps = 3000,
    .deep_steps = 1500,
    .gd_steps = 200,
    .seeds = 1,
    .batch = 1024,
    .validation = 2000,
    .every = 100,
    .range = 1,
    .quick = true,
};

static const flag flags[] = {
    {.name = "quick",
     FLAG_BOOL,
     &set.quick,
     "in a minute or two: fewer steps, seeds and tasks, where flags do not say otherwise"},
    {.name = "models",
     FLAG_CHOICE,
     &set.models,
     "layers of linear self-attention: one, two tied ones, five",
     .choices = "all|one|two|five"},
    {.name = "steps", FLAG_INT, &set.steps, "of training one or two layers", .least = 1, .most = 1e7},
    {.name = "deep-steps", FLAG_INT, &set.deep_steps, "of training five", .least = 1, .most = 1e7},
    {.name = "gd-steps",
     FLAG_INT,
     &set.gd_steps,
     "of training step sizes, times the number of them",
     .least = 1,
     .most = 1e7},
    {.name = "seeds", FLAG_INT, &set.seeds, "runs of each kind", .least = 1, .most = 1000},
    {.name = "first-seed", FLAG_INT, &set.first_seed, "of the first run; the next has the next", .most = 1e9},
    {.name = "batch", FLAG_INT, &set.batch, "tasks of a step", .least = 1, .most = 1e6},
    {.name = "validation", FLAG_INT, &set.validation, "tasks of a measurement", .least = 1, .most = 1e6},
    {.name = "every", FLAG_INT, &set.every, "steps between measurements", .least = 1, .most = 1e6},
    {.name = "range",
     FLAG_REAL,
     &set.range,
     "inputs are uniform on an interval of this width around 0",
     .least = 1e-3,
     .most = 1e3},
    {.name = "backend", FLAG_TEXT, &set.backend, "cpu, vulkan, reference; none: $MB_BACKEND or the best"},
    {.name = "threads", FLAG_INT, &set.threads, "runs at the same time; 0: one for each CPU", .most = 1024},
    {.name = "out", FLAG_TEXT, &set.out, "folder of the results; none: the next runs/icl-gd-NNN"},
    {.name = "check",
     FLAG_BOOL,
     &set.check,
     "exit with 1 where a number is not what the paper's should give"},
};

static void baseline_job(void *user, int i)
{
    run_baseline(&((results *)user)->baselines[i]);
}

static void trial_job(void *user, int i)
{
    run_trial(&((results *)user)->trials[i]);
}

int main(int argc, char **argv)
{
    results r = {0};
    process_begin(argc, argv);
    if (flags_given(argc, argv, "quick"))
        set = quick;
    flags_parse(argc, argv, "Trains linear self-attention in context, and compares it with gradient descent.",
                flags, COUNT(flags));
    stop_install();
    r.baselines = calloc(2 * MODELS, sizeof *r.baselines);
    r.trials = calloc((size_t)(MODELS * set.seeds), sizeof *r.trials);
    if (!r.baselines || !r.trials)
        die("out of memory");
    int64_t units[2] = {0};
    for (int m = MODELS - 1; m >= 0; m--) { /* the longest first */
        if (strcmp(set.models, "all") != 0 && strcmp(set.models, models[m].name) != 0)
            continue;
        for (int plus = 1; plus >= 0; plus--) {
            r.baselines[r.baseline_count] = (baseline){.model = m, .plus = plus};
            units[0] += baseline_units(&r.baselines[r.baseline_count++]);
        }
        for (int64_t seed = 0; seed < set.seeds; seed++) {
            r.trials[r.trial_count] = (trial){.model = m,
                                              .seed = set.first_seed + seed,
                                              .steps = models[m].tied ? set.steps : set.deep_steps,
                                              .plus = &r.baselines[r.baseline_count - 2],
                                              .gd = &r.baselines[r.baseline_count - 1]};
            units[1] += trial_units(&r.trials[r.trial_count++]);
        }
    }

    r.folder = claim_folder(set.out, "icl-gd", "config.json", "another --out begins a new one");
    char *config = path_in(r.folder, "config.json");
    flags_save(config, flags, COUNT(flags));
    free(config);
    int threads = jobs_threads(set.threads);
    fprintf(stderr, "%s: %d training runs, %d at a time\n", r.folder, r.trial_count, threads);
    double started = now();
    bool done = jobs_run("gradient descent", baseline_job, &r, r.baseline_count, threads, units[0]) &&
                jobs_run("attention", trial_job, &r, r.trial_count, threads, units[1]);
    double seconds = now() - started;

    write_tables(&r);
    if (done)
        draw_pictures(&r);
    else
        fprintf(stderr, "stopped: %s holds what was measured until then\n", r.folder);
    print_summary(&r);
    printf("seconds %.1f   folder %s\n", seconds, r.folder);
    for (int i = 0; i < r.trial_count; i++) {
        for (int m = 0; m < MEASURES; m++)
            series_free(&r.trials[i].measure[m]);
        for (int s = 0; s < SWEEPS * CURVES; s++)
            series_free(&r.trials[i].sweep[s / CURVES][s % CURVES]);
    }
    free(r.trials);
    free(r.baselines);
    return process_end(!done ? 130 : pictures_failed() > 0 || (set.check && summary_failures() > 0));
}
