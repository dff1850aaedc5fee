// What the micro kernels share: taking up and leaving the sums of a register tile, one step of K, the table of heights.
#pragma once
#include "../common/simd.h"

namespace affuse::AFFUSE_ISA::gemm {

// The sums of a tile: as they stand in memory, or 0.
template <int R, int NV>
AFFUSE_INLINE void take_sums(Vec (&c)[R][NV], const float* acc, bool resume) {
  if (resume) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) c[r][v] = load(acc + r * kTileStride + v * kLanes);
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) c[r][v] = zero();
  }
}
template <int R, int NV>
AFFUSE_INLINE void leave_sums(const Vec (&c)[R][NV], float* acc) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) store(acc + r * kTileStride + v * kLanes, c[r][v]);
}

// c += a * b, in c's register. Left to itself GCC gives a sum the register of a factor whenever that one is free; with
// AVX2's sixteen registers moves and spills follow (affuse bench --filter '^afg/B=32,T=67-200,D=512,A=512$', Zen 3: 80 to
// 87 % of the roof without them; 32 registers have room enough).
AFFUSE_INLINE void add_product(Vec& c, Vec a, Vec b) {
#if defined(AFFUSE_ISA_AVX2)
  asm("vfmadd231ps %2, %1, %0" : "+x"(c) : "x"(a), "x"(b));
#else
  c = fma(a, b, c);
#endif
}

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
    for (int v = 0; v < NV; ++v) add_product(c[r][v], y, x[v]);
  }
}

// One step of float32 operands, [.][R] and [.][NV*kLanes], some rows of both fetched ahead; goes on to the next.
template <int R, int NV>
AFFUSE_INLINE void stream_step(Vec (&c)[R][NV], const float* AFFUSE_RESTRICT& a, const float* AFFUSE_RESTRICT& b) {
  constexpr int kAhead = 8 * NV * kLanes;
  Vec x[NV];
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v) x[v] = load(b + v * kLanes);
  prefetch(b + kAhead);
  if constexpr (NV * kLanes > 16) prefetch(b + kAhead + 16);
  if constexpr (R >= 8) prefetch(a + 32 * R);  // about a line per step: rows that stream from L3
  multiply_step<R, NV>(c, a, x);
  a += R;
  b += NV * kLanes;
}

// `steps` steps; on the side this tile's share of the upcoming panel, steps*next_step floats from `next`, comes into L2. Of
// two lines side by side one is fetched with AVX-512: the hardware brings the other, and fetches of both would take the line
// fill buffers from the loads. The other levels run on processors that bring no such pairs too, and fetch every line (Zen 3, 4
// rows of 1024 with weights from DRAM: 14 to 20 GB/s). The share is read in two places in turns, or four: the hardware reads
// ahead within pages, in several at a time (affuse bench --filter '^fbp/B=16').
template <class Step>
AFFUSE_INLINE void steps_beside_upcoming(int64_t steps, const float* next, int64_t next_step, const Step& step) {
#if defined(AFFUSE_ISA_AVX512)
  const bool whole = next_step > 16;  // a panel for one tile
#else
  const bool whole = next_step >= 16;
#endif
  const int64_t half = steps / 4 * next_step * 2, quarter = half / 2;
  int64_t k = 0;
  for (; k + 4 <= steps; k += 4) {
    prefetch_l2(next);
    step();
    if (whole) prefetch_l2(next + quarter);
    step();
    prefetch_l2(next + half);
    step();
    if (whole) prefetch_l2(next + half + quarter);
    step();
    next += whole ? next_step : 2 * next_step;
  }
  for (; k < steps; ++k) step();
}

// AFFUSE_TILES(fn): the table of a micro kernel fn<rows, vectors> by height and vectors - 1, every height up to the level's
// kTileRows.
#define AFFUSE_TILES_ROW(fn, n) {&fn<n, 1>, &fn<n, 2>}
#define AFFUSE_TILES_4(fn) \
  {nullptr, nullptr}, AFFUSE_TILES_ROW(fn, 1), AFFUSE_TILES_ROW(fn, 2), AFFUSE_TILES_ROW(fn, 3), AFFUSE_TILES_ROW(fn, 4)
#define AFFUSE_TILES_6(fn) AFFUSE_TILES_4(fn), AFFUSE_TILES_ROW(fn, 5), AFFUSE_TILES_ROW(fn, 6)
#define AFFUSE_TILES_12(fn)                                                                               \
  AFFUSE_TILES_6(fn), AFFUSE_TILES_ROW(fn, 7), AFFUSE_TILES_ROW(fn, 8), AFFUSE_TILES_ROW(fn, 9),          \
      AFFUSE_TILES_ROW(fn, 10), AFFUSE_TILES_ROW(fn, 11), AFFUSE_TILES_ROW(fn, 12)
#if defined(AFFUSE_ISA_AVX512)
#define AFFUSE_TILES(fn) {AFFUSE_TILES_12(fn), AFFUSE_TILES_ROW(fn, 13), AFFUSE_TILES_ROW(fn, 14)}
#elif defined(AFFUSE_ISA_NEON)
#define AFFUSE_TILES(fn) {AFFUSE_TILES_12(fn)}
#elif defined(AFFUSE_ISA_AVX2)
#define AFFUSE_TILES(fn) {AFFUSE_TILES_6(fn)}
#else
#define AFFUSE_TILES(fn) {AFFUSE_TILES_4(fn)}
#endif

}  // namespace affuse::AFFUSE_ISA::gemm
