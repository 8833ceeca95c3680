/* SPDX-License-Identifier: MIT
 *
 * lcgd.c - "In-context Learning and Gradient Descent Revisited", Deutch et al. 2311.07772, at the scale of a
 * toy: is what demonstrations in a prompt do to a decoder like what fine-tuning on them does? A model is
 * trained on classification prompts, in each of which classes have labels of their own, until it learns in
 * context. Then it meets tasks without demonstrations, with them in the prompt, and fine-tuned on them: by
 * gradient descent, and by the layer-causal form, in which a layer hears of its own loss alone. Activations
 * and attention of the three are compared by the paper's measures, and by those of Dai et al. (2212.10559),
 * for trained models and for such as know nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "lcgd.h"

plan set = {
    .backend = "",
    .out = "",
    .resume = "",
    .weights = "",
    .vocabulary = "",
    .merges = "",
    .texts = "",
    .form = "Sentence: {} Label:",
    .layers = 6,
    .width = 128,
    .heads = 4,
    .classes = 3,
    .words = 8,
    .text = 4,
    .shots = 12,
    .noise = 0.05,
    .steps = 4000,
    .batch = 32,
    .lr = 1e-3,
    .seeds = 3,
    .tasks = 12,
    .queries = 128,
    .rate = 0.01,
    .spread = 3,
    .rates = 6,
};

static const plan quick = {
    .backend = "",
    .out = "",
    .resume = "",
    .weights = "",
    .vocabulary = "",
    .merges = "",
    .texts = "",
    .form = "Sentence: {} Label:",
    .layers = 3,
    .width = 64,
    .heads = 4,
    .classes = 2,
    .words = 4,
    .text = 3,
    .shots = 8,
    .noise = 0.1,
    .steps = 400,
    .batch = 32,
    .lr = 3e-3,
    .seeds = 3,
    .tasks = 6,
    .queries = 64,
    .rate = 0.01,
    .spread = 3,
    .rates = 5,
    .quick = true,
};

static const flag flags[] = {
    {.name = "quick",
     FLAG_BOOL,
     &set.quick,
     "in a minute or two: a smaller model and language, fewer seeds and tasks, where flags do not say "
     "otherwise"},
    {.name = "layers", FLAG_INT, &set.layers, "of the decoder", .least = 1, .most = MOST_LAYERS},
    {.name = "width", FLAG_INT, &set.width, "of it", .least = 1, .most = 1e4},
    {.name = "heads", FLAG_INT, &set.heads, "of a layer", .least = 1, .most = 256},
    {.name = "classes", FLAG_INT, &set.classes, "of texts", .least = 2, .most = MOST_CLASSES},
    {.name = "words", FLAG_INT, &set.words, "that speak of a class", .least = 1, .most = 1e4},
    {.name = "text", FLAG_INT, &set.text, "words of a text", .least = 1, .most = 1e3},
    {.name = "noise", FLAG_REAL, &set.noise, "share of words of any class", .most = 1},
    {.name = "shots", FLAG_INT, &set.shots, "demonstrations of a prompt", .least = 1, .most = 1e3},
    {.name = "steps", FLAG_INT, &set.steps, "of training", .least = 1, .most = 1e7},
    {.name = "batch", FLAG_INT, &set.batch, "prompts of a step", .least = 1, .most = 1e5},
    {.name = "lr", FLAG_REAL, &set.lr, "of training", .least = 1e-6, .most = 1},
    {.name = "seeds", FLAG_INT, &set.seeds, "models", .least = 1, .most = 1000},
    {.name = "first-seed", FLAG_INT, &set.first_seed, "of the first; the next has the next", .most = 1e9},
    {.name = "tasks", FLAG_INT, &set.tasks, "that each meets", .least = 1, .most = 1e4},
    {.name = "queries", FLAG_INT, &set.queries, "of a task", .least = 1, .most = 1e5},
    {.name = "rate",
     FLAG_REAL,
     &set.rate,
     "the least learning rate of fine-tuning",
     .least = 1e-9,
     .most = 1e3},
    {.name = "spread", FLAG_REAL, &set.spread, "from one to the next, a factor", .least = 1.01, .most = 100},
    {.name = "rates", FLAG_INT, &set.rates, "how many", .least = 1, .most = MOST_RATES},
    {.name = "weights",
     FLAG_TEXT,
     &set.weights,
     "safetensors of GPT-2, or of a decoder like it, in place of a trained toy; with --heads (12 of the "
     "small one), "
     "--vocabulary, --merges and --texts"},
    {.name = "vocabulary", FLAG_TEXT, &set.vocabulary, "its vocab.json"},
    {.name = "merges", FLAG_TEXT, &set.merges, "its merges.txt"},
    {.name = "texts", FLAG_TEXT, &set.texts, "lines of a label, a tab and a text"},
    {.name = "template", FLAG_TEXT, &set.form, "what is made of a text, at {}; the label follows"},
    {.name = "backend",
     FLAG_TEXT,
     &set.backend,
     "cpu, vulkan, reference; none: $MB_BACKEND or the best",
     .free = true},
    {.name = "threads",
     FLAG_INT,
     &set.threads,
     "seeds at the same time; 0: one for each CPU",
     .most = 1024,
     .free = true},
    {.name = "out", FLAG_TEXT, &set.out, "folder of the results; none: the next runs/lcgd-NNN", .free = true},
    {.name = "resume",
     FLAG_TEXT,
     &set.resume,
     "folder of a run to go on with: what it has trained is not trained again",
     .free = true},
    {.name = "check", FLAG_BOOL, &set.check, "exit with 1 where a number is out of place", .free = true},
};

static void trial_job(void *user, int i)
{
    run_trial(&((results *)user)->trials[i]);
}

int main(int argc, char **argv)
{
    results r = {0};
    process_begin(argc, argv);
    if (flags_given(argc, argv, "quick"))
        set = quick;
    flags_parse(argc, argv, "Compares learning in context with fine-tuning, layer by layer.", flags,
                COUNT(flags));
    if (!*set.weights && set.width % set.heads)
        die("--heads must divide --width");
    if (*set.weights && (!*set.vocabulary || !*set.merges || !*set.texts || !strstr(set.form, "{}")))
        die("--weights wants --vocabulary, --merges, --texts, and {} in --template");
    stop_install();
    r.folder = run_folder(set.out, set.resume, "lcgd", flags, COUNT(flags));
    r.trial_count = (int)set.seeds;
    r.trials = calloc((size_t)set.seeds, sizeof *r.trials);
    if (!r.trials)
        die("out of memory");
    for (int i = 0; i < r.trial_count; i++)
        r.trials[i] = (trial){.seed = set.first_seed + i, .folder = r.folder, .resumed = *set.resume};
    int threads = jobs_threads(set.threads);
    fprintf(stderr, "%s: %d models, %d at a time\n", r.folder, r.trial_count, threads);
    double started = now();
    bool done = jobs_run("seeds", trial_job, &r, r.trial_count, threads, set.seeds * trial_units());
    double seconds = now() - started;
    write_tables(&r);
    if (done) {
        draw_pictures(&r);
        print_summary(&r);
    } else {
        fprintf(stderr, "stopped: --resume %s goes on\n", r.folder);
    }
    printf("seconds %.1f   folder %s\n", seconds, r.folder);
    for (int i = 0; i < r.trial_count; i++)
        trial_free(&r.trials[i]);
    free(r.trials);
    return process_end(!done ? 130 : pictures_failed() > 0 || (set.check && summary_failures() > 0));
}
