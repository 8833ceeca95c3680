/* SPDX-License-Identifier: MIT
 *
 * plan.h - from tape to steps: what a backend gets.
 *
 *   - engine/segment.c: the tape as a graph;
 *   - slices.c, slice_kinds.c, cut.c: a part of that graph as a loop over slices of the batch, where it is to
 * take less;
 *   - nest.c, expand.c, simplify.c, pads.c: that graph as another;
 *   - layout.c, fuse.c, schedule.c: the graph as groups, in running order;
 *   - lower.c: the groups as steps;
 *   - arena.c: steps, and where values lie: the plan.
 *
 * A plan is made once for a structure and replayed with new inputs, scalars and random keys. It is a list of
 * steps in order, each reading and writing values; a value lies in the arena (intermediates, placed by
 * arena.c), in an input (bound at each run) or in an output (new memory at each run).
 */
#ifndef MB_PLAN_H
#define MB_PLAN_H

#include <string.h>

#include "tensor/op.h"

enum { MB_GUARD_BYTES = 256 };

enum mb__storage { MB_IN_ARENA, MB_IN_INPUT, MB_IN_OUTPUT };

typedef struct mb__value {
    uint8_t dtype, storage;
    int32_t index;       /* of the input or output */
    int64_t count;       /* elements */
    int64_t offset;      /* bytes in the arena */
    int32_t first, last; /* steps that write it first and read it last */
    int32_t onto;        /* written in place of this value; -1 */
} mb__value;

typedef struct mb__view {
    int32_t value;
    int64_t offset, stride[MB_MAX_RANK]; /* elements */
} mb__view;

enum mb__kop {                          /* kernel instructions beside the elementwise ops of the table */
               MB_K_LOAD = MB_OP_COUNT, /* view */
               MB_K_CONST,              /* number */
               MB_K_SCALAR,             /* bound scalar */
               MB_K_IOTA,               /* position by view, as a number */
               MB_K_RANDOM,             /* draw at position by view under a bound key */
               MB_K_SUM,                /* of a row */
               MB_K_MAX,
               MB_K_COPY,
};

/* Instructions without operands. */
static inline bool mb__is_source(int op)
{
    return op == MB_K_LOAD || op == MB_K_CONST || op == MB_K_SCALAR || op == MB_K_IOTA || op == MB_K_RANDOM;
}

enum mb__level { MB_LEVEL_ONCE, MB_LEVEL_ROW, MB_LEVEL_EACH }; /* how often an instruction's value changes */

typedef struct mb__instr {
    uint16_t op;
    uint8_t dtype, from, level; /* from: operand dtype, for casts and comparisons */
    int32_t in[3];
    int32_t bind;                /* of a SCALAR or a draw */
    double number;               /* a CONST; of MB_OP_DRAW the elements of a part, under 2^31 */
    const mb__custom_op *custom; /* of MB_OP_MAP */
    mb__view view;
    const char *site;
} mb__instr;

enum mb__store_mode { MB_STORE, MB_STORE_SUM, MB_STORE_MAX };

typedef struct mb__store {
    int32_t instr;
    uint8_t mode; /* SUM and MAX accumulate over the axes where the view's stride is 0 */
    bool per_row; /* once a row, not at each element */
    mb__view view;
} mb__store;

typedef struct mb__kernel {
    int rank, inner; /* inner >= 1: the last axes, of which a row is made */
    int64_t dim[MB_MAX_RANK];
    mb__instr *instrs;
    mb__store *stores;
    int instr_count, store_count;
} mb__kernel;

/* c[m, n] = sum_k a[m, k] b[k, n], repeated over loops. A loop whose c stride is 0 adds to c; with `adds` all
 * is added to what c holds. */
typedef struct mb__product {
    mb__view a, b, c; /* offsets only; strides below */
    int64_t m, n, k, a_m, a_k, b_k, b_n, c_m, c_n;
    int loops;
    int64_t loop[MB_MAX_RANK * 3], a_loop[MB_MAX_RANK * 3], b_loop[MB_MAX_RANK * 3], c_loop[MB_MAX_RANK * 3];
    bool adds;
} mb__product;

/* Every other op, by strided views over the axes of its operands and result. The second operand, where there
 * is one, is `index`: indices, or the right sides of triangular_solve. Of kind MATRIX all have the result's
 * rank, and the sizes before the last two axes. */
typedef struct mb__other {
    int op, dtype;
    int axis;
    bool flag;      /* cumsum: from the end; argsort: descending; triangular_solve: A is upper triangular */
    bool unit;      /* triangular_solve: the diagonal of A counts as ones */
    int64_t wanted; /* argsort: leading places of a row that are wanted, at most all; the others become 0 */
    int out_rank, in_rank, index_rank;
    int64_t out_dim[MB_MAX_RANK], in_dim[MB_MAX_RANK], index_dim[MB_MAX_RANK];
    mb__view out, in, index;
} mb__other;

/* An operand or result of an op of the user's. Strides: of the loop axes, then of the core's. */
typedef struct mb__core_view {
    mb__view view;
    uint8_t dtype, rank;
    int64_t dim[MB_MAX_RANK]; /* of the core */
} mb__core_view;

/* An op of the user's at each position of the loop axes (tensor/custom_op.h). */
typedef struct mb__custom {
    const mb__custom_op *op;
    int loops, nattr;
    int64_t loop[MB_MAX_RANK], attrs[MB_CUSTOM_ATTRS];
    mb__core_view in[MB_CUSTOM_OPERANDS], out[MB_CUSTOM_RESULTS]; /* as many as the op has */
} mb__custom;

/* Where an input or output of a loop's body lies at step t: t * step elements after the offset. */
typedef struct mb__port {
    int32_t value; /* of the plan around */
    int64_t offset, step;
} mb__port;

/* A plan run again and again. Its inputs: carries, then all others; its outputs: the carries' next values,
 * then all others. Of a carry the ports say where the first value is and where the last one goes; between
 * them it is written to and read from `swap` by turns. A carry to which the body only adds, element by
 * element, stays in one place: the ports and both of `swap` are that of the last value, where the first one
 * is put by steps before the loop. */
typedef struct mb__loop {
    const struct mb__plan *body;
    int64_t steps; /* at least 1 */
    bool backwards;
    int carries, inputs, outputs;
    mb__port *in, *out;
    int32_t (*swap)[2]; /* values, for each carry; -1 where none is needed */
    int32_t arena;      /* the value that is the body's arena */
    int until; /* the carry, 0-d bool, which once true makes the body give the carries as they were: the loop
                  may then be left, if the carries are brought to where the last step leaves them; -1 */
    int idle;  /* the input, 0-d bool, whose truth at a step means that the body gives the carries as they
                  were, and zeros for all else: the step may then be left out; -1 */
    const int32_t *kept; /* for each output that is no carry: the carry of which it is the value at the step's
                            beginning, in steps that are left out, too; -1 */
} mb__loop;

enum mb__step_kind {
    MB_STEP_KERNEL,
    MB_STEP_PRODUCT,
    MB_STEP_OTHER,
    MB_STEP_ZERO,
    MB_STEP_LOOP,
    MB_STEP_CUSTOM,
};

typedef struct mb__step {
    int kind;
    const char *site;
    union {
        mb__kernel kernel;
        const mb__product *product;
        const mb__other *other;
        const mb__loop *loop;
        const mb__custom *custom;
        int32_t zero; /* value to clear */
    } u;
} mb__step;

typedef struct mb__plan {
    mb__value *values;
    mb__step *steps;
    int value_count, step_count;
    int input_count, output_count, scalar_count;
    int64_t arena_bytes;
    uint64_t flops;
    int node_count;
    int64_t slices;  /* of the batch, in a loop; 0: it is whole */
    unsigned number; /* that dumps name it by; 0: it was not dumped */
} mb__plan;

/* Where input or output i of the body lies at a step, counted in the order of running, of which `left_out`
 * before it were left out, and so many will be after it. */
static inline mb__port mb__loop_input(const mb__loop *l, int i, int64_t step, int64_t left_out)
{
    if (i < l->carries && step > left_out)
        return MB_LIT(mb__port){l->swap[i][(step - left_out - 1) & 1], 0, 0};
    mb__port p = l->in[i];
    p.offset += p.step * (l->backwards ? l->steps - 1 - step : step);
    return p;
}
static inline mb__port mb__loop_output(const mb__loop *l, int i, int64_t step, int64_t left_out,
                                       int64_t after)
{
    if (i < l->carries && step + after < l->steps - 1)
        return MB_LIT(mb__port){l->swap[i][(step - left_out) & 1], 0, 0};
    mb__port p = l->out[i];
    p.offset += p.step * (l->backwards ? l->steps - 1 - step : step);
    return p;
}

#endif
