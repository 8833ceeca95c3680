/* SPDX-License-Identifier: MIT
 * hyper.c - how a validation loss depends on learning rate, momentum and weight decay, through all 3000 steps
 * of the training they govern. "hyper [STEPS] [reverse|forward|unrolled]"; without a word, the first two:
 * reverse: a gradient for all of them at once; the scan keeps some 2 sqrt(STEPS) sets of weights.
 * forward: a tangent for each of them runs along with the training, and nothing is kept.
 * unrolled: a gradient with every step on the tape, for comparison. */
#include <math.h>
#include <moebius.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HIDDEN = 40, POINTS = 64, LAYERS = 3, WEIGHTS = 2 * LAYERS, RATE = 0, MOMENTUM, DECAY, HYPERS };
/* At twice this rate training is chaotic: its derivatives are rounding errors, grown from step to step. */
static const double start[HYPERS] = {0.01, 0.9, 1e-4};

/* x, y: [POINTS,1] */
static mb_tensor error(const mb_tensor *w, mb_tensor x, mb_tensor y)
{
    for (int i = 0; i < LAYERS; i++) {
        x = mb_add(mb_matmul(x, w[2 * i]), w[2 * i + 1]);
        x = i < LAYERS - 1 ? mb_tanh(x) : x;
    }
    return mb_mean(mb_square(mb_sub(x, y)), MB_ALL);
}

/* One step of training: w and v become the next weights and velocities. h: [HYPERS] */
static void train(mb_tensor *w, mb_tensor *v, mb_tensor x, mb_tensor y, mb_tensor h)
{
    mb_tensor g[WEIGHTS], rate = mb_slice(h, 0, RATE, 1, 1), momentum = mb_slice(h, 0, MOMENTUM, 1, 1),
                          decay = mb_slice(h, 0, DECAY, 1, 1);
    mb_grad(error(w, x, y), w, WEIGHTS, g);
    for (int i = 0; i < WEIGHTS; i++) {
        v[i] = mb_add(mb_mul(momentum, v[i]), mb_add(g[i], mb_mul(decay, w[i])));
        w[i] = mb_sub(w[i], mb_mul(rate, v[i]));
    }
}

/* The validation loss after `steps` steps. */
static mb_tensor trained(const mb_params *p, mb_tensor h, int64_t steps, bool unrolled)
{
    mb_tensor w[WEIGHTS], v[WEIGHTS], x[2], y[2];
    for (int i = 0; i < 2; i++) { /* for training and validation: a noisy wave */
        mb_key key = mb_key_fold(mb_key_of(5), (uint64_t)i);
        x[i] = mb_mul(mb_normal(h.ctx, mb_key_fold(key, 0), MB_FLOAT64, MB_SHAPE(POINTS, 1)), 1.2);
        mb_tensor noise = mb_normal(h.ctx, mb_key_fold(key, 1), MB_FLOAT64, MB_SHAPE(POINTS, 1));
        y[i] = mb_add(mb_sin(mb_mul(x[i], 3.0)), mb_mul(noise, 0.2));
    }
    mb_params_list(p, w, WEIGHTS);
    for (int i = 0; i < WEIGHTS; i++)
        v[i] = mb_zeros(h.ctx, MB_FLOAT64, mb_shape_of(w[i]));
    for (int64_t t = 0; unrolled && t < steps; t++)
        train(w, v, x[0], y[0], h);
    if (unrolled)
        return error(w, x[1], y[1]);
    mb_scan s = mb_scan_begin_with(h.ctx, steps, (mb_scan_options){.keep_every = MB_KEEP_SQRT});
    for (int i = 0; i < 2 * WEIGHTS; i++)
        mb_scan_carry(s, i < WEIGHTS ? &w[i] : &v[i - WEIGHTS]);
    train(w, v, x[0], y[0], h);
    mb_scan_end(s);
    return error(w, x[1], y[1]);
}

/* Prints and writes the derivatives; twice, since the first time also makes the plan. 0: all is well. */
static mb_status run(const char *mode, int64_t steps, double *slope)
{
    static const char *const names[WEIGHTS] = {"w0", "b0", "w1", "b1", "w2", "b2"};
    const int64_t sizes[] = {1, HIDDEN, HIDDEN, 1};
    mb_context *mb = mb_open(NULL);
    mb_params *p = mb_params_new_with(mb, 1, MB_FLOAT64);
    for (int i = 0; i < LAYERS; i++) {
        mb_param(p, names[2 * i], MB_SHAPE(sizes[i], sizes[i + 1]), mb_init_xavier(sizes[i], sizes[i + 1]));
        mb_param(p, names[2 * i + 1], MB_SHAPE(sizes[i + 1]), mb_init_zeros());
    }
    mb_tensor h = mb_from(mb, MB_FLOAT64, MB_SHAPE(HYPERS), start), slopes;
    mb_tensor ready[] = {mb_params_tensor(p, 0), mb_eye(mb, MB_FLOAT64, HYPERS)};
    mb_eval(ready, 2);
    uint64_t before = mb_get_stats(mb).bytes;
    double loss = NAN, seconds = 0;
    for (int again = 0; again < 2; again++) {
        mb_scope scope = mb_scope_begin(mb);
        mb_tensor y = trained(p, h, steps, !strcmp(mode, "unrolled"));
        if (!strcmp(mode, "forward"))
            mb_jvp_batch(&y, 1, &h, &ready[1], 1, &slopes);
        else
            mb_grad(y, &h, 1, &slopes);
        mb_watch(y, &loss, sizeof loss);
        struct timespec t[2];
        clock_gettime(CLOCK_MONOTONIC, &t[0]);
        mb_read(slopes, slope, HYPERS * sizeof *slope);
        clock_gettime(CLOCK_MONOTONIC, &t[1]);
        seconds = (double)(t[1].tv_sec - t[0].tv_sec) + 1e-9 * (double)(t[1].tv_nsec - t[0].tv_nsec);
        mb_scope_end(scope);
    }
    printf("%-9s %9.6f %12.6f %12.6f %12.6f %9.1f %9.2f\n", mode, loss, slope[RATE], slope[MOMENTUM],
           slope[DECAY], 1e6 * seconds / (double)steps,
           (double)(mb_get_stats(mb).peak_bytes - before) * 1e-6);
    if (mb_error(mb) != MB_OK)
        fprintf(stderr, "%s\n", mb_message(mb));
    mb_params_free(p);
    return mb_close(mb);
}

int main(int argc, char **argv)
{
    int64_t steps = argc > 1 ? atoll(argv[1]) : 3000;
    double a[HYPERS], b[HYPERS], far = 0;
    printf("%-9s %9s %12s %12s %12s %9s %9s\n", "", "loss", "by rate", "momentum", "decay", "us/step",
           "MB more");
    if (argc > 2)
        return run(argv[2], steps, a);
    mb_status status = run("reverse", steps, a) == MB_OK ? run("forward", steps, b) : MB_INVALID;
    for (int i = 0; status == MB_OK && i < HYPERS; i++)
        far = fmax(far, a[i] == b[i] ? 0 : fabs(a[i] / b[i] - 1));
    printf("largest relative difference %.1e\n", far);
    return status != MB_OK || !(far <= 1e-8) || isnan(a[0] + a[1] + a[2]);
}
