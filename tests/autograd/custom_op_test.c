/* SPDX-License-Identifier: MIT
 *
 * custom_op_test.c - ops of the user's: an elementwise one beside the same of the library's ops, fused and
 * not; ops on cores beside loops in C, with loop axes, views, several results and other dtypes; their
 * derivatives, in vmaps, scans and checkpoints; and what is wrong.
 */
#include <stdio.h>
#include <string.h>
#include <tgmath.h>

#include "gradcheck.h"
#include "support.h"
#include "vmapped.h"

#define S(...) MB_SHAPE(__VA_ARGS__)
#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++, close_all())                                                                 \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL)

/* ---- elementwise: x / (1 + |x|), and x y + sin(z) ---- */

MB_ELEMENTWISE_1(softsign_loops, x / (1 + fabs(x)))
MB_ELEMENTWISE_3(three_loops, x *y + sin(z))

static mb_tensor apply(mb_context *ctx, const mb_custom_op_spec *spec, const mb_tensor *xs)
{
    mb_tensor y = {0};
    mb_custom_op_apply(mb_custom_op_new(ctx, spec), xs, NULL, 0, &y);
    return y;
}

static const mb_custom_op_spec softsign_spec = {.name = "softsign", .elementwise = &softsign_loops},
                               three_spec = {.name = "three", .elementwise = &three_loops};

/* dy/dx = 1 / (1 + |x|)^2 = (1 - |y|)^2 */
static mb_status softsign_reverse(const void *user, mb_context *ctx, const mb_custom_at *at,
                                  const mb_tensor *vs, mb_tensor *gs)
{
    (void)user;
    gs[0] = mb_mul(vs[0], mb_square(mb_sub(1.0, mb_abs(at->ys[0]))));
    return mb_error(ctx);
}

static mb_tensor softsign(mb_context *ctx, mb_tensor x)
{
    mb_tensor y = apply(ctx, &softsign_spec, &x), out;
    mb_custom_gradient(&y, 1, &x, 1, MB_LIT(mb_custom_rule){.reverse = softsign_reverse}, &out);
    return out;
}

static mb_status three_forward(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *ts,
                               mb_tensor *us)
{
    const mb_tensor by[3] = {at->xs[1], at->xs[0], mb_cos(at->xs[2])};
    (void)user;
    for (int i = 0; i < 3; i++)
        if (ts[i].ctx) {
            mb_tensor t = mb_broadcast(mb_mul(ts[i], by[i]), mb_shape_of(at->ys[0]));
            us[0] = us[0].ctx ? mb_add(us[0], t) : t;
        }
    return mb_error(ctx);
}

static mb_tensor three(mb_context *ctx, const mb_tensor *xs)
{
    mb_tensor y = apply(ctx, &three_spec, xs), out;
    mb_custom_gradient(&y, 1, xs, 3, MB_LIT(mb_custom_rule){.forward = three_forward}, &out);
    return out;
}

Test(custom_op, elementwise_values)
{
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            rng r = {5};
            mb_dtype dtype = d ? MB_FLOAT64 : MB_FLOAT32;
            double tolerance = d ? 1e-14 : 1e-5;
            mb_tensor a = draw(ctx, &r, dtype, MB_SHAPE(7, 300), -2, 2),
                      b = draw(ctx, &r, dtype, MB_SHAPE(300), -2, 2),
                      c = draw(ctx, &r, dtype, MB_SHAPE(7, 1), -2, 2);
            mb_tensor got[6], want[6];
            const mb_tensor abc[3] = {a, b, c},
                            views[3] = {mb_transpose(a), mb_flip(c, 0), mb_slice(a, 1, 3, 7, 2)};
            got[0] = softsign(ctx, mb_mul(a, 2.0)); /* in the middle of a kernel */
            got[0] = mb_sub(got[0], b);
            want[0] = mb_sub(mb_div(mb_mul(a, 2.0), mb_add(1.0, mb_abs(mb_mul(a, 2.0)))), b);
            got[1] = three(ctx, abc); /* an element, a row and a column each */
            want[1] = mb_add(mb_mul(a, b), mb_sin(c));
            got[2] = three(ctx, (const mb_tensor[3]){c, c, c}); /* once a row, then spread over it */
            got[2] = mb_mul(got[2], a);
            want[2] = mb_mul(mb_add(mb_mul(c, c), mb_sin(c)), a);
            mb_tensor mean = mb_mean(a, MB_KEEP(1)), one = mb_scalar(ctx, dtype, 0.5);
            got[3] =
                three(ctx, (const mb_tensor[3]){mean, one, a}); /* of a sum of the row, and of a number */
            want[3] = mb_add(mb_mul(mean, one), mb_sin(a));
            got[4] = three(
                ctx, (const mb_tensor[3]){views[0], mb_slice(b, 0, 0, 7, 1), mb_reshape(c, MB_SHAPE(7))});
            want[4] = mb_add(mb_mul(views[0], mb_slice(b, 0, 0, 7, 1)), mb_sin(mb_reshape(c, MB_SHAPE(7))));
            got[5] = three(ctx, (const mb_tensor[3]){views[2], views[1], one});
            want[5] = mb_add(mb_mul(views[2], views[1]), mb_sin(one));
            for (int i = 0; i < 6; i++) {
                double *x = values(got[i]), *y = values(want[i]);
                for (int64_t j = 0; j < mb_count(want[i]); j++)
                    if (!near(x[j], y[j], tolerance, tolerance)) {
                        expect(false, "%s: case %d, element %d: %g, not %g", backend_names[k], i, (int)j,
                               x[j], y[j]);
                        break;
                    }
            }
            expect(mb_count(softsign(ctx, mb_zeros(ctx, dtype, MB_SHAPE(3, 0)))) == 0, "of nothing");
            values(softsign(ctx, mb_zeros(ctx, dtype, MB_SHAPE(3, 0))));
            expect_ok(ctx);
        }
}

/* All functions that an expression may call. */
MB_ELEMENTWISE_2(functions_loops, sqrt(x) + fabs(x) + floor(9 * x) + exp(x) + expm1(x) + log(x) + log1p(x) +
                                      sin(x) + cos(x) + tanh(x) + erf(x) + pow(x, y) + ceil(9 * x) +
                                      rint(9 * x) + trunc(9 * x) + tan(x) + asin(x) + acos(x) + atan(x) +
                                      atan2(x, y) + sinh(x) + cosh(x) + asinh(x) + acosh(1 + x) + atanh(x) +
                                      hypot(x, y))

Test(custom_op, functions_of_c)
{
    static const mb_custom_op_spec spec = {.name = "functions", .elementwise = &functions_loops};
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            rng r = {3};
            mb_tensor xy[2] = {draw(ctx, &r, (mb_dtype)d, MB_SHAPE(50), 0.1, 0.9),
                               draw(ctx, &r, (mb_dtype)d, MB_SHAPE(50), 0.1, 0.9)};
            const double *vx = values(xy[0]), *vy = values(xy[1]), *got = values(apply(ctx, &spec, xy));
            for (int i = 0; i < 50; i++) {
                const double x = vx[i], y = vy[i];
                double want = sqrt(x) + fabs(x) + floor(9 * x) + exp(x) + expm1(x) + log(x) + log1p(x) +
                              sin(x) + cos(x) + tanh(x) + erf(x) + pow(x, y) + ceil(9 * x) + rint(9 * x) +
                              trunc(9 * x) + tan(x) + asin(x) + acos(x) + atan(x) + atan2(x, y) + sinh(x) +
                              cosh(x) + asinh(x) + acosh(1 + x) + atanh(x) + hypot(x, y);
                expect(near(got[i], want, d ? 1e-14 : 2e-6, 0), "%s: %g, not %g", backend_names[k], got[i],
                       want);
            }
        }
}

static mb_tensor f_softsign(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)user;
    return mb_mul(softsign(ctx, xs[0]), mb_exp(xs[0]));
}
static mb_tensor f_three(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)user;
    return mb_tanh(three(ctx, xs));
}

/* ---- on cores: along an axis, the running maximum with where it was; of matrices, A x ---- */

static double at(const mb_core_data *a, int64_t i)
{
    int64_t k = i * a->stride[0];
    return a->dtype == MB_FLOAT32 ? ((const float *)a->at)[k]
           : a->dtype == MB_INT32 ? ((const int32_t *)a->at)[k]
           : a->dtype == MB_BOOL  ? ((const uint8_t *)a->at)[k]
                                  : ((const double *)a->at)[k];
}
static void put(const mb_core_data *a, int64_t i, double x)
{
    int64_t k = i * a->stride[0];
    if (a->dtype == MB_FLOAT32)
        ((float *)a->at)[k] = (float)x;
    else if (a->dtype == MB_INT32)
        ((int32_t *)a->at)[k] = (int32_t)x;
    else if (a->dtype == MB_BOOL)
        ((uint8_t *)a->at)[k] = x != 0;
    else
        ((double *)a->at)[k] = x;
}

/* attrs[0]: from the end. Results: the running maximum, and the last one, a core of no axes. */
static mb_status running(const void *user, const mb_core_data *in, const mb_core_data *out,
                         const int64_t *attrs, int nattr)
{
    (void)user;
    bool back = nattr && attrs[0];
    int64_t n = in->dim[0];
    double top = -1.0 / 0.0;
    for (int64_t i = 0; i < n; i++) {
        int64_t k = back ? n - 1 - i : i;
        top = fmax(top, at(in, k));
        put(&out[0], k, top);
    }
    mb_core_data last = out[1];
    last.stride = (const int64_t[]){1};
    put(&last, 0, top);
    return MB_OK;
}
static bool running_shape(const void *user, const mb_core *in, const int64_t *attrs, int nattr, mb_core *out,
                          char *why, size_t capacity)
{
    (void)user, (void)attrs, (void)nattr;
    out[0] = in[0];
    out[1].dtype = in[0].dtype;
    if (in[0].dtype == MB_BOOL)
        snprintf(why, capacity, "got bool; wanted numbers");
    return in[0].dtype != MB_BOOL;
}
static const mb_custom_op_spec running_spec = {.name = "running",
                                               .operands = 1,
                                               .results = 2,
                                               .core_in = {1},
                                               .core_out = {1, 0},
                                               .shape = running_shape,
                                               .compute = running,
                                               .glsl = "void op() {\n"
                                                       "    int n = in0_size(0);\n"
                                                       "    T0 top = in0(attr(0) != 0 ? n - 1 : 0);\n"
                                                       "    for (int i = 0; i < n; i++) {\n"
                                                       "        int k = attr(0) != 0 ? n - 1 - i : i;\n"
                                                       "        T0 x = in0(k);\n"
                                                       "        top = x > top ? x : top;\n"
                                                       "        set0(k, top);\n"
                                                       "    }\n"
                                                       "    set1(top);\n"
                                                       "}\n"};

static void run(mb_context *ctx, mb_tensor x, bool back, mb_tensor out[2])
{
    int64_t attrs[1] = {back};
    mb_custom_op_apply(mb_custom_op_new(ctx, &running_spec), &x, attrs, 1, out);
}

Test(custom_op, along_an_axis)
{
    static const mb_dtype dtypes[] = {MB_FLOAT32, MB_FLOAT64, MB_INT32};
    for (int d = 0; d < 3; d++)
        ON_BOTH
        {
            rng r = {7};
            mb_tensor x = draw(ctx, &r, dtypes[d], MB_SHAPE(4, 50, 5), -30, 30);
            mb_tensor views[3] = {x, mb_transpose(x), mb_flip(mb_slice(x, 2, 1, 2, 2), 2)};
            for (int v = 0; v < 3; v++)
                for (int back = 0; back < 2; back++) {
                    mb_tensor out[2];
                    run(ctx, views[v], back, out);
                    int64_t n = mb_dim(views[v], 2), rows = mb_count(views[v]) / n;
                    double *in = values(views[v]), *y = values(out[0]), *last = values(out[1]);
                    for (int64_t row = 0; row < rows; row++) {
                        double top = -1e9;
                        for (int64_t i = 0; i < n; i++) {
                            int64_t q = row * n + (back ? n - 1 - i : i);
                            top = fmax(top, in[q]);
                            expect(y[q] == top, "%s: view %d, row %d, %d: %g, not %g", backend_names[k], v,
                                   (int)row, (int)i, y[q], top);
                        }
                        expect(last[row] == top, "%s: the last of row %d is %g", backend_names[k], (int)row,
                               last[row]);
                    }
                }
            expect_ok(ctx);
        }
}

/* A x, cores [m,n] and [n]; a batch of either broadcasts. */
static mb_status times(const void *user, const mb_core_data *in, const mb_core_data *out,
                       const int64_t *attrs, int nattr)
{
    (void)user, (void)attrs, (void)nattr;
    for (int64_t i = 0; i < in[0].dim[0]; i++) {
        mb_core_data row = in[0];
        row.stride = in[0].stride + 1;
        row.at = (char *)in[0].at + i * in[0].stride[0] * (int64_t)mb_dtype_size(in[0].dtype);
        double sum = 0;
        for (int64_t j = 0; j < in[1].dim[0]; j++)
            sum += at(&row, j) * at(&in[1], j);
        put(&out[0], i, sum);
    }
    return MB_OK;
}
static bool times_shape(const void *user, const mb_core *in, const int64_t *attrs, int nattr, mb_core *out,
                        char *why, size_t capacity)
{
    (void)user, (void)attrs, (void)nattr;
    out[0].dtype = in[0].dtype;
    out[0].dim[0] = in[0].dim[0];
    snprintf(why, capacity, "got rows of %d for a vector of %d", (int)in[0].dim[1], (int)in[1].dim[0]);
    return in[0].dim[1] == in[1].dim[0];
}
static const mb_custom_op_spec times_spec = {
    .name = "times",
    .operands = 2,
    .results = 1,
    .core_in = {2, 1},
    .core_out = {1},
    .shape = times_shape,
    .compute = times,
    .lanes = 4,
    .glsl = "void op() {\n"
            "    for (int i = int(lane); i < in0_size(0); i += int(lanes)) {\n"
            "        T sum = T(0);\n"
            "        for (int j = 0; j < in1_size(0); j++)\n"
            "            sum += in0(i, j) * in1(j);\n"
            "        set0(i, sum);\n"
            "    }\n"
            "}\n"};

/* By A: g x^T; by x: A^T g, by this op again. Of batches both are summed to the operands' shapes. */
static mb_tensor times_of(mb_context *ctx, mb_tensor a, mb_tensor x);
static mb_tensor sum_like(mb_tensor t, mb_tensor like)
{
    int extra = mb_shape_of(t).rank - mb_shape_of(like).rank;
    for (int i = 0; i < extra; i++)
        t = mb_sum(t, MB_AXES(0));
    return t;
}
static mb_status times_reverse(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                               mb_tensor *gs)
{
    (void)user;
    mb_tensor v = vs[0];
    gs[0] = sum_like(mb_mul(mb_unsqueeze(v, -1), mb_unsqueeze(at->xs[1], -2)), at->xs[0]);
    gs[1] = sum_like(times_of(ctx, mb_transpose(at->xs[0]), v), at->xs[1]);
    return mb_error(ctx);
}
static mb_tensor times_of(mb_context *ctx, mb_tensor a, mb_tensor x)
{
    const mb_tensor xs[2] = {a, x};
    mb_tensor y = apply(ctx, &times_spec, xs), out = {0};
    mb_custom_gradient(&y, 1, xs, 2, MB_LIT(mb_custom_rule){.reverse = times_reverse}, &out);
    return out;
}

Test(custom_op, matrices)
{
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            rng r = {9};
            mb_dtype dtype = d ? MB_FLOAT64 : MB_FLOAT32;
            double tolerance = d ? 1e-13 : 1e-5;
            mb_tensor a = draw(ctx, &r, dtype, MB_SHAPE(3, 1, 6, 70), -1, 1),
                      x = draw(ctx, &r, dtype, MB_SHAPE(2, 70), -1, 1), y = times_of(ctx, a, x),
                      want = mb_squeeze(mb_matmul(a, mb_unsqueeze(x, -1)), -1);
            double *got = values(y), *right = values(want);
            expect(mb_count(y) == 3 * 2 * 6, "%s: shape", backend_names[k]);
            for (int i = 0; i < 36; i++)
                expect(near(got[i], right[i], tolerance, tolerance), "%s: %g, not %g", backend_names[k],
                       got[i], right[i]);
            values(times_of(ctx, mb_zeros(ctx, dtype, MB_SHAPE(0, 6, 70)), mb_slice(x, 0, 0, 1, 1)));
            values(times_of(ctx, mb_zeros(ctx, dtype, MB_SHAPE(2, 0, 70)), x));
            double *none = values(
                times_of(ctx, mb_zeros(ctx, dtype, MB_SHAPE(2, 3, 0)), mb_zeros(ctx, dtype, MB_SHAPE(2, 0))));
            for (int i = 0; i < 6; i++)
                expect(none[i] == 0, "%s: a sum of nothing is %g", backend_names[k], none[i]);
            expect_ok(ctx);
        }
}

static mb_tensor f_times(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)user;
    return mb_sin(times_of(ctx, xs[0], mb_tanh(xs[1])));
}

Test(custom_op, derivatives)
{
    const gradcase cases[] = {
        {.name = "softsign", .f = f_softsign, .n = 1, .shape = {S(3, 4)}, .low = 0.1, .high = 2},
        {.name = "three", .f = f_three, .n = 3, .shape = {S(3, 4), S(3, 4), S(3, 4)}, .low = -1, .high = 1},
        {.name = "times", .f = f_times, .n = 2, .shape = {S(3, 4), S(4)}, .low = -1, .high = 1},
        {.name = "times, of a batch",
         .f = f_times,
         .n = 2,
         .shape = {S(3, 4), S(2, 4)},
         .low = -1,
         .high = 1},
    };
    gradcheck_both(cases, 4);
}

Test(custom_op, examples)
{
    const mapped cases[] = {
        {.name = "softsign", .f = f_softsign, .n = 1, .shape = {S(3)}, .low = 0.1, .high = 2},
        {.name = "three", .f = f_three, .n = 3, .shape = {S(3), S(3), S(3)}, .low = -1, .high = 1},
        {.name = "times", .f = f_times, .n = 2, .shape = {S(3, 4), S(4)}, .low = -1, .high = 1},
    };
    vmapped(cases, 3);
}

/* Within a scan and a checkpoint, forward and by its gradient, beside all steps written out. */
Test(custom_op, in_loops)
{
    ON_BOTH
    {
        rng r = {3};
        double sum[2], slope[2];
        mb_tensor a = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(4, 4), -1, 1),
                  x = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(4), -1, 1);
        for (int loop = 0; loop < 2; loop++) {
            mb_tensor y = x, g;
            mb_scan s = {0};
            if (loop) {
                s = mb_scan_begin(ctx, 6);
                mb_scan_carry(s, &y);
            }
            for (int t = 0; t < (loop ? 1 : 6); t++) {
                mb_checkpoint c = mb_checkpoint_begin(ctx);
                y = softsign(ctx, times_of(ctx, a, y));
                mb_checkpoint_end(c);
            }
            if (loop)
                mb_scan_end(s);
            mb_grad(mb_sum(mb_square(y), MB_ALL), &a, 1, &g);
            sum[loop] = mb_item(mb_sum(y, MB_ALL));
            slope[loop] = mb_item(mb_sum(g, MB_ALL));
        }
        expect(near(sum[1], sum[0], 1e-14, 0) && near(slope[1], slope[0], 1e-12, 0),
               "%s: %.17g %.17g, %.17g %.17g", backend_names[k], sum[1], sum[0], slope[1], slope[0]);
        expect_ok(ctx);
    }
}

/* ---- on the host, where there is no GLSL: between kernels, twice, with bools and integers, in replays ----
 */

static mb_status parity(const void *user, const mb_core_data *in, const mb_core_data *out,
                        const int64_t *attrs, int nattr)
{
    (void)user, (void)attrs, (void)nattr;
    for (int64_t i = 0; i < in->dim[0]; i++)
        put(out, i, fmod(at(in, i), 2) != 0);
    return MB_OK;
}
static bool parity_shape(const void *user, const mb_core *in, const int64_t *attrs, int nattr, mb_core *out,
                         char *why, size_t capacity)
{
    (void)user, (void)attrs, (void)nattr, (void)why, (void)capacity;
    out[0] = in[0];
    out[0].dtype = MB_BOOL;
    return true;
}
static const mb_custom_op_spec parity_spec = {.name = "parity",
                                              .operands = 1,
                                              .results = 1,
                                              .core_in = {1},
                                              .core_out = {1},
                                              .shape = parity_shape,
                                              .compute = parity,
                                              .on_host = true};

Test(custom_op, on_the_host)
{
    mb_custom_op_spec spec = running_spec;
    spec.name = "running_on_host", spec.glsl = NULL, spec.on_host = true;
    ON_BOTH
    {
        mb_tensor x = mb_variable(ctx, MB_FLOAT32, MB_SHAPE(3, 40)),
                  step = mb_full(ctx, MB_FLOAT32, MB_SHAPE0, 1);
        for (int turn = 0; turn < 3; turn++) { /* planned once, then replayed */
            mb_scope scope = mb_scope_begin(ctx);
            mb_tensor wave = mb_sin(
                mb_add(mb_reshape(mb_cast(mb_iota(ctx, MB_INT32, 120), MB_FLOAT32), MB_SHAPE(3, 40)), x));
            mb_tensor out[2], whole = mb_cast(mb_mul(wave, 10), MB_INT32), odd = {0};
            int64_t attrs[1] = {0};
            mb_custom_op_apply(mb_custom_op_new(ctx, &spec), &wave, attrs, 1, out);
            mb_custom_op_apply(mb_custom_op_new(ctx, &spec), (mb_tensor[]){mb_neg(out[0])}, attrs, 1, out);
            mb_custom_op_apply(mb_custom_op_new(ctx, &parity_spec), &whole, NULL, 0, &odd);
            mb_tensor y = mb_add(mb_mul(out[0], 2), mb_unsqueeze(out[1], -1)),
                      z = mb_where(odd, y, mb_neg(y));
            double *got = values(z), *in = values(wave), *n = values(whole);
            for (int r = 0; r < 3; r++) { /* of minus a rising maximum the maximum is minus its first */
                double first = -in[r * 40];
                for (int i = 0; i < 40; i++) {
                    double want = 3 * first * (fmod(n[r * 40 + i], 2) != 0 ? 1 : -1);
                    expect(near(got[r * 40 + i], want, 1e-5, 1e-6), "%s: turn %d, row %d, %d: %g, not %g",
                           backend_names[k], turn, r, i, got[r * 40 + i], want);
                }
            }
            mb_assign(x, mb_add(x, step));
            mb_scope_end(scope);
        }
        expect_ok(ctx);
    }
    mb_context *ctx = open_on("cpu"); /* a device does not wait within its loops */
    mb_tensor x = mb_ones(ctx, MB_INT32, MB_SHAPE(3)), odd;
    mb_scan s = mb_scan_begin(ctx, 3);
    mb_scan_carry(s, &x);
    mb_custom_op_apply(mb_custom_op_new(ctx, &parity_spec), &x, NULL, 0, &odd);
    x = mb_add(x, mb_cast(odd, MB_INT32));
    mb_scan_end(s);
    mb_eval(&x, 1);
    if (testing("vulkan"))
        expect(mb_error(ctx) == MB_BACKEND && strstr(mb_message(ctx), "MB_DISABLE=loops"), "%s",
               mb_message(ctx));
    else
        expect(values(x)[0] == 2, "%g", values(x)[0]);
    close_failed(ctx);
    close_all();
}

/* ---- what is wrong ---- */

static void expect_sentence(mb_context *ctx, const char *what, const char *part)
{
    expect(mb_error(ctx) != MB_OK && strstr(mb_message(ctx), part), "%s: \"%s\" does not say \"%s\"", what,
           mb_message(ctx), part);
}

static mb_status refuses(const void *user, const mb_core_data *in, const mb_core_data *out,
                         const int64_t *attrs, int nattr)
{
    (void)user, (void)in, (void)out, (void)attrs, (void)nattr;
    return MB_INVALID;
}

static const char *says(const void *user, const int64_t *attrs, int nattr)
{
    (void)user;
    return nattr && attrs[0] ? "it was told so" : NULL;
}

/* ---- serial and early ---- */

static int order[64], orders;

/* x + 1; notes which call it was. */
static mb_status notes(const void *user, const mb_core_data *in, const mb_core_data *out,
                       const int64_t *attrs, int nattr)
{
    (void)user, (void)nattr;
    if (orders < 64)
        order[orders++] = (int)attrs[0];
    for (int64_t i = 0; i < in->dim[0]; i++)
        ((float *)out->at)[i * out->stride[0]] = ((const float *)in->at)[i * in->stride[0]] + 1;
    return MB_OK;
}

/* Equal ones are done each, in the order of recording, and in that of examples; an early one before what was
 * recorded before it and does not concern it, but not before another serial one. */
Test(custom_op, serial)
{
    if (!testing("cpu"))
        return;
    mb_context *ctx = open_on("cpu");
    mb_custom_op_spec spec = {.name = "noted",
                              .operands = 1,
                              .results = 1,
                              .core_in = {1},
                              .core_out = {1},
                              .compute = notes,
                              .serial = true,
                              .on_host = true},
                      soon = spec;
    soon.name = "noted_early";
    soon.early = true;
    mb_tensor x = from_doubles(ctx, MB_FLOAT32, MB_SHAPE(3), (double[]){1, 2, 3}), y[6];
    for (int64_t i = 0; i < 6; i++) {
        mb_tensor of = i == 3 ? mb_mul(y[0], 9.0) : x;
        mb_custom_op_apply(mb_custom_op_new(ctx, i == 2 || i == 4 ? &soon : &spec), &of,
                           (int64_t[]){i < 2 ? 7 : i}, 1, &y[i]);
    }
    mb_eval((mb_tensor[]){y[5], y[4], y[3], y[2], y[1], y[0]}, 6);
    const int wanted[6] = {7, 7, 2, 3, 4, 5};
    expect(orders == 6 && !memcmp(order, wanted, sizeof wanted), "%d calls: %d %d %d %d %d %d", orders,
           order[0], order[1], order[2], order[3], order[4], order[5]);
    expect(values(y[3])[1] == 28 && values(y[4])[2] == 4, "values");
    orders = 0;
    mb_tensor many = mb_full(ctx, MB_FLOAT32, MB_SHAPE(9, 4000), 1), ys;
    mb_custom_op_apply(mb_custom_op_new(ctx, &spec), &many, (int64_t[]){1}, 1, &ys);
    expect(values(ys)[9 * 4000 - 1] == 2 && orders == 9, "%d calls of 9 positions", orders);
    spec.name = "both", spec.glsl = "void op() {}";
    expect(!mb_custom_op_new(ctx, &spec).number && strstr(mb_message(ctx), "has no GLSL"), "%s",
           mb_message(ctx));
    mb_clear_error(ctx);
    close_all();
}

#define WRONG(call, ...)                                                                                     \
    do {                                                                                                     \
        (void)(call);                                                                                        \
        const char *parts[] = {__VA_ARGS__};                                                                 \
        for (size_t i_ = 0; i_ < sizeof parts / sizeof *parts; i_++)                                         \
            expect_sentence(ctx, #call, parts[i_]);                                                          \
        mb_clear_error(ctx);                                                                                 \
    } while (0)

Test(custom_op, mistakes)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(2, 3)), y[4], g,
              scalar = mb_ones(ctx, MB_FLOAT64, MB_SHAPE0);
    mb_custom_op soft = mb_custom_op_new(ctx, &softsign_spec), op = mb_custom_op_new(ctx, &running_spec);
    mb_custom_op_spec other = softsign_spec, bad = running_spec;
    other.elementwise = &three_loops;
    expect(mb_custom_op_new(ctx, &softsign_spec).number == soft.number, "the same spec is the same op");
    WRONG(mb_custom_op_new(ctx, &other), "softsign is the name of another op", "custom_op_test.c:");
    WRONG(mb_custom_op_new(ctx, NULL), "no spec");
    WRONG(mb_custom_op_new(ctx, &(mb_custom_op_spec){.name = "a b"}), "identifier");
    WRONG(mb_custom_op_new(ctx, &(mb_custom_op_spec){.name = "nothing"}), "neither elementwise nor compute");
    bad.name = "lanes", bad.lanes = 3;
    WRONG(mb_custom_op_new(ctx, &bad), "power of 2");
    WRONG(mb_custom_op_apply(op, &scalar, NULL, 0, y), "running", "core has 1 axes", "[]");
    WRONG(mb_custom_op_apply(op, (mb_tensor[]){mb_ones(ctx, MB_BOOL, MB_SHAPE(3))}, NULL, 0, y), "running",
          "got bool; wanted numbers");
    WRONG(mb_custom_op_apply(op, &x, NULL, 3, y), "3 attributes");
    WRONG(mb_custom_op_apply(op, &x, NULL, 0, NULL), "no room for results");
    WRONG(mb_custom_op_apply((mb_custom_op){ctx, 99}, &x, NULL, 0, y), "not made with mb_custom_op_new");
    WRONG(mb_custom_op_apply(soft, (mb_tensor[]){mb_ones(ctx, MB_INT32, MB_SHAPE(3))}, NULL, 0, y),
          "softsign", "int32", "wanted floats");
    WRONG(mb_custom_op_apply(mb_custom_op_new(ctx, &times_spec),
                             (mb_tensor[]){x, mb_ones(ctx, MB_FLOAT64, MB_SHAPE(5, 2))}, NULL, 0, y),
          "times: got rows of 3 for a vector of 2");
    expect(y[0].id == 0, "the result of a refused call is poison");
    close_failed(ctx);

    ctx = open_on("cpu"); /* without a rule there is no derivative, and the sentence has the op's line */
    x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(2, 3));
    mb_custom_op_apply(mb_custom_op_new(ctx, &softsign_spec), &x, NULL, 0, y);
    expect(mb_grad(y[0], &x, 1, &g) == MB_NO_RULE, "%s", mb_message(ctx));
    expect_sentence(ctx, "no rule", "softsign: no reverse rule for operand 1");
    close_failed(ctx);

    ctx = open_on("cpu"); /* a function that fails, in a loop's body */
    x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(2, 3));
    mb_custom_op_spec failing = {.name = "failing", .operands = 1, .results = 1, .compute = refuses};
    mb_scan s = mb_scan_begin(ctx, 3);
    mb_scan_carry(s, &x);
    mb_custom_op_apply(mb_custom_op_new(ctx, &failing), &x, NULL, 0, &x);
    mb_scan_end(s);
    mb_eval(&x, 1);
    if (testing("cpu"))
        expect_sentence(ctx, "a failure", "failing: its compute function failed");
    else
        expect(mb_error(ctx) != MB_OK, "there is no GLSL");
    close_failed(ctx);

    for (int64_t told = 0; told < 2; told++) { /* a function that says why */
        ctx = open_on("cpu");
        x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(2, 3));
        failing.why = says;
        failing.on_host = true;
        mb_custom_op_apply(mb_custom_op_new(ctx, &failing), &x, &told, 1, &x);
        mb_eval(&x, 1);
        expect_sentence(ctx, "a reason",
                        told ? "failing: it was told so" : "failing: its compute function failed");
        close_failed(ctx);
    }
    close_all();
}
