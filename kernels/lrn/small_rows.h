// LRN of channel-last rows in groups, by small.h. For cpu.cc.
#pragma once
#include "small.h"

namespace affuse::AFFUSE_ISA {
namespace {

#if defined(AFFUSE_ISA_AVX2)
// Sums of the squares around a group of a row's channels, C a multiple of kGroup, n = 5. Neighbours inside a group are loaded, which
// a fused square makes cheaper than a shuffle; those across its ends are shuffled, as a row's ends have zeros beside them.
AFFUSE_INLINE void sums_of_squares(const float* from, int64_t i, int64_t C, Vec (&sum)[4]) {
  alignas(32) static constexpr float kZeros[kLanes] = {};  // beside a row
  constexpr int kLast = kGroup - kLanes;
  const auto square = [](const float* p) AFFUSE_INLINE_BODY { return load(p) * load(p); };
  const auto plus_square = [](const float* p, Vec total) AFFUSE_INLINE_BODY { return fma(load(p), load(p), total); };
  const Vec before = square(i ? from - kLanes : kZeros), first = square(from);
  const Vec last = square(from + kLast), after = square(i + kGroup < C ? from + kGroup : kZeros);
  const Vec left = Near::shifted<kLanes - 2>(before, first) + Near::shifted<kLanes - 1>(before, first);
  const Vec right = Near::shifted<1>(last, after) + Near::shifted<2>(last, after);
  sum[0] = plus_square(from + 1, first) + plus_square(from + 2, left);
#pragma GCC unroll 2
  for (int v = 1; v < 3; ++v) {
    const float* at = from + v * kLanes;
    sum[v] = plus_square(at - 2, plus_square(at - 1, square(at))) + plus_square(at + 2, square(at + 1));
  }
  sum[3] = plus_square(from + kLast - 1, last) + plus_square(from + kLast - 2, right);
}

// Two places of the map take turns, as memory gives several places more than one.
template <class P>
AFFUSE_NOINLINE void small_rows(int64_t C, const Forward<P>& given, int64_t rows, const float* x, float* y) {
  constexpr int kAhead = 256;
  const Forward<P> forward = given;  // not read again after every store
  const auto group = [&](const float* from, float* to, int64_t i) AFFUSE_INLINE_BODY {
    prefetch(from + kAhead), prefetch(from + kAhead + 16);
    prefetch_write(to + kAhead), prefetch_write(to + kAhead + 16);
    Vec sum[4];
    sums_of_squares(from, i, C, sum);
    forward.of(sum, from, to);
  };
  const int64_t half = rows / 2, part = half * C;
  for (int64_t r = 0; r < half; ++r)
    for (int64_t i = 0; i < C; i += kGroup, x += kGroup, y += kGroup) group(x, y, i), group(x + part, y + part, i);
  x += part, y += part, rows -= 2 * half;
  for (; rows > 0; --rows)
    for (int64_t i = 0; i < C; i += kGroup, x += kGroup, y += kGroup) group(x, y, i);
}

// A row's terms are summed a row later: a load that spans two stores waits until both have left the store buffer. Until then dx
// holds dy d^-beta. scratch: two rows of terms, `row` floats apart, zeros before and after them.
template <class P>
AFFUSE_NOINLINE void small_rows_backward(int64_t C, const Terms<P>& given, int64_t rows, const float* x, const float* dy,
                                         float* dx, float* scratch, int64_t row) {
  constexpr int kAhead = 256;
  const Terms<P> terms = given;  // not read again after every store
  const Vec factor = set1(terms.factor.a);
  float *here = scratch + kLanes, *above = here + row;
  const auto begin = [&](int64_t i) AFFUSE_INLINE_BODY {
    for (int line = 0; line < kGroup; line += 16) {
      prefetch(x + i + kAhead + line), prefetch(dy + i + kAhead + line);
      prefetch_write(dx + i + kAhead + line);
    }
    Vec sum[4];
    sums_of_squares(x + i, i, C, sum);
    terms.of(sum, x + i, dy + i, dx + i, here + i);
  };
  const auto end = [&](int64_t i) AFFUSE_INLINE_BODY {  // of the row above
#pragma GCC unroll 4
    for (int64_t v = i; v < i + kGroup; v += kLanes)
      store(dx - C + v, fnma(factor * load(x - C + v), sum_over(above + v, 1, 2, 2), load(dx - C + v)));
  };
  for (int64_t r = 0; r <= rows; ++r, x += C, dy += C, dx += C) {
    for (int64_t i = 0; i < C; i += kGroup) {
      if (r < rows) begin(i);
      if (r > 0) end(i);
    }
    float* const done = above;
    above = here, here = done;
  }
}
#endif

}  // namespace
}  // namespace affuse::AFFUSE_ISA
