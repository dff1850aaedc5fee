// Row reductions in a fixed order, for files compiled once per ISA level (cpu.cc).
//
// Sums run in four vector accumulators that meet in a fixed tree, so a sum of n floats carries a rounding error of about
// (n / (4 kLanes) + log2(4 kLanes)) * 2^-24 * sum|x| at worst. Results depend on n and the ISA level, never on threads.
#pragma once
#include "simd.h"

namespace affuse::AFFUSE_ISA {

// Whole vectors take the plain instruction (n is a constant after inlining), tails the masked one.
AFFUSE_INLINE Vec get(const float* p, int n) { return n == kLanes ? load(p) : load(p, n); }
AFFUSE_INLINE void put(float* p, Vec v, int n) {
  if (n == kLanes) store(p, v);
  else store(p, v, n);
}

namespace {

// Sum over i in [0, count) of term(i, n)'s first n lanes; term must give 0 in lanes >= n.
template <class F>
AFFUSE_INLINE float sum_lanes(int64_t count, F&& term) {
  Vec a = zero(), b = zero(), c = zero(), d = zero();
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    a += term(i, kLanes);
    b += term(i + kLanes, kLanes);
    c += term(i + 2 * kLanes, kLanes);
    d += term(i + 3 * kLanes, kLanes);
  }
  for (; i + kLanes <= count; i += kLanes) a += term(i, kLanes);
  if (i < count) b += term(i, int(count - i));
  return sum((a + b) + (c + d));
}

[[maybe_unused]] float sum_of(const float* x, int64_t n) {
  return sum_lanes(n, [&](int64_t i, int k) { return get(x + i, k); });
}
[[maybe_unused]] float dot_of(const float* x, const float* y, int64_t n) {
  return sum_lanes(n, [&](int64_t i, int k) { return get(x + i, k) * get(y + i, k); });
}

// Largest element; n >= 1. NaN elements may be passed over.
[[maybe_unused]] float max_of(const float* x, int64_t n) {
  Vec m[4] = {set1(x[0]), set1(x[0]), set1(x[0]), set1(x[0])};  // one alone would wait for every max()
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int k = 0; k < 4; ++k) m[k] = max(m[k], load(x + i + k * kLanes));
  for (; i + kLanes <= n; i += kLanes) m[0] = max(m[0], load(x + i));
  float most = max_lane(max(max(m[0], m[1]), max(m[2], m[3])));
  for (; i < n; ++i) most = x[i] > most ? x[i] : most;
  return most;
}

// The same for any length: blocks of 4096 floats, added up in float64.
template <class F>
AFFUSE_INLINE double long_sum(int64_t count, F&& term) {
  double total = 0;
  for (int64_t from = 0; from < count; from += 4096) {
    const int64_t n = count - from < 4096 ? count - from : 4096;
    total += double(sum_lanes(n, [&](int64_t i, int k) { return term(from + i, k); }));
  }
  return total;
}

}  // namespace
}  // namespace affuse::AFFUSE_ISA
