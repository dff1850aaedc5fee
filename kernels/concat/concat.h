// Concatenation of up to eight tensors along one axis.
//
//   y = [x0; x1; …] along `axis`; absent inputs are skipped
//   dx_i = the slice of dy that x_i filled
//
// x_i: same rank and dimensions except along the axis, where zero is allowed. axis counts from the front, or from the back
// when negative (-1: the last).
// Error: none (copies). Singular points: none; NaN is copied.
// FLOPs: 0. Bytes: 8 N, N elements of y.
#pragma once
#include "../common/op.h"

namespace affuse {
constexpr int kConcatInputs = 8;

extern const OpDef kConcat, kConcatBackward;
void concat_reference(const OpCall&);
void concat_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(concat_forward)
AFFUSE_DECLARE_KERNEL(concat_backward)

// y seen as [outer][sum of widths]: row o of y holds, one after another, `width[i]` consecutive elements of every x_i.
struct ConcatPlan {
  int64_t outer, width[kConcatInputs], at[kConcatInputs], total;
};
[[maybe_unused]] static ConcatPlan concat_plan(const TensorDesc* in, int64_t axis) {
  ConcatPlan p = {1, {}, {}, 0};
  const TensorDesc& x0 = in[0];
  if (axis < 0) axis += x0.rank;
  for (int d = 0; d < axis; ++d) p.outer *= x0.dim[d];
  for (int i = 0; i < kConcatInputs; ++i) {
    p.width[i] = in[i].given() ? 1 : 0;
    for (int d = int(axis); p.width[i] && d < in[i].rank; ++d) p.width[i] *= in[i].dim[d];
    p.at[i] = p.total;
    p.total += p.width[i];
  }
  return p;
}
}  // namespace affuse
