// Powers of LRN's scale, by the exponent. For cpu.cc.
#pragma once
#include "../common/math.h"
#include "lrn.h"

namespace affuse::AFFUSE_ISA {
namespace {

// d^-beta and d^-1 of d in [1e-3, FLT_MAX], or NaN.
struct Powers {
  Vec power, inverse;
};
#if defined(AFFUSE_ISA_AVX512)
// From estimates of 14 bits: square roots and divisions would take longer than the memory does. With r ~ d^-1/2 and
// h = d r^2, which is nearly 1, d^-1 = r^2 / h; with u ~ r^-1/2 and g = r u^2 likewise, d^-3/4 = r^2 u h^-3/4 g^-1/2. To
// first order in h - 1 and g - 1, at most 2^-13 each, that is good to 2^-25; every product here is near its result.
struct ThreeQuarters {
  AFFUSE_INLINE Powers of(Vec d) const {
    const Vec one = set1(1.0f), r = _mm512_rsqrt14_ps(d), u = _mm512_rsqrt14_ps(r), r2 = r * r;
    const Vec h = fma(d, r2, -one), g = fma(r * u, u, -one);
    return {(r2 * u) * fnma(set1(0.5f), g, fnma(set1(0.75f), h, one)), fnma(r2, h, r2)};
  }
};
struct Half {
  AFFUSE_INLINE Powers of(Vec d) const {
    const Vec r = _mm512_rsqrt14_ps(d), r2 = r * r, h = fma(d, r2, set1(-1.0f));
    return {fnma(set1(0.5f) * r, h, r), fnma(r2, h, r2)};
  }
};
#elif defined(AFFUSE_ISA_AVX2)
// From estimates of 11 bits, to second order. With t ~ d^-1/4 and e = d t^4 - 1, at most 2^-8.8, d^-3/4 = t^3 (1 + e)^-3/4 and
// d^-1 = t^4 / (1 + e); what is left out is 2^-26.
AFFUSE_INLINE Vec series(Vec h, float first, float second) { return fma(h, fma(set1(second), h, set1(first)), set1(1.0f)); }
struct ThreeQuarters {
  AFFUSE_INLINE Powers of(Vec d) const {
    const Vec r = _mm256_rsqrt_ps(d), t = r * _mm256_rsqrt_ps(r), t2 = t * t, e = fma(d * t2, t2, set1(-1.0f));
    return {(t2 * t) * series(e, -0.75f, 0.65625f), (t2 * t2) * series(e, -1.0f, 1.0f)};
  }
};
struct Half {
  AFFUSE_INLINE Powers of(Vec d) const {
    const Vec r = _mm256_rsqrt_ps(d), r2 = r * r, h = fma(d, r2, set1(-1.0f));
    return {r * series(h, -0.5f, 0.375f), r2 * series(h, -1.0f, 1.0f)};
  }
};
#else
struct ThreeQuarters {
  AFFUSE_INLINE Powers of(Vec d) const {
    const Vec r = rsqrt(d), inverse = r * r;
    return {inverse * rsqrt(r), inverse};  // d^-1 d^(1/4)
  }
};
struct Half {
  AFFUSE_INLINE Powers of(Vec d) const {
    const Vec r = rsqrt(d);
    return {r, r * r};
  }
};
#endif
struct AnyPower {
  float beta;
  AFFUSE_INLINE Powers of(Vec d) const { return {exp(set1(-beta) * log(d)), set1(1.0f) / d}; }
};

// For loops in which many vectors are at work at once: x d^-beta, and the powers.
template <class P>
AFFUSE_INLINE Vec times(const P& power, Vec x, Vec d) { return x * power.of(d).power; }
template <class P>
AFFUSE_INLINE Powers many(const P& power, Vec d) { return power.of(d); }
#if defined(AFFUSE_ISA_AVX2)
// The root is the divider's work and leaves the multipliers free: d^-3/4 = r^3/2 (1 + h)^-3/4 with r ~ d^-1/2, h = d r^2 - 1.
AFFUSE_INLINE Vec times(const ThreeQuarters&, Vec x, Vec d) {
  const Vec r = _mm256_rsqrt_ps(d), h = fma(d * r, r, set1(-1.0f));
  return (x * r) * _mm256_sqrt_ps(r) * series(h, -0.75f, 0.65625f);
}
AFFUSE_INLINE Powers many(const ThreeQuarters&, Vec d) {
  const Vec r = _mm256_rsqrt_ps(d), h = fma(d * r, r, set1(-1.0f));
  return {r * _mm256_sqrt_ps(r) * series(h, -0.75f, 0.65625f), r * r * series(h, -1.0f, 1.0f)};
}
#endif

// A term of the backward's sums; g = dy d^-beta.
AFFUSE_INLINE Vec term(const LrnFactor& factor, Vec inverse, Vec a, Vec g) { return set1(factor.terms) * inverse * a * g; }

template <class F>
void with_power(double beta, F&& body) {
  if (beta == 0.75) body(ThreeQuarters{});
  else if (beta == 0.5) body(Half{});
  else body(AnyPower{float(beta)});
}

}  // namespace
}  // namespace affuse::AFFUSE_ISA
