/* SPDX-License-Identifier: MIT
 *
 * oracle.c - MB_DEBUG: each op that a backend has computed is computed again by the oracle, the reference
 * backend, from the same operands, and the results must agree; results of matrix ops must solve their problem
 * (residual.c). This finds wrong kernels, not rounding errors, so the tolerances are wide.
 */
#include <float.h>
#include <math.h>

#include "backends/engine/state.h"

/* The backend that computes every dtype as doubles, opened at its first use. NULL: error set. */
const mb__backend *mb__oracle(mb_context *ctx)
{
    mb__engine_state *st = ctx->engine_state;
    for (int i = 0; i < mb__backend_count; i++) {
        if (!mb__backends[i]->oracle)
            continue;
        mb__limits none;
        mb_status status = st->oracle ? MB_OK
                                      : mb__backends[i]->open(&st->host, &(mb__open_options){.threads = 1},
                                                              &st->oracle, &none);
        return mb__told(ctx, status) == MB_OK ? mb__backends[i] : NULL;
    }
    mb__error(ctx, MB_BACKEND, "debug: this library was built without a backend that can be asked");
    return NULL;
}

void mb__oracle_close(mb__engine_state *st)
{
    for (int i = 0; st->oracle && i < mb__backend_count; i++)
        if (mb__backends[i]->oracle) {
            mb__backends[i]->close(st->oracle);
            st->oracle = NULL;
        }
}

double *mb__oracle_fetch(mb_context *ctx, const mb__backend *asked, const mb__node *n)
{
    mb__engine_state *st = ctx->engine_state;
    int64_t count = mb__numel(n->dim, n->rank);
    size_t bytes = (size_t)(count + 1) * 8;
    void *raw = mb__alloc(ctx, bytes);
    double *out = mb__alloc(ctx, bytes);
    bool ok = raw && out &&
              mb__told(ctx, st->backend->download(st->backend_state, n->value->memory, (mb_dtype)n->dtype,
                                                  count, raw)) == MB_OK &&
              asked->upload(st->oracle, out, (mb_dtype)n->dtype, count, raw) == MB_OK;
    mb__free(ctx, raw, bytes);
    if (!ok) {
        mb__free(ctx, out, bytes);
        return NULL;
    }
    return out;
}

void mb__oracle_drop(mb_context *ctx, const mb__node *n, double *values)
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

/* If the op adds many terms into an element: a bound on that sum, which rounding is relative to. Else 0. */
static double size_of_sums(mb_context *ctx, const mb__node *n, double *const *operands)
{
    if (!mb__has_flag(n->op, MB_FLAG_ADDS))
        return 0;
    double size = 1, terms = 1;
    for (int i = 0; i < mb__value_operands(n); i++) {
        const mb__node *x = mb__at(ctx, mb__in(ctx, n, i));
        if (mb__is_float(x->dtype))
            size *= largest(operands[i], mb__numel(x->dim, x->rank));
        terms = fmax(terms, (double)mb__numel(x->dim, x->rank));
    }
    return size * terms;
}

/* Rounded twice at most: where it was computed, and where it is stored. */
static bool half_agrees(const mb__node *n, double got, double want, double sums)
{
    bool short_range = n->dtype == MB_FLOAT16;
    double rounding = short_range ? 0x1p-10 : 0x1p-7, most = short_range ? 65504 : (double)FLT_MAX;
    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got);
    if (isinf(want) || isinf(got))
        return got == want || fmin(fabs(got), fabs(want)) >= (1 - rounding) * most;
    return fabs(got - want) <= rounding * fabs(want) + 1e-6 * sums + (short_range ? 0x1p-23 : 1e-37);
}

static bool agree(const mb__node *n, double got, double want, double sums)
{
    bool narrow = n->dtype != MB_FLOAT64;
    if (!mb__is_float(n->dtype)) /* an int64 is its bits, in a double's place */
        return !memcmp(&got, &want, sizeof got);
    if (mb__is_half(n->dtype))
        return half_agrees(n, got, want, sums);
    if (narrow && fabs(want) > FLT_MAX) /* float32 overflows where double does not */
        want = want > 0 ? (double)INFINITY : -(double)INFINITY;
    if (isnan(want) || isnan(got) || isinf(want) || isinf(got)) {
        if (narrow && isinf(got) && fabs(want) > 0.999 * FLT_MAX)
            return true;
        return isnan(want) ? isnan(got) : got == want;
    }
    /* An exponential multiplies the relative rounding error of its argument by the argument, up to 88. */
    double relative = narrow ? 1e-4 : 1e-10, least = narrow ? 1e-37 : 1e-300;
    return fabs(got - want) <= relative * fabs(want) + (narrow ? 1e-6 : 1e-15) * sums + least;
}

/* Whether ops.def leaves the value undefined: a float out of int32's range cast to int32, sine, cosine and
 * tangent of huge float64. */
static bool undefined(mb_context *ctx, const mb__node *n, double *const *operands, int64_t i)
{
    if (n->op == MB_OP_CAST && n->dtype == MB_INT32 && mb__is_float(mb__at(ctx, mb__in(ctx, n, 0))->dtype))
        return !(fabs(operands[0][i]) < 2147483648.0);
    return (n->op == MB_OP_SIN || n->op == MB_OP_COS || n->op == MB_OP_TAN) && n->dtype == MB_FLOAT64 &&
           fabs(operands[0][i]) > 1.6e9;
}

static bool compare(mb_context *ctx, const mb__node *n, const double *got, const double *want,
                    double *const *operands)
{
    double sums = size_of_sums(ctx, n, operands);
    int64_t count = mb__numel(n->dim, n->rank);
    for (int64_t i = 0; i < count; i++)
        if (!agree(n, got[i], want[i], sums) && !undefined(ctx, n, operands, i)) {
            char text[128], name[128];
            mb__engine_state *st = ctx->engine_state;
            mb__error_at(
                ctx, MB_BACKEND, n->site,
                "%s: the %s backend and the reference differ in a result of shape %s: element %lld is "
                "%.9g, not %.9g",
                mb__node_text(name, sizeof name, n), st->backend->name,
                mb__shape_text(text, sizeof text, n->dim, n->rank), (long long)i, got[i], want[i]);
            return false;
        }
    return true;
}

static bool solves(mb_context *ctx, const mb__node *n, const double *got, double *const *operands)
{
    int64_t off = mb__residual_off(ctx, n, operands, got);
    char text[128], name[128];
    mb__engine_state *st = ctx->engine_state;
    if (off >= 0)
        mb__error_at(
            ctx, MB_BACKEND, n->site,
            "%s: a result of the %s backend, of shape %s, is no solution: element %lld, %.9g, leaves "
            "over more than rounding",
            mb__node_text(name, sizeof name, n), st->backend->name,
            mb__shape_text(text, sizeof text, n->dim, n->rank), (long long)off, got[off]);
    return off < 0;
}

mb_status mb__oracle_ask(mb_context *ctx, const mb__segment *s, unsigned passes, double **inputs,
                         double **outputs)
{
    mb__engine_state *st = ctx->engine_state;
    const mb__backend *asked = mb__oracle(ctx);
    if (!asked)
        return ctx->status;
    mb__cached c = {.pool = {.host = &st->host}};
    size_t bytes = 0, arena_bytes = 0;
    void *arena = NULL;
    mb_status status = mb__make_plan(ctx, s, asked, passes, &c);
    if (status == MB_OK) {
        arena_bytes = (size_t)c.plan.arena_bytes + 64;
        arena = mb__try_alloc(ctx, arena_bytes);
        status = arena ? asked->compile(st->oracle, &c.plan, &c.program, &bytes) : MB_NO_MEMORY;
    }
    if (status == MB_OK)
        status = asked->run(st->oracle, c.program,
                            &(mb__binding){arena, (void *const *)inputs, (void *const *)outputs, s->scalars});
    if (c.program)
        asked->discard(st->oracle, c.program);
    mb__free(ctx, arena, arena_bytes);
    mb__bump_free(&c.pool);
    return status;
}

enum { OPERANDS_MOST = 16, ORACLE_PASSES = MB_PASS_DEAD | MB_PASS_REUSE | MB_PASS_LOOPS };

bool mb__oracle_agrees(mb_context *ctx, uint32_t id)
{
    mb__engine_state *st = ctx->engine_state;
    const mb__node *n = mb__at(ctx, id);
    if (st->backend->oracle || !n->value || n->op == MB_OP_BUFFER || n->op == MB_OP_VARIABLE ||
        mb__value_operands(n) > OPERANDS_MOST)
        return true;
    const mb__backend *asked = mb__oracle(ctx);
    mb__segment *s = &st->single;
    if (!asked || !mb__segment_of_node(ctx, s, id))
        return false;
    double *operands[OPERANDS_MOST] = {NULL}, *got = NULL, *want = NULL, *inputs[OPERANDS_MOST];
    bool ok = true;
    for (int i = 0; i < mb__value_operands(n) && ok; i++) {
        uint32_t o = mb__in(ctx, n, i);
        operands[i] = mb__oracle_fetch(ctx, asked, mb__at(ctx, o));
        ok = operands[i] != NULL;
        inputs[st->dense[o]] = operands[i];
    }
    int64_t numel = mb__numel(n->dim, n->rank);
    if (ok)
        got = mb__oracle_fetch(ctx, asked, n);
    bool matrices = mb__is_kind(n->op, MB_KIND_MATRIX);
    if (got && !matrices)
        want = mb__alloc(ctx, (size_t)(numel + 1) * 8);
    if (matrices)
        ok = got && solves(ctx, n, got, operands);
    else
        ok = want &&
             mb__told(ctx, mb__oracle_ask(ctx, s, ORACLE_PASSES & st->passes, inputs, &want)) == MB_OK &&
             compare(ctx, n, got, want, operands);
    for (int i = 0; i < mb__value_operands(n); i++)
        if (operands[i])
            mb__oracle_drop(ctx, mb__at(ctx, mb__in(ctx, n, i)), operands[i]);
    if (got)
        mb__oracle_drop(ctx, n, got);
    if (want)
        mb__oracle_drop(ctx, n, want);
    return ok;
}

bool mb__first_difference(mb_context *ctx, uint32_t got, uint32_t want, int64_t *at, double numbers[2])
{
    const mb__backend *asked = mb__oracle(ctx);
    const mb__node *n = mb__at(ctx, got), *m = mb__at(ctx, want);
    double *x = asked ? mb__oracle_fetch(ctx, asked, n) : NULL,
           *y = x ? mb__oracle_fetch(ctx, asked, m) : NULL;
    int64_t count = mb__numel(n->dim, n->rank);
    *at = -1;
    double most = y ? (n->dtype == MB_FLOAT64 ? 1e-7 : 1e-3) * largest(y, count) : 0;
    for (int64_t i = 0; y && i < count && *at < 0; i++)
        if (!(fabs(x[i] - y[i]) <= most) && x[i] != y[i] && !(isnan(x[i]) && isnan(y[i]))) {
            *at = i;
            numbers[0] = x[i];
            numbers[1] = y[i];
        }
    bool ok = y != NULL;
    if (x)
        mb__oracle_drop(ctx, n, x);
    if (y)
        mb__oracle_drop(ctx, m, y);
    return ok;
}
