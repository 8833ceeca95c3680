/* SPDX-License-Identifier: MIT
 *
 * wrapper.cpp - examples/cpp/moebius.hpp: values and derivatives by closed forms, where errors are thrown and
 * which line they name, and who ends what. */
#include "closed_form.hpp"

#include <cstdlib>
#include <functional>

#include <unistd.h>

static_assert(!std::is_copy_constructible_v<Context> && std::is_nothrow_move_constructible_v<Context>);
static_assert(!std::is_copy_constructible_v<Scope> && std::is_nothrow_move_constructible_v<Scope>);
static_assert(!std::is_copy_constructible_v<moebius::Params> &&
              !std::is_copy_constructible_v<moebius::Optimizer>);
static_assert(std::is_nothrow_destructible_v<Scope> && std::is_nothrow_destructible_v<Context>);
static_assert(std::is_trivially_copyable_v<Tensor> && sizeof(Tensor) == sizeof(mb_tensor));

static void operators(const Context &mb)
{
    const Tensor x = mb.from({2}, {1.0, 4.0}), y = mb.from({2}, {2.0, -3.0});
    equal(x + y, {3, 1});
    equal(x - y, {-1, 7});
    equal(x * y, {2, -12});
    equal(x / y, {0.5, -4.0 / 3});
    equal(2 * x - 1, {1, 7});
    equal(1.0f / x + 1u, {2, 1.25});
    equal(3 - x, {2, -1});
    equal(-x, {-1, -4});
    Tensor z = x;
    z += y;
    z *= 2;
    z -= x;
    z /= y;
    equal(z, {2.5, 2.0 / 3});
    equal(x, {1, 4});
    equal(where(x < 2, x, 0), {1, 0});
    equal(where((x >= 1) & !(y > 0), y, x), {1, -3});
    equal(where((x <= 0) | eq(y, 2), -1.0, x), {-1, 4});
    equal(pow(x, 0.5) + maximum(y, 0) + sqrt(x), {4, 4});
    equal(mb_add(x, y), {3, 1}); /* C's functions take these handles */
    expect(x.dtype() == MB_FLOAT64 && x.count() == 2 && x.dim(-1) == 2, "what x is");
}

static void functions(const Context &mb)
{
    const Tensor x = mb.from({2, 3}, {1., 2., 3., 4., 5., 6.});
    equal(sum(x), {21});
    equal(mean(x, 0), {2.5, 3.5, 4.5});
    equal(sum(x, {0, 1}), {21});
    expect(sum(x, moebius::Axes::keep(-1)).shape().rank == 2, "a kept axis");
    equal(matmul(x, transpose(x)), {14, 32, 32, 77});
    equal(einsum("ij,ij->i", x, x), {14, 77});
    equal(slice(reshape(x, {-1}), 0, 5, 3, -2), {6, 4, 2});
    equal(permute(x, {1, 0}), {1, 4, 2, 5, 3, 6});
    equal(sum(softmax(x)), {2});
    equal(moebius::concat({x, -x}, 0) + stack(Tensors{x, x}, 0).dim(0),
          {3, 4, 5, 6, 7, 8, 1, 0, -1, -2, -3, -4});
    equal(broadcast(mb.scalar(1.5), {2}), {1.5, 1.5});
    equal(reshape(sum(x), {}), {21});
    equal(mb.eye<double>(2) + mb.zeros<double>({2, 2}) + mb.full({}, 0.5), {1.5, 0.5, 0.5, 1.5});
    equal(take(x, mb.from({2}, {2, 0}), 1), {3, 1, 6, 4});
    expect(argmax(x, 1).values<int32_t>() == std::vector<int32_t>{2, 2}, "argmax");
    expect((x > 3).values<uint8_t>() == std::vector<uint8_t>{0, 0, 0, 1, 1, 1}, "truth values");
    expect(mb.ones({0, 3}).values<float>().empty(), "no values");
}

static void matrices(const Context &mb)
{
    const Tensor a = mb.from({2, 2}, {4., 2., 2., 5.}), b = mb.from({2, 1}, {8., 8.});
    const Tensor l = cholesky(a); /* (2 0; 1 2) */
    equal(l, {2, 0, 1, 2});
    equal(solve_spd(a, b), {1.5, 1});
    equal(cholesky_solve(l, b), {1.5, 1});
    equal(triangular_solve(l, b), {4, 2});
    equal(triangular_solve(l, b, MB_LOWER | MB_TRANSPOSED), {2, 4});
    equal(lstsq(a, b), {1.5, 1});
    equal(lstsq(mb.eye<double>(2), b, mb.scalar(3.0)), {2, 2});
    equal(log_det_spd(a), {std::log(16.0)});
    equal(trace(a) + sum(diagonal(a)), {18});
    equal(diagonal_matrix(diagonal(a)), {4, 0, 0, 5});
    equal(tril(a) - triu(a), {0, -2, 2, 0});
    equal(tril(a, -1) + triu(a, 1), {0, 2, 2, 0});
    equal(moebius::einsum("ii->", {a}) + moebius::einsum("ij,jk,kl->", {a, a, a}), {9 + 557});
}

/* x = (1 2 3; 4 5 6). */
static void along_axes(const Context &mb)
{
    const Tensor x = reshape(mb.iota<double>(6) + 1, {2, 3}), index = mb.from({2, 1}, {2, 0});
    equal(cumprod(x), {1, 2, 6, 4, 20, 120});
    equal(cumsum(x, 0, true), {5, 7, 9, 4, 5, 6});
    equal(cummax(-x), {-1, -1, -1, -4, -4, -4});
    equal(cummin(x, -1, true), {1, 2, 3, 4, 5, 6});
    equal(logsumexp(log(x), 1), {std::log(6.0), std::log(15.0)});
    equal(median(x), {2, 5});
    equal(quantile(x, 0.25, 0), {1.75, 2.75, 3.75});
    equal(take_along(x, index), {3, 4});
    equal(gather(x, index), {3, 4});
    equal(scatter(x, index, -gather(x, index)), {1, 2, -3, -4, 5, 6});
    equal(scatter_add_along(x, index, gather(x, index)), {1, 2, 6, 8, 5, 6});
    equal(scatter_add(x, mb.from({2}, {1, 1}), 0, 3), {0, 0, 0, 5, 7, 9, 0, 0, 0});
    const moebius::Top top = topk(x, 2), least = topk(x, 1, 0, false);
    equal(top.values, {3, 2, 6, 5});
    expect(top.index.values<int32_t>() == std::vector<int32_t>{2, 1, 2, 1}, "where the largest are");
    equal(least.values, {1, 2, 3});
    const Tensors parts = split(x, {1, 2}), rows = unstack(x), columns = unstack(x, 1);
    equal(parts[0], {1, 4});
    equal(parts[1], {2, 3, 5, 6});
    equal(rows.at(1) - rows[0], {3, 3, 3});
    equal(columns.at(2), {3, 6});
    mb_pad_options edge = {};
    edge.mode = MB_PAD_EDGE;
    equal(pad(x, 1, 1, 0, edge), {1, 1, 2, 3, 4, 4, 5, 6});
    mb_window window = {};
    window.size = 2;
    equal(unfold(x, 1, window), {1, 2, 2, 3, 4, 5, 5, 6});
    equal(fold(unfold(x, 1, window), 1, window, 3), {1, 4, 3, 4, 10, 6});
}

static void parts_of_layers(const Context &mb)
{
    const Tensor x = reshape(mb.iota<double>(4), {1, 1, 4}), two = mb.full({1, 1, 2}, 2.0);
    mb_conv_options stride = {};
    stride.stride[0] = 2;
    equal(conv1d(x, two), {2, 6, 10});
    equal(conv1d(x, two, mb.full({1}, 1.0), stride), {3, 11});
    equal(conv_transpose1d(x, two), {0, 2, 6, 10, 6});
    const Tensor image = reshape(x, {1, 1, 2, 2}), ones = mb.ones<double>({1, 1, 2, 2});
    equal(conv2d(image, ones), {6});
    equal(sum(conv_transpose2d(image, ones)), {24});
    mb_pool_options pair = {};
    pair.size[0] = 2;
    equal(max_pool1d(x, pair), {1, 3});
    equal(avg_pool1d(x, pair), {0.5, 2.5});
    equal(max_pool2d(image, pair), {3});
    equal(avg_pool2d(image, pair), {1.5});
    const Tensor normal = mb.from({4}, {-3., -1., 1., 3.}) / std::sqrt(5.0);
    equal(layer_normalize(x, Tensor(), Tensor(), 0), normal.values<double>());
    equal(group_normalize(x, 1, 1, Tensor(), Tensor(), 0), normal.values<double>());
    equal(batch_normalize(x, 1, Tensor(), Tensor(), 0), normal.values<double>());
    equal(layer_normalize(x, mb.scalar(2.0), mb.scalar(1.0), 0), (2 * normal + 1).values<double>());
    equal(rms_normalize(x, Tensor(), 0), (mb.iota<double>(4) / std::sqrt(3.5)).values<double>());
    equal(dropout(x, mb_key_of(1), 0.5, false), {0, 1, 2, 3});
    equal(dropout(x, mb_key_of(1), 1), {0, 0, 0, 0});
    mb_attend_options causal = {};
    causal.causal = true;
    const Tensor same = mb.zeros<double>({1, 2, 1, 1}), values = mb.from({1, 2, 1, 1}, {2.0, 4.0});
    equal(attend(same, same, values), {3, 3});
    equal(attend(same, same, values, causal), {2, 3});
    equal(patchify(reshape(mb.iota<double>(8), {1, 2, 4}), 2), {0, 1, 4, 5, 2, 3, 6, 7});
    mb_cross_entropy_options rows = {};
    rows.each_row = true;
    equal(cross_entropy(mb.zeros<double>({2, 4}), mb.from({2}, {1, 3}), rows),
          {std::log(4.0), std::log(4.0)});

    moebius::Params params(mb, 1, MB_FLOAT64); /* layers are C's */
    const mb_linear layer = mb_linear_new(params.get(), "f", 4, 1);
    equal(moebius::reshape(mb_linear_apply(layer, x), {}), {at(sum(Tensor(layer.weight) * x))});
}

static void draws(const Context &mb)
{
    const mb_key key = mb_key_of(3);
    equal(sum(square(mb.sphere<double>(key, {2, 5})), 1), {1, 1});
    const Tensor q = mb.orthogonal<double>(key, {3, 3});
    expect(at(norm(matmul(q, transpose(q)) - mb.eye<double>(3))) < 1e-14, "orthogonal");
    expect(sort(mb.permutation(key, {4})).values<int32_t>() == std::vector<int32_t>{0, 1, 2, 3}, "an order");
    expect(std::fabs(at(mean(mb.exponential<double>(key, {40000}))) - 1) < 0.03, "of mean 1");
    expect(std::fabs(at(mean(square(mb.laplace<double>(key, {40000})))) - 2) < 0.15, "of variance 2");
    expect(std::fabs(at(mean(mb.gamma<double>(key, {40000}, 2, 0.5))) - 1) < 0.03, "of mean 2 times 1/2");
    expect(mb.tril_mask(2, 2).values<uint8_t>() == std::vector<uint8_t>{1, 0, 1, 1}, "a triangle");
    equal(slice(mb.sincos2d<double>(1, 2, 8), 0, 0, 1), {0, 0, 1, 1, 0, 0, 1, 1});
}

/* f = sum(a^2 b), at a = (1, 2), b = (3, 5). */
static void derivatives(const Context &mb)
{
    const Tensor a = mb.from({2}, {1.0, 2.0}), b = mb.from({2}, {3.0, 5.0}), u = mb.from({2}, {1.0, -1.0});
    const Tensor f = sum(a * a * b);
    const auto [da, db] = grad(f, {a, b});
    equal(da, {6, 20});
    equal(db, {1, 4});
    equal(grad(f, Tensors{a, b})[1], {1, 4});
    equal(grad(sum(grad(f, a)), a), {6, 10}); /* of the gradient's own record */
    equal(vjp(a * b, u, a), {3, -5});
    equal(vjp(a * b, u, {a, b})[1], {1, -2});
    equal(vjp(a * b, u, Tensors{b})[0], {1, -2});
    equal(jvp(a * b, a, u), {3, -5});
    equal(jvp(a * b, {a, b}, {u, u}), {4, -7});
    equal(hvp(f, a, u), {6, -10});
    equal(hvp(f, {a, b}, {u, u})[0], {8, -14}); /* 2 b u + 2 a u */
    equal(hvp(f, Tensors{a, b}, {u, u})[1], {2, -4});
    equal(grad(mb.checkpoint([&] { return sum(exp(a) * b); }), b), {std::exp(1.0), std::exp(2.0)});
    equal(grad(mb.checkpoint_products([&] { return dot(exp(a), b); }), b), {std::exp(1.0), std::exp(2.0)});
    equal(jacobian(a * a, a), {2, 0, 0, 4});
    equal(hessian(f, {a, b}), {6, 0, 2, 0, 0, 10, 0, 4, 2, 0, 0, 0, 0, 4, 0, 0});
    equal(hessian_diagonal(f, {a, b})[0], {6, 10});
    const auto [first, second] = directional(f, {a, b}, {u, u}); /* along (1, -1) in both */
    equal(first, {6 - 20 + 1 - 4});
    equal(second, {6 + 10 + 2 * (2 + 4)});
    equal(hvp_reverse(f, {a, b}, {u, u})[0], {8, -14});
    const Tensor us = stack(Tensors{u, 2 * u}, 0);
    equal(jvp_batch(a * b, {a, b}, {us, us}), {4, -7, 8, -14});
    equal(hvp_batch(f, {a, b}, {us, us})[0], {8, -14, 16, -28});
    const auto [alpha, beta] = lanczos(f, {a}, 2, mb_key_of(1)); /* trace and determinant of diag(6, 10) */
    equal(sum(alpha), {16});
    equal(moebius::prod(alpha) - square(slice(beta, 0, 0, 1)), {60});
    const moebius::Extremes ends = extreme_eigenvalues(f, {a}, 2, mb_key_of(1));
    expect(std::fabs(ends.smallest - 6) < 1e-9 && std::fabs(ends.largest - 10) < 1e-9, "eigenvalues");

    const Tensor g = mb.from({2}, {3.0, 4.0}), rate = mb.scalar(0.5);
    equal(sgd_update(a, g, rate), {-0.5, 0});
    const auto [moved, velocity] = momentum_update(a, g, rate, u, 0.5);
    equal(velocity, {3.5, 3.5});
    equal(moved, {-0.75, 0.25});
    mb_adam_options exact = {};
    exact.eps = MB_ZERO;
    const auto adam = adam_update(a, g, rate, 0 * g, 0 * g, 1, exact); /* lr times the sign */
    equal(adam.parameter, {0.5, 1.5});
    equal(adam.m, {0.3, 0.4});
    equal(adam.v, {0.009, 0.016});
    equal(adam_update(a, g, rate, 0 * g, 0 * g, mb.scalar<int32_t>(1), exact).parameter, {0.5, 1.5});
    equal(moebius::global_norm({g, 12 * u / u}), {std::sqrt(25.0 + 288)});
    equal(clip_norm(Tensors{g}, 2.5)[0], {1.5, 2});
    equal(clip_value(g, 3.5), {3, 3.5});
}

static void loops(const Context &mb)
{
    const Tensor x = mb.scalar(3.0), rates = mb.from({3}, {0.5, 0.25, 2.0});
    const auto [carries, stacks] =
        mb.scan(3, {x, mb.scalar(0.0)}, [&](moebius::Step &step, const Tensors &now) {
            const Tensor next = now[0] * step.slice(rates);
            step.stack(next);
            step.stack(cast(step.number(), MB_FLOAT64));
            return Tensors{next, now[1] + next};
        });
    equal(carries[0], {0.75});
    equal(carries[1], {1.5 + 0.375 + 0.75});
    equal(stacks[0], {1.5, 0.375, 0.75});
    equal(stacks[1], {0, 1, 2});
    equal(grad(carries[1], x), {0.5 + 0.125 + 0.25});
    const auto early = mb.scan(9, {x}, [](moebius::Step &step, const Tensors &now) {
        step.until(now[0] * 2 > 10);
        return Tensors{now[0] * 2};
    });
    equal(early.carries[0], {12}); /* 3, 6: the second step begins with 6, ends with 12, and is the last */

    const Tensor xs = mb.from({2, 2}, {1., 2., 3., 4.}), w = mb.from({2}, {1., -1.});
    const auto loss = [&](moebius::Example &one) { return square(dot(w, one.in(xs))); };
    equal(mb.vmap(2, loss), {1, 1});
    equal(mb.vmap(2, [&](moebius::Example &one) { return grad(loss(one), w); }), {-2, -4, -6, -8});
    const auto both = mb.vmap(2, [&](moebius::Example &one) {
        return std::array<Tensor, 2>{one.in(xs, 1), w};
    });
    equal(both[0], {1, 3, 2, 4});
    equal(both[1], {1, -1, 1, -1});
}

/* x <- x^2 from 2 on: 4, 16, 256; the derivative is 8 x^7. A gradient takes each step's x from the inverse.
 */
static void inverses(const Context &mb)
{
    const Tensor x = mb.scalar(2.0);
    const auto square_it = [](moebius::Step &, const Tensors &now) { return Tensors{square(now[0])}; };
    const auto after = [&](auto inverse) { return mb.scan(3, {x}, square_it, inverse).carries[0]; };
    const Tensor y = after([](moebius::Step &, const Tensors &next) { return Tensors{sqrt(next[0])}; });
    equal(y, {256});
    equal(grad(y, x), {1024});
    const Tensor z = after([](moebius::Step &, const Tensors &next) { return Tensors{next[0] * 0 + 1}; });
    equal(z, {256});
    equal(grad(z, x), {8}); /* 2^3: what it was told */
    mb_scan_options keep = {};
    keep.keep_every = 2;
    const auto root = [](moebius::Step &, const Tensors &next) { return Tensors{sqrt(next[0])}; };
    equal(grad(mb.scan(3, {x}, square_it, root, keep).carries[0], x), {1024});

    const Tensor add = mb.from({2}, {3.0, 5.0});
    const auto sums = mb.scan(
        2, {x, x},
        [&](moebius::Step &step, const Tensors &now) {
            const Tensor first = now[0] + step.slice(add) * square(now[1]);
            return Tensors{first, now[1] - first};
        },
        [&](moebius::Step &step, const Tensors &next) {
            const Tensor second = next[1] + next[0];
            return Tensors{next[0] - step.slice(add) * square(second), second};
        });
    equal(sums.carries[0], {14 + 5 * 144});                 /* 2 + 3 * 4 = 14, 2 - 14 = -12 */
    equal(grad(sums.carries[0], x), {13 + 10 * -12 * -12}); /* 1 + 3 * 2 * 2 = 13, 1 - 13 = -12 */
}

/* Of sum(w^3 p): 3 w^2 p; of a step along it, w - r 3 w^2 p: 1 - 6 r w p. */
static void functions_on_the_tape(const Context &mb)
{
    const Tensor w = mb.from({2}, {2.0, -1.0}), p = mb.scalar(5.0);
    const auto cubic = [](const Tensors &xs, const Tensors &params) { return pow(xs[0], 3) * params[0]; };
    const Tensor dw = moebius::grad_mixed(cubic, {w}, {p})[0];
    equal(dw, {60, 15});
    equal(grad(w - 0.5 * dw, w), {-29, 16});
    equal(grad(dw, p), {15}); /* 3 (4 + 1) */
    const double factor = 2;
    const auto scaled = [factor](const Tensors &xs, const Tensors &) { return factor * square(xs[0]); };
    const auto steps = mb.scan(3, {w}, [&](moebius::Step &, const Tensors &now) {
        return Tensors{now[0] - 0.125 * moebius::grad_mixed(scaled, now)[0]};
    });
    equal(steps.carries[0], {0.25, -0.125}); /* halves w */
    equal(grad(steps.carries[0], w), {0.125, 0.125});

    const auto near = [](Tensor x, double want) {
        expect(std::fabs(at(x) - want) < 1e-8, "not the solution");
    };
    const Tensor start = mb.scalar(1.0), q = mb.scalar(4.0);
    const auto fixed = moebius::fixed_point(
        [](const Tensors &xs, const Tensors &ps) { return xs[0] / 4 + ps[0] / 2; }, {start}, {q});
    near(fixed.xs[0], 8.0 / 3);
    near(grad(fixed.xs[0], q), 2.0 / 3);
    expect(fixed.converged.values<uint8_t>()[0] && fixed.steps.values<int32_t>()[0] > 3, "what it tells");
    const auto roots = moebius::root(
        [](const Tensors &xs, const Tensors &ps) {
            return Tensors{square(xs[0]) - ps[0], xs[1] - 3 * xs[0]};
        },
        {start, start}, {q});
    near(roots.xs[1], 6);
    near(grad(roots.xs[1], q), 0.75);
    mb_implicit_options once = {};
    once.steps = 1;
    const auto unlike = [](const Tensors &xs, const Tensors &ps) { return square(square(xs[0]) - ps[0]); };
    const auto least = moebius::minimize(unlike, {start}, {q}),
               early = moebius::minimize(unlike, {start}, {q}, once);
    near(least.xs[0], 2);
    near(grad(least.xs[0], q), 0.25);
    expect(!early.converged.values<uint8_t>()[0], "no solution after one step");

    const Tensor x = mb.from({2}, {1.25, 2.5});
    const auto straight = [](const Tensors &, const Tensors &, const Tensors &vs) {
        return Tensors{3 * vs[0]};
    };
    const Tensor down = moebius::custom_gradient({floor(x)}, {x}, straight)[0];
    equal(down, {1, 2});
    equal(grad(square(down), x), {6, 12});
}

/* x -> (w x)^2 by name, in the blocks of each w. */
static Tensor told(const Context &mb, Tensor x, const std::vector<double> &ws)
{
    for (size_t i = 0; i < ws.size(); i++) {
        const moebius::Prefix block(mb, "blocks", static_cast<int64_t>(i));
        x = tell(ws[i] * x, "product");
        x = tell(square(x), "square");
    }
    return x;
}

/* x = 3, w = (2, 0.5): 6, 36, 18, 324. */
static void taps(const Context &mb)
{
    const Tensor x = mb.scalar(3.0);
    const auto body = [&] { return told(mb, x, {2, 0.5}); };
    const auto [y, products] = mb.collect("blocks.*.product", body);
    expect(products.size() == 2, "both products");
    equal(stack(Tensors{y, products[0], products[1]}, 0), {324, 6, 18});
    const Tensors slopes = grad(y, products);
    equal(slopes[0], {216});
    equal(slopes[1], {36}); /* y = p^4 / 4 of the first, and the square of the second */
    expect(mb.collect("blocks.1", [&] { body(); }).size() == 2, "what no result is wanted of");
    equal(mb.collect("nobody", body).result, {324});

    equal(mb.replace("blocks.*.square", {Tensor(), mb.scalar(5.0)}, body), {5});
    equal(mb.replace("blocks.0", {mb.scalar(1.0)}, body), {0.25});

    std::vector<std::string> names;
    const auto watched = [&](const std::string &name, Tensor) { names.push_back(name); };
    equal(mb.tap("", watched, body), {324});
    expect(names == std::vector<std::string>{"blocks.0.product", "blocks.0.square", "blocks.1.product",
                                             "blocks.1.square"},
           "all names, in their order");
    const auto stopped = [](const char *, Tensor t) { return stop_gradient(t); };
    const Tensor half = mb.tap("blocks.0.square", stopped, body);
    equal(half, {324});
    equal(grad(half + x, x), {1});
    mb.tap(
        "blocks.1", [](const char *, Tensor) { return Tensor(); }, [&] { equal(body(), {324}); });

    const auto steps = mb.collect("*", [&] {
        return mb.scan(3, {x},
                       [](moebius::Step &, const Tensors &now) { return Tensors{tell(now[0] * 2, "now")}; });
    });
    equal(steps.told.at(0), {6, 12, 24}); /* brought out of the loop */
}

static void training(const Context &mb)
{
    moebius::Params params(mb, 1, MB_FLOAT64);
    const Tensor w = params.param("w", {2}, mb_init_ones());
    mb_sgd_options options = {};
    options.lr = 0.25;
    moebius::Optimizer made(params, options), optimizer = std::move(made);
    {
        Scope first(mb), scope = std::move(first);
        optimizer.accumulate(0.25 * sum(w * w));
        optimizer.step(0.75 * sum(w * w));
        scope.end();
        scope.end(); /* the second time nothing */
    }
    equal(params.tensor("w"), {0.5, 0.5});
    equal(params.trainable().at(0), {0.5, 0.5});
    const Tensor v = mb.variable<double>({});
    {
        Scope scope(mb);
        assign(v, mb.scalar(7.0));
    }
    equal(v, {7});
}

static void parameters(const Context &mb)
{
    moebius::Params params(mb, 1, MB_FLOAT64), others(mb, 2, MB_FLOAT64);
    for (moebius::Params *p : {&params, &others}) {
        const moebius::Names model(*p, "model");
        p->param("w", {3}, mb_init_normal(1));
        p->param("b", {2}, mb_init_ones());
    }
    expect(params.names() == std::vector<std::string>{"model.w", "model.b"} && params.size() == 5, "names");
    const Tensor w = params.tensor("model.w"), b = params.tensor("model.b");
    const std::vector<double> start = w.values<double>();
    moebius::Snapshot kept(params), snapshot = std::move(kept);
    moebius::Average average(params, 0.75);
    mb_sgd_options options = {};
    options.lr = 0.5;
    moebius::Optimizer optimizer(params, options);
    const auto step = [&] {
        Scope scope(mb);
        const double norm = optimizer.step_norm(sum(w) + 2 * sum(b)).item();
        average.update();
        scope.end();
        return norm;
    };

    params.freeze("*.w");
    expect(params.trainable().size() == 1 && params.size() == 2, "of what is not frozen");
    expect(std::fabs(step() - std::sqrt(8.0)) < 1e-14, "the norm of (2, 2)");
    equal(w, start);
    equal(b, {0, 0});
    equal(average.tensor(1), {0.75, 0.75});
    average.swap();
    equal(b, {0.75, 0.75});
    average.swap();
    params.unfreeze();
    equal(w - snapshot.tensor(0), {0, 0, 0});
    step();
    equal(w - snapshot.tensor(0), {-0.5, -0.5, -0.5});
    equal(b, {-1, -1});
    optimizer.set_lr(0.25);
    {
        Scope scope(mb);
        optimizer.apply({0 * w, 4 * b});
    }
    optimizer.through([](const Tensors &gs) { return Tensors{gs[0], 0 * gs[1] - 4}; });
    {
        moebius::Optimizer moved = std::move(optimizer);
        optimizer = std::move(moved);
        Scope scope(mb);
        optimizer.step(sum(square(b)));
    }
    equal(b, {1, 1});
    assign(b, 0 * b);
    expect(optimizer.lr() == 0.25 && optimizer.steps() == 4 && optimizer.skipped() == 0 &&
               optimizer.loss_scale() == 1,
           "what the optimiser tells");
    equal(b, {0, 0});
    snapshot.restore("model.b");
    equal(b, {1, 1});
    equal(w - snapshot.tensor(0), {-0.5, -0.5, -0.5});
    snapshot.take();
    params.reinit("model.w", 2);
    equal(w - others.tensor("model.w"), {0, 0, 0});
    snapshot.restore();
    expect(at(w) == start[0] - 0.5, "of the second taking");
    params.reinit("model.w", 1);
    expect(w.values<double>() == start, "those that it began with");
    params.set_decay("", false);
    expect(!mb_params_decays(params.get(), 0), "no decay");
}

/* A file brings back what was saved. */
static void files(const Context &mb)
{
    char path[] = "/tmp/moebius-wrapper-XXXXXX";
    const int file = mkstemp(path);
    moebius::Params params(mb, 1, MB_FLOAT64);
    const Tensor w = params.param("w", {2}, mb_init_ones());
    mb_adam_options options = {};
    options.lr = 0.125;
    moebius::Optimizer optimizer(params, options);
    const auto step = [&] {
        Scope scope(mb);
        optimizer.step(sum(square(w)));
    };
    step();
    equal(optimizer.state().at("optimizer.m.w"), {0.2, 0.2}); /* a tenth of the gradient 2 */
    optimizer.save(path, {{"epoch", "3"}, {"of", "nine"}});
    expect(mb.load_metadata(path) == std::map<std::string, std::string>{{"epoch", "3"}, {"of", "nine"}},
           "texts");
    step();
    const std::vector<double> second = w.values<double>();
    step();
    optimizer.load(path);
    expect(optimizer.steps() == 1, "the step of the file");
    step();
    expect(w.values<double>() == second, "the same second step");
    const auto costs = [&] {
        Scope scope(mb);
        const Tensor product = matmul(mb.ones<double>({8, 8}), mb.uniform<double>(mb_key_of(1), {8, 8}));
        return mb.forecast({product});
    };
    expect(costs().flops == 2 * 8 * 8 * 8 && mb.stats().flushes > 3 && std::strlen(mb.backend()) > 2,
           "costs");
    mb.save_safetensors(path, {{"w", w}, {"twice", 2 * w}}, {{"a", "b"}});
    expect(mb.load_metadata(path).at("a") == "b", "a text");
    const auto loaded = mb.load_safetensors(path);
    expect(loaded.size() == 2 && loaded.count("w"), "by name");
    equal(loaded.at("twice") - loaded.at("w"), second);
    moebius::save_npy(path, w);
    equal(mb.load_npy(path), second);
    FILE *table = std::fopen(path, "w");
    std::fputs("a;b\n1;2\n3;4.5\n", table);
    std::fclose(table);
    mb_csv_options csv = {};
    csv.dtype = MB_FLOAT64;
    csv.header = true;
    csv.separator = ';';
    equal(mb.load_csv(path, csv), {1, 2, 3, 4.5});
    params.save(path);
    assign(w, 0 * w);
    params.load(path);
    expect(w.values<double>() == second, "loaded");
    close(file);
    unlink(path);
}

/* Rows (2 i, 2 i + 1) and i of five, in batches of two: 0 1, 2 3, 4, and again. */
static void batches(const Context &mb)
{
    const std::vector<double> rows = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    const std::vector<int32_t> numbers = {0, 1, 2, 3, 4};
    mb_loader_options options = {};
    options.rows = 5;
    options.batch = 2;
    options.in_order = true;
    options.threads = 1;
    moebius::Loader opened(mb, {moebius::column(rows.data(), {2}), moebius::column(numbers.data(), {})},
                           options);
    moebius::Loader loader = std::move(opened);
    expect(loader.batches() == 3 && loader.step() == 0, "an epoch");
    for (int i = 0; i < 2; i++) {
        equal(loader.next()[0], {0, 1, 2, 3});
        expect(loader.next()[1].values<int32_t>() == std::vector<int32_t>{2, 3}, "the second column");
        equal(loader.next()[0], {8, 9});
    }
    expect(loader.step() == 6, "counted over epochs");
}

static void errors()
{
    Context mb;
    const Tensor x = mb.ones<double>({2}), y = mb.ones<double>({3});
    const auto wrong = [&](Tensor poison, const char *part, int line) {
        throws([&] { poison.item(); }, MB_INVALID, part, line);
        throws([&] { mb.check(); }, MB_INVALID, part, line);
        mb.clear();
    };
    wrong(x + y, "add", __LINE__);
    wrong(2 * matmul(x, mb.ones<float>({2})) * 3, "matmul", __LINE__);
    wrong(reshape(x, {7}), "reshape", __LINE__);
    wrong(mb.full({1, 1, 1, 1, 1, 1, 1, 1, 1}, 1.0), "rank", __LINE__);
    wrong(sum(x, {0, 0, 0, 0, 0, 0, 0, 0, 0}), "sum", __LINE__);
    wrong(mb.from({3}, {1.0, 2.0}), "from", __LINE__);
    wrong(moebius::concat({x, mb.ones<float>({2})}, 0), "concat", __LINE__);
    wrong(grad(x > 1, x), "grad", __LINE__);
    wrong(hvp(x, Tensors{x, x}, Tensors{x})[1], "hvp: 1 directions for 2 tensors", __LINE__);
    wrong(jvp_batch(x, Tensors{x, x}, Tensors{x}), "jvp_batch: 1 directions for 2 tensors", __LINE__);
    const auto body = [](moebius::Step &, const Tensors &) { return Tensors(); };
    wrong(mb.scan(3, {x}, body).carries[0], "of 1 carries the body returned 0", __LINE__);
    const auto none = [](moebius::Step &, const Tensors &) { return Tensors(); };
    const auto same = [](moebius::Step &, const Tensors &now) { return now; };
    wrong(mb.scan(3, {x}, same, none).carries[0], "of 1 carries the inverse returned 0", __LINE__);
    const auto other = [&](moebius::Step &, const Tensors &) { return Tensors{y}; };
    wrong(mb.scan(3, {x}, same, other).carries[0], "before a step", __LINE__);
    const auto flat = [](const Tensors &xs, const Tensors &) { return xs[0]; };
    const auto reads = [x](const Tensors &xs, const Tensors &) { return xs[0] * x; };
    const auto fails = [](const Tensors &, const Tensors &) -> Tensor {
        throw std::runtime_error("no loss");
    };
    const auto nothing = [](const Tensors &, const Tensors &, const Tensors &) { return Tensors(); };
    wrong(moebius::grad_mixed(reads, {x})[0], "grad_mixed: the loss reads", __LINE__);
    wrong(moebius::grad_mixed(fails, {x})[0], "no loss", __LINE__);
    wrong(moebius::fixed_point(flat, {x, x}, {}).xs[1], "one result was returned, of 2", __LINE__);
    const Tensor custom = moebius::custom_gradient({square(x)}, {x}, nothing)[0];
    wrong(grad(custom, x), "0 results were returned, of 1", __LINE__ - 1);
    wrong(mb.replace("nobody", {x}, [&] { return x; }) + 1, "only 0 were asked for", __LINE__);
    wrong(mb.collect("", [&] { return x + y; }).told.at(0), "add", __LINE__);
    const int tells = __LINE__ + 1;
    const auto twice = [&] { return tell(tell(x, "a"), "b"); };
    wrong(mb.collect("", twice, 1).told.at(0), "2 tensors were told, of at most 1", __LINE__);
    wrong(mb.replace("a", {y}, twice), "in the place of \"a\"", tells);
    const auto grumbles = [](const char *name, Tensor) { throw std::runtime_error(name + std::string("!")); };
    wrong(mb.tap("b", grumbles, twice), "b!", tells);
    const auto throws_a_number = [](const char *, Tensor) { throw 1; };
    wrong(mb.tap("b", throws_a_number, twice), "no std::exception", tells);

    moebius::Params params(mb, 1);
    params.param("w", {2});
    moebius::Snapshot snapshot(params);
    mb_sgd_options sgd = {};
    sgd.lr = 1;
    moebius::Optimizer optimizer(params, sgd);
    optimizer.through([](const Tensors &) { return Tensors(); });
    optimizer.step(sum(params.tensor("w")));
    throws([&] { mb.check(); }, MB_INVALID, "0 results were returned, of 1", __LINE__ - 1);
    mb.clear();
    const auto said = [&](auto call, int line) {
        call();
        throws([&] { mb.check(); }, MB_INVALID, "\"v\"", line);
        mb.clear();
    };
    said([&] { params.freeze("v"); }, __LINE__);
    said([&] { params.unfreeze("v"); }, __LINE__);
    said([&] { params.set_decay("v", true); }, __LINE__);
    said([&] { params.reinit("v", 1); }, __LINE__);
    said([&] { snapshot.restore("v"); }, __LINE__);
    for (const auto &read : std::vector<std::function<void()>>{
             [&] { mb.load_npy("/nowhere"); }, [&] { mb.load_csv("/nowhere"); },
             [&] { mb.load_safetensors("/nowhere"); }, [&] { mb.save_safetensors("/no/where", {}); },
             [&] { moebius::save_npy("/no/where", x); }}) {
        try {
            read();
            expect(false, "nothing was thrown");
        } catch (const Error &error) {
            expect(error.status() == MB_IO && std::strstr(error.what(), "where"), error.what());
        }
        mb.clear();
    }
    mb_loader_options empty = {};
    throws([&] { moebius::Loader(mb, {}, empty).next(); }, MB_INVALID, "loader", __LINE__);
    mb.clear();
    throws([&] { params.load("/nowhere/at all"); }, MB_IO, "/nowhere/at all", __LINE__);
    mb.clear();
    throws([&] { params.save("/nowhere/at all"); }, MB_IO, "/nowhere/at all", __LINE__);
    mb.clear();
    throws([&] { x.values<float>(); }, MB_INVALID, "float64", __LINE__);
    mb.clear();
    throws([&] { x.item(); }, MB_INVALID, "item", __LINE__);
    mb.clear();
    throws([] { Tensor().item(); }, MB_INVALID, "null", __LINE__);
    Tensor stale;
    {
        Scope scope(mb);
        stale = x * 2;
    }
    throws([&] { stale.values<double>(); }, MB_STALE, "", __LINE__);
    mb.clear();
    throws([&] { moebius::eval({x, x + y}); }, MB_INVALID, "add", __LINE__);
    mb.clear();
    try {
        Context("no such backend").check();
        expect(false, "no such backend");
    } catch (const Error &error) {
        expect(error.status() == MB_BACKEND, error.what());
    }
}

/* An exception ends what it passes through: the context can be used as before. */
static void exceptions(const Context &mb)
{
    const Tensor x = mb.scalar(2.0);
    const auto thrown = [](auto call) {
        try {
            call();
        } catch (int) {
            return true;
        }
        return false;
    };
    expect(thrown([&] { mb.checkpoint([&]() -> Tensor { throw 1; }); }), "out of a checkpoint");
    expect(thrown([&] { mb.scan(2, {x}, [&](moebius::Step &, Tensors) -> Tensors { throw 1; }); }),
           "out of a scan");
    const auto same = [](moebius::Step &, const Tensors &now) { return now; };
    expect(
        thrown([&] { mb.scan(2, {x}, same, [](moebius::Step &, const Tensors &) -> Tensors { throw 1; }); }),
        "out of an inverse");
    expect(thrown([&] { mb.vmap(2, [&](moebius::Example &) -> Tensor { throw 1; }); }), "out of a vmap");
    expect(thrown([&] { mb.replace("a", {x}, [&]() -> Tensor { throw 1; }); }), "out of a tap");
    expect(thrown([&] { mb.collect("", [&] { throw 1; }); }), "out of a tap that collects");
    expect(thrown([&] {
               const moebius::Prefix prefix(mb, "a");
               throw 1;
           }),
           "out of a prefix");
    expect(mb.collect("b", [&] { tell(x, "b"); }).size() == 1, "no prefix is left, and no tap");
    expect(thrown([&] {
               Scope scope(mb);
               throw 1;
           }),
           "out of a scope");
    equal(x * x, {4});
}

int main()
{
    try {
        Context opened, mb = std::move(opened);
        operators(mb);
        functions(mb);
        matrices(mb);
        along_axes(mb);
        parts_of_layers(mb);
        draws(mb);
        derivatives(mb);
        loops(mb);
        inverses(mb);
        functions_on_the_tape(mb);
        taps(mb);
        training(mb);
        parameters(mb);
        files(mb);
        batches(mb);
        exceptions(mb);
        mb.check();
        errors();
    } catch (const std::exception &error) {
        expect(false, error.what());
    }
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
