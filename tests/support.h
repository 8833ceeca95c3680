/* SPDX-License-Identifier: MIT
 *
 * support.h - what the tests share, with numbers.h: expectations, and contexts that count their memory.
 *
 * A test opens contexts with open_on or open_as and closes them with close_all, which also expects that no
 * memory is left and frees every array that `values` gave out. */
#ifndef MB_TESTS_SUPPORT_H
#define MB_TESTS_SUPPORT_H

#include <criterion/criterion.h>

#include "numbers.h"

/* ---- expectations that go on, and say which case of a loop failed ---- */

/* Counts a failure of the running test and prints the message; the first 8 of them. */
bool expect_at(const char *file, int line, bool ok, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
#define expect(...) expect_at(__FILE__, __LINE__, __VA_ARGS__)
/* The context has no error. */
#define expect_ok(ctx) expect(mb_error(ctx) == MB_OK, "%s", mb_message(ctx))

/* ---- contexts ---- */

mb_context *open_on(const char *backend);
/* disable: passes to leave out, or NULL for $TESTS_DISABLE, else none; threads: 0 for the default. */
mb_context *open_as(const char *backend, const char *disable, int threads);
/* Closes what open_on and open_as opened; expects no error and no memory left. */
void close_all(void);
/* The same for one context whose error the test has looked at. */
void close_failed(mb_context *ctx);

/* reference, cpu; or $TESTS_BACKEND in the cpu's place, here and wherever a test opens "cpu". */
extern const char *backend_names[2];
/* Whether the tests run on that backend, and the reference: for what holds of one only. */
bool testing(const char *backend);
/* Whether ctx's backend has the dtype, and runs loops: one that $TESTS_BACKEND names may refuse the first and
 * be given a loop's steps one after the other, and what a test wants of them is then left out. cpu, reference
 * and vulkan have all of it, whatever they say: on them nothing is ever left out. */
bool has_dtype(mb_context *ctx, mb_dtype dtype);
bool has_loops(mb_context *ctx);
/* Whether memory or a backend is looked at, by which everything takes long ($TESTS_SLOW): for lists of which
 * some are enough. */
bool is_slow(void);

/* ---- values ---- */

/* t's values as doubles; freed by close_all. NaN-filled after an error, which is expected not to be. */
double *values(mb_tensor t);

double seconds(void);

#endif
