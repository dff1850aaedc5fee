// bf16 operands for the matrix core: values are rounded to bf16 (nearest, ties to even) while they are packed, sums stay
// float32.
//
// Packed columns hold pairs: word (i, n) of a panel has columns(2i, n) in its lower half and columns(2i+1, n) in its upper
// one, so a packed weight takes half the bytes. An odd K is filled up with a zero; sizes and plans are those of K rounded
// up to even, here called E. Packed rows depend on the level:
//   avx512bf16         pairs too, for vdpbf16ps
//   every other level  rounded float32: a panel's words are expanded in registers (two instructions per vector, against
//                      2 R multiply-adds), so a product is bit for bit the float32 product of rounded operands.
// stream(), whose operands are not kept, works on rounded float32 on every level.
//
// Error of an element against exact operands: one relative rounding of 2^-9 per factor, K 2^-24 for the sum as ever.
// vdpbf16ps takes denormals for zeros and adds the upper product first; it differs from the expansion by rounding only.
//
//   gemm::run(workers, M, N, E, gemm::Bf16Rows{gemm::PlainRows{x, K}, K}, packed, epilogue, scratch, Split::any,
//             gemm::Bf16{});
#pragma once
#include "gemm.h"

namespace affuse::gemm {

// The attribute `precision` of operators that multiply matrices. Tensors are float32 either way, and the float64 reference
// takes no notice of it.
struct Precision {
  enum : int { f32, bf16 };
};
constexpr const char* kPrecisionChoices = "f32|bf16";
constexpr const char* kPrecisionDoc = "bf16: operands of the products are rounded to bf16, sums stay float32";

static constexpr int64_t even(int64_t K) { return K + K % 2; }
// Floats' worth of memory of a packed [N,K] weight.
static constexpr int64_t packed_floats_bf16(int64_t N, int64_t K) { return packed_floats(N, even(K) / 2); }

constexpr const char* kKeyNkBf16 = "gemm.nk.bf16";
constexpr const char* kKeyKnBf16 = "gemm.kn.bf16";

}  // namespace affuse::gemm

#if defined(AFFUSE_ISA)
#include "bf16_tiles.h"

namespace affuse::AFFUSE_ISA::gemm {

constexpr int kBf16Chunk = 128;  // steps of K that are packed as float32 on the stack before they are rounded

// As tile_multiply, kc even: a [kc][rows] rounded float32, b pairs [kc/2][vecs*kLanes].
void tile_multiply_bf16(int rows, int vecs, int64_t kc, const float* a, const float* b, float* acc, bool resume,
                        const float* next, int64_t next_step);

// x[i] = bf16(x[i]), i < n.
void round_in_place(float* x, int64_t n);
// Rows [0, n) of width floats each, n at most 2*pairs, to `pairs` rows of pairs; what lies beyond n counts as 0.
void store_pairs(const float* rows, int64_t n, int64_t pairs, int64_t width, float* dst);

// pack_columns for pairs. dst: packed_floats_bf16(N, K) floats.
void pack_columns_bf16(const float* w, int64_t ld, int64_t N, int64_t K, Layout layout, float* dst, const Workers& workers);

// The operand format of run(): offsets of packed operands, and what multiplies.
struct Bf16 {
#if defined(AFFUSE_ISA_AVX512)
  const Bf16Tiles* tiles = bf16_tiles;
#else
  static constexpr const Bf16Tiles* tiles = nullptr;
#endif
  AFFUSE_INLINE int64_t rows(int64_t n) const { return tiles ? n / 2 : n; }
  static AFFUSE_INLINE int64_t columns(int64_t n) { return n / 2; }
  AFFUSE_INLINE void multiply(int height, int vecs, int64_t kc, const float* a, const float* b, float* acc, bool resume,
                              const float* next, int64_t next_step) const {
    if (tiles) tiles->multiply[height][vecs - 1](kc / 2, a, b, acc, resume, next ? next : b, next ? next_step : 0);
    else tile_multiply_bf16(height, vecs, kc, a, b, acc, resume, next, next_step);
  }
};

// Any row loader, rounded, for run() with Bf16: K is the number of elements that exist.
template <class Rows>
struct Bf16Rows {
  Rows source;
  int64_t K;
  void pack(int64_t i, int m, int64_t k, int64_t kc, float* dst) const {
    const Bf16 format;
    const RowTiles tiles(m);
    alignas(64) float chunk[kBf16Chunk * 16];
    for (int64_t from = 0; from < kc; from += kBf16Chunk) {
      const int64_t steps = min64(kBf16Chunk, kc - from), there = max64(0, min64(steps, K - k - from));
      for (int t = 0; t < tiles.count; ++t) {
        const int height = tiles.height(t);
        const int64_t at = tiles.start(t) * kc + from * height;
        float* const to = format.tiles ? chunk : dst + at;
        if (there > 0) source.pack(i + tiles.start(t), height, k + from, there, to);
        if (format.tiles) {
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

// Loaders for stream(): what they pack is rounded.
template <class Rows>
struct RoundedRows {
  Rows source;
  void pack(int64_t i, int m, int64_t k, int64_t kc, float* dst) const {
    source.pack(i, m, k, kc, dst);
    round_in_place(dst, m * kc);
  }
};
template <class Rows>
RoundedRows(Rows) -> RoundedRows<Rows>;
template <class Columns>
struct RoundedColumns {
  Columns columns;
  void pack(int64_t n0, int64_t n1, int64_t k, int64_t kc, float* dst) const {
    columns.pack(n0, n1, k, kc, dst);
    const int64_t whole = (n1 - n0) / kTileStride * kTileStride, rest = n1 - n0 - whole;
    round_in_place(dst, (whole + (rest > 0 ? vecs_of(rest) * kLanes : 0)) * kc);
  }
  AFFUSE_INLINE auto source(int64_t n, int64_t k) const
    requires requires(const Columns& c) { c.source(n, k); }
  {
    return columns.source(n, k);
  }
};
template <class Columns>
RoundedColumns(Columns) -> RoundedColumns<Columns>;

}  // namespace affuse::AFFUSE_ISA::gemm
#endif
