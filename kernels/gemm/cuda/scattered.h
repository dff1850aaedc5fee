// Products of operands that a room reads where they lie, frames of ragged clips or the windows of a map (product.h
// multiplies matrices). A block has a tile of SIDE by SIDE sums, kProductDepth of K at a time out of a ring of stages
// that asynchronous copies fill.
//
// Exact: a thread has a square of sums, every sum one chain of multiply-adds in ascending K. RoundedOperands: the same
// stages of float32 are rounded to bf16 on the way to the fragments of mma, so that nothing is copied beforehand.
#pragma once
#include <type_traits>

#include "../../common/cuda/stream.h"
#include "tile.h"

namespace affuse::cuda::gemm {

constexpr int kProductThreads = 256, kProductDepth = 16, kProductStages = 3;

// Four neighbouring floats of which `left` exist; `any`: an address that may be named.
AFFUSE_DEVICE void copy_four(float* to, const float* from, int64_t left, bool wide, const float* any) {
  if (wide) return copy_async<16>(to, left > 0 ? from : any, left > 0 ? 16 : 0);
#pragma unroll
  for (int e = 0; e < 4; ++e) copy_async<4>(to + e, e < left ? from + e : any, e < left ? 4 : 0);
}

// Operands are `lines` (rows of the left one, columns of the right one) by K. Along: element (line, k) is p[line ld + k].
struct Along {
  const float* p;
  int64_t ld, lines, K;
  bool wide;  // all that a copy of 16 bytes begins at is a multiple of it
  template <int SIDE>
  static constexpr int floats() { return SIDE * (kProductDepth + 4); }
  static AFFUSE_DEVICE int at(int line, int k, int) { return line * (kProductDepth + 4) + k; }

  template <int SIDE>
  AFFUSE_DEVICE void copy(float* stage, int64_t first, int64_t k) const {
#pragma unroll 1
    for (int i = int(threadIdx.x); i < SIDE * 4; i += kProductThreads) {
      const int64_t line = first + i / 4, from = k + i % 4 * 4;
      copy_four(stage + at(i / 4, i % 4 * 4, SIDE), p + line * ld + from, line < lines ? K - from : 0, wide, p);
    }
  }
};
// Across: element (line, k) is p[rows[k] ld + line]; without `rows` p[k ld + line].
struct Across {
  const float* p;
  int64_t ld, lines, K;
  bool wide;
  const int64_t* rows;
  template <int SIDE>
  static constexpr int floats() { return kProductDepth * (SIDE + 4); }
  static AFFUSE_DEVICE int at(int line, int k, int side) { return k * (side + 4) + line; }

  template <int SIDE>
  AFFUSE_DEVICE void copy(float* stage, int64_t first, int64_t k) const {
    constexpr int kPlaces = SIDE / 4;
#pragma unroll
    for (int i = int(threadIdx.x); i < kProductDepth * kPlaces; i += kProductThreads) {
      const int64_t line = first + i % kPlaces * 4, from = k + i / kPlaces;
      const bool there = from < K && line < lines;
      const int64_t row = there && rows ? rows[from] : from;
      copy_four(stage + at(i % kPlaces * 4, i / kPlaces, SIDE), p + row * ld + line, there ? lines - line : 0, wide, p);
    }
  }
};

template <int SIDE>
struct Exact {
  static constexpr int kEach = SIDE / 16;
  float sum[kEach][kEach] = {};

  // A warp is 4 by 8 of the block's 16 by 16 threads.
  static AFFUSE_DEVICE int x() { return int(warp()) % 2 * 8 + int(lane()) % 8; }
  static AFFUSE_DEVICE int y() { return int(warp()) / 2 * 4 + int(lane()) / 8; }
  template <class A>
  static AFFUSE_DEVICE int row(int i) {
    return std::is_same_v<A, Along> ? y() + 16 * i : 4 * (y() + 16 * (i / 4)) + i % 4;
  }
  static AFFUSE_DEVICE int column(int j) { return 4 * (x() + 16 * (j / 4)) + j % 4; }

  template <class A>
  AFFUSE_DEVICE void multiply(const float* a, const float* b) {
    if constexpr (std::is_same_v<A, Along>) {  // four of K of four columns stay in registers while the rows pass
#pragma unroll
      for (int j = 0; j < kEach; j += 4)
#pragma unroll 1
        for (int k = 0; k < kProductDepth; k += 4) {
          Pack<4> columns[4];
#pragma unroll
          for (int e = 0; e < 4; ++e) columns[e] = get<4>(b + Across::at(4 * (x() + 4 * j), k + e, SIDE));
#pragma unroll
          for (int i = 0; i < kEach; ++i) {
            const Pack<4> row = get<4>(a + Along::at(y() + 16 * i, k, SIDE));
#pragma unroll
            for (int e = 0; e < 4; ++e)
#pragma unroll
              for (int c = 0; c < 4; ++c) sum[i][j + c] = fmaf(row.v[e], columns[e].v[c], sum[i][j + c]);
          }
        }
    } else {
#pragma unroll 1
      for (int k = 0; k < kProductDepth; ++k) {
        Pack<4> rows[kEach / 4];
#pragma unroll
        for (int i = 0; i < kEach / 4; ++i) rows[i] = get<4>(a + Across::at(4 * (y() + 16 * i), k, SIDE));
#pragma unroll
        for (int j = 0; j < kEach; j += 4) {
          const Pack<4> columns = get<4>(b + Across::at(4 * (x() + 4 * j), k, SIDE));
#pragma unroll
          for (int i = 0; i < kEach; ++i)
#pragma unroll
            for (int c = 0; c < 4; ++c) sum[i][j + c] = fmaf(rows[i / 4].v[i % 4], columns.v[c], sum[i][j + c]);
        }
      }
    }
  }
  // Puts the sums that lie in rows [64 part, 64 part + 64) there.
  template <class A>
  AFFUSE_DEVICE void put_part(int part, float* out) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (i / 4 != part) continue;
#pragma unroll
      for (int j = 0; j < kEach; j += 4)
        put(out + (row<A>(i) - 64 * part) * (SIDE + 4) + column(j),
            Pack<4>{{sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]}});
    }
  }
};

template <int SIDE>
struct RoundedOperands {
  static constexpr int MT = SIDE / 32, NT = SIDE / 32;  // fragments of 16 x 8 of a warp; the warps are 2 by 4
  float sum[MT][NT][4] = {};
  static AFFUSE_DEVICE int row() { return int(warp()) / 4 * (MT * 16) + int(lane()) / 4; }
  static AFFUSE_DEVICE int column() { return int(warp()) % 4 * (NT * 8); }

  template <class A>
  AFFUSE_DEVICE void multiply(const float* a, const float* b) {
    const int k = int(lane()) % 4 * 2;
    const auto pair = [k](auto operand, const float* stage, int line, int more) {
      using Operand = decltype(operand);
      return to_bf16(stage[Operand::at(line, k + more, SIDE)], stage[Operand::at(line, k + more + 1, SIDE)]);
    };
    uint32_t columns[NT][2];
#pragma unroll
    for (int n = 0; n < NT; ++n)
#pragma unroll
      for (int h = 0; h < 2; ++h) columns[n][h] = pair(Across{}, b, column() + n * 8 + int(lane()) / 4, h * 8);
#pragma unroll
    for (int m = 0; m < MT; ++m) {
      uint32_t rows[4];
#pragma unroll
      for (int h = 0; h < 4; ++h) rows[h] = pair(A{}, a, row() + m * 16 + h % 2 * 8, h / 2 * 8);
#pragma unroll
      for (int n = 0; n < NT; ++n) mma<Bf16Pairs>(sum[m][n], rows, columns[n]);
    }
  }
  template <class A>
  AFFUSE_DEVICE void put_part(int part, float* out) const {
    if (row() / 64 != part) return;
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int n = 0; n < NT; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          out[(row() - 64 * part + m * 16 + e / 2 * 8) * (SIDE + 4) + column() + n * 8 + int(lane()) % 4 * 2 + e % 2] =
              sum[m][n][e];
  }
};

// K in [from, to) of the tile at (row0, column0); finish(row, column, four neighbouring sums) also beyond the edges.
// copy_a(stage, k) and copy_b(stage, k) start the copies of a stage; A says how the left operand's lies, the right one's
// is Across.
template <template <int> class Unit, int SIDE, class A, class CopyA, class CopyB, class F>
AFFUSE_DEVICE void multiply_tile(const CopyA& copy_a, const CopyB& copy_b, int64_t row0, int64_t column0, int64_t from,
                                 int64_t to, float* ring, const F& finish) {
  constexpr int kA = A::template floats<SIDE>(), kStage = kA + Across::floats<SIDE>();
  const auto start = [&](int64_t k, int stage) {
    if (k < to) {
      copy_a(ring + stage * kStage, k);
      copy_b(ring + stage * kStage + kA, k);
    }
    commit();  // also when empty: wait() counts groups
  };
  Unit<SIDE> unit;
#pragma unroll
  for (int s = 0; s < kProductStages - 1; ++s) start(from + s * kProductDepth, s);
  int stage = 0;
  for (int64_t k = from; k < to; k += kProductDepth) {
    wait<kProductStages - 2>();
    barrier();  // everybody's copies have arrived, and everybody is done with the stage before
    start(k + (kProductStages - 1) * kProductDepth, stage == 0 ? kProductStages - 1 : stage - 1);
    unit.template multiply<A>(ring + stage * kStage, ring + stage * kStage + kA);
    stage = stage + 1 == kProductStages ? 0 : stage + 1;
  }
  wait<0>();
  // Through shared memory, from where whole rows are stored.
#pragma unroll
  for (int part = 0; part < SIDE / 64; ++part) {
    barrier();
    unit.template put_part<A>(part, ring);
    barrier();
    for (int f = int(threadIdx.x); f < 64 * SIDE / 4; f += kProductThreads) {
      const int row = f / (SIDE / 4), column = f % (SIDE / 4) * 4;
      finish(row0 + 64 * part + row, column0 + column, get<4>(ring + row * (SIDE + 4) + column));
    }
  }
}

template <template <int> class Unit, int SIDE, class A, class F>
AFFUSE_DEVICE void multiply_tile(const A& a, const Across& b, int64_t row0, int64_t column0, int64_t from, int64_t to,
                                 float* ring, const F& finish) {
  multiply_tile<Unit, SIDE, A>([&](float* stage, int64_t k) { a.template copy<SIDE>(stage, row0, k); },
                               [&](float* stage, int64_t k) { b.template copy<SIDE>(stage, column0, k); }, row0, column0,
                               from, to, ring, finish);
}

template <class A, int SIDE>
constexpr size_t product_shared() {
  return SharedBytes().take<float>(size_t(kProductStages) * (A::template floats<SIDE>() + Across::floats<SIDE>())).bytes;
}

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

struct ProductPlan {
  bool large;
  int64_t tiles, columns;
  int pieces;
};
// Small tiles where large ones would be mostly empty or too few. K may be cut into pieces.
inline ProductPlan product_plan(int64_t M, int64_t N, int64_t K, bool cut, int processors) {
  const int64_t large = ceil_div(M, 128) * ceil_div(N, 128);
  ProductPlan p{};
  p.large = M > 64 && N > 64 && (cut || large >= processors);
  const int side = p.large ? 128 : 64;
  p.columns = ceil_div(N, side);
  p.tiles = ceil_div(M, side) * p.columns;
  const int64_t want = p.tiles ? ceil_div(2 * processors, p.tiles) : 1, most = ceil_div(K, 8 * kProductDepth);
  p.pieces = int(!cut || most < 1 ? 1 : want < most ? want : most);
  return p;
}

}  // namespace affuse::cuda::gemm
