/* SPDX-License-Identifier: MIT
 *
 * mesa_tasks.c - sequences of linear and nonlinear systems, each with a map of its own (2309.05858, sections
 * 3 and 5; what the text leaves open as in the authors' code). */
#include <math.h>

#include "mesa.h"

static const double noise = 0.01;

const task_kind tasks[TASKS] = {
    [FULL] = {"full", "fully observed", SLOT, SLOT, 10},
    [PARTIAL] = {"partial", "partially observed", 15, 5, 10},
    [NONLINEAR] = {"nonlinear", "nonlinear", SLOT, SLOT, 10},
    [CONTRACTING] = {"contracting", "contracting", SLOT, SLOT, 2},
    [FIXED] = {"fixed", "one teacher for all", SLOT, SLOT, 10},
};

/* What all sequences have in common. */
static mb_key common_key(uint64_t which)
{
    return mb_key_fold(mb_key_of(20230911), which);
}

/* V diag(lambda) V^-1 for a normal V; one of lambda is 0.9, the others are uniform on [0.3, 0.9). Some V are
 * nearly singular: the inverse is computed in double precision. */
static mb_tensor contracting(mb_context *mb, mb_key key, mb_dtype dtype, int64_t count, int64_t n)
{
    mb_tensor V = mb_normal(mb, mb_key_fold(key, 0), dtype, MB_SHAPE(count, n, n));
    mb_tensor u = mb_uniform(mb, mb_key_fold(key, 1), dtype, MB_SHAPE(count, 1, n - 1));
    mb_tensor parts[2] = {mb_full(mb, dtype, MB_SHAPE(count, 1, 1), 0.9), mb_add(mb_mul(u, 0.6), 0.3)};
    mb_tensor inverse = mb_lstsq(mb_cast(V, MB_FLOAT64), mb_eye(mb, MB_FLOAT64, n), MB_EMPTY(mb_tensor));
    mb_tensor scaled = mb_mul(V, mb_concat(parts, 2, 2));
    return mb_cast(mb_matmul(mb_cast(scaled, MB_FLOAT64), inverse), dtype);
}

static mb_tensor transitions(mb_context *mb, mb_key key, task which, mb_dtype dtype, int64_t count, int64_t n)
{
    if (which == CONTRACTING)
        return contracting(mb, key, dtype, count, n);
    if (which == FIXED)
        return mb_orthogonal(mb, common_key(0), dtype, MB_SHAPE(1, n, n));
    return mb_orthogonal(mb, key, dtype, MB_SHAPE(count, n, n));
}

/* The nonlinear task's features of a state. How wide A is the paper does not say; twice the state here. */
typedef struct teacher {
    mb_tensor A, B; /* [2n,n], [n,2n] */
} teacher;

static teacher the_teacher(mb_context *mb, mb_dtype dtype, int64_t n)
{
    return (teacher){mb_mul(mb_normal(mb, common_key(1), dtype, MB_SHAPE(2 * n, n)), 1.1),
                     mb_mul(mb_normal(mb, common_key(2), dtype, MB_SHAPE(n, 2 * n)), 1.1)};
}

/* B gelu(A h), scaled to length 1; h: [...,n,1]. */
static mb_tensor features(teacher t, mb_tensor h)
{
    mb_tensor y = mb_matmul(t.B, mb_gelu(mb_matmul(t.A, h)));
    return mb_div(y, mb_norm(y, MB_KEEP(-2)));
}

/* h_1, .. h_{length+1}: [length+1,B,n]. */
static mb_tensor states(mb_context *mb, mb_key key, task which, mb_dtype dtype, int64_t count, int64_t n,
                        int64_t length)
{
    mb_tensor W = transitions(mb, mb_key_fold(key, 0), which, dtype, count, n), all[2];
    mb_tensor start = mb_uniform(mb, mb_key_fold(key, 1), dtype, MB_SHAPE(count, n, 1));
    mb_tensor disturbed = mb_normal(mb, mb_key_fold(key, 2), dtype, MB_SHAPE(length, count, n, 1));
    mb_tensor h = mb_sub(mb_mul(start, 2.0), 1.0);
    all[0] = mb_unsqueeze(h, 0);
    teacher same = the_teacher(mb, dtype, n); /* outside of the loop, in which each step's draw is another */
    mb_scan s = mb_scan_begin(mb, length);
    mb_scan_carry(s, &h);
    mb_tensor more = mb_mul(mb_scan_slice(s, disturbed), noise);
    h = mb_add(mb_matmul(W, which == NONLINEAR ? features(same, h) : h), more);
    h = mb_clip_value(h, tasks[which].clip);
    mb_scan_stack(s, h, &all[1]);
    mb_scan_end(s);
    return mb_squeeze(mb_concat(all, 2, 0), 3);
}

mb_tensor draw_sequences(mb_context *mb, mb_key key, task which, mb_dtype dtype, int64_t count)
{
    const task_kind *k = &tasks[which];
    mb_tensor h = states(mb, key, which, dtype, count, k->state, LENGTH);
    if (which != PARTIAL)
        return mb_permute(h, MB_AXES(1, 0, 2));
    mb_tensor C = mb_normal(mb, mb_key_fold(key, 3), dtype, MB_SHAPE(count, k->seen, k->state));
    return mb_einsum("tbn,bsn->bts", h, mb_mul(C, 0.5));
}

mb_tensor draw_systems(mb_context *mb, mb_key key, int64_t count, int64_t n, int64_t length)
{
    return mb_permute(states(mb, key, FULL, MB_FLOAT32, count, n, length), MB_AXES(1, 0, 2));
}

mb_tensor delayed(mb_tensor t, int64_t by)
{
    return mb_pad(mb_slice(t, 1, 0, mb_dim(t, 1) - by, 1), 1, by, 0);
}

/* What s_{t+1} is a linear function of, but for noise; or nearly: [B,length,...]. */
static mb_tensor regressors(mb_tensor now, task which)
{
    mb_tensor last[RECENT] = {now};
    if (which == NONLINEAR)
        return mb_squeeze(
            features(the_teacher(now.ctx, mb_dtype_of(now), mb_dim(now, 2)), mb_unsqueeze(now, 3)), 3);
    if (which != PARTIAL)
        return now;
    for (int i = 1; i < RECENT; i++)
        last[i] = delayed(now, i);
    return mb_concat(last, RECENT, 2);
}

pairs pairs_of(mb_tensor sequences, task which)
{
    int64_t length = mb_dim(sequences, 1) - 1;
    mb_tensor now = mb_slice(sequences, 1, 0, length, 1);
    pairs p = {.now = now, .before = delayed(now, 1), .next = mb_slice(sequences, 1, 1, length, 1)};
    p.recent = regressors(now, which);
    p.recent_before = delayed(p.recent, 1);
    return p;
}

mb_tensor loss_by_token(mb_tensor guess, mb_tensor next)
{
    mb_tensor squares = mb_sum(mb_square(mb_sub(guess, next)), MB_AXES(2));
    return mb_mul(mb_mean(squares, MB_AXES(0)), 0.5);
}
