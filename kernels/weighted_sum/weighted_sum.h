// Weighted sum of J vectors with per-sample weights, for the modality weighting of P1 (spec 2.1, structure `weighted`).
//
//   forward   y_b = Σ_j w_{b,j} x_{b,j}
//   backward  dx_{b,j} = w_{b,j} dy_b        dw_{b,j} = dy_b · x_{b,j}
//
// Shapes       x [B,J,D], w [B,J] → y [B,D].   J = 0 gives y = 0.
// Saved        nothing: the backward needs x and w only.
// Error bound  (ε = 2^-24, γ_n = nε/(1-nε))   |δy| ≤ γ_J Σ_j |w_j x_j|,   dx exact to ε,   |δdw| ≤ γ_D Σ_d |dy_d x_d|.
// Singular     none: linear in each input. NaN and infinity propagate, also through a weight of 0 (0 · NaN = NaN).
// FLOPs        forward 2·B·J·D; backward B·J·D (dx) + 2·B·J·D (dw).
// Bytes        forward 4(B·J·D + B·J + B·D); backward reads 4(B·J·D + B·J + B·D), writes 4(B·J·D + B·J).
// Tasks        one sample each; no reduction crosses samples.
#pragma once
#include "../common/op.h"

namespace affuse {

extern const OpDef kWeightedSum, kWeightedSumBackward;

enum WeightedSumInput { kWeightedSumX, kWeightedSumW, kWeightedSumDy };  // dy: backward only
enum WeightedSumGradient { kWeightedSumDx, kWeightedSumDw };

void weighted_sum_reference(const OpCall&);
void weighted_sum_backward_reference(const OpCall&);

AFFUSE_DECLARE_KERNEL(weighted_sum_forward)
AFFUSE_DECLARE_KERNEL(weighted_sum_backward)

}  // namespace affuse
