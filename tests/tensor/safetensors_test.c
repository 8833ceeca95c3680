/* SPDX-License-Identifier: MIT
 * safetensors_test.c - safetensors: a corpus of malformed files, round trips, files cut at every byte and
 * with every byte changed, full disks. */
#include "files.h"

#include "tensor/half.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

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

void test_corpus(mb_context *mb)
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
void test_large(mb_context *mb)
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

void test_round_trip(mb_context *mb)
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
    st_file(A(FIELDS("C64", "[2]", "[0,16]")), strlen(A(FIELDS("C64", "[2]", "[0,16]"))), 16);
    check(mb_safetensors_load(mb, in_folder("x.safetensors"), (const char *[]){"a"}, back, 1) == MB_FORMAT &&
              strstr(mb_message(mb), "C64 cannot be read"),
          "C64: %s", mb_message(mb));
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

/* A file of one tensor of a dtype that tensors may not have, whose values are wanted as doubles. */
static void expect_read(mb_context *mb, const char *kind, const void *data, int n, size_t each,
                        mb_dtype dtype, const double *wanted)
{
    char header[160];
    uint64_t length = (uint64_t)snprintf(header + 8, sizeof header - 8,
                                         "{\"a\":{\"dtype\":\"%s\",\"shape\":[%d],\"data_offsets\":[0,%zu]}}",
                                         kind, n, (size_t)n * each);
    memcpy(header, &length, 8);
    char *all = malloc(8 + length + (size_t)n * each);
    memcpy(all, header, 8 + length);
    memcpy(all + 8 + length, data, (size_t)n * each);
    put_file(in_folder("kind.safetensors"), all, 8 + length + (size_t)n * each);
    free(all);
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor t;
    double got[16];
    char raw[128];
    mb_status status = mb_safetensors_load(mb, in_folder("kind.safetensors"), (const char *[]){"a"}, &t, 1);
    if (!wanted) {
        check(status == MB_FORMAT && strstr(mb_message(mb), kind), "%s: %s", kind, mb_message(mb));
        mb_clear_error(mb);
        mb_scope_end(scope);
        return;
    }
    check(mb_dtype_of(t) == dtype, "%s is %s: %s", kind, mb_dtype_name(mb_dtype_of(t)), mb_message(mb));
    mb_read(t, raw, (size_t)n * mb_dtype_size(dtype));
    for (int i = 0; i < n; i++) {
        got[i] = mb__element_of(dtype, raw, i);
        check(got[i] == wanted[i] || (got[i] != got[i] && wanted[i] != wanted[i]),
              "%s: value %d is %g, not %g", kind, i, got[i], wanted[i]);
    }
    mb_scope_end(scope);
}

/* 8-bit floats: "FP8 Formats for Deep Learning" (2209.05433), table 1, and for FNUZ 2206.02915. */
void test_kinds(mb_context *mb)
{
    expect_read(mb, "U8", "\xff\1", 2, 1, MB_UINT8, (double[]){255, 1});
    expect_read(mb, "I8", "\xff\x80", 2, 1, MB_INT32, (double[]){-1, -128});
    expect_read(mb, "I16", (int16_t[]){-32768, 5}, 2, 2, MB_INT32, (double[]){-32768, 5});
    expect_read(mb, "U16", (uint16_t[]){65535, 5}, 2, 2, MB_INT32, (double[]){65535, 5});
    expect_read(mb, "U32", (uint32_t[]){UINT32_MAX, 5}, 2, 4, MB_INT64, (double[]){UINT32_MAX, 5});
    expect_read(mb, "I64", (int64_t[]){INT64_MIN, 5}, 2, 8, MB_INT64, (double[]){-0x1p63, 5});
    expect_read(mb, "U64", (uint64_t[]){UINT64_C(1) << 62, 5}, 2, 8, MB_INT64, (double[]){0x1p62, 5});
    expect_read(mb, "U64", (uint64_t[]){UINT64_C(1) << 63, 5}, 2, 8, MB_INT64, NULL);
    expect_read(mb, "F16", (uint16_t[]){0x3c00, 0xfbff, 1}, 3, 2, MB_FLOAT16, (double[]){1, -65504, 0x1p-24});
    expect_read(mb, "BF16", (uint16_t[]){0x3f80, 0xff80}, 2, 2, MB_BFLOAT16, (double[]){1, -INFINITY});
    expect_read(mb, "F8_E5M2", "\x3c\x7b\x01\xfc\x7d\x80", 6, 1, MB_FLOAT16,
                (double[]){1, 57344, 0x1p-16, -INFINITY, NAN, 0});
    expect_read(mb, "F8_E4M3", "\x38\x7e\x01\xfe\x7f\x08", 6, 1, MB_FLOAT16,
                (double[]){1, 448, 0x1p-9, -448, NAN, 0x1p-6});
    expect_read(mb, "F8_E4M3FNUZ", "\x40\x7f\x01\x80", 4, 1, MB_FLOAT16, (double[]){1, 240, 0x1p-10, NAN});
    expect_read(mb, "F8_E5M2FNUZ", "\x40\x7f\x01\x80", 4, 1, MB_FLOAT16, (double[]){1, 57344, 0x1p-17, NAN});
    expect_read(mb, "F8_E8M0", "\x7f\x00\xfe\xff", 4, 1, MB_FLOAT32, (double[]){1, 0x1p-127, 0x1p127, NAN});
    expect_read(mb, "C64", "12345678", 1, 8, MB_FLOAT32, NULL);
}

/* Every dtype of tensors, bit by bit there and back. */
void test_dtypes_there_and_back(mb_context *mb)
{
    mb_scope scope = mb_scope_begin(mb);
    const char *kinds[MB_DTYPES], *path = in_folder("dtypes.safetensors");
    mb_tensor ts[MB_DTYPES], back[MB_DTYPES];
    for (int d = 0; d < MB_DTYPES; d++) {
        kinds[d] = mb_dtype_name((mb_dtype)d);
        ts[d] = some_tensor(mb, (mb_dtype)d, MB_SHAPE(3, 5), d);
    }
    check(mb_safetensors_save(mb, path, kinds, ts, MB_DTYPES, NULL) == MB_OK, "%s", mb_message(mb));
    mb_safetensors_load(mb, path, kinds, back, MB_DTYPES);
    for (int d = 0; d < MB_DTYPES; d++) {
        char a[120] = {0}, b[120] = {0};
        size_t bytes = 15 * mb_dtype_size((mb_dtype)d);
        mb_read(ts[d], a, bytes);
        mb_read(back[d], b, bytes);
        check((int)mb_dtype_of(back[d]) == d && !memcmp(a, b, bytes), "%s: %s", kinds[d], mb_message(mb));
        if (d == MB_BFLOAT16)
            continue;
        check(mb_npy_save(in_folder("dtype.npy"), ts[d]) == MB_OK, "%s", mb_message(mb));
        mb_tensor t = mb_npy_load(mb, in_folder("dtype.npy"));
        mb_read(t, b, bytes);
        check((int)mb_dtype_of(t) == d && !memcmp(a, b, bytes), ".npy of %s: %s", kinds[d], mb_message(mb));
    }
    check(mb_npy_save(in_folder("dtype.npy"), ts[MB_BFLOAT16]) == MB_INVALID &&
              strstr(mb_message(mb), "bfloat16"),
          "%s", mb_message(mb));
    mb_clear_error(mb);
    mb_scope_end(scope);
}

/* Cut at every byte, and with every byte changed to several others: an error or a file, nothing worse. */
void test_damage(mb_context *mb)
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

void test_save_errors(mb_context *mb)
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
