/* SPDX-License-Identifier: MIT
 * second_derivative.c - y = x^3 and its first two derivatives at x = 2: by hand 8, 3 x^2 = 12, 6 x = 12. */
#include <moebius.h>
#include <stdio.h>

int main(void)
{
    mb_context *mb = mb_open(NULL);               /* $MB_BACKEND, or the best there is */
    mb_tensor x = mb_scalar(mb, MB_FLOAT64, 2.0); /* 0-d */
    mb_tensor y = mb_mul(mb_mul(x, x), x);        /* recorded, not computed */
    mb_tensor dy, d2y;
    mb_grad(y, &x, 1, &dy);           /* the derivative is recorded as well, ... */
    mb_grad(dy, &x, 1, &d2y);         /* ... so it can be differentiated again */
    printf("y   = %g\n", mb_item(y)); /* numbers are made where they are read */
    printf("y'  = %g\n", mb_item(dy));
    printf("y'' = %g\n", mb_item(d2y));
    if (mb_error(mb) != MB_OK) /* the first mistake of all, if any */
        fprintf(stderr, "%s\n", mb_message(mb));
    return mb_close(mb);
}
