// One float vector type per instruction set, for files compiled once per level (cpu.cc).
//
//   Vec     kLanes floats: 4 (NEON; baseline: SSE2, or whatever the compiler makes of a 16-byte vector elsewhere), 8 (AVX2),
//           16 (AVX-512). A compiler vector type, so + - * / and unary minus work on it.
//   Mask    one truth value per lane, from lt/le/gt/ge/eq/is_nan, used by select/and_not.
//   Int     kLanes int32, only what exponent arithmetic needs.
//
// Every function is forced inline and lives in affuse::AFFUSE_ISA, so no AVX-512 instruction can reach a baseline caller.
// Rounding: with AVX2, AVX-512 and NEON fma() rounds once, baseline rounds twice where the compiler has no fused
// instruction; results differ between levels by rounding only.
// NaN: min and max return their SECOND operand when either one is NaN (the x86 rule, kept on every level): write
// max(limit, x) to let a NaN in x through.
#pragma once
#include <stddef.h>
#include <stdint.h>
#if defined(__SSE2__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 11 and 12 take the deliberately undefined operand of their own AVX-512 wrappers for a mistake (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#endif
#if defined(AFFUSE_ISA_NEON)
#include <arm_neon.h>
#endif

#ifndef AFFUSE_ISA
#error "simd.h is for files compiled per ISA level: define AFFUSE_ISA"
#endif
#define AFFUSE_INLINE inline __attribute__((always_inline))
// After a lambda's parameters: its body must not become a call per step of the loop.
#define AFFUSE_INLINE_BODY __attribute__((always_inline))
#define AFFUSE_NOINLINE __attribute__((noinline))
#define AFFUSE_RESTRICT __restrict__

namespace affuse::AFFUSE_ISA {

#if defined(AFFUSE_ISA_AVX512)
// ------------------------------------------------------------------------------------------------ AVX-512, 16 lanes
constexpr int kLanes = 16;
using Vec = __m512;
using Int = __m512i;
using Mask = __mmask16;

AFFUSE_INLINE Mask first_lanes(int n) { return Mask((1u << n) - 1u); }  // lanes [0,n), 0 <= n <= kLanes
AFFUSE_INLINE Vec zero() { return _mm512_setzero_ps(); }
AFFUSE_INLINE Vec set1(float x) { return _mm512_set1_ps(x); }
AFFUSE_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
AFFUSE_INLINE Vec load(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
AFFUSE_INLINE void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
AFFUSE_INLINE void store(float* p, Vec v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
AFFUSE_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
AFFUSE_INLINE Vec fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }
AFFUSE_INLINE Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
AFFUSE_INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
AFFUSE_INLINE Vec sqrt(Vec a) { return _mm512_sqrt_ps(a); }
AFFUSE_INLINE Vec abs(Vec a) { return _mm512_abs_ps(a); }
AFFUSE_INLINE Vec copysign(Vec magnitude, Vec sign) {
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_set1_epi32(0x7fffffff), _mm512_castps_si512(magnitude),
                                                       _mm512_castps_si512(sign), 0xca));
}
AFFUSE_INLINE Vec round(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
AFFUSE_INLINE Mask lt(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
AFFUSE_INLINE Mask le(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
AFFUSE_INLINE Mask eq(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
AFFUSE_INLINE Mask is_nan(Vec a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
AFFUSE_INLINE bool any(Mask m) { return m != 0; }
AFFUSE_INLINE Vec select(Mask m, Vec a, Vec b) { return _mm512_mask_blend_ps(m, b, a); }  // m ? a : b
AFFUSE_INLINE Vec keep(Mask m, Vec a) { return _mm512_maskz_mov_ps(m, a); }               // m ? a : 0
AFFUSE_INLINE Int bits(Vec a) { return _mm512_castps_si512(a); }
AFFUSE_INLINE Vec from_bits(Int a) { return _mm512_castsi512_ps(a); }
AFFUSE_INLINE Int to_int(Vec a) { return _mm512_cvtps_epi32(a); }
AFFUSE_INLINE Vec to_float(Int a) { return _mm512_cvtepi32_ps(a); }
AFFUSE_INLINE Int int1(int32_t x) { return _mm512_set1_epi32(x); }
AFFUSE_INLINE Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
AFFUSE_INLINE Int sub(Int a, Int b) { return _mm512_sub_epi32(a, b); }
AFFUSE_INLINE Int bit_and(Int a, Int b) { return _mm512_and_si512(a, b); }
AFFUSE_INLINE Int bit_or(Int a, Int b) { return _mm512_or_si512(a, b); }
template <int n> AFFUSE_INLINE Int shift_left(Int a) { return _mm512_slli_epi32(a, n); }
template <int n> AFFUSE_INLINE Int shift_right(Int a) { return _mm512_srai_epi32(a, n); }  // arithmetic

#elif defined(AFFUSE_ISA_AVX2)
// ------------------------------------------------------------------------------------------------ AVX2 + FMA, 8 lanes
constexpr int kLanes = 8;
using Vec = __m256;
using Int = __m256i;
using Mask = __m256;

AFFUSE_INLINE Mask first_lanes(int n) {
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
}
AFFUSE_INLINE Vec zero() { return _mm256_setzero_ps(); }
AFFUSE_INLINE Vec set1(float x) { return _mm256_set1_ps(x); }
AFFUSE_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
AFFUSE_INLINE Vec load(const float* p, int n) {
  return n >= kLanes ? load(p) : _mm256_maskload_ps(p, _mm256_castps_si256(first_lanes(n)));
}
AFFUSE_INLINE void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
// Piece by piece: a masked store takes 13 cycles on Zen 3, these three at most 4.
AFFUSE_INLINE void store(float* p, Vec v, int n) {
  if (n >= kLanes) return store(p, v);
  __m128 left = _mm256_castps256_ps128(v);
  if (n & 4) {
    _mm_storeu_ps(p, left);
    left = _mm256_extractf128_ps(v, 1);
    p += 4;
  }
  if (n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), left);
    left = _mm_movehl_ps(left, left);
    p += 2;
  }
  if (n & 1) _mm_store_ss(p, left);
}
AFFUSE_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
AFFUSE_INLINE Vec fnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }
AFFUSE_INLINE Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
AFFUSE_INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
AFFUSE_INLINE Vec sqrt(Vec a) { return _mm256_sqrt_ps(a); }
AFFUSE_INLINE Vec abs(Vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
AFFUSE_INLINE Vec copysign(Vec magnitude, Vec sign) {
  const Vec bit = _mm256_set1_ps(-0.0f);
  return _mm256_or_ps(_mm256_andnot_ps(bit, magnitude), _mm256_and_ps(bit, sign));
}
AFFUSE_INLINE Vec round(Vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
AFFUSE_INLINE Mask lt(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
AFFUSE_INLINE Mask le(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
AFFUSE_INLINE Mask eq(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
AFFUSE_INLINE Mask is_nan(Vec a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
AFFUSE_INLINE bool any(Mask m) { return _mm256_movemask_ps(m) != 0; }
AFFUSE_INLINE Vec select(Mask m, Vec a, Vec b) { return _mm256_blendv_ps(b, a, m); }
AFFUSE_INLINE Vec keep(Mask m, Vec a) { return _mm256_and_ps(m, a); }
AFFUSE_INLINE Int bits(Vec a) { return _mm256_castps_si256(a); }
AFFUSE_INLINE Vec from_bits(Int a) { return _mm256_castsi256_ps(a); }
AFFUSE_INLINE Int to_int(Vec a) { return _mm256_cvtps_epi32(a); }
AFFUSE_INLINE Vec to_float(Int a) { return _mm256_cvtepi32_ps(a); }
AFFUSE_INLINE Int int1(int32_t x) { return _mm256_set1_epi32(x); }
AFFUSE_INLINE Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
AFFUSE_INLINE Int sub(Int a, Int b) { return _mm256_sub_epi32(a, b); }
AFFUSE_INLINE Int bit_and(Int a, Int b) { return _mm256_and_si256(a, b); }
AFFUSE_INLINE Int bit_or(Int a, Int b) { return _mm256_or_si256(a, b); }
template <int n> AFFUSE_INLINE Int shift_left(Int a) { return _mm256_slli_epi32(a, n); }
template <int n> AFFUSE_INLINE Int shift_right(Int a) { return _mm256_srai_epi32(a, n); }

#elif defined(AFFUSE_ISA_NEON)
// ------------------------------------------------------------------------------------------------ NEON (AArch64), 4 lanes
constexpr int kLanes = 4;
using Vec = float32x4_t;
using Int = int32x4_t;
using Mask = uint32x4_t;  // all ones or all zeros per lane

AFFUSE_INLINE Mask first_lanes(int n) {
  static const int32_t kIndex[4] = {0, 1, 2, 3};
  return vcltq_s32(vld1q_s32(kIndex), vdupq_n_s32(n));
}
AFFUSE_INLINE Vec zero() { return vdupq_n_f32(0); }
AFFUSE_INLINE Vec set1(float x) { return vdupq_n_f32(x); }
AFFUSE_INLINE Vec load(const float* p) { return vld1q_f32(p); }
AFFUSE_INLINE Vec load(const float* p, int n) {
  if (n >= kLanes) return load(p);
  Vec v = zero();
  if (n > 0) v = vld1q_lane_f32(p, v, 0);
  if (n > 1) v = vld1q_lane_f32(p + 1, v, 1);
  if (n > 2) v = vld1q_lane_f32(p + 2, v, 2);
  return v;
}
AFFUSE_INLINE void store(float* p, Vec v) { vst1q_f32(p, v); }
AFFUSE_INLINE void store(float* p, Vec v, int n) {
  if (n >= kLanes) return store(p, v);
  if (n > 0) vst1q_lane_f32(p, v, 0);
  if (n > 1) vst1q_lane_f32(p + 1, v, 1);
  if (n > 2) vst1q_lane_f32(p + 2, v, 2);
}
AFFUSE_INLINE Vec fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
AFFUSE_INLINE Vec fnma(Vec a, Vec b, Vec c) { return vfmsq_f32(c, a, b); }
AFFUSE_INLINE Mask lt(Vec a, Vec b) { return vcltq_f32(a, b); }
AFFUSE_INLINE Mask le(Vec a, Vec b) { return vcleq_f32(a, b); }
AFFUSE_INLINE Mask eq(Vec a, Vec b) { return vceqq_f32(a, b); }
AFFUSE_INLINE Mask is_nan(Vec a) { return vmvnq_u32(vceqq_f32(a, a)); }
AFFUSE_INLINE bool any(Mask m) { return vmaxvq_u32(m) != 0; }
AFFUSE_INLINE Vec select(Mask m, Vec a, Vec b) { return vbslq_f32(m, a, b); }
AFFUSE_INLINE Vec min(Vec a, Vec b) { return select(lt(a, b), a, b); }  // fmin would let a NaN in a through
AFFUSE_INLINE Vec max(Vec a, Vec b) { return select(lt(b, a), a, b); }
AFFUSE_INLINE Vec sqrt(Vec a) { return vsqrtq_f32(a); }
AFFUSE_INLINE Vec abs(Vec a) { return vabsq_f32(a); }
AFFUSE_INLINE Vec copysign(Vec magnitude, Vec sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, magnitude); }
AFFUSE_INLINE Vec round(Vec a) { return vrndnq_f32(a); }
AFFUSE_INLINE Vec keep(Mask m, Vec a) { return vreinterpretq_f32_u32(vandq_u32(m, vreinterpretq_u32_f32(a))); }
AFFUSE_INLINE Int bits(Vec a) { return vreinterpretq_s32_f32(a); }
AFFUSE_INLINE Vec from_bits(Int a) { return vreinterpretq_f32_s32(a); }
AFFUSE_INLINE Int to_int(Vec a) { return vcvtnq_s32_f32(a); }
AFFUSE_INLINE Vec to_float(Int a) { return vcvtq_f32_s32(a); }
AFFUSE_INLINE Int int1(int32_t x) { return vdupq_n_s32(x); }
AFFUSE_INLINE Int add(Int a, Int b) { return vaddq_s32(a, b); }
AFFUSE_INLINE Int sub(Int a, Int b) { return vsubq_s32(a, b); }
AFFUSE_INLINE Int bit_and(Int a, Int b) { return vandq_s32(a, b); }
AFFUSE_INLINE Int bit_or(Int a, Int b) { return vorrq_s32(a, b); }
template <int n> AFFUSE_INLINE Int shift_left(Int a) { return vshlq_n_s32(a, n); }
template <int n> AFFUSE_INLINE Int shift_right(Int a) { return vshrq_n_s32(a, n); }

#else
// ------------------------------------------------------------------------------------------------ baseline, 4 lanes
constexpr int kLanes = 4;
typedef float Vec __attribute__((vector_size(16)));
typedef int32_t Int __attribute__((vector_size(16)));
typedef float VecUnaligned __attribute__((vector_size(16), aligned(4), may_alias));
using Mask = Int;  // all ones or all zeros per lane

AFFUSE_INLINE Mask first_lanes(int n) { return Int{0, 1, 2, 3} < Int{n, n, n, n}; }
AFFUSE_INLINE Vec zero() { return Vec{0, 0, 0, 0}; }
AFFUSE_INLINE Vec set1(float x) { return Vec{x, x, x, x}; }
AFFUSE_INLINE Vec load(const float* p) { return *reinterpret_cast<const VecUnaligned*>(p); }
AFFUSE_INLINE Vec load(const float* p, int n) {
  if (n >= kLanes) return load(p);
  return Vec{n > 0 ? p[0] : 0.0f, n > 1 ? p[1] : 0.0f, n > 2 ? p[2] : 0.0f, n > 3 ? p[3] : 0.0f};
}
AFFUSE_INLINE void store(float* p, Vec v) { *reinterpret_cast<VecUnaligned*>(p) = v; }
AFFUSE_INLINE void store(float* p, Vec v, int n) {
  if (n >= kLanes) return store(p, v);
  if (n > 0) p[0] = v[0];
  if (n > 1) p[1] = v[1];
  if (n > 2) p[2] = v[2];
  if (n > 3) p[3] = v[3];
}
AFFUSE_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
AFFUSE_INLINE Vec fnma(Vec a, Vec b, Vec c) { return c - a * b; }
AFFUSE_INLINE Int bits(Vec a) { return (Int)a; }
AFFUSE_INLINE Vec from_bits(Int a) { return (Vec)a; }
AFFUSE_INLINE Int int1(int32_t x) { return Int{x, x, x, x}; }
AFFUSE_INLINE Int add(Int a, Int b) { return a + b; }
AFFUSE_INLINE Int sub(Int a, Int b) { return a - b; }
AFFUSE_INLINE Int bit_and(Int a, Int b) { return a & b; }
AFFUSE_INLINE Int bit_or(Int a, Int b) { return a | b; }
template <int n> AFFUSE_INLINE Int shift_left(Int a) { return a << n; }
template <int n> AFFUSE_INLINE Int shift_right(Int a) { return a >> n; }
AFFUSE_INLINE Mask lt(Vec a, Vec b) { return a < b; }
AFFUSE_INLINE Mask le(Vec a, Vec b) { return a <= b; }
AFFUSE_INLINE Mask eq(Vec a, Vec b) { return a == b; }
AFFUSE_INLINE Mask is_nan(Vec a) { return a != a; }
AFFUSE_INLINE Vec select(Mask m, Vec a, Vec b) { return (Vec)((m & (Int)a) | (~m & (Int)b)); }
AFFUSE_INLINE Vec keep(Mask m, Vec a) { return (Vec)(m & (Int)a); }
AFFUSE_INLINE Vec abs(Vec a) { return (Vec)((Int)a & int1(0x7fffffff)); }
AFFUSE_INLINE Vec copysign(Vec magnitude, Vec sign) {
  return (Vec)(((Int)magnitude & int1(0x7fffffff)) | ((Int)sign & int1(int32_t(0x80000000))));
}
#if defined(__SSE2__)
AFFUSE_INLINE Vec min(Vec a, Vec b) { return _mm_min_ps(a, b); }
AFFUSE_INLINE Vec max(Vec a, Vec b) { return _mm_max_ps(a, b); }
AFFUSE_INLINE Vec sqrt(Vec a) { return _mm_sqrt_ps(a); }
AFFUSE_INLINE bool any(Mask m) { return _mm_movemask_ps((Vec)m) != 0; }
AFFUSE_INLINE Int to_int(Vec a) { return (Int)_mm_cvtps_epi32(a); }
AFFUSE_INLINE Vec to_float(Int a) { return _mm_cvtepi32_ps((__m128i)a); }
#else
AFFUSE_INLINE Vec min(Vec a, Vec b) { return select(a < b, a, b); }
AFFUSE_INLINE Vec max(Vec a, Vec b) { return select(b < a, a, b); }
AFFUSE_INLINE Vec sqrt(Vec a) {
  return Vec{__builtin_sqrtf(a[0]), __builtin_sqrtf(a[1]), __builtin_sqrtf(a[2]), __builtin_sqrtf(a[3])};
}
AFFUSE_INLINE bool any(Mask m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }
AFFUSE_INLINE Int to_int(Vec a) {
  return Int{int32_t(__builtin_rintf(a[0])), int32_t(__builtin_rintf(a[1])), int32_t(__builtin_rintf(a[2])),
             int32_t(__builtin_rintf(a[3]))};
}
AFFUSE_INLINE Vec to_float(Int a) { return __builtin_convertvector(a, Vec); }
#endif
// To the nearest integer, ties to even; |a| < 2^22 (adding 1.5*2^23 leaves no room for a fraction).
AFFUSE_INLINE Vec round(Vec a) {
  const Vec magic = set1(12582912.0f);
  return (a + magic) - magic;
}
#endif

// ------------------------------------------------------------------------------------------------ every level
// bf16: the upper 16 bits of a float32. To the nearest, ties to even; NaN stays NaN, what lies beyond the largest becomes
// inf. The result is a float32 whose lower 16 bits are 0.
AFFUSE_INLINE Vec round_bf16(Vec x) {
  const Int b = bits(x), upper = int1(int32_t(0xffff0000u));
  const Int odd = bit_and(shift_right<16>(b), int1(1));
  const Vec rounded = from_bits(bit_and(add(b, add(odd, int1(0x7fff))), upper));
  return select(is_nan(x), from_bits(bit_and(bit_or(b, int1(0x00400000)), upper)), rounded);
}
// Two of them in a word: `low` of the smaller index, `high` of the larger one.
AFFUSE_INLINE Int pair_bf16(Vec low, Vec high) {
  const Int upper = int1(int32_t(0xffff0000u));
  return bit_or(bit_and(shift_right<16>(bits(round_bf16(low))), int1(0xffff)), bit_and(bits(round_bf16(high)), upper));
}
AFFUSE_INLINE Vec low_bf16(Int pair) { return from_bits(shift_left<16>(pair)); }
AFFUSE_INLINE Vec high_bf16(Int pair) { return from_bits(bit_and(pair, int1(int32_t(0xffff0000u)))); }

AFFUSE_INLINE Mask gt(Vec a, Vec b) { return lt(b, a); }
AFFUSE_INLINE Mask ge(Vec a, Vec b) { return le(b, a); }
AFFUSE_INLINE Vec iota() {  // 0, 1, 2 …
  float f[kLanes];
  for (int i = 0; i < kLanes; ++i) f[i] = float(i);
  return load(f);
}

// Sum and maximum over the lanes, in a fixed tree order: lane i meets lane i + kLanes/2, then i + kLanes/4, …
AFFUSE_INLINE float sum(Vec v) {
#if defined(AFFUSE_ISA_AVX512) || defined(AFFUSE_ISA_AVX2)
#if defined(AFFUSE_ISA_AVX512)
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
#else
  const __m256 half = v;
#endif
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
  float f[kLanes];
  store(f, v);
  for (int half = kLanes / 2; half >= 1; half /= 2)
    for (int i = 0; i < half; ++i) f[i] += f[i + half];
  return f[0];
#endif
}
AFFUSE_INLINE float max_lane(Vec v) {
  float f[kLanes];
  store(f, v);
  for (int half = kLanes / 2; half >= 1; half /= 2)
    for (int i = 0; i < half; ++i) f[i] = f[i] > f[i + half] ? f[i] : f[i + half];
  return f[0];
}
AFFUSE_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }     // into L1; any address is allowed
AFFUSE_INLINE void prefetch_l2(const void* p) { __builtin_prefetch(p, 0, 2); }  // into L2
AFFUSE_INLINE void prefetch_write(const void* p) { __builtin_prefetch(p, 1, 3); }  // into L1, to be written

// Calls body(i, n) over [0, count) in steps of kLanes, n lanes each: kLanes, at the end fewer.
template <class F>
AFFUSE_INLINE void for_lanes(int64_t count, F&& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, kLanes);
  if (i < count) body(i, int(count - i));
}

}  // namespace affuse::AFFUSE_ISA
