/* SPDX-License-Identifier: MIT
 * contract_test.c - matmul and einsum against plain loops over their letters, for operands of many strides.
 */
#include "support.h"

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

/* Any einsum of two operands by looping over all letters: slow and plain. Values in row-major order. */
static double *plain(const char *equation, const double *a, mb_shape sa, const double *b, mb_shape sb,
                     mb_shape *out)
{
    int64_t size[128] = {0}, at[128] = {0};
    char letters[32];
    int n = 0;
    const char *comma = strchr(equation, ','), *arrow = strstr(equation, "->");
    for (const char *e = equation; e < comma; e++)
        size[(int)*e] = sa.dim[e - equation];
    for (const char *e = comma + 1; e < arrow; e++)
        size[(int)*e] = sb.dim[e - comma - 1];
    for (int c = 'A'; c <= 'z'; c++)
        if (strchr(equation, c))
            letters[n++] = (char)c;
    out->rank = 0;
    for (const char *e = arrow + 2; *e; e++)
        out->dim[out->rank++] = size[(int)*e];
    double *y = calloc((size_t)shape_count(*out) + 1, sizeof *y);
    int64_t total = 1;
    for (int l = 0; l < n; l++)
        total *= size[(int)letters[l]];
    for (int64_t i = 0; i < total; i++) {
        int64_t rest = i, ia = 0, ib = 0, io = 0;
        for (int l = n; l-- > 0;) {
            at[(int)letters[l]] = rest % size[(int)letters[l]];
            rest /= size[(int)letters[l]];
        }
        for (const char *e = equation; e < comma; e++)
            ia = ia * size[(int)*e] + at[(int)*e];
        for (const char *e = comma + 1; e < arrow; e++)
            ib = ib * size[(int)*e] + at[(int)*e];
        for (const char *e = arrow + 2; *e; e++)
            io = io * size[(int)*e] + at[(int)*e];
        y[io] += a[ia] * b[ib];
    }
    return y;
}

enum form { PLAIN, TRANSPOSED, SLICED, FLIPPED, FORMS };

/* A product of these is read before they are: an operand that was read has memory of its own from then on,
 * and a product of it sees no strides. */
static mb_tensor operand(mb_context *ctx, rng *r, mb_dtype dtype, mb_shape s, int form)
{
    mb_shape t = s;
    if (s.rank == 0 || form == PLAIN)
        return draw(ctx, r, dtype, s, -1, 1);
    if (form == TRANSPOSED) {
        mb_axes back = {s.rank, false, {0}};
        for (int i = 0; i < s.rank; i++) {
            t.dim[i] = s.dim[s.rank - 1 - i];
            back.axis[i] = s.rank - 1 - i;
        }
        return mb_permute(draw(ctx, r, dtype, t, -1, 1), back);
    }
    if (form == SLICED) {
        t.dim[s.rank - 1] = 2 * s.dim[s.rank - 1] + 1;
        return mb_slice(draw(ctx, r, dtype, t, -1, 1), s.rank - 1, s.dim[s.rank - 1] ? 1 : 0,
                        s.dim[s.rank - 1], 2);
    }
    return mb_flip(draw(ctx, r, dtype, s, -1, 1), 0);
}

static void check(mb_context *ctx, const char *what, mb_tensor y, const double *want, mb_shape s,
                  mb_dtype dtype)
{
    if (!expect(same_shape(mb_shape_of(y), s), "%s: shape %s, not %s: %s", what, shape_text(mb_shape_of(y)),
                shape_text(s), mb_message(ctx))) {
        mb_clear_error(ctx);
        return;
    }
    double e = nmse(values(y), want, mb_count(y));
    expect(e <= (dtype == MB_FLOAT64 ? 1e-28 : 1e-12), "%s %s on %s: NMSE %g", what, mb_dtype_name(dtype),
           mb_backend_name(ctx), e);
}

static void einsum(mb_context *ctx, mb_dtype dtype, const char *equation, mb_shape sa, mb_shape sb)
{
    for (int form = 0; form < FORMS; form++) {
        rng r = {7};
        mb_tensor a = operand(ctx, &r, dtype, sa, form),
                  b = operand(ctx, &r, dtype, sb, (form * 3 + 1) % FORMS);
        mb_tensor y = mb_einsum(equation, a, b);
        values(y);
        mb_shape s;
        double *want = plain(equation, values(a), sa, values(b), sb, &s);
        char what[200];
        snprintf(what, sizeof what, "einsum %s of %s, %s, form %d", equation, shape_text(sa), shape_text(sb),
                 form);
        check(ctx, what, y, want, s, dtype);
        free(want);
    }
}

#define S MB_SHAPE
static void einsums(mb_dtype dtype)
{
    ON_BOTH
    {
        einsum(ctx, dtype, "ij,jk->ik", S(3, 5), S(5, 2));
        einsum(ctx, dtype, "ij,jk->ki", S(37, 33), S(33, 65));
        einsum(ctx, dtype, "ij,kj->ik", S(17, 9), S(31, 9));
        einsum(ctx, dtype, "ji,jk->ik", S(9, 17), S(9, 31));
        einsum(ctx, dtype, "ij,ij->ij", S(3, 5), S(3, 5));
        einsum(ctx, dtype, "ij,ij->", S(3, 5), S(3, 5));
        einsum(ctx, dtype, "ij,ij->j", S(3, 5), S(3, 5));
        einsum(ctx, dtype, "i,j->ij", S(3), S(5));
        einsum(ctx, dtype, "i,j->", S(3), S(5));
        einsum(ctx, dtype, "i,i->", S(70), S(70));
        einsum(ctx, dtype, ",ij->ji", MB_SHAPE0, S(3, 5));
        einsum(ctx, dtype, ",->", MB_SHAPE0, MB_SHAPE0);
        einsum(ctx, dtype, "bij,bjk->bik", S(4, 3, 5), S(4, 5, 2));
        einsum(ctx, dtype, "bij,jk->bik", S(4, 3, 5), S(5, 2));
        einsum(ctx, dtype, "ij,bjk->bik", S(3, 5), S(4, 5, 2));
        einsum(ctx, dtype, "bnd,hde->bhne", S(2, 7, 6), S(3, 6, 4));
        einsum(ctx, dtype, "bhnd,bhmd->bhnm", S(2, 3, 5, 4), S(2, 3, 7, 4));
        einsum(ctx, dtype, "bnhd,bmhd->bhnm", S(2, 5, 3, 4), S(2, 7, 3, 4));
        einsum(ctx, dtype, "bhnm,bmhd->bnhd", S(2, 3, 5, 7), S(2, 7, 3, 4));
        einsum(ctx, dtype, "bhnd,bhne->bhde", S(2, 3, 5, 4), S(2, 3, 5, 6));
        einsum(ctx, dtype, "bnc,bnd->cd", S(3, 4, 5), S(3, 4, 6));
        einsum(ctx, dtype, "abcd,cdef->abef", S(2, 3, 4, 2), S(4, 2, 3, 2));
        einsum(ctx, dtype, "abcd,dcfe->eafb", S(2, 3, 4, 2), S(2, 4, 3, 2));
        einsum(ctx, dtype, "abc,bd->da", S(2, 3, 4), S(3, 5));
        einsum(ctx, dtype, "ij,jk->ik", S(3, 0), S(0, 2));
        einsum(ctx, dtype, "ij,jk->ik", S(0, 3), S(3, 2));
        einsum(ctx, dtype, "ij,jk->ik", S(1, 1), S(1, 1));
        einsum(ctx, dtype, "aBc,cD->BaD", S(1, 3, 1), S(1, 4));
    }
}

Test(contract, einsum_float64)
{
    einsums(MB_FLOAT64);
}
Test(contract, einsum_float32)
{
    einsums(MB_FLOAT32);
}

/* matmul is an einsum whose leading axes broadcast. */
static void matmul(mb_context *ctx, mb_dtype dtype, mb_shape sa, mb_shape sb, mb_shape batch,
                   const char *equation)
{
    for (int form = 0; form < FORMS; form++) {
        rng r = {5};
        mb_tensor a = operand(ctx, &r, dtype, sa, form),
                  b = operand(ctx, &r, dtype, sb, (form * 3 + 1) % FORMS);
        mb_shape wa = batch, wb = batch, s;
        memcpy(wa.dim + wa.rank, sa.dim + sa.rank - 2, 2 * sizeof *sa.dim), wa.rank += 2;
        memcpy(wb.dim + wb.rank, sb.dim + sb.rank - 2, 2 * sizeof *sb.dim), wb.rank += 2;
        mb_tensor y = mb_matmul(a, b);
        values(y);
        double *va = values(mb_broadcast(a, wa)), *vb = values(mb_broadcast(b, wb)),
               *want = plain(equation, va, wa, vb, wb, &s);
        char what[200];
        snprintf(what, sizeof what, "matmul of %s and %s, form %d", shape_text(sa), shape_text(sb), form);
        check(ctx, what, y, want, s, dtype);
        free(want);
    }
}

Test(contract, matmul)
{
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            mb_dtype dtype = (mb_dtype)d;
            const mb_shape none = MB_SHAPE0;
            static const int64_t sizes[][3] = {{1, 1, 1},   {3, 5, 2},    {5, 1, 4},     {1, 7, 1},
                                               {17, 33, 9}, {64, 64, 64}, {65, 31, 130}, {2, 0, 3},
                                               {0, 4, 3},   {4, 3, 0},    {1, 300, 200}, {200, 300, 1}};
            for (int i = 0; i < 12; i++)
                matmul(ctx, dtype, S(sizes[i][0], sizes[i][1]), S(sizes[i][1], sizes[i][2]), none,
                       "ij,jk->ik");
            matmul(ctx, dtype, S(4, 3, 5), S(4, 5, 2), S(4), "aij,ajk->aik");
            matmul(ctx, dtype, S(4, 3, 5), S(5, 2), S(4), "aij,ajk->aik");
            matmul(ctx, dtype, S(3, 5), S(4, 5, 2), S(4), "aij,ajk->aik");
            matmul(ctx, dtype, S(1, 3, 5), S(4, 5, 2), S(4), "aij,ajk->aik");
            matmul(ctx, dtype, S(4, 1, 3, 5), S(2, 5, 2), S(4, 2), "abij,abjk->abik");
            matmul(ctx, dtype, S(4, 1, 3, 5), S(1, 2, 5, 2), S(4, 2), "abij,abjk->abik");
            matmul(ctx, dtype, S(2, 1, 2, 3, 4), S(3, 1, 4, 5), S(2, 3, 2), "abcij,abcjk->abcik");
            matmul(ctx, dtype, S(1, 1, 3, 5), S(5, 2), S(1, 1), "abij,abjk->abik");
            matmul(ctx, dtype, S(0, 3, 5), S(1, 5, 2), S(0), "aij,ajk->aik");
        }
}

/* Products big enough to be split over threads; and what is not a number must stay where it is. */
Test(contract, large_and_special)
{
    ON_BOTH
    {
        rng r = {1};
        mb_tensor a = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(211, 157), -1, 1),
                  b = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(157, 333), -1, 1);
        double *y = values(mb_matmul(a, b)),
               *z = values(mb_matmul(mb_cast(a, MB_FLOAT64), mb_cast(b, MB_FLOAT64)));
        expect(nmse(y, z, 211 * 333) <= 1e-12, "a large product on %s: NMSE %g", backend_names[k],
               nmse(y, z, 211 * 333));
        double nan = (double)NAN, inf = (double)INFINITY;
        mb_tensor s = from_doubles(ctx, MB_FLOAT32, MB_SHAPE(2, 2), (double[]){1, nan, 2, 3});
        mb_tensor t = from_doubles(ctx, MB_FLOAT32, MB_SHAPE(2, 2), (double[]){0, inf, 1, 0});
        double *p = values(mb_matmul(s, t));
        expect(isnan(p[0]) && isnan(p[1]) && p[2] == 3 && p[3] == inf, "%s: NaN in a product: %g %g %g %g",
               backend_names[k], p[0], p[1], p[2], p[3]);
        double *q = values(mb_matmul(mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(2, 2)),
                                     mb_full(ctx, MB_FLOAT32, MB_SHAPE(2, 2), 3)));
        expect(q[0] == 0 && q[3] == 0, "a product of literals");
    }
}

/* Rows or columns a power of two apart meet in the same few places of a cache, and a backend may copy them.
 * Of small whole numbers each sum is exact, in any order. */
Test(contract, rows_a_power_of_two_apart)
{
    enum { M = 590, N = 610, K = 270, APART = 1024 };
    static double want[M * N];
    rng r = {8};
    double *at = malloc((size_t)APART * APART * sizeof *at), *bt = malloc((size_t)APART * APART * sizeof *bt);
    for (int i = 0; i < APART * APART; i++)
        at[i] = (double)rng_below(&r, 17) - 8, bt[i] = (double)rng_below(&r, 17) - 8;
    for (int form = 0; form < 4; form += is_slow() ? 3 : 1) {
        bool ta = form & 1, tb = form & 2;
        memset(want, 0, sizeof want);
        for (int i = 0; i < M; i++)
            for (int l = 0; l < K; l++)
                for (int j = 0; j < N; j++)
                    want[i * N + j] += (ta ? at[l * APART + i] : at[i * APART + l]) *
                                       (tb ? bt[j * APART + l] : bt[l * APART + j]);
        for (int d = 0; d < 2; d++)
            ON_BOTH
            {
                mb_tensor a = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(APART, APART), at),
                          b = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(APART, APART), bt);
                mb_eval((mb_tensor[]){a, b}, 2);
                a = ta ? mb_transpose(mb_slice(mb_slice(a, 0, 0, K, 1), 1, 0, M, 1))
                       : mb_slice(mb_slice(a, 0, 0, M, 1), 1, 0, K, 1);
                b = tb ? mb_transpose(mb_slice(mb_slice(b, 0, 0, N, 1), 1, 0, K, 1))
                       : mb_slice(mb_slice(b, 0, 0, K, 1), 1, 0, N, 1);
                double *y = values(mb_matmul(a, b));
                int wrong = 0;
                for (int i = 0; i < M * N; i++)
                    wrong += y[i] != want[i];
                expect(wrong == 0, "form %d on %s: %d elements differ", form, backend_names[k], wrong);
            }
    }
    free(at);
    free(bt);
}

/* The same in several blocks of rows, of which the second begins elsewhere. */
Test(contract, many_rows_a_power_of_two_apart)
{
    enum { M = 9700, N = 130, K = 256, APART = 512 };
    if (testing("vulkan"))
        return;
    rng r = {9};
    double *at = malloc((size_t)M * APART * sizeof *at), *bt = malloc((size_t)K * N * sizeof *bt);
    for (int64_t i = 0; i < (int64_t)M * APART; i++)
        at[i] = (double)rng_below(&r, 17) - 8;
    for (int i = 0; i < K * N; i++)
        bt[i] = (double)rng_below(&r, 17) - 8;
    mb_context *ctx = open_on("cpu");
    mb_tensor a = from_doubles(ctx, MB_FLOAT32, MB_SHAPE(M, APART), at),
              b = from_doubles(ctx, MB_FLOAT32, MB_SHAPE(K, N), bt);
    mb_eval((mb_tensor[]){a, b}, 2);
    double *y = values(mb_matmul(mb_slice(a, 1, 0, K, 1), b));
    int wrong = 0;
    for (int i = 0; i < M; i += 7)
        for (int j = 0; j < N; j += 3) {
            double sum = 0;
            for (int l = 0; l < K; l++)
                sum += at[(int64_t)i * APART + l] * bt[l * N + j];
            wrong += y[(int64_t)i * N + j] != sum;
        }
    expect(wrong == 0, "%d elements differ", wrong);
    free(at);
    free(bt);
    close_all();
}

/* Sums of many equal terms, whose roundings all go one way: they are added in parts, so that no sum is off by
 * as many as it has terms. */
Test(contract, long_products, .timeout = 120)
{
    mb_context *ctx = open_on(backend_names[1]);
    static const int64_t sizes[][2] = {{1, 1}, {3, 5}, {16, 16}, {40, 48}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int64_t k = 10000; k <= (s < 2 ? 1000000 : 100000); k *= 10) {
            float one[2] = {0.7f, 0.9f};
            mb_tensor x = mb_from(ctx, MB_FLOAT32, MB_SHAPE(2), one);
            mb_tensor a = mb_broadcast(mb_slice(x, 0, 0, 1, 1), MB_SHAPE(sizes[s][0], k)),
                      b = mb_broadcast(mb_slice(x, 0, 1, 1, 1), MB_SHAPE(k, sizes[s][1]));
            const double *got = values(mb_matmul(a, b));
            double want = (double)one[0] * (double)one[1] * (double)k, off = fabs(got[0] / want - 1) * 0x1p24;
            /* One after the other, 10^4 terms are off by 2067 already. */
            expect(off < 1000, "[%ld,%ld] of %ld terms: off by %.0f roundings", (long)sizes[s][0],
                   (long)sizes[s][1], (long)k, off);
        }
    close_all();
}
