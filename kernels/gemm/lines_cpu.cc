// The micro kernel of rows in lines: see lines.h. What it fetches ahead, and why, is in cpu.cc.
#include "lines.h"
#include "tile_step.h"

namespace affuse::AFFUSE_ISA::gemm {
namespace {

// Loads on either side stay there: the columns of two steps at once would leave no register for the broadcast.
AFFUSE_INLINE void hold_order() { asm volatile("" ::: "memory"); }

// c[r] += a[r * kLanes + step] * (row `step` of b), for a pair of steps.
template <int R, int NV>
AFFUSE_INLINE void multiply_pair(Vec (&c)[R][NV], const float* a, const float* b) {
  constexpr int kAhead = 8 * NV * kLanes;
  Vec x[2][NV];
#pragma GCC unroll 2
  for (int step = 0; step < 2; ++step) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) x[step][v] = load(b + (step * NV + v) * kLanes);
    prefetch(b + kAhead + step * NV * kLanes);
    if constexpr (NV * kLanes > 16) prefetch(b + kAhead + step * NV * kLanes + 16);
#if !defined(AFFUSE_ISA_NEON)
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec y = set1(a[r * kLanes + step]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) add_product(c[r][v], y, x[step][v]);
    }
    hold_order();
#endif
  }
#if defined(AFFUSE_ISA_NEON)  // both steps of a row come in one load
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const float32x2_t y = vld1_f32(a + r * kLanes);
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) c[r][v] = vfmaq_lane_f32(vfmaq_lane_f32(c[r][v], x[0][v], y, 0), x[1][v], y, 1);
  }
#endif
}

template <int R, int NV>
AFFUSE_NOINLINE void multiply(int64_t kc, const float* AFFUSE_RESTRICT a, const float* AFFUSE_RESTRICT b, float* acc,
                              bool resume, const float* next, int64_t next_step) {
  Vec c[R][NV];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) c[r][v] = resume ? load(acc + r * kTileStride + v * kLanes) : zero();
  int64_t k = 0;
  for (; k + kLanes <= kc; k += kLanes, a += R * kLanes)
    for (int i = 0; i < kLanes; i += 2, b += 2 * NV * kLanes) {
      prefetch_l2(next);
      next += 2 * next_step;
      if constexpr (R >= 8) {  // the lines of the block after the next
        prefetch(a + 2 * R * kLanes + i * 16);
        prefetch(a + 2 * R * kLanes + i * 16 + 16);
      }
      multiply_pair<R, NV>(c, a + i, b);
    }
  for (; k < kc; ++k, ++a, b += NV * kLanes) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec y = set1(a[r * kLanes]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) c[r][v] = fma(y, load(b + v * kLanes), c[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) store(acc + r * kTileStride + v * kLanes, c[r][v]);
}

using Multiply = void (*)(int64_t, const float*, const float*, float*, bool, const float*, int64_t);
constexpr Multiply kMultiply[kTileRows + 1][2] = AFFUSE_TILES(multiply);

}  // namespace

void lines_multiply(int rows, int vecs, int64_t kc, const float* a, const float* b, float* acc, bool resume,
                    const float* next, int64_t next_step) {
  kMultiply[rows][vecs - 1](kc, a, b, acc, resume, next ? next : b, next ? next_step : 0);
}

}  // namespace affuse::AFFUSE_ISA::gemm
