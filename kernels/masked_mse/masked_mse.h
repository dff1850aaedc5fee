// Mean squared error over the targets that are there (spec section 1.5).
//
//   n = number of targets that are not NaN
//   loss = (1/n) sum over them of (prediction - target)^2;  0 when n = 0
//   dprediction = dloss 2 (prediction - target) / n where the target is there, else 0;  dtarget = -dprediction
//
// prediction, target [...]: same shape (usually [B]); loss [1]; count = n, int32 [1], optional: lets uncertainty_loss
// leave the task out when there is no label.
// Error (float32): 2^-23 * 16 * loss (blocks of 4096 floats, added in float64); gradients 4 roundings.
// Singular points: none. A NaN prediction beside a missing target does not reach the sum; beside a target that is there it
// makes the loss NaN. Differences beyond about 1e19 overflow float32 to an infinite loss; gradients are finite as long as
// 2 dloss (prediction - target)/n itself fits float32.
// FLOPs: 3 N, backward 3 N. Bytes: 8 N, backward 16 N.
#pragma once
#include "../common/op.h"

namespace affuse {
extern const OpDef kMaskedMse, kMaskedMseBackward;
void masked_mse_reference(const OpCall&);
void masked_mse_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(masked_mse_forward)
AFFUSE_DECLARE_KERNEL(masked_mse_backward)

constexpr int64_t kMaskedMseChunk = 16384;  // elements per task
struct MaskedMsePartial {
  double sum, missing;
};
}  // namespace affuse
