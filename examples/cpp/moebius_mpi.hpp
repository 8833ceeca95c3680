/* SPDX-License-Identifier: MIT
 *
 * moebius_mpi.hpp - many processes in C++17: optim/mpi/ranks.h for moebius.hpp.
 *
 *     moebius::Context mb;
 *     moebius::Ranks ranks(mb);                            // begins MPI where the program has not
 *     moebius::Params params(mb, 1);
 *     ...
 *     ranks.broadcast(params);                             // the same start everywhere
 *     moebius::Optimizer optimizer(params, options);
 *     ranks.share_gradients(optimizer);                    // step now takes the mean over ranks
 *
 *     mpirun -n 2 ./program;  c++ program.cpp $(pkg-config --cflags --libs moebius-mpi)
 *
 * Ranks are declared after the context, and before optimisers that share gradients: they end between the two.
 * The library is another than moebius, which is why this is another header. As there, what records throws
 * nothing, and what reads, writes or waits throws the context's error: of ranks that disagree too, on each of
 * them. A rank that an exception ends tells the others, by its destructor.
 */
#ifndef MOEBIUS_MPI_HPP
#define MOEBIUS_MPI_HPP

#include "moebius.hpp"

#include <optim/mpi/ranks.h>

namespace moebius
{

class Ranks
{
  public:
    /* Called by all ranks, as everything below is. */
    explicit Ranks(const Context &context, mb_mpi_options options = {}, const char *file = __builtin_FILE(),
                   int line = __builtin_LINE()) noexcept
        : context_(context.get()), mpi_(mb_mpi_open_at(site(context_, file, line), context_, &options))
    {
    }
    mb_mpi *get() const noexcept
    {
        return mpi_.get();
    }
    int rank() const noexcept
    {
        return mb_mpi_rank(get());
    }
    int size() const noexcept
    {
        return mb_mpi_size(get());
    }
    /* Waits for all, and if one has an error, all throw it: after what one rank did alone. */
    void agree(const char *file = __builtin_FILE(), int line = __builtin_LINE())
    {
        mb_mpi_agree_at(site(context_, file, line), get());
        check(context_);
    }
    mb_mpi_counts counted() const noexcept
    {
        return mb_mpi_counted(get());
    }

    /* Of all ranks' x: their sum (MB_REDUCE_SUM), mean or maximum; all of them, with an axis of ranks in
     * front; of x [size, ...], on rank r the sum of their x[r]; the one of rank `root`. */
    Tensor all_reduce(Arg x, mb_reduction reduction = MB_REDUCE_SUM) noexcept
    {
        return mb_all_reduce_at(x.here(), get(), x, reduction);
    }
    Tensor all_gather(Arg x) noexcept
    {
        return mb_all_gather_at(x.here(), get(), x);
    }
    Tensor reduce_scatter(Arg x) noexcept
    {
        return mb_reduce_scatter_at(x.here(), get(), x);
    }
    Tensor broadcast_from(Arg x, int root) noexcept
    {
        return mb_broadcast_from_at(x.here(), get(), x, root);
    }

    /* Assigns each parameter that of rank `root`, at once; throws. */
    void broadcast(const Params &params, int root = 0, const char *file = __builtin_FILE(),
                   int line = __builtin_LINE())
    {
        mb_params_broadcast_at(site(context_, file, line), get(), params.get(), root);
        check(context_);
    }
    /* The means of gradients over ranks; and those of all later steps of an optimiser. In buckets of so many
     * bytes; 0: the default. */
    Tensors mean_gradients(const Tensors &gradients, std::int64_t bucket_bytes = 0,
                           const char *file = __builtin_FILE(), int line = __builtin_LINE())
    {
        return detail::written(gradients, [&](mb_tensor *gs) {
            std::copy(gradients.begin(), gradients.end(), gs);
            mb_mean_gradients_at(site(context_, file, line), get(), gs, static_cast<int>(gradients.size()),
                                 bucket_bytes);
        });
    }
    void share_gradients(const Optimizer &optimizer, std::int64_t bucket_bytes = 0,
                         const char *file = __builtin_FILE(), int line = __builtin_LINE()) noexcept
    {
        mb_mpi_share_gradients_at(site(context_, file, line), get(), optimizer.get(), bucket_bytes);
    }
    /* Rank 0 writes while the others wait; each reads. All throw if one fails. */
    void save(const Optimizer &optimizer, const std::string &path, const char *file = __builtin_FILE(),
              int line = __builtin_LINE())
    {
        mb_mpi_optimizer_save_at(site(context_, file, line), get(), optimizer.get(), path.c_str());
        check(context_);
    }
    void load(const Optimizer &optimizer, const std::string &path, const char *file = __builtin_FILE(),
              int line = __builtin_LINE())
    {
        mb_mpi_optimizer_load_at(site(context_, file, line), get(), optimizer.get(), path.c_str());
        check(context_);
    }

  private:
    struct Close {
        void operator()(mb_mpi *mpi) const noexcept
        {
            mb_mpi_close_at("moebius::~Ranks", mpi);
        }
    };
    mb_context *context_;
    std::unique_ptr<mb_mpi, Close> mpi_;
};

} // namespace moebius

#endif
