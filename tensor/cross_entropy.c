/* SPDX-License-Identifier: MIT
 * cross_entropy.c - the loss of a classifier, from its logits: labels to ignore, labels out of range, class
 * weights, label smoothing. */
#include <math.h>

#include "tensor/internal.h"

/* What a loss is computed from. labels and counts have the rows' shape and a last axis of size 1. */
typedef struct loss {
    mb_context *ctx;
    mb_dtype dtype;
    int64_t classes;
    mb_tensor labels, weights; /* weights: [C], or the null tensor */
    mb_tensor counts;          /* bool: the row is not ignored; null tensor: all count */
} loss;

static mb_tensor lit(const loss *l, double value)
{
    return mb__const(l->ctx, l->dtype, value);
}

static bool check(mb_context *ctx, mb_tensor logits, mb_tensor labels, const mb_cross_entropy_options *o)
{
    char a[256], b[256];
    const mb__node *n = mb__at(ctx, logits.id), *m = mb__at(ctx, labels.id);
    bool indices = m->dtype == MB_INT32 || m->dtype == MB_INT64 || m->dtype == MB_UINT8;
    if (!indices || !mb__is_float(n->dtype) || n->rank != m->rank + 1 ||
        memcmp(n->dim, m->dim, (size_t)m->rank * sizeof *m->dim)) {
        mb__error(ctx, MB_INVALID,
                  "cross_entropy: got logits %s, labels %s; wanted float logits and int32, int64 or uint8 "
                  "labels, one for each row",
                  mb__tensor_text(a, sizeof a, logits), mb__tensor_text(b, sizeof b, labels));
        return false;
    }
    if (!(o->smoothing >= 0 && o->smoothing <= 1)) {
        mb__error(ctx, MB_INVALID, "cross_entropy: smoothing is %g; wanted a number in [0, 1]", o->smoothing);
        return false;
    }
    const mb__node *w = o->weights.ctx ? mb__at(ctx, o->weights.id) : NULL;
    if (w && (w->rank != 1 || w->dim[0] != n->dim[n->rank - 1] || w->dtype != n->dtype)) {
        mb__error(ctx, MB_INVALID,
                  "cross_entropy: got the weights %s for logits %s; wanted one of their dtype for each class",
                  mb__tensor_text(a, sizeof a, o->weights), mb__tensor_text(b, sizeof b, logits));
        return false;
    }
    return true;
}

/* 1 where the label is in range, else NaN, by 0 / 0, so that MB_DEBUG reports the division. As a factor it
 * makes the derivatives NaN as well: a label out of range is a mistake, not a row to ignore. */
static mb_tensor one_or_nan(const loss *l)
{
    mb_context *ctx = l->ctx;
    mb_tensor zero = mb__const(ctx, MB_INT32, 0), classes = mb__const(ctx, MB_INT32, (double)l->classes);
    mb_tensor inside = mb_and(mb_le(zero, l->labels), mb_lt(l->labels, classes));
    if (l->counts.id)
        inside = mb_or(inside, mb_not(l->counts));
    mb_tensor one = mb_cast(inside, l->dtype);
    return mb_div(one, one);
}

/* x where the row is not ignored; elsewhere 0, without a derivative. */
static mb_tensor counted(const loss *l, mb_tensor x)
{
    return l->counts.id ? mb_where(l->counts, x, lit(l, 0)) : x;
}

/* The weight of each row's label; 0 where the row is ignored. */
static mb_tensor label_weights(const loss *l, mb_tensor hit)
{
    mb_tensor one = lit(l, 1);
    if (l->weights.id)
        one = mb_sum(mb_where(hit, l->weights, lit(l, 0)), MB_KEEP(-1));
    return counted(l, one);
}

/* sum_c w_c target_c (log sum_i e^x_i - x_c) of each row, where x, `shifted`, is the logits minus their
 * largest. */
static mb_tensor row_losses(const loss *l, mb_tensor logits, mb_tensor hit, double smoothing)
{
    mb_tensor top = mb_stop_gradient(mb_max(logits, MB_KEEP(-1)));
    mb_tensor shifted = mb__below_top(logits, top);
    mb_tensor total = mb_log(mb_sum(mb_exp(shifted), MB_KEEP(-1)));
    total = mb_mul(total, one_or_nan(l));
    /* A select, not a product: 0 times -infinity would be NaN. */
    mb_tensor picked = mb_sum(mb_where(hit, shifted, lit(l, 0)), MB_KEEP(-1));
    mb_tensor row = mb_sub(total, picked);
    if (l->weights.id)
        row = mb_mul(row, label_weights(l, hit));
    if (smoothing > 0) {
        mb_tensor each = mb_sub(total, shifted);
        if (l->weights.id)
            each = mb_mul(each, l->weights);
        mb_tensor even = mb_mean(each, MB_KEEP(-1));
        row = smoothing == 1 ? even
                             : mb_add(mb_mul(row, lit(l, 1 - smoothing)), mb_mul(even, lit(l, smoothing)));
    }
    return counted(l, row);
}

/* The sum of the losses divided by the sum of the weights; where that is 0, the sum of the losses. */
static mb_tensor mean(const loss *l, mb_tensor rows, mb_tensor hit)
{
    int64_t count = mb_count(rows);
    mb_tensor sum = mb_sum(rows, MB_ALL);
    if (!l->weights.id && !l->counts.id)
        return mb_div(sum, lit(l, count ? (double)count : 1));
    mb_tensor each = mb_broadcast(label_weights(l, hit), mb_shape_of(rows));
    mb_tensor weight = mb_sum(each, MB_ALL), none = mb_eq(weight, lit(l, 0));
    return mb_div(sum, mb_where(none, lit(l, 1), weight));
}

mb_tensor mb_cross_entropy_with_at(const char *site, mb_tensor logits, mb_tensor labels,
                                   mb_cross_entropy_options o)
{
    MB_SITE(logits.ctx, site);
    mb_tensor poison;
    const mb_tensor *ts[3] = {&logits, &labels, &o.weights};
    mb_context *ctx = mb__enter("cross_entropy", ts, o.weights.ctx ? 3 : 2, &poison);
    if (!ctx || !check(ctx, logits, labels, &o))
        return poison;
    if (mb__halved(logits)) {
        o.weights = mb__wide(o.weights);
        return mb__narrow(mb_cross_entropy_with(mb__wide(logits), labels, o), logits);
    }
    if (!mb__check_index("cross_entropy", ctx, &labels))
        return mb__poison(ctx);
    const mb__node *n = mb__at(ctx, logits.id);
    mb_shape row = mb_shape_of(labels);
    loss l = {.ctx = ctx,
              .dtype = (mb_dtype)n->dtype,
              .classes = n->dim[n->rank - 1],
              .labels = mb_unsqueeze(labels, -1),
              .weights = o.weights};
    if (o.ignore) {
        mb_tensor ignored = mb_eq(l.labels, mb__const(ctx, MB_INT32, o.ignored));
        l.counts = mb_not(ignored);
    }
    mb_tensor hit = mb_one_hot(labels, l.classes), rows = row_losses(&l, logits, hit, o.smoothing);
    return o.each_row ? mb_reshape(rows, row) : mean(&l, rows, hit);
}

mb_tensor mb_cross_entropy_at(const char *site, mb_tensor logits, mb_tensor labels)
{
    MB_SITE(logits.ctx, site);
    return mb_cross_entropy_with(logits, labels, (mb_cross_entropy_options){0});
}
