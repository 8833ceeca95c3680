/* SPDX-License-Identifier: MIT
 * point.c - projections of a subject at its point, and the verdict on a derivative there. */
#include <stdio.h>

#include "backends/engine/backends.h"
#include "tests/kit/internal.h"
#include "tensor/internal.h"

/* ---- the functions p_k ---- */

bool mb__point_arguments(const mb__point *p, mb_tensor *xs)
{
    for (int i = 0; i < p->s->n; i++)
        xs[i] = p->s->put(p->s, i, p->s->x[i]);
    return mb_error(p->s->ctx) == MB_OK;
}

mb_tensor mb__project_on(const mb__point *p, mb_tensor value, const mb_tensor *xs, int k, bool forward)
{
    const mb__subject *s = p->s;
    mb_tensor *ws = mb__block(s->blocks, 2 * s->n, sizeof *ws), *gs = MB__PAST(ws, s->n),
              sum = mb__poison(s->ctx);
    if (!ws)
        return sum;
    for (int i = 0; i < s->n; i++)
        ws[i] = mb__check_tensor(s->blocks, MB_FLOAT64, s->shape[i], p->w[k][i]);
    if (forward) {
        mb_jvp(&value, 1, xs, ws, s->n, &sum);
        return sum;
    }
    mb_grad(value, xs, s->n, gs);
    for (int i = 0; i < s->n; i++) {
        mb_tensor part = mb_sum(mb_mul(gs[i], ws[i]), MB_ALL);
        sum = i ? mb_add(sum, part) : part;
    }
    return sum;
}

mb_tensor mb__project(const mb__point *p, const mb_tensor *xs, int order, unsigned forward)
{
    mb_tensor y = p->s->f(p->s, xs);
    mb_tensor w = mb__check_tensor(p->s->blocks, MB_FLOAT64, mb_shape_of(y), p->w0);
    mb_tensor value = mb_sum(mb_mul(y, w), MB_ALL);
    for (int k = 0; k < order; k++)
        value = mb__project_on(p, value, xs, k, forward >> k & 1);
    return value;
}

/* ---- verdicts ---- */

const char *mb__mode_text(char *out, size_t size, int order, unsigned forward)
{
    size_t n = 0;
    for (int k = order; k-- > 0 && n < size;)
        n += (size_t)snprintf(out + n, size - n, "%s%s", forward >> k & 1 ? "forward" : "reverse",
                              k ? " over " : "");
    return out;
}

const char *mb__order_text(int order)
{
    static const char *const nth[] = {"value", "first derivative", "second derivative", "third derivative"};
    return nth[order];
}

mb_status mb__wrong_derivative(const mb__point *p, int order, unsigned forward, int argument, int64_t element,
                               const char *against)
{
    const mb__subject *s = p->s;
    mb_check_result *r = p->r;
    char mode[80], where[400] = "", at[240];
    r->order = order;
    r->argument = argument;
    r->element = element;
    if (argument >= 0)
        snprintf(where, sizeof where, " by %s, %s", s->label(s, argument),
                 mb__element_text(at, sizeof at, s->shape[argument], element));
    return mb__verdict(
        r, MB_WRONG, s->site, "%s on %s: %s, %s,%s: got %.15g, wanted %.15g %s, allowed %.2g", s->name,
        mb_backend_name(s->ctx), mb__order_text(order), mb__mode_text(mode, sizeof mode, order, forward),
        argument >= 0 ? where : " along a random direction", r->got, r->wanted, against, r->allowed);
}
