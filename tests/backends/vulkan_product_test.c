/* SPDX-License-Identifier: MIT
 * vulkan_product_test.c - every kernel for matrix products, with every way of reading its operands, is tried
 * on the device; and products go right by a plainer kernel where a device gets one of them wrong. */
#include "support.h"

#ifdef MB_HAVE_VULKAN
#include "backends/engine/state.h"
#include "backends/vulkan/vulkan.h"

static mb__vk *device_of(mb_context *ctx)
{
    return ((mb__engine_state *)ctx->engine_state)->backend_state;
}

/* The kernels' tiles, as product.c has them. */
static const struct {
    const char *name;
    uint32_t m, n;
} kernels[] = {{"plain", 1, 1},    {"plain4", 4, 4},   {"lanes", 16, 32},
               {"tile32", 32, 32}, {"tile64", 64, 64}, {"tile128", 128, 128}};

Test(vulkan_product, every_kernel_by_every_pattern, .timeout = 120)
{
    for (int wide = 0; wide < 2; wide++) {
        mb_context *ctx = open_on("vulkan");
        mb__vk *v = device_of(ctx);
        for (int k = 2; k < (wide ? 5 : 6); k++)
            for (uint32_t pattern = 0; pattern < 32; pattern++) {
                uint32_t a = pattern & 3, b = pattern >> 2 & 3;
                bool lanes = k == 2, fours = pattern >> 4 & 1;
                if ((!lanes && (a == 3 || b == 3)) || (wide && !v->caps.float64))
                    continue;
                expect(mb__vk_product_trusted(v, k, wide, kernels[k].m, kernels[k].n, a, b, fours),
                       "%s, float%d, a by %u, b by %u, c by %s: %s", kernels[k].name, wide ? 64 : 32, a, b,
                       fours ? "fours" : "ones", mb_message(ctx));
            }
        close_all();
    }
}

/* m x n x k over a batch, summed over an axis that is no part of k as well. */
static void compare(mb_context *ctx, mb_dtype dtype, int64_t m, int64_t n, int64_t k, double limit)
{
    rng r = {(uint64_t)(m * 100 + n * 10 + k)};
    mb_tensor a = draw(ctx, &r, dtype, MB_SHAPE(3, 2, m, k), -1, 1),
              b = draw(ctx, &r, dtype, MB_SHAPE(3, 2, k, n), -1, 1);
    double *x = values(a), *y = values(b);
    double *got = values(mb_einsum("brmk,brkn->bnm", a, b)),
           *want = calloc((size_t)(3 * m * n), sizeof *want);
    for (int64_t i = 0; i < 3 * m * n; i++) {
        int64_t batch = i / (m * n), col = i / m % n, row = i % m;
        for (int64_t s = 0; s < 2; s++)
            for (int64_t l = 0; l < k; l++)
                want[i] += x[((batch * 2 + s) * m + row) * k + l] * y[((batch * 2 + s) * k + l) * n + col];
    }
    double e = nmse(got, want, 3 * m * n);
    expect(e <= limit, "%lldx%lldx%lld: NMSE %g", (long long)m, (long long)n, (long long)k, e);
    free(want);
}

/* Rounding: each of k additions errs by half a unit of the last place at most, so the square of the relative
 * error stays below k eps^2, with eps 6e-8 or 1.1e-16: 1e-11 and 1e-28 for k up to 2000. */
static void sizes(mb_context *ctx, bool wide)
{
    static const int64_t size[][3] = {{1, 1, 1},   {1, 7, 3},     {5, 1, 2000}, {6, 6, 21},
                                      {9, 33, 17}, {40, 8, 64},   {64, 64, 64}, {65, 31, 5},
                                      {8, 200, 1}, {130, 70, 33}, {128, 64, 4}, {16, 96, 100}};
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        compare(ctx, wide ? MB_FLOAT64 : MB_FLOAT32, size[i][0], size[i][1], size[i][2],
                wide ? 1e-28 : 1e-11);
}

Test(vulkan_product, many_sizes, .timeout = 120)
{
    mb_context *ctx = open_on("vulkan");
    sizes(ctx, false);
    if (device_of(ctx)->caps.float64)
        sizes(ctx, true);
    close_all();
}

/* Each kernel in turn is made the one that is used, whatever the size. */
Test(vulkan_product, many_sizes_by_each_kernel, .timeout = 240)
{
    for (int k = 0; k < 6; k++) {
        mb_context *ctx = open_on("vulkan");
        device_of(ctx)->forced_product = k;
        sizes(ctx, false);
        close_all();
    }
}

Test(vulkan_product, a_wrong_kernel_is_replaced, .timeout = 120)
{
    setenv("MB_VULKAN_QUIRKS", "4", 1); /* every trial fails */
    mb_context *ctx = open_on("vulkan");
    expect(!mb__vk_product_trusted(device_of(ctx), 2, false, 16, 32, 0, 0, false), "trusted all the same");
    sizes(ctx, false);
    close_all();
    setenv("MB_VULKAN_QUIRKS", "48", 1); /* as on a GPU, whose driver takes no kernel with tiles */
    ctx = open_on("vulkan");
    expect(!mb__vk_product_trusted(device_of(ctx), 3, false, 32, 32, 0, 0, false),
           "trusted without a pipeline");
    expect(mb_error(ctx) == MB_OK, "%s", mb_message(ctx));
    sizes(ctx, false);
    close_all();
}

/* A product that would run for long is cut along the loop it is repeated over, rows or columns: whole
 * numbers, so every sum is exact, whichever way it is made. */
Test(vulkan_product, long_ones_are_cut, .timeout = 120)
{
    static const int64_t shapes[][4] = {
        {1, 700, 40, 30}, {1, 40, 700, 30}, {5, 300, 90, 16}, {7, 33, 20, 600}};
    setenv("MB_VULKAN_QUIRKS", "16", 1);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int64_t batch = shapes[i][0], m = shapes[i][1], n = shapes[i][2], k = shapes[i][3];
        uint64_t dispatches[2];
        for (int cut = 0; cut < 2; cut++) {
            setenv("MB_VULKAN_SLICE", cut ? "100000" : "1e12", 1);
            mb_context *ctx = open_on("vulkan");
            rng r = {5};
            mb_tensor a = draw(ctx, &r, MB_INT32, MB_SHAPE(batch, m, k), -8, 8),
                      b = draw(ctx, &r, MB_INT32, MB_SHAPE(batch, n, k), -8, 8);
            double *x = values(a), *y = values(b),
                   *got = values(mb_matmul(mb_cast(a, MB_FLOAT32), mb_transpose(mb_cast(b, MB_FLOAT32))));
            dispatches[cut] = mb_get_stats(ctx).last_dispatches;
            bool same = true;
            for (int64_t l = 0; l < batch; l++)
                for (int64_t row = 0; row < m; row++)
                    for (int64_t column = 0; column < n; column++) {
                        double sum = 0;
                        for (int64_t j = 0; j < k; j++)
                            sum += x[(l * m + row) * k + j] * y[(l * n + column) * k + j];
                        same &= got[(l * m + row) * n + column] == sum;
                    }
            expect(same, "a product of shape %zu, %s", i, cut ? "cut" : "whole");
            close_all();
        }
        expect(dispatches[1] >= dispatches[0] + 2, "shape %zu: %llu dispatches, and %llu when cut", i,
               (unsigned long long)dispatches[0], (unsigned long long)dispatches[1]);
    }
}
#endif
