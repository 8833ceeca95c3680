/* SPDX-License-Identifier: MIT
 * arrays_test.c - .npy files and tables of numbers. The expected bytes are those of the format's description,
 * put together here. */
#include "files.h"

#include <math.h>

static void put_npy(const char *path, int version, const char *header, const void *data, size_t bytes)
{
    char out[2000] = "\x93NUMPY";
    size_t n = strlen(header), at = version == 1 ? 10 : 12;
    out[6] = (char)version;
    out[8] = (char)(n & 255);
    out[9] = (char)(n >> 8);
    memcpy(out + at, header, n);
    memcpy(out + at + n, data, bytes);
    put_file(path, out, at + n + bytes);
}

static void expect_npy_error(mb_context *mb, const char *header, size_t bytes, const char *error)
{
    static const char data[64];
    const char *path = in_folder("wrong.npy");
    put_npy(path, 1, header, data, bytes);
    mb_tensor t = mb_npy_load(mb, path);
    check(!t.ctx && mb_error(mb) == MB_FORMAT && strstr(mb_message(mb), error) &&
              strstr(mb_message(mb), "wrong.npy"),
          "%s: wanted '%s', got '%s'", header, error, mb_message(mb));
    mb_clear_error(mb);
}

/* Reads values of a dtype, and compares their doubles. */
static void expect_npy(mb_context *mb, const char *descr, const void *data, size_t bytes, mb_dtype dtype,
                       int n, const double *wanted)
{
    char header[128];
    const char *path = in_folder("values.npy");
    snprintf(header, sizeof header, "{\"shape\": (%d ,),'fortran_order':False, 'descr': '%s'}\n", n, descr);
    for (int version = 1; version <= 3; version++) {
        put_npy(path, version, header, data, bytes);
        mb_scope scope = mb_scope_begin(mb);
        mb_tensor t = mb_npy_load(mb, path);
        double got[8] = {0};
        check(mb_dtype_of(t) == dtype && mb_shape_of(t).rank == 1 && mb_count(t) == n, "%s: %s", descr,
              mb_message(mb));
        mb_read(mb_cast(t, MB_FLOAT64), got, (size_t)n * sizeof *got);
        for (int i = 0; i < n; i++)
            check(got[i] == wanted[i], "%s: value %d is %g, wanted %g", descr, i, got[i], wanted[i]);
        mb_scope_end(scope);
    }
}

static void test_npy_dtypes(mb_context *mb)
{
    expect_npy(mb, "<f4", (float[]){1.5F, -2}, 8, MB_FLOAT32, 2, (double[]){1.5, -2});
    expect_npy(mb, "<f8", (double[]){1.1, -2}, 16, MB_FLOAT64, 2, (double[]){1.1, -2});
    expect_npy(mb, "<i4", (int32_t[]){INT32_MIN, 7}, 8, MB_INT32, 2, (double[]){INT32_MIN, 7});
    expect_npy(mb, "|b1", "\1\0\1", 3, MB_BOOL, 3, (double[]){1, 0, 1});
    expect_npy(mb, "|u1", "\377\0", 2, MB_UINT8, 2, (double[]){255, 0});
    expect_npy(mb, "|i1", "\377\177", 2, MB_INT32, 2, (double[]){-1, 127});
    expect_npy(mb, "<u2", (uint16_t[]){65535}, 2, MB_INT32, 1, (double[]){65535});
    expect_npy(mb, "<i2", (int16_t[]){-32768}, 2, MB_INT32, 1, (double[]){-32768});
    expect_npy(mb, "<u4", (uint32_t[]){UINT32_MAX}, 4, MB_INT64, 1, (double[]){UINT32_MAX});
    expect_npy(mb, "<i8", (int64_t[]){-5, INT64_C(1) << 52}, 16, MB_INT64, 2, (double[]){-5, 0x1p52});
    expect_npy(mb, "<u8", (uint64_t[]){5}, 8, MB_INT64, 1, (double[]){5});
    /* 1, -2, the largest 65504, the smallest subnormal 2^-24, the smallest normal 2^-14, -0, infinity */
    expect_npy(mb, "<f2", (uint16_t[]){0x3c00, 0xc000, 0x7bff, 1, 0x400, 0x8000, 0x7c00}, 14, MB_FLOAT16, 7,
               (double[]){1, -2, 65504, ldexp(1, -24), ldexp(1, -14), -0.0, INFINITY});
}

static void test_npy_errors(mb_context *mb)
{
#define REST ", 'fortran_order': False, 'shape': (2,)}"
    expect_npy_error(mb, "{'descr': '<f4'" REST, 7, "[2] of 'f4' are 8 bytes, and there are 7");
    expect_npy_error(mb, "{'descr': '<f4'" REST, 9, "and there are 9");
    expect_npy_error(mb, "{'descr': '>f4'" REST, 8, "values of '>f4'");
    expect_npy_error(mb, "{'descr': '<c8'" REST, 16, "values of '<c8'");
    expect_npy_error(mb, "{'descr': [('a', '<f4')]" REST, 8, "values of 'a structure'");
    expect_npy_error(mb, "{'descr': '|b1', 'fortran_order': 1, 'shape': (2,)}", 2, "'fortran_order'");
    expect_npy_error(mb, "{'descr': '|b1', 'fortran_order': True, 'shape': (-2,)}", 2, "'shape'");
    expect_npy_error(mb, "{'descr': '|b1', 'fortran_order': True, 'shape': (1 2)}", 2, "'shape'");
    expect_npy_error(mb, "{'descr': '|b1', 'fortran_order': True, 'shape': (1,1,1,1,1,1,1,1,1)}", 1, "rank");
    expect_npy_error(mb, "{'descr': '|b1', 'fortran_order': True, 'shape': (99999999999999, 99999999999999)}",
                     1, "more than");
    expect_npy_error(mb, "{'descr': '|b1', 'fortran_order': True, 'descr': '|b1'}", 1, "twice");
    expect_npy_error(mb, "{'descr': '|b1', 'fortran_order': True}", 1, "lacks");
    expect_npy_error(mb, "{'descr': '|b1'" REST "x", 2, "goes on");
    expect_npy_error(mb, "{'descr': '|b1'", 2, "does not end");
    expect_npy_error(mb, "{'descr", 2, "not a dictionary");
    expect_npy_error(mb, "", 2, "not a dictionary");
    uint64_t wide[] = {1, UINT64_C(1) << 63};
    put_npy(in_folder("wide.npy"), 1, "{'descr': '<u8'" REST, wide, sizeof wide);
    check(!mb_npy_load(mb, in_folder("wide.npy")).ctx &&
              strstr(mb_message(mb), "value 1 of the file is 2^63 or more, which int64"),
          "%s", mb_message(mb));
    mb_clear_error(mb);
    put_npy(in_folder("two.npy"), 1, "{'descr': '|b1'" REST, "\1\2", 2);
    check(!mb_npy_load(mb, in_folder("two.npy")).ctx && mb_error(mb) == MB_FORMAT, "a bool of 2");
    mb_clear_error(mb);
    check(!mb_npy_load(mb, in_folder("none.npy")).ctx && mb_error(mb) == MB_IO, "a missing file");
    mb_clear_error(mb);
    for (size_t n = 0; n < 60; n++) { /* cut anywhere: an error, and nothing read beyond */
        put_npy(in_folder("cut.npy"), 1, "{'descr': '|b1'" REST, "\1\1", 2);
        size_t bytes;
        char *all = get_file(in_folder("cut.npy"), &bytes);
        put_file(in_folder("cut.npy"), all, n < bytes ? n : bytes - 1);
        free(all);
        check(!mb_npy_load(mb, in_folder("cut.npy")).ctx && mb_error(mb) == MB_FORMAT, "cut at %zu", n);
        mb_clear_error(mb);
    }
}

void test_npy(mb_context *mb)
{
    mb_tensor ts[NAMES];
    make_all(mb, ts);
    for (int i = 0; i < NAMES; i++) {
        const char *path = in_folder("saved.npy");
        check(mb_npy_save(path, ts[i]) == MB_OK, "%s", mb_message(mb));
        check(same(ts[i], mb_npy_load(mb, path)), "tensor %d comes back", i);
        size_t bytes;
        char *file = get_file(path, &bytes);
        size_t header = 10 + (size_t)(unsigned char)file[8] + 256 * (size_t)(unsigned char)file[9];
        check(memcmp(file, "\x93NUMPY\1\0", 8) == 0 && header % 64 == 0 && file[header - 1] == '\n' &&
                  bytes == header + (size_t)mb_count(ts[i]) * mb_dtype_size(mb_dtype_of(ts[i])),
              "the layout of version 1");
        free(file);
    }
    check(mb_npy_save(in_folder("none/x.npy"), ts[0]) == MB_IO, "a missing folder");
    mb_clear_error(mb);
    /* element [i, j] = 10 i + j of [2, 3], column by column */
    put_npy(in_folder("f.npy"), 1, "{'descr': '<i4', 'fortran_order': True, 'shape': (2, 3), }",
            (int32_t[]){0, 10, 1, 11, 2, 12}, 24);
    mb_tensor wanted = mb_from(mb, MB_INT32, MB_SHAPE(2, 3), (int32_t[]){0, 1, 2, 10, 11, 12});
    check(same(wanted, mb_npy_load(mb, in_folder("f.npy"))), "Fortran's order");
    test_npy_dtypes(mb);
    test_npy_errors(mb);
}

static void expect_csv(mb_context *mb, const char *text, mb_csv_options o, mb_shape shape,
                       const double *wanted)
{
    put_file(in_folder("t.csv"), text, strlen(text));
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor t = mb_csv_load(mb, in_folder("t.csv"), o);
    mb_tensor other = mb_cast(mb_from(mb, MB_FLOAT64, shape, wanted), o.dtype);
    check(t.ctx && same(t, other), "'%s': %s", text, mb_message(mb));
    mb_scope_end(scope);
}

static void expect_csv_error(mb_context *mb, const char *text, mb_csv_options o, const char *error)
{
    put_file(in_folder("t.csv"), text, strlen(text));
    mb_tensor t = mb_csv_load(mb, in_folder("t.csv"), o);
    check(!t.ctx && mb_error(mb) == MB_FORMAT && strstr(mb_message(mb), error), "'%s': wanted '%s', got '%s'",
          text, error, mb_message(mb));
    mb_clear_error(mb);
}

void test_csv(mb_context *mb)
{
    mb_csv_options plain = {0}, named = {.header = true}, tabs = {.dtype = MB_FLOAT64, .separator = '\t'};
    expect_csv(mb, "1,2.5\n-3e2,.25\n", plain, MB_SHAPE(2, 2), (double[]){1, 2.5, -300, .25});
    expect_csv(mb, "x, y\r\n 1 ,2.5\r\n\r\n-3,4", named, MB_SHAPE(2, 2), (double[]){1, 2.5, -3, 4});
    expect_csv(mb, "0.1\tinf\n\n", tabs, MB_SHAPE(1, 2), (double[]){.1, INFINITY});
    expect_csv(mb, "", plain, MB_SHAPE(0, 0), (double[]){0});
    expect_csv(mb, "a,b\n", named, MB_SHAPE(0, 0), (double[]){0});
    expect_csv_error(mb, "1,2\n3,x4\n", plain, "t.csv: line 2, column 2: 'x4' is not a number");
    expect_csv_error(mb, "a\n\n1\n2 3\n", named, "line 4, column 1: '2 3' is not a number");
    expect_csv_error(mb, "1,\n2,3\n", plain, "line 1, column 2: '' is nothing");
    expect_csv_error(mb, "1,2\n3\n", plain, "line 2: 1 fields, wanted 2");
    expect_csv_error(mb, "1e39\n", plain, "column 1: '1e39' is beyond float32");
    expect_csv_error(mb, "1e309\n", tabs, "column 1: '1e309' is beyond float64");
    check(!mb_csv_load(mb, in_folder("none.csv"), plain).ctx && mb_error(mb) == MB_IO, "a missing file");
    mb_clear_error(mb);
    check(!mb_csv_load(mb, folder, plain).ctx && mb_error(mb) == MB_IO, "a folder");
    mb_clear_error(mb);
    check(!mb_csv_load(mb, in_folder("t.csv"), (mb_csv_options){.separator = '1'}).ctx, "a digit separates");
    mb_clear_error(mb);
}
