/* SPDX-License-Identifier: MIT
 * dump.c - MB_DUMP: the stages of a plan to be dumped, and the files that they are written to. */
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/plan/label.h"
#include "backends/engine/state.h"
#include "backends/plan/dump.h"

struct mb__dump {
    unsigned stages;        /* bit i: stage i is dumped */
    unsigned plan, kernels; /* the number of the current plan, and of its kernels listed so far */
    char folder[PATH_MAX];  /* "": the standard error, text only */
};

/* Plans are numbered in the whole process, so that contexts may share a folder. */
static atomic_uint plans_dumped;

static const char *const names[MB_STAGE_COUNT] = {"tape", "graph", "groups", "steps", "arena", "kernels"};

/* ---- what the environment says ---- */

static unsigned stages_wanted(mb_context *ctx, const char *list)
{
    unsigned stages = 0;
    for (size_t n; *list; list += n + (list[n] == ',')) {
        n = strcspn(list, ",");
        int i = 0;
        while (i < MB_STAGE_COUNT && (strlen(names[i]) != n || strncmp(names[i], list, n) != 0))
            i++;
        if (i < MB_STAGE_COUNT)
            stages |= 1u << i;
        else if (n == 3 && !strncmp(list, "all", n))
            stages |= (1u << MB_STAGE_COUNT) - 1;
        else if (n)
            mb__error(ctx, MB_INVALID,
                      "open: MB_DUMP knows no stage \"%.*s\"; wanted some of "
                      "tape,graph,groups,steps,arena,kernels, or all",
                      n < 40 ? (int)n : 40, list);
    }
    return stages;
}

/* Creates the folder if it is missing. */
static bool is_folder(mb_context *ctx, const char *folder)
{
    struct stat s;
    if (strlen(folder) + 64 > PATH_MAX)
        errno = ENAMETOOLONG;
    else if ((mkdir(folder, 0777) == 0 || errno == EEXIST) && stat(folder, &s) == 0 && !S_ISDIR(s.st_mode))
        errno = ENOTDIR;
    else if (access(folder, W_OK | X_OK) == 0)
        return true;
    mb__error(ctx, MB_IO, "open: MB_DUMP_TO is \"%.200s\"; wanted a folder to write to: %s", folder,
              strerror(errno));
    return false;
}

void mb__dump_start(mb_context *ctx)
{
    mb__engine_state *st = ctx->engine_state;
    const char *list = getenv("MB_DUMP"), *folder = getenv("MB_DUMP_TO");
    unsigned stages = list ? stages_wanted(ctx, list) : 0;
    if (!stages || (folder && *folder && !is_folder(ctx, folder)))
        return;
    st->dump = mb__alloc(ctx, sizeof *st->dump);
    if (!st->dump)
        return;
    st->dump->stages = stages;
    if (folder)
        snprintf(st->dump->folder, sizeof st->dump->folder, "%s", folder);
}

void mb__dump_end(mb_context *ctx)
{
    mb__engine_state *st = ctx->engine_state;
    mb__free(ctx, st->dump, sizeof *st->dump);
    st->dump = NULL;
}

/* ---- where it goes ---- */

static void to_file(void *user, const char *text, size_t length)
{
    fwrite(text, 1, length, user);
}

/* A file of the plan, or the standard error. NULL: error set. */
static FILE *begin(mb_context *ctx, const struct mb__dump *d, const char *name, const char *mode)
{
    char path[PATH_MAX + 64];
    if (!*d->folder)
        return stderr;
    snprintf(path, sizeof path, "%s/plan-%04u-%s", d->folder, d->plan, name);
    FILE *f = fopen(path, mode);
    if (!f)
        mb__error(ctx, MB_IO, "dump: \"%.300s\" cannot be opened: %s", path, strerror(errno));
    return f;
}

static bool end(mb_context *ctx, const struct mb__dump *d, FILE *f)
{
    if (f == stderr)
        return true; /* a failure of the standard error is ignored */
    bool written = !ferror(f);
    if (fclose(f) == 0 && written)
        return true;
    mb__error(ctx, MB_IO, "dump: plan %u cannot be written to \"%.300s\": %s", d->plan, d->folder,
              strerror(errno));
    return false;
}

/* ---- what goes there ---- */

static void write_stage(const mb__writer *w, enum mb__stage stage, const mb__making *m, bool dot)
{
    switch (stage) {
    case MB_STAGE_TAPE:
    case MB_STAGE_GRAPH:
        mb__dump_graph(w, m->graph, stage == MB_STAGE_TAPE, dot);
        break;
    case MB_STAGE_GROUPS:
        mb__dump_groups(w, m->graph, m->fusion, dot);
        break;
    case MB_STAGE_STEPS:
        mb__dump_steps(w, m->plan, dot);
        break;
    case MB_STAGE_ARENA:
        mb__dump_arena(w, m->plan, m->backend->element_size, dot);
        break;
    default:
        mb__dump_kernels(w, m->plan, dot);
    }
}

bool mb__dump_stage(mb_context *ctx, int stage, const mb__making *m)
{
    mb__engine_state *st = ctx->engine_state;
    struct mb__dump *d = st->dump;
    if (!d || m->backend != st->backend) /* the oracle's plans are not the user's */
        return true;
    if (stage == MB_STAGE_TAPE) {
        d->plan = m->plan->number = atomic_fetch_add(&plans_dumped, 1) + 1;
        d->kernels = 0;
    }
    if (!(d->stages >> stage & 1))
        return true;
    for (int dot = 0; dot < (*d->folder ? 2 : 1); dot++) {
        char name[32];
        snprintf(name, sizeof name, "%s.%s", names[stage], dot ? "dot" : "txt");
        FILE *f = begin(ctx, d, name, "w");
        if (!f)
            return false;
        const mb__writer w = {to_file, f};
        if (!dot)
            mb__say(&w, "plan %u on %s, %s%s%s%s:\n", d->plan, m->backend->name,
                    m->loop ? "the body of the scan at " : "", m->loop ? m->loop : "", m->loop ? ", " : "",
                    names[stage]);
        write_stage(&w, (enum mb__stage)stage, m, dot);
        if (!*d->folder)
            mb__say(&w, "\n");
        if (!end(ctx, d, f))
            return false;
    }
    return true;
}

bool mb__dump_wants_listings(const mb_context *ctx)
{
    const struct mb__dump *d = ((const mb__engine_state *)ctx->engine_state)->dump;
    return d && d->stages >> MB_STAGE_KERNELS & 1;
}

void mb__dump_listing(void *user, const mb__plan *plan, int step, const char *text, const void *code,
                      size_t bytes)
{
    mb_context *ctx = user;
    struct mb__dump *d = ((mb__engine_state *)ctx->engine_state)->dump;
    d->kernels++;
    d->plan = plan->number;
    FILE *f = begin(ctx, d, "kernels.txt", "a");
    if (!f)
        return;
    const mb__writer w = {to_file, f};
    char label[64];
    mb__step_label(plan, step, label, sizeof label);
    mb__say(&w, "\nkernel %u, of step %d (%s):\n", d->kernels, step, label);
    w.write(w.user, text, strlen(text));
    if (!end(ctx, d, f) || !code || !*d->folder)
        return;
    char name[32];
    snprintf(name, sizeof name, "kernel-%02u.spv", d->kernels);
    if ((f = begin(ctx, d, name, "w"))) {
        fwrite(code, 1, bytes, f);
        end(ctx, d, f);
    }
}
