/* SPDX-License-Identifier: MIT
 * main.c - a program outside of the tree, built against the installed library: a second derivative, and a
 * layer. */
#include <moebius.h>
#include <stdio.h>

int main(void)
{
    mb_context *mb = mb_open(NULL);
    mb_params *p = mb_params_new(mb, 1);
    mb_linear layer = mb_linear_new(p, "layer", 3, 2);
    mb_tensor x = mb_scalar(mb, MB_FLOAT64, 2), y = mb_mul(mb_mul(x, x), x), g, h;
    mb_grad(y, &x, 1, &g);
    mb_grad(g, &x, 1, &h);
    mb_tensor out = mb_linear_apply(layer, mb_ones(mb, MB_FLOAT32, MB_SHAPE(4, 3)));
    printf("%g %g %lld\n", mb_item(g), mb_item(h), (long long)mb_count(out));
    mb_eval(&out, 1);
    mb_params_free(p);
    return mb_close(mb) != MB_OK;
}
