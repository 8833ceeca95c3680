/* SPDX-License-Identifier: MIT
 * graph.h - the planner's intermediate forms: the needed nodes as a graph, and the groups that become
 * kernels. */
#ifndef MB_GRAPH_H
#define MB_GRAPH_H

#include "backends/plan/bump.h"
#include "backends/plan/plan.h"

typedef struct mb__gnode {
    uint16_t op;
    uint8_t dtype, rank;
    int32_t nin, nattr;
    int32_t *in;
    const int64_t *attr;
    int32_t bind;   /* input, scalar or random key number; -1     */
    int32_t output; /* output number, or -1                       */
    const char *site;
    int64_t dim[MB_MAX_RANK];
    /* Where the value is, once layouts are chosen: element offset and strides over dim within the storage of
     * node `base`. base is the node itself for nodes that have storage of their own. */
    int32_t base;
    int64_t offset, stride[MB_MAX_RANK];
} mb__gnode;

typedef struct mb__graph {
    mb__bump *bump;
    mb__gnode *nodes;
    int count, capacity;
    int32_t *outputs; /* node of each output */
    int output_count, input_count, scalar_count;
    struct mb__gloop *loops; /* by the first attribute of SCAN nodes */
    int loop_count, loop_capacity;
} mb__graph;

/* A scan's body. Its inputs: carries, slices, captures, as the SCAN node has them as operands; its outputs:
 * the carries' next values, stacks, in the order of the RESULT nodes' numbers. Inputs lie packed. */
typedef struct mb__gloop {
    mb__graph body;
    int64_t steps;
    bool backwards;
    int carries, slices, captures, stacks;
    int until, idle; /* as of mb__loop */
    int32_t *kept;   /* ... */
    const char *site;
    mb__plan *plan; /* of the body, once made */
} mb__gloop;

/* Its number; -1: no memory. */
int32_t mb__graph_append(mb__graph *g, const mb__gnode *n);
/* The same of a node with operands and attributes of its own. */
int32_t mb__graph_make(mb__graph *g, int op, int dtype, const char *site, int rank, const int64_t *dim,
                       const int32_t *in, int nin, const int64_t *attr, int nattr);

static inline int64_t mb__gcount(const mb__gnode *n)
{
    return mb__numel(n->dim, n->rank);
}
static inline bool mb__is_view(int op)
{
    return mb__is_kind(op, MB_KIND_VIEW);
}
static inline bool mb__is_reduce(int op)
{
    return mb__is_kind(op, MB_KIND_REDUCE);
}

enum mb__passes {
    MB_PASS_SIMPLIFY = 1,
    MB_PASS_MERGE = 2,
    MB_PASS_DEAD = 4, /* drop nodes that simplification left unused */
    MB_PASS_FUSE = 8,
    MB_PASS_SINK = 16, /* recompute cheap producers in each consumer */
    MB_PASS_INPLACE = 32,
    MB_PASS_REUSE = 64, /* arena memory of dead values */
    MB_PASS_CACHE = 128,
    MB_PASS_LOOPS = 256,   /* scans are loops of a plan; without it, all their steps one after the other */
    MB_PASS_CHAIN = 512,   /* the backend's own: arithmetic in chains, not op by op */
    MB_PASS_SLICES = 1024, /* a plan that takes more than it should runs part by part */
    MB_PASS_ALL = 2047,
    MB_PASS_GUARD = 2048, /* not a pass: space is left between values, for tests */
};

/* Moves what belongs to bodies of scans, and is needed, into graphs of their own. */
mb_status mb__nest(mb__graph *g);
/* Puts each step of the loops in their place. */
mb_status mb__unroll(mb__graph *g);
/* Puts pads and additions, or contractions, in the place of folds. */
mb_status mb__expand(mb__graph *g, unsigned passes);
mb_status mb__simplify(mb__graph *g, unsigned passes);
/* In a loop's body: a contraction that is added to a carry, and nothing else, becomes one of three operands,
 * which adds to the last of them in place (sums.c). */
mb_status mb__join_sums(mb__graph *g, int carries);
/* Sums of pads whose parts do not overlap become pads of several operands, with the attributes of each in
 * turn.
 */
mb_status mb__gather_pads(mb__graph *g);
/* Gives every node its base, offset and strides; reshapes that no strides can express become copies. */
mb_status mb__layout(mb__graph *g);

/* An op of the user's that has an order of its own. */
static inline bool mb__is_serial(const mb__gnode *n)
{
    return n->op == MB_OP_CALL && mb__custom_of(n->attr)->spec.serial;
}

/* Nodes computed by one kernel, all over the same iteration space. Its last `inner` axes make up a row. */
typedef struct mb__group {
    int rank, inner; /* inner: number of row axes; 0 until a reduction joins that needs rows */
    int64_t dim[MB_MAX_RANK];
    uint32_t row_mask; /* axes of the space that rows run over */
    int32_t *members;  /* ascending once finished */
    int member_count, member_capacity;
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
/* Moves what is to run early up in the schedule. */
mb_status mb__reschedule(mb__graph *g, mb__fusion *f);

/* ---- groups to steps ---- */

struct mb__backend;
/* Steps of a fused graph. pool: memory that the plan is allocated from. */
mb_status mb__lower(mb__graph *g, mb__fusion *f, const struct mb__backend *backend, unsigned passes,
                    mb__bump *pool, mb__plan *plan);
/* Arena offsets by first and last use. */
mb_status mb__place_values(mb__plan *plan, const struct mb__backend *backend, unsigned passes,
                           mb__bump *scratch);

/* The i-th value that a step accesses, read and written ones alike, -1 among them; false past the last. */
bool mb__step_value(const mb__step *s, int i, int32_t *value);

/* The instruction that an instruction's value comes from; a copy is the same register. */
int32_t mb__kernel_origin(const mb__kernel *k, int32_t instr);

/* What running a placed plan takes. */
typedef struct mb__weight {
    int64_t loop_bytes; /* of the arena at its fullest: what loops wrote for later loops to read */
    uint64_t steps;     /* that run, those of loops each time */
} mb__weight;
mb_status mb__weigh(const mb__plan *plan, const struct mb__backend *backend, mb__bump *scratch,
                    mb__weight *weight);

/* Which of c = a b a contraction's axis belongs to: bits of each, and the kinds of axis that they make. */
enum mb__axis_kind {
    AXIS_IN_A = 1,
    AXIS_IN_B = 2,
    AXIS_IN_C = 4,
    AXIS_K = AXIS_IN_A | AXIS_IN_B, /* summed over              */
    AXIS_M = AXIS_IN_A | AXIS_IN_C, /* of the result's rows     */
    AXIS_N = AXIS_IN_B | AXIS_IN_C, /* of the result's columns  */
    AXIS_BATCH = AXIS_IN_A | AXIS_IN_B | AXIS_IN_C,
};

typedef struct mb__axis_info {
    int64_t size, a, b, c; /* strides; 0 for an operand without the axis, whose bit of present is clear */
    unsigned present;      /* bits AXIS_IN_... */
} mb__axis_info;
/* Chooses which axes become m, n, k and loops, given the strides of all three; returns a cost in cycles. */
double mb__product_axes(const mb__axis_info *axes, int count, mb__product *p);

void mb__row_major(const int64_t *dim, int rank, int64_t *stride);

#endif
