// Activations on a device, for ActivationKind; formulas and treatment of NaN as in kernels/common/math.h and linear/cpu.cc.
#pragma once
#include <cmath>

#include "../../activation/activation.h"
#include "stream.h"

namespace affuse::cuda {

AFFUSE_DEVICE float sigmoid(float z) {
  const float e = expf(-fabsf(z)), r = 1.0f / (1.0f + e);
  return z < 0 ? e * r : r;
}
// Phi(z) without cancellation in the left tail, phi(z).
AFFUSE_DEVICE float normal_cdf(float z) { return 0.5f * erfcf(z * -0.70710678118654752f); }
AFFUSE_DEVICE float normal_pdf(float z) { return expf(z * z * -0.5f) * 0.3989422804014327f; }

AFFUSE_DEVICE float activated(int kind, float z) {
  switch (kind) {
    case ActivationKind::relu: return z < 0 ? 0.0f : z;  // NaN stays
    case ActivationKind::gelu: return z * normal_cdf(z);
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
    case ActivationKind::gelu: return dy * (s * normal_pdf(s) + normal_cdf(s));
    case ActivationKind::tanh: return dy * (1.0f - s * s);
    case ActivationKind::sigmoid: return dy * (s * (1.0f - s));
    default: return dy;
  }
}

}  // namespace affuse::cuda
