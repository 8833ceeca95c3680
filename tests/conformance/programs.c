/* SPDX-License-Identifier: MIT
 *
 * programs.c - random programs with their derivatives (tests/backends/program.h), on the reference backend
 * and on the one that is tested: with two sets of data, of which the second replays the first's plan, and the
 * same bits in a context of their own. A backend that lacks a dtype beyond bool gets others in the place of
 * those that have it.
 */
#include "agree.h"

enum { ROUNDINGS = 8 }; /* of another order of sums, against one at each value */

/* Result i of a run against the wanted one; false, and a sentence, where they disagree. */
static bool agrees(const program *p, uint64_t data, int i, const result *got, const result *want, char *text,
                   size_t size)
{
    int64_t n = want->count[i];
    double floor_size = p->dtype == MB_FLOAT64 ? 1e-6 : 1e-3;
    double d = got->count[i] != n ? (double)INFINITY : program_distance(got->v[i], want->v[i], n, floor_size);
    if (d <= program_limit(p) ||
        (isfinite(d) && d <= ROUNDINGS * ROUNDINGS * program_condition(p, data, i, want)))
        return true;
    int64_t worst = got->count[i] == n ? program_worst(got->v[i], want->v[i], n) : -1;
    snprintf(text, size, "data %d, result %d: NMSE %g; element %lld: got %.9g, wanted %.9g by reference",
             (int)data, i, d, (long long)worst, worst >= 0 ? got->v[i][worst] : 0,
             worst >= 0 ? want->v[i][worst] : 0);
    return false;
}

static bool same_numbers(const result *a, const result *b)
{
    bool same = a->n == b->n;
    for (int i = 0; same && i < a->n; i++)
        same = a->count[i] == b->count[i] && same_bits(a->v[i], b->v[i], a->count[i]);
    return same;
}

/* The second data in a context of their own. */
static bool first_there(const program *p, const result *got)
{
    static result fresh;
    mb_context *ctx = open_as(run.backend, NULL, 0);
    bool same = program_run(ctx, p, 2, RUN_SCOPE, &fresh) && same_numbers(&fresh, got);
    mb_close(ctx);
    return same;
}

static bool has_other_dtypes(const program *p)
{
    for (int i = 0; i < p->count; i++)
        if (p->code[i].dtype > MB_BOOL)
            return true;
    return false;
}

/* lacks: the backend says so of a dtype. */
static bool compare(const program *p, char *text, size_t size, bool *lacks)
{
    static result want, got;
    mb_context *oracle = open_as("reference", NULL, 1), *ctx = open_as(run.backend, NULL, 0);
    bool ok = true;
    for (uint64_t data = 1; data <= 2 && ok; data++) {
        if (!program_run(oracle, p, data, RUN_SCOPE, &want) || !program_run(ctx, p, data, RUN_SCOPE, &got)) {
            snprintf(text, size, "%s", mb_error(ctx) != MB_OK ? mb_message(ctx) : mb_message(oracle));
            *lacks = mb_error(ctx) == MB_BACKEND && has_other_dtypes(p);
            ok = false;
            break;
        }
        for (int i = 0; i < want.n && ok; i++)
            ok = agrees(p, data, i, &got, &want, text, size);
    }
    if (ok && !first_there(p, &got)) {
        snprintf(text, size, "the second data give other bits where they are the first");
        ok = false;
    }
    mb_close(ctx);
    mb_close(oracle);
    return ok;
}

static void many(const char *kind, void (*make)(program *p, uint64_t seed, mb_dtype dtype))
{
    enum { MOST = 20 };
    static program p;
    for (int d = MB_FLOAT32; d <= (run.float64 ? MB_FLOAT64 : MB_FLOAT32); d++)
        for (int i = 1, left_out = 0; i - left_out <= run.programs && left_out < MOST * run.programs; i++) {
            char name[80], text[800] = "";
            bool lacks = false;
            snprintf(name, sizeof name, "program/%s/%s/%d", kind, mb_dtype_name((mb_dtype)d), i);
            if (!wanted(name))
                continue;
            make(&p, (uint64_t)i, (mb_dtype)d);
            bool ok = compare(&p, text, sizeof text, &lacks);
            left_out += lacks;
            if (!lacks && !told(name, ok, "%s", text))
                program_print(&p, stdout);
            free_values();
        }
}

void program_cases(void)
{
    many("mixed", program_make);
    many("shared", program_make_graph);
    many("empty", program_make_empty);
}
