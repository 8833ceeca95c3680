/* SPDX-License-Identifier: MIT
 *
 * internal.h - a handle, and the operations that are under way on it. For optim/mpi/ only, which stands on
 * public headers alone.
 */
#ifndef MB_MPI_INTERNAL_H
#define MB_MPI_INTERNAL_H

#include "autograd/custom.h"
#include "optim/mpi/ranks.h"
#include "tensor/custom_op.h"

#include <mpi.h>

enum { MB__MPI_TEXT = 400 };

enum mb__mpi_kind {
    MB__MPI_REDUCE = 1,
    MB__MPI_GATHER,
    MB__MPI_SCATTER,
    MB__MPI_BROADCAST,
    MB__MPI_AGREE,
    MB__MPI_CLOSE,
    MB__MPI_FAILED
};

/* What a rank is about to do. It may go on when all say the same. */
typedef struct mb__mpi_header {
    int32_t kind, dtype;
    int32_t how;    /* REDUCE: the mb_reduction; BROADCAST: the root; AGREE: a number; else 0 */
    int32_t status; /* AGREE, CLOSE: of the context; it need not be the same */
    int64_t count;  /* elements that a rank gives */
} mb__mpi_header;

/* From stage to stage, in this order, some left out. */
enum mb__mpi_stage {
    MB__MPI_NEW,       /* nothing was told to others */
    MB__MPI_TELLING,   /* the headers are on their way */
    MB__MPI_MOVING,    /* the data are */
    MB__MPI_MADE,      /* REDUCE of many bytes: this rank's part is added, and not yet sent */
    MB__MPI_SPREADING, /* ... it is on its way to all */
    MB__MPI_DONE,
};

typedef struct mb__mpi_operation {
    mb__mpi_header mine, *all; /* all: [size] */
    enum mb__mpi_stage stage;
    int32_t ticket; /* of one that is waited for later; 0 */
    MPI_Request request;
    size_t element; /* bytes */
    int64_t part;   /* REDUCE of many bytes, SCATTER: elements of each rank's part; else 0 */
    unsigned char *block, *sent, *came, *result; /* parts of the block */
    size_t capacity;                             /* of the block */
    struct mb__mpi_operation *next;
} mb__mpi_operation;

struct mb_mpi {
    mb_context *ctx;
    int number; /* of the handle, in its process; an attribute of its ops */
    int rank, size;
    bool ends_mpi; /* the last handle to close does */
    double patience;
    /* One communicator a stage: collective calls of MPI match in the order in which they are made, which must
     * not depend on which rank's data come first. */
    MPI_Comm tell, move, spread;
    mb__mpi_operation *first, **last; /* in the order in which they were begun, done ones included */
    mb__mpi_operation *spare;         /* kept for their memory */
    int spares;
    int32_t tickets;
    mb_status broken; /* MB_OK: it is not */
    bool lost;        /* by MPI, or of patience: others cannot be counted on any more */
    char sentence[2 * MB__MPI_TEXT + 256];
    bool at_once;         /* no splitting: MB_DEBUG computes each op twice, one after the other */
    int64_t bucket_bytes; /* of mb_mpi_share_gradients */
    mb_mpi_counts counts;
};

/* ---- state.c ---- */

/* NULL: it is closed. */
mb_mpi *mb__mpi_of(int64_t number);
/* Gives the handle its number; false: there are as many as there can be. */
bool mb__mpi_enlist(mb_mpi *mpi);
/* The opposite. Whether it was the last one, of an MPI that was begun by mb__mpi_begun_here's caller. */
bool mb__mpi_strike(const mb_mpi *mpi);
void mb__mpi_begun_here(void);
/* Makes the handle unusable, if it is not yet, with that sentence. Returns its status. */
mb_status mb__mpi_break(mb_mpi *mpi, mb_status status, const char *format, ...) MB_PRINTF(3, 4);
/* Whether MPI has done what it was asked; else the handle is lost. */
bool mb__mpi_ok(mb_mpi *mpi, const char *call, int code);
/* The handle's own context has no error, and it is not broken; else the context has one. */
bool mb__mpi_usable(const char *site, mb_mpi *mpi, const char *name);

/* ---- agree.c ---- */

/* Whether all ranks are about to do the same, whose headers are in op->all; else the handle is broken on each
 * of them.
 * Of ranks that agree to agree, and one of which has an error, mpi->sentence becomes that of the first. */
bool mb__mpi_agreed(mb_mpi *mpi, mb__mpi_operation *op);

/* ---- exchange.c ---- */

/* An operation in the order of all others; it copies `data`, count elements at a stride. Where there is no
 * memory, it tells the others so. NULL: the handle is broken. */
mb__mpi_operation *mb__mpi_begin(mb_mpi *mpi, mb__mpi_header mine, const void *data, int64_t stride);
/* As far as all operations come without waiting. */
mb_status mb__mpi_advance(mb_mpi *mpi);
/* Until this one is done. */
mb_status mb__mpi_finish(mb_mpi *mpi, mb__mpi_operation *op);
mb__mpi_operation *mb__mpi_ticket(mb_mpi *mpi, int32_t ticket); /* NULL: there is none */
void mb__mpi_free(mb_mpi *mpi, mb__mpi_operation *op);
/* Waits for the data of all that were agreed upon, then frees all. */
void mb__mpi_drain(mb_mpi *mpi);
/* Elements of the result. */
int64_t mb__mpi_result_count(const mb_mpi *mpi, const mb__mpi_header *h);

/* ---- handle.c ---- */

/* mb_mpi_agree of ranks that have to have the same number. */
mb_status mb__mpi_agree_on(const char *site, mb_mpi *mpi, int32_t number);

/* ---- ops.c ---- */

/* y, whose derivatives by x are those of the collective op. */
mb_tensor mb__mpi_with_rule(const char *site, mb_mpi *mpi, mb_tensor y, mb_tensor x, int kind, int how);
/* For the specs of ops whose first attribute is the handle's number. */
const char *mb__mpi_why(const void *user, const int64_t *attrs, int nattr);

/* ---- sum.c ---- */

size_t mb__mpi_element(int dtype); /* bytes */

/* to[i] = the reduction over r, in order, of from[r * apart + i]: `ranks` arrays of n elements. */
void mb__mpi_combine(int dtype, int how, void *to, const void *from, int64_t n, int64_t apart, int ranks);

#endif
