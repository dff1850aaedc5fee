// What afg's forward and backward share for one ISA level.
#pragma once
#include "../common/math.h"
#include "../common/reduce.h"
#include "../common/simd.h"
#include "scratch.h"

namespace affuse::AFFUSE_ISA {
namespace {

// Lists the valid frames of all samples in the order of memory; returns how many there are.
[[maybe_unused]] int64_t list_frames(const Frames& f, const float* x, int64_t D, const FrameList& list) {
  int64_t count = 0;
  for (int64_t b = 0; b < f.B; ++b) {
    list.first[b] = count;
    const int64_t n = valid_frames(f, b, list.frame + count);
    for (int64_t i = count; i < count + n; ++i) {
      list.row[i] = x + (b * f.T + list.frame[i]) * D;
      list.sample[i] = int32_t(b);
    }
    count += n;
  }
  list.first[f.B] = count;
  return count;
}

[[maybe_unused]] void fill(float* p, int64_t n, float value) {
  for_lanes(n, [&](int64_t i, int lanes) { put(p + i, set1(value), lanes); });
}

[[maybe_unused]] void multiply(float* p, int64_t n, float factor) {
  for_lanes(n, [&](int64_t i, int lanes) { put(p + i, set1(factor) * get(p + i, lanes), lanes); });
}

// y += factor * x
[[maybe_unused]] void add_scaled(float* y, const float* x, float factor, int64_t n) {
  for_lanes(n, [&](int64_t i, int lanes) { put(y + i, fma(set1(factor), get(x + i, lanes), get(y + i, lanes)), lanes); });
}

// Largest of p[0, n) and `least`; NaN is passed over (it comes back through exp).
[[maybe_unused]] float largest(const float* p, int64_t n, float least) {
  for (int64_t i = 0; i < n; ++i) least = p[i] > least ? p[i] : least;
  return least;
}

// p ← exp(p − shift); returns the sum.
[[maybe_unused]] float exp_shifted(float* p, int64_t n, float shift) {
  float total = 0;
  for_lanes(n, [&](int64_t i, int lanes) { put(p + i, exp(get(p + i, lanes) - set1(shift)), lanes); });
  for (int64_t i = 0; i < n; ++i) total += p[i];
  return total;
}

[[maybe_unused]] float exp_of(float x) {
  float lanes[kLanes];
  store(lanes, exp(set1(x)));
  return lanes[0];
}

// The key of a frame of zeros: what padding contributes when it takes part in the softmax.
[[maybe_unused]] void silent_key(const float* bias, int64_t A, float* key) {
  for_lanes(A, [&](int64_t a, int n) { put(key + a, tanh(get(bias + a, n)), n); });
}

// sum[0, D) (+)= Σ_{r < R} weight[r] row[r]
template <int R>
AFFUSE_INLINE void add_rows(const float* const* row, const float* weight, int64_t D, float* sum, bool resume) {
  for_lanes(D, [&](int64_t d, int n) {
    Vec v = resume ? get(sum + d, n) : zero();
    for (int r = 0; r < R; ++r) v = fma(set1(weight[r]), get(row[r] + d, n), v);
    put(sum + d, v, n);
  });
}

// sum[j*D + …] = Σ_i weight[j*stride + i] row[i] for j < J, over count >= 1 rows. Four rows at a time for every j: rows
// stream in once, the sums stay in the cache.
[[maybe_unused]] void gather(const float* const* row, const float* weight, int64_t stride, int64_t count, int64_t J,
                             int64_t D, float* sum) {
  for (int64_t i = 0; i < count; i += 4)
    for (int64_t j = 0; j < J; ++j) {
      const float* w = weight + j * stride + i;
      switch (count - i) {
        case 1: add_rows<1>(row + i, w, D, sum + j * D, i > 0); break;
        case 2: add_rows<2>(row + i, w, D, sum + j * D, i > 0); break;
        case 3: add_rows<3>(row + i, w, D, sum + j * D, i > 0); break;
        default: add_rows<4>(row + i, w, D, sum + j * D, i > 0);
      }
    }
}

}  // namespace
}  // namespace affuse::AFFUSE_ISA
