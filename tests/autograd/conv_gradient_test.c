/* SPDX-License-Identifier: MIT
 *
 * conv_gradient_test.c - derivatives of windows, padding, convolutions, pools and norms over channels to the
 * third order, against differences. */
#include "gradcheck.h"

#define X    xs[0]
#define Y    xs[1]
#define Z    xs[2]
#define NONE MB_EMPTY(mb_tensor)
#define FUNCTION(name, ...)                                                                                  \
    static mb_tensor name(mb_context *ctx, const mb_tensor *xs, const void *user)                            \
    {                                                                                                        \
        (void)ctx, (void)user;                                                                               \
        return mb_sin(__VA_ARGS__);                                                                          \
    }

#define PAD(mode) mb_pad_with(X, 0, 2, 1, (mb_pad_options){mode, 0.5})
FUNCTION(f_pads,
         mb_mul(mb_add(PAD(MB_PAD_VALUE), PAD(MB_PAD_EDGE)), mb_add(PAD(MB_PAD_REFLECT), PAD(MB_PAD_WRAP))))
FUNCTION(f_unfold, mb_mul(mb_unfold(X, 0, (mb_window){3, 1, 1}), 0.7))
FUNCTION(f_unfold_far, mb_unfold(X, 0, (mb_window){2, 2, 3}))
FUNCTION(f_fold, mb_fold(X, 0, (mb_window){0, 1, 1}, 6))
FUNCTION(f_fold_far, mb_fold(X, 0, (mb_window){0, 2, 3}, 9))
FUNCTION(f_conv, mb_conv2d(X, Y, Z, (mb_conv_options){.padding = {1, 1}}))
FUNCTION(f_conv_last, mb_conv2d(X, Y, Z, (mb_conv_options){.channels_last = true}))
FUNCTION(f_conv_groups,
         mb_conv2d(X, Y, Z, (mb_conv_options){.groups = 2, .stride = {2, 1}, .dilation = {1, 2}}))
FUNCTION(f_conv1d, mb_conv1d(X, Y, Z, (mb_conv_options){.stride = {2}, .padding = {2}}))
FUNCTION(f_self, mb_conv1d(X, X, NONE, (mb_conv_options){.padding = {1}}))
FUNCTION(f_transposed, mb_conv_transpose2d(X, Y, Z, (mb_conv_options){.padding = {1, 0}}))
FUNCTION(f_transposed_far,
         mb_conv_transpose2d(X, Y, Z, (mb_conv_options){.stride = {2, 2}, .more = {1, 0}, .groups = 2}))
FUNCTION(f_max_pool, mb_max_pool2d(X, (mb_pool_options){.size = {2}}))
FUNCTION(f_max_pool_over, mb_max_pool1d(X, (mb_pool_options){.size = {3}, .stride = {1}, .padding = {1}}))
FUNCTION(f_avg_pool, mb_avg_pool2d(X, (mb_pool_options){.size = {2}, .stride = {1, 1}, .padding = {1, 1}}))
FUNCTION(f_batch_norm, mb_batch_normalize(X, 1, Y, Z, 0.1, NULL, NULL))
FUNCTION(f_group_norm, mb_group_normalize(X, 1, 2, Y, Z, 0.1))
FUNCTION(f_dropout, mb_dropout(X, mb_key_of(3), 0.4, true))

#define S(...)          MB_SHAPE(__VA_ARGS__)
#define CASE(f, n, ...) #f, f, NULL, n, {__VA_ARGS__ }, -1.5, 1.5, 0, 0
#define RUN(...)                                                                                             \
    do {                                                                                                     \
        const gradcase cases[] = {__VA_ARGS__};                                                              \
        gradcheck_both(cases, (int)(sizeof cases / sizeof *cases));                                          \
    } while (0)

Test(conv_gradient, windows, .timeout = 120)
{
    RUN({CASE(f_pads, 1, S(3, 2))}, {CASE(f_unfold, 1, S(5, 2))}, {CASE(f_unfold_far, 1, S(8))},
        {CASE(f_fold, 1, S(4, 3, 2))}, {CASE(f_fold_far, 1, S(3, 2))}, {CASE(f_fold, 1, S(0, 2, 2))});
}

Test(conv_gradient, convolutions, .timeout = 120)
{
    RUN({CASE(f_conv, 3, S(2, 2, 3, 4), S(3, 2, 3, 2), S(3))},
        {CASE(f_conv_last, 3, S(1, 3, 4, 2), S(2, 2, 2, 2), S(2))},
        {CASE(f_conv_groups, 3, S(1, 4, 5, 3), S(2, 2, 2, 2), S(2))},
        {CASE(f_conv_groups, 3, S(1, 2, 5, 3), S(2, 1, 2, 2), S(2))},
        {CASE(f_conv1d, 3, S(2, 2, 4), S(3, 2, 3), S(3))}, {CASE(f_self, 1, S(2, 2, 3))},
        {CASE(f_conv, 3, S(0, 2, 3, 4), S(3, 2, 3, 2), S(3))});
}

/* A loop of convolutions by the same weights, as a scan and step by step: the same values and derivatives. */
static mb_tensor steps_of(mb_tensor x, mb_tensor w, bool scan)
{
    enum { STEPS = 3 };
    mb_conv_options o = {.padding = {1, 1}};
    if (scan) {
        mb_scan s = mb_scan_begin(x.ctx, STEPS);
        mb_scan_carry(s, &x);
        x = mb_sin(mb_conv2d(x, w, NONE, o));
        mb_scan_end(s);
    } else {
        for (int i = 0; i < STEPS; i++)
            x = mb_sin(mb_conv2d(x, w, NONE, o));
    }
    return mb_sum(mb_sin(x), MB_ALL);
}

Test(conv_gradient, in_a_scan)
{
    for (int k = 0; k < 2; k++) {
        mb_context *mb = open_on(backend_names[k]);
        rng r = {1};
        mb_tensor in[2] = {draw(mb, &r, MB_FLOAT64, S(2, 2, 3, 4), -1, 1),
                           draw(mb, &r, MB_FLOAT64, S(2, 2, 3, 3), -1, 1)};
        double *got[2][2];
        for (int scan = 0; scan < 2; scan++) {
            mb_tensor g[2], h[2];
            mb_grad(steps_of(in[0], in[1], scan), in, 2, g);
            mb_grad(mb_dot(g[0], mb_sin(in[0])), in, 2, h); /* and of its derivative */
            got[scan][0] = values(g[1]);
            got[scan][1] = values(h[1]);
        }
        for (int order = 0; order < 2; order++)
            expect(nmse(got[1][order], got[0][order], 36) < 1e-26, "order %d", order + 1);
        close_all();
    }
}

Test(conv_gradient, transposed, .timeout = 120)
{
    RUN({CASE(f_transposed, 3, S(1, 2, 3, 2), S(2, 2, 3, 2), S(2))},
        {CASE(f_transposed_far, 3, S(1, 2, 2, 2), S(2, 1, 2, 3), S(2))});
}

Test(conv_gradient, pools_and_norms, .timeout = 120)
{
    RUN({CASE(f_max_pool, 1, S(1, 2, 4, 4))}, {CASE(f_max_pool_over, 1, S(2, 1, 5))},
        {CASE(f_avg_pool, 1, S(1, 2, 3, 3))}, {CASE(f_batch_norm, 3, S(3, 2, 2), S(2), S(2))},
        {CASE(f_group_norm, 3, S(2, 4, 2), S(4), S(4))}, {CASE(f_dropout, 1, S(5, 3))});
}
