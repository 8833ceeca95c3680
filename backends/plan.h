/* SPDX-License-Identifier: MIT
 *
 * plan.h - from tape to steps: what the passes work on, and what a backend gets. Private to backends/.
 *
 *   tape --key.c--> graph --simplify.c--> graph --layout.c, fuse.c--> groups --lower.c--> steps --place.c-->
 * plan
 *
 * A plan is made once for a structure and replayed with new inputs, scalars and random keys. It is a list of
 * steps in order, each reading and writing values; a value lives in the arena (intermediates, placed by
 * place.c), in an input (bound at each run) or in an output (new memory at each run).
 */
#ifndef MB_PLAN_H
#define MB_PLAN_H

#include "tensor/tape.h"

/* ---------------------------------------------------------------------- memory that is freed all at once --
 */

typedef struct mb__bump {
    mb_context *ctx;
    struct mb__chunk *chunks;
    size_t used, total; /* of the newest chunk; of all chunks */
} mb__bump;

void *mb__bump_get(mb__bump *b, size_t bytes); /* zeroed, aligned to 16; NULL: no memory, error set */
void mb__bump_free(mb__bump *b);
/* A growing array in bump memory: doubles by copying. */
void *mb__bump_grow(mb__bump *b, void *old, int count, int *room, size_t item);

/* --------------------------------------------------------------------------------------------- the graph --
 */

typedef struct mb__gnode {
    uint16_t op;
    uint8_t dtype, rank;
    int32_t nin, nattr;
    int32_t *in;
    const int64_t *attr;
    int32_t bind;   /* input, scalar or random key number; -1     */
    int32_t output; /* output number, or -1                       */
    const char *where;
    int64_t dim[MB_MAX_RANK];
    /* Where the value is, once layouts are chosen: element offset and strides over dim within the storage of
     * node `base`. base is the node itself for nodes that have storage of their own. */
    int32_t base;
    int64_t offset, stride[MB_MAX_RANK];
} mb__gnode;

typedef struct mb__graph {
    mb__bump *bump;
    mb__gnode *nodes;
    int count, room;
    int32_t *outputs; /* node of each output */
    int output_count, input_count, scalar_count;
} mb__graph;

static inline int64_t mb__gcount(const mb__gnode *n)
{
    return mb__numel(n->dim, n->rank);
}
static inline bool mb__is_view(int op)
{
    return op == MB_OP_RESHAPE || op == MB_OP_PERMUTE || op == MB_OP_BROADCAST || op == MB_OP_SLICE;
}
static inline bool mb__is_reduce(int op)
{
    return op == MB_OP_SUM || op == MB_OP_MAX;
}
void mb__row_major(const int64_t *dim, int rank, int64_t *stride);

enum mb__passes {
    MB_PASS_SIMPLIFY = 1,
    MB_PASS_MERGE = 2,
    MB_PASS_DEAD = 4, /* drop what simplification left without a reader */
    MB_PASS_FUSE = 8,
    MB_PASS_SINK = 16, /* recompute cheap producers in each consumer */
    MB_PASS_INPLACE = 32,
    MB_PASS_REUSE = 64, /* arena memory of dead values */
    MB_PASS_CACHE = 128,
    MB_PASS_ALL = 255,
    MB_PASS_GUARD = 256, /* not a pass: values are set apart, for tests */
};

mb_status mb__simplify(mb__graph *g, unsigned passes);
/* Gives every node its base, offset and strides; reshapes that no strides can express become copies. */
mb_status mb__layout(mb__graph *g);

/* ------------------------------------------------------------------------------------------------ groups --
 */

/* Nodes computed by one kernel: all over one iteration space, whose last `inner` axes are a row. */
typedef struct mb__group {
    int rank, inner; /* inner: number of row axes; 0 while no reduction has asked for rows */
    int64_t dim[MB_MAX_RANK];
    uint32_t row_mask; /* axes of the space that rows run over */
    int32_t *members;  /* ascending once finished */
    int member_count, member_room;
    int order;     /* groups and single steps, later ones first while fusing */
    int32_t moved; /* merged into that group; -1 */
} mb__group;

typedef struct mb__fusion {
    mb__group *groups;
    int group_count;
    int32_t *owner;    /* for each node with storage: the group that stores it; -1 for steps of their own and
                          leaves */
    bool *stored;      /* the node's value is needed in memory */
    int32_t *schedule; /* groups (>= 0) and single nodes (-1 - node), in running order */
    int schedule_count;
} mb__fusion;

mb_status mb__fuse(mb__graph *g, unsigned passes, mb__fusion *f);

/* ------------------------------------------------------------------------------------------------- plans --
 */

enum { MB_GUARD_BYTES = 256 };

enum mb__home { MB_IN_ARENA, MB_IN_INPUT, MB_IN_OUTPUT };

typedef struct mb__value {
    uint8_t dtype, home;
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

enum mb__rate { MB_RATE_ONCE, MB_RATE_ROW, MB_RATE_EACH }; /* how often an instruction's value changes */

typedef struct mb__instr {
    uint16_t op;
    uint8_t dtype, from, rate; /* from: operand dtype, for casts and comparisons */
    int32_t in[3];
    int32_t bind;
    double number;
    mb__view view;
    const char *where;
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

/* c[m, n] = sum_k a[m, k] b[k, n], repeated over loops. A loop whose c stride is 0 adds to c. */
typedef struct mb__product {
    mb__view a, b, c; /* offsets only; strides below */
    int64_t m, n, k, a_m, a_k, b_k, b_n, c_m, c_n;
    int loops;
    int64_t loop[MB_MAX_RANK * 3], a_loop[MB_MAX_RANK * 3], b_loop[MB_MAX_RANK * 3], c_loop[MB_MAX_RANK * 3];
} mb__product;

/* Every other op, by strided views over the axes of its operands and result. */
typedef struct mb__other {
    int op, dtype;
    int axis;
    bool flag; /* cumsum: from the end */
    int out_rank, in_rank, index_rank;
    int64_t out_dim[MB_MAX_RANK], in_dim[MB_MAX_RANK], index_dim[MB_MAX_RANK];
    mb__view out, in, index;
} mb__other;

enum mb__step_kind { MB_STEP_KERNEL, MB_STEP_PRODUCT, MB_STEP_OTHER, MB_STEP_ZERO };

typedef struct mb__step {
    int kind;
    const char *where;
    union {
        mb__kernel kernel;
        mb__product product;
        mb__other other;
        int32_t zero; /* value to clear */
    } u;
} mb__step;

typedef struct mb__plan {
    mb__value *values;
    mb__step *steps;
    int value_count, step_count, step_room, value_room;
    int input_count, output_count, scalar_count;
    int64_t arena_bytes;
    uint64_t flops;
    int node_count;
} mb__plan;

struct mb__backend;
/* Steps of a fused graph. pool: where the plan lives. */
mb_status mb__lower(mb__graph *g, mb__fusion *f, const struct mb__backend *backend, unsigned passes,
                    mb__bump *pool, mb__plan *plan);
/* Arena offsets by first and last use. */
mb_status mb__place(mb__plan *plan, const struct mb__backend *backend, unsigned passes, mb__bump *scratch);

/* How a contraction's axes become m, n, k and loops, given strides of all three; returns a cost in cycles. */
typedef struct mb__axis_info {
    int64_t size, a, b, c; /* strides; where an operand lacks the axis, present is clear and the stride 0 */
    unsigned present;      /* 1: a, 2: b, 4: c */
} mb__axis_info;
double mb__product_axes(const mb__axis_info *axes, int count, mb__product *p);

/* ---------------------------------------------------------------------------------------------- backends --
 */

typedef struct mb__binding {
    void *arena;
    void *const *inputs, *const *outputs; /* backend memory */
    const double *scalars;                /* numbers, or random keys in the same 64 bits */
} mb__binding;

#define MB_BACKEND_VERSION 1

/* A backend. Functions return MB_OK or set the context's error. */
typedef struct mb__backend {
    int version;
    const char *name;
    bool fuses;   /* takes kernels of more than one op; false: one op a step, nothing simplified */
    bool strided; /* takes products of any strides; false: operands are packed where BLAS needs it */
    mb_status (*open)(mb_context *ctx, const char *device, int threads, unsigned passes, void **state);
    void (*close)(mb_context *ctx, void *state);
    size_t (*element_size)(mb_dtype dtype); /* in its own memory */
    void *(*memory_new)(mb_context *ctx, void *state, size_t bytes);
    void (*memory_free)(mb_context *ctx, void *state, void *memory, size_t bytes);
    mb_status (*upload)(mb_context *ctx, void *state, void *memory, mb_dtype dtype, int64_t count,
                        const void *from);
    mb_status (*download)(mb_context *ctx, void *state, void *memory, mb_dtype dtype, int64_t count,
                          void *to);
    void *(*compile)(mb_context *ctx, void *state, const mb__plan *plan,
                     size_t *bytes); /* plan outlives it */
    void (*discard)(mb_context *ctx, void *state, void *program);
    mb_status (*run)(mb_context *ctx, void *state, void *program, const mb__binding *binding);
} mb__backend;

/* "product 64x128x49, 128 of them"; "tanh and 3 more over 8192"; "argsort". */
void mb__step_label(const mb__plan *plan, int step, char *out, size_t size);
/* Whether the time of each step is to be told, and telling it. */
bool mb__profiling(const mb_context *ctx);
void mb__profile_add(mb_context *ctx, const mb__plan *plan, int step, double seconds);

/* A line for the user's log callback, if there is one. */
void mb__log(mb_context *ctx, const char *format, ...) MB_PRINTF(2, 3);

extern const mb__backend mb__backend_reference, mb__backend_cpu, mb__backend_vulkan;

#endif
