/* SPDX-License-Identifier: MIT
 *
 * debug_plan.c - MB_DEBUG: whether what simplification makes of a flush computes what was recorded. Ops are
 * checked one at a time (debug.c), where no rewrite of several takes place, so the whole is computed by the
 * oracle twice, simplified and as it was recorded. Both in float64: what they differ by is no rounding of the
 * backend's, but for literals, which are folded in their dtype, and what makes a lot of that is left alone.
 */
#include <float.h>
#include <math.h>

#include "backends/engine/state.h"

typedef struct comparison {
    mb_context *ctx;
    const mb__segment *s;
    unsigned passes; /* that are no rewrites */
    double rounding; /* relative */
    double **inputs, **got, **want;
} comparison;

static void drop_all(mb_context *ctx, const uint32_t *ids, uint32_t count, double **x)
{
    for (uint32_t i = 0; x && i < count; i++)
        if (x[i])
            mb__oracle_drop(ctx, mb__at(ctx, ids[i]), x[i]);
    mb__free(ctx, x, ((size_t)count + 1) * sizeof *x);
}

/* A place for each node's value, zeros. NULL: there is no memory, which is no error. */
static double **places(mb_context *ctx, const uint32_t *ids, uint32_t count)
{
    double **x = mb__try_alloc(ctx, ((size_t)count + 1) * sizeof *x);
    bool ok = x != NULL;
    if (x)
        memset(x, 0, ((size_t)count + 1) * sizeof *x);
    for (uint32_t i = 0; ok && i < count; i++) {
        const mb__node *n = mb__at(ctx, ids[i]);
        size_t bytes = (size_t)(mb__numel(n->dim, n->rank) + 1) * sizeof **x;
        ok = (x[i] = mb__try_alloc(ctx, bytes)) != NULL;
        if (ok)
            memset(x[i], 0, bytes);
    }
    if (ok || !x)
        return x;
    drop_all(ctx, ids, count, x);
    return NULL;
}

/* The values of the inputs; false: there is no memory, or error set. */
static bool fetch_inputs(comparison *c)
{
    const mb__backend *asked = mb__oracle(c->ctx);
    c->inputs = mb__try_alloc(c->ctx, ((size_t)c->s->input_count + 1) * sizeof *c->inputs);
    bool ok = asked && c->inputs;
    if (c->inputs)
        memset(c->inputs, 0, ((size_t)c->s->input_count + 1) * sizeof *c->inputs);
    for (uint32_t i = 0; ok && i < c->s->input_count; i++)
        ok = (c->inputs[i] = mb__oracle_fetch(c->ctx, asked, mb__at(c->ctx, c->s->inputs[i]))) != NULL;
    return ok;
}

static bool ask(comparison *c, unsigned rewrites, double **outputs)
{
    mb_status status = mb__oracle_ask(c->ctx, c->s, c->passes | rewrites, c->inputs, outputs);
    return status == MB_OK && c->ctx->status == MB_OK;
}

/* A rounding of the coarsest dtype there is. */
static double rounding(const mb_context *ctx, const mb__segment *s)
{
    double most = DBL_EPSILON;
    for (uint32_t i = 0; i < s->count; i++) {
        int dtype = ctx->nodes[s->nodes[i]].dtype;
        most = fmax(most, dtype == MB_FLOAT16    ? 0x1p-10
                          : dtype == MB_BFLOAT16 ? 0x1p-7
                          : dtype == MB_FLOAT32  ? (double)FLT_EPSILON
                                                 : 0);
    }
    return most;
}

static double largest(const double *x, int64_t n)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        most = isfinite(x[i]) ? fmax(most, fabs(x[i])) : most;
    return most;
}

/* NaN as recorded is found by debug.c, or was given; simplify.c says when a zero takes its place. */
static bool find(const comparison *c, mb__rewritten *found)
{
    for (uint32_t k = 0; k < c->s->output_count; k++) {
        const mb__node *n = mb__at(c->ctx, c->s->outputs[k]);
        int64_t count = mb__numel(n->dim, n->rank);
        const double *got = c->got[k], *want = c->want[k];
        double most = mb__is_float(n->dtype) ? 4 * sqrt(c->rounding) * largest(want, count) : 0;
        for (int64_t i = 0; i < count; i++)
            if (memcmp(&got[i], &want[i], sizeof *got) != 0 && !isnan(want[i]) && got[i] != want[i] &&
                !(fabs(got[i] - want[i]) <= most)) {
                *found = (mb__rewritten){c->s->outputs[k], i, got[i], want[i]};
                return true;
            }
    }
    return false;
}

/* Whether the result moves nearly as far when the inputs are off by some roundings: then it says nothing. */
static bool is_sensitive(comparison *c, const mb__rewritten *found)
{
    uint32_t k = 0;
    for (uint32_t i = 0; i < c->s->input_count; i++) {
        const mb__node *n = mb__at(c->ctx, c->s->inputs[i]);
        double off = 8 * c->rounding;
        for (int64_t j = 0; mb__is_float(n->dtype) && j < mb__numel(n->dim, n->rank); j++)
            c->inputs[i][j] *= 1 + (j % 3 == 1 ? off : -off);
    }
    if (!ask(c, 0, c->got))
        return true;
    while (c->s->outputs[k] != found->node)
        k++;
    const mb__node *n = mb__at(c->ctx, found->node);
    double most = 0;
    for (int64_t i = 0; i < mb__numel(n->dim, n->rank); i++)
        most = fmax(most, fabs(c->got[k][i] - c->want[k][i]));
    return isfinite(found->got - found->want) && 64 * most >= fabs(found->got - found->want);
}

/* What is done once in a flush and has effects outside of it cannot be done three times. */
static bool has_effects(const mb_context *ctx, const mb__segment *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        const mb__node *n = &ctx->nodes[s->nodes[i]];
        if (n->op == MB_OP_CALL && !n->value && mb__custom_of(mb__attrs(ctx, n))->spec.serial)
            return true;
    }
    return false;
}

void mb__compare_rewritten(mb_context *ctx, const mb__segment *s, mb__rewritten *found)
{
    const mb__engine_state *st = ctx->engine_state;
    enum { REWRITES = MB_PASS_SIMPLIFY | MB_PASS_MERGE };
    comparison c = {
        .ctx = ctx, .s = s, .passes = st->passes & (MB_PASS_DEAD | MB_PASS_REUSE | MB_PASS_LOOPS)};
    *found = (mb__rewritten){0};
    if (st->backend->oracle || !(st->passes & REWRITES) || has_effects(ctx, s))
        return;
    c.rounding = rounding(ctx, s);
    c.got = places(ctx, s->outputs, s->output_count);
    c.want = places(ctx, s->outputs, s->output_count);
    if (c.got && c.want && fetch_inputs(&c) && ask(&c, 0, c.want) && ask(&c, st->passes & REWRITES, c.got) &&
        find(&c, found) && is_sensitive(&c, found))
        *found = (mb__rewritten){0};
    drop_all(ctx, s->inputs, s->input_count, c.inputs);
    drop_all(ctx, s->outputs, s->output_count, c.got);
    drop_all(ctx, s->outputs, s->output_count, c.want);
}
