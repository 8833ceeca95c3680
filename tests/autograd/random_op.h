/* SPDX-License-Identifier: MIT
 * random_op.h - ops for random graphs of [3,3] tensors, in tests that compare two ways to record a graph. */
#ifndef MB_TESTS_RANDOM_OP_H
#define MB_TESTS_RANDOM_OP_H

#include <moebius.h>

/* A number below `below`; state: any to begin with. */
static inline uint32_t pick(uint32_t *state, uint32_t below)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % below;
}

/* Smooth ones, selections, products, movement, reductions; any kind beyond the last is that. */
static inline mb_tensor random_op(uint32_t kind, mb_tensor a, mb_tensor b)
{
    switch (kind) {
    case 0:
        return mb_add(a, mb_sin(b));
    case 1:
        return mb_mul(a, mb_atan(b));
    case 2:
        return mb_mul(mb_matmul(mb_sin(a), b), 0.3);
    case 3:
        return mb_sub(a, mb_mean(b, MB_KEEP(0)));
    case 4:
        return mb_concat(((mb_tensor[]){mb_slice(a, 0, 1, 2, 1), mb_slice(b, 0, 0, 1, 1)}), 2, 0);
    case 5:
        return mb_where(mb_lt(a, b), mb_transpose(a), mb_exp(mb_mul(b, 0.1)));
    case 6:
        return mb_add(mb_max(a, MB_KEEP(1)), mb_gather(mb_cummax(b, 0, false), mb_argsort(a), 1));
    default:
        return mb_cumsum(mb_sigmoid(a), 1, false);
    }
}

#endif
