/* SPDX-License-Identifier: MIT */
#include <moebius.h>
#include <stdio.h>

/* w: [2,1], x: [3,2], y: [3,1] -> a scalar: the squared error of x w */
static mb_tensor loss(mb_tensor w, mb_tensor x, mb_tensor y)
{
    mb_tensor r = mb_sub(mb_matmul(x, w), y);
    return mb_sum(mb_square(r), MB_ALL);
}

int main(void)
{
    mb_context *mb = mb_open(NULL);
    mb_tensor x = mb_from(mb, MB_FLOAT32, MB_SHAPE(3, 2), ((float[]){1, 2, 3, 4, 5, 6}));
    mb_tensor y = mb_from(mb, MB_FLOAT32, MB_SHAPE(3, 1), ((float[]){1, 0, 1}));
    mb_tensor w0 = mb_from(mb, MB_FLOAT32, MB_SHAPE(2, 1), ((float[]){0.5f, -0.25f}));
    mb_tensor rate = mb_scalar(mb, MB_FLOAT32, 0.01);
    mb_tensor d0, d1;
    mb_grad(loss(w0, x, y), &w0, 1, &d0);        /* the inner gradient ... */
    mb_tensor w1 = mb_sub(w0, mb_mul(rate, d0)); /* ... and step           */
    mb_grad(loss(w1, x, y), &w0, 1, &d1);        /* the outer gradient, through both */
    float g[2] = {0};
    mb_read(d1, g, sizeof g); /* computed here */
    printf("%.5f %.5f\n", (double)g[0], (double)g[1]);
    if (mb_error(mb) != MB_OK)
        fprintf(stderr, "%s\n", mb_message(mb));
    return mb_close(mb);
}
