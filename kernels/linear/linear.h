// Linear layer with its activation (spec 1.6).
//
//   y = f(x W^T + b)          x [...,D], W [O,D], b [O] or absent, y [...,O]; R = product of x's leading dimensions
//   f: none | relu | gelu | tanh | sigmoid; gelu is the exact one, z Phi(z) through erf (PyTorch's default), not its tanh
//   form
//
// Backward, with z = x W^T + b and g = dy f'(z):
//   dx = g W      dW = g^T x      db = sum over rows of g (blocks of 64 rows, then the blocks, always in this order)
//   relu' at 0 is 0.
//
// precision bf16: x, W and g are rounded to bf16 for the products, sums and everything else stay float32 (gemm/bf16.h).
//
// Saved tensors: relu, tanh and sigmoid get f' from y, gelu from `pre` = z, an output made on request. What is absent is
// computed again from x, W and b. `none` needs neither.
//
// Error (float32): |z - exact| <= (D+2) 2^-24 (sum |x||W| + |b|), typically sqrt(D) instead of D; f adds what common/math.h
// states. dx likewise with O terms, dW and db with R terms, plus the error of g.
// NaN and infinities propagate as IEEE arithmetic has it: through a row of x to that row of y, through W and b to a column.
// relu passes NaN in the forward and stops it in the backward (f' = 0 there).
// R = 0 is legal: y is empty, dW and db are 0.
//
// FLOPs: forward 2 R D O; backward 2 R D O for each of dx and dW, R O for db.
// Bytes: every input read once, every output written once: 4 (R D + O D + O + R O).
#pragma once
#include "../activation/activation.h"
#include "../common/op.h"
#include "../gemm/bf16.h"

namespace affuse {

extern const OpDef kLinear, kLinearBackward;
void linear_reference(const OpCall&);
void linear_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(linear_forward)
AFFUSE_DECLARE_KERNEL(linear_backward)
// Packs W for the forward (x W^T) and for dx = g W.
AFFUSE_DECLARE_PACK(linear_pack)
AFFUSE_DECLARE_PACK(linear_backward_pack)

struct LinearAttr {  // indexes into OpCall::attr
  enum : int { activation, precision };
};

// Workspaces, in floats. The forward hands all of its own to the product.
static inline int64_t linear_workspace(int64_t R, int64_t D, int64_t O, int workers, bool bf16) {
  if (bf16)
    return gemm::packed_floats_bf16(O, D, gemm::keeps_pairs(R)) +
           gemm::workspace_floats(R, O, gemm::even(D), workers, gemm::Split::any);
  return gemm::max64(gemm::unpacked_workspace_floats(R, O, D, workers),
                     gemm::workspace_floats(R, O, D, workers, gemm::Split::any));
}
// The backward: g at 0, from `products` on the products in turn. dx = g W of few rows reads W as it lies (gemm::stream), of
// many rows packs it first.
static inline bool linear_streams_dx(int64_t R) { return R <= gemm::kStreamRows; }
struct LinearBackwardScratch {
  int64_t products = 0, total = 0;
};
static inline LinearBackwardScratch linear_backward_scratch(int64_t R, int64_t D, int64_t O, int workers, bool activated,
                                                            bool bf16) {
  LinearBackwardScratch s;
  s.products = activated ? gemm::round_up(R * O, 16) : 0;
  int64_t most = gemm::workspace_floats(R, D, bf16 ? gemm::even(O) : O, workers, gemm::Split::any);
  if (linear_streams_dx(R)) most = gemm::max64(most, gemm::stream_workspace_floats(R, D, O, workers));
  else most += bf16 ? gemm::packed_floats_bf16(D, O, gemm::keeps_pairs(R)) : gemm::packed_floats(D, O);
  most = gemm::max64(most, gemm::stream_workspace_floats(O, D, R, workers));
  if (activated) most = gemm::max64(most, linear_workspace(R, D, O, workers, bf16));
  s.total = s.products + most;
  return s;
}

}  // namespace affuse
