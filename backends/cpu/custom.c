/* SPDX-License-Identifier: MIT
 * custom.c - ops of the user's: positions of their loop axes, shared among the threads. */
#include "backends/cpu/frame.h"
#include "backends/plan/custom.h"

#include <stdatomic.h>

enum { TASKS_MOST = 16, WORTH = 2048 }; /* elements from which on threads pay */

typedef struct job {
    const mb__custom *c;
    void *memory[MB_CUSTOM_OPERANDS + MB_CUSTOM_RESULTS];
    int64_t positions;
    int tasks;
    atomic_int status;
} job;

static void task(void *job_, int t, int worker)
{
    job *j = job_;
    int64_t first = j->positions * t / j->tasks, end = j->positions * (t + 1) / j->tasks;
    int status = mb__custom_run(j->c, j->memory, NULL, first, end - first), none = MB_OK;
    (void)worker;
    if (status != MB_OK)
        atomic_compare_exchange_strong(&j->status, &none, status);
}

void mb__cpu_custom_run(const mb__step *step, mb__frame *f)
{
    const mb__custom *c = step->u.custom;
    int n = c->op->spec.operands, all = n + c->op->spec.results;
    job j = {.c = c, .positions = mb__numel(c->loop, c->loops)};
    int64_t elements = 0;
    for (int i = 0; i < all; i++) {
        const mb__core_view *a = i < n ? &c->in[i] : &c->out[i - n];
        j.memory[i] = f->memory[a->view.value];
        elements += mb__numel(a->dim, a->rank);
    }
    bool worth = (double)elements * (double)j.positions >= WORTH;
    j.tasks = !worth ? 1 : j.positions < TASKS_MOST ? (int)j.positions : TASKS_MOST;
    if (c->op->spec.serial) {
        j.tasks = 1;
        task(&j, 0, 0);
    } else if (j.positions)
        mb__pool_run(f->cpu->pool, task, &j, j.tasks);
    if (atomic_load(&j.status) == MB_OK || f->cpu->failed)
        return;
    f->cpu->failed = step;
    f->cpu->status = (mb_status)atomic_load(&j.status);
}
