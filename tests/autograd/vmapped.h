/* SPDX-License-Identifier: MIT
 *
 * vmapped.h - mb_check_vmap (tests/kit/check.h), as the tests of batching rules call it: lists of cases,
 * on reference and cpu.
 */
#ifndef MB_TESTS_VMAPPED_H
#define MB_TESTS_VMAPPED_H

#include "support.h"

enum { OPERANDS = 4 };

/* The fields of an mb_check_case that they use. */
typedef struct mapped {
    const char *name;
    mb_tensor (*f)(mb_context *ctx, const mb_tensor *xs, const void *user);
    const void *user;
    int n;
    mb_shape shape[OPERANDS];
    double low, high;
    mb_dtype dtype[OPERANDS];
    int orders;
    double looser;
} mapped;

static inline void vmapped(const mapped *cases, int count)
{
    bool few = testing("vulkan"); /* where each new plan is a while in the making */
    for (int b = few; b < 2; b++) {
        mb_context *ctx = open_on(backend_names[b]);
        for (const mapped *c = cases; c < cases + count; c += few ? 6 : 1) {
            mb_check_result r;
            mb_check_case check = {.name = c->name,
                                   .f = c->f,
                                   .user = c->user,
                                   .n = c->n,
                                   .low = c->low,
                                   .high = c->high,
                                   .orders = few ? 1 : c->orders,
                                   .looser = c->looser};
            memcpy(check.shape, c->shape, sizeof c->shape);
            memcpy(check.dtype, c->dtype, sizeof c->dtype);
            expect(mb_check_vmap(ctx, &check, &r) == MB_OK, "%s", r.text);
        }
        close_all();
    }
}

#endif
