/* SPDX-License-Identifier: MIT
 *
 * lcgd_measure.c - how alike are what demonstrations in the prompt do to a model's activations, and what
 * tuning on them does. */
#include <math.h>
#include <stdlib.h>

#include "lcgd.h"

const char *const measure_names[MEASURES] = {"SimAOU", "SimAOU_norm", "SimAM", "SimAM_D", "alpha", "Kendall"};

static double norm(const float *a, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * a[i];
    return sqrt(sum);
}

static double scale_of(const float *a, int64_t n, bool unit)
{
    double size = a && unit ? norm(a, n) : 1;
    return size > 0 ? 1 / size : 0;
}

double update_cosine(const float *a, const float *a0, const float *b, const float *b0, int64_t n, bool unit)
{
    double ca = scale_of(a, n, unit), ca0 = scale_of(a0, n, unit), cb = scale_of(b, n, unit),
           cb0 = scale_of(b0, n, unit), dot = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < n; i++) {
        double x = ca * a[i] - (a0 ? ca0 * a0[i] : 0), y = cb * b[i] - (b0 ? cb0 * b0[i] : 0);
        dot += x * y;
        aa += x * x;
        bb += y * y;
    }
    return aa > 0 && bb > 0 ? dot / sqrt(aa) / sqrt(bb) : 0;
}

double kendall(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < i; j++) {
            double x = (a[i] > a[j]) - (a[i] < a[j]), y = (b[i] > b[j]) - (b[i] < b[j]);
            sum += x * y;
        }
    return n > 1 ? sum / ((double)n * (double)(n - 1) / 2) : NAN;
}

/* Attention to the demonstrations' tokens, in the prompt and by what they left in the weights: the sum over
 * heads of the products of queries, which is that of the heads side by side. */
static double attention_ranks(const glimpse *icl, const glimpse *tuned, const tuning *t, int l)
{
    int64_t n = icl->told, width = icl->width;
    double *a = calloc(2 * (size_t)n + 1, sizeof *a), *b = a + n, tau;
    if (!a)
        die("out of memory");
    for (int64_t i = 0; i < n; i++) {
        const float *q = t->queries + (l * n + i) * width;
        a[i] = icl->weights[l * n + i];
        for (int64_t k = 0; k < width; k++)
            b[i] += (double)q[k] * tuned->query[l * width + k];
    }
    tau = kendall(a, b, n);
    free(a);
    return tau;
}

/* Mean over heads of a layer. Any may be NULL: zeros. */
static double maps(const glimpse *a, const glimpse *a0, const glimpse *b, const glimpse *b0, int l)
{
    double sum = 0;
    for (int64_t h = 0; h < a->heads; h++) {
        int64_t at = (l * a->heads + h) * a->text;
        sum += update_cosine(a->scores + at, a0 ? a0->scores + at : NULL, b->scores + at,
                             b0 ? b0->scores + at : NULL, a->text, false);
    }
    return sum / (double)a->heads;
}

void measure_all(const glimpse *zero, const glimpse *icl, const glimpse *tuned, const glimpse *gd,
                 const tuning *t, int64_t count, double out[MEASURES][MOST_LAYERS])
{
    for (int l = 0; l < zero->layers; l++) {
        double sum[MEASURES] = {0};
        for (int64_t i = 0; i < count; i++) {
            const glimpse *z = &zero[i], *c = &icl[i], *f = &tuned[i];
            int64_t at = l * z->width;
            const float *hz = z->output + at, *hc = c->output + at, *hf = f->output + at;
            sum[AOU] += update_cosine(hc, hz, hf, hz, z->width, false);
            sum[AOU_NORM] += update_cosine(hc, hz, hf, hz, z->width, true);
            sum[AM] += maps(c, NULL, f, NULL, l);
            sum[AM_D] += maps(c, z, f, z, l);
            sum[ALPHA] += gd ? maps(f, z, &gd[i], z, l) : NAN;
            sum[KENDALL] += attention_ranks(c, f, t, l);
        }
        for (int m = 0; m < MEASURES; m++)
            out[m][l] = sum[m] / (double)count;
    }
}

/* Uniform on [0, 1): a linear congruential generator will do (Knuth's MMIX). */
static double uniform(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) * 0x1p-53;
}

void measure_noise(const glimpse *zero, const glimpse *icl, int64_t count, uint64_t seed, double *aou,
                   double *aou_norm)
{
    int64_t n = zero->width, numbers = zero->layers * count;
    float *noisy = calloc((size_t)n + 1, sizeof *noisy);
    if (!noisy)
        die("out of memory");
    *aou = *aou_norm = 0;
    for (int64_t k = 0; k < numbers; k++) {
        const float *z = zero[k % count].output + k / count * n, *c = icl[k % count].output + k / count * n;
        for (int64_t i = 0; i < n; i++)
            noisy[i] = z[i] + (float)uniform(&seed);
        *aou += update_cosine(c, z, noisy, z, n, false) / (double)numbers;
        *aou_norm += update_cosine(c, z, noisy, z, n, true) / (double)numbers;
    }
    free(noisy);
}

static double normal(uint64_t *state)
{
    double u = uniform(state), v = uniform(state);
    return sqrt(-2 * log(1 - u)) * cos(2 * acos(-1) * v);
}

/* z and a normal vector of sqrt(3) times its norm. */
static void moved(const float *z, int64_t n, uint64_t *state, float *to)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)normal(state);
    double by = sqrt(3) * norm(z, n) / norm(to, n);
    for (int64_t i = 0; i < n; i++)
        to[i] = z[i] + (float)by * to[i];
}

void measure_two_noises(const glimpse *zero, int64_t count, uint64_t seed, double *aou, double *aou_norm)
{
    int64_t n = zero->width, numbers = zero->layers * count;
    float *both = calloc(2 * (size_t)n + 1, sizeof *both);
    if (!both)
        die("out of memory");
    *aou = *aou_norm = 0;
    for (int64_t k = 0; k < numbers; k++) {
        const float *z = zero[k % count].output + k / count * n;
        moved(z, n, &seed, both);
        moved(z, n, &seed, both + n);
        *aou += update_cosine(both, z, both + n, z, n, false) / (double)numbers;
        *aou_norm += update_cosine(both, z, both + n, z, n, true) / (double)numbers;
    }
    free(both);
}

double rec2ftp(const glimpse *zero, const glimpse *icl, const glimpse *tuned, int64_t count)
{
    int beyond = 0, both = 0;
    for (int64_t i = 0; i < count; i++) {
        beyond += tuned[i].right && !zero[i].right;
        both += tuned[i].right && !zero[i].right && icl[i].right;
    }
    return beyond ? (double)both / beyond : NAN;
}

double accuracy(const glimpse *g, int64_t count)
{
    int right = 0;
    for (int64_t i = 0; i < count; i++)
        right += g[i].right;
    return (double)right / (double)count;
}
