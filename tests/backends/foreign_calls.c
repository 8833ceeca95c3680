/* SPDX-License-Identifier: MIT
 *
 * foreign_calls.c - the table: every public function with what it gives back to a thread or process that does
 * not own the context. tests/run compares its names with what the library exports. */
#include <math.h>
#include <stdio.h>

#include "foreign_calls.h"

static bool listing;

/* Those that touch no context: they read what a caller hands over by value, or what never changes once it was
 * made. */
static const char *const harmless[] = {
    "mb_backend_at",
    "mb_backend_register",
    "mb_check_layer_at",
    "mb_devices",
    "mb_dtype_name",
    "mb_dtype_size",
    "mb_images_columns",
    "mb_images_count",
    "mb_images_height",
    "mb_images_width",
    "mb_init_full",
    "mb_init_he",
    "mb_init_impulse",
    "mb_init_lecun",
    "mb_init_normal",
    "mb_init_ones",
    "mb_init_uniform",
    "mb_init_xavier",
    "mb_init_zeros",
    "mb_key_fold",
    "mb_key_of",
    "mb_linear_transformer_size",
    "mb_loader_batches",
    "mb_open",
    "mb_open_with",
    "mb_params_context",
    "mb_params_dtype",
    "mb_safetensors_count",
    "mb_safetensors_dtype",
    "mb_safetensors_dtype_name",
    "mb_safetensors_find",
    "mb_safetensors_metadata",
    "mb_safetensors_metadata_pair",
    "mb_safetensors_name",
    "mb_safetensors_shape",
    "mb_schedule_constant",
    "mb_schedule_factor",
    "mb_schedule_steps",
    "mb_schedule_warmup_cosine",
    "mb_site_end",
    "mb_status_name",
    "mb_ttt_inner_steps",
    "mb_version",
    "mb_vit_block",
    "mb_vit_depth",
    "mb_vit_losses",
};

/* ---- the table: what each function gives back to a foreigner ---- */

#define S "foreign.c:1"
#define ROW(name, ok)                                                                                        \
    do {                                                                                                     \
        if (listing)                                                                                         \
            puts(name);                                                                                      \
        else                                                                                                 \
            check(ok, name);                                                                                 \
    } while (0)
#define TENSOR(f, ...)         ROW(#f, !f(__VA_ARGS__).id)
#define MEMBER(f, member, ...) ROW(#f, !f(__VA_ARGS__).member.id)
#define STATUS(f, ...)         ROW(#f, f(__VA_ARGS__) == MB_THREAD)
#define NOTHING(f, ...)        ROW(#f, !f(__VA_ARGS__))
#define NAN_OF(f, ...)         ROW(#f, isnan(f(__VA_ARGS__)))
#define QUIET(f, ...)          ROW(#f, (f(__VA_ARGS__), true))

static void call_ops(objects *o)
{
    mb_tensor x = o->x;
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc) TENSOR(mb_##name##_at, S, x);
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc)                                         \
    TENSOR(mb_##name##_at, S, x, x);                                                                         \
    MB_BOTH_##types(name)
#define MB_COMPARE(NAME, name, types, expr, doc)                                                             \
    TENSOR(mb_##name##_at, S, x, x);                                                                         \
    MB_BOTH_##types(name)
/* Ops of bools take no plain number. */
#define MB_BOTH_N(name)                                                                                      \
    TENSOR(mb_##name##_left_at, S, 1.0, x);                                                                  \
    TENSOR(mb_##name##_right_at, S, x, 1.0);
#define MB_BOTH_F(name)                       MB_BOTH_N(name)
#define MB_BOTH_I(name)                       MB_BOTH_N(name)
#define MB_FUNCTION(name, types, result, doc) MB_COMPARE(, name, types, , doc)
#define MB_BOTH_L(name)
#include "tensor/ops.def"
    TENSOR(mb_where_at, S, o->c, x, x);
    TENSOR(mb_cast_at, S, x, MB_FLOAT64);
    TENSOR(mb_exp2_at, S, x);
    TENSOR(mb_log2_at, S, x);
    TENSOR(mb_log10_at, S, x);
    TENSOR(mb_clamp_at, S, x, 0, 1);
    TENSOR(mb_isnan_at, S, x);
    TENSOR(mb_isinf_at, S, x);
    TENSOR(mb_isfinite_at, S, x);
}

static void call_leaves_and_samplers(objects *o)
{
    mb_context *ctx = o->ctx;
    mb_key key = mb_key_of(1);
    float data[16] = {0};
    TENSOR(mb_scalar_at, S, ctx, MB_FLOAT32, 1);
    TENSOR(mb_full_at, S, ctx, MB_FLOAT32, SHAPE, 1);
    TENSOR(mb_from_at, S, ctx, MB_FLOAT32, SHAPE, data);
    TENSOR(mb_from_bytes_at, S, ctx, MB_FLOAT32, SHAPE, data, sizeof data);
    TENSOR(mb_iota_at, S, ctx, MB_INT32, 4);
    TENSOR(mb_tril_mask_at, S, ctx, 3, 3, 0);
    TENSOR(mb_eye_at, S, ctx, MB_FLOAT32, 3);
    TENSOR(mb_variable_at, S, ctx, MB_FLOAT32, SHAPE);
    TENSOR(mb_uniform_at, S, ctx, key, MB_FLOAT32, SHAPE);
    TENSOR(mb_normal_at, S, ctx, key, MB_FLOAT32, SHAPE);
    TENSOR(mb_exponential_at, S, ctx, key, MB_FLOAT32, SHAPE);
    TENSOR(mb_laplace_at, S, ctx, key, MB_FLOAT32, SHAPE);
    TENSOR(mb_gamma_at, S, ctx, key, MB_FLOAT32, SHAPE, 2, 1);
    TENSOR(mb_sphere_at, S, ctx, key, MB_FLOAT32, SHAPE);
    TENSOR(mb_orthogonal_at, S, ctx, key, MB_FLOAT32, SHAPE);
    TENSOR(mb_permutation_at, S, ctx, key, SHAPE);
    TENSOR(mb_sincos2d_at, S, ctx, MB_FLOAT32, 2, 2, 8);
}

static void call_movement_and_index(objects *o)
{
    mb_tensor x = o->x, two[2] = {x, x}, four[4];
    const int64_t sizes[2] = {1, 3};
    TENSOR(mb_reshape_at, S, x, MB_SHAPE(16));
    TENSOR(mb_permute_at, S, x, MB_AXES(1, 0));
    TENSOR(mb_transpose_at, S, x);
    TENSOR(mb_broadcast_at, S, x, MB_SHAPE(2, 4, 4));
    TENSOR(mb_slice_at, S, x, 0, 0, 1, 1);
    TENSOR(mb_flip_at, S, x, 0);
    TENSOR(mb_pad_at, S, x, 0, 1, 1);
    TENSOR(mb_pad_with_at, S, x, 0, 1, 1, (mb_pad_options){0});
    TENSOR(mb_unfold_at, S, x, 0, (mb_window){.size = 2});
    TENSOR(mb_fold_at, S, x, 0, (mb_window){0}, 9);
    TENSOR(mb_concat_at, S, two, 2, 0);
    TENSOR(mb_stack_at, S, two, 2, 0);
    STATUS(mb_split_at, S, x, sizes, four, 2, 0);
    STATUS(mb_unstack_at, S, x, four, 4, 0);
    TENSOR(mb_unsqueeze_at, S, x, 0);
    TENSOR(mb_squeeze_at, S, o->picture, 0);
    TENSOR(mb_take_at, S, x, o->i, 0);
    TENSOR(mb_scatter_add_at, S, x, o->i, 0, 4);
    TENSOR(mb_take_along_at, S, o->i, o->i);
    TENSOR(mb_gather_at, S, x, o->i, 0);
    TENSOR(mb_scatter_at, S, x, o->i, x, 0);
    TENSOR(mb_scatter_add_along_at, S, x, o->i, x, 0);
    TENSOR(mb_topk_at, S, x, 1, 0, true, four);
    TENSOR(mb_quantile_at, S, x, 0.5, 0);
    TENSOR(mb_median_at, S, x, 0);
    TENSOR(mb_argsort_at, S, x);
    TENSOR(mb_sort_at, S, x);
    TENSOR(mb_one_hot_at, S, o->i, 4);
    TENSOR(mb_alias_at, S, x);
    TENSOR(mb_stop_gradient_at, S, x);
}

static void call_functions(objects *o)
{
    mb_tensor x = o->x;
    TENSOR(mb_sum_at, S, x, MB_ALL);
    TENSOR(mb_mean_at, S, x, MB_ALL);
    TENSOR(mb_variance_at, S, x, MB_ALL);
    TENSOR(mb_max_at, S, x, MB_ALL);
    TENSOR(mb_min_at, S, x, MB_ALL);
    TENSOR(mb_argmax_at, S, x, 0);
    TENSOR(mb_argmin_at, S, x, 0);
    TENSOR(mb_prod_at, S, x, MB_ALL);
    TENSOR(mb_any_at, S, x, MB_ALL);
    TENSOR(mb_all_at, S, x, MB_ALL);
    TENSOR(mb_cumprod_at, S, x, 0, false);
    TENSOR(mb_cummax_at, S, x, 0, false);
    TENSOR(mb_cummin_at, S, x, 0, false);
    TENSOR(mb_cumsum_at, S, x, 0, false);
    TENSOR(mb_logsumexp_at, S, x, MB_ALL);
    TENSOR(mb_matmul_at, S, x, x);
    TENSOR(mb_einsum_at, S, "ij,jk->ik", x, x);
    TENSOR(mb_einsum_of_at, S, "ij->ji", &x, 1);
    TENSOR(mb_square_at, S, x);
    TENSOR(mb_relu_at, S, x);
    TENSOR(mb_silu_at, S, x);
    TENSOR(mb_softplus_at, S, x);
    TENSOR(mb_elu_at, S, x);
    TENSOR(mb_gelu_at, S, x);
    TENSOR(mb_gelu_erf_at, S, x);
    TENSOR(mb_softmax_at, S, x, 0);
    TENSOR(mb_log_softmax_at, S, x, 0);
    TENSOR(mb_cross_entropy_at, S, x, o->i);
    TENSOR(mb_dot_at, S, x, x);
    TENSOR(mb_norm_at, S, x, MB_ALL);
    TENSOR(mb_cross_entropy_with_at, S, x, o->i, (mb_cross_entropy_options){0});
}

static mb_tensor same(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)ctx, (void)user;
    return xs[0];
}

static void call_checks(objects *o)
{
    mb_check_result r;
    const mb_check_case c = {.name = "same", .f = same, .n = 1};
    STATUS(mb_close_to_at, S, o->x, o->x, (mb_closeness){0}, &r);
    STATUS(mb_close_to_values_at, S, o->x, (double[16]){0}, 16, (mb_closeness){0}, &r);
    STATUS(mb_check_gradient_at, S, o->ctx, &c, &r);
    STATUS(mb_check_vmap_at, S, o->ctx, &c, &r);
}

static void call_linalg(objects *o)
{
    mb_tensor x = o->x;
    TENSOR(mb_tril_at, S, x, 0);
    TENSOR(mb_triu_at, S, x, 0);
    TENSOR(mb_diagonal_at, S, x);
    TENSOR(mb_trace_at, S, x);
    TENSOR(mb_diagonal_matrix_at, S, x);
    TENSOR(mb_cholesky_at, S, x);
    TENSOR(mb_triangular_solve_at, S, x, x, MB_LOWER);
    TENSOR(mb_cholesky_solve_at, S, x, x);
    TENSOR(mb_solve_spd_at, S, x, x);
    TENSOR(mb_log_det_spd_at, S, x);
    TENSOR(mb_lstsq_at, S, x, x, x);
}

static mb_tensor leaves_it(void *user, const char *name, mb_tensor x)
{
    (void)user, (void)name;
    return x;
}

static mb_status goes_through(void *user, const char *name, mb_tensor *x)
{
    (void)user, (void)name, (void)x;
    return MB_OK;
}

static void call_context(objects *o)
{
    mb_context *ctx = o->ctx;
    mb_tensor x = o->x;
    float data[16];
    STATUS(mb_error, ctx);
    ROW("mb_message", strstr(mb_message(ctx), "belongs to"));
    QUIET(mb_clear_error, ctx);
    STATUS(mb_fail_at, S, ctx, MB_INVALID, "no");
    ROW("mb_site_begin", !mb_site_begin(ctx, S).ctx);
    NOTHING(mb_intern_site, ctx, S);
    mb_scan scan = {o->ctx, 1};
    ROW("mb_scan_begin_at", !mb_scan_begin_at(S, ctx, 2).serial);
    ROW("mb_scan_begin_with_at", !mb_scan_begin_with_at(S, ctx, 2, (mb_scan_options){0}).serial);
    STATUS(mb_scan_carry_at, S, scan, &x);
    TENSOR(mb_scan_slice_at, S, scan, x);
    TENSOR(mb_scan_step_at, S, scan);
    STATUS(mb_scan_stack_at, S, scan, x, &(mb_tensor){0});
    STATUS(mb_scan_until_at, S, scan, x);
    TENSOR(mb_scan_after_at, S, scan, &x);
    STATUS(mb_scan_before_at, S, scan, &x, x);
    STATUS(mb_scan_end_at, S, scan);
    mb_tap tap = {o->ctx, 1};
    ROW("mb_tell_at", (mb_tell_at(S, x, "x"), true)); /* gives back x */
    ROW("mb_prefix_begin_at", !mb_prefix_begin_at(S, ctx, "x", 1).ctx);
    QUIET(mb_prefix_end, &(mb_prefix){ctx, 0});
    ROW("mb_tap_begin_at", !mb_tap_begin_at(S, ctx, "", leaves_it, NULL).serial);
    ROW("mb_tap_through_at", !mb_tap_through_at(S, ctx, "", goes_through, NULL).serial);
    ROW("mb_tap_collect_at", !mb_tap_collect_at(S, ctx, "", &(mb_tensor){0}, 1).serial);
    ROW("mb_tap_replace_at", !mb_tap_replace_at(S, ctx, "", &x, 1).serial);
    ROW("mb_tap_end_at", mb_tap_end_at(S, tap) == -1);
    NOTHING(mb_valid, x);
    NOTHING(mb_dim, x, 0);
    NOTHING(mb_count, x);
    NOTHING(mb_dtype_of, x);
    ROW("mb_shape_of", mb_shape_of(x).rank == 0);
    ROW("mb_scope_begin_at", !mb_scope_begin_at(S, ctx).serial);
    STATUS(mb_scope_end_at, S, o->scope);
    TENSOR(mb_keep_at, S, x);
    TENSOR(mb_detach_at, S, x);
    STATUS(mb_assign_at, S, o->v, x);
    STATUS(mb_eval_at, S, &x, 1);
    STATUS(mb_read_at, S, x, data, sizeof data);
    NAN_OF(mb_item_at, S, x);
    STATUS(mb_watch_at, S, x, data, sizeof data);
    ROW("mb_backend_name", !*mb_backend_name(ctx));
    ROW("mb_get_stats", !mb_get_stats(ctx).allocations);
    STATUS(mb_forecast_at, S, ctx, &x, 1, &(mb_costs){0});
    STATUS(mb_close, ctx);
}

static mb_status no_rule(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                         mb_tensor *gs)
{
    (void)user, (void)ctx, (void)at, (void)vs, (void)gs;
    return MB_INVALID;
}
static mb_status no_map(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    (void)user, (void)ctx, (void)at, (void)out;
    return MB_INVALID;
}

static mb_status no_core(const void *user, const mb_core_data *in, const mb_core_data *out,
                         const int64_t *attrs, int nattr)
{
    (void)user, (void)in, (void)out, (void)attrs, (void)nattr;
    return MB_INVALID;
}

static void call_autograd(objects *o)
{
    mb_tensor x = o->x, g, h;
    const mb_implicit_options options = {0};
    mb_convergence told;
    const mb_custom_op_spec spec = {.name = "none", .operands = 1, .results = 1, .compute = no_core};
    ROW("mb_custom_op_new_at", !mb_custom_op_new_at(S, x.ctx, &spec).number);
    STATUS(mb_custom_op_apply_at, S, (mb_custom_op){x.ctx, 1}, &x, NULL, 0, &g);
    STATUS(mb_custom_gradient_at, S, &x, 1, &x, 1, (mb_custom_rule){.reverse = no_rule}, &g);
    STATUS(mb_fixed_point_at, S, (mb_map){.call = no_map}, &x, 1, &x, 1, options, &g, &told);
    STATUS(mb_root_at, S, (mb_map){.call = no_map}, &x, 1, &x, 1, options, &g, &told);
    STATUS(mb_grad_mixed_at, S, (mb_map){.call = no_map}, &x, 1, &x, 1, &g);
    STATUS(mb_minimize_at, S, (mb_map){.call = no_map}, &x, 1, &x, 1, options, &g, &told);
    double low, high;
    STATUS(mb_grad_at, S, x, &x, 1, &g);
    STATUS(mb_vjp_at, S, x, x, &x, 1, &g);
    STATUS(mb_jvp_at, S, &x, 1, &x, &x, 1, &g);
    STATUS(mb_hvp_at, S, x, &x, &x, 1, &g);
    STATUS(mb_hvp_reverse_at, S, x, &x, &x, 1, &g);
    STATUS(mb_jvp_batch_at, S, &x, 1, &x, &x, 1, &g);
    STATUS(mb_hvp_batch_at, S, x, &x, &x, 1, &g);
    ROW("mb_checkpoint_begin_at", mb_checkpoint_begin_at(S, o->ctx).first == UINT32_MAX);
    ROW("mb_checkpoint_products_begin_at", mb_checkpoint_products_begin_at(S, o->ctx).first == UINT32_MAX);
    STATUS(mb_checkpoint_end_at, S, (mb_checkpoint){o->ctx, 1, 0, false});
    mb_vmap vmap = {o->ctx, 1};
    ROW("mb_vmap_begin_at", !mb_vmap_begin_at(S, o->ctx, 2).serial);
    ROW("mb_vmap_begin_with_at", !mb_vmap_begin_with_at(S, o->ctx, 2, (mb_vmap_options){0}).serial);
    TENSOR(mb_vmap_in_at, S, vmap, x, 0);
    STATUS(mb_vmap_out_at, S, vmap, x, 0, &g);
    STATUS(mb_vmap_end_at, S, vmap);
    ROW("mb_keep_through_at", (mb_keep_through_at(S, x), true)); /* gives back x or none */
    TENSOR(mb_jacobian_at, S, x, x);
    TENSOR(mb_hessian_at, S, x, &x, 1);
    STATUS(mb_hessian_diagonal_at, S, x, &x, 1, &g);
    STATUS(mb_directional_at, S, x, &x, &x, 1, &g, &h);
    STATUS(mb_lanczos_at, S, x, &x, 1, 2, mb_key_of(1), &g, &h);
    STATUS(mb_extreme_eigenvalues_at, S, x, &x, 1, 2, mb_key_of(1), &low, &high);
}

static void call_params(objects *o)
{
    mb_params *p = o->p;
    mb_tensor ts[4];
    NOTHING(mb_params_new_with_at, S, o->ctx, 1, MB_FLOAT32);
    TENSOR(mb_param_at, S, p, "a", SHAPE, mb_init_ones());
    TENSOR(mb_param_no_decay_at, S, p, "b", SHAPE, mb_init_ones());
    STATUS(mb_params_enter_at, S, p, "c");
    STATUS(mb_params_leave_at, S, p);
    NOTHING(mb_params_count, p);
    NOTHING(mb_params_name, p, 0);
    TENSOR(mb_params_tensor, p, 0);
    NOTHING(mb_params_trainable, p, 0);
    NOTHING(mb_params_decays, p, 0);
    NOTHING(mb_params_size, p);
    TENSOR(mb_params_get_at, S, p, "w");
    NOTHING(mb_params_list, p, ts, 4);
    STATUS(mb_params_set_trainable_at, S, p, "", true);
    STATUS(mb_params_set_decay_at, S, p, "", true);
    STATUS(mb_params_reinit_at, S, p, "", 1);
    NOTHING(mb_params_alloc, p, 16);
    STATUS(mb_params_save_at, S, p, "/dev/null/x");
    STATUS(mb_params_load_at, S, p, "/dev/null/x");
    QUIET(mb_params_free, p);
}

static void call_optimizer(objects *o)
{
    mb_params *p = o->p;
    mb_optimizer *opt = o->opt;
    mb_tensor x = o->x, norm, m, v, gs[2] = {x, x}, clipped[2];
    NOTHING(mb_sgd_at, S, p, (mb_sgd_options){.lr = 1});
    NOTHING(mb_adam_at, S, p, (mb_adam_options){.lr = 1});
    NOTHING(mb_adamw_at, S, p, (mb_adamw_options){.lr = 1});
    STATUS(mb_step_at, S, opt, x, &norm);
    STATUS(mb_apply_gradients_at, S, opt, &x, 1, &norm);
    STATUS(mb_accumulate_at, S, opt, x);
    NOTHING(mb_optimizer_steps, opt);
    STATUS(mb_average_update_at, S, o->average);
    STATUS(mb_average_swap_at, S, o->average);
    TENSOR(mb_average_tensor, o->average, 0);
    NOTHING(mb_average_new_at, S, o->p, 0.5);
    QUIET(mb_average_free, o->average);
    ROW("mb_optimizer_loss_scale_at", isnan(mb_optimizer_loss_scale_at(S, o->opt)));
    STATUS(mb_snapshot_take_at, S, o->snapshot);
    STATUS(mb_snapshot_restore_at, S, o->snapshot, "");
    TENSOR(mb_snapshot_tensor, o->snapshot, 0);
    NOTHING(mb_snapshot_new_at, S, o->p);
    QUIET(mb_snapshot_free, o->snapshot);
    ROW("mb_optimizer_skipped_at", mb_optimizer_skipped_at(S, o->opt) == -1);
    NAN_OF(mb_optimizer_lr, opt);
    QUIET(mb_optimizer_set_lr, opt, 3);
    QUIET(mb_optimizer_set_through, opt, NULL, NULL);
    NOTHING(mb_optimizer_state_count, opt);
    NOTHING(mb_optimizer_state_name, opt, 0);
    TENSOR(mb_optimizer_state_tensor, opt, 0);
    STATUS(mb_optimizer_save_at, S, opt, "/dev/null/x");
    STATUS(mb_optimizer_save_with_at, S, opt, "/dev/null/x", NULL);
    STATUS(mb_optimizer_load_at, S, opt, "/dev/null/x");
    QUIET(mb_optimizer_free, opt);
    TENSOR(mb_sgd_update_at, S, x, x, x);
    TENSOR(mb_momentum_update_at, S, x, x, x, x, 0.9, false, &m);
    TENSOR(mb_adam_update_at, S, x, x, x, x, x, 1, NULL, &m, &v);
    TENSOR(mb_adam_update_in_scan_at, S, x, x, x, x, x, x, NULL, &m, &v);
    TENSOR(mb_global_norm_at, S, gs, 2);
    TENSOR(mb_clip_norm_at, S, gs, 2, 1, clipped);
    TENSOR(mb_clip_value_at, S, x, 1);
}

static void call_files(objects *o)
{
    mb_context *ctx = o->ctx;
    const void *memory;
    mb_idx idx, owned = {.ctx = ctx, .data = (uint8_t *)o, .bytes = 1};
    mb_tensor x = o->x, y;
    const char *name = "x";
    STATUS(mb_safetensors_save_at, S, ctx, "/dev/null/x", &name, &x, 1, NULL);
    STATUS(mb_safetensors_load_at, S, ctx, o->path, &name, &y, 1);
    NOTHING(mb_safetensors_open_at, S, ctx, o->path);
    TENSOR(mb_safetensors_tensor_at, S, o->file, 0);
    QUIET(mb_safetensors_close, o->file);
    TENSOR(mb_npy_load_at, S, ctx, o->path);
    TENSOR(mb_csv_load_at, S, ctx, o->path, (mb_csv_options){0});
    STATUS(mb_npy_save_at, S, "/dev/null/x", x);
    STATUS(mb_idx_read_at, S, ctx, o->path, &idx);
    ROW("mb_idx_free", (mb_idx_free(&owned), owned.data != NULL));
    NOTHING(mb_images_open_at, S, ctx, (mb_images_options){.images = o->path, .labels = o->path});
    STATUS(mb_images_batch_at, S, o->images, 0, 0, 1, &x, &y);
    QUIET(mb_images_close, o->images);
    NOTHING(mb_loader_open_at, S, ctx, one_byte);
    STATUS(mb_loader_next_at, S, o->loader, &y, NULL);
    STATUS(mb_loader_next_memory_at, S, o->loader, &memory, NULL);
    NOTHING(mb_loader_step, o->loader);
    QUIET(mb_loader_close, o->loader);
}

static void call_layers(objects *o)
{
    mb_params *p = o->p;
    mb_tensor x = o->x, t = o->tokens, none = {0}, losses[8];
    mb_key key = mb_key_of(1);
    mb_mixer_options mixer = {.heads = 2};
    MEMBER(mb_linear_new_with_at, weight, S, p, "1", 8, 8, (mb_linear_options){0});
    TENSOR(mb_linear_apply_at, S, o->linear, t);
    MEMBER(mb_embedding_new_at, weight, S, p, "2", 4, 4);
    TENSOR(mb_embedding_apply_at, S, o->embedding, o->i);
    TENSOR(mb_layer_normalize_at, S, x, none, none, 1e-6);
    TENSOR(mb_rms_normalize_at, S, x, none, 1e-6);
    MEMBER(mb_layer_norm_new_at, scale, S, p, "3", 8);
    TENSOR(mb_layer_norm_apply_at, S, o->norm, t);
    MEMBER(mb_rms_norm_new_at, scale, S, p, "4", 8);
    TENSOR(mb_rms_norm_apply_at, S, o->rms, t);
    MEMBER(mb_attention_new_at, qkv.weight, S, p, "5", o->attention.options);
    TENSOR(mb_attention_apply_at, S, o->attention, t);
    mb_tensor q = mb_reshape(t, MB_SHAPE(1, 4, 2, 4));
    TENSOR(mb_attend_at, S, q, q, q, MB_ATTENTION_SOFTMAX, false, 0);
    TENSOR(mb_attend_with_at, S, q, q, q, (mb_attend_options){0});
    TENSOR(mb_attention_apply_with_at, S, o->attention, t, none);
    TENSOR(mb_prompt_tokens_at, S, o->z, o->z);
    MEMBER(mb_linear_transformer_new_at, P, S, p, "6", o->lt.options);
    MEMBER(mb_linear_transformer_view_at, P, S, x, o->lt.options);
    TENSOR(mb_linear_transformer_apply_at, S, o->lt, o->z);
    TENSOR(mb_linear_transformer_predict_at, S, o->lt, o->z);
    MEMBER(mb_self_attention_new_at, query, S, p, "7", o->sa.options);
    MEMBER(mb_self_attention_products_at, P, S, o->sa);
    TENSOR(mb_self_attention_apply_at, S, o->sa, o->z);
    TENSOR(mb_self_attention_predict_at, S, o->sa, o->z);
    MEMBER(mb_self_attention_gd_at, query, S, x, none, none, 2, o->sa.options);
    NOTHING(mb_ttt_new_at, S, p, "8", (mb_ttt_options){.dim = 8, .heads = 2});
    TENSOR(mb_ttt_apply_at, S, o->ttt, t, key, losses);
    MEMBER(mb_recurrent_new_at, input, S, p, "12", (mb_recurrent_options){.in = 2, .hidden = 2});
    TENSOR(mb_recurrent_apply_at, S, (mb_recurrent){.input = t}, t, NULL);
    MEMBER(mb_equilibrium_new_at, input, S, p, "deep", (mb_equilibrium_options){.in = 2, .hidden = 2});
    TENSOR(mb_equilibrium_apply_at, S, (mb_equilibrium){.input = t}, t, NULL);
    TENSOR(mb_gated_attention_at, S, t, t, t, t, (mb_gated_attention_options){0}, NULL);
    TENSOR(mb_mesa_attention_at, S, q, q, q, none, x, (mb_mesa_options){0}, NULL);
    TENSOR(mb_mesanet_attention_at, S, q, q, q, none, x, (mb_mesanet_options){0});
    MEMBER(mb_memory_new_at, query, S, p, "13", (mb_memory_options){.dim = 8, .heads = 2});
    TENSOR(mb_memory_apply_at, S, (mb_memory){.query = t}, t);
    QUIET(mb_ttt_set_inner_lr, o->ttt, 0, 2);
    ROW("mb_mixer_new_at",
        !mb_mixer_new_at(S, p, 8, &mixer).apply ||
            !((const mb_attention *)mb_mixer_new_at(S, p, 8, &mixer).layer)->qkv.weight.id);
    TENSOR(mb_mixer_apply_at, S, o->block.mixer, t, key, losses);
    TENSOR(mb_mixer_apply_with_at, S, o->block.mixer, t, none, key, losses);
    MEMBER(mb_mlp_new_at, up.weight, S, p, "9", 8, 8);
    TENSOR(mb_mlp_apply_at, S, o->mlp, t);
    MEMBER(mb_block_new_at, norm1.scale, S, p, "10", 8, 8, &mixer);
    TENSOR(mb_block_apply_at, S, &o->block, t, key, losses);
    TENSOR(mb_block_apply_with_at, S, &o->block, t, none, key, losses);
    TENSOR(mb_patchify_at, S, o->picture, 2);
    NOTHING(mb_vit_new_at, S, p, "11",
            (mb_vit_options){.tokens = 4, .patch_values = 8, .dim = 8, .classes = 2});
    TENSOR(mb_vit_apply_at, S, o->vit, t, key, losses);
    TENSOR(mb_vit_apply_with_at, S, o->vit, t, (mb_vit_masks){none, none}, key, losses);
}

static void call_conv(objects *o)
{
    mb_params *p = o->p;
    mb_tensor x = o->x, picture = o->picture, none = {0}, one, other;
    mb_conv_options conv = {.groups = 1};
    mb_pool_options pool = {.size = {1}};
    TENSOR(mb_conv1d_at, S, picture, picture, none, conv);
    TENSOR(mb_conv2d_at, S, picture, picture, none, conv);
    TENSOR(mb_conv_transpose1d_at, S, picture, picture, none, conv);
    TENSOR(mb_conv_transpose2d_at, S, picture, picture, none, conv);
    MEMBER(mb_conv2d_new_at, weight, S, p, "13", (mb_conv_layer_options){.in = 1, .out = 1, .size = {1}});
    TENSOR(mb_conv2d_apply_at, S, o->conv, picture);
    TENSOR(mb_max_pool1d_at, S, picture, pool);
    TENSOR(mb_max_pool2d_at, S, picture, pool);
    TENSOR(mb_avg_pool1d_at, S, picture, pool);
    TENSOR(mb_avg_pool2d_at, S, picture, pool);
    TENSOR(mb_batch_normalize_at, S, x, 1, none, none, 1e-5, &one, &other);
    TENSOR(mb_group_normalize_at, S, x, 1, 2, none, none, 1e-5);
    MEMBER(mb_batch_norm_new_at, scale, S, p, "14", 4);
    TENSOR(mb_batch_norm_apply_at, S, o->batch_norm, x, 1, true);
    MEMBER(mb_group_norm_new_at, scale, S, p, "15", 4, 2);
    TENSOR(mb_group_norm_apply_at, S, o->group_norm, x, 1);
    TENSOR(mb_dropout_at, S, x, mb_key_of(1), 0.5, true);
}

void call_all(objects *o)
{
    call_context(o);
    call_ops(o);
    call_leaves_and_samplers(o);
    call_movement_and_index(o);
    call_functions(o);
    call_checks(o);
    call_linalg(o);
    call_autograd(o);
    call_params(o);
    call_optimizer(o);
    call_files(o);
    call_layers(o);
    call_conv(o);
}

void list_all(void)
{
    static objects none;
    static mb_params p;
    static mb_ttt ttt;
    none.p = &p;
    none.ttt = &ttt;
    listing = true;
    call_all(&none);
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        puts(harmless[i]);
}
