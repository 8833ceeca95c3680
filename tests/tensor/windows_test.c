/* SPDX-License-Identifier: MIT
 * windows_test.c - padding modes, windows and their sums against plain loops, in every dtype. */
#include "support.h"

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

enum { ROWS = 3, LONG = 7, WIDE = 2 }; /* x: [ROWS,LONG,WIDE], of which the middle axis is looked at */

static mb_tensor counted(mb_context *ctx, mb_dtype dtype, int64_t n)
{
    double data[ROWS * LONG * WIDE];
    for (int i = 0; i < ROWS * LONG * WIDE; i++)
        data[i] = i % 11 - 3;
    return from_doubles(ctx, dtype, MB_SHAPE(ROWS, n, WIDE), data);
}

/* Which element of an axis of n lies at place i, which may be outside; -1: the value. */
static int64_t source(mb_pad_mode mode, int64_t i, int64_t n)
{
    if (i >= 0 && i < n)
        return i;
    switch (mode) {
    case MB_PAD_EDGE:
        return i < 0 ? 0 : n - 1;
    case MB_PAD_REFLECT:
        return i < 0 ? -i : 2 * (n - 1) - i;
    case MB_PAD_WRAP:
        return (i + n) % n;
    default:
        return -1;
    }
}

static void check_pad(mb_context *ctx, mb_dtype dtype, mb_pad_mode mode, double value, int64_t n,
                      int64_t before, int64_t after)
{
    mb_tensor x = counted(ctx, dtype, n);
    mb_tensor y = mb_pad_with(x, 1, before, after, (mb_pad_options){mode, value});
    int64_t size = n + before + after;
    if (!expect(same_shape(mb_shape_of(y), MB_SHAPE(ROWS, size, WIDE)), "pad: %s %s",
                shape_text(mb_shape_of(y)), mb_message(ctx)))
        return;
    double *from = values(x), *got = values(y);
    if (dtype == MB_BOOL)
        value = value != 0;
    for (int64_t i = 0; i < ROWS * size * WIDE; i++) {
        int64_t place = source(mode, i / WIDE % size - before, n), row = i / WIDE / size;
        double want = place < 0 ? value : from[(row * n + place) * WIDE + i % WIDE];
        expect(got[i] == want, "pad mode %d of %s, %lld + %lld + %lld: [%lld] is %g, not %g", (int)mode,
               mb_dtype_name(dtype), (long long)before, (long long)n, (long long)after, (long long)i, got[i],
               want);
    }
}

Test(windows, pad)
{
    ON_BOTH
    for (mb_dtype dtype = MB_FLOAT32; dtype <= MB_BOOL; dtype++)
        for (mb_pad_mode mode = MB_PAD_VALUE; mode <= MB_PAD_WRAP; mode++) {
            check_pad(ctx, dtype, mode, 5, LONG, 2, 3);
            check_pad(ctx, dtype, mode, 0, LONG, 0, 1);
            check_pad(ctx, dtype, mode, -1, LONG, 6, 0);
            check_pad(ctx, dtype, mode, 1, 2, 1, 1);
            check_pad(ctx, dtype, mode, 1, 0, 0, 0);
        }
}

typedef struct layout {
    int64_t n, size, stride, dilation;
} layout;
static const layout layouts[] = {{7, 3, 1, 1}, {7, 3, 2, 1}, {7, 2, 1, 3}, {7, 2, 2, 2}, {7, 1, 3, 1},
                                 {7, 7, 1, 1}, {6, 2, 2, 1}, {7, 2, 3, 1}, {5, 3, 1, 2}, {1, 1, 1, 1}};
#define LAYOUTS (sizeof layouts / sizeof *layouts)

/* Both the view itself and what an op reads of it. */
static void check_unfold(mb_context *ctx, mb_dtype dtype, layout l)
{
    mb_tensor x = counted(ctx, dtype, l.n);
    mb_window w = {l.size, l.stride, l.dilation};
    int64_t count = (l.n - (l.size - 1) * l.dilation - 1) / l.stride + 1;
    mb_tensor y = mb_unfold(x, -2, w);
    if (!expect(same_shape(mb_shape_of(y), MB_SHAPE(ROWS, count, l.size, WIDE)), "unfold: %s %s",
                shape_text(mb_shape_of(y)), mb_message(ctx)))
        return;
    mb_tensor through = dtype == MB_BOOL ? mb_not(mb_not(y)) : mb_neg(mb_neg(y));
    mb_tensor sums = mb_sum(y, MB_AXES(2));
    double *from = values(x), *got = values(y), *again = values(through), *sum = values(sums);
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t i = 0; i < count; i++)
            for (int64_t e = 0; e < WIDE; e++) {
                double total = 0;
                for (int64_t j = 0; j < l.size; j++) {
                    double want = from[(r * l.n + i * l.stride + j * l.dilation) * WIDE + e];
                    int64_t at = ((r * count + i) * l.size + j) * WIDE + e;
                    total += want;
                    expect(got[at] == want && again[at] == want, "unfold: %g and %g, not %g", got[at],
                           again[at], want);
                }
                expect(sum[(r * count + i) * WIDE + e] == total, "sum of a window");
            }
}

static void check_fold(mb_context *ctx, mb_dtype dtype, layout l, int64_t more)
{
    rng r = {3};
    int64_t count = (l.n - (l.size - 1) * l.dilation - 1) / l.stride + 1, n = l.n + more;
    mb_tensor y = mb_cast(draw(ctx, &r, MB_INT32, MB_SHAPE(ROWS, count, l.size, WIDE), -9, 9), dtype);
    mb_tensor x = mb_fold(y, 1, (mb_window){0, l.stride, l.dilation}, n);
    if (!expect(same_shape(mb_shape_of(x), MB_SHAPE(ROWS, n, WIDE)), "fold: %s %s",
                shape_text(mb_shape_of(x)), mb_message(ctx)))
        return;
    double *from = values(y), *got = values(x), want[ROWS * (LONG + 2) * WIDE] = {0};
    for (int64_t i = 0; i < ROWS * count * l.size * WIDE; i++) {
        int64_t e = i % WIDE, j = i / WIDE % l.size, o = i / WIDE / l.size % count,
                row = i / WIDE / l.size / count;
        want[(row * n + o * l.stride + j * l.dilation) * WIDE + e] += from[i];
    }
    for (int64_t i = 0; i < ROWS * n * WIDE; i++)
        expect(got[i] == want[i], "fold of %lld by %lld: [%lld] is %g, not %g", (long long)l.size,
               (long long)l.stride, (long long)i, got[i], want[i]);
}

Test(windows, unfold_and_fold)
{
    ON_BOTH
    for (mb_dtype dtype = MB_FLOAT32; dtype <= MB_BOOL; dtype++)
        for (size_t i = 0; i < (dtype == MB_FLOAT64 ? LAYOUTS : 4); i++) {
            check_unfold(ctx, dtype, layouts[i]);
            for (int64_t more = 0; more < 3 && dtype != MB_BOOL; more += 2)
                check_fold(ctx, dtype, layouts[i], more);
        }
}

/* What is folded comes from a contraction, in which the windows are of one operand and the places in them of
 * the other, of either, or of both; the planner then makes no windows. Against a fold of the stored values.
 */
Test(windows, fold_of_a_contraction)
{
    static const char *const equations[] = {"noc,kcd->nokd", "kcd,noc->nokd", "noc,nkc->nokc",
                                            "nokc,kcd->nokd"};
    ON_BOTH
    for (int e = 0; e < 4; e++)
        for (int64_t stride = 1; stride < 3; stride++) {
            rng r = {5};
            mb_shape shapes[4][2] = {{MB_SHAPE(2, 5, 4), MB_SHAPE(3, 4, 2)},
                                     {MB_SHAPE(3, 4, 2), MB_SHAPE(2, 5, 4)},
                                     {MB_SHAPE(2, 5, 4), MB_SHAPE(2, 3, 4)},
                                     {MB_SHAPE(2, 5, 3, 4), MB_SHAPE(3, 4, 2)}};
            mb_tensor a = draw(ctx, &r, MB_FLOAT64, shapes[e][0], -1, 1),
                      b = draw(ctx, &r, MB_FLOAT64, shapes[e][1], -1, 1);
            mb_window w = {3, stride, 2};
            int64_t n = 4 * stride + 2 * 2 + 2;
            mb_tensor c = mb_einsum(equations[e], a, b);
            mb_tensor fused = mb_slice(mb_fold(c, 1, w, n), 1, 2, 4, 1);
            double *got = values(fused);
            mb_eval(&c, 1);
            mb_tensor apart = mb_slice(mb_fold(c, 1, w, n), 1, 2, 4, 1);
            double error = nmse(got, values(apart), mb_count(apart));
            expect(error < 1e-28, "%s, stride %lld: off by %g", equations[e], (long long)stride, error);
        }
}

#define REFUSED(text, ...)                                                                                   \
    do {                                                                                                     \
        mb_context *mb = open_on("reference");                                                               \
        mb_tensor x = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 3));                                              \
        mb_tensor y = __VA_ARGS__;                                                                           \
        expect(!mb_valid(y) && strstr(mb_message(mb), text), "got: %s", mb_message(mb));                     \
        expect(strstr(mb_message(mb), "windows_test.c:") != NULL, "no line: %s", mb_message(mb));            \
        close_failed(mb);                                                                                    \
        close_all();                                                                                         \
    } while (0)

Test(windows, messages)
{
    REFUSED("pad_with: got 3 before and 0 after axis 1 of [2,3]",
            mb_pad_with(x, 1, 3, 0, (mb_pad_options){MB_PAD_REFLECT, 0}));
    REFUSED("wanted 0 to 3 for mode wrap", mb_pad_with(x, 1, 0, 4, (mb_pad_options){MB_PAD_WRAP, 0}));
    REFUSED("pad_with: got -1 before", mb_pad_with(x, 1, -1, 0, (mb_pad_options){MB_PAD_EDGE, 0}));
    REFUSED("pad_with: 9 is not a mode", mb_pad_with(x, 1, 0, 1, (mb_pad_options){(mb_pad_mode)9, 0}));
    REFUSED("axis", mb_pad_with(x, 2, 0, 1, (mb_pad_options){MB_PAD_EDGE, 0}));
    REFUSED("unfold: a window of 2 with dilation 3 does not fit axis 1 of [2,3]",
            mb_unfold(x, 1, (mb_window){2, 1, 3}));
    REFUSED("unfold: got size 0, stride 1, dilation 1", mb_unfold(x, 1, (mb_window){0, 1, 1}));
    REFUSED("unfold: got size 1, stride -1", mb_unfold(x, 1, (mb_window){1, -1, 1}));
    REFUSED("wanted at most 7 axes",
            mb_unfold(mb_reshape(x, MB_SHAPE(1, 1, 1, 1, 1, 1, 2, 3)), 1, (mb_window){1, 1, 1}));
    REFUSED("fold: got [2,3]", mb_fold(x, 1, (mb_window){0, 1, 1}, 5));
    REFUSED("windows of 2", mb_fold(x, 0, (mb_window){2, 1, 1}, 5));
    REFUSED("reach beyond 3 elements", mb_fold(x, 0, (mb_window){3, 1, 1}, 3));
    REFUSED("reach beyond", mb_fold(x, 0, (mb_window){3, 1, INT64_MAX / 2}, 3));
    REFUSED("fold: got", mb_fold(mb_cast(x, MB_BOOL), 0, (mb_window){3, 1, 1}, 4));
}
