/* SPDX-License-Identifier: MIT
 *
 * safetensors.h - the parsed header of a safetensors file. For tensor/files/ only; files.h is the public
 * header.
 *
 * The format: u64 little-endian n, n bytes of JSON, data. The JSON is one object, name -> {dtype, shape,
 * data_offsets}, and optionally "__metadata__" -> {string: string}. (github.com/huggingface/safetensors)
 *
 * The parser knows only this grammar. A JSON library builds a tree, which for a malicious text takes up to 30
 * times its memory. Here strings are unescaped in place, and the record of a tensor is smaller than its
 * shortest description, so that memory is bounded by the file's size.
 */
#ifndef MB_SAFETENSORS_H
#define MB_SAFETENSORS_H

#include "tensor/files/files.h"
#include "tensor/internal.h"

#define MB__ST_HEADER_MAX   100000000 /* the reference reader's limit                                  */
#define MB__ST_SIZE_MAX     (INT64_C(1) << 48)
#define MB__ST_NAME_MAX     4096
#define MB__ST_METADATA_MAX 4096 /* pairs */
/* No description of a tensor is shorter than "a":{"dtype":"F4","shape":[],"data_offsets":[0,0]} and a comma.
 */
#define MB__ST_ENTRY_MIN 50

/* How what is in a file becomes values of mb_dtype. */
typedef enum mb__st_way { MB__ST_SAME, MB__ST_SIGNED, MB__ST_UNSIGNED, MB__ST_FLOAT8 } mb__st_way;
/* What an 8-bit float has in place of numbers: infinities and NaN as IEEE's; NaN where all bits but the sign
 * are set; NaN for -0; or it is a power of two without a sign, and 255 is NaN. */
typedef enum mb__st_special {
    MB__ST_IEEE,
    MB__ST_LAST_IS_NAN,
    MB__ST_ZERO_IS_NAN,
    MB__ST_POWERS
} mb__st_special;
typedef struct mb__st_float8 {
    int fraction, bias; /* bits; of the exponent */
    mb__st_special special;
} mb__st_float8;

typedef struct mb__st_dtype {
    const char *name;
    int bits;
    int dtype; /* mb_dtype of what is read, or -1 */
    mb__st_way way;
    mb__st_float8 float8;
} mb__st_dtype;

/* The values of a file, `count` of them, as their mb_dtype's: exact. The index of one that is beyond it, or
 * count. */
int64_t mb__st_convert(const mb__st_dtype *from, const unsigned char *data, int64_t count, void *to);

extern const mb__st_dtype mb__st_dtypes[];

typedef struct mb__st_entry {
    uint64_t begin, end;  /* bytes, counted from the end of the header                                  */
    uint32_t name, shape; /* where in the header: text that ends with NUL; text of a JSON array */
    uint32_t name_bytes;
    uint8_t dtype, rank; /* dtype: in mb__st_dtypes */
} mb__st_entry;

/* A sortable reference to an entry: by key, then by name. */
typedef struct mb__st_key {
    uint64_t key;
    uint32_t entry;
} mb__st_key;

typedef struct mb__st_header {
    char *text; /* [bytes + 1], rewritten by the parser */
    size_t bytes;
    mb__st_entry *entries; /* [capacity] */
    mb__st_key *scratch;   /* [capacity], while parsing */
    uint32_t *order;       /* [capacity] entries by hash of their names */
    uint32_t capacity, count;
    char *metadata; /* key NUL value NUL ..., or NULL */
    uint32_t metadata_count;
    char error[320]; /* one sentence, after a failure */
} mb__st_header;

/* Parses text and checks everything against the bytes of data that follow it in the file. The caller provides
 * text, bytes, and the three arrays of capacity = bytes / MB__ST_ENTRY_MIN + 1; scratch of
 * MB__ST_METADATA_MAX at least. */
bool mb__st_parse(mb__st_header *h, uint64_t data_bytes);
/* Index in entries, -1 if there is no such name. */
int64_t mb__st_find(const mb__st_header *h, const char *name);
void mb__st_shape(const mb__st_header *h, const mb__st_entry *e, int64_t dim[MB_MAX_RANK]);

/* Length of the UTF-8 character at p, 1 to 4, or 0 if it is malformed or cut by `end`. */
int mb__utf8(const unsigned char *p, const unsigned char *end);
/* A name for a message: printable ASCII, shortened. */
const char *mb__printable(char *out, size_t size, const char *text);
/* The end of a long path. */
const char *mb__path_tail(const char *path);
bool mb__is_utf8(const char *text);
/* Whether a file can hold a tensor of this name. */
bool mb__st_name(const char *name);

/* open, close, fsync and rename, repeated when a signal interrupts them. -1 and errno after an error. */
int mb__open(const char *path, int flags);
int mb__close(int fd);
int mb__fsync(int fd);
int mb__rename(const char *from, const char *to);
/* Opens a regular file to be read. -1 after reporting; `what` begins the message. */
int mb__open_regular(mb_context *ctx, const char *what, const char *path, uint64_t *size);
/* Reads exactly `bytes` at `offset`. 0, an errno, or -1 if the file ends before. */
int mb__read_fully(int fd, void *dst, size_t bytes, uint64_t offset);

/* 0 or an errno. */
int mb__write_fully(int fd, const void *data, size_t bytes);
/* Writes a file's content. 0, an errno, or -1 if the error is the context's. */
typedef int mb__writer(void *user, int fd);
/* Replaces a file as a whole or not at all. `what` begins messages. */
mb_status mb__replace_file(mb_context *ctx, const char *what, const char *path, mb__writer *write,
                           void *user);

#endif
