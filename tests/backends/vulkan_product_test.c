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

static const mb_dtype dtypes[] = {MB_FLOAT32, MB_FLOAT64, MB_FLOAT16, MB_BFLOAT16};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

static bool has(const mb__vk *v, mb_dtype dtype)
{
    return dtype == MB_FLOAT64 ? v->caps.float64 : mb__is_half((int)dtype) ? v->caps.halves : true;
}

static int last_kernel(mb_dtype dtype)
{
    return dtype == MB_FLOAT64 ? VK_TILE64 : VK_TILE128;
}

static const char *const names[] = {"plain", "plain4", "lanes", "tile32", "tile64", "tile128", "sums"};

/* Whether a choice is known to be right, once it was tried. */
static bool trusted(mb__vk *v, const mb__vk_choice *c)
{
    return mb__vk_try_choice(v, c) && *mb__vk_trust(v, c) == VK_TRUSTED;
}

/* Of halves each pattern is tried with a result that is rounded to them, or with one that is not. */
Test(vulkan_product, every_kernel_by_every_pattern, .timeout = 240)
{
    for (int d = 0; d < DTYPES; d++) {
        mb_context *ctx = open_on("vulkan");
        mb__vk *v = device_of(ctx);
        for (int k = VK_LANES; k <= last_kernel(dtypes[d]) && has(v, dtypes[d]); k++)
            for (uint32_t pattern = 0; pattern < 32; pattern++) {
                uint32_t a = pattern & 3, b = pattern >> 2 & 3, fours = pattern >> 4 & 1;
                if (k != VK_LANES && (a == 3 || b == 3))
                    continue;
                if (is_slow() && (a + 2 * b + fours + (uint32_t)(k + d)) % 3) /* each pair of ways in some */
                    continue;
                mb__vk_choice c = {.kernel = k,
                                   .dtype = (uint8_t)dtypes[d],
                                   .rounded = mb__is_half((int)dtypes[d]) && (a + b + (uint32_t)k) % 2,
                                   .fours = fours,
                                   .a_read = a,
                                   .b_read = b};
                expect(trusted(v, &c), "%s, %s, a by %u, b by %u, c by %s: %s", names[k],
                       mb_dtype_name(dtypes[d]), a, b, fours ? "fours" : "ones", v->failure.message);
            }
        close_all();
    }
}

/* m x n x k over a batch, summed over an axis that is no part of k as well. x: [3, 2, m, k]; y: [3, 2, k, n];
 * got: [3, n, m]. */
static void compare(const char *what, const int64_t *size, const double *x, const double *y,
                    const double *got, double limit)
{
    int64_t m = size[0], n = size[1], k = size[2];
    double *want = calloc((size_t)(3 * m * n), sizeof *want);
    for (int64_t i = 0; i < 3 * m * n; i++) {
        int64_t batch = i / (m * n), col = i / m % n, row = i % m;
        for (int64_t s = 0; s < 2; s++)
            for (int64_t l = 0; l < k; l++)
                want[i] += x[((batch * 2 + s) * m + row) * k + l] * y[((batch * 2 + s) * k + l) * n + col];
    }
    double e = nmse(got, want, 3 * m * n);
    expect(e <= limit, "%s, %lldx%lldx%lld: NMSE %g", what, (long long)m, (long long)n, (long long)k, e);
    free(want);
}

static const int64_t some_sizes[][3] = {{1, 1, 1},   {1, 7, 3},     {5, 1, 2000}, {6, 6, 21},
                                        {9, 33, 17}, {40, 8, 64},   {64, 64, 64}, {65, 31, 5},
                                        {8, 200, 1}, {130, 70, 33}, {128, 64, 4}, {16, 96, 100}};
enum { SIZES = sizeof some_sizes / sizeof *some_sizes };

/* Rounding: each of k additions errs by half a unit of the last place at most, so the square of the relative
 * error stays below k eps^2, with eps 6e-8 or 1.1e-16: 1e-11 and 1e-28 for k up to 2000. Halves round the sum
 * once, by 2^-11 or 2^-8 of it at most. */
static double limit_of(mb_dtype dtype)
{
    return dtype == MB_FLOAT64   ? 1e-28
           : dtype == MB_FLOAT32 ? 1e-11
           : dtype == MB_FLOAT16 ? 0x1p-22
                                 : 0x1p-16;
}

static void sizes(mb_context *ctx, mb_dtype dtype)
{
    for (size_t i = 0; i < SIZES; i++) {
        int64_t m = some_sizes[i][0], n = some_sizes[i][1], k = some_sizes[i][2];
        rng r = {(uint64_t)(m * 100 + n * 10 + k)};
        mb_tensor a = draw(ctx, &r, dtype, MB_SHAPE(3, 2, m, k), -1, 1),
                  b = draw(ctx, &r, dtype, MB_SHAPE(3, 2, k, n), -1, 1);
        double *x = values(a), *y = values(b), *got = values(mb_einsum("brmk,brkn->bnm", a, b));
        compare("as decided", some_sizes[i], x, y, got, limit_of(dtype));
    }
}

Test(vulkan_product, many_sizes, .timeout = 120)
{
    mb_context *ctx = open_on("vulkan");
    for (int d = 0; d < DTYPES; d++)
        if (has(device_of(ctx), dtypes[d]))
            sizes(ctx, dtypes[d]);
    close_all();
}

/* The same product by one kernel, whatever the size. */
static double number_at(const void *data, mb_dtype dtype, int64_t i)
{
    return dtype == MB_FLOAT64   ? ((const double *)data)[i]
           : dtype == MB_FLOAT32 ? (double)((const float *)data)[i]
                                 : (double)mb__from_half((int)dtype, ((const uint16_t *)data)[i]);
}

static void by_kernel(mb__vk *v, mb_dtype dtype, int kernel, const int64_t *size)
{
    int64_t m = size[0], n = size[1], k = size[2], count[3] = {6 * m * k, 6 * k * n, 3 * m * n};
    mb__product p = {.a.value = 0,
                     .b.value = 1,
                     .c.value = 2,
                     .m = m,
                     .n = n,
                     .k = k,
                     .a_m = k,
                     .a_k = 1,
                     .b_k = n,
                     .b_n = 1,
                     .c_m = 1,
                     .c_n = m,
                     .loops = 2,
                     .loop = {3, 2},
                     .a_loop = {2 * m * k, m * k},
                     .b_loop = {2 * k * n, k * n},
                     .c_loop = {m * n, 0}};
    rng r = {(uint64_t)(m * 100 + n * 10 + k)};
    void *memory[3];
    double *wide_of[3];
    for (int i = 0; i < 3; i++) {
        memory[i] = calloc((size_t)count[i], sizeof(double));
        wide_of[i] = calloc((size_t)count[i], sizeof(double));
        for (int64_t j = 0; i < 2 && j < count[i]; j++) {
            double x = rng_between(&r, -1, 1);
            if (dtype == MB_FLOAT64)
                ((double *)memory[i])[j] = x;
            else if (dtype == MB_FLOAT32)
                ((float *)memory[i])[j] = (float)x;
            else
                ((uint16_t *)memory[i])[j] = mb__to_half((int)dtype, x);
            wide_of[i][j] = number_at(memory[i], dtype, j);
        }
    }
    mb__vk_choice c = mb__vk_product_by(v, &p, (int)dtype, kernel);
    expect(c.kernel == kernel && mb__vk_product_run(v, &p, &c, count, memory[0], memory[1], memory[2]),
           "%s: %s", names[kernel], v->failure.message);
    for (int64_t j = 0; j < count[2]; j++)
        wide_of[2][j] = number_at(memory[2], mb__is_half((int)dtype) && !c.rounded ? MB_FLOAT32 : dtype, j);
    compare(names[kernel], size, wide_of[0], wide_of[1], wide_of[2], limit_of(dtype));
    for (int i = 0; i < 3; i++) {
        free(memory[i]);
        free(wide_of[i]);
    }
}

Test(vulkan_product, many_sizes_by_each_kernel, .timeout = 240)
{
    for (int d = 0; d < DTYPES; d++) {
        mb_context *ctx = open_on("vulkan");
        mb__vk *v = device_of(ctx);
        for (int k = VK_PLAIN; k <= last_kernel(dtypes[d]) && has(v, dtypes[d]); k++)
            for (size_t i = 0; i < SIZES; i++)
                by_kernel(v, dtypes[d], k, some_sizes[i]);
        close_all();
    }
}

/* As sums of products, which are cut into pieces where a GPU has few of them, and long ones. */
Test(vulkan_product, many_sizes_as_sums, .timeout = 240)
{
    static const char *const quirks[] = {"0", "16"}; /* 16: work is spread as on a GPU */
    static const int64_t long_one[3] = {1, 2, 70000};
    for (int q = 0; q < 2; q++) {
        setenv("MB_VULKAN_QUIRKS", quirks[q], 1);
        mb_context *ctx = open_on("vulkan");
        mb__vk *v = device_of(ctx);
        for (int d = 0; d < DTYPES; d++) {
            for (size_t i = 0; i < SIZES && has(v, dtypes[d]); i += 3)
                by_kernel(v, dtypes[d], VK_AS_SUMS, some_sizes[i]);
            if (has(v, dtypes[d]))
                by_kernel(v, dtypes[d], VK_AS_SUMS, long_one);
        }
        close_all();
    }
}

/* What is decided changes by what is known alone: a kernel found wrong is given up for the plainest, for the
 * way of reading that it is wrong in. */
Test(vulkan_product, decisions_are_pure)
{
    mb_context *ctx = open_on("vulkan");
    mb__vk *v = device_of(ctx);
    mb__product p = {
        .m = 64, .n = 64, .k = 64, .a_m = 64, .a_k = 1, .b_k = 64, .b_n = 1, .c_m = 64, .c_n = 1};
    mb__vk_choice first = mb__vk_product_decide(v, &p, MB_FLOAT32),
                  again = mb__vk_product_decide(v, &p, MB_FLOAT32);
    expect(!memcmp(&first, &again, sizeof first) && !mb__vk_is_plain(&first), "%d, then %d", first.kernel,
           again.kernel);
    expect(*mb__vk_trust(v, &first) == VK_UNTRIED && mb_get_stats(ctx).pipelines == 0,
           "deciding tries nothing");
    *mb__vk_trust(v, &first) = VK_WRONG;
    expect(mb__vk_product_decide(v, &p, MB_FLOAT32).kernel == VK_PLAIN, "taken though wrong");
    p.b.offset = 1; /* no longer by fours */
    expect(mb__vk_product_decide(v, &p, MB_FLOAT32).kernel == first.kernel,
           "given up for another pattern, too");
    close_all();
}

Test(vulkan_product, a_wrong_kernel_is_replaced, .timeout = 120)
{
    setenv("MB_VULKAN_QUIRKS", "4", 1); /* every trial fails */
    mb_context *ctx = open_on("vulkan");
    expect(!trusted(device_of(ctx), &(mb__vk_choice){.kernel = VK_LANES}), "trusted all the same");
    sizes(ctx, false);
    close_all();
    setenv("MB_VULKAN_QUIRKS", "48", 1); /* as on a GPU, whose driver takes no kernel with tiles */
    ctx = open_on("vulkan");
    expect(!trusted(device_of(ctx), &(mb__vk_choice){.kernel = VK_TILE32}), "trusted without a pipeline");
    expect(mb_error(ctx) == MB_OK && device_of(ctx)->failure.status == MB_OK, "%s", mb_message(ctx));
    sizes(ctx, false);
    close_all();
}

/* A trial that any call makes fail for want of memory says nothing of the kernel, and can be made again. But
 * of a pipeline, drivers mean by that that they cannot. */
Test(vulkan_product, a_trial_without_memory_is_no_answer, .timeout = 120)
{
    int failed = 0, refused = 0;
    mb_context *ctx = open_on("vulkan");
    mb__vk *v = device_of(ctx);
    mb__vk_choice c = {.kernel = VK_LANES};
    for (uint64_t call = 1; call < 40; call++) {
        *mb__vk_trust(v, &c) = VK_UNTRIED;
        c.a_read = (uint32_t)(call / 4 % 3); /* pipelines that are not there yet, now and then */
        *mb__vk_trust(v, &c) = VK_UNTRIED;
        v->fail_with = VK_ERROR_OUT_OF_DEVICE_MEMORY;
        v->fail_at = v->calls + call % 12 + 1;
        if (mb__vk_try_choice(v, &c)) {
            refused += *mb__vk_trust(v, &c) == VK_WRONG;
            continue;
        }
        failed++;
        expect(*mb__vk_trust(v, &c) == VK_UNTRIED && v->failure.status == MB_NO_MEMORY, "call %d: %s",
               (int)call, v->failure.message);
        v->failure.status = MB_OK;
        expect(trusted(v, &c), "call %d: not tried again: %s", (int)call, v->failure.message);
    }
    v->fail_at = 0;
    expect(failed > 10 && refused > 0 && refused < 8, "%d trials failed, %d kernels were refused", failed,
           refused);
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
            setenv("MB_VULKAN_BATCH", cut ? "100000" : "1e12", 1);
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
