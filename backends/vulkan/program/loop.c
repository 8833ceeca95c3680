/* SPDX-License-Identifier: MIT
 *
 * loop.c - a loop of the plan: its body is a program of its own, whose commands are the same at every step.
 * Where the body's inputs and outputs lie moves from step to step, so the words of its regions that say where
 * are set on the device: each step begins with a dispatch of loop.comp, which reads
 *
 *   - a region in the part of the table of the program around: where the loop's ports lie. If that program is
 *     a body too, its own steps move them;
 *   - a list in the body's part: which words are to be set from which port.
 *
 * All other values of a body lie at one place during a run, within the outermost program's arena.
 */
#include "backends/vulkan/program/program.h"

/* As loop.comp has them: what a port may be, and words of a list. */
enum { MOVES, CARRY_READ, CARRY_WRITTEN, LIST_HEAD = 3, ENTRY_WORDS = 5 };

/* The port of word w of a body's table, if it says where an input or output lies; -1. Inputs come first. */
static int port_of(const mb__vk_program *body, uint32_t w)
{
    int32_t value = body->slot_value[w];
    if (value < 0 || value >= body->plan->value_count || body->plan->values[value].storage == MB_IN_ARENA)
        return -1;
    const mb__value *v = &body->plan->values[value];
    return v->storage == MB_IN_INPUT ? v->index : body->loop->inputs + v->index;
}

static void add_entry(mb__vk_program *body, uint32_t w, int port)
{
    const mb__loop *l = body->loop;
    bool input = port < l->inputs;
    int number = input ? port : port - l->inputs;
    bool carry = number < l->carries;
    const mb__value *v = &body->plan->values[body->slot_value[w]];
    int64_t step = (input ? l->in : l->out)[number].step, each = mb__vk_is_wide(v->dtype) ? 2 : 1;
    mb__vk_param(body, 0);
    mb__vk_add_word(body, w - body->list, -1, 0); /* modulo 2^32, as there */
    mb__vk_param(body, 4 * port + (!carry ? MOVES : input ? CARRY_READ : CARRY_WRITTEN));
    mb__vk_param(body, body->slot_shift[w]);
    mb__vk_param(body, carry ? 0 : step * each);
}

/* The list at the end of the body's part of the table. */
static void add_list(mb__vk_program *body)
{
    uint32_t end = body->word_count;
    int64_t count = 0;
    for (uint32_t w = 0; w < end; w++)
        count += port_of(body, w) >= 0;
    body->list = end;
    body->entries = (uint32_t)count;
    mb__vk_param(body, body->loop->steps);
    mb__vk_param(body, body->loop->backwards);
    mb__vk_param(body, count);
    for (uint32_t w = 0; w < end && !body->failed; w++) {
        int port = port_of(body, w);
        if (port >= 0)
            add_entry(body, w, port);
    }
}

/* The region in the part of the program around. */
static uint32_t add_ports(mb__vk_program *p, const mb__loop *l)
{
    uint32_t region = mb__vk_region(p, NULL, 0);
    for (int i = 0; i < l->inputs + l->outputs; i++) {
        bool input = i < l->inputs;
        int number = input ? i : i - l->inputs;
        const mb__port *port = input ? &l->in[number] : &l->out[number];
        mb__vk_slot slots[3] = {{port->value, port->offset}, {port->value, 0}, {port->value, 0}};
        for (int k = 0; k < 2 && number < l->carries; k++)
            if (l->swap[number][k] >= 0) /* else a loop of so few steps that it is not used */
                slots[1 + k].value = l->swap[number][k];
        mb__vk_slots(p, slots, 3);
    }
    return region;
}

void mb__vk_set_step(const mb__vk_program *body, int64_t step)
{
    uint32_t *list = mb__vk_table_at(body->v, body->table_at) + body->list;
    for (uint32_t i = 0; i < body->entries; i++)
        list[LIST_HEAD + ENTRY_WORDS * i] = (uint32_t)step;
}

bool mb__vk_add_loop(mb__vk_program *p, int step, mb__vk_program *body)
{
    const mb__loop *l = body->loop;
    if (body->dispatch_count == 0) /* all that it computes has no elements */
        return true;
    add_list(body);
    if (!mb__vk_program_finish(body))
        return false;
    const mb__vk_shader *s = mb__vk_shader_named("loop");
    uint32_t local = p->v->caps.processor ? 8 : 32, groups = (body->entries + local - 1) / local;
    mb__vk_pipeline *pipeline = mb__vk_pipeline_for(p->v, s->words, (uint32_t)(s->bytes / 4), local, 0, 0);
    if (!pipeline)
        return false;
    uint32_t region = add_ports(p, l);
    mb__vk_dispatch_add(p, pipeline, region, groups, step, (double)l->steps * body->all_cost);
    if (p->failed)
        return false;
    p->dispatches[p->dispatch_count - 1].body = body;
    return true;
}
