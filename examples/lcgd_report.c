/* SPDX-License-Identifier: MIT
 *
 * lcgd_report.c - tables, and the summary beside the paper's numbers. A number of a seed is the mean over its
 * tasks and layers; means and deviations are over seeds. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lcgd.h"

/* ---- means ---- */

static double of_outcome(const outcome *o, int layers, int what, int layer)
{
    double sum = 0;
    if (what == ACCURACY)
        return o->accuracy;
    if (what == REC2FTP)
        return o->rec2ftp;
    if (layer >= 0)
        return o->by_layer[what][layer];
    for (int l = 0; l < layers; l++)
        sum += o->by_layer[what][l] / layers;
    return sum;
}

double of_trial(const trial *t, kind k, variant how, int rate, int what, int layer)
{
    double sum = 0;
    int n = 0;
    for (int i = 0; i < t->outcome_count; i++) {
        const outcome *o = &t->outcomes[i];
        double value = of_outcome(o, t->layers, what, layer);
        if (o->kind != k || o->how != how || o->rate != rate || isnan(value))
            continue;
        sum += value;
        n++;
    }
    return n ? sum / n : NAN;
}

double of_settings(const trial *t, kind k, double (*of)(const setting *))
{
    double sum = 0;
    int n = 0;
    for (int i = 0; i < t->setting_count; i++)
        if (t->settings[i].kind == k)
            sum += of(&t->settings[i]), n++;
    return n ? sum / n : NAN;
}

static double *numbers(const results *r)
{
    double *values = calloc((size_t)r->trial_count + 1, sizeof *values);
    if (!values)
        die("out of memory");
    return values;
}

/* Of the seeds that have the number; NaN where none has. */
static double mean_of(double *values, int n, double *deviation)
{
    double mean, unused;
    int left = 0;
    for (int i = 0; i < n; i++)
        if (!isnan(values[i]))
            values[left++] = values[i];
    mean_and_deviation(values, left, &mean, deviation ? deviation : &unused);
    return mean;
}

double over_seeds(const results *r, kind k, variant how, int rate, int what, int layer, double *deviation)
{
    double *values = numbers(r), mean;
    for (int i = 0; i < r->trial_count; i++)
        values[i] = of_trial(&r->trials[i], k, how, rate, what, layer);
    mean = mean_of(values, r->trial_count, deviation);
    free(values);
    return mean;
}

double settings_over_seeds(const results *r, kind k, double (*of)(const setting *), double *deviation)
{
    double *values = numbers(r), mean;
    for (int i = 0; i < r->trial_count; i++)
        values[i] = of_settings(&r->trials[i], k, of);
    mean = mean_of(values, r->trial_count, deviation);
    free(values);
    return mean;
}

int best_rate(const results *r, kind k, variant how)
{
    int best = 0;
    for (int q = 1; q < set.rates; q++)
        if (over_seeds(r, k, how, q, ACCURACY, -1, NULL) > over_seeds(r, k, how, best, ACCURACY, -1, NULL))
            best = q;
    return best;
}

double zero_shot(const setting *s)
{
    return s->zero;
}
double in_context(const setting *s)
{
    return s->icl;
}
static double noise(const setting *s)
{
    return s->noise;
}
static double noise_norm(const setting *s)
{
    return s->noise_norm;
}
static double two_noises(const setting *s)
{
    return s->two_noises;
}
static double two_noises_norm(const setting *s)
{
    return s->two_noises_norm;
}

/* ---- tables ---- */

static void write_training(const results *r)
{
    csv c = {0};
    csv_open(&c, r->folder, "training.csv", "seed,step,loss");
    for (int i = 0; i < r->trial_count; i++)
        for (int k = 0; k < r->trials[i].loss.n; k++)
            csv_row(
                &c,
                (double[]){(double)r->trials[i].seed, r->trials[i].loss.step[k], r->trials[i].loss.value[k]},
                3);
    csv_close(&c);
}

static void write_settings(const results *r)
{
    csv c = {0};
    csv_open(
        &c, r->folder, "prompts.csv",
        "model,seed,task,zero_shot,in_context,noise_SimAOU,noise_SimAOU_norm,two_noises_SimAOU,two_noises_"
        "SimAOU_norm");
    for (int i = 0; i < r->trial_count; i++)
        for (int k = 0; k < r->trials[i].setting_count; k++) {
            const setting *s = &r->trials[i].settings[k];
            fprintf(c.file, "%s,%lld,", kind_names[s->kind], (long long)r->trials[i].seed);
            csv_row(&c,
                    (double[]){(double)s->task, s->zero, s->icl, s->noise, s->noise_norm, s->two_noises,
                               s->two_noises_norm},
                    7);
        }
    csv_close(&c);
}

static void write_outcomes(const results *r)
{
    csv c = {0};
    csv_open(&c, r->folder, "tuning.csv",
             "model,variant,seed,task,rate,accuracy,rec2ftp,SimAOU,SimAOU_norm,SimAM,SimAM_D,alpha,Kendall");
    for (int i = 0; i < r->trial_count; i++)
        for (int k = 0; k < r->trials[i].outcome_count; k++) {
            const trial *t = &r->trials[i];
            const outcome *o = &t->outcomes[k];
            double row[4 + MEASURES + 1] = {(double)t->seed, (double)o->task, rate_of(o->rate), o->accuracy,
                                            o->rec2ftp};
            for (int m = 0; m < MEASURES; m++)
                row[5 + m] = of_outcome(o, t->layers, m, -1);
            fprintf(c.file, "%s,%s,", kind_names[o->kind], variant_names[o->how]);
            csv_row(&c, row, 5 + MEASURES);
        }
    csv_close(&c);
}

/* Means over seeds: of all layers, and by layer. */
static void write_means(const results *r, bool by_layer)
{
    csv c = {0};
    csv_open(
        &c, r->folder, by_layer ? "layers.csv" : "means.csv",
        by_layer
            ? "model,variant,rate,layer,SimAOU,SimAOU_norm,SimAM,SimAM_D,alpha,Kendall"
            : "model,variant,rate,SimAOU,SimAOU_norm,SimAM,SimAM_D,alpha,Kendall,accuracy,rec2ftp,SimAOU_"
              "std,SimAOU_norm_std,SimAM_std,SimAM_D_std,alpha_std,Kendall_std,accuracy_std,rec2ftp_std");
    for (int k = 0; k < KINDS; k++)
        for (int v = 0; v < variants_of((kind)k); v++)
            for (int q = 0; q < set.rates; q++)
                for (int l = by_layer ? 0 : -1; l < (by_layer ? r->trials[0].layers : 0); l++) {
                    double row[2 + 2 * WHATS] = {rate_of(q), l};
                    int at = by_layer ? 2 : 1, whats = by_layer ? MEASURES : WHATS;
                    for (int w = 0; w < whats; w++)
                        row[at + w] = over_seeds(r, (kind)k, (variant)v, q, w, l, &row[1 + whats + w]);
                    fprintf(c.file, "%s,%s,", kind_names[k], variant_names[v]);
                    csv_row(&c, row, by_layer ? 2 + MEASURES : 1 + 2 * WHATS);
                }
    csv_close(&c);
}

/* Mean over seeds and tasks at the rate that suits vanilla descent; NaN where there is none. */
static double mean_norm(const results *r, variant how, int rate, int64_t at)
{
    double sum = 0;
    int n = 0;
    for (int i = 0; i < r->trial_count; i++)
        for (int k = 0; k < r->trials[i].outcome_count; k++) {
            const outcome *o = &r->trials[i].outcomes[k];
            if (o->kind == TRAINED && o->how == how && o->rate == rate)
                sum += (double)o->norms[at], n++;
        }
    return n ? sum / n : NAN;
}

static void write_norms(const results *r)
{
    csv c = {0};
    csv_open(&c, r->folder, "gradients.csv", "variant,layer,demonstration,norm");
    for (int v = 0; v < VARIANTS; v++)
        for (int64_t l = 0; l < r->trials[0].layers; l++)
            for (int64_t i = 0; i < set.shots; i++) {
                fprintf(c.file, "%s,%lld,%lld,", variant_names[v], (long long)l, (long long)i);
                csv_row(&c,
                        (double[]){mean_norm(r, (variant)v, best_rate(r, TRAINED, GD), l * set.shots + i)},
                        1);
            }
    csv_close(&c);
}

void write_tables(const results *r)
{
    write_training(r);
    write_settings(r);
    write_outcomes(r);
    write_means(r, false);
    write_means(r, true);
    write_norms(r);
}

/* ---- summary ---- */

static void accuracies(const results *r, int rate)
{
    double d, zero = settings_over_seeds(r, TRAINED, zero_shot, &d), icl;
    char text[64];
    bool toy = !*set.weights; /* of others' models nothing is known beforehand */
    summary_line("accuracy zero-shot", zero, d, "SST2 0.705, AGNews 0.463", NAN, NAN);
    icl = settings_over_seeds(r, TRAINED, in_context, &d);
    summary_line("  in context", icl, d, "SST2 0.927, AGNews 0.792", toy ? zero + 0.3 : NAN, NAN);
    for (int v = 0; v < VARIANTS; v++) {
        snprintf(text, sizeof text, "  tuned by %s", variant_names[v]);
        double got = over_seeds(r, TRAINED, (variant)v, rate, ACCURACY, -1, &d);
        summary_line(text, got, d, v == GD ? "SST2 0.739, AGNews 0.653" : "",
                     v == GD && toy ? zero + 0.1 : NAN, NAN);
    }
    summary_line("Rec2FTP", over_seeds(r, TRAINED, GD, rate, REC2FTP, -1, &d), d, "Dai et al. 0.856", NAN,
                 NAN);
}

/* Its table 2, and text for alpha and Kendall. */
static void measures(const results *r, int rate)
{
    static const char *const known[VARIANTS][MEASURES] = {
        [GD] = {".05 to .18, mean .102", ".09 to .31, mean .187", ".20 to .59, mean .435",
                ".14 to .50, mean .267", "", "Dai et al. .193"},
        [LCGD] = {".11 to .24, mean .167", ".11 to .35, mean .279", ".04 to .58, mean .283",
                  ".26 to .43, mean .336", ".1 to .2", ""},
        [LCGD_TEXT] = {"", "", "", "", "", ""},
    };
    for (int m = 0; m < MEASURES; m++)
        for (int v = 0; v < VARIANTS; v++) {
            char text[64];
            double d, value = over_seeds(r, TRAINED, (variant)v, rate, m, -1, &d);
            snprintf(text, sizeof text, "%-11s %s", v > (m == ALPHA) ? "" : measure_names[m],
                     variant_names[v]);
            if (!isnan(value))
                summary_line(text, value, d, known[v][m], -1, 1);
        }
}

/* In how many seeds the layer-causal form is ahead. */
static void ahead(const results *r, int rate, int what)
{
    double *values = numbers(r), d, mean;
    char text[64], seeds[64];
    int up = 0;
    for (int i = 0; i < r->trial_count; i++) {
        const trial *t = &r->trials[i];
        values[i] = of_trial(t, TRAINED, LCGD, rate, what, -1) - of_trial(t, TRAINED, GD, rate, what, -1);
        up += values[i] > 0;
    }
    mean = mean_of(values, r->trial_count, &d);
    snprintf(text, sizeof text, "%s, lcgd minus gd", measure_names[what]);
    snprintf(seeds, sizeof seeds, "more in %d of %d seeds; paper %s", up, r->trial_count,
             what == AOU ? "+.065" : "+.069");
    summary_line(text, mean, d, seeds, NAN, NAN);
    free(values);
}

static void baselines(const results *r)
{
    static const char *const known[KINDS] = {".05 to .17", ".06 to .24", ".06 to .18"};
    for (int k = 0; k < KINDS; k++) {
        char text[64];
        int rate = best_rate(r, (kind)k, GD);
        double d, value = over_seeds(r, (kind)k, GD, rate, AOU, -1, &d);
        snprintf(text, sizeof text, "SimAOU gd, %s, at rate %.2g", kind_names[k], rate_of(rate));
        summary_line(text, value, d, known[k], -1, 1);
    }
    double d, value = settings_over_seeds(r, TRAINED, noise, &d);
    summary_line("SimAOU of uniform noise", value, d, "Dai et al. .002", -0.15, 0.15);
    value = settings_over_seeds(r, TRAINED, noise_norm, &d);
    summary_line("  normalised", value, d, "", NAN, NAN);
    value = settings_over_seeds(r, TRAINED, two_noises, &d);
    summary_line("SimAOU of two noises, 3 times the square", value, d, "0", -0.03, 0.03);
    value = settings_over_seeds(r, TRAINED, two_noises_norm, &d);
    summary_line("  normalised", value, d, "1/4", 0.22, 0.28);
}

void print_summary(const results *r)
{
    int rate = best_rate(r, TRAINED, GD);
    printf("Learning rate %.3g, with which gd is most accurate; means over %d seeds (deviation).\n",
           rate_of(rate), r->trial_count);
    if (!*set.weights)
        printf("The paper's are of a decoder of 1.3 billion parameters, on text: it has learned more of what "
               "a prompt asks than\n"
               "of how to answer, and its last layers write words. Here few layers do all of it, a query has "
               "%lld words, and\n"
               "demonstrations are all that tells a label: attention maps are short, and signs count more "
               "than sizes.\n",
               (long long)set.text);
    printf("  %-46s %-20s %s\n", "", "here", "there");
    accuracies(r, rate);
    measures(r, rate);
    ahead(r, rate, AOU);
    ahead(r, rate, AM_D);
    baselines(r);
}
