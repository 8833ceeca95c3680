/* SPDX-License-Identifier: MIT
 *
 * convnet.c - a convolutional network on Fashion-MNIST: two convolutions with batch norm, relu and a pool
 * each, dropout, and a linear layer. Everything of a run is in its folder: config.json, metrics.csv,
 * pictures, and the parameters. */
#include <math.h>
#include <moebius.h>
#include <stdlib.h>

#include "common.h"

enum { SIDE = 28, CHANNELS = 32, CLASSES = 10, FEATURES = SIDE / 4 * (SIDE / 4) * 2 * CHANNELS };

typedef struct settings {
    int64_t epochs, batch, seed, train_images, test_images, threads;
    double lr, dropout;
    const char *backend, *data, *out;
    bool quick, check;
} settings;

static settings set = {.epochs = 3,
                       .batch = 64,
                       .seed = 1,
                       .lr = 2e-3,
                       .dropout = 0.25,
                       .backend = "",
                       .data = MB_FASHION_MNIST,
                       .out = ""};

static const flag flags[] = {
    {.name = "quick", FLAG_BOOL, &set.quick, "one epoch of 3000 images, tested on 1000"},
    {.name = "epochs", FLAG_INT, &set.epochs, "passes over the training images", .least = 1, .most = 1e6},
    {.name = "batch", FLAG_INT, &set.batch, "images of a step", .least = 2, .most = 1e5},
    {.name = "lr", FLAG_REAL, &set.lr, "highest learning rate; a cosine to 0", .least = 1e-9, .most = 1e3},
    {.name = "dropout", FLAG_REAL, &set.dropout, "before the linear layer", .least = 0, .most = 1},
    {.name = "seed", FLAG_INT, &set.seed, "of initial values, order of images, dropout", .most = 9e15},
    {.name = "train-images", FLAG_INT, &set.train_images, "use the first N; 0: all 60000", .most = 60000},
    {.name = "test-images", FLAG_INT, &set.test_images, "use the first N; 0: all 10000", .most = 10000},
    {.name = "backend", FLAG_TEXT, &set.backend, "cpu, vulkan, reference; none: $MB_BACKEND or the best"},
    {.name = "threads", FLAG_INT, &set.threads, "of the cpu backend; 0: all CPUs", .most = 1024},
    {.name = "data", FLAG_TEXT, &set.data, "folder of the four files of Fashion-MNIST"},
    {.name = "out", FLAG_TEXT, &set.out, "folder of the run; none: runs/convnet-001 and so on"},
    {.name = "check", FLAG_BOOL, &set.check, "an accuracy that is too low is an error"},
};

typedef struct net {
    mb_conv conv[2];
    mb_batch_norm norm[2];
    mb_linear head;
} net;

static net make_net(mb_params *p)
{
    net n;
    for (int i = 0; i < 2; i++) {
        mb_conv_layer_options o = {.in = i ? CHANNELS : 1, .out = CHANNELS << i, .size = {3}};
        o.conv = (mb_conv_options){.padding = {1, 1}, .channels_last = true};
        n.conv[i] = mb_conv2d_new(p, i ? "conv2" : "conv1", o);
        n.norm[i] = mb_batch_norm_new(p, i ? "norm2" : "norm1", o.out);
    }
    n.head = mb_linear_new(p, "head", FEATURES, CLASSES);
    return n;
}

/* x: [B,SIDE,SIDE] -> logits [B,CLASSES]. Channels are the last axis. */
static mb_tensor logits(const net *n, mb_tensor x, mb_key key, bool training)
{
    mb_tensor z = mb_unsqueeze(x, 3); /* one channel */
    for (int i = 0; i < 2; i++) {
        z = mb_batch_norm_apply(n->norm[i], mb_conv2d_apply(n->conv[i], z), -1, training);
        z = mb_max_pool2d(mb_relu(z), (mb_pool_options){.size = {2}, .channels_last = true});
    }
    z = mb_dropout(mb_reshape(z, MB_SHAPE(-1, FEATURES)), key, set.dropout, training);
    return mb_linear_apply(n->head, z);
}

static mb_images *open_images(mb_context *mb, const char *part, int64_t limit)
{
    char name[2][64];
    snprintf(name[0], sizeof name[0], "%s-images-idx3-ubyte.gz", part);
    snprintf(name[1], sizeof name[1], "%s-labels-idx1-ubyte.gz", part);
    char *images = path_in(set.data, name[0]), *labels = path_in(set.data, name[1]);
    mb_images *data = mb_images_open(mb, (mb_images_options){.images = images,
                                                             .labels = labels,
                                                             .limit = limit,
                                                             .mean = MB_FASHION_MNIST_MEAN,
                                                             .std = MB_FASHION_MNIST_STD,
                                                             .classes = CLASSES,
                                                             .seed = (uint64_t)set.seed});
    free(images);
    free(labels);
    if (!data)
        die("%s (Debian's package dataset-fashion-mnist has the files)", mb_message(mb));
    if (mb_images_height(data) != SIDE || mb_images_width(data) != SIDE)
        die("%s: images are not %d by %d", set.data, SIDE, SIDE);
    return data;
}

typedef struct score {
    double loss, correct, images;
} score;

/* One batch: a step of training, or, without an optimiser, a test. */
static void run_batch(const net *n, mb_images *data, mb_optimizer *opt, int64_t epoch, int64_t batch,
                      score *s)
{
    mb_tensor x, y;
    float loss = 0;
    int32_t correct = 0;
    int64_t steps = (mb_images_count(data) + set.batch - 1) / set.batch;
    mb_key key = mb_key_fold(mb_key_of((uint64_t)set.seed), (uint64_t)(epoch * steps + batch));
    mb_context *mb = n->head.weight.ctx;
    mb_scope scope = mb_scope_begin(mb);
    mb_images_batch(data, opt ? (uint64_t)epoch : MB_IN_ORDER, batch, set.batch, &x, &y);
    mb_tensor out = logits(n, x, key, opt != NULL), mean = mb_cross_entropy(out, y);
    int64_t count = mb_dim(x, 0);
    mb_tensor right = mb_sum(mb_eq(mb_argmax(out, 1), y), MB_ALL);
    mb_watch(mean, &loss, sizeof loss);
    if (opt)
        mb_step(opt, mean);
    mb_read(right, &correct, sizeof correct);
    mb_scope_end(scope);
    if (mb_error(mb) != MB_OK)
        die("%s", mb_message(mb));
    s->loss += loss * (double)count;
    s->correct += correct;
    s->images += (double)count;
}

/* All batches of an epoch, or of the test images. */
static score pass(const char *label, const net *n, mb_images *data, mb_optimizer *opt, int64_t epoch)
{
    score s = {0};
    progress bar;
    int64_t batches = (mb_images_count(data) + set.batch - 1) / set.batch;
    progress_begin(&bar, label, batches);
    for (int64_t b = 0; b < batches && !stop_wanted(); b++) {
        run_batch(n, data, opt, epoch, b, &s);
        progress_step(&bar, b + 1, s.loss / s.images, s.correct / s.images, b + 1 == batches);
    }
    progress_clear(&bar);
    return s;
}

static void draw_picture(const char *folder)
{
    plot(
        folder, "accuracy.png", 1000, 620,
        "set title 'Accuracy after each epoch'\nset xlabel 'epoch'\nset ylabel 'images classified right, %'\n"
        "set xtics 1\nset key bottom right\n"
        "plot 'metrics.csv' skip 1 using 1:($3*100) with linespoints lw 1.5 pt 7 lc rgb '#3b6fb6' title "
        "'training, with dropout', '' skip 1 using 1:($5*100) with linespoints lw 1.5 pt 7 lc rgb '#c8502d' "
        "title 'test images'\n");
}

/* The accuracy on the test images. */
static double train(const net *n, mb_images *data, mb_images *test, mb_optimizer *opt, const char *folder)
{
    csv metrics = {0};
    double accuracy = NAN;
    csv_open(&metrics, folder, "metrics.csv",
             "epoch,train_loss,train_accuracy,test_loss,test_accuracy,seconds");
    for (int64_t epoch = 0; epoch < set.epochs && !stop_wanted(); epoch++) {
        char label[48];
        double begun = now();
        snprintf(label, sizeof label, "epoch %lld/%lld", (long long)epoch + 1, (long long)set.epochs);
        score a = pass(label, n, data, opt, epoch), b = pass("test", n, test, NULL, 0);
        if (stop_wanted())
            break;
        accuracy = b.correct / b.images;
        csv_row(&metrics,
                (double[]){(double)epoch + 1, a.loss / a.images, a.correct / a.images, b.loss / b.images,
                           accuracy, now() - begun},
                6);
    }
    csv_close(&metrics);
    return accuracy;
}

int main(int argc, char **argv)
{
    process_begin(argc, argv);
    if (flags_given(argc, argv, "quick")) {
        set.epochs = 1;
        set.train_images = 3000;
        set.test_images = 1000;
    }
    flags_parse(argc, argv, "Trains a convolutional network on Fashion-MNIST.", flags, COUNT(flags));
    stop_install();
    const char *folder = claim_folder(set.out, "convnet", "config.json", "another --out begins a new one");
    char *config = path_in(folder, "config.json"), *weights = path_in(folder, "parameters.safetensors");
    flags_save(config, flags, COUNT(flags));
    mb_context *mb = mb_open_with(
        &(mb_options){.backend = *set.backend ? set.backend : NULL, .threads = (int)set.threads});
    mb_images *data = open_images(mb, "train", set.train_images),
              *test = open_images(mb, "t10k", set.test_images);
    mb_params *p = mb_params_new(mb, (uint64_t)set.seed);
    net n = make_net(p);
    int64_t steps = set.epochs * ((mb_images_count(data) + set.batch - 1) / set.batch);
    mb_optimizer *opt = mb_adamw(
        p, (mb_adamw_options){
               .lr = set.lr, .weight_decay = 1e-2, .schedule = mb_schedule_warmup_cosine(steps / 10, steps)});
    double accuracy = train(&n, data, test, opt, folder);
    mb_params_save(p, weights);
    if (mb_error(mb) != MB_OK)
        die("%s", mb_message(mb));
    draw_picture(folder);
    summary_line("accuracy on test images", accuracy, NAN, set.quick ? "" : "0.90", set.quick ? 0.75 : 0.9,
                 NAN);
    printf("folder %s\n", folder);
    mb_optimizer_free(opt);
    mb_params_free(p);
    mb_images_close(data);
    mb_images_close(test);
    free(config);
    free(weights);
    bool failed = mb_close(mb) != MB_OK || pictures_failed() || (set.check && summary_failures());
    return process_end(stop_wanted() ? 130 : failed);
}
