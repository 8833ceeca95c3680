/* SPDX-License-Identifier: MIT
 *
 * scan_scope_test.c - scans and scopes: results that outlive the scope of their scan, scopes within a body,
 * and loops of the host that record the same scan again. */
#include "support.h"

/* Four steps of gradient descent on sum(sin(w)^2). */
static mb_tensor descent(mb_context *ctx, mb_tensor w, mb_tensor rate, bool scope, mb_tensor *losses)
{
    mb_scan s = mb_scan_begin(ctx, 4);
    mb_scan_carry(s, &w);
    mb_scope inner = {0};
    if (scope)
        inner = mb_scope_begin(ctx);
    mb_tensor noise = mb_mul(mb_uniform(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE(2)), 0.1);
    mb_tensor t = mb_mul(mb_cast(mb_scan_step(s), MB_FLOAT64), 0.1);
    mb_exp(noise); /* not needed, and gone with the scope */
    mb_tensor loss = mb_sum(mb_square(mb_sin(mb_add(mb_add(w, noise), t))), MB_ALL), g;
    mb_grad(loss, &w, 1, &g);
    w = mb_sub(w, mb_mul(g, rate));
    mb_scan_stack(s, loss, losses);
    if (scope) {
        w = mb_keep(w);
        mb_scope_end(inner);
    }
    w = mb_add(w, mb_mul(mb_cast(mb_scan_step(s), MB_FLOAT64), 0.01));
    mb_scan_end(s);
    return w;
}

/* The gradients of a result by both inputs, in out[2]. */
static void gradients(mb_tensor y, mb_tensor x, mb_tensor rate, double out[2])
{
    mb_tensor g[2];
    mb_grad(mb_sum(y, MB_ALL), (mb_tensor[]){x, rate}, 2, g);
    out[0] = mb_item(mb_sum(g[0], MB_ALL));
    out[1] = mb_item(g[1]);
}

/* A kept result keeps its derivatives, though the scan's other results have no handle any more. */
Test(scan_scope, kept_results)
{
    for (int b = 0; b < 2; b++)
        for (int way = 0; way < 6; way++) {
            mb_context *ctx = open_on(backend_names[b]);
            mb_tensor x = mb_full(ctx, MB_FLOAT64, MB_SHAPE(2), 0.3);
            mb_tensor rate = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0.1), losses, w;
            double want[2], got[2];
            w = descent(ctx, x, rate, false, &losses);
            gradients(way % 2 ? losses : w, x, rate, want);
            mb_scope scope = mb_scope_begin(ctx);
            w = descent(ctx, x, rate, way >= 4, &losses);
            if (way >= 2)
                mb_eval((mb_tensor[]){losses, w}, 2);
            mb_tensor kept = mb_keep(way % 2 ? losses : w);
            mb_scope_end(scope);
            for (int i = 0; i < 30; i++) /* what was not kept is another node now */
                mb_sin(mb_full(ctx, MB_FLOAT64, MB_SHAPE0, i));
            expect(!mb_valid(w) && !mb_valid(losses), "a handle outlives its scope");
            gradients(kept, x, rate, got);
            for (int i = 0; i < 2; i++)
                expect(near(got[i], want[i], 1e-13, 0), "%s, way %d: %.17g, not %.17g", backend_names[b], way,
                       got[i], want[i]);
            close_all();
        }
}

/* A scope within a body: placeholders, draws and stacks that were made in it go on. */
Test(scan_scope, scope_in_a_body)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor x = mb_full(ctx, MB_FLOAT64, MB_SHAPE(2), 0.3), rate = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0.1);
    mb_tensor losses, w;
    double want[2][2], got[2][2];
    for (int scope = 0; scope < 2; scope++) {
        w = descent(ctx, x, rate, scope, &losses);
        for (int i = 0; i < 2; i++)
            gradients(i ? losses : w, x, rate, scope ? got[i] : want[i]);
    }
    for (int i = 0; i < 4; i++)
        expect(near(got[i / 2][i % 2], want[i / 2][i % 2], 1e-13, 0), "%d: %.17g, not %.17g", i,
               got[i / 2][i % 2], want[i / 2][i % 2]);
    close_all();
}

/* Detached: the value alone, and nothing of the tape. */
Test(scan_scope, detached_results)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor x = mb_full(ctx, MB_FLOAT64, MB_SHAPE(2), 0.3), rate = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0.1);
    mb_tensor losses, w = descent(ctx, x, rate, false, &losses);
    double want = mb_item(mb_sum(w, MB_ALL)), *all = values(losses);
    mb_scope scope = mb_scope_begin(ctx);
    w = descent(ctx, x, rate, false, &losses);
    w = mb_detach(w);
    losses = mb_detach(losses);
    mb_scope_end(scope);
    expect(mb_item(mb_sum(w, MB_ALL)) == want && same_bits(values(losses), all, 4), "another value");
    close_all();
}

/* The same scan again with new data is the same plan, and takes no memory from the third time on. */
Test(scan_scope, replayed)
{
    for (int order = 0; order < 3; order++) {
        counter c = {0};
        mb_allocator allocator = counting_allocator(&c);
        mb_context *ctx = mb_open_with(&(mb_options){
            .size = sizeof(mb_options), .backend = backend_names[1], .threads = 1, .allocator = &allocator});
        mb_tensor w = mb_variable(ctx, MB_FLOAT64, MB_SHAPE(2));
        uint64_t before = 0;
        for (int i = 0; i < 8; i++) {
            before = i == 3 ? c.calls : before;
            mb_scope scope = mb_scope_begin(ctx);
            mb_tensor rate = mb_scalar(ctx, MB_FLOAT64, 0.1 + 0.01 * i), losses, v = w;
            v = descent(ctx, v, rate, false, &losses);
            mb_tensor y = mb_sum(mb_add(mb_square(v), mb_sum(losses, MB_ALL)), MB_ALL), g = v;
            for (int k = 0; k < order; k++) {
                mb_grad(y, &w, 1, &g);
                y = mb_dot(g, g);
            }
            mb_assign(w, mb_add(w, mb_mul(g, 0.1)));
            mb_item(y);
            mb_scope_end(scope);
        }
        expect_ok(ctx);
        expect(mb_get_stats(ctx).plans == 1, "order %d: %llu plans", order,
               (unsigned long long)mb_get_stats(ctx).plans);
        expect(c.calls == before, "order %d: %llu allocations in the last 5 of 8", order,
               (unsigned long long)(c.calls - before));
        mb_close(ctx);
        expect(c.blocks == 0, "%lld blocks left", (long long)c.blocks);
    }
}
