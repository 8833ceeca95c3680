/* SPDX-License-Identifier: MIT
 *
 * pool.h - worker threads for parallel loops. One loop runs at a time; the caller works too. Workers spin for
 * a bounded time between loops, then sleep on a futex, so that a busy machine is not made busier.
 */
#ifndef MB_POOL_H
#define MB_POOL_H

#include "backends/plan/host.h"

typedef struct mb__pool mb__pool;
typedef void (*mb__task)(void *argument, int task, int worker);

/* threads >= 1, the caller included. NULL: no memory. Fewer threads than wanted may start. */
mb__pool *mb__pool_new(const mb__host *host, int threads);
void mb__pool_free(const mb__host *host, mb__pool *pool);
int mb__pool_threads(const mb__pool *pool);
/* Workers take over the caller's floating-point environment. Calls f(argument, 0 .. tasks - 1, worker) in any
 * order and returns when all have. */
void mb__pool_run(mb__pool *pool, mb__task f, void *argument, int tasks);

#endif
