/* SPDX-License-Identifier: MIT
 *
 * custom_op.h - ops of one's own: computed by C of the caller's, and on Vulkan by GLSL of the caller's.
 *
 * An elementwise op is one expression, C and GLSL at once. It takes part in fused kernels as the library's
 * own do:
 *
 *     #include <tgmath.h>              // fabs(x) then has the type of x
 *     MB_ELEMENTWISE_1(softsign, x / (1 + fabs(x)))
 *     ...
 *     mb_custom_op op =
 *         mb_custom_op_new(mb, &(mb_custom_op_spec){.name = "softsign", .elementwise = &softsign});
 *     mb_custom_op_apply(op, &x, NULL, 0, &y);
 *
 * Any other op works on *cores*, the last axes of each operand and result, whose number it says. The axes
 * before are loop axes: those of the operands are broadcast, the results have them, too, and the op is
 * applied at each of their positions (as NumPy's generalized ufuncs are). So it is written for one example,
 * and serves batches, vmaps and threads.
 *
 *     // y[n] = the running maximum of x[n]
 *     static mb_status running(const void *user, const mb_core_data *in, const mb_core_data *out,
 *                              const int64_t *attrs, int nattr)
 *     ...
 *     static const mb_custom_op_spec spec = {
 *         .name = "running_max", .operands = 1, .results = 1, .core_in = {1}, .core_out = {1},
 *         .compute = running, .glsl = "void op() { T top = in0(0); ... set0(i, top); ... }"};
 *
 * Derivatives: an op of one's own has none, and asking for them is the error MB_NO_RULE with the op's line.
 * mb_custom_gradient (autograd/custom.h) gives them, as functions made of ordinary ops, or of this op again.
 * Halves, too, are handed to an op as float32, and its float32 results are then rounded to that half; beside
 * a half no operand is of another float dtype. A shape function sees float32.
 *
 * vmaps, scans and checkpoints go through it; MB_DEBUG asks the C function about what Vulkan has computed.
 *
 * Stability: as in tensor.h. mb_custom_op_spec may grow at its end.
 */
#ifndef MB_CUSTOM_OP_H
#define MB_CUSTOM_OP_H

#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MB_CUSTOM_OPERANDS = 6, MB_CUSTOM_RESULTS = 4, MB_CUSTOM_ATTRS = 8 }; /* at most */

/* ---- elementwise ---- */

/* out[i] = f(x[i], y[i], z[i]) for n elements; y and z only where there are so many operands. Computed in the
 * operands' dtype, float32 or float64 (halves as float32, see below); the reference backend computes both in
 * float64. `out` may be one of the operands. */
typedef struct mb_elementwise {
    int operands; /* 1 to 3 */
    void (*f32)(int64_t n, float *out, const float *x, const float *y, const float *z);
    void (*f64)(int64_t n, double *out, const double *x, const double *y, const double *z);
    /* An expression in x, y and z for Vulkan, with the functions of C that ops.def uses (exp, expm1, fabs,
     * ...); NULL: there is none. A number with a decimal point has float32's precision there: write x / 10,
     * not 0.1 * x. */
    const char *glsl;
} mb_elementwise;

/* static const mb_elementwise name, of an expression in x; in x and y; in x, y and z. */
#define MB_ELEMENTWISE_1(name, ...) MB_ELEMENTWISE_(name, 1, #__VA_ARGS__, __VA_ARGS__)
#define MB_ELEMENTWISE_2(name, ...) MB_ELEMENTWISE_(name, 2, #__VA_ARGS__, __VA_ARGS__)
#define MB_ELEMENTWISE_3(name, ...) MB_ELEMENTWISE_(name, 3, #__VA_ARGS__, __VA_ARGS__)

#define MB_ELEMENTWISE_(name, operands, text, ...)                                                           \
    MB_ELEMENTWISE_LOOP_(name##_f32_, float, operands, __VA_ARGS__)                                          \
    MB_ELEMENTWISE_LOOP_(name##_f64_, double, operands, __VA_ARGS__)                                         \
    static const mb_elementwise name = {operands, name##_f32_, name##_f64_, text};
#define MB_ELEMENTWISE_LOOP_(function, T, operands, ...)                                                     \
    static void function(int64_t mb_n_, T *mb_out_, const T *mb_x_, const T *mb_y_, const T *mb_z_)          \
    {                                                                                                        \
        for (int64_t mb_i_ = 0; mb_i_ < mb_n_; mb_i_++) {                                                    \
            const T x = mb_x_[mb_i_], y = operands > 1 ? mb_y_[mb_i_] : 0,                                   \
                    z = operands > 2 ? mb_z_[mb_i_] : 0;                                                     \
            (void)y;                                                                                         \
            (void)z;                                                                                         \
            mb_out_[mb_i_] = (T)(__VA_ARGS__);                                                               \
        }                                                                                                    \
    }

/* ---- any other ---- */

/* The shape of an operand's or result's core. */
typedef struct mb_core {
    mb_dtype dtype;
    int rank; /* as the spec says */
    int64_t dim[MB_MAX_RANK];
} mb_core;

/* A core's elements at one position of the loop axes: float, double, int32_t, or uint8_t of 0 and 1. */
typedef struct mb_core_data {
    void *at; /* the first */
    mb_dtype dtype;
    int rank;
    const int64_t *dim, *stride; /* strides in elements; those of operands may be 0 or negative */
} mb_core_data;

typedef struct mb_custom_op_spec {
    const char *name; /* an identifier; in messages, dumps and profiles */
    const mb_elementwise
        *elementwise;      /* then nothing but the name is wanted; NULL: the others say what it is */
    int operands, results; /* 1 to MB_CUSTOM_OPERANDS; 1 to MB_CUSTOM_RESULTS */
    int core_in[MB_CUSTOM_OPERANDS], core_out[MB_CUSTOM_RESULTS]; /* how many axes each core has */
    /* Fills in the results' dtype, one for all of them, and the sizes of their cores, whose ranks are there;
     * or writes a reason into `why`, of `capacity` bytes, and returns false: got what, wanted what. The error
     * has the user's line. NULL: each result has the dtype and core of operand 0. */
    bool (*shape)(const void *user, const mb_core *in, const int64_t *attrs, int nattr, mb_core *out,
                  char *why, size_t capacity);
    /* Computes one position, from `in` to all elements of `out`. It must be a function of its arguments
     * alone: a plan may call it once where it was applied twice, or again; not so where it is serial. Several
     * threads call it at once. What is float32 on the tape is float64 here where the reference backend asks.
     * Another result than MB_OK is the error of the flush. */
    mb_status (*compute)(const void *user, const mb_core_data *in, const mb_core_data *out,
                         const int64_t *attrs, int nattr);
    /* GLSL for Vulkan, that defines void op(), and what it needs; NULL: there the op is an error, or see
     * on_host. op() is called at each position. in0(i, j) is an element of operand 0, by as many indices,
     * int, as its core has axes, in0_size(a) a size of its core; set0(i, j, value) writes an element of
     * result 0, out0(i, j) reads it again; and so on with other numbers. T0 is the type of operand 0's
     * elements: float, double, int or bool; T_OUT that of results; T the float type among the operands'.
     * attr(i), int; lane and lanes, uint; the elementary functions of C, for T. It is compiled by
     * glslangValidator, a program that is looked for when a plan first has the op. */
    const char *glsl;
    /* Without GLSL: Vulkan brings operands to the host, calls compute, and brings the results back. The
     * device waits for that, and so it is an error in a scan's body, whose steps a device takes by itself;
     * MB_DISABLE=loops writes them out. */
    bool on_host;
    /* Invocations that share a position, a power of 2 up to 128: they are `lanes` in GLSL, each is a `lane`
     * of them, and barrier(), which all of them must come to, waits for them; `shared` memory is theirs. 0
     * and 1: a position each. */
    int lanes;
    const void *user; /* handed to shape and compute; the memory is the caller's, and outlives the context */
    /* After compute has failed, in the thread of the flush: what was wrong, the end of the error's sentence,
     * valid until the next call of an op of the context; NULL: nothing is known. */
    const char *(*why)(const void *user, const int64_t *attrs, int nattr);
    /* For what has to do with the world outside, such as other processes. serial: such ops are computed in
     * the order in which they were recorded, each of them once in a run of a plan, however equal two are, by
     * the thread of the flush, position after position. early, outside of scans: a plan has the op right
     * after what makes its operands, and not where it was recorded, so that what it begins can go on beside
     * the steps that follow. Neither goes with GLSL. */
    bool serial, early;
} mb_custom_op_spec;

/* An op made known to a context; a value. */
typedef struct mb_custom_op {
    mb_context *ctx;
    uint32_t number; /* from 1 on; 0: there was an error */
} mb_custom_op;

/* Makes the op known, until the context closes. The spec and its texts are copied. The same spec gives the
 * same op again, so it may be called before each use; another one of the same name is an error. */
MB_API mb_custom_op mb_custom_op_new_at(const char *site, mb_context *ctx, const mb_custom_op_spec *spec);
#define mb_custom_op_new(...) mb_custom_op_new_at(MB_HERE, __VA_ARGS__)

/* Records the op on as many tensors as it has operands, and writes as many results; ys may be xs. An
 * elementwise op's operands are broadcast, and of one float dtype. attrs: nattr numbers handed to shape,
 * compute and GLSL, up to MB_CUSTOM_ATTRS; they belong to the structure, so other numbers are another plan:
 * what changes from step to step is better an operand, with a core of no axes. With an error all results are
 * poison. */
MB_API mb_status mb_custom_op_apply_at(const char *site, mb_custom_op op, const mb_tensor *xs,
                                       const int64_t *attrs, int nattr, mb_tensor *ys);
#define mb_custom_op_apply(...) mb_custom_op_apply_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
