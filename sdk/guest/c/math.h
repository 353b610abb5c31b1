/* What a freestanding skill needs of mathematics. Everything is made of the basic operations of IEEE 754, so the
 * results are the same bits on every node. */

#ifndef SC_MATH_H
#define SC_MATH_H

/* Correctly rounded: instructions of WebAssembly. */
#define sc_sqrt(x) __builtin_sqrt(x)
#define sc_abs(x) __builtin_fabs(x)
#define sc_floor(x) __builtin_floor(x)
#define sc_ceil(x) __builtin_ceil(x)
#define sc_is_finite(x) __builtin_isfinite(x)

/* e to the power of x; relative error below 1e-15. */
double sc_exp(double x);

/* The complementary error function 1 − erf(x); relative error below 1e-13 where it is a normal number. */
double sc_erfc(double x);
/* The error function. */
double sc_erf(double x);

/* Probability that a normal variable with mean 0 and standard deviation 1 is at most z (DLMF 7.17). */
double sc_normal_cdf(double z);

/* √(a² + b²) without overflow on the way. */
double sc_hypot(double a, double b);

#endif
