/* SPDX-License-Identifier: MIT
 *
 * scan_draws_test.c - random draws in loops: they are parts of one draw for all steps and examples, bit by
 * bit, however scans and vmaps nest; and none but a step's is ever stored. */
#include <Random123/philox.h>

#include "support.h"

enum { OUTSIDE = 3, EXAMPLES = 2, INSIDE = 5, EACH = 14, DRAWS = OUTSIDE * EXAMPLES * INSIDE * EACH };

/* [2, 7] at each step of a scan, for each example of a vmap in a scan. */
static mb_tensor nested(mb_context *ctx, mb_key key, mb_dtype dtype, bool backwards)
{
    mb_tensor steps, examples, all;
    mb_scan outer = mb_scan_begin_with(ctx, OUTSIDE, (mb_scan_options){.backwards = backwards});
    mb_vmap v = mb_vmap_begin(ctx, EXAMPLES);
    mb_scan inner = mb_scan_begin_with(ctx, INSIDE, (mb_scan_options){.backwards = !backwards});
    mb_scan_stack(inner, mb_uniform(ctx, key, dtype, MB_SHAPE(2, 7)), &steps);
    mb_scan_end(inner);
    mb_vmap_out(v, steps, 0, &examples);
    mb_vmap_end(v);
    mb_scan_stack(outer, examples, &all);
    mb_scan_end(outer);
    return all;
}

Test(scan_draws, are_parts_of_one)
{
    static const mb_dtype dtypes[] = {MB_FLOAT32, MB_FLOAT64, MB_INT32, MB_BFLOAT16};
    static const char *const passes[] = {"", "fuse", "loops"};
    for (int b = 0; b < 2; b++)
        for (int p = 0; p < 3; p++) {
            mb_context *ctx = open_as(backend_names[b], passes[p], 1);
            for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
                for (int backwards = 0; backwards < 2 && has_dtype(ctx, dtypes[d]); backwards++) {
                    mb_key key = mb_key_of(7 + d);
                    mb_shape shape = MB_SHAPE(OUTSIDE, EXAMPLES, INSIDE, EACH);
                    mb_tensor got = nested(ctx, key, dtypes[d], backwards);
                    double *g = values(mb_cast(got, MB_FLOAT64)),
                           *w = values(mb_cast(mb_uniform(ctx, key, dtypes[d], shape), MB_FLOAT64));
                    expect_ok(ctx);
                    for (int i = 0; i < DRAWS; i++)
                        expect(g[i] == w[i], "%s without %s, %s: draw %d is %.17g, not %.17g",
                               backend_names[b], passes[p], mb_dtype_name(dtypes[d]), i, g[i], w[i]);
                }
            close_all();
        }
}

/* The last step of a loop in a loop, the only one of each that is run: where the number of a draw takes 35
 * bits. */
Test(scan_draws, reach_beyond_32_bits)
{
    enum { MANY = 1 << 13, MORE = (1 << 13) - 1, COUNT = 301 };
    for (int b = 0; b < 2; b++)
        for (int wide = 0; wide < 2; wide++) {
            mb_context *ctx = open_on(backend_names[b]);
            if (!has_loops(ctx)) { /* 67 million steps, written out, take all the memory there is */
                close_all();
                continue;
            }
            mb_dtype dtype = wide ? MB_FLOAT64 : MB_FLOAT32;
            mb_tensor carry = mb_zeros(ctx, dtype, MB_SHAPE(COUNT)), here = carry;
            mb_scan outer = mb_scan_begin_with(ctx, MANY, (mb_scan_options){.backwards = true});
            mb_scan_carry(outer, &carry);
            here = carry;
            mb_scan inner = mb_scan_begin_with(ctx, MORE, (mb_scan_options){.backwards = true});
            mb_scan_carry(inner, &here);
            here = mb_add(here, mb_uniform(ctx, mb_key_of(5), dtype, MB_SHAPE(COUNT)));
            mb_scan_until(inner, mb_le(mb_min(here, MB_ALL), 2));
            mb_scan_end(inner);
            carry = here;
            mb_scan_until(outer, mb_le(mb_min(carry, MB_ALL), 2));
            mb_scan_end(outer);
            double *got = values(mb_cast(carry, MB_FLOAT64));
            expect_ok(ctx);
            for (int i = 0; i < COUNT; i++) {
                uint64_t at = ((uint64_t)(MANY - 1) * MORE + MORE - 1) * COUNT + (uint64_t)i,
                         block = at / (wide ? 2 : 4), key = mb_key_of(5).bits;
                philox4x32_ctr_t w =
                    philox4x32_R(10, (philox4x32_ctr_t){{(uint32_t)block, (uint32_t)(block >> 32), 0, 0}},
                                 (philox4x32_key_t){{(uint32_t)key, (uint32_t)(key >> 32)}});
                uint64_t two = (uint64_t)w.v[at % 2 * 2 + 1] << 32 | w.v[at % 2 * 2];
                double want = wide ? (double)(two >> 11) * 0x1p-53 : (double)(w.v[at % 4] >> 8) * 0x1p-24;
                expect(got[i] == want, "%s: draw %llu is %.17g, not %.17g", backend_names[b],
                       (unsigned long long)at, got[i], want);
            }
            close_all();
        }
}

/* A product of draws, which is linear in where it begins: its derivative computes the steps again, in blocks
 * and in checkpoints as well, with draws that must be those of the loop. */
Test(scan_draws, are_the_same_in_derivatives)
{
    for (int b = 0; b < 2; b++)
        for (int way = 0; way < 4; way++) {
            mb_context *ctx = open_on(backend_names[b]);
            mb_tensor x = mb_full(ctx, MB_FLOAT64, MB_SHAPE(5), 0.3), y = x, g;
            mb_scan s = mb_scan_begin_with(ctx, 6, (mb_scan_options){.keep_every = way & 1 ? 2 : 0});
            mb_scan_carry(s, &y);
            mb_checkpoint c = {0};
            if (way & 2)
                c = mb_checkpoint_begin(ctx);
            y = mb_mul(y, mb_add(mb_uniform(ctx, mb_key_of(9), MB_FLOAT64, MB_SHAPE(5)), 0.5));
            if (way & 2)
                mb_checkpoint_end(c);
            mb_scan_end(s);
            mb_grad(mb_sum(y, MB_ALL), &x, 1, &g);
            double *got = values(g), *end = values(y);
            expect_ok(ctx);
            for (int i = 0; i < 5; i++)
                expect(near(got[i], end[i] / 0.3, 1e-14, 0), "%s, way %d: %.17g, not %.17g", backend_names[b],
                       way, got[i], end[i] / 0.3);
            close_all();
        }
}

/* What a step and its derivatives need of the arena, with noise of 64 KB in each. */
static double arena_of(mb_context *ctx, int64_t steps)
{
    mb_scope scope = mb_scope_begin(ctx);
    mb_tensor x = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0.5), y = x, g;
    mb_scan s = mb_scan_begin(ctx, steps);
    mb_scan_carry(s, &y);
    mb_tensor noise = mb_normal(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE(8192));
    y = mb_mul(0.9, mb_add(y, mb_mean(mb_sin(mb_mul(y, noise)), MB_ALL)));
    mb_scan_end(s);
    mb_grad(y, &x, 1, &g);
    mb_item(g);
    expect_ok(ctx);
    double bytes = (double)mb_get_stats(ctx).last_arena_bytes;
    mb_scope_end(scope);
    return bytes;
}

Test(scan_draws, are_not_stored)
{
    for (int b = 0; b < 2; b++) {
        mb_context *ctx = open_on(backend_names[b]);
        double few = arena_of(ctx, 10), many = arena_of(ctx, 200), each = (many - few) / 190;
        expect(each < 200, "%s: a step more takes %g bytes", backend_names[b], each);
        close_all();
    }
}

Test(scan_draws, mistakes)
{
    mb_context *ctx = open_on("cpu");
    mb_scan outer = mb_scan_begin(ctx, 1 << 20), inner = mb_scan_begin(ctx, 1 << 11);
    mb_uniform(ctx, mb_key_of(1), MB_FLOAT32, MB_SHAPE(2));
    expect(strstr(mb_message(ctx), "uniform: a draw for each of 2147483648 steps and examples"), "%s",
           mb_message(ctx));
    mb_clear_error(ctx);
    mb_scan_end(inner);
    mb_scan_end(outer);
    close_all();
}
