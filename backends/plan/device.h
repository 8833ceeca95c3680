/* SPDX-License-Identifier: MIT
 *
 * device.h - the description of a device to compute on. Part of backends.h.
 */
#ifndef MB_DEVICE_H
#define MB_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

/* Something that mb_open can open. */
typedef struct mb_device {
    char backend[32]; /* the name to open it by: "cpu", "vulkan:0"                                     */
    char name[256];   /* the vendor's name for it                                                       */
    char driver[64];
    char kind[16];         /* processor, discrete, integrated, virtual, other                               */
    char uuid[40];         /* of Vulkan devices, to name one whatever its position: "vulkan:<uuid>"; or ""  */
    uint64_t memory_bytes; /* of the largest heap of its own; 0: not known                             */
    uint64_t buffer_bytes; /* no single value can be larger; 0: no limit                               */
    uint32_t group_invocations, shared_bytes; /* of a compute group                                    */
    bool float64;                             /* computes in double precision                          */
} mb_device;

#endif
