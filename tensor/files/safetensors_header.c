/* SPDX-License-Identifier: MIT
 *
 * safetensors_header.c - parses a header and checks all of it. Reads no file and allocates no memory.
 */
#define XXH_INLINE_ALL
#include <stdarg.h>
#include <stdio.h>
#include <xxhash.h>

#include "tensor/files/safetensors.h"

const mb__st_dtype mb__st_dtypes[] = {
    {"BOOL", 8, MB_BOOL, MB__ST_SAME, {0}},
    {"F4", 4, -1, MB__ST_SAME, {0}},
    {"F6_E2M3", 6, -1, MB__ST_SAME, {0}},
    {"F6_E3M2", 6, -1, MB__ST_SAME, {0}},
    {"U8", 8, MB_UINT8, MB__ST_SAME, {0}},
    {"I8", 8, MB_INT32, MB__ST_SIGNED, {0}},
    {"F8_E5M2", 8, MB_FLOAT16, MB__ST_FLOAT8, {2, 15, MB__ST_IEEE}},
    {"F8_E4M3", 8, MB_FLOAT16, MB__ST_FLOAT8, {3, 7, MB__ST_LAST_IS_NAN}},
    {"F8_E8M0", 8, MB_FLOAT32, MB__ST_FLOAT8, {0, 127, MB__ST_POWERS}},
    {"F8_E4M3FNUZ", 8, MB_FLOAT16, MB__ST_FLOAT8, {3, 8, MB__ST_ZERO_IS_NAN}},
    {"F8_E5M2FNUZ", 8, MB_FLOAT16, MB__ST_FLOAT8, {2, 16, MB__ST_ZERO_IS_NAN}},
    {"I16", 16, MB_INT32, MB__ST_SIGNED, {0}},
    {"U16", 16, MB_INT32, MB__ST_UNSIGNED, {0}},
    {"F16", 16, MB_FLOAT16, MB__ST_SAME, {0}},
    {"BF16", 16, MB_BFLOAT16, MB__ST_SAME, {0}},
    {"I32", 32, MB_INT32, MB__ST_SAME, {0}},
    {"U32", 32, MB_INT64, MB__ST_UNSIGNED, {0}},
    {"F32", 32, MB_FLOAT32, MB__ST_SAME, {0}},
    {"C64", 64, -1, MB__ST_SAME, {0}},
    {"F64", 64, MB_FLOAT64, MB__ST_SAME, {0}},
    {"I64", 64, MB_INT64, MB__ST_SAME, {0}},
    {"U64", 64, MB_INT64, MB__ST_UNSIGNED, {0}},
};
enum { DTYPES = sizeof mb__st_dtypes / sizeof *mb__st_dtypes };

/* ---- the parser ---- */

typedef struct parser {
    mb__st_header *h;
    char *p, *end;
    const char *name; /* of the tensor being read, for messages; NULL outside */
} parser;

static bool fail(parser *s, const char *format, ...) MB_PRINTF(2, 3);

/* Keeps the first error. Always false. */
static bool fail(parser *s, const char *format, ...)
{
    mb__st_header *h = s->h;
    if (h->error[0])
        return false;
    int n = 0;
    if (s->name) {
        char name[96];
        n = snprintf(h->error, sizeof h->error, "tensor '%s': ", mb__printable(name, sizeof name, s->name));
    }
    va_list args;
    va_start(args, format);
    vsnprintf(h->error + n, sizeof h->error - (size_t)n, format, args);
    va_end(args);
    return false;
}

static void space(parser *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
        s->p++;
}

/* The next character that is not white space; 0 at the end. Not consumed. */
static int peek(parser *s)
{
    space(s);
    return s->p < s->end ? (unsigned char)*s->p : 0;
}

static bool expect(parser *s, char c, const char *what)
{
    if (peek(s) != c)
        return fail(s,
                    s->p < s->end ? "header: '%c' wanted %s, at byte %zu"
                                  : "header ends early: '%c' wanted %s, at byte %zu",
                    c, what, (size_t)(s->p - s->h->text));
    s->p++;
    return true;
}

static int hex4(const char *p, const char *end)
{
    if (end - p < 4)
        return -1;
    int v = 0;
    for (int i = 0; i < 4; i++) {
        int c = p[i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

/* s->p is after "\u". Writes the character as UTF-8: at most 3 bytes for 6 of text, or 4 for 12. */
static bool unicode_escape(parser *s, char **out)
{
    int v = hex4(s->p, s->end);
    if (v < 0)
        return fail(s, "header: a \\u escape without four hexadecimal digits");
    s->p += 4;
    if (v == 0)
        return fail(s, "header: a NUL character in a string");
    if (v >= 0xdc00 && v <= 0xdfff)
        return fail(s, "header: a \\u escape of half a surrogate pair");
    if (v >= 0xd800 && v <= 0xdbff) {
        int low = s->end - s->p >= 6 && s->p[0] == '\\' && s->p[1] == 'u' ? hex4(s->p + 2, s->end) : -1;
        if (low < 0xdc00 || low > 0xdfff)
            return fail(s, "header: a \\u escape of half a surrogate pair");
        s->p += 6;
        v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
    }
    char *q = *out;
    if (v < 0x80) {
        *q++ = (char)v;
    } else if (v < 0x800) {
        *q++ = (char)(0xc0 | v >> 6);
        *q++ = (char)(0x80 | (v & 0x3f));
    } else if (v < 0x10000) {
        *q++ = (char)(0xe0 | v >> 12);
        *q++ = (char)(0x80 | (v >> 6 & 0x3f));
        *q++ = (char)(0x80 | (v & 0x3f));
    } else {
        *q++ = (char)(0xf0 | v >> 18);
        *q++ = (char)(0x80 | (v >> 12 & 0x3f));
        *q++ = (char)(0x80 | (v >> 6 & 0x3f));
        *q++ = (char)(0x80 | (v & 0x3f));
    }
    *out = q;
    return true;
}

/* Unescapes a string in place, which never lengthens it, and ends it with NUL, which lies no later than its
 * closing quote. *start and *bytes: the result. */
static bool string(parser *s, const char *what, char **start, size_t *bytes)
{
    if (!expect(s, '"', what))
        return false;
    char *q = *start = s->p;
    while (s->p < s->end) {
        unsigned char c = (unsigned char)*s->p;
        if (c == '"') {
            s->p++;
            *q = 0;
            *bytes = (size_t)(q - *start);
            return true;
        }
        if (c < 0x20)
            return fail(s, "header: a control character in a string, at byte %zu",
                        (size_t)(s->p - s->h->text));
        if (c == '\\') {
            static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
            c = ++s->p < s->end ? (unsigned char)*s->p++ : 0;
            const char *e = c ? strchr(from, c) : NULL;
            if (e)
                *q++ = to[e - from];
            else if (c != 'u')
                return fail(s, "header: an unknown escape in a string");
            else if (!unicode_escape(s, &q))
                return false;
            continue;
        }
        int n = mb__utf8((const unsigned char *)s->p, (const unsigned char *)s->end);
        if (!n)
            return fail(s, "header is not UTF-8, at byte %zu", (size_t)(s->p - s->h->text));
        for (; n; n--)
            *q++ = *s->p++;
    }
    return fail(s, "header ends inside a string");
}

/* An integer from 0 to 2^48 - 1, without leading zeros, sign or exponent. */
static bool number(parser *s, const char *what, uint64_t *out)
{
    peek(s);
    const char *start = s->p;
    uint64_t v = 0;
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++) {
        v = v * 10 + (uint64_t)(*s->p - '0');
        if (v >= (uint64_t)MB__ST_SIZE_MAX)
            return fail(s, "%s of 2^48 or more", what);
    }
    int next = s->p < s->end ? (unsigned char)*s->p : 0;
    if (s->p == start || (*start == '0' && s->p > start + 1) || next == '.' || next == 'e' || next == 'E')
        return fail(s, "%s is not a whole number of 0 or more", what);
    *out = v;
    return true;
}

/* Consumes ',' (true) or `close` (false, *done). */
static bool more(parser *s, char close, bool *done)
{
    int c = peek(s);
    *done = c == close;
    if (c == ',' || c == close) {
        s->p++;
        return true;
    }
    return fail(s, "header%s: ',' or '%c' wanted, at byte %zu", s->p < s->end ? "" : " ends early", close,
                (size_t)(s->p - s->h->text));
}

static bool shape(parser *s, mb__st_entry *e, uint64_t *count)
{
    if (!expect(s, '[', "to begin a shape"))
        return false;
    e->shape = (uint32_t)(s->p - s->h->text);
    uint64_t product = 1; /* of the sizes other than 0: they must not overflow, even if one is 0 */
    bool zero = false, done = peek(s) == ']';
    if (done)
        s->p++;
    while (!done) {
        uint64_t d;
        if (!number(s, "a size in the shape", &d))
            return false;
        if (e->rank == MB_MAX_RANK)
            return fail(s, "more than %d axes", MB_MAX_RANK);
        e->rank++;
        zero |= d == 0;
        if (d && __builtin_mul_overflow(product, d, &product))
            return fail(s, "the sizes in the shape overflow");
        if (product >= (uint64_t)MB__ST_SIZE_MAX)
            return fail(s, "2^48 elements or more");
        if (!more(s, ']', &done))
            return false;
    }
    *count = zero ? 0 : product;
    return true;
}

static bool offsets(parser *s, mb__st_entry *e)
{
    return expect(s, '[', "to begin data_offsets") && number(s, "the first of data_offsets", &e->begin) &&
           expect(s, ',', "between data_offsets") && number(s, "the second of data_offsets", &e->end) &&
           expect(s, ']', "to end data_offsets");
}

/* {"dtype": ..., "shape": ..., "data_offsets": ...} in any order. */
static bool tensor(parser *s, mb__st_entry *e, uint64_t data_bytes)
{
    static const char *const fields[] = {"dtype", "shape", "data_offsets"};
    unsigned seen = 0;
    uint64_t count = 0;
    if (!expect(s, '{', "to begin a tensor"))
        return false;
    bool done = peek(s) == '}';
    if (done)
        s->p++;
    while (!done) {
        char *key, *value, text[64];
        size_t bytes;
        if (!string(s, "to begin the name of a field", &key, &bytes))
            return false;
        unsigned f = 0;
        while (f < 3 && strcmp(key, fields[f]) != 0)
            f++;
        if (f == 3)
            return fail(s, "unexpected field '%s'", mb__printable(text, sizeof text, key));
        if (seen & 1u << f)
            return fail(s, "field '%s' appears twice", fields[f]);
        seen |= 1u << f;
        if (!expect(s, ':', "after the name of a field"))
            return false;
        if (f == 0) {
            if (!string(s, "to begin the dtype", &value, &bytes))
                return false;
            for (e->dtype = 0; e->dtype < DTYPES && strcmp(value, mb__st_dtypes[e->dtype].name) != 0;)
                e->dtype++;
            if (e->dtype == DTYPES)
                return fail(s, "unknown dtype '%s'", mb__printable(text, sizeof text, value));
        } else if (!(f == 1 ? shape(s, e, &count) : offsets(s, e))) {
            return false;
        }
        if (!more(s, '}', &done))
            return false;
    }
    for (unsigned f = 0; f < 3; f++)
        if (!(seen & 1u << f))
            return fail(s, "field '%s' is missing", fields[f]);
    if (e->begin > e->end)
        return fail(s, "data_offsets [%llu,%llu] run backwards", (unsigned long long)e->begin,
                    (unsigned long long)e->end);
    if (e->end > data_bytes)
        return fail(s, "its data end at byte %llu, and the file has %llu", (unsigned long long)e->end,
                    (unsigned long long)data_bytes);
    uint64_t bits = count * (uint64_t)mb__st_dtypes[e->dtype].bits; /* below 2^54 */
    if (bits % 8)
        return fail(s, "its elements do not fill whole bytes");
    if (bits / 8 != e->end - e->begin)
        return fail(s, "its shape and dtype need %llu bytes, and data_offsets give it %llu",
                    (unsigned long long)(bits / 8), (unsigned long long)(e->end - e->begin));
    return true;
}

/* ---- order ---- */

static bool less(const mb__st_header *h, mb__st_key a, mb__st_key b)
{
    if (a.key != b.key)
        return a.key < b.key;
    return strcmp(h->text + h->entries[a.entry].name, h->text + h->entries[b.entry].name) < 0;
}

static void sift(const mb__st_header *h, mb__st_key *keys, size_t i, size_t n)
{
    mb__st_key moving = keys[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && less(h, keys[child], keys[child + 1]))
            child++;
        if (!less(h, moving, keys[child]))
            break;
        keys[i] = keys[child];
    }
    keys[i] = moving;
}

/* Heapsort: no memory, no recursion, n log n steps on any input. */
static void sort(const mb__st_header *h, mb__st_key *keys, size_t n)
{
    size_t sorted = 1;
    while (sorted < n && !less(h, keys[sorted], keys[sorted - 1]))
        sorted++;
    if (sorted >= n)
        return;
    for (size_t i = n / 2; i-- > 0;)
        sift(h, keys, i, n);
    for (size_t i = n; i-- > 1;) {
        mb__st_key largest = keys[0];
        keys[0] = keys[i];
        keys[i] = largest;
        sift(h, keys, 0, i);
    }
}

static uint64_t hash(const char *text, size_t bytes)
{
    return XXH3_64bits(text, bytes);
}

/* {"key": "value", ...}, packed in place as key NUL value NUL ..., from the '{' on: the punctuation of a pair
 * is six bytes, and two NULs replace it. */
static bool metadata(parser *s)
{
    mb__st_header *h = s->h;
    if (!expect(s, '{', "to begin __metadata__"))
        return false;
    char *out = h->metadata = s->p - 1;
    bool done = peek(s) == '}';
    if (done)
        s->p++;
    while (!done) {
        char *text;
        size_t bytes;
        if (h->metadata_count == MB__ST_METADATA_MAX)
            return fail(s, "more than %d entries of metadata", MB__ST_METADATA_MAX);
        for (int half = 0; half < 2; half++) {
            if (half && !expect(s, ':', "after a key of __metadata__"))
                return false;
            if (!string(s, half ? "to begin a value of __metadata__" : "to begin a key of __metadata__",
                        &text, &bytes))
                return false;
            memmove(out, text, bytes + 1);
            if (!half)
                h->scratch[h->metadata_count] = (mb__st_key){hash(out, bytes), (uint32_t)(out - h->text)};
            out += bytes + 1;
        }
        h->metadata_count++;
        if (!more(s, '}', &done))
            return false;
    }
    return true;
}

/* Compares all pairs of hashes: they are few. */
static bool metadata_unique(parser *s)
{
    mb__st_header *h = s->h;
    for (uint32_t i = 0; i < h->metadata_count; i++)
        for (uint32_t j = 0; j < i; j++)
            if (h->scratch[j].key == h->scratch[i].key &&
                strcmp(h->text + h->scratch[j].entry, h->text + h->scratch[i].entry) == 0) {
                char text[64];
                return fail(s, "metadata '%s' appears twice",
                            mb__printable(text, sizeof text, h->text + h->scratch[i].entry));
            }
    return true;
}

static bool unique_names(parser *s)
{
    mb__st_header *h = s->h;
    for (uint32_t i = 0; i < h->count; i++)
        h->scratch[i] = (mb__st_key){hash(h->text + h->entries[i].name, h->entries[i].name_bytes), i};
    sort(h, h->scratch, h->count);
    for (uint32_t i = 0; i < h->count; i++) {
        h->order[i] = h->scratch[i].entry;
        if (i && !less(h, h->scratch[i - 1], h->scratch[i])) {
            s->name = h->text + h->entries[h->scratch[i].entry].name;
            return fail(s, "appears twice");
        }
    }
    return true;
}

/* The tensors must cover the data completely and without overlap, so that no other file hides inside this
 * one. */
static bool contiguous(parser *s, uint64_t data_bytes)
{
    mb__st_header *h = s->h;
    uint64_t sum = 0; /* of at most 2^21 tensors below 2^48 each */
    for (uint32_t i = 0; i < h->count; i++)
        sum += h->entries[i].end - h->entries[i].begin;
    if (sum > data_bytes) /* found before a million of them are sorted */
        return fail(s, "the data of tensors overlap: they have %llu bytes together, and the file has %llu",
                    (unsigned long long)sum, (unsigned long long)data_bytes);
    for (uint32_t i = 0; i < h->count; i++) /* empty tensors come first among those that begin at one place */
        h->scratch[i] = (mb__st_key){2 * h->entries[i].begin + (h->entries[i].end > h->entries[i].begin), i};
    sort(h, h->scratch, h->count);
    uint64_t at = 0;
    for (uint32_t i = 0; i < h->count; i++) {
        const mb__st_entry *e = &h->entries[h->scratch[i].entry];
        s->name = h->text + e->name;
        if (e->begin < at)
            return fail(s, "its data overlap those of another tensor");
        if (e->begin > at)
            return fail(s, "%llu bytes before its data belong to no tensor",
                        (unsigned long long)(e->begin - at));
        at = e->end;
    }
    s->name = NULL;
    if (at != data_bytes)
        return fail(s, "%llu bytes after the last tensor", (unsigned long long)(data_bytes - at));
    return true;
}

bool mb__st_parse(mb__st_header *h, uint64_t data_bytes)
{
    parser s = {h, h->text, h->text + h->bytes, NULL};
    bool done, has_metadata = false;
    if (!expect(&s, '{', "to begin"))
        return false;
    done = peek(&s) == '}';
    if (done)
        s.p++;
    while (!done) {
        char *name;
        size_t bytes;
        if (!string(&s, "to begin a name", &name, &bytes) || !expect(&s, ':', "after a name"))
            return false;
        if (strcmp(name, "__metadata__") == 0) {
            if (has_metadata)
                return fail(&s, "'__metadata__' appears twice");
            has_metadata = true;
            if (!metadata(&s) || !metadata_unique(&s))
                return false;
        } else {
            if (bytes == 0)
                return fail(&s, "a tensor with an empty name");
            s.name = name;
            if (bytes > MB__ST_NAME_MAX)
                return fail(&s, "a name of %zu bytes, above %d", bytes, MB__ST_NAME_MAX);
            if (h->count == h->capacity)
                return fail(&s, "one tensor more than the header has room for");
            mb__st_entry *e = &h->entries[h->count];
            *e = (mb__st_entry){.name = (uint32_t)(name - h->text), .name_bytes = (uint32_t)bytes};
            if (!tensor(&s, e, data_bytes))
                return false;
            s.name = NULL;
            h->count++;
        }
        if (!more(&s, '}', &done))
            return false;
    }
    space(&s);
    if (s.p < s.end)
        return fail(&s, "header: text after its end, at byte %zu", (size_t)(s.p - h->text));
    return contiguous(&s, data_bytes) && unique_names(&s);
}

int64_t mb__st_find(const mb__st_header *h, const char *name)
{
    uint64_t key = hash(name, strlen(name));
    uint32_t low = 0, high = h->count;
    while (low < high) { /* the first one in the order by (hash, name) that is not below this */
        uint32_t middle = low + (high - low) / 2;
        const mb__st_entry *e = &h->entries[h->order[middle]];
        uint64_t k = hash(h->text + e->name, e->name_bytes);
        if (k < key || (k == key && strcmp(h->text + e->name, name) < 0))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == h->count)
        return -1;
    uint32_t i = h->order[low];
    return strcmp(h->text + h->entries[i].name, name) == 0 ? (int64_t)i : -1;
}

void mb__st_shape(const mb__st_header *h, const mb__st_entry *e, int64_t dim[MB_MAX_RANK])
{
    const char *p = h->text + e->shape;
    for (int i = 0; i < e->rank; i++) {
        while (*p < '0' || *p > '9')
            p++;
        for (dim[i] = 0; *p >= '0' && *p <= '9'; p++)
            dim[i] = dim[i] * 10 + (*p - '0');
    }
}
