/* SPDX-License-Identifier: MIT
 *
 * scan_test.c - scans against the same steps written out: values, and derivatives of orders 1 to 3, in
 * reverse and forward mode, by initial carries, slices and what the body reads; and what a user may get
 * wrong. */
#include "gradcheck.h"
#include "support.h"

enum { STEPS = 7, VARIABLES = 4 };

/* ---- an inner loop that learns, as a scan and unrolled ---- */

static mb_tensor inner_loss(mb_tensor w, mb_tensor x, mb_tensor target)
{
    return mb_mean(mb_square(mb_sub(mb_tanh(mb_matmul(x, w)), target)), MB_ALL);
}

static mb_tensor unrolled(const mb_tensor *v, mb_scan_options options, mb_tensor *losses)
{
    mb_tensor w = v[0], dw, loss[STEPS];
    for (int s = 0; s < STEPS; s++) {
        int t = options.backwards ? STEPS - 1 - s : s;
        mb_tensor x = mb_reshape(mb_slice(v[1], 0, t, 1, 1), MB_SHAPE(3, 3));
        loss[t] = inner_loss(w, x, v[2]);
        mb_grad(loss[t], &w, 1, &dw);
        w = mb_sub(w, mb_mul(dw, v[3]));
    }
    *losses = mb_stack(loss, STEPS, 0);
    return w;
}

static mb_tensor scanned(const mb_tensor *v, mb_scan_options options, mb_tensor *losses)
{
    mb_tensor w = v[0], dw;
    mb_scan s = mb_scan_begin_with(w.ctx, STEPS, options);
    mb_scan_carry(s, &w);
    mb_tensor loss = inner_loss(w, mb_scan_slice(s, v[1]), v[2]);
    mb_grad(loss, &w, 1, &dw);
    w = mb_sub(w, mb_mul(dw, v[3]));
    mb_scan_stack(s, loss, losses);
    mb_scan_end(s);
    return w;
}

enum { NUMBERS = 3 + 3 * VARIABLES };

/* Values and derivatives of all orders and modes, as numbers. */
static void numbers_of(mb_tensor (*way)(const mb_tensor *, mb_scan_options, mb_tensor *), mb_context *ctx,
                       mb_scan_options options, double *out)
{
    const mb_shape shapes[VARIABLES] = {MB_SHAPE(3, 3), MB_SHAPE(STEPS, 3, 3), MB_SHAPE(3, 3), MB_SHAPE0};
    mb_tensor v[VARIABLES], d[VARIABLES], g[VARIABLES], losses, t;
    for (int i = 0; i < VARIABLES; i++) {
        v[i] = mb_mul(mb_normal(ctx, mb_key_of((uint64_t)i), MB_FLOAT64, shapes[i]), 0.5);
        d[i] = mb_normal(ctx, mb_key_of(10 + (uint64_t)i), MB_FLOAT64, shapes[i]);
    }
    mb_tensor w = way(v, options, &losses);
    mb_tensor y = mb_add(mb_sum(mb_sin(w), MB_ALL), mb_sum(mb_square(losses), MB_ALL));
    int n = 0;
    out[n++] = mb_item(y);
    for (int order = 1; order <= 3; order++) {
        mb_grad(y, v, VARIABLES, g);
        y = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0);
        for (int i = 0; i < VARIABLES; i++) {
            t = mb_sum(mb_mul(g[i], d[i]), MB_ALL);
            out[n++] = mb_item(t);
            y = mb_add(y, t);
        }
        if (order == 1) {
            mb_jvp(&y, 1, v, d, VARIABLES, &t);
            out[n++] = mb_item(t);
            t = mb_jacobian(losses, v[2]);
            out[n++] = mb_item(mb_sum(mb_square(t), MB_ALL));
        }
    }
}

static const mb_scan_options ways[] = {
    {false, 0},           {true, 0},           {false, 2}, {true, 3}, {false, 5}, {false, MB_KEEP_SQRT},
    {true, MB_KEEP_SQRT}, {false, MB_KEEP_LOG}};

static void compare(mb_context *ctx, const char *name, mb_scan_options way)
{
    double want[NUMBERS] = {0}, got[NUMBERS] = {0}, largest = 0;
    numbers_of(unrolled, ctx, way, want);
    numbers_of(scanned, ctx, way, got);
    expect_ok(ctx);
    for (int i = 0; i < NUMBERS; i++)
        largest = fmax(largest, fabs(want[i]));
    for (int i = 0; i < NUMBERS; i++)
        expect(fabs(want[i] - got[i]) <= 1e-12 * largest,
               "%s, backwards %d, keep %lld: number %d: %.17g, unrolled %.17g", name, way.backwards,
               (long long)way.keep_every, i, got[i], want[i]);
}

/* To rounding: some thousand operations of the largest magnitude, 1e-16 each. */
Test(scan, equals_the_steps_written_out)
{
    for (int b = 0; b < 2; b++)
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            if (testing("vulkan") && i % 3 != 1) /* each has kernels of its own */
                continue;
            mb_context *ctx = open_on(backend_names[b]);
            compare(ctx, backend_names[b], ways[i]);
            close_all();
        }
}

Test(scan, without_passes)
{
    for (int b = 0; b < 2; b++)
        for (int loops = 0; loops < 2; loops++) {
            mb_context *ctx = open_as(backend_names[b],
                                      loops ? "simplify,merge,dead,fuse,sink,inplace,reuse"
                                            : "simplify,merge,dead,fuse,sink,inplace,reuse,loops",
                                      0);
            compare(ctx, backend_names[b], (mb_scan_options){.keep_every = 3});
            close_all();
        }
}

/* A value that was read is an input of what is computed later, its scan's other results are not. */
Test(scan, results_may_be_read_before_derivatives)
{
    for (int b = 0; b < 2; b++) {
        mb_tensor g[4];
        mb_context *ctx = open_on(backend_names[b]);
        mb_tensor w = mb_normal(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE(4)), losses;
        for (int read = 0; read < 4; read++) {
            mb_tensor x = w;
            mb_scan s = mb_scan_begin(ctx, 5);
            mb_scan_carry(s, &x);
            x = mb_sin(mb_mul(x, 1.5));
            mb_scan_stack(s, mb_square(x), &losses);
            mb_scan_end(s);
            if (read & 1)
                values(x);
            if (read & 2)
                values(losses);
            mb_grad(mb_add(mb_sum(x, MB_ALL), mb_sum(losses, MB_ALL)), &w, 1, &g[read]);
            expect(nmse(values(g[read]), values(g[0]), 4) < 1e-28, "%s: read %d", backend_names[b], read);
        }
        close_all();
    }
}

/* ---- what derivatives store ---- */

/* Bytes of intermediate values of a gradient through so many steps of a carry of SIZE float64. */
enum { SIZE = 1000 };
static double arena_of(mb_context *ctx, int64_t steps, int64_t keep)
{
    mb_scope scope = mb_scope_begin(ctx);
    mb_tensor w0 = mb_normal(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE(SIZE)), w = w0, g;
    mb_scan s = mb_scan_begin_with(ctx, steps, (mb_scan_options){.keep_every = keep});
    mb_scan_carry(s, &w);
    w = mb_tanh(mb_mul(w, 1.1));
    mb_scan_end(s);
    mb_grad(w, &w0, 1, &g);
    mb_eval(&g, 1);
    expect_ok(ctx);
    double bytes = (double)mb_get_stats(ctx).last_arena_bytes;
    mb_scope_end(scope);
    return bytes;
}

/* Carries kept are what the header says, and a few more are there for the sweep itself. */
Test(scan, carries_kept_are_chosen)
{
    if (!testing("cpu"))
        return;
    mb_context *ctx = open_on("cpu");
    const double carry = SIZE * sizeof(double);
    double all = arena_of(ctx, 1024, 1), root = arena_of(ctx, 1024, MB_KEEP_SQRT),
           log = arena_of(ctx, 1024, MB_KEEP_LOG);
    double few = arena_of(ctx, 1024, 128);
    expect(all > 1024 * carry && all < 1044 * carry, "all: %g carries", all / carry);
    expect(root > 64 * carry && root < 94 * carry, "root: %g carries", root / carry);
    expect(few > 136 * carry && few < 166 * carry, "every 128th: %g carries", few / carry);
    expect(log < 60 * carry, "log: %g carries", log / carry);
    close_all();
}

/* ---- loops that end early ---- */

/* Newton's iteration for the root of a, from a, until the change is small; steps done, and whether that many
 * are even. */
typedef struct rooted {
    mb_tensor x, count, even, seen;
} rooted;

static rooted root_of(mb_tensor a, int64_t steps, mb_scan_options options, bool stacked)
{
    mb_context *ctx = a.ctx;
    rooted r = {a, mb_full(ctx, MB_INT32, MB_SHAPE0, 0), mb_full(ctx, MB_BOOL, MB_SHAPE0, 1), a};
    mb_scan s = mb_scan_begin_with(ctx, steps, options);
    mb_scan_carry(s, &r.x);
    mb_scan_carry(s, &r.count);
    mb_scan_carry(s, &r.even);
    mb_tensor next = mb_mul(mb_add(r.x, mb_div(a, r.x)), 0.5),
              change = mb_max(mb_abs(mb_sub(next, r.x)), MB_ALL);
    r.x = next;
    r.count = mb_add(r.count, 1);
    r.even = mb_not(r.even);
    if (stacked)
        mb_scan_stack(s, next, &r.seen);
    mb_scan_until(s, mb_lt(change, mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 1e-3)));
    mb_scan_until(s, mb_lt(mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 1e9), change));
    mb_scan_end(s);
    return r;
}

static mb_tensor root_written_out(mb_tensor a, int steps)
{
    mb_tensor x = a;
    for (int t = 0; t < steps; t++)
        x = mb_mul(mb_add(x, mb_div(a, x)), 0.5);
    return x;
}

/* Values and derivatives of three orders are those of the steps done; backwards and divided, too, but not
 * where every step of every way is written out. */
Test(scan, until_equals_the_steps_done)
{
    for (int b = 0; b < 2; b++)
        for (size_t w = 0; w < (testing("cpu") ? sizeof ways / sizeof *ways : 1); w++) {
            mb_context *ctx = open_on(backend_names[b]);
            const double data[3] = {2, 3, 5};
            mb_tensor a = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(3), data), v = mb_mul(a, 0.3);
            rooted r = root_of(a, 23, ways[w], w % 2);
            int done = (int)mb_item(r.count);
            mb_tensor y = r.x, want = root_written_out(a, done), t, u;
            expect(done > 3 && done < 8 && mb_item(mb_cast(r.even, MB_INT32)) == !(done % 2), "%d steps",
                   done);
            expect(same_bits(values(y), values(want), 3), "%s, way %zu: the value", backend_names[b], w);
            mb_jvp(&y, 1, &a, &v, 1, &t);
            mb_jvp(&want, 1, &a, &v, 1, &u);
            expect(nmse(values(t), values(u), 3) < 1e-28, "%s, way %zu: forward", backend_names[b], w);
            for (int order = 1; order <= 3; order++) {
                mb_grad(mb_sum(mb_sin(y), MB_ALL), &a, 1, &y);
                mb_grad(mb_sum(mb_sin(want), MB_ALL), &a, 1, &want);
                expect(nmse(values(y), values(want), 3) < 1e-26, "%s, way %zu: order %d: %g, %g",
                       backend_names[b], w, order, values(y)[0], values(want)[0]);
            }
            close_all();
        }
}

/* 2^31 - 1 steps, of which a handful is run: of the loop itself, of its tangent, of one within another, and
 * of one that is at its end before it begins. The last bits are those of a loop that is not left. */
Test(scan, until_leaves_the_loop)
{
    if (!testing("cpu"))
        return;
    for (int b = 0; b < 2; b++) {
        mb_context *ctx = open_on(backend_names[b]);
        const double data[3] = {2, 3, 5};
        mb_tensor a = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(3), data), v = mb_mul(a, 0.3), t, u;
        rooted all = root_of(a, 30, (mb_scan_options){0}, true),
               r = root_of(a, INT32_MAX, (mb_scan_options){0}, false);
        mb_eval((mb_tensor[]){all.x, all.count, all.seen}, 3); /* which runs all steps */
        expect(same_bits(values(all.x), values(r.x), 3) && mb_item(r.count) == mb_item(all.count),
               "%s: another value", backend_names[b]);
        mb_jvp(&r.x, 1, &a, &v, 1, &t);
        mb_jvp(&all.x, 1, &a, &v, 1, &u);
        expect(same_bits(values(t), values(u), 3), "%s: another tangent", backend_names[b]);
        mb_tensor x = a, n = mb_full(ctx, MB_INT32, MB_SHAPE0, 0), late;
        mb_scan s = mb_scan_begin(ctx, INT32_MAX);
        mb_scan_carry(s, &x);
        mb_scan_carry(s, &n);
        rooted inner = root_of(x, INT32_MAX, (mb_scan_options){0}, false);
        x = inner.x;
        n = mb_add(n, inner.count);
        mb_scan_until(s, mb_lt(mb_max(x, MB_ALL), mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 1.001)));
        mb_scan_end(s);
        expect(mb_item(mb_max(x, MB_ALL)) < 1.001 && mb_item(n) < 100, "%s: nested, %g steps",
               backend_names[b], mb_item(n));
        late = x;
        s = mb_scan_begin(ctx, 5); /* the inner loop is at its end when the third step begins */
        mb_scan_carry(s, &late);
        inner = root_of(late, 1, (mb_scan_options){0}, false);
        late = mb_add(inner.x, 1);
        mb_scan_until(s, mb_lt(mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 2), mb_max(late, MB_ALL)));
        mb_scan_end(s);
        expect(mb_item(mb_max(late, MB_ALL)) > 2 && mb_item(mb_max(late, MB_ALL)) < 3, "%s",
               backend_names[b]);
        close_all();
    }
}

Test(scan, wrong_conditions_are_told)
{
    mb_context *ctx = open_on("cpu"), *other = open_on("reference");
    for (int i = 0; i < 4; i++) {
        mb_tensor x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(3)), y = mb_ones(other, MB_BOOL, MB_SHAPE0);
        mb_scan s = mb_scan_begin(ctx, 4);
        mb_scan_carry(s, &x);
        mb_tensor wrong = i == 0   ? mb_sum(x, MB_ALL)
                          : i == 1 ? mb_lt(x, x)
                          : i == 2 ? y
                                   : MB_EMPTY(mb_tensor);
        expect(mb_scan_until(s, wrong) != MB_OK, "condition %d is taken", i);
        expect(strstr(mb_message(ctx), "scan_until") && strstr(mb_message(ctx), "scan_test.c:"), "%s",
               mb_message(ctx));
        mb_scan_end(s);
        expect(!mb_valid(x), "a result");
        mb_clear_error(ctx);
    }
    expect(mb_scan_until((mb_scan){0}, (mb_tensor){0}) != MB_OK, "no scan");
    close_all();
}

/* ---- some of the results at one time, the others later ---- */

/* Carries x and y and stacks of both: what is read first is a value when the rest is computed. */
static void results_of(mb_context *ctx, mb_tensor out[4])
{
    mb_tensor x = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 1), y = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 2);
    mb_scan s = mb_scan_begin(ctx, 4);
    mb_scan_carry(s, &x);
    mb_scan_carry(s, &y);
    x = mb_mul(x, 3.0);
    y = mb_add(y, x);
    mb_scan_stack(s, x, &out[2]);
    mb_scan_stack(s, y, &out[3]);
    mb_scan_end(s);
    out[0] = x;
    out[1] = y;
}

Test(scan, results_one_after_the_other)
{
    static const double total[4] = {81, 122, 3 + 9 + 27 + 81, 5 + 14 + 41 + 122};
    for (int b = 0; b < 2; b++)
        for (int first = 1; first < 16; first++) {
            mb_context *ctx = open_on(backend_names[b]);
            mb_tensor r[4], all = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0);
            double want = 0;
            results_of(ctx, r);
            for (int i = 0; i < 4; i++) {
                all = mb_add(all, mb_mul(mb_sum(r[i], MB_ALL), i + 1.0));
                want += (i + 1) * total[i];
            }
            for (int i = 0; i < 4; i++)
                if (first >> i & 1) {
                    double *x = values(r[i]);
                    expect(x[0] == (i == 0 ? 81 : i == 1 ? 122 : i == 2 ? 3 : 5), "result %d: %g", i, x[0]);
                }
            double got = mb_item(all);
            expect(got == want, "%s, those of %d first: %g, not %g", backend_names[b], first, got, want);
            close_all();
        }
}

/* In a vmap each example ends at a step of its own. */
Test(scan, until_of_many_examples)
{
    mb_context *ctx = open_on("cpu");
    const double starts[3] = {1, 5, 40}, want[3] = {64, 80, 80};
    mb_tensor all = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(3), starts), ends;
    mb_vmap v = mb_vmap_begin(ctx, 3);
    mb_tensor x = mb_vmap_in(v, all, 0);
    mb_scan s = mb_scan_begin(ctx, 20);
    mb_scan_carry(s, &x);
    x = mb_mul(x, 2);
    mb_scan_until(s, mb_lt(mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 50), x));
    mb_scan_end(s);
    mb_vmap_out(v, x, 0, &ends);
    mb_vmap_end(v);
    expect(same_bits(values(ends), want, 3), "%g %g %g", values(ends)[0], values(ends)[1], values(ends)[2]);
    close_all();
}
