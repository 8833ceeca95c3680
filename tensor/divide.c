/* SPDX-License-Identifier: MIT
 *
 * divide.c - a scan's steps as blocks: a scan over blocks, each of which is a scan over its steps, and one
 * more for the steps that are left. The reverse sweep of a scan computes each step's body again from the
 * carries at its beginning; where that body is a block, a gradient stores the carries of blocks, and those of
 * the steps of one block.
 */
#include "tensor/copy.h"
#include "tensor/scan.h"

#include <math.h>

typedef struct dividing {
    mb_context *ctx;
    uint32_t scan; /* whose inside is copied */
    mb__scan_view of;
    int ins, outs; /* carries and slices; carries and stacks, without those of carries */
    int64_t keep;
} dividing;

/* A divisor of steps that is not far from b, if there is one; then no steps are left over. */
static int64_t even(int64_t steps, int64_t b)
{
    for (int64_t away = 0; 3 * away <= b; away++) {
        if (b > away + 1 && steps % (b - away) == 0)
            return b - away;
        if (steps % (b + away) == 0)
            return b + away;
    }
    return b;
}

/* How many steps a block has; all of them, where they are not divided. */
static int64_t block_of(const dividing *d, int64_t steps, int depth)
{
    enum { BLOCKS = 4 }; /* a level of MB_KEEP_LOG */
    if (d->keep == MB_KEEP_LOG)
        return steps > BLOCKS ? even(steps, (steps + BLOCKS - 1) / BLOCKS) : steps;
    if (depth)
        return steps;
    return d->keep == MB_KEEP_SQRT ? even(steps, (int64_t)ceil(sqrt((double)steps))) : d->keep;
}

static uint32_t placeholder(mb_context *ctx, uint32_t like, int skip)
{
    mb__node n = *mb__at(ctx, like);
    return mb__placeholder(ctx, (mb_dtype)n.dtype, n.rank - skip, n.dim + skip).id;
}

/* Entries [start, start + count] of the first axis; with blocks > 0, of those so many along an axis in front.
 */
static uint32_t part(mb_context *ctx, uint32_t id, int64_t start, int64_t count, int64_t blocks)
{
    mb_tensor t = mb_slice(mb__handle(ctx, id), 0, start, count, 1);
    if (!blocks || !t.id)
        return t.id;
    mb_shape shape = mb_shape_of(t);
    if (shape.rank == MB_MAX_RANK) {
        mb__error(ctx, MB_INVALID,
                  "scan_end: keep_every divides %d axes; it wants one more, and %d is the most", MB_MAX_RANK,
                  MB_MAX_RANK);
        return 0;
    }
    memmove(shape.dim + 1, shape.dim, (size_t)shape.rank++ * sizeof *shape.dim);
    shape.dim[0] = blocks;
    shape.dim[1] = count / blocks;
    return mb_reshape(t, shape).id;
}

/* [blocks, steps, ...] -> [blocks * steps, ...] */
static mb_tensor joined(mb_context *ctx, uint32_t id)
{
    mb_tensor t = mb__handle(ctx, id);
    mb_shape shape = mb_shape_of(t);
    shape.dim[1] *= shape.dim[0];
    memmove(shape.dim, shape.dim + 1, (size_t)--shape.rank * sizeof *shape.dim);
    return mb_reshape(t, shape);
}

static bool run(const dividing *d, int64_t steps, int depth, const uint32_t *in, uint32_t *out);

/* The copy of the inside, or a scan over the steps of a block, as the body of a scan. */
static bool body(const dividing *d, int64_t block, int depth, const uint32_t *in, uint32_t *out,
                 const uint32_t *afters, uint32_t *befores)
{
    if (block)
        return run(d, block, depth + 1, in, out);
    mb_context *ctx = d->ctx;
    size_t captures = (size_t)d->of.captures + 1, results = (size_t)(d->of.carries + d->of.stacks) + 1;
    MB_TEMPORARY(ctx);
    uint32_t *words = mb__temporary(ctx, (captures + results) * sizeof *words);
    if (!words)
        return false;
    for (int i = 0; i < d->of.captures; i++)
        words[i] = mb__in(ctx, mb__at(ctx, d->scan), 1 + d->ins + i);
    const mb__inside to = {.placeholders = in,
                           .captures = words,
                           .results = words + captures,
                           .afters = afters,
                           .befores = befores};
    bool ok = mb__copy_inside(ctx, d->scan, &to);
    if (ok)
        memcpy(out, words + captures, (size_t)d->outs * sizeof *out);
    return ok;
}

/* A scan of so many steps, whose body is a block, or with block 0 the inside itself. in: what its carries
 * begin with, and what it slices. */
static bool record(const dividing *d, int64_t steps, int64_t block, int depth, const uint32_t *in,
                   uint32_t *out)
{
    mb_context *ctx = d->ctx;
    bool reversible = d->of.reversible && !block;
    int inverses = reversible ? d->of.carries : 0;
    size_t bytes = (size_t)(d->ins + 3 * d->of.carries + 1) * (sizeof(mb__bound) + sizeof *in);
    MB_TEMPORARY(ctx);
    mb__bound *bounds = mb__temporary(ctx, bytes);
    if (!bounds)
        return false;
    mb__bound *inverse = bounds + d->ins;
    uint32_t *at = (uint32_t *)(bounds + d->ins + d->of.carries + 1), first = ctx->node_count, scan = 0;
    uint32_t *afters = at + d->ins, *befores = afters + inverses;
    for (int i = 0; i < inverses && mb_error(ctx) == MB_OK; i++)
        afters[i] = placeholder(ctx, in[i], 0);
    for (int i = 0; i < d->ins && mb_error(ctx) == MB_OK; i++) {
        at[i] = placeholder(ctx, in[i], i >= d->of.carries);
        bounds[i] = (mb__bound){NULL, at[i], in[i]};
    }
    if (mb_error(ctx) == MB_OK && body(d, block, depth, at, out, reversible ? afters : NULL, befores)) {
        for (int i = 0; i < inverses; i++)
            inverse[i] = (mb__bound){NULL, afters[i], befores[i]};
        const mb__loop_parts parts = {.steps = steps,
                                      .backwards = d->of.backwards,
                                      .first = first,
                                      .carries = d->of.carries,
                                      .slices = d->of.slices,
                                      .stacks = d->outs - d->of.carries,
                                      .carry = bounds,
                                      .slice = bounds + d->of.carries,
                                      .next = out,
                                      .stack = out + d->of.carries,
                                      .inverse = reversible ? inverse : NULL,
                                      .until = d->of.until,
                                      .idle = d->of.idle};
        scan = mb__scan_record(ctx, &parts);
    }
    for (int i = 0; i < d->outs && scan; i++)
        out[i] = scan + 1 + (uint32_t)i;
    return scan != 0;
}

/* `blocks` blocks, and what is left, in the order that the steps run in. */
static bool run_parts(const dividing *d, int64_t steps, int64_t block, int depth, uint32_t *in, uint32_t *out)
{
    mb_context *ctx = d->ctx;
    int carries = d->of.carries;
    int64_t whole = steps / block * block;
    uint32_t *slices = in + d->ins, *stacks = out + d->outs; /* as given; of the two parts */
    memcpy(slices, in + carries, (size_t)d->of.slices * sizeof *in);
    for (int p = 0; p < 2; p++) {
        bool rest = d->of.backwards ? p == 0 : p == 1;
        int64_t count = rest ? steps - whole : whole;
        if (!count)
            continue;
        for (int i = 0; i < d->of.slices && mb_error(ctx) == MB_OK; i++)
            in[carries + i] = part(ctx, slices[i], rest ? whole : 0, count, rest ? 0 : whole / block);
        if (mb_error(ctx) != MB_OK ||
            !(rest ? run(d, count, depth, in, out) : record(d, whole / block, block, depth, in, out)))
            return false;
        memcpy(in, out, (size_t)carries * sizeof *in);
        for (int i = carries; i < d->outs; i++)
            stacks[(rest ? d->outs : 0) + i] = out[i];
    }
    for (int i = carries; i < d->outs && mb_error(ctx) == MB_OK; i++) {
        mb_tensor both[2] = {joined(ctx, stacks[i]), mb__poison(ctx)};
        if (whole < steps)
            both[1] = mb__handle(ctx, stacks[d->outs + i]);
        out[i] = whole < steps ? mb_concat(both, 2, 0).id : both[0].id;
    }
    return mb_error(ctx) == MB_OK;
}

static bool run(const dividing *d, int64_t steps, int depth, const uint32_t *in, uint32_t *out)
{
    int64_t block = block_of(d, steps, depth);
    if (block <= 1 || block >= steps)
        return record(d, steps, 0, depth, in, out);
    mb_context *ctx = d->ctx;
    size_t words = (size_t)(2 * d->ins + 3 * d->outs) + 1;
    MB_TEMPORARY(ctx);
    uint32_t *own = mb__temporary(ctx, words * sizeof *own);
    if (!own)
        return false;
    uint32_t *results = own + 2 * d->ins;
    memcpy(own, in, (size_t)d->ins * sizeof *in);
    bool ok = run_parts(d, steps, block, depth, own, results);
    memcpy(out, results, (size_t)d->outs * sizeof *out);
    return ok;
}

bool mb__scan_divide(mb_context *ctx, uint32_t scan, int64_t keep, uint32_t *results)
{
    dividing d = {.ctx = ctx, .scan = scan, .of = mb__scan_of(ctx, scan), .keep = keep};
    d.ins = d.of.carries + d.of.slices;
    d.outs = d.of.stacks; /* carries, and all stacks but the carries' own */
    MB_TEMPORARY(ctx);
    uint32_t *in = mb__temporary(ctx, ((size_t)d.ins + 1) * sizeof *in);
    if (!in)
        return false;
    for (int i = 0; i < d.ins; i++)
        in[i] = mb__in(ctx, mb__at(ctx, scan), 1 + i);
    bool ok = run(&d, d.of.steps, 0, in, results);
    return ok;
}
