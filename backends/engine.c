/* SPDX-License-Identifier: MIT
 *
 * engine.c - the flush: from wanted nodes to numbers.
 *
 * What is needed is marked backwards from the wanted nodes to the nearest values; its structure becomes a
 * key; the key finds or makes a plan; inputs, scalars and new memory for the results are bound; the plan
 * runs.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "backends/engine.h"

/* ---- the key: all that a plan depends on, and nothing that it does not ---- */

static bool key_room(mb_context *ctx, mb__engine_state *st, uint32_t more)
{
    return mb__reserve(ctx, (void **)&st->key, &st->key_room, (uint64_t)st->key_bytes + more, 1);
}

static bool key_node(mb_context *ctx, mb__engine_state *st, const mb__node *n, bool output)
{
    bool leaf = n->value != NULL;
    int nin = leaf ? 0 : n->nin, nattr = leaf ? 0 : n->nattr;
    if (!key_room(ctx, st, (uint32_t)(8 + 8 * n->rank + 4 * nin + 8 * nattr)))
        return false;
    unsigned char *k = st->key + st->key_bytes;
    uint16_t op = leaf ? MB_OP_BUFFER : n->op, in16 = (uint16_t)nin, attr16 = (uint16_t)nattr;
    memcpy(k, &op, 2);
    k[2] = n->dtype;
    k[3] = (unsigned char)(n->rank | (output && !leaf ? 0x80 : 0));
    memcpy(k + 4, &in16, 2);
    memcpy(k + 6, &attr16, 2);
    k += 8;
    memcpy(k, n->dim, (size_t)n->rank * 8);
    k += 8 * n->rank;
    for (int i = 0; i < nin; i++, k += 4)
        memcpy(k, &st->dense[mb__in(ctx, n, i)], 4);
    if (nattr)
        memcpy(k, mb__attrs(ctx, n), (size_t)nattr * 8);
    st->key_bytes = (uint32_t)(k + 8 * nattr - st->key);
    return true;
}

/* ---- what is needed ---- */

static bool rooms(mb_context *ctx, mb__engine_state *st)
{
    /* New entries are zero, which is no serial. */
    if (!mb__reserve(ctx, (void **)&st->mark, &st->mark_room, ctx->node_count, sizeof *st->mark) ||
        !mb__reserve(ctx, (void **)&st->dense, &st->dense_room, ctx->node_count, sizeof *st->dense))
        return false;
    return true;
}

static bool add_target(mb_context *ctx, mb__engine_state *st, uint32_t id, uint32_t *count)
{
    if (ctx->nodes[id].value)
        return true;
    if (!mb__reserve(ctx, (void **)&st->targets, &st->target_room, (uint64_t)*count + 1, sizeof *st->targets))
        return false;
    st->targets[(*count)++] = id;
    return true;
}

/* Lists the needed nodes, ascending; targets carry the lowest bit of their mark. */
static bool collect(mb_context *ctx, mb__engine_state *st, uint32_t targets, uint32_t *count)
{
    if (!rooms(ctx, st))
        return false;
    st->serial += 2;
    if (st->serial < 2) { /* wrapped: all marks are old */
        memset(st->mark, 0, st->mark_room * sizeof *st->mark);
        st->serial = 2;
    }
    uint32_t top = 0, waiting = 0, n = 0;
    for (uint32_t i = 0; i < targets; i++) {
        uint32_t id = st->targets[i];
        if ((st->mark[id] & ~1u) != st->serial)
            waiting++;
        st->mark[id] = st->serial | 1;
        top = id > top ? id : top;
    }
    for (uint32_t id = top; waiting; id--) {
        if ((st->mark[id] & ~1u) != st->serial)
            continue;
        waiting--;
        if (!mb__reserve(ctx, (void **)&st->list, &st->list_room, (uint64_t)n + 1, sizeof *st->list))
            return false;
        st->list[n++] = id;
        const mb__node *node = &ctx->nodes[id];
        for (int i = 0; !node->value && i < node->nin; i++) {
            uint32_t o = mb__in(ctx, node, i);
            if ((st->mark[o] & ~1u) != st->serial) {
                st->mark[o] = st->serial;
                waiting++;
            }
        }
    }
    for (uint32_t i = 0; i < n / 2; i++) {
        uint32_t t = st->list[i];
        st->list[i] = st->list[n - 1 - i];
        st->list[n - 1 - i] = t;
    }
    *count = n;
    return true;
}

/* ---- running ---- */

static bool bind(mb_context *ctx, mb__engine_state *st, const mb__plan *plan, uint32_t count)
{
    if (!mb__reserve(ctx, (void **)&st->inputs, &st->input_room, (uint64_t)plan->input_count + 1,
                     sizeof *st->inputs) ||
        !mb__reserve(ctx, (void **)&st->outputs, &st->output_room, (uint64_t)plan->output_count + 1,
                     sizeof *st->outputs) ||
        !mb__reserve(ctx, (void **)&st->fresh, &st->fresh_room, (uint64_t)plan->output_count + 1,
                     sizeof(*st->fresh)) ||
        !mb__reserve(ctx, (void **)&st->scalars, &st->scalar_room, (uint64_t)plan->scalar_count + 1,
                     sizeof *st->scalars))
        return false;
    size_t arena = plan->arena_bytes > 64 ? (size_t)plan->arena_bytes
                                          : 64; /* never none: values of no bytes have a place too */
    if (arena > st->arena_bytes) {
        if (st->arena)
            st->backend->memory_free(ctx, st->backend_state, st->arena, st->arena_bytes);
        st->arena_bytes = 0;
        st->arena = st->backend->memory_new(ctx, st->backend_state, arena);
        if (!st->arena)
            return false;
        st->arena_bytes = arena;
    }
    int inputs = 0, outputs = 0, scalars = 0;
    for (uint32_t i = 0; i < count; i++) {
        mb__node *n = &ctx->nodes[st->list[i]];
        if (n->value) {
            st->inputs[inputs++] = n->value->memory;
            continue;
        }
        if (n->op == MB_OP_SCALAR)
            st->scalars[scalars++] = n->bind.scalar;
        else if (n->op == MB_OP_RANDOM)
            memcpy(&st->scalars[scalars++], &n->bind.key, 8);
        if (st->mark[st->list[i]] & 1) {
            mb__buffer *b = mb__buffer_new(ctx, (mb_dtype)n->dtype, mb__numel(n->dim, n->rank));
            if (!b) {
                while (outputs)
                    mb__buffer_release(ctx, st->fresh[--outputs]);
                return false;
            }
            st->fresh[outputs] = b;
            st->outputs[outputs++] = b->memory;
        }
    }
    return true;
}

static mb_status compute(mb_context *ctx, mb__engine_state *st, uint32_t targets)
{
    uint32_t count;
    if (!collect(ctx, st, targets, &count))
        return ctx->status;
    st->key_bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        st->dense[st->list[i]] = i;
        if (!key_node(ctx, st, &ctx->nodes[st->list[i]], st->mark[st->list[i]] & 1))
            return ctx->status;
    }
    mb__cached *c = mb__plan_for(ctx, count, mb__hash(st->key, st->key_bytes));
    if (!c || !bind(ctx, st, &c->plan, count))
        return mb_error(ctx) != MB_OK ? ctx->status
                                      : mb__error(ctx, MB_NO_MEMORY, NULL, "out of memory while planning");
    mb__binding binding = {st->arena, st->inputs, st->outputs, st->scalars};
    mb_status status = st->backend->run(ctx, st->backend_state, c->program, &binding);
    int outputs = 0;
    for (uint32_t i = 0; i < count; i++) {
        mb__node *n = &ctx->nodes[st->list[i]];
        if (n->value || !(st->mark[st->list[i]] & 1))
            continue;
        if (status == MB_OK)
            n->value = st->fresh[outputs++];
        else
            mb__buffer_release(ctx, st->fresh[outputs++]);
    }
    st->stats.flushes++;
    st->stats.last_nodes = count;
    st->stats.last_steps = (uint64_t)c->plan.step_count;
    st->stats.last_flops = c->plan.flops;
    st->stats.last_arena_bytes = (uint64_t)c->plan.arena_bytes;
    return status;
}

/* ---- MB_DEBUG: one op at a time, looking for the first value that is not finite, or not right ---- */

static bool finite_values(mb_context *ctx, mb__engine_state *st, const mb__node *n, bool *all)
{
    *all = true;
    if (!mb__is_float(n->dtype) || !n->value)
        return true;
    int64_t count = mb__numel(n->dim, n->rank);
    size_t bytes = (size_t)count * mb_dtype_size((mb_dtype)n->dtype);
    void *host = mb__alloc(ctx, bytes);
    if (!host)
        return false;
    if (st->backend->download(ctx, st->backend_state, n->value->memory, (mb_dtype)n->dtype, count, host) ==
        MB_OK)
        for (int64_t i = 0; i < count && *all; i++)
            *all = isfinite(n->dtype == MB_FLOAT64 ? ((double *)host)[i] : (double)((float *)host)[i]);
    mb__free(ctx, host, bytes);
    return ctx->status == MB_OK;
}

static mb_status compute_checked(mb_context *ctx, mb__engine_state *st, uint32_t targets)
{
    uint32_t count;
    if (!collect(ctx, st, targets, &count))
        return ctx->status;
    uint32_t *nodes = mb__alloc(ctx, (size_t)(count + 1) * sizeof *nodes);
    if (!nodes)
        return ctx->status;
    memcpy(nodes, st->list, count * sizeof *nodes);
    for (uint32_t i = 0; i < count && ctx->status == MB_OK; i++) {
        mb__node *n = &ctx->nodes[nodes[i]];
        if (n->value)
            continue;
        st->targets[0] = nodes[i];
        bool finite, operands = true;
        if (compute(ctx, st, 1) != MB_OK || !mb__check_node(ctx, nodes[i]) ||
            !finite_values(ctx, st, &ctx->nodes[nodes[i]], &finite) || finite)
            continue;
        n = &ctx->nodes[nodes[i]];
        for (int j = 0; j < n->nin && operands; j++)
            finite_values(ctx, st, &ctx->nodes[mb__in(ctx, n, j)], &operands);
        if (operands && n->op != MB_OP_CONST && n->op != MB_OP_SCALAR) {
            char text[128], name[128];
            mb__error(
                ctx, MB_INVALID, n->where,
                "%s: the first NaN or infinity appears here, in a result of shape %s, from finite operands",
                mb__node_text(name, sizeof name, n), mb__shape_text(text, sizeof text, n->dim, n->rank));
        }
    }
    mb__free(ctx, nodes, (size_t)(count + 1) * sizeof *nodes);
    return ctx->status;
}

/* ---- the flush ---- */

static void store_assignments(mb_context *ctx)
{
    for (uint32_t i = 0; i < ctx->pending_count; i++) {
        mb__variable *v = &ctx->variables[ctx->pending[i]];
        mb__node *n = &ctx->nodes[v->pending];
        mb__buffer *old = v->value;
        v->value = n->value;
        v->value->refs++;
        v->leaf = v->pending; /* the variable goes on standing for this node while its scope lasts */
        v->leaf_scope = n->scope;
        v->pending = 0;
        v->listed = false;
        mb__buffer_drop(ctx, old);
    }
    ctx->pending_count = 0;
}

static mb_status deliver_watches(mb_context *ctx, mb__engine_state *st)
{
    for (uint32_t i = 0; i < ctx->watch_count; i++) {
        const mb__watch *w = &ctx->watches[i];
        const mb__node *n = &ctx->nodes[w->id];
        if (st->backend->download(ctx, st->backend_state, n->value->memory, (mb_dtype)n->dtype,
                                  mb__numel(n->dim, n->rank), w->dst) != MB_OK)
            return ctx->status;
    }
    ctx->watch_count = 0;
    return MB_OK;
}

void mb__log(mb_context *ctx, const char *format, ...)
{
    mb__engine_state *st = ctx->engine_state;
    if (!st || !st->log)
        return;
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    st->log(st->log_user, line);
}

/* Un-cut history is the leak of this kind of program: it is noticed, and told once with the scope to blame.
 */
static void watch_growth(mb_context *ctx, mb__engine_state *st)
{
    enum { MANY = 1000 };
    st->growths = ctx->node_count > st->tape_before ? st->growths + 1 : 0;
    st->tape_before = ctx->node_count;
    if (st->growths != MANY)
        return;
    const mb__scope_mark *scope = &ctx->scopes[ctx->scope_count - 1];
    mb__log(ctx,
            "the tape has grown at each of %d flushes, to %u nodes, in the scope begun at %s; a scope for "
            "each step would end that",
            MANY, ctx->node_count - 1, scope->where ? scope->where : "mb_open");
}

static mb_status flush(mb_context *ctx, const char *where, const uint32_t *ids, int n)
{
    mb__engine_state *st = ctx->engine_state;
    if (ctx->status != MB_OK)
        return ctx->status;
    if (st->opened != MB_OK)
        return mb__error(ctx, st->opened, where,
                         "flush: this context's backend could not be opened; close it and open another");
    watch_growth(ctx, st);
    uint32_t targets = 0;
    bool ok = true;
    for (int i = 0; ok && i < n; i++)
        ok = add_target(ctx, st, ids[i], &targets);
    for (uint32_t i = 0; ok && i < ctx->watch_count; i++)
        ok = add_target(ctx, st, ctx->watches[i].id, &targets);
    for (uint32_t i = 0; ok && i < ctx->pending_count; i++)
        ok = add_target(ctx, st, ctx->variables[ctx->pending[i]].pending, &targets);
    if (!ok)
        return ctx->status;
    if (targets && (st->debug ? compute_checked(ctx, st, targets) : compute(ctx, st, targets)) != MB_OK)
        return ctx->status;
    store_assignments(ctx);
    return deliver_watches(ctx, st);
}

static mb_status upload(mb_context *ctx, mb__buffer *to, mb_dtype dtype, int64_t count, const void *from)
{
    mb__engine_state *st = ctx->engine_state;
    return st->backend->upload(ctx, st->backend_state, to->memory, dtype, count, from);
}

static mb_status download(mb_context *ctx, mb__buffer *from, mb_dtype dtype, int64_t count, void *to)
{
    mb__engine_state *st = ctx->engine_state;
    return st->backend->download(ctx, st->backend_state, from->memory, dtype, count, to);
}

static void close_engine(mb_context *ctx)
{
    mb__engine_state *st = ctx->engine_state;
    if (!st)
        return;
    mb__profile_end(ctx);
    mb__cache_clear(ctx);
    mb__pool_clear(ctx);
    if (st->backend && st->arena)
        st->backend->memory_free(ctx, st->backend_state, st->arena, st->arena_bytes);
    if (st->backend && st->backend_state)
        st->backend->close(ctx, st->backend_state);
    mb__free(ctx, st->mark, st->mark_room * sizeof *st->mark);
    mb__free(ctx, st->dense, st->dense_room * sizeof *st->dense);
    mb__free(ctx, st->list, st->list_room * sizeof *st->list);
    mb__free(ctx, st->targets, st->target_room * sizeof *st->targets);
    mb__free(ctx, st->key, st->key_room);
    mb__free(ctx, st->inputs, st->input_room * sizeof *st->inputs);
    mb__free(ctx, st->outputs, st->output_room * sizeof *st->outputs);
    mb__free(ctx, st->fresh, st->fresh_room * sizeof *st->fresh);
    mb__free(ctx, st->scalars, st->scalar_room * sizeof *st->scalars);
    mb__free(ctx, st, sizeof *st);
    ctx->engine_state = NULL;
}

static void log_line(mb_context *ctx, const char *line)
{
    mb__log(ctx, "%s", line);
}

const mb__engine mb__the_engine = {flush,        mb__buffer_new, mb__buffer_release, upload, download,
                                   close_engine, log_line};
