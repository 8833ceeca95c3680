/* SPDX-License-Identifier: MIT
 *
 * product.c - how a contraction's axes become matrix products. Axes that lie next to each other in every operand that
 * has them are merged; one merged axis of each kind becomes m, n and k, the rest become loops. Which, is decided by a
 * cost in multiply-adds: a call has an overhead, small or transposed shapes run slower, strides that no BLAS takes run
 * in plain loops.
 */
#include "backends/plan.h"

enum { CALL = 12000, PLAIN = 24 };

typedef struct axis_list {
    mb__axis_info axis[24];
    int count;
} axis_list;

static int64_t major_stride(const mb__axis_info *x)
{
    return x->present & 4 ? x->c : x->a;
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

/* Whether a matrix of the given strides can be handed to a BLAS: one stride 1, the other large enough. */
static bool blas_matrix(int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride)
{
    if (rows == 1 || columns == 1)
        return rows == 1 ? columns == 1 || column_stride == 1 || column_stride >= 1 : row_stride >= 1;
    return (column_stride == 1 && row_stride >= columns) || (row_stride == 1 && column_stride >= rows);
}

static double call_cost(const mb__product *p)
{
    double work = (double)p->m * (double)p->n * (double)p->k;
    bool ok = blas_matrix(p->m, p->k, p->a_m, p->a_k) && blas_matrix(p->k, p->n, p->b_k, p->b_n) &&
              blas_matrix(p->m, p->n, p->c_m, p->c_n);
    if (!ok)
        return 200 + work * PLAIN;
    double slow = (1 + 6.0 / (double)p->m) * (1 + 6.0 / (double)p->n) * (1 + 6.0 / (double)p->k);
    bool a_turned = p->a_k != 1 && p->k > 1, b_turned = p->b_n != 1 && p->n > 1;
    bool c_turned = p->c_n != 1 && p->n > 1;
    /* Row-major A B^T, or its mirror image where c is column-major. */
    if (work < 1e6 && (c_turned ? !a_turned && p->a_m != 1 : b_turned))
        slow *= 1.6;
    double plain = 100 + work * PLAIN, blas = CALL + work * slow;
    return plain < blas ? plain : blas;
}

double mb__product_axes(const mb__axis_info *axes, int count, mb__product *best)
{
    axis_list batch = {.count = 0}, kinds[3] = {{.count = 0}, {.count = 0}, {.count = 0}}; /* m, n, k */
    for (int i = 0; i < count; i++) {
        if (axes[i].size == 1)
            continue;
        switch (axes[i].present) {
        case 5:
            add_sorted(&kinds[0], &axes[i]);
            break;
        case 6:
            add_sorted(&kinds[1], &axes[i]);
            break;
        case 3:
            add_sorted(&kinds[2], &axes[i]);
            break;
        default:
            add_sorted(&batch, &axes[i]);
        }
    }
    merge_neighbours(&batch);
    for (int i = 0; i < 3; i++)
        merge_neighbours(&kinds[i]);
    double lowest = -1;
    for (int m = -1; m < kinds[0].count; m++)
        for (int n = -1; n < kinds[1].count; n++)
            for (int k = -1; k < kinds[2].count; k++) {
                if ((m < 0 && kinds[0].count) || (n < 0 && kinds[1].count) || (k < 0 && kinds[2].count))
                    continue;
                const mb__axis_info *am = m < 0 ? NULL : &kinds[0].axis[m], *an = n < 0 ? NULL : &kinds[1].axis[n],
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
