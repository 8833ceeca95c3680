/* SPDX-License-Identifier: MIT
 * devices.c - what mb_open can open here, with limits; and a try of each: the same small step of gradient
 * descent on every one. */
#include <math.h>
#include <moebius.h>
#include <stdio.h>

enum { MOST = 32 };

/* ||x w - y||^2 after one step on w; x: [4,3], w: [3]. NaN where the device cannot be used. */
static double one_step(const char *backend, char *message, size_t size)
{
    mb_context *mb = mb_open(backend);
    const float xs[12] = {1, 0, 2, -1, 3, 1, 0, 1, 1, 2, -2, 0}, ys[4] = {1, 2, 3, 4};
    mb_tensor x = mb_from(mb, MB_FLOAT32, MB_SHAPE(4, 3), xs),
              y = mb_from(mb, MB_FLOAT32, MB_SHAPE(4, 1), ys);
    mb_tensor w = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(3, 1)), loss, dw;
    for (int step = 0; step < 2; step++) {
        loss = mb_sum(mb_square(mb_sub(mb_matmul(x, w), y)), MB_ALL);
        mb_grad(loss, &w, 1, &dw);
        w = mb_sub(w, mb_mul(dw, 0.02));
    }
    double result = mb_item(loss);
    snprintf(message, size, "%s", mb_message(mb));
    return mb_close(mb) == MB_OK ? result : (double)NAN;
}

int main(void)
{
    mb_device devices[MOST];
    const char *why;
    int count = mb_devices(devices, MOST, &why), failed = 0;
    double want = NAN;
    for (int i = 0; i < count && i < MOST; i++) {
        const mb_device *d = &devices[i];
        char message[512];
        double loss = one_step(d->backend, message, sizeof message);
        if (i == 0)
            want = loss;
        bool ok = fabs(loss - want) <= 1e-5 * fabs(want);
        failed += !ok;
        printf("%-12s %s%s%s\n", d->backend, d->name, d->driver[0] ? ", driver " : "", d->driver);
        printf("             %s, float32%s", d->kind, d->float64 ? " and float64" : " only");
        if (d->memory_bytes)
            printf(", %.1f GiB, values of at most %.2f GiB, groups of %u with %u KiB",
                   (double)d->memory_bytes / (1 << 30), (double)d->buffer_bytes / (1 << 30),
                   d->group_invocations, d->shared_bytes / 1024);
        printf("\n             %s%s\n", ok ? "works" : "FAILS: ",
               ok           ? ""
               : message[0] ? message
                            : "another result");
        if (d->uuid[0])
            printf("             by name whatever its position: MB_BACKEND=vulkan:%s\n", d->uuid);
    }
    if (why)
        printf("%-12s %s\n", "vulkan", why);
    printf("\nChoose one with MB_BACKEND=<name> or mb_open(\"<name>\"); \"vulkan:<part of the name>\" finds "
           "a Vulkan device.\n");
    return failed != 0;
}
