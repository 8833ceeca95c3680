/* SPDX-License-Identifier: MIT
 *
 * main.cpp - a program outside of the tree, in C++17: every public function and macro once.
 * tests/downstream/uses.py compares what is called here with what the library exports and the headers define,
 * so a new one is added here too; elementwise ops come from the op table by themselves. main.cpp FOLDER:
 * files are written there.
 */
#include <moebius.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

static int passed, failed;

static void expect(bool ok, const char *what, int line)
{
    (ok ? passed : failed)++;
    if (!ok)
        std::printf("FAILED: main.cpp:%d: %s\n", line, what);
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

static bool is(mb_tensor t, double value)
{
    return std::fabs(mb_item(t) - value) <= 1e-5 * (1 + std::fabs(value));
}

static bool has_shape(mb_tensor t, mb_shape want)
{
    mb_shape s = mb_shape_of(t);
    return s.rank == want.rank && std::equal(s.dim, s.dim + s.rank, want.dim);
}

/* ------------------------------------------------------------------------------------------- tensor.h -- */

static void lists(mb_context *mb)
{
    std::vector<float> v(4, 1.0f);
    enum { COLUMNS = 3 };
    constexpr mb_shape fixed = MB_SHAPE(2u, COLUMNS);
    static_assert(fixed.rank == 2 && fixed.dim[1] == 3, "a shape may be a constant");
    mb_tensor x = mb_ones(mb, MB_FLOAT32, MB_SHAPE(v.size(), 3));
    EXPECT(has_shape(x, MB_SHAPE(4, 3)));
    EXPECT(has_shape(mb_full(mb, MB_FLOAT32, MB_SHAPE0, 1), MB_SHAPE0));
    EXPECT(has_shape(mb_sum(x, MB_AXES(-1)), MB_SHAPE(4)));
    EXPECT(has_shape(mb_sum(x, MB_AXES(0, x.ctx ? 1 : 0)), MB_SHAPE0));
    EXPECT(has_shape(mb_sum(x, MB_KEEP(v.size() - 3)), MB_SHAPE(v.size(), 1)));
    EXPECT(has_shape(mb_sum(x, MB_ALL_KEEP), MB_SHAPE(1, 1)));
    EXPECT(is(mb_sum(x, MB_ALL), 12));
    mb_axes literal = MB_LIT(mb_axes){1, false, {0}};
    EXPECT(has_shape(mb_sum(x, literal), MB_SHAPE(3)));
    EXPECT(!mb_valid(MB_EMPTY(mb_tensor)));
}

/* Each elementwise op of the table, at a point inside all domains, and with a number on either side. */
static void elementwise(mb_context *mb)
{
    const mb_tensor F = mb_scalar(mb, MB_FLOAT64, 0.5), N = mb_cast(F, MB_INT32), L = mb_cast(F, MB_BOOL);
    std::vector<mb_tensor> made;
#define NUMBERS_F(f) made.insert(made.end(), {f(F, 2.0), f(2, F)});
#define NUMBERS_N(f) made.insert(made.end(), {f(N, 2.0), f(2u, N)});
#define NUMBERS_L(f)
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc) made.push_back(mb_##name(types));
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc)                                         \
    made.push_back(mb_##name(types, types));                                                                 \
    NUMBERS_##types(mb_##name)
#define MB_COMPARE(NAME, name, types, expr, doc)                                                             \
    made.push_back(mb_##name(types, types));                                                                 \
    NUMBERS_##types(mb_##name)
#include <tensor/ops.def>
    EXPECT(mb_eval(made.data(), static_cast<int>(made.size())) == MB_OK);
    EXPECT(is(mb_sub(F, 3), -2.5) && is(mb_sub(3, F), 2.5) && is(mb_sub(3.0f, mb_sub(F, F)), 3));
    EXPECT(is(mb_mul(2L, mb_add(F, mb_pow(F, 2))), 1.5));
    EXPECT(is(mb_cast(mb_lt(F, 1), MB_FLOAT64), 1) && is(mb_cast(mb_lt(1, F), MB_FLOAT64), 0));
    EXPECT(is(mb_where(L, F, mb_neg(F)), 0.5));
}

static void leaves(mb_context *mb)
{
    const std::array<float, 6> data = {1, 2, 3, 4, 5, 6};
    mb_tensor x = mb_from(mb, MB_FLOAT32, MB_SHAPE(2, 3), data.data());
    EXPECT(mb_count(x) == 6 && mb_dim(x, -1) == 3 && mb_dtype_of(x) == MB_FLOAT32);
    EXPECT(mb_dtype_size(MB_FLOAT64) == 8 && !std::strcmp(mb_dtype_name(MB_INT32), "int32"));
    EXPECT(is(mb_sum(mb_zeros(mb, MB_FLOAT32, MB_SHAPE(3)), MB_ALL), 0));
    EXPECT(is(mb_sum(mb_iota(mb, MB_INT32, 4), MB_ALL), 6));
    EXPECT(is(mb_sum(mb_tril_mask(mb, 3, 3, 0), MB_ALL), 6));
    EXPECT(is(mb_sum(mb_eye(mb, MB_FLOAT64, 5), MB_ALL), 5));
    mb_tensor variable = mb_variable(mb, MB_FLOAT32, MB_SHAPE(2, 3));
    EXPECT(mb_assign(variable, x) == MB_OK);
    EXPECT(is(mb_sum(variable, MB_ALL), 21));
}

static void random_numbers(mb_context *mb)
{
    mb_key key = mb_key_fold(mb_key_of(7), 1);
    EXPECT(MB_LIT(mb_key){7}.bits == 7 && MB_NO_KEY.bits == 0);
    const mb_shape shape = MB_SHAPE(3, 3);
    std::vector<mb_tensor> draws = {
        mb_uniform(mb, key, MB_FLOAT32, shape),         mb_normal(mb, key, MB_FLOAT32, shape),
        mb_exponential(mb, key, MB_FLOAT32, shape),     mb_laplace(mb, key, MB_FLOAT32, shape),
        mb_gamma(mb, key, MB_FLOAT32, shape, 0.5, 2.0), mb_sphere(mb, key, MB_FLOAT32, shape),
        mb_orthogonal(mb, key, MB_FLOAT32, shape),      mb_permutation(mb, key, shape)};
    EXPECT(mb_eval(draws.data(), static_cast<int>(draws.size())) == MB_OK);
    for (mb_tensor draw : draws)
        EXPECT(has_shape(draw, shape));
}

static void movement(mb_context *mb)
{
    mb_tensor x = mb_reshape(mb_iota(mb, MB_FLOAT32, 6), MB_SHAPE(2, -1));
    EXPECT(has_shape(mb_permute(x, MB_AXES(1, 0)), MB_SHAPE(3, 2)));
    EXPECT(has_shape(mb_transpose(x), MB_SHAPE(3, 2)));
    EXPECT(has_shape(mb_broadcast(x, MB_SHAPE(4, 2, 3)), MB_SHAPE(4, 2, 3)));
    EXPECT(is(mb_sum(mb_slice(x, 1, 0, 1, 1), MB_ALL), 3));
    EXPECT(is(mb_slice(mb_slice(mb_flip(x, 1), 1, 0, 1, 1), 0, 0, 1, 1), 2));
    EXPECT(has_shape(mb_pad(x, 0, 1, 2), MB_SHAPE(5, 3)));
    std::vector<mb_tensor> xs = {x, x};
    EXPECT(has_shape(mb_concat(xs.data(), 2, 0), MB_SHAPE(4, 3)));
    EXPECT(has_shape(mb_stack(xs.data(), 2, 0), MB_SHAPE(2, 2, 3)));
    EXPECT(has_shape(mb_squeeze(mb_unsqueeze(x, 0), 0), MB_SHAPE(2, 3)));
}

static void reductions(mb_context *mb)
{
    mb_tensor x = mb_add(mb_iota(mb, MB_FLOAT32, 4), 1); /* 1 2 3 4 */
    EXPECT(is(mb_mean(x, MB_ALL), 2.5) && is(mb_variance(x, MB_ALL), 1.25));
    EXPECT(is(mb_max(x, MB_ALL), 4) && is(mb_min(x, MB_ALL), 1) && is(mb_argmax(x, 0), 3));
    EXPECT(is(mb_max(mb_cumsum(x, 0, false), MB_ALL), 10));
    EXPECT(is(mb_logsumexp(mb_zeros(mb, MB_FLOAT32, MB_SHAPE(4)), MB_ALL), std::log(4.0)));
    EXPECT(is(mb_dot(x, x), 30) && is(mb_einsum("i,i->", x, x), 30));
    mb_tensor row = mb_unsqueeze(x, 0);
    EXPECT(is(mb_matmul(row, mb_transpose(row)), 30));

    const std::array<int32_t, 2> two = {3, 0};
    mb_tensor index = mb_from(mb, MB_INT32, MB_SHAPE(two.size()), two.data());
    EXPECT(is(mb_sum(mb_take(x, index, 0), MB_ALL), 5));
    EXPECT(is(mb_sum(mb_scatter_add(mb_take(x, index, 0), index, 0, 4), MB_ALL), 5));
    EXPECT(is(mb_sum(mb_take_along(x, mb_argsort(x)), MB_ALL), 10));
    EXPECT(is(mb_sum(mb_sort(x), MB_ALL), 10) && is(mb_sum(mb_one_hot(index, 4), MB_ALL), 2));
}

static void common_functions(mb_context *mb)
{
    mb_tensor x = mb_full(mb, MB_FLOAT64, MB_SHAPE(1, 2), 2.0), sum = mb_alias(x);
    for (mb_tensor y : {mb_square(x), mb_relu(x), mb_silu(x), mb_softplus(x), mb_elu(x), mb_gelu(x),
                        mb_gelu_erf(x), mb_softmax(x, 1), mb_log_softmax(x, 1)})
        sum = mb_add(sum, mb_stop_gradient(y));
    EXPECT(std::isfinite(mb_item(mb_sum(sum, MB_ALL))));
    EXPECT(is(mb_cross_entropy(x, mb_iota(mb, MB_INT32, 1)), std::log(2.0)));
}

static void scopes(mb_context *mb)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor x = mb_scalar(mb, MB_FLOAT64, 3);
    mb_tensor kept = mb_keep(mb_mul(x, x)), detached = mb_detach(mb_exp(mb_sub(x, 3)));
    double watched = 0, value = 0;
    EXPECT(mb_watch(x, &watched, sizeof watched) == MB_OK);
    EXPECT(mb_read(kept, &value, sizeof value) == MB_OK && watched == 3 && value == 9);
    EXPECT(mb_scope_end(scope) == MB_OK);
    EXPECT(is(kept, 9) && is(detached, 1) && !mb_valid(x));
}

/* A layer of one's own: its mistakes are its caller's. */
#define half(...) half_at(MB_HERE, __VA_ARGS__)
static mb_tensor half_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    if (mb_dtype_of(x) == MB_BOOL) {
        mb_fail(x.ctx, MB_INVALID, "half: no half of %s", mb_dtype_name(MB_BOOL));
        return MB_EMPTY(mb_tensor);
    }
    return mb_matmul(mb_mul(x, 0.5), x);
}

static bool blamed(mb_context *mb, int line, const char *said)
{
    std::string site = "main.cpp:" + std::to_string(line) + ": ", message = mb_message(mb);
    bool ok = message.find(site) != std::string::npos && message.find(said) != std::string::npos;
    if (!ok)
        std::printf("%s\n", message.c_str());
    mb_clear_error(mb);
    return ok;
}

static void errors(mb_context *mb)
{
    EXPECT(mb_error(mb) == MB_OK && !std::strcmp(mb_status_name(MB_OK), "ok"));
    mb_tensor x = mb_ones(mb, MB_FLOAT32, MB_SHAPE(2, 3));
    half(x);
    EXPECT(mb_error(mb) == MB_INVALID && blamed(mb, __LINE__ - 1, "inner sizes differ"));
    half(mb_cast(x, MB_BOOL));
    EXPECT(blamed(mb, __LINE__ - 1, "no half of bool"));
    mb_transpose(x);
    mb_matmul(x, x); /* the site of the layer has ended with it */
    EXPECT(blamed(mb, __LINE__ - 1, "inner sizes differ"));
    const char *site;
    {
        std::string made = "model." + std::to_string(7);
        site = mb_intern_site(mb, made.c_str());
    }
    mb_site held = mb_site_begin(mb, site);
    mb_matmul(x, x);
    mb_site_end(&held);
    EXPECT(!std::strncmp(mb_message(mb), "model.7: ", 9));
    mb_clear_error(mb);
}

/* ------------------------------------------------------------------------------------------ backends.h -- */

static void *counted_alloc(void *user, size_t size)
{
    ++*static_cast<long *>(user);
    return std::malloc(size);
}

static void *counted_realloc(void *, void *p, size_t, size_t size)
{
    return std::realloc(p, size);
}

static void counted_free(void *user, void *p, size_t)
{
    *static_cast<long *>(user) -= p != nullptr;
    std::free(p);
}

static void contexts()
{
    EXPECT(mb_version() == std::to_string(MB_VERSION_MAJOR) + "." + std::to_string(MB_VERSION_MINOR) + "." +
                               std::to_string(MB_VERSION_PATCH));
    std::vector<mb_device> devices(8);
    const char *why = nullptr;
    EXPECT(mb_devices(devices.data(), static_cast<int>(devices.size()), &why) >= 1);
    EXPECT(mb_backend_at(0) && !mb_backend_at(1000));

    long live = 0;
    mb_allocator allocator = {counted_alloc, counted_realloc, counted_free, &live};
    mb_options options = {};
    options.backend = "reference";
    options.allocator = &allocator;
    options.log = [](void *, const char *) {};
    mb_context *mb = mb_open_with(&options);
    EXPECT(!std::strcmp(mb_backend_name(mb), "reference") && live > 0);
    EXPECT(is(mb_add(mb_scalar(mb, MB_FLOAT64, 1), 1), 2) && mb_get_stats(mb).flushes == 1);
    EXPECT(mb_close(mb) == MB_OK && live == 0);
}

/* ------------------------------------------------------------------------------------------ autograd.h -- */

static void derivatives(mb_context *mb)
{
    mb_tensor x = mb_add(mb_iota(mb, MB_FLOAT64, 2), 1); /* 1 2 */
    mb_tensor v = mb_ones(mb, MB_FLOAT64, MB_SHAPE(2)), cube = mb_mul(mb_mul(x, x), x),
              y = mb_sum(cube, MB_ALL);
    mb_tensor g, h, first, second;
    EXPECT(mb_grad(y, &x, 1, &g) == MB_OK && is(mb_sum(g, MB_ALL), 15));
    EXPECT(mb_vjp(cube, v, &x, 1, &g) == MB_OK && is(mb_sum(g, MB_ALL), 15));
    EXPECT(mb_jvp(&y, 1, &x, &v, 1, &g) == MB_OK && is(g, 15));
    EXPECT(mb_hvp(y, &x, &v, 1, &h) == MB_OK && is(mb_sum(h, MB_ALL), 18));
    EXPECT(mb_hvp_reverse(y, &x, &v, 1, &h) == MB_OK && is(mb_sum(h, MB_ALL), 18));
    mb_tensor basis = mb_eye(mb, MB_FLOAT64, 2);
    EXPECT(mb_jvp_batch(&y, 1, &x, &basis, 1, &g) == MB_OK && is(mb_sum(g, MB_ALL), 15));
    EXPECT(mb_hvp_batch(y, &x, &basis, 1, &h) == MB_OK && is(mb_sum(h, MB_ALL), 18));
    EXPECT(is(mb_sum(mb_jacobian(cube, x), MB_ALL), 15) && is(mb_sum(mb_hessian(y, &x, 1), MB_ALL), 18));
    EXPECT(mb_hessian_diagonal(y, &x, 1, &h) == MB_OK && is(mb_sum(h, MB_ALL), 18));
    EXPECT(mb_directional(y, &x, &v, 1, &first, &second) == MB_OK && is(first, 15) && is(second, 18));
    mb_tensor alpha, beta;
    EXPECT(mb_lanczos(y, &x, 1, 2, mb_key_of(1), &alpha, &beta) == MB_OK && is(mb_sum(alpha, MB_ALL), 18));
    double smallest = 0, largest = 0;
    EXPECT(mb_extreme_eigenvalues(y, &x, 1, 2, mb_key_of(1), &smallest, &largest) == MB_OK);
    EXPECT(std::fabs(smallest - 6) < 1e-6 && std::fabs(largest - 12) < 1e-6);
}

/* --------------------------------------------------------------------------------------------- files.h -- */

static void safetensors(mb_context *mb, const std::string &folder)
{
    const std::string path = folder + "/two.safetensors";
    const std::array<const char *, 2> names = {"a", "b"};
    const std::array<const char *, 3> metadata = {"made by", "main.cpp", nullptr};
    std::array<mb_tensor, 2> out = {mb_iota(mb, MB_FLOAT32, 3), mb_iota(mb, MB_INT32, 4)}, in = {};
    EXPECT(mb_safetensors_save(mb, path.c_str(), names.data(), out.data(), 2, metadata.data()) == MB_OK);
    EXPECT(mb_safetensors_load(mb, path.c_str(), names.data(), in.data(), 2) == MB_OK);
    EXPECT(is(mb_sum(in[0], MB_ALL), 3) && is(mb_sum(in[1], MB_ALL), 6));

    std::unique_ptr<mb_safetensors, decltype(&mb_safetensors_close)> file(
        mb_safetensors_open(mb, path.c_str()), mb_safetensors_close);
    EXPECT(mb_safetensors_count(file.get()) == 2);
    int b = mb_safetensors_find(file.get(), "b");
    mb_dtype dtype = MB_BOOL;
    EXPECT(!std::strcmp(mb_safetensors_name(file.get(), b), "b") &&
           !std::strcmp(mb_safetensors_dtype_name(file.get(), b), "I32"));
    EXPECT(mb_safetensors_dtype(file.get(), b, &dtype) && dtype == MB_INT32);
    EXPECT(mb_safetensors_shape(file.get(), b).dim[0] == 4);
    EXPECT(is(mb_sum(mb_safetensors_tensor(file.get(), b), MB_ALL), 6));
    const char *key = nullptr, *value = nullptr;
    EXPECT(mb_safetensors_metadata_pair(file.get(), 0, &key, &value) && !std::strcmp(key, metadata[0]));
    EXPECT(!std::strcmp(mb_safetensors_metadata(file.get(), "made by"), "main.cpp"));
}

static std::string write_idx(const std::string &path, std::vector<uint8_t> content)
{
    std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen(path.c_str(), "wb"), std::fclose);
    EXPECT(file && std::fwrite(content.data(), 1, content.size(), file.get()) == content.size());
    return path;
}

static void images(mb_context *mb, const std::string &folder)
{
    std::string pictures =
        write_idx(folder + "/images.idx", {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 255, 0, 0, 255});
    std::string labels = write_idx(folder + "/labels.idx", {0, 0, 8, 1, 0, 0, 0, 2, 4, 9});
    mb_idx idx = {};
    EXPECT(mb_idx_read(mb, labels.c_str(), &idx) == MB_OK && idx.rank == 1 && idx.data[1] == 9);
    mb_idx_free(&idx);

    mb_images_options options = {};
    options.images = pictures.c_str();
    options.labels = labels.c_str();
    mb_images *set = mb_images_open(mb, options);
    EXPECT(mb_images_count(set) == 2 && mb_images_height(set) == 1 && mb_images_width(set) == 2);
    mb_tensor x, y;
    EXPECT(mb_images_batch(set, MB_IN_ORDER, 0, 2, &x, &y) == MB_OK);
    EXPECT(is(mb_sum(x, MB_ALL), 2) && is(mb_sum(y, MB_ALL), 13));
    mb_images_close(set);
    EXPECT(std::strlen(MB_FASHION_MNIST) > 0 && MB_FASHION_MNIST_MEAN < MB_FASHION_MNIST_STD);
}

/* --------------------------------------------------------------------------------------------- optim.h -- */

static void parameters(mb_context *mb, const std::string &folder)
{
    mb_params *p = mb_params_new_with(mb, 1, MB_FLOAT64);
    EXPECT(mb_params_context(p) == mb && mb_params_dtype(p) == MB_FLOAT64);
    EXPECT(mb_params_enter(p, "all") == MB_OK);
    std::vector<mb_init> inits = {mb_init_zeros(),    mb_init_ones(),       mb_init_normal(1),
                                  mb_init_uniform(1), mb_init_xavier(2, 3), mb_init_lecun(3),
                                  mb_init_he(3)};
    for (size_t i = 0; i < inits.size(); i++)
        mb_param(p, ("w" + std::to_string(i)).c_str(), MB_SHAPE(inits.size()), inits[i]);
    mb_param_plain(p, "bias", MB_SHAPE0, mb_init_zeros());
    EXPECT(mb_params_leave(p) == MB_OK);
    EXPECT(mb_params_count(p) == 8 && mb_params_size(p) == 50 &&
           !std::strcmp(mb_params_name(p, 7), "all.bias"));
    EXPECT(mb_params_freeze(p, "all.w0") == MB_OK && !mb_params_trainable(p, 0));
    EXPECT(mb_params_unfreeze(p, "all") == MB_OK && mb_params_trainable(p, 0));
    EXPECT(mb_params_set_decay(p, "all.w0", false) == MB_OK && !mb_params_decays(p, 0) &&
           mb_params_decays(p, 1));
    EXPECT(is(mb_sum(mb_params_get(p, "all.w1"), MB_ALL), 7) &&
           is(mb_sum(mb_params_tensor(p, 0), MB_ALL), 0));
    std::vector<mb_tensor> list(8);
    EXPECT(mb_params_list(p, list.data(), 8) == 8);
    EXPECT(mb_params_alloc(p, 16));
    const std::string path = folder + "/params.safetensors";
    EXPECT(mb_params_save(p, path.c_str()) == MB_OK && mb_params_load(p, path.c_str()) == MB_OK);
    mb_params_free(p);
}

static void schedules()
{
    EXPECT(mb_schedule_factor(mb_schedule_constant(), 5) == 1);
    EXPECT(mb_schedule_factor(mb_schedule_warmup_cosine(2, 10), 0) == 0.5);
    EXPECT(mb_schedule_factor(mb_schedule_steps(3, 0.5), 3) == 0.5);
}

static void take_steps(mb_params *p, mb_optimizer *opt)
{
    mb_tensor w = mb_params_tensor(p, 0), norm,
              gradient = mb_ones(mb_params_context(p), MB_FLOAT32, MB_SHAPE(2));
    EXPECT(mb_step(opt, mb_sum(mb_square(w), MB_ALL)) == MB_OK);
    EXPECT(mb_step_norm(opt, mb_sum(w, MB_ALL), &norm) == MB_OK && is(norm, std::sqrt(2.0)));
    EXPECT(mb_apply_gradients(opt, &gradient, 1) == MB_OK && mb_optimizer_steps(opt) == 3);
}

static void optimisers(mb_context *mb, const std::string &folder)
{
    mb_params *p = mb_params_new(mb, 1);
    mb_param(p, "w", MB_SHAPE(2), mb_init_ones());
    mb_sgd_options sgd = {};
    sgd.lr = 0.1;
    mb_adam_options adam = {};
    adam.lr = 0.1;
    adam.schedule = mb_schedule_steps(10, 0.5);
    mb_adamw_options adamw = {};
    adamw.lr = 0.1;
    for (mb_optimizer *opt : {mb_sgd(p, sgd), mb_adam(p, adam), mb_adamw(p, adamw)}) {
        take_steps(p, opt);
        const std::string path = folder + "/optimizer.safetensors";
        EXPECT(mb_optimizer_save(opt, path.c_str()) == MB_OK &&
               mb_optimizer_load(opt, path.c_str()) == MB_OK);
        mb_optimizer_set_lr(opt, 0.2);
        EXPECT(mb_optimizer_lr(opt) == 0.2);
        for (int i = 0; i < mb_optimizer_state_count(opt); i++)
            EXPECT(mb_optimizer_state_name(opt, i) &&
                   has_shape(mb_optimizer_state_tensor(opt, i), MB_SHAPE(2)));
        mb_optimizer_free(opt);
    }
    mb_params_free(p);
}

static void rules(mb_context *mb)
{
    mb_tensor w = mb_full(mb, MB_FLOAT64, MB_SHAPE(2), 1.0), lr = mb_scalar(mb, MB_FLOAT64, 0.5),
              zero = mb_sub(w, w);
    mb_tensor velocity, m, v, clipped;
    EXPECT(is(mb_sum(mb_sgd_update(w, w, lr), MB_ALL), 1));
    EXPECT(is(mb_sum(mb_momentum_update(w, w, lr, zero, 0.9, false, &velocity), MB_ALL), 1));
    EXPECT(is(mb_sum(mb_adam_update(w, w, lr, zero, zero, 1, nullptr, &m, &v), MB_ALL), 1));
    EXPECT(is(mb_global_norm(&w, 1), std::sqrt(2.0)) && is(mb_clip_norm(&w, 1, 1, &clipped), std::sqrt(2.0)));
    EXPECT(is(mb_sum(mb_clip_value(w, 0.25), MB_ALL), 0.5));
}

/* -------------------------------------------------------------------------------------------- layers.h -- */

static void small_layers(mb_context *mb, mb_params *p)
{
    mb_tensor x = mb_normal(mb, mb_key_of(3), MB_FLOAT32, MB_SHAPE(2, 4, 8));
    mb_linear_options no_bias = {};
    no_bias.no_bias = true;
    mb_tensor ids = mb_iota(mb, MB_INT32, 4), one = mb_ones(mb, MB_FLOAT32, MB_SHAPE(8));
    EXPECT(has_shape(mb_linear_apply(mb_linear_new(p, "linear", 8, 3), x), MB_SHAPE(2, 4, 3)));
    EXPECT(has_shape(mb_linear_apply(mb_linear_new_with(p, "plain", 8, 3, no_bias), x), MB_SHAPE(2, 4, 3)));
    EXPECT(has_shape(mb_embedding_apply(mb_embedding_new(p, "embedding", 5, 8), ids), MB_SHAPE(4, 8)));
    EXPECT(has_shape(mb_layer_normalize(x, one, MB_EMPTY(mb_tensor), 1e-6), MB_SHAPE(2, 4, 8)));
    EXPECT(has_shape(mb_rms_normalize(x, one, 1e-6), MB_SHAPE(2, 4, 8)));
    EXPECT(has_shape(mb_layer_norm_apply(mb_layer_norm_new(p, "norm", 8), x), MB_SHAPE(2, 4, 8)));
    EXPECT(has_shape(mb_rms_norm_apply(mb_rms_norm_new(p, "rms", 8), x), MB_SHAPE(2, 4, 8)));
    EXPECT(has_shape(mb_mlp_apply(mb_mlp_new(p, "mlp", 8, 16), x), MB_SHAPE(2, 4, 8)));
    mb_tensor heads = mb_reshape(x, MB_SHAPE(2, 4, 2, 4));
    EXPECT(has_shape(mb_attend(heads, heads, heads, MB_ATTENTION_LINEAR, true, 0), MB_SHAPE(2, 4, 2, 4)));
    mb_attention_options attention = {};
    attention.dim = 8;
    attention.heads = 2;
    EXPECT(has_shape(mb_attention_apply(mb_attention_new(p, "attention", attention), x), MB_SHAPE(2, 4, 8)));
}

static void in_context(mb_context *mb, mb_params *p)
{
    mb_tensor x = mb_normal(mb, mb_key_of(4), MB_FLOAT32, MB_SHAPE(2, 5, 3));
    mb_tensor z = mb_prompt_tokens(x, mb_slice(mb_sum(x, MB_AXES(2)), 1, 0, 4, 1));
    EXPECT(has_shape(z, MB_SHAPE(2, 5, 4)));
    mb_linear_transformer_options options = {};
    options.dim = 3;
    options.layers = 2;
    mb_linear_transformer made = mb_linear_transformer_new(p, "linear_transformer", options);
    mb_tensor theta = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(mb_linear_transformer_size(&options)));
    mb_linear_transformer view = mb_linear_transformer_view(theta, options);
    EXPECT(has_shape(mb_linear_transformer_apply(made, z), MB_SHAPE(2, 5, 4)));
    EXPECT(is(mb_sum(mb_linear_transformer_predict(view, z), MB_ALL), 0));

    mb_self_attention_options self = {};
    self.dim = 3;
    self.layers = 1;
    mb_self_attention layer = mb_self_attention_new(p, "self_attention", self);
    EXPECT(has_shape(mb_self_attention_apply(layer, z), MB_SHAPE(2, 5, 4)));
    mb_linear_transformer products = mb_self_attention_products(layer);
    mb_tensor by_products = mb_linear_transformer_predict(products, z);
    EXPECT(is(mb_sum(mb_abs(mb_sub(mb_self_attention_predict(layer, z), by_products)), MB_ALL), 0));
    mb_tensor eta = mb_scalar(mb, MB_FLOAT32, 0.1), none = MB_EMPTY(mb_tensor);
    mb_self_attention gd = mb_self_attention_gd(eta, none, none, 4, self);
    EXPECT(has_shape(mb_self_attention_predict(gd, z), MB_SHAPE(2, 1)));
}

/* A learner and a mixer of one's own, from lambdas. */
static mb_mixer_options own_mixer()
{
    static const mb_learner_weight weight = {"W1", MB_SHAPE(4, 4), mb_init_xavier(4, 4), false};
    mb_mixer_options mixer = {};
    mixer.kind = MB_MIXER_CUSTOM;
    mixer.heads = 2;
    mixer.make = [](void *, mb_params *p, int64_t dim) {
        mb_ttt_options options = {};
        options.dim = dim;
        options.heads = 2;
        options.inner_steps = 1;
        options.learner = MB_LEARNER_CUSTOM;
        options.custom.apply = [](void *, const mb_tensor *weights, int, mb_tensor x) {
            return mb_matmul(x, weights[0]);
        };
        options.custom.weights = &weight;
        options.custom.n = 1;
        mb_ttt *layer = mb_ttt_new(p, "ttt", options);
        mb_ttt_set_inner_lr(layer, 0, 0.5);
        mb_mixer made = {};
        made.layer = layer;
        made.losses = mb_ttt_inner_steps(layer) + 1;
        made.apply = [](const void *own, mb_tensor x, mb_key key, mb_tensor *losses) {
            return mb_ttt_apply(static_cast<const mb_ttt *>(own), x, key, losses);
        };
        return made;
    };
    return mixer;
}

static void transformers(mb_context *mb, mb_params *p)
{
    mb_mixer_options mixer = own_mixer();
    mb_tensor x = mb_normal(mb, mb_key_of(5), MB_FLOAT32, MB_SHAPE(2, 4, 8)), losses[4];
    EXPECT(mb_params_enter(p, "mixer") == MB_OK);
    mb_mixer mixing = mb_mixer_new(p, 8, &mixer);
    EXPECT(mb_params_leave(p) == MB_OK);
    EXPECT(has_shape(mb_mixer_apply(mixing, x, MB_NO_KEY, losses), MB_SHAPE(2, 4, 8)));
    mb_block block = mb_block_new(p, "block", 8, 0, &mixer);
    EXPECT(has_shape(mb_block_apply(&block, x, MB_NO_KEY, nullptr), MB_SHAPE(2, 4, 8)));

    mb_tensor patches = mb_patchify(mb_reshape(x, MB_SHAPE(2, 4, 8)), 2);
    EXPECT(has_shape(mb_sincos2d(mb, MB_FLOAT32, 2, 4, 8), MB_SHAPE(8, 8)) &&
           has_shape(patches, MB_SHAPE(2, 8, 4)));
    mb_vit_options options = {};
    options.tokens = 8;
    options.patch_values = 4;
    options.dim = 8;
    options.depth = 2;
    options.classes = 3;
    options.mixer = mixer;
    mb_vit *vit = mb_vit_new(p, "vit", options);
    EXPECT(mb_vit_depth(vit) == 2 && mb_vit_losses(vit) == 2 && mb_vit_block(vit, 0)->mixer.losses == 2);
    mb_tensor logits = mb_vit_apply(vit, patches, mb_key_of(1), losses);
    EXPECT(has_shape(logits, MB_SHAPE(2, 3)) && std::isfinite(mb_item(mb_sum(logits, MB_ALL))));
}

int main(int argc, char **argv)
{
    const std::string folder = argc > 1 ? argv[1] : ".";
    contexts();
    mb_context *mb = mb_open(nullptr);
    for (auto part : {lists, elementwise, leaves, random_numbers, movement, reductions, common_functions,
                      scopes, errors, derivatives, rules})
        part(mb);
    for (auto part : {safetensors, images, parameters, optimisers})
        part(mb, folder);
    schedules();
    mb_params *p = mb_params_new(mb, 42);
    for (auto part : {small_layers, in_context, transformers})
        part(mb, p);
    EXPECT(mb_error(mb) == MB_OK);
    if (mb_error(mb) != MB_OK)
        std::printf("%s\n", mb_message(mb));
    mb_params_free(p);
    EXPECT(mb_close(mb) == MB_OK);
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
