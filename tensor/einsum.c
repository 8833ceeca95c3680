/* SPDX-License-Identifier: MIT
 *
 * einsum.c - Einstein summation. Every axis of an operand gets a label: its letter, or for those that "..."
 * stands for their number from the last one. Labels that stand twice in an operand are made one by its
 * diagonal; then two operands at a time are contracted, each label that nobody wants any more being summed.
 */
#include "tensor/internal.h"
#include "tensor/linalg.h"

enum { LABELS = 128, OPERANDS_MOST = 64, AXES_MOST = 2 * MB_MAX_RANK };

/* The labels of an operand or of the result, axis by axis. */
typedef struct term {
    int count, dots; /* dots: how many letters stand before "..."; -1: there is none */
    unsigned char label[AXES_MOST];
} term;

typedef struct einsum {
    mb_context *ctx;
    int n;
    mb_tensor xs[OPERANDS_MOST];
    term terms[OPERANDS_MOST], result;
    bool arrow;
    int64_t size[LABELS];        /* of each label; -1: there is no such */
    unsigned char times[LABELS]; /* how often it stands in operands, at most 255 */
    const char *wrong;           /* what was wanted, once something else was got */
} einsum;

/* ---- reading the equation ---- */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* The letters up to the next comma, arrow or end, where it returns to. */
static const char *read_term(einsum *s, const char *e, term *t)
{
    *t = (term){.dots = -1};
    for (; *e && *e != ',' && *e != '-' && !s->wrong; e++) {
        if (*e == '.' && t->dots < 0 && e[1] == '.' && e[2] == '.') {
            t->dots = t->count;
            e += 2;
        } else if (is_letter(*e) && t->count < MB_MAX_RANK)
            t->label[t->count++] = (unsigned char)*e;
        else if (*e != ' ')
            s->wrong =
                is_letter(*e) ? "one letter for each axis" : "a letter, a comma, an arrow or one \"...\"";
    }
    return e;
}

static void read_equation(einsum *s, const char *e)
{
    int part = 0;
    for (; part < s->n && !s->wrong; part++) {
        e = read_term(s, e, &s->terms[part]);
        if (!s->wrong && part + 1 < s->n && *e++ != ',')
            s->wrong = "a term for each operand, as in \"ij,jk->ik\"";
    }
    s->arrow = !s->wrong && e[0] == '-' && e[1] == '>';
    if (s->arrow)
        e = read_term(s, e + 2, &s->result);
    if (!s->wrong && *e)
        s->wrong = "the form \"ij,jk->ik\" with a term for each operand";
}

/* Puts the labels of `count` axes in the place of "...". */
static void spread(term *t, int count)
{
    if (t->dots < 0)
        return;
    memmove(t->label + t->dots + count, t->label + t->dots, (size_t)(t->count - t->dots));
    for (int i = 0; i < count; i++)
        t->label[t->dots + i] = (unsigned char)(count - i);
    t->count += count;
}

/* ---- labels and sizes ---- */

/* Of "..." axes one of size 1 repeats. */
static void label_axis(einsum *s, unsigned char label, int64_t size)
{
    bool dots = !is_letter((char)label);
    s->times[label] += s->times[label] < 255;
    if (s->size[label] < 0 || (dots && s->size[label] == 1))
        s->size[label] = size;
    else if (s->size[label] != size && !(dots && size == 1))
        s->wrong = dots ? "axes of \"...\" that broadcast" : "one size for each letter";
}

static void label_operands(einsum *s)
{
    memset(s->size, -1, sizeof s->size);
    for (int i = 0; i < s->n && !s->wrong; i++) {
        const mb__node *x = mb__at(s->ctx, s->xs[i].id);
        term *t = &s->terms[i];
        if (t->count > x->rank || (t->dots < 0 && t->count != x->rank))
            s->wrong = "one letter for each axis";
        else
            spread(t, x->rank - t->count);
        for (int k = 0; k < t->count && !s->wrong; k++)
            label_axis(s, t->label[k], x->dim[k]);
    }
}

static void label_result(einsum *s)
{
    int dots = 0;
    while (dots < MB_MAX_RANK && s->size[dots + 1] >= 0)
        dots++;
    if (!s->arrow) {
        s->result = (term){.dots = 0};
        for (int l = 'A'; l <= 'z' && s->result.count < MB_MAX_RANK; l++)
            if (s->times[l] == 1)
                s->result.label[s->result.count++] = (unsigned char)l;
    }
    spread(&s->result, dots);
    bool seen[LABELS] = {false};
    for (int k = 0; k < s->result.count && !s->wrong; k++) {
        unsigned char l = s->result.label[k];
        if (s->size[l] < 0 || seen[l])
            s->wrong = seen[l] ? "each letter once in the result" : "letters of the operands in the result";
        seen[l] = true;
    }
    if (!s->wrong && s->result.count > MB_MAX_RANK)
        s->wrong = "a result of at most 8 axes";
}

/* ---- operands ---- */

static void take_out(term *t, int k)
{
    memmove(t->label + k, t->label + k + 1, (size_t)(t->count - k - 1));
    t->count--;
}

static mb_tensor without_axis(mb_tensor x, term *t, int k)
{
    take_out(t, k);
    return mb_squeeze(x, k);
}

/* The diagonal of axes j and k, as the last axis. */
static mb_tensor diagonal_of(mb_tensor x, term *t, int j, int k)
{
    mb_axes order = {0, false, {0}};
    unsigned char label = t->label[j];
    for (int i = 0; i < t->count; i++)
        if (i != j && i != k)
            order.axis[order.count++] = i;
    order.axis[order.count++] = j;
    order.axis[order.count++] = k;
    take_out(t, k);
    take_out(t, j);
    t->label[t->count++] = label;
    return mb_diagonal(mb_permute(x, order));
}

/* Each label once, and none that repeats. */
static mb_tensor operand(const einsum *s, int i, term *t)
{
    mb_tensor x = s->xs[i];
    *t = s->terms[i];
    for (int k = t->count; k-- > 0 && x.id;)
        if (!is_letter((char)t->label[k]) && mb_dim(x, k) != s->size[t->label[k]])
            x = without_axis(x, t, k);
    for (int k = 1; k < t->count && x.id; k++)
        for (int j = 0; j < k && x.id; j++)
            if (t->label[j] == t->label[k]) {
                x = diagonal_of(x, t, j, k);
                k = 0; /* from the beginning: axes have moved */
                break;
            }
    return x;
}

static int place(const term *t, unsigned char label)
{
    const unsigned char *at = memchr(t->label, label, (size_t)t->count);
    return at ? (int)(at - t->label) : -1;
}

/* x summed over labels that neither term has. */
static mb_tensor summed(mb_tensor x, term *t, const term *a, const term *b)
{
    mb_axes axes = {0, false, {0}};
    int kept = 0;
    for (int k = 0; k < t->count; k++)
        if (place(a, t->label[k]) < 0 && place(b, t->label[k]) < 0)
            axes.axis[axes.count++] = k;
        else
            t->label[kept++] = t->label[k];
    t->count = kept;
    return axes.count ? mb_sum(x, axes) : x;
}

/* a and b, every label of which is in the other or in `to`. */
static mb_tensor contracted(mb_tensor a, const term *ta, mb_tensor b, const term *tb, const term *to)
{
    int64_t axes[3 * 2 * MB_MAX_RANK];
    int labels = 0;
    for (int k = 0; k < ta->count + tb->count; k++) {
        unsigned char l = k < ta->count ? ta->label[k] : tb->label[k - ta->count];
        if (k >= ta->count && place(ta, l) >= 0)
            continue;
        int64_t *x = axes + 3 * labels++;
        x[0] = place(ta, l);
        x[1] = place(tb, l);
        x[2] = place(to, l);
    }
    return mb__contract(a, b, labels, axes);
}

/* ---- all of it ---- */

/* What is wanted of the product of the first operands up to i: labels of the result and of later operands. */
static term wanted_after(const einsum *s, int i, const term *a, const term *b)
{
    if (i + 1 == s->n)
        return s->result;
    term to = {.dots = -1};
    for (int k = 0; k < a->count + b->count; k++) {
        unsigned char l = k < a->count ? a->label[k] : b->label[k - a->count];
        bool wanted = place(&s->result, l) >= 0;
        for (int j = i + 1; j < s->n && !wanted; j++)
            wanted = place(&s->terms[j], l) >= 0;
        if (wanted && place(&to, l) < 0)
            to.label[to.count++] = l;
    }
    return to;
}

static mb_tensor ordered(const einsum *s, mb_tensor x, const term *t)
{
    mb_axes order = {s->result.count, false, {0}};
    for (int k = 0; k < order.count; k++)
        order.axis[k] = place(t, s->result.label[k]);
    return x.id ? mb_permute(x, order) : x;
}

static mb_tensor evaluate(const einsum *s)
{
    term t, u;
    mb_tensor x = operand(s, 0, &t);
    for (int i = 1; i < s->n && x.id; i++) {
        mb_tensor y = operand(s, i, &u);
        term to = wanted_after(s, i, &t, &u);
        if (to.count > MB_MAX_RANK) {
            mb__error(s->ctx, MB_INVALID,
                      "einsum: the product of the first %d operands has %d axes; wanted at most %d", i + 1,
                      to.count, MB_MAX_RANK);
            return mb__poison(s->ctx);
        }
        if (!y.id)
            return y;
        const term before = t;
        x = summed(x, &t, &u, &to);
        y = summed(y, &u, &before, &to);
        x = contracted(x, &t, y, &u, &to);
        t = to;
    }
    if (s->n > 1 || !x.id)
        return x;
    return ordered(s, summed(x, &t, &s->result, &s->result), &t);
}

static mb_tensor refuse(const einsum *s, const char *equation)
{
    char text[2][256] = {""};
    for (int i = 0; i < s->n && i < 2; i++)
        mb__tensor_text(text[i], sizeof text[i], s->xs[i]);
    mb__error(s->ctx, MB_INVALID, "einsum: got \"%s\", a %s%s%s%s; wanted %s", equation ? equation : "(null)",
              text[0], s->n > 1 ? ", b " : "", text[1], s->n > 2 ? " and more" : "", s->wrong);
    return mb__poison(s->ctx);
}

static mb_tensor einsum_of(mb_context *ctx, const char *equation, const mb_tensor *xs, int n)
{
    einsum s = {.ctx = ctx, .n = n};
    memcpy(s.xs, xs, (size_t)n * sizeof *xs);
    int dtype = mb__at(ctx, xs[0].id)->dtype;
    for (int i = 0; i < n; i++)
        if (!mb__is_float(dtype) || mb__at(ctx, xs[i].id)->dtype != dtype)
            s.wrong = "operands of one float dtype";
    if (!s.wrong)
        read_equation(&s, equation ? equation : "(null)");
    if (!s.wrong)
        label_operands(&s);
    if (!s.wrong)
        label_result(&s);
    return s.wrong ? refuse(&s, equation) : evaluate(&s);
}

mb_tensor mb_einsum_at(const char *site, const char *equation, mb_tensor a, mb_tensor b)
{
    MB_ENTER(site, "einsum", &a, &b);
    return einsum_of(ctx, equation, (mb_tensor[]){a, b}, 2);
}

mb_tensor mb_einsum_of_at(const char *site, const char *equation, const mb_tensor *xs, int n)
{
    mb_context *ctx = xs && n > 0 ? xs[0].ctx : NULL;
    MB_DOOR(ctx, site, mb__poison(ctx));
    if (!ctx)
        return mb__poison(NULL); /* there is no context to report it to */
    mb_tensor poison;
    for (int i = 0; i < n; i++)
        if (!mb__enter("einsum", (const mb_tensor *[]){&xs[0], &xs[i]}, 2, &poison))
            return poison;
    if (n <= OPERANDS_MOST)
        return einsum_of(ctx, equation, xs, n);
    mb__error(ctx, MB_INVALID, "einsum: got %d operands; wanted at most %d", n, OPERANDS_MOST);
    return mb__poison(ctx);
}
