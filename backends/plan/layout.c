/* SPDX-License-Identifier: MIT
 *
 * layout.c - where each node's elements lie. Movement ops become strides over the storage of another node;
 * what strides cannot express becomes a copy. Every result that a step other than a kernel reads gets
 * storage.
 */
#include "backends/plan/graph.h"

void mb__row_major(const int64_t *dim, int rank, int64_t *stride)
{
    int64_t s = 1;
    for (int i = rank; i-- > 0; s *= dim[i])
        stride[i] = s;
}

/* Strides of the same elements under other sizes; false where there are none. Axes of size 1 do not matter;
 * runs of old axes that are contiguous among themselves are matched with runs of new ones. */
static bool reshape_strides(const int64_t *dim, const int64_t *stride, int rank, const int64_t *to,
                            int to_rank, int64_t *out)
{
    int64_t d[MB_MAX_RANK], s[MB_MAX_RANK];
    int r = 0;
    for (int i = 0; i < rank; i++)
        if (dim[i] != 1) {
            d[r] = dim[i];
            s[r++] = stride[i];
        }
    if (mb__numel(dim, rank) == 0 || r == 0) {
        mb__row_major(to, to_rank, out);
        return true;
    }
    int i = 0, j = 0;
    while (i < r) {
        while (j < to_rank && to[j] == 1)
            out[j++] = 0;
        int i1 = i + 1, j1 = j + 1;
        int64_t a = d[i], b = to[j];
        while (a != b) {
            if (a < b)
                a *= d[i1++];
            else
                b *= to[j1++];
        }
        for (int k = i; k + 1 < i1; k++)
            if (s[k] != s[k + 1] * d[k + 1])
                return false;
        int64_t step = s[i1 - 1];
        for (int k = j1; k-- > j; step *= to[k])
            out[k] = step;
        i = i1;
        j = j1;
    }
    for (; j < to_rank; j++)
        out[j] = 0;
    return true;
}

static bool view_of(const mb__graph *g, mb__gnode *n)
{
    const mb__gnode *x = &g->nodes[n->in[0]];
    n->base = x->base;
    n->offset = x->offset;
    switch (n->op) {
    case MB_OP_RESHAPE:
        return reshape_strides(x->dim, x->stride, x->rank, n->dim, n->rank, n->stride);
    case MB_OP_PERMUTE:
        for (int i = 0; i < n->rank; i++)
            n->stride[i] = x->stride[n->attr[i]];
        return true;
    case MB_OP_BARRIER:
        memcpy(n->stride, x->stride, sizeof n->stride);
        return true;
    case MB_OP_BROADCAST:
        for (int i = 0; i < n->rank; i++) {
            int j = i - (n->rank - x->rank);
            n->stride[i] = j < 0 || (x->dim[j] == 1 && n->dim[i] != 1) ? 0 : x->stride[j];
        }
        return true;
    case MB_OP_WINDOW:
        for (int i = 0, axis = (int)n->attr[0]; i < n->rank; i++)
            n->stride[i] = x->stride[i <= axis ? i : i - 1] * (i == axis       ? n->attr[1]
                                                               : i == axis + 1 ? n->attr[2]
                                                                               : 1);
        return true;
    default: /* slice */
        for (int i = 0; i < n->rank; i++) {
            n->offset += n->attr[i] * x->stride[i];
            n->stride[i] = n->attr[n->rank + i] * x->stride[i];
        }
        return true;
    }
}

typedef struct layout {
    mb__graph *old, fresh;
    bool failed;
} layout;

static int32_t append(layout *l, const mb__gnode *n)
{
    int32_t id = mb__graph_append(&l->fresh, n);
    if (id < 0)
        l->failed = true;
    return id < 0 ? 0 : id;
}

static void own_storage(mb__gnode *n, int32_t id)
{
    n->base = id;
    n->offset = 0;
    mb__row_major(n->dim, n->rank, n->stride);
}

static int32_t copy_of(layout *l, int32_t id)
{
    mb__gnode c = l->fresh.nodes[id];
    c.op = MB_K_COPY;
    c.nin = 1;
    c.nattr = 0;
    c.bind = -1;
    c.output = -1;
    c.in = mb__bump_get(l->fresh.bump, sizeof *c.in);
    if (!c.in) {
        l->failed = true;
        return 0;
    }
    c.in[0] = id;
    own_storage(&c, l->fresh.count);
    return append(l, &c);
}

/* Whether the elements lie one after the other. */
static bool is_packed(const mb__gnode *n)
{
    int64_t stride = 1;
    for (int i = n->rank; i-- > 0; stride *= n->dim[i])
        if (n->dim[i] != 1 && n->stride[i] != stride)
            return false;
    return true;
}

/* Whether a step cannot read the operand where it is. */
static bool needs_copy(const mb__graph *g, const mb__gnode *reader, const mb__gnode *x)
{
    return mb__has_flag(reader->op, MB_FLAG_STORED_OPERANDS) &&
           (mb__has_flag(g->nodes[x->base].op, MB_FLAG_GENERATED) ||
            (reader->op == MB_OP_SCAN && !is_packed(x)));
}

mb_status mb__layout(mb__graph *g)
{
    layout l = {.old = g, .fresh = *g};
    l.fresh.nodes = NULL;
    l.fresh.count = 0;
    l.fresh.capacity =
        g->count + g->count / 16 + 64; /* most graphs fit; growing leaves the old array behind */
    if (!(l.fresh.nodes = mb__bump_get(g->bump, (size_t)l.fresh.capacity * sizeof *l.fresh.nodes)))
        return MB_NO_MEMORY;
    int32_t *map = mb__bump_get(g->bump, (size_t)(g->count + 1) * sizeof *map);
    if (!map)
        return MB_NO_MEMORY;
    for (int i = 0; i < g->count && !l.failed; i++) {
        mb__gnode n = g->nodes[i];
        for (int j = 0; j < n.nin; j++) {
            n.in[j] = map[n.in[j]];
            if (needs_copy(&l.fresh, &n, &l.fresh.nodes[n.in[j]]))
                n.in[j] = copy_of(&l, n.in[j]);
        }
        if (l.failed)
            break;
        n.output = -1;
        if (!mb__is_view(n.op)) {
            own_storage(&n, l.fresh.count);
        } else if (!view_of(&l.fresh, &n)) {
            n.op = MB_K_COPY; /* the operand's elements in row-major order, whose shape is then free */
            int32_t source = n.in[0], c = copy_of(&l, source);
            mb__gnode v = g->nodes[i];
            v.in = n.in;
            v.in[0] = c;
            v.output = -1;
            if (l.failed || !view_of(&l.fresh, &v))
                break;
            n = v;
        }
        map[i] = append(&l, &n);
    }
    for (int i = 0; i < g->output_count && !l.failed; i++) {
        int32_t id = map[g->outputs[i]];
        const mb__gnode *n = &l.fresh.nodes[id];
        if (n->base != id || n->op == MB_OP_BUFFER || mb__has_flag(n->op, MB_FLAG_GENERATED) ||
            n->output >= 0)
            id = copy_of(&l, id);
        if (l.failed)
            break;
        l.fresh.nodes[id].output = i;
        l.fresh.outputs[i] = id;
    }
    if (l.failed)
        return MB_NO_MEMORY;
    *g = l.fresh;
    return MB_OK;
}
