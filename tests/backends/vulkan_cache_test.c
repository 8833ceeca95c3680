/* SPDX-License-Identifier: MIT
 *
 * vulkan_cache_test.c - pipelines in memory, which go with the plans that use them, and the file of them.
 * Drivers that run on a processor keep next to nothing in theirs, so a driver that keeps more is put in the
 * place of the one here: what was written is read again, and no file that was changed, cut short, lengthened
 * or made for another device is. */
#include "support.h"

#ifdef MB_HAVE_VULKAN
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/engine/state.h"
#include "backends/vulkan/pipeline/pipeline.h"
#include "backends/vulkan/vulkan.h"

enum { KEPT = 5000, MOST = KEPT + 200 };

static mb__vk *device_of(mb_context *ctx)
{
    return ((mb__engine_state *)ctx->engine_state)->backend_state;
}

static PFN_vkGetPipelineCacheData real_data;

/* The driver's own bytes, whose header it will want to see again, and more behind them. */
static VKAPI_ATTR VkResult VKAPI_CALL more_data(VkDevice device, VkPipelineCache cache, size_t *bytes,
                                                void *data)
{
    if (!data) {
        *bytes = KEPT;
        return VK_SUCCESS;
    }
    size_t own = KEPT;
    memset(data, 0x33, *bytes);
    return real_data(device, cache, &own, data);
}

static char folder[] = "/tmp/moebius-cache-XXXXXX", file[400];

static int files(void)
{
    int count = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') {
            snprintf(file, sizeof file, "%s/%s", folder, e->d_name);
            count++;
        }
    if (d)
        closedir(d);
    return count;
}

static void write_file(const unsigned char *data, size_t bytes)
{
    FILE *f = fopen(file, "wb");
    cr_assert(f && fwrite(data, 1, bytes, f) == bytes, "cannot write %s", file);
    fclose(f);
}

/* Opens, computes, closes; how many bytes of the file were given to the driver. */
static size_t bytes_taken(bool keeps_more)
{
    mb_context *ctx = open_on("vulkan");
    mb__vk *v = device_of(ctx);
    size_t bytes = v->cache_bytes;
    real_data = v->f.vkGetPipelineCacheData;
    if (keeps_more)
        v->f.vkGetPipelineCacheData = more_data;
    expect(mb_item(mb_add(mb_scalar(ctx, MB_FLOAT32, 1), 2.0)) == 3, "%s", mb_message(ctx));
    close_all();
    return bytes;
}

Test(vulkan_cache, only_what_was_written_is_read, .timeout = 120)
{
    cr_assert(mkdtemp(folder), "mkdtemp");
    setenv("MB_VULKAN_CACHE", folder, 1);
    expect(bytes_taken(true) == 0 && files() == 1, "one file, not %d", files());
    static unsigned char good[MOST], bad[MOST];
    FILE *f = fopen(file, "rb");
    size_t size = f ? fread(good, 1, MOST, f) : 0, head = size - KEPT;
    if (f)
        fclose(f);
    cr_assert(size > KEPT && size < MOST, "a file of %zu bytes", size);
    expect(bytes_taken(false) == KEPT, "what was written is not read");
    expect(bytes_taken(false) == KEPT, "what was read is not left");
    /* Any bit of its beginning, which names device and driver, and some of the rest. */
    for (size_t at = 0; at < size; at += at < head ? 1 : 611) {
        memcpy(bad, good, size);
        bad[at] ^= (unsigned char)(1 << at % 8);
        write_file(bad, size);
        size_t taken = bytes_taken(false);
        expect(taken == 0, "byte %zu changed: %zu bytes taken", at, taken);
    }
    static const size_t lengths[] = {0, 1, 7, 55, 56, 57, 100, KEPT, KEPT + 55};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        write_file(good, lengths[i]);
        expect(bytes_taken(false) == 0, "taken though only %zu bytes are left", lengths[i]);
    }
    memcpy(bad, good, size);
    write_file(bad, size + 1);
    expect(bytes_taken(false) == 0, "taken though a byte longer");
    memset(bad + 16, 0xff, 8); /* a length beyond all bounds */
    write_file(bad, size);
    expect(bytes_taken(false) == 0, "taken though its length is absurd");
    memset(bad, 0, size);
    write_file(bad, size);
    expect(bytes_taken(false) == 0, "taken though it is zeros");
    /* A broken file is written anew, and then good. */
    expect(bytes_taken(true) == 0 && bytes_taken(false) == KEPT, "a broken file stays broken");
    expect(files() == 1, "nothing else is left behind: %d files", files());
    remove(file); /* a pipe that nobody writes to is not waited for, nor overwritten by a read */
    expect(mkfifo(file, 0600) == 0 && bytes_taken(false) == 0, "a pipe in its place");
    remove(file);
    write_file(good, size);
    setenv("MB_VULKAN_CACHE", "off", 1);
    expect(bytes_taken(true) == 0, "read though it is off");
    setenv("MB_VULKAN_CACHE", "/proc/no/such/folder", 1);
    expect(bytes_taken(true) == 0, "a folder that cannot be made");
    remove(file);
    rmdir(folder);
}
/* ---- pipelines in memory ---- */

static int pipelines_of(const mb__vk *v)
{
    int count = 0;
    for (int i = 0; i < VK_PIPELINE_BUCKETS; i++)
        for (const mb__vk_pipeline *p = v->pipelines[i]; p; p = p->next)
            count++;
    return count;
}

/* On processors sizes and strides are data: another size, along rows or columns, needs no other kernel. */
Test(vulkan_cache, sizes_share_kernels, .timeout = 120)
{
    mb_context *ctx = mb_open_with(&(mb_options){.backend = "vulkan"});
    uint64_t first = 0;
    for (int i = 0; i < 8; i++)
        for (int turned = 0; turned < 2; turned++) {
            mb_scope s = mb_scope_begin(ctx);
            int rows = 16 - i, columns = 90 + 5 * i;
            mb_tensor x = mb_reshape(mb_iota(ctx, MB_FLOAT32, rows * columns), MB_SHAPE(rows, columns));
            double *got = values(mb_softmax(mb_sin(turned ? mb_flip(x, 1) : x), 1)), all = 0;
            for (int k = 0; k < rows * columns; k++)
                all += got[k];
            expect(near(all, rows, 1e-5, 0), "%d x %d: %g", rows, columns, all);
            if (!i)
                first = mb_get_stats(ctx).pipelines;
            expect(mb_get_stats(ctx).pipelines == first, "%d x %d: %llu kernels more", rows, columns,
                   (unsigned long long)(mb_get_stats(ctx).pipelines - first));
            mb_scope_end(s);
        }
    expect_ok(ctx);
    mb_close(ctx);
}

/* A plan of each size: of numbers 0 to n - 1 the sum of squares less their mean. */
static void use_plan(mb_context *ctx, int n)
{
    mb_scope s = mb_scope_begin(ctx);
    mb_tensor x = mb_iota(ctx, MB_FLOAT32, n), off = mb_sub(x, mb_mean(x, MB_ALL));
    double got = mb_item(mb_sum(mb_square(off), MB_ALL)), want = ((double)n * n - 1) * n / 12;
    expect(near(got, want, 1e-5, 0), "%d numbers: %.9g, not %.9g", n, got, want);
    mb_scope_end(s);
}

/* Plans and what was compiled for them have one bound; what is used in turn is not compiled again. */
Test(vulkan_cache, pipelines_go_with_their_plans, .timeout = 300)
{
    enum { SIZES = 60, FEW = 4, UNUSED_MIB = 32 };
    mb_context *ctx = mb_open_with(&(mb_options){.backend = "vulkan", .plan_cache_bytes = 1 << 20});
    mb__vk *v = device_of(ctx);
    v->caps.processor = true; /* that a pipeline counts a mebibyte */
    int most = 0;
    for (int i = 0; i < SIZES; i++) {
        use_plan(ctx, 300 + 7 * i);
        most = pipelines_of(v) > most ? pipelines_of(v) : most;
    }
    uint64_t made = mb_get_stats(ctx).pipelines;
    int cached = (int)mb_get_stats(ctx).plans_cached, each = (int)(made / SIZES) + 1;
    expect(cached == 8 && most <= UNUSED_MIB + (cached + 1) * each + 2 && (uint64_t)most < made,
           "%d plans, %d pipelines at most, of %llu", cached, most, (unsigned long long)made);
    for (int round = 0; round < 5; round++)
        for (int i = 0; i < FEW; i++)
            use_plan(ctx, 300 + 7 * i);
    uint64_t after = mb_get_stats(ctx).pipelines;
    expect(after <= made + FEW * (uint64_t)each, "%d plans in turn: %llu pipelines more", FEW,
           (unsigned long long)(after - made));
    expect_ok(ctx);
    mb_close(ctx);
}
#endif
