/* SPDX-License-Identifier: MIT
 *
 * files_test.c - safetensors, IDX and image batches: round trips, a corpus of malformed files, files cut at
 * every byte and with every byte changed, failing disks and failing allocations. Prints what failed and "N
 * passed, N failed". */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include <moebius.h>

static int passed, failed;
static char folder[256];

static bool check(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool check(bool ok, const char *format, ...)
{
    if (ok) {
        passed++;
        return true;
    }
    failed++;
    va_list args;
    va_start(args, format);
    printf("FAILED: ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    return false;
}

static const char *in_folder(const char *name)
{
    static char paths[8][1024];
    static int next;
    char *p = paths[next++ % 8];
    snprintf(p, sizeof paths[0], "%s/%s", folder, name);
    return p;
}

static void put_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

static char *get_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*n + 1);
    if (fread(data, 1, *n, f) != *n)
        exit(1);
    fclose(f);
    return data;
}

static int files_in_folder(void)
{
    char command[320];
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", folder);
    FILE *p = popen(command, "r");
    int n = -1;
    if (!p || fscanf(p, "%d", &n) != 1)
        exit(1);
    pclose(p);
    return n;
}

/* ---- an allocator that counts, remembers its largest request, and fails the n-th ---- */

static struct {
    size_t largest, live;
    long count, fail_at; /* 0: never */
} heap;

static void *heap_alloc(void *user, size_t size)
{
    (void)user;
    if (++heap.count == heap.fail_at)
        return NULL;
    heap.largest = size > heap.largest ? size : heap.largest;
    heap.live += size;
    return malloc(size ? size : 1);
}

static void *heap_realloc(void *user, void *p, size_t old, size_t size)
{
    (void)user;
    if (++heap.count == heap.fail_at)
        return NULL;
    heap.largest = size > heap.largest ? size : heap.largest;
    heap.live += size - old;
    return realloc(p, size);
}

static void heap_free(void *user, void *p, size_t size)
{
    (void)user;
    heap.live -= size;
    free(p);
}

static mb_context *open_context(void)
{
    static const mb_allocator a = {heap_alloc, heap_realloc, heap_free, NULL};
    mb_options o = {.backend = "reference", .allocator = &a};
    mb_context *mb = mb_open_with(&o);
    if (!mb || mb_error(mb)) {
        printf("cannot open a context: %s\n", mb_message(mb));
        exit(1);
    }
    return mb;
}

/* ---- safetensors ---- */

/* Writes header and `data` bytes of zeros to a file. */
static const char *st_file(const char *header, size_t header_bytes, size_t data)
{
    const char *path = in_folder("x.safetensors");
    char *all = calloc(1, 8 + header_bytes + data);
    uint64_t n = header_bytes;
    memcpy(all, &n, 8);
    memcpy(all + 8, header, header_bytes);
    put_file(path, all, 8 + header_bytes + data);
    free(all);
    return path;
}

static void expect_open(mb_context *mb, const char *what, const char *path, const char *error)
{
    mb_safetensors *f = mb_safetensors_open(mb, path);
    if (!error)
        check(f != NULL, "%s: refused: %s", what, mb_message(mb));
    else
        check(!f && strstr(mb_message(mb), error), "%s: wanted '%s', got '%s'", what, error,
              f ? "a file" : mb_message(mb));
    mb_safetensors_close(f);
    mb_clear_error(mb);
}

#define A(fields)                     "{\"a\":{" fields "}}"
#define FIELDS(dtype, shape, offsets) "\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets

static const struct {
    const char *header;
    size_t data;
    const char *error; /* NULL: fine */
} corpus[] = {
    {"{}", 0, NULL},
    {"{}", 1, "1 bytes after the last tensor"},
    {"", 0, "header ends early"},
    {"{", 0, "header ends early"},
    {"[]", 0, "'{' wanted"},
    {"17", 0, "'{' wanted"},
    {"null", 0, "'{' wanted"},
    {"{\"a\":1}", 0, "'{' wanted to begin a tensor"},
    {"{\"a\":null}", 0, "'{' wanted to begin a tensor"},
    {"{\"a\":[[[[[[[[]]]]]]]]}", 0, "'{' wanted to begin a tensor"},
    {"{'a':1}", 0, "'\"' wanted"},
    {"{,}", 0, "'\"' wanted"},
    {"{\"a\"}", 0, "':' wanted"},
    {"{} x", 0, "text after its end"},
    {"{}{}", 0, "text after its end"},
    {"{}   \n\t\r ", 0, NULL},
    {"  \n{}", 0, NULL},
    {A(FIELDS("F32", "[2]", "[0,8]")), 8, NULL},
    {A(FIELDS("F32", "[]", "[0,4]")), 4, NULL},
    {A(FIELDS("F32", "[0]", "[0,0]")), 0, NULL},
    {A(FIELDS("F32", "[3,0,5]", "[0,0]")), 0, NULL},
    {A(FIELDS("BF16", "[2]", "[0,4]")), 4, NULL},
    {A(FIELDS("F4", "[2]", "[0,1]")), 1, NULL},
    {A(FIELDS("F4", "[3]", "[0,1]")), 1, "whole bytes"},
    {A(FIELDS("F6_E2M3", "[4]", "[0,3]")), 3, NULL},
    {A("\"data_offsets\" : [ 0 , 8 ] , \"shape\" : [ 2 ] , \"dtype\" : \"I32\" "), 8, NULL},
    {A("\"\\u0064type\":\"F\\u00332\",\"shape\":[2],\"data_offsets\":[0,8]"), 8, NULL},
    {A(FIELDS("F32", "[2]", "[0,8]") ","), 8, "'\"' wanted"},
    {"{\"a\":{" FIELDS("F32", "[2]", "[0,8]") "},}", 8, "'\"' wanted"},
    {A(""), 0, "'dtype' is missing"},
    {A("\"shape\":[],\"data_offsets\":[0,4]"), 4, "'dtype' is missing"},
    {A("\"dtype\":\"F32\",\"data_offsets\":[0,4]"), 4, "'shape' is missing"},
    {A("\"dtype\":\"F32\",\"shape\":[]"), 4, "'data_offsets' is missing"},
    {A(FIELDS("F32", "[]", "[0,4]") ",\"extra\":1"), 4, "unexpected field 'extra'"},
    {A("\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]"), 4,
     "'dtype' appears twice"},
    {A("\"dtype\":\"F32\",\"shape\":[],\"shape\":[],\"data_offsets\":[0,4]"), 4, "'shape' appears twice"},
    {A("\"data_offsets\":[0,4],\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]"), 4,
     "'data_offsets' appears twice"},
    {A(FIELDS("F33", "[]", "[0,4]")), 4, "unknown dtype 'F33'"},
    {A(FIELDS("f32", "[]", "[0,4]")), 4, "unknown dtype 'f32'"},
    {A(FIELDS("", "[]", "[0,4]")), 4, "unknown dtype ''"},
    {A("\"dtype\":32,\"shape\":[],\"data_offsets\":[0,4]"), 4, "'\"' wanted to begin the dtype"},
    {A(FIELDS("F32", "[-1]", "[0,4]")), 4, "not a whole number"},
    {A(FIELDS("F32", "[1.5]", "[0,4]")), 4, "not a whole number"},
    {A(FIELDS("F32", "[1.0]", "[0,4]")), 4, "not a whole number"},
    {A(FIELDS("F32", "[1e3]", "[0,4]")), 4, "not a whole number"},
    {A(FIELDS("F32", "[01]", "[0,4]")), 4, "not a whole number"},
    {A(FIELDS("F32", "[+1]", "[0,4]")), 4, "not a whole number"},
    {A(FIELDS("F32", "[\"1\"]", "[0,4]")), 4, "not a whole number"},
    {A(FIELDS("F32", "[1,]", "[0,4]")), 4, "not a whole number"},
    {A(FIELDS("F32", "[1 1]", "[0,4]")), 4, "',' or ']' wanted"},
    {A(FIELDS("F32", "[9007199254740993]", "[0,4]")), 4, "2^48 or more"},
    {A(FIELDS("F32", "[18446744073709551616]", "[0,4]")), 4, "2^48 or more"},
    {A(FIELDS("F32", "[18446744073709551617]", "[0,4]")), 4, "2^48 or more"},
    {A(FIELDS("F32", "[4294967296,4294967296]", "[0,0]")), 0, "the shape overflow"},
    {A(FIELDS("F32", "[4294967296,4294967296,0]", "[0,0]")), 0, "the shape overflow"},
    {A(FIELDS("F32", "[0,4294967296,4294967296]", "[0,0]")), 0, "the shape overflow"},
    {A(FIELDS("F32", "[281474976710655,281474976710655,281474976710655,3]", "[0,4]")), 4,
     "the shape overflow"},
    {A(FIELDS("U8", "[65536,65536,65536]", "[0,4]")), 4, "elements or more"},
    {A(FIELDS("F64", "[70368744177664]", "[0,0]")), 0, "need 562949953421312 bytes"},
    {A(FIELDS("F32", "1", "[0,4]")), 4, "'[' wanted to begin a shape"},
    {A(FIELDS("F32", "null", "[0,4]")), 4, "'[' wanted to begin a shape"},
    {A(FIELDS("F32", "[[1]]", "[0,4]")), 4, "not a whole number"},
    {A(FIELDS("F32", "[1,1,1,1,1,1,1,1]", "[0,4]")), 4, NULL},
    {A(FIELDS("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]")), 4, "more than 8 axes"},
    {A(FIELDS("F32", "[0]", "[0,4]")), 4, "need 0 bytes"},
    {A(FIELDS("F32", "[1]", "[4,0]")), 4, "run backwards"},
    {A(FIELDS("F32", "[1]", "[0,4,8]")), 4, "']' wanted to end data_offsets"},
    {A(FIELDS("F32", "[1]", "[0]")), 4, "',' wanted between data_offsets"},
    {A(FIELDS("F32", "[1]", "[]")), 4, "not a whole number"},
    {A(FIELDS("F32", "[1]", "[4,8]")), 8, "4 bytes before its data"},
    {A(FIELDS("F32", "[1]", "[0,4]")), 3, "end at byte 4, and the file has 3"},
    {A(FIELDS("F32", "[1]", "[0,4]")), 5, "1 bytes after the last tensor"},
    {A(FIELDS("F32", "[2]", "[0,4]")), 4, "need 8 bytes"},
    {A(FIELDS("F32", "[1]", "[0,18446744073709551615]")), 4, "2^48 or more"},
    {A(FIELDS("F32", "[1]", "[18446744073709551612,18446744073709551616]")), 4, "2^48 or more"},
    {"{\"a\":{" FIELDS("F32", "[1]", "[0,4]") "},\"a\":{" FIELDS("F32", "[1]", "[4,8]") "}}", 8,
     "'a': appears twice"},
    {"{\"a\":{" FIELDS("F32", "[1]", "[0,4]") "},\"\\u0061\":{" FIELDS("F32", "[1]", "[4,8]") "}}", 8,
     "'a': appears twice"},
    {"{\"a\":{" FIELDS("F32", "[1]", "[0,4]") "},\"b\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "overlap"},
    {"{\"a\":{" FIELDS("F32", "[2]", "[0,8]") "},\"b\":{" FIELDS("F32", "[1]", "[4,8]") "}}", 8, "overlap"},
    {"{\"a\":{" FIELDS("F32", "[2]", "[0,8]") "},\"b\":{" FIELDS("F32", "[1]", "[4,8]") "}}", 12,
     "overlap those of another"},
    {"{\"a\":{" FIELDS("F32", "[1]", "[0,4]") "},\"b\":{" FIELDS("F32", "[1]", "[8,12]") "}}", 12,
     "belong to no tensor"},
    {"{\"b\":{" FIELDS("F32", "[1]", "[4,8]") "},\"a\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 8, NULL},
    {"{\"b\":{" FIELDS("F32", "[1]", "[0,4]") "},\"a\":{" FIELDS("F32", "[0]", "[4,4]") "},\"c\":{" FIELDS(
         "F32", "[0]", "[0,0]") "}}",
     4, NULL},
    {"{\"\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "empty name"},
    {"{\"a\\u0000b\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "NUL character"},
    {"{\"a\nb\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "control character"},
    {"{\"a\\qb\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "unknown escape"},
    {"{\"\\u12G4\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "four hexadecimal digits"},
    {"{\"\\ud800\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "surrogate"},
    {"{\"\\ude00\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "surrogate"},
    {"{\"\\ud83d\\ude00\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, NULL},
    {"{\"\xff\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "not UTF-8"},
    {"{\"\xc0\x80\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "not UTF-8"},
    {"{\"\xe0\x80\x80\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "not UTF-8"},
    {"{\"\xed\xa0\x80\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "not UTF-8"},
    {"{\"\xf5\x80\x80\x80\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "not UTF-8"},
    {"{\"\xc3\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "not UTF-8"},
    {"{\"\xc3\xa9\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, NULL},
    {"\xef\xbb\xbf{}", 0, "'{' wanted"},
    {"{\"a", 0, "ends inside a string"},
    {"{\"a\\", 0, "unknown escape"},
    {"{\"__metadata__\":{}}", 0, NULL},
    {"{\"__metadata__\":{\"a\":\"b\",\"c\":\"\"}}", 0, NULL},
    {"{\"__metadata__\":{\"\":\"\"}}", 0, NULL},
    {"{\"__metadata__\":{\"a\":1}}", 0, "'\"' wanted to begin a value"},
    {"{\"__metadata__\":{\"a\":{}}}", 0, "'\"' wanted to begin a value"},
    {"{\"__metadata__\":{\"a\":\"b\",\"a\":\"c\"}}", 0, "metadata 'a' appears twice"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "'__metadata__' appears twice"},
    {"{\"__metadata__\":[]}", 0, "'{' wanted to begin __metadata__"},
    {"{\"__metadata__\":{" FIELDS("F32", "[1]", "[0,4]") "}}", 4, "'\"' wanted to begin a value"},
    {"\x00{}", 0, "header ends early"},
};

static void test_corpus(mb_context *mb)
{
    for (size_t i = 0; i < sizeof corpus / sizeof *corpus; i++) {
        heap.largest = 0;
        size_t n = strlen(corpus[i].header);
        expect_open(mb, corpus[i].header, st_file(corpus[i].header, n, corpus[i].data), corpus[i].error);
        check(heap.largest <= 8 + n + corpus[i].data + 65536, "an allocation of %zu for %s", heap.largest,
              corpus[i].header);
    }
    expect_open(mb, "NUL in the header", st_file("{}\0", 3, 0), "text after its end");

    static const struct {
        uint64_t n;
        size_t bytes;
        const char *error;
    } lengths[] = {
        {0, 0, "too few"},
        {0, 7, "too few"},
        {0, 8, "header ends early"},
        {3, 10, "longer than the file"},
        {UINT64_MAX, 100, "above the limit"},
        {UINT64_MAX - 8, 100, "above the limit"},
        {100000001, 100, "above the limit"},
        {100000000, 100, "longer than the file"},
    };
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char bytes[128] = {0};
        memcpy(bytes, &lengths[i].n, 8);
        put_file(in_folder("x.safetensors"), bytes, lengths[i].bytes);
        heap.largest = 0;
        expect_open(mb, "header length", in_folder("x.safetensors"), lengths[i].error);
        check(heap.largest <= 1000 + 65536, "an allocation of %zu for a bad header length", heap.largest);
    }
    expect_open(mb, "missing", in_folder("nothing"), "No such file");
    expect_open(mb, "folder", folder, "not a regular file");
    mkfifo(in_folder("fifo"), 0600);
    expect_open(mb, "FIFO", in_folder("fifo"), "not a regular file");
    unlink(in_folder("fifo"));
    expect_open(mb, "device", "/dev/full", "not a regular file");
    expect_open(mb, "no path", NULL, "no path");

    /* a name too long, and one that is just not */
    for (size_t n = 4096; n <= 1 << 20; n = n == 4096 ? 4097 : n == 4097 ? 1 << 20 : n + 1) {
        char *header = malloc(n + 200);
        size_t at = (size_t)sprintf(header, "{\"");
        memset(header + at, 'n', n);
        at += n;
        at += (size_t)sprintf(header + at, "\":{" FIELDS("F32", "[1]", "[0,4]") "}}");
        expect_open(mb, "long name", st_file(header, at, 4), n > 4096 ? "above 4096" : NULL);
        free(header);
    }
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Headers that are large, or built to be slow: each under a second, and no allocation above the file and 64
 * KiB. */
static void test_large(mb_context *mb)
{
    enum { N = 1000000 };
    char *header = malloc((size_t)N * 110);
    for (int kind = 0; kind < 6; kind++) {
        size_t at = 0, data = 0;
        const char *error = NULL;
        switch (kind) {
        case 0: /* honest */
        case 1: /* in the reverse order */
        case 2: /* all on the same bytes */
            header[at++] = '{';
            for (int i = 0; i < N; i++) {
                int o = kind == 0 ? 4 * i : kind == 1 ? 4 * (N - 1 - i) : 0;
                at += (size_t)sprintf(
                    header + at,
                    "%s\"layers.%d.w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                    i ? "," : "", i, o, o + 4);
            }
            header[at++] = '}';
            data = kind == 2 ? 4 : (size_t)N * 4;
            error = kind == 2 ? "overlap" : NULL;
            break;
        case 3: /* deep */
            at = (size_t)sprintf(header, "{\"a\":");
            memset(header + at, '[', N);
            at += N;
            error = "'{' wanted";
            break;
        case 4: /* much metadata */
            at = (size_t)sprintf(header, "{\"__metadata__\":{");
            for (int i = 0; i < N; i++)
                at += (size_t)sprintf(header + at, "%s\"%d\":\"\"", i ? "," : "", i);
            at += (size_t)sprintf(header + at, "}}");
            error = "more than 4096 entries";
            break;
        case 5: /* the same name a million times, empty tensors */
            header[at++] = '{';
            for (int i = 0; i < N; i++)
                at += (size_t)sprintf(header + at,
                                      "%s\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}",
                                      i ? "," : "");
            header[at++] = '}';
            error = "appears twice";
            break;
        }
        const char *path = st_file(header, at, data);
        heap.largest = 0;
        double t = seconds();
        expect_open(mb, "large header", path, error);
        t = seconds() - t;
        check(t < 10.0, "large header %d took %.2f s", kind, t);
        check(heap.largest <= at + data + 65536, "large header %d: an allocation of %zu for %zu", kind,
              heap.largest, at + data);
        printf("large header %d: %.1f MB in %.2f s\n", kind, 1e-6 * (double)at, t);
    }
    free(header);
}

static mb_tensor make(mb_context *mb, mb_dtype dtype, mb_shape shape, int seed)
{
    union {
        float f[64];
        double d[64];
        int32_t i[64];
        uint8_t b[64];
    } v;
    for (int i = 0; i < 64; i++) {
        int k = seed * 64 + i;
        switch (dtype) {
        case MB_FLOAT32:
            v.f[i] = (float)k / 7;
            break;
        case MB_FLOAT64:
            v.d[i] = k / 7.0;
            break;
        case MB_INT32:
            v.i[i] = k * 1000003;
            break;
        case MB_BOOL:
            v.b[i] = k % 3 == 0;
            break;
        }
    }
    return mb_from(mb, dtype, shape, &v);
}

static const char *const names[] = {
    "bool", "ints", "w.bias", "w.weight", "scalar", "none", "d\xc3\xa9j\xc3\xa0 \"vu\"\\\n"};
static const char *const metadata[] = {"format", "pt", "note", "a \"quoted\" \\ line\n\xe2\x82\xac",
                                       "",       "",   NULL};
enum { NAMES = 7 };

static void make_all(mb_context *mb, mb_tensor *ts)
{
    ts[0] = make(mb, MB_BOOL, MB_SHAPE(3, 3), 1);
    ts[1] = make(mb, MB_INT32, MB_SHAPE(5), 2);
    ts[2] = make(mb, MB_FLOAT32, MB_SHAPE(4), 3);
    ts[3] = make(mb, MB_FLOAT32, MB_SHAPE(4, 2, 1), 4);
    ts[4] = make(mb, MB_FLOAT64, MB_SHAPE0, 5);
    ts[5] = make(mb, MB_FLOAT64, MB_SHAPE(3, 0), 6);
    ts[6] = make(mb, MB_FLOAT32, MB_SHAPE(1, 1, 1, 1, 1, 1, 1, 2), 7);
}

static bool same(mb_tensor a, mb_tensor b)
{
    mb_shape sa = mb_shape_of(a), sb = mb_shape_of(b);
    size_t n = (size_t)mb_count(a) * mb_dtype_size(mb_dtype_of(a));
    if (!mb_valid(a) || !mb_valid(b) || mb_dtype_of(a) != mb_dtype_of(b) || sa.rank != sb.rank ||
        memcmp(sa.dim, sb.dim, sizeof(int64_t) * (size_t)sa.rank) != 0)
        return false;
    char *da = calloc(1, n + 1), *db = calloc(1, n + 1);
    bool ok = mb_read(a, da, n) == MB_OK && mb_read(b, db, n) == MB_OK && memcmp(da, db, n) == 0;
    free(da);
    free(db);
    return ok;
}

static void test_round_trip(mb_context *mb)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor ts[NAMES], back[NAMES];
    make_all(mb, ts);
    const char *path = in_folder("round.safetensors");
    check(mb_safetensors_save(mb, path, names, ts, NAMES, metadata) == MB_OK, "save: %s", mb_message(mb));
    check(mb_safetensors_load(mb, path, names, back, NAMES) == MB_OK, "load: %s", mb_message(mb));
    for (int i = 0; i < NAMES; i++)
        check(same(ts[i], back[i]), "'%s' came back differently", names[i]);

    mb_safetensors *f = mb_safetensors_open(mb, path);
    if (check(f != NULL, "open: %s", mb_message(mb))) {
        check(mb_safetensors_count(f) == NAMES, "count %d", mb_safetensors_count(f));
        const char *order = "";
        for (int i = 0; i < NAMES; i++) { /* F64, F32, I32, BOOL; by name within */
            static const char *const sorted[] = {"F64", "F64", "F32", "F32", "F32", "I32", "BOOL"};
            check(strcmp(mb_safetensors_dtype_name(f, i), sorted[i]) == 0, "tensor %d is %s", i,
                  mb_safetensors_dtype_name(f, i));
            check(i == 0 || strcmp(sorted[i - 1], sorted[i]) != 0 ||
                      strcmp(order, mb_safetensors_name(f, i)) < 0,
                  "'%s' is out of order", mb_safetensors_name(f, i));
            order = mb_safetensors_name(f, i);
            check(mb_safetensors_find(f, order) == i, "find '%s'", order);
        }
        check(mb_safetensors_find(f, "w") == -1 && mb_safetensors_find(f, "") == -1,
              "found what is not there");
        check(mb_safetensors_name(f, -1) == NULL && mb_safetensors_name(f, NAMES) == NULL,
              "a name out of range");
        for (int i = 0; metadata[i]; i += 2) {
            const char *key, *value;
            check(strcmp(mb_safetensors_metadata(f, metadata[i]), metadata[i + 1]) == 0, "metadata '%s'",
                  metadata[i]);
            check(mb_safetensors_metadata_pair(f, i / 2, &key, &value) && strcmp(key, metadata[i]) == 0 &&
                      strcmp(value, metadata[i + 1]) == 0,
                  "metadata pair %d", i / 2);
        }
        check(mb_safetensors_metadata(f, "nothing") == NULL, "metadata that is not there");
        mb_shape s = mb_safetensors_shape(f, mb_safetensors_find(f, "w.weight"));
        check(s.rank == 3 && s.dim[0] == 4 && s.dim[1] == 2 && s.dim[2] == 1, "shape of w.weight");
    }
    mb_safetensors_close(f);

    size_t n, m;
    char *one = get_file(path, &n);
    check(n % 4 == 1 && *(uint64_t *)(void *)one % 8 == 0, "the header is not padded to 8");
    mb_tensor shuffled[NAMES];
    const char *shuffled_names[NAMES];
    for (int i = 0; i < NAMES; i++) {
        shuffled[i] = ts[(i * 3 + 2) % NAMES];
        shuffled_names[i] = names[(i * 3 + 2) % NAMES];
    }
    mb_safetensors_save(mb, in_folder("again.safetensors"), shuffled_names, shuffled, NAMES, metadata);
    char *two = get_file(in_folder("again.safetensors"), &m);
    check(two && n == m && memcmp(one, two, n) == 0, "the bytes depend on the order of arguments");
    free(one);
    free(two);

    /* loading: exactly these names */
    check(mb_safetensors_load(mb, path, names, back, NAMES - 1) == MB_FORMAT &&
              strstr(mb_message(mb), "unexpected tensor 'd"),
          "an extra tensor: %s", mb_message(mb));
    check(back[0].ctx == NULL, "tensors after an error");
    mb_clear_error(mb);
    const char *other[NAMES + 1];
    memcpy(other, names, sizeof names);
    other[NAMES] = "more";
    mb_tensor more[NAMES + 1];
    check(mb_safetensors_load(mb, path, other, more, NAMES + 1) == MB_FORMAT &&
              strstr(mb_message(mb), "'more' is missing"),
          "a missing tensor: %s", mb_message(mb));
    mb_clear_error(mb);
    other[1] = "bool";
    check(mb_safetensors_load(mb, path, other, back, NAMES) == MB_INVALID &&
              strstr(mb_message(mb), "asked for twice"),
          "a name twice: %s", mb_message(mb));
    mb_clear_error(mb);

    /* values that cannot be read */
    expect_open(mb, "a BOOL of 2",
                st_file(A(FIELDS("BOOL", "[4]", "[0,4]")), strlen(A(FIELDS("BOOL", "[4]", "[0,4]"))), 4),
                NULL);
    size_t bytes;
    char *data = get_file(in_folder("x.safetensors"), &bytes);
    data[bytes - 1] = 2;
    put_file(in_folder("x.safetensors"), data, bytes);
    free(data);
    check(mb_safetensors_load(mb, in_folder("x.safetensors"), (const char *[]){"a"}, back, 1) == MB_FORMAT &&
              strstr(mb_message(mb), "a BOOL of value 2"),
          "a BOOL of 2: %s", mb_message(mb));
    mb_clear_error(mb);
    st_file(A(FIELDS("BF16", "[2]", "[0,4]")), strlen(A(FIELDS("BF16", "[2]", "[0,4]"))), 4);
    check(mb_safetensors_load(mb, in_folder("x.safetensors"), (const char *[]){"a"}, back, 1) == MB_FORMAT &&
              strstr(mb_message(mb), "BF16 cannot be read"),
          "BF16: %s", mb_message(mb));
    mb_clear_error(mb);

    /* a file that shrinks after it was opened */
    st_file(A(FIELDS("F32", "[2]", "[0,8]")), strlen(A(FIELDS("F32", "[2]", "[0,8]"))), 8);
    f = mb_safetensors_open(mb, in_folder("x.safetensors"));
    check(truncate(in_folder("x.safetensors"), 60) == 0, "truncate");
    check(mb_safetensors_tensor(f, 0).ctx == NULL && mb_error(mb) == MB_IO &&
              strstr(mb_message(mb), "became shorter"),
          "a shrinking file: %s", mb_message(mb));
    mb_safetensors_close(f);
    mb_clear_error(mb);
    mb_scope_end(scope);
}

/* Cut at every byte, and with every byte changed to several others: an error or a file, nothing worse. */
static void test_damage(mb_context *mb)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor ts[NAMES], back[NAMES];
    make_all(mb, ts);
    const char *path = in_folder("damage.safetensors");
    mb_safetensors_save(mb, path, names, ts, NAMES, metadata);
    size_t n;
    char *good = get_file(path, &n);
    int refused = 0;
    for (size_t cut = 0; cut < n; cut++) {
        put_file(path, good, cut);
        refused += mb_safetensors_load(mb, path, names, back, NAMES) != MB_OK;
        mb_clear_error(mb);
    }
    check(refused == (int)n, "%d of %zu cut files were loaded", (int)n - refused, n);
    size_t header;
    memcpy(&header, good, 8);
    static const unsigned char flips[] = {0x01, 0x80, 0xff, 0x20, 0x10};
    int header_refused = 0;
    for (size_t at = 0; at < n; at++)
        for (size_t k = 0; k < sizeof flips; k++) {
            char *bad = malloc(n);
            memcpy(bad, good, n);
            bad[at] ^= (char)flips[k];
            put_file(path, bad, n);
            heap.largest = 0;
            mb_scope inner = mb_scope_begin(mb);
            mb_status status = mb_safetensors_load(mb, path, names, back, NAMES);
            mb_scope_end(inner);
            header_refused += status != MB_OK && at < header + 8;
            check(status == MB_OK || (mb_message(mb)[0] && !back[0].ctx), "byte %zu changed: no message", at);
            check(heap.largest <= n + 65536, "byte %zu changed: an allocation of %zu", at, heap.largest);
            mb_clear_error(mb);
            free(bad);
        }
    printf("%d of %zu changed bytes in the header are noticed\n", header_refused,
           (header + 8) * sizeof flips);
    free(good);
    mb_scope_end(scope);
}

static void expect_save(mb_context *mb, const char *what, const char *path, const char *const *n,
                        const mb_tensor *ts, int count, const char *const *m, const char *error)
{
    mb_status status = mb_safetensors_save(mb, path, n, ts, count, m);
    check(status != MB_OK && strstr(mb_message(mb), error), "%s: wanted '%s', got '%s'", what, error,
          mb_message(mb));
    mb_clear_error(mb);
}

static void test_save_errors(mb_context *mb)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor ts[NAMES];
    make_all(mb, ts);
    const char *path = in_folder("old.safetensors");
    mb_safetensors_save(mb, path, names, ts, NAMES, metadata);
    size_t n, m;
    char *old = get_file(path, &n);
    int files = files_in_folder();

    const char *bad[] = {"a", "a", "b"};
    expect_save(mb, "equal names", path, bad, ts, 3, NULL, "two tensors of the name 'a'");
    bad[0] = "";
    expect_save(mb, "no name", path, bad, ts, 3, NULL, "not a name");
    bad[0] = "__metadata__";
    expect_save(mb, "a reserved name", path, bad, ts, 3, NULL, "not a name");
    bad[0] = "\xff";
    expect_save(mb, "not UTF-8", path, bad, ts, 3, NULL, "not a name");
    expect_save(mb, "odd metadata", path, names, ts, 1, (const char *[]){"a", NULL}, "without a value");
    expect_save(mb, "equal keys", path, names, ts, 1, (const char *[]){"a", "1", "a", "2", NULL},
                "given twice");
    expect_save(mb, "bad metadata", path, names, ts, 1, (const char *[]){"a", "\xc0", NULL}, "not UTF-8");
    expect_save(mb, "no tensor", path, names, (mb_tensor[]){{NULL, 0, 0}}, 1, NULL, "not a tensor");
    expect_save(mb, "no folder", in_folder("nothing/x"), names, ts, NAMES, NULL, "No such file");
    expect_save(mb, "a folder", folder, names, ts, NAMES, NULL, "not a regular file");
    expect_save(mb, "a device", "/dev/full", names, ts, NAMES, NULL, "not a regular file");
    expect_save(mb, "no path", "", names, ts, NAMES, NULL, "no path");

    /* a disk that is full after k bytes */
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before, limit;
    getrlimit(RLIMIT_FSIZE, &before);
    for (rlim_t k = 0; k < n; k += 13) {
        limit = before;
        limit.rlim_cur = k;
        setrlimit(RLIMIT_FSIZE, &limit);
        mb_status status = mb_safetensors_save(mb, path, names, ts, NAMES - 1, NULL);
        setrlimit(RLIMIT_FSIZE, &before);
        if (status == MB_OK) { /* the new file is smaller than the old */
            check(k > n / 2, "a file of more than %d bytes was saved within them", (int)k);
            mb_safetensors_save(mb, path, names, ts, NAMES, metadata);
        } else {
            check(status == MB_IO && strstr(mb_message(mb), "File too large"), "limit %d: %s", (int)k,
                  mb_message(mb));
        }
        mb_clear_error(mb);
        char *now = get_file(path, &m);
        check(now && m == n && memcmp(now, old, n) == 0, "limit %d: the old file is damaged", (int)k);
        free(now);
    }
    check(files_in_folder() == files, "temporary files are left behind");
    free(old);
    check(mb_safetensors_save(mb, path, NULL, NULL, 0, NULL) == MB_OK &&
              mb_safetensors_load(mb, path, NULL, NULL, 0) == MB_OK,
          "no tensors at all: %s", mb_message(mb));
    mb_scope_end(scope);
}

/* ---- what the system may do ---- */

/* The library's calls of the system come through here: every first try is interrupted, or the n-th call
 * fails. */
static struct {
    bool interrupting, interrupted;
    long count, fail_at;
} calls;

static bool denied(void)
{
    if (calls.interrupting && !calls.interrupted) {
        calls.interrupted = true;
        errno = EINTR;
        return true;
    }
    calls.interrupted = false;
    if (++calls.count != calls.fail_at)
        return false;
    errno = EIO;
    return true;
}

int __real_open(const char *path, int flags, mode_t mode);
int __wrap_open(const char *path, int flags, mode_t mode);
int __wrap_open(const char *path, int flags, mode_t mode)
{
    return denied() ? -1 : __real_open(path, flags, mode);
}
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    /* Linux closes in any case, interrupted or not. */
    bool fails = denied();
    int error = errno, result = __real_close(fd);
    if (fails)
        errno = error;
    if (fails)
        calls.interrupted = false; /* nobody may try again */
    return fails ? -1 : result;
}
ssize_t __real_read(int fd, void *to, size_t bytes);
ssize_t __wrap_read(int fd, void *to, size_t bytes);
ssize_t __wrap_read(int fd, void *to, size_t bytes)
{
    return denied() ? -1 : __real_read(fd, to, bytes);
}
ssize_t __real_pread(int fd, void *to, size_t bytes, off_t at);
ssize_t __wrap_pread(int fd, void *to, size_t bytes, off_t at);
ssize_t __wrap_pread(int fd, void *to, size_t bytes, off_t at)
{
    return denied() ? -1 : __real_pread(fd, to, bytes, at);
}
ssize_t __real_write(int fd, const void *from, size_t bytes);
ssize_t __wrap_write(int fd, const void *from, size_t bytes);
ssize_t __wrap_write(int fd, const void *from, size_t bytes)
{
    return denied() ? -1 : __real_write(fd, from, bytes);
}
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    return denied() ? -1 : __real_fsync(fd);
}
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to)
{
    return denied() ? -1 : __real_rename(from, to);
}

static void test_signals(mb_context *mb)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor ts[NAMES], back[NAMES];
    make_all(mb, ts);
    const char *path = in_folder("interrupted.safetensors");
    unsigned char idx[16] = {0, 0, 8, 1, 0, 0, 0, 2, 5, 6};
    put_file(in_folder("interrupted.idx"), idx, 10);
    calls.interrupting = true;
    check(mb_safetensors_save(mb, path, names, ts, NAMES, metadata) == MB_OK, "save: %s", mb_message(mb));
    check(mb_safetensors_load(mb, path, names, back, NAMES) == MB_OK, "load: %s", mb_message(mb));
    mb_idx read;
    check(mb_idx_read(mb, in_folder("interrupted.idx"), &read) == MB_OK && read.data[1] == 6, "idx: %s",
          mb_message(mb));
    calls.interrupting = calls.interrupted = false;
    mb_idx_free(&read);
    mb_clear_error(mb);
    mb_scope_end(scope);
}

/* Whichever call fails while a file is replaced: the name holds the old file or the new one, whole, and
 * nothing else is left. */
static void test_failing_calls(mb_context *mb)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor ts[NAMES], back[NAMES];
    make_all(mb, ts);
    const char *path = in_folder("failing.safetensors");
    mb_safetensors_save(mb, path, names, ts, NAMES, metadata);
    mb_eval(ts, NAMES);
    int files = files_in_folder();
    size_t n, m;
    char *old = get_file(path, &n);
    bool all = false;
    long failing = 0;
    for (long k = 1; !all && k < 1000; k++) {
        calls.count = 0;
        calls.fail_at = k;
        mb_status status = mb_safetensors_save(mb, path, names, ts, NAMES, metadata);
        all = calls.count < k;
        calls.fail_at = 0;
        failing = k - 1;
        /* Only the last close, of the folder, can fail without a loss. */
        check(status == MB_IO || (status == MB_OK && calls.count <= k), "call %ld fails: %s", k,
              mb_message(mb));
        mb_clear_error(mb);
        char *now = get_file(path, &m);
        check(now && m == n && memcmp(now, old, n) == 0, "call %ld fails: the file is damaged", k);
        free(now);
        check(mb_safetensors_load(mb, path, names, back, NAMES) == MB_OK, "call %ld fails: %s", k,
              mb_message(mb));
        check(files_in_folder() == files, "call %ld fails: temporary files are left", k);
        all = all && status == MB_OK;
    }
    check(failing >= 6, "only %ld calls were made", failing);
    all = false;
    for (long k = 1; !all && k < 1000; k++) {
        calls.count = 0;
        calls.fail_at = k;
        mb_status status = mb_safetensors_load(mb, path, names, back, NAMES);
        all = calls.count < k;
        calls.fail_at = 0;
        check(status == MB_IO || status == MB_OK, "call %ld of a load fails: %s", k, mb_message(mb));
        check(status == MB_OK || !back[0].ctx, "call %ld of a load fails, and there are tensors", k);
        mb_clear_error(mb);
    }
    free(old);
    mb_scope_end(scope);
}

/* The longest names and paths that the system takes can be saved to. */
static void test_long_names(mb_context *mb)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor ts[NAMES], back[NAMES];
    make_all(mb, ts);
    char name[300], path[5000];
    for (size_t length = 230; length <= 256; length++) {
        memset(name, 'a', length);
        name[length] = 0;
        mb_status status = mb_safetensors_save(mb, in_folder(name), names, ts, NAMES, metadata);
        check(status == (length <= 255 ? MB_OK : MB_IO), "a name of %zu: %s", length, mb_message(mb));
        mb_clear_error(mb);
        check(length > 255 || mb_safetensors_load(mb, in_folder(name), names, back, NAMES) == MB_OK,
              "a name of %zu: %s", length, mb_message(mb));
        mb_clear_error(mb);
        unlink(in_folder(name));
    }
    snprintf(path, sizeof path, "%s", folder); /* //////x is a path, too */
    for (size_t total = 4070; total <= 4096; total++) {
        size_t n = strlen(folder);
        memset(path + n, '/', total - n - 20);
        snprintf(path + total - 20, 21, "long%016zu", total);
        mb_status status = mb_safetensors_save(mb, path, names, ts, NAMES, metadata);
        check(status == (total < 4096 ? MB_OK : MB_IO), "a path of %zu: %s", total, mb_message(mb));
        mb_clear_error(mb);
        if (status == MB_OK)
            unlink(path);
    }
    mb_scope_end(scope);
}

static void test_other_files(mb_context *mb)
{
    static const char *const others[] = {"# a text file, such as a script\n", "\x89PNG\r\n\x1a\n0123456789",
                                         "PK\3\4 and more of a zip file, as from elsewhere"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        put_file(in_folder("other"), others[i], strlen(others[i]));
        check(!mb_safetensors_open(mb, in_folder("other")) && mb_error(mb) == MB_FORMAT &&
                  strstr(mb_message(mb), "not a safetensors file"),
              "%zu: %s", i, mb_message(mb));
        mb_clear_error(mb);
    }
    char small[32] = {8, 0, 0, 0, 0, 0, 0, 0, '[', '1', ']'};
    put_file(in_folder("other"), small, sizeof small);
    check(!mb_safetensors_open(mb, in_folder("other")) && strstr(mb_message(mb), "not a safetensors file"),
          "%s", mb_message(mb));
    mb_clear_error(mb);
}

/* ---- IDX ---- */

static size_t idx_header(unsigned char *out, int rank, const uint32_t *dim)
{
    size_t n = 0;
    out[n++] = 0;
    out[n++] = 0;
    out[n++] = 8;
    out[n++] = (unsigned char)rank;
    for (int i = 0; i < rank; i++)
        for (int shift = 24; shift >= 0; shift -= 8)
            out[n++] = (unsigned char)(dim[i] >> shift);
    return n;
}

static size_t gzip(unsigned char *out, size_t room, const unsigned char *in, size_t n)
{
    z_stream z = {0};
    deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    z.next_in = (unsigned char *)in;
    z.avail_in = (uInt)n;
    z.next_out = out;
    z.avail_out = (uInt)room;
    deflate(&z, Z_FINISH);
    deflateEnd(&z);
    return room - z.avail_out;
}

static void expect_idx(mb_context *mb, const char *what, const void *data, size_t n, const char *error)
{
    mb_idx idx;
    const char *path = in_folder("x.idx");
    put_file(path, data, n);
    mb_status status = mb_idx_read(mb, path, &idx);
    if (!error)
        check(status == MB_OK && idx.data, "%s: %s", what, mb_message(mb));
    else
        check(status != MB_OK && strstr(mb_message(mb), error) && !idx.data, "%s: wanted '%s', got '%s'",
              what, error, status == MB_OK ? "a file" : mb_message(mb));
    mb_idx_free(&idx);
    mb_clear_error(mb);
}

static void test_idx(mb_context *mb)
{
    unsigned char plain[600], packed[2000], two[4000];
    size_t header = idx_header(plain, 3, (uint32_t[]){5, 10, 10}), n = header + 500;
    for (size_t i = header; i < n; i++)
        plain[i] = (unsigned char)(i * i * 31 >> 3);
    size_t p = gzip(packed, sizeof packed, plain, n);
    expect_idx(mb, "plain", plain, n, NULL);
    expect_idx(mb, "gzip", packed, p, NULL);
    mb_idx idx;
    check(mb_idx_read(mb, in_folder("x.idx"), &idx) == MB_OK && idx.rank == 3 && idx.dim[0] == 5 &&
              idx.dim[2] == 10 && idx.bytes == 500 && memcmp(idx.data, plain + header, 500) == 0,
          "content of a gzip file");
    mb_idx_free(&idx);

    for (size_t cut = 0; cut < n; cut++)
        expect_idx(mb, "plain, cut", plain, cut, "");
    for (size_t cut = 0; cut < p; cut++)
        expect_idx(mb, "gzip, cut", packed, cut, cut < 2 ? "not an IDX file" : "gzip: the file ends early");
    for (size_t at = 10; at < p; at++) { /* behind the fields of gzip's header that mean nothing */
        memcpy(two, packed, p);
        two[at] ^= 0x10;
        put_file(in_folder("x.idx"), two, p);
        bool same =
            mb_idx_read(mb, in_folder("x.idx"), &idx) == MB_OK && memcmp(idx.data, plain + header, 500) == 0;
        check(same || mb_error(mb) == MB_FORMAT, "gzip, byte %zu changed: %s", at,
              mb_message(mb)); /* some bits only pad */
        mb_idx_free(&idx);
        mb_clear_error(mb);
    }
    memcpy(two, plain, n);
    two[n] = 0;
    expect_idx(mb, "plain, more", two, n + 1, "more follows");
    memcpy(two, packed, p);
    two[p] = 0;
    expect_idx(mb, "gzip, zeros behind", two, p + 1, "something follows");
    two[p] = 0x1f;
    expect_idx(mb, "gzip, half a member behind", two, p + 1, "gzip: the file ends early");
    memcpy(two + p, packed, p);
    expect_idx(mb, "gzip, twice", two, 2 * p, "more follows");
    size_t first = gzip(two, sizeof two, plain, 100),
           second = gzip(two + first, sizeof two - first, plain + 100, n - 100);
    expect_idx(mb, "gzip, two members", two, first + second, NULL);

    unsigned char bad[600];
    memcpy(bad, plain, n);
    bad[0] = 1;
    expect_idx(mb, "magic", bad, n, "should begin with two zeros");
    memcpy(bad, plain, n);
    bad[2] = 0x0d;
    expect_idx(mb, "floats", bad, n, "IDX type 0x0d");
    memcpy(bad, plain, n);
    bad[3] = 0;
    expect_idx(mb, "rank 0", bad, n, "rank 0");
    bad[3] = 9;
    expect_idx(mb, "rank 9", bad, n, "rank 9");
    heap.largest = 0;
    idx_header(bad, 3, (uint32_t[]){0xffffffff, 0xffffffff, 0xffffffff});
    expect_idx(mb, "huge", bad, n, "more than a file of");
    idx_header(bad, 3, (uint32_t[]){65536, 65536, 65536});
    expect_idx(mb, "huge", bad, n, "more than a file of");
    idx_header(bad, 3, (uint32_t[]){0x80000000, 0x80000000, 4}); /* wraps to 0 */
    expect_idx(mb, "wrapping", bad, n, "more than a file of");
    p = gzip(packed, sizeof packed, bad, n);
    expect_idx(mb, "wrapping gzip", packed, p, "more than a file of");
    check(heap.largest < 100000, "an allocation of %zu for absurd sizes", heap.largest);
    idx_header(bad, 3, (uint32_t[]){5, 10, 11});
    expect_idx(mb, "too few", bad, n, "more than a file of"); /* 550 of 516 */
    p = gzip(packed, sizeof packed, bad, n);
    expect_idx(mb, "too few, gzip", packed, p, "need 550 bytes, and there are 500");
    idx_header(bad, 3, (uint32_t[]){5, 10, 9});
    expect_idx(mb, "too many", bad, n, "more follows after the 450");

    check(mb_idx_read(mb, MB_FASHION_MNIST "/nothing.gz", &idx) == MB_IO &&
              strstr(mb_message(mb), "dataset-fashion-mnist") && strstr(mb_message(mb), "nothing.gz"),
          "a missing file: %s", mb_message(mb));
    mb_clear_error(mb);
    check(mb_idx_read(mb, "/nothing", &idx) == MB_IO && !strstr(mb_message(mb), "dataset-fashion"),
          "another missing file");
    mb_clear_error(mb);
    check(mb_idx_read(mb, folder, &idx) == MB_IO, "a folder");
    mb_clear_error(mb);
}

/* ---- images ---- */

enum { IMAGES = 103 };

static mb_images_options image_files(void)
{
    unsigned char images[16 + IMAGES * 6], labels[8 + IMAGES];
    size_t n = idx_header(images, 3, (uint32_t[]){IMAGES, 2, 3}),
           m = idx_header(labels, 1, (uint32_t[]){IMAGES});
    for (int i = 0; i < IMAGES; i++) {
        for (int k = 0; k < 6; k++)
            images[n++] = (unsigned char)(i * 2 + k);
        labels[m++] = (unsigned char)(i % 10);
    }
    put_file(in_folder("images"), images, n);
    put_file(in_folder("labels"), labels, m);
    return (mb_images_options){.images = in_folder("images"),
                               .labels = in_folder("labels"),
                               .mean = 0.25,
                               .std = 0.5,
                               .classes = 10,
                               .seed = 3};
}

/* Which images (by their first pixel) a batch holds; checks each against its label. */
static int batch_of(mb_context *mb, mb_images *d, uint64_t epoch, int64_t batch, int64_t size, int *which)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor x, y;
    float pixels[IMAGES * 6];
    int32_t labels[IMAGES];
    if (mb_images_batch(d, epoch, batch, size, &x, &y) != MB_OK) {
        mb_scope_end(scope);
        return -1;
    }
    int n = (int)mb_dim(x, 0);
    mb_read(x, pixels, sizeof(float) * 6 * (size_t)n);
    mb_read(y, labels, sizeof(int32_t) * (size_t)n);
    for (int i = 0; i < n; i++) {
        double byte = ((double)pixels[i * 6] * 0.5 + 0.25) * 255;
        which[i] = (int)lround(byte / 2);
        check(fabs(byte - 2 * which[i]) < 1e-3 && labels[i] == which[i] % 10 &&
                  fabsf(pixels[i * 6 + 5] - (float)(((2 * which[i] + 5) / 255.0 - 0.25) / 0.5)) < 1e-6f,
              "image %d of batch %d", i, (int)batch);
    }
    mb_scope_end(scope);
    return n;
}

static void test_images(mb_context *mb)
{
    mb_images_options o = image_files();
    mb_images *d = mb_images_open(mb, o);
    if (!check(d != NULL, "images: %s", mb_message(mb)))
        return;
    check(mb_images_count(d) == IMAGES && mb_images_height(d) == 2 && mb_images_width(d) == 3,
          "size of images");
    int first[IMAGES], again[IMAGES], other[IMAGES], order[IMAGES], n = 0;
    for (int b = 0; b < 11; b++)
        n += batch_of(mb, d, 0, b, 10, first + n);
    check(n == IMAGES, "an epoch has %d images", n);
    bool seen[IMAGES] = {false};
    for (int i = 0; i < IMAGES; i++)
        seen[first[i]] = true;
    for (int i = 0; i < IMAGES; i++)
        check(seen[i], "image %d is not in the epoch", i);
    batch_of(mb, d, 1, 0, IMAGES, other);
    check(memcmp(first, other, sizeof first) != 0, "two epochs in the same order");
    batch_of(mb, d, MB_IN_ORDER, 0, IMAGES, order);
    for (int i = 0; i < IMAGES; i++)
        check(order[i] == i, "in order: image %d is %d", i, order[i]);
    mb_images_close(d);
    d = mb_images_open(mb, o);
    batch_of(mb, d, 0, 3, 10, again);
    check(memcmp(again, first + 30, 10 * sizeof *again) == 0, "a resumed epoch differs");
    batch_of(mb, d, 0, 0, IMAGES, again);
    check(memcmp(again, first, sizeof first) == 0, "the order depends on the size of batches");
    long count = heap.count;
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor x, y;
    mb_images_batch(d, 5, 0, 50, &x, &y);
    mb_scope_end(scope);
    printf("%ld allocations for a warm batch\n", heap.count - count);
    check(batch_of(mb, d, 0, 11, 10, again) == -1 && mb_error(mb) == MB_INVALID, "a batch past the end");
    mb_clear_error(mb);
    check(batch_of(mb, d, 0, 0, 0, again) == -1 && batch_of(mb, d, 0, -1, 5, again) == -1, "no batch");
    mb_clear_error(mb);
    mb_images_close(d);

    o.seed = 4;
    d = mb_images_open(mb, o);
    batch_of(mb, d, 0, 0, IMAGES, other);
    check(memcmp(first, other, sizeof first) != 0, "two seeds give the same order");
    mb_images_close(d);
    o.limit = 7;
    d = mb_images_open(mb, o);
    check(mb_images_count(d) == 7 && batch_of(mb, d, 2, 0, 100, other) == 7, "a limit");
    mb_images_close(d);
    o.limit = IMAGES + 1;
    check(!mb_images_open(mb, o) && strstr(mb_message(mb), "104 images wanted"), "a limit too high: %s",
          mb_message(mb));
    mb_clear_error(mb);
    o.limit = 0;
    o.classes = 9;
    check(!mb_images_open(mb, o) && strstr(mb_message(mb), "label 9 of image 9"), "labels too high: %s",
          mb_message(mb));
    mb_clear_error(mb);
    unsigned char labels[8 + 5];
    size_t m = idx_header(labels, 1, (uint32_t[]){5});
    memset(labels + m, 0, 5);
    put_file(in_folder("labels"), labels, m + 5);
    check(!mb_images_open(mb, o) && strstr(mb_message(mb), "has 5 labels"), "unequal counts: %s",
          mb_message(mb));
    mb_clear_error(mb);
    o.labels = o.images;
    check(!mb_images_open(mb, o) && strstr(mb_message(mb), "rank"), "wrong ranks: %s", mb_message(mb));
    mb_clear_error(mb);
}

/* ---- allocations that fail, one after the other ---- */

static int work(mb_context *mb)
{
    mb_tensor ts[NAMES], back[NAMES];
    const char *path = in_folder("memory.safetensors");
    mb_scope scope = mb_scope_begin(mb);
    make_all(mb, ts);
    mb_status status = mb_safetensors_save(mb, path, names, ts, NAMES, metadata);
    if (!status)
        status = mb_safetensors_load(mb, path, names, back, NAMES);
    mb_images *d = status ? NULL : mb_images_open(mb, image_files());
    mb_tensor x, y;
    if (d)
        mb_images_batch(d, 0, 0, 10, &x, &y);
    mb_images_close(d);
    mb_scope_end(scope);
    return mb_error(mb);
}

static void test_memory(void)
{
    bool all = false;
    for (long k = 1; !all && k < 1000; k++) {
        mb_context *mb = open_context();
        size_t live = heap.live;
        heap.count = 0;
        heap.fail_at = k;
        int status = work(mb);
        all = heap.count < k;
        heap.fail_at = 0;
        check(all ? status == MB_OK : status == MB_NO_MEMORY, "allocation %ld fails: %s", k, mb_message(mb));
        mb_clear_error(mb);
        check(work(mb) == MB_OK, "after allocation %ld failed: %s", k, mb_message(mb));
        mb_close(mb);
        if (all)
            printf("%ld allocations failed one by one\n", k - 1);
        (void)live;
    }
    check(heap.live == 0, "%zu bytes were not given back", heap.live);
}

int main(void)
{
    snprintf(folder, sizeof folder, "%s/moebius-files-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(folder)) {
        perror(folder);
        return 1;
    }
    mb_context *mb = open_context();
    test_corpus(mb);
    test_large(mb);
    test_round_trip(mb);
    test_damage(mb);
    test_save_errors(mb);
    test_signals(mb);
    test_failing_calls(mb);
    test_long_names(mb);
    test_other_files(mb);
    test_idx(mb);
    test_images(mb);
    check(mb_error(mb) == MB_OK, "an error is left: %s", mb_message(mb));
    mb_close(mb);
    check(heap.live == 0, "%zu bytes were not given back", heap.live);
    test_memory();
    char command[320];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0)
        failed++;
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
