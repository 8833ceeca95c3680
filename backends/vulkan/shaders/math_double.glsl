/* SPDX-License-Identifier: MIT
 *
 * math_double.glsl - the functions of math.glsl in double, as its head describes them. */

#define M_INF_D packDouble2x32(uvec2(0u, 0x7ff00000u))
#define M_NAN_D packDouble2x32(uvec2(0u, 0x7ff80000u))
const double M_ROUND_D = 6755399441055744.0LF; /* 1.5 2^52 */
const double M_LN2_HIGH_D = 0.693147180559663LF, M_LN2_LOW_D = 2.8235290563031577e-13LF;
const double M_LOG2E_D = 1.4426950408889634LF;

double m_sqrt(const double x) { return sqrt(x); }
double m_fabs(const double x) { return abs(x); }
double m_floor(const double x) { return floor(x); }
double m_ceil(const double x) { return ceil(x); }
double m_rint(const double x) { return roundEven(x); }
double m_trunc(const double x) { return trunc(x); }

/* x with these bits of the sign turned. */
double m_flip(const double x, const uint bits)
{
    uvec2 w = unpackDouble2x32(x);
    return packDouble2x32(uvec2(w.x, w.y ^ (bits & 0x80000000u)));
}
uint m_high(const double x) { return unpackDouble2x32(x).y; }
/* x / 2^k */
double m_unscaled(const double x, const int k)
{
    uvec2 w = unpackDouble2x32(x);
    return packDouble2x32(uvec2(w.x, w.y - (uint(k) << 20)));
}
double m_power2_d(const int k) { return packDouble2x32(uvec2(0u, uint(k + 1023) << 20)); }
/* The integer that M_ROUND_D was added to. */
int m_rounded(const double t) { return int(unpackDouble2x32(t).x); }
double m_scale(const double p, const int k)
{
    int h = k >> 1;
    precise double r = p * m_power2_d(h) * m_power2_d(k - h);
    return r;
}
double m_exp_rest(const double r)
{
    precise double p = r * r * (0.5LF + r * (0.16666666666666685LF + r * (0.04166666666666673LF + r *
        (0.008333333333315393LF + r * (0.001388888888885609LF + r * (0.00019841269900419616LF + r *
        (2.480158737787023e-05LF + r * (2.7557230856767543e-06LF + r * (2.7557230118289454e-07LF + r *
        (2.511342430795088e-08LF + r * 2.092788136634973e-09LF))))))))));
    return p;
}

double m_exp(const double x)
{
    precise double a = x > 710.0LF ? 710.0LF : x < -746.0LF ? -746.0LF : x;
    precise double t = a * M_LOG2E_D + M_ROUND_D;
    precise double k = t - M_ROUND_D;
    precise double r = (a - k * M_LN2_HIGH_D) - k * M_LN2_LOW_D;
    precise double p = 1.0LF + (r + m_exp_rest(r));
    return m_scale(p, m_rounded(t));
}

double m_expm1(const double x)
{
    precise double a = x > 710.0LF ? 710.0LF : x < -60.0LF ? -60.0LF : x;
    precise double t = a * M_LOG2E_D + M_ROUND_D;
    precise double k = t - M_ROUND_D;
    precise double r = (a - k * M_LN2_HIGH_D) - k * M_LN2_LOW_D;
    precise double p = r + m_exp_rest(r);
    precise double s = m_power2_d(m_rounded(t) - 1);
    precise double y = 2.0LF * (s * p + (s - 0.5LF));
    return abs(x) < 5.0e-17LF ? x : y;
}

/* With s = f / (2 + f): log(1 + f) = 2 atanh s = 2 s + s R(s^2), and 2 s = f - f^2 / 2 + s f^2 / 2. */
double m_log_sum(const double f, const int exponent)
{
    precise double k = double(exponent), s = f / (2.0LF + f), z = s * s, h = 0.5LF * f * f;
    precise double y = s * (h + z * (0.6666666666666735LF + z * (0.39999999999409364LF + z *
        (0.28571428743685373LF + z * (0.2222219842904761LF + z * (0.1818357235272834LF + z *
        (0.1531383219199282LF + z * 0.1479825879063318LF)))))));
    precise double r = k * M_LN2_HIGH_D - ((h - (y + k * M_LN2_LOW_D)) - f);
    return r;
}
const int M_SQRT_HALF_D = 0x3fe6a09e; /* its high word */

double m_log(const double x)
{
    bool small = x < 2.2250738585072014e-308LF;
    precise double a = small ? x * 18014398509481984.0LF : x; /* 2^54 */
    int k = (int(m_high(a)) - M_SQRT_HALF_D) >> 20;
    precise double f = m_unscaled(a, k) - 1.0LF;
    double r = m_log_sum(f, small ? k - 54 : k);
    return x > 0.0LF ? (x < M_INF_D ? r : x) : x == 0.0LF ? -M_INF_D : M_NAN_D;
}

double m_log1p(const double x)
{
    precise double u = 1.0LF + x;
    precise double v = u - 1.0LF;
    precise double c = (1.0LF - (u - v)) + (x - v);
    int k = (int(m_high(u)) - M_SQRT_HALF_D) >> 20;
    precise double f = m_unscaled(u, k) - 1.0LF;
    f = k > 53 ? f : f + c * m_power2_d(-min(k, 53));
    double r = m_log_sum(f, k);
    r = abs(x) < 5.0e-17LF ? x : r;
    return x > -1.0LF ? (x < M_INF_D ? r : x) : x == -1.0LF ? -M_INF_D : M_NAN_D;
}

/* x = q pi/2 + r, as Cody and Waite do: pi/2 in three parts of 23 bits and a rest. Where |q| < 2^30, |x| up to
 * 1.6e9, the products with the parts are exact. Beyond that r errs by up to 2^-53 |x|, as if x itself had been
 * rounded once more, and beyond 2e15 it says nothing; it is kept in range, so that sin and cos are always
 * within [-1, 1]. */
double m_reduce(const double x, out uint q)
{
    precise double t = x * 0.6366197723675814LF + M_ROUND_D;
    precise double k = t - M_ROUND_D;
    precise double a = (x - k * 1.570796251296997LF) - k * 7.549789415861596e-08LF;
    precise double b = k * 5.390302529957765e-15LF;
    precise double r = a - b;
    precise double rest = ((a - r) - b) - k * 3.2820035428735005e-22LF;
    precise double y = r + rest;
    q = unpackDouble2x32(t).x;
    return y > 0.79LF ? 0.79LF : y < -0.79LF ? -0.79LF : y;
}
double m_sin_near(const double r)
{
    precise double z = r * r;
    precise double s = r + r * z * (-0.16666666666666632LF + z * (0.008333333333322411LF + z *
        (-0.00019841269829805244LF + z * (2.75573136909763e-06LF + z * (-2.5050757960766257e-08LF + z *
        1.5896786330399105e-10LF)))));
    return s;
}
double m_cos_near(const double r)
{
    precise double z = r * r;
    precise double c = 1.0LF - (0.5LF * z - z * z * (0.0416666666666666LF + z * (-0.001388888888887412LF + z *
        (2.4801587289479338e-05LF + z * (-2.7557314351457134e-07LF + z * (2.0875723147696523e-09LF + z *
        -1.1359641001147784e-11LF))))));
    return c;
}

double m_sin(const double x)
{
    uint q;
    double r = m_reduce(x, q);
    double s = m_sin_near(r), c = m_cos_near(r);
    double y = m_flip((q & 1u) != 0 ? c : s, q << 30);
    y = x == 0.0LF ? x : y;
    return abs(x) < M_INF_D ? y : M_NAN_D;
}

double m_cos(const double x)
{
    uint q;
    double r = m_reduce(x, q);
    double s = m_sin_near(r), c = m_cos_near(r);
    double y = m_flip((q & 1u) != 0 ? s : c, (q + 1u) << 30);
    return abs(x) < M_INF_D ? y : M_NAN_D;
}

double m_tanh(const double x)
{
    precise double a = abs(x), z = a * a;
    precise double small = a + a * z * (-0.333333333333333LF + z * (0.1333333333332681LF + z *
        (-0.05396825396386549LF + z * (0.02186948838871381LF + z * (-0.0088632326461874LF + z *
        (0.003592092463686255LF + z * (-0.0014555455268990987LF + z * (0.0005884551118411054LF + z *
        (-0.0002334076577387638LF + z * (8.335260045444299e-05LF + z * -1.9516294054807225e-05LF))))))))));
    precise double large = 1.0LF - 2.0LF / (m_exp(2.0LF * a) + 1.0LF);
    return m_flip(a < 0.55LF ? small : large, m_high(x));
}

/* From 1 on, 1 - erf = e^-x^2 P((x - 3) / (x + 3)); what x^2 is rounded by matters little beside 1. */
double m_erf(const double x)
{
    precise double b = abs(x), z = b * b;
    precise double small = b + b * (0.1283791670955126LF + z * (-0.3761263890318375LF + z *
        (0.11283791670954885LF + z * (-0.026866170645077868LF + z * (0.0052239776248283855LF + z *
        (-0.000854832698142344LF + z * (0.00012055331132894142LF + z * (-1.4925595771013368e-05LF + z *
        (1.6461008463502946e-06LF + z * (-1.6350396112649666e-07LF + z * (1.4660328227506626e-08LF + z *
        (-1.1374954664835815e-09LF + z * 5.960684792692577e-11LF))))))))))));
    precise double a = b > 6.0LF ? 6.0LF : b;
    precise double t = (a - 3.0LF) / (a + 3.0LF);
    precise double p = 0.17900115118139LF + t * (-0.3262335600431626LF + t * (0.24560380170781032LF + t *
        (-0.15011593654566557LF + t * (0.07166583744041927LF + t * (-0.024392489969432395LF + t *
        (0.004269232724714197LF + t * (0.0007083055417633226LF + t * (-0.0005950000910232624LF + t *
        (5.0218545932171377e-05LF + t * (7.16240128676221e-05LF + t * (-6.44096814269376e-06LF + t *
        -6.579407413289324e-06LF)))))))))));
    precise double minus = -(a * a);
    precise double large = 1.0LF - p * m_exp(minus);
    return m_flip(b < 1.0LF ? small : large, m_high(x));
}

/* The halves are 26 and 27 bits. */
double m_product_rest(const double a, const double b, const double p)
{
    uvec2 aw = unpackDouble2x32(a), bw = unpackDouble2x32(b);
    precise double ah = packDouble2x32(uvec2(aw.x & 0xf8000000u, aw.y));
    precise double bh = packDouble2x32(uvec2(bw.x & 0xf8000000u, bw.y));
    precise double al = a - ah, bl = b - bh;
    precise double r = ((ah * bh - p) + ah * bl + al * bh) + al * bl;
    return r;
}

double m_pow(const double a, const double b)
{
    precise double x = abs(a);
    bool tiny = x < 2.2250738585072014e-308LF;
    x = tiny ? x * 18014398509481984.0LF : x;
    int e = (int(m_high(x)) - 0x3fe55555) >> 20;
    precise double f = m_unscaled(x, e) - 1.0LF;
    precise double k = double(tiny ? e - 54 : e);
    precise double z = f * f, zl = m_product_rest(f, f, z);
    precise double u = z * f, ul = m_product_rest(z, f, u) + zl * f;
    precise double v = u * 0.3333333333333333LF;
    precise double vl = m_product_rest(u, 0.3333333333333333LF, v) + (u * 1.850371707708594e-17LF + ul *
        0.3333333333333333LF);
    precise double w = z * z * (-0.25LF + f * (0.20000000000000037LF + f * (-0.16666666666666993LF + f *
        (0.1428571428570207LF + f * (-0.12499999999940786LF + f * (0.11111111112715034LF + f *
        (-0.10000000005470744LF + f * (0.09090908977791141LF + f * (-0.08333333032546532LF + f *
        (0.07692312554646413LF + f * (-0.07142867792766189LF + f * (0.06666530949964994LF + f *
        (-0.062497465556770014LF + f * (0.058848883906542145LF + f * (-0.05559688972822986LF + f *
        (0.052312524497605734LF + f * (-0.0495381101929545LF + f * (0.050274523799618914LF + f *
        (-0.04891172202012716LF + f * (0.029642429198208222LF + f * (-0.025320913527262946LF + f *
        (0.07932402081577608LF + f * -0.0808019282830415LF))))))))))))))))))))));
    precise double h = 0.5LF * z, s1 = f - h, e1 = (f - s1) - h;
    precise double s2 = s1 + v, e2 = (s1 - s2) + v;
    precise double s3 = s2 + w, e3 = (s2 - s3) + w;
    precise double n = k * M_LN2_HIGH_D, s4 = n + s3, e4 = (n - s4) + s3;
    precise double low = ((e1 + e2) + (e3 + e4)) + ((vl - 0.5LF * zl) + k * M_LN2_LOW_D);
    precise double log_high = s4 + low, log_low = (s4 - log_high) + low;

    precise double c = b > 1e20LF ? 1e20LF : b < -1e20LF ? -1e20LF : b;
    precise double y = c * log_high, yl = m_product_rest(c, log_high, y) + c * log_low;
    bool over = y > 710.0LF, under = y < -746.0LF;
    y = over ? 710.0LF : under ? -746.0LF : y;
    yl = over || under ? 0.0LF : yl;
    precise double t = y * M_LOG2E_D + M_ROUND_D;
    precise double j = t - M_ROUND_D;
    precise double r = ((y - j * M_LN2_HIGH_D) - j * M_LN2_LOW_D) + yl;
    precise double p = 1.0LF + (r + m_exp_rest(r));
    double result = m_scale(p, m_rounded(t));

    bool positive = b > 0.0LF, endless = abs(b) == M_INF_D;
    x = abs(a);
    result = x == 0.0LF || x == M_INF_D ? ((x == 0.0LF) == positive ? 0.0LF : M_INF_D) : result;
    result = endless ? (x == 1.0LF ? 1.0LF : (x > 1.0LF) == positive ? M_INF_D : 0.0LF) : result;
    bool whole = floor(b) == b;
    precise double half_b = 0.5LF * b;
    bool odd = whole && abs(b) < 9007199254740992.0LF && floor(half_b) != half_b;
    bool minus = (m_high(a) & 0x80000000u) != 0;
    result = minus && odd ? -result : result;
    result = minus && !whole && x < M_INF_D && x > 0.0LF ? M_NAN_D : result;
    result = a != a || b != b ? M_NAN_D : result; /* NaN alone differs from itself */
    return a == 1.0LF || b == 0.0LF ? 1.0LF : result;
}

double m_tan(const double x)
{
    uint q;
    double r = m_reduce(x, q);
    precise double s = m_sin_near(r), c = m_cos_near(r);
    precise double t = (q & 1u) != 0 ? -(c / s) : s / c;
    t = x == 0.0LF ? x : t;
    return abs(x) < M_INF_D ? t : M_NAN_D;
}

const double M_PI_HIGH_D = 3.141592653589793LF, M_PI_LOW_D = 1.2246467991473532e-16LF;

double m_atan_unit(const double q)
{
    bool far = q > 0.41421356237309503LF;
    precise double t = far ? (q - 1.0LF) / (q + 1.0LF) : q, z = t * t;
    precise double p = t + t * z * (-0.3333333333333319LF + z * (0.19999999999953033LF + z *
        (-0.14285714280143974LF + z * (0.11111110780978312LF + z * (-0.09090897690197954LF + z *
        (0.07692059074299311LF + z * (-0.06663091689418472LF + z * (0.058478032268279474LF + z *
        (-0.05038932141957518LF + z * (0.03805544085368683LF + z * -0.0178975621721059LF))))))))));
    precise double y = 0.25LF * M_PI_HIGH_D + (p + 0.25LF * M_PI_LOW_D);
    return far ? y : p;
}

double m_atan(const double x)
{
    precise double a = abs(x);
    bool far = a > 1.0LF;
    precise double r = m_atan_unit(far ? 1.0LF / a : a);
    precise double y = far ? 0.5LF * M_PI_HIGH_D - (r - 0.5LF * M_PI_LOW_D) : r;
    return m_flip(y, m_high(x));
}

double m_atan2(const double y, const double x)
{
    precise double ax = abs(x), ay = abs(y);
    bool steep = ay > ax;
    precise double n = steep ? ax : ay, d = steep ? ay : ax;
    precise double r = m_atan_unit(d == 0.0LF ? 0.0LF : n == d ? 1.0LF : n / d);
    r = steep ? 0.5LF * M_PI_HIGH_D - (r - 0.5LF * M_PI_LOW_D) : r;
    r = (m_high(x) & 0x80000000u) != 0 ? M_PI_HIGH_D - (r - M_PI_LOW_D) : r;
    return x != x || y != y ? M_NAN_D : m_flip(r, m_high(y));
}

double m_asin_rest(const double s)
{
    precise double z = s * s;
    precise double p = s * z * (0.166666666666654LF + z * (0.07500000000339184LF + z *
        (0.044642856826462934LF + z * (0.030381959216607236LF + z * (0.022371756082035905LF + z *
        (0.017359735257937253LF + z * (0.013884926855885552LF + z * (0.012171283349631377LF + z *
        (0.006518829595989965LF + z * (0.019553778059154748LF + z * (-0.016265016189656527LF + z *
        0.03194069175837501LF)))))))))));
    return p;
}

double m_asin(const double x)
{
    precise double a = abs(x);
    bool far = a > 0.5LF;
    precise double s = far ? sqrt(max(0.5LF - 0.5LF * a, 0.0LF)) : a;
    precise double p = m_asin_rest(s);
    precise double y = far ? 0.5LF * M_PI_HIGH_D - (2.0LF * s + (2.0LF * p - 0.5LF * M_PI_LOW_D)) : s + p;
    return a > 1.0LF ? M_NAN_D : a <= 1.0LF ? m_flip(y, m_high(x)) : x;
}

double m_acos(const double x)
{
    precise double a = abs(x);
    bool far = a > 0.5LF;
    precise double s = far ? sqrt(max(0.5LF - 0.5LF * a, 0.0LF)) : x;
    precise double p = m_asin_rest(s);
    precise double double_asin = 2.0LF * s + 2.0LF * p;
    precise double y = far ? (x > 0.0LF ? double_asin : M_PI_HIGH_D - (double_asin - M_PI_LOW_D))
                          : 0.5LF * M_PI_HIGH_D - (s + (p - 0.5LF * M_PI_LOW_D));
    return a > 1.0LF ? M_NAN_D : a <= 1.0LF ? y : x;
}

double m_sinh(const double x)
{
    precise double a = abs(x), t = m_expm1(a), e = m_exp(0.5LF * a);
    precise double near = 0.5LF * (t + t / (t + 1.0LF)), far = 0.5LF * e * e;
    return m_flip(a > 709.0LF ? far : near, m_high(x));
}

double m_cosh(const double x)
{
    precise double a = abs(x), t = m_exp(a), e = m_exp(0.5LF * a);
    precise double near = 0.5LF * t + 0.5LF / t, far = 0.5LF * e * e;
    return a > 709.0LF ? far : near;
}

double m_asinh(const double x)
{
    precise double a = abs(x), z = a * a;
    precise double near = m_log1p(a + z / (1.0LF + sqrt(1.0LF + z))), far = m_log(a) + 0.6931471805599453LF;
    return m_flip(a > 1.0e8LF ? far : near, m_high(x));
}

double m_acosh(const double x)
{
    precise double t = x - 1.0LF;
    precise double near = m_log1p(t + sqrt(max(t * (t + 2.0LF), 0.0LF))), far = m_log(x) + 0.6931471805599453LF;
    return x > 1.0e8LF ? far : x >= 1.0LF ? near : M_NAN_D;
}

double m_atanh(const double x)
{
    precise double a = abs(x);
    precise double y = 0.5LF * m_log1p(2.0LF * a / (1.0LF - a));
    return m_flip(y, m_high(x));
}

double m_hypot(const double a, const double b)
{
    precise double x = abs(a), y = abs(b);
    precise double d = x > y ? x : y, q = (x > y ? y : x) / d;
    precise double r = d * sqrt(1.0LF + q * q);
    r = x + y == 0.0LF ? 0.0LF : r;
    r = a != a || b != b ? M_NAN_D : r;
    return x == M_INF_D || y == M_INF_D ? M_INF_D : r;
}
