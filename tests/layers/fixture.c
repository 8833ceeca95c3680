/* SPDX-License-Identifier: MIT
 * fixture.c - see fixture.h. */
#include "fixture.h"

mb_tensor pattern(mb_context *mb, mb_shape shape, int tag, double scale, double base)
{
    int64_t n = shape_count(shape);
    double *data = calloc((size_t)n + 1, sizeof *data);
    for (int64_t i = 0; i < n; i++)
        data[i] = base + scale * sin(0.7 * (double)(i + 1) + 1.3 * tag);
    mb_tensor t = mb_from(mb, MB_FLOAT64, shape, data);
    free(data);
    return t;
}

void set_pattern(mb_params *p, const char *name, int tag, double scale, double base)
{
    mb_tensor t = mb_params_get(p, name);
    mb_assign(t, pattern(mb_params_context(p), mb_shape_of(t), tag, scale, base));
}

tiny tiny_ttt(mb_context *mb, mb_ttt_options options)
{
    static const struct {
        const char *name;
        int tag;
        double scale, base;
    } rows[] = {{"ttt.psi_k", 1, .5, 0},       {"ttt.psi_b", 2, .1, 0},     {"ttt.phi_k", 3, .5, 0},
                {"ttt.phi_b", 4, .1, 0},       {"ttt.g_k", 5, .5, 0},       {"ttt.g_bias", 6, .1, 0},
                {"ttt.h_k", 7, .5, 0},         {"ttt.h_bias", 8, .1, 0},    {"ttt.W1", 9, .5, 0},
                {"ttt.b1", 10, .1, 0},         {"ttt.W2", 11, .5, 0},       {"ttt.b2", 12, .1, 0},
                {"ttt.norm_scale", 13, .1, 1}, {"ttt.norm_bias", 14, .1, 0}};
    tiny t = {.mb = mb, .p = mb_params_new_with(mb, 1, MB_FLOAT64)};
    options.dim = TINY_D;
    options.heads = TINY_H;
    t.layer = mb_ttt_new(t.p, "ttt", options);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int k = 0; k < mb_params_count(t.p); k++)
            if (strcmp(mb_params_name(t.p, k), rows[i].name) == 0)
                set_pattern(t.p, rows[i].name, rows[i].tag, rows[i].scale, rows[i].base);
    return t;
}

mb_tensor tiny_get(const tiny *t, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "ttt.%s", name);
    return mb_params_get(t->p, full);
}

mb_tensor tiny_x(mb_context *mb, int64_t B)
{
    return pattern(mb, MB_SHAPE(B, TINY_N, TINY_D), 0, 1, 0);
}

mb_tensor outer_loss(mb_tensor y)
{
    mb_tensor target = pattern(y.ctx, mb_shape_of(y), 15, 1, 0);
    return mb_mul(mb_sum(mb_square(mb_sub(y, target)), MB_ALL), 0.5);
}

double norm2(mb_tensor t)
{
    const double *v = values(t);
    double sum = 0;
    for (int64_t i = 0; i < mb_count(t); i++)
        sum += v[i] * v[i];
    return sqrt(sum);
}

void expect_close_at(const char *file, int line, mb_tensor a, mb_tensor b, double tolerance, const char *what)
{
    if (!expect_at(file, line, same_shape(mb_shape_of(a), mb_shape_of(b)), "%s: shapes %s and %s", what,
                   shape_text(mb_shape_of(a)), shape_text(mb_shape_of(b))))
        return;
    const double *u = values(a), *v = values(b);
    double most = 0;
    for (int64_t i = 0; i < mb_count(b); i++)
        most = fmax(most, fabs(v[i]));
    for (int64_t i = 0; i < mb_count(a); i++)
        if (!expect_at(file, line, near(u[i], v[i], 0, tolerance * most),
                       "%s: element %lld is %.17g, not %.17g", what, (long long)i, u[i], v[i]))
            return;
}
