/* SPDX-License-Identifier: MIT
 *
 * input_test.c - what no caller should hand over: NULL where something is wanted, sizes whose products do not
 * fit, names that are taken or that no file can hold. Each is an error that names this file, never a crash, a
 * wrong size or a long wait. */
#include <unistd.h>

#include "support.h"

/* The call ends with this error, told at this line, and the context goes on. */
#define REFUSED(ctx, call, status, needle)                                                                   \
    do {                                                                                                     \
        (void)(call);                                                                                        \
        expect(mb_error(ctx) == (status) && strstr(mb_message(ctx), needle) &&                               \
                   strstr(mb_message(ctx), "input_test.c:" MB_STRING(__LINE__)),                             \
               "%s: %s: %s", #call, mb_status_name(mb_error(ctx)), mb_message(ctx));                         \
        mb_clear_error(ctx);                                                                                 \
    } while (0)

Test(input, null_where_something_is_wanted)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor x = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(2, 2)), g;
    mb_params *p = mb_params_new(ctx, 1);
    mb_param(p, "w", MB_SHAPE(2, 2), mb_init_ones());
    mb_optimizer *opt = mb_sgd(p, (mb_sgd_options){.lr = 1});
    mb_tensor tokens = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1, 2, 2));

    REFUSED(ctx, mb_grad(x, &x, 1, NULL), MB_INVALID, "grad");
    REFUSED(ctx, mb_grad(x, NULL, 1, &g), MB_INVALID, "grad");
    REFUSED(ctx, mb_vjp(x, x, &x, 1, NULL), MB_INVALID, "vjp");
    REFUSED(ctx, mb_jvp(&x, 1, &x, &x, 1, NULL), MB_INVALID, "jvp");
    REFUSED(ctx, mb_jvp(&x, 1, NULL, &x, 1, &g), MB_INVALID, "jvp");
    REFUSED(ctx, mb_jvp_batch(&x, 1, &x, NULL, 1, &g), MB_INVALID, "jvp_batch");
    REFUSED(ctx, mb_hvp(x, &x, &x, 1, NULL), MB_INVALID, "hvp");
    REFUSED(ctx, mb_hvp(x, &x, NULL, 1, &g), MB_INVALID, "hvp");
    REFUSED(ctx, mb_hvp_reverse(x, NULL, &x, 1, &g), MB_INVALID, "hvp_reverse");
    REFUSED(ctx, mb_hvp_batch(x, &x, &x, 1, NULL), MB_INVALID, "hvp_batch");
    REFUSED(ctx, mb_hessian(x, NULL, 1), MB_INVALID, "hessian");
    REFUSED(ctx, mb_hessian_diagonal(x, &x, 1, NULL), MB_INVALID, "hessian_diagonal");
    REFUSED(ctx, mb_hessian_diagonal(x, NULL, 1, &g), MB_INVALID, "hessian_diagonal");
    REFUSED(ctx, mb_directional(x, &x, &x, 1, &g, NULL), MB_INVALID, "directional");
    REFUSED(ctx, mb_lanczos(x, &x, 1, 2, mb_key_of(1), NULL, &g), MB_INVALID, "lanczos");
    REFUSED(ctx, mb_extreme_eigenvalues(x, NULL, 1, 2, mb_key_of(1), NULL, NULL), MB_INVALID, "lanczos");

    REFUSED(ctx, mb_clip_norm(&x, 1, 1, NULL), MB_INVALID, "clip_norm");
    REFUSED(ctx, mb_momentum_update(x, x, x, x, 0.9, false, NULL), MB_INVALID, "momentum_update");
    REFUSED(ctx, mb_adam_update(x, x, x, x, x, 1, NULL, NULL, &g), MB_INVALID, "adam_update");
    REFUSED(ctx, mb_adam_update(x, x, x, x, x, 1, NULL, &g, NULL), MB_INVALID, "adam_update");
    REFUSED(ctx, mb_apply_gradients(opt, NULL, 1), MB_INVALID, "apply_gradients");
    REFUSED(ctx, mb_step(opt, (mb_tensor){0}), MB_INVALID, "step");
    REFUSED(ctx, mb_param(p, NULL, MB_SHAPE(1), mb_init_ones()), MB_INVALID, "name");
    REFUSED(ctx, mb_params_get(p, NULL), MB_INVALID, "no parameter");
    REFUSED(ctx, mb_mixer_new(p, 2, NULL), MB_INVALID, "mixer");
    REFUSED(ctx, mb_block_new(p, "block", 2, 2, NULL), MB_INVALID, "mixer");
    REFUSED(ctx, mb_block_apply(NULL, tokens, mb_key_of(1), NULL), MB_INVALID, "block");
    REFUSED(ctx, mb_read(x, NULL, 16), MB_INVALID, "read");
    REFUSED(ctx, mb_watch(x, NULL, 16), MB_INVALID, "watch");
    REFUSED(ctx, mb_from(ctx, MB_FLOAT32, MB_SHAPE(2), NULL), MB_INVALID, "from");
    REFUSED(ctx, mb_einsum(NULL, x, x), MB_INVALID, "einsum");
    REFUSED(ctx, mb_safetensors_open(ctx, NULL), MB_INVALID, "path");
    REFUSED(ctx, mb_safetensors_save(ctx, "/tmp/x", NULL, &x, 1, NULL), MB_INVALID, "names");
    REFUSED(ctx, mb_idx_read(ctx, "/tmp/x", NULL), MB_INVALID, "result");
    REFUSED(ctx, mb_images_open(ctx, (mb_images_options){0}), MB_INVALID, "paths");
    REFUSED(ctx, mb_fail(ctx, MB_INVALID, "%s", "own"), MB_INVALID, "own");

    /* No context is within reach, or nothing is lost: no error, and no crash. */
    expect(!mb_global_norm(NULL, 1).ctx && !mb_clip_norm(NULL, 1, 1, &g).ctx, "norms of no array");
    expect(mb_params_list(p, NULL, 4) == mb_params_count(p), "how many parameters there are");
    expect(mb_linear_transformer_size(NULL) == 0 && mb_devices(NULL, 4, NULL) >= 0, "sizes");
    expect(mb_eval(NULL, 3) == MB_INVALID && !mb_concat(NULL, 3, 0).id && !mb_stack(NULL, 3, 0).id,
           "no array");
    mb_params_set_decay(p, NULL, true);
    mb_site_end(NULL);
    expect_ok(ctx);

    const char *folder = getenv("TMPDIR");
    char path[256];
    snprintf(path, sizeof path, "%s/mb-input-%ld", folder ? folder : "/tmp", (long)getpid());
    mb_safetensors_save(ctx, path, (const char *[]){"x"}, &x, 1, (const char *[]){"key", "value", NULL});
    mb_safetensors *file = mb_safetensors_open(ctx, path);
    const char *value = NULL;
    expect(mb_safetensors_dtype(file, 0, NULL), "a dtype that nobody wants");
    expect(mb_safetensors_metadata_pair(file, 0, NULL, &value) && !strcmp(value, "value"), "a value alone");
    expect(mb_safetensors_metadata_pair(file, 0, NULL, NULL), "a pair that nobody wants");
    mb_safetensors_close(file);
    unlink(path);

    mb_optimizer_free(opt);
    mb_params_free(p);
    close_all();
}

/* A layer that is a pointer is NULL after its error, whichever part failed. */
Test(input, a_layer_twice_under_one_name)
{
    mb_context *ctx = open_on("cpu");
    mb_params *p = mb_params_new(ctx, 1);
    mb_ttt_options ttt = {.dim = 4, .heads = 2, .learner = MB_LEARNER_MLP};
    mb_vit_options vit = {
        .tokens = 4, .patch_values = 2, .dim = 4, .depth = 1, .classes = 3, .mixer.heads = 2};
    mb_mixer_options mixer = {.heads = 2}, inner = {.kind = MB_MIXER_TTT, .heads = 2};
    expect(mb_ttt_new(p, "one", ttt) && mb_vit_new(p, "vit", vit) && mb_mixer_new(p, 4, &mixer).apply &&
               mb_mixer_new(p, 4, &inner).apply,
           "once: %s", mb_message(ctx));
    mb_ttt *t;
    REFUSED(ctx, t = mb_ttt_new(p, "one", ttt), MB_INVALID, "already");
    expect(!t, "a test-time-training layer after its error");
    mb_vit *v;
    REFUSED(ctx, v = mb_vit_new(p, "vit", vit), MB_INVALID, "already");
    expect(!v, "a transformer after its error");
    mb_mixer m;
    REFUSED(ctx, m = mb_mixer_new(p, 4, &mixer), MB_INVALID, "already");
    expect(!m.apply, "a mixer after its error");
    REFUSED(ctx, m = mb_mixer_new(p, 4, &inner), MB_INVALID, "already");
    expect(!m.apply, "a mixer after its error");
    mb_params_free(p);
    close_all();
}
