/* SPDX-License-Identifier: MIT
 *
 * schedule.c - ops of the user's that are early (tensor/custom_op.h) move up, to right after what makes their
 * operands; so does what only copies operands together for them. All others stay in their order, and serial
 * ops among themselves: none moves past another.
 */
#include "backends/plan/graph.h"

typedef struct mover {
    const mb__graph *g;
    const mb__fusion *f;
    int32_t *entry; /* of each node with storage: where the schedule stores it; -1: it is there before */
    bool *early;    /* for each entry */
    int32_t *after; /* for each early entry: the last of the others that it needs; -1: none */
    int32_t *users, *early_users;
} mover;

static bool asks(const mb__gnode *n)
{
    return n->op == MB_OP_CALL && mb__custom_of(n->attr)->spec.early;
}

static bool any_asks(const mb__graph *g)
{
    for (int i = 0; i < g->count; i++)
        if (asks(&g->nodes[i]))
            return true;
    return false;
}

/* The nodes of an entry: its group's members, or the node that is a step of its own. */
static int nodes_of(const mover *m, int e, int32_t *single, const int32_t **nodes)
{
    int32_t s = m->f->schedule[e];
    *single = -1 - s;
    *nodes = s >= 0 ? m->f->groups[s].members : single;
    return s >= 0 ? m->f->groups[s].member_count : 1;
}

static bool only_copies(int op)
{
    return op == MB_OP_CONCAT || op == MB_OP_PAD || op == MB_K_COPY;
}

static void find_entries(mover *m, int32_t *of_group)
{
    for (int i = 0; i < m->f->group_count; i++)
        of_group[i] = -1;
    for (int e = 0; e < m->f->schedule_count; e++)
        if (m->f->schedule[e] >= 0)
            of_group[m->f->schedule[e]] = e;
    for (int i = 0; i < m->g->count; i++)
        m->entry[i] = m->f->owner[i] >= 0 ? of_group[m->f->owner[i]] : -1;
    for (int e = 0; e < m->f->schedule_count; e++)
        if (m->f->schedule[e] < 0)
            m->entry[-1 - m->f->schedule[e]] = e;
}

/* From the last entry to the first: whether all that use it are early is known then. */
static void find_early(mover *m)
{
    for (int e = m->f->schedule_count; e-- > 0;) {
        const int32_t *nodes;
        int32_t single;
        int n = nodes_of(m, e, &single, &nodes);
        bool asked = false, copies = true;
        for (int i = 0; i < n; i++) {
            asked |= asks(&m->g->nodes[nodes[i]]);
            copies &= only_copies(m->g->nodes[nodes[i]].op);
        }
        m->early[e] = asked || (copies && m->users[e] && m->users[e] == m->early_users[e]);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < m->g->nodes[nodes[i]].nin; j++) {
                int32_t from = m->entry[m->g->nodes[m->g->nodes[nodes[i]].in[j]].base];
                if (from < 0 || from == e)
                    continue;
                m->users[from]++;
                m->early_users[from] += m->early[e];
            }
    }
}

static bool is_serial(const mover *m, int e)
{
    return m->f->schedule[e] < 0 && mb__is_serial(&m->g->nodes[-1 - m->f->schedule[e]]);
}

static int32_t needs(const mover *m, int e)
{
    const int32_t *nodes;
    int32_t single, last = -1;
    int n = nodes_of(m, e, &single, &nodes);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m->g->nodes[nodes[i]].nin; j++) {
            int32_t from = m->entry[m->g->nodes[m->g->nodes[nodes[i]].in[j]].base];
            if (from < 0 || from == e)
                continue;
            from = m->early[from] ? m->after[from] : from;
            last = from > last ? from : last;
        }
    return last;
}

/* Early entries after the one that they need, among themselves in the order in which they were. first and
 * next: lists of them, by what they need. */
static void reorder(mover *m, int32_t *first, int32_t *next, int32_t *order)
{
    int count = m->f->schedule_count, made = 0;
    for (int e = 0; e <= count; e++)
        first[e] = -1;
    int32_t serial = -1; /* where the serial op before is now */
    for (int e = 0; e < count; e++) {
        int32_t at = m->early[e] ? needs(m, e) : e;
        at = m->early[e] && is_serial(m, e) && serial > at ? serial : at;
        m->after[e] = m->early[e] ? at : -1;
        serial = is_serial(m, e) ? at : serial;
    }
    for (int e = count; e-- > 0;)
        if (m->early[e]) {
            next[e] = first[m->after[e] + 1];
            first[m->after[e] + 1] = e;
        }
    for (int e = -1; e < count; e++) {
        if (e >= 0 && m->early[e])
            continue;
        if (e >= 0)
            order[made++] = m->f->schedule[e];
        for (int32_t k = first[e + 1]; k >= 0; k = next[k])
            order[made++] = m->f->schedule[k];
    }
}

mb_status mb__reschedule(mb__graph *g, mb__fusion *f)
{
    if (!any_asks(g))
        return MB_OK;
    size_t n = (size_t)f->schedule_count + 1;
    mover m = {.g = g, .f = f};
    m.entry = mb__bump_get(g->bump, ((size_t)g->count + 1) * sizeof *m.entry);
    m.early = mb__bump_get(g->bump, n * sizeof *m.early);
    m.after = mb__bump_get(g->bump, n * sizeof *m.after);
    m.users = mb__bump_get(g->bump, n * sizeof *m.users);
    m.early_users = mb__bump_get(g->bump, n * sizeof *m.early_users);
    int32_t *first = mb__bump_get(g->bump, n * sizeof *first);
    int32_t *next = mb__bump_get(g->bump, n * sizeof *next);
    int32_t *order = mb__bump_get(g->bump, n * sizeof *order);
    int32_t *entry_of_group = mb__bump_get(g->bump, ((size_t)f->group_count + 1) * sizeof *entry_of_group);
    if (!m.entry || !m.early || !m.after || !m.users || !m.early_users || !first || !next || !order ||
        !entry_of_group)
        return MB_NO_MEMORY;
    memset(m.users, 0, n * sizeof *m.users);
    memset(m.early_users, 0, n * sizeof *m.early_users);
    find_entries(&m, entry_of_group);
    find_early(&m);
    reorder(&m, first, next, order);
    memcpy(f->schedule, order, (n - 1) * sizeof *order);
    return MB_OK;
}
