// Multi-task loss under uncertainty (spec section 1.5; Kendall, Gal, Cipolla 2018; Liebel, Koerner 2018 for log1p).
//
//   s = log sigma^2 of a task, L its loss:      term                              dL                 ds
//   kendall   cross-entropy   e^{-s} L + s/2                     e^{-s}             1/2 - e^{-s} L
//             squared error   e^{-s} L / 2 + s/2                 e^{-s} / 2         1/2 - e^{-s} L / 2
//   half      both            e^{-s} L / 2 + s/2                 e^{-s} / 2         1/2 - e^{-s} L / 2
//   log1p     both            e^{-s} L / 2 + log(1 + e^s)        e^{-s} / 2         sigmoid(s) - e^{-s} L / 2
//   sum       both            L                                  1                  0
//   loss = term(ce, s_e) + term(mse, s_v)
//
// All tensors [1]. countE, countV (int32, optional): labels that the batch had for the task; 0 leaves the whole term out,
// so it adds 0 to the loss and its gradients are 0, whatever L and s hold.
// Error (float32): computed in float64, one rounding at the end.
// Singular points: none. e^{-s}, products and the result saturate at the largest finite number instead of overflowing, so
// gradients stay finite for every finite input; log(1 + e^s) is max(s,0) + log1p(e^{-|s|}). NaN propagates.
// FLOPs: 12, backward 12. Bytes: 20 (+ 8 for the counts), backward 36 (+ 8).
#pragma once
#include "../common/op.h"

namespace affuse {
extern const OpDef kUncertaintyLoss, kUncertaintyLossBackward;
void uncertainty_loss_reference(const OpCall&);
void uncertainty_loss_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(uncertainty_loss_forward)
AFFUSE_DECLARE_KERNEL(uncertainty_loss_backward)

struct UncertaintyForm {  // values of the attribute `form`
  enum : int { kendall, half, log1p, sum };
};
struct UncertaintyIn {  // input indexes
  enum : int { ce, mse, s_e, s_v, count_e, count_v, dloss };
};
}  // namespace affuse
