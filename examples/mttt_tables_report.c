/* SPDX-License-Identifier: MIT
 *
 * mttt_tables_report.c - the tables, in the paper's layout and beside its numbers, and the summary. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mttt_tables.h"

/* ---- numbers ---- */

/* Of a forward pass, in those of linear attention on patches. */
static double relative_flops(const sweep *s, int variant)
{
    int unit = variant_of(s, "linear-attention");
    const row *r = first_row(s, variant), *one = unit < 0 ? NULL : first_row(s, unit);
    return r && one ? r->flops / one->flops : NAN;
}

static double accuracy_of(const sweep *s, const char *name, double *deviation)
{
    double mean = NAN;
    int v = variant_of(s, name);
    *deviation = NAN;
    if (v >= 0)
        over_seeds(s, v, &mean, deviation);
    return 100 * mean;
}

/* ---- tables ---- */

static void write_learners(const sweep *s)
{
    csv c = {0};
    csv_open(&c, s->folder, "learners.csv", "learner,parameters,relative_flops,accuracy,std,imagenet");
    for (int i = 0; i < s->variant_count; i++) {
        double mean, deviation;
        if (!is_in(&s->variants[i], LEARNERS) || !over_seeds(s, i, &mean, &deviation))
            continue;
        fprintf(c.file, "%s,", s->variants[i].title);
        csv_row(&c,
                (double[]){(double)first_row(s, i)->parameters, relative_flops(s, i), 100 * mean,
                           100 * deviation, s->variants[i].imagenet},
                5);
    }
    csv_close(&c);
}

static void write_ablation(const sweep *s)
{
    csv c = {0};
    csv_open(&c, s->folder, "ablation.csv", "decoder_norm,learned_start,accuracy,std,imagenet");
    for (int i = 0; i < s->variant_count; i++) {
        const variant *v = &s->variants[i];
        double mean, deviation;
        if (!is_in(v, ABLATION) || !over_seeds(s, i, &mean, &deviation))
            continue;
        fprintf(c.file, "%s,%s,", v->norm, v->start);
        csv_row(&c, (double[]){100 * mean, 100 * deviation, v->imagenet}, 3);
    }
    csv_close(&c);
}

/* T = 1 belongs to both curves: a mini-batch of all tokens is all tokens. */
static void write_steps(const sweep *s)
{
    csv c = {0};
    csv_open(&c, s->folder, "steps.csv", "tokens_of_a_step,inner_steps,accuracy,std");
    for (int parts = 0; parts < 2; parts++)
        for (int64_t T = 0; T <= 1000; T++)
            for (int i = 0; i < s->variant_count; i++) {
                const variant *v = &s->variants[i];
                double mean, deviation;
                bool here = parts ? v->parts > 1 || v->inner_steps == 1 : v->parts == 1;
                if (!is_in(v, STEPS) || !here || v->inner_steps != T || !over_seeds(s, i, &mean, &deviation))
                    continue;
                fprintf(c.file, "%s,", parts ? "N/T" : "N");
                csv_row(&c, (double[]){(double)T, 100 * mean, 100 * deviation}, 3);
            }
    csv_close(&c);
}

static void write_pixels(const sweep *s)
{
    csv c = {0};
    csv_open(&c, s->folder, "pixels.csv",
             "learner,relative_flops,pixels,pixels_std,imagenet_pixels,patches,patches_std,imagenet_patches");
    for (int i = 0; i < s->variant_count; i++) {
        const variant *v = &s->variants[i];
        double mean, deviation, patches, of_patches;
        if (!v->pixels || !over_seeds(s, i, &mean, &deviation))
            continue;
        const char *same = v->name + strlen("pixels-");
        int other = variant_of(s, same), unit = variant_of(s, "pixels-linear-attention");
        patches = accuracy_of(s, same, &of_patches);
        fprintf(c.file, "%s,", v->title);
        csv_row(&c,
                (double[]){first_row(s, unit) ? first_row(s, i)->flops / first_row(s, unit)->flops : NAN,
                           100 * mean, 100 * deviation, v->imagenet, patches, 100 * of_patches,
                           other < 0 ? NAN : s->variants[other].imagenet},
                7);
    }
    csv_close(&c);
}

/* ---- inner losses ---- */

typedef struct inner_row {
    double step;
    int block, inner_step;
    double loss;
} inner_row;

/* All of a run's, n of them, which the caller frees; none of a learner without. */
static inner_row *read_inner(const sweep *s, const row *r, int *n)
{
    char *folder = folder_of(s, &s->variants[r->variant], r->seed), *path = path_in(folder, "inner_loss.csv"),
         line[256];
    inner_row *rows = NULL, one;
    int room = 0;
    *n = 0;
    FILE *f = fopen(path, "r");
    for (bool head = true; f && fgets(line, sizeof line, f); head = false) {
        if (head || sscanf(line, "%lf,%d,%d,%lf", &one.step, &one.block, &one.inner_step, &one.loss) != 4)
            continue;
        if (*n == room && !(rows = realloc(rows, (size_t)(room = room ? 2 * room : 256) * sizeof *rows)))
            die("out of memory");
        rows[(*n)++] = one;
    }
    if (f)
        fclose(f);
    free(path);
    free(folder);
    return rows;
}

static void write_inner(const sweep *s)
{
    csv c = {0};
    csv_open(&c, s->folder, "inner.csv", "run,seed,step,block,inner_step,loss");
    for (int i = 0; i < s->row_count; i++) {
        int n;
        inner_row *rows = read_inner(s, &s->rows[i], &n);
        for (int k = 0; k < n; k++) {
            if (rows[k].step != rows[0].step && rows[k].step != rows[n - 1].step)
                continue;
            fprintf(c.file, "%s,%lld,", s->variants[s->rows[i].variant].name, (long long)s->rows[i].seed);
            csv_row(&c, (double[]){rows[k].step, rows[k].block, rows[k].inner_step, rows[k].loss}, 4);
        }
        free(rows);
    }
    csv_close(&c);
}

/* How often, over the rows of a trained learner's table, an inner step with all tokens has raised its loss.
 */
static int inner_rises(const sweep *s, int64_t *steps)
{
    int rises = 0;
    *steps = 0;
    for (int i = 0; i < s->row_count; i++) {
        int n;
        const variant *v = &s->variants[s->rows[i].variant];
        inner_row *rows = read_inner(s, &s->rows[i], &n);
        for (int k = 1; k < n && v->parts == 1 && is_in(v, STEPS); k++) {
            if (rows[k].inner_step == 0 || rows[k].step != rows[n - 1].step)
                continue;
            rises += !(rows[k].loss < rows[k - 1].loss);
            ++*steps;
        }
        free(rows);
    }
    return rises;
}

void write_tables(const sweep *s)
{
    void (*const write[TABLES])(const sweep *) = {write_learners, write_ablation, write_steps, write_pixels};
    for (int t = 0; t < TABLES; t++)
        if (is_asked_for((table)t))
            write[t](s);
    write_inner(s);
}

/* ---- summary ---- */

/* How far a difference of two means may be off by chance, in points: twice its standard error, and half a
 * point of the test images; allowances where one seed says nothing of that, the larger for a quick sweep's
 * few images. */
static double noise(double a, double b)
{
    double seeds = (double)told.seeds;
    if (told.quick || told.seeds == 1)
        return told.quick ? 8 : 3;
    bool known = !isnan(a) && !isnan(b); /* where a mean is no number, nothing is right */
    return (known ? 2 * 100 * hypot(a, b) / sqrt(seeds - 1) : 0) + 0.5;
}

static void accuracy_line(const sweep *s, int variant)
{
    double mean, deviation;
    char beside[64] = "";
    const struct variant *v = &s->variants[variant];
    if (!over_seeds(s, variant, &mean, &deviation))
        return;
    if (!isnan(v->imagenet))
        snprintf(beside, sizeof beside, "ImageNet %.1f", v->imagenet);
    summary_line(*v->title ? v->title : v->name, 100 * mean, 100 * deviation, beside, NAN, NAN);
}

/* a - b, of two kinds of run, beside the paper's. checked: it should be 0 or more, but for chance: what is
 * one function begins from other values here and there, so it may be better, too. */
static void difference_line(const sweep *s, const char *what, const char *a, const char *b, bool checked)
{
    double da, db, difference = accuracy_of(s, a, &da) - accuracy_of(s, b, &db);
    char beside[64] = "";
    int va = variant_of(s, a), vb = variant_of(s, b);
    if (va < 0 || vb < 0 || !first_row(s, va) || !first_row(s, vb))
        return;
    double paper = s->variants[va].imagenet - s->variants[vb].imagenet;
    if (!isnan(paper))
        snprintf(beside, sizeof beside, "ImageNet %+.1f", paper);
    summary_line(what, difference, NAN, beside, checked ? -noise(da, db) : NAN, NAN);
}

static void differences(const sweep *s)
{
    printf("differences, in points\n");
    difference_line(s, "MTTT-MLP - linear attention", "mlp", "linear-attention", true);
    difference_line(s, "  of as many parameters", "mlp", "linear-attention-wide", false);
    difference_line(s, "MTTT-Linear - linear attention, its function", "linear", "linear-attention", true);
    difference_line(s, "kernel learner - softmax attention, its function", "kernel", "softmax", true);
    difference_line(s, "decoder norm, with a learned start", "mlp", "mlp-norm-no-start-learned", true);
    difference_line(s, "learned start, with a decoder norm", "mlp", "mlp-norm-yes-start-frozen", true);
    difference_line(s, "four inner steps - one", "mlp-4-steps", "mlp", true);
    difference_line(s, "one inner step - none", "mlp", "mlp-0-steps", true);
    difference_line(s, "pixels: MTTT-MLP - linear attention", "pixels-mlp", "pixels-linear-attention",
                    !told.quick);
    difference_line(s, "pixels: four mini-batches - one", "pixels-mlp-4-parts", "pixels-mlp", false);
}

void print_summary(const sweep *s)
{
    static const char *const titles[TABLES] = {"learners, patches", "decoder norm and learned start",
                                               "inner steps", "raw pixels"};
    printf("  %-46s %-20s %s\n", "accuracy, %", "here, mean (std)", "there");
    for (int t = 0; t < TABLES; t++) {
        if (!is_asked_for((table)t))
            continue;
        printf("%s\n", titles[t]);
        for (int i = 0; i < s->variant_count; i++)
            if (t == PIXELS ? s->variants[i].pixels : is_in(&s->variants[i], t))
                accuracy_line(s, i);
    }
    differences(s);
    int64_t steps;
    int rises = inner_rises(s, &steps);
    if (steps)
        summary_line("inner steps that raised their loss, at the end", rises, NAN, "0", NAN, 0);
}
