/* SPDX-License-Identifier: MIT
 *
 * custom_ask.c - a rule of the user's is asked: in the mode that it has, or in the other one by its
 * transpose; for many directions by a scan, and for many examples within a vmap.
 */
#include "autograd/custom_rules.h"
#include "autograd/vmap.h"
#include "tensor/scan.h"

void mb__custom_unpack(mb_context *ctx, uint32_t custom, mb__packed_rule *to)
{
    const int64_t *words = mb__attrs(ctx, mb__at(ctx, custom)) + MB_RULE_HEAD;
    memcpy(&to->rule, words, sizeof to->rule);
    if (!to->rule.user_bytes)
        return;
    memcpy(to->user, words + MB_RULE_WORDS, to->rule.user_bytes);
    to->rule.user = to->user;
}

typedef struct asking {
    mb_context *ctx;
    const mb__sweeps *sweeps;
    mb__packed_rule rule;
    mb_custom_at at;
    mb_tensor *xs, *ys;   /* of `at` */
    mb_tensor *in, *out;  /* tangents or cotangents, as many as there are of both together */
    uint32_t *a, *b, *of; /* ids, for a sweep */
    const char *site;
    uint32_t custom;
    int levels; /* of examples, around the rule */
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
    *k = (asking){.ctx = ctx,
                  .sweeps = sweeps,
                  .at = {.n = n, .m = m},
                  .site = node.site,
                  .custom = custom,
                  .levels = (int)mb__attrs(ctx, &node)[1]};
    mb_tensor *memory = mb__temporary(ctx, all * (3 * sizeof *memory + 3 * sizeof *k->a));
    if (!memory)
        return false;
    mb__custom_unpack(ctx, custom, &k->rule);
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

/* The attributes of the level around all that are left. */
static const int64_t *level_at(const asking *k)
{
    const mb__node *n = mb__at(k->ctx, k->custom);
    int all = (int)mb__attrs(k->ctx, n)[1], words = mb__level_words(k->at.n);
    return mb__attrs(k->ctx, n) + n->nattr - (all - k->levels + 1) * words;
}

static bool has_examples(const asking *k, int x)
{
    return (uint64_t)level_at(k)[1 + x / 64] >> x % 64 & 1;
}

static bool ask_either(asking *k, bool reverse, const mb_tensor *in, mb_tensor *out);

/* Of all examples, within a vmap. The gradient of an x that is one for all of them is the sum of theirs. */
static bool ask_mapped(asking *k, bool reverse, const mb_tensor *in, mb_tensor *out)
{
    mb_context *ctx = k->ctx;
    int n = k->at.n, m = k->at.m, to = reverse ? n : m, from = reverse ? m : n;
    asking one = *k;
    one.levels--;
    MB_TEMPORARY(ctx);
    mb_tensor *memory = mb__temporary(ctx, 2 * (size_t)(n + m) * sizeof *memory);
    mb_vmap v = memory ? mb_vmap_begin(ctx, level_at(k)[0]) : (mb_vmap){0};
    if (!v.ctx || mb_error(ctx) != MB_OK)
        return false;
    one.at.xs = one.xs = memory;
    one.at.ys = one.ys = memory + n;
    mb_tensor *one_in = memory + n + m, *one_out = one_in + from;
    for (int i = 0; i < n; i++)
        one.xs[i] = has_examples(k, i) ? mb_vmap_in(v, k->xs[i], 0) : k->xs[i];
    for (int i = 0; i < m; i++)
        one.ys[i] = mb_vmap_in(v, k->ys[i], 0);
    for (int i = 0; i < from; i++)
        one_in[i] = in[i].ctx && (reverse || has_examples(k, i)) ? mb_vmap_in(v, in[i], 0) : in[i];
    bool ok = mb_error(ctx) == MB_OK && ask_either(&one, reverse, one_in, one_out);
    for (int i = 0; i < to; i++) {
        out[i] = (mb_tensor){0};
        if (ok && one_out[i].ctx)
            mb_vmap_out(v, one_out[i], 0, &out[i]);
    }
    ok = mb_vmap_end(v) == MB_OK && ok;
    for (int i = 0; ok && reverse && i < n; i++)
        if (out[i].ctx && !has_examples(k, i))
            out[i] = mb_sum(out[i], MB_AXES(0));
    return mb_error(ctx) == MB_OK && ok;
}

static bool ask_either(asking *k, bool reverse, const mb_tensor *in, mb_tensor *out)
{
    if (k->levels)
        return ask_mapped(k, reverse, in, out);
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
