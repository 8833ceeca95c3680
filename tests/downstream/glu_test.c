/* SPDX-License-Identifier: MIT
 *
 * glu_test.c - the README's layer of one's own, and its test. */
#include <criterion/criterion.h>
#include <moebius.h>
#include <tests/kit/criterion.h>

typedef struct glu { /* (x A + a) sigmoid(x B + b) */
    mb_linear value, gate;
} glu;

static void make(mb_params *p, void *layer, const void *user)
{
    *(glu *)layer = (glu){mb_linear_new(p, "value", 5, 3), mb_linear_new(p, "gate", 5, 3)};
}

static mb_tensor apply(mb_context *mb, const void *layer, const mb_tensor *xs, const void *user)
{
    const glu *g = layer;
    return mb_mul(mb_linear_apply(g->value, xs[0]), mb_sigmoid(mb_linear_apply(g->gate, xs[0])));
}

Test(glu, is_right)
{
    const mb_layer_case c = {.name = "glu",
                             .make = make,
                             .layer_bytes = sizeof(glu),
                             .apply = apply,
                             .n = 1,
                             .shape = {MB_SHAPE(MB_FREE(1), MB_FREE(2), 5)},
                             .vmap = true};
    mb_assert_layer(&c);
}
