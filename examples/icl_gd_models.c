/* SPDX-License-Identifier: MIT
 *
 * icl_gd_models.c - linear regression tasks, and gradient descent on them in two ways: written down as steps,
 * and as the weights of linear self-attention that takes the same steps. */
#include "icl_gd.h"

/* shape, of MIXED inputs: a third of the tasks each normal, exponential, Laplace, tokens of length 1. */
static mb_tensor draw_mixed(mb_context *mb, mb_key key, mb_dtype dtype, mb_shape shape)
{
    mb_tensor normal = mb_normal(mb, mb_key_fold(key, 0), dtype, shape);
    mb_tensor exponential = mb_exponential(mb, mb_key_fold(key, 1), dtype, shape);
    mb_tensor laplace = mb_laplace(mb, mb_key_fold(key, 2), dtype, shape);
    mb_tensor kind = mb_uniform(mb, mb_key_fold(key, 3), dtype, MB_SHAPE(shape.dim[0], 1, 1));
    mb_tensor x =
        mb_where(mb_lt(kind, 1.0 / 3), normal, mb_where(mb_lt(kind, 2.0 / 3), exponential, laplace));
    return mb_div(x, mb_sqrt(mb_sum(mb_square(x), MB_KEEP(-1))));
}

tasks draw_tasks(mb_context *mb, mb_key key, drawing how)
{
    mb_shape shape = MB_SHAPE(how.count, PAIRS + 1, D);
    mb_key inputs_key = mb_key_fold(key, 0);
    mb_tensor x = how.inputs == MIXED
                      ? draw_mixed(mb, inputs_key, how.dtype, shape)
                      : mb_mul(mb_sub(mb_uniform(mb, inputs_key, how.dtype, shape), 0.5), set.range);
    x = mb_mul(x, how.x_scale);
    mb_tensor w = mb_normal(mb, mb_key_fold(key, 1), how.dtype, MB_SHAPE(how.count, D, 1));
    mb_tensor y = mb_squeeze(mb_matmul(x, mb_mul(w, how.w_scale)), 2);
    return (tasks){mb_slice(x, 1, 0, PAIRS, 1), mb_slice(x, 1, PAIRS, 1, 1), mb_slice(y, 1, 0, PAIRS, 1),
                   mb_slice(y, 1, PAIRS, 1, 1)};
}

mb_tensor tokens_of(tasks t)
{
    return mb_prompt_tokens(mb_concat((mb_tensor[]){t.x, t.query}, 2, 1), t.y);
}

mb_tensor loss_of(mb_tensor guess, tasks t)
{
    return mb_mul(mb_mean(mb_square(mb_sub(guess, t.answer)), MB_ALL), 0.5);
}

/* Step k's rate. */
static mb_tensor rate(mb_tensor rates, int k)
{
    return mb_shape_of(rates).rank == 0 ? rates : mb_slice(rates, 0, k, 1, 1);
}

/* One step of descent on l(W) = 1/(2n) sum_i (W x_i - y_i)^2 from W = 0, and then, since what is left to
 * explain is y - W x, W = 0 again for the next: the sum of all W is plain gradient descent's. GD++ also takes
 * a step on R(x) = 1/2 sum_ij (x_i . x_j)^2 by the x_j, with the x_i held: it makes the inputs more alike in
 * all directions, and the next step better conditioned (2212.07677, eq. 13). */
mb_tensor descend(descent d, tasks t)
{
    mb_tensor x = t.x, query = t.query, y = mb_unsqueeze(t.y, 2);
    mb_tensor guess = mb_zeros(x.ctx, mb_dtype_of(x), MB_SHAPE(mb_dim(x, 0), 1, 1));
    for (int k = 0; k < d.layers; k++) {
        mb_tensor W = mb_zeros(x.ctx, mb_dtype_of(x), MB_SHAPE(mb_dim(x, 0), D, 1)), dW;
        mb_tensor loss = mb_mul(mb_sum(mb_square(mb_sub(mb_matmul(x, W), y)), MB_AXES(1, 2)), 0.5 / PAIRS);
        mb_grad(loss, &W, 1, &dW); /* of the sum over tasks: each has its own W */
        W = mb_sub(W, mb_mul(dW, rate(d.eta, k)));
        y = mb_sub(y, mb_matmul(x, W));
        guess = mb_add(guess, mb_matmul(query, W));
        if (d.gamma.ctx) {
            mb_tensor all[2] = {mb_alias(x), mb_alias(query)}, dx[2]; /* the x_j: x itself is the x_i */
            mb_tensor R = mb_add(mb_sum(mb_square(mb_matmul(all[0], mb_transpose(x))), MB_ALL),
                                 mb_sum(mb_square(mb_matmul(all[1], mb_transpose(x))), MB_ALL));
            mb_grad(mb_mul(R, 0.5), all, 2, dx);
            x = mb_sub(x, mb_mul(dx[0], rate(d.gamma, k)));
            query = mb_sub(query, mb_mul(dx[1], rate(d.gamma, k)));
        }
    }
    return mb_squeeze(guess, 2);
}

mb_self_attention constructed(descent d)
{
    mb_self_attention_options options = {.dim = D, .layers = d.layers};
    return mb_self_attention_gd(d.eta, d.gamma, (mb_tensor){0}, PAIRS, options);
}
