// How an FBP call is cut into tasks and where its scratch memory lies. Everything follows from shapes; internal linkage, as
// cpu.cc files are compiled once per ISA level.
#pragma once
#include "fbp.h"

namespace affuse {

// Packed projections for the fused pass: vectors of outputs, factor after factor, so that the sum over k is between
// registers. Vector q = block * k + j holds row (block * lanes + lane) * k + j of U in lane `lane`, zeros beyond the last
// output. width: em or en. Pairs of bf16 take half of it.
static constexpr int64_t fbp_packed_floats(const FbpSizes& z, int64_t width) {
  return gemm::round_up(z.o, 16) * z.k * (z.pairs ? width / 2 : width);
}

// Rows of v go in strips of at most kFbpRows that hold whole groups or lie within one; up to kFbpStrips strips are packed
// ahead together. A task is a share of them times a block of outputs. It goes by groups of panels: one strip's rows, a piece
// of K at a time, stay in L2 while the group's panels pass; then the next strip meets the same panels, which L3 still holds.
// So weights come from memory once and rows are re-read once per group (B = 256 of 1024 + 2048 columns: 3 MB in 4 panels'
// time).
constexpr int64_t kFbpRows = 336;
constexpr int64_t kFbpStrips = 16;
constexpr int64_t kFbpColumnUnit = 32;

struct FbpPlan {
  int64_t strips, strip_rows;         // the last strip (of a group, if groups are longer than a strip) may be shorter
  int64_t strips_per_group;           // > 1: groups longer than a strip
  int64_t a_rows;                     // rows of a that a strip needs, at most
  int64_t strip_tasks, task_strips;   // shares of kFbpStrips strips
  int64_t col_blocks, block_outputs;  // multiple of 32 outputs
  int64_t piece_m, piece_n;           // K per pass
  int64_t panels;                     // of a group
};

// K per pass for a strip's rows: they take half of a 1 MB L2 at most.
static constexpr int64_t fbp_piece(int64_t rows, int64_t E) {
  if (rows <= gemm::kBlockRows) return gemm::piece_of(E);
  const int64_t longest = 131072 / rows;
  return E <= longest + longest / 4 ? E : gemm::round_up(gemm::ceil_div(E, gemm::ceil_div(E, longest)), 16);
}

static constexpr FbpPlan fbp_plan(const FbpSizes& z) {
  FbpPlan p{};
  if (z.group <= kFbpRows) {
    const int64_t most = kFbpRows / z.group;  // groups per strip
    p.strips = gemm::max64(1, gemm::ceil_div(z.A, most));
    p.a_rows = gemm::max64(1, gemm::ceil_div(z.A, p.strips));
    p.strip_rows = p.a_rows * z.group;
    p.strips = gemm::max64(1, gemm::ceil_div(z.A, p.a_rows));
    p.strips_per_group = 1;
  } else {
    p.strips_per_group = gemm::ceil_div(z.group, kFbpRows);
    p.strip_rows = gemm::ceil_div(z.group, p.strips_per_group);
    p.strips_per_group = gemm::ceil_div(z.group, p.strip_rows);
    p.a_rows = 1;
    p.strips = z.A * p.strips_per_group;
  }
  const int64_t units = gemm::max64(1, gemm::ceil_div(z.o, kFbpColumnUnit)), together = gemm::min64(kFbpStrips, p.strips);
  const double work = (double(z.A) * double(z.m) + double(z.B) * double(z.n)) * double(z.P);
  const int64_t want = gemm::min64(16, 1 + int64_t(work / 524288.0));
  p.block_outputs = gemm::ceil_div(units, gemm::min64(want, units)) * kFbpColumnUnit;
  p.col_blocks = gemm::max64(1, gemm::ceil_div(z.o, p.block_outputs));
  p.task_strips = gemm::ceil_div(together, gemm::min64(together, gemm::ceil_div(want, p.col_blocks)));
  p.strip_tasks = gemm::ceil_div(together, p.task_strips);
  const int64_t whole = z.k % 2 ? z.k : z.k / 2;  // panels that hold whole outputs: what is kept is written in one go
  p.panels = p.strip_rows <= gemm::kBlockRows ? 8 : 4;
  if (whole <= 8) p.panels = gemm::round_up(p.panels, whole);
  p.piece_m = fbp_piece(p.a_rows, z.em);
  p.piece_n = fbp_piece(p.strip_rows, z.en);
  return p;
}

struct FbpStrip {
  int64_t row, rows, a_row, a_rows;
};
static constexpr FbpStrip fbp_strip(const FbpSizes& z, const FbpPlan& p, int64_t index) {
  if (p.strips_per_group > 1) {
    const int64_t g = index / p.strips_per_group, first = (index % p.strips_per_group) * p.strip_rows;
    return {g * z.group + first, gemm::min64(p.strip_rows, z.group - first), g, 1};
  }
  const int64_t a = index * p.a_rows, n = gemm::min64(p.a_rows, z.A - a);
  return {a * z.group, n * z.group, a, n};
}

// Scratch of the fused pass over both projections, in floats from its start.
struct FbpScratch {
  int64_t biases = 0;           // bu then bv in packed order, where given
  int64_t a = 0, v = 0;         // strips packed ahead, kFbpStrips of them
  int64_t worker = 0, own = 0;  // first worker's part, size of one
  int64_t own_hu = 0, own_hv = 0, own_s = 0, own_mask = 0, own_panels = 0;  // within a worker's part
  int64_t total = 0;
};
static constexpr FbpScratch fbp_scratch(const FbpSizes& z, const FbpPlan& p, int workers) {
  FbpScratch s{};
  const int64_t together = gemm::min64(kFbpStrips, p.strips);
  s.a = 2 * gemm::round_up(z.o, 16) * z.k;
  s.v = s.a + together * gemm::round_up(p.a_rows * z.em, 16);
  s.worker = s.v + together * gemm::round_up(p.strip_rows * z.en, 16);
  s.own_hv = s.own_hu + p.panels * p.a_rows * gemm::kColumnUnit;
  s.own_s = s.own_hv + p.panels * p.strip_rows * gemm::kColumnUnit;
  s.own_mask = s.own_s + p.task_strips * p.strip_rows * 16;
  // One row more: in element order.
  s.own_panels = s.own_mask + (z.dropout ? (p.task_strips * p.strip_rows + 1) * 16 * z.k : 0);
  // Weights that nobody packed: a group's panels if several strips meet them, else the pieces of two panels.
  const int64_t panels = p.task_strips > 1 ? p.panels : 2;
  const int64_t depth = p.task_strips > 1 ? z.em + z.en : gemm::max64(p.piece_m, p.piece_n);
  s.own = gemm::round_up(s.own_panels + panels * gemm::kColumnUnit * depth, 16);
  s.total = s.worker + workers * s.own;
  return s;
}
static constexpr int64_t fbp_forward_workspace(const FbpSizes& z, int workers) {
  return fbp_scratch(z, fbp_plan(z), workers).total;
}

// dx = g W and dW = g^T x for g [rows,P], x [rows,width]. dx of few rows reads W as it lies, of many rows packs it first.
static constexpr bool fbp_streams_dx(int64_t rows) { return rows <= gemm::kStreamRows; }
static constexpr int64_t fbp_products_workspace(int64_t rows, int64_t width, int64_t P, int workers) {
  // With bf16 operands an odd P is one more.
  const int64_t E = gemm::even(P);
  const int64_t dx = fbp_streams_dx(rows)
                         ? gemm::stream_workspace_floats(rows, width, P, workers)
                         : gemm::packed_floats(width, E) +
                               gemm::max64(gemm::workspace_floats(rows, width, P, workers, gemm::Split::any),
                                           gemm::workspace_floats(rows, width, E, workers, gemm::Split::any));
  return gemm::max64(dx, gemm::stream_workspace_floats(P, width, rows, workers));
}

// Both for hu and hv together and for the gradients there, gU and gV: more than this is not held, in bytes.
constexpr int64_t kFbpBudget = int64_t(64) << 20;

// Keep or recompute: whether the forward offers hu and hv.
static constexpr bool fbp_keeps(const FbpSizes& z) {
  return (double(z.A) + double(z.B)) * double(z.P) * sizeof(float) <= double(kFbpBudget);
}
// Whether a backward has what it needs not to project again. TensorDesc or Tensor.
template <class Desc>
static inline bool fbp_kept(const Desc* in) {
  return in[FbpIn::s].given() && in[FbpIn::hu].given() && in[FbpIn::hv].given();
}

// Backward: how many strips' gradients at the projections are held at a time, and where everything lies. This one function
// decides between holding them all and going in chunks.

struct FbpBackwardScratch {
  int64_t chunk_strips = 0, chunk_rows = 0, chunk_a = 0;
  int64_t s = 0;          // [B,o] s when it was not saved
  int64_t ds = 0;         // [B,o] gradient at s
  int64_t gu = 0, gv = 0; // [chunk_a,P], [chunk_rows,P]
  int64_t partial = 0;    // [chunk_strips,P] sums over strips of gU when groups are longer than a strip; not if kept
  int64_t pass = 0;       // the fused pass, then the products one after another
  int64_t total = 0;
};
static constexpr FbpBackwardScratch fbp_backward_plan(const FbpSizes& z, const FbpPlan& p, int workers, bool saved_s,
                                                      bool kept) {
  FbpBackwardScratch s{};
  const int64_t per_strip = (p.strip_rows + p.a_rows) * z.P * int64_t(sizeof(float));
  // Chunks hold whole groups: a row of gU is never split between two of them.
  int64_t strips = gemm::max64(1, kFbpBudget / gemm::max64(1, per_strip));
  strips = gemm::max64(p.strips_per_group, strips / p.strips_per_group * p.strips_per_group);
  s.chunk_strips = gemm::min64(gemm::max64(p.strips, 1), strips);
  s.chunk_rows = gemm::min64(z.B, s.chunk_strips * p.strip_rows);
  s.chunk_a = p.strips_per_group > 1 ? s.chunk_strips / p.strips_per_group : gemm::min64(z.A, s.chunk_strips * p.a_rows);
  const int64_t rows16 = gemm::round_up(z.B * z.o, 16);
  s.ds = s.s + (saved_s ? 0 : rows16);
  s.gu = s.ds + rows16;
  s.gv = s.gu + gemm::round_up(s.chunk_a * z.P, 16);
  s.partial = s.gv + gemm::round_up(s.chunk_rows * z.P, 16);
  s.pass = s.partial + (p.strips_per_group > 1 && !kept ? gemm::round_up(s.chunk_strips * z.P, 16) : 0);
  // The last chunk may be shorter, and a shorter one may be cut into more tasks: both lengths count.
  const int64_t last_a = s.chunk_a ? z.A % s.chunk_a : 0, last_rows = s.chunk_rows ? z.B % s.chunk_rows : 0;
  int64_t most = fbp_products_workspace(s.chunk_a, z.m, z.P, workers);
  most = gemm::max64(most, fbp_products_workspace(last_a, z.m, z.P, workers));
  most = gemm::max64(most, fbp_products_workspace(s.chunk_rows, z.n, z.P, workers));
  most = gemm::max64(most, fbp_products_workspace(last_rows, z.n, z.P, workers));
  s.total = s.pass + (kept ? most : gemm::max64(most, fbp_scratch(z, p, workers).total));
  return s;
}

}  // namespace affuse
