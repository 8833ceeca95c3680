/* SPDX-License-Identifier: MIT
 * agree.c - see agree.h. */
#include "agree.h"

double program_limit(const program *p)
{
    double most = 1;
    for (int i = 0; i < p->count; i++)
        most = fmax(most, (double)shape_count(p->code[i].shape));
    switch (p->dtype) {
    case MB_FLOAT64: /* sums of n terms of size 1 that cancel: n roundings beside the floor, 1e-6 of a square
                      */
        return 1e-20 + 0x1p-86 * most * most;
    case MB_FLOAT16: /* of the halves each value may be off by a rounding or two */
        return 0x1p-18;
    case MB_BFLOAT16:
        return 0x1p-12;
    default:
        return 1e-9 + 0x1p-50 * most * most;
    }
}

double program_floor(mb_dtype dtype)
{
    return dtype == MB_FLOAT64 ? 1e-6 : dtype == MB_FLOAT32 ? 1e-3 : 1e-2;
}

double program_distance(const double *a, const double *b, int64_t n, double floor_size)
{
    double error = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i])) {
            if (isnan(b[i]) ? !isnan(a[i]) : a[i] != b[i])
                return (double)INFINITY;
            continue;
        }
        error += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    return error == 0 ? 0 : error / (size + floor_size * (double)n);
}

/* The same in float32, of the same values. */
static program widened(const program *p)
{
    program wide = *p;
    wide.dtype = MB_FLOAT32;
    wide.data = p->dtype;
    for (int i = 0; i < p->count; i++)
        if (p->code[i].dtype == p->dtype)
            wide.code[i].dtype = MB_FLOAT32;
    return wide;
}

static double moved_by(const program *run, mb_context *ctx, const program *p, uint64_t data, unsigned style,
                       int i, const result *want)
{
    static result moved;
    bool same = program_run(ctx, run, data, style, &moved) && moved.n > i && moved.count[i] == want->count[i];
    return same ? program_distance(moved.v[i], want->v[i], want->count[i], program_floor(p->dtype)) : 0;
}

double program_condition(const program *p, uint64_t data, int i, const result *want)
{
    enum { WAYS = 6 };
    double most = 0;
    mb_context *ctx = open_as("reference", "", 1);
    for (unsigned way = 1; way <= WAYS; way++)
        most = fmax(most, moved_by(p, ctx, p, data, RUN_SCOPE | RUN_SHAKEN * way, i, want));
    if (p->dtype == MB_FLOAT16 || p->dtype == MB_BFLOAT16) {
        program wide = widened(p);
        most = fmax(most, moved_by(&wide, ctx, p, data, RUN_SCOPE, i, want));
    }
    close_failed(ctx);
    return most;
}

int64_t program_worst(const double *got, const double *want, int64_t n)
{
    int64_t worst = 0;
    double most = -1;
    for (int64_t e = 0; e < n; e++) {
        double off = fabs(got[e] - want[e]);
        if (!(off <= most))
            worst = e, most = off;
    }
    return worst;
}
