/* SPDX-License-Identifier: MIT
 *
 * cpp.h - the headers in C++, 17 or later: what takes the place of C's compound literals, _Generic and
 * cleanup attribute. Part of tensor.h.
 *
 * Everything is called as in C: mb_add(x, 0.5), mb_sum(x, MB_AXES(0, 1)), MB_SHAPE(v.size(), 3). An option
 * struct is emptied, then filled, which every version takes without a warning:
 *
 *     mb_adam_options options = {};
 *     options.lr = 1e-3;
 *     mb_optimizer *opt = mb_adam(p, options);
 *
 * Designated initialisers, mb_adam(p, {.lr = 1e-3}), are C++20: in the order of declaration, and g++ -Wextra
 * warns of each field that is left out. Several handles are passed as an array has them, mb_concat(xs.data(),
 * n, 0). Captureless lambdas serve where a struct wants a function. An exception must not leave such a
 * function: the library is C, and its frames do not unwind.
 */
#ifndef MB_CPP_H
#define MB_CPP_H

#include <type_traits>

/* Of integers and enumerators of any type, which C++ would not let into a braced list. */
template <typename... Numbers> constexpr bool mb_whole_numbers_(unsigned most)
{
    return sizeof...(Numbers) <= most &&
           ((std::is_convertible<Numbers, int64_t>::value && !std::is_floating_point<Numbers>::value) && ...);
}

template <typename... Sizes> constexpr mb_shape mb_shape_from_(Sizes... sizes)
{
    static_assert(mb_whole_numbers_<Sizes...>(MB_MAX_RANK), "MB_SHAPE wants up to MB_MAX_RANK whole numbers");
    return {static_cast<int>(sizeof...(Sizes)), {static_cast<int64_t>(sizes)...}};
}

template <typename... Axes> constexpr mb_axes mb_axes_from_(bool keep, Axes... axes)
{
    static_assert(mb_whole_numbers_<Axes...>(MB_MAX_RANK), "MB_AXES wants up to MB_MAX_RANK whole numbers");
    return {static_cast<int>(sizeof...(Axes)), keep, {static_cast<int>(axes)...}};
}

#define MB_SHAPE(...) mb_shape_from_(__VA_ARGS__)
#define MB_AXES(...)  mb_axes_from_(false, __VA_ARGS__)
#define MB_KEEP(...)  mb_axes_from_(true, __VA_ARGS__)

/* Ends with its block, also by an exception. */
class mb_site_held_
{
  public:
    mb_site_held_(mb_context *ctx, const char *site) : site_(mb_site_begin(ctx, site))
    {
    }
    ~mb_site_held_()
    {
        mb_site_end(&site_);
    }
    mb_site_held_(const mb_site_held_ &) = delete;
    mb_site_held_ &operator=(const mb_site_held_ &) = delete;

  private:
    const mb_site site_;
};
#define MB_SITE(ctx, site) const mb_site_held_ mb_site_here_(ctx, site)

#endif
