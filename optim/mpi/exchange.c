/* SPDX-License-Identifier: MIT
 *
 * exchange.c - operations on their way: MPI moves what they need, and what is to be added is added here
 * (sum.c). Each goes through its stages as far as MPI has come, without waiting; but every stage is entered
 * in the order in which the operations were begun, on each rank, because that is how MPI matches collective
 * calls.
 */
#include "optim/mpi/internal.h"

#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { FEW_BYTES = 64 << 10, SPARES = 64 };

static MPI_Datatype type_of(const mb__mpi_operation *op)
{
    return op->element == 8 ? MPI_DOUBLE : op->element == 1 ? MPI_BYTE : MPI_INT32_T;
}

int64_t mb__mpi_result_count(const mb_mpi *mpi, const mb__mpi_header *h)
{
    return h->kind == MB__MPI_GATHER    ? h->count * mpi->size
           : h->kind == MB__MPI_SCATTER ? h->count / mpi->size
                                        : h->count;
}

/* ---- memory ---- */

/* Elements of the three arrays; false: more than can be counted. */
static bool sizes(const mb_mpi *mpi, mb__mpi_operation *op, int64_t n[3])
{
    int64_t count = op->mine.count, all, bytes;
    if (__builtin_mul_overflow(count, (int64_t)mpi->size, &all) ||
        __builtin_mul_overflow(all, (int64_t)op->element * 4, &bytes) || count > INT_MAX)
        return false;
    n[0] = op->mine.kind == MB__MPI_BROADCAST ? 0 : count;
    n[1] = n[2] = 0;
    switch (op->mine.kind) {
    case MB__MPI_REDUCE:
        n[1] = all;
        n[2] = count;
        if (all * (int64_t)op->element <= FEW_BYTES)
            return true;
        op->part = (count + mpi->size - 1) / mpi->size;
        n[0] = n[1] = n[2] = op->part * mpi->size;
        return true;
    case MB__MPI_SCATTER:
        op->part = count / mpi->size;
        n[1] = count;
        n[2] = op->part;
        return true;
    default:
        n[2] = mb__mpi_result_count(mpi, &op->mine);
        return true;
    }
}

/* One that is done with, and has as much room; NULL. */
static mb__mpi_operation *take_spare(mb_mpi *mpi, size_t bytes)
{
    for (mb__mpi_operation **at = &mpi->spare; *at; at = &(*at)->next)
        if ((*at)->capacity >= bytes && (*at)->capacity / 4 <= bytes) {
            mb__mpi_operation *op = *at;
            *at = op->next;
            mpi->spares--;
            return op;
        }
    return NULL;
}

static mb__mpi_operation *allocate(mb_mpi *mpi, size_t bytes)
{
    mb__mpi_operation *op = take_spare(mpi, bytes);
    if (op) {
        *op = (mb__mpi_operation){.all = op->all, .block = op->block, .capacity = op->capacity};
        return op;
    }
    if (!(op = calloc(1, sizeof *op)))
        return NULL;
    op->all = calloc((size_t)mpi->size, sizeof *op->all);
    op->block = malloc(bytes ? bytes : 1);
    op->capacity = bytes;
    if (op->all && op->block)
        return op;
    free(op->all);
    free(op->block);
    free(op);
    return NULL;
}

static void release(mb__mpi_operation *op)
{
    free(op->all);
    free(op->block);
    free(op);
}

void mb__mpi_free(mb_mpi *mpi, mb__mpi_operation *op)
{
    mb__mpi_operation **at = &mpi->first;
    while (*at && *at != op)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = op->next;
    if (mpi->last == &op->next)
        mpi->last = at;
    if (mpi->spares >= SPARES) {
        release(op);
        return;
    }
    op->next = mpi->spare;
    mpi->spare = op;
    mpi->spares++;
}

/* ---- beginning ---- */

static void copy_in(const mb__mpi_operation *op, unsigned char *to, const void *data, int64_t stride)
{
    size_t e = op->element;
    if (stride == 1 && op->mine.count) {
        memcpy(to, data, (size_t)op->mine.count * e);
        return;
    }
    for (int64_t i = 0; i < op->mine.count; i++)
        memcpy(to + (size_t)i * e, (const unsigned char *)data + i * stride * (int64_t)e, e);
}

static mb__mpi_operation *make(mb_mpi *mpi, mb__mpi_header mine)
{
    int64_t n[3];
    mb__mpi_operation probe = {.mine = mine, .element = mb__mpi_element(mine.dtype)};
    if (!sizes(mpi, &probe, n))
        return NULL;
    /* Each array begins at a multiple of 64 bytes from the first, for the loops over them. */
    size_t at[4] = {0};
    for (int i = 0; i < 3; i++)
        at[i + 1] = at[i] + (((size_t)n[i] * probe.element + 63) & ~(size_t)63);
    mb__mpi_operation *op = allocate(mpi, at[3]);
    if (!op)
        return NULL;
    op->mine = mine;
    op->element = probe.element;
    op->part = probe.part;
    op->sent = op->block;
    op->came = op->block + at[1];
    op->result = op->block + at[2];
    return op;
}

mb__mpi_operation *mb__mpi_begin(mb_mpi *mpi, mb__mpi_header mine, const void *data, int64_t stride)
{
    if (mpi->broken != MB_OK)
        return NULL;
    mb__mpi_operation *op = make(mpi, mine);
    if (!op && !(op = make(mpi, (mb__mpi_header){.kind = MB__MPI_FAILED}))) {
        mpi->lost = true;
        mb__mpi_break(mpi, MB_NO_MEMORY, "out of memory, and none to tell the other ranks");
        return NULL;
    }
    if (op->mine.count) {
        unsigned char *to = mine.kind == MB__MPI_BROADCAST ? op->result : op->sent;
        copy_in(op, to, data, stride);
        if (mine.kind == MB__MPI_REDUCE && op->part) /* the last part may be a short one */
            memset(to + (size_t)mine.count * op->element, 0,
                   (size_t)(op->part * mpi->size - mine.count) * op->element);
    }
    *mpi->last = op;
    mpi->last = &op->next;
    mpi->counts.ops++;
    mpi->counts.bytes += op->mine.count * (int64_t)op->element;
    return op;
}

/* ---- stages ---- */

static bool tell(mb_mpi *mpi, mb__mpi_operation *op)
{
    op->stage = MB__MPI_TELLING;
    int n = (int)sizeof op->mine;
    return mb__mpi_ok(mpi, "MPI_Iallgather",
                      MPI_Iallgather(&op->mine, n, MPI_BYTE, op->all, n, MPI_BYTE, mpi->tell, &op->request));
}

static bool move(mb_mpi *mpi, mb__mpi_operation *op)
{
    MPI_Datatype type = type_of(op);
    int n = (int)op->mine.count, part = (int)op->part;
    op->stage = MB__MPI_MOVING;
    if (op->mine.kind == MB__MPI_BROADCAST)
        return mb__mpi_ok(mpi, "MPI_Ibcast",
                          MPI_Ibcast(op->result, n, type, op->mine.how, mpi->move, &op->request));
    if (op->part)
        return mb__mpi_ok(mpi, "MPI_Ialltoall",
                          MPI_Ialltoall(op->sent, part, type, op->came, part, type, mpi->move, &op->request));
    void *to = op->mine.kind == MB__MPI_GATHER ? op->result : op->came;
    return mb__mpi_ok(mpi, "MPI_Iallgather",
                      MPI_Iallgather(op->sent, n, type, to, n, type, mpi->move, &op->request));
}

/* What came is added: all of it, or this rank's part. */
static void add_up(const mb_mpi *mpi, mb__mpi_operation *op)
{
    const mb__mpi_header *h = &op->mine;
    bool parts = h->kind == MB__MPI_REDUCE && op->part;
    if (parts)
        mb__mpi_combine(h->dtype, h->how, op->result + (size_t)(mpi->rank * op->part) * op->element, op->came,
                        op->part, op->part, mpi->size);
    else if (h->kind == MB__MPI_REDUCE)
        mb__mpi_combine(h->dtype, h->how, op->result, op->came, h->count, h->count, mpi->size);
    else if (h->kind == MB__MPI_SCATTER)
        mb__mpi_combine(h->dtype, MB_REDUCE_SUM, op->result, op->came, op->part, op->part, mpi->size);
    op->stage = parts ? MB__MPI_MADE : MB__MPI_DONE;
}

static bool spread(mb_mpi *mpi, mb__mpi_operation *op)
{
    op->stage = MB__MPI_SPREADING;
    return mb__mpi_ok(mpi, "MPI_Iallgather",
                      MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, op->result, (int)op->part,
                                     type_of(op), mpi->spread, &op->request));
}

static bool arrived(mb_mpi *mpi, mb__mpi_operation *op)
{
    int done = 0;
    return mb__mpi_ok(mpi, "MPI_Test", MPI_Test(&op->request, &done, MPI_STATUS_IGNORE)) && done;
}

/* One stage further; false: not now. */
static bool go_on(mb_mpi *mpi, mb__mpi_operation *op, bool may_tell, bool may_spread)
{
    switch (op->stage) {
    case MB__MPI_NEW:
        return may_tell && tell(mpi, op);
    case MB__MPI_TELLING:
        if (!arrived(mpi, op))
            return false;
        if (!mb__mpi_agreed(mpi, op)) {
            op->stage = MB__MPI_DONE; /* it goes nowhere */
            return false;
        }
        if (op->mine.kind >= MB__MPI_AGREE || op->mine.count == 0) {
            op->stage = MB__MPI_DONE;
            return true;
        }
        return move(mpi, op);
    case MB__MPI_MOVING:
        if (!arrived(mpi, op))
            return false;
        add_up(mpi, op);
        return true;
    case MB__MPI_MADE:
        return may_spread && spread(mpi, op);
    case MB__MPI_SPREADING:
        if (!arrived(mpi, op))
            return false;
        op->stage = MB__MPI_DONE;
        return true;
    case MB__MPI_DONE:
        break;
    }
    return false;
}

/* new_ones: also those of which nothing was told. */
static void advance(mb_mpi *mpi, bool new_ones)
{
    bool may_tell = new_ones, may_spread = true;
    for (mb__mpi_operation *op = mpi->first; op && !mpi->lost; op = op->next) {
        while (go_on(mpi, op, may_tell, may_spread) && !mpi->lost)
            ;
        /* Where ranks do not agree, those behind are told by none: some ranks have not begun them. */
        if (op->stage <= MB__MPI_TELLING || mpi->broken != MB_OK)
            may_tell = false;
        if (op->mine.kind == MB__MPI_REDUCE && op->part && op->stage < MB__MPI_SPREADING)
            may_spread = false;
    }
}

mb_status mb__mpi_advance(mb_mpi *mpi)
{
    if (mpi->broken == MB_OK)
        advance(mpi, true);
    return mpi->broken;
}

mb_status mb__mpi_finish(mb_mpi *mpi, mb__mpi_operation *op)
{
    double began = MPI_Wtime();
    for (unsigned turn = 1; mb__mpi_advance(mpi) == MB_OK && op->stage != MB__MPI_DONE; turn++) {
        if (turn % 16)
            continue;
        sched_yield(); /* there may be more ranks than processors */
        if (mpi->patience > 0 && MPI_Wtime() - began > mpi->patience) {
            mpi->lost = true;
            mb__mpi_break(mpi, MB_BACKEND, "other ranks did not come within %g seconds", mpi->patience);
        }
    }
    mpi->counts.waited += MPI_Wtime() - began;
    return mpi->broken;
}

mb__mpi_operation *mb__mpi_ticket(mb_mpi *mpi, int32_t ticket)
{
    mb__mpi_operation *op = mpi->first;
    while (op && op->ticket != ticket)
        op = op->next;
    return op;
}

/* ---- the end ---- */

static bool on_its_way(const mb__mpi_operation *op)
{
    return op->stage > MB__MPI_TELLING && op->stage < MB__MPI_DONE;
}

void mb__mpi_drain(mb_mpi *mpi)
{
    bool left = true;
    double began = MPI_Wtime();
    while (left && !mpi->lost) {
        left = false;
        advance(mpi, false);
        for (mb__mpi_operation *op = mpi->first; op; op = op->next)
            left |= on_its_way(op);
        sched_yield();
        if (mpi->patience > 0 && MPI_Wtime() - began > mpi->patience)
            mpi->lost = true;
    }
    if (mpi->lost) /* MPI may still write to them */
        return;
    while (mpi->first) {
        mb__mpi_operation *op = mpi->first;
        mpi->first = op->next;
        release(op);
    }
    while (mpi->spare) {
        mb__mpi_operation *op = mpi->spare;
        mpi->spare = op->next;
        release(op);
    }
    mpi->last = &mpi->first;
}
