// Products of operands that a room reads where they lie, frames of ragged clips or the windows of a map (product.h
// multiplies matrices). A block has a square tile; with bf16, and with tf32 in large tiles, operands are rounded on the way to
// the fragments (units.h).
#pragma once
#include <type_traits>

#include "units.h"

namespace affuse::cuda::gemm {

// 128 or 64 to a side; the left operand along K or across, the right one across.
template <int SIDE, bool a_along>
using ExactSquare = ExactUnit<Lanes<16, 16, SIDE / 16, SIDE / 16>, a_along, false>;
template <int SIDE, bool a_along, class Operand>
using RoundingSquare = RoundingUnit<Warps<2, 4, SIDE / 32, SIDE / 32>, a_along, false, Operand>;

// Four neighbouring floats of which `left` exist; `any`: an address that may be named.
AFFUSE_DEVICE void copy_four(float* to, const float* from, int64_t left, bool wide, const float* any) {
  if (wide) return copy_async<16>(to, left > 0 ? from : any, left > 0 ? 16 : 0);
#pragma unroll
  for (int e = 0; e < 4; ++e) copy_async<4>(to + e, e < left ? from + e : any, e < left ? 4 : 0);
}

// Stages of LINES of a matrix across K whose rows are picked: element (line, k) is p[rows[k] ld + line]; without `rows`
// p[k ld + line].
struct Picked {
  const float* p;
  int64_t ld, lines, K;
  bool wide;  // all that a copy of 16 bytes begins at is a multiple of it
  const int64_t* rows;
};
template <int LINES>
class PickedFeed {
 public:
  static constexpr int kFloats = kDepth * (LINES + kPad);
  AFFUSE_DEVICE PickedFeed(const Picked& x, int64_t first) : x_(x), line_(first + place()) {}
  AFFUSE_DEVICE void copy(float* stage, int64_t k) const {
#pragma unroll
    for (int i = 0; i < kDepth * kPieces / kThreads; ++i) {
      const int row = int(threadIdx.x) / kPieces + i * (kThreads / kPieces);
      const bool there = k + row < x_.K && line_ < x_.lines;
      const int64_t at = there && x_.rows ? x_.rows[k + row] : k + row;
      copy_four(stage + row * (LINES + kPad) + place(), x_.p + at * x_.ld + line_, there ? x_.lines - line_ : 0, x_.wide,
                x_.p);
    }
  }

 private:
  static constexpr int kPieces = LINES / 4;
  static_assert(kDepth * kPieces % kThreads == 0);
  static AFFUSE_DEVICE int place() { return int(threadIdx.x) % kPieces * 4; }
  const Picked& x_;
  int64_t line_;
};

struct PiecesAdded {
  const float* from;
  float* to;
  int64_t n;
  int pieces;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    Pack<N> sum = get<N>(from + i);
#pragma unroll 4
    for (int p = 1; p < pieces; ++p) sum = sum + get<N>(from + p * n + i);
    put(to + i, sum);
  }
};

struct SquarePlan {
  bool large;
  int64_t tiles, columns;
  int pieces;
};
// Small tiles where large ones would be mostly empty or too few. K may be cut into pieces.
inline SquarePlan square_plan(int64_t M, int64_t N, int64_t K, bool cut, int processors) {
  const int64_t large = ceil_div(M, 128) * ceil_div(N, 128);
  SquarePlan p{};
  p.large = M > 64 && N > 64 && (cut || large >= processors);
  const int side = p.large ? 128 : 64;
  p.columns = ceil_div(N, side);
  p.tiles = ceil_div(M, side) * p.columns;
  const int64_t want = p.tiles ? ceil_div(2 * processors, p.tiles) : 1, most = ceil_div(K, 8 * kDepth);
  p.pieces = int(!cut || most < 1 ? 1 : want < most ? want : most);
  return p;
}
// f(std::type_identity<Unit>()) with the plan's tile.
template <bool a_along, class F>
void with_square(const SquarePlan& plan, Rounding rounding, const F& f) {
  const bool bf16 = rounding == Rounding::bf16;
  if (plan.large && bf16) f(std::type_identity<RoundingSquare<128, a_along, Bf16Pairs>>());
  else if (plan.large && rounding == Rounding::tf32) f(std::type_identity<RoundingSquare<128, a_along, Tf32>>());
  else if (plan.large) f(std::type_identity<ExactSquare<128, a_along>>());
  else if (bf16) f(std::type_identity<RoundingSquare<64, a_along, Bf16Pairs>>());
  else f(std::type_identity<ExactSquare<64, a_along>>());
}

}  // namespace affuse::cuda::gemm
