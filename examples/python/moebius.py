# SPDX-License-Identifier: MIT
"""Moebius in Python: tensors with operators over the C library, by ctypes alone.

    import moebius
    mb = moebius.Context()                       # $MB_BACKEND, or the best there is
    x = mb.scalar(2.0, moebius.FLOAT64)
    y = 0.5 * x * x + x.sin()
    dy = moebius.grad(y, x)
    print(moebius.grad(dy, x).item(), dy.item())

The library is that of load(path), of $MOEBIUS_LIBRARY, or the installed one. Methods of tensors are the functions of the
C headers without mb_; the other operand of a binary one may be a number. x == y is of the handles, x.eq(y) of elements.

Errors are raised where they are made, as Error with the library's sentence, which names the caller's file and line. As in
C the first one sticks, and what is recorded after it raises it again, until Context.clear(): so that a scope that an
exception leaves stores nothing of what was assigned in it. What a function raises that the library calls, such as a
tap's, is raised again by the call that brought it about, and sticks in the same way.

Data are anything with the buffer protocol (array, memoryview, numpy's arrays), whose dtype they have, or numbers in nested
lists, which become float32 unless told otherwise. Contexts free what belongs to them when they are closed or collected.

Beside this file, moebius_layers.py has layers, and moebius_mpi.py many processes. Left to C: ops of one's own
(custom_op.h); learners and mixers of one's own, whose functions give back structs, which no function of ctypes can; forward
rules of custom_gradient; mb_watch; allocators, backends of one's own, devices, checks of layers (check.h).
"""
import array
import ctypes
import ctypes.util
import numbers
import operator
import os
import re
import sys
import weakref
from collections import namedtuple
from contextlib import contextmanager

FLOAT32, FLOAT64, INT32, BOOL, FLOAT16, BFLOAT16, INT64, UINT8 = range(8)
HALVES = (FLOAT16, BFLOAT16)
FORMATS = ("f", "d", "i", "?", "e", None, "q", "B")  # of buffers, by dtype
MAX_RANK = 8


# ------------------------------------------------------------------------------------- what the C library declares --

def structure(name, **fields):
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


POINTER, INT, LONG, UINT32, DOUBLE, TRUTH = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_uint32,
                                              ctypes.c_double, ctypes.c_bool)
# What an option may be called in place of its number, by its name.
CHOICES = {"method": ("MB_SOLVER", "auto cg gmres normal neumann direct".split()),
           "search": ("MB_SEARCH", "newton descent".split()),
           "mode": ("MB_PAD", "value edge reflect wrap".split()),
           "last": ("MB_LAST", "short drop pad".split()),
           "kind": ("MB_ATTENTION", "softmax linear adaptive".split())}
SCHEDULE = structure("mb_schedule", kind=INT, warmup=LONG, total=LONG, floor=DOUBLE, every=LONG, factor=DOUBLE)
SOLVER = structure("mb_solver_options", method=INT, tolerance=DOUBLE, steps=LONG, directions=LONG, rate=DOUBLE, truncate=TRUTH)
STRUCTURES = {s.__name__: s for s in (
    structure("mb_tensor", ctx=POINTER, id=UINT32, scope=UINT32),
    structure("mb_shape", rank=INT, dim=LONG * MAX_RANK),
    structure("mb_axes", count=INT, keep=TRUTH, axis=INT * MAX_RANK),
    structure("mb_key", bits=ctypes.c_uint64),
    structure("mb_scope", ctx=POINTER, serial=UINT32),
    structure("mb_checkpoint", ctx=POINTER, first=UINT32, within=UINT32, products=TRUTH),
    structure("mb_scan", ctx=POINTER, serial=UINT32),
    structure("mb_scan_options", backwards=TRUTH, keep_every=LONG),
    structure("mb_vmap", ctx=POINTER, serial=UINT32),
    structure("mb_vmap_options", same_draws=TRUTH),
    structure("mb_prefix", ctx=POINTER, depth=UINT32),
    structure("mb_tap", ctx=POINTER, serial=UINT32),
    structure("mb_map", call=POINTER, user=POINTER, user_bytes=ctypes.c_size_t),
    structure("mb_map_at", xs=POINTER, params=POINTER, k=INT, n=INT),
    structure("mb_custom_rule", reverse=POINTER, forward=POINTER, user=POINTER, user_bytes=ctypes.c_size_t),
    structure("mb_custom_at", xs=POINTER, ys=POINTER, n=INT, m=INT),
    SOLVER,
    structure("mb_implicit_options", tolerance=DOUBLE, steps=LONG, damping=DOUBLE, batched=TRUTH, search=INT, linear=SOLVER),
    structure("mb_init", kind=INT, size=DOUBLE),
    SCHEDULE,
    structure("mb_sgd_options", lr=DOUBLE, momentum=DOUBLE, nesterov=TRUTH, weight_decay=DOUBLE, clip_norm=DOUBLE,
              clip_value=DOUBLE, schedule=SCHEDULE, skip=TRUTH, loss_scale=TRUTH),
    structure("mb_adam_options", lr=DOUBLE, beta1=DOUBLE, beta2=DOUBLE, eps=DOUBLE, clip_norm=DOUBLE,
              clip_value=DOUBLE, schedule=SCHEDULE, skip=TRUTH, loss_scale=TRUTH),
    structure("mb_adamw_options", lr=DOUBLE, weight_decay=DOUBLE, beta1=DOUBLE, beta2=DOUBLE, eps=DOUBLE,
              clip_norm=DOUBLE, clip_value=DOUBLE, schedule=SCHEDULE, skip=TRUTH, loss_scale=TRUTH),
)}
TENSOR, SHAPE, AXES, KEY = (STRUCTURES["mb_" + name] for name in ("tensor", "shape", "axes", "key"))
COUNT, PAIR = ctypes.c_uint64, LONG * 2
STRUCTURES.update({s.__name__: s for s in (
    structure("mb_convergence", converged=TENSOR, residual=TENSOR, steps=TENSOR),
    structure("mb_pad_options", mode=INT, value=DOUBLE),
    structure("mb_window", size=LONG, stride=LONG, dilation=LONG),
    structure("mb_cross_entropy_options", ignore=TRUTH, ignored=ctypes.c_int32, weights=TENSOR, smoothing=DOUBLE,
              each_row=TRUTH),
    structure("mb_conv_options", stride=PAIR, padding=PAIR, dilation=PAIR, groups=LONG, more=PAIR, channels_last=TRUTH),
    structure("mb_pool_options", size=PAIR, stride=PAIR, padding=PAIR, channels_last=TRUTH),
    structure("mb_attend_options", kind=INT, causal=TRUTH, scale=DOUBLE, mask=TENSOR, chunk=LONG),
    structure("mb_csv_options", dtype=INT, header=TRUTH, separator=ctypes.c_char),
    structure("mb_images_options", images=ctypes.c_char_p, labels=ctypes.c_char_p, limit=LONG, mean=DOUBLE, std=DOUBLE,
              classes=INT, seed=COUNT),
    structure("mb_column", data=POINTER, dtype=INT, shape=SHAPE, bytes=TRUTH, scale=DOUBLE, offset=DOUBLE),
    structure("mb_loader_options", columns=POINTER, column_count=INT, rows=LONG, batch=LONG, last=INT, in_order=TRUTH, key=KEY,
              step=LONG, threads=INT, read=POINTER, user=POINTER, shard=LONG, shards=LONG),
    structure("mb_stats", **{name: DOUBLE if name == "plan_seconds" else COUNT for name in """flushes plans plan_hits
        plan_bytes plans_cached nodes recorded allocations bytes peak_bytes last_nodes last_steps last_flops last_arena_bytes
        plan_seconds pipelines descriptor_writes device_allocations device_bytes recordings submits last_dispatches
        last_barriers last_slices""".split()}),
    structure("mb_costs", **{name: DOUBLE if name == "plan_seconds" else COUNT for name in """peak_bytes variable_bytes
        input_bytes live_bytes result_bytes loop_bytes temporary_bytes other_bytes held_bytes plan_bytes flops steps nodes
        plan_seconds""".split()}),
)})
# Functions of ours that the library calls.
THROUGH = ctypes.CFUNCTYPE(INT, POINTER, ctypes.c_char_p, ctypes.POINTER(TENSOR))
GRADIENTS = ctypes.CFUNCTYPE(INT, POINTER, POINTER, ctypes.POINTER(TENSOR), INT)
LOG = ctypes.CFUNCTYPE(None, POINTER, ctypes.c_char_p)
STRUCTURES["mb_options"] = structure("mb_options", size=ctypes.c_size_t, backend=ctypes.c_char_p, threads=INT, allocator=POINTER,
                                     plan_cache_bytes=ctypes.c_size_t, disable=ctypes.c_char_p, log=LOG, log_user=POINTER,
                                     arena_bytes=ctypes.c_size_t)
TYPES = {"mb_tap_through_function": THROUGH, "mb_gradients_through": GRADIENTS, "void": None, "bool": TRUTH,
         "int": INT, "int64_t": LONG, "uint64_t": ctypes.c_uint64, "double": DOUBLE,
         "size_t": ctypes.c_size_t, "unsigned": ctypes.c_uint, "mb_dtype": INT, "mb_status": INT, **STRUCTURES}

UNARY = """neg recip sqrt rsqrt exp log expm1 log1p sin cos tanh sigmoid erf abs sign floor ceil round trunc tan asin acos
atan sinh cosh asinh acosh atanh square relu silu softplus elu gelu gelu_erf exp2 log2 log10 isnan isinf isfinite transpose
diagonal diagonal_matrix trace cholesky log_det_spd sort argsort alias stop_gradient keep_through keep detach""".split()
BINARY = "add sub mul div pow maximum minimum atan2 hypot floor_divide lt le eq gt ge ne mod fmod".split()
REDUCTIONS = "sum mean variance norm logsumexp prod max min any all".split()
ALONG = "softmax log_softmax argmax argmin median flip squeeze unsqueeze".split()
RUNNING = "cumsum cumprod cummax cummin".split()
PAIRS = "matmul dot take_along solve_spd cholesky_solve".split()
CONVOLUTIONS = "conv1d conv2d conv_transpose1d conv_transpose2d".split()
POOLS = "max_pool1d max_pool2d avg_pool1d avg_pool2d".split()
DRAWS = "uniform normal exponential laplace sphere orthogonal".split()
# As in the headers, without names: a C compiler can tell whether they are right.
DECLARATIONS = """
mb_context *mb_open_with(const mb_options *)
mb_status mb_close(mb_context *)
mb_status mb_error(const mb_context *)
const char *mb_message(const mb_context *)
void mb_clear_error(mb_context *)
const char *mb_intern_site(mb_context *, const char *)
mb_status mb_fail_at(const char *, mb_context *, mb_status, const char *, ...)
bool mb_valid(mb_tensor)
mb_shape mb_shape_of(mb_tensor)
int64_t mb_count(mb_tensor)
mb_dtype mb_dtype_of(mb_tensor)
mb_scope mb_scope_begin_at(const char *, mb_context *)
mb_status mb_scope_end_at(const char *, mb_scope)
mb_tensor mb_scalar_at(const char *, mb_context *, mb_dtype, double)
mb_tensor mb_full_at(const char *, mb_context *, mb_dtype, mb_shape, double)
mb_tensor mb_from_bytes_at(const char *, mb_context *, mb_dtype, mb_shape, const void *, size_t)
mb_tensor mb_iota_at(const char *, mb_context *, mb_dtype, int64_t)
mb_tensor mb_eye_at(const char *, mb_context *, mb_dtype, int64_t)
mb_tensor mb_variable_at(const char *, mb_context *, mb_dtype, mb_shape)
mb_status mb_assign_at(const char *, mb_tensor, mb_tensor)
mb_key mb_key_of(uint64_t)
mb_key mb_key_fold(mb_key, uint64_t)
mb_tensor mb_gamma_at(const char *, mb_context *, mb_key, mb_dtype, mb_shape, double, double)
mb_tensor mb_permutation_at(const char *, mb_context *, mb_key, mb_shape)
mb_tensor mb_tril_mask_at(const char *, mb_context *, int64_t, int64_t, int64_t)
mb_tensor mb_sincos2d_at(const char *, mb_context *, mb_dtype, int64_t, int64_t, int64_t)
mb_status mb_forecast_at(const char *, mb_context *, const mb_tensor *, int, mb_costs *)
mb_stats mb_get_stats(const mb_context *)
const char *mb_backend_name(const mb_context *)
const char *mb_version(void)
mb_tensor mb_not_at(const char *, mb_tensor)
mb_tensor mb_and_at(const char *, mb_tensor, mb_tensor)
mb_tensor mb_or_at(const char *, mb_tensor, mb_tensor)
mb_tensor mb_where_at(const char *, mb_tensor, mb_tensor, mb_tensor)
mb_tensor mb_clamp_at(const char *, mb_tensor, double, double)
mb_tensor mb_cast_at(const char *, mb_tensor, mb_dtype)
mb_tensor mb_reshape_at(const char *, mb_tensor, mb_shape)
mb_tensor mb_broadcast_at(const char *, mb_tensor, mb_shape)
mb_tensor mb_permute_at(const char *, mb_tensor, mb_axes)
mb_tensor mb_slice_at(const char *, mb_tensor, int, int64_t, int64_t, int64_t)
mb_tensor mb_pad_with_at(const char *, mb_tensor, int, int64_t, int64_t, mb_pad_options)
mb_tensor mb_unfold_at(const char *, mb_tensor, int, mb_window)
mb_tensor mb_fold_at(const char *, mb_tensor, int, mb_window, int64_t)
mb_tensor mb_tril_at(const char *, mb_tensor, int64_t)
mb_tensor mb_triu_at(const char *, mb_tensor, int64_t)
mb_tensor mb_triangular_solve_at(const char *, mb_tensor, mb_tensor, unsigned)
mb_tensor mb_lstsq_at(const char *, mb_tensor, mb_tensor, mb_tensor)
mb_tensor mb_quantile_at(const char *, mb_tensor, double, int)
mb_tensor mb_gather_at(const char *, mb_tensor, mb_tensor, int)
mb_tensor mb_scatter_at(const char *, mb_tensor, mb_tensor, mb_tensor, int)
mb_tensor mb_scatter_add_along_at(const char *, mb_tensor, mb_tensor, mb_tensor, int)
mb_tensor mb_scatter_add_at(const char *, mb_tensor, mb_tensor, int, int64_t)
mb_tensor mb_topk_at(const char *, mb_tensor, int64_t, int, bool, mb_tensor *)
mb_status mb_split_at(const char *, mb_tensor, const int64_t *, mb_tensor *, int, int)
mb_status mb_unstack_at(const char *, mb_tensor, mb_tensor *, int, int)
mb_tensor mb_layer_normalize_at(const char *, mb_tensor, mb_tensor, mb_tensor, double)
mb_tensor mb_rms_normalize_at(const char *, mb_tensor, mb_tensor, double)
mb_tensor mb_batch_normalize_at(const char *, mb_tensor, int, mb_tensor, mb_tensor, double, mb_tensor *, mb_tensor *)
mb_tensor mb_group_normalize_at(const char *, mb_tensor, int, int64_t, mb_tensor, mb_tensor, double)
mb_tensor mb_dropout_at(const char *, mb_tensor, mb_key, double, bool)
mb_tensor mb_attend_with_at(const char *, mb_tensor, mb_tensor, mb_tensor, mb_attend_options)
mb_tensor mb_patchify_at(const char *, mb_tensor, int64_t)
mb_tensor mb_concat_at(const char *, const mb_tensor *, int, int)
mb_tensor mb_stack_at(const char *, const mb_tensor *, int, int)
mb_tensor mb_einsum_of_at(const char *, const char *, const mb_tensor *, int)
mb_tensor mb_take_at(const char *, mb_tensor, mb_tensor, int)
mb_tensor mb_one_hot_at(const char *, mb_tensor, int64_t)
mb_tensor mb_cross_entropy_with_at(const char *, mb_tensor, mb_tensor, mb_cross_entropy_options)
mb_status mb_eval_at(const char *, const mb_tensor *, int)
mb_status mb_read_at(const char *, mb_tensor, void *, size_t)
double mb_item_at(const char *, mb_tensor)
mb_status mb_grad_at(const char *, mb_tensor, const mb_tensor *, int, mb_tensor *)
mb_status mb_lanczos_at(const char *, mb_tensor, const mb_tensor *, int, int, mb_key, mb_tensor *, mb_tensor *)
mb_status mb_vjp_at(const char *, mb_tensor, mb_tensor, const mb_tensor *, int, mb_tensor *)
mb_tensor mb_jacobian_at(const char *, mb_tensor, mb_tensor)
mb_tensor mb_hessian_at(const char *, mb_tensor, const mb_tensor *, int)
mb_status mb_hessian_diagonal_at(const char *, mb_tensor, const mb_tensor *, int, mb_tensor *)
mb_status mb_directional_at(const char *, mb_tensor, const mb_tensor *, const mb_tensor *, int, mb_tensor *, mb_tensor *)
mb_status mb_extreme_eigenvalues_at(const char *, mb_tensor, const mb_tensor *, int, int, mb_key, double *, double *)
mb_tensor mb_sgd_update_at(const char *, mb_tensor, mb_tensor, mb_tensor)
mb_tensor mb_momentum_update_at(const char *, mb_tensor, mb_tensor, mb_tensor, mb_tensor, double, bool, mb_tensor *)
mb_tensor mb_global_norm_at(const char *, const mb_tensor *, int)
mb_tensor mb_clip_norm_at(const char *, const mb_tensor *, int, double, mb_tensor *)
mb_tensor mb_clip_value_at(const char *, mb_tensor, double)
mb_status mb_grad_mixed_at(const char *, mb_map, const mb_tensor *, int, const mb_tensor *, int, mb_tensor *)
mb_status mb_custom_gradient_at(const char *, const mb_tensor *, int, const mb_tensor *, int, mb_custom_rule, mb_tensor *)
mb_checkpoint mb_checkpoint_begin_at(const char *, mb_context *)
mb_checkpoint mb_checkpoint_products_begin_at(const char *, mb_context *)
mb_status mb_checkpoint_end_at(const char *, mb_checkpoint)
mb_scan mb_scan_begin_with_at(const char *, mb_context *, int64_t, mb_scan_options)
mb_status mb_scan_carry_at(const char *, mb_scan, mb_tensor *)
mb_tensor mb_scan_slice_at(const char *, mb_scan, mb_tensor)
mb_tensor mb_scan_step_at(const char *, mb_scan)
mb_status mb_scan_stack_at(const char *, mb_scan, mb_tensor, mb_tensor *)
mb_status mb_scan_until_at(const char *, mb_scan, mb_tensor)
mb_tensor mb_scan_after_at(const char *, mb_scan, mb_tensor *)
mb_status mb_scan_before_at(const char *, mb_scan, mb_tensor *, mb_tensor)
mb_status mb_scan_end_at(const char *, mb_scan)
mb_vmap mb_vmap_begin_with_at(const char *, mb_context *, int64_t, mb_vmap_options)
mb_tensor mb_vmap_in_at(const char *, mb_vmap, mb_tensor, int)
mb_status mb_vmap_out_at(const char *, mb_vmap, mb_tensor, int, mb_tensor *)
mb_status mb_vmap_end_at(const char *, mb_vmap)
mb_tensor mb_tell_at(const char *, mb_tensor, const char *)
mb_prefix mb_prefix_begin_at(const char *, mb_context *, const char *, int64_t)
void mb_prefix_end(const mb_prefix *)
mb_tap mb_tap_through_at(const char *, mb_context *, const char *, mb_tap_through_function, void *)
mb_tap mb_tap_collect_at(const char *, mb_context *, const char *, mb_tensor *, int)
mb_tap mb_tap_replace_at(const char *, mb_context *, const char *, const mb_tensor *, int)
int mb_tap_end_at(const char *, mb_tap)
mb_tensor mb_npy_load_at(const char *, mb_context *, const char *)
mb_status mb_npy_save_at(const char *, const char *, mb_tensor)
mb_tensor mb_csv_load_at(const char *, mb_context *, const char *, mb_csv_options)
mb_safetensors *mb_safetensors_open_at(const char *, mb_context *, const char *)
void mb_safetensors_close(mb_safetensors *)
int mb_safetensors_count(const mb_safetensors *)
const char *mb_safetensors_name(const mb_safetensors *, int)
mb_tensor mb_safetensors_tensor_at(const char *, mb_safetensors *, int)
bool mb_safetensors_metadata_pair(const mb_safetensors *, int, const char **, const char **)
mb_images *mb_images_open_at(const char *, mb_context *, mb_images_options)
void mb_images_close(mb_images *)
int64_t mb_images_count(const mb_images *)
mb_status mb_images_batch_at(const char *, mb_images *, uint64_t, int64_t, int64_t, mb_tensor *, mb_tensor *)
mb_loader *mb_loader_open_at(const char *, mb_context *, mb_loader_options)
void mb_loader_close(mb_loader *)
int64_t mb_loader_batches(const mb_loader *)
int64_t mb_loader_step(const mb_loader *)
mb_status mb_loader_next_at(const char *, mb_loader *, mb_tensor *, int64_t *)
mb_init mb_init_zeros(void)
mb_init mb_init_ones(void)
mb_init mb_init_full(double)
mb_init mb_init_impulse(void)
mb_init mb_init_normal(double)
mb_init mb_init_uniform(double)
mb_init mb_init_xavier(int64_t, int64_t)
mb_init mb_init_lecun(int64_t)
mb_init mb_init_he(int64_t)
mb_schedule mb_schedule_constant(void)
mb_schedule mb_schedule_warmup_cosine(int64_t, int64_t)
mb_schedule mb_schedule_steps(int64_t, double)
double mb_schedule_factor(mb_schedule, int64_t)
mb_params *mb_params_new_with_at(const char *, mb_context *, uint64_t, mb_dtype)
void mb_params_free(mb_params *)
mb_tensor mb_param_at(const char *, mb_params *, const char *, mb_shape, mb_init)
mb_tensor mb_param_no_decay_at(const char *, mb_params *, const char *, mb_shape, mb_init)
mb_tensor mb_params_get_at(const char *, const mb_params *, const char *)
int mb_params_list(const mb_params *, mb_tensor *, int)
mb_status mb_params_enter_at(const char *, mb_params *, const char *)
mb_status mb_params_leave_at(const char *, mb_params *)
int mb_params_count(const mb_params *)
const char *mb_params_name(const mb_params *, int)
int64_t mb_params_size(const mb_params *)
mb_status mb_params_set_trainable_at(const char *, mb_params *, const char *, bool)
mb_status mb_params_set_decay_at(const char *, mb_params *, const char *, bool)
mb_status mb_params_reinit_at(const char *, mb_params *, const char *, uint64_t)
mb_status mb_params_save_at(const char *, const mb_params *, const char *)
mb_status mb_params_load_at(const char *, mb_params *, const char *)
mb_snapshot *mb_snapshot_new_at(const char *, mb_params *)
void mb_snapshot_free(mb_snapshot *)
mb_status mb_snapshot_take_at(const char *, mb_snapshot *)
mb_status mb_snapshot_restore_at(const char *, mb_snapshot *, const char *)
mb_tensor mb_snapshot_tensor(const mb_snapshot *, int)
mb_average *mb_average_new_at(const char *, mb_params *, double)
void mb_average_free(mb_average *)
mb_status mb_average_update_at(const char *, mb_average *)
mb_status mb_average_swap_at(const char *, mb_average *)
mb_tensor mb_average_tensor(const mb_average *, int)
mb_optimizer *mb_sgd_at(const char *, mb_params *, mb_sgd_options)
mb_optimizer *mb_adam_at(const char *, mb_params *, mb_adam_options)
mb_optimizer *mb_adamw_at(const char *, mb_params *, mb_adamw_options)
void mb_optimizer_free(mb_optimizer *)
mb_status mb_step_at(const char *, mb_optimizer *, mb_tensor, mb_tensor *)
mb_status mb_accumulate_at(const char *, mb_optimizer *, mb_tensor)
mb_status mb_apply_gradients_at(const char *, mb_optimizer *, const mb_tensor *, int, mb_tensor *)
int mb_optimizer_state_count(const mb_optimizer *)
const char *mb_optimizer_state_name(const mb_optimizer *, int)
mb_tensor mb_optimizer_state_tensor(const mb_optimizer *, int)
int64_t mb_optimizer_steps(const mb_optimizer *)
int64_t mb_optimizer_skipped_at(const char *, const mb_optimizer *)
double mb_optimizer_loss_scale_at(const char *, const mb_optimizer *)
double mb_optimizer_lr(const mb_optimizer *)
void mb_optimizer_set_lr(mb_optimizer *, double)
mb_status mb_optimizer_save_with_at(const char *, const mb_optimizer *, const char *, const char *const *)
void mb_optimizer_set_through(mb_optimizer *, mb_gradients_through, void *)
mb_status mb_optimizer_load_at(const char *, mb_optimizer *, const char *)
""".strip().splitlines()
DECLARATIONS += [f"mb_tensor mb_{name}_at(const char *, mb_tensor)" for name in UNARY]
DECLARATIONS += [f"mb_tensor mb_{name}_at(const char *, mb_tensor, mb_tensor)" for name in BINARY]
DECLARATIONS += [f"mb_tensor mb_{name}_right_at(const char *, mb_tensor, double)" for name in BINARY]
DECLARATIONS += [f"mb_tensor mb_{name}_left_at(const char *, double, mb_tensor)" for name in BINARY]
DECLARATIONS += [f"mb_tensor mb_{name}_at(const char *, mb_tensor, mb_axes)" for name in REDUCTIONS]
DECLARATIONS += [f"mb_tensor mb_{name}_at(const char *, mb_tensor, int)" for name in ALONG]
DECLARATIONS += [f"mb_status mb_{name}_at(const char *, const mb_tensor *, int, const mb_tensor *, const mb_tensor *, int, "
                 "mb_tensor *)" for name in ("jvp", "jvp_batch")]
DECLARATIONS += [f"mb_status mb_{name}_at(const char *, mb_tensor, const mb_tensor *, const mb_tensor *, int, mb_tensor *)"
                 for name in ("hvp", "hvp_reverse", "hvp_batch")]
DECLARATIONS += [f"mb_tensor mb_{name}_at(const char *, mb_tensor, int, bool)" for name in RUNNING]
DECLARATIONS += [f"mb_tensor mb_{name}_at(const char *, mb_tensor, mb_tensor)" for name in PAIRS]
DECLARATIONS += [f"mb_tensor mb_{name}_at(const char *, mb_tensor, mb_tensor, mb_tensor, mb_conv_options)"
                 for name in CONVOLUTIONS]
DECLARATIONS += [f"mb_tensor mb_{name}_at(const char *, mb_tensor, mb_pool_options)" for name in POOLS]
DECLARATIONS += [f"mb_tensor mb_{name}_at(const char *, mb_context *, mb_key, mb_dtype, mb_shape)" for name in DRAWS]
DECLARATIONS += [f"mb_tensor mb_adam_update{kind}_at(const char *, mb_tensor, mb_tensor, mb_tensor, mb_tensor, mb_tensor, "
                 f"{step}, const mb_adam_options *, mb_tensor *, mb_tensor *)"
                 for kind, step in (("", "int64_t"), ("_in_scan", "mb_tensor"))]
DECLARATIONS += ["mb_status mb_safetensors_save_at(const char *, mb_context *, const char *, const char *const *, "
                 "const mb_tensor *, int, const char *const *)"]
DECLARATIONS += [f"mb_status mb_{name}_at(const char *, mb_map, const mb_tensor *, int, const mb_tensor *, int, "
                 "mb_implicit_options, mb_tensor *, mb_convergence *)" for name in ("fixed_point", "root", "minimize")]

OURS = ["mb_intern_site"]  # whose text is given back to the library, as it is
library = None  # of load


def load(path=None):
    """The C library, once for all: that of path, of $MOEBIUS_LIBRARY, or the installed one. OSError if there is none."""
    global library
    if library is None:
        path = path or os.environ.get("MOEBIUS_LIBRARY") or ctypes.util.find_library("moebius")
        if not path:
            raise OSError("no libmoebius is installed; set MOEBIUS_LIBRARY to its path")
        library = declare(ctypes.CDLL(path), DECLARATIONS, TYPES)
    return library


def declare(loaded, declarations, types):
    """The library, whose functions know what they take and give."""
    for declaration in declarations:
        result, name, arguments = re.fullmatch(r"(.*?)(mb_\w+)\((.*)\)", declaration).groups()
        function = getattr(loaded, name)
        function.restype = ctypes.c_char_p if result == "const char *" and name not in OURS else kind(result, types)
        function.argtypes = [argument(a, types) for a in arguments.split(", ") if a not in ("void", "...")]
    return loaded


def kind(text, types):
    """The ctypes type of a C type; of all pointers one."""
    return POINTER if "*" in text else types[text.strip()]


def argument(text, types):
    found = kind(text, types)
    return Whole(found) if found in (INT, LONG, ctypes.c_uint64) else found


class Whole:
    """Whole numbers as arguments, refused where C would get others: ctypes alone cuts off what is too large."""

    def __init__(self, type_):
        self.type = type_

    def from_param(self, number):
        number = operator.index(number)
        whole = self.type(number)
        if whole.value != number:
            raise OverflowError(f"{number} is no {self.type.__name__[2:]}")
        return whole

    def array(self, values):
        """Of MAX_RANK, those that there is room for."""
        return (self.type * MAX_RANK)(*map(self.from_param, values[:MAX_RANK]))


# ---------------------------------------------------------------------------------------------------- arguments --

class Error(RuntimeError):
    """The library's sentence; status is the number of its kind (mb_status)."""

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


def shape_of(sizes):
    """Of (2, 3), or 2. Too many sizes are an error of the call that gets them."""
    sizes = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return SHAPE(len(sizes), Whole(LONG).array(sizes))


def axes_of(axes, keep=False):
    """Of (0, -1), or 0, or None for every one."""
    if axes is None:
        return AXES(-1, keep)
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    return AXES(len(axes), keep, Whole(INT).array(axes))


def filled(cls, options):
    """Options of C: what is not given is 0, the default."""
    unknown = set(options) - {name for name, _ in cls._fields_}
    if unknown:
        raise TypeError(f"{cls.__name__} has no {', '.join(sorted(unknown))}")
    values = {}
    for name, kind_ in cls._fields_:
        value = options.get(name)
        if isinstance(value, dict):
            value = filled(kind_, value)
        elif isinstance(value, str):
            value = chosen(cls.__name__, name, value)
        elif issubclass(kind_, ctypes.Array) and value is not None:
            value = kind_(*((value, value) if isinstance(value, int) else value))
        if value is not None:
            values[name] = value.handle if isinstance(value, Tensor) else value
    return cls(**values)


def chosen(owner, name, value):
    """The number of what an option is called."""
    choices = CHOICES.get(f"{owner}.{name}", CHOICES.get(name, (None, [])))[1]
    if value not in choices:
        raise ValueError(f"{name}: {value!r} is none of {', '.join(choices)}")
    return choices.index(value)


def handle_or_none(tensor):
    return TENSOR() if tensor is None else tensor.handle


def pairs_of(metadata):
    """key, value, key, value, ..., NULL."""
    texts = [text.encode() for pair in (metadata or {}).items() for text in pair]
    return (ctypes.c_char_p * (len(texts) + 1))(*texts, None)


def handles_of(tensors):
    return (TENSOR * len(tensors))(*(t.handle for t in tensors))


def handles_at(context, pointer, n):
    """The tensors that C has there; None for those that are none."""
    handles = (TENSOR * n).from_address(pointer) if n else ()
    return [Tensor(context, TENSOR.from_buffer_copy(h)) if h.ctx else None for h in handles]


def init(name, *values):
    """init("xavier", fan_in, fan_out): that of mb_init_xavier."""
    return getattr(load(), "mb_init_" + name)(*values)


def schedule(name, *values):
    """schedule("warmup_cosine", warmup, total): that of mb_schedule_warmup_cosine."""
    return getattr(load(), "mb_schedule_" + name)(*values)


def key(seed, *folds):
    """A key for random draws; each number after the seed folds one in."""
    k = load().mb_key_of(seed)
    for n in folds:
        k = library.mb_key_fold(k, n)
    return k


def dtype_of(view):
    """That of a buffer."""
    code = view.format.lstrip("@=" + ("<" if sys.byteorder == "little" else ">"))
    code = "q" if code == "l" and view.itemsize == 8 else code
    if code not in FORMATS:
        raise TypeError(f"a buffer of {view.format!r}: wanted f, d, i, ?, e, q or B")
    return FORMATS.index(code)


def flattened(data):
    """(numbers, shape) of a number or nested lists, all of a depth as long."""
    if isinstance(data, numbers.Real):
        return [data], ()
    parts = [flattened(part) for part in data]
    shapes = {shape for _, shape in parts} or {()}
    if len(shapes) > 1:
        raise ValueError("the lists are not of one length")
    return [number for flat, _ in parts for number in flat], (len(parts), *shapes.pop())


def nested(flat, shape):
    """The inverse of flattened."""
    if not shape:
        return flat[0]
    size = len(flat) // shape[0] if shape[0] else 0
    return [nested(flat[i * size:(i + 1) * size], shape[1:]) for i in range(shape[0])]


OPEN = weakref.WeakValueDictionary()  # contexts by the pointer that the library knows
INSIDE = {sys._getframe().f_code.co_filename, contextmanager.__code__.co_filename}  # no one's call sites


# ------------------------------------------------------------------------------------------------------ tensors --

class Tensor:
    """A handle: it dies with the scope it was made in."""
    __slots__ = ("context", "_handle")
    __array_ufunc__ = None  # numpy leaves operators to us

    def __init__(self, context, handle):
        self.context, self._handle = context, handle

    @property
    def handle(self):
        self.context.pointer  # raises if it is closed
        return self._handle

    @property
    def shape(self):
        s = library.mb_shape_of(self.handle)
        return tuple(s.dim[:s.rank])

    @property
    def dtype(self):
        return library.mb_dtype_of(self.handle)

    def item(self):
        """The single element. A flush."""
        return self.context.checked(library.mb_item_at(self.context.site(), self.handle))

    def read(self):
        """A memoryview of all elements, row-major, of the tensor's shape unless that is empty; halves as their bits. A flush."""
        shape, code = self.shape, "H" if self.dtype in HALVES else FORMATS[self.dtype]
        data = bytearray(library.mb_count(self.handle) * array.array(code.replace("?", "b")).itemsize)
        buffer = (ctypes.c_char * len(data)).from_buffer(data)
        self.context.checked(library.mb_read_at(self.context.site(), self.handle, buffer, len(data)))
        return memoryview(data).cast(code, shape) if data else memoryview(data).cast(code)

    def tolist(self):
        """The elements as nested lists, or a number. A flush."""
        view = (self.cast(FLOAT32) if self.dtype in HALVES else self).read()
        return view.tolist() if view.nbytes else nested([], self.shape)

    def assign(self, value):
        """Gives a variable a new value."""
        self.context.checked(library.mb_assign_at(self.context.site(), self.handle, value.handle))

    def tell(self, name):
        """x, or what a tap puts in its place: for layers of one's own."""
        return self.context.record("tell", self, name.encode())

    def take(self, index, axis):
        return self.context.record("take", self, index, axis)

    def one_hot(self, classes):
        return self.context.record("one_hot", self, classes)

    def cross_entropy(self, labels, **options):
        """Options are those of mb_cross_entropy_options."""
        options = filled(STRUCTURES["mb_cross_entropy_options"], options)
        return self.context.record("cross_entropy_with", self, labels, options)

    def layer_normalize(self, scale=None, bias=None, eps=1e-6):
        return self.context.record("layer_normalize", self, handle_or_none(scale), handle_or_none(bias), eps)

    def rms_normalize(self, scale=None, eps=1e-6):
        return self.context.record("rms_normalize", self, handle_or_none(scale), eps)

    def batch_normalize(self, channels=1, scale=None, bias=None, eps=1e-5):
        scale, bias = handle_or_none(scale), handle_or_none(bias)
        return self.context.record("batch_normalize", self, channels, scale, bias, eps, None, None)

    def group_normalize(self, groups, channels=1, scale=None, bias=None, eps=1e-5):
        return self.context.record("group_normalize", self, channels, groups, handle_or_none(scale), handle_or_none(bias), eps)

    def dropout(self, key, p, training=True):
        return self.context.record("dropout", self, key, p, training)

    def attend(self, k, v, **options):
        """Of queries [B,N,H,dk], keys and values; options are those of mb_attend_options: causal=True, mask=..."""
        return self.context.record("attend_with", self, k, v, filled(STRUCTURES["mb_attend_options"], options))

    def patchify(self, p):
        return self.context.record("patchify", self, p)

    def triangular_solve(self, b, upper=False, transposed=False, unit_diagonal=False):
        return self.context.record("triangular_solve", self, b, upper + 2 * transposed + 4 * unit_diagonal)

    def lstsq(self, b, ridge=None):
        return self.context.record("lstsq", self, b, handle_or_none(ridge))

    def tril(self, diagonal=0):
        return self.context.record("tril", self, diagonal)

    def triu(self, diagonal=0):
        return self.context.record("triu", self, diagonal)

    def quantile(self, q, axis=-1):
        return self.context.record("quantile", self, q, axis)

    def gather(self, index, axis=-1):
        return self.context.record("gather", self, index, axis)

    def scatter(self, index, updates, axis=-1):
        return self.context.record("scatter", self, index, updates, axis)

    def scatter_add_along(self, index, updates, axis=-1):
        return self.context.record("scatter_add_along", self, index, updates, axis)

    def scatter_add(self, index, axis, size):
        """The updates, added into an axis of so many zeros."""
        return self.context.record("scatter_add", self, index, axis, size)

    def topk(self, k, axis=-1, largest=True):
        """The k largest entries, or the smallest, and where they are."""
        index = TENSOR()
        return self.context.record("topk", self, k, axis, largest, ctypes.byref(index)), Tensor(self.context, index)

    def split(self, sizes, axis=-1):
        """Parts of these sizes."""
        parts = (TENSOR * len(sizes))()
        given = (LONG * len(sizes))(*map(Whole(LONG).from_param, sizes))
        self.context.checked(library.mb_split_at(self.context.site(), self.handle, given, parts, len(parts), axis))
        return handles_at(self.context, ctypes.addressof(parts), len(parts))

    def unstack(self, axis=0):
        """The entries of an axis."""
        parts = (TENSOR * self.shape[axis])()
        self.context.checked(library.mb_unstack_at(self.context.site(), self.handle, parts, len(parts), axis))
        return handles_at(self.context, ctypes.addressof(parts), len(parts))

    def unfold(self, axis, size, stride=1, dilation=1):
        return self.context.record("unfold", self, axis, STRUCTURES["mb_window"](size, stride, dilation))

    def fold(self, axis, n, size=0, stride=1, dilation=1):
        """The inverse of unfold, to n elements, where windows that overlap are added."""
        return self.context.record("fold", self, axis, STRUCTURES["mb_window"](size, stride, dilation), n)

    def clip_value(self, limit):
        return self.context.record("clip_value", self, limit)

    def save_npy(self, path):
        """Writes an array of NumPy's. A flush."""
        self.context.checked(library.mb_npy_save_at(self.context.site(), os.fsencode(path), self.handle))

    def clamp(self, low, high):
        return self.context.record("clamp", self, low, high)

    def cast(self, dtype):
        return self.context.record("cast", self, dtype)

    def reshape(self, *sizes):
        return self.context.record("reshape", self, shape_of(sizes))

    def broadcast(self, *sizes):
        return self.context.record("broadcast", self, shape_of(sizes))

    def permute(self, *order):
        return self.context.record("permute", self, axes_of(order))

    def slice(self, axis, start, count, step=1):
        return self.context.record("slice", self, axis, start, count, step)

    def pad(self, axis, before, after, **options):
        """With zeros; or mode="edge", "reflect", "wrap", or value=..."""
        return self.context.record("pad_with", self, axis, before, after, filled(STRUCTURES["mb_pad_options"], options))

    def __matmul__(self, other):
        return self.matmul(other) if isinstance(other, Tensor) else NotImplemented

    def __invert__(self):
        return self.context.record("not", self)

    def __and__(self, other):
        return self.context.record("and", self, other) if isinstance(other, Tensor) else NotImplemented

    def __or__(self, other):
        return self.context.record("or", self, other) if isinstance(other, Tensor) else NotImplemented

    def __bool__(self):
        return bool(self.item())

    def __float__(self):
        return self.item()

    def __len__(self):
        if not self.shape:
            raise TypeError("a single value has no length")
        return self.shape[0]

    def __getitem__(self, index):
        """Numbers, which remove their axis, and slices, of the first axes."""
        index = index if isinstance(index, tuple) else (index,)
        result, axis = self, 0
        if len(index) > len(self.shape):
            raise IndexError(f"{len(index)} indices into a tensor of shape {self.shape}")
        for one, size in zip(index, self.shape):
            if isinstance(one, slice):
                places = range(size)[one]
                start = places.start if len(places) else 0
                result = result.slice(axis, start, len(places), places.step)
                axis += 1
            else:
                result = result.slice(axis, range(size)[one], 1).squeeze(axis)
        return result


def define(name, function, owner=Tensor):
    function.__name__ = name
    function.__doc__ = f"mb_{name} of the C headers."
    setattr(owner, name, function)


for _name in UNARY:
    define(_name, lambda x, name=_name: x.context.record(name, x))
for _name in REDUCTIONS:
    define(_name, lambda x, axes=None, keep=False, name=_name: x.context.record(name, x, axes_of(axes, keep)))
for _name in ALONG:
    define(_name, lambda x, axis=-1, name=_name: x.context.record(name, x, axis))
for _name in RUNNING:
    define(_name, lambda x, axis=-1, reverse=False, name=_name: x.context.record(name, x, axis, reverse))
for _name in PAIRS:
    define(_name, lambda x, y, name=_name: x.context.record(name, x, y))


def spread(name, options):
    """What is given as one number is the same for both axes of two."""
    return {k: (v,) * int(name[-2]) if isinstance(v, int) and k in ("size", "stride", "padding", "dilation", "more") else v
            for k, v in options.items()}


def convolution(x, weight, bias, name, options):
    options = filled(STRUCTURES["mb_conv_options"], spread(name, options))
    return x.context.record(name, x, weight, handle_or_none(bias), options)


def pool(x, name, options):
    return x.context.record(name, x, filled(STRUCTURES["mb_pool_options"], spread(name, options)))


for _name in CONVOLUTIONS:
    define(_name, lambda x, weight, bias=None, name=_name, **options: convolution(x, weight, bias, name, options))
for _name in POOLS:
    define(_name, lambda x, size, name=_name, **options: pool(x, name, {"size": size, **options}))


def binary(x, y, name):
    if isinstance(y, Tensor):
        return x.context.record(name, x, y)
    return x.context.record(name + "_right", x, float(y)) if isinstance(y, numbers.Real) else NotImplemented


def reflected(x, y, name):
    return x.context.record(name + "_left", float(y), x) if isinstance(y, numbers.Real) else NotImplemented


def method(x, y, name):
    result = binary(x, y, name)
    if result is NotImplemented:
        raise TypeError(f"{name} wants a tensor or a number, not {type(y).__name__}")
    return result


for _name in BINARY:
    define(_name, lambda x, y, name=_name: method(x, y, name))
for _operator, _name in {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "pow": "pow", "mod": "mod"}.items():
    setattr(Tensor, f"__{_operator}__", lambda x, y, name=_name: binary(x, y, name))
    setattr(Tensor, f"__r{_operator}__", lambda x, y, name=_name: reflected(x, y, name))
for _name in ("lt", "le", "gt", "ge"):
    setattr(Tensor, f"__{_name}__", lambda x, y, name=_name: binary(x, y, name))
Tensor.__neg__, Tensor.__abs__ = Tensor.neg, Tensor.abs


# ----------------------------------------------------------------------------------------------------- contexts --

class Context:
    """A tape, a backend and their memory, of the thread that opened it."""

    def __init__(self, backend=None, threads=0, disable=None, plan_cache_bytes=0, log=None, arena_bytes=0):
        """log(line) is told warnings; the others are as mb_options has them."""
        self._pointer, self._sites, self._owned, self._raised = None, {}, [], None
        self._functions, self._numbers = [], {}
        self._log = LOG((lambda _, line: log(line.decode(errors="replace"))) if log else 0)
        texts = (text.encode() if text is not None else None for text in (backend, disable))
        options = STRUCTURES["mb_options"](0, next(texts), threads, None, plan_cache_bytes, next(texts), self._log, None,
                                           arena_bytes)
        self._pointer = load().mb_open_with(ctypes.byref(options))
        try:
            self.check()
        except Error:
            self.close()
            raise
        OPEN[self._pointer] = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()

    @property
    def pointer(self):
        if not self._pointer:
            raise ValueError("the context is closed")
        return self._pointer

    def close(self):
        """Frees it, and parameters and optimisers before; tensors can be used no more."""
        pointer, self._pointer = self._pointer, None
        OPEN.pop(pointer, None)
        if pointer:
            while self._owned:
                free, owned = self._owned.pop()
                free(owned)
            library.mb_close(pointer)

    def own(self, free, pointer):
        """What close frees."""
        self.check()
        self._owned.append((free, pointer))
        return pointer

    def check(self):
        """Raises the first error, if there is one."""
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised
        status = library.mb_error(self._pointer)
        if status:
            raise Error(status, library.mb_message(self._pointer).decode(errors="replace"))

    def checked(self, result):
        self.check()
        return result

    def clear(self):
        """Forgets the error, so that recording can go on."""
        library.mb_clear_error(self.pointer)

    def site(self):
        """Where the caller is, outside of this file, as the library wants it: a text that it keeps."""
        frame = sys._getframe(1)
        while frame.f_code.co_filename in INSIDE and frame.f_back:
            frame = frame.f_back
        place = frame.f_code.co_filename, frame.f_lineno
        known = self._sites.get(place) or library.mb_intern_site(self.pointer, os.fsencode("%s:%d" % place))
        if known:  # not without memory, nor in another thread
            self._sites[place] = known
        return known

    def record(self, name, *arguments):
        """The tensor that mb_NAME_at makes of tensors and what else there is."""
        arguments = [a.handle if isinstance(a, Tensor) else a for a in arguments]
        return self.tensor_of(getattr(library, f"mb_{name}_at")(self.site(), *arguments))

    def tensor_of(self, handle):
        self.check()
        return Tensor(self, handle)

    def scalar(self, value, dtype=FLOAT32):
        return self.record("scalar", self.pointer, dtype, value)

    def full(self, shape, value, dtype=FLOAT32):
        return self.record("full", self.pointer, dtype, shape_of(shape), value)

    def zeros(self, shape, dtype=FLOAT32):
        return self.full(shape, 0.0, dtype)

    def ones(self, shape, dtype=FLOAT32):
        return self.full(shape, 1.0, dtype)

    def iota(self, n, dtype=FLOAT32):
        return self.record("iota", self.pointer, dtype, n)

    def eye(self, n, dtype=FLOAT32):
        return self.record("eye", self.pointer, dtype, n)

    def variable(self, shape, dtype=FLOAT32):
        return self.record("variable", self.pointer, dtype, shape_of(shape))

    def gamma(self, key, shape, k, theta, dtype=FLOAT32):
        return self.record("gamma", self.pointer, key, dtype, shape_of(shape), k, theta)

    def permutation(self, key, shape):
        return self.record("permutation", self.pointer, key, shape_of(shape))

    def tril_mask(self, rows, columns, diagonal=0):
        """True where column - row <= diagonal."""
        return self.record("tril_mask", self.pointer, rows, columns, diagonal)

    def sincos2d(self, rows, columns, dim, dtype=FLOAT32):
        return self.record("sincos2d", self.pointer, dtype, rows, columns, dim)

    def load_npy(self, path):
        return self.record("npy_load", self.pointer, os.fsencode(path))

    def load_csv(self, path, dtype=FLOAT32, header=False, separator=","):
        """A table of numbers: [rows, columns]."""
        options = STRUCTURES["mb_csv_options"](dtype, header, separator.encode())
        return self.record("csv_load", self.pointer, os.fsencode(path), options)

    def load_safetensors(self, path):
        """All tensors of a file, by name."""
        file = library.mb_safetensors_open_at(self.site(), self.pointer, os.fsencode(path))
        self.check()
        try:
            return {library.mb_safetensors_name(file, i).decode(): self.record("safetensors_tensor", file, i)
                    for i in range(library.mb_safetensors_count(file))}
        finally:
            library.mb_safetensors_close(file)

    def load_metadata(self, path):
        """Of a file of tensors, its texts by name."""
        file = library.mb_safetensors_open_at(self.site(), self.pointer, os.fsencode(path))
        self.check()
        key, value, texts = ctypes.c_char_p(), ctypes.c_char_p(), {}
        while library.mb_safetensors_metadata_pair(file, len(texts), ctypes.byref(key), ctypes.byref(value)):
            texts[key.value.decode()] = value.value.decode()
        library.mb_safetensors_close(file)
        return texts

    def save_safetensors(self, path, tensors, metadata=None):
        """Writes a dict of tensors by name, and one of texts. A flush."""
        names = (ctypes.c_char_p * len(tensors))(*(name.encode() for name in tensors))
        self.checked(library.mb_safetensors_save_at(self.site(), self.pointer, os.fsencode(path), names,
                                                    handles_of(list(tensors.values())), len(tensors), pairs_of(metadata)))

    def forecast(self, *tensors):
        """What a flush of these, and of what is assigned, would take; nothing is computed: peak_bytes, flops, ..."""
        costs = STRUCTURES["mb_costs"]()
        self.checked(library.mb_forecast_at(self.site(), self.pointer, handles_of(tensors), len(tensors), ctypes.byref(costs)))
        return costs

    def stats(self):
        """flushes, plans, bytes, peak_bytes, ..."""
        return library.mb_get_stats(self.pointer)

    @property
    def backend(self):
        return library.mb_backend_name(self.pointer).decode()

    def tensor(self, data, dtype=None):
        """A copy of a buffer, or of numbers in nested lists. A buffer's own dtype is the only one it can have."""
        try:
            view = memoryview(data)
        except TypeError:
            flat, shape = flattened(data)
            dtype = FLOAT32 if dtype is None else dtype
            if dtype in HALVES:
                return self.tensor(data, FLOAT32).cast(dtype)
            code = FORMATS[dtype].replace("?", "b")
            values = map(float if dtype in (FLOAT32, FLOAT64) else bool if dtype == BOOL else operator.index, flat)
            text = array.array(code, values).tobytes()
        else:
            if dtype not in (None, dtype_of(view)):
                raise TypeError(f"a buffer of {view.format!r}: it has a dtype of its own")
            dtype, shape, text = dtype_of(view), view.shape, view.tobytes()
        return self.record("from_bytes", self.pointer, dtype, shape_of(shape), text, len(text))

    def contained(self, call):
        """The status of a call by the library, for C cannot raise: what it raises is the error, and raised by check."""
        try:
            call()
        except BaseException as error:
            self._raised = self._raised or error
            sentence = f"{type(error).__name__}: {error}".replace("%", "%%")
            library.mb_fail_at(self.site(), self.pointer, 1, sentence.encode(errors="replace"))
        return library.mb_error(self.pointer)

    @contextmanager
    def scope(self):
        """What is recorded inside is stale at its end, except what keep and detach moved out."""
        scope = library.mb_scope_begin_at(self.site(), self.pointer)
        try:
            yield
        finally:
            library.mb_scope_end_at(self.site(), scope)
        self.check()

    @contextmanager
    def checkpoint(self, products=False):
        """What is recorded inside is computed again for derivatives in place of being kept; with products, results of
        matrix products are."""
        begin = library.mb_checkpoint_products_begin_at if products else library.mb_checkpoint_begin_at
        checkpoint = begin(self.site(), self.pointer)
        try:
            yield
        finally:
            library.mb_checkpoint_end_at(self.site(), checkpoint)
        self.check()

    def number_of(self, function):
        """By which the tape knows a function that derivatives ask again."""
        number = self._numbers.setdefault(function, len(self._functions))
        if number == len(self._functions):
            self._functions.append(function)
        return LONG(number)

    def ask(self, user, want, out, arguments):
        """The status of a function of that number: as many results go to out."""
        def call():
            results = listed(self._functions[LONG.from_address(user).value](*arguments))
            if len(results) != want:
                raise ValueError(f"{len(results)} results were returned, of {want}")
            for i, result in enumerate(results):
                out[i] = TENSOR() if result is None else result.handle
        return self.contained(call)

    def scan(self, steps, carries, body, inverse=None, **options):
        """A loop as one node: body(step, *carries) records a step and returns the next one's carries. With its inverse,
        inverse(step, *carries), from those after a step to those before it, a gradient stores none. -> the carries
        after the last step and the stacks of step.stack, two lists."""
        options = filled(STRUCTURES["mb_scan_options"], options)
        values, stacks = handles_of(carries), []
        scan = library.mb_scan_begin_with_at(self.site(), self.pointer, steps, options)
        try:
            for i in range(len(values)):
                library.mb_scan_carry_at(self.site(), scan, ctypes.byref(values, i * ctypes.sizeof(TENSOR)))
            self.check()
            after = listed(body(Step(self, scan, stacks), *(Tensor(self, TENSOR.from_buffer_copy(v)) for v in values)))
            if len(after) != len(values):
                raise ValueError(f"scan: of {len(values)} carries the body returned {len(after)}")
            values[:] = [t.handle for t in after]
            if inverse:
                self._invert(scan, values, inverse)
        except BaseException:
            self._leave(library.mb_scan_end_at, scan)
            raise
        library.mb_scan_end_at(self.site(), scan)
        return [[self.tensor_of(handle) for handle in handles] for handles in (values, stacks)]

    def _leave(self, end, bracket):
        """Ends a bracket that an exception leaves: that it lacks something is no error then."""
        clean = not library.mb_error(self.pointer)
        end(self.site(), bracket)
        if clean:
            self.clear()

    def _invert(self, scan, values, inverse):
        places = [ctypes.byref(values, i * ctypes.sizeof(TENSOR)) for i in range(len(values))]
        before = listed(inverse(Step(self, scan, None), *(self.record("scan_after", scan, place) for place in places)))
        if len(before) != len(values):
            raise ValueError(f"scan: of {len(values)} carries the inverse returned {len(before)}")
        for place, value in zip(places, before):
            self.checked(library.mb_scan_before_at(self.site(), scan, place, value.handle))

    def vmap(self, n, body, **options):
        """body(example), recorded for one of n examples and applied to all: what it returns, a tensor or several, with an
        axis of n in front."""
        options = filled(STRUCTURES["mb_vmap_options"], options)
        vmap = library.mb_vmap_begin_with_at(self.site(), self.pointer, n, options)
        try:
            self.check()
            one = body(Example(self, vmap))
            outs = [TENSOR() for _ in listed(one)]
            for tensor, out in zip(listed(one), outs):
                library.mb_vmap_out_at(self.site(), vmap, tensor.handle, 0, ctypes.byref(out))
        finally:
            library.mb_vmap_end_at(self.site(), vmap)
        results = [self.tensor_of(out) for out in outs]
        return results[0] if isinstance(one, Tensor) else results


    @contextmanager
    def prefix(self, name, index=-1):
        """What is told inside has the prefix "name.", or "name.index."."""
        name = name.encode()
        prefix = library.mb_prefix_begin_at(self.site(), self.pointer, name, index)
        try:
            self.check()
            yield
        finally:
            library.mb_prefix_end(ctypes.byref(prefix))

    @contextmanager
    def collect(self, pattern="", most=256):
        """What is told inside by names that the pattern matches: as a list, which is filled at the end."""
        told, handles = [], (TENSOR * most)()
        with self._tapped("collect", pattern, handles, most) as heard:
            yield told
        if heard[0] > most:
            raise ValueError(f"collect: {heard[0]} tensors were told, of at most {most}")
        told += [Tensor(self, TENSOR.from_buffer_copy(h)) for h in handles[:heard[0]]]

    @contextmanager
    def replace(self, pattern, tensors):
        """The k-th of them becomes tensors[k]; None leaves it. Fewer than tensors are an error."""
        given = (TENSOR * len(tensors))(*(TENSOR() if t is None else t.handle for t in tensors))
        with self._tapped("replace", pattern, given, len(given)):
            yield

    @contextmanager
    def tap(self, pattern, function):
        """function(name, x) hears each, and returns what takes its place, or None."""
        def through(_, name, x):
            def hear():
                y = function(name.decode(errors="replace"), Tensor(self, TENSOR.from_buffer_copy(x[0])))
                if y is not None:
                    x[0] = y.handle
            return self.contained(hear)
        called = THROUGH(through)  # which has to be there until the end
        with self._tapped("through", pattern, called, None):
            yield

    @contextmanager
    def _tapped(self, name, pattern, *arguments):
        """A tap; what it yields gets how many tensors it heard."""
        heard, pattern = [], pattern.encode()
        tap = getattr(library, f"mb_tap_{name}_at")(self.site(), self.pointer, pattern, *arguments)
        self.check()
        try:
            yield heard
        except BaseException:
            self._leave(library.mb_tap_end_at, tap)
            raise
        heard.append(self.checked(library.mb_tap_end_at(self.site(), tap)))


def draw(mb, key, shape, dtype, name):
    return mb.record(name, mb.pointer, key, dtype, shape_of(shape))


for _name in DRAWS:
    define(_name, lambda mb, key, shape, dtype=FLOAT32, name=_name: draw(mb, key, shape, dtype, name), Context)


def listed(tensors):
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


class Step:
    """A step of a scan: what its body is given."""

    def __init__(self, context, scan, stacks):
        self._context, self._scan, self._stacks = context, scan, stacks

    def slice(self, xs):
        """xs [steps, ...] -> this step's."""
        return self._context.record("scan_slice", self._scan, xs)

    def number(self):
        """0-d, of int32."""
        return self._context.record("scan_step", self._scan)

    def stack(self, y):
        """y of every step is one of the scan's stacks."""
        self._stacks.append(TENSOR())
        library.mb_scan_stack_at(self._context.site(), self._scan, y.handle, ctypes.byref(self._stacks[-1]))
        self._context.check()

    def until(self, condition):
        """Ends the loop after the step at whose end the condition holds."""
        library.mb_scan_until_at(self._context.site(), self._scan, condition.handle)
        self._context.check()


class Example:
    """An example of a vmap: what its body is given."""

    def __init__(self, context, vmap):
        self._context, self._vmap = context, vmap

    def of(self, xs, axis=0):
        """xs, which has an entry for each example along axis -> this example's."""
        return self._context.record("vmap_in", self._vmap, xs, axis)


# -------------------------------------------------------------------------------------- functions of several tensors --

def where(condition, a, b):
    """a where the condition holds, b elsewhere; one of them may be a number."""
    mb, dtype = condition.context, (a if isinstance(a, Tensor) else b).dtype
    a, b = (t if isinstance(t, Tensor) else mb.scalar(t, dtype) for t in (a, b))
    return mb.record("where", condition, a, b)


def einsum(equation, *tensors):
    return tensors[0].context.record("einsum_of", equation.encode(), handles_of(tensors), len(tensors))


def concat(tensors, axis=0):
    return tensors[0].context.record("concat", handles_of(tensors), len(tensors), axis)


def stack(tensors, axis=0):
    return tensors[0].context.record("stack", handles_of(tensors), len(tensors), axis)


def evaluate(*tensors):
    """Computes them at once. A flush."""
    mb = tensors[0].context
    mb.checked(library.mb_eval_at(mb.site(), handles_of(tensors), len(tensors)))


def derivative(name, y, xs, before=(), directions=()):
    """By tensors xs, one or several: as many results."""
    mb, several = y.context, listed(xs)
    if directions and len(directions[0]) != len(several):
        raise ValueError(f"{name}: {len(directions[0])} directions for {len(several)} tensors")
    results = (TENSOR * len(several))()
    getattr(library, f"mb_{name}_at")(mb.site(), y.handle, *(t.handle for t in before), handles_of(several),
                                      *map(handles_of, directions), len(several), results)
    mb.check()
    results = [Tensor(mb, TENSOR.from_buffer_copy(r)) for r in results]
    return results[0] if isinstance(xs, Tensor) else results


def grad(y, xs):
    """The gradient of sum(y), by a tensor or by each of several."""
    return derivative("grad", y, xs)


def vjp(y, v, xs):
    """v^T dy/dx."""
    return derivative("vjp", y, xs, before=[v])


def hvp(y, xs, vs):
    """The Hessian of sum(y) times vs, a direction for each of xs."""
    return derivative("hvp", y, xs, directions=[listed(vs)])


def hvp_reverse(y, xs, vs):
    """The same by reverse over reverse, which takes the vs as constants."""
    return derivative("hvp_reverse", y, xs, directions=[listed(vs)])


def hvp_batch(y, xs, vs):
    """Many products in one sweep: vs and results have one more axis in front."""
    return derivative("hvp_batch", y, xs, directions=[listed(vs)])


def tangent(name, y, xs, vs):
    mb, xs, vs = y.context, listed(xs), listed(vs)
    if len(xs) != len(vs):
        raise ValueError(f"{name}: {len(vs)} directions for {len(xs)} tensors")
    result = TENSOR()
    getattr(library, f"mb_{name}_at")(mb.site(), handles_of([y]), 1, handles_of(xs), handles_of(vs), len(xs),
                                      ctypes.byref(result))
    return mb.tensor_of(result)


def jvp(y, xs, vs):
    """dy/dx vs: the change of y along vs, a direction for each of xs."""
    return tangent("jvp", y, xs, vs)


def jvp_batch(y, xs, vs):
    """Along many directions in one sweep: vs and the result have one more axis in front."""
    return tangent("jvp_batch", y, xs, vs)


def jacobian(y, x):
    """All of dy/dx, [Y..., X...]."""
    return y.context.record("jacobian", y, x)


def hessian(y, xs):
    """Of sum(y), by all elements of the xs together: [p, p]."""
    return y.context.record("hessian", y, handles_of(listed(xs)), len(listed(xs)))


def hessian_diagonal(y, xs):
    """d2 sum(y) / dx2 of each element."""
    return derivative("hessian_diagonal", y, xs)


def directional(y, xs, us):
    """First and second derivative of y along the line xs + s us."""
    mb, xs, us = y.context, listed(xs), listed(us)
    if len(xs) != len(us):
        raise ValueError(f"directional: {len(us)} directions for {len(xs)} tensors")
    first, second = TENSOR(), TENSOR()
    mb.checked(library.mb_directional_at(mb.site(), y.handle, handles_of(xs), handles_of(us), len(xs), ctypes.byref(first),
                                         ctypes.byref(second)))
    return Tensor(mb, first), Tensor(mb, second)


def lanczos(y, xs, steps, key):
    """A tridiagonal matrix whose eigenvalues come near to the extreme ones of the Hessian of sum(y): its diagonal, and what
    is beside it."""
    mb, xs, alpha, beta = y.context, listed(xs), TENSOR(), TENSOR()
    mb.checked(library.mb_lanczos_at(mb.site(), y.handle, handles_of(xs), len(xs), steps, key, ctypes.byref(alpha),
                                     ctypes.byref(beta)))
    return Tensor(mb, alpha), Tensor(mb, beta)


def extreme_eigenvalues(y, xs, steps, key):
    """The smallest and the largest of the Hessian of sum(y), by Lanczos. A flush."""
    mb, xs, smallest, largest = y.context, listed(xs), DOUBLE(), DOUBLE()
    mb.checked(library.mb_extreme_eigenvalues_at(mb.site(), y.handle, handles_of(xs), len(xs), steps, key,
                                                 ctypes.byref(smallest), ctypes.byref(largest)))
    return smallest.value, largest.value


# ------------------------------------------------------------------------------------------- rules of inner loops --

def sgd_update(parameter, gradient, lr):
    return parameter.context.record("sgd_update", parameter, gradient, lr)


def momentum_update(parameter, gradient, lr, velocity, momentum, nesterov=False):
    """-> the parameter and the velocity after the step."""
    mb, after = parameter.context, TENSOR()
    moved = mb.record("momentum_update", parameter, gradient, lr, velocity, momentum, nesterov, ctypes.byref(after))
    return moved, Tensor(mb, after)


def adam_update(parameter, gradient, lr, m, v, t, **options):
    """Of step t = 1, 2, ..., in a scan a tensor, 0-d of int32 -> the parameter, m and v after it."""
    mb, m1, v1 = parameter.context, TENSOR(), TENSOR()
    options = filled(STRUCTURES["mb_adam_options"], options)
    name = "adam_update_in_scan" if isinstance(t, Tensor) else "adam_update"
    moved = mb.record(name, parameter, gradient, lr, m, v, t, ctypes.byref(options), ctypes.byref(m1), ctypes.byref(v1))
    return moved, Tensor(mb, m1), Tensor(mb, v1)


def global_norm(gradients):
    return gradients[0].context.record("global_norm", handles_of(gradients), len(gradients))


def clip_norm(gradients, most):
    """Multiplied so that their common norm is at most that; and the norm before."""
    mb, clipped = gradients[0].context, (TENSOR * len(gradients))()
    norm = mb.record("clip_norm", handles_of(gradients), len(gradients), most, clipped)
    return handles_at(mb, ctypes.addressof(clipped), len(gradients)), norm


# ----------------------------------------------------------------------------- functions that derivatives ask again --
#
# Their tensors come in by arguments. They are kept until the context is closed, each once: in a loop give the same one.


def map_call(most):
    """What C calls for a function of xs and params, with `most` results, or as many as xs."""
    def call(user, ctx, at, out):
        mb, at = OPEN[ctx], at[0]
        return mb.ask(user, most or at.k, out, handles_at(mb, at.xs, at.k) + handles_at(mb, at.params, at.n))
    return ctypes.CFUNCTYPE(INT, POINTER, POINTER, ctypes.POINTER(STRUCTURES["mb_map_at"]), ctypes.POINTER(TENSOR))(call)


def rule_call(user, ctx, at, vs, gs):
    mb, at = OPEN[ctx], at[0]
    xs, ys, vs = (handles_at(mb, *where) for where in ((at.xs, at.n), (at.ys, at.m), (vs, at.m)))
    return mb.ask(user, at.n, gs, (xs, ys, vs))


FUNCTION_CALL, LOSS_CALL = map_call(None), map_call(1)
RULE_CALL = ctypes.CFUNCTYPE(INT, POINTER, POINTER, ctypes.POINTER(STRUCTURES["mb_custom_at"]), POINTER,
                             ctypes.POINTER(TENSOR))(rule_call)


def asking(name, call, mb, function):
    """The struct that tells C to call a function of ours; the number is copied to the tape."""
    number = mb.number_of(function)
    made = STRUCTURES[name](ctypes.cast(call, POINTER))
    made.user, made.user_bytes = ctypes.cast(ctypes.pointer(number), POINTER), ctypes.sizeof(number)
    made.number = number  # which has to be there until then
    return made


def grad_mixed(loss, xs, params=()):
    """grad(loss(*xs, *params), xs), whose own derivatives are made in the mode that takes less: for gradients within loops."""
    several, mb = listed(xs), listed(xs)[0].context
    results = (TENSOR * len(several))()
    mb.checked(library.mb_grad_mixed_at(mb.site(), asking("mb_map", LOSS_CALL, mb, loss), handles_of(several), len(several),
                                        handles_of(params), len(params), results))
    results = handles_at(mb, ctypes.addressof(results), len(several))
    return results[0] if isinstance(xs, Tensor) else results


Solution = namedtuple("Solution", "xs converged residual steps")


def solution(name, call, function, x0, params, options):
    several, mb, told = listed(x0), listed(x0)[0].context, STRUCTURES["mb_convergence"]()
    results = (TENSOR * len(several))()
    mb.checked(getattr(library, f"mb_{name}_at")(
        mb.site(), asking("mb_map", call, mb, function), handles_of(several), len(several), handles_of(params), len(params),
        filled(STRUCTURES["mb_implicit_options"], options), results, ctypes.byref(told)))
    results = handles_at(mb, ctypes.addressof(results), len(several))
    return Solution(results[0] if isinstance(x0, Tensor) else results, *handles_at(mb, ctypes.addressof(told), 3))


def fixed_point(function, x0, params=(), **options):
    """xs with function(*xs, *params) = xs, from x0 on; derivatives by params are those of the equation. Options are those
    of mb_implicit_options, linear={...} too."""
    return solution("fixed_point", FUNCTION_CALL, function, x0, params, options)


def root(function, x0, params=(), **options):
    """xs with function(*xs, *params) = 0, in the same way."""
    return solution("root", FUNCTION_CALL, function, x0, params, options)


def minimize(loss, x0, params=(), **options):
    """xs where loss(*xs, *params) has a minimum, in the same way."""
    return solution("minimize", LOSS_CALL, loss, x0, params, options)


def custom_gradient(ys, xs, reverse):
    """The values ys, functions of the list xs alone, with a derivative of one's own: reverse(xs, ys, vs), from a list of
    cotangents vs of the values, returns the gradients of xs. In both None stands for zeros."""
    several, mb = listed(ys), listed(ys)[0].context
    results = (TENSOR * len(several))()
    rule = asking("mb_custom_rule", RULE_CALL, mb, reverse)
    mb.checked(library.mb_custom_gradient_at(mb.site(), handles_of(several), len(several), handles_of(xs), len(xs), rule,
                                             results))
    results = handles_at(mb, ctypes.addressof(results), len(several))
    return results[0] if isinstance(ys, Tensor) else results


# ---------------------------------------------------------------------------------------------------------- batches --

IN_ORDER = (1 << 64) - 1  # in place of an epoch: the order of the files


class Images:
    """Labelled images of two IDX files: Images(mb, images=PATH, labels=PATH, mean=0.286, std=0.353, seed=1)."""

    def __init__(self, context, images, labels, **options):
        paths = {"images": os.fsencode(images), "labels": os.fsencode(labels)}
        options = filled(STRUCTURES["mb_images_options"], {**paths, **options})
        self.context = context
        self._pointer = context.own(library.mb_images_close,
                                    library.mb_images_open_at(context.site(), context.pointer, options))

    def __len__(self):
        self.context.pointer  # raises if it is closed
        return library.mb_images_count(self._pointer)

    def batch(self, epoch, number, size):
        """-> images [B, height, width] and labels [B]."""
        mb, x, y = self.context, TENSOR(), TENSOR()
        mb.pointer  # raises if it is closed
        mb.checked(library.mb_images_batch_at(mb.site(), self._pointer, epoch, number, size, ctypes.byref(x), ctypes.byref(y)))
        return Tensor(mb, x), Tensor(mb, y)


Scaled = namedtuple("Scaled", "data scale offset", defaults=(0.0,))
Scaled.__doc__ = "A column of bytes, which become byte * scale + offset, float32."


class Loader:
    """Batches of rows, without end, made ahead by threads: Loader(mb, [images, labels], batch=64, key=key(1)). Columns are
    buffers whose first axis is that of the rows, or Scaled; they are read until the context is closed, and only those
    that cannot be written to are copied. Other options are those of mb_loader_options. What is iterated over are lists, a
    tensor for each column; rows says how many of the last batch are real."""

    def __init__(self, context, columns, batch, **options):
        views = [memoryview(c.data if isinstance(c, Scaled) else c) for c in columns]
        if not views or not all(v.ndim and v.shape[0] == views[0].shape[0] for v in views):
            raise ValueError("loader: wanted columns of as many rows")
        self.context, self._columns, self.rows, self._held = context, len(views), 0, []
        described = (STRUCTURES["mb_column"] * len(views))(*map(self._column, columns, views))
        options = filled(STRUCTURES["mb_loader_options"], {"rows": views[0].shape[0], "batch": batch, **options})
        options.columns, options.column_count = ctypes.cast(described, POINTER), len(views)
        self._pointer = context.own(self._close, library.mb_loader_open_at(context.site(), context.pointer, options))

    def _column(self, column, view):
        shape = shape_of(view.shape[1:])
        dtype = dtype_of(view)
        if isinstance(column, Scaled) and dtype != UINT8:
            raise TypeError(f"a buffer of {view.format!r}: wanted bytes")
        bytes_ = ctypes.c_char * view.nbytes
        in_place = view.c_contiguous and not view.readonly
        self._held.append(bytes_.from_buffer(view) if in_place else bytes_.from_buffer_copy(view.tobytes()))
        address = ctypes.addressof(self._held[-1])
        if isinstance(column, Scaled):
            return STRUCTURES["mb_column"](address, FLOAT32, shape, True, column.scale, column.offset)
        return STRUCTURES["mb_column"](address, dtype, shape)

    def _close(self, pointer):
        library.mb_loader_close(pointer)
        self._held.clear()

    def __iter__(self):
        return self

    def __next__(self):
        mb, columns, rows = self.context, (TENSOR * self._columns)(), LONG()
        mb.pointer  # raises if it is closed
        mb.checked(library.mb_loader_next_at(mb.site(), self._pointer, columns, ctypes.byref(rows)))
        self.rows = rows.value
        return handles_at(mb, ctypes.addressof(columns), self._columns)

    def batches(self):
        """Of an epoch."""
        self.context.pointer  # raises if it is closed
        return library.mb_loader_batches(self._pointer)

    def step(self):
        """The number of the next batch, over all epochs."""
        self.context.pointer  # raises if it is closed
        return library.mb_loader_step(self._pointer)


# -------------------------------------------------------------------------------------- parameters and optimisers --

class Params:
    """Named variables with initial values, which belong to the context."""

    def __init__(self, context, seed, dtype=FLOAT32):
        pointer = library.mb_params_new_with_at(context.site(), context.pointer, seed, dtype)
        self.context, self._pointer = context, context.own(library.mb_params_free, pointer)

    @property
    def pointer(self):
        self.context.pointer  # raises if it is closed
        return self._pointer

    def param(self, name, shape, initial=None, decay=True):
        """A new one; initial as by init(), zeros by default."""
        function = "param" if decay else "param_no_decay"
        initial = init("zeros") if initial is None else initial
        return self.context.record(function, self.pointer, name.encode(), shape_of(shape), initial)

    def __getitem__(self, name):
        return self.context.record("params_get", self.pointer, name.encode())

    def trainable(self):
        handles = (TENSOR * library.mb_params_list(self.pointer, None, 0))()
        library.mb_params_list(self.pointer, handles, len(handles))
        return [Tensor(self.context, TENSOR.from_buffer_copy(h)) for h in handles]

    def names(self):
        """Of all of them, in order of creation."""
        return [library.mb_params_name(self.pointer, i).decode() for i in range(library.mb_params_count(self.pointer))]

    def size(self):
        """Number of trainable scalars."""
        return library.mb_params_size(self.pointer)

    @contextmanager
    def enter(self, name):
        """Names of parameters made inside begin with "name."."""
        self._do("enter", name.encode())
        try:
            yield
        finally:
            library.mb_params_leave_at(self.context.site(), self.pointer)

    def freeze(self, pattern=""):
        """Optimisers change those no more that the pattern matches: that name, and what begins with it and a dot."""
        self._do("set_trainable", pattern.encode(), False)

    def unfreeze(self, pattern=""):
        self._do("set_trainable", pattern.encode(), True)

    def set_decay(self, pattern, decays):
        """Whether weight decay applies to them."""
        self._do("set_decay", pattern.encode(), decays)

    def reinit(self, pattern, seed):
        """They get the initial values of a set of this seed, at the next flush."""
        self._do("reinit", pattern.encode(), seed)

    def save(self, path):
        """All as one safetensors file. A flush, as load is."""
        self._do("save", os.fsencode(path))

    def load(self, path):
        self._do("load", os.fsencode(path))

    def _do(self, name, *arguments):
        mb = self.context
        mb.checked(getattr(library, f"mb_params_{name}_at")(mb.site(), self.pointer, *arguments))


class Copies:
    """Variables that hold something for each parameter, which is found by its name."""

    def __init__(self, kind, params, *arguments):
        self.context, self._params, self._kind = params.context, params, kind
        pointer = getattr(library, f"mb_{kind}_new_at")(self.context.site(), params.pointer, *arguments)
        self._pointer = self.context.own(getattr(library, f"mb_{kind}_free"), pointer)

    def __getitem__(self, name):
        names = self._params.names()
        handle = getattr(library, f"mb_{self._kind}_tensor")(self._pointer, names.index(name) if name in names else -1)
        if not handle.ctx:
            raise KeyError(name)
        return Tensor(self.context, handle)

    def _do(self, name, *arguments):
        self.context.pointer  # raises if it is closed
        self.context.checked(getattr(library, f"mb_{self._kind}_{name}_at")(self.context.site(), self._pointer, *arguments))


class Snapshot(Copies):
    """The values of all parameters at one time."""

    def __init__(self, params):
        super().__init__("snapshot", params)

    def take(self):
        """Those of now."""
        self._do("take")

    def restore(self, pattern=""):
        """The parameters that the pattern matches get them back, at the next flush."""
        self._do("restore", pattern.encode())


class Average(Copies):
    """Exponential moving averages of all parameters."""

    def __init__(self, params, decay):
        super().__init__("average", params, decay)

    def update(self):
        """After each step, in its scope."""
        self._do("update")

    def swap(self):
        """Exchanges parameters and averages: to test with the averages."""
        self._do("swap")


class Optimizer:
    """Optimizer("adam", params, lr=1e-3): options are those of mb_adam_options, or of sgd or adamw."""

    def __init__(self, name, params, **options):
        self.context = params.context
        options = filled(STRUCTURES[f"mb_{name}_options"], options)
        pointer = getattr(library, f"mb_{name}_at")(self.context.site(), params.pointer, options)
        self._pointer, self._through = self.context.own(library.mb_optimizer_free, pointer), None

    @property
    def pointer(self):
        self.context.pointer  # raises if it is closed
        return self._pointer

    def step(self, loss):
        """Records gradients of sum(loss), the update and the assignment, for the next flush."""
        self._do("mb_step_at", loss.handle, None)

    def step_norm(self, loss):
        """The same; the norm of the gradients before clipping."""
        norm = TENSOR()
        self._do("mb_step_at", loss.handle, ctypes.byref(norm))
        return Tensor(self.context, norm)

    def apply(self, gradients):
        """A step along gradients that are not of a loss: those of Params.trainable, in that order."""
        self._do("mb_apply_gradients_at", handles_of(gradients), len(gradients), None)

    def accumulate(self, loss):
        """Adds the gradients of sum(loss) to those of the next step."""
        self._do("mb_accumulate_at", loss.handle)

    @property
    def lr(self):
        """Of the next step, schedule included; it is set without the schedule's factor."""
        return library.mb_optimizer_lr(self.pointer)

    @lr.setter
    def lr(self, rate):
        library.mb_optimizer_set_lr(self.pointer, rate)
        self.context.check()

    def steps(self):
        return library.mb_optimizer_steps(self.pointer)

    def skipped(self):
        """How many steps were skipped. A flush."""
        return self._do("mb_optimizer_skipped_at")

    def loss_scale(self):
        """The factor of the next loss. A flush."""
        return self._do("mb_optimizer_loss_scale_at")

    def state(self):
        """Its tensors by name: "optimizer.m.NAME"."""
        return {library.mb_optimizer_state_name(self.pointer, i).decode():
                Tensor(self.context, library.mb_optimizer_state_tensor(self.pointer, i))
                for i in range(library.mb_optimizer_state_count(self.pointer))}

    def through(self, function):
        """In later steps gradients, a list, become what function makes of them, before their norm is taken. None: nothing."""
        def call(_, __, gs, n):
            def replace():
                made = function(handles_at(self.context, ctypes.addressof(gs.contents), n))
                if len(made) != n:
                    raise ValueError(f"{len(made)} gradients were returned, of {n}")
                for i, gradient in enumerate(made):
                    gs[i] = gradient.handle
            return self.context.contained(replace)
        self._through = GRADIENTS(call if function else 0)  # which has to be there as long
        library.mb_optimizer_set_through(self.pointer, self._through, None)

    def save(self, path, metadata=None):
        """Parameters, state and the number of steps as one safetensors file, with a dict of texts. A flush, as load is."""
        self._do("mb_optimizer_save_with_at", os.fsencode(path), pairs_of(metadata))

    def load(self, path):
        self._do("mb_optimizer_load_at", os.fsencode(path))

    def _do(self, name, *arguments):
        return self.context.checked(getattr(library, name)(self.context.site(), self.pointer, *arguments))
