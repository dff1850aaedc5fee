// afg's forward: tiles of 32 frames, then clips.
//
// gather_tiles, a block for a tile of the list: its rows of x come to shared memory piece by piece, with them pieces of
// W, while the pieces before are multiplied; sums become keys, keys meet the queries, and when the scores are complete
// the same rows, still in shared memory, are added up with their weights. So x is read once. Clips that lie within the
// tile are done; of the others it leaves peak, total and weighted sum. Where shared memory does not hold 32 rows they are
// read a second time (from L2).
//
// Where there are many queries they are launched in parts.
//
// finish_clips merges those in the order of the tiles, turns scores into weights and clears padding.
//
// Multiplication in float32: a warp has 32 rows by 64 columns, a lane 8 by 8; CW warps lie beside each other, SPLITS of
// them share out a piece's depth. Rows and columns in shared memory are 16 floats, as four places of 16 bytes that are
// dealt so that what the lanes of a warp read together lies in different banks.
#pragma once
#include <type_traits>

#include "../../common/cuda/divide.h"
#include "../../common/cuda/reduce.h"
#include "../../common/cuda/stream.h"
#include "../../gemm/cuda/tile.h"
#include "frames.h"

namespace affuse::cuda::afg {

// Queries of a launch: their scores are 16 KB of shared memory. Where there are more, x and W are read again for every so many,
// beside whose sums over the frames the keys are little.
constexpr int kQueries = 128;
constexpr int kDepth = 16;  // of a piece: neighbouring floats of a row of x or W

struct Gather {
  int D, A, J;
  int Q;  // of J, those that a launch of gather_tiles takes: from the one on that query, alpha, peak, total, c and partial begin at
  FrameList list;
  const float *x, *W, *bias, *query;
  int64_t query_stride;  // floats between the queries of neighbouring clips: 0 for u
  const float* keys;     // [B,T,A] if they need not be computed, else null
  float scale;
  bool masked;
  float *c, *alpha, *k;            // null: not wanted
  float *peak, *total, *partial;   // [parts][J], [parts][J][D]
  gemm::Rounding rounding;
  int stages;                      // of the ring: 2 to 4
  bool resident;                   // all pieces of x stay in shared memory

  AFFUSE_DEVICE const float* queries(int64_t b) const { return query + b * query_stride; }
  // Whether frames of zeros take part in clip b's softmax.
  AFFUSE_DEVICE bool padded(int64_t b) const { return !masked && list.of(b) < list.frames.T; }
};

// Place of floats [4 slot, 4 slot + 4) of a row of a piece.
AFFUSE_DEVICE int place_of(int row, int slot) { return row * kDepth + 4 * ((slot ^ row >> 1) & 3); }
// In x, pieces with odd numbers have neighbouring rows swapped: four slots of two pieces lie in different banks too.
AFFUSE_DEVICE int place_of(int piece, int row, int slot) { return place_of(row ^ (piece & 1), slot); }

// The next four floats of which `left` exist.
template <bool WIDE>
AFFUSE_DEVICE void copy_place(float* to, const float* from, int left, const float* any) {
  if constexpr (WIDE) {
    copy_async<16>(to, left > 0 ? from : any, left > 0 ? 16 : 0);
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e) copy_async<4>(to + e, e < left ? from + e : any, e < left ? 4 : 0);
  }
}

AFFUSE_DEVICE void wait_for_oldest(int stages) {
  if (stages == 2) wait<0>();
  else if (stages == 3) wait<1>();
  else wait<2>();
}

template <int CW, int SPLITS>
struct Shape {
  static constexpr int kWarps = CW * SPLITS, kThreads = 32 * kWarps, kColumns = 64 * CW;
  static constexpr int kPitch = kColumns + 8;  // of a row of sums: four rows of eight columns in different banks
  static constexpr int kStage = kColumns * kDepth, kPiece = kTile * kDepth;
  static int64_t ring(int stages) { return stages * kStage > kTile * kPitch ? stages * kStage : kTile * kPitch; }
  static SharedBytes bytes(int64_t D, int Q, int stages, bool resident) {
    SharedBytes s = Tile::bytes();
    s.take<float>(size_t(resident ? ceil_div(D, kDepth) : stages) * kPiece);
    return s.take<float>(size_t(ring(stages))).take<float>(size_t(kTile * Q));
  }
};

// The product of a tile's rows with W: multiply() takes a piece of both, write() leaves the sums in shared memory. Exact:
// every sum is one chain of multiply-adds for each of the SPLITS, which are added up in order.
template <int CW, int SPLITS>
struct ExactSums {
  using S = Shape<CW, SPLITS>;
  float sum[8][8] = {};
  static AFFUSE_DEVICE int split() { return int(warp()) / CW; }
  static AFFUSE_DEVICE int row(int i) { return i * 4 + int(lane()) / 8; }
  static AFFUSE_DEVICE int column(int j) { return int(warp()) % CW * 64 + j * 8 + int(lane()) % 8; }

  AFFUSE_DEVICE void multiply(const float* x, const float* w, int piece) {
#pragma unroll
    for (int s = 0; s < 4 / SPLITS; ++s) {
      const int slot = split() + s * SPLITS;
      float4 a[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) a[i] = load4(x + place_of(piece, row(i), slot));
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float4 b = load4(w + place_of(column(j), slot));
#pragma unroll
        for (int i = 0; i < 8; ++i)
          sum[i][j] = fmaf(a[i].w, b.w, fmaf(a[i].z, b.z, fmaf(a[i].y, b.y, fmaf(a[i].x, b.x, sum[i][j]))));
      }
    }
  }
  AFFUSE_DEVICE void write(float* to) const {  // the first barrier also ends the reading of the ring
    for (int turn = 0; turn < SPLITS; ++turn) {
      barrier();
      if (split() != turn) continue;
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          float* const at = to + row(i) * S::kPitch + column(j);
          *at = turn == 0 ? sum[i][j] : *at + sum[i][j];
        }
    }
    barrier();
  }
};

// With bf16 or tf32 operands: the float32 in shared memory is rounded on the way to the fragments. All warps lie beside each
// other.
template <int CW, int SPLITS, class Operand>
struct RoundedSums {
  using S = Shape<CW, SPLITS>;
  static constexpr int NT = S::kColumns / S::kWarps / 8;  // fragments of 16 x 8, two of them high
  static constexpr bool kPairs = sizeof(Operand*) && __is_same(Operand, Bf16Pairs);
  static constexpr int kSteps = kPairs ? 1 : 2;  // products of a piece
  float sum[2][NT][4] = {};
  static AFFUSE_DEVICE int column() { return int(warp()) * NT * 8; }
  // What lane t of four has of half `half` of a step's depth; at(slot): where four floats stand.
  template <class At>
  static AFFUSE_DEVICE uint32_t operand(int s, int half, int t, const At& at) {
    if constexpr (kPairs) {
      const float* const p = at(t / 2 + half * 2) + t % 2 * 2;
      return to_bf16(p[0], p[1]);
    } else {
      return to_tf32(at(2 * s + half)[t]);
    }
  }

  AFFUSE_DEVICE void multiply(const float* x, const float* w, int piece) {
    const int line = int(lane()) / 4, t = int(lane()) % 4;
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      uint32_t rows[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int h = 0; h < 4; ++h) {
          const int row = m * 16 + line + h % 2 * 8;
          rows[m][h] = operand(s, h / 2, t, [&](int slot) { return x + place_of(piece, row, slot); });
        }
#pragma unroll
      for (int n = 0; n < NT; ++n) {
        const auto at = [&](int slot) { return w + place_of(column() + n * 8 + line, slot); };
        const uint32_t columns[2] = {operand(s, 0, t, at), operand(s, 1, t, at)};
#pragma unroll
        for (int m = 0; m < 2; ++m) mma<Operand>(sum[m][n], rows[m], columns);
      }
    }
  }
  AFFUSE_DEVICE void write(float* to) const {
    barrier();  // ends the reading of the ring
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int n = 0; n < NT; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          to[(m * 16 + int(lane()) / 4 + e / 2 * 8) * S::kPitch + column() + n * 8 + int(lane()) % 4 * 2 + e % 2] =
              sum[m][n][e];
    barrier();
  }
};

// sums[j - j0][…] over the rows of one part; JB queries at a time.
template <int JB, int N>
AFFUSE_DEVICE void gather_part(const Gather& g, const float* x, const Tile& tile, const float* weight, int from, int to,
                               int j0, int d, float* out) {
  Pack<N> sum[JB];
#pragma unroll
  for (int j = 0; j < JB; ++j) sum[j] = fill<N>(0.0f);
  const int piece = d / kDepth;
#pragma unroll 4
  for (int r = from; r < to; ++r) {
    const Pack<N> v = get<N>(g.resident ? x + piece * (kTile * kDepth) + place_of(piece, r, d / 4 % 4) + d % 4
                                        : g.x + tile.row[r] * g.D + d);
#pragma unroll
    for (int j = 0; j < JB; ++j) {
      const float w = weight[r * g.Q + j0 + j];
#pragma unroll
      for (int e = 0; e < N; ++e) sum[j].v[e] = fmaf(w, v.v[e], sum[j].v[e]);
    }
  }
#pragma unroll
  for (int j = 0; j < JB; ++j) put(out + int64_t(j0 + j) * g.D + d, sum[j]);
}

// OPERAND: float, Bf16Pairs or Tf32.
template <int CW, int SPLITS, class OPERAND, bool WIDE>
AFFUSE_GLOBAL((Shape<CW, SPLITS>::kThreads), CW == 1 ? 2 : 1) gather_tiles(Gather g) {
  using S = Shape<CW, SPLITS>;
  const int pieces = (g.D + kDepth - 1) / kDepth;
  Shared shared;
  Tile tile(shared);
  float* const xs = shared.take<float>(unsigned((g.resident ? pieces : g.stages) * S::kPiece));
  const int ring = g.stages * S::kStage > kTile * S::kPitch ? g.stages * S::kStage : kTile * S::kPitch;
  float* const ws = shared.take<float>(unsigned(ring));
  float* const score = shared.take<float>(unsigned(kTile * g.Q));  // [row][j], later the weights
  if (!tile.fill(g.list, blockIdx.x)) return;
  barrier();

  const int tid = int(threadIdx.x);
  for (int c0 = 0; c0 < g.A; c0 += S::kColumns) {
    if (!g.keys) {
      const auto load = [&](int piece) {
        const int stage = piece % g.stages, d = piece * kDepth;
        float* const to = ws + stage * S::kStage;
#pragma unroll 4
        for (int i = tid; i < S::kColumns * 4; i += S::kThreads) {
          const int column = i / 4, at = d + i % 4 * 4;
          copy_place<WIDE>(to + place_of(column, i % 4), g.W + int64_t(c0 + column) * g.D + at,
                           c0 + column < g.A ? g.D - at : 0, g.W);
        }
        if (g.resident && c0 > 0) return;
        float* const rows = xs + (g.resident ? piece : stage) * S::kPiece;
        for (int i = tid; i < kTile * 4; i += S::kThreads) {
          const int row = i / 4, at = d + i % 4 * 4;
          copy_place<WIDE>(rows + place_of(piece, row, i % 4), g.x + tile.row[row] * g.D + at,
                           row < tile.rows ? g.D - at : 0, g.x);
        }
      };
      std::conditional_t<__is_same(OPERAND, float), ExactSums<CW, SPLITS>, RoundedSums<CW, SPLITS, OPERAND>> sums;
      for (int piece = 0; piece < g.stages - 1; ++piece) {
        if (piece < pieces) load(piece);
        commit();
      }
      for (int piece = 0; piece < pieces; ++piece) {
        wait_for_oldest(g.stages);
        barrier();
        if (piece + g.stages - 1 < pieces) load(piece + g.stages - 1);
        commit();
        sums.multiply(xs + (g.resident ? piece : piece % g.stages) * S::kPiece, ws + piece % g.stages * S::kStage, piece);
      }
      wait<0>();
      sums.write(ws);
    }
    // Keys, and what they add to the scores: a warp has a row, its lanes neighbouring columns.
    constexpr int kEach = S::kColumns / 32;
    for (int r = int(warp()); r < tile.rows; r += S::kWarps) {
      float key[kEach];
#pragma unroll
      for (int m = 0; m < kEach; ++m) {
        const int column = int(lane()) + 32 * m, a = c0 + column;
        key[m] = 0;
        if (a >= g.A) continue;
        const int64_t at = tile.row[r] * g.A + a;
        key[m] = g.keys ? g.keys[at] : tanhf(ws[r * S::kPitch + column] + g.bias[a]);
        if (g.k) g.k[at] = key[m];
      }
      const float* q = g.queries(tile.clip[r]) + c0 + lane();
      for (int j = 0; j < g.Q; ++j, q += g.A) {
        float sum = 0;
#pragma unroll
        for (int m = 0; m < kEach; ++m)
          if (c0 + int(lane()) + 32 * m < g.A) sum = fmaf(key[m], q[32 * m], sum);
        sum = warp_sum(sum);
        if (lane() == 0) score[r * g.Q + j] = c0 == 0 ? sum : score[r * g.Q + j] + sum;
      }
    }
    barrier();
  }

  // A warp has a query, its lanes the rows.
  for (int j = int(warp()); j < g.Q; j += S::kWarps) {
    const int r = int(lane());
    const int clip = tile.clip[r];
    const bool there = r < tile.rows;
    const float s = there ? g.scale * score[r * g.Q + j] : 0.0f;
    float peak = -__builtin_inff(), total = 0;
    for (int l = 0; l < tile.rows; ++l) {  // NaN is passed over: it comes back through exp
      const float other = shuffle(s, unsigned(l));
      if (tile.clip[l] == clip && other > peak) peak = other;
    }
    const float e = expf(s - peak);
    for (int l = 0; l < tile.rows; ++l) {
      const float other = shuffle(e, unsigned(l));
      if (tile.clip[l] == clip) total += other;
    }
    if (!there) continue;
    const bool done = tile.whole[r] && !g.padded(clip);
    const float weight = done ? e * (1.0f / total) : e;
    score[r * g.Q + j] = weight;
    const int64_t t = tile.row[r] - clip * g.list.frames.T, part = int64_t(blockIdx.x) + clip;
    if (g.alpha) g.alpha[(int64_t(clip) * g.J + j) * g.list.frames.T + t] = done ? weight : s;
    if (r == 0 || tile.clip[r - 1] != clip) {
      g.peak[part * g.J + j] = peak;
      g.total[part * g.J + j] = total;
    }
  }
  if (!g.c) return;
  barrier();
  constexpr int N = WIDE ? 4 : 1;
  for (int d = tid * N; d < g.D; d += S::kThreads * N)
    for (int r = 0; r < tile.rows; r = tile.end[r]) {
      const int64_t clip = tile.clip[r];
      const bool done = tile.whole[r] && !g.padded(clip);
      float* const out = done ? g.c + clip * g.J * g.D : g.partial + (int64_t(blockIdx.x) + clip) * g.J * g.D;
      int j = 0;
      for (; j + 4 <= g.Q; j += 4) gather_part<4, N>(g, xs, tile, score, r, tile.end[r], j, d, out);
      for (; j < g.Q; ++j) gather_part<1, N>(g, xs, tile, score, r, tile.end[r], j, d, out);
    }
}

// A block has a clip, a query and 32 N columns of c; each of its warps every eighth tile, added up in the order of the
// warps.
constexpr int kFinishThreads = 256;

AFFUSE_DEVICE float largest_of(float v, float least) { return v > least ? v : least; }

template <int N>
AFFUSE_GLOBAL(kFinishThreads, 4) finish_clips(Gather g, int blocks) {  // blocks: of a clip and query
  Shared shared;
  float* const room = shared.take<float>(8);
  float* const sums = shared.take<float>(8 * 32 * N);
  const int64_t T = g.list.frames.T;
  for (int64_t task = blockIdx.x; task < g.list.frames.B * g.J * blocks; task += gridDim.x) {
    const int64_t pair = task / blocks, block = task - pair * blocks, b = pair / g.J;
    const int j = int(pair - b * g.J);
    const int64_t begin = g.list.first[b], end = g.list.first[b + 1], head = begin / kTile, tail = (end - 1) / kTile;
    const bool padded = g.padded(b), none = begin == end, done = none || (head == tail && !padded);
    float peak = -__builtin_inff(), total = 0, quiet = 0;
    if (!done) {
      if (padded) {  // the score of a frame of zeros
        for (int a = int(threadIdx.x); a < g.A; a += kFinishThreads)
          quiet = fmaf(g.queries(b)[int64_t(j) * g.A + a], tanhf(g.bias[a]), quiet);
        quiet = g.scale * block_sum<kFinishThreads>(quiet, room);
        peak = largest_of(quiet, peak);
      }
      for (int64_t t = head + threadIdx.x; t <= tail; t += kFinishThreads)
        peak = largest_of(g.peak[(t + b) * g.J + j], peak);
      peak = warp_max(peak);
      if (lane() == 0) room[warp()] = peak;
      barrier();
      for (int w = 0; w < 8; ++w) peak = largest_of(room[w], peak);
      barrier();
      for (int64_t t = head + threadIdx.x; t <= tail; t += kFinishThreads)
        total = fmaf(expf(g.peak[(t + b) * g.J + j] - peak), g.total[(t + b) * g.J + j], total);
      total = block_sum<kFinishThreads>(total, room);
      if (padded) total = fmaf(float(T - (end - begin)), expf(quiet - peak), total);
    }
    if (g.c && !(done && !none)) {
      const int d = (int(block) * 32 + int(lane())) * N;
      Pack<N> sum = fill<N>(0.0f);
      if (!none && d < g.D) {
#pragma unroll 2
        for (int64_t t = head + warp(); t <= tail; t += 8) {
          const float factor = expf(g.peak[(t + b) * g.J + j] - peak);
          sum = sum + get<N>(g.partial + ((t + b) * g.J + j) * g.D + d) * factor;
        }
      }
      put(sums + int(threadIdx.x) * N, sum);
      barrier();
      if (warp() == 0 && d < g.D) {
        for (int w = 1; w < 8; ++w) sum = sum + get<N>(sums + (w * 32 + int(lane())) * N);
        put(g.c + pair * g.D + d, none ? sum : sum * (1.0f / total));
      }
      barrier();
    }
    const int64_t step = int64_t(blocks) * kFinishThreads;
    const float padding = !none && padded ? expf(quiet - peak) / total : 0.0f;
    for (int64_t t = block * kFinishThreads + threadIdx.x; g.alpha && t < T; t += step) {
      float* const weight = g.alpha + pair * T + t;
      if (!g.list.valid(b, t)) *weight = padding;
      else if (!done) *weight = expf(*weight - peak) * (1.0f / total);
    }
    if (!g.k || j > 0) continue;
    for (int64_t t = block * 8 + warp(); t < T; t += int64_t(blocks) * 8)
      if (!g.list.valid(b, t))
        for (int a = int(lane()); a < g.A; a += 32) g.k[(b * T + t) * g.A + a] = 0.0f;
  }
}

template <int CW, int SPLITS>
void queue_tiles(Queue& queue, Gather g, int64_t tiles, bool wide) {
  using S = Shape<CW, SPLITS>;
  const auto bytes = [&] { return S::bytes(g.D, g.Q, g.stages, g.resident).bytes; };
  g.Q = g.J < kQueries ? g.J : kQueries;
  g.stages = 2, g.resident = false;
  while (g.Q > 1 && bytes() > queue.shared) g.Q = (g.Q + 1) / 2;
  g.stages = 4, g.resident = true;
  while (g.stages > 2 && bytes() > queue.shared) --g.stages;
  if (bytes() > queue.shared)
    for (g.stages = 4, g.resident = false; g.stages > 2 && bytes() > queue.shared;) --g.stages;
  const bool bf16 = g.rounding == gemm::Rounding::bf16;
  auto kernel = bf16 ? wide ? gather_tiles<CW, SPLITS, Bf16Pairs, true> : gather_tiles<CW, SPLITS, Bf16Pairs, false>
                     : wide ? gather_tiles<CW, SPLITS, float, true> : gather_tiles<CW, SPLITS, float, false>;
  if (wide && g.rounding == gemm::Rounding::tf32) kernel = gather_tiles<CW, SPLITS, Tf32, true>;
  const int64_t T = g.list.frames.T, D = g.D, A = g.A;
  for (int left = g.J, taken = g.Q; left > 0; left -= taken) {
    g.Q = left < taken ? left : taken;
    launch("gather_tiles", kernel, queue, Grid{tiles}, S::kThreads, bytes(), g);
    const auto move = [](auto*& p, int64_t by) { p = p ? p + by : p; };
    move(g.query, taken * A), move(g.alpha, taken * T), move(g.c, taken * D), move(g.partial, taken * D);
    move(g.peak, taken), move(g.total, taken);
    g.k = nullptr;  // the first launch has written them
  }
}

// Everything of g but Q, stages and resident is given; the list has been made. `finish`: c or alpha is wanted, or zeros in k.
inline void gather(Queue& queue, Gather g, bool finish) {
  const int64_t B = g.list.frames.B, T = g.list.frames.T, tiles = ceil_div(B * T, kTile);
  const bool wide = g.D % 4 == 0 && aligned(g.x) && aligned(g.W) && aligned(g.c) && aligned(g.partial);
  if (g.A <= 64) queue_tiles<1, 4>(queue, g, tiles, wide);
  else if (g.A <= 128) queue_tiles<2, 4>(queue, g, tiles, wide);
  else queue_tiles<4, 2>(queue, g, tiles, wide);
  if (!finish) return;
  const int n = wide ? 4 : 1, blocks = g.c ? int(ceil_div(g.D, 32 * n)) : 4;
  const int64_t tasks = B * g.J * blocks, most = int64_t(queue.processors) * 32;
  const Grid grid{tasks < most ? tasks : most};
  SharedBytes bytes;
  bytes.take<float>(8).take<float>(size_t(8 * 32 * n));
  launch("finish_clips", wide ? finish_clips<4> : finish_clips<1>, queue, grid, kFinishThreads, bytes.bytes, g, blocks);
}

inline Gather gather_of(const OpCall& call, Carver& carver, const OpShape& shape, bool c) {
  const AfgSize n = afg_size(shape.in);
  Gather g{};
  g.D = int(n.D), g.A = int(n.A), g.J = int(n.J);
  g.list = frame_list(carver, shape);
  const int64_t parts = ceil_div(n.B * n.T, kTile) + n.B;
  g.peak = carver.take<float>(parts * n.J);
  g.total = carver.take<float>(parts * n.J);
  g.partial = c ? carver.take<float>(parts * n.J * n.D) : nullptr;
  if (!call.in) return g;  // only the workspace is measured
  const Tensor* in = call.in;
  g.list.frames = frames_of(in[kAfgX], in[kAfgLengths], in[kAfgMask]);
  g.x = in[kAfgX].f32();
  g.W = in[kAfgW].f32();
  g.bias = in[kAfgB].f32();
  g.query = in[kAfgQ].given() ? in[kAfgQ].f32() : in[kAfgU].f32();
  g.query_stride = in[kAfgQ].given() ? n.J * n.A : 0;
  g.scale = float(call.attr[kAfgScale].f);
  g.masked = call.attr[kAfgMasked].i != 0;
  g.rounding = gemm::rounding_of(call.attr[kAfgPrecision].i);
  return g;
}

}  // namespace affuse::cuda::afg
