/* SPDX-License-Identifier: MIT
 *
 * mttt.c - "Learning to (Learn at Test Time)", Sun et al. 2310.13807, on Fashion-MNIST: a vision transformer
 * whose token mixers are small networks that are trained on each image, in the forward pass. The outer loop
 * learns where they start and what they practise on, by differentiating through their training.
 *
 * Everything of a run is in its folder: config.json, metrics.csv, inner_loss.csv, checkpoint.safetensors,
 * pictures. Ctrl-C finishes the step and saves; --resume goes on, and ends at the same bits as a run that was
 * never stopped. */
#include <stdlib.h>

#include "mttt.h"

/* ---- the folder ---- */

static void begin_folder(run *r)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "mttt-%s", set.learner);
    r->folder = claim_folder(set.out, prefix, "checkpoint.safetensors",
                             "--resume goes on with it, another --out begins a new one");
    begin_run(r);
}

static void resume_folder(run *r)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "mttt-%s", set.learner);
    r->folder = *set.out ? set.out : last_run(prefix);
    expect_checkpoint(r);
    if (r->rank > 0) {
        load(r);
        return;
    }
    lock_folder(r->folder);
    resume_run(r);
}

/* ---- the run ---- */

int main(int argc, char **argv)
{
    static run r;
    process_begin(argc, argv);
    flags_parse(argc, argv, "Trains a vision transformer on Fashion-MNIST whose blocks learn at test time.",
                run_flags, run_flag_count);
    stop_install();
    mb_options options = {.backend = *set.backend ? set.backend : NULL, .threads = (int)set.threads};
    ranks_begin(&r, &options);
    r.mb = mb_open_with(&options);
    check(&r);
    ranks_open(&r);
    build(&r);
    if (set.resume)
        resume_folder(&r);
    else if (r.rank == 0)
        begin_folder(&r);
    ranks_share(&r);
    r.started = now();
    if (r.rank == 0)
        fprintf(stderr, "%s: %s on %s, %lld parameters, %lld images, step %lld of %lld\n", r.folder,
                set.learner, mb_backend_name(r.mb), (long long)mb_params_size(r.params),
                (long long)mb_images_count(r.train), (long long)r.step, (long long)r.total);
    bool done = train(&r);
    double seconds = seconds_now(&r);
    int64_t parameters = mb_params_size(r.params);
    close_tables(&r);
    if (done && r.rank == 0)
        draw_pictures(&r);
    else if (r.rank == 0)
        fprintf(stderr,
                "stopped and saved at step %lld of %lld; the same flags and --out %s --resume go on\n",
                (long long)r.step, (long long)r.total, r.folder);
    ranks_end(&r);
    demolish(&r);
    if (!done)
        return 130;
    if (r.rank == 0)
        printf("test accuracy %.4f  loss %.4f  parameters %lld  seconds %.1f\n", r.test_accuracy, r.test_loss,
               (long long)parameters, seconds);
    return process_end(pictures_failed() > 0);
}
