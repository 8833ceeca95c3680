/* SPDX-License-Identifier: MIT
 *
 * taps.h - looking inside: activations are told by name, and taps listen.
 *
 * A layer tells what may be of interest, and goes on with what it gets back:
 *
 *     h = mb_tell(h, "hidden");
 *
 * Without a tap that is h, and costs a comparison. With one the tensor can be collected, read, watched,
 * replaced, and differentiated by; no layer has to be rewritten for it. The layers of the library tell the
 * names that their headers list; a layer of the user's tells its own in the same way.
 *
 *     mb_tensor scores[DEPTH], g[DEPTH];
 *     mb_tap tap = mb_tap_collect(mb, "blocks.*.attention.scores", scores, DEPTH);
 *     mb_tensor loss = loss_of(model, x);
 *     mb_tap_end(tap);
 *     mb_grad(loss, scores, DEPTH, g);            // ordinary tensors of this recording
 *
 * Names. The full name is the open prefixes and the told name, joined by dots: "blocks.3.attention.scores".
 * Who owns several parts opens a prefix around each (mb_prefix_begin), with the names that their parameters
 * have.
 *
 * Patterns, here and for parameters (optim.h): "*" stands for any text without a dot; a pattern matches the
 * names that it equals and those that begin with it and a dot; "" matches all. So "blocks.2" is everything in
 * that block, and "blocks.*.output" the outputs of all.
 *
 * Several taps hear in the order of their beginning, each what the one before it left. What a tap's function
 * records itself is told to nobody, and it begins and ends no taps.
 *
 * What is collected is an ordinary tensor: it is stale where others of its scope are. A tap ends in the scope
 * that it was begun in, or within. In scans and vmaps that begin while a tap is open, its function gets the
 * tensors of one step or example, and what it collects is brought out at their end: with one more axis in
 * front, of steps or examples, for each that is around it. In checkpoints nothing is different, and a tap's
 * function that calls mb_keep_through (autograd.h) chooses what these store by name.
 *
 * Differentiability: telling and taps are not ops. Stability: as in tensor.h.
 */
#ifndef MB_TAPS_H
#define MB_TAPS_H

#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* x, or what a tap puts in its place, of the same shape and dtype. */
MB_API mb_tensor mb_tell_at(const char *site, mb_tensor x, const char *name);
#define mb_tell(...) mb_tell_at(MB_HERE, __VA_ARGS__)

#define MB_NO_INDEX (-1)

/* Until the end, what is told has the prefix "name.", or with an index of 0 or more "name.INDEX.". `name`
 * must be there until then. Prefixes nest, and end in the scope that they begin in. */
typedef struct mb_prefix {
    mb_context *ctx;
    uint32_t depth; /* how many were open before */
} mb_prefix;
MB_API mb_prefix mb_prefix_begin_at(const char *site, mb_context *ctx, const char *name, int64_t index);
#define mb_prefix_begin(...) mb_prefix_begin_at(MB_HERE, __VA_ARGS__)
MB_API void mb_prefix_end(const mb_prefix *prefix); /* and those begun inside it */
/* The same until the end of the block: MB_PREFIX(x.ctx, "attention", MB_NO_INDEX). (In C++ below.) */
#if defined(__GNUC__) && !defined(__cplusplus)
#define MB_PREFIX(ctx, name, index)                                                                          \
    const mb_prefix mb_prefix_here_ __attribute__((cleanup(mb_prefix_end), unused)) =                        \
        mb_prefix_begin(ctx, name, index)
#endif

/* Hears x under its full name, and returns x, or what takes its place, of the same shape and dtype; a null
 * tensor stands for x. */
typedef mb_tensor (*mb_tap_function)(void *user, const char *name, mb_tensor x);

typedef struct mb_tap {
    mb_context *ctx;
    uint32_t serial;
} mb_tap;

/* Until its end, a tap hears all names that its pattern matches. Patterns, and the arrays of tensors below,
 * must be there until then. */
MB_API mb_tap mb_tap_begin_at(const char *site, mb_context *ctx, const char *pattern,
                              mb_tap_function function, void *user);
#define mb_tap_begin(...) mb_tap_begin_at(MB_HERE, __VA_ARGS__)
/* The same where a function gives back a status, and what takes x's place by the address of its handle: for
 * languages whose functions cannot give C a struct back, and for functions that may fail. Another status than
 * MB_OK is the error of the call that told x. */
typedef mb_status (*mb_tap_through_function)(void *user, const char *name, mb_tensor *x);
MB_API mb_tap mb_tap_through_at(const char *site, mb_context *ctx, const char *pattern,
                                mb_tap_through_function function, void *user);
#define mb_tap_through(...) mb_tap_through_at(MB_HERE, __VA_ARGS__)
/* Writes the tensors to ts, in the order in which they are told, at most `capacity` of them; null tensors
 * where there were fewer. */
MB_API mb_tap mb_tap_collect_at(const char *site, mb_context *ctx, const char *pattern, mb_tensor *ts,
                                int capacity);
#define mb_tap_collect(...) mb_tap_collect_at(MB_HERE, __VA_ARGS__)
/* Puts ts[k] in place of the k-th tensor that is told, and leaves those for which it is a null tensor, and
 * those after the n-th. If fewer than n are told, that is an error at the tap's end. */
MB_API mb_tap mb_tap_replace_at(const char *site, mb_context *ctx, const char *pattern, const mb_tensor *ts,
                                int n);
#define mb_tap_replace(...) mb_tap_replace_at(MB_HERE, __VA_ARGS__)
/* How many tensors it heard, also those beyond a capacity; -1 after an error. Taps end in any order. */
MB_API int mb_tap_end_at(const char *site, mb_tap tap);
#define mb_tap_end(...) mb_tap_end_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}

class mb_prefix_held_
{
  public:
    mb_prefix_held_(const char *site, mb_context *ctx, const char *name, int64_t index) noexcept
        : prefix_(mb_prefix_begin_at(site, ctx, name, index))
    {
    }
    ~mb_prefix_held_()
    {
        mb_prefix_end(&prefix_);
    }
    mb_prefix_held_(const mb_prefix_held_ &) = delete;
    mb_prefix_held_ &operator=(const mb_prefix_held_ &) = delete;

  private:
    const mb_prefix prefix_;
};
#define MB_PREFIX(ctx, name, index) const mb_prefix_held_ mb_prefix_here_(MB_HERE, ctx, name, index)
#endif
#endif
