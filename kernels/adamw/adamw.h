// Adam (Kingma, Ba 2015) and AdamW (Loshchilov, Hutter 2019), as torch.optim.Adam and torch.optim.AdamW compute them.
//
//   adam     g <- g + weightDecay p             (coupled: the decay passes through the moments)
//   adamw    p <- p - lr weightDecay p          (decoupled)
//   both     m <- beta1 m + (1 - beta1) g       v <- beta2 v + (1 - beta2) g^2
//            p <- p - lr/(1 - beta1^step) m / (sqrt(v)/sqrt(1 - beta2^step) + eps)
//
// p, g, m, v [...]: one shape; the outputs p, m, v may alias the inputs of the same name. step counts from 1.
// Error (float32): a few roundings per value: |error of the update| <= 16 * 2^-24 * (|p| + |update|).
// Singular points: v = 0 gives a step of lr m/eps; v must not be negative (it never is when it starts at 0). g^2 beyond
// float32 makes v infinite and the step 0. NaN in g reaches p, m and v of that element.
// Not differentiable.
// FLOPs: 14 N. Bytes: 28 N.
#pragma once
#include "../common/op.h"

namespace affuse {
extern const OpDef kAdam, kAdamw;
void adam_reference(const OpCall&);
void adamw_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(adam_update)
AFFUSE_DECLARE_KERNEL(adamw_update)

struct AdamAttr {  // attribute indexes
  enum : int { lr, beta1, beta2, eps, weight_decay, step };
};
}  // namespace affuse
