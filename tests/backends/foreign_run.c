/* SPDX-License-Identifier: MIT
 *
 * foreign_run.c - every public function, called for a context from a thread that does not own it, and from a
 * forked process: each refuses, and changes nothing. Under ThreadSanitizer (where Criterion does not start)
 * it is seen as well that none reads or writes what is the owner's: the owner writes all of that after the
 * thread was started, so any access of the thread's to it is a race, whenever it happens.
 *
 * Prints "N passed, N failed"; with --list the names that the table covers. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "foreign_calls.h"

static int passed, failed;

void check(bool ok, const char *what)
{
    if (ok)
        passed++;
    else
        printf("FAILED: %s\n", what);
    failed += !ok;
}

/* ---- objects ---- */

static void write_file(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    check(f && fwrite(data, 1, bytes, f) == bytes && fclose(f) == 0, "a file");
}

/* Two images of one pixel. */
static void open_images(objects *o)
{
    char labels[300];
    snprintf(labels, sizeof labels, "%s-labels", o->path);
    write_file(o->path, "\0\0\10\3\0\0\0\2\0\0\0\1\0\0\0\1ab", 18);
    write_file(labels, "\0\0\10\1\0\0\0\2\0\1", 10);
    o->images = mb_images_open(o->ctx, (mb_images_options){.images = o->path, .labels = labels});
    unlink(labels);
}

static const mb_column bytes_of_a_row = {.data = "ab", .bytes = true};
const mb_loader_options one_byte = {.columns = &bytes_of_a_row, .column_count = 1, .rows = 2, .batch = 1};

static void open_objects(objects *o, const char *backend)
{
    memset(o, 0, sizeof *o);
    mb_context *ctx = o->ctx = mb_open_with(&(mb_options){.backend = backend, .threads = 2});
    snprintf(o->path, sizeof o->path, "/tmp/mb-foreign-%ld", (long)getpid());
    o->x = mb_ones(ctx, MB_FLOAT32, SHAPE);
    o->x = mb_add(o->x, 1.0);
    o->i = mb_iota(ctx, MB_INT32, 4);
    o->c = mb_lt(o->i, mb_full(ctx, MB_INT32, MB_SHAPE0, 2));
    o->v = mb_variable(ctx, MB_FLOAT32, SHAPE);
    o->z = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1, 3, 3));
    o->tokens = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1, 4, 8));
    o->picture = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1, 4, 4));
    mb_params *p = o->p = mb_params_new(ctx, 1);
    mb_param(p, "w", SHAPE, mb_init_ones());
    o->linear = mb_linear_new(p, "linear", 8, 8);
    o->embedding = mb_embedding_new(p, "embedding", 4, 4);
    o->norm = mb_layer_norm_new(p, "norm", 8);
    o->rms = mb_rms_norm_new(p, "rms", 8);
    o->attention = mb_attention_new(p, "attention", (mb_attention_options){.dim = 8, .heads = 2});
    o->mlp = mb_mlp_new(p, "mlp", 8, 8);
    o->block = mb_block_new(p, "block", 8, 8, &(mb_mixer_options){.heads = 2});
    o->lt = mb_linear_transformer_new(p, "lt", (mb_linear_transformer_options){.dim = 2, .layers = 1});
    o->sa = mb_self_attention_new(p, "sa", (mb_self_attention_options){.dim = 2, .layers = 1});
    o->ttt = mb_ttt_new(p, "ttt", (mb_ttt_options){.dim = 8, .heads = 2, .inner_steps = 1});
    o->vit =
        mb_vit_new(p, "vit",
                   (mb_vit_options){
                       .tokens = 4, .patch_values = 8, .dim = 8, .depth = 1, .classes = 2, .mixer.heads = 2});
    o->conv = mb_conv2d_new(p, "conv", (mb_conv_layer_options){.in = 1, .out = 1, .size = {1}});
    o->batch_norm = mb_batch_norm_new(p, "batch_norm", 4);
    o->group_norm = mb_group_norm_new(p, "group_norm", 4, 1);
    o->opt = mb_adam(p, (mb_adam_options){.lr = 0.1});
    o->average = mb_average_new(o->p, 0.5);
    o->snapshot = mb_snapshot_new(o->p);
    mb_safetensors_save(ctx, o->path, (const char *[]){"x"}, &o->x, 1, NULL);
    o->file = mb_safetensors_open(ctx, o->path);
    open_images(o);
    o->loader = mb_loader_open(ctx, one_byte);
    o->scope = mb_scope_begin(ctx);
    check(mb_error(ctx) == MB_OK && o->file && o->images && o->loader && o->vit && o->ttt && o->opt,
          mb_message(ctx));
}

static void close_objects(objects *o)
{
    mb_scope_end(o->scope);
    mb_safetensors_close(o->file);
    mb_images_close(o->images);
    mb_average_free(o->average);
    mb_snapshot_free(o->snapshot);
    mb_loader_close(o->loader);
    mb_optimizer_free(o->opt);
    mb_params_free(o->p);
    unlink(o->path);
    mb_close(o->ctx);
}

/* ---- what is the owner's ---- */

/* Each byte is written as it was, but for [skip, skip + length). */
static void touch(void *memory, size_t bytes, size_t skip, size_t length)
{
    volatile unsigned char *p = memory;
    for (size_t i = 0; p && i < bytes; i++)
        if (i < skip || i >= skip + length)
            p[i] = p[i];
}
#define TOUCH(p, first, last)                                                                                \
    touch(p, sizeof *(p), (size_t)((char *)&(p)->first - (char *)(p)),                                       \
          (size_t)((char *)(&(p)->last + 1) - (char *)&(p)->first))

static void touch_all(objects *o)
{
    mb_context *ctx = o->ctx;
    TOUCH(ctx, thread, foreign);
    touch(ctx->nodes, ctx->node_capacity * sizeof *ctx->nodes, 0, 0);
    touch(ctx->operands, ctx->operand_capacity * sizeof *ctx->operands, 0, 0);
    touch(ctx->attrs, ctx->attr_capacity * sizeof *ctx->attrs, 0, 0);
    touch(ctx->scopes, ctx->scope_capacity * sizeof *ctx->scopes, 0, 0);
    touch(ctx->variables, ctx->variable_capacity * sizeof *ctx->variables, 0, 0);
    touch(ctx->changes, ctx->change_capacity * sizeof *ctx->changes, 0, 0);
    touch(ctx->watches, ctx->watch_capacity * sizeof *ctx->watches, 0, 0);
    touch(ctx->regions, ctx->region_capacity * sizeof *ctx->regions, 0, 0);
    touch(ctx->ids, ctx->id_capacity * sizeof *ctx->ids, 0, 0);
    touch(ctx->engine_state, sizeof(mb__engine_state), 0, 0);
    touch(o->p->items, (size_t)o->p->capacity * sizeof *o->p->items, 0, 0);
    touch(o->p->prefix, (size_t)o->p->prefix_capacity, 0, 0);
    TOUCH(o->p, ctx, ctx);
    TOUCH(o->opt, params, params);
    touch(o->opt->slots, (size_t)o->opt->capacity * sizeof *o->opt->slots, 0, 0);
    touch(o->ttt->lr, sizeof *o->ttt->lr, 0, 0);
}

static atomic_bool go; /* relaxed: it orders nothing for ThreadSanitizer */

static void *foreigner(void *user)
{
    while (!atomic_load_explicit(&go, memory_order_relaxed))
        sched_yield();
    call_all(user);
    return NULL;
}

static void from_a_thread(const char *backend)
{
    static objects o;
    open_objects(&o, backend);
    static mb_context before, after;
    atomic_store(&go, false);
    pthread_t thread;
    if (pthread_create(&thread, NULL, foreigner, &o))
        exit(1);
    memcpy(&before, o.ctx, sizeof before);
    touch_all(&o);
    atomic_store_explicit(&go, true, memory_order_relaxed);
    pthread_join(thread, NULL);
    memcpy(&after, o.ctx, sizeof after);
    const char *first = atomic_exchange(&o.ctx->foreign, NULL);
    atomic_store(&before.foreign, NULL);
    atomic_store(&after.foreign, NULL);
    check(!memcmp(&before, &after, sizeof before), "a refused call changes nothing");
    check(first != NULL, "a refused call is noted");
    atomic_store(&o.ctx->foreign, first);
    check(mb_error(o.ctx) == MB_THREAD && strstr(mb_message(o.ctx), "belongs to the thread"),
          mb_message(o.ctx));
    mb_clear_error(o.ctx);
    check(mb_item(mb_sum(o.x, MB_ALL)) == 32 && mb_error(o.ctx) == MB_OK, "the owner goes on");
    close_objects(&o);
}

/* The child's own memory: only what it is told can be wrong, or that it does not come back. */
static void from_a_child(const char *backend)
{
    static objects o;
    open_objects(&o, backend);
    if (mb_error(o.ctx) == MB_OK)
        mb_item(mb_sum(mb_matmul(o.x, o.x), MB_ALL)); /* threads are running, a device is in use */
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        failed = 0;
        call_all(&o);
        check(strstr(mb_message(o.ctx), "process") != NULL, mb_message(o.ctx));
        mb_context *own = mb_open("reference");
        check(own && mb_item(mb_add(mb_scalar(own, MB_FLOAT64, 1), 1.0)) == 2,
              "a context of the child's own");
        check(mb_close(own) == MB_OK, "and its close");
        fflush(stdout);
        _exit(failed ? 1 : 0);
    }
    int status = -1;
    check(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0,
          "a forked process is refused");
    check(mb_item(mb_sum(o.x, MB_ALL)) == 32 && mb_error(o.ctx) == MB_OK, "the parent goes on");
    close_objects(&o);
}

static bool present(const char *backend)
{
    mb_context *ctx = mb_open(backend);
    bool ok = mb_error(ctx) == MB_OK;
    mb_close(ctx);
    return ok;
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--list")) {
        list_all();
        return 0;
    }
    from_a_thread("cpu");
    from_a_thread("reference");
    if (argc > 1 && !strcmp(argv[1], "--threads-only")) {
        printf("%d passed, %d failed\n", passed, failed);
        return failed != 0;
    }
    from_a_child("cpu");
    from_a_child("reference");
    if (present("vulkan"))
        from_a_child("vulkan");
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
