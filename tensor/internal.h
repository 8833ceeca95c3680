/* SPDX-License-Identifier: MIT
 *
 * internal.h - the layout of a context, for tensor/, autograd/ and backends/. Not installed.
 *
 * The tape is one growing array of nodes; a node's id is its position, its operands have smaller ids, so id
 * order is topological order and nothing recurses. Operand lists and attributes, of variable length, lie in
 * two side arrays which grow and shrink with the tape. A scope stores the three lengths at its beginning; its
 * end cuts the arrays back to them.
 *
 * Node 0 is the poison node: the result of every failed op, and an operand that makes results poison.
 *
 * A handle is (context, id, serial of the scope it was made in). Serials are never reused, so a node whose
 * scope field differs from the handle's was recorded after the handle's scope had ended.
 */
#ifndef MB_INTERNAL_H
#define MB_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "tensor/door.h"
#include "tensor/op.h"
#include "tensor/tensor.h"
#include "tensor/wide.h"

/* Values in a backend's memory, reference-counted: held by nodes and variables. */
typedef struct mb__buffer {
    int refs;
    size_t bytes;                                   /* capacity                                       */
    void *memory;                                   /* the backend's: a host pointer for CPU backends */
    struct mb__buffer *next, *prev, *newer, *older; /* in the engine's pool while unused */
} mb__buffer;

typedef struct mb__node {
    uint16_t op;
    uint8_t dtype, rank;
    uint16_t nin, nattr;
    uint32_t in;       /* first operand in tape.operands                             */
    uint32_t attr;     /* first word in tape.attrs                                   */
    uint32_t scope;    /* serial of the scope it was recorded in                     */
    uint32_t home;     /* BODY of the innermost scan that has ended of whose steps it is one; 0: none */
    bool kept;         /* survives its scope (mb_keep)                               */
    bool through;      /* kept by the checkpoint around it (mb_keep_through)         */
    bool dead;         /* its scope has ended, while a later kept node pins the tape; or it is mapped */
    bool mapped;       /* a vmap that has ended has recorded it again, for all examples */
    mb__buffer *value; /* the value, once computed and stored; a reference            */
    const char *site;
    const char *call; /* the public function that recorded it, such as "mb_softmax_at" */
    union {
        double scalar;     /* SCALAR */
        uint64_t key;      /* RANDOM, DRAW */
        uint32_t variable; /* VARIABLE: index in ctx->variables */
        uint32_t first;    /* BODY: the node that the body begins with */
    } bind;                /* given at each run: never part of a plan's key */
    int64_t dim[MB_MAX_RANK];
} mb__node;

typedef struct mb__variable {
    uint32_t id;       /* its VARIABLE node                                           */
    mb__buffer *value; /* current value; NULL until first stored: zeros               */
    uint32_t leaf;     /* a node that holds the current value, of the scope leaf_scope */
    uint32_t leaf_scope;
    uint32_t pending; /* node assigned but not yet stored; 0: none                   */
} mb__variable;

/* A checkpoint: the nodes [first, last], of which derivatives use recorded copies. Sorted by `last`; nested
 * ones come before the one around them. */
typedef struct mb__region {
    uint32_t first, last;
    int32_t around; /* index of the innermost one around this one; -1: none */
    bool products;  /* results of contractions are kept */
} mb__region;

/* What a sweep keeps by node id, from the oldest node that it looks at on. */
typedef struct mb__scratch {
    uint32_t *grad;
    uint8_t *depends, *needed;
    uint32_t grad_capacity, depends_capacity, needed_capacity;
    void *parts;
    uint32_t part_capacity;
} mb__scratch;

/* A scan or vmap that has begun: its placeholders and results so far. */
typedef struct mb__bound {
    mb_tensor *where; /* the caller's variable, which the end fills in; NULL */
    uint32_t at;      /* the placeholder; of a vmap's result: the axis of the examples */
    uint32_t from;    /* the initial value; what is sliced; what is stacked */
} mb__bound;
typedef struct mb__bounds {
    mb__bound *list;
    uint32_t count, capacity;
} mb__bounds;
typedef struct mb__bracket {
    const char *kind;              /* "scan" or "vmap", for messages */
    uint32_t serial, scope, first; /* of the scope that it was begun in; the body's first node */
    int64_t steps;                 /* or examples */
    int64_t keep;                  /* as mb_scan_options' keep_every */
    bool backwards;
    bool same_draws; /* a vmap, whose examples share random draws */
    const char *site;
    mb__bounds carries, slices, stacks; /* of a vmap: none, the operands, the results */
    mb__bounds inverses; /* of a scan: a carry's variable, the placeholder of its value after a step, and what
                            it was before */
    uint32_t step;       /* the placeholder of the step's number; 0: not asked for */
    uint32_t done;       /* the placeholder of whether an earlier step was the last; 0: all steps are done */
    uint32_t condition;  /* under which this one is */
} mb__bracket;

/* A change that the next flush makes permanent, with the value before it: if its scope ends after an error
 * and without a flush, the change is undone. It is of a variable's pending node, or of a number in host
 * memory. */
#define MB_NO_VARIABLE UINT32_MAX
typedef struct mb__change {
    uint32_t variable, before; /* index in ctx->variables; its pending node, 0 for none */
    int64_t *number;           /* NULL: a variable's */
    int64_t number_before;
} mb__change;

typedef struct mb__watch {
    uint32_t id, scope; /* node; serial of the scope of the mb_watch, whose end cancels it */
    void *dst;
    size_t bytes;
} mb__watch;

/* nodes, operands, attrs: the tape's lengths at the scope's beginning. Just below lie MB_SPARE_NODES spare
 * nodes that belong to the outer scope: mb_detach puts its results there, so that they do not keep the tape
 * of the scope that they leave. `spare_used` of them are taken. */
enum { MB_SPARE_NODES = 8 };
typedef struct mb__scope_mark {
    uint32_t serial, nodes, operands, attrs, spare_used;
    uint32_t changes; /* length of ctx->changes at the beginning */
    const char *site;
} mb__scope_mark;

/* What a plan would hold while it runs, and compute. */
typedef struct mb__load {
    uint64_t bytes, flops;
} mb__load;

/* What the engine (backends/engine/flush.c) does for the tape. tensor/ computes nothing itself. */
typedef struct mb__engine {
    mb_status (*flush)(mb_context *ctx, const uint32_t *ids, int n);
    mb__buffer *(*buffer)(mb_context *ctx, mb_dtype dtype, int64_t count); /* NULL: error is set */
    void (*release)(mb_context *ctx, mb__buffer *buffer);                  /* its last reference is gone */
    /* from: packed values of mb_dtype_size each, or NULL for zeros */
    mb_status (*upload)(mb_context *ctx, mb__buffer *to, mb_dtype dtype, int64_t count, const void *from);
    mb_status (*download)(mb_context *ctx, mb__buffer *from, mb_dtype dtype, int64_t count, void *to);
    /* Of the nodes that targets[m] need beyond given[n], as if those had values: a number by which they are
     * known again, and what a plan of them would take, which is made and dropped (NULL: not asked). 0: error
     * set, or there is no backend. */
    uint64_t (*weigh)(mb_context *ctx, const uint32_t *given, int n, const uint32_t *targets, int m,
                      mb__load *load);
    /* Frees memory that is only kept for speed; false if there is none. */
    bool (*reclaim)(mb_context *ctx);
    void (*close)(mb_context *ctx);
    void (*log)(mb_context *ctx, const char *line); /* passed to mb_options.log, if set */
} mb__engine;

/* An open prefix of told names, and an open tap (taps.h). */
typedef struct mb__prefix {
    const char *name; /* the caller's */
    int64_t index;    /* below 0: none */
    uint32_t scope;   /* serial of the one that it was begun in */
    const char *site;
} mb__prefix;
typedef struct mb__tap {
    const char *pattern;
    mb_tensor (*function)(void *user, const char *name, mb_tensor x);
    mb_status (*through)(void *user, const char *name, mb_tensor *x); /* one of the two, or NULL */
    void *user;
    mb_tensor *collected;   /* [n]: where to write what is told; NULL */
    const mb_tensor *given; /* [n]: what is put in its place; NULL */
    int n, heard;
    uint32_t serial, scope, within; /* of the scope, and the number of scans and vmaps, that it began in */
    const char *site;
} mb__tap;

#define MB_ENDED_SCOPES 64
#define MB_CHOICES      64

struct mb_context {
    /* tape */
    mb__node *nodes;
    uint32_t *operands;
    int64_t *attrs;
    uint32_t node_count, node_capacity, operand_count, operand_capacity, attr_count, attr_capacity;

    mb__scope_mark *scopes; /* open ones, innermost last; [0] is the context's own */
    uint32_t scope_count, scope_capacity, next_serial;
    struct {
        uint32_t serial;
        const char *site;
    } ended[MB_ENDED_SCOPES]; /* ring: where the last scopes ended, for messages */

    mb__variable *variables;
    uint32_t variable_count, variable_capacity;
    mb__change *changes; /* not permanent yet, oldest first */
    uint32_t change_count, change_capacity;
    mb__watch *watches;
    uint32_t watch_count, watch_capacity;
    mb__region *regions;
    uint32_t region_count, region_capacity;
    mb__bracket *brackets; /* open scans and vmaps, innermost last */
    uint32_t bracket_count, bracket_capacity, next_bracket;
    mb__prefix *prefixes; /* open ones, innermost last */
    uint32_t prefix_count, prefix_capacity;
    mb__tap *taps; /* open ones, oldest first */
    uint32_t tap_count, tap_capacity, next_tap;
    bool telling;               /* a tap's function is running */
    mb__custom_op **custom_ops; /* by number, from 1 on */
    uint32_t custom_op_count, custom_op_capacity;

    /* errors */
    mb_status status;
    char message[1024];
    const char *site; /* of the outermost call that is being recorded; NULL between calls */
    const char *call; /* that function's name, "mb_softmax_at" */
    char **sites;     /* interned: a hash table; NULL: a free slot */
    uint32_t site_count, site_capacity;
    pthread_t thread;              /* the owner, ... */
    uint32_t process;              /* ... and its process: mb__forks when it opened the context */
    _Atomic(const char *) foreign; /* site of a refused call from another thread; NULL: none */

    /* scratch memory kept between calls: for autograd's sweeps, and for lists of ids */
    struct mb__scratch *sweeps; /* of a sweep, of one within it, ...: see autograd/range.c */
    uint32_t sweep_capacity, sweep_depth;
    struct mb__chunk_of_temporaries *temporary;
    uint32_t *copies, copy_capacity; /* by node id: see autograd/checkpoint.c */
    uint32_t *begins, begin_capacity;
    uint32_t *ids, id_capacity;

    struct {
        uint64_t question;
        int answer;
    } choices[MB_CHOICES]; /* ring: which way of two was lighter, by the nodes that it is about; see
                              autograd/mixed.c */
    uint32_t choice_count;

    /* memory */
    mb_allocator allocator;
    uint64_t allocations, bytes, peak_bytes, recorded;

    const mb__engine *engine;
    void *engine_state;
};

/* ---- memory. On failure, also after the engine has freed what it could: NULL, and the context's error is
 * MB_NO_MEMORY. free(NULL) is allowed. ---- */

/* Sets no error and asks the allocator once: for callers that can do without, or that report it themselves.
 */
void *mb__try_alloc(mb_context *ctx, size_t size);
void *mb__alloc(mb_context *ctx, size_t size); /* zeroed */
void *mb__alloc_raw(mb_context *ctx, size_t size);
void *mb__realloc(mb_context *ctx, void *p, size_t old_size, size_t size);
void mb__free(mb_context *ctx, void *p, size_t size);
/* Grows an array to a capacity of `need` items or more, of `item` bytes each. */
bool mb__reserve(mb_context *ctx, void **array, uint32_t *capacity, uint64_t need, size_t item);

/* Memory for a while: MB_TEMPORARY(ctx) at the head of a block, and what mb__temporary gives out from there
 * on goes with the block. It comes from a stack that is kept, so that a replayed step allocates nothing. */
typedef struct mb__temporaries {
    mb_context *ctx;
    struct mb__chunk_of_temporaries *chunk;
    size_t used;
} mb__temporaries;
mb__temporaries mb__temporaries_begin(mb_context *ctx);
void mb__temporaries_end(const mb__temporaries *t);
#define MB_TEMPORARY(ctx)                                                                                    \
    const mb__temporaries mb_temporaries_ __attribute__((cleanup(mb__temporaries_end), unused)) =            \
        mb__temporaries_begin(ctx)
void *mb__temporary(mb_context *ctx, size_t bytes); /* zeroed, aligned to 16; NULL: error set */
void mb__temporaries_free(mb_context *ctx);

extern const mb_allocator mb__default_allocator;
/* Counts memory that was taken from the allocator. */
void mb__took(mb_context *ctx, size_t size);

mb_context *mb__context_new(const mb_allocator *allocator); /* NULL: no memory */
void mb__context_free(mb_context *ctx);

/* ---- errors ---- */
/* Reported at the site of the call that is being recorded; by mb__error_at at another, such as a node's. */
mb_status mb__error(mb_context *ctx, mb_status status, const char *format, ...) MB_PRINTF(3, 4);
mb_status mb__error_at(mb_context *ctx, mb_status status, const char *site, const char *format, ...)
    MB_PRINTF(4, 5);
const char *mb__shape_text(char *out, size_t size, const int64_t *dim, int rank); /* "[32,784]" */
/* "[32,784] float32 (train.c:17)" for an operand. */
const char *mb__tensor_text(char *out, size_t size, mb_tensor t);

/* "exp", or "softmax (exp)" if mb_softmax recorded the exp. A contraction is named by its function alone:
 * "matmul".
 */
const char *mb__node_text(char *out, size_t size, const mb__node *n);

/* How many forks lie between this process and the one that loaded the library. */
extern atomic_uint mb__forks;
static inline bool mb__ours(const mb_context *ctx)
{
    return pthread_equal(ctx->thread, pthread_self()) &&
           ctx->process == atomic_load_explicit(&mb__forks, memory_order_relaxed);
}
/* Turns a refused call of another thread into the context's error. */
void mb__collect_foreign(mb_context *ctx);

/* In functions of the library MB_SITE also sets the function's name, which errors and nodes made inside it
 * then carry: that of the outermost one, which the user called. Layers do not include this header, and so are
 * treated like user code. */
typedef struct mb__door {
    mb_context *ctx; /* as mb_site's */
    mb_site site;
    const char *call;
} mb__door;
static inline mb__door mb__door_begin(mb_context *ctx, const char *site, const char *function)
{
    mb__door d = {.site = mb_site_begin(ctx, site)};
    d.ctx = d.site.ctx;
    if (!d.ctx)
        return d;
    d.call = d.ctx->call;
    if (!d.call)
        d.ctx->call = function;
    return d;
}
static inline void mb__door_end(const mb__door *d)
{
    if (d->ctx)
        d->ctx->call = d->call;
    mb_site_end(&d->site);
}
#undef MB_SITE
#define MB_SITE(ctx, site)                                                                                   \
    const mb__door mb_site_here_ __attribute__((cleanup(mb__door_end), unused)) =                            \
        mb__door_begin(ctx, site, __func__)

/* ---- recording ---- */
static inline mb__node *mb__at(mb_context *ctx, uint32_t id)
{
    return &ctx->nodes[id];
}
static inline uint32_t mb__in(const mb_context *ctx, const mb__node *n, int i)
{
    return ctx->operands[n->in + (uint32_t)i];
}
/* How many operands, the first ones, a node's value is made of. */
static inline int mb__value_operands(const mb__node *n)
{
    return n->op == MB_OP_RULED ? 1 : n->nin;
}
static inline const int64_t *mb__attrs(const mb_context *ctx, const mb__node *n)
{
    return ctx->attrs + n->attr;
}
static inline mb_tensor mb__handle(mb_context *ctx, uint32_t id)
{
    return (mb_tensor){ctx, id, ctx->nodes[id].scope};
}
static inline mb_tensor mb__poison(mb_context *ctx)
{
    return (mb_tensor){ctx, 0, 0};
}

/* Checks operands: one context, its own thread, none stale. Returns the context to record into, or NULL when
 * the result must be poison (the error is set, or an operand was poison already); *poison is then that
 * result.
 */
mb_context *mb__enter(const char *op, const mb_tensor *const *ts, int n, mb_tensor *poison);
/* The context of the first operand that has one; NULL: none has. */
mb_context *mb__operands_context(const mb_tensor *const *ts, int n);
/* The head of a public function that returns a tensor, given pointers to its operands: MB_SITE and mb__enter.
 * Declares ctx, and poison, which is returned at once where mb__enter refuses. */
#define MB_ENTER(site, op, ...)                                                                              \
    const mb_tensor *const operands_[] = {__VA_ARGS__};                                                      \
    const int operand_count_ = (int)(sizeof operands_ / sizeof *operands_);                                  \
    MB_SITE(mb__operands_context(operands_, operand_count_), site);                                          \
    mb_tensor poison;                                                                                        \
    mb_context *ctx = mb__enter(op, operands_, operand_count_, &poison);                                     \
    if (!ctx)                                                                                                \
    return poison
/* The same for a function without operands. False: return mb__poison. */
bool mb__enter_context(const char *op, mb_context *ctx);
/* Whether t's node is still the one that the handle was made for. */
bool mb__alive(const mb_context *ctx, mb_tensor t);
/* The node that t stands for now: t itself, or a variable's current value. 0 on error. */
uint32_t mb__resolve(mb_context *ctx, mb_tensor t);

/* Appends a node. Resolves the operands (mb__resolve). Returns poison after an error. */
mb_tensor mb__record(mb_context *ctx, int op, mb_dtype dtype, int rank, const int64_t *dim,
                     const mb_tensor *in, int nin, const int64_t *attrs, int nattr);

/* A 0-d literal of a dtype, checked as in mb_full. */
/* As mb_unfold and mb_fold, without checks; the window has no zeros. */
struct mb_window;
mb_tensor mb__unfold(mb_tensor x, int axis, struct mb_window w, int64_t count);
mb_tensor mb__fold(mb_tensor x, int axis, struct mb_window w, int64_t n);
mb_tensor mb__const(mb_context *ctx, mb_dtype dtype, double value);
/* The same of x's dtype; of poison and null tensors poison. */
mb_tensor mb__const_like(mb_tensor x, double value);
/* Elementwise op on checked operands of one dtype; the shapes are broadcast here. */
mb_tensor mb__elementwise(int op, const mb_tensor *ts, int n);
/* Contraction by axis table: for label l, attrs[1 + 3 l ..] = its axis in a, in b, in the result, -1 for
 * none; attrs[0] = number of labels. Labels absent from the result are summed. */
mb_tensor mb__contract(mb_tensor a, mb_tensor b, int labels, const int64_t *axes);
/* A MAP on tensors of the context; the shapes are broadcast here. */
mb_tensor mb__map(mb_context *ctx, const mb__custom_op *op, const mb_tensor *xs);
void mb__custom_ops_free(mb_context *ctx);
/* Sums t down to the shape it was broadcast from. */
mb_tensor mb__sum_to(mb_tensor t, int rank, const int64_t *dim);
/* x - top, where top is the largest of each row, without NaN where top is infinite: entries of +infinity
 * become 0, and so finite entries of their row -infinity. */
mb_tensor mb__below_top(mb_tensor x, mb_tensor top);
/* The pieces of a norm (norm.c): sum = the sum of the squares of x times power, over the axes of a mask,
 * which keep size 1, or of several tensors over all their axes, [], with UINT32_MAX for the mask; the root of
 * the sum, 1 where that is 0; and the norm, which is root / power, or 0. */
typedef struct mb__squares {
    mb_tensor sum, power;
} mb__squares;
mb__squares mb__squares_of(const mb_tensor *xs, int n, uint32_t mask);
mb_tensor mb__squares_root(mb__squares s);
mb_tensor mb__squares_norm(mb__squares s, mb_tensor root);
/* The value of one tensor with the derivatives of another, of its shape and dtype: where a formula has the
 * right derivatives to every order and cannot be computed as it stands. */
mb_tensor mb__substitute(mb_tensor value, mb_tensor formula);
/* Structure ops with their attributes as recorded (see record sites). */
mb_tensor mb__slice_all(mb_tensor x, const int64_t *start, const int64_t *step, const int64_t *count);
mb_tensor mb__pad_all(mb_tensor x, const int64_t *before, const int64_t *step, const int64_t *size);
mb_tensor mb__reduce(int op, mb_tensor x, uint32_t mask); /* SUM or MAX; axes keep size 1 */

/* Axis counted from the front, or -1 after reporting. */
int mb__axis(const char *op, mb_tensor t, int axis);
/* The set of axes as bits; false after reporting. */
bool mb__axes_mask(const char *op, mb_tensor x, mb_axes axes, uint32_t *mask);
/* x without the axes in the mask, which have size 1. */
mb_tensor mb__drop_axes(mb_tensor x, uint32_t mask);
/* Whether a tensor can have this dtype and shape; false after reporting. */
bool mb__check_shape(mb_context *ctx, const char *op, mb_dtype dtype, mb_shape shape);
/* An index as int32, made so where it is int64 or uint8; false after reporting. */
bool mb__check_index(const char *op, mb_context *ctx, mb_tensor *index);
/* Whether products of any of these sizes, those of an empty tensor included, and their bytes fit int64_t. */
bool mb__countable(const int64_t *dim, int rank);
bool mb__broadcast_shapes(const int64_t *a, int ra, const int64_t *b, int rb, int64_t *out, int *rank);

void mb__buffer_drop(mb_context *ctx, mb__buffer *b);
/* Of the nodes from `first` on, those that no ts[n] comes from are dead: what was recorded and is not taken.
 */
void mb__abandon(mb_context *ctx, uint32_t first, const mb_tensor *ts, int n);

/* ---- scans (loop.c) ---- */

/* What a scan is made of. The body: everything from node `first` on that depends on a placeholder. */
typedef struct mb__loop_parts {
    int64_t steps;
    bool backwards; /* from the last slice to the first; stacks are filled in the same order */
    uint32_t first;
    int carries, slices, stacks;
    const mb__bound *carry;   /* at, from: the initial value */
    const mb__bound *slice;   /* at, from: [steps, ...] */
    const uint32_t *next;     /* each carry's next value */
    const uint32_t *stack;    /* what is stacked */
    const mb__bound *inverse; /* NULL; or of each carry, at: the placeholder of its value after a step, from:
                                 what it was before, by that of all carries, slices and the outside */
    int until; /* the carry, bool, that once true makes steps give the carries as they were; from 1, 0: none
                */
    int idle; /* the slice, bool, whose truth means that the step gives the carries as they were, and zeros to
                 stacks other than of placeholders; from 1, 0: none */
} mb__loop_parts;

mb_tensor mb__placeholder(mb_context *ctx, mb_dtype dtype, int rank, const int64_t *dim);
/* Records the scan and, right after it, its results: the last carries, the stacks, and for each carry a stack
 * of its values at the beginning of each step. 0: error set. */
uint32_t mb__scan_record(mb_context *ctx, const mb__loop_parts *parts);
/* Whether a node is of the inside of a body, or of that of a scan in it. */
bool mb__within(const mb_context *ctx, uint32_t id, uint32_t body);
/* Makes a BODY node the end of a body: marks its placeholders and its inside. */
void mb__body_end(mb_context *ctx, uint32_t first, uint32_t body);

/* The same steps as scans within a scan, so that derivatives store fewer carries (divide.c); keep: see
 * mb_scan_options. Writes the last carries and the stacks, without those of carries. */
bool mb__scan_divide(mb_context *ctx, uint32_t scan, int64_t keep, uint32_t *results);

/* The inverse of an open scan's step, of each carry (inverse.c), where next[] are the carries' next values;
 * false: error set. */
bool mb__scan_inverses(mb_context *ctx, const struct mb__bracket *s, const uint32_t *next,
                       mb__bound *inverse);

/* How many nodes follow this one and belong to it: a scan's results, or a rule's. */
int mb__followers(const mb_context *ctx, uint32_t id);

/* A recorded scan, read from its node. */
typedef struct mb__scan_view {
    int64_t steps;
    bool backwards;
    int carries, slices, stacks, captures; /* stacks: with those of the carries */
    int until, idle;                       /* see mb__loop_parts */
    bool reversible;                       /* the body has the inverse of the step */
    uint32_t body, first;
} mb__scan_view;
mb__scan_view mb__scan_of(const mb_context *ctx, uint32_t id);
/* Of a reversible one: the placeholder of carry i after a step, and what it was before. */
uint32_t mb__scan_after(const mb_context *ctx, const mb__scan_view *s, int i);
uint32_t mb__scan_before(const mb_context *ctx, const mb__scan_view *s, int i);
static inline int mb__scan_results(const mb__scan_view *s)
{
    return s->carries + s->stacks;
}

/* ---- open scans and vmaps (brackets.c) ---- */

/* Opens one with these properties; its serial, 0: error set. */
uint32_t mb__bracket_begin(mb_context *ctx, mb__bracket b);
/* The open one of this kind and serial, which must be the innermost; NULL: error set. */
mb__bracket *mb__bracket_innermost(const char *name, const char *kind, mb_context *ctx, uint32_t serial);
/* The same for its end, which after an error also ends it, and what is open inside. NULL: it is not open. */
mb__bracket *mb__bracket_ending(const char *name, const char *kind, mb_context *ctx, uint32_t serial);
bool mb__bound_add(mb_context *ctx, mb__bounds *to, mb__bound b);
/* A placeholder for this step's, or example's, entry of node `from`, [steps, ...]. */
mb_tensor mb__bracket_slice(mb_context *ctx, mb__bracket *b, uint32_t from);
/* The number of a scan's step, or a vmap's example: a placeholder of int32. */
mb_tensor mb__bracket_step(mb_context *ctx, mb__bracket *b);
/* Draws part * count + place under the key, of int32 tensors that broadcast. */
mb_tensor mb__draw(mb_context *ctx, mb_key key, mb_dtype dtype, mb_tensor part, mb_tensor place,
                   int64_t count);
/* Frees their lists, which are kept for later ones. */
void mb__brackets_free(mb_context *ctx);

/* ---- taps (taps.c) ---- */

/* A scan or vmap with these stacks has ended: what taps collected of it goes through those around it, too. */
void mb__taps_lift(mb_context *ctx, const mb__bounds *stacks);
/* Ends the prefixes and taps of the scope of this serial and of those inside it, and reports that they were
 * open. */
void mb__taps_cut(mb_context *ctx, uint32_t serial);
void mb__taps_free(mb_context *ctx);
/* Whether a pattern, as described in taps.h, matches. */
bool mb__name_matches(const char *pattern, const char *name);

/* ---- changes that a flush makes permanent, and an error undoes ---- */

/* Sets a number that counts along with assignments, such as an optimiser's steps; false: error set. */
bool mb__number_set(mb_context *ctx, int64_t *number, int64_t value);
/* The number's memory is about to be freed: forgets its changes. */
void mb__number_forget(mb_context *ctx, const int64_t *number);
/* Undoes all but the first `count` changes. */
void mb__changes_undo(mb_context *ctx, uint32_t count);
/* All were stored: none is to be undone. */
void mb__changes_keep(mb_context *ctx);
/* Ends the watches asked for in the scope of this serial and in those inside it; with `fill`, their floats
 * become NaN first. */
void mb__watches_end(mb_context *ctx, uint32_t serial, bool fill);
/* Floats become NaN: all bits set is one in float32 and in float64. */
static inline void mb__no_number(void *dst, size_t bytes, int dtype)
{
    if (dst && mb__is_float(dtype))
        memset(dst, 0xff, bytes);
}

#endif
