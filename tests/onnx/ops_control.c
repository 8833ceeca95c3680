/* SPDX-License-Identifier: MIT
 *
 * ops_control.c - graphs within graphs: branches are taken and loops are unrolled while they are recorded,
 * with conditions read on the host; as a user writes `if` and `for`. */
#include "compose.h"

static const graph_proto *body_of(call *c, const char *name)
{
    const attribute_proto *a = attribute(c, name);
    return a && a->g ? a->g : NULL;
}

static bool holds(call *c, value v)
{
    if (v.kind != VALUE_TENSOR)
        return true; /* a condition left out */
    if (v.file && v.file->whole)
        return v.file->whole[0] != 0;
    return *read_reals(c, v.t) != 0;
}

static void if_op(call *c)
{
    const graph_proto *g = body_of(c, has(c, 0) && holds(c, c->in[0]) ? "then_branch" : "else_branch");
    if (g && g->n_outputs >= c->n_out)
        run_graph(c->run, g, NULL, 0, c->out);
}

/* ---- what an iteration leaves, one after another ---- */

enum { MAX_STEPS = 256, MAX_SCANS = 8 };

typedef struct scans {
    int count, steps;
    mb_tensor values[MAX_SCANS][MAX_STEPS];
    int elem[MAX_SCANS];
} scans;

static void keep_scans(scans *s, const value *outputs, int count)
{
    s->count = count < MAX_SCANS ? count : MAX_SCANS;
    for (int k = 0; k < s->count; k++) {
        s->values[k][s->steps] = outputs[k].t;
        s->elem[k] = outputs[k].elem;
    }
    s->steps++;
}

static void give_scans(call *c, const scans *s, int first)
{
    for (int k = 0; k < s->count && s->steps > 0; k++)
        give_as(c, first + k, mb_stack(s->values[k], s->steps, 0), s->elem[k]);
}

/* ---- Loop ---- */

/* Inputs: the most trips, the condition, what is carried. The body takes the trip's number, the condition and
 * what is carried; it gives the next condition, what is carried, and the scans. */
static void loop_op(call *c)
{
    const graph_proto *g = body_of(c, "body");
    int carried = c->n_in - 2;
    if (!g || carried < 0)
        return;
    int64_t most = has(c, 0) ? host_int(c, 0, 0) : MAX_STEPS;
    if (most > MAX_STEPS)
        most = MAX_STEPS;
    scans *s = ARENA_NEW(c->run->memory, scans, 1);
    value *in = ARENA_NEW(c->run->memory, value, carried + 2),
          *out = ARENA_NEW(c->run->memory, value, g->n_outputs);
    for (int i = 0; i < carried + 1; i++)
        in[1 + i] = c->in[1 + i];
    for (int64_t trip = 0; trip < most && holds(c, in[1]); trip++) {
        in[0] = (value){.kind = VALUE_TENSOR, .elem = ELEM_INT64, .t = ints(c, MB_SHAPE0, &trip)};
        if (!run_graph(c->run, g, in, carried + 2, out))
            return;
        for (int i = 0; i < carried + 1; i++)
            in[1 + i] = out[i];
        keep_scans(s, out + 1 + carried, g->n_outputs - 1 - carried);
    }
    for (int i = 0; i < carried; i++)
        give_value(c, i, in[2 + i]);
    give_scans(c, s, carried);
}

/* ---- Scan ---- */

/* From `first` on the call's inputs are states, then what is scanned along its first axis. */
static void scan_rows(call *c, const graph_proto *g, const value *inputs, int states, int scanned)
{
    scans *s = ARENA_NEW(c->run->memory, scans, 1);
    value *in = ARENA_NEW(c->run->memory, value, states + scanned);
    value *out = ARENA_NEW(c->run->memory, value, g->n_outputs);
    for (int i = 0; i < states; i++)
        in[i] = inputs[i];
    int64_t steps = mb_dim(inputs[states].t, 0);
    for (int64_t t = 0; t < steps && t < MAX_STEPS; t++) {
        for (int i = states; i < states + scanned; i++) {
            in[i] = inputs[i];
            in[i].t = mb_squeeze(mb_slice(inputs[i].t, 0, t, 1, 1), 0);
        }
        if (!run_graph(c->run, g, in, states + scanned, out))
            return;
        for (int i = 0; i < states; i++)
            in[i] = out[i];
        keep_scans(s, out + states, g->n_outputs - states);
    }
    for (int i = 0; i < states; i++)
        give_value(c, i, in[i]);
    give_scans(c, s, states);
}

/* Version 8 has lengths as its first input and a batch as the first axis of all others: of one row here. */
static void scan_op(call *c)
{
    const graph_proto *g = body_of(c, "body");
    bool batched = c->opset < 9;
    int first = batched ? 1 : 0, count = c->n_in - first,
        scanned = (int)attribute_int(c, "num_scan_inputs", 0);
    if (!g || scanned < 1 || scanned > count)
        return;
    value *inputs = ARENA_NEW(c->run->memory, value, count);
    for (int i = 0; i < count; i++) {
        inputs[i] = c->in[first + i];
        inputs[i].t = input(c, first + i);
        if (batched && mb_dim(inputs[i].t, 0) != 1) {
            leave(c, "a batch of scans");
            return;
        }
        inputs[i].t = batched ? mb_squeeze(inputs[i].t, 0) : inputs[i].t;
    }
    scan_rows(c, g, inputs, count - scanned, scanned);
    for (int i = 0; batched && i < c->n_out; i++)
        c->out[i].t = mb_unsqueeze(c->out[i].t, 0);
}

const op control_ops[] = {
    {"If", if_op, true},
    {"Loop", loop_op, true},
    {"Scan", scan_op, true},
    {0},
};
