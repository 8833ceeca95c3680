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

/* Which of the candidates has the largest logit: [count]. */
static mb_tensor guesses(mb_tensor logits, const problem *p)
{
    int64_t n = mb_dim(logits, 1);
    mb_tensor last = mb_squeeze(mb_slice(logits, 1, n - 1, 1, 1), 1);
    mb_tensor ids = mb_from(logits.ctx, MB_INT32, MB_SHAPE(p->candidate_count), p->candidates);
    return mb_argmax(mb_take(last, ids, 1), 1);
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

/* Reads what was seen of a layer into its places. */
static void put(int what, mb_tensor seen, int l, int64_t count, glimpse *out)
{
    int64_t size = mb_count(seen);
    float *values = floats(size);
    mb_read(seen, values, (size_t)size * sizeof *values);
    spread(what, values, l, size / count, count, out);
    free(values);
}

/* `count` queries of one length, from number `first` on; all that is seen comes by one flush. */
static void look_at(const decoder *d, const problem *p, int64_t told, const int32_t *queries, int64_t first,
                    int64_t count, glimpse *out)
{
    mb_context *mb = d->embed.weight.ctx;
    mb_tensor seen[SEEN][MOST_LAYERS], wanted[SEEN * MOST_LAYERS + 1];
    mb_tap taps[SEEN];
    int n = 0;
    int64_t text = p->length[p->shots + first];
    make(d, told, text, count, out);
    int32_t *tokens = prompts(p->tokens, told, queries, count, text),
            *guess = calloc((size_t)count + 1, sizeof *guess);
    if (!guess)
        die("out of memory");
    for (int s = 0; s < SEEN; s++)
        taps[s] = mb_tap_collect(mb, patterns[s], seen[s], MOST_LAYERS);
    mb_tensor logits = decoder_apply(d, mb_from(mb, MB_INT32, MB_SHAPE(count, told + text), tokens));
    for (int s = 0; s < SEEN; s++)
        mb_tap_end(taps[s]);
    for (int s = 0; s < SEEN; s++)
        for (int l = 0; l < d->layers; l++)
            wanted[n++] = seen[s][l] = last_token(s, seen[s][l], told);
    wanted[n++] = guesses(logits, p);
    mb_eval(wanted, n);
    for (int s = 0; s < SEEN; s++)
        for (int l = 0; l < d->layers; l++)
            put(s, seen[s][l], l, count, out);
    mb_read(wanted[n - 1], guess, (size_t)count * sizeof *guess);
    stop_at_error(mb);
    for (int64_t i = 0; i < count; i++)
        out[i].right = p->candidates[guess[i]] == p->label[first + i];
    free(tokens);
    free(guess);
}

void look(const decoder *d, const problem *p, bool told, glimpse *out)
{
    const int64_t *length = p->length + p->shots;
    const int32_t *queries = p->tokens + p->told;
    for (int64_t i = 0, n; i < p->queries; i += n) {
        for (n = 1; i + n < p->queries && length[i + n] == length[i];)
            n++;
        mb_scope scope = mb_scope_begin(d->embed.weight.ctx);
        look_at(d, p, told ? p->told : 0, queries, i, n, out + i);
        mb_scope_end(scope);
        queries += n * length[i];
    }
}

void glimpses_free(glimpse *g, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        free(g[i].output);
        free(g[i].query);
        free(g[i].scores);
        free(g[i].weights);
        g[i] = (glimpse){0};
    }
}
