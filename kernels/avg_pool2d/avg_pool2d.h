// Average pooling over square windows, no padding (spec 1.6, 2.2).
//
//   y[b,c,h,w] = mean over i, j in [0, size) of x[b, c, h stride + i, w stride + j]
//   dx = sum over the windows that hold it of dy / size^2
//   OH = floor((H - size) / stride) + 1, OW likewise: a rest at the lower and right edge belongs to no window.
//
// x, dx [B,C,H,W], y, dy [B,C,OH,OW], or with layout nhwc [B,H,W,C] and [B,OH,OW,C]; size >= 1, stride >= 1 (0: size).
// widths int32 [B] and yWidths as in common/maps.h.
// The backward reads nothing of x but its shape.
// Error (float32): <= (size^2 + 1) 2^-24 of the mean of |x|. NaN and infinities propagate to their windows.
// FLOPs: size^2 B C OH OW, forward and backward. Bytes: 4 (B C H W + B C OH OW), forward and backward.
#pragma once
#include "../common/maps.h"
#include "../common/op.h"

namespace affuse {
extern const OpDef kAvgPool2d, kAvgPool2dBackward;
void avg_pool2d_reference(const OpCall&);
void avg_pool2d_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(avg_pool2d_forward)
AFFUSE_DECLARE_KERNEL(avg_pool2d_backward)
}  // namespace affuse
