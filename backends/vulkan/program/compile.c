/* SPDX-License-Identifier: MIT
 *
 * compile.c - a plan to a program: its pipelines, its dispatches and its part of the table. Commands are
 * recorded by the first run.
 */
#include "backends/vulkan/program/program.h"

static bool build(mb__vk_program *p)
{
    const mb__plan *plan = p->plan;
    for (int s = 0; s < plan->step_count; s++) { /* what a kernel computes in between has a type as well */
        const mb__step *step = &plan->steps[s];
        for (int i = 0; step->kind == MB_STEP_KERNEL && i < step->u.kernel.instr_count; i++)
            if (!mb__vk_has_type(p->v, step->site, (mb_dtype)step->u.kernel.instrs[i].dtype))
                return false;
    }
    for (int i = 0; i < plan->value_count; i++)
        if (!mb__vk_has_type(p->v, NULL, (mb_dtype)plan->values[i].dtype))
            return false;
    for (int i = 0; i < plan->scalar_count * VK_SCALAR_WORDS; i++)
        mb__vk_add_word(p, 0, -1, 0);
    for (int s = 0; s < plan->step_count && !p->failed; s++) {
        const mb__step *step = &plan->steps[s];
        bool ok = step->kind == MB_STEP_KERNEL    ? mb__vk_add_kernel(p, s, &step->u.kernel)
                  : step->kind == MB_STEP_PRODUCT ? mb__vk_add_product(p, s, &step->u.product)
                  : step->kind == MB_STEP_OTHER   ? mb__vk_add_other(p, s, &step->u.other)
                                                  : mb__vk_add_fill(p, s, step->u.zero, 0);
        if (!ok)
            return false;
    }
    if (p->failed || !mb__vk_chain_slots(p))
        return false;
    if (p->scratch_bytes) {
        p->scratch_memory = mb__vk_memory_new(p->v->ctx, p->v, p->scratch_bytes);
        if (!p->scratch_memory)
            return false;
    }
    uint64_t bytes = (p->word_count + 1) * sizeof *p->words;
    if (!mb__vk_idle(p->v) || !mb__vk_table_new(p->v, bytes, &p->table_at))
        return false;
    p->table_bytes = bytes;
    if (p->word_count)
        memcpy(mb__vk_table_at(p->v, p->table_at), p->words, p->word_count * sizeof *p->words);
    return true;
}

void *mb__vk_compile(mb_context *ctx, void *state, const mb__plan *plan, size_t *bytes)
{
    mb__vk *v = state;
    mb__bump pool = {.ctx = ctx};
    mb__vk_program *p = mb__bump_get(&pool, sizeof *p);
    if (!p) {
        mb__bump_free(&pool);
        return NULL;
    }
    *p = (mb__vk_program){.v = v, .pool = pool, .plan = plan};
    if (!build(p)) {
        if (mb_error(ctx) == MB_OK && !v->refused)
            mb__error(ctx, MB_NO_MEMORY, "vulkan: out of memory while compiling a plan");
        mb__vk_discard(ctx, v, p);
        return NULL;
    }
    mb__vk_free_words(p);
    mb__vk_heard(v);
    *bytes = p->pool.total + p->table_bytes + p->scratch_bytes;
    return p;
}
