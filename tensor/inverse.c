/* SPDX-License-Identifier: MIT
 * inverse.c - the inverse of a scan's step, told between the scan's brackets. */
#include "tensor/internal.h"
#include "tensor/scan.h"

/* The carry of the scan that lies in this variable; NULL: error set. */
static mb__bound *carry_in(const char *name, mb__bracket *s, mb_context *ctx, const mb_tensor *value)
{
    for (uint32_t i = 0; value && i < s->carries.count; i++)
        if (s->carries.list[i].where == value)
            return &s->carries.list[i];
    mb__error(ctx, MB_INVALID, "%s: the variable is no carry of the scan begun at %s", name, s->site);
    return NULL;
}

static mb__bound *inverse_of(const mb__bracket *s, const mb_tensor *value)
{
    for (uint32_t i = 0; i < s->inverses.count; i++)
        if (s->inverses.list[i].where == value)
            return &s->inverses.list[i];
    return NULL;
}

mb_tensor mb_scan_after_at(const char *site, mb_scan scan, mb_tensor *value)
{
    MB_SITE(scan.ctx, site);
    mb_context *ctx = scan.ctx;
    mb__bracket *s = mb__bracket_innermost("scan_after", "scan", ctx, scan.serial);
    const mb__bound *carry = s ? carry_in("scan_after", s, ctx, value) : NULL;
    if (!carry)
        return mb__poison(ctx);
    const mb__bound *there = inverse_of(s, value);
    if (there)
        return mb__handle(ctx, there->at);
    mb__node n = *mb__at(ctx, carry->at);
    mb_tensor at = mb__placeholder(ctx, (mb_dtype)n.dtype, n.rank, n.dim);
    return at.id && mb__bound_add(ctx, &s->inverses, (mb__bound){value, at.id, 0}) ? at : mb__poison(ctx);
}

mb_status mb_scan_before_at(const char *site, mb_scan scan, mb_tensor *value, mb_tensor before)
{
    MB_DOOR(scan.ctx, site, MB_THREAD);
    mb_context *ctx = scan.ctx;
    mb_tensor poison;
    mb__bracket *s = mb__bracket_innermost("scan_before", "scan", ctx, scan.serial);
    const mb__bound *carry = s ? carry_in("scan_before", s, ctx, value) : NULL;
    if (!carry)
        return mb_error(ctx);
    mb__bound *inverse = inverse_of(s, value);
    if (!inverse || inverse->from)
        return mb__error(ctx, MB_INVALID, "scan_before: %s",
                         inverse
                             ? "what this carry was before a step is told already"
                             : "what this carry was before a step is made of what mb_scan_after gives, which "
                               "was not asked for it");
    if (before.ctx != ctx || !mb__enter("scan_before", (const mb_tensor *[]){&before}, 1, &poison))
        return mb_error(ctx) != MB_OK
                   ? mb_error(ctx)
                   : mb__error(ctx, MB_INVALID, "scan_before: got no tensor of this context");
    const mb__node *a = mb__at(ctx, before.id), *b = mb__at(ctx, carry->at);
    if (a->dtype != b->dtype || a->rank != b->rank ||
        memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim)) {
        char got[256], want[256];
        return mb__error(ctx, MB_INVALID, "scan_before: the carry is %s, and was %s before a step",
                         mb__tensor_text(want, sizeof want, mb__handle(ctx, carry->at)),
                         mb__tensor_text(got, sizeof got, before));
    }
    inverse->from = mb__resolve(ctx, before);
    return mb_error(ctx);
}

/* ---- at the end ---- */

enum { OF_CARRIES = 1, OF_AFTERS = 2 };

/* What the nodes of the body depend on, by id - first, in temporary memory; NULL: error set. */
static uint8_t *dependence(mb_context *ctx, const mb__bracket *s, uint32_t first)
{
    uint8_t *on = mb__temporary(ctx, (size_t)(ctx->node_count - first) + 1);
    if (!on)
        return NULL;
    for (uint32_t i = 0; i < s->carries.count; i++)
        on[s->carries.list[i].at - first] = OF_CARRIES;
    for (uint32_t i = 0; i < s->inverses.count; i++)
        on[s->inverses.list[i].at - first] = OF_AFTERS;
    for (uint32_t id = first; id < ctx->node_count; id++) {
        const mb__node *n = mb__at(ctx, id);
        for (int i = 0; i < n->nin; i++)
            if (mb__in(ctx, n, i) >= first)
                on[id - first] |= on[mb__in(ctx, n, i) - first];
    }
    return on;
}

static uint8_t depends_on(const uint8_t *on, uint32_t first, uint32_t id)
{
    return id >= first ? on[id - first] : 0;
}

static bool refuse(mb_context *ctx, uint32_t carry, const char *why)
{
    mb__error(ctx, MB_INVALID, "scan_end: carry %u %s", carry + 1, why);
    return false;
}

bool mb__scan_inverses(mb_context *ctx, const mb__bracket *s, const uint32_t *next, mb__bound *inverse)
{
    MB_TEMPORARY(ctx);
    if (s->done) {
        mb__error(ctx, MB_INVALID,
                  "scan_end: a scan with mb_scan_until has no inverse: it is not told which "
                  "steps were done");
        return false;
    }
    const uint8_t *on = dependence(ctx, s, s->first);
    if (!on)
        return false;
    for (uint32_t i = 0; i < s->carries.count; i++) {
        const mb__bound *found = inverse_of(s, s->carries.list[i].where);
        if (!found || !found->from)
            return refuse(ctx, i, "has no inverse, and others have: tell mb_scan_before of all, or of none");
        if (depends_on(on, s->first, found->from) & OF_CARRIES)
            return refuse(ctx, i,
                          "before a step is made of carries before the step; wanted of what mb_scan_after "
                          "gives, slices and the outside");
        if (depends_on(on, s->first, next[i]) & OF_AFTERS)
            return refuse(ctx, i,
                          "after a step is made of what mb_scan_after gives, which is for the inverse");
        inverse[i] = *found;
    }
    for (uint32_t i = 0; i < s->stacks.count; i++)
        if (depends_on(on, s->first, s->stacks.list[i].from) & OF_AFTERS) {
            mb__error(ctx, MB_INVALID,
                      "scan_end: stack %u is made of what mb_scan_after gives, which is for the "
                      "inverse",
                      i + 1);
            return false;
        }
    return true;
}
