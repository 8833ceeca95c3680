/* SPDX-License-Identifier: MIT
 *
 * lcgd_language.c - a language of classification prompts: what a text is about is seen in its words, and what
 * that is called is agreed on anew in each prompt, by its demonstrations. */
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
