/* SPDX-License-Identifier: MIT
 *
 * model.h - what ONNX files say, in structs: models, and the values of test data. Field numbers are those of
 * onnx.proto3 (github.com/onnx/onnx); what the cases do not have is left out.
 *
 * Everything lives in the arena given. */
#ifndef ONNX_MODEL_H
#define ONNX_MODEL_H

#include "arena.h"
#include "wire.h"

/* TensorProto.DataType */
enum {
    ELEM_NONE = 0,
    ELEM_FLOAT,
    ELEM_UINT8,
    ELEM_INT8,
    ELEM_UINT16,
    ELEM_INT16,
    ELEM_INT32,
    ELEM_INT64,
    ELEM_STRING,
    ELEM_BOOL,
    ELEM_FLOAT16,
    ELEM_DOUBLE,
    ELEM_UINT32,
    ELEM_UINT64,
    ELEM_COMPLEX64,
    ELEM_COMPLEX128,
    ELEM_BFLOAT16,
};

const char *elem_name(int elem);
bool elem_is_float(int elem); /* of 16, 32 or 64 bits */

enum { MAX_DIMS = 16 };

typedef struct tensor_proto {
    const char *name;
    int elem;
    int rank;
    int64_t dim[MAX_DIMS];
    int64_t count;
    double *real;   /* [count] of float types, which double holds exactly */
    int64_t *whole; /* [count] of integers and bool; uint64 as int64 of the same bits */
} tensor_proto;

/* A value of test data: nothing, a tensor, or a sequence of values. */
typedef struct data {
    enum { DATA_NONE = 0, DATA_TENSOR, DATA_SEQUENCE } kind;
    tensor_proto *tensor;
    struct data *items;
    int count;
} data;

typedef enum form { FORM_TENSOR = 0, FORM_SEQUENCE, FORM_OPTIONAL } form;

typedef struct graph_proto graph_proto;

typedef struct attribute_proto {
    const char *name;
    float f;
    int64_t i;
    const char *s;
    tensor_proto *t;
    graph_proto *g;
    float *floats;
    int64_t *ints;
    const char **strings;
    int n_floats, n_ints, n_strings;
} attribute_proto;

typedef struct node_proto {
    const char *op, *domain;
    const char **inputs, **outputs; /* "": left out */
    attribute_proto *attributes;
    int n_inputs, n_outputs, n_attributes;
} node_proto;

typedef struct port {
    const char *name;
    form form;
    int elem; /* of a tensor; ELEM_NONE: not said */
} port;

struct graph_proto {
    node_proto *nodes;
    tensor_proto **initializers;
    port *inputs, *outputs;
    int n_nodes, n_initializers, n_inputs, n_outputs;
};

typedef struct model_proto {
    graph_proto *graph;
    int64_t opset, training_opset; /* of the default domain, and of ai.onnx.preview.training; 0: none */
} model_proto;

/* The content of a file; false, and why, where it cannot be read. */
bool read_bytes(arena *a, const char *path, wire *out, const char **why);
/* NULL, and why, where it is not what it should be. */
tensor_proto *parse_tensor(arena *a, wire w, const char **why);
model_proto *parse_model(arena *a, wire w, const char **why);
bool parse_data(arena *a, wire w, form form, data *out, const char **why);

#endif
