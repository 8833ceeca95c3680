/* SPDX-License-Identifier: MIT
 *
 * lcgd_look.c - what the comparisons want of a decoder, by the names that its layers tell. */
#include <stdlib.h>
#include <string.h>

#include "lcgd.h"

enum { OUTPUT, QUERY, SCORES, WEIGHTS, SEEN };

static const char *const patterns[SEEN] = {"blocks.*.attention.output", "blocks.*.attention.queries",
                                           "blocks.*.attention.scores", "blocks.*.attention.weights"};

static float *floats(int64_t n)
{
    float *x = calloc((size_t)n + 1, sizeof *x);
    if (!x)
        die("out of memory");
    return x;
}

/* The last token's part of a layer: [B,width], [B,width], [B,heads,text], [B,told]. */
static mb_tensor last_token(int what, mb_tensor x, int64_t told)
{
    int64_t n = mb_dim(x, what == OUTPUT || what == QUERY ? 1 : 2), B = mb_dim(x, 0);
    if (what == OUTPUT || what == QUERY)
        return mb_reshape(mb_slice(x, 1, n - 1, 1, 1), MB_SHAPE(B, -1));
    mb_tensor row = mb_squeeze(mb_slice(x, 2, n - 1, 1, 1), 2); /* [B,heads,n] */
    if (what == SCORES)
        return mb_slice(row, 2, told, n - told, 1);
    return mb_slice(mb_sum(row, MB_AXES(1)), 1, 0, told, 1);
}

/* Copies layer l of each query from [count,size] to its place in the glimpses. */
static void spread(int what, const float *from, int l, int64_t size, int64_t count, glimpse *out)
{
    for (int64_t i = 0; i < count; i++) {
        float *const to[SEEN] = {out[i].output, out[i].query, out[i].scores, out[i].weights};
        memcpy(to[what] + l * size, from + i * size, (size_t)size * sizeof *from);
    }
}

static int32_t *prompts(const int32_t *told, int64_t told_count, const int32_t *queries, int64_t count,
                        int64_t text)
{
    int64_t n = told_count + text;
    int32_t *tokens = malloc((size_t)(count * n) * sizeof *tokens + 1);
    if (!tokens)
        die("out of memory");
    for (int64_t i = 0; i < count; i++) {
        if (told_count)
            memcpy(tokens + i * n, told, (size_t)told_count * sizeof *told);
        memcpy(tokens + i * n + told_count, queries + i * text, (size_t)text * sizeof *queries);
    }
    return tokens;
}

/* The label with the largest logit, of those after the words: [count]. */
static mb_tensor guesses(mb_tensor logits)
{
    int64_t n = mb_dim(logits, 1);
    mb_tensor last = mb_squeeze(mb_slice(logits, 1, n - 1, 1, 1), 1);
    return mb_argmax(mb_slice(last, 1, first_label(), vocabulary() - first_label(), 1), 1);
}

static void make(const decoder *d, int64_t told, int64_t text, int64_t count, glimpse *out)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = (glimpse){.layers = d->layers,
                           .width = d->width,
                           .heads = d->heads,
                           .text = text,
                           .told = told,
                           .output = floats(d->layers * d->width),
                           .query = floats(d->layers * d->width),
                           .scores = floats(d->layers * d->heads * text),
                           .weights = floats(d->layers * told)};
}

void look(const decoder *d, const int32_t *told, int64_t told_count, const int32_t *queries,
          const int32_t *labels, int64_t count, int64_t text, glimpse *out)
{
    mb_context *mb = d->embed.weight.ctx;
    mb_tensor seen[SEEN][MOST_LAYERS], wanted[SEEN * MOST_LAYERS + 1];
    mb_tap taps[SEEN];
    int n = 0;
    make(d, told_count, text, count, out);
    int32_t *tokens = prompts(told, told_count, queries, count, text), *guess = calloc((size_t)count + 1, 4);
    if (!guess)
        die("out of memory");
    mb_scope scope = mb_scope_begin(mb);
    for (int s = 0; s < SEEN; s++)
        taps[s] = mb_tap_collect(mb, patterns[s], seen[s], MOST_LAYERS);
    mb_tensor logits = decoder_apply(d, mb_from(mb, MB_INT32, MB_SHAPE(count, told_count + text), tokens));
    for (int s = 0; s < SEEN; s++)
        if (mb_tap_end(taps[s]) != d->layers)
            stop_at_error(mb);
    for (int s = 0; s < SEEN; s++)
        for (int l = 0; l < d->layers; l++)
            wanted[n++] = seen[s][l] = last_token(s, seen[s][l], told_count);
    wanted[n++] = guesses(logits);
    mb_eval(wanted, n); /* one flush for all */
    for (int s = 0; s < SEEN; s++)
        for (int l = 0; l < d->layers; l++) {
            int64_t size = mb_count(seen[s][l]);
            float *values = floats(size);
            mb_read(seen[s][l], values, (size_t)size * sizeof *values);
            spread(s, values, l, size / count, count, out);
            free(values);
        }
    mb_read(wanted[n - 1], guess, (size_t)count * sizeof *guess);
    for (int64_t i = 0; i < count; i++)
        out[i].right = guess[i] + first_label() == labels[i];
    mb_scope_end(scope);
    free(tokens);
    free(guess);
}

void glimpses_free(glimpse *g, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        free(g[i].output);
        free(g[i].query);
        free(g[i].scores);
        free(g[i].weights);
    }
}
