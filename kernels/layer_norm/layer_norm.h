// Layer normalisation over the last dimension (Ba, Kiros, Hinton 2016).
//
//   mean_r = (1/C) sum_c x_rc        var_r = (1/C) sum_c (x_rc - mean_r)^2        rstd_r = 1 / sqrt(var_r + eps)
//   xhat = (x - mean) rstd           y = gamma * xhat + beta
//   with d = dy * gamma:   dx = rstd (d - mean_c d - xhat mean_c(d xhat))
//   dgamma = sum_r dy xhat           dbeta = sum_r dy        (sums over rows in a fixed order)
//
// x, y, dx, dy [..., C]; gamma, beta [C]; R = product of the leading dimensions.
// Saved for the backward: mean [R], rstd [R] (optional outputs; computed again when absent).
// Error (float32): the mean is off by at most e = (C/16 + 8) 2^-24 mean_c|x|, typically by the root of the factor; with
// h = e rstd that moves xhat by h, and makes rstd too small by a relative h^2 / 2. Beside it y is off by
// (|xhat| (C/16 + 12) + 2) 2^-24 |gamma| and its last rounding; dx, which cancels, by rstd max|d| (1 + |xhat|) times
// h + (C/8 + 16) 2^-24. Rows with |mean| rstd > 256 are computed in float64 from x alone, without the saved mean and rstd:
// their y, rstd and dx carry the rounding of the result only. So a constant row beyond 256 sqrt(eps) has xhat = 0, and one
// within |xhat| <= h <= 256 (C/16 + 8) 2^-24.
// Singular points: none, since eps > 0. Rows whose variance leaves float32's range are computed in float64 too, and finite
// input gives finite results where the exact ones, dy gamma and its product with rstd fit float32. A NaN or infinity makes its
// row NaN (and dgamma, dbeta).
// FLOPs: forward 8 R C, backward 14 R C. Bytes: forward 4 (2 R C + 2 C), backward 4 (3 R C + 3 C).
#pragma once
#include "../common/op.h"

namespace affuse {
extern const OpDef kLayerNorm, kLayerNormBackward;
void layer_norm_reference(const OpCall&);
void layer_norm_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(layer_norm_forward)
AFFUSE_DECLARE_KERNEL(layer_norm_backward)

// dgamma and dbeta are summed over chunks of rows, then over chunks: the chunking depends on R only.
constexpr int64_t layer_norm_chunk(int64_t R) { return R <= 1024 ? 16 : (R + 63) / 64; }  // rows per chunk
}  // namespace affuse
