/* SPDX-License-Identifier: MIT
 *
 * expect.h - what main.cpp and training.cpp count by.
 */
#ifndef EXPECT_H
#define EXPECT_H

#include <moebius.h>

#include <algorithm>
#include <cmath>
#include <string>

void expect(bool ok, const char *what, const char *site);
#define EXPECT(condition) expect(condition, #condition, MB_HERE)

inline bool is(mb_tensor t, double value)
{
    return std::fabs(mb_item(t) - value) <= 1e-5 * (1 + std::fabs(value));
}

inline bool has_shape(mb_tensor t, mb_shape want)
{
    mb_shape s = mb_shape_of(t);
    return s.rank == want.rank && std::equal(s.dim, s.dim + s.rank, want.dim);
}

/* Each function and macro of optim.h and layers.h. */
void training(mb_context *mb, const std::string &folder);

#endif
