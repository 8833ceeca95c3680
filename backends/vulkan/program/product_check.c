/* SPDX-License-Identifier: MIT
 *
 * product_check.c - a product kernel is tried on the device before it is first used: drivers have compiled
 * such kernels wrongly, and a wrong product is worse than a slow one. The trial's sizes are not multiples of
 * any tile; its specialization constants are those of the kernel that is to be used.
 */
#include "backends/vulkan/program/program.h"

enum { BATCH = 2 };

static double entry(int64_t i, int64_t salt) /* small integers: sums of their products are exact */
{
    return (double)((i * 7 + salt) % 13 - 6);
}

/* The trial's product: sizes and strides are multiples of 4 only where the pattern reads by fours. */
static mb__product trial(const mb__vk *v, const mb__vk_choice *c)
{
    mb__vk_tile tile = mb__vk_tile_of(v, c->kernel);
    uint32_t m = tile.m + 4, n = tile.n + 4, a_read = c->a_read, b_read = c->b_read;
    bool fours = c->fours;
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

static double at(const void *data, mb_dtype dtype, int64_t i)
{
    return mb__is_half((int)dtype) ? (double)mb__from_half((int)dtype, ((const uint16_t *)data)[i])
           : dtype == MB_FLOAT64   ? ((const double *)data)[i]
                                   : (double)((const float *)data)[i];
}

static void put(void *data, mb_dtype dtype, int64_t i, double x)
{
    if (mb__is_half((int)dtype))
        ((uint16_t *)data)[i] = mb__to_half((int)dtype, x);
    else if (dtype == MB_FLOAT64)
        ((double *)data)[i] = x;
    else
        ((float *)data)[i] = (float)x;
}

static mb_dtype result_of(const mb__vk_choice *c)
{
    return mb__is_half(c->dtype) && !c->rounded ? MB_FLOAT32 : (mb_dtype)c->dtype;
}

static bool is_right(const mb__product *p, mb_dtype dtype, const void *c)
{
    for (int64_t l = 0; l < BATCH; l++)
        for (int64_t i = 0; i < p->m; i++)
            for (int64_t j = 0; j < p->n; j++) {
                double sum = 0;
                for (int64_t k = 0; k < p->k; k++)
                    sum += entry(l * p->a_loop[0] + i * p->a_m + k * p->a_k, 1) *
                           entry(l * p->b_loop[0] + k * p->b_k + j * p->b_n, 5);
                if (mb__is_half((int)dtype))
                    sum = (double)mb__from_half((int)dtype, mb__to_half((int)dtype, sum));
                if (at(c, dtype, l * p->c_loop[0] + i * p->c_m + j * p->c_n) != sum)
                    return false;
            }
    return true;
}

bool mb__vk_product_run(mb__vk *v, const mb__product *product, const mb__vk_choice *c, const int64_t count[3],
                        const void *a, const void *b, void *result)
{
    const mb_dtype dtypes[3] = {(mb_dtype)c->dtype, (mb_dtype)c->dtype, result_of(c)};
    mb__value values[3];
    for (int i = 0; i < 3; i++)
        values[i] = (mb__value){.dtype = (uint8_t)dtypes[i],
                                .storage = i < 2 ? MB_IN_INPUT : MB_IN_OUTPUT,
                                .index = i < 2 ? i : 0,
                                .count = count[i],
                                .onto = -1};
    mb__step step = {.kind = MB_STEP_PRODUCT, .u.product = product};
    mb__plan plan = {.values = values,
                     .steps = &step,
                     .value_count = 3,
                     .step_count = 1,
                     .input_count = 2,
                     .output_count = 1};
    void *memory[3] = {NULL};
    bool ok = true;
    for (int i = 0; i < 3 && ok; i++)
        ok = (memory[i] = mb__vk_memory_new(v, (uint64_t)count[i] * mb__vk_element_size(dtypes[i]))) &&
             mb__vk_upload(v, memory[i], dtypes[i], count[i],
                           i == 0   ? a
                           : i == 1 ? b
                                    : NULL);
    mb__vk_program *p = ok ? mb__vk_program_new(v, &plan) : NULL;
    if (p)
        p->untimed = true;
    mb__binding binding = {.inputs = memory, .outputs = memory + 2};
    ok = p && mb__vk_product_emit(p, 0, product, c) && mb__vk_program_finish(p) && mb__vk_run(p, &binding) &&
         mb__vk_download(v, memory[2], dtypes[2], count[2], result);
    mb__vk_discard(p);
    for (int i = 0; i < 3; i++)
        if (memory[i])
            mb__vk_memory_free(v, memory[i]);
    return ok;
}

/* False: it could not be tried. */
static bool run_trial(mb__vk *v, const mb__vk_choice *c, bool *right)
{
    mb__product p = trial(v, c);
    int64_t count[3] = {BATCH * p.a_loop[0], BATCH * p.b_loop[0], BATCH * p.c_loop[0]};
    mb_dtype dtype = (mb_dtype)c->dtype;
    size_t size = mb_dtype_size(dtype), result_size = mb_dtype_size(result_of(c));
    size_t bytes = (size_t)count[2] * result_size + (size_t)(count[0] + count[1]) * size;
    char *memory = mb__host_alloc(v->host, bytes);
    if (!memory)
        return false;
    char *result = memory, *a = result + (size_t)count[2] * result_size, *b = a + (size_t)count[0] * size;
    for (int64_t i = 0; i < count[0] + count[1]; i++)
        put(a, dtype, i, i < count[0] ? entry(i, 1) : entry(i - count[0], 5));
    bool ok = mb__vk_product_run(v, &p, c, count, a, b, result);
    *right = ok && is_right(&p, result_of(c), result);
    mb__host_free(v->host, memory, bytes);
    return ok;
}

static mb__vk_pipeline *pipeline_of(mb__vk *v, const mb__vk_choice *c)
{
    if (!(v->quirks & VK_QUIRK_REFUSES))
        return mb__vk_product_pipeline(v, c);
    mb__vk_ok(v, VK_ERROR_UNKNOWN, "vkCreateComputePipelines");
    return NULL;
}

bool mb__vk_try_choice(mb__vk *v, const mb__vk_choice *c)
{
    const char *problem = NULL;
    bool right = true;
    if (!pipeline_of(v, c)) {
        /* The kernel is dispensable, so any failure of the driver is forgotten, also lack of memory while
         * compiling; but not lack of host memory. */
        if (v->failure.status == MB_OK || !mb__vk_forget(v))
            return false;
        problem = "makes no pipeline of a product";
    } else if (!run_trial(v, c, &right)) {
        return false;
    } else if (!right) {
        problem = "computes a product wrongly";
    }
    *mb__vk_trust(v, c) = problem || v->quirks & VK_QUIRK_WRONG_TILES ? VK_WRONG : VK_TRUSTED;
    if (problem)
        v->host->log(v->host->user, "vulkan: %s %s with kernel %d; a plainer one is used instead",
                     v->props.deviceName, problem, c->kernel);
    return true;
}

bool mb__vk_try_product(const mb__vk_program *program, const mb__product *p)
{
    mb__vk *v = program->v;
    mb__product part[2];
    if (mb__vk_product_cut(v, p, part))
        return mb__vk_try_product(program, &part[0]) && mb__vk_try_product(program, &part[1]);
    for (;;) {
        mb__vk_choice c = mb__vk_product_choose(program, p);
        if (mb__vk_is_plain(&c) || *mb__vk_trust(v, &c) != VK_UNTRIED)
            return true;
        if (!mb__vk_try_choice(v, &c))
            return false;
    }
}
