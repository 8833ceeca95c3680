/* SPDX-License-Identifier: MIT
 *
 * lcgd_public_test.c - examples/lcgd on a model of others: the weights of a tiny random GPT-2 against its
 * equations in plain C, and a byte-pair vocabulary against pieces by hand. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "examples/lcgd.h"
#include "support.h"

static char *temporary(const char *name)
{
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    const char *folder = getenv("TMPDIR");
    snprintf(path, 256, "%s/mb-lcgd-%ld-%s", folder ? folder : "/tmp", (long)getpid(), name);
    return path;
}

/* ---- weights ---- */

enum { V = 12, D = 8, H = 2, LAYERS = 2, CONTEXT = 6, HIDDEN = 4 * D, TENSORS = 4 + 12 * LAYERS };

/* The tensors of a block, in the order of `block_tensors`. */
enum { LN1, LN1_B, QKV, QKV_B, OUT, OUT_B, LN2, LN2_B, UP, UP_B, DOWN, DOWN_B };
static const struct {
    const char *name;
    int rows, columns; /* rows 0: a vector */
} block_tensors[12] = {
    {"ln_1.weight", 0, D},
    {"ln_1.bias", 0, D},
    {"attn.c_attn.weight", D, 3 * D},
    {"attn.c_attn.bias", 0, 3 * D},
    {"attn.c_proj.weight", D, D},
    {"attn.c_proj.bias", 0, D},
    {"ln_2.weight", 0, D},
    {"ln_2.bias", 0, D},
    {"mlp.c_fc.weight", D, HIDDEN},
    {"mlp.c_fc.bias", 0, HIDDEN},
    {"mlp.c_proj.weight", HIDDEN, D},
    {"mlp.c_proj.bias", 0, D},
};

typedef struct tiny {
    float wte[V * D], wpe[CONTEXT * D], lnf[D], lnf_b[D];
    float block[LAYERS][12][D * HIDDEN];
} tiny;

static void fill(float *x, int n, unsigned *seed)
{
    for (int i = 0; i < n; i++)
        x[i] = (float)((*seed = *seed * 1664525u + 1013904223u) >> 8) / (float)(1 << 24) - 0.5f;
}

static mb_tensor matrix(mb_context *mb, const float *x, int rows, int columns)
{
    return mb_from(mb, MB_FLOAT32, rows ? MB_SHAPE(rows, columns) : MB_SHAPE(columns), x);
}

/* A file with the names that GPT-2's has. */
static tiny *write_weights(const char *path, const char *prefix)
{
    static tiny t;
    static char names[TENSORS][64];
    const char *list[TENSORS];
    mb_tensor ts[TENSORS];
    mb_context *mb = open_on("cpu");
    unsigned seed = 1;
    int n = 0;
    fill(t.wte, V * D, &seed), fill(t.wpe, CONTEXT * D, &seed), fill(t.lnf, D, &seed),
        fill(t.lnf_b, D, &seed);
    ts[n] = matrix(mb, t.wte, V, D), snprintf(names[n++], 64, "%swte.weight", prefix);
    ts[n] = matrix(mb, t.wpe, CONTEXT, D), snprintf(names[n++], 64, "%swpe.weight", prefix);
    ts[n] = matrix(mb, t.lnf, 0, D), snprintf(names[n++], 64, "%sln_f.weight", prefix);
    ts[n] = matrix(mb, t.lnf_b, 0, D), snprintf(names[n++], 64, "%sln_f.bias", prefix);
    for (int l = 0; l < LAYERS; l++)
        for (int k = 0; k < 12; k++) {
            fill(t.block[l][k], D * HIDDEN, &seed);
            ts[n] = matrix(mb, t.block[l][k], block_tensors[k].rows, block_tensors[k].columns);
            snprintf(names[n++], 64, "%sh.%d.%s", prefix, l, block_tensors[k].name);
        }
    for (int i = 0; i < n; i++)
        list[i] = names[i];
    expect(mb_safetensors_save(mb, path, list, ts, n, NULL) == MB_OK, "%s", mb_message(mb));
    return &t;
}

static void normed(const double *x, const float *scale, const float *bias, double *y)
{
    double mean = 0, variance = 0;
    for (int i = 0; i < D; i++)
        mean += x[i] / D;
    for (int i = 0; i < D; i++)
        variance += (x[i] - mean) * (x[i] - mean) / D;
    for (int i = 0; i < D; i++)
        y[i] = (x[i] - mean) / sqrt(variance + 1e-5) * scale[i] + bias[i];
}

/* y = x W + b */
static void times(const double *x, const float *w, const float *b, int in, int out, double *y)
{
    for (int j = 0; j < out; j++) {
        y[j] = b[j];
        for (int i = 0; i < in; i++)
            y[j] += x[i] * w[i * out + j];
    }
}

static void attend(double qkv[][3 * D], int n, double y[][D])
{
    const int dh = D / H;
    for (int i = 0; i < n; i++)
        for (int h = 0; h < H; h++) {
            double weight[CONTEXT], sum = 0;
            for (int j = 0; j <= i; j++) {
                double s = 0;
                for (int k = 0; k < dh; k++)
                    s += qkv[i][h * dh + k] * qkv[j][D + h * dh + k];
                sum += weight[j] = exp(s / sqrt(dh));
            }
            for (int k = 0; k < dh; k++) {
                y[i][h * dh + k] = 0;
                for (int j = 0; j <= i; j++)
                    y[i][h * dh + k] += weight[j] / sum * qkv[j][2 * D + h * dh + k];
            }
        }
}

static void block(float w[12][D * HIDDEN], double x[][D], int n)
{
    double qkv[CONTEXT][3 * D], mixed[CONTEXT][D], a[D], hidden[HIDDEN], y[D];
    for (int i = 0; i < n; i++) {
        normed(x[i], w[LN1], w[LN1_B], a);
        times(a, w[QKV], w[QKV_B], D, 3 * D, qkv[i]);
    }
    attend(qkv, n, mixed);
    for (int i = 0; i < n; i++) {
        times(mixed[i], w[OUT], w[OUT_B], D, D, y);
        for (int k = 0; k < D; k++)
            x[i][k] += y[k];
        normed(x[i], w[LN2], w[LN2_B], a);
        times(a, w[UP], w[UP_B], D, HIDDEN, hidden);
        for (int k = 0; k < HIDDEN; k++) {
            double u = hidden[k];
            hidden[k] = u / 2 * (1 + tanh(sqrt(2 / acos(-1)) * (u + 0.044715 * u * u * u)));
        }
        times(hidden, w[DOWN], w[DOWN_B], HIDDEN, D, y);
        for (int k = 0; k < D; k++)
            x[i][k] += y[k];
    }
}

static void forward(tiny *t, const int32_t *tokens, int n, double logits[][V])
{
    double x[CONTEXT][D], a[D];
    for (int i = 0; i < n; i++)
        for (int k = 0; k < D; k++)
            x[i][k] = (double)t->wte[tokens[i] * D + k] + t->wpe[i * D + k];
    for (int l = 0; l < LAYERS; l++)
        block(t->block[l], x, n);
    for (int i = 0; i < n; i++) {
        normed(x[i], t->lnf, t->lnf_b, a);
        for (int v = 0; v < V; v++) {
            logits[i][v] = 0;
            for (int k = 0; k < D; k++)
                logits[i][v] += a[k] * t->wte[v * D + k];
        }
    }
}

Test(lcgd_public, a_tiny_gpt2)
{
    static const int32_t tokens[5] = {3, 11, 0, 3, 7};
    for (int b = 0; b < 2; b++)
        for (int long_names = 0; long_names < 2; long_names++) {
            double wanted[CONTEXT][V];
            set.weights = temporary("weights.safetensors");
            set.heads = H;
            tiny *t = write_weights(set.weights, long_names ? "transformer." : "");
            mb_context *mb = open_on(backend_names[b]);
            decoder_shape s = public_shape(mb);
            expect(s.layers == LAYERS && s.width == D && s.heads == H && s.vocabulary == V &&
                       s.context == CONTEXT,
                   "shape");
            mb_params *p = mb_params_new(mb, 1);
            decoder d = decoder_new(p, &s);
            public_weights(&d, p);
            forward(t, tokens, 5, wanted);
            const double *got = values(decoder_apply(&d, mb_from(mb, MB_INT32, MB_SHAPE(1, 5), tokens)));
            for (int i = 0; i < 5 * V; i++) /* float32 through two layers, of sums of up to 32 products */
                expect(fabs(got[i] - wanted[i / V][i % V]) < 2e-5, "%d: %g, not %g", i, got[i],
                       wanted[i / V][i % V]);
            mb_params_free(p);
            unlink(set.weights);
            close_all();
        }
}

/* ---- words ---- */

/* A character in JSON. */
static void write_character(FILE *f, int c)
{
    if (c == '"' || c == '\\' || c > 126)
        fprintf(f, "\\u%04x", c);
    else
        fputc(c, f);
}

/* What stands for a byte: from memory of the published encoder, the first one that does not print is 0x100.
 */
static int character_of(int byte)
{
    if (byte <= 32)
        return 0x100 + byte;
    if (byte < 127 || (byte > 160 && byte != 173))
        return byte;
    return byte == 173 ? 0x143 : 0x121 + byte - 127;
}

static const char *const pairs[] = {"h e",       "l l",      "he ll",       "hell o",       "\u0120 w",
                                    "\u0120w o", "r l",      "\u0120wo rl", "\u0120worl d", "' s",
                                    "o w",       "\u0120 y", "\u0120 n"};

/* Tokens 0 to 255: bytes; from 256 on, what the pairs make. */
static words *write_words(void)
{
    const char *vocabulary = temporary("vocab.json"), *merges = temporary("merges.txt");
    FILE *f = fopen(vocabulary, "w"), *g = fopen(merges, "w");
    fprintf(g, "#version: 0.2\n");
    fprintf(f, "{");
    for (int b = 0; b < 256; b++) {
        fprintf(f, "%s\"", b ? "," : "");
        write_character(f, character_of(b));
        fprintf(f, "\":%d", b);
    }
    for (int i = 0; i < (int)(sizeof pairs / sizeof *pairs); i++) {
        const char *space = strchr(pairs[i], ' ');
        fprintf(f, ",\"%.*s%s\":%d", (int)(space - pairs[i]), pairs[i], space + 1, 256 + i);
        fprintf(g, "%s\n", pairs[i]);
    }
    fprintf(f, "}");
    fclose(f);
    fclose(g);
    words *w = words_open(vocabulary, merges);
    unlink(vocabulary);
    unlink(merges);
    return w;
}

Test(lcgd_public, byte_pairs)
{
    enum { HELLO = 259, WORLD = 264, S = 265, LL = 257, OW = 266 };
    static const struct {
        const char *text;
        int32_t tokens[16];
        int n;
    } cases[] = {
        {"hello world", {HELLO, WORLD}, 2},
        {" hello", {' ', HELLO}, 2},
        {"hellos", {HELLO, 's'}, 2},
        {"ow world", {OW, WORLD}, 2},
        {"wow", {'w', OW}, 2},        /* pairs by rank, not from the left */
        {"ll'll", {LL, '\'', LL}, 3}, /* 'll is a piece */
        {"it's", {'i', 't', S}, 3},
        {"a  b", {'a', ' ', ' ', 'b'}, 4}, /* "a", " ", " b" */
        {"\n\n w", {'\n', '\n', 260}, 3},  /* the last space is the word's */
        {"w \n", {'w', ' ', '\n'}, 3},
        {"7he", {'7', 256}, 2},
        {"\u00e9", {0xc3, 0xa9}, 2},
        {"", {0}, 0},
    };
    words *w = write_words();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t tokens[16] = {0};
        int64_t n = words_encode(w, cases[i].text, tokens, 16);
        expect(n == cases[i].n && memcmp(tokens, cases[i].tokens, sizeof tokens) == 0,
               "\"%s\": %d, %d %d %d %d", cases[i].text, (int)n, tokens[0], tokens[1], tokens[2], tokens[3]);
    }
    int32_t one[2] = {-1, -1};
    expect(words_encode(w, "hello world", one, 1) == 2 && one[0] == HELLO && one[1] == -1,
           "no more than fit");
    static char large[5001];
    memset(large, 'x', 5000);
    expect(words_encode(w, large, one, 2) == 5000, "a piece of any length");
    words_close(w);
}

/* ---- texts ---- */

Test(lcgd_public, problems_of_texts)
{
    words *w = write_words();
    set.texts = temporary("texts.tsv");
    set.form = "[{}]";
    set.shots = 3;
    set.queries = 4;
    FILE *f = fopen(set.texts, "w");
    for (int i = 0; i < 9; i++)
        fprintf(f, "%s\t%c%s\n", i % 2 ? "yes" : "no", 'a' + i, i == 4 ? " hello" : "");
    fclose(f);
    corpus *c = corpus_open();
    problem p = problem_of_texts(c, w, 1, 1000), again = problem_of_texts(c, w, 1, 1000);
    int64_t at = 0, told = 0;
    bool used[9] = {false};
    const int32_t yes = 267, no = 268; /* the first tokens of " yes" and " no" */
    expect(p.candidate_count == 2 && p.candidates[0] == no && p.candidates[1] == yes, "candidates");
    expect(memcmp(p.tokens, again.tokens, (size_t)p.told * sizeof *p.tokens) == 0, "the same of one seed");
    for (int i = 0; i < 7; i++) {
        const int32_t *t = p.tokens + at;
        int line = t[1] - 'a', label = line % 2;
        expect(t[0] == '[' && line >= 0 && line < 9 && !used[line], "each line once");
        used[line] = true;
        told += i < 3 ? p.length[i] : 0;
        if (i < 3)
            expect(p.tokens[at + p.length[i] - 1] == '\n' &&
                       p.tokens[at + p.length[i] - 2] == (label ? 's' : 'o'),
                   "the label ends it");
        else
            expect(p.tokens[at + p.length[i] - 1] == ']' && p.label[i - 3] == (label ? yes : no),
                   "no label told");
        at += p.length[i];
    }
    expect(p.told == told, "told");
    problem_free(&p);
    problem_free(&again);
    corpus_close(c);
    words_close(w);
    unlink(set.texts);
}
