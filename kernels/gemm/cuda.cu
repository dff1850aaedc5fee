// The compiled products of cuda/product.h: tiles of three sizes by three layouts in float32, of two sizes in bf16; a block
// is a tile of C and a piece of K. Tiles go in groups of eight tile rows, so that blocks that run together read the same
// columns. A finished tile passes through shared memory, from where whole rows of it are stored.
#include "cuda/operands.h"
#include "cuda/product.h"

namespace affuse::cuda::gemm {
namespace {

// What a block computes: tile (row, column), K in [from, to).
struct Cut {
  int64_t M, N, tile_rows, tile_columns;
  int K, piece;
  float* partial;  // [pieces, M, N up to a multiple of 4]; null: K is whole
  constexpr int64_t columns() const { return (N + 3) / 4 * 4; }
};
struct Place {
  int64_t row, column;  // tiles
  int from, to;
};
AFFUSE_DEVICE Place place_of(const Cut& cut) {
  constexpr int64_t kGroup = 8;
  const int64_t id = blockIdx.x, group = id / (kGroup * cut.tile_columns), in = id - group * kGroup * cut.tile_columns;
  const int64_t left = cut.tile_rows - group * kGroup, height = left < kGroup ? left : kGroup;
  const int from = int(blockIdx.y) * cut.piece, to = from + cut.piece < cut.K ? from + cut.piece : cut.K;
  return {group * kGroup + in % height, in / height, from, to};
}

// Part of a tile out of shared memory: `rows` rows of COLUMNS, kPad apart; row_of(r): row of C.
constexpr int pitch(int columns) { return columns + 4; }
template <int COLUMNS, class RowOf>
AFFUSE_DEVICE void deliver(const Cut& cut, const Finish& finish, const float* tile, int rows, int64_t column0,
                           const RowOf& row_of) {
  constexpr int kFours = COLUMNS / 4;
  for (int f = int(threadIdx.x); f < rows * kFours; f += kThreads) {
    const int64_t row = row_of(f / kFours), column = column0 + f % kFours * 4;
    if (row >= cut.M || column >= cut.N) continue;
    const Pack<4> z = get<4>(tile + f / kFours * pitch(COLUMNS) + f % kFours * 4);
    if (cut.partial) {
      put(cut.partial + (int64_t(blockIdx.y) * cut.M + row) * cut.columns() + column, z);
    } else if (finish.wide && column + 4 <= cut.N) {
      finish(row, column, z);
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (column + e < cut.N) finish(row, column + e, Pack<1>{{z.v[e]}});
    }
  }
}

template <class L, class A, class B>
struct ExactTile {
  using FeedA = Feed<A, L::kRows>;
  using FeedB = Feed<B, L::kColumns>;
  static constexpr int kParts = L::TM > 4 ? 2 : 1;  // of a tile that pass through shared memory one after another
  static constexpr int kRing = kStages * (FeedA::kFloats + FeedB::kFloats), kOut = L::kRows / kParts * pitch(L::kColumns);
  static constexpr int kFloats = kRing > kOut ? kRing : kOut;
};

template <class L, class A, class B>
AFFUSE_GLOBAL(kThreads, L::TM * L::TN < 64 ? 3 : 2) multiply_exact(A a, B b, Cut cut, Finish finish) {
  using T = ExactTile<L, A, B>;
  Shared shared;
  float* const ring = shared.take<float>(T::kFloats);
  const Place at = place_of(cut);
  const int64_t row0 = at.row * L::kRows, column0 = at.column * L::kColumns;
  float c[L::TM][L::TN] = {};
  {
    const typename T::FeedA rows(a, InOrder{row0});
    const auto body = [&](const float* x, const float* y) { multiply<L, A::kAlong, B::kAlong>(x, y, c); };
    if constexpr (B::kAlong) {
      const typename T::FeedB columns(b, Fours<L>{column0});
      pipeline<kStages>(rows, columns, ring, at.from, at.to, kDepth, body);
    } else {
      const typename T::FeedB columns(b, InOrder{column0});
      pipeline<kStages>(rows, columns, ring, at.from, at.to, kDepth, body);
    }
  }
  constexpr int kEach = L::TM / T::kParts, kPart = L::kRows / T::kParts;
#pragma unroll
  for (int part = 0; part < T::kParts; ++part) {
    if (part > 0) barrier();
#pragma unroll
    for (int i = 0; i < kEach; ++i)
#pragma unroll
      for (int j = 0; j < L::TN; j += 4) {
        const float* const from = c[part * kEach + i] + j;
        put(ring + L::template row<A::kAlong>(i) * pitch(L::kColumns) + L::column(j),
            Pack<4>{{from[0], from[1], from[2], from[3]}});
      }
    barrier();
    deliver<L::kColumns>(cut, finish, ring, kPart, column0, [&](int r) { return row0 + part * kPart + r; });
  }
}

template <class W>
struct RoundedTile {
  using FeedA = Feed16<W::kRows>;
  using FeedB = Feed16<W::kColumns>;
  static constexpr int kRing = kMmaStages * (FeedA::kFloats + FeedB::kFloats), kOut = W::kRows / 2 * pitch(W::kColumns);
  static constexpr int kFloats = kRing > kOut ? kRing : kOut;
};

template <class W>
AFFUSE_GLOBAL(kThreads, 2) multiply_rounded(Rounded a, Rounded b, Cut cut, Finish finish) {
  using T = RoundedTile<W>;
  Shared shared;
  uint32_t* const ring = shared.take<uint32_t>(T::kFloats);
  float* const out = reinterpret_cast<float*>(ring);
  const Place at = place_of(cut);
  const int64_t row0 = at.row * W::kRows, column0 = at.column * W::kColumns;
  float c[W::MT][W::NT][4] = {};
  {
    const typename T::FeedA rows(a, row0);
    const typename T::FeedB columns(b, column0);
    pipeline<kMmaStages>(rows, columns, ring, at.from, at.to, kHalves / 2,
                         [&](const uint32_t* x, const uint32_t* y) { multiply16<W>(x, y, c); });
  }
  constexpr int kEach = W::MT / 2, kPart = W::kRows / 2;
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    if (part > 0) barrier();
#pragma unroll
    for (int m = 0; m < kEach; ++m)
#pragma unroll
      for (int n = 0; n < W::NT; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          out[((W::y() * kEach + m) * 16 + int(lane()) / 4 + e / 2 * 8) * pitch(W::kColumns) + (W::x() * W::NT + n) * 8 +
              int(lane()) % 4 * 2 + e % 2] = c[part * kEach + m][n][e];
    barrier();
    deliver<W::kColumns>(cut, finish, out, kPart, column0, [&](int r) {
      const int block = r / 16;  // fragments of 16 rows: kEach of every warp
      return row0 + (block / kEach * W::MT + part * kEach + block % kEach) * 16 + r % 16;
    });
  }
}

// The sums of all pieces of K, in order.
AFFUSE_GLOBAL(kThreads, 4) add_pieces(Cut cut, Finish finish, int pieces, int shift) {
  const int per_block = kThreads >> shift;
  const int64_t columns = cut.columns(), first = (int(threadIdx.x) & ((1 << shift) - 1)) * 4;
  const int64_t step = int64_t(gridDim.x) * per_block;
  for (int64_t row = int64_t(blockIdx.x) * per_block + (threadIdx.x >> shift); row < cut.M; row += step)
    for (int64_t column = first; column < cut.N; column += int64_t(4) << shift) {
      const float* from = cut.partial + row * columns + column;
      Pack<4> z = get<4>(from);
#pragma unroll 4
      for (int p = 1; p < pieces; ++p) z = z + get<4>(from += cut.M * columns);
      if (finish.wide && column + 4 <= cut.N) {
        finish(row, column, z);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (column + e < cut.N) finish(row, column + e, Pack<1>{{z.v[e]}});
      }
    }
}

// Rows [y * piece, (y + 1) * piece) of 32 columns: eight runs of rows, added up in order.
AFFUSE_GLOBAL(kThreads, 4) sum_columns(const float* g, int64_t rows, int64_t columns, int64_t piece, float* out, bool add) {
  Shared shared;
  float* const room = shared.take<float>(kThreads);
  const int64_t column = int64_t(blockIdx.x) * 32 + lane(), from = int64_t(blockIdx.y) * piece;
  const int64_t to = from + piece < rows ? from + piece : rows;
  float total = 0;
  if (column < columns) {
#pragma unroll 4
    for (int64_t r = from + warp(); r < to; r += kThreads / 32) total += g[r * columns + column];
  }
  room[threadIdx.x] = total;
  barrier();
  if (warp() != 0 || column >= columns) return;
#pragma unroll
  for (unsigned w = 1; w < kThreads / 32; ++w) total += room[w * 32 + lane()];
  float* const at = out + int64_t(blockIdx.y) * columns + column;
  *at = add ? *at + total : total;
}

using Large = Lanes<16, 16, 8, 8>;   // 128 x 128
using Middle = Lanes<16, 16, 4, 4>;  // 64 x 64
using Flat = Lanes<8, 32, 2, 4>;     // 16 x 128: few rows, a weight passes by
using LargeWarps = Warps<2, 4, 4, 4>;   // 128 x 128
using MiddleWarps = Warps<2, 4, 2, 2>;  // 64 x 64

// A tile's size and what it reaches of the multiply-add rate, an estimate that only has to rank them.
struct Way {
  int rows, columns;
  double share;
};
constexpr Way kExactWays[] = {
    {Large::kRows, Large::kColumns, 1.0}, {Middle::kRows, Middle::kColumns, 0.7}, {Flat::kRows, Flat::kColumns, 0.3}};
constexpr Way kRoundedWays[] = {
    {LargeWarps::kRows, LargeWarps::kColumns, 1.0}, {MiddleWarps::kRows, MiddleWarps::kColumns, 0.6}};

struct Plan {
  int way = 0, pieces = 1, piece = 0;
  double cycles = 0;
};

// The way that should take least time: rounds of blocks over the device, each a fixed cost and its multiply-adds; adding up.
Plan plan(Layout layout, int64_t M, int64_t N, int64_t K, bool bf16, int processors) {
  const int unit = bf16 ? kHalves : kDepth;
  const double rate = bf16 ? 1024 : 128;  // multiply-adds per cycle of a multiprocessor
  Plan best;
  // Few rows along K is what Flat can do.
  const int ways = bf16 ? 2 : layout == Layout::tn ? 2 : 3;
  for (int way = 0; way < ways; ++way) {
    const Way& w = bf16 ? kRoundedWays[way] : kExactWays[way];
    const double blocks = double(ceil_div(M, w.rows)) * double(ceil_div(N, w.columns));
    for (int64_t want = 1; want <= 64; want *= 2) {
      const int64_t piece = round_up(ceil_div(K, want), unit), pieces = piece ? ceil_div(K, piece) : 1;
      if (want > 1 && (pieces < want || piece < 8 * unit)) break;
      const double tile = 2500 + double(w.rows) * w.columns * double(piece) / (rate * w.share);
      const double rounds = double(ceil_div(int64_t(blocks) * pieces, processors));
      const double adding = pieces > 1 ? 5000 + double(M) * double(N) * double(pieces + 1) / (2.0 * processors) : 0;
      const double cycles = rounds * tile + adding;
      if (best.cycles == 0 || cycles < best.cycles) best = {way, int(pieces), int(piece), cycles};
    }
  }
  return best;
}

int64_t partial_floats(int64_t M, int64_t N, int pieces) { return pieces > 1 ? int64_t(pieces) * M * round_up(N, 4) : 0; }

template <class L, class A, class B>
void start_exact(Queue& queue, const A& a, const B& b, const Cut& cut, int pieces, const Finish& finish) {
  launch("multiply_exact", multiply_exact<L, A, B>, queue, Grid{cut.tile_rows * cut.tile_columns, pieces}, kThreads,
         SharedBytes().take<float>(ExactTile<L, A, B>::kFloats).bytes, a, b, cut, finish);
}
template <class A, class B>
void run_exact(Queue& queue, const A& a, const B& b, const Cut& cut, const Plan& p, const Finish& finish) {
  if (p.way == 0) return start_exact<Large>(queue, a, b, cut, p.pieces, finish);
  if constexpr (A::kAlong)
    if (p.way == 2) return start_exact<Flat>(queue, a, b, cut, p.pieces, finish);
  start_exact<Middle>(queue, a, b, cut, p.pieces, finish);
}
template <class W>
void start_rounded(Queue& queue, const Rounded& a, const Rounded& b, const Cut& cut, int pieces, const Finish& finish) {
  launch("multiply_rounded", multiply_rounded<W>, queue, Grid{cut.tile_rows * cut.tile_columns, pieces}, kThreads,
         SharedBytes().take<uint32_t>(RoundedTile<W>::kFloats).bytes, a, b, cut, finish);
}

template <class Operand>
Operand operand(const float* p, int64_t ld, int64_t lines, int64_t K) {
  return {p, ld, lines, int(K), aligned(p) && ld % 4 == 0};
}

}  // namespace

double product_cycles(Layout layout, int64_t M, int64_t N, int64_t K, bool bf16, int processors) {
  return plan(layout, M, N, K, bf16, processors).cycles;
}
int64_t product_floats(Layout layout, int64_t M, int64_t N, int64_t K, bool bf16, int processors) {
  Scratch room(nullptr);
  room.take(partial_floats(M, N, plan(layout, M, N, K, bf16, processors).pieces));
  if (bf16) room.take(M * rounded_words(K)), room.take(N * rounded_words(K));
  return room.floats();
}

void product(Queue& queue, const Product& p, float* workspace) {
  if (p.M == 0 || p.N == 0) return;
  if (p.K > (int64_t(1) << 31) - 256)
    return queue.status->fail("ERR_AFFUSE_SIZE", "expected a product over at most 2^31 - 256 elements on a device, got %lld",
                              (long long)p.K);
  const Plan way = plan(p.layout, p.M, p.N, p.K, p.bf16, queue.processors);
  Scratch room(workspace);
  float* const partial = room.take(partial_floats(p.M, p.N, way.pieces));
  const Way& tile = p.bf16 ? kRoundedWays[way.way] : kExactWays[way.way];
  Cut cut{p.M,      p.N,       ceil_div(p.M, tile.rows), ceil_div(p.N, tile.columns),
          int(p.K), way.piece, way.pieces > 1 ? partial : nullptr};
  const bool rows_along = p.layout != Layout::tn, columns_along = p.layout == Layout::nt;
  const auto plain_rows = operand<Plain>(p.rows, p.ld_rows, p.M, p.K);
  const auto plain_columns = operand<Plain>(p.columns, p.ld_columns, p.N, p.K);
  const auto rows_across = operand<Transposed>(p.rows, p.ld_rows, p.M, p.K);
  const auto columns_across = operand<Transposed>(p.columns, p.ld_columns, p.N, p.K);
  if (p.bf16) {
    float *const to_rows = room.take(p.M * rounded_words(p.K)), *const to_columns = room.take(p.N * rounded_words(p.K));
    const Rounded a = rows_along ? rounded(queue, plain_rows, to_rows) : rounded(queue, rows_across, to_rows);
    const Rounded b = columns_along ? rounded(queue, plain_columns, to_columns) : rounded(queue, columns_across, to_columns);
    cut.K = a.words, cut.piece = way.piece / 2;  // words
    if (way.way == 0) start_rounded<LargeWarps>(queue, a, b, cut, way.pieces, p.finish);
    else start_rounded<MiddleWarps>(queue, a, b, cut, way.pieces, p.finish);
  } else if (p.layout == Layout::nt) {
    run_exact(queue, plain_rows, plain_columns, cut, way, p.finish);
  } else if (p.layout == Layout::nn) {
    run_exact(queue, plain_rows, columns_across, cut, way, p.finish);
  } else {
    run_exact(queue, rows_across, columns_across, cut, way, p.finish);
  }
  if (way.pieces > 1) {
    const int shift = line_shift(cut.columns() / 4);
    const int64_t blocks = ceil_div(p.M, kThreads >> shift), most = int64_t(queue.processors) * 16;
    AFFUSE_LAUNCH(add_pieces, queue, Grid{blocks < most ? blocks : most}, kThreads, 0, cut, p.finish, way.pieces, shift);
  }
}

static int64_t sum_piece(int64_t rows, int64_t columns, int processors) {
  const int64_t blocks = ceil_div(columns, 32), want = ceil_div(int64_t(processors) * 4, blocks ? blocks : 1);
  const int64_t most = ceil_div(rows, 64), pieces = most < 1 ? 1 : want < most ? want : most;
  return ceil_div(rows, pieces);
}
int64_t column_sums_floats(int64_t rows, int64_t columns, int processors) {
  const int64_t piece = sum_piece(rows, columns, processors);
  return piece < rows ? round_up(ceil_div(rows, piece) * columns, 64) : 0;
}
void column_sums(Queue& queue, const float* g, int64_t rows, int64_t columns, float* out, bool add, float* workspace) {
  const int64_t piece = sum_piece(rows, columns, queue.processors), pieces = piece < rows ? ceil_div(rows, piece) : 1;
  const int64_t blocks = ceil_div(columns, 32);
  const size_t shared = SharedBytes().take<float>(kThreads).bytes;
  if (pieces == 1)
    return AFFUSE_LAUNCH(sum_columns, queue, Grid{blocks}, kThreads, shared, g, rows, columns, rows, out, add);
  AFFUSE_LAUNCH(sum_columns, queue, (Grid{blocks, pieces}), kThreads, shared, g, rows, columns, piece, workspace, false);
  AFFUSE_LAUNCH(sum_columns, queue, Grid{blocks}, kThreads, shared, workspace, pieces, columns, pieces, out, add);
}

}  // namespace affuse::cuda::gemm
