/* SPDX-License-Identifier: MIT
 *
 * pipeline.c - shaders to pipelines. A pipeline is created when a plan first needs it and then found by its
 * content: SPIR-V words, local size, constants. It lives as long as a program uses it, and then until others
 * were used more lately. The driver's compiled code is cached on disk, in one file for each device and driver
 * version.
 */
#include <stdio.h>

#include "backends/plan/hash.h"
#include "backends/vulkan/pipeline/pipeline.h"

enum { VK_UNUSED_BYTES = 32 << 20 };

const mb__vk_shader *mb__vk_shader_named(const char *name)
{
    for (const mb__vk_shader *s = mb__vk_shaders; s->name; s++)
        if (!strcmp(s->name, name))
            return s;
    return NULL;
}

/* ---- on disk ---- */

/* Drivers check only the few words of their own header, so damaged or foreign files are told by ours
 * (kept.c). */
static mb__vk_identity identity_of(const mb__vk *v, char *name, size_t size)
{
    const VkPhysicalDeviceProperties *p = &v->props;
    mb__vk_identity i = {{p->vendorID, p->deviceID, p->driverVersion}};
    memcpy(i.words + 3, p->pipelineCacheUUID, VK_UUID_SIZE);
    snprintf(name, size, "%04x-%04x-%08x.pipelines", p->vendorID, p->deviceID, p->driverVersion);
    return i;
}

static void write_cache(mb__vk *v)
{
    size_t bytes = 0;
    char name[64];
    if (!v->cache || v->lost ||
        v->f.vkGetPipelineCacheData(v->device, v->cache, &bytes, NULL) != VK_SUCCESS ||
        bytes <= v->cache_bytes || bytes <= 64)
        return;
    void *data = mb__host_alloc_raw(v->host, bytes);
    size_t capacity = bytes;
    if (!data)
        return;
    mb__vk_identity identity = identity_of(v, name, sizeof name);
    if (v->f.vkGetPipelineCacheData(v->device, v->cache, &bytes, data) == VK_SUCCESS)
        mb__vk_kept_write(name, &identity, data, bytes);
    mb__host_free(v->host, data, capacity);
}

bool mb__vk_pipelines_start(mb__vk *v)
{
    char name[64];
    size_t bytes = 0;
    mb__vk_identity identity = identity_of(v, name, sizeof name);
    void *data = mb__vk_kept_read(v, name, &identity, &bytes);
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
                                      .initialDataSize = bytes,
                                      .pInitialData = data};
    bool ok = VK(v, v->f.vkCreatePipelineCache(v->device, &info, NULL, &v->cache));
    mb__host_free(v->host, data, bytes);
    v->cache_bytes = bytes;
    return ok;
}

/* ---- which there are ---- */

/* What drivers keep of one is not to be asked: measured, a processor's code takes about 1.4 MB. */
static size_t bytes_of(const mb__vk *v, const mb__vk_pipeline *p)
{
    return (v->caps.processor ? (size_t)1 << 20 : (size_t)32 << 10) + 8ul * p->word_count;
}

static void link_unused(mb__vk *v, mb__vk_pipeline *p)
{
    p->newer = NULL;
    p->older = v->unused_newest;
    *(p->older ? &p->older->newer : &v->unused_oldest) = p;
    v->unused_newest = p;
    v->unused_bytes += bytes_of(v, p);
}

static void unlink_unused(mb__vk *v, mb__vk_pipeline *p)
{
    *(p->newer ? &p->newer->older : &v->unused_newest) = p->older;
    *(p->older ? &p->older->newer : &v->unused_oldest) = p->newer;
    v->unused_bytes -= bytes_of(v, p);
}

size_t mb__vk_pipeline_use(mb__vk *v, mb__vk_pipeline *p)
{
    if (p->uses++)
        return 0;
    unlink_unused(v, p);
    return bytes_of(v, p);
}

void mb__vk_pipeline_release(mb__vk *v, mb__vk_pipeline *p)
{
    if (--p->uses == 0)
        link_unused(v, p);
}

static void forget_known(mb__vk *v, const mb__vk_pipeline *p)
{
    for (int i = 0; i < VK_PIPELINE_BUCKETS; i++)
        for (mb__vk_known **at = &v->known[i], *k; (k = *at);) {
            if (k->pipeline != p) {
                at = &k->next;
                continue;
            }
            *at = k->next;
            mb__host_free(v->host, k->key, k->key_bytes);
            mb__host_free(v->host, k, sizeof *k);
        }
}

static void destroy(mb__vk *v, mb__vk_pipeline *p)
{
    mb__vk_pipeline **at = &v->pipelines[p->hash % VK_PIPELINE_BUCKETS];
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    forget_known(v, p);
    if (!v->hung)
        v->f.vkDestroyPipeline(v->device, p->pipeline, NULL);
    mb__host_free(v->host, p->words, p->word_count * 4ul);
    mb__host_free(v->host, p, sizeof *p);
}

void mb__vk_pipelines_trim(mb__vk *v)
{
    while (v->unused_bytes > VK_UNUSED_BYTES) {
        mb__vk_pipeline *p = v->unused_oldest;
        unlink_unused(v, p);
        destroy(v, p);
    }
}

void mb__vk_pipelines_end(mb__vk *v)
{
    write_cache(v);
    for (int i = 0; i < VK_PIPELINE_BUCKETS; i++)
        while (v->pipelines[i])
            destroy(v, v->pipelines[i]);
    if (v->cache && !v->hung)
        v->f.vkDestroyPipelineCache(v->device, v->cache, NULL);
}

/* ---- making one ---- */

static VkPipeline create(mb__vk *v, const uint32_t *words, uint32_t word_count, const uint32_t *special)
{
    uint32_t count;
    size_t bytes;
    uint32_t *complete = mb__vk_module_new(v, words, word_count, &count, &bytes);
    if (!complete)
        return VK_NULL_HANDLE;
    VkShaderModuleCreateInfo module_info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = count * 4ul, .pCode = complete};
    VkShaderModule module;
    bool created = VK(v, v->f.vkCreateShaderModule(v->device, &module_info, NULL, &module));
    mb__host_free(v->host, complete, bytes);
    if (!created)
        return VK_NULL_HANDLE;
    VkSpecializationMapEntry entries[4];
    for (uint32_t i = 0; i < 4; i++)
        entries[i] = (VkSpecializationMapEntry){i, i * 4, 4};
    VkSpecializationInfo constants = {4, entries, 16, special};
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main",
                  .pSpecializationInfo = &constants},
        .layout = v->pipeline_layout};
    VkPipeline pipeline;
    if (!VK(v, v->f.vkCreateComputePipelines(v->device, v->cache, 1, &info, NULL, &pipeline)))
        pipeline = VK_NULL_HANDLE;
    v->f.vkDestroyShaderModule(v->device, module, NULL);
    v->host->counters->pipelines++;
    return pipeline;
}

mb__vk_pipeline *mb__vk_pipeline_for(mb__vk *v, const uint32_t *words, uint32_t word_count, uint32_t local,
                                     uint32_t special2, uint32_t special3)
{
    uint32_t special[4] = {local, v->caps.blocks, special2, special3};
    uint64_t both = (uint64_t)special3 << 32 | special2;
    uint64_t hash = mb__hash(words, word_count * 4ul) ^ mb__hash(special, sizeof special);
    mb__vk_pipeline **bucket = &v->pipelines[hash % VK_PIPELINE_BUCKETS];
    for (mb__vk_pipeline *p = *bucket; p; p = p->next)
        if (p->hash == hash && p->local == local && p->special == both && p->word_count == word_count &&
            !memcmp(p->words, words, word_count * 4ul))
            return p;
    mb__vk_pipeline *p = mb__host_alloc(v->host, sizeof *p);
    uint32_t *copy = p ? mb__host_alloc_raw(v->host, word_count * 4ul) : NULL;
    VkPipeline made = copy ? create(v, words, word_count, special) : VK_NULL_HANDLE;
    if (!made) {
        mb__host_free(v->host, copy, word_count * 4ul);
        mb__host_free(v->host, p, sizeof *p);
        return NULL;
    }
    memcpy(copy, words, word_count * 4ul);
    *p = (mb__vk_pipeline){*bucket, hash, copy, word_count, local, both, made, 0, NULL, NULL};
    *bucket = p;
    link_unused(v, p);
    return p;
}
