// Rounding, packing and the expanding register tiles for bf16 operands: see bf16.h.
#include "bf16.h"
#include "tile_step.h"

namespace affuse::AFFUSE_ISA::gemm {
namespace {

// The upper halves of the words at p. Sums, columns and a row fill the registers, so there is none for a mask of bits.
AFFUSE_INLINE Vec load_high(const float* p) {
#if defined(AFFUSE_ISA_AVX512)
  return from_bits(_mm512_maskz_loadu_epi16(0xaaaaaaaau, p));
#elif defined(AFFUSE_ISA_AVX2)
  return from_bits(shift_left<16>(shift_right<16>(bits(load(p)))));
#else
  return high_bf16(bits(load(p)));
#endif
}

// As multiply() in cpu.cc, two steps of K per word: the lower halves first.
template <int R, int NV>
AFFUSE_NOINLINE void multiply_pairs(int64_t pairs, const float* AFFUSE_RESTRICT a, const float* AFFUSE_RESTRICT b,
                                    float* acc, bool resume, const float* next, int64_t next_step) {
  Vec c[R][NV];
  take_sums<R, NV>(c, acc, resume);
  constexpr int kAhead = 8 * NV * kLanes;
  auto step = [&]() __attribute__((always_inline)) {
    Vec x[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) x[v] = low_bf16(bits(load(b + v * kLanes)));
    prefetch(b + kAhead);
    if constexpr (NV * kLanes > 16) prefetch(b + kAhead + 16);
    if constexpr (R >= 8) {
      prefetch(a + 32 * R);
      prefetch(a + 33 * R);
    }
    multiply_step<R, NV>(c, a, x);
    // Else the compiler keeps the words and loads the second step's rows early, and sums go to memory to make room.
    __asm__ volatile("" ::: "memory");
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) x[v] = load_high(b + v * kLanes);
    multiply_step<R, NV>(c, a + R, x);
    __asm__ volatile("" ::: "memory");
    a += 2 * R;
    b += NV * kLanes;
  };
  steps_beside_upcoming(pairs, next, next_step, step);
  leave_sums<R, NV>(c, acc);
}

constexpr Bf16Multiply kMultiplyPairs[kTileRows + 1][2] = AFFUSE_TILES(multiply_pairs);

}  // namespace

void tile_multiply_bf16(int rows, int vecs, int64_t kc, const float* a, const float* b, float* acc, bool resume,
                        const float* next, int64_t next_step) {
  kMultiplyPairs[rows][vecs - 1](kc / 2, a, b, acc, resume, next ? next : b, next ? next_step : 0);
}

void round_in_place(float* x, int64_t n) {
  for_lanes(n, [&](int64_t i, int lanes) { store(x + i, round_bf16(load(x + i, lanes)), lanes); });
}

void store_pairs(const float* rows, int64_t n, int64_t pairs, int64_t width, float* dst) {
  for (int64_t p = 0; p < pairs; ++p, dst += width) {
    const float *low = rows + 2 * p * width, *high = low + width;
    for_lanes(width, [&](int64_t c, int lanes) {
      const Vec first = 2 * p < n ? load(low + c, lanes) : zero(), second = 2 * p + 1 < n ? load(high + c, lanes) : zero();
      store(dst + c, from_bits(pair_bf16(first, second)), lanes);
    });
  }
}

void pack_columns_bf16(const float* w, int64_t ld, int64_t N, int64_t K, Layout layout, float* dst, const Workers& workers,
                       bool pairs) {
  const int64_t E = even(K);
  parallel(workers, ceil_div(N, kTileStride), [&](int64_t panel, int) {
    const int64_t n = panel * kTileStride;
    const int cols = int(min64(kTileStride, N - n)), width = vecs_of(cols) * kLanes;
    alignas(64) float chunk[kBf16Chunk * kTileStride];
    for (int64_t k = 0; k < E; k += kBf16Chunk) {
      const int64_t steps = min64(kBf16Chunk, E - k), there = min64(steps, K - k);
      const int64_t at = n * E + k * width;
      float* const to = pairs ? chunk : dst + at;
      pack_panel(layout == Layout::nk ? w + n * ld + k : w + k * ld + n, ld, cols, there, layout, to);
      if (pairs) {
        store_pairs(chunk, there, steps / 2, width, dst + at / 2);
      } else {
        round_in_place(to, there * width);
        for (int64_t i = there * width; i < steps * width; ++i) to[i] = 0.0f;
      }
    }
  });
}

}  // namespace affuse::AFFUSE_ISA::gemm
