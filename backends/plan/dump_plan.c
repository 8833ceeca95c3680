/* SPDX-License-Identifier: MIT
 * dump_plan.c - the last stages of a plan as text and as DOT: steps, kernels, arena. */
#include <stdio.h>

#include "backends/plan/label.h"
#include "backends/plan/dump.h"

void mb__cell_value(const mb__plan *plan, int32_t i, mb__cell cell)
{
    const mb__value *v = &plan->values[i];
    bool arena = v->storage == MB_IN_ARENA;
    mb__cell_add(cell, "%s%d", arena ? "v" : v->storage == MB_IN_INPUT ? "in" : "out", arena ? i : v->index);
}

/* The i-th value that a step reads, or writes; false past the last, -1 for none. */
static bool step_reads(const mb__step *s, int i, int32_t *value)
{
    switch (s->kind) {
    case MB_STEP_KERNEL:
        *value = i < s->u.kernel.instr_count && s->u.kernel.instrs[i].op == MB_K_LOAD
                     ? s->u.kernel.instrs[i].view.value
                     : -1;
        return i < s->u.kernel.instr_count;
    case MB_STEP_PRODUCT:
        *value = i ? s->u.product->b.value : s->u.product->a.value;
        return i < 2;
    case MB_STEP_OTHER:
        *value = i ? s->u.other->index.value : s->u.other->in.value;
        return i < 2;
    case MB_STEP_LOOP:
        *value = i < s->u.loop->inputs ? s->u.loop->in[i].value : -1;
        return i < s->u.loop->inputs;
    case MB_STEP_CUSTOM:
        *value = i < s->u.custom->op->spec.operands ? s->u.custom->in[i].view.value : -1;
        return i < s->u.custom->op->spec.operands;
    default:
        return false;
    }
}

static bool step_writes(const mb__step *s, int i, int32_t *value)
{
    if (s->kind == MB_STEP_KERNEL) {
        *value = i < s->u.kernel.store_count ? s->u.kernel.stores[i].view.value : -1;
        return i < s->u.kernel.store_count;
    }
    if (s->kind == MB_STEP_LOOP) {
        *value = i < s->u.loop->outputs ? s->u.loop->out[i].value : -1;
        return i < s->u.loop->outputs;
    }
    *value = s->kind == MB_STEP_PRODUCT  ? s->u.product->c.value
             : s->kind == MB_STEP_OTHER  ? s->u.other->out.value
             : s->kind == MB_STEP_CUSTOM ? s->u.custom->out[0].view.value /* all results are one value */
                                         : s->u.zero;
    return i < 1;
}

/* Whether an earlier i gave the same value: each is named once. */
static bool seen(const mb__step *s, int i, int32_t value, bool (*next)(const mb__step *, int, int32_t *))
{
    int32_t before;
    for (int j = 0; j < i; j++)
        if (next(s, j, &before) && before == value)
            return true;
    return false;
}

static void add_values(const mb__plan *plan, const mb__step *s,
                       bool (*next)(const mb__step *, int, int32_t *), mb__cell cell)
{
    int32_t value;
    for (int i = 0; next(s, i, &value); i++)
        if (value >= 0 && !seen(s, i, value, next)) {
            mb__cell_add(cell, cell[0] ? " " : "");
            mb__cell_value(plan, value, cell);
        }
}

/* ---- steps ---- */

static void step_row(const void *of, int row, mb__cell *cells)
{
    const mb__plan *plan = of;
    const mb__step *s = &plan->steps[row];
    mb__cell_add(cells[0], "%d", row);
    mb__step_label(plan, row, cells[1], sizeof cells[1]);
    add_values(plan, s, step_reads, cells[2]);
    add_values(plan, s, step_writes, cells[3]);
    mb__cell_add(cells[4], "%s", s->site ? s->site : "");
}

static void dot_steps(const mb__writer *w, const mb__plan *plan)
{
    mb__say(w, "digraph \"steps\" {\n  node [shape=box fontname=monospace fontsize=10];\n");
    for (int i = 0; i < plan->value_count; i++) {
        mb__cell name = "";
        mb__cell_value(plan, i, name);
        mb__say(w, "  v%d [shape=ellipse label=\"%s\\n%lld %s\"%s];\n", i, name,
                (long long)plan->values[i].count, mb_dtype_name((mb_dtype)plan->values[i].dtype),
                plan->values[i].storage == MB_IN_OUTPUT  ? " peripheries=2"
                : plan->values[i].storage == MB_IN_INPUT ? " style=filled"
                                                         : "");
    }
    for (int s = 0; s < plan->step_count; s++) {
        const mb__step *step = &plan->steps[s];
        mb__cell label = "";
        int32_t value;
        mb__step_label(plan, s, label, sizeof label);
        mb__say(w, "  s%d [label=\"%d %s\\n", s, s, label);
        mb__say_quoted(w, step->site ? step->site : "");
        mb__say(w, "\"];\n");
        for (int i = 0; step_reads(step, i, &value); i++)
            if (value >= 0 && !seen(step, i, value, step_reads))
                mb__say(w, "  v%d -> s%d;\n", value, s);
        for (int i = 0; step_writes(step, i, &value); i++)
            mb__say(w, "  s%d -> v%d;\n", s, value);
    }
    mb__say(w, "}\n");
}

void mb__dump_steps(const mb__writer *w, const mb__plan *plan, bool dot)
{
    static const char *const heads[] = {"step", "what", "reads", "writes", "recorded at"};
    if (dot)
        dot_steps(w, plan);
    else
        mb__say_table(w, "", heads, 5, plan->step_count, step_row, plan);
}

/* ---- kernels: their instructions, in the order in which they run ---- */

static void add_view(const mb__plan *plan, const mb__view *v, int rank, mb__cell cell)
{
    if (v->value >= 0)
        mb__cell_value(plan, v->value, cell);
    if (v->offset)
        mb__cell_add(cell, "%+lld", (long long)v->offset);
    mb__cell_add(cell, "%sby ", cell[0] ? " " : "");
    mb__cell_list(cell, v->stride, rank);
}

/* What an instruction works on. */
static void add_arguments(const mb__plan *plan, const mb__kernel *k, const mb__instr *in, mb__cell cell)
{
    if (in->op == MB_K_CONST)
        mb__cell_add(cell, "%.9g", in->number);
    else if (in->op == MB_K_LOAD || in->op == MB_K_IOTA)
        add_view(plan, &in->view, k->rank, cell);
    if (in->op == MB_K_SCALAR || in->op == MB_K_RANDOM)
        mb__cell_add(cell, "bound %d", in->bind);
    if (in->op == MB_K_RANDOM) {
        mb__cell at = "";
        add_view(plan, &in->view, k->rank, at);
        mb__cell_add(cell, " at %s", at);
    }
    if (in->op == MB_OP_DRAW)
        mb__cell_add(cell, "bound %d, %.0f a part, of ", in->bind, in->number);
    for (int j = 0; j < 3 && in->in[j] >= 0; j++)
        mb__cell_add(cell, "%si%d", j ? " " : "", in->in[j]);
}

typedef struct of_kernel {
    const mb__plan *plan;
    const mb__kernel *k;
} of_kernel;

static void store_row(const of_kernel *of, const mb__store *s, mb__cell *cells)
{
    static const char *const modes[] = {"store", "add", "largest"};
    mb__cell_add(cells[1], "%s", modes[s->mode]);
    mb__cell_add(cells[2], "i%d to ", s->instr);
    mb__cell to = "";
    add_view(of->plan, &s->view, of->k->rank, to);
    mb__cell_add(cells[2], "%s", to);
    mb__cell_add(cells[3], "%s", mb_dtype_name((mb_dtype)of->plan->values[s->view.value].dtype));
    mb__cell_add(cells[4], s->per_row ? "row" : "each");
}

static void kernel_row(const void *of, int row, mb__cell *cells)
{
    static const char *const levels[] = {"once", "row", "each"};
    const of_kernel *o = of;
    if (row >= o->k->instr_count) {
        store_row(o, &o->k->stores[row - o->k->instr_count], cells);
        return;
    }
    const mb__instr *in = &o->k->instrs[row];
    mb__cell_add(cells[0], "i%d", row);
    mb__cell_add(cells[1], "%s", in->custom ? in->custom->name : mb__kop_name(in->op));
    add_arguments(o->plan, o->k, in, cells[2]);
    mb__cell_add(cells[3], "%s", mb_dtype_name((mb_dtype)in->dtype));
    mb__cell_add(cells[4], "%s", levels[in->level]);
    mb__cell_add(cells[5], "%s", in->site ? in->site : "");
}

static void kernel_text(const mb__writer *w, const mb__plan *plan, int step)
{
    static const char *const heads[] = {"", "op", "on", "dtype", "done", "recorded at"};
    const mb__kernel *k = &plan->steps[step].u.kernel;
    mb__cell label = "", rows = "", row = "";
    mb__step_label(plan, step, label, sizeof label);
    mb__cell_shape(rows, k->dim, k->rank - k->inner);
    mb__cell_shape(row, k->dim + k->rank - k->inner, k->inner);
    mb__say(w, "step %d: %s; rows %s of columns %s\n", step, label, rows, row);
    mb__say_table(w, "  ", heads, 6, k->instr_count + k->store_count, kernel_row, &(of_kernel){plan, k});
}

static void kernel_dot(const mb__writer *w, const mb__plan *plan, int step)
{
    const mb__kernel *k = &plan->steps[step].u.kernel;
    const of_kernel of = {plan, k};
    mb__cell label = "";
    mb__step_label(plan, step, label, sizeof label);
    mb__say(w, "  subgraph cluster%d {\n  label=\"step %d: %s\";\n", step, step, label);
    for (int i = 0; i < k->instr_count + k->store_count; i++) {
        mb__cell cells[6] = {"", "", "", "", "", ""};
        kernel_row(&of, i, cells);
        bool store = i >= k->instr_count;
        mb__say(w, "  k%d_%d [label=\"%s %s %s\\n%s, %s\"%s];\n", step, i, cells[0], cells[1], cells[2],
                cells[3], cells[4], store ? " peripheries=2" : "");
        if (store)
            mb__say(w, "  k%d_%d -> k%d_%d;\n", step, k->stores[i - k->instr_count].instr, step, i);
        for (int j = 0; !store && j < 3 && k->instrs[i].in[j] >= 0; j++)
            mb__say(w, "  k%d_%d -> k%d_%d;\n", step, k->instrs[i].in[j], step, i);
    }
    mb__say(w, "  }\n");
}

void mb__dump_kernels(const mb__writer *w, const mb__plan *plan, bool dot)
{
    const char *between = "";
    if (dot)
        mb__say(w, "digraph \"kernels\" {\n  node [shape=box fontname=monospace fontsize=10];\n");
    for (int s = 0; s < plan->step_count; s++) {
        if (plan->steps[s].kind != MB_STEP_KERNEL)
            continue;
        if (dot) {
            kernel_dot(w, plan, s);
            continue;
        }
        mb__say(w, "%s", between);
        kernel_text(w, plan, s);
        between = "\n";
    }
    if (dot)
        mb__say(w, "}\n");
}

/* ---- the arena ---- */

typedef struct of_arena {
    const mb__plan *plan;
    size_t (*element_size)(mb_dtype);
} of_arena;

static long long bytes_of(const of_arena *of, const mb__value *v)
{
    return (long long)v->count * (long long)of->element_size((mb_dtype)v->dtype);
}

static void value_row(const void *of_, int row, mb__cell *cells)
{
    const of_arena *of = of_;
    const mb__value *v = &of->plan->values[row];
    mb__cell_value(of->plan, row, cells[0]);
    mb__cell_add(cells[1], "%lld", (long long)v->count);
    mb__cell_add(cells[2], "%s", mb_dtype_name((mb_dtype)v->dtype));
    mb__cell_add(cells[3], "%lld", bytes_of(of, v));
    if (v->storage == MB_IN_ARENA)
        mb__cell_add(cells[4], "%lld", (long long)v->offset);
    else
        mb__cell_add(cells[4], v->storage == MB_IN_INPUT ? "input" : "output");
    mb__cell_add(cells[5], "%d", v->first);
    if (v->last > v->first)
        mb__cell_add(cells[5], " to %d", v->last);
    if (v->onto >= 0) {
        mb__cell_add(cells[6], "in place of ");
        mb__cell_value(of->plan, v->onto, cells[6]);
    }
    if (v->storage != MB_IN_INPUT && v->first >= 0 && of->plan->steps[v->first].site)
        mb__cell_add(cells[7], "%s", of->plan->steps[v->first].site);
}

/* A table with a row for each value, a column for each step; filled where the value is alive. */
static void arena_dot(const mb__writer *w, const of_arena *of)
{
    const mb__plan *plan = of->plan;
    mb__say(w, "digraph \"arena\" {\n  arena [shape=plaintext fontname=monospace fontsize=10 label=<\n");
    mb__say(w,
            "  <table border=\"0\" cellborder=\"1\" cellspacing=\"0\">\n  <tr><td>arena of %lld bytes</td>",
            (long long)plan->arena_bytes);
    for (int s = 0; s < plan->step_count; s++)
        mb__say(w, "<td>%d</td>", s);
    mb__say(w, "</tr>\n");
    for (int i = 0; i < plan->value_count; i++) {
        const mb__value *v = &plan->values[i];
        if (v->storage != MB_IN_ARENA || v->first < 0)
            continue;
        mb__cell name = "";
        mb__cell_value(plan, i, name);
        mb__say(w, "  <tr><td>%s: %lld to %lld</td>", name, (long long)v->offset,
                (long long)v->offset + bytes_of(of, v));
        if (v->first > 0)
            mb__say(w, "<td colspan=\"%d\"></td>", v->first);
        mb__say(w, "<td colspan=\"%d\" bgcolor=\"%s\"></td>", v->last - v->first + 1,
                v->onto >= 0 ? "lightblue" : "grey");
        if (v->last + 1 < plan->step_count)
            mb__say(w, "<td colspan=\"%d\"></td>", plan->step_count - 1 - v->last);
        mb__say(w, "</tr>\n");
    }
    mb__say(w, "  </table>>];\n}\n");
}

void mb__dump_arena(const mb__writer *w, const mb__plan *plan, size_t (*element_size)(mb_dtype), bool dot)
{
    static const char *const heads[] = {"value",  "elements", "dtype", "bytes",
                                        "offset", "steps",    "",      "recorded at"};
    const of_arena of = {plan, element_size};
    if (dot) {
        arena_dot(w, &of);
        return;
    }
    mb__say_table(w, "", heads, 8, plan->value_count, value_row, &of);
    mb__say(w, "arena: %lld bytes\n", (long long)plan->arena_bytes);
}
