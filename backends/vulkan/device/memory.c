/* SPDX-License-Identifier: MIT
 *
 * memory.c - device memory: best-fit suballocation of a few large blocks, and the table of addresses that
 * kernels read.
 */
#include <stdlib.h>

#include "backends/vulkan/device/device.h"

enum { TABLE_BYTES = 1 << 20 };

/* ---- sharing out a block ---- */

static bool gap_put(mb__vk *v, mb__vk_block *b, uint64_t offset, uint64_t bytes)
{
    if (!mb__host_reserve(v->host, (void **)&b->gaps, &b->gap_capacity, (uint64_t)b->gap_count + 1,
                          sizeof *b->gaps))
        return false;
    mb__gap_give(b->gaps, &b->gap_count, offset, bytes);
    return true;
}

/* Takes from the smallest gap that is large enough. Each range handed out may come back as a gap of its own,
 * whose entry is reserved here. */
static bool gap_take(mb__vk *v, mb__vk_block *b, uint64_t bytes, uint64_t *offset)
{
    if (!b->gap_count ||
        !mb__host_reserve(v->host, (void **)&b->gaps, &b->gap_capacity, (uint64_t)b->gap_count + b->given + 2,
                          sizeof *b->gaps) ||
        !mb__gap_take(b->gaps, &b->gap_count, bytes, offset))
        return false;
    b->given++;
    return true;
}

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + VK_ALIGN - 1) / VK_ALIGN * VK_ALIGN + (bytes == 0) * VK_ALIGN;
}

/* ---- blocks ---- */

static void block_end(mb__vk *v, mb__vk_block *b)
{
    if (b->buffer && !v->hung)
        v->f.vkDestroyBuffer(v->device, b->buffer, NULL);
    if (b->memory && !v->hung)
        v->f.vkFreeMemory(v->device, b->memory, NULL);
    mb__host_free(v->host, b->gaps, b->gap_capacity * sizeof *b->gaps);
    v->host->counters->device_bytes -= b->held;
    memset(b, 0, sizeof *b);
}

/* Tries every memory type that has all of `needed`, those with more of `liked` first. */
static VkResult allocate(mb__vk *v, mb__vk_block *b, VkMemoryPropertyFlags needed,
                         VkMemoryPropertyFlags liked)
{
    VkMemoryRequirements r;
    v->f.vkGetBufferMemoryRequirements(v->device, b->buffer, &r);
    VkResult result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    uint32_t tried = 0;
    for (;;) {
        int best = -1, most = -1;
        for (uint32_t i = 0; i < v->memory.memoryTypeCount; i++) {
            VkMemoryPropertyFlags flags = v->memory.memoryTypes[i].propertyFlags;
            if (!(r.memoryTypeBits >> i & 1) || tried >> i & 1 || (flags & needed) != needed ||
                flags & VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD || /* needs a feature, and is slow */
                v->memory.memoryHeaps[v->memory.memoryTypes[i].heapIndex].size < r.size)
                continue;
            int score = __builtin_popcount(flags & liked);
            if (score > most) {
                most = score;
                best = (int)i;
            }
        }
        if (best < 0)
            return result;
        tried |= 1u << best;
        VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                     .allocationSize = r.size,
                                     .memoryTypeIndex = (uint32_t)best};
        result = mb__vk_fault(v) ? v->fail_with : v->f.vkAllocateMemory(v->device, &info, NULL, &b->memory);
        if (result == VK_SUCCESS) {
            b->held = r.size;
            v->host->counters->device_allocations++;
            v->host->counters->device_bytes += b->held;
            return result;
        }
        b->memory = VK_NULL_HANDLE;
    }
}

static bool block_new(mb__vk *v, mb__vk_block *b, uint64_t bytes, VkBufferUsageFlags usage,
                      VkMemoryPropertyFlags needed, VkMemoryPropertyFlags liked)
{
    memset(b, 0, sizeof *b);
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                               .size = bytes,
                               .usage = usage | VK_BUFFER_USAGE_STORAGE_BUFFER_BIT};
    if (!VK(v, v->f.vkCreateBuffer(v->device, &info, NULL, &b->buffer))) {
        b->buffer = VK_NULL_HANDLE;
        return false;
    }
    b->bytes = bytes;
    VkResult r = allocate(v, b, needed, liked);
    if (r != VK_SUCCESS) {
        block_end(v, b);
        return mb__vk_ok(v, r, "vkAllocateMemory");
    }
    void *mapped = NULL;
    if (VK(v, v->f.vkBindBufferMemory(v->device, b->buffer, b->memory, 0)) &&
        (!(needed & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT) ||
         VK(v, v->f.vkMapMemory(v->device, b->memory, 0, VK_WHOLE_SIZE, 0, &mapped))) &&
        gap_put(v, b, 0, bytes)) {
        b->mapped = mapped;
        return true;
    }
    block_end(v, b);
    return false;
}

static const VkMemoryPropertyFlags local = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
                                   host = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                          VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
                                   cached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;

/* Writes the block buffers to the descriptor set; commands recorded before are then invalid. */
static void write_set(mb__vk *v)
{
    VkDescriptorBufferInfo table = {v->table.buffer, 0, VK_WHOLE_SIZE}, blocks[VK_BLOCKS_MOST];
    for (uint32_t i = 0; i < v->caps.blocks; i++) /* slots without a block get the first */
        blocks[i] = (VkDescriptorBufferInfo){v->blocks[v->blocks[i].buffer ? i : 0].buffer, 0, VK_WHOLE_SIZE};
    VkWriteDescriptorSet writes[2] = {{.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                       .dstSet = v->set,
                                       .dstBinding = 0,
                                       .descriptorCount = 1,
                                       .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                       .pBufferInfo = &table},
                                      {.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                       .dstSet = v->set,
                                       .dstBinding = 1,
                                       .descriptorCount = v->caps.blocks,
                                       .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                       .pBufferInfo = blocks}};
    v->f.vkUpdateDescriptorSets(v->device, 2, writes, 0, NULL);
    v->generation++;
    v->host->counters->descriptor_writes += 1 + v->caps.blocks;
}

/* Frees empty blocks of values. Whether there were any. */
static bool give_back(mb__vk *v)
{
    bool any = false;
    for (uint32_t i = v->stage_block + 1; i < v->block_count; i++)
        if (v->blocks[i].buffer && v->blocks[i].given == 0) {
            block_end(v, &v->blocks[i]);
            any = true;
        }
    if (any)
        write_set(v);
    return any;
}

/* A free slot for a block; NULL: there is none. */
static mb__vk_block *free_block(mb__vk *v)
{
    for (uint32_t i = 0; i < v->caps.blocks; i++)
        if (!v->blocks[i].buffer)
            return &v->blocks[i];
    return NULL;
}

/* What a further block should have, beside these: as much as all of them, so that they stay few. */
static uint64_t large_block(const mb__vk *v, const mb__vk_block *blocks)
{
    uint64_t total = (uint64_t)16 << 20;
    uint32_t left = v->caps.blocks;
    for (uint32_t i = 0; i < v->caps.blocks; i++) {
        total += blocks[i].bytes;
        left -= blocks[i].buffer != VK_NULL_HANDLE;
    }
    /* If few slots are left, each block must be as large as possible. */
    uint64_t large = left <= 3 && v->block_count ? v->caps.block_bytes : total;
    return large > v->caps.block_bytes ? v->caps.block_bytes : large;
}

/* One block of at least `bytes`; larger where that is to be had. */
static bool make_block(mb__vk *v, mb__vk_block *b, uint64_t bytes)
{
    uint64_t large = large_block(v, v->blocks);
    VkMemoryPropertyFlags needed = local | (v->caps.staging ? 0 : host), liked = v->caps.staging ? 0 : cached;
    VkBufferUsageFlags usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
    for (; large > bytes; large = aligned(large / 2)) {
        if (block_new(v, b, large, usage, needed, liked))
            return true;
        if (!mb__vk_forget(v))
            return false;
    }
    return block_new(v, b, bytes, usage, needed, liked);
}

/* Adds a block of at least `bytes`; frees empty ones if there is no memory. */
static bool add_block(mb__vk *v, uint64_t bytes)
{
    if (bytes > v->caps.block_bytes)
        return mb__vk_fail(
            v, MB_BACKEND, NULL, "vulkan: %s takes buffers of at most %llu bytes; one of %llu was wanted",
            v->props.deviceName, (unsigned long long)v->caps.block_bytes, (unsigned long long)bytes);
    if (!mb__vk_idle(v))
        return false;
    mb__vk_block *b = free_block(v);
    bool made = b && make_block(v, b, bytes);
    bool memory = v->failure.status == MB_OK || v->failure.status == MB_NO_MEMORY;
    if (!made && memory && give_back(v)) {
        v->failure.status = MB_OK;
        b = free_block(v);
        made = make_block(v, b, bytes);
    }
    if (!b)
        v->host->log(v->host->user,
                     "vulkan: the kernels of %s see %u buffers of %llu bytes, and all are full",
                     v->props.deviceName, v->caps.blocks, (unsigned long long)v->caps.block_bytes);
    if (!made)
        return false;
    uint32_t count = (uint32_t)(b - v->blocks) + 1;
    v->block_count = v->block_count > count ? v->block_count : count;
    write_set(v);
    return true;
}

mb__vk_memory *mb__vk_memory_new(mb__vk *v, uint64_t bytes)
{
    mb__vk_memory *p = mb__host_alloc(v->host, sizeof *p);
    if (!p)
        return NULL;
    p->bytes = aligned(bytes + (v->guard ? MB_GUARD_BYTES : 0));
    for (int again = 0; again < 2; again++) {
        for (uint32_t i = v->stage_block + 1; i < v->block_count; i++)
            if (gap_take(v, &v->blocks[i], p->bytes, &p->offset)) {
                p->block = i;
                return p;
            }
        if (again || !add_block(v, p->bytes))
            break;
    }
    mb__host_free(v->host, p, sizeof *p);
    return NULL;
}

void mb__vk_memory_free(mb__vk *v, mb__vk_memory *place)
{
    mb__vk_block *b = &v->blocks[place->block];
    gap_put(v, b, place->offset, place->bytes); /* its entry was reserved by gap_take */
    b->given--;
    mb__host_free(v->host, place, sizeof *place);
}

/* ---- what would be ---- */

/* Blocks with gaps of their own to take from, at first like v's. What was copied is to be freed in any case.
 */
static bool copy_blocks(mb__vk *v, mb__vk_block *blocks)
{
    for (uint32_t i = 0; i < v->caps.blocks; i++) {
        mb__vk_block *b = &blocks[i];
        *b = v->blocks[i];
        b->gaps = NULL;
        b->gap_capacity = 0;
        if (!mb__host_reserve(v->host, (void **)&b->gaps, &b->gap_capacity,
                              (uint64_t)b->gap_count + b->given + 2, sizeof *b->gaps))
            return false;
        if (b->gap_count)
            memcpy(b->gaps, v->blocks[i].gaps, b->gap_count * sizeof *b->gaps);
    }
    return true;
}

/* Takes from a gap, or from a block that would be made. */
static bool would_take(mb__vk *v, mb__vk_block *blocks, uint64_t bytes, uint64_t *more)
{
    uint64_t ignored, large = large_block(v, blocks);
    mb__vk_block *unmade = NULL;
    for (uint32_t i = v->stage_block + 1; i < v->caps.blocks; i++) {
        if (blocks[i].buffer && gap_take(v, &blocks[i], bytes, &ignored))
            return true;
        unmade = !unmade && !blocks[i].buffer ? &blocks[i] : unmade;
    }
    large = large > bytes ? large : bytes;
    *more += large;
    if (!unmade)
        return true;                      /* the flush will fail, whatever it would have taken */
    unmade->buffer = v->blocks[0].buffer; /* any that is one */
    unmade->bytes = large;
    return gap_put(v, unmade, 0, large) && gap_take(v, unmade, bytes, &ignored);
}

bool mb__vk_memory_foresee(mb__vk *v, const size_t *bytes, int count, const mb__vk_memory *freed,
                           uint64_t *more)
{
    size_t size = v->caps.blocks * sizeof(mb__vk_block);
    mb__vk_block *blocks = mb__host_alloc(v->host, size);
    bool ok = blocks && copy_blocks(v, blocks);
    *more = 0;
    for (int i = 0; ok && i < count; i++) {
        if (freed && i == count - 1)
            ok = gap_put(v, &blocks[freed->block], freed->offset, freed->bytes);
        ok = ok && would_take(v, blocks, aligned((uint64_t)bytes[i] + (v->guard ? MB_GUARD_BYTES : 0)), more);
    }
    for (uint32_t i = 0; blocks && i < v->caps.blocks; i++)
        mb__host_free(v->host, blocks[i].gaps, blocks[i].gap_capacity * sizeof(mb__gap));
    mb__host_free(v->host, blocks, size);
    return ok;
}

size_t mb__vk_element_size(mb_dtype dtype)
{
    return mb__is_half((int)dtype) ? 2 : dtype == MB_FLOAT64 || dtype == MB_INT64 ? 8 : 4;
}

/* ---- the table ---- */

static bool table_make(mb__vk *v, uint64_t bytes)
{
    VkBufferUsageFlags from = VK_BUFFER_USAGE_TRANSFER_SRC_BIT, to = VK_BUFFER_USAGE_TRANSFER_DST_BIT;
    if (!v->staging && block_new(v, &v->table, bytes, from, local | host, 0))
        return true;
    if (!v->staging && !mb__vk_forget(v))
        return false;
    return block_new(v, &v->table, bytes, to, local, 0) && block_new(v, &v->stage, bytes, from, host, 0);
}

/* Doubles the table; parts keep their offsets. */
static bool table_grow(mb__vk *v)
{
    if (!mb__vk_idle(v))
        return false;
    mb__vk_block table = v->table, stage = v->stage;
    uint64_t bytes = table.bytes;
    memset(&v->stage, 0, sizeof v->stage);
    if (!table_make(v, 2 * bytes) ||
        !mb__host_reserve(v->host, (void **)&v->table.gaps, &v->table.gap_capacity,
                          (uint64_t)table.gap_count + table.given + 2, sizeof *table.gaps)) {
        block_end(v, &v->table);
        block_end(v, &v->stage);
        v->table = table;
        v->stage = stage;
        return false;
    }
    memcpy(mb__vk_table_at(v, 0), table.mapped ? table.mapped : stage.mapped, bytes);
    /* The free parts: the new half, and those of the old table. Their entries are reserved. */
    v->table.gap_count = 0;
    v->table.given = table.given;
    gap_put(v, &v->table, bytes, bytes);
    for (uint32_t i = 0; i < table.gap_count; i++)
        gap_put(v, &v->table, table.gaps[i].offset, table.gaps[i].bytes);
    block_end(v, &table);
    block_end(v, &stage);
    write_set(v);
    return true;
}

bool mb__vk_table_new(mb__vk *v, uint64_t bytes, uint64_t *offset)
{
    bytes = aligned(bytes);
    while (!gap_take(v, &v->table, bytes, offset))
        if (!table_grow(v))
            return false;
    return true;
}

void mb__vk_table_free(mb__vk *v, uint64_t offset, uint64_t bytes)
{
    gap_put(v, &v->table, offset, aligned(bytes));
    v->table.given--;
}

void mb__vk_table_copy(mb__vk *v, VkCommandBuffer cb, uint64_t offset, uint64_t bytes)
{
    if (v->table.mapped)
        return;
    VkBufferCopy copy = {offset, offset, aligned(bytes)};
    v->f.vkCmdCopyBuffer(cb, v->stage.buffer, v->table.buffer, 1, &copy);
}

void mb__vk_barrier(mb__vk *v, VkCommandBuffer cb)
{
    VkMemoryBarrier all = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                           .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT |
                                            VK_ACCESS_SHADER_READ_BIT,
                           .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                                            VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT};
    VkPipelineStageFlags stages = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    v->f.vkCmdPipelineBarrier(cb, stages, stages, 0, 1, &all, 0, NULL, 0, NULL);
}

/* ---- start and end ---- */

/* Whether the host can write all of the device's memory: one type has both, on a heap as large as any. */
static bool host_sees_memory(const mb__vk *v)
{
    uint64_t largest = 0;
    for (uint32_t i = 0; i < v->memory.memoryHeapCount; i++)
        if (v->memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT &&
            v->memory.memoryHeaps[i].size > largest)
            largest = v->memory.memoryHeaps[i].size;
    for (uint32_t i = 0; i < v->memory.memoryTypeCount; i++) {
        const VkMemoryType *t = &v->memory.memoryTypes[i];
        if ((t->propertyFlags & (local | host)) == (local | host) &&
            v->memory.memoryHeaps[t->heapIndex].size >= largest / 10 * 9 &&
            (t->propertyFlags & cached || v->props.deviceType != VK_PHYSICAL_DEVICE_TYPE_CPU))
            return true;
    }
    return false;
}

/* The first block is visible to the host: transfers to memory that is not, and large downloads from uncached
 * memory, go through it. */
bool mb__vk_memory_start(mb__vk *v)
{
    v->caps.staging = v->caps.staging || !host_sees_memory(v);
    if (v->caps.blocks < 2)
        return mb__vk_fail(v, MB_BACKEND, NULL,
                           "vulkan: %s lets a kernel see %u buffers; at least 3 are needed",
                           v->props.deviceName, v->caps.blocks + 1);
    if (!table_make(v, TABLE_BYTES) ||
        !mb__vk_table_new(v, VK_REGION_WORDS * sizeof(uint32_t), &v->transfer_region) ||
        !block_new(v, &v->blocks[0], VK_STAGE_BYTES, 0, host, cached))
        return false;
    v->block_count = 1;
    v->stage_block = 0;
    return add_block(v, (uint64_t)1 << 20);
}

void mb__vk_memory_end(mb__vk *v)
{
    for (uint32_t i = 0; i < v->block_count; i++)
        block_end(v, &v->blocks[i]);
    block_end(v, &v->table);
    block_end(v, &v->stage);
}
