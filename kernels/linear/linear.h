// Linear layer with its activation (spec 1.6).
//
//   y = f(x W^T + b)          x [...,D], W [O,D], b [O] or absent, y [...,O]; R = product of x's leading dimensions
//   f: none | relu | gelu | tanh | sigmoid; gelu is the exact one, z Phi(z) through erf (PyTorch's default), not its tanh form
//
// Backward, with z = x W^T + b and g = dy f'(z):
//   dx = g W      dW = g^T x      db = sum over rows of g (blocks of 64 rows, then the blocks, always in this order)
//   relu' at 0 is 0.
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
#include "../gemm/gemm.h"

namespace affuse {

extern const OpDef kLinear, kLinearBackward;
void linear_reference(const OpCall&);
void linear_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(linear_forward)
AFFUSE_DECLARE_KERNEL(linear_backward)
// Packs W for the forward (x W^T) and for dx = g W.
AFFUSE_DECLARE_PACK(linear_pack)
AFFUSE_DECLARE_PACK(linear_backward_pack)

// Workspaces: where each part starts, in floats.
struct LinearScratch {  // the packed weight lies at 0
  int64_t gemm = 0, total = 0;
};
static inline LinearScratch linear_scratch(int64_t R, int64_t D, int64_t O, int workers) {
  LinearScratch s;
  s.gemm = gemm::packed_floats(O, D);
  s.total = s.gemm + gemm::workspace_floats(R, O, D, workers, gemm::Split::any);
  return s;
}

struct LinearBackwardScratch {  // g lies at 0
  int64_t packed = 0, gemm = 0, total = 0;
};
// The packed area serves the forward's layout (when z is computed again), then dx's; the last one the three products in turn.
static inline LinearBackwardScratch linear_backward_scratch(int64_t R, int64_t D, int64_t O, int workers, bool activated) {
  LinearBackwardScratch s;
  s.packed = activated ? gemm::round_up(R * O, 16) : 0;
  s.gemm = s.packed + gemm::max64(gemm::packed_floats(O, D), gemm::packed_floats(D, O));
  int64_t products = gemm::workspace_floats(R, D, O, workers, gemm::Split::any);
  products = gemm::max64(products, gemm::stream_workspace_floats(O, D, R, workers));
  if (activated) products = gemm::max64(products, gemm::workspace_floats(R, O, D, workers, gemm::Split::any));
  s.total = s.gemm + products;
  return s;
}

}  // namespace affuse
