/* SPDX-License-Identifier: MIT
 * random_test.c - Philox's published vectors, equality of backends, repeatability, statistics of the draws.
 */
#include "support.h"

#include <Random123/philox.h>

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

/* Random123's kat_vectors for philox4x32-10: the generator under us is the published one. */
Test(random, known_answers)
{
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        philox4x32_ctr_t c, r;
        philox4x32_key_t key = {{rows[i].key[0], rows[i].key[1]}};
        memcpy(c.v, rows[i].counter, sizeof c.v);
        r = philox4x32_R(10, c, key);
        expect(!memcmp(r.v, rows[i].want, sizeof r.v), "philox4x32-10, vector %d", i);
    }
}

/* Element i of a draw is a word of the block with counter i / 4 (i / 2 in float64) under the key's 64 bits.
 */
Test(random, draws_are_philox)
{
    ON_BOTH
    {
        mb_key key = mb_key_of(42);
        enum { N = 1003 };
        double *f = values(mb_uniform(ctx, key, MB_FLOAT32, MB_SHAPE(N))),
               *d = values(mb_uniform(ctx, key, MB_FLOAT64, MB_SHAPE(N)));
        double *n = values(mb_uniform(ctx, key, MB_INT32, MB_SHAPE(17, 59)));
        for (int i = 0; i < N; i++) {
            philox4x32_key_t bits = {{(uint32_t)key.bits, (uint32_t)(key.bits >> 32)}};
            philox4x32_ctr_t four = philox4x32_R(10, (philox4x32_ctr_t){{(uint32_t)i / 4, 0, 0, 0}}, bits);
            philox4x32_ctr_t two = philox4x32_R(10, (philox4x32_ctr_t){{(uint32_t)i / 2, 0, 0, 0}}, bits);
            double single = (double)(four.v[i % 4] >> 8) * 0x1p-24;
            expect(f[i] == single, "%s: float32 draw %d is %.9g, not %.9g", backend_names[k], i, f[i],
                   single);
            expect(n[i] == (double)(four.v[i % 4] >> 1), "%s: int32 draw %d is %.0f", backend_names[k], i,
                   n[i]);
            uint64_t low = two.v[i % 2 * 2], high = two.v[i % 2 * 2 + 1];
            double one = (double)((high << 32 | low) >> 11) * 0x1p-53,
                   other = (double)((low << 32 | high) >> 11) * 0x1p-53;
            expect(d[i] == one || d[i] == other, "%s: float64 draw %d is %.17g, not %.17g", backend_names[k],
                   i, d[i], one);
        }
    }
}

/* Parts of a draw of any length, from anywhere in a block: vectors of blocks, and what is left over. */
Test(random, parts_of_draws)
{
    ON_BOTH
    {
        enum { N = 1003 };
        for (int d = 0; d < 3; d++) {
            mb_tensor all = mb_uniform(ctx, mb_key_of(42), (mb_dtype)d, MB_SHAPE(N));
            double *want = values(all);
            for (int from = 0; from < 5; from++)
                for (int n = 1; n < N - from; n += n < 150 ? 1 : 97) {
                    double *part = values(mb_slice(all, 0, from, n, 1));
                    expect(!memcmp(part, want + from, (size_t)n * sizeof *part), "%s: %d draws of %s from %d",
                           backend_names[k], n, mb_dtype_name((mb_dtype)d), from);
                }
        }
    }
}

/* Blocks are counted with 64 bits: of a draw too large for any memory a few elements are asked for. */
Test(random, blocks_beyond_32_bits)
{
    if (testing("vulkan")) /* which counts elements with 32 */
        return;
    ON_BOTH
    {
        mb_key key = mb_key_of(42);
        enum { N = 7 };
        const int64_t first = ((int64_t)1 << 34) + 6;
        mb_tensor all = mb_uniform(ctx, key, MB_FLOAT32, MB_SHAPE((int64_t)1 << 35));
        double *f = values(mb_slice(all, 0, first, N, 1));
        for (int i = 0; i < N; i++) {
            uint64_t at = (uint64_t)first + (uint64_t)i;
            philox4x32_key_t bits = {{(uint32_t)key.bits, (uint32_t)(key.bits >> 32)}};
            philox4x32_ctr_t four = philox4x32_R(
                10, (philox4x32_ctr_t){{(uint32_t)(at / 4), (uint32_t)(at / 4 >> 32), 0, 0}}, bits);
            double want = (double)(four.v[at % 4] >> 8) * 0x1p-24;
            expect(f[i] == want, "%s: draw 2^34 + %d is %.9g, not %.9g: %s", backend_names[k], i + 6, f[i],
                   want, mb_message(ctx));
        }
    }
}

/* First values of a key, so that a later version cannot change a user's runs in silence. */
Test(random, golden_values)
{
    mb_key key = mb_key_of(1), folded = mb_key_fold(key, 7);
    expect(mb_key_of(1).bits == key.bits && mb_key_of(2).bits != key.bits && folded.bits != key.bits, "keys");
    expect(mb_key_fold(key, 7).bits == folded.bits && mb_key_fold(key, 8).bits != folded.bits, "folded keys");
    expect(mb_key_fold(mb_key_of(7), 1).bits != folded.bits, "fold is not symmetric");
    expect(key.bits == 0x910a2dec89025cc1u && folded.bits == 0xf15b9252f626aaau, "keys changed: %llx %llx",
           (unsigned long long)key.bits, (unsigned long long)folded.bits);
}

static double *draws(mb_context *ctx, int kind, mb_dtype dtype, uint64_t seed, mb_shape s)
{
    mb_key key = mb_key_of(seed);
    mb_tensor t = kind == 0   ? mb_uniform(ctx, key, dtype, s)
                  : kind == 1 ? mb_normal(ctx, key, dtype, s)
                              : mb_permutation(ctx, key, s);
    return values(t);
}

Test(random, the_same_everywhere_and_always)
{
    mb_context *a = open_on("reference"), *b = open_as("cpu", "", 3),
               *c = open_as("cpu", "fuse,sink,merge", 1);
    mb_shape s = MB_SHAPE(7, 991);
    for (int kind = 0; kind < 3; kind++)
        for (int d = 0; d < 3; d++) {
            mb_dtype dtype = (mb_dtype)d;
            if (kind == 1 && dtype == MB_INT32)
                continue;
            double *x = draws(a, kind, dtype, 5, s), *y = draws(b, kind, dtype, 5, s),
                   *z = draws(c, kind, dtype, 5, s);
            if (kind == 1) /* logarithm and cosine round differently */
                expect(nmse(y, x, 6937) < (d ? 1e-28 : 1e-12) && nmse(z, x, 6937) < (d ? 1e-28 : 1e-12),
                       "normal on backends");
            else
                expect(same_bits(x, y, 6937) && same_bits(x, z, 6937), "draw %d, %s: backends differ", kind,
                       mb_dtype_name(dtype));
            expect(same_bits(y, draws(b, kind, dtype, 5, s), 6937), "draw %d is not repeatable", kind);
            expect(!same_bits(y, draws(b, kind, dtype, 6, s), 6937), "draw %d does not depend on its key",
                   kind);
        }
    /* A view of a draw is a part of the same draw, however it is computed. */
    mb_tensor u = mb_uniform(b, mb_key_of(9), MB_FLOAT32, s), part = mb_slice(mb_transpose(u), 0, 990, 9, -7);
    double *all = values(u), *some = values(mb_mul(part, 2.0));
    for (int i = 0; i < 63; i++)
        expect(some[i] == 2 * all[i % 7 * 991 + 990 - 7 * (i / 7)], "a view of a draw");
    close_all();
}

Test(random, statistics)
{
    ON_BOTH
    {
        enum { N = 200000 };
        for (int d = 0; d < 2; d++) {
            double *u = draws(ctx, 0, (mb_dtype)d, 3, MB_SHAPE(N)),
                   *g = draws(ctx, 1, (mb_dtype)d, 3, MB_SHAPE(N));
            double sum[2] = {0}, square[2] = {0}, cube = 0, fourth = 0, lag[2] = {0};
            int bins[16] = {0};
            for (int i = 0; i < N; i++) {
                expect(u[i] >= 0 && u[i] < 1 && isfinite(g[i]), "draws out of range: %g %g", u[i], g[i]);
                bins[(int)(u[i] * 16)]++;
                sum[0] += u[i], sum[1] += g[i], square[0] += u[i] * u[i], square[1] += g[i] * g[i];
                cube += g[i] * g[i] * g[i], fourth += g[i] * g[i] * g[i] * g[i];
                if (i)
                    lag[0] += (u[i] - 0.5) * (u[i - 1] - 0.5), lag[1] += g[i] * g[i - 1];
            }
            double chi = 0, root = sqrt(N);
            for (int b = 0; b < 16; b++)
                chi += (bins[b] - N / 16.0) * (bins[b] - N / 16.0) / (N / 16.0);
            expect(chi < 38, "uniform in 16 bins: chi squared %g of 15 degrees", chi); /* p = 0.001 */
            /* each within 5 standard errors */
            expect(fabs(sum[0] / N - 0.5) < 5 * 0.2887 / root &&
                       fabs(square[0] / N - 1.0 / 3) < 5 * 0.298 / root,
                   "uniform moments");
            expect(fabs(sum[1] / N) < 5 / root && fabs(square[1] / N - 1) < 5 * 1.4143 / root,
                   "normal: mean %g variance %g", sum[1] / N, square[1] / N);
            expect(fabs(cube / N) < 5 * 3.873 / root && fabs(fourth / N - 3) < 5 * 9.8 / root,
                   "normal: third and fourth moment");
            expect(fabs(lag[0] / N) < 5 / 12.0 / root && fabs(lag[1] / N) < 5 / root, "neighbours correlate");
        }
    }
}

Test(random, permutations)
{
    ON_BOTH
    {
        enum { ROWS = 3000 };
        double *p = draws(ctx, 2, MB_INT32, 4, MB_SHAPE(ROWS, 4));
        int first[4][4] = {{0}};
        for (int r = 0; r < ROWS; r++) {
            int seen = 0;
            for (int j = 0; j < 4; j++) {
                seen |= 1 << (int)p[r * 4 + j];
                first[j][(int)p[r * 4 + j] & 3]++;
            }
            expect(seen == 15, "row %d is no permutation", r);
        }
        for (int i = 0; i < 16; i++) /* 750 expected, 24 the standard deviation */
            expect(abs(first[i / 4][i % 4] - 750) < 120, "%d of %d at %d", i % 4, first[i / 4][i % 4], i / 4);
        expect(mb_count(mb_permutation(ctx, mb_key_of(1), MB_SHAPE(2, 0))) == 0, "a permutation of nothing");
    }
}

/* The key is bound at run time: another key replays the plan. */
Test(random, a_new_key_makes_no_plan)
{
    mb_context *ctx = open_on("cpu");
    double last = 0;
    uint64_t plans = 0;
    for (int i = 0; i < 5; i++) {
        mb_scope s = mb_scope_begin(ctx);
        double x = mb_item(mb_sum(mb_normal(ctx, mb_key_of((uint64_t)i), MB_FLOAT32, MB_SHAPE(100)), MB_ALL));
        expect(x != last, "key %d was not bound", i);
        last = x;
        mb_scope_end(s);
        if (i == 0)
            plans = mb_get_stats(ctx).plans;
    }
    expect(mb_get_stats(ctx).plans == plans, "%llu plans for one structure",
           (unsigned long long)mb_get_stats(ctx).plans);
    close_all();
}
