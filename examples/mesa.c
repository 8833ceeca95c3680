/* SPDX-License-Identifier: MIT
 *
 * mesa.c - "Uncovering mesa-optimization algorithms in transformers", von Oswald et al. 2309.05858: trained
 * to predict sequences of linear systems, each with a map of its own, transformers fit that map in their
 * forward pass. One layer of linear attention takes a step of gradient descent, more layers precondition it,
 * and a mesa layer (layers/mesa.h) solves the least squares outright.
 *
 * Beside the trained networks stand learners that are written down, proposition 1 as a step that calls
 * mb_grad and as weights, and what linear probes find in the tokens. A run leaves tables (CSV), pictures, and
 * a summary beside known numbers.
 */
#include <stdlib.h>
#include <string.h>

#include "mesa.h"

plan set = {
    .models = "paper",
    .task = "full",
    .backend = "",
    .out = "",
    .resume = "",
    .steps = 2400,
    .deep_steps = 3500,
    .bare_steps = 2400,
    .distil_steps = 1000,
    .size_steps = 1000,
    .size_tokens = "constructed",
    .most_entries = 60,
    .solver_steps = 600,
    .shots = 30,
    .prefix = 20,
    .tune_steps = 1000,
    .tune_lr = 1e-3,
    .seeds = 1,
    .batch = 256,
    .validation = 2560,
    .every = 100,
};

static const plan quick = {
    .models = "quick",
    .task = "full",
    .backend = "",
    .out = "",
    .resume = "",
    .steps = 600,
    .deep_steps = 600,
    .bare_steps = 60,
    .distil_steps = 40,
    .size_steps = 120,
    .size_tokens = "constructed",
    .most_entries = 6,
    .solver_steps = 150,
    .shots = 12,
    .prefix = 6,
    .tune_steps = 40,
    .tune_lr = 3e-2,
    .seeds = 1,
    .batch = 64,
    .validation = 2560,
    .every = 100,
    .quick = true,
};

static const flag flags[] = {
    {.name = "quick",
     FLAG_BOOL,
     &set.quick,
     "in a minute or two: fewer models, steps and sequences, where flags do not say otherwise"},
    {.name = "models",
     FLAG_CHOICE,
     &set.models,
     "quick: linear-1, mesa-1 and softmax-2; paper: those, linear-2, linear-6 and hybrid; all: softmax "
     "layers too; or "
     "one",
     .choices = "quick|paper|all|linear-1|linear-2|linear-6|mesa-1|hybrid|softmax-2|softmax-7"},
    {.name = "task",
     FLAG_CHOICE,
     &set.task,
     "the sequences; partial, of which tokens are not the state, is for hybrid and softmax",
     .choices = "full|partial|nonlinear|contracting|fixed"},
    {.name = "steps", FLAG_INT, &set.steps, "of training one or two layers", .least = 1, .most = 1e7},
    {.name = "deep-steps", FLAG_INT, &set.deep_steps, "of training more", .least = 1, .most = 1e7},
    {.name = "bare-steps",
     FLAG_INT,
     &set.bare_steps,
     "of training two layers that see bare tokens",
     .least = 1,
     .most = 1e7},
    {.name = "distil-steps",
     FLAG_INT,
     &set.distil_steps,
     "of training linear layers on what softmax ones do; 0: leave them out",
     .most = 1e7},
    {.name = "size-steps",
     FLAG_INT,
     &set.size_steps,
     "of training softmax layers for states of 4, 6, 10, .. entries, which are made linear; 0, or another "
     "task than full: leave them out",
     .most = 1e7},
    {.name = "size-tokens",
     FLAG_CHOICE,
     &set.size_tokens,
     "of those: s_t with s_{t-1}, or s_t alone, of which many entries need many more steps",
     .choices = "constructed|bare"},
    {.name = "most-entries", FLAG_INT, &set.most_entries, "of those states", .least = 4, .most = 60},
    {.name = "solver-steps",
     FLAG_INT,
     &set.solver_steps,
     "of training the Chebyshev iteration",
     .least = 1,
     .most = 1e7},
    {.name = "shots",
     FLAG_INT,
     &set.shots,
     "examples of regression in context",
     .least = 1,
     .most = MOST_SHOTS},
    {.name = "prefix", FLAG_INT, &set.prefix, "tuned tokens before them", .least = 1, .most = MOST_SHOTS},
    {.name = "tune-steps",
     FLAG_INT,
     &set.tune_steps,
     "of tuning what examples are shown with; 0: leave regression out",
     .most = 1e7},
    {.name = "tune-lr", FLAG_REAL, &set.tune_lr, "of that", .least = 1e-6, .most = 1},
    {.name = "seeds", FLAG_INT, &set.seeds, "runs of each model", .least = 1, .most = 1000},
    {.name = "first-seed", FLAG_INT, &set.first_seed, "of the first run; the next has the next", .most = 1e9},
    {.name = "batch", FLAG_INT, &set.batch, "sequences of a step", .least = 1, .most = 1e6},
    {.name = "validation", FLAG_INT, &set.validation, "sequences of a measurement", .least = 1, .most = 1e6},
    {.name = "every", FLAG_INT, &set.every, "steps between measurements", .least = 1, .most = 1e6},
    {.name = "backend",
     FLAG_TEXT,
     &set.backend,
     "cpu, vulkan, reference; none: $MB_BACKEND or the best",
     .free = true},
    {.name = "threads",
     FLAG_INT,
     &set.threads,
     "runs at the same time; 0: one for each CPU",
     .most = 1024,
     .free = true},
    {.name = "out", FLAG_TEXT, &set.out, "folder of the results; none: the next runs/mesa-NNN", .free = true},
    {.name = "resume",
     FLAG_TEXT,
     &set.resume,
     "folder of a run to go on with: what it has trained is not trained again",
     .free = true},
    {.name = "check",
     FLAG_BOOL,
     &set.check,
     "exit with 1 where a number is not what the paper's should give",
     .free = true},
};

static void solver_job(void *user, int i)
{
    (void)i;
    run_solvers(&((results *)user)->solvers);
}

static void trial_job(void *user, int i)
{
    results *r = user;
    run_trial(&r->trials[i], &r->solvers);
}

static void size_job(void *user, int i)
{
    run_size(&((results *)user)->sizes[i]);
}

static bool wanted(int m)
{
    if (tasks[chosen_task()].seen != SLOT && !models[m].embedded)
        return false;
    if (strcmp(set.models, "quick") == 0)
        return m == LINEAR_ONE || m == MESA_ONE || m == SOFTMAX_TWO;
    if (strcmp(set.models, "paper") == 0)
        return m < SOFTMAX_TWO;
    return strcmp(set.models, "all") == 0 || strcmp(set.models, models[m].name) == 0;
}

/* The longest first. Returns the units of all. */
static int64_t list_trials(results *r)
{
    int64_t units = 0;
    r->trials = calloc((size_t)(MODELS * set.seeds), sizeof *r->trials);
    if (!r->trials)
        die("out of memory");
    for (int depth = MOST_LAYERS; depth > 0; depth--)
        for (int m = 0; m < MODELS; m++)
            for (int64_t seed = 0; models[m].layers == depth && wanted(m) && seed < set.seeds; seed++) {
                trial *t = &r->trials[r->trial_count++];
                *t = (trial){.model = m, .seed = set.first_seed + seed, .folder = r->folder};
                t->resumed = *set.resume;
                t->steps = depth > 2 ? set.deep_steps : models[m].embedded ? set.bare_steps : set.steps;
                units += trial_units(t);
            }
    return units;
}

/* The longest first. Returns the units of all. */
static int64_t list_sizes(results *r)
{
    int64_t units = 0;
    bool wanted = set.size_steps > 0 && set.distil_steps > 0 && chosen_task() == FULL;
    for (int i = SIZES - 1; wanted && i >= 0; i--)
        if (kernel_sizes[i] <= set.most_entries) {
            size_run *s = &r->sizes[r->size_count++];
            *s = (size_run){.folder = r->folder, .entries = kernel_sizes[i], .resumed = *set.resume};
            units += size_units(s);
        }
    return units;
}

int main(int argc, char **argv)
{
    results r = {0};
    process_begin(argc, argv);
    if (flags_given(argc, argv, "quick"))
        set = quick;
    flags_parse(argc, argv, "Trains transformers on sequences of linear systems, beside least squares.",
                flags, COUNT(flags));
    stop_install();
    r.folder = run_folder(set.out, set.resume, "mesa", flags, COUNT(flags));
    r.solvers = (solvers){.folder = r.folder, .resumed = *set.resume};
    int64_t units = list_trials(&r), size_units = list_sizes(&r);
    int threads = jobs_threads(set.threads);
    fprintf(stderr, "%s: %d training runs, %d at a time\n", r.folder, r.trial_count + r.size_count, threads);
    double started = now();
    bool done =
        jobs_run("learners", solver_job, &r, 1, 1, solver_units()) &&
        (r.trial_count == 0 || jobs_run("transformers", trial_job, &r, r.trial_count, threads, units)) &&
        (r.size_count == 0 || jobs_run("sizes", size_job, &r, r.size_count, threads, size_units));
    double seconds = now() - started;
    write_tables(&r);
    if (done)
        draw_pictures(&r);
    else
        fprintf(stderr, "stopped: --resume %s goes on\n", r.folder);
    print_summary(&r);
    printf("seconds %.1f   folder %s\n", seconds, r.folder);
    for (int i = 0; i < r.trial_count; i++)
        trial_free(&r.trials[i]);
    free(r.trials);
    return process_end(!done ? 130 : pictures_failed() > 0 || (set.check && summary_failures() > 0));
}
