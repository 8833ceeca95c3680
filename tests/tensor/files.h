/* SPDX-License-Identifier: MIT
 * files.h - what the tests of files share: a folder of their own, counted checks, an allocator that fails,
 * and some tensors to save. */
#ifndef MB_TESTS_FILES_H
#define MB_TESTS_FILES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moebius.h>

extern int passed, failed;
extern char folder[256];

/* Counts; prints what failed. */
bool check(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A path in the folder; good for the next seven calls. */
const char *in_folder(const char *name);
void put_file(const char *path, const void *data, size_t n);
/* To be freed; NULL: there is none. */
char *get_file(const char *path, size_t *n);
int files_in_folder(void);

/* Of the allocator of open_context: its largest request, what is not given back, and which request fails. */
extern struct heap {
    size_t largest, live;
    long count, fail_at; /* 0: never */
} heap;
mb_context *open_context(void);

enum { NAMES = 7 };
extern const char *const names[NAMES + 1], *const metadata[];
/* Tensors of all dtypes, to be saved under these names. */
void make_all(mb_context *mb, mb_tensor *ts);
/* Of any dtype, at most 64 elements. */
mb_tensor some_tensor(mb_context *mb, mb_dtype dtype, mb_shape shape, int seed);
bool same(mb_tensor a, mb_tensor b);
/* Writes a set of images, of which these are the options. */
mb_images_options image_files(void);

/* safetensors_test.c */
void test_corpus(mb_context *mb);
void test_large(mb_context *mb);
void test_round_trip(mb_context *mb);
void test_kinds(mb_context *mb);
void test_dtypes_there_and_back(mb_context *mb);
void test_damage(mb_context *mb);
void test_save_errors(mb_context *mb);
/* system_test.c */
void test_signals(mb_context *mb);
void test_failing_calls(mb_context *mb);
void test_long_names(mb_context *mb);
void test_other_files(mb_context *mb);
/* images_test.c */
void test_idx(mb_context *mb);
void test_images(mb_context *mb);
/* arrays_test.c */
void test_npy(mb_context *mb);
void test_csv(mb_context *mb);

#endif
