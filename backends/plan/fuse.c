/* SPDX-License-Identifier: MIT
 *
 * fuse.c - which nodes are computed together. A group becomes one kernel: elementwise nodes over one
 * iteration space, reductions of its rows whose results go on being used in it, and reductions that leave it.
 *
 * Nodes are visited from the last to the first, so all consumers of a node are placed before it. It sinks
 * into the group of its consumers; if they are several, the groups are merged where that makes no cycle, or a
 * cheap node is computed in each, or it joins the consumer that runs first and is stored there for the
 * others.
 *
 * `order` numbers groups and single steps from the last to run to the first. Invariant: any reader of a node
 * that is outside of the node's group has a smaller order than the group. So descending order is a valid
 * schedule, and no search for cycles is needed.
 */
#include "backends/plan/graph.h"

enum { MEMBERS_MAX = 160, GROUPS_MAX = 6, ROW_MAX = 16384 };

enum kind { NONE, FULL, ROW, TOTAL }; /* TOTAL: a reduction whose result leaves the kernel */

typedef struct membership {
    int32_t group;
    enum kind kind;
    int32_t next; /* in the pool; -1 */
} membership;

typedef struct use {
    int32_t consumer, operand, next;
} use;

typedef struct fuser {
    mb__graph *g;
    mb__fusion *f;
    mb__bump *bump;
    unsigned passes;
    int32_t *uses; /* first use of each node with storage */
    use *use_pool;
    int use_count, use_capacity;
    int32_t *memberships;
    membership *member_pool;
    int member_pool_count, member_pool_capacity;
    int *order; /* of a single step or of the group that stores the node */
    int *cost;
    int32_t (*leaves)[3];
    uint8_t *rowish; /* elementwise over the results of reductions */
    int group_capacity, next_order;
    bool failed;
} fuser;

static bool is_elementwise(int op)
{
    return mb__is_elementwise(op) || op == MB_K_COPY;
}
static bool is_fusable(int op)
{
    return is_elementwise(op) || mb__is_reduce(op);
}
static int squeeze(const int64_t *dim, int rank, int64_t *out)
{
    int r = 0;
    for (int i = 0; i < rank; i++)
        if (dim[i] != 1)
            out[r++] = dim[i];
    return r;
}

/* ---- memberships ---- */

static enum kind kind_in(const fuser *u, int32_t node, int32_t group)
{
    for (int32_t m = u->memberships[node]; m >= 0; m = u->member_pool[m].next)
        if (u->member_pool[m].group == group)
            return u->member_pool[m].kind;
    return NONE;
}

static void join(fuser *u, int32_t node, int32_t group, enum kind kind)
{
    if (kind_in(u, node, group) != NONE)
        return;
    mb__group *gr = &u->f->groups[group];
    membership *pool =
        mb__bump_grow(u->bump, u->member_pool, u->member_pool_count, &u->member_pool_capacity, sizeof *pool);
    if (!pool) {
        u->failed = true;
        return;
    }
    u->member_pool = pool; /* at once: its room is known to be larger already */
    int32_t *members =
        mb__bump_grow(u->bump, gr->members, gr->member_count, &gr->member_capacity, sizeof *members);
    if (!members) {
        u->failed = true;
        return;
    }
    gr->members = members;
    pool[u->member_pool_count] = (membership){group, kind, u->memberships[node]};
    u->memberships[node] = u->member_pool_count++;
    members[gr->member_count++] = node;
}

/* ---- how a member reads a node ---- */

/* Strides of operand j of node c over the axes of the group's space. */
static bool access_strides(const fuser *u, int32_t c, int j, const mb__group *gr, enum kind kind,
                           int64_t *stride)
{
    const mb__gnode *n = &u->g->nodes[c], *o = &u->g->nodes[n->in[j]];
    const mb__gnode *space = mb__is_reduce(n->op) ? o : n; /* a reduction ranges over its operand */
    int axis = 0;
    memset(stride, 0, sizeof(int64_t) * MB_MAX_RANK);
    for (int i = 0; i < space->rank; i++) {
        if (space->dim[i] == 1)
            continue;
        if (kind == ROW && !mb__is_reduce(n->op))
            while (axis < gr->rank && gr->row_mask >> axis & 1)
                axis++;
        if (axis >= gr->rank || gr->dim[axis] != space->dim[i])
            return false;
        int k = i - (space->rank - o->rank);
        stride[axis++] = k < 0 || o->dim[k] == 1 ? 0 : o->stride[k];
    }
    return true;
}

/* The node's own strides over the group's axes if it were a member of the kind; the access must match them.
 */
static bool own_strides(const mb__gnode *n, const mb__group *gr, uint32_t skip, int64_t *stride)
{
    int axis = 0;
    memset(stride, 0, sizeof(int64_t) * MB_MAX_RANK);
    for (int i = 0; i < n->rank; i++) {
        if (n->dim[i] == 1)
            continue;
        while (axis < gr->rank && skip >> axis & 1)
            axis++;
        if (axis >= gr->rank || gr->dim[axis] != n->dim[i])
            return false;
        stride[axis++] = n->stride[i];
    }
    while (axis < gr->rank && skip >> axis & 1)
        axis++;
    return axis == gr->rank;
}

/* Axes a reduction runs over, as axes of its squeezed operand. */
static uint32_t reduced_axes(const mb__graph *g, const mb__gnode *n)
{
    const mb__gnode *x = &g->nodes[n->in[0]];
    uint32_t mask = 0;
    int axis = 0;
    for (int i = 0; i < x->rank; i++)
        if (x->dim[i] != 1) {
            if (n->dim[i] == 1)
                mask |= 1u << axis;
            axis++;
        }
    return mask;
}

/* As what node n could be computed inside the group, judged by one access; *rows is set to the row axes that
 * needs. */
static enum kind fits(const fuser *u, int32_t n, int32_t c, int j, int32_t group, uint32_t *rows)
{
    const mb__graph *g = u->g;
    const mb__group *gr = &u->f->groups[group];
    const mb__gnode *x = &g->nodes[n], *o = &g->nodes[g->nodes[c].in[j]];
    enum kind ck = kind_in(u, c, group);
    int64_t access[MB_MAX_RANK], own[MB_MAX_RANK];
    if (o->offset != 0 || !access_strides(u, c, j, gr, ck, access))
        return NONE;
    if (!mb__is_reduce(x->op) && own_strides(x, gr, 0, own) && !memcmp(access, own, sizeof own) &&
        !(ck == ROW && !mb__is_reduce(g->nodes[c].op))) {
        *rows = gr->row_mask;
        return FULL;
    }
    uint32_t zero = 0;
    int64_t row = 1;
    for (int i = 0; i < gr->rank; i++)
        if (access[i] == 0) {
            zero |= 1u << i;
            row *= gr->dim[i];
        }
    if (ck == ROW && !mb__is_reduce(g->nodes[c].op))
        zero = gr->row_mask;
    if (!zero || (gr->row_mask && gr->row_mask != zero) || !(zero >> (gr->rank - 1) & 1) || row > ROW_MAX)
        return NONE;
    if (!own_strides(x, gr, zero, own) || memcmp(access, own, sizeof own))
        return NONE;
    if (mb__is_reduce(x->op)) {
        const mb__gnode *s = &g->nodes[x->in[0]];
        int64_t d[MB_MAX_RANK];
        int r = squeeze(s->dim, s->rank, d);
        if (r != gr->rank || memcmp(d, gr->dim, (size_t)r * sizeof *d) || reduced_axes(g, x) != zero)
            return NONE;
    } else if (!u->rowish[n]) {
        return NONE;
    }
    *rows = zero;
    return ROW;
}

/* ---- groups ---- */

/* Fails into 0, which is a group or none: look at u->failed. */
static int32_t new_group(fuser *u, int32_t n)
{
    mb__fusion *f = u->f;
    mb__group *grown = mb__bump_grow(u->bump, f->groups, f->group_count, &u->group_capacity, sizeof *grown);
    if (!grown) {
        u->failed = true;
        return 0;
    }
    f->groups = grown;
    mb__group *gr = &f->groups[f->group_count];
    memset(gr, 0, sizeof *gr);
    const mb__gnode *x = &u->g->nodes[n], *space = mb__is_reduce(x->op) ? &u->g->nodes[x->in[0]] : x;
    gr->rank = squeeze(space->dim, space->rank, gr->dim);
    gr->order = u->next_order++;
    gr->moved = -1;
    join(u, n, f->group_count, mb__is_reduce(x->op) ? TOTAL : FULL);
    return f->group_count++;
}

/* Moves the later group `a` into the earlier `b` where no value would then be read before it is made. */
static bool merge_groups(fuser *u, int32_t a, int32_t b)
{
    mb__group *ga = &u->f->groups[a], *gb = &u->f->groups[b];
    if (ga->rank != gb->rank || memcmp(ga->dim, gb->dim, (size_t)ga->rank * sizeof *ga->dim) ||
        (ga->row_mask && gb->row_mask && ga->row_mask != gb->row_mask) ||
        ga->member_count + gb->member_count > MEMBERS_MAX)
        return false;
    uint32_t rows = ga->row_mask | gb->row_mask;
    for (int i = 0; i < ga->member_count; i++) {
        int32_t c = ga->members[i];
        enum kind in_b = kind_in(u, c, b);
        if (in_b != NONE && in_b != kind_in(u, c, a))
            return false;
        const mb__gnode *n = &u->g->nodes[c];
        for (int j = 0; j < n->nin; j++) {
            int32_t base = u->g->nodes[n->in[j]].base;
            const mb__gnode *o = &u->g->nodes[base];
            if (o->op == MB_OP_BUFFER || mb__has_flag(o->op, MB_FLAG_GENERATED) || u->order[base] < 0 ||
                kind_in(u, base, a) != NONE)
                continue; /* in memory already, not yet placed, or inside */
            if (kind_in(u, base, b) != NONE) {
                uint32_t r;
                mb__group *target = &u->f->groups[a];
                uint32_t saved = target->row_mask;
                target->row_mask = rows;
                enum kind k = fits(u, base, c, j, a, &r);
                target->row_mask = saved;
                if (k != kind_in(u, base, b))
                    return false;
            } else if (u->order[base] <= gb->order) {
                return false;
            }
        }
    }
    for (int i = 0; i < ga->member_count && !u->failed; i++) {
        int32_t c = ga->members[i];
        join(u, c, b, kind_in(u, c, a));
        if (u->f->owner[c] == a) {
            u->f->owner[c] = b;
            u->order[c] = u->f->groups[b].order;
        } else if (u->f->owner[c] != b && kind_in(u, c, b) != NONE && u->f->stored[c] == false) {
            u->order[c] = u->f->groups[b].order > u->order[c] ? u->f->groups[b].order : u->order[c];
        }
        for (int32_t m = u->memberships[c]; m >= 0; m = u->member_pool[m].next)
            if (u->member_pool[m].group == a)
                u->member_pool[m].group = -1;
    }
    gb = &u->f->groups[b];
    gb->row_mask = rows;
    ga->moved = b;
    ga->member_count = 0;
    return true;
}

/* ---- the cost of computing a node again ---- */

/* cost: operations from values in memory; leaves: how many of those are as large as the node (more than 2:
 * many). */
static void estimate(fuser *u, int32_t i)
{
    const mb__gnode *n = &u->g->nodes[i];
    int64_t size = mb__gcount(n);
    u->cost[i] = 0;
    for (int k = 0; k < 3; k++)
        u->leaves[i][k] = -1;
    if (!is_elementwise(n->op))
        return;
    int cost = n->op < MB_OP_COUNT ? mb__ops[n->op].cost : 1;
    for (int j = 0; j < n->nin; j++) {
        int32_t b = u->g->nodes[n->in[j]].base;
        const mb__gnode *x = &u->g->nodes[b];
        cost += mb__has_flag(x->op, MB_FLAG_GENERATED) ? mb__ops[x->op].cost : u->cost[b];
        u->rowish[i] |= mb__is_reduce(x->op) || u->rowish[b];
        bool inlined = is_elementwise(x->op);
        for (int k = 0; k < (inlined ? 3 : 1); k++) {
            int32_t leaf = inlined ? u->leaves[b][k] : b;
            if (leaf < 0 || mb__has_flag(u->g->nodes[leaf].op, MB_FLAG_GENERATED) ||
                mb__gcount(&u->g->nodes[leaf]) * 2 < size)
                continue;
            int s = 0;
            while (s < 2 && u->leaves[i][s] >= 0 && u->leaves[i][s] != leaf)
                s++;
            u->leaves[i][s] = leaf;
        }
    }
    u->cost[i] = cost > 10000 ? 10000 : cost;
}

static bool is_cheap(const fuser *u, int32_t n)
{
    if (!(u->passes & MB_PASS_SINK) || !is_elementwise(u->g->nodes[n].op))
        return false;
    int loads = (u->leaves[n][0] >= 0) + (u->leaves[n][1] >= 0) + (u->leaves[n][2] >= 0);
    return loads <= 1 ? u->cost[n] <= 60 : loads == 2 && u->cost[n] <= 120;
}

/* ---- placing one node ---- */

typedef struct candidate {
    int32_t group;
    enum kind kind;
    uint32_t rows;
} candidate;

/* The groups that read n, and whether it could be computed in them; *memory is set when someone needs it
 * stored, *first is the largest order among all that read it. */
static int candidates(fuser *u, int32_t n, candidate *out, bool *memory, int *first)
{
    int count = 0;
    *first = -1;
    for (int32_t k = u->uses[n]; k >= 0; k = u->use_pool[k].next) {
        int32_t c = u->use_pool[k].consumer;
        int j = u->use_pool[k].operand;
        if (!is_fusable(u->g->nodes[c].op)) {
            *memory = true;
            *first = u->order[c] > *first ? u->order[c] : *first;
            continue;
        }
        for (int32_t m = u->memberships[c]; m >= 0; m = u->member_pool[m].next) {
            int32_t group = u->member_pool[m].group;
            if (group < 0)
                continue;
            const mb__group *gr = &u->f->groups[group];
            *first = gr->order > *first ? gr->order : *first;
            uint32_t rows = 0;
            enum kind kind = gr->member_count < MEMBERS_MAX && u->passes & MB_PASS_FUSE
                                 ? fits(u, n, c, j, group, &rows)
                                 : NONE;
            int s = 0;
            while (s < count && out[s].group != group)
                s++;
            if (s == GROUPS_MAX) {
                *memory = true;
                continue;
            }
            if (s == count)
                out[count++] = (candidate){group, kind, rows};
            else if (out[s].kind != kind || out[s].rows != rows)
                out[s].kind = NONE;
        }
    }
    int kept = 0;
    for (int s = 0; s < count; s++) {
        if (out[s].kind == NONE)
            *memory = true;
        else
            out[kept++] = out[s];
    }
    return kept;
}

static void place_fusable(fuser *u, int32_t n)
{
    mb__fusion *f = u->f;
    candidate c[GROUPS_MAX];
    bool memory = u->g->nodes[n].output >= 0;
    int first, count = candidates(u, n, c, &memory, &first);
    /* Readers of one value over one space are better one kernel; one that each row has once, of the same
     * rows. */
    for (int i = 0; i < count; i++)
        for (int k = count; k-- > i + 1;) {
            if (c[i].kind != c[k].kind || (c[i].kind == ROW && c[i].rows != c[k].rows))
                continue;
            bool i_late = f->groups[c[i].group].order < f->groups[c[k].group].order;
            int32_t late = i_late ? c[i].group : c[k].group, early = i_late ? c[k].group : c[i].group;
            if (late != early && merge_groups(u, late, early)) {
                c[i].group = early;
                c[i].rows |= c[k].rows;
                c[k] = c[--count];
            }
        }
    if (u->failed)
        return;
    int owner = -1;
    if (!memory && (count == 1 || (count > 1 && is_cheap(u, n)))) {
        for (int i = 0; i < count; i++) {
            join(u, n, c[i].group, c[i].kind);
            f->groups[c[i].group].row_mask |= c[i].rows;
            int o = f->groups[c[i].group].order;
            u->order[n] = o > u->order[n] ? o : u->order[n];
        }
        return;
    }
    for (int i = 0; i < count; i++)
        if (f->groups[c[i].group].order == first)
            owner = i;
    f->stored[n] = true;
    if (owner >= 0) {
        f->owner[n] = c[owner].group;
        join(u, n, c[owner].group, c[owner].kind);
        f->groups[c[owner].group].row_mask |= c[owner].rows;
    } else {
        f->owner[n] = new_group(u, n);
    }
    if (!u->failed) /* else there may be no group at all */
        u->order[n] = f->groups[f->owner[n]].order;
}

static int by_id(const int32_t *a, int n)
{
    for (int i = 1; i < n; i++)
        if (a[i - 1] > a[i])
            return 0;
    return 1;
}

static void sort_ids(int32_t *a, int n)
{
    /* Members were added from the last to the first, with merges in between: nearly reversed. */
    for (int i = 0; i < n / 2; i++) {
        int32_t t = a[i];
        a[i] = a[n - 1 - i];
        a[n - 1 - i] = t;
    }
    if (by_id(a, n))
        return;
    for (int i = 1; i < n; i++) {
        int32_t v = a[i];
        int k = i;
        for (; k > 0 && a[k - 1] > v; k--)
            a[k] = a[k - 1];
        a[k] = v;
    }
}

mb_status mb__fuse(mb__graph *g, unsigned passes, mb__fusion *f)
{
    fuser u = {.g = g, .f = f, .bump = g->bump, .passes = passes};
    size_t n = (size_t)g->count + 1;
    memset(f, 0, sizeof *f);
    f->owner = mb__bump_get(g->bump, n * sizeof *f->owner);
    f->stored = mb__bump_get(g->bump, n * sizeof *f->stored);
    u.uses = mb__bump_get(g->bump, n * sizeof *u.uses);
    u.memberships = mb__bump_get(g->bump, n * sizeof *u.memberships);
    u.order = mb__bump_get(g->bump, n * sizeof *u.order);
    u.cost = mb__bump_get(g->bump, n * sizeof *u.cost);
    u.leaves = mb__bump_get(g->bump, n * sizeof *u.leaves);
    u.rowish = mb__bump_get(g->bump, n * sizeof *u.rowish);
    if (!f->owner || !f->stored || !u.uses || !u.memberships || !u.order || !u.cost || !u.leaves || !u.rowish)
        return MB_NO_MEMORY;
    for (int i = 0; i < g->count; i++) {
        f->owner[i] = u.uses[i] = u.memberships[i] = -1;
        u.order[i] = -1;
    }
    for (int i = 0; i < g->count; i++) {
        const mb__gnode *x = &g->nodes[i];
        estimate(&u, i);
        for (int j = 0; j < x->nin && !mb__is_view(x->op); j++) {
            int32_t b = g->nodes[x->in[j]].base;
            use *pool = mb__bump_grow(g->bump, u.use_pool, u.use_count, &u.use_capacity, sizeof *pool);
            if (!pool)
                return MB_NO_MEMORY;
            u.use_pool = pool;
            pool[u.use_count] = (use){i, j, u.uses[b]};
            u.uses[b] = u.use_count++;
        }
    }
    for (int i = g->count; i-- > 0 && !u.failed;) {
        int op = g->nodes[i].op;
        if (mb__is_view(op) || op == MB_OP_BUFFER || mb__has_flag(op, MB_FLAG_GENERATED))
            continue;
        if (is_fusable(op)) {
            place_fusable(&u, i);
        } else {
            u.order[i] = u.next_order++;
            f->stored[i] = true;
        }
    }
    if (u.failed)
        return MB_NO_MEMORY;
    /* Orders are unique: a counting sort gives the schedule. */
    f->schedule = mb__bump_get(g->bump, (size_t)(u.next_order + 1) * sizeof *f->schedule);
    int32_t *slot = mb__bump_get(g->bump, (size_t)(u.next_order + 1) * sizeof *slot);
    if (!f->schedule || !slot)
        return MB_NO_MEMORY;
    for (int i = 0; i < u.next_order; i++)
        slot[i] = INT32_MIN;
    for (int i = 0; i < f->group_count; i++)
        if (f->groups[i].moved < 0) {
            slot[f->groups[i].order] = i;
            sort_ids(f->groups[i].members, f->groups[i].member_count);
        }
    for (int i = 0; i < g->count; i++)
        if (f->stored[i] && f->owner[i] < 0)
            slot[u.order[i]] = -1 - i;
    for (int i = u.next_order; i-- > 0;)
        if (slot[i] != INT32_MIN)
            f->schedule[f->schedule_count++] = slot[i];
    return MB_OK;
}
