// Where afg's kernels keep what in their workspace. Sizes are bounds for every possible set of valid frames: how many there
// are is known only when the data is.
#pragma once
#include "afg.h"

namespace affuse {
namespace {

// Hands out 64-byte aligned pieces of one allocation; with base == nullptr it only measures.
struct Carver {
  char* base;
  size_t used = 0;
  template <class T>
  AFFUSE_INLINE T* take(int64_t count) {
    T* piece = base ? reinterpret_cast<T*>(base + used) : nullptr;
    used += (size_t(count) * sizeof(T) + 63) / 64 * 64;
    return piece;
  }
};

// The valid frames of all samples, one after another.
struct FrameList {
  const float** row;   // features
  int32_t* frame;      // t
  int32_t* sample;     // b
  int64_t* first;      // [B+1]: sample b has entries first[b] … first[b+1]-1
};

AFFUSE_INLINE FrameList carve_frames(Carver& carver, const AfgSize& n) {
  FrameList list;
  list.row = carver.take<const float*>(n.B * n.T);
  list.frame = carver.take<int32_t>(n.B * n.T);
  list.sample = carver.take<int32_t>(n.B * n.T);
  list.first = carver.take<int64_t>(n.B + 1);
  return list;
}

constexpr int kMostLanes = 16;  // of any ISA level: the sizes do not depend on the level

// How the forward cuts the list of valid frames: blocks of nearly equal height. A block's packed rows (about 230 KB) leave
// room in a megabyte of L2 for two panels of W and the rows of the next block.
struct ForwardPlan {
  int64_t blocks, block_rows;  // the last block may be shorter
  int64_t piece;               // D per pass over the tiles
  bool cut;                    // piece < D
};
constexpr int kForwardRows = 84;  // most rows of a block

AFFUSE_INLINE ForwardPlan forward_plan(int64_t count, int64_t D) {
  ForwardPlan p;
  const int64_t rows = gemm::min64(kForwardRows, gemm::max64(28, 57344 / D / 14 * 14));
  p.blocks = gemm::max64(1, gemm::ceil_div(count, rows));
  p.block_rows = gemm::max64(1, gemm::ceil_div(count, p.blocks));
  p.piece = D <= gemm::kWholeK ? D : gemm::kCutK;
  p.cut = p.piece < D;
  return p;
}

struct ForwardScratch {
  FrameList list;
  float* packed;         // W in panels, unless it came packed
  float* silent;         // [A] tanh(b): the key of a frame of zeros
  float *peak, *total;   // [blocks + B][J]: per segment the largest score and Σ exp(score − peak)
  float* partial;        // [2 blocks][J][D]: Σ exp(score − peak) x of segments that are only a part of their sample
  float* scores;         // per worker [J][kForwardRows]
  float* products;       // per worker [kForwardRows][J][lanes]: a row's products with the queries, not yet added across
  float* rows;           // per worker: a block's rows as the micro kernel reads them
  float* rounded;        // per worker: the same as bf16 operands; the weighted sum takes the exact ones
  float* sums;           // per worker: a tile of W x, or the whole block's when D is cut
  int64_t worker_rows, worker_rounded, worker_sums;  // floats of one worker
};

AFFUSE_INLINE ForwardScratch carve_forward(Carver& carver, const AfgSize& n, int workers, bool bf16) {
  // Fewer valid frames than B·T make no more blocks, and no higher ones.
  const ForwardPlan most = forward_plan(n.B * n.T, n.D);
  const int64_t height = gemm::min64(n.B * n.T, kForwardRows);
  ForwardScratch s;
  s.list = carve_frames(carver, n);
  s.packed = carver.take<float>(afg_packed_floats(n, n.A, n.D, bf16));
  s.silent = carver.take<float>(n.A);
  s.peak = carver.take<float>((most.blocks + n.B) * n.J);
  s.total = carver.take<float>((most.blocks + n.B) * n.J);
  s.partial = carver.take<float>(2 * most.blocks * n.J * n.D);
  s.scores = carver.take<float>(workers * n.J * kForwardRows);
  s.products = carver.take<float>(workers * n.J * kForwardRows * kMostLanes);
  s.worker_rows = height * gemm::round_up(n.D, 16);
  s.worker_sums = most.cut ? gemm::round_up(height * gemm::round_up(n.A, gemm::kColumnUnit), 16) : 16 * gemm::kColumnUnit;
  s.rows = carver.take<float>(workers * s.worker_rows);
  s.worker_rounded = bf16 ? gemm::round_up(height * gemm::even(n.D), 16) : 0;
  s.rounded = carver.take<float>(workers * s.worker_rounded);
  s.sums = carver.take<float>(workers * s.worker_sums);
  return s;
}

// What a backward call has to do.
struct BackwardPlan {
  bool keys;      // compute k again
  bool pre;       // p̄ is needed (dW or db)
  bool project;   // dW
  bool features;  // dx
};

template <class Descs>
AFFUSE_INLINE BackwardPlan backward_plan(const Descs* in, const Descs* out) {
  const auto wanted = [&](int i) { return !out || out[i].dtype != DType::none; };
  BackwardPlan p;
  p.keys = in[kAfgK].dtype == DType::none;
  p.project = wanted(kAfgDW);
  p.features = wanted(kAfgDx);
  p.pre = p.project || wanted(kAfgDb);
  return p;
}

// The sums over frames (dW, db, du, dq) run in spans of the list of valid frames, one chain of additions each; the spans are
// added up in their order.
constexpr int kMostSpans = 8;
constexpr int64_t kSpanChunk = 128;  // frames at a time: their features and p̄ lie packed in the cache
AFFUSE_INLINE int64_t span_count(int64_t frames) {
  return frames < 1024 ? 1 : frames < 8192 ? 2 : frames < 16384 ? 4 : kMostSpans;
}

// dx: most frames of a task. Their packed p̄ takes a quarter of a megabyte.
AFFUSE_INLINE int64_t feature_block(int64_t A) { return gemm::min64(224, gemm::max64(28, 57344 / A / 14 * 14)); }

struct BackwardScratch {
  FrameList list;
  float* packed_keys;      // W in panels for W x
  float* packed_features;  // W in panels for Wᵀ p̄, unless it came packed
  float* silent;           // [A] tanh(b)
  float* keys;             // [frames][A], when k was not saved
  float *share, *slope;    // [frames][J] α and ᾱ
  float *mean, *quiet;     // [B][J] Σ α ᾱ; Σ of s̄ over the padding
  float *part_db, *part_du;  // [spans][A]
  float* part_dq;            // [spans][J][A]: of the sample that a span begins in the middle of
  float* part_dW;            // [spans][A · columns] in panels
  float* panels;             // per worker: the features of this chunk and of the next
  float* tiles;              // per worker: p̄ of a chunk
  float *feature_rows, *sums;  // per worker: p̄ of a block of dx, a tile of p̄ W
  int64_t columns;             // D in whole panels
  int64_t worker_panels, worker_tiles, worker_features;  // floats of one worker
  float* gemm;                 // for k
};

AFFUSE_INLINE BackwardScratch carve_backward(Carver& carver, const AfgSize& n, int workers, const BackwardPlan& plan,
                                             bool bf16) {
  const int64_t depth = bf16 ? gemm::even(n.D) : n.D, keys = bf16 ? gemm::even(n.A) : n.A;  // K of W x and of p̄ W
  const int64_t frames = n.B * n.T, spans = span_count(frames), chunk = gemm::min64(frames, kSpanChunk);
  BackwardScratch s;
  s.list = carve_frames(carver, n);
  s.packed_keys = carver.take<float>(plan.keys ? afg_packed_floats(n, n.A, n.D, bf16) : 0);
  s.packed_features = carver.take<float>(plan.features ? afg_packed_floats(n, n.D, n.A, bf16) : 0);
  s.silent = carver.take<float>(n.A);
  s.keys = carver.take<float>(plan.keys ? frames * n.A : 0);
  s.share = carver.take<float>(frames * n.J);
  s.slope = carver.take<float>(frames * n.J);
  s.mean = carver.take<float>(n.B * n.J);
  s.quiet = carver.take<float>(n.B * n.J);
  s.part_db = carver.take<float>(spans * n.A);
  s.part_du = carver.take<float>(spans * n.A);
  s.part_dq = carver.take<float>(spans * n.J * n.A);
  s.columns = gemm::round_up(n.D, gemm::kColumnUnit);
  s.worker_panels = plan.project ? 2 * gemm::round_up(chunk * s.columns, 16) : 0;
  s.worker_tiles = plan.project ? gemm::round_up(chunk * n.A, 16) : 0;
  s.part_dW = carver.take<float>(plan.project ? spans * n.A * s.columns : 0);
  s.panels = carver.take<float>(workers * s.worker_panels);
  s.tiles = carver.take<float>(workers * s.worker_tiles);
  s.worker_features = plan.features ? gemm::round_up(gemm::min64(frames, feature_block(n.A)) * keys, 16) : 0;
  s.feature_rows = carver.take<float>(workers * s.worker_features);
  s.sums = carver.take<float>(plan.features ? workers * 16 * gemm::kColumnUnit : 0);
  s.gemm = carver.take<float>(plan.keys ? gemm::workspace_floats_upto(frames, n.A, depth, workers, gemm::Split::any) : 0);
  return s;
}

}  // namespace
}  // namespace affuse
