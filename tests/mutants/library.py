# SPDX-License-Identifier: MIT
"""The library, broken: see mutants.py. Each command runs the suites that should notice, on reference and cpu."""


def suite(folder, glob):
    return f"{{build}}/tests/{folder}/{folder}_test --fail-fast --filter '{glob}'"


COMMANDS = {
    "autograd": suite("autograd", "*/*"),
    "curvature": suite("autograd", "@(curvature|nested)/*"),
    "vmap": suite("autograd", "vmap*/*"),
    "dtype": suite("tensor", "dtype/*"),
    "axis": suite("tensor", "axis/*"),
    "contract": suite("tensor", "contract/*"),
    "movement": suite("tensor", "movement/*"),
    "reduce": suite("tensor", "reduce/*"),
    "tensor": suite("tensor", "*/*"),
    "random": suite("tensor", "@(random|samplers)/*"),
    "layers": suite("layers", "*/*"),
    "optim": suite("optim", "*/*"),
    "arena": suite("backends", "arena/*"),
    "debug": suite("backends", "simplify/debug*"),
    "fusion": suite("backends", "fusion/*"),
    "pages": suite("backends", "pages/*"),
    "plan": suite("backends", "@(simplify|fuzz|replay|fusion|pads)/*"),
    "backends": suite("backends", "!(vulkan*)/*"),
    "slices": suite("backends", "slices/*"),
    "scans in slices": "env MB_ARENA_BYTES=1 " + suite("autograd", "@(scan_fuzz|nested)/*"),
}

ELEMENTWISE, MATRIX, STRUCTURE = (f"autograd/rules_{f}.c" for f in ("elementwise", "matrix", "structure"))
SIMPLIFY, ARENA, SEGMENT = "backends/plan/simplify.c", "backends/plan/arena.c", "backends/engine/segment.c"
GAPS = "backends/plan/gaps.c"
ALONG, ALONG_LOOPS = "backends/cpu/axis.c", "backends/cpu/axis_loops.c"
GEMM, RUN, MAKE, MOVE = (f"backends/cpu/{f}.c" for f in ("gemm", "kernel_run", "kernel_make", "kernel_move"))

RULES = [
    ("rsqrt: a half too much", ELEMENTWISE, "UNARY_RULE(RSQRT, MUL(MUL(v, lit(s, -0.5))", "UNARY_RULE(RSQRT, MUL(MUL(v, lit(s, -1))",
     "autograd"),
    ("reciprocal: the sign", ELEMENTWISE, "UNARY_RULE(RECIP, mb_neg(MUL(v, MUL(y, y))))", "UNARY_RULE(RECIP, MUL(v, MUL(y, y)))",
     "autograd"),
    ("acos: the sign", ELEMENTWISE, "UNARY_RULE(ACOS, mb_neg(MUL(v, mb_rsqrt(MUL(UNIT(mb_neg), UNIT())))))",
     "UNARY_RULE(ACOS, MUL(v, mb_rsqrt(MUL(UNIT(mb_neg), UNIT()))))", "autograd"),
    ("atan far from 0 to the first order only", ELEMENTWISE, "mb_where(f.there, MUL(r, r), near)",
     "mb_where(f.there, mb_stop_gradient(MUL(r, r)), near)", "autograd"),
    ("pow at exponent 0 is constant in it", ELEMENTWISE, "none = mb_eq(b, zero);", "none = mb_lt(b, mb_sub(zero, one));",
     "autograd"),
    ("pow: the exponent is a constant", ELEMENTWISE, "mb_where(positive, b, mb_stop_gradient(b))", "mb_stop_gradient(b)", "autograd"),
    ("division by itself: the first order only", ELEMENTWISE, "mb_neg(mb_div(MUL(v, y), b))",
     "mb_neg(mb_div(MUL(v, mb_stop_gradient(y)), b))", "autograd"),
    ("a tie counts twice", ELEMENTWISE, "half = MUL(v, lit(s, 0.5));", "half = v;", "autograd"),
    ("cholesky: the diagonal is not halved", MATRIX, "halved = mb_mul(x, mb__const(s->ctx, dtype, 0.5))",
     "halved = x", "autograd"),
    ("triangular solve: the other triangle", MATRIX, "MB_UPPER ? mb_triu(x, off) : mb_tril(x, -off)",
     "MB_UPPER ? mb_tril(x, off) : mb_triu(x, -off)", "autograd"),
    ("triangular solve: the sign of A's tangent", MATRIX, "return mb_neg(mb_triangular_solve(s->in[0], moved, form_of(s)));",
     "return mb_triangular_solve(s->in[0], moved, form_of(s));", "autograd"),
    ("the gradient of a maximum compares with what was read before", STRUCTURE, "mb_tensor hit = mb_eq(s->in[0], result_again(s));",
     "mb_tensor hit = mb_eq(s->in[0], s->out);", "plan"),
    ("permute back by the same order", STRUCTURE, "order.axis[attr(s, k)] = k;", "order.axis[k] = (int)attr(s, k);", "autograd"),
    ("permute of a batch: the axes one off", STRUCTURE, "(int)attr(s, k) + 1;", "(int)attr(s, k) + (k > 0);", "vmap"),
    ("orthogonalised once", "autograd/lanczos.c", "pass < 2", "pass < 1", "curvature"),
    ("a small Hessian is exhausted at once", "autograd/lanczos.c", "mb_mul(scale, lit(b, tiny))", "lit(b, tiny)", "curvature"),
]

LAYERS = [
    ("causal: one token of the future", "layers/attention.c", "mb_tril_mask(q.ctx, N, M, M - N)", "mb_tril_mask(q.ctx, N, M, M - N + 1)",
     "layers"),
    ("causal: aligned at the first query", "layers/attention.c", "mb_tril_mask(q.ctx, N, M, M - N)", "mb_tril_mask(q.ctx, N, M, 0)",
     "layers"),
    ("scores are not scaled", "layers/attention.c", "scale = 1 / sqrt((double)mb_dim(q, -1));", "scale = 1;", "layers"),
    ("linear attention: not divided by the keys", "layers/attention.c",
     "scale = 1 / (fmax((double)mb_dim(k, 1), 1) * (double)mb_dim(q, -1));\n    if", "scale = 1 / (double)mb_dim(q, -1);\n    if", "layers"),
    ("a query that sees nothing is the mean", "layers/attention.c",
     "mb_where(s->anything, mb_softmax(seen_or(s, scores, elsewhere), -1), zero)",
     "mb_softmax(seen_or(s, scores, elsewhere), -1)", "layers"),
    ("the inner gradient is of the last step's rate", "layers/ttt_apply.c", "l->lr[t]);", "l->lr[0]);", "layers"),
    ("first order where none was asked", "layers/ttt_apply.c", "if (o->first_order)", "if (true)", "layers"),
    ("always the first inner batch", "layers/ttt_apply.c", "t % (c->N / c->m) * c->m", "0", "layers"),
    ("inner losses after the step", "layers/ttt_apply.c", "    if (log)\n        before = for_log",
     "    if (log && (mb_grad(loss, l->weights, l->learner.n, l->gradients), update(c), true))\n        before = for_log", "layers"),
    ("rms norm: eps outside of the root", "layers/norm.c", "mb_rsqrt(mb_add(square, mb__literal(square, eps)))",
     "mb_recip(mb_add(mb_sqrt(square), mb__literal(square, eps)))", "layers"),
]

OPTIM = [
    ("adam: the second moment of the mean", "optim/rules.c", "mb_mul(k->rest2, mb_square(gradient))", "mb_mul(k->rest2, mb_square(*m))",
     "optim"),
    ("adam: no correction of the first moment", "optim/rules.c", "double correction = 1 - pow(beta1, (double)t);",
     "double correction = 1 + 0 * pow(beta1, (double)t);", "optim"),
    ("adam: eps inside of the root", "optim/rules.c", "mb_add(mb_mul(mb__safe_sqrt(*v), k->root), k->eps)",
     "mb_mul(mb__safe_sqrt(mb_add(*v, k->eps)), k->root)", "optim"),
    ("momentum: the old velocity", "optim/rules.c", "nesterov ? mb_add(gradient, mb_mul(mu, v)) : v;",
     "nesterov ? mb_add(gradient, mb_mul(mu, v)) : velocity;", "optim"),
    ("nesterov is momentum", "optim/rules.c", "nesterov ? mb_add(gradient, mb_mul(mu, v)) : v;", "v;", "optim"),
    ("warm-up begins at 0", "optim/schedule.c", "(double)(step + 1) / (double)s.warmup", "(double)step / (double)s.warmup", "optim"),
    ("cosine forgets the warm-up", "optim/schedule.c", "(double)((uint64_t)step - (uint64_t)s.warmup)", "(double)((uint64_t)step)",
     "optim"),
]

PLAN = [
    ("0 - x keeps the sign of 0", SIMPLIFY, "        if (is_neutral(p, in[0], -1)) {\n            int32_t full",
     "        if (is(p, in[0], 0)) {\n            int32_t full", "plan"),
    ("x + 0 of any sign", SIMPLIFY, "        if (is_neutral(p, in[1], -1))\n            return shaped(p, n, in[0]);\n        if (is_neutral(p, in[0], -1))\n            return",
     "        if (is(p, in[1], 0))\n            return shaped(p, n, in[0]);\n        if (is_neutral(p, in[0], -1))\n            return", "plan"),
    ("factors are put together whatever their product", SIMPLIFY, "(grow && isfinite(v))", "true", "plan"),
    ("under MB_DEBUG: factors are put together whatever their product", SIMPLIFY, "(grow && isfinite(v))", "true", "debug"),
    ("under MB_DEBUG: rewrites are not compared", "backends/engine/debug_plan.c", "find(&c, found) &&", "false &&", "debug"),
    ("integers are put together in double", SIMPLIFY, "(double)(int32_t)((uint32_t)(int32_t)a * (uint32_t)(int32_t)b)", "a * b",
     "plan"),
    ("-(a - b) of floats", SIMPLIFY, "at(p, in[0])->op == MB_OP_SUB && !mb__is_float(n->dtype)", "at(p, in[0])->op == MB_OP_SUB",
     "plan"),
    ("a - -b is a - b", SIMPLIFY, "return make(p, MB_OP_ADD, n, (int32_t[]){in[0], at(p, in[1])->in[0]}, 2, NULL, 0);",
     "return make(p, MB_OP_SUB, n, (int32_t[]){in[0], at(p, in[1])->in[0]}, 2, NULL, 0);", "plan"),
    ("equal but for the attributes", SIMPLIFY, "(!a->nattr || !memcmp(a->attr, b->attr, (size_t)a->nattr * sizeof *a->attr))", "true",
     "plan"),
    ("a place is taken by another order", ARENA, "memcmp(in->view.stride, s->view.stride, sizeof in->view.stride)", "false", "plan"),
    ("a place is taken that is still read", ARENA, "u->last != step ||", "", "plan"),
    ("a place is taken that is read twice", ARENA, "k->instrs[j].view.value != in->view.value;", "true;", "plan"),
    ("values die a step early", ARENA, "                v->last = s;", "                v->last = s > v->first + 1 ? s - 1 : s;", "plan"),
    ("a gap is not joined with the one behind it", GAPS, "bool after = i < *count &&", "bool after = false &&", "arena"),
    ("a gap is not joined with the one before it", GAPS, "bool before = i > 0 &&", "bool before = false &&", "arena"),
    ("a gap between two keeps the first one's size", GAPS, "gaps[i - 1].bytes += bytes + gaps[i].bytes;", "gaps[i - 1].bytes += bytes;",
     "arena"),
    ("the first gap that fits", GAPS, "(best == UINT32_MAX || gaps[i].bytes < gaps[best].bytes)", "best == UINT32_MAX", "arena"),
    ("the last gap does not grow", ARENA, "    if (last &&", "    if (false &&", "arena"),
    ("a key without what is kept", SEGMENT, "(n->rank | (output ? 0x80 : 0))", "(n->rank)", "plan"),
    ("a key without attributes", SEGMENT, "    if (nattr)\n        memcpy(k, mb__attrs", "    if (false)\n        memcpy(k, mb__attrs", "plan"),
    ("a key without sizes", SEGMENT, "    memcpy(k, n->dim, (size_t)n->rank * 8);", "    memset(k, 0, (size_t)n->rank * 8);", "plan"),
    ("readers of one row's value along different axes are one kernel", "backends/plan/fuse.c",
     "c[i].kind != c[k].kind || (c[i].kind == ROW && c[i].rows != c[k].rows)", "c[i].kind != c[k].kind", "fusion"),
    ("scalars are those of the first run", SEGMENT, "x->u.number = n->bind.scalar;", "x->u.number = 1;", "plan"),
]

CPU = [
    ("a panel too short", GEMM, "for (int64_t l = 0; l < k; l += 8)", "for (int64_t l = 0; l + 8 < k; l += 8)", "contract"),
    ("a sum over the depth begins again", GEMM, "g->add || l > 0 ? ADD : SET", "g->add ? ADD : SET", "contract"),
    ("rows of a panel copied past their end", GEMM, "for (; j + 4 <= w; j += 4)", "for (; j < w; j += 4)", "pages"),
    ("a panel in place is read past its end", GEMM, "tiles <= 2 && g->b_n == 1 && (MASKS || w == NR)", "tiles <= 2 && g->b_n == 1",
     "pages"),
    ("a last tile as high as the others", GEMM, "(int)(g->m - r < height ? g->m - r : height)", "(int)height", "pages"),
    ("rows of the wrong block", GEMM, "return (rows_of_##T){to - first * m, m, k, 0};", "return (rows_of_##T){to, m, k, 0};", "contract"),
    ("a column tile too far", RUN, "t.column = ct * k->tile_columns;", "t.column = ct ? ct * k->tile_columns - 1 : 0;", "backends"),
    ("fixed registers are made once for all", RUN, "whole.rows = k->tile_rows;", "whole.rows = 1;", "backends"),
    ("a value per row is each column's", RUN, "(u->ra == MB_LEVEL_ROW ? r : r * c) * u->size_a", "(r * c) * u->size_a", "backends"),
    ("partial sums of the first task", RUN, "for (int p = 1; p < k->tasks; p++)", "for (int p = 1; p < 1; p++)", ["reduce", "backends"]),
    ("what is cast is moved as it is", MAKE, "s->dtype == u->dtype && ", "", "dtype"),
    ("moved rows lie as in a register", MOVE, "to + r * d->row * (int64_t)size", "to + r * columns * (int64_t)size", "movement"),
    ("a move's larger tiles, one for all rows", MAKE, "o->units = outer * o->row_tiles;\n}", "o->units = outer;\n}", "movement"),
    ("turned rows that lie one after the other", MOVE, "(rows, columns, to, d->row, from", "(rows, columns, to, columns, from", "movement"),
    ("what is taken from a share's back is its front", "backends/cpu/pool.c", "front ? next : end - 1", "next", ["tensor", "movement"]),
    ("half a vector is not taken off", GEMM, "add == ADD ? s[i] : -s[i]", "s[i]", "tensor"),
    ("half a vector forgets what was there", GEMM, "if (add != SET) ", "if (add == SUBTRACT) ", "contract"),
    ("a sum's rest, where it is added up, begins a lane late", "backends/cpu/loops.c", "lane[j] += a[i + j];                                                                         \\\n            i += w;",
     "lane[j] += a[i + j];                                                                         \\\n            i += w - 1;", "reduce"),
    ("an index below the axis", ALONG_LOOPS, "place[e] = i < 0 ? 0 : i;", "place[e] = i;", "axis"),
    ("sums of a larger tile, of its beginning", RUN, "to, from + i * s->size);", "to, from);", "reduce"),
    ("blocks of draws in the order of lanes", "backends/cpu/draws.h", "BLOCKS > 1 ? i / 2 + i % 2 * (BLOCKS / 2) : i", "i", "random"),
    ("draws of a last block left out", "backends/cpu/draws.h", "for (; blocks > 0; blocks--", "for (; blocks > 1; blocks--", "random"),
    ("a draw from the middle of a block, from its beginning", "backends/cpu/kernel_draw.c", "(char *)block + (size_t)skip * size", "(char *)block",
     "random"),
    ("a draw on [0, 1]", "backends/plan/philox.h", "(float)(int32_t)(w >> 8) * 0x1p-24f", "(float)w * 0x1p-32f", "random"),
    ("blocks of draws wrap at 2^32", "backends/plan/philox.h", "(uint32_t)(block >> 32), 0, 0", "0, 0, 0", "random"),
    ("Laplace: one draw for sign and size", "tensor/samplers.c", "mb_key_fold(key, FOLD_SIGN), dtype, shape);\n    return mb_where(mb_lt(u,",
     "mb_key_fold(key, FOLD_SIZE), dtype, shape);\n    return mb_where(mb_lt(u,", "random"),
    ("Gamma: accepted by the wrong bound", "tensor/samplers.c", "mb_lt(log_u, bound)", "mb_lt(bound, log_u)", "random"),
]

AXIS = [
    ("running sums from the end, a vector at a time, in its order", ALONG_LOOPS, "if (step < 0)                                                                                    \\\n                a = BACKWARDS(a);                                                                            \\\n            memcpy(y",
     "memcpy(y", "axis"),
    ("a running maximum passes a NaN over", ALONG_LOOPS, "y[c] = top[c] = BEFORE(a, b) ? b : a;", "y[c] = top[c] = a < b ? b : a;", "axis"),
    ("argmax of a row: a later one of equals", ALONG_LOOPS, "if (BEFORE(top, best[c]) || (!BEFORE(best[c], top) && i < place))",
     "if (BEFORE(top, best[c]))", "axis"),
    ("argmax of a row: what is left over", ALONG_LOOPS, "i = whole > 1 ? whole * LANES : 1;", "i = whole > 1 ? whole * LANES + 1 : 1;", "axis"),
    ("columns where the result has gaps", ALONG, "o->in.stride[i] == columns && o->out.stride[i] == columns", "o->in.stride[i] == columns",
     "axis"),
    ("every block of columns is the first", ALONG, "int64_t first = i % j->blocks * j->block;", "int64_t first = 0 * (i % j->blocks);", "axis"),
    ("the last block of columns is short", ALONG, "j->columns - first < j->block ? j->columns - first : j->block;",
     "j->columns - first < j->block ? j->columns - first - 1 : j->block;", "axis"),
]

LOOPS = [
    ("products of halves add where the carry lies", "backends/plan/sums.c", "sum->op == MB_OP_ADD && !mb__is_half(sum->dtype) &&",
     "sum->op == MB_OP_ADD &&", "dtype"),
]

CUT, KINDS, SLICES = (f"backends/plan/{f}.c" for f in ("cut", "slice_kinds", "slices"))

SLICED = [
    ("a slice of the batch counts as all of it", CUT, "x->dim[k] == n->dim[k] && at[k] == 0 && at[n->rank + k] == 1", "x->dim[k] >= 0",
     ["slices", "plan"]),
    ("axes are aligned at the first one", CUT, "int i = k + n->rank - x->rank;", "int i = k;", "slices"),
    ("a reshape keeps the number of the axis", CUT, "if (so_far == before && to->dim[i] != 1)", "if (i == k)", "slices"),
    ("a reduced axis of a maximum is added up", CUT, "n->op == MB_OP_SUM ? MB_CUT_ADDED : MB_CUT_NONE", "MB_CUT_ADDED", ["slices", "plan"]),
    ("an axis that both operands of a product have", CUT, "return (int)n->attr[1 + 3 * label_of(n, from, k) + j];", "return MB_CUT_NONE;",
     "slices"),
    ("indices of a part for the whole", CUT, "return !take && k >= axis && k < axis + rank ? k - axis : MB_CUT_NONE;",
     "return MB_CUT_NONE;", "slices"),
    ("sums are linear in what they are multiplied by", KINDS, "n->op == MB_OP_ADD || n->op == MB_OP_SUB ||",
     "n->op == MB_OP_ADD || n->op == MB_OP_MUL ||", "slices"),
    ("what is added up begins anywhere", KINDS, "(first == to || is_zero(s->g, p->outside[i]))", "true", ["slices", "scans in slices"]),
    ("a scan's slices are cut along its steps", KINDS, "whole == MB_AFTER || whole == MB_ADDED || whole == 0", "whole == MB_AFTER",
     ["slices", "scans in slices"]),
    ("what differs in size is in the loop", KINDS, "if (is_cut(is) ? is != wants :", "if (is_cut(is) ? false :", ["slices", "plan"]),
    ("a stack is cut where its entries are", KINDS, "return i < p.carries ? is : is + 1;", "return is;", "slices"),
    ("a scan's place is not that of its slices", SLICES, "if (reads(scan, s->slices[i].node))", "if (false)", ["slices", "scans in slices"]),
    ("the last part for the sum", SLICES, "(int32_t[]){s->carry[id], x}, 2,", "(int32_t[]){x, x}, 2,", "slices"),
    ("each part has the first one's draws", SLICES, "int32_t in[2] = {part_number(s), 0};",
     "int32_t in[2] = {make(s, MB_OP_CONST, MB_INT32, 0, NULL, NULL, 0, (int64_t[]){0}, 1), 0};", "slices"),
    ("parts of a stack the wrong way round", SLICES, "x = unary(s, MB_OP_PERMUTE, x, 3, (int64_t[]){before, s->parts, after}, exchange, 3);\n"
     "    return unary(s, MB_OP_RESHAPE", "return unary(s, MB_OP_RESHAPE", "slices"),
    ("slices of many small steps", "backends/engine/cache.c", "enough = 4000000", "enough = 1", "slices"),
    ("too many slices: whole", "backends/engine/cache.c", "found == TOO_MANY && fewer > 1", "false && fewer > 1", "slices"),
    ("slices unasked everywhere", "backends/engine/cache.c", "bool goal = st->arena_asked || (backend->fuses", "bool goal = true || (backend->fuses",
     "slices"),
    ("more memory than before", "backends/engine/cache.c", "other.plan.arena_bytes < c->plan.arena_bytes || goal == 1", "parts > 0", "slices"),
]

MUTANTS = RULES + LAYERS + OPTIM + PLAN + CPU + AXIS + LOOPS + SLICED
