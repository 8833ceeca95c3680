/* SPDX-License-Identifier: MIT
 *
 * lanczos.c - extreme eigenvalues of the Hessian from a few Hessian-vector products.
 */
#include <math.h>

#include "autograd/directions.h"

static mb_tensor lit(mb__bundle *b, double value)
{
    return mb__const(b->ctx, b->dtype, value);
}

static mb_tensor norm(mb_tensor v)
{
    return mb_norm(v, MB_ALL);
}

/* w minus its projection on the j orthonormal vectors; done twice, because after once the rounding errors of
 * the first pass remain (Golub and Van Loan, section 10.3). */
static mb_tensor orthogonalize(mb_tensor w, const mb_tensor *basis, int j)
{
    mb_tensor V = mb_stack(basis, j, 0); /* [j,p] */
    for (int pass = 0; pass < 2; pass++)
        w = mb_sub(w, mb_einsum("jp,j->p", V, mb_einsum("jp,p->j", V, w)));
    return w;
}

/* Writes m entries each to basis, diagonal and off_diagonal. */
static void tridiagonalize(mb__bundle *b, int m, mb_key key, mb_tensor *basis, mb_tensor *diagonal,
                           mb_tensor *off_diagonal)
{
    double tiny = b->dtype == MB_FLOAT64 ? 1e-10 : 1e-5;
    mb_tensor v = mb_normal(b->ctx, key, b->dtype, MB_SHAPE(b->p)), scale = lit(b, 0);
    v = mb_div(v, norm(v));
    for (int j = 0; j < m && mb_error(b->ctx) == MB_OK; j++) {
        basis[j] = v;
        mb_tensor w = mb__bundle_hvp(b, v);
        scale = mb_maximum(scale, norm(w));
        diagonal[j] = mb_dot(v, w);
        w = orthogonalize(w, basis, j + 1);
        /* A residual that is tiny relative to the Hessian: the Krylov space is exhausted. */
        mb_tensor length = norm(w), more = mb_lt(mb_mul(scale, lit(b, tiny)), length);
        length = mb_where(more, length, lit(b, 1));
        off_diagonal[j] = mb_where(more, length, lit(b, 0));
        v = mb_where(more, mb_div(w, length), lit(b, 0));
    }
}

mb_status mb_lanczos_at(const char *site, mb_tensor y, const mb_tensor *xs, int n, int steps, mb_key key,
                        mb_tensor *alpha, mb_tensor *beta)
{
    MB_DOOR(y.ctx, site, MB_THREAD);
    mb_context *ctx = y.ctx;
    if (!alpha || !beta)
        return mb__error(ctx, MB_INVALID, "lanczos: no alpha or no beta");
    *alpha = *beta = mb__poison(ctx);
    mb__bundle b;
    if (mb__bundle_open(&b, "lanczos", y, xs, n)) {
        int m = steps < b.p ? steps : (int)b.p;
        if (m < 1) {
            mb__error(ctx, MB_INVALID, "lanczos: got %d steps for %lld elements; wanted 1 or more", steps,
                      (long long)b.p);
        } else {
            size_t bytes = 3 * (size_t)m * sizeof(mb_tensor);
            mb_tensor *basis = mb__alloc(ctx, bytes);
            if (basis) {
                tridiagonalize(&b, m, key, basis, basis + m, basis + 2 * m);
                *alpha = mb_stack(basis + m, m, 0);
                *beta = mb_stack(basis + 2 * m, m, 0);
                mb__free(ctx, basis, bytes);
            }
        }
    }
    mb__bundle_close(&b);
    return mb_error(ctx);
}

/* The number of eigenvalues of the tridiagonal matrix below x: the negative pivots of its factorisation
 * (Golub and Van Loan, section 8.4). */
static int below(const double *alpha, const double *beta, int m, double x)
{
    int count = 0;
    double pivot = 1;
    for (int i = 0; i < m; i++) {
        double b = i ? beta[i - 1] : 0;
        pivot = alpha[i] - x - (i ? b * b / pivot : 0);
        if (pivot == 0)
            pivot = -1e-300;
        count += pivot < 0;
    }
    return count;
}

/* The k-th smallest eigenvalue, by bisection between Gershgorin's bounds. */
static double eigenvalue(const double *alpha, const double *beta, int m, int k)
{
    double low = INFINITY, high = -INFINITY;
    for (int i = 0; i < m; i++) {
        double r = (i ? fabs(beta[i - 1]) : 0) + (i + 1 < m ? fabs(beta[i]) : 0);
        low = fmin(low, alpha[i] - r);
        high = fmax(high, alpha[i] + r);
    }
    for (int i = 0; i < 200 && low < high; i++) {
        double middle = low + (high - low) / 2;
        if (middle <= low || middle >= high)
            break;
        if (below(alpha, beta, m, middle) > k)
            high = middle;
        else
            low = middle;
    }
    return low + (high - low) / 2;
}

static mb_status read_double(mb_tensor t, double *to, int m)
{
    return mb_read(mb_cast(t, MB_FLOAT64), to, (size_t)m * sizeof *to);
}

mb_status mb_extreme_eigenvalues_at(const char *site, mb_tensor y, const mb_tensor *xs, int n, int steps,
                                    mb_key key, double *smallest, double *largest)
{
    MB_DOOR(y.ctx, site, MB_THREAD);
    mb_context *ctx = y.ctx;
    mb_tensor alpha, beta;
    if (smallest)
        *smallest = NAN;
    if (largest)
        *largest = NAN;
    if (!ctx || mb_error(ctx) != MB_OK)
        return ctx ? mb_error(ctx) : MB_INVALID;
    mb_scope scope = mb_scope_begin(ctx); /* so that calls between steps do not grow the tape */
    mb_status status = mb_lanczos(y, xs, n, steps, key, &alpha, &beta);
    int m = status == MB_OK ? (int)mb_count(alpha) : 0;
    double *T = m ? mb__alloc(ctx, 2 * (size_t)m * sizeof *T) : NULL;
    if (T) {
        mb_tensor both[2] = {alpha, beta};
        status = mb_eval(both, 2);
        if (status == MB_OK && (status = read_double(alpha, T, m)) == MB_OK &&
            (status = read_double(beta, T + m, m)) == MB_OK) {
            int size = 1;
            while (size < m && T[m + size - 1] > 0)
                size++;
            bool finite = true;
            for (int i = 0; i < size; i++)
                finite &= isfinite(T[i]) && isfinite(T[m + i]);
            if (finite && smallest)
                *smallest = eigenvalue(T, T + m, size, 0);
            if (finite && largest)
                *largest = eigenvalue(T, T + m, size, size - 1);
        }
        mb__free(ctx, T, 2 * (size_t)m * sizeof *T);
    }
    mb_status ended = mb_scope_end(scope);
    return status != MB_OK ? status : ended != MB_OK ? ended : mb_error(ctx);
}
