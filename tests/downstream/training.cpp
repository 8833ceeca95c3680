/* SPDX-License-Identifier: MIT
 *
 * training.cpp - every function and macro of optim.h, layers.h and check.h once.
 */
#include "expect.h"

#include <cstring>
#include <vector>

/* --------------------------------------------------------------------------------------------- optim.h -- */

static void parameters(mb_context *mb, const std::string &folder)
{
    mb_params *p = mb_params_new_with(mb, 1, MB_FLOAT64);
    EXPECT(mb_params_context(p) == mb && mb_params_dtype(p) == MB_FLOAT64);
    EXPECT(mb_params_enter(p, "all") == MB_OK);
    std::vector<mb_init> inits = {mb_init_zeros(),    mb_init_ones(),       mb_init_normal(1),
                                  mb_init_uniform(1), mb_init_xavier(2, 3), mb_init_lecun(3),
                                  mb_init_he(3)};
    for (size_t i = 0; i < inits.size(); i++)
        mb_param(p, ("w" + std::to_string(i)).c_str(), MB_SHAPE(inits.size()), inits[i]);
    mb_param_no_decay(p, "bias", MB_SHAPE0, mb_init_zeros());
    EXPECT(mb_params_leave(p) == MB_OK);
    EXPECT(mb_params_count(p) == 8 && mb_params_size(p) == 50 &&
           !std::strcmp(mb_params_name(p, 7), "all.bias"));
    EXPECT(mb_params_freeze(p, "all.w0") == MB_OK && !mb_params_trainable(p, 0));
    EXPECT(mb_params_unfreeze(p, "all") == MB_OK && mb_params_trainable(p, 0));
    EXPECT(mb_params_set_decay(p, "all.w0", false) == MB_OK && !mb_params_decays(p, 0) &&
           mb_params_decays(p, 1));
    EXPECT(is(mb_sum(mb_params_get(p, "all.w1"), MB_ALL), 7) &&
           is(mb_sum(mb_params_tensor(p, 0), MB_ALL), 0));
    std::vector<mb_tensor> list(8);
    EXPECT(mb_params_list(p, list.data(), 8) == 8);
    EXPECT(mb_params_alloc(p, 16));
    const std::string path = folder + "/params.safetensors";
    EXPECT(mb_params_save(p, path.c_str()) == MB_OK && mb_params_load(p, path.c_str()) == MB_OK);
    mb_tensor two = mb_param(p, "two", MB_SHAPE(3), mb_init_full(2)),
              first = mb_param(p, "first", MB_SHAPE(4, 3), mb_init_impulse());
    EXPECT(is(mb_sum(two, MB_ALL), 6) && is(mb_sum(mb_slice(first, 0, 0, 1, 1), MB_ALL), 3) &&
           is(mb_sum(first, MB_ALL), 3));
    mb_params_free(p);
}

static void schedules()
{
    EXPECT(mb_schedule_factor(mb_schedule_constant(), 5) == 1);
    EXPECT(mb_schedule_factor(mb_schedule_warmup_cosine(2, 10), 0) == 0.5);
    EXPECT(mb_schedule_factor(mb_schedule_steps(3, 0.5), 3) == 0.5);
}

static void take_steps(mb_params *p, mb_optimizer *opt)
{
    mb_tensor w = mb_params_tensor(p, 0), norm,
              gradient = mb_ones(mb_params_context(p), MB_FLOAT32, MB_SHAPE(2));
    EXPECT(mb_step(opt, mb_sum(mb_square(w), MB_ALL)) == MB_OK);
    EXPECT(mb_step_norm(opt, mb_sum(w, MB_ALL), &norm) == MB_OK && is(norm, std::sqrt(2.0)));
    EXPECT(mb_accumulate(opt, mb_sum(w, MB_ALL)) == MB_OK);
    EXPECT(mb_apply_gradients(opt, &gradient, 1) == MB_OK && mb_optimizer_steps(opt) == 3);
}

static void optimisers(mb_context *mb, const std::string &folder)
{
    mb_params *p = mb_params_new(mb, 1);
    mb_param(p, "w", MB_SHAPE(2), mb_init_ones());
    mb_sgd_options sgd = {};
    sgd.lr = 0.1;
    mb_adam_options adam = {};
    adam.lr = 0.1;
    adam.eps = MB_ZERO;
    adam.schedule = mb_schedule_steps(10, 0.5);
    mb_adamw_options adamw = {};
    adamw.lr = 0.1;
    adamw.skip = true;
    mb_average *average = mb_average_new(p, 0.5);
    EXPECT(mb_average_update(average) == MB_OK && mb_average_swap(average) == MB_OK);
    EXPECT(is(mb_sum(mb_average_tensor(average, 0), MB_ALL), 2));
    mb_average_free(average);
    mb_snapshot *snapshot = mb_snapshot_new(p);
    EXPECT(mb_params_reinit(p, "w", 1) == MB_OK && mb_snapshot_take(snapshot) == MB_OK &&
           mb_snapshot_restore(snapshot, "*") == MB_OK);
    EXPECT(is(mb_sum(mb_snapshot_tensor(snapshot, 0), MB_ALL), 2));
    mb_snapshot_free(snapshot);
    for (mb_optimizer *opt : {mb_sgd(p, sgd), mb_adam(p, adam), mb_adamw(p, adamw)}) {
        take_steps(p, opt);
        const std::string path = folder + "/optimizer.safetensors";
        EXPECT(mb_optimizer_save(opt, path.c_str()) == MB_OK &&
               mb_optimizer_load(opt, path.c_str()) == MB_OK);
        const char *metadata[] = {"epoch", "2", nullptr};
        EXPECT(mb_optimizer_save_with(opt, path.c_str(), metadata) == MB_OK &&
               mb_optimizer_load(opt, path.c_str()) == MB_OK);
        EXPECT(mb_optimizer_skipped(opt) == 0);
        EXPECT(mb_optimizer_loss_scale(opt) == 1);
        mb_optimizer_set_lr(opt, 0.2);
        EXPECT(mb_optimizer_lr(opt) == 0.2);
        mb_optimizer_set_through(opt, nullptr, nullptr);
        for (int i = 0; i < mb_optimizer_state_count(opt); i++)
            EXPECT(mb_optimizer_state_name(opt, i) &&
                   has_shape(mb_optimizer_state_tensor(opt, i), MB_SHAPE(2)));
        mb_optimizer_free(opt);
    }
    mb_params_free(p);
}

static void rules(mb_context *mb)
{
    mb_tensor w = mb_full(mb, MB_FLOAT64, MB_SHAPE(2), 1.0), lr = mb_scalar(mb, MB_FLOAT64, 0.5),
              zero = mb_sub(w, w);
    mb_tensor velocity, m, v, clipped;
    EXPECT(is(mb_sum(mb_sgd_update(w, w, lr), MB_ALL), 1));
    EXPECT(is(mb_sum(mb_momentum_update(w, w, lr, zero, 0.9, false, &velocity), MB_ALL), 1));
    EXPECT(is(mb_sum(mb_adam_update(w, w, lr, zero, zero, 1, nullptr, &m, &v), MB_ALL), 1));
    mb_tensor first = mb_full(mb, MB_INT32, MB_SHAPE0, 1);
    EXPECT(is(mb_sum(mb_adam_update_in_scan(w, w, lr, zero, zero, first, nullptr, &m, &v), MB_ALL), 1));
    EXPECT(is(mb_global_norm(&w, 1), std::sqrt(2.0)) && is(mb_clip_norm(&w, 1, 1, &clipped), std::sqrt(2.0)));
    EXPECT(is(mb_sum(mb_clip_value(w, 0.25), MB_ALL), 0.5));
}

/* -------------------------------------------------------------------------------------------- layers.h -- */

static void small_layers(mb_context *mb, mb_params *p)
{
    mb_tensor x = mb_normal(mb, mb_key_of(3), MB_FLOAT32, MB_SHAPE(2, 4, 8));
    mb_linear_options no_bias = {};
    no_bias.no_bias = true;
    mb_tensor ids = mb_iota(mb, MB_INT32, 4), one = mb_ones(mb, MB_FLOAT32, MB_SHAPE(8));
    EXPECT(has_shape(mb_linear_apply(mb_linear_new(p, "linear", 8, 3), x), MB_SHAPE(2, 4, 3)));
    EXPECT(has_shape(mb_linear_apply(mb_linear_new_with(p, "plain", 8, 3, no_bias), x), MB_SHAPE(2, 4, 3)));
    EXPECT(has_shape(mb_embedding_apply(mb_embedding_new(p, "embedding", 5, 8), ids), MB_SHAPE(4, 8)));
    EXPECT(has_shape(mb_layer_normalize(x, one, MB_EMPTY(mb_tensor), 1e-6), MB_SHAPE(2, 4, 8)));
    EXPECT(has_shape(mb_rms_normalize(x, one, 1e-6), MB_SHAPE(2, 4, 8)));
    EXPECT(has_shape(mb_layer_norm_apply(mb_layer_norm_new(p, "norm", 8), x), MB_SHAPE(2, 4, 8)));
    EXPECT(has_shape(mb_rms_norm_apply(mb_rms_norm_new(p, "rms", 8), x), MB_SHAPE(2, 4, 8)));
    EXPECT(has_shape(mb_mlp_apply(mb_mlp_new(p, "mlp", 8, 16), x), MB_SHAPE(2, 4, 8)));
    mb_tensor heads = mb_reshape(x, MB_SHAPE(2, 4, 2, 4));
    EXPECT(has_shape(mb_attend(heads, heads, heads, MB_ATTENTION_LINEAR, true, 0), MB_SHAPE(2, 4, 2, 4)));
    mb_attend_options masked = {};
    masked.mask = mb_tril_mask(mb, 4, 4, 0);
    EXPECT(has_shape(mb_attend_with(heads, heads, heads, masked), MB_SHAPE(2, 4, 2, 4)));
    mb_attention_options attention = {};
    attention.dim = 8;
    attention.heads = 2;
    mb_attention layer = mb_attention_new(p, "attention", attention);
    EXPECT(has_shape(mb_attention_apply(layer, x), MB_SHAPE(2, 4, 8)));
    EXPECT(has_shape(mb_attention_apply_with(layer, x, masked.mask), MB_SHAPE(2, 4, 8)));
}

static void in_context(mb_context *mb, mb_params *p)
{
    mb_tensor x = mb_normal(mb, mb_key_of(4), MB_FLOAT32, MB_SHAPE(2, 5, 3));
    mb_tensor z = mb_prompt_tokens(x, mb_slice(mb_sum(x, MB_AXES(2)), 1, 0, 4, 1));
    EXPECT(has_shape(z, MB_SHAPE(2, 5, 4)));
    mb_linear_transformer_options options = {};
    options.dim = 3;
    options.layers = 2;
    mb_linear_transformer made = mb_linear_transformer_new(p, "linear_transformer", options);
    mb_tensor theta = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(mb_linear_transformer_size(&options)));
    mb_linear_transformer view = mb_linear_transformer_view(theta, options);
    EXPECT(has_shape(mb_linear_transformer_apply(made, z), MB_SHAPE(2, 5, 4)));
    EXPECT(is(mb_sum(mb_linear_transformer_predict(view, z), MB_ALL), 0));

    mb_self_attention_options self = {};
    self.dim = 3;
    self.layers = 1;
    mb_self_attention layer = mb_self_attention_new(p, "self_attention", self);
    EXPECT(has_shape(mb_self_attention_apply(layer, z), MB_SHAPE(2, 5, 4)));
    mb_linear_transformer products = mb_self_attention_products(layer);
    mb_tensor by_products = mb_linear_transformer_predict(products, z);
    EXPECT(is(mb_sum(mb_abs(mb_sub(mb_self_attention_predict(layer, z), by_products)), MB_ALL), 0));
    mb_tensor eta = mb_scalar(mb, MB_FLOAT32, 0.1), none = MB_EMPTY(mb_tensor);
    mb_self_attention gd = mb_self_attention_gd(eta, none, none, 4, self);
    EXPECT(has_shape(mb_self_attention_predict(gd, z), MB_SHAPE(2, 1)));
}

/* A learner and a mixer of one's own, from lambdas. */
static mb_mixer_options own_mixer()
{
    static const mb_learner_weight weight = {"W1", MB_SHAPE(4, 4), mb_init_xavier(4, 4), false};
    mb_mixer_options mixer = {};
    mixer.kind = MB_MIXER_CUSTOM;
    mixer.heads = 2;
    mixer.make = [](void *, mb_params *p, int64_t dim) {
        mb_ttt_options options = {};
        options.dim = dim;
        options.heads = 2;
        options.inner_steps = 1;
        options.learner = MB_LEARNER_CUSTOM;
        options.custom.apply = [](void *, const mb_tensor *weights, int, mb_tensor x) {
            return mb_matmul(x, weights[0]);
        };
        options.custom.weights = &weight;
        options.custom.n = 1;
        mb_ttt *layer = mb_ttt_new(p, "ttt", options);
        mb_ttt_set_inner_lr(layer, 0, 0.5);
        mb_mixer made = {};
        made.layer = layer;
        made.losses = mb_ttt_inner_steps(layer) + 1;
        made.apply = [](const void *own, mb_tensor x, mb_key key, mb_tensor *losses) {
            return mb_ttt_apply(static_cast<const mb_ttt *>(own), x, key, losses);
        };
        return made;
    };
    return mixer;
}

static void transformers(mb_context *mb, mb_params *p)
{
    mb_mixer_options mixer = own_mixer();
    mb_tensor x = mb_normal(mb, mb_key_of(5), MB_FLOAT32, MB_SHAPE(2, 4, 8)), losses[4];
    EXPECT(mb_params_enter(p, "mixer") == MB_OK);
    mb_mixer mixing = mb_mixer_new(p, 8, &mixer);
    EXPECT(mb_params_leave(p) == MB_OK);
    EXPECT(has_shape(mb_mixer_apply(mixing, x, MB_NO_KEY, losses), MB_SHAPE(2, 4, 8)));
    mb_block block = mb_block_new(p, "block", 8, 0, &mixer);
    EXPECT(has_shape(mb_block_apply(&block, x, MB_NO_KEY, nullptr), MB_SHAPE(2, 4, 8)));

    mb_tensor patches = mb_patchify(mb_reshape(x, MB_SHAPE(2, 4, 8)), 2);
    EXPECT(has_shape(mb_sincos2d(mb, MB_FLOAT32, 2, 4, 8), MB_SHAPE(8, 8)) &&
           has_shape(patches, MB_SHAPE(2, 8, 4)));
    mb_vit_options options = {};
    options.tokens = 8;
    options.patch_values = 4;
    options.dim = 8;
    options.depth = 2;
    options.classes = 3;
    options.mixer = mixer;
    mb_vit *vit = mb_vit_new(p, "vit", options);
    EXPECT(mb_vit_depth(vit) == 2 && mb_vit_losses(vit) == 2 && mb_vit_block(vit, 0)->mixer.losses == 2);
    mb_tensor logits = mb_vit_apply(vit, patches, mb_key_of(1), losses);
    EXPECT(has_shape(logits, MB_SHAPE(2, 3)) && std::isfinite(mb_item(mb_sum(logits, MB_ALL))));
}

static void masked(mb_context *mb, mb_params *p)
{
    mb_mixer_options mixer = {};
    mixer.heads = 2;
    mb_vit_options options = {};
    options.tokens = 4;
    options.patch_values = options.dim = 8;
    options.depth = 1;
    options.classes = 3;
    options.mixer = mixer;
    mb_vit *vit = mb_vit_new(p, "masked", options);
    mb_vit_masks masks = {};
    masks.tokens = mb_full(mb, MB_BOOL, MB_SHAPE(2, 4), 1);
    mb_tensor x = mb_ones(mb, MB_FLOAT32, MB_SHAPE(2, 4, 8)), seen = mb_full(mb, MB_BOOL, MB_SHAPE(4), 1);
    const mb_block *block = mb_vit_block(vit, 0);
    EXPECT(has_shape(mb_mixer_apply_with(block->mixer, x, seen, MB_NO_KEY, nullptr), MB_SHAPE(2, 4, 8)));
    EXPECT(has_shape(mb_block_apply_with(block, x, seen, MB_NO_KEY, nullptr), MB_SHAPE(2, 4, 8)));
    EXPECT(has_shape(mb_vit_apply_with(vit, x, masks, MB_NO_KEY, nullptr), MB_SHAPE(2, 3)));
}

static void convolutions(mb_context *mb, mb_params *p)
{
    mb_tensor x = mb_ones(mb, MB_FLOAT32, MB_SHAPE(2, 4, 6)), w = mb_ones(mb, MB_FLOAT32, MB_SHAPE(2, 4, 3)),
              none = MB_EMPTY(mb_tensor), wide = mb_unsqueeze(x, 2);
    mb_conv_options conv = {};
    mb_pool_options pool = {};
    pool.size[0] = 2;
    pool.size[1] = 1;
    EXPECT(is(mb_mean(mb_conv1d(x, w, none, conv), MB_ALL), 12));
    EXPECT(is(mb_mean(mb_conv2d(wide, mb_unsqueeze(w, 2), none, conv), MB_ALL), 12));
    mb_tensor y = mb_conv1d(x, w, none, conv);
    EXPECT(has_shape(mb_conv_transpose1d(y, w, none, conv), MB_SHAPE(2, 4, 6)));
    EXPECT(has_shape(mb_conv_transpose2d(mb_unsqueeze(y, 2), mb_unsqueeze(w, 2), none, conv),
                     MB_SHAPE(2, 4, 1, 6)));
    EXPECT(is(mb_mean(mb_max_pool1d(x, pool), MB_ALL), 1) && is(mb_mean(mb_avg_pool1d(x, pool), MB_ALL), 1));
    mb_tensor tall = mb_unsqueeze(x, 3);
    EXPECT(has_shape(mb_max_pool2d(tall, pool), MB_SHAPE(2, 4, 3, 1)));
    EXPECT(is(mb_mean(mb_avg_pool2d(tall, pool), MB_ALL), 1));

    mb_conv_layer_options layer = {};
    layer.in = 4;
    layer.out = 2;
    layer.size[0] = 1;
    EXPECT(has_shape(mb_conv2d_apply(mb_conv2d_new(p, "conv", layer), wide), MB_SHAPE(2, 2, 1, 6)));
    mb_batch_norm batch = mb_batch_norm_new(p, "batch_norm", 4);
    EXPECT(is(mb_sum(mb_batch_norm_apply(batch, x, 1, true), MB_ALL), 0));
    mb_tensor mean, variance;
    mb_batch_normalize(x, 1, none, none, 1e-5, &mean, &variance);
    EXPECT(is(mb_mean(mean, MB_ALL), 1) && is(mb_mean(variance, MB_ALL), 0));
    EXPECT(is(mb_sum(mb_group_norm_apply(mb_group_norm_new(p, "group_norm", 4, 2), x, 1), MB_ALL), 0));
    EXPECT(is(mb_sum(mb_group_normalize(x, 1, 4, none, none, 1e-5), MB_ALL), 0));
    EXPECT(is(mb_sum(mb_dropout(x, mb_key_of(1), 1, true), MB_ALL), 0));
}

static void recurrent(mb_context *mb, mb_params *p)
{
    mb_recurrent_options options = {};
    options.cell = MB_CELL_LSTM;
    options.in = 3;
    options.hidden = 4;
    mb_recurrent lstm = mb_recurrent_new(p, "lstm", options);
    mb_recurrent_state state = {};
    mb_tensor x = mb_ones(mb, MB_FLOAT32, MB_SHAPE(2, 5, 3));
    EXPECT(has_shape(mb_recurrent_apply(lstm, x, &state), MB_SHAPE(2, 5, 4)));
    mb_equilibrium_options deep = {};
    deep.in = static_cast<int64_t>(mb_dim(x, 2));
    deep.hidden = 3;
    EXPECT(
        has_shape(mb_equilibrium_apply(mb_equilibrium_new(p, "deep", deep), x, nullptr), MB_SHAPE(2, 5, 3)));
    EXPECT(has_shape(state.h, MB_SHAPE(2, 4)) && std::isfinite(mb_item(mb_sum(state.c, MB_ALL))));

    mb_gated_attention_options chunks = {};
    chunks.chunk = 2;
    mb_tensor q = mb_ones(mb, MB_FLOAT32, MB_SHAPE(1, 1, 4, 1)),
              none = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(1, 1, 4, 1)), last;
    EXPECT(is(mb_sum(mb_gated_attention(q, q, q, none, chunks, &last), MB_ALL), 1 + 2 + 3 + 4) &&
           is(mb_sum(last, MB_ALL), 4));

    mb_tensor one =
        mb_ones(mb, MB_FLOAT32, MB_SHAPE0); /* y_t = sum of v k / (sum of k^2 + 1) = t / (t + 1) */
    const double fit = 1.0 / 2 + 2.0 / 3 + 3.0 / 4 + 4.0 / 5;
    mb_mesa_state end = {};
    mb_tensor mesa = mb_mesa_attention(q, q, q, MB_EMPTY(mb_tensor), one, MB_EMPTY(mb_mesa_options), &end);
    EXPECT(is(mb_sum(mesa, MB_ALL), fit) && is(mb_sum(end.inverse, MB_ALL), 1.0 / 5));
    mb_mesanet_options net = {};
    net.steps = 1;
    EXPECT(is(mb_sum(mb_mesanet_attention(q, q, q, MB_EMPTY(mb_tensor), one, net), MB_ALL), fit));
    mb_memory_options memory = {};
    memory.rule = MB_MEMORY_GATED_DELTA;
    memory.dim = 3;
    memory.heads = 1;
    EXPECT(has_shape(mb_memory_apply(mb_memory_new(p, "memory", memory), x), MB_SHAPE(2, 5, 3)));
}

/* --------------------------------------------------------------------------------------------- check.h -- */

static void checks(mb_context *mb, mb_params *)
{
    mb_check_result r;
    mb_check_case sine = {};
    sine.name = "sine";
    sine.f = [](mb_context *, const mb_tensor *xs, const void *) { return mb_sin(xs[0]); };
    sine.n = 1;
    sine.shape[0] = MB_SHAPE(2);
    EXPECT(mb_check_gradient(mb, &sine, &r) == MB_OK && mb_check_vmap(mb, &sine, nullptr) == MB_OK);
    mb_layer_case layer = {};
    layer.name = "scaled";
    layer.layer_bytes = sizeof(mb_tensor);
    layer.make = [](mb_params *p, void *scale, const void *) {
        *static_cast<mb_tensor *>(scale) = mb_param(p, "scale", MB_SHAPE0, mb_init_ones());
    };
    layer.apply = [](mb_context *, const void *scale, const mb_tensor *xs, const void *) {
        return mb_mul(xs[0], *static_cast<const mb_tensor *>(scale));
    };
    layer.n = 1;
    layer.shape[0] = MB_SHAPE(MB_FREE(1), MB_CHECK_MOST);
    layer.backends = "reference";
    EXPECT(mb_check_layer(&layer, &r) == MB_OK);
    const double one[2] = {1, 1};
    mb_tensor ones = mb_ones(mb, MB_FLOAT32, MB_SHAPE(2));
    EXPECT(mb_close_to(ones, ones, mb_closeness{}, &r) == MB_OK);
    EXPECT(mb_close_to_values(ones, one, 2, mb_closeness{}, &r) == MB_OK);
    EXPECT(mb_close_to_values(mb_add(ones, 1e-3), one, 2, mb_closeness{}, &r) == MB_WRONG && r.element == 0);
}

void training(mb_context *mb, const std::string &folder)
{
    parameters(mb, folder);
    schedules();
    optimisers(mb, folder);
    rules(mb);
    mb_params *p = mb_params_new(mb, 42);
    for (auto part : {small_layers, in_context, transformers, masked, convolutions, recurrent, checks})
        part(mb, p);
    mb_params_free(p);
}
