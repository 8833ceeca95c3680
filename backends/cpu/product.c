/* SPDX-License-Identifier: MIT
 *
 * product.c - matrix products: large ones by OpenBLAS, one thread a call, small ones by gemm.c, tiny ones by
 * plain loops, those of halves by product_half.c. They are split by our own pool: over the loops where there
 * are many, over the rows and columns of the result where there are few. The split depends on the shape
 * alone.
 */
#include "backends/cpu/frame.h"

typedef struct work {
    const mb__product *p;
    mb__frame *f;
    int dtype;
    int64_t items; /* loops whose results are apart */
    int64_t sums;  /* loops that add up in one result */
    int repeat;    /* a loop over which b is the same, or -1: innermost, so that b is prepared once */
    int64_t row_parts, column_parts;
    int64_t groups; /* tasks over items */
    int apart[3 * MB_MAX_RANK], adding[3 * MB_MAX_RANK], apart_count, adding_count;
} work;

static bool blas_takes(int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride, bool *turned,
                       int *ld)
{
    if ((column_stride == 1 || columns == 1) && (rows == 1 || row_stride >= columns) && row_stride > 0) {
        *turned = false;
        *ld = (int)(rows == 1 || row_stride < columns ? columns : row_stride);
        return row_stride < INT32_MAX;
    }
    if ((row_stride == 1 || rows == 1) && (columns == 1 || column_stride >= rows) && column_stride > 0) {
        *turned = true;
        *ld = (int)(columns == 1 || column_stride < rows ? rows : column_stride);
        return column_stride < INT32_MAX;
    }
    return false;
}

#define TINY 200 /* multiply-adds up to which vectors do not pay */

/* Whether rows or columns of an operand may lie a multiple of 2 KiB apart, as gemm.c looks at it. */
static bool wants_rows(const mb__product *p)
{
    const int64_t apart[] = {p->a_m, p->a_k, p->b_k, p->b_n};
    bool some = false;
    for (int i = 0; i < 4; i++)
        some |= apart[i] != 0 && apart[i] % 256 == 0; /* of 8 bytes each */
    return some && p->k >= 64 && (p->m >= 256 || p->n >= 256);
}

size_t mb__cpu_product_scratch(const mb__product *p)
{
    return MB_GEMM_SCRATCH + (wants_rows(p) ? MB_GEMM_ROWS : 0);
}

/* `count` products that share b, along the repeated loop. next_b: what the next ones share, NULL. */
static void some_products(const work *w, const char *a, const char *b, const char *next_b, char *c, int64_t m,
                          int64_t n, int64_t count, bool add, int worker)
{
    const mb__product *p = w->p;
    mb__cpu *cpu = w->f->cpu;
    bool at, bt, ct;
    int lda, ldb, ldc;
    double size = (double)m * (double)n * (double)p->k;
    int64_t bytes = w->dtype == MB_FLOAT64 ? 8 : 4;
    int64_t a_step = w->repeat < 0 ? 0 : p->a_loop[w->repeat],
            c_step = w->repeat < 0 ? 0 : p->c_loop[w->repeat];
    if (size < TINY) {
        for (int64_t i = 0; i < count; i++)
            cpu->loops->product[w->dtype](m, n, p->k, a + i * a_step * bytes, p->a_m, p->a_k, b, p->b_k,
                                          p->b_n, c + i * c_step * bytes, p->c_m, p->c_n, add);
        return;
    }
    if (size < cpu->blas_from || !blas_takes(m, p->k, p->a_m, p->a_k, &at, &lda) ||
        !blas_takes(p->k, n, p->b_k, p->b_n, &bt, &ldb) || !blas_takes(m, n, p->c_m, p->c_n, &ct, &ldc)) {
        char *scratch = cpu->scratch[worker], *rows = wants_rows(p) ? scratch + MB_GEMM_SCRATCH : NULL;
        const mb__gemm_call g = {.m = m,
                                 .n = n,
                                 .k = p->k,
                                 .a_m = p->a_m,
                                 .a_k = p->a_k,
                                 .b_k = p->b_k,
                                 .b_n = p->b_n,
                                 .c_m = p->c_m,
                                 .c_n = p->c_n,
                                 .count = count,
                                 .a_step = a_step,
                                 .c_step = c_step,
                                 .a = a,
                                 .b = b,
                                 .next_b = next_b,
                                 .c = c,
                                 .scratch = scratch,
                                 .rows = rows,
                                 .add = add};
        if (p->c_n == 1 || p->c_m != 1) {
            cpu->loops->gemm[w->dtype](&g);
            return;
        }
        mb__gemm_call turned = {.m = n,
                                .n = m,
                                .k = p->k,
                                .a_m = p->b_n,
                                .a_k = p->b_k,
                                .b_k = p->a_k,
                                .b_n = p->a_m,
                                .c_m = p->c_n,
                                .c_n = p->c_m,
                                .count = 1,
                                .a = b,
                                .scratch = scratch,
                                .rows = rows,
                                .add = add};
        for (int64_t i = 0; i < count; i++) { /* the transposed product: c's columns are contiguous */
            turned.b = a + i * a_step * bytes;
            turned.next_b = i + 1 < count ? a + (i + 1) * a_step * bytes : NULL;
            turned.c = c + i * c_step * bytes;
            cpu->loops->gemm[w->dtype](&turned);
        }
        return;
    }
    CBLAS_ORDER order = ct ? CblasColMajor : CblasRowMajor;
    CBLAS_TRANSPOSE ta = at != ct ? CblasTrans : CblasNoTrans, tb = bt != ct ? CblasTrans : CblasNoTrans;
    for (int64_t i = 0; i < count; i++, a += a_step * bytes, c += c_step * bytes)
        if (w->dtype == MB_FLOAT32)
            cpu->blas->sgemm(order, ta, tb, (int)m, (int)n, (int)p->k, 1, (const void *)a, lda,
                             (const void *)b, ldb, add ? 1 : 0, (void *)c, ldc);
        else
            cpu->blas->dgemm(order, ta, tb, (int)m, (int)n, (int)p->k, 1, (const void *)a, lda,
                             (const void *)b, ldb, add ? 1 : 0, (void *)c, ldc);
}

/* Runs through an index the other way where its stride is negative: BLAS knows none such. */
static void upright(int64_t count, const char **x, int64_t *x_stride, const char **y, int64_t *y_stride,
                    int64_t bytes)
{
    if (*x_stride >= 0 || *y_stride == 0)
        return;
    *x += (count - 1) * *x_stride * bytes;
    *y += (count - 1) * *y_stride * bytes;
    *x_stride = -*x_stride;
    *y_stride = -*y_stride;
}

void mb__cpu_product_subtract(mb__cpu *cpu, int dtype, const mb__cpu_update *u, int worker)
{
    int64_t bytes = dtype == MB_FLOAT64 ? 8 : 4, a_m = u->a_m, a_k = u->a_k, b_k = u->b_k, c_m = u->c_m;
    const char *a = u->a, *b = u->b, *c = u->c;
    bool at, bt, ct;
    int lda, ldb, ldc;
    if (u->m <= 0 || u->n <= 0 || u->k <= 0)
        return;
    upright(u->m, &a, &a_m, &c, &c_m, bytes);
    upright(u->k, &a, &a_k, &b, &b_k, bytes);
    if ((double)u->m * (double)u->n * (double)u->k < cpu->blas_from ||
        !blas_takes(u->m, u->k, a_m, a_k, &at, &lda) || !blas_takes(u->k, u->n, b_k, u->b_n, &bt, &ldb) ||
        !blas_takes(u->m, u->n, c_m, u->c_n, &ct, &ldc)) {
        cpu->loops->gemm[dtype](&(mb__gemm_call){.m = u->m,
                                                 .n = u->n,
                                                 .k = u->k,
                                                 .a_m = a_m,
                                                 .a_k = a_k,
                                                 .b_k = b_k,
                                                 .b_n = u->b_n,
                                                 .c_m = c_m,
                                                 .c_n = u->c_n,
                                                 .count = 1,
                                                 .a = a,
                                                 .b = b,
                                                 .c = (void *)(uintptr_t)c,
                                                 .scratch = cpu->scratch[worker],
                                                 .subtract = true});
        return;
    }
    CBLAS_ORDER order = ct ? CblasColMajor : CblasRowMajor;
    CBLAS_TRANSPOSE ta = at != ct ? CblasTrans : CblasNoTrans, tb = bt != ct ? CblasTrans : CblasNoTrans;
    if (dtype == MB_FLOAT32)
        cpu->blas->sgemm(order, ta, tb, (int)u->m, (int)u->n, (int)u->k, -1, (const void *)a, lda,
                         (const void *)b, ldb, 1, (void *)(uintptr_t)c, ldc);
    else
        cpu->blas->dgemm(order, ta, tb, (int)u->m, (int)u->n, (int)u->k, -1, (const void *)a, lda,
                         (const void *)b, ldb, 1, (void *)(uintptr_t)c, ldc);
}

/* Where a loop nest stands: an index for each loop and the offsets that belong to it. */
typedef struct place {
    int64_t index[3 * MB_MAX_RANK], a, b, c;
} place;

static void start_at(const mb__product *p, const int *loops, int count, int64_t item, place *at)
{
    at->a = at->b = at->c = 0;
    for (int i = count; i-- > 0;) {
        int l = loops[i];
        at->index[i] = item % p->loop[l];
        item /= p->loop[l];
        at->a += at->index[i] * p->a_loop[l];
        at->b += at->index[i] * p->b_loop[l];
        at->c += at->index[i] * p->c_loop[l];
    }
}

static void step_on(const mb__product *p, const int *loops, int count, place *at)
{
    for (int i = count; i-- > 0;) {
        int l = loops[i];
        at->a += p->a_loop[l];
        at->b += p->b_loop[l];
        at->c += p->c_loop[l];
        if (++at->index[i] < p->loop[l])
            return;
        at->index[i] = 0;
        at->a -= p->loop[l] * p->a_loop[l];
        at->b -= p->loop[l] * p->b_loop[l];
        at->c -= p->loop[l] * p->c_loop[l];
    }
}

/* The offset in b where step_on would lead. */
static int64_t b_after(const mb__product *p, const int *loops, int count, const place *at)
{
    int64_t b = at->b;
    for (int i = count; i-- > 0;) {
        int l = loops[i];
        if (at->index[i] + 1 < p->loop[l])
            return b + p->b_loop[l];
        b -= at->index[i] * p->b_loop[l];
    }
    return b;
}

static void run_task(void *argument, int task, int worker)
{
    const work *w = argument;
    const mb__product *p = w->p;
    int64_t size = (int64_t)mb_dtype_size((mb_dtype)w->dtype);
    const char *a = w->f->memory[p->a.value] + p->a.offset * size,
               *b = w->f->memory[p->b.value] + p->b.offset * size;
    char *c = w->f->memory[p->c.value] + p->c.offset * size;
    int64_t part = task % (w->row_parts * w->column_parts), group = task / (w->row_parts * w->column_parts);
    int64_t rp = part / w->column_parts, cp = part % w->column_parts;
    int64_t m0 = p->m * rp / w->row_parts, m1 = p->m * (rp + 1) / w->row_parts;
    int64_t n0 = p->n * cp / w->column_parts, n1 = p->n * (cp + 1) / w->column_parts;
    a += m0 * p->a_m * size;
    b += n0 * p->b_n * size;
    c += (m0 * p->c_m + n0 * p->c_n) * size;
    int64_t again = w->repeat < 0 ? 1 : p->loop[w->repeat], all = w->items * again;
    int64_t item = all * group / w->groups, end = all * (group + 1) / w->groups;
    place one, sum;
    start_at(p, w->apart, w->apart_count, item / again, &one);
    for (int64_t r = item % again, count; item < end;
         item += count, r = 0, step_on(p, w->apart, w->apart_count, &one)) {
        count = again - r < end - item ? again - r : end - item;
        int64_t ra = w->repeat < 0 ? 0 : r * p->a_loop[w->repeat],
                rc = w->repeat < 0 ? 0 : r * p->c_loop[w->repeat];
        if (mb__is_half(w->dtype)) {
            const mb__cpu_half h = {p, w->dtype, w->repeat, w->adding_count, w->adding};
            mb__cpu_product_half(w->f->cpu, &h, (const void *)(a + (one.a + ra) * size),
                                 (const void *)(b + one.b * size), (void *)(c + (one.c + rc) * size), m1 - m0,
                                 n1 - n0, count, worker);
            continue;
        }
        start_at(p, w->adding, w->adding_count, 0, &sum);
        for (int64_t s = 0; s < w->sums; s++, step_on(p, w->adding, w->adding_count, &sum)) {
            const char *next_b = s + 1 < w->sums
                                     ? b + (one.b + b_after(p, w->adding, w->adding_count, &sum)) * size
                                 : item + count < end ? b + b_after(p, w->apart, w->apart_count, &one) * size
                                                      : NULL;
            some_products(w, a + (one.a + sum.a + ra) * size, b + (one.b + sum.b) * size, next_b,
                          c + (one.c + rc) * size, m1 - m0, n1 - n0, count, s > 0 || p->adds, worker);
        }
    }
}

void mb__cpu_product_run(const mb__product *p, int dtype, mb__frame *f)
{
    work w = {.p = p,
              .f = f,
              .dtype = dtype,
              .items = 1,
              .sums = 1,
              .repeat = -1,
              .row_parts = 1,
              .column_parts = 1,
              .groups = 1};
    for (int i = 0; i < p->loops; i++)
        if (p->c_loop[i] && !p->b_loop[i] && (w.repeat < 0 || p->loop[i] > p->loop[w.repeat]))
            w.repeat = i;
    for (int i = 0; i < p->loops; i++)
        if (i == w.repeat) {
            continue;
        } else if (p->c_loop[i]) {
            w.apart[w.apart_count++] = i;
            w.items *= p->loop[i];
        } else {
            w.adding[w.adding_count++] = i;
            w.sums *= p->loop[i];
        }
    double each = (double)p->m * (double)p->n * (double)p->k * (double)w.sums + 6000,
           again = w.repeat < 0 ? 1 : (double)p->loop[w.repeat];
    double all = each * (double)w.items * again;
    const double task = 2e5; /* multiply-adds that are worth handing out */
    double wanted = all / task;
    wanted = wanted < 1 ? 1 : wanted > 32 ? 32 : wanted;
    w.groups = wanted > (double)w.items * again ? (int64_t)((double)w.items * again) : (int64_t)wanted;
    while (w.groups * w.row_parts * w.column_parts * 2 <= (int64_t)wanted &&
           w.groups * w.row_parts * w.column_parts < 16) {
        int64_t m = p->m / w.row_parts, n = p->n / w.column_parts;
        if (m < 96 && n < 96)
            break;
        if (m >= n)
            w.row_parts *= 2;
        else
            w.column_parts *= 2;
    }
    mb__pool_run(f->cpu->pool, run_task, &w, (int)(w.groups * w.row_parts * w.column_parts));
}
