// Softmax over the last dimension.
//
//   y_rc = exp(x_rc - m_r) / sum_k exp(x_rk - m_r),  m_r = max_k x_rk
//   dx_rc = y_rc (dy_rc - sum_k dy_rk y_rk)
//
// x, y, dy, dx [..., C], C >= 1. Saved for the backward: y (absent: computed again).
// Error (float32): of y (|x - m| + log C + C/16 + 42) 2^-24, relative: the rounding of x - m itself is |x - m| 2^-24, log C is
// its mean over the row, weighted by y, and C/16 + 32 is the longest chain of additions, whose errors mostly cancel; where
// entries are equal they need not. Where exp(x - m) < 2^-126, y is 0; below 2^-126 y has fewer bits. Of dx that of y times |dx|,
// and what the difference loses: 2 (log C + C/16 + 40) 2^-24 max|dy| y.
// Singular points: none for finite x. A row with NaN or +inf, or of -inf only, becomes NaN; single -inf entries get 0.
// FLOPs: forward 5 N, backward 4 N (exp counted as one). Bytes: forward 8 N, backward 12 N.
#pragma once
#include "../common/op.h"

namespace affuse {
extern const OpDef kSoftmax, kSoftmaxBackward;
void softmax_reference(const OpCall&);
void softmax_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(softmax_forward)
AFFUSE_DECLARE_KERNEL(softmax_backward)
}  // namespace affuse
