/* SPDX-License-Identifier: MIT
 *
 * progress.c - a bar for people, lines for logs. Everything goes to stderr: stdout is for results. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common.h"

void progress_begin(progress *p, const char *label, int64_t total)
{
    const char *term = getenv("TERM"), *columns = getenv("COLUMNS"), *no_colour = getenv("NO_COLOR");
    *p = (progress){.label = label, .total = total};
    p->tty = isatty(STDERR_FILENO) && !(term && strcmp(term, "dumb") == 0);
    p->colour = p->tty && !(no_colour && *no_colour);
    p->width = columns ? atoi(columns) : 0;
    p->started = p->last_step = now();
}

static int columns(const progress *p)
{
    struct winsize w;
    if (p->width > 0)
        return p->width;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

/* "07:42", or "1:07:42". */
static const char *clock_text(char out[16], double seconds)
{
    unsigned s = seconds >= 0 && seconds < 359999 ? (unsigned)(seconds + 0.5) : 359999;
    if (s >= 3600)
        snprintf(out, 16, "%u:%02u:%02u", s / 3600 % 100, s / 60 % 60, s % 60);
    else
        snprintf(out, 16, "%02u:%02u", s / 60 % 60, s % 60);
    return out;
}

static void draw(progress *p, int64_t done, double loss, double accuracy, double t)
{
    char left[96], right[160], spent[16], rest[16], bar[256];
    int percent = p->total ? (int)(100 * done / p->total) : 100;
    snprintf(left, sizeof left, "%s %3d%% ", p->label, percent);
    int n = snprintf(right, sizeof right, " %lld/%lld  %s<%s", (long long)done, (long long)p->total,
                     clock_text(spent, t - p->started),
                     p->pace > 0 ? clock_text(rest, p->pace * (double)(p->total - done)) : "--:--");
    if (p->pace > 0)
        n += snprintf(right + n, sizeof right - (size_t)n, "  %.1f it/s", 1 / p->pace);
    if (!isnan(loss))
        n += snprintf(right + n, sizeof right - (size_t)n, "  loss %.3f", loss);
    if (!isnan(accuracy))
        snprintf(right + n, sizeof right - (size_t)n, "  acc %.3f", accuracy);
    int room = columns(p) - 1 - (int)strlen(left) - (int)strlen(right) - 2; /* the last column may wrap */
    room = room > 40 ? 40 : room;
    if (room < 4)
        snprintf(bar, sizeof bar, "%s", "");
    else {
        int full = p->total ? (int)(room * done / p->total) : room;
        char filled[48], blank[48];
        memset(filled, '#', sizeof filled);
        memset(blank, '-', sizeof blank);
        snprintf(bar, sizeof bar, "[%s%.*s%s%.*s%s]", p->colour ? "\x1b[32m" : "", full, filled,
                 p->colour ? "\x1b[2m" : "", room - full, blank, p->colour ? "\x1b[0m" : "");
    }
    if (room < 4)
        fprintf(stderr, "\r%.*s\x1b[K", columns(p) - 1, right + 1);
    else
        fprintf(stderr, "\r%s%s%s\x1b[K", left, bar, right);
    fflush(stderr);
    p->drawn = true;
}

void progress_step(progress *p, int64_t done, double loss, double accuracy, bool log)
{
    double t = now(), step = t - p->last_step;
    if (done > p->last_done) {
        step /= (double)(done - p->last_done);
        p->last_step = t;
        p->last_done = done;
        if (p->seen++ > 0)
            p->pace = p->pace > 0 ? 0.95 * p->pace + 0.05 * step : step;
    }
    if (p->quiet)
        return;
    if (p->tty) {
        if (t - p->last_draw >= 0.1 || done == p->total) {
            p->last_draw = t;
            draw(p, done, loss, accuracy, t);
        }
        return;
    }
    if (!log)
        return;
    char rest[16];
    fprintf(stderr, "%s  %lld/%lld", p->label, (long long)done, (long long)p->total);
    if (!isnan(loss))
        fprintf(stderr, "  loss %.4f", loss);
    if (!isnan(accuracy))
        fprintf(stderr, "  acc %.4f", accuracy);
    if (p->pace > 0)
        fprintf(stderr, "  %.1f it/s  %s left", 1 / p->pace,
                clock_text(rest, p->pace * (double)(p->total - done)));
    fprintf(stderr, "\n");
}

void progress_clear(progress *p)
{
    if (p->drawn)
        fprintf(stderr, "\r\x1b[K");
    p->drawn = false;
}
