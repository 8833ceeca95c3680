/* SPDX-License-Identifier: MIT
 *
 * mesa_models.c - transformers of attention alone, whose layers are linear, softmax or mesa ones; weights
 * made by hand; and what is left of trained ones where only a few numbers of them are kept. */
#include <math.h>
#include <stdlib.h>

#include "mesa.h"

/* Depth, heads and keys of the paper's tables; learning rates, clipping and initial sizes of its code. */
const model models[MODELS] = {
    [LINEAR_ONE] = {"linear-1", "1 layer of linear attention", 1, LINEAR, LINEAR, false, 2, 20, 3e-4, 2e-4, 4,
                    0.1},
    [LINEAR_TWO] = {"linear-2", "2 layers of linear attention", 2, LINEAR, LINEAR, false, 4, 20, 3e-4, 2e-4,
                    1.5, 0.1},
    [LINEAR_SIX] = {"linear-6", "6 layers of linear attention", 6, LINEAR, LINEAR, false, 4, 20, 3e-4, 2e-4,
                    4, 0.1},
    [MESA_ONE] = {"mesa-1", "1 mesa layer", 1, MESA, MESA, false, 2, 20, 3e-4, 2e-4, 4, 0.1},
    [HYBRID] = {"hybrid", "a softmax layer, then a mesa layer", 2, SOFTMAX, MESA, true, 4, 20, 7e-4, 0.05, 0,
                0.05},
    [SOFTMAX_TWO] = {"softmax-2", "2 softmax layers", 2, SOFTMAX, SOFTMAX, true, 4, 20, 7e-4, 0.05, 0, 0.05},
    [SOFTMAX_SEVEN] = {"softmax-7", "7 softmax layers", 7, SOFTMAX, SOFTMAX, true, 4, 20, 7e-4, 0.05, 0,
                       0.05},
};

int64_t width_of(const network *n)
{
    return SLOTS * n->slot;
}

attention attention_new(mb_params *p, const model *m, int64_t slot, int l, mixer kind)
{
    attention a = {.kind = kind};
    mb_init init = mb_init_normal(m->init);
    int64_t width = SLOTS * slot, in = m->embedded && l == 0 ? 2 * width : width; /* with positions */
    char name[16];
    snprintf(name, sizeof name, "layer%d", l);
    mb_params_enter(p, name);
    a.query = mb_param(p, "query", MB_SHAPE(m->heads, m->key, in), init);
    a.key = mb_param(p, "key", MB_SHAPE(m->heads, m->key, in), init);
    a.value = mb_param(p, "value", MB_SHAPE(m->heads, m->key, width), init);
    a.out = mb_param(p, "out", MB_SHAPE(m->heads, width, m->key), init);
    if (kind == MESA)
        a.lambda = mb_param_no_decay(p, "lambda", MB_SHAPE(m->heads), mb_init_ones());
    mb_params_leave(p);
    return a;
}

network network_new(mb_params *p, const model *m, int64_t slot, int64_t seen)
{
    network n = {.layers = m->layers, .slot = slot, .embedded = m->embedded, .clip = m->clip};
    n.masked = !m->embedded && m->layers == 1;
    mb_init init = mb_init_normal(m->init);
    if (m->embedded) {
        n.embed = mb_param(p, "embed", MB_SHAPE(width_of(&n), seen), init);
        n.unembed = mb_param(p, "unembed", MB_SHAPE(seen, width_of(&n)), init);
    }
    for (int l = 0; l < m->layers; l++)
        n.layer[l] = attention_new(p, m, slot, l, l == 0 ? m->first : m->others);
    return n;
}

/* [N,width]: sines and cosines (Vaswani et al. 1706.03762, section 3.5). */
static mb_tensor positions(mb_context *mb, int64_t N, int64_t width)
{
    float *all = calloc((size_t)(N * width), sizeof *all);
    if (!all)
        die("out of memory");
    for (int64_t t = 0; t < N; t++)
        for (int64_t i = 0; i < width; i++) {
            double angle = (double)t * pow(10000, -(double)(i / 2 * 2) / (double)width);
            all[t * width + i] = (float)(i % 2 ? cos(angle) : sin(angle));
        }
    mb_tensor made = mb_from(mb, MB_FLOAT32, MB_SHAPE(N, width), all);
    free(all);
    return made;
}

static mb_tensor swapped(mb_tensor t)
{
    return mb_permute(t, MB_AXES(0, 2, 1, 3));
}

/* e: [B,N,width], of which `from` makes queries and keys. */
static mb_tensor mixed(const attention *a, mb_tensor from, mb_tensor e)
{
    mb_tensor q = mb_einsum("btd,hkd->bthk", from, a->query), k = mb_einsum("btd,hkd->bthk", from, a->key);
    mb_tensor v = mb_einsum("btd,hkd->bthk", e, a->value), y;
    if (a->kind == MESA)
        y = swapped(mb_mesa_attention(swapped(q), swapped(k), swapped(v), MB_EMPTY(mb_tensor), a->lambda,
                                      MB_LIT(mb_mesa_options){.reversible = true, .chunk = LENGTH}, NULL));
    else
        y = mb_attend(q, k, v, a->kind == LINEAR ? MB_ATTENTION_LINEAR : MB_ATTENTION_SOFTMAX, true,
                      a->kind == LINEAR ? 1 : 0);
    return mb_einsum("bthk,hdk->btd", y, a->out);
}

/* The tokens [first, s_t, s_t, s_{t-1}]. */
static mb_tensor tokens_of(pairs p, mb_tensor first, bool masked)
{
    mb_tensor zeros = mb_zeros(p.now.ctx, mb_dtype_of(p.now), mb_shape_of(p.now));
    return mb_concat((mb_tensor[]){first.ctx ? first : zeros, masked ? zeros : p.now, p.now, p.before}, SLOTS,
                     2);
}

mb_tensor layer_output(const network *n, int l, mb_tensor e)
{
    mb_tensor from = e;
    if (n->embedded && l == 0) {
        mb_tensor where = positions(e.ctx, mb_dim(e, 1), width_of(n));
        where = mb_broadcast(where, mb_shape_of(e));
        from = mb_concat((mb_tensor[]){e, where}, 2, 2);
    }
    return mixed(&n->layer[l], from, e);
}

static mb_tensor layers_apply(const network *n, mb_tensor e, mb_tensor *activations)
{
    for (int l = 0; l < n->layers; l++) {
        if (activations)
            activations[l] = e;
        e = mb_add(e, layer_output(n, l, e));
        if (n->clip > 0)
            e = mb_clip_value(e, n->clip);
    }
    if (activations)
        activations[n->layers] = e;
    return e;
}

mb_tensor network_apply(const network *n, pairs p, mb_tensor *activations)
{
    if (n->embedded) {
        mb_tensor e = mb_einsum("bts,ds->btd", p.now, n->embed);
        return mb_einsum("btd,sd->bts", layers_apply(n, e, activations), n->unembed);
    }
    mb_tensor e = layers_apply(n, tokens_of(p, MB_EMPTY(mb_tensor), n->masked), activations);
    return mb_slice(e, 2, 0, n->slot, 1);
}

/* ---- weights made by hand ---- */

/* what: [m,m] -> [1,m,width]: reads a slot. */
static mb_tensor reading(mb_tensor what, int slot)
{
    int64_t m = mb_dim(what, 1);
    return mb_unsqueeze(mb_pad(what, 1, slot * m, (SLOTS - slot - 1) * m), 0);
}

/* W_k^T W_q has the identity where slot 4 meets slot 3; P W_v writes eta (slot 3 - Phi_0 slot 4) to slot 1
 * (proposition 1, with one slot more, as in the code). */
mb_tensor constructed_apply(mb_tensor eta, mb_tensor start, pairs p)
{
    network n = {.layers = 1, .slot = mb_dim(start, 0)};
    mb_tensor one = mb_eye(eta.ctx, mb_dtype_of(eta), n.slot), write = mb_mul(one, eta);
    n.layer[0] = (attention){.query = reading(one, 2), .key = reading(one, 3)};
    n.layer[0].value = mb_sub(reading(one, 2), reading(start, 3));
    n.layer[0].out = mb_transpose(reading(write, 0));
    mb_tensor first = mb_einsum("bts,us->btu", p.now, start);
    return mb_slice(layers_apply(&n, tokens_of(p, first, false), NULL), 2, 0, n.slot, 1);
}

/* ---- products ---- */

network products_of(const network *n)
{
    network to = *n;
    int64_t width = width_of(n);
    for (int l = 0; l < n->layers; l++) {
        const attention *a = &n->layer[l];
        mb_tensor one =
            mb_broadcast(mb_eye(a->key.ctx, MB_FLOAT32, width), MB_SHAPE(mb_dim(a->key, 0), width, width));
        to.layer[l].query = mb_einsum("hki,hkj->hij", a->key, a->query);
        to.layer[l].value = mb_einsum("hik,hkj->hij", a->out, a->value);
        to.layer[l].key = to.layer[l].out = one;
    }
    return to;
}

/* t: [heads,width,width], with each block a multiple of the identity. */
static mb_tensor diagonals(mb_tensor t)
{
    int64_t heads = mb_dim(t, 0), m = mb_dim(t, 1) / SLOTS;
    mb_tensor one = mb_eye(t.ctx, MB_FLOAT32, m);
    mb_tensor blocks = mb_permute(mb_reshape(t, MB_SHAPE(heads, SLOTS, m, SLOTS, m)), MB_AXES(0, 1, 3, 2, 4));
    mb_tensor mean = mb_mul(mb_sum(mb_mul(blocks, one), MB_KEEP(3, 4)), 1.0 / (double)m);
    return mb_reshape(mb_permute(mb_mul(mean, one), MB_AXES(0, 1, 3, 2, 4)), mb_shape_of(t));
}

network compressed(const network *products)
{
    network to = *products;
    for (int l = 0; l < to.layers; l++) {
        to.layer[l].query = diagonals(to.layer[l].query);
        to.layer[l].value = diagonals(to.layer[l].value);
    }
    return to;
}

network halfway(const network *a, const network *b)
{
    network to = *a;
    for (int l = 0; l < to.layers; l++) {
        to.layer[l].query = mb_mul(mb_add(a->layer[l].query, b->layer[l].query), 0.5);
        to.layer[l].value = mb_mul(mb_add(a->layer[l].value, b->layer[l].value), 0.5);
    }
    return to;
}
