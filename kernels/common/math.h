// Vector functions with stated error, on the types of simd.h. Errors are relative to the exact result for float32 input,
// in units of 2^-23 ("ulp" below); checked over the whole range
// on every level by test/native/math.cc.
//
//   exp(x)         <= 2 ulp for results >= 2^-126, 0 for smaller ones (x < -87.33654), which as denormal numbers would
//                  cost some hundred cycles each; inf above 88.73
//   exp_negative(x)  as exp(x), for x <= 0
//   exp2(x)        <= 2 ulp likewise
//   tanh(x)        <= 3 ulp everywhere, also near 0 (it keeps the sign of zero); +-1 beyond |x| = 9.02
//   sigmoid(x)     <= 3 ulp for results >= 2^-126
//   log(x)         <= 2 ulp for normal x > 0; log(0) = -inf, x < 0 gives NaN, log(inf) = inf, denormals are scaled first
//   rsqrt(x)       1/sqrt(x) by division and square root: <= 1.5 ulp
//   normal(x)      {Phi(x) = (1 + erf(x/sqrt 2))/2, phi(x)}: <= 6 + x^2/2 ulp for |x| <= 13 (no cancellation in the left
//                  tail), absolute error below 2^-126 beyond
//   gelu, gelu_grad   x Phi(x) and Phi(x) + x phi(x), from the same pieces
//
// Arguments are Vec or Many<Vec> (many.h). NaN in, NaN out, for all of them; infinities saturate to the limits.
#pragma once
#include "many.h"

namespace affuse::AFFUSE_ISA {

namespace detail {
#if defined(AFFUSE_ISA_AVX512)
AFFUSE_INLINE Vec scalef(Vec p, Vec n) { return _mm512_scalef_ps(p, n); }
AFFUSE_INLINE Vec reciprocal_estimate(Vec x) { return _mm512_rcp14_ps(x); }
template <class T>
AFFUSE_INLINE auto reciprocal_estimate(const Many<T>& x) {
  return each_part([](const Vec& y) AFFUSE_INLINE_BODY { return reciprocal_estimate(y); }, x);
}
template <class T>
AFFUSE_INLINE auto scalef(const Many<T>& p, const Many<T>& n) {
  return each_part([](const Vec& x, const Vec& y) AFFUSE_INLINE_BODY { return scalef(x, y); }, p, n);
}
#endif
// p * 2^n for integer-valued n in [-252, 254]: in two halves, so that results below 2^-126 round to denormals and results
// beyond 2^128 become inf.
template <class V>
AFFUSE_INLINE V scale2(V p, V n) {
#if defined(AFFUSE_ISA_AVX512)
  return scalef(p, n);
#else
  const auto i = to_int(n);
  const auto low = shift_right<1>(i), high = sub(i, low);
  const V s1 = from_bits(shift_left<23>(add(low, int1(127)))), s2 = from_bits(shift_left<23>(add(high, int1(127))));
  return (p * s1) * s2;
#endif
}
// exp(r) - 1 - r over r^2, |r| <= 0.35 (fitted minimax, 3.3e-9 in exp(r)).
template <class V>
AFFUSE_INLINE V exp_tail(V r) {
  V p = fma(set1(0.0013882395578548312f), r, set1(0.008367180824279785f));
  p = fma(p, r, set1(0.04166722297668457f));
  p = fma(p, r, set1(0.16666539013385773f));
  return fma(p, r, set1(0.4999999701976776f));
}
// x - n ln 2
template <class V>
AFFUSE_INLINE V reduced(V x, V n) {
  const V r = fnma(n, set1(0.693359375f), x);  // exact product: 9 bits times at most 8
  return fnma(n, set1(-2.12194440054690583e-4f), r);
}
template <class V>
struct Reduced {
  V n, r;  // x = n ln 2 + r, |r| <= ln2/2
};
template <class V>
AFFUSE_INLINE Reduced<V> reduce_ln2(V x) {
  const Vec magic = set1(12582912.0f);  // 1.5 2^23: the sum is rounded to an integer
  const V n = fma(x, set1(1.44269504088896341f), magic) - magic;
  return {n, reduced(x, n)};
}
// 1/d for d in [1, 2^100], or NaN: 1 ulp. A division would keep its port for 16 cycles.
template <class V>
AFFUSE_INLINE V reciprocal(V d) {
#if defined(AFFUSE_ISA_AVX512)
  const V guess = reciprocal_estimate(d);
  return fma(fnma(d, guess, set1(1.0f)), guess, guess);
#else
  return set1(1.0f) / d;
#endif
}
}  // namespace detail

template <class V>
AFFUSE_INLINE V exp(V x) {
  const Vec least = set1(-87.33654022f);  // exp of the next float below is a denormal number
  const detail::Reduced<V> d = detail::reduce_ln2(min(set1(89.0f), max(least, x)));  // limit first: NaN stays
  const V p = fma(d.r * d.r, detail::exp_tail(d.r), d.r) + set1(1.0f);
  return select(lt(x, least), zero(), detail::scale2(p, d.n));
}

// exp(x) for x <= 0, or NaN: what softmaxes need. Without results beyond 1, 2^n is a normal number, made of the same addition
// that rounds n: two thirds of exp's instructions where the level has no scalef.
template <class V>
AFFUSE_INLINE V exp_negative(V x) {
  const Vec least = set1(-87.33654022f), magic = set1(12582912.0f + 127.0f);  // 1.5 2^23: the low bits become n + 127
  const V limited = max(least, x), shifted = fma(limited, set1(1.44269504088896341f), magic);
  const V r = detail::reduced(limited, shifted - magic), s = from_bits(shift_left<23>(bits(shifted)));
  const V p = fma(r * r, detail::exp_tail(r), r) + set1(1.0f);
  return select(lt(x, least), zero(), p * s);
}

AFFUSE_INLINE Vec exp2(Vec x) {
  x = min(set1(129.0f), max(set1(-151.0f), x));
  const Vec n = round(x), r = x - n;
  Vec p = set1(0.0001535231713205576f);
  p = fma(p, r, set1(0.0013400170719251037f));
  p = fma(p, r, set1(0.009618449956178665f));
  p = fma(p, r, set1(0.05550329387187958f));
  p = fma(p, r, set1(0.24022647738456726f));
  p = fma(p, r, set1(0.6931471824645996f));
  p = fma(p, r, set1(1.0f));
  return detail::scale2(p, n);
}

// tanh |x| = E/(E+2) with E = expm1(2|x|): no cancellation anywhere. It is what the attention's keys cost beside the
// products, so it is cut to what 3 ulp need: 2|x| = n ln 2 + r with ln 2 in one piece (where n is large, tanh is flat), n
// and 2^n from the same addition, and on AVX-512 the quotient from an estimate of 14 bits and one correction (a division
// takes 16 cycles, all of this 12).
template <class V>
AFFUSE_INLINE V tanh(V x) {
  const Vec magic = set1(12582912.0f + 127.0f);  // 1.5 2^23: the low bits become n + 127
  const V t = min(set1(10.0f), abs(x)), shifted = fma(t, set1(2 * 1.44269504088896341f), magic), n = shifted - magic;
  const V s = from_bits(shift_left<23>(bits(shifted)));  // 2^n
  const V r = fnma(n, set1(0.693147180559945309f), t + t);
  const V e = fma(fma(r * r, detail::exp_tail(r), r), s, s - set1(1.0f)), d = e + set1(2.0f);
#if defined(AFFUSE_ISA_AVX512)
  const V guess = detail::reciprocal_estimate(d), q = e * guess;
  return copysign(fma(fnma(q, d, e), guess, q), x);
#else
  return copysign(e / d, x);
#endif
}

template <class V>
AFFUSE_INLINE V sigmoid(V x) {
  const V e = exp_negative(-abs(x)), r = detail::reciprocal(set1(1.0f) + e);
  return select(lt(x, zero()), e * r, r);
}

AFFUSE_INLINE Vec log(Vec x) {
  const Mask tiny = lt(x, set1(1.17549435e-38f));
  const Vec y = select(tiny, x * set1(8388608.0f), x);  // 2^23
  // y = m 2^e with m in [sqrt(1/2), sqrt 2)
  const Int offset = sub(bits(y), int1(0x3f3504f3));
  const Vec e = to_float(shift_right<23>(offset)) - keep(tiny, set1(23.0f));
  const Vec m = from_bits(add(bit_and(offset, int1(0x007fffff)), int1(0x3f3504f3)));
  const Vec f = m - set1(1.0f), f2 = f * f;
  Vec p = set1(0.06746643781661987f);
  p = fma(p, f, set1(-0.11675656586885452f));
  p = fma(p, f, set1(0.11888163536787033f));
  p = fma(p, f, set1(-0.1240558847784996f));
  p = fma(p, f, set1(0.14219552278518677f));
  p = fma(p, f, set1(-0.1666799634695053f));
  p = fma(p, f, set1(0.2000211924314499f));
  p = fma(p, f, set1(-0.25000008940696716f));
  p = fma(p, f, set1(0.3333331346511841f));
  Vec r = fma(e, set1(-2.12194440054690583e-4f), f * f2 * p);
  r = fma(f2, set1(-0.5f), r) + f;
  r = fma(e, set1(0.693359375f), r);
  const Vec inf = set1(__builtin_inff());
  r = select(lt(x, inf), r, x);                                   // inf and NaN
  r = select(eq(x, zero()), -inf, r);
  return select(lt(x, zero()), set1(__builtin_nanf("")), r);
}

AFFUSE_INLINE Vec rsqrt(Vec x) { return set1(1.0f) / sqrt(x); }

// Standard normal distribution at x: cdf = Phi(x), pdf = phi(x). For t = |x|, Phi(-t) = e^(-t^2/2) u P(u), u = 1/(1 + t/4),
// P fitted for 0 <= t <= 40 (1.8e-8 relative); one exponential serves both.
template <class V>
struct Normal {
  V cdf, pdf;
};
template <class V>
AFFUSE_INLINE Normal<V> normal(V x) {
  const V t = min(set1(15.0f), abs(x));
  const V g = exp_negative(t * t * set1(-0.5f));
  const V u = detail::reciprocal(fma(t, set1(0.25f), set1(1.0f)));
  V p = fma(set1(0.020501289516687393f), u, set1(-0.0839698538184166f));
  p = fma(p, u, set1(0.10110893845558167f));
  p = fma(p, u, set1(-0.03696969524025917f));
  p = fma(p, u, set1(0.06656622141599655f));
  p = fma(p, u, set1(0.05809333175420761f));
  p = fma(p, u, set1(0.08173635601997375f));
  p = fma(p, u, set1(0.0934624895453453f));
  p = fma(p, u, set1(0.09973527491092682f));
  p = fma(p, u, set1(0.09973565489053726f));
  const V tail = g * (u * p);
  return {select(lt(zero(), x), set1(1.0f) - tail, tail), g * set1(0.3989422804014327f)};
}

// x Phi(x) (the exact GELU) and its derivative. Finite input gives a finite result; gelu(inf) = inf, gelu(-inf) = NaN, as
// -inf * 0 is; the derivative is NaN at both infinities.
template <class V>
AFFUSE_INLINE V gelu(V x) { return x * normal(x).cdf; }
template <class V>
AFFUSE_INLINE V gelu_grad(V x) {
  const Normal<V> n = normal(x);
  return fma(x, n.pdf, n.cdf);
}

}  // namespace affuse::AFFUSE_ISA
