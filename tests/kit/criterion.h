/* SPDX-License-Identifier: MIT
 *
 * criterion.h - the checks of check.h as assertions of Criterion's. Not part of moebius.h:
 *
 *     #include <criterion/criterion.h>
 *     #include <moebius.h>
 *     #include <tests/kit/criterion.h>
 *
 *     Test(glu, is_right)
 *     {
 *         const mb_layer_case glu = {...};
 *         mb_assert_layer(&glu);
 *     }
 *
 * mb_assert_ ends the test where something is wrong, mb_expect_ goes on with it. Arguments are those of the
 * functions, without the result, whose sentence becomes the message.
 *
 * Stability: as in tensor.h.
 */
#ifndef MB_CHECK_CRITERION_H
#define MB_CHECK_CRITERION_H

#include "tests/kit/check.h"

#define MB_CRITERION_(assertion, call, ...)                                                                  \
    do {                                                                                                     \
        mb_check_result mb_checked_;                                                                         \
        mb_status mb_checked_status_ = call(__VA_ARGS__, &mb_checked_);                                      \
        assertion(mb_checked_status_ == MB_OK, "%s", mb_checked_.text);                                      \
    } while (0)

#define mb_assert_gradient(...)        MB_CRITERION_(cr_assert, mb_check_gradient, __VA_ARGS__)
#define mb_expect_gradient(...)        MB_CRITERION_(cr_expect, mb_check_gradient, __VA_ARGS__)
#define mb_assert_vmap(...)            MB_CRITERION_(cr_assert, mb_check_vmap, __VA_ARGS__)
#define mb_expect_vmap(...)            MB_CRITERION_(cr_expect, mb_check_vmap, __VA_ARGS__)
#define mb_assert_layer(...)           MB_CRITERION_(cr_assert, mb_check_layer, __VA_ARGS__)
#define mb_expect_layer(...)           MB_CRITERION_(cr_expect, mb_check_layer, __VA_ARGS__)
#define mb_assert_close_to(...)        MB_CRITERION_(cr_assert, mb_close_to, __VA_ARGS__)
#define mb_expect_close_to(...)        MB_CRITERION_(cr_expect, mb_close_to, __VA_ARGS__)
#define mb_assert_close_to_values(...) MB_CRITERION_(cr_assert, mb_close_to_values, __VA_ARGS__)
#define mb_expect_close_to_values(...) MB_CRITERION_(cr_expect, mb_close_to_values, __VA_ARGS__)

#endif
