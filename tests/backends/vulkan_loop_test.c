/* SPDX-License-Identifier: MIT
 *
 * vulkan_loop_test.c - loops on the vulkan backend: what a run makes and submits does not grow with the
 * steps, and values are those of the same scans on the reference backend, wherever they lie, and however
 * the steps are put together in submits. */
#include "support.h"

#ifdef MB_HAVE_VULKAN
#include <unistd.h>

#include "backends/engine/state.h"
#include "backends/vulkan/vulkan.h"

static mb__vk *device_of(mb_context *ctx)
{
    return ((mb__engine_state *)ctx->engine_state)->backend_state;
}

/* ---- scans to try ---- */

enum { MOST = 32768, X = 97 };

typedef struct results {
    double x[MOST];
    int count;
} results;

static void put(results *r, mb_tensor t)
{
    int64_t n = shape_count(mb_shape_of(t));
    double *x = values(t);
    for (int64_t i = 0; i < n && r->count < MOST; i++)
        r->x[r->count++] = x[i];
}

/* x <- cos(x + first) of 8 numbers, whose sums are stacked: errors shrink from step to step. */
static void small_carry(mb_context *ctx, int64_t steps, double first, results *r)
{
    mb_scope scope = mb_scope_begin(ctx);
    mb_tensor x = mb_add(mb_cast(mb_iota(ctx, MB_INT32, 8), MB_FLOAT64), first), sums;
    mb_scan s = mb_scan_begin(ctx, steps);
    mb_scan_carry(s, &x);
    x = mb_mul(mb_cos(mb_add(x, first)), 0.9);
    mb_scan_stack(s, mb_sum(x, MB_ALL), &sums);
    mb_scan_end(s);
    put(r, x);
    put(r, steps < 1000 ? sums : mb_slice(sums, 0, steps - 900, 900, 1));
    mb_scope_end(scope);
}

/* Carries of every dtype, two of which change places; slices and stacks that begin anywhere; products,
 * reductions, sorting, indices, running sums. */
static void of_everything(mb_context *ctx, int64_t steps, bool backwards, uint64_t seed, results *r)
{
    mb_scope scope = mb_scope_begin(ctx);
    rng g = {seed};
    mb_tensor xs = draw(ctx, &g, MB_FLOAT32, MB_SHAPE(steps, X), -1, 1),
              wide = draw(ctx, &g, MB_FLOAT64, MB_SHAPE(steps, 3, 5), -1, 1),
              w = draw(ctx, &g, MB_FLOAT32, MB_SHAPE(8, 16), -0.2, 0.2);
    mb_tensor a = draw(ctx, &g, MB_FLOAT32, MB_SHAPE(8, 8), -1, 1), b = mb_mul(mb_transpose(a), 0.5),
              sum = draw(ctx, &g, MB_FLOAT64, MB_SHAPE(5, 5), -1, 1), order = mb_iota(ctx, MB_INT32, X),
              odd = mb_lt(mb_full(ctx, MB_INT32, MB_SHAPE(3), 1), 0.0);
    mb_tensor stacked[6];
    mb_scan s = mb_scan_begin_with(ctx, steps, (mb_scan_options){.backwards = backwards});
    mb_scan_carry(s, &a);
    mb_scan_carry(s, &b);
    mb_scan_carry(s, &sum);
    mb_scan_carry(s, &order);
    mb_scan_carry(s, &odd);
    mb_tensor x = mb_scan_slice(s, xs), y = mb_scan_slice(s, wide);
    /* Could be read by fours, if it began at one. */
    mb_tensor even = mb_transpose(mb_reshape(mb_slice(x, 0, 0, 96, 1), MB_SHAPE(8, 12)));
    mb_tensor row = mb_matmul(even, w), corner = mb_slice(mb_slice(row, 0, 0, 8, 1), 1, 0, 8, 1);
    mb_tensor kept = mb_tanh(mb_add(mb_mul(a, 0.3), corner));
    a = mb_tanh(mb_matmul(kept, b));
    b = kept;
    sum = mb_mul(mb_add(sum, mb_matmul(mb_transpose(y), y)), 0.5);
    mb_tensor sorted = mb_argsort(mb_add(x, mb_mul(mb_take(x, order, 0), 0.25)));
    order = mb_take(order, sorted, 0);
    odd = mb_not(odd);
    mb_scan_stack(s, row, &stacked[0]);
    mb_scan_stack(s, mb_sum(sum, MB_AXES(0)), &stacked[1]);
    mb_scan_stack(s, sorted, &stacked[2]);
    mb_scan_stack(s, mb_cumsum(mb_where(mb_slice(odd, 0, 0, 1, 1), x, mb_neg(x)), 0, false), &stacked[3]);
    mb_scan_stack(s, mb_scatter_add(y, mb_slice(order, 0, 0, 3, 1), 0, X), &stacked[4]);
    mb_scan_stack(s, mb_scan_step(s), &stacked[5]);
    mb_scan_end(s);
    put(r, a);
    put(r, b);
    put(r, sum);
    put(r, order);
    put(r, odd);
    for (int i = 0; i < 6; i++)
        put(r, stacked[i]);
    mb_scope_end(scope);
}

/* A scan in a scan in a scan: the inner ones take part of an outer slice, read an outer carry, and go the
 * other way; what they stack is stacked. */
static void nested(mb_context *ctx, int outer, int middle, int inner, results *r)
{
    mb_scope scope = mb_scope_begin(ctx);
    rng g = {3};
    mb_tensor xs = draw(ctx, &g, MB_FLOAT32, MB_SHAPE(outer, middle, inner, 3), -1, 1),
              w = draw(ctx, &g, MB_FLOAT32, MB_SHAPE(3), -1, 1), u, all, some, ends;
    mb_scan a = mb_scan_begin(ctx, outer);
    mb_scan_carry(a, &w);
    mb_tensor x = mb_scan_slice(a, xs), at_first = w;
    mb_scan b = mb_scan_begin_with(ctx, middle, (mb_scan_options){.backwards = true});
    mb_scan_carry(b, &w);
    mb_tensor y = mb_scan_slice(b, x);
    u = mb_mul(w, 0.5);
    mb_scan c = mb_scan_begin(ctx, inner);
    mb_scan_carry(c, &u);
    u = mb_add(mb_mul(u, 0.7), mb_sin(mb_add(mb_mul(mb_scan_slice(c, y), at_first), w)));
    mb_scan_stack(c, mb_sum(u, MB_ALL), &some);
    mb_scan_end(c);
    w = mb_tanh(mb_add(u, mb_mul(w, 0.1)));
    mb_scan_stack(b, mb_add(some, mb_sum(w, MB_ALL)), &all);
    mb_scan_end(b);
    mb_scan_stack(a, all, &ends);
    mb_scan_end(a);
    put(r, w);
    put(r, ends);
    mb_scope_end(scope);
}

/* A learner's loss after its steps: gradient, and the derivative of its norm, by the first weights. */
static void second_order(mb_context *ctx, int64_t steps, mb_scan_options way, results *r)
{
    mb_scope scope = mb_scope_begin(ctx);
    rng g = {9};
    mb_tensor w0 = draw(ctx, &g, MB_FLOAT64, MB_SHAPE(4, 3), -0.5, 0.5), w = w0, dw,
              xs = draw(ctx, &g, MB_FLOAT64, MB_SHAPE(steps, 6, 4), -1, 1),
              y = draw(ctx, &g, MB_FLOAT64, MB_SHAPE(6, 3), -1, 1), losses, first, second[2];
    mb_scan s = mb_scan_begin_with(ctx, steps, way);
    mb_scan_carry(s, &w);
    mb_tensor x = mb_scan_slice(s, xs);
    mb_tensor loss = mb_mean(mb_square(mb_sub(mb_tanh(mb_matmul(x, w)), y)), MB_ALL);
    mb_grad(loss, &w, 1, &dw);
    w = mb_sub(w, mb_mul(dw, 0.3));
    mb_scan_stack(s, loss, &losses);
    mb_scan_end(s);
    mb_grad(mb_add(mb_sum(losses, MB_ALL), mb_sum(mb_square(w), MB_ALL)), &w0, 1, &first);
    mb_tensor by[2] = {w0, xs};
    mb_grad(mb_sum(mb_square(first), MB_ALL), by, 2, second);
    put(r, first);
    put(r, second[0]);
    put(r, second[1]);
    mb_scope_end(scope);
}

static void all_scans(mb_context *ctx, results *r)
{
    r->count = 0;
    small_carry(ctx, 1, 0.5, r);
    small_carry(ctx, 2, 0.5, r);
    small_carry(ctx, 300, 0.5, r);
    of_everything(ctx, 1, false, 1, r);
    of_everything(ctx, 4, true, 2, r);
    of_everything(ctx, 13, false, 3, r);
    nested(ctx, 2, 3, 2, r);
    nested(ctx, 3, 2, 70, r);
    nested(ctx, 2, 50, 3, r);
    second_order(ctx, 7, (mb_scan_options){0}, r);
    second_order(ctx, 40, (mb_scan_options){.backwards = true, .keep_every = 6}, r);
    expect_ok(ctx);
    expect(r->count < MOST, "more results than were kept");
}

/* Single precision errs by 6e-8 an operation; some hundred of them in a row, in maps that do not spread. */
static void expect_results(const char *what, const results *got, const results *want)
{
    expect(got->count == want->count, "%s: %d results, not %d", what, got->count, want->count);
    for (int i = 0; i < want->count; i++)
        if (!expect(near(got->x[i], want->x[i], 1e-5, 1e-5), "%s: result %d is %.9g, not %.9g", what, i,
                    got->x[i], want->x[i]))
            return;
}

static results want, got;

static void compare(const char *what, const char *name, const char *value)
{
    if (name)
        setenv(name, value, 1);
    all_scans(open_on("vulkan"), &got);
    expect_results(what, &got, &want);
    close_all();
    if (name)
        unsetenv(name);
}

Test(vulkan_loop, the_same_values, .timeout = 240)
{
    all_scans(open_on("reference"), &want);
    compare("as it is", NULL, NULL);
    compare("by staging", "MB_VULKAN_STAGING", "1");
    compare("the least device", "MB_VULKAN_LIMITS", "minimum");
    compare("as on a GPU", "MB_VULKAN_QUIRKS", "16");
    compare("guarded", "MB_GUARD", "1");
    compare("between barriers backwards", "MB_VULKAN_BARRIERS", "backwards");
    compare("in small batches", "MB_VULKAN_BATCH", "2000");
    compare("unrolled", "MB_DISABLE", "loops");
}

Test(vulkan_loop, validation_has_nothing_to_say, .timeout = 240)
{
    all_scans(open_on("reference"), &want);
    compare("validated", "MB_VULKAN_VALIDATE", "1");
    setenv("MB_VULKAN_BATCH", "2000", 1);
    compare("validated, in small batches", "MB_VULKAN_VALIDATE", "1");
    setenv("MB_VULKAN_LIMITS", "minimum", 1);
    compare("validated, the least device", "MB_VULKAN_VALIDATE", "1");
    expect(atomic_load(&mb__vk_unheard) == 0, "messages that no error reported");
}

/* ---- steps that are left out ---- */

/* The fixed point of a cos(x) + b_t, nearly, by at most so many steps, of which about `wanted` are done; its
 * derivatives by a, and by all of b, which have entries of steps that were not. Dispatches of all flushes. */
static uint64_t until_fixed(mb_context *ctx, int64_t steps, double near, mb_scan_options way, results *r)
{
    uint64_t dispatches = 0;
    mb_scope scope = mb_scope_begin(ctx);
    const double data[3] = {0.7, 0.8, 0.85};
    mb_tensor a = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(3), data),
              b = mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(steps, 3)), x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(3)),
              count = mb_full(ctx, MB_INT32, MB_SHAPE0, 0), by[2] = {a, b}, g[2];
    mb_scan s = mb_scan_begin_with(ctx, steps, way);
    mb_scan_carry(s, &x);
    mb_scan_carry(s, &count);
    mb_tensor next = mb_add(mb_mul(a, mb_cos(x)), mb_scan_slice(s, b));
    mb_tensor change = mb_max(mb_abs(mb_sub(next, x)), MB_ALL);
    x = next;
    count = mb_add(count, 1);
    mb_scan_until(s, mb_lt(change, mb_full(ctx, MB_FLOAT64, MB_SHAPE0, near)));
    mb_scan_end(s);
    put(r, count);
    mb_tensor y = x;
    for (int order = 0; order < 3; order++) {
        put(r, y);
        dispatches += mb_get_stats(ctx).last_dispatches;
        if (order == 2)
            break;
        mb_grad(mb_sum(mb_sin(y), MB_ALL), by, 2, g);
        put(r, mb_slice(g[1], 0, steps % 2, steps / 2, 2));
        dispatches += mb_get_stats(ctx).last_dispatches;
        y = g[0];
    }
    mb_scope_end(scope);
    return dispatches;
}

/* Of 250 steps a few are done, or some dozens, or nearly all, an odd number and an even one. */
static uint64_t all_that_end(mb_context *ctx, results *r)
{
    static const mb_scan_options ways[] = {
        {0}, {.backwards = true}, {.keep_every = 50}, {.keep_every = MB_KEEP_SQRT}};
    static const double nears[] = {0.3, 0.1, 1e-3, 1e-12, 0};
    uint64_t dispatches = 0;
    r->count = 0;
    for (int w = 0; w < 4; w++)
        for (int n = 0; n < (w ? 3 : 5); n++)
            dispatches += until_fixed(ctx, 250 + w, nears[n], ways[w], r);
    until_fixed(ctx, 256, 1e-3, ways[0], r); /* whole blocks */
    until_fixed(ctx, 256, 1e-3, ways[0], r); /* replayed */
    expect_ok(ctx);
    expect(r->count < MOST, "more results than were kept");
    return dispatches;
}

static uint64_t compare_ends(const char *what, const char *name, const char *value)
{
    if (name)
        setenv(name, value, 1);
    uint64_t dispatches = all_that_end(open_on("vulkan"), &got);
    expect_results(what, &got, &want);
    close_all();
    if (name)
        unsetenv(name);
    return dispatches;
}

Test(vulkan_loop, steps_after_the_last_are_left_out, .timeout = 240)
{
    all_that_end(open_on("reference"), &want);
    compare_ends("as it is", NULL, NULL);
    compare_ends("by staging", "MB_VULKAN_STAGING", "1");
    compare_ends("the least device", "MB_VULKAN_LIMITS", "minimum");
    compare_ends("guarded", "MB_GUARD", "1");
    compare_ends("in small batches", "MB_VULKAN_BATCH", "2000");
    compare_ends("validated", "MB_VULKAN_VALIDATE", "1");
    expect(atomic_load(&mb__vk_unheard) == 0, "messages that no error reported");
}

/* Sums of small whole numbers in halves, of which steps make no whole words: below 256, which makes them
 * exact. Hundreds of steps are left out. */
static void sum_halves(mb_context *ctx, results *r)
{
    static const mb_dtype dtypes[] = {MB_FLOAT16, MB_BFLOAT16};
    enum { STEPS = 251, ENTRIES = 3 };
    rng random = {7};
    r->count = 0;
    for (int d = 0; d < 2; d++)
        for (int entries = 1; entries <= ENTRIES; entries++)
            for (int limit = 2; limit <= 8; limit += 2) {
                mb_scope scope = mb_scope_begin(ctx);
                double data[STEPS * ENTRIES];
                for (int i = 0; i < STEPS * entries; i++)
                    data[i] = (double)rng_below(&random, 2);
                mb_tensor b = from_doubles(ctx, dtypes[d], MB_SHAPE(STEPS, entries), data), g,
                          x = mb_zeros(ctx, dtypes[d], MB_SHAPE(entries)), passed, y;
                mb_scan s = mb_scan_begin_with(ctx, STEPS, (mb_scan_options){.backwards = limit % 4 != 0});
                mb_scan_carry(s, &x);
                x = mb_add(x, mb_scan_slice(s, b));
                mb_scan_stack(s, mb_square(x), &passed);
                mb_scan_until(s, mb_lt(mb_full(ctx, MB_FLOAT32, MB_SHAPE0, limit),
                                       mb_sum(mb_cast(x, MB_FLOAT32), MB_ALL)));
                mb_scan_end(s);
                y = mb_add(mb_sum(mb_square(mb_cast(x, MB_FLOAT32)), MB_ALL),
                           mb_sum(mb_cast(mb_slice(passed, 0, 0, 6, 1), MB_FLOAT32), MB_ALL));
                mb_grad(y, &b, 1, &g);
                put(r, x);
                put(r, passed);
                put(r, g);
                put(r, mb_slice(g, 0, 3, STEPS / 2 - 2, 2));
                mb_scope_end(scope);
            }
    expect_ok(ctx);
    expect(r->count < MOST, "more results than were kept");
}

Test(vulkan_loop, halves_at_any_place, .timeout = 240)
{
    static const char *const names[] = {"MB_VULKAN_LABELS", "MB_VULKAN_STAGING", "MB_VULKAN_LIMITS",
                                        "MB_GUARD", "MB_VULKAN_VALIDATE"},
                             *const set_to[] = {"0", "1", "minimum", "1", "1"};
    setenv("MB_VULKAN_BATCH", "300", 1); /* of a loop, blocks of few steps, which can be left out */
    sum_halves(open_on("reference"), &want);
    for (int i = 0; i < 5; i++) {
        setenv(names[i], set_to[i], 1);
        sum_halves(open_on("vulkan"), &got);
        expect_results(names[i], &got, &want);
        close_all();
        unsetenv(names[i]);
    }
}

/* A loop and its derivatives of 4000 steps cost a block or two more than one of which as many are done. */
Test(vulkan_loop, work_is_that_of_the_steps_done, .timeout = 120)
{
    static const mb_scan_options ways[] = {{0}, {.keep_every = MB_KEEP_SQRT}};
    for (int w = 0; w < 2; w++) {
        mb_context *ctx = open_on("vulkan");
        got.count = 0;
        uint64_t few = until_fixed(ctx, 4000, 1e-3, ways[w], &got);
        got.count = 0;
        uint64_t all = until_fixed(ctx, 4000, 0, ways[w], &got);
        expect(few < all / 10, "keep %lld: %llu dispatches, %llu where all steps are done",
               (long long)ways[w].keep_every, (unsigned long long)few, (unsigned long long)all);
        expect_ok(ctx);
        close_all();
    }
}

/* ---- what does not grow with the steps ---- */

typedef struct made {
    uint64_t pipelines, recordings, submits, dispatches, device_bytes;
    int commands, acts;
} made;

static made of_steps(int64_t steps, uint64_t *replayed)
{
    mb_context *ctx = open_on("vulkan");
    static results r, again;
    r.count = again.count = 0;
    small_carry(ctx, steps, 0.5, &r);
    mb_stats first = mb_get_stats(ctx);
    small_carry(ctx, steps, 0.25, &again); /* other numbers, the same plan */
    small_carry(ctx, steps, 0.5, &again);
    mb_stats last = mb_get_stats(ctx);
    expect(r.count >= 9 && same_bits(r.x, again.x + r.count, r.count) && again.x[0] != r.x[0],
           "%lld steps: a replay computes something else", (long long)steps);
    expect(last.pipelines == first.pipelines && last.recordings == first.recordings &&
               last.descriptor_writes == first.descriptor_writes && last.plans == first.plans &&
               last.device_allocations == first.device_allocations,
           "%lld steps: a replay makes something new", (long long)steps);
    *replayed = (last.submits - first.submits) / 2;
    const mb__cached *c = ((mb__engine_state *)ctx->engine_state)->newest;
    while (c && !((const mb__vk_program *)c->program)->bodies)
        c = c->older;
    cr_assert(c != NULL, "no loop");
    const mb__vk_program *p = c->program;
    made m = {.pipelines = first.pipelines,
              .recordings = first.recordings,
              .submits = first.submits,
              .dispatches = p->dispatches_run,
              .device_bytes = first.device_bytes,
              .commands = p->batch_count,
              .acts = p->act_count};
    close_all();
    return m;
}

/* The plan is the same size for any number of steps; a thousand of a few numbers go in one submit. */
Test(vulkan_loop, nothing_grows_with_the_steps, .timeout = 240)
{
    uint64_t few_replayed, many_replayed, most_replayed;
    made few = of_steps(1000, &few_replayed), many = of_steps(10000, &many_replayed);
    made most = of_steps(100000, &most_replayed);
    expect(many.pipelines == few.pipelines && many.recordings == few.recordings &&
               many.commands == few.commands && many.acts == few.acts,
           "%llu pipelines, %llu recordings, %d command buffers, of 10000 steps; %llu, %llu, %d of 1000",
           (unsigned long long)many.pipelines, (unsigned long long)many.recordings, many.commands,
           (unsigned long long)few.pipelines, (unsigned long long)few.recordings, few.commands);
    expect(most.commands == few.commands && most.pipelines == few.pipelines, "of 100000 steps more");
    expect(few.commands <= 3, "%d command buffers", few.commands);
    expect(few.dispatches > 2000 && many.dispatches >= 10 * few.dispatches - 100, "%llu and %llu dispatches",
           (unsigned long long)few.dispatches, (unsigned long long)many.dispatches);
    expect(few_replayed <= 3 && many_replayed <= 6 && most_replayed <= 40, "%llu, %llu, %llu submits",
           (unsigned long long)few_replayed, (unsigned long long)many_replayed,
           (unsigned long long)most_replayed);
}

/* Plans of one structure but for the steps share their pipelines. */
Test(vulkan_loop, other_steps_share_pipelines, .timeout = 60)
{
    mb_context *ctx = open_on("vulkan");
    results *r = &got;
    r->count = 0;
    small_carry(ctx, 500, 0.5, r);
    uint64_t before = mb_get_stats(ctx).pipelines;
    small_carry(ctx, 700, 0.5, r);
    small_carry(ctx, 3, 0.5, r);
    expect(mb_get_stats(ctx).pipelines == before, "%llu pipelines more",
           (unsigned long long)(mb_get_stats(ctx).pipelines - before));
    expect(r->x[508 + 8] == r->x[8] && r->x[508 + 8 + 400] == r->x[8 + 400], "sums differ");
    close_all();
}

/* So do derivatives of theirs, of the first and second order, whatever is stored of the carries: what is
 * around the loops here has no size of the steps. */
Test(vulkan_loop, derivatives_of_other_steps_share_pipelines, .timeout = 120)
{
    static const int64_t keeps[] = {0, MB_KEEP_SQRT};
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on("vulkan");
        mb_stats was = {0};
        for (int i = 0; i < 4; i++) {
            static const int64_t steps[] = {40, 80, 90, 40};
            mb_scope scope = mb_scope_begin(ctx);
            rng g = {9};
            mb_tensor w0 = draw(ctx, &g, MB_FLOAT64, MB_SHAPE(4, 3), -0.5, 0.5), w = w0, dw,
                      x = draw(ctx, &g, MB_FLOAT64, MB_SHAPE(6, 4), -1, 1), by[3];
            mb_scan s = mb_scan_begin_with(ctx, steps[i], (mb_scan_options){.keep_every = keeps[k]});
            mb_scan_carry(s, &w);
            mb_grad(mb_mean(mb_square(mb_tanh(mb_matmul(x, w))), MB_ALL), &w, 1, &dw);
            w = mb_sub(w, mb_mul(dw, 0.3));
            mb_scan_end(s);
            by[0] = w;
            for (int order = 1; order < 3; order++)
                mb_grad(mb_sum(mb_square(by[order - 1]), MB_ALL), &w0, 1, &by[order]);
            expect(mb_eval(by, 3) == MB_OK, "%s", mb_message(ctx));
            mb_stats now = mb_get_stats(ctx);
            expect(i == 0 || now.pipelines == was.pipelines, "%lld steps, keep %lld: %llu pipelines more",
                   (long long)steps[i], (long long)keeps[k],
                   (unsigned long long)(now.pipelines - was.pipelines));
            expect(i == 0 || keeps[k] ||
                       (now.last_nodes == was.last_nodes && now.last_steps == was.last_steps),
                   "%lld steps: another plan than that of fewer", (long long)steps[i]);
            was = now;
            mb_scope_end(scope);
        }
        expect_ok(ctx);
        close_all();
    }
}

/* Heap allocations of 3 replays; recording a scan on the tape takes some. */
static uint64_t allocations_of_replays(const char *backend, uint64_t *submits)
{
    mb_context *ctx = open_on(backend);
    mb_tensor xs = mb_variable(ctx, MB_FLOAT32, MB_SHAPE(400, 4)),
              w = mb_variable(ctx, MB_FLOAT32, MB_SHAPE(4));
    mb_stats first = {0}, last;
    for (int i = 0; i < 6; i++) {
        mb_scope scope = mb_scope_begin(ctx);
        mb_tensor c = mb_alias(w);
        mb_scan s = mb_scan_begin(ctx, 400);
        mb_scan_carry(s, &c);
        c = mb_add(mb_mul(c, 0.5), mb_scan_slice(s, xs));
        mb_scan_end(s);
        mb_assign(w, mb_add(c, 1.0));
        expect(mb_eval(&w, 1) == MB_OK && mb_scope_end(scope) == MB_OK, "%s", mb_message(ctx));
        if (i == 2)
            first = mb_get_stats(ctx);
    }
    last = mb_get_stats(ctx);
    expect(last.recordings == first.recordings && last.plans == first.plans, "a replay makes something new");
    expect_ok(ctx);
    close_all();
    *submits = last.submits - first.submits;
    return last.allocations - first.allocations;
}

Test(vulkan_loop, replays_take_no_memory, .timeout = 60)
{
    uint64_t submits, none, vulkan = allocations_of_replays("vulkan", &submits),
                            reference = allocations_of_replays("reference", &none);
    expect(vulkan == reference, "%llu allocations, %llu on the reference backend", (unsigned long long)vulkan,
           (unsigned long long)reference);
    expect(submits == 3, "%llu submits of 3 replays", (unsigned long long)submits);
}

/* Work in a submit is bounded, as without loops: steps that are a slice each go one by one. */
Test(vulkan_loop, long_steps_go_one_by_one, .timeout = 60)
{
    static results whole, cut;
    whole.count = cut.count = 0;
    small_carry(open_on("vulkan"), 600, 0.5, &whole);
    setenv("MB_VULKAN_BATCH", "1", 1);
    mb_context *ctx = open_on("vulkan");
    uint64_t before = mb_get_stats(ctx).submits;
    small_carry(ctx, 600, 0.5, &cut); /* more than are left without waiting */
    expect(mb_get_stats(ctx).submits - before > 600, "only %llu submits",
           (unsigned long long)(mb_get_stats(ctx).submits - before));
    expect(same_bits(whole.x, cut.x, whole.count), "other values");
    close_all();
}

/* ---- faults ---- */

/* The sum of a quarter of x0 + 1, x0 + 2, ... x0 + steps: whole numbers of quarters, so exact. */
static bool script(mb_context *ctx, int steps, double x0, double *result)
{
    mb_scope scope = mb_scope_begin(ctx);
    mb_tensor x = mb_from(ctx, MB_FLOAT64, MB_SHAPE(1), &x0), ys;
    mb_scan s = mb_scan_begin(ctx, steps);
    mb_scan_carry(s, &x);
    x = mb_add(x, 1.0);
    mb_tensor y = x;
    mb_scan t = mb_scan_begin(ctx, 2);
    mb_scan_carry(t, &y);
    y = mb_mul(y, 0.5);
    mb_scan_end(t);
    mb_scan_stack(s, y, &ys);
    mb_scan_end(s);
    mb_tensor sum = mb_sum(ys, MB_ALL);
    *result = NAN;
    double want_sum = (steps * x0 + 0.5 * steps * (steps + 1)) / 4;
    bool ok = mb_read(sum, result, sizeof *result) == MB_OK && *result == want_sum;
    bool told = mb_error(ctx) != MB_OK;
    mb_scope_end(scope);
    expect(ok || told, "%d steps from %g on: %.17g", steps, x0, *result);
    return ok;
}

/* Every allocation fails once, while a plan of so many steps is made and run: it is made again. */
Test(vulkan_loop, each_allocation_fails, .timeout = 120)
{
    counter c = {0};
    mb_allocator a = counting_allocator(&c);
    mb_context *ctx =
        mb_open_with(&(mb_options){.size = sizeof(mb_options), .backend = "vulkan", .allocator = &a});
    double sum;
    bool met = true;
    int n = 1, failed = 0;
    device_of(ctx)->caps.processor = false; /* that each number of steps has kernels of its own */
    expect(script(ctx, 600, 1, &sum), "%s", mb_message(ctx));
    for (; met && n < 2000; n++) {
        c.fail_at = c.calls + (uint64_t)n;
        failed += !script(ctx, 600 + n, n, &sum);
        met = c.calls >= c.fail_at;
        c.fail_at = 0;
        expect(mb_error(ctx) == MB_OK || mb_error(ctx) == MB_NO_MEMORY, "allocation %d: %s", n,
               mb_message(ctx));
        mb_clear_error(ctx);
        expect(script(ctx, 600 + n, n, &sum), "after allocation %d: %s", n, mb_message(ctx));
    }
    expect(n > 40, "only %d allocations, %d of them missed", n, failed);
    mb_close(ctx);
    expect(c.blocks == 0 && c.bytes == 0, "%lld bytes left", (long long)c.bytes);
}

/* Every call is made to fail, in a first run and in a replay; the run after it, from elsewhere on, is right.
 */
static void fail_each_call(VkResult with)
{
    for (int replay = 0; replay < 2; replay++) {
        bool done = false;
        int failed = 0;
        for (uint64_t n = 1; n < 400 && !done; n++) {
            mb_context *ctx = open_on("vulkan");
            mb__vk *v = device_of(ctx);
            double sum = 0;
            expect(!replay || script(ctx, 700, 5, &sum), "before: %g", sum);
            v->fail_with = with;
            v->fail_at = v->calls + n;
            bool ok = script(ctx, 700, -20, &sum);
            done = v->calls < v->fail_at;
            v->fail_at = 0;
            failed += !ok;
            expect(ok || mb_error(ctx) != MB_OK, "call %d: no error", (int)n);
            if (!ok && !v->lost) {
                mb_clear_error(ctx);
                expect(script(ctx, 700, 100, &sum), "call %d, then again: %g, %s", (int)n, sum,
                       mb_message(ctx));
            }
            if (mb_error(ctx) == MB_OK)
                close_all();
            else
                close_failed(ctx);
        }
        expect(done && failed > 2, "%d calls failed", failed);
    }
}

Test(vulkan_loop, each_call_fails, .timeout = 240)
{
    setenv("MB_VULKAN_BATCH", "20000", 1); /* several submits */
    fail_each_call(VK_ERROR_INITIALIZATION_FAILED);
    fail_each_call(VK_ERROR_DEVICE_LOST);
}

/* ---- guards ---- */

/* The bytes behind a body's values are looked at, as those of any other value. */
Test(vulkan_loop, values_of_bodies_are_guarded, .timeout = 60)
{
    setenv("MB_GUARD", "1", 1);
    mb_context *ctx = open_on("vulkan");
    mb__vk *v = device_of(ctx);
    results *r = &got;
    r->count = 0;
    nested(ctx, 2, 3, 70, r);
    const mb__cached *c = ((mb__engine_state *)ctx->engine_state)->newest;
    while (c && !((const mb__vk_program *)c->program)->bodies)
        c = c->older;
    cr_assert(c != NULL, "no loop");
    const mb__vk_program *top = c->program;
    void *memory[8];
    const int outputs = top->plan->output_count;
    cr_assert(outputs < 8);
    for (int i = 0; i <= outputs; i++)
        cr_assert_not_null(memory[i] = mb__vk_memory_new(v, (uint64_t)top->plan->arena_bytes + 65536));
    const mb__binding b = {.arena = memory[outputs], .outputs = memory};
    mb__vk_guard_fill(top, &b);
    expect(mb__vk_guard_check(top, &b), "%s", v->failure.message);
    int64_t at = 0;
    int bodies = 0, noticed = 0;
    for (const mb__vk_program *p = top->bodies; p; p = p->bodies) {
        at += p->around->plan->values[p->loop->arena].offset;
        for (int i = 0; i < p->plan->value_count; i++) {
            const mb__value *x = &p->plan->values[i];
            if (x->storage != MB_IN_ARENA || x->first < 0)
                continue;
            const mb__vk_memory *arena = b.arena;
            unsigned char *end = v->blocks[arena->block].mapped + arena->offset + at + x->offset +
                                 x->count * (int64_t)mb__vk_element_size((mb_dtype)x->dtype);
            unsigned char was = *end;
            *end = 0;
            expect(!mb__vk_guard_check(top, &b), "a write behind value %d of a body", i);
            v->failure.status = MB_OK;
            *end = was;
            noticed++;
        }
        bodies++;
    }
    expect(bodies == 3 && noticed > 3, "%d values of %d bodies", noticed, bodies);
    for (int i = 0; i <= outputs; i++)
        mb__vk_memory_free(v, memory[i]);
    close_all();
}

/* ---- time stamps ---- */

static bool listed(const char *path, int runs, const char *what)
{
    char line[400], number[24];
    snprintf(number, sizeof number, " %d ", runs);
    FILE *f = fopen(path, "r");
    bool found = false;
    while (f && fgets(line, sizeof line, f))
        found |= strstr(line, number) && strstr(line, what);
    if (f)
        fclose(f);
    return found;
}

/* The steps of bodies are timed, every time that they run. */
Test(vulkan_loop, steps_of_bodies_are_timed, .timeout = 60)
{
    char path[] = "/tmp/mb-loop-profile-XXXXXX";
    int file = mkstemp(path);
    cr_assert(file >= 0);
    close(file);
    setenv("MB_PROFILE", path, 1);
    setenv("MB_VULKAN_VALIDATE", "1", 1);
    setenv("MB_VULKAN_LABELS", "1", 1);
    mb_context *ctx = open_on("vulkan");
    results *r = &got;
    r->count = 0;
    nested(ctx, 3, 5, 7, r);
    expect_ok(ctx);
    close_all();
    expect(listed(path, 3 * 5 * 7, " over 3,"), "the inner body ran 105 times");
    expect(listed(path, 3 * 5, " over 3,"), "the one around ran 15 times");
    unlink(path);
}
#endif
