/* SPDX-License-Identifier: MIT
 * images_test.c - IDX files, plain and compressed, and batches of images. */
#include "files.h"

#include <math.h>
#include <unistd.h>
#include <zlib.h>

static size_t idx_header(unsigned char *out, int rank, const uint32_t *dim)
{
    size_t n = 0;
    out[n++] = 0;
    out[n++] = 0;
    out[n++] = 8;
    out[n++] = (unsigned char)rank;
    for (int i = 0; i < rank; i++)
        for (int shift = 24; shift >= 0; shift -= 8)
            out[n++] = (unsigned char)(dim[i] >> shift);
    return n;
}

static size_t gzip(unsigned char *out, size_t room, const unsigned char *in, size_t n)
{
    z_stream z = {0};
    deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    z.next_in = (unsigned char *)in;
    z.avail_in = (uInt)n;
    z.next_out = out;
    z.avail_out = (uInt)room;
    deflate(&z, Z_FINISH);
    deflateEnd(&z);
    return room - z.avail_out;
}

static void expect_idx(mb_context *mb, const char *what, const void *data, size_t n, const char *error)
{
    mb_idx idx;
    const char *path = in_folder("x.idx");
    put_file(path, data, n);
    mb_status status = mb_idx_read(mb, path, &idx);
    if (!error)
        check(status == MB_OK && idx.data, "%s: %s", what, mb_message(mb));
    else
        check(status != MB_OK && strstr(mb_message(mb), error) && !idx.data, "%s: wanted '%s', got '%s'",
              what, error, status == MB_OK ? "a file" : mb_message(mb));
    mb_idx_free(&idx);
    mb_clear_error(mb);
}

void test_idx(mb_context *mb)
{
    unsigned char plain[600], packed[2000], two[4000];
    size_t header = idx_header(plain, 3, (uint32_t[]){5, 10, 10}), n = header + 500;
    for (size_t i = header; i < n; i++)
        plain[i] = (unsigned char)(i * i * 31 >> 3);
    size_t p = gzip(packed, sizeof packed, plain, n);
    expect_idx(mb, "plain", plain, n, NULL);
    expect_idx(mb, "gzip", packed, p, NULL);
    mb_idx idx;
    check(mb_idx_read(mb, in_folder("x.idx"), &idx) == MB_OK && idx.rank == 3 && idx.dim[0] == 5 &&
              idx.dim[2] == 10 && idx.bytes == 500 && memcmp(idx.data, plain + header, 500) == 0,
          "content of a gzip file");
    mb_idx_free(&idx);

    for (size_t cut = 0; cut < n; cut++)
        expect_idx(mb, "plain, cut", plain, cut, "");
    for (size_t cut = 0; cut < p; cut++)
        expect_idx(mb, "gzip, cut", packed, cut, cut < 2 ? "not an IDX file" : "gzip: the file ends early");
    for (size_t at = 10; at < p; at++) { /* behind the fields of gzip's header that mean nothing */
        memcpy(two, packed, p);
        two[at] ^= 0x10;
        put_file(in_folder("x.idx"), two, p);
        bool same =
            mb_idx_read(mb, in_folder("x.idx"), &idx) == MB_OK && memcmp(idx.data, plain + header, 500) == 0;
        check(same || mb_error(mb) == MB_FORMAT, "gzip, byte %zu changed: %s", at,
              mb_message(mb)); /* some bits only pad */
        mb_idx_free(&idx);
        mb_clear_error(mb);
    }
    memcpy(two, plain, n);
    two[n] = 0;
    expect_idx(mb, "plain, more", two, n + 1, "more follows");
    memcpy(two, packed, p);
    two[p] = 0;
    expect_idx(mb, "gzip, zeros behind", two, p + 1, "something follows");
    two[p] = 0x1f;
    expect_idx(mb, "gzip, half a member behind", two, p + 1, "gzip: the file ends early");
    memcpy(two + p, packed, p);
    expect_idx(mb, "gzip, twice", two, 2 * p, "more follows");
    size_t first = gzip(two, sizeof two, plain, 100),
           second = gzip(two + first, sizeof two - first, plain + 100, n - 100);
    expect_idx(mb, "gzip, two members", two, first + second, NULL);

    unsigned char bad[600];
    memcpy(bad, plain, n);
    bad[0] = 1;
    expect_idx(mb, "magic", bad, n, "should begin with two zeros");
    memcpy(bad, plain, n);
    bad[2] = 0x0d;
    expect_idx(mb, "floats", bad, n, "IDX type 0x0d");
    memcpy(bad, plain, n);
    bad[3] = 0;
    expect_idx(mb, "rank 0", bad, n, "rank 0");
    bad[3] = 9;
    expect_idx(mb, "rank 9", bad, n, "rank 9");
    heap.largest = 0;
    idx_header(bad, 3, (uint32_t[]){0xffffffff, 0xffffffff, 0xffffffff});
    expect_idx(mb, "huge", bad, n, "more than a file of");
    idx_header(bad, 3, (uint32_t[]){65536, 65536, 65536});
    expect_idx(mb, "huge", bad, n, "more than a file of");
    idx_header(bad, 3, (uint32_t[]){0x80000000, 0x80000000, 4}); /* wraps to 0 */
    expect_idx(mb, "wrapping", bad, n, "more than a file of");
    p = gzip(packed, sizeof packed, bad, n);
    expect_idx(mb, "wrapping gzip", packed, p, "more than a file of");
    check(heap.largest < 100000, "an allocation of %zu for absurd sizes", heap.largest);
    idx_header(bad, 3, (uint32_t[]){5, 10, 11});
    expect_idx(mb, "too few", bad, n, "more than a file of"); /* 550 of 516 */
    p = gzip(packed, sizeof packed, bad, n);
    expect_idx(mb, "too few, gzip", packed, p, "need 550 bytes, and there are 500");
    idx_header(bad, 3, (uint32_t[]){5, 10, 9});
    expect_idx(mb, "too many", bad, n, "more follows after the 450");

    check(mb_idx_read(mb, MB_FASHION_MNIST "/nothing.gz", &idx) == MB_IO &&
              strstr(mb_message(mb), "dataset-fashion-mnist") && strstr(mb_message(mb), "nothing.gz"),
          "a missing file: %s", mb_message(mb));
    mb_clear_error(mb);
    check(mb_idx_read(mb, "/nothing", &idx) == MB_IO && !strstr(mb_message(mb), "dataset-fashion"),
          "another missing file");
    mb_clear_error(mb);
    check(mb_idx_read(mb, folder, &idx) == MB_IO, "a folder");
    mb_clear_error(mb);
}

/* ---- images ---- */

enum { IMAGES = 103 };

mb_images_options image_files(void)
{
    unsigned char images[16 + IMAGES * 6], labels[8 + IMAGES];
    size_t n = idx_header(images, 3, (uint32_t[]){IMAGES, 2, 3}),
           m = idx_header(labels, 1, (uint32_t[]){IMAGES});
    for (int i = 0; i < IMAGES; i++) {
        for (int k = 0; k < 6; k++)
            images[n++] = (unsigned char)(i * 2 + k);
        labels[m++] = (unsigned char)(i % 10);
    }
    put_file(in_folder("images"), images, n);
    put_file(in_folder("labels"), labels, m);
    return (mb_images_options){.images = in_folder("images"),
                               .labels = in_folder("labels"),
                               .mean = 0.25,
                               .std = 0.5,
                               .classes = 10,
                               .seed = 3};
}

/* Which images (by their first pixel) a batch holds; checks each against its label. */
static int batch_of(mb_context *mb, mb_images *d, uint64_t epoch, int64_t batch, int64_t size, int *which)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor x, y;
    float pixels[IMAGES * 6];
    int32_t labels[IMAGES];
    if (mb_images_batch(d, epoch, batch, size, &x, &y) != MB_OK) {
        mb_scope_end(scope);
        return -1;
    }
    int n = (int)mb_dim(x, 0);
    mb_read(x, pixels, sizeof(float) * 6 * (size_t)n);
    mb_read(y, labels, sizeof(int32_t) * (size_t)n);
    for (int i = 0; i < n; i++) {
        double byte = ((double)pixels[i * 6] * 0.5 + 0.25) * 255;
        which[i] = (int)lround(byte / 2);
        check(fabs(byte - 2 * which[i]) < 1e-3 && labels[i] == which[i] % 10 &&
                  fabsf(pixels[i * 6 + 5] - (float)(((2 * which[i] + 5) / 255.0 - 0.25) / 0.5)) < 1e-6f,
              "image %d of batch %d", i, (int)batch);
    }
    mb_scope_end(scope);
    return n;
}

/* A loader over the same files, of the same seed, has the same batches. */
static void expect_loader(mb_context *mb, mb_images_options o)
{
    mb_column columns[2];
    mb_images *d = mb_images_open(mb, o);
    mb_images_columns(d, columns);
    mb_images_columns(d, NULL);
    mb_loader *l = mb_loader_open(mb, (mb_loader_options){.columns = columns,
                                                          .column_count = 2,
                                                          .rows = IMAGES,
                                                          .batch = 10,
                                                          .key = mb_key_of(o.seed),
                                                          .step = 5,
                                                          .threads = 2});
    int64_t batches = mb_loader_batches(l);
    for (int64_t step = 5; step < 30; step++) {
        mb_scope scope = mb_scope_begin(mb);
        mb_tensor x, y, ours[2];
        mb_images_batch(d, (uint64_t)(step / batches), step % batches, 10, &x, &y);
        check(!mb_loader_next(l, ours, NULL) && same(x, ours[0]) && same(y, ours[1]), "batch %d: %s",
              (int)step, mb_message(mb));
        mb_scope_end(scope);
    }
    mb_loader_close(l);
    mb_images_close(d);
    mb_images_columns(NULL, columns);
    check(!columns[0].data && !columns[1].data, "columns of no images");
}

void test_images(mb_context *mb)
{
    mb_images_options o = image_files();
    expect_loader(mb, o);
    mb_images_options uneven = o; /* no number of these is exact */
    uneven.mean = 0.2860;
    uneven.std = 0.3530;
    expect_loader(mb, uneven);
    mb_images *d = mb_images_open(mb, o);
    if (!check(d != NULL, "images: %s", mb_message(mb)))
        return;
    check(mb_images_count(d) == IMAGES && mb_images_height(d) == 2 && mb_images_width(d) == 3,
          "size of images");
    int first[IMAGES], again[IMAGES], other[IMAGES], order[IMAGES], n = 0;
    for (int b = 0; b < 11; b++)
        n += batch_of(mb, d, 0, b, 10, first + n);
    check(n == IMAGES, "an epoch has %d images", n);
    bool seen[IMAGES] = {false};
    for (int i = 0; i < IMAGES; i++)
        seen[first[i]] = true;
    for (int i = 0; i < IMAGES; i++)
        check(seen[i], "image %d is not in the epoch", i);
    batch_of(mb, d, 1, 0, IMAGES, other);
    check(memcmp(first, other, sizeof first) != 0, "two epochs in the same order");
    batch_of(mb, d, MB_IN_ORDER, 0, IMAGES, order);
    for (int i = 0; i < IMAGES; i++)
        check(order[i] == i, "in order: image %d is %d", i, order[i]);
    mb_images_close(d);
    d = mb_images_open(mb, o);
    batch_of(mb, d, 0, 3, 10, again);
    check(memcmp(again, first + 30, 10 * sizeof *again) == 0, "a resumed epoch differs");
    batch_of(mb, d, 0, 0, IMAGES, again);
    check(memcmp(again, first, sizeof first) == 0, "the order depends on the size of batches");
    long count = heap.count;
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor x, y;
    mb_images_batch(d, 5, 0, 50, &x, &y);
    mb_scope_end(scope);
    printf("%ld allocations for a warm batch\n", heap.count - count);
    check(batch_of(mb, d, 0, 11, 10, again) == -1 && mb_error(mb) == MB_INVALID, "a batch past the end");
    mb_clear_error(mb);
    check(batch_of(mb, d, 0, 0, 0, again) == -1 && batch_of(mb, d, 0, -1, 5, again) == -1, "no batch");
    mb_clear_error(mb);
    mb_images_close(d);

    o.seed = 4;
    d = mb_images_open(mb, o);
    batch_of(mb, d, 0, 0, IMAGES, other);
    check(memcmp(first, other, sizeof first) != 0, "two seeds give the same order");
    mb_images_close(d);
    o.limit = 7;
    d = mb_images_open(mb, o);
    check(mb_images_count(d) == 7 && batch_of(mb, d, 2, 0, 100, other) == 7, "a limit");
    mb_images_close(d);
    o.limit = IMAGES + 1;
    check(!mb_images_open(mb, o) && strstr(mb_message(mb), "104 images wanted"), "a limit too high: %s",
          mb_message(mb));
    mb_clear_error(mb);
    o.limit = 0;
    o.classes = 9;
    check(!mb_images_open(mb, o) && strstr(mb_message(mb), "label 9 of image 9"), "labels too high: %s",
          mb_message(mb));
    mb_clear_error(mb);
    unsigned char labels[8 + 5];
    size_t m = idx_header(labels, 1, (uint32_t[]){5});
    memset(labels + m, 0, 5);
    put_file(in_folder("labels"), labels, m + 5);
    check(!mb_images_open(mb, o) && strstr(mb_message(mb), "has 5 labels"), "unequal counts: %s",
          mb_message(mb));
    mb_clear_error(mb);
    o.labels = o.images;
    check(!mb_images_open(mb, o) && strstr(mb_message(mb), "rank"), "wrong ranks: %s", mb_message(mb));
    mb_clear_error(mb);
}
