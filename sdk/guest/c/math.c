#include <stdint.h>

#include "math.h"

/* ---- Exponential: x = k ln 2 + r with |r| <= ln 2 / 2, then a Taylor series for e^r ---- */

/* ln 2 in two parts (OEIS A002162). The high part ends in 25 zero bits, so k times it is exact. */
#define LN2_HIGH 0x1.62e42fep-1
#define LN2_LOW 0x1.f473de6af278fp-30
#define LOG2_E 1.4426950408889634 /* OEIS A007525 */
/* Above the first e^x overflows; below the second it is less than half of the least subnormal number. */
#define EXP_MAX 709.782712893384
#define EXP_MIN (-745.2)
/* The first term left out, r^14 / 14!, is below 2^-58 for |r| <= 0.347. */
#define EXP_TERMS 13

/* 2^power for a normal result. */
static double power_of_two(int power) {
    uint64_t bits = (uint64_t)(power + 1023) << 52;
    double value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

double sc_exp(double x) {
    if (x != x) return x;
    if (x > EXP_MAX) return __builtin_inf();
    if (x < EXP_MIN) return 0;
    double k = __builtin_rint(x * LOG2_E);
    double r = (x - k * LN2_HIGH) - k * LN2_LOW;
    double sum = 1;
    for (int n = EXP_TERMS; n > 0; n--) sum = 1 + sum * r / n;
    /* In two halves: 2^k alone may be outside the normal numbers. */
    int half = (int)k / 2;
    return sum * power_of_two(half) * power_of_two((int)k - half);
}

/* ---- Error function ---- */

#define TWO_BY_SQRT_PI 1.1283791670955126 /* OEIS A190732 */
#define ONE_BY_SQRT_PI 0.5641895835477563 /* OEIS A087197 */
/* From here on erfc is too small for 1 − erf. */
#define ERF_SERIES_MAX 1.5
/* Levels that the continued fraction takes for 1e-15: found by comparison with a reference, they fall as 1/x². */
#define ERFC_LEVELS(x) (8 + (int)(200 / ((x) * (x))))
/* erfc(27) is below the least normal number. */
#define ERFC_ZERO_FROM 27.0

/* e^(-x²), correct to the last bits: x is split so that the square of its high part is exact. */
static double exp_minus_square(double x) {
    uint64_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    bits &= ~(uint64_t)UINT32_MAX;
    double high;
    __builtin_memcpy(&high, &bits, sizeof high);
    return sc_exp(-high * high) * sc_exp(-(x - high) * (x + high));
}

/* DLMF 7.6.2: erf x = 2/√π e^(-x²) Σ 2^n x^(2n+1) / (1·3···(2n+1)). All terms are positive, so nothing cancels. */
static double erf_series(double x) {
    double term = x, sum = x;
    for (int n = 1; term > sum * 0x1p-54; n++) {
        term *= 2 * x * x / (2 * n + 1);
        sum += term;
    }
    return TWO_BY_SQRT_PI * exp_minus_square(x) * sum;
}

/* DLMF 7.9.1 in the form √π e^(x²) erfc x = 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + …)))), from the inside out. */
static double erfc_fraction(double x) {
    double inner = x;
    for (int n = ERFC_LEVELS(x); n > 0; n--) inner = x + 0.5 * n / inner;
    return ONE_BY_SQRT_PI * exp_minus_square(x) / inner;
}

double sc_erfc(double x) {
    if (x != x) return x;
    if (x < 0) return 2 - sc_erfc(-x);
    if (x > ERFC_ZERO_FROM) return 0;
    return x < ERF_SERIES_MAX ? 1 - erf_series(x) : erfc_fraction(x);
}

double sc_erf(double x) {
    if (x != x) return x;
    if (x < 0) return -sc_erf(-x);
    return x < ERF_SERIES_MAX ? erf_series(x) : 1 - sc_erfc(x);
}

#define SQRT_2 1.4142135623730951 /* OEIS A002193 */

double sc_normal_cdf(double z) {
    return 0.5 * sc_erfc(-z / SQRT_2);
}

double sc_hypot(double a, double b) {
    a = sc_abs(a);
    b = sc_abs(b);
    double large = a > b ? a : b, small = a > b ? b : a;
    if (large == 0 || large == __builtin_inf()) return large;
    double ratio = small / large;
    return large * sc_sqrt(1 + ratio * ratio);
}
