// What afg's forward and backward share for one ISA level.
#pragma once
#include "../common/math.h"
#include "../common/reduce.h"
#include "../common/simd.h"
#include "../gemm/lines.h"
#include "../gemm/transpose.h"
#include "scratch.h"

namespace affuse::AFFUSE_ISA {
namespace {

// W as columns: nk for W x, kn for p̄ W.
[[maybe_unused]] void afg_pack_weight(const AfgSize& n, bool bf16, gemm::Layout layout, const float* W, float* packed,
                                      const Workers& workers) {
  const int64_t N = layout == gemm::Layout::nk ? n.A : n.D, K = n.A + n.D - N;
  if (bf16) gemm::pack_columns_bf16(W, n.D, N, K, layout, packed, workers, afg_pairs(n));
  else gemm::pack_columns(W, n.D, N, K, layout, packed, workers);
}

// Lists the valid frames of all samples in the order of memory; returns how many there are.
[[maybe_unused]] int64_t list_frames(const Frames& f, const float* x, int64_t D, const FrameList& list) {
  int64_t count = 0;
  for (int64_t b = 0; b < f.B; ++b) {
    list.first[b] = count;
    const int64_t n = valid_frames(f, b, list.frame + count);
    for (int64_t i = count; i < count + n; ++i) {
      list.row[i] = x + (b * f.T + list.frame[i]) * D;
      list.sample[i] = int32_t(b);
    }
    count += n;
  }
  list.first[f.B] = count;
  return count;
}

[[maybe_unused]] void fill(float* p, int64_t n, float value) {
  for_lanes(n, [&](int64_t i, int lanes) { put(p + i, set1(value), lanes); });
}

[[maybe_unused]] void multiply(float* p, int64_t n, float factor) {
  for_lanes(n, [&](int64_t i, int lanes) { put(p + i, set1(factor) * get(p + i, lanes), lanes); });
}

// y += factor * x
[[maybe_unused]] void add_scaled(float* y, const float* x, float factor, int64_t n) {
  for_lanes(n, [&](int64_t i, int lanes) { put(y + i, fma(set1(factor), get(x + i, lanes), get(y + i, lanes)), lanes); });
}

// Largest of p[0, n) and `least`; NaN is passed over (it comes back through exp).
[[maybe_unused]] float largest(const float* p, int64_t n, float least) {
  for (int64_t i = 0; i < n; ++i) least = p[i] > least ? p[i] : least;
  return least;
}

// p ← exp(p − shift); returns the sum.
[[maybe_unused]] float exp_shifted(float* p, int64_t n, float shift) {
  float total = 0;
  for_lanes(n, [&](int64_t i, int lanes) { put(p + i, exp_negative(get(p + i, lanes) - set1(shift)), lanes); });
  for (int64_t i = 0; i < n; ++i) total += p[i];
  return total;
}

[[maybe_unused]] float exp_of(float x) {
  float lanes[kLanes];
  store(lanes, exp(set1(x)));
  return lanes[0];
}

// Full aligned vectors to memory that nobody reads soon; drain_stores() before another thread may look.
#if defined(AFFUSE_ISA_AVX512)
constexpr bool kStoresPastCache = true;
AFFUSE_INLINE void store_past_cache(float* p, Vec v) { _mm512_stream_ps(p, v); }
AFFUSE_INLINE void drain_stores() { _mm_sfence(); }
#else
constexpr bool kStoresPastCache = false;
AFFUSE_INLINE void store_past_cache(float* p, Vec v) { store(p, v); }
AFFUSE_INLINE void drain_stores() {}
#endif
// Whether an array is so large (and lies so) that it is stored past the cache.
[[maybe_unused]] bool passes_cache(const float* p, int64_t rows, int64_t columns) {
  return kStoresPastCache && rows * columns >= int64_t(1) << 20 && columns % kLanes == 0 &&
         reinterpret_cast<uintptr_t>(p) % 64 == 0;
}

// The key of a frame of zeros: what padding contributes when it takes part in the softmax.
[[maybe_unused]] void silent_key(const float* bias, int64_t A, float* key) {
  for_lanes(A, [&](int64_t a, int n) { put(key + a, tanh(get(bias + a, n)), n); });
}

// Lane i: the sum over the lanes of v[i].
AFFUSE_INLINE Vec sums_of(Vec (&v)[kLanes]) {
#if defined(AFFUSE_ISA_AVX512)
  Vec two[8], four[4];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    two[i] = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]) + _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    four[i] = _mm512_shuffle_ps(two[2 * i], two[2 * i + 1], 0x44) + _mm512_shuffle_ps(two[2 * i], two[2 * i + 1], 0xee);
  const Vec low = _mm512_shuffle_f32x4(four[0], four[1], 0x88) + _mm512_shuffle_f32x4(four[0], four[1], 0xdd);
  const Vec high = _mm512_shuffle_f32x4(four[2], four[3], 0x88) + _mm512_shuffle_f32x4(four[2], four[3], 0xdd);
  return _mm512_shuffle_f32x4(low, high, 0x88) + _mm512_shuffle_f32x4(low, high, 0xdd);
#else
  gemm::transpose(v);
  for (int half = kLanes / 2; half >= 1; half /= 2)
    for (int i = 0; i < half; ++i) v[i] = v[i] + v[i + half];
  return v[0];
#endif
}

// sum[j*D + d] = Σ_i weight[j*stride + i] x_i[d] for i in [from, to), from < to, d < D: from a block of `rows` rows that was
// copied in lines, in pieces of D, so that the rows are not read a second time. Rows outside [from, to) may hold NaN: they
// are not touched. Two blocks of d and up to eight rows at a time, in chains that do not wait for each other.
[[maybe_unused]] void gather_lines(const float* lines, int rows, int64_t piece, int64_t from, int64_t to,
                                   const float* weight, int64_t stride, int64_t J, int64_t D, float* sum) {
  const gemm::RowTiles tiles(rows);
  for (int64_t k = 0; k < D; k += piece) {
    const int64_t kc = gemm::min64(piece, D - k);
    for (int t = 0; t < tiles.count; ++t) {
      const int64_t start = tiles.start(t), height = tiles.height(t), step = height * kLanes;
      const int64_t first = gemm::max64(from, start), end = gemm::min64(to, start + height);
      if (first >= end) continue;
      const bool begun = from < start;
      const float* const tile = lines + k * rows + gemm::lines_floats(start, kc) + (first - start) * kLanes;
      for (int64_t j = 0; j < J; ++j) {
        const float* const w = weight + j * stride;
        float* const out = sum + j * D + k;
        int64_t d = 0;
        for (; d + 2 * kLanes <= kc; d += 2 * kLanes) {
          const float* a = tile + d * height;
          Vec v[4][2];
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) v[i][0] = v[i][1] = zero();
          if (begun) v[0][0] = load(out + d), v[0][1] = load(out + d + kLanes);
          int64_t r = first;
          for (; r + 4 <= end; r += 4, a += 4 * kLanes)
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
              const Vec y = set1(w[r + i]);
              v[i][0] = fma(load(a + i * kLanes), y, v[i][0]);
              v[i][1] = fma(load(a + i * kLanes + step), y, v[i][1]);
            }
          for (; r < end; ++r, a += kLanes) {
            const Vec y = set1(w[r]);
            v[0][0] = fma(load(a), y, v[0][0]);
            v[0][1] = fma(load(a + step), y, v[0][1]);
          }
          store(out + d, (v[0][0] + v[1][0]) + (v[2][0] + v[3][0]));
          store(out + d + kLanes, (v[0][1] + v[1][1]) + (v[2][1] + v[3][1]));
        }
        for (; d < kc; d += kLanes) {
          const int n = int(gemm::min64(kLanes, kc - d));
          const float* a = tile + d * height;
          Vec v = begun ? load(out + d, n) : zero();
          for (int64_t r = first; r < end; ++r, a += kLanes) v = fma(load(a), set1(w[r]), v);
          put(out + d, v, n);
        }
      }
    }
  }
}

}  // namespace
}  // namespace affuse::AFFUSE_ISA
