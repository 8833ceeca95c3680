/* SPDX-License-Identifier: MIT
 *
 * write.c - a plan as a C function: loops for kernels and products, a line for the ops of their own. in0,
 * out0 and s0 are inputs, outputs and what is bound at each run; v4 is a value in the arena.
 */
#include "trace.h"

/* The functions that kernels call, from the expressions of the op table. */
static void write_head(FILE *f)
{
    fputs("#include <math.h>\n#include <stdbool.h>\n#include <stdint.h>\n#define M(f) f\n\n", f);
#define OPERAND_F "double "
#define OPERAND_N "double "
#define OPERAND_I "int64_t "
#define OPERAND_L "bool "
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)                                                 \
    fputs("static inline double op_" #name "(" OPERAND_##types "x) { return " #expr "; } /* " doc " */\n", f);
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc)                                         \
    fputs("static inline double op_" #name "(" OPERAND_##types "a, " OPERAND_##types "b) { return " #expr    \
                                                                                     "; }\n",                \
          f);
#define MB_COMPARE(NAME, name, types, expr, doc)                                                             \
    fputs("static inline double op_" #name "(double a, double b) { return " #expr "; }\n", f);
#include <tensor/ops.def>
    fputs("static inline double op_where(double a, double b, double c) { return a != 0 ? b : c; }\n"
          "static inline double op_copy(double x) { return x; }\n"
          "static inline double to_bool(double x) { return x != 0; }\n"
          "static inline double to_int32(double x) { return (int32_t)(uint32_t)(int64_t)x; }\n"
          "double draw(double key, int64_t at); /* Philox4x32-10, as in backends/plan/philox.h */\n",
          f);
}

static void write_name(FILE *f, const mb__plan *plan, int value)
{
    const mb__value *v = &plan->values[value];
    if (v->storage == MB_IN_ARENA)
        fprintf(f, "v%d", value);
    else
        fprintf(f, "%s%d", v->storage == MB_IN_INPUT ? "in" : "out", v->index);
}

/* 3 + i0 * 4 + i1 */
static void write_place(FILE *f, const mb__view *v, int rank)
{
    fprintf(f, "%lld", (long long)v->offset);
    for (int i = 0; i < rank; i++)
        if (v->stride[i])
            fprintf(f, " + i%d * %lld", i, (long long)v->stride[i]);
}

static void write_loops(FILE *f, const int64_t *dim, int rank)
{
    for (int i = 0; i < rank; i++)
        fprintf(f, "    for (int64_t i%d = 0; i%d < %lld; i%d++)\n", i, i, (long long)dim[i], i);
    fputs("    {\n", f);
}

static void write_source(FILE *f, const mb__plan *plan, const mb__instr *i, int rank)
{
    if (i->op == MB_K_LOAD)
        write_name(f, plan, i->view.value);
    fputs(i->op == MB_K_LOAD     ? "["
          : i->op == MB_K_IOTA   ? "(double)("
          : i->op == MB_K_RANDOM ? "draw("
                                 : "",
          f);
    if (i->op == MB_K_SCALAR || i->op == MB_K_RANDOM)
        fprintf(f, "s[%d]%s", i->bind, i->op == MB_K_RANDOM ? ", " : "");
    else if (i->op == MB_K_CONST)
        fprintf(f,
                i->number - i->number == 0 ? "%.17g"
                : i->number > 0            ? "HUGE_VAL"
                : i->number < 0            ? "-HUGE_VAL"
                                           : "NAN",
                i->number);
    if (i->op != MB_K_SCALAR && i->op != MB_K_CONST)
        write_place(f, &i->view, rank);
    fputs(i->op == MB_K_LOAD ? "]" : i->op == MB_K_IOTA || i->op == MB_K_RANDOM ? ")" : "", f);
}

static void write_call(FILE *f, const trace *t, const mb__instr *i)
{
    bool cast = i->op == MB_OP_CAST, whole = i->dtype == MB_INT32;
    fprintf(f, "%s%s%s(",
            whole                         ? "to_int32("
            : cast && i->dtype == MB_BOOL ? "to_bool("
                                          : "",
            cast || i->op >= MB_OP_COUNT ? "op_copy" : "op_",
            cast || i->op >= MB_OP_COUNT ? "" : t->host->ops[i->op].name);
    for (int k = 0; k < 3 && i->in[k] >= 0; k++)
        fprintf(f, "%st%d", k ? ", " : "", i->in[k]);
    fputs(whole || (cast && i->dtype == MB_BOOL) ? "))" : ")", f);
}

static void write_store(FILE *f, const mb__plan *plan, const mb__store *s, int rank)
{
    fputs("        ", f);
    write_name(f, plan, s->view.value);
    fputs("[", f);
    write_place(f, &s->view, rank);
    fprintf(f, "] %s= t%d;%s\n", s->mode == MB_STORE_SUM ? "+" : "", s->instr,
            s->mode == MB_STORE_MAX ? " /* where it is larger; from -infinity on */" : "");
}

static void write_kernel(FILE *f, const trace *t, const mb__plan *plan, const mb__kernel *k)
{
    write_loops(f, k->dim, k->rank);
    for (int j = 0; j < k->instr_count; j++) {
        fprintf(f, "        double t%d = ", j);
        if (mb__is_source(k->instrs[j].op))
            write_source(f, plan, &k->instrs[j], k->rank);
        else if (k->instrs[j].op == MB_OP_DRAW)
            fprintf(f, "draw(s[%d], (int64_t)t%d * %lld + (int64_t)t%d)", k->instrs[j].bind,
                    k->instrs[j].in[0], (long long)k->instrs[j].number, k->instrs[j].in[1]);
        else if (k->instrs[j].op == MB_OP_MAP)
            fprintf(f, "NAN /* the user's %s of t%d and what follows */", k->instrs[j].custom->name,
                    k->instrs[j].in[0]);
        else
            write_call(f, t, &k->instrs[j]);
        fputs(";\n", f);
    }
    for (int s = 0; s < k->store_count; s++)
        write_store(f, plan, &k->stores[s], k->rank);
    fputs("    }\n", f);
}

/* "v3[0 + i0 * 12 + m * 4 + k * 1]" */
static void write_factor(FILE *f, const mb__plan *plan, const mb__view *v, const int64_t *loop, int loops,
                         char one, int64_t by_one, char two, int64_t by_two)
{
    write_name(f, plan, v->value);
    fprintf(f, "[%lld", (long long)v->offset);
    for (int i = 0; i < loops; i++)
        if (loop[i])
            fprintf(f, " + i%d * %lld", i, (long long)loop[i]);
    fprintf(f, " + %c * %lld + %c * %lld]", one, (long long)by_one, two, (long long)by_two);
}

static void write_product(FILE *f, const mb__plan *plan, const mb__product *p)
{
    write_loops(f, p->loop, p->loops);
    fprintf(f,
            "        for (int64_t m = 0; m < %lld; m++)\n            for (int64_t n = 0; n < %lld; n++)\n"
            "                for (int64_t k = 0; k < %lld; k++)\n                    ",
            (long long)p->m, (long long)p->n, (long long)p->k);
    write_factor(f, plan, &p->c, p->c_loop, p->loops, 'm', p->c_m, 'n', p->c_n);
    fputs(" += ", f);
    write_factor(f, plan, &p->a, p->a_loop, p->loops, 'm', p->a_m, 'k', p->a_k);
    fputs(" * ", f);
    write_factor(f, plan, &p->b, p->b_loop, p->loops, 'k', p->b_k, 'n', p->b_n);
    fputs(";\n    }\n", f);
}

static void write_step(FILE *f, const trace *t, const mb__plan *plan, const mb__step *s)
{
    fprintf(f, "    /* %s */\n", s->site ? s->site : "");
    if (s->kind == MB_STEP_KERNEL) {
        write_kernel(f, t, plan, &s->u.kernel);
    } else if (s->kind == MB_STEP_PRODUCT) {
        write_product(f, plan, s->u.product);
    } else if (s->kind == MB_STEP_CUSTOM) {
        fprintf(f, "    /* the user's %s to ", s->u.custom->op->name);
        write_name(f, plan, s->u.custom->out[0].view.value);
        fputs(" */\n", f);
    } else if (s->kind == MB_STEP_ZERO) {
        fputs("    /* ", f);
        write_name(f, plan, s->u.zero);
        fputs(" becomes zeros */\n", f);
    } else {
        fprintf(f, "    /* %s of ", t->host->ops[s->u.other->op].name);
        write_name(f, plan, s->u.other->in.value);
        fputs(" to ", f);
        write_name(f, plan, s->u.other->out.value);
        fprintf(f, ", axis %d */\n", s->u.other->axis);
    }
}

static void write_values(FILE *f, const mb__plan *plan)
{
    for (int i = 0; i < plan->value_count; i++) {
        const mb__value *v = &plan->values[i];
        fputs("    double *", f);
        write_name(f, plan, i);
        if (v->storage == MB_IN_ARENA)
            fprintf(f, " = (double *)(arena + %lld);", (long long)v->offset);
        else
            fprintf(f, " = %s[%d];", v->storage == MB_IN_INPUT ? "in" : "out", (int)v->index);
        fprintf(f, " /* %lld */\n", (long long)v->count);
    }
}

void trace_write_plan(trace *t, const mb__plan *plan)
{
    FILE *f = t->out;
    fseek(f, 0, SEEK_END); /* of what other contexts wrote */
    if (!t->plans++ && ftell(f) == 0)
        write_head(f);
    fprintf(f, "\nvoid plan_%d(char *arena, double **in, double **out, const double *s)\n{\n", t->plans);
    write_values(f, plan);
    for (int i = 0; i < plan->step_count; i++)
        write_step(f, t, plan, &plan->steps[i]);
    fputs("}\n", f);
    fflush(f);
}
