/* SPDX-License-Identifier: MIT
 *
 * device.c - what a Vulkan device does with the kernels of this library: matrix products beside nothing but
 * multiply-adds, elementwise kernels beside a copy, many small dispatches, a nested inner loop.
 *
 *     device [--backend vulkan] [--small]
 *
 * Prints a line of JSON for each figure: what, shape, milliseconds (the least of several runs, the wait for
 * the device included), the figure and its unit, and its share of what the device was seen to do at most. On
 * a processor, or with --small, the sizes are those that take a second or two there. device_compare sets
 * PyTorch's figures beside them where there is a PyTorch with CUDA. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/engine/state.h"
#include "backends/vulkan/vulkan.h"
#include <moebius.h>

extern const mb__vk_shader bench_shaders[];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static mb_context *mb;

static void row(const char *what, const char *shape, double seconds, double figure, const char *unit,
                double share)
{
    if (mb_error(mb) != MB_OK) {
        fprintf(stderr, "device: %s\n", mb_message(mb));
        exit(1);
    }
    printf("{\"what\": \"%s\", \"shape\": \"%s\", \"ms\": %.4f, \"figure\": %.3f, \"unit\": \"%s\"", what,
           shape, 1e3 * seconds, figure, unit);
    if (share > 0)
        printf(", \"share\": %.3f", share);
    printf("}\n");
    fflush(stdout);
}

/* ---- what the device can do at most ---- */

/* The multiply-add kernel, recorded by hand: a dispatch whose table region is value, count. FLOP/s. */
static double most_flops(mb__vk *v, uint32_t groups, uint32_t count)
{
    const mb__vk_shader *s = &bench_shaders[0];
    uint32_t local = v->caps.processor ? 32 : 128;
    mb__vk_pipeline *pipeline = mb__vk_pipeline_for(v, s->words, (uint32_t)(s->bytes / 4), local, 0, 0);
    mb__vk_memory *out = mb__vk_memory_new(v, (uint64_t)groups * local * 4);
    uint64_t region;
    VkCommandBuffer cb;
    VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                        .commandPool = v->command_pool,
                                        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                        .commandBufferCount = 1};
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    if (!pipeline || !out || !mb__vk_table_new(v, 64, &region) ||
        !VK(v, v->f.vkAllocateCommandBuffers(v->device, &info, &cb)) ||
        !VK(v, v->f.vkBeginCommandBuffer(cb, &begin)))
        return 0;
    uint32_t *words = mb__vk_table_at(v, region), push[2] = {(uint32_t)(region / 4), 0};
    words[0] = out->block;
    words[1] = (uint32_t)(out->offset / 4);
    words[2] = count;
    mb__vk_table_copy(v, cb, region, 64);
    mb__vk_barrier(v, cb);
    v->f.vkCmdBindDescriptorSets(cb, VK_PIPELINE_BIND_POINT_COMPUTE, v->pipeline_layout, 0, 1, &v->set, 0,
                                 NULL);
    v->f.vkCmdBindPipeline(cb, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline->pipeline);
    v->f.vkCmdPushConstants(cb, v->pipeline_layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof push, push);
    v->f.vkCmdDispatch(cb, groups, 1, 1);
    double best = 1e9;
    bool ok = VK(v, v->f.vkEndCommandBuffer(cb));
    for (int i = 0; i < 5 && ok; i++) {
        double start = now();
        ok = mb__vk_submit(v, &cb, 1, true) && mb__vk_idle(v);
        best = fmin(best, now() - start);
    }
    v->f.vkFreeCommandBuffers(v->device, v->command_pool, 1, &cb);
    mb__vk_table_free(v, region, 64);
    mb__vk_memory_free(v, out);
    return 2.0 * 32 * count * groups * local / best;
}

/* ---- figures ---- */

/* Waits for what was computed. */
static void settle(mb_tensor t)
{
    mb_eval(&t, 1);
    mb__vk_idle(((mb__engine_state *)mb->engine_state)->backend_state);
}

static void product(int64_t batch, int64_t size, mb_dtype dtype, double most)
{
    char shape[64];
    snprintf(shape, sizeof shape, "%lld x %lldx%lldx%lld %s", (long long)batch, (long long)size,
             (long long)size, (long long)size, mb_dtype_name(dtype));
    mb_scope outer = mb_scope_begin(mb);
    mb_tensor a = mb_normal(mb, mb_key_of(1), dtype, MB_SHAPE(batch, size, size)),
              b = mb_normal(mb, mb_key_of(2), dtype, MB_SHAPE(batch, size, size));
    mb_eval((mb_tensor[]){a, b}, 2);
    double best = 1e9, flops = 2.0 * (double)batch * pow((double)size, 3);
    for (int i = 0; i < 6; i++) {
        mb_scope s = mb_scope_begin(mb);
        double start = now();
        settle(mb_matmul(a, b));
        best = fmin(best, now() - start);
        mb_scope_end(s);
    }
    mb_scope_end(outer);
    row("product", shape, best, 1e-9 * flops / best, "GFLOP/s",
        dtype == MB_FLOAT32 ? flops / best / most : 0);
}

/* Bytes a second that a kernel reads and writes; ops: 0 for a copy. */
static double elementwise(int64_t count, int ops, double most)
{
    char shape[64];
    snprintf(shape, sizeof shape, "%lld", (long long)count);
    mb_scope outer = mb_scope_begin(mb);
    mb_tensor x = mb_normal(mb, mb_key_of(1), MB_FLOAT32, MB_SHAPE(count)),
              y = mb_normal(mb, mb_key_of(2), MB_FLOAT32, MB_SHAPE(count));
    mb_eval((mb_tensor[]){x, y}, 2);
    double best = 1e9, bytes = 4.0 * (double)count * (ops ? 3 : 2);
    for (int i = 0; i < 6; i++) {
        mb_scope s = mb_scope_begin(mb);
        double start = now();
        settle(ops ? mb_add(mb_mul(x, y), mb_mul(x, 0.5)) : mb_neg(x));
        best = fmin(best, now() - start);
        mb_scope_end(s);
    }
    mb_scope_end(outer);
    row(ops ? "x y + x / 2" : "-x", shape, best, 1e-9 * bytes / best, "GB/s",
        most > 0 ? bytes / best / most : 0);
    return bytes / best;
}

/* Steps that fusion would make one, kept apart: each waits for the one before. */
static void dispatches(int count, const char *backend)
{
    mb_context *whole = mb;
    mb = mb_open_with(
        &(mb_options){.size = sizeof(mb_options), .backend = backend, .disable = "fuse,sink,simplify,merge"});
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        mb_scope s = mb_scope_begin(mb);
        mb_tensor x = mb_uniform(mb, mb_key_of(1), MB_FLOAT32, MB_SHAPE(64));
        for (int j = 0; j < count; j++)
            x = mb_add(x, 0.001);
        double start = now();
        settle(x);
        best = fmin(best, now() - start);
        mb_scope_end(s);
    }
    char shape[32];
    snprintf(shape, sizeof shape, "%d of 64", count);
    row("dispatches", shape, best, 1e6 * best / count, "us each", 0);
    mb_close(mb);
    mb = whole;
}

/* Gradient descent on w, `steps` times, and the gradient of what comes out by where it started: all replayed.
 */
static void inner_loop(int steps, int64_t tasks)
{
    mb_scope outer = mb_scope_begin(mb);
    mb_tensor x = mb_normal(mb, mb_key_of(1), MB_FLOAT32, MB_SHAPE(tasks, 8, 8)),
              y = mb_normal(mb, mb_key_of(2), MB_FLOAT32, MB_SHAPE(tasks, 8, 1)),
              w0 = mb_normal(mb, mb_key_of(3), MB_FLOAT32, MB_SHAPE(tasks, 8, 1));
    mb_eval((mb_tensor[]){x, y, w0}, 3);
    double best = 1e9;
    for (int i = 0; i < 4; i++) {
        mb_scope s = mb_scope_begin(mb);
        double start = now();
        mb_tensor w = w0, g;
        for (int t = 0; t < steps; t++) {
            mb_grad(mb_sum(mb_square(mb_sub(mb_tanh(mb_matmul(x, w)), y)), MB_AXES(1, 2)), &w, 1, &g);
            w = mb_sub(w, mb_mul(g, 0.01));
        }
        mb_grad(mb_sum(mb_square(w), MB_ALL), &w0, 1, &g);
        settle(g);
        best = fmin(best, now() - start);
        mb_scope_end(s);
    }
    mb_scope_end(outer);
    char shape[64];
    snprintf(shape, sizeof shape, "%d inner steps, %lld tasks of 8x8", steps, (long long)tasks);
    row("inner loop", shape, best, 1e6 * best / steps, "us an inner step", 0);
}

int main(int argc, char **argv)
{
    const char *backend = "vulkan";
    bool small = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--backend") && i + 1 < argc)
            backend = argv[++i];
        else if (!strcmp(argv[i], "--small"))
            small = true;
        else {
            fprintf(stderr, "usage: device [--backend vulkan:1] [--small]\n");
            return 2;
        }
    }
    mb = mb_open(backend);
    if (mb_error(mb) != MB_OK || strcmp(mb_backend_name(mb), "vulkan") != 0) {
        fprintf(stderr, "device: %s\n", mb_error(mb) != MB_OK ? mb_message(mb) : "not a vulkan backend");
        return 1;
    }
    mb__vk *v = ((mb__engine_state *)mb->engine_state)->backend_state;
    small |= v->caps.processor;
    printf("{\"device\": \"%s\", \"float64\": %s, \"host sees its memory\": %s}\n", v->props.deviceName,
           v->caps.float64 ? "true" : "false", v->caps.staging ? "false" : "true");
    double most = most_flops(v, small ? 64 : 8192, small ? 2000 : 20000);
    row("multiply-adds", "in registers", 0, 1e-9 * most, "GFLOP/s", 0);
    const int64_t *sizes = small ? (const int64_t[]){128, 256, 512} : (const int64_t[]){512, 1024, 4096};
    for (int i = 0; i < 3; i++)
        product(1, sizes[i], MB_FLOAT32, most);
    product(small ? 64 : 512, 64, MB_FLOAT32, most);
    if (v->caps.float64)
        product(1, sizes[1], MB_FLOAT64, most);
    int64_t count = small ? 1 << 20 : 1 << 26;
    double copy = elementwise(count, 0, 0);
    elementwise(count, 1, copy);
    dispatches(10000, backend);
    inner_loop(small ? 100 : 1000, small ? 16 : 256);
    return mb_close(mb) != MB_OK;
}
