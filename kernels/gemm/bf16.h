// bf16 operands for the matrix core: values are rounded to bf16 (nearest, ties to even) while they are packed, sums stay
// float32.
//
// Two packed forms. Pairs: word (i, n) of a panel has columns(2i, n) in its lower half and columns(2i+1, n) in its upper
// one, half the bytes; an odd K is filled up with a zero. Rounded: float32 as ever, of rounded values. Which is used where:
//
//   level              rows      columns of a kept weight (Bf16)            operands that pass by (Bf16Passing)
//   avx512bf16         pairs     pairs, for vdpbf16ps                       pairs
//   every other level  rounded   pairs for few rows (keeps_pairs), rounded  rounded
//
// Pairs that meet rounded rows are expanded in registers (two instructions per vector, against 2 R multiply-adds): few rows
// wait for weights from memory, and half of them are there sooner; many rows would pay for the expansion once per tile.
// Either way the product is, bit for bit, the float32 product of rounded operands.
// Sizes and plans of run() are those of K rounded up to even, here called E. stream() takes any K.
//
// Error of an element against exact operands: one relative rounding of 2^-8 per factor, (2^-7 + 2^-16 + K 2^-24) sum
// |rows||columns|. vdpbf16ps takes denormals for zeros and adds the upper product first; it differs from the expansion by
// rounding only. NaN stays NaN, infinities stay, and what rounds beyond the largest bf16 (3.39e38) becomes an infinity.
//
//   gemm::run(workers, M, N, E, gemm::Bf16Rows{gemm::PlainRows{x, K}, K}, packed, epilogue, scratch, Split::any,
//             gemm::Bf16{gemm::keeps_pairs(M)});
//   gemm::stream(workers, M, N, K, rows, columns, epilogue, scratch, gemm::Bf16Passing{});
#pragma once
#include "bf16_tiles.h"
#include "gemm.h"
#include "precision.h"

namespace affuse::gemm {

static constexpr int64_t even(int64_t K) { return K + K % 2; }

// Whether a weight that meets so many rows is kept as pairs: for the instruction always, for the expansion where memory
// decides. (Measured on 1024 x 1024 by AVX-512: at three tiles of rows as fast as rounded float32 from L3, faster from
// memory; with fewer rows faster from either, with more slower.)
constexpr int64_t kPairRows = 42;
[[maybe_unused]] static bool keeps_pairs(int64_t rows) { return bf16_tiles || rows <= kPairRows; }

// Floats' worth of memory of a packed [N,K] weight.
static constexpr int64_t packed_floats_bf16(int64_t N, int64_t K, bool pairs) {
  return packed_floats(N, pairs ? even(K) / 2 : even(K));
}

[[maybe_unused]] static const char* key_nk_bf16(bool pairs) { return pairs ? "gemm.nk.bf16" : "gemm.nk.rounded"; }
[[maybe_unused]] static const char* key_kn_bf16(bool pairs) { return pairs ? "gemm.kn.bf16" : "gemm.kn.rounded"; }

}  // namespace affuse::gemm

#if defined(AFFUSE_ISA)
namespace affuse::AFFUSE_ISA::gemm {

constexpr int kBf16Chunk = 128;  // steps of K that are packed as float32 on the stack before they are rounded

// As tile_multiply, kc even: a [kc][rows] rounded float32, b pairs [kc/2][vecs*kLanes].
void tile_multiply_bf16(int rows, int vecs, int64_t kc, const float* a, const float* b, float* acc, bool resume,
                        const float* next, int64_t next_step);

// x[i] = bf16(x[i]), i < n.
void round_in_place(float* x, int64_t n);
// Rows [0, n) of width floats each, n at most 2*pairs, to `pairs` rows of pairs; what lies beyond n counts as 0.
void store_pairs(const float* rows, int64_t n, int64_t pairs, int64_t width, float* dst);

// pack_columns with bf16 operands. dst: packed_floats_bf16(N, K, pairs) floats.
void pack_columns_bf16(const float* w, int64_t ld, int64_t N, int64_t K, Layout layout, float* dst, const Workers& workers,
                       bool pairs);

// The instruction's micro kernels; null: there is none, float32 is multiplied.
#if defined(AFFUSE_ISA_AVX512)
AFFUSE_INLINE const Bf16Tiles* dot_tiles() { return bf16_tiles; }
#else
constexpr const Bf16Tiles* dot_tiles() { return nullptr; }
#endif

// Brings a packed tile or panel, `steps` rows of `width` floats, into the form that Bf16Passing multiplies, in place: pairs
// (the first half of it then), or rounded.
AFFUSE_INLINE void settle(float* p, int64_t steps, int64_t width) {
  if (dot_tiles()) store_pairs(p, steps, ceil_div(steps, 2), width, p);
  else round_in_place(p, steps * width);
}

// The operand format of run(): offsets of packed operands, and what multiplies.
struct Bf16 {
  static constexpr bool kRounds = true;
  static constexpr bool kInLines = false;
  bool pairs;  // the columns are
  AFFUSE_INLINE int64_t rows(int64_t n) const { return dot_tiles() ? n / 2 : n; }
  AFFUSE_INLINE int64_t columns(int64_t n) const { return pairs ? n / 2 : n; }
  AFFUSE_INLINE void multiply(int height, int vecs, int64_t kc, const float* a, const float* b, float* acc, bool resume,
                              const float* next, int64_t next_step) const {
    if (const Bf16Tiles* tiles = dot_tiles())
      tiles->multiply[height][vecs - 1](kc / 2, a, b, acc, resume, next ? next : b, next ? next_step : 0);
    else if (pairs) tile_multiply_bf16(height, vecs, kc, a, b, acc, resume, next, next_step);
    else tile_multiply(height, vecs, kc, a, b, acc, resume, next, next_step);
  }
};

// The operand format of stream(): both operands are settled where a loader packed them.
struct Bf16Passing {
  static constexpr bool kRounds = true;
  static constexpr bool kInLines = false;
  static AFFUSE_INLINE int64_t rows(int64_t n) { return dot_tiles() ? n / 2 : n; }
  static AFFUSE_INLINE void settle_rows(float* p, int m, int64_t kc) {
    const RowTiles tiles(m);
    for (int t = 0; t < tiles.count; ++t) settle(p + tiles.start(t) * kc, kc, tiles.height(t));
  }
  static AFFUSE_INLINE void settle_columns(float* p, int64_t cols, int64_t kc) {
    for (int64_t n = 0; n < cols; n += kTileStride)
      settle(p + n * kc, kc, vecs_of(min64(kTileStride, cols - n)) * kLanes);
  }
  static AFFUSE_INLINE bool plain() { return !dot_tiles(); }
  static AFFUSE_INLINE int64_t steps(int64_t kc) { return dot_tiles() ? ceil_div(kc, 2) : kc; }
  static AFFUSE_INLINE void multiply(int height, int vecs, int64_t kc, const float* a, const float* b, float* acc,
                                     bool resume, const float* next, int64_t next_step) {
    if (const Bf16Tiles* tiles = dot_tiles())
      tiles->multiply[height][vecs - 1](ceil_div(kc, 2), a, b, acc, resume, next ? next : b, next ? next_step : 0);
    else tile_multiply(height, vecs, kc, a, b, acc, resume, next, next_step);
  }
};

// Any row loader, rounded, for run() with Bf16: K is the number of elements that exist.
template <class Rows>
struct Bf16Rows {
  Rows source;
  int64_t K;
  AFFUSE_INLINE Span span(int64_t i, int m, int64_t) const {
    const Span s = span_of(source, i, m, K);
    return {s.from / 2 * 2, even(s.to)};
  }
  void pack(int64_t i, int m, int64_t k, int64_t kc, float* dst) const {
    const RowTiles tiles(m);
    const bool pairs = dot_tiles();
    alignas(64) float chunk[kBf16Chunk * 16];
    for (int64_t from = 0; from < kc; from += kBf16Chunk) {
      const int64_t steps = min64(kBf16Chunk, kc - from), there = max64(0, min64(steps, K - k - from));
      for (int t = 0; t < tiles.count; ++t) {
        const int height = tiles.height(t);
        const int64_t at = tiles.start(t) * kc + from * height;
        float* const to = pairs ? chunk : dst + at;
        if (there > 0) source.pack(i + tiles.start(t), height, k + from, there, to);
        if (pairs) {
          store_pairs(chunk, there, steps / 2, height, dst + at / 2);
        } else {
          round_in_place(to, there * height);
          for (int64_t x = there * height; x < steps * height; ++x) to[x] = 0.0f;
        }
      }
    }
  }
};
template <class Rows>
Bf16Rows(Rows, int64_t) -> Bf16Rows<Rows>;

}  // namespace affuse::AFFUSE_ISA::gemm
#endif
