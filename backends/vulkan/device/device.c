/* SPDX-License-Identifier: MIT
 * device.c - finding, choosing and opening a Vulkan device; listing them. */
#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "backends/vulkan/device/device.h"

/* volk keeps the loader's functions in globals: they are filled once, under this lock. */
static pthread_mutex_t loader_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- instances ---- */

static VkResult make_instance(mb__vk *v, VkInstance *instance)
{
    static const char *const layers[] = {"VK_LAYER_KHRONOS_validation"},
                             *const extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME};
    VkApplicationInfo app = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                             .pApplicationName = "moebius",
                             .pEngineName = "moebius",
                             .apiVersion = VK_API_VERSION_1_2};
    VkValidationFeatureEnableEXT enables[2] = {VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT,
                                               VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT};
    VkValidationFeaturesEXT features = {.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
                                        .enabledValidationFeatureCount = 1,
                                        .pEnabledValidationFeatures = enables + v->validate_gpu};
    VkDebugUtilsMessengerCreateInfoEXT messenger = mb__vk_messenger_info(v);
    messenger.pNext = &features;
    VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &app};
    if (v->validate) {
        info.pNext = &messenger;
        info.enabledLayerCount = 1;
        info.ppEnabledLayerNames = layers;
    }
    if (v->validate || v->labels) {
        info.enabledExtensionCount = 1;
        info.ppEnabledExtensionNames = extensions;
    }
    pthread_mutex_lock(&loader_lock);
    VkResult r = volkGetInstanceVersion() || volkInitialize() == VK_SUCCESS ? VK_SUCCESS
                                                                            : VK_ERROR_INCOMPATIBLE_DRIVER;
    if (r == VK_SUCCESS)
        r = vkCreateInstance(&info, NULL, instance);
    if (r == VK_SUCCESS)
        volkLoadInstanceOnly(*instance);
    pthread_mutex_unlock(&loader_lock);
    return r;
}

/* ---- devices ---- */

typedef struct candidate {
    VkPhysicalDevice device;
    VkPhysicalDeviceProperties props;
    uint8_t uuid[VK_UUID_SIZE];
    uint64_t heap; /* bytes of its largest local heap */
    bool float64, halves;
    int score;
    char driver[64];
} candidate;

static const int type_score[] = {[VK_PHYSICAL_DEVICE_TYPE_OTHER] = 1,
                                 [VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU] = 3,
                                 [VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU] = 4,
                                 [VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU] = 2,
                                 [VK_PHYSICAL_DEVICE_TYPE_CPU] = 0};

static candidate describe(VkPhysicalDevice device)
{
    candidate c = {.device = device};
    vkGetPhysicalDeviceProperties(device, &c.props);
    VkPhysicalDeviceDriverProperties driver = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
    VkPhysicalDeviceIDProperties id = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES,
                                       .pNext = c.props.apiVersion >= VK_API_VERSION_1_2 ? &driver : NULL};
    VkPhysicalDeviceProperties2 props = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                         .pNext = &id};
    if (c.props.apiVersion >= VK_API_VERSION_1_1)
        vkGetPhysicalDeviceProperties2(device, &props);
    memcpy(c.uuid, id.deviceUUID, sizeof c.uuid);
    snprintf(c.driver, sizeof c.driver, "%.40s", driver.driverName[0] ? driver.driverName : "");
    VkPhysicalDeviceMemoryProperties memory;
    vkGetPhysicalDeviceMemoryProperties(device, &memory);
    for (uint32_t i = 0; i < memory.memoryHeapCount; i++)
        if (memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT &&
            memory.memoryHeaps[i].size > c.heap)
            c.heap = memory.memoryHeaps[i].size;
    VkPhysicalDeviceFeatures features;
    vkGetPhysicalDeviceFeatures(device, &features);
    c.float64 = features.shaderFloat64;
    VkPhysicalDevice16BitStorageFeatures short_words = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES};
    VkPhysicalDeviceFeatures2 more = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                      .pNext = &short_words};
    if (c.props.apiVersion >= VK_API_VERSION_1_1)
        vkGetPhysicalDeviceFeatures2(device, &more);
    c.halves = short_words.storageBuffer16BitAccess;
    c.score = (unsigned)c.props.deviceType < 5 ? type_score[c.props.deviceType] : 0;
    if (c.props.apiVersion < VK_API_VERSION_1_1 || !features.shaderStorageBufferArrayDynamicIndexing)
        c.score = -1;
    return c;
}

enum { DEVICES_MOST = 32 };

/* Usable devices, best first; one that several drivers offer is listed once. */
static int list_devices(VkInstance instance, candidate *out)
{
    VkPhysicalDevice found[DEVICES_MOST];
    uint32_t n = DEVICES_MOST;
    int count = 0;
    VkResult r = vkEnumeratePhysicalDevices(instance, &n, found);
    if (r != VK_SUCCESS && r != VK_INCOMPLETE)
        return 0;
    for (uint32_t i = 0; i < n; i++) {
        candidate c = describe(found[i]);
        bool known = c.score < 0;
        static const uint8_t none[VK_UUID_SIZE];
        for (int j = 0; j < count && !known; j++)
            known = memcmp(c.uuid, none, sizeof none) && !memcmp(c.uuid, out[j].uuid, sizeof c.uuid);
        if (known)
            continue;
        int at = count++;
        for (; at > 0 &&
               (out[at - 1].score < c.score || (out[at - 1].score == c.score && out[at - 1].heap < c.heap));
             at--)
            out[at] = out[at - 1];
        out[at] = c;
    }
    return count;
}

static void uuid_text(const uint8_t *uuid, char *out)
{
    for (unsigned i = 0; i < VK_UUID_SIZE; i++)
        out += sprintf(out, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

static bool contains(const char *text, const char *part)
{
    size_t n = strlen(part);
    for (; *text; text++) {
        size_t i = 0;
        while (i < n && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i]))
            i++;
        if (i == n)
            return true;
    }
    return false;
}

/* By index, UUID or part of the name; NULL: the best. */
static const candidate *choose(const candidate *c, int count, const char *wanted)
{
    if (!wanted || !*wanted)
        return count ? &c[0] : NULL;
    char *end;
    long index = strtol(wanted, &end, 10);
    if (!*end && index >= 0 && index < count)
        return &c[index]; /* a larger number may be part of a name, such as 4090 */
    for (int i = 0; i < count; i++) {
        char text[40];
        uuid_text(c[i].uuid, text);
        if (!strcmp(text, wanted))
            return &c[i];
    }
    for (int i = 0; i < count; i++)
        if (contains(c[i].props.deviceName, wanted) || contains(c[i].driver, wanted))
            return &c[i];
    return NULL;
}

static const char none_found[] =
    "no Vulkan device was found; install the driver of your GPU (mesa-vulkan-drivers, or NVIDIA's; without a "
    "display NVIDIA's needs libX11 and libXext, or an ICD file whose library_path is libEGL_nvidia.so.0, and "
    "in a container the capability \"graphics\")";
static const char no_loader[] =
    "Vulkan is not installed here (libvulkan.so.1 was not found); install libvulkan1 and the driver of your "
    "GPU";

int mb__vk_list(mb_device *devices, int capacity, const char **why)
{
    mb__vk v = {0};
    VkInstance instance;
    VkResult r = make_instance(&v, &instance);
    if (r != VK_SUCCESS) {
        *why = volkGetInstanceVersion() ? none_found : no_loader;
        return 0;
    }
    candidate c[DEVICES_MOST];
    int count = list_devices(instance, c);
    static const char *const kinds[] = {"other", "integrated", "discrete", "virtual", "processor"};
    for (int i = 0; i < count && i < capacity; i++) {
        const VkPhysicalDeviceLimits *l = &c[i].props.limits;
        mb_device *d = &devices[i];
        *d = (mb_device){.memory_bytes = c[i].heap,
                         .buffer_bytes = l->maxStorageBufferRange,
                         .group_invocations = l->maxComputeWorkGroupInvocations,
                         .shared_bytes = l->maxComputeSharedMemorySize,
                         .float64 = c[i].float64};
        snprintf(d->backend, sizeof d->backend, "vulkan:%d", i);
        snprintf(d->name, sizeof d->name, "%s", c[i].props.deviceName);
        snprintf(d->driver, sizeof d->driver, "%s", c[i].driver);
        snprintf(d->kind, sizeof d->kind, "%s",
                 (unsigned)c[i].props.deviceType < 5 ? kinds[c[i].props.deviceType] : "other");
        uuid_text(c[i].uuid, d->uuid);
    }
    if (count == 0)
        *why = none_found;
    vkDestroyInstance(instance, NULL);
    return count;
}

/* ---- opening ---- */

/* The capabilities of a device; with MB_VULKAN_LIMITS=minimum those that Vulkan guarantees, so that the
 * simplest path can be tested. */
static void find_caps(mb__vk *v, const candidate *c)
{
    const VkPhysicalDeviceLimits *l = &c->props.limits;
    bool minimum = v->minimum;
    VkPhysicalDeviceDriverProperties driver = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
    VkPhysicalDeviceFloatControlsProperties floats = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FLOAT_CONTROLS_PROPERTIES, .pNext = &driver};
    bool v12 = c->props.apiVersion >= VK_API_VERSION_1_2;
    VkPhysicalDeviceMaintenance3Properties most = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES, .pNext = v12 ? &floats : NULL};
    VkPhysicalDeviceSubgroupProperties subgroup = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES, .pNext = &most};
    VkPhysicalDeviceProperties2 props = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                         .pNext = &subgroup};
    vkGetPhysicalDeviceProperties2(c->device, &props);
    v->quirks = mb__vk_quirks(driver.driverID, &c->props) | v->more_quirks;
    /* Whether the modes of one float width must equal those of the others, such as float16, which is not
     * used. */
    int apart = floats.denormBehaviorIndependence == VK_SHADER_FLOAT_CONTROLS_INDEPENDENCE_ALL
                    ? 2
                    : floats.denormBehaviorIndependence == VK_SHADER_FLOAT_CONTROLS_INDEPENDENCE_32_BIT_ONLY;
    uint32_t buffers = l->maxPerStageDescriptorStorageBuffers;
    uint64_t range = l->maxStorageBufferRange;
    range =
        (range < most.maxMemoryAllocationSize ? range : most.maxMemoryAllocationSize) / VK_ALIGN * VK_ALIGN;
    v->caps = (mb__vk_caps){
        .invocations = l->maxComputeWorkGroupInvocations,
        .shared_bytes = l->maxComputeSharedMemorySize,
        .groups = l->maxComputeWorkGroupCount[0] < 65535 ? l->maxComputeWorkGroupCount[0] : 65535,
        .float64 = c->float64 && !(v->quirks & VK_QUIRK_NO_FLOAT64),
        .halves = c->halves && !(v->quirks & VK_QUIRK_NO_HALVES),
        .modes = {(floats.shaderSignedZeroInfNanPreserveFloat32 ? VK_KEEPS_NAN : 0) |
                      (floats.shaderDenormPreserveFloat32 && apart ? VK_KEEPS_SMALL : 0),
                  (floats.shaderSignedZeroInfNanPreserveFloat64 ? VK_KEEPS_NAN : 0) |
                      (floats.shaderDenormPreserveFloat64 && apart == 2 ? VK_KEEPS_SMALL : 0)},
        .processor = c->props.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU && !(v->quirks & VK_QUIRK_AS_GPU),
        .staging = v->staging,
        .subgroup = subgroup.subgroupSize ? subgroup.subgroupSize : 1,
        .iterations = v->quirks & VK_QUIRK_ENDS_LOOPS ? 60000 : 0,
    };
    if (minimum) {
        buffers = 4;
        range = range < 1u << 27 ? range : 1u << 27;
        v->caps.invocations = 128;
        v->caps.shared_bytes = 16384;
        v->caps.modes[0] = v->caps.modes[1] = 0;
    }
    buffers = buffers - 1 < l->maxPerStageResources - 1 ? buffers - 1 : l->maxPerStageResources - 1;
    v->caps.blocks = buffers < VK_BLOCKS_MOST ? buffers : VK_BLOCKS_MOST;
    v->caps.block_bytes = range;
}

static bool make_device(mb__vk *v, const candidate *c)
{
    VkQueueFamilyProperties families[32];
    uint32_t n = 32, best = UINT32_MAX;
    vkGetPhysicalDeviceQueueFamilyProperties(c->device, &n, families);
    for (uint32_t i = 0; i < n; i++) /* prefer a family for compute only */
        if (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT &&
            (best == UINT32_MAX || (families[best].queueFlags & VK_QUEUE_GRAPHICS_BIT &&
                                    !(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT))))
            best = i;
    if (best == UINT32_MAX)
        return mb__vk_fail(v, MB_BACKEND, NULL, "vulkan: %s has no queue that computes", c->props.deviceName);
    v->family = best;
    uint32_t bits = families[best].timestampValidBits;
    v->period = bits ? (double)c->props.limits.timestampPeriod : 0;
    v->ticks = bits < 64 ? ((uint64_t)1 << bits) - 1 : UINT64_MAX;
    float priority = 1;
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                     .queueFamilyIndex = best,
                                     .queueCount = 1,
                                     .pQueuePriorities = &priority};
    VkPhysicalDeviceFeatures features = {.shaderStorageBufferArrayDynamicIndexing = VK_TRUE,
                                         .shaderFloat64 = c->float64};
    VkPhysicalDevice16BitStorageFeatures short_words = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES,
        .storageBuffer16BitAccess = VK_TRUE};
    VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                               .pNext = c->halves ? &short_words : NULL,
                               .queueCreateInfoCount = 1,
                               .pQueueCreateInfos = &queue,
                               .pEnabledFeatures = &features};
    if (!VK(v, vkCreateDevice(c->device, &info, NULL, &v->device)))
        return false;
    volkLoadDeviceTable(&v->f, v->device);
    v->f.vkGetDeviceQueue(v->device, best, 0, &v->queue);
    return true;
}

static bool make_objects(mb__vk *v)
{
    VkDescriptorSetLayoutBinding bindings[2] = {{.binding = 0,
                                                 .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                                 .descriptorCount = 1,
                                                 .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT},
                                                {.binding = 1,
                                                 .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                                 .descriptorCount = v->caps.blocks,
                                                 .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT}};
    VkDescriptorSetLayoutCreateInfo layout = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
                                              .bindingCount = 2,
                                              .pBindings = bindings};
    if (!VK(v, v->f.vkCreateDescriptorSetLayout(v->device, &layout, NULL, &v->set_layout)))
        return false;
    VkPushConstantRange push = {.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .size = 8};
    VkPipelineLayoutCreateInfo pipelines = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                            .setLayoutCount = 1,
                                            .pSetLayouts = &v->set_layout,
                                            .pushConstantRangeCount = 1,
                                            .pPushConstantRanges = &push};
    if (!VK(v, v->f.vkCreatePipelineLayout(v->device, &pipelines, NULL, &v->pipeline_layout)))
        return false;
    VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1 + v->caps.blocks};
    VkDescriptorPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                       .maxSets = 1,
                                       .poolSizeCount = 1,
                                       .pPoolSizes = &size};
    if (!VK(v, v->f.vkCreateDescriptorPool(v->device, &pool, NULL, &v->descriptor_pool)))
        return false;
    VkDescriptorSetAllocateInfo set = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                       .descriptorPool = v->descriptor_pool,
                                       .descriptorSetCount = 1,
                                       .pSetLayouts = &v->set_layout};
    if (!VK(v, v->f.vkAllocateDescriptorSets(v->device, &set, &v->set)))
        return false;
    VkCommandPoolCreateInfo commands = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                        .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                        .queueFamilyIndex = v->family};
    if (!VK(v, v->f.vkCreateCommandPool(v->device, &commands, NULL, &v->command_pool)))
        return false;
    VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    return VK(v, v->f.vkCreateFence(v->device, &fence, NULL, &v->fence));
}

bool mb__vk_device_open(mb__vk *v, const char *wanted)
{
    if (!mb__vk_read_settings(v))
        return false;
    VkResult r = mb__vk_fault(v) ? v->fail_with : make_instance(v, &v->instance);
    if (r == VK_ERROR_INCOMPATIBLE_DRIVER)
        return mb__vk_fail(v, MB_BACKEND, NULL, "vulkan: %s",
                           volkGetInstanceVersion() ? none_found : no_loader);
    if (!mb__vk_ok(v, r, "vkCreateInstance")) {
        v->instance = VK_NULL_HANDLE;
        return false;
    }
    v->begin_label = vkCmdBeginDebugUtilsLabelEXT;
    v->end_label = vkCmdEndDebugUtilsLabelEXT;
    v->destroy_messenger = vkDestroyDebugUtilsMessengerEXT;
    v->labels = v->labels && v->begin_label && v->end_label;
    if (v->validate && vkCreateDebugUtilsMessengerEXT && v->destroy_messenger) {
        VkDebugUtilsMessengerCreateInfoEXT info = mb__vk_messenger_info(v);
        if (!VK(v, vkCreateDebugUtilsMessengerEXT(v->instance, &info, NULL, &v->messenger)))
            return false;
    }
    candidate list[DEVICES_MOST];
    int count = list_devices(v->instance, list);
    const candidate *c = choose(list, count, wanted);
    if (!c && count == 0)
        return mb__vk_fail(v, MB_BACKEND, NULL, "vulkan: %s", none_found);
    if (!c)
        return mb__vk_fail(
            v, MB_BACKEND, NULL,
            "vulkan: no device is \"%s\"; wanted an index below %d, a UUID or a part of a name, "
            "such as \"%s\"",
            wanted, count, list[0].props.deviceName);
    v->physical = c->device;
    v->props = c->props;
    vkGetPhysicalDeviceMemoryProperties(v->physical, &v->memory);
    find_caps(v, c);
    /* Operating systems abort work that occupies a device for more than a second or two. */
    if (v->batch_cost == 0)
        v->batch_cost = c->props.deviceType == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU ? 1e10 : 3e10;
    return make_device(v, c) && make_objects(v);
}

void mb__vk_device_close(mb__vk *v)
{
    if (v->device && !v->hung) { /* a device that hangs is not freed */
        v->f.vkDestroyFence(v->device, v->fence, NULL);
        v->f.vkDestroyCommandPool(v->device, v->command_pool, NULL);
        v->f.vkDestroyDescriptorPool(v->device, v->descriptor_pool, NULL);
        v->f.vkDestroyPipelineLayout(v->device, v->pipeline_layout, NULL);
        v->f.vkDestroyDescriptorSetLayout(v->device, v->set_layout, NULL);
        v->f.vkDestroyDevice(v->device, NULL);
    }
    if (v->messenger)
        v->destroy_messenger(v->instance, v->messenger, NULL);
    if (v->instance && !v->hung)
        vkDestroyInstance(v->instance, NULL);
    atomic_fetch_add(&mb__vk_unheard, v->messages);
}

bool mb__vk_has_type(mb__vk *v, const char *site, mb_dtype dtype)
{
    if (mb__is_half((int)dtype) && !v->caps.halves)
        return mb__vk_fail(v, MB_BACKEND, site, "vulkan: %s accesses no 16 bits, and %s was wanted",
                           v->props.deviceName, mb_dtype_name(dtype));
    if (dtype != MB_FLOAT64 || v->caps.float64)
        return true;
    return mb__vk_fail(v, MB_BACKEND, site, "vulkan: %s computes in float32 only, and float64 was wanted",
                       v->props.deviceName);
}
