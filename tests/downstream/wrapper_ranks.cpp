/* SPDX-License-Identifier: MIT
 *
 * wrapper_ranks.cpp - examples/cpp/moebius_mpi.hpp on one of two ranks (in_ranks.py): values and derivatives
 * by closed forms, and what ranks that disagree throw. */
#include "../../examples/cpp/moebius_mpi.hpp"

#include "closed_form.hpp"

#include <cstdlib>

using moebius::Ranks;

static_assert(!std::is_copy_constructible_v<Ranks> && std::is_nothrow_move_constructible_v<Ranks> &&
              std::is_nothrow_destructible_v<Ranks>);

/* On rank r x = (r + 1) (1, 2), of which the sum is (3, 6). */
static void operations(const Context &mb)
{
    Ranks opened(mb), ranks = std::move(opened);
    const double share = ranks.rank() + 1;
    const Tensor x = share * mb.from({2}, {1.0, 2.0});
    const Tensor total = ranks.all_reduce(x);
    equal(total, {3, 6});
    equal(ranks.all_reduce(x, MB_REDUCE_MEAN), {1.5, 3});
    equal(ranks.all_reduce(x, MB_REDUCE_MAX), {2, 4});
    equal(ranks.all_gather(x), {1, 2, 2, 4});
    equal(ranks.reduce_scatter(x), {3 * share});
    equal(ranks.broadcast_from(x, 1), {2, 4});
    equal(grad(square(total), x), {12, 24}); /* 2 (3, 6) from each of the two */
    expect(ranks.size() == 2 && ranks.counted().ops > 5, "what the ranks tell");
}

/* Losses (r + 1) w on rank r: along the mean of the gradients, 1.5. */
static void training(const Context &mb, const std::string &path)
{
    Ranks ranks(mb);
    moebius::Params params(mb, static_cast<uint64_t>(ranks.rank()), MB_FLOAT64);
    const Tensor w = params.param("w", {2}, mb_init_normal(1));
    const std::vector<double> own = w.values<double>();
    ranks.broadcast(params, 1);
    expect((w.values<double>() == own) == (ranks.rank() == 1), "the root's");
    equal(slice(ranks.all_gather(w), 0, 0, 1), w.values<double>());
    mb_sgd_options options = {};
    options.lr = 0.5;
    options.momentum = 0.5;
    moebius::Optimizer optimizer(params, options);
    ranks.share_gradients(optimizer);
    const auto step = [&] {
        const std::vector<double> before = w.values<double>();
        {
            Scope scope(mb);
            optimizer.step((ranks.rank() + 1) * sum(w));
        }
        return at(w) - before[0];
    };
    const auto near = [](double a, double b) { return std::fabs(a - b) < 1e-14; };
    expect(near(step(), -0.75), "along the mean");
    ranks.save(optimizer, path);
    expect(near(step(), -1.125), "the second step");
    ranks.load(optimizer, path);
    expect(near(step(), -1.125), "the second step again");
    const Tensors means = ranks.mean_gradients({w * 0 + ranks.rank(), w * 0 + 2});
    equal(means[0], {0.5, 0.5});
    equal(means[1], {2, 2});
    ranks.agree();
    throws([&] { ranks.load(optimizer, "/nowhere/at all"); }, MB_IO, "/nowhere/at all", __LINE__);
}

/* Of one rank, which all are told of; and of what they do not agree on. */
static void errors()
{
    Context mb, other;
    Ranks ranks(mb), others(other);
    const int mistake = __LINE__ + 2;
    if (ranks.rank() == 1)
        reshape(mb.zeros({2}), {7});
    throws([&] { ranks.agree(); }, MB_INVALID, "reshape", ranks.rank() == 1 ? mistake : __LINE__);
    const Tensor total = others.all_reduce(other.zeros({2 + ranks.rank()}));
    throws([&] { total.values<float>(); }, MB_INVALID,
           "rank 0 is at an all_reduce (sum) of 2 float32, and rank 1 at an all_reduce (sum) of 3 float32",
           __LINE__ - 3);
}

int main()
{
    try {
        Context outer;
        const Ranks all(outer); /* MPI ends with the last of them, and cannot begin again */
        const char *folder = std::getenv("TESTS_FOLDER");
        operations(Context());
        training(Context(), std::string(folder ? folder : ".") + "/optimizer.safetensors");
        errors();
    } catch (const std::exception &error) {
        expect(false, error.what());
    }
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
