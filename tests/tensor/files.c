/* SPDX-License-Identifier: MIT
 * files.c - a folder, counted checks, an allocator that fails, and some tensors to save. */
#include "files.h"

#include "tensor/half.h"

#include <stdarg.h>

int passed, failed;
char folder[256];

bool check(bool ok, const char *format, ...)
{
    if (ok) {
        passed++;
        return true;
    }
    failed++;
    va_list args;
    va_start(args, format);
    printf("FAILED: ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    return false;
}

const char *in_folder(const char *name)
{
    static char paths[8][1024];
    static int next;
    char *p = paths[next++ % 8];
    snprintf(p, sizeof paths[0], "%s/%s", folder, name);
    return p;
}

void put_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

char *get_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*n + 1);
    if (fread(data, 1, *n, f) != *n)
        exit(1);
    fclose(f);
    return data;
}

int files_in_folder(void)
{
    char command[320];
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", folder);
    FILE *p = popen(command, "r");
    int n = -1;
    if (!p || fscanf(p, "%d", &n) != 1)
        exit(1);
    pclose(p);
    return n;
}

/* ---- an allocator that counts, remembers its largest request, and fails the n-th ---- */

struct heap heap;

static void *heap_alloc(void *user, size_t size)
{
    (void)user;
    if (++heap.count == heap.fail_at)
        return NULL;
    heap.largest = size > heap.largest ? size : heap.largest;
    heap.live += size;
    return malloc(size ? size : 1);
}

static void *heap_realloc(void *user, void *p, size_t old, size_t size)
{
    (void)user;
    if (++heap.count == heap.fail_at)
        return NULL;
    heap.largest = size > heap.largest ? size : heap.largest;
    heap.live += size - old;
    return realloc(p, size);
}

static void heap_free(void *user, void *p, size_t size)
{
    (void)user;
    heap.live -= size;
    free(p);
}

mb_context *open_context(void)
{
    static const mb_allocator a = {heap_alloc, heap_realloc, heap_free, NULL};
    mb_options o = {.backend = "reference", .allocator = &a};
    mb_context *mb = mb_open_with(&o);
    if (!mb || mb_error(mb)) {
        printf("cannot open a context: %s\n", mb_message(mb));
        exit(1);
    }
    return mb;
}

/* ---- tensors to save ---- */

mb_tensor some_tensor(mb_context *mb, mb_dtype dtype, mb_shape shape, int seed)
{
    double v[64]; /* room for any dtype */
    for (int i = 0; i < 64; i++) {
        int k = seed * 64 + i;
        bool floats = mb__is_half((int)dtype) || dtype == MB_FLOAT64;
        double x = dtype == MB_BOOL      ? k % 3 == 0
                   : dtype == MB_FLOAT32 ? (double)((float)k / 7)
                   : floats              ? k / 7.0
                                         : k * 1000003.0;
        mb__element_set(dtype, v, i, x);
    }
    return mb_from(mb, dtype, shape, v);
}

const char *const names[NAMES + 1] = {
    "bool", "ints", "w.bias", "w.weight", "scalar", "none", "d\xc3\xa9j\xc3\xa0 \"vu\"\\\n"};
const char *const metadata[] = {"format", "pt", "note", "a \"quoted\" \\ line\n\xe2\x82\xac", "", "", NULL};
void make_all(mb_context *mb, mb_tensor *ts)
{
    ts[0] = some_tensor(mb, MB_BOOL, MB_SHAPE(3, 3), 1);
    ts[1] = some_tensor(mb, MB_INT32, MB_SHAPE(5), 2);
    ts[2] = some_tensor(mb, MB_FLOAT32, MB_SHAPE(4), 3);
    ts[3] = some_tensor(mb, MB_FLOAT32, MB_SHAPE(4, 2, 1), 4);
    ts[4] = some_tensor(mb, MB_FLOAT64, MB_SHAPE0, 5);
    ts[5] = some_tensor(mb, MB_FLOAT64, MB_SHAPE(3, 0), 6);
    ts[6] = some_tensor(mb, MB_FLOAT32, MB_SHAPE(1, 1, 1, 1, 1, 1, 1, 2), 7);
}

bool same(mb_tensor a, mb_tensor b)
{
    mb_shape sa = mb_shape_of(a), sb = mb_shape_of(b);
    size_t n = (size_t)mb_count(a) * mb_dtype_size(mb_dtype_of(a));
    if (!mb_valid(a) || !mb_valid(b) || mb_dtype_of(a) != mb_dtype_of(b) || sa.rank != sb.rank ||
        memcmp(sa.dim, sb.dim, sizeof(int64_t) * (size_t)sa.rank) != 0)
        return false;
    char *da = calloc(1, n + 1), *db = calloc(1, n + 1);
    bool ok = mb_read(a, da, n) == MB_OK && mb_read(b, db, n) == MB_OK && memcmp(da, db, n) == 0;
    free(da);
    free(db);
    return ok;
}
