/* SPDX-License-Identifier: MIT
 * lower_kernel.c - a group of fused nodes becomes a kernel: its instructions, stores and axes. */
#include "backends/plan/lower.h"

static int32_t new_instr(mb__lowering *l, mb__kernel *k, const mb__instr *i)
{
    mb__instr *grown =
        mb__bump_grow(l->g->bump, l->instrs, k->instr_count, &l->instr_capacity, sizeof *grown);
    if (!grown) {
        l->failed = true;
        return 0;
    }
    k->instrs = l->instrs = grown;
    grown[k->instr_count] = *i;
    return k->instr_count++;
}

static void new_store(mb__lowering *l, mb__kernel *k, const mb__store *s)
{
    mb__store *grown =
        mb__bump_grow(l->g->bump, l->stores, k->store_count, &l->store_capacity, sizeof *grown);
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
static int32_t operand(mb__lowering *l, mb__kernel *k, const mb__group *gr, int32_t c, int j, bool per_row)
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
            in.view.value = mb__lower_value_of(l, o->base);
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

void mb__lower_group(mb__lowering *l, int32_t group)
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
        in.custom = n->op == MB_OP_MAP ? mb__custom_of(n->attr) : NULL;
        if (n->op == MB_OP_DRAW) {
            in.bind = n->bind;
            in.number = (double)n->attr[0];
        }
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
        s.view.value = mb__lower_value_of(l, c);
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
    mb__lower_kernel_step(l, l->g->nodes[gr->members[gr->member_count - 1]].site, &k);
}

/* A kernel of one instruction, whose value is stored over the view. */
void mb__lower_store(mb__lowering *l, const char *site, int rank, const int64_t *dim, const mb__instr *in,
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
    mb__lower_kernel_step(l, site, &k);
}

/* A kernel that copies between two views. */
void mb__lower_copy(mb__lowering *l, const char *site, mb_dtype dtype, int rank, const int64_t *dim,
                    const mb__view *from, const mb__view *to)
{
    mb__instr in = {.op = MB_K_LOAD,
                    .dtype = (uint8_t)dtype,
                    .from = (uint8_t)dtype,
                    .in = {-1, -1, -1},
                    .bind = -1,
                    .view = *from,
                    .site = site};
    mb__lower_store(l, site, rank, dim, &in, to);
}
