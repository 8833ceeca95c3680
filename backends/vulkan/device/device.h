/* SPDX-License-Identifier: MIT
 *
 * device.h - an open device, its memory and its queue: the lowest layer of the backend.
 *
 * Failures. A function that returns false or NULL has recorded why (mb__vk_fail), or ran out of memory. A
 * caller that has a fallback clears the error (mb__vk_forget) and uses it; only backend.c reports errors to
 * the host.
 */
#ifndef MB_VULKAN_DEVICE_H
#define MB_VULKAN_DEVICE_H

#define VK_NO_PROTOTYPES
#include <stdatomic.h>
#include <volk.h>

#include "backends/plan/backend.h"
#include "backends/plan/gaps.h"

/* Drivers with room for 32 buffers need some of it for the validation layer's own. */
enum { VK_BLOCKS_MOST = 24, VK_ALIGN = 256, VK_BATCHES_MOST = 256 };

/* Of the block that transfers pass through, and of the region of the copy. */
enum { VK_STAGE_BYTES = 4 << 20, VK_REGION_WORDS = 64 };

/* NaN, infinities and the sign of zero; numbers too small for full precision (subnormal). */
enum { VK_KEEPS_NAN = 1, VK_KEEPS_SMALL = 2 };

/* The device's capabilities, after the limits that tests set. */
typedef struct mb__vk_caps {
    uint32_t blocks;       /* storage buffers that a kernel can access beside the table */
    uint64_t block_bytes;  /* of one of them, at most */
    uint32_t invocations;  /* of a group */
    uint32_t shared_bytes; /* of a group */
    uint32_t groups;       /* along an axis */
    uint32_t subgroup;     /* lanes that run together */
    uint32_t iterations;   /* an invocation may run before the driver ends its loops; 0: any number */
    bool float64;          /* kernels may compute in double precision */
    bool halves;           /* and may access 16 bits */
    unsigned modes[2];     /* VK_KEEPS_...: modes that can be requested for float32 and float64 */
    bool processor;        /* the device is a CPU: few lanes, small tiles */
    bool staging;          /* memory is not written by the host, but copied to from a block that is */
} mb__vk_caps;

/* The first error, until it is reported or cleared. MB_NO_MEMORY has no message. */
typedef struct mb__vk_failure {
    mb_status status;
    const char *site; /* of a node; NULL: the call's */
    char message[600];
} mb__vk_failure;

typedef struct mb__vk_block {
    VkBuffer buffer;
    VkDeviceMemory memory;
    uint64_t bytes, held;                    /* held: of device memory */
    unsigned char *mapped;                   /* NULL where the host cannot see it */
    mb__gap *gaps;                           /* what is not in use */
    uint32_t gap_count, gap_capacity, given; /* given: ranges in use */
} mb__vk_block;

/* What the engine holds as a value's memory. */
typedef struct mb__vk_memory {
    uint32_t block;
    uint64_t offset, bytes;
} mb__vk_memory;

/* State of the layers above, pipeline/ and program/. */
enum { VK_PIPELINE_BUCKETS = 1024 };
typedef struct mb__vk_pipeline mb__vk_pipeline;
typedef struct mb__vk_known mb__vk_known;
typedef struct mb__vk_library mb__vk_library;
struct mb__vk_pass;

typedef struct mb__vk {
    const mb__host *host;
    mb__vk_failure failure;
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
    double batch_cost;  /* of a submit batch, and about the most of a dispatch: operations */
    uint64_t submitted; /* since the device was last seen idle */
    bool lost, guard;
    /* What the environment asks for, beside batch_cost and fail_at: settings.c. */
    bool validate, validate_gpu, labels, minimum, staging, every_barrier, backwards;
    unsigned more_quirks;
    int messages; /* of the validation layer, not yet reported; see mb__vk_unheard */
    char message[400];
    uint64_t calls, fail_at; /* the call that is made to fail, counted from 1 */
    VkResult fail_with;

    mb__vk_block blocks[VK_BLOCKS_MOST]; /* one without a buffer: given back, its place is free */
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
    bool in_flight;           /* a submit whose end the fence signals */
    bool loose, hung;         /* a submit without a fence; the device never answered */
    VkCommandBuffer transfer; /* the recorded copy, by the table's first region */
    uint32_t transfer_generation;
    uint64_t transfer_region; /* bytes in the table */

    VkPipelineCache cache;
    size_t cache_bytes; /* when it was read */
    mb__vk_pipeline *pipelines[VK_PIPELINE_BUCKETS];
    mb__vk_pipeline *unused_newest, *unused_oldest, *copying; /* copying: that of `transfer` */
    size_t unused_bytes;
    mb__vk_known *known[VK_PIPELINE_BUCKETS];
    mb__vk_library *library[4]; /* the functions of generated kernels: 1 with float64, 2 with halves */
    /* Of each product kernel and type, by reading pattern: VK_UNTRIED and on. */
    uint8_t product_state[48][32];
    unsigned quirks;

    /* Tests look at each generated kernel, and may put other words in its place; those stay theirs. */
    void (*watch_kernel)(struct mb__vk *v, const mb__plan *plan, const struct mb__vk_pass *pass,
                         const uint32_t **words, uint32_t *count);

    double period;  /* nanoseconds a tick of a time stamp; 0: no time stamps */
    uint64_t ticks; /* the bits of a time stamp */
} mb__vk;

/* ---- call.c ---- */

/* Records a failure, if it is the first; returns false. format NULL: out of memory. */
bool mb__vk_fail(mb__vk *v, mb_status status, const char *site, const char *format, ...) MB_PRINTF(4, 5);
/* Clears the failure, for a caller that has a fallback. False: there is none, since the device is lost. */
bool mb__vk_forget(mb__vk *v);

/* Whether a call succeeded; if not, the failure is recorded, also that a device is lost. The call is not made
 * where a fault is injected in its place. */
#define VK(v, call) mb__vk_ok(v, mb__vk_fault(v) ? (v)->fail_with : (call), #call)
bool mb__vk_fault(mb__vk *v);
bool mb__vk_ok(mb__vk *v, VkResult r, const char *call);
/* Turns validation messages, if there were any, into a failure; they then count as reported. */
bool mb__vk_heard(mb__vk *v);

/* Number of messages that no error reported before their backend was closed: those after the last run, and
 * those about objects that were not destroyed. Only tests read it. */
extern atomic_int mb__vk_unheard;

/* The callback that receives the validation layer's messages. */
VkDebugUtilsMessengerCreateInfoEXT mb__vk_messenger_info(mb__vk *v);

/* ---- queue.c ---- */

/* Waits for the run in flight, if there is one. False, too, where the device was lost before. */
bool mb__vk_idle(mb__vk *v);
/* Submits commands to the device, in one go; the fence is signalled by the last. */
bool mb__vk_submit(mb__vk *v, const VkCommandBuffer *commands, uint32_t count, bool last);
/* Waits in any case, before what runs is freed. */
void mb__vk_settle(mb__vk *v);

/* ---- quirks.c ---- */

enum {
    VK_QUIRK_ENDS_LOOPS = 1,
    VK_QUIRK_NO_LARGE_TILES = 2,
    /* For tests: every trial of a product fails; no float64; work is spread as on a GPU, though the device is
     * a processor. */
    VK_QUIRK_WRONG_TILES = 4,
    VK_QUIRK_NO_FLOAT64 = 8,
    VK_QUIRK_AS_GPU = 16,
    VK_QUIRK_REFUSES = 32,   /* for tests, too: no pipeline is made of a product that is tried */
    VK_QUIRK_NO_HALVES = 64, /* and that the device accesses no 16 bits */
};
unsigned mb__vk_quirks(uint32_t driver, const VkPhysicalDeviceProperties *props);

/* ---- settings.c ---- */

/* Reads the MB_VULKAN_* variables of backends.h; false, with an error, where one makes no sense. batch_cost
 * is 0 where nothing is said. */
bool mb__vk_read_settings(mb__vk *v);

/* ---- device.c ---- */

/* Opens the device that `wanted` names (an index, a UUID, a part of its name; NULL: the best) and makes what
 * every use of it needs, but for memory and pipelines. */
bool mb__vk_device_open(mb__vk *v, const char *wanted);
/* After a failure, too, with whatever had been made; memory and pipelines are gone by then. */
void mb__vk_device_close(mb__vk *v);
/* False if float64 or a half is requested and not supported. */
bool mb__vk_has_type(mb__vk *v, const char *site, mb_dtype dtype);
/* The devices, as mb__backend lists them. */
int mb__vk_list(mb_device *devices, int capacity, const char **why);

/* ---- memory.c ---- */

bool mb__vk_memory_start(mb__vk *v);
void mb__vk_memory_end(mb__vk *v);
mb__vk_memory *mb__vk_memory_new(mb__vk *v, uint64_t bytes);
void mb__vk_memory_free(mb__vk *v, mb__vk_memory *place);
/* What new memory of these sizes would add to the blocks, if `freed` (NULL: nothing) went before the last.
 * False: no memory. */
bool mb__vk_memory_foresee(mb__vk *v, const size_t *bytes, int count, const mb__vk_memory *freed,
                           uint64_t *more);
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

#endif
