/* SPDX-License-Identifier: MIT
 *
 * axis_and_index.c - gather, scatter, sort, running sum: kernels written by hand; their sources describe
 * their regions. All are deterministic: sums are added in a fixed order.
 */
#include "backends/vulkan/program/program.h"

/* The longest rows that are sorted by counting, on GPUs and on processors; longer ones are merge-sorted. */
enum { COUNTED_MOST = 1024, COUNTED_MOST_PROCESSOR = 128 };

/* The number of loop iterations, of cost `each`, for an invocation in one dispatch: limited by the driver,
 * and by the time that `invocations` of them may take in a submit batch. */
static int64_t stretch(const mb__vk *v, int64_t each, int64_t invocations)
{
    int64_t slow = v->caps.processor ? INT32_MAX : 1 << 20; /* serial, reading memory */
    int64_t most = v->caps.iterations ? v->caps.iterations : slow,
            in_time = (int64_t)(v->batch_cost / 8 / (double)(invocations ? invocations : 1));
    most = most < in_time ? most : in_time;
    return most > 64 * each ? most / each : 64;
}

static bool finish(mb__vk_program *p, mb__vk_pipeline *pipeline, uint32_t region, int64_t groups, int step,
                   double cost)
{
    mb__vk_dispatch_add(p, pipeline, region, groups, step, cost);
    return !p->failed;
}

/* ---- along an axis ---- */

/* A dispatch of a kernel by rows.glsl; own: its own four words. */
static bool add_rows(mb__vk_program *p, int step, const mb__other *o, const char *kernel, int64_t groups,
                     uint32_t local, const int64_t own[4], double cost)
{
    mb__vk_pipeline *pipeline = mb__vk_pipeline_named(p, step, kernel, o->dtype, local);
    if (!pipeline)
        return false;
    mb__vk_slot slots[2] = {{o->in.value, o->in.offset}, {o->out.value, o->out.offset}};
    uint32_t region = mb__vk_region(p, slots, 2);
    int64_t n = o->in_dim[o->axis], rows = mb__numel(o->in_dim, o->in_rank) / n;
    const int64_t head[6] = {rows, n, 0, 0, o->in.stride[o->axis], o->out.stride[o->axis]};
    for (int i = 0; i < 6; i++)
        mb__vk_param(p, head[i]);
    for (int i = 0; i < 4; i++)
        mb__vk_param(p, own[i]);
    mb__vk_param(p, o->in_rank - 1);
    for (int i = 0; i < o->in_rank; i++) {
        if (i == o->axis)
            continue;
        mb__vk_param(p, o->in_dim[i]);
        mb__vk_param(p, o->in.stride[i]);
        mb__vk_param(p, o->out.stride[i]);
    }
    mb__vk_accesses(p, o->in.value, false);
    mb__vk_accesses(p, o->out.value, false); /* what was written by the dispatch before */
    mb__vk_accesses(p, o->out.value, true);
    return finish(p, pipeline, region, groups, step, cost);
}

static bool add_argmax(mb__vk_program *p, int step, const mb__other *o)
{
    const mb__vk *v = p->v;
    int64_t n = o->in_dim[o->axis], rows = mb__numel(o->in_dim, o->in_rank) / n;
    uint32_t lanes = v->caps.processor && n <= stretch(v, 1, rows) ? 1 : mb__vk_power_up(n, mb__vk_widest(v)),
             local = v->caps.processor ? (lanes > 32 ? lanes : 32) : mb__vk_widest(v);
    int64_t share = local / lanes, own[4] = {lanes};
    return add_rows(p, step, o, "argmax", (rows + share - 1) / share, local, own, 4.0 * (double)(rows * n));
}

static bool add_cumsum(mb__vk_program *p, int step, const mb__other *o)
{
    const mb__vk *v = p->v;
    int64_t n = o->in_dim[o->axis], rows = mb__numel(o->in_dim, o->in_rank) / n;
    bool maxima = o->op == MB_OP_CUMMAX; /* with one lane a row: the others' sums are not theirs */
    uint32_t lanes = maxima || v->caps.processor || rows > 4096 || n < 64
                         ? 1
                         : mb__vk_power_up(n, mb__vk_widest(v)),
             local = v->caps.processor ? 32 : mb__vk_widest(v);
    int64_t share = local / lanes, most = stretch(v, 1, rows);
    for (int64_t first = 0; first < n; first += most) {
        int64_t end = first + most < n ? first + most : n, own[4] = {lanes, maxima ? 2 : o->flag, first, end};
        if (!add_rows(p, step, o, "cumsum", (rows + share - 1) / share, local, own,
                      8.0 * (double)(rows * (end - first))))
            return false;
    }
    return true;
}

static bool add_argsort(mb__vk_program *p, int step, const mb__other *o)
{
    const mb__vk *v = p->v;
    int64_t n = o->in_dim[o->axis], rows = mb__numel(o->in_dim, o->in_rank) / n;
    uint32_t local = v->caps.processor ? 32 : mb__vk_widest(v);
    int64_t whole = (rows * n + local - 1) / local, way = o->flag ? 4 : 0;
    double cost = 8.0 * (double)(rows * n);
    if (n <= (v->caps.processor ? COUNTED_MOST_PROCESSOR : COUNTED_MOST)) {
        int64_t own[4] = {way, o->wanted};
        return add_rows(p, step, o, "argsort", whole, local, own, cost * (double)n);
    }
    int64_t begin[4] = {1}, end[4] = {3, o->wanted};
    if (!add_rows(p, step, o, "argsort", whole, local, begin, cost))
        return false;
    for (int64_t run = 1; run < n; run *= 2)
        for (int64_t k = run; k >= 1; k /= 2) {
            int64_t own[4] = {2 + way, run, k}, work = rows * ((n + 2 * k - 1) / (2 * k) * k);
            if (!add_rows(p, step, o, "argsort", (work + local - 1) / local, local, own, cost))
                return false;
        }
    return o->wanted == n || add_rows(p, step, o, "argsort", whole, local, end, cost);
}

/* ---- by an index ---- */

static bool add_take(mb__vk_program *p, int step, const mb__other *o)
{
    const mb__vk *v = p->v;
    int64_t count = mb__numel(o->out_dim, o->out_rank);
    uint32_t local = v->caps.processor ? 64 : mb__vk_widest(v);
    mb__vk_pipeline *pipeline = mb__vk_pipeline_named(p, step,
                                                      mb__vk_is_wide(o->dtype) ? "take_wide"
                                                      : mb__is_half(o->dtype)  ? "take_half"
                                                                               : "take",
                                                      -1, local);
    if (!pipeline)
        return false;
    mb__vk_slot slots[3] = {
        {o->in.value, o->in.offset}, {o->index.value, o->index.offset}, {o->out.value, o->out.offset}};
    uint32_t region = mb__vk_region(p, slots, 3);
    const int64_t head[7] = {count, o->in_dim[o->axis], o->in.stride[o->axis], 0, 0, 0, o->out_rank};
    for (int i = 0; i < 7; i++)
        mb__vk_param(p, head[i]);
    for (int i = 0; i < o->out_rank; i++) {
        int of_index = i - o->axis, after = i - o->index_rank + 1;
        bool indexed = of_index >= 0 && of_index < o->index_rank;
        mb__vk_param(p, o->out_dim[i]);
        mb__vk_param(p, indexed ? 0 : o->in.stride[i < o->axis ? i : after]);
        mb__vk_param(p, indexed ? o->index.stride[of_index] : 0);
        mb__vk_param(p, o->out.stride[i]);
    }
    mb__vk_accesses(p, o->in.value, false);
    mb__vk_accesses(p, o->index.value, false);
    mb__vk_accesses(p, o->out.value, true);
    return finish(p, pipeline, region, (count + local - 1) / local, step, 12.0 * (double)count);
}

static bool add_scatter(mb__vk_program *p, int step, const mb__other *o)
{
    const mb__vk *v = p->v;
    const mb__view whole = {o->out.value, 0, {1}};
    int64_t count = mb__numel(o->out_dim, o->out_rank);
    if (!mb__vk_add_fill(p, step, &whole, count, o->dtype, 0))
        return false;
    int64_t others = 1, entries = mb__numel(o->index_dim, o->index_rank), size = o->out_dim[o->axis];
    for (int i = 0; i < o->out_rank; i++)
        others *= i == o->axis ? 1 : o->out_dim[i];
    if (mb__numel(o->in_dim, o->in_rank) == 0)
        return true;
    uint32_t local = v->caps.processor ? 32 : mb__vk_widest(v);
    int64_t wanted = v->caps.processor ? 16 : 16384, parts = others < wanted ? wanted / others : 1;
    parts = parts < size ? parts : size;
    mb__vk_pipeline *pipeline = mb__vk_pipeline_named(p, step, "scatter_add", o->dtype, local);
    if (!pipeline)
        return false;
    /* The loop over the index's axes counts once even if it is skipped: inactive lanes go through it. */
    int64_t most = stretch(v, 2 + o->index_rank, others * parts);
    for (int64_t first = 0; first < entries; first += most) {
        int64_t end = first + most < entries ? first + most : entries;
        mb__vk_slot slots[3] = {
            {o->in.value, o->in.offset}, {o->index.value, o->index.offset}, {o->out.value, o->out.offset}};
        uint32_t region = mb__vk_region(p, slots, 3);
        const int64_t head[11] = {others, parts, first, end,           size,           o->out.stride[o->axis],
                                  0,      0,     0,     o->index_rank, o->out_rank - 1};
        for (int i = 0; i < 11; i++)
            mb__vk_param(p, head[i]);
        for (int i = 0; i < o->index_rank; i++) {
            mb__vk_param(p, o->index_dim[i]);
            mb__vk_param(p, o->in.stride[o->axis + i]);
            mb__vk_param(p, o->index.stride[i]);
        }
        for (int i = 0; i < o->out_rank; i++) {
            if (i == o->axis)
                continue;
            mb__vk_param(p, o->out_dim[i]);
            mb__vk_param(p, o->in.stride[i < o->axis ? i : i + o->index_rank - 1]);
            mb__vk_param(p, o->out.stride[i]);
        }
        mb__vk_accesses(p, o->in.value, false);
        mb__vk_accesses(p, o->index.value, false);
        mb__vk_accesses(p, o->out.value, false);
        mb__vk_accesses(p, o->out.value, true);
        if (!finish(p, pipeline, region, (others * parts + local - 1) / local, step,
                    8.0 * (double)(others * parts) * (double)(end - first)))
            return false;
    }
    return true;
}

/* ---- halves ---- */

/* Makes elements of another dtype from those of a view, which rounds them if they become halves. */
static bool add_cast(mb__vk_program *p, int step, const mb__view *from, int from_dtype, const mb__view *to,
                     int to_dtype, const int64_t *dim, int rank)
{
    mb__instr in[2] = {
        {.op = MB_K_LOAD, .dtype = (uint8_t)from_dtype, .from = (uint8_t)from_dtype, .view = *from},
        {.op = MB_OP_CAST, .dtype = (uint8_t)to_dtype, .from = (uint8_t)from_dtype, .view.value = -1}};
    for (int i = 0; i < 2; i++)
        in[i].bind = in[i].in[0] = in[i].in[1] = in[i].in[2] = -1;
    in[1].in[0] = 0;
    mb__store st = {.instr = 1, .mode = MB_STORE, .view = *to};
    mb__kernel k = {.rank = rank, .instrs = in, .stores = &st, .instr_count = 2, .store_count = 1};
    memcpy(k.dim, dim, (size_t)rank * sizeof *dim);
    if (rank == 0)
        k.dim[k.rank++] = 1;
    k.inner = 1;
    return mb__vk_add_kernel(p, step, &k);
}

/* A view of scratch in float32, its elements one after the other. */
static mb__view scratch_of(mb__vk_program *p, const int64_t *dim, int rank)
{
    mb__view v = {.value = mb__vk_scratch(p, mb__numel(dim, rank), MB_FLOAT32)};
    int64_t stride = 1;
    for (int i = rank; i-- > 0;) {
        v.stride[i] = stride;
        stride *= dim[i];
    }
    return v;
}

/* Kernels along an axis read and write float32: halves go there and back, and are rounded once. */
static bool add_in_float32(mb__vk_program *p, int step, const mb__other *o)
{
    mb__other x = *o;
    bool result = o->op != MB_OP_ARGMAX && o->op != MB_OP_ARGSORT;
    x.dtype = MB_FLOAT32;
    x.in = scratch_of(p, o->in_dim, o->in_rank);
    if (result)
        x.out = scratch_of(p, o->out_dim, o->out_rank);
    if (o->op == MB_OP_TRIANGULAR_SOLVE) {
        x.index = scratch_of(p, o->index_dim, o->index_rank);
        if (p->failed ||
            !add_cast(p, step, &o->index, o->dtype, &x.index, MB_FLOAT32, o->index_dim, o->index_rank))
            return false;
    }
    return !p->failed &&
           (mb__numel(o->in_dim, o->in_rank) == 0 ||
            add_cast(p, step, &o->in, o->dtype, &x.in, MB_FLOAT32, o->in_dim, o->in_rank)) &&
           mb__vk_add_other(p, step, &x) &&
           (!result || add_cast(p, step, &x.out, MB_FLOAT32, &o->out, o->dtype, o->out_dim, o->out_rank));
}

bool mb__vk_add_other(mb__vk_program *p, int step, const mb__other *o)
{
    bool empty = mb__numel(o->in_dim, o->in_rank) == 0;
    if (mb__is_half(o->dtype) && o->op != MB_OP_TAKE)
        return mb__numel(o->out_dim, o->out_rank) == 0 || add_in_float32(p, step, o);
    switch (o->op) {
    case MB_OP_TAKE:
        return mb__numel(o->out_dim, o->out_rank) == 0 || add_take(p, step, o);
    case MB_OP_SCATTER_ADD:
        return mb__numel(o->out_dim, o->out_rank) == 0 || add_scatter(p, step, o);
    case MB_OP_ARGMAX:
        return empty || add_argmax(p, step, o);
    case MB_OP_CUMSUM:
    case MB_OP_CUMMAX:
        return empty || add_cumsum(p, step, o);
    case MB_OP_ARGSORT:
        return empty || add_argsort(p, step, o);
    case MB_OP_CHOLESKY:
    case MB_OP_TRIANGULAR_SOLVE:
        return mb__numel(o->out_dim, o->out_rank) == 0 || mb__vk_add_matrix(p, step, o);
    default:
        return mb__vk_fail(p->v, MB_BACKEND, p->plan->steps[step].site, "vulkan: there is no kernel for %s",
                           mb__ops[o->op].name);
    }
}
