/* SPDX-License-Identifier: MIT
 *
 * program.h - random programs: a list of instructions that any context can record, made from a seed.
 * program.c and graph.c make them, program_run.c records, runs and prints them, fuzz_test.c compares and
 * shrinks. */
#ifndef MB_TESTS_PROGRAM_H
#define MB_TESTS_PROGRAM_H

#include "support.h"

enum kind {
    /* leaves */
    K_BUFFER,
    K_VARIABLE,
    K_SCALAR,
    K_FULL, /* number */
    K_IOTA,
    K_UNIFORM,
    K_NORMAL,
    K_TRIL,
    /* elementwise; par[0] chooses */
    K_UNARY,
    K_BINARY,
    K_FUNCTION,
    K_COMPARE,
    K_LOGIC,
    K_WHERE,
    K_CAST,
    /* movement */
    K_RESHAPE,
    K_PERMUTE,
    K_BROADCAST,
    K_SLICE,
    K_PAD,
    K_WINDOWS, /* folded again; par: axis, size, stride, dilation */
    K_CONCAT,
    K_STACK,
    /* reductions */
    K_SUM,
    K_MEAN,
    K_MAX,
    K_MIN,
    K_VARIANCE,
    K_LOGSUMEXP,
    K_ARGMAX,
    K_CUMSUM,
    K_SOFTMAX,
    /* contractions and indexing */
    K_MATMUL,
    K_EINSUM,
    K_TAKE,
    K_SCATTER_ADD,
    K_TAKE_ALONG,
    K_ARGSORT,
    K_ONE_HOT,
    /* identities */
    K_ALIAS,
    K_STOP,
    K_KINDS,          /* of program_make; the rest is made by program_make_graph alone */
    K_SCAN = K_KINDS, /* carry, slices, capture; par: which body, backwards, which result, keep_every */
    K_CHECKPOINT,     /* of two values; par: which body, whether products are kept */
    K_VMAP,           /* over an axis; par: axis, which body */
    K_CUSTOM,         /* par: 0 elementwise, 1 of the last axis */
    K_WIDE,           /* computed in a wider dtype */
    K_ALL_KINDS
};

typedef struct instr {
    int kind, nin, in[3];
    mb_dtype dtype;
    mb_shape shape;  /* of the result */
    mb_shape target; /* reshape, broadcast, leaves */
    mb_axes axes;
    int64_t par[4];
    double number;
    char equation[24];
} instr;

#define PROGRAM_MOST 96
#define OUTPUTS_MOST 6

enum derivative { D_NONE, D_GRAD, D_GRAD2, D_JVP, D_HVP, D_VJP, D_GRAD3, D_KINDS };

typedef struct program {
    uint64_t seed;
    mb_dtype dtype; /* of its floats */
    mb_dtype data;  /* what leaves are rounded to first; float32 where they are not */
    instr code[PROGRAM_MOST];
    int count;
    int outputs[OUTPUTS_MOST], output_count;
    int loss[3], loss_count; /* float values that the derivative is of */
    enum derivative derivative;
    int steps; /* 0: no variables are assigned; else so many training steps, a scope each */
} program;

/* How many functions K_UNARY, K_BINARY, K_FUNCTION, K_COMPARE choose from. */
int program_choices(int kind);

void program_make(program *p, uint64_t seed, mb_dtype dtype);
/* The same with many sizes of 0. */
void program_make_empty(program *p, uint64_t seed, mb_dtype dtype);
/* One whose values are shared in many ways: graph.c. */
void program_make_graph(program *p, uint64_t seed, mb_dtype dtype);
/* Records one instruction. data: seeds the values of leaves, so that a plan can be replayed with others. */
mb_tensor program_record(mb_context *ctx, const program *p, int i, const mb_tensor *v, uint64_t data);

enum style {
    RUN_EARLY = 1,   /* read an output before the derivative is recorded */
    RUN_SCOPE = 2,   /* within a scope */
    RUN_WATCH = 4,   /* the outputs by mb_watch */
    RUN_FAILING = 8, /* errors are looked for: none is a failure of the test */
    RUN_SHAKEN = 16, /* every value off by a rounding or so, at random; times n: in the n-th way */
};

#define RESULT_MOST 64
typedef struct result {
    int n;
    double *v[RESULT_MOST];
    int64_t count[RESULT_MOST];
    bool exact[RESULT_MOST]; /* no floats: nothing is rounded */
} result;

/* False after an error of the context. */
bool program_run(mb_context *ctx, const program *p, uint64_t data, unsigned style, result *r);
void program_print(const program *p, FILE *f);

#endif
