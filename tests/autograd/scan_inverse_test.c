/* SPDX-License-Identifier: MIT
 *
 * scan_inverse_test.c - scans whose step has an inverse: derivatives of three orders against those from
 * stored carries, the memory of a gradient, and what a user may get wrong. */
#include "support.h"

/* A reversible block of two halves (Gomez et al. 1707.04585), each changed by the other: x += tanh(W y + s),
 * y
 * += tanh(V x). */
enum { N = 4, VARIABLES = 5 };
static mb_tensor half(mb_tensor w, mb_tensor v, mb_tensor s)
{
    return mb_tanh(mb_add(mb_einsum("ij,j->i", w, v), s));
}

static mb_tensor blocks(const mb_tensor *v, int64_t steps, mb_scan_options options, bool inverse,
                        mb_tensor *seen)
{
    mb_tensor x = v[0], y = v[1], zero = mb_zeros(x.ctx, mb_dtype_of(x), MB_SHAPE0);
    mb_scan s = mb_scan_begin_with(x.ctx, steps, options);
    mb_scan_carry(s, &x);
    mb_scan_carry(s, &y);
    mb_tensor slice = mb_scan_slice(s, v[4]),
              noise = mb_uniform(x.ctx, mb_key_of(5), mb_dtype_of(x), MB_SHAPE0);
    slice = mb_add(slice, mb_mul(noise, 0.1));
    x = mb_add(x, half(v[2], y, slice));
    y = mb_add(y, half(v[3], x, zero));
    if (inverse) {
        mb_tensor x1 = mb_scan_after(s, &x), y0 = mb_sub(mb_scan_after(s, &y), half(v[3], x1, zero));
        mb_scan_before(s, &y, y0);
        mb_scan_before(s, &x, mb_sub(x1, half(v[2], y0, slice)));
    }
    mb_scan_stack(s, mb_sum(mb_mul(x, y), MB_ALL), seen);
    mb_scan_end(s);
    return mb_add(mb_sum(mb_sin(x), MB_ALL), mb_sum(mb_square(y), MB_ALL));
}

static void variables(mb_context *ctx, int64_t steps, mb_tensor *v)
{
    const mb_shape shapes[VARIABLES] = {MB_SHAPE(N), MB_SHAPE(N), MB_SHAPE(N, N), MB_SHAPE(N, N),
                                        MB_SHAPE(steps)};
    for (int i = 0; i < VARIABLES; i++)
        v[i] = mb_mul(mb_normal(ctx, mb_key_of((uint64_t)i), MB_FLOAT64, shapes[i]), 0.5);
}

enum { NUMBERS = 3 * VARIABLES + 3 };
static void numbers_of(mb_context *ctx, mb_scan_options options, bool inverse, double *out)
{
    enum { STEPS = 7 };
    mb_tensor v[VARIABLES], d[VARIABLES], g[VARIABLES], seen, t;
    int n = 0;
    variables(ctx, STEPS, v);
    mb_tensor y = blocks(v, STEPS, options, inverse, &seen);
    y = mb_add(y, mb_sum(mb_sin(seen), MB_ALL));
    out[n++] = mb_item(y);
    for (int i = 0; i < VARIABLES; i++)
        d[i] = mb_normal(ctx, mb_key_of(10 + (uint64_t)i), MB_FLOAT64, mb_shape_of(v[i]));
    for (int order = 1; order <= 3; order++) {
        mb_grad(y, v, VARIABLES, g);
        y = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0);
        for (int i = 0; i < VARIABLES; i++) {
            out[n++] = mb_item(t = mb_dot(g[i], d[i]));
            y = mb_add(y, t);
        }
        if (order == 1) {
            mb_jvp(&y, 1, v, d, VARIABLES, &t);
            out[n++] = mb_item(t);
            out[n++] = mb_item(mb_sum(mb_square(mb_jacobian(seen, v[2])), MB_ALL));
        }
    }
    expect_ok(ctx);
}

/* To the rounding of seven inverses. */
Test(scan_inverse, equals_stored_carries)
{
    static const mb_scan_options ways[] = {
        {false, 0}, {true, 0}, {false, 3}, {true, MB_KEEP_SQRT}, {false, MB_KEEP_LOG}};
    for (int b = 0; b < 2; b++)
        for (size_t w = testing("vulkan"); w < (testing("cpu") ? sizeof ways / sizeof *ways : 2); w++) {
            double want[NUMBERS] = {0}, got[NUMBERS] = {0}, largest = 0;
            mb_context *ctx = open_on(backend_names[b]);
            numbers_of(ctx, (mb_scan_options){.backwards = ways[w].backwards}, false, want);
            numbers_of(ctx, ways[w], true, got);
            for (int i = 0; i < NUMBERS; i++)
                largest = fmax(largest, fabs(want[i]));
            for (int i = 0; i < NUMBERS; i++)
                expect(fabs(got[i] - want[i]) <= 1e-12 * largest,
                       "%s, way %zu: number %d: %.17g, stored %.17g", backend_names[b], w, i, got[i],
                       want[i]);
            close_all();
        }
}

static double arena_of(mb_context *ctx, int64_t steps, int64_t keep, bool inverse)
{
    mb_scope scope = mb_scope_begin(ctx);
    mb_tensor v[VARIABLES], g[VARIABLES], seen;
    variables(ctx, steps, v);
    v[4] = mb_broadcast(mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0.1), MB_SHAPE(steps));
    v[0] = mb_broadcast(mb_reshape(v[0], MB_SHAPE(N, 1)), MB_SHAPE(N, 500));
    mb_tensor x = v[0];
    mb_scan s = mb_scan_begin_with(ctx, steps, (mb_scan_options){.keep_every = keep});
    mb_scan_carry(s, &x);
    x = mb_mul(x, 1.01);
    if (inverse)
        mb_scan_before(s, &x, mb_div(mb_scan_after(s, &x), 1.01));
    mb_scan_stack(s, mb_sum(mb_square(x), MB_ALL), &seen);
    mb_scan_end(s);
    mb_grad(mb_sum(seen, MB_ALL), v, 1, g);
    mb_eval(g, 1);
    expect_ok(ctx);
    double bytes = (double)mb_get_stats(ctx).last_arena_bytes;
    mb_scope_end(scope);
    return bytes;
}

/* The memory of a gradient through any number of steps is that of a few carries; with keep_every k, of steps
 * / k more. */
Test(scan_inverse, stores_no_carries)
{
    if (!testing("cpu"))
        return;
    mb_context *ctx = open_on("cpu");
    const double carry = N * 500 * sizeof(double);
    double few = arena_of(ctx, 10, 0, true), many = arena_of(ctx, 1000, 0, true),
           stored = arena_of(ctx, 1000, 0, false), blocks = arena_of(ctx, 1000, 100, true);
    expect(few < 12 * carry && many < few + 3 * carry, "10 steps: %g carries, 1000: %g", few / carry,
           many / carry);
    expect(stored > 1000 * carry, "stored: %g carries", stored / carry);
    expect(blocks > many + 8 * carry && blocks < many + 14 * carry, "every 100th: %g carries",
           blocks / carry);
    close_all();
}

/* ---- mistakes ---- */

/* A scan over x and y, in which one thing is wrong. */
static void wrong(mb_context *ctx, int what)
{
    mb_tensor x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(3)), y = x, z = x, stack;
    mb_scan s = mb_scan_begin(ctx, 4);
    mb_scan_carry(s, &x);
    mb_scan_carry(s, &y);
    mb_tensor x0 = x, x1, y1;
    x = mb_mul(x, 2.0);
    x1 = mb_scan_after(s, what == 0 ? &z : &x);
    if (what == 1)
        mb_scan_before(s, &y, x1);
    y1 = mb_scan_after(s, &y);
    if (what != 2)
        mb_scan_before(s, &y, y1);
    mb_scan_before(s, &x, what == 3 ? mb_sum(x1, MB_ALL) : what == 4 ? mb_mul(x1, x0) : mb_mul(x1, 0.5));
    if (what == 5)
        mb_scan_before(s, &x, x1);
    if (what == 6)
        y = mb_add(y, x1);
    if (what == 7)
        mb_scan_stack(s, x1, &stack);
    if (what == 8)
        mb_scan_until(s, mb_lt(mb_sum(x, MB_ALL), 0.0));
    mb_scan_end(s);
    expect(mb_error(ctx) == MB_INVALID && !mb_valid(x) && !mb_valid(y), "mistake %d: %s", what,
           mb_message(ctx));
}

Test(scan_inverse, mistakes_are_told)
{
    static const char *const told[] = {"scan_after: the variable is no carry of the scan begun at",
                                       "scan_before: what this carry was before a step is made of",
                                       "scan_end: carry 2 has no inverse, and others have",
                                       "scan_before: the carry is [3] float64",
                                       "scan_end: carry 1 before a step is made of carries before the step",
                                       "scan_before: what this carry was before a step is told already",
                                       "scan_end: carry 2 after a step is made of what mb_scan_after gives",
                                       "scan_end: stack 1 is made of what mb_scan_after gives",
                                       "scan_end: a scan with mb_scan_until has no inverse"};
    mb_context *ctx = open_on("cpu");
    for (int i = 0; i < (int)(sizeof told / sizeof *told); i++) {
        wrong(ctx, i);
        expect(strstr(mb_message(ctx), told[i]) && strstr(mb_message(ctx), "scan_inverse_test.c:"),
               "mistake %d: %s", i, mb_message(ctx));
        mb_clear_error(ctx);
    }
    expect(mb_scan_before((mb_scan){0}, NULL, (mb_tensor){0}) != MB_OK, "no scan");
    close_all();
}

/* An inverse that is none is found by MB_DEBUG, with its line and the step; one up to rounding is taken. */
Test(scan_inverse, debug_tells_a_wrong_one)
{
    for (int b = 0; b < 2; b++)
        for (int right = 0; right < 2; right++) {
            setenv("MB_DEBUG", "1", 1);
            mb_context *ctx = open_on(backend_names[b]);
            unsetenv("MB_DEBUG");
            mb_tensor x = mb_iota(ctx, MB_FLOAT64, 3);
            mb_scan s = mb_scan_begin(ctx, 4);
            mb_scan_carry(s, &x);
            mb_tensor t = mb_cast(mb_scan_step(s), MB_FLOAT64), after;
            x = mb_add(mb_mul(x, 3.0), mb_square(t));
            after = mb_scan_after(s, &x);
            int line = __LINE__ + 1;
            mb_scan_before(s, &x, mb_div(mb_sub(after, right ? mb_square(t) : mb_mul(t, 2.0)), 3.0));
            mb_scan_end(s);
            mb_eval(&x, 1);
            char at[64];
            snprintf(at, sizeof at, "scan_inverse_test.c:%d: scan: the inverse", line);
            expect(right ? mb_error(ctx) == MB_OK
                         : mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), at) &&
                               strstr(mb_message(ctx), "in step 1 of 4"),
                   "%s: %s", backend_names[b], mb_message(ctx));
            mb_clear_error(ctx);
            close_all();
        }
}
