// Activations on a device whose kind is known at run time only: epilogues of products and their derivatives.
#pragma once
#include <cmath>

#include "../../activation/activation.h"
#include "math.h"
#include "stream.h"

namespace affuse::cuda {

AFFUSE_DEVICE float activated(int kind, float z) {
  switch (kind) {
    case ActivationKind::relu: return z < 0 ? 0.0f : z;  // NaN stays
    case ActivationKind::gelu: return gelu(z);
    case ActivationKind::tanh: return tanhf(z);
    case ActivationKind::sigmoid: return sigmoid(z);
    default: return z;
  }
}
template <int N>
AFFUSE_DEVICE Pack<N> activate(int kind, const Pack<N>& z) {
  return kind == ActivationKind::none ? z : z.map([kind](float x) { return activated(kind, x); });
}

// f'(z) dy from what is at hand: s is y = f(z), for gelu z itself.
AFFUSE_DEVICE float slope_times(int kind, float s, float dy) {
  switch (kind) {
    case ActivationKind::relu: return s > 0 ? dy : 0.0f;
    case ActivationKind::gelu: return dy * gelu_grad(s);
    case ActivationKind::tanh: return dy * fmaf(-s, s, 1.0f);
    case ActivationKind::sigmoid: return dy * (s * (1.0f - s));
    default: return dy;
  }
}

}  // namespace affuse::cuda
