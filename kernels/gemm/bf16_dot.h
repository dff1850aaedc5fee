// The micro kernels of bf16_tiles.h around one instruction: AFFUSE_BF16_DOT(c, a, b) gives c + sum of products of the two
// pairs in each lane. bf16_dot.cc takes vdpbf16ps; test/native/bf16_stand_in.cc its description in AVX-512F, for machines
// without.
//
// 14 x 2 vectors of sums and 2 of columns take 30 of 32 registers; rows are broadcast by the instruction itself.
#pragma once
#include "bf16_tiles.h"

namespace affuse::gemm {
namespace {

template <int R, int NV>
__attribute__((noinline)) void multiply_dot(int64_t pairs, const float* __restrict__ a, const float* __restrict__ b,
                                            float* acc, bool resume, const float* next, int64_t next_step) {
  constexpr int kStride = 32;  // kTileStride of the avx512 level
  __m512 c[R][NV];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) c[r][v] = resume ? _mm512_loadu_ps(acc + r * kStride + v * 16) : _mm512_setzero_ps();
  constexpr int kAhead = 8 * NV * 16;
  for (int64_t k = 0; k < pairs; ++k) {
    __m512i x[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) x[v] = _mm512_loadu_si512(b + v * 16);
    __builtin_prefetch(b + kAhead, 0, 3);
    if constexpr (NV > 1) __builtin_prefetch(b + kAhead + 16, 0, 3);
    if constexpr (R >= 8) __builtin_prefetch(a + 32 * R, 0, 3);
    __builtin_prefetch(next, 0, 2);
    next += next_step;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      int32_t word;
      __builtin_memcpy(&word, a + r, sizeof word);
      const __m512i y = _mm512_set1_epi32(word);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) c[r][v] = AFFUSE_BF16_DOT(c[r][v], x[v], y);
    }
    a += R;
    b += NV * 16;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) _mm512_storeu_ps(acc + r * kStride + v * 16, c[r][v]);
}

#define AFFUSE_DOT_ROWS(n) {&multiply_dot<n, 1>, &multiply_dot<n, 2>}
constexpr Bf16Tiles kDotTiles = {{{nullptr, nullptr}, AFFUSE_DOT_ROWS(1), AFFUSE_DOT_ROWS(2), AFFUSE_DOT_ROWS(3),
                                  AFFUSE_DOT_ROWS(4), AFFUSE_DOT_ROWS(5), AFFUSE_DOT_ROWS(6), AFFUSE_DOT_ROWS(7),
                                  AFFUSE_DOT_ROWS(8), AFFUSE_DOT_ROWS(9), AFFUSE_DOT_ROWS(10), AFFUSE_DOT_ROWS(11),
                                  AFFUSE_DOT_ROWS(12), AFFUSE_DOT_ROWS(13), AFFUSE_DOT_ROWS(14)}};
#undef AFFUSE_DOT_ROWS

}  // namespace
}  // namespace affuse::gemm
