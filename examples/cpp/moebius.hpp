/* SPDX-License-Identifier: MIT
 *
 * moebius.hpp - Moebius in C++17: tensors with operators, owners that clean up, errors that are thrown.
 *
 *     moebius::Context mb;                                 // $MB_BACKEND, or the best there is
 *     moebius::Tensor x = mb.scalar(2.0);                  // a double: float64; 2.0f: float32
 *     moebius::Tensor y = 0.5 * x * x + sin(x), dy = grad(y, x);
 *     std::printf("%g %g\n", grad(dy, x).item(), dy.item());
 *
 * One header over the C interface, which it leaves as it is: copy it, and link with the library. What it has
 * no function for is called as in C: a Tensor becomes an mb_tensor and back by itself, a Context gives its
 * mb_context by get(), and so do Params and Optimizer.
 *
 * Recording. Functions of tensors are those of the headers without mb_, found by their arguments, so that
 * matmul(x, w) needs no namespace, and moebius::concat({x, y}, 0) does. The other operand of a binary op may
 * be a number. == would compare handles, or elements: neither is here, eq and ne compare elements.
 *
 * Errors. Recording throws none: the first mistake sticks, as in C, and is thrown as an Error where numbers
 * or files are read or written (item, values, eval, Scope::end, save) and by Context::check. Its sentence
 * begins with the file and line of the call; there are no macros. Sites cost a look-up for each op.
 *
 * Left to C, where Tensors pass as they are: layers, as in
 *
 *     mb_linear f1 = mb_linear_new(params.get(), "f1", 784, 128);
 *     moebius::Tensor h = moebius::gelu(mb_linear_apply(f1, x));
 *
 * with attention along a sequence and linear transformers among them; ops of one's own (custom_op.h); forward
 * rules of custom_gradient; image sets and IDX files; mb_watch; allocators, backends of one's own, devices,
 * checks of layers (check.h).
 *
 * Ownership. Context, Params, Optimizer and Scope are moved, not copied, and end in reverse order of their
 * beginning, as local variables do: so declare the context first, which tensors do not outlive. Destructors
 * do not throw; a scope whose end should tell of an error that a flush finds is ended by end().
 *
 * Functions that derivatives ask again (grad_mixed, fixed_point, root, minimize, custom_gradient) are copied
 * to the tape: their captures are numbers and the like, and what they read of tensors comes in by arguments.
 *
 * Exceptions leave the bodies of checkpoint, scan, vmap and of taps, which then end without results. Those of
 * functions that the library itself calls, as a tap's, cannot pass through C: they become the context's
 * error, with their words.
 */
#ifndef MOEBIUS_HPP
#define MOEBIUS_HPP

#include <moebius.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace moebius
{

#define MOEBIUS_CALLER_ const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* ----------------------------------------------------------------------------------- errors and sites -- */

class Error : public std::runtime_error
{
  public:
    Error(mb_status status, const std::string &sentence) : std::runtime_error(sentence), status_(status)
    {
    }
    mb_status status() const noexcept
    {
        return status_;
    }

  private:
    mb_status status_;
};

/* Throws the context's error, if there is one. */
inline void check(const mb_context *ctx)
{
    if (mb_error(ctx) != MB_OK)
        throw Error(mb_error(ctx), mb_message(ctx));
}

/* "file.cpp:41", to live as long as the context; without memory, the file alone. */
inline const char *site(mb_context *ctx, const char *file, int line) noexcept
{
    char text[1024];
    std::snprintf(text, sizeof text, "%s:%d", file, line);
    const char *interned = mb_intern_site(ctx, text);
    return interned ? interned : file;
}

namespace detail
{

/* Ends a bracket. That one which an exception leaves lacks something is no error. */
template <typename End> void leave(bool thrown, mb_context *ctx, End end) noexcept
{
    const bool clean = mb_error(ctx) == MB_OK;
    end();
    if (thrown && clean)
        mb_clear_error(ctx);
}

/* key, value, key, value, ..., NULL. */
inline std::vector<const char *> pairs(const std::map<std::string, std::string> &texts)
{
    std::vector<const char *> pairs;
    for (const auto &[key, value] : texts)
        pairs.insert(pairs.end(), {key.c_str(), value.c_str()});
    pairs.push_back(nullptr);
    return pairs;
}

/* The status of a call by the library; what it throws, which C's frames would not unwind, becomes the error.
 */
template <typename Call> mb_status contained(mb_context *ctx, const char *here, Call call) noexcept
{
    try {
        call();
    } catch (const Error &error) {
        mb_fail_at(here, ctx, error.status(), "%s", error.what());
    } catch (const std::exception &error) {
        mb_fail_at(here, ctx, MB_INVALID, "%s", error.what());
    } catch (...) {
        mb_fail_at(here, ctx, MB_INVALID, "something was thrown that is no std::exception");
    }
    return mb_error(ctx);
}

} // namespace detail

/* -------------------------------------------------------------------------------------- dtypes, shapes -- */

template <typename T> constexpr mb_dtype dtype_of() noexcept
{
    constexpr bool truth = std::is_same_v<T, bool> || std::is_same_v<T, std::uint8_t>;
    static_assert(truth || std::is_same_v<T, float> || std::is_same_v<T, double> ||
                      std::is_same_v<T, std::int32_t>,
                  "values are float, double, int32_t or bool, which is read as uint8_t");
    return truth                       ? MB_BOOL
           : std::is_same_v<T, float>  ? MB_FLOAT32
           : std::is_same_v<T, double> ? MB_FLOAT64
                                       : MB_INT32;
}

/* {64, 784}; {} is the shape of a single value. Too many sizes are an error where the shape is used. */
class Shape
{
  public:
    Shape(mb_shape shape) noexcept : shape_(shape)
    {
    }
    Shape(std::initializer_list<std::int64_t> sizes) noexcept : shape_()
    {
        shape_.rank = static_cast<int>(sizes.size());
        std::copy_n(sizes.begin(), std::min<std::size_t>(sizes.size(), MB_MAX_RANK), shape_.dim);
    }
    operator mb_shape() const noexcept
    {
        return shape_;
    }

  private:
    mb_shape shape_;
};

/* What to reduce over: 1, {0, -1}, or nothing, for every axis; Axes::keep leaves them with size 1. */
class Axes
{
  public:
    Axes() noexcept : axes_(MB_ALL)
    {
    }
    Axes(int axis) noexcept : Axes({axis})
    {
    }
    Axes(mb_axes axes) noexcept : axes_(axes)
    {
    }
    Axes(std::initializer_list<int> axes) noexcept : axes_()
    {
        axes_.count = static_cast<int>(axes.size());
        std::copy_n(axes.begin(), std::min<std::size_t>(axes.size(), MB_MAX_RANK), axes_.axis);
    }
    static Axes keep(Axes axes = Axes()) noexcept
    {
        axes.axes_.keep = true;
        return axes;
    }
    operator mb_axes() const noexcept
    {
        return axes_;
    }

  private:
    mb_axes axes_;
};

/* ------------------------------------------------------------------------------------------- tensors -- */

/* A handle, copied freely: it dies with the scope it was made in. */
class Tensor
{
  public:
    Tensor() noexcept : handle_()
    {
    }
    Tensor(mb_tensor handle) noexcept : handle_(handle)
    {
    }
    operator mb_tensor() const noexcept
    {
        return handle_;
    }
    mb_context *context() const noexcept
    {
        return handle_.ctx;
    }
    mb_shape shape() const noexcept
    {
        return mb_shape_of(handle_);
    }
    std::int64_t dim(int axis) const noexcept
    {
        return mb_dim(handle_, axis);
    }
    std::int64_t count() const noexcept
    {
        return mb_count(handle_);
    }
    mb_dtype dtype() const noexcept
    {
        return mb_dtype_of(handle_);
    }

    /* The single element. A flush; throws. */
    double item(const char *file = __builtin_FILE(), int line = __builtin_LINE()) const
    {
        refuse_null(file, line);
        double value = mb_item_at(site(context(), file, line), handle_);
        check(context());
        return value;
    }

    /* All elements, row-major, as what they are: values<double>() of a float64. A flush; throws. */
    template <typename T>
    std::vector<T> values(const char *file = __builtin_FILE(), int line = __builtin_LINE()) const
    {
        refuse_null(file, line);
        const char *here = site(context(), file, line);
        if (mb_valid(handle_) && dtype() != dtype_of<T>())
            mb_fail_at(here, context(), MB_INVALID, "values: of dtype %s, asked for as %s",
                       mb_dtype_name(dtype()), mb_dtype_name(dtype_of<T>()));
        check(context());
        std::vector<T> values(static_cast<std::size_t>(count()));
        mb_read_at(here, handle_, values.data(), values.size() * sizeof(T));
        check(context());
        return values;
    }

  private:
    void refuse_null(const char *file, int line) const
    {
        if (!handle_.ctx)
            throw Error(MB_INVALID,
                        std::string(file) + ":" + std::to_string(line) + ": a null tensor is read");
    }

    mb_tensor handle_;
};

using Tensors = std::vector<Tensor>;

/* A tensor as an argument, and where the call is: made where a function of tensors is called. */
class Arg
{
  public:
    Arg(const Tensor &tensor, const char *file = __builtin_FILE(), int line = __builtin_LINE()) noexcept
        : tensor_(tensor), file_(file), line_(line)
    {
    }
    Arg(mb_tensor tensor, const char *file = __builtin_FILE(), int line = __builtin_LINE()) noexcept
        : tensor_(tensor), file_(file), line_(line)
    {
    }
    operator mb_tensor() const noexcept
    {
        return tensor_;
    }
    mb_context *context() const noexcept
    {
        return tensor_.ctx;
    }
    const char *here() const noexcept
    {
        return site(tensor_.ctx, file_, line_);
    }
    const char *file() const noexcept
    {
        return file_;
    }
    int line() const noexcept
    {
        return line_;
    }

  private:
    mb_tensor tensor_;
    const char *file_;
    int line_;
};

/* The same, or a number, which is bound at run time, as by mb_scalar. */
class Operand
{
  public:
    Operand(const Tensor &tensor, const char *file = __builtin_FILE(), int line = __builtin_LINE()) noexcept
        : tensor_(tensor, file, line)
    {
    }
    template <typename Number, std::enable_if_t<std::is_arithmetic_v<Number>, int> = 0>
    Operand(Number number, const char *file = __builtin_FILE(), int line = __builtin_LINE()) noexcept
        : tensor_(Tensor(), file, line), number_(static_cast<double>(number)), is_number_(true)
    {
    }
    bool is_number() const noexcept
    {
        return is_number_;
    }
    double number() const noexcept
    {
        return number_;
    }
    const Arg &tensor() const noexcept
    {
        return tensor_;
    }
    /* A number becomes a tensor of the other's context and dtype. */
    mb_tensor beside(const Arg &other, mb_dtype dtype) const noexcept
    {
        return is_number_ ? mb_scalar_at(other.here(), other.context(), dtype, number_) : mb_tensor(tensor_);
    }

  private:
    Arg tensor_;
    double number_ = 0;
    bool is_number_ = false;
};

/* ------------------------------------------------------------------------------------ elementwise ops -- */

/* The rows of the op table. Those of truth values are the operators !, & and | below: C++ has their names. */
#define MOEBIUS_UNARY_(name)                                                                                 \
    inline Tensor name(Arg x) noexcept                                                                       \
    {                                                                                                        \
        return mb_##name##_at(x.here(), x);                                                                  \
    }
#define MOEBIUS_BINARY_(name)                                                                                \
    inline Tensor name(Operand a, Operand b) noexcept                                                        \
    {                                                                                                        \
        if (a.is_number())                                                                                   \
            return mb_##name##_left_at(b.tensor().here(), a.number(), b.tensor());                           \
        if (b.is_number())                                                                                   \
            return mb_##name##_right_at(a.tensor().here(), a.tensor(), b.number());                          \
        return mb_##name##_at(a.tensor().here(), a.tensor(), b.tensor());                                    \
    }
#define MOEBIUS_UNARY_F(name) MOEBIUS_UNARY_(name)
#define MOEBIUS_UNARY_N(name) MOEBIUS_UNARY_(name)
#define MOEBIUS_UNARY_L(name)
#define MOEBIUS_BINARY_F(name) MOEBIUS_BINARY_(name)
#define MOEBIUS_BINARY_N(name) MOEBIUS_BINARY_(name)
#define MOEBIUS_BINARY_I(name) MOEBIUS_BINARY_(name)
#define MOEBIUS_BINARY_L(name)
#define MB_UNARY(NAME, name, types, expression, low, high, cost, doc)  MOEBIUS_UNARY_##types(name)
#define MB_BINARY(NAME, name, types, expression, low, high, f, c, doc) MOEBIUS_BINARY_##types(name)
#define MB_COMPARE(NAME, name, types, expression, doc)                 MOEBIUS_BINARY_##types(name)
#define MB_FUNCTION(name, types, result, doc)                          MOEBIUS_BINARY_##types(name)
#include "tensor/ops.def"
#undef MOEBIUS_UNARY_F
#undef MOEBIUS_UNARY_N
#undef MOEBIUS_UNARY_L
#undef MOEBIUS_BINARY_F
#undef MOEBIUS_BINARY_N
#undef MOEBIUS_BINARY_I
#undef MOEBIUS_BINARY_L

#define MOEBIUS_OPERATOR_(op, name)                                                                          \
    inline Tensor operator op(Operand a, Operand b) noexcept                                                 \
    {                                                                                                        \
        return name(a, b);                                                                                   \
    }
#define MOEBIUS_ASSIGNING_(op, name)                                                                         \
    MOEBIUS_OPERATOR_(op, name)                                                                              \
    inline Tensor &operator op##=(Tensor &a, Operand b) noexcept                                             \
    {                                                                                                        \
        const Operand left(a, b.tensor().file(), b.tensor().line());                                         \
        return a = name(left, b);                                                                            \
    }
MOEBIUS_ASSIGNING_(+, add)
MOEBIUS_ASSIGNING_(-, sub)
MOEBIUS_ASSIGNING_(*, mul)
MOEBIUS_ASSIGNING_(/, div)
MOEBIUS_OPERATOR_(<, lt)
MOEBIUS_OPERATOR_(<=, le)
MOEBIUS_OPERATOR_(>, gt)
MOEBIUS_OPERATOR_(>=, ge)

inline Tensor operator-(Arg x) noexcept
{
    return neg(x);
}
inline Tensor operator!(Arg x) noexcept
{
    return mb_not_at(x.here(), x);
}
inline Tensor operator&(Arg a, Arg b) noexcept
{
    return mb_and_at(a.here(), a, b);
}
inline Tensor operator|(Arg a, Arg b) noexcept
{
    return mb_or_at(a.here(), a, b);
}

MOEBIUS_UNARY_(square)
MOEBIUS_UNARY_(relu)
MOEBIUS_UNARY_(silu)
MOEBIUS_UNARY_(softplus)
MOEBIUS_UNARY_(elu)
MOEBIUS_UNARY_(gelu)
MOEBIUS_UNARY_(gelu_erf)
MOEBIUS_UNARY_(exp2)
MOEBIUS_UNARY_(log2)
MOEBIUS_UNARY_(log10)
MOEBIUS_UNARY_(isnan)
MOEBIUS_UNARY_(isinf)
MOEBIUS_UNARY_(isfinite)
MOEBIUS_UNARY_(transpose)
MOEBIUS_UNARY_(diagonal)
MOEBIUS_UNARY_(diagonal_matrix)
MOEBIUS_UNARY_(trace)
MOEBIUS_UNARY_(cholesky)
MOEBIUS_UNARY_(log_det_spd)
MOEBIUS_UNARY_(sort)
MOEBIUS_UNARY_(argsort)
MOEBIUS_UNARY_(alias)
MOEBIUS_UNARY_(stop_gradient)
MOEBIUS_UNARY_(keep_through)
MOEBIUS_UNARY_(keep)
MOEBIUS_UNARY_(detach)

/* At least one of a and b is a tensor. */
inline Tensor where(Arg condition, Operand a, Operand b) noexcept
{
    const mb_dtype dtype = mb_dtype_of(a.is_number() ? b.tensor() : a.tensor());
    return mb_where_at(condition.here(), condition, a.beside(condition, dtype), b.beside(condition, dtype));
}
inline Tensor clamp(Arg x, double low, double high) noexcept
{
    return mb_clamp_at(x.here(), x, low, high);
}
inline Tensor cast(Arg x, mb_dtype dtype) noexcept
{
    return mb_cast_at(x.here(), x, dtype);
}

/* -------------------------------------------------------------------- reductions, movement, products -- */

#define MOEBIUS_REDUCTION_(name)                                                                             \
    inline Tensor name(Arg x, Axes axes = Axes()) noexcept                                                   \
    {                                                                                                        \
        return mb_##name##_at(x.here(), x, axes);                                                            \
    }
MOEBIUS_REDUCTION_(sum)
MOEBIUS_REDUCTION_(mean)
MOEBIUS_REDUCTION_(variance)
MOEBIUS_REDUCTION_(norm)
MOEBIUS_REDUCTION_(logsumexp)
MOEBIUS_REDUCTION_(prod)
MOEBIUS_REDUCTION_(max)
MOEBIUS_REDUCTION_(min)
MOEBIUS_REDUCTION_(any)
MOEBIUS_REDUCTION_(all)

#define MOEBIUS_ALONG_(name)                                                                                 \
    inline Tensor name(Arg x, int axis = -1) noexcept                                                        \
    {                                                                                                        \
        return mb_##name##_at(x.here(), x, axis);                                                            \
    }
MOEBIUS_ALONG_(softmax)
MOEBIUS_ALONG_(log_softmax)
MOEBIUS_ALONG_(argmax)
MOEBIUS_ALONG_(argmin)
MOEBIUS_ALONG_(median)
MOEBIUS_ALONG_(flip)
MOEBIUS_ALONG_(squeeze)
MOEBIUS_ALONG_(unsqueeze)

#define MOEBIUS_RUNNING_(name)                                                                               \
    inline Tensor name(Arg x, int axis = -1, bool reverse = false) noexcept                                  \
    {                                                                                                        \
        return mb_##name##_at(x.here(), x, axis, reverse);                                                   \
    }
MOEBIUS_RUNNING_(cumsum)
MOEBIUS_RUNNING_(cumprod)
MOEBIUS_RUNNING_(cummax)
MOEBIUS_RUNNING_(cummin)

#define MOEBIUS_PAIR_(name)                                                                                  \
    inline Tensor name(Arg a, Arg b) noexcept                                                                \
    {                                                                                                        \
        return mb_##name##_at(a.here(), a, b);                                                               \
    }
MOEBIUS_PAIR_(matmul)
MOEBIUS_PAIR_(dot)
MOEBIUS_PAIR_(take_along)
MOEBIUS_PAIR_(solve_spd)
MOEBIUS_PAIR_(cholesky_solve)

#undef MOEBIUS_UNARY_
#undef MOEBIUS_BINARY_
#undef MOEBIUS_OPERATOR_
#undef MOEBIUS_ASSIGNING_
#undef MOEBIUS_REDUCTION_
#undef MOEBIUS_ALONG_
#undef MOEBIUS_RUNNING_
#undef MOEBIUS_PAIR_

inline Tensor reshape(Arg x, Shape shape) noexcept
{
    return mb_reshape_at(x.here(), x, shape);
}
inline Tensor broadcast(Arg x, Shape shape) noexcept
{
    return mb_broadcast_at(x.here(), x, shape);
}
inline Tensor permute(Arg x, Axes order) noexcept
{
    return mb_permute_at(x.here(), x, order);
}
inline Tensor slice(Arg x, int axis, std::int64_t start, std::int64_t count, std::int64_t step = 1) noexcept
{
    return mb_slice_at(x.here(), x, axis, start, count, step);
}
inline Tensor pad(Arg x, int axis, std::int64_t before, std::int64_t after,
                  mb_pad_options options = {}) noexcept
{
    return mb_pad_with_at(x.here(), x, axis, before, after, options);
}
inline Tensor unfold(Arg x, int axis, mb_window window) noexcept
{
    return mb_unfold_at(x.here(), x, axis, window);
}
inline Tensor fold(Arg x, int axis, mb_window window, std::int64_t n) noexcept
{
    return mb_fold_at(x.here(), x, axis, window, n);
}
inline Tensor tril(Arg x, std::int64_t diagonal = 0) noexcept
{
    return mb_tril_at(x.here(), x, diagonal);
}
inline Tensor triu(Arg x, std::int64_t diagonal = 0) noexcept
{
    return mb_triu_at(x.here(), x, diagonal);
}
inline Tensor triangular_solve(Arg a, Arg b, unsigned form = MB_LOWER) noexcept
{
    return mb_triangular_solve_at(a.here(), a, b, form);
}
/* Without a ridge: least squares alone. */
inline Tensor lstsq(Arg a, Arg b, const Tensor &ridge = Tensor()) noexcept
{
    return mb_lstsq_at(a.here(), a, b, ridge);
}
inline Tensor quantile(Arg x, double q, int axis = -1) noexcept
{
    return mb_quantile_at(x.here(), x, q, axis);
}
inline Tensor einsum(const char *equation, Arg a, Arg b) noexcept
{
    return mb_einsum_at(a.here(), equation, a, b);
}
inline Tensor take(Arg x, Arg index, int axis) noexcept
{
    return mb_take_at(x.here(), x, index, axis);
}
inline Tensor gather(Arg x, Arg index, int axis = -1) noexcept
{
    return mb_gather_at(x.here(), x, index, axis);
}
inline Tensor scatter(Arg x, Arg index, Arg updates, int axis = -1) noexcept
{
    return mb_scatter_at(x.here(), x, index, updates, axis);
}
inline Tensor scatter_add_along(Arg x, Arg index, Arg updates, int axis = -1) noexcept
{
    return mb_scatter_add_along_at(x.here(), x, index, updates, axis);
}
inline Tensor scatter_add(Arg updates, Arg index, int axis, std::int64_t size) noexcept
{
    return mb_scatter_add_at(updates.here(), updates, index, axis, size);
}
/* The k largest entries, or the smallest, and where they are. */
struct Top {
    Tensor values, index;
};
inline Top topk(Arg x, std::int64_t k, int axis = -1, bool largest = true) noexcept
{
    mb_tensor index = MB_EMPTY(mb_tensor);
    const Tensor values = mb_topk_at(x.here(), x, k, axis, largest, &index);
    return {values, index};
}
inline Tensor one_hot(Arg index, std::int64_t classes) noexcept
{
    return mb_one_hot_at(index.here(), index, classes);
}
inline Tensor cross_entropy(Arg logits, Arg labels) noexcept
{
    return mb_cross_entropy_at(logits.here(), logits, labels);
}
inline Tensor cross_entropy(Arg logits, Arg labels, mb_cross_entropy_options options) noexcept
{
    return mb_cross_entropy_with_at(logits.here(), logits, labels, options);
}

/* What layers are made of (layers.h, conv.h): a null Tensor is no bias, scale or mask. */
inline Tensor conv1d(Arg x, Arg weight, const Tensor &bias = Tensor(), mb_conv_options options = {}) noexcept
{
    return mb_conv1d_at(x.here(), x, weight, bias, options);
}
inline Tensor conv2d(Arg x, Arg weight, const Tensor &bias = Tensor(), mb_conv_options options = {}) noexcept
{
    return mb_conv2d_at(x.here(), x, weight, bias, options);
}
inline Tensor conv_transpose1d(Arg x, Arg weight, const Tensor &bias = Tensor(),
                               mb_conv_options options = {}) noexcept
{
    return mb_conv_transpose1d_at(x.here(), x, weight, bias, options);
}
inline Tensor conv_transpose2d(Arg x, Arg weight, const Tensor &bias = Tensor(),
                               mb_conv_options options = {}) noexcept
{
    return mb_conv_transpose2d_at(x.here(), x, weight, bias, options);
}
inline Tensor max_pool1d(Arg x, mb_pool_options options) noexcept
{
    return mb_max_pool1d_at(x.here(), x, options);
}
inline Tensor max_pool2d(Arg x, mb_pool_options options) noexcept
{
    return mb_max_pool2d_at(x.here(), x, options);
}
inline Tensor avg_pool1d(Arg x, mb_pool_options options) noexcept
{
    return mb_avg_pool1d_at(x.here(), x, options);
}
inline Tensor avg_pool2d(Arg x, mb_pool_options options) noexcept
{
    return mb_avg_pool2d_at(x.here(), x, options);
}
inline Tensor layer_normalize(Arg x, const Tensor &scale = Tensor(), const Tensor &bias = Tensor(),
                              double eps = 1e-6) noexcept
{
    return mb_layer_normalize_at(x.here(), x, scale, bias, eps);
}
inline Tensor rms_normalize(Arg x, const Tensor &scale = Tensor(), double eps = 1e-6) noexcept
{
    return mb_rms_normalize_at(x.here(), x, scale, eps);
}
inline Tensor batch_normalize(Arg x, int channels, const Tensor &scale = Tensor(),
                              const Tensor &bias = Tensor(), double eps = 1e-5) noexcept
{
    return mb_batch_normalize_at(x.here(), x, channels, scale, bias, eps, nullptr, nullptr);
}
inline Tensor group_normalize(Arg x, int channels, std::int64_t groups, const Tensor &scale = Tensor(),
                              const Tensor &bias = Tensor(), double eps = 1e-5) noexcept
{
    return mb_group_normalize_at(x.here(), x, channels, groups, scale, bias, eps);
}
inline Tensor dropout(Arg x, mb_key key, double p, bool training = true) noexcept
{
    return mb_dropout_at(x.here(), x, key, p, training);
}
inline Tensor attend(Arg q, Arg k, Arg v, mb_attend_options options = {}) noexcept
{
    return mb_attend_with_at(q.here(), q, k, v, options);
}
inline Tensor patchify(Arg images, std::int64_t p) noexcept
{
    return mb_patchify_at(images.here(), images, p);
}

/* x, or what a tap puts in its place (taps.h): for layers of one's own. */
inline Tensor tell(Arg x, const char *name) noexcept
{
    return mb_tell_at(x.here(), x, name);
}

/* Several tensors as C wants them: of {a, b}, of a Tensors, and where the call is. */
class List
{
  public:
    List(std::initializer_list<Tensor> tensors, const char *file = __builtin_FILE(),
         int line = __builtin_LINE())
        : handles_(tensors.begin(), tensors.end()), file_(file), line_(line)
    {
    }
    List(const Tensors &tensors, const char *file = __builtin_FILE(), int line = __builtin_LINE())
        : handles_(tensors.begin(), tensors.end()), file_(file), line_(line)
    {
    }
    const mb_tensor *data() const noexcept
    {
        return handles_.data();
    }
    int size() const noexcept
    {
        return static_cast<int>(handles_.size());
    }
    const char *here() const noexcept
    {
        return site(handles_.empty() ? nullptr : handles_[0].ctx, file_, line_);
    }

  private:
    std::vector<mb_tensor> handles_;
    const char *file_;
    int line_;
};

inline Tensor concat(const List &xs, int axis)
{
    return mb_concat_at(xs.here(), xs.data(), xs.size(), axis);
}
inline Tensor stack(const List &xs, int axis)
{
    return mb_stack_at(xs.here(), xs.data(), xs.size(), axis);
}

inline Tensor einsum(const char *equation, const List &xs)
{
    return mb_einsum_of_at(xs.here(), equation, xs.data(), xs.size());
}
/* Parts of these sizes along an axis, and its entries. */
inline Tensors split(Arg x, const std::vector<std::int64_t> &sizes, int axis = -1)
{
    std::vector<mb_tensor> parts(sizes.size(), MB_EMPTY(mb_tensor));
    mb_split_at(x.here(), x, sizes.data(), parts.data(), static_cast<int>(parts.size()), axis);
    return Tensors(parts.begin(), parts.end());
}
inline Tensors unstack(Arg x, int axis = 0)
{
    std::vector<mb_tensor> parts(static_cast<std::size_t>(mb_dim(x, axis)), MB_EMPTY(mb_tensor));
    mb_unstack_at(x.here(), x, parts.data(), static_cast<int>(parts.size()), axis);
    return Tensors(parts.begin(), parts.end());
}

/* Computes them at once. A flush; throws. */
inline void eval(const List &xs)
{
    if (xs.size() && mb_eval_at(xs.here(), xs.data(), xs.size()) != MB_OK)
        check(xs.data()[0].ctx);
}

/* Computes it, and writes an array of NumPy's. Throws. */
inline void save_npy(const std::string &path, Arg x)
{
    if (mb_npy_save_at(x.here(), path.c_str(), x) != MB_OK)
        check(x.context());
}

/* The variable's new value. */
inline void assign(Arg variable, Arg value) noexcept
{
    mb_assign_at(variable.here(), variable, value);
}

/* ---------------------------------------------------------------------------------------- derivatives -- */

namespace detail
{

/* What call writes to as many handles as there are results. */
template <typename Results, typename Call> Results written(Results results, Call call)
{
    std::vector<mb_tensor> handles(results.size(), MB_EMPTY(mb_tensor));
    call(handles.data());
    std::copy(handles.begin(), handles.end(), results.begin());
    return results;
}

/* Whether there is a direction for each tensor. */
inline bool paired(const char *name, const Arg &y, const Tensors &xs, const Tensors &vs) noexcept
{
    if (xs.size() != vs.size())
        mb_fail_at(y.here(), y.context(), MB_INVALID, "%s: %zu directions for %zu tensors", name, vs.size(),
                   xs.size());
    return xs.size() == vs.size();
}

/* Poison, as all that is recorded after an error, where there is not. */
template <typename Call>
Tensor tangent(const char *name, Call call, const Arg &y, const Tensors &xs, const Tensors &vs)
{
    if (!paired(name, y, xs, vs))
        return alias(y);
    const List list(xs), directions(vs);
    const mb_tensor of = y;
    mb_tensor tangent = MB_EMPTY(mb_tensor);
    call(y.here(), &of, 1, list.data(), directions.data(), list.size(), &tangent);
    return tangent;
}
template <typename Call>
Tensors products(const char *name, Call call, const Arg &y, const Tensors &xs, const Tensors &vs)
{
    if (!paired(name, y, xs, vs))
        return Tensors(xs.size(), alias(y));
    const List list(xs), directions(vs);
    return written(
        xs, [&](mb_tensor *hs) { call(y.here(), y, list.data(), directions.data(), list.size(), hs); });
}

} // namespace detail

/* As in C: the gradient of sum(y), v^T dy/dx, dy/dx v, and the Hessian of sum(y) times v. By one tensor, by
 * those of a Tensors, or by some in braces, whose results have names: auto [da, db] = grad(y, {a, b}). */
inline Tensors grad(Arg y, const Tensors &xs)
{
    const List list(xs);
    return detail::written(xs, [&](mb_tensor *gs) { mb_grad_at(y.here(), y, list.data(), list.size(), gs); });
}
inline Tensors vjp(Arg y, Arg v, const Tensors &xs)
{
    const List list(xs);
    return detail::written(xs,
                           [&](mb_tensor *gs) { mb_vjp_at(y.here(), y, v, list.data(), list.size(), gs); });
}
inline Tensor jvp(Arg y, const Tensors &xs, const Tensors &vs)
{
    return detail::tangent("jvp", mb_jvp_at, y, xs, vs);
}
inline Tensors hvp(Arg y, const Tensors &xs, const Tensors &vs)
{
    return detail::products("hvp", mb_hvp_at, y, xs, vs);
}
/* The same by reverse over reverse, which takes the vs as constants. */
inline Tensors hvp_reverse(Arg y, const Tensors &xs, const Tensors &vs)
{
    return detail::products("hvp_reverse", mb_hvp_reverse_at, y, xs, vs);
}
/* Along many directions in one sweep: vs and results have one more axis in front. */
inline Tensor jvp_batch(Arg y, const Tensors &xs, const Tensors &vs)
{
    return detail::tangent("jvp_batch", mb_jvp_batch_at, y, xs, vs);
}
inline Tensors hvp_batch(Arg y, const Tensors &xs, const Tensors &vs)
{
    return detail::products("hvp_batch", mb_hvp_batch_at, y, xs, vs);
}

inline Tensor grad(Arg y, Arg x)
{
    return grad(y, Tensors{mb_tensor(x)})[0];
}
inline Tensor vjp(Arg y, Arg v, Arg x)
{
    return vjp(y, v, Tensors{mb_tensor(x)})[0];
}
inline Tensor jvp(Arg y, Arg x, Arg v)
{
    return jvp(y, Tensors{mb_tensor(x)}, Tensors{mb_tensor(v)});
}
inline Tensor hvp(Arg y, Arg x, Arg v)
{
    return hvp(y, Tensors{mb_tensor(x)}, Tensors{mb_tensor(v)})[0];
}

template <std::size_t N> std::array<Tensor, N> grad(Arg y, const Tensor (&xs)[N])
{
    return detail::written(std::array<Tensor, N>(), [&](mb_tensor *gs) {
        const List list(Tensors(xs, xs + N));
        mb_grad_at(y.here(), y, list.data(), list.size(), gs);
    });
}
template <std::size_t N> std::array<Tensor, N> vjp(Arg y, Arg v, const Tensor (&xs)[N])
{
    return detail::written(std::array<Tensor, N>(), [&](mb_tensor *gs) {
        const List list(Tensors(xs, xs + N));
        mb_vjp_at(y.here(), y, v, list.data(), list.size(), gs);
    });
}
template <std::size_t N> Tensor jvp(Arg y, const Tensor (&xs)[N], const Tensor (&vs)[N])
{
    return jvp(y, Tensors(xs, xs + N), Tensors(vs, vs + N));
}
template <std::size_t N> std::array<Tensor, N> hvp(Arg y, const Tensor (&xs)[N], const Tensor (&vs)[N])
{
    const Tensors products = hvp(y, Tensors(xs, xs + N), Tensors(vs, vs + N));
    std::array<Tensor, N> results;
    std::copy(products.begin(), products.end(), results.begin());
    return results;
}

/* All of dy/dx, [Y..., X...]; the Hessian of sum(y) by all elements of the xs together, [p, p], and its
 * diagonal, shaped like each. */
inline Tensor jacobian(Arg y, Arg x) noexcept
{
    return mb_jacobian_at(y.here(), y, x);
}
inline Tensor hessian(Arg y, const Tensors &xs)
{
    const List list(xs);
    return mb_hessian_at(y.here(), y, list.data(), list.size());
}
inline Tensors hessian_diagonal(Arg y, const Tensors &xs)
{
    const List list(xs);
    return detail::written(
        xs, [&](mb_tensor *ds) { mb_hessian_diagonal_at(y.here(), y, list.data(), list.size(), ds); });
}
/* First and second derivative along the line xs + s us. */
struct Directional {
    Tensor first, second;
};
inline Directional directional(Arg y, const Tensors &xs, const Tensors &us)
{
    if (!detail::paired("directional", y, xs, us))
        return {alias(y), alias(y)};
    const List list(xs), along(us);
    mb_tensor first = MB_EMPTY(mb_tensor), second = MB_EMPTY(mb_tensor);
    mb_directional_at(y.here(), y, list.data(), along.data(), list.size(), &first, &second);
    return {first, second};
}
/* Of the Hessian of sum(y), by Lanczos: a tridiagonal matrix whose eigenvalues come near to its extreme ones,
 * as its diagonal and what is beside it; and those. The latter is a flush, and throws. */
struct Tridiagonal {
    Tensor alpha, beta;
};
inline Tridiagonal lanczos(Arg y, const Tensors &xs, int steps, mb_key key)
{
    const List list(xs);
    mb_tensor alpha = MB_EMPTY(mb_tensor), beta = MB_EMPTY(mb_tensor);
    mb_lanczos_at(y.here(), y, list.data(), list.size(), steps, key, &alpha, &beta);
    return {alpha, beta};
}
struct Extremes {
    double smallest, largest;
};
inline Extremes extreme_eigenvalues(Arg y, const Tensors &xs, int steps, mb_key key)
{
    const List list(xs);
    Extremes found = {};
    mb_extreme_eigenvalues_at(y.here(), y, list.data(), list.size(), steps, key, &found.smallest,
                              &found.largest);
    check(y.context());
    return found;
}

/* --------------------------------------------------------------------- rules of inner loops (optim.h) -- */

inline Tensor sgd_update(Arg parameter, Arg gradient, Arg lr) noexcept
{
    return mb_sgd_update_at(parameter.here(), parameter, gradient, lr);
}
struct Momentum {
    Tensor parameter, velocity;
};
inline Momentum momentum_update(Arg parameter, Arg gradient, Arg lr, Arg velocity, double momentum,
                                bool nesterov = false) noexcept
{
    mb_tensor next = MB_EMPTY(mb_tensor);
    const Tensor updated =
        mb_momentum_update_at(parameter.here(), parameter, gradient, lr, velocity, momentum, nesterov, &next);
    return {updated, next};
}
struct Adam {
    Tensor parameter, m, v;
};
/* Of step t = 1, 2, ...; in a scan t is a tensor, 0-d int32. */
inline Adam adam_update(Arg parameter, Arg gradient, Arg lr, Arg m, Arg v, std::int64_t t,
                        mb_adam_options options = {}) noexcept
{
    mb_tensor m1 = MB_EMPTY(mb_tensor), v1 = MB_EMPTY(mb_tensor);
    const Tensor updated =
        mb_adam_update_at(parameter.here(), parameter, gradient, lr, m, v, t, &options, &m1, &v1);
    return {updated, m1, v1};
}
inline Adam adam_update(Arg parameter, Arg gradient, Arg lr, Arg m, Arg v, const Tensor &t,
                        mb_adam_options options = {}) noexcept
{
    mb_tensor m1 = MB_EMPTY(mb_tensor), v1 = MB_EMPTY(mb_tensor);
    const Tensor updated =
        mb_adam_update_in_scan_at(parameter.here(), parameter, gradient, lr, m, v, t, &options, &m1, &v1);
    return {updated, m1, v1};
}
inline Tensor global_norm(const List &gradients)
{
    return mb_global_norm_at(gradients.here(), gradients.data(), gradients.size());
}
inline Tensors clip_norm(const Tensors &gradients, double most, MOEBIUS_CALLER_)
{
    const List list(gradients, file, line);
    return detail::written(
        gradients, [&](mb_tensor *gs) { mb_clip_norm_at(list.here(), list.data(), list.size(), most, gs); });
}
inline Tensor clip_value(Arg gradient, double limit) noexcept
{
    return mb_clip_value_at(gradient.here(), gradient, limit);
}

/* --------------------------------------------------------------- functions that derivatives ask again -- */

namespace detail
{

/* A function of the user's on the tape, which is copied there as bytes. */
template <typename Function> class Taped
{
    static_assert(
        std::is_trivially_copyable_v<Function> && sizeof(Function) <= MB_MAP_USER_MOST,
        "what such a function captures is copied to the tape: numbers, of MB_MAP_USER_MOST bytes at "
        "most; tensors come in by arguments");

  public:
    /* The only byte of a function without captures has no value. */
    explicit Taped(const Function &function) noexcept : bytes_()
    {
        if constexpr (!std::is_empty_v<Function>)
            std::memcpy(bytes_, &function, sizeof function);
    }
    static const Function &of(const Taped &copy) noexcept
    {
        return *reinterpret_cast<const Function *>(copy.bytes_);
    }
    const void *data() const noexcept
    {
        return bytes_;
    }
    /* As it lies on the tape, which knows no alignment. */
    static Taped from(const void *user) noexcept
    {
        Taped copy;
        std::memcpy(copy.bytes_, user, sizeof(Function));
        return copy;
    }

  private:
    Taped() noexcept : bytes_()
    {
    }
    alignas(Function) unsigned char bytes_[sizeof(Function)];
};

inline void write(const Tensor &result, mb_tensor *out, int n)
{
    if (n != 1)
        throw std::length_error("one result was returned, of " + std::to_string(n));
    *out = result;
}
inline void write(const Tensors &results, mb_tensor *out, int n)
{
    if (results.size() != static_cast<std::size_t>(n))
        throw std::length_error(std::to_string(results.size()) + " results were returned, of " +
                                std::to_string(n));
    std::copy(results.begin(), results.end(), out);
}
inline Tensors tensors(const mb_tensor *ts, int n)
{
    return Tensors(ts, ts + n);
}

/* A map of C, which asks function(xs, params); of a loss one result is wanted, else as many as xs. */
template <bool loss, typename Function>
mb_status map_call(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out) noexcept
{
    const Taped<Function> copy = Taped<Function>::from(user);
    return contained(ctx, nullptr, [&] {
        const auto &function = Taped<Function>::of(copy);
        write(function(tensors(at->xs, at->k), tensors(at->params, at->n)), out, loss ? 1 : at->k);
    });
}
template <bool loss, typename Function> mb_map map_of(const Taped<Function> &function) noexcept
{
    mb_map map = MB_EMPTY(mb_map);
    map.call = map_call<loss, Function>;
    map.user = function.data();
    map.user_bytes = sizeof(Function);
    return map;
}

/* A rule of C, which asks function(xs, ys, vs) for gradients. */
template <typename Function>
mb_status rule_call(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                    mb_tensor *gs) noexcept
{
    const Taped<Function> copy = Taped<Function>::from(user);
    return contained(ctx, nullptr, [&] {
        const auto &function = Taped<Function>::of(copy);
        write(function(tensors(at->xs, at->n), tensors(at->ys, at->m), tensors(vs, at->m)), gs, at->n);
    });
}

inline std::vector<mb_tensor> handles(const Tensors &ts)
{
    return std::vector<mb_tensor>(ts.begin(), ts.end());
}

} // namespace detail

/* The gradients of loss(xs, params) by xs, as grad has them, whose own derivatives are made forward or
 * reverse over reverse, whichever takes less: for gradients within loops (mixed.h). loss(const Tensors &xs,
 * const Tensors &params) gives a Tensor.
 */
template <typename Loss>
Tensors grad_mixed(const Loss &loss, const Tensors &xs, const Tensors &params = {}, MOEBIUS_CALLER_)
{
    const detail::Taped<Loss> taped(loss);
    const std::vector<mb_tensor> at = detail::handles(xs), by = detail::handles(params);
    return detail::written(xs, [&](mb_tensor *gs) {
        mb_grad_mixed_at(site(xs.empty() ? nullptr : xs[0].context(), file, line),
                         detail::map_of<true>(taped), at.data(), static_cast<int>(at.size()), by.data(),
                         static_cast<int>(by.size()), gs);
    });
}

/* What solves an equation, and whether it does: implicit.h. */
struct Solution {
    Tensors xs;
    Tensor converged, residual, steps;
};

namespace detail
{

template <typename Solver>
Solution solved(Solver solver, const mb_map &map, const Tensors &x0, const Tensors &params,
                const mb_implicit_options &options, const char *file, int line)
{
    const std::vector<mb_tensor> from = handles(x0), by = handles(params);
    mb_convergence told = MB_EMPTY(mb_convergence);
    const Tensors xs = written(x0, [&](mb_tensor *x) {
        solver(site(x0.empty() ? nullptr : x0[0].context(), file, line), map, from.data(),
               static_cast<int>(from.size()), by.data(), static_cast<int>(by.size()), options, x, &told);
    });
    return {xs, told.converged, told.residual, told.steps};
}

} // namespace detail

/* xs with function(xs, params) = xs, from x0 on; with function(xs, params) = 0; and of a minimum of
 * loss(xs, params). Derivatives by params are those of the equation, not of its iterations. */
template <typename Function>
Solution fixed_point(const Function &function, const Tensors &x0, const Tensors &params,
                     mb_implicit_options options = {}, MOEBIUS_CALLER_)
{
    const detail::Taped<Function> taped(function);
    return detail::solved(mb_fixed_point_at, detail::map_of<false>(taped), x0, params, options, file, line);
}
template <typename Function>
Solution root(const Function &function, const Tensors &x0, const Tensors &params,
              mb_implicit_options options = {}, MOEBIUS_CALLER_)
{
    const detail::Taped<Function> taped(function);
    return detail::solved(mb_root_at, detail::map_of<false>(taped), x0, params, options, file, line);
}
template <typename Loss>
Solution minimize(const Loss &loss, const Tensors &x0, const Tensors &params,
                  mb_implicit_options options = {}, MOEBIUS_CALLER_)
{
    const detail::Taped<Loss> taped(loss);
    return detail::solved(mb_minimize_at, detail::map_of<true>(taped), x0, params, options, file, line);
}

/* The values ys, functions of xs alone, with a derivative of one's own: reverse(xs, ys, vs), from cotangents
 * vs of the values (null tensors where one is zero), gives the gradients of xs, null tensors for zeros. */
template <typename Reverse>
Tensors custom_gradient(const Tensors &ys, const Tensors &xs, const Reverse &reverse, MOEBIUS_CALLER_)
{
    const detail::Taped<Reverse> taped(reverse);
    const std::vector<mb_tensor> values = detail::handles(ys), of = detail::handles(xs);
    mb_custom_rule rule = MB_EMPTY(mb_custom_rule);
    rule.reverse = detail::rule_call<Reverse>;
    rule.user = taped.data();
    rule.user_bytes = sizeof(Reverse);
    return detail::written(ys, [&](mb_tensor *out) {
        mb_custom_gradient_at(site(ys.empty() ? nullptr : ys[0].context(), file, line), values.data(),
                              static_cast<int>(values.size()), of.data(), static_cast<int>(of.size()), rule,
                              out);
    });
}

/* ------------------------------------------------------------------------------- the insides of loops -- */

/* A step of a scan: what its body is given. */
class Step
{
  public:
    Step(mb_scan scan, std::deque<mb_tensor> &stacks, const char *here) noexcept
        : scan_(scan), stacks_(stacks), here_(here)
    {
    }
    ~Step()
    {
        detail::leave(std::uncaught_exceptions() > thrown_, scan_.ctx,
                      [this] { mb_scan_end_at(here_, scan_); });
    }
    Step(const Step &) = delete;
    Step &operator=(const Step &) = delete;

    /* xs: [steps, ...] -> [...]: this step's. */
    Tensor slice(Arg xs) noexcept
    {
        return mb_scan_slice_at(xs.here(), scan_, xs);
    }
    /* Its number, 0-d int32. */
    Tensor number() noexcept
    {
        return mb_scan_step_at(here_, scan_);
    }
    /* y of every step is one of the scan's stacks: [steps, ...]. */
    void stack(Arg y)
    {
        stacks_.push_back(MB_EMPTY(mb_tensor));
        mb_scan_stack_at(y.here(), scan_, y, &stacks_.back());
    }
    /* Ends the loop after the step at whose end condition, 0-d bool, is true. */
    void until(Arg condition) noexcept
    {
        mb_scan_until_at(condition.here(), scan_, condition);
    }

  private:
    friend class Context;
    mb_scan scan_;
    std::deque<mb_tensor> &stacks_; /* their addresses are given away: not a vector */
    const char *here_;
    const int thrown_ = std::uncaught_exceptions();
};

/* What a scan leaves: the carries after its last step, and the stacks in the order of their making. */
struct Scanned {
    Tensors carries, stacks;
};

/* An example of a vmap: what its body is given. */
class Example
{
  public:
    Example(mb_vmap vmap, const char *here) noexcept : vmap_(vmap), here_(here)
    {
    }
    ~Example()
    {
        mb_vmap_end_at(here_, vmap_);
    }
    Example(const Example &) = delete;
    Example &operator=(const Example &) = delete;

    /* xs, which has an entry for each example along axis -> this example's. */
    Tensor in(Arg xs, int axis = 0) noexcept
    {
        return mb_vmap_in_at(xs.here(), vmap_, xs, axis);
    }

  private:
    friend class Context;
    mb_vmap vmap_;
    const char *here_;
};

namespace detail
{

struct Free {
    void operator()(mb_context *context) const noexcept
    {
        mb_close(context);
    }
    void operator()(mb_params *params) const noexcept
    {
        mb_params_free(params);
    }
    void operator()(mb_snapshot *snapshot) const noexcept
    {
        mb_snapshot_free(snapshot);
    }
    void operator()(mb_average *average) const noexcept
    {
        mb_average_free(average);
    }
    void operator()(mb_optimizer *optimizer) const noexcept
    {
        mb_optimizer_free(optimizer);
    }
    void operator()(mb_safetensors *file) const noexcept
    {
        mb_safetensors_close(file);
    }
    void operator()(mb_loader *loader) const noexcept
    {
        mb_loader_close(loader);
    }
};

class Checkpoint
{
  public:
    Checkpoint(mb_context *ctx, const char *here, bool products) noexcept
        : checkpoint_(products ? mb_checkpoint_products_begin_at(here, ctx)
                               : mb_checkpoint_begin_at(here, ctx)),
          here_(here)
    {
    }
    ~Checkpoint()
    {
        mb_checkpoint_end_at(here_, checkpoint_);
    }
    Checkpoint(const Checkpoint &) = delete;
    Checkpoint &operator=(const Checkpoint &) = delete;

  private:
    mb_checkpoint checkpoint_;
    const char *here_;
};

/* A tap that ends with its block. */
class Tap
{
  public:
    Tap(mb_tap tap, const char *here) noexcept : tap_(tap), here_(here)
    {
    }
    ~Tap()
    {
        if (open_)
            leave(true, tap_.ctx, [this] { mb_tap_end_at(here_, tap_); });
    }
    Tap(const Tap &) = delete;
    Tap &operator=(const Tap &) = delete;

    /* How many tensors it heard; -1 after an error. */
    int end() noexcept
    {
        open_ = false;
        return mb_tap_end_at(here_, tap_);
    }
    /* What body returns, and then the end. */
    template <typename Body> auto around(Body &body)
    {
        if constexpr (std::is_void_v<std::invoke_result_t<Body &>>) {
            body();
            end();
        } else {
            auto result = body();
            end();
            return result;
        }
    }

  private:
    mb_tap tap_;
    const char *here_;
    bool open_ = true;
};

/* A tap's function, and where it was given. */
template <typename Function> struct Heard {
    Function &function;
    const char *here;

    static mb_status through(void *user, const char *name, mb_tensor *x) noexcept
    {
        const Heard &heard = *static_cast<const Heard *>(user);
        return contained(x->ctx, heard.here, [&] {
            if constexpr (std::is_void_v<std::invoke_result_t<Function &, const char *, Tensor>>)
                heard.function(name, Tensor(*x));
            else if (const Tensor y = heard.function(name, Tensor(*x)); y.context())
                *x = y;
        });
    }
};

} // namespace detail

/* What Context::collect gives: what its body returned, and the tensors that were told. */
template <typename Result> struct Collected {
    Result result;
    Tensors told;
};

/* ------------------------------------------------------------------------------------------- contexts -- */

/* A tape, a backend and their memory. What makes tensors out of nothing is here; their dtype is that of the
 * numbers given, or the template's argument: mb.zeros<double>({3}). */
class Context
{
  public:
    explicit Context(const char *backend = nullptr) noexcept : context_(mb_open(backend))
    {
    }
    explicit Context(const mb_options &options) noexcept : context_(mb_open_with(&options))
    {
    }
    mb_context *get() const noexcept
    {
        return context_.get();
    }
    /* Throws the first error, if there is one. */
    void check() const
    {
        moebius::check(get());
    }
    /* Forgets it, so that recording can go on. */
    void clear() noexcept
    {
        mb_clear_error(get());
    }

    template <typename T> Tensor scalar(T value, MOEBIUS_CALLER_) const noexcept
    {
        return mb_scalar_at(here(file, line), get(), dtype_of<T>(), static_cast<double>(value));
    }
    template <typename T> Tensor full(Shape shape, T value, MOEBIUS_CALLER_) const noexcept
    {
        return mb_full_at(here(file, line), get(), dtype_of<T>(), shape, static_cast<double>(value));
    }
    template <typename T = float> Tensor zeros(Shape shape, MOEBIUS_CALLER_) const noexcept
    {
        return full(shape, T(0), file, line);
    }
    template <typename T = float> Tensor ones(Shape shape, MOEBIUS_CALLER_) const noexcept
    {
        return full(shape, T(1), file, line);
    }
    /* Copies the values, row-major; their number must be the shape's. */
    template <typename T>
    Tensor from(Shape shape, const T *values, std::size_t n, MOEBIUS_CALLER_) const noexcept
    {
        return mb_from_bytes_at(here(file, line), get(), dtype_of<T>(), shape, values, n * sizeof(T));
    }
    template <typename T>
    Tensor from(Shape shape, const std::vector<T> &values, MOEBIUS_CALLER_) const noexcept
    {
        return from(shape, values.data(), values.size(), file, line);
    }
    template <typename T>
    Tensor from(Shape shape, std::initializer_list<T> values, MOEBIUS_CALLER_) const noexcept
    {
        return from(shape, values.begin(), values.size(), file, line);
    }
    template <typename T = float> Tensor iota(std::int64_t n, MOEBIUS_CALLER_) const noexcept
    {
        return mb_iota_at(here(file, line), get(), dtype_of<T>(), n);
    }
    template <typename T = float> Tensor eye(std::int64_t n, MOEBIUS_CALLER_) const noexcept
    {
        return mb_eye_at(here(file, line), get(), dtype_of<T>(), n);
    }
    template <typename T = float> Tensor uniform(mb_key key, Shape shape, MOEBIUS_CALLER_) const noexcept
    {
        return mb_uniform_at(here(file, line), get(), key, dtype_of<T>(), shape);
    }
    template <typename T = float> Tensor normal(mb_key key, Shape shape, MOEBIUS_CALLER_) const noexcept
    {
        return mb_normal_at(here(file, line), get(), key, dtype_of<T>(), shape);
    }
    template <typename T = float> Tensor exponential(mb_key key, Shape shape, MOEBIUS_CALLER_) const noexcept
    {
        return mb_exponential_at(here(file, line), get(), key, dtype_of<T>(), shape);
    }
    template <typename T = float> Tensor laplace(mb_key key, Shape shape, MOEBIUS_CALLER_) const noexcept
    {
        return mb_laplace_at(here(file, line), get(), key, dtype_of<T>(), shape);
    }
    template <typename T = float>
    Tensor gamma(mb_key key, Shape shape, double k, double theta, MOEBIUS_CALLER_) const noexcept
    {
        return mb_gamma_at(here(file, line), get(), key, dtype_of<T>(), shape, k, theta);
    }
    template <typename T = float> Tensor sphere(mb_key key, Shape shape, MOEBIUS_CALLER_) const noexcept
    {
        return mb_sphere_at(here(file, line), get(), key, dtype_of<T>(), shape);
    }
    template <typename T = float> Tensor orthogonal(mb_key key, Shape shape, MOEBIUS_CALLER_) const noexcept
    {
        return mb_orthogonal_at(here(file, line), get(), key, dtype_of<T>(), shape);
    }
    Tensor permutation(mb_key key, Shape shape, MOEBIUS_CALLER_) const noexcept
    {
        return mb_permutation_at(here(file, line), get(), key, shape);
    }
    /* [rows, columns], true where column - row <= diagonal. */
    Tensor tril_mask(std::int64_t rows, std::int64_t columns, std::int64_t diagonal = 0,
                     MOEBIUS_CALLER_) const noexcept
    {
        return mb_tril_mask_at(here(file, line), get(), rows, columns, diagonal);
    }
    template <typename T = float>
    Tensor sincos2d(std::int64_t rows, std::int64_t columns, std::int64_t dim, MOEBIUS_CALLER_) const noexcept
    {
        return mb_sincos2d_at(here(file, line), get(), dtype_of<T>(), rows, columns, dim);
    }

    /* Files (files.h): what is read is a tensor like any other. They throw. */
    Tensor load_npy(const std::string &path, MOEBIUS_CALLER_) const
    {
        return checked(mb_npy_load_at(here(file, line), get(), path.c_str()));
    }
    Tensor load_csv(const std::string &path, mb_csv_options options = {}, MOEBIUS_CALLER_) const
    {
        return checked(mb_csv_load_at(here(file, line), get(), path.c_str(), options));
    }
    /* All tensors of a safetensors file by name. */
    std::map<std::string, Tensor> load_safetensors(const std::string &path, MOEBIUS_CALLER_) const
    {
        const char *at = here(file, line);
        const std::unique_ptr<mb_safetensors, detail::Free> opened(
            mb_safetensors_open_at(at, get(), path.c_str()));
        check();
        std::map<std::string, Tensor> tensors;
        for (int i = 0; i < mb_safetensors_count(opened.get()); i++)
            tensors[mb_safetensors_name(opened.get(), i)] = mb_safetensors_tensor_at(at, opened.get(), i);
        check();
        return tensors;
    }
    /* Its texts by name. */
    std::map<std::string, std::string> load_metadata(const std::string &path, MOEBIUS_CALLER_) const
    {
        const std::unique_ptr<mb_safetensors, detail::Free> opened(
            mb_safetensors_open_at(here(file, line), get(), path.c_str()));
        check();
        std::map<std::string, std::string> texts;
        const char *key = nullptr, *value = nullptr;
        for (int i = 0; mb_safetensors_metadata_pair(opened.get(), i, &key, &value); i++)
            texts[key] = value;
        return texts;
    }
    void save_safetensors(const std::string &path, const std::map<std::string, Tensor> &tensors,
                          const std::map<std::string, std::string> &metadata = {}, MOEBIUS_CALLER_) const
    {
        std::vector<const char *> names;
        std::vector<mb_tensor> values;
        for (const auto &[name, tensor] : tensors) {
            names.push_back(name.c_str());
            values.push_back(tensor);
        }
        mb_safetensors_save_at(here(file, line), get(), path.c_str(), names.data(), values.data(),
                               static_cast<int>(values.size()), detail::pairs(metadata).data());
        check();
    }

    /* What a flush of these, and of what is assigned, would take (backends.h). Nothing is computed; throws.
     */
    mb_costs forecast(const Tensors &tensors = {}, MOEBIUS_CALLER_) const
    {
        const std::vector<mb_tensor> handles(tensors.begin(), tensors.end());
        mb_costs costs = {};
        mb_forecast_at(here(file, line), get(), handles.data(), static_cast<int>(handles.size()), &costs);
        check();
        return costs;
    }
    mb_stats stats() const noexcept
    {
        return mb_get_stats(get());
    }
    const char *backend() const noexcept
    {
        return mb_backend_name(get());
    }

    template <typename T = float> Tensor variable(Shape shape, MOEBIUS_CALLER_) const noexcept
    {
        return mb_variable_at(here(file, line), get(), dtype_of<T>(), shape);
    }

    /* What body records is computed again for derivatives in place of being kept; returns what body does. The
     * second keeps the results of matrix products. */
    template <typename Body> auto checkpoint(Body body, MOEBIUS_CALLER_) const
    {
        const detail::Checkpoint open(get(), here(file, line), false);
        return body();
    }
    template <typename Body> auto checkpoint_products(Body body, MOEBIUS_CALLER_) const
    {
        const detail::Checkpoint open(get(), here(file, line), true);
        return body();
    }

    /* A loop as one node. body(Step &, Tensors carries) records a step and returns the next one's carries. */
    template <typename Body>
    Scanned scan(std::int64_t steps, const Tensors &carries, Body body, mb_scan_options options = {},
                 MOEBIUS_CALLER_) const
    {
        const auto none = [](Step &, std::vector<mb_tensor> &, const char *) {};
        return looped(steps, carries, body, none, options, here(file, line));
    }
    /* The same of a step with an inverse, so that a gradient stores no carries: inverse(Step &, Tensors
     * carries), from those after a step, returns those before it. */
    template <typename Body, typename Inverse,
              std::enable_if_t<std::is_invocable_v<Inverse &, Step &, const Tensors &>, int> = 0>
    Scanned scan(std::int64_t steps, const Tensors &carries, Body body, Inverse inverse,
                 mb_scan_options options = {}, MOEBIUS_CALLER_) const
    {
        const auto back = [&inverse](Step &step, std::vector<mb_tensor> &values, const char *at) {
            Tensors after;
            for (mb_tensor &value : values)
                after.push_back(mb_scan_after_at(at, step.scan_, &value));
            const Tensors before = inverse(step, after);
            if (before.size() != values.size())
                mb_fail_at(at, step.scan_.ctx, MB_INVALID, "scan: of %zu carries the inverse returned %zu",
                           values.size(), before.size());
            for (std::size_t i = 0; i < values.size() && i < before.size(); i++)
                mb_scan_before_at(at, step.scan_, &values[i], before[i]);
        };
        return looped(steps, carries, body, back, options, here(file, line));
    }

    /* body(Example &), recorded for one of n examples, and applied to all: what it returns, a Tensor or
     * several, with an axis of n in front. */
    template <typename Body>
    auto vmap(std::int64_t n, Body body, mb_vmap_options options = {}, MOEBIUS_CALLER_) const
    {
        const char *at = here(file, line);
        const auto outs = [at](const Example &example, const Tensor *one, std::vector<mb_tensor> &all) {
            for (std::size_t i = 0; i < all.size(); i++)
                mb_vmap_out_at(at, example.vmap_, one[i], 0, &all[i]);
        };
        std::vector<mb_tensor> all;
        std::invoke_result_t<Body &, Example &> results;
        {
            Example example(mb_vmap_begin_with_at(at, get(), n, options), at);
            results = body(example);
            if constexpr (std::is_same_v<decltype(results), Tensor>) {
                all.resize(1);
                outs(example, &results, all);
            } else {
                all.resize(results.size());
                outs(example, results.data(), all);
            }
        }
        if constexpr (std::is_same_v<decltype(results), Tensor>)
            results = all[0];
        else
            std::copy(all.begin(), all.end(), results.begin());
        return results;
    }

    /* While body records, what is told by names that the pattern matches (taps.h) is written down, in its
     * order: [loss, scores] = mb.collect("blocks.*.scores", [&] { return loss_of(x); }). Of a body that
     * returns nothing, the tensors alone. More than `most` are an error. */
    template <typename Body>
    auto collect(const char *pattern, Body body, int most = 256, MOEBIUS_CALLER_) const
    {
        const char *at = here(file, line);
        std::vector<mb_tensor> told(static_cast<std::size_t>(std::max(most, 0)), MB_EMPTY(mb_tensor));
        detail::Tap tap(mb_tap_collect_at(at, get(), pattern, told.data(), most), at);
        const auto heard = [&] {
            const int n = tap.end();
            if (n > most)
                mb_fail_at(at, get(), MB_INVALID, "collect: %d tensors were told, of at most %d", n, most);
            if (n < 0 || n > most)
                return Tensors(told.size(), scalar(0.0f)); /* poison */
            return Tensors(told.begin(), told.begin() + n);
        };
        if constexpr (std::is_void_v<std::invoke_result_t<Body &>>) {
            body();
            return heard();
        } else {
            auto result = body();
            return Collected<decltype(result)>{std::move(result), heard()};
        }
    }
    /* The k-th of them becomes ts[k]; a null Tensor leaves it. Fewer than ts are an error. What body returns.
     */
    template <typename Body>
    auto replace(const char *pattern, const Tensors &ts, Body body, MOEBIUS_CALLER_) const
    {
        const char *at = here(file, line);
        const std::vector<mb_tensor> given(ts.begin(), ts.end());
        detail::Tap tap(mb_tap_replace_at(at, get(), pattern, given.data(), static_cast<int>(given.size())),
                        at);
        return tap.around(body);
    }
    /* function(name, x) hears each, and returns what takes its place: x, another, or nothing, which leaves
     * it. */
    template <typename Function, typename Body>
    auto tap(const char *pattern, Function function, Body body, MOEBIUS_CALLER_) const
    {
        const char *at = here(file, line);
        using Heard = detail::Heard<Function>;
        Heard heard{function, at};
        detail::Tap tap(mb_tap_through_at(at, get(), pattern, Heard::through, &heard), at);
        return tap.around(body);
    }

  private:
    const char *here(const char *file, int line) const noexcept
    {
        return site(get(), file, line);
    }

    Tensor checked(Tensor tensor) const
    {
        check();
        return tensor;
    }

    template <typename Body, typename Back>
    Scanned looped(std::int64_t steps, const Tensors &carries, Body &body, const Back &back,
                   mb_scan_options options, const char *at) const
    {
        std::vector<mb_tensor> values(carries.begin(), carries.end());
        std::deque<mb_tensor> stacks;
        {
            Step step(mb_scan_begin_with_at(at, get(), steps, options), stacks, at);
            for (mb_tensor &value : values)
                mb_scan_carry_at(at, step.scan_, &value);
            const Tensors next = body(step, Tensors(values.begin(), values.end()));
            if (next.size() == values.size()) {
                std::copy(next.begin(), next.end(), values.begin());
                back(step, values, at);
            } else
                mb_fail_at(at, get(), MB_INVALID, "scan: of %zu carries the body returned %zu", values.size(),
                           next.size());
        }
        return {Tensors(values.begin(), values.end()), Tensors(stacks.begin(), stacks.end())};
    }

    std::unique_ptr<mb_context, detail::Free> context_;
};

/* While it lives, what is told has the prefix "name.", or "name.index.". */
class Prefix
{
  public:
    Prefix(const Context &context, std::string name, std::int64_t index = MB_NO_INDEX, MOEBIUS_CALLER_)
        : name_(std::move(name)),
          prefix_(mb_prefix_begin_at(site(context.get(), file, line), context.get(), name_.c_str(), index))
    {
    }
    ~Prefix()
    {
        mb_prefix_end(&prefix_);
    }
    Prefix(const Prefix &) = delete;
    Prefix &operator=(const Prefix &) = delete;

  private:
    const std::string name_;
    const mb_prefix prefix_;
};

/* What is recorded while it lives is stale at its end, except what keep and detach moved out. */
class Scope
{
  public:
    explicit Scope(const Context &context, MOEBIUS_CALLER_) noexcept
        : here_(site(context.get(), file, line)), scope_(mb_scope_begin_at(here_, context.get())), open_(true)
    {
    }
    Scope(Scope &&other) noexcept
        : here_(other.here_), scope_(other.scope_), open_(std::exchange(other.open_, false))
    {
    }
    Scope &operator=(Scope &&) = delete;
    ~Scope()
    {
        if (open_)
            mb_scope_end_at(here_, scope_);
    }
    /* Ends it now, which is a flush if a variable was assigned inside; throws. */
    void end()
    {
        if (std::exchange(open_, false) && mb_scope_end_at(here_, scope_) != MB_OK)
            check(scope_.ctx);
    }

  private:
    const char *here_;
    mb_scope scope_;
    bool open_;
};

/* -------------------------------------------------------------------------------------------- batches -- */

/* Batches of rows without end (files.h), made ahead by options.threads. Columns are read until it ends. */
class Loader
{
  public:
    Loader(const Context &context, const std::vector<mb_column> &columns, mb_loader_options options,
           MOEBIUS_CALLER_) noexcept
        : context_(context.get()), columns_(columns.size())
    {
        options.columns = columns.data();
        options.column_count = static_cast<int>(columns.size());
        loader_.reset(mb_loader_open_at(site(context_, file, line), context_, options));
    }
    mb_loader *get() const noexcept
    {
        return loader_.get();
    }
    /* A tensor [B, shape] for each column. Throws. */
    Tensors next(MOEBIUS_CALLER_)
    {
        std::vector<mb_tensor> columns(columns_, MB_EMPTY(mb_tensor));
        mb_loader_next_at(site(context_, file, line), get(), columns.data(), nullptr);
        check(context_);
        return Tensors(columns.begin(), columns.end());
    }
    /* Of an epoch; and the number of the next batch, over all epochs. */
    std::int64_t batches() const noexcept
    {
        return mb_loader_batches(get());
    }
    std::int64_t step() const noexcept
    {
        return mb_loader_step(get());
    }

  private:
    mb_context *context_;
    std::size_t columns_;
    std::unique_ptr<mb_loader, detail::Free> loader_;
};

/* The column of an array [rows, ...] whose rows have this shape, row-major. */
template <typename T> mb_column column(const T *values, Shape shape) noexcept
{
    mb_column column = {};
    column.data = values;
    column.dtype = dtype_of<T>();
    column.shape = shape;
    return column;
}

/* --------------------------------------------------------------------------- parameters and optimisers -- */

class Params
{
  public:
    Params(const Context &context, std::uint64_t seed, mb_dtype dtype = MB_FLOAT32, MOEBIUS_CALLER_) noexcept
        : params_(mb_params_new_with_at(site(context.get(), file, line), context.get(), seed, dtype))
    {
    }
    mb_params *get() const noexcept
    {
        return params_.get();
    }
    Tensor param(const char *name, Shape shape, mb_init init = mb_init_zeros(), MOEBIUS_CALLER_) noexcept
    {
        return mb_param_at(here(file, line), get(), name, shape, init);
    }
    Tensor param_no_decay(const char *name, Shape shape, mb_init init = mb_init_zeros(),
                          MOEBIUS_CALLER_) noexcept
    {
        return mb_param_no_decay_at(here(file, line), get(), name, shape, init);
    }
    /* By full name; an unknown one is an error. */
    Tensor tensor(const char *name, MOEBIUS_CALLER_) const noexcept
    {
        return mb_params_get_at(here(file, line), get(), name);
    }
    /* The trainable ones, in order of creation. */
    Tensors trainable() const
    {
        std::vector<mb_tensor> handles(static_cast<std::size_t>(mb_params_list(get(), nullptr, 0)));
        mb_params_list(get(), handles.data(), static_cast<int>(handles.size()));
        return Tensors(handles.begin(), handles.end());
    }
    /* All of them, in order of creation. */
    std::vector<std::string> names() const
    {
        std::vector<std::string> names;
        for (int i = 0; i < mb_params_count(get()); i++)
            names.push_back(mb_params_name(get(), i));
        return names;
    }
    /* Number of trainable scalars. */
    std::int64_t size() const noexcept
    {
        return mb_params_size(get());
    }

    /* For the parameters that a pattern matches, "": all. Whether optimisers change them, ... */
    void freeze(const char *pattern = "", MOEBIUS_CALLER_) noexcept
    {
        mb_params_set_trainable_at(here(file, line), get(), pattern, false);
    }
    void unfreeze(const char *pattern = "", MOEBIUS_CALLER_) noexcept
    {
        mb_params_set_trainable_at(here(file, line), get(), pattern, true);
    }
    /* ... and whether weight decay applies to them. */
    void set_decay(const char *pattern, bool decays, MOEBIUS_CALLER_) noexcept
    {
        mb_params_set_decay_at(here(file, line), get(), pattern, decays);
    }
    /* They get the initial values of a set of this seed, at the next flush. */
    void reinit(const char *pattern, std::uint64_t seed, MOEBIUS_CALLER_) noexcept
    {
        mb_params_reinit_at(here(file, line), get(), pattern, seed);
    }

    /* All of them as one safetensors file. Flushes; throw. */
    void save(const std::string &path, MOEBIUS_CALLER_) const
    {
        mb_params_save_at(here(file, line), get(), path.c_str());
        check(mb_params_context(get()));
    }
    void load(const std::string &path, MOEBIUS_CALLER_)
    {
        mb_params_load_at(here(file, line), get(), path.c_str());
        check(mb_params_context(get()));
    }

  private:
    const char *here(const char *file, int line) const noexcept
    {
        return site(mb_params_context(get()), file, line);
    }

    std::unique_ptr<mb_params, detail::Free> params_;
};

/* While it lives, names of new parameters begin with "name.". */
class Names
{
  public:
    Names(const Params &params, const std::string &name, MOEBIUS_CALLER_)
        : params_(params.get()), here_(site(mb_params_context(params_), file, line)),
          entered_(mb_params_enter_at(here_, params_, name.c_str()) == MB_OK)
    {
    }
    ~Names()
    {
        if (entered_)
            mb_params_leave_at(here_, params_);
    }
    Names(const Names &) = delete;
    Names &operator=(const Names &) = delete;

  private:
    mb_params *params_;
    const char *here_;
    bool entered_;
};

/* The values of all parameters at one time, which is that of its making, or of the last take. Restored is
 * what a pattern matches, and stored at the next flush. The parameters outlive it. */
class Snapshot
{
  public:
    explicit Snapshot(const Params &params, MOEBIUS_CALLER_) noexcept
        : context_(mb_params_context(params.get())),
          snapshot_(mb_snapshot_new_at(site(context_, file, line), params.get()))
    {
    }
    mb_snapshot *get() const noexcept
    {
        return snapshot_.get();
    }
    void take(MOEBIUS_CALLER_) noexcept
    {
        mb_snapshot_take_at(site(context_, file, line), get());
    }
    void restore(const char *pattern = "", MOEBIUS_CALLER_) noexcept
    {
        mb_snapshot_restore_at(site(context_, file, line), get(), pattern);
    }
    /* Of the i-th of Params::names. */
    Tensor tensor(int i) const noexcept
    {
        return mb_snapshot_tensor(get(), i);
    }

  private:
    mb_context *context_;
    std::unique_ptr<mb_snapshot, detail::Free> snapshot_;
};

/* Exponential moving averages of all parameters: updated after each step, in its scope, and exchanged with
 * the parameters to test with them. */
class Average
{
  public:
    Average(const Params &params, double decay, MOEBIUS_CALLER_) noexcept
        : context_(mb_params_context(params.get())),
          average_(mb_average_new_at(site(context_, file, line), params.get(), decay))
    {
    }
    mb_average *get() const noexcept
    {
        return average_.get();
    }
    void update(MOEBIUS_CALLER_) noexcept
    {
        mb_average_update_at(site(context_, file, line), get());
    }
    void swap(MOEBIUS_CALLER_) noexcept
    {
        mb_average_swap_at(site(context_, file, line), get());
    }
    Tensor tensor(int i) const noexcept
    {
        return mb_average_tensor(get(), i);
    }

  private:
    mb_context *context_;
    std::unique_ptr<mb_average, detail::Free> average_;
};

/* Options are C's: emptied, then filled (tensor/cpp.h). */
class Optimizer
{
  public:
    Optimizer(const Params &params, mb_sgd_options options, MOEBIUS_CALLER_) noexcept
        : context_(mb_params_context(params.get())),
          optimizer_(mb_sgd_at(site(context_, file, line), params.get(), options))
    {
    }
    Optimizer(const Params &params, mb_adam_options options, MOEBIUS_CALLER_) noexcept
        : context_(mb_params_context(params.get())),
          optimizer_(mb_adam_at(site(context_, file, line), params.get(), options))
    {
    }
    Optimizer(const Params &params, mb_adamw_options options, MOEBIUS_CALLER_) noexcept
        : context_(mb_params_context(params.get())),
          optimizer_(mb_adamw_at(site(context_, file, line), params.get(), options))
    {
    }
    mb_optimizer *get() const noexcept
    {
        return optimizer_.get();
    }
    /* Records gradients of sum(loss), the update and the assignment, for the next flush. */
    void step(Arg loss) noexcept
    {
        mb_step_at(loss.here(), get(), loss, nullptr);
    }
    /* The same; the norm of the gradients before clipping, 0-d. */
    Tensor step_norm(Arg loss) noexcept
    {
        mb_tensor norm = MB_EMPTY(mb_tensor);
        mb_step_at(loss.here(), get(), loss, &norm);
        return norm;
    }
    /* A step along gradients that are not of a loss: those of Params::trainable, in that order. */
    void apply(const List &gradients) noexcept
    {
        mb_apply_gradients_at(gradients.here(), get(), gradients.data(), gradients.size(), nullptr);
    }
    /* Adds the gradients of sum(loss) to those of the next step. */
    void accumulate(Arg loss) noexcept
    {
        mb_accumulate_at(loss.here(), get(), loss);
    }

    std::int64_t steps() const noexcept
    {
        return mb_optimizer_steps(get());
    }
    /* Of the next step, schedule included; and before the schedule's factor. */
    double lr() const noexcept
    {
        return mb_optimizer_lr(get());
    }
    void set_lr(double lr) noexcept
    {
        mb_optimizer_set_lr(get(), lr);
    }
    /* How many steps were skipped, and the factor of the next loss. Flushes; throw. */
    std::int64_t skipped(MOEBIUS_CALLER_) const
    {
        const std::int64_t skipped = mb_optimizer_skipped_at(site(context_, file, line), get());
        check(context_);
        return skipped;
    }
    double loss_scale(MOEBIUS_CALLER_) const
    {
        const double scale = mb_optimizer_loss_scale_at(site(context_, file, line), get());
        check(context_);
        return scale;
    }
    /* Its tensors by name: "optimizer.m.NAME". */
    std::map<std::string, Tensor> state() const
    {
        std::map<std::string, Tensor> state;
        for (int i = 0; i < mb_optimizer_state_count(get()); i++)
            state[mb_optimizer_state_name(get(), i)] = mb_optimizer_state_tensor(get(), i);
        return state;
    }
    /* In later steps gradients become function(gradients), as many, before their norm is taken. */
    template <typename Function> void through(Function function)
    {
        through_ = std::make_unique<Through>(std::move(function));
        mb_optimizer_set_through(get(), call_through, through_.get());
    }
    /* Parameters, state and the number of steps as one safetensors file, with texts by name. Flushes; throw.
     */
    void save(const std::string &path, const std::map<std::string, std::string> &metadata = {},
              MOEBIUS_CALLER_) const
    {
        mb_optimizer_save_with_at(site(context_, file, line), get(), path.c_str(),
                                  detail::pairs(metadata).data());
        check(context_);
    }
    void load(const std::string &path, MOEBIUS_CALLER_)
    {
        mb_optimizer_load_at(site(context_, file, line), get(), path.c_str());
        check(context_);
    }

  private:
    using Through = std::function<Tensors(const Tensors &)>;
    static mb_status call_through(void *user, mb_context *ctx, mb_tensor *gs, int n) noexcept
    {
        return detail::contained(ctx, nullptr, [&] {
            detail::write((*static_cast<const Through *>(user))(detail::tensors(gs, n)), gs, n);
        });
    }

    mb_context *context_;
    std::unique_ptr<Through> through_;
    std::unique_ptr<mb_optimizer, detail::Free> optimizer_;
};

#undef MOEBIUS_CALLER_

} // namespace moebius

#endif
