/* SPDX-License-Identifier: MIT
 *
 * mttt.c - "Learning to (Learn at Test Time)", Sun et al. 2310.13807, on Fashion-MNIST: a vision transformer
 * whose token mixers are small networks that are trained on each image, in the forward pass. The outer loop
 * learns where they start and what they practise on, by differentiating through their training.
 *
 * Everything of a run is in its folder: config.json, metrics.csv, inner_loss.csv, checkpoint.safetensors,
 * pictures. Ctrl-C finishes the step and saves; --resume goes on, and ends at the same bits as a run that was
 * never stopped. */
#include <stdlib.h>

#include "mttt.h"

settings set = {
    .learner = "mlp",
    .inner_steps = 1,
    .inner_lr = 1,
    .keep_every = "1",
    .dtype = "float32",
    .patch = 4,
    .positions = "sincos2d",
    .dim = 64,
    .heads = 2,
    .depth = 3,
    .epochs = 2,
    .batch = 50,
    .lr = 2e-3,
    .weight_decay = 1e-4,
    .clip = 1,
    .warmup = 100,
    .seed = 42,
    .backend = "",
    .data = MB_FASHION_MNIST,
    .out = "",
    .save_every = 100,
    .log_every = 10,
};

static const flag flags[] = {
    {.name = "learner",
     FLAG_CHOICE,
     &set.learner,
     "what mixes tokens; the first two are trained on each image",
     .choices = "mlp|linear|softmax|linear-attention"},
    {.name = "inner-steps",
     FLAG_INT,
     &set.inner_steps,
     "training steps of the learner on each image",
     .most = 1000},
    {.name = "inner-batch",
     FLAG_INT,
     &set.inner_batch,
     "tokens of an inner step, a divisor of their number; 0: all",
     .most = 1e6},
    {.name = "inner-lr",
     FLAG_REAL,
     &set.inner_lr,
     "learning rate of the inner steps",
     .least = -1e6,
     .most = 1e6},
    {.name = "scan",
     FLAG_BOOL,
     &set.scan,
     "inner steps as one loop, whatever their number; without: from 16 on"},
    {.name = "keep-every",
     FLAG_TEXT,
     &set.keep_every,
     "of a loop's inner steps, those whose weights are stored: 1, 2, ..., sqrt or log"},
    {.name = "checkpoint", FLAG_BOOL, &set.checkpoint, "store no inside of a block, compute it once more"},
    {.name = "dtype",
     FLAG_CHOICE,
     &set.dtype,
     "what the model computes and stores; its parameters are float32",
     .choices = "float32|bfloat16|float16"},
    {.name = "patch",
     FLAG_INT,
     &set.patch,
     "side of the square of pixels that makes a token; divides 28",
     .least = 1,
     .most = 28},
    {.name = "positions",
     FLAG_CHOICE,
     &set.positions,
     "of tokens: fixed waves, or learned from random ones",
     .choices = "sincos2d|learned"},
    {.name = "dim", FLAG_INT, &set.dim, "width of a token inside", .least = 1, .most = 65536},
    {.name = "heads", FLAG_INT, &set.heads, "learners, or heads, of a block", .least = 1, .most = 1024},
    {.name = "depth", FLAG_INT, &set.depth, "blocks", .least = 1, .most = 1000},
    {.name = "epochs", FLAG_INT, &set.epochs, "passes over the training images", .least = 1, .most = 1e6},
    {.name = "batch", FLAG_INT, &set.batch, "images of a step", .least = 1, .most = 1e6},
    {.name = "lr",
     FLAG_REAL,
     &set.lr,
     "highest learning rate, after the warm-up; a cosine to 0 follows",
     .least = 1e-12,
     .most = 1e3},
    {.name = "weight-decay", FLAG_REAL, &set.weight_decay, "AdamW's", .most = 1e3},
    {.name = "clip", FLAG_REAL, &set.clip, "largest norm of the gradient; 0: any", .most = 1e9},
    {.name = "warmup", FLAG_INT, &set.warmup, "steps until the learning rate is up", .most = 1e9},
    {.name = "seed",
     FLAG_INT,
     &set.seed,
     "of the initial values, the order of images and of tokens",
     .most = 9e15},
    {.name = "train-images", FLAG_INT, &set.train_images, "use the first N; 0: all 60000", .most = 60000},
    {.name = "test-images", FLAG_INT, &set.test_images, "use the first N; 0: all 10000", .most = 10000},
    {.name = "backend",
     FLAG_TEXT,
     &set.backend,
     "cpu, vulkan, reference; none: $MB_BACKEND or the best",
     .free = true},
    {.name = "threads",
     FLAG_INT,
     &set.threads,
     "of the cpu backend; 0: $MB_THREADS or all CPUs",
     .most = 1024,
     .free = true},
    {.name = "log-every",
     FLAG_INT,
     &set.log_every,
     "steps from row to row of metrics.csv",
     .least = 1,
     .most = 1e9},
    {.name = "save-every",
     FLAG_INT,
     &set.save_every,
     "steps between checkpoints; 0: one an epoch",
     .most = 1e9,
     .free = true},
    {.name = "data", FLAG_TEXT, &set.data, "folder of Fashion-MNIST's four files", .free = true},
    {.name = "out",
     FLAG_TEXT,
     &set.out,
     "folder of the run; none: the next runs/mttt-LEARNER-NNN",
     .free = true},
    {.name = "force",
     FLAG_BOOL,
     &set.force,
     "go on although a step needs more memory than there is",
     .free = true},
    {.name = "resume",
     FLAG_BOOL,
     &set.resume,
     "go on from the checkpoint of --out (none: of the last run)",
     .free = true},
};

void check(const run *r)
{
    if (mb_error(r->mb) != MB_OK)
        die("%s", mb_message(r->mb));
}

double seconds_now(const run *r)
{
    return r->seconds + now() - r->started;
}

/* ---- the folder ---- */

static void begin_folder(run *r)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "mttt-%s", set.learner);
    r->folder = claim_folder(set.out, prefix, "checkpoint.safetensors",
                             "--resume goes on with it, another --out begins a new one");
    r->checkpoint = path_in(r->folder, "checkpoint.safetensors");
    char *config = path_in(r->folder, "config.json");
    machine here = this_machine(r);
    flags_save(config, flags, COUNT(flags));
    note_machine(config, &here, 0);
    free(config);
    open_tables(r);
}

static void resume_folder(run *r)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "mttt-%s", set.learner);
    r->folder = *set.out ? set.out : last_run(prefix);
    r->checkpoint = path_in(r->folder, "checkpoint.safetensors");
    if (!file_exists(r->checkpoint))
        die("--resume: there is no %s", r->checkpoint);
    if (r->rank > 0) {
        load(r);
        return;
    }
    lock_folder(r->folder);
    char *config = path_in(r->folder, "config.json");
    if (flags_compare(config, flags, COUNT(flags)) > 0)
        die("--resume: %s was made with other flags", r->folder);
    machine here = this_machine(r);
    load(r);
    note_machine(config, &here, r->step);
    free(config);
}

/* ---- the run ---- */

int main(int argc, char **argv)
{
    static run r;
    process_begin(argc, argv);
    flags_parse(argc, argv, "Trains a vision transformer on Fashion-MNIST whose blocks learn at test time.",
                flags, COUNT(flags));
    stop_install();
    mb_options options = {.backend = *set.backend ? set.backend : NULL, .threads = (int)set.threads};
    ranks_begin(&r, &options);
    r.mb = mb_open_with(&options);
    check(&r);
    ranks_open(&r);
    build(&r);
    if (set.resume)
        resume_folder(&r);
    else if (r.rank == 0)
        begin_folder(&r);
    ranks_share(&r);
    r.started = now();
    if (r.rank == 0)
        fprintf(stderr, "%s: %s on %s, %lld parameters, %lld images, step %lld of %lld\n", r.folder,
                set.learner, mb_backend_name(r.mb), (long long)mb_params_size(r.params),
                (long long)mb_images_count(r.train), (long long)r.step, (long long)r.total);
    bool done = train(&r);
    double seconds = seconds_now(&r);
    int64_t parameters = mb_params_size(r.params);
    close_tables(&r);
    if (done && r.rank == 0)
        draw_pictures(&r);
    else if (r.rank == 0)
        fprintf(stderr,
                "stopped and saved at step %lld of %lld; the same flags and --out %s --resume go on\n",
                (long long)r.step, (long long)r.total, r.folder);
    ranks_end(&r);
    demolish(&r);
    if (!done)
        return 130;
    if (r.rank == 0)
        printf("test accuracy %.4f  loss %.4f  parameters %lld  seconds %.1f\n", r.test_accuracy, r.test_loss,
               (long long)parameters, seconds);
    return process_end(pictures_failed() > 0);
}
