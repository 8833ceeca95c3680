/* SPDX-License-Identifier: MIT
 *
 * mttt_kernel.c - the learner of 2310.13807 that keeps all it is trained on: the estimator of Nadaraya and
 * Watson, f(x) = sum_i k(x, x_i) z_i / sum_i k(x, x_i), for each head. With the kernel
 * k(x, x_i) = exp((theta_Q x) . (theta_K x_i)) and z_i = theta_V x_i it is softmax attention, whose scale
 * 1 / sqrt(dh) is theta_Q's to learn here (section 3.3 there). A mixer of the program's own. */
#include <moebius.h>

#include "mttt.h"

typedef struct kernel {
    int64_t heads;
    mb_linear query, key, value, out; /* theta_Q, theta_K, theta_V, theta_h */
} kernel;

/* [B,N,D] -> [B,H,N,dh] */
static mb_tensor heads_of(const kernel *k, mb_linear view, mb_tensor x)
{
    int64_t B = mb_dim(x, 0), N = mb_dim(x, 1), D = mb_dim(x, 2);
    mb_tensor split = mb_reshape(mb_linear_apply(view, x), MB_SHAPE(B, N, k->heads, D / k->heads));
    return mb_permute(split, MB_AXES(0, 2, 1, 3));
}

static mb_tensor apply(const void *layer, mb_tensor x, mb_key key, mb_tensor *losses)
{
    const kernel *k = layer;
    (void)key;
    (void)losses;
    mb_tensor q = heads_of(k, k->query, x), at = heads_of(k, k->key, x), z = heads_of(k, k->value, x);
    mb_tensor alike = mb_einsum("bhne,bhme->bhnm", q, at);
    /* A factor that depends on the query alone is in both sums: this one keeps exp finite. */
    mb_tensor largest = mb_stop_gradient(mb_max(alike, MB_KEEP(3)));
    mb_tensor weight = mb_exp(mb_sub(alike, largest));
    mb_tensor f = mb_div(mb_einsum("bhnm,bhme->bhne", weight, z), mb_sum(weight, MB_KEEP(3)));
    return mb_linear_apply(k->out, mb_reshape(mb_permute(f, MB_AXES(0, 2, 1, 3)), mb_shape_of(x)));
}

mb_mixer kernel_mixer(void *user, mb_params *p, int64_t dim)
{
    kernel *k = mb_params_alloc(p, sizeof *k);
    int64_t heads = *(const int64_t *)user;
    if (!k || mb_params_enter(p, "kernel") != MB_OK)
        return (mb_mixer){0};
    if (dim % heads)
        die("--heads %lld do not divide --dim %lld", (long long)heads, (long long)dim);
    *k = (kernel){heads, mb_linear_new(p, "query", dim, dim), mb_linear_new(p, "key", dim, dim),
                  mb_linear_new(p, "value", dim, dim), mb_linear_new(p, "out", dim, dim)};
    mb_params_leave(p);
    return (mb_mixer){.apply = apply, .layer = k};
}
