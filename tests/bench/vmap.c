/* SPDX-License-Identifier: MIT
 *
 * vmap.c - what vmaps cost: one step of an MLP written for a batch, and the same with the examples mapped, in
 * turn.
 *
 *   vmap [EXAMPLES [WIDTH [STEPS]]]        default: 256 64 200
 *
 * Prints a line for each way: the median of a step in milliseconds, and the ratio to the first way that gives
 * the same. The last ways have a gradient for each example, which the batched step never makes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <moebius.h>

enum { LAYERS = 3, CLASSES = 10, MOST_STEPS = 10000 };

typedef struct model {
    mb_tensor w[LAYERS], x, labels;
    int64_t n, width;
} model;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* x: [rows, width] or, for a w of each example, [n, 1, width]. */
static mb_tensor losses_of(const mb_tensor *w, mb_tensor x, mb_tensor labels)
{
    for (int i = 0; i < LAYERS; i++)
        x = i + 1 < LAYERS ? mb_tanh(mb_matmul(x, w[i])) : mb_matmul(x, w[i]);
    return mb_cross_entropy_with(x, labels, (mb_cross_entropy_options){.each_row = true});
}

/* The gradient of the mean loss of a batch. */
static void batched(const model *m, mb_tensor *out)
{
    mb_grad(mb_mean(losses_of(m->w, m->x, m->labels), MB_ALL), m->w, LAYERS, out);
}

/* The same, of the mean of losses that a vmap gives. */
static void mapped_loss(const model *m, mb_tensor *out)
{
    mb_tensor all;
    mb_vmap v = mb_vmap_begin(m->x.ctx, m->n);
    mb_tensor x = mb_unsqueeze(mb_vmap_in(v, m->x, 0), 0),
              label = mb_unsqueeze(mb_vmap_in(v, m->labels, 0), 0);
    mb_vmap_out(v, mb_mean(losses_of(m->w, x, label), MB_ALL), 0, &all);
    mb_vmap_end(v);
    mb_grad(mb_mean(all, MB_ALL), m->w, LAYERS, out);
}

/* A gradient for each example, of weights repeated by hand. */
static void repeated(const model *m, mb_tensor *out)
{
    mb_tensor w[LAYERS];
    for (int i = 0; i < LAYERS; i++)
        w[i] = mb_alias(mb_broadcast(m->w[i], MB_SHAPE(m->n, mb_dim(m->w[i], 0), mb_dim(m->w[i], 1))));
    mb_tensor x = mb_unsqueeze(m->x, 1), labels = mb_unsqueeze(m->labels, 1);
    mb_grad(losses_of(w, x, labels), w, LAYERS, out);
}

static void mapped_gradient(const model *m, mb_tensor *out)
{
    mb_tensor g[LAYERS];
    mb_vmap v = mb_vmap_begin(m->x.ctx, m->n);
    mb_tensor x = mb_unsqueeze(mb_vmap_in(v, m->x, 0), 0),
              label = mb_unsqueeze(mb_vmap_in(v, m->labels, 0), 0);
    mb_grad(mb_mean(losses_of(m->w, x, label), MB_ALL), m->w, LAYERS, g);
    for (int i = 0; i < LAYERS; i++)
        mb_vmap_out(v, g[i], 0, &out[i]);
    mb_vmap_end(v);
}

typedef struct way {
    const char *name;
    void (*record)(const model *, mb_tensor *);
    int like; /* the way with the same results */
    double ms[MOST_STEPS];
} way;

static way ways[] = {
    {"gradient of a batch", batched, 0, {0}},
    {"gradient of a vmap", mapped_loss, 0, {0}},
    {"each example's, by hand", repeated, 2, {0}},
    {"each example's, vmap of gradient", mapped_gradient, 2, {0}},
};
enum { WAYS = sizeof ways / sizeof *ways };

/* Milliseconds of one step; the sum of magnitudes of what it gave. */
static double step(mb_context *mb, model m, const way *w, double *check)
{
    double begun = now_ms();
    mb_scope s = mb_scope_begin(mb);
    mb_tensor out[LAYERS], sum = {0};
    w->record(&m, out);
    mb_eval(out, LAYERS);
    double ms = now_ms() - begun;
    for (int i = 0; i < LAYERS && check; i++) {
        mb_tensor t = mb_sum(mb_abs(out[i]), MB_ALL);
        sum = i ? mb_add(sum, t) : t;
    }
    if (check)
        *check = mb_item(sum);
    mb_scope_end(s);
    return ms;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    model m = {.n = argc > 1 ? atoll(argv[1]) : 256, .width = argc > 2 ? atoll(argv[2]) : 64};
    int steps = argc > 3 ? atoi(argv[3]) : 200;
    if (m.n < 1 || m.width < 1 || steps < 1 || steps > MOST_STEPS)
        return 1;
    mb_context *mb = mb_open(NULL);
    for (int i = 0; i < LAYERS; i++) {
        m.w[i] = mb_variable(mb, MB_FLOAT32, MB_SHAPE(m.width, i + 1 < LAYERS ? m.width : CLASSES));
        mb_tensor drawn = mb_normal(mb, mb_key_of((uint64_t)i), MB_FLOAT32, mb_shape_of(m.w[i]));
        mb_assign(m.w[i], mb_mul(drawn, 1 / sqrt((double)m.width)));
    }
    m.x = mb_normal(mb, mb_key_of(10), MB_FLOAT32, MB_SHAPE(m.n, m.width));
    m.labels = mb_argmax(mb_uniform(mb, mb_key_of(11), MB_FLOAT32, MB_SHAPE(m.n, CLASSES)), 1);
    mb_eval((mb_tensor[]){m.x, m.labels}, 2);
    double check[WAYS];
    for (int w = 0; w < WAYS; w++)
        step(mb, m, &ways[w], &check[w]);
    for (int first = 0; first < WAYS; first += 2) /* in turn with what they are compared with alone */
        for (int i = 0; i < steps; i++)
            for (int w = first; w < first + 2; w++)
                ways[w].ms[i] = step(mb, m, &ways[w], NULL);
    for (int w = 0; w < WAYS; w++)
        qsort(ways[w].ms, (size_t)steps, sizeof(double), ascending);
    int wrong = 0;
    for (int w = 0; w < WAYS; w++) {
        double ms = ways[w].ms[steps / 2], like = ways[ways[w].like].ms[steps / 2];
        wrong += !(fabs(check[w] - check[ways[w].like]) <= 1e-4 * check[w]);
        printf("%-34s %8.3f ms   %.2f\n", ways[w].name, ms, ms / like);
    }
    if (mb_error(mb) != MB_OK || wrong)
        fprintf(stderr, "%s\n", mb_error(mb) != MB_OK ? mb_message(mb) : "the ways differ in what they give");
    return mb_close(mb) != MB_OK || wrong;
}
