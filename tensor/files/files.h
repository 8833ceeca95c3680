/* SPDX-License-Identifier: MIT
 *
 * files.h - files: tensors in safetensors and .npy format, tables of numbers, image sets in IDX format; and
 * a loader of batches.
 *
 * Files are not trusted: every size, offset and number in them is checked before it is used, and no more is
 * allocated than the file's own size justifies. An error is one sentence that names the path. MB_IO means
 * that the system refused (missing, not readable, disk full), MB_FORMAT that the content is wrong.
 *
 * Objects opened here take memory from the context's allocator, and must be closed before the context is.
 *
 * Stability: as in tensor.h. Later versions read the files that earlier ones have written.
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
 * PATH.tmp-PID-0 (PATH shortened if that name would be too long), which is synced and renamed over `path`. A
 * full disk or any other failure leaves the old file, and no temporary file; a killed process leaves the old
 * file, and perhaps the temporary one. A symbolic link is replaced, not followed. Equal tensors and metadata
 * give equal bytes. */
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

/* An open file, whose whole header has been read and checked. Tensors are numbered in the order of the
 * header. */
typedef struct mb_safetensors mb_safetensors;

/* NULL after an error. Accepts what the reference reader accepts (github.com/huggingface/safetensors), except
 * a rank above MB_MAX_RANK, a size or offset of 2^48 or more, names of 0 or more than 4096 bytes or with a
 * NUL, and more than 4096 entries of metadata. Tensors of F32, F64, I32, I64, U8,
 * BOOL, F16 and BF16 are read as they are, those of other dtypes as one that has all their values: I8, I16
 * and U16 as int32; U32, and U64 below 2^63, as int64; F8_E5M2, F8_E4M3 and their FNUZ forms as float16;
 * F8_E8M0 as float32. C64, F4 and the two of F6 can be listed, but not read. */
MB_API mb_safetensors *mb_safetensors_open_at(const char *site, mb_context *ctx, const char *path);
#define mb_safetensors_open(...) mb_safetensors_open_at(MB_HERE, __VA_ARGS__)
MB_API void mb_safetensors_close(mb_safetensors *file); /* NULL is allowed */

MB_API int mb_safetensors_count(const mb_safetensors *file);
/* The index of a name, -1 if the file has no such tensor. */
MB_API int mb_safetensors_find(const mb_safetensors *file, const char *name);
/* Strings are valid until the file is closed. NULL if i is out of range. */
MB_API const char *mb_safetensors_name(const mb_safetensors *file, int i);
/* As written in the file: "F32", "BF16", ... */
MB_API const char *mb_safetensors_dtype_name(const mb_safetensors *file, int i);
/* What it is read as; false, with *dtype unchanged, if it cannot be read. dtype may be NULL. */
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

/* -------------------------------------------------------------------------------- .npy and tables -- */

/* Reads an array of NumPy's: a tensor of the innermost scope, {0} after an error. Versions 1 to 3,
 * little-endian, rank at most MB_MAX_RANK. f2, f4, f8, i4, i8, u1 and b1 keep their dtype; i1, i2 and u2
 * become int32, u4 and u8 int64, and a value from 2^63 on is an error. An array in
 * Fortran's order has the same shape and elements here. Other dtypes, and files with too few or too many
 * bytes, are errors. */
MB_API mb_tensor mb_npy_load_at(const char *site, mb_context *ctx, const char *path);
#define mb_npy_load(...) mb_npy_load_at(MB_HERE, __VA_ARGS__)
/* Computes t, which NumPy has no bfloat16 for, and writes it as an .npy file of version 1, replaced as a
 * whole or not at all, as by mb_safetensors_save. */
MB_API mb_status mb_npy_save_at(const char *site, const char *path, mb_tensor t);
#define mb_npy_save(...) mb_npy_save_at(MB_HERE, __VA_ARGS__)

typedef struct mb_csv_options {
    mb_dtype dtype; /* MB_FLOAT32 or MB_FLOAT64 */
    bool header;    /* the first line is one of names, and left out */
    char separator; /* ',', ';', '|' or '\t'; 0: ',' */
} mb_csv_options;

/* Reads a table of numbers: [rows, columns], in the innermost scope; {0} after an error. Lines end with LF or
 * CR LF, and all have as many fields; empty ones are left out. A field is a number as strtod reads it, inf
 * and nan among them, with a point whatever the locale, perhaps between spaces; quotes are not read. A field
 * that is no number, or beyond the dtype, is an error that tells its line and column, both counted from 1. An
 * empty file is [0, 0]. */
MB_API mb_tensor mb_csv_load_at(const char *site, mb_context *ctx, const char *path, mb_csv_options options);
#define mb_csv_load(...) mb_csv_load_at(MB_HERE, __VA_ARGS__)

/* --------------------------------------------------------------------------------------------- IDX -- */

/* An array of bytes in the format of LeCun's MNIST files. */
typedef struct mb_idx {
    int rank;
    int64_t dim[MB_MAX_RANK];
    uint8_t *data; /* row-major, owned: mb_idx_free */
    size_t bytes;
    mb_context *ctx;
} mb_idx;

/* Reads a whole file, plain or gzip (recognised by its content, not its name). Checks the magic number, the
 * sizes, gzip's checksums, and that no data are missing and none follow. Only unsigned bytes (type 0x08) are
 * read. *out is all zeros after an error. */
MB_API mb_status mb_idx_read_at(const char *site, mb_context *ctx, const char *path, mb_idx *out);
#define mb_idx_read(...) mb_idx_read_at(MB_HERE, __VA_ARGS__)
MB_API void mb_idx_free(mb_idx *idx); /* makes *idx all zeros; it may be all zeros */

/* ------------------------------------------------------------------------------------------ images -- */

/* Labelled images in memory, read in batches. */
typedef struct mb_images mb_images;

typedef struct mb_images_options {
    const char *images; /* IDX [count, height, width]                                                  */
    const char *labels; /* IDX [count]                                                                 */
    int64_t limit;      /* use only the first `limit`; 0: all. More than there are is an error.        */
    double mean, std;   /* pixels become (byte / 255 - mean) / std; std 0 is taken as 1                */
    int classes;        /* labels must be below; 0: not checked                                        */
    uint64_t seed;      /* of the order within each epoch                                              */
} mb_images_options;

/* Where Debian's package dataset-fashion-mnist puts its four files; mean and deviation of its training
 * pixels. */
#define MB_FASHION_MNIST      "/usr/share/datasets/fashion-mnist"
#define MB_FASHION_MNIST_MEAN 0.2860
#define MB_FASHION_MNIST_STD  0.3530

/* Reads both files and checks that they have equally many entries. NULL after an error. Paths need not
 * outlive the call. */
MB_API mb_images *mb_images_open_at(const char *site, mb_context *ctx, mb_images_options options);
#define mb_images_open(...) mb_images_open_at(MB_HERE, __VA_ARGS__)
MB_API void mb_images_close(mb_images *images); /* NULL is allowed */

MB_API int64_t mb_images_count(const mb_images *images);
MB_API int64_t mb_images_height(const mb_images *images);
MB_API int64_t mb_images_width(const mb_images *images);

/* In place of an epoch: the order of the files. */
#define MB_IN_ORDER UINT64_MAX

/* Batch number `batch` of an epoch: images batch * size, ... of the epoch's order, `size` of them, or fewer
 * at the end. The order depends only on the seed and the epoch, so a run that is resumed at any batch sees
 * the batches that it would have seen. Writes *x: [B, height, width] float32 and *y: [B] int32, in the
 * innermost scope. */
MB_API mb_status mb_images_batch_at(const char *site, mb_images *images, uint64_t epoch, int64_t batch,
                                    int64_t size, mb_tensor *x, mb_tensor *y);
#define mb_images_batch(...) mb_images_batch_at(MB_HERE, __VA_ARGS__)

/* ---------------------------------------------------------------------------------------- batches -- */

/* One array of which a set's rows, its examples, consist. */
typedef struct mb_column {
    const void *data;     /* [rows, shape], row-major, perhaps a memory map; it is read until the loader is
                             closed. NULL: the callback writes it. */
    mb_dtype dtype;       /* of the batches, and of the data but for bytes       */
    mb_shape shape;       /* of one row                                          */
    bool bytes;           /* the data, or what the callback writes, are uint8; dtype is float32 or int32 */
    double scale, offset; /* bytes become byte * scale + offset, rounded to float32; scale 0 is taken as 1;
                             for int32 both are 0 */
} mb_column;

/* Images [height,width], float32, and labels, int32, as two columns: what mb_images_batch gives, bit for bit,
 * and with the key mb_key_of(seed) in the same order. They last as long as the images; NULL: no data. */
MB_API void mb_images_columns(const mb_images *images, mb_column columns[2]);

/* What becomes of the rows at the end of an epoch that do not fill a batch. */
typedef enum mb_last {
    MB_LAST_SHORT = 0, /* a batch of fewer rows */
    MB_LAST_DROP,      /* left out */
    MB_LAST_PAD,       /* a batch as large as the others, ended by zeros */
} mb_last;

typedef struct mb_loader_options {
    const mb_column *columns; /* [column_count], 1 or more; copied */
    int column_count;
    int64_t rows;  /* of the set, 1 to 2^32 - 1 */
    int64_t batch; /* rows of a batch, 1 or more */
    mb_last last;
    bool
        in_order; /* the rows in their order in each epoch; else in one that depends on key and epoch alone */
    mb_key key;
    int64_t step; /* the number of the first batch, counted from 0 over all epochs: that is all of a resume */
    int threads;  /* of the loader's own, at most 64, that make so many batches ahead; 0: a batch is made when
                     it is asked for, in the calling thread */
    /* Writes the row to columns[i], for each column whose data are NULL; the others' columns[i] is NULL. The
     * result is NULL, or a sentence that says what went wrong, valid until the loader is closed. With threads
     * it is called from them, from several at once; it must not call functions of the context. */
    const char *(*read)(void *user, int64_t row, void *const *columns);
    void *user; /* for read */
    /* Of each batch the part of one process among `shards`: all have the same batches, in the order of one
     * process alone, and each takes the rows from shard * batch / shards on. shards divides batch; 0 is 1. A
     * short last batch is divided as evenly as it can be, perhaps to no rows. `rows` below counts this
     * shard's. */
    int64_t shard, shards;
} mb_loader_options;

/* Batches of rows, without end: every row once an epoch, in an order that threads do not change. All memory
 * is allocated here: threads + 2 batches, and 4 bytes a row for an order. NULL after an error. */
typedef struct mb_loader mb_loader;
MB_API mb_loader *mb_loader_open_at(const char *site, mb_context *ctx, mb_loader_options options);
#define mb_loader_open(...) mb_loader_open_at(MB_HERE, __VA_ARGS__)
MB_API void mb_loader_close(mb_loader *loader); /* waits for its threads; NULL is allowed */

/* The batches of an epoch; the number of the next batch, counted over all epochs. */
MB_API int64_t mb_loader_batches(const mb_loader *loader);
MB_API int64_t mb_loader_step(const mb_loader *loader);

/* The next batch: one tensor [B, shape] for each column, in the innermost scope. B is options.batch, or a
 * shard's part of it, or less for a short last one. *rows: how many rows are real; rows may be NULL. When the
 * callback has failed for a row, that is the call's error, MB_IO, and the tensors are {0}; after
 * mb_clear_error the next call goes on with the batch after. */
MB_API mb_status mb_loader_next_at(const char *site, mb_loader *loader, mb_tensor *columns, int64_t *rows);
#define mb_loader_next(...) mb_loader_next_at(MB_HERE, __VA_ARGS__)
/* The same in the loader's memory, which stays as it is until the next call but one, or mb_loader_close:
 * columns[i] has B rows; NULL after an error. */
MB_API mb_status mb_loader_next_memory_at(const char *site, mb_loader *loader, const void **columns,
                                          int64_t *rows);
#define mb_loader_next_memory(...) mb_loader_next_memory_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
