/* SPDX-License-Identifier: MIT
 * log.c - warnings and notes, sent to the log callback. */
#include <stdarg.h>
#include <stdio.h>

#include "backends/engine/state.h"

void mb__log_to_stderr(void *user, const char *line)
{
    (void)user;
    fprintf(stderr, "moebius: %s\n", line);
}

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
    for (char *c = line; *c; c++) /* names that it quotes may hold line breaks */
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    st->log(st->log_user, line);
}
