/* SPDX-License-Identifier: MIT
 *
 * ranks.h - many processes by MPI: the library moebius-mpi, beside libmoebius, which knows nothing of it.
 *
 *     mb_mpi *mpi = mb_mpi_open(mb, NULL);                // begins MPI where the program has not
 *     ...
 *     mb_params_broadcast(mpi, params, 0);                // the same start everywhere
 *     mb_mpi_share_gradients(mpi, optimizer, 0);          // from now on mb_step takes the mean over ranks
 *     for (...) {
 *         mb_scope scope = mb_scope_begin(mb);
 *         mb_step(optimizer, loss_of(this_rank's_share_of_the_batch));
 *         mb_scope_end(scope);
 *     }
 *     mb_mpi_optimizer_save(mpi, optimizer, "checkpoint.safetensors");    // rank 0 writes
 *     mb_mpi_close(mpi);                                  // before mb_close
 *
 *     mpirun -n 2 ./program;  cc program.c $(pkg-config --cflags --libs moebius-mpi)
 *
 * Every rank runs the same program and records the same collective ops, in the same order, on tensors of the
 * same shape and dtype. Those that a flush needs it runs in the order in which they were recorded, each once,
 * whatever else its plan moves, merges or leaves out (they are serial, tensor/custom_op.h). So ranks that ask
 * for the same results in the same flush meet in the same order, and none waits for another that waits for
 * it. Data may differ between them, and so may what is recorded beside. A read on rank 0 alone of what needs
 * a collective op is the usual mistake.
 *
 * Ranks that do not agree are an error on each of them, with a sentence that says what two of them were at,
 * and no hang: before any data moves, the ranks compare what they are about to do. After that the handle is
 * of no use. A rank whose handle is closed in the meantime counts as one that does something else, and its
 * context's error, if any, is told to all. A rank that ends without closing is noticed by mpirun, which tells
 * it and ends the others: so a program that has an error to tell prints it and exits. The library ends
 * nothing. With mb_mpi_options.patience, waiting too long is an error as well.
 *
 * Every rank has the same bits of a sum, in every run with as many ranks: MPI only moves data here. What is
 * added is added by this library, in the order of ranks, by plain IEEE additions: of few bytes by each rank
 * for itself, of many by one rank for all. float32 is added in double precision and rounded once.
 *
 * Derivatives are those of the sum of what all ranks derive (each rank's own loss counts), and are again ops
 * of this header, to any order: of a sum the sum of the cotangents, of all_gather reduce_scatter, and the
 * other way round. They must be recorded by all ranks.
 *
 * Under a vmap, ops are done for one example after the other. On vulkan they run on the host, and so not in
 * the body of a scan.
 *
 * What it costs, on paper, with P ranks, n bytes, latency a (5 microseconds) and bandwidth b (10 GB/s):
 *
 * Agreeing, before each op, is an allgather of 24 bytes a rank: a log2 P + 24 P / b, 50 microseconds on 1000
 * ranks. A sum, mean or maximum of few bytes (P n up to 64 KiB) is one more allgather.
 *
 * One of many bytes is an all-to-all of n / P to each rank, the sum of P parts, and an allgather: 2 n / b,
 * the least that any algorithm needs, as a ring does. A ring has 2 (P - 1) steps one after the other, 10 ms
 * on 1000 ranks. The messages here do not wait for each other, but there are 2 (P - 1) of them, of about 1
 * microsecond each to post and match: 2 ms. A tree, 2 log2 P (a + n / b), has fewer, and moves n at each of
 * its levels: on 1000 ranks it is better below 1 MB. So 100 MB of gradients are 20 ms of wires, and in
 * buckets of 8 MB as much of messages; the default bucket grows with P for that. Each sum under way takes 3 n
 * of memory beside the tape: what is sent, what came, the result.
 *
 * On 10^5 ranks the parts of an all-to-all would be smaller than a packet, and its messages 200 ms. Sums
 * would have to be made within groups of some hundred ranks first, then between those of the same number,
 * both as here: an order as fixed as this one. Agreement would compare a hash by a reduction over a tree, in
 * place of gathering 2.4 MB. And ranks that die, several a day, would have to be left behind by those that go
 * on, for which this version of MPI has no means.
 *
 * Stability: as in tensor.h. Option structs may grow at their ends.
 */
#ifndef MB_RANKS_H
#define MB_RANKS_H

#include "autograd/autograd.h"
#include "optim/optim.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------- processes -- */

typedef struct mb_mpi mb_mpi;

typedef struct mb_mpi_options {
    /* The ranks that take part: a pointer to an MPI_Comm, which is duplicated, after MPI_Init_thread by the
     * caller. NULL: all of MPI_COMM_WORLD. */
    const void *communicator;
    double patience; /* seconds after which waiting for others is an error; 0: never */
} mb_mpi_options;

/* Called by all ranks. MPI is begun where that has not been done, and ended by the close of the last handle
 * then; a program that has called MPI_Init itself also calls MPI_Finalize. What MPI itself has to say (it
 * cannot be begun, as outside of mpirun on some systems) may end the process: then it is MPI that does.
 * MPI_THREAD_FUNNELED is enough where flushes are asked for by the thread that began MPI. options: NULL, or
 * read at once. NULL after an error; NULL is accepted by every function, which then has an error or returns
 * rank 0 of 1. */
MB_API mb_mpi *mb_mpi_open_at(const char *site, mb_context *ctx, const mb_mpi_options *options);
#define mb_mpi_open(...) mb_mpi_open_at(MB_HERE, __VA_ARGS__)
/* Called by all ranks, before mb_close. What was recorded with the handle and is not computed yet cannot be
 * any more. The context's error, if there is one, is told to the ranks that are elsewhere, and the status is
 * that of the context. */
MB_API mb_status mb_mpi_close_at(const char *site, mb_mpi *mpi);
#define mb_mpi_close(...) mb_mpi_close_at(MB_HERE, __VA_ARGS__)
MB_API int mb_mpi_rank(const mb_mpi *mpi); /* 0 ... size - 1 */
MB_API int mb_mpi_size(const mb_mpi *mpi);

/* Waits for all ranks, and compares their contexts' errors: if one has an error, all have one, with its
 * sentence and rank. For what one rank does alone, such as reading a file. Nothing is computed. */
MB_API mb_status mb_mpi_agree_at(const char *site, mb_mpi *mpi);
#define mb_mpi_agree(...) mb_mpi_agree_at(MB_HERE, __VA_ARGS__)

/* ------------------------------------------------------------------------------------------------- ops -- */

typedef enum mb_reduction {
    MB_REDUCE_SUM = 0,
    MB_REDUCE_MEAN, /* floats; divided before rounding */
    MB_REDUCE_MAX,  /* NaN where one has NaN; its derivative is shared by those that have the maximum */
} mb_reduction;

/* On each rank the reduction over all ranks of their x, shaped like x. Floats, int32 (wraps). Halves go as
 * float32 do, and the result is rounded. */
MB_API mb_tensor mb_all_reduce_at(const char *site, mb_mpi *mpi, mb_tensor x, mb_reduction reduction);
#define mb_all_reduce(...) mb_all_reduce_at(MB_HERE, __VA_ARGS__)
/* [size, shape of x]: the x of all ranks, in order. These three dtypes, and bool. */
MB_API mb_tensor mb_all_gather_at(const char *site, mb_mpi *mpi, mb_tensor x);
#define mb_all_gather(...) mb_all_gather_at(MB_HERE, __VA_ARGS__)
/* x [size, ...]: on rank r the sum over all ranks of their x[r]. */
MB_API mb_tensor mb_reduce_scatter_at(const char *site, mb_mpi *mpi, mb_tensor x);
#define mb_reduce_scatter(...) mb_reduce_scatter_at(MB_HERE, __VA_ARGS__)
/* The x of rank `root`, on each; the others' say its shape and dtype. The cotangents of all add up on the
 * root. (mb_broadcast is another thing: one value for many places, on one rank.) */
MB_API mb_tensor mb_broadcast_from_at(const char *site, mb_mpi *mpi, mb_tensor x, int root);
#define mb_broadcast_from(...) mb_broadcast_from_at(MB_HERE, __VA_ARGS__)

/* -------------------------------------------------------------------------------------------- training -- */

/* Assigns each parameter, frozen ones included, that of rank `root`; computed at once. */
MB_API mb_status mb_params_broadcast_at(const char *site, mb_mpi *mpi, mb_params *p, int root);
#define mb_params_broadcast(...) mb_params_broadcast_at(MB_HERE, __VA_ARGS__)

/* gs[n], of one float dtype, become their means over all ranks. From the last to the first, as a backward
 * sweep makes them, they are put together to buckets of about `bucket_bytes`; 0: 1 MiB, or 8 KiB a rank if
 * that is more. A plan begins each bucket right after the last of its gradients is there, and goes on with
 * the sweep; it waits where a mean is first needed. MPI moves data while it is called, which is at each
 * further bucket and in that wait: what of a bucket the network does by itself, or is done at those calls, is
 * hidden. Of losses that are means of equal shares of a batch, it is the gradient of the whole batch. */
MB_API mb_status mb_mean_gradients_at(const char *site, mb_mpi *mpi, mb_tensor *gs, int n,
                                      int64_t bucket_bytes);
#define mb_mean_gradients(...) mb_mean_gradients_at(MB_HERE, __VA_ARGS__)
/* From now on all steps of the optimiser do that to their gradients (mb_optimizer_set_through), in buckets of
 * the size last given for the handle: clip_norm is then of the norm of the mean, skip of its being finite,
 * and so the same on all ranks. Parameters that were equal stay equal, bit by bit. Until the handle is
 * closed; then give it up by mb_optimizer_set_through(opt, NULL, NULL), or free it. */
MB_API mb_status mb_mpi_share_gradients_at(const char *site, mb_mpi *mpi, mb_optimizer *opt,
                                           int64_t bucket_bytes);
#define mb_mpi_share_gradients(...) mb_mpi_share_gradients_at(MB_HERE, __VA_ARGS__)

/* mb_optimizer_save by rank 0, while all others wait; mb_optimizer_load by each, which must all see the file.
 * Of another number of ranks or of none, it is the same file: ranks have nothing of their own in it. All
 * ranks fail if one does, and say why. What has been assigned is computed first, on all. */
MB_API mb_status mb_mpi_optimizer_save_at(const char *site, mb_mpi *mpi, const mb_optimizer *opt,
                                          const char *path);
#define mb_mpi_optimizer_save(...) mb_mpi_optimizer_save_at(MB_HERE, __VA_ARGS__)
MB_API mb_status mb_mpi_optimizer_load_at(const char *site, mb_mpi *mpi, mb_optimizer *opt, const char *path);
#define mb_mpi_optimizer_load(...) mb_mpi_optimizer_load_at(MB_HERE, __VA_ARGS__)

/* What the handle has done since it was opened, for measurements: collective ops, bytes that this rank gave
 * to them, and the seconds that flushes spent in them, of which `waited` in waits for what was not there yet.
 */
typedef struct mb_mpi_counts {
    int64_t ops, bytes;
    double seconds, waited;
} mb_mpi_counts;
MB_API mb_mpi_counts mb_mpi_counted(const mb_mpi *mpi);

#ifdef __cplusplus
}
#endif
#endif
