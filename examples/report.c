/* SPDX-License-Identifier: MIT
 *
 * report.c - measurements over the steps of a run, and the summary beside known numbers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

/* ---- series ---- */

void series_add(series *s, double step, double value)
{
    if (s->n == s->room) {
        s->room = s->room ? 2 * s->room : 64;
        s->step = realloc(s->step, (size_t)s->room * sizeof *s->step);
        s->value = realloc(s->value, (size_t)s->room * sizeof *s->value);
        if (!s->step || !s->value)
            die("out of memory");
    }
    s->step[s->n] = step;
    s->value[s->n++] = value;
}

void series_free(series *s)
{
    free(s->step);
    free(s->value);
    *s = (series){0};
}

double series_at(const series *s, double step)
{
    for (int i = 0; i < s->n; i++)
        if (s->step[i] == step)
            return s->value[i];
    return NAN;
}

double series_mean(const series *s, double until)
{
    double sum = 0;
    int n = 0;
    for (; n < s->n && s->step[n] < until; n++)
        sum += s->value[n];
    return n ? sum / n : NAN;
}

int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int n)
{
    if (n == 0)
        return NAN;
    double *sorted = malloc((size_t)n * sizeof *sorted);
    if (!sorted)
        die("out of memory");
    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_size);
    double middle = sorted[n / 2];
    free(sorted);
    return middle;
}

double series_median(const series *s, double until)
{
    int n = 0;
    while (n < s->n && s->step[n] < until)
        n++;
    return median(s->value, n);
}

double series_last(const series *s, int n)
{
    n = n < s->n ? n : s->n;
    return n > 0 ? median(s->value + s->n - n, n) : NAN;
}

void mean_and_deviation(const double *values, int n, double *mean, double *deviation)
{
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++)
        sum += values[i];
    *mean = n ? sum / n : NAN;
    for (int i = 0; i < n; i++)
        squares += (values[i] - *mean) * (values[i] - *mean);
    *deviation = n ? sqrt(squares / n) : NAN;
}

/* ---- summary ---- */

static int failures;

int summary_failures(void)
{
    return failures;
}

void summary_line(const char *what, double value, double deviation, const char *reference, double least,
                  double most)
{
    char here[48];
    bool low = !isnan(least) && !(value >= least), high = !isnan(most) && !(value <= most);
    if (isnan(deviation))
        snprintf(here, sizeof here, "%.4g", value);
    else
        snprintf(here, sizeof here, "%.4g (%.2g)", value, deviation);
    printf("  %-46s %-20s %-36s", what, here, reference);
    if (low || high)
        printf("NOT %s %.4g", low ? "at least" : "at most", low ? least : most);
    else if (!isnan(least) || !isnan(most))
        printf("ok");
    printf("\n");
    failures += low || high;
}
