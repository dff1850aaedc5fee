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

}  // namespace

void tile_multiply_aside(int rows, int vecs, int64_t kc, const float* a, const float* b, float* acc, bool resume,
                         const Aside& aside) {
  using Multiply = void (*)(int64_t, const float*, const float*, float*, bool, const Aside&);
  static constexpr Multiply kMultiply[kTileRows + 1][2] = AFFUSE_TILES(beside);
  kMultiply[rows][vecs - 1](kc, a, b, acc, resume, aside);
}

}  // namespace affuse::AFFUSE_ISA::gemm
