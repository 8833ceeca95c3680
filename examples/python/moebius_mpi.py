# SPDX-License-Identifier: MIT
"""Many processes in Python: the ranks of optim/mpi/ranks.h for moebius.py, by ctypes.

    import moebius, moebius_mpi
    with moebius.Context() as mb:
        ranks = moebius_mpi.Ranks(mb)                # begins MPI
        params = moebius.Params(mb, 1)
        ...
        ranks.broadcast(params)                      # the same start everywhere
        optimizer = moebius.Optimizer("adam", params, lr=1e-3)
        ranks.share_gradients(optimizer)             # step now takes the mean over ranks

    mpirun -n 2 python3 program.py

The library is that of load(path), of $MOEBIUS_MPI_LIBRARY, or the installed moebius-mpi; it is loaded by the first Ranks, or
by load. Ranks end with their context, which a program closes before its end; MPI ends with the last of them, and cannot
begin again. Where ranks disagree, each raises an Error. Left to C: a communicator of
one's own.
"""
import ctypes
import ctypes.util
import os
import sys

import moebius
from moebius import DOUBLE, INT, LONG, POINTER, TENSOR, Tensor, handles_of, structure

STRUCTURES = {s.__name__: s for s in (
    structure("mb_mpi_options", communicator=POINTER, patience=DOUBLE),
    structure("mb_mpi_counts", ops=LONG, bytes=LONG, seconds=DOUBLE, waited=DOUBLE),
)}
REDUCTIONS = "sum mean max".split()
DECLARATIONS = """
mb_mpi *mb_mpi_open_at(const char *, mb_context *, const mb_mpi_options *)
mb_status mb_mpi_close_at(const char *, mb_mpi *)
int mb_mpi_rank(const mb_mpi *)
int mb_mpi_size(const mb_mpi *)
mb_status mb_mpi_agree_at(const char *, mb_mpi *)
mb_tensor mb_all_reduce_at(const char *, mb_mpi *, mb_tensor, mb_reduction)
mb_tensor mb_all_gather_at(const char *, mb_mpi *, mb_tensor)
mb_tensor mb_reduce_scatter_at(const char *, mb_mpi *, mb_tensor)
mb_tensor mb_broadcast_from_at(const char *, mb_mpi *, mb_tensor, int)
mb_status mb_params_broadcast_at(const char *, mb_mpi *, mb_params *, int)
mb_status mb_mean_gradients_at(const char *, mb_mpi *, mb_tensor *, int, int64_t)
mb_status mb_mpi_share_gradients_at(const char *, mb_mpi *, mb_optimizer *, int64_t)
mb_status mb_mpi_optimizer_save_at(const char *, mb_mpi *, const mb_optimizer *, const char *)
mb_status mb_mpi_optimizer_load_at(const char *, mb_mpi *, mb_optimizer *, const char *)
mb_mpi_counts mb_mpi_counted(const mb_mpi *)
""".strip().splitlines()

moebius.INSIDE.add(sys._getframe().f_code.co_filename)
library = None  # of load


def load(path=None):
    """The library, once for all. OSError if there is none."""
    global library
    if library is None:
        moebius.load()
        path = path or os.environ.get("MOEBIUS_MPI_LIBRARY") or ctypes.util.find_library("moebius-mpi")
        if not path:
            raise OSError("no libmoebius-mpi is installed; set MOEBIUS_MPI_LIBRARY to its path")
        loaded = ctypes.CDLL(path, ctypes.RTLD_GLOBAL)  # what MPI loads itself looks for MPI's names
        library = moebius.declare(loaded, DECLARATIONS, {"mb_reduction": INT, **moebius.TYPES, **STRUCTURES})
    return library


class Ranks:
    """All processes that mpirun began. They record the same collective ops, in the same order."""

    def __init__(self, context, patience=0):
        """patience: the seconds after which waiting for others is an error; 0: never."""
        options = STRUCTURES["mb_mpi_options"](None, patience)
        pointer = load().mb_mpi_open_at(context.site(), context.pointer, ctypes.byref(options))
        self.context, self._pointer = context, context.own(lambda mpi: library.mb_mpi_close_at(None, mpi), pointer)

    @property
    def pointer(self):
        self.context.pointer  # raises if it is closed
        return self._pointer

    @property
    def rank(self):
        return library.mb_mpi_rank(self.pointer)

    @property
    def size(self):
        return library.mb_mpi_size(self.pointer)

    def counted(self):
        """What was done so far: ops, bytes, seconds, waited."""
        return library.mb_mpi_counted(self.pointer)

    def agree(self):
        """Waits for all, and if one has an error, all raise it: after what one rank did alone."""
        self._do("mpi_agree")

    def all_reduce(self, x, reduction="sum"):
        """The sum, mean or max of all ranks' x."""
        if reduction not in REDUCTIONS:
            raise ValueError(f"all_reduce: {reduction!r} is none of {', '.join(REDUCTIONS)}")
        return self._record("all_reduce", x, REDUCTIONS.index(reduction))

    def all_gather(self, x):
        """The x of all, with an axis of ranks in front."""
        return self._record("all_gather", x)

    def reduce_scatter(self, x):
        """Of x [size, ...]: on rank r the sum of all x[r]."""
        return self._record("reduce_scatter", x)

    def broadcast_from(self, x, root):
        """The x of rank root."""
        return self._record("broadcast_from", x, root)

    def broadcast(self, params, root=0):
        """Assigns each parameter that of rank root, at once."""
        self._do("params_broadcast", params.pointer, root)

    def mean_gradients(self, gradients, bucket_bytes=0):
        """Their means over ranks, in buckets of so many bytes; 0: the default."""
        gs = handles_of(gradients)
        self._do("mean_gradients", gs, len(gs), bucket_bytes)
        return [Tensor(self.context, TENSOR.from_buffer_copy(g)) for g in gs]

    def share_gradients(self, optimizer, bucket_bytes=0):
        """From now on its steps go along these means."""
        self._do("mpi_share_gradients", optimizer.pointer, bucket_bytes)

    def save(self, optimizer, path):
        """Rank 0 writes, while the others wait; all raise if one fails."""
        self._do("mpi_optimizer_save", optimizer.pointer, os.fsencode(path))

    def load(self, optimizer, path):
        self._do("mpi_optimizer_load", optimizer.pointer, os.fsencode(path))

    def _record(self, name, x, *arguments):
        function = getattr(library, f"mb_{name}_at")
        return self.context.tensor_of(function(self.context.site(), self.pointer, x.handle, *arguments))

    def _do(self, name, *arguments):
        self.context.checked(getattr(library, f"mb_{name}_at")(self.context.site(), self.pointer, *arguments))
