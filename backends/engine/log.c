/* SPDX-License-Identifier: MIT
 * log.c - warnings and notes, sent to the log callback. */
#include <stdarg.h>
#include <stdio.h>

#include "backends/engine/state.h"

void mb__log(mb_context *ctx, const char *format, ...)
{
    mb__engine_state *st = ctx->engine_state;
    if (!st || !st->log)
        return;
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    st->log(st->log_user, line);
}
