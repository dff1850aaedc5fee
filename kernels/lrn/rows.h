// LRN of channel-last rows with the usual window (n = 5), where vectors are wide. For cpu.cc.
#pragma once
#include <type_traits>

#include "powers.h"
#include "window.h"

namespace affuse::AFFUSE_ISA {
namespace {

#if defined(AFFUSE_ISA_AVX2)
constexpr int64_t kRowScratch = 1;  // rows in each area of forward_rows()'s scratch
#else
constexpr int64_t kRowScratch = 0;
#endif

#if defined(AFFUSE_ISA_AVX512) || defined(AFFUSE_ISA_AVX2)
#define AFFUSE_LRN_ROWS 1
// The usual window (n = 5) of channel-last rows. Near: without scratch, neighbours come out of two vectors, so that the next
// loads need not wait for any store and memory is kept busy.
struct Near {  // the vectors before, at and after a place
  Vec before, here, after;
  // Elements n … n + kLanes - 1 of low and high one after another.
  template <int n>
  AFFUSE_INLINE static Vec shifted(Vec low, Vec high) {
#if defined(AFFUSE_ISA_AVX512)
    return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(high), _mm512_castps_si512(low), n));
#else
    const Int a = bits(low), b = bits(high), middle = _mm256_permute2x128_si256(a, b, 0x21);
    if constexpr (n < 4) return from_bits(_mm256_alignr_epi8(middle, a, 4 * n));
    else return from_bits(_mm256_alignr_epi8(b, middle, 4 * (n - 4)));
#endif
  }
  AFFUSE_INLINE Vec sum() const {  // in the order of sum_over
    const Vec two = shifted<kLanes - 2>(before, here) + shifted<2>(here, after);
    return two + (shifted<kLanes - 1>(before, here) + shifted<1>(here, after)) + here;
  }
  AFFUSE_INLINE void step(Vec next) { before = here, here = after, after = next; }
};

// Calls body(Together<2>{}, r) for pairs of rows, body(Together<1>{}, r) for those that are left: all with AVX2, where the
// registers do not hold the vectors of two.
template <int n>
struct Together {
  static constexpr int rows = n;
};
template <class F>
AFFUSE_INLINE void each_row(int64_t rows, F&& body) {
  int64_t r = 0;
#if defined(AFFUSE_ISA_AVX512)
  for (; r + 2 <= rows; r += 2) body(Together<2>{}, r);
#endif
  for (; r < rows; ++r) body(Together<1>{}, r);
}

// Some rows ahead, for memory's sake.
constexpr int64_t kReadAhead = kLanes == 16 ? 1024 : 2048;
AFFUSE_INLINE void fetch_ahead(const float* read, const float* written) {
  prefetch(read + kReadAhead);
  prefetch_write(written + 512);
}

#if defined(AFFUSE_ISA_AVX512)
// `together` rows, `distance` floats apart, side by side: one alone is a chain that the processor waits for.
template <int together, class P>
AFFUSE_INLINE void forward_rows(const Walk& walk, const Window& window, const P& power, int64_t distance, const float* x,
                                float* y) {
  Vec a[together];
  Near s[together];
  for (int r = 0; r < together; ++r) {
    a[r] = get(x + r * distance, walk.lanes(0, kLanes));
    s[r] = {zero(), zero(), a[r] * a[r]};
  }
  const auto step = [&](int64_t i, int n, int upcoming, bool fetch) AFFUSE_INLINE_BODY {
#pragma GCC unroll 4
    for (int r = 0; r < together; ++r) {
      const int64_t at = r * distance + i * kLanes;
      if (fetch) fetch_ahead(x + at, y + at);
      const Vec next = upcoming == kLanes ? load(x + at + kLanes) : upcoming > 0 ? load(x + at + kLanes, upcoming) : zero();
      s[r].step(next * next);
      put(y + at, a[r] * power.of(window.scale(s[r].sum())).power, n);
      a[r] = next;
    }
  };
  constexpr int kLine = 16 / kLanes;  // vectors
  int64_t i = 0;
  for (const int64_t whole = walk.C / kLanes; i + kLine < whole; i += kLine)
#pragma GCC unroll 2
    for (int j = 0; j < kLine; ++j) step(i + j, kLanes, kLanes, j == 0);
  for (; i < walk.count; ++i)
    step(i, walk.lanes(i, kLanes), i + 1 < walk.count ? walk.lanes(i + 1, kLanes) : 0, true);
}
#else
// Whether any element is above `most` or NaN.
AFFUSE_INLINE bool any_above(Vec a, Vec most) { return _mm256_movemask_ps(_mm256_cmp_ps(a, most, _CMP_NLE_UQ)) != 0; }

// A row's squares are stored while the row before it is computed: with eight lanes neighbours cost less loaded than shuffled,
// and what was stored a row ago keeps no load waiting. Four vectors are a group: they go through the first half of the chain
// before any goes through the second, as one chain after another would fill the schedulers with waiting instructions.
constexpr int64_t kGroup = 4 * kLanes;

// d and x d^-beta, as whole_rows() takes them; cut: with a sum that may be infinite.
template <class P>
struct Plain {
  const Window& window;
  Vec k, alpha;
  P power;
  Plain(const Window& w, const P& power) : window(w), k(set1(w.k)), alpha(set1(w.alpha)), power(power) {}
  AFFUSE_INLINE Vec scale(Vec sum) const { return fma(alpha, sum, k); }
  AFFUSE_INLINE Vec cut(Vec sum) const { return window.scale(sum); }
  AFFUSE_INLINE Vec apply(Vec x, Vec d) const { return times(power, x, d); }
};
// For beta = 3/4, alpha in the series: d' = k / alpha + sum, x alpha^-3/4 d'^-3/4. That is an addition in the place of a
// multiplication, and adders are idle here where multipliers are not. The series ends after its first term, |h| being at most
// 2^-10.4 (estimates of 11 bits), and half of what the second could be is in the constant: 2^-22.4 are left out.
struct Folded {
  Vec ratio, zeroth, first;
  explicit Folded(const Window& w)
      : ratio(set1(w.k / w.alpha)), zeroth(set1(float((1 + 0x1.8p-23) * w.factor))), first(set1(float(-0.75 * w.factor))) {}
  // So that d'^-3/4 and alpha^-3/4 stay far from the ends of float32's range.
  static bool suits(const Window& w) { return w.k >= 0x1p-30f * w.alpha && w.k <= 0x1p20f * w.alpha; }
  AFFUSE_INLINE Vec scale(Vec sum) const { return sum + ratio; }
  AFFUSE_INLINE Vec cut(Vec sum) const { return scale(min(set1(kMost), sum)); }
  AFFUSE_INLINE Vec apply(Vec x, Vec d) const {
    const Vec r = _mm256_rsqrt_ps(d), h = fma(d * r, r, set1(-1.0f));
    return x * ((r * _mm256_sqrt_ps(r)) * fma(h, first, zeroth));
  }
};

// C a multiple of kGroup: the groups of all rows are one sequence, and the scales of a group are computed between the powers
// of the one before it. Starting anew in every row would take a tenth longer.
template <class P>
AFFUSE_INLINE void whole_rows(const Walk& walk, const P power, int64_t rows, const float* x, float* y, float* scratch) {
  const int64_t C = walk.C;
  const Vec most = set1(kMost);
  float *here = scratch + kLanes, *below = here + walk.row;  // zeros before and after them
  const float* next = rows > 1 ? x + C : x;
  const auto square = [](const float* from, float* to) AFFUSE_INLINE_BODY {
    const Vec a = load(from);
    store(to, a * a);
  };
  const auto scale = [&](int64_t i) AFFUSE_INLINE_BODY {
    square(next + i, below + i);
    return power.scale(sum_over(here + i, 1, 2, 2));
  };
  for (int64_t i = 0; i < C; i += kLanes) square(x + i, here + i);
  const float* s = here;  // squares of the group whose scales are in d; x and y are at the same group
  Vec d[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) d[v] = scale(v * kLanes);
  const auto begin = [&]() AFFUSE_INLINE_BODY {
    fetch_ahead(x, y);
    fetch_ahead(x + 16, y + 16);
    // One look at four instead of a cut of each: sums beyond float32 are rare.
    if (any_above((d[0] + d[1]) + (d[2] + d[3]), most)) [[unlikely]]
      for (int v = 0; v < 4; ++v) d[v] = power.cut(sum_over(s + v * kLanes, 1, 2, 2));
  };
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = r == 0 ? kGroup : 0; i < C; i += kGroup) {
      begin();
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const Vec upcoming = scale(i + v * kLanes);
        store(y + v * kLanes, power.apply(load(x + v * kLanes), d[v]));
        d[v] = upcoming;
      }
      s = here + i, x += kGroup, y += kGroup;
    }
    float* const done = here;
    here = below, below = done;
    if (r + 2 < rows) next += C;
  }
  begin();
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) store(y + v * kLanes, power.apply(load(x + v * kLanes), d[v]));
}

// Any C.
template <class P>
AFFUSE_INLINE void forward_rows(const Walk& walk, const Window& window, const P& power, int64_t rows, const float* x,
                                float* y, float* scratch) {
  if (walk.C % kGroup == 0) {
    if constexpr (std::is_same_v<P, ThreeQuarters>)
      if (Folded::suits(window)) return whole_rows(walk, Folded(window), rows, x, y, scratch);
    return whole_rows(walk, Plain<P>(window, power), rows, x, y, scratch);
  }
  const int64_t whole = walk.C / kLanes * kLanes;
  const int left = int(walk.C - whole);
  const Vec k = set1(window.k), alpha = set1(window.alpha), most = set1(kMost);
  float *here = scratch + kLanes, *below = here + walk.row;  // zeros before and after them
  const auto square = [](Vec a, float* to) AFFUSE_INLINE_BODY { store(to, a * a); };
  for (int64_t i = 0; i < whole; i += kLanes) square(load(x + i), here + i);
  if (left) square(load(x + whole, left), here + whole);
  for (int64_t r = 0; r < rows; ++r, x += walk.C, y += walk.C) {
    const float* const next = r + 1 < rows ? x + walk.C : x;
    const auto scale = [&](int64_t i) AFFUSE_INLINE_BODY { return window.scale(sum_over(here + i, 1, 2, 2)); };
    int64_t i = 0;
    for (; i + kGroup <= whole; i += kGroup) {
      fetch_ahead(x + i, y + i);
      fetch_ahead(x + i + 16, y + i + 16);
      Vec d[4];
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const int64_t at = i + v * kLanes;
        square(load(next + at), below + at);
        d[v] = fma(alpha, sum_over(here + at, 1, 2, 2), k);
      }
      if (any_above((d[0] + d[1]) + (d[2] + d[3]), most)) [[unlikely]]
        for (int v = 0; v < 4; ++v) d[v] = scale(i + v * kLanes);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) store(y + i + v * kLanes, times(power, load(x + i + v * kLanes), d[v]));
    }
    for (; i < whole; i += kLanes) {
      square(load(next + i), below + i);
      store(y + i, times(power, load(x + i), scale(i)));
    }
    if (left) {
      square(load(next + whole, left), below + whole);
      store(y + whole, times(power, load(x + whole, left), scale(whole)), left);
    }
    float* const done = here;
    here = below, below = done;
  }
}
#endif

template <int together, class P>
AFFUSE_INLINE void backward_rows(const Walk& walk, const Window& window, const P& power, const LrnFactor& factor,
                                 int64_t distance, const float* x, const float* dy, float* dx) {
  Vec a[together], a0[together], g0[together];
  Near s[together], t[together];
  for (int r = 0; r < together; ++r) {
    a[r] = get(x + r * distance, walk.lanes(0, kLanes)), a0[r] = g0[r] = zero();
    s[r] = {zero(), zero(), a[r] * a[r]}, t[r] = {zero(), zero(), zero()};
  }
  for (int64_t i = 0; i <= walk.count; ++i) {  // dx follows one vector behind: it needs the terms on both sides
#pragma GCC unroll 4
    for (int r = 0; r < together; ++r) {
      const int64_t at = r * distance + i * kLanes;
      fetch_ahead(x + at, dx + at);
      prefetch(dy + at + kReadAhead);
      Vec g = zero(), here = zero(), next = zero();
      if (i < walk.count) {
        if (i + 1 < walk.count) next = get(x + at + kLanes, walk.lanes(i + 1, kLanes));
        s[r].step(next * next);
        const Powers q = many(power, window.scale(s[r].sum()));
        g = get(dy + at, walk.lanes(i, kLanes)) * q.power;
        here = term(factor, q.inverse, a[r], g);
      }
      t[r].step(here);
      if (i > 0) put(dx + at - kLanes, fnma(set1(factor.a) * a0[r], t[r].sum(), g0[r]), walk.lanes(i - 1, kLanes));
      a0[r] = a[r], g0[r] = g, a[r] = next;
    }
  }
}
#endif

}  // namespace
}  // namespace affuse::AFFUSE_ISA
