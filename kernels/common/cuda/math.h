// Functions with stated error: relative to the exact result for float32 input, in units of 2^-23. What comes from the
// compiler's own library (expf, tanhf, logf) is within 2 of CUDA's (CUDA C++ Programming Guide, "Mathematical Functions")
// and within 1 (tanhf: 2) of glibc's; the rest is the CPU's arithmetic (kernels/common/math.h).
//
//   sigmoid(x)     <= 4 for results >= 2^-126, below an absolute error of 2^-126
//   normal(x)      {Phi(x), phi(x)}: <= 7 + x^2/2 for |x| <= 13, absolute error below 2^-126 beyond
//   gelu, gelu_grad   x Phi(x) and Phi(x) + x phi(x) from the same pieces
//
// NaN in, NaN out; infinities saturate as on the CPU.
#pragma once
#include "verbs.h"

namespace affuse::cuda {

AFFUSE_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

struct Normal {
  float cdf, pdf;
};
// For t = |x|, Phi(-t) = e^(-t^2/2) u P(u), u = 1/(1 + t/4), P fitted for 0 <= t <= 40: no cancellation in the left tail.
AFFUSE_DEVICE Normal normal(float x) {
  const float a = fabsf(x), t = a > 15.0f ? 15.0f : a;  // NaN stays
  const float g = expf(t * t * -0.5f), u = 1.0f / fmaf(t, 0.25f, 1.0f);
  float p = fmaf(0.020501289516687393f, u, -0.0839698538184166f);
  p = fmaf(p, u, 0.10110893845558167f);
  p = fmaf(p, u, -0.03696969524025917f);
  p = fmaf(p, u, 0.06656622141599655f);
  p = fmaf(p, u, 0.05809333175420761f);
  p = fmaf(p, u, 0.08173635601997375f);
  p = fmaf(p, u, 0.0934624895453453f);
  p = fmaf(p, u, 0.09973527491092682f);
  p = fmaf(p, u, 0.09973565489053726f);
  const float tail = g * (u * p);
  return {x > 0.0f ? 1.0f - tail : tail, g * 0.3989422804014327f};
}
AFFUSE_DEVICE float gelu(float x) { return x * normal(x).cdf; }
AFFUSE_DEVICE float gelu_grad(float x) {
  const Normal n = normal(x);
  return fmaf(x, n.pdf, n.cdf);
}

}  // namespace affuse::cuda
