/* SPDX-License-Identifier: MIT
 *
 * ops_loss.c - the two losses of classification, with weights of classes and a label that is ignored. */
#include "compose.h"

/* log_prob: [N, C, ...], labels: [N, ...]. A label that is ignored weighs 0. */
static mb_tensor negative_log_likelihood(call *c, mb_tensor log_prob, int labels_at, int weights_at)
{
    mb_tensor labels = input(c, labels_at);
    int64_t classes = mb_dim(log_prob, 1);
    mb_tensor weight = mb_ones(c->mb, mb_dtype_of(log_prob), mb_shape_of(labels));
    mb_tensor safe = mb_minimum(mb_maximum(labels, 0.0), (double)(classes - 1));
    if (has(c, weights_at))
        weight = mb_take(input(c, weights_at), safe, 0);
    if (attribute(c, "ignore_index")) {
        double ignored = (double)attribute_int(c, "ignore_index", 0);
        weight = mb_where(mb_eq(labels, literal_like(labels, ignored)), literal_like(weight, 0), weight);
    }
    int last = mb_shape_of(log_prob).rank - 1;
    mb_tensor rows = moved(log_prob, 1, last);
    mb_tensor chosen = mb_squeeze(mb_take_along(rows, mb_unsqueeze(safe, last)), last);
    mb_tensor loss = mb_mul(mb_neg(chosen), weight);
    if (attribute_is(c, "reduction", "none", "mean"))
        return loss;
    mb_tensor sum = mb_sum(loss, MB_ALL);
    return attribute_is(c, "reduction", "sum", "mean") ? sum : mb_div(sum, mb_sum(weight, MB_ALL));
}

static void nll_loss_op(call *c)
{
    mb_tensor x = input(c, 0);
    if (x.ctx && input(c, 1).ctx)
        give(c, 0, negative_log_likelihood(c, x, 1, 2));
}

static void softmax_loss_op(call *c)
{
    mb_tensor x = input(c, 0);
    if (!x.ctx || !input(c, 1).ctx)
        return;
    mb_tensor log_prob = mb_log_softmax(x, 1);
    give(c, 0, negative_log_likelihood(c, log_prob, 1, 2));
    give(c, 1, log_prob);
}

const op loss_ops[] = {
    {"NegativeLogLikelihoodLoss", nll_loss_op, false},
    {"SoftmaxCrossEntropyLoss", softmax_loss_op, false},
    {0},
};
