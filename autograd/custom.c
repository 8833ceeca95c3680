/* SPDX-License-Identifier: MIT
 *
 * custom.c - derivatives of the user's for a piece of the tape.
 *
 * A CUSTOM node has the values and the xs as operands and the rule as attributes; the results that follow it,
 * RULED, have a value and that node as operands. A plan sees results alone, which are their first operand.
 */
#include "autograd/custom.h"
#include "autograd/custom_rules.h"
#include "tensor/scan.h"

/* ---- the rule as attributes, after the number of values ---- */

enum { MOST_WORDS = MB_CUSTOM_USER_MOST / sizeof(int64_t) };

typedef struct packed {
    mb_custom_rule rule;
    int64_t user[MOST_WORDS];
} packed;

enum { RULE_WORDS = (sizeof(mb_custom_rule) + sizeof(int64_t) - 1) / sizeof(int64_t) };

static int pack(const mb_custom_rule *rule, int64_t *words)
{
    memcpy(words, rule, sizeof *rule);
    if (rule->user_bytes)
        memcpy(words + RULE_WORDS, rule->user, rule->user_bytes);
    return RULE_WORDS + (int)((rule->user_bytes + sizeof *words - 1) / sizeof *words);
}

static void unpack(mb_context *ctx, uint32_t custom, packed *to)
{
    const int64_t *words = mb__attrs(ctx, mb__at(ctx, custom)) + 1;
    memcpy(&to->rule, words, sizeof to->rule);
    if (!to->rule.user_bytes)
        return;
    memcpy(to->user, words + RULE_WORDS, to->rule.user_bytes);
    to->rule.user = to->user;
}

/* ---- recording ---- */

/* Whether all are tensors of one context; ids. */
static bool resolve(mb_context *ctx, const mb_tensor *ts, int n, const char *what, bool floats, uint32_t *ids)
{
    for (int i = 0; i < n; i++) {
        mb_tensor poison;
        char text[256];
        if (!mb__enter("custom_gradient", (const mb_tensor *[]){&ts[i]}, 1, &poison) || ts[i].ctx != ctx) {
            if (mb_error(ctx) == MB_OK)
                mb__error(ctx, MB_INVALID, "custom_gradient: %s %d is no tensor of this context", what,
                          i + 1);
            return false;
        }
        if (floats && !mb__is_float(mb__at(ctx, ts[i].id)->dtype)) {
            mb__error(ctx, MB_INVALID, "custom_gradient: %s %d is %s; wanted float32 or float64", what, i + 1,
                      mb__tensor_text(text, sizeof text, ts[i]));
            return false;
        }
        if (!(ids[i] = mb__resolve(ctx, ts[i])))
            return false;
    }
    return true;
}

static bool right_rule(mb_context *ctx, const mb_custom_rule *rule)
{
    if (!rule->reverse && !rule->forward)
        mb__error(ctx, MB_INVALID, "custom_gradient: the rule has neither a reverse nor a forward function");
    else if (rule->user_bytes > MB_CUSTOM_USER_MOST)
        mb__error(ctx, MB_INVALID, "custom_gradient: %zu bytes of user data; %d are the most",
                  rule->user_bytes, MB_CUSTOM_USER_MOST);
    else if (rule->user_bytes && !rule->user)
        mb__error(ctx, MB_INVALID, "custom_gradient: %zu bytes of user data, and no pointer to them",
                  rule->user_bytes);
    return mb_error(ctx) == MB_OK;
}

static bool record(mb_context *ctx, const uint32_t *ids, int m, int n, const mb_custom_rule *rule,
                   mb_tensor *out)
{
    int64_t attrs[1 + RULE_WORDS + MOST_WORDS] = {m};
    int count = 1 + pack(rule, attrs + 1);
    MB_TEMPORARY(ctx);
    mb_tensor *in = mb__temporary(ctx, (size_t)(m + n) * sizeof *in);
    for (int i = 0; in && i < m + n; i++)
        in[i] = mb__handle(ctx, ids[i]);
    mb_tensor custom = {0};
    if (in)
        custom = mb__record(ctx, MB_OP_CUSTOM, MB_FLOAT32, 0, NULL, in, m + n, attrs, count);
    for (int i = 0; custom.id && i < m; i++) {
        mb__node y = *mb__at(ctx, ids[i]);
        const mb_tensor both[2] = {in[i], custom};
        out[i] = mb__record(ctx, MB_OP_RULED, (mb_dtype)y.dtype, y.rank, y.dim, both, 2, NULL, 0);
    }
    return mb_error(ctx) == MB_OK;
}

mb_status mb_custom_gradient_at(const char *site, const mb_tensor *ys, int m, const mb_tensor *xs, int n,
                                mb_custom_rule rule, mb_tensor *out)
{
    mb_context *ctx = ys && m > 0 ? ys[0].ctx : NULL;
    MB_DOOR(ctx, site, MB_THREAD);
    if (!ctx)
        return MB_INVALID;
    if (n < 0 || (n && !xs) || !out || m + (int64_t)n > UINT16_MAX)
        return mb__error(ctx, MB_INVALID, "custom_gradient: got %d values, %d tensors they depend on%s", m, n,
                         out ? "" : ", and nowhere to put the results");
    MB_TEMPORARY(ctx);
    uint32_t *ids = NULL;
    bool ok = mb__enter_context("custom_gradient", ctx) && right_rule(ctx, &rule) &&
              (ids = mb__temporary(ctx, (size_t)(m + n) * sizeof *ids)) &&
              resolve(ctx, ys, m, "value", true, ids) && resolve(ctx, xs, n, "tensor", false, ids + m);
    for (int i = 0; i < m; i++) /* only now: out may be ys or xs */
        out[i] = mb__poison(ctx);
    if (!ok || !record(ctx, ids, m, n, &rule, out))
        for (int i = 0; i < m; i++)
            out[i] = mb__poison(ctx);
    return mb_error(ctx);
}

/* ---- a rule asked ---- */

typedef struct asking {
    mb_context *ctx;
    const mb__sweeps *sweeps;
    packed rule;
    mb_custom_at at;
    mb_tensor *xs, *ys;   /* of `at` */
    mb_tensor *in, *out;  /* tangents or cotangents, as many as there are of both together */
    uint32_t *a, *b, *of; /* ids, for a sweep */
    const char *site;
} asking;

static mb_tensor handle(mb_context *ctx, uint32_t id)
{
    return id ? mb__handle(ctx, id) : (mb_tensor){0};
}

/* The xs and ys by names of their own. */
static bool begin(asking *k, mb_context *ctx, uint32_t custom, const mb__sweeps *sweeps)
{
    mb__node node = *mb__at(ctx, custom);
    int m = mb__custom_values(ctx, &node), n = node.nin - m;
    size_t all = (size_t)node.nin;
    *k = (asking){.ctx = ctx, .sweeps = sweeps, .at = {.n = n, .m = m}, .site = node.site};
    mb_tensor *memory = mb__temporary(ctx, all * (3 * sizeof *memory + 3 * sizeof *k->a));
    if (!memory)
        return false;
    unpack(ctx, custom, &k->rule);
    k->xs = memory;
    k->ys = memory + n;
    k->in = memory + all;
    k->out = memory + 2 * all;
    k->a = (uint32_t *)(memory + 3 * all);
    k->b = k->a + all;
    k->of = k->b + all;
    k->at.xs = k->xs;
    k->at.ys = k->ys;
    for (int i = 0; i < n; i++)
        k->xs[i] = mb_alias(mb__handle(ctx, mb__in(ctx, &node, m + i)));
    for (int i = 0; i < m; i++)
        k->ys[i] = mb_alias(mb__handle(ctx, custom + 1 + (uint32_t)i));
    return mb_error(ctx) == MB_OK;
}

/* Whether what a rule gave for `like` can be that; nothing can. */
static bool fits(asking *k, const char *what, int i, mb_tensor t, mb_tensor like)
{
    mb_context *ctx = k->ctx;
    mb_tensor poison;
    if (!t.ctx || !mb__is_float(mb__at(ctx, like.id)->dtype))
        return true;
    bool ours = t.ctx == ctx && mb__enter("custom_gradient", (const mb_tensor *[]){&t}, 1, &poison);
    const mb__node *a = ours ? mb__at(ctx, t.id) : NULL, *b = mb__at(ctx, like.id);
    if (ours && a->dtype == b->dtype && a->rank == b->rank &&
        !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim))
        return true;
    char got[256], want[128];
    if (mb_error(ctx) == MB_OK)
        mb__error_at(ctx, MB_INVALID, k->site, "custom_gradient: the rule gives %s %d as %s; wanted %s %s",
                     what, i + 1, ours ? mb__tensor_text(got, sizeof got, t) : "a tensor of another context",
                     mb__shape_text(want, sizeof want, b->dim, b->rank), mb_dtype_name((mb_dtype)b->dtype));
    return false;
}

/* Calls one of the functions: in -> out, both of `at`'s numbers. */
static bool ask(asking *k, bool reverse, const mb_tensor *in, mb_tensor *out)
{
    mb_context *ctx = k->ctx;
    const mb_custom_rule *rule = &k->rule.rule;
    uint32_t scopes = ctx->scope_count, scans = ctx->bracket_count, scope = ctx->scopes[scopes - 1].serial;
    int count = reverse ? k->at.n : k->at.m;
    for (int i = 0; i < count; i++)
        out[i] = (mb_tensor){0};
    mb_status status = (reverse ? rule->reverse : rule->forward)(rule->user, ctx, &k->at, in, out);
    if (status != MB_OK && mb_error(ctx) == MB_OK)
        mb__error_at(ctx, status, k->site, "custom_gradient: the rule failed (%s)", mb_status_name(status));
    if (mb_error(ctx) == MB_OK && (ctx->scope_count != scopes || ctx->bracket_count != scans ||
                                   ctx->scopes[scopes - 1].serial != scope))
        mb__error_at(ctx, MB_INVALID, k->site,
                     "custom_gradient: the rule leaves another scope or scan open than it was called in");
    for (int i = 0; i < count && mb_error(ctx) == MB_OK; i++)
        if (fits(k, reverse ? "gradient" : "tangent", i, out[i], reverse ? k->xs[i] : k->ys[i]) && out[i].ctx)
            out[i].id = mb__resolve(ctx, out[i]);
    return mb_error(ctx) == MB_OK;
}

/* Zeros like t where it has derivatives, under a name of their own. */
static mb_tensor new_zeros(mb_context *ctx, mb_tensor t)
{
    if (!mb__is_float(mb__at(ctx, t.id)->dtype))
        return (mb_tensor){0};
    return mb_alias(mb_full(ctx, mb_dtype_of(t), mb_shape_of(t), 0));
}

/* The other mode of the one that the rule has: that is linear, and this is the vjp, by what goes in, of what
 * comes out. reverse: the mode that is wanted. */
static bool transposed(asking *k, bool reverse, const mb_tensor *in, mb_tensor *out)
{
    mb_context *ctx = k->ctx;
    int from = reverse ? k->at.m : k->at.n, to = reverse ? k->at.n : k->at.m, sums = 0, points = 0;
    const mb_tensor *like = reverse ? k->xs : k->ys;
    MB_TEMPORARY(ctx);
    mb_tensor *point = mb__temporary(ctx, (size_t)(from + to + 1) * sizeof *point);
    if (!point)
        return false;
    mb_tensor *linear = point + to;
    for (int i = 0; i < to; i++)
        point[i] = new_zeros(ctx, like[i]);
    if (mb_error(ctx) != MB_OK || !ask(k, !reverse, point, linear))
        return false;
    const mb_tensor *floats = reverse ? k->ys : k->xs;
    for (int i = 0; i < from; i++)
        if (linear[i].ctx && in[i].ctx && mb__is_float(mb__at(ctx, floats[i].id)->dtype)) {
            k->a[sums] = linear[i].id;
            k->b[sums++] = in[i].id;
        }
    for (int i = 0; i < to; i++)
        if (point[i].ctx)
            k->of[points++] = point[i].id;
    uint32_t *found = mb__temporary(ctx, (size_t)(points + 1) * sizeof *found);
    if (!found || k->sweeps->vjp(ctx, k->a, k->b, sums, k->of, points, found) != MB_OK)
        return false;
    for (int i = to; i-- > 0;)
        out[i] = point[i].ctx ? handle(ctx, found[--points]) : (mb_tensor){0};
    return true;
}

static bool ask_either(asking *k, bool reverse, const mb_tensor *in, mb_tensor *out)
{
    bool has = reverse ? k->rule.rule.reverse != NULL : k->rule.rule.forward != NULL;
    return has ? ask(k, reverse, in, out) : transposed(k, reverse, in, out);
}

/* Of all directions: a scan over them. */
static bool ask_each(asking *k, int64_t directions)
{
    mb_context *ctx = k->ctx;
    MB_TEMPORARY(ctx);
    mb_tensor *one = mb__temporary(ctx, (size_t)(k->at.n + 1) * sizeof *one);
    mb_tensor *of = mb__temporary(ctx, (size_t)(k->at.m + 1) * sizeof *of);
    mb_scan scan = one && of ? mb_scan_begin(ctx, directions) : (mb_scan){0};
    if (!scan.ctx)
        return false;
    for (int i = 0; i < k->at.n; i++)
        one[i] = k->in[i].ctx ? mb_scan_slice(scan, k->in[i]) : (mb_tensor){0};
    if (mb_error(ctx) == MB_OK && ask_either(k, false, one, of))
        for (int i = 0; i < k->at.m; i++)
            if (of[i].ctx)
                mb_scan_stack(scan, of[i], &k->out[i]);
    return mb_scan_end(scan) == MB_OK;
}

mb_status mb__custom_reverse(mb_context *ctx, uint32_t custom, const mb__sweeps *sweeps,
                             const uint32_t *values, uint32_t *gradients)
{
    asking k;
    MB_TEMPORARY(ctx);
    if (!begin(&k, ctx, custom, sweeps))
        return ctx->status;
    for (int i = 0; i < k.at.m; i++)
        k.in[i] = handle(ctx, values[i]);
    bool ok = ask_either(&k, true, k.in, k.out);
    for (int i = 0; i < k.at.n; i++)
        gradients[i] = ok && k.out[i].ctx ? k.out[i].id : 0;
    return ctx->status;
}

mb_status mb__custom_forward(mb_context *ctx, uint32_t custom, const mb__sweeps *sweeps,
                             const uint32_t *tangents, int64_t lead, uint32_t *values)
{
    asking k;
    MB_TEMPORARY(ctx);
    bool ok = begin(&k, ctx, custom, sweeps);
    for (int i = 0; ok && i < k.at.n; i++)
        k.in[i] = handle(ctx, tangents[i]);
    ok = ok && (lead >= 0 ? ask_each(&k, lead) : ask_either(&k, false, k.in, k.out));
    for (int i = 0; ok && i < k.at.m; i++)
        values[i] = k.out[i].ctx ? k.out[i].id : 0;
    return ctx->status;
}
