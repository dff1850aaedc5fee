#include "../common/reduce.h"
#include "transpose.h"

namespace affuse::AFFUSE_ISA {
namespace {

void swapped(const Swap& s, const float* x, float* y, const Workers& workers) {
  constexpr int64_t kSide = 16;  // blocks whose lines stay in the L1 cache on both sides
  const int64_t blocks = (s.Q + kSide - 1) / kSide, from = s.middle * s.Q * s.inner, to = s.middle * s.P * s.inner;
  parallel(workers, s.outer * blocks, [&](int64_t task, int) {
    const int64_t o = task / blocks, q0 = task % blocks * kSide, q1 = q0 + kSide < s.Q ? q0 + kSide : s.Q;
    for (int64_t m = 0; m < s.middle; ++m)
      for (int64_t p0 = 0; p0 < s.P; p0 += kSide) {
        const int64_t p1 = p0 + kSide < s.P ? p0 + kSide : s.P;
        for (int64_t q = q0; q < q1; ++q)
          for (int64_t p = p0; p < p1; ++p) {
            const float* a = x + (o * s.P + p) * from + (m * s.Q + q) * s.inner;
            float* b = y + (o * s.Q + q) * to + (m * s.P + p) * s.inner;
            if (s.inner == 1) *b = *a;
            else for_lanes(s.inner, [&](int64_t i, int n) { put(b + i, get(a + i, n), n); });
          }
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
