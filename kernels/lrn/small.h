// LRN of groups of four vectors: powers by polynomials where all sums of a group are small beside k / alpha. For cpu.cc.
#pragma once
#include <cmath>
#include <numbers>

#include "rows.h"

namespace affuse::AFFUSE_ISA {
namespace {

#if defined(AFFUSE_ISA_AVX2)
// c0 + c1 s + c2 s^2, close to d^-exponent where t = alpha / k s is in [0, most]: through the zeros of Chebyshev's polynomial of
// degree three.
struct Quadratic {
  static constexpr int kDegree = 2, kPoints = kDegree + 1;
  float c[kPoints];
  Quadratic(const Window& w, double exponent, double most, double factor = 1) {
    double t[kPoints], f[kPoints], p[kPoints] = {};
    for (int i = 0; i < kPoints; ++i) {
      t[i] = most / 2 * (1 + std::cos((2 * i + 1) * std::numbers::pi / (2 * kPoints)));
      f[i] = std::pow(1 + t[i], -exponent);
    }
    for (int j = 1; j < kPoints; ++j)  // divided differences
      for (int i = kDegree; i >= j; --i) f[i] = (f[i] - f[i - 1]) / (t[i] - t[i - j]);
    for (int i = kDegree; i >= 0; --i) {  // Newton's form to powers of t
      for (int j = kDegree; j > 0; --j) p[j] = p[j - 1] - t[i] * p[j];
      p[0] = f[i] - t[i] * p[0];
    }
    double scale = factor * std::pow(double(w.k), -exponent);
    for (int i = 0; i < kPoints; ++i, scale *= double(w.alpha) / double(w.k)) c[i] = float(p[i] * scale);
  }
  // The last coefficient is the smallest.
  bool held() const { return std::isfinite(c[0]) && c[kDegree] >= 0x1p-126f; }
};

// Where alpha sum is little beside k, the powers of d are quadratics in the sum. A root and its corrections cost twice as much.
struct Small {
  double most;  // of t, where a quadratic for `exponent` leaves out 2^-25
  float limit;  // of the sum; negative: every sum is large
  Small(const Window& w, double exponent)
      : most(std::fmin(1.0, 4 * std::cbrt(0x1p-26 / (exponent * (exponent + 1) * (exponent + 2) / 6)))),  // by Taylor's coefficient
        limit(float(std::fmin(double(kMost), most * double(w.k) / double(w.alpha)))) {}
  // Not worth a look where inputs of a few units are large.
  void suits_if(bool held) {
    if (!held || !(limit >= 16)) limit = -1;
  }
};
struct SmallForward : Small {
  Quadratic power;
  explicit SmallForward(const Window& w) : Small(w, w.beta), power(w, w.beta, most) { suits_if(power.held()); }
};
struct SmallBackward : Small {
  Quadratic power, term;  // d^-beta, and factor.terms d^(-beta-1)
  SmallBackward(const Window& w, const LrnFactor& factor)
      : Small(w, w.beta + 1), power(w, w.beta, most), term(w, w.beta + 1, most, factor.terms) {
    suits_if(power.held() && term.held());
  }
};

// A quadratic in registers.
struct Coefficients {
  Vec c0, c1, c2;
  explicit Coefficients(const Quadratic& q) : c0(set1(q.c[0])), c1(set1(q.c[1])), c2(set1(q.c[2])) {}
  AFFUSE_INLINE Vec of(Vec s) const { return fma(fma(c2, s, c1), s, c0); }
};

// Whether a vector of sums has one above the limit. No sum is negative, so their bits are ordered as they are. A NaN may have a
// sign and go unseen: either way gives NaN.
template <int vectors>
AFFUSE_INLINE bool any_large(const Vec (&sum)[vectors], Int limit) {
  Int most[vectors];
  for (int v = 0; v < vectors; ++v) most[v] = bits(sum[v]);
  for (int half = vectors / 2; half > 0; half /= 2)
    for (int v = 0; v < half; ++v) most[v] = _mm256_max_epi32(most[v], most[v + half]);
  return _mm256_movemask_epi8(_mm256_cmpgt_epi32(most[0], limit)) != 0;
}

// The same, but what is computed from it in a rare branch is not computed before both branches.
AFFUSE_INLINE Vec apart(Vec a) {
  __asm__("" : "+x"(a));
  return a;
}

// A group, kLanes floats between vectors, of the last of which n lanes are there: y = x d^-beta. What an element gets depends on its
// own sum alone, whatever is beside it.
template <class P>
struct Forward {
  Window window;
  P roots;
  Vec limit;
  Coefficients power;
  Forward(const SmallForward& small, const Window& w, const P& p) : window(w), roots(p), limit(set1(small.limit)), power(small.power) {}
  template <int vectors>
  AFFUSE_INLINE void of(const Vec (&sum)[vectors], const float* x, float* y, int n = kLanes) const {
    if (any_large(sum, bits(limit))) [[unlikely]] {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        const Vec total = apart(sum[v]), a = get(x + v * kLanes, n), root = times(roots, a, window.scale(total));
        put(y + v * kLanes, select(le(total, limit), a * power.of(total), root), n);
      }
    } else {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) put(y + v * kLanes, get(x + v * kLanes, n) * power.of(sum[v]), n);
    }
  }
};

// The same for the backward: g = dy d^-beta, and a term of the sums.
template <class P>
struct Terms {
  Window window;
  LrnFactor factor;
  P roots;
  Vec limit;
  Coefficients power, term;
  Terms(const SmallBackward& small, const Window& w, const LrnFactor& f, const P& p)
      : window(w), factor(f), roots(p), limit(set1(small.limit)), power(small.power), term(small.term) {}
  // g and t get whole vectors.
  template <int vectors>
  AFFUSE_INLINE void of(const Vec (&sum)[vectors], const float* x, const float* dy, float* g, float* t, int n = kLanes) const {
    if (any_large(sum, bits(limit))) [[unlikely]] {
      for (int v = 0; v < vectors; ++v) {
        const Vec a = get(x + v * kLanes, n), in = get(dy + v * kLanes, n);
        const Vec total = apart(sum[v]);
        const Powers q = many(roots, window.scale(total));
        const Mask small = le(total, limit);
        const Vec by_root = in * q.power;
        store(g + v * kLanes, select(small, in * power.of(total), by_root));
        store(t + v * kLanes, select(small, in * (term.of(total) * a), affuse::AFFUSE_ISA::term(factor, q.inverse, a, by_root)));
      }
    } else {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        const Vec in = get(dy + v * kLanes, n);
        store(g + v * kLanes, in * power.of(sum[v]));
        store(t + v * kLanes, in * (term.of(sum[v]) * get(x + v * kLanes, n)));
      }
    }
  }
};
#endif

}  // namespace
}  // namespace affuse::AFFUSE_ISA
