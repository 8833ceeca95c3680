/* SPDX-License-Identifier: MIT
 *
 * ops_sample.c - images read between their pixels, at places that the data says: all recorded, so that the
 * places can be differentiated. */
#include "compose.h"

/* ---- GridSample ---- */

typedef struct sampler {
    mb_tensor image; /* [N, C, H W] */
    int64_t height, width, count;
    bool aligned, zeros, border; /* neither of the last two: reflection */
} sampler;

/* [-1, 1] to pixels: the ends are the centres of the outer pixels, or their outer edges. */
static mb_tensor in_pixels(const sampler *s, mb_tensor g, int64_t size)
{
    if (s->aligned)
        return mb_mul(mb_add(g, 1.0), (double)(size - 1) / 2);
    return mb_mul(mb_sub(mb_mul(mb_add(g, 1.0), (double)size), 1.0), 0.5);
}

/* A coordinate mirrored at the ends until it lies between them: a triangle wave. */
static mb_tensor mirrored(const sampler *s, mb_tensor at, int64_t size)
{
    double low = s->aligned ? 0 : -0.5, span = s->aligned ? (double)(size - 1) : (double)size;
    mb_tensor t = mb_div(mb_sub(at, low), 2 * span);
    mb_tensor part = mb_mul(mb_sub(t, mb_floor(t)), 2 * span);
    return mb_add(mb_minimum(part, mb_sub(2 * span, part)), low);
}

static mb_tensor brought_inside(const sampler *s, mb_tensor at, int64_t size)
{
    if (s->zeros)
        return at;
    if (!s->border)
        at = mirrored(s, at, size);
    return mb_minimum(mb_maximum(at, 0.0), (double)(size - 1));
}

static mb_tensor is_inside(mb_tensor at, int64_t size)
{
    return mb_and(mb_le(literal_like(at, 0), at), mb_le(at, literal_like(at, (double)(size - 1))));
}

/* The pixels at whole coordinates [N, P] -> [N, C, P], 0 outside. */
static mb_tensor pixels(const sampler *s, mb_tensor x, mb_tensor y)
{
    mb_tensor inside = mb_and(is_inside(x, s->width), is_inside(y, s->height));
    mb_tensor column = mb_minimum(mb_maximum(x, 0.0), (double)(s->width - 1));
    mb_tensor row = mb_minimum(mb_maximum(y, 0.0), (double)(s->height - 1));
    mb_tensor at = mb_cast(mb_add(mb_mul(row, (double)s->width), column), MB_INT32);
    mb_shape shape = mb_shape_of(s->image);
    shape.dim[2] = s->count;
    mb_tensor value = mb_take_along(s->image, mb_broadcast(mb_unsqueeze(at, 1), shape));
    return mb_where(mb_unsqueeze(inside, 1), value, literal_like(value, 0));
}

static mb_tensor bilinear(const sampler *s, mb_tensor x, mb_tensor y)
{
    mb_tensor left = mb_floor(x), top = mb_floor(y), sum = {0};
    mb_tensor fx = mb_sub(x, left), fy = mb_sub(y, top);
    for (int k = 0; k < 4; k++) {
        mb_tensor px = mb_add(left, (double)(k & 1)), py = mb_add(top, (double)(k >> 1));
        mb_tensor wx = k & 1 ? fx : mb_sub(1.0, fx), wy = k >> 1 ? fy : mb_sub(1.0, fy);
        mb_tensor part = mb_mul(pixels(s, px, py), mb_unsqueeze(mb_mul(wx, wy), 1));
        sum = k == 0 ? part : mb_add(sum, part);
    }
    return sum;
}

/* Keys's kernel with a = -3/4, for the i-th pixel of -1 ... 2, where `part` is how far behind pixel 0 it is
 * read. */
static mb_tensor cubic_weight(mb_tensor part, int i)
{
    const double a = -0.75;
    mb_tensor d = i <= 0 ? mb_add(part, (double)-i) : mb_sub((double)i, part);
    if (i == 0 || i == 1)
        return mb_add(mb_mul(mb_mul(mb_sub(mb_mul(d, a + 2), a + 3), d), d), 1.0);
    mb_tensor inner = mb_add(mb_mul(mb_sub(mb_mul(d, a), 5 * a), d), 8 * a);
    return mb_sub(mb_mul(inner, d), 4 * a);
}

/* Each of the 16 pixels is brought inside by itself. */
static mb_tensor bicubic(const sampler *s, mb_tensor x, mb_tensor y)
{
    mb_tensor left = mb_floor(x), top = mb_floor(y), sum = {0};
    for (int k = 0; k < 16; k++) {
        int i = k % 4 - 1, j = k / 4 - 1;
        mb_tensor px = mb_add(left, (double)i), py = mb_add(top, (double)j);
        mb_tensor wx = cubic_weight(mb_sub(x, left), i), wy = cubic_weight(mb_sub(y, top), j);
        mb_tensor value = pixels(s, brought_inside(s, px, s->width), brought_inside(s, py, s->height));
        mb_tensor part = mb_mul(value, mb_unsqueeze(mb_mul(wx, wy), 1));
        sum = k == 0 ? part : mb_add(sum, part);
    }
    return sum;
}

static void grid_sample_op(call *c)
{
    mb_tensor x = input(c, 0), grid = input(c, 1);
    if (!x.ctx || !grid.ctx)
        return;
    mb_shape in = mb_shape_of(x), out = mb_shape_of(grid);
    sampler s = {.image = flattened(x, 2, 4), .height = in.dim[2], .width = in.dim[3]};
    s.count = out.dim[1] * out.dim[2];
    s.aligned = attribute_int(c, "align_corners", 0) != 0;
    s.zeros = attribute_is(c, "padding_mode", "zeros", "zeros");
    s.border = attribute_is(c, "padding_mode", "border", "zeros");
    grid = flattened(grid, 1, 3);
    mb_tensor px = in_pixels(&s, mb_squeeze(mb_slice(grid, 2, 0, 1, 1), 2), s.width);
    mb_tensor py = in_pixels(&s, mb_squeeze(mb_slice(grid, 2, 1, 1, 1), 2), s.height), y;
    mb_tensor qx = brought_inside(&s, px, s.width), qy = brought_inside(&s, py, s.height);
    if (attribute_is(c, "mode", "bicubic", "bilinear"))
        y = bicubic(&s, px, py);
    else if (attribute_is(c, "mode", "nearest", "bilinear"))
        y = pixels(&s, mb_round(qx), mb_round(qy));
    else
        y = bilinear(&s, qx, qy);
    give(c, 0, mb_reshape(y, MB_SHAPE(in.dim[0], in.dim[1], out.dim[1], out.dim[2])));
}

/* ---- RoiAlign ---- */

/* The weights of an axis for each region and bin, [R, bins, size]: the mean over the samples of a bin of the
 * hat function around each. A sample more than a pixel outside counts 0. */
static mb_tensor bin_weights(call *c, mb_tensor start, mb_tensor length, int64_t bins, int64_t size)
{
    int64_t samples = attribute_int(c, "sampling_ratio", 0);
    mb_tensor sample = mb_mul(mb_add(mb_iota(c->mb, MB_FLOAT32, bins * samples), 0.5), 1.0 / (double)samples);
    mb_tensor step = mb_unsqueeze(mb_div(length, (double)bins), 1);
    mb_tensor at = mb_add(mb_unsqueeze(start, 1), mb_mul(step, mb_unsqueeze(sample, 0)));
    mb_tensor counts = mb_and(mb_le(literal_like(at, -1), at), mb_le(at, literal_like(at, (double)size)));
    mb_tensor inside = mb_unsqueeze(mb_minimum(mb_maximum(at, 0.0), (double)(size - 1)), 2);
    mb_tensor pixel = along(mb_iota(c->mb, MB_FLOAT32, size), 2, 3);
    mb_tensor hat = mb_maximum(mb_sub(1.0, mb_abs(mb_sub(inside, pixel))), 0.0);
    hat = mb_where(mb_unsqueeze(counts, 2), hat, literal_like(hat, 0));
    return mb_mean(mb_reshape(hat, MB_SHAPE(mb_dim(start, 0), bins, samples, size)), MB_AXES(2));
}

static void roi_align_op(call *c)
{
    mb_tensor x = input(c, 0), rois = input(c, 1), batch = input(c, 2);
    if (!attribute_is(c, "mode", "avg", "avg") || attribute_int(c, "sampling_ratio", 0) == 0) {
        leave(c, "the largest sample, or as many samples as a region has pixels");
        return;
    }
    bool half = attribute_is(c, "coordinate_transformation_mode", "half_pixel", "half_pixel");
    mb_tensor edges = mb_sub(mb_mul(rois, attribute_float(c, "spatial_scale", 1)), half ? 0.5 : 0.0);
    mb_tensor weights[2]; /* of columns and rows */
    for (int k = 0; k < 2; k++) {
        mb_tensor start = mb_squeeze(mb_slice(edges, 1, k, 1, 1), 1);
        mb_tensor length = mb_sub(mb_squeeze(mb_slice(edges, 1, k + 2, 1, 1), 1), start);
        length = half ? length : mb_maximum(length, 1.0);
        int64_t bins = attribute_int(c, k ? "output_height" : "output_width", 1);
        weights[k] = bin_weights(c, start, length, bins, mb_dim(x, k ? 2 : 3));
    }
    mb_tensor rows = mb_einsum("rchw,rph->rcpw", mb_take(x, batch, 0), weights[1]);
    give(c, 0, mb_einsum("rcpw,rqw->rcpq", rows, weights[0]));
}

const op sample_ops[] = {
    {"GridSample", grid_sample_op, false},
    {"RoiAlign", roi_align_op, false},
    {0},
};
