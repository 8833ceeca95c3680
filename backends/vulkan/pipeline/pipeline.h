/* SPDX-License-Identifier: MIT
 *
 * pipeline.h - shaders, compiled at build time or assembled here, and the pipelines made of them.
 */
#ifndef MB_VULKAN_PIPELINE_H
#define MB_VULKAN_PIPELINE_H

#include "backends/vulkan/device/device.h"

struct mb__vk_pipeline {
    mb__vk_pipeline *next;
    uint64_t hash;
    uint32_t *words; /* SPIR-V, the key together with the local size */
    uint32_t word_count, local;
    uint64_t special; /* further specialization constants, as the kernel reads them */
    VkPipeline pipeline;
    uint32_t uses;                  /* dispatches of programs, and what transfers record */
    mb__vk_pipeline *newer, *older; /* among those that are not used, by when they last were */
};

/* A pipeline of a generated kernel by what it was made from, so that a pass that occurs again is not even
 * assembled. */
struct mb__vk_known {
    mb__vk_known *next;
    uint64_t hash;
    unsigned char *key;
    uint32_t key_bytes;
    mb__vk_pipeline *pipeline;
};

/* ---- module.c ---- */

/* A module in the form that the driver receives. `*bytes` of the host's memory, to be freed by the caller. */
uint32_t *mb__vk_module_new(mb__vk *v, const uint32_t *words, uint32_t count, uint32_t *new_count,
                            size_t *bytes);

/* ---- kept.c ---- */

/* What a kept file was made of, or for. */
typedef struct mb__vk_identity {
    uint32_t words[8];
} mb__vk_identity;
/* `*bytes` of the host's memory, to be freed by the caller; NULL: there is no such file. */
void *mb__vk_kept_read(mb__vk *v, const char *name, const mb__vk_identity *identity, size_t *bytes);
void mb__vk_kept_write(const char *name, const mb__vk_identity *identity, const void *data, size_t bytes);

/* ---- pipeline.c ---- */

/* Shaders compiled at build time. */
typedef struct mb__vk_shader {
    const char *name;
    const uint32_t *words;
    size_t bytes;
} mb__vk_shader;
extern const mb__vk_shader mb__vk_shaders[];
const mb__vk_shader *mb__vk_shader_named(const char *name); /* NULL: there is none */

/* The pipeline of a shader with a local size and specialization constants 2 and 3, made if it is new. It
 * stays until the next mb__vk_pipelines_trim, or while it is used. */
mb__vk_pipeline *mb__vk_pipeline_for(mb__vk *v, const uint32_t *words, uint32_t word_count, uint32_t local,
                                     uint32_t special2, uint32_t special3);
/* What it takes, about, if this is the first use; else 0. */
size_t mb__vk_pipeline_use(mb__vk *v, mb__vk_pipeline *p);
void mb__vk_pipeline_release(mb__vk *v, mb__vk_pipeline *p);
/* Destroys those that were not used for the longest time, down to some megabytes. The device is idle. */
void mb__vk_pipelines_trim(mb__vk *v);
void mb__vk_pipelines_end(mb__vk *v);
bool mb__vk_pipelines_start(mb__vk *v);

/* ---- glsl.c ---- */

/* Text under construction. */
typedef struct mb__vk_source {
    char *at;
    uint32_t count, capacity;
    bool failed; /* no memory */
} mb__vk_source;
void mb__vk_text(mb__vk *v, mb__vk_source *s, const char *format, ...) MB_PRINTF(3, 4);
void mb__vk_text_free(mb__vk *v, mb__vk_source *s);
/* SPIR-V of a compute shader, in `*bytes` of the host's memory, to be freed by the caller. name: whose it is,
 * for messages. NULL: failed. */
uint32_t *mb__vk_glsl_compile(mb__vk *v, const char *site, const char *name, const char *text, size_t size,
                              size_t *bytes);
/* kernel.comp, names.glsl and custom.glsl, without version and main (texts.py). */
extern const char mb__vk_kernel_text[], mb__vk_names_text[], mb__vk_custom_text[];

/* ---- assemble.c ---- */

typedef enum mb__vk_type { VK_U32, VK_I32, VK_F32, VK_F64, VK_BOOL_, VK_I64, VK_TYPES } mb__vk_type;
enum mb__vk_math { VK_ADD, VK_MUL, VK_DIV, VK_MOD, VK_LESS, VK_AND, VK_EQUAL };

typedef struct mb__vk_uses {
    bool float64, halves;
} mb__vk_uses;

typedef struct mb__vk_asm mb__vk_asm;
/* Starts a kernel; glsl: as text. NULL: no memory. Ids are values; 0 is none. */
mb__vk_asm *mb__vk_asm_new(mb__vk *v, mb__vk_uses uses, bool glsl);
void mb__vk_asm_free(mb__vk_asm *a);
/* The finished module: words, or characters of text. Belongs to the assembler. */
const uint32_t *mb__vk_asm_words(mb__vk_asm *a, uint32_t *count);
const char *mb__vk_asm_text(mb__vk_asm *a);

uint32_t mb__vk_u32(mb__vk_asm *a, uint32_t x);
uint32_t mb__vk_number(mb__vk_asm *a, mb__vk_type type, double x);
/* Arithmetic on u32, and of LESS, AND and EQUAL. */
uint32_t mb__vk_math(mb__vk_asm *a, enum mb__vk_math op, uint32_t x, uint32_t y);
/* Calls a function of the library by name. type VK_TYPES: it returns nothing. */
uint32_t mb__vk_call(mb__vk_asm *a, const char *function, mb__vk_type type, int n, const uint32_t *args);
uint32_t mb__vk_var(mb__vk_asm *a, mb__vk_type type);
uint32_t mb__vk_get(mb__vk_asm *a, mb__vk_type type, uint32_t var);
void mb__vk_set(mb__vk_asm *a, uint32_t var, uint32_t x);
/* for (counter = first; counter < end; counter += step) { ... mb__vk_end_loop */
uint32_t mb__vk_loop(mb__vk_asm *a, uint32_t first, uint32_t end, uint32_t step);
void mb__vk_end_loop(mb__vk_asm *a);
void mb__vk_if(mb__vk_asm *a, uint32_t condition);
void mb__vk_end_if(mb__vk_asm *a);
void mb__vk_library_free(mb__vk *v);

#endif
