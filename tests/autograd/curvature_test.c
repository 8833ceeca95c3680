/* SPDX-License-Identifier: MIT
 *
 * curvature_test.c - Jacobians, Hessians, their diagonals and extreme eigenvalues: closed forms, each way to
 * a product with the Hessian against the others and against differences, derivatives of all of these. That a
 * batch of directions equals one at a time is tested for every op by gradcheck.c. */
#include "support.h"

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

static void expect_values(mb_tensor t, const double *want, double tolerance, const char *what)
{
    const double *got = values(t);
    double top = 0;
    for (int64_t i = 0; i < mb_count(t); i++)
        top = fmax(top, fabs(want[i]));
    for (int64_t i = 0; i < mb_count(t); i++)
        expect(fabs(got[i] - want[i]) <= tolerance * top, "%s on %s: element %lld is %.17g, not %.17g", what,
               mb_backend_name(t.ctx), (long long)i, got[i], want[i]);
}

/* ---- quadratics: everything is known ---- */

enum { P = 11 };

/* H = R diag(1, -2, 3, ...) R^T with an orthogonal R. */
static mb_tensor symmetric(mb_context *ctx, double *spectrum)
{
    for (int i = 0; i < P; i++)
        spectrum[i] = i % 2 ? -(i + 1.0) : i + 1.0;
    mb_tensor R = mb_orthogonal(ctx, mb_key_of(5), MB_FLOAT64, MB_SHAPE(P, P));
    mb_tensor d = mb_from(ctx, MB_FLOAT64, MB_SHAPE(P), spectrum);
    return mb_matmul(mb_mul(R, d), mb_transpose(R));
}

/* x^T H x / 2 + b^T x of three tensors taken as one vector */
static mb_tensor quadratic(mb_tensor H, mb_tensor b, const mb_tensor *xs)
{
    mb_tensor parts[3];
    for (int i = 0; i < 3; i++)
        parts[i] = mb_reshape(xs[i], MB_SHAPE(-1));
    mb_tensor x = mb_concat(parts, 3, 0);
    return mb_add(mb_mul(mb_dot(x, mb_einsum("ij,j->i", H, x)), 0.5), mb_dot(b, x));
}

Test(curvature, quadratic)
{
    ON_BOTH
    {
        double spectrum[P];
        mb_tensor H = symmetric(ctx, spectrum), b = mb_iota(ctx, MB_FLOAT64, P);
        mb_shape shapes[3] = {MB_SHAPE(2, 3), MB_SHAPE0, MB_SHAPE(4)};
        rng r = {3};
        mb_tensor xs[3], us[3], hs[3], rs[3], ds[3], first, second;
        for (int i = 0; i < 3; i++) {
            xs[i] = draw(ctx, &r, MB_FLOAT64, shapes[i], -1, 1);
            us[i] = draw(ctx, &r, MB_FLOAT64, shapes[i], -1, 1);
        }
        mb_tensor y = quadratic(H, b, xs), flat_u[3], flat_x[3];
        const double *h = values(H);
        expect_values(mb_hessian(y, xs, 3), h, 1e-14, "hessian");

        double diagonal[P];
        for (int i = 0; i < P; i++)
            diagonal[i] = h[i * P + i];
        mb_hessian_diagonal(y, xs, 3, ds);
        for (int i = 0, start = 0; i < 3; start += (int)mb_count(xs[i]), i++) {
            expect(same_shape(mb_shape_of(ds[i]), shapes[i]), "diagonal %d has shape %s", i,
                   shape_text(mb_shape_of(ds[i])));
            expect_values(ds[i], diagonal + start, 1e-13, "diagonal");
            flat_u[i] = mb_reshape(us[i], MB_SHAPE(-1));
            flat_x[i] = mb_reshape(xs[i], MB_SHAPE(-1));
        }
        mb_tensor u = mb_concat(flat_u, 3, 0), x = mb_concat(flat_x, 3, 0);
        mb_tensor Hu = mb_einsum("ij,j->i", H, u);
        mb_hvp(y, xs, us, 3, hs);
        mb_hvp_reverse(y, xs, us, 3, rs);
        for (int i = 0, start = 0; i < 3; start += (int)mb_count(xs[i]), i++) {
            expect_values(hs[i], values(Hu) + start, 1e-13, "forward over reverse");
            expect_values(rs[i], values(Hu) + start, 1e-13, "reverse over reverse");
        }
        mb_directional(y, xs, us, 3, &first, &second);
        double slope = mb_item(mb_dot(u, mb_add(mb_einsum("ij,j->i", H, x), b)));
        expect(near(mb_item(first), slope, 1e-13, 1e-13), "slope %.17g, not %.17g", mb_item(first), slope);
        expect(near(mb_item(second), mb_item(mb_dot(u, Hu)), 1e-13, 1e-13), "curvature %.17g",
               mb_item(second));

        /* With as many steps as elements the tridiagonal matrix has all eigenvalues; with fewer its own lie
         * inside. */
        double low, high;
        mb_extreme_eigenvalues(y, xs, 3, 100, mb_key_of(1), &low, &high);
        expect(near(low, -10, 1e-11, 0) && near(high, 11, 1e-11, 0), "%s: eigenvalues %.15g to %.15g",
               backend_names[k], low, high);
        mb_extreme_eigenvalues(y, xs, 3, 6, mb_key_of(1), &low, &high);
        expect(low > -10 && low < -5 && high < 11 && high > 5, "after 6 steps %.15g to %.15g", low, high);
        mb_tensor alpha, beta;
        mb_lanczos(y, xs, 3, 100, mb_key_of(1), &alpha, &beta);
        double trace = mb_item(mb_sum(alpha, MB_ALL)), want = 0;
        for (int i = 0; i < P; i++)
            want += spectrum[i];
        expect(mb_count(alpha) == P && mb_count(beta) == P && near(trace, want, 0, 1e-10), "trace %.15g",
               trace);
        expect(mb_item(mb_slice(beta, 0, P - 1, 1, 1)) == 0, "the space is used up");
    }
}

/* A multiple of the identity ends the Krylov space at once, and so does a Hessian of zeros. */
Test(curvature, lanczos_ends_early)
{
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            mb_tensor x = mb_cast(mb_iota(ctx, MB_INT32, 9), (mb_dtype)d), alpha, beta;
            double low, high, tolerance = d ? 1e-13 : 1e-5;
            mb_extreme_eigenvalues(mb_mul(mb_dot(x, x), 1.5), &x, 1, 5, mb_key_of(2), &low, &high);
            expect(near(low, 3, tolerance, 0) && near(high, 3, tolerance, 0), "3 I: %.15g to %.15g", low,
                   high);
            mb_lanczos(mb_mul(mb_dot(x, x), 1.5), &x, 1, 5, mb_key_of(2), &alpha, &beta);
            const double *a = values(alpha), *b = values(beta);
            for (int i = 0; i < 5; i++)
                expect(b[i] == 0 && (i == 0 || a[i] == 0), "step %d: alpha %g, beta %g", i, a[i], b[i]);
            mb_extreme_eigenvalues(mb_sum(x, MB_ALL), &x, 1, 5, mb_key_of(2), &low, &high);
            expect(low == 0 && high == 0, "zeros: %g to %g", low, high);
            /* Two different eigenvalues: two steps. */
            mb_tensor two = mb_mul(mb_dot(x, x), 0.5), front = mb_slice(x, 0, 0, 4, 1);
            two = mb_sub(two, mb_mul(mb_dot(front, front), 2.0));
            mb_extreme_eigenvalues(two, &x, 1, 5, mb_key_of(2), &low, &high);
            expect(near(low, -3, tolerance, 0) && near(high, 1, tolerance, 0), "%.15g to %.15g", low, high);
        }
}

/* Nothing of it is absolute: Hessians of any size have their eigenvalues, and of a spectrum over 14 orders of
 * magnitude no direction comes twice, which would count its eigenvalue again; those below 1e-10 of the
 * largest are left out. */
Test(curvature, lanczos_knows_no_scale)
{
    enum { COUNT = 40 };
    ON_BOTH
    {
        static const double sizes[] = {1e-12, 1e12};
        mb_tensor x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(9)), d = mb_add(mb_iota(ctx, MB_INT32, 9), 1);
        for (int i = 0; i < 2; i++) {
            double low, high, c = sizes[i];
            mb_tensor y = mb_mul(mb_sum(mb_mul(mb_cast(d, MB_FLOAT64), mb_square(x)), MB_ALL), 0.5 * c);
            mb_extreme_eigenvalues(y, &x, 1, 9, mb_key_of(5), &low, &high);
            expect(near(low / c, 1, 1e-11, 0) && near(high / c, 9, 1e-11, 0), "%s: %g times %.15g to %.15g",
                   backend_names[k], c, low / c, high / c);
        }
        double spectrum[COUNT], trace = 0;
        for (int i = 0; i < COUNT; i++)
            trace += spectrum[i] = pow(10, 14.0 * i / (COUNT - 1));
        mb_tensor wide = mb_from(ctx, MB_FLOAT64, MB_SHAPE(COUNT), spectrum), alpha, beta;
        mb_tensor z = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(COUNT));
        mb_lanczos(mb_mul(mb_sum(mb_mul(wide, mb_square(z)), MB_ALL), 0.5), &z, 1, COUNT, mb_key_of(6),
                   &alpha, &beta);
        double found = mb_item(mb_sum(alpha, MB_ALL));
        expect(near(found, trace, 1e-6, 0), "%s: trace %.15g, not %.15g", backend_names[k], found, trace);
    }
}

/* One eigenvalue that is a thousand million times the others: what a single pass of orthogonalisation leaves
 * of its direction, 1e-8, comes back squared times 1e9, and is more than a thousand times what is allowed
 * here. */
Test(curvature, lanczos_is_orthogonal_beside_a_large_eigenvalue)
{
    static const double spectrum[] = {1e9, 1, 2, 3, 4, 5};
    ON_BOTH
    {
        mb_tensor d = mb_from(ctx, MB_FLOAT64, MB_SHAPE(6), spectrum),
                  x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(6));
        mb_tensor alpha, beta;
        mb_lanczos(mb_mul(mb_sum(mb_mul(d, mb_square(x)), MB_ALL), 0.5), &x, 1, 6, mb_key_of(3), &alpha,
                   &beta);
        double trace = mb_item(mb_sum(alpha, MB_ALL));
        expect(near(trace - 1e9, 15, 0, 1e-6), "%s: trace 1e9 + %.9g, not 15", backend_names[k], trace - 1e9);
    }
}

/* ---- a function without a closed form that is worth writing ---- */

enum { D = 5 };

/* A small network with a softmax, a maximum and a division; weights: [D,D] and [D]. */
static mb_tensor network(mb_context *ctx, const mb_tensor *xs)
{
    rng r = {7};
    mb_tensor data = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(8, D), -1, 1);
    mb_tensor hidden = mb_tanh(mb_add(mb_matmul(data, xs[0]), xs[1]));
    mb_tensor weights = mb_softmax(mb_matmul(hidden, mb_transpose(data)), -1);
    mb_tensor top = mb_max(mb_matmul(weights, hidden), MB_AXES(0));
    return mb_div(mb_sum(mb_exp(top), MB_ALL), mb_add(mb_dot(xs[1], xs[1]), 1.0));
}

/* (grad(x + h v) - grad(x - h v)) / 2h, extrapolated from h and 2h, into `to`: D D + D numbers. */
static void difference(mb_context *ctx, const mb_tensor *xs, const mb_tensor *vs, double *to)
{
    const double h = 1e-3, factor[4] = {8, -8, -1, 1}, at[4] = {h, -h, 2 * h, -2 * h};
    for (int i = 0; i < D * D + D; i++)
        to[i] = 0;
    for (int s = 0; s < 4; s++) {
        mb_tensor moved[2], g[2];
        for (int i = 0; i < 2; i++)
            moved[i] = mb_add(xs[i], mb_mul(vs[i], at[s]));
        mb_grad(network(ctx, moved), moved, 2, g);
        for (int i = 0; i < D * D + D; i++)
            to[i] += factor[s] * (i < D * D ? values(g[0])[i] : values(g[1])[i - D * D]) / (12 * h);
    }
}

Test(curvature, every_way_to_a_product)
{
    ON_BOTH
    {
        rng r = {13};
        mb_tensor xs[2], vs[2], hs[2], rs[2], bs[2], batch[2];
        for (int i = 0; i < 2; i++) {
            mb_shape shape = i ? MB_SHAPE(D) : MB_SHAPE(D, D);
            xs[i] = draw(ctx, &r, MB_FLOAT64, shape, -1, 1);
            vs[i] = draw(ctx, &r, MB_FLOAT64, shape, -1, 1);
            batch[i] = mb_stack(((mb_tensor[]){vs[i], mb_mul(vs[i], -2.0), xs[i]}), 3, 0);
        }
        mb_tensor y = network(ctx, xs);
        mb_hvp(y, xs, vs, 2, hs);
        mb_hvp_reverse(y, xs, vs, 2, rs);
        mb_hvp_batch(y, xs, batch, 2, bs);
        double slope[D * D + D];
        difference(ctx, xs, vs, slope);
        mb_tensor H = mb_hessian(y, xs, 2), ds[2], second;
        const double *h = values(H);
        for (int i = 0; i < 2; i++) {
            const double *want = values(rs[i]);
            expect_values(hs[i], want, 1e-12, "forward over reverse");
            /* difference quotient: h^4 in the step, 1e-16 / h in rounding */
            expect_values(hs[i], slope + (i ? D * D : 0), 1e-8, "differences");
            expect_values(mb_squeeze(mb_slice(bs[i], 0, 0, 1, 1), 0), want, 1e-12, "batch");
            expect_values(mb_squeeze(mb_mul(mb_slice(bs[i], 0, 1, 1, 1), -0.5), 0), want, 1e-12, "batch");
        }
        mb_hessian_diagonal(y, xs, 2, ds);
        for (int i = 0; i < D * D + D; i++)
            expect(near(i < D * D ? values(ds[0])[i] : values(ds[1])[i - D * D], h[i * (D * D + D) + i],
                        1e-12, 1e-14),
                   "diagonal %d", i);
        mb_directional(y, xs, vs, 2, NULL, &second);
        double vHv = mb_item(mb_add(mb_dot(vs[0], hs[0]), mb_dot(vs[1], hs[1])));
        expect(near(mb_item(second), vHv, 1e-12, 0), "%.17g along the line, %.17g by products",
               mb_item(second), vHv);
        /* the ends of the spectrum by power iteration on the shifted matrix, in plain C */
        double low, high, v[D * D + D], w[D * D + D], size = 0;
        mb_extreme_eigenvalues(y, xs, 2, 30, mb_key_of(3), &low, &high);
        for (int side = 0; side < 2; side++) {
            double shift = side ? low - 1 : high + 1, value = 0;
            for (int i = 0; i < D * D + D; i++)
                v[i] = sin(i + 1.0);
            for (int step = 0; step < 4000; step++) {
                size = value = 0;
                for (int i = 0; i < D * D + D; i++) {
                    w[i] = -shift * v[i];
                    for (int j = 0; j < D * D + D; j++)
                        w[i] += h[i * (D * D + D) + j] * v[j];
                    size += w[i] * w[i];
                    value += v[i] * w[i];
                }
                for (int i = 0; i < D * D + D; i++)
                    v[i] = w[i] / sqrt(size);
            }
            expect(near(value + shift, side ? high : low, 1e-9, 0),
                   "eigenvalue %.15g by Lanczos, %.15g by powers", side ? high : low, value + shift);
        }
    }
}

/* The vector of a product counts as constant also where it depends on the variables, both ways. */
Test(curvature, vectors_that_depend_on_the_variable)
{
    ON_BOTH
    {
        rng r = {17};
        mb_tensor x = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(6), 0.5, 1),
                  y = mb_sum(mb_exp(mb_mul(x, x)), MB_ALL);
        mb_tensor g, forward, reverse, second;
        mb_grad(y, &x, 1, &g);
        mb_hvp(y, &x, &g, 1, &forward);
        mb_hvp_reverse(y, &x, &g, 1, &reverse);
        double want[6], curvature = 0;
        for (int i = 0; i < 6; i++) {
            double t = values(x)[i], e = exp(t * t), slope = 2 * t * e;
            want[i] = (2 + 4 * t * t) * e * slope;
            curvature += slope * want[i];
        }
        expect_values(forward, want, 1e-13, "forward over reverse");
        expect_values(reverse, want, 1e-13, "reverse over reverse");
        mb_directional(y, &x, &g, 1, NULL, &second);
        expect(near(mb_item(second), curvature, 1e-13, 0), "%.17g, not %.17g", mb_item(second), curvature);
    }
}

/* As power iteration is written: the product in place of its vector. */
Test(curvature, products_in_place)
{
    ON_BOTH
    {
        mb_tensor x = mb_full(ctx, MB_FLOAT64, MB_SHAPE(3), 2), y = mb_sum(mb_mul(x, mb_mul(x, x)), MB_ALL);
        mb_tensor v[3] = {mb_iota(ctx, MB_FLOAT64, 3), mb_iota(ctx, MB_FLOAT64, 3),
                          mb_reshape(mb_iota(ctx, MB_FLOAT64, 3), MB_SHAPE(1, 3))};
        mb_hvp(y, &x, &v[0], 1, &v[0]);
        mb_hvp_reverse(y, &x, &v[1], 1, &v[1]);
        mb_hvp_batch(y, &x, &v[2], 1, &v[2]);
        for (int i = 0; i < 3; i++)
            expect_values(v[i], ((double[]){0, 12, 24}), 0, "6 x v");
    }
}

/* y = sum x^4: H = diag(12 x^2). Its trace, a product with it, and Lanczos' numbers have derivatives. */
Test(curvature, derivatives_of_curvature)
{
    ON_BOTH
    {
        static const double at[3] = {0.5, -1, 2};
        mb_tensor x = mb_from(ctx, MB_FLOAT64, MB_SHAPE(3), at), s = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 1.5);
        mb_tensor y = mb_mul(mb_sum(mb_square(mb_square(x)), MB_ALL), s), d, t, g, first, second, third;
        double want[3];
        mb_tensor H = mb_hessian(y, &x, 1);
        mb_grad(mb_sum(mb_mul(H, mb_eye(ctx, MB_FLOAT64, 3)), MB_ALL), &x, 1, &t);
        for (int i = 0; i < 3; i++)
            want[i] = 24 * 1.5 * at[i];
        expect_values(t, want, 1e-13, "gradient of the trace");
        mb_hessian_diagonal(y, &x, 1, &d);
        mb_grad(d, &x, 1, &g);
        expect_values(g, want, 1e-13, "gradient of the diagonal");
        mb_hessian_diagonal(g, &x, 1, &d); /* of 36 x: nothing is left */
        expect(values(d)[0] == 0 && values(d)[2] == 0, "fifth derivative");

        mb_tensor u = mb_from(ctx, MB_FLOAT64, MB_SHAPE(3), ((double[]){1, 2, -1}));
        mb_directional(y, &x, &u, 1, &first, &second);
        mb_jvp(&second, 1, &x, &u, 1, &third);
        expect(near(mb_item(third), 24 * 1.5 * (0.5 - 8 - 2), 1e-13, 0), "third derivative %.17g",
               mb_item(third));
        mb_grad(second, &s, 1, &g);
        expect(near(mb_item(g), 12 * (0.25 + 4 + 4), 1e-13, 0), "curvature by a parameter: %.17g",
               mb_item(g));

        /* y is linear in s, so alpha and beta are as well: d alpha / ds = alpha / s. */
        mb_tensor alpha, beta, da, db;
        mb_lanczos(y, &x, 1, 2, mb_key_of(4), &alpha, &beta);
        mb_jacobian(alpha, s);
        da = mb_mul(mb_jacobian(alpha, s), 1.5), db = mb_mul(mb_jacobian(beta, s), 1.5);
        expect_values(da, values(alpha), 1e-12, "derivative of alpha");
        expect_values(db, values(beta), 1e-12, "derivative of beta");
    }
}

/* ---- Jacobians ---- */

Test(curvature, jacobian_of_known_functions)
{
    ON_BOTH
    {
        rng r = {19};
        mb_tensor a = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(2, 3), -1, 1),
                  x = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(3, 2), -1, 1);
        const double *av = values(a), *xv = values(x);
        mb_tensor wide = mb_square(mb_matmul(x, a)), /* [3,3] of 6: forward */
            narrow = mb_square(mb_matmul(a, x));     /* [2,2] of 6: by the transposed way */
        mb_tensor jw = mb_jacobian(wide, x), jn = mb_jacobian(narrow, x);
        expect(same_shape(mb_shape_of(jw), MB_SHAPE(3, 3, 3, 2)), "%s", shape_text(mb_shape_of(jw)));
        expect(same_shape(mb_shape_of(jn), MB_SHAPE(2, 2, 3, 2)), "%s", shape_text(mb_shape_of(jn)));
        double w[54] = {0}, n[24] = {0};
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 3; j++) {
                double p = xv[i * 2] * av[j] + xv[i * 2 + 1] * av[3 + j];
                for (int l = 0; l < 2; l++)
                    w[((i * 3 + j) * 3 + i) * 2 + l] = 2 * p * av[l * 3 + j];
            }
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 2; j++) {
                double p = 0;
                for (int l = 0; l < 3; l++)
                    p += av[i * 3 + l] * xv[l * 2 + j];
                for (int l = 0; l < 3; l++)
                    n[((i * 2 + j) * 3 + l) * 2 + j] = 2 * p * av[i * 3 + l];
            }
        expect_values(jw, w, 1e-13, "forward");
        expect_values(jn, n, 1e-13, "transposed");
        /* The Hessian is the gradient's Jacobian. */
        mb_tensor y = mb_sum(mb_exp(narrow), MB_ALL), g;
        mb_grad(y, &x, 1, &g);
        expect_values(mb_reshape(mb_jacobian(g, x), MB_SHAPE(6, 6)), values(mb_hessian(y, &x, 1)), 1e-12,
                      "of the gradient");
        /* of nothing, by nothing, of what does not depend */
        expect(same_shape(mb_shape_of(mb_jacobian(mb_slice(x, 0, 0, 0, 1), x)), MB_SHAPE(0, 2, 3, 2)),
               "no y");
        expect(mb_count(mb_hessian(mb_sum(x, MB_ALL), ((mb_tensor[]){mb_slice(x, 0, 0, 0, 1)}), 1)) == 0,
               "no x");
        const double *zeros = values(mb_jacobian(a, x));
        for (int i = 0; i < 36; i++)
            expect(zeros[i] == 0, "independent: %g", zeros[i]);
    }
}

/* So many elements on the way that directions are taken one or a few at a time. */
Test(curvature, in_several_batches)
{
    mb_context *ctx = open_on("cpu");
    static const int64_t sizes[] = {20000, 76000}; /* with basis: three of the seven at a time, and one */
    for (int k = 0; k < 2; k++) {
        int64_t size = sizes[k];
        mb_tensor x = mb_from(ctx, MB_FLOAT64, MB_SHAPE(7), ((double[]){1, -2, 3, -4, 5, -6, 7})), d;
        mb_tensor ramp = mb_mul(mb_iota(ctx, MB_FLOAT64, size), 1.0 / (double)size);
        mb_tensor powers[7];
        for (int i = 0; i < 7; i++)
            powers[i] = mb_cos(mb_mul(ramp, (double)(i + 1)));
        mb_tensor basis = mb_stack(powers, 7, 0), f = mb_sin(mb_einsum("i,in->n", x, basis));
        mb_tensor y = mb_mul(mb_sum(f, MB_ALL), 1.0 / (double)size);
        mb_tensor want = mb_einsum("in,jn->ij", mb_mul(basis, mb_mul(f, -1.0 / (double)size)), basis);
        expect_values(mb_hessian(y, &x, 1), values(want), 1e-10, "hessian");
        mb_hessian_diagonal(y, &x, 1, &d);
        expect_values(d, values(mb_sum(mb_mul(want, mb_eye(ctx, MB_FLOAT64, 7)), MB_AXES(0))), 1e-10,
                      "diagonal");
        mb_tensor means = mb_mean(mb_reshape(f, MB_SHAPE(4, -1)), MB_AXES(1)), j = mb_jacobian(means, x);
        mb_tensor slopes = mb_mul(basis, mb_cos(mb_einsum("i,in->n", x, basis)));
        slopes = mb_mean(mb_reshape(slopes, MB_SHAPE(7, 4, -1)), MB_AXES(2));
        expect_values(j, values(mb_transpose(slopes)), 1e-10, "jacobian");
    }
    close_all();
}

/* A parameter that a step has just changed stands for its new value. */
Test(curvature, of_a_variable)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor x = mb_variable(ctx, MB_FLOAT64, MB_SHAPE(2));
    mb_assign(x, mb_from(ctx, MB_FLOAT64, MB_SHAPE(2), ((double[]){1, 2})));
    for (int step = 0; step < 3; step++) {
        mb_scope scope = mb_scope_begin(ctx);
        mb_tensor y = mb_sum(mb_mul(x, mb_mul(x, x)), MB_ALL), H = mb_hessian(y, &x, 1);
        double low, high, scale = 1 << step;
        mb_extreme_eigenvalues(y, &x, 1, 2, mb_key_of((uint64_t)step), &low, &high);
        expect_values(H, ((double[]){6 * scale, 0, 0, 12 * scale}), 1e-14, "hessian");
        expect(near(low, 6 * scale, 1e-12, 0) && near(high, 12 * scale, 1e-12, 0), "%g to %g", low, high);
        mb_assign(x, mb_mul(x, 2.0));
        mb_scope_end(scope);
    }
    close_all();
}

/* ---- faults ---- */

static mb_status all_of_it(const mb_allocator *allocator)
{
    mb_context *ctx = mb_open_with(
        &(mb_options){.backend = "reference", .threads = 1, .disable = "", .allocator = allocator});
    if (!ctx)
        return MB_NO_MEMORY;
    mb_tensor xs[2], us[2], hs[2], ds[2], second, alpha, beta;
    for (int i = 0; i < 2; i++) {
        xs[i] = mb_normal(ctx, mb_key_of((uint64_t)i), MB_FLOAT64, i ? MB_SHAPE(D) : MB_SHAPE(D, D));
        us[i] = mb_normal(ctx, mb_key_of((uint64_t)i + 2), MB_FLOAT64, i ? MB_SHAPE(D) : MB_SHAPE(D, D));
    }
    mb_tensor y = mb_sum(mb_exp(mb_mul(mb_sin(mb_matmul(xs[0], xs[0])), xs[1])), MB_ALL);
    mb_hvp_reverse(y, xs, us, 2, hs);
    mb_hessian_diagonal(y, xs, 2, ds);
    mb_directional(y, xs, us, 2, NULL, &second);
    mb_lanczos(y, xs, 2, 2, mb_key_of(1), &alpha, &beta);
    mb_tensor J = mb_jacobian(mb_matmul(xs[0], xs[0]), xs[1]), H = mb_hessian(y, xs, 2);
    mb_eval(((mb_tensor[]){hs[0], hs[1], ds[0], ds[1], second, alpha, beta, J, H}), 9);
    double low, high;
    mb_extreme_eigenvalues(y, xs, 2, 2, mb_key_of(1), &low, &high);
    return mb_close(ctx);
}

/* The n-th allocation fails, for every n: an error, nothing crashes, nothing leaks. */
/* The n-th allocation fails, and with an odd n all that follow; a single failure may be got over. */
Test(curvature, every_allocation_fails)
{
    counter c = {0};
    mb_allocator allocator = counting_allocator(&c);
    expect(all_of_it(&allocator) == MB_OK && c.blocks == 0, "without faults");
    for (uint64_t n = 1, calls = c.calls; n <= calls; n += 1 + calls / 400) {
        c = (counter){.fail_at = n, .fail_on = n % 2};
        mb_status status = all_of_it(&allocator);
        expect((status == MB_NO_MEMORY || (status == MB_OK && n % 2 == 0)) && c.blocks == 0,
               "allocation %llu of %llu fails: %s, %lld blocks left", (unsigned long long)n,
               (unsigned long long)calls, mb_status_name(status), (long long)c.blocks);
    }
}

/* ---- mistakes ---- */

static void expect_error(mb_context *ctx, const char *part)
{
    expect(mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), part) &&
               strstr(mb_message(ctx), "curvature_test.c"),
           "wanted \"%s\" in: %s", part, mb_message(ctx));
    mb_clear_error(ctx);
}

Test(curvature, mistakes)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor x = mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(3)), f = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(3)), t, u;
    mb_tensor y = mb_add(mb_dot(x, x), mb_cast(mb_dot(f, f), MB_FLOAT64)), both[2] = {x, f}, out[2];
    mb_tensor row = mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(1, 3)),
              wide = mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(2, 4));
    double low = 0, high = 0;
    mb_jvp_batch(&y, 1, &x, &x, 1, &t);
    expect_error(ctx, "jvp_batch: got the tangents");
    mb_jvp_batch(&y, 1, &x, &wide, 1, &t);
    expect_error(ctx, "jvp_batch: got the tangents");
    mb_hvp_batch(y, ((mb_tensor[]){x, x}), ((mb_tensor[]){row, mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(2, 3))}), 2,
                 out);
    expect_error(ctx, "hvp_batch: got the tangents");
    expect(!mb_valid(mb_hessian(y, both, 2)), "two dtypes");
    expect_error(ctx, "hessian: the variables are of float32 and float64");
    mb_hvp_reverse(y, &x, &row, 1, &t);
    expect_error(ctx, "hvp_reverse: vector 1");
    mb_hessian_diagonal(y, NULL, 0, &t);
    expect_error(ctx, "hessian_diagonal: got 0 variables");
    mb_directional(y, &x, NULL, 1, &t, &u);
    expect_error(ctx, "directional: got 1 variables");
    mb_lanczos(y, &x, 1, 0, mb_key_of(1), &t, &u);
    expect_error(ctx, "lanczos: got 0 steps");
    mb_extreme_eigenvalues(y, &x, 1, -1, mb_key_of(1), &low, &high);
    expect(isnan(low) && isnan(high), "numbers after an error");
    expect_error(ctx, "extreme_eigenvalues: got -1 steps");
    mb_tensor deep = mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(1, 1, 1, 1, 1, 1, 1, 3));
    expect(!mb_valid(mb_jacobian(deep, x)), "nine axes");
    expect_error(ctx, "jacobian: y and x have 9 axes");
    mb_tensor deeper = mb_sum(mb_sin(mb_reshape(x, MB_SHAPE(1, 1, 1, 1, 1, 1, 1, 3))), MB_ALL);
    expect(!mb_valid(mb_hessian(deeper, &x, 1)), "eight axes on the way");
    expect_error(ctx, "8 axes");
    mb_hessian(mb_dot(deep, deep), &deep, 1);
    expect_error(ctx, "variable 1 has 8 axes");
    close_all();
}
