/* SPDX-License-Identifier: MIT
 *
 * program.h - a plan as dispatches that read a table: how it is compiled, stored, run and freed. The files
 * are listed from the lowest layer up: each calls only those before it.
 */
#ifndef MB_VULKAN_PROGRAM_H
#define MB_VULKAN_PROGRAM_H

#include "backends/plan/bump.h"
#include "backends/vulkan/pipeline/pipeline.h"

/* Instructions of a pass; words of the table for a bound scalar. */
enum { VK_INSTRS_MOST = 512, VK_SCALAR_WORDS = 4 };

/* A value from one of its elements on. */
typedef struct mb__vk_slot {
    int32_t value;
    int64_t offset; /* elements */
} mb__vk_slot;

typedef struct mb__vk_access {
    int32_t value;
    bool written;
} mb__vk_access;

typedef struct mb__vk_program mb__vk_program;

typedef struct mb__vk_dispatch {
    mb__vk_pipeline *pipeline;
    uint64_t region; /* words in the program's part of the table */
    uint32_t x, y;   /* groups */
    int32_t access_first, access_count;
    int step;
    double cost;          /* bytes and flops, roughly: where submits are cut */
    mb__vk_program *body; /* of a loop, whose steps each begin with this dispatch; NULL */
    void *const *host;    /* no dispatch, but an op of the user's that runs on the host: memory there for each
                             operand    and result; NULL */
} mb__vk_dispatch;

/* Memory of the program's own, for what is kept between two of its dispatches. */
typedef struct mb__vk_scratch_value {
    uint64_t offset, bytes;
    uint8_t dtype;
} mb__vk_scratch_value;

/* What is submitted, in order: commands, or all up to `end`, `times` over. */
typedef struct mb__vk_act {
    VkCommandBuffer commands; /* VK_NULL_HANDLE: a repetition */
    int dispatches, barriers;
    double cost;
    int64_t times;
    int32_t end;
    int64_t block;              /* of a repetition: the steps of a loop that it is ... */
    const mb__vk_program *left; /* ... and that loop's body, if blocks of steps can be left out; NULL */
    VkCommandBuffer patch; /* then, where the host does not write the table itself: copies the body's part */
    int32_t host;          /* no commands: the step on the host that dispatch `host - 1` stands for; 0 */
    const mb__vk_program *timed; /* whose time stamps are read afterwards; NULL */
} mb__vk_act;

/* Values are numbered: the plan's, then scratch. A loop's body is a program inside of another: it has a part
 * of the table and time stamps of its own, and is recorded and run with the outermost. */
struct mb__vk_program {
    mb__vk *v;
    mb__bump pool;
    const mb__plan *plan;
    mb__vk_program *around;              /* NULL: it is the outermost; else */
    const mb__loop *loop;                /* of `around`, whose body it is, ... */
    uint32_t list, entries;              /* ... and the word of its own part where loop.comp's list begins */
    mb__vk_program *bodies, *next_body;  /* inside of it; beside it */
    double commands, own_cost, all_cost; /* of one run: dispatches; their cost without loops; with them */
    bool *barrier;                       /* before each dispatch */
    mb__vk_scratch_value *scratch;
    int scratch_count, scratch_capacity;
    uint64_t scratch_bytes;
    mb__vk_memory *scratch_memory;
    mb__vk_dispatch *dispatches;
    mb__vk_access *accesses;
    int dispatch_count, dispatch_capacity, access_count, access_capacity;
    size_t pipeline_bytes; /* of those that no program used before */
    int touching;          /* the first access of the dispatch that is being added */
    /* The program's part of the table, while it is made; of each word, the value whose block stands there, or
     * -1. */
    uint32_t *words;
    int32_t *slot_value;
    uint32_t *slot_shift; /* and the words to add to where it begins */
    uint32_t word_count, word_capacity, slot_capacity, shift_capacity;
    /* Afterwards: where it is, the words that say where a value lies, and where that was in the last run. */
    uint64_t table_at, table_bytes;
    int32_t *slot_first, *slot_next; /* chains of words of a value; -1 ends them */
    uint32_t *shift;
    mb__vk_memory *bound;
    /* Of the outermost: what was recorded, and how to run it. */
    VkCommandBuffer *batches; /* submit batches: commands up to a cost */
    mb__vk_act *acts;
    int batch_count, batch_capacity, act_count, act_capacity;
    uint64_t dispatches_run, barriers_run;
    bool midway; /* a run failed, perhaps between two steps of a loop */
    uint32_t generation;
    VkQueryPool queries;
    bool failed;
    bool untimed; /* a trial: not timed */
};

enum { VK_SIZES_MOST = 64 }; /* of a pass that reads them; of more, they are literals */

/* A kernel for one dispatch. Its last `columns_axes` axes are the columns that row reductions run over; none:
 * every element is a row of its own. Stores are plain or once a row. Values are slots of the region. */
typedef struct mb__vk_pass {
    mb__kernel k;
    int column_axes;
    uint32_t local, lanes; /* invocations of a group; of them, those that share a row: a power of 2 */
    bool rows_fastest;     /* neighbouring invocations take neighbouring rows, not columns */
    uint32_t chunks;       /* pieces that the columns are cut into, each with a row of the result: the row
                              index ends with the piece */
    int64_t rows, columns;
    /* What may differ between passes that share a pipeline is in the region: where each view begins, ... */
    mb__vk_slot *slots;
    int slot_count;
    /* ... and then, a word each, numbers of bound scalars, and first positions of generated values. */
    int64_t *params;
    int param_count;
    /* ... and, where the pass is `sized`, sizes and strides: each once, other than 0, 1 and -1. */
    int64_t *sizes;
    int size_count;
    bool sized;
} mb__vk_pass;

/* The columns of a piece. */
static inline int64_t mb__vk_chunk(const mb__vk_pass *p)
{
    return (p->columns + p->chunks - 1) / p->chunks;
}

/* The least power of 2 that is n, or most. */
static inline uint32_t mb__vk_power_up(int64_t n, uint32_t most)
{
    uint32_t p = 1;
    while (p < most && p < n)
        p *= 2;
    return p;
}
/* Invocations of a large group. */
static inline uint32_t mb__vk_widest(const mb__vk *v)
{
    return v->caps.invocations < 256 ? v->caps.invocations : 256;
}
/* What the functions of a generated kernel take. */
static inline mb__vk_uses mb__vk_uses_of(const mb__kernel *k)
{
    mb__vk_uses uses = {false, false};
    for (int i = 0; i < k->instr_count; i++) {
        uses.float64 |= k->instrs[i].dtype == MB_FLOAT64;
        uses.halves |= mb__is_half(k->instrs[i].dtype);
    }
    return uses;
}
/* Whether an element is two words. */
static inline bool mb__vk_is_wide(int dtype)
{
    return dtype == MB_FLOAT64 || dtype == MB_INT64;
}
static inline bool mb__vk_is_reduction(const mb__instr *i)
{
    return i->op == MB_K_SUM || i->op == MB_K_MAX;
}

/* ---- dispatch.c ---- */

/* Adds a word to the program's part of the table. value: whose block it will name, with where it begins
 * there, and `shift` words on, in the word behind it; -1: it stays as it is. */
void mb__vk_add_word(mb__vk_program *p, uint32_t word, int32_t value, uint32_t shift);
/* Begins a region for a dispatch: slots for `count` values; more, and parameters, may follow. */
uint32_t mb__vk_region(mb__vk_program *p, const mb__vk_slot *slots, int count);
void mb__vk_slots(mb__vk_program *p, const mb__vk_slot *slots, int count);
void mb__vk_param(mb__vk_program *p, int64_t x);
void mb__vk_accesses(mb__vk_program *p, int32_t value, bool written);
/* Ends the region begun last. groups: counted over both axes. */
void mb__vk_dispatch_add(mb__vk_program *p, mb__vk_pipeline *pipeline, uint32_t region, int64_t groups,
                         int step, double cost);
/* Adds a value of the program's own; returns its number. */
int32_t mb__vk_scratch(mb__vk_program *p, int64_t count, int dtype);
uint8_t mb__vk_dtype_of(const mb__vk_program *p, int32_t value);
/* The bytes in which the table counts where a value lies. */
int64_t mb__vk_unit(const mb__vk_program *p, int32_t value);

/* The kernel of that name for a dtype, or, with dtype < 0, for all; NULL: error set. */
mb__vk_pipeline *mb__vk_pipeline_named(mb__vk_program *p, int step, const char *kernel, int dtype,
                                       uint32_t local);

/* ---- emit.c ---- */

/* The slot where a view begins; slot_count: none does. */
int mb__vk_slot_of(const mb__vk_pass *p, const mb__view *view);
/* Literal zeros of floats are numbers that the region holds. */
static inline bool mb__vk_is_zero(const mb__instr *n)
{
    return n->op == MB_K_CONST && mb__is_float(n->dtype) &&
           (n->dtype != MB_FLOAT64 ? (float)n->number == 0 : n->number == 0);
}
/* The position among the parameters of a bound scalar's number, or of a first position. */
int mb__vk_param_of(const mb__vk_pass *p, int64_t x);
/* The same of a size among the sizes; below 0, and another for each, where it is a literal: 0, 1 and -1. */
int mb__vk_size_of(const mb__vk_pass *p, int64_t x);
/* Emits a pass into the assembler. */
void mb__vk_emit(mb__vk_asm *a, const mb__vk_pass *p);

/* ---- custom.c ---- */

/* Whether the kernel has elementwise ops of the user's. */
bool mb__vk_has_maps(const mb__kernel *k);
/* Such a kernel from the text of its main; as mb__vk_glsl_compile. */
uint32_t *mb__vk_compile_maps(mb__vk *v, const char *site, const mb__kernel *k, const char *text,
                              size_t *bytes);
bool mb__vk_add_custom(mb__vk_program *p, int step, const mb__custom *custom);
/* Computes one on the host; the device is idle. */
bool mb__vk_run_on_host(const mb__vk_program *p, const mb__binding *b, const mb__vk_dispatch *d);

/* ---- pass.c ---- */

/* The state used while making the passes of a kernel. */
typedef struct mb__vk_splitter {
    mb__vk_program *p;
    mb__bump bump; /* of this kernel */
    int step;
} mb__vk_splitter;

/* Adds the dispatch of a pass; its slots and parameters are listed here. */
bool mb__vk_dispatch_pass(mb__vk_splitter *s, mb__vk_pass *pass);

/* ---- split.c ---- */

/* Adds the dispatches of a kernel. */
bool mb__vk_add_kernel(mb__vk_program *p, int step, const mb__kernel *k);
/* The same for one whose reductions all run over the axes of the mask and are stored once a row. */
bool mb__vk_add_rows(mb__vk_program *p, int step, const mb__kernel *k, uint32_t column_mask);
/* Fills the elements along the view's first axis with a number. */
bool mb__vk_add_fill(mb__vk_program *p, int step, const mb__view *view, int64_t count, int dtype,
                     double number);

/* ---- product.c ---- */

/* Kernels of shaders/product.comp, and a way without any: sums of products, a kernel as others are. */
enum mb__vk_product_kernel { VK_PLAIN, VK_PLAIN4, VK_LANES, VK_TILE32, VK_TILE64, VK_TILE128, VK_AS_SUMS };

/* How a product is computed: a kernel, and the constants that make a pipeline of it. */
typedef struct mb__vk_choice {
    int kernel;
    uint8_t dtype;           /* of the operands; halves are summed in float32 */
    bool rounded;            /* halves: the result is one, too, and not float32 */
    bool fours;              /* results are written four at a time */
    uint32_t a_read, b_read; /* how operands are read; as product.comp numbers it */
} mb__vk_choice;

typedef struct mb__vk_tile {
    uint32_t m, n, local; /* elements of a group, or of an invocation of a plain kernel; invocations */
} mb__vk_tile;

/* Test results of a choice. Plain kernels are never tried. */
enum { VK_UNTRIED, VK_TRUSTED, VK_WRONG };
static inline uint8_t *mb__vk_trust(mb__vk *v, const mb__vk_choice *c)
{
    int type = mb__is_half(c->dtype) ? 2 + 2 * (c->dtype == MB_BFLOAT16) + c->rounded : c->dtype;
    return &v->product_state[c->kernel * 6 + type][c->a_read | c->b_read << 2 | (uint32_t)c->fours << 4];
}
static inline bool mb__vk_is_plain(const mb__vk_choice *c)
{
    return c->kernel <= VK_PLAIN4 || c->kernel == VK_AS_SUMS;
}

mb__vk_tile mb__vk_tile_of(const mb__vk *v, int kernel);
/* Whether a product would keep a GPU busy for too long: then as two parts. */
bool mb__vk_product_cut(const mb__vk *v, const mb__product *p, mb__product part[2]);
/* How a kernel would compute a product; by VK_AS_SUMS if it cannot. */
mb__vk_choice mb__vk_product_by(const mb__vk *v, const mb__product *p, int dtype, int kernel);
/* How a product, which is not to be cut, is computed, given what is known to be wrong. */
mb__vk_choice mb__vk_product_decide(mb__vk *v, const mb__product *p, int dtype);
/* The same in a program, whose values may begin anywhere. */
mb__vk_choice mb__vk_product_choose(const mb__vk_program *program, const mb__product *p);
mb__vk_pipeline *mb__vk_product_pipeline(mb__vk *v, const mb__vk_choice *c);
/* Adds the dispatches of a product by a choice. */
bool mb__vk_product_emit(mb__vk_program *p, int step, const mb__product *product, const mb__vk_choice *c);
/* The same, cut and decided. */
bool mb__vk_add_product(mb__vk_program *p, int step, const mb__product *product);

/* ---- matrix.c ---- */

bool mb__vk_add_matrix(mb__vk_program *p, int step, const mb__other *other);

/* ---- axis_and_index.c ---- */

bool mb__vk_add_other(mb__vk_program *p, int step, const mb__other *other);

/* ---- transfer.c ---- */

bool mb__vk_upload(mb__vk *v, const mb__vk_memory *to, mb_dtype dtype, int64_t count, const void *from);
bool mb__vk_download(mb__vk *v, const mb__vk_memory *from, mb_dtype dtype, int64_t count, void *to);
/* Copies elements on the device, between places that do not overlap, and waits. */
bool mb__vk_copy(mb__vk *v, const mb__vk_memory *from, const mb__vk_memory *to, mb_dtype dtype,
                 int64_t count);

/* ---- program.c ---- */

/* A program without dispatches yet, with room for bound scalars; and so the bodies of its loops, in the order
 * of its steps. */
mb__vk_program *mb__vk_program_new(mb__vk *v, const mb__plan *plan);
/* After the last dispatch: allocates the program's part of the table, and its own memory. */
bool mb__vk_program_finish(mb__vk_program *p);
void mb__vk_discard(mb__vk_program *p); /* NULL is allowed */
/* Memory that a program holds, with its bodies. */
size_t mb__vk_program_bytes(const mb__vk_program *p);
const mb__vk_program *mb__vk_outermost(const mb__vk_program *p);
/* Where a value lies in a run; of a body, but for what moves from step to step. */
mb__vk_memory mb__vk_place_of(const mb__vk_program *p, const mb__binding *b, int value);

/* ---- loop.c ---- */

/* Adds a loop, whose body is complete but for its end. */
bool mb__vk_add_loop(mb__vk_program *p, int step, mb__vk_program *body);
/* Which step of a body is the next, in the part of the table that the host writes. */
void mb__vk_set_step(const mb__vk_program *body, int64_t step);

/* ---- hazard.c ---- */

/* Marks the dispatches before which a barrier is needed; before[i] for dispatch i. */
void mb__vk_hazards(const mb__vk_program *p, bool *before);
bool mb__vk_conflict(const mb__vk_program *p, const mb__vk_access *a, const mb__vk_access *b);

/* ---- leave.c ---- */

/* The steps of a loop of the outermost program from the first to behind the last that are not idle, counted
 * as they run. */
bool mb__vk_active_steps(const mb__vk_program *p, const mb__binding *b, const mb__loop *l, int64_t *from,
                         int64_t *to);
/* Whether an earlier step than `step`, which is to run next, was the last one. */
bool mb__vk_is_done(const mb__vk_program *p, const mb__binding *b, const mb__loop *l, int64_t step,
                    bool *done);
/* From step `from`, which is to run next, on to step `to`: those between change nothing. */
bool mb__vk_leave_out(const mb__vk_program *p, const mb__binding *b, const mb__vk_act *repetition,
                      int64_t from, int64_t to);

/* ---- guard.c ---- */

void mb__vk_guard_fill(const mb__vk_program *p, const mb__binding *b);
bool mb__vk_guard_check(const mb__vk_program *p, const mb__binding *b);

/* ---- record.c ---- */

/* Records the commands of a program and its bodies, and what to submit. */
bool mb__vk_record(mb__vk_program *p);

/* ---- run.c ---- */

/* A run that failed leaves the program unchanged, so it may be tried again. */
bool mb__vk_run(mb__vk_program *p, const mb__binding *binding);

/* ---- product_check.c ---- */

/* One product by a choice, on values from the host, whose numbers are counted. */
bool mb__vk_product_run(mb__vk *v, const mb__product *p, const mb__vk_choice *c, const int64_t count[3],
                        const void *a, const void *b, void *result);
/* Tests whether a choice computes correct results, and records the answer. False: it could not be tried. */
bool mb__vk_try_choice(mb__vk *v, const mb__vk_choice *c);
/* Tries the untried choices that a product of a program takes, until the choices taken are known to be
 * correct. */
bool mb__vk_try_product(const mb__vk_program *program, const mb__product *p);

/* ---- compile.c ---- */

mb__vk_program *mb__vk_compile(mb__vk *v, const mb__plan *plan);

#endif
