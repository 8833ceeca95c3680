/* SPDX-License-Identifier: MIT
 *
 * run.c - values, names, and the walk over a graph. */
#include "run.h"

#include <string.h>

static const op *const tables[] = {
    elementwise_ops, integer_ops,     movement_ops, shape_ops,    index_ops,   select_ops,    reduce_ops,
    matrix_ops,      convolution_ops, pooling_ops,  norm_ops,     loss_ops,    recurrent_ops, resize_ops,
    sample_ops,      signal_ops,      quantize_ops, training_ops, control_ops, sequence_ops,  absent_ops,
};

/* ---- values ---- */

bool carrier(int elem, mb_dtype *dtype)
{
    switch (elem) {
    case ELEM_FLOAT:
    case ELEM_FLOAT16:
    case ELEM_BFLOAT16:
        *dtype = MB_FLOAT32;
        return true;
    case ELEM_DOUBLE:
        *dtype = MB_FLOAT64;
        return true;
    case ELEM_BOOL:
        *dtype = MB_BOOL;
        return true;
    case ELEM_UINT8:
    case ELEM_INT8:
    case ELEM_UINT16:
    case ELEM_INT16:
    case ELEM_INT32:
    case ELEM_INT64:
    case ELEM_UINT32:
    case ELEM_UINT64:
        *dtype = MB_INT32;
        return true;
    default:
        return false;
    }
}

/* The bytes that mb_from takes; NULL where a number does not fit. */
static void *carried(run *r, const tensor_proto *t, mb_dtype dtype)
{
    void *bytes = arena_take(r->memory, (size_t)t->count, mb_dtype_size(dtype));
    for (int64_t i = 0; i < t->count; i++)
        switch (dtype) {
        case MB_FLOAT32:
            ((float *)bytes)[i] = (float)t->real[i];
            break;
        case MB_FLOAT64:
            ((double *)bytes)[i] = t->real[i];
            break;
        case MB_BOOL:
            ((uint8_t *)bytes)[i] = t->whole[i] != 0;
            break;
        case MB_INT32:
            if (t->whole[i] != (int32_t)t->whole[i] || (t->elem == ELEM_UINT64 && t->whole[i] < 0))
                return NULL;
            ((int32_t *)bytes)[i] = (int32_t)t->whole[i];
            break;
        default: /* nothing asks for another */
            return NULL;
        }
    return bytes;
}

value tensor_value(run *r, const tensor_proto *t)
{
    value v = {.kind = VALUE_TENSOR, .elem = t->elem, .file = t};
    mb_dtype dtype;
    if (!carrier(t->elem, &dtype) || t->rank > MB_MAX_RANK)
        return v;
    mb_shape shape = {.rank = t->rank};
    for (int i = 0; i < t->rank; i++)
        shape.dim[i] = t->dim[i];
    void *bytes = carried(r, t, dtype);
    if (bytes)
        v.t = mb_from(r->mb, dtype, shape, bytes);
    return v;
}

value value_of(run *r, const data *d)
{
    if (d->kind == DATA_NONE)
        return (value){0};
    if (d->kind == DATA_TENSOR)
        return tensor_value(r, d->tensor);
    value v = {.kind = VALUE_SEQUENCE, .count = d->count, .items = ARENA_NEW(r->memory, value, d->count)};
    for (int i = 0; i < d->count; i++)
        v.items[i] = value_of(r, &d->items[i]);
    return v;
}

value input_value(run *r, const data *d, const port *p)
{
    value v = value_of(r, d);
    if (v.kind == VALUE_TENSOR && p->elem != ELEM_NONE && p->elem != v.elem) {
        v.elem = p->elem;
        v.t = (mb_tensor){0};
    }
    return v;
}

/* ---- names ---- */

static void define(run *r, const char *name, value v)
{
    names *n = r->names;
    if (n->count < n->capacity)
        n->entries[n->count++] = (struct named){name, v};
}

value named(const run *r, const char *name)
{
    for (const names *n = r->names; n && *name; n = n->outer)
        for (int i = n->count - 1; i >= 0; i--)
            if (strcmp(n->entries[i].name, name) == 0)
                return n->entries[i].value;
    return (value){0};
}

/* ---- nodes ---- */

static const op *find_op(const node_proto *node)
{
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++)
        for (const op *o = tables[k]; o->name; o++)
            if (strcmp(o->name, node->op) == 0)
                return o;
    return NULL;
}

static bool run_node(run *r, const node_proto *node)
{
    call c = {.run = r, .mb = r->mb, .node = node, .opset = r->model->opset};
    c.n_in = node->n_inputs;
    c.n_out = node->n_outputs;
    c.in = ARENA_NEW(r->memory, value, c.n_in);
    c.out = ARENA_NEW(r->memory, value, c.n_out);
    for (int i = 0; i < c.n_in; i++)
        c.in[i] = named(r, node->inputs[i]);
    const op *o = find_op(node);
    if (!o)
        leave(&c, "no counterpart written");
    else
        o->apply(&c);
    if (r->reason || mb_error(r->mb) != MB_OK)
        return false;
    r->rounds |= !o->exact;
    for (int i = 0; i < c.n_out; i++)
        define(r, node->outputs[i], c.out[i]);
    return true;
}

static names *enter(run *r, const graph_proto *g)
{
    names *n = ARENA_NEW(r->memory, names, 1);
    n->capacity = g->n_inputs + g->n_initializers;
    for (int i = 0; i < g->n_nodes; i++)
        n->capacity += g->nodes[i].n_outputs;
    n->entries = ARENA_NEW(r->memory, struct named, n->capacity);
    n->outer = r->names;
    return n;
}

bool run_graph(run *r, const graph_proto *g, const value *inputs, int n_inputs, value *outputs)
{
    const names *outer = r->names;
    r->names = enter(r, g);
    for (int i = 0; i < g->n_initializers; i++)
        define(r, g->initializers[i]->name, tensor_value(r, g->initializers[i]));
    for (int i = 0; i < n_inputs && i < g->n_inputs; i++)
        define(r, g->inputs[i].name, inputs[i]);
    bool ok = true;
    for (int i = 0; i < g->n_nodes && ok; i++)
        ok = run_node(r, &g->nodes[i]);
    for (int i = 0; i < g->n_outputs && ok; i++)
        outputs[i] = named(r, g->outputs[i].name);
    r->names = (names *)outer;
    return ok;
}
