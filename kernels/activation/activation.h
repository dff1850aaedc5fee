// Element-wise activations.
//
//   none      y = x                      dx = dy
//   relu      y = max(x, 0)              dx = dy where x > 0, else 0 (also at x = 0)
//   gelu      y = x Phi(x)               dx = dy (Phi(x) + x phi(x)), Phi exact (through erf), no tanh approximation
//   tanh      y = tanh x                 dx = dy (1 - y^2)
//   sigmoid   y = 1/(1 + e^-x)           dx = dy y (1 - y)
//
// x, y, dy, dx [...]: any shape. Saved for the backward: y, used by tanh and sigmoid (absent: computed again).
// Error (float32, relative): relu exact; tanh, sigmoid 3 * 2^-23; gelu (6 + x^2/2) * 2^-23, its derivative absolute
// (8 + x^2/2) * 2^-23 * max(Phi, |x| phi); dx of tanh and sigmoid absolute 4 * 2^-23 * |dy|.
// Singular points: relu at 0, where the derivative is taken as 0. NaN gives NaN; relu's dx at NaN is 0.
// FLOPs: N (gelu, tanh and sigmoid count as 1 per element too: memory decides), backward 3 N. Bytes: 8 N, backward 12 N.
#pragma once
#include "../common/op.h"

namespace affuse {
struct ActivationKind {  // values of the attribute
  enum : int { none, relu, gelu, tanh, sigmoid };
};

extern const OpDef kActivation, kActivationBackward;
void activation_reference(const OpCall&);
void activation_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(activation_forward)
AFFUSE_DECLARE_KERNEL(activation_backward)
}  // namespace affuse
