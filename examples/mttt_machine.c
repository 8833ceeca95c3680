/* SPDX-License-Identifier: MIT
 *
 * mttt_machine.c - what decides, besides the flags, which numbers come out: the images, and where they are
 * computed. A run goes on with other bits on another machine, and should not do so unnoticed. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "mttt.h"

/* ---- fingerprints ---- */

/* FNV-1a, 64 bits. */
static uint64_t hash(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

static const uint64_t hash_of_nothing = UINT64_C(0xcbf29ce484222325);

/* How many images there are, and the first of them with their labels. */
static uint64_t hash_images(const run *r, mb_images *d, uint64_t h)
{
    enum { MOST = 64 };
    int64_t count = mb_images_count(d), n = count < MOST ? count : MOST;
    mb_scope scope = mb_scope_begin(r->mb);
    mb_tensor x, y;
    mb_images_batch(d, MB_IN_ORDER, 0, n, &x, &y);
    size_t pixels = (size_t)mb_count(x) * sizeof(float), labels = (size_t)n * sizeof(int32_t);
    void *data = calloc(1, pixels + labels);
    if (!data)
        die("out of memory");
    mb_read(x, data, pixels);
    mb_read(y, (char *)data + pixels, labels);
    mb_scope_end(scope);
    check(r);
    h = hash(hash(h, &count, sizeof count), data, pixels + labels);
    free(data);
    return h;
}

/* The widest vectors that the cpu backend has loops for, this processor has, and $MB_CPU allows. */
static const char *instructions(void)
{
    const char *most = getenv("MB_CPU");
    int level = !most || !*most ? 5 : strcmp(most, "v4") == 0 ? 4 : strcmp(most, "v3") == 0 ? 3 : 0;
#if defined __x86_64__ && defined __GNUC__
    __builtin_cpu_init();
    if (level >= 4 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
        return level >= 5 && set.dtype[0] == 'b' && __builtin_cpu_supports("avx512bf16")
                   ? "AVX-512 with bfloat16"
                   : "AVX-512";
    if (level >= 3 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return "AVX2";
#endif
    return level == 0 ? "base, by MB_CPU" : "base";
}

machine this_machine(run *r)
{
    machine here = {.backend = mb_backend_name(r->mb), .instructions = ""};
    double loss, correct;
    begin_test(r);
    int64_t count = on_test_batch(r, &loss, &correct);
    end_test(r);
    r->flops = (double)mb_get_stats(r->mb).last_flops / (double)count;
    uint64_t numbers = hash(hash_of_nothing, r->logits, (size_t)count * CLASSES * sizeof *r->logits);
    uint64_t images = hash_images(r, r->test, hash_images(r, r->train, hash_of_nothing));
    if (strcmp(here.backend, "cpu") == 0)
        here.instructions = instructions();
    snprintf(here.numbers, sizeof here.numbers, "%016llx", (unsigned long long)numbers);
    snprintf(here.images, sizeof here.images, "%016llx", (unsigned long long)images);
    return here;
}

/* ---- config.json ---- */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static bool same_machine(const json_t *there, const machine *here)
{
    return strcmp(text_of(there, "backend"), here->backend) == 0 &&
           strcmp(text_of(there, "instructions"), here->instructions) == 0 &&
           strcmp(text_of(there, "numbers"), here->numbers) == 0;
}

static void tell_difference(const json_t *there, const machine *here)
{
    bool bits = strcmp(text_of(there, "numbers"), here->numbers) != 0;
    const char *a = text_of(there, "instructions"), *b = here->instructions;
    fprintf(stderr, "the run was on %s%s%s%s, and goes on with %s%s%s%s: %s\n", text_of(there, "backend"),
            *a ? " (" : "", a, *a ? ")" : "", here->backend, *b ? " (" : "", b, *b ? ")" : "",
            bits ? "numbers differ in their last bits, so it will not end as it would have there"
                 : "a test batch gives the same bits on both, a whole run may not");
}

void note_machine(const char *config, const machine *here, int64_t step)
{
    json_error_t error;
    json_t *root = json_load_file(config, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        die("%s: %s", config, error.text);
    const char *images = text_of(root, "images");
    if (*images && strcmp(images, here->images) != 0)
        die("--data: %s has other images than the run began with", set.data);
    json_t *machines = json_object_get(root, "machines");
    if (!json_is_array(machines)) {
        machines = json_array();
        json_object_set_new(root, "machines", machines);
    }
    json_t *last = json_array_get(machines, json_array_size(machines) - 1);
    if (!last || !same_machine(last, here)) {
        if (last)
            tell_difference(last, here);
        json_array_append_new(machines, json_pack("{s:I, s:s, s:s, s:s}", "from-step", (json_int_t)step,
                                                  "backend", here->backend, "instructions",
                                                  here->instructions, "numbers", here->numbers));
        json_object_set_new(root, "images", json_string(here->images));
        char *text = json_dumps(root, JSON_INDENT(2));
        if (!text)
            die("out of memory");
        write_file(config, text);
        free(text);
    }
    json_decref(root);
}
