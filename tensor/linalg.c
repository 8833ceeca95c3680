/* SPDX-License-Identifier: MIT
 *
 * linalg.c - triangles, Cholesky factors, linear systems. Two ops do it all: the factor, and substitution by
 * a triangle; the rest is made of them and of matrix products. */
#include "tensor/linalg.h"
#include "tensor/internal.h"

/* ---- triangles and diagonals ---- */

/* x's context; the sizes of its last two axes. NULL: *poison is the result. */
static mb_context *enter_matrix(const char *op, mb_tensor x, int64_t *rows, int64_t *columns,
                                mb_tensor *poison)
{
    mb_context *ctx = mb__enter(op, (const mb_tensor *[]){&x}, 1, poison);
    if (!ctx)
        return NULL;
    const mb__node *n = mb__at(ctx, x.id);
    if (n->rank < 2) {
        char text[256];
        mb__error(ctx, MB_INVALID, "%s: got %s; wanted rank 2 or more", op,
                  mb__tensor_text(text, sizeof text, x));
        *poison = mb__poison(ctx);
        return NULL;
    }
    *rows = n->dim[n->rank - 2];
    *columns = n->dim[n->rank - 1];
    return ctx;
}

static mb_tensor zero_like(mb_tensor x)
{
    return mb__const(x.ctx, (mb_dtype)mb__at(x.ctx, x.id)->dtype, 0);
}

mb_tensor mb_tril_at(const char *site, mb_tensor x, int64_t diagonal)
{
    MB_SITE(x.ctx, site);
    int64_t rows, columns;
    mb_tensor poison;
    mb_context *ctx = enter_matrix("tril", x, &rows, &columns, &poison);
    if (!ctx)
        return poison;
    return mb_where(mb_tril_mask(ctx, rows, columns, diagonal), x, zero_like(x));
}

mb_tensor mb_triu_at(const char *site, mb_tensor x, int64_t diagonal)
{
    MB_SITE(x.ctx, site);
    int64_t rows, columns;
    mb_tensor poison;
    mb_context *ctx = enter_matrix("triu", x, &rows, &columns, &poison);
    if (!ctx)
        return poison;
    return mb_where(mb_tril_mask(ctx, rows, columns, diagonal - 1), zero_like(x), x);
}

mb_tensor mb_diagonal_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    int64_t rows, columns;
    mb_tensor poison;
    mb_context *ctx = enter_matrix("diagonal", x, &rows, &columns, &poison);
    if (!ctx)
        return poison;
    const mb__node *n = mb__at(ctx, x.id);
    mb_shape flat = {n->rank - 1, {0}};
    memcpy(flat.dim, n->dim, sizeof flat.dim);
    flat.dim[n->rank - 2] = rows * columns;
    int64_t count = rows < columns ? rows : columns;
    return mb_slice(mb_reshape(x, flat), -1, 0, count, columns + 1);
}

mb_tensor mb_trace_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    int64_t rows, columns;
    mb_tensor poison;
    mb_context *ctx = enter_matrix("trace", x, &rows, &columns, &poison);
    return ctx ? mb_sum(mb_diagonal(x), MB_AXES(-1)) : poison;
}

mb_tensor mb_diagonal_matrix_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    mb_tensor poison;
    mb_context *ctx = mb__enter("diagonal_matrix", (const mb_tensor *[]){&x}, 1, &poison);
    if (!ctx)
        return poison;
    const mb__node *n = mb__at(ctx, x.id);
    if (n->rank < 1 || n->rank == MB_MAX_RANK) {
        char text[256];
        mb__error(ctx, MB_INVALID, "diagonal_matrix: got %s; wanted rank 1 to %d",
                  mb__tensor_text(text, sizeof text, x), MB_MAX_RANK - 1);
        return mb__poison(ctx);
    }
    mb_tensor i = mb_iota(ctx, MB_INT32, n->dim[n->rank - 1]);
    return mb_where(mb_eq(mb_unsqueeze(i, 1), i), mb_unsqueeze(x, -1), zero_like(x));
}

/* ---- systems ---- */

/* For a square float matrix a. Here and below, halves are computed with as float32. */
static mb_context *enter_square(const char *op, mb_tensor a, mb_tensor *poison)
{
    int64_t rows, columns;
    mb_context *ctx = enter_matrix(op, a, &rows, &columns, poison);
    if (!ctx || (rows == columns && mb__is_float(mb__at(ctx, a.id)->dtype)))
        return ctx;
    char text[256];
    mb__error(ctx, MB_INVALID, "%s: got %s; wanted square matrices of floats", op,
              mb__tensor_text(text, sizeof text, a));
    *poison = mb__poison(ctx);
    return NULL;
}

/* For a of [..., k, n] and b of [..., k, m], of one float dtype, whose batches broadcast to *batch; `square`:
 * where k must be n. */
static mb_context *enter_system(const char *op, mb_tensor a, mb_tensor b, bool square, mb_shape *batch,
                                mb_tensor *poison)
{
    mb_context *ctx = mb__enter(op, (const mb_tensor *[]){&a, &b}, 2, poison);
    if (!ctx)
        return NULL;
    const mb__node *na = mb__at(ctx, a.id), *nb = mb__at(ctx, b.id);
    int ra = na->rank, rb = nb->rank;
    const char *wanted = NULL;
    if (!mb__is_float(na->dtype) || na->dtype != nb->dtype)
        wanted = "two of one float dtype";
    else if (ra < 2 || rb < 2)
        wanted = "rank 2 or more";
    else if (square && na->dim[ra - 2] != na->dim[ra - 1])
        wanted = "square matrices a";
    else if (na->dim[ra - 2] != nb->dim[rb - 2])
        wanted = "as many rows in b as in a";
    else if (!mb__broadcast_shapes(na->dim, ra - 2, nb->dim, rb - 2, batch->dim, &batch->rank))
        wanted = "leading axes that broadcast";
    if (!wanted)
        return ctx;
    char ta[256], tb[256];
    mb__error(ctx, MB_INVALID, "%s: got a %s, b %s; wanted %s", op, mb__tensor_text(ta, sizeof ta, a),
              mb__tensor_text(tb, sizeof tb, b), wanted);
    *poison = mb__poison(ctx);
    return NULL;
}

mb_tensor mb_cholesky_at(const char *site, mb_tensor a)
{
    MB_SITE(a.ctx, site);
    mb_tensor poison;
    mb_context *ctx = enter_square("cholesky", a, &poison);
    if (!ctx)
        return poison;
    if (mb__halved(a))
        return mb__narrow(mb_cholesky(mb__wide(a)), a);
    const mb__node *n = mb__at(ctx, a.id);
    int64_t dim[MB_MAX_RANK];
    memcpy(dim, n->dim, sizeof dim);
    return mb__record(ctx, MB_OP_CHOLESKY, (mb_dtype)n->dtype, n->rank, dim, &a, 1, NULL, 0);
}

/* t repeated over the batch, where it is not already. */
static mb_tensor over_batch(mb_tensor t, mb_shape batch)
{
    const mb__node *n = mb__at(t.ctx, t.id);
    mb_shape full = batch;
    full.dim[full.rank++] = n->dim[n->rank - 2];
    full.dim[full.rank++] = n->dim[n->rank - 1];
    bool same = n->rank == full.rank && !memcmp(n->dim, full.dim, (size_t)n->rank * sizeof *n->dim);
    return same ? t : mb_broadcast(t, full);
}

mb_tensor mb_triangular_solve_at(const char *site, mb_tensor a, mb_tensor b, unsigned form)
{
    MB_SITE(a.ctx, site);
    mb_shape batch = {0, {0}};
    mb_tensor poison;
    mb_context *ctx = enter_system("triangular_solve", a, b, true, &batch, &poison);
    if (!ctx)
        return poison;
    if (form > (MB_UPPER | MB_TRANSPOSED | MB_UNIT_DIAGONAL)) {
        mb__error(ctx, MB_INVALID,
                  "triangular_solve: got the form %u; wanted MB_LOWER or MB_UPPER, with MB_TRANSPOSED and "
                  "MB_UNIT_DIAGONAL as needed",
                  form);
        return mb__poison(ctx);
    }
    if (mb__halved(a))
        return mb__narrow(mb_triangular_solve(mb__wide(a), mb__wide(b), form), a);
    bool transposed = form & MB_TRANSPOSED;
    b = over_batch(b, batch);
    a = over_batch(transposed ? mb_transpose(a) : a, batch);
    if (!a.id || !b.id)
        return mb__poison(ctx);
    const mb__node *n = mb__at(ctx, b.id);
    int64_t dim[MB_MAX_RANK], upper = ((form & MB_UPPER) != 0) != transposed;
    memcpy(dim, n->dim, sizeof dim);
    return mb__record(ctx, MB_OP_TRIANGULAR_SOLVE, (mb_dtype)n->dtype, n->rank, dim, (mb_tensor[]){a, b}, 2,
                      (int64_t[]){upper, (form & MB_UNIT_DIAGONAL) != 0}, 2);
}

static mb_tensor solve_by(mb_tensor l, mb_tensor b)
{
    return mb_triangular_solve(l, mb_triangular_solve(l, b, MB_LOWER), MB_LOWER | MB_TRANSPOSED);
}

mb_tensor mb_cholesky_solve_at(const char *site, mb_tensor l, mb_tensor b)
{
    MB_SITE(l.ctx, site);
    mb_shape batch;
    mb_tensor poison;
    if (!enter_system("cholesky_solve", l, b, true, &batch, &poison))
        return poison;
    return mb__narrow(solve_by(mb__wide(l), mb__wide(b)), l);
}

mb_tensor mb_solve_spd_at(const char *site, mb_tensor a, mb_tensor b)
{
    MB_SITE(a.ctx, site);
    mb_shape batch;
    mb_tensor poison;
    if (!enter_system("solve_spd", a, b, true, &batch, &poison))
        return poison;
    return mb__narrow(solve_by(mb_cholesky(mb__wide(a)), mb__wide(b)), a);
}

mb_tensor mb_log_det_spd_at(const char *site, mb_tensor a)
{
    MB_SITE(a.ctx, site);
    mb_tensor poison;
    if (!enter_square("log_det_spd", a, &poison))
        return poison;
    mb_tensor l = mb_cholesky(mb__wide(a));
    return mb__narrow(mb_mul(mb_sum(mb_log(mb_diagonal(l)), MB_AXES(-1)), 2.0), a);
}

/* The ridge with two axes of size 1 behind, so that it broadcasts over matrices. False after reporting. */
static bool ridge_fits(mb_context *ctx, mb_tensor a, mb_shape batch, mb_tensor *ridge)
{
    mb_tensor poison;
    if (!mb__enter("lstsq", (const mb_tensor *[]){&a, ridge}, 2, &poison))
        return false;
    const mb__node *n = mb__at(ctx, ridge->id), *na = mb__at(ctx, a.id);
    mb_shape full = {0, {0}}, shape = {n->rank + 2, {0}};
    if (n->dtype != na->dtype || n->rank > batch.rank ||
        !mb__broadcast_shapes(n->dim, n->rank, batch.dim, batch.rank, full.dim, &full.rank) ||
        memcmp(full.dim, batch.dim, (size_t)batch.rank * sizeof *batch.dim)) {
        char text[256], dims[128];
        mb__error(ctx, MB_INVALID, "lstsq: got the ridge %s; wanted %s that broadcasts to the batch %s",
                  mb__tensor_text(text, sizeof text, *ridge), mb_dtype_name((mb_dtype)na->dtype),
                  mb__shape_text(dims, sizeof dims, batch.dim, batch.rank));
        return false;
    }
    memcpy(shape.dim, n->dim, (size_t)n->rank * sizeof *n->dim);
    shape.dim[n->rank] = shape.dim[n->rank + 1] = 1;
    *ridge = mb_reshape(*ridge, shape);
    return ridge->id != 0;
}

mb_tensor mb_lstsq_at(const char *site, mb_tensor a, mb_tensor b, mb_tensor ridge)
{
    MB_SITE(a.ctx, site);
    mb_shape batch = {0, {0}};
    mb_tensor poison;
    mb_context *ctx = enter_system("lstsq", a, b, false, &batch, &poison);
    bool ridged = ridge.ctx || ridge.id;
    const mb_tensor given = ridge;
    if (!ctx)
        return poison;
    if (ridged && !ridge_fits(ctx, a, batch, &ridge))
        return mb__poison(ctx);
    if (mb__halved(a))
        return mb__narrow(mb_lstsq(mb__wide(a), mb__wide(b), mb__wide(given)), a);
    const mb__node *n = mb__at(ctx, a.id);
    mb_dtype dtype = (mb_dtype)n->dtype;
    int64_t rows = n->dim[n->rank - 2], columns = n->dim[n->rank - 1];
    bool wide = rows < columns; /* then the system of a a^T is the smaller one */
    mb_tensor t = mb_transpose(a), gram = wide ? mb_matmul(a, t) : mb_matmul(t, a);
    if (ridged)
        gram = mb_add(gram, mb_mul(mb_eye(ctx, dtype, wide ? rows : columns), ridge));
    mb_tensor l = mb_cholesky(gram), y = solve_by(l, wide ? b : mb_matmul(t, b));
    /* What y leaves over, by a and not by its square: that is where the accuracy comes from. */
    mb_tensor x = wide ? mb_matmul(t, y) : y, left = mb_sub(b, mb_matmul(a, x));
    left = wide ? left : mb_matmul(t, left);
    if (ridged)
        left = mb_sub(left, mb_mul(y, ridge));
    y = mb_add(y, solve_by(l, left));
    return wide ? mb_matmul(t, y) : y;
}
