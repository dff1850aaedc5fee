// The matrix core that linear, FBP, AFG and convolution share.
//
//   C[i,n] = sum_k rows(i,k) * columns(k,n)          i < M, n < N, k < K, float32
//
// - `rows` come through a loader (PlainRows, TransposedRows, IndirectRows or your own): it copies a block of rows into the
//   order the micro kernel reads. Only the rows a loader is asked for are touched.
// - `columns` are packed panels (pack_columns), made once per weight and kept, or a second loader (stream(), for products
//   whose K is the long dimension, such as dW = dy^T x).
// - what happens to a finished piece of C is an epilogue: a struct whose tile() gets the sums while they sit in the L1
//   cache. C itself is never stored unless the epilogue does so.
//
// Design, with figures in percent of the multiply-add roof of one AVX-512 core (L1 32 KB, L2 1 MB):
// - Register tile 14 x 2 vectors, rows packed per tile, the whole K (or pieces of about 1024) in one go: 97 with packed
//   operands from L2. Rejected: 9 x 3 (97, but no better at any height), 7 x 4 (91: no register left for the broadcast), 5 x
//   5 with rows broadcast as they lie (89; 14 x 2 so: 56 where rows are 4 KB apart and fall into one cache set).
// - A panel streams from L2 to L1 by fetches 8 rows ahead, the one after it comes into L2 meanwhile, one line of every pair
//   (the hardware brings the other; asking for both takes the fill buffers away from the loads).
// - Rows are packed by the task that needs them, which keeps them for the next one: packed ahead in a pass of their own they
//   go through memory twice more (`affuse bench --filter linear/M=1024`: 86 so, 90 without).
// - Few columns: for up to 144 of them rows are read as they lie, because copying them would cost more; the last kLanes/2 or
//   fewer of many are multiplied with vectors along the packed rows, all tiles of a block at once.
// - One row (weights stream from L3) reaches the bandwidth of a plain summing loop: the memory decides, not the tile.
// - Block sizes leave half of a 1 MB L2 free and mostly fit 512 KB: 84 rows of 1024 are 344 KB, stream()'s columns 196 to
//   393 KB.
//
// Every element is one chain of fused multiply-adds in ascending k (baseline: multiply, then add), whatever the blocking,
// the partition or the number of threads: results do not depend on them, bit for bit. Error of an element:
// <= (K+1) 2^-24 sum_k |rows||columns|, typically sqrt(K) instead of K.
//
// Example: y = tanh(x W^T + b), x [M,K], W [N,K], in a cpu.cc:
//
//   struct TanhBias : gemm::Epilogue {
//     const float* b; float* y; int64_t N;
//     AFFUSE_INLINE void tile(const gemm::Tile& t, int) const {
//       for (int r = 0; r < t.rows; ++r)
//         for_lanes(t.cols, [&](int64_t c, int n) {
//           const Vec z = load(t.acc + r * gemm::kTileStride + c) + load(b + t.col + c, n);
//           store(y + (t.row + r) * N + t.col + c, tanh(z), n);
//         });
//     }
//   };
//   // op.cc:  workspace = gemm::workspace_floats(M, N, K, workers, Split::any) * 4, and, unless the weight came packed,
//   //         gemm::packed_floats(N, K) * 4 more. Both are multiples of 16 floats, so pieces stay 64-byte aligned.
//   gemm::pack_columns(W, K, N, K, gemm::Layout::nk, packed, *call.workers);
//   gemm::run(*call.workers, M, N, K, gemm::PlainRows{x, K}, packed, TanhBias{…}, scratch, Split::any);
//   // or, for a weight that nobody packed: gemm::run_unpacked(…, W, K, …) with gemm::unpacked_workspace_floats, which packs
//   // panels on the way if there are few rows and the whole weight if there are many.
//
// An epilogue that reduces along a row (a score, a norm) asks for Split::rows: then one task owns whole rows; it calls
// begin(row, rows, worker), then tile() with ascending columns for each row tile, then end(row, rows, worker).
#pragma once
#include "../common/op.h"

namespace affuse::gemm {

enum class Split : int { any, rows };
enum class Layout : int { nk, kn };  // of an unpacked weight: [N,K] (a Linear's W for y = x W^T) or [K,N] (W for dx = dy W)

constexpr int kColumnUnit = 32;    // column blocks of tasks are multiples of this on every level
constexpr int kBlockRows = 84;     // most rows of a task in run(): a multiple of every level's tile height
constexpr int64_t kWholeK = 1280;  // up to here K is not cut
constexpr int64_t kCutK = 1024;    // and beyond into pieces of at most this
constexpr int64_t kKeptK = 4096;   // up to here a worker keeps packed rows of the whole K
constexpr int64_t kFreshK = 2048;  // longest panel that run_unpacked() packs on the way, for many rows

// Internal linkage on purpose: the linker could give every level the AVX-512 copy of a shared inline function.
static constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
static constexpr int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static constexpr int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

// Equal pieces of at most kCutK for a K beyond kWholeK.
static constexpr int64_t piece_of(int64_t K) { return K <= kWholeK ? K : round_up(ceil_div(K, ceil_div(K, kCutK)), 16); }

// Floats of a packed [N,K] weight. The same on every level, though the layout is not: a packed weight is for this process
// only.
static constexpr int64_t packed_floats(int64_t N, int64_t K) { return round_up(round_up(N, 16) * K, 16); }

// Keys for OpDef::pack_key: the layouts that pack_columns makes from a [rows, cols] matrix in memory.
constexpr const char* kKeyNk = "gemm.nk";
constexpr const char* kKeyKn = "gemm.kn";

// How the work is cut into tasks: by shape only.
struct Plan {
  int64_t row_blocks, block_rows;  // the last block may be shorter
  int64_t col_blocks, block_cols;  // multiple of kColumnUnit
  int64_t piece;                   // K per pass over the tiles
  int64_t kept;                    // K of the packed rows that a worker keeps: all of it if its next task may need them
  int64_t sums;                    // floats of accumulators of one worker: one panel's, or all of a task's when K is cut
};

static constexpr Plan plan(int64_t M, int64_t N, int64_t K, Split split) {
  Plan p{};
  p.row_blocks = max64(1, ceil_div(M, kBlockRows));
  p.block_rows = max64(1, ceil_div(M, p.row_blocks));
  const int64_t units = max64(1, ceil_div(N, kColumnUnit));
  int64_t want = 1;
  if (split == Split::any && p.row_blocks < 32) {  // as many tasks for every thread, at most one less
    const int64_t by_work = max64(1, int64_t(double(M) * double(N) * double(K) / 524288.0) / p.row_blocks);
    want = min64(min64(max64(2, ceil_div(16, p.row_blocks)), by_work), units);
  }
  p.block_cols = ceil_div(units, want) * kColumnUnit;
  p.col_blocks = max64(1, ceil_div(N, p.block_cols));
  p.piece = piece_of(K);
  p.kept = p.col_blocks > 1 && K <= kKeptK ? K : p.piece;
  p.sums = round_up(p.block_rows * (p.piece < K ? p.block_cols : kColumnUnit), 16);
  return p;
}

// Scratch of run(), of one worker (which rows it holds, sums, packed rows and what may be read past them) and altogether, in
// floats.
static constexpr int64_t worker_floats(const Plan& p) { return 32 + p.sums + round_up(p.block_rows * p.kept, 16); }
static constexpr int64_t workspace_floats(int64_t M, int64_t N, int64_t K, int workers, Split split) {
  return workers * worker_floats(plan(M, N, K, split));
}
// The most that any number of rows up to M needs: for rows that are counted only once the data is there.
static constexpr int64_t workspace_floats_upto(int64_t M, int64_t N, int64_t K, int workers, Split split) {
  const int64_t rows = min64(M, kBlockRows), piece = piece_of(K);
  const int64_t sums = round_up(rows * (piece < K ? round_up(N, kColumnUnit) : kColumnUnit), 16);
  const int64_t kept = split == Split::any && K <= kKeptK ? K : piece;
  return workers * (32 + sums + round_up(rows * kept, 16));
}

// run_unpacked() with few rows: tasks are column blocks, all rows are packed ahead.
// A weight that meets few rows is not worth writing to memory once more (1 row, 4096 x 4096: 23 to 14 ms).
static constexpr bool fresh_panels(int64_t M, int64_t K) {
  return M <= 16 * kBlockRows && K <= (M <= kBlockRows ? 4 : 1) * kFreshK;
}
struct FreshPlan {
  int64_t row_blocks, block_rows, col_blocks, block_cols;
  int64_t worker;  // floats of one worker: sums and a panel
};
static constexpr FreshPlan fresh_plan(int64_t M, int64_t N, int64_t K) {
  FreshPlan p{};
  p.row_blocks = max64(1, ceil_div(M, kBlockRows));
  p.block_rows = max64(1, ceil_div(M, p.row_blocks));
  const int64_t units = max64(1, ceil_div(N, kColumnUnit));
  const int64_t by_work = max64(1, int64_t(double(M) * double(N) * double(K) / 524288.0));
  p.block_cols = ceil_div(units, min64(min64(16, by_work), units)) * kColumnUnit;
  p.col_blocks = max64(1, ceil_div(N, p.block_cols));
  p.worker = round_up(p.block_rows * kColumnUnit, 16) + kColumnUnit * round_up(K, 16);
  return p;
}
static constexpr int64_t unpacked_workspace_floats(int64_t M, int64_t N, int64_t K, int workers) {
  if (!fresh_panels(M, K)) return packed_floats(N, K) + workspace_floats(M, N, K, workers, Split::any);
  return round_up(M * K, 16) + workers * fresh_plan(M, N, K).worker;
}

}  // namespace affuse::gemm

#if defined(AFFUSE_ISA)
#include "core.h"
#endif
#include "stream.h"
