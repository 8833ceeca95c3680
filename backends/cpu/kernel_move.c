/* SPDX-License-Identifier: MIT
 * kernel_move.c - kernels that only put elements elsewhere: from memory to memory, without registers. */
#include "backends/cpu/kernel.h"

static void move_row(size_t size, int64_t n, char *to, int64_t to_stride, const char *from, int64_t stride)
{
    if (stride == 1 && to_stride == 1)
        memcpy(to, from, (size_t)n * size);
    else if (size == 8)
        for (int64_t i = 0; i < n; i++)
            memcpy(to + i * to_stride * 8, from + i * stride * 8, 8);
    else
        for (int64_t i = 0; i < n; i++)
            memcpy(to + i * to_stride * 4, from + i * stride * 4, 4);
}

void mb__cpu_move(const mb__cpu_kernel *k, const mb__frame *f, const mb__tile *t)
{
    const mb__walk *w = k->uops->walk, *d = &k->stores->walk;
    const size_t size = mb__dtype_bytes(k->stores->dtype);
    const char *from = f->memory[w->value] + mb__cpu_start_of(k, w, t) * (int64_t)size;
    char *to = f->memory[d->value] + mb__cpu_start_of(k, d, t) * (int64_t)size;
    int64_t rows = t->rows, columns = t->columns;
    if (k->columns == 1) {
        move_row(size, rows, to, d->row, from, w->row);
    } else if (w->row == 1 && d->column == 1 && rows > 1 && w->column != 1) {
        k->loops->turn[size == 8](rows, columns, to, d->row, from, w->column);
    } else if (w->row == columns * w->column && d->row == columns * d->column) {
        move_row(size, rows * columns, to, d->column, from, w->column);
    } else {
        for (int64_t r = 0; r < rows; r++)
            move_row(size, columns, to + r * d->row * (int64_t)size, d->column,
                     from + r * w->row * (int64_t)size, w->column);
    }
}
