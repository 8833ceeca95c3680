/* SPDX-License-Identifier: MIT
 *
 * input_test.c - what no caller should hand over: NULL where something is wanted, sizes whose products do not
 * fit, names that are taken or that no file can hold. Each is an error that names this file, never a crash, a
 * wrong size or a long wait. */
#include <unistd.h>

#include "support.h"

/* The call ends with this error, told at this line, and the context goes on. On one line: compilers differ in
 * which line of several they name. */
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

    mb_key key = mb_key_of(1);

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
    REFUSED(ctx, mb_extreme_eigenvalues(x, NULL, 1, 2, key, NULL, NULL), MB_INVALID, "extreme_eigenvalues");

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
    REFUSED(ctx, mb_from_bytes(ctx, MB_FLOAT32, MB_SHAPE(2), "1234", 4), MB_INVALID, "[2] float32 has 8");
    REFUSED(ctx, mb_from_bytes(ctx, MB_FLOAT32, MB_SHAPE(2), NULL, 8), MB_INVALID, "from");
    expect(mb_item(mb_from_bytes(ctx, MB_INT32, MB_SHAPE0, (int32_t[]){7}, 4)) == 7, "as many as there are");
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

/* ---- sizes ---- */

static const int64_t extremes[] = {
    INT64_MIN,     INT64_MIN + 1, -1, 0, (int64_t)1 << 31, (int64_t)1 << 32, ((int64_t)1 << 62) + 1,
    INT64_MAX - 1, INT64_MAX};
#define EACH_EXTREME(n)                                                                                      \
    for (size_t k_ = 0; k_ < sizeof extremes / sizeof *extremes; k_++)                                       \
        for (int64_t n = extremes[k_], once_ = 1; once_; once_ = 0)

/* An empty tensor may be long along other axes, but no sum or product of sizes leaves int64_t. */
Test(input, sizes_of_empty_tensors)
{
    mb_context *ctx = open_on("cpu");
    const int64_t most = INT64_MAX, half = (int64_t)1 << 58;
    REFUSED(ctx, mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(most, 0)), MB_INVALID, "too many elements");
    REFUSED(ctx, mb_variable(ctx, MB_FLOAT32, MB_SHAPE(most, 0, most)), MB_INVALID, "too many elements");
    mb_tensor x = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(half, 0)), xs[40];
    expect(mb_count(x) == 0, "empty");
    for (int i = 0; i < 40; i++)
        xs[i] = x;
    REFUSED(ctx, mb_concat(xs, 40, 0), MB_INVALID, "too many elements"); /* the sum overflows */
    REFUSED(ctx, mb_concat(xs, 5, 0), MB_INVALID, "too many elements");  /* it fits, and is too large */
    REFUSED(ctx, mb_stack(xs, 5, 0), MB_INVALID, "too many elements");
    REFUSED(ctx, mb_broadcast(x, MB_SHAPE(half, half, 0)), MB_INVALID, "too many elements");
    REFUSED(ctx, mb_reshape(x, MB_SHAPE(half, half, 0)), MB_INVALID, "");
    REFUSED(ctx, mb_take(x, mb_zeros(ctx, MB_INT32, MB_SHAPE(half, 0)), 1), MB_INVALID, "too many elements");
    REFUSED(ctx, mb_scatter_add(x, mb_zeros(ctx, MB_INT32, MB_SHAPE(0)), 1, half), MB_INVALID, "too many");
    mb_tensor y = x;
    for (int i = 0; i < 3; i++)
        y = mb_pad(y, 1, INT32_MAX, INT32_MAX);
    expect(!y.id && mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), "pad"), "%s", mb_message(ctx));
    mb_clear_error(ctx);
    close_all();
}

Test(input, more_than_an_index_can_count)
{
    mb_context *ctx = open_on("cpu");
    const int64_t two31 = (int64_t)1 << 31;
    mb_tensor one = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1));
    REFUSED(ctx, mb_argmax(mb_broadcast(one, MB_SHAPE(two31)), 0), MB_INVALID, "argmax");
    expect(mb_valid(mb_argmax(mb_broadcast(one, MB_SHAPE(two31 - 1)), 0)), "as many as it counts");
    REFUSED(ctx, mb_argsort(mb_broadcast(one, MB_SHAPE(two31))), MB_INVALID, "argsort");
    REFUSED(ctx, mb_iota(ctx, MB_INT32, two31), MB_INVALID, "iota");
    REFUSED(ctx, mb_eye(ctx, MB_FLOAT32, two31), MB_INVALID, "eye");
    close_all();
}

/* Nothing is recorded, and nobody waits, after the error. */
Test(input, curvature_of_too_much, .timeout = 60)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor x = mb_broadcast(mb_ones(ctx, MB_FLOAT32, MB_SHAPE0), MB_SHAPE((int64_t)1 << 31)), d;
    mb_tensor y = mb_square(x);
    double start = seconds();
    REFUSED(ctx, mb_hessian_diagonal(y, &x, 1, &d), MB_INVALID, "hessian_diagonal");
    expect(!d.id, "no result");
    REFUSED(ctx, mb_hessian(y, &x, 1), MB_INVALID, "hessian");
    REFUSED(ctx, mb_jacobian(y, x), MB_INVALID, "jacobian");
    mb_tensor narrow = mb_slice(x, 0, 0, 4, 1), w = mb_square(narrow);
    mb_fail(ctx, MB_INVALID, "before");
    expect(mb_hessian_diagonal(w, &narrow, 1, &d) == MB_INVALID && !d.id, "under an earlier error");
    mb_clear_error(ctx);
    expect(seconds() - start < 10, "%g seconds", seconds() - start);
    close_all();
}

/* No size of a layer, however absurd, overflows on its way to being refused; .timeout: nor is it counted
 * through. */
Test(input, sizes_of_layers, .timeout = 60)
{
    mb_context *ctx = open_on("cpu");
    mb_params *p = mb_params_new(ctx, 1);
    mb_tensor t = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1, 4, 3)), rate = mb_scalar(ctx, MB_FLOAT32, 1),
              none = {0};
    mb_tensor picture = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(1, 0, 0));
    EACH_EXTREME(n)
    {
        mb_linear_transformer_options lt = {.dim = n, .layers = 1};
        mb_self_attention_options sa = {.dim = n, .layers = 1};
        mb_vit_options wide = {.tokens = n, .patch_values = n, .dim = n, .classes = n};
        mb_vit_options deep = {.tokens = 4, .patch_values = 4, .dim = 4, .classes = 4, .depth = n ? n : -1};
        char name[32];
        snprintf(name, sizeof name, "n%zu", k_);
        mb_params_enter(p, name);
        REFUSED(ctx, mb_linear_new(p, "a", n, n), MB_INVALID, "");
        REFUSED(ctx, mb_mlp_new(p, "b", n, n), MB_INVALID, "");
        REFUSED(ctx, mb_attention_new(p, "c", (mb_attention_options){.dim = n, .heads = 1}), MB_INVALID, "");
        REFUSED(ctx, mb_block_new(p, "d", n, 0, &(mb_mixer_options){.heads = 1}), MB_INVALID, "");
        REFUSED(ctx, mb_block_new(p, "e", 4, n ? n : -1, &(mb_mixer_options){.heads = n}), MB_INVALID, "");
        REFUSED(ctx, mb_vit_new(p, "g", wide), MB_INVALID, "");
        REFUSED(ctx, mb_vit_new(p, "h", deep), MB_INVALID, "");
        REFUSED(ctx, mb_linear_transformer_new(p, "i", lt), MB_INVALID, "");
        REFUSED(ctx, mb_linear_transformer_view(rate, lt), MB_INVALID, "");
        REFUSED(ctx, mb_self_attention_new(p, "j", sa), MB_INVALID, "");
        REFUSED(ctx, mb_self_attention_gd(rate, none, none, n ? n : -1, sa), MB_INVALID, "");
        REFUSED(ctx, mb_embedding_new(p, "k", n, n), MB_INVALID, "");
        REFUSED(ctx, mb_patchify(picture, n ? n : -1), MB_INVALID, "");
        expect(mb_linear_transformer_size(&lt) == 0, "%lld: a size", (long long)n);
        mb_params_leave(p);
        mb_linear_transformer layer = {.P = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1, 3, 3)),
                                       .Q = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1, 3, 3)),
                                       .options = {.dim = 2, .layers = n ? n : -1, .tied = true}};
        REFUSED(ctx, mb_linear_transformer_apply(layer, t), MB_INVALID, "layers");
        mb_schedule cosine = {.kind = MB_SCHEDULE_COSINE, .warmup = n, .total = INT64_MAX};
        mb_schedule_factor(cosine, INT64_MAX - 1); /* whatever it is, nothing overflows */
        mb_init_xavier(n, n);
    }
    mb_params_free(p);
    mb_params *many = mb_params_new(ctx, 1); /* variables take no memory until they are stored */
    for (int i = 0; i < 40; i++) {
        char name[8];
        snprintf(name, sizeof name, "%d", i);
        mb_param(many, name, MB_SHAPE((int64_t)1 << 58, i < 39), mb_init_zeros());
    }
    expect_ok(ctx);
    expect(mb_params_size(many) == INT64_MAX, "%lld elements in all", (long long)mb_params_size(many));
    mb_params_free(many);
    close_all();
}

/* ---- text ---- */

Test(input, messages_are_one_line)
{
    mb_context *ctx = open_on("cpu");
    mb_params *p = mb_params_new(ctx, 1);
    mb_params_get(p, "no\nsuch\x7f\x1b[31m name");
    expect(strstr(mb_message(ctx), "no?such??[31m name") != NULL, "%s", mb_message(ctx));
    mb_clear_error(ctx);
    mb_safetensors_open(ctx, "no\nsuch\tfile");
    expect(strstr(mb_message(ctx), "no?such?file") != NULL, "%s", mb_message(ctx));
    mb_clear_error(ctx);
    mb_fail(ctx, MB_INVALID, "two\nlines \xc3\xa9");
    expect(strstr(mb_message(ctx), "two?lines \xc3\xa9") != NULL, "%s", mb_message(ctx));
    mb_clear_error(ctx);
    mb_params_free(p);
    close_all();
}

/* A handle that is stale where a layer first uses it is told at the line that applied the layer. */
Test(input, stale_operands_inside_layers)
{
    mb_context *ctx = open_on("cpu");
    mb_params *p = mb_params_new(ctx, 1);
    mb_attention attention = mb_attention_new(p, "attention", (mb_attention_options){.dim = 4, .heads = 2});
    mb_ttt *ttt = mb_ttt_new(p, "ttt", (mb_ttt_options){.dim = 4, .heads = 2, .inner_steps = 1});
    mb_embedding embedding = mb_embedding_new(p, "embedding", 3, 3);
    mb_scope s = mb_scope_begin(ctx);
    mb_tensor x = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1, 4, 4)), i = mb_iota(ctx, MB_INT32, 3), g,
              w = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(3, 3)), alive;
    mb_scope_end(s);
    alive = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1, 3));
    mb_linear borrowed = {.weight = w};
    REFUSED(ctx, mb_linear_apply(borrowed, alive), MB_STALE, "stale");
    REFUSED(ctx, mb_attention_apply(attention, x), MB_STALE, "stale");
    REFUSED(ctx, mb_ttt_apply(ttt, x, mb_key_of(1), NULL), MB_STALE, "stale");
    REFUSED(ctx, mb_embedding_apply(embedding, i), MB_STALE, "stale");
    REFUSED(ctx, mb_layer_normalize(alive, w, w, 1e-6), MB_STALE, "stale");
    REFUSED(ctx, mb_softmax(x, 0), MB_STALE, "stale");
    REFUSED(ctx, mb_cross_entropy(alive, i), MB_STALE, "stale");
    REFUSED(ctx, mb_clip_norm(&x, 1, 1, &g), MB_STALE, "stale");
    REFUSED(ctx, mb_hessian(alive, &w, 1), MB_STALE, "stale");
    REFUSED(ctx, mb_grad(x, &x, 1, &g), MB_STALE, "stale");
    mb_params_free(p);
    close_all();
}
