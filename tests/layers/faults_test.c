/* SPDX-License-Identifier: MIT
 *
 * faults_test.c - a whole small training run in which the n-th allocation fails, for every n, and then each
 * from the n-th on: it ends with an error, nothing crashes, nothing leaks; and where memory comes back, the
 * run can be repeated. */
#include <unistd.h>

#include "fixture.h"

static char path[256];

/* Two steps of a transformer with every kind of part, looked into, a checkpoint written and read, values of
 * before and initial ones again. Returns the first error. */
static mb_status train_transformer(const mb_allocator *allocator, const char *backend)
{
    mb_context *mb =
        mb_open_with(&(mb_options){.backend = backend, .threads = 1, .disable = "", .allocator = allocator});
    if (!mb)
        return MB_NO_MEMORY;
    bool opened = mb_error(mb) == MB_OK;
    mb_params *p = mb_params_new(mb, 1);
    mb_vit *vit = mb_vit_new(
        p, "net",
        (mb_vit_options){.tokens = 4,
                         .patch_values = 2,
                         .dim = 8,
                         .depth = 1,
                         .classes = 3,
                         .positions = MB_POSITIONS_SINCOS2D,
                         .mixer = {.kind = MB_MIXER_TTT,
                                   .heads = 2,
                                   .ttt = {.learner = MB_LEARNER_MLP, .inner_steps = 2, .inner_batch = 2}}});
    mb_optimizer *opt = mb_adamw(p, (mb_adamw_options){.lr = 1e-3, .weight_decay = 0.1, .clip_norm = 1});
    mb_snapshot *snapshot = mb_snapshot_new(p);
    for (int step = 0; step < 2; step++) {
        mb_scope s = mb_scope_begin(mb);
        mb_tensor losses[3] = {{0}}, told[16];
        mb_prefix prefix = mb_prefix_begin(mb, "net", step);
        mb_tap tap = mb_tap_collect(mb, "net.*.blocks", told, 16);
        mb_tensor x = mb_normal(mb, mb_key_of((uint64_t)step), MB_FLOAT32, MB_SHAPE(2, 4, 2));
        mb_tensor y = mb_from(mb, MB_INT32, MB_SHAPE(2), (int32_t[]){0, 2});
        mb_tensor loss = mb_cross_entropy(mb_vit_apply(vit, x, mb_key_of(9), losses), y);
        mb_tap_end(tap);
        mb_prefix_end(&prefix);
        mb_step(opt, loss);
        float seen;
        mb_watch(losses[2], &seen, sizeof seen);
        mb_item(loss);
        mb_scope_end(s);
    }
    mb_optimizer_save(opt, path);
    mb_optimizer_load(opt, path);
    mb_snapshot_restore(snapshot, "net.*.*.mlp");
    mb_params_reinit(p, "net.head", 3);
    mb_snapshot_take(snapshot);
    mb_eval(NULL, 0);
    expect(!opened || mb_error(mb) == MB_OK || strstr(mb_message(mb), "faults_test.c:"),
           "no line is named: %s", mb_message(mb));
    mb_snapshot_free(snapshot);
    mb_optimizer_free(opt);
    mb_params_free(p);
    return mb_close(mb);
}

/* Two steps of a convolutional network, with folds of both kinds. */
static mb_status train_convolutions(const mb_allocator *allocator, const char *backend)
{
    mb_context *mb =
        mb_open_with(&(mb_options){.backend = backend, .threads = 1, .disable = "", .allocator = allocator});
    if (!mb)
        return MB_NO_MEMORY;
    mb_params *p = mb_params_new(mb, 1);
    mb_conv c = mb_conv2d_new(p, "c", (mb_conv_layer_options){.in = 2, .out = 4, .size = {3}});
    mb_batch_norm b = mb_batch_norm_new(p, "b", 4);
    mb_group_norm g = mb_group_norm_new(p, "g", 4, 2);
    mb_optimizer *opt = mb_sgd(p, (mb_sgd_options){.lr = 0.1});
    for (int step = 0; step < 2; step++) {
        mb_scope s = mb_scope_begin(mb);
        mb_tensor x = mb_normal(mb, mb_key_of((uint64_t)step), MB_FLOAT32, MB_SHAPE(2, 2, 7, 7));
        x = mb_pad_with(x, 2, 1, 1, (mb_pad_options){MB_PAD_REFLECT, 0});
        x = mb_group_norm_apply(g, mb_batch_norm_apply(b, mb_conv2d_apply(c, x), 1, true), 1);
        x = mb_dropout(mb_max_pool2d(x, (mb_pool_options){.size = {2}}), mb_key_of(5), 0.5, true);
        for (int64_t stride = 1; stride < 3; stride++)
            x = mb_conv_transpose2d(x, mb_stop_gradient(mb_slice(c.weight, 1, 0, 1, 1)), MB_EMPTY(mb_tensor),
                                    (mb_conv_options){.stride = {stride, stride}, .groups = 4});
        mb_step(opt, mb_mean(mb_square(x), MB_ALL));
        mb_scope_end(s);
    }
    mb_optimizer_free(opt);
    mb_params_free(p);
    return mb_close(mb);
}

static void every_allocation(const char *backend,
                             mb_status (*train)(const mb_allocator *allocator, const char *backend))
{
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/mb-faults-%ld", folder ? folder : "/tmp", (long)getpid());
    counter c = {0};
    mb_allocator allocator = counting_allocator(&c);
    expect(train(&allocator, backend) == MB_OK && c.blocks == 0, "without faults");
    uint64_t calls = c.calls, stride = calls > 400 ? calls / (is_slow() ? 40 : 200) : 1;
    for (int on = 0; on < 2; on++)
        for (uint64_t n = 1; n <= calls; n += n < 100 && !is_slow() ? 1 : stride) {
            c = (counter){.fail_at = n, .fail_on = on};
            mb_status status = train(&allocator, backend);
            expect(status == MB_NO_MEMORY || (status == MB_OK && !on), /* a single failure may be got over */
                   "%s: allocation %llu of %llu fails%s, and the status is %s", backend,
                   (unsigned long long)n, (unsigned long long)calls, on ? ", and all later ones" : "",
                   mb_status_name(status));
            if (!expect(c.blocks == 0 && c.bytes == 0, "%s: allocation %llu fails, and %lld bytes are left",
                        backend, (unsigned long long)n, (long long)c.bytes))
                return;
        }
    unlink(path);
}

Test(faults, reference)
{
    every_allocation("reference", train_transformer);
    every_allocation("reference", train_convolutions);
}

Test(faults, cpu)
{
    every_allocation("cpu", train_transformer);
    every_allocation("cpu", train_convolutions);
}
