/* SPDX-License-Identifier: MIT
 *
 * recurrent.c - times a training step of a GRU over sequences: loss, gradients of all parameters, SGD.
 * Compared with PyTorch by compare_recurrent.
 *
 *     recurrent [--tokens 256] [--batch 16] [--hidden 64] [--threads 1] [--steps 10] [--unrolled]
 *
 * --unrolled: every token's step recorded on its own, without mb_scan. Prints one line of JSON: median_ms of
 * a step, first_ms, plan_ms, nodes, arena_mb. */
#include <moebius.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct bench {
    int64_t tokens, batch, hidden, threads, steps;
    bool unrolled;
    mb_recurrent layer;
    mb_params *params;
    mb_optimizer *optimizer;
    mb_tensor x;
} bench;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Token by token, a sequence of one each. */
static mb_tensor unrolled(bench *b)
{
    mb_tensor *h = malloc((size_t)b->tokens * sizeof *h), all = {0};
    mb_recurrent_state state = {0};
    for (int64_t t = 0; h && t < b->tokens; t++)
        h[t] = mb_recurrent_apply(b->layer, mb_slice(b->x, 1, t, 1, 1), &state);
    if (h)
        all = mb_concat(h, (int)b->tokens, 1);
    free(h);
    return all;
}

static double step(bench *b)
{
    mb_scope scope = mb_scope_begin(b->x.ctx);
    mb_tensor y = b->unrolled ? unrolled(b) : mb_recurrent_apply(b->layer, b->x, NULL);
    mb_tensor loss = mb_mean(mb_square(y), MB_ALL);
    mb_step(b->optimizer, loss);
    double value = mb_item(loss);
    mb_scope_end(scope);
    return value;
}

static bool parse(bench *b, int argc, char **argv)
{
    const struct {
        const char *name;
        int64_t *to;
    } numbers[] = {{"--tokens", &b->tokens},
                   {"--batch", &b->batch},
                   {"--hidden", &b->hidden},
                   {"--threads", &b->threads},
                   {"--steps", &b->steps}};
    for (int i = 1; i < argc; i++) {
        bool known = strcmp(argv[i], "--unrolled") == 0;
        b->unrolled |= known;
        for (size_t k = 0; !known && k < sizeof numbers / sizeof *numbers; k++)
            if (strcmp(argv[i], numbers[k].name) == 0 && i + 1 < argc) {
                *numbers[k].to = strtoll(argv[++i], NULL, 10);
                known = *numbers[k].to > 0;
            }
        if (!known)
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    bench b = {.tokens = 256, .batch = 16, .hidden = 64, .threads = 1, .steps = 10};
    if (!parse(&b, argc, argv)) {
        fprintf(stderr,
                "recurrent: wanted --tokens, --batch, --hidden, --threads, --steps, each with a number, or "
                "--unrolled\n");
        return 2;
    }
    mb_context *mb = mb_open_with(&(mb_options){.threads = (int)b.threads});
    b.params = mb_params_new(mb, 1);
    b.layer = mb_recurrent_new(b.params, "gru", (mb_recurrent_options){.in = b.hidden, .hidden = b.hidden});
    b.optimizer = mb_sgd(b.params, (mb_sgd_options){.lr = 1e-3});
    b.x = mb_normal(mb, mb_key_of(2), MB_FLOAT32, MB_SHAPE(b.batch, b.tokens, b.hidden));
    mb_eval(&b.x, 1);
    double *ms = calloc((size_t)b.steps, sizeof *ms), begun = now_ms(), first;
    double loss = step(&b);
    first = now_ms() - begun;
    for (int64_t i = 0; ms && i < b.steps; i++) {
        begun = now_ms();
        loss = step(&b);
        ms[i] = now_ms() - begun;
    }
    if (!ms || mb_error(mb) != MB_OK) {
        fprintf(stderr, "recurrent: %s\n", mb_message(mb));
        return 1;
    }
    qsort(ms, (size_t)b.steps, sizeof *ms, by_size);
    mb_stats s = mb_get_stats(mb);
    printf("{\"tokens\": %lld, \"unrolled\": %s, \"median_ms\": %.3f, \"min_ms\": %.3f, \"first_ms\": %.1f, "
           "\"plan_ms\": "
           "%.1f, \"nodes\": %llu, \"arena_mb\": %.1f, \"loss\": %.6f}\n",
           (long long)b.tokens, b.unrolled ? "true" : "false", ms[b.steps / 2], ms[0], first,
           s.plan_seconds * 1e3, (unsigned long long)s.last_nodes, (double)s.last_arena_bytes / 1048576,
           loss);
    free(ms);
    mb_optimizer_free(b.optimizer);
    mb_params_free(b.params);
    return mb_close(mb) == MB_OK ? 0 : 1;
}
