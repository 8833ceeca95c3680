/* SPDX-License-Identifier: MIT
 *
 * training.c - one model on many ranks: means of gradients, the same parameters, and checkpoints.
 *
 * A bucket is two ops. The first gives its data to MPI and is early (tensor/custom_op.h), so that a plan has
 * it in the middle of the backward sweep; its result is a ticket, by which the second, where the mean is
 * needed, waits for it.
 */
#include "optim/mpi/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUCKET_LEAST     (INT64_C(1) << 20)
#define BUCKET_OF_A_RANK (INT64_C(8) << 10)

/* ---- a bucket ---- */

/* attrs: the handle. */
static mb_status begin(const void *user, const mb_core_data *in, const mb_core_data *out,
                       const int64_t *attrs, int nattr)
{
    mb_mpi *mpi = mb__mpi_of(attrs[0]);
    (void)user, (void)nattr;
    if (!mpi)
        return MB_INVALID;
    double began = MPI_Wtime();
    mb__mpi_header mine = {
        .kind = MB__MPI_REDUCE, .how = MB_REDUCE_MEAN, .dtype = (int32_t)in->dtype, .count = in->dim[0]};
    mb__mpi_operation *op = mb__mpi_begin(mpi, mine, in->at, in->stride[0]);
    if (op) {
        op->ticket = mpi->tickets = mpi->tickets < INT32_MAX ? mpi->tickets + 1 : 1;
        *(int32_t *)out->at = op->ticket;
        mb__mpi_advance(mpi);
    }
    mpi->counts.seconds += MPI_Wtime() - began;
    return mpi->broken;
}

static bool begin_shape(const void *user, const mb_core *in, const int64_t *attrs, int nattr, mb_core *out,
                        char *text, size_t room)
{
    (void)user, (void)in, (void)attrs, (void)nattr, (void)text, (void)room;
    out->dtype = MB_INT32;
    return true;
}

/* attrs: the handle, dtype, count. */
static mb_status end(const void *user, const mb_core_data *in, const mb_core_data *out, const int64_t *attrs,
                     int nattr)
{
    mb_mpi *mpi = mb__mpi_of(attrs[0]);
    (void)user, (void)nattr;
    if (!mpi)
        return MB_INVALID;
    double began = MPI_Wtime();
    mb__mpi_operation *op = mb__mpi_ticket(mpi, *(const int32_t *)in->at);
    if (!op || op->mine.dtype != (int32_t)out->dtype || op->mine.count != out->dim[0])
        return mb__mpi_break(mpi, MB_INVALID, "a bucket that was not begun, or waited for twice");
    if (mb__mpi_finish(mpi, op) == MB_OK) {
        memcpy(out->at, op->result, (size_t)op->mine.count * op->element);
        mb__mpi_free(mpi, op);
    }
    mpi->counts.seconds += MPI_Wtime() - began;
    return mpi->broken;
}

static bool end_shape(const void *user, const mb_core *in, const int64_t *attrs, int nattr, mb_core *out,
                      char *text, size_t room)
{
    (void)user, (void)in, (void)nattr, (void)text, (void)room;
    out->dtype = (mb_dtype)attrs[1];
    out->dim[0] = attrs[2];
    return true;
}

static mb_tensor begin_mean(const char *site, mb_mpi *mpi, mb_tensor flat)
{
    const mb_custom_op_spec spec = {.name = "mean_gradients_begin",
                                    .operands = 1,
                                    .results = 1,
                                    .core_in = {1},
                                    .core_out = {0},
                                    .shape = begin_shape,
                                    .compute = begin,
                                    .on_host = true,
                                    .why = mb__mpi_why,
                                    .serial = true,
                                    .early = true};
    const int64_t attrs[] = {mpi->number};
    mb_tensor ticket = {0};
    mb_custom_op_apply_at(site, mb_custom_op_new_at(site, flat.ctx, &spec), &flat, attrs, 1, &ticket);
    return ticket;
}

static mb_tensor end_mean(const char *site, mb_mpi *mpi, mb_tensor ticket, mb_tensor flat)
{
    const mb_custom_op_spec spec = {.name = "mean_gradients",
                                    .operands = 1,
                                    .results = 1,
                                    .core_in = {0},
                                    .core_out = {1},
                                    .shape = end_shape,
                                    .compute = end,
                                    .on_host = true,
                                    .why = mb__mpi_why,
                                    .serial = true};
    const int64_t attrs[] = {mpi->number, mb_dtype_of(flat), mb_count(flat)};
    mb_tensor mean = {0};
    mb_custom_op_apply_at(site, mb_custom_op_new_at(site, flat.ctx, &spec), &ticket, attrs, 3, &mean);
    return mb__mpi_with_rule(site, mpi, mean, flat, MB__MPI_REDUCE, MB_REDUCE_MEAN);
}

/* ---- all of them ---- */

typedef struct bucket {
    int first, count; /* of the gradients */
    mb_tensor flat, ticket;
} bucket;

/* gs[first, first + count), one after the other. */
static mb_tensor flatten(const char *site, const mb_tensor *gs, bucket b, mb_tensor *room)
{
    for (int i = 0; i < b.count; i++) {
        int64_t n = mb_count(gs[b.first + i]);
        room[i] = mb_reshape_at(site, gs[b.first + i], MB_SHAPE(n));
    }
    return b.count == 1 ? room[0] : mb_concat_at(site, room, b.count, 0);
}

static void restore(const char *site, mb_tensor *gs, bucket b, mb_tensor mean)
{
    int64_t at = 0;
    for (int i = b.first; i < b.first + b.count; i++) {
        mb_shape shape = mb_shape_of(gs[i]);
        int64_t n = mb_count(gs[i]);
        gs[i] = mb_reshape_at(site, b.count == 1 ? mean : mb_slice_at(site, mean, 0, at, n, 1), shape);
        at += n;
    }
}

/* From the last gradient to the first; returns how many buckets there are. */
static int divide(const mb_tensor *gs, int n, int64_t bytes, bucket *buckets)
{
    int count = 0;
    int64_t filled = 0;
    for (int i = n; i-- > 0;) {
        int64_t size = mb_count(gs[i]) * (int64_t)mb__mpi_element(mb_dtype_of(gs[i]));
        bool open = count > 0 && filled < bytes && mb_dtype_of(gs[i]) == mb_dtype_of(gs[i + 1]);
        if (!open) {
            buckets[count++] = (bucket){.first = i + 1};
            filled = 0;
        }
        buckets[count - 1].first--;
        buckets[count - 1].count++;
        filled += size;
    }
    return count;
}

static mb_status mean_gradients(const char *site, mb_mpi *mpi, mb_tensor *gs, int n, int64_t bytes,
                                bucket *buckets, mb_tensor *room)
{
    int count = divide(gs, n, bytes, buckets);
    for (int i = 0; i < count; i++) {
        buckets[i].flat = flatten(site, gs, buckets[i], room);
        if (!mpi->at_once)
            buckets[i].ticket = begin_mean(site, mpi, buckets[i].flat);
    }
    for (int i = 0; i < count && mb_error(mpi->ctx) == MB_OK; i++) {
        mb_tensor flat = buckets[i].flat;
        restore(site, gs, buckets[i],
                mpi->at_once ? mb_all_reduce_at(site, mpi, flat, MB_REDUCE_MEAN)
                             : end_mean(site, mpi, buckets[i].ticket, flat));
    }
    return mb_error(mpi->ctx);
}

mb_status mb_mean_gradients_at(const char *site, mb_mpi *mpi, mb_tensor *gs, int n, int64_t bucket_bytes)
{
    if (!mb__mpi_usable(site, mpi, "mean_gradients"))
        return mpi ? mb_error(mpi->ctx) : MB_NO_MEMORY;
    mb_context *ctx = mpi->ctx;
    if (n < 0 || bucket_bytes < 0 || (n > 0 && !gs))
        return mb_fail_at(site, ctx, MB_INVALID, "mean_gradients: %s, n = %d, buckets of %lld bytes",
                          gs ? "an array" : "no array", n, (long long)bucket_bytes);
    for (int i = 0; i < n; i++) {
        bool ok = mb_valid(gs[i]) && gs[i].ctx == ctx;
        mb_dtype dtype = mb_dtype_of(gs[i]);
        if (!ok || (dtype != MB_FLOAT32 && dtype != MB_FLOAT64) ||
            mb_count(gs[i]) > INT32_MAX / 2 / mpi->size)
            return mb_fail_at(
                site, ctx, MB_INVALID,
                "mean_gradients: gradient %d is no tensor of float32 or float64 of this context, "
                "of fewer than 2^30 elements for all ranks together",
                i);
    }
    if (mpi->size == 1 || n == 0)
        return MB_OK;
    int64_t least = BUCKET_OF_A_RANK * mpi->size;
    if (bucket_bytes == 0)
        bucket_bytes = least > BUCKET_LEAST ? least : BUCKET_LEAST;
    bucket *buckets = calloc((size_t)n, sizeof *buckets);
    mb_tensor *room = calloc((size_t)n, sizeof *room);
    mb_status status = buckets && room ? mean_gradients(site, mpi, gs, n, bucket_bytes, buckets, room)
                                       : mb_fail_at(site, ctx, MB_NO_MEMORY, "mean_gradients: out of memory");
    free(buckets);
    free(room);
    return status;
}

/* The optimiser keeps no handle, but its number: it may be closed. */
static mb_status through(void *user, mb_context *ctx, mb_tensor *gs, int n)
{
    mb_mpi *mpi = mb__mpi_of((intptr_t)user);
    if (!mpi)
        return mb_fail(ctx, MB_INVALID, "mean_gradients: the optimiser's mb_mpi handle is closed");
    return mb_mean_gradients(mpi, gs, n, mpi->bucket_bytes);
}

mb_status mb_mpi_share_gradients_at(const char *site, mb_mpi *mpi, mb_optimizer *opt, int64_t bucket_bytes)
{
    if (!mb__mpi_usable(site, mpi, "mpi_share_gradients"))
        return mpi ? mb_error(mpi->ctx) : MB_NO_MEMORY;
    if (!opt || bucket_bytes < 0)
        return mb_fail_at(site, mpi->ctx, MB_INVALID, "mpi_share_gradients: %s, buckets of %lld bytes",
                          opt ? "an optimiser" : "no optimiser", (long long)bucket_bytes);
    mpi->bucket_bytes = bucket_bytes;
    mb_optimizer_set_through(opt, through, (void *)(intptr_t)mpi->number);
    return MB_OK;
}

/* ---- parameters and checkpoints ---- */

mb_status mb_params_broadcast_at(const char *site, mb_mpi *mpi, mb_params *p, int root)
{
    if (!mb__mpi_usable(site, mpi, "params_broadcast"))
        return mpi ? mb_error(mpi->ctx) : MB_NO_MEMORY;
    mb_scope scope = mb_scope_begin_at(site, mpi->ctx);
    for (int i = 0; i < mb_params_count(p); i++) {
        mb_tensor t = mb_params_tensor(p, i);
        mb_assign_at(site, t, mb_broadcast_from_at(site, mpi, mb_stop_gradient_at(site, t), root));
    }
    mb_scope_end_at(site, scope);
    return mb_error(mpi->ctx);
}

/* What has been recorded and assigned may hold collective ops: computed by all ranks, before one of them does
 * what the others do not. */
static void settle(const char *site, mb_mpi *mpi)
{
    mb_scope scope = mb_scope_begin_at(site, mpi->ctx);
    mb_tensor nothing = mb_full_at(site, mpi->ctx, MB_FLOAT32, MB_SHAPE0, 0);
    mb_eval_at(site, &nothing, 1);
    mb_scope_end_at(site, scope);
}

mb_status mb_mpi_optimizer_save_at(const char *site, mb_mpi *mpi, const mb_optimizer *opt, const char *path)
{
    if (!mpi)
        return MB_NO_MEMORY;
    settle(site, mpi);
    if (mpi->rank == 0 && mb_error(mpi->ctx) == MB_OK)
        mb_optimizer_save_at(site, opt, path);
    return mb_mpi_agree_at(site, mpi);
}

mb_status mb_mpi_optimizer_load_at(const char *site, mb_mpi *mpi, mb_optimizer *opt, const char *path)
{
    if (!mpi)
        return MB_NO_MEMORY;
    settle(site, mpi);
    int64_t steps = mb_optimizer_load_at(site, opt, path) == MB_OK ? mb_optimizer_steps(opt) : 0;
    return mb__mpi_agree_on(site, mpi, (int32_t)(steps % INT32_MAX) + 1);
}
