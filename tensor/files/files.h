/* SPDX-License-Identifier: MIT
 *
 * files.h - what goes to disk and comes from it: checkpoints in safetensors, image sets in IDX.
 *
 * Files are taken for hostile: every size, offset and number in them is checked before it is used, nothing is
 * allocated that the file's own size does not warrant, and what is wrong is said in one sentence, with the
 * path. MB_IO means that the system refused (missing, not readable, disk full), MB_FORMAT that the content is
 * wrong.
 *
 * Owned objects here take memory from the context's allocator and are closed before the context is.
 *
 * Stability: as in tensor.h. Files that a version has written, later ones read.
 */
#ifndef MB_FILES_H
#define MB_FILES_H

#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------- safetensors -- */

/* Writes n tensors under their names (UTF-8, unique, 1 to 4096 bytes) to `path`. Computes them first, all in
 * one flush. metadata: key, value, key, value, ..., NULL; or NULL for none; at most 4096 pairs.
 *
 * The file is replaced as a whole or not at all: the content goes to a temporary file in the same folder,
 * PATH.tmp-PID-0 (PATH cut where that name were too long), which is synced and renamed over `path`. A full
 * disk or any other failure leaves what was there before, and no temporary file; so does a killed process,
 * which may leave that one. A symbolic link is replaced, not followed. Equal tensors and metadata give equal
 * bytes. */
MB_API mb_status mb_safetensors_save_at(const char *site, mb_context *ctx, const char *path,
                                        const char *const *names, const mb_tensor *ts, int n,
                                        const char *const *metadata);
#define mb_safetensors_save(...) mb_safetensors_save_at(MB_HERE, __VA_ARGS__)

/* Reads a file that holds exactly these names; a missing or an unexpected one is an error that names it.
 * ts[i] are made by mb_from in the innermost scope, in the dtype and shape of the file; no tensor ({0}) after
 * an error. */
MB_API mb_status mb_safetensors_load_at(const char *site, mb_context *ctx, const char *path,
                                        const char *const *names, mb_tensor *ts, int n);
#define mb_safetensors_load(...) mb_safetensors_load_at(MB_HERE, __VA_ARGS__)

/* An open file, its header read and checked whole. Tensors are numbered in the order of the header. */
typedef struct mb_safetensors mb_safetensors;

/* NULL after an error. Accepts what the reference reader accepts (github.com/huggingface/safetensors), but
 * for a rank above MB_MAX_RANK, a size or offset of 2^48 or more, names of 0 or more than 4096 bytes or with
 * a NUL, and more than 4096 entries of metadata. Files from elsewhere may hold dtypes that mb_dtype lacks:
 * they can be listed, not read. */
MB_API mb_safetensors *mb_safetensors_open_at(const char *site, mb_context *ctx, const char *path);
#define mb_safetensors_open(...) mb_safetensors_open_at(MB_HERE, __VA_ARGS__)
MB_API void mb_safetensors_close(mb_safetensors *file); /* NULL is allowed */

MB_API int mb_safetensors_count(const mb_safetensors *file);
/* The index of a name, -1 if the file has no such tensor. */
MB_API int mb_safetensors_find(const mb_safetensors *file, const char *name);
/* Strings live until the file is closed. NULL where i is out of range. */
MB_API const char *mb_safetensors_name(const mb_safetensors *file, int i);
/* As the file says it: "F32", "BF16", ... */
MB_API const char *mb_safetensors_dtype_name(const mb_safetensors *file, int i);
/* False, and *dtype untouched, where mb_dtype has no such type. dtype may be NULL. */
MB_API bool mb_safetensors_dtype(const mb_safetensors *file, int i, mb_dtype *dtype);
MB_API mb_shape mb_safetensors_shape(const mb_safetensors *file, int i);
/* Reads the values: a tensor of the innermost scope, made by mb_from. No tensor ({0}) after an error. */
MB_API mb_tensor mb_safetensors_tensor_at(const char *site, mb_safetensors *file, int i);
#define mb_safetensors_tensor(...) mb_safetensors_tensor_at(MB_HERE, __VA_ARGS__)

/* The value of a key of the file's metadata, NULL if there is none; and the i-th pair, false past the last.
 * key and value may be NULL. */
MB_API const char *mb_safetensors_metadata(const mb_safetensors *file, const char *key);
MB_API bool mb_safetensors_metadata_pair(const mb_safetensors *file, int i, const char **key,
                                         const char **value);

/* --------------------------------------------------------------------------------------------- IDX -- */

/* An array of bytes in the format of LeCun's MNIST files. */
typedef struct mb_idx {
    int rank;
    int64_t dim[MB_MAX_RANK];
    uint8_t *data; /* row-major, owned: mb_idx_free */
    size_t bytes;
    mb_context *ctx;
} mb_idx;

/* Reads a whole file, plain or gzip (by its content, whatever it is called). Checks the magic number, the
 * sizes, gzip's checksums, and that nothing is missing and nothing follows. Only unsigned bytes (type 0x08)
 * are read. *out is all zeros after an error. */
MB_API mb_status mb_idx_read_at(const char *site, mb_context *ctx, const char *path, mb_idx *out);
#define mb_idx_read(...) mb_idx_read_at(MB_HERE, __VA_ARGS__)
MB_API void mb_idx_free(mb_idx *idx); /* all zeros are allowed, and left behind */

/* ------------------------------------------------------------------------------------------ images -- */

/* Labelled images in memory, handed out in batches. */
typedef struct mb_images mb_images;

typedef struct mb_images_options {
    const char *images; /* IDX [count, height, width]                                                  */
    const char *labels; /* IDX [count]                                                                 */
    int64_t limit;      /* use the first `limit` only; 0: all. More than there are is an error.        */
    double mean, std;   /* pixels become (byte / 255 - mean) / std; std 0 is taken as 1                */
    int classes;        /* labels must be below; 0: not checked                                        */
    uint64_t seed;      /* of the order of epochs                                                      */
} mb_images_options;

/* Where Debian's package dataset-fashion-mnist puts its four files; mean and deviation of its training
 * pixels. */
#define MB_FASHION_MNIST      "/usr/share/datasets/fashion-mnist"
#define MB_FASHION_MNIST_MEAN 0.2860
#define MB_FASHION_MNIST_STD  0.3530

/* Reads both files and checks that they belong together. NULL after an error. Paths need not outlive the
 * call. */
MB_API mb_images *mb_images_open_at(const char *site, mb_context *ctx, mb_images_options options);
#define mb_images_open(...) mb_images_open_at(MB_HERE, __VA_ARGS__)
MB_API void mb_images_close(mb_images *images); /* NULL is allowed */

MB_API int64_t mb_images_count(const mb_images *images);
MB_API int64_t mb_images_height(const mb_images *images);
MB_API int64_t mb_images_width(const mb_images *images);

/* Instead of an epoch: the order of the files. */
#define MB_IN_ORDER UINT64_MAX

/* Batch number `batch` of an epoch: images batch * size, ... of the epoch's order, at most `size`, fewer at
 * the end. The order depends on the seed and the epoch alone, so a run resumed at any batch sees what it
 * would have seen. Writes *x: [B, height, width] float32 and *y: [B] int32, in the innermost scope. */
MB_API mb_status mb_images_batch_at(const char *site, mb_images *images, uint64_t epoch, int64_t batch,
                                    int64_t size, mb_tensor *x, mb_tensor *y);
#define mb_images_batch(...) mb_images_batch_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
