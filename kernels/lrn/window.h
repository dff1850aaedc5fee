// LRN's window and how maps are walked. For cpu.cc.
#pragma once
#include <cmath>

#include "../common/simd.h"
#include "lrn.h"

namespace affuse::AFFUSE_ISA {
namespace {

// Sum of the window [-before, after] around s, `stride` floats between channels.
AFFUSE_INLINE Vec sum_over(const float* s, int64_t stride, int64_t before, int64_t after) {
  if (before == 2 && after == 2)  // n = 5, the usual one
    return (load(s - 2 * stride) + load(s + 2 * stride)) + (load(s - stride) + load(s + stride)) + load(s);
  Vec sum = zero();
  for (int64_t j = -before; j <= after; ++j) sum += load(s + j * stride);
  return sum;
}

constexpr float kMost = 3.4e38f;  // below FLT_MAX by more than k may be
struct Window {
  int64_t before, after;
  float k, alpha, most;  // a sum of squares is cut to `most`: d is then finite whatever x is. NaN passes
  double beta, factor;   // factor: alpha^-beta
  // d at element c of a row whose squares lie at s, `stride` floats between channels.
  AFFUSE_INLINE Vec scale(const float* s, int64_t stride) const { return scale(sum_over(s, stride, before, after)); }
  AFFUSE_INLINE Vec scale(Vec sum) const {
    return fma(set1(alpha), min(set1(most), sum), set1(k));
  }
};

inline Window window_of(const LrnAttrs& a) {
  return {a.before, a.after, float(a.k), float(a.alpha), a.alpha > 1 ? kMost / float(a.alpha) : kMost,
          a.beta, std::pow(a.alpha, -a.beta)};
}

// How a block of the map is walked: `count` vectors of each of `rows` rows, `step` floats apart in memory, kLanes apart
// in scratch. Channel-last: a row's channels, kLanes at a time. Otherwise: one row, channel after channel of kLanes
// neighbouring positions.
struct Walk {
  int64_t count, step, next;  // distance of neighbouring channels in scratch
  int64_t margin, row;        // floats before the first channel in scratch, from one row's scratch to the next one's
  int64_t C;
  bool last;
  AFFUSE_INLINE int lanes(int64_t i, int positions) const {
    if (!last) return positions;
    return C - i * kLanes < kLanes ? int(C - i * kLanes) : kLanes;
  }
};

inline Walk walk_of(const Maps& m, int64_t n) {
  if (m.last) return {(m.C + kLanes - 1) / kLanes, kLanes, 1, n, lrn_row(m.C, n), m.C, true};
  return {m.C, m.H * m.W, kLanes, n * kLanes, 0, m.C, false};
}

}  // namespace
}  // namespace affuse::AFFUSE_ISA
