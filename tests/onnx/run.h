/* SPDX-License-Identifier: MIT
 *
 * run.h - a graph of ONNX nodes recorded as ops of Moebius, node by node.
 *
 * Types. float32, float64, int32 and bool are what they are. Other integers are carried in int32: where a
 * number does not fit, the tensor is left out (t is no tensor) and only its numbers in the file are there,
 * as for the end of a slice. float16 and bfloat16 are carried in float32, for ops that do not round.
 *
 * What cannot be carried, or has no counterpart, is left with a reason (leave), and counted. */
#ifndef ONNX_RUN_H
#define ONNX_RUN_H

#include "model.h"

#include <moebius.h>

typedef struct value {
    enum { VALUE_NONE = 0, VALUE_TENSOR, VALUE_SEQUENCE } kind;
    mb_tensor t;
    int elem;                 /* the type in ONNX; t has the one that carries it */
    const tensor_proto *file; /* the numbers, where they stood in a file */
    struct value *items;      /* of a sequence */
    int count;
} value;

/* Names of a graph; those of the graph around it are seen from within. */
typedef struct names {
    struct named {
        const char *name;
        value value;
    } * entries;
    int count, capacity;
    const struct names *outer;
} names;

typedef struct run {
    mb_context *mb;
    arena *memory;
    const model_proto *model;
    names *names;        /* of the graph that is recorded now */
    const char *reason;  /* why the case is left out, or NULL */
    const char *left_op; /* the op that it is left out for */
    bool rounds;         /* an op was recorded whose result may be rounded: outputs are not exact */
} run;

/* An application of an op. Inputs left out have no kind; outputs are filled in by give. */
typedef struct call {
    run *run;
    mb_context *mb;
    const node_proto *node;
    int64_t opset;
    value *in, *out;
    int n_in, n_out;
} call;

typedef struct op {
    const char *name;
    void (*apply)(call *c);
    bool exact; /* moves, compares, selects or counts: the result has no rounding */
} op;

/* Tables, closed by a row without a name. */
extern const op elementwise_ops[], integer_ops[], movement_ops[], shape_ops[], index_ops[], select_ops[],
    reduce_ops[], matrix_ops[], convolution_ops[], pooling_ops[], norm_ops[], loss_ops[], recurrent_ops[],
    resize_ops[], sample_ops[], signal_ops[], quantize_ops[], training_ops[], control_ops[], sequence_ops[],
    absent_ops[];

/* ---- running ---- */

value value_of(run *r, const data *d);
/* The value of an input of the model. Where the file has another type than the model says (bfloat16 as the
 * uint16 of its bits), it is of the model's type and not carried. */
value input_value(run *r, const data *d, const port *p);
value tensor_value(run *r, const tensor_proto *t);
/* Records a graph whose inputs are given; outputs has room for all of them. False when the case is left, or
 * the library has reported an error. */
bool run_graph(run *r, const graph_proto *g, const value *inputs, int n_inputs, value *outputs);
/* The value of a name; none where the name is not known. */
value named(const run *r, const char *name);
/* The dtype that carries a type of ONNX; false where none does. */
bool carrier(int elem, mb_dtype *dtype);

/* ---- what an op has at hand ---- */

/* Leaves the case out; the first reason is kept. Returns no tensor. */
mb_tensor leave(call *c, const char *reason);
bool has(const call *c, int i);
/* The i-th input as a tensor; one left out or not carried leaves the case. */
mb_tensor input(call *c, int i);
int elem_of(const call *c, int i);
/* The i-th input's numbers, on the host. */
int64_t *host_ints(call *c, int i, int *n);
double *host_reals(call *c, int i, int *n);
int64_t host_int(call *c, int i, int64_t otherwise);
double host_real(call *c, int i, double otherwise);
/* The numbers of a tensor, computed. */
double *read_reals(call *c, mb_tensor t);

/* The i-th output, of the first input's type where that is carried by t's dtype; or of the type given. */
void give(call *c, int i, mb_tensor t);
void give_as(call *c, int i, mb_tensor t, int elem);
void give_value(call *c, int i, value v);
bool wanted(const call *c, int i);

const attribute_proto *attribute(const call *c, const char *name);
int64_t attribute_int(const call *c, const char *name, int64_t otherwise);
double attribute_float(const call *c, const char *name, double otherwise);
const char *attribute_text(const call *c, const char *name, const char *otherwise);
bool attribute_is(const call *c, const char *name, const char *text, const char *otherwise);
/* NULL where it is not there. */
const int64_t *attribute_ints(const call *c, const char *name, int *n);
/* Axes, from an attribute or from the i-th input, which newer versions of an op have. -1 in count: all. */
mb_axes axes_from(call *c, const char *name, int i);
/* An axis from 0 on: those below 0 count from the last. */
int axis_of(int64_t axis, int rank);

#endif
