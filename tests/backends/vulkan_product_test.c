/* SPDX-License-Identifier: MIT
 * vulkan_product_test.c - every kernel for matrix products, with every way of reading its operands, is tried
 * on the device; and products go right by a plainer kernel where a device gets one of them wrong. */
#include "support.h"

#ifdef MB_HAVE_VULKAN
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
}
#endif
