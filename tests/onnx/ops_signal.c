/* SPDX-License-Identifier: MIT
 *
 * ops_signal.c - Fourier transforms as products with their matrix, windows, mel filters. */
#include "compose.h"

static const double tau = 6.28318530717958647693;

/* ---- Fourier ---- */

/* tau j k / n for j < rows (time), k < columns (frequency), in float64: j k is exact there. */
static mb_tensor angles(call *c, int64_t rows, int64_t columns, int64_t n)
{
    mb_tensor j = along(mb_iota(c->mb, MB_FLOAT64, rows), 0, 2),
              k = along(mb_iota(c->mb, MB_FLOAT64, columns), 1, 2);
    return mb_mul(mb_mul(j, k), tau / (double)n);
}

/* re, im: [..., n], im perhaps no tensor -> [..., columns, 2] */
static mb_tensor transformed(call *c, mb_tensor re, mb_tensor im, int64_t columns, bool inverse)
{
    int64_t n = mb_dim(re, -1);
    mb_tensor angle = angles(c, n, columns, n);
    mb_tensor cosine = mb_cast(mb_cos(angle), mb_dtype_of(re)),
              sine = mb_cast(mb_sin(angle), mb_dtype_of(re));
    if (!inverse)
        sine = mb_neg(sine); /* e^(-i angle) */
    mb_tensor out_re = mb_matmul(re, cosine), out_im = mb_matmul(re, sine);
    if (im.ctx) {
        out_re = mb_sub(out_re, mb_matmul(im, sine));
        out_im = mb_add(out_im, mb_matmul(im, cosine));
    }
    mb_tensor y = mb_stack(((mb_tensor[]){out_re, out_im}), 2, mb_shape_of(out_re).rank);
    return inverse ? mb_div(y, (double)n) : y;
}

/* One of the last axis: the real or the imaginary part. */
static mb_tensor part(mb_tensor x, int i)
{
    int last = mb_shape_of(x).rank - 1;
    return mb_squeeze(mb_slice(x, last, i, 1, 1), last);
}

static void dft_op(call *c)
{
    mb_tensor x = input(c, 0), none = {0};
    int rank = mb_shape_of(x).rank, axis = axis_of(attribute_int(c, "axis", 1), rank);
    int64_t n = host_int(c, 1, mb_dim(x, axis));
    if (n != mb_dim(x, axis))
        x = padded(x, axis, 0, n - mb_dim(x, axis), 0);
    mb_tensor rows = moved(x, axis, rank - 2); /* the axis before the two parts */
    int64_t columns = attribute_int(c, "onesided", 0) ? n / 2 + 1 : n;
    mb_tensor y = transformed(c, part(rows, 0), mb_dim(x, -1) == 2 ? part(rows, 1) : none, columns,
                              attribute_int(c, "inverse", 0) != 0);
    give(c, 0, moved(y, rank - 2, axis));
}

/* signal: [B, length, 1 or 2] -> [B, frames, frequencies, 2] */
static void stft_op(call *c)
{
    mb_tensor x = input(c, 0), none = {0};
    if (!x.ctx)
        return;
    int64_t step = host_int(c, 1, 1), size = has(c, 2) ? mb_dim(input(c, 2), 0) : 0;
    size = host_int(c, 3, size);
    int64_t frames = (mb_dim(x, 1) - size) / step + 1,
            *at = ARENA_NEW(c->run->memory, int64_t, frames * size);
    for (int64_t i = 0; i < frames * size; i++)
        at[i] = i / size * step + i % size;
    mb_tensor index = ints(c, MB_SHAPE(frames, size), at);
    mb_tensor parts[2] = {none, none};
    for (int k = 0; k < mb_dim(x, -1); k++) {
        parts[k] = mb_take(part(x, k), index, 1);
        parts[k] = has(c, 2) ? mb_mul(parts[k], input(c, 2)) : parts[k];
    }
    int64_t columns = attribute_int(c, "onesided", 1) ? size / 2 + 1 : size;
    give(c, 0, transformed(c, parts[0], parts[1], columns, false));
}

/* ---- windows ---- */

/* a - b cos(angle) + d cos(2 angle), over the whole circle; with both ends where it is not periodic. */
static void cosine_window(call *c, double a, double b, double d)
{
    int64_t n = host_int(c, 0, 0);
    int elem = (int)attribute_int(c, "output_datatype", ELEM_FLOAT);
    mb_dtype dtype = MB_FLOAT32;
    if (!carrier(elem, &dtype)) {
        leave(c, elem_name(elem));
        return;
    }
    double round = attribute_int(c, "periodic", 1) ? (double)n : (double)(n - 1);
    mb_tensor angle = mb_mul(mb_iota(c->mb, MB_FLOAT64, n), tau / round);
    mb_tensor y = mb_sub(a, mb_mul(mb_cos(angle), b));
    if (d != 0)
        y = mb_add(y, mb_mul(mb_cos(mb_mul(angle, 2.0)), d));
    give_as(c, 0, mb_cast(y, dtype), elem);
}

static void hann_op(call *c)
{
    cosine_window(c, 0.5, 0.5, 0);
}

static void hamming_op(call *c)
{
    cosine_window(c, 25.0 / 46, 21.0 / 46, 0);
}

static void blackman_op(call *c)
{
    cosine_window(c, 0.42, 0.5, 0.08);
}

/* ---- mel filters ---- */

static mb_tensor mel_of(mb_tensor hertz)
{
    return mb_mul(mb_log1p(mb_div(hertz, 700.0)), 2595 / 2.302585092994046);
}

/* The bins of the spectrum where the triangles begin, peak and end: even steps of mel. */
static mb_tensor mel_edges(call *c, int64_t bands)
{
    mb_tensor low = mel_of(mb_cast(input(c, 3), MB_FLOAT64)), high = mel_of(mb_cast(input(c, 4), MB_FLOAT64));
    mb_tensor step = mb_div(mb_sub(high, low), (double)(bands + 2));
    mb_tensor mel = mb_add(mb_mul(mb_iota(c->mb, MB_FLOAT64, bands + 2), step), low);
    mb_tensor hertz = mb_mul(mb_expm1(mb_mul(mel, 2.302585092994046 / 2595)), 700.0);
    return mb_floor(mb_div(mb_mul(hertz, (double)(host_int(c, 1, 0) + 1)), (double)host_int(c, 2, 1)));
}

static mb_tensor between(mb_tensor low, mb_tensor x, mb_tensor high)
{
    return mb_and(mb_le(low, x), mb_le(x, high));
}

/* Triangles over the bins of a spectrum: up to the middle, itself included, and down after it. A triangle
 * without a rising side is 1 in its middle. */
static void mel_op(call *c)
{
    int64_t bands = host_int(c, 0, 0), bins = host_int(c, 1, 0) / 2 + 1;
    mb_tensor edges = mel_edges(c, bands), bin = along(mb_iota(c->mb, MB_FLOAT64, bins), 0, 2);
    mb_tensor low = along(mb_slice(edges, 0, 0, bands, 1), 1, 2),
              top = along(mb_slice(edges, 0, 1, bands, 1), 1, 2);
    mb_tensor high = along(mb_slice(edges, 0, 2, bands, 1), 1, 2), zero = literal_like(low, 0),
              one = literal_like(low, 1);
    mb_tensor up = mb_div(mb_sub(bin, low), mb_maximum(mb_sub(top, low), 1.0));
    up = mb_where(mb_eq(low, top), one, up);
    mb_tensor down = mb_div(mb_sub(high, bin), mb_maximum(mb_sub(high, top), 1.0));
    mb_tensor falls = mb_and(mb_le(top, bin), mb_lt(bin, high));
    mb_tensor y = mb_where(falls, down, mb_where(between(low, bin, top), up, zero));
    give_as(c, 0, mb_cast(y, MB_FLOAT32), ELEM_FLOAT);
}

const op signal_ops[] = {
    {"BlackmanWindow", blackman_op, false},
    {"DFT", dft_op, false},
    {"HammingWindow", hamming_op, false},
    {"HannWindow", hann_op, false},
    {"MelWeightMatrix", mel_op, false},
    {"STFT", stft_op, false},
    {0},
};
