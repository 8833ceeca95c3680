/* SPDX-License-Identifier: MIT
 * call.c - failures of Vulkan calls, also those injected by tests, and messages of the validation layer. */
#include <stdarg.h>
#include <stdio.h>

#include "backends/vulkan/device/device.h"

/* ---- failures ---- */

bool mb__vk_fail(mb__vk *v, mb_status status, const char *site, const char *format, ...)
{
    mb__vk_failure *f = &v->failure;
    if (f->status != MB_OK)
        return false;
    f->status = status;
    f->site = site;
    f->message[0] = 0;
    if (format) {
        va_list list;
        va_start(list, format);
        vsnprintf(f->message, sizeof f->message, format, list);
        va_end(list);
    }
    return false;
}

bool mb__vk_forget(mb__vk *v)
{
    if (!v->lost)
        v->failure.status = MB_OK;
    return !v->lost;
}

/* ---- results ---- */

bool mb__vk_fault(mb__vk *v)
{
    return ++v->calls == v->fail_at;
}

static const char *result_text(VkResult r)
{
    switch (r) {
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
    if (r == VK_ERROR_OUT_OF_HOST_MEMORY || r == VK_ERROR_OUT_OF_DEVICE_MEMORY)
        return mb__vk_fail(v, MB_NO_MEMORY, NULL, NULL);
    /* The message names only the function of the call's text. */
    const char *name = strstr(call, "vk");
    int n = name ? (int)strcspn(name, "( ,)") : 0;
    return mb__vk_fail(v, MB_BACKEND, NULL, "vulkan: %.*s: %s (%d)%s", n, name ? name : "", result_text(r),
                       (int)r,
                       v->lost ? "; open another context to go on: values read before are not affected" : "");
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
    if (!v->messages)
        return false;
    mb__vk_fail(v, MB_BACKEND, NULL, "vulkan: %d validation messages, the first: %s", v->messages,
                v->message);
    v->messages = 0;
    return true;
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
