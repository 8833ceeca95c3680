/* SPDX-License-Identifier: MIT
 *
 * vit_test.c - blocks and the vision transformer: patches, positions, parameters by name, the whole against
 * its parts, numbers of parameters from the paper, mixers of the caller's. */
#include "fixture.h"

static void patches(const char *backend)
{
    enum { B = 2, ROWS = 6, COLS = 4, C = 3, P = 2 };
    mb_context *mb = open_on(backend);
    for (int c = 1; c <= C; c += C - 1) {
        mb_shape shape = c == 1 ? MB_SHAPE(B, ROWS, COLS) : MB_SHAPE(B, ROWS, COLS, C);
        mb_tensor x = pattern(mb, shape, 1, 1, 0), y = mb_patchify(x, P);
        expect(same_shape(mb_shape_of(y), MB_SHAPE(B, 6, P * P * c)), "%s", shape_text(mb_shape_of(y)));
        const double *xv = values(x), *yv = values(y);
        for (int i = 0; i < B * ROWS * COLS * c; i++) {
            int channel = i % c, column = i / c % COLS, row = i / c / COLS % ROWS, b = i / c / COLS / ROWS;
            int token = row / P * (COLS / P) + column / P, value = (row % P * P + column % P) * c + channel;
            expect(yv[(b * 6 + token) * P * P * c + value] == xv[i], "pixel %d", i);
        }
    }
    mb_patchify(mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 6, 5)), 2);
    expect(mb_error(mb) == MB_INVALID, "5 columns in patches of 2");
    mb_clear_error(mb);
    close_all();
}

Test(vit, patches)
{
    for (int i = 0; i < 2; i++)
        patches(backend_names[i]);
}

Test(vit, sincos2d)
{
    mb_context *mb = open_on("cpu");
    enum { ROWS = 3, COLS = 4, D = 12 };
    const double *v = values(mb_sincos2d(mb, MB_FLOAT64, ROWS, COLS, D));
    for (int y = 0; y < ROWS; y++)
        for (int x = 0; x < COLS; x++)
            for (int i = 0; i < D / 4; i++) {
                const double *token = v + (y * COLS + x) * D;
                double w = 1 / pow(10000, (double)i / (D / 4 - 1));
                expect(near(token[i], sin(x * w), 0, 1e-15) && near(token[i + 3], cos(x * w), 0, 1e-15), "x");
                expect(near(token[i + 6], sin(y * w), 0, 1e-15) && near(token[i + 9], cos(y * w), 0, 1e-15),
                       "y");
            }
    mb_sincos2d(mb, MB_FLOAT32, 3, 4, 10);
    expect(mb_error(mb) == MB_INVALID, "10 is no multiple of 4");
    mb_clear_error(mb);
    close_all();
}

/* ---- numbers of parameters: section 3 of the notes; positions are not counted in the paper's table ---- */

static int64_t size_of(mb_context *mb, int64_t dim, int64_t heads, int64_t patch_values, mb_mixer_kind kind,
                       mb_learner_kind learner)
{
    mb_params *p = mb_params_new(mb, 1);
    mb_vit *vit =
        mb_vit_new(p, "",
                   (mb_vit_options){.tokens = 196,
                                    .patch_values = patch_values,
                                    .dim = dim,
                                    .depth = 12,
                                    .classes = 1000,
                                    .pre_logits = true,
                                    .positions = MB_POSITIONS_SINCOS2D,
                                    .mixer = {.kind = kind, .heads = heads, .ttt = {.learner = learner}}});
    expect(vit && mb_vit_depth(vit) == 12, "made");
    int64_t size = mb_params_size(p);
    mb_params_free(p);
    return size;
}

static void expect_size(int64_t got, int64_t want, const char *what)
{
    expect(got == want, "%s: %lld parameters, not %lld", what, (long long)got, (long long)want);
}

Test(vit, sizes_of_the_paper)
{
    mb_context *mb = open_on("cpu");
    expect_size(size_of(mb, 384, 6, 768, MB_MIXER_SOFTMAX, 0), 22122472, "ViT-S, attention");
    expect_size(size_of(mb, 384, 6, 768, MB_MIXER_LINEAR, 0), 22122472, "ViT-S, linear attention");
    expect_size(size_of(mb, 384, 6, 768, MB_MIXER_TTT, MB_LEARNER_LINEAR), 22122472, "ViT-S, MTTT-Linear");
    expect_size(size_of(mb, 384, 6, 768, MB_MIXER_TTT, MB_LEARNER_MLP), 24560104, "ViT-S, MTTT-MLP");
    expect_size(size_of(mb, 192, 3, 3, MB_MIXER_LINEAR, 0), 5569576, "ViT-Ti on pixels");
    expect_size(size_of(mb, 192, 3, 3, MB_MIXER_TTT, MB_LEARNER_MLP), 6774568, "ViT-Ti on pixels, MTTT-MLP");
    close_all();
}

/* ---- the whole against its parts ---- */

static mb_vit *small(mb_params *p, mb_vit_options o)
{
    o.tokens = 4;
    o.patch_values = 9;
    o.dim = 8;
    o.depth = 2;
    o.classes = 3;
    o.head_init = mb_init_xavier(8, 3);
    o.mixer.heads = 2;
    return mb_vit_new(p, "net", o);
}

/* By name: x weight^T + bias */
static mb_tensor dense(mb_params *p, const char *name, mb_tensor x)
{
    char full[80];
    snprintf(full, sizeof full, "net.%s.weight", name);
    mb_tensor w = mb_params_get(p, full);
    snprintf(full, sizeof full, "net.%s.bias", name);
    return mb_add(mb_matmul(x, mb_transpose(w)), mb_params_get(p, full));
}

static mb_tensor normalized(mb_params *p, const char *name, mb_tensor x)
{
    char full[80];
    snprintf(full, sizeof full, "net.%s.scale", name);
    mb_tensor scale = mb_params_get(p, full);
    snprintf(full, sizeof full, "net.%s.bias", name);
    return mb_layer_normalize(x, scale, mb_params_get(p, full), 1e-6);
}

static void whole(const char *backend, mb_mixer_kind kind)
{
    mb_context *mb = open_on(backend);
    mb_params *p = mb_params_new_with(mb, 5, MB_FLOAT64);
    mb_vit *vit = small(
        p,
        (mb_vit_options){
            .pre_logits = true,
            .mixer = {.kind = kind, .ttt = {.learner = MB_LEARNER_MLP, .inner_steps = 2, .inner_batch = 2}}});
    for (int i = 0; i < mb_params_count(p); i++) /* no two parameters alike, no biases of zero */
        mb_assign(
            mb_params_tensor(p, i),
            mb_add(mb_params_tensor(p, i), pattern(mb, mb_shape_of(mb_params_tensor(p, i)), i, 0.1, 0)));
    mb_tensor x = pattern(mb, MB_SHAPE(3, 4, 9), 60, 1, 0), losses[6], own[3];
    mb_key key = mb_key_of(31);
    mb_tensor y = mb_vit_apply(vit, x, key, losses);
    int each = mb_vit_losses(vit);
    expect(each == (kind == MB_MIXER_TTT ? 3 : 0), "%d inner losses", each);

    mb_tensor z = mb_add(dense(p, "embed", x), mb_params_get(p, "net.positions"));
    for (int i = 0; i < 2; i++) {
        char name[40];
        snprintf(name, sizeof name, "blocks.%d.norm1", i);
        mb_tensor mixed = mb_mixer_apply(mb_vit_block(vit, i)->mixer, normalized(p, name, z),
                                         mb_key_fold(key, (uint64_t)i), own);
        for (int k = 0; k < each; k++)
            expect_close(own[k], losses[i * each + k], 1e-12, "inner loss");
        z = mb_add(z, mixed);
        snprintf(name, sizeof name, "blocks.%d.norm2", i);
        mb_tensor hidden = normalized(p, name, z);
        snprintf(name, sizeof name, "blocks.%d.mlp.up", i);
        hidden = mb_gelu(dense(p, name, hidden));
        snprintf(name, sizeof name, "blocks.%d.mlp.down", i);
        z = mb_add(z, dense(p, name, hidden));
    }
    z = mb_mean(normalized(p, "norm", z), MB_AXES(1));
    z = dense(p, "head", mb_tanh(dense(p, "pre_logits", z)));
    expect_close(y, z, 1e-12, backend);

    /* Every parameter is reached by the loss. */
    mb_tensor xs[64], g[64];
    int n = mb_params_list(p, xs, 64);
    mb_grad(mb_cross_entropy(y, mb_from(mb, MB_INT32, MB_SHAPE(3), (int32_t[]){0, 2, 1})), xs, n, g);
    for (int i = 0; i < n; i++)
        expect(norm2(g[i]) > 0, "%s, kind %d: no gradient for %s", backend, (int)kind, mb_params_name(p, i));
    mb_params_free(p);
    close_all();
}

Test(vit, whole_and_parts)
{
    for (int i = 0; i < 2; i++)
        for (int kind = MB_MIXER_SOFTMAX; kind <= MB_MIXER_TTT; kind++)
            if (!testing("vulkan") || kind == MB_MIXER_SOFTMAX || kind == MB_MIXER_TTT)
                whole(backend_names[i], (mb_mixer_kind)kind);
}

Test(vit, names)
{
    static const char *const attention[] = {"net.embed.weight",
                                            "net.embed.bias",
                                            "net.positions",
                                            "net.blocks.0.norm1.scale",
                                            "net.blocks.0.norm1.bias",
                                            "net.blocks.0.attention.qkv.weight",
                                            "net.blocks.0.attention.qkv.bias",
                                            "net.blocks.0.attention.out.weight",
                                            "net.blocks.0.attention.out.bias",
                                            "net.blocks.0.norm2.scale",
                                            "net.blocks.0.norm2.bias",
                                            "net.blocks.0.mlp.up.weight",
                                            "net.blocks.0.mlp.up.bias",
                                            "net.blocks.0.mlp.down.weight",
                                            "net.blocks.0.mlp.down.bias",
                                            "net.blocks.1.norm1.scale"};
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 5), *q = mb_params_new(mb, 5);
    small(p, (mb_vit_options){.mixer = {.kind = MB_MIXER_SOFTMAX}});
    for (int i = 0; i < (int)(sizeof attention / sizeof *attention); i++)
        expect(strcmp(mb_params_name(p, i), attention[i]) == 0, "%d is %s, not %s", i, mb_params_name(p, i),
               attention[i]);
    expect(strcmp(mb_params_name(p, mb_params_count(p) - 1), "net.head.bias") == 0, "the last one");
    mb_params_get(p, "net.norm.scale");
    small(q, (mb_vit_options){.positions = MB_POSITIONS_NONE, .mixer = {.kind = MB_MIXER_TTT}});
    mb_params_get(q, "net.blocks.1.ttt.psi_k");
    expect(mb_error(mb) == MB_OK, "%s", mb_message(mb));
    mb_params_get(q, "net.positions");
    expect(mb_error(mb) == MB_INVALID, "no positions");
    mb_clear_error(mb);
    mb_params_free(p);
    mb_params_free(q);
    close_all();
}

/* ---- a mixer of the caller's: each token looks at the mean of all ---- */

typedef struct averager {
    mb_tensor gain;
} averager;

static mb_tensor average(const void *layer, mb_tensor x, mb_key key, mb_tensor *losses)
{
    (void)key, (void)losses;
    return mb_mul(mb_broadcast(mb_mean(x, MB_KEEP(1)), mb_shape_of(x)), ((const averager *)layer)->gain);
}

static mb_mixer make_average(void *user, mb_params *p, int64_t dim)
{
    (void)user;
    averager *a = mb_params_alloc(p, sizeof *a);
    if (!a)
        return (mb_mixer){0};
    a->gain = mb_param(p, "gain", MB_SHAPE(dim), mb_init_ones());
    return (mb_mixer){.apply = average, .layer = a};
}

/* An image whose last tokens are not there is one of fewer tokens. */
Test(vit, tokens_that_are_not_there)
{
    for (int k = 0; k < 2; k++)
        for (int kind = MB_MIXER_SOFTMAX; kind <= MB_MIXER_ADAPTIVE; kind++) {
            if (testing("vulkan") && kind != MB_MIXER_SOFTMAX)
                continue;
            mb_context *mb = open_on(backend_names[k]);
            mb_params *p = mb_params_new_with(mb, 5, MB_FLOAT64);
            mb_vit *vit = small(p, (mb_vit_options){.positions = MB_POSITIONS_NONE,
                                                    .head_init = mb_init_normal(1),
                                                    .mixer = {.kind = (mb_mixer_kind)kind}});
            mb_tensor x = pattern(mb, MB_SHAPE(2, 4, 9), 60, 1, 0), few = mb_slice(x, 1, 0, 3, 1);
            mb_tensor there = mb_lt(mb_broadcast(mb_iota(mb, MB_INT32, 4), MB_SHAPE(2, 4)),
                                    mb_full(mb, MB_INT32, MB_SHAPE0, 3));
            mb_tensor y = mb_vit_apply_with(vit, x, (mb_vit_masks){.tokens = there}, MB_NO_KEY, NULL), dx;
            if (kind != MB_MIXER_LINEAR) /* whose scale counts the tokens that are not there, too */
                expect_close(y, mb_vit_apply(vit, few, MB_NO_KEY, NULL), 1e-12, "three tokens of four");
            mb_grad(mb_sum(mb_sin(y), MB_ALL), &x, 1, &dx);
            expect(norm2(mb_slice(dx, 1, 3, 1, 1)) == 0 && norm2(dx) > 0, "derivatives by what is not there");
            mb_params_free(p);
            close_all();
        }
}

/* All that is seen by a mask of all, and of what came before. */
Test(vit, mask)
{
    for (int k = 0; k < 2; k++) {
        mb_context *mb = open_on(backend_names[k]);
        mb_params *p = mb_params_new_with(mb, 5, MB_FLOAT64), *q = mb_params_new_with(mb, 5, MB_FLOAT64);
        mb_vit *vit =
            small(p, (mb_vit_options){.head_init = mb_init_normal(1), .mixer = {.kind = MB_MIXER_SOFTMAX}});
        mb_vit *causal = small(q, (mb_vit_options){.head_init = mb_init_normal(1),
                                                   .mixer = {.kind = MB_MIXER_SOFTMAX, .causal = true}});
        mb_tensor x = pattern(mb, MB_SHAPE(2, 4, 9), 60, 1, 0), lower = mb_tril_mask(mb, 4, 4, 0);
        mb_tensor all = mb_full(mb, MB_BOOL, MB_SHAPE(4), 1), whole = mb_vit_apply(vit, x, MB_NO_KEY, NULL);
        expect_close(mb_vit_apply_with(vit, x, (mb_vit_masks){.seen = lower}, MB_NO_KEY, NULL),
                     mb_vit_apply(causal, x, MB_NO_KEY, NULL), 1e-12, "causal by a mask");
        expect_close(mb_vit_apply_with(vit, x, (mb_vit_masks){.seen = all}, MB_NO_KEY, NULL), whole, 1e-12,
                     "all");
        expect_close(mb_block_apply_with(mb_vit_block(vit, 0), mb_zeros(mb, MB_FLOAT64, MB_SHAPE(2, 4, 8)),
                                         all, MB_NO_KEY, NULL),
                     mb_block_apply(mb_vit_block(vit, 0), mb_zeros(mb, MB_FLOAT64, MB_SHAPE(2, 4, 8)),
                                    MB_NO_KEY, NULL),
                     1e-12, "a block");
        mb_params_free(p);
        mb_params_free(q);
        close_all();
    }
}

Test(vit, custom_mixer)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new_with(mb, 5, MB_FLOAT64);
    mb_vit *vit = small(p, (mb_vit_options){.mixer = {.kind = MB_MIXER_CUSTOM, .make = make_average}});
    mb_tensor gain = mb_params_get(p, "net.blocks.1.gain"), g;
    mb_tensor y = mb_vit_apply(vit, pattern(mb, MB_SHAPE(3, 4, 9), 60, 1, 0), MB_NO_KEY, NULL);
    mb_grad(mb_sum(mb_square(y), MB_ALL), &gain, 1, &g);
    expect(norm2(g) > 0, "reached");
    expect(mb_vit_losses(vit) == 0, "no losses");
    mb_vit_masks masks = {.seen = mb_full(mb, MB_BOOL, MB_SHAPE(4), 1)};
    mb_vit_apply_with(vit, pattern(mb, MB_SHAPE(3, 4, 9), 60, 1, 0), masks, MB_NO_KEY, NULL);
    expect(strstr(mb_message(mb), "a mask for a mixer that takes none") != NULL, "got: %s", mb_message(mb));
    mb_clear_error(mb);
    small(p, (mb_vit_options){.mixer = {.kind = MB_MIXER_CUSTOM}});
    expect(mb_error(mb) == MB_INVALID, "the name is taken, and nothing makes the mixer");
    mb_clear_error(mb);
    mb_params_free(p);
    close_all();
}

Test(vit, mistakes)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 5);
    mb_vit *vit = small(p, (mb_vit_options){.mixer = {.kind = MB_MIXER_LINEAR}});
    expect(!mb_valid(mb_vit_apply(vit, mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 5, 9)), MB_NO_KEY, NULL)),
           "5 tokens, not 4");
    expect(mb_error(mb) == MB_INVALID, "%s", mb_message(mb));
    mb_clear_error(mb);
    expect(!mb_valid(mb_vit_apply(vit, mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 4, 8)), MB_NO_KEY, NULL)),
           "8 values, not 9");
    mb_clear_error(mb);
    mb_vit_masks masks = {.tokens = mb_full(mb, MB_BOOL, MB_SHAPE(4), 1)};
    mb_vit_apply_with(vit, mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 4, 9)), masks, MB_NO_KEY, NULL);
    expect(strstr(mb_message(mb), "got tokens [4] bool; wanted bool [2,4]") != NULL, "got: %s",
           mb_message(mb));
    mb_clear_error(mb);
    expect(!mb_vit_new(p, "x", (mb_vit_options){.tokens = 4}), "no sizes");
    mb_clear_error(mb);
    expect(
        !mb_vit_new(
            p, "y",
            (mb_vit_options){
                .tokens = 6, .patch_values = 1, .dim = 8, .classes = 2, .positions = MB_POSITIONS_SINCOS2D}),
        "6 tokens are no square");
    mb_clear_error(mb);
    expect(mb_vit_block(vit, 2) == NULL && mb_vit_block(vit, -1) == NULL && mb_vit_depth(NULL) == 0,
           "out of range");
    mb_params_free(p);
    close_all();
}
