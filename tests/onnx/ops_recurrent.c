/* SPDX-License-Identifier: MIT
 *
 * ops_recurrent.c - RNN, GRU and LSTM, unrolled in time: forward, with the default activations. */
#include "compose.h"

/* A layer that runs. Letters: T steps, B sequences, I inputs, H hidden, G gates of H rows each. */
typedef struct layer {
    int gates;
    mb_tensor x;       /* [T, B, I] */
    mb_tensor w, r;    /* [G H, I], [G H, H] */
    mb_tensor wb, rb;  /* [G H] each; no tensors where there is no bias */
    mb_tensor lengths; /* int32 [B], or no tensor */
    mb_tensor h, c;    /* [B, H]: the state; c of the LSTM */
    mb_tensor peepholes;
    int64_t hidden;
    bool batch_first;
} layer;

static mb_tensor without_direction(mb_tensor t)
{
    return mb_squeeze(t, 0);
}

/* A state is [1, B, H], or [B, 1, H]; zeros where none is given. */
static mb_tensor state(call *c, const layer *l, int i)
{
    if (has(c, i))
        return mb_squeeze(input(c, i), l->batch_first ? 1 : 0);
    return mb_zeros(c->mb, mb_dtype_of(l->x), MB_SHAPE(mb_dim(l->x, 1), l->hidden));
}

static bool open_layer(call *c, layer *l, int gates)
{
    mb_tensor x = input(c, 0), w = input(c, 1), r = input(c, 2);
    if (!x.ctx || !w.ctx || !r.ctx)
        return false;
    if (!attribute_is(c, "direction", "forward", "forward") || attribute(c, "activations") ||
        attribute(c, "clip") || attribute_int(c, "input_forget", 0)) {
        leave(c, "another direction, other activations or a clip");
        return false;
    }
    *l = (layer){.gates = gates, .w = without_direction(w), .r = without_direction(r)};
    l->batch_first = attribute_int(c, "layout", 0) != 0;
    l->x = l->batch_first ? moved(x, 1, 0) : x;
    l->hidden = mb_dim(l->r, 1);
    if (has(c, 3)) {
        mb_tensor bias = without_direction(input(c, 3));
        l->wb = mb_slice(bias, 0, 0, gates * l->hidden, 1);
        l->rb = mb_slice(bias, 0, gates * l->hidden, gates * l->hidden, 1);
    }
    if (has(c, 4))
        l->lengths = input(c, 4);
    l->h = state(c, l, 5);
    return true;
}

/* Rows of a gate. */
static mb_tensor gate(const layer *l, mb_tensor t, int g)
{
    return mb_slice(t, 0, g * l->hidden, l->hidden, 1);
}

/* x W_g^T + bias */
static mb_tensor from_input(const layer *l, mb_tensor x, int g)
{
    mb_tensor y = mb_matmul(x, mb_transpose(gate(l, l->w, g)));
    return l->wb.ctx ? mb_add(y, gate(l, l->wb, g)) : y;
}

/* h R_g^T + bias */
static mb_tensor from_state(const layer *l, mb_tensor h, int g)
{
    mb_tensor y = mb_matmul(h, mb_transpose(gate(l, l->r, g)));
    return l->rb.ctx ? mb_add(y, gate(l, l->rb, g)) : y;
}

static mb_tensor both(const layer *l, mb_tensor x, int g)
{
    return mb_add(from_input(l, x, g), from_state(l, l->h, g));
}

static void rnn_step(call *c, layer *l, mb_tensor x)
{
    (void)c;
    l->h = mb_tanh(both(l, x, 0));
}

static void gru_step(call *c, layer *l, mb_tensor x)
{
    mb_tensor z = mb_sigmoid(both(l, x, 0)), r = mb_sigmoid(both(l, x, 1)), n;
    if (attribute_int(c, "linear_before_reset", 0))
        n = mb_mul(r, from_state(l, l->h, 2));
    else
        n = from_state(l, mb_mul(r, l->h), 2);
    n = mb_tanh(mb_add(from_input(l, x, 2), n));
    l->h = mb_add(mb_mul(mb_sub(1.0, z), n), mb_mul(z, l->h));
}

/* Gates in the order input, output, forget, cell; peepholes are of the first three. */
static mb_tensor lstm_gate(const layer *l, mb_tensor x, int g, mb_tensor cell)
{
    mb_tensor y = both(l, x, g);
    return mb_sigmoid(l->peepholes.ctx ? mb_add(y, mb_mul(gate(l, l->peepholes, g), cell)) : y);
}

static void lstm_step(call *c, layer *l, mb_tensor x)
{
    (void)c;
    mb_tensor i = lstm_gate(l, x, 0, l->c), f = lstm_gate(l, x, 2, l->c), n = mb_tanh(both(l, x, 3));
    mb_tensor cell = mb_add(mb_mul(f, l->c), mb_mul(i, n));
    l->h = mb_mul(lstm_gate(l, x, 1, cell), mb_tanh(cell));
    l->c = cell;
}

/* Sequences that have ended keep their state, and their later outputs are 0. */
static mb_tensor masked(layer *l, int64_t t, mb_tensor old_h, mb_tensor old_c)
{
    if (!l->lengths.ctx)
        return l->h;
    mb_tensor runs = mb_unsqueeze(mb_lt(literal_like(l->lengths, (double)t), l->lengths), 1);
    mb_tensor out = mb_where(runs, l->h, literal_like(l->h, 0));
    l->h = mb_where(runs, l->h, old_h);
    if (l->c.ctx)
        l->c = mb_where(runs, l->c, old_c);
    return out;
}

/* [B, H] as an output: with the direction's axis. */
static mb_tensor directed(const layer *l, mb_tensor state)
{
    return mb_unsqueeze(state, l->batch_first ? 1 : 0);
}

static void unroll(call *c, layer *l, void (*step)(call *c, layer *l, mb_tensor x))
{
    int64_t steps = mb_dim(l->x, 0);
    mb_tensor *ys = ARENA_NEW(c->run->memory, mb_tensor, steps);
    for (int64_t t = 0; t < steps; t++) {
        mb_tensor old_h = l->h, old_c = l->c;
        step(c, l, mb_squeeze(mb_slice(l->x, 0, t, 1, 1), 0));
        ys[t] = masked(l, t, old_h, old_c);
    }
    mb_tensor y = mb_unsqueeze(mb_stack(ys, (int)steps, 0), 1); /* [T, 1, B, H] */
    give(c, 0, l->batch_first ? mb_permute(y, MB_AXES(2, 0, 1, 3)) : y);
    give(c, 1, directed(l, l->h));
    if (l->c.ctx)
        give(c, 2, directed(l, l->c));
}

static void rnn_op(call *c)
{
    layer l;
    if (open_layer(c, &l, 1))
        unroll(c, &l, rnn_step);
}

static void gru_op(call *c)
{
    layer l;
    if (open_layer(c, &l, 3))
        unroll(c, &l, gru_step);
}

static void lstm_op(call *c)
{
    layer l;
    if (!open_layer(c, &l, 4))
        return;
    l.c = state(c, &l, 6);
    if (has(c, 7))
        l.peepholes = without_direction(input(c, 7));
    unroll(c, &l, lstm_step);
}

const op recurrent_ops[] = {
    {"GRU", gru_op, false},
    {"LSTM", lstm_op, false},
    {"RNN", rnn_op, false},
    {0},
};
