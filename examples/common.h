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

/* ---- process.c: what every program needs ---- */

/* First of all in main. A standard stream that is closed stays of no use, but no file gets its number. */
void process_begin(int argc, char **argv);
const char *program_name(void);
/* Last of all: what main returns. `status`, or 1, which is told, where not all of stdout could be written. */
int process_end(int status);
/* Prints "PROGRAM: message" and exits with 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Seconds of a steady clock. */
double now(void);
/* SIGINT and SIGTERM: the first makes stop_wanted() true, the second ends the process with 130 at once. */
void stop_install(void);
bool stop_wanted(void);

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

/* ---- memory.c: how much there is ---- */

typedef struct memory_left {
    double bytes;
    const char *of; /* what leaves no more: "this machine" */
} memory_left;

/* The least of what the machine, a control group and ulimit -v leave this process. */
memory_left memory_available(void);

/* ---- progress.c: how far it is ---- */

typedef struct progress {
    const char *label;
    int64_t total;
    bool tty, colour;
    bool quiet; /* shows nothing: only `pace` is wanted */
    int width;  /* columns; 0: as wide as the terminal now */
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

/* "FOLDER/NAME"; the caller frees it. */
char *path_in(const char *folder, const char *name);
bool file_exists(const char *path);
/* With those above it, where they are not there. */
void make_folder(const char *path);
/* The folder of a new run: `out`, or where that is "" the first of runs/PREFIX-001, ... that is not there
 * yet. Makes it, with those above it, and locks it. Dies with the advice where it holds a file called `mark`,
 * which says that a run is there already. */
const char *claim_folder(const char *out, const char *prefix, const char *mark, const char *advice);
/* The folder of a new run, as by claim_folder, with its flags in config.json; or `resume`, where it is not
 * "", the folder of a run that was begun with these flags, locked. Dies where it was not. */
const char *run_folder(const char *out, const char *resume, const char *prefix, const flag *flags, int n);
/* The last of runs/PREFIX-001, ... Dies if there is none. */
char *last_run(const char *prefix);
/* Until the process ends, no other can lock the folder. Dies where another has. Once in a process. */
void lock_folder(const char *folder);
/* Replaces a file as a whole, or dies and leaves what was there. */
void write_file(const char *path, const char *text);

/* ---- tables.c: CSV files ---- */

typedef struct csv {
    FILE *file; /* NULL: not open */
    char *path;
} csv;

/* A new table. */
void csv_open(csv *c, const char *folder, const char *name, const char *header);
/* One to go on with: its first `keep` bytes stay, the rest is cut off. Dies where they are no rows under this
 * header. */
void csv_reopen(csv *c, const char *folder, const char *name, const char *header, int64_t keep);
/* Writes one row, where it is open: n values as %.9g, NaN as an empty field. On disk at return, as far as the
 * process is concerned. */
void csv_row(csv *c, const double *values, int n);
/* On disk at return, whatever happens to the machine. */
void csv_sync(csv *c);
int64_t csv_bytes(const csv *c); /* 0 where it is not open */
/* Dies where any write since it was opened has failed. */
void csv_close(csv *c);

/* ---- plot.c: pictures ---- */

/* Runs gnuplot on a script, preceded by the settings that all pictures here share, to make FOLDER/NAME (png).
 * The script runs with FOLDER as its working directory. Without gnuplot, says so once. */
void plot(const char *folder, const char *name, int width, int height, const char *script);
/* Pictures that gnuplot was there for, and did not make; what was there of that name has been left. */
int pictures_failed(void);

/* The same with a script that is written bit by bit, to what picture_begin returns. */
typedef struct picture {
    FILE *script;
    char *text;
    size_t size;
} picture;

FILE *picture_begin(picture *p);
void picture_end(picture *p, const char *folder, const char *name, int width, int height);

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
