// Softmax cross-entropy with missing labels, class weights and label smoothing (spec section 1.5).
//
//   p_ic = softmax(logits_i)_c,   l_ic = -log p_ic,   w = class weights (all 1 when absent),   eps = labelSmoothing
//   W = sum over labelled i of w_{y_i}
//   loss = (1/W) sum over labelled i of [ (1-eps) w_{y_i} l_{i,y_i} + (eps/C) sum_c w_c l_ic ];   0 when W = 0
//
// which is PyTorch's CrossEntropyLoss(weight, label_smoothing, reduction="mean", ignore_index=-1).
//
//   dlogits_ic = (dloss/W) [ (1-eps) w_{y_i} (p_ic - [c = y_i]) + (eps/C) (p_ic sum_k w_k - w_c) ]    0 for missing labels
//              + p_ic (dposteriors_ic - sum_k dposteriors_ik p_ik)                                   for every row
//   dclassWeights_c = (dloss/W) [ sum over i with y_i = c of ((1-eps) l_ic - loss) + (eps/C) sum over labelled i of l_ic ]
//
// logits, posteriors [B,C]; labels int32 [B], -1 = missing, else in [0,C); classWeights [C], not negative; loss [1];
// count int32 [1] (optional output): labelled samples of non-zero weight, for uncertainty_loss. Saved: posteriors (absent:
// computed again).
// Error (float32): posteriors as softmax; each l_ic (C/16 + 5 log C + 36) 2^-24, absolute, as only the logarithm of the sum is
// rounded; summed in float64.
// Singular points: none. W = 0 (no label, or only labels of weight 0) gives loss 0 and gradient 0. NaN or infinity in the
// logits of a labelled sample makes the loss NaN or infinite; in an unlabelled one it reaches its posteriors only.
// FLOPs: forward 6 B C, backward 5 B C. Bytes: forward 4 (2 B C + B), backward 4 (3 B C + B).
#pragma once
#include "../common/op.h"

namespace affuse {
extern const OpDef kSoftmaxCrossEntropy, kSoftmaxCrossEntropyBackward;
void softmax_cross_entropy_reference(const OpCall&);
void softmax_cross_entropy_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(softmax_cross_entropy_forward)
AFFUSE_DECLARE_KERNEL(softmax_cross_entropy_backward)

struct CrossEntropyIn {  // input indexes
  enum : int { logits, labels, class_weights, posteriors, dloss, dposteriors };
};
}  // namespace affuse
