/* SPDX-License-Identifier: MIT
 *
 * taps_test.c - looking inside: what layers tell, and what taps make of it: collected, replaced,
 * differentiated, in scopes, scans, vmaps and checkpoints; patterns; mistakes. */
#include <math.h>
#include <string.h>

#include "support.h"
#include "tensor/internal.h"

enum { B = 2, N = 3, D = 8, H = 2, DEPTH = 3 };

typedef struct model {
    mb_params *p;
    mb_vit *vit;
} model;

static model new_model(mb_context *mb, bool checkpoint)
{
    mb_params *p = mb_params_new_with(mb, 5, MB_FLOAT64);
    mb_vit_options o = {.tokens = N,
                        .patch_values = 4,
                        .dim = D,
                        .depth = DEPTH,
                        .classes = 3,
                        .mixer = {.kind = MB_MIXER_SOFTMAX, .heads = H, .causal = true},
                        .head_init = mb_init_normal(0.3),
                        .checkpoint = checkpoint};
    return (model){p, mb_vit_new(p, "", o)};
}

static mb_tensor applied(const model *m)
{
    mb_context *mb = mb_params_context(m->p);
    return mb_vit_apply(m->vit, mb_normal(mb, mb_key_of(1), MB_FLOAT64, MB_SHAPE(B, N, 4)), MB_NO_KEY, NULL);
}

static bool equal(mb_tensor a, mb_tensor b, double room)
{
    const double *x = values(a), *y = values(b);
    bool same = mb_count(a) == mb_count(b);
    for (int64_t i = 0; same && i < mb_count(a); i++)
        same = fabs(x[i] - y[i]) <= room;
    return same;
}

/* ---- names ---- */

Test(taps, patterns)
{
    static const struct {
        const char *pattern, *name;
        bool matches;
    } cases[] = {
        {"", "a.b", true},
        {"a", "a", true},
        {"a", "a.b", true},
        {"a", "ab", false},
        {"a.b", "a", false},
        {"*", "a.b", true},
        {"*.b", "a.b.c", true},
        {"*.c", "a.b.c", false},
        {"a.*", "a", false},
        {"a*", "abc.d", true},
        {"*c", "abcc.d", true},
        {"a*b*c", "aXbYbZc", true},
        {"a*b", "a.b", false},
        {"*b*", "abc", true},
        {"blocks.*.attention", "blocks.11.attention.q", true},
        {"*a*b.*c", "xaab.yc.z", true},
        {"*ab", "aab", true},
        {"a**", "a", true},
        {"*", "", true},
        {"a.", "a..b", true},
        {"blocks.1", "blocks.11", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect(mb__name_matches(cases[i].pattern, cases[i].name) == cases[i].matches, "\"%s\" and \"%s\"",
               cases[i].pattern, cases[i].name);
}

typedef struct heard {
    char text[4096];
    int n;
} heard;

static mb_tensor write_down(void *user, const char *name, mb_tensor x)
{
    heard *h = user;
    (void)x;
    strcat(strcat(h->text, name), " ");
    h->n++;
    return MB_EMPTY(mb_tensor);
}

Test(taps, names_of_layers)
{
    mb_context *mb = open_on("cpu");
    model m = new_model(mb, false);
    heard h = {{0}, 0};
    mb_tap tap = mb_tap_begin(mb, "blocks.1", write_down, &h);
    mb_prefix outer = mb_prefix_begin(mb, "", MB_NO_INDEX); /* adds nothing */
    applied(&m);
    mb_prefix_end(&outer);
    expect(mb_tap_end(tap) == h.n, "count");
    static const char wanted[] =
        "blocks.1.attention.queries blocks.1.attention.keys blocks.1.attention.values "
        "blocks.1.attention.scores blocks.1.attention.weights blocks.1.attention.heads "
        "blocks.1.attention.output blocks.1.middle blocks.1.mlp.hidden blocks.1.mlp.output "
        "blocks.1.output ";
    expect(strcmp(h.text, wanted) == 0, "%s", h.text);
    h = (heard){{0}, 0};
    tap = mb_tap_begin(mb, "encoder.2.*", write_down, &h);
    mb_prefix prefix = mb_prefix_begin(mb, "encoder", 2);
    applied(&m);
    mb_tell(mb_scalar(mb, MB_FLOAT64, 1), "own");
    mb_prefix_end(&prefix);
    mb_tell(mb_scalar(mb, MB_FLOAT64, 1), "own");
    expect(mb_tap_end(tap) == DEPTH * 11 + 3, "%d", h.n);
    expect(strncmp(h.text, "encoder.2.tokens encoder.2.blocks.0.attention.queries", 53) == 0, "%s", h.text);
    mb_params_free(m.p);
    close_all();
}

/* ---- what is collected ---- */

/* Softmax of the told scores, with what is not seen left out, are the told weights; and with the told values
 * they give the heads. */
Test(taps, collected_activations_belong_together)
{
    for (int b = 0; b < 2; b++) {
        mb_context *mb = open_on(backend_names[b]);
        model m = new_model(mb, false);
        mb_tensor scores[DEPTH], weights[DEPTH], v[DEPTH], heads[DEPTH];
        mb_tap taps[] = {mb_tap_collect(mb, "blocks.*.attention.scores", scores, DEPTH),
                         mb_tap_collect(mb, "blocks.*.attention.weights", weights, DEPTH),
                         mb_tap_collect(mb, "blocks.*.attention.values", v, DEPTH),
                         mb_tap_collect(mb, "blocks.*.attention.heads", heads, DEPTH)};
        mb_tensor with = applied(&m);
        for (int i = 0; i < 4; i++)
            expect(mb_tap_end(taps[i]) == DEPTH, "one in each block");
        expect(equal(with, applied(&m), 0), "listening changes nothing");
        for (int l = 0; l < DEPTH; l++) {
            mb_tensor seen =
                mb_where(mb_tril_mask(mb, N, N, 0), scores[l], mb_full(mb, MB_FLOAT64, MB_SHAPE0, -1e300));
            expect(equal(mb_softmax(seen, -1), weights[l], 1e-14), "weights of block %d", l);
            expect(equal(mb_einsum("bhnm,bmhd->bnhd", weights[l], v[l]), heads[l], 1e-14),
                   "heads of block %d", l);
        }
        mb_params_free(m.p);
        close_all();
    }
}

Test(taps, of_few_that_fit_and_few_that_are_told)
{
    mb_context *mb = open_on("cpu");
    model m = new_model(mb, false);
    mb_tensor two[2], five[5];
    mb_tap a = mb_tap_collect(mb, "blocks.*.output", two, 2),
           b = mb_tap_collect(mb, "blocks.*.output", five, 5);
    applied(&m);
    expect(mb_tap_end(a) == DEPTH && mb_tap_end(b) == DEPTH, "told, also beyond the capacity");
    expect(two[1].id == five[1].id && five[2].id && !five[3].ctx, "in order, and null tensors");
    mb_tap none = mb_tap_collect(mb, "blocks.*.nothing", two, 2);
    applied(&m);
    expect(mb_tap_end(none) == 0 && !two[0].ctx, "no such name");
    expect(!mb_valid(mb_add(five[0], two[0])) && mb_error(mb) == MB_INVALID,
           "which is noticed where it is used");
    mb_clear_error(mb);
    mb_params_free(m.p);
    close_all();
}

/* d loss / d scores, against differences: the scores of one block are replaced by others. */
Test(taps, derivatives_by_what_was_collected)
{
    mb_context *mb = open_on("cpu");
    for (int checkpoint = 0; checkpoint < 2; checkpoint++) {
        model m = new_model(mb, checkpoint);
        mb_tensor scores[DEPTH], g;
        mb_tap tap = mb_tap_collect(mb, "blocks.*.attention.scores", scores, DEPTH);
        mb_tensor loss = mb_sum(mb_square(applied(&m)), MB_ALL);
        mb_tap_end(tap);
        mb_grad(loss, &scores[1], 1, &g);
        const double *x = values(scores[1]), *slope = values(g), h = 1e-5;
        for (int i = 0; i < B * H * N * N; i += 5) {
            double side[2], moved[B * H * N * N];
            for (int s = 0; s < 2; s++) {
                memcpy(moved, x, sizeof moved);
                moved[i] += s ? h : -h;
                mb_tensor in_place[2] = {MB_EMPTY(mb_tensor),
                                         mb_from(mb, MB_FLOAT64, MB_SHAPE(B, H, N, N), moved)};
                tap = mb_tap_replace(mb, "blocks.*.attention.scores", in_place, 2);
                side[s] = mb_item(mb_sum(mb_square(applied(&m)), MB_ALL));
                expect(mb_tap_end(tap) == DEPTH, "replaced");
            }
            expect(fabs((side[1] - side[0]) / (2 * h) - slope[i]) < 1e-8, "%d: %g, by differences %g", i,
                   slope[i], (side[1] - side[0]) / (2 * h));
        }
        mb_params_free(m.p);
    }
    close_all();
}

static mb_tensor stop(void *user, const char *name, mb_tensor x)
{
    (void)user, (void)name;
    mb_tell(x, "blocks.0.output"); /* to nobody */
    return mb_stop_gradient(x);
}

static mb_status stop_through(void *user, const char *name, mb_tensor *x)
{
    *x = stop(user, name, *x);
    return mb_error(x->ctx);
}

/* Stopped at a block's output, nothing below it gets a gradient, and values stay. */
static void stop_gradients(bool through)
{
    mb_context *mb = open_on("cpu");
    model m = new_model(mb, false);
    mb_tensor plain = applied(&m), ts[64], gs[64];
    mb_tap tap = through ? mb_tap_through(mb, "blocks.1.output", stop_through, NULL)
                         : mb_tap_begin(mb, "blocks.1.output", stop, NULL);
    mb_tensor y = applied(&m);
    expect(mb_tap_end(tap) == 1, "heard once");
    expect(equal(plain, y, 0), "values");
    int n = mb_params_list(m.p, ts, 64);
    mb_grad(mb_sum(mb_square(y), MB_ALL), ts, n, gs);
    for (int i = 0; i < n; i++) {
        const char *name = mb_params_name(m.p, i);
        bool below = !strncmp(name, "embed", 5) || !strncmp(name, "positions", 9) ||
                     !strncmp(name, "blocks.0", 8) || !strncmp(name, "blocks.1", 8);
        double size = mb_item(mb_max(mb_abs(gs[i]), MB_ALL));
        expect(below ? size == 0 : size > 0, "%s: %g", name, size);
    }
    mb_params_free(m.p);
    close_all();
}

Test(taps, stop_gradients_at_a_name)
{
    stop_gradients(false);
    stop_gradients(true);
}

/* ---- in scopes, scans and vmaps ---- */

Test(taps, in_scopes)
{
    mb_context *mb = open_on("cpu");
    model m = new_model(mb, false);
    mb_tensor out[DEPTH];
    mb_tap tap = mb_tap_collect(mb, "blocks.*.output", out, DEPTH);
    mb_scope scope = mb_scope_begin(mb);
    applied(&m);
    mb_scope_end(scope);
    expect(mb_tap_end(tap) == DEPTH && !mb_valid(out[0]), "stale with its scope");
    scope = mb_scope_begin(mb);
    tap = mb_tap_collect(mb, "", out, DEPTH);
    mb_scope_end(scope);
    expect(mb_error(mb) == MB_INVALID && strstr(mb_message(mb), "the tap begun at") &&
               strstr(mb_message(mb), "taps_test.c"),
           "%s", mb_message(mb));
    mb_clear_error(mb);
    scope = mb_scope_begin(mb);
    mb_prefix_begin(mb, "left", MB_NO_INDEX);
    mb_scope_end(scope);
    expect(mb_error(mb) == MB_INVALID && strstr(mb_message(mb), "the prefix \"left\" begun at"), "%s",
           mb_message(mb));
    mb_clear_error(mb);
    heard h = {{0}, 0};
    tap = mb_tap_begin(mb, "", write_down, &h);
    mb_tell(mb_scalar(mb, MB_FLOAT64, 1), "x");
    mb_tap_end(tap);
    expect(strcmp(h.text, "x ") == 0, "neither is left: %s", h.text);
    mb_params_free(m.p);
    close_all();
}

/* x <- sin(x) + c, three times in each of four steps and for each of five examples; what is told inside. */
static mb_tensor loops(mb_context *mb, mb_tensor x, bool as_scans)
{
    mb_tensor c = mb_mul(mb_iota(mb, MB_FLOAT64, 4), 0.1), out = {0};
    if (!as_scans) {
        for (int t = 0; t < 4; t++)
            for (int k = 0; k < 3; k++)
                x = mb_tell(mb_add(mb_sin(x), mb_squeeze(mb_slice(c, 0, t, 1, 1), 0)), "x");
        return x;
    }
    mb_vmap v = mb_vmap_begin(mb, mb_dim(x, 0));
    mb_tensor one = mb_vmap_in(v, x, 0);
    mb_scan s = mb_scan_begin(mb, 4);
    mb_scan_carry(s, &one);
    mb_tensor now = mb_scan_slice(s, c);
    mb_scan inner = mb_scan_begin(mb, 3);
    mb_scan_carry(inner, &one);
    one = mb_tell(mb_add(mb_sin(one), now), "x");
    mb_scan_end(inner);
    mb_scan_end(s);
    mb_vmap_out(v, one, 0, &out);
    mb_vmap_end(v);
    return out;
}

Test(taps, brought_out_of_scans_and_vmaps)
{
    for (int b = 0; b < 2; b++) {
        mb_context *mb = open_on(backend_names[b]);
        mb_tensor x = mb_normal(mb, mb_key_of(3), MB_FLOAT64, MB_SHAPE(5)), each[12], all, g, h[12];
        mb_tap tap = mb_tap_collect(mb, "x", each, 12);
        mb_tensor y = loops(mb, x, false);
        expect(mb_tap_end(tap) == 12, "written out");
        tap = mb_tap_collect(mb, "x", &all, 1);
        mb_tensor z = loops(mb, x, true);
        expect(mb_tap_end(tap) == 1, "one body");
        expect_ok(mb);
        mb_shape s = mb_shape_of(all);
        expect(s.rank == 3 && s.dim[0] == 5 && s.dim[1] == 4 && s.dim[2] == 3, "[examples, steps, steps]");
        expect(equal(y, z, 1e-14), "values");
        for (int i = 0; i < 12; i++)
            expect(equal(mb_reshape(mb_slice(mb_slice(all, 1, i / 3, 1, 1), 2, i % 3, 1, 1), MB_SHAPE(5)),
                         each[i], 1e-14),
                   "%d", i);
        mb_grad(mb_sum(mb_square(all), MB_ALL), &x, 1, &g);
        mb_tensor sum = mb_sum(mb_square(each[0]), MB_ALL);
        for (int i = 1; i < 12; i++)
            sum = mb_add(sum, mb_sum(mb_square(each[i]), MB_ALL));
        mb_grad(sum, &x, 1, h);
        expect(equal(g, h[0], 1e-12), "derivatives through what was brought out");
        close_all();
    }
}

/* A test-time-training layer runs its steps in a scan: the learner's hidden values of all steps. */
static mb_tensor told_learner(void *user, const mb_tensor *w, int n, mb_tensor x)
{
    (void)user, (void)n;
    return mb_tell(mb_matmul(x, w[0]), "learned");
}

Test(taps, inside_a_layer_that_scans)
{
    mb_context *mb = open_on("cpu");
    mb_learner_weight weight = {.name = "W", .shape = MB_SHAPE(4, 4), .init = mb_init_normal(0.1)};
    mb_tensor out[2][8];
    for (int scan = 0; scan < 2; scan++) {
        mb_params *p = mb_params_new_with(mb, 5, MB_FLOAT64);
        mb_ttt *ttt = mb_ttt_new(p, "ttt",
                                 (mb_ttt_options){.dim = 8,
                                                  .heads = 2,
                                                  .learner = MB_LEARNER_CUSTOM,
                                                  .custom = {told_learner, NULL, &weight, 1},
                                                  .inner_steps = 4,
                                                  .scan = scan ? MB_ON : MB_OFF});
        mb_tap tap = mb_tap_collect(mb, "learned", out[scan], 8);
        mb_ttt_apply(ttt, mb_normal(mb, mb_key_of(9), MB_FLOAT64, MB_SHAPE(B, N, 8)), MB_NO_KEY, NULL);
        expect(mb_tap_end(tap) > 0, "told");
        mb_params_free(p);
    }
    mb_shape s = mb_shape_of(out[1][0]);
    expect(s.rank == 5 && s.dim[0] == 4, "[steps, B, H, m, dh]");
    for (int t = 0; t < 4; t++)
        expect(equal(mb_squeeze(mb_slice(out[1][0], 0, t, 1, 1), 0), out[0][t], 1e-13), "step %d", t);
    close_all();
}

static mb_tensor keep(void *user, const char *name, mb_tensor x)
{
    (void)name;
    ++*(int *)user;
    return mb_keep_through(x);
}

/* What a checkpoint stores, chosen by name: the same derivatives. */
Test(taps, checkpoints_keep_by_name)
{
    mb_context *mb = open_on("cpu");
    mb_tensor g[2];
    for (int kept = 0; kept < 2; kept++) {
        model m = new_model(mb, true);
        int n = 0;
        mb_tap tap = mb_tap_begin(mb, kept ? "blocks.*.attention.weights" : "nothing", keep, &n);
        mb_tensor loss = mb_sum(mb_square(applied(&m)), MB_ALL);
        mb_tap_end(tap);
        expect(n == kept * DEPTH, "%d", n);
        mb_tensor w = mb_params_get(m.p, "embed.weight");
        mb_grad(loss, &w, 1, &g[kept]);
        mb_params_free(m.p);
    }
    expect(equal(g[0], g[1], 1e-13), "derivatives");
    close_all();
}

/* ---- mistakes ---- */

static mb_tensor shorter(void *user, const char *name, mb_tensor x)
{
    (void)user, (void)name;
    return mb_slice(x, 1, 0, 1, 1);
}

static mb_tensor begins_another(void *user, const char *name, mb_tensor x)
{
    (void)name;
    mb_tap_begin(x.ctx, "", shorter, user);
    return x;
}

static mb_status gives_up(void *user, const char *name, mb_tensor *x)
{
    (void)user, (void)name, (void)x;
    return MB_IO;
}

static void expect_mistake(mb_context *mb, const char *words)
{
    expect(mb_error(mb) == MB_INVALID && strstr(mb_message(mb), words) &&
               strstr(mb_message(mb), "taps_test.c"),
           "wanted \"%s\": %s", words, mb_message(mb));
    mb_clear_error(mb);
}

Test(taps, mistakes)
{
    mb_context *mb = open_on("cpu");
    model m = new_model(mb, false);
    mb_tap tap = mb_tap_begin(mb, "blocks.2.output", shorter, NULL);
    expect(!mb_valid(applied(&m)) && mb_tap_end(tap) == -1, "of another shape");
    expect_mistake(mb, "in the place of \"blocks.2.output\"");
    mb_tensor one[1] = {mb_scalar(mb, MB_FLOAT64, 1)};
    tap = mb_tap_replace(mb, "no.such.name", one, 1);
    applied(&m);
    expect(mb_tap_end(tap) == -1, "nobody asked for it");
    expect_mistake(mb, "only 0 were asked for");
    expect(mb_tap_end(tap) == -1, "twice");
    expect_mistake(mb, "not open");
    mb_tap_begin(mb, NULL, shorter, NULL);
    expect_mistake(mb, "no pattern");
    mb_tap_begin(mb, "", NULL, NULL);
    expect_mistake(mb, "no function");
    mb_tap_through(mb, "", NULL, NULL);
    expect_mistake(mb, "tap_through: no function");
    tap = mb_tap_through(mb, "blocks.1.output", gives_up, NULL);
    expect(!mb_valid(applied(&m)) && mb_tap_end(tap) == -1, "a status");
    expect(mb_error(mb) == MB_IO && strstr(mb_message(mb), "failed at \"blocks.1.output\" (i/o)"), "%s",
           mb_message(mb));
    mb_clear_error(mb);
    mb_tap_collect(mb, "", NULL, 3);
    expect_mistake(mb, "no array");
    mb_tap_collect(mb, "", one, -1);
    expect_mistake(mb, "-1 tensors");
    tap = mb_tap_begin(mb, "", begins_another, NULL);
    applied(&m);
    mb_tap_end(tap);
    expect_mistake(mb, "cannot begin one");
    tap = mb_tap_collect(mb, "x", one, 1);
    mb_scan s = mb_scan_begin(mb, 2);
    expect(mb_tap_end(tap) == -1, "inside of a scan");
    expect_mistake(mb, "still open inside the tap");
    mb_scan_end(s);
    mb_clear_error(mb);
    expect(mb_tap_end((mb_tap){NULL, 0}) == -1 && !mb_tell((mb_tensor){0}, "x").ctx, "of nothing");
    mb_prefix_end(NULL);
    mb_params_free(m.p);
    close_all();
}
