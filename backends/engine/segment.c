/* SPDX-License-Identifier: MIT
 * segment.c - the nodes that a flush needs: listed, as a key, as a graph. */
#include "backends/engine/state.h"

/* ---- what is needed ---- */

static bool rooms(mb_context *ctx, mb__engine_state *st)
{
    /* New entries are zero, which is no serial. */
    if (!mb__reserve(ctx, (void **)&st->mark, &st->mark_room, ctx->node_count, sizeof *st->mark) ||
        !mb__reserve(ctx, (void **)&st->dense, &st->dense_room, ctx->node_count, sizeof *st->dense))
        return false;
    return true;
}

bool mb__segment_collect(mb_context *ctx, mb__engine_state *st, uint32_t targets, uint32_t *count)
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

/* ---- the key: all that a plan depends on, and nothing that it does not ---- */

static bool key_room(mb_context *ctx, mb__engine_state *st, uint32_t more)
{
    return mb__reserve(ctx, (void **)&st->key, &st->key_room, (uint64_t)st->key_bytes + more, 1);
}

bool mb__segment_key_node(mb_context *ctx, mb__engine_state *st, const mb__node *n, bool output)
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

/* ---- the graph ---- */

bool mb__segment_graph(mb_context *ctx, uint32_t count, mb__graph *g)
{
    mb__engine_state *st = ctx->engine_state;
    g->nodes = mb__bump_get(g->bump, ((size_t)count + 1) * sizeof *g->nodes);
    g->outputs = mb__bump_get(g->bump, ((size_t)count + 1) * sizeof *g->outputs);
    if (!g->nodes || !g->outputs)
        return false;
    g->room = (int)count + 1;
    for (uint32_t i = 0; i < count; i++) {
        const mb__node *n = mb__at(ctx, st->list[i]);
        mb__gnode *o = &g->nodes[g->count++];
        bool leaf = n->value != NULL;
        *o = (mb__gnode){.op = leaf ? MB_OP_BUFFER : n->op,
                         .dtype = n->dtype,
                         .rank = n->rank,
                         .bind = -1,
                         .output = -1,
                         .site = n->site};
        memcpy(o->dim, n->dim, sizeof o->dim);
        o->in = mb__bump_get(g->bump, (n->nin + 1u) * sizeof *o->in);
        int64_t *attr = mb__bump_get(g->bump, (n->nattr + 1u) * sizeof *attr);
        if (!o->in || !attr)
            return false;
        o->attr = attr;
        if (leaf) {
            o->bind = g->input_count++;
            continue;
        }
        if (n->op == MB_OP_SCALAR || n->op == MB_OP_RANDOM)
            o->bind = g->scalar_count++;
        o->nin = n->nin;
        for (int j = 0; j < n->nin; j++)
            o->in[j] = (int32_t)st->dense[mb__in(ctx, n, j)];
        o->nattr = n->nattr;
        memcpy(attr, mb__attrs(ctx, n), n->nattr * sizeof *attr);
        if (st->mark[st->list[i]] & 1)
            g->outputs[g->output_count++] = (int32_t)i;
    }
    return true;
}
