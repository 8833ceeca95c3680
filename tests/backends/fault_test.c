/* SPDX-License-Identifier: MIT
 *
 * fault_test.c - the n-th allocation fails, for every n of a training step: once, and from n on. The step
 * must say MB_NO_MEMORY, or have done with what was let go of (caches, unused buffers); nothing may leak, and
 * after mb_clear_error the same context must train on, from the weights it had. */
#include "training.h"

/* Runs all of it on an allocator that fails; whether an allocation failed at all. */
static bool attempt(const char *backend, uint64_t n, bool on, const double *want)
{
    counter c = {.fail_at = n, .fail_on = on};
    mb_allocator a = counting_allocator(&c);
    mb_context *ctx = mb_open_with(&(mb_options){.backend = backend, .allocator = &a, .threads = 2});
    bool failed = false, started = false;
    training t = {0};
    if (!ctx) {
        expect(c.calls >= n, "%s, %llu: mb_open gave nothing", backend, (unsigned long long)n);
        expect(c.blocks == 0, "%s, %llu: mb_open left %lld blocks", backend, (unsigned long long)n,
               (long long)c.blocks);
        return true;
    }
    for (int tries = 0; tries < 3; tries++) {
        if (!started)
            started = mb_error(ctx) == MB_OK && training_start(&t, ctx);
        bool ok = started;
        for (int step = 0; ok && step < 2; step++)
            ok = training_step(&t, step, 0.1) && isfinite(t.loss);
        if (ok)
            break;
        failed = true;
        expect(mb_error(ctx) == MB_NO_MEMORY, "%s, %llu%s: %s: %s", backend, (unsigned long long)n,
               on ? " and on" : "", mb_status_name(mb_error(ctx)), mb_message(ctx));
        expect(strlen(mb_message(ctx)) > 10, "a message");
        if (mb_error(ctx) != MB_NO_MEMORY)
            break;
        if (!started && !t.w.id && !mb_backend_name(ctx)[0])
            break;
        c.fail_at = 0; /* there is memory again */
        mb_clear_error(ctx);
        if (started) { /* all steps anew: what failed may have stored nothing, or all */
            mb_assign(t.w, mb_mul(mb_normal(ctx, mb_key_of(1), MB_FLOAT32, MB_SHAPE(6, 4)), 0.3));
            mb_assign(t.m, mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(6, 4)));
            expect(mb_eval(&t.w, 1) == MB_OK, "%s, %llu: assigning after an error: %s", backend,
                   (unsigned long long)n, mb_message(ctx));
        }
    }
    if (mb_error(ctx) == MB_OK && started) {
        float w[24];
        expect(mb_read(t.w, w, sizeof w) == MB_OK, "%s, %llu: %s", backend, (unsigned long long)n,
               mb_message(ctx));
        for (int i = 0; want && i < 24; i++)
            expect(want[i] == (double)w[i], "%s, %llu%s: trained to other weights: %g, not %g", backend,
                   (unsigned long long)n, on ? " and on" : "", (double)w[i], want[i]);
    }
    mb_close(ctx);
    expect(c.blocks == 0 && c.bytes == 0, "%s, %llu%s: %lld bytes in %lld blocks left", backend,
           (unsigned long long)n, on ? " and on" : "", (long long)c.bytes, (long long)c.blocks);
    return failed;
}

static void every_allocation(const char *backend, bool on)
{
    counter c = {0};
    mb_allocator a = counting_allocator(&c);
    mb_context *ctx = mb_open_with(&(mb_options){.backend = backend, .allocator = &a, .threads = 2});
    training t;
    training_start(&t, ctx);
    for (int step = 0; step < 2; step++)
        training_step(&t, step, 0.1);
    float w[24];
    double want[24];
    mb_read(t.w, w, sizeof w);
    for (int i = 0; i < 24; i++)
        want[i] = (double)w[i];
    expect(mb_close(ctx) == MB_OK && c.blocks == 0, "undisturbed");
    uint64_t calls = c.calls;
    expect(calls > 20, "%llu allocations", (unsigned long long)calls);
    int failures = 0;
    for (uint64_t n = 1; n <= calls; n++)
        failures += attempt(backend, n, on, want);
    if (on) /* nothing is to be had any more */
        expect(failures + 5 >= (int)calls, "%s: %d of %llu failed", backend, failures,
               (unsigned long long)calls);
    else
        expect(failures < (int)calls, "%s: no failure was got over", backend);
    fprintf(stderr, "%s: %llu allocations failed in turn\n", backend, (unsigned long long)calls);
}

Test(fault, each_allocation_once_on_cpu, .timeout = 600)
{
    every_allocation(backend_names[1], false);
}
Test(fault, each_allocation_and_all_later_on_cpu, .timeout = 600)
{
    every_allocation(backend_names[1], true);
}
Test(fault, each_allocation_once_on_reference, .timeout = 600)
{
    every_allocation("reference", false);
}
Test(fault, each_allocation_and_all_later_on_reference, .timeout = 600)
{
    every_allocation("reference", true);
}
