/* SPDX-License-Identifier: MIT
 *
 * einsum_test.c - what einsum's equations may say beside two operands and letters that differ: diagonals,
 * "...", one operand and many, no arrow. Against plain loops over the letters of an equation that spells
 * everything out. */
#include "support.h"

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

enum { MOST = 4 };

typedef struct operands {
    int n;
    mb_tensor xs[MOST];
    mb_shape shape[MOST];
    double *v[MOST];
} operands;

static operands drawn(mb_context *ctx, int n, const mb_shape *shapes)
{
    operands o = {.n = n};
    rng r = {5};
    for (int i = 0; i < n; i++) {
        o.xs[i] = draw(ctx, &r, MB_FLOAT64, shapes[i], -1, 1);
        o.shape[i] = shapes[i];
        o.v[i] = values(o.xs[i]);
    }
    return o;
}

/* The element at the letters of a term, whose end it returns by `e`; an axis of size 1 repeats. */
static int64_t element(const char **e, const mb_shape *s, const int64_t *at)
{
    int64_t i = 0;
    for (int k = 0; **e && **e != ',' && **e != '-'; (*e)++, k++)
        i = i * s->dim[k] + (s->dim[k] == 1 ? 0 : at[(int)**e]);
    return i;
}

/* By looping over all letters of "ab,bc->ac": each term's letters stand for its operand's axes. */
static double *plain(const operands *o, const char *equation, mb_shape *out)
{
    int64_t size[128] = {0}, at[128] = {0}, total = 1;
    const char *e = equation;
    for (int i = 0; i < o->n; i++, e++)
        for (int k = 0; *e && *e != ',' && *e != '-'; e++, k++)
            if (size[(int)*e] == 0 || size[(int)*e] == 1)
                size[(int)*e] = o->shape[i].dim[k];
    *out = (mb_shape){0, {0}};
    for (e = strstr(equation, "->") + 2; *e; e++)
        out->dim[out->rank++] = size[(int)*e];
    double *y = calloc((size_t)shape_count(*out) + 1, sizeof *y);
    for (int l = 0; l < 128; l++)
        total *= strchr(equation, l) && l > '>' ? size[l] : 1;
    for (int64_t i = 0; i < total; i++) {
        int64_t rest = i;
        for (int l = 127; l > '>'; l--)
            if (strchr(equation, l)) {
                at[l] = rest % size[l];
                rest /= size[l];
            }
        double product = 1;
        e = equation;
        for (int j = 0; j < o->n; j++, e++)
            product *= o->v[j][element(&e, &o->shape[j], at)];
        e = strstr(equation, "->") + 2;
        y[element(&e, out, at)] += product;
    }
    return y;
}

/* The equation means what the other one spells out. */
static void same(mb_context *ctx, const char *equation, const char *spelled, int n, const mb_shape *shapes)
{
    operands o = drawn(ctx, n, shapes);
    mb_shape s;
    double *want = plain(&o, spelled, &s);
    mb_tensor y = n == 2 ? mb_einsum(equation, o.xs[0], o.xs[1]) : mb_einsum_of(equation, o.xs, n);
    const double *got = values(y);
    expect(same_shape(mb_shape_of(y), s), "%s on %s: shape %s, not %s", equation, mb_backend_name(ctx),
           shape_text(mb_shape_of(y)), shape_text(s));
    for (int64_t i = 0; got && i < shape_count(s); i++)
        expect(near(got[i], want[i], 1e-13, 1e-13), "%s on %s: [%d] is %.17g, not %.17g", equation,
               mb_backend_name(ctx), (int)i, got[i], want[i]);
    free(want);
}

#define S(...) MB_SHAPE(__VA_ARGS__)
#define SAME(equation, spelled, ...)                                                                         \
    same(ctx, equation, spelled, (int)(sizeof((mb_shape[]){__VA_ARGS__}) / sizeof(mb_shape)),                \
         (mb_shape[]){__VA_ARGS__})

Test(einsum, one_operand)
{
    ON_BOTH
    {
        SAME("ij->ji", "ij->ji", S(3, 4));
        SAME("ij->", "ij->", S(3, 4));
        SAME("ij->j", "ij->j", S(3, 4));
        SAME("ii->i", "ii->i", S(4, 4));
        SAME("ii->", "ii->", S(4, 4));
        SAME("iji->ij", "iji->ij", S(3, 2, 3));
        SAME("ijij->ji", "ijij->ji", S(3, 2, 3, 2));
        SAME("iii->i", "iii->i", S(3, 3, 3));
        SAME("iijj->", "iijj->", S(3, 3, 2, 2));
        SAME("ii->i", "ii->i", S(0, 0));
        SAME("->", "->", MB_SHAPE0);
    }
}

Test(einsum, diagonals_of_two)
{
    ON_BOTH
    {
        SAME("ii,ij->j", "ii,ij->j", S(3, 3), S(3, 4));
        SAME("ij,jj->ij", "ij,jj->ij", S(2, 3), S(3, 3));
        SAME("bii,bi->b", "bii,bi->b", S(2, 3, 3), S(2, 3));
        SAME("iji,kjk->j", "iji,kjk->j", S(3, 2, 3), S(4, 2, 4));
    }
}

Test(einsum, no_arrow)
{
    ON_BOTH
    {
        SAME("ij,jk", "ij,jk->ik", S(2, 3), S(3, 4));
        SAME("ba", "ba->ab", S(2, 3));
        SAME("ii", "ii->", S(3, 3));
        SAME("bA", "bA->Ab", S(2, 3));
        SAME("i,i", "i,i->", S(3), S(3));
        SAME(" ij , jk ", "ij,jk->ik", S(2, 3), S(3, 4));
        SAME("...k,...jk", "abk,abjk->abj", S(2, 3, 4), S(2, 3, 5, 4));
    }
}

Test(einsum, dots)
{
    ON_BOTH
    {
        SAME("...i,...i->...", "abi,abi->ab", S(2, 3, 4), S(2, 3, 4));
        SAME("...ij,...jk->...ik", "abij,abjk->abik", S(2, 3, 4, 5), S(2, 3, 5, 2));
        SAME("...ij,...jk->...ik", "abij,bjk->abik", S(2, 3, 4, 5), S(3, 5, 2));
        SAME("...ij,...jk->...ik", "abij,abjk->abik", S(2, 1, 4, 5), S(1, 3, 5, 2));
        SAME("...ij,jk->i...k", "abij,jk->iabk", S(2, 3, 4, 5), S(5, 2));
        SAME("i...,i...->...", "iab,iab->ab", S(4, 2, 3), S(4, 2, 3));
        SAME("i...j->...", "iabj->ab", S(4, 2, 3, 5));
        SAME("...i->i", "abi->i", S(2, 3, 4));
        SAME("...ii->...i", "abii->abi", S(2, 3, 4, 4));
        SAME("...->...", "ab->ab", S(2, 3));
        SAME("...,...->...", "a,ba->ba", S(1), S(2, 3));
        SAME("...i,i->...", "i,i->", S(3), S(3));
        SAME("...i,...i->...", "ai,ai->a", S(1, 3), S(1, 3));
    }
}

Test(einsum, many_operands)
{
    ON_BOTH
    {
        SAME("ij,jk,kl->il", "ij,jk,kl->il", S(2, 3), S(3, 4), S(4, 2));
        SAME("i,j,k->kij", "i,j,k->kij", S(2), S(3), S(4));
        SAME("ij,ik,il->ljk", "ij,ik,il->ljk", S(5, 2), S(5, 3), S(5, 4));
        SAME("...i,ij,...j->...", "ai,ij,aj->a", S(3, 2), S(2, 4), S(3, 4));
        SAME("...i,ij,j...", "ai,ij,ja->a", S(3, 2), S(2, 4), S(4, 3));
        SAME("ab,b,bc,cc->ac", "ab,b,bc,cc->ac", S(2, 3), S(3), S(3, 4), S(4, 4));
        SAME("a,,a->", "a,,a->", S(3), MB_SHAPE0, S(3));
    }
}
