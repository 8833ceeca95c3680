/* SPDX-License-Identifier: MIT
 *
 * contraction.c - how a contraction's axes become matrix products. Axes that lie next to each other in every
 * operand that has them are merged; one merged axis of each kind becomes m, n and k, the rest become loops.
 * The choice is made by estimating how many cycles a product of that shape takes on a core with wide vectors:
 * each call has an overhead, narrow results waste vector lanes, and a transposed right operand has to be
 * transposed while it is packed.
 */
#include "backends/plan/graph.h"

typedef struct axis_list {
    mb__axis_info axis[24];
    int count;
} axis_list;

static int64_t major_stride(const mb__axis_info *x)
{
    return x->present & AXIS_IN_C ? x->c : x->a;
}

static void add_sorted(axis_list *l, const mb__axis_info *x)
{
    int i = l->count++;
    for (; i > 0 && major_stride(&l->axis[i - 1]) < major_stride(x); i--)
        l->axis[i] = l->axis[i - 1];
    l->axis[i] = *x;
}

static void merge_neighbours(axis_list *l)
{
    int kept = 0;
    for (int i = 1; i < l->count; i++) {
        mb__axis_info *o = &l->axis[kept];
        const mb__axis_info *x = &l->axis[i];
        if (o->a == x->a * x->size && o->b == x->b * x->size && o->c == x->c * x->size)
            *o = (mb__axis_info){o->size * x->size, x->a, x->b, x->c, o->present};
        else
            l->axis[++kept] = *x;
    }
    if (l->count)
        l->count = kept + 1;
}

static double call_cost(const mb__product *p)
{
    double m = (double)p->m, n = (double)p->n, k = (double)p->k;
    double plain = 15 + m * n * (4 + 1.3 * k);
    bool turned = p->c_n != 1 && p->c_m == 1 && p->m > 1; /* the transposed product is computed */
    if (turned) {
        double t = m;
        m = n;
        n = t;
    }
    int64_t b_n = turned ? p->a_m : p->b_n;
    double panels = (double)((int64_t)(n + 31) / 32), half = n <= 16 ? 0.6 : 1;
    double pack = k * panels * (b_n == 1 || n == 1 ? 3 : 12);
    double scattered = p->c_n != 1 && p->c_m != 1 ? 2 * m * n : 0;
    double blocked = 90 + pack + (m + 2) * k * panels * half * 1.15 + scattered;
    return plain < blocked ? plain : blocked;
}

double mb__product_axes(const mb__axis_info *axes, int count, mb__product *best)
{
    axis_list batch = {.count = 0}, kinds[3] = {{.count = 0}, {.count = 0}, {.count = 0}}; /* m, n, k */
    for (int i = 0; i < count; i++) {
        if (axes[i].size == 1)
            continue;
        switch (axes[i].present) {
        case AXIS_M:
            add_sorted(&kinds[0], &axes[i]);
            break;
        case AXIS_N:
            add_sorted(&kinds[1], &axes[i]);
            break;
        case AXIS_K:
            add_sorted(&kinds[2], &axes[i]);
            break;
        default:
            add_sorted(&batch, &axes[i]);
        }
    }
    merge_neighbours(&batch);
    for (int i = 0; i < 3; i++)
        merge_neighbours(&kinds[i]);
    double lowest = -1; /* cycles */
    for (int m = -1; m < kinds[0].count; m++)
        for (int n = -1; n < kinds[1].count; n++)
            for (int k = -1; k < kinds[2].count; k++) {
                if ((m < 0 && kinds[0].count) || (n < 0 && kinds[1].count) || (k < 0 && kinds[2].count))
                    continue;
                const mb__axis_info *am = m < 0 ? NULL : &kinds[0].axis[m],
                                    *an = n < 0 ? NULL : &kinds[1].axis[n],
                                    *ak = k < 0 ? NULL : &kinds[2].axis[k];
                mb__product p = {.m = am ? am->size : 1, .n = an ? an->size : 1, .k = ak ? ak->size : 1};
                p.a_m = am ? am->a : 1;
                p.c_m = am ? am->c : 1;
                p.b_n = an ? an->b : 1;
                p.c_n = an ? an->c : 1;
                p.a_k = ak ? ak->a : 1;
                p.b_k = ak ? ak->b : 1;
                double calls = 1;
                const axis_list *lists[4] = {&batch, &kinds[0], &kinds[1], &kinds[2]};
                for (int l = 0; l < 4; l++)
                    for (int i = 0; i < lists[l]->count; i++) {
                        const mb__axis_info *x = &lists[l]->axis[i];
                        if (x == am || x == an || x == ak)
                            continue;
                        p.loop[p.loops] = x->size;
                        p.a_loop[p.loops] = x->a;
                        p.b_loop[p.loops] = x->b;
                        p.c_loop[p.loops++] = x->c;
                        calls *= (double)x->size;
                    }
                double cost = calls * call_cost(&p);
                if (lowest < 0 || cost < lowest) {
                    lowest = cost;
                    p.a = best->a;
                    p.b = best->b;
                    p.c = best->c;
                    *best = p;
                }
            }
    return lowest;
}
