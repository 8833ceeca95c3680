/* SPDX-License-Identifier: MIT
 * queue.c - handing commands to the device, and waiting for it. */
#include "backends/vulkan/device/device.h"

bool mb__vk_submit(mb__vk *v, const VkCommandBuffer *commands, uint32_t count, bool last)
{
    VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = count, .pCommandBuffers = commands};
    bool ok = (!last || VK(v, v->f.vkResetFences(v->device, 1, &v->fence))) &&
              VK(v, v->f.vkQueueSubmit(v->queue, 1, &submit, last ? v->fence : VK_NULL_HANDLE));
    v->in_flight = ok && last;
    v->loose = ok ? !last : v->loose;
    v->submitted = ok ? v->submitted + 1 : v->submitted;
    v->host->counters->submits += ok;
    return ok;
}

/* A minute for each submit batch: far more than it takes, but a device that hangs is detected. A processor's
 * driver compiles a kernel when it is first run, which takes up to a second each on a busy machine. */
static VkResult wait_for_fence(mb__vk *v)
{
    bool late = v->props.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    uint64_t seconds = v->submitted * 60 + (late ? 10 * v->host->counters->pipelines : 0);
    VkResult r = v->f.vkWaitForFences(v->device, 1, &v->fence, VK_TRUE, seconds * 1000000000u);
    v->hung |= r == VK_TIMEOUT;
    return r;
}

bool mb__vk_idle(mb__vk *v)
{
    if (v->loose)
        mb__vk_settle(v);
    if (v->lost)
        return mb__vk_fail(v, MB_BACKEND, NULL, "vulkan: the device was lost; open another context to go on");
    if (!v->in_flight)
        return true;
    if (!mb__vk_ok(v, mb__vk_fault(v) ? v->fail_with : wait_for_fence(v), "vkWaitForFences"))
        return false;
    v->in_flight = false;
    v->submitted = 0;
    return true;
}

/* After an error, submitted work may still run and use memory that is about to be freed. A lost device
 * answers at once; one that hangs, never. */
void mb__vk_settle(mb__vk *v)
{
    VkResult r = VK_SUCCESS;
    if (v->loose && !v->hung) { /* work was submitted without the fence: submit it alone */
        r = v->f.vkResetFences(v->device, 1, &v->fence);
        r = r == VK_SUCCESS ? v->f.vkQueueSubmit(v->queue, 0, NULL, v->fence) : r;
    }
    if ((v->in_flight || v->loose) && !v->hung)
        r = r == VK_SUCCESS ? wait_for_fence(v) : r;
    if (r == VK_ERROR_OUT_OF_HOST_MEMORY || r == VK_ERROR_OUT_OF_DEVICE_MEMORY)
        r = v->f.vkDeviceWaitIdle(v->device);
    v->lost |= r == VK_ERROR_DEVICE_LOST || v->hung;
    v->in_flight = v->loose = false;
    v->submitted = 0;
}
