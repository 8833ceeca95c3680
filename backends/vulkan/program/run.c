/* SPDX-License-Identifier: MIT
 *
 * run.c - running a program: the commands are recorded at its first run; every run patches the table where
 * values lie elsewhere than in the run before, and submits.
 */
#include "backends/vulkan/program/program.h"

/* ---- time stamps ---- */

static bool make_queries(mb__vk_program *p)
{
    mb__vk *v = p->v;
    if (v->period == 0 || !v->host->timed || p->untimed)
        return true;
    for (mb__vk_program *body = p->bodies; body; body = body->next_body)
        if (!make_queries(body))
            return false;
    if (p->queries || p->dispatch_count == 0)
        return true;
    VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                  .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                  .queryCount = 2 * (uint32_t)p->dispatch_count};
    if (VK(v, v->f.vkCreateQueryPool(v->device, &info, NULL, &p->queries)))
        return true;
    p->queries = VK_NULL_HANDLE;
    return false;
}

/* The steps of loops were timed themselves. */
static bool read_queries(const mb__vk_program *p)
{
    mb__vk *v = p->v;
    for (int i = 0; i < p->dispatch_count; i++) {
        uint64_t ticks[2];
        if (p->dispatches[i].body || p->dispatches[i].host)
            continue;
        if (!VK(v, v->f.vkGetQueryPoolResults(v->device, p->queries, 2 * (uint32_t)i, 2, sizeof ticks, ticks,
                                              8, VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT)))
            return false;
        v->host->timed(v->host->user, p->plan, p->dispatches[i].step,
                       1e-9 * v->period * (double)((ticks[1] - ticks[0]) & v->ticks));
    }
    return true;
}

/* ---- the table ---- */

/* A number as each type that a kernel may read it in; a key's bits as they are. */
static void put_scalar(const mb__scalar *s, uint32_t *w)
{
    if (s->is_key) {
        memcpy(w + 2, &s->u.key, 8);
        return;
    }
    double x = s->u.number;
    float f = (float)x;
    int32_t n = x >= 2147483647.0 ? INT32_MAX : x > -2147483648.0 ? (int32_t)x : INT32_MIN;
    memcpy(w, &f, 4);
    memcpy(w + 1, &n, 4);
    int64_t whole = mb__to_int64(x);
    memcpy(w + 2, s->dtype == MB_INT64 ? (void *)&whole : (void *)&x, 8);
}

static void bind_values(mb__vk_program *p, const mb__binding *b)
{
    if (!p->table_bytes)
        return;
    uint32_t *table = mb__vk_table_at(p->v, p->table_at);
    int count = p->plan->value_count + p->scratch_count;
    for (int i = 0; i < count; i++) {
        if (p->slot_first[i] < 0)
            continue;
        mb__vk_memory now = mb__vk_place_of(p, b, i);
        if (now.block == p->bound[i].block && now.offset == p->bound[i].offset)
            continue;
        p->bound[i] = now;
        uint64_t unit = (uint64_t)mb__vk_unit(p, i);
        for (int32_t w = p->slot_first[i]; w >= 0; w = p->slot_next[w]) {
            table[w] = now.block;
            table[w + 1] = (uint32_t)(now.offset / unit) + p->shift[w];
        }
    }
    for (mb__vk_program *body = p->bodies; body; body = body->next_body) {
        mb__vk_memory arena = mb__vk_place_of(p, b, body->loop->arena);
        bind_values(body, &(mb__binding){.arena = &arena});
    }
}

static void rewind_bodies(const mb__vk_program *p)
{
    for (mb__vk_program *body = p->bodies; body; body = body->next_body) {
        if (body->table_bytes)
            mb__vk_set_step(body, 0);
        rewind_bodies(body);
    }
}

static void bind(mb__vk_program *p, const mb__binding *b)
{
    bind_values(p, b);
    if (p->midway)
        rewind_bodies(p);
    p->midway = false;
    uint32_t *scalars = mb__vk_table_at(p->v, p->table_at);
    for (int i = 0; i < p->plan->scalar_count; i++)
        put_scalar(&b->scalars[i], scalars + i * VK_SCALAR_WORDS);
}

/* ---- submitting ---- */

/* Of a submit: command buffers, and dispatches, which take some microseconds each whatever they do. Submits
 * that are not waited for: a queue need not hold any number. */
enum { TOGETHER = 64, DISPATCHES = 16384, UNWAITED = 256 };

typedef struct submitter {
    const mb__vk_program *p;
    const mb__binding *binding;
    VkCommandBuffer commands[TOGETHER];
    uint32_t count;
    int dispatches;
    double cost;
    int submits;                           /* since the last wait */
    uint64_t dispatches_run, barriers_run; /* by all of it */
} submitter;

static bool submit(submitter *s, bool last)
{
    bool ok = mb__vk_submit(s->p->v, s->commands, s->count, last);
    s->count = 0;
    s->dispatches = 0;
    s->cost = 0;
    s->submits++;
    return ok;
}

static bool submit_and_wait(submitter *s)
{
    s->submits = -1;
    return submit(s, true) && mb__vk_idle(s->p->v);
}

/* Batches of small cost are submitted together, up to the cost of one. */
static bool add_batch(submitter *s, const mb__vk_act *a)
{
    bool full = s->count == TOGETHER || s->dispatches + a->dispatches > DISPATCHES ||
                s->cost + a->cost > s->p->v->batch_cost;
    if (s->count && full)
        if (s->submits + 1 >= UNWAITED ? !submit_and_wait(s) : !submit(s, false))
            return false;
    s->commands[s->count++] = a->commands;
    s->dispatches += a->dispatches;
    s->cost += a->cost;
    s->dispatches_run += (uint64_t)a->dispatches;
    s->barriers_run += (uint64_t)a->barriers;
    return !a->timed || (submit_and_wait(s) && read_queries(a->timed));
}

/* All that was submitted is done. */
static bool wait_for_all(submitter *s)
{
    return (!s->count || submit_and_wait(s)) && mb__vk_idle(s->p->v);
}

static bool run_acts(submitter *s, int first, int end);

static bool run_blocks(submitter *s, int repetition, int64_t times)
{
    for (int64_t t = 0; t < times; t++)
        if (!run_acts(s, repetition + 1, s->p->acts[repetition].end))
            return false;
    return true;
}

/* Step `at`, which is the next, is no longer that, but `to`. */
static bool leave_out(submitter *s, const mb__vk_act *a, int64_t at, int64_t to)
{
    return at >= to || (wait_for_all(s) && mb__vk_leave_out(s->p, s->binding, a, at, to));
}

/* Blocks of steps of which some do something, from step *at on, up to step `end`. Whether an earlier one was
 * the last is looked at when as many were run again: at most as many are run as there had to be. */
static bool run_active(submitter *s, int repetition, int64_t *at, int64_t end)
{
    const mb__vk_act *a = &s->p->acts[repetition];
    const mb__loop *l = a->left->loop;
    bool done = false;
    for (int64_t more = a->block; *at < end && !done; more = *at) {
        more = l->until < 0 || more > end - *at ? end - *at : more;
        if (!run_blocks(s, repetition, more / a->block))
            return false;
        *at += more;
        if (l->until >= 0 && *at < end &&
            (!wait_for_all(s) || !mb__vk_is_done(s->p, s->binding, l, *at, &done)))
            return false;
    }
    return true;
}

/* A loop of which blocks are left out. The last steps, which are not more than a block, bring the carries to
 * where they belong, and are always run. */
static bool run_leaving(submitter *s, int repetition)
{
    const mb__vk_act *a = &s->p->acts[repetition];
    const mb__loop *l = a->left->loop;
    int64_t block = a->block, rest = l->steps % block, last = l->steps - (rest ? rest : block), at = 0;
    int64_t from = 0, end = last;
    if (l->idle >= 0 && (!wait_for_all(s) || !mb__vk_active_steps(s->p, s->binding, l, &from, &end)))
        return false;
    from = from / block * block < last ? from / block * block : last;
    end = (end + block - 1) / block * block < last ? (end + block - 1) / block * block : last;
    if (!leave_out(s, a, 0, from))
        return false;
    at = from;
    return run_active(s, repetition, &at, end) && leave_out(s, a, at, last) &&
           run_blocks(s, repetition, rest ? 0 : 1);
}

static bool run_acts(submitter *s, int first, int end)
{
    for (int i = first; i < end; i++) {
        const mb__vk_act *a = &s->p->acts[i];
        if (a->commands) {
            if (!add_batch(s, a))
                return false;
            continue;
        }
        if (a->host) {
            if (!wait_for_all(s) || !mb__vk_run_on_host(s->p, s->binding, &s->p->dispatches[a->host - 1]))
                return false;
            continue;
        }
        if (a->left ? !run_leaving(s, i) : !run_blocks(s, i, a->times))
            return false;
        i = a->end - 1;
    }
    return true;
}

bool mb__vk_run(mb__vk_program *p, const mb__binding *binding)
{
    mb__vk *v = p->v;
    if (!mb__vk_idle(v))
        return false;
    if (p->dispatch_count == 0)
        return true;
    bind(p, binding);
    if (v->guard)
        mb__vk_guard_fill(p, binding);
    if (p->generation != v->generation && (!make_queries(p) || !mb__vk_record(p)))
        return false;
    submitter s = {.p = p, .binding = binding};
    p->midway = true;
    if (!run_acts(&s, 0, p->act_count) || (s.count && !submit(&s, true)))
        return false;
    p->midway = false;
    p->dispatches_run = s.dispatches_run;
    p->barriers_run = s.barriers_run;
    v->host->counters->last_dispatches = p->dispatches_run;
    v->host->counters->last_barriers = p->barriers_run;
    return !v->guard || (mb__vk_idle(v) && mb__vk_guard_check(p, binding));
}
