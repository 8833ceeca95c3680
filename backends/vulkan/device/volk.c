/* SPDX-License-Identifier: MIT
 * volk.c - Vulkan's functions, loaded at run time: the library also works where Vulkan is not installed. */
#define VOLK_IMPLEMENTATION
#define VK_NO_PROTOTYPES
#include <volk.h>
