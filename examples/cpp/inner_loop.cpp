/* SPDX-License-Identifier: MIT
 *
 * inner_loop.cpp - examples/inner_loop.c in C++, by moebius.hpp: the same numbers. What they mean is told
 * there. */
#include "moebius.hpp"

using moebius::Tensor;

enum { TASKS = 16, POINTS = 4, INNER = 2, OUTER = 600 };

/* w: [TASKS,2,1], x: [POINTS,2], y: [TASKS,POINTS,1] -> [TASKS]: a loss for each task. */
static Tensor task_loss(Tensor w, Tensor x, Tensor y)
{
    return mean(square(matmul(x, w) - y), {1, 2}) * 0.5;
}

static void learn()
{
    moebius::Context mb;
    moebius::Params params(mb, 1, MB_FLOAT64);
    Tensor w0 = params.param("w0", {2, 1}), rates = params.param("rates", {INNER});
    assign(rates, mb.from({INNER}, {0.1, 0.2}));
    mb_adam_options options = {};
    options.lr = 0.02;
    options.schedule = mb_schedule_warmup_cosine(0, OUTER);
    moebius::Optimizer optimizer(params, options);

    for (int step = 0; step <= OUTER; step++) {
        moebius::Scope scope(mb);
        Tensor x = mb.from({POINTS, 2}, {2., 1., 2., -1., -2., 1., -2., -1.});
        mb_key key = mb_key_fold(mb_key_of(7), static_cast<uint64_t>(step));
        Tensor y = matmul(x, mb.normal<double>(key, {TASKS, 2, 1}) + 3.0); /* around (3,3) */

        Tensor w = broadcast(w0, {TASKS, 2, 1});
        double before = mean(task_loss(w, x, y)).item();
        for (int t = 0; t < INNER; t++)
            w -=
                slice(rates, 0, t, 1) * grad(task_loss(w, x, y), w); /* of the sum: each task has its own w */
        Tensor loss = mean(task_loss(w, x, y));
        if (step % 100 == 0)
            std::printf("outer step %3d: loss %8.5f before the inner steps, %.3e after\n", step, before,
                        loss.item());
        if (step < OUTER)
            optimizer.step(loss); /* through both inner steps, to w0 and the rates */
        scope.end();
    }

    std::vector<double> learned = rates.values<double>(), start = w0.values<double>();
    std::printf("learned rates %.4f %.4f   (by hand: 0.25 and 1)\n", learned[0], learned[1]);
    std::printf("learned start %.2f %.2f\n", start[0], start[1]);
}

int main()
{
    try {
        learn();
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
