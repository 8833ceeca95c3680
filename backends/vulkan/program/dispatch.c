/* SPDX-License-Identifier: MIT
 * dispatch.c - the dispatches of a program under construction, with their regions of its part of the table.
 */
#include <stdio.h>

#include "backends/vulkan/program/program.h"

void mb__vk_add_word(mb__vk_program *p, uint32_t word, int32_t value, uint32_t shift)
{
    const mb__host *host = p->v->host;
    if (!mb__host_reserve(host, (void **)&p->words, &p->word_capacity, (uint64_t)p->word_count + 1,
                          sizeof *p->words) ||
        !mb__host_reserve(host, (void **)&p->slot_value, &p->slot_capacity, (uint64_t)p->word_count + 1,
                          sizeof *p->slot_value) ||
        !mb__host_reserve(host, (void **)&p->slot_shift, &p->shift_capacity, (uint64_t)p->word_count + 1,
                          sizeof *p->slot_shift)) {
        p->failed = true;
        return;
    }
    p->words[p->word_count] = word;
    p->slot_shift[p->word_count] = shift;
    p->slot_value[p->word_count++] = value;
}

/* Elements of a value are one of its units, or two where they are float64 or int64; of scratch the writer
 * says so by its views. */
static int units_each(const mb__vk_program *p, int32_t value)
{
    return value < p->plan->value_count && mb__vk_is_wide(p->plan->values[value].dtype) ? 2 : 1;
}

void mb__vk_slots(mb__vk_program *p, const mb__vk_slot *slots, int count)
{
    for (int i = 0; i < count; i++) {
        mb__vk_add_word(p, 0, slots[i].value, (uint32_t)(slots[i].offset * units_each(p, slots[i].value)));
        mb__vk_add_word(p, 0, -1, 0);
    }
}

uint32_t mb__vk_region(mb__vk_program *p, const mb__vk_slot *slots, int count)
{
    uint32_t at = p->word_count;
    p->touching = p->access_count;
    mb__vk_slots(p, slots, count);
    return at;
}

void mb__vk_param(mb__vk_program *p, int64_t x)
{
    if (x > UINT32_MAX || x < INT32_MIN) {
        mb__vk_fail(p->v, MB_BACKEND, NULL, "vulkan: a size or stride of %lld is too large", (long long)x);
        p->failed = true;
    }
    mb__vk_add_word(p, (uint32_t)x, -1, 0);
}

void mb__vk_accesses(mb__vk_program *p, int32_t value, bool written)
{
    mb__vk_access *grown =
        mb__bump_grow(&p->pool, p->accesses, p->access_count, &p->access_capacity, sizeof *grown);
    if (!grown) {
        p->failed = true;
        return;
    }
    p->accesses = grown;
    grown[p->access_count++] = (mb__vk_access){value, written};
}

void mb__vk_dispatch_add(mb__vk_program *p, mb__vk_pipeline *pipeline, uint32_t region, int64_t groups,
                         int step, double cost)
{
    mb__vk_dispatch *grown =
        mb__bump_grow(&p->pool, p->dispatches, p->dispatch_count, &p->dispatch_capacity, sizeof *grown);
    int64_t most = p->v->caps.groups, x = groups < most ? groups : most, y = x ? (groups + x - 1) / x : 0;
    if (!grown || y > most) {
        if (grown)
            mb__vk_fail(p->v, MB_BACKEND, p->plan->steps[step].site,
                        "vulkan: %lld groups are more than a dispatch takes", (long long)groups);
        p->failed = true;
        return;
    }
    p->dispatches = grown;
    if (pipeline)
        p->pipeline_bytes += mb__vk_pipeline_use(p->v, pipeline);
    grown[p->dispatch_count++] = (mb__vk_dispatch){.pipeline = pipeline,
                                                   .region = region,
                                                   .x = (uint32_t)x,
                                                   .y = (uint32_t)y,
                                                   .access_first = p->touching,
                                                   .access_count = p->access_count - p->touching,
                                                   .step = step,
                                                   .cost = cost};
}

uint8_t mb__vk_dtype_of(const mb__vk_program *p, int32_t value)
{
    int count = p->plan->value_count;
    return value < count ? p->plan->values[value].dtype : p->scratch[value - count].dtype;
}

int64_t mb__vk_unit(const mb__vk_program *p, int32_t value)
{
    return mb__is_half(mb__vk_dtype_of(p, value)) ? 2 : 4;
}

int32_t mb__vk_scratch(mb__vk_program *p, int64_t count, int dtype)
{
    uint64_t bytes = (uint64_t)count * mb__vk_element_size((mb_dtype)dtype);
    bytes = bytes ? bytes : 1; /* values of no bytes have a place too */
    mb__vk_scratch_value *grown =
        mb__bump_grow(&p->pool, p->scratch, p->scratch_count, &p->scratch_capacity, sizeof *grown);
    if (!grown) {
        p->failed = true;
        return 0;
    }
    p->scratch = grown;
    grown[p->scratch_count] = (mb__vk_scratch_value){p->scratch_bytes, bytes, (uint8_t)dtype};
    p->scratch_bytes += (bytes + VK_ALIGN - 1) / VK_ALIGN * VK_ALIGN;
    return p->plan->value_count + p->scratch_count++;
}

mb__vk_pipeline *mb__vk_pipeline_named(mb__vk_program *p, int step, const char *kernel, int dtype,
                                       uint32_t local)
{
    static const char *const types[] = {"f32", "f64", "i32", "i32", "f32", "f32", "i32", "i32"};
    char name[40];
    if (dtype < 0)
        snprintf(name, sizeof name, "%s", kernel);
    else
        snprintf(name, sizeof name, "%s_%s", kernel, types[dtype]);
    const mb__vk_shader *s = mb__vk_shader_named(name);
    if (!s || (dtype == MB_FLOAT64 && !p->v->caps.float64)) {
        mb__vk_fail(p->v, MB_BACKEND, p->plan->steps[step].site, "vulkan: no kernel %s on %s", name,
                    p->v->props.deviceName);
        return NULL;
    }
    return mb__vk_pipeline_for(p->v, s->words, (uint32_t)(s->bytes / 4), local, 0, 0);
}
