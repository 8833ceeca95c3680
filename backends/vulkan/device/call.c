/* SPDX-License-Identifier: MIT
 * call.c - calls of Vulkan that fail, or are made to for tests, and what the validation layer says. */
#include <stdio.h>

#include "backends/vulkan/device/device.h"

/* ---- results ---- */

bool mb__vk_fault(mb__vk *v)
{
    return ++v->calls == v->fail_at;
}

static const char *result_text(VkResult r)
{
    switch (r) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
        return "no host memory";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
        return "no device memory";
    case VK_ERROR_DEVICE_LOST:
        return "the device was lost: its work took too long for the system's watchdog, or its driver failed";
    case VK_ERROR_INITIALIZATION_FAILED:
        return "initialisation failed";
    case VK_ERROR_INCOMPATIBLE_DRIVER:
        return "no Vulkan driver was found";
    case VK_ERROR_LAYER_NOT_PRESENT:
        return "the validation layer is not installed";
    case VK_ERROR_EXTENSION_NOT_PRESENT:
        return "an extension is not there";
    case VK_TIMEOUT:
        return "the device did not answer in time";
    default:
        return "it failed";
    }
}

bool mb__vk_ok(mb__vk *v, VkResult r, const char *call)
{
    if (r >= 0 && r != VK_TIMEOUT)
        return true;
    if (r == VK_ERROR_DEVICE_LOST || r == VK_TIMEOUT)
        v->lost = true;
    /* The call's text as written here: its name is enough. */
    const char *name = strstr(call, "vk");
    int n = name ? (int)strcspn(name, "( ,)") : 0;
    bool memory = r == VK_ERROR_OUT_OF_HOST_MEMORY || r == VK_ERROR_OUT_OF_DEVICE_MEMORY;
    mb__error(v->ctx, memory ? MB_NO_MEMORY : MB_BACKEND, "vulkan: %.*s: %s (%d)%s", n, name ? name : "",
              result_text(r), (int)r,
              v->lost ? "; open another context to go on: values read before are not affected" : "");
    return false;
}

/* ---- the validation layer ---- */

atomic_int mb__vk_unheard;

static VKAPI_ATTR VkBool32 VKAPI_CALL heard(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                            VkDebugUtilsMessageTypeFlagsEXT types,
                                            const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    (void)severity, (void)types;
    mb__vk *v = user;
    if (v->messages++ == 0)
        snprintf(v->message, sizeof v->message, "%.390s", data->pMessage);
    return VK_FALSE;
}

bool mb__vk_heard(mb__vk *v)
{
    if (v->messages && v->ctx->status == MB_OK)
        mb__error(v->ctx, MB_BACKEND, "vulkan: %d validation messages, the first: %s", v->messages,
                  v->message);
    return v->messages != 0;
}

VkDebugUtilsMessengerCreateInfoEXT mb__vk_messenger_info(mb__vk *v)
{
    return (VkDebugUtilsMessengerCreateInfoEXT){
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity =
            VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType =
            VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = heard,
        .pUserData = v};
}
