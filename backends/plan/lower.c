/* SPDX-License-Identifier: MIT
 * lower.c - groups become kernels, contractions become products, other ops become steps of their own. */
#include "backends/plan/backend.h"
#include "backends/plan/graph.h"

typedef struct lower {
    mb__graph *g;
    mb__fusion *f;
    const mb__backend *backend;
    unsigned passes;
    mb__bump *pool; /* of what the plan holds, exact in size; what grows lies in g->bump and is copied */
    mb__plan *plan;
    int step_room, value_room;
    int32_t *value;    /* of each node with storage; -1 */
    int32_t *instr_of; /* of nodes in the kernel being made; -1 */
    mb__instr *instrs; /* of the kernel being made */
    mb__store *stores;
    int instr_room, store_room;
    bool failed;
} lower;

static int32_t new_value(lower *l, mb_dtype dtype, int64_t count, int storage, int32_t index)
{
    mb__value *grown =
        mb__bump_grow(l->g->bump, l->plan->values, l->plan->value_count, &l->value_room, sizeof *grown);
    if (!grown) {
        l->failed = true;
        return 0;
    }
    l->plan->values = grown;
    grown[l->plan->value_count] = (mb__value){.dtype = (uint8_t)dtype,
                                              .storage = (uint8_t)storage,
                                              .index = index,
                                              .count = count,
                                              .first = -1,
                                              .last = -1,
                                              .onto = -1};
    return l->plan->value_count++;
}

static mb__step *new_step(lower *l, int kind, const char *site)
{
    mb__step *grown =
        mb__bump_grow(l->g->bump, l->plan->steps, l->plan->step_count, &l->step_room, sizeof *grown);
    if (!grown) {
        l->failed = true;
        return NULL;
    }
    l->plan->steps = grown;
    mb__step *s = &grown[l->plan->step_count++];
    memset(s, 0, sizeof *s);
    s->kind = kind;
    s->site = site;
    return s;
}

/* A copy of its own in the plan's memory. */
static void *keep(lower *l, const void *p, size_t bytes)
{
    void *copy = mb__bump_get(l->pool, bytes);
    if (!copy)
        l->failed = true;
    return copy && bytes ? memcpy(copy, p, bytes) : copy;
}

static void kernel_step(lower *l, const char *site, mb__kernel *k)
{
    k->instrs = keep(l, k->instrs, (size_t)k->instr_count * sizeof *k->instrs);
    k->stores = keep(l, k->stores, (size_t)k->store_count * sizeof *k->stores);
    mb__step *s = l->failed ? NULL : new_step(l, MB_STEP_KERNEL, site);
    if (s)
        s->u.kernel = *k;
}

/* The value that holds a node's storage. */
static int32_t value_of(lower *l, int32_t node)
{
    const mb__gnode *n = &l->g->nodes[node];
    if (l->value[node] < 0)
        l->value[node] =
            n->op == MB_OP_BUFFER ? new_value(l, (mb_dtype)n->dtype, mb__gcount(n), MB_IN_INPUT, n->bind)
            : n->output >= 0      ? new_value(l, (mb_dtype)n->dtype, mb__gcount(n), MB_IN_OUTPUT, n->output)
                                  : new_value(l, (mb_dtype)n->dtype, mb__gcount(n), MB_IN_ARENA, -1);
    return l->value[node];
}

/* ------------------------------------------------------------------------------------------------ kernels --
 */

static int32_t new_instr(lower *l, mb__kernel *k, const mb__instr *i)
{
    mb__instr *grown = mb__bump_grow(l->g->bump, l->instrs, k->instr_count, &l->instr_room, sizeof *grown);
    if (!grown) {
        l->failed = true;
        return 0;
    }
    k->instrs = l->instrs = grown;
    grown[k->instr_count] = *i;
    return k->instr_count++;
}

static void new_store(lower *l, mb__kernel *k, const mb__store *s)
{
    mb__store *grown = mb__bump_grow(l->g->bump, l->stores, k->store_count, &l->store_room, sizeof *grown);
    if (!grown) {
        l->failed = true;
        return;
    }
    k->stores = l->stores = grown;
    grown[k->store_count++] = *s;
}

/* Row axes of a member that changes once a row are skipped when its axes are matched with the kernel's. */
static void spread(const mb__gnode *space, const int64_t *stride, int lead, const mb__group *gr, bool per_row,
                   int64_t *out)
{
    int axis = 0;
    memset(out, 0, sizeof(int64_t) * MB_MAX_RANK);
    for (int i = 0; i < space->rank; i++) {
        if (space->dim[i] == 1)
            continue;
        while (per_row && axis < gr->rank && gr->row_mask >> axis & 1)
            axis++;
        out[axis++] = i < lead ? 0 : stride[i - lead];
    }
}

static uint8_t level_of(const mb__kernel *k, const mb__instr *i)
{
    uint8_t level = MB_LEVEL_ONCE;
    if (i->op == MB_K_SUM || i->op == MB_K_MAX)
        return MB_LEVEL_ROW;
    for (int j = 0; j < 3; j++)
        if (i->in[j] >= 0 && k->instrs[i->in[j]].level > level)
            level = k->instrs[i->in[j]].level;
    return level;
}

/* The instruction that yields operand j of member c. */
static int32_t operand(lower *l, mb__kernel *k, const mb__group *gr, int32_t c, int j, bool per_row)
{
    const mb__gnode *n = &l->g->nodes[c], *o = &l->g->nodes[n->in[j]], *b = &l->g->nodes[o->base];
    if (l->instr_of[o->base] >= 0 && b->op != MB_OP_BUFFER) {
        /* Computed in this kernel; read in another arrangement it comes from memory, if some kernel stored
         * it. */
        const mb__gnode *space = mb__is_reduce(n->op) ? o : n;
        int64_t access[MB_MAX_RANK], own[MB_MAX_RANK], stride[MB_MAX_RANK];
        for (int i = 0; i < o->rank; i++)
            stride[i] = o->dim[i] == 1 ? 0 : o->stride[i];
        spread(space, stride, space->rank - o->rank, gr, per_row && !mb__is_reduce(n->op), access);
        bool b_row = k->instrs[l->instr_of[o->base]].level <= MB_LEVEL_ROW &&
                     mb__gcount(b) != mb__numel(gr->dim, gr->rank);
        spread(b, b->stride, 0, gr, b_row, own);
        if (o->offset == 0 && !memcmp(access, own, sizeof own))
            return l->instr_of[o->base];
    }
    mb__instr in = {
        .dtype = b->dtype, .from = b->dtype, .in = {-1, -1, -1}, .bind = b->bind, .site = b->site};
    in.view.value = -1;
    if (b->op == MB_OP_CONST || b->op == MB_OP_SCALAR) {
        in.op = b->op == MB_OP_CONST ? MB_K_CONST : MB_K_SCALAR;
        if (b->op == MB_OP_CONST)
            memcpy(&in.number, b->attr, sizeof in.number);
    } else {
        in.op = b->op == MB_OP_IOTA ? MB_K_IOTA : b->op == MB_OP_RANDOM ? MB_K_RANDOM : MB_K_LOAD;
        if (in.op == MB_K_LOAD)
            in.view.value = value_of(l, o->base);
        in.view.offset = o->offset;
        const mb__gnode *space = mb__is_reduce(n->op) ? o : n;
        int64_t stride[MB_MAX_RANK];
        for (int i = 0; i < o->rank; i++)
            stride[i] = o->dim[i] == 1 ? 0 : o->stride[i];
        spread(space, stride, space->rank - o->rank, gr, per_row && !mb__is_reduce(n->op), in.view.stride);
        in.level = MB_LEVEL_EACH; /* settled once the axes are final */
    }
    for (int i = 0; i < k->instr_count; i++) {
        const mb__instr *x = &k->instrs[i];
        if (x->op == in.op && mb__is_source(x->op) && x->bind == in.bind && x->dtype == in.dtype &&
            !memcmp(&x->number, &in.number, sizeof in.number) && x->view.value == in.view.value &&
            x->view.offset == in.view.offset &&
            !memcmp(x->view.stride, in.view.stride, sizeof in.view.stride))
            return i;
    }
    return new_instr(l, k, &in);
}

/* Each view of the kernel: loads, positions, stores. */
static mb__view *view_at(mb__kernel *k, int i)
{
    if (i >= k->instr_count)
        return i - k->instr_count < k->store_count ? &k->stores[i - k->instr_count].view : NULL;
    return &k->instrs[i].view;
}

static bool mergeable(mb__kernel *k, int outer, int inner)
{
    mb__view *v;
    for (int i = 0; (v = view_at(k, i)); i++)
        if (v->stride[outer] != v->stride[inner] * k->dim[inner])
            return false;
    return true;
}

static void drop_axis(mb__kernel *k, int axis)
{
    mb__view *v;
    for (int i = 0; (v = view_at(k, i)); i++) {
        memmove(v->stride + axis, v->stride + axis + 1, (size_t)(MB_MAX_RANK - 1 - axis) * sizeof *v->stride);
        v->stride[MB_MAX_RANK - 1] = 0;
    }
    memmove(k->dim + axis, k->dim + axis + 1, (size_t)(k->rank - 1 - axis) * sizeof *k->dim);
    k->rank--;
}

/* Row axes last, others by falling stride of the first full view; neighbours that every view allows are
 * merged. */
static void settle_axes(mb__kernel *k, uint32_t row_mask)
{
    const mb__view *lead = NULL, *v;
    for (int a = k->rank; a-- > 0;) /* axes of size 1 carry nothing */
        if (k->dim[a] == 1) {
            drop_axis(k, a);
            row_mask = (row_mask & ((1u << a) - 1)) | (row_mask >> (a + 1) << a);
        }
    for (int i = k->store_count; i-- > 0;)
        if (k->stores[i].mode == MB_STORE && !k->stores[i].per_row)
            lead = &k->stores[i].view;
    for (int i = 0; !lead && i < k->instr_count; i++)
        if (k->instrs[i].op == MB_K_LOAD) {
            bool full = true;
            for (int a = 0; a < k->rank; a++)
                full &= k->instrs[i].view.stride[a] != 0;
            lead = full ? &k->instrs[i].view : NULL;
        }
    int order[MB_MAX_RANK];
    for (int a = 0; a < k->rank; a++) {
        int at = a;
        for (; at > 0; at--) {
            int p = order[at - 1];
            bool row_p = row_mask >> p & 1, row_a = row_mask >> a & 1;
            bool after = row_p != row_a ? row_p : lead && lead->stride[p] < lead->stride[a];
            if (!after)
                break;
            order[at] = p;
        }
        order[at] = a;
    }
    int64_t dim[MB_MAX_RANK];
    int rows = 0;
    for (int a = 0; a < k->rank; a++) {
        dim[a] = k->dim[order[a]];
        rows += !(row_mask >> order[a] & 1);
    }
    memcpy(k->dim, dim, sizeof dim);
    for (int i = 0; (v = view_at(k, i)); i++) {
        int64_t stride[MB_MAX_RANK] = {0};
        for (int a = 0; a < k->rank; a++)
            stride[a] = v->stride[order[a]];
        memcpy(view_at(k, i)->stride, stride, sizeof stride);
    }
    for (int a = k->rank - 1; a > 0; a--) {
        if ((row_mask && a == rows) || !mergeable(k, a - 1, a))
            continue;
        k->dim[a - 1] *= k->dim[a];
        mb__view *w;
        for (int i = 0; (w = view_at(k, i)); i++)
            w->stride[a - 1] = w->stride[a];
        drop_axis(k, a);
        if (a < rows)
            rows--;
    }
    if (k->rank == 0) {
        k->dim[0] = 1;
        k->rank = 1;
        rows = 0;
        row_mask = 0;
    }
    k->inner = row_mask ? k->rank - rows : 1;
}

static void settle_levels(mb__kernel *k)
{
    for (int i = 0; i < k->instr_count; i++) {
        mb__instr *n = &k->instrs[i];
        if (n->op == MB_K_CONST || n->op == MB_K_SCALAR) {
            n->level = MB_LEVEL_ONCE;
        } else if (n->op == MB_K_LOAD || n->op == MB_K_IOTA || n->op == MB_K_RANDOM) {
            n->level = MB_LEVEL_ROW;
            for (int a = k->rank - k->inner; a < k->rank; a++)
                if (n->view.stride[a] && k->dim[a] != 1)
                    n->level = MB_LEVEL_EACH;
        } else {
            n->level = level_of(k, n);
        }
    }
}

static void lower_group(lower *l, int32_t group)
{
    const mb__group *gr = &l->f->groups[group];
    mb__kernel k = {.rank = gr->rank};
    memcpy(k.dim, gr->dim, sizeof k.dim);
    for (int m = 0; m < gr->member_count && !l->failed; m++) {
        int32_t c = gr->members[m];
        const mb__gnode *n = &l->g->nodes[c];
        bool reduce = mb__is_reduce(n->op);
        /* A reduction whose result goes on being used here runs over exactly the row axes. */
        uint32_t reduced = 0;
        int axis = 0;
        if (reduce) {
            const mb__gnode *x = &l->g->nodes[n->in[0]];
            for (int i = 0; i < x->rank; i++)
                if (x->dim[i] != 1) {
                    if (n->dim[i] == 1)
                        reduced |= 1u << axis;
                    axis++;
                }
        }
        bool row_reduce = reduce && gr->row_mask && reduced == gr->row_mask;
        bool per_row = row_reduce || (!reduce && mb__gcount(n) != mb__numel(gr->dim, gr->rank));
        mb__instr in = {.op = n->op,
                        .dtype = n->dtype,
                        .from = n->dtype,
                        .in = {-1, -1, -1},
                        .bind = -1,
                        .site = n->site};
        in.view.value = -1;
        for (int j = 0; j < n->nin; j++)
            in.in[j] = operand(l, &k, gr, c, j, per_row && !reduce);
        if (l->failed)
            return;
        int32_t at = in.in[0];
        if (n->nin)
            in.from = k.instrs[in.in[n->op == MB_OP_WHERE ? 1 : 0]].dtype;
        if (row_reduce)
            in.op = n->op == MB_OP_SUM ? MB_K_SUM : MB_K_MAX;
        if (!reduce || row_reduce) {
            in.level = per_row ? MB_LEVEL_ROW : level_of(&k, &in);
            at = new_instr(l, &k, &in);
            l->instr_of[c] = at;
        }
        if (!l->f->stored[c] || l->f->owner[c] != group)
            continue;
        mb__store s = {.instr = at, .mode = MB_STORE, .per_row = per_row};
        s.view.value = value_of(l, c);
        if (reduce && !row_reduce) {
            s.mode = n->op == MB_OP_SUM ? MB_STORE_SUM : MB_STORE_MAX;
            const mb__gnode *x = &l->g->nodes[n->in[0]];
            axis = 0;
            for (int i = 0; i < x->rank; i++)
                if (x->dim[i] != 1)
                    s.view.stride[axis++] = n->dim[i] == 1 ? 0 : n->stride[i];
        } else {
            spread(n, n->stride, 0, gr, per_row, s.view.stride);
        }
        new_store(l, &k, &s);
    }
    for (int m = 0; m < gr->member_count; m++)
        l->instr_of[gr->members[m]] = -1;
    if (l->failed || !k.store_count)
        return;
    settle_axes(&k, gr->row_mask);
    settle_levels(&k);
    kernel_step(l, l->g->nodes[gr->members[gr->member_count - 1]].site, &k);
}

/* A kernel of one instruction, whose value is stored over the view. */
static void store_step(lower *l, const char *site, int rank, const int64_t *dim, const mb__instr *in,
                       const mb__view *to)
{
    mb__kernel k = {.rank = rank};
    memcpy(k.dim, dim, (size_t)rank * sizeof *dim);
    mb__store st = {.mode = MB_STORE, .view = *to};
    st.instr = new_instr(l, &k, in);
    new_store(l, &k, &st);
    if (l->failed)
        return;
    settle_axes(&k, 0);
    settle_levels(&k);
    kernel_step(l, site, &k);
}

/* A kernel that copies between two views. */
static void copy_step(lower *l, const char *site, mb_dtype dtype, int rank, const int64_t *dim,
                      const mb__view *from, const mb__view *to)
{
    mb__instr in = {.op = MB_K_LOAD,
                    .dtype = (uint8_t)dtype,
                    .from = (uint8_t)dtype,
                    .in = {-1, -1, -1},
                    .bind = -1,
                    .view = *from,
                    .site = site};
    store_step(l, site, rank, dim, &in, to);
}

/* --------------------------------------------------------------------------------------------- contractions
 * -- */

/* Sets the strides of one operand (side: AXIS_IN_A or AXIS_IN_B) as if packed densely, the axes of kind
 * `last` innermost, batch axes and those of this operand alone outermost; returns its number of elements. */
static int64_t packed_strides(mb__axis_info *axes, int count, unsigned side, unsigned last)
{
    int64_t stride = 1;
    unsigned kind_order[3] = {
        last, (side == AXIS_IN_A ? AXIS_M : AXIS_N) == last ? AXIS_K : (side == AXIS_IN_A ? AXIS_M : AXIS_N),
        AXIS_BATCH};
    for (int o = 0; o < 3; o++)
        for (int i = count; i-- > 0;)
            if (axes[i].present == kind_order[o] ||
                (o == 2 && axes[i].present & side && axes[i].present != AXIS_K && axes[i].present != AXIS_M &&
                 axes[i].present != AXIS_N)) {
                *(side == AXIS_IN_A ? &axes[i].a : &axes[i].b) = stride;
                stride *= axes[i].size;
            }
    return stride;
}

static void lower_contract(lower *l, int32_t id)
{
    const mb__gnode *n = &l->g->nodes[id];
    const mb__gnode *a = &l->g->nodes[n->in[0]], *b = &l->g->nodes[n->in[1]];
    int labels = (int)n->attr[0];
    mb__axis_info axes[24], best_axes[24];
    double work = 1;
    for (int i = 0; i < labels; i++) {
        const int64_t *x = n->attr + 1 + 3 * i;
        mb__axis_info *o = &axes[i];
        memset(o, 0, sizeof *o);
        o->size = x[0] >= 0 ? a->dim[x[0]] : x[1] >= 0 ? b->dim[x[1]] : 1;
        if (x[0] >= 0)
            o->a = a->stride[x[0]], o->present |= AXIS_IN_A;
        if (x[1] >= 0)
            o->b = b->stride[x[1]], o->present |= AXIS_IN_B;
        if (x[2] >= 0)
            o->c = n->stride[x[2]], o->present |= AXIS_IN_C;
        if (o->size == 1)
            o->present = AXIS_BATCH;
        work *= (double)o->size;
    }
    l->plan->flops += (uint64_t)(2 * work);
    mb__view va = {value_of(l, a->base), a->offset, {0}}, vb = {value_of(l, b->base), b->offset, {0}};
    mb__view vc = {value_of(l, id), 0, {0}};
    if (l->failed)
        return;
    if (work == 0) {
        mb__step *s = new_step(l, MB_STEP_ZERO, n->site);
        if (s)
            s->u.zero = vc.value;
        return;
    }
    mb__product best = {.m = 0};
    double lowest = mb__product_axes(axes, labels, &best);
    memcpy(best_axes, axes, sizeof axes);
    int pack_a = 0, pack_b = 0;
    if (!l->backend->strided)
        for (int pa = 0; pa < 3; pa++)
            for (int pb = 0; pb < 3; pb++) {
                if (!pa && !pb)
                    continue;
                mb__axis_info t[24];
                memcpy(t, axes, sizeof t);
                double cost = 0;
                if (pa)
                    cost +=
                        1.5 * (double)packed_strides(t, labels, AXIS_IN_A, pa == 1 ? AXIS_K : AXIS_M) + 1000;
                if (pb)
                    cost +=
                        1.5 * (double)packed_strides(t, labels, AXIS_IN_B, pb == 1 ? AXIS_N : AXIS_K) + 1000;
                mb__product p = {.m = 0};
                cost += mb__product_axes(t, labels, &p);
                if (cost < lowest) {
                    lowest = cost;
                    best = p;
                    pack_a = pa;
                    pack_b = pb;
                    memcpy(best_axes, t, sizeof t);
                }
            }
    for (int side = 1; side <= 2; side++) {
        if (!(side == 1 ? pack_a : pack_b))
            continue;
        mb__view from = side == 1 ? va : vb, to = {0};
        int64_t dim[24], from_stride[24], to_stride[24], count = 1;
        int rank = 0;
        for (int i = 0; i < labels; i++)
            if (axes[i].present & (unsigned)side && axes[i].size != 1) {
                dim[rank] = axes[i].size;
                from_stride[rank] = side == 1 ? axes[i].a : axes[i].b;
                to_stride[rank++] = side == 1 ? best_axes[i].a : best_axes[i].b;
                count *= axes[i].size;
            }
        memcpy(from.stride, from_stride, (size_t)rank * sizeof *dim);
        memcpy(to.stride, to_stride, (size_t)rank * sizeof *dim);
        to.value = new_value(l, (mb_dtype)n->dtype, count, MB_IN_ARENA, -1);
        if (l->failed)
            return;
        copy_step(l, n->site, (mb_dtype)n->dtype, rank, dim, &from, &to);
        if (side == 1)
            va = (mb__view){to.value, 0, {0}};
        else
            vb = (mb__view){to.value, 0, {0}};
    }
    mb__step *s = l->failed ? NULL : new_step(l, MB_STEP_PRODUCT, n->site);
    if (!s)
        return;
    best.a = va;
    best.b = vb;
    best.c = vc;
    s->u.product = keep(l, &best, sizeof best);
}

/* ------------------------------------------------------------------------------------------------- others --
 */

static mb__view node_view(lower *l, int32_t id)
{
    const mb__gnode *n = &l->g->nodes[id];
    mb__view v = {value_of(l, n->base), n->offset, {0}};
    memcpy(v.stride, n->stride, sizeof v.stride);
    return v;
}

/* A kernel that copies node `from` (any base, generated ones too) into a view. */
static void copy_node(lower *l, const char *site, int32_t from, const mb__view *to)
{
    const mb__gnode *n = &l->g->nodes[from], *b = &l->g->nodes[n->base];
    mb__instr in = {.op = MB_K_LOAD,
                    .dtype = n->dtype,
                    .from = n->dtype,
                    .in = {-1, -1, -1},
                    .bind = b->bind,
                    .site = site};
    in.view.value = -1;
    switch (b->op) {
    case MB_OP_CONST:
        in.op = MB_K_CONST;
        memcpy(&in.number, b->attr, sizeof in.number);
        break;
    case MB_OP_SCALAR:
        in.op = MB_K_SCALAR;
        break;
    case MB_OP_IOTA:
        in.op = MB_K_IOTA;
        break;
    case MB_OP_RANDOM:
        in.op = MB_K_RANDOM;
        break;
    default:
        in.view.value = value_of(l, n->base);
    }
    if (in.op == MB_K_LOAD || in.op == MB_K_IOTA || in.op == MB_K_RANDOM) {
        in.view.offset = n->offset;
        memcpy(in.view.stride, n->stride, sizeof in.view.stride);
    }
    store_step(l, site, n->rank, n->dim, &in, to);
}

static void lower_scan(lower *l, int32_t id);

static void matrix_op(lower *l, const mb__gnode *n, mb__other *o)
{
    double size = (double)n->dim[n->rank - 2], all = size * (double)mb__gcount(n);
    o->axis = n->rank - 2;
    o->flag = n->nattr && n->attr[0];
    o->unit = n->nattr && n->attr[1];
    l->plan->flops += (uint64_t)(n->op == MB_OP_CHOLESKY ? all / 3 : all);
}

static void lower_single(lower *l, int32_t id)
{
    const mb__gnode *n = &l->g->nodes[id];
    if (n->op == MB_OP_CONTRACT) {
        lower_contract(l, id);
        return;
    }
    if (n->op == MB_OP_RESULT)
        return; /* its scan writes it */
    if (n->op == MB_OP_SCAN) {
        lower_scan(l, id);
        return;
    }
    mb__view out = node_view(l, id);
    if (l->failed)
        return;
    if (n->op == MB_OP_PAD || n->op == MB_OP_CONCAT) {
        int64_t covered = 0; /* the parts of a pad do not meet */
        for (int j = 0; j < n->nin; j++)
            covered += mb__gcount(&l->g->nodes[n->in[j]]);
        if (n->op == MB_OP_PAD && covered < mb__gcount(n)) {
            mb__step *s = new_step(l, MB_STEP_ZERO, n->site);
            if (!s)
                return;
            s->u.zero = out.value;
        }
        for (int j = 0; j < n->nin && !l->failed; j++) {
            const mb__gnode *x = &l->g->nodes[n->in[j]];
            mb__view to = out;
            const int64_t *at = n->op == MB_OP_PAD ? n->attr + 2 * n->rank * j : NULL;
            for (int i = 0; at && i < n->rank; i++) {
                to.offset += at[i] * out.stride[i];
                to.stride[i] = at[n->rank + i] * out.stride[i];
            }
            if (mb__gcount(x))
                copy_node(l, n->site, n->in[j], &to);
            if (n->op == MB_OP_CONCAT)
                out.offset += x->dim[n->attr[0]] * out.stride[n->attr[0]];
        }
        return;
    }
    mb__other o = {
        .op = n->op, .dtype = n->dtype, .axis = n->nattr ? (int)n->attr[0] : n->rank - 1, .out = out};
    const mb__gnode *x = &l->g->nodes[n->in[0]];
    o.dtype = x->dtype;
    o.flag = n->op == MB_OP_CUMSUM && n->attr[1];
    if (mb__is_kind(n->op, MB_KIND_MATRIX))
        matrix_op(l, n, &o);
    o.out_rank = n->rank;
    memcpy(o.out_dim, n->dim, sizeof o.out_dim);
    o.in = node_view(l, n->in[0]);
    o.in_rank = x->rank;
    memcpy(o.in_dim, x->dim, sizeof o.in_dim);
    o.index.value = -1;
    if (n->nin > 1) {
        const mb__gnode *i = &l->g->nodes[n->in[1]];
        o.index = node_view(l, n->in[1]);
        o.index_rank = i->rank;
        memcpy(o.index_dim, i->dim, sizeof o.index_dim);
    }
    mb__step *s = l->failed ? NULL : new_step(l, MB_STEP_OTHER, n->site);
    if (s)
        s->u.other = keep(l, &o, sizeof o);
}

/* ------------------------------------------------------------------------------------------------- loops --
 */

/* Bytes of the plan's element sizes, as elements of a value. */
static int64_t as_elements(const lower *l, int64_t bytes)
{
    int64_t size = (int64_t)l->backend->element_size(MB_FLOAT32);
    return (bytes + size - 1) / size;
}

/* Where input i lies, the scan's operand of that number. */
static mb__port input_port(lower *l, const mb__gnode *scan, const mb__gloop *g, int i)
{
    const mb__gnode *x = &l->g->nodes[scan->in[i]];
    mb__port p = {value_of(l, x->base), x->offset, 0};
    if (i >= g->carries && i < g->carries + g->slices)
        p.step = x->dim[0] ? mb__gcount(x) / x->dim[0] : 0;
    return p;
}

/* The same of output i, whose RESULT may be gone, if nothing read it; every entry then lies at one place. */
static mb__port output_port(lower *l, const mb__gloop *g, int32_t result, int i)
{
    const mb__gnode *out = &g->body.nodes[g->body.outputs[i]];
    if (result < 0)
        return (mb__port){new_value(l, (mb_dtype)out->dtype, mb__gcount(out), MB_IN_ARENA, -1), 0, 0};
    return (mb__port){value_of(l, result), 0, i < g->carries ? 0 : mb__gcount(out)};
}

static void lower_scan(lower *l, int32_t id)
{
    const mb__gnode *scan = &l->g->nodes[id];
    const mb__gloop *g = &l->g->loops[scan->attr[0]];
    int inputs = scan->nin, outputs = g->carries + g->stacks;
    mb__loop *loop = mb__bump_get(l->pool, sizeof *loop);
    mb__port *in = mb__bump_get(l->pool, (size_t)(inputs + outputs + 1) * sizeof *in);
    int32_t(*swap)[2] = mb__bump_get(l->pool, (size_t)(g->carries + 1) * sizeof *swap);
    int32_t *results = mb__bump_get(l->g->bump, (size_t)(outputs + 1) * sizeof *results);
    if (!loop || !in || !swap || !results) {
        l->failed = true;
        return;
    }
    for (int i = 0; i < outputs; i++)
        results[i] = -1;
    for (int i = id + 1; i < l->g->count; i++)
        if (l->g->nodes[i].op == MB_OP_RESULT && l->g->nodes[i].in[0] == id)
            results[l->g->nodes[i].attr[0]] = i;
    *loop = (mb__loop){.body = g->plan,
                       .steps = g->steps,
                       .backwards = g->backwards,
                       .until = g->until,
                       .carries = g->carries,
                       .inputs = inputs,
                       .outputs = outputs,
                       .in = in,
                       .out = in + inputs,
                       .swap = swap};
    for (int i = 0; i < inputs; i++)
        loop->in[i] = input_port(l, scan, g, i);
    for (int i = 0; i < outputs; i++)
        loop->out[i] = output_port(l, g, results[i], i);
    for (int i = 0; i < g->carries; i++)
        for (int k = 0; k < 2; k++) {
            const mb__gnode *out = &g->body.nodes[g->body.outputs[i]];
            swap[i][k] =
                g->steps > 1 + k ? new_value(l, (mb_dtype)out->dtype, mb__gcount(out), MB_IN_ARENA, -1) : -1;
        }
    loop->arena = new_value(l, MB_FLOAT32, as_elements(l, g->plan->arena_bytes + 64), MB_IN_ARENA, -1);
    l->plan->flops += (uint64_t)g->steps * g->plan->flops;
    mb__step *s = l->failed ? NULL : new_step(l, MB_STEP_LOOP, scan->site);
    if (s)
        s->u.loop = loop;
}

mb_status mb__lower(mb__graph *g, mb__fusion *f, const mb__backend *backend, unsigned passes, mb__bump *pool,
                    mb__plan *plan)
{
    lower l = {.g = g, .f = f, .backend = backend, .passes = passes, .pool = pool, .plan = plan};
    l.value = mb__bump_get(g->bump, (size_t)(g->count + 1) * sizeof *l.value);
    l.instr_of = mb__bump_get(g->bump, (size_t)(g->count + 1) * sizeof *l.instr_of);
    if (!l.value || !l.instr_of)
        return MB_NO_MEMORY;
    for (int i = 0; i < g->count; i++)
        l.value[i] = l.instr_of[i] = -1;
    for (int i = 0; i < f->schedule_count && !l.failed; i++) {
        if (f->schedule[i] >= 0)
            lower_group(&l, f->schedule[i]);
        else
            lower_single(&l, -1 - f->schedule[i]);
    }
    plan->values = keep(&l, plan->values, (size_t)plan->value_count * sizeof *plan->values);
    plan->steps = keep(&l, plan->steps, (size_t)plan->step_count * sizeof *plan->steps);
    plan->input_count = g->input_count;
    plan->output_count = g->output_count;
    plan->scalar_count = g->scalar_count;
    return l.failed ? MB_NO_MEMORY : MB_OK;
}
