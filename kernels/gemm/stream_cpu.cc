// Register tiles with something on the side: see stream.h.
#include "gemm.h"
#include "tile_step.h"

namespace affuse::AFFUSE_ISA::gemm {
namespace {

template <int R, int NV>
AFFUSE_NOINLINE void beside(int64_t kc, const float* AFFUSE_RESTRICT a, const float* AFFUSE_RESTRICT b, float* acc,
                            bool resume, const Aside& aside) {
  Vec c[R][NV];
  take_sums<R, NV>(c, acc, resume);
  const auto step = [&]() __attribute__((always_inline)) { stream_step<R, NV>(c, a, b); };
  const float *from = aside.from, *fetch = aside.fetch, *then = aside.then;
  float* to = aside.to;
  const int64_t ld = aside.ld, second = aside.second;
  int64_t left = aside.rows, before = aside.before;
  auto on_the_side = [&] () __attribute__((always_inline)) {
    if (aside.write) {
      prefetch_write(fetch);
      if (second) prefetch_write(fetch + second);
    } else {
      prefetch_l2(fetch);
      if (second) prefetch_l2(fetch + second);
    }
    fetch += ld;
    if (--before == 0) {
      fetch = then;
      then += aside.then_step;
      before = aside.again;
    }
    if (!to) return;
#pragma GCC unroll 2
    for (int v = 0; v < kTileVecs; ++v) store(to + v * kLanes, load(from + v * kLanes));
    from += ld;
    to += kTileStride;
  };
  for (; left > kc; --left) on_the_side();
  int64_t k = 0;
  if (left > 0)
    for (const int64_t every = kc / left; left > 0; --left) {
      on_the_side();
      const int64_t end = k + every;
      if (every & 1) step(), ++k;
      for (; k < end; k += 2) {
        step();
        step();
      }
    }
  for (; k + 2 <= kc; k += 2) {
    step();
    step();
  }
  if (k < kc) step();
  leave_sums<R, NV>(c, acc);
}

// Panels of `cols` columns one after another, each sum from its register to C: if sums pass through memory and every tile is
// a call of its own, a tile of 17 steps takes as long to hand over as to multiply (affuse bench --filter 'sweep 016').
template <int R, int NV>
AFFUSE_NOINLINE void directly(int64_t panels, int cols, int64_t kc, const float* AFFUSE_RESTRICT a,
                              const float* AFFUSE_RESTRICT b, float* AFFUSE_RESTRICT c, int64_t ld) {
  constexpr int kWidth = NV * kLanes;
  const int ends = cols - (NV - 1) * kLanes;
  const int64_t every = kc < 16 * R ? 1 : kc / R;  // steps beside a row that is fetched: not all at once if there is time
  for (; panels > 0; --panels, c += kWidth) {
    Vec sums[R][NV];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) sums[r][v] = zero();
    }
    const float* row = a;
    const float* below = c + R * ld;  // comes next; its lines are fetched row after row
    int64_t k = 0;
#pragma GCC unroll 1
    for (int r = 0; r < R && k < kc; ++r, below += ld) {
#pragma GCC unroll 2
      for (int line = 0; line < kWidth; line += 16) prefetch_write(below + (line + 15 < kWidth ? line + 15 : kWidth - 1));
#pragma GCC unroll 1
      for (const int64_t end = k + every; k < end; ++k) stream_step<R, NV>(sums, row, b);
    }
#pragma GCC unroll 1
    for (; k < kc; ++k) stream_step<R, NV>(sums, row, b);
    float* to = c;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r, to += ld) {
      if constexpr (NV > 1) store(to, sums[r][0]);
      store(to + (NV - 1) * kLanes, sums[r][NV - 1], ends);
    }
  }
}

}  // namespace

void panels_multiply_into(int rows, int64_t panels, int cols, int64_t kc, const float* a, const float* b, float* c,
                          int64_t ld) {
  using Into = void (*)(int64_t, int, int64_t, const float*, const float*, float*, int64_t);
  static constexpr Into kInto[kTileRows + 1][2] = AFFUSE_TILES(directly);
  kInto[rows][vecs_of(cols) - 1](panels, cols, kc, a, b, c, ld);
}

void tile_multiply_aside(int rows, int vecs, int64_t kc, const float* a, const float* b, float* acc, bool resume,
                         const Aside& aside) {
  using Multiply = void (*)(int64_t, const float*, const float*, float*, bool, const Aside&);
  static constexpr Multiply kMultiply[kTileRows + 1][2] = AFFUSE_TILES(beside);
  kMultiply[rows][vecs - 1](kc, a, b, acc, resume, aside);
}

}  // namespace affuse::AFFUSE_ISA::gemm
