/* SPDX-License-Identifier: MIT
 *
 * segment.c - the nodes that a flush needs, from the requested ones back to the nearest stored values, and
 * their key, graph and binding. One walk (describe) decides what is an input, a scalar or an output, and in
 * which order they are numbered; the key, the graph and the binding all read its lists.
 */
#include "backends/engine/state.h"

/* ---- what is needed ---- */

/* Marks: the serial of a walk, a multiple of 8, and bits. */
enum {
    NEEDED = 1,
    KEPT = 2,  /* its value */
    GIVEN = 4, /* as if it had its value */
    BITS = 7
};

/* False: error set. */
static bool begin(mb_context *ctx, mb__engine_state *st)
{
    /* New entries are zero, which is no serial. */
    if (!mb__reserve(ctx, (void **)&st->mark, &st->mark_capacity, ctx->node_count, sizeof *st->mark) ||
        !mb__reserve(ctx, (void **)&st->dense, &st->dense_capacity, ctx->node_count, sizeof *st->dense))
        return false;
    st->serial += BITS + 1;
    if (!st->serial) { /* wrapped: all marks are old */
        memset(st->mark, 0, st->mark_capacity * sizeof *st->mark);
        st->serial = BITS + 1;
    }
    return true;
}

/* Whether it had none of these bits before. */
static bool mark(mb__engine_state *st, uint32_t id, uint32_t bits)
{
    uint32_t before = (st->mark[id] & ~(uint32_t)BITS) == st->serial ? st->mark[id] : st->serial;
    st->mark[id] = before | bits;
    return !(before & bits);
}

static bool is_needed(const mb__engine_state *st, uint32_t id)
{
    return (st->mark[id] & ~(uint32_t)BITS) == st->serial && st->mark[id] & NEEDED;
}

/* Of a node that is needed. */
static bool has_value(const mb_context *ctx, const mb__engine_state *st, uint32_t id)
{
    return ctx->nodes[id].value || st->mark[id] & GIVEN;
}

static bool append(mb_context *ctx, uint32_t **list, uint32_t *count, uint32_t *capacity, uint32_t id)
{
    if (!mb__reserve(ctx, (void **)list, capacity, (uint64_t)*count + 1, sizeof **list))
        return false;
    (*list)[(*count)++] = id;
    return true;
}

/* open: placeholders of scans and vmaps that have not ended count as given. */
static bool collect(mb_context *ctx, mb__engine_state *st, mb__segment *s, uint32_t targets, bool open)
{
    uint32_t top = 0, waiting = 0;
    s->count = 0;
    for (uint32_t i = 0; i < targets; i++) {
        uint32_t id = st->targets[i];
        if (ctx->nodes[id].home || ctx->nodes[id].mapped) { /* watched */
            mb__error_at(ctx, MB_INVALID, ctx->nodes[id].site,
                         "a value of the inside of a scan or vmap was asked for, which has one at each step, "
                         "or for each example");
            return false;
        }
        waiting += mark(st, id, NEEDED);
        mark(st, id, KEPT);
        top = id > top ? id : top;
    }
    for (uint32_t id = top; waiting; id--) {
        if (!is_needed(st, id))
            continue;
        waiting--;
        if (!append(ctx, &s->nodes, &s->count, &s->node_capacity, id))
            return false;
        const mb__node *node = &ctx->nodes[id];
        bool placeholder = node->op == MB_OP_PLACEHOLDER && !node->home;
        if (placeholder && open)
            mark(st, id, GIVEN);
        bool input = has_value(ctx, st, id);
        if (!input && placeholder) {
            mb__error(
                ctx, MB_INVALID,
                "a value of the inside of a scan or vmap that has not ended was asked for; it has one at "
                "each step, or for each example, and none before the end");
            return false;
        }
        for (int i = 0; !input && i < mb__value_operands(node); i++)
            waiting += mark(st, mb__in(ctx, node, i), NEEDED);
    }
    for (uint32_t i = 0; i < s->count / 2; i++) {
        uint32_t t = s->nodes[i];
        s->nodes[i] = s->nodes[s->count - 1 - i];
        s->nodes[s->count - 1 - i] = t;
    }
    return true;
}

/* ---- what is to be known of it ---- */

static bool add_scalar(mb_context *ctx, mb__segment *s, const mb__node *n)
{
    if (!mb__reserve(ctx, (void **)&s->scalars, &s->scalar_capacity, (uint64_t)s->scalar_count + 1,
                     sizeof *s->scalars))
        return false;
    mb__scalar *x = &s->scalars[s->scalar_count++];
    *x = (mb__scalar){.is_key = mb__has_key(n->op), .dtype = n->dtype};
    if (x->is_key)
        x->u.key = n->bind.key;
    else
        x->u.number = n->bind.scalar;
    return true;
}

static bool add_key(mb_context *ctx, mb__engine_state *st, mb__segment *s, const mb__node *n, bool input,
                    bool output)
{
    int nin = input ? 0 : mb__value_operands(n), nattr = input ? 0 : n->nattr;
    uint64_t more = 8 + 8 * (uint64_t)n->rank + 4 * (uint64_t)nin + 8 * (uint64_t)nattr;
    if (!mb__reserve(ctx, (void **)&s->key, &s->key_capacity, s->key_bytes + more, 1))
        return false;
    unsigned char *k = s->key + s->key_bytes;
    uint16_t op = input ? MB_OP_BUFFER : n->op, in16 = (uint16_t)nin, attr16 = (uint16_t)nattr;
    memcpy(k, &op, 2);
    k[2] = n->dtype;
    k[3] = (unsigned char)(n->rank | (output ? 0x80 : 0));
    memcpy(k + 4, &in16, 2);
    memcpy(k + 6, &attr16, 2);
    k += 8;
    memcpy(k, n->dim, (size_t)n->rank * 8);
    k += 8 * n->rank;
    for (int i = 0; i < nin; i++, k += 4)
        memcpy(k, &st->dense[mb__in(ctx, n, i)], 4);
    if (nattr)
        memcpy(k, mb__attrs(ctx, n), (size_t)nattr * 8);
    s->key_bytes += (uint32_t)more;
    return true;
}

/* again: a node that is computed though it has its value; 0: none. */
static bool describe(mb_context *ctx, mb__engine_state *st, mb__segment *s, uint32_t again)
{
    s->input_count = s->output_count = s->scalar_count = s->key_bytes = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        uint32_t id = s->nodes[i];
        const mb__node *n = &ctx->nodes[id];
        bool input = has_value(ctx, st, id) && id != again, output = !input && st->mark[id] & KEPT;
        st->dense[id] = i;
        if ((input && !append(ctx, &s->inputs, &s->input_count, &s->input_capacity, id)) ||
            (output && !append(ctx, &s->outputs, &s->output_count, &s->output_capacity, id)) ||
            (!input && (n->op == MB_OP_SCALAR || mb__has_key(n->op)) && !add_scalar(ctx, s, n)) ||
            !add_key(ctx, st, s, n, input, output))
            return false;
    }
    return true;
}

bool mb__segment_of(mb_context *ctx, mb__segment *s, uint32_t targets)
{
    mb__engine_state *st = ctx->engine_state;
    return begin(ctx, st) && collect(ctx, st, s, targets, false) && describe(ctx, st, s, 0);
}

bool mb__segment_beyond(mb_context *ctx, mb__segment *s, const uint32_t *given, int n, uint32_t targets)
{
    mb__engine_state *st = ctx->engine_state;
    if (!begin(ctx, st))
        return false;
    for (int i = 0; i < n; i++)
        mark(st, given[i], GIVEN);
    return collect(ctx, st, s, targets, true) && describe(ctx, st, s, 0);
}

bool mb__segment_of_node(mb_context *ctx, mb__segment *s, uint32_t id)
{
    mb__engine_state *st = ctx->engine_state;
    const mb__node *n = &ctx->nodes[id];
    if (!begin(ctx, st))
        return false;
    s->count = 0;
    for (int i = 0; i < mb__value_operands(n); i++) { /* distinct operands, ascending */
        uint32_t o = mb__in(ctx, n, i), at = 0;
        while (at < s->count && s->nodes[at] < o)
            at++;
        if (at < s->count && s->nodes[at] == o)
            continue;
        if (!append(ctx, &s->nodes, &s->count, &s->node_capacity, o))
            return false;
        memmove(s->nodes + at + 1, s->nodes + at, (s->count - 1 - at) * sizeof *s->nodes);
        s->nodes[at] = o;
    }
    mark(st, id, KEPT);
    return append(ctx, &s->nodes, &s->count, &s->node_capacity, id) && describe(ctx, st, s, id);
}

void mb__segment_free(mb_context *ctx, mb__segment *s)
{
    mb__free(ctx, s->nodes, s->node_capacity * sizeof *s->nodes);
    mb__free(ctx, s->inputs, s->input_capacity * sizeof *s->inputs);
    mb__free(ctx, s->outputs, s->output_capacity * sizeof *s->outputs);
    mb__free(ctx, s->scalars, s->scalar_capacity * sizeof *s->scalars);
    mb__free(ctx, s->key, s->key_capacity);
    *s = (mb__segment){0};
}

/* ---- as a graph ---- */

static mb_status graph_node(mb_context *ctx, const mb__node *n, bool input, mb__bump *bump, mb__gnode *to)
{
    mb__engine_state *st = ctx->engine_state;
    *to = (mb__gnode){.op = input ? MB_OP_BUFFER : n->op,
                      .dtype = n->dtype,
                      .rank = n->rank,
                      .bind = -1,
                      .output = -1,
                      .site = n->site};
    memcpy(to->dim, n->dim, sizeof to->dim);
    if (input)
        return MB_OK;
    to->nin = mb__value_operands(n);
    to->in = mb__bump_get(bump, ((size_t)to->nin + 1) * sizeof *to->in);
    int64_t *attr = mb__bump_get(bump, (n->nattr + 1u) * sizeof *attr);
    if (!to->in || !attr)
        return MB_NO_MEMORY;
    for (int j = 0; j < to->nin; j++)
        to->in[j] = (int32_t)st->dense[mb__in(ctx, n, j)];
    to->nattr = n->nattr;
    to->attr = memcpy(attr, mb__attrs(ctx, n), n->nattr * sizeof *attr);
    return MB_OK;
}

mb_status mb__segment_graph(mb_context *ctx, const mb__segment *s, mb__graph *g)
{
    g->nodes = mb__bump_get(g->bump, ((size_t)s->count + 1) * sizeof *g->nodes);
    g->outputs = mb__bump_get(g->bump, ((size_t)s->output_count + 1) * sizeof *g->outputs);
    if (!g->nodes || !g->outputs)
        return MB_NO_MEMORY;
    g->capacity = (int)s->count + 1;
    for (uint32_t i = 0; i < s->count; i++) {
        uint32_t id = s->nodes[i];
        const mb__node *n = mb__at(ctx, id);
        mb__gnode *to = &g->nodes[g->count++];
        bool input = (uint32_t)g->input_count < s->input_count && s->inputs[g->input_count] == id;
        if (graph_node(ctx, n, input, g->bump, to) != MB_OK)
            return MB_NO_MEMORY;
        if (input)
            to->bind = g->input_count++;
        else if (n->op == MB_OP_SCALAR || mb__has_key(n->op))
            to->bind = g->scalar_count++;
        if ((uint32_t)g->output_count < s->output_count && s->outputs[g->output_count] == id)
            g->outputs[g->output_count++] = (int32_t)i;
    }
    return MB_OK;
}
