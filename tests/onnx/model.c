/* SPDX-License-Identifier: MIT
 *
 * model.c - ModelProto down to AttributeProto, and the files of test data. */
#include "model.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

bool read_bytes(arena *a, const char *path, wire *out, const char **why)
{
    FILE *file = fopen(path, "rb");
    *why = file ? "cannot be read" : strerror(errno);
    if (!file)
        return false;
    bool ok = fseek(file, 0, SEEK_END) == 0;
    long size = ftell(file);
    if (ok && size >= 0) {
        rewind(file);
        void *bytes = arena_take(a, (size_t)size, 1);
        ok = fread(bytes, 1, (size_t)size, file) == (size_t)size;
        *out = wire_of(bytes, (size_t)size);
    }
    fclose(file);
    return ok && size >= 0;
}

static const char *text_of(arena *a, field f)
{
    return arena_text(a, f.bytes.at, wire_left(f.bytes));
}

/* How often a field occurs, numbers of packed ones one by one. */
static int occurrences(wire w, uint32_t number, int packed_type)
{
    size_t n = 0;
    for (field f; wire_next(&w, &f);)
        if (f.number == number)
            n += packed_type >= 0 ? wire_numbers(f, packed_type) : 1;
    return (int)n;
}

static graph_proto *parse_graph(arena *a, wire w, const char **why);

static void add_ints(attribute_proto *out, field f)
{
    if (f.type != WIRE_BYTES)
        out->ints[out->n_ints++] = (int64_t)f.bits;
    for (uint64_t bits; f.type == WIRE_BYTES && wire_packed(&f.bytes, WIRE_VARINT, &bits);)
        out->ints[out->n_ints++] = (int64_t)bits;
}

static void add_floats(attribute_proto *out, field f)
{
    if (f.type != WIRE_BYTES)
        out->floats[out->n_floats++] = wire_float(f.bits);
    for (uint64_t bits; f.type == WIRE_BYTES && wire_packed(&f.bytes, WIRE_32, &bits);)
        out->floats[out->n_floats++] = wire_float(bits);
}

static bool attribute_field(arena *a, attribute_proto *out, field f, const char **why)
{
    switch (f.number) {
    case 1:
        out->name = text_of(a, f);
        return true;
    case 2:
        out->f = wire_float(f.bits);
        return true;
    case 3:
        out->i = (int64_t)f.bits;
        return true;
    case 4:
        out->s = text_of(a, f);
        return true;
    case 5:
        out->t = parse_tensor(a, f.bytes, why);
        return out->t != NULL;
    case 6:
        out->g = parse_graph(a, f.bytes, why);
        return out->g != NULL;
    case 7:
        add_floats(out, f);
        return true;
    case 8:
        add_ints(out, f);
        return true;
    case 9:
        out->strings[out->n_strings++] = text_of(a, f);
        return true;
    default:
        return true;
    }
}

static bool parse_attribute(arena *a, wire w, attribute_proto *out, const char **why)
{
    *out = (attribute_proto){.name = ""};
    out->floats = ARENA_NEW(a, float, occurrences(w, 7, WIRE_32));
    out->ints = ARENA_NEW(a, int64_t, occurrences(w, 8, WIRE_VARINT));
    out->strings = ARENA_NEW(a, const char *, occurrences(w, 9, -1));
    for (field f; wire_next(&w, &f);)
        if (!attribute_field(a, out, f, why))
            return false;
    return !w.bad;
}

static bool parse_node(arena *a, wire w, node_proto *out, const char **why)
{
    *out = (node_proto){.op = "", .domain = ""};
    out->inputs = ARENA_NEW(a, const char *, occurrences(w, 1, -1));
    out->outputs = ARENA_NEW(a, const char *, occurrences(w, 2, -1));
    out->attributes = ARENA_NEW(a, attribute_proto, occurrences(w, 5, -1));
    for (field f; wire_next(&w, &f);) {
        if (f.number == 1)
            out->inputs[out->n_inputs++] = text_of(a, f);
        if (f.number == 2)
            out->outputs[out->n_outputs++] = text_of(a, f);
        if (f.number == 4)
            out->op = text_of(a, f);
        if (f.number == 7)
            out->domain = text_of(a, f);
        if (f.number == 5 && !parse_attribute(a, f.bytes, &out->attributes[out->n_attributes++], why))
            return false;
    }
    return !w.bad;
}

/* TypeProto: which of its fields is there says the form; TypeProto.Tensor has the type of its elements. */
static void parse_type(wire w, port *p)
{
    for (field f; wire_next(&w, &f);) {
        if (f.number == 4)
            p->form = FORM_SEQUENCE;
        if (f.number == 9)
            p->form = FORM_OPTIONAL;
        for (field t; f.number == 1 && wire_next(&f.bytes, &t);)
            if (t.number == 1)
                p->elem = (int)t.bits;
    }
}

static port parse_port(arena *a, wire w)
{
    port p = {.name = ""};
    for (field f; wire_next(&w, &f);) {
        if (f.number == 1)
            p.name = text_of(a, f);
        if (f.number == 2)
            parse_type(f.bytes, &p);
    }
    return p;
}

static bool graph_field(arena *a, graph_proto *g, field f, const char **why)
{
    switch (f.number) {
    case 1:
        return parse_node(a, f.bytes, &g->nodes[g->n_nodes++], why);
    case 5: {
        tensor_proto *t = parse_tensor(a, f.bytes, why);
        g->initializers[g->n_initializers++] = t;
        return t != NULL;
    }
    case 11:
        g->inputs[g->n_inputs++] = parse_port(a, f.bytes);
        return true;
    case 12:
        g->outputs[g->n_outputs++] = parse_port(a, f.bytes);
        return true;
    default:
        return true;
    }
}

static graph_proto *parse_graph(arena *a, wire w, const char **why)
{
    graph_proto *g = ARENA_NEW(a, graph_proto, 1);
    g->nodes = ARENA_NEW(a, node_proto, occurrences(w, 1, -1));
    g->initializers = ARENA_NEW(a, tensor_proto *, occurrences(w, 5, -1));
    g->inputs = ARENA_NEW(a, port, occurrences(w, 11, -1));
    g->outputs = ARENA_NEW(a, port, occurrences(w, 12, -1));
    *why = "not a GraphProto";
    for (field f; wire_next(&w, &f);)
        if (!graph_field(a, g, f, why))
            return NULL;
    return w.bad ? NULL : g;
}

/* OperatorSetIdProto: domain and version. */
static void add_opset(arena *a, model_proto *m, wire w)
{
    const char *domain = "";
    int64_t version = 0;
    for (field f; wire_next(&w, &f);) {
        if (f.number == 1)
            domain = text_of(a, f);
        if (f.number == 2)
            version = (int64_t)f.bits;
    }
    if (strcmp(domain, "") == 0 || strcmp(domain, "ai.onnx") == 0)
        m->opset = version;
    else if (strcmp(domain, "ai.onnx.preview.training") == 0)
        m->training_opset = version;
}

model_proto *parse_model(arena *a, wire w, const char **why)
{
    model_proto *m = ARENA_NEW(a, model_proto, 1);
    *why = "not a ModelProto";
    for (field f; wire_next(&w, &f);) {
        if (f.number == 7 && !(m->graph = parse_graph(a, f.bytes, why)))
            return NULL;
        if (f.number == 8)
            add_opset(a, m, f.bytes);
    }
    return w.bad || !m->graph ? NULL : m;
}

static bool parse_sequence(arena *a, wire w, data *out, const char **why)
{
    *out = (data){.kind = DATA_SEQUENCE};
    out->items = ARENA_NEW(a, data, occurrences(w, 3, -1) + occurrences(w, 5, -1));
    for (field f; wire_next(&w, &f);) {
        form inner = f.number == 5 ? FORM_SEQUENCE : FORM_TENSOR;
        if ((f.number == 3 || f.number == 5) &&
            !parse_data(a, f.bytes, inner, &out->items[out->count++], why))
            return false;
    }
    return !w.bad;
}

static bool parse_optional(arena *a, wire w, data *out, const char **why)
{
    *out = (data){.kind = DATA_NONE};
    for (field f; wire_next(&w, &f);) {
        if (f.number == 3)
            return parse_data(a, f.bytes, FORM_TENSOR, out, why);
        if (f.number == 5)
            return parse_data(a, f.bytes, FORM_SEQUENCE, out, why);
    }
    return !w.bad;
}

bool parse_data(arena *a, wire w, form form, data *out, const char **why)
{
    *why = "not a value of that form";
    if (form == FORM_SEQUENCE)
        return parse_sequence(a, w, out, why);
    if (form == FORM_OPTIONAL)
        return parse_optional(a, w, out, why);
    *out = (data){.kind = DATA_TENSOR, .tensor = parse_tensor(a, w, why)};
    return out->tensor != NULL;
}
