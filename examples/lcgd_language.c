/* SPDX-License-Identifier: MIT
 *
 * lcgd_language.c - a language of classification prompts: what a text is about is seen in its words, and what
 * that is called is agreed on anew in each prompt, by its demonstrations. */
#include <stdlib.h>
#include <string.h>

#include "lcgd.h"

int64_t vocabulary(void)
{
    return set.classes * set.words + set.classes;
}

int64_t demonstration_length(void)
{
    return set.text + 1;
}

int32_t first_label(void)
{
    return (int32_t)(set.classes * set.words);
}

/* The n-th number of a stream: splitmix64 (Steele, Lea and Flood 2014). */
static uint64_t number(uint64_t stream, uint64_t n)
{
    uint64_t z = stream + (n + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Of [0, n); n is small. */
static int64_t below(uint64_t bits, int64_t n)
{
    return (int64_t)((bits >> 32) * (uint64_t)n >> 32);
}

task task_of(uint64_t seed, int64_t turn)
{
    task t = {.seed = number(seed, 0)};
    for (int64_t i = 0; i < set.classes; i++) { /* Durstenfeld's shuffle */
        int64_t j = below(number(seed, 1 + (uint64_t)i), i + 1);
        t.label[i] = t.label[j];
        t.label[j] = (int32_t)i;
    }
    for (int64_t i = 0; i < set.classes; i++)
        t.label[i] = first_label() + (int32_t)((t.label[i] + turn) % set.classes);
    return t;
}

void demonstrations(const task *t, int64_t first, int64_t count, int32_t *tokens)
{
    for (int64_t i = 0; i < count; i++) {
        uint64_t stream = number(t->seed, (uint64_t)(first + i));
        int64_t about = below(number(stream, 0), set.classes);
        for (int64_t w = 0; w < set.text; w++) {
            uint64_t k = 3 * (uint64_t)w + 1;
            bool stray = (double)(number(stream, k) >> 11) * 0x1p-53 < set.noise;
            int64_t class = stray ? below(number(stream, k + 1), set.classes) : about;
            *tokens++ = (int32_t)(class * set.words + below(number(stream, k + 2), set.words));
        }
        *tokens++ = t->label[about];
    }
}

/* ---- problems ---- */

problem problem_new(int64_t shots, int64_t queries, int64_t tokens)
{
    problem p = {.shots = shots, .queries = queries};
    p.tokens = calloc((size_t)tokens + 1, sizeof *p.tokens);
    p.length = calloc((size_t)(shots + queries) + 1, sizeof *p.length);
    p.label = calloc((size_t)queries + 1, sizeof *p.label);
    if (!p.tokens || !p.length || !p.label)
        die("out of memory");
    return p;
}

void problem_free(problem *p)
{
    free(p->tokens);
    free(p->length);
    free(p->label);
    *p = (problem){0};
}

void problem_add(problem *p, int64_t number, const int32_t *tokens, int64_t n)
{
    int64_t at = 0;
    for (int64_t i = 0; i < number; i++)
        at += p->length[i];
    memcpy(p->tokens + at, tokens, (size_t)n * sizeof *tokens);
    p->length[number] = n;
    p->told += number < p->shots ? n : 0;
}

problem problem_of_task(const task *t)
{
    int64_t length = demonstration_length();
    problem p = problem_new(set.shots, set.queries, (set.shots + set.queries) * length);
    int32_t *one = calloc((size_t)length, sizeof *one);
    if (!one)
        die("out of memory");
    for (int64_t i = 0; i < set.shots + set.queries; i++) {
        demonstrations(t, i, 1, one);
        problem_add(&p, i, one, i < set.shots ? length : set.text);
        if (i >= set.shots)
            p.label[i - set.shots] = one[set.text];
    }
    free(one);
    for (int c = 0; c < set.classes; c++)
        p.candidates[p.candidate_count++] = first_label() + c;
    return p;
}
