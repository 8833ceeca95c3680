/* SPDX-License-Identifier: MIT
 *
 * slice_kinds.c - what of a graph is computed before, in and after a loop over slices of the batch, where an
 * input is cut along its first axis.
 *
 * Kinds follow from those of the operands, node by node. What the placeholders of scans are is not known at
 * first: such operands say nothing, and of a scan's inside it is learned what its carries become. So the
 * graph is gone through again, until nothing new is learned; what then is still unknown depends on nothing
 * that is cut.
 */
#include "backends/plan/slices.h"

enum { UNKNOWN = -5, PASSES_MOST = 64 };

static bool is_cut(int kind)
{
    return kind >= 0;
}

int mb__slice_operands(const mb__gnode *n)
{
    return n->op == MB_OP_BARRIER || mb__is_kind(n->op, MB_KIND_IDENTITY) ? 1 : n->nin;
}

/* ---- ops ---- */

enum { DEPTH_MOST = 8 };

/* Whether there can be slices of what is not cut: of what is there before the loop; and of what is the same
 * along the axis, or is made elementwise of such. */
static bool can_be_cut(const mb__kinds *s, int32_t id, int axis, int depth)
{
    const mb__gnode *n = &s->g->nodes[id];
    int is = s->kind[id];
    if (is == UNKNOWN)
        return true;
    if (!mb__gcount(n) || n->dim[axis] % s->parts)
        return false;
    if (is != MB_INSIDE || depth == DEPTH_MOST || (n->op != MB_OP_BROADCAST && !mb__is_elementwise(n->op)))
        return is == MB_BEFORE;
    for (int j = 0; j < n->nin; j++) {
        const mb__gnode *x = &s->g->nodes[n->in[j]];
        int k = axis - (n->rank - x->rank);
        if (k >= 0 && x->dim[k] == n->dim[axis] && !can_be_cut(s, n->in[j], k, depth + 1))
            return false;
    }
    return true;
}

/* Whether each part can have what it needs of all operands, where `from` is cut. */
static bool agrees(const mb__kinds *s, const mb__gnode *n, int from, int k, int to)
{
    for (int j = 0; j < mb__slice_operands(n); j++) {
        int wants = mb__cut_operand(s->g, n, j, from, k, to), is = s->kind[n->in[j]];
        if (is_cut(is) ? is != wants : wants >= 0 && !can_be_cut(s, n->in[j], wants, 0))
            return false;
    }
    return true;
}

/* Whether a sum is that of its parts' sums. */
static bool is_linear(const mb__kinds *s, const mb__gnode *n)
{
    bool linear = n->op == MB_OP_ADD || n->op == MB_OP_SUB || n->op == MB_OP_NEG || n->op == MB_OP_RESHAPE ||
                  n->op == MB_OP_PERMUTE || n->op == MB_OP_SLICE;
    for (int j = 0; linear && j < n->nin; j++)
        linear = s->kind[n->in[j]] == MB_ADDED || s->kind[n->in[j]] == UNKNOWN;
    return linear && mb__gcount(n);
}

static int kind_of_op(const mb__kinds *s, const mb__gnode *n)
{
    int from = -1, rest = MB_BEFORE;
    bool added = false;
    for (int j = 0; j < mb__slice_operands(n); j++) {
        int is = s->kind[n->in[j]];
        if (is == MB_AFTER)
            return MB_AFTER;
        added |= is == MB_ADDED;
        from = is_cut(is) && from < 0 ? j : from;
        rest = is == UNKNOWN || (is == MB_INSIDE && rest != UNKNOWN) ? is : rest;
    }
    if (added)
        return is_linear(s, n) ? MB_ADDED : MB_AFTER;
    if (from < 0)
        return rest == MB_INSIDE && n->op == MB_OP_CALL ? MB_AFTER : rest; /* it is called once */
    if (!mb__gcount(n))
        return MB_AFTER;
    int k = s->kind[n->in[from]], to = mb__cut_of(s->g, n, from, k, s->parts);
    if (to == MB_CUT_NONE || !agrees(s, n, from, k, to) || (to == MB_CUT_ADDED && !mb__is_number(n->dtype)))
        return MB_AFTER;
    return to;
}

/* ---- scans ---- */

mb__scan_ports mb__ports_of(const mb__graph *g, int32_t scan)
{
    const mb__gnode *s = &g->nodes[scan], *body = &g->nodes[s->in[0]];
    mb__scan_ports p = {(int)s->attr[2], (int)s->attr[3], (int)s->attr[4], s->in + 1, body->in, NULL};
    p.next = body->in + p.carries + p.slices;
    return p;
}

static bool is_zero(const mb__graph *g, int32_t id)
{
    const mb__gnode *n = &g->nodes[id];
    while (n->op == MB_OP_RESHAPE || n->op == MB_OP_BROADCAST || n->op == MB_OP_PERMUTE ||
           n->op == MB_OP_CAST || mb__is_kind(n->op, MB_KIND_IDENTITY))
        n = &g->nodes[n->in[0]];
    double value = 1;
    if (n->op == MB_OP_CONST)
        memcpy(&value, n->attr, sizeof value);
    return value == 0;
}

/* What carry i is, of what it begins with and becomes; MB_AFTER: it cannot be. */
static int kind_of_carry(const mb__kinds *s, const mb__scan_ports *p, int i)
{
    int now = s->kind[p->inside[i]], first = s->kind[p->outside[i]], next = s->kind[p->next[i]];
    int to = is_cut(now) || now == MB_ADDED ? now : is_cut(first) || first == MB_ADDED ? first : next;
    if (to == MB_ADDED) /* each part begins with its own part of the sum */
        return (next == MB_ADDED || next == UNKNOWN) && (first == to || is_zero(s->g, p->outside[i]))
                   ? to
                   : MB_AFTER;
    if (!is_cut(to)) /* as it was: the same for each part, or not known */
        return to == MB_AFTER || first == MB_AFTER || first == MB_ADDED ? MB_AFTER : now;
    bool begins = first == to || (!is_cut(first) && can_be_cut(s, p->outside[i], to, 0));
    bool goes_on = next == to || (!is_cut(next) && can_be_cut(s, p->next[i], to, 0));
    return begins && goes_on ? to : MB_AFTER;
}

static int kind_of_slice(const mb__kinds *s, const mb__scan_ports *p, int i)
{
    int now = s->kind[p->inside[i]], whole = s->kind[p->outside[i]];
    if (whole == MB_AFTER || whole == MB_ADDED || whole == 0)
        return MB_AFTER;
    if (is_cut(whole))
        return is_cut(now) && now != whole - 1 ? MB_AFTER : whole - 1;
    return is_cut(now) ? MB_AFTER : now;
}

/* Whether what goes in or comes out is of the loop; of what cannot be, *after is set. */
static bool takes_part(const mb__kinds *s, const mb__scan_ports *p, bool *after)
{
    bool part = false;
    for (int i = 0; i < p->carries + p->slices; i++) {
        int is = s->kind[p->outside[i]];
        if (!s->live[p->inside[i]])
            continue;
        *after |= is == MB_AFTER || (is == MB_ADDED && i >= p->carries);
        part |= is_cut(is) || is == MB_ADDED || is == MB_INSIDE;
    }
    for (int i = 0; i < p->carries + p->stacks; i++) {
        int is = s->kind[p->next[i]];
        if (!s->live[i < p->carries ? p->inside[i] : p->next[i]])
            continue;
        *after |= is == MB_AFTER;
        part |= is_cut(is) || is == MB_ADDED || is == MB_INSIDE;
    }
    return part;
}

/* Of the scan's placeholders; whether that is news. settle: what is unknown depends on nothing that is cut.
 */
static bool learn(mb__kinds *s, int32_t scan, bool settle)
{
    mb__scan_ports p = mb__ports_of(s->g, scan);
    bool after = s->kind[scan] == MB_AFTER, news = false;
    bool part = takes_part(s, &p, &after);
    int n = p.carries + p.slices;
    for (int i = 0; i < n && !after; i++) {
        int to = !s->live[p.inside[i]] ? MB_BEFORE
                 : i < p.carries       ? kind_of_carry(s, &p, i)
                                       : kind_of_slice(s, &p, i);
        after |= to == MB_AFTER;
        if (settle && to == UNKNOWN)
            to = part ? MB_INSIDE : MB_BEFORE;
        if (part && to == MB_BEFORE) /* a scan is in the loop with all that is its own */
            to = MB_INSIDE;
        s->learned[i] = (int8_t)to;
    }
    for (int i = 0; i < n; i++) {
        int8_t to = after ? MB_AFTER : s->learned[i];
        news |= s->held[p.inside[i]] != to;
        s->held[p.inside[i]] = to;
    }
    s->kind[scan] = s->kind[s->g->nodes[scan].in[0]] = after ? MB_AFTER : part ? MB_INSIDE : MB_BEFORE;
    return news;
}

/* One of a scan's results. */
static int kind_of_result(const mb__kinds *s, const mb__gnode *n)
{
    int32_t scan = n->in[0];
    mb__scan_ports p = mb__ports_of(s->g, scan);
    int i = (int)n->attr[0];
    if (s->kind[scan] != MB_INSIDE)
        return s->kind[scan];
    int is = i < p.carries ? s->held[p.inside[i]] : s->kind[p.next[i]];
    if (is_cut(is))
        return i < p.carries ? is : is + 1;
    return is == MB_BEFORE ? MB_INSIDE : is;
}

/* ---- all of them ---- */

/* Marks what node i is computed of; of a scan, what is of the carries and slices that are marked. */
static bool mark(mb__kinds *s, int32_t i)
{
    const mb__gnode *n = &s->g->nodes[i];
    bool news = false;
    for (int j = 0; j < n->nin && n->op != MB_OP_BODY && n->op != MB_OP_SCAN; j++) {
        news |= !s->live[n->in[j]];
        s->live[n->in[j]] = true;
    }
    if (n->op != MB_OP_SCAN && n->op != MB_OP_RESULT)
        return news;
    mb__scan_ports p = mb__ports_of(s->g, n->op == MB_OP_SCAN ? i : n->in[0]);
    for (int k = 0; k < p.carries + p.slices + p.stacks; k++) {
        bool *ports[3] = {k < p.carries + p.slices ? &s->live[p.inside[k]] : NULL,
                          k < p.carries + p.slices ? &s->live[p.outside[k]] : NULL,
                          k < p.carries + p.stacks ? &s->live[p.next[k]] : NULL};
        bool asked = n->op == MB_OP_RESULT ? k == n->attr[0] : ports[0] && *ports[0];
        if (!asked)
            continue;
        bool is_carry = k < p.carries, stacked = n->op == MB_OP_RESULT && !is_carry;
        for (int t = stacked ? 2 : 0; t < (is_carry || stacked ? 3 : 2); t++) {
            news |= !*ports[t];
            *ports[t] = true;
        }
    }
    if (n->op == MB_OP_RESULT) {
        int32_t body = s->g->nodes[n->in[0]].in[0];
        news |= !s->live[body];
        s->live[body] = true;
    }
    return news;
}

void mb__kinds_live(mb__kinds *s)
{
    for (int i = 0; i < s->g->output_count; i++)
        s->live[s->g->outputs[i]] = true;
    for (bool news = true; news;) {
        news = false;
        for (int i = s->g->count; i-- > 0;)
            news |= s->live[i] && mark(s, i);
    }
}

static bool go_through(mb__kinds *s, int32_t seed, bool settle)
{
    bool news = false;
    for (int i = 0; i < s->g->count; i++) {
        const mb__gnode *n = &s->g->nodes[i];
        if (!s->live[i])
            continue;
        if (i == seed)
            s->kind[i] = 0;
        else if (n->op == MB_OP_PLACEHOLDER)
            s->kind[i] = s->held[i];
        else if (n->op == MB_OP_RESULT)
            s->kind[i] = (int8_t)kind_of_result(s, n);
        else if (n->op == MB_OP_SCAN)
            news |= learn(s, i, settle);
        else if (n->op != MB_OP_BODY)
            s->kind[i] = (int8_t)kind_of_op(s, n);
    }
    return news;
}

/* Bytes, nearly, of what is in the loop, by those of all that is computed. */
static double share_in_loop(const mb__kinds *s)
{
    double in_loop = 0, all = 1;
    for (int i = 0; i < s->g->count; i++) {
        const mb__gnode *n = &s->g->nodes[i];
        if (mb__is_kind(n->op, MB_KIND_LEAF) || mb__is_kind(n->op, MB_KIND_VIEW) ||
            mb__is_kind(n->op, MB_KIND_LOOP))
            continue;
        all += (double)mb__gcount(n);
        in_loop += is_cut(s->kind[i]) ? (double)mb__gcount(n) : 0;
    }
    return in_loop / all;
}

double mb__kinds_find(mb__kinds *s, int32_t seed)
{
    for (int i = 0; i < s->g->count; i++)
        s->held[i] = MB_BEFORE;
    for (int i = 0; i < s->g->count; i++) {
        s->kind[i] = MB_BEFORE;
        if (s->g->nodes[i].op != MB_OP_SCAN)
            continue;
        mb__scan_ports p = mb__ports_of(s->g, i);
        for (int k = 0; k < p.carries + p.slices; k++)
            s->held[p.inside[k]] = UNKNOWN;
    }
    for (int passes = 0; go_through(s, seed, false) || go_through(s, seed, true); passes++)
        if (passes == PASSES_MOST)
            return 0;
    return share_in_loop(s);
}
