/* SPDX-License-Identifier: MIT
 *
 * quirks.c - known driver bugs and limits that drivers do not report. A row is for a driver and a range of
 * versions; say in it what was observed, and what the workaround costs.
 */

#include "backends/vulkan/device/device.h"

static const struct quirk {
    uint32_t driver;      /* VkDriverId; 0: unknown, before Vulkan 1.2 */
    uint32_t vendor;      /* 0: any */
    uint32_t first, last; /* driver versions; last 0: all later ones */
    unsigned flags;
} table[] = {
    /* Loops end after 65535 iterations, all loops of an invocation together, whatever their condition says
     * (LP_MAX_TGSI_LOOP_ITERATIONS): sums would be wrong without an error. */
    {VK_DRIVER_ID_MESA_LLVMPIPE, 0, 0, 0, VK_QUIRK_ENDS_LOOPS},
    /* Tiles of 128x128 need more registers per invocation than these devices have. */
    {VK_DRIVER_ID_QUALCOMM_PROPRIETARY, 0, 0, 0, VK_QUIRK_NO_LARGE_TILES},
    {VK_DRIVER_ID_ARM_PROPRIETARY, 0, 0, 0, VK_QUIRK_NO_LARGE_TILES},
    {VK_DRIVER_ID_MOLTENVK, 0, 0, 0, VK_QUIRK_NO_LARGE_TILES},
    {VK_DRIVER_ID_INTEL_OPEN_SOURCE_MESA, 0, 0, 0, VK_QUIRK_NO_LARGE_TILES},
    {VK_DRIVER_ID_INTEL_PROPRIETARY_WINDOWS, 0, 0, 0, VK_QUIRK_NO_LARGE_TILES},
    {0, 0x5143, 0, 0, VK_QUIRK_NO_LARGE_TILES}, /* Qualcomm */
    {0, 0x13b5, 0, 0, VK_QUIRK_NO_LARGE_TILES}, /* ARM */
    {0, 0x8086, 0, 0, VK_QUIRK_NO_LARGE_TILES}, /* Intel */
};

unsigned mb__vk_quirks(uint32_t driver, const VkPhysicalDeviceProperties *props)
{
    unsigned flags = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct quirk *q = &table[i];
        if (q->driver == driver && (!q->vendor || q->vendor == props->vendorID) &&
            props->driverVersion >= q->first && (!q->last || props->driverVersion <= q->last))
            flags |= q->flags;
    }
    return flags;
}
