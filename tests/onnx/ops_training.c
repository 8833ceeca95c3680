/* SPDX-License-Identifier: MIT
 *
 * ops_training.c - ai.onnx.preview.training: derivatives, and the steps of three optimisers. Their rules
 * differ from those of optim.h, so they are written out. Inputs: rate, step, then all parameters, all
 * gradients, all states of the first kind, all of the second. */
#include "compose.h"

typedef struct update {
    int n;                                      /* parameters */
    mb_tensor rate, x, gradient, first, second; /* of one of them; gradient: with the decay of weights */
} update;

static update update_of(call *c, int i, int kinds)
{
    update u = {.n = (c->n_in - 2) / kinds, .rate = input(c, 0)};
    u.x = input(c, 2 + i);
    u.gradient = mb_add(mb_mul(u.x, attribute_float(c, "norm_coefficient", 0)), input(c, 2 + u.n + i));
    u.first = input(c, 2 + 2 * u.n + i);
    if (kinds == 4)
        u.second = input(c, 2 + 3 * u.n + i);
    return u;
}

static void adagrad_op(call *c)
{
    int64_t step = host_int(c, 1, 0);
    for (int i = 0, n = (c->n_in - 2) / 3; i < n; i++) {
        update u = update_of(c, i, 3);
        mb_tensor rate = mb_div(u.rate, 1 + (double)step * attribute_float(c, "decay_factor", 0));
        mb_tensor h = mb_add(u.first, mb_square(u.gradient));
        mb_tensor root = mb_add(mb_sqrt(h), attribute_float(c, "epsilon", 1e-6));
        give(c, i, mb_sub(u.x, mb_div(mb_mul(rate, u.gradient), root)));
        give(c, n + i, h);
    }
}

static void adam_op(call *c)
{
    double alpha = attribute_float(c, "alpha", 0.9), beta = attribute_float(c, "beta", 0.999);
    double step = (double)host_int(c, 1, 0);
    for (int i = 0, n = (c->n_in - 2) / 4; i < n; i++) {
        update u = update_of(c, i, 4);
        mb_tensor v = mb_add(mb_mul(u.first, alpha), mb_mul(u.gradient, 1 - alpha));
        mb_tensor h = mb_add(mb_mul(u.second, beta), mb_mul(mb_square(u.gradient), 1 - beta));
        mb_tensor rate = u.rate;
        if (step > 0) {
            mb_tensor less = mb_sqrt(mb_sub(1.0, mb_pow(beta, mb_scalar(c->mb, MB_FLOAT32, step))));
            rate = mb_div(mb_mul(rate, less), mb_sub(1.0, mb_pow(alpha, mb_scalar(c->mb, MB_FLOAT32, step))));
        }
        mb_tensor root = mb_add(mb_sqrt(h), attribute_float(c, "epsilon", 1e-6));
        mb_tensor x = mb_sub(u.x, mb_div(mb_mul(rate, v), root));
        give(c, i, mb_mul(x, 1 - attribute_float(c, "norm_coefficient_post", 0)));
        give(c, n + i, v);
        give(c, 2 * n + i, h);
    }
}

static void momentum_op(call *c)
{
    double alpha = attribute_float(c, "alpha", 0), beta = attribute_float(c, "beta", 0);
    double part = host_int(c, 1, 0) > 0 ? beta : 1;
    for (int i = 0, n = (c->n_in - 2) / 3; i < n; i++) {
        update u = update_of(c, i, 3);
        mb_tensor v = mb_add(mb_mul(u.first, alpha), mb_mul(u.gradient, part)), direction = v;
        if (attribute_is(c, "mode", "nesterov", "standard"))
            direction = mb_add(u.gradient, mb_mul(v, alpha));
        give(c, i, mb_sub(u.x, mb_mul(u.rate, direction)));
        give(c, n + i, v);
    }
}

/* Of a value of the graph, by others that it was computed from. */
static void gradient_op(call *c)
{
    const attribute_proto *xs = attribute(c, "xs");
    int n = xs ? xs->n_strings : 0;
    value y = named(c->run, attribute_text(c, "y", ""));
    mb_tensor *at = ARENA_NEW(c->run->memory, mb_tensor, n),
              *gradients = ARENA_NEW(c->run->memory, mb_tensor, n);
    for (int i = 0; i < n; i++)
        at[i] = input(c, i);
    mb_grad(y.t, at, n, gradients);
    for (int i = 0; i < n; i++)
        give(c, i, gradients[i]);
}

const op training_ops[] = {
    {"Adagrad", adagrad_op, false},
    {"Adam", adam_op, false},
    {"Gradient", gradient_op, false},
    {"Momentum", momentum_op, false},
    {0},
};
