// afg's backward, in up to six steps; what no wanted gradient needs is left out.
//
//   keys       k and alpha where they were not saved: the forward's tiles (gather.h)
//   slopes     a warp for a frame: ᾱ = dα + dc·x
//   clips      a block for a clip and query: the mean Σ α ᾱ, and what the padding's s̄ sum up to
//   gradients  a block for a tile of frames and 256 columns: p̄ into the workspace; the tile's share in db, du and dq
//   sums       those shares added up in the order of the tiles
//   products   dW = p̄ᵀ x and dx = p̄ W + Σ_j α_j dc_j (product.h)
#pragma once
#include "gather.h"
#include "product.h"

namespace affuse::cuda::afg {

struct Backward {
  Gather gather;  // what the forward has: frames, W, queries
  AfgSize n;
  const float *alpha, *k, *dc, *dalpha;  // dc, dalpha: null when not given
  float *dx, *dW, *db, *du, *dq;         // null: not wanted
  float *slope, *mean, *quiet;           // [entries][J] ᾱ; [B][J] Σ α ᾱ, Σ of s̄ over the padding
  float* pre;                            // [entries][A] p̄
  float *part_db, *part_du, *part_dq;    // [tiles][A], [tiles][A], [parts][J][A]
  float* part_dW;                        // [pieces][A][D]
  int64_t* rows;                         // of the entries: b T + t, and b
  int32_t* clips;
  SquarePlan weights, frames;
};

// A row of x meets the queries' dc, JB of them at a time.
template <int JB, int N>
AFFUSE_DEVICE void meet(const Backward& g, const float* x, const float* dc, float (&sum)[JB]) {
  const int D = g.gather.D;
#pragma unroll(JB == 1 ? 4 : 1)
  for (int d = int(lane()) * N; d < D; d += 32 * N) {
    const Pack<N> v = get<N>(x + d);
#pragma unroll
    for (int j = 0; j < JB; ++j) {
      const Pack<N> w = get<N>(dc + int64_t(j) * D + d);
#pragma unroll
      for (int e = 0; e < N; ++e) sum[j] = fmaf(v.v[e], w.v[e], sum[j]);
    }
  }
}

template <int N>
AFFUSE_GLOBAL(256, 4) slopes(Backward g) {
  Shared shared;
  Tile tile(shared);
  const FrameList& list = g.gather.list;
  if (!tile.fill(list, blockIdx.x)) return;
  barrier();
  const int64_t J = g.n.J;
  const auto store = [&](int r, int j, float sum) {
    sum = warp_sum(sum);
    if (lane() != 0) return;
    const int64_t b = tile.clip[r], t = tile.row[r] - b * g.n.T;
    g.slope[(tile.first + r) * J + j] = sum + (g.dalpha ? g.dalpha[(b * J + j) * g.n.T + t] : 0.0f);
  };
  for (int r = int(warp()); r < tile.rows; r += 8) {
    if (lane() == 0) {
      g.rows[tile.first + r] = tile.row[r];
      g.clips[tile.first + r] = tile.clip[r];
    }
    const float* const x = g.gather.x + tile.row[r] * g.n.D;
    const float* const dc = g.dc ? g.dc + tile.clip[r] * J * g.n.D : nullptr;
    int j = 0;
    for (; j + 4 <= J; j += 4) {
      float sum[4] = {};
      if (dc) meet<4, N>(g, x, dc + int64_t(j) * g.n.D, sum);
#pragma unroll
      for (int i = 0; i < 4; ++i) store(r, j + i, sum[i]);
    }
    for (; j < J; ++j) {
      float sum[1] = {};
      if (dc) meet<1, N>(g, x, dc + int64_t(j) * g.n.D, sum);
      store(r, j, sum[0]);
    }
  }
}

AFFUSE_GLOBAL(256, 4) clip_sums(Backward g) {
  Shared shared;
  float* const room = shared.take<float>(8);
  int32_t* const found = shared.take<int32_t>(8);
  const FrameList& list = g.gather.list;
  const int64_t T = g.n.T, J = g.n.J;
  for (int64_t pair = blockIdx.x; pair < g.n.B * J; pair += gridDim.x) {
    const int64_t b = pair / J, j = pair - b * J, begin = list.first[b], end = list.first[b + 1];
    float mean = 0, quiet = 0;
    if (begin < end) {
      const float* const alpha = g.alpha + pair * T;
#pragma unroll 4
      for (int64_t e = begin + threadIdx.x; e < end; e += 256)
        mean = fmaf(alpha[list.frame(b, e)], g.slope[e * J + j], mean);
      mean = block_sum<256>(mean, room);
      if (g.gather.padded(b)) {
        float grad = 0;
        int32_t silent = int32_t(T);  // a frame that is not valid: all have the same weight
        for (int64_t t = threadIdx.x; t < T; t += 256) {
          if (list.valid(b, t)) continue;
          silent = int32_t(t);
          if (g.dalpha) grad += g.dalpha[pair * T + t];
        }
        grad = block_sum<256>(grad, room);
        for (unsigned m = 16; m; m /= 2) {
          const int32_t other = shuffle_xor(silent, m);
          silent = other < silent ? other : silent;
        }
        if (lane() == 0) found[warp()] = silent;
        barrier();
        for (unsigned w = 0; w < 8; ++w) silent = found[w] < silent ? found[w] : silent;
        const float weight = alpha[silent];
        mean = fmaf(weight, grad, mean);
        quiet = g.gather.scale * weight * (grad - float(T - (end - begin)) * mean);
        barrier();
      }
    }
    if (threadIdx.x == 0) g.mean[pair] = mean, g.quiet[pair] = quiet;
  }
}

// Queries kQueries at a time: where there are more, a column's sums over them so far wait in shared memory.
inline SharedBytes key_gradient_bytes(int64_t J) {
  SharedBytes bytes = Tile::bytes().take<float>(size_t(kTile * (J < kQueries ? J : kQueries))).take<float>(kTile * 256);
  return bytes.take<float>(J > kQueries ? kTile * 256 : 0);
}
AFFUSE_GLOBAL(256, 4) key_gradients(Backward g) {
  const Gather& f = g.gather;
  const int J = f.J;
  Shared shared;
  Tile tile(shared);
  float* const slope = shared.take<float>(unsigned(kTile * (J < kQueries ? J : kQueries)));  // s̄ [row][j]
  float* const keys = shared.take<float>(kTile * 256);  // a thread's column is nobody else's
  float* const sums = shared.take<float>(J > kQueries ? kTile * 256 : 0);
  if (!tile.fill(f.list, blockIdx.x)) return;
  const int64_t A = g.n.A, a = int64_t(blockIdx.y) * 256 + threadIdx.x;
  float sum_db = 0, sum_du = 0;
  for (int j0 = 0; j0 < J; j0 += kQueries) {
    const int count = J - j0 < kQueries ? J - j0 : kQueries;
    barrier();
    for (int i = int(threadIdx.x); i < tile.rows * count; i += 256) {
      const int r = i / count, j = j0 + i - r * count;
      const int64_t pair = int64_t(tile.clip[r]) * J + j, t = tile.row[r] - tile.clip[r] * g.n.T;
      slope[i] = f.scale * g.alpha[pair * g.n.T + t] * (g.slope[(tile.first + r) * J + j] - g.mean[pair]);
    }
    barrier();
    if (a >= A) continue;
    float *const key = keys + threadIdx.x, *const sum_of = sums + threadIdx.x;
    if (j0 == 0) {
#pragma unroll 8
      for (int r = 0; r < tile.rows; ++r) key[r * 256] = g.k[tile.row[r] * A + a];
    }
    for (int from = 0; from < tile.rows; from = tile.end[from]) {
      const int64_t clip = tile.clip[from];
      const int to = tile.end[from];
      const float* const q = f.queries(clip) + j0 * A + a;
      const float first = q[0];
      for (int r = from; r < to; ++r) {
        float p = j0 == 0 ? slope[r * count] * first : fmaf(slope[r * count], first, sum_of[r * 256]);
        for (int j = 1; j < count; ++j) p = fmaf(slope[r * count + j], q[j * A], p);
        if (j0 == 0) sum_du = fmaf(slope[r * count], key[r * 256], sum_du);
        if (j0 + count < J) {
          sum_of[r * 256] = p;
          continue;
        }
        p *= fmaf(-key[r * 256], key[r * 256], 1.0f);
        sum_db += p;
        if (g.pre) g.pre[(tile.first + r) * A + a] = p;
      }
      for (int j = 0; g.part_dq && j < count; ++j) {
        float sum = 0;
        for (int r = from; r < to; ++r) sum = fmaf(slope[r * count + j], key[r * 256], sum);
        g.part_dq[((blockIdx.x + clip) * J + j0 + j) * A + a] = sum;
      }
    }
  }
  if (a >= A) return;
  if (g.part_db) g.part_db[blockIdx.x * A + a] = sum_db;
  if (g.part_du) g.part_du[blockIdx.x * A + a] = sum_du;
}

// A block has 32 columns, each of its warps every eighth tile, and then every eighth clip's padding.
AFFUSE_GLOBAL(256, 4) add_tiles(Backward g) {
  Shared shared;
  float *const room_db = shared.take<float>(256), *const room_du = shared.take<float>(256);
  const Gather& f = g.gather;
  const int64_t A = g.n.A, a = int64_t(blockIdx.x) * 32 + lane(), tiles = (f.list.count() + kTile - 1) / kTile;
  float db = 0, du = 0;
  if (a < A) {
#pragma unroll 4
    for (int64_t t = warp(); t < tiles; t += 8) {
      if (g.part_db) db += g.part_db[t * A + a];
      if (g.part_du) du += g.part_du[t * A + a];
    }
    if (!f.masked) {
      const float key = tanhf(f.bias[a]), steep = fmaf(-key, key, 1.0f);
      for (int64_t b = warp(); b < g.n.B; b += 8) {
        if (!f.padded(b)) continue;
        float p = 0;
        for (int64_t j = 0; j < g.n.J; ++j) {
          const float quiet = g.quiet[b * g.n.J + j];
          p = fmaf(quiet, f.queries(b)[j * A + a], p);
          du = fmaf(quiet, key, du);
        }
        db = fmaf(p, steep, db);
      }
    }
  }
  room_db[threadIdx.x] = db;
  room_du[threadIdx.x] = du;
  barrier();
  if (warp() != 0 || a >= A) return;
  for (unsigned w = 1; w < 8; ++w) db += room_db[w * 32 + lane()], du += room_du[w * 32 + lane()];
  if (g.db) g.db[a] = db;
  if (g.du) g.du[a] = du;
}

struct QueryGradients {
  Backward g;
  Divider columns, queries;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    const Parts at = columns.split(i), pair = queries.split(at.quotient);
    const int64_t b = pair.quotient, j = pair.rest, a = at.rest, begin = g.gather.list.first[b],
                  end = g.gather.list.first[b + 1];
    float sum = 0;
    if (begin < end) {
#pragma unroll 4
      for (int64_t t = begin / kTile; t <= (end - 1) / kTile; ++t) sum += g.part_dq[((t + b) * g.n.J + j) * g.n.A + a];
      if (g.gather.padded(b)) sum = fmaf(g.quiet[at.quotient], tanhf(g.gather.bias[a]), sum);
    }
    g.dq[i] = sum;
  }
};

// Zeros in the rows of dx that belong to no valid frame: a warp for a row.
AFFUSE_GLOBAL(256, 8) clear_padding(FrameList list, float* dx, int64_t D, Divider frames) {
  const int64_t rows = list.frames.B * list.frames.T;
  for (int64_t row = int64_t(blockIdx.x) * 8 + warp(); row < rows; row += int64_t(gridDim.x) * 8) {
    const Parts at = frames.split(row);
    if (list.valid(at.quotient, at.rest)) continue;
    for (int64_t d = lane(); d < D; d += 32) dx[row * D + d] = 0.0f;
  }
}

inline Backward backward_of(const OpCall& call, Carver& carver, const OpShape& s, int processors) {
  const auto given = [&](int i) { return s.in[i].given(); };
  const auto wanted = [&](int i) { return s.out[i].given(); };
  Backward g{};
  g.n = afg_size(s.in);
  const auto [B, T, D, A, J] = g.n;
  const int64_t entries = B * T, tiles = ceil_div(entries, kTile);
  g.gather = gather_of(call, carver, s, false);
  if (!given(kAfgK)) g.gather.k = carver.take<float>(entries * A);
  if (!given(kAfgAlpha)) g.gather.alpha = carver.take<float>(B * J * T);
  g.slope = carver.take<float>(entries * J);
  g.mean = carver.take<float>(B * J);
  g.quiet = carver.take<float>(B * J);
  g.rows = carver.take<int64_t>(entries);
  g.clips = carver.take<int32_t>(entries);
  if (wanted(kAfgDW) || wanted(kAfgDx)) g.pre = carver.take<float>(entries * A);
  if (wanted(kAfgDb)) g.part_db = carver.take<float>(tiles * A);
  if (wanted(kAfgDu)) g.part_du = carver.take<float>(tiles * A);
  if (wanted(kAfgDq)) g.part_dq = carver.take<float>((tiles + B) * J * A);
  g.weights = gemm::square_plan(A, D, entries, true, processors);
  g.frames = gemm::square_plan(entries, D, A, false, processors);
  if (wanted(kAfgDW) && g.weights.pieces > 1) g.part_dW = carver.take<float>(g.weights.pieces * A * D);
  if (!call.in) return g;
  g.k = given(kAfgK) ? call.in[kAfgK].f32() : g.gather.k;
  g.alpha = given(kAfgAlpha) ? call.in[kAfgAlpha].f32() : g.gather.alpha;
  g.gather.keys = given(kAfgK) ? g.k : nullptr;
  g.dc = call.in[kAfgDc].f32();
  g.dalpha = call.in[kAfgDalpha].f32();
  g.dx = call.out[kAfgDx].f32();
  g.dW = call.out[kAfgDW].f32();
  g.db = call.out[kAfgDb].f32();
  g.du = call.out[kAfgDu].f32();
  g.dq = call.out[kAfgDq].f32();
  return g;
}

inline void queue_weights(Queue& queue, const Backward& g) {
  const auto [B, T, D, A, J] = g.n;
  const SquarePlan& plan = g.weights;
  float* const to = plan.pieces > 1 ? g.part_dW : g.dW;
  const bool wide_x = D % 4 == 0 && aligned(g.gather.x) && aligned(to);
  const WeightProduct p{g.pre,      g.gather.x, g.rows, g.gather.list.first, B,      A, D,
                        A % 4 == 0, wide_x,     to,     plan.pieces,         nullptr};
  gemm::with_square<false>(plan, g.gather.rounding, [&](auto unit) {
    using Unit = typename decltype(unit)::type;
    const unsigned words = gemm::tile_words<Unit, WeightFeed<Unit>, WeightFeed<Unit>>();
    launch("afg dW", multiply_weights<Unit>, queue, Grid{plan.tiles, plan.pieces}, gemm::kThreads,
           SharedBytes().take<float>(words).bytes, p, plan.columns);
  });
  if (plan.pieces > 1)
    each(queue, "afg dW pieces", A * D, A * D % 4 == 0 && aligned(g.dW), gemm::PiecesAdded{to, g.dW, A * D, plan.pieces});
}
inline void queue_frames(Queue& queue, const Backward& g) {
  const auto [B, T, D, A, J] = g.n;
  const SquarePlan& plan = g.frames;
  const bool wide = D % 4 == 0 && aligned(g.gather.W) && aligned(g.dx) && aligned(g.dc);
  const FrameProduct p{g.pre, g.gather.W, g.rows, g.gather.list.first, g.clips, B, T, A, D, J, A % 4 == 0, wide, g.alpha,
                       g.dc,  g.dx,       0};
  gemm::with_square<true>(plan, g.gather.rounding, [&](auto unit) {
    using Unit = typename decltype(unit)::type;
    const unsigned words = gemm::tile_words<Unit, FrameFeed<Unit>, ColumnFeed<Unit>>();
    launch("afg dx", multiply_frames<Unit>, queue, Grid{plan.tiles}, gemm::kThreads,
           SharedBytes().take<float>(words).bytes, p, plan.columns);
  });
}

inline void run_backward(Queue& queue, const Backward& g) {
  const auto [B, T, D, A, J] = g.n;
  const int64_t tiles = ceil_div(B * T, kTile), full = int64_t(queue.processors) * 32;
  const auto most = [&](int64_t blocks) { return Grid{blocks < full ? blocks : full}; };
  list_frames(queue, g.gather.list);
  if (g.gather.k || g.gather.alpha) gather(queue, g.gather, g.gather.alpha != nullptr);
  const size_t tile = Tile::bytes().bytes;
  const bool wide = D % 4 == 0 && aligned(g.gather.x) && aligned(g.dc);
  launch("afg slopes", wide ? slopes<4> : slopes<1>, queue, Grid{tiles}, 256, tile, g);
  AFFUSE_LAUNCH(clip_sums, queue, most(B * J), 256, SharedBytes().take<float>(8).take<int32_t>(8).bytes, g);
  AFFUSE_LAUNCH(key_gradients, queue, (Grid{tiles, ceil_div(A, 256)}), 256, key_gradient_bytes(J).bytes, g);
  if (g.db || g.du)
    AFFUSE_LAUNCH(add_tiles, queue, Grid{ceil_div(A, 32)}, 256, SharedBytes().take<float>(256).take<float>(256).bytes, g);
  if (g.dq) each_of<1, 4>(queue, "afg dq", B * J * A, QueryGradients{g, divider(A, B * J * A), divider(J, B * J * A)});
  if (g.dW) queue_weights(queue, g);
  if (g.dx) {
    queue_frames(queue, g);
    AFFUSE_LAUNCH(clear_padding, queue, most(ceil_div(B * T, 8)), 256, 0, g.gather.list, g.dx, D, divider(T, B * T));
  }
}

}  // namespace affuse::cuda::afg
