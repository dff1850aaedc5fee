// LRN of channel-last rows whose sums of squares are probably small beside k / alpha. For cpu.cc.
#pragma once
#include <cmath>
#include <numbers>

#include "rows.h"

namespace affuse::AFFUSE_ISA {
namespace {

#if defined(AFFUSE_ISA_AVX2)
// Where alpha sum is little beside k, d^-beta is a polynomial of degree three in the sum, through the zeros of Chebyshev's
// polynomial of degree four on [0, limit]; limit: where that leaves out 2^-25. A root and its corrections cost twice as much.
struct Small {
  float limit, c[4];
  explicit Small(const Window& w) {
    const double fourth = w.beta * (w.beta + 1) * (w.beta + 2) * (w.beta + 3) / 24;  // Taylor's coefficient
    const double most = std::fmin(1.0, 4 * std::pow(0x1p-26 / fourth, 0.25));        // of t = alpha / k sum
    double t[4], f[4], p[4] = {};
    for (int i = 0; i < 4; ++i) {
      t[i] = most / 2 * (1 + std::cos((2 * i + 1) * std::numbers::pi / 8));
      f[i] = std::pow(1 + t[i], -w.beta);
    }
    for (int j = 1; j < 4; ++j)  // divided differences
      for (int i = 3; i >= j; --i) f[i] = (f[i] - f[i - 1]) / (t[i] - t[i - j]);
    for (int i = 3; i >= 0; --i) {  // Newton's form to powers of t
      for (int j = 3; j > 0; --j) p[j] = p[j - 1] - t[i] * p[j];
      p[0] = f[i] - t[i] * p[0];
    }
    double scale = std::pow(double(w.k), -w.beta);
    for (int i = 0; i < 4; ++i, scale *= double(w.alpha) / double(w.k)) c[i] = float(p[i] * scale);
    limit = float(std::fmin(double(kMost), most * double(w.k) / double(w.alpha)));
  }
  // Whether inputs of a few units are small; and float32 holds the coefficients.
  static bool suits(const Window& w) {
    return (w.alpha == 0 || w.alpha >= 0x1p-20f * w.k) && Small(w).limit >= 16;
  }
};

// C a multiple of kGroup, n = 5. Neighbours are shuffled: roots would share a pipe with that, but polynomials do not, and nothing
// waits for stores. A group with a large sum is computed by roots. Two places of the map take turns, as memory gives several
// places more than one.
template <class P>
AFFUSE_NOINLINE void small_rows(int64_t C, const Window& window, const P& given, int64_t rows, const float* x, float* y) {
  alignas(32) static constexpr float kZeros[kLanes] = {};  // beside a row
  const P power = given;                                   // not read again after every store
  const Small small(window);
  const Vec limit = set1(small.limit), c0 = set1(small.c[0]), c1 = set1(small.c[1]), c2 = set1(small.c[2]), c3 = set1(small.c[3]);
  const auto group = [&](const float* from, float* to, int64_t i) AFFUSE_INLINE_BODY {
    prefetch(from + 1024), prefetch(from + 1024 + 16);
    prefetch_write(to + 512), prefetch_write(to + 512 + 16);
    const float *before = i ? from - kLanes : kZeros, *after = i + kGroup < C ? from + kGroup : kZeros;
    Vec q[6], sum[4];
#pragma GCC unroll 6
    for (int v = 0; v < 6; ++v) {
      const Vec a = load(v == 0 ? before : v == 5 ? after : from + (v - 1) * kLanes);
      q[v] = a * a;
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sum[v] = Near{q[v], q[v + 1], q[v + 2]}.sum();
    // One look at four sums instead of one at each.
    if (any_above((sum[0] + sum[1]) + (sum[2] + sum[3]), limit)) [[unlikely]] {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) store(to + v * kLanes, power.apply(load(from + v * kLanes), power.cut(sum[v])));
    } else {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const Vec root = fma(fma(fma(c3, sum[v], c2), sum[v], c1), sum[v], c0);
        store(to + v * kLanes, load(from + v * kLanes) * root);
      }
    }
  };
  const int64_t half = (32768 + C - 1) / C, part = half * C;  // rows and floats from one place to the other
  for (; rows >= 2 * half; rows -= 2 * half, x += part, y += part)
    for (int64_t r = 0; r < half; ++r)
      for (int64_t i = 0; i < C; i += kGroup, x += kGroup, y += kGroup) group(x, y, i), group(x + part, y + part, i);
  for (; rows > 0; --rows)
    for (int64_t i = 0; i < C; i += kGroup, x += kGroup, y += kGroup) group(x, y, i);
}
#endif

}  // namespace
}  // namespace affuse::AFFUSE_ISA
