// 2-D convolution (cross-correlation, as PyTorch's) with bias and activation (spec 1.6, 2.2).
//
//   z[b,o,h,w] = b_o + sum_{c,i,j} x[b, c, h stride + i - pad, w stride + j - pad] W[o,c,i,j]
//   y = f(z), f: none | relu
//   OH = floor((H + 2 pad - kh) / stride) + 1, OW likewise; x is 0 outside.
//   with g = dy f'(z):   dW[o,c,i,j] = sum over b, h, w of g[b,o,h,w] x[…]      db_o = sum of g      relu' at 0 is 0
//   dx[b,c,u,v] = sum over o and all i, j with u + pad - i = h stride, v + pad - j = w stride of g[b,o,h,w] W[o,c,i,j]
//
// x [B,C,H,W], y [B,O,OH,OW], or with layout nhwc [B,H,W,C] and [B,OH,OW,O]; W [O,C,kh,kw] always; b [O] or absent.
// widths int32 [B] and yWidths as in common/maps.h: the columns beyond an item's own count as zeros, cost nothing and
// get no gradient, so that an item's columns of y are those that it has alone, bit for bit.
//
// How: products over channel-last maps through the matrix core (kernels/gemm), in which a row of the patch matrix is kh
// runs of kw C neighbouring floats of a map whose edge of zeros is laid around it once ("staged", patches.h). dx is a
// sum over the phases (u + pad) mod stride, each an ordinary convolution of the staged g by the taps that meet it; dW a
// product over all positions.
//
// precision bf16: x, W and g are rounded to bf16 for the products, sums and everything else (db too) stay float32
// (gemm/bf16.h).
//
// Saved tensors: relu gets f' from y; absent, it is computed again.
// Error (float32): |z - exact| <= (K + 2) 2^-24 (sum |x||W| + |b|), K = C kh kw, typically sqrt(K) instead of K; dx
// likewise with O kh kw terms, dW and db with B OH OW terms.
// NaN and infinities propagate as IEEE arithmetic has it: through x to the windows that hold it, through W to every sum
// of its o whose tap meets the map, likewise through g. Whether they meet the zeros of the edge is not defined: where a block
// of positions has nothing else in some rows of the kernel, those are left out. relu passes NaN in the forward and stops it
// in the backward.
// B = 0 is legal: y is empty, dW and db are 0.
//
// FLOPs: forward 2 B O C times the taps inside the map, over OH and over OW (2 B OH OW O C kh kw without pad); backward as
// much for each of dx and dW, B OH OW O for db (items' own columns only).
// Bytes: every input read once, every output written once.
#pragma once
#include "../common/maps.h"
#include "../common/op.h"
#include "../gemm/bf16.h"

namespace affuse {

extern const OpDef kConv2d, kConv2dBackward;
void conv2d_reference(const OpCall&);
void conv2d_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(conv2d_forward)
AFFUSE_DECLARE_KERNEL(conv2d_backward)
// Pack W for the forward and for dx.
AFFUSE_DECLARE_PACK(conv2d_pack)
AFFUSE_DECLARE_PACK(conv2d_backward_pack)

struct Conv {
  Maps x, y;
  int64_t O, kh, kw, stride, pad;
  bool relu, bf16;
  int precision;
  AFFUSE_INLINE int64_t taps() const { return kh * kw; }
  AFFUSE_INLINE int64_t depth(int64_t K) const { return bf16 ? gemm::even(K) : K; }  // of a product over K, as packed
  AFFUSE_INLINE int64_t own(const int32_t* widths, int64_t b) const {  // columns of y that are b's own
    return window_count(own_width(widths, b, x.W), kw, stride, pad);
  }
};
[[maybe_unused]] static Conv conv_of(const TensorDesc& x, const TensorDesc& W, const Attr* attr) {
  Conv c{};
  c.x = maps_of(x, attr[3].i);
  c.O = W.dim[0], c.kh = W.dim[2], c.kw = W.dim[3];
  c.stride = attr[0].i, c.pad = attr[1].i;
  c.relu = attr[2].i != 0;
  c.precision = int(attr[4].i);
  c.bf16 = c.precision == gemm::Precision::bf16;
  c.y = resized(c.x, c.O, window_count(c.x.H, c.kh, c.stride, c.pad), window_count(c.x.W, c.kw, c.stride, c.pad));
  return c;
}

// A channel-last map with an edge: `top` rows and `left` columns of zeros before, as many after as make it H x W.
struct Stage {
  int64_t top, left, H, W, C;
  AFFUSE_INLINE int64_t image() const { return H * W * C; }
};

// Where x has to be staged: an edge to lay around it, or another layout. Columns beyond widths meet no window of their
// own item unless there is an edge.
[[maybe_unused]] static Stage stage_x(const Conv& c) {
  return {c.pad, c.pad, c.x.H + 2 * c.pad, c.x.W + 2 * c.pad, c.x.C};
}
[[maybe_unused]] static bool stages_x(const Conv& c) { return c.pad > 0 || (!c.x.last && c.x.C > 1); }

// Taps of one phase of dx along one axis: positions u with (u + pad) mod stride = r meet the taps i = r + stride t, t <
// taps, and the rows (u + pad) / stride - t of g.
struct Phase {
  int64_t r, taps, first, count;  // first position u, how many there are (stride apart) in n
  // Where tap i stands among them, in descending order; -1: it is another phase's.
  AFFUSE_INLINE int64_t tap(int64_t i, int64_t stride) const {
    if (stride == 1) return taps - 1 - i;
    return i < r || (i - r) % stride != 0 ? -1 : taps - 1 - (i - r) / stride;
  }
};
[[maybe_unused]] static Phase phase_of(int64_t r, int64_t n, int64_t size, int64_t stride, int64_t pad) {
  Phase p{r, 0, 0, 0};
  p.taps = r < size ? (size - r + stride - 1) / stride : 0;
  p.first = ((r - pad) % stride + stride) % stride;
  p.count = p.first < n ? (n - p.first + stride - 1) / stride : 0;
  return p;
}
// The edge that g needs so that every phase stays inside: rows before and rows altogether.
struct Reach {
  int64_t before, total;
};
[[maybe_unused]] static Reach reach_of(int64_t n, int64_t out, int64_t size, int64_t stride, int64_t pad) {
  Reach e{0, 0};
  for (int64_t r = 0; r < stride; ++r) {
    const Phase p = phase_of(r, n, size, stride, pad);
    if (p.count && p.taps) e.before = gemm::max64(e.before, p.taps - 1 - (p.first + pad) / stride);
  }
  e.total = e.before + gemm::max64(out, (n - 1 + pad) / stride + 1);
  return e;
}
[[maybe_unused]] static Stage stage_g(const Conv& c, bool dx) {
  if (!dx) return {0, 0, c.y.H, c.y.W, c.O};
  const Reach h = reach_of(c.x.H, c.y.H, c.kh, c.stride, c.pad), w = reach_of(c.x.W, c.y.W, c.kw, c.stride, c.pad);
  return {h.before, w.before, h.total, w.total, c.O};
}
// For dW and db alone g can stay where it is: their loader stops at relu itself and visits own columns only. (With bf16
// operands db has a pass of its own, over g as it is without rounding.)
[[maybe_unused]] static bool stages_g(const Conv& c, const Stage& s, bool dx, bool dW, bool widths) {
  if (!c.y.last && c.O > 1) return true;
  if (!dx && dW && !c.bf16) return false;
  return c.relu || widths || s.H != c.y.H || s.W != c.y.W;
}
// Floats of a packed [N,K] weight. bf16 takes as many: pairs are made in place of float32.
[[maybe_unused]] static int64_t conv_packed_floats(const Conv& c, int64_t N, int64_t K) {
  return gemm::packed_floats(N, c.depth(K));
}
// Weights of dx: phase after phase, each [C][taps of the phase x O] packed; at most this many floats.
[[maybe_unused]] static int64_t packed_dx_floats(const Conv& c) {
  int64_t n = 0;
  for (int64_t r = 0; r < c.stride && r < c.kh; ++r)
    for (int64_t q = 0; q < c.stride && q < c.kw; ++q)
      n += conv_packed_floats(c, c.x.C,
                              phase_of(r, 1, c.kh, c.stride, 0).taps * phase_of(q, 1, c.kw, c.stride, 0).taps * c.O);
  return n;
}

// dW and db: products over all positions, [O, positions] x [positions, K + 1], the last column ones. A task owns a block
// of rows and columns: its sums and the columns of a piece of the positions stay in the L2 cache while the rows pass by.
// Where blocks are few, the positions are cut into slices too, whose sums meet in order; where several blocks of columns
// need the rows, these are packed once, ahead.
constexpr int kGradRows = 392, kGradColumns = 128;
constexpr int64_t kGradPiece = 512;  // positions that are packed at a time
struct GradPlan {
  int64_t row_blocks, block_rows, col_units, col_blocks, slices;
  bool ahead;
  // Where a block of columns starts: blocks differ by one panel at most.
  AFFUSE_INLINE int64_t column(int64_t block) const { return block * col_units / col_blocks * gemm::kColumnUnit; }
  int64_t results, rows, worker;  // floats: sums of all slices, rows packed ahead, one worker's own
};
[[maybe_unused]] static GradPlan grad_plan(const Conv& c) {
  const int64_t N = c.x.C * c.taps() + 1, positions = c.x.B * c.y.H * c.y.W;
  GradPlan p{};
  p.row_blocks = gemm::ceil_div(c.O, kGradRows);
  p.block_rows = gemm::ceil_div(c.O, p.row_blocks);
  p.col_units = gemm::ceil_div(N, gemm::kColumnUnit);
  p.col_blocks = gemm::ceil_div(p.col_units * gemm::kColumnUnit, kGradColumns);
  if (p.col_blocks > 4) p.col_blocks = gemm::round_up(p.col_blocks, 4);  // as many for every thread
  const int64_t tasks = p.row_blocks * p.col_blocks;
  p.slices = gemm::max64(1, gemm::min64(gemm::ceil_div(8, tasks), positions / 1024));
  p.ahead = p.col_blocks > 1;
  p.results = gemm::round_up(p.slices * c.O * N, 16);
  p.rows = p.ahead ? gemm::round_up(c.O * positions, 16) : 0;
  p.worker = (p.block_rows + kGradPiece) * kGradColumns + (p.ahead ? 0 : gemm::round_up(p.block_rows * kGradPiece, 16));
  return p;
}
[[maybe_unused]] static int64_t grad_floats(const Conv& c, int workers) {
  const GradPlan p = grad_plan(c);
  return p.results + p.rows + workers * p.worker;
}

// Workspaces, in floats; every part starts on a multiple of 16.
struct ConvScratch {
  int64_t first, staged, rows, weights, product, total;
};
// The forward: the table of the grid, staged x, y as rows (nchw only), packed W, what gemm::run asks for.
[[maybe_unused]] static ConvScratch conv_scratch(const Conv& c, int workers) {
  ConvScratch s{};
  const int64_t M = c.x.B * c.y.H * c.y.W, K = c.x.C * c.taps();
  s.staged = gemm::round_up(2 * (c.x.B + 1), 16);
  s.rows = s.staged + (stages_x(c) ? gemm::round_up(c.x.B * stage_x(c).image(), 16) : 0);
  s.weights = s.rows + (c.y.last || c.O == 1 ? 0 : gemm::round_up(M * c.O, 16));
  s.product = s.weights + conv_packed_floats(c, c.O, K);
  s.total = s.product + gemm::workspace_floats_upto(M, c.O, c.depth(K), workers, gemm::Split::any);
  return s;
}
// The backward: the table, staged x (for dW), staged g, dx as rows (nchw only), packed W of dx, y when relu has to compute it
// again, products (the forward's own scratch too).
struct ConvBackwardScratch {
  int64_t x, g, rows, weights, y, product, total;
};
[[maybe_unused]] static ConvBackwardScratch conv_backward_scratch(const Conv& c, int workers, bool dx, bool dW, bool widths,
                                                                  bool again) {
  ConvBackwardScratch s{};
  const int64_t B = c.x.B, C = c.x.C, M = B * c.y.H * c.y.W, N = B * c.x.H * c.x.W;
  s.x = gemm::round_up(2 * (B + 1), 16);
  s.g = s.x + (dW && stages_x(c) ? gemm::round_up(B * stage_x(c).image(), 16) : 0);
  const Stage g = stage_g(c, dx);
  s.rows = s.g + (stages_g(c, g, dx, dW, widths) ? gemm::round_up(B * g.image(), 16) : 0);
  s.weights = s.rows + (dx && !c.x.last && C > 1 ? gemm::round_up(N * C, 16) : 0);
  s.y = s.weights + (dx ? packed_dx_floats(c) : 0);
  s.product = s.y + (again ? gemm::round_up(M * c.O, 16) : 0);
  int64_t most = 0;
  for (int64_t r = 0; dx && r < c.stride && r < c.kh; ++r)
    for (int64_t q = 0; q < c.stride && q < c.kw; ++q) {
      const int64_t K = phase_of(r, 1, c.kh, c.stride, 0).taps * phase_of(q, 1, c.kw, c.stride, 0).taps * c.O;
      most = gemm::max64(most, gemm::workspace_floats_upto(N, C, c.depth(K), workers, gemm::Split::any));
    }
  if (dW) most = gemm::max64(most, grad_floats(c, workers));
  if (again) most = gemm::max64(most, conv_scratch(c, workers).total);
  s.total = s.product + most;
  return s;
}

}  // namespace affuse
