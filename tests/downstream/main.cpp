/* SPDX-License-Identifier: MIT
 *
 * main.cpp - a program outside of the tree, in C++17: every public function and macro once, those of optim.h
 * and layers.h in training.cpp. uses.py compares what is called here with what the library exports and the
 * headers define, so a new one is added here too; elementwise ops come from the op table by themselves. main
 * FOLDER: files are written there.
 */
#include "expect.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

static int passed, failed;

void expect(bool ok, const char *what, const char *site)
{
    (ok ? passed : failed)++;
    if (!ok)
        std::printf("FAILED: %s: %s\n", site, what);
}

/* ------------------------------------------------------------------------------------------- tensor.h -- */

static void lists(mb_context *mb)
{
    std::vector<float> v(4, 1.0f);
    enum { COLUMNS = 3 };
    constexpr mb_shape fixed = MB_SHAPE(2u, COLUMNS);
    static_assert(fixed.rank == 2 && fixed.dim[1] == 3, "a shape may be a constant");
    mb_tensor x = mb_ones(mb, MB_FLOAT32, MB_SHAPE(v.size(), 3));
    EXPECT(has_shape(x, MB_SHAPE(4, 3)));
    EXPECT(has_shape(mb_full(mb, MB_FLOAT32, MB_SHAPE0, 1), MB_SHAPE0));
    EXPECT(has_shape(mb_sum(x, MB_AXES(-1)), MB_SHAPE(4)));
    EXPECT(has_shape(mb_sum(x, MB_AXES(0, x.ctx ? 1 : 0)), MB_SHAPE0));
    EXPECT(has_shape(mb_sum(x, MB_KEEP(v.size() - 3)), MB_SHAPE(v.size(), 1)));
    EXPECT(has_shape(mb_sum(x, MB_ALL_KEEP), MB_SHAPE(1, 1)));
    EXPECT(is(mb_sum(x, MB_ALL), 12));
    mb_axes literal = MB_LIT(mb_axes){1, false, {0}};
    EXPECT(has_shape(mb_sum(x, literal), MB_SHAPE(3)));
    EXPECT(!mb_valid(MB_EMPTY(mb_tensor)));
}

/* Each elementwise op of the table, at a point inside all domains, and with a number on either side. */
static void elementwise(mb_context *mb)
{
    const mb_tensor F = mb_scalar(mb, MB_FLOAT64, 0.5), N = mb_cast(F, MB_INT32), I = N,
                    L = mb_cast(F, MB_BOOL);
    std::vector<mb_tensor> made;
#define NUMBERS_F(f) made.insert(made.end(), {f(F, 2.0), f(2, F)});
#define NUMBERS_N(f) made.insert(made.end(), {f(N, 2.0), f(2u, N)});
#define NUMBERS_I(f) NUMBERS_N(f)
#define NUMBERS_L(f)
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc) made.push_back(mb_##name(types));
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc)                                         \
    made.push_back(mb_##name(types, types));                                                                 \
    NUMBERS_##types(mb_##name)
#define MB_COMPARE(NAME, name, types, expr, doc)                                                             \
    made.push_back(mb_##name(types, types));                                                                 \
    NUMBERS_##types(mb_##name)
#define MB_FUNCTION(name, types, result, doc) MB_COMPARE(, name, types, , doc)
#include <tensor/ops.def>
    EXPECT(mb_eval(made.data(), static_cast<int>(made.size())) == MB_OK);
    EXPECT(is(mb_sub(F, 3), -2.5) && is(mb_sub(3, F), 2.5) && is(mb_sub(3.0f, mb_sub(F, F)), 3));
    EXPECT(is(mb_mul(2L, mb_add(F, mb_pow(F, 2))), 1.5));
    EXPECT(is(mb_cast(mb_lt(F, 1), MB_FLOAT64), 1) && is(mb_cast(mb_lt(1, F), MB_FLOAT64), 0));
    EXPECT(is(mb_where(L, F, mb_neg(F)), 0.5));
    EXPECT(is(mb_mod(mb_neg(F), 2), 1.5) && is(mb_fmod(mb_neg(F), 2), -0.5) && is(mb_floor_divide(7, N), 0));
    EXPECT(is(mb_exp2(F), std::sqrt(2.0)) && is(mb_log2(F), -1) && is(mb_log10(F), std::log10(0.5)));
    EXPECT(is(mb_clamp(F, 1, 2), 1) && is(mb_cast(mb_isfinite(F), MB_INT32), 1));
    EXPECT(is(mb_cast(mb_or(mb_isnan(F), mb_isinf(F)), MB_INT32), 0));
}

static void leaves(mb_context *mb)
{
    const std::array<float, 6> data = {1, 2, 3, 4, 5, 6};
    mb_tensor x = mb_from(mb, MB_FLOAT32, MB_SHAPE(2, 3), data.data());
    EXPECT(mb_count(x) == 6 && mb_dim(x, -1) == 3 && mb_dtype_of(x) == MB_FLOAT32);
    EXPECT(mb_dtype_size(MB_FLOAT64) == 8 && !std::strcmp(mb_dtype_name(MB_INT32), "int32"));
    EXPECT(is(mb_sum(mb_zeros(mb, MB_FLOAT32, MB_SHAPE(3)), MB_ALL), 0));
    EXPECT(is(mb_sum(mb_iota(mb, MB_INT32, 4), MB_ALL), 6));
    EXPECT(is(mb_sum(mb_tril_mask(mb, 3, 3, 0), MB_ALL), 6));
    EXPECT(is(mb_sum(mb_eye(mb, MB_FLOAT64, 5), MB_ALL), 5));
    mb_tensor variable = mb_variable(mb, MB_FLOAT32, MB_SHAPE(2, 3));
    EXPECT(mb_assign(variable, x) == MB_OK);
    EXPECT(is(mb_sum(variable, MB_ALL), 21));
}

static void random_numbers(mb_context *mb)
{
    mb_key key = mb_key_fold(mb_key_of(7), 1);
    EXPECT(MB_LIT(mb_key){7}.bits == 7 && MB_NO_KEY.bits == 0);
    const mb_shape shape = MB_SHAPE(3, 3);
    std::vector<mb_tensor> draws = {
        mb_uniform(mb, key, MB_FLOAT32, shape),         mb_normal(mb, key, MB_FLOAT32, shape),
        mb_exponential(mb, key, MB_FLOAT32, shape),     mb_laplace(mb, key, MB_FLOAT32, shape),
        mb_gamma(mb, key, MB_FLOAT32, shape, 0.5, 2.0), mb_sphere(mb, key, MB_FLOAT32, shape),
        mb_orthogonal(mb, key, MB_FLOAT32, shape),      mb_permutation(mb, key, shape)};
    EXPECT(mb_eval(draws.data(), static_cast<int>(draws.size())) == MB_OK);
    for (mb_tensor draw : draws)
        EXPECT(has_shape(draw, shape));
}

static void movement(mb_context *mb)
{
    mb_tensor x = mb_reshape(mb_iota(mb, MB_FLOAT32, 6), MB_SHAPE(2, -1));
    EXPECT(has_shape(mb_permute(x, MB_AXES(1, 0)), MB_SHAPE(3, 2)));
    EXPECT(has_shape(mb_transpose(x), MB_SHAPE(3, 2)));
    EXPECT(has_shape(mb_broadcast(x, MB_SHAPE(4, 2, 3)), MB_SHAPE(4, 2, 3)));
    EXPECT(is(mb_sum(mb_slice(x, 1, 0, 1, 1), MB_ALL), 3));
    EXPECT(is(mb_slice(mb_slice(mb_flip(x, 1), 1, 0, 1, 1), 0, 0, 1, 1), 2));
    EXPECT(has_shape(mb_pad(x, 0, 1, 2), MB_SHAPE(5, 3)));
    std::vector<mb_tensor> xs = {x, x};
    EXPECT(has_shape(mb_concat(xs.data(), 2, 0), MB_SHAPE(4, 3)));
    EXPECT(has_shape(mb_stack(xs.data(), 2, 0), MB_SHAPE(2, 2, 3)));
    const std::array<int64_t, 2> sizes = {1, 2};
    EXPECT(mb_split(x, sizes.data(), xs.data(), 2, 1) == MB_OK && has_shape(xs[1], MB_SHAPE(2, 2)));
    EXPECT(mb_unstack(x, xs.data(), 2, 0) == MB_OK && is(mb_sum(xs[1], MB_ALL), 12));
    EXPECT(has_shape(mb_squeeze(mb_unsqueeze(x, 0), 0), MB_SHAPE(2, 3)));
}

static void reductions(mb_context *mb)
{
    mb_tensor x = mb_add(mb_iota(mb, MB_FLOAT32, 4), 1); /* 1 2 3 4 */
    EXPECT(is(mb_mean(x, MB_ALL), 2.5) && is(mb_variance(x, MB_ALL), 1.25));
    EXPECT(is(mb_norm(x, MB_ALL), std::sqrt(30.0)));
    EXPECT(is(mb_max(x, MB_ALL), 4) && is(mb_min(x, MB_ALL), 1) && is(mb_argmax(x, 0), 3));
    EXPECT(is(mb_max(mb_cumsum(x, 0, false), MB_ALL), 10));
    EXPECT(is(mb_prod(x, MB_ALL), 24) && is(mb_sum(mb_cumprod(x, 0, false), MB_ALL), 33));
    EXPECT(is(mb_sum(mb_cummax(x, 0, false), MB_ALL), 10) && is(mb_sum(mb_cummin(x, 0, false), MB_ALL), 4));
    EXPECT(is(mb_argmin(x, 0), 0) && is(mb_median(x, 0), 2.5) && is(mb_quantile(x, 1, 0), 4));
    EXPECT(is(mb_cast(mb_any(mb_gt(x, 3), MB_ALL), MB_INT32), 1) &&
           is(mb_cast(mb_all(mb_ge(x, 3), MB_ALL), MB_INT32), 0));
    EXPECT(is(mb_logsumexp(mb_zeros(mb, MB_FLOAT32, MB_SHAPE(4)), MB_ALL), std::log(4.0)));
    EXPECT(is(mb_dot(x, x), 30) && is(mb_einsum("i,i->", x, x), 30));
    mb_tensor row = mb_unsqueeze(x, 0);
    EXPECT(is(mb_matmul(row, mb_transpose(row)), 30));

    const std::array<int32_t, 2> two = {3, 0};
    mb_tensor index =
        mb_from_bytes(mb, MB_INT32, MB_SHAPE(two.size()), two.data(), two.size() * sizeof two[0]);
    EXPECT(is(mb_sum(mb_take(x, index, 0), MB_ALL), 5));
    EXPECT(is(mb_sum(mb_scatter_add(mb_take(x, index, 0), index, 0, 4), MB_ALL), 5));
    EXPECT(is(mb_sum(mb_take_along(x, mb_argsort(x)), MB_ALL), 10));
    EXPECT(is(mb_sum(mb_gather(x, index, 0), MB_ALL), 5));
    mb_tensor updates = mb_full(mb, MB_FLOAT32, MB_SHAPE(2), 10);
    EXPECT(is(mb_sum(mb_scatter(x, index, updates, 0), MB_ALL), 25));
    EXPECT(is(mb_sum(mb_scatter_add_along(x, index, updates, 0), MB_ALL), 30));
    mb_tensor places;
    EXPECT(is(mb_sum(mb_topk(x, 2, 0, true, &places), MB_ALL), 7) && is(mb_sum(places, MB_ALL), 5));
    EXPECT(is(mb_sum(mb_einsum_of("i->i", &x, 1), MB_ALL), 10));
    EXPECT(is(mb_sum(mb_sort(x), MB_ALL), 10) && is(mb_sum(mb_one_hot(index, 4), MB_ALL), 2));
}

static void windows(mb_context *mb)
{
    mb_tensor x = mb_add(mb_iota(mb, MB_FLOAT32, 4), 1.0f);
    mb_pad_options reflect = {};
    reflect.mode = MB_PAD_REFLECT;
    mb_window pairs = {};
    pairs.size = 2;
    EXPECT(is(mb_sum(mb_pad_with(x, 0, 1, 1, reflect), MB_ALL), 15));
    EXPECT(is(mb_sum(mb_fold(mb_unfold(x, 0, pairs), 0, pairs, 4), MB_ALL), 15));
}

static void linear_algebra(mb_context *mb)
{
    mb_tensor a = mb_mul(mb_eye(mb, MB_FLOAT64, 3), 4.0), b = mb_full(mb, MB_FLOAT64, MB_SHAPE(3, 2), 8.0);
    EXPECT(is(mb_sum(mb_tril(b, 0), MB_ALL), 40) && is(mb_sum(mb_triu(b, 0), MB_ALL), 24));
    EXPECT(is(mb_trace(a), 12) && is(mb_sum(mb_diagonal(a), MB_ALL), 12) &&
           has_shape(mb_diagonal_matrix(b), MB_SHAPE(3, 2, 2)));
    mb_tensor l = mb_cholesky(a);
    EXPECT(is(mb_sum(l, MB_ALL), 6) && is(mb_log_det_spd(a), 3 * std::log(4.0)));
    EXPECT(is(mb_sum(mb_triangular_solve(l, b, MB_UPPER | MB_TRANSPOSED), MB_ALL), 24));
    EXPECT(is(mb_sum(mb_triangular_solve(l, b, MB_LOWER | MB_UNIT_DIAGONAL), MB_ALL), 48));
    EXPECT(is(mb_sum(mb_cholesky_solve(l, b), MB_ALL), 12) && is(mb_sum(mb_solve_spd(a, b), MB_ALL), 12));
    EXPECT(is(mb_sum(mb_lstsq(a, b, MB_EMPTY(mb_tensor)), MB_ALL), 12));
}

static void common_functions(mb_context *mb)
{
    mb_tensor x = mb_full(mb, MB_FLOAT64, MB_SHAPE(1, 2), 2.0), sum = mb_alias(x);
    for (mb_tensor y : {mb_square(x), mb_relu(x), mb_silu(x), mb_softplus(x), mb_elu(x), mb_gelu(x),
                        mb_gelu_erf(x), mb_softmax(x, 1), mb_log_softmax(x, 1)})
        sum = mb_add(sum, mb_stop_gradient(y));
    EXPECT(std::isfinite(mb_item(mb_sum(sum, MB_ALL))));
    mb_tensor label = mb_iota(mb, MB_INT32, 1);
    mb_cross_entropy_options options = {};
    options.smoothing = 0.5;
    EXPECT(is(mb_cross_entropy(x, label), std::log(2.0)));
    EXPECT(is(mb_cross_entropy_with(x, label, options), std::log(2.0)));
}

static void scopes(mb_context *mb)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor x = mb_scalar(mb, MB_FLOAT64, 3);
    mb_tensor kept = mb_keep(mb_mul(x, x)), detached = mb_detach(mb_exp(mb_sub(x, 3)));
    double watched = 0, value = 0;
    EXPECT(mb_watch(x, &watched, sizeof watched) == MB_OK);
    EXPECT(mb_read(kept, &value, sizeof value) == MB_OK && watched == 3 && value == 9);
    EXPECT(mb_scope_end(scope) == MB_OK);
    EXPECT(is(kept, 9) && is(detached, 1) && !mb_valid(x));
}

/* A layer of one's own: its mistakes are its caller's. */
#define half(...) half_at(MB_HERE, __VA_ARGS__)
static mb_tensor half_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    if (mb_dtype_of(x) == MB_BOOL) {
        mb_fail(x.ctx, MB_INVALID, "half: no half of %s", mb_dtype_name(MB_BOOL));
        return MB_EMPTY(mb_tensor);
    }
    return mb_matmul(mb_mul(x, 0.5), x);
}

static bool blamed(mb_context *mb, int line, const char *said)
{
    std::string site = "main.cpp:" + std::to_string(line) + ": ", message = mb_message(mb);
    bool ok = message.find(site) != std::string::npos && message.find(said) != std::string::npos;
    if (!ok)
        std::printf("%s\n", message.c_str());
    mb_clear_error(mb);
    return ok;
}

static void errors(mb_context *mb)
{
    EXPECT(mb_error(mb) == MB_OK && !std::strcmp(mb_status_name(MB_OK), "ok"));
    mb_tensor x = mb_ones(mb, MB_FLOAT32, MB_SHAPE(2, 3));
    half(x);
    EXPECT(mb_error(mb) == MB_INVALID && blamed(mb, __LINE__ - 1, "inner sizes differ"));
    half(mb_cast(x, MB_BOOL));
    EXPECT(blamed(mb, __LINE__ - 1, "no half of bool"));
    mb_transpose(x);
    mb_matmul(x, x); /* the site of the layer has ended with it */
    EXPECT(blamed(mb, __LINE__ - 1, "inner sizes differ"));
    const char *site;
    {
        std::string made = "model." + std::to_string(7);
        site = mb_intern_site(mb, made.c_str());
    }
    mb_site held = mb_site_begin(mb, site);
    mb_matmul(x, x);
    mb_site_end(&held);
    EXPECT(!std::strncmp(mb_message(mb), "model.7: ", 9));
    mb_clear_error(mb);
}

/* ------------------------------------------------------------------------------------------ backends.h -- */

static void *counted_alloc(void *user, size_t size)
{
    ++*static_cast<long *>(user);
    return std::malloc(size);
}

static void *counted_realloc(void *, void *p, size_t, size_t size)
{
    return std::realloc(p, size);
}

static void counted_free(void *user, void *p, size_t)
{
    *static_cast<long *>(user) -= p != nullptr;
    std::free(p);
}

static void contexts()
{
    EXPECT(mb_version() == std::to_string(MB_VERSION_MAJOR) + "." + std::to_string(MB_VERSION_MINOR) + "." +
                               std::to_string(MB_VERSION_PATCH));
    std::vector<mb_device> devices(8);
    const char *why = nullptr;
    EXPECT(mb_devices(devices.data(), static_cast<int>(devices.size()), &why) >= 1);
    EXPECT(mb_backend_at(0) && !mb_backend_at(1000));
    const mb_backend *none = nullptr;
    char reason[80];
    EXPECT(mb_backend_register(none, reason, sizeof reason) == MB_INVALID && reason[0]);

    long live = 0;
    mb_allocator allocator = {counted_alloc, counted_realloc, counted_free, &live};
    mb_options options = {};
    options.backend = "reference";
    options.allocator = &allocator;
    options.log = [](void *, const char *) {};
    mb_context *mb = mb_open_with(&options);
    EXPECT(!std::strcmp(mb_backend_name(mb), "reference") && live > 0);
    mb_tensor two = mb_add(mb_scalar(mb, MB_FLOAT64, 1), 1);
    mb_costs costs = {};
    EXPECT(mb_forecast(mb, &two, 1, &costs) == MB_OK && costs.steps == 1 && mb_get_stats(mb).flushes == 0);
    EXPECT(is(two, 2) && mb_get_stats(mb).flushes == 1);
    EXPECT(mb_close(mb) == MB_OK && live == 0);
}

/* ------------------------------------------------------------------------------------------ autograd.h -- */

static void derivatives(mb_context *mb)
{
    mb_tensor x = mb_add(mb_iota(mb, MB_FLOAT64, 2), 1); /* 1 2 */
    mb_tensor v = mb_ones(mb, MB_FLOAT64, MB_SHAPE(2)), cube = mb_mul(mb_mul(x, x), x),
              y = mb_sum(cube, MB_ALL);
    mb_tensor g, h, first, second;
    EXPECT(mb_grad(y, &x, 1, &g) == MB_OK && is(mb_sum(g, MB_ALL), 15));
    EXPECT(mb_vjp(cube, v, &x, 1, &g) == MB_OK && is(mb_sum(g, MB_ALL), 15));
    EXPECT(mb_jvp(&y, 1, &x, &v, 1, &g) == MB_OK && is(g, 15));
    EXPECT(mb_hvp(y, &x, &v, 1, &h) == MB_OK && is(mb_sum(h, MB_ALL), 18));
    EXPECT(mb_hvp_reverse(y, &x, &v, 1, &h) == MB_OK && is(mb_sum(h, MB_ALL), 18));
    mb_tensor basis = mb_eye(mb, MB_FLOAT64, 2);
    EXPECT(mb_jvp_batch(&y, 1, &x, &basis, 1, &g) == MB_OK && is(mb_sum(g, MB_ALL), 15));
    EXPECT(mb_hvp_batch(y, &x, &basis, 1, &h) == MB_OK && is(mb_sum(h, MB_ALL), 18));
    EXPECT(is(mb_sum(mb_jacobian(cube, x), MB_ALL), 15) && is(mb_sum(mb_hessian(y, &x, 1), MB_ALL), 18));
    EXPECT(mb_hessian_diagonal(y, &x, 1, &h) == MB_OK && is(mb_sum(h, MB_ALL), 18));
    EXPECT(mb_directional(y, &x, &v, 1, &first, &second) == MB_OK && is(first, 15) && is(second, 18));
    mb_tensor alpha, beta;
    EXPECT(mb_lanczos(y, &x, 1, 2, mb_key_of(1), &alpha, &beta) == MB_OK && is(mb_sum(alpha, MB_ALL), 18));
    double smallest = 0, largest = 0;
    EXPECT(mb_extreme_eigenvalues(y, &x, 1, 2, mb_key_of(1), &smallest, &largest) == MB_OK);
    EXPECT(std::fabs(smallest - 6) < 1e-6 && std::fabs(largest - 12) < 1e-6);
}

static void checkpoints(mb_context *mb)
{
    mb_tensor x = mb_full(mb, MB_FLOAT64, MB_SHAPE(1, 1), 3.0), g;
    mb_checkpoint outer = mb_checkpoint_begin(mb), inner = mb_checkpoint_products_begin(mb);
    mb_tensor y = mb_exp(mb_keep_through(mb_matmul(x, x)));
    EXPECT(mb_checkpoint_end(inner) == MB_OK && mb_checkpoint_end(outer) == MB_OK);
    EXPECT(mb_grad(y, &x, 1, &g) == MB_OK && is(g, 6 * std::exp(9.0)));
}

static mb_status pull(const void *user, mb_context *mb, const mb_custom_at *at, const mb_tensor *vs,
                      mb_tensor *gs)
{
    gs[0] = mb_mul(mb_mul(vs[0], at->xs[0]), *static_cast<const double *>(user));
    return mb_error(mb);
}

static mb_status map(const void *, mb_context *mb, const mb_map_at *at, mb_tensor *out)
{
    out[0] = mb_add(mb_mul(at->xs[0], 0.5), at->params[0]); /* its fixed point is 2 p, its root -2 p */
    return mb_error(mb);
}

static mb_status bowl(const void *, mb_context *mb, const mb_map_at *at, mb_tensor *out)
{
    out[0] = mb_square(mb_sub(at->xs[0], mb_square(at->params[0])));
    return mb_error(mb);
}

MB_ELEMENTWISE_1(cube_loops, x *x *x)
MB_ELEMENTWISE_2(pair_loops, x *y)
MB_ELEMENTWISE_3(triple_loops, x *y + z)

static mb_status last_of(const void *, const mb_core_data *in, const mb_core_data *out, const int64_t *, int)
{
    *static_cast<double *>(out->at) = static_cast<const double *>(in->at)[(in->dim[0] - 1) * in->stride[0]];
    return MB_OK;
}
static bool last_shape(const void *, const mb_core *in, const int64_t *, int, mb_core *out, char *, size_t)
{
    out->dtype = in->dtype;
    return in->dim[0] > 0;
}

static mb_tensor apply(mb_context *mb, const mb_custom_op_spec &spec, const mb_tensor *xs)
{
    mb_tensor y;
    EXPECT(mb_custom_op_apply(mb_custom_op_new(mb, &spec), xs, nullptr, 0, &y) == MB_OK);
    return y;
}

static void custom_ops(mb_context *mb)
{
    mb_custom_op_spec cube = {}, pair = {}, triple = {}, last = {};
    cube.name = "cube", pair.name = "pair", triple.name = "triple", last.name = "last";
    cube.elementwise = &cube_loops, pair.elementwise = &pair_loops, triple.elementwise = &triple_loops;
    last.operands = last.results = 1;
    last.core_in[0] = 1;
    last.compute = last_of;
    last.shape = last_shape;
    const mb_tensor xs[3] = {mb_full(mb, MB_FLOAT64, MB_SHAPE(2), 2.0),
                             mb_full(mb, MB_FLOAT64, MB_SHAPE(2), 5.0),
                             mb_full(mb, MB_FLOAT64, MB_SHAPE(2), 1.0)};
    EXPECT(is(mb_sum(apply(mb, cube, xs), MB_ALL), 16) && is(mb_sum(apply(mb, pair, xs), MB_ALL), 20) &&
           is(mb_sum(apply(mb, triple, xs), MB_ALL), 22) && is(apply(mb, last, xs), 2));
}

static void implicit(mb_context *mb)
{
    const double factor = 5;
    mb_custom_rule rule = {};
    rule.reverse = pull;
    rule.user = &factor;
    rule.user_bytes = sizeof factor;
    static_assert(sizeof factor <= MB_MAP_USER_MOST && MB_MAP_USER_MOST <= MB_CUSTOM_USER_MOST, "room");
    mb_tensor p = mb_full(mb, MB_FLOAT64, MB_SHAPE0, 3.0), y = mb_square(p), x, g;
    EXPECT(mb_custom_gradient(&y, 1, &p, 1, rule, &x) == MB_OK && is(x, 9));
    EXPECT(mb_grad(x, &p, 1, &g) == MB_OK && is(g, 15));
    mb_map f = {}, loss = {};
    f.call = map;
    loss.call = bowl;
    mb_implicit_options options = {};
    options.steps = 40;
    options.linear.steps = 2;
    mb_convergence told;
    EXPECT(mb_fixed_point(f, &p, 1, &p, 1, options, &x, &told) == MB_OK && is(x, 6));
    EXPECT(mb_grad(x, &p, 1, &g) == MB_OK && is(g, 2) && is(mb_cast(told.converged, MB_INT32), 1));
    EXPECT(mb_grad_mixed(loss, &x, 1, &p, 1, &g) == MB_OK && mb_grad(mb_square(g), &x, 1, &g) == MB_OK);
    EXPECT(mb_valid(g));
    options.steps = 3;
    EXPECT(mb_root(f, &p, 1, &p, 1, options, &x, &told) == MB_OK && is(x, -6));
    EXPECT(mb_minimize(loss, &p, 1, &p, 1, options, &x, &told) == MB_OK && is(x, 9));
    EXPECT(mb_grad(x, &p, 1, &g) == MB_OK && is(g, 6));
    mb_scan s = mb_scan_begin(mb, 9);
    x = mb_full(mb, MB_FLOAT64, MB_SHAPE0, 1.0);
    EXPECT(mb_scan_carry(s, &x) == MB_OK);
    x = mb_mul(x, 2);
    EXPECT(mb_scan_until(s, mb_lt(mb_full(mb, MB_FLOAT64, MB_SHAPE0, 20.0), x)) == MB_OK);
    EXPECT(mb_scan_end(s) == MB_OK && is(x, 32));
    s = mb_scan_begin(mb, 5);
    p = x = mb_full(mb, MB_FLOAT64, MB_SHAPE0, 1.0);
    EXPECT(mb_scan_carry(s, &x) == MB_OK);
    EXPECT(mb_scan_before(s, &x, mb_mul(mb_scan_after(s, &x), 0.5)) == MB_OK);
    x = mb_mul(x, 2);
    EXPECT(mb_scan_end(s) == MB_OK && mb_grad(mb_square(x), &p, 1, &g) == MB_OK && is(g, 2048));
}

static void vmaps(mb_context *mb)
{
    mb_tensor w = mb_full(mb, MB_FLOAT64, MB_SHAPE(2), 3.0), xs = mb_iota(mb, MB_FLOAT64, 6), gs, losses;
    mb_vmap v = mb_vmap_begin(mb, 3);
    mb_tensor x = mb_vmap_in(v, mb_reshape(xs, MB_SHAPE(2, 3)), -1); /* (0,3), (1,4), (2,5) */
    mb_tensor loss = mb_square(mb_dot(w, x)), g;
    EXPECT(mb_grad(loss, &w, 1, &g) == MB_OK);
    EXPECT(mb_vmap_out(v, g, 0, &gs) == MB_OK && mb_vmap_out(v, loss, 0, &losses) == MB_OK);
    EXPECT(mb_vmap_end(v) == MB_OK && has_shape(gs, MB_SHAPE(3, 2)));
    EXPECT(is(mb_sum(losses, MB_ALL), 81 + 225 + 441) &&
           is(mb_sum(gs, MB_ALL), 2 * (9 * 3 + 15 * 5 + 21 * 7)));

    mb_vmap_options options = {};
    options.same_draws = true;
    v = mb_vmap_begin_with(mb, 3, options);
    EXPECT(mb_vmap_out(v, mb_uniform(mb, mb_key_of(1), MB_FLOAT64, MB_SHAPE0), 0, &gs) == MB_OK);
    EXPECT(mb_vmap_end(v) == MB_OK && is(mb_sub(mb_max(gs, MB_ALL), mb_min(gs, MB_ALL)), 0));
}

static mb_tensor doubled(void *times, const char *name, mb_tensor x)
{
    *static_cast<int *>(times) += !std::strcmp(name, "model.3.x");
    return mb_mul(x, 2);
}

static mb_status halved(void *, const char *, mb_tensor *x)
{
    *x = mb_div(*x, 2);
    return mb_error(x->ctx);
}

static mb_tensor told(mb_context *mb)
{
    MB_PREFIX(mb, "model", 3);
    return mb_tell(mb_full(mb, MB_FLOAT64, MB_SHAPE(2), 3.0), "x");
}

static void taps(mb_context *mb)
{
    int times = 0;
    mb_tensor seen, instead = mb_full(mb, MB_FLOAT64, MB_SHAPE(2), 5.0);
    mb_tap tap = mb_tap_begin(mb, "model.*.x", doubled, &times), all = mb_tap_collect(mb, "", &seen, 1);
    EXPECT(is(mb_sum(told(mb), MB_ALL), 12) && times == 1 && is(mb_sum(seen, MB_ALL), 12));
    EXPECT(mb_tap_end(tap) == 1 && mb_tap_end(all) == 1);
    tap = mb_tap_replace(mb, "model", &instead, 1);
    EXPECT(is(mb_sum(told(mb), MB_ALL), 10) && mb_tap_end(tap) == 1);
    tap = mb_tap_through(mb, "model", halved, nullptr);
    EXPECT(is(mb_sum(told(mb), MB_ALL), 3) && mb_tap_end(tap) == 1);
    mb_prefix prefix = mb_prefix_begin(mb, "alone", MB_NO_INDEX);
    EXPECT(prefix.ctx == mb);
    mb_prefix_end(&prefix);
}

static void scans(mb_context *mb)
{
    mb_tensor w = mb_full(mb, MB_FLOAT64, MB_SHAPE0, 2.0), start = w, xs = mb_iota(mb, MB_FLOAT64, 3), seen,
              g;
    mb_scan s = mb_scan_begin(mb, 3);
    EXPECT(mb_scan_carry(s, &w) == MB_OK);
    mb_tensor x = mb_add(mb_scan_slice(s, xs), mb_cast(mb_scan_step(s), MB_FLOAT64));
    EXPECT(mb_scan_stack(s, mb_mul(w, x), &seen) == MB_OK);
    w = mb_mul(w, w);
    EXPECT(mb_scan_end(s) == MB_OK && is(w, 256) && is(mb_sum(seen, MB_ALL), 4 * 2 + 16 * 4));
    EXPECT(mb_grad(w, &start, 1, &g) == MB_OK && is(g, 8 * 128));

    mb_scan_options options = {};
    options.backwards = true;
    s = mb_scan_begin_with(mb, 3, options);
    w = start;
    EXPECT(mb_scan_carry(s, &w) == MB_OK);
    w = mb_add(mb_mul(w, 2.0), mb_scan_slice(s, xs));
    EXPECT(mb_scan_end(s) == MB_OK && is(w, 2 * (2 * (2 * 2 + 2) + 1)));
}

/* --------------------------------------------------------------------------------------------- files.h -- */

static void safetensors(mb_context *mb, const std::string &folder)
{
    const std::string path = folder + "/two.safetensors";
    const std::array<const char *, 2> names = {"a", "b"};
    const std::array<const char *, 3> metadata = {"made by", "main.cpp", nullptr};
    std::array<mb_tensor, 2> out = {mb_iota(mb, MB_FLOAT32, 3), mb_iota(mb, MB_INT32, 4)}, in = {};
    EXPECT(mb_safetensors_save(mb, path.c_str(), names.data(), out.data(), 2, metadata.data()) == MB_OK);
    EXPECT(mb_safetensors_load(mb, path.c_str(), names.data(), in.data(), 2) == MB_OK);
    EXPECT(is(mb_sum(in[0], MB_ALL), 3) && is(mb_sum(in[1], MB_ALL), 6));

    std::unique_ptr<mb_safetensors, decltype(&mb_safetensors_close)> file(
        mb_safetensors_open(mb, path.c_str()), mb_safetensors_close);
    EXPECT(mb_safetensors_count(file.get()) == 2);
    int b = mb_safetensors_find(file.get(), "b");
    mb_dtype dtype = MB_BOOL;
    EXPECT(!std::strcmp(mb_safetensors_name(file.get(), b), "b") &&
           !std::strcmp(mb_safetensors_dtype_name(file.get(), b), "I32"));
    EXPECT(mb_safetensors_dtype(file.get(), b, &dtype) && dtype == MB_INT32);
    EXPECT(mb_safetensors_shape(file.get(), b).dim[0] == 4);
    EXPECT(is(mb_sum(mb_safetensors_tensor(file.get(), b), MB_ALL), 6));
    const char *key = nullptr, *value = nullptr;
    EXPECT(mb_safetensors_metadata_pair(file.get(), 0, &key, &value) && !std::strcmp(key, metadata[0]));
    EXPECT(!std::strcmp(mb_safetensors_metadata(file.get(), "made by"), "main.cpp"));
}

static std::string write_idx(const std::string &path, std::vector<uint8_t> content)
{
    std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen(path.c_str(), "wb"), std::fclose);
    EXPECT(file && std::fwrite(content.data(), 1, content.size(), file.get()) == content.size());
    return path;
}

static void images(mb_context *mb, const std::string &folder)
{
    std::string pictures =
        write_idx(folder + "/images.idx", {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 255, 0, 0, 255});
    std::string labels = write_idx(folder + "/labels.idx", {0, 0, 8, 1, 0, 0, 0, 2, 4, 9});
    mb_idx idx = {};
    EXPECT(mb_idx_read(mb, labels.c_str(), &idx) == MB_OK && idx.rank == 1 && idx.data[1] == 9);
    mb_idx_free(&idx);

    mb_images_options options = {};
    options.images = pictures.c_str();
    options.labels = labels.c_str();
    mb_images *set = mb_images_open(mb, options);
    EXPECT(mb_images_count(set) == 2 && mb_images_height(set) == 1 && mb_images_width(set) == 2);
    mb_tensor x, y;
    EXPECT(mb_images_batch(set, MB_IN_ORDER, 0, 2, &x, &y) == MB_OK);
    EXPECT(is(mb_sum(x, MB_ALL), 2) && is(mb_sum(y, MB_ALL), 13));
    mb_column columns[2];
    mb_images_columns(set, columns);
    EXPECT(columns[0].bytes && columns[0].shape.dim[1] == 2 && columns[1].dtype == MB_INT32);
    mb_images_close(set);
    EXPECT(std::strlen(MB_FASHION_MNIST) > 0 && MB_FASHION_MNIST_MEAN < MB_FASHION_MNIST_STD);
}

static void arrays(mb_context *mb, const std::string &folder)
{
    const std::string path = folder + "/x.npy", table = folder + "/x.csv";
    EXPECT(mb_npy_save(path.c_str(), mb_iota(mb, MB_INT32, 4)) == MB_OK);
    EXPECT(is(mb_sum(mb_npy_load(mb, path.c_str()), MB_ALL), 6));
    write_idx(table, {'a', ';', 'b', '\n', '1', ';', '2', '\n'});
    mb_csv_options options = {};
    options.header = true;
    options.separator = ';';
    EXPECT(is(mb_sum(mb_csv_load(mb, table.c_str(), options), MB_ALL), 3));

    const float numbers[] = {1, 2, 3};
    mb_column column = {};
    column.data = numbers;
    mb_loader_options three = {};
    three.columns = &column;
    three.column_count = 1;
    three.rows = three.batch = 3;
    three.threads = 1;
    mb_loader *loader = mb_loader_open(mb, three);
    mb_tensor x;
    const void *memory = nullptr;
    int64_t rows = 0;
    EXPECT(mb_loader_batches(loader) == 1 && mb_loader_next(loader, &x, &rows) == MB_OK && rows == 3);
    EXPECT(is(mb_sum(x, MB_ALL), 6) && mb_loader_step(loader) == 1);
    EXPECT(mb_loader_next_memory(loader, &memory, nullptr) == MB_OK);
    EXPECT(static_cast<const float *>(memory)[0] >= 1);
    mb_loader_close(loader);
}

int main(int argc, char **argv)
{
    const std::string folder = argc > 1 ? argv[1] : ".";
    contexts();
    mb_context *mb = mb_open(nullptr);
    for (auto part : {lists, elementwise, leaves, random_numbers, movement, reductions, windows,
                      linear_algebra, common_functions, scopes, errors, derivatives, checkpoints, scans,
                      custom_ops, implicit, vmaps, taps})
        part(mb);
    for (auto part : {safetensors, images, arrays, training})
        part(mb, folder);
    EXPECT(mb_error(mb) == MB_OK);
    if (mb_error(mb) != MB_OK)
        std::printf("%s\n", mb_message(mb));
    EXPECT(mb_close(mb) == MB_OK);
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
