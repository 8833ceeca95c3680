/* SPDX-License-Identifier: MIT
 *
 * moebius.h - automatic differentiation on a tape that differentiates through itself.
 *
 * The manual is in nineteen headers; read them in this order:
 *   tensor/tensor.h             values, ops, errors, scopes: what is recorded
 *   tensor/linalg.h             triangles, Cholesky factors, linear systems, least squares
 *   tensor/scan.h               loops of any length as one node
 *   tensor/taps.h               looking inside: activations by name
 *   tensor/custom_op.h          ops of one's own, computed by C and GLSL
 *   tensor/windows.h            padding, sliding windows
 *   tensor/files/files.h        safetensors, .npy, CSV, IDX, batches made ahead by threads
 *   autograd/autograd.h         derivatives, recorded too
 *   autograd/custom.h           derivatives of one's own
 *   autograd/implicit.h         what solves an equation, and its derivatives
 *   autograd/mixed.h            gradients within loops, differentiated in the mode that takes less
 *   autograd/vmap.h             a function of one example, applied to many
 *   backends/engine/backends.h  contexts, and where numbers are made
 *   optim/optim.h               parameters, optimisers and schedules
 *   layers/layers.h             what people stack
 *   layers/conv.h               convolutions, pools, their norms, dropout
 *   layers/equilibrium.h        a layer of infinite depth
 *   layers/recurrent.h          layers that go through a sequence step by step
 *   layers/mesa.h               layers that solve least squares at each token
 *   tests/kit/check.h           tests of functions and layers of one's own
 */
#ifndef MOEBIUS_H
#define MOEBIUS_H

#define MB_VERSION_MAJOR 0
#define MB_VERSION_MINOR 1
#define MB_VERSION_PATCH 0

#include "tensor/tensor.h"
#include "tensor/linalg.h"
#include "tensor/scan.h"
#include "tensor/taps.h"
#include "tensor/custom_op.h"
#include "tensor/windows.h"
#include "tensor/files/files.h"
#include "autograd/autograd.h"
#include "autograd/custom.h"
#include "autograd/implicit.h"
#include "autograd/mixed.h"
#include "autograd/vmap.h"
#include "backends/engine/backends.h"
#include "layers/layers.h"
#include "layers/conv.h"
#include "layers/equilibrium.h"
#include "layers/mesa.h"
#include "layers/recurrent.h"
#include "optim/optim.h"
#include "tests/kit/check.h"

#endif
