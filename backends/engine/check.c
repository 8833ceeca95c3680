/* SPDX-License-Identifier: MIT
 *
 * check.c - MB_DEBUG: an op that a backend has just computed is computed again by the reference backend, from
 * the same operands, and the two must agree. It is kernels that this looks for, not rounding: the limits are
 * wide.
 */
#include <float.h>
#include <math.h>

#include "backends/engine/state.h"

static const mb__backend *const judge =
    &mb__backend_reference; /* its state is nothing, its values are doubles */

/* A node's value as doubles; freed by the caller. NULL: error set. */
static double *fetch(mb_context *ctx, const mb__node *n)
{
    mb__engine_state *st = ctx->engine_state;
    int64_t count = mb__numel(n->dim, n->rank);
    size_t bytes = (size_t)(count + 1) * 8;
    void *raw = mb__alloc(ctx, bytes);
    double *out = mb__alloc(ctx, bytes);
    bool ok = raw && out &&
              st->backend->download(ctx, st->backend_state, n->value->memory, (mb_dtype)n->dtype, count,
                                    raw) == MB_OK &&
              judge->upload(ctx, NULL, out, (mb_dtype)n->dtype, count, raw) == MB_OK;
    mb__free(ctx, raw, bytes);
    if (!ok) {
        mb__free(ctx, out, bytes);
        return NULL;
    }
    return out;
}

static void drop(mb_context *ctx, const mb__node *n, double *values)
{
    mb__free(ctx, values, (size_t)(mb__numel(n->dim, n->rank) + 1) * 8);
}

static double largest(const double *x, int64_t n)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(x[i]) && fabs(x[i]) > most)
            most = fabs(x[i]);
    return most;
}

/* What the terms of an element's sum may come to, where the op adds many: rounding is relative to that. */
static double size_of_sums(mb_context *ctx, const mb__node *n, double *const *operands)
{
    if (!mb__has_flag(n->op, MB_FLAG_ADDS))
        return 0;
    double size = 1, terms = 1;
    for (int i = 0; i < n->nin; i++) {
        const mb__node *x = mb__at(ctx, mb__in(ctx, n, i));
        if (mb__is_float(x->dtype))
            size *= largest(operands[i], mb__numel(x->dim, x->rank));
        terms = fmax(terms, (double)mb__numel(x->dim, x->rank));
    }
    return size * terms;
}

static bool agree(const mb__node *n, double got, double want, double sums)
{
    bool narrow = n->dtype == MB_FLOAT32;
    if (!mb__is_float(n->dtype))
        return got == want;
    if (narrow && fabs(want) > FLT_MAX) /* float32 overflows where double does not */
        want = want > 0 ? (double)INFINITY : -(double)INFINITY;
    if (isnan(want) || isnan(got) || isinf(want) || isinf(got)) {
        if (narrow && isinf(got) && fabs(want) > 0.999 * FLT_MAX)
            return true;
        return isnan(want) ? isnan(got) : got == want;
    }
    /* Exponentials turn a rounding of their argument, up to 88, into so many of the result. */
    double relative = narrow ? 1e-4 : 1e-10, least = narrow ? 1e-37 : 1e-300;
    return fabs(got - want) <= relative * fabs(want) + (narrow ? 1e-6 : 1e-15) * sums + least;
}

/* What ops.def leaves open: a float beyond the integers has no defined int32, and float64's sine and cosine
 * no defined value far out. */
static bool undefined(mb_context *ctx, const mb__node *n, double *const *operands, int64_t i)
{
    if (n->op == MB_OP_CAST && n->dtype == MB_INT32 && mb__is_float(mb__at(ctx, mb__in(ctx, n, 0))->dtype))
        return !(fabs(operands[0][i]) < 2147483648.0);
    return (n->op == MB_OP_SIN || n->op == MB_OP_COS) && n->dtype == MB_FLOAT64 &&
           fabs(operands[0][i]) > 1.6e9;
}

static bool compare(mb_context *ctx, const mb__node *n, const double *got, const double *want,
                    double *const *operands)
{
    double sums = size_of_sums(ctx, n, operands);
    int64_t count = mb__numel(n->dim, n->rank);
    for (int64_t i = 0; i < count; i++)
        if (!agree(n, got[i], want[i], sums) && !undefined(ctx, n, operands, i)) {
            char text[128];
            mb__engine_state *st = ctx->engine_state;
            mb__error_at(
                ctx, MB_BACKEND, n->site,
                "%s: the %s backend and the reference differ in a result of shape %s: element %lld is "
                "%.9g, not %.9g",
                mb__ops[n->op].name, st->backend->name, mb__shape_text(text, sizeof text, n->dim, n->rank),
                (long long)i, got[i], want[i]);
            return false;
        }
    return true;
}

/* Runs the node alone on the judge; operands: as doubles, inputs of the plan in order of their nodes. */
static bool judged(mb_context *ctx, uint32_t id, uint32_t count, void **inputs, double *out)
{
    mb__engine_state *st = ctx->engine_state;
    mb__node *n = mb__at(ctx, id);
    const mb__backend *backend = st->backend;
    void *state = st->backend_state;
    mb__buffer *value = n->value;
    mb__cached c = {.pool = {.ctx = ctx}};
    st->backend = judge;
    st->backend_state = NULL;
    n->value = NULL; /* to be computed, not read */
    bool ok = mb__make_plan(ctx, count, &c);
    n->value = value;
    if (ok) {
        size_t bytes = (size_t)c.plan.arena_bytes + 64;
        void *arena = mb__alloc(ctx, bytes), *outputs[1] = {out};
        double scalar = n->bind.scalar;
        mb__binding binding = {arena, inputs, outputs, &scalar};
        ok = arena && judge->run(ctx, NULL, c.program, &binding) == MB_OK;
        mb__free(ctx, arena, bytes);
        judge->discard(ctx, NULL, c.program);
    }
    st->backend = backend;
    st->backend_state = state;
    mb__bump_free(&c.pool);
    return ok;
}

bool mb__check_node(mb_context *ctx, uint32_t id)
{
    enum { OPERANDS_MOST = 16 };
    mb__engine_state *st = ctx->engine_state;
    const mb__node *n = mb__at(ctx, id);
    if (st->backend == judge || !n->value || n->op == MB_OP_BUFFER || n->op == MB_OP_VARIABLE ||
        n->nin > OPERANDS_MOST)
        return true;
    double *operands[OPERANDS_MOST] = {NULL}, *got = NULL, *want = NULL;
    void *inputs[OPERANDS_MOST];
    uint32_t count = 0;
    bool ok = true;
    /* The list of the segment: distinct operands, rising, then the node. */
    if (!mb__reserve(ctx, (void **)&st->list, &st->list_room, (uint64_t)n->nin + 1, sizeof *st->list))
        return false;
    for (int i = 0; i < n->nin && ok; i++) {
        uint32_t o = mb__in(ctx, n, i), at = 0;
        operands[i] = fetch(ctx, mb__at(ctx, o));
        ok = operands[i] != NULL;
        while (at < count && st->list[at] < o)
            at++;
        if (at < count && st->list[at] == o)
            continue;
        memmove(st->list + at + 1, st->list + at, (count - at) * sizeof *st->list);
        memmove(inputs + at + 1, inputs + at, (count - at) * sizeof *inputs);
        st->list[at] = o;
        inputs[at] = operands[i];
        count++;
    }
    st->list[count++] = id;
    for (uint32_t i = 0; i < count; i++) {
        st->dense[st->list[i]] = i;
        st->mark[st->list[i]] &= ~1u;
    }
    st->mark[id] |= 1;
    int64_t numel = mb__numel(n->dim, n->rank);
    if (ok)
        got = fetch(ctx, n);
    if (got)
        want = mb__alloc(ctx, (size_t)(numel + 1) * 8);
    ok = got && want && judged(ctx, id, count, inputs, want) && compare(ctx, n, got, want, operands);
    for (int i = 0; i < n->nin; i++)
        if (operands[i])
            drop(ctx, mb__at(ctx, mb__in(ctx, n, i)), operands[i]);
    if (got)
        drop(ctx, n, got);
    if (want)
        drop(ctx, n, want);
    return ok;
}
