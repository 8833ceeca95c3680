/* SPDX-License-Identifier: MIT
 * backend.c - the vulkan backend as the engine sees it: opening and closing it, and its functions. */
#include "backends/vulkan/vulkan.h"

static mb_status open_vulkan(mb_context *ctx, const char *device, int threads, unsigned passes, void **state)
{
    (void)threads;
    mb__vk *v = *state = mb__alloc(ctx, sizeof *v);
    if (!v)
        return ctx->status;
    v->ctx = ctx;
    v->forced_product = -1;
    v->guard = passes & MB_PASS_GUARD;
    if (mb__vk_device_open(v, device) != MB_OK || !mb__vk_pipelines_start(v) || !mb__vk_memory_start(v))
        return ctx->status;
    mb__vk_heard(v);
    return ctx->status;
}

static void close_vulkan(mb_context *ctx, void *state)
{
    mb__vk *v = state;
    if (v->device)
        mb__vk_settle(v);
    if (v->device) {
        mb__vk_memory_end(v);
        mb__vk_pipelines_end(v);
    }
    mb__vk_library_free(v);
    mb__vk_device_close(v);
    mb__free(ctx, v, sizeof *v);
}

const mb__backend mb__backend_vulkan = {
    .version = MB_BACKEND_VERSION,
    .name = "vulkan",
    .fuses = true,
    .strided = true,
    .open = open_vulkan,
    .close = close_vulkan,
    .element_size = mb__vk_element_size,
    .memory_new = mb__vk_memory_new,
    .memory_free = mb__vk_memory_free,
    .upload = mb__vk_upload,
    .download = mb__vk_download,
    .compile = mb__vk_compile,
    .discard = mb__vk_discard,
    .run = mb__vk_run,
};
