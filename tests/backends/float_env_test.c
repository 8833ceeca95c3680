/* SPDX-License-Identifier: MIT
 *
 * float_env_test.c - a program that sets its floating-point environment gets it on every thread of the cpu
 * backend: equal steps give equal bits, and those of a single thread. */
#include <fenv.h>
#if defined(__SSE__)
#include <pmmintrin.h>
#include <xmmintrin.h>
#endif

#include "support.h"

enum { N = 1 << 20, RUNS = 12 };

/* Products and sums of numbers near the least normal one, many times, into out[N] each. */
static void compute(mb_context *ctx, const float *x, float *out)
{
    mb_scope s = mb_scope_begin(ctx);
    mb_tensor t = mb_mul(mb_from(ctx, MB_FLOAT32, MB_SHAPE(N), x), 0.01);
    mb_read(mb_add(mb_mul(t, 1.5), mb_mul(t, 0.1)), out, N * sizeof *out);
    mb_scope_end(s);
}

/* All runs on several threads, which began under another environment, equal one on a single thread. Returns
 * how many results are 0. */
static int64_t runs_agree(mb_context *many, mb_context *one, const char *what)
{
    float *x = malloc(N * sizeof *x), *want = malloc(N * sizeof *x), *got = malloc(N * sizeof *x);
    for (int i = 0; i < N; i++)
        x[i] = 1e-36f * (float)(1 + i % 7) * (i % 3 ? 1.0f : 1e-1f);
    compute(one, x, want);
    for (int r = 0; r < RUNS; r++) {
        compute(many, x, got);
        expect(!memcmp(want, got, N * sizeof *x), "%s: run %d differs from a single thread", what, r);
    }
    int64_t zeros = 0;
    for (int i = 0; i < N; i++)
        zeros += want[i] == 0;
    free(x);
    free(want);
    free(got);
    return zeros;
}

Test(float_env, rounding)
{
    if (!testing("cpu"))
        return;
    mb_context *many = open_as("cpu", NULL, 4), *one = open_as("cpu", NULL, 1);
    expect(runs_agree(many, one, "to nearest") == 0, "subnormal results are kept by default");
    fesetround(FE_UPWARD);
    runs_agree(many, one, "upward");
    fesetround(FE_DOWNWARD);
    runs_agree(many, one, "downward");
    fesetround(FE_TONEAREST);
    runs_agree(many, one, "to nearest again");
    close_all();
}

Test(float_env, flush_to_zero)
{
#if defined(__SSE__)
    if (!testing("cpu"))
        return;
    mb_context *many = open_as("cpu", NULL, 4), *one = open_as("cpu", NULL, 1);
    _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
    _MM_SET_DENORMALS_ZERO_MODE(_MM_DENORMALS_ZERO_ON);
    expect(runs_agree(many, one, "flush to zero") > 0, "subnormal results are flushed");
    _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_OFF);
    _MM_SET_DENORMALS_ZERO_MODE(_MM_DENORMALS_ZERO_OFF);
    expect(runs_agree(many, one, "no flush") == 0, "and kept again");
    close_all();
#endif
}
