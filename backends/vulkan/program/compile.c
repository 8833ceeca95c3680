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
        if (step->kind == MB_STEP_LOOP && !has_types(v, step->u.loop->body))
            return false;
    }
    for (int i = 0; i < plan->value_count; i++)
        if (!mb__vk_has_type(v, NULL, (mb_dtype)plan->values[i].dtype))
            return false;
    return true;
}

/* The kernels that the program's products are about to take; those found wrong are not taken then. */
static bool try_products(const mb__vk_program *p)
{
    for (int s = 0; s < p->plan->step_count; s++)
        if (p->plan->steps[s].kind == MB_STEP_PRODUCT && !mb__vk_try_product(p, p->plan->steps[s].u.product))
            return false;
    for (const mb__vk_program *body = p->bodies; body; body = body->next_body)
        if (!try_products(body))
            return false;
    return true;
}

static bool add_steps(mb__vk_program *p);

/* body: the next one, of those of the program's loops. */
static bool add_step(mb__vk_program *p, int s, mb__vk_program **body)
{
    const mb__step *step = &p->plan->steps[s];
    switch (step->kind) {
    case MB_STEP_KERNEL:
        return mb__vk_add_kernel(p, s, &step->u.kernel);
    case MB_STEP_PRODUCT:
        return mb__vk_add_product(p, s, step->u.product);
    case MB_STEP_OTHER:
        return mb__vk_add_other(p, s, step->u.other);
    case MB_STEP_CUSTOM:
        return mb__vk_add_custom(p, s, step->u.custom);
    case MB_STEP_LOOP: {
        mb__vk_program *b = *body;
        *body = b->next_body;
        return add_steps(b) && mb__vk_add_loop(p, s, b);
    }
    default:
        return mb__vk_add_fill(p, s, &(mb__view){step->u.zero, 0, {1}}, p->plan->values[step->u.zero].count,
                               p->plan->values[step->u.zero].dtype, 0);
    }
}

static bool add_steps(mb__vk_program *p)
{
    mb__vk_program *body = p->bodies;
    bool ok = true;
    for (int s = 0; ok && s < p->plan->step_count; s++)
        ok = !p->failed && add_step(p, s, &body);
    return ok;
}

mb__vk_program *mb__vk_compile(mb__vk *v, const mb__plan *plan)
{
    if (!has_types(v, plan))
        return NULL;
    mb__vk_program *p = mb__vk_program_new(v, plan);
    if (p && try_products(p) && add_steps(p) && mb__vk_program_finish(p))
        return p;
    mb__vk_discard(p);
    return NULL;
}
