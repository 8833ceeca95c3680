/* SPDX-License-Identifier: MIT
 *
 * axis_loops.c - ops along an axis, many rows of it at once, and additions at indices. Compiled once for each
 * instruction set, as loops.c is.
 *
 * Where the axis is not the last one its rows lie side by side, and are columns: element after element of all
 * of them is read in the order of memory, and what each has come to is kept in an array. */
#include "backends/cpu/sort.h"

#define RESTRICT __restrict

enum { COLUMNS = MB_AXIS_COLUMNS, ROWS = MB_AXIS_ROWS, LANES = 32, BLOCK = 16 };

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64 };
#elif defined(__AVX2__)
enum { VECTOR_BYTES = 32 };
#else
enum { VECTOR_BYTES = 16 };
#endif

/* NaN counts as the largest. Without branches: compilers make vectors of it. */
#define BEFORE(a, b)     (((a) < (b)) | (((b) != (b)) & ((a) == (a))))
#define EACH_COLUMN      for (int64_t c = 0; c < columns; c++)
#define AT_LEAST(i, low) ((i) < (low) ? (low) : (i))
#define HELD(i, size)    AT_LEAST((i) < (size) ? (i) : (size)-1, 0)

/* Sums of a vector's elements up to each, without waiting for those before the vector. */
#if defined(__AVX512F__)
enum { SUMMED = 8 };
#define SHIFTED_1(v) __builtin_shufflevector(v, (__typeof__(v)){0}, 8, 0, 1, 2, 3, 4, 5, 6)
#define SHIFTED_2(v) __builtin_shufflevector(v, (__typeof__(v)){0}, 8, 8, 0, 1, 2, 3, 4, 5)
#define SHIFTED_4(v) __builtin_shufflevector(v, (__typeof__(v)){0}, 8, 8, 8, 8, 0, 1, 2, 3)
#define LAST_OF(v)   __builtin_shufflevector(v, v, 7, 7, 7, 7, 7, 7, 7, 7)
#define BACKWARDS(v) __builtin_shufflevector(v, v, 7, 6, 5, 4, 3, 2, 1, 0)
#define SUM_UP(v)    v += SHIFTED_1(v), v += SHIFTED_2(v), v += SHIFTED_4(v)
#elif defined(__AVX2__)
enum { SUMMED = 4 };
#define SHIFTED_1(v) __builtin_shufflevector(v, (__typeof__(v)){0}, 4, 0, 1, 2)
#define SHIFTED_2(v) __builtin_shufflevector(v, (__typeof__(v)){0}, 4, 4, 0, 1)
#define LAST_OF(v)   __builtin_shufflevector(v, v, 3, 3, 3, 3)
#define BACKWARDS(v) __builtin_shufflevector(v, v, 3, 2, 1, 0)
#define SUM_UP(v)    v += SHIFTED_1(v), v += SHIFTED_2(v)
#else
enum { SUMMED = 2 }; /* too few to be faster */
#define LAST_OF(v)   __builtin_shufflevector(v, v, 1, 1)
#define BACKWARDS(v) __builtin_shufflevector(v, v, 1, 0)
#define SUM_UP(v)    v += __builtin_shufflevector(v, (__typeof__(v)){0}, 2, 0)
#endif

#define AXIS(T, W, I)                                                                                        \
    static inline void largest_##T(int64_t n, int64_t columns, const T *RESTRICT x, int64_t x_step,          \
                                   T *RESTRICT best, I *RESTRICT at)                                         \
    {                                                                                                        \
        EACH_COLUMN best[c] = x[c], at[c] = 0;                                                               \
        for (int64_t i = 1; i < n; i++) {                                                                    \
            x += x_step;                                                                                     \
            EACH_COLUMN                                                                                      \
            {                                                                                                \
                const T a = best[c], b = x[c];                                                               \
                const bool larger = BEFORE(a, b);                                                            \
                best[c] = larger ? b : a;                                                                    \
                at[c] = larger ? (I)i : at[c];                                                               \
            }                                                                                                \
        }                                                                                                    \
    }                                                                                                        \
    static void argmax_##T(int64_t n, int64_t columns, const void *x, int64_t x_step, void *y,               \
                           int64_t y_step)                                                                   \
    {                                                                                                        \
        T best[COLUMNS];                                                                                     \
        I at[COLUMNS];                                                                                       \
        (void)y_step;                                                                                        \
        largest_##T(n, columns, x, x_step, best, at);                                                        \
        EACH_COLUMN((int32_t *)y)[c] = (int32_t)at[c];                                                       \
    }                                                                                                        \
    /* A row is cut into as many columns as there are lanes; of equal ones the first in the row counts. */   \
    static int32_t argmax_row_##T(int64_t n, const T *x, int64_t x_step)                                     \
    {                                                                                                        \
        T best[LANES], top = x[0];                                                                           \
        I at[LANES];                                                                                         \
        int64_t whole = x_step == 1 ? n / LANES : 0, place = 0;                                              \
        if (whole > 1) {                                                                                     \
            largest_##T(whole, LANES, x, LANES, best, at);                                                   \
            for (int64_t c = 0; c < LANES; c++) {                                                            \
                int64_t i = (int64_t)at[c] * LANES + c;                                                      \
                if (BEFORE(top, best[c]) || (!BEFORE(best[c], top) && i < place))                            \
                    top = best[c], place = i;                                                                \
            }                                                                                                \
        }                                                                                                    \
        for (int64_t i = whole > 1 ? whole * LANES : 1; i < n; i++)                                          \
            if (BEFORE(top, x[i * x_step]))                                                                  \
                top = x[i * x_step], place = i;                                                              \
        return (int32_t)place;                                                                               \
    }                                                                                                        \
    static void argmax_rows_##T(int64_t n, int rows, const void *const *x, int64_t x_step, void *const *y,   \
                                int64_t y_step)                                                              \
    {                                                                                                        \
        (void)y_step;                                                                                        \
        for (int r = 0; r < rows; r++)                                                                       \
            *(int32_t *)y[r] = argmax_row_##T(n, x[r], x_step);                                              \
    }                                                                                                        \
    static void cumsum_##T(int64_t n, int64_t columns, const void *x_, int64_t x_step, void *y_,             \
                           int64_t y_step)                                                                   \
    {                                                                                                        \
        const T *RESTRICT x = x_;                                                                            \
        T *RESTRICT y = y_;                                                                                  \
        W sum[COLUMNS];                                                                                      \
        EACH_COLUMN sum[c] = 0;                                                                              \
        for (int64_t i = 0; i < n; i++, x += x_step, y += y_step)                                            \
            EACH_COLUMN                                                                                      \
            {                                                                                                \
                sum[c] += (W)x[c];                                                                           \
                y[c] = (T)sum[c];                                                                            \
            }                                                                                                \
    }                                                                                                        \
    static void cummax_##T(int64_t n, int64_t columns, const void *x_, int64_t x_step, void *y_,             \
                           int64_t y_step)                                                                   \
    {                                                                                                        \
        const T *RESTRICT x = x_;                                                                            \
        T *RESTRICT y = y_;                                                                                  \
        T top[COLUMNS];                                                                                      \
        EACH_COLUMN top[c] = x[c];                                                                           \
        for (int64_t i = 0; i < n; i++, x += x_step, y += y_step)                                            \
            EACH_COLUMN                                                                                      \
            {                                                                                                \
                const T a = top[c], b = x[c];                                                                \
                y[c] = top[c] = BEFORE(a, b) ? b : a;                                                        \
            }                                                                                                \
    }                                                                                                        \
    /* Without gaps, to the end or, at a step of -1, from it. */                                             \
    static void cumsum_row_##T(int64_t n, const T *x, T *y, int64_t step)                                    \
    {                                                                                                        \
        typedef T each __attribute__((vector_size(SUMMED * sizeof(T))));                                     \
        typedef W wide __attribute__((vector_size(SUMMED * sizeof(W))));                                     \
        wide before = {0};                                                                                   \
        int64_t i = 0;                                                                                       \
        for (; i + SUMMED <= n; i += SUMMED) {                                                               \
            const int64_t at = step > 0 ? i : -i - (SUMMED - 1);                                             \
            each a;                                                                                          \
            memcpy(&a, x + at, sizeof a);                                                                    \
            if (step < 0)                                                                                    \
                a = BACKWARDS(a);                                                                            \
            wide sum = __builtin_convertvector(a, wide);                                                     \
            SUM_UP(sum);                                                                                     \
            const wide whole = LAST_OF(sum);                                                                 \
            sum += before;                                                                                   \
            before += whole;                                                                                 \
            a = __builtin_convertvector(sum, each);                                                          \
            if (step < 0)                                                                                    \
                a = BACKWARDS(a);                                                                            \
            memcpy(y + at, &a, sizeof a);                                                                    \
        }                                                                                                    \
        W sum = before[0];                                                                                   \
        for (; i < n; i++)                                                                                   \
            y[i * step] = (T)(sum += (W)x[i * step]);                                                        \
    }                                                                                                        \
    /* A few rows at once: an element waits for the one before it in its row only. */                        \
    static void cumsum_rows_##T(int64_t n, int rows, const void *const *x_, int64_t x_step, void *const *y_, \
                                int64_t y_step)                                                              \
    {                                                                                                        \
        const T *const *x = (const T *const *)x_;                                                            \
        T *const *y = (T *const *)y_;                                                                        \
        if (SUMMED > 2 && n >= 4 * SUMMED && (x_step == 1 || x_step == -1) && x_step == y_step) {            \
            for (int r = 0; r < rows; r++)                                                                   \
                cumsum_row_##T(n, x[r], y[r], x_step);                                                       \
            return;                                                                                          \
        }                                                                                                    \
        if (rows == ROWS) {                                                                                  \
            W sum[ROWS] = {0};                                                                               \
            for (int64_t i = 0; i < n; i++)                                                                  \
                for (int r = 0; r < ROWS; r++)                                                               \
                    y[r][i * y_step] = (T)(sum[r] += (W)x[r][i * x_step]);                                   \
            return;                                                                                          \
        }                                                                                                    \
        for (int r = 0; r < rows; r++) {                                                                     \
            W sum = 0;                                                                                       \
            for (int64_t i = 0; i < n; i++)                                                                  \
                y[r][i * y_step] = (T)(sum += (W)x[r][i * x_step]);                                          \
        }                                                                                                    \
    }                                                                                                        \
    /* Mostly the first, in a row: a branch that is foreseen takes less than its choice. */                  \
    static inline T larger_##T(T a, T b)                                                                     \
    {                                                                                                        \
        if (__builtin_expect(!(b <= a), 0))                                                                  \
            a = BEFORE(a, b) ? b : a;                                                                        \
        return a;                                                                                            \
    }                                                                                                        \
    static void cummax_rows_##T(int64_t n, int rows, const void *const *x_, int64_t x_step, void *const *y_, \
                                int64_t y_step)                                                              \
    {                                                                                                        \
        const T *const *x = (const T *const *)x_;                                                            \
        T *const *y = (T *const *)y_;                                                                        \
        if (rows == ROWS) {                                                                                  \
            T top[ROWS];                                                                                     \
            for (int r = 0; r < ROWS; r++)                                                                   \
                top[r] = *x[r];                                                                              \
            for (int64_t i = 0; i < n; i++)                                                                  \
                for (int r = 0; r < ROWS; r++)                                                               \
                    y[r][i * y_step] = top[r] = larger_##T(top[r], x[r][i * x_step]);                        \
            return;                                                                                          \
        }                                                                                                    \
        for (int r = 0; r < rows; r++) {                                                                     \
            T top = *x[r];                                                                                   \
            for (int64_t i = 0; i < n; i++)                                                                  \
                y[r][i * y_step] = top = larger_##T(top, x[r][i * x_step]);                                  \
        }                                                                                                    \
    }                                                                                                        \
    /* How many elements come before each of a block of them: those that are smaller, and equal ones that    \
     * stand before it. A comparison is -1 where it holds. */                                                \
    static void ranks_##T(int64_t n, int64_t block, const I *key, I *rank)                                   \
    {                                                                                                        \
        typedef I vec __attribute__((vector_size(VECTOR_BYTES)));                                            \
        enum { WIDTH = VECTOR_BYTES / sizeof(I), VECTORS = BLOCK / WIDTH };                                  \
        vec k[VECTORS], place[VECTORS], r[VECTORS] = {{0}};                                                  \
        int64_t i = 0, end = block + BLOCK < n ? block + BLOCK : n;                                          \
        memcpy(k, key + block, sizeof k);                                                                    \
        for (int j = 0; j < BLOCK; j++)                                                                      \
            place[j / WIDTH][j % WIDTH] = (I)(block + j);                                                    \
                                                                                                             \
        for (; i < block; i++)                                                                               \
            for (int v = 0; v < VECTORS; v++)                                                                \
                r[v] -= k[v] >= key[i];                                                                      \
        for (; i < end; i++)                                                                                 \
            for (int v = 0; v < VECTORS; v++)                                                                \
                r[v] -= (k[v] > key[i]) | ((k[v] == key[i]) & (place[v] > (I)i));                            \
        for (; i < n; i++)                                                                                   \
            for (int v = 0; v < VECTORS; v++)                                                                \
                r[v] -= k[v] > key[i];                                                                       \
        memcpy(rank + block, r, sizeof r);                                                                   \
    }                                                                                                        \
    static void argsort_short_##T(const mb__sort_call *s)                                                    \
    {                                                                                                        \
        const T *x = s->x;                                                                                   \
        const int64_t n = s->n;                                                                              \
        const I turned = s->descending ? -1 : 0;                                                             \
        I key[MB_AXIS_SHORT] = {0}, rank[MB_AXIS_SHORT];                                                     \
        for (int64_t i = 0; i < n; i++)                                                                      \
            key[i] = mb__key_of_##T(x[i * s->x_step]) ^ turned;                                              \
        for (int64_t block = 0; block < n; block += BLOCK)                                                   \
            ranks_##T(n, block, key, rank);                                                                  \
        for (int64_t i = 0; i < n; i++)                                                                      \
            s->y[rank[i] * s->y_step] = rank[i] < s->wanted ? (int32_t)i : 0;                                \
    }                                                                                                        \
    /* Inserts an element into the first ones so far, after those that equal it. */                          \
    static inline int64_t insert_##T(I *key, int32_t *at, int64_t held, int64_t wanted, I k, int64_t i)      \
    {                                                                                                        \
        int64_t to = held < wanted ? held : wanted - 1;                                                      \
        for (; to > 0 && key[to - 1] > k; to--)                                                              \
            key[to] = key[to - 1], at[to] = at[to - 1];                                                      \
        key[to] = k, at[to] = (int32_t)i;                                                                    \
        return held < wanted ? held + 1 : held;                                                              \
    }                                                                                                        \
    /* Mostly no element of a block comes before the last of the first ones so far. */                       \
    static void leading_few_##T(const mb__sort_call *s)                                                      \
    {                                                                                                        \
        I key[MB_AXIS_FEW], k[LANES] = {0};                                                                  \
        int32_t at[MB_AXIS_FEW];                                                                             \
        const I turned = s->descending ? -1 : 0;                                                             \
        int64_t held = 0;                                                                                    \
        for (int64_t i = 0; i < s->n; i += LANES) {                                                          \
            const T *x = (const T *)s->x + i * s->x_step;                                                    \
            const int64_t count = s->n - i < LANES ? s->n - i : LANES;                                       \
            const I last = held < s->wanted ? 0 : key[held - 1];                                             \
            I any = held < s->wanted || count < LANES;                                                       \
            if (s->x_step == 1 && count == LANES)                                                            \
                for (int c = 0; c < LANES; c++)                                                              \
                    k[c] = mb__key_of_##T(x[c]) ^ turned;                                                    \
            else                                                                                             \
                for (int64_t c = 0; c < count; c++)                                                          \
                    k[c] = mb__key_of_##T(x[c * s->x_step]) ^ turned;                                        \
            for (int c = 0; c < LANES; c++)                                                                  \
                any |= k[c] < last;                                                                          \
            for (int64_t c = 0; any && c < count; c++)                                                       \
                if (held < s->wanted || k[c] < key[held - 1])                                                \
                    held = insert_##T(key, at, held, s->wanted, k[c], i + c);                                \
        }                                                                                                    \
        for (int64_t i = 0; i < s->n; i++)                                                                   \
            s->y[i * s->y_step] = i < held ? at[i] : 0;                                                      \
    }                                                                                                        \
    /* Entries of one element. Indices are held within the axis many at once, elements are read one by one:  \
     * in half the time of gathers, which compilers choose unless a place is out of their sight. */          \
    static void take_at_##T(int64_t n, const int32_t *index, int64_t size, const void *x_, int64_t x_step,   \
                            void *y_)                                                                        \
    {                                                                                                        \
        enum { BLOCK = 256 };                                                                                \
        const T *RESTRICT x = x_;                                                                            \
        T *RESTRICT y = y_;                                                                                  \
        const int32_t last = (int32_t)(size < INT32_MAX ? size - 1 : INT32_MAX);                             \
        int32_t place[BLOCK];                                                                                \
        for (int64_t at = 0; at < n; at += BLOCK) {                                                          \
            const int64_t m = n - at < BLOCK ? n - at : BLOCK;                                               \
            for (int64_t e = 0; e < m; e++) {                                                                \
                int32_t i = index[at + e] < last ? index[at + e] : last;                                     \
                place[e] = i < 0 ? 0 : i;                                                                    \
            }                                                                                                \
            for (int64_t e = 0; e < m; e++) {                                                                \
                uint32_t i = (uint32_t)place[e];                                                             \
                __asm__("" : "+r"(i));                                                                       \
                y[at + e] = x[i * x_step];                                                                   \
            }                                                                                                \
        }                                                                                                    \
    }                                                                                                        \
    /* In order: entries of one place are added one after the other. */                                      \
    static void add_at_##T(const mb__add_call *a)                                                            \
    {                                                                                                        \
        const T *x = a->x;                                                                                   \
        T *y = a->y;                                                                                         \
        const int32_t *index = a->index;                                                                     \
        const int64_t n = a->entries, run = a->run, size = a->size;                                          \
        for (int64_t e = 0; e < n && run == 1; e++, x += a->x_entry, index += a->index_step) {               \
            T *d = y + HELD(*index, size) * a->y_entry;                                                      \
            *d += *x;                                                                                        \
        }                                                                                                    \
        for (int64_t e = 0; e < n && run > 1; e++, x += a->x_entry, index += a->index_step) {                \
            T *RESTRICT d = y + HELD(*index, size) * a->y_entry;                                             \
            if (a->x_step == 1 && a->y_step == 1)                                                            \
                for (int64_t c = 0; c < run; c++)                                                            \
                    d[c] += x[c];                                                                            \
            else                                                                                             \
                for (int64_t c = 0; c < run; c++)                                                            \
                    d[c * a->y_step] += x[c * a->x_step];                                                    \
        }                                                                                                    \
    }
/* T; what sums of it are computed in, so that a million float32 lose no accuracy, and int32 wraps; an integer
 * as wide as T, which places are counted in. */
AXIS(float, double, int32_t)
AXIS(double, double, int64_t)
AXIS(int32_t, uint32_t, int32_t)

/* A new op along an axis is two functions in AXIS and a row here. */
#define TABLE(T)                                                                                             \
    {                                                                                                        \
        {{MB_OP_ARGMAX, argmax_##T, argmax_rows_##T},                                                        \
         {MB_OP_CUMSUM, cumsum_##T, cumsum_rows_##T},                                                        \
         {MB_OP_CUMMAX, cummax_##T, cummax_rows_##T}},                                                       \
            argsort_short_##T, leading_few_##T, add_at_##T, take_at_##T                                      \
    }
extern const mb__axis_loops MB_AXIS[3];
const mb__axis_loops MB_AXIS[3] = {TABLE(float), TABLE(double), TABLE(int32_t)};
