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

/* To which order a case is checked; 0: not here. Rules are the same for every backend and allocator: a run
 * without TESTS_SLOW checks all that is asked for, on reference and cpu. With it memory, or a backend, is
 * looked at: one case of four goes to the third order, the others to the second, where they meet every rule.
 * On vulkan a case is as long as its kernels take to compile, and what these are made of has tests of its
 * own: of more than three cases each third, from another one on in each list; of those one in four to the
 * third order. */
static inline int gradcheck_orders(const gradcase *cases, int n, int i)
{
    int whole = cases[i].orders ? cases[i].orders : 3, most = whole, turn = i;
    for (const char *p = cases->name; *p; p++)
        turn += *p;
    if (testing("vulkan"))
        most = n > 3 && turn % 3 ? 0 : turn % 4 ? 2 : 3;
    else if (getenv("TESTS_SLOW"))
        most = i % 4 ? 2 : 3;
    return whole < most ? whole : most;
}

static inline void gradcheck_both(const gradcase *cases, int n)
{
    for (int k = testing("vulkan"); k < 2; k++) { /* reference had its turn beside the cpu */
        mb_context *ctx = open_on(backend_names[k]);
        for (const gradcase *c = cases; c < cases + n; c++) {
            int orders = gradcheck_orders(cases, n, (int)(c - cases));
            if (!orders)
                continue;
            mb_check_result r;
            mb_check_case check = {.name = c->name,
                                   .f = c->f,
                                   .user = c->user,
                                   .n = c->n,
                                   .low = c->low,
                                   .high = c->high,
                                   .orders = orders,
                                   .looser = c->looser,
                                   .mode_orders = testing("vulkan") ? 2 : 0};
            memcpy(check.shape, c->shape, sizeof c->shape);
            expect(mb_check_gradient(ctx, &check, &r) == MB_OK, "%s", r.text);
        }
        close_all();
    }
}

#endif
