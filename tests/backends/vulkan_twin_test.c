/* SPDX-License-Identifier: MIT
 *
 * vulkan_twin_test.c - our assembler against glslang. Each generated kernel is written twice from the same
 * instructions, as SPIR-V words and as GLSL text. spirv-val must accept the words; glslang compiles the text
 * behind the same functions; and programs that run with glslang's kernels in the place of ours must have the
 * same bits. */
#include "program.h"
#include "training.h"

#ifdef MB_HAVE_VULKAN
#include <sys/stat.h>
#include <unistd.h>

#include "backends/engine/state.h"
#include "backends/vulkan/vulkan.h"

static char folder[] = "/tmp/moebius-twin-XXXXXX";
static char library[1 << 16]; /* kernel.comp without its main */
static int kernels;           /* seen in this round */
static bool replacing;

static const char *path(int n, const char *ending)
{
    static char text[2][200];
    static int turn;
    char *out = text[turn ^= 1];
    snprintf(out, sizeof text[0], "%s/%04d%s", folder, n, ending);
    return out;
}

static size_t read_file(const char *from, void *out, size_t most)
{
    FILE *f = fopen(from, "rb");
    size_t n = f ? fread(out, 1, most, f) : 0;
    if (f)
        fclose(f);
    return n;
}

static void write_file(const char *to, const char *head, const void *data, size_t bytes)
{
    FILE *f = fopen(to, "wb");
    cr_assert(f != NULL, "cannot write %s", to);
    fwrite(head, 1, strlen(head), f);
    fwrite(data, 1, bytes, f);
    fclose(f);
}

/* A module as drivers are given it, with all that a device can be asked for. */
static void write_module(mb__vk *v, const char *to, const uint32_t *words, uint32_t count)
{
    mb__vk_caps caps = v->caps;
    size_t bytes = 0;
    v->caps.modes[0] = v->caps.modes[1] = VK_KEEPS_NAN | VK_KEEPS_SMALL;
    uint32_t *all = mb__vk_module_new(v, words, count, &count, &bytes);
    v->caps = caps;
    cr_assert(all != NULL);
    write_file(to, "", all, count * 4ul);
    mb__host_free(v->host, all, bytes);
}

/* First round: keeps the words and the text. Second round: brings what glslang made of the text. */
static void watch(mb__vk *v, const mb__plan *plan, const mb__vk_pass *pass, const uint32_t **words,
                  uint32_t *count)
{
    static uint32_t twin[1 << 16];
    (void)plan;
    int n = kernels++;
    if (replacing) {
        size_t bytes = read_file(path(n, ".spv"), twin, sizeof twin);
        expect(bytes == *count * 4 && !memcmp(twin, *words, bytes), "kernel %d is another one now", n);
        bytes = read_file(path(n, ".twin"), twin, sizeof twin);
        expect(bytes > 100, "kernel %d has no twin", n);
        *words = twin;
        *count = (uint32_t)(bytes / 4);
        return;
    }
    write_file(path(n, ".spv"), "", *words, *count * 4ul);
    write_module(v, path(n, ".module"), *words, *count);
    mb__vk_uses uses = mb__vk_uses_of(&pass->k);
    mb__vk_asm *a = mb__vk_asm_new(v, uses, true);
    cr_assert(a != NULL);
    mb__vk_emit(a, pass);
    const char *text = mb__vk_asm_text(a);
    expect(text != NULL, "kernel %d: no text", n);
    if (text)
        write_file(path(n, uses.float64  ? uses.halves ? ".f64.half.comp" : ".f64.comp"
                           : uses.halves ? ".half.comp"
                                         : ".f32.comp"),
                   library, text, strlen(text));
    mb__vk_asm_free(a);
}

static mb_context *watched(void)
{
    mb_context *ctx = open_on("vulkan");
    ((mb__vk *)((mb__engine_state *)ctx->engine_state)->backend_state)->watch_kernel = watch;
    return ctx;
}

enum { PROGRAMS = 8, LONG = 3 * 5000, ALL = 224 + LONG + LONG / 3 + 2 };

/* Gradients to the second order through rows with reductions, several sets of axes in one kernel, inner
 * steps. */
static double mixed(mb_context *ctx, mb_dtype dtype, double *out)
{
    rng r = {11};
    mb_tensor x = draw(ctx, &r, dtype, MB_SHAPE(5, 3, 7), -1, 1),
              scale = draw(ctx, &r, dtype, MB_SHAPE(7), 0.5, 1),
              w = draw(ctx, &r, dtype, MB_SHAPE(7, 7), -1, 1);
    mb_tensor centred = mb_sub(x, mb_reshape(mb_mean(x, MB_AXES(2)), MB_SHAPE(5, 3, 1)));
    mb_tensor norm = mb_mul(
        mb_mul(centred, mb_rsqrt(mb_add(
                            mb_reshape(mb_mean(mb_square(centred), MB_AXES(2)), MB_SHAPE(5, 3, 1)), 1e-5))),
        scale);
    mb_tensor y = mb_softmax(mb_matmul(norm, w), 2), g[2], h[2];
    mb_tensor over[2] = {mb_sum(mb_log(y), MB_AXES(0)), mb_max(norm, MB_AXES(1))};
    mb_grad(mb_add(mb_sum(mb_square(over[0]), MB_ALL), mb_sum(mb_exp(over[1]), MB_ALL)),
            (mb_tensor[]){x, scale}, 2, g);
    mb_grad(mb_add(mb_sum(mb_sin(g[0]), MB_ALL), mb_sum(mb_tanh(g[1]), MB_ALL)), (mb_tensor[]){x, scale}, 2,
            h);
    memcpy(out, values(h[0]), 105 * sizeof *out);
    memcpy(out + 105, values(h[1]), 7 * sizeof *out);
    return out[0];
}

/* Rows long enough for lanes that share one, and for sums in pieces. */
static void long_rows(mb_context *ctx, double *out)
{
    rng r = {12};
    mb_tensor x = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(3, LONG / 3), -1, 1), g;
    mb_tensor y = mb_mul(mb_softmax(x, 1), x);
    mb_grad(mb_add(mb_sum(mb_square(y), MB_ALL), mb_sum(mb_max(mb_sin(x), MB_AXES(1)), MB_ALL)), &x, 1, &g);
    memcpy(out, values(g), LONG * sizeof *out);
    memcpy(out + LONG, values(mb_sum(mb_exp(x), MB_AXES(0))), LONG / 3 * sizeof *out);
    out[LONG + LONG / 3] = mb_item(mb_sum(mb_tanh(x), MB_ALL));
    out[LONG + LONG / 3 + 1] = mb_item(mb_max(mb_sin(x), MB_ALL));
}

static int run_all(uint64_t programs, result *r, double *losses, double *m)
{
    kernels = 0;
    long_rows(watched(), m + 224);
    for (uint64_t seed = 0; seed < programs; seed++) {
        program p;
        program_make(&p, 900 + seed, seed % 2 ? MB_FLOAT64 : MB_FLOAT32);
        mb_context *ctx = watched();
        expect(program_run(ctx, &p, 1, 0, &r[seed]), "%s", mb_message(ctx));
    }
    training t;
    training_start(&t, watched());
    for (int step = 0; step < 2; step++) {
        expect(training_step(&t, step, 0.1), "%s", mb_message(t.ctx));
        losses[step] = t.loss;
    }
    mixed(watched(), MB_FLOAT32, m);
    mixed(watched(), MB_FLOAT64, m + 112);
    return kernels;
}

static int shell(const char *command)
{
    char line[2000];
    snprintf(line, sizeof line, "cd %s && %s", folder, command);
    return system(line);
}

static void twins(int programs, int kernels_least)
{
    cr_assert(mkdtemp(folder) != NULL);
    size_t n = read_file(MB_SHADERS "/kernel.comp", library, sizeof library - 1);
    char *end = strstr(library, "void main()");
    cr_assert(n > 1000 && end, "no kernel.comp in %s", MB_SHADERS);
    *end = 0;
    static result ours[PROGRAMS], theirs[PROGRAMS];
    double losses[2], twin_losses[2];
    static double m[ALL], twin_m[ALL];
    int made = run_all((uint64_t)programs, ours, losses, m);
    expect(made > kernels_least, "only %d kernels", made);
    expect(shell("for f in *.module; do spirv-val --target-env vulkan1.1 $f || exit 1; done") == 0,
           "spirv-val");
    expect(shell("ls *.comp | xargs -P $(nproc) -n 8 sh -c 'for f; do d=; case $f in *.f64.*) "
                 "d=-DHAVE_F64;; esac; case $f in *.half.comp) d=\"$d -DHAVE_HALF\";; esac; "
                 "glslangValidator --quiet -V --target-env vulkan1.1 -I" MB_SHADERS " -I" MB_SHADERS_MADE
                 " $d -o ${f%%.*}.twin $f || exit 255; done' sh") == 0,
           "glslang");
    replacing = true;
    expect(run_all((uint64_t)programs, theirs, twin_losses, twin_m) == made, "another number of kernels");
    for (int s = 0; s < programs; s++)
        for (int i = 0; i < ours[s].n; i++)
            expect(same_bits(ours[s].v[i], theirs[s].v[i], ours[s].count[i]), "program %d, result %d", s, i);
    expect(same_bits(losses, twin_losses, 2), "training: %g, not %g", losses[1], twin_losses[1]);
    expect(same_bits(m, twin_m, 224), "layer norm and softmax, second order");
    expect(same_bits(m + 224, twin_m + 224, ALL - 224), "long rows");
    printf("%d kernels\n", made);
    if (!shell("true"))
        shell("rm -f *.spv *.module *.comp *.twin");
    rmdir(folder);
    close_all();
}

Test(vulkan_twin, same_bits_by_glslang, .timeout = 300)
{
    if (is_slow())
        twins(2, 30);
    else
        twins(PROGRAMS, 60);
}

/* Other shapes of kernels: lanes that share rows, rows beside each other. */
Test(vulkan_twin, same_bits_with_work_spread_as_on_a_gpu, .timeout = 300)
{
    setenv("MB_VULKAN_QUIRKS", "16", 1);
    twins(2, 30);
}

/* The shaders that were compiled with the library. */
Test(vulkan_twin, modules_are_valid)
{
    cr_assert(mkdtemp(folder) != NULL);
    mb_context *ctx = open_on("vulkan");
    mb__vk *v = ((mb__engine_state *)ctx->engine_state)->backend_state;
    int n = 0;
    for (const mb__vk_shader *s = mb__vk_shaders; s->name; s++)
        write_module(v, path(n++, ".module"), s->words, (uint32_t)(s->bytes / 4));
    expect(n >= 28, "only %d shaders", n);
    expect(shell("for f in *.module; do spirv-val --target-env vulkan1.1 $f || exit 1; done") == 0,
           "spirv-val");
    /* What they were given is there: both modes, and at least three views of the blocks as aliases. */
    expect(
        shell(
            "for f in *.module; do spirv-dis $f | grep -c 'SignedZeroInfNanPreserve 32\\|DenormPreserve 32\\|"
            "Aliased' | grep -q '^[5-9]' || exit 1; done") == 0,
        "modes or decorations are missing");
    shell("rm -f *.module");
    rmdir(folder);
    close_all();
}
#endif
