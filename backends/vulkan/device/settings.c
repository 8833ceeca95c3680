/* SPDX-License-Identifier: MIT
 * settings.c - what the environment asks of this backend, read once, when a context is opened. */
#include <math.h>
#include <stdlib.h>

#include "backends/vulkan/device/device.h"

static bool wrong(mb__vk *v, const char *name, const char *value, const char *wanted)
{
    return mb__vk_fail(v, MB_INVALID, NULL, "open: %s is \"%.40s\"; wanted %s", name, value, wanted);
}

/* Which of the words it is, counted from 1; 0: not set, or empty; -1: none of them, which is an error. */
static int word(mb__vk *v, const char *name, const char *const *words, const char *wanted)
{
    const char *value = getenv(name);
    if (!value || !*value)
        return 0;
    for (int i = 0; words[i]; i++)
        if (!strcmp(value, words[i]))
            return i + 1;
    wrong(v, name, value, wanted);
    return -1;
}

static bool flag(mb__vk *v, const char *name)
{
    static const char *const words[] = {"0", "1", NULL};
    return word(v, name, words, "0 or 1") == 2;
}

/* A number; 0: not set, or an error. */
static double number(mb__vk *v, const char *name, double least, double most, const char *wanted)
{
    const char *value = getenv(name);
    char *end;
    if (!value || !*value)
        return 0;
    double x = strtod(value, &end);
    if (!*end && x >= least && x <= most)
        return x;
    wrong(v, name, value, wanted);
    return 0;
}

static void read_fault(mb__vk *v)
{
    static const char name[] = "MB_VULKAN_FAULT";
    const char *value = getenv(name);
    char *end;
    if (!value || !*value)
        return;
    v->fail_at = strtoull(value, &end, 10);
    v->fail_with = !strcmp(end, ":memory") ? VK_ERROR_OUT_OF_DEVICE_MEMORY
                   : !strcmp(end, ":lost") ? VK_ERROR_DEVICE_LOST
                                           : VK_ERROR_INITIALIZATION_FAILED;
    if (end == value || (*end && v->fail_with == VK_ERROR_INITIALIZATION_FAILED))
        wrong(v, name, value, "a number, and :memory or :lost behind it, or neither");
}

bool mb__vk_read_settings(mb__vk *v)
{
    static const char *const validate[] = {"0", "1", "gpu", NULL}, *const limits[] = {"minimum", NULL},
                             *const barriers[] = {"every", "backwards", NULL};
    int mode = word(v, "MB_VULKAN_VALIDATE", validate, "0, 1 or gpu"),
        between = word(v, "MB_VULKAN_BARRIERS", barriers, "every or backwards");
    v->validate = mode >= 2;
    v->validate_gpu = mode == 3;
    v->labels = flag(v, "MB_VULKAN_LABELS");
    v->minimum = word(v, "MB_VULKAN_LIMITS", limits, "minimum") == 1;
    v->staging = flag(v, "MB_VULKAN_STAGING") || v->minimum;
    /* To validation, all blocks are one resource that every dispatch writes. */
    v->every_barrier = v->validate || between == 1;
    v->backwards = between == 2;
    v->batch_cost = number(v, "MB_VULKAN_BATCH", 1, (double)INFINITY, "a number of operations, 1 or more");
    v->more_quirks = (unsigned)number(v, "MB_VULKAN_QUIRKS", 0, 1 << 16, "flags of quirks.c as a number");
    read_fault(v);
    return v->failure.status == MB_OK;
}
