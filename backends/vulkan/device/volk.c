/* SPDX-License-Identifier: MIT
 * volk.c - Vulkan's functions, found at run time: the library needs no Vulkan to be there. */
#define VOLK_IMPLEMENTATION
#define VK_NO_PROTOTYPES
#include <volk.h>
