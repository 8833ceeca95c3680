/* SPDX-License-Identifier: MIT
 * vulkan_test.c - the vulkan backend's own promises: replays make nothing new, barriers stand wherever they
 * must, a failing call of Vulkan is an error and no more, the least device computes the same, and so does
 * every run. */
#include "program.h"
#include "training.h"

#ifdef MB_HAVE_VULKAN
#include "backends/engine/state.h"
#include "backends/vulkan/vulkan.h"

static mb__vk *device_of(mb_context *ctx)
{
    return ((mb__engine_state *)ctx->engine_state)->backend_state;
}

/* ---- replays ---- */

static void replays(const char *what)
{
    training t;
    training_start(&t, open_on("vulkan"));
    mb_stats first = {0}, last;
    for (int step = 0; step < 12; step++) {
        expect(training_step(&t, step, 0.1 / (1 + step)), "%s, step %d: %s", what, step, mb_message(t.ctx));
        if (step == 1)
            first = mb_get_stats(t.ctx);
    }
    last = mb_get_stats(t.ctx);
    expect(last.pipelines == first.pipelines, "%s: %llu pipelines more", what,
           (unsigned long long)(last.pipelines - first.pipelines));
    expect(last.descriptor_writes == first.descriptor_writes, "%s: descriptors were written", what);
    expect(last.device_allocations == first.device_allocations, "%s: device memory was taken", what);
    expect(last.recordings == first.recordings, "%s: %llu recordings more", what,
           (unsigned long long)(last.recordings - first.recordings));
    expect(last.allocations == first.allocations, "%s: %llu heap allocations", what,
           (unsigned long long)(last.allocations - first.allocations));
    /* A step uploads a batch, runs, and reads a loss: three submits where both transfers are copies. */
    expect(last.submits - first.submits <= 4 * 10, "%s: %llu submits in 10 steps", what,
           (unsigned long long)(last.submits - first.submits));
    close_all();
}

Test(vulkan, replays_make_nothing_new, .timeout = 60)
{
    replays("as it is");
    setenv("MB_VULKAN_STAGING", "1", 1);
    replays("by staging");
}

/* ---- patience ---- */

static PFN_vkWaitForFences wait_for_fences;
static uint64_t waited; /* the longest that was allowed, ns */

static VKAPI_ATTR VkResult VKAPI_CALL note_wait(VkDevice device, uint32_t count, const VkFence *fences,
                                                VkBool32 all, uint64_t ns)
{
    waited = ns > waited ? ns : waited;
    return wait_for_fences(device, count, fences, all, ns);
}

/* A run of a thousand new kernels is a minute of compiling, on a processor, before it begins. */
Test(vulkan, waits_for_what_is_compiled, .timeout = 60)
{
    enum { KERNELS = 12 };
    mb_context *ctx = open_on("vulkan");
    mb__vk *v = device_of(ctx);
    wait_for_fences = v->f.vkWaitForFences;
    v->f.vkWaitForFences = note_wait;
    mb_tensor sums[KERNELS];
    for (int i = 0; i < KERNELS; i++)
        sums[i] = mb_sum(mb_exp(mb_iota(ctx, MB_FLOAT32, i + 2)), MB_ALL);
    expect(mb_eval(sums, KERNELS) == MB_OK && mb_item(sums[0]) > 3.7, "%s", mb_message(ctx));
    uint64_t made = mb_get_stats(ctx).pipelines;
    bool processor = v->props.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    expect(made > 0 && waited >= (60 + (processor ? 10 * made : 0)) * 1000000000u,
           "%llu kernels were made, and %.0f s are all the time they are given", (unsigned long long)made,
           (double)waited * 1e-9);
    close_all();
}

/* ---- barriers ---- */

/* Every two dispatches that access the same memory, one of them writing, have a barrier between them. */
static void expect_barriers(mb_context *ctx, const char *what)
{
    mb__engine_state *st = ctx->engine_state;
    for (mb__cached *c = st->newest; c; c = c->older) {
        const mb__vk_program *p = c->program;
        bool *before = calloc((size_t)p->dispatch_count + 1, 1);
        mb__vk_hazards(p, before);
        for (int i = 0; i < p->dispatch_count; i++)
            for (int j = i + 1; j < p->dispatch_count; j++) {
                const mb__vk_dispatch *a = &p->dispatches[i], *b = &p->dispatches[j];
                bool apart = false, conflict = false;
                for (int k = i + 1; k <= j; k++)
                    apart |= before[k];
                for (int x = 0; x < a->access_count; x++)
                    for (int y = 0; y < b->access_count; y++)
                        conflict |= mb__vk_conflict(p, &p->accesses[a->access_first + x],
                                                    &p->accesses[b->access_first + y]);
                expect(apart || !conflict, "%s: dispatches %d and %d of %d", what, i, j, p->dispatch_count);
            }
        free(before);
    }
}

enum { PROGRAMS = 6 };

static void run_programs(const char *what, result *r, bool check)
{
    for (uint64_t seed = 0; seed < PROGRAMS; seed++) {
        program p;
        program_make(&p, 500 + seed, seed % 2 ? MB_FLOAT64 : MB_FLOAT32);
        mb_context *ctx = open_on("vulkan");
        for (uint64_t data = 1; data <= 2; data++)
            expect(program_run(ctx, &p, data, 0, &r[2 * seed + data - 1]), "%s: %s", what, mb_message(ctx));
        if (check)
            expect_barriers(ctx, what);
    }
}

/* limit: NMSE of float32 programs; 0: the same bits. */
static void expect_same(const char *what, const result *a, const result *b, double limit)
{
    for (int s = 0; s < 2 * PROGRAMS; s++)
        for (int i = 0; i < a[s].n; i++) {
            bool same = same_bits(a[s].v[i], b[s].v[i], a[s].count[i]);
            double most = s / 2 % 2 ? limit * 1e-11 : limit; /* odd seeds are float64 */
            expect(same || (limit > 0 && nmse(a[s].v[i], b[s].v[i], a[s].count[i]) <= most),
                   "%s: program %d, result %d: NMSE %g", what, s / 2, i,
                   nmse(a[s].v[i], b[s].v[i], a[s].count[i]));
        }
}

static void train(const char *what, double *losses)
{
    training t;
    training_start(&t, open_on("vulkan"));
    for (int step = 0; step < 3; step++) {
        expect(training_step(&t, step, 0.1), "%s: %s", what, mb_message(t.ctx));
        losses[step] = t.loss;
    }
    expect_barriers(t.ctx, what);
}

Test(vulkan, barriers_stand_where_they_must, .timeout = 240)
{
    static result forwards[2 * PROGRAMS], again[2 * PROGRAMS], backwards[2 * PROGRAMS];
    double losses[3], reversed[3];
    run_programs("forwards", forwards, true);
    run_programs("again", again, false);
    expect_same("a second run", again, forwards, 0);
    train("forwards", losses);
    setenv("MB_VULKAN_BARRIERS", "backwards", 1);
    run_programs("backwards", backwards, false);
    expect_same("between barriers backwards", backwards, forwards, 0);
    train("backwards", reversed);
    expect(same_bits(losses, reversed, 3), "training backwards: %g, not %g", reversed[2], losses[2]);
    close_all();
}

/* Work cut into many submits is the same work. */
Test(vulkan, batches_change_nothing, .timeout = 60)
{
    double whole[3], cut[3];
    train("whole", whole);
    setenv("MB_VULKAN_BATCH", "1000", 1);
    train("cut", cut);
    expect(same_bits(whole, cut, 3), "cut into batches: %g, not %g", cut[2], whole[2]);
    training t;
    training_start(&t, open_on("vulkan"));
    training_step(&t, 0, 0.1);
    uint64_t before = mb_get_stats(t.ctx).submits;
    training_step(&t, 1, 0.1);
    expect(mb_get_stats(t.ctx).submits - before > 8, "only %llu submits",
           (unsigned long long)(mb_get_stats(t.ctx).submits - before));
    close_all();
}

/* ---- the least device, and kernels that keep to their values ---- */

/* Other sizes of groups sum in another order: float32 programs agree to 1e-9 in NMSE as between backends,
 * float64 ones to 1e-20, the fuzz tests' limit. */
Test(vulkan, the_least_device_computes_the_same, .timeout = 240)
{
    static result most[2 * PROGRAMS], least[2 * PROGRAMS];
    double losses[3], lowest[3];
    run_programs("as it is", most, false);
    train("as it is", losses);
    setenv("MB_VULKAN_LIMITS", "minimum", 1);
    mb_context *ctx = open_on("vulkan");
    mb__vk *v = device_of(ctx);
    expect(v->caps.staging && v->caps.blocks == 3 && v->caps.invocations == 128, "the limits are in force");
    run_programs("minimum", least, true);
    expect_same("the least device", least, most, 1e-9);
    train("minimum", lowest);
    for (int step = 0; step < 3; step++)
        expect(near(lowest[step], losses[step], 1e-6, 0), "minimum, step %d: %.9g, not %.9g", step,
               lowest[step], losses[step]);
    close_all();
}

Test(vulkan, kernels_keep_to_their_values, .timeout = 240)
{
    static result plain[2 * PROGRAMS], guarded[2 * PROGRAMS];
    run_programs("as it is", plain, false);
    setenv("MB_GUARD", "1", 1);
    run_programs("guarded", guarded, false);
    expect_same("guarded", guarded, plain, 0);
    close_all();
}

/* ---- faults ---- */

/* A small script; whether it went well. */
static bool script(mb_context *ctx)
{
    training t;
    if (mb_error(ctx) != MB_OK || !training_start(&t, ctx))
        return false;
    for (int step = 0; step < 2; step++)
        if (!training_step(&t, step, 0.1))
            return false;
    float w[24];
    return mb_read(t.w, w, sizeof w) == MB_OK && isfinite(w[0]);
}

static void fail_each_call(const char *kind)
{
    mb_context *other = open_on("reference");
    training beside;
    training_start(&beside, other);
    int failures_seen = 0, survived = 0;
    bool done = false, memory = strstr(kind, "memory");
    for (int n = 1; n < 2000 && !done; n++) {
        char fault[32];
        snprintf(fault, sizeof fault, "%d%s", n, kind);
        setenv("MB_VULKAN_FAULT", fault, 1);
        counter c = {0};
        mb_allocator a = counting_allocator(&c);
        mb_context *ctx =
            mb_open_with(&(mb_options){.size = sizeof(mb_options), .backend = "vulkan", .allocator = &a});
        bool ok = script(ctx);
        mb__vk *v = device_of(ctx);
        bool hit = !v || v->calls >= (uint64_t)n;
        done = !hit;
        if (hit && !ok) {
            failures_seen++;
            expect(mb_error(ctx) != MB_OK && strlen(mb_message(ctx)) > 10, "%s: no message", fault);
            float w;
            if (v && v->lost)
                expect(mb_read(mb_full(ctx, MB_FLOAT32, MB_SHAPE(1), 1.0), &w, sizeof w) != MB_OK,
                       "%s: goes on without a device", fault);
            expect(!memory || mb_error(ctx) == MB_NO_MEMORY, "%s: %s", fault, mb_message(ctx));
            mb_clear_error(ctx);
            expect(!v || v->lost || script(ctx), "%s: not again: %s", fault, mb_message(ctx));
        }
        survived += hit && ok;
        mb_close(ctx);
        expect(c.blocks == 0 && c.bytes == 0, "%s: %lld bytes left", fault, (long long)c.bytes);
    }
    unsetenv("MB_VULKAN_FAULT");
    /* A block of memory is asked for generously first, and then smaller: the table's, and the first of
     * values, each with four calls. And where one call finds no memory, what is kept for speed is let go, if
     * there is any, and it is made again. */
    expect(done && failures_seen > (memory ? 10 : 30), "%s: only %d calls failed", kind, failures_seen);
    expect(memory ? survived > 10 : survived <= 8, "%s: %d failing calls went unnoticed", kind, survived);
    expect(training_step(&beside, 0, 0.1), "the other context: %s", mb_message(other));
    expect(script(open_on("vulkan")), "another context afterwards");
    close_all();
}

Test(vulkan, each_call_fails, .timeout = 300)
{
    fail_each_call("");
}
Test(vulkan, each_call_finds_no_memory, .timeout = 300)
{
    fail_each_call(":memory");
}
Test(vulkan, each_call_loses_the_device, .timeout = 300)
{
    fail_each_call(":lost");
}
Test(vulkan, each_call_fails_by_staging, .timeout = 300)
{
    setenv("MB_VULKAN_STAGING", "1", 1);
    fail_each_call("");
}

/* A run whose recording failed is recorded anew when the error is cleared, or there is memory again, not
 * taken for done. */
static void fail_recordings(VkResult with, const char *what)
{
    mb_context *ctx = open_on("vulkan");
    mb__vk *v = device_of(ctx);
    int failed = 0;
    for (uint64_t call = 0; call < 8; call++) {
        float x[4] = {1, 2, 3, (float)call}, y[4] = {0};
        mb_scope scope = mb_scope_begin(ctx);
        v->generation++; /* as after a new block: commands are stale */
        v->fail_with = with;
        v->fail_at = call ? v->calls + call : 0;
        mb_tensor square = mb_square(mb_from(ctx, MB_FLOAT32, MB_SHAPE(4), x));
        mb_status status = mb_read(square, y, sizeof y);
        failed += status != MB_OK;
        if (status != MB_OK) {
            mb_clear_error(ctx);
            mb_scope_end(scope);
            scope = mb_scope_begin(ctx);
            square = mb_square(mb_from(ctx, MB_FLOAT32, MB_SHAPE(4), x));
            status = mb_read(square, y, sizeof y); /* its message is read after it */
            expect(status == MB_OK, "%s, call %d: %s", what, (int)call, mb_message(ctx));
        }
        expect(y[0] == 1 && y[2] == 9 && y[3] == x[3] * x[3], "%s, call %d: %g %g", what, (int)call,
               (double)y[2], (double)y[3]);
        mb_scope_end(scope);
    }
    expect(with == VK_ERROR_OUT_OF_HOST_MEMORY || failed >= 4, "%s: only %d runs failed", what, failed);
    close_all();
}

Test(vulkan, a_failed_recording_is_made_anew)
{
    setenv("MB_VULKAN_VALIDATE", "1", 1); /* a half recorded command buffer must not be begun again */
    setenv("MB_VULKAN_BATCH", "1", 1);
    fail_recordings(VK_ERROR_INITIALIZATION_FAILED, "a failure");
    fail_recordings(VK_ERROR_OUT_OF_HOST_MEMORY, "no memory");
    setenv("MB_VULKAN_STAGING", "1", 1);
    fail_recordings(VK_ERROR_INITIALIZATION_FAILED, "a failure by staging");
    fail_recordings(VK_ERROR_OUT_OF_HOST_MEMORY, "no memory by staging");
}

/* ---- side by side ---- */

Test(vulkan, beside_another_backend, .timeout = 60)
{
    training a, b, c;
    mb_context *cpu = mb_open("cpu"); /* that one, whatever takes its place elsewhere */
    training_start(&a, open_on("vulkan"));
    training_start(&b, open_as("reference", NULL, 1));
    training_start(&c, cpu);
    for (int step = 0; step < 4; step++) {
        expect(training_step(&a, step, 0.1) && training_step(&b, step, 0.1) && training_step(&c, step, 0.1),
               "%s%s%s", mb_message(a.ctx), mb_message(b.ctx), mb_message(cpu));
        expect(near(a.loss, b.loss, 1e-5, 0) && near(a.loss, c.loss, 1e-5, 0), "step %d: %g, not %g or %g",
               step, a.loss, b.loss, c.loss);
    }
    expect(mb_close(cpu) == MB_OK, "cpu");
    close_all();
}

Test(vulkan, without_float64_float32_works)
{
    setenv("MB_VULKAN_QUIRKS", "8", 1);
    training t;
    training_start(&t, open_on("vulkan"));
    expect(!device_of(t.ctx)->caps.float64 && training_step(&t, 0, 0.1), "%s", mb_message(t.ctx));
    const double data[2] = {1, 2};
    for (int kind = 0; kind < 3; kind++) {
        mb_context *ctx = open_on("vulkan");
        mb_tensor x =
            kind == 0   ? mb_from(ctx, MB_FLOAT64, MB_SHAPE(2), data)
            : kind == 1 ? mb_normal(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE(2))
                        : mb_cast(mb_cast(mb_uniform(ctx, mb_key_of(1), MB_FLOAT32, MB_SHAPE(2)), MB_FLOAT64),
                                  MB_FLOAT32);
        expect(mb_eval(&x, 1) == MB_BACKEND && strstr(mb_message(ctx), "float32 only"), "kind %d: %s", kind,
               mb_message(ctx));
        close_failed(ctx);
    }
    close_all();
}

/* ---- validation ---- */

/* A misuse of Vulkan: its message is the context's error, so that silence means something. */
Test(vulkan, a_validation_message_is_an_error)
{
    setenv("MB_VULKAN_VALIDATE", "1", 1);
    training t;
    training_start(&t, open_on("vulkan"));
    expect(training_step(&t, 0, 0.1) && device_of(t.ctx)->messages == 0, "without a mistake: %s",
           mb_message(t.ctx));
    close_all();
    mb_context *ctx = open_on("vulkan");
    mb__vk *v = device_of(ctx);
    VkBuffer buffer = VK_NULL_HANDLE;
    VkBufferCreateInfo nothing = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                  .size = 64,
                                  .usage = 0}; /* for no use: VUID-VkBufferCreateInfo-usage-requiredbitmask */
    if (v->f.vkCreateBuffer(v->device, &nothing, NULL, &buffer) == VK_SUCCESS)
        v->f.vkDestroyBuffer(v->device, buffer, NULL);
    float out[2];
    expect(mb_read(mb_neg(mb_uniform(ctx, mb_key_of(1), MB_FLOAT32, MB_SHAPE(2))), out, sizeof out) ==
                   MB_BACKEND &&
               strstr(mb_message(ctx), "validation") && strstr(mb_message(ctx), "VkBufferCreateInfo"),
           "%s", mb_message(ctx));
    close_failed(ctx);
    /* So is one at the very end noticed: here something is not destroyed. (A leak checker would notice it as
     * well.) */
    if (getenv("TESTS_KEEP_LOADED"))
        return;
    ctx = open_on("vulkan");
    v = device_of(ctx);
    VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    VkFence forgotten;
    expect(v->f.vkCreateFence(v->device, &fence, NULL, &forgotten) == VK_SUCCESS, "no fence");
    mb_close(ctx);
    expect(atomic_exchange(&mb__vk_unheard, 0) == 1, "a forgotten fence is no message");
}

/* ---- memory ---- */

/* A device that has no room for the block that would be best may have room for half of it. */
Test(vulkan, a_block_that_is_refused_is_halved)
{
    enum { VALUES = 400, BYTES = 1 << 20 };
    mb_context *ctx = open_on("vulkan");
    mb__vk *v = device_of(ctx);
    mb__vk_memory *memory[VALUES];
    int n = 0;
    for (uint64_t call = 1; call <= 3; call++) { /* vkCreateBuffer, vkAllocateMemory, vkBindBufferMemory */
        uint32_t blocks = v->block_count;
        uint64_t total = (uint64_t)16 << 20; /* what is there, and that, is asked for first: memory.c */
        for (uint32_t i = 0; i < blocks; i++)
            total += v->blocks[i].bytes;
        v->fail_with = VK_ERROR_OUT_OF_DEVICE_MEMORY;
        while (v->block_count == blocks && n < VALUES && v->failure.status == MB_OK) {
            v->fail_at = v->calls + call; /* until a block is wanted, there are no calls */
            memory[n++] = mb__vk_memory_new(v, BYTES);
        }
        expect(v->block_count == blocks + 1 && v->failure.status == MB_OK, "call %d: %u blocks: %s",
               (int)call, v->block_count, v->failure.message);
        uint64_t got = v->blocks[blocks].bytes;
        expect(got >= total / 2 && got < total / 2 + 1024, "call %d: %lld bytes, half of %lld were wanted",
               (int)call, (long long)got, (long long)total);
    }
    for (int i = 0; i < n; i++)
        if (memory[i])
            mb__vk_memory_free(v, memory[i]);
    close_all();
}

/* A context whose device has room for two blocks of values, of 128 MiB at most; the first is smaller. */
static mb_context *with_two_blocks(void)
{
    mb_context *ctx = open_on("vulkan");
    mb__vk *v = device_of(ctx);
    v->caps.blocks = 3;
    v->caps.block_bytes = 128 << 20;
    expect(v->block_count == 2 && v->blocks[1].bytes < 64 << 20, "%u blocks, of %lld bytes", v->block_count,
           (long long)v->blocks[1].bytes);
    return ctx;
}

/* Blocks in which nothing lies go back to the device when there is no room for a further one; what was
 * recorded before is recorded anew. */
Test(vulkan, empty_blocks_make_room)
{
    enum { LARGE = 100 << 20 };
    setenv("MB_VULKAN_VALIDATE", "1", 1); /* no buffer that is gone may be bound */
    mb_context *ctx = with_two_blocks();
    mb__vk *v = device_of(ctx);
    uint64_t held = v->host->counters->device_bytes;
    mb__vk_memory *first = mb__vk_memory_new(v, LARGE);
    expect(first && v->host->counters->device_bytes >= held + LARGE, "a second block: %s",
           v->failure.message);
    v->fail_at = v->calls + 1;
    v->fail_with = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    expect(!mb__vk_memory_new(v, v->caps.block_bytes) && v->failure.status == MB_NO_MEMORY &&
               !v->blocks[1].buffer,
           "the empty block is still there");
    v->failure.status = MB_OK;
    training t;
    training_start(&t, ctx);
    expect(training_step(&t, 0, 0.1), "%s", mb_message(ctx));
    mb__vk_memory *second = mb__vk_memory_new(v, LARGE);
    expect(second && second->block != first->block, "no room for two: %s", v->failure.message);
    expect(!mb__vk_memory_new(v, LARGE) && v->failure.status == MB_OK, "room for three: %s",
           v->failure.message);
    expect(training_step(&t, 1, 0.1), "%s", mb_message(ctx));
    mb__vk_memory_free(v, first);
    mb__vk_memory_free(v, second);
    close_all();
}

/* A call that finds no memory lets go of what is kept for speed, and has the same results. */
Test(vulkan, values_that_are_let_go_make_room)
{
    enum { LARGE = 24 << 20 }; /* elements: 96 MiB and more, so that a third value has no room */
    mb_context *ctx = with_two_blocks();
    for (int i = 0; i < 4; i++) { /* of other sizes each: none is found in the pool of unused ones */
        mb_scope scope = mb_scope_begin(ctx);
        mb_tensor x = mb_add(mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(LARGE + i * (2 << 20))), (double)i);
        expect(mb_eval(&x, 1) == MB_OK, "value %d: %s", i, mb_message(ctx));
        expect(mb_item(mb_slice(x, 0, 5, 1, 1)) == i, "value %d: %g", i, mb_item(mb_slice(x, 0, 5, 1, 1)));
        mb_scope_end(scope);
    }
    close_all();
}

/* ---- MB_DEBUG ---- */

/* A compiler's mistake: additions of floats become subtractions. */
static void break_additions(mb__vk *v, const mb__plan *plan, const mb__vk_pass *pass, const uint32_t **words,
                            uint32_t *count)
{
    enum { OpFAdd = 129, OpFSub = 131 };
    static uint32_t broken[1 << 16];
    (void)v, (void)plan, (void)pass;
    memcpy(broken, *words, *count * 4ul);
    for (uint32_t i = 5; i < *count; i += broken[i] >> 16)
        if ((broken[i] & 0xffff) == OpFAdd)
            broken[i] = (broken[i] & 0xffff0000) | OpFSub;
    *words = broken;
}

Test(vulkan, debug_finds_a_wrong_kernel)
{
    for (int wrong = 0; wrong < 2; wrong++) {
        setenv("MB_DEBUG", "1", 1);
        mb_context *ctx = open_on("vulkan");
        if (wrong)
            device_of(ctx)->watch_kernel = break_additions;
        const float data[3] = {1, 2, 3};
        mb_tensor x = mb_from(ctx, MB_FLOAT32, MB_SHAPE(3), data), y = mb_mul(x, x);
        char place[64];
        snprintf(place, sizeof place, "%s:%d: add: ", __FILE__, __LINE__ + 1);
        mb_tensor z = mb_add(y, x);
        float out[3];
        mb_status status = mb_read(mb_neg(z), out, sizeof out);
        if (wrong)
            expect(status == MB_BACKEND && strstr(mb_message(ctx), place) && strstr(mb_message(ctx), "[3]"),
                   "%s", mb_message(ctx));
        else
            expect(status == MB_OK && out[2] == -12, "%g: %s", (double)out[2], mb_message(ctx));
        close_failed(ctx);
    }
}

/* ---- long sums, many groups ---- */

/* Drivers that end loops after 65535 rounds would answer too little, and without an error. */
Test(vulkan, long_loops, .timeout = 120)
{
    mb_context *ctx = open_on("vulkan");
    enum { LONG = 3000000, ROW = 200000 };
    mb_tensor ones = mb_add(mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(LONG)), 1.0); /* not known to the plan */
    expect(mb_item(mb_sum(ones, MB_ALL)) == LONG, "a sum of ones: %g", mb_item(mb_sum(ones, MB_ALL)));
    mb_tensor twos = mb_add(mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(2, ROW)), 2.0);
    double *s = values(mb_softmax(twos, 1));
    for (int i = 0; i < 2 * ROW; i += ROW / 2 - 1)
        expect(near(s[i], 1.0 / ROW, 1e-5, 0), "softmax of a long row: [%d] is %g", i, s[i]);
    mb_tensor a = mb_add(mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(20, ROW)), 1.0),
              b = mb_add(mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(ROW, 20)), 1.0);
    double *c = values(mb_matmul(a, b)),
           *d = values(mb_matmul(mb_slice(a, 0, 0, 1, 1), mb_slice(b, 1, 0, 1, 1)));
    expect(c[0] == ROW && c[399] == ROW && d[0] == ROW, "long products: %g %g %g", c[0], c[399], d[0]);
    mb_tensor many =
        mb_add(mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(70000, 130)), 1.0); /* over 65535 groups of 128 */
    double *rows = values(mb_sum(mb_mul(many, 2.0), MB_AXES(1)));
    expect(rows[0] == 260 && rows[69999] == 260, "many rows: %g %g", rows[0], rows[69999]);
    close_all();
}

/* Long rows and many of them, for what is not a sum of products: exact answers all. */
Test(vulkan, long_rows, .timeout = 120)
{
    static const int64_t lengths[] = {0, 1, 2, 127, 128, 129, 1021, 65537, 200003};
    mb_context *ctx = open_on("vulkan");
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        int64_t n = lengths[k];
        mb_scope scope = mb_scope_begin(ctx);
        mb_tensor ones = mb_add(mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(2, n)), 1.0);
        mb_tensor x = mb_uniform(ctx, mb_key_of(3), MB_FLOAT32, MB_SHAPE(2, n));
        mb_tensor at =
            mb_cast(mb_floor(mb_mul(mb_iota(ctx, MB_FLOAT32, n), 3.0 / (double)(n + 1))), MB_INT32);
        /* The longest row is not sorted: that takes a processor's driver seconds. */
        bool sorts = n < 100000;
        mb_tensor order = sorts ? mb_argsort(x) : x;
        double *sums = values(mb_cumsum(ones, 1, false)), *back = values(mb_cumsum(ones, 1, true)),
               *sorted = values(sorts ? mb_take_along(x, order) : x), *places = values(order),
               *from = values(x), *counted = values(mb_scatter_add(ones, at, 1, 3)),
               *taken =
                   values(mb_take(from_doubles(ctx, MB_FLOAT32, MB_SHAPE(3), (double[]){5, 6, 7}), at, 0));
        char *seen = calloc((size_t)n + 1, 1);
        for (int64_t i = 0; i < 2 * n; i++) {
            int64_t row = i / n, c = i % n;
            expect(sums[i] == (double)(c + 1) && back[i] == (double)(n - c), "%lld: sums of %lld are %g, %g",
                   (long long)n, (long long)c + 1, sums[i], back[i]);
            expect(!sorts || c == 0 || sorted[i - 1] < sorted[i] ||
                       (sorted[i - 1] == sorted[i] && places[i - 1] < places[i]),
                   "%lld: not sorted at %lld", (long long)n, (long long)i);
            if (sorts && row == 0 && places[i] >= 0 && places[i] < (double)n)
                seen[(int64_t)places[i]] = 1;
            expect(row || taken[c] == 5 + floor((double)(float)((float)c * (float)(3.0 / (double)(n + 1)))),
                   "%lld: take at %lld: %g", (long long)n, (long long)c, taken[c]);
        }
        expect(!sorts || n == 0 || !memchr(seen, 0, (size_t)n), "%lld: the order leaves some out",
               (long long)n);
        free(seen);
        double all = counted[0] + counted[1] + counted[2];
        expect(all == (double)n && counted[0] == counted[3] && fabs(counted[1] - (double)n / 3) < 2,
               "%lld: scattered %g %g %g", (long long)n, counted[0], counted[1], counted[2]);
        if (n) {
            double most = 0, *largest = values(mb_argmax(x, 1)), *max = values(mb_max(x, MB_AXES(1)));
            int64_t where = 0;
            for (int64_t i = 0; i < n; i++)
                if (i == 0 || from[i] > most)
                    most = from[i], where = i;
            expect(largest[0] == (double)where && max[0] == most, "%lld: the largest at %g, not %lld",
                   (long long)n, largest[0], (long long)where);
        }
        mb_scope_end(scope);
    }
    /* More matrices than an axis holds groups. */
    double *many = values(mb_matmul(mb_add(mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(70000, 2, 3)), 1.0),
                                    mb_add(mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(70000, 3, 2)), 2.0)));
    for (int i = 0; i < 280000; i++)
        expect(many[i] == 6, "matrix %d: %g", i / 4, many[i]);
    close_all();
}

/* ---- devices ---- */

Test(vulkan, devices_are_listed)
{
    mb_device d[8];
    const char *why = "?";
    int n = mb_devices(d, 8, &why);
    expect(n >= 3 && !why, "%d devices, %s", n, why ? why : "");
    expect(!strcmp(d[0].backend, "cpu") && !strcmp(d[1].backend, "reference") &&
               !strcmp(d[2].backend, "vulkan:0"),
           "%s %s %s", d[0].backend, d[1].backend, d[2].backend);
    memset(&d[2], 0x5a, sizeof d[2]);
    expect(mb_devices(d, 2, NULL) >= 2 && d[2].backend[0] == 0x5a, "no more than there is room for");
    expect(mb_devices(d, 3, NULL) >= 3 && strlen(d[2].name) > 0 && d[2].buffer_bytes > 0, "the last one");
    char by_uuid[64];
    snprintf(by_uuid, sizeof by_uuid, "vulkan:%s", d[2].uuid);
    mb_close(open_on(by_uuid));
    mb_context *ctx = mb_open("vulkan:no such device");
    expect(mb_error(ctx) == MB_BACKEND && strstr(mb_message(ctx), "no such device") &&
               strstr(mb_message(ctx), d[2].name),
           "%s", mb_message(ctx));
    mb_close(ctx);
}

Test(vulkan, without_a_driver_it_says_why)
{
    setenv("VK_DRIVER_FILES", "/nowhere", 1);
    setenv("VK_ICD_FILENAMES", "/nowhere", 1);
    mb_device d[8];
    const char *why = NULL;
    int n = mb_devices(d, 8, &why);
    for (int i = 0; i < n; i++)
        expect(strncmp(d[i].backend, "vulkan", 6) != 0, "%s", d[i].backend);
    expect(n >= 2 && why && strlen(why) > 40, "%s", why ? why : "no reason");
    mb_context *ctx = mb_open("vulkan");
    expect(mb_error(ctx) == MB_BACKEND && strstr(mb_message(ctx), "driver"), "%s", mb_message(ctx));
    expect(mb_item(mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1))) != 1, "computes nothing");
    mb_close(ctx);
}
#else
Test(vulkan, absent)
{
    const char *why = NULL;
    mb_context *ctx = mb_open("vulkan");
    bool told = expect(mb_devices(NULL, 0, &why) == 2 && why && strstr(why, "without vulkan"), "%s",
                       why ? why : "no reason") &&
                expect(mb_error(ctx) == MB_BACKEND && strstr(mb_message(ctx), "without vulkan"), "%s",
                       mb_message(ctx));
    mb_close(ctx);
    if (told)
        cr_skip_test("this library was built without vulkan: volk.h or glslangValidator was missing");
}
#endif
