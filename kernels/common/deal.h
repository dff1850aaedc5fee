// Rows dealt into phases, for files compiled once per ISA level (cpu.cc): phase p of a row holds its elements p, p + stride,
// p + 2 stride, … side by side, so that what lies `stride` apart in the row is one vector.
#pragma once
#include "reduce.h"

namespace affuse::AFFUSE_ISA {
namespace {

struct Halves {
  Vec even, odd;
};
// Elements 0, 2, 4 … and 1, 3, 5 … of a followed by b.
AFFUSE_INLINE Halves deal(Vec a, Vec b) {
#if defined(AFFUSE_ISA_AVX512)
  const Int even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  return {_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, _mm512_or_si512(even, int1(1)), b)};
#elif defined(AFFUSE_ISA_AVX2)
  const auto sorted = [](Vec v) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8)); };
  return {sorted(_mm256_shuffle_ps(a, b, 0x88)), sorted(_mm256_shuffle_ps(a, b, 0xdd))};
#elif defined(AFFUSE_ISA_NEON)
  return {vuzp1q_f32(a, b), vuzp2q_f32(a, b)};
#else
  return {Vec{a[0], a[2], b[0], b[2]}, Vec{a[1], a[3], b[1], b[3]}};
#endif
}
// The other way: even[0], odd[0], even[1], …; `even` of the result is the first half of them.
AFFUSE_INLINE Halves mix(Vec even, Vec odd) {
#if defined(AFFUSE_ISA_AVX512)
  const Int first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  return {_mm512_permutex2var_ps(even, first, odd), _mm512_permutex2var_ps(even, _mm512_add_epi32(first, int1(8)), odd)};
#elif defined(AFFUSE_ISA_AVX2)
  const Vec low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
  return {_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)};
#elif defined(AFFUSE_ISA_NEON)
  return {vzip1q_f32(even, odd), vzip2q_f32(even, odd)};
#else
  return {Vec{even[0], odd[0], even[1], odd[1]}, Vec{even[2], odd[2], even[3], odd[3]}};
#endif
}

// Phase p of the n floats of row to phases + p * pitch. There, up to 2 kLanes floats more are written.
AFFUSE_INLINE void deal_row(const float* row, int64_t n, int64_t stride, int64_t pitch, float* phases) {
  if (stride == 2) {
    for (int64_t i = 0; i < n; i += 2 * kLanes) {
      const int64_t left = n - i;
      const Vec a = get(row + i, left < kLanes ? int(left) : kLanes);
      const Vec b = left <= kLanes ? zero() : get(row + i + kLanes, left < 2 * kLanes ? int(left - kLanes) : kLanes);
      const Halves h = deal(a, b);
      store(phases + i / 2, h.even);
      store(phases + pitch + i / 2, h.odd);
    }
    return;
  }
  if (stride == 1) return for_lanes(n, [&](int64_t i, int k) { put(phases + i, get(row + i, k), k); });
  for (int64_t p = 0; p < stride && p < n; ++p)
    for (int64_t i = p, q = 0; i < n; i += stride, ++q) phases[p * pitch + q] = row[i];
}

// n floats of the row out of its phases.
AFFUSE_INLINE void undeal_row(const float* phases, int64_t n, int64_t stride, int64_t pitch, float* row) {
  if (stride == 2) {
    for (int64_t i = 0; i < n; i += 2 * kLanes) {
      const int64_t left = n - i;
      const Halves h = mix(load(phases + i / 2), load(phases + pitch + i / 2));
      put(row + i, h.even, left < kLanes ? int(left) : kLanes);
      if (left > kLanes) put(row + i + kLanes, h.odd, left < 2 * kLanes ? int(left - kLanes) : kLanes);
    }
    return;
  }
  if (stride == 1) return for_lanes(n, [&](int64_t i, int k) { put(row + i, get(phases + i, k), k); });
  for (int64_t p = 0; p < stride && p < n; ++p)
    for (int64_t i = p, q = 0; i < n; i += stride, ++q) row[i] = phases[p * pitch + q];
}

}  // namespace
}  // namespace affuse::AFFUSE_ISA
