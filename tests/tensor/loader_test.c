/* SPDX-License-Identifier: MIT
 * loader_test.c - batches: each row once an epoch, the same whatever the threads, from the middle on, and
 * with errors. ThreadSanitizer runs it too. Prints what failed and "N passed, N failed". */
#include "files.h"

#include <stdatomic.h>
#include <time.h>

enum { ROWS = 53, WIDTH = 3, BATCH = 8 };

static float numbers[ROWS][WIDTH]; /* 10 row + column */
static int32_t labels[ROWS];
static uint8_t bytes[ROWS][WIDTH];

static mb_loader_options options(const mb_column *columns, int n, int threads)
{
    return (mb_loader_options){.columns = columns,
                               .column_count = n,
                               .rows = ROWS,
                               .batch = BATCH,
                               .key = mb_key_of(5),
                               .threads = threads};
}

static mb_column label_column(void)
{
    return (mb_column){.data = labels, .dtype = MB_INT32};
}

/* The labels, which are the rows' numbers, of `batches` batches; counts those that are real. */
static int64_t rows_of(mb_loader *l, int batches, int32_t *out)
{
    int64_t n = 0, real = 0;
    const void *memory = NULL;
    for (int b = 0; b < batches; b++) {
        check(mb_loader_next_memory(l, &memory, &real) == MB_OK, "batch %d", b);
        memcpy(out + n, memory, (size_t)real * sizeof *out);
        n += real;
    }
    return n;
}

static void test_epochs(mb_context *mb)
{
    const mb_column column = label_column();
    int32_t first[3 * ROWS];
    for (int threads = 0; threads <= 4; threads++) {
        int32_t got[3 * ROWS], seen[3][ROWS] = {{0}};
        mb_loader *l = mb_loader_open(mb, options(&column, 1, threads));
        check(mb_loader_batches(l) == 7 && rows_of(l, 21, got) == 3L * ROWS && mb_loader_step(l) == 21,
              "three epochs");
        for (int i = 0; i < 3 * ROWS; i++)
            seen[i / ROWS][got[i]]++;
        for (int i = 0; i < 3 * ROWS; i++)
            check(seen[i / ROWS][i % ROWS] == 1, "each row once an epoch");
        check(memcmp(got, got + ROWS, sizeof labels) != 0, "another order in another epoch");
        if (threads == 0)
            memcpy(first, got, sizeof got);
        check(memcmp(first, got, sizeof got) == 0, "the same order with %d threads", threads);
        mb_loader_close(l);
        for (int step = 0; step < 21; step += 4) { /* from the middle on */
            mb_loader_options o = options(&column, 1, threads);
            o.step = step;
            l = mb_loader_open(mb, o);
            int64_t skipped = step / 7 * ROWS + step % 7 * BATCH;
            check(rows_of(l, 21 - step, got) == 3 * ROWS - skipped &&
                      memcmp(got, first + skipped, (size_t)(3 * ROWS - skipped) * sizeof *got) == 0,
                  "from step %d on", step);
            mb_loader_close(l);
        }
    }
    mb_loader_options o = options(&column, 1, 2);
    int32_t got[ROWS];
    o.key = mb_key_of(6);
    mb_loader *l = mb_loader_open(mb, o);
    rows_of(l, 7, got);
    check(memcmp(got, first, sizeof got) != 0, "another order by another key");
    mb_loader_close(l);
    o.in_order = true;
    l = mb_loader_open(mb, o);
    for (int epoch = 0; epoch < 2; epoch++) {
        rows_of(l, 7, got);
        check(memcmp(got, labels, sizeof got) == 0, "the rows' own order");
    }
    mb_loader_close(l);
}

/* Each order of 4 rows is as frequent as another: of 24 orders in 2400 epochs each 100 times on average, with
 * a deviation of 10. A fair shuffle leaves +-60 once in 10^8. */
static void test_fair(mb_context *mb)
{
    const mb_column column = label_column();
    mb_loader_options o = options(&column, 1, 0);
    int count[256] = {0}, orders = 0;
    o.rows = o.batch = 4;
    mb_loader *l = mb_loader_open(mb, o);
    for (int epoch = 0; epoch < 2400; epoch++) {
        int32_t r[4];
        rows_of(l, 1, r);
        count[r[0] | r[1] << 2 | r[2] << 4 | r[3] << 6]++;
    }
    for (int i = 0; i < 256; i++) {
        orders += count[i] > 0;
        check(!count[i] || abs(count[i] - 100) < 60, "order %x: %d times", (unsigned)i, count[i]);
    }
    check(orders == 24, "%d orders of 4", orders);
    mb_loader_close(l);
}

static void test_last(mb_context *mb)
{
    const mb_column column = label_column();
    for (mb_last last = MB_LAST_SHORT; last <= MB_LAST_PAD; last++) {
        mb_loader_options o = options(&column, 1, 1);
        o.last = last;
        o.in_order = true;
        o.step = last == MB_LAST_DROP ? 5 : 6;
        mb_loader *l = mb_loader_open(mb, o);
        mb_scope scope = mb_scope_begin(mb);
        mb_tensor t;
        int64_t rows;
        check(mb_loader_next(l, &t, &rows) == MB_OK, "%s", mb_message(mb));
        check(rows == (last == MB_LAST_DROP ? 8 : 5), "rows that are real");
        check(mb_count(t) == (last == MB_LAST_SHORT ? 5 : 8), "rows of a tensor");
        int32_t got[BATCH] = {0};
        mb_read(t, got, (size_t)mb_count(t) * sizeof *got);
        for (int i = 0; i < BATCH; i++)
            check(got[i] == (i < rows ? labels[8 * o.step + i] : 0), "%d: row %d", (int)last, i);
        check(mb_loader_next(l, &t, &rows) == MB_OK && rows == 8 && mb_item(mb_max(t, MB_ALL)) == 7,
              "the next epoch");
        mb_scope_end(scope);
        mb_loader_close(l);
    }
}

/* A callback that is slow for some rows, and refuses others. */
typedef struct source {
    atomic_int calls;
    int refused; /* the row; -1: none */
} source;

static const char *read_row(void *user, int64_t row, void *const *columns)
{
    source *s = user;
    atomic_fetch_add(&s->calls, 1);
    if (row % 17 == 0)
        nanosleep(&(struct timespec){0, 200000}, NULL);
    if (row == s->refused)
        return "it is torn";
    memcpy(columns[0], numbers[row], sizeof numbers[row]);
    if (columns[1])
        return "a column with data is not the callback's";
    memcpy(columns[2], bytes[row], sizeof bytes[row]);
    return NULL;
}

/* Floats and bytes of the callback, labels of an array. */
static void set_columns(mb_column columns[3])
{
    columns[0] = (mb_column){.dtype = MB_FLOAT32, .shape = MB_SHAPE(WIDTH)};
    columns[1] = label_column();
    columns[2] = (mb_column){.shape = MB_SHAPE(1, WIDTH), .bytes = true, .scale = 0.5, .offset = -1};
}

static void expect_batch(const float *x, const int32_t *y, const float *z, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        for (int j = 0; j < WIDTH; j++)
            check(x[i * WIDTH + j] == numbers[y[i]][j] &&
                      z[i * WIDTH + j] == 0.5F * (float)bytes[y[i]][j] - 1,
                  "row %d, element %d", y[i], j);
}

static void test_callback(mb_context *mb, int threads)
{
    mb_column columns[3];
    source s = {.refused = -1};
    set_columns(columns);
    mb_loader_options o = options(columns, 3, threads);
    o.read = read_row;
    o.user = &s;
    mb_loader *l = mb_loader_open(mb, o);
    memset(columns, 0, sizeof columns); /* they were copied */
    const void *c[3], *before[3] = {NULL};
    int64_t rows = 0, rows_before = 0;
    long allocations = heap.count;
    for (int b = 0; b < 40; b++) {
        check(mb_loader_next_memory(l, c, &rows) == MB_OK, "%s", mb_message(mb));
        expect_batch(c[0], c[1], c[2], rows);
        if (b) /* still what it was, while threads make others */
            expect_batch(before[0], before[1], before[2], rows_before);
        memcpy(before, c, sizeof c);
        rows_before = rows;
    }
    check(heap.count == allocations, "%ld allocations", heap.count - allocations);
    mb_loader_close(l);

    s.refused = 20; /* the third batch */
    o.columns = columns;
    o.in_order = true;
    set_columns(columns);
    l = mb_loader_open(mb, o);
    for (int b = 0; b < 9; b++) {
        mb_status status = mb_loader_next_memory(l, c, &rows);
        check(b % 7 == 2 ? status == MB_IO && !c[0] && rows == 0 &&
                               strstr(mb_message(mb), "row 20, of batch 2: it is torn")
                         : status == MB_OK && ((const int32_t *)c[1])[0] == b % 7 * BATCH,
              "batch %d: %s", b, mb_message(mb));
        mb_clear_error(mb);
    }
    mb_loader_close(l);
}

static void test_bytes(mb_context *mb)
{
    const mb_column columns[] = {
        {.data = bytes, .shape = MB_SHAPE(WIDTH), .bytes = true, .scale = 1 / 255.0, .offset = -0.25},
        {.data = bytes, .shape = MB_SHAPE(WIDTH), .bytes = true, .dtype = MB_INT32},
        {.data = numbers, .shape = MB_SHAPE(WIDTH, 0, 2), .dtype = MB_FLOAT64},
    };
    mb_loader *l = mb_loader_open(mb, options(columns, 3, 2));
    for (int b = 0; b < 20; b++) {
        mb_scope scope = mb_scope_begin(mb);
        mb_tensor t[3];
        int64_t rows;
        float x[BATCH * WIDTH];
        int32_t n[BATCH * WIDTH];
        check(mb_loader_next(l, t, &rows) == MB_OK && mb_shape_of(t[2]).rank == 4, "%s", mb_message(mb));
        size_t size = (size_t)rows * WIDTH * 4;
        check(!mb_read(t[0], x, size) && !mb_read(t[1], n, size), "%s", mb_message(mb));
        for (int i = 0; i < rows * WIDTH; i++)
            check(x[i] == (float)(n[i] * (1 / 255.0) - 0.25), "byte %d became %g", n[i], x[i]);
        mb_scope_end(scope);
    }
    mb_loader_close(l);
}

static void expect_refused(mb_context *mb, mb_loader_options o, const char *error)
{
    mb_loader *l = mb_loader_open(mb, o);
    check(!l && mb_error(mb) == MB_INVALID && strstr(mb_message(mb), error), "wanted '%s', got '%s'", error,
          mb_message(mb));
    mb_clear_error(mb);
}

static void test_options(mb_context *mb)
{
    mb_column column = label_column();
    const mb_loader_options good = options(&column, 1, 0);
    mb_loader_options o = good;
    o.rows = 0;
    expect_refused(mb, o, "0 rows");
    o = good;
    o.column_count = 0;
    expect_refused(mb, o, "columns");
    o = good;
    o.batch = ROWS + 1;
    o.last = MB_LAST_DROP;
    expect_refused(mb, o, "fewer rows");
    o = good;
    o.threads = 65;
    expect_refused(mb, o, "threads");
    column.scale = 2;
    expect_refused(mb, good, "scale");
    column = (mb_column){.dtype = MB_INT32};
    expect_refused(mb, good, "no callback");
    column = (mb_column){.data = labels, .dtype = MB_BOOL, .bytes = true};
    expect_refused(mb, good, "float32 or int32");
    column = (mb_column){.data = labels, .shape = {8, {1, 1, 1, 1, 1, 1, 1, 1}}};
    expect_refused(mb, good, "rank");
    column = (mb_column){.data = labels, .shape = MB_SHAPE(-1)};
    expect_refused(mb, good, "-1");
    mb_loader_close(NULL);
    check(mb_loader_next(NULL, NULL, NULL) == MB_INVALID && mb_loader_batches(NULL) == 0, "no loader");
}

/* The shards of each batch are, one after the other, the batch of one process. */
static void expect_shards(mb_context *mb, mb_loader_options o, int64_t shards)
{
    enum { BATCHES = 9 };
    mb_loader *whole = mb_loader_open(mb, o), *part[6] = {0};
    for (int64_t k = 0; k < shards; k++) {
        o.shard = k;
        o.shards = shards;
        part[k] = mb_loader_open(mb, o);
        check(mb_loader_batches(part[k]) == mb_loader_batches(whole), "as many batches");
    }
    for (int b = 0; b < BATCHES; b++) {
        const void *all[3], *own[3];
        int64_t rows, count, at = 0;
        check(mb_loader_next_memory(whole, all, &rows) == MB_OK, "%s", mb_message(mb));
        for (int64_t k = 0; k < shards; k++, at += count) {
            check(mb_loader_next_memory(part[k], own, &count) == MB_OK, "%s", mb_message(mb));
            check(at + count <= rows && memcmp(own[0], (const int32_t *)all[0] + at, (size_t)count * 4) == 0,
                  "shard %lld of %lld, batch %d", (long long)k, (long long)shards, b);
            if (o.last == MB_LAST_PAD)
                for (int64_t i = count; i < o.batch / shards; i++)
                    check(((const int32_t *)own[0])[i] == 0, "padding of shard %lld", (long long)k);
        }
        check(at == rows, "%lld rows of %lld", (long long)at, (long long)rows);
    }
    mb_loader_close(whole);
    for (int64_t k = 0; k < shards; k++)
        mb_loader_close(part[k]);
}

static void test_shards(mb_context *mb)
{
    mb_column column = {.data = labels, .dtype = MB_INT32};
    for (int last = MB_LAST_SHORT; last <= MB_LAST_PAD; last++)
        for (int64_t shards = 1; shards <= 6; shards += shards)
            for (int threads = 0; threads <= 2; threads += 2) {
                mb_loader_options o = options(&column, 1, threads);
                o.batch = 4 * shards;
                o.last = (mb_last)last;
                expect_shards(mb, o, shards);
            }
    mb_loader_options o = options(&column, 1, 0);
    o.batch = 6;
    o.shards = 4;
    expect_refused(mb, o, "divisor");
    o.shards = o.shard = 3;
    expect_refused(mb, o, "shard 3 of 3");
    o.shard = -1;
    expect_refused(mb, o, "shard -1");
}

/* Loaders that are closed while their threads are at work. */
static void test_closing(mb_context *mb)
{
    mb_column columns[3];
    source s = {.refused = -1};
    set_columns(columns);
    for (int i = 0; i < 60; i++) {
        mb_loader_options o = options(columns, 3, i % 5);
        o.read = read_row;
        o.user = &s;
        o.batch = 1 + i % 9;
        mb_loader *l = mb_loader_open(mb, o);
        const void *c[3];
        int64_t rows;
        for (int b = 0; b < i % 7; b++) {
            check(mb_loader_next_memory(l, c, &rows) == MB_OK, "%s", mb_message(mb));
            expect_batch(c[0], c[1], c[2], rows);
        }
        mb_loader_close(l);
    }
}

int main(void)
{
    for (int i = 0; i < ROWS; i++) {
        labels[i] = i;
        for (int j = 0; j < WIDTH; j++) {
            numbers[i][j] = (float)(10 * i + j);
            bytes[i][j] = (uint8_t)(31 * i + 7 * j);
        }
    }
    mb_context *mb = open_context();
    test_epochs(mb);
    test_fair(mb);
    test_last(mb);
    for (int threads = 0; threads <= 3; threads++)
        test_callback(mb, threads);
    test_bytes(mb);
    test_options(mb);
    test_shards(mb);
    test_closing(mb);
    check(mb_error(mb) == MB_OK, "an error is left: %s", mb_message(mb));
    mb_close(mb);
    check(heap.live == 0, "%zu bytes were not given back", heap.live);
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
