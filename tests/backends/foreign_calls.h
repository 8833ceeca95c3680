/* SPDX-License-Identifier: MIT
 *
 * foreign_calls.h - what the table of calls (foreign_calls.c) and those who make them (foreign_run.c) share.
 */
#ifndef MB_TESTS_FOREIGN_CALLS_H
#define MB_TESTS_FOREIGN_CALLS_H

#include "backends/engine/state.h"
#include "layers/ttt.h"
#include "optim/optimizer.h"
#include <moebius.h>

/* One of everything that functions are called with. */
typedef struct objects {
    mb_context *ctx;
    mb_params *p;
    mb_optimizer *opt;
    mb_safetensors *file;
    mb_images *images;
    mb_loader *loader;
    mb_average *average;
    mb_snapshot *snapshot;
    mb_idx idx;
    mb_scope scope;
    mb_tensor x, i, c, v, z, tokens,
        picture; /* float [4,4], int32 [4], bool [4], variable, prompts, [1,4,8] */
    mb_linear linear;
    mb_embedding embedding;
    mb_layer_norm norm;
    mb_rms_norm rms;
    mb_attention attention;
    mb_mlp mlp;
    mb_block block;
    mb_linear_transformer lt;
    mb_self_attention sa;
    mb_ttt *ttt;
    mb_vit *vit;
    mb_conv conv;
    mb_batch_norm batch_norm;
    mb_group_norm group_norm;
    char path[256];
} objects;

#define SHAPE MB_SHAPE(4, 4)
/* Of a loader over two rows of a byte each. */
extern const mb_loader_options one_byte;

void check(bool ok, const char *what);
/* Every function that refuses. */
void call_all(objects *o);
/* Prints their names, and those of the functions that touch no context. */
void list_all(void);

#endif
