// Operands of mma.h: matrices of float32 rounded to bf16, to nearest even, and laid along K, zeros beyond K.
#pragma once
#include "mma.h"

namespace affuse::cuda::gemm {

inline int64_t rounded_words(int64_t K) { return round_up(K, kHalves) / 2; }  // of a line

// Threads of a block in rows of 2^shift that share out a line's places, so that nothing is divided by a run-time number.
inline int line_shift(int64_t places) {
  int shift = 0;
  while (shift < 8 && (int64_t(1) << shift) < places) ++shift;
  return shift;
}

// order(s): the line that stands at place s, negative: zeros.
template <class Order>
AFFUSE_GLOBAL(kThreads, 4) round_along(Plain x, Order order, uint32_t* to, int64_t places, int words, int shift) {
  const int per_block = kThreads >> shift, first = (int(threadIdx.x) & ((1 << shift) - 1)) * 4;
  const int64_t step = int64_t(gridDim.x) * per_block;
  for (int64_t s = int64_t(blockIdx.x) * per_block + (threadIdx.x >> shift); s < places; s += step) {
    const int64_t line = order(int(s));
    const float* const from = line >= 0 && line < x.lines ? x.p + line * x.ld : nullptr;
    for (int w = first; w < words; w += 4 << shift) {
      const int k = 2 * w, left = from ? x.K - k : 0;
      uint32_t pairs[4];
      if (x.wide && left >= 8) {
        const Pack<4> a = get<4>(from + k), b = get<4>(from + k + 4);
        pairs[0] = to_bf16(a.v[0], a.v[1]), pairs[1] = to_bf16(a.v[2], a.v[3]);
        pairs[2] = to_bf16(b.v[0], b.v[1]), pairs[3] = to_bf16(b.v[2], b.v[3]);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e)
          pairs[e] = to_bf16(2 * e < left ? from[k + 2 * e] : 0.0f, 2 * e + 1 < left ? from[k + 2 * e + 1] : 0.0f);
      }
      store4(to + s * words + w, make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]));
    }
  }
}

// Tiles of 32 lines by 32 words, `across` of them beside each other; in one row of blocks, which K may make long.
AFFUSE_GLOBAL(kThreads, 4) round_across(Transposed x, uint32_t* to, int words, unsigned across) {
  Shared shared;
  float* const tile = shared.take<float>(64 * 33);
  const unsigned down = blockIdx.x / across;
  const int64_t line = int64_t(blockIdx.x - down * across) * 32, k0 = int64_t(down) * 64;
  for (int k = int(warp()); k < 64; k += kThreads / 32)
    tile[k * 33 + int(lane())] = line + lane() < x.lines && k0 + k < x.K ? x.p[(k0 + k) * x.ld + line + lane()] : 0.0f;
  barrier();
  const int64_t word = int64_t(down) * 32 + lane();
  for (int s = int(warp()); s < 32; s += kThreads / 32)
    if (line + s < x.lines && word < words)
      to[(line + s) * words + word] = to_bf16(tile[2 * int(lane()) * 33 + s], tile[(2 * int(lane()) + 1) * 33 + s]);
}

template <class Order>
Rounded rounded(Queue& queue, const Plain& x, const Order& order, int64_t places, float* workspace) {
  auto* const to = reinterpret_cast<uint32_t*>(workspace);
  const int words = int(rounded_words(x.K)), shift = line_shift(words / 4);
  const int64_t blocks = ceil_div(places, kThreads >> shift), most = int64_t(queue.processors) * 16;
  launch("round_along", round_along<Order>, queue, Grid{blocks < most ? blocks : most}, kThreads, 0, x, order, to, places,
         words, shift);
  return {to, places, words};
}
inline Rounded rounded(Queue& queue, const Plain& x, float* workspace) {
  return rounded(queue, x, InOrder{0}, x.lines, workspace);
}
inline Rounded rounded(Queue& queue, const Transposed& x, float* workspace) {
  auto* const to = reinterpret_cast<uint32_t*>(workspace);
  const int words = int(rounded_words(x.K));
  const int64_t across = ceil_div(x.lines, 32);
  AFFUSE_LAUNCH(round_across, queue, Grid{across * ceil_div(words, 32)}, kThreads, SharedBytes().take<float>(64 * 33).bytes, x,
                to, words, unsigned(across));
  return {to, x.lines, words};
}

}  // namespace affuse::cuda::gemm
