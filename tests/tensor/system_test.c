/* SPDX-License-Identifier: MIT
 * system_test.c - what the system may do while files are read and written: interrupt a call, fail it, take
 * long names. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* The library's calls of the system come through here: every first try is interrupted, or the n-th call
 * fails. */
static struct {
    bool interrupting, interrupted;
    long count, fail_at;
} calls;

static bool denied(void)
{
    if (calls.interrupting && !calls.interrupted) {
        calls.interrupted = true;
        errno = EINTR;
        return true;
    }
    calls.interrupted = false;
    if (++calls.count != calls.fail_at)
        return false;
    errno = EIO;
    return true;
}

int __real_open(const char *path, int flags, mode_t mode);
int __wrap_open(const char *path, int flags, mode_t mode);
int __wrap_open(const char *path, int flags, mode_t mode)
{
    return denied() ? -1 : __real_open(path, flags, mode);
}
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    /* Linux closes in any case, interrupted or not. */
    bool fails = denied();
    int error = errno, result = __real_close(fd);
    if (fails)
        errno = error;
    if (fails)
        calls.interrupted = false; /* nobody may try again */
    return fails ? -1 : result;
}
ssize_t __real_read(int fd, void *to, size_t bytes);
ssize_t __wrap_read(int fd, void *to, size_t bytes);
ssize_t __wrap_read(int fd, void *to, size_t bytes)
{
    return denied() ? -1 : __real_read(fd, to, bytes);
}
ssize_t __real_pread(int fd, void *to, size_t bytes, off_t at);
ssize_t __wrap_pread(int fd, void *to, size_t bytes, off_t at);
ssize_t __wrap_pread(int fd, void *to, size_t bytes, off_t at)
{
    return denied() ? -1 : __real_pread(fd, to, bytes, at);
}
ssize_t __real_write(int fd, const void *from, size_t bytes);
ssize_t __wrap_write(int fd, const void *from, size_t bytes);
ssize_t __wrap_write(int fd, const void *from, size_t bytes)
{
    return denied() ? -1 : __real_write(fd, from, bytes);
}
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    return denied() ? -1 : __real_fsync(fd);
}
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to)
{
    return denied() ? -1 : __real_rename(from, to);
}

void test_signals(mb_context *mb)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor ts[NAMES], back[NAMES];
    make_all(mb, ts);
    const char *path = in_folder("interrupted.safetensors");
    unsigned char idx[16] = {0, 0, 8, 1, 0, 0, 0, 2, 5, 6};
    put_file(in_folder("interrupted.idx"), idx, 10);
    calls.interrupting = true;
    check(mb_safetensors_save(mb, path, names, ts, NAMES, metadata) == MB_OK, "save: %s", mb_message(mb));
    check(mb_safetensors_load(mb, path, names, back, NAMES) == MB_OK, "load: %s", mb_message(mb));
    mb_idx read;
    check(mb_idx_read(mb, in_folder("interrupted.idx"), &read) == MB_OK && read.data[1] == 6, "idx: %s",
          mb_message(mb));
    calls.interrupting = calls.interrupted = false;
    mb_idx_free(&read);
    mb_clear_error(mb);
    mb_scope_end(scope);
}

/* Whichever call fails while a file is replaced: the name holds the old file or the new one, whole, and
 * nothing else is left. */
void test_failing_calls(mb_context *mb)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor ts[NAMES], back[NAMES];
    make_all(mb, ts);
    const char *path = in_folder("failing.safetensors");
    mb_safetensors_save(mb, path, names, ts, NAMES, metadata);
    mb_eval(ts, NAMES);
    int files = files_in_folder();
    size_t n, m;
    char *old = get_file(path, &n);
    bool all = false;
    long failing = 0;
    for (long k = 1; !all && k < 1000; k++) {
        calls.count = 0;
        calls.fail_at = k;
        mb_status status = mb_safetensors_save(mb, path, names, ts, NAMES, metadata);
        all = calls.count < k;
        calls.fail_at = 0;
        failing = k - 1;
        /* Only the last close, of the folder, can fail without a loss. */
        check(status == MB_IO || (status == MB_OK && calls.count <= k), "call %ld fails: %s", k,
              mb_message(mb));
        mb_clear_error(mb);
        char *now = get_file(path, &m);
        check(now && m == n && memcmp(now, old, n) == 0, "call %ld fails: the file is damaged", k);
        free(now);
        check(mb_safetensors_load(mb, path, names, back, NAMES) == MB_OK, "call %ld fails: %s", k,
              mb_message(mb));
        check(files_in_folder() == files, "call %ld fails: temporary files are left", k);
        all = all && status == MB_OK;
    }
    check(failing >= 6, "only %ld calls were made", failing);
    all = false;
    for (long k = 1; !all && k < 1000; k++) {
        calls.count = 0;
        calls.fail_at = k;
        mb_status status = mb_safetensors_load(mb, path, names, back, NAMES);
        all = calls.count < k;
        calls.fail_at = 0;
        check(status == MB_IO || status == MB_OK, "call %ld of a load fails: %s", k, mb_message(mb));
        check(status == MB_OK || !back[0].ctx, "call %ld of a load fails, and there are tensors", k);
        mb_clear_error(mb);
    }
    free(old);
    mb_scope_end(scope);
}

/* The longest names and paths that the system takes can be saved to. */
void test_long_names(mb_context *mb)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor ts[NAMES], back[NAMES];
    make_all(mb, ts);
    char name[300], path[5000];
    for (size_t length = 230; length <= 256; length++) {
        memset(name, 'a', length);
        name[length] = 0;
        mb_status status = mb_safetensors_save(mb, in_folder(name), names, ts, NAMES, metadata);
        check(status == (length <= 255 ? MB_OK : MB_IO), "a name of %zu: %s", length, mb_message(mb));
        mb_clear_error(mb);
        check(length > 255 || mb_safetensors_load(mb, in_folder(name), names, back, NAMES) == MB_OK,
              "a name of %zu: %s", length, mb_message(mb));
        mb_clear_error(mb);
        unlink(in_folder(name));
    }
    snprintf(path, sizeof path, "%s", folder); /* //////x is a path, too */
    for (size_t total = 4070; total <= 4096; total++) {
        size_t n = strlen(folder);
        memset(path + n, '/', total - n - 20);
        snprintf(path + total - 20, 21, "long%016zu", total);
        mb_status status = mb_safetensors_save(mb, path, names, ts, NAMES, metadata);
        check(status == (total < 4096 ? MB_OK : MB_IO), "a path of %zu: %s", total, mb_message(mb));
        mb_clear_error(mb);
        if (status == MB_OK)
            unlink(path);
    }
    mb_scope_end(scope);
}

void test_other_files(mb_context *mb)
{
    static const char *const others[] = {"# a text file, such as a script\n", "\x89PNG\r\n\x1a\n0123456789",
                                         "PK\3\4 and more of a zip file, as from elsewhere"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        put_file(in_folder("other"), others[i], strlen(others[i]));
        check(!mb_safetensors_open(mb, in_folder("other")) && mb_error(mb) == MB_FORMAT &&
                  strstr(mb_message(mb), "not a safetensors file"),
              "%zu: %s", i, mb_message(mb));
        mb_clear_error(mb);
    }
    char small[32] = {8, 0, 0, 0, 0, 0, 0, 0, '[', '1', ']'};
    put_file(in_folder("other"), small, sizeof small);
    check(!mb_safetensors_open(mb, in_folder("other")) && strstr(mb_message(mb), "not a safetensors file"),
          "%s", mb_message(mb));
    mb_clear_error(mb);
}
