/* SPDX-License-Identifier: MIT
 *
 * sparsemax.c - an op of one's own: sparsemax (Martins and Astudillo, 1602.02068), the point of the
 * probability simplex that is nearest to a row of scores. Unlike softmax it gives zeros. It is computed by a
 * C function, on Vulkan by the GLSL beside it, and differentiated by a rule made of ordinary ops; batches,
 * vmaps, scans and any order of derivatives follow from these three.
 *
 *     build/examples/sparsemax [backend]
 */
#include <moebius.h>
#include <stdio.h>

/* A row z gives max(z - tau, 0). An element is in the support if 1 + k z_i > s_i, where k and s_i are the
 * number and the sum of the elements that are not smaller; tau = (s - 1) / k of the whole support (equation 4
 * there). */
#define ROW(T)                                                                                               \
    const T *z = in[0].at;                                                                                   \
    T *p = out[0].at, sum = 0, count = 0;                                                                    \
    for (int64_t i = 0; i < n; i++) {                                                                        \
        T k = 0, s = 0;                                                                                      \
        for (int64_t j = 0; j < n; j++)                                                                      \
            if (z[j * from] >= z[i * from])                                                                  \
                k++, s += z[j * from];                                                                       \
        if (1 + k * z[i * from] > s)                                                                         \
            count++, sum += z[i * from];                                                                     \
    }                                                                                                        \
    for (int64_t i = 0; i < n; i++) {                                                                        \
        T over = z[i * from] - (sum - 1) / count;                                                            \
        p[i * to] = over > 0 ? over : 0;                                                                     \
    }

static mb_status row(const void *user, const mb_core_data *in, const mb_core_data *out, const int64_t *attrs,
                     int nattr)
{
    int64_t n = in->dim[0], from = in->stride[0], to = out->stride[0];
    (void)user, (void)attrs, (void)nattr;
    if (in->dtype == MB_FLOAT32) {
        ROW(float)
    } else if (in->dtype == MB_FLOAT64) {
        ROW(double)
    } else {
        return MB_INVALID;
    }
    return MB_OK;
}

static const char glsl[] = "void op()\n"
                           "{\n"
                           "    int n = in0_size(0);\n"
                           "    T sum = T(0), count = T(0);\n"
                           "    for (int i = 0; i < n; i++) {\n"
                           "        T k = T(0), s = T(0), z = in0(i);\n"
                           "        for (int j = 0; j < n; j++)\n"
                           "            if (in0(j) >= z) {\n"
                           "                k += T(1);\n"
                           "                s += in0(j);\n"
                           "            }\n"
                           "        if (T(1) + k * z > s) {\n"
                           "            count += T(1);\n"
                           "            sum += z;\n"
                           "        }\n"
                           "    }\n"
                           "    for (int i = 0; i < n; i++)\n"
                           "        set0(i, max(in0(i) - (sum - T(1)) / count, T(0)));\n"
                           "}\n";

/* Within the support S the derivative removes the mean over S: dp/dz v = s (v - <s, v> / |S|) (proposition 2
 * there). */
static mb_status pull(const void *user, mb_context *mb, const mb_custom_at *at, const mb_tensor *vs,
                      mb_tensor *gs)
{
    (void)user;
    mb_tensor s = mb_cast(mb_gt(at->ys[0], 0.0), mb_dtype_of(at->ys[0])), v = mb_mul(vs[0], s);
    mb_tensor mean = mb_div(mb_sum(v, MB_KEEP(-1)), mb_sum(s, MB_KEEP(-1)));
    gs[0] = mb_sub(v, mb_mul(s, mean));
    return mb_error(mb);
}

/* z: [..., n] -> the same shape; rows that add up to 1. */
static mb_tensor sparsemax(mb_tensor z)
{
    static const mb_custom_op_spec spec = {.name = "sparsemax",
                                           .operands = 1,
                                           .results = 1,
                                           .core_in = {1},
                                           .core_out = {1},
                                           .compute = row,
                                           .glsl = glsl};
    mb_tensor p = {0};
    mb_custom_op_apply(mb_custom_op_new(z.ctx, &spec), &z, NULL, 0, &p);
    mb_custom_gradient(&p, 1, &z, 1, (mb_custom_rule){.reverse = pull}, &p);
    return p;
}

static void show(const char *name, mb_tensor t)
{
    float x[2][5] = {{0}};
    mb_read(t, x, sizeof x);
    for (int r = 0; r < 2; r++)
        printf("%-10s %6.3f %6.3f %6.3f %6.3f %6.3f\n", r ? "" : name, (double)x[r][0], (double)x[r][1],
               (double)x[r][2], (double)x[r][3], (double)x[r][4]);
}

int main(int argc, char **argv)
{
    const float scores[2][5] = {{1, 2, 0.5F, 1.75F, -1}, {0.1F, 0.2F, 0, 0, 0.4F}},
                wanted[2][5] = {{0, 0, 0, 1, 0}, {1, 0, 0, 0, 0}};
    mb_context *mb = mb_open(argc > 1 ? argv[1] : NULL);
    mb_tensor z = mb_from(mb, MB_FLOAT32, MB_SHAPE(2, 5), scores),
              y = mb_from(mb, MB_FLOAT32, MB_SHAPE(2, 5), wanted);
    show("scores", z);
    show("softmax", mb_softmax(z, -1));
    show("sparsemax", sparsemax(z));
    for (int t = 0; t < 100; t++) { /* an inner loop through it, recorded as everything is */
        mb_tensor loss = mb_sum(mb_square(mb_sub(sparsemax(z), y)), MB_ALL), dz;
        mb_grad(loss, &z, 1, &dz);
        z = mb_sub(z, dz);
    }
    show("learned", sparsemax(z));
    if (mb_error(mb) != MB_OK)
        fprintf(stderr, "%s\n", mb_message(mb));
    return mb_close(mb);
}
