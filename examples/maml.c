/* SPDX-License-Identifier: MIT
 * maml.c - "Model-Agnostic Meta-Learning", Finn et al. 1703.03400, on sinusoids: a start from which a step of
 * gradient descent on a few points of a new wave fits it. "maml [POINTS [STEPS [WAY [INNER]]]]"; 2 x 40 relu,
 * inner rate 0.01, Adam 0.001 on 25 waves a step, INNER 1, as there; but Xavier's start, and 20000 steps, not
 * 70000. WAY: full; first-order: the way from start to adapted weights counts as constant; learned-rates. */
#include <math.h>
#include <moebius.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HIDDEN = 40, LAYERS = 3, WEIGHTS = 6, WAVES = 25, TEST_WAVES = 600, TEST_STEPS = 10 };

typedef struct points {
    mb_tensor x, y; /* of one wave for each task: [tasks,points,1] */
} points;

/* n points to adapt to, and others of the same waves. */
static void draw(mb_context *mb, mb_key key, int64_t tasks, int64_t n, int64_t others, points out[2])
{
    mb_shape one = MB_SHAPE(tasks, 1, 1);
    mb_tensor size = mb_add(mb_mul(mb_uniform(mb, mb_key_fold(key, 0), MB_FLOAT32, one), 4.9), 0.1);
    mb_tensor phase = mb_mul(mb_uniform(mb, mb_key_fold(key, 1), MB_FLOAT32, one), acos(-1));
    for (int i = 0; i < 2; i++) {
        mb_shape shape = MB_SHAPE(tasks, i ? others : n, 1);
        mb_tensor x = mb_uniform(mb, mb_key_fold(key, 2 + (uint64_t)i), MB_FLOAT32, shape);
        out[i].x = mb_mul(mb_sub(x, 0.5), 10.0);
        out[i].y = mb_mul(size, mb_sin(mb_sub(out[i].x, phase)));
    }
}

/* [tasks]: each task's loss under its own weights. */
static mb_tensor losses(const mb_tensor *w, points p)
{
    for (int i = 0; i < LAYERS; i++) {
        p.x = mb_add(mb_matmul(p.x, w[2 * i]), w[2 * i + 1]);
        p.x = i < LAYERS - 1 ? mb_relu(p.x) : p.x;
    }
    return mb_mean(mb_square(mb_sub(p.x, p.y)), MB_AXES(1, 2));
}

/* w: each task's weights, `steps` steps after the start; result: [steps,tasks], their losses on other points
 * after each. All in one scan, which a gradient goes through. */
static mb_tensor adapt(const mb_tensor *start, mb_tensor *w, mb_tensor rates, const points p[2],
                       int64_t steps)
{
    mb_tensor g[WEIGHTS], seen;
    for (int i = 0; i < WEIGHTS; i++)
        w[i] = mb_broadcast(start[i], MB_SHAPE(mb_dim(p->x, 0), mb_dim(start[i], 0), mb_dim(start[i], 1)));
    mb_scan s = mb_scan_begin(rates.ctx, steps);
    for (int i = 0; i < WEIGHTS; i++)
        mb_scan_carry(s, &w[i]);
    mb_grad(losses(w, p[0]), w, WEIGHTS, g);
    for (int i = 0; i < WEIGHTS; i++)
        w[i] = mb_sub(w[i], mb_mul(mb_slice(rates, 0, i, 1, 1), g[i]));
    mb_scan_stack(s, losses(w, p[1]), &seen);
    mb_scan_end(s);
    return seen;
}

/* On new waves, the same in every run: mean loss and 95 % of its uncertainty, before and after steps. */
static void evaluate(const mb_tensor *start, mb_tensor rates, int64_t n, int64_t shown)
{
    float mean[TEST_STEPS + 1] = {0}, square[TEST_STEPS + 1] = {0}, r[WEIGHTS];
    mb_scope scope = mb_scope_begin(rates.ctx);
    mb_tensor w[WEIGHTS];
    points of[2];
    draw(rates.ctx, mb_key_of(99), TEST_WAVES, n, 50, of);
    mb_tensor first = mb_reshape(losses(start, of[1]), MB_SHAPE(1, TEST_WAVES));
    mb_tensor all = mb_concat(((mb_tensor[]){first, adapt(start, w, rates, of, TEST_STEPS)}), 2, 0);
    mb_watch(mb_mean(mb_square(all), MB_AXES(1)), square, sizeof square);
    mb_read(mb_mean(all, MB_AXES(1)), mean, sizeof mean);
    mb_scope_end(scope);
    for (int t = 0; t <= shown; t += t < 2 ? 1 : 4)
        printf("after %2d steps on %d points: %.3f +- %.3f\n", t, (int)n, mean[t],
               1.96 * sqrt((square[t] - mean[t] * mean[t]) / TEST_WAVES));
    mb_read(rates, r, sizeof r);
    printf("inner rates %.4f %.4f %.4f %.4f %.4f %.4f\n", r[0], r[1], r[2], r[3], r[4], r[5]);
}

int main(int argc, char **argv)
{
    int64_t n = argc > 1 ? atoll(argv[1]) : 10, steps = argc > 2 ? atoll(argv[2]) : 20000;
    bool learned = argc > 3 && !strcmp(argv[3], "learned-rates");
    int64_t inner = argc > 4 ? atoll(argv[4]) : 1;
    const int64_t size[LAYERS + 1] = {1, HIDDEN, HIDDEN, 1};
    mb_context *mb = mb_open(NULL);
    mb_params *p = mb_params_new(mb, 1);
    mb_tensor start[WEIGHTS], w[WEIGHTS], g[WEIGHTS];
    for (int i = 0; i < WEIGHTS; i++)
        start[i] =
            mb_param(p, (char[]){(char)('a' + i), 0}, MB_SHAPE(i % 2 ? 1 : size[i / 2], size[i / 2 + 1]),
                     i % 2 ? mb_init_zeros() : mb_init_xavier(size[i / 2], size[i / 2 + 1]));
    mb_tensor rates = mb_param(p, "rates", MB_SHAPE(WEIGHTS), mb_init_zeros());
    mb_assign(rates, mb_full(mb, MB_FLOAT32, MB_SHAPE(WEIGHTS), 0.01));
    if (!learned)
        mb_params_freeze(p, "rates");
    mb_optimizer *opt = mb_adam(p, (mb_adam_options){.lr = 0.001});
    for (int64_t step = 0; step < steps && mb_error(mb) == MB_OK; step++) {
        mb_scope scope = mb_scope_begin(mb);
        points of[2];
        draw(mb, mb_key_fold(mb_key_of(1), (uint64_t)step), WAVES, n, n, of);
        adapt(start, w, rates, of, inner);
        mb_tensor loss = mb_mean(losses(w, of[1]), MB_ALL);
        if (argc < 4 || strcmp(argv[3], "first-order")) {
            mb_step(opt, loss); /* through the adaptation */
        } else if (mb_grad(loss, w, WEIGHTS, g) == MB_OK) {
            for (int i = 0; i < WEIGHTS; i++)
                g[i] = mb_sum(g[i], MB_AXES(0));
            mb_apply_gradients(opt, g, WEIGHTS);
        }
        mb_scope_end(scope);
    }
    evaluate(start, rates, n, learned ? inner : TEST_STEPS); /* learned rates are for as many steps */
    fputs(mb_message(mb), stderr);
    mb_optimizer_free(opt);
    mb_params_free(p);
    return mb_close(mb);
}
