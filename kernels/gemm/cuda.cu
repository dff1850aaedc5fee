// The compiled products of cuda/product.h: tiles of three sizes by three layouts in float32 and, for few rows, in bf16 out
// of float32; of two sizes in bf16 that was rounded before; of one size by three layouts in tf32. A block is a tile of C and a piece of K. Tiles go in groups of
// eight tile rows, so that blocks that run together read the same columns.
#include "cuda/operands.h"
#include "cuda/product.h"
#include "cuda/units.h"

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

// Four sums of a tile to where they belong.
struct Delivery {
  const Cut& cut;
  const Finish& finish;
  AFFUSE_DEVICE void operator()(int64_t row, int64_t column, const Pack<4>& z) const {
    if (row >= cut.M || column >= cut.N) return;
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
};

// Columns along K stand in shared memory as their multiplication wants them.
template <class Unit>
struct ColumnOrder {
  using Type = InOrder;
};
template <class L>
struct ColumnOrder<ExactUnit<L, true, true>> {
  using Type = Fours<L>;
};

// Operands in float32. Small tiles leave room for three blocks.
template <class Unit, class A, class B>
AFFUSE_GLOBAL(kThreads, Unit::kRows * Unit::kColumns < 128 * 128 ? 3 : 2) multiply_plain(A a, B b, Cut cut, Finish finish) {
  using FeedA = Feed<A, Unit::kRows, Unit::kPitch>;
  using FeedB = Feed<B, Unit::kColumns, Unit::kPitch>;
  Shared shared;
  float* const ring = shared.take<float>(tile_words<Unit, FeedA, FeedB>());
  const Place at = place_of(cut);
  const int64_t row0 = at.row * Unit::kRows, column0 = at.column * Unit::kColumns;
  using Order = typename ColumnOrder<Unit>::Type;
  multiply_tile<Unit>(FeedA(a, InOrder{row0}), FeedB(b, Order{column0}), row0, column0, at.from, at.to, ring,
                      Delivery{cut, finish});
}

template <class W>
AFFUSE_GLOBAL(kThreads, 2) multiply_rounded(Rounded a, Rounded b, Cut cut, Finish finish) {
  using FeedA = Feed16<W::kRows>;
  using FeedB = Feed16<W::kColumns>;
  Shared shared;
  uint32_t* const ring = shared.take<uint32_t>(tile_words<RoundedUnit<W>, FeedA, FeedB>());
  const Place at = place_of(cut);
  const int64_t row0 = at.row * W::kRows, column0 = at.column * W::kColumns;
  multiply_tile<RoundedUnit<W>>(FeedA(a, row0), FeedB(b, column0), row0, column0, at.from, at.to, ring,
                                Delivery{cut, finish});
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

template <bool a_along, bool b_along>
struct Exact {
  using Large = ExactUnit<Lanes<16, 16, 8, 8>, a_along, b_along>;   // 128 x 128
  using Middle = ExactUnit<Lanes<16, 16, 4, 4>, a_along, b_along>;  // 64 x 64
  using Flat = ExactUnit<Lanes<8, 32, 2, 4>, a_along, b_along>;     // 16 x 128: few rows, a weight passes by
};
template <bool a_along, bool b_along>
struct Reduced {
  using Large = RoundingUnit<Warps<2, 4, 4, 4>, a_along, b_along>;
  using Middle = RoundingUnit<Warps<2, 4, 2, 2>, a_along, b_along>;
  using Flat = RoundingUnit<Warps<1, 8, 1, 2>, a_along, b_along>;
};
using LargeWarps = Warps<2, 4, 4, 4>;
using MiddleWarps = Warps<2, 4, 2, 2>;

// A tile's size and what it reaches of the multiply-add rate, an estimate that only has to rank them.
struct Way {
  int rows, columns;
  double share;
};
constexpr Way kExactWays[] = {{128, 128, 1.0}, {64, 64, 0.7}, {16, 128, 0.3}};
constexpr Way kRoundedWays[] = {{128, 128, 1.0}, {64, 64, 0.6}};
constexpr Way kTf32Ways[] = {{128, 128, 0.7}};
constexpr Way kRoundingWays[] = {{128, 128, 0.6}, {64, 64, 0.3}, {16, 128, 0.2}};  // bound by shared memory

// How a product is computed, beside its sizes. Rounding beforehand reads 4 bytes of an operand and writes 2, which pays when
// they are read often; a batch of few rows reads the weights once or twice.
enum class Kind { exact, rounded, rounding, tf32 };
Kind kind_of(Layout layout, int64_t M, int64_t K, Rounding rounding) {
  constexpr int64_t kFewRows = 256;
  if (rounding != Rounding::bf16) return rounding == Rounding::tf32 ? Kind::tf32 : Kind::exact;
  return (layout == Layout::tn ? K : M) > kFewRows ? Kind::rounded : Kind::rounding;
}
const Way* ways_of(Kind kind) {
  switch (kind) {
    case Kind::rounded: return kRoundedWays;
    case Kind::rounding: return kRoundingWays;
    case Kind::tf32: return kTf32Ways;
    default: return kExactWays;
  }
}

struct Plan {
  Kind kind = Kind::exact;
  int way = 0, pieces = 1, piece = 0;
  double cycles = 0;
};

// The way that should take least time: rounds of blocks over the device, each a fixed cost and its multiply-adds; adding up.
void consider(Plan& best, Kind kind, Layout layout, int64_t M, int64_t N, int64_t K, int processors) {
  const int unit = kind == Kind::rounded ? kHalves : kDepth;
  const double rate = kind == Kind::exact ? 128 : kind == Kind::tf32 ? 512 : 1024;  // multiply-adds per cycle of a processor
  const double before = kind == Kind::rounded ? rounding_cycles(M * K, processors) + rounding_cycles(N * K, processors) : 0;
  // Few rows along K is what Flat can do.
  const int ways = kind == Kind::tf32 ? 1 : kind == Kind::rounded || layout == Layout::tn ? 2 : 3;
  for (int way = 0; way < ways; ++way) {
    const Way& w = ways_of(kind)[way];
    const double blocks = double(ceil_div(M, w.rows)) * double(ceil_div(N, w.columns));
    for (int64_t want = 1; want <= 64; want *= 2) {
      const int64_t piece = round_up(ceil_div(K, want), unit), pieces = piece ? ceil_div(K, piece) : 1;
      if (want > 1 && (pieces < want || piece < 8 * unit)) break;
      const double tile = 2500 + double(w.rows) * w.columns * double(piece) / (rate * w.share);
      const double rounds = double(ceil_div(int64_t(blocks) * pieces, processors));
      const double adding = pieces > 1 ? 5000 + double(M) * double(N) * double(pieces + 1) / (2.0 * processors) : 0;
      const double cycles = before + rounds * tile + adding;
      if (best.cycles == 0 || cycles < best.cycles) best = {kind, way, int(pieces), int(piece), cycles};
    }
  }
}
Plan plan(Layout layout, int64_t M, int64_t N, int64_t K, Rounding rounding, int processors) {
  Plan best;
  const Kind kind = kind_of(layout, M, K, rounding);
  consider(best, kind, layout, M, N, K, processors);
  if (kind == Kind::tf32) consider(best, Kind::exact, layout, M, N, K, processors);
  return best;
}

int64_t partial_floats(int64_t M, int64_t N, int pieces) { return pieces > 1 ? int64_t(pieces) * M * round_up(N, 4) : 0; }

template <class Unit, class A, class B>
void start_plain(Queue& queue, const A& a, const B& b, const Cut& cut, int pieces, const Finish& finish) {
  using FeedA = Feed<A, Unit::kRows, Unit::kPitch>;
  using FeedB = Feed<B, Unit::kColumns, Unit::kPitch>;
  launch("multiply_plain", multiply_plain<Unit, A, B>, queue, Grid{cut.tile_rows * cut.tile_columns, pieces}, kThreads,
         SharedBytes().take<float>(tile_words<Unit, FeedA, FeedB>()).bytes, a, b, cut, finish);
}
template <template <bool, bool> class Units, class A, class B>
void run_units(Queue& queue, const A& a, const B& b, const Cut& cut, const Plan& p, const Finish& finish) {
  using U = Units<A::kAlong, B::kAlong>;
  if (p.way == 0) return start_plain<typename U::Large>(queue, a, b, cut, p.pieces, finish);
  if constexpr (A::kAlong)
    if (p.way == 2) return start_plain<typename U::Flat>(queue, a, b, cut, p.pieces, finish);
  start_plain<typename U::Middle>(queue, a, b, cut, p.pieces, finish);
}
template <class A, class B>
void run_plain(Queue& queue, const A& a, const B& b, const Cut& cut, const Plan& p, const Finish& finish) {
  using Tf32Unit = RoundingUnit<LargeWarps, A::kAlong, B::kAlong, Tf32>;
  if (p.kind == Kind::tf32) start_plain<Tf32Unit>(queue, a, b, cut, p.pieces, finish);
  else if (p.kind == Kind::exact) run_units<Exact>(queue, a, b, cut, p, finish);
  else run_units<Reduced>(queue, a, b, cut, p, finish);
}
template <class W>
void start_rounded(Queue& queue, const Rounded& a, const Rounded& b, const Cut& cut, int pieces, const Finish& finish) {
  const unsigned words = tile_words<RoundedUnit<W>, Feed16<W::kRows>, Feed16<W::kColumns>>();
  launch("multiply_rounded", multiply_rounded<W>, queue, Grid{cut.tile_rows * cut.tile_columns, pieces}, kThreads,
         SharedBytes().take<uint32_t>(words).bytes, a, b, cut, finish);
}

template <class Operand>
Operand operand(const float* p, int64_t ld, int64_t lines, int64_t K) {
  return {p, ld, lines, int(K), aligned(p) && ld % 4 == 0};
}

}  // namespace

// 4 bytes of an element read, 2 written, about 14 bytes a cycle for a multiprocessor; and a launch.
double rounding_cycles(int64_t elements, int processors) { return 4000 + double(elements) * 6 / (14.0 * processors); }
double product_cycles(Layout layout, int64_t M, int64_t N, int64_t K, Rounding rounding, int processors) {
  return plan(layout, M, N, K, rounding, processors).cycles;
}
int64_t product_floats(Layout layout, int64_t M, int64_t N, int64_t K, Rounding rounding, int processors) {
  const Plan way = plan(layout, M, N, K, rounding, processors);
  Scratch room(nullptr);
  room.take(partial_floats(M, N, way.pieces));
  if (way.kind == Kind::rounded) room.take(M * rounded_words(K)), room.take(N * rounded_words(K));
  return room.floats();
}

void product(Queue& queue, const Product& p, float* workspace) {
  if (p.M == 0 || p.N == 0) return;
  if (p.K > (int64_t(1) << 31) - 256)
    return queue.status->fail("ERR_AFFUSE_SIZE", "expected a product over at most 2^31 - 256 elements on a device, got %lld",
                              (long long)p.K);
  const Plan way = plan(p.layout, p.M, p.N, p.K, p.rounding, queue.processors);
  Scratch room(workspace);
  float* const partial = room.take(partial_floats(p.M, p.N, way.pieces));
  const Way& tile = ways_of(way.kind)[way.way];
  Cut cut{p.M,      p.N,       ceil_div(p.M, tile.rows), ceil_div(p.N, tile.columns),
          int(p.K), way.piece, way.pieces > 1 ? partial : nullptr};
  const bool rows_along = p.layout != Layout::tn, columns_along = p.layout == Layout::nt;
  const auto plain_rows = operand<Plain>(p.rows, p.ld_rows, p.M, p.K);
  const auto plain_columns = operand<Plain>(p.columns, p.ld_columns, p.N, p.K);
  const auto rows_across = operand<Transposed>(p.rows, p.ld_rows, p.M, p.K);
  const auto columns_across = operand<Transposed>(p.columns, p.ld_columns, p.N, p.K);
  if (way.kind == Kind::rounded) {
    float *const to_rows = room.take(p.M * rounded_words(p.K)), *const to_columns = room.take(p.N * rounded_words(p.K));
    const Rounded a = rows_along ? rounded(queue, plain_rows, to_rows) : rounded(queue, rows_across, to_rows);
    const Rounded b = columns_along ? rounded(queue, plain_columns, to_columns) : rounded(queue, columns_across, to_columns);
    cut.K = a.words, cut.piece = way.piece / 2;  // words
    if (way.way == 0) start_rounded<LargeWarps>(queue, a, b, cut, way.pieces, p.finish);
    else start_rounded<MiddleWarps>(queue, a, b, cut, way.pieces, p.finish);
  } else if (p.layout == Layout::nt) {
    run_plain(queue, plain_rows, plain_columns, cut, way, p.finish);
  } else if (p.layout == Layout::nn) {
    run_plain(queue, plain_rows, columns_across, cut, way, p.finish);
  } else {
    run_plain(queue, rows_across, columns_across, cut, way, p.finish);
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
