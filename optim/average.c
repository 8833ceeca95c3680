/* SPDX-License-Identifier: MIT
 *
 * average.c - exponential moving averages of a parameter set, in variables of their own. */
#include "optim/internal.h"

struct mb_average {
    mb_params *params;
    double decay;
    int count;
    mb_tensor *tensors; /* [count] */
};

static mb_status begin(const mb_average *a)
{
    const mb_params *p = a->params;
    if (p->count != a->count)
        return mb_fail(p->ctx, MB_INVALID, "average: made for %d parameters, of which there are %d now",
                       a->count, p->count);
    return mb_error(p->ctx);
}

mb_average *mb_average_new_at(const char *site, mb_params *p, double decay)
{
    MB_DOOR(mb_params_context(p), site, NULL);
    const mb__range range = mb__below_1("decay", decay);
    if (!p || !mb__check_ranges(p->ctx, "mb_average_new", &range, 1))
        return NULL;
    mb_average *a = mb__alloc(p->ctx, sizeof *a);
    if (!a)
        return NULL;
    *a = (mb_average){.params = p, .decay = decay, .count = p->count};
    a->tensors = mb__alloc(p->ctx, (size_t)a->count * sizeof *a->tensors);
    for (int i = 0; a->tensors && i < a->count; i++) {
        a->tensors[i] = mb_variable(p->ctx, p->dtype, mb_shape_of(p->items[i].tensor));
        mb_assign(a->tensors[i], p->items[i].tensor);
    }
    if (mb_error(p->ctx) == MB_OK)
        return a;
    mb_average_free(a);
    return NULL;
}

void mb_average_free(mb_average *a)
{
    if (!a || !mb__right_thread(a->params->ctx, "mb_average_free"))
        return;
    mb_context *ctx = a->params->ctx;
    mb__free(ctx, a->tensors, (size_t)a->count * sizeof *a->tensors);
    mb__free(ctx, a, sizeof *a);
}

mb_tensor mb_average_tensor(const mb_average *a, int i)
{
    bool usable = a && mb__right_thread(a->params->ctx, "mb_average_tensor");
    return usable && i >= 0 && i < a->count ? a->tensors[i] : (mb_tensor){0};
}

mb_status mb_average_update_at(const char *site, mb_average *a)
{
    MB_DOOR(a ? a->params->ctx : NULL, site, MB_THREAD);
    if (!a)
        return MB_NO_MEMORY;
    mb_context *ctx = a->params->ctx;
    uint32_t before = ctx->change_count; /* all or none */
    mb_status status = begin(a);
    for (int i = 0; i < a->count && status == MB_OK; i++) {
        mb_tensor away = mb_sub(a->params->items[i].tensor, a->tensors[i]);
        status = mb_assign(a->tensors[i], mb_add(a->tensors[i], mb_mul(away, 1 - a->decay)));
    }
    if (status != MB_OK)
        mb__changes_undo(ctx, before);
    return status;
}

mb_status mb_average_swap_at(const char *site, mb_average *a)
{
    MB_DOOR(a ? a->params->ctx : NULL, site, MB_THREAD);
    if (!a)
        return MB_NO_MEMORY;
    mb_context *ctx = a->params->ctx;
    uint32_t before = ctx->change_count;
    mb_status status = begin(a);
    for (int i = 0; i < a->count && status == MB_OK; i++) {
        mb_tensor old =
            mb_stop_gradient(a->params->items[i].tensor); /* its value now, not after the assignment */
        status = mb_assign(a->params->items[i].tensor, mb_stop_gradient(a->tensors[i]));
        if (status == MB_OK)
            status = mb_assign(a->tensors[i], old);
    }
    if (status != MB_OK)
        mb__changes_undo(ctx, before);
    return status;
}
