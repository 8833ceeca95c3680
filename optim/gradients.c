/* SPDX-License-Identifier: MIT
 *
 * gradients.c - what a step goes along: the gradients of a loss, and those of losses before it that were
 * accumulated. Sums are variables, one for each parameter, so that a sum may be of many flushes. A sum counts
 * in the round in which it was begun; the next round begins it anew, so nothing has to be set to zero.
 */
#include "optim/optimizer.h"

#include "autograd/sweep.h"

mb_status mb__optimizer_begin(mb_optimizer *opt, int *n)
{
    mb_params *p = opt->params;
    if (p->count != opt->count)
        return mb_fail(p->ctx, MB_INVALID, "optimizer: made for %d parameters, of which there are %d now",
                       opt->count, p->count);
    *n = mb_params_list(p, opt->work, p->count);
    if (*n == 0)
        return mb_fail(p->ctx, MB_INVALID, "optimizer: no parameter is trainable");
    return MB_OK;
}

mb_status mb__optimizer_gradients(mb_optimizer *opt, const char *name, mb_tensor loss, int n)
{
    mb_context *ctx = opt->params->ctx;
    if (!loss.ctx)
        return mb_fail(ctx, MB_INVALID, "%s: the loss is not a tensor", name);
    int fed = 0;
    mb_tensor y = opt->scaled ? mb_mul(loss, opt->scale) : loss;
    mb_status status = mb__grad_fed(y, opt->work, n, opt->work + n, &fed);
    for (int i = 0; i < n && status == MB_OK && opt->scaled; i++)
        opt->work[n + i] = mb_div(opt->work[n + i], opt->scale);
    if (status != MB_OK || fed)
        return status;
    char text[256];
    return mb_fail(ctx, MB_INVALID,
                   "%s: the loss, %s, depends on none of the %d trainable parameters as they are now; wanted "
                   "one recorded after the step before",
                   name, mb__tensor_text(text, sizeof text, loss), n);
}

void mb__optimizer_add_sums(const mb_optimizer *opt, mb_tensor *gs, int n)
{
    for (int i = 0, k = 0; i < opt->count && k < n; i++) {
        if (!opt->params->items[i].trainable)
            continue;
        const mb__slot *slot = &opt->slots[i];
        if (slot->summed == opt->round)
            gs[k] = mb_add(slot->sum, gs[k]);
        k++;
    }
}

/* Assigns every trainable parameter's sum: all or none. */
static mb_status accumulate(mb_optimizer *opt, mb_tensor *gs, int n)
{
    mb_context *ctx = opt->params->ctx;
    mb__optimizer_add_sums(opt, gs, n);
    if (mb_error(ctx) != MB_OK)
        return mb_error(ctx);
    uint32_t before = ctx->change_count;
    mb_status status = MB_OK;
    for (int i = 0, k = 0; i < opt->count && status == MB_OK; i++) {
        if (!opt->params->items[i].trainable)
            continue;
        mb__slot *slot = &opt->slots[i];
        status = mb_assign(slot->sum, gs[k++]);
        if (status == MB_OK && !mb__number_set(ctx, &slot->summed, opt->round))
            status = mb_error(ctx);
    }
    if (status != MB_OK)
        mb__changes_undo(ctx, before);
    return status;
}

mb_status mb_accumulate_at(const char *site, mb_optimizer *opt, mb_tensor loss)
{
    MB_DOOR(opt ? opt->params->ctx : NULL, site, MB_THREAD);
    if (!opt)
        return MB_NO_MEMORY;
    int n = 0;
    mb_status status = mb__optimizer_begin(opt, &n);
    if (status == MB_OK)
        status = mb__optimizer_gradients(opt, "mb_accumulate", loss, n);
    return status == MB_OK ? accumulate(opt, opt->work + n, n) : status;
}
