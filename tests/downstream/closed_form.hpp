/* SPDX-License-Identifier: MIT
 *
 * closed_form.hpp - what the tests of the C++ wrapper count by. */
#ifndef CLOSED_FORM_HPP
#define CLOSED_FORM_HPP

#include "../../examples/cpp/moebius.hpp"

#include <cmath>

using moebius::Context;
using moebius::Error;
using moebius::Scope;
using moebius::Tensor;
using moebius::Tensors;

inline int passed, failed;

inline std::string place(const char *file, int line)
{
    const std::string path = file;
    return path.substr(path.find_last_of('/') + 1) + ":" + std::to_string(line) + ": ";
}

inline void expect(bool ok, const char *what, int line = __builtin_LINE(),
                   const char *file = __builtin_FILE())
{
    (ok ? passed : failed)++;
    if (!ok)
        std::printf("FAILED: %s%s\n", place(file, line).c_str(), what);
}

/* Float64 of a few operations: 1e-12 is thousands of roundings. */
inline void equal(Tensor x, const std::vector<double> &want, int line = __builtin_LINE(),
                  const char *file = __builtin_FILE())
{
    const std::vector<double> got = x.values<double>();
    bool same = got.size() == want.size();
    for (size_t i = 0; same && i < want.size(); i++)
        same = std::fabs(got[i] - want[i]) <= 1e-12 * (1 + std::fabs(want[i]));
    expect(same, "not the values of the closed form", line, file);
}

/* Whether read() throws an Error of this status, whose sentence has `part` and begins with this file and that
 * line. */
template <typename Read>
void throws(Read read, mb_status status, const char *part, int at, const char *file = __builtin_FILE())
{
    try {
        read();
        expect(false, "nothing was thrown", at, file);
    } catch (const Error &error) {
        const std::string site = place(file, at), said = error.what();
        const size_t found = said.find(site);
        expect(error.status() == status, said.c_str(), at, file);
        expect(said.find(part) != std::string::npos, said.c_str(), at, file);
        expect(found != std::string::npos && said.find(": ") > found, said.c_str(), at, file);
    }
}

inline double at(Tensor x, size_t i = 0)
{
    return x.values<double>().at(i);
}

#endif
