#include <cmath>

#include "activation.h"

namespace affuse {
namespace {

// Phi(x) without cancellation in the left tail.
double normal_cdf(double x) { return 0.5 * std::erfc(-x * M_SQRT1_2); }
double normal_pdf(double x) { return std::exp(-0.5 * x * x) * M_SQRT1_2 / std::sqrt(M_PI); }

double value(int f, double x) {
  switch (f) {
    case ActivationKind::relu: return x < 0 ? 0 : x;  // NaN stays
    case ActivationKind::gelu: return x * normal_cdf(x);
    case ActivationKind::tanh: return std::tanh(x);
    case ActivationKind::sigmoid: return 1 / (1 + std::exp(-x));
    default: return x;
  }
}

double slope(int f, double x, double y) {
  switch (f) {
    case ActivationKind::relu: return x > 0 ? 1 : 0;
    case ActivationKind::gelu: return normal_cdf(x) + (std::isinf(x) ? 0 : x * normal_pdf(x));
    case ActivationKind::tanh: return 1 - y * y;
    case ActivationKind::sigmoid: return y * (1 - y);
    default: return 1;
  }
}

}  // namespace

void activation_reference(const OpCall& call) {
  const int f = int(call.attr[0].i);
  for (int64_t i = 0; i < call.in[0].count(); ++i) call.out[0].f64()[i] = value(f, call.in[0].f64()[i]);
}

void activation_backward_reference(const OpCall& call) {
  const int f = int(call.attr[0].i);
  const double *x = call.in[0].f64(), *y = call.in[1].f64(), *dy = call.in[2].f64();
  for (int64_t i = 0; i < call.in[0].count(); ++i)
    call.out[0].f64()[i] = dy[i] * slope(f, x[i], y ? y[i] : value(f, x[i]));
}

}  // namespace affuse
