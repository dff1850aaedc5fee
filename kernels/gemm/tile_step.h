// One step of K in a register tile, for the micro kernels.
#pragma once
#include "../common/simd.h"

namespace affuse::AFFUSE_ISA::gemm {

// c[r] += a[r] * x: one step of K.
template <int R, int NV>
AFFUSE_INLINE void multiply_step(Vec (&c)[R][NV], const float* a, const Vec (&x)[NV]) {
#if defined(AFFUSE_ISA_NEON)
  // Four rows come in one load and are multiplied lane by lane: 5 loads for 24 FMAs instead of 14.
#pragma GCC unroll 4
  for (int r = 0; r + 4 <= R; r += 4) {
    const Vec y = load(a + r);
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      c[r][v] = vfmaq_laneq_f32(c[r][v], x[v], y, 0);
      c[r + 1][v] = vfmaq_laneq_f32(c[r + 1][v], x[v], y, 1);
      c[r + 2][v] = vfmaq_laneq_f32(c[r + 2][v], x[v], y, 2);
      c[r + 3][v] = vfmaq_laneq_f32(c[r + 3][v], x[v], y, 3);
    }
  }
  constexpr int kFirst = R / 4 * 4;
#else
  constexpr int kFirst = 0;
#endif
#pragma GCC unroll 16
  for (int r = kFirst; r < R; ++r) {
    const Vec y = set1(a[r]);
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) c[r][v] = fma(y, x[v], c[r][v]);
  }
}

}  // namespace affuse::AFFUSE_ISA::gemm
