/* SPDX-License-Identifier: MIT
 *
 * checkpoint.c - saving and loading parameter sets and optimisers. A load checks everything before it assigns
 * anything.
 */
#include "optim/optimizer.h"
#include "tensor/files/files.h"

#include <stdio.h>
#include <string.h>

/* The content of a file: n names and tensors, and an array for the loaded tensors. One allocation each. */
typedef struct list {
    mb_context *ctx;
    const char **names;
    mb_tensor *ts, *loaded;
    int n, capacity;
} list;

static mb_status list_open(list *l, mb_context *ctx, int capacity)
{
    size_t n = (size_t)(capacity > 0 ? capacity : 1);
    *l = (list){.ctx = ctx, .capacity = (int)n};
    l->names = mb__alloc(ctx, n * sizeof *l->names);
    l->ts = mb__alloc(ctx, 2 * n * sizeof *l->ts);
    l->loaded = l->ts ? l->ts + n : NULL;
    return l->names && l->ts ? MB_OK : MB_NO_MEMORY;
}

static void list_close(list *l)
{
    if (l->names)
        mb__free(l->ctx, l->names, (size_t)l->capacity * sizeof *l->names);
    if (l->ts)
        mb__free(l->ctx, l->ts, 2 * (size_t)l->capacity * sizeof *l->ts);
}

static void list_add(list *l, const char *name, mb_tensor t)
{
    l->names[l->n] = name;
    l->ts[l->n++] = t;
}

static void list_params(list *l, const mb_params *p)
{
    for (int i = 0; i < p->count; i++)
        list_add(l, p->items[i].name, p->items[i].tensor);
}

static void list_states(list *l, const mb_optimizer *opt)
{
    for (int i = 0, n = mb_optimizer_state_count(opt); i < n; i++)
        list_add(l, mb_optimizer_state_name(opt, i), mb_optimizer_state_tensor(opt, i));
}

/* ------------------------------------------------------------------------------------------ checking -- */

#define SHAPE_TEXT (24 * MB_MAX_RANK + 4)

static const char *shape_text(char text[SHAPE_TEXT], mb_shape s)
{
    int length = snprintf(text, SHAPE_TEXT, "[");
    for (int i = 0; i < s.rank; i++)
        length +=
            snprintf(text + length, (size_t)(SHAPE_TEXT - length), i ? ",%lld" : "%lld", (long long)s.dim[i]);
    snprintf(text + length, (size_t)(SHAPE_TEXT - length), "]");
    return text;
}

mb_status mb__load_like(mb_context *ctx, const char *path, const char *const *names, const mb_tensor *like,
                        mb_tensor *ts, int n)
{
    mb_status status = mb_safetensors_load(ctx, path, names, ts, n);
    for (int i = 0; i < n && status == MB_OK; i++) {
        mb_shape got = mb_shape_of(ts[i]), wanted = mb_shape_of(like[i]);
        mb_dtype got_type = mb_dtype_of(ts[i]), wanted_type = mb_dtype_of(like[i]);
        if (got_type == wanted_type && got.rank == wanted.rank &&
            memcmp(got.dim, wanted.dim, (size_t)got.rank * sizeof got.dim[0]) == 0)
            continue;
        char a[SHAPE_TEXT], b[SHAPE_TEXT];
        status = mb_fail(ctx, MB_FORMAT, "%s: \"%s\" is %s %s in the file, %s %s here", path, names[i],
                         mb_dtype_name(got_type), shape_text(a, got), mb_dtype_name(wanted_type),
                         shape_text(b, wanted));
    }
    return status;
}

static mb_status assign_all(const list *l, int n)
{
    mb_status status = MB_OK;
    for (int i = 0; i < n && status == MB_OK; i++)
        status = mb_assign(l->ts[i], l->loaded[i]);
    return status;
}

/* ---------------------------------------------------------------------------------------- parameters -- */

mb_status mb_params_save_at(const char *site, const mb_params *p, const char *path)
{
    MB_DOOR(mb_params_context(p), site, MB_THREAD);
    if (!p)
        return MB_NO_MEMORY;
    list l;
    mb_status status = list_open(&l, p->ctx, p->count);
    if (status == MB_OK) {
        list_params(&l, p);
        status = mb_safetensors_save(p->ctx, path, l.names, l.ts, l.n, NULL);
    }
    list_close(&l);
    return status;
}

mb_status mb_params_load_at(const char *site, mb_params *p, const char *path)
{
    MB_DOOR(mb_params_context(p), site, MB_THREAD);
    if (!p)
        return MB_NO_MEMORY;
    list l;
    mb_scope scope = mb_scope_begin(p->ctx); /* frees the loaded tensors once they are stored */
    mb_status status = list_open(&l, p->ctx, p->count);
    if (status == MB_OK) {
        list_params(&l, p);
        status = mb__load_like(p->ctx, path, l.names, l.ts, l.loaded, l.n);
    }
    if (status == MB_OK)
        status = assign_all(&l, l.n);
    list_close(&l);
    mb_status stored = mb_scope_end(scope);
    return status == MB_OK ? stored : status;
}

/* ---------------------------------------------------------------------------------------- optimisers -- */

/* Parameters, states, and last the step count as a tensor. */
static mb_status list_optimizer(list *l, const mb_optimizer *opt)
{
    mb_context *ctx = opt->params->ctx;
    mb_status status = list_open(l, ctx, opt->params->count + mb_optimizer_state_count(opt) + 4);
    if (status != MB_OK)
        return status;
    if (opt->steps > INT32_MAX)
        return mb_fail(ctx, MB_INVALID, "optimizer: %lld steps do not fit a file", (long long)opt->steps);
    int32_t steps = (int32_t)opt->steps;
    list_params(l, opt->params);
    list_states(l, opt);
    if (opt->skip)
        list_add(l, "optimizer.skipped", opt->skipped);
    if (opt->scaled) {
        list_add(l, "optimizer.loss_scale", opt->scale);
        list_add(l, "optimizer.steps_at_scale", opt->at_scale);
    }
    list_add(l, "optimizer.step", mb_from(ctx, MB_INT32, MB_SHAPE0, &steps));
    return mb_valid(l->ts[l->n - 1]) ? MB_OK : mb_error(ctx);
}

mb_status mb_optimizer_save_at(const char *site, const mb_optimizer *opt, const char *path)
{
    return mb_optimizer_save_with_at(site, opt, path, NULL);
}

mb_status mb_optimizer_save_with_at(const char *site, const mb_optimizer *opt, const char *path,
                                    const char *const *metadata)
{
    MB_DOOR(opt ? opt->params->ctx : NULL, site, MB_THREAD);
    if (!opt)
        return MB_NO_MEMORY;
    list l;
    mb_scope scope = mb_scope_begin(opt->params->ctx);
    mb_status status = list_optimizer(&l, opt);
    if (status == MB_OK)
        status = mb_safetensors_save(l.ctx, path, l.names, l.ts, l.n, metadata);
    list_close(&l);
    mb_status ended = mb_scope_end(scope);
    return status == MB_OK ? ended : status;
}

mb_status mb_optimizer_load_at(const char *site, mb_optimizer *opt, const char *path)
{
    MB_DOOR(opt ? opt->params->ctx : NULL, site, MB_THREAD);
    if (!opt)
        return MB_NO_MEMORY;
    list l;
    mb_scope scope = mb_scope_begin(opt->params->ctx);
    mb_status status = list_optimizer(&l, opt);
    if (status == MB_OK)
        status = mb__load_like(l.ctx, path, l.names, l.ts, l.loaded, l.n);
    if (status == MB_OK) {
        int32_t steps = 0;
        status = mb_read(l.loaded[l.n - 1], &steps, sizeof steps);
        if (status == MB_OK && steps < 0)
            status = mb_fail(l.ctx, MB_FORMAT, "%s: %d optimizer steps", path, (int)steps);
        if (status == MB_OK)
            status = assign_all(&l, l.n - 1);
        if (status == MB_OK && !(mb__number_set(l.ctx, &opt->steps, steps) &&
                                 mb__number_set(l.ctx, &opt->round, opt->round + 1)))
            status = mb_error(l.ctx);
    }
    list_close(&l);
    mb_status stored = mb_scope_end(scope);
    return status == MB_OK ? stored : status;
}
