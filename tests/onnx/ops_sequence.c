/* SPDX-License-Identifier: MIT
 *
 * ops_sequence.c - sequences and optional values: arrays of handles on the host; and what is left out. */
#include "compose.h"

#include <string.h>

static value sequence(call *c, int count)
{
    return (value){.kind = VALUE_SEQUENCE, .count = count, .items = ARENA_NEW(c->run->memory, value, count)};
}

static bool items_of(call *c, int i, value *out)
{
    if (!has(c, i) || c->in[i].kind != VALUE_SEQUENCE) {
        leave(c, "no sequence");
        return false;
    }
    *out = c->in[i];
    return true;
}

static void sequence_empty_op(call *c)
{
    give_value(c, 0, sequence(c, 0));
}

static void sequence_construct_op(call *c)
{
    value s = sequence(c, c->n_in);
    for (int i = 0; i < c->n_in; i++)
        s.items[i] = c->in[i];
    give_value(c, 0, s);
}

static void sequence_length_op(call *c)
{
    value s;
    if (items_of(c, 0, &s))
        give_as(c, 0, ints(c, MB_SHAPE0, (int64_t[]){s.count}), ELEM_INT64);
}

/* A position counts from the end where it is negative. */
static int position(call *c, int i, int count, int otherwise)
{
    int64_t at = host_int(c, i, otherwise);
    at = at < 0 ? at + count : at;
    return at < 0 ? 0 : at > count ? count : (int)at;
}

static void sequence_at_op(call *c)
{
    value s;
    if (!items_of(c, 0, &s))
        return;
    int at = position(c, 1, s.count, 0);
    if (at < s.count)
        give_value(c, 0, s.items[at]);
}

static void sequence_insert_op(call *c)
{
    value s;
    if (!items_of(c, 0, &s))
        return;
    value longer = sequence(c, s.count + 1);
    int at = position(c, 2, s.count, s.count);
    for (int i = 0; i < longer.count; i++)
        longer.items[i] = i == at ? c->in[1] : s.items[i < at ? i : i - 1];
    give_value(c, 0, longer);
}

static void sequence_erase_op(call *c)
{
    value s;
    if (!items_of(c, 0, &s) || s.count == 0)
        return;
    value shorter = sequence(c, s.count - 1);
    int at = position(c, 1, s.count, s.count - 1);
    for (int i = 0; i < shorter.count; i++)
        shorter.items[i] = s.items[i < at ? i : i + 1];
    give_value(c, 0, shorter);
}

static void concat_from_sequence_op(call *c)
{
    value s;
    if (!items_of(c, 0, &s) || s.count == 0)
        return;
    mb_tensor *parts = ARENA_NEW(c->run->memory, mb_tensor, s.count);
    for (int i = 0; i < s.count; i++)
        parts[i] = s.items[i].t;
    int axis = (int)attribute_int(c, "axis", 0);
    mb_tensor y =
        attribute_int(c, "new_axis", 0) ? mb_stack(parts, s.count, axis) : mb_concat(parts, s.count, axis);
    give_as(c, 0, y, s.items[0].elem);
}

/* Parts of given sizes, or all of one size (1 without an input, whose axis then goes). */
static void split_to_sequence_op(call *c)
{
    mb_tensor x = input(c, 0);
    int n = 0, axis = axis_of(attribute_int(c, "axis", 0), mb_shape_of(x).rank);
    const int64_t *sizes = has(c, 1) ? host_ints(c, 1, &n) : NULL;
    int64_t size = mb_dim(x, axis), each = sizes && n == 1 ? sizes[0] : 1, start = 0;
    bool listed = n > 1, squeeze = !sizes && !attribute_int(c, "keepdims", 1);
    value s = sequence(c, listed ? n : (int)((size + each - 1) / each));
    for (int i = 0; i < s.count; i++) {
        int64_t count = listed ? sizes[i] : size - start < each ? size - start : each;
        mb_tensor part = mb_slice(x, axis, start, count, 1);
        s.items[i] = (value){
            .kind = VALUE_TENSOR, .elem = elem_of(c, 0), .t = squeeze ? mb_squeeze(part, axis) : part};
        start += count;
    }
    give_value(c, 0, s);
}

/* The body for each item of the first sequence, and of the others; a tensor is the same for all. */
static void sequence_map_op(call *c)
{
    const attribute_proto *body = attribute(c, "body");
    value first;
    if (!body || !body->g || !items_of(c, 0, &first))
        return;
    const graph_proto *g = body->g;
    value *in = ARENA_NEW(c->run->memory, value, c->n_in),
          *out = ARENA_NEW(c->run->memory, value, g->n_outputs);
    for (int k = 0; k < c->n_out; k++)
        give_value(c, k, sequence(c, first.count));
    for (int i = 0; i < first.count; i++) {
        for (int k = 0; k < c->n_in; k++)
            in[k] = c->in[k].kind == VALUE_SEQUENCE ? c->in[k].items[i] : c->in[k];
        if (!run_graph(c->run, g, in, c->n_in, out))
            return;
        for (int k = 0; k < c->n_out && k < g->n_outputs; k++)
            c->out[k].items[i] = out[k];
    }
}

/* ---- optional values: a value, or none ---- */

static void optional_op(call *c)
{
    give_value(c, 0, has(c, 0) ? c->in[0] : (value){0});
}

static void optional_has_op(call *c)
{
    uint8_t there = has(c, 0);
    give_as(c, 0, mb_from(c->mb, MB_BOOL, MB_SHAPE0, &there), ELEM_BOOL);
}

const op sequence_ops[] = {
    {"ConcatFromSequence", concat_from_sequence_op, true},
    {"Optional", optional_op, true},
    {"OptionalGetElement", optional_op, true},
    {"OptionalHasElement", optional_has_op, true},
    {"SequenceAt", sequence_at_op, true},
    {"SequenceConstruct", sequence_construct_op, true},
    {"SequenceEmpty", sequence_empty_op, true},
    {"SequenceErase", sequence_erase_op, true},
    {"SequenceInsert", sequence_insert_op, true},
    {"SequenceLength", sequence_length_op, true},
    {"SequenceMap", sequence_map_op, true},
    {"SplitToSequence", split_to_sequence_op, true},
    {0},
};

/* ---- left out ---- */

static void strings_op(call *c)
{
    leave(c, elem_name(ELEM_STRING));
}

/* The draws of a case are those of the generator that made it. */
static void random_op(call *c)
{
    leave(c, "random draws");
}

const op absent_ops[] = {
    {"Bernoulli", random_op, false},
    {"RandomUniformLike", random_op, false},
    {"StringNormalizer", strings_op, false},
    {0},
};
