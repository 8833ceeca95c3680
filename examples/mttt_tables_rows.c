/* SPDX-License-Identifier: MIT
 *
 * mttt_tables_rows.c - what the runs did: runs.csv, of which a killed sweep keeps the rows that are whole. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mttt_tables.h"

static const char header[] =
    "run,seed,learner,tokens,inner_steps,inner_batch,decoder_norm,learned_start,hidden,"
    "parameters,flops,test_loss,test_accuracy";

char *folder_of(const sweep *s, const variant *v, int64_t seed)
{
    char name[64];
    snprintf(name, sizeof name, "%s-%lld", v->name, (long long)seed);
    return path_in(s->folder, name);
}

int variant_of(const sweep *s, const char *name)
{
    for (int i = 0; i < s->variant_count; i++)
        if (strcmp(s->variants[i].name, name) == 0)
            return i;
    return -1;
}

bool has_row(const sweep *s, int variant, int64_t seed)
{
    for (int i = 0; i < s->row_count; i++)
        if (s->rows[i].variant == variant && s->rows[i].seed == seed)
            return true;
    return false;
}

/* ---- reading what is there ---- */

/* The field's text, and where the next begins; the last ends with the line. */
static char *field(char **at)
{
    char *begin = *at;
    *at += strcspn(*at, ",\n");
    if (**at)
        *(*at)++ = 0;
    return begin;
}

static double number(char **at)
{
    const char *text = field(at);
    return *text ? strtod(text, NULL) : NAN;
}

static row parse(const sweep *s, char *line)
{
    enum { SETTINGS = 7 };
    row r = {.variant = variant_of(s, field(&line)), .seed = (int64_t)number(&line)};
    for (int i = 0; i < SETTINGS; i++)
        field(&line);
    r.parameters = (int64_t)number(&line);
    r.flops = number(&line);
    r.loss = number(&line);
    r.accuracy = number(&line);
    return r;
}

/* Rows up to the last line that ends; returns how many bytes these are. */
static int64_t read_rows(sweep *s, const char *path)
{
    char line[512];
    int64_t bytes = 0;
    FILE *f = fopen(path, "r");
    if (!f)
        die("%s cannot be read", path);
    for (int n = 0; fgets(line, sizeof line, f) && line[strlen(line) - 1] == '\n'; n++) {
        bytes += (int64_t)strlen(line);
        row r = n ? parse(s, line) : (row){0};
        if (n && (r.variant < 0 || has_row(s, r.variant, r.seed)))
            die("%s: line %d is of no run of this sweep, or of one that has a row", path, n + 1);
        if (n)
            s->rows[s->row_count++] = r;
    }
    fclose(f);
    return bytes;
}

void open_rows(sweep *s)
{
    s->rows = calloc((size_t)(s->variant_count * told.seeds) + 1, sizeof *s->rows);
    if (!s->rows)
        die("out of memory");
    char *path = path_in(s->folder, "runs.csv");
    if (told.resume && file_exists(path))
        csv_reopen(&s->table, s->folder, "runs.csv", header, read_rows(s, path));
    else
        csv_open(&s->table, s->folder, "runs.csv", header);
    free(path);
}

/* ---- writing ---- */

/* As it will be read again: a sweep that was resumed has the same means. */
static double as_written(double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.9g", value);
    return strtod(text, NULL);
}

void add_row(sweep *s, row r)
{
    const variant *v = &s->variants[r.variant];
    fprintf(s->table.file, "%s,%lld,%s,%lld,%lld,%lld,%s,%s,%lld,", v->name, (long long)r.seed, v->learner,
            (long long)tokens_of(v), (long long)set.inner_steps, (long long)set.inner_batch, v->norm,
            v->start, (long long)set.hidden);
    csv_row(&s->table, (double[]){(double)r.parameters, r.flops, r.loss, r.accuracy}, 4);
    csv_sync(&s->table);
    r.flops = as_written(r.flops);
    r.loss = as_written(r.loss);
    r.accuracy = as_written(r.accuracy);
    s->rows[s->row_count++] = r;
}

/* ---- over seeds ---- */

const row *first_row(const sweep *s, int variant)
{
    for (int i = 0; i < s->row_count; i++)
        if (s->rows[i].variant == variant)
            return &s->rows[i];
    return NULL;
}

bool over_seeds(const sweep *s, int variant, double *mean, double *deviation)
{
    double *values = calloc((size_t)s->row_count + 1, sizeof *values);
    int n = 0;
    if (!values)
        die("out of memory");
    for (int i = 0; i < s->row_count; i++)
        if (s->rows[i].variant == variant)
            values[n++] = s->rows[i].accuracy;
    mean_and_deviation(values, n, mean, deviation);
    free(values);
    return n > 0;
}
