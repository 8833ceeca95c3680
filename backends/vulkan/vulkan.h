/* SPDX-License-Identifier: MIT
 *
 * vulkan.h - inside the vulkan backend.
 *
 *   device.c    finding, choosing and opening a device
 *   memory.c    a few large blocks, shared out; transfers
 *   assemble.c  SPIR-V (and its GLSL twin) from a stream of instructions
 *   emit.c      a kernel of the plan as such a stream
 *   split.c     kernels cut into passes that one dispatch can run
 *   module.c    what SPIR-V says and GLSL cannot
 *   pipeline.c  shaders to pipelines, kept by content and on disk
 *   product.c   which kernel a matrix product takes; product_check.c tries it first
 *   quirks.c    what is known of drivers beyond what they say
 *   other.c     gather, scatter, sort, scan
 *   hazard.c    where barriers are needed
 *   guard.c     whether kernels write past their values
 *   program.c   a plan as recorded commands; running them
 *
 * How a value is found. All memory is in at most `caps.blocks` storage buffers, bound once in one descriptor
 * set beside the table. A program owns a part of the table: its bound scalars, and a region for each
 * dispatch, which begins with block and word of each value that it touches. When a value lies elsewhere than
 * in the last run (a new batch, a parameter's next buffer) the host patches those words. Commands, pipelines
 * and descriptors stay as they were recorded.
 *
 * One run of a context is in flight at most: a run returns when its work is submitted, and the next run,
 * upload or download waits for it.
 */
#ifndef MB_VULKAN_H
#define MB_VULKAN_H

#define VK_NO_PROTOTYPES
#include <stdatomic.h>
#include <volk.h>

#include "backends/engine.h"

/* Drivers with room for 32 buffers need some of it for the validation layer's own. */
enum { VK_BLOCKS_MOST = 24, VK_ALIGN = 256, VK_SLICES_MOST = 256 };

/* NaN, infinities and the sign of zero; numbers too small for full precision (subnormal). */
enum { VK_KEEPS_NAN = 1, VK_KEEPS_SMALL = 2 };

/* What the device allows, after the caps that tests set. */
typedef struct mb__vk_caps {
    uint32_t blocks;       /* storage buffers a kernel sees beside the table */
    uint64_t block_bytes;  /* of one of them, at most */
    uint32_t invocations;  /* of a group */
    uint32_t shared_bytes; /* of a group */
    uint32_t groups;       /* along an axis */
    uint32_t subgroup;     /* lanes that run together */
    uint32_t iterations;   /* an invocation may run before the driver ends its loops; 0: any number */
    bool float64;          /* kernels may compute in double precision */
    unsigned modes[2];     /* VK_KEEPS_...: what float32 and float64 can be asked for */
    bool processor;        /* the device is a CPU: few lanes, small tiles */
    bool staging;          /* memory is not written by the host, but copied to from a block that is */
} mb__vk_caps;

typedef struct mb__vk_range {
    uint64_t offset, bytes;
} mb__vk_range;

typedef struct mb__vk_block {
    VkBuffer buffer;
    VkDeviceMemory memory;
    uint64_t bytes;
    unsigned char *mapped;               /* NULL where the host cannot see it */
    mb__vk_range *gaps;                  /* unused, by rising offset */
    uint32_t gap_count, gap_room, given; /* given: ranges in use */
} mb__vk_block;

/* What the engine holds as a value's memory. */
typedef struct mb__vk_place {
    uint32_t block;
    uint64_t offset, bytes;
} mb__vk_place;

typedef struct mb__vk_pipeline {
    struct mb__vk_pipeline *next;
    uint64_t hash;
    uint32_t *words; /* SPIR-V, the key together with the local size */
    uint32_t word_count, local;
    uint64_t special; /* further specialization constants, as the kernel reads them */
    VkPipeline pipeline;
} mb__vk_pipeline;

enum { VK_PIPELINE_BUCKETS = 1024 };

/* A pipeline of a generated kernel by what it was made from, so that a pass that is met again is not even
 * assembled. */
typedef struct mb__vk_known {
    struct mb__vk_known *next;
    uint64_t hash;
    unsigned char *key;
    uint32_t key_bytes;
    VkPipeline pipeline;
} mb__vk_known;

typedef struct mb__vk_library mb__vk_library;
struct mb__vk_pass;

typedef struct mb__vk {
    mb_context *ctx;
    VkInstance instance;
    VkDebugUtilsMessengerEXT messenger;
    /* Of this instance: volk's own are those of the instance that was made last, and may be NULL. */
    PFN_vkDestroyDebugUtilsMessengerEXT destroy_messenger;
    PFN_vkCmdBeginDebugUtilsLabelEXT begin_label;
    PFN_vkCmdEndDebugUtilsLabelEXT end_label;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    uint32_t family;
    struct VolkDeviceTable f; /* the device's functions */
    VkPhysicalDeviceProperties props;
    VkPhysicalDeviceMemoryProperties memory;
    mb__vk_caps caps;
    double slice;       /* work in a submit, and about as much at most in a dispatch, in operations */
    uint64_t submitted; /* since the device was last seen idle */
    bool lost, validate, every_barrier, backwards, guard, labels;
    int messages; /* of the validation layer; see mb__vk_unheard */
    char message[400];
    uint64_t calls, fail_at; /* the call that is made to fail, counted from 1 */
    VkResult fail_with;

    mb__vk_block blocks[VK_BLOCKS_MOST];
    uint32_t block_count;
    mb__vk_block table;   /* what kernels read; `mapped` where the host writes it itself, ... */
    mb__vk_block stage;   /* ... else the host writes here, and each run begins with a copy */
    uint32_t stage_block; /* with caps.staging: the block that uploads and downloads pass through */
    uint32_t generation;  /* of the descriptor set: commands recorded under an older one are stale */

    VkDescriptorSetLayout set_layout;
    VkPipelineLayout pipeline_layout;
    VkDescriptorPool descriptor_pool;
    VkDescriptorSet set;
    VkCommandPool command_pool;
    VkFence fence;
    bool in_flight;           /* a submit that the fence tells the end of */
    bool loose, hung;         /* one that it does not; the device never answered */
    VkCommandBuffer transfer; /* the recorded copy, by the table's first region */
    uint32_t transfer_generation;
    uint64_t transfer_region; /* bytes in the table */

    VkPipelineCache cache;
    size_t cache_bytes; /* when it was read */
    mb__vk_pipeline *pipelines[VK_PIPELINE_BUCKETS];
    mb__vk_known *known[VK_PIPELINE_BUCKETS];
    mb__vk_library *library[2]; /* the functions of generated kernels; [1] with float64 */
    /* Of each product kernel and type, by reading pattern: enum below. */
    uint8_t product_state[16][32];
    int forced_product;   /* while one is tried; -1 */
    bool trying, refused; /* a product is tried; the driver made no pipeline of it */
    unsigned quirks;

    /* Tests look at each generated kernel, and may put other words in its place; those stay theirs. */
    void (*watch_kernel)(struct mb__vk *v, const mb__plan *plan, const struct mb__vk_pass *pass,
                         const uint32_t **words, uint32_t *count);

    double period;  /* nanoseconds a tick of a time stamp; 0: no time stamps */
    uint64_t ticks; /* the bits of a time stamp */
} mb__vk;

/* The least power of 2 that is n, or most. */
static inline uint32_t mb__vk_power_up(int64_t n, uint32_t most)
{
    uint32_t p = 1;
    while (p < most && p < n)
        p *= 2;
    return p;
}
/* Invocations of a large group. */
static inline uint32_t mb__vk_widest(const mb__vk *v)
{
    return v->caps.invocations < 256 ? v->caps.invocations : 256;
}
static inline bool mb__vk_is_reduction(const mb__instr *i)
{
    return i->op == MB_K_SUM || i->op == MB_K_MAX;
}
static inline mb_stats *mb__vk_stats(mb__vk *v)
{
    return &((mb__engine_state *)v->ctx->engine_state)->stats;
}

/* ---- device.c ---- */

/* Whether a call went well; otherwise the context's error is set, and a lost device is remembered. The call
 * is not made where a fault is injected in its place. */
#define VK(v, call) mb__vk_ok(v, mb__vk_fault(v) ? (v)->fail_with : (call), #call)
bool mb__vk_fault(mb__vk *v);
bool mb__vk_ok(mb__vk *v, VkResult r, const char *call);
mb_status mb__vk_open(mb_context *ctx, const char *device, int threads, unsigned passes, void **state);
void mb__vk_close(mb_context *ctx, void *state);
/* False, with the error set, where float64 is wanted and not to be had. */
bool mb__vk_has_type(mb__vk *v, const char *where, mb_dtype dtype);
/* Waits for the run in flight, if there is one. */
bool mb__vk_idle(mb__vk *v);
/* Hands commands to the device; the fence is signalled by the last. */
bool mb__vk_submit(mb__vk *v, VkCommandBuffer cb, bool last);
/* Waits in any case, before what runs is freed. */
void mb__vk_settle(mb__vk *v);
/* A validation message, if there was one, becomes the context's error. */
bool mb__vk_heard(mb__vk *v);

/* Messages of contexts that were closed without an error to tell them: of what came after the last run, and
 * of what the context forgot to destroy. Nothing but tests reads it. */
extern atomic_int mb__vk_unheard;

/* ---- memory.c ---- */

bool mb__vk_memory_start(mb__vk *v);
void mb__vk_memory_end(mb__vk *v);
void *mb__vk_memory_new(mb_context *ctx, void *state, size_t bytes);
void mb__vk_memory_free(mb_context *ctx, void *state, void *memory, size_t bytes);
mb_status mb__vk_upload(mb_context *ctx, void *state, void *memory, mb_dtype dtype, int64_t count,
                        const void *from);
mb_status mb__vk_download(mb_context *ctx, void *state, void *memory, mb_dtype dtype, int64_t count,
                          void *to);
size_t mb__vk_element_size(mb_dtype dtype);
/* A part of the table. */
bool mb__vk_table_new(mb__vk *v, uint64_t bytes, uint64_t *offset);
void mb__vk_table_free(mb__vk *v, uint64_t offset, uint64_t bytes);
/* Where the host writes a part of the table. */
static inline uint32_t *mb__vk_table_at(mb__vk *v, uint64_t offset)
{
    return (uint32_t *)(void *)((v->table.mapped ? v->table.mapped : v->stage.mapped) + offset);
}
/* Records the copy of a part of the table to where kernels read it, where one is needed. */
void mb__vk_table_copy(mb__vk *v, VkCommandBuffer cb, uint64_t offset, uint64_t bytes);
void mb__vk_barrier(mb__vk *v, VkCommandBuffer cb);

/* ---- module.c ---- */

/* A module as the driver is given it. `*bytes` of the context's memory, to be freed by the caller.
 * NULL: error set. */
uint32_t *mb__vk_module_new(mb__vk *v, const uint32_t *words, uint32_t count, uint32_t *new_count,
                            size_t *bytes);

/* ---- pipeline.c ---- */

/* Shaders compiled at build time. */
typedef struct mb__vk_shader {
    const char *name;
    const uint32_t *words;
    size_t bytes;
} mb__vk_shader;
extern const mb__vk_shader mb__vk_shaders[];
const mb__vk_shader *mb__vk_shader_named(const char *name); /* NULL: there is none */

/* The pipeline of a shader with a local size and specialization constants 2 and 3, made if it is new.
 * NULL: error set, or v->refused. */
VkPipeline mb__vk_pipeline_for(mb__vk *v, const uint32_t *words, uint32_t word_count, uint32_t local,
                               uint32_t special2, uint32_t special3);
void mb__vk_pipelines_end(mb__vk *v);
bool mb__vk_pipelines_start(mb__vk *v);

/* ---- assemble.c ---- */

typedef enum mb__vk_type { VK_U32, VK_I32, VK_F32, VK_F64, VK_BOOL_, VK_TYPES } mb__vk_type;
enum mb__vk_math { VK_ADD, VK_MUL, VK_DIV, VK_MOD, VK_LESS, VK_AND, VK_EQUAL };

typedef struct mb__vk_asm mb__vk_asm;
/* Starts a kernel; glsl: as text. NULL: error set. Ids are values; 0 is none. */
mb__vk_asm *mb__vk_asm_new(mb__vk *v, bool float64, bool glsl);
void mb__vk_asm_free(mb__vk_asm *a);
/* The finished module: words, or characters of text. NULL: error set. Belongs to the assembler. */
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

/* ---- emit.c ---- */

/* A value from one of its elements on. */
typedef struct mb__vk_slot {
    int32_t value;
    int64_t offset; /* elements */
} mb__vk_slot;

/* A kernel for one dispatch. Its last `columns_axes` axes are the columns that row reductions run over; none:
 * every element is a row of its own. Stores are plain or once a row. Values are slots of the region. */
typedef struct mb__vk_pass {
    mb__kernel k;
    int column_axes;
    uint32_t local, lanes; /* invocations of a group; of them, those that share a row: a power of 2 */
    bool rows_fastest;     /* neighbouring invocations take neighbouring rows, not columns */
    uint32_t chunks;       /* pieces that the columns are cut into, each with a row of the result: the row
                              index ends with the piece */
    int64_t rows, columns;
    /* What may differ between passes that share a pipeline is in the region: where each view begins, ... */
    mb__vk_slot *slots;
    int slot_count;
    /* ... and then, a word each, numbers of bound scalars, and first positions of generated values. */
    int64_t *params;
    int param_count;
} mb__vk_pass;

int mb__vk_slot_of(const mb__vk_pass *p, const mb__view *view);
/* The position among the parameters of a bound scalar's number, or of a first position. */
int mb__vk_param_of(const mb__vk_pass *p, int64_t x);

/* Emits it into the assembler. */
void mb__vk_emit(mb__vk_asm *a, const mb__vk_pass *p);

/* ---- split.c ---- */

bool mb__vk_uses_float64(const mb__kernel *k);

struct mb__vk_program;
/* Adds the dispatches of a kernel. */
bool mb__vk_add_kernel(struct mb__vk_program *p, int step, const mb__kernel *k);
/* The same for one whose reductions all run over the axes of the mask and are stored once a row. */
bool mb__vk_add_rows(struct mb__vk_program *p, int step, const mb__kernel *k, uint32_t column_mask);

/* ---- program.c ---- */

typedef struct mb__vk_touch {
    int32_t value;
    bool written;
} mb__vk_touch;

typedef struct mb__vk_dispatch {
    VkPipeline pipeline;
    uint64_t region; /* words in the program's part of the table */
    uint32_t x, y;   /* groups */
    int32_t touch_first, touch_count;
    int step;
    double cost; /* bytes and flops, roughly: where submits are cut */
} mb__vk_dispatch;

/* Memory of the program's own, for what is kept between two of its dispatches. */
typedef struct mb__vk_scratch_value {
    uint64_t offset, bytes;
} mb__vk_scratch_value;

/* Values are numbered: the plan's, then scratch. */
typedef struct mb__vk_program {
    mb__vk *v;
    mb__bump pool;
    const mb__plan *plan;
    mb__vk_scratch_value *scratch;
    int scratch_count, scratch_room;
    uint64_t scratch_bytes;
    mb__vk_place *scratch_memory;
    mb__vk_dispatch *dispatches;
    mb__vk_touch *touches;
    int dispatch_count, dispatch_room, touch_count, touch_room;
    int touching; /* the first touch of the dispatch that is being added */
    /* The program's part of the table, while it is made; of each word, the value whose block stands there, or
     * -1. */
    uint32_t *words;
    int32_t *slot_value;
    uint32_t *slot_shift; /* and the words to add to where it begins */
    uint32_t word_count, word_room, slot_room, shift_room;
    /* Afterwards: where it is, the words that say where a value lies, and where that was in the last run. */
    uint64_t table_at, table_bytes;
    int32_t *slot_first, *slot_next; /* chains of words of a value; -1 ends them */
    uint32_t *shift;
    mb__vk_place *bound;
    VkCommandBuffer slices[VK_SLICES_MOST];
    int slice_count, slices_used, barriers;
    uint32_t generation;
    VkQueryPool queries;
    bool failed;
} mb__vk_program;

/* Begins a region for a dispatch: slots for `count` values; parameters follow by mb__vk_param. */
uint32_t mb__vk_region(mb__vk_program *p, const mb__vk_slot *slots, int count);
void mb__vk_param(mb__vk_program *p, int64_t x);
void mb__vk_touches(mb__vk_program *p, int32_t value, bool written);
/* Ends the region begun last. groups: counted over both axes. */
void mb__vk_dispatch_add(mb__vk_program *p, VkPipeline pipeline, uint32_t region, int64_t groups, int step,
                         double cost);
/* Fills a value with a number. */
bool mb__vk_add_fill(mb__vk_program *p, int step, int32_t value, double number);
/* A value of the program's own; its number. */
int32_t mb__vk_scratch(mb__vk_program *p, uint64_t bytes);
void *mb__vk_compile(mb_context *ctx, void *state, const mb__plan *plan, size_t *bytes);
void mb__vk_discard(mb_context *ctx, void *state, void *program);
mb_status mb__vk_run(mb_context *ctx, void *state, void *program, const mb__binding *binding);

/* ---- quirks.c ---- */

enum {
    VK_QUIRK_ENDS_LOOPS = 1,
    VK_QUIRK_NO_LARGE_TILES = 2,
    /* For tests: every trial of a product fails; no float64; work is spread as on a GPU, though the device is
     * a processor. */
    VK_QUIRK_WRONG_TILES = 4,
    VK_QUIRK_NO_FLOAT64 = 8,
    VK_QUIRK_AS_GPU = 16,
    VK_QUIRK_REFUSES = 32, /* for tests, too: no pipeline of a product is made when it is tried */
};
unsigned mb__vk_quirks(uint32_t driver, const VkPhysicalDeviceProperties *props);

/* ---- product_check.c ---- */

enum { VK_UNTRIED, VK_TRUSTED, VK_WRONG };
/* Whether a product kernel computes what it should; tried at its first use. m, n: its tile. */
bool mb__vk_product_trusted(mb__vk *v, int variant, bool wide, uint32_t m, uint32_t n, uint32_t a_read,
                            uint32_t b_read, bool fours);

/* ---- product.c, other.c ---- */

bool mb__vk_add_product(mb__vk_program *p, int step, const mb__product *product);
bool mb__vk_add_other(mb__vk_program *p, int step, const mb__other *other);

/* ---- guard.c ---- */

void mb__vk_guard_fill(const mb__vk_program *p, const mb__binding *b);
bool mb__vk_guard_check(const mb__vk_program *p, const mb__binding *b);

/* ---- hazard.c ---- */

/* Marks the dispatches before which a barrier must stand; before[i] for dispatch i. */
void mb__vk_hazards(const mb__vk_program *p, bool *before);
bool mb__vk_conflict(const mb__vk_program *p, const mb__vk_touch *a, const mb__vk_touch *b);

#endif
