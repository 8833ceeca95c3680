/* SPDX-License-Identifier: MIT
 *
 * module.c - what is added to each module, by glslang or by the assembler, before it goes to a driver: what
 * SPIR-V can express and GLSL cannot.
 *
 *   - NaN, infinities and the sign of zero are kept, and small numbers not taken for zero, where the device
 * can be asked for that (VK_KHR_shader_float_controls, in Vulkan 1.2). Drivers may do otherwise by default,
 * and some do.
 *   - `words`, `ints`, `floats` and `doubles` are the same memory (SPIR-V 2.18.2: what is not said to be
 * Aliased may be taken to be apart).
 *   - The array of blocks is indexed, which takes a capability that glslang leaves out.
 */
#include "backends/vulkan/pipeline/pipeline.h"

enum {
    HEADER = 5, /* words before the first instruction */
    OpExtension = 10,
    OpEntryPoint = 15,
    OpExecutionMode = 16,
    OpCapability = 17,
    OpDecorate = 71,

    CAPABILITY_FLOAT64 = 10,
    CAPABILITY_ARRAY_INDEXING = 30, /* StorageBufferArrayDynamicIndexing */
    DECORATION_ALIASED = 20,
    DECORATION_BINDING = 33,
    BLOCKS_BINDING = 1, /* common.glsl */
    MOST_ADDED = 64,    /* words, without decorations */
};

/* Indexed by bit of mb__vk_caps.modes. */
static const struct {
    uint32_t capability, mode;
} modes[] = {{4466, 4461}, /* SignedZeroInfNanPreserve */
             {4464, 4459} /* DenormPreserve */};

static uint32_t *put(uint32_t *to, uint32_t code, uint32_t count, const uint32_t *operands)
{
    *to++ = (count + 1) << 16 | code;
    memcpy(to, operands, count * sizeof *operands);
    return to + count;
}

uint32_t *mb__vk_module_new(mb__vk *v, const uint32_t *words, uint32_t count, uint32_t *new_count,
                            size_t *bytes)
{
    uint32_t bindings = 0;
    bool float64 = false;
    for (uint32_t i = HEADER, length; i < count; i += length) {
        length = words[i] >> 16;
        if (length == 0 || length > count - i) {
            mb__vk_fail(v, MB_BACKEND, NULL, "vulkan: a kernel is not SPIR-V from word %u on", i);
            return NULL;
        }
        uint32_t code = words[i] & 0xffffu;
        bindings += code == OpDecorate && length == 4 && words[i + 2] == DECORATION_BINDING;
        float64 |= code == OpCapability && words[i + 1] == CAPABILITY_FLOAT64;
    }
    *bytes = (count + MOST_ADDED + 3ul * bindings) * sizeof *words;
    uint32_t *out = mb__host_alloc_raw(v->host, *bytes), *to = out;
    if (!out)
        return NULL;
    memcpy(to, words, HEADER * sizeof *words);
    to = put(to + HEADER, OpCapability, 1, &(uint32_t){CAPABILITY_ARRAY_INDEXING});
    unsigned asked[2] = {v->caps.modes[0], float64 ? v->caps.modes[1] : 0}, either = asked[0] | asked[1];
    for (unsigned m = 0; m < 2; m++)
        if (either >> m & 1)
            to = put(to, OpCapability, 1, &modes[m].capability);
    bool extended = !either;
    for (uint32_t i = HEADER; i < count; i += words[i] >> 16) {
        const uint32_t *w = words + i, length = w[0] >> 16, code = w[0] & 0xffffu;
        if (code != OpCapability && !extended) {
            static const char name[24] = "SPV_KHR_float_controls";
            uint32_t text[6];
            memcpy(text, name, sizeof text);
            to = put(to, OpExtension, 6, text);
            extended = true;
        }
        memcpy(to, w, length * sizeof *w);
        to += length;
        if (code == OpEntryPoint) /* its execution modes follow, in any order */
            for (unsigned m = 0; m < 2; m++)
                for (unsigned wide = 0; wide < 2; wide++)
                    if (asked[wide] >> m & 1)
                        to = put(to, OpExecutionMode, 3, (uint32_t[]){w[2], modes[m].mode, wide ? 64 : 32});
        if (code == OpDecorate && length == 4 && w[2] == DECORATION_BINDING && w[3] == BLOCKS_BINDING)
            to = put(to, OpDecorate, 2, (uint32_t[]){w[1], DECORATION_ALIASED});
    }
    *new_count = (uint32_t)(to - out);
    return out;
}
