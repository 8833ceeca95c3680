/* SPDX-License-Identifier: MIT
 * vulkan_half_test.c - halves in a device's memory: two bytes each, at any place, where the device has them.
 */
#include "training.h"

#ifdef MB_HAVE_VULKAN
#include "backends/engine/state.h"
#include "backends/vulkan/vulkan.h"

static mb__vk *device_of(mb_context *ctx)
{
    return ((mb__engine_state *)ctx->engine_state)->backend_state;
}

Test(vulkan_half, without_halves_the_rest_works)
{
    setenv("MB_VULKAN_QUIRKS", "64", 1);
    training t;
    training_start(&t, open_on("vulkan"));
    expect(!device_of(t.ctx)->caps.halves && training_step(&t, 0, 0.1), "%s", mb_message(t.ctx));
    for (int kind = 0; kind < 2; kind++) {
        mb_context *ctx = open_on("vulkan");
        mb_tensor x = mb_uniform(ctx, mb_key_of(1), MB_FLOAT32, MB_SHAPE(2));
        x = kind ? mb_cast(x, MB_BFLOAT16) : mb_cast(mb_exp(mb_cast(x, MB_FLOAT16)), MB_FLOAT32);
        expect(mb_eval(&x, 1) == MB_BACKEND && strstr(mb_message(ctx), "no 16 bits"), "kind %d: %s", kind,
               mb_message(ctx));
        close_failed(ctx);
    }
    close_all();
}

/* Some of a value's halves are written, by the host and on the device: the others stay as they are. */
Test(vulkan_half, halves_leave_their_neighbours)
{
    enum { N = 12 };
    for (int staging = 0; staging < 2; staging++) {
        setenv("MB_VULKAN_STAGING", staging ? "1" : "0", 1);
        mb_context *ctx = open_on("vulkan");
        mb__vk *v = device_of(ctx);
        mb__vk_memory *a = mb__vk_memory_new(v, N * 2), *b = mb__vk_memory_new(v, N * 2);
        cr_assert(a && b);
        for (int first = 0; first < N; first++)
            for (int count = 1; first + count <= N; count++)
                for (int copied = 0; copied < 2; copied++) {
                    uint16_t old[N], new[N], got[N];
                    for (int i = 0; i < N; i++) {
                        old[i] = (uint16_t)(100 + i);
                        new[i] = (uint16_t)(200 + i);
                    }
                    mb__vk_memory from = *b, to = *a;
                    to.offset += 2 * (uint64_t)first;
                    bool ok = mb__vk_upload(v, a, MB_BFLOAT16, N, old) &&
                              mb__vk_upload(v, b, MB_BFLOAT16, N, new) &&
                              (copied ? mb__vk_copy(v, &from, &to, MB_BFLOAT16, count)
                                      : mb__vk_upload(v, &to, MB_BFLOAT16, count, new)) &&
                              mb__vk_download(v, a, MB_BFLOAT16, N, got);
                    for (int i = 0; i < N && ok; i++)
                        ok = got[i] == (i >= first && i < first + count ? new[i - first] : old[i]);
                    expect(ok, "%d from %d on, %s%s", count, first, copied ? "copied" : "written",
                           staging ? ", by staging" : "");
                }
        mb__vk_memory_free(v, a);
        mb__vk_memory_free(v, b);
        close_all();
    }
}

/* What a chain of products holds for its gradient, in halves and in float32. */
static int64_t held_for_gradient(mb_dtype dtype)
{
    enum { N = 256, DEPTH = 12 };
    mb_context *ctx = open_on("vulkan");
    mb_tensor x = mb_cast(mb_uniform(ctx, mb_key_of(1), MB_FLOAT32, MB_SHAPE(N, N)), dtype),
              w = mb_cast(mb_uniform(ctx, mb_key_of(2), MB_FLOAT32, MB_SHAPE(N, N)), dtype), y = x, g;
    for (int i = 0; i < DEPTH; i++)
        y = mb_tanh(mb_matmul(y, w));
    mb_grad(mb_sum(mb_cast(y, MB_FLOAT32), MB_ALL), &w, 1, &g);
    expect(mb_eval(&g, 1) == MB_OK, "%s", mb_message(ctx));
    int64_t bytes = (int64_t)mb_get_stats(ctx).last_arena_bytes;
    close_all();
    return bytes;
}

/* Float32 is kept for nothing but the last sum. */
Test(vulkan_half, halves_take_half_the_memory)
{
    int64_t whole = held_for_gradient(MB_FLOAT32), half = held_for_gradient(MB_BFLOAT16);
    expect(half <= 0.6 * (double)whole, "%lld bytes, not half of %lld", (long long)half, (long long)whole);
}
#endif
