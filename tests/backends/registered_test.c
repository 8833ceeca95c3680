/* SPDX-License-Identifier: MIT
 *
 * registered_test.c - backends that are not of the build: registered, and loaded from MB_BACKEND_PATH; and
 * what is refused of them. The files that are loaded are made of module.c.
 */
#include <pthread.h>

#include "backends/plan/backend.h"
#include "support.h"

extern const mb__backend mb__backend_cpu, mb__backend_reference;

static mb__backend named(const char *name)
{
    mb__backend b = mb__backend_reference;
    b.name = name;
    return b;
}

static void refused(const mb__backend *b, mb_status status, const char *sentence)
{
    char why[200] = "";
    mb_status got = mb_backend_register(b, why, sizeof why);
    expect(got == status && strstr(why, sentence), "%s: \"%s\"; wanted \"%s\"", mb_status_name(got), why,
           sentence);
    expect(mb_backend_register(b, NULL, 0) == status, "the same without a sentence");
}

Test(registered, computes)
{
    static mb__backend mine;
    mine = named("mine");
    expect(mb_backend_register(&mine, NULL, 0) == MB_OK, "registered");
    expect(mb_backend_register(&mine, NULL, 0) == MB_OK, "once more");
    int i = 0;
    while (mb_backend_at(i))
        i++;
    expect(!strcmp(mb_backend_at(i - 1), "mine") && (i < 2 || strcmp(mb_backend_at(i - 2), "mine") != 0),
           "it is the last, once");
    mb_context *ctx = mb_open("mine");
    expect(mb_item(mb_add(mb_scalar(ctx, MB_FLOAT64, 1), 2.0)) == 3 && !strcmp(mb_backend_name(ctx), "mine"),
           "%s", mb_message(ctx));
    expect(mb_close(ctx) == MB_OK, "closed");
}

Test(registered, refusals)
{
    static mb__backend other;
    mb__backend b = named("fine");
    other = named("taken");
    refused(NULL, MB_INVALID, "no backend");
    b.version = MB_BACKEND_VERSION - 1;
    refused(&b, MB_BACKEND, "version");
    b = named("fine");
    b.compile = NULL;
    refused(&b, MB_INVALID, "no function \"compile\"");
    static const char *const names[] = {"", "a/b", "Upper", "a:b", "a-name-that-is-longer-than-it-can-be"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        b = named(names[i]);
        refused(&b, MB_INVALID, "its name is");
    }
    b = named(NULL);
    refused(&b, MB_INVALID, "its name is");
    b = named("cpu");
    refused(&b, MB_BACKEND, "another backend \"cpu\"");
    expect(mb_backend_register(&other, NULL, 0) == MB_OK, "registered");
    b = named("taken");
    refused(&b, MB_BACKEND, "another backend \"taken\"");
}

/* ---- an op that a backend has no loops for ---- */

static const mb__backend *complete;

/* As if a running maximum were an op that is new, and that `complete` was not told of. */
static mb_status compile_new_op(void *state, const mb__plan *plan, void **program, size_t *bytes)
{
    for (int s = 0; s < plan->step_count; s++)
        if (plan->steps[s].kind == MB_STEP_OTHER)
            ((mb__other *)plan->steps[s].u.other)->op = MB_OP_SUM;
    return complete->compile(state, plan, program, bytes);
}

static void refuses_new_op(const mb__backend *b, mb__backend *lacking, const char *name, const char *sentence)
{
    complete = b;
    *lacking = *b;
    lacking->name = name;
    lacking->compile = compile_new_op;
    expect(mb_backend_register(lacking, NULL, 0) == MB_OK, "registered");
    mb_context *ctx = mb_open(name);
    mb_tensor x = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(2, 40));
    float got[80];
    mb_status status = mb_read(mb_cummax(x, 1, false), got, sizeof got);
    expect(status == MB_BACKEND && strstr(mb_message(ctx), sentence) &&
               strstr(mb_message(ctx), "registered_test.c"),
           "%s: %s; wanted \"%s\"", name, mb_message(ctx), sentence);
    mb_close(ctx);
}

Test(registered, ops_without_loops)
{
    static mb__backend plain, cpu;
    refuses_new_op(&mb__backend_reference, &plain, "plain-lacking", "reference: there are no loops for sum");
    refuses_new_op(&mb__backend_cpu, &cpu, "cpu-lacking", "cpu: there are no loops for sum");
}

enum { THREADS = 8 };

/* Each its own, and one that is the same for all. */
static void *register_two(void *user)
{
    static mb__backend shared;
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&once);
    if (!shared.name)
        shared = named("shared");
    pthread_mutex_unlock(&once);
    bool ok = mb_backend_register(user, NULL, 0) == MB_OK && mb_backend_register(&shared, NULL, 0) == MB_OK;
    mb_context *ctx = mb_open(((mb__backend *)user)->name);
    ok = ok && mb_close(ctx) == MB_OK;
    return ok ? user : NULL;
}

Test(registered, from_many_threads)
{
    static mb__backend mine[THREADS];
    static char names[THREADS][8];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        snprintf(names[i], sizeof names[i], "own-%d", i);
        mine[i] = named(names[i]);
        pthread_create(&threads[i], NULL, register_two, &mine[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        void *ok;
        pthread_join(threads[i], &ok);
        expect(ok != NULL, "thread %d", i);
    }
    int found = 0;
    for (int i = 0; mb_backend_at(i); i++)
        found += !strncmp(mb_backend_at(i), "own-", 4) || !strcmp(mb_backend_at(i), "shared");
    expect(found == THREADS + 1, "%d are there", found);
}

/* The sentence of mb_open's error. */
static void does_not_open(const char *name, const char *sentence)
{
    mb_context *ctx = mb_open(name);
    expect(mb_error(ctx) == MB_BACKEND && strstr(mb_message(ctx), sentence), "%s: %s; wanted \"%s\"", name,
           mb_message(ctx), sentence);
    mb_close(ctx);
}

Test(registered, from_files)
{
    setenv("MB_BACKEND_PATH", "/nowhere::" MODULES, 1);
    does_not_open("missing", "or a file moebius-NAME.so in MB_BACKEND_PATH (/nowhere::" MODULES ")");
    does_not_open("unversioned",
                  "moebius-unversioned.so: it is no backend: there is no symbol moebius_backend_version");
    does_not_open("old", "moebius-old.so: it was made for version 0 of the backend interface, and this is");
    does_not_open("empty", "moebius-empty.so: it is no backend: there is no symbol moebius_backend");
    does_not_open("misnamed", "it holds the backend \"other\"; wanted \"misnamed\"");
    does_not_open("partial", "the backend partial has no function \"list\"");
    does_not_open("text", "moebius-text.so: ");
    does_not_open("../backends/old", "there is no backend");
    unsetenv("MB_BACKEND_PATH");
    does_not_open("old", "wanted one of ");
}
