/* SPDX-License-Identifier: MIT
 *
 * scan_memory_test.c - the n-th allocation fails, or it and all later ones, for every n, while scans are
 * recorded, differentiated and run: MB_NO_MEMORY, or the right bits; then the same context computes the right
 * bits, and holds nothing at its end. */
#include "support.h"

enum { NUMBERS = 4 };

/* An inner loop that learns, in a loop, with a checkpoint, a draw, a division into blocks, another with an
 * inverse, and the second derivative. Each is small. */
static void learn(mb_context *ctx, mb_tensor x, mb_tensor rate, double out[NUMBERS])
{
    mb_tensor w = x, losses, g[2], h;
    mb_scope scope = mb_scope_begin(ctx);
    mb_scan s = mb_scan_begin_with(ctx, 4, (mb_scan_options){.keep_every = 2, .backwards = true});
    mb_scan_carry(s, &w);
    mb_tensor t = mb_cast(mb_scan_step(s), MB_FLOAT64);
    mb_scan inner = mb_scan_begin(ctx, 2);
    mb_scan_carry(inner, &w);
    mb_checkpoint c = mb_checkpoint_begin(ctx);
    mb_tensor noise = mb_uniform(ctx, mb_key_of(3), MB_FLOAT64, MB_SHAPE(2));
    mb_tensor loss = mb_sum(mb_square(mb_sub(mb_sin(w), mb_add(noise, t))), MB_ALL);
    mb_grad(loss, &w, 1, g);
    w = mb_sub(w, mb_mul(g[0], rate));
    mb_checkpoint_end(c);
    mb_scan_end(inner);
    mb_scan_stack(s, mb_sum(w, MB_ALL), &losses);
    mb_scan_end(s);
    s = mb_scan_begin_with(ctx, 3, (mb_scan_options){.keep_every = 2});
    mb_scan_carry(s, &w);
    w = mb_mul(w, 1.5);
    mb_scan_before(s, &w, mb_div(mb_scan_after(s, &w), 1.5));
    mb_scan_end(s);
    mb_tensor y = mb_add(mb_sum(mb_square(losses), MB_ALL), mb_sum(w, MB_ALL));
    mb_grad(y, (mb_tensor[]){x, rate}, 2, g);
    mb_hvp(y, &rate, &rate, 1, &h);
    out[0] = mb_item(y);
    out[1] = mb_item(mb_sum(g[0], MB_ALL));
    out[2] = mb_item(g[1]);
    out[3] = mb_item(h);
    mb_scope_end(scope);
}

static mb_status cubic(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    (void)user;
    out[0] = mb_mul(mb_mul(mb_square(at->xs[0]), at->xs[0]), at->params[0]);
    return mb_error(ctx);
}

/* A gradient whose derivative is made in one of two ways, which plans are made to choose from. */
static void choose(mb_context *ctx, mb_tensor x, mb_tensor rate, double out[NUMBERS])
{
    mb_tensor w = x, g[2];
    mb_scope scope = mb_scope_begin(ctx);
    mb_scan s = mb_scan_begin(ctx, 2);
    mb_scan_carry(s, &w);
    mb_grad_mixed(MB_LIT(mb_map){.call = cubic}, &w, 1, &rate, 1, g);
    w = mb_sub(w, g[0]);
    mb_scan_end(s);
    mb_tensor y = mb_sum(w, MB_ALL);
    mb_grad(y, (mb_tensor[]){x, rate}, 2, g);
    out[0] = mb_item(y);
    out[1] = mb_item(mb_sum(g[0], MB_ALL));
    out[2] = mb_item(g[1]);
    out[3] = 0;
    mb_scope_end(scope);
}

typedef void script(mb_context *ctx, mb_tensor x, mb_tensor rate, double out[NUMBERS]);

static void fail_each(script *learn, const char *backend, bool on)
{
    counter c = {0};
    mb_allocator allocator = counting_allocator(&c);
    const double one[2] = {0.4, 0.9};
    double want[NUMBERS] = {0}, got[NUMBERS];
    bool met = true;
    for (uint64_t n = 0; met && n < 100000; n += n && is_slow() ? 7 : 1) {
        c = (counter){0};
        mb_context *ctx = mb_open_with(&(mb_options){
            .size = sizeof(mb_options), .backend = backend, .threads = 1, .allocator = &allocator});
        cr_assert(ctx && mb_error(ctx) == MB_OK, "open");
        mb_tensor x = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(2), one);
        mb_tensor rate = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0.1);
        c.fail_at = n ? c.calls + n : 0;
        c.fail_on = on;
        uint64_t at = c.fail_at;
        learn(ctx, x, rate, n ? got : want);
        met = !n || c.calls >= at;
        c.fail_at = 0;
        if (!n)
            expect_ok(ctx);
        else if (mb_error(ctx) == MB_OK)
            expect(!memcmp(got, want, sizeof want), "%s, allocation %llu: no error, and other numbers",
                   backend, (unsigned long long)n);
        else
            expect(mb_error(ctx) == MB_NO_MEMORY, "%s, allocation %llu: %s", backend, (unsigned long long)n,
                   mb_message(ctx));
        mb_clear_error(ctx);
        learn(ctx, x, rate, got);
        expect(mb_error(ctx) == MB_OK && !memcmp(got, want, sizeof want), "%s, after allocation %llu: %s",
               backend, (unsigned long long)n, mb_message(ctx));
        mb_close(ctx);
        expect(c.blocks == 0 && c.bytes == 0, "%s, allocation %llu: %lld bytes left", backend,
               (unsigned long long)n, (long long)c.bytes);
    }
}

Test(scan_memory, each_allocation_fails, .timeout = 600)
{
    for (int b = 0; b < 2; b++)
        for (int on = 0; on < 2; on++)
            if (!testing("vulkan") || !b) /* a device takes its time to open */
                fail_each(learn, backend_names[b], on);
}

Test(scan_memory, each_allocation_of_a_choice_fails, .timeout = 600)
{
    for (int b = 0; b < 2; b++)
        for (int on = 0; on < 2; on++)
            if (!testing("vulkan") || !b)
                fail_each(choose, backend_names[b], on);
}
