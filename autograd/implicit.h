/* SPDX-License-Identifier: MIT
 *
 * implicit.h - tensors that solve an equation: fixed points, roots, minima; and their derivatives, by the
 * implicit function theorem.
 *
 *     static mb_status cell(const void *user, mb_context *mb, const mb_map_at *at, mb_tensor *out)
 *     {
 *         out[0] = mb_tanh(mb_add(mb_matmul(at->xs[0], at->params[0]), at->params[1]));
 *         return mb_error(mb);
 *     }
 *     ...
 *     const mb_tensor params[2] = {W, input};
 *     mb_convergence told;
 *     mb_fixed_point(MB_LIT(mb_map){cell}, &x0, 1, params, 2, MB_EMPTY(mb_implicit_options), &x, &told);
 *     mb_grad(loss(x), &W, 1, &dW);        // one linear system, whatever it took to find x
 *
 * The solution is found by a loop that ends when it is near enough (mb_scan_until), so the number of
 * iterations is data: it makes no new plan. Derivatives do not go through the iterations. Where g(x, params)
 * = 0 holds,
 *
 *     dg/dx dx = -dg/dparams dparams,
 *
 * a linear system, which is solved by products with dg/dx and its transpose; no matrix is made, unless
 * MB_SOLVER_DIRECT asks for it. That solution is implicit as well, so derivatives of every order and mode are
 * made in the same way (custom.h). x0, where the search begins, has none.
 *
 * Everything that the function reads must be handed in: by xs and params. It is recorded several times, for
 * derivatives too, in scans and checkpoints with other tensors than here. What it reads past them is an
 * error, here and not later. It may record gradients, scans and checkpoints.
 *
 * What did not converge is told, and is no error: `told` has the truth as tensors, which are read or computed
 * with like any others. The solution is then the last iterate; its derivatives are those that the equation
 * would have there. A linear system of a derivative that is not solved to its tolerance gives NaN, so that
 * nobody takes it for a gradient, unless `truncate` says that so many steps are what is wanted (as implicit
 * MAML does).
 *
 * Vulkan does not leave loops early: it runs all steps that the limits allow, so choose small ones there.
 *
 * Stability: as in tensor.h; the iterations of a solver may change, and with them the last bits.
 */
#ifndef MB_IMPLICIT_H
#define MB_IMPLICIT_H

#include "autograd/custom.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a function is asked at: k tensors x and n parameters. */
typedef struct mb_map_at {
    const mb_tensor *xs, *params;
    int k, n;
} mb_map_at;

/* The largest user_bytes of a map. */
#define MB_MAP_USER_MOST 256

/* A function of xs and params, recorded by `call`, whose results go to out: k tensors shaped like the xs; or
 * one loss, of mb_minimize. user and user_bytes are as of mb_custom_rule. */
typedef struct mb_map {
    mb_status (*call)(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out);
    const void *user;
    size_t user_bytes;
} mb_map;

typedef enum mb_solver {
    MB_SOLVER_AUTO = 0, /* conjugate gradients for minima, GMRES for the others */
    MB_SOLVER_CG, /* conjugate gradients, for symmetric positive definite systems (Hestenes, Stiefel 1952) */
    MB_SOLVER_GMRES,  /* least residual over the last `directions` directions, as GCR (Eisenstat et al. 1983);
                         where residuals stall it goes on from the last direction */
    MB_SOLVER_NORMAL, /* conjugate gradients for A^T A: any matrix, at the square of its condition */
    MB_SOLVER_NEUMANN, /* the series of I - rate A, whose eigenvalues must be inside of the unit circle; of a
                          fixed point it is the series of the function's own derivative */
    MB_SOLVER_DIRECT, /* the matrix is made, and factorised: for few unknowns. Cholesky where it is symmetric,
                         least squares otherwise (linalg.h) */
} mb_solver;

/* 0 stands for the default, here and below. */
typedef struct mb_solver_options {
    mb_solver method;
    double tolerance;   /* on |b - A z| / |b|: 1e-10, in float32 1e-5 */
    int64_t steps;      /* at most: 1000 */
    int64_t directions; /* kept by GMRES: 30 */
    double rate;        /* of Neumann: 1 */
    bool truncate;      /* what so many steps give is taken as the solution, without NaN */
} mb_solver_options;

typedef enum mb_search {
    MB_SEARCH_NEWTON = 0, /* with linear systems solved no better than the step needs, and a line search */
    MB_SEARCH_DESCENT,    /* of a minimum: x - damping * gradient */
} mb_search;

typedef struct mb_implicit_options {
    double tolerance; /* on |step| / (1 + |x|): 1e-10, in float32 1e-5. The step is f(x) - x of a fixed point,
                         Newton's own, of full length, and in a descent the gradient */
    int64_t steps;    /* at most: 1000; of Newton's method 50 */
    double damping; /* fixed point: x + damping (f(x) - x), 1; descent: the rate, 0.1; in Newton's method the
                       first length that is tried, 1 */
    bool batched;   /* the first axis of every x is that of so many problems, which do not depend on each
                       other; each stops for itself. A loss is then [problems] */
    mb_search search;
    mb_solver_options linear; /* of derivatives; Newton's method takes the method and the limit */
} mb_implicit_options;

/* Of each problem, 0-d or with `batched` [problems]; and the steps of all, int32 0-d. */
typedef struct mb_convergence {
    mb_tensor converged; /* bool */
    mb_tensor residual;  /* what the tolerance is on */
    mb_tensor steps;
} mb_convergence;

/* x[k] with f(x, params) = x, from x0[k] on; floats of one dtype. told may be NULL. Halves are solved for as
 * float32, here and below: the function is given them, and halves among the parameters, as float32, and what
 * is found is rounded to x0's dtype. */
MB_API mb_status mb_fixed_point_at(const char *site, mb_map f, const mb_tensor *x0, int k,
                                   const mb_tensor *params, int n, mb_implicit_options options, mb_tensor *x,
                                   mb_convergence *told);
#define mb_fixed_point(...) mb_fixed_point_at(MB_HERE, __VA_ARGS__)

/* x[k] with g(x, params) = 0, of as many equations as unknowns. A root where dg/dx is singular is found
 * slowly, and has no derivative. */
MB_API mb_status mb_root_at(const char *site, mb_map g, const mb_tensor *x0, int k, const mb_tensor *params,
                            int n, mb_implicit_options options, mb_tensor *x, mb_convergence *told);
#define mb_root(...) mb_root_at(MB_HERE, __VA_ARGS__)

/* x[k], a minimum near x0 of the loss, 0-d. Its derivatives need a positive definite Hessian there. */
MB_API mb_status mb_minimize_at(const char *site, mb_map loss, const mb_tensor *x0, int k,
                                const mb_tensor *params, int n, mb_implicit_options options, mb_tensor *x,
                                mb_convergence *told);
#define mb_minimize(...) mb_minimize_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
