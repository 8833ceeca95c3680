/* SPDX-License-Identifier: MIT
 *
 * tensor.h - values and the tape they are recorded on.
 *
 * Recording. Every function here that returns an mb_tensor appends a node to its context's tape and returns
 * at once with a handle; nothing is computed. Shapes, dtypes and arguments are checked at that moment, and a
 * mistake is reported with the file and line of the call.
 *
 * Computing. Values are computed at a flush: mb_eval, mb_read, mb_item, mb_detach, and the end of a scope in
 * which a variable was assigned. The values that a flush was asked for are stored; any other value may have
 * to be computed again when a later flush needs it, with the same result.
 *
 * Errors stick. The first mistake is stored in the context (a status and one sentence) and its result is a
 * poisoned handle; ops on poisoned handles, and all ops until the error is cleared, return poisoned handles,
 * and flushes return the status. So expressions nest without checks:
 *
 *     mb_tensor y = mb_tanh(mb_add(mb_matmul(x, w), b));
 *     float out[640];
 *     if (mb_read(y, out, sizeof out) != MB_OK)
 *         fprintf(stderr, "%s\n", mb_message(mb));     // train.c:41: matmul: inner sizes differ: ...
 *
 * An error undoes its own scope and nothing before it: assignments made in that scope and not yet stored by a
 * flush are undone at its end, and each variable again has the value that it had when the scope began.
 *
 * The library never aborts or exits, and prints only what the environment asks for (MB_LOG, MB_PROFILE,
 * MB_DUMP: backends.h).
 *
 * Ownership. An mb_tensor is a small value, copied freely and never freed: it dies with the scope it was made
 * in. Using it later is an error that says so. Data passed in is copied; data read out is copied to the
 * caller's memory.
 *
 * Threads. A context belongs to the thread that opened it; calls from any other thread are refused (they
 * return MB_THREAD, a null tensor, NULL or 0) and reported to the owner as an error. Calls in a forked
 * process are refused as well, mb_close included: the context still belongs to the parent. Any number of
 * contexts may exist at the same time.
 *
 * Each function whose name ends in _at takes the call site, "file.c:41", as its first argument; the macro
 * without _at supplies it. Bindings from other languages call the _at form. The text must live as long as the
 * context, as a literal does: mb_intern_site copies one that does not.
 *
 * Broadcasting is numpy's: shapes are aligned at the last axis, and an axis of size 1 (or an absent one)
 * repeats. dtypes never convert silently; mb_cast does.
 *
 * C++ (17 or later) calls all of this as C does; cpp.h says what to know.
 *
 * Stability. Until 1.0 a minor version may change what is here; CHANGELOG.md says what changed and what takes
 * its place. Between patch versions source and binary compatibility hold. Enumerators keep their numbers,
 * structs that grow are passed with their size or by pointers that the library makes. Names that begin with
 * mb__ are private.
 */
#ifndef MB_TENSOR_H
#define MB_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* MB_LIT(mb_key){7}: a struct literal in C and in C++. MB_EMPTY(mb_tensor): one of all zeros, here the null
 * tensor. */
#ifdef __cplusplus
extern "C" {
#define MB_LIT(type)   type
#define MB_EMPTY(type) (type())
#else
#define MB_LIT(type)   (type)
#define MB_EMPTY(type) ((type){0})
#endif

#if defined(__GNUC__)
#define MB_API               __attribute__((visibility("default")))
#define MB_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define MB_API
#define MB_PRINTF(fmt, args)
#endif

#define MB_STRING_(x) #x
#define MB_STRING(x)  MB_STRING_(x)
/* The call site, as "file.c:41". */
#define MB_HERE __FILE__ ":" MB_STRING(__LINE__)

#define MB_MAX_RANK 8

/* ---------------------------------------------------------------------------------------------- types -- */

typedef struct mb_context mb_context; /* a tape, a backend and their memory: opened by mb_open (backends.h) */

typedef enum mb_status {
    MB_OK = 0,
    MB_INVALID,   /* a wrong shape, dtype, axis or argument                       */
    MB_STALE,     /* a handle whose scope has ended                               */
    MB_NO_MEMORY, /* an allocation failed                                         */
    MB_BACKEND,   /* an unknown, unusable or lost backend or device               */
    MB_IO,        /* a file that cannot be opened, read or written                */
    MB_FORMAT,    /* a file whose content is not what it should be                */
    MB_THREAD,    /* a call from a thread that does not own the context           */
    MB_NO_RULE,   /* a derivative that no rule exists for                         */
    MB_WRONG,     /* a value or derivative that a check (tests/kit/check.h) found wrong   */
} mb_status;

/* All ops take float32, float64 and the halves: float16 (IEEE's binary16: 2^-24 to 65504, 11 bits) and
 * bfloat16 (float32's upper half: its range, 8 bits). Halves are storage. They are computed with as float32,
 * and a result is rounded, to nearest and of two to the even one, where it is stored: what fuses into one
 * kernel is rounded at its end alone, but for mb_cast to a half, which always rounds. Backends, and plans,
 * may differ by such roundings, each at most 2^-8 of a bfloat16's size, 2^-11 of a float16's; the reference
 * backend rounds after every op. Sums, products of matrices, and what is made of sums (means, norms, softmax,
 * losses) are float32 inside, and rounded once. Numbers beside a half tensor, mb_mul(x, 0.1), are float32.
 * Draws are float32's, rounded: a uniform one may be 1. Derivatives of a half tensor are half; those of what
 * it was cast from are float32. Operands of one op have one dtype: a half is not combined with a float32. A
 * Vulkan device that cannot access 16 bits (storageBuffer16BitAccess, which nearly all can) has no halves;
 * an error says so. Where the cpu backend multiplies pairs of bfloat16 at once (AVX512-BF16), what is
 * smaller than 2^-126 counts as 0 in products of matrices.
 *
 * int32 computes as well; it wraps. int64 and uint8 are data: read, written, moved by every structural op,
 * chosen by mb_where, compared, cast, and indices and labels where int32 is; arithmetic, sums and sorting
 * want mb_cast. The library's own indices are int32. A number given for an int64, as in mb_full, is a double:
 * at most 2^53; data and casts are exact to all 64 bits. */
typedef enum mb_dtype {
    MB_FLOAT32 = 0,
    MB_FLOAT64,
    MB_INT32,
    MB_BOOL,     /* one byte per value in the caller's memory, 0 or 1 */
    MB_FLOAT16,  /* uint16_t in the caller's memory, */
    MB_BFLOAT16, /* as this is: their bits */
    MB_INT64,
    MB_UINT8,
} mb_dtype;

/* A handle to a node on a tape. All zeros is the null tensor; using it is an error, not a crash. */
typedef struct mb_tensor {
    mb_context *ctx;
    uint32_t id, scope;
} mb_tensor;

/* Sizes per axis, outermost first; rank 0 is a single value. A size may be 0. */
typedef struct mb_shape {
    int rank;
    int64_t dim[MB_MAX_RANK];
} mb_shape;

/* MB_SHAPE(64, 784); MB_SHAPE0 is the shape of a single value. (In C++ these lists are in cpp.h.) */
#ifndef __cplusplus
#define MB_COUNT_(type, ...) ((int)(sizeof((type[]){__VA_ARGS__}) / sizeof(type)))
#define MB_SHAPE(...)                                                                                        \
    MB_LIT(mb_shape)                                                                                         \
    {                                                                                                        \
        MB_COUNT_(int64_t, __VA_ARGS__),                                                                     \
        {                                                                                                    \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }
#endif
#define MB_SHAPE0                                                                                            \
    MB_LIT(mb_shape)                                                                                         \
    {                                                                                                        \
        0,                                                                                                   \
        {                                                                                                    \
            0                                                                                                \
        }                                                                                                    \
    }

/* Axes to reduce over, each once; negative ones count from the last. MB_KEEP leaves them in the result with
 * size 1. */
typedef struct mb_axes {
    int count; /* -1: every axis */
    bool keep;
    int axis[MB_MAX_RANK];
} mb_axes;

#ifndef __cplusplus
#define MB_AXES(...)                                                                                         \
    MB_LIT(mb_axes)                                                                                          \
    {                                                                                                        \
        MB_COUNT_(int, __VA_ARGS__), false,                                                                  \
        {                                                                                                    \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }
#define MB_KEEP(...)                                                                                         \
    MB_LIT(mb_axes)                                                                                          \
    {                                                                                                        \
        MB_COUNT_(int, __VA_ARGS__), true,                                                                   \
        {                                                                                                    \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }
#endif
#define MB_ALL                                                                                               \
    MB_LIT(mb_axes)                                                                                          \
    {                                                                                                        \
        -1, false,                                                                                           \
        {                                                                                                    \
            0                                                                                                \
        }                                                                                                    \
    }
#define MB_ALL_KEEP                                                                                          \
    MB_LIT(mb_axes)                                                                                          \
    {                                                                                                        \
        -1, true,                                                                                            \
        {                                                                                                    \
            0                                                                                                \
        }                                                                                                    \
    }

/* All memory of a context is allocated by these. alloc returns memory aligned for any type, or NULL; the
 * sizes passed to free and realloc are those that were asked for. Called only from the context's thread. */
typedef struct mb_allocator {
    void *(*alloc)(void *user, size_t size);
    void *(*realloc)(void *user, void *p, size_t old_size, size_t size);
    void (*free)(void *user, void *p, size_t size);
    void *user;
} mb_allocator;

/* ----------------------------------------------------------------------------------- errors and queries --
 */

/* The first error since the context was opened or cleared, or MB_OK. From another thread: MB_THREAD. */
MB_API mb_status mb_error(const mb_context *ctx);
/* The error's sentence, "" without an error. Valid as long as the context. For NULL: "no context: out of
 * memory". */
MB_API const char *mb_message(const mb_context *ctx);
/* Forgets the error, so that recording can go on; poisoned handles stay poisoned. */
MB_API void mb_clear_error(mb_context *ctx);
/* Reports an error of the caller's own, as the library would: for user-written layers. */
MB_API mb_status mb_fail_at(const char *site, mb_context *ctx, mb_status status, const char *format, ...)
    MB_PRINTF(4, 5);
#define mb_fail(...) mb_fail_at(MB_HERE, __VA_ARGS__)
MB_API const char *mb_status_name(mb_status status);
/* "0.1.0": the library's version at run time; MB_VERSION_MAJOR and so on in moebius.h are the headers'. */
MB_API const char *mb_version(void);

/* A call site that stands for all calls inside a function, so that mistakes inside a layer are reported at
 * the line that applied it: MB_SITE(x.ctx, site) as the function's first statement, in force until the end of
 * the block. Of nested ones the outermost is in force. ctx may be NULL. */
typedef struct mb_site {
    mb_context *ctx;
    const char *outer;
} mb_site;
MB_API mb_site mb_site_begin(mb_context *ctx, const char *site);
MB_API void mb_site_end(const mb_site *site);
#if defined(__GNUC__) && !defined(__cplusplus)
#define MB_SITE(ctx, site)                                                                                   \
    const mb_site mb_site_here_ __attribute__((cleanup(mb_site_end), unused)) = mb_site_begin(ctx, site)
#endif

/* A copy of the text that lives as long as the context, one for equal texts: for sites that are made at run
 * time. NULL if there is no memory. */
MB_API const char *mb_intern_site(mb_context *ctx, const char *site);

MB_API bool mb_valid(mb_tensor t);        /* not stale and not poisoned                          */
MB_API mb_shape mb_shape_of(mb_tensor t); /* rank 0 for a stale or poisoned handle         */
MB_API int64_t mb_dim(mb_tensor t,
                      int axis);      /* a negative axis counts from the last; 0 where there is none */
MB_API int64_t mb_count(mb_tensor t); /* number of elements                            */
MB_API mb_dtype mb_dtype_of(mb_tensor t);
MB_API const char *mb_dtype_name(mb_dtype dtype);
MB_API size_t mb_dtype_size(mb_dtype dtype); /* bytes per value in the caller's memory */

/* ---------------------------------------------------------------------------------------------- scopes -- */

typedef struct mb_scope {
    mb_context *ctx;
    uint32_t serial;
} mb_scope;

/* Everything recorded between begin and end becomes stale at the end, except what mb_keep and mb_detach moved
 * out. One scope per training step keeps the tape from growing. If variables were assigned inside, the end is
 * a flush and returns its status. After an error nothing is flushed, and what was assigned inside is undone.
 * Scopes nest, and end in reverse order. */
MB_API mb_scope mb_scope_begin_at(const char *site, mb_context *ctx);
MB_API mb_status mb_scope_end_at(const char *site, mb_scope scope);
#define mb_scope_begin(...) mb_scope_begin_at(MB_HERE, __VA_ARGS__)
#define mb_scope_end(...)   mb_scope_end_at(MB_HERE, __VA_ARGS__)

/* Makes t outlive the innermost scope, with everything it was computed from: it can still be differentiated.
 * The tape keeps its length up to t until the outer scope ends. */
MB_API mb_tensor mb_keep_at(const char *site, mb_tensor t);
#define mb_keep(...) mb_keep_at(MB_HERE, __VA_ARGS__)
/* Computes t now and returns its value, without history, in the scope around the innermost one. A flush. The
 * value lives until that scope ends: in a loop whose steps are outermost scopes, until the context is closed,
 * so that each step leaves one value behind (the log warns of it). For what is carried from step to step a
 * variable is better: mb_assign gives it the new value, the end of the step's scope stores it, and nothing is
 * left behind. */
MB_API mb_tensor mb_detach_at(const char *site, mb_tensor t);
#define mb_detach(...) mb_detach_at(MB_HERE, __VA_ARGS__)

/* ---------------------------------------------------------------------------------------------- leaves -- */

/* A number that may change from step to step without a new plan: a learning rate, a step count. 0-d. */
MB_API mb_tensor mb_scalar_at(const char *site, mb_context *ctx, mb_dtype dtype, double value);
#define mb_scalar(...) mb_scalar_at(MB_HERE, __VA_ARGS__)
/* A literal, repeated: the plan knows its value and simplifies with it. A product with a literal 0 is 0. */
MB_API mb_tensor mb_full_at(const char *site, mb_context *ctx, mb_dtype dtype, mb_shape shape, double value);
#define mb_full(...)                mb_full_at(MB_HERE, __VA_ARGS__)
#define mb_zeros(ctx, dtype, shape) mb_full(ctx, dtype, shape, 0.0)
#define mb_ones(ctx, dtype, shape)  mb_full(ctx, dtype, shape, 1.0)
/* Copies `data` (row-major, mb_dtype_size each) to the backend. */
MB_API mb_tensor mb_from_at(const char *site, mb_context *ctx, mb_dtype dtype, mb_shape shape,
                            const void *data);
#define mb_from(...) mb_from_at(MB_HERE, __VA_ARGS__)
/* The same; `bytes`, the size of data, must be that of the shape and dtype, so nothing is read past the end.
 */
MB_API mb_tensor mb_from_bytes_at(const char *site, mb_context *ctx, mb_dtype dtype, mb_shape shape,
                                  const void *data, size_t bytes);
#define mb_from_bytes(...) mb_from_bytes_at(MB_HERE, __VA_ARGS__)
/* [n]: 0, 1, ..., n - 1. Neither bool nor uint8. */
MB_API mb_tensor mb_iota_at(const char *site, mb_context *ctx, mb_dtype dtype, int64_t n);
#define mb_iota(...) mb_iota_at(MB_HERE, __VA_ARGS__)
/* [rows, columns] bool: true where column - row <= diagonal (0: the lower triangle with its diagonal). */
MB_API mb_tensor mb_tril_mask_at(const char *site, mb_context *ctx, int64_t rows, int64_t columns,
                                 int64_t diagonal);
#define mb_tril_mask(...) mb_tril_mask_at(MB_HERE, __VA_ARGS__)
/* [n, n] identity matrix. */
MB_API mb_tensor mb_eye_at(const char *site, mb_context *ctx, mb_dtype dtype, int64_t n);
#define mb_eye(...) mb_eye_at(MB_HERE, __VA_ARGS__)

/* Storage that outlives steps: a parameter, an optimiser's state. It must be created outside of every scope,
 * and begins as zeros. In an expression it stands for its value at that point of the recording: ops recorded
 * before an mb_assign use the old value, even when they are computed later. */
MB_API mb_tensor mb_variable_at(const char *site, mb_context *ctx, mb_dtype dtype, mb_shape shape);
#define mb_variable(...) mb_variable_at(MB_HERE, __VA_ARGS__)
/* Gives the variable a new value of its own shape and dtype, stored at the next flush. Until then the
 * variable stands for `value` itself, with its history: derivatives through several recorded steps are
 * possible. */
MB_API mb_status mb_assign_at(const char *site, mb_tensor variable, mb_tensor value);
#define mb_assign(...) mb_assign_at(MB_HERE, __VA_ARGS__)

/* ------------------------------------------------------------------------------------- random numbers -- */

/* Draws are functions of a key and the element's position alone: the same key gives the same numbers on every
 * backend, in every plan, recomputed or not. Philox4x32-10 (Salmon et al. 2011); the counter of element i is
 * i / 4 (i / 2 for float64). A key is bound at run time: another key needs no new plan. */
typedef struct mb_key {
    uint64_t bits;
} mb_key;

MB_API mb_key mb_key_of(uint64_t seed);
/* A key derived from this one, independent of it and of those for other n. */
MB_API mb_key mb_key_fold(mb_key key, uint64_t n);
/* float: uniform on [0, 1), multiples of 2^-24 (2^-53); of halves these, rounded. int32: uniform on [0,
 * 2^31). */
MB_API mb_tensor mb_uniform_at(const char *site, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape);
#define mb_uniform(...) mb_uniform_at(MB_HERE, __VA_ARGS__)
/* Mean 0, variance 1, by Box and Muller from two uniforms. */
MB_API mb_tensor mb_normal_at(const char *site, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape);
#define mb_normal(...) mb_normal_at(MB_HERE, __VA_ARGS__)
/* Rate 1 (mean 1, variance 1): -log(1 - u), at most 16.7 (36.8 in float64). */
MB_API mb_tensor mb_exponential_at(const char *site, mb_context *ctx, mb_key key, mb_dtype dtype,
                                   mb_shape shape);
#define mb_exponential(...) mb_exponential_at(MB_HERE, __VA_ARGS__)
/* Density e^-|x| / 2 (mean 0, variance 2): an exponential draw with a random sign. */
MB_API mb_tensor mb_laplace_at(const char *site, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape);
#define mb_laplace(...) mb_laplace_at(MB_HERE, __VA_ARGS__)
/* Gamma with shape parameter k > 0 and scale theta > 0 (mean k theta, variance k theta^2), for any k: one
 * plan for each k; theta is bound at run time. The rejection method of Marsaglia and Tsang (2000) with a
 * fixed number of candidates, 6 in float32 and 13 in float64, of which the first accepted one is taken: every
 * candidate is a function of key and position. If all are rejected, the last one is taken. A candidate is
 * rejected with a probability below 0.0484, so this happens to fewer than 1 draw in 7e7 (1e17): less often
 * than two uniform draws are equal. For k < 1, Gamma(k + 1) u^(1/k) (from the same paper), which underflows
 * to 0 where the distribution does: of Gamma(0.1), 3 draws in 10^5 in float32. Acceptance compares rounded
 * numbers: backends whose logarithms round differently take different candidates about once in 10^7 (10^16)
 * draws, and agree to rounding otherwise. */
MB_API mb_tensor mb_gamma_at(const char *site, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape,
                             double k, double theta);
#define mb_gamma(...) mb_gamma_at(MB_HERE, __VA_ARGS__)
/* Uniform on the unit sphere along the last axis, of size d >= 1: rows of [..., d] have length 1. */
MB_API mb_tensor mb_sphere_at(const char *site, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape);
#define mb_sphere(...) mb_sphere_at(MB_HERE, __VA_ARGS__)
/* [..., n, n]: orthogonal matrices under Haar's measure, one for each leading index, by n - 1 Householder
 * reflections of normal vectors (Stewart 1980, with the signs of Mezzadri math-ph/0609050): what QR of a
 * normal matrix gives if R's diagonal is made positive. Q^T Q differs from the identity by a few n ulp.
 * Records about 6 n nodes.
 */
MB_API mb_tensor mb_orthogonal_at(const char *site, mb_context *ctx, mb_key key, mb_dtype dtype,
                                  mb_shape shape);
#define mb_orthogonal(...) mb_orthogonal_at(MB_HERE, __VA_ARGS__)
/* int32 of the given shape: along the last axis, of size n, a random order of 0..n-1, one for each row. */
MB_API mb_tensor mb_permutation_at(const char *site, mb_context *ctx, mb_key key, mb_shape shape);
#define mb_permutation(...) mb_permutation_at(MB_HERE, __VA_ARGS__)

/* ----------------------------------------------------------------------------------------- elementwise -- */

/* Unary and binary ops, comparisons and logic are listed in ops.h, which is made from ops.def. The other
 * operand of a binary op may be a plain number: mb_mul(x, 0.5). Such a number is bound at run time, as by
 * mb_scalar. Below are functions made of them. */

/* 2^x, exact where x is an integer; the logarithms to base 2 and 10, natural ones times a literal. Floats. */
MB_API mb_tensor mb_exp2_at(const char *site, mb_tensor x);
#define mb_exp2(...) mb_exp2_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_log2_at(const char *site, mb_tensor x);
#define mb_log2(...) mb_log2_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_log10_at(const char *site, mb_tensor x);
#define mb_log10(...) mb_log10_at(MB_HERE, __VA_ARGS__)
/* low where x < low, high where x > high, x elsewhere: the derivative is 1 there, at low and high too, and 0
 * beyond. Both are bound at run time; of low > high the result is high where x > high, else low. NaN stays
 * NaN. Numbers. */
MB_API mb_tensor mb_clamp_at(const char *site, mb_tensor x, double low, double high);
#define mb_clamp(...) mb_clamp_at(MB_HERE, __VA_ARGS__)
/* -> bool: whether x is NaN, infinite, neither. Floats. */
MB_API mb_tensor mb_isnan_at(const char *site, mb_tensor x);
#define mb_isnan(...) mb_isnan_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_isinf_at(const char *site, mb_tensor x);
#define mb_isinf(...) mb_isinf_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_isfinite_at(const char *site, mb_tensor x);
#define mb_isfinite(...) mb_isfinite_at(MB_HERE, __VA_ARGS__)

/* a where condition (bool) holds, b elsewhere; all three broadcast. The branch not taken gets no derivative,
 * but guard its input where its value could be NaN: where(x > 0, log(where(x > 0, x, 1)), 0). */
MB_API mb_tensor mb_where_at(const char *site, mb_tensor condition, mb_tensor a, mb_tensor b);
#define mb_where(...) mb_where_at(MB_HERE, __VA_ARGS__)
/* To integers: towards zero, and the nearest value there is (300 to uint8: 255); of NaN, and of floats beyond
 * int32 to int32, unspecified. To bool: x != 0. To floats: the nearest, rounded once; beyond the largest,
 * infinity. Differentiable between floats: cotangents are cast back. */
MB_API mb_tensor mb_cast_at(const char *site, mb_tensor x, mb_dtype dtype);
#define mb_cast(...) mb_cast_at(MB_HERE, __VA_ARGS__)

/* -------------------------------------------------------------------------------------------- movement -- */

/* The same elements in row-major order. One size may be -1: the one that fits. */
MB_API mb_tensor mb_reshape_at(const char *site, mb_tensor x, mb_shape shape);
#define mb_reshape(...) mb_reshape_at(MB_HERE, __VA_ARGS__)
/* Axis i of the result is axis order[i] of x: mb_permute(x, MB_AXES(0, 2, 1)). */
MB_API mb_tensor mb_permute_at(const char *site, mb_tensor x, mb_axes order);
#define mb_permute(...) mb_permute_at(MB_HERE, __VA_ARGS__)
/* The last two axes swapped. */
MB_API mb_tensor mb_transpose_at(const char *site, mb_tensor x);
#define mb_transpose(...) mb_transpose_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_broadcast_at(const char *site, mb_tensor x, mb_shape shape);
#define mb_broadcast(...) mb_broadcast_at(MB_HERE, __VA_ARGS__)
/* Elements start, start + step, ... of an axis, `count` of them; step may be negative, not 0. */
MB_API mb_tensor mb_slice_at(const char *site, mb_tensor x, int axis, int64_t start, int64_t count,
                             int64_t step);
#define mb_slice(...) mb_slice_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_flip_at(const char *site, mb_tensor x, int axis);
#define mb_flip(...) mb_flip_at(MB_HERE, __VA_ARGS__)
/* `before` zeros in front of an axis and `after` behind it. */
MB_API mb_tensor mb_pad_at(const char *site, mb_tensor x, int axis, int64_t before, int64_t after);
#define mb_pad(...) mb_pad_at(MB_HERE, __VA_ARGS__)
/* n tensors of one dtype and of the same sizes except on `axis`, joined along it. For n < 1 there is no
 * context to report the error to: the result is the null tensor, here and of mb_stack. */
MB_API mb_tensor mb_concat_at(const char *site, const mb_tensor *xs, int n, int axis);
#define mb_concat(...) mb_concat_at(MB_HERE, __VA_ARGS__)
/* n tensors of one shape along a new axis. */
MB_API mb_tensor mb_stack_at(const char *site, const mb_tensor *xs, int n, int axis);
#define mb_stack(...) mb_stack_at(MB_HERE, __VA_ARGS__)
/* Parts of x along `axis`, end to end: part i has sizes[i] entries, which add up to those of x. After an
 * error all parts are poison, here and of mb_unstack. */
MB_API mb_status mb_split_at(const char *site, mb_tensor x, const int64_t *sizes, mb_tensor *parts, int n,
                             int axis);
#define mb_split(...) mb_split_at(MB_HERE, __VA_ARGS__)
/* The n entries of `axis`, of size n, which is removed: mb_stack's inverse. */
MB_API mb_status mb_unstack_at(const char *site, mb_tensor x, mb_tensor *parts, int n, int axis);
#define mb_unstack(...) mb_unstack_at(MB_HERE, __VA_ARGS__)
/* A new axis of size 1, at position `axis` of the result; an axis of size 1 removed. */
MB_API mb_tensor mb_unsqueeze_at(const char *site, mb_tensor x, int axis);
#define mb_unsqueeze(...) mb_unsqueeze_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_squeeze_at(const char *site, mb_tensor x, int axis);
#define mb_squeeze(...) mb_squeeze_at(MB_HERE, __VA_ARGS__)

/* ------------------------------------------------------------------------------------------ reductions -- */

/* Over no elements: sum 0, mean NaN, max -infinity, prod 1. bool is summed as int32.
 *
 * How exact. On the library's backends a float32 sum of any number of terms, alone or fused with what is
 * before and after it, is off by at most 2^-18 of what the sizes of its terms come to; so are means, norms
 * and whatever else is made of sums; running sums by 2^-20. A product of matrices, and an einsum, adds in
 * float32 what is summed: K terms by at most (K + 8) 2^-24 of their sizes, where rounding goes one way all
 * along, and seldom by more than the root of that. Sums of many terms are made of parts, on vulkan of fewer
 * than 4096 terms as long as all parts take 64 MiB: 10^6 equal terms are off by some 400 2^-24 on cpu, 120 on
 * vulkan. Of float64 all of these add n terms to n 2^-53. The reference backend adds in float64. */
MB_API mb_tensor mb_sum_at(const char *site, mb_tensor x, mb_axes axes);
#define mb_sum(...) mb_sum_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_mean_at(const char *site, mb_tensor x, mb_axes axes); /* floats */
#define mb_mean(...) mb_mean_at(MB_HERE, __VA_ARGS__)
/* Biased variance, mean((x - mean(x))^2). Floats. Squares are plain: of values that are further than 1e19
 * from their mean it is infinite in float32, and layer_normalize gives 0 for such a row. To scale a row first
 * would be another pass over it, in what every layer of a network does; mb_norm, whose operand may be
 * anything, has it.
 */
MB_API mb_tensor mb_variance_at(const char *site, mb_tensor x, mb_axes axes);
#define mb_variance(...) mb_variance_at(MB_HERE, __VA_ARGS__)
/* sqrt(sum(x^2)), computed so that no square overflows or underflows; 0 over no elements. Where all elements
 * are 0, the derivatives of every order are 0. Floats. */
MB_API mb_tensor mb_norm_at(const char *site, mb_tensor x, mb_axes axes);
#define mb_norm(...) mb_norm_at(MB_HERE, __VA_ARGS__)
/* By halves: as many products as elements, one after the other only log2 of that. The derivatives of every
 * order are right where elements are 0. bool counts as int32, which wraps. */
MB_API mb_tensor mb_prod_at(const char *site, mb_tensor x, mb_axes axes);
#define mb_prod(...) mb_prod_at(MB_HERE, __VA_ARGS__)
/* -> bool: whether some element, or every one, is not 0. NaN is not. Over no elements: false, true. Any
 * dtype. */
MB_API mb_tensor mb_any_at(const char *site, mb_tensor x, mb_axes axes);
#define mb_any(...) mb_any_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_all_at(const char *site, mb_tensor x, mb_axes axes);
#define mb_all(...) mb_all_at(MB_HERE, __VA_ARGS__)
/* NaN if any element is NaN; the derivatives are then NaN as well. Equal largest elements share the
 * derivative equally. */
MB_API mb_tensor mb_max_at(const char *site, mb_tensor x, mb_axes axes);
#define mb_max(...) mb_max_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_min_at(const char *site, mb_tensor x, mb_axes axes);
#define mb_min(...) mb_min_at(MB_HERE, __VA_ARGS__)
/* int32 position of the first largest, or smallest, along an axis, which is removed. NaN counts as largest,
 * and to mb_argmin as smallest. No derivative. From 1 to 2147483647 entries along the axis. */
MB_API mb_tensor mb_argmax_at(const char *site, mb_tensor x, int axis);
#define mb_argmax(...) mb_argmax_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_argmin_at(const char *site, mb_tensor x, int axis);
#define mb_argmin(...) mb_argmin_at(MB_HERE, __VA_ARGS__)
/* Running sum along an axis, from its end if `reverse`. */
MB_API mb_tensor mb_cumsum_at(const char *site, mb_tensor x, int axis, bool reverse);
#define mb_cumsum(...) mb_cumsum_at(MB_HERE, __VA_ARGS__)
/* Running product, in log2 n rounds over the n entries of the axis; derivatives as mb_prod's. */
MB_API mb_tensor mb_cumprod_at(const char *site, mb_tensor x, int axis, bool reverse);
#define mb_cumprod(...) mb_cumprod_at(MB_HERE, __VA_ARGS__)
/* Running maximum and minimum; NaN from the first NaN on. The last of equal elements so far has the
 * derivative; that of a NaN is NaN. At most 2147483647 elements where there are derivatives. */
MB_API mb_tensor mb_cummax_at(const char *site, mb_tensor x, int axis, bool reverse);
#define mb_cummax(...) mb_cummax_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_cummin_at(const char *site, mb_tensor x, int axis, bool reverse);
#define mb_cummin(...) mb_cummin_at(MB_HERE, __VA_ARGS__)
/* log(sum(exp(x))) without overflow; -infinity over no elements, or over -infinity alone, where the
 * derivatives are 0. Floats. */
MB_API mb_tensor mb_logsumexp_at(const char *site, mb_tensor x, mb_axes axes);
#define mb_logsumexp(...) mb_logsumexp_at(MB_HERE, __VA_ARGS__)

/* ---------------------------------------------------------------------------------------- contractions -- */

/* a: [..., M, K], b: [..., K, N] -> [..., M, N]; the leading axes broadcast. Both of rank 2 or more. Floats.
 */
MB_API mb_tensor mb_matmul_at(const char *site, mb_tensor a, mb_tensor b);
#define mb_matmul(...) mb_matmul_at(MB_HERE, __VA_ARGS__)
/* Einstein summation over two operands: "bnd,hde->bhne". Each letter is an axis; letters missing from the
 * result are summed. A letter twice in one operand is its diagonal. "..." stands for the axes without
 * letters, which broadcast, and are summed where the result has no "...". Without "->" the result has "...",
 * then the letters that stand once, A to Z before a to z. Floats. */
MB_API mb_tensor mb_einsum_at(const char *site, const char *equation, mb_tensor a, mb_tensor b);
#define mb_einsum(...) mb_einsum_at(MB_HERE, __VA_ARGS__)
/* Over n >= 1 operands, from the first to the last: "ii->i" of one is its diagonal. What is in between has at
 * most 8 axes. For n < 1 the result is the null tensor, as mb_concat's. */
MB_API mb_tensor mb_einsum_of_at(const char *site, const char *equation, const mb_tensor *xs, int n);
#define mb_einsum_of(...) mb_einsum_of_at(MB_HERE, __VA_ARGS__)

/* -------------------------------------------------------------------------------------------- indexing -- */

/* index: int32, int64 or uint8, of any shape, entries in [0, size of the axis); others are clamped to that
 * range, and are an error under MB_DEBUG (backends.h), here and in mb_scatter_add. -> x's shape with `axis`
 * replaced by index's shape. */
MB_API mb_tensor mb_take_at(const char *site, mb_tensor x, mb_tensor index, int axis);
#define mb_take(...) mb_take_at(MB_HERE, __VA_ARGS__)
/* The adjoint of mb_take: adds updates (shaped like its result) into an axis of `size` zeros. Entries are
 * added in order, so the result does not depend on timing. */
MB_API mb_tensor mb_scatter_add_at(const char *site, mb_tensor updates, mb_tensor index, int axis,
                                   int64_t size);
#define mb_scatter_add(...) mb_scatter_add_at(MB_HERE, __VA_ARGS__)
/* index: as mb_take's, of x's shape except on the last axis: result[..., j] = x[..., index[..., j]]; out of
 * range: clamped. */
MB_API mb_tensor mb_take_along_at(const char *site, mb_tensor x, mb_tensor index);
#define mb_take_along(...) mb_take_along_at(MB_HERE, __VA_ARGS__)
/* index: as mb_take's, of x's rank, and no larger than x off `axis`: the result has its shape, and at
 * [i][j][k] for axis 1, x[i][index[i][j][k]][k]; out of range: clamped. Here and in the two below at most
 * 2147483647 elements each. */
MB_API mb_tensor mb_gather_at(const char *site, mb_tensor x, mb_tensor index, int axis);
#define mb_gather(...) mb_gather_at(MB_HERE, __VA_ARGS__)
/* x with updates, of index's shape and x's dtype, in the places that mb_gather reads: in place of what is
 * there, or added to it (numbers). Of several updates for a place the last one, in row-major order, is the
 * one that is there, and has the derivative. mb_scatter sorts the indices. */
MB_API mb_tensor mb_scatter_at(const char *site, mb_tensor x, mb_tensor index, mb_tensor updates, int axis);
#define mb_scatter(...) mb_scatter_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_scatter_add_along_at(const char *site, mb_tensor x, mb_tensor index, mb_tensor updates,
                                         int axis);
#define mb_scatter_add_along(...) mb_scatter_add_along_at(MB_HERE, __VA_ARGS__)
/* int32 indices that sort the last axis, ascending, equal entries in their order, NaN last. No derivative. */
MB_API mb_tensor mb_argsort_at(const char *site, mb_tensor x);
#define mb_argsort(...) mb_argsort_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_sort_at(const char *site, mb_tensor x); /* last axis, ascending */
#define mb_sort(...) mb_sort_at(MB_HERE, __VA_ARGS__)
/* The k largest entries of `axis`, the largest first, or the k smallest, the smallest first; of equal ones
 * the first in x. NaN counts as largest. *index, unless NULL: int32, where they are, which has no derivative.
 */
MB_API mb_tensor mb_topk_at(const char *site, mb_tensor x, int64_t k, int axis, bool largest,
                            mb_tensor *index);
#define mb_topk(...) mb_topk_at(MB_HERE, __VA_ARGS__)
/* Along an axis, which is removed, and has entries: where a part q of the sorted entries lies below, between
 * two of them in proportion, 0 <= q <= 1 (numpy's "linear"). NaN if any is NaN. Floats. */
MB_API mb_tensor mb_quantile_at(const char *site, mb_tensor x, double q, int axis);
#define mb_quantile(...) mb_quantile_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_median_at(const char *site, mb_tensor x, int axis); /* mb_quantile with q = 1/2 */
#define mb_median(...) mb_median_at(MB_HERE, __VA_ARGS__)
/* index: as mb_take's. bool [..., classes]: true at the index; a row whose index is out of range is all
 * false. */
MB_API mb_tensor mb_one_hot_at(const char *site, mb_tensor index, int64_t classes);
#define mb_one_hot(...) mb_one_hot_at(MB_HERE, __VA_ARGS__)

/* ------------------------------------------------------------------------------------------- structure -- */

/* The same value as another node, so that derivatives can tell two uses of it apart. */
MB_API mb_tensor mb_alias_at(const char *site, mb_tensor x);
#define mb_alias(...) mb_alias_at(MB_HERE, __VA_ARGS__)
/* The same value, a constant to every derivative. */
MB_API mb_tensor mb_stop_gradient_at(const char *site, mb_tensor x);
#define mb_stop_gradient(...) mb_stop_gradient_at(MB_HERE, __VA_ARGS__)

/* ------------------------------------------------------------------------------------ common functions -- */

/* All take floats, are recorded as the ops above and differentiable to any order. At infinity, and where
 * powers of x overflow, those of one argument take their limits, and so do their derivatives. */
MB_API mb_tensor mb_square_at(const char *site, mb_tensor x);
#define mb_square(...) mb_square_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_relu_at(const char *site, mb_tensor x); /* the derivative at 0 is 0 */
#define mb_relu(...) mb_relu_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_silu_at(const char *site, mb_tensor x); /* x sigmoid(x) */
#define mb_silu(...) mb_silu_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_softplus_at(const char *site, mb_tensor x); /* log(1 + e^x), without overflow */
#define mb_softplus(...) mb_softplus_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_elu_at(const char *site, mb_tensor x); /* x where x > 0, e^x - 1 elsewhere */
#define mb_elu(...) mb_elu_at(MB_HERE, __VA_ARGS__)
/* Hendrycks and Gimpel (1606.08415): the tanh form, x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))); and the
 * exact one, x/2 (1 + erf(x / sqrt 2)). */
MB_API mb_tensor mb_gelu_at(const char *site, mb_tensor x);
#define mb_gelu(...) mb_gelu_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_gelu_erf_at(const char *site, mb_tensor x);
#define mb_gelu_erf(...) mb_gelu_erf_at(MB_HERE, __VA_ARGS__)
/* Over one axis; the largest entry is subtracted first. An entry of +infinity takes all of its row's weight,
 * several such entries share it, and derivatives with respect to them are 0, here and in mb_logsumexp. A row
 * of -infinity alone gives NaN. */
MB_API mb_tensor mb_softmax_at(const char *site, mb_tensor x, int axis);
#define mb_softmax(...) mb_softmax_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_log_softmax_at(const char *site, mb_tensor x, int axis);
#define mb_log_softmax(...) mb_log_softmax_at(MB_HERE, __VA_ARGS__)
/* logits: [..., C], labels: [...] of int32, int64 or uint8 -> 0-d: mean over all rows of -log
 * softmax(logits)[label], the natural logarithm; 0 over no rows. A label outside [0, C) makes its row's loss
 * and derivatives NaN, and is an error under MB_DEBUG. */
MB_API mb_tensor mb_cross_entropy_at(const char *site, mb_tensor logits, mb_tensor labels);
#define mb_cross_entropy(...) mb_cross_entropy_at(MB_HERE, __VA_ARGS__)

typedef struct mb_cross_entropy_options {
    bool ignore; /* rows labelled `ignored`, which may be any number, are left out */
    int32_t ignored;
    mb_tensor weights; /* [C], of the logits' dtype: a weight w_c for each class; null tensor: 1 each */
    double smoothing;  /* s in [0, 1]: the target of class c is (1 - s) [c = label] + s / C */
    bool each_row;     /* the loss of each row, [...], 0 where it is ignored, in place of their mean */
} mb_cross_entropy_options;

/* A row's loss is sum_c w_c target_c (-log softmax(logits)[c]). The mean is the sum of the losses divided by
 * the sum of w_label, both over the rows that are not ignored, or by 1 where that sum is 0. With all options
 * 0 it is mb_cross_entropy.
 */
MB_API mb_tensor mb_cross_entropy_with_at(const char *site, mb_tensor logits, mb_tensor labels,
                                          mb_cross_entropy_options options);
#define mb_cross_entropy_with(...) mb_cross_entropy_with_at(MB_HERE, __VA_ARGS__)
/* 0-d: sum(a b) over all elements; a and b of one shape. */
MB_API mb_tensor mb_dot_at(const char *site, mb_tensor a, mb_tensor b);
#define mb_dot(...) mb_dot_at(MB_HERE, __VA_ARGS__)

/* ------------------------------------------------------------------------------------------- computing -- */

/* Computes the n tensors, and stores pending assignments. n = 0 does nothing and is MB_OK. */
MB_API mb_status mb_eval_at(const char *site, const mb_tensor *ts, int n);
#define mb_eval(...) mb_eval_at(MB_HERE, __VA_ARGS__)
/* Computes t and copies it, row-major, to dst, of exactly `bytes` = mb_count * mb_dtype_size bytes. After an
 * error floats in dst are NaN, and other dtypes are left as they were. */
MB_API mb_status mb_read_at(const char *site, mb_tensor t, void *dst, size_t bytes);
#define mb_read(...) mb_read_at(MB_HERE, __VA_ARGS__)
/* The single element of t as a double; NaN after an error. */
MB_API double mb_item_at(const char *site, mb_tensor t);
#define mb_item(...) mb_item_at(MB_HERE, __VA_ARGS__)
/* Has t computed by the next flush and copied to dst (bytes as for mb_read) at its end, without forcing one:
 * for curves that are plotted once per step. dst must stay valid until then, or until the end of the scope in
 * which mb_watch was called, which cancels the watch, whatever scope t is of. A flush that fails ends a watch
 * as well, and leaves NaN in floats; mb_clear_error cancels what is left. */
MB_API mb_status mb_watch_at(const char *site, mb_tensor t, void *dst, size_t bytes);
#define mb_watch(...) mb_watch_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
#include "tensor/cpp.h"
#endif
#include "tensor/ops.h" /* made at build time by tensor/genops.py from tensor/ops.def */

#endif
