// LRN of planes, channels first, in groups, by small.h. For cpu.cc.
#pragma once
#include "small.h"

namespace affuse::AFFUSE_ISA {
namespace {

// At most this many neighbouring positions go from channel to channel together: memory prefers a kilobyte of a plane at once to a
// line of every plane, pages are turned less often, and terms of so many stay in the first cache.
constexpr int kSmallPositions = 256;

#if defined(AFFUSE_ISA_AVX2)
alignas(64) constexpr float kNoPlane[kSmallPositions] = {};  // below the first channel and above the last one

// The planes around a channel, at the same positions.
struct FivePlanes {
  const float* at[5];
  FivePlanes(const float* x, int64_t c, int64_t C, int64_t plane) {
    for (int i = 0; i < 5; ++i) at[i] = c + i < 2 || c + i >= C + 2 ? kNoPlane : x + (c + i - 2) * plane;
  }
  // The squares at a group's positions, summed.
  template <int vectors>
  AFFUSE_INLINE void sums_of_squares(int p, int n, Vec (&sum)[vectors]) const {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const auto here = [&](int i) AFFUSE_INLINE_BODY { return get(at[i] + p + v * kLanes, n); };
      const auto plus = [&](int i, Vec total) AFFUSE_INLINE_BODY {
        const Vec a = here(i);
        return fma(a, a, total);
      };
      const Vec a = here(2), b = here(3);
      sum[v] = plus(0, plus(1, a * a)) + plus(4, b * b);
    }
  }
};

// Calls body(sums of a group, p, lanes of its last vector) for four vectors at a time, and then for single ones.
template <class F>
AFFUSE_INLINE void each_group(int positions, F&& body) {
  int p = 0;
  for (; p + kGroup <= positions; p += kGroup) {
    Vec sum[4];
    body(sum, p, kLanes);
  }
  for (; p < positions; p += kLanes) {
    Vec sum[1];
    body(sum, p, positions - p < kLanes ? positions - p : kLanes);
  }
}

// How far ahead the same positions of a later channel, or the next positions of the first ones, are read or written.
AFFUSE_INLINE int64_t planes_ahead(int64_t c, int64_t C, int64_t plane, int positions) {
  constexpr int64_t kChannels = 4;
  c += kChannels;
  return c < C ? c * plane : (c - C < C ? c - C : 0) * plane + positions;
}

template <class P>
AFFUSE_NOINLINE void small_planes(int64_t C, int64_t plane, const Forward<P>& given, int positions, const float* x, float* y) {
  const Forward<P> forward = given;  // not read again after every store
  for (int64_t c = 0; c < C; ++c) {
    const FivePlanes near(x, c, C, plane);
    const int64_t ahead = planes_ahead(c, C, plane, positions);
    each_group(positions, [&](auto& sum, int p, int n) AFFUSE_INLINE_BODY {
      for (int line = 0; line < kGroup; line += 16) {
        prefetch(x + ahead + p + line);
        prefetch_write(y + ahead + p + line);
      }
      near.sums_of_squares(p, n, sum);
      forward.of(sum, near.at[2] + p, y + c * plane + p, n);
    });
  }
}

// dx follows two channels behind the terms that it sums.
template <class P>
AFFUSE_NOINLINE void small_planes_backward(int64_t C, int64_t plane, const Terms<P>& given, int positions, const float* x,
                                           const float* dy, float* dx) {
  constexpr int kTerms = 8, kPowers = 4;  // channels in a ring
  alignas(64) float t[kTerms][kSmallPositions], g[kPowers][kSmallPositions];
  const Terms<P> terms = given;  // not read again after every store
  const Vec factor = set1(terms.factor.a);
  for (int c = kTerms - 2; c < kTerms; ++c)  // before the first channel
    for (int p = 0; p < positions; p += kLanes) store(t[c] + p, zero());
  for (int64_t c = 0; c < C + 2; ++c) {
    const FivePlanes near(x, c, C, plane);
    float *const t4 = t[c % kTerms], *const g2 = g[c % kPowers];
    const float *const t0 = t[(c + kTerms - 4) % kTerms], *const t1 = t[(c + kTerms - 3) % kTerms],
                *const t2 = t[(c + kTerms - 2) % kTerms], *const t3 = t[(c + kTerms - 1) % kTerms];
    const float* const g0 = g[(c + kPowers - 2) % kPowers];
    const int64_t ahead = planes_ahead(c, C, plane, positions);
    each_group(positions, [&](auto& sum, int p, int n) AFFUSE_INLINE_BODY {
      const int end = p + int(std::extent_v<std::remove_reference_t<decltype(sum)>>) * kLanes;
      if (c < C) {
        for (int line = 0; line < kGroup; line += 16) {
          prefetch(x + ahead + p + line), prefetch(dy + ahead + p + line);
          prefetch_write(dx + ahead + p + line);
        }
        near.sums_of_squares(p, n, sum);
        terms.of(sum, near.at[2] + p, dy + c * plane + p, g2 + p, t4 + p, n);
      } else {
        for (int v = p; v < end; v += kLanes) store(t4 + v, zero());
      }
      if (c < 2) return;
#pragma GCC unroll 4
      for (int v = p; v < end; v += kLanes) {
        const Vec total = (load(t0 + v) + load(t4 + v)) + (load(t1 + v) + load(t3 + v)) + load(t2 + v);
        put(dx + (c - 2) * plane + v, fnma(factor * get(near.at[0] + v, n), total, load(g0 + v)), n);
      }
    });
  }
}
#endif

}  // namespace
}  // namespace affuse::AFFUSE_ISA
