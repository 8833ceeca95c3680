/* SPDX-License-Identifier: MIT
 *
 * ops_select.c - ops whose result has as many entries as the data says. A shape is known when it is recorded,
 * so the number is read on the host, in a flush, and the rest is recorded. */
#include "compose.h"

/* The positions where a condition of one axis holds, in order: those that hold sort first. */
static mb_tensor positions(call *c, mb_tensor holds)
{
    mb_tensor count = mb_sum(holds, MB_ALL);
    int64_t n = (int64_t)*read_reals(c, count);
    return mb_slice(mb_argsort(mb_cast(mb_not(holds), MB_INT32)), 0, 0, n, 1);
}

static void non_zero_op(call *c)
{
    mb_tensor x = input(c, 0);
    mb_shape shape = mb_shape_of(x);
    mb_tensor flat = positions(c, mb_cast(flattened(x, 0, shape.rank), MB_BOOL));
    mb_tensor rows[MB_MAX_RANK];
    for (int i = shape.rank - 1; i >= 0; i--) {
        mb_tensor above = mb_floor_divide(flat, literal_like(flat, (double)shape.dim[i]));
        rows[i] = mb_sub(flat, mb_mul(above, (double)shape.dim[i]));
        flat = above;
    }
    give_as(c, 0, mb_stack(rows, shape.rank, 0), ELEM_INT64);
}

static void compress_op(call *c)
{
    mb_tensor x = input(c, 0), holds = input(c, 1);
    if (!x.ctx || !holds.ctx)
        return;
    int rank = mb_shape_of(x).rank;
    if (!attribute(c, "axis"))
        x = flattened(x, 0, rank);
    int axis = attribute(c, "axis") ? axis_of(attribute_int(c, "axis", 0), rank) : 0;
    give(c, 0, mb_take(x, positions(c, holds), axis));
}

/* ---- Unique ---- */

/* The order of rows of [n, m], by their first entry, then the second, and so on: sorted by each column, the
 * last first; equal rows stay in order. */
static mb_tensor row_order(mb_tensor rows)
{
    mb_tensor order = mb_iota(rows.ctx, MB_INT32, mb_dim(rows, 0));
    for (int64_t j = mb_dim(rows, 1) - 1; j >= 0; j--) {
        mb_tensor column = mb_squeeze(mb_slice(rows, 1, j, 1, 1), 1);
        order = mb_take(order, mb_argsort(mb_take(column, order, 0)), 0);
    }
    return order;
}

/* Of sorted rows: true where one differs from the one before. */
static mb_tensor begins(call *c, mb_tensor rows)
{
    int64_t n = mb_dim(rows, 0);
    mb_tensor first = mb_full(c->mb, MB_BOOL, MB_SHAPE(1), 1);
    mb_tensor same = mb_eq(mb_slice(rows, 0, 1, n - 1, 1), mb_slice(rows, 0, 0, n - 1, 1));
    mb_tensor differs = mb_sum(mb_not(same), MB_AXES(1));
    return mb_concat(((mb_tensor[]){first, mb_cast(differs, MB_BOOL)}), 2, 0);
}

/* Groups of equal rows: where each is first seen, the group of each row, how many are in each. */
typedef struct groups {
    mb_tensor first, of_row, size;
} groups;

static groups group_rows(call *c, mb_tensor rows)
{
    int64_t n = mb_dim(rows, 0);
    mb_tensor order = row_order(rows), begin = begins(c, mb_take(rows, order, 0));
    mb_tensor number = mb_sub(mb_cumsum(mb_cast(begin, MB_INT32), 0, false), 1.0);
    groups g = {.first = mb_take(order, positions(c, begin), 0)};
    g.of_row = mb_scatter_add(number, order, 0, n);
    g.size = mb_scatter_add(mb_ones(c->mb, MB_INT32, MB_SHAPE(n)), number, 0, mb_count(g.first));
    return g;
}

/* Groups in the order in which they are first seen. */
static groups as_seen(groups g)
{
    mb_tensor order = mb_argsort(g.first), rank = mb_argsort(order);
    return (groups){.first = mb_take(g.first, order, 0),
                    .of_row = mb_take(rank, g.of_row, 0),
                    .size = mb_take(g.size, order, 0)};
}

static void unique_op(call *c)
{
    mb_tensor x = input(c, 0);
    int rank = mb_shape_of(x).rank;
    if (!attribute(c, "axis"))
        x = flattened(x, 0, rank);
    rank = mb_shape_of(x).rank;
    int axis = axis_of(attribute_int(c, "axis", 0), rank);
    mb_tensor rows = mb_reshape(moved(x, axis, 0), MB_SHAPE(mb_dim(x, axis), -1));
    groups g = group_rows(c, rows);
    if (!attribute_int(c, "sorted", 1))
        g = as_seen(g);
    give(c, 0, mb_take(x, g.first, axis));
    give_as(c, 1, g.first, ELEM_INT64);
    give_as(c, 2, g.of_row, ELEM_INT64);
    give_as(c, 3, g.size, ELEM_INT64);
}

/* ---- NonMaxSuppression ---- */

/* Boxes [n,4] as their lower corner and their upper: from two opposite corners in any order (y, x, y, x), or
 * from centre and size (x, y, width, height). */
static void corners(call *c, mb_tensor boxes, mb_tensor *low, mb_tensor *high)
{
    mb_tensor a = mb_slice(boxes, 1, 0, 2, 1), b = mb_slice(boxes, 1, 2, 2, 1);
    bool centre = attribute_int(c, "center_point_box", 0) != 0;
    mb_tensor half = mb_mul(b, 0.5);
    *low = centre ? mb_sub(a, half) : mb_minimum(a, b);
    *high = centre ? mb_add(a, half) : mb_maximum(a, b);
}

static mb_tensor product2(mb_tensor pairs)
{
    return mb_mul(mb_squeeze(mb_slice(pairs, 1, 0, 1, 1), 1), mb_squeeze(mb_slice(pairs, 1, 1, 1, 1), 1));
}

/* Intersection over union of each box with the one at `at` (int32, 0-d). */
static mb_tensor overlap(mb_tensor low, mb_tensor high, mb_tensor at)
{
    mb_tensor lower = mb_take(low, at, 0), upper = mb_take(high, at, 0);
    mb_tensor sides = mb_maximum(mb_sub(mb_minimum(high, upper), mb_maximum(low, lower)), 0.0);
    mb_tensor common = product2(sides), areas = product2(mb_sub(high, low));
    return mb_div(common, mb_sub(mb_add(areas, mb_take(areas, at, 0)), common));
}

/* Up to `most` boxes by falling score, none that overlaps a chosen one too much: their numbers, and -1 where
 * no box is left. */
static mb_tensor chosen_boxes(call *c, mb_tensor boxes, mb_tensor scores, int64_t most)
{
    enum { MOST = 64 };
    mb_tensor low, high, out[MOST];
    double iou = host_real(c, 3, 0), worst = host_real(c, 4, -1e30);
    mb_tensor gone = literal_like(scores, -1e30), number = mb_iota(c->mb, MB_INT32, mb_dim(scores, 0));
    corners(c, boxes, &low, &high);
    scores = mb_where(mb_lt(literal_like(scores, worst), scores), scores, gone);
    most = most < MOST ? most : MOST;
    most = most < mb_dim(scores, 0) ? most : mb_dim(scores, 0);
    for (int64_t k = 0; k < most; k++) {
        mb_tensor best = mb_argmax(scores, 0);
        mb_tensor there = mb_lt(gone, mb_max(scores, MB_ALL));
        out[k] = mb_where(there, best, literal_like(best, -1));
        mb_tensor away = mb_lt(literal_like(scores, iou), overlap(low, high, best));
        scores = mb_where(mb_or(away, mb_eq(number, best)), gone, scores);
    }
    return mb_stack(out, (int)most, 0);
}

static void non_max_suppression_op(call *c)
{
    mb_tensor boxes = input(c, 0), scores = input(c, 1);
    int64_t most = host_int(c, 2, 0), batches = mb_dim(scores, 0), classes = mb_dim(scores, 1);
    int64_t most_rows = batches * classes, count = 0, *rows;
    rows = ARENA_NEW(c->run->memory, int64_t, 3 * most_rows * (most > 0 ? mb_dim(scores, 2) : 0));
    for (int64_t r = 0; r < most_rows && most > 0; r++) {
        mb_tensor row = mb_squeeze(mb_slice(flattened(scores, 0, 2), 0, r, 1, 1), 0);
        mb_tensor own = mb_squeeze(mb_slice(boxes, 0, r / classes, 1, 1), 0);
        mb_tensor chosen = chosen_boxes(c, own, row, most);
        double *numbers = read_reals(c, chosen);
        for (int64_t k = 0; k < mb_count(chosen) && numbers[k] >= 0; k++) {
            int64_t *out = rows + 3 * count++;
            out[0] = r / classes;
            out[1] = r % classes;
            out[2] = (int64_t)numbers[k];
        }
    }
    give_as(c, 0, ints(c, MB_SHAPE(count, 3), rows), ELEM_INT64);
}

/* ---- TfIdfVectorizer ---- */

/* How often a gram of n words stands in rows of x: [rows, words], its words `apart` from one another. ->
 * [rows] */
static mb_tensor gram_count(mb_tensor x, const int64_t *gram, int n, int64_t apart)
{
    int64_t places = mb_dim(x, 1) - (n - 1) * apart;
    mb_tensor all = {0};
    for (int j = 0; j < n; j++) {
        mb_tensor word = mb_slice(x, 1, j * apart, places > 0 ? places : 0, 1);
        mb_tensor match = mb_eq(word, literal_like(x, (double)gram[j]));
        all = j == 0 ? match : mb_and(all, match);
    }
    return mb_sum(all, MB_AXES(1));
}

/* Term counts (mode TF) of integers. The pool holds first all grams of one word, then those of two, and so
 * on; ngram_counts says where each begins, ngram_indexes in which column a gram is counted. */
static void tf_idf_op(call *c)
{
    int pools, starts, columns;
    const int64_t *pool = attribute_ints(c, "pool_int64s", &pools),
                  *start = attribute_ints(c, "ngram_counts", &starts);
    const int64_t *column = attribute_ints(c, "ngram_indexes", &columns);
    int64_t most = attribute_int(c, "max_skip_count", 0), width = 0;
    mb_tensor x = input(c, 0), y[64];
    if (!pool || columns > 64 || !attribute_is(c, "mode", "TF", "")) {
        leave(c, "strings, or weights");
        return;
    }
    int rank = mb_shape_of(x).rank, gram = 0;
    x = rank == 1 ? mb_unsqueeze(x, 0) : x;
    for (int i = 0; i < columns; i++, width++)
        y[i] = mb_zeros(c->mb, MB_INT32, MB_SHAPE(mb_dim(x, 0)));
    for (int n = 1; n <= starts; n++)
        for (int64_t at = start[n - 1]; at + n <= (n < starts ? start[n] : pools); at += n, gram++)
            for (int64_t skip = 0; n >= attribute_int(c, "min_gram_length", 1) && skip <= (n > 1 ? most : 0);
                 skip++)
                y[column[gram]] = mb_add(y[column[gram]], gram_count(x, pool + at, n, skip + 1));
    mb_tensor counts = mb_cast(mb_stack(y, (int)width, 1), MB_FLOAT32);
    give_as(c, 0, rank == 1 ? mb_squeeze(counts, 0) : counts, ELEM_FLOAT);
}

const op select_ops[] = {
    {"Compress", compress_op, true}, {"NonMaxSuppression", non_max_suppression_op, true},
    {"NonZero", non_zero_op, true},  {"TfIdfVectorizer", tf_idf_op, true},
    {"Unique", unique_op, true},     {0},
};
