/* SPDX-License-Identifier: MIT */
#include "derivatives.h"

#include <math.h>
#include <stdio.h>

/* Graphs of more elements are not differentiated: eight evaluations of them take seconds. */
enum { MAX_INPUTS = 16, MAX_ELEMENTS = 50000 };

/* x + h v, and f there. */
typedef struct line {
    run *r;
    const value *inputs;
    int n_inputs, n;                        /* n: those that are floats */
    mb_tensor x[MAX_INPUTS], v[MAX_INPUTS]; /* of those */
} line;

/* Uniform on [-1, 1], the same in every run: the low bits of a linear congruential generator's state are
 * poor, the high ones do. */
static double draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) / (double)((uint64_t)1 << 52) - 1;
}

static mb_tensor drawn(run *r, mb_tensor like, mb_dtype dtype, uint64_t seed)
{
    int64_t count = mb_count(like);
    double *numbers = ARENA_NEW(r->memory, double, count);
    uint64_t state = seed * 1000003 + 17;
    for (int64_t i = 0; i < count; i++)
        numbers[i] = draw(&state);
    return mb_cast(mb_from(r->mb, MB_FLOAT64, mb_shape_of(like), numbers), dtype);
}

static bool floats_of(const value *v)
{
    return v->kind == VALUE_TENSOR && v->t.ctx &&
           (mb_dtype_of(v->t) == MB_FLOAT32 || mb_dtype_of(v->t) == MB_FLOAT64);
}

/* 0-d float64; no tensor where no output is of floats, or the graph cannot be recorded. */
static mb_tensor f_at(line *l, double h)
{
    const graph_proto *g = l->r->model->graph;
    value *in = ARENA_NEW(l->r->memory, value, l->n_inputs),
          *out = ARENA_NEW(l->r->memory, value, g->n_outputs);
    mb_tensor f = {0};
    for (int i = 0, k = 0; i < l->n_inputs; i++) {
        in[i] = l->inputs[i];
        if (floats_of(&in[i]) && k < l->n) {
            in[i].t = h == 0 ? l->x[k] : mb_add(l->x[k], mb_mul(l->v[k], h));
            k++;
        }
    }
    if (!run_graph(l->r, g, in, l->n_inputs, out))
        return f;
    for (int i = 0; i < g->n_outputs; i++) {
        if (!floats_of(&out[i]))
            continue;
        mb_tensor y = mb_cast(out[i].t, MB_FLOAT64);
        mb_tensor part = mb_sum(mb_mul(y, drawn(l->r, y, MB_FLOAT64, 100 + (uint64_t)i)), MB_ALL);
        f = f.ctx ? mb_add(f, part) : part;
    }
    return f;
}

/* Sum of inner products. */
static mb_tensor inner(const mb_tensor *a, const mb_tensor *b, int n)
{
    mb_tensor sum = {0};
    for (int i = 0; i < n; i++) {
        mb_tensor part = mb_sum(mb_mul(mb_cast(a[i], MB_FLOAT64), mb_cast(b[i], MB_FLOAT64)), MB_ALL);
        sum = i == 0 ? part : mb_add(sum, part);
    }
    return sum;
}

static bool close_to(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance * (1 + fabs(a) + fabs(b));
}

static slopes first_order(line *l, mb_tensor f, char *text, size_t size)
{
    mb_tensor g[MAX_INPUTS], t;
    const double h = 1.0 / (1 << 17);
    mb_grad(f, l->x, l->n, g);
    mb_jvp(&f, 1, l->x, l->v, l->n, &t);
    mb_tensor ahead = f_at(l, h), behind = f_at(l, -h), nearer = f_at(l, h / 2);
    double reverse = mb_item(inner(g, l->v, l->n)), forward = mb_item(t), here = mb_item(f);
    double right = (mb_item(ahead) - here) / h, left = (here - mb_item(behind)) / h;
    if (!isfinite(here) || !isfinite(right) || !isfinite(left) ||
        fabs(here) > 1e6) /* its rounding, by h: 1e-5 */
        return SLOPES_NONE;
    double half = (mb_item(nearer) - here) / (h / 2); /* a jump's is twice the slope */
    bool kink = !close_to(left, right, 1e-2) || !close_to(half, right, 1e-2);
    if (close_to(reverse, forward, 1e-10) && (kink || close_to(reverse, (left + right) / 2, 1e-6)))
        return kink ? SLOPES_NONE : SLOPES_AGREE;
    snprintf(text, size, "first derivative: reverse %.10g, forward %.10g, differences %.10g and %.10g",
             reverse, forward, left, right);
    return SLOPES_DIFFER;
}

static slopes second_order(line *l, mb_tensor f, char *text, size_t size)
{
    mb_tensor a[MAX_INPUTS], b[MAX_INPUTS];
    const double h = 1.0 / (1 << 9);
    mb_hvp(f, l->x, l->v, l->n, a);
    mb_hvp_reverse(f, l->x, l->v, l->n, b);
    mb_tensor at[5];
    for (int i = 0; i < 5; i++)
        at[i] = f_at(l, (i - 2) * h);
    double y[5], forward = mb_item(inner(a, l->v, l->n)), reverse = mb_item(inner(b, l->v, l->n));
    for (int i = 0; i < 5; i++)
        y[i] = mb_item(at[i]);
    double narrow = (y[1] - 2 * y[2] + y[3]) / (h * h), wide = (y[0] - 2 * y[2] + y[4]) / (4 * h * h);
    double best = narrow + (narrow - wide) / 3; /* Richardson: the error of order h^2 cancels */
    bool smooth = close_to(narrow, wide, 1e-3);
    if (close_to(forward, reverse, 1e-9) && (!smooth || close_to(forward, best, 1e-3)))
        return SLOPES_AGREE;
    snprintf(text, size, "second derivative: forward %.10g, reverse %.10g, differences %.10g", forward,
             reverse, best);
    return SLOPES_DIFFER;
}

slopes check_slopes(run *r, const value *inputs, int n_inputs, char *text, size_t size)
{
    line l = {.r = r, .inputs = inputs, .n_inputs = n_inputs};
    int64_t elements = 0;
    for (int i = 0; i < n_inputs && l.n < MAX_INPUTS; i++)
        if (floats_of(&inputs[i])) {
            l.x[l.n] = inputs[i].t;
            l.v[l.n] = drawn(r, inputs[i].t, mb_dtype_of(inputs[i].t), (uint64_t)i + 1);
            elements += mb_count(inputs[i].t);
            l.n++;
        }
    mb_tensor f = l.n > 0 && elements <= MAX_ELEMENTS ? f_at(&l, 0) : (mb_tensor){0};
    if (!f.ctx)
        return SLOPES_NONE;
    slopes first = first_order(&l, f, text, size);
    bool alike = true;
    for (int i = 1; i < l.n; i++) /* mb_hvp_reverse wants one dtype */
        alike &= mb_dtype_of(l.x[i]) == mb_dtype_of(l.x[0]);
    return first == SLOPES_AGREE && alike ? second_order(&l, f, text, size) : first;
}
