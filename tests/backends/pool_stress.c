/* SPDX-License-Identifier: MIT
 *
 * pool_stress.c - the worker pool and two contexts on two threads, for ThreadSanitizer, under which Criterion
 * does not start. Prints "N passed, N failed". */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "backends/cpu/pool.h"
#include "backends/engine/state.h"
#include <moebius.h>

static int passed, failed;

static void check(bool ok, const char *what)
{
    if (ok)
        passed++;
    else
        printf("FAILED: %s\n", what);
    failed += !ok;
}

typedef struct work {
    long sums[256];   /* one for each task: written by whoever runs it, read by the caller afterwards */
    int done[64][16]; /* by worker, spread over cache lines */
} work;

static void task(void *argument, int i, int worker)
{
    work *w = argument;
    long sum = 0;
    for (int k = 0; k < 50 * (i % 7); k++)
        sum += k ^ i;
    w->sums[i] += sum + 1;
    w->done[worker][0]++;
}

static void pools(mb_context *ctx)
{
    const mb__host *host = &((mb__engine_state *)ctx->engine_state)->host;
    static work w;
    for (int threads = 1; threads <= 4; threads++) {
        mb__pool *pool = mb__pool_new(host, threads);
        check(pool != NULL, "a pool");
        if (!pool)
            return;
        int tasks = 0, done = 0;
        memset(&w, 0, sizeof w);
        for (int run = 0; run < 2000; run++) {
            int n = run % 97 == 0 ? 0 : 1 + run % 256;
            mb__pool_run(pool, task, &w, n);
            tasks += n;
            if (run % 500 == 0) { /* long enough for the workers to fall asleep */
                struct timespec pause = {0, 3000000};
                nanosleep(&pause, NULL);
            }
        }
        for (int i = 0; i < 64; i++)
            done += w.done[i][0];
        check(done == tasks, "each task ran once");
        mb__pool_free(host, pool);
    }
}

static void *train(void *user)
{
    mb_context *ctx = mb_open_with(&(mb_options){.backend = "cpu", .threads = 2});
    double *result = user;
    mb_tensor x = mb_normal(ctx, mb_key_of(3), MB_FLOAT32, MB_SHAPE(130, 70)),
              w = mb_variable(ctx, MB_FLOAT32, MB_SHAPE(70, 40));
    mb_assign(w, mb_uniform(ctx, mb_key_of(4), MB_FLOAT32, MB_SHAPE(70, 40)));
    for (int step = 0; step < 20; step++) {
        mb_scope s = mb_scope_begin(ctx);
        mb_tensor y = mb_softmax(mb_gelu(mb_matmul(x, w)), -1), g, loss = mb_sum(mb_mul(y, y), MB_ALL);
        mb_grad(loss, &w, 1, &g);
        mb_assign(w, mb_sub(w, mb_mul(g, 0.01)));
        *result = mb_item(loss);
        mb_scope_end(s);
    }
    if (mb_close(ctx) != MB_OK)
        *result = -1;
    return NULL;
}

int main(void)
{
    mb_context *ctx = mb_open("reference");
    pools(ctx);
    mb_close(ctx);
    pthread_t threads[3];
    double results[3] = {0};
    for (int i = 0; i < 3; i++)
        if (pthread_create(&threads[i], NULL, train, &results[i]))
            return 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++)
        check(results[i] > 0 && results[i] == results[0], "contexts on threads agree");
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
