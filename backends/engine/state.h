/* SPDX-License-Identifier: MIT
 * state.h - the state of a context's engine: its backend, plan cache, buffer pool. Private to
 * backends/engine/. */
#ifndef MB_ENGINE_STATE_H
#define MB_ENGINE_STATE_H

#include "backends/engine/backends.h"
#include "backends/plan/backend.h"

typedef struct mb__cached {
    struct mb__cached *next_in_bucket, *newer, *older;
    uint64_t hash;
    size_t key_bytes, bytes;
    unsigned char *key;
    mb__bump pool; /* holds the plan and this key */
    mb__plan plan;
    void *program; /* the backend's */
} mb__cached;

enum { MB_POOL_CLASSES = 64, MB_BUCKETS = 1024 };

typedef struct mb__engine_state {
    const mb__backend *backend;
    void *backend_state;
    unsigned passes;
    bool debug;
    mb_status opened; /* MB_OK, or why the backend could not be opened: nothing is computed then */
    /* plan cache: hash buckets, and a list by last use */
    mb__cached *buckets[MB_BUCKETS], *newest, *oldest;
    size_t cache_bytes, cache_limit;
    /* memory */
    mb__buffer *pool[MB_POOL_CLASSES]; /* unused buffers by size class */
    void *arena;
    size_t arena_bytes;
    /* scratch of a flush, kept between flushes */
    uint32_t *mark, *dense, *list, *targets; /* by node id; by node id; needed nodes ascending */
    uint32_t mark_room, dense_room, list_room, target_room, serial;
    unsigned char *key;
    uint32_t key_room, key_bytes;
    void **inputs, **outputs;
    double *scalars;
    mb__buffer **fresh;
    uint32_t input_room, output_room, scalar_room, fresh_room;
    mb_stats stats;
    uint32_t tape_before, growths; /* nodes at the last flush; flushes in a row that found more */
    struct mb__profile *profile;   /* NULL: not asked for */
    void (*log)(void *user, const char *line);
    void *log_user;
} mb__engine_state;

extern const mb__engine mb__the_engine;

mb__buffer *mb__buffer_new(mb_context *ctx, mb_dtype dtype, int64_t count);
void mb__buffer_release(mb_context *ctx, mb__buffer *b);
void mb__pool_clear(mb_context *ctx);

/* ---- segment.c: the nodes that a flush needs ---- */

/* Lists in st->list the nodes that st->targets need, ascending; targets carry the lowest bit of their mark.
 */
bool mb__segment_collect(mb_context *ctx, mb__engine_state *st, uint32_t targets, uint32_t *count);
/* Adds what a plan depends on of a node to st->key. */
bool mb__segment_key_node(mb_context *ctx, mb__engine_state *st, const mb__node *n, bool output);
/* The listed nodes as a graph; operands by position in the list. */
bool mb__segment_graph(mb_context *ctx, uint32_t count, mb__graph *g);

/* Computes what st->targets need; mb__compute_checked: one op at a time, each looked at. */
mb_status mb__compute(mb_context *ctx, mb__engine_state *st, uint32_t targets);
mb_status mb__compute_checked(mb_context *ctx, mb__engine_state *st, uint32_t targets);

/* The plan of the segment whose nodes are st->list, made if there is none. NULL: error set. */
mb__cached *mb__plan_for(mb_context *ctx, uint32_t count, uint64_t hash);
/* The plan alone, and its program by st->backend, in c. */
bool mb__make_plan(mb_context *ctx, uint32_t count, mb__cached *c);
void mb__cache_clear(mb_context *ctx);
/* Whether the reference backend computes a node that has its value, and whose operands do, alike; else an
 * error. */
bool mb__check_node(mb_context *ctx, uint32_t id);

/* $MB_PROFILE is read; the table is written. */
void mb__profile_start(mb_context *ctx);
void mb__profile_end(mb_context *ctx);

/* The devices of backends/vulkan; why: as for mb_devices. */
int mb__vk_list(mb_device *out, int room, const char **why);

#endif
