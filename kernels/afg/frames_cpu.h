// What afg's forward and backward share for one ISA level.
#pragma once
#include "../common/math.h"
#include "../common/reduce.h"
#include "../common/simd.h"
#include "../gemm/transpose.h"
#include "scratch.h"

namespace affuse::AFFUSE_ISA {
namespace {

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
  for_lanes(n, [&](int64_t i, int lanes) { put(p + i, exp(get(p + i, lanes) - set1(shift)), lanes); });
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

// Vectors that hold the rows of a block's tiles, at most.
constexpr int kMostParts = 32;
static_assert(gemm::ceil_div(kForwardRows, gemm::kTileRows) * gemm::ceil_div(gemm::kTileRows, kLanes) <= kMostParts);

// sum[j*D + d] = Σ_i weight[j*stride + i] x_i[d] for i in [from, to), from < to, d < D: from a block of `rows` rows that was
// packed in pieces of D, so that the rows are not read a second time. A step of the packed block holds a tile's rows for one
// d: sums stay apart by row until all tiles are through. Rows outside [from, to) may hold NaN: they are not touched.
[[maybe_unused]] void gather_packed(const float* packed, int rows, int64_t piece, int64_t from, int64_t to,
                                    const float* weight, int64_t stride, int64_t J, int64_t D, float* sum) {
  struct Part {  // rows of one tile
    const float* at;
    int64_t height;
    int lanes;
    Vec weight;
  };
  const gemm::RowTiles tiles(rows);
  Part parts[kMostParts];
  for (int64_t k = 0; k < D; k += piece) {
    const int64_t kc = gemm::min64(piece, D - k);
    for (int64_t j = 0; j < J; ++j) {
      int count = 0;
      for (int t = 0; t < tiles.count; ++t) {
        const int64_t start = tiles.start(t), height = tiles.height(t);
        for (int64_t r = gemm::max64(from, start), end = gemm::min64(to, start + height); r < end; r += kLanes) {
          const int lanes = int(gemm::min64(kLanes, end - r));
          const float* at = packed + k * rows + start * kc + (r - start);
          parts[count++] = {at, height, lanes, load(weight + j * stride + r, lanes)};
        }
      }
      for_lanes(kc, [&](int64_t d, int n) {
        Vec v[kLanes];
        for (int i = 0; i < kLanes; ++i) v[i] = zero();
        for (int p = 0; p < count; ++p) {
          const Part& part = parts[p];
          const float* a = part.at + d * part.height;
          if (n == kLanes && part.height == gemm::kTileRows) {  // steps between the loads that the compiler knows
#pragma GCC unroll 16
            for (int i = 0; i < kLanes; ++i) v[i] = fma(load(a + i * gemm::kTileRows, part.lanes), part.weight, v[i]);
          } else if (n == kLanes) {
#pragma GCC unroll 16
            for (int i = 0; i < kLanes; ++i) v[i] = fma(load(a + i * part.height, part.lanes), part.weight, v[i]);
          } else {
            for (int i = 0; i < n; ++i) v[i] = fma(load(a + i * part.height, part.lanes), part.weight, v[i]);
          }
        }
        put(sum + j * D + k + d, sums_of(v), n);
      });
    }
  }
}

}  // namespace
}  // namespace affuse::AFFUSE_ISA
