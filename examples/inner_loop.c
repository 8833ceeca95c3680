/* SPDX-License-Identifier: MIT
 *
 * inner_loop.c - learning how to learn, small enough to check by hand.
 *
 * Each task is a line y = a . x through the points x = (+-2, +-1), with its own a. A learner w takes two SGD
 * steps on a task. Its loss is l(w) = 1/2 mean (x . (w - a))^2, with gradient diag(4, 1) (w - a): a step of
 * rate e shrinks the error by 1 - 4e in the first coordinate and by 1 - e in the second. So the rates 1/4 and
 * 1, in either order, solve every task in two steps. The outer loop finds them, and a start w0, by
 * differentiating through the inner one. */
#include <moebius.h>
#include <stdio.h>

enum { TASKS = 16, POINTS = 4, INNER = 2, OUTER = 600 };

/* w: [TASKS,2,1], x: [POINTS,2], y: [TASKS,POINTS,1] -> [TASKS]: a loss for each task. */
static mb_tensor task_loss(mb_tensor w, mb_tensor x, mb_tensor y)
{
    return mb_mul(mb_mean(mb_square(mb_sub(mb_matmul(x, w), y)), MB_AXES(1, 2)), 0.5);
}

int main(void)
{
    mb_context *mb = mb_open(NULL);
    mb_params *p = mb_params_new_with(mb, 1, MB_FLOAT64);
    mb_tensor w0 = mb_param(p, "w0", MB_SHAPE(2, 1), mb_init_zeros());
    mb_tensor rates = mb_param(p, "rates", MB_SHAPE(INNER), mb_init_zeros());
    mb_assign(rates, mb_from(mb, MB_FLOAT64, MB_SHAPE(INNER), (double[]){0.1, 0.2}));
    mb_optimizer *opt =
        mb_adam(p, (mb_adam_options){.lr = 0.02, .schedule = mb_schedule_warmup_cosine(0, OUTER)});

    const double points[POINTS][2] = {{2, 1}, {2, -1}, {-2, 1}, {-2, -1}};
    for (int step = 0; step <= OUTER && mb_error(mb) == MB_OK; step++) {
        mb_scope scope = mb_scope_begin(mb);
        mb_tensor x = mb_from(mb, MB_FLOAT64, MB_SHAPE(POINTS, 2), points);
        mb_key key = mb_key_fold(mb_key_of(7), (uint64_t)step);
        mb_tensor a = mb_add(mb_normal(mb, key, MB_FLOAT64, MB_SHAPE(TASKS, 2, 1)), 3.0); /* around (3,3) */
        mb_tensor y = mb_matmul(x, a);

        mb_tensor w = mb_broadcast(w0, MB_SHAPE(TASKS, 2, 1));
        double before = mb_item(mb_mean(task_loss(w, x, y), MB_ALL));
        for (int t = 0; t < INNER; t++) {
            mb_tensor dw;
            mb_grad(task_loss(w, x, y), &w, 1, &dw); /* of the sum over tasks: each task has its own w */
            w = mb_sub(w, mb_mul(mb_slice(rates, 0, t, 1, 1), dw));
        }
        mb_tensor loss = mb_mean(task_loss(w, x, y), MB_ALL);
        if (step % 100 == 0)
            printf("outer step %3d: loss %8.5f before the inner steps, %.3e after\n", step, before,
                   mb_item(loss));
        if (step < OUTER)
            mb_step(opt, loss); /* through both inner steps, to w0 and the rates */
        mb_scope_end(scope);
    }

    double learned[INNER] = {0}, start[2] = {0};
    mb_read(rates, learned, sizeof learned);
    mb_read(w0, start, sizeof start);
    printf("learned rates %.4f %.4f   (by hand: 0.25 and 1)\n", learned[0], learned[1]);
    printf("learned start %.2f %.2f\n", start[0], start[1]);
    if (mb_error(mb) != MB_OK)
        fprintf(stderr, "%s\n", mb_message(mb));
    mb_optimizer_free(opt);
    mb_params_free(p);
    return mb_close(mb);
}
