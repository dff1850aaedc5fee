// What a block does with a tile: its sums, the multiplication of one stage, and the way of finished sums through shared
// memory, from where whole rows of them are stored.
//
//   ExactUnit      float32 on the multiply-add units (tile.h)
//   RoundedUnit    operands that are bf16 in memory (mma.h)
//   RoundingUnit   operands that are float32 in memory and are rounded on the way to the fragments: nothing is copied
//                  beforehand, for twice the bytes in shared memory. For operands that pass by once or lie scattered
#pragma once
#include "mma.h"

namespace affuse::cuda::gemm {

// kParts parts of the tile pass one after another; row(part, r): row of the tile of row r of a part.
template <class L, bool a_along, bool b_along>
struct ExactUnit {
  using Word = float;
  static constexpr int kRows = L::kRows, kColumns = L::kColumns, kParts = L::TM > 4 ? 2 : 1;
  static constexpr int kRing = kStages, kStep = kDepth, kPitch = kDepth + kPad;
  float sum[L::TM][L::TN] = {};

  AFFUSE_DEVICE void multiply(const float* a, const float* b) { gemm::multiply<L, a_along, b_along>(a, b, sum); }
  AFFUSE_DEVICE static int row(int part, int r) { return part * (kRows / kParts) + r; }
  AFFUSE_DEVICE void put_part(int part, float* out) const {
    constexpr int kEach = L::TM / kParts;
#pragma unroll
    for (int i = 0; i < kEach; ++i)
#pragma unroll
      for (int j = 0; j < L::TN; j += 4) {
        const float* const from = sum[part * kEach + i] + j;
        put(out + L::template row<a_along>(i) * (kColumns + kPad) + L::column(j),
            Pack<4>{{from[0], from[1], from[2], from[3]}});
      }
  }
};

template <class W>
struct FragmentSums {
  static constexpr int kRows = W::kRows, kColumns = W::kColumns, kParts = W::MT > 1 ? 2 : 1, kEach = W::MT / kParts;
  float sum[W::MT][W::NT][4] = {};

  // Fragments of 16 rows: kEach of every warp.
  AFFUSE_DEVICE static int row(int part, int r) {
    return (r / 16 / kEach * W::MT + part * kEach + r / 16 % kEach) * 16 + r % 16;
  }
  AFFUSE_DEVICE void put_part(int part, float* out) const {
    const int row = W::y() * kEach * 16 + int(lane()) / 4, column = W::x() * W::NT * 8 + int(lane()) % 4 * 2;
#pragma unroll
    for (int m = 0; m < kEach; ++m)
#pragma unroll
      for (int n = 0; n < W::NT; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          out[(row + m * 16 + e / 2 * 8) * (kColumns + kPad) + column + n * 8 + e % 2] = sum[part * kEach + m][n][e];
  }
};

template <class W>
struct RoundedUnit : FragmentSums<W> {
  using Word = uint32_t;
  static constexpr int kRing = kMmaStages, kStep = kHalves / 2;
  AFFUSE_DEVICE void multiply(const uint32_t* a, const uint32_t* b) { multiply16<W>(a, b, this->sum); }
};

// Which elements of K a lane takes is up to it, as long as both operands agree: four neighbours where both lie along K, one
// load of 16 bytes; else the pairs 2t, 2t + 8 that mma names, which across K lie in different banks.
// As bf16 they are two to a register, as tf32 a register each and two products of depth 8.
template <class W, bool a_along, bool b_along, class Operand = Bf16Pairs>
struct RoundingUnit : FragmentSums<W> {
  using Word = float;
  static constexpr int kRing = kStages, kStep = kDepth, kPitch = b_along ? kDepth : kDepth + 8;
  static_assert(a_along || !b_along);

  AFFUSE_DEVICE void multiply(const float* a, const float* b) {
    const int line = int(lane()) / 4;
    uint32_t columns[W::NT][kSteps][2];
#pragma unroll
    for (int n = 0; n < W::NT; ++n) take<b_along, W::kColumns>(b, (W::x() * W::NT + n) * 8 + line, columns[n]);
#pragma unroll
    for (int m = 0; m < W::MT; ++m) {
      uint32_t upper[kSteps][2], lower[kSteps][2];
      const int first = (W::y() * W::MT + m) * 16 + line;
      take<a_along, W::kRows>(a, first, upper);
      take<a_along, W::kRows>(a, first + 8, lower);
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        const uint32_t rows[4] = {upper[s][0], lower[s][0], upper[s][1], lower[s][1]};
#pragma unroll
        for (int n = 0; n < W::NT; ++n) mma<Operand>(this->sum[m][n], rows, columns[n][s]);
      }
    }
  }

 private:
  static constexpr bool kPairs = sizeof(Operand*) && __is_same(Operand, Bf16Pairs);
  static constexpr int kSteps = kPairs ? 1 : 2;
  template <bool along, int LINES>
  AFFUSE_DEVICE static void take(const float* stage, int line, uint32_t (&to)[kSteps][2]) {
    const int t = int(lane()) % 4;
    Pack<4> x;
    if constexpr (b_along) {
      x = get<4>(stage + line * kPitch + 4 * t);
    } else {
      const auto at = [&](int k) { return along ? stage[line * kPitch + k] : stage[k * (LINES + kPad) + line]; };
      x = {{at(2 * t), at(2 * t + 1), at(2 * t + 8), at(2 * t + 9)}};
    }
    if constexpr (kPairs) {
      to[0][0] = to_bf16(x.v[0], x.v[1]), to[0][1] = to_bf16(x.v[2], x.v[3]);
    } else {
      to[0][0] = to_tf32(x.v[0]), to[0][1] = to_tf32(x.v[1]);
      to[kSteps - 1][0] = to_tf32(x.v[2]), to[kSteps - 1][1] = to_tf32(x.v[3]);
    }
  }
};

// Words of shared memory for a tile of Unit with stages of A and B.
template <class Unit, class A, class B>
constexpr unsigned tile_words() {
  const unsigned ring = Unit::kRing * (A::kFloats + B::kFloats);
  const unsigned out = Unit::kRows / Unit::kParts * (Unit::kColumns + kPad);
  return ring > out ? ring : out;
}

// K in [from, to) of the tile at (row0, column0); finish(row, column, four neighbouring sums) also beyond the edges.
template <class Unit, class A, class B, class K, class F>
AFFUSE_DEVICE void multiply_tile(const A& rows, const B& columns, int64_t row0, int64_t column0, K from, K to,
                                 typename Unit::Word* ring, const F& finish) {
  constexpr int kFours = Unit::kColumns / 4;
  using Word = typename Unit::Word;
  Unit unit;
  pipeline<Unit::kRing>(rows, columns, ring, from, to, Unit::kStep,
                        [&](const Word* a, const Word* b) { unit.multiply(a, b); });
  float* const out = reinterpret_cast<float*>(ring);
#pragma unroll
  for (int part = 0; part < Unit::kParts; ++part) {
    if (part > 0) barrier();
    unit.put_part(part, out);
    barrier();
    for (int f = int(threadIdx.x); f < Unit::kRows / Unit::kParts * kFours; f += kThreads) {
      const int r = f / kFours, column = f % kFours * 4;
      finish(row0 + Unit::row(part, r), column0 + column, get<4>(out + r * (Unit::kColumns + kPad) + column));
    }
  }
}

}  // namespace affuse::cuda::gemm
