/* SPDX-License-Identifier: MIT
 *
 * ops_resize.c - Resize and Upsample: along each axis a matrix of weights, which depends on sizes alone and
 * is made on the host; nearest neighbours are taken by index. */
#include "compose.h"

#include <math.h>
#include <string.h>

/* One axis to be resized. */
typedef struct axis_plan {
    int64_t in, out;
    double scale, from, to; /* from, to: the region of interest, in parts of the axis */
    const char *transform;
} axis_plan;

/* Where in x's axis the i-th entry of the result lies. The size used is the scaled one, not rounded. */
static double position(const axis_plan *p, int64_t i)
{
    double size = p->scale * (double)p->in, last = (double)(p->in - 1), x = (double)i;
    if (strcmp(p->transform, "align_corners") == 0)
        return size == 1 ? 0 : x * last / (size - 1);
    if (strcmp(p->transform, "asymmetric") == 0)
        return x / p->scale;
    if (strcmp(p->transform, "tf_half_pixel_for_nn") == 0)
        return (x + 0.5) / p->scale;
    if (strcmp(p->transform, "tf_crop_and_resize") == 0) {
        double width = p->to - p->from;
        return p->from * last + (size == 1 ? width * last / 2 : x * width * last / (size - 1));
    }
    if (strcmp(p->transform, "pytorch_half_pixel") == 0 && size == 1)
        return -0.5;
    return (x + 0.5) / p->scale - 0.5;
}

static int64_t within(int64_t i, int64_t size)
{
    return i < 0 ? 0 : i >= size ? size - 1 : i;
}

/* ---- nearest ---- */

static double nearest(double at, const char *mode)
{
    if (strcmp(mode, "floor") == 0)
        return floor(at);
    if (strcmp(mode, "ceil") == 0)
        return ceil(at);
    return strcmp(mode, "round_prefer_ceil") == 0 ? floor(at + 0.5) : ceil(at - 0.5);
}

static mb_tensor resize_nearest(call *c, mb_tensor x, int axis, const axis_plan *p)
{
    const char *mode = attribute_text(c, "nearest_mode", "round_prefer_floor");
    if (c->opset < 11) /* Upsample, and the first Resize */
        mode = "floor";
    int64_t *from = ARENA_NEW(c->run->memory, int64_t, p->out);
    for (int64_t i = 0; i < p->out; i++)
        from[i] = within((int64_t)nearest(position(p, i), mode), p->in);
    return mb_take(x, ints(c, MB_SHAPE(p->out), from), axis);
}

/* ---- by weights ---- */

/* Keys's kernel at a distance below 2. */
static double cubic(double distance, double a)
{
    double d = fabs(distance);
    return d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
}

/* One row of the matrix: the weights of x's entries around `at`, those outside of x given to its ends, or
 * left out and the others made to sum to 1. */
static void fill_row(call *c, const axis_plan *p, double at, double *row)
{
    bool is_cubic = attribute_is(c, "mode", "cubic", "nearest");
    bool exclude = attribute_int(c, "exclude_outside", 0) != 0;
    double a = attribute_float(c, "cubic_coeff_a", -0.75), sum = 0;
    int64_t base = (int64_t)floor(at);
    for (int64_t i = base - (is_cubic ? 1 : 0); i <= base + (is_cubic ? 2 : 1); i++) {
        double weight = is_cubic ? cubic(at - (double)i, a) : 1 - fabs(at - (double)i);
        if (exclude && (i < 0 || i >= p->in))
            continue;
        row[within(i, p->in)] += weight;
        sum += weight;
    }
    for (int64_t i = 0; exclude && i < p->in; i++)
        row[i] /= sum;
}

static mb_tensor resize_weighted(call *c, mb_tensor x, int axis, const axis_plan *p)
{
    bool crop = strcmp(p->transform, "tf_crop_and_resize") == 0, any = false;
    double *weights = ARENA_NEW(c->run->memory, double, p->out * p->in);
    uint8_t *outside = ARENA_NEW(c->run->memory, uint8_t, p->out);
    for (int64_t i = 0; i < p->out; i++) {
        double at = position(p, i);
        outside[i] = crop && (at < 0 || at > (double)(p->in - 1));
        any |= outside[i];
        fill_row(c, p, at, weights + i * p->in);
    }
    int last = mb_shape_of(x).rank - 1;
    mb_tensor matrix = floats(c, mb_dtype_of(x), MB_SHAPE(p->out, p->in), weights);
    mb_tensor y = mb_matmul(moved(x, axis, last), mb_transpose(matrix));
    if (any) {
        double value = attribute_float(c, "extrapolation_value", 0);
        y = mb_where(mb_from(c->mb, MB_BOOL, MB_SHAPE(p->out), outside), literal_like(y, value), y);
    }
    return moved(y, last, axis);
}

/* ---- the op ---- */

/* Scales or sizes, one for each axis: the inputs that hold them moved from version to version. */
static bool plan_axis(call *c, mb_tensor x, int axis, axis_plan *p)
{
    int n = 0, rank = mb_shape_of(x).rank, scales_at = c->opset < 11 ? 1 : 2;
    *p = (axis_plan){.in = mb_dim(x, axis), .to = 1};
    p->transform =
        attribute_text(c, "coordinate_transformation_mode", c->opset < 11 ? "asymmetric" : "half_pixel");
    if (has(c, 3)) {
        const int64_t *sizes = host_ints(c, 3, &n);
        p->out = n == rank ? sizes[axis] : 0;
        p->scale = (double)p->out / (double)p->in;
    } else {
        const double *scales = host_reals(c, scales_at, &n);
        p->scale = n == rank ? scales[axis] : 0;
        p->out = (int64_t)floor(p->scale * (double)p->in);
    }
    if (strcmp(p->transform, "tf_crop_and_resize") == 0) {
        int parts;
        const double *roi = host_reals(c, 1, &parts);
        if (parts != 2 * rank)
            return false;
        p->from = roi[axis];
        p->to = roi[rank + axis];
    }
    return n == rank;
}

static void resize_op(call *c)
{
    mb_tensor x = input(c, 0);
    bool by_index = attribute_is(c, "mode", "nearest", "nearest");
    for (int axis = mb_shape_of(x).rank - 1; axis >= 0; axis--) {
        axis_plan p;
        if (!plan_axis(c, x, axis, &p)) {
            leave(c, "neither scales nor sizes for each axis");
            return;
        }
        bool whole = p.from == 0 && p.to == 1 && p.scale == 1;
        if (!whole)
            x = by_index ? resize_nearest(c, x, axis, &p) : resize_weighted(c, x, axis, &p);
    }
    give(c, 0, x);
}

const op resize_ops[] = {
    {"Resize", resize_op, false},
    {"Upsample", resize_op, false},
    {0},
};
