/* SPDX-License-Identifier: MIT
 *
 * vulkan_barrier_test.c - what the vulkan backend believes its dispatches access, against what the plan's
 * steps say; and its barriers against a search of all pairs that shares no code with it. */
#include "program.h"
#include "training.h"

#ifdef MB_HAVE_VULKAN
#include "backends/engine/state.h"
#include "backends/vulkan/vulkan.h"

typedef struct span { /* bytes of a space: the arena, the program's own memory, or one bound value */
    int32_t space;
    int64_t first, end;
} span;

static span span_of(const mb__vk_program *p, int32_t value)
{
    enum { ARENA = -1, OWN = -2 };
    static const int64_t sizes[] = {4, 8, 4, 4, 2, 2, 8, 4}; /* of each dtype in device memory */
    if (value >= p->plan->value_count) {
        const mb__vk_scratch_value *s = &p->scratch[value - p->plan->value_count];
        return (span){OWN, (int64_t)s->offset, (int64_t)(s->offset + s->bytes)};
    }
    const mb__value *v = &p->plan->values[value];
    if (v->storage != MB_IN_ARENA)
        return (span){value, 0, INT64_MAX};
    return (span){ARENA, v->offset, v->offset + v->count * sizes[v->dtype]};
}

static bool clash(const mb__vk_program *p, const mb__vk_dispatch *a, const mb__vk_dispatch *b)
{
    for (int i = 0; i < a->access_count; i++)
        for (int j = 0; j < b->access_count; j++) {
            const mb__vk_access *s = &p->accesses[a->access_first + i],
                                *t = &p->accesses[b->access_first + j];
            span x = span_of(p, s->value), y = span_of(p, t->value);
            if ((s->written || t->written) && x.space == y.space && x.first < y.end && y.first < x.end)
                return true;
        }
    return false;
}

/* Whether a dispatch of the step accesses the value so. */
static bool accessed(const mb__vk_program *p, int step, int32_t value, bool written)
{
    for (int i = 0; i < p->dispatch_count; i++)
        for (int j = 0; p->dispatches[i].step == step && j < p->dispatches[i].access_count; j++) {
            const mb__vk_access *t = &p->accesses[p->dispatches[i].access_first + j];
            if (t->value == value && t->written == written)
                return true;
        }
    return false;
}

static void wants(const mb__vk_program *p, int step, const mb__view *view, bool written, const char *what)
{
    expect(view->value < 0 || p->plan->values[view->value].count == 0 ||
               accessed(p, step, view->value, written),
           "%s: step %d (kind %d) %s value %d, and no dispatch is known to", what, step,
           p->plan->steps[step].kind, written ? "writes" : "reads", view->value);
}

/* Steps over nothing have no dispatches. */
static bool runs(const mb__vk_program *p, int step)
{
    for (int i = 0; i < p->dispatch_count; i++)
        if (p->dispatches[i].step == step)
            return true;
    return false;
}

static int steps_seen[5], pairs_seen;

static void check_program(const mb__vk_program *p, const char *what)
{
    for (int s = 0; s < p->plan->step_count; s++) {
        const mb__step *step = &p->plan->steps[s];
        const mb__kernel *k = &step->u.kernel;
        mb__view zero = {.value = step->kind == MB_STEP_ZERO ? step->u.zero : -1};
        if (step->kind == MB_STEP_PRODUCT)
            wants(p, s, &step->u.product->c, true, what);
        if (!runs(p, s))
            continue;
        steps_seen[step->kind]++;
        switch (step->kind) {
        case MB_STEP_KERNEL:
            for (int i = 0; i < k->instr_count; i++)
                if (k->instrs[i].op == MB_K_LOAD)
                    wants(p, s, &k->instrs[i].view, false, what);
            for (int i = 0; i < k->store_count; i++)
                wants(p, s, &k->stores[i].view, true, what);
            break;
        case MB_STEP_PRODUCT:
            if (step->u.product->k > 0) { /* else zeros are written */
                wants(p, s, &step->u.product->a, false, what);
                wants(p, s, &step->u.product->b, false, what);
            }
            break;
        case MB_STEP_OTHER:
            wants(p, s, &step->u.other->out, true, what);
            if (step->u.other->in.value >= 0)
                wants(p, s, &step->u.other->in, false, what);
            if (step->u.other->index.value >= 0)
                wants(p, s, &step->u.other->index, false, what);
            break;
        case MB_STEP_LOOP: /* apart from all others, whatever it accesses */
            break;
        default:
            wants(p, s, &zero, true, what);
        }
    }
    for (int i = 0; i < p->scratch_count; i++)
        for (int j = 0; j < i; j++) {
            span x = span_of(p, p->plan->value_count + i), y = span_of(p, p->plan->value_count + j);
            expect(x.first >= y.end || y.first >= x.end, "%s: scratch %d and %d overlap", what, i, j);
        }
    bool *before = calloc((size_t)p->dispatch_count + 1, 1);
    mb__vk_hazards(p, before);
    for (int i = 0; i < p->dispatch_count; i++) {
        bool apart = false;
        for (int j = i + 1; j < p->dispatch_count; j++) {
            apart |= before[j];
            bool conflict = clash(p, &p->dispatches[i], &p->dispatches[j]) || p->dispatches[i].body ||
                            p->dispatches[j].body;
            pairs_seen += conflict;
            expect(apart || !conflict, "%s: no barrier between dispatches %d (step %d) and %d (step %d)",
                   what, i, p->dispatches[i].step, j, p->dispatches[j].step);
        }
        expect(i == 0 || p->dispatches[i].step >= p->dispatches[i - 1].step, "%s: steps out of order", what);
    }
    free(before);
    for (const mb__vk_program *body = p->bodies; body; body = body->next_body)
        check_program(body, what);
}

static void check_context(mb_context *ctx, const char *what)
{
    mb__engine_state *st = ctx->engine_state;
    for (mb__cached *c = st->newest; c; c = c->older)
        check_program(c->program, what);
}

static void check_all(const char *what)
{
    training t;
    training_start(&t, open_on("vulkan"));
    expect(training_step(&t, 0, 0.1), "%s: %s", what, mb_message(t.ctx));
    check_context(t.ctx, what);
    /* Long sums, alone and beside a kernel's values: pieces go through memory of the program's. */
    mb_context *ctx = open_on("vulkan");
    mb_tensor x = mb_normal(ctx, mb_key_of(1), MB_FLOAT32, MB_SHAPE(3, 40000)),
              y[4] = {mb_exp(x), mb_sum(x, MB_AXES(1)), mb_sum(mb_square(x), MB_ALL), mb_max(x, MB_AXES(0))};
    expect(mb_eval(y, 4) == MB_OK, "%s: %s", what, mb_message(ctx));
    check_context(ctx, what);
    /* A learner in a loop, and its gradient. */
    ctx = open_on("vulkan");
    mb_tensor w0 = mb_normal(ctx, mb_key_of(1), MB_FLOAT32, MB_SHAPE(5, 5)), w = w0, g,
              xs = mb_normal(ctx, mb_key_of(2), MB_FLOAT32, MB_SHAPE(6, 9, 5)), losses;
    mb_scan s = mb_scan_begin(ctx, 6);
    mb_scan_carry(s, &w);
    mb_tensor loss = mb_sum(mb_square(mb_tanh(mb_matmul(mb_scan_slice(s, xs), w))), MB_ALL);
    mb_grad(loss, &w, 1, &g);
    w = mb_sub(w, mb_mul(g, 0.01));
    mb_scan_stack(s, loss, &losses);
    mb_scan_end(s);
    mb_grad(mb_sum(losses, MB_ALL), &w0, 1, &g);
    expect(mb_eval(&g, 1) == MB_OK, "%s: %s", what, mb_message(ctx));
    check_context(ctx, what);
    for (uint64_t seed = 700; seed < (is_slow() ? 705 : 712); seed++) {
        program p;
        static result r;
        program_make(&p, seed, seed % 2 ? MB_FLOAT64 : MB_FLOAT32);
        ctx = open_on("vulkan");
        expect(program_run(ctx, &p, 1, 0, &r), "%s, seed %llu: %s", what, (unsigned long long)seed,
               mb_message(ctx));
        char text[64];
        snprintf(text, sizeof text, "%s, seed %llu", what, (unsigned long long)seed);
        check_context(ctx, text);
    }
    close_all();
}

Test(vulkan_barrier, every_pair, .timeout = 240)
{
    check_all("as it is");
    setenv("MB_VULKAN_LIMITS", "minimum", 1);
    check_all("the least device");
    unsetenv("MB_VULKAN_LIMITS");
    setenv("MB_VULKAN_QUIRKS", "16", 1); /* work spread as on a GPU: other pieces */
    check_all("as on a GPU");
    expect(steps_seen[MB_STEP_KERNEL] > 100 && steps_seen[MB_STEP_PRODUCT] > 20 &&
               steps_seen[MB_STEP_OTHER] > 10 && steps_seen[MB_STEP_LOOP] >= 6 && pairs_seen > 500,
           "only %d kernels, %d products, %d others, %d pairs", steps_seen[0], steps_seen[1], steps_seen[2],
           pairs_seen);
}

/* Programs made up of accesses at random: values that overlap by any number of bytes, and few conflicts, so
 * that each barrier is there for one reason. */
Test(vulkan_barrier, made_up_programs)
{
    enum { VALUES = 12, SCRATCH = 3, DISPATCHES = 8 };
    rng r = {1};
    int needed = 0;
    for (int round = 0; round < 20000; round++) {
        mb__vk v = {0};
        mb__value values[VALUES] = {0};
        mb__vk_scratch_value scratch[SCRATCH] = {
            {0, 64, MB_FLOAT32}, {256, 300, MB_FLOAT32}, {768, 4, MB_FLOAT32}};
        mb__vk_access accesses[3 * DISPATCHES];
        mb__vk_dispatch dispatches[DISPATCHES] = {0};
        mb__plan plan = {.values = values, .value_count = VALUES};
        mb__vk_program p = {.v = &v,
                            .plan = &plan,
                            .scratch = scratch,
                            .scratch_count = SCRATCH,
                            .accesses = accesses,
                            .dispatches = dispatches,
                            .dispatch_count = DISPATCHES};
        for (int i = 0; i < VALUES; i++)
            values[i] = (mb__value){.dtype = (uint8_t)rng_below(&r, 8),
                                    .storage = (uint8_t)(i < VALUES / 2 ? MB_IN_ARENA
                                                         : i % 2        ? MB_IN_INPUT
                                                                        : MB_IN_OUTPUT),
                                    .count = 1 + rng_below(&r, 40),
                                    .offset = 64 * rng_below(&r, 12)};
        for (int i = 0; i < DISPATCHES; i++) {
            dispatches[i].access_first = p.access_count;
            dispatches[i].access_count = 1 + (int32_t)rng_below(&r, 3);
            for (int j = 0; j < dispatches[i].access_count; j++)
                accesses[p.access_count++] =
                    (mb__vk_access){(int32_t)rng_below(&r, VALUES + SCRATCH), rng_below(&r, 3) == 0};
        }
        bool before[DISPATCHES] = {false};
        mb__vk_hazards(&p, before);
        int open = 0; /* the first dispatch since the last barrier */
        for (int i = 0; i < DISPATCHES; i++) {
            bool conflict = false;
            for (int j = open; j < i; j++)
                conflict |= clash(&p, &dispatches[j], &dispatches[i]);
            expect(before[i] == conflict, "round %d: %s barrier before dispatch %d", round,
                   conflict ? "no" : "a needless", i);
            needed += conflict;
            if (before[i])
                open = i;
        }
    }
    expect(needed > 20000, "only %d barriers", needed);
}
#endif
