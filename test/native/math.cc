// Largest errors of kernels/common/math.h against the C library in double precision, and the special values. Compiled by
// math.test.ts once per instruction set; prints what exceeds the bounds that the header states and returns how many did.
#include "kernels/common/math.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

namespace simd = affuse::AFFUSE_ISA;
using simd::Vec;

namespace {

using Function = Vec (*)(Vec);
int failures = 0;

// One definition per function: the library's are forced inline and have no address.
#define DEFINE(name) \
  Vec of_##name(Vec x) { return simd::name(x); }
DEFINE(exp) DEFINE(exp2) DEFINE(tanh) DEFINE(sigmoid) DEFINE(log) DEFINE(rsqrt) DEFINE(gelu) DEFINE(gelu_grad)
Vec of_exp_negative(Vec x) { return simd::exp_negative(-simd::abs(x)); }
Vec of_cdf(Vec x) { return simd::normal(x).cdf; }

double exp_negative(double x) { return ::exp(-fabs(x)); }
double sigmoid(double x) { return 1 / (1 + ::exp(-x)); }
double rsqrt(double x) { return 1 / ::sqrt(x); }
double cdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }
double pdf(double x) { return ::exp(-x * x / 2) * 0.3989422804014326779; }
double gelu(double x) { return x * cdf(x); }
double gelu_grad(double x) { return cdf(x) + x * pdf(x); }

float one(Function f, float x) {
  float out[simd::kLanes];
  simd::store(out, f(simd::set1(x)));
  return out[0];
}

float from_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}

#ifndef AFFUSE_MATH_STEP  // larger where programs are emulated
#define AFFUSE_MATH_STEP 1009
#endif

// Every AFFUSE_MATH_STEP-th float of |x| in [low, high], both signs if wanted. bound(x) in units of 2^-23 of scale(x,
// exact); results below 2^-126 are left out.
template <class Bound, class Scale>
void check(const char* name, Function f, double (*exact)(double), float low, float high, bool negative, Bound bound,
           Scale scale) {
  double worst = 0;
  float at = 0;
  for (int sign = 0; sign <= int(negative); ++sign)
    for (uint64_t b = bits_of(low); b <= bits_of(high); b += AFFUSE_MATH_STEP) {
      const float x = from_bits(uint32_t(b) | (sign ? 0x80000000u : 0));
      const double want = exact(x), got = one(f, x);
      if (fabs(want) < 1.1754943508222875e-38 || fabs(want) > 3.4028234e38) continue;
      const double error = fabs(got - want) / fabs(scale(x, want)) * 8388608 / bound(x);
      if (error <= worst) continue;
      worst = error;
      at = x;
      if (!(error == error)) break;
    }
  printf("%-10s %.3f of the bound at %g\n", name, worst, at);
  if (!(worst <= 1)) ++failures;
}

void special(const char* name, Function f, float x, float want) {
  const float got = one(f, x);
  if (got == want ? signbit(got) == signbit(want) : (got != got && want != want)) return;
  printf("%s(%g): expected %g, got %g\n", name, x, want, got);
  ++failures;
}

}  // namespace

int main() {
  const auto result = [](double, double y) { return y; };
  const auto ulps = [](double n) { return [n](double) { return n; }; };
  const auto tail = [](double x) { return 6 + x * x / 2; };
  check("exp", of_exp, ::exp, 1e-30f, 104, true, ulps(2), result);
  check("exp_negative", of_exp_negative, exp_negative, 1e-30f, 104, false, ulps(2), result);
  check("exp2", of_exp2, ::exp2, 1e-30f, 150, true, ulps(2), result);
  check("tanh", of_tanh, ::tanh, 1e-38f, 1e30f, true, ulps(3), result);
  check("sigmoid", of_sigmoid, sigmoid, 1e-30f, 200, true, ulps(3), result);
  check("log", of_log, ::log, 1e-45f, 3.4e38f, false, ulps(2), result);
  check("rsqrt", of_rsqrt, rsqrt, 1e-37f, 3.4e38f, false, ulps(1.5), result);
  check("cdf", of_cdf, cdf, 1e-30f, 13, true, tail, result);
  check("gelu", of_gelu, gelu, 1e-30f, 13, true, [&](double x) { return tail(x) + 1; }, result);
  // Its two terms cancel near -0.75: the error belongs to them.
  check("gelu_grad", of_gelu_grad, gelu_grad, 1e-30f, 13, true, [&](double x) { return tail(x) + 2; },
        [](double x, double) { return fmax(cdf(x), fabs(x) * pdf(x)); });

  const float inf = INFINITY;
  const Function all[] = {of_exp, of_exp_negative, of_exp2, of_tanh, of_sigmoid, of_log, of_rsqrt, of_cdf, of_gelu, of_gelu_grad};
  for (Function f : all) special("NaN in", f, NAN, NAN);
  special("exp", of_exp, inf, inf);
  special("exp", of_exp, -inf, 0);
  special("exp", of_exp, 88.73f, inf);
  special("exp", of_exp, -104, 0);
  special("exp", of_exp, 0, 1);
  special("exp_negative", of_exp_negative, inf, 0);
  special("exp_negative", of_exp_negative, 88, 0);
  special("exp_negative", of_exp_negative, 0, 1);
  special("exp2", of_exp2, 10, 1024);
  special("exp2", of_exp2, -149, 1.4e-45f);
  special("exp2", of_exp2, 128, inf);
  special("exp2", of_exp2, -151, 0);
  special("tanh", of_tanh, inf, 1);
  special("tanh", of_tanh, -inf, -1);
  special("tanh", of_tanh, -0.0f, -0.0f);
  special("tanh", of_tanh, 9.02f, 1);
  special("sigmoid", of_sigmoid, inf, 1);
  special("sigmoid", of_sigmoid, -inf, 0);
  special("sigmoid", of_sigmoid, 0, 0.5f);
  special("log", of_log, 0, -inf);
  special("log", of_log, -1, NAN);
  special("log", of_log, inf, inf);
  special("log", of_log, 1, 0);
  special("rsqrt", of_rsqrt, 0, inf);
  special("cdf", of_cdf, inf, 1);
  special("cdf", of_cdf, -inf, 0);
  special("gelu", of_gelu, inf, inf);
  return failures;
}
