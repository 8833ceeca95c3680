/* SPDX-License-Identifier: MIT
 *
 * taps.c - what layers tell by name, and who listens. A tap is a function and its argument; collecting and
 * replacing are two such functions. Prefixes are only made into text where there is a tap to hear it.
 */
#include "tensor/taps.h"
#include "tensor/internal.h"

#include <limits.h>
#include <stdio.h>

/* -------------------------------------------------------------------------------------------- names -- */

/* Stars do not reach across a dot, so parts between dots match on their own, and of the stars in one part
 * only the last one need ever take more. */
bool mb__name_matches(const char *pattern, const char *name)
{
    const char *star = NULL, *taken = NULL;
    bool all = !*pattern;
    while (!all) {
        if (*pattern == '*') {
            star = ++pattern;
            taken = name;
        } else if (!*pattern && (!*name || *name == '.')) {
            return true;
        } else if (*pattern && *pattern == *name) {
            pattern++, name++;
        } else if (star && *taken && *taken != '.') {
            pattern = star;
            name = ++taken;
        } else {
            return false;
        }
    }
    return true;
}

mb_prefix mb_prefix_begin_at(const char *site, mb_context *ctx, const char *name, int64_t index)
{
    MB_SITE(ctx, site);
    mb_prefix none = {NULL, 0};
    if (!ctx || !mb_site_here_.ctx ||
        !mb__reserve(ctx, (void **)&ctx->prefixes, &ctx->prefix_capacity, (uint64_t)ctx->prefix_count + 1,
                     sizeof *ctx->prefixes))
        return none;
    mb_prefix p = {ctx, ctx->prefix_count};
    ctx->prefixes[ctx->prefix_count++] =
        (mb__prefix){name ? name : "", index, ctx->scopes[ctx->scope_count - 1].serial, ctx->site};
    return p;
}

void mb_prefix_end(const mb_prefix *prefix)
{
    if (!prefix || !prefix->ctx || !mb__right_thread(prefix->ctx, "mb_prefix_end"))
        return;
    if (prefix->depth < prefix->ctx->prefix_count)
        prefix->ctx->prefix_count = prefix->depth;
}

/* The full name, in memory for a while; NULL: error set. */
static const char *full_name(mb_context *ctx, const char *name)
{
    size_t length = strlen(name) + 1, at = 0;
    for (uint32_t i = 0; i < ctx->prefix_count; i++)
        length += strlen(ctx->prefixes[i].name) + 24; /* two dots and an index */
    char *text = mb__temporary(ctx, length);
    for (uint32_t i = 0; text && i < ctx->prefix_count; i++) {
        const mb__prefix *p = &ctx->prefixes[i];
        if (*p->name)
            at += (size_t)snprintf(text + at, length - at, "%s.", p->name);
        if (p->index >= 0)
            at += (size_t)snprintf(text + at, length - at, "%lld.", (long long)p->index);
    }
    if (text)
        memcpy(text + at, name, strlen(name) + 1);
    return text;
}

/* --------------------------------------------------------------------------------------------- taps -- */

static mb_tap add_tap(mb_context *ctx, const char *call, const char *pattern, mb__tap t)
{
    mb_tap tap = {ctx, 0};
    if (!mb__enter_context(call, ctx))
        return tap;
    if (!pattern || ctx->telling) {
        mb__error(ctx, MB_INVALID, "%s: %s", call,
                  pattern ? "the function of a tap cannot begin one" : "no pattern");
        return tap;
    }
    if (!mb__reserve(ctx, (void **)&ctx->taps, &ctx->tap_capacity, (uint64_t)ctx->tap_count + 1,
                     sizeof *ctx->taps))
        return tap;
    t.pattern = pattern;
    t.site = ctx->site;
    t.serial = tap.serial = ++ctx->next_tap;
    t.scope = ctx->scopes[ctx->scope_count - 1].serial;
    t.within = ctx->bracket_count;
    ctx->taps[ctx->tap_count++] = t;
    return tap;
}

mb_tap mb_tap_begin_at(const char *site, mb_context *ctx, const char *pattern, mb_tap_function function,
                       void *user)
{
    MB_SITE(ctx, site);
    if (!function && mb__enter_context("tap_begin", ctx))
        mb__error(ctx, MB_INVALID, "tap_begin: no function");
    return add_tap(ctx, "tap_begin", pattern, (mb__tap){.function = function, .user = user});
}

mb_tap mb_tap_through_at(const char *site, mb_context *ctx, const char *pattern,
                         mb_tap_through_function function, void *user)
{
    MB_SITE(ctx, site);
    if (!function && mb__enter_context("tap_through", ctx))
        mb__error(ctx, MB_INVALID, "tap_through: no function");
    return add_tap(ctx, "tap_through", pattern, (mb__tap){.through = function, .user = user});
}

/* Whether n tensors can lie at ts; false: error set. */
static bool check_array(mb_context *ctx, const char *call, const mb_tensor *ts, int n)
{
    if (n >= 0 && (ts || n == 0))
        return true;
    if (mb__enter_context(call, ctx))
        mb__error(ctx, MB_INVALID, "%s: got %d tensors%s; wanted 0 or more, and an array", call, n,
                  ts ? "" : " and no array");
    return false;
}

mb_tap mb_tap_collect_at(const char *site, mb_context *ctx, const char *pattern, mb_tensor *ts, int capacity)
{
    MB_SITE(ctx, site);
    bool ok = check_array(ctx, "tap_collect", ts, capacity);
    for (int i = 0; ok && i < capacity; i++)
        ts[i] = (mb_tensor){0};
    return ok ? add_tap(ctx, "tap_collect", pattern, (mb__tap){.collected = ts, .n = capacity})
              : (mb_tap){ctx, 0};
}

mb_tap mb_tap_replace_at(const char *site, mb_context *ctx, const char *pattern, const mb_tensor *ts, int n)
{
    MB_SITE(ctx, site);
    bool ok = check_array(ctx, "tap_replace", ts, n);
    return ok ? add_tap(ctx, "tap_replace", pattern, (mb__tap){.given = ts, .n = n}) : (mb_tap){ctx, 0};
}

static uint32_t position(const mb_context *ctx, uint32_t serial)
{
    uint32_t i = 0;
    while (i < ctx->tap_count && ctx->taps[i].serial != serial)
        i++;
    return i;
}

int mb_tap_end_at(const char *site, mb_tap tap)
{
    MB_DOOR(tap.ctx, site, -1);
    mb_context *ctx = tap.ctx;
    uint32_t i = ctx ? position(ctx, tap.serial) : 0;
    if (!ctx)
        return -1;
    if (i == ctx->tap_count || ctx->telling) {
        mb__error(ctx, MB_INVALID, "tap_end: %s",
                  ctx->telling ? "the function of a tap cannot end one" : "this tap is not open");
        return -1;
    }
    mb__tap t = ctx->taps[i];
    memmove(&ctx->taps[i], &ctx->taps[i + 1], (--ctx->tap_count - i) * sizeof t);
    if (ctx->bracket_count > t.within && t.collected)
        mb__error(ctx, MB_INVALID, "tap_end: the %s begun at %s is still open inside the tap",
                  ctx->brackets[ctx->bracket_count - 1].kind, ctx->brackets[ctx->bracket_count - 1].site);
    if (t.given && t.heard < t.n)
        mb__error(ctx, MB_INVALID, "tap_end: of %d replacements for \"%s\" only %d were asked for", t.n,
                  t.pattern, t.heard);
    return mb_error(ctx) == MB_OK ? t.heard : -1;
}

/* -------------------------------------------------------------------------------------------- telling -- */

/* ts[k] becomes x; inside of scans and vmaps that the tap is around, what these bring out at their end. */
static void collect(mb_context *ctx, const mb__tap *t, mb_tensor x)
{
    mb_tensor *to = &t->collected[t->heard];
    *to = x;
    if (ctx->bracket_count <= t->within)
        return;
    *to = mb__poison(ctx); /* until then */
    uint32_t id = mb__resolve(ctx, x);
    if (id)
        mb__bound_add(ctx, &ctx->brackets[ctx->bracket_count - 1].stacks, (mb__bound){to, 0, id});
}

void mb__taps_lift(mb_context *ctx, const mb__bounds *stacks)
{
    for (uint32_t i = 0; i < ctx->tap_count && ctx->bracket_count; i++) {
        const mb__tap *t = &ctx->taps[i];
        uintptr_t first = (uintptr_t)t->collected, end = first + (uintptr_t)t->n * sizeof *t->collected;
        for (uint32_t k = 0; t->collected && t->within < ctx->bracket_count && k < stacks->count; k++) {
            mb_tensor *to = stacks->list[k].where;
            if ((uintptr_t)to < first || (uintptr_t)to >= end || !to->id)
                continue;
            uint32_t id = to->id;
            *to = mb__poison(ctx);
            mb__bound_add(ctx, &ctx->brackets[ctx->bracket_count - 1].stacks, (mb__bound){to, 0, id});
        }
    }
}

/* Whether y can take the place of x; false: error set. */
static bool fits(mb_context *ctx, const mb__tap *t, const char *name, mb_tensor x, mb_tensor y)
{
    mb_tensor poison;
    char got[256], want[256];
    if (!mb__enter("tell", (const mb_tensor *[]){&x, &y}, 2, &poison))
        return false;
    const mb__node *a = mb__at(ctx, x.id), *b = mb__at(ctx, y.id);
    if (a->dtype == b->dtype && a->rank == b->rank &&
        !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim))
        return true;
    mb__error(ctx, MB_INVALID, "tell: the tap begun at %s puts %s in the place of \"%.200s\", %s", t->site,
              mb__tensor_text(got, sizeof got, y), name, mb__tensor_text(want, sizeof want, x));
    return false;
}

/* What the tap's function of a status makes of x. */
static mb_tensor gone_through(mb_context *ctx, const mb__tap *t, const char *name, mb_tensor x)
{
    mb_status status = t->through(t->user, name, &x);
    if (status != MB_OK && mb_error(ctx) == MB_OK)
        mb__error(ctx, status, "tell: the tap begun at %s failed at \"%.200s\" (%s)", t->site, name,
                  mb_status_name(status));
    return x;
}

/* What a tap leaves of x. */
static mb_tensor hear(mb_context *ctx, mb__tap *t, const char *name, mb_tensor x)
{
    mb_tensor y = {0};
    if (t->collected && t->heard < t->n)
        collect(ctx, t, x);
    if (t->given && t->heard < t->n)
        y = t->given[t->heard];
    t->heard += t->heard < INT_MAX;
    if (t->function)
        y = t->function(t->user, name, x);
    if (t->through)
        y = gone_through(ctx, t, name, x);
    if (!y.ctx || mb_error(ctx) != MB_OK)
        return mb_error(ctx) == MB_OK ? x : mb__poison(ctx);
    return fits(ctx, t, name, x, y) ? y : mb__poison(ctx);
}

mb_tensor mb_tell_at(const char *site, mb_tensor x, const char *name)
{
    mb_context *ctx = x.ctx;
    if (!ctx || !mb__right_thread(ctx, site) || !ctx->tap_count || ctx->telling)
        return x;
    MB_SITE(ctx, site);
    MB_TEMPORARY(ctx);
    mb_tensor poison;
    const char *full = NULL;
    if (mb__enter("tell", (const mb_tensor *[]){&x}, 1, &poison))
        full = full_name(ctx, name ? name : "");
    if (!full)
        return mb__poison(ctx);
    ctx->telling = true;
    for (uint32_t i = 0; i < ctx->tap_count && x.id; i++)
        if (mb__name_matches(ctx->taps[i].pattern, full))
            x = hear(ctx, &ctx->taps[i], full, x);
    ctx->telling = false;
    return x;
}

/* -------------------------------------------------------------------------------------------- scopes -- */

void mb__taps_cut(mb_context *ctx, uint32_t serial)
{
    while (ctx->prefix_count && ctx->prefixes[ctx->prefix_count - 1].scope >= serial) {
        const mb__prefix *p = &ctx->prefixes[--ctx->prefix_count];
        mb__error(ctx, MB_INVALID,
                  "scope_end: the prefix \"%.200s\" begun at %s is still open inside this scope", p->name,
                  p->site);
    }
    uint32_t left = 0;
    for (uint32_t i = 0; i < ctx->tap_count; i++) {
        if (ctx->taps[i].scope < serial)
            ctx->taps[left++] = ctx->taps[i];
        else
            mb__error(ctx, MB_INVALID, "scope_end: the tap begun at %s is still open inside this scope",
                      ctx->taps[i].site);
    }
    ctx->tap_count = left;
}

void mb__taps_free(mb_context *ctx)
{
    mb__free(ctx, ctx->taps, ctx->tap_capacity * sizeof *ctx->taps);
    mb__free(ctx, ctx->prefixes, ctx->prefix_capacity * sizeof *ctx->prefixes);
}
