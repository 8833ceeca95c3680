/* SPDX-License-Identifier: MIT
 *
 * loader.c - batches of rows, made ahead by threads.
 *
 * Batches are numbered over all epochs, and batch s is made in slot s % (threads + 2). Threads claim numbers
 * in order under the lock, and note there which rows they are: so one order, that of the epoch of the last
 * claim, is all that is kept, and which thread makes a batch changes nothing. A number is claimed once its
 * slot's former batch, threads + 2 before, can no longer be in the caller's hands. */
#include <pthread.h>

#include "tensor/files/order.h"
#include "tensor/internal.h"

enum { THREADS_MAX = 64, ALIGNMENT = 64 };
#define BYTES_MAX (INT64_C(1) << 48)

typedef struct column {
    mb_column of;
    size_t at;            /* in a slot's memory */
    size_t bytes, stored; /* of a row: in a batch, in the data */
    uint32_t value[256];  /* of each byte: a float32 or int32 */
} column;

typedef struct slot {
    int64_t done; /* the number of the batch that is here; -1: none yet. Under the lock. */
    int64_t count;
    uint32_t *rows;        /* [count] */
    unsigned char *memory; /* of all columns */
    const char *error;     /* the callback's, NULL: none */
    int64_t wrong;         /* the row that it is about */
} slot;

struct mb_loader {
    mb_context *ctx;
    mb_loader_options o;
    int64_t batches; /* of an epoch */
    int64_t size;    /* of this shard's part of a batch */
    column *columns;
    size_t slot_bytes;
    slot *slots;
    int slot_count;
    uint32_t *rows_memory;
    unsigned char *memory;
    void **targets; /* [slot_count, columns]: for the callback */

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t made, room;
    int64_t next, claimed; /* the number of the next batch to hand out, and to make */
    uint32_t *order;       /* [rows], of `epoch`; NULL: in order */
    int64_t epoch;         /* -1: none yet */
    bool stop;
    int threads; /* that run */
    pthread_t thread[THREADS_MAX];
};

/* ---- making a batch ---- */

/* Where a shard's part of a batch of `all` real rows begins: a short batch is divided as it is, a padded one
 * with its padding. */
static int64_t bound(const mb_loader *l, int64_t shard, int64_t all)
{
    if (l->o.last == MB_LAST_SHORT)
        return all * shard / l->o.shards;
    return shard * l->size < all ? shard * l->size : all;
}

/* Claims the next number: which rows it is. Under the lock, or without threads. */
static slot *claim(mb_loader *l)
{
    int64_t step = l->claimed++, epoch = step / l->batches, first = step % l->batches * l->o.batch;
    slot *s = &l->slots[step % l->slot_count];
    int64_t all = l->o.rows - first < l->o.batch ? l->o.rows - first : l->o.batch;
    int64_t begin = bound(l, l->o.shard, all);
    s->count = bound(l, l->o.shard + 1, all) - begin;
    if (l->order && epoch != l->epoch)
        mb__shuffle(l->o.key, (uint64_t)epoch, l->order, (uint32_t)l->o.rows);
    l->epoch = epoch;
    for (int64_t i = 0; i < s->count; i++)
        s->rows[i] = l->order ? l->order[first + begin + i] : (uint32_t)(first + begin + i);
    return s;
}

/* from: bytes, perhaps the last quarter of what `to` takes: each is read before it is written over. */
static void expand(const column *c, const unsigned char *from, unsigned char *to)
{
    for (size_t i = 0; i < c->stored; i++)
        memcpy(to + 4 * i, &c->value[from[i]], 4);
}

static unsigned char *place(const column *c, const slot *s, int64_t i)
{
    return s->memory + c->at + (size_t)i * c->bytes;
}

/* Where the callback writes: bytes at the end of the place of what they become. */
static unsigned char *written(const column *c, const slot *s, int64_t i)
{
    return place(c, s, i) + (c->bytes - c->stored);
}

static void copy_row(const column *c, const slot *s, int64_t i)
{
    const unsigned char *from = (const unsigned char *)c->of.data + (size_t)s->rows[i] * c->stored;
    if (c->of.bytes)
        expand(c, from, place(c, s, i));
    else if (c->bytes)
        memcpy(place(c, s, i), from, c->bytes);
}

/* The columns of the callback. */
static void call_for_row(const mb_loader *l, slot *s, int64_t i)
{
    int n = l->o.column_count;
    void **targets = l->targets + (s - l->slots) * n;
    for (int k = 0; k < n; k++)
        targets[k] = l->columns[k].of.data ? NULL : written(&l->columns[k], s, i);
    s->error = l->o.read(l->o.user, s->rows[i], targets);
    s->wrong = s->rows[i];
    for (int k = 0; k < n; k++)
        if (l->columns[k].of.bytes && !l->columns[k].of.data)
            expand(&l->columns[k], written(&l->columns[k], s, i), place(&l->columns[k], s, i));
}

static void fill(const mb_loader *l, slot *s)
{
    s->error = NULL;
    for (int64_t i = 0; i < s->count && !s->error; i++) {
        for (int k = 0; k < l->o.column_count; k++)
            if (l->columns[k].of.data)
                copy_row(&l->columns[k], s, i);
        if (l->o.read)
            call_for_row(l, s, i);
    }
    for (int k = 0; k < l->o.column_count; k++)
        memset(place(&l->columns[k], s, s->count), 0, (size_t)(l->size - s->count) * l->columns[k].bytes);
}

static void *run(void *user)
{
    mb_loader *l = user;
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        if (l->claimed >= l->next + l->threads) {
            pthread_cond_wait(&l->room, &l->lock);
            continue;
        }
        int64_t step = l->claimed;
        slot *s = claim(l);
        pthread_mutex_unlock(&l->lock);
        fill(l, s);
        pthread_mutex_lock(&l->lock);
        s->done = step;
        pthread_cond_signal(&l->made); /* one caller waits at most */
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- opening ---- */

static bool invalid(mb_context *ctx, const char *what)
{
    mb_fail(ctx, MB_INVALID, "loader: %s", what);
    return false;
}

static bool check_options(mb_context *ctx, const mb_loader_options *o)
{
    if (!o->columns || o->column_count < 1 || o->column_count > 1000)
        return invalid(ctx, "1 to 1000 columns are wanted");
    if (o->rows < 1 || o->rows > UINT32_MAX || o->batch < 1 || o->batch > UINT32_MAX || o->step < 0) {
        mb_fail(ctx, MB_INVALID,
                "loader: %lld rows in batches of %lld from step %lld on; wanted 1 to 2^32 - 1, and a step "
                "from 0 on",
                (long long)o->rows, (long long)o->batch, (long long)o->step);
        return false;
    }
    if (o->last < MB_LAST_SHORT || o->last > MB_LAST_PAD)
        return invalid(ctx, "`last` is none of MB_LAST_SHORT, MB_LAST_DROP and MB_LAST_PAD");
    if (o->last == MB_LAST_DROP && o->rows < o->batch)
        return invalid(ctx, "there are fewer rows than a batch has, and the last one is dropped");
    if (o->shards < 0 || o->shards > 1 << 30 || o->shard < 0 || o->shard >= (o->shards ? o->shards : 1) ||
        (o->shards && o->batch % o->shards)) {
        mb_fail(ctx, MB_INVALID,
                "loader: shard %lld of %lld, and %lld rows a batch; wanted a divisor of the batch",
                (long long)o->shard, (long long)o->shards, (long long)o->batch);
        return false;
    }
    if (o->threads < 0 || o->threads > THREADS_MAX)
        return invalid(ctx, "0 to 64 threads are wanted");
    return true;
}

static mb_shape batch_shape(const column *c, int64_t rows)
{
    mb_shape s = {c->of.shape.rank + 1, {rows}};
    memcpy(s.dim + 1, c->of.shape.dim, (size_t)c->of.shape.rank * sizeof *s.dim);
    return s;
}

/* Whether a column has a shape, with rows before it, and its options fit; its sizes. */
static bool set_column(mb_loader *l, column *c, int64_t rows)
{
    bool bytes = c->of.bytes, floats = c->of.dtype == MB_FLOAT32;
    if (c->of.shape.rank < 0 || c->of.shape.rank >= MB_MAX_RANK)
        return invalid(l->ctx, "a row has rank 0 to 7");
    mb_shape s = batch_shape(c, rows);
    if (!mb__check_shape(l->ctx, "loader", c->of.dtype, s))
        return false;
    if (!c->of.data && !l->o.read)
        return invalid(l->ctx, "a column without data, and no callback");
    if (bytes && !floats && c->of.dtype != MB_INT32)
        return invalid(l->ctx, "bytes become float32 or int32");
    if (!(bytes && floats) && (c->of.scale != 0 || c->of.offset != 0))
        return invalid(l->ctx, "scale and offset are for bytes that become float32");
    int64_t count = 1;
    for (int i = 1; i < s.rank; i++)
        count *= s.dim[i];
    c->bytes = (size_t)count * mb_dtype_size(c->of.dtype);
    c->stored = bytes ? (size_t)count : c->bytes;
    return true;
}

static void set_values(column *c)
{
    for (int v = 0; v < 256; v++) {
        float f = (float)(v * (c->of.scale != 0 ? c->of.scale : 1) + c->of.offset);
        int32_t i = v;
        memcpy(&c->value[v], c->of.dtype == MB_INT32 ? (void *)&i : (void *)&f, 4);
    }
}

static bool set_columns(mb_loader *l)
{
    int64_t most = l->o.rows > l->o.batch ? l->o.rows : l->o.batch;
    for (int k = 0; k < l->o.column_count; k++) {
        column *c = &l->columns[k];
        c->of = l->o.columns[k];
        if (!set_column(l, c, most))
            return false;
        set_values(c);
        c->at = l->slot_bytes;
        size_t bytes = (size_t)l->size * c->bytes;
        if (bytes > BYTES_MAX || l->slot_bytes > BYTES_MAX)
            return invalid(l->ctx, "a batch of more than 2^48 bytes");
        l->slot_bytes += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    l->o.columns = NULL; /* the caller's */
    return true;
}

static bool allocate(mb_loader *l)
{
    size_t slots = (size_t)l->slot_count, batch = (size_t)l->size, columns = (size_t)l->o.column_count;
    if (!(l->slots = mb__alloc(l->ctx, slots * sizeof *l->slots)) ||
        !(l->rows_memory = mb__alloc(l->ctx, slots * batch * sizeof *l->rows_memory)) ||
        !(l->memory = mb__alloc(l->ctx, slots * l->slot_bytes)) ||
        !(l->targets = mb__alloc(l->ctx, slots * columns * sizeof *l->targets)) ||
        (!l->o.in_order && !(l->order = mb__alloc(l->ctx, (size_t)l->o.rows * sizeof *l->order))))
        return false;
    for (size_t i = 0; i < slots; i++)
        l->slots[i] =
            (slot){.done = -1, .rows = l->rows_memory + i * batch, .memory = l->memory + i * l->slot_bytes};
    return true;
}

/* As many threads as the system gives; the loader works with none. */
static void start(mb_loader *l)
{
    pthread_mutex_lock(&l->lock);
    while (l->threads < l->o.threads && !pthread_create(&l->thread[l->threads], NULL, run, l))
        l->threads++;
    pthread_mutex_unlock(&l->lock);
}

mb_loader *mb_loader_open_at(const char *site, mb_context *ctx, mb_loader_options options)
{
    MB_SITE(ctx, site);
    if (!mb__enter_context("loader", ctx) || !check_options(ctx, &options))
        return NULL;
    mb_loader *l = mb__alloc(ctx, sizeof *l);
    if (!l)
        return NULL;
    l->ctx = ctx;
    l->o = options;
    l->o.shards = options.shards ? options.shards : 1;
    l->size = options.batch / l->o.shards;
    l->batches = (options.rows + (options.last == MB_LAST_DROP ? 0 : options.batch - 1)) / options.batch;
    l->slot_count = options.threads + 2;
    l->next = l->claimed = options.step;
    l->epoch = -1;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->made, NULL);
    pthread_cond_init(&l->room, NULL);
    l->columns = mb__alloc(ctx, (size_t)options.column_count * sizeof *l->columns);
    if (!l->columns || !set_columns(l) || !allocate(l)) {
        mb_loader_close(l);
        return NULL;
    }
    start(l);
    return l;
}

void mb_loader_close(mb_loader *l)
{
    if (!l || !mb__right_thread(l->ctx, "mb_loader_close"))
        return;
    size_t slots = (size_t)l->slot_count, batch = (size_t)l->size, columns = (size_t)l->o.column_count;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->room);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->threads; i++)
        pthread_join(l->thread[i], NULL);
    pthread_cond_destroy(&l->room);
    pthread_cond_destroy(&l->made);
    pthread_mutex_destroy(&l->lock);
    mb__free(l->ctx, l->order, (size_t)l->o.rows * sizeof *l->order);
    mb__free(l->ctx, l->targets, slots * columns * sizeof *l->targets);
    mb__free(l->ctx, l->memory, slots * l->slot_bytes);
    mb__free(l->ctx, l->rows_memory, slots * batch * sizeof *l->rows_memory);
    mb__free(l->ctx, l->slots, slots * sizeof *l->slots);
    mb__free(l->ctx, l->columns, columns * sizeof *l->columns);
    mb__free(l->ctx, l, sizeof *l);
}

/* ---- handing out ---- */

int64_t mb_loader_batches(const mb_loader *l)
{
    return l ? l->batches : 0;
}

int64_t mb_loader_step(const mb_loader *l)
{
    return l && mb__right_thread(l->ctx, "mb_loader_step") ? l->next : 0; /* only this thread writes it */
}

/* The next batch, made by a thread or here. NULL after an error. */
static const slot *next_slot(mb_loader *l)
{
    pthread_mutex_lock(&l->lock);
    int64_t step = l->next++;
    slot *s = &l->slots[step % l->slot_count];
    if (l->threads) {
        pthread_cond_broadcast(&l->room);
        while (s->done != step)
            pthread_cond_wait(&l->made, &l->lock);
    } else {
        fill(l, claim(l));
    }
    pthread_mutex_unlock(&l->lock);
    if (s->error)
        mb_fail(l->ctx, MB_IO, "loader: row %lld, of batch %lld: %s", (long long)s->wrong, (long long)step,
                s->error);
    return s->error ? NULL : s;
}

static mb_status begin(mb_loader *l, const void *columns)
{
    if (!mb__enter_context("loader", l->ctx))
        return mb_error(l->ctx) ? mb_error(l->ctx) : MB_THREAD;
    return columns ? MB_OK : mb_fail(l->ctx, MB_INVALID, "loader: no array for the columns");
}

mb_status mb_loader_next_memory_at(const char *site, mb_loader *l, const void **columns, int64_t *rows)
{
    MB_SITE(l ? l->ctx : NULL, site);
    if (rows)
        *rows = 0;
    mb_status status = l ? begin(l, columns) : MB_INVALID;
    for (int k = 0; l && columns && k < l->o.column_count; k++)
        columns[k] = NULL;
    const slot *s = status == MB_OK ? next_slot(l) : NULL;
    if (!s)
        return status == MB_OK ? mb_error(l->ctx) : status;
    for (int k = 0; k < l->o.column_count; k++)
        columns[k] = place(&l->columns[k], s, 0);
    if (rows)
        *rows = s->count;
    return MB_OK;
}

mb_status mb_loader_next_at(const char *site, mb_loader *l, mb_tensor *columns, int64_t *rows)
{
    MB_SITE(l ? l->ctx : NULL, site);
    if (rows)
        *rows = 0;
    mb_status status = l ? begin(l, columns) : MB_INVALID;
    for (int k = 0; l && columns && k < l->o.column_count; k++)
        columns[k] = (mb_tensor){NULL, 0, 0};
    const slot *s = status == MB_OK ? next_slot(l) : NULL;
    if (!s)
        return status == MB_OK ? mb_error(l->ctx) : status;
    int64_t size = l->o.last == MB_LAST_SHORT ? s->count : l->size;
    for (int k = 0; k < l->o.column_count; k++) {
        const column *c = &l->columns[k];
        columns[k] = mb_from(l->ctx, c->of.dtype, batch_shape(c, size), place(c, s, 0));
    }
    if (rows)
        *rows = s->count;
    return mb_error(l->ctx);
}
