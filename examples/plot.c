/* SPDX-License-Identifier: MIT
 *
 * plot.c - pictures, drawn by gnuplot. One is there as a whole or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

extern char **environ;

static int failures;

int pictures_failed(void)
{
    return failures;
}

/* ---- gnuplot ---- */

/* pngcairo draws better text, but not every gnuplot has it. */
static const char settings[] = "if (strstrt(GPVAL_TERMINALS, 'pngcairo')) {\n"
                               "  set terminal pngcairo size %d,%d font 'Sans,11' background rgb 'white'\n"
                               "} else {\n"
                               "  set terminal png size %d,%d truecolor enhanced background rgb 'white'\n"
                               "}\n"
                               "set output '%s.tmp'\n"
                               "set datafile separator comma\n"
                               "set border 3 lc rgb '#606060'\n"
                               "set tics nomirror out scale 0.5 textcolor rgb '#404040'\n"
                               "set grid ytics lc rgb '#e4e4e4' lt 1\n"
                               "set key top right textcolor rgb '#404040' spacing 1.2\n"
                               "set title font ',15' textcolor rgb '#202020'\n"
                               "set lmargin 10\n"
                               "set rmargin 4\n";

/* Without a shell, so that neither what the folder is called nor the shell's variables matter; -d: nor what
 * the user has gnuplot do first. Its errors go to gnuplot.log. Returns errno. */
static int start(const char *folder, int input, pid_t *gnuplot)
{
    posix_spawn_file_actions_t actions;
    char *const arguments[] = {"gnuplot", "-d", NULL};
    int error = posix_spawn_file_actions_init(&actions);
    if (error)
        return error;
    error = posix_spawn_file_actions_addchdir_np(&actions, folder);
    if (!error)
        error = posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    if (!error)
        error = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "gnuplot.log",
                                                 O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (!error)
        error = posix_spawnp(gnuplot, "gnuplot", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

/* Whether it read the whole script and was content. */
static bool feed(pid_t gnuplot, int output, const char *name, int width, int height, const char *script)
{
    FILE *f = fdopen(output, "w");
    bool written = f && fprintf(f, settings, width, height, width, height, name) > 0 && fputs(script, f) >= 0;
    if (f)
        written = fclose(f) == 0 && written;
    else
        close(output);
    int status;
    while (waitpid(gnuplot, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    return written && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- whole pictures ---- */

static uint32_t big_endian(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Whether a PNG's chunks follow one another from the signature to IEND at the end of the file: gnuplot does
 * not notice what a full disk keeps of its picture. */
static bool whole(const char *path)
{
    static const unsigned char signature[8] = "\x89PNG\r\n\x1a\n";
    unsigned char head[8] = {0};
    FILE *f = fopen(path, "rb");
    bool ok = f && fread(head, 1, 8, f) == 8 && memcmp(head, signature, 8) == 0;
    while (ok) {
        ok = fread(head, 1, 8, f) == 8 && fseeko(f, (off_t)big_endian(head) + 4, SEEK_CUR) == 0;
        if (ok && memcmp(head + 4, "IEND", 4) == 0)
            break;
    }
    if (ok) { /* now behind IEND's checksum */
        off_t end = ftello(f);
        ok = fseeko(f, 0, SEEK_END) == 0 && ftello(f) == end;
    }
    if (f)
        fclose(f);
    return ok;
}

static bool draw(pid_t gnuplot, int output, const char *folder, const char *name, int width, int height,
                 const char *script)
{
    char temporary_name[128];
    snprintf(temporary_name, sizeof temporary_name, "%s.tmp", name);
    char *temporary = path_in(folder, temporary_name), *target = path_in(folder, name),
         *log = path_in(folder, "gnuplot.log");
    bool drawn = feed(gnuplot, output, name, width, height, script) && whole(temporary) &&
                 rename(temporary, target) == 0;
    if (drawn) {
        unlink(log);
    } else {
        unlink(temporary);
        fprintf(stderr, "no %s: gnuplot could not draw it, or there is no room for it; see %s\n", target,
                log);
    }
    free(temporary);
    free(target);
    free(log);
    return drawn;
}

void plot(const char *folder, const char *name, int width, int height, const char *script)
{
    static bool missing;
    int ends[2];
    pid_t gnuplot;
    if (missing)
        return;
    if (pipe2(ends, O_CLOEXEC) != 0)
        die("no pipe to gnuplot: %s", strerror(errno));
    int error = start(folder, ends[0], &gnuplot);
    close(ends[0]);
    if (error == 0) {
        failures += !draw(gnuplot, ends[1], folder, name, width, height, script);
        return;
    }
    close(ends[1]);
    missing = true;
    char *log = path_in(folder, "gnuplot.log");
    unlink(log);
    free(log);
    if (error == ENOENT)
        fprintf(stderr, "no pictures: gnuplot is not installed (Debian: gnuplot-nox)\n");
    else
        fprintf(stderr, "no pictures: gnuplot cannot be started: %s\n", strerror(error));
    failures += error != ENOENT;
}

/* ---- scripts ---- */

FILE *picture_begin(picture *p)
{
    *p = (picture){NULL, NULL, 0};
    p->script = open_memstream(&p->text, &p->size);
    if (!p->script)
        die("out of memory");
    return p->script;
}

void picture_end(picture *p, const char *folder, const char *name, int width, int height)
{
    if (fclose(p->script) != 0)
        die("out of memory");
    plot(folder, name, width, height, p->text);
    free(p->text);
    *p = (picture){NULL, NULL, 0};
}
