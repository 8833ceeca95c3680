/* SPDX-License-Identifier: MIT
 *
 * ridge.c - how strong a penalty should be, by its derivative: w is least in |X w - y|^2 + e^s |w|^2 on the
 * data to fit, and Newton's method looks for the s with the least error on the others. First and second
 * derivatives by s go through the minimum, not through the iterations that find it. The closed form,
 * (X^T X + e^s)^-1 X^T y, is printed beside. */
#include <math.h>
#include <moebius.h>
#include <stdio.h>

enum { ROWS = 40, COLUMNS = 20, STEPS = 8 };

typedef struct task {
    mb_tensor X, y, others, of_others;
} task;

static mb_tensor apply(mb_tensor X, mb_tensor w)
{
    return mb_einsum("ij,j->i", X, w);
}

static mb_tensor squares(mb_tensor x)
{
    return mb_sum(mb_square(x), MB_ALL);
}

/* Parameters: X, y, s. */
static mb_status penalised(const void *user, mb_context *mb, const mb_map_at *at, mb_tensor *out)
{
    (void)user;
    mb_tensor w = at->xs[0], error = mb_sub(apply(at->params[0], w), at->params[1]);
    out[0] = mb_add(squares(error), mb_mul(mb_exp(at->params[2]), squares(w)));
    return mb_error(mb);
}

static task task_of(mb_context *mb)
{
    mb_key key = mb_key_of(7);
    mb_tensor w = mb_normal(mb, key, MB_FLOAT64, MB_SHAPE(COLUMNS));
    mb_tensor X[2], y[2];
    for (int i = 0; i < 2; i++) {
        mb_key own = mb_key_fold(key, 1 + (uint64_t)i);
        X[i] = mb_normal(mb, own, MB_FLOAT64, MB_SHAPE(ROWS, COLUMNS));
        mb_tensor noise = mb_mul(mb_normal(mb, mb_key_fold(own, 1), MB_FLOAT64, MB_SHAPE(ROWS)), 4);
        y[i] = mb_add(apply(X[i], w), noise);
    }
    return (task){X[0], y[0], X[1], y[1]};
}

static mb_tensor error_of(const task *t, mb_tensor w)
{
    return mb_div(squares(mb_sub(apply(t->others, w), t->of_others)), ROWS);
}

/* The error of the others, and its first two derivatives by s. */
static void by_penalty(const task *t, mb_tensor s, bool closed, mb_tensor out[3], mb_convergence *told)
{
    mb_tensor w = mb_zeros(s.ctx, MB_FLOAT64, MB_SHAPE(COLUMNS));
    const mb_tensor params[3] = {t->X, t->y, s};
    const mb_implicit_options options = {.tolerance = 1e-12, .linear = {.tolerance = 1e-13}};
    if (closed)
        w = mb_squeeze(mb_lstsq(t->X, mb_unsqueeze(t->y, -1), mb_exp(s)), -1);
    else
        mb_minimize(MB_LIT(mb_map){.call = penalised}, &w, 1, params, 3, options, &w, told);
    out[0] = error_of(t, w);
    for (int order = 1; order < 3; order++)
        mb_grad(out[order - 1], &s, 1, &out[order]);
}

int main(void)
{
    mb_context *mb = mb_open(NULL);
    double s = 0, worst = 0;
    printf("        s       error           d/ds          d2/ds2  steps\n");
    for (int step = 0; step < STEPS && mb_error(mb) == MB_OK; step++) {
        mb_scope scope = mb_scope_begin(mb);
        task t = task_of(mb);
        mb_tensor of_s = mb_scalar(mb, MB_FLOAT64, s), all[7];
        mb_convergence told;
        by_penalty(&t, of_s, false, all, &told);
        by_penalty(&t, of_s, true, all + 3, NULL);
        all[6] = told.steps;
        mb_eval(all, 7);
        double v[6];
        for (int i = 0; i < 6; i++)
            v[i] = mb_item(all[i]);
        for (int i = 0; i < 3; i++)
            worst = fmax(worst, fabs(v[i] - v[3 + i]) / fmax(1, fabs(v[3 + i])));
        printf("%9.5f %11.7f %14.10f %14.10f  %5g%s\n", s, v[0], v[1], v[2], mb_item(told.steps),
               mb_item(mb_cast(told.converged, MB_INT32)) > 0 ? "" : ", not converged");
        s -= v[2] > 0 ? fmax(-1, fmin(1, v[1] / v[2])) : copysign(1, v[1]);
        mb_scope_end(scope);
    }
    printf("furthest from the closed form: %.1e\n", worst);
    if (mb_error(mb) != MB_OK)
        fprintf(stderr, "%s\n", mb_message(mb));
    return mb_close(mb) != MB_OK || !(worst < 1e-9);
}
