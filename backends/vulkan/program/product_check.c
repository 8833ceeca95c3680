/* SPDX-License-Identifier: MIT
 *
 * product_check.c - a product kernel is tried on the device before it is first used: drivers have compiled
 * such kernels wrongly, and a wrong product is worse than a slow one. The trial has a size that is no
 * multiple of any tile, and the reading pattern (specialization constants) of the kernel that is to be used.
 */
#include "backends/vulkan/program/program.h"

enum { BATCH = 2 };

static double entry(int64_t i, int64_t salt) /* small integers: sums of their products are exact */
{
    return (double)((i * 7 + salt) % 13 - 6);
}

/* The trial's product: sizes are multiples of 4 where the pattern reads by fours, and strides too; elsewhere
 * neither. */
static mb__product trial(uint32_t m, uint32_t n, uint32_t a_read, uint32_t b_read, bool fours)
{
    mb__product p = {
        .m = m + (a_read != 2), .n = n + (b_read != 2 && !fours), .k = 20 + (a_read != 3 && b_read != 3)};
    int64_t a_row = a_read == 3 ? p.k : p.k + 1, a_column = a_read == 2 ? p.m : p.m + 1;
    int64_t b_row = b_read == 2 ? p.n : p.n + 1, b_column = b_read == 3 ? p.k : p.k + 1;
    bool a_along_k = a_read == 0 || a_read == 3, b_along_k = b_read == 0 || b_read == 3;
    p.a_m = a_along_k ? a_row : 1;
    p.a_k = a_along_k ? 1 : a_column;
    p.b_k = b_along_k ? 1 : b_row;
    p.b_n = b_along_k ? b_column : 1;
    p.c_m = fours ? p.n : p.n + 1;
    p.c_n = 1;
    p.loops = 1;
    p.loop[0] = BATCH;
    p.a_loop[0] =
        (a_along_k ? p.m * a_row : p.k * a_column) + 4 - (a_along_k ? p.m * a_row : p.k * a_column) % 4;
    p.b_loop[0] =
        (b_along_k ? p.n * b_column : p.k * b_row) + 4 - (b_along_k ? p.n * b_column : p.k * b_row) % 4;
    p.c_loop[0] = p.m * p.c_m + 4 - p.m * p.c_m % 4;
    p.a.value = 0;
    p.b.value = 1;
    p.c.value = 2;
    return p;
}

static double at(const void *data, bool wide, int64_t i)
{
    return wide ? ((const double *)data)[i] : (double)((const float *)data)[i];
}

static bool right(const mb__product *p, bool wide, const void *c)
{
    for (int64_t l = 0; l < BATCH; l++)
        for (int64_t i = 0; i < p->m; i++)
            for (int64_t j = 0; j < p->n; j++) {
                double sum = 0;
                for (int64_t k = 0; k < p->k; k++)
                    sum += entry(l * p->a_loop[0] + i * p->a_m + k * p->a_k, 1) *
                           entry(l * p->b_loop[0] + k * p->b_k + j * p->b_n, 5);
                if (at(c, wide, l * p->c_loop[0] + i * p->c_m + j * p->c_n) != sum)
                    return false;
            }
    return true;
}

/* 1: right, 0: wrong, -1: it could not be tried: v->refused, or the context's error says why. */
static int run_trial(mb__vk *v, const mb__product *product, bool wide)
{
    mb_context *ctx = v->ctx;
    mb_dtype dtype = wide ? MB_FLOAT64 : MB_FLOAT32;
    int64_t counts[3] = {BATCH * product->a_loop[0], BATCH * product->b_loop[0], BATCH * product->c_loop[0]},
            most = 0;
    mb__value values[3];
    for (int i = 0; i < 3; i++) {
        values[i] = (mb__value){.dtype = (uint8_t)dtype,
                                .home = i < 2 ? MB_IN_INPUT : MB_IN_OUTPUT,
                                .index = i < 2 ? i : 0,
                                .count = counts[i],
                                .onto = -1};
        most = counts[i] > most ? counts[i] : most;
    }
    mb__step step = {.kind = MB_STEP_PRODUCT, .site = NULL, .u.product = *product};
    mb__plan plan = {.values = values,
                     .steps = &step,
                     .value_count = 3,
                     .step_count = 1,
                     .input_count = 2,
                     .output_count = 1};
    size_t bytes = (size_t)most * mb_dtype_size(dtype), program_bytes;
    char *host = mb__alloc(ctx, bytes);
    void *memory[3] = {NULL}, *program = NULL;
    bool ok = host != NULL;
    for (int i = 0; i < 3 && ok; i++) {
        for (int64_t j = 0; j < counts[i]; j++)
            if (wide)
                ((double *)(void *)host)[j] = entry(j, i == 0 ? 1 : 5);
            else
                ((float *)(void *)host)[j] = (float)entry(j, i == 0 ? 1 : 5);
        ok =
            (memory[i] = mb__vk_memory_new(ctx, v, (size_t)counts[i] * mb__vk_element_size(dtype))) != NULL &&
            mb__vk_upload(ctx, v, memory[i], dtype, counts[i], host) == MB_OK;
    }
    ok = ok && (program = mb__vk_compile(ctx, v, &plan, &program_bytes)) != NULL;
    mb__binding binding = {memory[0], memory, memory + 2, NULL};
    ok = ok && mb__vk_run(ctx, v, program, &binding) == MB_OK &&
         mb__vk_download(ctx, v, memory[2], dtype, counts[2], host) == MB_OK;
    int result = !ok ? -1 : right(product, wide, host);
    if (program)
        mb__vk_discard(ctx, v, program);
    for (int i = 0; i < 3; i++)
        if (memory[i])
            mb__vk_memory_free(ctx, v, memory[i], 0);
    mb__free(ctx, host, bytes);
    return result;
}

bool mb__vk_product_trusted(mb__vk *v, int variant, bool wide, uint32_t m, uint32_t n, uint32_t a_read,
                            uint32_t b_read, bool fours)
{
    uint8_t *state = &v->product_state[variant * 2 + wide][a_read | b_read << 2 | (uint32_t)fours << 4];
    if (*state == VK_UNTRIED) {
        *state = VK_TRUSTED; /* while it is tried */
        int forced = v->forced_product;
        v->forced_product = variant;
        v->trying = true;
        v->refused = false;
        mb__product p = trial(m + 4, n + 4, a_read, b_read, fours);
        int result = run_trial(v, &p, wide);
        v->trying = false;
        v->forced_product = forced;
        if (result <= 0 || v->quirks & VK_QUIRK_WRONG_TILES)
            *state = VK_WRONG;
        if (result == 0 || v->refused)
            mb__log(v->ctx, "vulkan: %s %s with kernel %d; a plainer one is used instead",
                    v->props.deviceName,
                    v->refused ? "makes no pipeline of a product" : "computes a product wrongly", variant);
        v->refused = false;
    }
    return *state == VK_TRUSTED;
}
