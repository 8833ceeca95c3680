/* SPDX-License-Identifier: MIT
 *
 * leave.c - steps of a loop that change nothing are left out: those after the one that mb_scan_until makes
 * the last, and in derivatives the same ones. How many they are is known on the device, so the host looks: at
 * what the loop says of them, while nothing runs. Then it does what these steps would have done, which is to
 * hand on the carries and to fill their part of the stacks, and tells the body which step is next.
 */
#include "backends/vulkan/program/program.h"

enum { TOGETHER = 1024 }; /* flags that are looked at */

/* Where a value lies from an element on. */
static mb__vk_memory element_of(const mb__vk_program *p, const mb__binding *b, int32_t value, int64_t element)
{
    mb__vk_memory m = mb__vk_place_of(p, b, value);
    m.offset += (uint64_t)element * mb__vk_element_size((mb_dtype)p->plan->values[value].dtype);
    return m;
}

bool mb__vk_active_steps(const mb__vk_program *p, const mb__binding *b, const mb__loop *l, int64_t *from,
                         int64_t *to)
{
    const mb__port *port = &l->in[l->idle];
    int64_t first = l->steps, last = -1; /* as they lie */
    uint8_t idle[TOGETHER];
    for (int64_t at = 0; at < l->steps; at += TOGETHER) {
        int64_t count = l->steps - at < TOGETHER ? l->steps - at : TOGETHER;
        mb__vk_memory flags = element_of(p, b, port->value, port->offset + at);
        if (!mb__vk_download(p->v, &flags, MB_BOOL, count, idle))
            return false;
        for (int64_t i = 0; i < count; i++)
            if (!idle[i]) {
                first = at + i < first ? at + i : first;
                last = at + i;
            }
    }
    *from = last < 0 ? l->steps : l->backwards ? l->steps - 1 - last : first;
    *to = last < 0 ? l->steps : l->backwards ? l->steps - first : last + 1;
    return true;
}

/* Where carry i lies before a step, counted as they run. */
static mb__vk_memory carry_at(const mb__vk_program *p, const mb__binding *b, const mb__loop *l, int i,
                              int64_t step)
{
    mb__port at = mb__loop_input(l, i, step, 0);
    return element_of(p, b, at.value, at.offset);
}

bool mb__vk_is_done(const mb__vk_program *p, const mb__binding *b, const mb__loop *l, int64_t step,
                    bool *done)
{
    uint8_t flag = 0;
    mb__vk_memory at = carry_at(p, b, l, l->until, step);
    bool ok = mb__vk_download(p->v, &at, MB_BOOL, 1, &flag);
    *done = flag;
    return ok;
}

static bool hand_on(const mb__vk_program *p, const mb__binding *b, const mb__loop *l, int i, int64_t from,
                    int64_t to)
{
    const mb__value *v = &p->plan->values[l->out[i].value];
    mb__vk_memory was = carry_at(p, b, l, i, from), is = carry_at(p, b, l, i, to);
    bool there = was.block == is.block && was.offset == is.offset;
    return there || v->count == 0 || mb__vk_copy(p->v, &was, &is, (mb_dtype)v->dtype, v->count);
}

/* `count` entries of a stack: the carry that is kept there, each twice as many from those before; or zeros.
 */
static bool fill(const mb__vk_program *p, const mb__binding *b, const mb__loop *l, int i, int64_t from,
                 int64_t to)
{
    const mb__port *port = &l->out[i];
    const mb__value *v = &p->plan->values[port->value];
    int64_t first = l->backwards ? l->steps - to : from, count = to - from, each = port->step;
    int32_t kept = l->kept[i - l->carries];
    mb__vk_memory start = element_of(p, b, port->value, port->offset + first * each);
    if (each == 0) /* no elements, or nobody reads the stack */
        return true;
    if (kept < 0)
        return mb__vk_upload(p->v, &start, (mb_dtype)v->dtype, count * each, NULL);
    mb__vk_memory carry = carry_at(p, b, l, kept, from);
    bool ok = mb__vk_copy(p->v, &carry, &start, (mb_dtype)v->dtype, each);
    for (int64_t n = 1; n < count && ok; n *= 2) {
        int64_t more = count - n < n ? count - n : n;
        mb__vk_memory next = element_of(p, b, port->value, port->offset + (first + n) * each);
        ok = mb__vk_copy(p->v, &start, &next, (mb_dtype)v->dtype, more * each);
    }
    return ok;
}

/* The step that a body runs next. A device that has a table of its own gets a copy, and the host's stays as
 * it is at the beginning of runs. */
static bool set_step(const mb__vk_program *p, const mb__vk_act *a, int64_t step)
{
    mb__vk_set_step(a->left, step);
    if (!a->patch)
        return true;
    bool ok = mb__vk_submit(p->v, &a->patch, 1, true) && mb__vk_idle(p->v);
    mb__vk_set_step(a->left, 0);
    return ok;
}

bool mb__vk_leave_out(const mb__vk_program *p, const mb__binding *b, const mb__vk_act *a, int64_t from,
                      int64_t to)
{
    const mb__loop *l = a->left->loop;
    for (int i = l->carries; i < l->outputs; i++)
        if (!fill(p, b, l, i, from, to))
            return false;
    for (int i = 0; i < l->carries; i++)
        if (!hand_on(p, b, l, i, from, to))
            return false;
    return set_step(p, a, to);
}
