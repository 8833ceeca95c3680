/* SPDX-License-Identifier: MIT
 * hash.c - see hash.h. */
#include <xxhash.h>

#include "backends/plan/hash.h"

uint64_t mb__hash(const void *p, size_t n)
{
    return XXH3_64bits(p, n);
}
