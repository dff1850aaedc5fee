// LRN of channel-last rows whose sums of squares are probably small beside k / alpha. For cpu.cc.
#pragma once
#include <cmath>
#include <numbers>

#include "rows.h"

namespace affuse::AFFUSE_ISA {
namespace {

#if defined(AFFUSE_ISA_AVX2)
// Where alpha sum is little beside k, d^-beta is a polynomial of degree two in the sum, through the zeros of Chebyshev's
// polynomial of degree three on [0, limit]; limit: where that leaves out 2^-25. A root and its corrections cost twice as much.
struct Small {
  static constexpr int kDegree = 2, kPoints = kDegree + 1;
  float limit, c[kPoints];
  explicit Small(const Window& w) {
    const double third = w.beta * (w.beta + 1) * (w.beta + 2) / 6;              // Taylor's coefficient
    const double most = std::fmin(1.0, 4 * std::cbrt(0x1p-26 / third));         // of t = alpha / k sum
    double t[kPoints], f[kPoints], p[kPoints] = {};
    for (int i = 0; i < kPoints; ++i) {
      t[i] = most / 2 * (1 + std::cos((2 * i + 1) * std::numbers::pi / (2 * kPoints)));
      f[i] = std::pow(1 + t[i], -w.beta);
    }
    for (int j = 1; j < kPoints; ++j)  // divided differences
      for (int i = kDegree; i >= j; --i) f[i] = (f[i] - f[i - 1]) / (t[i] - t[i - j]);
    for (int i = kDegree; i >= 0; --i) {  // Newton's form to powers of t
      for (int j = kDegree; j > 0; --j) p[j] = p[j - 1] - t[i] * p[j];
      p[0] = f[i] - t[i] * p[0];
    }
    double scale = std::pow(double(w.k), -w.beta);
    for (int i = 0; i < kPoints; ++i, scale *= double(w.alpha) / double(w.k)) c[i] = float(p[i] * scale);
    limit = float(std::fmin(double(kMost), most * double(w.k) / double(w.alpha)));
  }
  // Whether inputs of a few units are small; and float32 holds the coefficients, of which the last is the smallest.
  bool suits() const { return limit >= 16 && c[kDegree] >= 0x1p-126f; }
};

// C a multiple of kGroup, n = 5. Neighbours inside a group are loaded, which a fused square makes cheaper than a shuffle; those
// across its ends are shuffled, as a row's ends have zeros beside them. A group with a large sum is computed by roots. Two places
// of the map take turns, as memory gives several places more than one.
template <class P>
AFFUSE_NOINLINE void small_rows(int64_t C, const Small& small, const P& given, int64_t rows, const float* x, float* y) {
  alignas(32) static constexpr float kZeros[kLanes] = {};  // beside a row
  constexpr int kLast = kGroup - kLanes, kAhead = 256;
  const P power = given;  // not read again after every store
  const Int limit = bits(set1(small.limit));
  const Vec c0 = set1(small.c[0]), c1 = set1(small.c[1]), c2 = set1(small.c[2]);
  const auto square = [](const float* p) AFFUSE_INLINE_BODY { return load(p) * load(p); };
  const auto plus_square = [](const float* p, Vec total) AFFUSE_INLINE_BODY { return fma(load(p), load(p), total); };
  const auto group = [&](const float* from, float* to, int64_t i) AFFUSE_INLINE_BODY {
    prefetch(from + kAhead), prefetch(from + kAhead + 16);
    prefetch_write(to + kAhead), prefetch_write(to + kAhead + 16);
    const Vec before = square(i ? from - kLanes : kZeros), first = square(from);
    const Vec last = square(from + kLast), after = square(i + kGroup < C ? from + kGroup : kZeros);
    const Vec left = Near::shifted<kLanes - 2>(before, first) + Near::shifted<kLanes - 1>(before, first);
    const Vec right = Near::shifted<1>(last, after) + Near::shifted<2>(last, after);
    Vec sum[4];
    sum[0] = plus_square(from + 1, first) + plus_square(from + 2, left);
#pragma GCC unroll 2
    for (int v = 1; v < 3; ++v) {
      const float* at = from + v * kLanes;
      sum[v] = plus_square(at - 2, plus_square(at - 1, square(at))) + plus_square(at + 2, square(at + 1));
    }
    sum[3] = plus_square(from + kLast - 1, last) + plus_square(from + kLast - 2, right);
    // No sum is negative, so their bits are ordered as they are. A NaN may have a sign and go unseen: either way gives NaN.
    const Int most = _mm256_max_epi32(_mm256_max_epi32(bits(sum[0]), bits(sum[1])), _mm256_max_epi32(bits(sum[2]), bits(sum[3])));
    if (_mm256_movemask_epi8(_mm256_cmpgt_epi32(most, limit)) != 0) [[unlikely]] {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) store(to + v * kLanes, power.apply(load(from + v * kLanes), power.cut(sum[v])));
    } else {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) store(to + v * kLanes, load(from + v * kLanes) * fma(fma(c2, sum[v], c1), sum[v], c0));
    }
  };
  const int64_t half = rows / 2, part = half * C;
  for (int64_t r = 0; r < half; ++r)
    for (int64_t i = 0; i < C; i += kGroup, x += kGroup, y += kGroup) group(x, y, i), group(x + part, y + part, i);
  x += part, y += part, rows -= 2 * half;
  for (; rows > 0; --rows)
    for (int64_t i = 0; i < C; i += kGroup, x += kGroup, y += kGroup) group(x, y, i);
}
#endif

}  // namespace
}  // namespace affuse::AFFUSE_ISA
