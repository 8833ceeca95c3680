/* SPDX-License-Identifier: MIT
 *
 * state.h - the state of a context's engine: its backend, plan cache, buffer pool. Private to
 * backends/engine/.
 *
 * A flush: flush.c lists what is wanted; segment.c marks what that needs, and describes it (key, inputs,
 * scalars, outputs); cache.c finds the plan of the key or makes it; run.c binds and runs it. debug.c does so
 * op by op, and oracle.c checks each result against the reference backend. forecast.c goes as far as the
 * plan, piece.c too, of a part of the tape.
 */
#ifndef MB_ENGINE_STATE_H
#define MB_ENGINE_STATE_H

#include "backends/engine/backends.h"
#include "backends/plan/backend.h"
#include "backends/plan/graph.h"
#include "tensor/internal.h"

/* The nodes that a flush needs, and all that making and running a plan requires of them. */
typedef struct mb__segment {
    uint32_t *nodes; /* ids, ascending */
    uint32_t count, node_capacity;
    uint32_t *inputs; /* of the nodes: those that have their value; ... */
    uint32_t input_count, input_capacity;
    uint32_t *outputs; /* ... those whose values are kept */
    uint32_t output_count, output_capacity;
    mb__scalar *scalars; /* numbers and keys to bind, in the order of their nodes */
    uint32_t scalar_count, scalar_capacity;
    unsigned char *key; /* all that a plan depends on, and nothing that it does not */
    uint32_t key_bytes, key_capacity;
} mb__segment;

typedef struct mb__cached {
    struct mb__cached *next_in_bucket, *newer, *older;
    uint64_t hash;
    size_t key_bytes, bytes, compiled; /* bytes: all of it, with what the program holds */
    unsigned char *key;
    mb__bump pool; /* holds the plan and this key */
    mb__plan plan;
    void *program; /* the backend's */
} mb__cached;

enum { MB_POOL_CLASSES = 64, MB_BUCKETS = 1024 };

typedef struct mb__engine_state {
    const mb__backend *backend;
    void *backend_state; /* NULL: it could not be opened */
    mb__limits limits;
    mb__host host;
    mb__counters counters;
    unsigned passes;
    bool debug;
    bool busy;        /* inside of a plan's making or running: nothing may be freed */
    mb_status opened; /* MB_OK, or why the backend could not be opened: nothing is computed then */
    /* plan cache: hash buckets, and a list by last use */
    mb__cached *buckets[MB_BUCKETS], *newest, *oldest;
    int64_t arena_goal; /* of a plan's arena; mb_options.arena_bytes, ... */
    bool arena_asked;   /* ... or not: of backends that compute in the host's memory */
    size_t cache_bytes, compiled_bytes, cache_limit; /* compiled: of these, what programs hold */
    /* memory */
    mb__buffer *pool[MB_POOL_CLASSES];          /* unused buffers by size class, ... */
    mb__buffer *released_last, *released_first; /* ... and by when they were released */
    size_t pool_bytes, live_bytes;
    size_t live_peak[2]; /* most live bytes in this span of flushes and in the one before */
    int flushes_of_peak;
    void *arena;
    size_t arena_bytes;
    /* scratch of a flush, kept between flushes */
    uint32_t *mark, *dense, *targets; /* by node id; by node id; wanted nodes */
    uint32_t mark_capacity, dense_capacity, target_capacity, serial;
    mb__segment segment, single; /* of a flush; of one op that the oracle looks at */
    void **inputs, **outputs;
    mb__buffer **fresh;
    uint32_t input_capacity, output_capacity, fresh_capacity;
    void *oracle; /* state of the backend that results are compared with */
    mb_stats stats;
    uint32_t tape_before, growths; /* nodes at the last flush; flushes in a row that found more */
    struct mb__profile *profile;   /* NULL: not asked for */
    struct mb__dump *dump;         /* NULL: not asked for */
    void (*log)(void *user, const char *line);
    void *log_user;
} mb__engine_state;

extern const mb__engine mb__the_engine;

/* Every backend of this build, best first; made by backends/meson.build. */
extern const mb__backend *const mb__backends[];
extern const int mb__backend_count;
/* One sentence about backends that this build lacks, and why; NULL where it has all. */
extern const char *const mb__backends_left_out;

/* ---- registered.c, load.c: the backends of this process, which are those and what was added ---- */

/* The i-th, those of the build first; NULL past the last. */
const mb__backend *mb__backend_number(int i);
/* By name; NULL: none. */
const mb__backend *mb__backend_called(const char *name, size_t length);
/* Whether a backend can have this name. */
bool mb__backend_name_fits(const char *name, size_t length);
/* Whether it can be used: MB_OK, or a sentence in `why`. */
mb_status mb__backend_check(const mb__backend *b, char *why, size_t size);
/* From a file of MB_BACKEND_PATH. NULL: there is none of that name; or the context's error is set. */
const mb__backend *mb__backend_load(mb_context *ctx, const char *name, size_t length);

/* ---- log.c, host.c ---- */

/* What MB_LOG=1 asks for. */
void mb__log_to_stderr(void *user, const char *line);
void mb__log(mb_context *ctx, const char *format, ...) MB_PRINTF(2, 3);
/* The host interface that the planner and the backend are given. */
mb__host mb__host_of(mb_context *ctx);

/* Passes on the status that a backend's function returned; MB_NO_MEMORY becomes the context's error. */
mb_status mb__told(mb_context *ctx, mb_status status);

/* ---- pool.c ---- */

/* Memory for a value, with one reference. */
mb_status mb__pool_get(mb_context *ctx, size_t bytes, mb__buffer **buffer);
void mb__buffer_release(mb_context *ctx, mb__buffer *b);
/* What mb__pool_get makes of a size. */
size_t mb__pool_rounded(size_t bytes);
/* How many unused buffers of a rounded size there are. */
uint32_t mb__pool_unused(const mb_context *ctx, size_t rounded);
/* Gives back all that is unused. */
void mb__pool_clear(mb_context *ctx);
/* A flush has ended: buffers that have long been unused are freed gradually. */
void mb__pool_flushed(mb_context *ctx);

/* ---- buffers.c ---- */

/* NULL: error set, at the site of the call. */
mb__buffer *mb__buffer_new(mb_context *ctx, mb_dtype dtype, int64_t count);
/* The same for a node's value, which the error then names. */
mb__buffer *mb__buffer_for(mb_context *ctx, const mb__node *n);
/* Frees all caches; false if there was nothing to free, or it cannot be done now. */
bool mb__reclaim(mb_context *ctx);

/* ---- flush.c ---- */

/* Lists in st->targets what a flush of these nodes has to compute: they, what is watched, what was assigned.
 * False: error set. */
bool mb__targets_of(mb_context *ctx, const uint32_t *ids, int n, uint32_t *targets);

/* ---- segment.c ---- */

/* Lists the nodes that st->targets need, and describes them. False: error set. */
bool mb__segment_of(mb_context *ctx, mb__segment *s, uint32_t targets);
/* The same, of what lies between them and given[n], which count as values, as do a step's of a scan that has
 * not ended. */
bool mb__segment_beyond(mb_context *ctx, mb__segment *s, const uint32_t *given, int n, uint32_t targets);
/* One node, to be computed though it has its value, from its operands' values. */
bool mb__segment_of_node(mb_context *ctx, mb__segment *s, uint32_t id);
/* The same as a graph in the bump memory of g; operands by position in the list. */
mb_status mb__segment_graph(mb_context *ctx, const mb__segment *s, mb__graph *g);
void mb__segment_free(mb_context *ctx, mb__segment *s);

/* ---- piece.c ---- */

/* mb__engine's weigh. */
uint64_t mb__weigh_nodes(mb_context *ctx, const uint32_t *given, int n, const uint32_t *targets, int m,
                         mb__load *load);

/* ---- cache.c ---- */

/* The plan of a segment, made if there is none. */
mb_status mb__plan_for(mb_context *ctx, const mb__segment *s, mb__cached **found);
/* Those of the context's passes that a backend takes plans of. */
unsigned mb__passes_for(const mb__engine_state *st, const mb__backend *backend);
/* The plan alone, for a backend, in c->pool. */
mb_status mb__make_plan(mb_context *ctx, const mb__segment *s, const mb__backend *backend, unsigned passes,
                        mb__cached *c);
/* Drops every plan. */
void mb__cache_clear(mb_context *ctx);

/* ---- run.c, debug.c, debug_scan.c, oracle.c, residual.c ---- */

/* Bytes of the arena that a plan runs in. */
size_t mb__arena_bytes(const mb__plan *plan);
/* Computes what st->targets need; mb__compute_checked: one op at a time, each checked. */
mb_status mb__compute(mb_context *ctx, mb__engine_state *st, uint32_t targets);
mb_status mb__compute_checked(mb_context *ctx, mb__engine_state *st, uint32_t targets);
/* The first element at which two nodes of one shape, with values, differ by more than the root of the dtype's
 * precision, relative to the largest; -1: none does. False: error set. */
bool mb__first_difference(mb_context *ctx, uint32_t got, uint32_t want, int64_t *at, double numbers[2]);
/* The same for each step of a scan whose operands have their values; its results are not computed. */
mb_status mb__check_scan(mb_context *ctx, mb__engine_state *st, uint32_t scan,
                         mb_status (*compute)(mb_context *, mb__engine_state *, uint32_t));
/* Whether the oracle computes the same value for a node; the node and its operands must have their values.
 * Sets an error if not. */
bool mb__oracle_agrees(mb_context *ctx, uint32_t id);
void mb__oracle_close(mb__engine_state *st);
/* The backend that computes every dtype as doubles, opened at its first use. NULL: error set. */
const mb__backend *mb__oracle(mb_context *ctx);
/* A node's value as doubles, given back by mb__oracle_drop. NULL: error set. */
double *mb__oracle_fetch(mb_context *ctx, const mb__backend *asked, const mb__node *n);
void mb__oracle_drop(mb_context *ctx, const mb__node *n, double *values);
/* Has the oracle run a segment as it was last described, planned with these passes. MB_NO_MEMORY is not told.
 */
mb_status mb__oracle_ask(mb_context *ctx, const mb__segment *s, unsigned passes, double **inputs,
                         double **outputs);
/* A result that simplification changes, by more than rounding. */
typedef struct mb__rewritten {
    uint32_t node; /* 0: none */
    int64_t at;
    double got, want;
} mb__rewritten;
/* Looks at the outputs of the segment, of which nothing is computed yet. */
void mb__compare_rewritten(mb_context *ctx, const mb__segment *s, mb__rewritten *found);
/* Of an op on matrices, with values as doubles: the first element at which the result does not solve its
 * problem to rounding; -1: it does. */
int64_t mb__residual_off(mb_context *ctx, const mb__node *n, double *const *operands, const double *result);

/* ---- profile.c ---- */

/* Reads $MB_PROFILE; writes the table. */
void mb__profile_start(mb_context *ctx);
void mb__profile_end(mb_context *ctx);
/* A mb__host's `timed`. */
void mb__profile_add(void *user, const mb__plan *plan, int step, double seconds);

/* ---- dump.c ---- */

/* A plan that is being made, as far as it is made. */
typedef struct mb__making {
    const mb__backend *backend;
    const mb__graph *graph;
    const mb__fusion *fusion;
    mb__plan *plan;
    const char *loop; /* where the loop whose body it is was recorded; NULL: it is a plan of its own */
} mb__making;

/* Reads $MB_DUMP and $MB_DUMP_TO; frees what that allocated. */
void mb__dump_start(mb_context *ctx);
void mb__dump_end(mb_context *ctx);
/* Writes a stage (enum mb__stage) that was just made, if MB_DUMP selects it. False: error set. */
bool mb__dump_stage(mb_context *ctx, int stage, const mb__making *m);
bool mb__dump_wants_listings(const mb_context *ctx);
/* A mb__host's `listing`; an error is the context's. */
void mb__dump_listing(void *user, const mb__plan *plan, int step, const char *text, const void *code,
                      size_t bytes);

#endif
