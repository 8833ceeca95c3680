/* SPDX-License-Identifier: MIT
 *
 * gradcheck.h - mb_check_gradient (tests/kit/check.h), as the tests of ops call it: lists of cases, on
 * reference and cpu.
 */
#ifndef MB_TESTS_GRADCHECK_H
#define MB_TESTS_GRADCHECK_H

#include "support.h"

#define GRADCHECK_MOST 4

/* The fields of an mb_check_case that they use. */
typedef struct gradcase {
    const char *name;
    mb_tensor (*f)(mb_context *ctx, const mb_tensor *xs, const void *user);
    const void *user;
    int n;
    mb_shape shape[GRADCHECK_MOST];
    double low, high;
    int orders;
    double looser;
} gradcase;

static inline void gradcheck_both(const gradcase *cases, int n)
{
    /* On vulkan each new plan is a while in the making: of four cases one goes to the third order. The
     * reference backend has had its turn beside the cpu. */
    bool slow = testing("vulkan");
    for (int k = slow; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        for (const gradcase *c = cases; c < cases + n; c++) {
            bool whole = !slow || (c - cases) % 4 == 0 || c->orders == 1;
            mb_check_result r;
            mb_check_case check = {.name = c->name,
                                   .f = c->f,
                                   .user = c->user,
                                   .n = c->n,
                                   .low = c->low,
                                   .high = c->high,
                                   .orders = whole ? c->orders : 2,
                                   .looser = c->looser,
                                   .mode_orders = slow ? 2 : 0};
            memcpy(check.shape, c->shape, sizeof c->shape);
            expect(mb_check_gradient(ctx, &check, &r) == MB_OK, "%s", r.text);
        }
        close_all();
    }
}

#endif
