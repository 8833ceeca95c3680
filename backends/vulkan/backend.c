/* SPDX-License-Identifier: MIT
 *
 * backend.c - the interface of the vulkan backend. Its other files store failures; here, at the end of each
 * call, they are reported to the host.
 */
#include "backends/vulkan/vulkan.h"

/* The status of a call. A failure without a stored message is lack of memory. */
static mb_status tell(mb__vk *v, bool ok)
{
    if (v->failure.status == MB_OK && v->messages)
        ok = !mb__vk_heard(v) && ok;
    mb_status status = v->failure.status;
    v->failure.status = MB_OK;
    if (ok && status == MB_OK)
        return MB_OK;
    if (status == MB_OK || status == MB_NO_MEMORY)
        return MB_NO_MEMORY;
    return v->host->error(v->host->user, status, v->failure.site, "%s", v->failure.message);
}

static void close_vulkan(void *state)
{
    mb__vk *v = state;
    if (v->device) {
        mb__vk_settle(v);
        mb__vk_memory_end(v);
        mb__vk_pipelines_end(v);
    }
    mb__vk_library_free(v);
    mb__vk_device_close(v);
    mb__host_free(v->host, v, sizeof *v);
}

static mb_status open_vulkan(const mb__host *host, const mb__open_options *options, void **state,
                             mb__limits *limits)
{
    mb__vk *v = mb__host_alloc(host, sizeof *v);
    *state = NULL;
    if (!v)
        return MB_NO_MEMORY;
    v->host = host;
    v->guard = options->guard;
    bool ok = mb__vk_device_open(v, options->device) && mb__vk_pipelines_start(v) && mb__vk_memory_start(v);
    mb_status status = tell(v, ok);
    if (status != MB_OK) {
        close_vulkan(v);
        return status;
    }
    *limits = (mb__limits){.buffer_bytes = v->caps.block_bytes - (v->guard ? MB_GUARD_BYTES : 0)};
    *state = v;
    return MB_OK;
}

static mb_status memory_new(void *state, size_t bytes, void **memory)
{
    mb__vk_memory *place = mb__vk_memory_new(state, bytes);
    mb_status status = tell(state, place != NULL);
    if (status != MB_OK && place)
        mb__vk_memory_free(state, place);
    *memory = status == MB_OK ? place : NULL;
    return status;
}

static void memory_free(void *state, void *memory, size_t bytes)
{
    (void)bytes;
    mb__vk_memory_free(state, memory);
}

static mb_status upload(void *state, void *memory, mb_dtype dtype, int64_t count, const void *from)
{
    return tell(state, mb__vk_upload(state, memory, dtype, count, from));
}

static mb_status download(void *state, void *memory, mb_dtype dtype, int64_t count, void *to)
{
    return tell(state, mb__vk_download(state, memory, dtype, count, to));
}

static mb_status compile(void *state, const mb__plan *plan, void **program, size_t *bytes)
{
    mb__vk_program *p = mb__vk_compile(state, plan);
    mb_status status = tell(state, p != NULL);
    if (status != MB_OK) {
        mb__vk_discard(p);
        return status;
    }
    *program = p;
    *bytes = mb__vk_program_bytes(p);
    return MB_OK;
}

static void discard(void *state, void *program)
{
    (void)state;
    mb__vk_discard(program);
}

static mb_status run(void *state, void *program, const mb__binding *binding)
{
    return tell(state, mb__vk_run(program, binding));
}

static mb_status foresee(void *state, const size_t *bytes, int count, void *freed, uint64_t *more)
{
    return mb__vk_memory_foresee(state, bytes, count, freed, more) ? MB_OK : MB_NO_MEMORY;
}

const mb__backend mb__backend_vulkan = {
    .version = MB_BACKEND_VERSION,
    .name = "vulkan",
    .fuses = true,
    .strided = true,
    .loops = true,
    .list = mb__vk_list,
    .open = open_vulkan,
    .close = close_vulkan,
    .element_size = mb__vk_element_size,
    .memory_new = memory_new,
    .memory_free = memory_free,
    .upload = upload,
    .download = download,
    .compile = compile,
    .discard = discard,
    .run = run,
    .foresee = foresee,
};
