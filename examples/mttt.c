/* SPDX-License-Identifier: MIT
 *
 * mttt.c - "Learning to (Learn at Test Time)", Sun et al. 2310.13807, on Fashion-MNIST: a vision transformer
 * whose token mixers are small networks that are trained on each image, in the forward pass. The outer loop
 * learns where they start and what they practise on, by differentiating through their training.
 *
 * Everything of a run is in its folder: config.json, metrics.csv, inner_loss.csv, checkpoint.safetensors,
 * pictures. Ctrl-C finishes the step and saves; --resume goes on, and ends at the same bits as a run that was
 * never stopped. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <moebius.h>

#include "common.h"

enum { CLASSES = 10 };

/* Streams of random numbers, folded into the seed. */
enum { STREAM_TOKENS = 1, STREAM_TEST_TOKENS = 2 };

static struct {
    const char *learner, *positions, *backend, *data, *out;
    int64_t inner_steps, inner_batch, patch, dim, heads, depth, epochs, batch, warmup, seed, threads,
        train_images, test_images, save_every, log_every;
    double inner_lr, lr, weight_decay, clip;
    bool resume;
} set = {
    .learner = "mlp",
    .inner_steps = 1,
    .inner_lr = 1,
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
    {.name = "backend", FLAG_TEXT, &set.backend, "cpu, vulkan, reference; none: $MB_BACKEND or the best"},
    {.name = "threads",
     FLAG_INT,
     &set.threads,
     "of the cpu backend; 0: $MB_THREADS or all CPUs",
     .most = 1024},
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
    {.name = "resume",
     FLAG_BOOL,
     &set.resume,
     "go on from the checkpoint of --out (none: of the last run)",
     .free = true},
};

typedef struct run {
    mb_context *mb;
    mb_params *params;
    mb_vit *vit;
    mb_optimizer *optimizer;
    mb_images *train, *test;
    const char *folder;
    char *checkpoint;
    csv metrics, inner; /* inner: not open for learners without an inner loop */
    int inner_losses;   /* of all blocks: depth (T + 1), or 0 */
    mb_tensor *losses;  /* [inner_losses] */
    float *inner_loss;  /* [inner_losses] */

    /* What a checkpoint holds besides parameters and optimiser. */
    int64_t step, per_epoch, total, evaluated; /* evaluated: epochs whose test accuracy is known */
    double window_loss, window_correct; /* sums over the window_steps since the last row of metrics.csv */
    int64_t window_steps;
    double seconds, test_loss, test_accuracy;
    double started; /* of this process's share of `seconds` */
} run;

static void check(const run *r)
{
    if (mb_error(r->mb) != MB_OK)
        die("%s", mb_message(r->mb));
}

static double seconds_now(const run *r)
{
    return r->seconds + now() - r->started;
}

/* ---- model ---- */

static mb_mixer_options mixer(const double *inner_lr)
{
    mb_mixer_options m = {.heads = set.heads};
    if (strcmp(set.learner, "softmax") == 0)
        m.kind = MB_MIXER_SOFTMAX;
    else if (strcmp(set.learner, "linear-attention") == 0)
        m.kind = MB_MIXER_LINEAR;
    else
        m.kind = MB_MIXER_TTT;
    m.ttt = (mb_ttt_options){.learner = strcmp(set.learner, "mlp") == 0 ? MB_LEARNER_MLP : MB_LEARNER_LINEAR,
                             .inner_steps = (int)set.inner_steps,
                             .inner_batch = set.inner_batch,
                             .inner_lr = inner_lr};
    return m;
}

static mb_images *open_images(run *r, const char *images, const char *labels, int64_t limit)
{
    char *images_path = path_in(set.data, images), *labels_path = path_in(set.data, labels);
    mb_images *d = mb_images_open(r->mb, (mb_images_options){.images = images_path,
                                                             .labels = labels_path,
                                                             .limit = limit,
                                                             .mean = MB_FASHION_MNIST_MEAN,
                                                             .std = MB_FASHION_MNIST_STD,
                                                             .classes = CLASSES,
                                                             .seed = (uint64_t)set.seed});
    check(r);
    free(images_path);
    free(labels_path);
    return d;
}

static void build(run *r)
{
    r->train = open_images(r, "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", set.train_images);
    r->test = open_images(r, "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", set.test_images);
    int64_t height = mb_images_height(r->train), width = mb_images_width(r->train);
    if (height % set.patch || width % set.patch)
        die("--patch %lld does not divide images of %lld by %lld", (long long)set.patch, (long long)height,
            (long long)width);
    r->per_epoch =
        mb_images_count(r->train) / set.batch; /* the rest of an epoch, below a batch, is left out */
    if (r->per_epoch == 0)
        die("--batch %lld is above the %lld images there are", (long long)set.batch,
            (long long)mb_images_count(r->train));
    r->total = r->per_epoch * set.epochs;

    double *inner_lr = malloc((size_t)(set.inner_steps + 1) * sizeof *inner_lr);
    if (!inner_lr)
        die("out of memory");
    for (int64_t t = 0; t < set.inner_steps; t++)
        inner_lr[t] = set.inner_lr;
    r->params = mb_params_new(r->mb, (uint64_t)set.seed);
    r->vit = mb_vit_new(
        r->params, "vit",
        (mb_vit_options){.tokens = height / set.patch * (width / set.patch),
                         .patch_values = set.patch * set.patch,
                         .dim = set.dim,
                         .depth = set.depth,
                         .classes = CLASSES,
                         .mixer = mixer(inner_lr),
                         .head_init =
                             mb_init_xavier(set.dim, CLASSES), /* zeros learn slower in so few epochs */
                         .positions = strcmp(set.positions, "learned") == 0 ? MB_POSITIONS_LEARNED
                                                                            : MB_POSITIONS_SINCOS2D});
    free(inner_lr);
    r->optimizer =
        mb_adamw(r->params, (mb_adamw_options){.lr = set.lr,
                                               .weight_decay = set.weight_decay,
                                               .clip_norm = set.clip,
                                               .schedule = mb_schedule_warmup_cosine(set.warmup, r->total)});
    check(r);
    r->inner_losses = (int)set.depth * mb_vit_losses(r->vit);
    r->losses = calloc((size_t)r->inner_losses + 1, sizeof *r->losses);
    r->inner_loss = calloc((size_t)r->inner_losses + 1, sizeof *r->inner_loss);
    if (!r->losses || !r->inner_loss)
        die("out of memory");
}

/* x: [B,28,28] -> logits [B,10]; losses: NULL, or room for the inner ones. */
static mb_tensor predict(const run *r, mb_tensor x, uint64_t stream, int64_t n, mb_tensor *losses)
{
    mb_key key = mb_key_fold(mb_key_fold(mb_key_of((uint64_t)set.seed), stream), (uint64_t)n);
    return mb_vit_apply(r->vit, mb_patchify(x, set.patch), key, losses);
}

/* How many of the logits [B,10] are largest at their labels, int32. */
static mb_tensor correct(mb_tensor logits, mb_tensor labels)
{
    return mb_sum(mb_cast(mb_eq(mb_argmax(logits, -1), labels), MB_INT32), MB_ALL);
}

/* ---- checkpoints ---- */

static void save(run *r)
{
    mb_scope scope = mb_scope_begin(r->mb);
    int parameters = mb_params_count(r->params), states = mb_optimizer_state_count(r->optimizer);
    int n = parameters + states + 1;
    const char **names = calloc((size_t)n, sizeof *names);
    mb_tensor *ts = calloc((size_t)n, sizeof *ts);
    if (!names || !ts)
        die("out of memory");
    for (int i = 0; i < parameters; i++) {
        names[i] = mb_params_name(r->params, i);
        ts[i] = mb_params_tensor(r->params, i);
    }
    for (int i = 0; i < states; i++) {
        names[parameters + i] = mb_optimizer_state_name(r->optimizer, i);
        ts[parameters + i] = mb_optimizer_state_tensor(r->optimizer, i);
    }
    int32_t step = (int32_t)mb_optimizer_steps(r->optimizer); /* what mb_optimizer_load wants */
    names[n - 1] = "optimizer.step";
    ts[n - 1] = mb_from(r->mb, MB_INT32, MB_SHAPE0, &step);

    enum { WIDTH = 40 };
    const struct {
        const char *key;
        double value;
    } items[] = {
        {"step", (double)r->step},
        {"evaluated", (double)r->evaluated},
        {"window_loss", r->window_loss},
        {"window_correct", r->window_correct},
        {"window_steps", (double)r->window_steps},
        {"seconds", seconds_now(r)},
        {"test_loss", r->test_loss},
        {"test_accuracy", r->test_accuracy},
        {"metrics_bytes", (double)csv_bytes(&r->metrics)},
        {"inner_bytes", (double)csv_bytes(&r->inner)},
    };
    char values[COUNT(items)][WIDTH];
    const char *metadata[2 * COUNT(items) + 3] = {"format", "pt"};
    for (int i = 0; i < COUNT(items); i++) {
        snprintf(values[i], WIDTH, "%.17g", items[i].value);
        metadata[2 + 2 * i] = items[i].key;
        metadata[3 + 2 * i] = values[i];
    }
    mb_safetensors_save(r->mb, r->checkpoint, names, ts, n, metadata);
    check(r);
    free(names);
    free(ts);
    mb_scope_end(scope);
}

static double noted(const mb_safetensors *file, const char *key)
{
    const char *text = mb_safetensors_metadata(file, key);
    char *end;
    double value = text ? strtod(text, &end) : 0;
    if (!text || end == text || *end)
        die("the checkpoint's metadata has no number '%s'", key);
    return value;
}

/* Bytes of the two tables to keep. */
static void load(run *r, int64_t *metrics_bytes, int64_t *inner_bytes)
{
    mb_safetensors *file = mb_safetensors_open(r->mb, r->checkpoint);
    check(r);
    r->step = (int64_t)noted(file, "step");
    r->evaluated = (int64_t)noted(file, "evaluated");
    r->window_loss = noted(file, "window_loss");
    r->window_correct = noted(file, "window_correct");
    r->window_steps = (int64_t)noted(file, "window_steps");
    r->seconds = noted(file, "seconds");
    r->test_loss = noted(file, "test_loss");
    r->test_accuracy = noted(file, "test_accuracy");
    *metrics_bytes = (int64_t)noted(file, "metrics_bytes");
    *inner_bytes = (int64_t)noted(file, "inner_bytes");
    mb_safetensors_close(file);
    mb_scope scope = mb_scope_begin(r->mb);
    mb_optimizer_load(r->optimizer, r->checkpoint);
    mb_scope_end(scope);
    check(r);
}

/* ---- training and testing ---- */

/* One step of training. */
static void train_step(run *r, progress *bar)
{
    int64_t step = r->step, epoch = step / r->per_epoch;
    bool log = step == 0 || (step + 1) % set.log_every == 0 || (step + 1) % r->per_epoch == 0;
    float loss_value = 0, norm_value = 0;
    int32_t correct_value = 0;
    double lr = mb_optimizer_lr(r->optimizer);

    mb_scope scope = mb_scope_begin(r->mb);
    mb_tensor x, y, norm; /* [B,28,28], [B], 0-d */
    mb_images_batch(r->train, (uint64_t)epoch, step % r->per_epoch, set.batch, &x, &y);
    mb_tensor logits = predict(r, x, STREAM_TOKENS, step, log && r->inner_losses ? r->losses : NULL);
    mb_tensor loss = mb_cross_entropy(logits, y);
    mb_step_norm(r->optimizer, loss, &norm);
    mb_watch(loss, &loss_value, sizeof loss_value);
    mb_watch(norm, &norm_value, sizeof norm_value);
    mb_watch(correct(logits, y), &correct_value, sizeof correct_value);
    for (int i = 0; log && i < r->inner_losses; i++)
        mb_watch(r->losses[i], &r->inner_loss[i], sizeof *r->inner_loss);
    mb_scope_end(scope); /* everything is computed here */
    check(r);
    if (!isfinite(loss_value))
        die("step %lld: the loss is %g; a smaller --lr or --inner-lr may help", (long long)step + 1,
            loss_value);

    r->step++;
    r->window_loss += loss_value;
    r->window_correct += correct_value;
    r->window_steps++;
    double mean_loss = r->window_loss / (double)r->window_steps;
    double accuracy = r->window_correct / (double)(r->window_steps * set.batch);
    progress_step(bar, step % r->per_epoch + 1, mean_loss, accuracy, log);
    if (!log)
        return;
    double speed = bar->pace > 0 ? (double)set.batch / bar->pace : NAN;
    csv_row(&r->metrics,
            (double[]){(double)r->step, (double)epoch, mean_loss, accuracy, NAN, NAN, lr, norm_value, speed,
                       seconds_now(r)},
            10);
    int losses = mb_vit_losses(r->vit);
    for (int i = 0; i < r->inner_losses; i++)
        csv_row(&r->inner, (double[]){(double)r->step, i / losses, i % losses, r->inner_loss[i]}, 4);
    r->window_loss = r->window_correct = 0;
    r->window_steps = 0;
}

/* Loss and accuracy on the test images, with the inner loop on. False: stopped before the end. */
static bool evaluate(run *r, const char *label)
{
    double loss_sum = 0, correct_sum = 0;
    int64_t count = mb_images_count(r->test), batches = (count + set.batch - 1) / set.batch;
    progress bar;
    progress_begin(&bar, label, batches);
    for (int64_t b = 0; b < batches; b++) {
        float loss_value = 0;
        int32_t correct_value = 0;
        mb_scope scope = mb_scope_begin(r->mb);
        mb_tensor x, y;
        mb_images_batch(r->test, MB_IN_ORDER, b, set.batch, &x, &y);
        mb_tensor logits = predict(r, x, STREAM_TEST_TOKENS, b, NULL), loss = mb_cross_entropy(logits, y);
        int64_t size = mb_dim(y, 0);
        mb_watch(loss, &loss_value, sizeof loss_value);
        mb_read(correct(logits, y), &correct_value, sizeof correct_value);
        mb_scope_end(scope);
        check(r);
        loss_sum += loss_value * (double)size;
        correct_sum += correct_value;
        progress_step(&bar, b + 1, loss_sum / (double)(b * set.batch + size),
                      correct_sum / (double)(b * set.batch + size), b + 1 == batches);
        if (stop_wanted())
            break;
    }
    progress_clear(&bar);
    if (stop_wanted())
        return false;
    r->test_loss = loss_sum / (double)count;
    r->test_accuracy = correct_sum / (double)count;
    double epoch = (double)(r->step / r->per_epoch) - 1;
    csv_row(&r->metrics,
            (double[]){(double)r->step, epoch, NAN, NAN, r->test_loss, r->test_accuracy, NAN, NAN, NAN,
                       seconds_now(r)},
            10);
    return true;
}

/* Until all is done (true), or somebody wants it to stop; saved then. */
static bool train(run *r)
{
    while (!stop_wanted()) {
        int64_t epoch = r->step / r->per_epoch;
        char label[48];
        if (r->step % r->per_epoch == 0 && r->evaluated < epoch) {
            snprintf(label, sizeof label, "test  %lld/%lld", (long long)epoch, (long long)set.epochs);
            if (evaluate(r, label))
                r->evaluated = epoch;
            save(r);
            continue;
        }
        if (r->step == r->total)
            return true;
        progress bar;
        snprintf(label, sizeof label, "epoch %lld/%lld", (long long)epoch + 1, (long long)set.epochs);
        progress_begin(&bar, label, r->per_epoch);
        while (r->step / r->per_epoch == epoch && !stop_wanted()) {
            train_step(r, &bar);
            if (set.save_every && r->step % set.save_every == 0)
                save(r);
        }
        progress_clear(&bar);
        save(r);
    }
    return false;
}

/* ---- pictures ---- */

static void draw(const run *r)
{
    char script[2048];
    plot(r->folder, "loss.png",
         "set title 'Loss while training'\nset xlabel 'step'\nset ylabel 'cross entropy, nats'\nset yrange "
         "[0:*]\n"
         "plot 'metrics.csv' skip 1 using 1:3 with lines lw 1.5 lc rgb '#3b6fb6' title 'training batches', "
         "\\\n"
         "     '' skip 1 using 1:5 with points pt 7 ps 1.4 lc rgb '#c8502d' title 'test images'\n");
    plot(r->folder, "accuracy.png",
         "set title 'Accuracy while training'\nset xlabel 'step'\nset ylabel 'images classified right, %'\n"
         "set yrange [*:100]\nset key bottom right\n"
         "plot 'metrics.csv' skip 1 using 1:($4*100) with lines lw 1.5 lc rgb '#3b6fb6' title 'training "
         "batches', \\\n"
         "     '' skip 1 using 1:($6*100) with points pt 7 ps 1.4 lc rgb '#c8502d' title 'test images'\n");
    if (!r->inner_losses)
        return;
    int steps = r->inner_losses / (int)set.depth - 1, last = (int)set.depth - 1;
    snprintf(script, sizeof script,
             "set title 'What the learners do on an image: inner loss, first and last step of training'\n"
             "set xlabel 'inner step t'\nset ylabel 'l(W_t), summed over heads'\n"
             "set xrange [%g:%g]\nset xtics %s\nset yrange [0:*]\nset key outside right\nset rmargin 26\n"
             "stats 'inner_loss.csv' skip 1 using 1 nooutput name 'S'\n"
             "array colour[6] = ['#3b6fb6', '#c8502d', '#3d8f5f', '#8a5fb0', '#b08a2e', '#5f6b7a']\n"
             "plot for [l=0:%d] 'inner_loss.csv' skip 1 using ($1==S_min && $2==l ? $3 : NaN):4 \\\n"
             "  with linespoints dt 2 pt 6 lc rgb colour[l%%6+1] title sprintf('block %%d, first', l+1), \\\n"
             "  for [l=0:%d] '' skip 1 using ($1==S_max && $2==l ? $3 : NaN):4 \\\n"
             "  with linespoints lw 2 pt 7 lc rgb colour[l%%6+1] title sprintf('block %%d, last', l+1)\n",
             -0.05 * steps - 0.05, 1.05 * steps + 0.05, steps <= 12 ? "1" : "autofreq", last, last);
    plot(r->folder, "inner_loss.png", script);
}

/* ---- the run ---- */

/* Decides on the folder, and refuses what would mix two runs. Makes nothing yet. */
static void choose_folder(run *r)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "mttt-%s", set.learner);
    r->folder = *set.out ? set.out : numbered_run(prefix, set.resume);
    r->checkpoint = path_in(r->folder, "checkpoint.safetensors");
    bool saved = file_exists(r->checkpoint);
    if (!set.resume && saved)
        die("%s holds a run already: --resume goes on with it, another --out begins a new one", r->folder);
    if (!set.resume)
        return;
    if (!saved)
        die("--resume: there is no %s", r->checkpoint);
    char *config = path_in(r->folder, "config.json");
    int differing = flags_compare(config, flags, COUNT(flags));
    free(config);
    if (differing > 0)
        die("--resume: %s was made with other flags", r->folder);
}

/* The folder's files: new ones, or those of the run that is resumed, as they were at its checkpoint. */
static void open_folder(run *r)
{
    int64_t metrics_bytes = 0, inner_bytes = 0;
    if (set.resume) {
        load(r, &metrics_bytes, &inner_bytes);
    } else {
        make_folder(r->folder);
        char *config = path_in(r->folder, "config.json");
        flags_save(config, flags, COUNT(flags));
        free(config);
    }
    csv_open(&r->metrics, r->folder, "metrics.csv",
             "step,epoch,loss,accuracy,test_loss,test_accuracy,lr,grad_norm,images_per_s,elapsed_s",
             metrics_bytes);
    if (r->inner_losses)
        csv_open(&r->inner, r->folder, "inner_loss.csv", "step,block,inner_step,loss", inner_bytes);
}

int main(int argc, char **argv)
{
    static run r;
    flags_parse(argc, argv, "Trains a vision transformer on Fashion-MNIST whose blocks learn at test time.",
                flags, COUNT(flags));
    stop_install();
    choose_folder(&r);
    mb_options options = {.backend = *set.backend ? set.backend : NULL, .threads = (int)set.threads};
    r.mb = mb_open_with(&options);
    check(&r);
    build(&r);
    open_folder(&r);
    r.started = now();
    fprintf(stderr, "%s: %s on %s, %lld parameters, %lld images, step %lld of %lld\n", r.folder, set.learner,
            mb_backend_name(r.mb), (long long)mb_params_size(r.params), (long long)mb_images_count(r.train),
            (long long)r.step, (long long)r.total);
    bool done = train(&r);
    double seconds = seconds_now(&r);
    int64_t parameters = mb_params_size(r.params);
    csv_close(&r.metrics);
    if (r.inner_losses)
        csv_close(&r.inner);
    if (done)
        draw(&r);
    else
        fprintf(stderr,
                "stopped and saved at step %lld of %lld; the same flags and --out %s --resume go on\n",
                (long long)r.step, (long long)r.total, r.folder);

    mb_images_close(r.train);
    mb_images_close(r.test);
    mb_optimizer_free(r.optimizer);
    mb_params_free(r.params);
    free(r.losses);
    free(r.inner_loss);
    free(r.checkpoint);
    mb_status status = mb_close(r.mb);
    if (status != MB_OK)
        die("%s", mb_status_name(status));
    if (!done)
        return 130;
    printf("test accuracy %.4f  loss %.4f  parameters %lld  seconds %.1f\n", r.test_accuracy, r.test_loss,
           (long long)parameters, seconds);
    return 0;
}
