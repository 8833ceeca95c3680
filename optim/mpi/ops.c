/* SPDX-License-Identifier: MIT
 *
 * ops.c - the collective ops, as ops of the user's: serial, computed on the host, with rules that record ops
 * of this file again. Data are flat on their way; shapes are restored by reshapes.
 */
#include "optim/mpi/internal.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

/* ---- computing ---- */

const char *mb__mpi_why(const void *user, const int64_t *attrs, int nattr)
{
    const mb_mpi *mpi = nattr ? mb__mpi_of(attrs[0]) : NULL;
    (void)user;
    return mpi ? mpi->sentence : "its mb_mpi handle is closed";
}

static void copy_out(const mb_core_data *out, const unsigned char *from, int64_t n)
{
    size_t e = mb__mpi_element(out->dtype);
    int64_t stride = out->rank ? out->stride[0] : 1;
    if (stride == 1)
        memcpy(out->at, from, (size_t)n * e);
    else
        for (int64_t i = 0; i < n; i++)
            memcpy((unsigned char *)out->at + i * stride * (int64_t)e, from + (size_t)i * e, e);
}

/* attrs: the handle, and what is to be done: kind and how. */
static mb_status compute(const void *user, const mb_core_data *in, const mb_core_data *out,
                         const int64_t *attrs, int nattr)
{
    mb_mpi *mpi = mb__mpi_of(attrs[0]);
    (void)user, (void)nattr;
    if (!mpi)
        return MB_INVALID;
    double began = MPI_Wtime();
    mb__mpi_header mine = {.kind = (int32_t)attrs[1],
                           .how = (int32_t)attrs[2],
                           .dtype = (int32_t)in->dtype,
                           .count = in->dim[0]};
    mb__mpi_operation *op = mb__mpi_begin(mpi, mine, in->at, in->stride[0]);
    if (op && mb__mpi_finish(mpi, op) == MB_OK) {
        copy_out(out, op->result, mb__mpi_result_count(mpi, &mine));
        mb__mpi_free(mpi, op);
    }
    mpi->counts.seconds += MPI_Wtime() - began;
    return mpi->broken;
}

static bool shape(const void *user, const mb_core *in, const int64_t *attrs, int nattr, mb_core *out,
                  char *text, size_t capacity)
{
    const mb_mpi *mpi = mb__mpi_of(attrs[0]);
    (void)user, (void)nattr;
    if (!mpi) {
        snprintf(text, capacity, "its mb_mpi handle is closed");
        return false;
    }
    out->dtype = in->dtype;
    out->dim[0] =
        mb__mpi_result_count(mpi, &(mb__mpi_header){.kind = (int32_t)attrs[1], .count = in->dim[0]});
    return true;
}

/* Of all collective ops, so that sentences begin with what the user has called. */
static const char *const names[] = {[MB__MPI_REDUCE] = "all_reduce",
                                    [MB__MPI_GATHER] = "all_gather",
                                    [MB__MPI_SCATTER] = "reduce_scatter",
                                    [MB__MPI_BROADCAST] = "broadcast_from"};

/* The op on x as it lies; y: [result]. */
static mb_tensor record(const char *site, mb_mpi *mpi, mb_tensor x, int kind, int how, mb_shape result)
{
    const mb_custom_op_spec spec = {.name = names[kind],
                                    .operands = 1,
                                    .results = 1,
                                    .core_in = {1},
                                    .core_out = {1},
                                    .shape = shape,
                                    .compute = compute,
                                    .on_host = true,
                                    .why = mb__mpi_why,
                                    .serial = true};
    const int64_t attrs[] = {mpi->number, kind, how};
    mb_tensor flat = mb_reshape_at(site, x, MB_SHAPE(-1)), y = {0};
    if (mb_count(x) == 0) /* -1 could be anything */
        flat = mb_reshape_at(site, x, MB_SHAPE(0));
    mb_custom_op_apply_at(site, mb_custom_op_new_at(site, x.ctx, &spec), &flat, attrs, 3, &y);
    return mb_reshape_at(site, y, result);
}

/* ---- rules ---- */

/* What a rule has to know: the same of each op and its derivatives. */
typedef struct rule {
    int64_t number;
    int kind, how;
} rule;

static mb_tensor collective(const char *site, mb_mpi *mpi, mb_tensor x, int kind, int how);

static mb_mpi *mpi_of(const rule *r, mb_context *ctx)
{
    mb_mpi *mpi = mb__mpi_of(r->number);
    if (!mpi)
        mb_fail(ctx, MB_INVALID, "%s: a derivative was asked for after its mb_mpi handle was closed",
                names[r->kind]);
    return mpi;
}

/* Of a maximum: 1 / k on each of the k ranks that have it, else 0, at each element. */
static mb_tensor share_of_maximum(mb_mpi *mpi, const mb_custom_at *at)
{
    mb_tensor has = mb_cast(mb_eq(at->xs[0], at->ys[0]), mb_dtype_of(at->xs[0]));
    return mb_div(has, collective(MB_HERE, mpi, has, MB__MPI_REDUCE, MB_REDUCE_SUM));
}

static mb_tensor reverse_of(const rule *r, mb_mpi *mpi, const mb_custom_at *at, mb_tensor v)
{
    switch (r->kind) {
    case MB__MPI_GATHER:
        return collective(MB_HERE, mpi, v, MB__MPI_SCATTER, 0);
    case MB__MPI_SCATTER:
        return collective(MB_HERE, mpi, v, MB__MPI_GATHER, 0);
    case MB__MPI_BROADCAST:
        v = collective(MB_HERE, mpi, v, MB__MPI_REDUCE, MB_REDUCE_SUM);
        return mb_mul(v, mpi->rank == r->how ? 1.0 : 0.0);
    default:
        if (r->how != MB_REDUCE_MAX)
            return collective(MB_HERE, mpi, v, r->kind, r->how);
        return mb_mul(share_of_maximum(mpi, at), collective(MB_HERE, mpi, v, r->kind, MB_REDUCE_SUM));
    }
}

static mb_status reverse(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                         mb_tensor *gs)
{
    mb_mpi *mpi = mpi_of(user, ctx);
    if (mpi && vs[0].ctx)
        gs[0] = reverse_of(user, mpi, at, vs[0]);
    return mb_error(ctx);
}

static mb_status forward(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *ts,
                         mb_tensor *us)
{
    const rule *r = user;
    mb_mpi *mpi = mpi_of(r, ctx);
    if (!mpi || !ts[0].ctx)
        return mb_error(ctx);
    if (r->kind == MB__MPI_REDUCE && r->how == MB_REDUCE_MAX)
        us[0] = collective(MB_HERE, mpi, mb_mul(share_of_maximum(mpi, at), ts[0]), r->kind, MB_REDUCE_SUM);
    else
        us[0] = collective(MB_HERE, mpi, ts[0], r->kind, r->how);
    return mb_error(ctx);
}

/* ---- recording ---- */

static mb_shape shape_after(const mb_mpi *mpi, mb_tensor x, int kind)
{
    mb_shape s = mb_shape_of(x);
    if (kind == MB__MPI_GATHER) {
        memmove(s.dim + 1, s.dim, (size_t)s.rank * sizeof *s.dim);
        s.dim[0] = mpi->size;
        s.rank++;
    } else if (kind == MB__MPI_SCATTER) {
        s.rank--;
        memmove(s.dim, s.dim + 1, (size_t)s.rank * sizeof *s.dim);
    }
    return s;
}

static mb_tensor collective(const char *site, mb_mpi *mpi, mb_tensor x, int kind, int how)
{
    return mb__mpi_with_rule(site, mpi, record(site, mpi, x, kind, how, shape_after(mpi, x, kind)), x, kind,
                             how);
}

static bool is_float(mb_dtype dtype)
{
    return dtype == MB_FLOAT32 || dtype == MB_FLOAT64 || dtype == MB_FLOAT16 || dtype == MB_BFLOAT16;
}

mb_tensor mb__mpi_with_rule(const char *site, mb_mpi *mpi, mb_tensor y, mb_tensor x, int kind, int how)
{
    if (!is_float(mb_dtype_of(x)))
        return y;
    const rule r = {mpi->number, kind, how};
    mb_custom_gradient_at(
        site, &y, 1, &x, 1,
        (mb_custom_rule){.reverse = reverse, .forward = forward, .user = &r, .user_bytes = sizeof r}, &y);
    return y;
}

/* Whether x can be given to the op; else the error is set. */
static bool fits(const char *site, mb_mpi *mpi, mb_tensor x, int kind, int how)
{
    if (!mb__mpi_usable(site, mpi, names[kind]))
        return false;
    mb_context *ctx = mpi->ctx;
    if (!mb_valid(x) || x.ctx != ctx) {
        mb_fail_at(site, ctx, MB_INVALID, "%s: the operand is no tensor of the handle's context",
                   names[kind]);
        return false;
    }
    mb_dtype dtype = mb_dtype_of(x);
    mb_shape s = mb_shape_of(x);
    bool floats = is_float(dtype), adds = kind == MB__MPI_REDUCE || kind == MB__MPI_SCATTER;
    if (!floats && (how == MB_REDUCE_MEAN && kind == MB__MPI_REDUCE))
        mb_fail_at(site, ctx, MB_INVALID, "%s: got %s; a mean is of floats", names[kind],
                   mb_dtype_name(dtype));
    else if (!floats && dtype != MB_INT32 && (dtype != MB_BOOL || adds))
        mb_fail_at(site, ctx, MB_INVALID, "%s: got %s; wanted floats or int32%s", names[kind],
                   mb_dtype_name(dtype), adds ? "" : ", or bool");
    else if (mb_count(x) > INT_MAX / mpi->size)
        mb_fail_at(site, ctx, MB_INVALID, "%s: %lld elements on each of %d ranks; at most 2^31 - 1 in all",
                   names[kind], (long long)mb_count(x), mpi->size);
    else if (kind == MB__MPI_SCATTER && (s.rank < 1 || s.dim[0] != mpi->size))
        mb_fail_at(site, ctx, MB_INVALID,
                   "%s: the first axis has size %lld; wanted one entry for each of %d ranks", names[kind],
                   s.rank ? (long long)s.dim[0] : 0, mpi->size);
    else if (kind == MB__MPI_GATHER && s.rank == MB_MAX_RANK)
        mb_fail_at(site, ctx, MB_INVALID, "%s: %d axes, and one more is too many", names[kind], s.rank);
    else
        return true;
    return false;
}

/* After an error: poison, as any op gives. */
static mb_tensor checked(const char *site, mb_mpi *mpi, mb_tensor x, int kind, int how)
{
    if (!mpi && x.ctx && mb_error(x.ctx) == MB_OK)
        mb_fail_at(site, x.ctx, MB_INVALID, "%s: no mb_mpi handle", names[kind]);
    return fits(site, mpi, x, kind, how) ? collective(site, mpi, x, kind, how)
                                         : mb_reshape_at(site, x, MB_SHAPE(-1));
}

mb_tensor mb_all_reduce_at(const char *site, mb_mpi *mpi, mb_tensor x, mb_reduction reduction)
{
    if (mpi && mb_error(mpi->ctx) == MB_OK && (reduction < MB_REDUCE_SUM || reduction > MB_REDUCE_MAX))
        mb_fail_at(site, mpi->ctx, MB_INVALID, "all_reduce: reduction %d is none of mb_reduction",
                   (int)reduction);
    return checked(site, mpi, x, MB__MPI_REDUCE, reduction);
}

mb_tensor mb_all_gather_at(const char *site, mb_mpi *mpi, mb_tensor x)
{
    return checked(site, mpi, x, MB__MPI_GATHER, 0);
}

mb_tensor mb_reduce_scatter_at(const char *site, mb_mpi *mpi, mb_tensor x)
{
    return checked(site, mpi, x, MB__MPI_SCATTER, 0);
}

mb_tensor mb_broadcast_from_at(const char *site, mb_mpi *mpi, mb_tensor x, int root)
{
    if (mpi && mb_error(mpi->ctx) == MB_OK && (root < 0 || root >= mpi->size))
        mb_fail_at(site, mpi->ctx, MB_INVALID, "broadcast_from: rank %d of %d", root, mpi->size);
    return checked(site, mpi, x, MB__MPI_BROADCAST, root);
}
