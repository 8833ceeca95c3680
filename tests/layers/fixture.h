/* SPDX-License-Identifier: MIT
 *
 * fixture.h - what the tests of layers share: closed-form values and the small test-time-training layer of
 * the golden numbers (section 4.1 of the notes on 2310.13807). */
#ifndef MB_TESTS_LAYERS_FIXTURE_H
#define MB_TESTS_LAYERS_FIXTURE_H

#include "support.h"

/* base + scale sin(0.7 (i + 1) + 1.3 tag), float64 */
mb_tensor pattern(mb_context *mb, mb_shape shape, int tag, double scale, double base);
void set_pattern(mb_params *p, const char *name, int tag, double scale, double base);

enum { TINY_N = 6, TINY_D = 4, TINY_H = 2, TINY_DH = 2 };

/* A layer "ttt" on [B,TINY_N,TINY_D] with the golden values in its parameters. */
typedef struct tiny {
    mb_context *mb;
    mb_params *p; /* to be freed: mb_params_free */
    mb_ttt *layer;
} tiny;

/* options: all but dim and heads. */
tiny tiny_ttt(mb_context *mb, mb_ttt_options options);
/* The parameter "ttt.NAME". */
mb_tensor tiny_get(const tiny *t, const char *name);
/* [B,TINY_N,TINY_D]; the first image is the golden x. */
mb_tensor tiny_x(mb_context *mb, int64_t B);
/* 1/2 sum (y - target)^2, 0-d */
mb_tensor outer_loss(mb_tensor y);

double norm2(mb_tensor t);
/* Expects all elements of a and b to agree within relative and absolute `tolerance` of the largest of b. */
void expect_close_at(const char *file, int line, mb_tensor a, mb_tensor b, double tolerance,
                     const char *what);
#define expect_close(...) expect_close_at(__FILE__, __LINE__, __VA_ARGS__)

#endif
