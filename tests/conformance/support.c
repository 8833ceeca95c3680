/* SPDX-License-Identifier: MIT
 * support.c - see support.h. */
#include <fnmatch.h>
#include <stdarg.h>

#include "support.h"

conformance run = {.programs = 30};
static char remembered[600]; /* what expect was not satisfied with */

bool wanted(const char *name)
{
    return !run.only || fnmatch(run.only, name, 0) == 0;
}

bool told(const char *name, bool ok, const char *format, ...)
{
    bool good = ok && !remembered[0];
    if (good) {
        run.passed++;
        return true;
    }
    run.failed++;
    char text[900];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    printf("FAILED: %s: %s\n", name, ok ? remembered : text);
    remembered[0] = 0;
    return false;
}

bool expect(bool ok, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!ok && !remembered[0])
        vsnprintf(remembered, sizeof remembered, format, args);
    va_end(args);
    return ok;
}

mb_context *open_as(const char *backend, const char *disable, int threads)
{
    mb_context *ctx = mb_open_with(&(mb_options){.size = sizeof(mb_options),
                                                 .backend = backend,
                                                 .disable = disable ? disable : "",
                                                 .threads = threads});
    if (ctx && mb_error(ctx) == MB_OK)
        return ctx;
    fprintf(stderr, "%s\n", mb_message(ctx));
    exit(2);
}

void close_failed(mb_context *ctx)
{
    mb_close(ctx);
}

double *values(mb_tensor t)
{
    mb_status status;
    double *v = values_or_nan(t, &status);
    expect(status == MB_OK, "read: %s", t.ctx ? mb_message(t.ctx) : "no context");
    return v;
}
