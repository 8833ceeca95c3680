/* SPDX-License-Identifier: MIT
 * philox.h - the definition of random draw i under a key, shared by the backends that run on the CPU. */
#ifndef MB_PHILOX_H
#define MB_PHILOX_H

#include <Random123/philox.h>

/* The four words of a block. */
static inline philox4x32_ctr_t mb__philox(uint64_t key, uint64_t block)
{
    philox4x32_ctr_t counter = {{(uint32_t)block, (uint32_t)(block >> 32), 0, 0}};
    philox4x32_key_t k = {{(uint32_t)key, (uint32_t)(key >> 32)}};
    return philox4x32(counter, k);
}

/* Signed, as vectors are converted. */
static inline float mb__unit_float(uint32_t w)
{
    return (float)(int32_t)(w >> 8) * 0x1p-24f;
}
static inline double mb__unit_double(uint32_t low, uint32_t high)
{
    return (double)(int64_t)(((uint64_t)high << 32 | low) >> 11) * 0x1p-53;
}

#endif
