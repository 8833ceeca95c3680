/* SPDX-License-Identifier: MIT
 *
 * lcgd_words.c - text to tokens by a byte-pair vocabulary as GPT-2's (Radford et al. 2019; Sennrich et al.
 * 1508.07909): vocab.json, which numbers the tokens, and merges.txt, which says in what order pairs become
 * one.
 *
 * Text is cut before: into words with the space before them, numbers, other signs, white space, and the ends
 * 's, 't, 're, 've, 'm, 'll, 'd. Here whatever is not ASCII counts as a letter. */
#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "lcgd.h"

struct words {
    json_t *tokens, *ranks; /* token -> number; "left right" -> rank */
    char sign[256][3];      /* of a byte, in UTF-8: what the files write for it */
};

/* Bytes that print stand for themselves; the others, in order, for the characters from 256 on. */
static void name_bytes(words *w)
{
    int next = 256;
    for (int b = 0; b < 256; b++) {
        bool prints = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
        int c = prints ? b : next++;
        if (c < 128)
            w->sign[b][0] = (char)c;
        else
            w->sign[b][0] = (char)(0xc0 | c >> 6), w->sign[b][1] = (char)(0x80 | (c & 0x3f));
    }
}

static json_t *read_ranks(const char *path)
{
    char line[1024];
    FILE *f = fopen(path, "r");
    json_t *ranks = json_object();
    if (!f || !ranks)
        die("cannot read %s", path);
    for (int rank = 0; fgets(line, sizeof line, f);) {
        line[strcspn(line, "\r\n")] = 0;
        if (strncmp(line, "#version", 8) == 0 || !*line)
            continue;
        if (!strchr(line, ' ') || json_object_set_new(ranks, line, json_integer(rank++)) != 0)
            die("%s: \"%.80s\" is not a pair", path, line);
    }
    fclose(f);
    return ranks;
}

words *words_open(const char *vocabulary_path, const char *merges_path)
{
    words *w = calloc(1, sizeof *w);
    json_error_t error;
    if (!w)
        die("out of memory");
    name_bytes(w);
    w->tokens = json_load_file(vocabulary_path, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(w->tokens))
        die("%s: %s", vocabulary_path, w->tokens ? "not an object" : error.text);
    w->ranks = read_ranks(merges_path);
    return w;
}

void words_close(words *w)
{
    json_decref(w->tokens);
    json_decref(w->ranks);
    free(w);
}

/* ---- cutting ---- */

typedef enum sort { END, SPACE, LETTER, DIGIT, SIGN } sort;

static sort sort_of(char c)
{
    unsigned char u = (unsigned char)c;
    if (!u)
        return END;
    if (u >= 0x80 || isalpha(u))
        return LETTER;
    return isdigit(u) ? DIGIT : isspace(u) ? SPACE : SIGN;
}

static size_t run_of(const char *text)
{
    size_t n = 1;
    while (sort_of(text[n]) == sort_of(*text))
        n++;
    return n;
}

/* Bytes of the first piece; the text is not empty. */
static size_t piece(const char *text)
{
    static const char *const ends[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (int i = 0; i < COUNT(ends); i++)
        if (strncmp(text, ends[i], strlen(ends[i])) == 0)
            return strlen(ends[i]);
    if (sort_of(*text) != SPACE)
        return run_of(text);
    size_t n = run_of(text);
    if (!text[n])
        return n;
    if (n > 1)
        return n - 1; /* the last one belongs to what follows */
    return *text == ' ' ? 1 + run_of(text + 1) : 1;
}

/* ---- merging ---- */

enum { MOST_SIGNS = 512 }; /* of a piece; longer ones are cut */

/* A piece as its parts: part i is [start[i], start[i+1]) of text. */
typedef struct parts {
    char text[2 * MOST_SIGNS + 1];
    int start[MOST_SIGNS + 1], n;
} parts;

/* The rank of parts i and i + 1 as a pair; -1: they are none. */
static int rank_of(const words *w, const parts *p, int i)
{
    char key[sizeof p->text + 1];
    int left = p->start[i + 1] - p->start[i], right = p->start[i + 2] - p->start[i + 1];
    snprintf(key, sizeof key, "%.*s %.*s", left, p->text + p->start[i], right, p->text + p->start[i + 1]);
    const json_t *rank = json_object_get(w->ranks, key);
    return rank ? (int)json_integer_value(rank) : -1;
}

/* Joins the first pair of the least rank; false where there is none. */
static bool merge(const words *w, parts *p)
{
    int best = -1, least = 0;
    for (int i = 0; i + 1 < p->n; i++) {
        int rank = rank_of(w, p, i);
        if (rank >= 0 && (best < 0 || rank < least))
            best = i, least = rank;
    }
    if (best < 0)
        return false;
    memmove(&p->start[best + 1], &p->start[best + 2], (size_t)(p->n - best - 1) * sizeof *p->start);
    p->n--;
    return true;
}

static int32_t number_of(const words *w, const parts *p, int i)
{
    char name[sizeof p->text];
    snprintf(name, sizeof name, "%.*s", p->start[i + 1] - p->start[i], p->text + p->start[i]);
    const json_t *number = json_object_get(w->tokens, name);
    if (!json_is_integer(number))
        die("the vocabulary has no token \"%s\"", name);
    return (int32_t)json_integer_value(number);
}

int64_t words_encode(const words *w, const char *text, int32_t *tokens, int64_t most)
{
    int64_t count = 0;
    for (size_t n; *text; text += n) {
        parts p = {.n = 0};
        int length = 0;
        n = piece(text);
        n = n > MOST_SIGNS ? MOST_SIGNS : n;
        for (size_t i = 0; i < n; i++) {
            const char *sign = w->sign[(unsigned char)text[i]];
            p.start[p.n++] = length;
            memcpy(p.text + length, sign, strlen(sign));
            length += (int)strlen(sign);
        }
        p.start[p.n] = length;
        while (merge(w, &p))
            ;
        for (int i = 0; i < p.n; i++, count++)
            if (count < most)
                tokens[count] = number_of(w, &p, i);
    }
    return count;
}
