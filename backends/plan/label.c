/* SPDX-License-Identifier: MIT
 * label.c - a step in words, for profiles and captured commands. */
#include <stdio.h>

#include "backends/plan/label.h"

void mb__step_label(const mb__plan *plan, int step, char *out, size_t size)
{
    const mb__step *s = &plan->steps[step];
    switch (s->kind) {
    case MB_STEP_PRODUCT: {
        const mb__product *p = s->u.product;
        int64_t times = mb__numel(p->loop, p->loops);
        snprintf(out, size, "product %lldx%lldx%lld, %lld of them", (long long)p->m, (long long)p->n,
                 (long long)p->k, (long long)times);
        break;
    }
    case MB_STEP_KERNEL: {
        const mb__kernel *k = &s->u.kernel;
        int ops = 0;
        const char *last = "copy";
        for (int i = 0; i < k->instr_count; i++) {
            int op = k->instrs[i].op;
            if (mb__is_source(op))
                continue;
            ops++;
            last = op == MB_OP_MAP    ? k->instrs[i].custom->name
                   : op < MB_OP_COUNT ? mb__ops[op].name
                   : op == MB_K_SUM   ? "sum"
                   : op == MB_K_MAX   ? "max"
                                      : last;
        }
        for (int i = 0; i < k->store_count; i++)
            if (k->stores[i].mode != MB_STORE) {
                ops++;
                last = k->stores[i].mode == MB_STORE_SUM ? "sum" : "max";
            }
        long long count = (long long)mb__numel(k->dim, k->rank);
        if (ops > 1)
            snprintf(out, size, "%s and %d more over %lld", last, ops - 1, count);
        else
            snprintf(out, size, "%s over %lld", last, count);
        break;
    }
    case MB_STEP_OTHER:
        snprintf(out, size, "%s", mb__ops[s->u.other->op].name);
        break;
    case MB_STEP_CUSTOM:
        snprintf(out, size, "%s, %lld of them", s->u.custom->op->name,
                 (long long)mb__numel(s->u.custom->loop, s->u.custom->loops));
        break;
    case MB_STEP_LOOP: {
        const char *most = s->u.loop->until < 0 && s->u.loop->idle < 0 ? "" : "at most ";
        if (s->u.loop->body->number)
            snprintf(out, size, "loop of %s%lld, plan %u", most, (long long)s->u.loop->steps,
                     s->u.loop->body->number);
        else
            snprintf(out, size, "loop of %s%lld, %d steps in it", most, (long long)s->u.loop->steps,
                     s->u.loop->body->step_count);
        break;
    }
    default:
        snprintf(out, size, "zeros");
    }
}
