// Maximum pooling over square windows, no padding (spec 1.6, 2.2).
//
//   y[b,c,h,w] = max over i, j in [0, size) of x[b, c, h stride + i, w stride + j]
//   dx = sum of dy over the windows whose largest element it is; of equal ones the first in row-major order (as PyTorch)
//   OH = floor((H - size) / stride) + 1, OW likewise: a rest at the lower and right edge belongs to no window.
//
// x, dx [B,C,H,W], y, dy [B,C,OH,OW], or with layout nhwc [B,H,W,C] and [B,OH,OW,C]; size >= 1, stride >= 1 (0: size).
// widths int32 [B] and yWidths as in common/maps.h.
// Nothing is saved: the place of the maximum is found again in x.
// Error: y is exact; dx a sum of at most ceil(size / stride)^2 terms in row-major order of the windows. A NaN is larger
// than everything: its windows give NaN, and the last NaN of a window takes the gradient. A window of -inf alone counts
// its first element.
// FLOPs: size^2 B C OH OW, forward and backward. Bytes: 4 (B C H W + B C OH OW), backward 4 (2 B C H W + B C OH OW).
#pragma once
#include "../common/maps.h"
#include "../common/op.h"

namespace affuse {
extern const OpDef kMaxPool2d, kMaxPool2dBackward;
void max_pool2d_reference(const OpCall&);
void max_pool2d_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(max_pool2d_forward)
AFFUSE_DECLARE_KERNEL(max_pool2d_backward)
}  // namespace affuse
