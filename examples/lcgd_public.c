/* SPDX-License-Identifier: MIT
 *
 * lcgd_public.c - a model that others have trained: the weights of GPT-2, or of a decoder like it, from a
 * safetensors file; and tasks of labelled texts. */
#include <stdlib.h>
#include <string.h>

#include "lcgd.h"

/* ---- weights ---- */

/* The file's tensor of a name, which some files write behind "transformer."; -1: there is none. */
static int find(const mb_safetensors *file, const char *name)
{
    char longer[256];
    int i = mb_safetensors_find(file, name);
    snprintf(longer, sizeof longer, "transformer.%s", name);
    return i >= 0 ? i : mb_safetensors_find(file, longer);
}

static mb_safetensors *open_weights(mb_context *mb)
{
    mb_safetensors *file = mb_safetensors_open(mb, set.weights);
    stop_at_error(mb);
    return file;
}

decoder_shape public_shape(mb_context *mb)
{
    mb_safetensors *file = open_weights(mb);
    mb_shape words = mb_safetensors_shape(file, find(file, "wte.weight")),
             places = mb_safetensors_shape(file, find(file, "wpe.weight"));
    decoder_shape s = {0, words.dim[1], set.heads, words.dim[0], places.dim[0]};
    char name[64] = "h.0.ln_1.weight";
    while (find(file, name) >= 0)
        snprintf(name, sizeof name, "h.%lld.ln_1.weight", (long long)++s.layers);
    mb_safetensors_close(file);
    if (words.rank != 2 || places.rank != 2 || s.layers < 1 || s.layers > MOST_LAYERS)
        die("%s: not a decoder as GPT-2's of 1 to %d layers: no wte.weight, wpe.weight or h.0.ln_1.weight",
            set.weights, MOST_LAYERS);
    if (s.width < 1 || s.width % set.heads)
        die("%s: a width of %lld, which --heads %lld does not divide", set.weights, (long long)s.width,
            (long long)set.heads);
    return s;
}

static bool same_shape(mb_tensor a, mb_tensor b)
{
    mb_shape x = mb_shape_of(a), y = mb_shape_of(b);
    return x.rank == y.rank && memcmp(x.dim, y.dim, (size_t)x.rank * sizeof *x.dim) == 0;
}

/* Kernels are [in, out] there, and [out, in] here. */
static void give(mb_safetensors *file, mb_tensor to, bool turned, const char *name)
{
    mb_context *mb = to.ctx;
    int i = find(file, name);
    if (i < 0)
        die("%s has no tensor \"%s\"", set.weights, name);
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor from = mb_safetensors_tensor(file, i);
    stop_at_error(mb);
    from = mb_cast(turned ? mb_transpose(from) : from, MB_FLOAT32);
    if (!same_shape(from, to))
        die("%s: \"%s\" is not of the shape that the others ask for", set.weights, name);
    mb_assign(to, from);
    mb_scope_end(scope);
    stop_at_error(mb);
}

static void give_of_block(mb_safetensors *file, mb_params *p, int l)
{
    static const struct {
        const char *here, *there;
        bool turned;
    } parts[] = {
        {"norm1.scale", "ln_1.weight", false},
        {"norm1.bias", "ln_1.bias", false},
        {"attention.qkv.weight", "attn.c_attn.weight", true},
        {"attention.qkv.bias", "attn.c_attn.bias", false},
        {"attention.out.weight", "attn.c_proj.weight", true},
        {"attention.out.bias", "attn.c_proj.bias", false},
        {"norm2.scale", "ln_2.weight", false},
        {"norm2.bias", "ln_2.bias", false},
        {"mlp.up.weight", "mlp.c_fc.weight", true},
        {"mlp.up.bias", "mlp.c_fc.bias", false},
        {"mlp.down.weight", "mlp.c_proj.weight", true},
        {"mlp.down.bias", "mlp.c_proj.bias", false},
    };
    for (int i = 0; i < COUNT(parts); i++) {
        char here[64], there[64];
        snprintf(here, sizeof here, "blocks.%d.%s", l, parts[i].here);
        snprintf(there, sizeof there, "h.%d.%s", l, parts[i].there);
        give(file, mb_params_get(p, here), parts[i].turned, there);
    }
}

void public_weights(decoder *d, mb_params *p)
{
    mb_safetensors *file = open_weights(mb_params_context(p));
    give(file, d->embed.weight, false, "wte.weight");
    give(file, d->head.weight, false, "wte.weight"); /* the same one reads words and writes them */
    give(file, d->positions, false, "wpe.weight");
    give(file, d->norm.scale, false, "ln_f.weight");
    give(file, d->norm.bias, false, "ln_f.bias");
    d->norm.eps = 1e-5;
    for (int l = 0; l < d->layers; l++) {
        give_of_block(file, p, l);
        d->block[l].norm1.eps = d->block[l].norm2.eps = 1e-5;
    }
    mb_safetensors_close(file);
}

/* ---- texts ---- */

/* Lines "label<tab>text". */
struct corpus {
    char **label, **text;
    int64_t n, longest;
    const char *labels[MOST_CLASSES];
    int label_count;
};

static void add_line(corpus *c, char *line)
{
    char *tab = strchr(line, '\t');
    int k = 0;
    if (!tab)
        die("%s: line %lld has no tab between label and text", set.texts, (long long)c->n + 1);
    *tab = 0;
    if ((c->n & (c->n - 1)) == 0) { /* room is a power of two */
        size_t room = c->n ? 2 * (size_t)c->n : 1;
        c->label = realloc(c->label, room * sizeof *c->label);
        c->text = realloc(c->text, room * sizeof *c->text);
        if (!c->label || !c->text)
            die("out of memory");
    }
    c->label[c->n] = line;
    c->text[c->n++] = tab + 1;
    int64_t length = (int64_t)(strlen(line) + strlen(tab + 1));
    c->longest = length > c->longest ? length : c->longest;
    while (k < c->label_count && strcmp(c->labels[k], line) != 0)
        k++;
    if (k == MOST_CLASSES)
        die("%s: more than %d labels", set.texts, MOST_CLASSES);
    if (k == c->label_count)
        c->labels[c->label_count++] = line;
}

corpus *corpus_open(void)
{
    corpus *c = calloc(1, sizeof *c);
    char *line = NULL;
    size_t room = 0;
    FILE *f = fopen(set.texts, "r");
    if (!c || !f)
        die("cannot read %s", set.texts);
    while (getline(&line, &room, f) > 0) {
        line[strcspn(line, "\r\n")] = 0;
        char *copy = strdup(line);
        if (!copy)
            die("out of memory");
        add_line(c, copy);
    }
    free(line);
    fclose(f);
    if (c->n < set.shots + set.queries)
        die("%s has %lld lines; wanted %lld, --shots and --queries together", set.texts, (long long)c->n,
            (long long)(set.shots + set.queries));
    return c;
}

void corpus_close(corpus *c)
{
    for (int64_t i = 0; i < c->n; i++)
        free(c->label[i]); /* with its text */
    free(c->label);
    free(c->text);
    free(c);
}

/* The template with the text in the place of "{}", and what follows. The caller frees it. */
static char *filled(const char *text, const char *label, const char *end)
{
    const char *hole = strstr(set.form, "{}");
    size_t room = strlen(set.form) + strlen(text) + strlen(label) + strlen(end) + 2;
    char *out = malloc(room);
    if (!out)
        die("out of memory");
    snprintf(out, room, "%.*s%s%s%s%s%s", (int)(hole - set.form), set.form, text, hole + 2, *label ? " " : "",
             label, end);
    return out;
}

/* Adds line `line` of the corpus as the problem's number `number`; a token takes a byte or more. */
static void add(problem *p, const corpus *c, const words *w, int64_t line, int64_t number)
{
    bool told = number < p->shots;
    char *text = filled(c->text[line], told ? c->label[line] : "", told ? "\n" : "");
    int64_t most = (int64_t)strlen(text);
    int32_t *tokens = calloc((size_t)most + 1, sizeof *tokens);
    if (!tokens)
        die("out of memory");
    problem_add(p, number, tokens, words_encode(w, text, tokens, most));
    for (int k = 0; !told && k < c->label_count; k++)
        if (strcmp(c->label[line], c->labels[k]) == 0)
            p->label[number - p->shots] = p->candidates[k];
    free(tokens);
    free(text);
}

static void add_candidates(problem *p, const corpus *c, const words *w)
{
    for (int k = 0; k < c->label_count; k++) {
        char spaced[256];
        snprintf(spaced, sizeof spaced, " %s", c->labels[k]);
        words_encode(w, spaced, &p->candidates[k], 1); /* its first token stands for it */
        for (int i = 0; i < k; i++)
            if (p->candidates[i] == p->candidates[k])
                die("labels \"%s\" and \"%s\" begin with the same token", c->labels[i], c->labels[k]);
    }
    p->candidate_count = c->label_count;
}

problem problem_of_texts(const corpus *c, const words *w, uint64_t seed, int64_t context)
{
    int64_t n = set.shots + set.queries, *order = calloc((size_t)c->n, sizeof *order), longest = 0;
    problem p = problem_new(set.shots, set.queries, n * (c->longest + (int64_t)strlen(set.form) + 2));
    if (!order)
        die("out of memory");
    add_candidates(&p, c, w);
    for (int64_t i = 0; i < c->n; i++) { /* Durstenfeld's shuffle */
        int64_t j = (int64_t)(mb_key_fold(mb_key_of(seed), (uint64_t)i).bits % (uint64_t)(i + 1));
        order[i] = order[j];
        order[j] = i;
    }
    for (int64_t i = 0; i < n; i++) {
        add(&p, c, w, order[i], i);
        longest = i >= p.shots && p.length[i] > longest ? p.length[i] : longest;
    }
    free(order);
    if (p.told + longest > context)
        die("%lld demonstrations and a query are %lld tokens, and the model takes %lld: fewer --shots",
            (long long)p.shots, (long long)(p.told + longest), (long long)context);
    return p;
}
