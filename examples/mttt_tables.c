/* SPDX-License-Identifier: MIT
 *
 * mttt_tables.c - the tables of "Learning to (Learn at Test Time)", Sun et al. 2310.13807, on Fashion-MNIST:
 * learners beside attention, the ablation of decoder norm and learned start, accuracy against inner steps,
 * patches against raw pixels. Where the paper trains on ImageNet for 90 epochs, with many devices, this is a
 * small model and two epochs of small images: what can be compared is the order of learners, and the signs.
 *
 * Each run is one of mttt's, of several seeds, in a folder of its own. The whole is one sweep: killed, it
 * goes on with --resume, in the middle of the run it was at, and ends at the same bytes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mttt_tables.h"

plan told = {
    .tables = "all",
    .runs = "",
    .backend = "",
    .data = MB_FASHION_MNIST,
    .out = "",
    .seeds = 3,
    .patch = 4,
    .dim = 64,
    .heads = 2,
    .depth = 3,
    .epochs = 2,
    .batch = 50,
    .warmup = 100,
    .most_steps = 8,
    .pixel_patch = 1,
    .pixel_epochs = 1,
    .pixel_images = 40000,
    .lr = 2e-3,
    .save_every = 100,
};

static const plan quick = {
    .tables = "all",
    .runs = "",
    .backend = "",
    .data = MB_FASHION_MNIST,
    .out = "",
    .seeds = 1,
    .patch = 7,
    .dim = 32,
    .heads = 2,
    .depth = 2,
    .epochs = 1,
    .batch = 50,
    .warmup = 10,
    .train_images = 2500,
    .test_images = 1000,
    .most_steps = 4,
    .pixel_patch = 1,
    .pixel_epochs = 1,
    .pixel_images = 300,
    .lr = 5e-3,
    .save_every = 20,
    .quick = true,
};

static const flag flags[] = {
    {.name = "quick",
     FLAG_BOOL,
     &told.quick,
     "in a minute or two: one seed, and fewer and smaller images and steps, where flags do not say "
     "otherwise"},
    {.name = "tables", FLAG_CHOICE, &told.tables, "which", .choices = "all|learners|ablation|steps|pixels"},
    {.name = "runs",
     FLAG_TEXT,
     &told.runs,
     "of these, some by name as in runs.csv: mlp,linear-attention; none: all"},
    {.name = "seeds", FLAG_INT, &told.seeds, "runs of each kind", .least = 1, .most = 1000},
    {.name = "first-seed",
     FLAG_INT,
     &told.first_seed,
     "of the first run; the next has the next",
     .most = 1e9},
    {.name = "patch",
     FLAG_INT,
     &told.patch,
     "side of a token in patches; divides 28",
     .least = 1,
     .most = 28},
    {.name = "pixel-patch",
     FLAG_INT,
     &told.pixel_patch,
     "side of a token in \"raw pixels\"; divides 28",
     .least = 1,
     .most = 28},
    {.name = "most-steps", FLAG_INT, &told.most_steps, "inner steps, up to which they double", .most = 1000},
    {.name = "dim", FLAG_INT, &told.dim, "width of a token inside", .least = 8, .most = 65536},
    {.name = "heads", FLAG_INT, &told.heads, "learners, or heads, of a block", .least = 1, .most = 1024},
    {.name = "depth", FLAG_INT, &told.depth, "blocks", .least = 1, .most = 1000},
    {.name = "epochs", FLAG_INT, &told.epochs, "of training on patches", .least = 1, .most = 1e6},
    {.name = "pixel-epochs", FLAG_INT, &told.pixel_epochs, "of training on pixels", .least = 1, .most = 1e6},
    {.name = "batch", FLAG_INT, &told.batch, "images of a step", .least = 1, .most = 1e6},
    {.name = "lr", FLAG_REAL, &told.lr, "highest learning rate", .least = 1e-12, .most = 1e3},
    {.name = "warmup", FLAG_INT, &told.warmup, "steps until the learning rate is up", .most = 1e9},
    {.name = "train-images", FLAG_INT, &told.train_images, "in patches: the first N; 0: all", .most = 60000},
    {.name = "pixel-images", FLAG_INT, &told.pixel_images, "in pixels: the first N; 0: all", .most = 60000},
    {.name = "test-images", FLAG_INT, &told.test_images, "use the first N; 0: all 10000", .most = 10000},
    {.name = "backend",
     FLAG_TEXT,
     &told.backend,
     "cpu, vulkan, reference; none: $MB_BACKEND or the best",
     .free = true},
    {.name = "threads",
     FLAG_INT,
     &told.threads,
     "of the cpu backend; 0: $MB_THREADS or all CPUs",
     .most = 1024,
     .free = true},
    {.name = "save-every",
     FLAG_INT,
     &told.save_every,
     "steps between checkpoints",
     .most = 1e9,
     .free = true},
    {.name = "data", FLAG_TEXT, &told.data, "folder of Fashion-MNIST's four files", .free = true},
    {.name = "out",
     FLAG_TEXT,
     &told.out,
     "folder of the sweep; none: the next runs/mttt-tables-NNN",
     .free = true},
    {.name = "check",
     FLAG_BOOL,
     &told.check,
     "exit with 1 where a number is not what the paper's should give",
     .free = true},
    {.name = "resume",
     FLAG_BOOL,
     &told.resume,
     "go on with the sweep in --out (none: the last), in the middle of its run",
     .free = true},
};

static sweep whole;

/* ---- how far it is ---- */

/* Work is counted in steps of MTTT-MLP on patches, as far as others can be told in these beforehand. */
static double units_of(const variant *v)
{
    static const variant mlp = {.learner = "mlp", .inner_steps = 1, .parts = 1};
    return (double)steps_of(v) * units_of_step(v) / units_of_step(&mlp);
}

static void advanced(const run *r, double loss, double accuracy)
{
    static double logged;
    sweep *s = &whole;
    double done = s->units_done + (double)r->step / (double)r->total * s->units_of_run;
    if (done > s->units_before)
        s->bar.pace = (now() - s->bar.started) / (done - s->units_before);
    bool log = now() - logged >= 30;
    progress_step(&s->bar, (int64_t)done, loss, accuracy, log);
    if (log)
        logged = now();
}

static void begin_bar(sweep *s)
{
    for (int i = 0; i < s->variant_count; i++)
        s->units_total += units_of(&s->variants[i]) * (double)told.seeds;
    for (int i = 0; i < s->row_count; i++)
        s->units_before += units_of(&s->variants[s->rows[i].variant]);
    progress_begin(&s->bar, s->label, (int64_t)ceil(s->units_total));
}

/* ---- the runs ---- */

static void open_run(run *r, const variant *v, int64_t seed)
{
    set_run(v, seed);
    mb_options options = {.backend = *set.backend ? set.backend : NULL, .threads = (int)set.threads};
    r->mb = mb_open_with(&options);
    check(r);
    build(r);
    r->folder = folder_of(&whole, v, seed);
    r->advanced = advanced;
    make_folder(r->folder);
    char *checkpoint = path_in(r->folder, "checkpoint.safetensors");
    if (file_exists(checkpoint))
        resume_run(r);
    else
        begin_run(r);
    free(checkpoint);
    r->started = now();
}

/* False: stopped, and saved. */
static bool do_run(sweep *s, int variant, int64_t seed)
{
    const struct variant *v = &s->variants[variant];
    run r = {.ranks = 1};
    open_run(&r, v, seed);
    s->units_of_run = units_of(v);
    s->units_before += (double)r.step / (double)r.total * s->units_of_run;
    snprintf(s->label, sizeof s->label, "%s, seed %lld", v->name, (long long)seed);
    bool done = train(&r);
    progress_clear(&s->bar);
    close_tables(&r);
    if (done)
        add_row(s, (row){.variant = variant,
                         .seed = seed,
                         .parameters = mb_params_size(r.params),
                         .flops = r.flops,
                         .loss = r.diverged ? NAN : r.test_loss,
                         .accuracy = r.diverged ? NAN : r.test_accuracy});
    free((char *)r.folder);
    demolish(&r);
    return done;
}

/* Seed by seed: a sweep that is stopped has all kinds of as many seeds as there was time for. */
static bool do_runs(sweep *s)
{
    bool going = true;
    for (int64_t i = 0; i < told.seeds; i++)
        for (int v = 0; v < s->variant_count && going; v++) {
            int64_t seed = told.first_seed + i;
            if (!has_row(s, v, seed))
                going = do_run(s, v, seed) && !stop_wanted();
            s->units_done += units_of(&s->variants[v]);
        }
    return going || s->row_count == s->variant_count * told.seeds;
}

static void open_folder(sweep *s)
{
    const char *last = !told.resume ? "" : *told.out ? told.out : last_run("mttt-tables");
    s->folder = run_folder(told.out, last, "mttt-tables", flags, COUNT(flags));
    open_rows(s);
}

static void expect_patches(void)
{
    if (28 % told.patch || 28 % told.pixel_patch || told.dim % told.heads || told.dim % 4)
        die("--patch %lld and --pixel-patch %lld must divide 28, --heads %lld and 4 divide --dim %lld",
            (long long)told.patch, (long long)told.pixel_patch, (long long)told.heads, (long long)told.dim);
}

int main(int argc, char **argv)
{
    process_begin(argc, argv);
    if (flags_given(argc, argv, "quick"))
        told = quick;
    flags_parse(
        argc, argv,
        "Trains learners and attention side by side on Fashion-MNIST, for the tables of 2310.13807: some 5 "
        "hours of two cores as it stands, of which raw pixels take half.",
        flags, COUNT(flags));
    expect_patches();
    stop_install();
    list_variants(&whole);
    open_folder(&whole);
    begin_bar(&whole);
    fprintf(stderr, "%s: %d runs, of which %d are there\n", whole.folder,
            whole.variant_count * (int)told.seeds, whole.row_count);
    bool done = do_runs(&whole);
    progress_clear(&whole.bar);
    csv_close(&whole.table);
    write_tables(&whole);
    if (done)
        draw_tables(&whole);
    else
        fprintf(stderr, "stopped: the same flags and --out %s --resume go on\n", whole.folder);
    print_summary(&whole);
    printf("folder %s\n", whole.folder);
    free(whole.rows);
    return process_end(!done ? 130 : pictures_failed() > 0 || (told.check && summary_failures() > 0));
}
