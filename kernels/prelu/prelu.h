// Parametric ReLU with one learned slope (He et al. 2015).
//
//   y = x where x > 0, else a x
//   dx = dy where x > 0, else a dy        da = sum over x <= 0 of dy x
//
// x, y, dy, dx [...]: any shape; slope a [1].
// Error (float32): y, dx one rounding; da within 2^-23 * 32 * sum|dy x| (blocks of 4096 floats, then float64).
// Singular points: x = 0, where dx = a dy (as PyTorch's). NaN and infinity propagate.
// FLOPs: N, backward 3 N. Bytes: 8 N + 4, backward 12 N + 8.
#pragma once
#include "../common/op.h"

namespace affuse {
extern const OpDef kPrelu, kPreluBackward;
void prelu_reference(const OpCall&);
void prelu_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(prelu_forward)
AFFUSE_DECLARE_KERNEL(prelu_backward)

constexpr int64_t kPreluChunk = 16384;  // elements per task; one partial sum of the slope's gradient each
}  // namespace affuse
