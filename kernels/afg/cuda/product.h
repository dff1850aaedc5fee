// The products of afg's backward: dW = p̄ᵀ x and dx = p̄ W, over as many frames as the list turns out to hold. Frames of
// x are read where they lie (gemm/cuda/scattered.h).
#pragma once
#include "../../gemm/cuda/scattered.h"
#include "frames.h"

namespace affuse::cuda::afg {

using gemm::SquarePlan;

// dW, or one piece of the frames' part in it.
struct WeightProduct {
  const float *pre, *x;   // p̄ [entries][A], x
  const int64_t *rows, *first;
  int64_t B, A, D;
  bool wide_pre, wide_x;
  float* to;  // [pieces][A][D]
  int pieces;
  float* at;  // of a block's piece
  AFFUSE_DEVICE void operator()(int64_t a, int64_t d, const Pack<4>& v) const {
    if (a >= A || d >= D) return;
    if (wide_x) return put(at + a * D + d, v);
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (d + e < D) at[a * D + d + e] = v.v[e];
  }
};

template <class Unit>
using WeightFeed = gemm::PickedFeed<Unit::kRows>;
template <class Unit>
AFFUSE_GLOBAL(gemm::kThreads, 2) multiply_weights(WeightProduct p, int64_t tile_columns) {
  using Feed = WeightFeed<Unit>;
  Shared shared;
  float* const ring = shared.take<float>(gemm::tile_words<Unit, Feed, Feed>());
  const int64_t count = p.first[p.B];
  const int64_t piece = gemm::round_up(gemm::ceil_div(count, p.pieces), gemm::kDepth);
  const int64_t from = blockIdx.y * piece, to = from + piece < count ? from + piece : count;
  p.at = p.to + blockIdx.y * p.A * p.D;
  const int64_t row = blockIdx.x / tile_columns, row0 = row * Unit::kRows;
  const int64_t column0 = (blockIdx.x - row * tile_columns) * Unit::kColumns;
  const gemm::Picked pre{p.pre, p.A, p.A, count, p.wide_pre, nullptr}, x{p.x, p.D, p.D, count, p.wide_x, p.rows};
  gemm::multiply_tile<Unit>(Feed(pre, row0), Feed(x, column0), row0, column0, from, to, ring, p);
}

// dx of the valid frames: p̄ W + Σ_j α_j dc_j.
struct FrameProduct {
  const float *pre, *W;
  const int64_t *rows, *first;
  const int32_t* clips;  // of the entries
  int64_t B, T, A, D, J;
  bool wide_pre, wide;
  const float *alpha, *dc;  // dc null: not given
  float* dx;
  int64_t count;
  template <int N>
  AFFUSE_DEVICE void finish(int64_t entry, int64_t d, Pack<N> v) const {
    const int64_t row = rows[entry];
    if (dc) {
      const int64_t b = clips[entry], t = row - b * T;
      for (int64_t j = b * J; j < (b + 1) * J; ++j) {
        const float share = alpha[j * T + t];
        const Pack<N> g = get<N>(dc + j * D + d);
#pragma unroll
        for (int e = 0; e < N; ++e) v.v[e] = fmaf(share, g.v[e], v.v[e]);
      }
    }
    put(dx + row * D + d, v);
  }
  AFFUSE_DEVICE void operator()(int64_t entry, int64_t d, const Pack<4>& v) const {
    if (entry >= count || d >= D) return;
    if (wide) return finish(entry, d, v);
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (d + e < D) finish(entry, d + e, Pack<1>{{v.v[e]}});
  }
};

template <class Unit>
using FrameFeed = gemm::Feed<gemm::Plain, Unit::kRows, Unit::kPitch>;
template <class Unit>
using ColumnFeed = gemm::Feed<gemm::Transposed, Unit::kColumns>;
template <class Unit>
AFFUSE_GLOBAL(gemm::kThreads, 2) multiply_frames(FrameProduct p, int64_t tile_columns) {
  Shared shared;
  float* const ring = shared.take<float>(gemm::tile_words<Unit, FrameFeed<Unit>, ColumnFeed<Unit>>());
  p.count = p.first[p.B];
  const int64_t row = blockIdx.x / tile_columns, row0 = row * Unit::kRows;
  const int64_t column0 = (blockIdx.x - row * tile_columns) * Unit::kColumns;
  if (row0 >= p.count) return;
  const FrameFeed<Unit> rows(gemm::Plain{p.pre, p.A, p.count, int(p.A), p.wide_pre}, gemm::InOrder{row0});
  const ColumnFeed<Unit> columns(gemm::Transposed{p.W, p.D, p.D, int(p.A), p.wide}, gemm::InOrder{column0});
  gemm::multiply_tile<Unit>(rows, columns, row0, column0, 0, int(p.A), ring, p);
}

}  // namespace affuse::cuda::afg
