/* SPDX-License-Identifier: MIT
 *
 * images.c - labelled images in memory, read in batches, in an order that is a function of seed and epoch. */
#include "tensor/files/order.h"
#include "tensor/internal.h"

struct mb_images {
    mb_context *ctx;
    mb_idx pixels, labels; /* [count, height, width], [count] */
    int64_t count, height, width;
    uint64_t seed;
    double scale, offset; /* of bytes, as a loader's column has them */
    float value[256];     /* of each byte */

    uint64_t epoch;  /* that `order` is for; MB_IN_ORDER: none yet */
    uint32_t *order; /* [count] */

    /* The batch being assembled; of the size of the largest batch so far. */
    float *x;   /* [capacity, height, width] */
    int32_t *y; /* [capacity] */
    int64_t capacity;
};

static void put_in_order(mb_images *d, uint64_t epoch)
{
    if (d->epoch != epoch)
        mb__shuffle(mb_key_of(d->seed), epoch, d->order, (uint32_t)d->count);
    d->epoch = epoch;
}

/* ---- opening ---- */

static bool load(mb_images *d, const mb_images_options *o)
{
    mb_context *ctx = d->ctx;
    if (mb_idx_read(ctx, o->images, &d->pixels) || mb_idx_read(ctx, o->labels, &d->labels))
        return false;
    const mb_idx *p = &d->pixels, *l = &d->labels;
    if (p->rank != 3 || l->rank != 1) {
        mb_fail(ctx, MB_FORMAT, "images: %s has rank %d, not 3, or %s has rank %d, not 1", o->images, p->rank,
                o->labels, l->rank);
        return false;
    }
    if (p->dim[0] != l->dim[0]) {
        mb_fail(ctx, MB_FORMAT, "images: %s has %lld images, %s has %lld labels", o->images,
                (long long)p->dim[0], o->labels, (long long)l->dim[0]);
        return false;
    }
    d->count = o->limit ? o->limit : p->dim[0];
    if (d->count < 1 || d->count > p->dim[0] || p->bytes == 0) {
        mb_fail(ctx, MB_INVALID, "images: %lld images wanted, %s has %lld", (long long)d->count, o->images,
                (long long)p->dim[0]);
        return false;
    }
    d->height = p->dim[1];
    d->width = p->dim[2];
    for (int64_t i = 0; o->classes > 0 && i < l->dim[0]; i++)
        if (l->data[i] >= o->classes) {
            mb_fail(ctx, MB_FORMAT, "images: %s: label %d of image %lld, in %d classes", o->labels,
                    l->data[i], (long long)i, o->classes);
            return false;
        }
    double std = o->std != 0 ? o->std : 1;
    d->scale = 1 / (255 * std);
    d->offset = -o->mean / std;
    for (int v = 0; v < 256; v++)
        d->value[v] = (float)(v * d->scale + d->offset);
    d->seed = o->seed;
    d->epoch = MB_IN_ORDER;
    d->order = mb__alloc(ctx, (size_t)d->count * sizeof *d->order);
    return d->order != NULL;
}

mb_images *mb_images_open_at(const char *site, mb_context *ctx, mb_images_options options)
{
    MB_SITE(ctx, site);
    if (!mb__enter_context("images", ctx))
        return NULL;
    if (!options.images || !options.labels || options.limit < 0) {
        mb_fail(ctx, MB_INVALID, "images: two paths and a limit of 0 or more are wanted");
        return NULL;
    }
    mb_images *d = mb__alloc(ctx, sizeof *d);
    if (!d)
        return NULL;
    d->ctx = ctx;
    if (!load(d, &options)) {
        mb_images_close(d);
        return NULL;
    }
    return d;
}

static void drop_batch(mb_images *d)
{
    mb__free(d->ctx, d->x, (size_t)(d->capacity * d->height * d->width) * sizeof *d->x);
    mb__free(d->ctx, d->y, (size_t)d->capacity * sizeof *d->y);
    d->x = NULL;
    d->y = NULL;
    d->capacity = 0;
}

void mb_images_close(mb_images *d)
{
    if (!d || !mb__right_thread(d->ctx, "mb_images_close"))
        return;
    drop_batch(d);
    mb__free(d->ctx, d->order, (size_t)d->count * sizeof *d->order);
    mb_idx_free(&d->labels);
    mb_idx_free(&d->pixels);
    mb__free(d->ctx, d, sizeof *d);
}

int64_t mb_images_count(const mb_images *d)
{
    return d ? d->count : 0;
}

int64_t mb_images_height(const mb_images *d)
{
    return d ? d->height : 0;
}

int64_t mb_images_width(const mb_images *d)
{
    return d ? d->width : 0;
}

void mb_images_columns(const mb_images *d, mb_column columns[2])
{
    if (!columns)
        return;
    columns[0] = columns[1] = (mb_column){0};
    if (!d)
        return;
    columns[0] = (mb_column){.data = d->pixels.data,
                             .dtype = MB_FLOAT32,
                             .shape = MB_SHAPE(d->height, d->width),
                             .bytes = true,
                             .scale = d->scale,
                             .offset = d->offset};
    columns[1] = (mb_column){.data = d->labels.data, .dtype = MB_INT32, .shape = MB_SHAPE0, .bytes = true};
}

/* ---- batches ---- */

static bool reserve(mb_images *d, int64_t size)
{
    if (size <= d->capacity)
        return true;
    drop_batch(d);
    size_t x_bytes = (size_t)(size * d->height * d->width) * sizeof *d->x;
    float *x = mb__alloc(d->ctx, x_bytes);
    int32_t *y = x ? mb__alloc(d->ctx, (size_t)size * sizeof *d->y) : NULL;
    if (!y) {
        mb__free(d->ctx, x, x_bytes);
        return false;
    }
    d->x = x;
    d->y = y;
    d->capacity = size;
    return true;
}

mb_status mb_images_batch_at(const char *site, mb_images *d, uint64_t epoch, int64_t batch, int64_t size,
                             mb_tensor *x, mb_tensor *y)
{
    MB_SITE(d ? d->ctx : NULL, site);
    if (x && y)
        *x = *y = (mb_tensor){NULL, 0, 0};
    if (!d)
        return MB_INVALID;
    if (!mb__enter_context("images", d->ctx))
        return mb_error(d->ctx) ? mb_error(d->ctx) : MB_THREAD;
    if (!x || !y || size < 1 || batch < 0 || batch > (d->count - 1) / size)
        return mb_fail(d->ctx, MB_INVALID, "images: batch %lld of size %lld, of %lld images",
                       (long long)batch, (long long)size, (long long)d->count);
    int64_t first = batch * size, n = d->count - first < size ? d->count - first : size;
    if (!reserve(d, size < d->count ? size : d->count))
        return mb_error(d->ctx);
    if (epoch != MB_IN_ORDER)
        put_in_order(d, epoch);
    int64_t area = d->height * d->width;
    for (int64_t i = 0; i < n; i++) {
        int64_t image = epoch == MB_IN_ORDER ? first + i : d->order[first + i];
        const uint8_t *from = d->pixels.data + image * area;
        float *to = d->x + i * area;
        for (int64_t p = 0; p < area; p++)
            to[p] = d->value[from[p]];
        d->y[i] = d->labels.data[image];
    }
    *x = mb_from(d->ctx, MB_FLOAT32, MB_SHAPE(n, d->height, d->width), d->x);
    *y = mb_from(d->ctx, MB_INT32, MB_SHAPE(n), d->y);
    return mb_error(d->ctx);
}
