/* SPDX-License-Identifier: MIT
 *
 * vulkan.h - the map of the vulkan backend. Layers from the lowest up; each uses only those before it.
 *
 *   device/               one device, its memory and its queue
 *     call.c              errors, checked Vulkan calls; the validation layer
 *     queue.c             submitting commands, waiting
 *     quirks.c            known driver bugs and limits that drivers do not report
 *     device.c            finding, choosing and opening a device
 *     memory.c            allocation from a few large blocks; the table
 *   pipeline/             shaders to pipelines
 *     module.c            settings that SPIR-V can express and GLSL cannot
 *     kept.c              files kept for later runs
 *     glsl.c              GLSL compiled at run time
 *     pipeline.c          pipelines, cached by content and on disk
 *     assemble.c          SPIR-V (and its GLSL twin) from a stream of instructions
 *   program/              plans to commands
 *     dispatch.c          dispatches and their regions of the table
 *     emit.c              a pass as a stream of instructions
 *     pass.c              a pass as a dispatch
 *     split.c             kernels cut into passes that one dispatch can run
 *     custom.c            ops of the user's
 *     product.c           which kernel a matrix product takes, and its dispatches
 *     matrix.c            Cholesky factors, triangular solves
 *     axis_and_index.c    gather, scatter, sort, scan
 *     transfer.c          values to the device and back
 *     program.c           creating, finishing and freeing a program; where its values lie
 *     loop.c              loops, whose bodies are programs inside of a program
 *     hazard.c            where barriers are needed
 *     guard.c             whether kernels write past their values
 *     record.c            a program's dispatches as commands
 *     run.c               running a program
 *     product_check.c     product kernels, tested on the device before they are used
 *     compile.c           a plan to a program
 *   backend.c             the backend that the engine sees
 *   shaders/              GLSL: kernels written by hand, and the functions of generated ones
 *
 * How a value is found. All memory is in at most `caps.blocks` storage buffers, bound once in one descriptor
 * set beside the table. A program owns a part of the table: its bound scalars, and a region for each
 * dispatch, which begins with block and word of each value that it accesses. When a value lies elsewhere than
 * in the last run (a new batch, a parameter's next buffer) the host patches those words. Commands, pipelines
 * and descriptors stay as they were recorded. What lies elsewhere at each step of a loop is patched on the
 * device: a step begins with a dispatch of loop.comp. So the commands of a step are always the same, and a
 * batch of them is submitted as often as it takes, many together.
 *
 * One run of a context is in flight at most: a run returns when its work is submitted, and the next run,
 * upload or download waits for it.
 */
#ifndef MB_VULKAN_H
#define MB_VULKAN_H

#include "backends/vulkan/program/program.h"

extern const mb__backend mb__backend_vulkan;

#endif
