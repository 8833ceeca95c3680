/* SPDX-License-Identifier: MIT
 * lower_product.c - a contraction becomes a product, of operands that are packed where that pays. */
#include "backends/plan/lower.h"

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

void mb__lower_contract(mb__lowering *l, int32_t id)
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
    mb__view va = {mb__lower_value_of(l, a->base), a->offset, {0}},
             vb = {mb__lower_value_of(l, b->base), b->offset, {0}};
    mb__view vc = {mb__lower_value_of(l, id), 0, {0}};
    if (l->failed)
        return;
    if (work == 0) {
        mb__step *s = mb__lower_step(l, MB_STEP_ZERO, n->site);
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
        to.value = mb__lower_value(l, (mb_dtype)n->dtype, count, MB_IN_ARENA, -1);
        if (l->failed)
            return;
        mb__lower_copy(l, n->site, (mb_dtype)n->dtype, rank, dim, &from, &to);
        if (side == 1)
            va = (mb__view){to.value, 0, {0}};
        else
            vb = (mb__view){to.value, 0, {0}};
    }
    mb__step *s = l->failed ? NULL : mb__lower_step(l, MB_STEP_PRODUCT, n->site);
    if (!s)
        return;
    best.a = va;
    best.b = vb;
    best.c = vc;
    best.adds = n->nin > 2;
    s->u.product = mb__lower_keep(l, &best, sizeof best);
}
