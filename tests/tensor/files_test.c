/* SPDX-License-Identifier: MIT
 * files_test.c - runs the tests of files, and their work once more with each allocation failing. Prints what
 * failed and "N passed, N failed". */
#include "files.h"

#include <unistd.h>

static int work(mb_context *mb)
{
    mb_tensor ts[NAMES], back[NAMES];
    const char *path = in_folder("memory.safetensors");
    mb_scope scope = mb_scope_begin(mb);
    make_all(mb, ts);
    mb_status status = mb_safetensors_save(mb, path, names, ts, NAMES, metadata);
    if (!status)
        status = mb_safetensors_load(mb, path, names, back, NAMES);
    mb_images *d = status ? NULL : mb_images_open(mb, image_files());
    mb_tensor x, y;
    if (d)
        mb_images_batch(d, 0, 0, 10, &x, &y);
    mb_images_close(d);
    if (!mb_error(mb) && !mb_npy_save(in_folder("memory.npy"), ts[0]))
        mb_npy_load(mb, in_folder("memory.npy"));
    const mb_column column = {.data = "abc", .shape = {1, {1}}, .bytes = true};
    mb_loader *loader = mb_loader_open(
        mb, (mb_loader_options){.columns = &column, .column_count = 1, .rows = 3, .batch = 2, .threads = 1});
    mb_loader_next(loader, &x, NULL);
    mb_loader_close(loader);
    put_file(in_folder("memory.csv"), "1,2\n3,4\n", 8);
    mb_csv_load(mb, in_folder("memory.csv"), (mb_csv_options){0});
    mb_scope_end(scope);
    return mb_error(mb);
}

static void test_memory(void)
{
    bool all = false;
    for (long k = 1; !all && k < 1000; k++) {
        mb_context *mb = open_context();
        size_t live = heap.live;
        heap.count = 0;
        heap.fail_at = k;
        int status = work(mb);
        all = heap.count < k;
        heap.fail_at = 0;
        check(all ? status == MB_OK : status == MB_NO_MEMORY, "allocation %ld fails: %s", k, mb_message(mb));
        mb_clear_error(mb);
        check(work(mb) == MB_OK, "after allocation %ld failed: %s", k, mb_message(mb));
        mb_close(mb);
        if (all)
            printf("%ld allocations failed one by one\n", k - 1);
        (void)live;
    }
    check(heap.live == 0, "%zu bytes were not given back", heap.live);
}

int main(void)
{
    snprintf(folder, sizeof folder, "%s/moebius-files-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(folder)) {
        perror(folder);
        return 1;
    }
    mb_context *mb = open_context();
    test_corpus(mb);
    test_large(mb);
    test_round_trip(mb);
    test_kinds(mb);
    test_dtypes_there_and_back(mb);
    test_damage(mb);
    test_save_errors(mb);
    test_signals(mb);
    test_failing_calls(mb);
    test_long_names(mb);
    test_other_files(mb);
    test_idx(mb);
    test_images(mb);
    test_npy(mb);
    test_csv(mb);
    check(mb_error(mb) == MB_OK, "an error is left: %s", mb_message(mb));
    mb_close(mb);
    check(heap.live == 0, "%zu bytes were not given back", heap.live);
    test_memory();
    char command[320];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0)
        failed++;
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
