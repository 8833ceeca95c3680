/* SPDX-License-Identifier: MIT
 *
 * custom.c - derivatives of the user's for a piece of the tape.
 *
 * A CUSTOM node has the values and the xs as operands and the rule as attributes; the results that follow it,
 * RULED, have a value and that node as operands. A plan sees results alone, which are their first operand.
 *
 * A vmap records the node again with a level more: of K examples, which the values have along a first axis,
 * and some of the xs. The rule is then asked within a vmap (custom_ask.c).
 */
#include "autograd/custom.h"
#include "autograd/custom_rules.h"

/* ---- the rule as attributes ---- */

static int words_of_bytes(size_t bytes)
{
    return (int)((bytes + sizeof(int64_t) - 1) / sizeof(int64_t));
}

static int pack(int m, const mb_custom_rule *rule, int64_t *words)
{
    words[0] = m;
    words[1] = 0;
    memcpy(words + MB_RULE_HEAD, rule, sizeof *rule);
    if (rule->user_bytes)
        memcpy(words + MB_RULE_HEAD + MB_RULE_WORDS, rule->user, rule->user_bytes);
    return MB_RULE_HEAD + MB_RULE_WORDS + words_of_bytes(rule->user_bytes);
}

/* ---- recording ---- */

/* Whether all are tensors of one context; ids. */
static bool resolve(mb_context *ctx, const mb_tensor *ts, int n, const char *what, bool floats, uint32_t *ids)
{
    for (int i = 0; i < n; i++) {
        mb_tensor poison;
        char text[256];
        if (!mb__enter("custom_gradient", (const mb_tensor *[]){&ts[i]}, 1, &poison) || ts[i].ctx != ctx) {
            if (mb_error(ctx) == MB_OK)
                mb__error(ctx, MB_INVALID, "custom_gradient: %s %d is no tensor of this context", what,
                          i + 1);
            return false;
        }
        if (floats && !mb__is_float(mb__at(ctx, ts[i].id)->dtype)) {
            mb__error(ctx, MB_INVALID, "custom_gradient: %s %d is %s; wanted floats", what, i + 1,
                      mb__tensor_text(text, sizeof text, ts[i]));
            return false;
        }
        if (!(ids[i] = mb__resolve(ctx, ts[i])))
            return false;
    }
    return true;
}

static bool right_rule(mb_context *ctx, const mb_custom_rule *rule)
{
    if (!rule->reverse && !rule->forward)
        mb__error(ctx, MB_INVALID, "custom_gradient: the rule has neither a reverse nor a forward function");
    else if (rule->user_bytes > MB_CUSTOM_USER_MOST)
        mb__error(ctx, MB_INVALID, "custom_gradient: %zu bytes of user data; %d are the most",
                  rule->user_bytes, MB_CUSTOM_USER_MOST);
    else if (rule->user_bytes && !rule->user)
        mb__error(ctx, MB_INVALID, "custom_gradient: %zu bytes of user data, and no pointer to them",
                  rule->user_bytes);
    return mb_error(ctx) == MB_OK;
}

/* The CUSTOM node, with its results after it; 0: error set. in: the values, then the xs. */
static uint32_t record(mb_context *ctx, const mb_tensor *in, int m, int n, const int64_t *attrs, int count)
{
    uint32_t custom = mb__record(ctx, MB_OP_CUSTOM, MB_FLOAT32, 0, NULL, in, m + n, attrs, count).id;
    for (int i = 0; custom && i < m; i++) {
        mb__node y = *mb__at(ctx, in[i].id);
        const mb_tensor both[2] = {in[i], mb__handle(ctx, custom)};
        mb__record(ctx, MB_OP_RULED, (mb_dtype)y.dtype, y.rank, y.dim, both, 2, NULL, 0);
    }
    return mb_error(ctx) == MB_OK ? custom : 0;
}

static bool record_rule(mb_context *ctx, const uint32_t *ids, int m, int n, const mb_custom_rule *rule,
                        mb_tensor *out)
{
    int64_t attrs[MB_RULE_HEAD + MB_RULE_WORDS + MB_RULE_USER_WORDS];
    int count = pack(m, rule, attrs);
    MB_TEMPORARY(ctx);
    mb_tensor *in = mb__temporary(ctx, (size_t)(m + n) * sizeof *in);
    for (int i = 0; in && i < m + n; i++)
        in[i] = mb__handle(ctx, ids[i]);
    uint32_t custom = in ? record(ctx, in, m, n, attrs, count) : 0;
    for (int i = 0; custom && i < m; i++)
        out[i] = mb__handle(ctx, custom + 1 + (uint32_t)i);
    return custom != 0;
}

uint32_t mb__custom_batched(mb_context *ctx, uint32_t custom, const mb__operand *in, int64_t K)
{
    mb__node node = *mb__at(ctx, custom);
    int m = mb__custom_values(ctx, &node), n = node.nin - m, more = K < 0 ? 0 : mb__level_words(n);
    MB_TEMPORARY(ctx);
    mb_tensor *operands = mb__temporary(ctx, node.nin * sizeof *operands);
    int64_t *attrs = mb__temporary(ctx, ((size_t)node.nattr + (size_t)more) * sizeof *attrs);
    if (!operands || !attrs)
        return 0;
    memcpy(attrs, mb__attrs(ctx, &node), node.nattr * sizeof *attrs);
    int64_t *level = attrs + node.nattr;
    if (K >= 0) {
        attrs[1]++;
        level[0] = K;
    }
    for (int i = 0; i < m + n; i++) {
        operands[i] = i < m && K >= 0 ? mb__batched(in[i], K) : in[i].t;
        if (!operands[i].id)
            return 0;
        if (i >= m && in[i].batched)
            level[1 + (i - m) / 64] |= (int64_t)((uint64_t)1 << (i - m) % 64);
    }
    return record(ctx, operands, m, n, attrs, node.nattr + more);
}

mb_status mb_custom_gradient_at(const char *site, const mb_tensor *ys, int m, const mb_tensor *xs, int n,
                                mb_custom_rule rule, mb_tensor *out)
{
    mb_context *ctx = ys && m > 0 ? ys[0].ctx : NULL;
    MB_DOOR(ctx, site, MB_THREAD);
    if (!ctx)
        return MB_INVALID;
    if (n < 0 || (n && !xs) || !out || m + (int64_t)n > UINT16_MAX)
        return mb__error(ctx, MB_INVALID, "custom_gradient: got %d values, %d tensors they depend on%s", m, n,
                         out ? "" : ", and nowhere to put the results");
    MB_TEMPORARY(ctx);
    uint32_t *ids = NULL;
    bool ok = mb__enter_context("custom_gradient", ctx) && right_rule(ctx, &rule) &&
              (ids = mb__temporary(ctx, (size_t)(m + n) * sizeof *ids)) &&
              resolve(ctx, ys, m, "value", true, ids) && resolve(ctx, xs, n, "tensor", false, ids + m);
    for (int i = 0; i < m; i++) /* only now: out may be ys or xs */
        out[i] = mb__poison(ctx);
    if (!ok || !record_rule(ctx, ids, m, n, &rule, out))
        for (int i = 0; i < m; i++)
            out[i] = mb__poison(ctx);
    return mb_error(ctx);
}
