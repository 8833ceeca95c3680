/* SPDX-License-Identifier: MIT
 * custom.c - ops of the caller's own (tensor/custom_op.h), in C and GLSL, with a rule for their derivatives.
 */
#include "support.h"

MB_ELEMENTWISE_1(half_square, x *x / 2)

static mb_status half_square_pull(const void *user, mb_context *ctx, const mb_custom_at *at,
                                  const mb_tensor *vs, mb_tensor *gs)
{
    (void)user;
    gs[0] = mb_mul(vs[0], at->xs[0]);
    return mb_error(ctx);
}

/* x [n] -> []: the sum of the squares. */
static bool squares_shape(const void *user, const mb_core *in, const int64_t *attrs, int nattr, mb_core *out,
                          char *why, size_t room)
{
    (void)user, (void)attrs, (void)nattr, (void)why, (void)room;
    out[0].dtype = in[0].dtype;
    return true;
}

static mb_status squares_compute(const void *user, const mb_core_data *in, const mb_core_data *out,
                                 const int64_t *attrs, int nattr)
{
    (void)user, (void)attrs, (void)nattr;
    double sum = 0;
    for (int64_t i = 0; i < in->dim[0]; i++) {
        double x = in->dtype == MB_FLOAT64 ? ((const double *)in->at)[i * in->stride[0]]
                                           : (double)((const float *)in->at)[i * in->stride[0]];
        sum += x * x;
    }
    if (out->dtype == MB_FLOAT64)
        *(double *)out->at = sum;
    else
        *(float *)out->at = (float)sum;
    return MB_OK;
}

static mb_status squares_pull(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                              mb_tensor *gs)
{
    (void)user;
    gs[0] = mb_mul(mb_mul(mb_unsqueeze(vs[0], -1), at->xs[0]), 2.0);
    return mb_error(ctx);
}

typedef mb_status pull(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                       mb_tensor *gs);

static mb_tensor apply_with(mb_context *ctx, const mb_custom_op_spec *spec, pull *rule, mb_tensor x)
{
    mb_tensor y = {.ctx = ctx};
    mb_custom_op_apply(mb_custom_op_new(ctx, spec), &x, NULL, 0, &y);
    mb_custom_gradient(&y, 1, &x, 1, (mb_custom_rule){.reverse = rule}, &y);
    return y;
}

static mb_tensor apply_half_square(mb_context *ctx, const void *layer, const mb_tensor *xs, const void *user)
{
    static const mb_custom_op_spec spec = {.name = "half_square", .elementwise = &half_square};
    (void)layer, (void)user;
    return mb_sin(apply_with(ctx, &spec, half_square_pull, mb_transpose(xs[0])));
}

static mb_tensor apply_squares(mb_context *ctx, const void *layer, const mb_tensor *xs, const void *user)
{
    static const mb_custom_op_spec spec = {.name = "squares",
                                           .operands = 1,
                                           .results = 1,
                                           .core_in = {1},
                                           .shape = squares_shape,
                                           .compute = squares_compute,
                                           .glsl = "void op() { T sum = T(0); for (int i = 0; i < "
                                                   "in0_size(0); i++) sum += in0(i) * in0(i); set0(sum); }"};
    (void)layer, (void)user;
    return mb_sin(apply_with(ctx, &spec, squares_pull, mb_transpose(xs[0])));
}

void custom_cases(void)
{
    const mb_layer_case cases[] = {
        {.name = "custom/elementwise",
         .apply = apply_half_square,
         .n = 1,
         .shape = {MB_SHAPE(MB_FREE(1), MB_FREE(2))}},
        {.name = "custom/core", .apply = apply_squares, .n = 1, .shape = {MB_SHAPE(MB_FREE(1), MB_FREE(2))}},
    };
    for (int i = 0; i < 2; i++) {
        mb_layer_case c = cases[i];
        mb_check_result r;
        c.backends = run.backend;
        if (wanted(c.name))
            told(c.name, mb_check_layer(&c, &r) == MB_OK, "%s", r.text);
    }
}
