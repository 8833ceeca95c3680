/* SPDX-License-Identifier: MIT
 *
 * common.h - what the example programs share, and what a training script usually wants around its loop:
 * flags, a progress bar, a run directory with its files, pictures, a clean stop at Ctrl-C. Not part of the
 * library. */
#ifndef EXAMPLES_COMMON_H
#define EXAMPLES_COMMON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* Prints "PROGRAM: message" and exits with 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Seconds of a steady clock. */
double now(void);

/* ---- flags.c: command lines and config.json ---- */

typedef enum flag_type {
    FLAG_INT,    /* int64_t                                        */
    FLAG_REAL,   /* double                                         */
    FLAG_TEXT,   /* const char *                                   */
    FLAG_CHOICE, /* const char *, one of `choices`: "mlp|linear"   */
    FLAG_BOOL,   /* bool: --name, --name=yes, --name=no            */
} flag_type;

typedef struct flag {
    const char *name; /* without the dashes                                                                */
    flag_type type;
    void *value; /* holds the default, then what was given                                            */
    const char *help;
    const char *choices;
    double least, most; /* of numbers, both included; not checked where they are equal */
    bool free; /* says where or how to run, not what: a resumed run may differ in it                */
} flag;

/* "--name value" and "--name=value". --help prints the table and exits with 0; what is wrong is said on
 * stderr, and the exit status is 2. */
void flags_parse(int argc, char **argv, const char *about, const flag *flags, int n);
/* Whether --name is on the command line, before it is parsed: for flags that change other flags' defaults. */
bool flags_given(int argc, char **argv, const char *name);
void flags_save(const char *path, const flag *flags, int n);
/* Number of flags, but for free ones, that differ from the file; tells each on stderr. Dies without the file.
 */
int flags_compare(const char *path, const flag *flags, int n);

/* ---- progress.c: how far it is ---- */

typedef struct progress {
    const char *label;
    int64_t total;
    bool tty, colour;
    int width; /* columns; 0: as wide as the terminal now */
    bool drawn;
    double started, last_step, last_draw;
    double pace; /* seconds a step: a moving average, without the first step, which also makes the plan */
    int64_t seen, last_done;
} progress;

/* On a terminal a bar that is redrawn, at most 10 times a second; elsewhere one line whenever `log` says so.
 */
void progress_begin(progress *p, const char *label, int64_t total);
void progress_step(progress *p, int64_t done, double loss, double accuracy, bool log);
/* Clears the bar, so that other lines can be printed. */
void progress_clear(progress *p);

/* ---- run.c: the run directory ---- */

/* Makes a folder and those above it. */
void make_folder(const char *path);
/* "FOLDER/NAME", in memory that is never freed. */
char *path_in(const char *folder, const char *name);
bool file_exists(const char *path);
/* runs/PREFIX-001, ...: the first that is not there yet, or, `existing`, the last that is. Dies if there is
 * none. */
char *numbered_run(const char *prefix, bool existing);

typedef struct csv {
    FILE *file;
    char *path;
} csv;

/* Opens a table for rows to be added. keep: bytes of it to keep, at most (a resumed run cuts off what was
 * written after its checkpoint); with 0 the table begins anew with its header. */
void csv_open(csv *c, const char *folder, const char *name, const char *header, int64_t keep);
/* Writes one row: n values as %.9g, NaN as an empty field. On disk at return, as far as the process is
 * concerned. */
void csv_row(csv *c, const double *values, int n);
int64_t csv_bytes(csv *c);
void csv_close(csv *c);

/* Runs gnuplot on a script, preceded by the settings that all pictures here share, to make FOLDER/NAME (png).
 * The script runs with FOLDER as its working directory. Without gnuplot, says so once. */
void plot(const char *folder, const char *name, const char *script);
void plot_sized(const char *folder, const char *name, int width, int height, const char *script);

/* SIGINT and SIGTERM: the first makes stop_wanted() true, the second ends the process with 130 at once. */
void stop_install(void);
bool stop_wanted(void);

/* ---- report.c: measurements, and the summary beside known numbers ---- */

/* What was measured at some of the steps of a run. */
typedef struct series {
    int n, room;
    double *step, *value;
} series;

void series_add(series *s, double step, double value);
void series_free(series *s);
double series_at(const series *s, double step);      /* NaN where nothing was measured at that step */
double series_median(const series *s, double until); /* of the values at steps below `until` */
double series_mean(const series *s, double until);   /* of the values at steps below `until`        */
double series_last(const series *s, int n);          /* median of the last n values                 */
int by_size(const void *a, const void *b);           /* of doubles, for qsort                       */
/* The deviation is the population's. NaN where n is 0. */
void mean_and_deviation(const double *values, int n, double *mean, double *deviation);

/* Prints a row: what, "value (deviation)", what is known of it, and whether it is between `least` and `most`.
 * NaN: no deviation, no limit. */
void summary_line(const char *what, double value, double deviation, const char *reference, double least,
                  double most);
int summary_failures(void); /* rows so far with a value beyond its limits */

/* ---- jobs.c: independent pieces of work on several threads ---- */

/* Calls work(user, i) for i = 0 .. n - 1, on that many threads, in this order, and shows how far it is out of
 * `total` units (jobs_advance). Jobs that have not begun when somebody wants to stop are left out: false. */
bool jobs_run(const char *label, void (*work)(void *user, int i), void *user, int n, int threads,
              int64_t total);
/* From within a job. */
void jobs_advance(int64_t units);
/* `wanted`, or the number of CPUs where it is 0. */
int jobs_threads(int64_t wanted);

#endif
