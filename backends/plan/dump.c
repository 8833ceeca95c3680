/* SPDX-License-Identifier: MIT
 * dump.c - text in tables and DOT's strings, and the first stages of a plan: tape, graph, groups. */
#include <stdarg.h>
#include <stdio.h>

#include "backends/plan/dump.h"

/* ---- text ---- */

static void say_text(const mb__writer *w, const char *text)
{
    w->write(w->user, text, strlen(text));
}

void mb__say(const mb__writer *w, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    say_text(w, text);
}

void mb__say_quoted(const mb__writer *w, const char *text)
{
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            w->write(w->user, "\\", 1);
        w->write(w->user, text, 1);
    }
}

void mb__cell_add(mb__cell cell, const char *format, ...)
{
    size_t used = strlen(cell);
    va_list args;
    va_start(args, format);
    vsnprintf(cell + used, MB_CELL_BYTES - used, format, args);
    va_end(args);
}

void mb__cell_list(mb__cell cell, const int64_t *list, int count)
{
    for (int i = 0; i < count; i++)
        mb__cell_add(cell, "%s%lld", i ? "," : "", (long long)list[i]);
}

void mb__cell_shape(mb__cell cell, const int64_t *dim, int rank)
{
    mb__cell_add(cell, "[");
    mb__cell_list(cell, dim, rank);
    mb__cell_add(cell, "]");
}

/* Cells are made twice, once to measure the columns: no row is kept. */
void mb__say_table(const mb__writer *w, const char *indent, const char *const *heads, int columns, int rows,
                   void (*row)(const void *of, int row, mb__cell *cells), const void *of)
{
    mb__cell cells[MB_CELLS];
    int width[MB_CELLS];
    for (int c = 0; c < columns; c++)
        width[c] = (int)strlen(heads[c]);
    for (int turn = 0; turn < 2; turn++)
        for (int r = -turn; r < rows; r++) {
            for (int c = 0; c < columns; c++)
                snprintf(cells[c], sizeof cells[c], "%s", r < 0 ? heads[c] : "");
            if (r >= 0)
                row(of, r, cells);
            int last = columns - 1;
            while (last > 0 && !cells[last][0])
                last--;
            for (int c = 0; c <= last; c++) {
                int length = (int)strlen(cells[c]);
                if (!turn)
                    width[c] = length > width[c] ? length : width[c];
                else if (c < last)
                    mb__say(w, "%s%-*s", c ? "  " : indent, width[c], cells[c]);
                else
                    mb__say(w, "%s%s\n", c ? "  " : indent, cells[c]);
            }
        }
}

const char *mb__kop_name(int op)
{
    static const char *const names[] = {"load", "const", "scalar", "iota", "random", "sum", "max", "copy"};
    return op < MB_OP_COUNT ? mb__ops[op].name : names[op - MB_K_LOAD];
}

/* ---- nodes ---- */

/* "ab,bc->ac" */
static void add_labels(const mb__gnode *n, mb__cell cell)
{
    char letters[3][MB_MAX_RANK + 1] = {{0}};
    for (int l = 0; l < n->attr[0]; l++)
        for (int side = 0; side < 3; side++)
            if (n->attr[1 + 3 * l + side] >= 0)
                letters[side][n->attr[1 + 3 * l + side]] = (char)('a' + l);
    mb__cell_add(cell, "%s,%s->%s", letters[0], letters[1], letters[2]);
}

static void add_mask(uint32_t mask, mb__cell cell)
{
    const char *between = "axes ";
    for (int i = 0; i < MB_MAX_RANK; i++)
        if (mask >> i & 1) {
            mb__cell_add(cell, "%s%d", between, i);
            between = ",";
        }
}

/* What a node does beside its op: attributes, and what is bound at each run. */
static void add_attributes(const mb__gnode *n, mb__cell cell)
{
    double number;
    switch (n->op) {
    case MB_OP_CONST:
        memcpy(&number, n->attr, sizeof number);
        mb__cell_add(cell, "%.9g", number);
        return;
    case MB_OP_BUFFER:
        mb__cell_add(cell, "input %d", n->bind);
        return;
    case MB_OP_SCALAR:
    case MB_OP_RANDOM:
        mb__cell_add(cell, "bound %d", n->bind);
        return;
    case MB_OP_DRAW:
        mb__cell_add(cell, "bound %d, %lld a part", n->bind, (long long)n->attr[0]);
        return;
    case MB_OP_CONTRACT:
        add_labels(n, cell);
        return;
    case MB_OP_TRIANGULAR_SOLVE:
        mb__cell_add(cell, "%s%s", n->attr[0] ? "upper" : "lower", n->attr[1] ? ", unit diagonal" : "");
        return;
    case MB_OP_SCAN: /* its operands are in the order of the body's inputs */
        mb__cell_add(cell, "loop %lld", (long long)n->attr[0]);
        return;
    case MB_OP_RESULT:
        mb__cell_add(cell, "result %lld", (long long)n->attr[0]);
        return;
    case MB_OP_WINDOW:
    case MB_OP_FOLD:
        mb__cell_add(cell, "axis %lld, stride %lld, dilation %lld", (long long)n->attr[0],
                     (long long)n->attr[1], (long long)n->attr[2]);
        return;
    case MB_OP_MAP:
        mb__cell_add(cell, "%s", mb__custom_of(n->attr)->name);
        return;
    case MB_OP_CALL:
        mb__cell_add(cell, "%s, %lld loop axes", mb__custom_of(n->attr)->name, (long long)n->attr[1]);
        return;
    case MB_OP_SLICE:
    case MB_OP_PAD:
        for (int j = 0; j < n->nin; j++) { /* pads have a place for each operand */
            mb__cell_add(cell, "%sfrom ", j ? "; " : "");
            mb__cell_list(cell, n->attr + 2 * n->rank * j, n->rank);
            mb__cell_add(cell, " by ");
            mb__cell_list(cell, n->attr + 2 * n->rank * j + n->rank, n->rank);
        }
        return;
    default:
        break;
    }
    if (mb__is_reduce(n->op)) {
        add_mask((uint32_t)n->attr[0], cell);
    } else if (n->nattr) {
        bool axis = n->op < MB_OP_COUNT && n->op != MB_OP_PERMUTE;
        mb__cell_add(cell, axis ? "axis " : "axes ");
        mb__cell_list(cell, n->attr, axis ? 1 : n->nattr);
        if (axis && n->nattr > 1)
            mb__cell_add(cell, "; ");
        mb__cell_list(cell, n->attr + 1, axis ? n->nattr - 1 : 0);
    }
}

static void add_operands(const mb__gnode *n, mb__cell cell)
{
    enum { SHOWN = 12 };
    for (int j = 0; j < n->nin && j < SHOWN; j++)
        mb__cell_add(cell, "%s%d", j ? " " : "", n->in[j]);
    if (n->nin > SHOWN)
        mb__cell_add(cell, " ... %d, %d of them", n->in[n->nin - 1], n->nin);
}

/* Where the elements are: in storage of its own, in another node's, or made where they are read. */
static void add_memory(const mb__graph *g, int i, bool tape, mb__cell cell)
{
    const mb__gnode *n = &g->nodes[i];
    long long bytes = (long long)mb__gcount(n) * (long long)mb_dtype_size((mb_dtype)n->dtype);
    if (tape) {
        mb__cell_add(cell, "%lld B", bytes);
    } else if (mb__has_flag(g->nodes[n->base].op, MB_FLAG_GENERATED) && n->base == i) {
        mb__cell_add(cell, "none");
    } else if (n->base == i) {
        mb__cell_add(cell, "%lld B", bytes);
    } else {
        mb__cell_add(cell, "in %d", n->base);
        if (n->offset)
            mb__cell_add(cell, "%+lld", (long long)n->offset);
        mb__cell_add(cell, " by ");
        mb__cell_list(cell, n->stride, n->rank);
    }
}

/* The output number of node i. As recorded, the outputs are listed by rising node. */
static int output_of(const mb__graph *g, int i, bool tape)
{
    if (!tape)
        return g->nodes[i].output;
    int low = 0, high = g->output_count;
    while (low < high) {
        int mid = (low + high) / 2;
        if (g->outputs[mid] < i)
            low = mid + 1;
        else
            high = mid;
    }
    return low < g->output_count && g->outputs[low] == i ? low : -1;
}

typedef struct listing {
    const mb__graph *g;
    const mb__fusion *f;
    const int32_t *nodes; /* NULL: all */
    int group;
    bool tape;
} listing;

static void node_row(const void *of, int row, mb__cell *cells)
{
    const listing *l = of;
    int i = l->nodes ? l->nodes[row] : row;
    const mb__gnode *n = &l->g->nodes[i];
    mb__cell_add(cells[0], "%d", i);
    mb__cell_add(cells[1], "%s", mb__kop_name(n->op));
    add_operands(n, cells[2]);
    mb__cell_shape(cells[3], n->dim, n->rank);
    mb__cell_add(cells[4], "%s", mb_dtype_name((mb_dtype)n->dtype));
    int output = output_of(l->g, i, l->tape);
    if (l->f) {
        if (l->f->stored[i] && l->f->owner[i] == l->group)
            mb__cell_add(cells[5], "stored");
        if (output >= 0)
            mb__cell_add(cells[5], ", output %d", output);
    } else {
        add_attributes(n, cells[5]);
        if (output >= 0)
            mb__cell_add(cells[5], "%soutput %d", cells[5][0] ? "; " : "", output);
        add_memory(l->g, i, l->tape, cells[6]);
    }
    mb__cell_add(cells[l->f ? 6 : 7], "%s", n->site ? n->site : "");
}

static void dot_node(const mb__writer *w, const mb__graph *g, int i, const char *prefix, bool strong)
{
    const mb__gnode *n = &g->nodes[i];
    mb__cell text = "", shape = "";
    add_attributes(n, text);
    mb__cell_shape(shape, n->dim, n->rank);
    mb__say(w, "  %s%d [label=\"%d %s%s%s\\n%s %s\\n", prefix, i, i, mb__kop_name(n->op), text[0] ? " " : "",
            text, shape, mb_dtype_name((mb_dtype)n->dtype));
    mb__say_quoted(w, n->site ? n->site : "");
    mb__say(w, "\"%s];\n", strong ? " peripheries=2" : n->nin ? "" : " style=filled");
}

static void dot_begin(const mb__writer *w, const char *name)
{
    mb__say(w, "digraph \"%s\" {\n  node [shape=box fontname=monospace fontsize=10];\n", name);
}

void mb__dump_graph(const mb__writer *w, const mb__graph *g, bool tape, bool dot)
{
    static const char *const heads[] = {"node",  "op",   "operands", "shape",
                                        "dtype", "what", "memory",   "recorded at"};
    if (!dot) {
        mb__say_table(w, "", heads, 8, g->count, node_row, &(listing){.g = g, .tape = tape});
        return;
    }
    dot_begin(w, tape ? "tape" : "graph");
    for (int i = 0; i < g->count; i++) {
        dot_node(w, g, i, "n", output_of(g, i, tape) >= 0);
        for (int j = 0; j < g->nodes[i].nin; j++)
            mb__say(w, "  n%d -> n%d%s;\n", g->nodes[i].in[j], i,
                    !tape && g->nodes[i].base != i ? " [style=dashed]" : "");
    }
    mb__say(w, "}\n");
}

/* ---- groups ---- */

/* "group 3: over [4,2], a row is axes 1" */
static void group_head(const mb__fusion *f, int entry, mb__cell cell)
{
    const mb__group *gr = &f->groups[f->schedule[entry]];
    mb__cell_add(cell, "group %d: over ", entry);
    mb__cell_shape(cell, gr->dim, gr->rank);
    if (gr->row_mask) {
        mb__cell_add(cell, ", a row is ");
        add_mask(gr->row_mask, cell);
    }
}

static void dump_groups_text(const mb__writer *w, const mb__graph *g, const mb__fusion *f)
{
    static const char *const heads[] = {"node", "op", "operands", "shape", "dtype", "", "recorded at"};
    for (int e = 0; e < f->schedule_count; e++) {
        mb__cell head = "";
        int32_t single = -1 - f->schedule[e];
        listing l = {.g = g, .f = f, .group = f->schedule[e]};
        if (f->schedule[e] >= 0) {
            group_head(f, e, head);
            l.nodes = f->groups[f->schedule[e]].members;
        } else {
            mb__cell_add(head, "group %d: a step of its own", e);
            l.nodes = &single;
            l.group = -1;
        }
        mb__say(w, "%s%s\n", e ? "\n" : "", head);
        mb__say_table(w, "  ", heads, 7, l.group >= 0 ? f->groups[l.group].member_count : 1, node_row, &l);
    }
}

/* Node i as group e's member, or as a step of its own. */
static void dot_name(const mb__writer *w, int32_t group, int32_t i)
{
    if (group >= 0)
        mb__say(w, "g%d_%d", group, i);
    else
        mb__say(w, "n%d", i);
}

static bool is_member(const mb__group *gr, int32_t i)
{
    for (int m = 0; m < gr->member_count; m++)
        if (gr->members[m] == i)
            return true;
    return false;
}

/* Edges to node i from where its operands are computed: in the same group, or where they are stored. */
static void dot_edges(const mb__writer *w, const mb__graph *g, const mb__fusion *f, int32_t group, int32_t i)
{
    for (int j = 0; j < g->nodes[i].nin; j++) {
        int32_t base = g->nodes[g->nodes[i].in[j]].base;
        bool inside = group >= 0 && is_member(&f->groups[group], base);
        mb__say(w, "  ");
        dot_name(w, inside ? group : f->owner[base], base);
        mb__say(w, " -> ");
        dot_name(w, group, i);
        mb__say(w, ";\n");
    }
}

static void dot_member(const mb__writer *w, const mb__graph *g, const mb__fusion *f, int32_t group, int32_t i)
{
    char prefix[24];
    snprintf(prefix, sizeof prefix, group >= 0 ? "g%d_" : "n", group);
    dot_node(w, g, i, prefix, f->stored[i] && f->owner[i] == group);
}

static void dump_groups_dot(const mb__writer *w, const mb__graph *g, const mb__fusion *f)
{
    dot_begin(w, "groups");
    for (int i = 0; i < g->count; i++)
        if (!g->nodes[i].nin)
            dot_node(w, g, i, "n", false);
    for (int e = 0; e < f->schedule_count; e++) {
        int32_t group = f->schedule[e];
        mb__cell head = "";
        if (group < 0) {
            dot_member(w, g, f, -1, -1 - group);
            continue;
        }
        group_head(f, e, head);
        mb__say(w, "  subgraph cluster%d {\n  label=\"%s\";\n", e, head);
        for (int m = 0; m < f->groups[group].member_count; m++)
            dot_member(w, g, f, group, f->groups[group].members[m]);
        mb__say(w, "  }\n");
    }
    for (int e = 0; e < f->schedule_count; e++) {
        int32_t group = f->schedule[e];
        for (int m = 0; group >= 0 && m < f->groups[group].member_count; m++)
            dot_edges(w, g, f, group, f->groups[group].members[m]);
        if (group < 0)
            dot_edges(w, g, f, -1, -1 - group);
    }
    mb__say(w, "}\n");
}

void mb__dump_groups(const mb__writer *w, const mb__graph *g, const mb__fusion *f, bool dot)
{
    if (dot)
        dump_groups_dot(w, g, f);
    else
        dump_groups_text(w, g, f);
}
