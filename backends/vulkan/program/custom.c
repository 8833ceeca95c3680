/* SPDX-License-Identifier: MIT
 *
 * custom.c - ops of the user's. Elementwise ones are functions in a kernel that is compiled as GLSL; any
 * other is a dispatch of its own, of the user's text between what is written here: access to each operand and
 * result by the indices of its core, and main.
 *
 *   0, 1 ...   a slot for each operand, then for each result
 *   then       positions; the sizes of the loop axes; of each operand and result: the core's sizes, the
 * strides of the loop axes, the strides of the core; attributes
 */
#include <stdio.h>

#include "backends/plan/custom.h"
#include "backends/vulkan/program/program.h"

enum { LOCAL = 64 };

/* ---- elementwise ---- */

static void put_function(mb__vk *v, mb__vk_source *s, const mb__custom_op *op, const char *prefix,
                         const char *type)
{
    static const char *const names[] = {"x", "y", "z"};
    mb__vk_text(v, s, "%s %s_u%u(", type, prefix, op->number);
    for (int i = 0; i < op->loops.operands; i++)
        mb__vk_text(v, s, "%sconst %s %s", i ? ", " : "", type, names[i]);
    mb__vk_text(v, s, ")\n{\n    precise %s r =\n#line 1\n%s\n;\n    return r;\n}\n", type, op->loops.glsl);
}

/* Whether an earlier instruction has the op as well. */
static bool seen(const mb__kernel *k, int i)
{
    for (int j = 0; j < i; j++)
        if (k->instrs[j].custom == k->instrs[i].custom)
            return true;
    return false;
}

bool mb__vk_has_maps(const mb__kernel *k)
{
    for (int i = 0; i < k->instr_count; i++)
        if (k->instrs[i].custom)
            return true;
    return false;
}

uint32_t *mb__vk_compile_maps(mb__vk *v, const char *site, const mb__kernel *k, const char *text,
                              size_t *bytes)
{
    mb__vk_source s = {0};
    mb__vk_uses uses = mb__vk_uses_of(k);
    const mb__custom_op *op = NULL;
    mb__vk_text(v, &s, "#version 450\n%s%s%s%s", uses.float64 ? "#define HAVE_F64\n" : "",
                uses.halves ? "#define HAVE_HALF\n" : "", mb__vk_kernel_text, mb__vk_names_text);
    for (int i = 0; i < k->instr_count; i++) {
        if (!k->instrs[i].custom || seen(k, i))
            continue;
        op = k->instrs[i].custom;
        if (!op->loops.glsl) {
            mb__vk_fail(v, MB_BACKEND, k->instrs[i].site, "%s: it has no GLSL, which vulkan wants", op->name);
            mb__vk_text_free(v, &s);
            return NULL;
        }
        put_function(v, &s, op, "f32", "float");
        if (uses.float64)
            put_function(v, &s, op, "f64", "double");
    }
    mb__vk_text(v, &s, "%s", text);
    uint32_t *words = s.failed || !op ? NULL : mb__vk_glsl_compile(v, site, op->name, s.at, s.count, bytes);
    mb__vk_text_free(v, &s);
    return words;
}

/* ---- on cores ---- */

static const char *const types[] = {"float", "double", "int", "bool"}, *const blocks[] = {"floats", "doubles",
                                                                                          "ints", "words"};

typedef struct writer {
    mb__vk *v;
    mb__vk_source s;
    const mb__custom *c;
    int arrays, param; /* of the next array */
} writer;

static const mb__core_view *array_at(const mb__custom *c, int a)
{
    return a < c->op->spec.operands ? &c->in[a] : &c->out[a - c->op->spec.operands];
}

#define SAY(...) mb__vk_text(w->v, &w->s, __VA_ARGS__)

/* "(int i0, int i1" and "at_in0 + i0 * iparam(9) + i1 * iparam(10)" */
static void put_indices(writer *w, int rank)
{
    for (int i = 0; i < rank; i++)
        SAY("%sint i%d", i ? ", " : "", i);
}
static void put_element(writer *w, int a, const mb__core_view *x, const char *name)
{
    SAY("%s[block_of(%du)].at[uint(at_%s", blocks[x->dtype], a, name);
    for (int i = 0; i < x->rank; i++)
        SAY(" + i%d * iparam(%du)", i, w->param + x->rank + w->c->loops + i);
    SAY(")]");
}

static void put_array(writer *w, int a)
{
    const mb__core_view *x = array_at(w->c, a);
    int operands = w->c->op->spec.operands;
    bool result = a >= operands;
    char name[16];
    snprintf(name, sizeof name, "%s%d", result ? "out" : "in", result ? a - operands : a);
    SAY("#define T%s %s\n", result ? "_OUT" : name + 2, types[x->dtype]);
    SAY("int at_%s;\nint %s_size(int axis) { return iparam(%du + uint(axis)); }\n", name, name, w->param);
    SAY("%s %s(", types[x->dtype], name);
    put_indices(w, x->rank);
    SAY(") { return ");
    put_element(w, a, x, name);
    SAY("%s; }\n", x->dtype == MB_BOOL ? " != 0" : "");
    if (result) {
        SAY("void set%d(", a - operands);
        put_indices(w, x->rank);
        SAY("%s%s x) { ", x->rank ? ", " : "", types[x->dtype]);
        put_element(w, a, x, name);
        SAY(" = %s; }\n", x->dtype == MB_BOOL ? "x ? 1u : 0u" : "x");
    }
    w->param += 2 * x->rank + w->c->loops;
}

/* Where each array's core is at the position; `param` is that of the first array again. */
static void put_main(writer *w, int first)
{
    int lanes = w->c->op->spec.lanes, loops = w->c->loops;
    SAY("void main()\n{\n    uint position = %s;\n    if (position >= param(%du))\n        return;\n    lane "
        "= %s;\n",
        lanes > 1 ? "group_index()" : "group_index() * gl_WorkGroupSize.x + gl_LocalInvocationIndex", first,
        lanes > 1 ? "gl_LocalInvocationIndex" : "0u");
    for (int i = loops; i-- > 0;)
        SAY("    int l%d = int(position %% param(%du));\n    position /= param(%du);\n", i, first + 1 + i,
            first + 1 + i);
    int param = first + 1 + loops;
    for (int a = 0; a < w->arrays; a++) {
        const mb__core_view *x = array_at(w->c, a);
        int operands = w->c->op->spec.operands;
        SAY("    at_%s%d = int(base_of(%du)%s)", a < operands ? "in" : "out", a < operands ? a : a - operands,
            a, x->dtype == MB_FLOAT64 ? " >> 1" : "");
        for (int i = 0; i < loops; i++)
            SAY(" + l%d * iparam(%du)", i, param + x->rank + i);
        SAY(";\n");
        param += 2 * x->rank + loops;
    }
    SAY("    op();\n}\n");
}

/* The first float type of an operand; float if there is none. */
static const char *float_type(const mb__custom *c)
{
    for (int i = 0; i < c->op->spec.operands; i++)
        if (mb__is_float(c->in[i].dtype))
            return types[c->in[i].dtype];
    return "float";
}

static bool has_float64(const mb__custom *c, int arrays)
{
    for (int a = 0; a < arrays; a++)
        if (array_at(c, a)->dtype == MB_FLOAT64)
            return true;
    return false;
}

static void write_all(writer *w)
{
    const mb__custom *c = w->c;
    int first = 2 * w->arrays;
    SAY("#version 450\n%s%s#define T %s\n#define lanes %du\n",
        has_float64(c, w->arrays) ? "#define HAVE_F64\n" : "", mb__vk_custom_text, float_type(c),
        c->op->spec.lanes);
    w->param = first + 1 + c->loops;
    for (int a = 0; a < w->arrays; a++)
        put_array(w, a);
    SAY("int attr(int i) { return iparam(%du + uint(i)); }\n#line 1\n%s\n", w->param, c->op->spec.glsl);
    put_main(w, first);
}

static mb__vk_pipeline *pipeline_of(mb__vk_program *p, int step, const mb__custom *c, int arrays,
                                    uint32_t local)
{
    writer w = {.v = p->v, .c = c, .arrays = arrays};
    const char *site = p->plan->steps[step].site;
    write_all(&w);
    size_t bytes = 0;
    uint32_t *words =
        w.s.failed ? NULL : mb__vk_glsl_compile(p->v, site, c->op->name, w.s.at, w.s.count, &bytes);
    if (words && p->v->host->listing)
        p->v->host->listing(p->v->host->user, p->plan, step, w.s.at, words, bytes);
    mb__vk_text_free(p->v, &w.s);
    mb__vk_pipeline *pipeline =
        words ? mb__vk_pipeline_for(p->v, words, (uint32_t)(bytes / 4), local, 0, 0) : NULL;
    mb__host_free(p->v->host, words, bytes);
    return pipeline;
}

static void add_params(mb__vk_program *p, const mb__custom *c, int arrays, int64_t positions)
{
    mb__vk_param(p, positions);
    for (int i = 0; i < c->loops; i++)
        mb__vk_param(p, c->loop[i]);
    for (int a = 0; a < arrays; a++) {
        const mb__core_view *x = array_at(c, a);
        for (int i = 0; i < x->rank; i++)
            mb__vk_param(p, x->dim[i]);
        for (int i = 0; i < c->loops + x->rank; i++)
            mb__vk_param(p, x->view.stride[i]);
    }
    for (int i = 0; i < c->nattr; i++)
        mb__vk_param(p, c->attrs[i]);
}

/* ---- on the host ---- */

/* A step without a dispatch; all results are one value, and have one piece of memory. */
static bool add_on_host(mb__vk_program *p, int step, const mb__custom *c, int arrays)
{
    int n = c->op->spec.operands;
    if (p->around)
        return mb__vk_fail(
            p->v, MB_BACKEND, p->plan->steps[step].site,
            "%s: it runs on the host, for which a loop on a device cannot wait; with MB_DISABLE=loops "
            "the steps of scans are written out",
            c->op->name);
    void **memory = mb__bump_get(&p->pool, (size_t)arrays * sizeof *memory);
    if (!memory)
        return false;
    mb__vk_region(p, NULL, 0);
    for (int a = 0; a < arrays; a++) {
        int32_t value = array_at(c, a)->view.value;
        const mb__value *v = &p->plan->values[value];
        memory[a] = a > n
                        ? memory[n]
                        : mb__bump_get(&p->pool, ((size_t)v->count + 1) * mb__core_size((mb_dtype)v->dtype));
        if (!memory[a])
            return false;
        mb__vk_accesses(p, value, a >= n);
    }
    mb__vk_dispatch_add(p, VK_NULL_HANDLE, 0, 1, step, 0);
    if (!p->failed)
        p->dispatches[p->dispatch_count - 1].host = memory;
    return !p->failed;
}

bool mb__vk_run_on_host(const mb__vk_program *p, const mb__binding *b, const mb__vk_dispatch *d)
{
    const mb__step *step = &p->plan->steps[d->step];
    const mb__custom *c = step->u.custom;
    int n = c->op->spec.operands;
    for (int i = 0; i < n; i++) {
        int32_t value = c->in[i].view.value;
        const mb__value *v = &p->plan->values[value];
        mb__vk_memory place = mb__vk_place_of(p, b, value);
        if (!mb__vk_download(p->v, &place, (mb_dtype)v->dtype, v->count, d->host[i]))
            return false;
    }
    mb_status status = mb__custom_run(c, d->host, NULL, 0, mb__numel(c->loop, c->loops));
    if (status != MB_OK)
        return mb__vk_fail(p->v, status, step->site, "%s: %s", c->op->name, mb__custom_why(c));
    int32_t value = c->out[0].view.value;
    const mb__value *v = &p->plan->values[value];
    mb__vk_memory place = mb__vk_place_of(p, b, value);
    return mb__vk_upload(p->v, &place, (mb_dtype)v->dtype, v->count, d->host[n]);
}

bool mb__vk_add_custom(mb__vk_program *p, int step, const mb__custom *c)
{
    const mb_custom_op_spec *spec = &c->op->spec;
    int arrays = spec->operands + spec->results;
    int64_t positions = mb__numel(c->loop, c->loops), elements = 0, results = 0;
    mb__vk_slot slots[MB_CUSTOM_OPERANDS + MB_CUSTOM_RESULTS];
    for (int a = 0; a < arrays; a++) {
        const mb__core_view *x = array_at(c, a);
        slots[a] = (mb__vk_slot){x->view.value, x->view.offset};
        elements += mb__numel(x->dim, x->rank);
        results += a < spec->operands ? 0 : mb__numel(x->dim, x->rank);
    }
    if (!positions || !results)
        return true;
    if (!spec->glsl && spec->on_host)
        return add_on_host(p, step, c, arrays);
    if (!spec->glsl || positions > INT32_MAX)
        return mb__vk_fail(p->v, MB_BACKEND, p->plan->steps[step].site,
                           spec->glsl ? "%s: more positions than vulkan's kernels count"
                                      : "%s: it has no GLSL, which vulkan wants",
                           c->op->name);
    uint32_t local = spec->lanes > 1 ? (uint32_t)spec->lanes : LOCAL;
    mb__vk_pipeline *pipeline = pipeline_of(p, step, c, arrays, local);
    if (!pipeline)
        return false;
    uint32_t region = mb__vk_region(p, slots, arrays);
    add_params(p, c, arrays, positions);
    for (int a = 0; a < arrays; a++)
        mb__vk_accesses(p, slots[a].value, a >= spec->operands);
    mb__vk_dispatch_add(p, pipeline, region, spec->lanes > 1 ? positions : (positions + local - 1) / local,
                        step, 4.0 * (double)elements * (double)positions);
    return !p->failed;
}
