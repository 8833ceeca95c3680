/* SPDX-License-Identifier: MIT
 *
 * residual_test.c - MB_DEBUG on matrices: right results pass, however ill-conditioned, each wrong element is
 * seen, and what is not positive definite is told by its line. */
#include "backends/engine/state.h"
#include "support.h"

/* 1 / (i + j + 1): of size 8 its condition is 1.5e10. */
static mb_tensor hilbert(mb_context *ctx, mb_dtype dtype, int64_t n)
{
    mb_tensor i = mb_cast(mb_iota(ctx, MB_INT32, n), dtype);
    return mb_recip(mb_add(mb_add(mb_unsqueeze(i, 1), i), 1.0));
}

static mb_context *debug_on(const char *backend)
{
    setenv("MB_DEBUG", "1", 1);
    mb_context *ctx = open_on(backend);
    unsetenv("MB_DEBUG");
    return ctx;
}

Test(residual, of_ill_conditioned_systems)
{
    for (int k = 0; k < 2; k++)
        for (int d = 0; d < 2; d++) {
            mb_context *ctx = debug_on(backend_names[k]);
            rng r = {2};
            int64_t n = d ? 10 : 4;
            mb_tensor a = hilbert(ctx, (mb_dtype)d, n), b = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(n, 3), -1, 1);
            for (unsigned form = 0; form < 9; form++) {
                mb_tensor x = form < 8 ? mb_triangular_solve(a, b, form) : mb_solve_spd(a, b);
                expect(mb_eval(&x, 1) == MB_OK, "%s: form %u: %s", backend_names[k], form, mb_message(ctx));
            }
            close_all();
        }
}

Test(residual, line_of_what_is_not_positive_definite)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = debug_on(backend_names[k]);
        int line = __LINE__ + 1;
        mb_tensor l = mb_cholesky(mb_neg(hilbert(ctx, MB_FLOAT64, 3)));
        char at[80];
        snprintf(at, sizeof at, "residual_test.c:%d: cholesky: the first NaN", line);
        expect(mb_eval(&l, 1) == MB_INVALID && strstr(mb_message(ctx), at), "%s", mb_message(ctx));
        close_failed(ctx);
        close_all();
    }
}

/* Every element of a result, moved by a hundred times what rounding may do. */
static void each_element(mb_context *ctx, mb_tensor t, double *const *operands)
{
    mb__node n = *mb__at(ctx, t.id);
    double *v = values(t), size = 0;
    for (int64_t i = 0; i < mb_count(t); i++)
        size = fmax(size, fabs(v[i]));
    expect(mb__residual_off(ctx, &n, operands, v) == -1, "the right result");
    for (int64_t i = 0; i < mb_count(t); i++) {
        double right = v[i];
        v[i] += size * (n.dtype == MB_FLOAT32 ? 1e-3 : 1e-12);
        expect(mb__residual_off(ctx, &n, operands, v) >= 0, "%s: element %d is wrong, and not seen",
               mb__ops[n.op].name, (int)i);
        v[i] = right;
    }
}

Test(residual, sees_each_element)
{
    mb_context *ctx = open_on("cpu");
    for (int d = 0; d < 2; d++) {
        rng r = {3};
        mb_tensor x = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(2, 5, 5), -1, 1),
                  b = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(2, 5, 3), -1, 1);
        mb_tensor a = mb_detach(mb_add(mb_matmul(x, mb_transpose(x)), mb_eye(ctx, (mb_dtype)d, 5)));
        double *operands[2] = {values(a), values(b)};
        each_element(ctx, mb_cholesky(a), operands);
        each_element(ctx, mb_triangular_solve(a, b, MB_LOWER), operands);
        each_element(ctx, mb_triangular_solve(a, b, MB_UPPER | MB_UNIT_DIAGONAL), operands);
    }
    close_all();
}
