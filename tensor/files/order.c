/* SPDX-License-Identifier: MIT
 *
 * order.c - the order of examples within an epoch. */
#include "tensor/files/order.h"

/* SplitMix64 (Steele, Lea, Flood 2014): a stream for one shuffle. */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Uniform on [0, n), without bias (Lemire 2019). */
static uint32_t below(uint64_t *state, uint32_t n)
{
    uint64_t m = (next(state) >> 32) * n;
    if ((uint32_t)m < n)
        for (uint32_t least = -n % n; (uint32_t)m < least;)
            m = (next(state) >> 32) * n;
    return (uint32_t)(m >> 32);
}

void mb__shuffle(mb_key key, uint64_t epoch, uint32_t *order, uint32_t n)
{
    uint64_t state = mb_key_fold(key, epoch).bits;
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = below(&state, i), o = order[i - 1];
        order[i - 1] = order[j];
        order[j] = o;
    }
}
