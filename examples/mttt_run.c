/* SPDX-License-Identifier: MIT
 *
 * mttt_run.c - how a run begins and goes on in a folder that is its own. */
#include <stdlib.h>

#include "mttt.h"

void check(const run *r)
{
    if (mb_error(r->mb) != MB_OK)
        die("%s", mb_message(r->mb));
}

double seconds_now(const run *r)
{
    return r->seconds + now() - r->started;
}

void expect_checkpoint(run *r)
{
    free(r->checkpoint);
    r->checkpoint = path_in(r->folder, "checkpoint.safetensors");
    if (!file_exists(r->checkpoint))
        die("--resume: there is no %s", r->checkpoint);
}

void begin_run(run *r)
{
    r->checkpoint = path_in(r->folder, "checkpoint.safetensors");
    char *config = path_in(r->folder, "config.json");
    machine here = this_machine(r);
    flags_save(config, run_flags, run_flag_count);
    note_machine(config, &here, 0);
    free(config);
    open_tables(r);
}

void resume_run(run *r)
{
    expect_checkpoint(r);
    char *config = path_in(r->folder, "config.json");
    if (flags_compare(config, run_flags, run_flag_count) > 0)
        die("--resume: %s was made with other flags", r->folder);
    machine here = this_machine(r);
    load(r);
    note_machine(config, &here, r->step);
    free(config);
}
