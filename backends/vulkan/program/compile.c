/* SPDX-License-Identifier: MIT
 *
 * compile.c - compiles a plan to a program: pipelines, dispatches, and its part of the table. The first run
 * records the commands.
 */
#include "backends/vulkan/program/program.h"

/* What a kernel computes in between has a type as well. */
static bool has_types(mb__vk *v, const mb__plan *plan)
{
    for (int s = 0; s < plan->step_count; s++) {
        const mb__step *step = &plan->steps[s];
        for (int i = 0; step->kind == MB_STEP_KERNEL && i < step->u.kernel.instr_count; i++)
            if (!mb__vk_has_type(v, step->site, (mb_dtype)step->u.kernel.instrs[i].dtype))
                return false;
    }
    for (int i = 0; i < plan->value_count; i++)
        if (!mb__vk_has_type(v, NULL, (mb_dtype)plan->values[i].dtype))
            return false;
    return true;
}

/* The kernels that the plan's products are about to take; those found wrong are not taken then. */
static bool try_products(mb__vk *v, const mb__plan *plan)
{
    for (int s = 0; s < plan->step_count; s++)
        if (plan->steps[s].kind == MB_STEP_PRODUCT && !mb__vk_try_product(v, plan, plan->steps[s].u.product))
            return false;
    return true;
}

static bool add_step(mb__vk_program *p, int s)
{
    const mb__step *step = &p->plan->steps[s];
    switch (step->kind) {
    case MB_STEP_KERNEL:
        return mb__vk_add_kernel(p, s, &step->u.kernel);
    case MB_STEP_PRODUCT:
        return mb__vk_add_product(p, s, step->u.product);
    case MB_STEP_OTHER:
        return mb__vk_add_other(p, s, step->u.other);
    default:
        return mb__vk_add_fill(p, s, step->u.zero, 0);
    }
}

mb__vk_program *mb__vk_compile(mb__vk *v, const mb__plan *plan)
{
    if (!has_types(v, plan) || !try_products(v, plan))
        return NULL;
    mb__vk_program *p = mb__vk_program_new(v, plan);
    bool ok = p != NULL;
    for (int s = 0; ok && s < plan->step_count; s++)
        ok = !p->failed && add_step(p, s);
    if (ok && mb__vk_program_finish(p))
        return p;
    mb__vk_discard(p);
    return NULL;
}
