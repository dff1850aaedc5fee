// kLanes x kLanes transposes in registers, for the packers.
#pragma once
#include "../common/simd.h"

namespace affuse::AFFUSE_ISA::gemm {

#if defined(AFFUSE_ISA_AVX512)
AFFUSE_INLINE void transpose(Vec (&v)[kLanes]) {
  Vec t[16];
  // 4x4 blocks inside the 128-bit lanes of each group of four rows …
#pragma GCC unroll 4
  for (int g = 0; g < 16; g += 4) {
    const Vec a = _mm512_unpacklo_ps(v[g], v[g + 1]), b = _mm512_unpackhi_ps(v[g], v[g + 1]);
    const Vec c = _mm512_unpacklo_ps(v[g + 2], v[g + 3]), d = _mm512_unpackhi_ps(v[g + 2], v[g + 3]);
    t[g] = _mm512_shuffle_ps(a, c, 0x44);
    t[g + 1] = _mm512_shuffle_ps(a, c, 0xee);
    t[g + 2] = _mm512_shuffle_ps(b, d, 0x44);
    t[g + 3] = _mm512_shuffle_ps(b, d, 0xee);
  }
  // … then the 4x4 transpose of those blocks.
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const Vec a = _mm512_shuffle_f32x4(t[i], t[4 + i], 0x88), b = _mm512_shuffle_f32x4(t[i], t[4 + i], 0xdd);
    const Vec c = _mm512_shuffle_f32x4(t[8 + i], t[12 + i], 0x88), d = _mm512_shuffle_f32x4(t[8 + i], t[12 + i], 0xdd);
    v[i] = _mm512_shuffle_f32x4(a, c, 0x88);
    v[8 + i] = _mm512_shuffle_f32x4(a, c, 0xdd);
    v[4 + i] = _mm512_shuffle_f32x4(b, d, 0x88);
    v[12 + i] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}
#elif defined(AFFUSE_ISA_AVX2)
AFFUSE_INLINE void transpose(Vec (&v)[kLanes]) {
  Vec t[8];
#pragma GCC unroll 2
  for (int g = 0; g < 8; g += 4) {
    const Vec a = _mm256_unpacklo_ps(v[g], v[g + 1]), b = _mm256_unpackhi_ps(v[g], v[g + 1]);
    const Vec c = _mm256_unpacklo_ps(v[g + 2], v[g + 3]), d = _mm256_unpackhi_ps(v[g + 2], v[g + 3]);
    t[g] = _mm256_shuffle_ps(a, c, 0x44);
    t[g + 1] = _mm256_shuffle_ps(a, c, 0xee);
    t[g + 2] = _mm256_shuffle_ps(b, d, 0x44);
    t[g + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2f128_ps(t[i], t[4 + i], 0x20);
    v[4 + i] = _mm256_permute2f128_ps(t[i], t[4 + i], 0x31);
  }
}
#elif defined(AFFUSE_ISA_NEON)
AFFUSE_INLINE void transpose(Vec (&v)[kLanes]) {
  const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(v[0], v[1])), b = vreinterpretq_f64_f32(vtrn2q_f32(v[0], v[1]));
  const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(v[2], v[3])), d = vreinterpretq_f64_f32(vtrn2q_f32(v[2], v[3]));
  v[0] = vreinterpretq_f32_f64(vzip1q_f64(a, c));
  v[1] = vreinterpretq_f32_f64(vzip1q_f64(b, d));
  v[2] = vreinterpretq_f32_f64(vzip2q_f64(a, c));
  v[3] = vreinterpretq_f32_f64(vzip2q_f64(b, d));
}
#else
AFFUSE_INLINE void transpose(Vec (&v)[kLanes]) {
  const Vec a = __builtin_shuffle(v[0], v[1], Int{0, 4, 1, 5}), b = __builtin_shuffle(v[0], v[1], Int{2, 6, 3, 7});
  const Vec c = __builtin_shuffle(v[2], v[3], Int{0, 4, 1, 5}), d = __builtin_shuffle(v[2], v[3], Int{2, 6, 3, 7});
  v[0] = __builtin_shuffle(a, c, Int{0, 1, 4, 5});
  v[1] = __builtin_shuffle(a, c, Int{2, 3, 6, 7});
  v[2] = __builtin_shuffle(b, d, Int{0, 1, 4, 5});
  v[3] = __builtin_shuffle(b, d, Int{2, 3, 6, 7});
}
#endif

}  // namespace affuse::AFFUSE_ISA::gemm
