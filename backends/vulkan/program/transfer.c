/* SPDX-License-Identifier: MIT
 *
 * transfer.c - values to the device and back. There bools and bytes have a word each: 0 or 1, a number. If
 * the host cannot access the blocks (a discrete GPU without a large BAR), or only by slow uncached reads,
 * transfers go through a host-visible block, by a copy kernel whose commands are recorded once.
 */
#include "backends/vulkan/program/program.h"

static bool record_transfer(mb__vk *v)
{
    const mb__vk_shader *s = mb__vk_shader_named("copy");
    mb__vk_pipeline *pipeline =
        mb__vk_pipeline_for(v, s->words, (uint32_t)(s->bytes / 4), v->caps.processor ? 32 : 128, 0, 0);
    if (!pipeline)
        return false;
    if (!v->copying)
        mb__vk_pipeline_use(v, v->copying = pipeline);
    if (!v->transfer) {
        VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                            .commandPool = v->command_pool,
                                            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                            .commandBufferCount = 1};
        if (!VK(v, v->f.vkAllocateCommandBuffers(v->device, &info, &v->transfer))) {
            v->transfer = VK_NULL_HANDLE;
            return false;
        }
    }
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    if (!VK(v, v->f.vkBeginCommandBuffer(v->transfer, &begin)))
        return false;
    uint32_t push[2] = {(uint32_t)(v->transfer_region / 4), 0};
    mb__vk_barrier(v, v->transfer);
    mb__vk_table_copy(v, v->transfer, v->transfer_region, VK_REGION_WORDS * sizeof(uint32_t));
    mb__vk_barrier(v, v->transfer);
    v->f.vkCmdBindDescriptorSets(v->transfer, VK_PIPELINE_BIND_POINT_COMPUTE, v->pipeline_layout, 0, 1,
                                 &v->set, 0, NULL);
    v->f.vkCmdBindPipeline(v->transfer, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline->pipeline);
    v->f.vkCmdPushConstants(v->transfer, v->pipeline_layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof push,
                            push);
    v->f.vkCmdDispatch(v->transfer, v->caps.processor ? 32 : 256, 1, 1);
    VkMemoryBarrier seen = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                            .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT,
                            .dstAccessMask = VK_ACCESS_HOST_READ_BIT};
    v->f.vkCmdPipelineBarrier(v->transfer, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_PIPELINE_STAGE_HOST_BIT,
                              0, 1, &seen, 0, NULL, 0, NULL);
    v->host->counters->recordings++;
    if (!VK(v, v->f.vkEndCommandBuffer(v->transfer))) {
        v->f.vkResetCommandBuffer(v->transfer, 0); /* a half-recorded one must be reset */
        return false;
    }
    v->transfer_generation = v->generation;
    return true;
}

/* Copies words between two places, and waits. */
static bool copy_words(mb__vk *v, uint32_t from_block, uint64_t from, uint32_t to_block, uint64_t to,
                       uint64_t words)
{
    if (v->transfer_generation != v->generation && !record_transfer(v))
        return false;
    uint32_t *r = mb__vk_table_at(v, v->transfer_region);
    r[0] = from_block;
    r[1] = (uint32_t)(from / 4);
    r[2] = to_block;
    r[3] = (uint32_t)(to / 4);
    r[4] = (uint32_t)words;
    return mb__vk_submit(v, &v->transfer, 1, true) && mb__vk_idle(v);
}

static void pack(mb_dtype dtype, int64_t count, const void *from, void *to)
{
    if (!from)
        memset(to, 0, (size_t)count * mb__vk_element_size(dtype));
    else if (dtype == MB_BOOL)
        for (int64_t i = 0; i < count; i++)
            ((uint32_t *)to)[i] = ((const uint8_t *)from)[i] != 0;
    else if (dtype == MB_UINT8)
        for (int64_t i = 0; i < count; i++)
            ((uint32_t *)to)[i] = ((const uint8_t *)from)[i];
    else
        memcpy(to, from, (size_t)count * mb__vk_element_size(dtype));
}

static void unpack(mb_dtype dtype, int64_t count, const void *from, void *to)
{
    if (dtype == MB_BOOL)
        for (int64_t i = 0; i < count; i++)
            ((uint8_t *)to)[i] = ((const uint32_t *)from)[i] != 0;
    else if (dtype == MB_UINT8)
        for (int64_t i = 0; i < count; i++)
            ((uint8_t *)to)[i] = (uint8_t)((const uint32_t *)from)[i];
    else
        memcpy(to, from, (size_t)count * mb__vk_element_size(dtype));
}

/* Transfers values in parts of the staging block's size, each packed or unpacked there. Words are copied, so
 * that halves which begin or end within one bring their neighbours along, and back. */
static bool through_stage(mb__vk *v, const mb__vk_memory *p, mb_dtype dtype, int64_t count, const void *from,
                          void *to)
{
    int64_t size = (int64_t)mb__vk_element_size(dtype), piece = (VK_STAGE_BYTES - 4) / size;
    size_t outside = mb_dtype_size(dtype);
    for (int64_t at = 0; at < count; at += piece) {
        int64_t n = count - at < piece ? count - at : piece;
        uint64_t place = p->offset + (uint64_t)(at * size), lead = place % 4;
        uint64_t end = lead + (uint64_t)(n * size), words = (end + 3) / 4;
        unsigned char *stage = v->blocks[v->stage_block].mapped;
        if ((to || lead || end % 4) && !copy_words(v, p->block, place - lead, v->stage_block, 0, words))
            return false;
        if (to) {
            unpack(dtype, n, stage + lead, (char *)to + (size_t)at * outside);
        } else {
            pack(dtype, n, from ? (const char *)from + (size_t)at * outside : NULL, stage + lead);
            if (!copy_words(v, v->stage_block, 0, p->block, place - lead, words))
                return false;
        }
    }
    return true;
}

bool mb__vk_upload(mb__vk *v, const mb__vk_memory *to, mb_dtype dtype, int64_t count, const void *from)
{
    if (!mb__vk_has_type(v, NULL, dtype))
        return false;
    if (count == 0)
        return true;
    if (!mb__vk_idle(v))
        return false;
    unsigned char *mapped = v->blocks[to->block].mapped;
    if (!mapped)
        return through_stage(v, to, dtype, count, from, NULL);
    pack(dtype, count, from, mapped + to->offset);
    return true;
}

bool mb__vk_download(mb__vk *v, const mb__vk_memory *from, mb_dtype dtype, int64_t count, void *to)
{
    enum { DIRECT_BYTES = 4096 }; /* uncached reads are a few bytes per transaction */
    if (count == 0)
        return true;
    if (!mb__vk_idle(v))
        return false;
    unsigned char *mapped = v->blocks[from->block].mapped;
    if (!mapped || (!v->caps.processor && count * (int64_t)mb__vk_element_size(dtype) > DIRECT_BYTES))
        return through_stage(v, from, dtype, count, NULL, to);
    unpack(dtype, count, mapped + from->offset, to);
    return true;
}

bool mb__vk_copy(mb__vk *v, const mb__vk_memory *from, const mb__vk_memory *to, mb_dtype dtype, int64_t count)
{
    enum { PIECE = 4096 };
    uint64_t size = mb__vk_element_size(dtype), bytes = (uint64_t)count * size;
    if ((from->offset | to->offset | bytes) % 4 == 0)
        return mb__vk_idle(v) && copy_words(v, from->block, from->offset, to->block, to->offset, bytes / 4);
    /* halves that do not make words */
    uint16_t piece[PIECE];
    bool ok = true;
    for (int64_t at = 0; at < count && ok; at += PIECE) {
        mb__vk_memory a = *from, b = *to;
        a.offset += (uint64_t)at * size;
        b.offset += (uint64_t)at * size;
        int64_t n = count - at < PIECE ? count - at : PIECE;
        ok = mb__vk_download(v, &a, dtype, n, piece) && mb__vk_upload(v, &b, dtype, n, piece);
    }
    return ok;
}
