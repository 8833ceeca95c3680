/* SPDX-License-Identifier: MIT
 *
 * run.c - the run directory: folders, tables, pictures; and the wish to stop. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

/* ---- folders ---- */

char *path_in(const char *folder, const char *name)
{
    size_t n = strlen(folder) + strlen(name) + 2;
    char *path = malloc(n);
    if (!path)
        die("out of memory");
    snprintf(path, n, "%s/%s", folder, name);
    return path;
}

void make_folder(const char *path)
{
    char *copy = path_in(path, "");
    for (char *p = copy + 1; *p; p++)
        if (*p == '/') {
            *p = 0;
            if (mkdir(copy, 0777) != 0 && errno != EEXIST)
                die("%s: cannot be made: %s", copy, strerror(errno));
            *p = '/';
        }
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        die("%s: not a folder", path);
    free(copy);
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

char *numbered_run(const char *prefix, bool existing)
{
    char *last = NULL;
    for (int i = 1; i < 1000; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s-%03d", prefix, i);
        char *path = path_in("runs", name);
        if (!file_exists(path)) {
            if (existing && !last)
                die("no run to resume: there is no %s", path);
            return existing ? last : path;
        }
        last = path;
    }
    die("runs/%s-999 is there already", prefix);
}

/* ---- tables ---- */

void csv_open(csv *c, const char *folder, const char *name, const char *header, int64_t keep)
{
    c->path = path_in(folder, name);
    c->file = fopen(c->path, keep > 0 ? "a" : "w");
    if (!c->file)
        die("%s: %s", c->path, strerror(errno));
    if (keep > 0 && csv_bytes(c) > keep && ftruncate(fileno(c->file), (off_t)keep) != 0)
        die("%s: cannot be cut to the resumed step: %s", c->path, strerror(errno));
    if (keep <= 0 || csv_bytes(c) == 0)
        fprintf(c->file, "%s\n", header);
    if (fflush(c->file) != 0)
        die("%s: %s", c->path, strerror(errno));
}

void csv_row(csv *c, const double *values, int n)
{
    for (int i = 0; i < n; i++) {
        if (!isnan(values[i]))
            fprintf(c->file, "%.9g", values[i]);
        fputc(i + 1 < n ? ',' : '\n', c->file);
    }
    if (fflush(c->file) != 0)
        die("%s: %s", c->path, strerror(errno));
}

int64_t csv_bytes(csv *c)
{
    struct stat st;
    return c->file && fstat(fileno(c->file), &st) == 0 ? (int64_t)st.st_size : 0;
}

void csv_close(csv *c)
{
    if (c->file && fclose(c->file) != 0)
        die("%s: %s", c->path, strerror(errno));
    free(c->path);
    *c = (csv){NULL, NULL};
}

/* ---- pictures ---- */

static const char settings[] = "set output '%s'\n"
                               "set datafile separator comma\n"
                               "set border 3 lc rgb '#606060'\n"
                               "set tics nomirror out scale 0.5 textcolor rgb '#404040'\n"
                               "set grid ytics lc rgb '#e4e4e4' lt 1\n"
                               "set key top right textcolor rgb '#404040' spacing 1.2\n"
                               "set title font ',15' textcolor rgb '#202020'\n"
                               "set lmargin 10\n"
                               "set rmargin 4\n";

void plot(const char *folder, const char *name, const char *script)
{
    plot_sized(folder, name, 1000, 620, script);
}

void plot_sized(const char *folder, const char *name, int width, int height, const char *script)
{
    static bool told;
    if (told)
        return;
    FILE *probe = popen("command -v gnuplot", "r");
    bool found = probe && fgetc(probe) != EOF;
    if (probe)
        pclose(probe);
    if (!found) {
        fprintf(stderr, "no pictures: gnuplot is not installed (Debian: gnuplot-nox)\n");
        told = true;
        return;
    }
    char *target = path_in(folder, name);
    unlink(target);
    setenv("MOEBIUS_RUN", folder, 1);
    FILE *g = popen("cd \"$MOEBIUS_RUN\" && exec gnuplot 2>gnuplot.log", "w");
    if (g) {
        /* pngcairo draws better text, but not every gnuplot has it */
        fprintf(g,
                "if (strstrt(GPVAL_TERMINALS, 'pngcairo')) {\n"
                "  set terminal pngcairo size %d,%d font 'Sans,11' background rgb 'white'\n} else {\n"
                "  set terminal png size %d,%d truecolor enhanced background rgb 'white'\n}\n",
                width, height, width, height);
        fprintf(g, settings, name);
        fputs(script, g);
    }
    if (!g || pclose(g) != 0 || !file_exists(target)) {
        fprintf(stderr, "no %s: see %s/gnuplot.log\n", target, folder);
    } else {
        char *log = path_in(folder, "gnuplot.log");
        unlink(log);
        free(log);
    }
    free(target);
}

/* ---- stopping ---- */

static volatile sig_atomic_t stops;

static void on_stop(int signal_number)
{
    (void)signal_number;
    if (stops++)
        _exit(130);
}

void stop_install(void)
{
    struct sigaction a = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    signal(SIGPIPE, SIG_IGN); /* a gnuplot that dies is told by pclose */
    signal(SIGXFSZ, SIG_IGN); /* a file above the limit is an error of write */
}

bool stop_wanted(void)
{
    return stops != 0;
}
