#include "../common/reduce.h"
#include "../gemm/transpose.h"
#include "transpose.h"

namespace affuse::AFFUSE_ISA {
namespace {

constexpr int64_t kSide = 16;  // a line of a cache: blocks read and write whole ones

// y [kSide, kSide] = the transpose of x, rows `from` and `to` floats apart. Through a copy: rows of x that share a cache set, as
// those of powers of two do, are read once each.
void block(const float* x, int64_t from, float* y, int64_t to) {
  alignas(64) float rows[kSide * kSide];
  for (int r = 0; r < kSide; ++r) {
    prefetch(x + (r + kSide) * from);  // the block below
    for (int i = 0; i < kSide; i += kLanes) store(rows + r * kSide + i, load(x + r * from + i));
  }
  for (int q = 0; q < kSide; q += kLanes)
    for (int p = 0; p < kSide; p += kLanes) {
      Vec v[kLanes];
      for (int l = 0; l < kLanes; ++l) v[l] = load(rows + (p + l) * kSide + q);
      gemm::transpose(v);
      for (int l = 0; l < kLanes; ++l) store(y + (q + l) * to + p, v[l]);
    }
}

void swapped(const Swap& s, const float* x, float* y, const Workers& workers) {
  const int64_t blocks = (s.Q + kSide - 1) / kSide, from = s.middle * s.Q * s.inner, to = s.middle * s.P * s.inner;
  parallel(workers, s.outer * blocks, [&](int64_t task, int) {
    const int64_t o = task / blocks, q0 = task % blocks * kSide, q1 = q0 + kSide < s.Q ? q0 + kSide : s.Q;
    for (int64_t m = 0; m < s.middle; ++m)
      for (int64_t p0 = 0; p0 < s.P; p0 += kSide) {
        const int64_t p1 = p0 + kSide < s.P ? p0 + kSide : s.P;
        const float* const a = x + (o * s.P + p0) * from + (m * s.Q + q0) * s.inner;
        float* const b = y + (o * s.Q + q0) * to + (m * s.P + p0) * s.inner;
        if (s.inner == 1 && p1 - p0 == kSide && q1 - q0 == kSide) {
          block(a, from, b, to);
          continue;
        }
        for (int64_t q = 0; q < q1 - q0; ++q)
          for (int64_t p = 0; p < p1 - p0; ++p)
            if (s.inner == 1) b[q * to + p] = a[p * from + q];
            else
              for_lanes(s.inner, [&](int64_t i, int n) { put(b + q * to + p * s.inner + i, get(a + p * from + q * s.inner + i, n), n); });
      }
  });
}

}  // namespace

void transpose_forward(const OpCall& call) {
  swapped(swap_of(call.in[0], call.attr), call.in[0].f32(), call.out[0].f32(), *call.workers);
}
void transpose_backward(const OpCall& call) {
  swapped(swap_of(call.in[1], call.attr), call.in[1].f32(), call.out[0].f32(), *call.workers);
}

}  // namespace affuse::AFFUSE_ISA
