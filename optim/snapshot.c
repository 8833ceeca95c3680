/* SPDX-License-Identifier: MIT
 *
 * snapshot.c - the values of a parameter set at one time, in variables of their own. */
#include "optim/internal.h"

struct mb_snapshot {
    mb_params *params;
    int count;
    mb_tensor *tensors; /* [count] */
};

mb_snapshot *mb_snapshot_new_at(const char *site, mb_params *p)
{
    MB_DOOR(mb_params_context(p), site, NULL);
    mb_snapshot *s = p && mb_error(p->ctx) == MB_OK ? mb__alloc(p->ctx, sizeof *s) : NULL;
    if (!s)
        return NULL;
    *s = (mb_snapshot){.params = p, .count = p->count};
    s->tensors = mb__alloc(p->ctx, (size_t)s->count * sizeof *s->tensors);
    for (int i = 0; s->tensors && i < s->count; i++)
        s->tensors[i] = mb_variable(p->ctx, p->dtype, mb_shape_of(p->items[i].tensor));
    if (s->tensors && mb_snapshot_take(s) == MB_OK)
        return s;
    mb_snapshot_free(s);
    return NULL;
}

void mb_snapshot_free(mb_snapshot *s)
{
    if (!s || !mb__right_thread(s->params->ctx, "mb_snapshot_free"))
        return;
    mb_context *ctx = s->params->ctx;
    mb__free(ctx, s->tensors, (size_t)s->count * sizeof *s->tensors);
    mb__free(ctx, s, sizeof *s);
}

mb_tensor mb_snapshot_tensor(const mb_snapshot *s, int i)
{
    bool usable = s && mb__right_thread(s->params->ctx, "mb_snapshot_tensor");
    return usable && i >= 0 && i < s->count ? s->tensors[i] : (mb_tensor){0};
}

mb_status mb_snapshot_take_at(const char *site, mb_snapshot *s)
{
    MB_DOOR(s ? s->params->ctx : NULL, site, MB_THREAD);
    if (!s)
        return MB_NO_MEMORY;
    mb_context *ctx = s->params->ctx;
    uint32_t before = ctx->change_count; /* all or none */
    mb_status status = mb_error(ctx);
    for (int i = 0; i < s->count && status == MB_OK; i++)
        status = mb_assign(s->tensors[i], mb_stop_gradient(s->params->items[i].tensor));
    if (status != MB_OK)
        mb__changes_undo(ctx, before);
    return status;
}

/* A parameter that is not part of the snapshot stays as it is. */
static mb_tensor value_of(const void *user, const mb_params *p, int i)
{
    const mb_snapshot *s = user;
    return i < s->count ? mb_stop_gradient(s->tensors[i]) : p->items[i].tensor;
}

mb_status mb_snapshot_restore_at(const char *site, mb_snapshot *s, const char *pattern)
{
    MB_DOOR(s ? s->params->ctx : NULL, site, MB_THREAD);
    return s ? mb__params_assign(s->params, pattern, &(mb__value_of){value_of, s}) : MB_NO_MEMORY;
}
