/* SPDX-License-Identifier: MIT
 *
 * scan_rules.c - derivatives of a scan, which are scans.
 *
 * Reverse: a scan from the last step to the first. Its slices are the carries as they were at each step's
 * beginning, what the scan slices, and the cotangents of its stacks; its carries the cotangent of the
 * carries, and sums of the cotangents of what the body reads. A step records the body again and its reverse
 * sweep. Where the step has an inverse, the carries as they were are carries, too, and each step first
 * records that.
 *
 * Forward: a scan of the same steps that carries the tangents beside the values, so that nothing is stored.
 */
#include "autograd/scan_rules.h"
#include "autograd/range.h"
#include "tensor/copy.h"

/* A scan that is being made, of another: as many of everything as there can be. */
typedef struct making {
    mb_context *ctx;
    mb__scan_view of;
    uint32_t scan;
    mb__bound *carry, *slice;
    uint32_t *next, *stack;
    int carries, slices, stacks;
    uint32_t *placeholders, *captures, *results, *afters, *befores; /* of the copied inside: see mb__inside */
    uint32_t *ys, *vs, *xs, *gs;                                    /* of a sweep */
    int m, n;
} making;

static uint32_t operand_of(const making *k, int i)
{
    return mb__in(k->ctx, mb__at(k->ctx, k->scan), i);
}
static bool is_float(const making *k, uint32_t id)
{
    return mb__is_float(mb__at(k->ctx, id)->dtype);
}
/* The placeholder of the scan's carry i, and after those of its slices. */
static uint32_t original(const making *k, int i)
{
    return mb__in(k->ctx, mb__at(k->ctx, k->of.body), i);
}

static bool begin(making *k, mb_context *ctx, uint32_t scan)
{
    *k = (making){.ctx = ctx, .scan = scan, .of = mb__scan_of(ctx, scan)};
    size_t all = (size_t)(k->of.carries + k->of.slices + k->of.stacks + k->of.captures) * 2 + 1;
    size_t bytes = all * (2 * sizeof *k->carry + 11 * sizeof *k->next);
    void *memory = mb__temporary(ctx, bytes);
    if (!memory)
        return false;
    k->carry = memory;
    k->slice = k->carry + all;
    uint32_t *words = (uint32_t *)(k->slice + all);
    uint32_t **const lists[] = {&k->next,   &k->stack,   &k->placeholders, &k->captures, &k->results,
                                &k->afters, &k->befores, &k->ys,           &k->vs,       &k->xs,
                                &k->gs};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        *lists[i] = words + i * all;
    return true;
}

/* ---- pieces; 0 and false: error set ---- */

/* Zeros like a node; with lead >= 0, after an axis of that size. */
static uint32_t zeros_like(mb_context *ctx, uint32_t id, int64_t lead)
{
    return mb__zeros_like(ctx, id, lead).id;
}

static uint32_t new_placeholder(mb_context *ctx, uint32_t like, int skip)
{
    mb__node n = *mb__at(ctx, like);
    return mb__placeholder(ctx, (mb_dtype)n.dtype, n.rank - skip, n.dim + skip).id;
}

static uint32_t add_carry(making *k, uint32_t from)
{
    uint32_t at = from ? new_placeholder(k->ctx, from, 0) : 0;
    k->carry[k->carries++] = (mb__bound){NULL, at, from};
    return at;
}

static uint32_t add_slice(making *k, uint32_t from)
{
    uint32_t at = from ? new_placeholder(k->ctx, from, 1) : 0;
    k->slice[k->slices++] = (mb__bound){NULL, at, from};
    return at;
}

static uint32_t alias_of(mb_context *ctx, uint32_t id)
{
    return mb_alias(mb__handle(ctx, id)).id;
}

static bool copy(making *k)
{
    const mb__inside to = {.placeholders = k->placeholders, .captures = k->captures, .results = k->results};
    return mb_error(k->ctx) == MB_OK && mb__copy_inside(k->ctx, k->scan, &to);
}

static uint32_t record(making *k, uint32_t first, bool backwards, int until, int idle)
{
    if (mb_error(k->ctx) != MB_OK)
        return 0;
    const mb__loop_parts parts = {.steps = k->of.steps,
                                  .backwards = backwards,
                                  .first = first,
                                  .carries = k->carries,
                                  .slices = k->slices,
                                  .stacks = k->stacks,
                                  .carry = k->carry,
                                  .slice = k->slice,
                                  .next = k->next,
                                  .stack = k->stack,
                                  .until = until,
                                  .idle = idle};
    return mb__scan_record(k->ctx, &parts);
}

/* ---- reverse ---- */

/* What the inside reads at a step: the stored carries, slices; and captures, by names of their own where
 * their cotangent is wanted, so that a sweep looks no further back than the body. */
static void bind_reverse(making *k, const uint32_t *wanted)
{
    int nc = k->of.carries, ns = k->of.slices, base = 1 + nc + ns;
    uint32_t last = k->scan + 1, history = last + (uint32_t)k->of.stacks;
    for (int i = 0; i < nc; i++)
        if (k->of.reversible)
            k->afters[i] = add_carry(k, last + (uint32_t)i);
        else
            k->placeholders[i] = add_slice(k, history + (uint32_t)i);
    for (int i = 0; i < ns; i++)
        k->placeholders[nc + i] = add_slice(k, operand_of(k, 1 + nc + i));
    for (int i = 0; i < k->of.captures; i++) {
        uint32_t o = operand_of(k, base + i);
        k->captures[i] = wanted[base + i] && !k->of.reversible ? alias_of(k->ctx, o) : o;
    }
}

/* The carries before the step, by its inverse. Then all that the step reads gets a name of its own, so that a
 * sweep does not go into the inverse. */
static bool go_back(making *k, const uint32_t *wanted)
{
    mb_context *ctx = k->ctx;
    int nc = k->of.carries, own = nc + k->of.slices;
    const mb__inside to = {
        .placeholders = k->placeholders, .captures = k->captures, .afters = k->afters, .befores = k->befores};
    if (mb_error(ctx) != MB_OK || !mb__copy_inside(ctx, k->scan, &to))
        return false;
    for (int i = 0; i < own; i++) {
        uint32_t x = i < nc ? k->befores[i] : k->placeholders[i];
        k->placeholders[i] = is_float(k, x) ? alias_of(ctx, x) : x;
        if (i < nc)
            k->next[i] = k->befores[i];
    }
    for (int i = 0; i < k->of.captures; i++)
        if (wanted[1 + own + i])
            k->captures[i] = alias_of(ctx, k->captures[i]);
    return mb_error(ctx) == MB_OK;
}

/* The sweep's results and their cotangents: next carries, by carries; stacks, by slices. */
static void seed_reverse(making *k, const uint32_t *results)
{
    int nc = k->of.carries;
    for (int i = 0; i < nc + k->of.stacks; i++) {
        if (i < nc ? !is_float(k, original(k, i)) : !results[i])
            continue;
        uint32_t from = i < nc && !results[i] ? zeros_like(k->ctx, original(k, i), -1) : results[i];
        k->ys[k->m] = k->results[i];
        k->vs[k->m++] = i < nc ? add_carry(k, from) : add_slice(k, from);
    }
}

/* What it is by: carries, wanted slices, wanted captures. */
static void list_variables(making *k, const uint32_t *wanted)
{
    int nc = k->of.carries, own = nc + k->of.slices;
    for (int i = 0; i < own + k->of.captures; i++) {
        uint32_t x = i < own ? k->placeholders[i] : k->captures[i - own];
        if (is_float(k, x) && (i < nc || wanted[1 + i]))
            k->xs[k->n++] = x;
    }
}

/* The node that says of each step whether it changes nothing; 0: none does. */
static uint32_t idle_flags(const making *k)
{
    return k->of.until  ? k->scan + (uint32_t)k->of.stacks + (uint32_t)k->of.until
           : k->of.idle ? operand_of(k, k->of.carries + k->of.idle)
                        : 0;
}

/* Whether a stack is of a carry or slice itself. */
static bool stacks_placeholder(mb_context *ctx, const mb__scan_view *s, int64_t result)
{
    uint32_t of = mb__in(ctx, mb__at(ctx, s->body), s->carries + s->slices + (int)result);
    return mb__at(ctx, of)->op == MB_OP_PLACEHOLDER;
}

/* Whether a cotangent of a stack is zeros at the steps that these flags say: it is a stack of a scan that
 * leaves them out, or a sum of such. */
static bool is_quiet(mb_context *ctx, uint32_t id, uint32_t flags)
{
    const mb__node *n = mb__at(ctx, id);
    if (n->op == MB_OP_ADD)
        return is_quiet(ctx, mb__in(ctx, n, 0), flags) && is_quiet(ctx, mb__in(ctx, n, 1), flags);
    if (n->op != MB_OP_RESULT)
        return false;
    uint32_t scan = mb__in(ctx, n, 0);
    mb__scan_view s = mb__scan_of(ctx, scan);
    int64_t number = mb__attrs(ctx, n)[0];
    return s.idle && number >= s.carries && !stacks_placeholder(ctx, &s, number) &&
           mb__in(ctx, mb__at(ctx, scan), s.carries + s.idle) == flags;
}

/* The slice that says which steps of the reverse scan change nothing: those that changed nothing before, if
 * no cotangent comes in at them. Stacks that are zeros there take any. */
static int idle_slice(const making *k, const uint32_t *results)
{
    uint32_t flags = idle_flags(k);
    for (int i = k->of.carries; flags && i < k->of.carries + k->of.stacks; i++)
        if (results[i] && (k->of.until || stacks_placeholder(k->ctx, &k->of, i)) &&
            !is_quiet(k->ctx, results[i], flags))
            return 0;
    return !flags ? 0 : k->of.until ? k->of.until : k->of.carries + k->of.idle;
}

/* The carries' cotangents go on, those of captures add up, those of slices are stacked. operands[]: where the
 * cotangent will be, counted from the recorded scan on; 0: nowhere. */
static void bring_out(making *k, uint32_t *operands)
{
    mb_context *ctx = k->ctx;
    int nc = k->of.carries, own = nc + k->of.slices, x = 0, carries = k->of.reversible ? nc : 0;
    for (int i = 0; i < own + k->of.captures; i++) {
        uint32_t at = i < own ? k->placeholders[i] : k->captures[i - own];
        bool wanted = operands[1 + i] != 0, listed = is_float(k, at) && (i < nc || wanted);
        uint32_t g = listed ? k->gs[x++] : 0;
        operands[1 + i] = 0;
        if (!listed || mb_error(ctx) != MB_OK)
            continue;
        if (i < nc) {
            k->next[carries] = g ? g : zeros_like(ctx, at, -1);
            operands[1 + i] = wanted ? 1 + (uint32_t)carries : 0;
            carries++;
        } else if (g && i >= own) {
            uint32_t sum = add_carry(k, zeros_like(ctx, at, -1));
            k->next[k->carries - 1] = sum ? mb_add(mb__handle(ctx, sum), mb__handle(ctx, g)).id : 0;
            operands[1 + i] = (uint32_t)k->carries;
        } else if (g) {
            k->stack[k->stacks++] = g;
        }
    }
}

/* Stacks come after all carries, whose number is known only now. */
static void number_slices(making *k, uint32_t *operands, const uint32_t *stacked)
{
    for (int i = 0; i < k->of.slices; i++)
        operands[1 + k->of.carries + i] = stacked[i] ? (uint32_t)k->carries + stacked[i] : 0;
}

mb_status mb__scan_reverse(mb_context *ctx, uint32_t scan, const mb__sweeps *sweeps, const uint32_t *results,
                           uint32_t *operands)
{
    making k;
    MB_TEMPORARY(ctx);
    if (!begin(&k, ctx, scan))
        return ctx->status;
    uint32_t first = ctx->node_count, recorded = 0;
    int idle = idle_slice(&k, results);
    bind_reverse(&k, operands);
    if ((!k.of.reversible || go_back(&k, operands)) && copy(&k)) {
        seed_reverse(&k, results);
        list_variables(&k, operands);
    }
    if (mb_error(ctx) == MB_OK && sweeps->vjp(ctx, k.ys, k.vs, k.m, k.xs, k.n, k.gs) == MB_OK) {
        uint32_t *stacked = k.results; /* no longer needed */
        int x = 0, stacks = 0;
        for (int i = 0; i < k.of.carries; i++)
            x += is_float(&k, k.placeholders[i]);
        for (int i = 0; i < k.of.slices; i++) {
            bool listed = is_float(&k, k.placeholders[k.of.carries + i]) && operands[1 + k.of.carries + i];
            stacked[i] = listed && k.gs[x] ? (uint32_t)++stacks : 0;
            x += listed;
        }
        bring_out(&k, operands);
        number_slices(&k, operands, stacked);
        recorded = record(&k, first, !k.of.backwards, 0, idle);
    }
    for (int i = 1; i < 1 + k.of.carries + k.of.slices + k.of.captures; i++)
        operands[i] = recorded && operands[i] ? recorded + operands[i] : 0;
    return ctx->status;
}

/* ---- forward ---- */

/* The first two axes, exchanged. */
static uint32_t swapped(mb_context *ctx, uint32_t id)
{
    mb_axes order = {.count = mb__at(ctx, id)->rank};
    for (int i = 0; i < order.count; i++)
        order.axis[i] = i < 2 ? 1 - i : i;
    return mb_permute(mb__handle(ctx, id), order).id;
}

static void add_variable(making *k, uint32_t x, uint32_t tangent)
{
    k->xs[k->n] = x;
    k->vs[k->n++] = tangent;
}

/* Values first, in the scan's own order; then tangents. */
static void bind_forward(making *k, const uint32_t *tangents, int64_t lead)
{
    mb_context *ctx = k->ctx;
    int nc = k->of.carries, ns = k->of.slices;
    for (int i = 0; i < nc; i++)
        k->placeholders[i] = add_carry(k, operand_of(k, 1 + i));
    for (int i = 0; i < ns; i++)
        k->placeholders[nc + i] = add_slice(k, operand_of(k, 1 + nc + i));
    for (int i = 0; i < nc && mb_error(ctx) == MB_OK; i++)
        if (is_float(k, k->placeholders[i])) {
            uint32_t t = tangents[1 + i];
            add_variable(k, k->placeholders[i], add_carry(k, t ? t : zeros_like(ctx, original(k, i), lead)));
        }
    for (int i = 0; i < ns && mb_error(ctx) == MB_OK; i++) {
        uint32_t t = tangents[1 + nc + i];
        if (t)
            add_variable(k, k->placeholders[nc + i], add_slice(k, lead >= 0 ? swapped(ctx, t) : t));
    }
    for (int i = 0; i < k->of.captures && mb_error(ctx) == MB_OK; i++) {
        uint32_t o = operand_of(k, 1 + nc + ns + i), t = tangents[1 + nc + ns + i];
        k->captures[i] = t ? alias_of(ctx, o) : o;
        if (t)
            add_variable(k, k->captures[i], t);
    }
}

mb_status mb__scan_forward(mb_context *ctx, uint32_t scan, const mb__sweeps *sweeps, const uint32_t *operands,
                           int64_t lead, uint32_t *results)
{
    making k;
    MB_TEMPORARY(ctx);
    if (!begin(&k, ctx, scan))
        return ctx->status;
    int nc = k.of.carries, all = nc + k.of.stacks;
    uint32_t first = ctx->node_count, recorded = 0;
    bind_forward(&k, operands, lead);
    bool ok = copy(&k);
    for (int i = 0; i < all && ok; i++)
        if (is_float(&k, k.results[i]))
            k.ys[k.m++] = k.results[i];
    ok = ok && sweeps->jvp(ctx, k.ys, k.m, k.xs, k.vs, k.n, lead, k.gs) == MB_OK;
    int carries = nc;
    for (int i = 0; i < nc; i++)
        k.next[i] = k.results[i];
    for (int i = 0, y = 0; i < all && ok; i++) {
        results[i] = 0;
        if (!is_float(&k, k.results[i]))
            continue;
        uint32_t t = k.gs[y++];
        if (i < nc) {
            k.next[carries] = t ? t : zeros_like(ctx, original(&k, i), lead);
            results[i] = 1 + (uint32_t)carries++;
            ok = k.next[carries - 1] != 0;
        } else if (t) {
            k.stack[k.stacks++] = t;
            results[i] = (uint32_t)(k.carries + k.stacks);
        }
    }
    recorded = ok ? record(&k, first, k.of.backwards, k.of.until, k.of.idle) : 0;
    for (int i = 0; i < all; i++) {
        results[i] = recorded && results[i] ? recorded + results[i] : 0;
        if (results[i] && i >= nc && lead >= 0)
            results[i] = swapped(ctx, results[i]);
    }
    return ctx->status;
}
