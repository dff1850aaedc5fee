// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011) and the dropout
// masks made from it (spec section 0).
//
// Element e of a tensor (flat row-major index) takes word e mod 4 of the block with
//     key     = the 64-bit seed, low word first
//     counter = (low word of floor(e/4), high word of floor(e/4), step, instance)
// and is dropped if that word < round(p * 2^32). Kept elements are multiplied by 1/(1-p). A mask is therefore a function
// of (seed, step, instance, e) alone: the same for every ISA level, thread count and device.
//
// Everything here has internal linkage, because cpu.cc files that include it are compiled once per ISA level.
#pragma once
#include <cstddef>
#include <cstdint>
#if defined(AFFUSE_ISA) && defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(AFFUSE_ISA_NEON)
#include <arm_neon.h>
#endif

namespace affuse {

constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;  // multipliers
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;  // key increments (Weyl)

// constexpr, here and below, also lets device code call it.
[[maybe_unused]] static constexpr void philox4x32_10(const uint32_t counter[4], uint64_t key, uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(kPhiloxM0) * c0, p1 = uint64_t(kPhiloxM1) * c2;
    c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
    c1 = uint32_t(p1);
    c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c3 = uint32_t(p0);
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

// What one use of dropout needs to know. p = 0 keeps everything and scales by 1: the identity.
struct DropoutMask {
  uint64_t seed;
  uint32_t step, instance;
  uint64_t threshold;  // in [0, 2^32]; an element is dropped if its word is below
  double scale;        // 1/(1-p)
};

[[maybe_unused]] static constexpr DropoutMask dropout_mask(double p, uint64_t seed, int64_t step, int64_t instance) {
  return {seed, uint32_t(step), uint32_t(instance), uint64_t(p * 4294967296.0 + 0.5), 1.0 / (1.0 - p)};
}

// Whether the low word of a group's number may overflow within the next ones: a block of vector code keeps the high word.
[[maybe_unused]] static inline bool philox_carries(uint64_t group) { return uint32_t(group) > 0xffffff00u; }

// One element at a time: for references. Vector code uses dropout_apply and dropout_factors below.
[[maybe_unused]] static constexpr bool dropout_keeps(const DropoutMask& m, uint64_t e) {
  const uint64_t group = e >> 2;
  const uint32_t counter[4] = {uint32_t(group), uint32_t(group >> 32), m.step, m.instance};
  uint32_t words[4] = {};
  philox4x32_10(counter, m.seed, words);
  return words[e & 3] >= m.threshold;
}

}  // namespace affuse

#ifdef AFFUSE_ISA
// The vector form. Philox state lives in 64-bit lanes of which only the low halves count: vpmuludq reads just those and
// leaves high and low word of the product side by side, so a round is 2 multiplications, 2 shifts and 4 xors per vector
// and nothing is ever blended. Two vectors (even and odd 32-bit lanes) run side by side; at the end they are merged and a
// 4x4 transposition inside 128-bit blocks puts the words in element order. The counters are dealt to the lanes so that
// after this transposition each vector holds consecutive elements.
namespace affuse::AFFUSE_ISA {
namespace {

#if defined(__x86_64__)
#if AFFUSE_ISA_AVX512
#define AFFUSE_PHILOX_BYTES 64
#elif AFFUSE_ISA_AVX2
#define AFFUSE_PHILOX_BYTES 32
#else
#define AFFUSE_PHILOX_BYTES 16
#endif
typedef uint64_t PhiloxLanes __attribute__((vector_size(AFFUSE_PHILOX_BYTES)));
constexpr int kPhiloxVector = AFFUSE_PHILOX_BYTES / 4;  // elements per vector
constexpr int kPhiloxBlock = 4 * kPhiloxVector;         // elements per block

#if AFFUSE_ISA_AVX512
using PhiloxWords = __m512i;
constexpr PhiloxLanes kPhiloxEven = {0, 8, 1, 9, 2, 10, 3, 11}, kPhiloxOdd = {4, 12, 5, 13, 6, 14, 7, 15};
#define AFFUSE_PHILOX(op) _mm512_##op
#elif AFFUSE_ISA_AVX2
using PhiloxWords = __m256i;
constexpr PhiloxLanes kPhiloxEven = {0, 4, 1, 5}, kPhiloxOdd = {2, 6, 3, 7};
#define AFFUSE_PHILOX(op) _mm256_##op
#else
using PhiloxWords = __m128i;
constexpr PhiloxLanes kPhiloxEven = {0, 2}, kPhiloxOdd = {1, 3};
#define AFFUSE_PHILOX(op) _mm_##op
#endif

static inline __attribute__((always_inline)) PhiloxLanes philox_mul(PhiloxLanes a, PhiloxLanes b) {
  return (PhiloxLanes)AFFUSE_PHILOX(mul_epu32)((PhiloxWords)a, (PhiloxWords)b);
}

// The high words of 64-bit lanes in the low places; what is left in the high places does not matter. As a shift for even
// `lane` and as a shuffle for odd, because these run on different ports; with AVX2 always as a shift (Zen 3: 0.71 against
// 0.76 ns an element).
static inline __attribute__((always_inline)) PhiloxLanes philox_high(PhiloxLanes a, int lane) {
#if AFFUSE_ISA_AVX2
  (void)lane;
  return a >> 32;
#elif AFFUSE_ISA_AVX512
  return lane % 2 == 0 ? a >> 32 : (PhiloxLanes)_mm512_shuffle_epi32((__m512i)a, _MM_PERM_DDBB);
#else
  if (lane % 2 == 0) return a >> 32;
  return (PhiloxLanes)AFFUSE_PHILOX(shuffle_epi32)((PhiloxWords)a, 0xf5);
#endif
}

// Low words of a in the even 32-bit places, those of b in the odd ones.
static inline __attribute__((always_inline)) PhiloxWords philox_merge(PhiloxLanes a, PhiloxLanes b) {
#if AFFUSE_ISA_AVX512
  return _mm512_mask_shuffle_epi32((__m512i)a, 0xaaaa, (__m512i)b, _MM_PERM_CCAA);
#else
  return (PhiloxWords)((a & (PhiloxLanes{} + 0xffffffffu)) | (b << 32));
#endif
}

// A round's keys; and all of them, made once for a run of blocks. Read as broadcast operands (AVX-512), or as vectors where
// there are none, they cost no arithmetic port.
[[maybe_unused]] static constexpr uint32_t philox_key0(uint64_t seed, uint32_t round) {
  return uint32_t(seed) + round * kPhiloxW0;
}
[[maybe_unused]] static constexpr uint32_t philox_key1(uint64_t seed, uint32_t round) {
  return uint32_t(seed >> 32) + round * kPhiloxW1;
}
#if AFFUSE_ISA_AVX512
using PhiloxKey = uint64_t;
#else
using PhiloxKey = PhiloxLanes;
#endif
struct PhiloxKeys {
  PhiloxKey k0[10], k1[10];
};
static inline PhiloxKeys philox_keys(uint64_t seed) {
  PhiloxKeys keys;
  for (uint32_t round = 0; round < 10; ++round) {
    keys.k0[round] = PhiloxKey{} + uint64_t(philox_key0(seed, round));
    keys.k1[round] = PhiloxKey{} + uint64_t(philox_key1(seed, round));
  }
  return keys;
}

// Words of elements 4*group ... 4*group + blocks*kPhiloxBlock - 1, in order; no carry may reach the high word of group on
// the way (philox_carries). A round's chain of multiplication, shift and xor takes 7 cycles and its instructions 6 per
// block, so one block alone leaves the ports half idle: blocks go in pairs with AVX-512, whose 32 registers hold the state of
// both, and with AVX2, where words that only meet an xor wait in memory (Zen 3: 0.62 against 0.71 ns an element).
//
// Only the low word of the group differs between lanes. Half of the first two rounds therefore is the same in all of them.
template <int blocks>
static inline __attribute__((always_inline)) void philox_blocks(const DropoutMask& m, const PhiloxKeys& keys, uint64_t group,
                                                                PhiloxWords words[4 * blocks]) {
  constexpr int n = 2 * blocks;
  const PhiloxLanes zero = {};
  const PhiloxLanes m0 = zero + uint64_t(kPhiloxM0), m1 = zero + uint64_t(kPhiloxM1);
  const uint64_t p1 = uint64_t(kPhiloxM1) * m.step;  // first round
  const uint32_t first0 = uint32_t(p1 >> 32) ^ uint32_t(group >> 32) ^ philox_key0(m.seed, 0);
  const uint64_t p0 = uint64_t(kPhiloxM0) * first0;  // second round
  const PhiloxLanes from_c3 = zero + uint64_t(m.instance ^ philox_key1(m.seed, 0));
  const PhiloxLanes from_c1 = zero + uint64_t(uint32_t(p1) ^ philox_key0(m.seed, 1));
  const PhiloxLanes high = zero + uint64_t(uint32_t(p0 >> 32) ^ philox_key1(m.seed, 1)), low = zero + uint64_t(uint32_t(p0));
  PhiloxLanes c0[n], c1[n], c2[n], c3[n];
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) {
    const PhiloxLanes counter = (i % 2 ? kPhiloxOdd : kPhiloxEven) + (group + uint64_t(i / 2) * kPhiloxVector);
    const PhiloxLanes q0 = philox_mul(counter, m0), q1 = philox_mul(philox_high(q0, i) ^ from_c3, m1);
    c0[i] = philox_high(q1, i + 1) ^ from_c1, c1[i] = q1, c2[i] = q0 ^ high, c3[i] = low;
  }
#pragma GCC unroll 8
  for (int round = 2; round < 10; ++round) {
    const PhiloxLanes key0 = zero + keys.k0[round], key1 = zero + keys.k1[round];
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) {
      const PhiloxLanes q0 = philox_mul(c0[i], m0), q1 = philox_mul(c2[i], m1);
      c0[i] = philox_high(q1, i) ^ c1[i] ^ key0;
      c1[i] = q1;
      c2[i] = philox_high(q0, i) ^ c3[i] ^ key1;
      c3[i] = q0;
    }
  }
#pragma GCC unroll 2
  for (int i = 0; i < n; i += 2, words += 4) {
    const PhiloxWords w0 = philox_merge(c0[i], c0[i + 1]), w1 = philox_merge(c1[i], c1[i + 1]);
    const PhiloxWords w2 = philox_merge(c2[i], c2[i + 1]), w3 = philox_merge(c3[i], c3[i + 1]);
    const PhiloxWords t0 = AFFUSE_PHILOX(unpacklo_epi32)(w0, w1), t1 = AFFUSE_PHILOX(unpacklo_epi32)(w2, w3);
    const PhiloxWords t2 = AFFUSE_PHILOX(unpackhi_epi32)(w0, w1), t3 = AFFUSE_PHILOX(unpackhi_epi32)(w2, w3);
    words[0] = AFFUSE_PHILOX(unpacklo_epi64)(t0, t1), words[1] = AFFUSE_PHILOX(unpackhi_epi64)(t0, t1);
    words[2] = AFFUSE_PHILOX(unpacklo_epi64)(t2, t3), words[3] = AFFUSE_PHILOX(unpackhi_epi64)(t2, t3);
  }
}

// blocks * kPhiloxBlock elements: y = kept ? x * scale : 0. x == y is allowed. threshold < 2^32.
template <int blocks>
static inline __attribute__((always_inline)) void dropout_blocks(const DropoutMask& m, const PhiloxKeys& keys,
                                                                 uint64_t group, const float* x, float* y) {
  PhiloxWords words[4 * blocks];
  philox_blocks<blocks>(m, keys, group, words);
#if AFFUSE_ISA_AVX512
  const __m512 scale = _mm512_set1_ps(float(m.scale));
  const __m512i threshold = _mm512_set1_epi32(int(uint32_t(m.threshold)));
  for (int j = 0; j < 4 * blocks; ++j) {
    const __mmask16 keep = _mm512_cmpge_epu32_mask(words[j], threshold);
    _mm512_storeu_ps(y + 16 * j, _mm512_maskz_mul_ps(keep, _mm512_loadu_ps(x + 16 * j), scale));
  }
#elif AFFUSE_ISA_AVX2
  const __m256 scale = _mm256_set1_ps(float(m.scale));  // unsigned comparison by flipping both sign bits
  const __m256i sign = _mm256_set1_epi32(int(0x80000000u));
  const __m256i threshold = _mm256_xor_si256(_mm256_set1_epi32(int(uint32_t(m.threshold))), sign);
  for (int j = 0; j < 4 * blocks; ++j) {
    const __m256 drop = (__m256)_mm256_cmpgt_epi32(threshold, _mm256_xor_si256(words[j], sign));
    _mm256_storeu_ps(y + 8 * j, _mm256_andnot_ps(drop, _mm256_mul_ps(_mm256_loadu_ps(x + 8 * j), scale)));
  }
#else
  const __m128 scale = _mm_set1_ps(float(m.scale));
  const __m128i sign = _mm_set1_epi32(int(0x80000000u));
  const __m128i threshold = _mm_xor_si128(_mm_set1_epi32(int(uint32_t(m.threshold))), sign);
  for (int j = 0; j < 4 * blocks; ++j) {
    const __m128 drop = (__m128)_mm_cmpgt_epi32(threshold, _mm_xor_si128(words[j], sign));
    _mm_storeu_ps(y + 4 * j, _mm_andnot_ps(drop, _mm_mul_ps(_mm_loadu_ps(x + 4 * j), scale)));
  }
#endif
}
static inline __attribute__((always_inline)) void dropout_block(const DropoutMask& m, const PhiloxKeys& keys, uint64_t group,
                                                                const float* x, float* y) {
  dropout_blocks<1>(m, keys, group, x, y);
}
#undef AFFUSE_PHILOX
#undef AFFUSE_PHILOX_BYTES
#elif AFFUSE_ISA_NEON
// 32-bit lanes, four counters side by side: umull widens two lanes at a time, uzp parts high and low words again.
constexpr int kPhiloxBlock = 16;

struct PhiloxProduct {
  uint32x4_t high, low;
};
static inline __attribute__((always_inline)) PhiloxProduct philox_mul(uint32x4_t a, uint32x4_t b) {
  const uint32x4_t first = vreinterpretq_u32_u64(vmull_u32(vget_low_u32(a), vget_low_u32(b)));
  const uint32x4_t second = vreinterpretq_u32_u64(vmull_high_u32(a, b));
  return {vuzp2q_u32(first, second), vuzp1q_u32(first, second)};
}

struct PhiloxKeys {};  // the rounds' keys are additions beside the vector work
static inline PhiloxKeys philox_keys(uint64_t) { return {}; }
static inline __attribute__((always_inline)) void dropout_block(const DropoutMask& m, const PhiloxKeys&, uint64_t group,
                                                                const float* x, float* y) {
  const uint32x4_t m0 = vdupq_n_u32(kPhiloxM0), m1 = vdupq_n_u32(kPhiloxM1);
  const uint64_t groups[4] = {group, group + 1, group + 2, group + 3};
  const uint32x4_t g0 = vreinterpretq_u32_u64(vld1q_u64(groups)), g1 = vreinterpretq_u32_u64(vld1q_u64(groups + 2));
  uint32x4_t c0 = vuzp1q_u32(g0, g1), c1 = vuzp2q_u32(g0, g1), c2 = vdupq_n_u32(m.step), c3 = vdupq_n_u32(m.instance);
  uint32_t k0 = uint32_t(m.seed), k1 = uint32_t(m.seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const PhiloxProduct p0 = philox_mul(c0, m0), p1 = philox_mul(c2, m1);
    c0 = veorq_u32(veorq_u32(p1.high, c1), vdupq_n_u32(k0));
    c1 = p1.low;
    c2 = veorq_u32(veorq_u32(p0.high, c3), vdupq_n_u32(k1));
    c3 = p0.low;
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
  // 4x4 transposition: vector j holds the four words of counter j, which are four consecutive elements.
  const uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(c0, c1)), b = vreinterpretq_u64_u32(vtrn2q_u32(c0, c1));
  const uint64x2_t c = vreinterpretq_u64_u32(vtrn1q_u32(c2, c3)), d = vreinterpretq_u64_u32(vtrn2q_u32(c2, c3));
  const uint64x2_t words[4] = {vzip1q_u64(a, c), vzip1q_u64(b, d), vzip2q_u64(a, c), vzip2q_u64(b, d)};
  const uint32x4_t threshold = vdupq_n_u32(uint32_t(m.threshold));
  const float32x4_t scale = vdupq_n_f32(float(m.scale));
  for (int j = 0; j < 4; ++j) {
    const uint32x4_t keep = vcgeq_u32(vreinterpretq_u32_u64(words[j]), threshold);
    const uint32x4_t scaled = vreinterpretq_u32_f32(vmulq_f32(vld1q_f32(x + 4 * j), scale));
    vst1q_f32(y + 4 * j, vreinterpretq_f32_u32(vandq_u32(keep, scaled)));
  }
}
#else
constexpr int kPhiloxBlock = 4;
struct PhiloxKeys {};
static inline PhiloxKeys philox_keys(uint64_t) { return {}; }
static inline void dropout_block(const DropoutMask& m, const PhiloxKeys&, uint64_t group, const float* x, float* y) {
  const uint32_t counter[4] = {uint32_t(group), uint32_t(group >> 32), m.step, m.instance};
  uint32_t words[4];
  philox4x32_10(counter, m.seed, words);
  for (int j = 0; j < 4; ++j) y[j] = words[j] >= m.threshold ? x[j] * float(m.scale) : 0.0f;
}
#endif

// dropout_apply element by element: where no block fits.
[[maybe_unused]] static __attribute__((noinline)) void dropout_each(const DropoutMask& m, uint64_t first, int64_t n,
                                                                    const float* x, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = dropout_keeps(m, first + uint64_t(i)) ? x[i] * float(m.scale) : 0.0f;
}

// y[i] = kept(first + i) ? x[i] * scale : 0 for i in [0, n): `first` is the flat index, in the whole tensor, of x[0].
// x == y is allowed; any other overlap is not. A dropped NaN becomes 0. `ahead`: so many elements beyond the present ones
// are asked for from memory (stream.h); 0: x and y are in the cache.
template <int64_t ahead = 0>
[[maybe_unused]] static void dropout_apply(const DropoutMask& mask, uint64_t first, int64_t n, const float* x, float* y) {
  const DropoutMask m = mask;  // a copy that stores to y cannot change: what blocks share is computed once
  int64_t i = 0;
  if (m.threshold > 0xffffffffu) {  // p rounds to 1: nothing survives
    for (; i < n; ++i) y[i] = 0.0f;
    return;
  }
  const auto each = [&](int64_t count) {
    if (count > n - i) count = n - i;
    dropout_each(mask, first + uint64_t(i), count, x + i, y + i);
    i += count;
  };
  each(int64_t(-first & 3));
  const PhiloxKeys keys = philox_keys(m.seed);
  const auto group = [&] { return (first + uint64_t(i)) >> 2; };
#if AFFUSE_ISA_AVX512 || AFFUSE_ISA_AVX2
  for (; i + 2 * kPhiloxBlock <= n && !philox_carries(group()); i += 2 * kPhiloxBlock) {
    for (int j = 0; j < 2 * kPhiloxBlock && ahead; j += 16) {
      __builtin_prefetch(x + i + ahead + j, 0, 3);
      __builtin_prefetch(y + i + ahead + j, 1, 3);
    }
    dropout_blocks<2>(m, keys, group(), x + i, y + i);
  }
#endif
  while (i + kPhiloxBlock <= n) {
    if (philox_carries(group())) {
      each(kPhiloxBlock);
      continue;
    }
    dropout_block(m, keys, group(), x + i, y + i);
    i += kPhiloxBlock;
  }
  if (i < n && philox_carries(group())) each(n - i);
  if (i < n) {
    float part[kPhiloxBlock] = {};
    const size_t rest = size_t(n - i) * sizeof(float);  // below a block
    __builtin_memcpy(part, x + i, rest);
    dropout_block(m, keys, group(), part, part);
    __builtin_memcpy(y + i, part, rest);
  }
}

// factor[i] = kept(first + i) ? 1/(1-p) : 0.
[[maybe_unused]] static void dropout_factors(const DropoutMask& m, uint64_t first, int64_t n, float* factor) {
  for (int64_t i = 0; i < n; ++i) factor[i] = 1.0f;
  dropout_apply(m, first, n, factor, factor);
}

}  // namespace
}  // namespace affuse::AFFUSE_ISA
#endif
