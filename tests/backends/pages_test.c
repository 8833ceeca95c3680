/* SPDX-License-Identifier: MIT
 *
 * pages_test.c - the cpu backend's loops read and write what they are given and not an element more: operands
 * end at a page that may not be touched, or begin behind one. Each instruction set that this CPU has. */
#include <sys/mman.h>
#include <unistd.h>

#include "backends/cpu/loops.h"
#include "support.h"

#pragma weak mb__loops_v3
#pragma weak mb__loops_v4
#pragma weak mb__bf16_pairs
extern const mb__loops mb__loops_v3, mb__loops_v4;
extern const mb__bf16_loops mb__bf16_pairs;

enum { LEVELS = 3 };
static int levels(const mb__loops *all[LEVELS])
{
    int n = 0;
    all[n++] = &mb__loops_base;
#if defined(__x86_64__)
    if (&mb__loops_v3 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        all[n++] = &mb__loops_v3;
    if (&mb__loops_v4 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        all[n++] = &mb__loops_v4;
#endif
    return n;
}

/* Memory between two pages that may not be touched. */
typedef struct between {
    char *all, *begin, *end;
    size_t bytes;
} between;

static between pages(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = (bytes + page - 1) / page * page;
    between b = {.bytes = inside + 2 * page};
    b.all = mmap(NULL, b.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b.all == MAP_FAILED || mprotect(b.all + page, inside, PROT_READ | PROT_WRITE) != 0) {
        expect(false, "no pages");
        return (between){0};
    }
    b.begin = b.all + page;
    b.end = b.begin + inside;
    return b;
}
static void let_go(between *b)
{
    if (b->all)
        munmap(b->all, b->bytes);
}

/* `count` elements at one of the two ends. */
static void *at(const between *b, bool end, int64_t count, size_t size)
{
    return end ? b->end - (size_t)count * size : b->begin;
}

static double element(const void *p, int dtype, int64_t i)
{
    return dtype ? ((const double *)p)[i] : (double)((const float *)p)[i];
}
static void set(void *p, int dtype, int64_t i, double x)
{
    if (dtype)
        ((double *)p)[i] = x;
    else
        ((float *)p)[i] = (float)x;
}

/* Small whole numbers, so that every order of adding gives the same. */
static void fill(void *p, int dtype, int64_t count, int step)
{
    for (int64_t i = 0; i < count; i++)
        set(p, dtype, i, (double)(i * step % 7 - 3));
}

typedef struct product {
    int64_t m, n, k;
    bool a_across, b_across, c_across, add, end; /* ..._across: columns lie side by side */
    int dtype;
} product;

static void multiply(const mb__loops *loops, const product *p, const between memory[3], void *scratch)
{
    size_t size = p->dtype ? 8 : 4;
    void *a = at(&memory[0], p->end, p->m * p->k, size), *b = at(&memory[1], p->end, p->k * p->n, size),
         *c = at(&memory[2], p->end, p->m * p->n, size);
    fill(a, p->dtype, p->m * p->k, 3);
    fill(b, p->dtype, p->k * p->n, 5);
    fill(c, p->dtype, p->m * p->n, 2);
    const mb__gemm_call g = {.m = p->m,
                             .n = p->n,
                             .k = p->k,
                             .a_m = p->a_across ? 1 : p->k,
                             .a_k = p->a_across ? p->m : 1,
                             .b_k = p->b_across ? 1 : p->n,
                             .b_n = p->b_across ? p->k : 1,
                             .c_m = p->c_across ? 1 : p->n,
                             .c_n = p->c_across ? p->m : 1,
                             .count = 1,
                             .a = a,
                             .b = b,
                             .c = c,
                             .scratch = scratch,
                             .add = p->add};
    loops->gemm[p->dtype](&g);
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            int64_t place = i * g.c_m + j * g.c_n;
            double want = p->add ? (double)(place * 2 % 7 - 3) : 0;
            for (int64_t l = 0; l < p->k; l++)
                want +=
                    element(a, p->dtype, i * g.a_m + l * g.a_k) * element(b, p->dtype, l * g.b_k + j * g.b_n);
            double got = element(c, p->dtype, place);
            if (got != want) {
                expect(false, "%s: %lldx%lldx%lld, %d%d%d%d, float%d: c[%lld, %lld] is %g, not %g",
                       loops->name, (long long)p->m, (long long)p->n, (long long)p->k, p->a_across,
                       p->b_across, p->c_across, p->add, 32 << p->dtype, (long long)i, (long long)j, got,
                       want);
                return;
            }
        }
}

/* Sizes around those of tiles, panels and blocks that are turned. */
static const int64_t sizes[] = {1, 3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 21, 31, 32, 33};
enum { SIZES = sizeof sizes / sizeof *sizes };

Test(pages, products)
{
    const mb__loops *all[LEVELS];
    between memory[3] = {pages(300 * 300 * 8), pages(300 * 300 * 8), pages(300 * 300 * 8)};
    between scratch = pages(MB_GEMM_SCRATCH);
    for (int l = levels(all); memory[2].all && scratch.all && l-- > 0;) {
        for (int m = 0; m < SIZES; m++)
            for (int n = 0; n < SIZES; n++)
                for (int k = (m + n) % 3; k < SIZES; k += 3)
                    for (int kind = 0; kind < 64; kind++) {
                        const product p = {sizes[m],        sizes[n],        sizes[k],
                                           kind & 1,        (kind >> 1) & 1, (kind >> 2) & 1,
                                           (kind >> 3) & 1, (kind >> 4) & 1, kind >> 5};
                        multiply(all[l], &p, memory, scratch.begin);
                    }
        for (int kind = 0; kind < 64; kind++) { /* deeper than a panel */
            const product p = {37,
                               45,
                               261,
                               kind & 1,
                               (kind >> 1) & 1,
                               (kind >> 2) & 1,
                               (kind >> 3) & 1,
                               (kind >> 4) & 1,
                               kind >> 5};
            multiply(all[l], &p, memory, scratch.begin);
        }
    }
    for (int i = 0; i < 3; i++)
        let_go(&memory[i]);
    let_go(&scratch);
}

/* Whole numbers up to 3: bfloat16 holds them, and float32 their sums. */
static void multiply_pairs(const product *p, const between memory[3], uint32_t *panels, const between *pairs)
{
    uint16_t *a = at(&memory[0], p->end, p->m * p->k, 2), *b = at(&memory[1], p->end, p->k * p->n, 2);
    float *c = at(&memory[2], p->end, p->m * p->n, sizeof *c);
    for (int64_t i = 0; i < p->m * p->k; i++)
        a[i] = mb__to_half(MB_BFLOAT16, (double)(i * 3 % 7 - 3));
    for (int64_t i = 0; i < p->k * p->n; i++)
        b[i] = mb__to_half(MB_BFLOAT16, (double)(i * 5 % 7 - 3));
    fill(c, 0, p->m * p->n, 2);
    int64_t a_m = p->a_across ? 1 : p->k, a_k = p->a_across ? p->m : 1, b_k = p->b_across ? 1 : p->n,
            b_n = p->b_across ? p->k : 1;
    mb__bf16_pairs.prepare(p->k, p->n, b, b_k, b_n, panels);
    mb__bf16_pairs.multiply(
        &(mb__bf16_call){.m = p->m,
                         .n = p->n,
                         .k = p->k,
                         .a_m = a_m,
                         .a_k = a_k,
                         .c_m = p->n,
                         .a = a,
                         .panels = panels,
                         .pairs_of_a = at(pairs, true, (p->k + 1) / 2 * p->m, sizeof(uint32_t)),
                         .c = c,
                         .add = p->add});
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            double want = p->add ? (double)((i * p->n + j) * 2 % 7 - 3) : 0, got = (double)c[i * p->n + j];
            for (int64_t l = 0; l < p->k; l++)
                want += (double)(((i * a_m + l * a_k) * 3 % 7 - 3) * ((l * b_k + j * b_n) * 5 % 7 - 3));
            if (got != want) {
                expect(false, "%lldx%lldx%lld, %d%d%d: c[%lld, %lld] is %g, not %g", (long long)p->m,
                       (long long)p->n, (long long)p->k, p->a_across, p->b_across, p->add, (long long)i,
                       (long long)j, got, want);
                return;
            }
        }
}

Test(pages, products_of_bfloat16)
{
#if defined(__x86_64__)
    if (!&mb__bf16_pairs || !__builtin_cpu_supports("avx512bf16"))
        return;
    between memory[3] = {pages(40 * 40 * 8), pages(40 * 40 * 8), pages(40 * 40 * 8)}, panels = pages(1 << 16),
            pairs = pages(1 << 16);
    for (int m = 0; pairs.all && m < SIZES; m++)
        for (int n = 0; n < SIZES; n++)
            for (int k = 0; k < SIZES; k++)
                for (int kind = 0; kind < 16; kind++) {
                    const product p = {.m = sizes[m],
                                       .n = sizes[n],
                                       .k = sizes[k],
                                       .a_across = kind & 1,
                                       .b_across = (kind >> 1) & 1,
                                       .add = (kind >> 2) & 1,
                                       .end = kind >> 3};
                    int64_t words = (p.k + 1) / 2 * ((p.n + 31) / 32 * 32);
                    multiply_pairs(&p, memory, at(&panels, true, words, sizeof(uint32_t)), &pairs);
                }
    for (int i = 0; i < 3; i++)
        let_go(&memory[i]);
    let_go(&panels);
    let_go(&pairs);
#endif
}

Test(pages, rows_that_become_columns)
{
    const mb__loops *all[LEVELS];
    between from = pages(40 * 40 * 8), to = pages(40 * 40 * 8);
    for (int l = levels(all); from.all && to.all && l-- > 0;)
        for (int64_t rows = 1; rows <= 35; rows++)
            for (int64_t columns = 1; columns <= 35; columns++)
                for (int kind = 0; kind < 4; kind++) {
                    int dtype = kind & 1;
                    size_t size = dtype ? 8 : 4;
                    void *a = at(&from, kind >> 1, rows * columns, size),
                         *d = at(&to, kind >> 1, rows * columns, size);
                    fill(a, dtype, rows * columns, 3);
                    all[l]->turn[dtype](rows, columns, d, columns, a, rows);
                    bool same = true;
                    for (int64_t r = 0; r < rows; r++)
                        for (int64_t c = 0; c < columns; c++)
                            same &= element(d, dtype, r * columns + c) == element(a, dtype, c * rows + r);
                    expect(same, "%s: %lldx%lld of %zu bytes", all[l]->name, (long long)rows,
                           (long long)columns, size);
                }
    let_go(&from);
    let_go(&to);
}
