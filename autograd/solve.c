/* SPDX-License-Identifier: MIT
 *
 * solve.c - linear systems by products with their matrix. Every method is a scan that ends when all problems
 * of the batch are done; what is done has steps of length 0. The right side is scaled to length 1, so that
 * squares neither overflow nor vanish.
 */
#include "autograd/solve.h"
#include "tensor/linalg.h"
#include "tensor/scan.h"

/* ---- rows ---- */

mb_tensor mb__row_dot(mb_tensor a, mb_tensor b)
{
    return mb_sum(mb_mul(a, b), MB_KEEP(1));
}

mb_tensor mb__row_norm(mb_tensor a)
{
    return mb_norm(a, MB_KEEP(1));
}

mb_tensor mb__number(mb_tensor like, double value)
{
    return mb_scalar(like.ctx, mb_dtype_of(like), value);
}

mb_tensor mb__all_of(mb_tensor done)
{
    return mb_eq(mb_sum(mb_not(done), MB_ALL), mb_full(done.ctx, MB_INT32, MB_SHAPE0, 0));
}

mb_tensor mb__ratio(mb_tensor active, mb_tensor a, mb_tensor b)
{
    mb_tensor zero = mb_full(a.ctx, mb_dtype_of(a), MB_SHAPE0, 0),
              one = mb_full(a.ctx, mb_dtype_of(a), MB_SHAPE0, 1);
    mb_tensor divides = mb_and(active, mb_not(mb_eq(b, zero)));
    return mb_where(divides, mb_div(a, mb_where(divides, b, one)), zero);
}

static mb_tensor positive(mb_tensor x)
{
    return mb_lt(mb_full(x.ctx, mb_dtype_of(x), MB_SHAPE0, 0), x);
}

/* ---- methods; each solves for a b of length 1 or 0 ---- */

typedef struct solving {
    const mb__matrix *a;
    const mb_solver_options *options;
    mb_tensor b, tolerance;
    mb_tensor z, r, done; /* the iterate; b - A z; near enough, or stuck */
    mb_scan scan;
} solving;

static mb_tensor times(const solving *s, mb_tensor z, bool transposed)
{
    return s->a->times(s->a->user, z, transposed && !s->a->symmetric);
}

/* Carries z, r and done, as they begin. */
static void begin(solving *s)
{
    s->scan = mb_scan_begin(s->b.ctx, s->options->steps);
    mb_scan_carry(s->scan, &s->z);
    mb_scan_carry(s->scan, &s->r);
    mb_scan_carry(s->scan, &s->done);
}

static mb_tensor near_enough(const solving *s)
{
    return mb_le(mb__row_norm(s->r), s->tolerance);
}

/* z + length along; what is left of r is given. */
static void advance(solving *s, mb_tensor length, mb_tensor along, mb_tensor product)
{
    s->z = mb_add(s->z, mb_mul(length, along));
    s->r = mb_sub(s->r, mb_mul(length, product));
}

static void end(solving *s, mb_tensor stuck)
{
    s->done = mb_or(mb_or(s->done, stuck), near_enough(s));
    mb_scan_until(s->scan, mb__all_of(s->done));
    mb_scan_end(s->scan);
}

static void conjugate_gradients(solving *s)
{
    mb_tensor p = s->r, rr = mb__row_dot(p, p);
    begin(s);
    mb_scan_carry(s->scan, &p);
    mb_scan_carry(s->scan, &rr);
    mb_tensor ap = times(s, p, false), curvature = mb__row_dot(p, ap), convex = positive(curvature);
    mb_tensor active = mb_and(mb_not(s->done), convex);
    advance(s, mb__ratio(active, rr, curvature), p, ap);
    mb_tensor next = mb__row_dot(s->r, s->r);
    p = mb_add(s->r, mb_mul(mb__ratio(active, next, rr), p));
    rr = next;
    end(s, mb_not(convex));
}

/* Conjugate gradients for A^T A z = A^T b, of which r is still b - A z. */
static void normal_equations(solving *s)
{
    mb_tensor p = times(s, s->r, true), gg = mb__row_dot(p, p);
    begin(s);
    mb_scan_carry(s->scan, &p);
    mb_scan_carry(s->scan, &gg);
    mb_tensor ap = times(s, p, false), size = mb__row_dot(ap, ap), moves = positive(size);
    mb_tensor active = mb_and(mb_not(s->done), moves);
    advance(s, mb__ratio(active, gg, size), p, ap);
    mb_tensor g = times(s, s->r, true), next = mb__row_dot(g, g);
    p = mb_add(g, mb_mul(mb__ratio(active, next, gg), p));
    gg = next;
    end(s, mb_not(moves));
}

/* r is (I - rate A)^t b. */
static void neumann(solving *s)
{
    begin(s);
    mb_tensor zero = mb_full(s->b.ctx, mb_dtype_of(s->b), MB_SHAPE0, 0);
    mb_tensor length = mb_where(s->done, zero, mb__number(s->b, s->options->rate));
    advance(s, length, s->r, times(s, s->r, false));
    end(s, mb_not(mb_le(mb__row_norm(s->r), mb__number(s->b, 1e6)))); /* it diverges, or is NaN */
}

/* a: [problems, kept, p], v: [problems, p] -> [problems, kept]; and back. */
static mb_tensor along(mb_tensor a, mb_tensor v)
{
    return mb_einsum("bkp,bp->bk", a, v);
}
static mb_tensor combined(mb_tensor a, mb_tensor h)
{
    return mb_einsum("bkp,bk->bp", a, h);
}

/* Generalised conjugate residuals: directions d with products q = A d that are orthonormal, the last `kept`
 * ones in D and Q; r is made orthogonal to the newest q. The next direction is r, or q where r stalls:
 * together that is the Krylov space, and r the least one over it, as GMRES has it. */
static void least_residuals(solving *s)
{
    mb_context *ctx = s->b.ctx;
    mb_dtype dtype = mb_dtype_of(s->b);
    int64_t problems = mb_dim(s->b, 0), p = mb_dim(s->b, 1),
            kept = s->options->directions < s->options->steps ? s->options->directions : s->options->steps;
    mb_tensor D = mb_zeros(ctx, dtype, MB_SHAPE(problems, kept, p)), Q = D, d = s->r;
    mb_tensor at = mb_full(ctx, MB_INT32, MB_SHAPE0, 0), zero = mb_full(ctx, dtype, MB_SHAPE0, 0);
    begin(s);
    mb_tensor *const own[] = {&D, &Q, &d, &at};
    for (int i = 0; i < 4; i++)
        mb_scan_carry(s->scan, own[i]);
    mb_tensor q = times(s, d, false), size = mb__row_norm(q), before = mb__row_norm(s->r);
    for (int i = 0; i < 2; i++) { /* twice is enough (Parlett 1980) */
        mb_tensor h = along(Q, q);
        q = mb_sub(q, combined(Q, h));
        d = mb_sub(d, combined(D, h));
    }
    mb_tensor left = mb__row_norm(q), least = mb_mul(size, dtype == MB_FLOAT64 ? 1e-13 : 1e-5);
    mb_tensor moves = mb_lt(least, left), active = mb_and(mb_not(s->done), moves);
    mb_tensor scale = mb__ratio(active, mb_full(ctx, dtype, MB_SHAPE0, 1), left);
    q = mb_mul(q, scale);
    d = mb_mul(d, scale);
    mb_tensor length = mb_where(active, mb__row_dot(s->r, q), zero);
    advance(s, length, d, q);
    mb_tensor here = mb_reshape(mb_eq(mb_iota(ctx, MB_INT32, kept), at), MB_SHAPE(1, kept, 1));
    D = mb_where(here, mb_unsqueeze(d, 1), D);
    Q = mb_where(here, mb_unsqueeze(q, 1), Q);
    mb_tensor falls = mb_lt(mb__row_norm(s->r), mb_mul(before, 0.9));
    d = mb_where(falls, s->r, q);
    mb_tensor after = mb_add(at, 1);
    at = mb_where(mb_lt(after, mb_full(ctx, MB_INT32, MB_SHAPE0, (double)kept)), after,
                  mb_full(ctx, MB_INT32, MB_SHAPE0, 0));
    end(s, mb_not(moves));
}

/* The matrices, [problems, p, p], column by column in a scan. */
static mb_tensor matrix_of(const solving *s)
{
    int64_t problems = mb_dim(s->b, 0), p = mb_dim(s->b, 1);
    mb_tensor columns;
    mb_scan scan = mb_scan_begin(s->b.ctx, p);
    mb_tensor unit = mb_scan_slice(scan, mb_eye(s->b.ctx, mb_dtype_of(s->b), p));
    mb_scan_stack(scan, times(s, mb_broadcast(unit, MB_SHAPE(problems, p)), false), &columns);
    mb_scan_end(scan);
    return mb_permute(columns, MB_AXES(1, 2, 0));
}

static void direct(solving *s)
{
    mb_tensor a = matrix_of(s), b = mb_unsqueeze(s->b, -1);
    mb_tensor z = s->a->symmetric ? mb_solve_spd(a, b) : mb_lstsq(a, b, MB_EMPTY(mb_tensor));
    s->z = mb_squeeze(z, -1);
    s->r = mb_sub(s->b, mb_squeeze(mb_matmul(a, z), -1));
}

mb__solved mb__solve(const mb__matrix *a, mb_tensor b, mb_tensor tolerance, const mb_solver_options *options)
{
    mb_tensor size = mb__row_norm(b);
    mb_tensor scale = mb_where(positive(size), size, mb_full(b.ctx, mb_dtype_of(b), MB_SHAPE0, 1));
    solving s = {.a = a, .options = options, .b = mb_div(b, scale), .tolerance = tolerance};
    s.z = mb_zeros(b.ctx, mb_dtype_of(b), mb_shape_of(b));
    s.r = s.b;
    s.done = near_enough(&s);
    static void (*const methods[])(solving *) = {[MB_SOLVER_CG] = conjugate_gradients,
                                                 [MB_SOLVER_GMRES] = least_residuals,
                                                 [MB_SOLVER_NORMAL] = normal_equations,
                                                 [MB_SOLVER_NEUMANN] = neumann,
                                                 [MB_SOLVER_DIRECT] = direct};
    methods[options->method](&s);
    return (mb__solved){mb_mul(s.z, scale), near_enough(&s)};
}
